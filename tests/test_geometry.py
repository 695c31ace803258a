"""Vectors, mags and boxes: against numpy, and boxes against the plain set of their voxels."""

import copy
import dataclasses
import itertools
import math
import operator
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


# vectors


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
@PATIENT
@given(a=VECTORS, b=VECTORS, number=NUMBERS)
def test_vectors_calculate_like_numpy(name, a, b, number):
    operation = getattr(operator, name)
    np_a, np_b = np.array(a, dtype=object), np.array(b, dtype=object)
    for left, right, expected in [
        (a, b, operation(np_a, np_b)),
        (a, tuple(b), operation(np_a, np_b)),
        (tuple(a), b, operation(np_a, np_b)),
        (list(a), b, operation(np_a, np_b)),
        (a, number, operation(np_a, number)),
        (number, b, operation(number, np_b)),
        (a, np.array(b), operation(np_a, np_b)),
        (a, np.int64(number), operation(np_a, number)),
    ]:
        result = operation(left, right)
        assert tuple(expected) == result
        assert type(result) is Vec3Int


@PATIENT
@given(VECTORS, st.tuples(DIVISORS, DIVISORS, DIVISORS), DIVISORS)
def test_vectors_divide_like_numpy(a, b, number):
    np_a, np_b = np.array(a), np.array(b)
    assert tuple(np_a // np_b) == a // b
    assert tuple(np_a % np_b) == a % b
    assert tuple(np_a // number) == a // number
    assert tuple(np_a % number) == a % number
    assert tuple(-(-np_a // np_b)) == a.ceildiv(b)
    assert a == a // b * b + a % b
    assert type(a // b) is type(a % b) is type(a.ceildiv(number)) is Vec3Int


@PATIENT
@given(VECTORS, VECTORS)
def test_other_vector_functions_against_numpy(a, b):
    np_a, np_b = np.array(a), np.array(b)
    assert tuple(-np_a) == -a
    assert tuple(np.minimum(np_a, np_b)) == a.pairmin(b)
    assert tuple(np.maximum(np_a, np_b)) == a.pairmax(b)
    assert bool((np_a >= 0).all()) is a.is_positive()
    assert bool((np_a > 0).all()) is a.is_positive(strictly=True)
    assert math.prod(int(part) for part in np_a) == a.prod()
    assert a.to_np().dtype == np.int64
    np.testing.assert_array_equal(a.to_np(), np_a)
    assert sum([a, b], Vec3Int.full(0)) == sum([a, b]) == a + b


@PATIENT
@given(VECTORS)
def test_a_vector_is_a_tuple(a):
    x, y, z = a
    assert (x, y, z) == a == a.to_tuple()
    assert [x, y, z] == a.to_list()
    assert type(a.to_tuple()) is tuple
    assert (a.x, a.y, a.z) == (x, y, z)
    assert (a.with_x(5), a.with_y(5), a.with_z(5)) == ((5, y, z), (x, 5, z), (x, y, 5))
    assert hash(a) == hash((x, y, z))
    assert len({a, (x, y, z), Vec3Int(np.array([x, y, z]))}) == 1
    for twin in (pickle.loads(pickle.dumps(a)), copy.copy(a), copy.deepcopy(a), Vec3Int(a), Vec3Int(x, y, z)):
        assert twin == a
        assert type(twin) is Vec3Int


def test_vectors_hold_plain_ints():
    for vec in (
        Vec3Int(np.array([1, 2, 3], dtype=np.uint8)),
        Vec3Int(np.int16(1), 2, 3),
        Vec3Int(iter([1, 2, 3])),
    ):
        assert vec == (1, 2, 3)
        assert [type(part) for part in vec] == [int, int, int]
    assert Vec3Int(np.array([255, 255, 255], dtype=np.uint8)) + 1 == (256, 256, 256)  # no wrap


def test_vector_text():
    assert repr(Vec3Int(1, -2, 3)) == "Vec3Int(1, -2, 3)"
    assert str(Vec3Int(1, -2, 3)) == "(1, -2, 3)"


@pytest.mark.parametrize("bad", NOT_INTEGERS, ids=repr)
def test_vectors_hold_integers_only(bad):
    with pytest.raises(InvalidValueError, match="must be an integer"):
        Vec3Int(1, bad, 3)
    with pytest.raises(InvalidValueError, match="must be an integer"):
        Vec3Int([1, 2, bad])


@pytest.mark.parametrize(
    "bad",
    [(), (1,), (1, 2), (1, 2, 3, 4), 5, None, "123", "1,2,3", np.ones((3, 3), int), np.array(5), [1.0, 2, 3]],
    ids=repr,
)
def test_vectors_have_three_components(bad):
    with pytest.raises(InvalidValueError):
        Vec3Int(bad)


def test_vectors_do_not_calculate_with_fractions_or_pairs():
    for bad in (1.5, (1, 2), "x", None, True):
        with pytest.raises(InvalidValueError):
            Vec3Int(1, 2, 3) + bad
    with pytest.raises(ZeroDivisionError):
        Vec3Int(1, 2, 3) // 0


def test_vectors_cannot_be_changed():
    vec = Vec3Int(1, 2, 3)
    with pytest.raises(AttributeError):
        vec.x = 5
    with pytest.raises(AttributeError):
        vec.other = 5
    with pytest.raises(TypeError):
        vec[0] = 5


# mags


@pytest.mark.parametrize(
    ("components", "raw"),
    [
        ((1, 1, 1), "1"),
        ((1, 1, 1), 1),
        ((1, 1, 1), (1, 1, 1)),
        ((1, 1, 1), [1, 1, 1]),
        ((1, 1, 1), np.array([1, 1, 1])),
        ((1, 1, 1), "1-1-1"),
        ((4, 4, 4), np.int32(4)),
        ((4, 4, 4), np.array(["4"]).item()),
        ((4, 4, 4), [4]),
        ((4, 4, 2), "4-4-2"),
        ((4, 4, 2), " 4 - 4 - 2 "),
        ((2, 1, 8), Vec3Int(2, 1, 8)),
        ((2**31, 1, 1), f"{2**31}-1-1"),
    ],
    ids=repr,
)
def test_mags_are_what_they_are_written_as(components, raw):
    mag = Mag(raw)
    assert components == mag.to_tuple()
    assert mag == raw
    assert mag == Mag(components)
    assert hash(mag) == hash(Mag(components))
    assert (mag != raw) is False
    assert Mag(mag) == mag


@PATIENT
@given(MAGS)
def test_mags_round_trip(mag):
    names = [mag.to_layer_name(), mag.to_long_layer_name(), str(mag)]
    assert mag.to_long_layer_name() == f"{mag.x}-{mag.y}-{mag.z}"
    assert mag.to_layer_name() == (str(mag.x) if mag.is_isotropic else mag.to_long_layer_name())
    for raw in [*names, mag.to_list(), mag.to_tuple(), mag.to_np(), mag.to_vec3_int(), tuple(mag)]:
        assert Mag(raw) == mag
        assert (mag == raw) is True  # an array does not answer per component
        assert (raw == mag) is True
    for twin in (pickle.loads(pickle.dumps(mag)), copy.copy(mag), copy.deepcopy(mag)):
        assert twin == mag
        assert hash(twin) == hash(mag)
        assert type(twin) is Mag
    assert len({mag, Mag(names[0]), Mag(names[1])}) == 1


@PATIENT
@given(MAGS, MAGS)
def test_mags_are_equal_by_component_and_ordered_by_the_largest(a, b):
    assert (tuple(a) == tuple(b)) is (a == b)
    assert (max(a) < max(b)) is (a < b) is (b > a) is (a < b.to_tuple())
    assert (max(a) <= max(b)) is (a <= b) is (b >= a) is (a <= str(b))
    assert max(a) == a.max_dim


def test_mags_sort_like_webknossos():
    mags = [Mag("4-4-2"), Mag(1), Mag(16), Mag("2-2-1"), Mag(8)]
    assert [str(mag) for mag in sorted(mags)] == ["1", "2-2-1", "4-4-2", "8", "16"]
    assert Mag("2-2-1") != Mag(2)
    assert Mag("2-2-1") <= Mag(2) <= Mag("2-2-1")
    assert np.int64(2) < Mag(4)
    assert np.int64(4) == Mag(4)


def test_mag_text():
    assert repr(Mag(2)) == "Mag(2)"
    assert repr(Mag("2-2-1")) == "Mag(2-2-1)"


BAD_MAGS = [
    0,
    3,
    -1,
    -2,
    2.0,
    math.nan,
    math.inf,
    True,
    False,
    None,
    "",
    "2-2",
    "2-2-2-2",
    "2-2-",
    "-2",
    "3",
    "0",
    "2-2-3",
    "2.0",
    "two",
    "2,2,2",
    "\u0664",  # a digit, but not one of a folder's name
    "9" * 5000,
    (),
    (2, 2),
    (2, 2, 2, 2),
    (2, 2, 0),
    (2, 2, 1.0),
    (2, 2, True),
    ("2", "2", "1"),
    np.array(4),
    np.array([1.0, 1.0, 1.0]),
    np.array([True, True, True]),
    np.ones((3, 3), dtype=int),
    b"2",
    {"x": 1},
    object(),
]


@pytest.mark.parametrize("bad", BAD_MAGS, ids=lambda bad: repr(bad)[:30])
def test_bad_mags_are_refused_and_equal_to_none(bad):
    with pytest.raises(InvalidValueError):
        Mag(bad)
    assert (Mag(1) == bad) is False
    assert (Mag(1) != bad) is True
    with pytest.raises(InvalidValueError):
        Mag(1).__lt__(bad)


def test_mags_cannot_be_changed():
    mag = Mag(2)
    with pytest.raises(AttributeError):
        mag._vec = Vec3Int(1, 1, 1)
    with pytest.raises(AttributeError):
        mag.x = 1


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
    assert chunks == sorted(chunks, key=lambda chunk: chunk.topleft.to_tuple()[::-1])  # x fastest
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
    assert [BoundingBox((x, y, 10), (w, h, 54)) for y, h in edges for x, w in edges] == list(
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
