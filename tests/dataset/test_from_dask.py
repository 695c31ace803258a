"""`Dataset.from_dask`: one call from an array to a dataset with its pyramid; nothing is left of one that fails."""

import os

import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, VoxelSize
from wkdask.errors import (
    AlreadyExistsError,
    ChannelError,
    DTypeError,
    InvalidValueError,
    PlanError,
    TaskFailedError,
    UnsupportedFormatError,
    WkdaskError,
)


@pytest.mark.parametrize("data_format", ["wkw", "zarr3", "zarr"])
@pytest.mark.parametrize(("channels", "lazy"), [(None, True), (3, True), (1, False)])
def test_an_array_becomes_a_dataset(tmp_path, random_voxels, data_format, channels, lazy):
    expected = random_voxels((channels or 1, 130, 100, 20), "uint8")
    array = expected if channels else expected[0]
    ds = Dataset.from_dask(
        tmp_path / "ds", da.from_array(array, chunks=64) if lazy else array,
        VoxelSize((0.5, 0.5, 1.0), "micrometer"), layer_name="raw",
        data_format=data_format, chunk_shape=32, topleft=(8, 0, 4), progress=False,
    )  # fmt: skip
    layer = Dataset(tmp_path / "ds").get_layer("raw")
    assert ds.voxel_size == VoxelSize((0.5, 0.5, 1.0), "micrometer")
    assert (layer.data_format, layer.category, layer.num_channels) == (data_format, "color", channels or 1)
    assert layer.bounding_box == BoundingBox((8, 0, 4), expected.shape[1:])
    np.testing.assert_array_equal(layer.get_mag(1).read(), expected)
    assert sorted(map(str, layer.mags)) == ["1", "2-2-1", "4-4-2"]
    assert layer.get_mag("4-4-2").read().any()
    shown = layer.default_view_configuration
    assert (shown.min, shown.max, shown.intensity_range) == (expected.min(), expected.max(), None)


def test_a_segmentation_and_all_that_can_be_said(tmp_path, random_voxels):
    ids = random_voxels((1, 70, 60, 30), "uint32") // 2**8
    call = {
        "category": "segmentation",
        "layer_name": "cells",
        "shard_shape": 32,
        "chunk_shape": 16,
        "pyramid": False,
    }
    ds = Dataset.from_dask(
        tmp_path / "a", da.from_array(ids, chunks=-1), (4, 4, 40), name="other", compression="lz4hc", **call
    )
    layer = ds.get_segmentation_layer()
    assert (ds.name, layer.name, layer.largest_segment_id) == ("other", "cells", ids.max())
    spec = layer.get_mag(1).spec
    assert (spec.shard_shape, spec.chunk_shape, spec.compression) == ((32, 32, 32), (16, 16, 16), "lz4hc")
    assert list(layer.mags) == [1]
    ds = Dataset.from_dask(tmp_path / "b", ids, (4, 4, 40), largest_segment_id=2**40, **call)
    assert ds.get_segmentation_layer().largest_segment_id == 2**40


def test_small_data_become_small_compressed_cubes(tmp_path, capfd):
    """As `convert` makes them of the same voxels: 20 MiB are no sparse file of 1 GiB."""
    array = da.zeros((100, 80, 60), dtype="uint8", chunks=50) + np.uint8(1)
    for data_format, compression in (("wkw", "lz4"), ("zarr3", "zstd")):
        ds = Dataset.from_dask(
            tmp_path / data_format, array, (4, 4, 4), data_format=data_format, progress=True
        )
        spec = ds.get_layer("color").get_mag(1).spec
        assert (spec.shard_shape, spec.chunk_shape, spec.compression) == ((128,) * 3, (32,) * 3, compression)
        assert "array (100, 80, 60) taken as (x, y, z), first voxel at (0, 0, 0)" in capfd.readouterr().err
    ds = Dataset.from_dask(
        tmp_path / "none", array, (4, 4, 4), compression=False, pyramid=False, progress=False
    )
    assert ds.get_layer("color").get_mag(1).spec.compression is None
    assert capfd.readouterr().err == ""


