"""The making of cubes' files, in place or as a whole: the wkw library reads what was written."""

import contextlib
import errno
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wkw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples
from wkw_cubes import SIDE, library_mag

from wkdask.errors import DamagedCubeError, UnsupportedFormatError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.kernels import MinMax
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.wkw import blocks as wkw_blocks
from wkdask.storage.wkw.files import lay_out, write_plain
from wkdask.storage.wkw.format import WkwHeader
from wkdask.storage.wkw.mag import WkwMag
from wkdask.testing import boxes_within


def library_read(mag, box):
    with contextlib.closing(wkw.Dataset.open(mag.path)) as dataset:
        return dataset.read(tuple(box.topleft), tuple(box.size))


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from([("uint8", 1), ("uint8", 3), ("uint16", 1), ("int64", 2)]),
    st.lists(st.tuples(boxes_within(SIDE, 1), st.sampled_from("FCR"), st.booleans()), min_size=1, max_size=4),
    st.sampled_from([1, 5_000, 1 << 20]),
)
def test_boxes_are_written_into_a_cube(tmp_path, monkeypatch, kind, writes, buffer_nbytes):
    monkeypatch.setattr(wkw_blocks, "_BUFFER_NBYTES", buffer_nbytes)
    wkw_blocks._batches.cache_clear()
    dtype, channels = kind
    folder = tempfile.mkdtemp(dir=tmp_path)
    spec = ArraySpec(dtype, channels, Vec3Int.full(8), Vec3Int.full(SIDE), None)
    mag = WkwMag.create(folder, spec)
    path = mag.cube_path(Vec3Int(0, 0, 0))
    expected = np.zeros((channels, SIDE, SIDE, SIDE), dtype)
    lay_out(path, mag.header)
    for number, (box, order, zero) in enumerate(writes):
        rng = np.random.default_rng(number)
        block = np.zeros((channels, *box.size), dtype) if zero else rng.integers(1, 99, (channels, *box.size))
        block = np.asarray(block, dtype, order="C" if order == "C" else "F")
        block = block[:, ::-1] if order == "R" else block
        block.flags.writeable = False
        expected[(slice(None), *box.to_slices())] = block
        write_plain(path, box, block, fresh=number == 0)
        lay_out(path, mag.header)  # comes too late: changes nothing
    whole = BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))
    np.testing.assert_array_equal(library_read(mag, whole), expected)
    np.testing.assert_array_equal(mag.read(whole), expected)
    wkw_blocks._batches.cache_clear()


def test_zeros_stay_holes(tmp_path):
    spec = ArraySpec("uint8", 1, Vec3Int.full(32), Vec3Int.full(256), None)
    mag = WkwMag.create(str(tmp_path / "mag"), spec)
    path = mag.cube_path(Vec3Int(0, 0, 0))
    block = np.zeros((1, 256, 256, 256), "uint8", order="F")
    block[0, 200, 100, 50] = 1
    lay_out(path, mag.header)
    write_plain(path, BoundingBox((0, 0, 0), block.shape[1:]), block, fresh=True)
    assert os.stat(path).st_size == 16 + 256**3
    assert os.stat(path).st_blocks * 512 < 2 << 20
    np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), block.shape[1:])), block)


def test_a_cube_whose_data_begin_later(tmp_path):
    """Other programs may leave room behind the header."""
    mag, voxels = library_mag(tmp_path / "mag")
    path = mag.cube_path(Vec3Int(0, 0, 0))
    data = Path(path).read_bytes()
    header = WkwHeader.parse(data)
    moved = replace(header, data_offset=4096).to_bytes().ljust(4096, b"x") + data[16:]
    Path(path).write_bytes(moved)
    box = BoundingBox((3, 4, 5), (20, 20, 20))
    np.testing.assert_array_equal(mag.read(box), voxels[:, 3:23, 4:24, 5:25])
    write_plain(path, box, np.full((1, 20, 20, 20), 200, "uint8"), fresh=False)
    voxels[:, 3:23, 4:24, 5:25] = 200
    np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))), voxels[:, :SIDE])
    assert Path(path).read_bytes()[:4096] == moved[:4096]


def test_no_folder_comes_back(tmp_path):
    mag, _ = library_mag(tmp_path / "mag")
    shutil.rmtree(mag.path)
    with pytest.raises(FileNotFoundError):
        lay_out(mag.cube_path(Vec3Int(0, 0, 0)), mag.header)
    assert not os.path.exists(mag.path)


def test_threads_write_blocks_beside_each_other(tmp_path):
    """Each in boxes of whole chunks of one cube, again and again, while the others do."""
    spec = ArraySpec("uint16", 1, Vec3Int.full(8), Vec3Int.full(64), None)
    mag = WkwMag.create(str(tmp_path / "mag"), spec)
    path = mag.cube_path(Vec3Int(0, 0, 0))
    lay_out(path, mag.header)
    voxels = np.random.default_rng(0).integers(1, 9999, (1, 64, 64, 64)).astype("uint16", order="F")
    boxes = list(BoundingBox((0, 0, 0), (64, 64, 64)).chunk((24, 8, 40)))

    def write(box):
        for _ in range(3):
            write_plain(path, box, voxels[(slice(None), *box.to_slices())], fresh=False)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, boxes))
    np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (64, 64, 64))), voxels)


# whole cubes


