"""Layers and datasets copied or linked: whole, independent or read-only, never half."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from repository import SHARED

from wkdask import BoundingBox, Dataset, DatasetViewConfiguration, LayerViewConfiguration, testing
from wkdask.errors import (
    AlreadyExistsError,
    InvalidValueError,
    LayerNotFoundError,
    ReadOnlyError,
    TaskFailedError,
    UnsupportedFormatError,
)

BOX = BoundingBox((6, 10, 14), (71, 53, 40))
"""Off the grid of the coarser mags."""
SAMPLES = SHARED / "data" / "samples"


@pytest.fixture(scope="module")
def written_original(tmp_path_factory):
    """The folder of a dataset: two layers of three mags each, view configurations, mappings, a transformation."""
    ds = Dataset.create(tmp_path_factory.mktemp("a") / "original", (4, 4, 35), name="Original")
    ds.default_view_configuration = DatasetViewConfiguration(zoom=0.5, position=(1, 2, 3))
    color = ds.add_layer("color", "color", num_channels=3)
    cells = ds.add_layer("cells", "segmentation", dtype_per_channel="uint32", mappings=["agglomerate"])
    for layer in (color, cells):
        voxels = testing.random_voxels((layer.num_channels, *BOX.size), layer.dtype_per_channel)
        layer.add_mag(1, chunk_shape=16, shard_shape=32).write(voxels, offset=BOX.topleft)
        layer.downsample_mag_list(1, ["2-2-1", "4-4-1"])
    color.default_view_configuration = LayerViewConfiguration(alpha=40, color=(255, 0, 10))
    for folder in ("agglomerates", "meshes/deep", ".hidden"):
        (Path(cells.path) / folder).mkdir(parents=True)
        (Path(cells.path) / folder / "file.hdf5").write_bytes(folder.encode())
    (Path(cells.path) / "notes.txt").write_text("mine")
    edit_layer(ds, "color", coordinateTransformations=[{"type": "affine", "matrix": [[1, 0], [0, 1]]}])
    return ds.path


@pytest.fixture
def original(written_original, tmp_path):
    """A copy of that dataset."""
    shutil.copytree(written_original, tmp_path / "a" / "original")
    return Dataset(tmp_path / "a" / "original")


@pytest.fixture
def other(tmp_path):
    """An empty dataset in another folder."""
    return Dataset.create(tmp_path / "b" / "other", (4, 4, 35))


def raw(ds):
    return json.loads(Path(ds.path, "datasource-properties.json").read_text())


def edit_layer(ds, name, **keys):
    """Set keys of a layer as another program would."""
    content = raw(ds)
    for layer in content["dataLayers"]:
        if layer["name"] == name:
            layer.update(keys)
    path = Path(ds.path, "datasource-properties.json")
    path.with_suffix(".new").write_text(json.dumps(content))
    path.with_suffix(".new").rename(path)


def assert_equal_layers(copy, original):
    """The same voxels in all mags, the same box and type."""
    assert copy.bounding_box == original.bounding_box
    assert (copy.category, copy.dtype_per_layer, copy.num_channels) == (
        original.category,
        original.dtype_per_layer,
        original.num_channels,
    )
    assert list(copy.mags) == list(original.mags)
    for mag in original.mags:
        assert np.array_equal(copy.get_mag(mag).read(), original.get_mag(mag).read())


def names_in(folder):
    """Return what is in a folder, but our locks."""
    return sorted({*os.listdir(folder)} - {".wkdask"})


def snapshot(folder):
    """Return all files below a folder with their content, links as where they lead."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if (path.is_symlink() or path.is_file()) and ".wkdask" not in path.parts
    }


# --- copies of layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["color", "cells"])
def test_a_layer_is_copied_with_everything(original, other, name):
    layer = original.get_layer(name)
    copy = other.add_copy_layer(layer)
    assert type(copy) is type(layer)
    assert_equal_layers(copy, layer)
    assert copy.record.largest_segment_id == layer.record.largest_segment_id
    assert copy.record.mappings == layer.record.mappings
    keys = ("defaultViewConfiguration", "coordinateTransformations")
    assert {key: copy.record.raw.get(key) for key in keys} == {key: layer.record.raw.get(key) for key in keys}
    files = snapshot(layer.path)
    files = {path: data for path, data in files.items() if not path.startswith(".hidden")}
    assert snapshot(copy.path) == files  # the same cut and compression: the same bytes
    for mag in copy.mags.values():
        assert not mag.read_only


