"""Zarr 3 whose chunks are files: without the sharding codec, as webknossos 4 stores it."""

import json

import numpy as np
import pytest
import zarr

from wkdask import Dataset, NDBoundingBox


def codecs_of(mag):
    return [codec["name"] for codec in json.loads((mag.path / "zarr.json").read_text())["codecs"]]


@pytest.mark.parametrize("compress", [True, False])
def test_written_in_whole_and_in_part_and_in_place(tmp_path, compress):
    layer = Dataset(tmp_path / "ds", voxel_size=(1, 1, 1)).add_layer(
        "color", "color", data_format="zarr3", num_channels=2, dtype="uint16"
    )
    mag = layer.add_mag(1, chunk_shape=32, shard_shape=32, compress=compress)
    assert "sharding_indexed" not in codecs_of(mag)
    expected = np.random.default_rng(0).integers(0, 2**16, (2, 40, 50, 60), dtype=np.uint16)
    mag.write(expected)
    mag.write(expected[:, :7, :8, :9] // 3, offset=(30, 3, 29))
    expected[:, 30:37, 3:11, 29:38] = expected[:, :7, :8, :9] // 3
    assert np.array_equal(zarr.open_array(mag.path, mode="r")[:, :40, :50, :60], expected)
    mag.write(2**16 - 1 - mag.to_dask(bounding_box=layer.bounding_box))  # in place
    expected = 2**16 - 1 - expected
    assert np.array_equal(mag.read(), expected)
    layer.downsample(coarsest_mag=2)
    assert "sharding_indexed" not in codecs_of(layer.get_mag(2))
    mag.write(np.zeros((2, 32, 32, 32), np.uint16), offset=(0, 0, 0))
    expected[:, :32, :32, :32] = 0
    assert not (mag.path / "c/0/0/0/0").exists(), "a cube of zeros is no file"
    mag.rechunk(chunk_shape=16, shard_shape=64)
    assert codecs_of(layer.get_mag(1)) == ["sharding_indexed"]
    assert np.array_equal(layer.get_mag(1).read(), expected)
    layer.get_mag(1).rechunk(chunk_shape=32, shard_shape=32)
    assert np.array_equal(Dataset.open(tmp_path / "ds").get_layer("color").get_mag(1).read(), expected)


def test_positions_along_a_further_axis(tmp_path):
    box = NDBoundingBox((0, 0, 0, 0), (3, 40, 40, 40), "txyz")
    layer = Dataset(tmp_path / "ds", voxel_size=(1, 1, 1)).add_layer("color", "color", bounding_box=box)
    mag = layer.add_mag(1, chunk_shape=32, shard_shape=32)
    expected = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 40), dtype=np.uint8)
    mag.write(expected)
    assert "sharding_indexed" not in codecs_of(mag)
    assert np.array_equal(zarr.open_array(mag.path, mode="r")[:3, :40, :40, :40], expected)
    assert np.array_equal(mag.read(), expected)
