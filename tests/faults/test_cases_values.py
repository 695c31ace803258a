"""The table of faults, cases 14 to 22: what a caller gives, and headers that contradict the properties."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import wkdask
from wkdask import BoundingBox, Dataset, testing
from wkdask.errors import (
    DamagedCubeError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    WkdaskError,
)
from wkdask.storage.protocol import COMPRESSIONS, DTYPES


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a mag of two channels of uint16, 70 × 40 × 40 voxels in cubes of 32³, and its voxels."""
    folder, voxels = (
        tmp_path_factory.mktemp("filled") / "ds",
        testing.random_voxels((2, 70, 40, 40), "uint16"),
    )
    testing.small_mag(folder, "uint16", 2).write(voxels, offset=(0, 0, 0))
    return folder, voxels


@pytest.fixture
def filled(written, tmp_path):
    """A copy of that mag, and its voxels."""
    folder, voxels = written
    shutil.copytree(folder, tmp_path / "filled")
    return Dataset(tmp_path / "filled").get_layer("layer").get_mag(1), voxels.copy(order="F")


def properties_of(dataset):
    return Path(dataset.path, "datasource-properties.json")


def edit(dataset, change):
    """Change the JSON of the first layer by hand."""
    raw = json.loads(properties_of(dataset).read_text())
    change(raw["dataLayers"][0])
    properties_of(dataset).write_text(json.dumps(raw))


# --- 14: header and properties --------------------------------------------------------------------------


@pytest.fixture
def two_mags(tmp_path):
    """A dataset with one layer: mag 1 of ones, mag 2 of twos."""
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = dataset.add_layer("color", "color", dtype_per_channel="uint8")
    for mag, value in ((1, 1), (2, 2)):
        view = layer.add_mag(mag, chunk_shape=8, shard_shape=16)
        view.write(np.full((20, 20, 20), value, "uint8"), offset=(0, 0, 0))
    return dataset


