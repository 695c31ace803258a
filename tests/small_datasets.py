"""Small datasets, and what several test files ask of them."""

import json
import os

import numpy as np

from wkdask import Dataset, LayerCategories

COLOR, SEGMENTATION = LayerCategories.COLOR_TYPE, LayerCategories.SEGMENTATION_TYPE
SBEM = (11.24, 11.24, 28)
SMALL = {"block_len": 16, "file_len": 2}


def raw(ds):
    """Return the properties file as JSON."""
    with open(os.path.join(ds.path, "datasource-properties.json")) as file:
        return json.load(file)


def put(ds, content):
    """Write a properties file by hand."""
    with open(os.path.join(ds.path, "datasource-properties.json"), "w") as file:
        json.dump(content, file)


def check_reopened(ds):
    """Check that a dataset opened anew has the same layers, boxes and voxels."""
    again = Dataset(ds.path)
    assert list(again.layers) == list(ds.layers)
    for name, layer in ds.layers.items():
        assert again.get_layer(name).bounding_box == layer.bounding_box
        assert list(again.get_layer(name).mags) == list(layer.mags)
        for mag, view in layer.mags.items():
            assert np.array_equal(again.get_layer(name).get_mag(mag).read(), view.read())


def ramp(*shape, dtype="uint8"):
    """Return voxels that all differ from their neighbours, none of them zero."""
    return (np.arange(np.prod(shape), dtype="int64") % 251 + 1).reshape(shape).astype(dtype)


def names(layer):
    """Return the mags of a layer, finest first."""
    return [str(mag) for mag in layer.mags]


def filled(ds, data, offset=(0, 0, 0), mag=1, category=COLOR, name="layer", **cut):
    """Return a new layer with one mag that holds an array."""
    layer = ds.add_layer(name, category, dtype_per_channel=data.dtype, num_channels=data.shape[0])
    layer.add_mag(mag, **{**SMALL, **cut}).write(data, offset=offset)
    return layer
