"""The real stack with its pyramid, WKW to Zarr 3 and back: each step opened by webknossos 4.3.3 and by others.

Run with ``pytest -m peer``; see test_peer.py for the peer's Python.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from peer_process import (
    described,
    read_png,
    same,
    stack,
)

from wkdask import Dataset, DatasetViewConfiguration, LayerViewConfiguration
from wkdask.convert.images import convert_images
from wkdask.convert.zarr import convert_zarr

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The stack and its labels in LZ4 cubes, off the grid, each with a pyramid."""
    path = tmp_path_factory.mktemp("stack") / "vnc"
    for name, folder, pattern, read in (
        ("color", "raw", "*.tif", tifffile.imread),
        ("labels", "labels", "*.png", read_png),
    ):
        files, voxels = stack(folder, pattern, read)
        convert_images(
            files,
            path,
            voxel_size=(4.6, 4.6, 45.0),
            layer_name=name,
            category="color" if name == "color" else "segmentation",
            offset=(100, 200, 3),
            shard_shape=256,
            compression="lz4",
        )
        layer = Dataset(path).get_layer(name)
        layer.downsample()
        same(layer.get_mag(1).read(), voxels)
    ds = Dataset(path)
    ds.default_view_configuration = DatasetViewConfiguration(zoom=0.5)
    ds.get_layer("color").default_view_configuration = LayerViewConfiguration(
        color=(255, 0, 10), intensity_range=(3, 250)
    )
    return ds


def check_others(peer, original, copy):
    """The same to ourselves, and to webknossos: properties and every voxel of every mag."""
    assert original.first_difference(copy) is None
    theirs, mine = peer("describe", path=copy.path), described(copy.path)
    assert theirs == mine
    assert theirs["layers"] == described(original.path)["layers"]
    for name, layer in original.layers.items():
        for mag, view in layer.mags.items():
            same(peer("read", path=copy.path, layer=name, mag=str(mag)), view.read())


def test_there_and_back(peer, original, tmp_path):
    there = original.copy_dataset(tmp_path / "there", data_format="zarr3")
    check_others(peer, original, there)
    for name, layer in original.layers.items():
        assert len(layer.mags) > 3
        group = zarr.open_group(there.get_layer(name).path, mode="r")
        (scales,) = group.attrs["ome"]["multiscales"]
        assert [scale["path"] for scale in scales["datasets"]] == [str(mag) for mag in layer.mags]
        for mag, view in layer.mags.items():
            box = view.box
            same(group[str(mag)][(slice(None), *box.to_slices((0, 0, 0)))], view.read())
    back = there.copy_dataset(tmp_path / "back", data_format="wkw")
    check_others(peer, original, back)
    for name, layer in original.layers.items():
        for mag, view in layer.mags.items():
            assert back.get_layer(name).get_mag(mag).spec == view.spec


def test_the_zarr_comes_back_as_an_ome_zarr_image(peer, original, tmp_path):
    there = original.copy_dataset(tmp_path / "there", data_format="zarr3")
    for name, layer in there.layers.items():
        convert_zarr(layer.path, tmp_path / "back", layer_name=name, category=layer.category, shard_shape=256)
    back = Dataset(tmp_path / "back")
    back.default_view_configuration = original.default_view_configuration  # OME-Zarr has no such thing
    for name, layer in original.layers.items():
        back.get_layer(name).default_view_configuration = layer.default_view_configuration
    check_others(peer, original, back)


def test_tensorstore_opens_a_copy(original, tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    there = original.copy_dataset(tmp_path / "there", data_format="zarr3")
    for name, layer in original.layers.items():
        for mag, view in layer.mags.items():
            store = {"driver": "file", "path": str(there.get_layer(name).get_mag(mag).path)}
            array = tensorstore.open({"driver": "zarr3", "kvstore": store}).result()
            same(
                np.asarray(array[(slice(None), *view.box.to_slices((0, 0, 0)))].read().result()), view.read()
            )


@pytest.mark.parametrize("data_format", ["zarr3", "wkw"])
def test_a_copy_of_the_peers_is_equal_and_stored_as_ours(peer, original, tmp_path, data_format):
    source = original
    if data_format == "wkw":
        source = original.copy_dataset(tmp_path / "source", data_format="zarr3")
    command = [peer.cli, "copy-dataset", "--jobs", "1", "--data-format", data_format]
    done = subprocess.run(
        [*command, source.path, tmp_path / "theirs"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = Dataset(tmp_path / "theirs")
    found = source.first_difference(theirs, list(source.layers))
    assert found is None, found
    ours = source.copy_dataset(tmp_path / "ours", data_format=data_format)
    for name, layer in ours.layers.items():
        for mag, view in layer.mags.items():
            other = theirs.get_layer(name).get_mag(mag)
            assert (view.spec.chunk_shape, view.spec.shard_shape) == (
                other.spec.chunk_shape,
                other.spec.shard_shape,
            )
            if data_format == "zarr3":
                mine, of_theirs = (
                    json.loads(Path(each.path, "zarr.json").read_text()) for each in (view, other)
                )
                assert mine["codecs"] == of_theirs["codecs"]
    shutil.rmtree(tmp_path)