HEADERS = {
    "dtype": (slice(6, 8), b"\x02\x02", "dtype uint16 against uint8"),
    "float": (slice(6, 8), b"\x05\x04", "dtype float32 against uint8"),
    "channels": (slice(6, 8), b"\x01\x03", "channels 3 against 1"),
    "cube": (slice(4, 5), b"\x23", "cubeLength 32 against 16"),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("says_channels", [True, False])
def test_case_14_a_header_that_contradicts_closes_its_mag_only(two_mags, name, says_channels):
    place, data, words = HEADERS[name]
    header = Path(two_mags.path, "color", "1", "header.wkw")
    content = bytearray(header.read_bytes())
    content[place] = data if name != "cube" else bytes([0x23])
    header.write_bytes(content)
    if not says_channels:
        edit(two_mags, lambda raw: raw.pop("numChannels"))
    opened = Dataset(two_mags.path)  # opening is fine
    layer = opened.get_layer("color")
    assert list(layer.mags) == [1, 2]
    with pytest.raises(DamagedHeaderError, match=words) as caught:
        layer.get_mag(1)
    assert str(header) in str(caught.value)
    assert "properties of layer 'color'" in str(caught.value)
    second = layer.get_mag(2)
    assert (second.read(offset=(0, 0, 0), size=(20, 20, 20)) == 2).all()
    second.write(np.full((3, 3, 3), 9, "uint8"), offset=(20, 0, 0))
    assert layer.bounding_box == BoundingBox((0, 0, 0), (46, 40, 40))
    layer.add_mag(4, shard_shape=32)
    assert words in repr(opened)


@pytest.mark.parametrize("content", [b"", b"WKW\1", b"\xff" * 16, None])
@pytest.mark.parametrize("says_channels", [True, False])
def test_case_14_a_damaged_header_closes_its_mag_only(two_mags, content, says_channels):
    header = Path(two_mags.path, "color", "1", "header.wkw")
    header.unlink()
    if content is not None:
        header.write_bytes(content)
    if not says_channels:
        edit(two_mags, lambda raw: raw.pop("numChannels"))
    layer = Dataset(two_mags.path).get_layer("color")
    with pytest.raises(DamagedHeaderError, match=r"1/header\.wkw"):
        layer.get_mag(1)
    assert (layer.get_mag(2).read(offset=(0, 0, 0), size=(20, 20, 20)) == 2).all()


def test_case_14_channels_that_nobody_knows(two_mags):
    """Neither the properties nor a header that agrees with them: every mag says so, the dataset opens."""
    edit(two_mags, lambda raw: (raw.pop("numChannels"), raw.update(elementClass="uint16")))
    layer = Dataset(two_mags.path).get_layer("color")
    for call in (lambda: layer.get_mag(1), lambda: layer.get_mag(2), lambda: layer.num_channels):
        with pytest.raises(DamagedHeaderError, match=r"'uint16'.*header\.wkw says uint8"):
            call()


# --- 15 and 16: offsets ---------------------------------------------------------------------------------

BEYOND = [
    (2**32, 0, 0), (0, 2**32, 0), (0, 0, 2**32), (2**32 - 1, 0, 0), (2**63, 0, 0), (2**64, 2**64, 2**64),
    (10**40, 0, 0),
    (np.int64(2**32), 0, 0), (0, np.uint64(2**32), 0), (0, 0, np.uint64(2**64 - 1)), (np.int64(2**63 - 1), 0, 0),
    np.array([2**32, 0, 0]), np.array([0, 2**32, 2**32], "uint64"), np.array([2**33, 5, 5], object),
    [2**32 + 3, 2**32 + 3, 2**32 + 3],
]  # fmt: skip
NOT_OFFSETS = [
    (-1, 0, 0), (0, 0, -(2**32)), np.array([-1, -1, -1]), np.array([0, -5, 0], "int8"), (0.5, 0, 0), (1.0, 0, 0),
    (float("nan"), 0, 0), (0, float("inf"), 0), np.array([1.0, 2.0, 3.0]), np.array([np.nan] * 3),
    (np.float32(1), 0, 0),
    ("1", 0, 0), "123", (None, 0, 0), (1j, 0, 0), (True, 0, 0), (np.True_, 0, 0), (1, 2), (1, 2, 3, 4), 7, object(),
    np.array([[1, 2, 3]]), np.datetime64("2021-01-01"),
]  # fmt: skip


def uses(mag, offset):
    """Return every call that takes an offset."""
    one = np.full((2, 3, 3, 3), 7, "uint16")

    def slices():
        with mag.get_buffered_slice_writer(offset=offset) as writer:
            writer.send(one[:, :, :, 0])

    def read_slices():
        with mag.get_buffered_slice_reader(offset=offset, size=(3, 3, 3)) as reader:
            next(reader)

    return [
        lambda: mag.read(offset=offset, size=(3, 3, 3)),
        lambda: mag.write(one, offset=offset),
        lambda: mag.write(da.from_array(one, chunks=2), offset=offset),
        lambda: mag.get_view(offset, (3, 3, 3), read_only=True),
        lambda: mag.get_view((0, 0, 0), (70, 40, 40)).write(one, offset=offset),
        lambda: mag.read(bounding_box=BoundingBox(offset, (3, 3, 3))),
        lambda: mag.write(one, bounding_box=BoundingBox(offset, (3, 3, 3))),
        lambda: mag.to_dask(bounding_box=BoundingBox(offset, (3, 3, 3))),
        slices,
        read_slices,
    ]


@pytest.mark.parametrize("offset", BEYOND, ids=repr)
def test_case_15_an_offset_beyond_32_bits_changes_no_voxel(filled, offset):
    """The library would wrap around and overwrite the origin."""
    mag, voxels = filled
    before = properties_of(mag.layer.dataset).read_bytes()
    for call in uses(mag, offset):
        with pytest.raises(InvalidValueError, match=r"2\*\*32|leaves the view"):
            call()
    assert np.array_equal(mag.read(), voxels)
    assert properties_of(mag.layer.dataset).read_bytes() == before


@pytest.mark.parametrize("offset", NOT_OFFSETS, ids=lambda bad: repr(bad).split(" at 0x")[0])
def test_case_16_what_is_no_offset_is_a_value_or_a_type_error(filled, offset):
    mag, voxels = filled
    for call in uses(mag, offset):
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        assert isinstance(caught.value, WkdaskError)
    assert np.array_equal(mag.read(), voxels)


OPTIMISED = """
import sys
import numpy as np
from wkdask import Dataset
from wkdask.errors import WkdaskError
mag = Dataset(sys.argv[1]).get_layer("layer").get_mag(1)
before = mag.read()
one = np.ones((2, 3, 3, 3), "uint16")
assert False, "with -O this is not looked at"
offsets = [(-1, 0, 0), (0, 0.5, 0), (float("nan"), 0, 0), np.array([-1, 2, 3]), np.array([1.5, 0, 0]),
           (2**32, 0, 0), np.array([2**32, 0, 0]), ("0", 0, 0)]
for offset in offsets:
    for call in (
        lambda: mag.read(offset=offset, size=(2, 2, 2)),
        lambda: mag.write(one, offset=offset),
        lambda: mag.get_view(offset, (2, 2, 2)),
        lambda: mag.read(offset=(0, 0, 0), size=[max(part, 1) for part in offset] if 2**32 in offset else offset),
    ):
        try:
            call()
            print("let through", offset)
        except (ValueError, TypeError) as error:
            if not isinstance(error, WkdaskError):
                print("not ours", repr(error))
for data in (one.astype(bool), one.astype(">u2"), one[:1], one[:, :0], np.ma.ones((2, 2, 2, 2), "uint16")):
    try:
        mag.write(data, offset=(0, 0, 0))
        print("let through", data.dtype)
    except WkdaskError:
        pass
for name in ("..", "a/b", "", "a\\0b", "layer"):
    try:
        mag.layer.dataset.add_layer(name, "color")
        print("let through", name)
    except WkdaskError:
        pass
print("unchanged", (mag.read() == before).all())
"""


@pytest.mark.slow  # Python compiles all modules anew
def test_case_16_under_python_O(filled):
    mag, _ = filled
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    command = [sys.executable, "-O", "-c", OPTIMISED, mag.place.dataset_path]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "unchanged True\n", "")


