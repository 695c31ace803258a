"""What views and mags have in common, beyond test_view and test_mag_view: 2021's words, refusals, tasks."""

import dask
import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox, View
from wkdask.errors import DTypeError, InvalidValueError, OutOfBoundsError, PlanError, ReadOnlyError
from wkdask.geometry import Vec3Int
from wkdask.view.box_view import because, checked_size

BOX = BoundingBox((10, 20, 30), (40, 30, 20))


@pytest.fixture
def filled(make_mag, random_voxels):
    mag, voxels = make_mag("uint16", 2, compression="lz4"), random_voxels((2, *BOX.size), "uint16")
    mag.write(voxels, offset=BOX.topleft)
    return mag, voxels


def test_the_header_is_the_wkw_packages_own(filled):
    header = filled[0].header
    assert (header.block_len, header.file_len, header.num_channels) == (16, 2, 2)
    assert (header.voxel_type, header.block_type) == (np.uint16, 2)


def test_boxes_of_2021_are_relative_and_in_voxels_of_the_mag(make_mag, random_voxels):
    mag, voxels = make_mag(mag=(2, 2, 1)), random_voxels((1, 20, 20, 20))
    mag.write(voxels, offset=(10, 10, 10))
    view = mag.get_view((12, 13, 14), (8, 7, 6))
    mine = voxels[:, 2:10, 3:10, 4:10]
    assert np.array_equal(view.read_bbox(), mine)
    assert np.array_equal(view.read_bbox(BoundingBox((1, 2, 3), (4, 4, 2))), mine[:, 1:5, 2:6, 3:5])
    assert np.array_equal(mag.read_bbox(BoundingBox((10, 10, 10), (5, 5, 5))), voxels[:, :5, :5, :5])


def test_a_read_uses_the_threads_that_dask_is_given(filled):
    mag, voxels = filled
    for workers in (1, 7):
        with dask.config.set(num_workers=workers):
            assert np.array_equal(mag.read(), voxels)


def test_a_read_only_view_may_reach_beyond_and_reads_zeros(filled):
    mag, voxels = filled
    view = mag.get_view((0, 0, 0), (100, 100, 100), read_only=True)
    assert np.array_equal(view.read()[(slice(None), *BOX.to_slices())], voxels)
    assert view.read().sum(dtype="u8") == voxels.sum(dtype="u8")
    assert view.read((90, 90, 90), (50, 50, 50)).sum() == 0
    with pytest.raises(OutOfBoundsError):
        mag.get_view((0, 0, 0), (100, 100, 100))
    part = view.get_view((50, 50, 50), (200, 200, 200))
    assert part.read_only
    assert part.read().shape == (2, 200, 200, 200)
    with pytest.raises(ReadOnlyError):
        view.get_view((0, 0, 0), (5, 5, 5), read_only=False)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([[[1]]], InvalidValueError),
        (np.ones((2, 2, 2, 2), "uint8"), DTypeError),
        (np.ones((2, 2, 2, 2), ">u2"), DTypeError),
        (np.ones((2, 2, 0, 2), "uint16"), InvalidValueError),
        (np.ones((2, 2), "uint16"), InvalidValueError),
        (np.ones((2, 2, 2), "uint16"), InvalidValueError),  # no axis of channels, and there are two
        (np.ma.ones((2, 2, 2, 2), "uint16"), DTypeError),
        (da.ones((2, 8, 2, 2), dtype="uint16")[:, da.ones(8, dtype=bool)], PlanError),
    ],
)
def test_what_cannot_be_written_is_refused_before_a_task(filled, state_of, data, error):
    mag, _ = filled
    before = state_of(mag)
    with pytest.raises(error):
        mag.write(data, offset=(0, 0, 0))
    assert state_of(mag) == before


def test_a_box_and_an_array_of_different_sizes(filled, state_of):
    mag, _ = filled
    before = state_of(mag)
    with pytest.raises(InvalidValueError, match=r"\(40, 30, 20\).*\(40, 30, 19\)"):
        mag.write(np.ones((2, 40, 30, 19), "uint16"), bounding_box=BOX)
    assert state_of(mag) == before


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_channels_in_blocks_of_their_own_are_written_together(filled, random_voxels, kind):
    mag, _ = filled
    new = random_voxels((2, *BOX.size), "uint16", seed=3)
    mag.write(new if kind == "numpy" else da.from_array(new, chunks=(1, 13, 11, 7)), offset=BOX.topleft)
    assert np.array_equal(mag.read(), new)


def test_a_view_without_a_name_says_where_it_is(filled):
    mag, _ = filled
    view = View(mag.place, BOX)
    assert repr(view) == f"View(layer 'layer' mag 1, {BOX})"
    assert repr(View(mag.place, BOX, read_only=True)) == f"View(layer 'layer' mag 1, {BOX}, read-only)"


def test_opening_and_closing_as_in_2021(filled):
    view = filled[0].get_view()
    with view as opened:
        assert opened is view
        with pytest.raises(InvalidValueError, match="open already"):
            view.open()
    with pytest.raises(InvalidValueError, match="not open"):
        view.close()
    assert view.open().read().any()
    view.close()


def test_small_helpers():
    assert checked_size((0, 1, 2)) == Vec3Int(0, 1, 2)
    with pytest.raises(InvalidValueError, match="negative"):
        checked_size((1, -1, 1))
    assert (because(None), because("it is so")) == ("", ": it is so")
