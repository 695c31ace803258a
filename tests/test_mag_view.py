"""Mags: absolute offsets, growing boxes, defaults as the table of coordinates has them."""

import pickle

import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, MagView
from wkdask.errors import AlignmentError, InvalidValueError, OutOfBoundsError, PlanError

BOX1 = BoundingBox((10, 12, 7), (20, 16, 9))
"""The layer's box in voxels of mag 1; on the grid of mag 2-2-1."""
CORNER, SIZE = (5, 6, 7), (10, 8, 9)
"""The same in voxels of mag 2-2-1."""


@pytest.fixture
def filled(make_mag, random_voxels):
    """Return (mag 2-2-1, its voxels)."""
    mag, voxels = make_mag(mag=(2, 2, 1)), random_voxels((1, *SIZE))
    mag.write(voxels, offset=CORNER)
    return mag, voxels


# --- reading --------------------------------------------------------------------------------------------


def test_reads_are_absolute_and_default_to_the_box(filled):
    mag, voxels = filled
    assert mag.layer.bounding_box == BOX1
    assert np.array_equal(mag.read(), voxels)
    assert np.array_equal(mag.read(offset=CORNER, size=SIZE), voxels)
    assert np.array_equal(mag.read(size=(3, 2, 1)), voxels[:, :3, :2, :1])  # from the box's corner
    assert np.array_equal(mag.read(offset=(7, 7, 8)), voxels[:, 2:, 1:, 1:])  # to its far corner
    assert np.array_equal(mag.read(bounding_box=BOX1), voxels)
    assert np.array_equal(
        mag.read(bounding_box=BoundingBox((14, 14, 8), (4, 4, 3))), voxels[:, 2:4, 1:3, 1:4]
    )
    assert np.array_equal(mag.to_dask().compute(), voxels)
    around = mag.read(offset=(0, 0, 0), size=(20, 20, 20))
    assert np.array_equal(around[:, 5:15, 6:14, 7:16], voxels)
    assert around.sum(dtype="u8") == voxels.sum(dtype="u8")
    assert mag.read(offset=(1000, 0, 0), size=(2, 2, 2)).sum() == 0


def test_a_box_off_the_mags_grid_is_read_aligned_outwards(filled):
    mag, voxels = filled
    mag.layer.bounding_box = BoundingBox((11, 13, 8), (17, 13, 5))
    assert mag.box == BoundingBox((5, 6, 8), (9, 7, 5))
    assert np.array_equal(mag.read(), voxels[:, :9, :7, 1:6])
    assert mag.to_dask().shape == (1, 9, 7, 5)
    with pytest.raises(AlignmentError, match="nearest"):
        mag.read(bounding_box=BoundingBox((11, 13, 8), (17, 13, 5)))


def test_the_box_says_what_is_read_and_touches_no_data(filled):
    mag, voxels = filled
    mag.layer.bounding_box = BoundingBox((14, 14, 8), (4, 4, 3))
    assert np.array_equal(mag.read(), voxels[:, 2:4, 1:3, 1:4])
    mag.layer.bounding_box = BOX1
    assert np.array_equal(mag.read(), voxels)


def test_an_empty_layer_reads_nothing(make_mag):
    mag = make_mag("uint16", 3)
    assert mag.read().shape == (3, 0, 0, 0)
    assert mag.read().dtype == np.uint16
    assert mag.read(offset=(5, 5, 5)).shape == (3, 0, 0, 0)
    assert mag.read(size=(10, 10, 10)).shape == (3, 10, 10, 10)
    assert not mag.read(size=(10, 10, 10)).any()
    assert mag.box.is_empty()
    assert mag.size == (0, 0, 0)
    assert mag.get_view().read().shape == (3, 0, 0, 0)


@pytest.mark.parametrize("size", [(0, 3, 3), (0, 0, 0), (3, 3, 0)])
def test_reads_of_size_zero_are_empty(filled, size):
    assert filled[0].read(offset=(6, 6, 7), size=size).shape == (1, *size)


def test_impossible_reads_are_refused(filled):
    mag, _ = filled
    for arguments, error in [
        ({"offset": (-1, 0, 0)}, OutOfBoundsError),
        ({"offset": (0, 0, 0), "size": (-1, 2, 2)}, InvalidValueError),
        ({"offset": (0, 0, 0), "size": (2**32, 1, 1)}, InvalidValueError),
        ({"bounding_box": BoundingBox((-2, 0, 0), (4, 4, 4))}, InvalidValueError),
        ({"offset": (0, 0, 0), "bounding_box": BOX1}, InvalidValueError),
    ]:
        with pytest.raises(error):
            mag.read(**arguments)


