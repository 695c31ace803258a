"""Boxes, against the plain set of their voxels."""

import copy
import dataclasses
import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wkdask.errors import AlignmentError, InvalidValueError, OutOfBoundsError
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag, Vec3Int

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # shared cores
SMALL = st.integers(-7, 7)
NUMBERS = st.integers(-(2**31), 2**31)
VECTORS = st.builds(Vec3Int, NUMBERS, NUMBERS, NUMBERS)
DIVISORS = st.integers(1, 2**20) | st.integers(-(2**20), -1)
STEPS = st.tuples(*[st.integers(1, 5)] * 3).map(Vec3Int)
BOXES = st.builds(BoundingBox, st.tuples(SMALL, SMALL, SMALL), st.tuples(*[st.integers(0, 5)] * 3))
BIG_BOXES = st.builds(BoundingBox, VECTORS, st.tuples(*[st.integers(0, 2**31)] * 3))
POWERS = st.integers(0, 20).map(lambda exponent: 2**exponent)
MAGS = st.tuples(POWERS, POWERS, POWERS).map(Mag)

NOT_INTEGERS = [2.0, math.nan, "2", None, True, np.True_, np.float32(1), 1j, [1], (1, 2, 3)]


def voxels(box):
    """All voxels of a box, one by one."""
    return set(
        itertools.product(
            *(range(low, low + n) for low, n in zip(box.topleft.to_tuple(), box.size.to_tuple(), strict=True))
        )
    )


# boxes


@PATIENT
@given(BIG_BOXES)
def test_boxes_round_trip(box):
    x, y, z, w, h, d = box.to_tuple6()
    assert {"topLeft": [x, y, z], "width": w, "height": h, "depth": d} == box.to_wkw_dict()
    assert ((x, y, z), (w, h, d)) == box.to_tuple2()
    assert f"{x},{y},{z},{w},{h},{d}" == box.to_csv()
    for twin in (
        BoundingBox.from_wkw_dict(box.to_wkw_dict()),
        BoundingBox.from_tuple6(box.to_tuple6()),
        BoundingBox.from_tuple6(list(box.to_tuple6())),
        BoundingBox.from_tuple6(np.array(box.to_tuple6())),
        BoundingBox.from_tuple2(box.to_tuple2()),
        BoundingBox.from_csv(box.to_csv()),
        BoundingBox.from_csv(f" {box.to_csv().replace(',', ' , ')} "),
        BoundingBox.from_corners(box.topleft, box.bottomright),
        BoundingBox(box.topleft.to_np(), box.size.to_np()),
        eval(repr(box)),
        pickle.loads(pickle.dumps(box)),
        copy.copy(box),
        copy.deepcopy(box),
    ):
        assert twin == box
        assert hash(twin) == hash(box)
        assert type(twin.topleft) is type(twin.size) is Vec3Int
    assert f"{(x, y, z)} + {(w, h, d)}" == str(box)


def test_boxes_are_plain_json():
    box = BoundingBox(np.array([1, 2, 3]), np.array([4, 5, 6], dtype=np.uint16))
    values = box.to_wkw_dict()
    assert [type(part) for part in values["topLeft"]] == [int, int, int]
    assert type(values["width"]) is int


@PATIENT
@given(BOXES)
def test_a_box_is_its_voxels(box):
    assert len(voxels(box)) == box.volume()
    assert (not voxels(box)) is box.is_empty()
    assert box.topleft + box.size == box.bottomright
    around = BoundingBox(box.topleft - 1, box.size + 2)
    for voxel in voxels(around):
        assert (voxel in voxels(box)) is box.contains(voxel)


@PATIENT
@given(BOXES, BOXES)
def test_two_boxes_against_their_voxels(a, b):
    common = voxels(a) & voxels(b)
    assert common == voxels(a.intersection(b)) == voxels(b.intersection(a))
    assert (voxels(b) <= voxels(a)) is a.contains_bbox(b)
    assert common == voxels(a.intersected_with(b, dont_assert=True))
    if common:
        assert common == voxels(a.intersected_with(b))
    else:
        with pytest.raises(OutOfBoundsError, match="no voxel in common"):
            a.intersected_with(b)

    both = voxels(a) | voxels(b)
    around = a.extended_by(b)
    assert both <= voxels(around)
    if both:
        for axis in range(3):  # the smallest: each of its sides touches a voxel
            places = {voxel[axis] for voxel in both}
            assert (min(places), max(places) + 1) == (around.topleft[axis], around.bottomright[axis])
    else:
        assert around.is_empty()


