"""View configurations: the file's keys, Python's names, nothing invented and nothing lost."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wkdask import Dataset, DatasetViewConfiguration, LayerViewConfiguration

LAYER = {
    "color": [255, 0, 10],
    "alpha": 40.5,
    "intensityRange": [0, 200],
    "min": 0,
    "max": 255.5,
    "isDisabled": False,
    "isInverted": True,
    "isInEditMode": False,
    "mapping": {"name": "view", "type": "HDF5"},
}
DATASET = {
    "fourBit": True,
    "interpolation": False,
    "renderMissingDataBlack": True,
    "loadingStrategy": "PROGRESSIVE_QUALITY",
    "segmentationPatternOpacity": 0,
    "zoom": 0.5,
    "position": [10, 20, 30],
    "rotation": [0, 0, 90],
    "layers": {"color": {"alpha": 10, "isDisabled": True, "future": 1}},
    "colorLayerOrder": ["color", "other"],
    "blendMode": "Cover",
    "nativelyRenderedLayerName": "color",
}
CASES = [(LayerViewConfiguration, LAYER), (DatasetViewConfiguration, DATASET)]
each_kind = pytest.mark.parametrize(("kind", "raw"), CASES, ids=["layer", "dataset"])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@each_kind
def test_every_field_goes_both_ways(kind, raw):
    configuration = kind.from_json(raw)
    assert configuration.to_json() == raw
    assert not configuration.extra
    assert all(
        getattr(configuration, name) is not None
        for name in configuration.__dataclass_fields__
        if name != "extra"
    )


@each_kind
def test_only_what_is_set_is_written(kind, raw):
    assert kind().to_json() == {}
    assert kind.from_json({}) == kind()
    for key, value in raw.items():
        assert kind.from_json({key: value}).to_json() == {key: value}


def test_names_in_python_and_in_the_file():
    made = LayerViewConfiguration(color=(1, 2, 3), intensity_range=(0, 9.5), is_in_edit_mode=False)
    assert made.to_json() == {"color": [1, 2, 3], "intensityRange": [0, 9.5], "isInEditMode": False}
    made = DatasetViewConfiguration(four_bit=False, segmentation_pattern_opacity=0, position=(0, 0, 0))
    assert made.to_json() == {"fourBit": False, "segmentationPatternOpacity": 0, "position": [0, 0, 0]}


@each_kind
def test_unknown_keys_stay(kind, raw):
    unknown = {"future": [1, [2]], "nothing": None, "is_disabled": 1}
    configuration = kind.from_json(raw | unknown)
    assert configuration.extra == unknown
    assert configuration.to_json() == raw | unknown


@each_kind
@given(data=st.data())
def test_any_object_without_nulls_goes_both_ways(kind, raw, data):
    keys = st.sampled_from([*raw.keys() - {"layers"}, "extra", "min_", "fourbit"]) | st.text(max_size=6)
    given_raw = data.draw(st.dictionaries(keys, json_values.filter(lambda value: value is not None)))
    configuration = kind.from_json(given_raw)
    assert json.loads(json.dumps(configuration.to_json())) == given_raw
    assert kind.from_json(configuration.to_json()) == configuration


def test_lists_are_compared_as_tuples():
    given = DatasetViewConfiguration(color_layer_order=["a", "b"], position=[1, 2, 3])
    assert given == DatasetViewConfiguration(color_layer_order=("a", "b"), position=(1, 2, 3))
    assert hash(given) == hash(DatasetViewConfiguration.from_json(given.to_json()))


def test_settings_of_layers_are_configurations():
    raw = {"layers": {"a": {"isDisabled": True}, "b": {}}}
    expected = {"a": LayerViewConfiguration(is_disabled=True), "b": LayerViewConfiguration()}
    assert DatasetViewConfiguration.from_json(raw).layers == expected
    assert DatasetViewConfiguration(layers=expected).to_json() == raw


def test_settings_of_layers_in_the_spelling_of_webknossos_4_3_3():
    theirs = {
        "color": None,
        "alpha": 1.0,
        "intensity_range": [0, 5],
        "is_disabled": True,
        "min": None,
        "new": None,
    }
    found = DatasetViewConfiguration.from_json({"layers": {"c": theirs}})
    assert found.layers == {
        "c": LayerViewConfiguration(alpha=1.0, intensity_range=(0, 5), is_disabled=True, extra={"new": None})
    }
    ours = {"alpha": 1.0, "intensityRange": [0, 5], "isDisabled": True, "new": None}
    assert found.to_json() == {"layers": {"c": ours}}
    both = {"isDisabled": False, "is_disabled": True}
    assert DatasetViewConfiguration.from_json({"layers": {"c": both}}).to_json() == {"layers": {"c": both}}


@pytest.mark.parametrize("layers", [5, [1], {"a": 1}])
def test_layers_that_are_something_else_stay(layers):
    found = DatasetViewConfiguration.from_json({"layers": layers})
    assert found.layers is None
    assert found.to_json() == {"layers": layers}


@each_kind
def test_they_are_plain_values(kind, raw):
    configuration = kind.from_json(raw)
    assert configuration == kind.from_json(dict(raw))
    assert hash(configuration) == hash(kind.from_json(dict(raw)))
    assert configuration != kind()
    assert pickle.loads(pickle.dumps(configuration)) == configuration
    with pytest.raises(AttributeError):
        configuration.extra = {}


def test_they_reach_the_file_and_come_back(tmp_path):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = ds.add_layer("color", "color")
    assert ds.default_view_configuration is None
    assert layer.default_view_configuration is None
    ds.default_view_configuration = DatasetViewConfiguration(zoom=2, extra={"future": {"a": 1}})
    layer.default_view_configuration = LayerViewConfiguration.from_json(LAYER | {"future": 3})
    raw = json.loads(Path(ds.path, "datasource-properties.json").read_text())
    assert raw["defaultViewConfiguration"] == {"zoom": 2, "future": {"a": 1}}
    assert raw["dataLayers"][0]["defaultViewConfiguration"] == LAYER | {"future": 3}
    again = Dataset(ds.path)
    assert again.default_view_configuration == DatasetViewConfiguration(zoom=2, extra={"future": {"a": 1}})
    assert again.get_layer("color").default_view_configuration.extra == {"future": 3}
    ds.default_view_configuration = {"zoom": 3}
    layer.default_view_configuration = None
    assert again.default_view_configuration == DatasetViewConfiguration(zoom=3)
    assert again.get_layer("color").default_view_configuration is None
