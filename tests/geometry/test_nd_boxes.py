"""Boxes along any axes, with and without channels."""

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from wkdask.errors import AlignmentError, AxisNotFoundError, InvalidValueError, OutOfBoundsError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.axis_vectors import VecInt
from wkdask.geometry.nd_boxes import NDBoundingBox, NormalizedBoundingBox

BOX = NDBoundingBox((0, 1, 2, 3), (4, 10, 11, 12), ("t", "x", "y", "z"))
CHANNELS = NormalizedBoundingBox((0, 1, 2, 3), (3, 10, 11, 12), ("c", "x", "y", "z"))
TCXYZ = NormalizedBoundingBox((0, 0, 1, 2, 3), (2, 3, 10, 11, 12), ("t", "c", "x", "y", "z"))


def corners(box):
    return tuple(box.topleft), tuple(box.size), box.axes


def test_a_box_knows_its_axes():
    assert corners(BOX) == ((0, 1, 2, 3), (4, 10, 11, 12), ("t", "x", "y", "z"))
    assert BOX.bottomright == (4, 11, 13, 15)
    assert BOX.index == (0, 1, 2, 3)
    assert (BOX.topleft_xyz, BOX.size_xyz, BOX.bottomright_xyz) == ((1, 2, 3), (10, 11, 12), (11, 13, 15))
    assert (BOX.get_bounds("t"), BOX.get_shape("x"), BOX.ndim, len(BOX)) == ((0, 4), 10, 4, 4)
    assert (BOX.volume(), BOX.is_empty()) == (5280, False)
    assert repr(BOX) == (
        "NDBoundingBox(topleft=(0, 1, 2, 3), size=(4, 10, 11, 12), axes={'t': 0, 'x': 1, 'y': 2, 'z': 3})"
    )
    assert (BOX.name, BOX.is_visible, BOX.color) == ("Unnamed Bounding Box", True, None)


def test_axes_are_sorted_by_their_index():
    box = NDBoundingBox((0, 1, 2, 3), (4, 10, 11, 12), "txyz", (4, 3, 2, 1))
    assert corners(box) == ((3, 2, 1, 0), (12, 11, 10, 4), ("z", "y", "x", "t"))
    assert box.index == (1, 2, 3, 4)
    assert box.index_xyz == (3, 2, 1)
    assert box.topleft_xyz == (1, 2, 3)


def test_vectors_go_by_the_names_of_their_axes():
    assert NDBoundingBox(VecInt(z=3, y=2, x=1, t=0), (4, 10, 11, 12), "txyz") == BOX
    with pytest.raises(InvalidValueError, match="the box has t, x, y, z"):
        NDBoundingBox(VecInt(z=3, y=2, x=1, c=0), (4, 10, 11, 12), "txyz")


def test_a_negative_size_spans_what_is_before():
    box = NDBoundingBox((0, 11, 2, 3), (4, -10, 11, 12), "txyz")
    assert box == BOX


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (((0, 1, 2), (1, 1, 1, 1), "txyz"), "topleft .* has 3 components"),
        (((0, 1, 2, 3), (1, 1, 1), "txyz"), "size .* has 3 components"),
        (((0, 1, 2, 3), (1, 1, 1, 1), "txyz", (1, 2, 3)), "index .* has 3 components"),
        (((0, 1, 2, 3), (1, 1, 1, 1), "txyx"), "named once"),
        (((0, 1, 2, 3), (1, 1, 1, 1), "txyz", (0, 0, 1, 2)), "are the same"),
        (((0.5, 1, 2, 3), (1, 1, 1, 1), "txyz"), "must be an integer"),
    ],
)
def test_what_is_no_box_is_refused(arguments, says):
    with pytest.raises(InvalidValueError, match=says):
        NDBoundingBox(*arguments)


