"""A reader of many boxes: the voxels of `read`, of cubes as they are now, from every process."""

import multiprocessing
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_workers import BOXES, Samples, start, sum_of, sum_of_sample

from wkdask import BoundingBox, Dataset
from wkdask.errors import (
    AlignmentError,
    DamagedCubeError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    OutOfBoundsError,
)
from wkdask.geometry import Vec3Int
from wkdask.testing import boxes_within
from wkdask.view.reader import BoxReader

FORMS = [
    *(("wkw", compression) for compression in (None, "lz4", "lz4hc")),
    *(("zarr3", compression) for compression in (None, "zstd", "gzip", "blosc")),
    *(("zarr", compression) for compression in (None, "zstd", "zlib")),
]
CANVAS = (80, 72, 40)  # cubes of 32³; that at (32, 32, 0) does not exist


def make_mag(folder, form, dtype="uint8", channels=1, mag=1):
    """Return a mag and its voxels on the canvas, around which there are none."""
    data_format, compression = form
    voxels = np.random.default_rng(5).integers(1, 200, (channels, *CANVAS)).astype(dtype)
    voxels[:, 32:64, 32:64, :32] = 0
    dataset = Dataset.create(folder, (1, 1, 1))
    layer = dataset.add_layer(
        "color", "color", dtype_per_channel=dtype, num_channels=channels, data_format=data_format
    )
    chunk = 32 if data_format == "zarr" else 8
    found = layer.add_mag(mag, chunk_shape=chunk, shard_shape=32, compression=compression)
    found.write(voxels, offset=(0, 0, 0), durable=False, progress=False)
    return found, voxels


def put_together(voxels, box):
    """Return the voxels of a box, with zeros where there are none."""
    expected = np.zeros((voxels.shape[0], *box.size), voxels.dtype)
    inside = box.intersection(BoundingBox((0, 0, 0), voxels.shape[1:]))
    if not inside.is_empty():
        expected[(slice(None), *inside.to_slices(box.topleft))] = voxels[(slice(None), *inside.to_slices())]
    return expected


def cube_of(mag, x=0, y=0, z=0):
    return Path(mag.place.store.cube_path(Vec3Int(x, y, z)))


