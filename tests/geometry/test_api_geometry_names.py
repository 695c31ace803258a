"""Vectors, mags and boxes under the names, parameters and errors of the Dataset API, of 2021 and of version 4."""

import itertools
from collections import namedtuple

import numpy as np
import pytest

from wkdask import (
    BoundingBox,
    LengthUnit,
    Mag,
    Vec3Int,
    as_vec3_int_or_none,
    length_unit_from_str,
)
from wkdask.errors import InvalidValueError

VEC = Vec3Int(1, 2, 3)
BOX = BoundingBox((1, 2, 3), (4, 5, 6))


# --- vectors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        (Vec3Int.zeros(), (0, 0, 0)),
        (Vec3Int.ones(), (1, 1, 1)),
        (Vec3Int.full(an_int=7), (7, 7, 7)),
        (Vec3Int.from_xyz(x=4, y=5, z=6), (4, 5, 6)),
        (Vec3Int.from_str("4,5,6"), (4, 5, 6)),
        (Vec3Int.from_str(" (4, -5, 6) "), (4, -5, 6)),
        (Vec3Int.from_vec_or_int(3), (3, 3, 3)),
        (Vec3Int.from_vec_or_int([4, 5, 6]), (4, 5, 6)),
        (Vec3Int.from_vec3_float((1.9, -1.9, 3)), (1, -1, 3)),
        (VEC.with_x(new_x=9), (9, 2, 3)),
        (VEC.with_y(new_y=9), (1, 9, 3)),
        (VEC.with_z(new_z=9), (1, 2, 9)),
        (VEC.with_xyz(new_xyz=(7, 8, 9)), (7, 8, 9)),
        (VEC.with_replaced(1, 9), (1, 9, 3)),
        (VEC.with_replaced(axis=-1, new_element=9), (1, 2, 9)),
        (VEC.moveaxis(0, -1), (2, 3, 1)),
        (VEC.moveaxis([0, 1], [1, 0]), (2, 1, 3)),
        (VEC.add_or_none((1, 1, 1)), (2, 3, 4)),
        (VEC.xyz, (1, 2, 3)),
    ],
)
def test_vectors_by_name(vector, expected):
    assert vector == expected
    assert type(vector) is Vec3Int


def test_what_vectors_say_of_themselves():
    assert VEC.add_or_none(None) is None
    assert VEC.contains(2)
    assert not VEC.contains(needle=9)
    assert VEC.axes == ("x", "y", "z")
    assert [VEC.get(axis) for axis in "xyz"] == [1, 2, 3]
    assert VEC.get("t", 7) == 7
    with pytest.raises(KeyError, match="'t'"):
        VEC.get("t")
    assert Vec3Int(2, 2, 2).is_uniform()
    assert not VEC.is_uniform()
    assert Vec3Int(0, 1, 1).is_positive()
    assert not Vec3Int(0, 1, 1).is_positive(strictly_positive=True)
    assert not Vec3Int(0, 1, 1).is_positive(True)


@pytest.mark.parametrize("text", ["1 2 3", "1,2", "", "a,b,c", "1,2,3,4", "1.0,2,3"])
def test_texts_that_are_no_vector(text):
    with pytest.raises(InvalidValueError, match='"x,y,z"'):
        Vec3Int.from_str(text)


@pytest.mark.parametrize("numbers", [(1, 2), (1, 2, float("nan")), (1, 2, float("inf")), 5])
def test_numbers_that_are_no_vector(numbers):
    with pytest.raises(InvalidValueError):
        Vec3Int.from_vec3_float(numbers)


def test_mags_multiply_and_divide():
    assert Mag("2-2-1") * 2 == Mag("4-4-2")
    assert Mag("4-4-2") // "2-2-1" == Mag(2)
    assert [Mag(mag).max_dim_log2 for mag in (1, 2, "4-4-1", 1024)] == [0, 1, 2, 10]
    with pytest.raises(InvalidValueError):
        Mag(2) // 4