def test_boxes_are_frozen_values():
    other = BOX.with_name("n").with_is_visible(False).with_color((1, 0, 0, 1))
    assert (other.name, other.is_visible, other.color) == ("n", False, (1, 0, 0, 1))
    assert other == BOX
    assert hash(other) == hash(BOX)
    assert BOX.with_index((4, 5, 6, 7)) == BOX
    assert hash(BOX.with_index((4, 5, 6, 7))) == hash(BOX)
    assert BOX.with_bounds("t", 1) != BOX
    assert NDBoundingBox((1, 2, 3, 0), (10, 11, 12, 4), "xyzt") != BOX
    assert BOX != "a box"
    assert pickle.loads(pickle.dumps(other)).name == "n"
    with pytest.raises(FrozenInstanceError):
        BOX.topleft = (1, 2, 3, 4)


def test_a_plain_box_counts_as_one():
    plain = BoundingBox((1, 2, 3), (10, 11, 12))
    assert isinstance(plain, NDBoundingBox)
    assert (
        NDBoundingBox((1, 2, 3), (10, 11, 12), "xyz")
        == plain
        == NDBoundingBox((1, 2, 3), (10, 11, 12), "xyz")
    )
    assert hash(NDBoundingBox((1, 2, 3), (10, 11, 12), "xyz")) == hash(plain)
    assert plain != BOX
    assert (plain.axes, plain.ndim, len(plain), plain.index) == (("x", "y", "z"), 3, 3, (1, 2, 3))
    assert (plain.get_bounds("y"), plain.get_shape("z"), plain.bottomright_xyz) == ((2, 13), 12, (11, 13, 15))
    assert plain.with_bounds("y", 5, 6) == BoundingBox((1, 5, 3), (10, 6, 12))
    assert plain.with_topleft_xyz((0, 0, 0)).with_size_xyz((1, 1, 1)) == BoundingBox((0, 0, 0), (1, 1, 1))
    assert plain.with_bottomright_xyz((2, 3, 4)) == BoundingBox((1, 2, 3), (1, 1, 1))
    assert BoundingBox.from_ndbbox(BOX) == plain
    assert type(BoundingBox.from_ndbbox(BOX)) is BoundingBox
    assert BoundingBox.from_axes("zyx", (3, 2, 1)) == BoundingBox((0, 0, 0), (1, 2, 3))
    assert plain.to_slices_xyz() == (slice(1, 11), slice(2, 13), slice(3, 15))
    assert plain.denormalize() is plain
    with pytest.raises(AxisNotFoundError, match="it has x, y, z"):
        plain.get_shape("t")
    with pytest.raises(InvalidValueError, match="has the axes x, y, z"):
        BoundingBox.from_axes("txy", (3, 2, 1))


def test_copies_of_a_box():
    assert corners(BOX.with_topleft((9, 9, 9, 9)))[:2] == ((9, 9, 9, 9), (4, 10, 11, 12))
    assert corners(BOX.with_size((1, 1, 1, 1)))[:2] == ((0, 1, 2, 3), (1, 1, 1, 1))
    assert BOX.with_bottomright((5, 12, 13, 14)).size == (5, 11, 11, 11)
    assert BOX.with_bottomright_xyz((12, 13, 14)).size == (4, 11, 11, 11)
    assert BOX.with_topleft_xyz((0, 0, 0)).topleft == (0, 0, 0, 0)
    assert BOX.with_size_xyz((5, 6, 7)).size == (4, 5, 6, 7)
    assert BOX.with_index_xyz((4, 5, 6)).index == (0, 4, 5, 6)
    assert corners(BOX.with_bounds("t", 1, 2))[:2] == ((1, 1, 2, 3), (2, 10, 11, 12))
    assert BOX.with_bounds("t", new_size=2).size == (2, 10, 11, 12)
    assert BOX.with_bounds("t") == BOX
    assert BOX.offset((1, 1, 1, 1)).topleft == (1, 2, 3, 4)
    assert BOX.offset((1, 1, 1)).topleft == (0, 2, 3, 4)
    assert BOX.offset(VecInt(z=1, y=1, x=1, t=5)).topleft == (5, 2, 3, 4)
    assert corners(BOX.padded_with_margins((1, 2, 3), (3, 2, 1)))[:2] == ((0, 0, 0, 0), (4, 14, 15, 16))
    assert NDBoundingBox.from_axes("tx", (7, 8)).size == (7, 8)
    with pytest.raises(AxisNotFoundError, match="'q'"):
        BOX.with_bounds("q", 1)
    with pytest.raises(InvalidValueError, match="has 3 components"):
        BOX.with_topleft((1, 2, 3))


