"""The seam to the formats: which folder is what, who opens it, which compression it gets."""

import json
import os
import shutil

import numpy as np
import pytest
import zarr

from wkdask import BoundingBox, Dataset
from wkdask.errors import (
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    OutsideError,
    ReadOnlyError,
    TaskFailedError,
    UnsupportedFormatError,
)
from wkdask.geometry import Vec3Int
from wkdask.storage.formats import (
    DATA_FORMATS,
    check_spec,
    create_mag,
    entry_of,
    fitting_compression,
    format_of,
    found_format,
    metadata_names,
    open_mag,
)
from wkdask.storage.protocol import ArraySpec


def a_spec(**changes):
    cut = {"chunk_shape": Vec3Int.full(8), "shard_shape": Vec3Int.full(8), "compression": None}
    return ArraySpec(**{"dtype": "uint8", "num_channels": 1, **cut, **changes})


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_a_folder_is_known_by_its_metadata(tmp_path, data_format):
    assert format_of(str(tmp_path)) is None
    with pytest.raises(DamagedHeaderError, match=r"zarr\.json"):
        open_mag(str(tmp_path))
    store = create_mag(str(tmp_path / "mag"), a_spec(), data_format)
    assert found_format(store.path) == format_of(store.path) == store.spec.data_format == data_format
    assert open_mag(store.path) == open_mag(store.path, data_format) == store
    assert store.metadata_path.rpartition("/")[2] in metadata_names()
    for other in {*DATA_FORMATS} - {data_format}:
        with pytest.raises(DamagedHeaderError, match="is missing"):
            open_mag(store.path, other)