# --- boxes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (BOX.with_topleft(new_topleft=(0, 0, 0)), ((0, 0, 0), (4, 5, 6))),
        (BOX.with_size(new_size=(1, 1, 1)), ((1, 2, 3), (1, 1, 1))),
        (BOX.with_bottomright(new_bottomright=(9, 9, 9)), ((1, 2, 3), (8, 7, 6))),
        (BOX.with_topleft_xyz((0, 0, 0)), ((0, 0, 0), (4, 5, 6))),
        (BOX.with_size_xyz((1, 1, 1)), ((1, 2, 3), (1, 1, 1))),
        (BOX.with_bottomright_xyz((9, 9, 9)), ((1, 2, 3), (8, 7, 6))),
        (BOX.with_bounds_x(0, 9), ((0, 2, 3), (9, 5, 6))),
        (BOX.with_bounds_y(new_topleft_y=0), ((1, 0, 3), (4, 5, 6))),
        (BOX.with_bounds_z(new_size_z=9), ((1, 2, 3), (4, 5, 9))),
        (BOX.with_bounds("z", new_topleft=7, new_size=8), ((1, 2, 7), (4, 5, 8))),
        (BOX.offset(vector=(1, 1, 1)), ((2, 3, 4), (4, 5, 6))),
        (BOX.padded_with_margins((1, 1, 1), margins_right=(0, 0, 2)), ((0, 1, 2), (5, 6, 9))),
        (BoundingBox.empty(), ((0, 0, 0), (0, 0, 0))),
        (BoundingBox.from_axes(("x", "y", "z"), (4, 5, 6)), ((0, 0, 0), (4, 5, 6))),
        (BoundingBox.from_points([(1, 2, 3), (4, 0, 9)]), ((1, 0, 3), (4, 3, 7))),
        (BoundingBox.from_points(np.array([[5, 5, 5]])), ((5, 5, 5), (1, 1, 1))),
        (BOX.denormalize(), ((1, 2, 3), (4, 5, 6))),
    ],
)
def test_boxes_made_of_boxes(box, expected):
    assert box.to_tuple2() == expected