def test_points_and_boxes_inside():
    assert [BOX.contains(p) for p in ((0, 1, 2, 3), (3, 10, 12, 14), (4, 1, 2, 3))] == [True, True, False]
    assert BOX.contains(VecInt(x=1, y=2, z=3, t=0))
    assert BOX.contains(np.array([0, 1.5, 2, 3]))
    assert BOX.contains_bbox(BOX)
    assert BOX.contains_bbox(BOX.with_bounds("t", 1, 1))
    assert not BOX.contains_bbox(BOX.with_bounds("t", 1, 4))
    with pytest.raises(InvalidValueError, match="has the axes t, x, y, z"):
        BOX.contains((0, 1, 2))


def test_union_and_intersection():
    other = NDBoundingBox((2, 0, 0, 0), (4, 5, 5, 5), "txyz")
    assert corners(BOX.extended_by(other))[:2] == ((0, 0, 0, 0), (6, 11, 13, 15))
    assert BOX.extended_by(other.with_bounds("t", 2, 0)) == BOX
    assert other.with_bounds("t", 2, 0).extended_by(BOX) == BOX
    assert corners(BOX.intersected_with(other))[:2] == ((2, 1, 2, 3), (2, 4, 3, 2))
    away = other.with_bounds("t", 20)
    with pytest.raises(OutOfBoundsError, match="no voxel in common"):
        BOX.intersected_with(away)
    assert corners(BOX.intersected_with(away, dont_assert=True))[:2] == ((20, 1, 2, 3), (0, 4, 3, 2))
    for wrong in (BoundingBox((0, 0, 0), (1, 1, 1)), NDBoundingBox((0, 0, 0, 2), (5, 5, 5, 4), "xyzt")):
        with pytest.raises(InvalidValueError, match="the same order: t, x, y, z and x, y, z"):
            BOX.extended_by(wrong)


def test_magnifications_scale_x_y_z_only():
    inwards, outwards = BOX.align_with_mag(Mag(2)), BOX.align_with_mag("2-2-1", ceil=True)
    assert corners(inwards)[:2] == ((0, 2, 2, 4), (4, 8, 10, 10))
    assert corners(outwards)[:2] == ((0, 0, 2, 3), (4, 12, 12, 12))
    assert BOX.align_with_mag(Vec3Int(3, 3, 3)).size == (4, 6, 9, 12)
    assert corners(inwards.in_mag(2))[:2] == ((0, 1, 1, 2), (4, 4, 5, 5))
    assert corners(BOX.from_mag_to_mag1(Mag(2)))[:2] == ((0, 2, 4, 6), (4, 20, 22, 24))
    with pytest.raises(AlignmentError, match="the nearest around it is"):
        BOX.in_mag(2)
    grouped = NDBoundingBox.group_boxes_with_aligned_mag(
        [BOX, BOX.offset((1, 1, 1)), BOX.offset((40, 0, 0))], 16
    )
    assert [len(boxes) for boxes in grouped.values()] == [2, 1]
    assert all(box.size_xyz % 16 == (0, 0, 0) for box in grouped)


def test_chunks_tile_a_box_the_first_axis_slowest():
    pieces = list(BOX.chunk((2, 6, 11, 12)))
    assert [corners(piece)[:2] for piece in pieces] == [
        ((0, 1, 2, 3), (2, 6, 11, 12)),
        ((0, 7, 2, 3), (2, 4, 11, 12)),
        ((2, 1, 2, 3), (2, 6, 11, 12)),
        ((2, 7, 2, 3), (2, 4, 11, 12)),
    ]
    assert [piece.topleft["t"] for piece in BOX.chunk((10, 11, 12))] == [0, 1, 2, 3]
    aligned = [piece.get_bounds("x") for piece in BOX.chunk((4, 6, 11, 12), (4, 2, 1, 3))]
    assert aligned == [(1, 6), (6, 11)]
    assert list(BOX.with_bounds("t", 0, 0).chunk((1, 1, 1))) == []
    assert [piece.get_shape("c") for piece in CHANNELS.chunk((10, 11, 6))] == [3, 3]
    for shape, align in [((0, 5, 5, 5), None), ((4, 6, 10, 10), (4, 4, 2, 2))]:
        with pytest.raises(InvalidValueError, match=r"must be positive|not a multiple"):
            BOX.chunk(shape, align)


