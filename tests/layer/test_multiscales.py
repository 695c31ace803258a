"""OME-Zarr beside Zarr layers: what it says, who can read it, and that it is as current as the properties."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr

from wkdask import BoundingBox, Dataset, VoxelSize
from wkdask.errors import WkdaskWarning
from wkdask.layer.multiscales import write_multiscales

BOX = BoundingBox((16, 8, 4), (96, 80, 24))
CUT = {"zarr3": {"shard_shape": 32}, "zarr": {}}
each_format = pytest.mark.parametrize("data_format", CUT)


@pytest.fixture
def ds(tmp_path):
    return Dataset.create(tmp_path / "ds", VoxelSize((0.5, 0.5, 1.25), "micrometer"))


def filled(ds, data_format, voxels, name="layer"):
    layer = ds.add_layer(
        name, "color", dtype_per_channel=voxels.dtype, num_channels=voxels.shape[0], data_format=data_format
    )
    layer.add_mag(1, chunk_shape=16, **CUT[data_format]).write(voxels, offset=BOX.topleft)
    layer.downsample(coarsest_mag=4)
    return layer


def attributes(layer):
    """Return the multiscales, and all else that the group's attributes hold."""
    if layer.data_format == "zarr3":
        group = json.loads(Path(layer.path, "zarr.json").read_text())
        assert (group["zarr_format"], group["node_type"]) == (3, "group")
        assert group["attributes"]["ome"]["version"] == "0.5"
        content = group["attributes"]["ome"]
    else:
        assert json.loads(Path(layer.path, ".zgroup").read_text()) == {"zarr_format": 2}
        content = json.loads(Path(layer.path, ".zattrs").read_text())
    return content.get("multiscales"), {key: value for key, value in content.items() if key != "multiscales"}


def listed(layer):
    (scales,), _ = attributes(layer)
    return [entry["path"] for entry in scales["datasets"]]


@each_format
def test_a_viewer_is_shown_nothing_beyond_the_voxels_where_that_is_asked_for(ds, random_voxels, data_format):
    with dask.config.set({"wkdask.zarr-shape": "box"}):
        layer = filled(ds, data_format, random_voxels((3, *BOX.size)))
        shapes = [zarr.open_array(layer.get_mag(mag).path, mode="r").shape for mag in layer.mags]
        assert shapes == [(3, 112, 88, 28), (3, 56, 44, 28), (3, 28, 22, 14)]  # the end of the box, halved
        layer.get_mag(1).write(random_voxels((3, 5, 5, 5)), offset=(150, 0, 0), pyramid=True)
        shapes = [zarr.open_array(layer.get_mag(mag).path, mode="r").shape for mag in layer.mags]
        assert shapes == [(3, 155, 88, 28), (3, 78, 44, 28), (3, 39, 22, 14)]
    for mag in layer.mags:
        array = zarr.open_array(layer.get_mag(mag).path, mode="r")
        np.testing.assert_array_equal(array[...], layer.get_mag(mag).read((0, 0, 0), array.shape[1:]))


@each_format
def test_what_it_says(ds, random_voxels, data_format):
    layer = filled(ds, data_format, random_voxels((3, *BOX.size)))
    assert [str(mag) for mag in layer.mags] == ["1", "2-2-1", "4-4-2"]
    space = {"type": "space", "unit": "micrometer"}
    expected = {
        "name": "layer",
        "axes": [{"name": "c", "type": "channel"}, *({"name": axis, **space} for axis in "xyz")],
        "datasets": [
            {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 0.5, 1.25]}]},
            {
                "path": "2-2-1",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 1, 1, 1.25]},
                    {"type": "translation", "translation": [0, 0.25, 0.25, 0]},
                ],
            },
            {
                "path": "4-4-2",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 2, 2, 2.5]},
                    {"type": "translation", "translation": [0, 0.75, 0.75, 0.625]},
                ],
            },
        ],
    }
    if data_format == "zarr":
        expected["version"] = "0.4"
    assert attributes(layer)[0] == [expected]
    group = zarr.open_group(ds.path, mode="r", zarr_format=3 if data_format == "zarr3" else 2)
    assert group["layer/2-2-1"].shape[0] == 3


