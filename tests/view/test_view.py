"""Views: a box of a mag, with offsets relative to its corner."""

import pickle

import numpy as np
import pytest

from wkdask import BoundingBox, View
from wkdask.errors import AlignmentError, InvalidValueError, OutOfBoundsError, ReadOnlyError

CORNER = (100, 36, 6)
BOX = BoundingBox(CORNER, (40, 30, 20))
INNER = BoundingBox((110, 40, 8), (20, 16, 12))


@pytest.fixture
def filled(make_mag, random_voxels):
    """Return (mag 2-2-1, its voxels) in `BOX`, counted in its own voxels."""
    mag, voxels = make_mag(mag=(2, 2, 1), channels=2), random_voxels((2, *BOX.size))
    mag.write(voxels, offset=CORNER)
    return mag, voxels


def inner_view(mag, **options):
    return mag.get_view(INNER.topleft, INNER.size, **options)


def test_offsets_are_relative_and_boxes_absolute(filled):
    mag, voxels = filled
    view = inner_view(mag)
    mine = voxels[:, 10:30, 4:20, 2:14]
    assert np.array_equal(view.read(), mine)
    assert np.array_equal(view.read(offset=(3, 2, 1)), mine[:, 3:, 2:, 1:])
    assert np.array_equal(view.read(size=(3, 2, 1)), mine[:, :3, :2, :1])
    assert np.array_equal(view.read((3, 2, 1), (4, 5, 6)), mine[:, 3:7, 2:7, 1:7])
    box1 = BoundingBox((2 * 113, 2 * 42, 9), (2 * 4, 2 * 5, 6))
    assert np.array_equal(view.read(bounding_box=box1), mine[:, 3:7, 2:7, 1:7])
    assert np.array_equal(view.to_dask().compute(), mine)
    assert np.array_equal(view.to_dask("cube", bounding_box=box1).compute(), mine[:, 3:7, 2:7, 1:7])
    assert view.read().flags.f_contiguous


def test_what_a_view_says_of_itself(filled):
    mag, _ = filled
    view = inner_view(mag)
    assert view.global_offset == INNER.topleft
    assert view.size == INNER.size
    assert view.box == INNER
    assert view.bounding_box == BoundingBox((220, 80, 8), (40, 32, 12))
    assert (view.mag, view.path, view.spec) == (mag.mag, mag.path, mag.spec)
    assert view.get_dtype() == np.uint8
    assert view.num_channels == 2
    assert not view.read_only
    assert "read-only" in repr(inner_view(mag, read_only=True))


def test_writes_go_where_the_view_is(filled, random_voxels):
    mag, voxels = filled
    view, new = inner_view(mag), random_voxels((2, 5, 6, 7), seed=3)
    assert view.write(new).bounding_box == BoundingBox((220, 80, 8), (10, 12, 7))
    view.write(new, offset=(9, 8, 5))
    view.write(new, bounding_box=BoundingBox((240, 92, 9), (10, 12, 7)))
    expected = voxels.copy()
    for x, y, z in [(10, 4, 2), (19, 12, 7), (20, 10, 3)]:
        expected[:, x : x + 5, y : y + 6, z : z + 7] = new
    assert np.array_equal(mag.read(), expected)
    assert mag.layer.bounding_box == BOX.from_mag_to_mag1(mag.mag)


def test_nothing_leaves_a_view(filled, state_of):
    mag, _ = filled
    view, before = inner_view(mag), state_of(mag)
    ones = np.ones((2, 4, 4, 4), "uint8")
    for place in [{"offset": (17, 0, 0)}, {"offset": (0, 0, 9)}, {"offset": (-1, 0, 0)}]:
        with pytest.raises(OutOfBoundsError):
            view.write(ones, **place)
        with pytest.raises(OutOfBoundsError):
            view.read(size=(4, 4, 4), **place)
    outside = BoundingBox((220 - 2, 80, 8), (8, 8, 4))
    for call in (view.read, view.to_dask, lambda bounding_box: view.write(ones, bounding_box=bounding_box)):
        with pytest.raises(OutOfBoundsError):
            call(bounding_box=outside)
        with pytest.raises(AlignmentError, match="nearest"):
            call(bounding_box=BoundingBox((221, 80, 8), (8, 8, 4)))
    with pytest.raises(OutOfBoundsError):
        view.write(np.ones((2, 21, 1, 1), "uint8"))
    assert state_of(mag) == before


def test_empty_reads(filled):
    view = inner_view(filled[0])
    assert view.read(size=(0, 5, 5)).shape == (2, 0, 5, 5)
    assert view.read(offset=(20, 16, 12)).shape == (2, 0, 0, 0)
    with pytest.raises(InvalidValueError, match="negative"):
        view.read(size=(-1, 5, 5))


def test_offset_and_box_together_are_refused(filled):
    view = inner_view(filled[0])
    with pytest.raises(InvalidValueError, match="either"):
        view.read(offset=(0, 0, 0), bounding_box=view.bounding_box)
    with pytest.raises(InvalidValueError, match="either"):
        view.read(size=(1, 1, 1), bounding_box=view.bounding_box)


def test_a_read_only_view_refuses_writes(filled, state_of):
    mag, _ = filled
    view, before = inner_view(mag, read_only=True), state_of(mag)
    with pytest.raises(ReadOnlyError, match="read-only"):
        view.write(np.ones((2, 1, 1, 1), "uint8"))
    assert state_of(mag) == before


@pytest.mark.parametrize("read_only", [False, True])
def test_views_pickle_small(filled, read_only):
    view = inner_view(filled[0], read_only=read_only)
    view.read()
    data = pickle.dumps(view)
    assert len(data) < 1_500
    again = pickle.loads(data)
    assert isinstance(again, View)
    assert (again.box, again.read_only, again.place) == (view.box, read_only, view.place)
    assert np.array_equal(again.read(), view.read())


def test_a_pickled_view_works_in_another_process(filled, tmp_path, children):
    mag, voxels = filled
    (tmp_path / "handles").write_bytes(pickle.dumps((inner_view(mag), mag, mag.layer)))
    code = (
        "import pickle; view, mag, layer = pickle.load(open(args[0], 'rb')); "
        "view.write(np.full((2, 3, 3, 3), 77, 'uint8')); "
        "print(view.read().sum(dtype='u8'), mag.read().sum(dtype='u8'), layer.name, len(layer.mags))"
    )
    printed = children.run(code, tmp_path / "handles")
    expected = voxels.copy()
    expected[:, 10:13, 4:7, 2:5] = 77
    sums = [expected[:, 10:30, 4:20, 2:14].sum(dtype="u8"), expected.sum(dtype="u8")]
    assert printed.split() == [*map(str, sums), "layer", "1"]
    assert np.array_equal(mag.read(), expected)