def test_slices_and_arrays():
    array = np.arange(6 * 14 * 14 * 16).reshape(6, 14, 14, 16)
    np.testing.assert_array_equal(BOX.slice_array(array), array[0:4, 1:11, 2:13, 3:15])
    flat = BOX.with_bounds("t", 2, 1)
    assert flat.to_slices_xyz() == (slice(2, 3), slice(1, 11), slice(2, 13), slice(3, 15))
    with pytest.raises(InvalidValueError, match="4 positions along t"):
        BOX.to_slices_xyz()
    data = np.arange(10 * 11 * 12).reshape(10, 11, 12)
    np.testing.assert_array_equal(flat.xyz_array_to_bbox_shape(data), data[None])
    turned = NDBoundingBox((3, 2, 1, 0), (12, 11, 10, 1), "zyxt")
    np.testing.assert_array_equal(turned.xyz_array_to_bbox_shape(data), data.transpose()[..., None])
    channels = np.stack([data, data + 1])
    np.testing.assert_array_equal(flat.xyz_array_to_bbox_shape(channels), channels[None])
    plain = BoundingBox((1, 2, 3), (10, 11, 12))
    np.testing.assert_array_equal(plain.xyz_array_to_bbox_shape(channels), channels)
    with pytest.raises(InvalidValueError, match="one of shape"):
        flat.xyz_array_to_bbox_shape(data[0])
    assert BOX.to_checkpoint_name() == "0_1_2_3_4_10_11_12"
    assert BOX.to_config_dict() == {
        "topleft": [0, 1, 2, 3],
        "size": [4, 10, 11, 12],
        "axes": ("t", "x", "y", "z"),
    }


# with channels


def test_channels_are_an_axis_of_a_normalized_box():
    plain = BoundingBox((1, 2, 3), (10, 11, 12))
    normal = plain.normalize_axes(3)
    assert normal == CHANNELS
    assert corners(normal) == ((0, 1, 2, 3), (3, 10, 11, 12), ("c", "x", "y", "z"))
    assert type(normal.denormalize()) is BoundingBox
    assert normal.denormalize() == plain == normal
    assert normal == plain
    assert hash(normal) == hash(plain)
    assert normal != plain.normalize_axes(1)
    assert normal.normalize_axes(1) == plain.normalize_axes(1)
    assert TCXYZ.denormalize() == NDBoundingBox((0, 0, 1, 2, 3), (2, 3, 10, 11, 12), "tcxyz") == TCXYZ
    assert type(TCXYZ.denormalize()) is NDBoundingBox
    assert BOX.normalize_axes(1) == BOX == BOX.normalize_axes(1)
    assert hash(BOX.normalize_axes(1)) == hash(BOX)
    assert type(BOX.normalize_axes(1).with_bounds("t", 1, 1)) is NormalizedBoundingBox
    with pytest.raises(InvalidValueError, match="needs the axis c"):
        BOX.normalize_axes(3)


