"""All mags of a layer as one tree of xarray."""

import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, NDBoundingBox
from wkdask.errors import InvalidValueError

xr = pytest.importorskip("xarray")

VOXELS = np.arange(40 * 20 * 8, dtype="uint16").reshape(40, 20, 8)


@pytest.fixture
def layer(tmp_path):
    """A layer with mags 1, 2-2-1 and 4-4-1."""
    dataset = Dataset.create(tmp_path / "ds", (4, 4, 30))
    layer = dataset.add_layer("cells", "segmentation", dtype_per_channel="uint16")
    for mag, step in (("1", 1), ("2-2-1", 2), ("4-4-1", 4)):
        layer.add_mag(mag, chunk_shape=16, shard_shape=32).write(VOXELS[::step, ::step])
    return layer


def test_the_tree_of_its_mags(layer):
    tree = layer.to_xarray()
    assert isinstance(tree, xr.DataTree)
    assert (tree.name, list(tree.children)) == ("cells", ["1", "2-2-1", "4-4-1"])
    assert tree.attrs == {
        "layer": "cells", "category": "segmentation", "voxel_size": [4.0, 4.0, 30.0], "voxel_size_unit": "nm",
    }  # fmt: skip
    for mag, step in (("1", 1), ("2-2-1", 2), ("4-4-1", 4)):
        found = tree[mag]["cells"]
        assert found.equals(layer.get_mag(mag).to_xarray())
        assert np.array_equal(found.values[0], VOXELS[::step, ::step])
    assert np.array_equal(tree["4-4-1/cells"].x.values[:2], [6, 22])


def test_a_part_of_it(layer):
    tree = layer.to_xarray(bounding_box=BoundingBox((5, 4, 2), (8, 8, 3)))
    assert tree["1/cells"].shape == (1, 8, 8, 3)
    assert tree["4-4-1/cells"].shape == (1, 3, 2, 3)
    assert np.array_equal(tree["4-4-1/cells"].values[0], VOXELS[4:16:4, 4:12:4, 2:5])


def test_a_node_is_written_back(layer):
    node = layer.to_xarray()["2-2-1/cells"]
    layer.get_mag("2-2-1").write(node.isel(x=[3]) * np.uint16(0))
    expected = VOXELS[::2, ::2].copy()
    expected[3] = 0
    assert np.array_equal(layer.get_mag("2-2-1").read()[0], expected)


def test_a_layer_without_mags(layer):
    with pytest.raises(InvalidValueError, match="no mags"):
        layer.dataset.add_layer("empty", "color").to_xarray()


def test_a_layer_with_time(tmp_path):
    box = NDBoundingBox((0, 0, 0, 0), (2, 16, 16, 8), ("t", "x", "y", "z"))
    layer = Dataset.create(tmp_path / "movie", (4, 4, 30)).add_layer(
        "movie", "color", bounding_box=box, data_format="zarr3"
    )
    layer.add_mag(1, chunk_shape=8, shard_shape=16).write(np.ones((2, 16, 16, 8), "uint8"))
    tree = layer.to_xarray()
    assert tree["1/movie"].dims == ("t", "x", "y", "z")
    assert int(tree["1/movie"].sum()) == 2 * 16 * 16 * 8
