"""Plain cubes without the wkw library: the same voxels, and an error for whatever is not a whole cube."""

import contextlib
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

from wkdask.errors import DamagedCubeError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.kernels import downsample
from wkdask.storage import wkw_plain
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.wkw import WkwMag
from wkdask.storage.wkw_format import WkwHeader
from wkdask.storage.wkw_plain import lay_out, plain_tiles, read_plain, write_plain

SIDE = 32  # of the cubes: 4**3 blocks of 8**3 voxels


def boxes_within(extent):
    """Boxes of at least a voxel with corners anywhere in 0..extent."""
    pair = st.lists(st.integers(0, extent), min_size=2, max_size=2, unique=True).map(sorted)
    return st.tuples(pair, pair, pair).map(lambda pairs: BoundingBox.from_corners(*zip(*pairs, strict=True)))


def library_mag(folder, dtype="uint8", channels=1, compression=1):
    """Return a mag of 2 × 1 × 1 cubes that the library wrote, and its voxels."""
    voxels = np.random.default_rng(3).integers(0, 100, (channels, 2 * SIDE, SIDE, SIDE)).astype(dtype)
    voxels = np.asfortranarray(voxels)
    header = wkw.Header(voxels.dtype.type, channels, 1, 8, 4, compression)
    with contextlib.closing(wkw.Dataset.open(str(folder), header)) as dataset:
        dataset.write((0, 0, 0), voxels)
    return WkwMag.open(str(folder)), voxels