def test_an_old_empty_box_is_empty(make_mag):
    mag = make_mag()
    path = f"{mag.place.dataset_path}/datasource-properties.json"
    with open(path) as file:
        text = file.read()
    raw = text.replace("\n", "").replace(" ", "").replace('"topLeft":[0,0,0]', '"topLeft":[-1,-1,-1]')
    assert "-1" in raw
    with open(path, "w") as file:
        file.write(raw)
    assert mag.read().shape == (1, 0, 0, 0)
    mag.write(np.ones((2, 2, 2), "uint8"), offset=(5, 5, 5))
    assert mag.layer.bounding_box == BoundingBox((5, 5, 5), (2, 2, 2))


# --- writing --------------------------------------------------------------------------------------------


def test_a_write_without_a_place(make_mag):
    mag, ones = make_mag(), np.ones((4, 4, 4), "uint8")
    mag.write(ones)  # empty layer: the origin
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (4, 4, 4))
    mag.write(np.ones((6, 2, 2), "uint8"))  # it begins at the origin
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (6, 4, 4))


def test_a_write_without_a_place_into_a_layer_elsewhere_names_both(filled, state_of):
    mag, _ = filled
    before = state_of(mag)
    for data in (np.ones((4, 4, 4), "uint8"), da.ones((1, 4, 4, 4), dtype="uint8")):
        with pytest.raises(InvalidValueError) as caught:
            mag.write(data)
        assert "offset=(0, 0, 0)" in str(caught.value)
        assert "offset=(5, 6, 7)" in str(caught.value)
    assert state_of(mag) == before


def test_the_box_grows_to_the_union(make_mag):
    mag = make_mag(channels=3)
    mag.write(np.ones((3, 10, 10, 10), "uint8"), offset=(10, 10, 10))
    assert mag.layer.bounding_box == BoundingBox((10, 10, 10), (10, 10, 10))
    mag.write(np.ones((3, 5, 5, 5), "uint8"), offset=(5, 5, 20))
    assert mag.layer.bounding_box == BoundingBox((5, 5, 10), (15, 15, 15))


def test_a_coarse_write_grows_the_box_in_voxels_of_mag_1(make_mag):
    mag = make_mag(mag=(2, 2, 1))
    mag.write(np.ones((50, 1, 48), "uint8"), offset=(10, 10, 10))
    assert mag.layer.bounding_box == BoundingBox((20, 20, 10), (100, 2, 48))


def test_a_coarse_write_claims_no_voxels_that_only_fill_up_its_last_one(make_mag):
    fine = make_mag()
    fine.write(np.ones((25, 25, 25), "uint8"), offset=(3, 3, 3))
    coarse = fine.layer.add_mag(2, chunk_shape=16, shard_shape=32)
    assert coarse.box == BoundingBox((1, 1, 1), (13, 13, 13))
    coarse.write(np.ones((13, 13, 13), "uint8"), offset=(1, 1, 1))
    assert fine.layer.bounding_box == BoundingBox((3, 3, 3), (25, 25, 25))
    coarse.write(np.ones((14, 1, 1), "uint8"), offset=(1, 1, 1))
    assert fine.layer.bounding_box == BoundingBox((3, 3, 3), (27, 25, 25))


def test_writes_beyond_the_box_are_fine(filled):
    mag, voxels = filled
    mag.write(np.full((1, 2, 2, 2), 9, "uint8"), offset=(100, 3, 2))
    assert mag.layer.bounding_box == BoundingBox((10, 6, 2), (194, 22, 14))
    assert np.array_equal(mag.read(offset=CORNER, size=SIZE), voxels)


def test_a_write_by_box_counts_mag_1(filled, random_voxels):
    mag, voxels = filled
    new = random_voxels((1, 2, 3, 4), seed=8)
    mag.write(new, bounding_box=BoundingBox((14, 14, 8), (4, 6, 4)))
    voxels[:, 2:4, 1:4, 1:5] = new
    assert np.array_equal(mag.read(), voxels)
    with pytest.raises(AlignmentError):
        mag.write(new, bounding_box=BoundingBox((15, 14, 8), (4, 6, 4)))
    with pytest.raises(InvalidValueError, match="voxels of mag 2-2-1"):
        mag.write(new, bounding_box=BoundingBox((14, 14, 8), (2, 4, 4)))


def test_array_expr_is_refused_with_the_setting(make_mag, monkeypatch):
    mag = make_mag()
    monkeypatch.setattr(da, "array_expr_enabled", lambda: True, raising=False)  # dask 2025.5 lacks it
    with pytest.raises(PlanError, match=r"array\.query-planning"):
        mag.write(da.ones((1, 4, 4, 4), dtype="uint8"))
    mag.write(np.ones((4, 4, 4), "uint8"))


