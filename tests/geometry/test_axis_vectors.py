"""Vectors with named axes, and three floats."""

import pickle

import numpy as np
import pytest

from wkdask.errors import AxisNotFoundError, InvalidValueError
from wkdask.geometry.axis_vectors import TXYZ_AXES, VecInt
from wkdask.geometry.vec3_float import Vec3Float, as_vec3_float_or_none
from wkdask.geometry.vectors import Vec3Int, as_vec3_int_or_none


@pytest.mark.parametrize(
    "made",
    [
        lambda: VecInt(1, 2, 3, 4, axes=("t", "x", "y", "z")),
        lambda: VecInt((1, 2, 3, 4), axes="txyz"),
        lambda: VecInt([1, 2, 3, 4], TXYZ_AXES),
        lambda: VecInt(np.array([1, 2, 3, 4], dtype=np.uint8), axes=iter("txyz")),
        lambda: VecInt(t=1, x=2, y=3, z=4),
        lambda: VecInt(VecInt(t=1, x=2, y=3, z=4)),
        lambda: VecInt(1, 2, 3, 4, axes="txyz").with_xyz((2, 3, 4)),
        lambda: VecInt.from_str("(1, 2, 3,4)", "txyz"),
        lambda: pickle.loads(pickle.dumps(VecInt(1, 2, 3, 4, axes="txyz"))),
    ],
)
def test_a_vector_has_components_with_names(made):
    vector = made()
    assert vector.axes == ("t", "x", "y", "z")
    assert vector == (1, 2, 3, 4)
    assert (vector.x, vector["t"], vector.get("t"), vector.get("c", 9)) == (2, 1, 1, 9)
    assert vector.xyz == Vec3Int(2, 3, 4)
    assert type(vector.xyz) is Vec3Int
    assert repr(vector) == "VecInt(1,2,3,4, axes=('t', 'x', 'y', 'z'))"
    assert all(type(part) is int for part in vector)
    np.testing.assert_array_equal(np.array(vector), [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: VecInt(1, 2, 3), "needs the names of its axes"),
        (lambda: VecInt((1, 2, 3)), "needs the names of its axes"),
        (lambda: VecInt(), "needs the names of its axes"),
        (lambda: VecInt((1, 2), axes="xyz"), "2 components"),
        (lambda: VecInt((1, 2, 3), axes="xxy"), "named once"),
        (lambda: VecInt((1.5, 2), axes="xy"), "must be an integer"),
        (lambda: VecInt((True, 2), axes="xy"), "must be an integer"),
        (lambda: VecInt((1, 2), x=1), "not by both"),
        (lambda: VecInt((1, 2), axes=(1, 2)), "named by texts"),
        (lambda: VecInt.from_str("a", "x"), "is written"),
        (lambda: VecInt(t=1, x=2) + (1, 2, 3), "has 3 components"),
        (lambda: VecInt(t=1, x=2) + VecInt(x=1, y=2), "cannot be combined"),
        (lambda: VecInt(t=1, x=2) + 1.5, "must be an integer"),
    ],
)
def test_what_is_no_vector_is_refused(made, says):
    with pytest.raises(InvalidValueError, match=says):
        made()


def test_a_missing_axis_is_named():
    vector = VecInt(t=1, x=2)
    for look in (lambda: vector.y, lambda: vector["q"], lambda: vector.get("q"), lambda: vector.with_c(1)):
        with pytest.raises(AxisNotFoundError, match="it has t, x") as caught:
            look()
        assert isinstance(caught.value, KeyError)


def test_arithmetic_is_per_component_and_by_name():
    vector = VecInt(t=1, x=2, y=3)
    assert (vector + 1, vector - (1, 1, 1), vector * [1, 2, 3]) == ((2, 3, 4), (0, 1, 2), (1, 4, 9))
    assert (vector // 2, vector % 2, -vector, vector.ceildiv(2)) == (
        (0, 1, 1),
        (1, 0, 1),
        (-1, -2, -3),
        (1, 1, 2),
    )
    assert (vector.pairmin(2), vector.pairmax((0, 9, 0))) == ((1, 2, 2), (1, 9, 3))
    assert vector + VecInt(y=10, x=20, t=30) == (31, 22, 13)
    assert (vector + 1).axes == vector.axes
    assert vector.add_or_none(None) is None
    assert vector.add_or_none(vector) == (2, 4, 6)
    assert np.array([1, 1, 1]) + vector == pytest.approx([2, 3, 4])
    assert (vector.prod(), vector.is_uniform(), vector.contains(3), 4 in vector) == (6, False, True, False)
    assert (vector.is_positive(), (vector - 1).is_positive(True), (vector - 1).is_positive()) == (
        True,
        False,
        True,
    )


