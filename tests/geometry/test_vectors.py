"""Vectors and mags, against numpy."""

import copy
import itertools
import math
import operator
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wkdask.errors import InvalidValueError
from wkdask.geometry.vectors import Mag, Vec3Int

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # shared cores
SMALL = st.integers(-7, 7)
NUMBERS = st.integers(-(2**31), 2**31)
VECTORS = st.builds(Vec3Int, NUMBERS, NUMBERS, NUMBERS)
DIVISORS = st.integers(1, 2**20) | st.integers(-(2**20), -1)
STEPS = st.tuples(*[st.integers(1, 5)] * 3).map(Vec3Int)
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
        (list(a), b, operation(np_a, np_b)),
        (a, number, operation(np_a, number)),
        (number, b, operation(number, np_b)),
        (a, np.array(b), operation(np_a, np_b)),
        (a, np.int64(number), operation(np_a, number)),
    ]:
        result = operation(left, right)
        assert tuple(expected) == result
        assert type(result) is Vec3Int


def test_a_tuple_before_a_vector_calculates_but_for_the_sum_which_is_the_longer_tuple():
    assert (4, 5, 6) - Vec3Int(1, 2, 3) == Vec3Int(3, 3, 3)
    assert (4, 5, 6) * Vec3Int(1, 2, 3) == Vec3Int(4, 10, 18)
    longer = (3,) + Vec3Int(1, 2, 3)  # the shape of an array: channels, then x, y, z
    assert longer == (3, 1, 2, 3)
    assert type(longer) is tuple


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
    assert repr(Vec3Int(1, -2, 3)) == "Vec3Int(1,-2,3)"
    assert str(Vec3Int(1, -2, 3)) == "Vec3Int(1,-2,3)"
    assert f"at {Vec3Int(1, -2, 3)}" == "at (1, -2, 3)"  # within a text


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


@pytest.mark.parametrize("bad", BAD_MAGS, ids=lambda bad: repr(bad).split(" at 0x")[0][:30])
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