# --- 17: nothing to read or write -----------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", ["uint8", "uint64", "float32"])
def test_case_17_reads_of_size_zero_are_empty_wherever_they_are(make_mag, dtype, compression):
    mag = make_mag(dtype, 2, compression=compression)
    mag.write(np.ones((2, 40, 40, 40), dtype), offset=(0, 0, 0))
    Path(mag.path, "z1", "y1", "x1.wkw").write_bytes(b"damaged, but nothing is read of it")
    corners = [
        (0, 0, 0),
        (0, 5, 0),
        (32, 32, 32),
        (35, 35, 35),
        (40, 40, 40),
        (10**6, 0, 7),
        (2**32 - 1,) * 3,
    ]
    for corner, size in itertools.product(corners, [(0, 0, 0), (0, 5, 5), (3, 0, 0), (1, 1, 0)]):
        box = BoundingBox(corner, size)
        if max(box.bottomright) > 2**32:
            continue
        for found in (
            mag.read(offset=corner, size=size),
            mag.read(bounding_box=box),
            mag.get_view(corner, size, read_only=True).read(),
            mag.to_dask(bounding_box=box).compute(),
        ):
            assert found.shape == (2, *size)
            assert found.dtype == dtype
    lazy = mag.to_dask()
    for index in (np.s_[:, 5:5], np.s_[0:0], np.s_[:, 30:3], np.s_[:, :, []], np.s_[..., 40:]):
        found = lazy[index].compute()
        assert found.dtype == dtype
        assert found.shape == np.empty((2, 40, 40, 40))[index].shape


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_case_17_writes_of_size_zero_are_refused(filled, kind):
    mag, voxels = filled
    before = properties_of(mag.layer.dataset).read_bytes()
    for shape in ((2, 0, 3, 3), (2, 3, 0, 3), (2, 3, 3, 0), (2, 0, 0, 0), (0, 3, 3, 3)):
        data = (np if kind == "numpy" else da).ones(shape, dtype="uint16")
        for arguments in ({"offset": (1, 2, 3)}, {"offset": (2**32 - 1, 0, 0)}, {}):
            with pytest.raises(ValueError, match=r"holds no voxel|channel"):
                mag.write(data, **arguments)
    assert np.array_equal(mag.read(), voxels)
    assert properties_of(mag.layer.dataset).read_bytes() == before