def failing(block):
    raise RuntimeError("this block cannot be")


def unknown():
    x = da.ones((8, 8, 8), dtype="uint8", chunks=4)
    return x[x[:, 0, 0] > 0]


@pytest.mark.parametrize(
    ("array", "more", "error"),
    [
        ([[[1]]], {}, InvalidValueError),
        (np.zeros((8, 8), "uint8"), {}, InvalidValueError),
        (np.zeros((8, 8, 8), "bool"), {}, DTypeError),
        (np.zeros((8, 8, 8), "float16"), {}, DTypeError),
        (np.zeros((8, 8, 8), "complex64"), {}, DTypeError),
        (np.zeros((8, 8, 8), ">u2"), {}, DTypeError),
        (np.zeros((8, 0, 8), "uint8"), {}, InvalidValueError),
        (np.zeros((0, 8, 8, 8), "uint8"), {}, (ChannelError, InvalidValueError, DTypeError)),
        (np.zeros((8, 8, 8), "uint8"), {"data_format": "n5"}, UnsupportedFormatError),
        (np.zeros((8, 8, 8), "uint8"), {"category": "other"}, InvalidValueError),
        (np.zeros((8, 8, 8), "uint8"), {"layer_name": "a/b"}, InvalidValueError),
        (np.zeros((8, 8, 8), "uint8"), {"shard_shape": 40}, WkdaskError),
        (np.zeros((8, 8, 8), "uint8"), {"compression": "zip"}, WkdaskError),
        (np.zeros((8, 8, 8), "uint8"), {"topleft": (-1, 0, 0)}, WkdaskError),
        (np.zeros((8, 8, 8), "uint8"), {"voxel_size": (0, 1, 1)}, InvalidValueError),
        (unknown(), {}, PlanError),
        (da.map_blocks(failing, da.ones((8, 8, 8), chunks=8), dtype="uint8"), {}, TaskFailedError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_left_of_what_cannot_be(tmp_path, array, more, error, there):
    if there:
        (tmp_path / "ds").mkdir()
    with pytest.raises(error):
        Dataset.from_dask(tmp_path / "ds", array, **{"voxel_size": (1, 1, 1), "progress": False, **more})
    assert os.listdir(tmp_path) == (["ds"] if there else [])
    assert not there or os.listdir(tmp_path / "ds") == []


def test_a_dataset_that_is_there_is_not_touched(tmp_path):
    Dataset.from_dask(tmp_path / "ds", np.ones((8, 8, 8), "uint8"), (1, 1, 1), progress=False)
    with pytest.raises(AlreadyExistsError):
        Dataset.from_dask(tmp_path / "ds", np.zeros((8, 8, 8), "uint8"), (1, 1, 1), progress=False)
    assert Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read().all()


def test_what_failed_goes_on(tmp_path):
    broken, computed = [True], []

    def block(x, block_info=None):
        place = block_info[None]["chunk-location"]
        if place == (1, 1, 0) and broken[0]:
            raise RuntimeError("not yet")
        computed.append(place)
        return x + 1

    x = da.map_blocks(block, da.zeros((64, 64, 32), dtype="uint8", chunks=32), dtype="uint8")
    call = {"chunk_shape": 16, "shard_shape": 32, "job": "mine", "progress": False}
    with pytest.raises(TaskFailedError, match="not yet"):
        Dataset.from_dask(tmp_path / "ds", x, (1, 1, 1), **call)
    assert Dataset(tmp_path / "ds").layers  # what landed stays
    broken[0] = False
    computed.clear()
    ds = Dataset.from_dask(tmp_path / "ds", x, (1, 1, 1), resume=True, **call)
    assert [place for place in computed if place != (0, 0, 0)] == [(1, 1, 0)]
    assert (ds.get_layer("color").get_mag(1).read() == 1).all()