# --- views, cubes, handles ------------------------------------------------------------------------------


def test_views_default_to_the_box_and_stay_in_it(filled):
    mag, voxels = filled
    assert mag.get_view().box == BoundingBox(CORNER, SIZE)
    assert np.array_equal(mag.get_view().read(), voxels)
    assert mag.get_view(offset=(7, 7, 8)).box == BoundingBox((7, 7, 8), (8, 7, 8))
    assert mag.get_view(size=(1, 2, 3)).box == BoundingBox(CORNER, (1, 2, 3))
    assert mag.get_view(bounding_box=BoundingBox((14, 14, 8), (4, 4, 3))).box.size == (2, 2, 3)
    for offset, size in [((0, 0, 0), SIZE), (CORNER, (11, 8, 9))]:
        with pytest.raises(OutOfBoundsError, match="read_only=True"):
            mag.get_view(offset, size)
    wide = mag.get_view((0, 0, 0), (40, 20, 20), read_only=True)
    assert wide.read_only
    assert np.array_equal(wide.read(CORNER, SIZE), voxels)
    with pytest.raises(OutOfBoundsError):
        mag.get_view((-1, 0, 0), (4, 4, 4), read_only=True)


def test_cubes_on_disk(make_mag):
    mag = make_mag()
    mag.write(np.ones((40, 2, 2), "uint8"), offset=(30, 0, 64))
    mag.write(np.ones((1, 1, 1), "uint8"), offset=(1000, 2000, 4000))
    boxes = {box.topleft.to_tuple() for box in mag.cubes_on_disk()}
    assert boxes == {(0, 0, 64), (32, 0, 64), (64, 0, 64), (992, 1984, 4000)}


def test_what_a_mag_says_of_itself(filled):
    mag, _ = filled
    assert mag.name == "2-2-1"
    assert mag.global_offset == (0, 0, 0)
    assert mag.size == (15, 14, 16)
    assert mag.bounding_box == BOX1
    assert not mag.read_only
    assert mag.layer.name == "layer"


def test_mags_pickle_small_and_see_later_growth(filled):
    mag, _ = filled
    data = pickle.dumps(mag)
    assert len(data) < 1_500
    again = pickle.loads(data)
    assert isinstance(again, MagView)
    mag.write(np.ones((1, 4, 4, 4), "uint8"), offset=(50, 50, 50))
    assert again.box == mag.box
    assert np.array_equal(again.read(), mag.read())
    assert again.layer.bounding_box == mag.layer.bounding_box


def test_a_second_handle_sees_the_growth_and_adds_to_it(make_mag):
    first = make_mag()
    second = Dataset(first.place.dataset_path).get_layer("layer").get_mag(1)
    assert second.box.is_empty()
    first.write(np.ones((4, 4, 4), "uint8"), offset=(10, 10, 10))
    assert second.read().sum() == 64
    second.write(np.ones((4, 4, 4), "uint8"), offset=(30, 10, 10))
    assert first.layer.bounding_box == second.layer.bounding_box == BoundingBox((10, 10, 10), (24, 4, 4))
    first.write(np.ones((4, 4, 4), "uint8"), offset=(0, 10, 10))
    assert second.layer.bounding_box == BoundingBox((0, 10, 10), (34, 4, 4))


# --- writes with their pyramid ----------------------------------------------------------------------------


def test_a_write_with_its_pyramid(make_mag, random_voxels):
    voxels = random_voxels((1, 100, 90, 70))
    whole, mag = make_mag(), make_mag()
    whole.write(voxels)
    whole.layer.downsample(coarsest_mag=4, compression=None)
    mag.write(voxels[:, :40], pyramid=True)  # there are no coarser mags yet
    assert sorted(map(str, mag.layer.mags)) == ["1", "2", "4"]
    mag.write(voxels[:, 40:], offset=(40, 0, 0), pyramid=True)  # the box grows: its old border is redone
    for level in (1, 2, 4):
        assert np.array_equal(mag.layer.get_mag(level).read(), whole.layer.get_mag(level).read())
    with pytest.raises(InvalidValueError, match="finest"):
        mag.layer.get_mag(2).write(voxels[:, :8, :8, :8], offset=(0, 0, 0), pyramid=True)
    with pytest.raises(InvalidValueError, match="part of"):
        mag.get_view(size=(32, 32, 32)).write(voxels[:, :8, :8, :8], pyramid=True)