# --- 18 and 19: types -----------------------------------------------------------------------------------

WRONG = [
    "bool",
    "float16",
    "complex64",
    "object",
    "M8[s]",
    "m8[s]",
    "U3",
    "S2",
    ">u2",
    ">i8",
    ">f4",
    "V4",
    "longdouble",
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_case_18_another_type_is_an_error_and_never_a_cast(make_mag, dtype):
    mag = make_mag(dtype)
    others = [each for each in (*DTYPES, *WRONG) if np.dtype(each) != np.dtype(dtype)]
    if np.dtype(dtype).itemsize > 1:
        others.append(np.dtype(dtype).newbyteorder(">"))
    for other in others:
        data = np.zeros((3, 3, 3), other)
        for given in (data, da.from_array(data, chunks=2)):
            with pytest.raises(DTypeError, match=f"holds {dtype}"):
                mag.write(given, offset=(0, 0, 0))
        with pytest.raises(DTypeError), mag.get_buffered_slice_writer(offset=(0, 0, 0)) as writer:
            writer.send(data[..., 0])
    assert not list(mag.cubes_on_disk())
    assert mag.layer.bounding_box.is_empty()


def test_case_18_blocks_that_break_their_promise_are_not_written(make_mag):
    mag = make_mag("uint8")
    for wrong in (
        lambda block: block.astype("int64"),
        lambda block: block.astype(bool),
        lambda block: np.ma.masked_array(block, mask=True),
        lambda block: block[:, :1],
    ):
        promised = da.ones((1, 64, 32, 32), dtype="uint8", chunks=(1, 32, 32, 32)).map_blocks(
            wrong, dtype="uint8", meta=np.empty((0,) * 4, "uint8")
        )
        with pytest.raises(WkdaskError):
            mag.write(promised, offset=(0, 0, 0))
        assert not list(mag.cubes_on_disk())


@pytest.mark.parametrize("word", WRONG)
def test_case_18_layers_of_other_types_cannot_be(new, word):
    dataset = new()
    before = sorted(os.listdir(dataset.path)), properties_of(dataset).read_bytes()
    if word[0] == ">":  # a layer has no byte order: its voxels are little-endian on the disk
        assert dataset.add_layer("x", "color", dtype_per_channel=word).dtype_per_channel == np.dtype(word[1:])
        return
    for key in ("dtype_per_channel", "dtype_per_layer"):
        with pytest.raises(DTypeError):
            dataset.add_layer("x", "color", **{key: word})
        with pytest.raises(DTypeError):
            dataset.add_layer("x", "color", **{key: np.dtype(word)})
    assert (sorted(os.listdir(dataset.path)), properties_of(dataset).read_bytes()) == before


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 255), ("int16", 127), ("float32", 63), ("uint64", 31)])
def test_case_19_more_than_255_bytes_per_voxel_are_refused_before_any_file(new, dtype, most):
    dataset = new()
    before = sorted(os.listdir(dataset.path)), properties_of(dataset).read_bytes()
    for channels in (most + 1, 2 * most, 65536):
        with pytest.raises(DTypeError, match="at most 255"):
            dataset.add_layer("many", "color", dtype_per_channel=dtype, num_channels=channels)
        with pytest.raises(DTypeError, match="at most 255"):
            dataset.get_or_add_layer("many", "color", dtype_per_channel=dtype, num_channels=channels)
        assert (sorted(os.listdir(dataset.path)), properties_of(dataset).read_bytes()) == before
    expected = np.arange(most * 8).reshape(most, 2, 2, 2).astype(dtype)
    mag = dataset.add_layer("most", "color", dtype_per_channel=dtype, num_channels=most).add_mag(
        1, shard_shape=32
    )
    mag.write(expected, offset=(0, 0, 0))
    assert np.array_equal(mag.read(), expected)


