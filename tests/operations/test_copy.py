"""Copies between cuts and compressions, compression in place: the same voxels, in files of their own."""

import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import wkw
from thorough import mostly_slow

import wkdask
from wkdask import BoundingBox, Dataset
from wkdask.errors import AlreadyExistsError, InvalidValueError, TaskFailedError, UnsupportedFormatError
from wkdask.geometry import Vec3Int
from wkdask.jobs.job import WriteOptions
from wkdask.operations.copy import copy_mag
from wkdask.storage.wkw.format import read_header

KINDS = [None, "lz4", "lz4hc"]
CUTS = ((32, 16), (64, 16), (16, 8))
BOX = BoundingBox((37, 5, 70), (90, 60, 50))
BLOCK_TYPES = {None: 1, "lz4": 2, "lz4hc": 3}


@pytest.fixture
def filled(make_mag, random_voxels):
    """Return a function that makes (mag, its voxels in `BOX`)."""

    def fill(**options):
        mag = make_mag(**options)
        voxels = random_voxels((mag.num_channels, *BOX.size), mag.get_dtype())
        mag.write(voxels, offset=BOX.topleft)
        return mag, voxels

    return fill


def cubes(mag):
    """Return the paths of the cubes that exist."""
    return [mag.place.store.cube_path(box.topleft // box.size) for box in mag.cubes_on_disk()]


def kinds(mag):
    """Return how the cubes are stored, as their own headers say."""
    return [Path(path).read_bytes()[5] for path in cubes(mag)]


def copy(source, target, box=BOX):
    return copy_mag(source.place.store, target.place, box, WriteOptions())


def library_reads(mag, box):
    with wkw.Dataset.open(mag.path) as dataset:
        return dataset.read(tuple(box.topleft), tuple(box.size))


# --- copies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "cut"),
    # Every day each pair of two of the three.
    mostly_slow(itertools.product(KINDS, KINDS, CUTS), lambda n, _: (n // 9 + n // 3 + n) % 3 == 0),
)
def test_copies_hold_the_same_voxels(filled, make_mag, leftovers, old, new, cut):
    source, voxels = filled(dtype="uint16", channels=2, compression=old)
    cube, chunk = cut
    target = make_mag("uint16", 2, cube=cube, chunk=chunk, compression=new)
    report = copy(source, target)
    assert np.array_equal(target.read(), voxels)
    assert np.array_equal(library_reads(target, BOX), voxels)
    assert report.bounding_box == target.layer.bounding_box == BOX
    assert report.cubes == len(target.spec.grid.cubes(BOX)) == len(cubes(target))
    assert report.bytes == voxels.nbytes
    assert report.file_bytes == sum(os.stat(path).st_size for path in cubes(target))
    assert set(kinds(target)) == {BLOCK_TYPES[new]}
    assert leftovers(target) == leftovers(source) == []


@pytest.mark.parametrize("compression", KINDS)
def test_files_are_copied_and_no_second_names(filled, make_mag, compression):
    source, voxels = filled(compression=compression)
    target = make_mag(compression=compression)
    copy(source, target)
    for mine, theirs in zip(cubes(target), cubes(source), strict=True):
        assert Path(mine).read_bytes() == Path(theirs).read_bytes()  # nothing was decoded
        assert os.stat(mine).st_ino != os.stat(theirs).st_ino
        assert os.stat(mine).st_nlink == 1
    source.write(255 - voxels, offset=BOX.topleft)
    assert np.array_equal(target.read(), voxels)
    with open(cubes(target)[0], "r+b") as file:  # even a write into the file itself
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert np.array_equal(source.read(), 255 - voxels)


def test_sparse_cubes_stay_sparse(make_mag):
    source, target = make_mag(cube=128), make_mag(cube=128)
    source.write(np.ones((4, 4, 4), "uint8"), offset=(100, 100, 100))
    (path,) = cubes(source)
    copy(source, target, source.box)
    (copied,) = cubes(target)
    assert os.stat(copied).st_size == os.stat(path).st_size
    assert os.stat(copied).st_blocks <= os.stat(path).st_blocks + 16
    assert target.read().sum() == 64


def test_missing_cubes_stay_missing(make_mag):
    for compression in (None, "lz4"):
        source, target = make_mag(), make_mag(compression=compression)
        source.write(np.ones((4, 4, 4), "uint8"), offset=(100, 0, 0))
        source.write(np.zeros((4, 4, 4), "uint8"), offset=(0, 0, 0))
        report = copy(source, target, source.box)
        assert len(cubes(target)) == 1
        assert target.layer.bounding_box == report.bounding_box == BoundingBox((0, 0, 0), (104, 4, 4))


@pytest.mark.parametrize("compression", KINDS)
def test_a_copy_keeps_what_is_around_it(filled, make_mag, random_voxels, compression):
    source, voxels = filled(compression=compression)
    target, old = make_mag(compression=compression), random_voxels((1, 160, 96, 128), seed=5)
    target.write(old)
    copy(source, target)
    expected = old.copy()
    expected[(slice(None), *BOX.to_slices())] = voxels
    assert np.array_equal(target.read(), expected)


@pytest.mark.parametrize("compression", KINDS)
def test_zeros_are_copied_over_voxels(make_mag, random_voxels, compression):
    source, target = make_mag(compression=compression), make_mag(compression=compression)
    target.write(random_voxels((1, 64, 32, 32)) | 1)
    source.write(np.ones((4, 4, 4), "uint8"))
    copy(source, target, BoundingBox((0, 0, 0), (64, 32, 32)))
    assert target.read().sum() == 64
    assert len(cubes(target)) == 1


def test_an_empty_box_is_no_copy(filled, make_mag):
    source, _ = filled()
    target = make_mag()
    assert copy(source, target, BoundingBox((0, 0, 0), (0, 5, 5))) is None
    assert target.layer.bounding_box.is_empty()


@pytest.mark.parametrize("options", [{"dtype": "uint16"}, {"channels": 3}, {"dtype": "int8"}])
def test_another_type_is_no_copy(filled, make_mag, options):
    source, _ = filled()
    with pytest.raises(InvalidValueError, match="not a copy"):
        copy(source, make_mag(**options))


@pytest.mark.parametrize("other", [None, "lz4hc"])
def test_a_damaged_cube_is_named(filled, make_mag, leftovers, other):
    source, _ = filled(compression="lz4")
    target = make_mag(compression=other)
    Path(cubes(source)[0]).write_bytes(b"WKW\x01junk")
    with pytest.raises(TaskFailedError) as caught:
        copy(source, target)
    assert cubes(source)[0] in str(caught.value)
    assert leftovers(target) == []


@pytest.mark.cluster
@pytest.mark.parametrize("compression", [None, "lz4hc"])
def test_copies_and_compression_on_workers(filled, make_mag, client, compression):
    source, voxels = filled()
    target = make_mag(compression=compression)
    copy(source, target)
    assert np.array_equal(target.read(), voxels)
    source.compress()
    assert np.array_equal(source.read(), voxels)
    assert set(kinds(source)) == {BLOCK_TYPES["lz4hc"]}


# --- compression in place -------------------------------------------------------------------------------


def test_a_compression_of_another_format_is_refused_by_name(filled):
    mag, voxels = filled()
    with pytest.raises(UnsupportedFormatError, match="'gzip'"):
        mag.compress(compression="gzip")
    assert np.array_equal(mag.read(), voxels)


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
def test_compression_in_place_and_back(filled, leftovers, old, new):
    mag, voxels = filled(dtype="uint32", compression=old)
    before = {path: os.stat(path).st_ino for path in cubes(mag)}
    report = mag.compress(compression=new)
    assert mag.spec.compression == new
    assert set(kinds(mag)) == {BLOCK_TYPES[new]}
    assert np.array_equal(mag.read(), voxels)
    again = Dataset(mag.place.dataset_path).get_layer("layer").get_mag(1)
    assert again.spec.compression == new
    assert np.array_equal(again.read(), voxels)
    assert np.array_equal(library_reads(mag, BOX), voxels)
    assert mag.layer.bounding_box == BOX  # compression grows no layer
    if old == new:
        assert report is None
        assert {path: os.stat(path).st_ino for path in cubes(mag)} == before
    else:
        assert report.cubes == len(before)
        assert report.file_bytes == sum(os.stat(path).st_size for path in cubes(mag))
    after = {path: os.stat(path).st_ino for path in cubes(mag)}
    assert mag.compress(compression=new) is None, "nothing is left to do"
    assert {path: os.stat(path).st_ino for path in cubes(mag)} == after
    mag.compress(compression=old)
    assert set(kinds(mag)) == {BLOCK_TYPES[old]}
    assert np.array_equal(mag.read(), voxels)
    assert leftovers(mag) == []


def test_the_default_is_lz4hc(filled):
    mag, _ = filled()
    with pytest.warns(wkdask.errors.WkdaskWarning, match="args"):
        mag.compress(args=object())
    assert set(kinds(mag)) == {BLOCK_TYPES["lz4hc"]}


def test_an_empty_mag_gets_a_new_header(make_mag):
    mag = make_mag()
    assert mag.compress() is None
    assert read_header(f"{mag.path}/header.wkw").block_type == BLOCK_TYPES["lz4hc"]
    mag.write(np.ones((4, 4, 4), "uint8"))
    assert kinds(mag) == [BLOCK_TYPES["lz4hc"]]


def test_voxels_beyond_the_layers_box_stay(filled):
    mag, voxels = filled()
    mag.layer.bounding_box = BoundingBox((40, 10, 80), (5, 5, 5))
    mag.compress()
    assert set(kinds(mag)) == {BLOCK_TYPES["lz4hc"]}
    assert np.array_equal(mag.read(BOX.topleft, BOX.size), voxels)
    assert mag.layer.bounding_box == BoundingBox((40, 10, 80), (5, 5, 5))


def test_cubes_far_apart(make_mag):
    mag = make_mag()
    corners = [(0, 0, 0), (3_200, 0, 64), (32, 6_400, 0)]
    for number, corner in enumerate(corners, 1):
        mag.write(np.full((3, 3, 3), number, "uint8"), offset=corner)
    report = mag.compress()
    assert report.cubes == 3
    assert [int(mag.read(corner, (3, 3, 3)).sum()) for corner in corners] == [27, 54, 81]
    assert len(cubes(mag)) == 3


def test_mode_of_cubes_stays(filled):
    mag, _ = filled()
    os.chmod(cubes(mag)[0], 0o640)
    mag.compress()
    assert os.stat(cubes(mag)[0]).st_mode & 0o777 == 0o640


def test_the_header_comes_last_and_a_failure_leaves_all_readable(filled, leftovers):
    mag, voxels = filled()
    damaged = Path(cubes(mag)[3])
    sound = damaged.read_bytes()
    damaged.write_bytes(sound[:50])
    with pytest.raises(TaskFailedError, match="compressing"):
        mag.compress()
    assert read_header(f"{mag.path}/header.wkw").block_type == BLOCK_TYPES[None]
    assert mag.spec.compression is None
    assert damaged.read_bytes() == sound[:50], "what cannot be read stays as it is"
    damaged.write_bytes(sound)
    again = Dataset(mag.place.dataset_path).get_layer("layer").get_mag(1)
    assert np.array_equal(again.read(), voxels)
    assert again.compress().cubes >= 1
    assert set(kinds(again)) == {BLOCK_TYPES["lz4hc"]}
    assert np.array_equal(again.read(), voxels)
    assert leftovers(mag) == []


def test_both_kinds_are_read_meanwhile(filled):
    """A reader that opened the mag before, one that opens it now, and the library: all see the voxels."""
    mag, voxels = filled(cube=32)
    readers = [Dataset(mag.place.dataset_path).get_layer("layer").get_mag(1) for _ in range(2)]
    seen, stop = [], threading.Event()

    def look(reader):
        while not stop.is_set():
            seen.append(np.array_equal(reader.read(), voxels))

    threads = [threading.Thread(target=look, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    try:
        for compression in ("lz4", None, "lz4hc", None):
            mag.compress(compression=compression)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(seen)
    assert len(seen) > 4


def test_a_write_by_an_old_handle_after_compression(filled):
    mag, voxels = filled()
    old = Dataset(mag.place.dataset_path).get_layer("layer").get_mag(1)
    mag.compress()
    old.write(np.full((1, 45, 45, 45), 7, "uint8"), offset=(40, 10, 72))
    voxels[:, 3:48, 5:50, 2:47] = 7
    assert np.array_equal(mag.read(), voxels)
    assert mag.compress() is None or set(kinds(mag)) == {BLOCK_TYPES["lz4hc"]}
    assert np.array_equal(mag.read(), voxels)


WRITER = """if True:
    import sys
    import numpy as np
    import wkdask
    mag = wkdask.Dataset(sys.argv[1]).get_layer("layer").get_mag(1)
    print("ready", flush=True)
    sys.stdin.readline()
    for value in range(1, 21):
        mag.write(np.full((1, 20, 20, 20), value, "uint8"), offset=(60, 20, 90))
        mag.write(np.full((1, 9, 9, 9), value, "uint8"), offset=(200 + value, 0, 0))"""


@pytest.mark.slow
def test_a_writer_and_compression_at_once_lose_nothing(filled):
    mag, voxels = filled()
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    command = [sys.executable, "-c", WRITER, mag.place.dataset_path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        try:
            assert child.stdout.readline().strip() == "ready"
            child.stdin.write("go\n")
            child.stdin.flush()
            kind = ["lz4", None]
            while child.poll() is None:
                mag.compress(compression=kind[0])
                kind.reverse()
            assert child.returncode == 0, child.stderr.read()
        finally:
            child.kill()
    voxels[:, 23:43, 15:35, 20:40] = 20
    assert np.array_equal(mag.read(BOX.topleft, BOX.size), voxels)
    assert mag.read((201, 0, 0), (28, 9, 9)).sum() == (sum(range(1, 20)) + 9 * 20) * 81
    mag.compress(compression="lz4")
    assert set(kinds(mag)) == {BLOCK_TYPES["lz4"]}


# --- compression into a new dataset ---------------------------------------------------------------------


def test_compression_into_a_new_dataset(filled, tmp_path):
    mag, voxels = filled()
    mag.layer.default_view_configuration = {"alpha": 40, "future": [1]}
    report = mag.compress(tmp_path / "new" / "compressed")
    new = Dataset(tmp_path / "new" / "compressed")
    assert np.array_equal(new.get_layer("layer").get_mag(1).read(), voxels)
    assert set(kinds(new.get_layer("layer").get_mag(1))) == {BLOCK_TYPES["lz4hc"]}
    assert report.bounding_box == new.get_layer("layer").bounding_box == BOX
    assert new.get_layer("layer").default_view_configuration.to_json() == {"alpha": 40, "future": [1]}
    assert set(kinds(mag)) == {BLOCK_TYPES[None]}
    with pytest.raises(AlreadyExistsError):
        mag.compress(tmp_path / "new" / "compressed")


def test_a_mag_that_its_grid_cuts_is_copied_with_its_exact_box(make_mag, random_voxels, tmp_path):
    mag, voxels = make_mag(mag=(2, 2, 1)), random_voxels((1, 20, 20, 20))
    mag.write(voxels)
    mag.layer.bounding_box = BoundingBox((1, 1, 1), (37, 38, 18))
    mag.compress(tmp_path / "new")
    copied = Dataset(tmp_path / "new").get_layer("layer")
    assert copied.bounding_box == BoundingBox((1, 1, 1), (37, 38, 18))
    assert np.array_equal(copied.get_mag("2-2-1").read(), mag.read())


def test_nothing_but_voxels_crosses_from_a_hostile_properties_file(filled, make_mag):
    """The header of a cube that says another type than the mag is refused, not copied."""
    source, _ = filled()
    target = make_mag()
    path = Path(cubes(source)[0])
    data = bytearray(path.read_bytes())
    data[6] = 2  # uint16
    path.write_bytes(data)
    with pytest.raises(TaskFailedError, match=r"\.wkw"):
        copy(source, target)
    assert str(target.place.store.cube_path(Vec3Int(0, 0, 0))) not in cubes(target)
    assert json.loads(Path(target.place.dataset_path, "datasource-properties.json").read_text())
