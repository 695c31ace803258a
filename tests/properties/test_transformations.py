"""Coordinate transformations: values, their JSON, those of a layer."""

import json
import pickle

import numpy as np
import pytest

from wkdask import (
    AffineCoordinateTransformation,
    CoordinateTransformation,
    Dataset,
    ThinPlateSplineCoordinateTransformation,
)
from wkdask.errors import InvalidValueError, PropertiesError
from wkdask.properties.transformations import OtherCoordinateTransformation

Affine, Spline = AffineCoordinateTransformation, ThinPlateSplineCoordinateTransformation
MOVED = [[1.0, 0, 0, 1], [0, 1.0, 0, 2], [0, 0, 1.0, 3], [0, 0, 0, 1.0]]
LANDMARKS = {"source": [[0.0, 0, 0], [1.0, 1, 1]], "target": [[0.5, 0, 0], [2.0, 2, 2]]}


def applied(transformation, point):
    return (transformation.matrix @ [*point, 1])[:3]


def test_affine_maps():
    np.testing.assert_array_equal(Affine.identity().matrix, np.eye(4))
    np.testing.assert_array_equal(Affine.from_translation((1, 2, 3)).matrix, MOVED)
    np.testing.assert_array_equal(Affine.from_scale((2, 3, 4)).matrix, np.diag([2, 3, 4, 1]))
    np.testing.assert_array_equal(applied(Affine.identity().flip("y"), (1, 2, 3)), (1, -2, 3))


@pytest.mark.parametrize(("axis", "turned"), [("x", (1, -3, 2)), ("y", (3, 2, -1)), ("z", (-2, 1, 3))])
def test_rotations_are_in_degrees(axis, turned):
    np.testing.assert_allclose(applied(Affine.from_rotation(axis, 90), (1, 2, 3)), turned, atol=1e-12)
    np.testing.assert_allclose(applied(Affine.identity().rotate(axis, 90), (1, 2, 3)), turned, atol=1e-12)


def test_a_chain_applies_the_first_first():
    scaled, moved = Affine.from_scale((2, 3, 4)), Affine.from_translation((1, 2, 3))
    np.testing.assert_array_equal(applied(scaled.chain(moved), (1, 1, 1)), (3, 5, 7))
    np.testing.assert_array_equal(applied(moved.chain(scaled), (1, 1, 1)), (4, 9, 16))
    assert scaled.translate((1, 2, 3)) == scaled.chain(moved)
    assert moved.scale((2, 3, 4)) == moved.chain(scaled)
    with pytest.raises(InvalidValueError, match="only affine maps"):
        scaled.chain(Spline(**LANDMARKS))


def test_values_are_frozen_equal_and_hashable():
    value = Affine(MOVED)
    assert value == Affine(np.array(MOVED)) != Affine.identity()
    assert hash(value) == hash(Affine(np.array(MOVED)))
    assert pickle.loads(pickle.dumps(value)) == value
    assert value != "affine"
    with pytest.raises(ValueError, match="read-only"):
        value.matrix[0, 0] = 5
    source = np.eye(4)
    kept = Affine(source)
    source[0, 0] = 9
    assert kept == Affine.identity()


def test_thin_plate_splines():
    value = Spline(**LANDMARKS)
    assert value.pairs == (((0, 0, 0), (0.5, 0, 0)), ((1, 1, 1), (2, 2, 2)))
    assert Spline.from_pairs(value.pairs) == value
    assert isinstance(value, CoordinateTransformation)
    assert value.to_json() == {"type": "thin_plate_spline", "correspondences": LANDMARKS}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: Affine(np.eye(3)), r"shape 4 × 4, got \(3, 3\)"),
        (lambda: Affine("abc"), "numbers only"),
        (lambda: Affine(np.full((4, 4), np.nan)), "finite numbers"),
        (lambda: Affine.from_rotation("q", 1), "axis is x, y or z"),
        (lambda: Affine.identity().flip("xy"), "axis is x, y or z"),
        (lambda: Affine.from_scale(2), "three floats"),
        (lambda: Spline([], []), "at least one landmark"),
        (lambda: Spline([(0, 0, 0)], [(0, 0, 0), (1, 1, 1)]), "got 1 and 2"),
        (lambda: Spline([(0, 0)], [(0, 0)]), "shape N × 3"),
        (lambda: Spline.from_pairs([((0, 0, 0),)]), "pairs of points"),
    ],
)
def test_what_is_no_transformation_is_refused(made, says):
    with pytest.raises(InvalidValueError, match=says):
        made()


@pytest.fixture
def layer(tmp_path):
    return Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("a", "color")


def listed(tmp_path):
    return json.loads((tmp_path / "ds" / "datasource-properties.json").read_text())["dataLayers"][0]


def test_those_of_a_layer_are_set_read_and_removed(layer, tmp_path):
    assert layer.coordinate_transformations == ()
    values = (Spline(**LANDMARKS), Affine(MOVED))
    layer.coordinate_transformations = values
    assert listed(tmp_path)["coordinateTransformations"] == [
        {"type": "thin_plate_spline", "correspondences": LANDMARKS},
        {"type": "affine", "matrix": MOVED},
    ]
    assert layer.coordinate_transformations == values
    layer.coordinate_transformations = [{"type": "affine", "matrix": MOVED}]
    assert layer.coordinate_transformations == (Affine(MOVED),)
    layer.coordinate_transformations = None
    assert "coordinateTransformations" not in listed(tmp_path)


@pytest.mark.parametrize("wrong", [Affine(MOVED), [1], {"type": "affine", "matrix": MOVED}, [{"type": {1}}]])
def test_what_is_no_sequence_of_them_is_refused(layer, tmp_path, wrong):
    before = listed(tmp_path)
    with pytest.raises(InvalidValueError, match=r"sequence of transformations|is not JSON"):
        layer.coordinate_transformations = wrong
    assert listed(tmp_path) == before


def edit(tmp_path, transformations):
    path = tmp_path / "ds" / "datasource-properties.json"
    raw = json.loads(path.read_text())
    raw["dataLayers"][0]["coordinateTransformations"] = transformations
    path.write_text(json.dumps(raw))


def test_kinds_and_keys_of_newer_versions_are_kept(layer, tmp_path):
    newer = [{"type": "moving_least_squares", "a": [1]}, {"type": "affine", "matrix": MOVED, "more": True}]
    edit(tmp_path, newer)
    values = layer.coordinate_transformations
    assert [type(each) for each in values] == [OtherCoordinateTransformation] * 2
    assert [each.to_json() for each in values] == newer
    layer.coordinate_transformations = [*values, Affine(MOVED)]
    assert listed(tmp_path)["coordinateTransformations"] == [*newer, {"type": "affine", "matrix": MOVED}]


@pytest.mark.parametrize(
    "wrong",
    [5, {}, {"type": "affine", "matrix": [[1]]}, {"type": "thin_plate_spline", "correspondences": {}}],
)
def test_a_damaged_one_is_named(layer, tmp_path, wrong):
    edit(tmp_path, [wrong])
    with pytest.raises(PropertiesError, match=r"layer 'a'.*is no coordinate transformation"):
        layer.coordinate_transformations