def test_a_copy_is_independent(original, other):
    layer = original.get_layer("cells")
    copy = other.add_copy_layer(layer, "copied")
    before = layer.get_mag(1).read()
    for path, theirs in zip(
        sorted(Path(copy.path).rglob("*.wkw")), sorted(Path(layer.path).rglob("*.wkw")), strict=True
    ):
        assert os.stat(path).st_ino != os.stat(theirs).st_ino
    copy.get_mag(1).write(np.zeros(BOX.size, "uint32"), offset=BOX.topleft)
    assert np.array_equal(layer.get_mag(1).read(), before)
    original.delete_layer("cells")
    assert copy.get_mag("2-2-1").read().any()
    other.get_layer("copied").delete_mag(1)
    assert [str(mag) for mag in other.get_layer("copied").mags] == ["2-2-1", "4-4-1"]


def test_a_layer_is_copied_from_its_folder_and_into_its_own_dataset(original, other):
    copy = other.add_copy_layer(original.path + "/color", "from_path")
    assert_equal_layers(copy, original.get_layer("color"))
    copy = original.add_copy_layer(original.get_layer("color"), "second")
    assert_equal_layers(copy, original.get_layer("color"))
    with pytest.raises(LayerNotFoundError):
        other.add_copy_layer(original.path + "/absent")
    with pytest.raises(FileNotFoundError):
        other.add_copy_layer(original.path)


def test_a_name_that_is_taken_is_refused(original, other):
    layer = original.get_layer("color")
    other.add_layer("color", "color")
    (Path(other.path) / "folder").mkdir()
    (Path(other.path) / "gone").symlink_to("nowhere")
    before = snapshot(other.path)
    for name in ("color", "folder", "gone"):
        for add in (other.add_copy_layer, lambda layer, name: other.add_symlink_layer(layer, False, name)):
            with pytest.raises(AlreadyExistsError):
                add(layer, name)
    for name in ("../outside", "a/b", ".hidden", "", "a b"):
        for add in (other.add_copy_layer, lambda layer, name: other.add_symlink_layer(layer, False, name)):
            if name:  # no name means the same name
                with pytest.raises(InvalidValueError):
                    add(layer, name)
    assert snapshot(other.path) == before
    assert names_in(other.path) == ["color", "datasource-properties.json", "folder", "gone"]
    assert sorted(os.listdir(Path(other.path).parent)) == ["other"]


