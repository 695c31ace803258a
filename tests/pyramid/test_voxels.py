"""Mirrored reads, blocks that were just written, halves."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyramid_oracle import layer_with, oracle
from thorough import examples

from wkdask import BoundingBox, Vec3Int
from wkdask.pyramid.voxels import Written, halved, read_mirrored


@pytest.fixture(scope="module")
def mirror_source(tmp_path_factory):
    """Return (stored mag, voxels, their corner)."""
    voxels = np.random.default_rng(0).integers(1, 255, (2, 23, 17, 12)).astype("uint8")
    layer = layer_with(tmp_path_factory.mktemp("mirror") / "ds", voxels, (9, 10, 11), cube=16)
    return layer.get_mag(1).place.store, voxels, (9, 10, 11)


@pytest.mark.slow
@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mirrored_reads_are_those_of_numpy(mirror_source, data):
    store, voxels, corner = mirror_source
    lows, sizes, starts, extents = [], [], [], []
    for axis in range(3):
        low = data.draw(st.integers(0, voxels.shape[axis + 1] - 1))
        size = data.draw(st.integers(1, voxels.shape[axis + 1] - low))
        before = data.draw(st.integers(0, 9))
        start = data.draw(st.integers(-before, size - 1))
        stop = data.draw(st.integers(max(start, 0) + 1, size + 9))
        lows.append(low)
        sizes.append(size)
        starts.append(start)
        extents.append(stop - start)
    region = tuple(slice(low, low + size) for low, size in zip(lows, sizes, strict=True))
    padded = np.pad(voxels[(slice(None), *region)], [(0, 0)] + [(30, 30)] * 3, mode="symmetric")
    expected = padded[
        (slice(None), *(slice(30 + a, 30 + a + n) for a, n in zip(starts, extents, strict=True)))
    ]
    valid = BoundingBox(np.add(corner, lows), sizes)
    box = BoundingBox(np.add(valid.topleft, starts), extents)
    assert np.array_equal(read_mirrored(store, valid, box), expected)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.tuples(*[st.integers(0, 5)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 2)] * 3),
)
def test_halves_are_those_of_numpy_where_the_box_is_off_the_grid(corner, size, factors):
    block = np.asfortranarray(np.random.default_rng(0).integers(0, 9, (2, *size)).astype("uint16"))
    expected, low = oracle(block, corner, factors, "mode")
    box, half = halved((BoundingBox(corner, size), block), Vec3Int(factors), "mode")
    assert box == BoundingBox(low, expected.shape[1:])
    assert np.array_equal(half, expected)
    assert halved((BoundingBox(corner, size), None), Vec3Int(factors), "mode") == (box, None)


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.tuples(*[st.integers(5, 25)] * 3), st.tuples(*[st.integers(1, 9)] * 3), st.booleans())
def test_what_was_just_written_is_not_read(mirror_source, at, extent, zero):
    store, voxels, corner = mirror_source
    here = BoundingBox(corner, voxels.shape[1:])
    new = BoundingBox(at, extent)
    block = np.full((2, *extent), 0 if zero else 255, "uint8")
    expected = np.zeros((2, 40, 40, 40), "uint8")
    expected[(slice(None), *here.to_slices())] = voxels
    expected[(slice(None), *new.to_slices())] = block
    written = Written(store, new, None if zero else block)
    for box in (BoundingBox((0, 0, 0), (40, 40, 40)), new, BoundingBox((9, 10, 11), (23, 17, 12))):
        assert np.array_equal(written.read(box), expected[(slice(None), *box.to_slices())])
    assert written.is_empty(new) == zero
