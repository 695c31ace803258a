"""Plain cubes without the wkw library: the same voxels, and an error for whatever is not a whole cube."""

import contextlib
import os

import numpy as np
import pytest
import wkw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wkdask.errors import DamagedCubeError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage import wkw_plain
from wkdask.storage.wkw import WkwMag
from wkdask.storage.wkw_format import WkwHeader
from wkdask.storage.wkw_plain import plain_tiles, read_plain

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