def mag_of(folder, dtype, channels, compression):
    """Make an empty mag, cut as the library's."""
    return WkwMag.create(
        str(folder), ArraySpec(dtype, channels, Vec3Int.full(8), Vec3Int.full(SIDE), compression)
    )


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from([("uint8", 1), ("uint8", 3), ("uint16", 1), ("int64", 2)]),
    compression=st.sampled_from([None, "lz4", "lz4hc"]),
    old=st.sampled_from([None, 1, 2, 3]),
    box=boxes_within(SIDE, 1) | st.just(BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))),
    order=st.sampled_from("FCR"),
    buffer_nbytes=st.sampled_from([1, 5_000, 1 << 20]),
)
def test_a_box_over_an_old_cube_or_none(
    tmp_path, monkeypatch, kind, compression, old, box, order, buffer_nbytes
):
    monkeypatch.setattr(wkw_blocks, "_BUFFER_NBYTES", buffer_nbytes)
    wkw_blocks._batches.cache_clear()
    dtype, channels = kind
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    expected, base = np.zeros((channels, SIDE, SIDE, SIDE), dtype), None
    if old is not None:
        older, voxels = library_mag(folder / "old", dtype, channels, old)
        expected, base = voxels[:, :SIDE].copy(), older.cube_path(Vec3Int(0, 0, 0))
    block = np.random.default_rng(5).integers(1, 99, (channels, *box.size)).astype(dtype, order="F")
    block = np.ascontiguousarray(block) if order == "C" else block[:, ::-1] if order == "R" else block
    expected[(slice(None), *box.to_slices())] = block

    mag = mag_of(folder / "mag", dtype, channels, compression)
    min_max = MinMax(np.dtype(dtype))
    assert mag.build(mag.path, 0, box, block, base, min_max=min_max)
    whole = BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))
    np.testing.assert_array_equal(library_read(mag, whole), expected)
    np.testing.assert_array_equal(mag.read(whole), expected)
    np.testing.assert_array_equal(mag.read_scratch(mag.path, box), expected[(slice(None), *box.to_slices())])
    assert min_max.values == (block.min(), block.max())
    wkw_blocks._batches.cache_clear()


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
def test_zeros_over_an_old_cube(tmp_path, compression):
    """What is left of it stays; if nothing is left there is no cube."""
    mag = mag_of(tmp_path / "mag", "uint8", 1, compression)
    voxels = np.zeros((1, SIDE, SIDE, SIDE), "uint8", order="F")
    voxels[0, 3, 4, 5] = voxels[0, 30, 30, 30] = 9
    whole = BoundingBox((0, 0, 0), voxels.shape[1:])
    assert mag.build(mag.path, 0, whole, voxels, None)
    base = mag.cube_path(Vec3Int(0, 0, 0))
    os.mkdir(tmp_path / "root")
    for box, left in (
        (BoundingBox((0, 0, 0), (10, 10, 10)), True),
        (BoundingBox((1, 1, 1), (30, 30, 30)), False),
    ):
        zeros = np.zeros((1, *box.size), "uint8")
        assert mag.build(str(tmp_path / "root"), 0, box, zeros, base) == left


@pytest.mark.parametrize("compression", ["lz4", "lz4hc"])
@pytest.mark.parametrize("old", [1, 2, 3])
def test_a_cube_is_stored_otherwise(tmp_path, compression, old):
    source, voxels = library_mag(tmp_path / "source", "uint16", 1, old)
    spec = replace(source.spec, compression=compression)
    mag = WkwMag.create(str(tmp_path / "mag"), spec)
    assert mag.encode(mag.path, 0, source.cube_path(Vec3Int(1, 0, 0)))
    whole = BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))
    np.testing.assert_array_equal(library_read(mag, whole), voxels[:, SIDE:])
    assert mag.conforms(mag.cube_path(Vec3Int(0, 0, 0)))
    os.mkdir(tmp_path / "root")
    plain = mag.recompressed(None)  # and back
    assert plain.encode(str(tmp_path / "root"), 0, mag.cube_path(Vec3Int(0, 0, 0)))
    assert plain.conforms(plain.slot_path(str(tmp_path / "root"), 0))
    np.testing.assert_array_equal(plain.read_scratch(str(tmp_path / "root"), whole), voxels[:, SIDE:])


def test_a_full_disk_says_so(tmp_path, monkeypatch):
    """The error of the disk itself, and no file that could be taken for a cube."""
    mag = mag_of(tmp_path / "mag", "uint8", 1, "lz4")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    block = np.ones((1, SIDE, SIDE, SIDE), "uint8", order="F")
    with pytest.raises(OSError, match="No space left"):
        mag.build(mag.path, 0, BoundingBox((0, 0, 0), block.shape[1:]), block, None)
    monkeypatch.undo()
    with pytest.raises(DamagedCubeError):
        mag.read(BoundingBox((0, 0, 0), block.shape[1:]))


def test_a_compressed_cube_of_terabytes_is_refused(tmp_path):
    spec = ArraySpec("uint64", 1, Vec3Int.full(128), Vec3Int.full(128 * 256), "lz4")
    mag = WkwMag.create(str(tmp_path / "mag"), spec)
    block = np.ones((1, 4, 4, 4), "uint64", order="F")
    with pytest.raises(UnsupportedFormatError, match="1 TiB"):
        mag.build(mag.path, 0, BoundingBox((0, 0, 0), (4, 4, 4)), block, None)
