"""Works on the cubes that exist."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wkdask import BoundingBox, Dataset
from wkdask.errors import TaskFailedError
from wkdask.geometry import EMPTY_BOX, Vec3Int
from wkdask.jobs.engines.choice import LocalEngine
from wkdask.jobs.plan import plan_write
from wkdask.operations import existing
from wkdask.operations.existing import nonzero_unit, outermost_first, plan_existing
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.wkw.mag import WkwMag
from wkdask.testing import boxes_within

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


class Voxels:
    """A mag in memory that counts how often each voxel is read."""

    def __init__(self, voxels):
        self.voxels = voxels
        self.times = np.zeros(voxels.shape[1:], int)
        self.spec = ArraySpec("uint8", 1, Vec3Int.full(4), Vec3Int.full(16), None)

    def is_empty(self, box):
        return False

    def read(self, box):
        self.times[box.to_slices()] += 1
        return np.asfortranarray(self.voxels[(slice(None), *box.to_slices())])


@settings(deadline=None)
@given(
    boxes_within(16, 1),
    st.lists(boxes_within(16, 1), max_size=3),
    st.one_of(st.just(EMPTY_BOX), boxes_within(16, 1)),
)
def test_no_voxel_is_read_twice_and_none_within_what_is_known(unit, filled, known):
    voxels = np.zeros((1, 16, 16, 16), "uint8")
    for box in filled:
        voxels[(0, *box.to_slices())] = 1
    places = np.argwhere(voxels[(0, *unit.to_slices())]) + unit.topleft
    expected = known
    if places.size:
        expected = known.extended_by(BoundingBox.from_corners(places.min(axis=0), places.max(axis=0) + 1))
    store = Voxels(voxels)
    found = nonzero_unit(store, unit, known).value
    assert known.extended_by(found) == expected
    assert store.times.max() <= 1
    if known.contains_bbox(unit):
        assert not store.times.any()


def test_corners_come_first():
    units = [BoundingBox((x, y, z), (1, 1, 1)) for x in range(3) for y in range(3) for z in range(3)]
    ordered = [unit.topleft for unit in outermost_first(units)]
    assert {*ordered[:8]} == {Vec3Int(x, y, z) for x in (0, 2) for y in (0, 2) for z in (0, 2)}
    assert ordered[-1] == Vec3Int(1, 1, 1)


@pytest.fixture
def counted(monkeypatch):
    """The boxes that are read of WKW mags."""
    boxes, read = [], WkwMag.read

    def note(self, box, threads=1):
        boxes.append(box)
        return read(self, box, threads)

    monkeypatch.setattr(WkwMag, "read", note)
    return boxes


@pytest.fixture
def one_cube_per_unit(monkeypatch):
    monkeypatch.setattr(existing, "plan_write", partial(plan_write, unit_nbytes=1))


def test_cubes_that_cannot_change_the_box_are_not_read(tmp_path, counted, one_cube_per_unit):
    """A filled box of 6³ cubes of 4³ chunks: the corners tell two thirds of it."""
    side = 6 * 32
    mag = (
        Dataset.create(tmp_path / "ds", (1, 1, 1))
        .add_layer("color", "color")
        .add_mag(1, chunk_shape=8, shard_shape=32)
    )
    mag.write(np.ones((1, side, side, side), np.uint8), offset=(0, 0, 0))
    counted.clear()
    assert mag.calculate_bounding_box() == BoundingBox((0, 0, 0), (side, side, side))
    assert len({box.topleft // 32 for box in counted}) <= 8
    assert sum(box.volume() for box in counted) < 8 * 32**3


def test_a_box_that_ends_within_cubes_needs_the_cubes_of_that_side_only(tmp_path, counted, one_cube_per_unit):
    mag = (
        Dataset.create(tmp_path / "ds", (1, 1, 1))
        .add_layer("color", "color")
        .add_mag(1, chunk_shape=8, shard_shape=32)
    )
    box = BoundingBox((0, 0, 0), (6 * 32, 6 * 32, 5 * 32 + 20))
    mag.write(np.ones((1, *box.size), np.uint8), offset=(0, 0, 0))
    counted.clear()
    assert mag.calculate_bounding_box() == box
    read = {box.topleft // 32 for box in counted}
    assert {Vec3Int(x, y, 5) for x in range(6) for y in range(6)} <= read
    assert len(read) <= 36 + 36  # in the last round more are read than it needs


def test_empty_cubes_outside_lead_further_in(tmp_path, one_cube_per_unit):
    """Cubes of zeros that other programs have left."""
    mag = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("color", "color").add_mag(1, shard_shape=32)
    side = 5 * 32
    voxels = np.zeros((1, side, side, side), np.uint8)
    voxels[0, 70:75, 66:80, 90:93] = 1
    mag.write(np.ones_like(voxels), offset=(0, 0, 0))
    for index in mag.place.store.cubes_on_disk():
        corner = index * 32
        part = voxels[(slice(None), *BoundingBox(corner, (32, 32, 32)).to_slices())]
        with open(mag.place.store.cube_path(index), "r+b") as file:
            file.seek(16)
            file.write(part.tobytes(order="F"))
    assert mag.calculate_bounding_box() == BoundingBox((70, 66, 90), (5, 14, 3))


def test_a_damaged_cube_that_could_change_the_box_is_an_error(scattered):
    path = scattered.place.store.cube_path(Vec3Int(*(n // 32 for n in FAR)))
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(TaskFailedError, match=path):
        scattered.calculate_bounding_box()
