"""Commands under the names of the webknossos command."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from wkdask import Dataset, VoxelSize


@pytest.fixture
def dataset(tmp_path, random_voxels):
    ds = Dataset.create(tmp_path / "ds", (4, 4, 35))
    mag = ds.add_layer("color", "color").add_mag(1, chunk_shape=16, shard_shape=32)
    mag.write(random_voxels((1, 64, 64, 64)), offset=(0, 0, 0))
    ds.add_layer("more", "color").add_mag(1, chunk_shape=16, shard_shape=32).write(
        np.ones((8, 8, 8), "uint8")
    )
    return ds


def test_the_bare_command_prints_its_help(invoke):
    text = invoke()
    assert text.startswith("Usage: ")
    assert "check-equality" in text
    assert invoke("nothing", code=2)


def test_copy_dataset_and_check_equality(invoke, dataset, tmp_path):
    invoke(
        "copy-dataset",
        dataset.path,
        tmp_path / "copy",
        "--data-format",
        "zarr3",
        "--shard-shape",
        32,
        "--jobs",
        2,
    )
    assert Dataset(tmp_path / "copy").get_layer("color").data_format == "zarr3"
    assert "are equal" in invoke("check-equality", dataset.path, tmp_path / "copy", "--jobs", "2")
    Dataset(tmp_path / "copy").get_layer("more").get_mag(1).write(
        np.zeros((1, 1, 1), "uint8"), offset=(1, 1, 1)
    )
    invoke("check-equality", dataset.path, tmp_path / "copy", code=1)
    invoke("check-equality", dataset.path, tmp_path / "copy", "--layer-name", "color")


def test_ignored_options_say_so(invoke, dataset, tmp_path):
    text = invoke("check-equality", dataset.path, dataset.path, "--distribution-strategy", "slurm")
    assert "Note: --distribution-strategy is ignored" in text


def test_exists_ok_adds_layers_to_a_dataset(invoke, dataset, tmp_path):
    other = Dataset.create(tmp_path / "other", (4, 4, 35))
    other.add_layer("own", "color")
    invoke("copy-dataset", dataset.path, other.path, code=1)
    assert list(other.layers) == ["own"]
    assert "layer 'more' was copied" in invoke("copy-dataset", dataset.path, other.path, "--exists-ok")
    assert sorted(other.layers) == ["color", "more", "own"]
    np.testing.assert_array_equal(
        other.get_layer("color").get_mag(1).read(), dataset.get_layer("color").get_mag(1).read()
    )
    assert "has a layer 'color' already" in invoke(
        "copy-dataset", dataset.path, other.path, "--exists-ok", code=1
    )
    Path(tmp_path / "new").mkdir()
    invoke("copy-dataset", dataset.path, tmp_path / "new", "--exists-ok")
    assert sorted(Dataset(tmp_path / "new").layers) == ["color", "more"]
    text = invoke("copy-dataset", dataset.path, other.path, "--exists-ok", "--shard-shape", 64, code=1)
    assert "--shard-shape is for a new dataset" in text


@pytest.mark.parametrize("shape", [(40, 30, 20), (2, 40, 30, 20)])
def test_convert_zarr_takes_an_array_for_xyz(invoke, tmp_path, random_voxels, shape):
    data = random_voxels(shape)
    zarr.create_array(tmp_path / "array", shape=shape, chunks=shape, dtype="uint8", zarr_format=3)[...] = data
    invoke(
        "convert-zarr", tmp_path / "array", tmp_path / "ds", "--voxel-size", "4,4,0.004", "--unit", "micrometer",
        "--no-downsample", "--shard-shape", 32, "--layer-name", "raw",
    )  # fmt: skip
    ds = Dataset(tmp_path / "ds")
    assert ds.voxel_size == VoxelSize((4, 4, 0.004), "micrometer")
    found = [layer.get_mag(1).read() for layer in ds.layers.values()]
    np.testing.assert_array_equal(np.concatenate(found), data.reshape((-1, 40, 30, 20)))
    assert {layer.data_format for layer in ds.layers.values()} == {"zarr3"}


def test_convert_zarr_makes_a_segmentation_with_its_pyramid(invoke, tmp_path, random_voxels):
    data = random_voxels((100, 100, 100), "uint32")
    array = zarr.create_array(
        tmp_path / "array",
        shape=data.shape,
        chunks=(50, 50, 50),
        dtype="uint32",
        dimension_names=["z", "y", "x"],
    )
    array[...] = data
    invoke(
        "convert-zarr", tmp_path / "array", tmp_path / "ds", "--voxel-size", "4,4,4", "--is-segmentation-layer",
        "--data-format", "wkw", "--shard-shape", 64, "--max-mag", "2", "--no-compress",
    )  # fmt: skip
    layer = Dataset(tmp_path / "ds").get_layer("color")
    assert (layer.category, layer.data_format) == ("segmentation", "wkw")
    assert [record.mag for record in layer.record.mags] == [1, 2]
    np.testing.assert_array_equal(layer.get_mag(1).read()[0], data.transpose())  # its axes have names
    assert layer.get_mag(1).spec.compression is None
    assert "--flip-axes is not supported" in invoke(
        "convert-zarr",
        tmp_path / "array",
        tmp_path / "x",
        "--voxel-size",
        "4,4,4",
        "--flip-axes",
        "1",
        code=2,
    )
    assert not (tmp_path / "x").exists()


def test_upsample(invoke, tmp_path, random_voxels):
    ds = Dataset.create(tmp_path / "ds", (4, 4, 4))
    data = random_voxels((16, 16, 16))
    ds.add_layer("color", "color").add_mag(2, chunk_shape=16, shard_shape=32).write(data)
    invoke("upsample", ds.path, "--from-mag", 2, "--layer-name", "color")
    expected = data.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(ds.get_layer("color").get_mag(1).read()[0], expected)


def test_the_spelling_of_layers_in_other_commands(invoke, dataset):
    invoke("downsample", dataset.path, "--layer-name", "color", "--coarsest-mag", "2-2-1", "--jobs", 1)
    assert [record.mag for record in dataset.get_layer("color").record.mags] == [1, "2-2-1"]
    assert [record.mag for record in dataset.get_layer("more").record.mags] == [1]
    invoke("compress", dataset.path, "--layer-name", "color", "--mag", 1)
    assert dataset.get_layer("color").get_mag(1).spec.compression == "lz4"
