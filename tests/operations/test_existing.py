"""Works on the cubes that exist."""

import numpy as np
import pytest

from wkdask import BoundingBox, Dataset
from wkdask.geometry import Vec3Int
from wkdask.jobs.engines.choice import LocalEngine
from wkdask.operations.existing import plan_existing

FAR = (1_000_000, 2_000_000, 3_000_000)


@pytest.fixture
def scattered(tmp_path):
    """A mag of cubes of 32³ with two cubes that are very far from each other, each with one voxel set."""
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    mag = dataset.add_layer("color", "color").add_mag("2-2-1", shard_shape=32)
    for corner in ((3, 5, 7), FAR):
        mag.write(np.ones((1, 1, 1), np.uint8), offset=corner)
    return mag


def test_the_box_of_far_cubes_takes_no_longer_than_the_cubes(scattered):
    expected = BoundingBox.from_corners((6, 10, 7), (2 * FAR[0] + 2, 2 * FAR[1] + 2, FAR[2] + 1))
    assert scattered.calculate_bounding_box() == expected


def test_far_cubes_are_compressed(scattered):
    report = scattered.compress(compression="lz4")
    assert report.cubes == 2
    assert scattered.spec.compression == "lz4"
    assert scattered.read(offset=FAR, size=(1, 1, 1)).item() == 1
    assert scattered.read(offset=(3, 5, 7), size=(1, 1, 1)).item() == 1


def test_units_cover_the_cubes_that_exist_and_no_gap(scattered):
    store = scattered.place.store
    cubes = [Vec3Int(0, 0, 0), Vec3Int(1, 0, 0), Vec3Int(9_000_000, 5, 5)]
    _, units = plan_existing(store, cubes, LocalEngine())
    for index in cubes:
        assert sum(unit.contains_bbox(store.spec.grid.cube_box(index)) for unit in units) == 1
    assert len(units) <= len(cubes)
