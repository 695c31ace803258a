"""What a properties file says, as values under the names of the Dataset API."""

import json

import numpy as np
import pytest
from small_datasets import COLOR, SEGMENTATION, SMALL, V4_WKW, edit, first, put, raw

from wkdask import (
    BoundingBox,
    Dataset,
    DatasetProperties,
    LayerProperties,
    LayerViewConfiguration,
    Mag,
    MagViewProperties,
    SegmentationLayerProperties,
    get_dataset_converter,
)
from wkdask.errors import InvalidValueError, PropertiesError

OF_2021 = {
    "id": {"name": "old", "team": "lab"},
    "dataLayers": [
        {
            "name": "color",
            "category": "color",
            "boundingBox": {"topLeft": [1, 2, 3], "width": 4, "height": 5, "depth": 6},
            "elementClass": "uint24",
            "wkwResolutions": [
                {"resolution": 1, "cubeLength": 1024},
                {"resolution": [2, 2, 1], "cubeLength": 512},
            ],
            "dataFormat": "wkw",
            "defaultViewConfiguration": {"alpha": 50},
            "unknown": [1],
        },
        {
            "name": "segmentation",
            "category": "segmentation",
            "boundingBox": {"topLeft": [0, 0, 0], "width": 4, "height": 5, "depth": 6},
            "elementClass": "uint32",
            "wkwResolutions": [],
            "dataFormat": "wkw",
            "largestSegmentId": 12,
            "mappings": ["axons", "glia"],
        },
    ],
    "scale": [11.24, 11.24, 25],
}


def test_a_file_of_2021_is_read_and_given_back():
    found = get_dataset_converter().structure(OF_2021, DatasetProperties)
    assert isinstance(found, DatasetProperties)
    assert (found.id, tuple(found.scale), found.version) == (
        {"name": "old", "team": "lab"},
        (11.24, 11.24, 25),
        1,
    )
    color, segmentation = found.data_layers
    assert type(color) is LayerProperties
    assert (color.name, color.category, color.element_class, color.data_format) == (
        "color",
        "color",
        "uint24",
        "wkw",
    )
    assert color.bounding_box == BoundingBox((1, 2, 3), (4, 5, 6))
    assert [(mag.resolution, mag.cube_length) for mag in color.wkw_resolutions] == [
        (1, 1024),
        (Mag("2-2-1"), 512),
    ]
    assert color.default_view_configuration == LayerViewConfiguration(alpha=50)
    assert type(segmentation) is SegmentationLayerProperties
    assert (segmentation.largest_segment_id, segmentation.mappings) == (12, ["axons", "glia"])
    assert (segmentation.num_channels, segmentation.coordinate_transformations) == (None, None)
    assert get_dataset_converter().unstructure(found) == OF_2021  # keys that nobody knows too


def test_a_file_of_version_4_is_read_and_given_back():
    content = json.loads(V4_WKW)
    found = get_dataset_converter().structure(content, DatasetProperties)
    color, segmentation = found.data_layers
    (first_mag, second_mag, _) = color.mags
    assert isinstance(first_mag, MagViewProperties)
    assert (second_mag.mag, second_mag.path, second_mag.cube_length) == (Mag("2-2-1"), "./color/2-2-1", 1024)
    assert second_mag.axis_order == {"c": 0, "x": 1, "y": 2, "z": 3}
    assert (color.num_channels, color.default_view_configuration) == (3, None)
    assert segmentation.largest_segment_id == 2**60
    assert found.default_view_configuration is None
    assert get_dataset_converter().unstructure(found) == content
    assert get_dataset_converter().unstructure(color) == content["dataLayers"][0]


def test_the_converter_of_2021_has_its_name_where_it_was():
    from wkdask.dataset.properties import dataset_converter

    assert dataset_converter.structure(OF_2021, DatasetProperties).id["team"] == "lab"