def test_a_box_without_channels_means_all_of_them():
    plain = BoundingBox((0, 0, 0), (5, 5, 5))
    for union in (CHANNELS.extended_by(plain), plain.extended_by(CHANNELS)):
        assert union == NormalizedBoundingBox((0, 0, 0, 0), (3, 11, 13, 15), "cxyz")
    for common in (CHANNELS.intersected_with(plain), plain.intersected_with(CHANNELS)):
        assert common == NormalizedBoundingBox((0, 1, 2, 3), (3, 4, 3, 2), "cxyz")
    assert CHANNELS.contains_bbox(BoundingBox((1, 2, 3), (5, 5, 5)))
    assert not BoundingBox((1, 2, 3), (5, 5, 5)).contains_bbox(CHANNELS)
    assert BoundingBox((1, 2, 3), (10, 11, 12)).contains_bbox(CHANNELS)
    one = CHANNELS.normalize_axes(1)
    assert CHANNELS.intersected_with(one) == one
    assert CHANNELS.extended_by(one) == CHANNELS
    assert (CHANNELS.contains_bbox(one), one.contains_bbox(CHANNELS)) == (True, False)
    further = NDBoundingBox((0, 0, 0, 0), (9, 2, 2, 2), "txyz")
    assert corners(TCXYZ.extended_by(further))[1] == (9, 3, 11, 13, 15)
    with pytest.raises(OutOfBoundsError):
        CHANNELS.intersected_with(BoundingBox((50, 0, 0), (1, 1, 1)))


JSON = {
    "topLeft": [1, 2, 3],
    "width": 10,
    "height": 11,
    "depth": 12,
    "additionalAxes": [{"name": "t", "bounds": [4, 7], "index": 1}],
    "axisOrder": {"c": 0, "x": 4, "y": 3, "z": 2},
    "numChannels": 3,
}


def test_json_of_a_box_and_back():
    box = NormalizedBoundingBox.from_wkw_dict(JSON)
    assert corners(box) == ((0, 4, 3, 2, 1), (3, 3, 12, 11, 10), ("c", "t", "z", "y", "x"))
    assert box.index == (0, 1, 2, 3, 4)
    assert box.to_wkw_dict() == JSON
    plain = {"topLeft": [1, 2, 3], "width": 10, "height": 11, "depth": 12}
    assert NormalizedBoundingBox.from_wkw_dict(plain) == CHANNELS.normalize_axes(1)
    assert CHANNELS.to_wkw_dict() == plain | {"numChannels": 3, "axisOrder": {"c": 0, "x": 1, "y": 2, "z": 3}}
    bare = NormalizedBoundingBox.from_wkw_dict(plain | {"axisOrder": {"x": 0, "y": 1, "z": 2}})
    assert bare.axes == ("x", "y", "z")
    behind = NormalizedBoundingBox.from_wkw_dict(plain | {"axisOrder": {"z": 1, "y": 2, "x": 3}})
    assert behind.axes == ("c", "z", "y", "x"), "the dimension that is free has the channels"


def test_json_of_channels_that_do_not_begin_with_the_first():
    third = {
        "topLeft": [1, 2, 3],
        "width": 10,
        "height": 11,
        "depth": 12,
        "channelIndex": 2,
        "numChannels": 1,
    }
    box = NormalizedBoundingBox.from_wkw_dict(third)
    assert corners(box)[:2] == ((2, 1, 2, 3), (1, 10, 11, 12))
    assert box.to_wkw_dict() == third | {"axisOrder": {"c": 0, "x": 1, "y": 2, "z": 3}}
    assert NormalizedBoundingBox.from_wkw_dict(box.to_wkw_dict()) == box


@pytest.mark.parametrize(
    "change",
    [
        {"depth": None},
        {"topLeft": [1, 2]},
        {"axisOrder": None},
        {"additionalAxes": [{"name": "t"}]},
        {"axisOrder": {"c": 0}},
    ],
)
def test_json_that_is_no_box_is_refused(change):
    wrong = {key: value for key, value in {**JSON, **change}.items() if value is not None}
    with pytest.raises(InvalidValueError, match=r"expected|needs an axisOrder"):
        NormalizedBoundingBox.from_wkw_dict(wrong)


# --- where pieces and cells begin -----------------------------------------------------------------------


