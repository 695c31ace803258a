"""What the tasks of a pyramid do: mirrored reads, halves, notes."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyramid_oracle import layer_with

from wkdask import BoundingBox
from wkdask.pyramid_tasks import read_mirrored


@pytest.fixture(scope="module")
def mirror_source(tmp_path_factory):
    """Return (stored mag, voxels, their corner)."""
    voxels = np.random.default_rng(0).integers(1, 255, (2, 23, 17, 12)).astype("uint8")
    layer = layer_with(tmp_path_factory.mktemp("mirror") / "ds", voxels, (9, 10, 11), cube=16)
    return layer.get_mag(1).place.store, voxels, (9, 10, 11)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
