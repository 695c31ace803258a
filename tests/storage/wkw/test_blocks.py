"""Cubes without the wkw library: the same voxels, and an error for whatever is not a whole cube."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples
from wkw_cubes import SIDE, library_mag

from wkdask import kernels
from wkdask.errors import DamagedCubeError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.kernels import downsample, has_lz4
from wkdask.storage import open_cubes
from wkdask.storage.wkw import blocks as wkw_blocks
from wkdask.storage.wkw.blocks import read_box
from wkdask.storage.wkw.mag import WkwMag
from wkdask.testing import boxes_within


@pytest.fixture(scope="module")
def mags(tmp_path_factory):
    kinds = [("uint8", 1), ("uint8", 3), ("uint16", 1), ("uint32", 1), ("float64", 2)]
    kinds += [("uint8", 1, 2), ("uint8", 3, 3), ("uint64", 1, 2), ("float32", 2, 3)]
    return [library_mag(tmp_path_factory.mktemp("plain") / "mag", *kind) for kind in kinds]


@settings(
    max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_boxes_are_read_in_batches_and_past_the_caches(mags, monkeypatch, data):
    mag, voxels = data.draw(st.sampled_from(mags))
    box = data.draw(boxes_within(SIDE, 1))
    corner = Vec3Int(data.draw(st.tuples(*[st.integers(0, 9)] * 3)))
    monkeypatch.setattr(wkw_blocks, "_FEW_NBYTES", data.draw(st.sampled_from([1, 5_000, 1 << 20])))
    monkeypatch.setattr(wkw_blocks, "_BUFFER_NBYTES", data.draw(st.sampled_from([1, 5_000, 1 << 20])))
    if data.draw(st.booleans()):  # where the library's functions are not at hand
        monkeypatch.setattr(kernels, "has_lz4", lambda: False)
    else:
        monkeypatch.setattr(kernels, "has_lz4", has_lz4)
    monkeypatch.setattr(wkw_blocks, "_STREAM_NBYTES", data.draw(st.sampled_from([0, 1 << 40])))
    wkw_blocks._batches.cache_clear()
    shape = (voxels.shape[0], *(corner + box.size + 2))
    expected = np.full(shape, 7, voxels.dtype, order="F")
    inside = (slice(None), *box.offset(corner - box.topleft).to_slices())
    expected[inside] = voxels[(slice(None), *box.offset((SIDE, 0, 0)).to_slices())]
    out = np.full(shape, 7, voxels.dtype, order="F")
    assert read_box(mag.cube_path(Vec3Int(1, 0, 0)), mag.header, box, out, corner)
    np.testing.assert_array_equal(out, expected)
    wkw_blocks._batches.cache_clear()


@pytest.mark.slow
@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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
    monkeypatch.setattr(wkw_blocks, "_BUFFER_NBYTES", data.draw(st.sampled_from([1, 5_000, 1 << 20])))
    wkw_blocks._batches.cache_clear()
    padded = np.zeros((voxels.shape[0], 2 * SIDE + 32, SIDE + 32, SIDE + 32), voxels.dtype, order="F")
    padded[:, : 2 * SIDE, :SIDE, :SIDE] = voxels  # where there is no cube all is zero
    expected = downsample(padded[(slice(None), *box.to_slices())], tuple(factors), mode)
    out = np.full_like(expected, 7)
    mag.shrink(box, factors, mode, out)
    np.testing.assert_array_equal(out, expected)
    wkw_blocks._batches.cache_clear()


def test_a_missing_cube_is_left_to_the_caller(tmp_path):
    mag, _ = library_mag(tmp_path / "mag", compression=2)
    out = np.full((1, SIDE, SIDE, SIDE), 7, "uint8", order="F")
    box = BoundingBox((0, 0, 0), out.shape[1:])
    assert not read_box(mag.cube_path(Vec3Int(9, 0, 0)), mag.header, box, out, Vec3Int(0, 0, 0))
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
            read_box(path, mag.header, box, out, Vec3Int(0, 0, 0))


@pytest.mark.parametrize("compression", [2, 3])
def test_a_block_that_is_damaged_is_named(tmp_path, compression):
    """What is beside it can still be read."""
    mag, voxels = library_mag(tmp_path / "mag", compression=compression)
    path = Path(mag.cube_path(Vec3Int(0, 0, 0)))
    data = bytearray(path.read_bytes())
    start, stop = np.frombuffer(data, "<u8", 4**3, 16)[[6, 7]].tolist()
    data[start:stop] = b"\xff" * (stop - start)  # block 7 along the Morton curve: (1, 1, 1)
    path.write_bytes(data)
    for box in (BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE)), BoundingBox((15, 15, 15), (1, 1, 1))):
        for threads in (1, 2):
            with pytest.raises(DamagedCubeError, match=rf"{path} is damaged: its block 7 of 64 cannot be"):
                mag.read(box, threads)
    beside = BoundingBox((16, 0, 0), (40, 32, 32))
    np.testing.assert_array_equal(mag.read(beside), voxels[(slice(None), *beside.to_slices())])


def test_a_cube_that_becomes_shorter_while_it_is_read(tmp_path, monkeypatch):
    """Other programs write plain cubes in place, and one may be cut off between the check and the read."""
    mag, _ = library_mag(tmp_path / "mag")
    path = mag.cube_path(Vec3Int(0, 0, 0))
    check = wkw_blocks.check_cube_file

    def cut_off(*arguments):
        found = check(*arguments)
        os.truncate(path, 1000)
        return found

    monkeypatch.setattr(wkw_blocks, "check_cube_file", cut_off)
    with pytest.raises(DamagedCubeError, match=r"x0\.wkw is damaged: it ends at byte 1000"):
        mag.read(BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE)))


def test_a_cube_that_cannot_be_opened_a_second_time_is_an_error(tmp_path, monkeypatch):
    """Not zeros: a process can run out of descriptors between the check and the read."""
    mag, voxels = library_mag(tmp_path / "mag")
    box = BoundingBox((0, 0, 0), (2 * SIDE, SIDE, SIDE))
    monkeypatch.setattr(open_cubes, "SETTLED_NS", -(10**18))
    np.testing.assert_array_equal(mag.read(box), voxels)  # now both are known to be sound

    def refuse(path):
        raise OSError(24, "Too many open files", path)

    monkeypatch.setattr(wkw_blocks, "open_regular", refuse)
    with pytest.raises(OSError, match=r"Too many open files.*x0\.wkw"):
        mag.read(box)


def test_a_cube_that_is_removed_between_check_and_read_holds_zeros(tmp_path, monkeypatch):
    mag, voxels = library_mag(tmp_path / "mag")
    opened, removed = WkwMag._open_cube, []
    assert mag.check_cube(mag.cube_path(Vec3Int(0, 0, 0)))

    def look(self, path):
        if path.endswith("x0.wkw") and not removed:
            removed.append(os.unlink(path))
        return opened(self, path)

    monkeypatch.setattr(WkwMag, "_open_cube", look)
    expected = voxels.copy()
    expected[:, :SIDE] = 0
    np.testing.assert_array_equal(mag.read(BoundingBox((0, 0, 0), (2 * SIDE, SIDE, SIDE))), expected)


def test_buffers_of_large_blocks_are_not_kept():
    wkw_blocks._local.__dict__.clear()
    wkw_blocks.thread_buffer("plain", 100)
    kept = wkw_blocks._local.plain
    wkw_blocks.thread_buffer("plain", 64 << 20)
    assert wkw_blocks._local.plain is kept