@pytest.mark.parametrize("damage", ["cube", "header", "folder"])
def test_half_a_copy_is_taken_away(original, other, damage):
    layer = original.get_layer("color")
    mag = layer.get_mag("2-2-1")
    if damage == "cube":
        (box, *_) = mag.cubes_on_disk()
        path = Path(mag.place.store.cube_path(box.topleft // box.size))
        path.write_bytes(path.read_bytes()[:30])
    elif damage == "header":
        Path(mag.path, "header.wkw").write_bytes(b"WKW")
    else:
        shutil.rmtree(mag.path)
    with pytest.raises((OSError, TaskFailedError)) as caught:
        other.add_copy_layer(layer)
    if damage == "cube":  # what is wrong with the others is seen before anything is made
        assert any("removed" in note for note in caught.value.__notes__)
    assert other.layers == {}
    assert names_in(other.path) == ["datasource-properties.json"]
    with pytest.raises((OSError, TaskFailedError)):  # and may be tried again
        other.add_copy_layer(layer)


def test_ctrl_c_takes_half_a_copy_away(original, other):
    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.add_copy_layer(original.get_layer("color"), progress=interrupt)
    assert other.layers == {}
    assert names_in(other.path) == ["datasource-properties.json"]


def test_half_a_copied_mag_is_taken_away(original, other):
    mag = original.get_layer("color").get_mag(1)
    (box, *_) = mag.cubes_on_disk()
    path = Path(mag.place.store.cube_path(box.topleft // box.size))
    path.write_bytes(path.read_bytes()[:30])
    layer = other.add_layer("color", "color", num_channels=3)
    with pytest.raises(TaskFailedError):
        layer.add_copy_mag(mag)
    assert list(layer.mags) == []
    assert os.listdir(layer.path) == []
    gray = other.add_layer("gray", "color")
    with pytest.raises((InvalidValueError, OSError)):
        gray.add_copy_mag(mag)
    assert (list(gray.mags), os.listdir(gray.path)) == ([], [])
    with pytest.raises((InvalidValueError, OSError)):
        gray.add_symlink_mag(mag)
    assert (list(gray.mags), os.listdir(gray.path)) == ([], [])


# --- linked layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
def test_a_linked_layer_is_read_and_never_written(original, other, relative):
    layer = original.get_layer("cells")
    before = snapshot(original.path)
    linked = other.add_symlink_layer(layer, relative, "linked", writable=False)
    assert os.path.isabs(os.readlink(linked.path)) is not relative
    assert_equal_layers(linked, layer)
    assert linked.record.largest_segment_id == layer.record.largest_segment_id
    mag = linked.get_mag(1)
    assert mag.read_only
    for write in (
        lambda: mag.write(np.ones((2, 2, 2), "uint32")),
        mag.compress,
        mag.get_buffered_slice_writer,
        lambda: linked.add_mag(8),
        lambda: linked.add_copy_mag(other.path),
        lambda: linked.downsample_mag("4-4-1", 8),
    ):
        with pytest.raises((ReadOnlyError, OSError)) as caught:
            write()
        if isinstance(caught.value, ReadOnlyError):
            assert str(original.path) in str(caught.value), "the message names the place"
    for refused in (lambda: linked.add_mag(8), lambda: linked.downsample(coarsest_mag=8), mag.compress):
        with pytest.raises(ReadOnlyError, match="outside of the dataset"):
            refused()
    assert mag.map_chunk(lambda view: view.read_only, (32, 32, 32))[0]
    assert snapshot(original.path) == before
    assert [str(m) for m in linked.mags] == ["1", "2-2-1", "4-4-1"]


def test_deleting_what_is_linked_leaves_the_data(original, other):
    before = snapshot(original.path)
    linked = other.add_symlink_layer(original.get_layer("cells"))
    linked.delete_mag("2-2-1")
    assert [str(mag) for mag in linked.mags] == ["1", "4-4-1"]
    other.delete_layer("cells")
    assert names_in(other.path) == ["datasource-properties.json"]
    assert snapshot(original.path) == before

    layer = other.add_layer("mine", "segmentation", dtype_per_channel="uint32")
    layer.add_symlink_mag(original.get_layer("cells").get_mag(1))
    layer.add_symlink_mag(original.get_layer("cells").path + "/4-4-1", make_relative=True)
    layer.delete_mag(1)
    other.delete_layer("mine")
    assert snapshot(original.path) == before


def test_a_layer_keeps_its_own_mags_beside_linked_ones(original, other):
    foreign = original.get_layer("color")
    layer = other.add_layer("color", "color", num_channels=3)
    mag = layer.add_symlink_mag(foreign.get_mag(1), writable=False)
    assert layer.bounding_box == BOX
    assert mag.read_only
    layer.downsample_mag(1, "2-2-1", compression="lz4")
    assert np.array_equal(layer.get_mag("2-2-1").read(), foreign.get_mag("2-2-1").read())
    assert not layer.get_mag("2-2-1").read_only
    copied = layer.add_copy_mag(foreign.get_mag("4-4-1"))
    assert np.array_equal(copied.read(), foreign.get_mag("4-4-1").read())
    assert layer.bounding_box == BOX, "a mag whose grid cuts the box does not grow it"


@pytest.mark.parametrize("how", ["layer", "dataset", "mag"])
def test_relative_links_survive_moving_both(original, other, tmp_path, how):
    if how == "layer":
        other.add_symlink_layer(original.get_layer("color"), make_relative=True)
    elif how == "mag":
        layer = other.add_layer("color", "color", num_channels=3)
        layer.add_symlink_mag(original.get_layer("color").get_mag(1), make_relative=True)
    else:
        shutil.rmtree(other.path)
        original.shallow_copy_dataset(other.path, make_relative=True)
    expected = original.get_layer("color").get_mag(1).read()
    (tmp_path / "moved" / "deeper").mkdir(parents=True)
    for name in "ab":
        os.rename(tmp_path / name, tmp_path / "moved" / "deeper" / name)
    moved = Dataset(tmp_path / "moved" / "deeper" / "b" / "other")
    assert np.array_equal(moved.get_layer("color").get_mag(1).read(), expected)


def test_relative_links_in_a_folder_that_is_reached_through_a_link(original, tmp_path):
    (tmp_path / "very" / "deep" / "down").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(tmp_path / "very" / "deep" / "down")
    ds = Dataset.create(tmp_path / "alias" / "other", (4, 4, 35))
    linked = ds.add_symlink_layer(original.get_layer("color"), make_relative=True)
    assert np.array_equal(linked.get_mag(1).read(), original.get_layer("color").get_mag(1).read())


def test_a_link_finds_mags_in_folders_of_long_names_and_elsewhere(original, other, tmp_path):
    layer = original.get_layer("color")
    expected = [layer.get_mag(mag).read() for mag in (1, "2-2-1")]
    os.rename(layer.get_mag(1).path, f"{layer.path}/1-1-1")
    os.rename(layer.get_mag("2-2-1").path, tmp_path / "elsewhere")
    content = raw(original)["dataLayers"][0]["mags"]
    content[0]["path"] = "./color/1-1-1"
    content[1]["path"] = str(tmp_path / "elsewhere")
    edit_layer(original, "color", mags=content)
    for linked in (
        other.add_symlink_layer(layer, new_layer_name="linked"),
        other.add_copy_layer(layer, "copied"),
        original.shallow_copy_dataset(tmp_path / "shallow").get_layer("color"),
    ):
        assert np.array_equal(linked.get_mag(1).read(), expected[0])
        assert np.array_equal(linked.get_mag("2-2-1").read(), expected[1])


@pytest.mark.parametrize("data_format", ["n5", "neuroglancerPrecomputed"])
def test_what_is_not_read_is_neither_linked_nor_copied(original, other, tmp_path, data_format):
    content = raw(original)
    for entry in content["dataLayers"]:
        entry["dataFormat"] = data_format
        for mag in entry["mags"]:
            del mag["cubeLength"]
    Path(original.path, "datasource-properties.json").write_text(json.dumps(content))
    ds = Dataset(original.path)
    (layer, *_) = ds.layers.values()
    with pytest.raises(UnsupportedFormatError, match=data_format):
        other.add_symlink_layer(layer)
    with pytest.raises(UnsupportedFormatError, match=data_format):
        other.add_copy_layer(layer)
    with pytest.raises(UnsupportedFormatError, match=data_format):
        ds.shallow_copy_dataset(tmp_path / "shallow")
    assert Dataset(tmp_path / "shallow").layers == other.layers == {}
    assert names_in(other.path) == ["datasource-properties.json"]


@pytest.mark.parametrize("name", ["simple_zarr3_dataset", "simple_zarr_dataset"])
def test_zarr_layers_are_linked_and_copied(other, tmp_path, name):
    if not (SAMPLES / name).is_dir():
        pytest.skip("the samples are not there")
    shutil.copytree(SAMPLES / name, tmp_path / name)
    ds = Dataset(tmp_path / name)
    expected = ds.get_layer("color").get_mag(1).read()
    assert expected.any()
    linked = other.add_symlink_layer(ds.get_layer("color"), new_layer_name="linked")
    copied = other.add_copy_layer(ds.get_layer("color"), "copied")
    shallow = ds.shallow_copy_dataset(tmp_path / "shallow").get_layer("color")
    for layer in (linked, copied, shallow):
        assert layer.data_format == ds.get_layer("color").data_format
        assert np.array_equal(layer.get_mag(1).read(), expected)
    assert Dataset(other.path).get_layer("linked").get_mag(1).read_only
    copied.get_mag(1).write(np.zeros((3, 24, 24, 24), "uint8"))
    assert not copied.get_mag(1).read().any()
    assert np.array_equal(ds.get_layer("color").get_mag(1).read(), expected)


# --- datasets -------------------------------------------------------------------------------------------


def test_a_dataset_is_copied(original, tmp_path):
    copy = original.copy_dataset(tmp_path / "copy")
    assert copy.voxel_size == original.voxel_size
    assert copy.default_view_configuration == original.default_view_configuration
    assert set(copy.layers) == {"color", "cells"}
    for name, layer in copy.layers.items():
        assert_equal_layers(layer, original.get_layer(name))
        assert layer.get_mag(1).spec == original.get_layer(name).get_mag(1).spec
    assert (Path(copy.path) / "cells" / "agglomerates" / "file.hdf5").read_bytes() == b"agglomerates"
    with pytest.raises(AlreadyExistsError):
        original.copy_dataset(tmp_path / "copy")


@pytest.mark.parametrize(
    ("options", "chunk", "cube", "compression"),
    [
        ({"chunk_shape": 8, "shard_shape": 64, "compression": "lz4"}, 8, 64, "lz4"),
        ({"compression": None}, 16, 32, None),
        ({"block_len": 8, "file_len": 2, "compress": True}, 8, 16, "lz4hc"),
        ({"compress": False, "file_len": 4}, 16, 64, None),
        ({"shard_shape": 16}, 16, 16, "as it is"),
    ],
)
def test_a_dataset_is_copied_cut_and_compressed_otherwise(
    original, tmp_path, options, chunk, cube, compression
):
    copy = original.copy_dataset(tmp_path / "copy", scale=(1, 2, 3), **options)
    assert copy.scale == (1, 2, 3)
    for name, layer in copy.layers.items():
        assert_equal_layers(layer, original.get_layer(name))
        for mag, view in layer.mags.items():
            spec = view.spec
            assert (spec.chunk_shape.x, spec.shard_shape.x) == (chunk, cube)
            as_it_was = original.get_layer(name).get_mag(mag).spec.compression
            assert spec.compression == (as_it_was if compression == "as it is" else compression)


def test_layers_are_left_out(original, tmp_path):
    assert set(original.copy_dataset(tmp_path / "copy", layers_to_ignore=["color"]).layers) == {"cells"}
    assert set(original.shallow_copy_dataset(tmp_path / "shallow", layers_to_ignore=["cells"]).layers) == {
        "color"
    }


@pytest.mark.cluster
def test_a_dataset_is_copied_by_workers(original, tmp_path, client):
    copy = original.copy_dataset(tmp_path / "copy", compression="lz4hc")
    for name, layer in copy.layers.items():
        assert_equal_layers(layer, original.get_layer(name))


@pytest.mark.parametrize("relative", [False, True])
def test_a_shallow_copy(original, tmp_path, relative):
    before = snapshot(original.path)
    shallow = original.shallow_copy_dataset(tmp_path / "shallow", name="Shallow", make_relative=relative)
    assert shallow.name == "Shallow"
    assert shallow.default_view_configuration == original.default_view_configuration
    for name, layer in shallow.layers.items():
        assert_equal_layers(layer, original.get_layer(name))
        assert layer.get_mag(1).read_only
        assert not os.path.islink(layer.path)
    cells = shallow.get_layer("cells")
    names = ["1", "2-2-1", "4-4-1", "agglomerates", "meshes", "notes.txt"]
    assert sorted(os.listdir(cells.path)) == names
    assert all(os.path.islink(os.path.join(cells.path, name)) for name in names)
    assert os.path.isabs(os.readlink(os.path.join(cells.path, "meshes"))) is not relative
    with pytest.raises(ReadOnlyError, match="original"):
        cells.get_mag(1).write(np.ones((2, 2, 2), "uint32"))
    cells.downsample_mag("4-4-1", "8-8-2")  # new mags are its own
    assert not cells.get_mag("8-8-2").read_only
    cells.delete_mag(1)
    shallow.delete_layer("color")
    shutil.rmtree(shallow.path)
    assert snapshot(original.path) == before


def test_a_shallow_copy_of_a_shallow_copy_leads_to_the_data(original, tmp_path):
    first = original.shallow_copy_dataset(tmp_path / "first")
    second = first.shallow_copy_dataset(tmp_path / "second")
    shutil.rmtree(first.path)
    for name, layer in second.layers.items():
        assert_equal_layers(layer, original.get_layer(name))


def test_deleting_a_layer_leaves_mags_that_another_layer_shows(original):
    """A mag may be listed by two layers; its folder belongs to the one it lies in."""
    expected = original.get_layer("color").get_mag(1).read()
    other = original.add_layer("view", "color", num_channels=3)
    content = raw(original)["dataLayers"][0]["mags"]
    edit_layer(original, "view", mags=content[:1])
    assert np.array_equal(other.get_mag(1).read(size=BOX.size, offset=BOX.topleft), expected)
    original.delete_layer("view")
    assert np.array_equal(original.get_layer("color").get_mag(1).read(), expected)