def test_other_formats_are_refused(tmp_path):
    for use in (
        lambda: open_mag(str(tmp_path), "n5"),
        lambda: create_mag(str(tmp_path / "mag"), a_spec(), "n5"),
        lambda: check_spec(a_spec(), "neuroglancerPrecomputed"),
    ):
        with pytest.raises(UnsupportedFormatError, match="wkw, zarr3, zarr"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_each_format_refuses_the_compressions_of_others():
    check_spec(a_spec(compression="lz4hc"), "wkw")
    check_spec(a_spec(compression="zstd"), "zarr3")
    for data_format, compression in (("wkw", "zstd"), ("zarr3", "lz4hc"), ("zarr", "lz4hc")):
        with pytest.raises(UnsupportedFormatError, match=compression):
            check_spec(a_spec(compression=compression), data_format)


@pytest.mark.parametrize(
    ("data_format", "said", "copied", "expected"),
    [
        ("wkw", None, False, None),
        ("zarr3", None, False, "zstd"),
        ("zarr", False, False, None),
        ("wkw", True, False, "lz4hc"),
        ("zarr3", True, False, "zstd"),
        ("zarr3", "lz4", False, "zstd"),
        ("wkw", "zstd", True, "lz4"),
        ("zarr3", None, True, None),
        ("zarr3", "lz4hc", True, "zstd"),
        ("zarr3", "gzip", True, "gzip"),
        ("wkw", "lz4", True, "lz4"),
        ("wkw", "zstd", False, "zstd"),  # and is then refused by check_spec
    ],
)
def test_compressions_translate(data_format, said, copied, expected):
    assert fitting_compression(data_format, said, copied=copied) == expected


def test_a_compression_is_a_name():
    with pytest.raises(InvalidValueError, match="5"):
        fitting_compression("zarr3", 5)


def test_axes_follow_the_properties(tmp_path):
    """An array of another program, (z, y, x), that the properties list with its axes."""
    voxels = np.arange(6 * 5 * 4, dtype="uint8").reshape(6, 5, 4)
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = ds.add_layer(
        "layer", "color", data_format="zarr3", bounding_box=BoundingBox((0, 0, 0), (4, 5, 6))
    )
    array = zarr.create_array(tmp_path / "ds/layer/1", shape=(6, 5, 4), chunks=(4, 4, 4), dtype="uint8")
    array[...] = voxels
    file = tmp_path / "ds/datasource-properties.json"
    content = json.loads(file.read_text())
    axes = {"x": 2, "y": 1, "z": 0}
    content["dataLayers"][0]["mags"] = [{"mag": [1, 1, 1], "path": "./layer/1", "axisOrder": axes}]
    file.write_text(json.dumps(content))
    mag = Dataset(ds.path).get_layer("layer").get_mag(1)
    assert np.array_equal(mag.read(), voxels.T[None])
    assert entry_of(mag.place.store) == (None, {"axisOrder": axes})
    mag.write(mag.read() + 1)
    assert np.array_equal(zarr.open_array(array.store.root, mode="r")[:6, :5, :4], voxels + 1)
    linked = Dataset.create(tmp_path / "other", (1, 1, 1)).add_symlink_layer(layer)
    assert np.array_equal(linked.get_mag(1).read(), voxels.T[None] + 1)


def test_one_channel_of_an_array_is_refused(tmp_path):
    store = create_mag(str(tmp_path / "mag"), a_spec(num_channels=2), "zarr3")
    with pytest.raises(UnsupportedFormatError, match="channel"):
        open_mag(store.path, "zarr3", {"channelIndex": 1})


# --- layers -------------------------------------------------------------------------------------------

CUT = {"wkw": {"shard_shape": 32}, "zarr3": {"shard_shape": 32}, "zarr": {}}
BOX = BoundingBox((5, 6, 7), (70, 40, 20))


def filled(ds, data_format, voxels, name="layer", category="color"):
    """Return a layer with two mags."""
    layer = ds.add_layer(
        name, category, dtype_per_channel=voxels.dtype, num_channels=voxels.shape[0], data_format=data_format
    )
    layer.add_mag(1, chunk_shape=16, **CUT[data_format]).write(voxels, offset=BOX.topleft)
    layer.downsample(coarsest_mag=2)
    return layer


@pytest.mark.slow
@pytest.mark.parametrize("source", DATA_FORMATS)
@pytest.mark.parametrize("target", DATA_FORMATS)
def test_datasets_are_copied_from_any_format_to_any(tmp_path, random_voxels, source, target):
    ds = Dataset.create(tmp_path / "ds", (4, 4, 40))
    color = filled(ds, source, random_voxels((3, *BOX.size)))
    cells = filled(ds, source, random_voxels((1, *BOX.size), "uint32"), "cells", "segmentation")
    copy = ds.copy_dataset(tmp_path / "copy", data_format=target, chunk_shape=16)
    for layer in (color, cells):
        copied = copy.get_layer(layer.name)
        assert copied.data_format == target
        assert copied.bounding_box == layer.bounding_box
        assert list(copied.mags) == list(layer.mags)
        for mag in layer.mags:
            have, want = copied.get_mag(mag), layer.get_mag(mag)
            assert np.array_equal(have.read(), want.read())
            assert have.spec.data_format == target
            assert (have.spec.compression is None) == (want.spec.compression is None)
    assert copy.get_layer("cells").largest_segment_id == cells.largest_segment_id


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_folders_that_are_there_become_a_layer(tmp_path, random_voxels, data_format):
    voxels = random_voxels((1, *BOX.size), "uint16")
    ds = Dataset.create(tmp_path / "ds", (4, 4, 40))
    layer = filled(ds, data_format, voxels)
    layer.delete_mag("2-2-1")
    os.rename(layer.path, tmp_path / "ds" / "found")
    content = json.loads((tmp_path / "ds/datasource-properties.json").read_text())
    content["dataLayers"] = []
    (tmp_path / "ds/datasource-properties.json").write_text(json.dumps(content))
    found = Dataset(ds.path).add_layer_for_existing_files("found", "color")
    assert found.data_format == data_format
    assert found.bounding_box.contains_bbox(BOX)
    assert np.array_equal(found.get_mag(1).read(offset=BOX.topleft, size=BOX.size), voxels)
    assert found.get_or_add_mag(1, chunk_shape=16).spec == found.get_mag(1).spec
    with pytest.raises(InvalidValueError, match="chunk shape"):
        found.get_or_add_mag(1, chunk_shape=32)
    found.name = "renamed"
    assert np.array_equal(found.get_mag(1).read(offset=BOX.topleft, size=BOX.size), voxels)


def test_mags_of_several_formats_are_no_layer(tmp_path):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    for mag, data_format in ((1, "wkw"), (2, "zarr3")):
        create_mag(str(tmp_path / "ds" / "layer" / str(mag)), a_spec(), data_format)
    with pytest.raises(InvalidValueError, match="several formats"):
        ds.add_layer_for_existing_files("layer", "color")


@pytest.mark.parametrize("data_format", ["zarr3", "zarr"])
def test_metadata_that_contradict_the_properties_are_named_and_the_other_mags_work(
    tmp_path, random_voxels, data_format
):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = filled(ds, data_format, random_voxels((1, *BOX.size)))
    create_mag(str(tmp_path / "other"), a_spec(dtype="int16", num_channels=3), data_format)
    path = layer.get_mag(2).place.store.metadata_path
    shutil.copy(tmp_path / "other" / os.path.basename(path), path)
    with pytest.raises(DamagedHeaderError, match="contradicts") as caught:
        layer.get_mag(2)
    for part in (path, "int16", "uint8", "'layer'", "channels 3 against 1"):
        assert part in str(caught.value)
    assert layer.get_mag(1).read().any()


def test_a_file_of_2021_takes_a_zarr_layer(tmp_path, random_voxels):
    ds = Dataset.create(tmp_path / "ds", (11.24, 11.24, 28))
    file = tmp_path / "ds/datasource-properties.json"
    file.write_text(
        json.dumps({"id": {"name": "ds", "team": ""}, "scale": [11.24, 11.24, 28], "dataLayers": []})
    )
    voxels = random_voxels((1, *BOX.size))
    filled(Dataset(ds.path), "wkw", voxels, "old")
    layer = filled(Dataset(ds.path), "zarr3", voxels, "new")
    old, new = json.loads(file.read_text())["dataLayers"]
    assert "wkwResolutions" in old
    assert "wkwResolutions" not in new
    assert [entry["mag"] for entry in new["mags"]] == [[1, 1, 1], [2, 2, 1]]
    assert np.array_equal(layer.get_mag(1).read(), voxels)


def test_layers_of_other_formats_are_not_added(tmp_path):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    with pytest.raises(UnsupportedFormatError, match="n5"):
        ds.add_layer("layer", "color", data_format="n5")
    filled(ds, "wkw", np.ones((1, *BOX.size), "uint8"))
    with pytest.raises(UnsupportedFormatError, match="N5"):
        ds.copy_dataset(tmp_path / "copy", data_format="N5")
    assert list(ds.layers) == ["layer"]
    layer = ds.get_or_add_layer("layer", "color", data_format="wkw")
    with pytest.raises(InvalidValueError, match="data format zarr3, it has wkw"):
        ds.get_or_add_layer("layer", "color", data_format="zarr3")
    with pytest.raises(UnsupportedFormatError, match="zstd"):
        layer.add_mag(8, compression="zstd")


def test_mags_of_another_format_are_copied_and_not_linked(tmp_path, random_voxels):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    source = filled(ds, "wkw", random_voxels((1, *BOX.size)))
    layer = Dataset.create(tmp_path / "other", (1, 1, 1)).add_layer("layer", "color", data_format="zarr3")
    with pytest.raises(InvalidValueError, match="copy"):
        layer.add_symlink_mag(source.get_mag(1))
    added = layer.add_copy_mag(source.get_mag(1))
    assert np.array_equal(added.read(), source.get_mag(1).read())
    assert added.spec.compression is None


def test_zarr_is_compressed_in_place_and_elsewhere(tmp_path, random_voxels):
    voxels = random_voxels((1, *BOX.size))
    layer = filled(Dataset.create(tmp_path / "ds", (1, 1, 1)), "zarr3", voxels)
    mag = layer.get_mag(1)
    mag.compress()  # is compressed
    mag.compress(compression="blosc")
    assert layer.get_mag(1).spec.compression == "blosc"
    assert np.array_equal(layer.get_mag(1).read(), voxels)
    mag.compress(tmp_path / "copy", compression="gzip")
    copied = Dataset(tmp_path / "copy").get_layer("layer").get_mag(1)
    assert copied.spec.compression == "gzip"
    assert np.array_equal(copied.read(), voxels)


def test_many_channels_are_no_matter_in_zarr(tmp_path, random_voxels):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    voxels = random_voxels((40, *BOX.size), "uint64")
    with pytest.raises(DTypeError, match="255"):
        ds.add_layer("wkw", "color", dtype_per_channel="uint64", num_channels=40)
    layer = filled(ds, "zarr3", voxels)
    assert np.array_equal(layer.get_mag(1).read(), voxels)


@pytest.mark.parametrize("data_format", ["zarr3", "zarr"])
def test_a_shard_that_is_elsewhere(tmp_path, random_voxels, data_format):
    voxels = random_voxels((1, *BOX.size))
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    mag = filled(ds, data_format, voxels).get_mag(1)
    cube = mag.place.store.cube_path(Vec3Int(1, 1, 0))
    elsewhere = tmp_path / "elsewhere"
    shutil.move(cube, elsewhere)
    os.symlink(elsewhere, cube)
    before = elsewhere.read_bytes()
    assert np.array_equal(mag.read(), voxels)
    with pytest.raises(TaskFailedError) as caught:
        mag.write(255 - voxels, offset=BOX.topleft)
    assert isinstance(caught.value.__cause__, ReadOnlyError)
    refusing = Dataset(ds.path, outside="refuse").get_layer("layer").get_mag(1)
    with pytest.raises(OutsideError, match=str(elsewhere)):
        refusing.read()
    assert elsewhere.read_bytes() == before
    writing = Dataset(ds.path, outside="write").get_layer("layer").get_mag(1)
    writing.write(voxels // 2, offset=BOX.topleft)
    assert os.path.islink(cube)
    assert elsewhere.read_bytes() != before
    assert np.array_equal(writing.read(), voxels // 2)
