"""A mag, and a view of it, where numpy, dask and habit expect an array."""

import dask.array as da
import numpy as np
import pytest

import wkdask
from wkdask import BoundingBox, Dataset
from wkdask.errors import InvalidValueError, PlanError

BOX = BoundingBox((10, 20, 30), (40, 36, 20))


@pytest.fixture
def mag(make_mag, random_voxels):
    mag = make_mag()
    mag.write(random_voxels((1, *BOX.size)), bounding_box=BOX)
    return mag


@pytest.fixture(params=["mag", "view"])
def view(mag, request):
    return mag if request.param == "mag" else mag.get_view(bounding_box=BOX)


def test_what_an_array_has(view):
    assert (view.shape, view.ndim, view.dtype) == ((1, 40, 36, 20), 4, np.uint8)
    assert view.chunks == view.to_dask().chunks


def test_an_index_counts_from_the_corner_of_the_box(view):
    voxels = view.read()
    for index in (
        0,
        (0, 0, 0, 0),
        (slice(None), slice(3, 9), slice(None, None, 5), -1),
        (..., 3),
        (0, ...),
        ...,
        (0, [1, 5], slice(2, 4)),
        (slice(None), slice(100, 200)),
    ):
        assert np.array_equal(view[index], voxels[index]), index
    for index in ((0, 0, 0, 0, 0), (..., ...), None, (0, 40)):
        with pytest.raises(IndexError):
            view[index]


def test_numpy_takes_it_for_an_array(view):
    voxels = view.read()
    assert np.array_equal(np.asarray(view), voxels)
    assert np.asarray(view, dtype="float32").dtype == np.float32
    assert np.array_equal(np.array(view, copy=True), voxels)
    assert np.mean(view) == voxels.mean()
    with pytest.raises(ValueError, match="without a copy"):
        np.array(view, copy=False)


def test_dask_takes_it_for_an_array(view):
    lazy = da.asarray(view)
    assert lazy.name == view.to_dask().name  # by name, and cube by cube: nothing is wrapped
    assert np.array_equal(da.from_array(view).compute(), view.read())


def test_another_mag_can_be_written(view, make_mag):
    target = make_mag()
    target.write(view, bounding_box=BOX)
    assert np.array_equal(target.read(), view.read())


def test_what_assigns_says_at_once_what_to_call(mag):
    def never(block):
        raise AssertionError("computed")

    x = da.map_blocks(never, da.zeros(mag.shape, dtype="uint8"), dtype="uint8", meta=np.empty((0,) * 4, "u1"))
    for store in (lambda: da.store(x, mag), lambda: x.store(mag), lambda: mag.__setitem__(..., 0)):
        with pytest.raises(PlanError, match=r"mag\.write"):
            store()


@pytest.mark.parametrize("box", [((10, 20, 30), (40, 36, 20)), (10, 20, 30, 40, 36, 20), "10,20,30,40,36,20"])
def test_a_box_may_be_a_tuple(mag, box, make_mag, tmp_path):
    voxels = mag.read()
    assert np.array_equal(mag.read(bounding_box=box), voxels)
    assert np.array_equal(mag.read(absolute_bounding_box=box), voxels)
    assert np.array_equal(mag.to_dask(bounding_box=box).compute(), voxels)
    assert mag.get_view(bounding_box=box).box == BOX
    target = make_mag()
    target.write(voxels, bounding_box=box)
    mag.map_cubes(lambda block: block, target, bounding_box=box)
    wkdask.store([(mag.to_dask(), target, box)])
    assert np.array_equal(target.read(), voxels)
    target.layer.bounding_box = box
    assert target.split(1, bounding_box=box) == [BOX]
    mag.layer.dataset.copy_dataset(tmp_path / "copy", bounding_box=box)
    assert Dataset(tmp_path / "copy").get_layer("layer").bounding_box == BOX


def test_what_is_no_box_is_refused(mag):
    for box in ((1, 2, 3), "1,2", 7):
        with pytest.raises(InvalidValueError):
            mag.read(bounding_box=box)


def test_help_tells_the_coordinates_of_a_mag():
    for name in ("read", "read_bbox", "write", "get_buffered_slice_writer"):
        words = getattr(wkdask.MagView, name).__doc__
        assert "relative to the view" not in words, name
        assert "absolute, in voxels of this mag" in " ".join(words.split()), name
        assert "absolute, in voxels of this mag" not in getattr(wkdask.View, name).__doc__
