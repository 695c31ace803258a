"""Layers: which mags, where they lie, what contradicts what; and their pyramids."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, Layer, LayerCategories, Mag, SegmentationLayer
from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    MagNotFoundError,
    ReadOnlyError,
    UnsupportedFormatError,
)

SMALL = {"chunk_shape": 16, "shard_shape": 32}


@pytest.fixture
def ds(tmp_path):
    return Dataset.create(tmp_path / "ds", (1, 1, 1))


@pytest.fixture
def layer(ds):
    return ds.add_layer("layer", "color")


def edit(ds, change):
    """Change the JSON by hand: `change` gets the first layer."""
    path = os.path.join(ds.path, "datasource-properties.json")
    with open(path) as file:
        raw = json.load(file)
    change(raw["dataLayers"][0])
    with open(path, "w") as file:
        json.dump(raw, file)


# --- adding mags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "chunk", "cube", "compression"),
    [
        ({}, 32, 1024, None),
        ({"block_len": 16, "file_len": 4}, 16, 64, None),
        ({"block_len": 64}, 64, 2048, None),
        ({"file_len": 4}, 32, 128, None),
        ({"compress": True}, 32, 1024, "lz4hc"),
        ({"compress": False}, 32, 1024, None),
        ({"chunk_shape": 16, "shard_shape": 64}, 16, 64, None),
        ({"chunk_shape": (16, 16, 16), "shard_shape": (64, 64, 64)}, 16, 64, None),
        ({"chunk_shape": 64}, 64, 1024, None),
        ({"shard_shape": 256}, 32, 256, None),
        ({"compression": "lz4"}, 32, 1024, "lz4"),
        ({"compression": "lz4hc"}, 32, 1024, "lz4hc"),
    ],
)
def test_both_spellings_of_a_mag(ds, layer, arguments, chunk, cube, compression):
    mag = layer.add_mag("2-2-1", **arguments)
    reopened = Dataset(ds.path).get_layer("layer").get_mag((2, 2, 1))
    for each in (mag, reopened):
        assert each.spec.chunk_shape == (chunk,) * 3
        assert each.spec.shard_shape == (cube,) * 3
        assert each.spec.compression == compression
    with open(os.path.join(ds.path, "datasource-properties.json")) as file:
        (entry,) = json.load(file)["dataLayers"][0]["mags"]
    assert (entry["mag"], entry["path"], entry["cubeLength"]) == ([2, 2, 1], "./layer/2-2-1", cube)
    assert os.path.getsize(os.path.join(ds.path, "layer", "2-2-1", "header.wkw")) == 16


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"block_len": 32, "chunk_shape": 32}, InvalidValueError),
        ({"file_len": 32, "shard_shape": 1024}, InvalidValueError),
        ({"compress": True, "compression": "lz4"}, InvalidValueError),
        ({"compression": "zip"}, InvalidValueError),
        ({"chunk_shape": 33}, InvalidValueError),
        ({"chunk_shape": 0}, InvalidValueError),
        ({"shard_shape": 48}, InvalidValueError),
        ({"shard_shape": 96}, UnsupportedFormatError),
        ({"chunk_shape": (32, 32, 16)}, UnsupportedFormatError),
        ({"block_len": 12, "file_len": 4}, UnsupportedFormatError),
        ({"file_len": 0}, InvalidValueError),
    ],
)
def test_a_mag_that_cannot_be_leaves_no_trace(ds, arguments, error):
    layer = ds.add_layer("asked", "color", data_format="wkw")
    properties = Path(ds.path) / "datasource-properties.json"
    before = properties.read_bytes()
    with pytest.raises(error):
        layer.add_mag(1, **arguments)
    assert properties.read_bytes() == before
    assert os.listdir(layer.path) == []
    layer.add_mag(1)


def test_a_mag_is_found_by_every_spelling(layer):
    layer.add_mag(1, **SMALL)
    layer.add_mag("2-2-1", **SMALL)
    for word in (1, "1", "1-1-1", (1, 1, 1), [1, 1, 1], np.array([1, 1, 1]), Mag(1)):
        assert layer.get_mag(word).mag == Mag(1)
    for word in ("2-2-1", (2, 2, 1), Mag("2-2-1")):
        assert layer.get_mag(word).name == "2-2-1"
    for error in (MagNotFoundError, IndexError, KeyError):
        with pytest.raises(error, match="has no mag 4; it has: 1, 2-2-1"):
            layer.get_mag(4)


def test_a_mag_is_added_once(layer):
    layer.add_mag(1, **SMALL)
    for word in (1, "1", (1, 1, 1)):
        with pytest.raises(AlreadyExistsError, match="mag 1 already"):
            layer.add_mag(word, **SMALL)
    with pytest.raises(IndexError):
        layer.add_mag(1)


def test_a_folder_that_holds_files_is_not_taken(layer):
    os.makedirs(os.path.join(layer.path, "1"))
    layer_file = os.path.join(layer.path, "1", "precious")
    with open(layer_file, "w"):
        pass
    with pytest.raises(AlreadyExistsError, match="holds files"):
        layer.add_mag(1, **SMALL)
    assert os.path.exists(layer_file)
    assert list(layer.mags) == []


# --- the mapping ----------------------------------------------------------------------------------------


def test_mags_are_a_mapping_finest_first(layer):
    for mag in (4, 1, "2-2-1"):
        layer.add_mag(mag, **SMALL)
    mags = layer.mags
    assert list(mags) == [Mag(1), Mag("2-2-1"), Mag(4)]
    assert len(mags) == 3
    assert mags[Mag(4)].mag == Mag(4)
    assert Mag(4) in mags
    assert Mag(8) not in mags
    assert mags.get(Mag(8)) is None
    assert [mag.name for mag in mags.values()] == ["1", "2-2-1", "4"]
    layer.add_mag(8, **SMALL)
    assert len(mags) == 4  # no copy: what the file says now


# --- deleting -------------------------------------------------------------------------------------------


def test_deleting_a_mag_removes_it_from_file_and_disk(ds, layer):
    mag = layer.add_mag(1, **SMALL)
    mag.write(np.ones((4, 4, 4), "uint8"))
    layer.delete_mag("1")
    assert list(Dataset(ds.path).get_layer("layer").mags) == []
    assert os.listdir(layer.path) == []
    assert layer.bounding_box == BoundingBox((0, 0, 0), (4, 4, 4))
    with pytest.raises(MagNotFoundError):
        layer.delete_mag(1)
    with pytest.raises(DamagedHeaderError):
        mag.read()  # not zeros
    layer.add_mag(1, **SMALL)
    assert not layer.get_mag(1).read().any()


def test_deleting_a_linked_mag_leaves_the_data(ds, layer, tmp_path):
    foreign = Dataset.create(tmp_path / "foreign", (1, 1, 1)).add_layer("layer", "color").add_mag(1, **SMALL)
    foreign.write(np.ones((4, 4, 4), "uint8"))
    layer.add_mag(2, **SMALL)
    os.symlink(foreign.path, os.path.join(layer.path, "1"))
    edit(ds, lambda raw: raw["mags"].append({"mag": [1, 1, 1], "path": "./layer/1", "cubeLength": 32}))
    linked = layer.get_mag(1)
    assert linked.read(size=(4, 4, 4)).sum() == 64
    assert linked.read_only
    with pytest.raises(ReadOnlyError, match="outside of the dataset"):
        linked.write(np.ones((4, 4, 4), "uint8"))
    layer.delete_mag(1)
    assert not os.path.lexists(os.path.join(layer.path, "1"))
    assert foreign.read().sum() == 64


@pytest.mark.parametrize("where", ["../foreign/layer/1", "absolute"])
def test_deleting_a_mag_that_lies_elsewhere_only_unlists_it(ds, layer, tmp_path, where):
    foreign = Dataset.create(tmp_path / "foreign", (1, 1, 1)).add_layer("layer", "color").add_mag(1, **SMALL)
    foreign.write(np.ones((4, 4, 4), "uint8"))
    path = str(foreign.path) if where == "absolute" else where
    edit(ds, lambda raw: raw["mags"].append({"mag": [1, 1, 1], "path": path, "cubeLength": 32}))
    assert layer.get_mag(1).read_only
    layer.delete_mag(1)
    assert foreign.read().sum() == 64


def test_deleting_a_mag_that_another_layer_shows_leaves_the_data(ds, layer):
    """Two layers of one dataset may list one folder."""
    owner = layer.add_mag(1, **SMALL)
    owner.write(np.ones((4, 4, 4), "uint8"))
    guest = ds.add_layer("guest", "color")
    path = os.path.join(ds.path, "datasource-properties.json")
    with open(path) as file:
        raw = json.load(file)
    raw["dataLayers"][1]["mags"] = [{"mag": [1, 1, 1], "path": "./layer/1", "cubeLength": 32}]
    with open(path, "w") as file:
        json.dump(raw, file)
    assert guest.get_mag(1).read(size=(4, 4, 4)).sum() == 64
    guest.delete_mag(1)
    assert owner.read().sum() == 64
    with open(path, "w") as file:
        json.dump(raw, file)
    layer.delete_mag(1)  # the guest still shows it
    assert guest.get_mag(1).read(size=(4, 4, 4)).sum() == 64


# --- what is on disk ------------------------------------------------------------------------------------


def test_a_mag_whose_folder_is_missing_raises_when_used(ds, layer):
    layer.add_mag(1, **SMALL).write(np.ones((4, 4, 4), "uint8"))
    layer.add_mag(2, **SMALL)
    os.rename(os.path.join(layer.path, "2"), os.path.join(ds.path, "moved"))
    again = Dataset(ds.path).get_layer("layer")
    assert list(again.mags) == [Mag(1), Mag(2)]
    assert again.get_mag(1).read().sum() == 64
    for look in (lambda: again.get_mag(2), lambda: again.mags[Mag(2)]):
        with pytest.raises(DamagedHeaderError, match=r"header\.wkw is missing"):
            look()
    os.rename(os.path.join(ds.path, "moved"), os.path.join(layer.path, "2"))
    again.get_mag(2)


def test_a_header_that_contradicts_the_properties_names_both(ds, layer):
    layer.add_mag(1, **SMALL)
    for key, value, words in [
        ("elementClass", "uint16", ("uint8", "uint16", "dtype")),
        ("numChannels", 2, ("channels 1 against 2",)),
    ]:
        old = {}

        def change(raw, key=key, value=value, old=old):
            old[key], raw[key] = raw[key], value
            if key == "numChannels":
                old["elementClass"], raw["elementClass"] = raw["elementClass"], "uint16"

        edit(ds, change)
        with pytest.raises(DamagedHeaderError) as caught:
            layer.get_mag(1)
        assert all(word in str(caught.value) for word in (*words, "header.wkw", "layer"))
        edit(ds, lambda raw, old=old: raw.update(old))
    edit(ds, lambda raw: raw["mags"][0].update(cubeLength=64))
    with pytest.raises(DamagedHeaderError, match="cubeLength 32 against 64"):
        layer.get_mag(1)


def test_a_damaged_header_never_reaches_native_code(layer):
    mag = layer.add_mag(1, **SMALL)
    path = os.path.join(mag.path, "header.wkw")
    for data in (b"", b"WKW\x01", b"XKW\x01" + bytes(12), b"\xff" * 16):
        with open(path, "wb") as file:
            file.write(data)
        with pytest.raises(DamagedHeaderError):
            layer.get_mag(1)
        with pytest.raises(DamagedHeaderError):
            mag.read(size=(4, 4, 4))


def test_a_long_folder_name_is_found(ds, layer):
    mag = layer.add_mag(2, **SMALL)
    mag.write(np.ones((4, 4, 4), "uint8"))
    os.rename(mag.path, os.path.join(layer.path, "2-2-2"))
    edit(ds, lambda raw: raw["mags"][0].pop("path"))
    found = Dataset(ds.path).get_layer("layer").get_mag(2)
    assert found.path.endswith("2-2-2")
    assert found.read().sum() == 64
    found.write(np.ones((8, 4, 4), "uint8"))
    assert found.read().sum() == 128
    layer.delete_mag(2)
    assert os.listdir(layer.path) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(dataFormat="n5"),
        lambda raw: raw["mags"][0].update(path="ftp://example.org/layer/1"),
    ],
)
def test_what_is_not_read_yet_says_so(ds, layer, change):
    layer.add_mag(1, **SMALL)
    edit(ds, change)
    with pytest.raises(UnsupportedFormatError, match=r"neither read nor written|URLs that are read"):
        layer.get_mag(1)


# --- properties -----------------------------------------------------------------------------------------


def test_what_a_layer_says_of_itself(ds):
    layer = ds.add_layer(
        "seg", "segmentation", dtype_per_channel="uint32", largest_segment_id=5, mappings=["a"]
    )
    assert isinstance(layer, SegmentationLayer)
    assert layer.category == LayerCategories.SEGMENTATION_TYPE
    assert layer.dtype_per_channel == np.uint32
    assert layer.dtype_per_layer == "uint32"
    assert layer.num_channels == 1
    assert layer.data_format == "wkw"
    assert layer.bounding_box.is_empty()
    assert layer.mappings == ("a",)
    layer.largest_segment_id = 2**60 + 1
    assert Dataset(ds.path).get_segmentation_layer("seg").largest_segment_id == 2**60 + 1
    layer.largest_segment_id = None
    assert layer.largest_segment_id is None


def test_a_box_is_set_for_all_handles(ds, layer):
    other = Dataset(ds.path).get_layer("layer")
    layer.bounding_box = BoundingBox((3, 4, 5), (60, 70, 80))
    assert other.bounding_box == BoundingBox((3, 4, 5), (60, 70, 80))
    with pytest.raises(ValueError, match=r"."):
        layer.bounding_box = BoundingBox((-3, 4, 5), (60, 70, 80))
    assert other.bounding_box == BoundingBox((3, 4, 5), (60, 70, 80))


def test_layers_pickle_small(layer):
    layer.add_mag(1, **SMALL)
    data = pickle.dumps(layer)
    assert len(data) < 500
    again = pickle.loads(data)
    assert type(again) is Layer
    assert (again.name, again.path) == (layer.name, layer.path)
    assert again.get_mag(1).spec == layer.get_mag(1).spec


# --- pyramids -------------------------------------------------------------------------------------------


def test_downsampling_fills_the_mags_of_the_chain(tmp_path):
    ds = Dataset.create(tmp_path / "pyramid", (11.24, 11.24, 28))
    mag = ds.add_layer("color", "color").add_mag(1, **SMALL)
    mag.write(np.full((1, 100, 60, 40), 123, "uint8"), offset=(3, 5, 7))
    reports = mag.layer.downsample()
    layer = Dataset(ds.path).get_layer("color")
    assert [each.name for each in layer.mags.values()] == ["1", "2-2-1", "4-4-2"]
    assert layer.bounding_box == BoundingBox((3, 5, 7), (100, 60, 40))
    assert layer.get_mag("2-2-1").bounding_box == BoundingBox((2, 4, 7), (102, 62, 40))
    assert layer.get_mag("4-4-2").bounding_box == BoundingBox((0, 4, 6), (104, 64, 42))
    for each, report in zip(list(layer.mags.values())[1:], reports, strict=True):
        assert (each.read() == 123).all()  # borders do not darken
        assert report.bounding_box == each.bounding_box
        assert each.spec.compression == "lz4"
        assert each.spec.shard_shape == (32, 32, 32)
        around = each.read(offset=(0, 0, 0), size=each.size + 5)
        assert around.sum(dtype="u8") == 123 * each.box.volume()


def test_downsampling_goes_on_from_the_coarsest(tmp_path):
    ds = Dataset.create(tmp_path / "more", (1, 1, 1))
    mag = ds.add_layer("color", "color").add_mag(2, **SMALL)
    mag.write(np.full((20, 20, 20), 9, "uint8"))
    mag.layer.downsample()
    assert [each.name for each in mag.layer.mags.values()] == ["2", "4"]
    mag.layer.downsample(coarsest_mag=16, compression=None)
    assert [each.name for each in mag.layer.mags.values()] == ["2", "4", "8", "16"]
    assert mag.layer.get_mag(16).spec.compression is None
    assert (mag.layer.get_mag(16).read() == 9).all()
    assert mag.layer.downsample(coarsest_mag=16) == []


def test_downsampling_is_refused_before_it_begins(layer):
    with pytest.raises(InvalidValueError, match="no mag"):
        layer.downsample()
    mag = layer.add_mag(1, **SMALL)
    with pytest.raises(InvalidValueError, match="empty"):
        layer.downsample()
    mag.write(np.ones((20, 20, 20), "uint8"))
    for arguments, error in [
        ({"interpolation_mode": "bicubicle"}, InvalidValueError),
        ({"sampling_mode": "isotropical"}, InvalidValueError),
        ({"from_mag": 4}, MagNotFoundError),
        ({"compression": "zip"}, InvalidValueError),
    ]:
        with pytest.raises(error):
            layer.downsample(**arguments)
        assert list(layer.mags) == [Mag(1)]
        assert os.listdir(layer.path) == ["1"]
    layer.add_mag(4, **SMALL)
    with pytest.raises(AlreadyExistsError, match="mag 4"):
        layer.downsample(from_mag=1, coarsest_mag=4)
    assert list(layer.mags) == [Mag(1), Mag(4)]


@pytest.mark.slow
def test_a_segmentation_is_downsampled_by_mode_and_keeps_its_ids(tmp_path):
    ds = Dataset.create(tmp_path / "seg", (1, 1, 1))
    layer = ds.add_layer("seg", "segmentation", dtype_per_channel="uint64")
    ids = np.full((16, 16, 16), 2**60 + 1, "uint64")
    ids[::2, ::2, ::2] = 3
    layer.add_mag(1, **SMALL).write(ids)
    layer.downsample(coarsest_mag=2)
    assert (layer.get_mag(2).read() == 2**60 + 1).all()
    assert layer.largest_segment_id == 2**60 + 1


def test_types_that_no_mag_can_hold(ds, layer):
    with pytest.raises(DTypeError):
        ds.add_layer("half", "color", dtype_per_channel="float16")
    with pytest.raises(DTypeError, match="255"):
        ds.add_layer("many", "color", dtype_per_channel="float64", num_channels=40)
    assert "many" not in ds.layers
    assert not os.path.exists(os.path.join(ds.path, "many"))
    edit(ds, lambda raw: raw.update(numChannels=40, elementClass="float2560"))  # a file that says so
    with pytest.raises(DTypeError, match="255"):
        ds.get_layer("layer").add_mag(1)
    assert os.listdir(ds.get_layer("layer").path) == []


def test_transformations_and_attachments_are_reachable_and_kept(tmp_path):
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = dataset.add_layer("color", "segmentation")
    matrix = [[1.0, 0.0, 0.0, 5.5], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    transformation = {"type": "affine", "matrix": matrix}
    attachments = {"meshes": [{"name": "m", "path": "./color/meshes/m", "dataFormat": "zarr3"}]}
    path = tmp_path / "ds" / "datasource-properties.json"
    raw = json.loads(path.read_text())
    raw["dataLayers"][0].update(coordinateTransformations=[transformation], attachments=attachments)
    path.write_text(json.dumps(raw))

    layer.add_mag(1, shard_shape=32).write(np.ones((8, 8, 8), np.uint8))

    assert [each.to_json() for each in layer.coordinate_transformations] == [transformation]
    assert [mesh.name for mesh in layer.attachments.meshes] == ["m"]
    assert json.loads(path.read_text())["dataLayers"][0]["attachments"] == attachments


def test_of_two_processes_that_add_a_mag_one_does(tmp_path):
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    dataset.add_layer("color", "color")
    script = (
        "import sys, wkdask\n"
        "from wkdask.errors import AlreadyExistsError\n"
        "layer = wkdask.Dataset(sys.argv[1]).get_layer('color')\n"
        "sys.stdin.readline()\n"
        "added = 0\n"
        "for mag in ('1', '2', '4', '8', '16', '32'):\n"
        "    try:\n"
        "        layer.add_mag(mag, shard_shape=int(sys.argv[2]))\n"
        "        added += 1\n"
        "    except AlreadyExistsError:\n"
        "        pass\n"
        "print(added)\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "ds"), side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side in ("32", "64")
    ]
    outputs = [child.communicate("go\n", timeout=60)[0] for child in children]
    assert sum(map(int, outputs)) == 6
    layer = Dataset(tmp_path / "ds").get_layer("color")
    for record in layer.record.mags:
        assert layer.get_mag(record.mag).spec.shard_shape.x == record.cube_length


def test_a_header_that_a_dead_process_left_is_no_obstacle(tmp_path):
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("color", "color")
    mag = layer.add_mag(1, shard_shape=64)
    header = tmp_path / "ds" / "color" / "2" / "header.wkw"
    header.parent.mkdir()
    header.write_bytes((tmp_path / "ds" / "color" / "1" / "header.wkw").read_bytes())
    assert layer.add_mag(2, shard_shape=32).spec.shard_shape.x == 32
    assert mag.spec.shard_shape.x == 64