@each_format
def test_it_follows_the_mags(ds, tmp_path, random_voxels, data_format):
    layer = filled(ds, data_format, random_voxels((1, *BOX.size)))
    layer.delete_mag("2-2-1")
    assert listed(layer) == ["1", "4-4-2"]
    layer.add_mag("8-8-4", chunk_shape=16, **CUT[data_format])
    assert listed(layer) == ["1", "4-4-2", "8-8-4"]
    layer.name = "renamed"
    assert attributes(layer)[0][0]["name"] == "renamed"
    copied = ds.copy_dataset(tmp_path / "copy", scale=(2, 2, 5)).get_layer("renamed")
    assert listed(copied) == ["1", "4-4-2", "8-8-4"]
    (scales,), _ = attributes(copied)
    assert scales["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [1, 2, 2, 5]}]
    assert scales["axes"][1]["unit"] == "nanometer"
    shallow = ds.shallow_copy_dataset(tmp_path / "shallow").get_layer("renamed")
    assert listed(shallow) == ["1", "4-4-2", "8-8-4"]
    os.unlink(f"{shallow.path}/1")
    assert listed(layer) == ["1", "4-4-2", "8-8-4"]
    for mag in list(layer.mags):
        layer.delete_mag(mag)
    assert attributes(layer)[0] is None


@each_format
def test_what_others_noted_stays(ds, random_voxels, data_format):
    layer = filled(ds, data_format, random_voxels((1, *BOX.size)))
    file = Path(layer.path, "zarr.json" if data_format == "zarr3" else ".zattrs")
    content = json.loads(file.read_text())
    place = content["attributes"]["ome"] if data_format == "zarr3" else content
    place["omero"] = {"channels": [{"color": "FF0000"}]}
    if data_format == "zarr3":
        content["attributes"]["mine"] = [1, None]
        content["extension"] = {"must_understand": False}
    file.write_text(json.dumps(content))
    before = os.stat(file).st_ino
    write_multiscales(layer._file, "layer")
    assert os.stat(file).st_ino == before, "what is current is not written again"
    layer.delete_mag("4-4-2")
    assert listed(layer) == ["1", "2-2-1"]
    assert attributes(layer)[1]["omero"] == place["omero"]
    if data_format == "zarr3":
        again = json.loads(file.read_text())
        assert again["attributes"]["mine"] == [1, None]
        assert again["extension"] == {"must_understand": False}


@each_format
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 50_000])
def test_damaged_metadata_are_made_anew(ds, random_voxels, data_format, content):
    layer = filled(ds, data_format, random_voxels((1, *BOX.size)))
    expected = attributes(layer)
    file = Path(layer.path, "zarr.json" if data_format == "zarr3" else ".zattrs")
    file.write_bytes(content)
    write_multiscales(layer._file, "layer")
    assert attributes(layer) == expected
    if data_format == "zarr3":
        for broken in ({"node_type": "group", "attributes": 5}, {"node_type": "array", "shape": [1]}):
            file.write_text(json.dumps(broken))
            write_multiscales(layer._file, "layer")
            assert attributes(layer) == expected


def test_wkw_layers_and_linked_ones_get_none(ds, tmp_path, random_voxels):
    layer = ds.add_layer("wkw", "color")
    layer.add_mag(1, chunk_shape=16, shard_shape=32).write(random_voxels((1, 8, 8, 8)))
    assert os.listdir(layer.path) == ["1"]
    zarr_layer = filled(ds, "zarr3", random_voxels((1, *BOX.size)))
    other = Dataset.create(tmp_path / "other", (9, 9, 9))
    before = Path(zarr_layer.path, "zarr.json").read_bytes()
    linked = other.add_symlink_layer(zarr_layer)
    linked.delete_mag("4-4-2")
    assert Path(zarr_layer.path, "zarr.json").read_bytes() == before
    as_wkw = ds.copy_dataset(tmp_path / "wkw", data_format="wkw", layers_to_ignore=["wkw"]).get_layer("layer")
    assert "zarr.json" not in os.listdir(as_wkw.path)
    write_multiscales(ds._file, "no such layer")