FORMS = {
    "csv": ("1,2,3,4,5,6", BoundingBox.from_csv, BoundingBox.to_csv),
    "tuple6": ((1, 2, 3, 4, 5, 6), BoundingBox.from_tuple6, BoundingBox.to_tuple6),
    "tuple2": (((1, 2, 3), (4, 5, 6)), BoundingBox.from_tuple2, BoundingBox.to_tuple2),
    "wkw": (
        {"topLeft": [1, 2, 3], "width": 4, "height": 5, "depth": 6},
        BoundingBox.from_wkw_dict,
        BoundingBox.to_wkw_dict,
    ),
    "config": (
        {"topleft": [1, 2, 3], "size": [4, 5, 6]},
        BoundingBox.from_config_dict,
        BoundingBox.to_config_dict,
    ),
    "checkpoint": ("1_2_3_4_5_6", BoundingBox.from_checkpoint_name, BoundingBox.to_checkpoint_name),
    "named tuple": (((1, 2, 3), (4, 5, 6)), None, BoundingBox.to_named_tuple),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_boxes(name):
    form, read, write = FORMS[name]
    assert write(BOX) == form
    if read is not None:
        assert read(form) == BOX


def test_named_pairs():
    pair = BOX.to_named_tuple()
    assert (pair.topleft, pair.size) == ((1, 2, 3), (4, 5, 6))
    assert BoundingBox.from_named_tuple(pair) == BOX
    assert BoundingBox.from_named_tuple(namedtuple("Box", "size topleft")((4, 5, 6), (1, 2, 3))) == BOX
    assert BoundingBox.from_auto(pair) == BOX


@pytest.mark.parametrize(
    "form",
    [
        BOX,
        "1,2,3,4,5,6",
        "1, 2, 3, 4, 5, 6",
        '{"topleft": [1, 2, 3], "size": [4, 5, 6]}',
        ' {"topLeft": [1, 2, 3], "width": 4, "height": 5, "depth": 6}',
        {"topleft": (1, 2, 3), "size": [4, 5, 6]},
        {"topLeft": (1, 2, 3), "width": 4, "height": 5, "depth": 6},
        [[1, 2, 3], [4, 5, 6]],
        (Vec3Int(1, 2, 3), (4, 5, 6)),
        [1, 2, 3, 4, 5, 6],
        np.array([1, 2, 3, 4, 5, 6]),
    ],
    ids=repr,
)
def test_any_form_of_a_box(form):
    assert BoundingBox.from_auto(form) == BOX


@pytest.mark.parametrize(
    "form",
    [
        5,
        None,
        [1, 2, 3],
        "1,2,3",
        "x",
        "{",
        {"topLeft": [1, 2, 3]},
        {"topleft": [1, 2, 3]},
        {"size": [1, 1, 1]},
    ],
    ids=repr,
)
def test_what_is_no_form_of_a_box(form):
    with pytest.raises(InvalidValueError):
        BoundingBox.from_auto(form)


@pytest.mark.parametrize("name", ["nope", "1_2_3_4_5", "1_2_3_4_5_"])
def test_names_without_a_box(name):
    with pytest.raises(AssertionError, match="x_y_z_width_height_depth"):  # as in 2021
        BoundingBox.from_checkpoint_name(name)
    assert BoundingBox.from_checkpoint_name("seg_1_2_3_4_5_6_done") == BOX


def test_no_box_is_around_nothing():
    with pytest.raises(ValueError, match="no points"):
        BoundingBox.from_points([])


def test_axes_of_a_box():
    assert (BOX.topleft_xyz, BOX.size_xyz, BOX.bottomright_xyz) == ((1, 2, 3), (4, 5, 6), (5, 7, 9))
    assert (BOX.axes, BOX.index, BOX.index_xyz, BOX.ndim) == (("x", "y", "z"), (1, 2, 3), (1, 2, 3), 3)
    assert [BOX.get_shape(axis) for axis in "xyz"] == [4, 5, 6]
    assert BOX.get_bounds("y") == (2, 7)
    for call in (BOX.get_shape, BOX.get_bounds, BOX.with_bounds):
        with pytest.raises(KeyError, match="'t'"):
            call("t")
    with pytest.raises(InvalidValueError, match="x, y, z"):
        BoundingBox((0, 0, 0), (1, 1, 1), axes=("t", "y", "x"))


def test_how_a_box_is_shown_is_no_part_of_what_it_is():
    shown = BoundingBox((1, 2, 3), (4, 5, 6), name="soma", is_visible=False, color=(1, 0, 0, 1))
    assert (shown.name, shown.is_visible, shown.color) == ("soma", False, (1, 0, 0, 1))
    assert (BOX.name, BOX.is_visible, BOX.color) == ("Unnamed Bounding Box", True, None)
    assert shown == BOX
    assert len({shown, BOX}) == 1
    again = BOX.with_name("soma").with_is_visible(False).with_color((1, 0, 0, 1))
    moved = again.offset((1, 1, 1)).padded_with_margins((1, 1, 1)).with_size((1, 1, 1)).with_bounds_x(0)
    assert (moved.name, moved.is_visible, moved.color) == ("soma", False, (1, 0, 0, 1))


def test_arrays_are_sliced_by_a_box():
    array = np.arange(1000).reshape(10, 10, 10)
    assert np.array_equal(BOX.slice_array(array), array[1:5, 2:7, 3:9])
    assert BOX.xyz_array_to_bbox_shape(array) is array


def test_boxes_are_grouped_by_the_mag():
    boxes = [BoundingBox(corner, (1, 1, 1)) for corner in [(0, 0, 0), (1, 1, 1), (2, 0, 0)]]
    groups = BoundingBox.group_boxes_with_aligned_mag(boxes, Mag(2))
    assert groups == {
        BoundingBox((0, 0, 0), (2, 2, 2)): boxes[:2],
        BoundingBox((2, 0, 0), (2, 2, 2)): boxes[2:],
    }


def test_chunks_by_either_name_and_their_corners():
    box, shape = BoundingBox((1, 1, 1), (4, 4, 2)), (2, 2, 2)
    pieces = list(box.chunk(chunk_size=shape))  # 2021
    assert pieces == list(box.chunk(chunk_shape=shape)) == list(box.chunk(shape))
    assert [piece.topleft for piece in pieces] == list(box.iter_chunk_toplefts(shape))
    corners = set(box.iter_chunk_toplefts(shape, chunk_border_alignments=shape))
    assert corners == set(itertools.product((0, 2, 4), (0, 2, 4), (0, 2)))
    clipped = set(box.iter_chunk_toplefts(shape, shape, clip_to=BoundingBox((2, 2, 0), (2, 2, 1))))
    assert clipped == {(2, 2, 0)}
    for wrong in ({}, {"chunk_shape": shape, "chunk_size": shape}):
        with pytest.raises(InvalidValueError, match="chunk_size"):
            list(box.chunk(**wrong))


def test_helpers_and_slices_by_other_names():
    assert as_vec3_int_or_none(None) is None
    assert as_vec3_int_or_none(3) == (3, 3, 3)
    assert as_vec3_int_or_none([1, 2, 3]) == (1, 2, 3)
    assert length_unit_from_str("nm") == length_unit_from_str("nanometer") == LengthUnit.NANOMETER
    assert isinstance(length_unit_from_str("mm"), LengthUnit)
    with pytest.raises(InvalidValueError, match="cubit"):
        length_unit_from_str("cubit")
    assert BOX.to_slices_xyz() == (slice(1, 5), slice(2, 7), slice(3, 9))
    assert BOX.with_size_xyz(new_xyz=(1, 1, 1)).size == (1, 1, 1)