def test_copies_with_other_components():
    vector = VecInt(t=1, x=2, y=3, z=4)
    assert vector.with_replaced("t", 9) == vector.with_replaced(0, 9) == (9, 2, 3, 4)
    assert vector.with_replaced(-1, 9) == vector.with_z(9) == (1, 2, 3, 9)
    moved = vector.moveaxis(0, -1)
    assert moved == (2, 3, 4, 1)
    assert moved.axes == ("x", "y", "z", "t")
    assert vector.moveaxis([0, 1], [1, 0]).axes == ("x", "t", "y", "z")
    assert VecInt(x=1, y=2, z=3, c=4).with_xyz(VecInt(z=7, y=8, x=9)) == (9, 8, 7, 4)
    assert VecInt.full(3, "xy") == VecInt.ones("xy") * 3 == (3, 3)
    assert VecInt.zeros(("t",)).axes == ("t",)
    with pytest.raises(IndexError):
        vector.with_replaced(4, 1)
    with pytest.raises(AttributeError, match="cannot be changed"):
        vector.axes = ("a",)
    with pytest.raises(AttributeError, match="cannot be changed"):
        del vector.axes


def test_a_vector_compares_like_its_tuple():
    vector = VecInt(t=1, x=2)
    assert vector == VecInt(a=1, b=2)
    assert {vector: "found"}[1, 2] == "found"
    assert vector != [1, 2]
    assert (1, 1) < vector <= (1, 2) < VecInt(t=3, x=0)
    assert VecInt(x=1, y=2, z=3) == Vec3Int(1, 2, 3) == VecInt(x=1, y=2, z=3)
    with pytest.raises(TypeError):
        sorted([vector, 3])


def test_three_integers_count_as_a_vector():
    three = Vec3Int(1, 2, 3)
    assert isinstance(three, VecInt)
    assert VecInt(three) is three
    assert VecInt(three, axes="txy").axes == ("t", "x", "y")
    assert VecInt(x=1, y=1, z=1) + three == (2, 3, 4)
    assert VecInt(z=0, y=0, x=0) + three == (3, 2, 1)
    assert three + VecInt(x=1, y=1, z=1) == (2, 3, 4)


def test_three_floats():
    vector = Vec3Float(1.5, 2, 3)
    assert vector == (1.5, 2.0, 3.0)
    assert Vec3Float(vector) is vector
    assert Vec3Float([1, 2, 3]) == Vec3Float(np.array([1, 2, 3])) == Vec3Float(Vec3Int(1, 2, 3)) == (1, 2, 3)
    assert (
        Vec3Float(np.float32(1.5), 2, 3)
        == Vec3Float.from_xyz(1.5, 2, 3)
        == Vec3Float.from_str("(1.5, 2,3)")
        == vector
    )
    assert all(type(part) is float for part in Vec3Float(1, 2, 3))
    assert repr(vector) == "Vec3Float(1.5,2.0,3.0)"
    assert (vector + 1, vector - (1, 1, 1), vector * 2, vector / 2, -vector) == (
        (2.5, 3, 4),
        (0.5, 1, 2),
        (3, 4, 6),
        (0.75, 1, 1.5),
        (-1.5, -2, -3),
    )
    assert vector + Vec3Int(1, 1, 1) == (2.5, 3, 4)
    assert (vector.pairmin(2), vector.pairmax((2, 2, 2)), vector.prod()) == ((1.5, 2, 2), (2, 2, 3), 9)
    assert (vector.with_x(9), vector.with_y(9), vector.with_z(9)) == ((9, 2, 3), (1.5, 9, 3), (1.5, 2, 9))
    assert (vector.x, vector.y, vector[2], vector[1:], len(vector)) == (1.5, 2, 3, (2, 3), 3)
    assert (vector.to_list(), vector.to_tuple()) == ([1.5, 2, 3], (1.5, 2, 3))
    assert vector.to_np().dtype == np.float64
    assert (Vec3Float.zeros(), Vec3Float.ones(), Vec3Float.full(2)) == ((0, 0, 0), (1, 1, 1), (2, 2, 2))
    assert Vec3Float(-1.5, 2.7, 3).to_vec3_int() == Vec3Int(-1, 2, 3)
    assert vector < (2, 0, 0) <= Vec3Float(2, 0, 0)
    assert {vector: 1}[1.5, 2, 3] == 1
    assert pickle.loads(pickle.dumps(vector)) == vector
    assert vector != [1.5, 2, 3]
    with pytest.raises(AttributeError, match="cannot be changed"):
        vector.q = 1


@pytest.mark.parametrize(
    "wrong", [(1,), (1, 2), ((1, 2),), ((1, 2, 3, 4),), ("1", 2, 3), (True, 2, 3), (None,), (1j, 2, 3)]
)
def test_what_is_not_three_numbers_is_refused(wrong):
    with pytest.raises(InvalidValueError, match="three floats"):
        Vec3Float(*wrong)


def test_floats_without_integers_and_texts_are_refused():
    with pytest.raises(InvalidValueError, match="has no integers"):
        Vec3Float(float("nan"), 0, 0).to_vec3_int()
    with pytest.raises(InvalidValueError, match="are written"):
        Vec3Float.from_str("a,b,c")


def test_none_stays_none():
    assert (as_vec3_int_or_none(None), as_vec3_float_or_none(None)) == (None, None)
    assert (as_vec3_int_or_none([1, 2, 3]), as_vec3_float_or_none([1, 2, 3])) == (
        Vec3Int(1, 2, 3),
        Vec3Float(1, 2, 3),
    )