# --- 20: masks and paths --------------------------------------------------------------------------------


def test_case_20_masked_arrays_are_refused(filled):
    mag, voxels = filled
    for mask in (False, True, np.ma.nomask):
        data = np.ma.masked_array(voxels, mask=mask)
        for given in (
            data,
            da.from_array(data, chunks=16),
            da.ma.masked_equal(da.from_array(voxels, chunks=16), 3),
        ):
            with pytest.raises(DTypeError, match="masked"):
                mag.write(given, offset=(0, 0, 0))
        with pytest.raises(DTypeError, match="masked"), mag.get_buffered_slice_writer() as writer:
            writer.send(data[..., 0])
    assert np.array_equal(mag.read(), voxels)


NO_PATHS = ["a\0b", "\0", b"bytes", "\udcff", "ok/\ud800", ""]


@pytest.mark.parametrize("path", NO_PATHS, ids=repr)
def test_case_20_paths_that_native_code_cannot_hold_are_refused(filled, tmp_path, monkeypatch, path):
    mag, _ = filled
    dataset = mag.layer.dataset
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for call in (
        lambda: Dataset(path),
        lambda: Dataset.create(path, (1, 1, 1)),
        lambda: Dataset.get_or_create(path, (1, 1, 1)),
        lambda: dataset.copy_dataset(path),
        lambda: dataset.shallow_copy_dataset(path),
        lambda: mag.compress(path),
        lambda: mag.rechunk(target_path=path),
        lambda: dataset.add_symlink_layer(path),
        lambda: dataset.add_copy_layer(path),
        lambda: mag.layer.add_symlink_mag(path),
        lambda: mag.layer.add_copy_mag(path),
    ):
        with pytest.raises(InvalidValueError, match="path"):
            call()
    assert os.listdir() == []


def test_case_20_a_folder_whose_name_is_no_text(tmp_path, monkeypatch):
    """Relative paths and links lead through it as well."""
    odd = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(odd)
    monkeypatch.chdir(odd)
    for call in (
        lambda: Dataset.create("ds", (1, 1, 1)),
        lambda: Dataset("ds"),
        lambda: Dataset(os.fsdecode(odd)),
    ):
        with pytest.raises(InvalidValueError, match="Unicode"):
            call()
    assert os.listdir(odd) == []
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("color", "color")
    mag = layer.add_mag(1, shard_shape=32)
    os.rename(mag.path, odd + b"/1")
    os.symlink(odd + b"/1", mag.path)
    with pytest.raises(InvalidValueError, match="Unicode"):
        layer.get_mag(1)


@pytest.mark.parametrize(
    "name", ["with spaces", "ünïcödé µ 😀", "new\nline", "quo'te\"s", "-rf", "100%", "a" * 200]
)
def test_case_20_other_paths_work(tmp_path, random_voxels, name):
    voxels = random_voxels((1, 40, 33, 3))
    dataset = Dataset.create(tmp_path / name, (1, 1, 1))  # a pathlib.Path
    dataset.add_layer("color", "color").add_mag(1, shard_shape=32, compression="lz4").write(voxels)
    for path in (tmp_path / name, str(tmp_path / name)):
        mag = Dataset(path).get_layer("color").get_mag(1)
        assert np.array_equal(mag.read(), voxels)
        assert np.array_equal(mag.to_dask().compute(), voxels)
    assert np.array_equal(
        dataset.copy_dataset(tmp_path / f"c{name}").get_layer("color").get_mag(1).read(), voxels
    )
    with pytest.raises(FileNotFoundError):
        Dataset(tmp_path / f"no {name}")