@pytest.fixture(scope="module")
def mags(tmp_path_factory):
    made = [make_mag(tmp_path_factory.mktemp("mags") / "ds", form) for form in FORMS]
    made += [
        make_mag(tmp_path_factory.mktemp("mags") / "ds", form, dtype, channels)
        for form in (("wkw", None), ("wkw", "lz4"), ("zarr3", "zstd"))
        for dtype, channels in (("uint8", 3), ("uint32", 1), ("float64", 1))
    ]
    return made


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_boxes_are_those_of_the_voxels(mags, data):
    mag, voxels = data.draw(st.sampled_from(mags))
    box = data.draw(boxes_within(100, 1))
    expected = put_together(voxels, box)
    with mag.open_reader(max_open_cubes=data.draw(st.integers(1, 4))) as reader:
        for _ in range(2):
            np.testing.assert_array_equal(reader.read(box.topleft, box.size), expected)
        order = data.draw(st.sampled_from(["F", "C", "A"]))
        out = np.full(expected.shape, 7, expected.dtype, order="F" if order == "F" else "C")
        if order == "A":  # a part of a larger array
            around = np.full([n + 3 for n in expected.shape], 7, expected.dtype, order="F")
            out = around[: expected.shape[0], 1:-2, 2:-1, :-3]
        assert reader.read(box.topleft, box.size, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_large_boxes_are_read_on_threads(tmp_path):
    mag, voxels = make_mag(tmp_path / "ds", ("wkw", "lz4"), "uint32")
    box = BoundingBox((0, 0, 0), (160, 160, 160))
    with mag.open_reader(threads=3) as reader:
        np.testing.assert_array_equal(reader.read(box.topleft, box.size), put_together(voxels, box))


def test_boxes_are_given_as_for_read(tmp_path):
    mag, _ = make_mag(tmp_path / "ds", ("wkw", None), mag=2)
    view = mag.get_view(offset=(8, 8, 8), size=(32, 32, 16))
    ways = [
        {},
        {"offset": (4, 2, 1), "size": (6, 6, 6)},
        {"offset": (10, 10, 10)},
        {"bounding_box": BoundingBox((20, 24, 18), (10, 8, 6))},
        {"relative_offset": (2, 4, 6), "size": (4, 4, 4)},
        {"absolute_offset": (20, 20, 20), "size": (4, 4, 4)},
        {"relative_bounding_box": BoundingBox((2, 4, 6), (4, 4, 4))},
        {"absolute_bounding_box": BoundingBox((20, 20, 20), (4, 4, 4))},
    ]
    for given_view in (mag, view):
        with given_view.open_reader() as reader:
            for way in ways:
                np.testing.assert_array_equal(reader.read(**way), given_view.read(**way))
            with pytest.raises(AlignmentError):
                reader.read(bounding_box=BoundingBox((1, 0, 0), (2, 2, 2)))
            with pytest.raises(OutOfBoundsError):
                reader.read((-1, 0, 0), (2, 2, 2))
    with view.open_reader() as reader, pytest.raises(OutOfBoundsError):
        reader.read((0, 0, 0), (33, 1, 1))


def test_an_array_that_does_not_fit_is_refused(tmp_path):
    mag, _ = make_mag(tmp_path / "ds", ("wkw", None))
    fixed = np.zeros((1, 4, 4, 4), "uint8")
    fixed.flags.writeable = False
    with mag.open_reader() as reader:
        for out in (np.zeros((4, 4, 4), "uint8"), np.zeros((1, 4, 4, 5), "uint8"), fixed, [1]):
            with pytest.raises(InvalidValueError, match=r"out must be a writeable array .* \(1, 4, 4, 4\)"):
                reader.read((0, 0, 0), (4, 4, 4), out=out)
        with pytest.raises(DTypeError, match="uint16"):
            reader.read((0, 0, 0), (4, 4, 4), out=np.zeros((1, 4, 4, 4), "uint16"))


@pytest.mark.parametrize("number", [0, -1, True, 1.5])
def test_wrong_numbers_are_refused(tmp_path, number):
    mag, _ = make_mag(tmp_path / "ds", ("wkw", None))
    with pytest.raises(InvalidValueError, match="max_open_cubes"):
        mag.open_reader(max_open_cubes=number)
    with pytest.raises(InvalidValueError, match="threads"):
        mag.open_reader(threads=number)


def test_a_closed_reader_says_so(tmp_path):
    mag, _ = make_mag(tmp_path / "ds", ("wkw", "lz4"))
    reader = mag.open_reader()
    reader.read((0, 0, 0), (40, 8, 8))
    assert str(cube_of(mag)) in descriptors()
    reader.close()
    reader.close()
    assert reader.is_closed
    assert not any(str(tmp_path) in name for name in descriptors())
    for use in (lambda: reader.read((0, 0, 0), (1, 1, 1)), reader.__enter__, lambda: pickle.dumps(reader)):
        with pytest.raises(InvalidValueError, match=r"layer 'color' mag 1 was closed"):
            use()
    assert "closed" in repr(reader)


def descriptors():
    """Return the names of the files that this process has open."""
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # that of the listing
            continue
    return names


@pytest.mark.parametrize("form", [("wkw", "lz4"), ("zarr3", "zstd")])
def test_no_more_cubes_are_open_than_allowed(tmp_path, form):
    mag, voxels = make_mag(tmp_path / "ds", form)
    with mag.open_reader(max_open_cubes=2) as reader:
        for x in (0, 32, 64, 0, 64):
            np.testing.assert_array_equal(reader.read((x, 0, 0), (8, 8, 8)), voxels[:, x : x + 8, :8, :8])
            assert sum(str(tmp_path) in name for name in descriptors()) <= 2
        open_now = {name for name in descriptors() if str(tmp_path) in name}
        assert open_now == {str(cube_of(mag, 0)), str(cube_of(mag, 2))}  # those that were used last


@pytest.mark.parametrize("form", [("wkw", None), ("wkw", "lz4"), ("zarr3", "zstd"), ("zarr", "zstd")])
def test_a_cube_that_is_replaced_made_or_removed_is_noticed(tmp_path, form):
    mag, voxels = make_mag(tmp_path / "ds", form)
    part, absent = ((0, 0, 0), (8, 8, 8)), ((32, 32, 0), (8, 8, 8))
    with mag.open_reader() as reader:
        np.testing.assert_array_equal(reader.read(*part), voxels[:, :8, :8, :8])
        assert not reader.read(*absent).any()
        mag.write(np.full((1, 8, 8, 8), 9, "uint8"), offset=(0, 0, 0), progress=False)
        assert (reader.read(*part) == 9).all()
        mag.write(np.full((1, 8, 8, 8), 8, "uint8"), offset=(32, 32, 0), progress=False)
        assert (reader.read(*absent) == 8).all()
        os.unlink(cube_of(mag, 1, 1))
        assert not reader.read(*absent).any()


def test_what_another_program_writes_into_a_cube_is_seen(tmp_path):
    mag, voxels = make_mag(tmp_path / "ds", ("wkw", None))
    with mag.open_reader() as reader:
        reader.read((0, 0, 0), (1, 1, 1))
        with open(cube_of(mag), "r+b") as file:
            file.seek(16)
            file.write(bytes([voxels[0, 0, 0, 0] + 1]))
        assert reader.read((0, 0, 0), (1, 1, 1)).item() == voxels[0, 0, 0, 0] + 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", [True, False])
def test_a_damaged_cube_is_an_error_that_names_it(tmp_path, form, before):
    mag, _ = make_mag(tmp_path / "ds", form)
    path = cube_of(mag)
    with mag.open_reader() as reader:
        if before:
            reader.read((0, 0, 0), (8, 8, 8))
        os.truncate(path, path.stat().st_size - 100)
        if form == ("zarr", None):  # a single chunk: a short one is what its size tells
            assert path.stat().st_size != 32**3
        with pytest.raises(DamagedCubeError, match=str(path)):
            reader.read((0, 0, 0), (32, 32, 32))
        os.truncate(path, 0)
        with pytest.raises(DamagedCubeError, match=str(path)):
            reader.read((0, 0, 0), (8, 8, 8))
        path.unlink()
        path.mkdir()
        with pytest.raises(DamagedCubeError, match=str(path)):
            reader.read((0, 0, 0), (8, 8, 8))


@pytest.mark.parametrize("form", [("wkw", "lz4"), ("zarr3", "zstd"), ("zarr", "zstd")])
def test_a_mag_that_is_gone_is_not_zeros(tmp_path, form):
    mag, _ = make_mag(tmp_path / "ds", form)
    with mag.open_reader() as reader:
        reader.read((0, 0, 0), (8, 8, 8))
        assert not reader.read((500, 0, 0), (8, 8, 8)).any()
        shutil.move(mag.path, tmp_path / "elsewhere")
        for place in ((0, 0, 0), (500, 0, 0)):
            with pytest.raises(DamagedHeaderError):
                reader.read(place, (8, 8, 8))


def test_an_array_that_has_grown_is_read_beyond_its_old_end(tmp_path):
    mag, _ = make_mag(tmp_path / "ds", ("zarr3", "zstd"))
    with mag.open_reader() as reader:
        assert not reader.read((128, 0, 0), (8, 8, 8)).any()
        mag.write(np.full((1, 8, 8, 8), 3, "uint8"), offset=(128, 0, 0), progress=False)
        assert (reader.read((128, 0, 0), (8, 8, 8)) == 3).all()


def test_a_task_sees_what_it_has_written(tmp_path):
    mag, _ = make_mag(tmp_path / "ds", ("wkw", None))

    def work(arguments):
        view, _ = arguments
        view.write(np.full((1, *view.size), 5, "uint8"))
        with view.open_reader() as reader:
            assert (reader.read() == 5).all()

    mag.for_each_chunk(work, chunk_size=(32, 32, 32), progress=False)


@pytest.mark.parametrize("form", [("wkw", "lz4"), ("zarr3", "zstd")])
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_a_pool_read(tmp_path, form, method):
    mag, voxels = make_mag(tmp_path / "ds", form)
    expected = [int(put_together(voxels, BoundingBox(*box)).sum(dtype=int)) for box in BOXES]
    samples = Samples(mag)
    with multiprocessing.get_context(method).Pool(2, start, (samples,)) as pool:
        # With a limit: a pool starts workers that cannot begin again and again.
        assert pool.map_async(sum_of_sample, range(len(BOXES)), chunksize=1).get(120) == expected
        given_readers = [(samples.reader, box) for box in BOXES]
        assert pool.map_async(sum_of, given_readers, chunksize=1).get(120) == expected
    assert [int(samples[number].sum(dtype=int)) for number in range(len(BOXES))] == expected


def test_a_reader_pickles_small_and_opens_nothing_until_it_reads(tmp_path):
    mag, voxels = make_mag(tmp_path / "ds", ("wkw", "lz4"))
    reader = mag.open_reader(max_open_cubes=3)
    assert not any(str(tmp_path) in name for name in descriptors())
    again = pickle.loads(pickle.dumps(reader))
    assert isinstance(again, BoxReader)
    assert len(pickle.dumps(reader)) < 3000
    assert "up to 3 cubes" in repr(again)
    np.testing.assert_array_equal(again.read((0, 0, 0), (9, 9, 9)), voxels[:, :9, :9, :9])


def test_threads_share_a_reader(tmp_path):
    """With room for one open cube, threads take it from each other all the time."""
    mag, voxels = make_mag(tmp_path / "ds", ("wkw", "lz4"))
    wrong = []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(100):
            x, y, z = (int(random.integers(0, side - 9)) for side in CANVAS)
            if not np.array_equal(
                reader.read((x, y, z), (9, 9, 9)), voxels[:, x : x + 9, y : y + 9, z : z + 9]
            ):
                wrong.append((x, y, z))

    with mag.open_reader(max_open_cubes=1) as reader:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_kept_cube_costs_one_look(tmp_path, monkeypatch):
    mag, _ = make_mag(tmp_path / "ds", ("wkw", "lz4"))
    path = str(cube_of(mag))
    with mag.open_reader() as reader:
        reader.read((0, 0, 0), (8, 8, 8))
        looks, stat = [], os.stat

        def note(path, *arguments, **options):
            looks.append(os.fspath(path))
            return stat(path, *arguments, **options)

        monkeypatch.setattr(os, "stat", note)
        monkeypatch.setattr(os, "open", None)
        reader.read((4, 4, 4), (8, 8, 8))
    assert looks == [path]
