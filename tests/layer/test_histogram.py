"""Which mag the histogram of a layer is of."""

import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, Mag
from wkdask.errors import InvalidValueError


@pytest.fixture
def layer(tmp_path):
    """A layer whose mag n is full of n."""
    layer = Dataset.create(tmp_path / "ds", (4, 4, 4)).add_layer("color", "color")
    for mag in (1, 2, 4):
        layer.add_mag(mag, shard_shape=128).write(np.full([256 // mag] * 3, mag, "uint8"))
    return layer


def test_the_coarsest_that_suffices(layer):
    found = layer.histogram()
    assert (found.mag, found.counts[2], found.minimum, found.maximum) == (Mag(2), 128**3, 2, 2)
    assert found.is_exact


def test_all_voxels_are_those_of_the_finest(layer):
    found = layer.histogram(exact=True)
    assert (found.mag, found.counts[1], found.voxels) == (Mag(1), 256**3, 256**3)


def test_of_a_part_the_finest_where_none_suffices(layer):
    found = layer.histogram(bounding_box=BoundingBox((3, 3, 3), (5, 5, 5)))
    assert (found.mag, found.voxels) == (Mag(1), 125)


def test_a_box_is_aligned_to_the_mag(layer):
    found = layer.histogram(bounding_box=BoundingBox((1, 1, 1), (253, 253, 253)))
    assert found.mag == Mag(2)
    assert found.bounding_box == BoundingBox((0, 0, 0), (254, 254, 254))


def test_a_layer_without_mags(layer):
    with pytest.raises(InvalidValueError, match="no mags"):
        layer.dataset.add_layer("empty", "color").histogram()