def test_what_is_no_properties_file_is_refused():
    converter = get_dataset_converter()
    with pytest.raises(PropertiesError, match=r"the JSON object: .*dataLayers"):
        converter.structure({"id": {"name": "ds", "team": ""}, "scale": [1, 1, 1]}, DatasetProperties)
    with pytest.raises(InvalidValueError, match=r"DatasetProperties.*got.*LayerProperties"):
        converter.structure(OF_2021["dataLayers"][0], LayerProperties)
    with pytest.raises(InvalidValueError, match="expected DatasetProperties"):
        converter.unstructure({"name": "color"})


def test_values_are_equal_where_the_file_says_the_same():
    converter = get_dataset_converter()
    one, same = (converter.structure(OF_2021, DatasetProperties) for _ in range(2))
    other = converter.structure({**OF_2021, "unknown": 1}, DatasetProperties)
    assert one == same
    assert one.data_layers == same.data_layers
    assert one != other
    assert one.data_layers[0] != one.data_layers[1]
    assert "'largestSegmentId': 12" in repr(one.data_layers[1]).replace('"', "'")


def test_values_are_copies_of_what_the_file_says():
    found = get_dataset_converter().structure(OF_2021, DatasetProperties)
    found.id["name"] = "other"
    found.data_layers.pop()
    found.data_layers[1].mappings.append("more")
    get_dataset_converter().unstructure(found)["dataLayers"].pop()
    assert get_dataset_converter().unstructure(found) == OF_2021
    with pytest.raises(AttributeError):
        found.data_layers[0].name = "other"


def test_handles_say_what_the_file_says_now(tmp_path):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = ds.add_layer("layer", COLOR, dtype_per_layer="uint48", num_channels=3)
    mag = layer.add_mag("2-2-1", **SMALL)
    ids = ds.add_layer("ids", SEGMENTATION, largest_segment_id=7)
    assert [each.name for each in ds._properties.data_layers] == ["layer", "ids"]
    assert (layer._properties.element_class, [each.mag for each in layer._properties.mags]) == (
        "uint48",
        ["2-2-1"],
    )
    assert mag._properties.cube_length == 32
    assert ids._properties.largest_segment_id == 7
    before = ds._properties
    assert Dataset(ds.path)._properties == before
    layer.name = "renamed"
    assert [each.name for each in ds._properties.data_layers] == ["renamed", "ids"]
    assert layer._properties.name == "renamed"
    assert ds._properties != before
    edit(ds, lambda content: first(content).update(elementClass="uint24"))
    assert layer._properties.element_class == "uint24"


def test_a_save_writes_the_number_of_channels(tmp_path):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    ds.add_layer("layer", COLOR).add_mag(1, **SMALL)
    content = raw(ds)
    expected = json.loads(json.dumps(content))
    del first(content)["numChannels"]
    put(ds, content)
    opened = Dataset(ds.path)
    assert opened._properties.data_layers[0].num_channels is None
    assert raw(ds) == content  # a look at it writes nothing
    opened._export_as_json()
    assert raw(ds) == expected
    opened._export_as_json()
    assert raw(ds) == expected


def test_types_and_attachments():
    color, segmentation = get_dataset_converter().structure(OF_2021, DatasetProperties).data_layers
    assert (color.dtype, color.dtype_np, segmentation.dtype) == ("uint8", np.dtype("uint8"), "uint32")
    assert list(segmentation.attachments) == []
    assert (segmentation.attachments.meshes, segmentation.attachments.cumsum) == (None, None)
    mesh = {"name": "m", "path": "./seg/meshes/m", "dataFormat": "zarr3"}
    index = {"name": "index", "path": "http://host/index", "dataFormat": "zarr3"}
    layers = [
        {**OF_2021["dataLayers"][1], "attachments": {"meshes": [mesh], "segmentIndex": index, "later": 5}}
    ]
    (listed,) = (
        get_dataset_converter().structure({**OF_2021, "dataLayers": layers}, DatasetProperties).data_layers
    )
    found = listed.attachments
    assert [each.path for each in found.meshes] == ["./seg/meshes/m"]
    assert (found.segment_index.name, found.segment_index.data_format) == ("index", "zarr3")
    assert list(found) == [*found.meshes, found.segment_index]
    assert found == listed.attachments != segmentation.attachments
    assert (found.agglomerates, found.connectomes, found.segment_statistics) == (None, None, None)