@pytest.fixture(scope="module")
def mags(tmp_path_factory):
    kinds = [("uint8", 1), ("uint8", 3), ("uint16", 1), ("uint32", 1), ("float64", 2)]
    return [library_mag(tmp_path_factory.mktemp("plain") / "mag", *kind) for kind in kinds]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_boxes_are_read_in_batches_and_past_the_caches(mags, monkeypatch, data):
    mag, voxels = data.draw(st.sampled_from(mags))
    box = data.draw(boxes_within(SIDE))
    corner = Vec3Int(data.draw(st.tuples(*[st.integers(0, 9)] * 3)))
    monkeypatch.setattr(wkw_plain, "_BUFFER_NBYTES", data.draw(st.sampled_from([1, 5_000, 1 << 20])))
    monkeypatch.setattr(wkw_plain, "_STREAM_NBYTES", data.draw(st.sampled_from([0, 1 << 40])))
    wkw_plain._batches.cache_clear()
    shape = (voxels.shape[0], *(corner + box.size + 2))
    expected = np.full(shape, 7, voxels.dtype, order="F")
    inside = (slice(None), *box.offset(corner - box.topleft).to_slices())
    expected[inside] = voxels[(slice(None), *box.offset((SIDE, 0, 0)).to_slices())]
    out = np.full(shape, 7, voxels.dtype, order="F")
    assert read_plain(mag.cube_path(Vec3Int(1, 0, 0)), mag.header, box, out, corner)
    np.testing.assert_array_equal(out, expected)
    wkw_plain._batches.cache_clear()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_boxes_are_shrunk_as_they_are_read(mags, monkeypatch, data):
    mag, voxels = data.draw(st.sampled_from(mags))
    factors = data.draw(
        st.sampled_from([Vec3Int(2, 2, 2), Vec3Int(2, 2, 1), Vec3Int(1, 4, 2), Vec3Int(3, 2, 2)])
    )
    low, high = (
        data.draw(st.tuples(*(st.integers(0, n // f) for n, f in zip((80, 40, 40), factors, strict=True))))
        for _ in range(2)
    )
    corners = zip(
        *((min(a, b) * f, (max(a, b) + 1) * f) for a, b, f in zip(low, high, factors, strict=True)),
        strict=True,
    )
    box = BoundingBox.from_corners(*corners)
    mode = data.draw(st.sampled_from(["median", "mode", "min", "max", "nearest"]))
    monkeypatch.setattr(wkw_plain, "_BUFFER_NBYTES", data.draw(st.sampled_from([1, 5_000, 1 << 20])))
    wkw_plain._batches.cache_clear()
    padded = np.zeros((voxels.shape[0], 2 * SIDE + 32, SIDE + 32, SIDE + 32), voxels.dtype, order="F")
    padded[:, : 2 * SIDE, :SIDE, :SIDE] = voxels  # where there is no cube all is zero
    expected = downsample(padded[(slice(None), *box.to_slices())], tuple(factors), mode)
    out = np.full_like(expected, 7)
    mag.shrink(box, factors, mode, out)
    np.testing.assert_array_equal(out, expected)
    wkw_plain._batches.cache_clear()


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([(8, 1), (8, 4), (32, 32), (1, 256)]),
    st.sampled_from([1, 3, 8]),
    boxes_within(3000),
    st.integers(1, 5),
)
def test_tiles_cover_a_box_cube_by_cube(cut, voxel_nbytes, box, threads):
    header = WkwHeader(*cut, 1, 1, voxel_nbytes, 0)
    cube = cut[0] * cut[1]
    limit = box.volume() // 500 + 1  # few tiles: the test looks at each
    if cube**3 < limit:
        return
    tiles = plain_tiles(header, box, threads)
    assert sum(tile.volume() for tile in tiles) == box.volume()
    assert len({tuple(tile.topleft) for tile in tiles}) == len(tiles)
    for tile in tiles:
        assert box.contains_bbox(tile)
        assert tile.topleft // cube == (tile.bottomright - 1) // cube
        inner = [(low, box.topleft[axis]) for axis, low in enumerate(tile.topleft)]
        assert all(low % cut[0] == 0 or low == first for low, first in inner)


def test_large_boxes_have_a_tile_for_every_thread():
    header = WkwHeader(32, 32, 1, 1, 1, 0)
    one_cube = BoundingBox((0, 0, 0), (1024, 1024, 1024))
    sizes = {tile.size for tile in plain_tiles(header, one_cube, 2)}
    assert sizes == {Vec3Int(256, 256, 256)}
    section = plain_tiles(header, BoundingBox((0, 0, 7), (4000, 4000, 1)), 4)
    assert 8 <= len(section) <= 64


def test_a_compressed_cube_and_a_missing_one_are_left_to_the_caller(tmp_path):
    mag, _ = library_mag(tmp_path / "mag", compression=2)
    out = np.full((1, SIDE, SIDE, SIDE), 7, "uint8", order="F")
    box = BoundingBox((0, 0, 0), out.shape[1:])
    assert not read_plain(mag.cube_path(Vec3Int(0, 0, 0)), mag.header, box, out, Vec3Int(0, 0, 0))
    assert not read_plain(mag.cube_path(Vec3Int(9, 0, 0)), mag.header, box, out, Vec3Int(0, 0, 0))
    assert (out == 7).all()


@pytest.mark.parametrize("size", [0, 10, 16, 40, 16 + SIDE**3 - 1, 16 + SIDE**3 + 1])
def test_a_cube_of_another_size_is_damaged(tmp_path, size):
    mag, _ = library_mag(tmp_path / "mag")
    path = mag.cube_path(Vec3Int(0, 0, 0))
    with open(path, "r+b") as file:
        file.truncate(size)
    box = BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))
    with pytest.raises(DamagedCubeError, match=path):
        mag.read(box)
    with pytest.raises(DamagedCubeError, match=path):
        mag.shrink(box, Vec3Int(2, 2, 2), "median", np.zeros((1, *[SIDE // 2] * 3), "uint8", order="F"))
    if size >= 16:
        out = np.zeros((1, SIDE, SIDE, SIDE), "uint8", order="F")
        with pytest.raises(DamagedCubeError, match=path):
            read_plain(path, mag.header, box, out, Vec3Int(0, 0, 0))


def test_a_cube_that_becomes_shorter_while_it_is_read(tmp_path, monkeypatch):
    """Other programs write plain cubes in place, and one may be cut off between the check and the read."""
    mag, _ = library_mag(tmp_path / "mag")
    path = mag.cube_path(Vec3Int(0, 0, 0))
    check = wkw_plain.check_cube_file

    def cut_off(*arguments):
        header = check(*arguments)
        os.truncate(path, 1000)
        return header

    monkeypatch.setattr(wkw_plain, "check_cube_file", cut_off)
    with pytest.raises(DamagedCubeError, match=r"x0\.wkw is damaged: it ends at byte 1000"):
        mag.read(BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE)))


def test_a_cube_that_cannot_be_opened_a_second_time_is_read_by_the_library(tmp_path, monkeypatch):
    mag, voxels = library_mag(tmp_path / "mag")

    def refuse(path):
        raise OSError(24, "Too many open files", path)

    monkeypatch.setattr(wkw_plain, "open_regular", refuse)
    box = BoundingBox((0, 0, 0), (2 * SIDE, SIDE, SIDE))
    np.testing.assert_array_equal(mag.read(box), voxels)


def test_buffers_of_large_blocks_are_not_kept():
    wkw_plain._local.__dict__.clear()
    wkw_plain._buffer(100)
    kept = wkw_plain._local.buffer
    wkw_plain._buffer(64 << 20)
    assert wkw_plain._local.buffer is kept


# writing


def library_read(mag, box):
    with contextlib.closing(wkw.Dataset.open(mag.path)) as dataset:
        return dataset.read(tuple(box.topleft), tuple(box.size))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([("uint8", 1), ("uint8", 3), ("uint16", 1), ("int64", 2)]),
    st.lists(st.tuples(boxes_within(SIDE), st.sampled_from("FCR"), st.booleans()), min_size=1, max_size=4),
    st.sampled_from([1, 5_000, 1 << 20]),
)
def test_boxes_are_written_into_a_cube(tmp_path, monkeypatch, kind, writes, buffer_nbytes):
    monkeypatch.setattr(wkw_plain, "_BUFFER_NBYTES", buffer_nbytes)
    wkw_plain._batches.cache_clear()
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
    wkw_plain._batches.cache_clear()


def test_zeros_stay_holes(tmp_path):
    spec = ArraySpec("uint8", 1, Vec3Int.full(32), Vec3Int.full(256), None)
    mag = WkwMag.create(str(tmp_path / "mag"), spec)
    path = mag.cube_path(Vec3Int(0, 0, 0))
    block = np.zeros((1, 256, 256, 256), "uint8", order="F")
    block[0, 200, 100, 50] = 1
    lay_out(path, mag.header)
    write_plain(path, BoundingBox((0, 0, 0), block.shape[1:]), block, fresh=True)
    assert os.stat(path).st_size == 16 + 256**3
    assert os.stat(path).st_blocks * 512 < 4 << 20
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