def test_pieces_begin_where_the_chunks_do_before_they_are_clipped():
    box = NDBoundingBox((5, 0, 0, 0, 1), (20, 4, 4, 3, 2), ("x", "y", "z", "c", "t"))
    starts = [(x, 0, 0, 0, t) for x in (5, 21) for t in (1, 2)]
    assert list(box.iter_chunk_starts((16, 8, 8))) == starts
    assert [piece.size.to_tuple() for piece in box.chunk((16, 8, 8))][1:3] == [
        (16, 4, 4, 3, 1),
        (4, 4, 4, 3, 1),
    ]
    aligned = [(x, 0, 0, 0, t) for x in (0, 16) for t in (1, 2)]
    assert list(box.iter_chunk_starts((16, 8, 8), (16, 8, 8))) == aligned
    assert list(box.iter_chunk_starts((40, 4, 4, 2, 2))) == [(5, 0, 0, c, 1) for c in (0, 2)], (
        "one of each axis"
    )
    later = box.with_bounds("c", 1, 2)
    assert next(iter(later.iter_chunk_starts((40, 8, 8), (8, 8, 8)))) == (0, 0, 0, 1, 1), (
        "channels stay together"
    )
    plain = BoundingBox((5, 0, 0), (20, 4, 4))
    assert list(plain.iter_chunk_starts((16, 2, 4))) == [(x, y, 0) for x in (5, 21) for y in (0, 2)]


def test_three_sides_are_those_of_x_y_z_in_any_order_of_the_axes():
    box = NDBoundingBox((0, 0, 0), (64, 64, 64), "zyx")
    assert next(box.chunk((8, 16, 32))).size == (32, 16, 8)
    assert next(box.chunk(VecInt(8, 16, 32, axes="zyx"))).size == (8, 16, 32)
    assert next(box.chunk(VecInt(8, 16, 32, axes="xyz"))).size == (32, 16, 8)
    assert next(box.padded_with_margins((1, 0, 0)).chunk((99, 99, 99))).size == (64, 64, 66)
    flat = NDBoundingBox((0, 0, 0), (30, 30, 4), "xyt")
    with pytest.raises(InvalidValueError, match="ambiguous"):
        flat.chunk((16, 16, 2))
    assert [corners(piece)[0] for piece in flat.chunk(VecInt(x=16, y=30, t=4))] == [(0, 0, 0), (16, 0, 0)]
    four = NDBoundingBox((0, 0, 0, 0), (16, 16, 2, 2), "xyts")
    assert list(four.iter_chunk_starts((16, 16, 1))) == [(0, 0, t, s) for t in (0, 1) for s in (0, 1)]


def test_cells_of_a_grid_from_the_origin():
    box = NDBoundingBox((10, -1, 0, 2), (10, 2, 4, 2), "xyzc")
    cells = [(x, y, 0, c) for x in (0, 16) for y in (-16, 0) for c in (2, 3)]
    assert list(box.iter_overlapping_grid_cells((16, 16, 16))) == cells, "a channel is a cell of its own"
    clip = NDBoundingBox((0, 0, 0, 3), (12, 9, 9, 9), "xyzc")
    assert list(box.iter_overlapping_grid_cells((16, 16, 16), clip_to=clip)) == [(0, 0, 0, 3)]
    assert list(box.iter_overlapping_grid_cells((4, 4, 4), clip_to=clip.offset((50, 0, 0, 0)))) == []
    plain = BoundingBox((10, -1, 0), (10, 2, 4))
    assert list(plain.iter_overlapping_grid_cells((16, 16, 16))) == [
        (x, y, 0) for x in (0, 16) for y in (-16, 0)
    ]
    assert list(plain.iter_overlapping_grid_cells((16, 16, 16), BoundingBox((0, 0, 0), (12, 9, 9)))) == [
        (0, 0, 0)
    ]


def test_margins_along_all_axes():
    box = NDBoundingBox((4, 1, 2, 3), (3, 10, 11, 12), "txyz")
    grown = box.padded_with_margins((1, 0, 0, 2), VecInt(x=5, y=0, z=0, t=0))
    assert corners(grown)[:2] == ((3, 1, 2, 1), (4, 15, 11, 14))
    assert corners(box.padded_with_margins((1, 2, 3)))[:2] == ((4, 0, 0, 0), (3, 12, 15, 18)), "t stays"
    assert box.padded_with_margins(-box.size, -box.size) == box, "turned around"