# --- 21: after the end ----------------------------------------------------------------------------------


def test_case_21_what_is_closed_or_gone_raises(filled):
    mag, voxels = filled
    view = mag.get_view((0, 0, 0), (9, 9, 9))
    with view:
        assert np.array_equal(view.read(), voxels[:, :9, :9, :9])
    with pytest.raises(InvalidValueError, match="not open"):
        view.close()
    assert np.array_equal(view.read(), voxels[:, :9, :9, :9])  # a view holds no handle: it works without
    writer = mag.get_buffered_slice_writer(offset=(0, 0, 0))
    for _ in range(2):
        with pytest.raises(InvalidValueError, match="with statement"):
            writer.send(voxels[..., 0])
    with writer:
        writer.send(voxels[..., 1])
    with pytest.raises(InvalidValueError, match="with statement"):
        writer.send(voxels[..., 0])
    with pytest.raises(InvalidValueError, match="used once"):
        writer.__enter__()
    writer.__exit__(None, None, None)  # nothing is left to be written
    voxels[..., 0] = voxels[..., 1]
    assert np.array_equal(mag.read(), voxels)


def test_case_21_handles_of_what_was_deleted_raise(filled):
    mag, _ = filled
    layer, lazy, writer = mag.layer, mag.to_dask(), mag.get_buffered_slice_writer()
    view = mag.get_view((0, 0, 0), (9, 9, 9))
    ones = np.ones((2, 3, 3, 3), "uint16")
    layer.delete_mag(1)
    for call in (
        mag.read, view.read, lazy.compute, mag.to_dask, writer.__enter__, lambda: mag.write(ones, offset=(0, 0, 0)),
        lambda: view.write(ones), mag.compress, mag.calculate_bounding_box, lambda: list(mag.cubes_on_disk()),
        lambda: layer.delete_mag(1), lambda: layer.get_mag(1),
    ):  # fmt: skip
        with pytest.raises(WkdaskError):
            call()
    assert "missing" in repr(mag)
    assert os.listdir(layer.path) == []
    layer.dataset.delete_layer(layer.name)
    for call in (lambda: layer.bounding_box, lambda: layer.add_mag(1), mag.read, lambda: layer.get_mag(1)):
        with pytest.raises(WkdaskError):
            call()


# --- 22: threads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_case_22_of_eight_threads_each_names_its_own_cube(make_mag, compression):
    """The library has one text of its last error for all threads."""
    mag = make_mag("uint8", compression=compression)
    mag.write(np.ones((16 * 32, 32, 32), "uint8"), offset=(0, 0, 0))
    cubes = [Path(mag.path, "z0", "y0", f"x{x}.wkw") for x in range(16)]
    for x, path in enumerate(cubes):
        data = path.read_bytes()
        if x % 4 == 0:
            path.write_bytes(data[: len(data) // 2])
        elif x % 4 == 1:
            path.write_bytes(b"")
        elif x % 4 == 2:
            path.write_bytes(data[:80] + b"\xff" * (len(data) - 80) if compression else data[:-1])
        else:
            path.write_bytes(data[:6] + b"\x02\x02" + data[8:])
    lazy, wrong, barrier = mag.to_dask(chunks="cube"), [], threading.Barrier(8)

    def work(number):
        barrier.wait()
        for turn in range(40):
            x = (number * 5 + turn * 7) % 16
            try:
                if turn % 5:
                    mag.read(offset=(32 * x + 1, 2, 3), size=(8, 8, 8))
                else:
                    lazy[:, 32 * x].compute(scheduler="synchronous")
                wrong.append((x, "read"))
            except DamagedCubeError as error:
                named = [each for each in range(16) if f"/x{each}.wkw" in str(error)]
                if named != [x]:
                    wrong.append((x, str(error)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
