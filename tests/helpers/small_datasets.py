"""Small datasets, and what several test files ask of them."""

import json
import os

import numpy as np

from wkdask import Dataset, LayerCategories

COLOR, SEGMENTATION = LayerCategories.COLOR_TYPE, LayerCategories.SEGMENTATION_TYPE
SBEM = (11.24, 11.24, 28)
SMALL = {"block_len": 16, "file_len": 2}

V4_WKW = """{"id":{"name":"v4wkw","team":""},
 "scale":{"factor":[11.24,11.24,28.0],"unit":"nanometer"},
 "dataLayers":[
  {"name":"color","category":"color",
   "boundingBox":{"topLeft":[3,5,7],"width":100,"height":60,"depth":40},
   "dataFormat":"wkw",
   "mags":[
    {"mag":[1,1,1],"path":"./color/1","cubeLength":64,"axisOrder":{"c":0,"x":1,"y":2,"z":3}},
    {"mag":[2,2,1],"path":"./color/2-2-1","cubeLength":1024,"axisOrder":{"c":0,"x":1,"y":2,"z":3}},
    {"mag":[4,4,2],"path":"./color/4-4-2","cubeLength":1024,"axisOrder":{"c":0,"x":1,"y":2,"z":3}}],
   "numChannels":3,"elementClass":"uint24"},
  {"name":"segmentation","category":"segmentation",
   "boundingBox":{"topLeft":[0,0,0],"width":64,"height":64,"depth":64},
   "dataFormat":"wkw",
   "mags":[{"mag":[1,1,1],"path":"./segmentation/1","cubeLength":64,"axisOrder":{"c":0,"x":1,"y":2,"z":3}}],
   "largestSegmentId":{"customJsonEncoding":"bigint","value":"1152921504606846976"},
   "numChannels":1,"elementClass":"uint64"}],
 "version":1}"""
"""A properties file as webknossos 4.3 writes it: RGB, a mag of another cut, an id above 2**53."""


def raw(ds):
    """Return the properties file as JSON."""
    with open(os.path.join(ds.path, "datasource-properties.json")) as file:
        return json.load(file)


def edit(ds, change):
    """Change the properties file by hand, as another program does: by rename."""
    content = raw(ds)
    change(content)
    temporary = os.path.join(ds.path, "by hand")
    with open(temporary, "w") as file:
        json.dump(content, file)
    os.replace(temporary, os.path.join(ds.path, "datasource-properties.json"))


def first(content):
    """Return the first layer of a properties file."""
    return content["dataLayers"][0]


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


def two_layers(folder):
    """Return a dataset of two layers, each with mags 1 and 2, 40 × 40 × 40 voxels in cubes of 32³."""
    dataset = Dataset.create(folder, (1, 1, 1))
    for number, (name, category) in enumerate([("color", COLOR), ("seg", SEGMENTATION)]):
        layer = dataset.add_layer(name, category, dtype_per_channel="uint8")
        for mag in (1, 2):
            view = layer.add_mag(mag, chunk_shape=16, shard_shape=32)
            view.write(np.full((40 // mag,) * 3, 10 * number + mag, "uint8"), offset=(0, 0, 0))
    return dataset