def test_arrays_that_ome_zarr_does_not_allow_are_left_out(ds, random_voxels):
    layer = filled(ds, "zarr3", random_voxels((1, *BOX.size)))
    zarr.create_array(
        f"{layer.path}/16", shape=(9, 9, 9, 1), chunks=(9, 9, 9, 1), dtype="uint8", dimension_names=[*"xyzc"]
    )
    layer.add_mag_for_existing_files(16)
    zarr.create_array(
        f"{layer.path}/32", shape=(9, 9, 9), chunks=(9, 9, 9), dtype="uint8", dimension_names=[*"zyx"]
    )
    layer.add_mag_for_existing_files(32)
    assert [str(mag) for mag in layer.mags] == ["1", "2-2-1", "4-4-2", "16", "32"]
    assert listed(layer) == ["1", "2-2-1", "4-4-2"]
    os.unlink(f"{layer.path}/2-2-1/zarr.json")
    layer.delete_mag(32)
    assert listed(layer) == ["1", "4-4-2"]


def test_axes_are_those_of_the_arrays(ds):
    layer = ds.add_layer("layer", "color", data_format="zarr3")
    zarr.create_array(
        f"{layer.path}/1", shape=(9, 9, 9), chunks=(9, 9, 9), dtype="uint8", dimension_names=[*"zyx"]
    )
    layer.add_mag_for_existing_files(1)
    (scales,), _ = attributes(layer)
    assert [axis["name"] for axis in scales["axes"]] == ["z", "y", "x"]
    assert scales["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.25, 0.5, 0.5]


def test_of_many_who_add_mags_the_last_one_lists_all(ds):
    layer = ds.add_layer("layer", "color", data_format="zarr3")
    mags = [2**n for n in range(8)]
    threads = [
        threading.Thread(
            target=Dataset(ds.path).get_layer("layer").add_mag, args=(mag,), kwargs={"shard_shape": 32}
        )
        for mag in mags
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert listed(layer) == [str(mag) for mag in mags]


def test_where_it_cannot_be_written_a_warning_says_so(ds):
    layer = ds.add_layer("layer", "color", data_format="zarr3")
    os.mkdir(f"{layer.path}/zarr.json")
    with pytest.warns(WkdaskWarning, match="OME-Zarr"):
        layer.add_mag(1, shard_shape=32)
    assert list(layer.mags) == [1]


CHECK = """
import sys, warnings
import numpy as np
import zarr

path, version, layer_sum = sys.argv[1:]
group = zarr.open_group(path, mode="r")
if version == "0.5":
    from ome_zarr_models.v05.image import Image
else:
    from ome_zarr_models.v04.image import Image
image = Image.from_zarr(group)
content = image.ome_attributes if version == "0.5" else image.attributes
print("models", [dataset.path for dataset in content.multiscales[0].datasets])

from ngff_zarr import from_ngff_zarr
multiscales = from_ngff_zarr(path, version=version)
image = multiscales.images[1]
print("ngff", image.dims, image.scale, image.translation)
print("sum", int(np.asarray(multiscales.images[0].data).sum()) == int(layer_sum))
"""


@each_format
def test_others_validate_and_open_it(ds, random_voxels, data_format):
    pytest.importorskip("ome_zarr_models")
    pytest.importorskip("ngff_zarr")
    voxels = random_voxels((1, *BOX.size))
    layer = filled(ds, data_format, voxels)
    command = [sys.executable, "-c", CHECK, layer.path, {"zarr3": "0.5", "zarr": "0.4"}[data_format]]
    done = subprocess.run([*command, str(voxels.sum(dtype=int))], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    models, ngff, total = done.stdout.splitlines()
    assert models == "models ['1', '2-2-1', '4-4-2']"
    assert "'x': 1.0, 'y': 1.0, 'z': 1.25" in ngff
    assert "'x': 0.25, 'y': 0.25, 'z': 0.0" in ngff
    assert total == "sum True"