@PATIENT
@given(BOXES, STEPS)
def test_aligned_outwards_is_the_smallest_and_inwards_the_largest(box, step):
    outer, inner = box.aligned_outwards(step), box.aligned_inwards(step)
    for aligned in (outer, inner):
        assert aligned.topleft % step == (0, 0, 0)
        assert aligned.bottomright % step == (0, 0, 0)
    assert outer.contains_bbox(box)
    assert box.contains_bbox(inner)
    cells = {tuple(voxel // step) for voxel in map(Vec3Int, voxels(box))}
    whole = {cell for cell in cells if voxels(BoundingBox(step * cell, step)) <= voxels(box)}
    assert len(cells) * step.prod() == outer.volume()
    assert len(whole) * step.prod() == inner.volume()


def test_an_empty_box_stays_empty_when_it_is_aligned():
    assert BoundingBox((-1, -1, -1), (0, 0, 0)).aligned_outwards((2, 2, 2)) == BoundingBox(
        (-2, -2, -2), (0, 0, 0)
    )
    assert BoundingBox((5, 5, 5), (0, 3, 3)).align_with_mag(4, ceil=True).is_empty()
    assert EMPTY_BOX.aligned_outwards((4, 4, 4)) == EMPTY_BOX


@pytest.mark.parametrize("step", [(0, 1, 1), (2, -4, 2), (1.0, 1, 1)])
def test_a_step_makes_a_grid(step):
    box = BoundingBox((1, 1, 1), (5, 5, 5))
    with pytest.raises(InvalidValueError):
        box.aligned_outwards(step)
    with pytest.raises(InvalidValueError):
        box.aligned_inwards(step)


def test_align_with_mag():
    box = BoundingBox((1, 1, 1), (10, 9, 9))
    assert box.align_with_mag(Mag(2)) == BoundingBox((2, 2, 2), (8, 8, 8))
    assert box.align_with_mag("2-2-1") == BoundingBox((2, 2, 1), (8, 8, 9))
    assert box.align_with_mag(Mag(2), ceil=True) == BoundingBox((0, 0, 0), (12, 10, 10))
    assert box.align_with_mag(1) == box.align_with_mag(1, ceil=True) == box


@PATIENT
@given(BIG_BOXES, MAGS)
def test_in_mag_and_back(box, mag):
    in_mag1 = box.from_mag_to_mag1(mag)
    assert in_mag1.to_tuple6() == tuple(
        int(part) * step for part, step in zip(box.to_tuple6(), (*mag, *mag), strict=True)
    )
    assert in_mag1.in_mag(mag) == box


@PATIENT
@given(BOXES, st.sampled_from([Mag(2), Mag("2-2-1"), Mag("1-4-2")]))
def test_in_mag_off_the_grid_names_the_nearest(box, mag):
    step = mag.to_vec3_int()
    if box.aligned_outwards(step) == box:
        assert box.in_mag(mag).volume() * step.prod() == box.volume()
    else:
        with pytest.raises(AlignmentError) as caught:
            box.in_mag(mag)
        assert str(box) in str(caught.value)
        assert f"mag {mag};" in str(caught.value)
        assert str(caught.value).endswith(f"the nearest around it is {box.aligned_outwards(step)}")
        box.aligned_outwards(step).in_mag(mag)  # and that one works


def test_in_mag_message():
    with pytest.raises(AlignmentError) as caught:
        BoundingBox((1, 0, 4), (3, 4, 4)).in_mag("2-2-1")
    assert str(caught.value) == (
        "the box (1, 0, 4) + (3, 4, 4) (voxels of mag 1) is not on the voxel grid of mag 2-2-1; "
        "the nearest around it is (0, 0, 4) + (4, 4, 4)"
    )


@PATIENT
@given(BOXES, STEPS)
def test_chunks_cover_the_box_once_from_its_corner(box, shape):
    chunks = list(box.chunk(shape))
    assert voxels(box) == set().union(*map(voxels, chunks))
    assert box.volume() == sum(chunk.volume() for chunk in chunks)
    for chunk in chunks:
        assert not chunk.is_empty()
        assert (chunk.topleft - box.topleft) % shape == (0, 0, 0)
        assert (shape - chunk.size).is_positive()


@PATIENT
@given(BOXES, STEPS, STEPS)
def test_chunks_lie_on_the_grid(box, align, factor):
    shape = align * factor
    chunks = list(box.chunk(shape, align))
    assert voxels(box) == set().union(*map(voxels, chunks))
    assert box.volume() == sum(chunk.volume() for chunk in chunks)
    assert chunks == sorted(chunks, key=lambda chunk: chunk.topleft.to_tuple())  # z fastest
    for chunk in chunks:
        assert not chunk.is_empty()
        assert (shape - chunk.size).is_positive()
        for axis in range(3):  # an edge is on the grid or is the box's own
            assert chunk.topleft[axis] in (
                box.topleft[axis],
                chunk.topleft[axis] // align[axis] * align[axis],
            )
            edge = chunk.bottomright[axis]
            assert edge in (box.bottomright[axis], edge // align[axis] * align[axis])


def test_chunks_as_webknossos_cuts_them():
    box = BoundingBox((10, 10, 10), (150, 150, 54))
    edges = [(10, 54), (64, 64), (128, 32)]
    assert [BoundingBox((x, y, 10), (w, h, 54)) for x, w in edges for y, h in edges] == list(
        box.chunk((64, 64, 64), (64, 64, 64))
    )
    assert list(BoundingBox((40, 0, 0), (80, 1, 1)).chunk((64, 1, 1), (32, 1, 1))) == [
        BoundingBox((40, 0, 0), (56, 1, 1)),
        BoundingBox((96, 0, 0), (24, 1, 1)),
    ]
    assert list(BoundingBox((5, 5, 5), (0, 3, 3)).chunk((4, 4, 4), (4, 4, 4))) == []
    assert list(EMPTY_BOX.chunk((4, 4, 4))) == []


@pytest.mark.parametrize(
    ("shape", "align"),
    [
        ((0, 64, 64), None),
        ((-1, 64, 64), None),
        ((0, 64, 64), (64, 64, 64)),
        ((16, 64, 64), (64, 64, 64)),
        ((100, 64, 64), (64, 64, 64)),
        ((64, 64, 64), (0, 64, 64)),
        ((64, 64, 64), (-64, 64, 64)),
        ((64, 64, 64.0), None),
    ],
)
def test_bad_chunk_shapes(shape, align):
    with pytest.raises(InvalidValueError):
        list(BoundingBox((0, 0, 0), (128, 128, 128)).chunk(shape, align))


@PATIENT
@given(BOXES, st.tuples(SMALL, SMALL, SMALL))
def test_slices_take_the_box_out_of_an_array(box, corner):
    array = np.zeros((30, 30, 30), dtype=np.uint8)
    if box.is_empty():
        assert array[box.to_slices(corner)].size == 0
    elif (box.topleft - corner).is_positive():
        array[box.to_slices(corner)] = 1
        marked = {(x, y, z) for x, y, z in (np.argwhere(array) + corner).tolist()}
        assert voxels(box) == marked
    else:
        with pytest.raises(OutOfBoundsError, match="starts before the array"):
            box.to_slices(corner)


def test_slices_without_an_offset():
    assert BoundingBox((1, 2, 3), (4, 5, 6)).to_slices() == (slice(1, 5), slice(2, 7), slice(3, 9))


def test_moved_and_grown_boxes():
    box = BoundingBox((1, 2, 3), (4, 5, 6))
    assert box.offset((1, 0, -9)) == BoundingBox((2, 2, -6), (4, 5, 6))
    assert box.padded_with_margins((1, 2, 3)) == BoundingBox((0, 0, 0), (6, 9, 12))
    assert box.padded_with_margins((1, 2, 3), (0, 0, 1)) == BoundingBox((0, 0, 0), (5, 7, 10))
    assert box.with_topleft((0, 0, 0)) == BoundingBox((0, 0, 0), (4, 5, 6))
    assert box.with_size((1, 1, 1)) == BoundingBox((1, 2, 3), (1, 1, 1))
    assert box.with_bottomright((2, 3, 4)) == BoundingBox((1, 2, 3), (1, 1, 1))
    with pytest.raises(InvalidValueError, match="cannot be negative"):
        box.with_bottomright((0, 0, 0))
    with pytest.raises(InvalidValueError, match="cannot be negative"):
        box.padded_with_margins((-3, 0, 0))


def test_layer_boxes_grow_as_in_the_peer():
    grown = EMPTY_BOX.extended_by(BoundingBox((10, 10, 10), (10, 10, 10)))
    assert grown == BoundingBox((10, 10, 10), (10, 10, 10))
    assert grown.extended_by(BoundingBox((5, 5, 20), (10, 10, 10))) == BoundingBox((5, 5, 10), (15, 15, 20))
    old = BoundingBox((0, 0, 0), (24, 24, 24))
    assert old.extended_by(BoundingBox((0, 0, 0), (1, 1, 48))) == BoundingBox((0, 0, 0), (24, 24, 48))
    written = BoundingBox((10, 10, 10), (50, 1, 48)).from_mag_to_mag1("2-2-1")
    assert old.extended_by(written).size == (120, 24, 58)


@pytest.mark.parametrize(
    ("topleft", "size"),
    [
        ((0, 0, 0), (1, -1, 1)),
        ((0, 0, 0.0), (1, 1, 1)),
        ((0, 0, 0), (1, 1, math.nan)),
        ((0, 0, True), (1, 1, 1)),
        ((0, 0), (1, 1)),
        (0, 1),
        (None, None),
        ("000", "111"),
    ],
)
def test_bad_boxes(topleft, size):
    with pytest.raises(InvalidValueError):
        BoundingBox(topleft, size)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5,6,7", "1,2,3,4,5,x", "1.0,2,3,4,5,6", "1,2,3,4,5,-6"]
)
def test_bad_csv_shows_the_form(text):
    with pytest.raises(InvalidValueError, match="x,y,z,width,height,depth"):
        BoundingBox.from_csv(text)


def test_points_between_voxels():
    box = BoundingBox((0, 0, 0), (2, 2, 2))
    assert box.contains((1.99, 0, 0))
    assert not box.contains((2.0, 0, 0))
    assert not box.contains((math.nan, 0, 0))


def test_boxes_are_frozen():
    box = BoundingBox((0, 0, 0), (1, 1, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        box.size = Vec3Int(2, 2, 2)
    with pytest.raises((AttributeError, TypeError)):
        box.other = 1
    assert len({box, BoundingBox((0, 0, 0), (1, 1, 1)), BoundingBox((0, 0, 0), (1, 1, 2))}) == 2
