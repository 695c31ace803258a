"""The acceptance behaviours 1 to 21 of the Dataset API, one test each: opening, creating, layers.

22 to 49 are in `test_behaviours_views.py`, 50 to 69 in `test_behaviours_layers.py`; `docs/behaviours.md` lists
all of them, and says where ours differ and why.
"""

import json
import os
import re
import shutil

import numpy as np
import pytest
from repository import ROOT

from wkdask import (
    BoundingBox,
    Dataset,
    DatasetViewConfiguration,
    LayerCategories,
    LayerViewConfiguration,
    Mag,
    SegmentationLayer,
)
from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    LayerNotFoundError,
    MagNotFoundError,
    PropertiesError,
    ReadOnlyError,
)

COLOR, SEGMENTATION = LayerCategories.COLOR_TYPE, LayerCategories.SEGMENTATION_TYPE
SCALE = (11.24, 11.24, 28)
SMALL = {"block_len": 16, "file_len": 2}


@pytest.fixture
def ds(tmp_path):
    return Dataset.create(tmp_path / "ds", SCALE)


def raw(ds):
    """Return the properties file as JSON."""
    with open(os.path.join(ds.path, "datasource-properties.json")) as file:
        return json.load(file)


def put(path, content):
    """Write a properties file by hand."""
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, "datasource-properties.json"), "w") as file:
        json.dump(content, file)


def facts(ds):
    """Return all that a dataset's handles say of it."""
    layers = {
        name: (
            type(layer),
            layer.category,
            layer.dtype_per_layer,
            layer.dtype_per_channel,
            layer.num_channels,
            layer.bounding_box,
            layer.default_view_configuration,
            [(mag, view.path, view.size, view.spec) for mag, view in layer.mags.items()],
            getattr(layer, "largest_segment_id", None),
            getattr(layer, "mappings", None),
        )
        for name, layer in ds.layers.items()
    }
    return ds.name, ds.scale, ds.voxel_size, ds.default_view_configuration, layers


def check_reopened(ds):
    """Check that a dataset opened anew says what the handles in use say."""
    assert facts(Dataset(ds.path)) == facts(ds)


def ramp(*shape, dtype="uint8"):
    """Return voxels that all differ from their neighbours, none of them zero."""
    return (np.arange(np.prod(shape), dtype="int64") % 251 + 1).reshape(shape).astype(dtype)


# --- opening and creating -------------------------------------------------------------------------------


def test_01_a_new_dataset_with_a_layer_and_two_mags(ds):
    layer = ds.add_layer("color", COLOR)
    layer.add_mag("1")
    layer.add_mag("2-2-1")
    assert os.path.isdir(os.path.join(ds.path, "color", "1"))
    assert os.path.isdir(os.path.join(ds.path, "color", "2-2-1"))
    assert list(ds.layers) == ["color"]
    assert list(ds.get_layer("color").mags) == [Mag(1), Mag("2-2-1")]
    assert layer.dataset.path == ds.path
    check_reopened(ds)


def test_02_three_channels_of_uint16_and_two_cuts(ds):
    layer = ds.add_layer("color", COLOR, dtype_per_layer="uint48", num_channels=3)
    layer.add_mag("1", block_len=64, file_len=64)
    layer.add_mag("2-2-1")
    assert layer.dtype_per_channel == np.dtype("uint16")
    assert layer.num_channels == 3
    (entry,) = raw(ds)["dataLayers"]
    assert entry["elementClass"] == "uint48"
    assert [(mag["mag"], mag["cubeLength"]) for mag in entry["mags"]] == [
        ([1, 1, 1], 4096),
        ([2, 2, 1], 1024),
    ]
    assert (layer.get_mag(1).header.block_len, layer.get_mag(1).header.file_len) == (64, 64)
    assert (layer.get_mag("2-2-1").header.block_len, layer.get_mag("2-2-1").header.file_len) == (32, 32)
    check_reopened(ds)


def test_03_a_layer_added_through_a_second_handle_persists(ds):
    ds.add_layer("color", COLOR).add_mag(1, **SMALL)
    second = Dataset(ds.path)
    second.add_layer("seg", SEGMENTATION, largest_segment_id=7).add_mag(1, **SMALL)
    assert list(ds.layers) == ["color", "seg"]  # the first handle sees it without being opened again
    assert ds.get_layer("seg").largest_segment_id == 7
    check_reopened(ds)


def test_04_an_old_file_opens_and_gets_its_number_of_channels(ds):
    expected = ramp(1, 24, 24, 24)
    ds.add_layer("color", COLOR).add_mag(1, **SMALL).write(expected)
    ds.get_layer("color").add_mag(2, **SMALL)
    old = {
        "id": {"name": "old", "team": "a team"},
        "scale": [11.24, 11.24, 28],
        "dataLayers": [
            {
                "name": "color",
                "category": "color",
                "boundingBox": {"topLeft": [0, 0, 0], "width": 24, "height": 24, "depth": 24},
                "elementClass": "uint8",
                "dataFormat": "wkw",
                "wkwResolutions": [{"resolution": 1, "cubeLength": 32}, {"resolution": 2, "cubeLength": 32}],
            }
        ],
    }
    put(ds.path, old)
    opened = Dataset(ds.path)
    layer = opened.get_layer("color")
    assert layer.num_channels == 1
    assert list(layer.mags) == [Mag(1), Mag(2)]
    assert np.array_equal(layer.get_mag(1).read(), expected)
    layer.bounding_box = BoundingBox((0, 0, 0), (24, 24, 20))
    old["dataLayers"][0]["boundingBox"]["depth"] = 20
    old["dataLayers"][0]["numChannels"] = 1
    assert raw(opened) == old  # the layout of 2021 stays, with its integers
    check_reopened(opened)


def test_05_a_file_with_everything_round_trips(tmp_path):
    mags = [1, [2, 2, 1], [4, 4, 1], [8, 8, 2], [16, 16, 4], [32, 32, 8]]
    layer = {
        "boundingBox": {"topLeft": [128, 256, 64], "width": 1000, "height": 900, "depth": 800},
        "dataFormat": "wkw",
        "wkwResolutions": [{"resolution": mag, "cubeLength": 32} for mag in mags],
    }
    content = {
        "id": {"name": "everything", "team": "team"},
        "scale": [11.239999771118164, 11.239999771118164, 28],
        "dataLayers": [
            {"name": "color", "category": "color", "elementClass": "uint24", **layer},
            {
                "name": "segmentation",
                "category": "segmentation",
                "elementClass": "uint32",
                "largestSegmentId": 1_000_000_000,
                "mappings": ["larger5um1", "axons", "astrocyte-ge-7", "mitos"],
                **layer,
            },
        ],
        "defaultViewConfiguration": {"zoom": 2.5, "newKeyOfTheServer": [1, {"deep": None}]},
    }
    donor = Dataset.create(tmp_path / "donor", SCALE)  # headers of the right kind
    three = donor.add_layer("color", COLOR, num_channels=3)
    one = donor.add_layer("segmentation", SEGMENTATION, dtype_per_channel="uint32")
    for mag in mags:
        three.add_mag(mag, **SMALL)
        one.add_mag(mag, **SMALL)
    put(donor.path, content)
    opened = Dataset(donor.path)
    assert [len(each.mags) for each in opened.layers.values()] == [6, 6]
    assert opened.get_segmentation_layer().mappings == ("larger5um1", "axons", "astrocyte-ge-7", "mitos")
    assert opened.get_segmentation_layer().largest_segment_id == 1_000_000_000
    for each in opened.layers.values():
        box = each.bounding_box
        each.bounding_box = BoundingBox((0, 0, 0), (1, 1, 1))
        each.bounding_box = box
    opened.name = "renamed"
    opened.name = "everything"
    for entry, channels in zip(content["dataLayers"], (3, 1), strict=True):
        entry["numChannels"] = channels
    assert raw(opened) == content
    check_reopened(opened)


def test_06_get_or_create(tmp_path):
    first = Dataset.get_or_create(tmp_path / "ds", SCALE)
    first.add_layer("color", COLOR).add_mag(1, **SMALL)
    second = Dataset.get_or_create(tmp_path / "ds", SCALE, name="ds")
    assert facts(second) == facts(first)
    assert list(second.layers) == ["color"]
    before = raw(first)
    with pytest.raises(ValueError, match=r"11\.24") as caught:
        Dataset.get_or_create(tmp_path / "ds", (1, 1, 1))
    assert caught.type is AlreadyExistsError
    with pytest.raises(AlreadyExistsError, match="another"):
        Dataset.get_or_create(tmp_path / "ds", SCALE, name="another")
    assert raw(first) == before
    with pytest.raises(
        AlreadyExistsError
    ) as caught:  # create, though, never takes a folder with something in it
        Dataset.create(tmp_path / "ds", SCALE)
    assert isinstance(caught.value, ValueError)
    (tmp_path / "file").write_text("")
    with pytest.raises(AlreadyExistsError):
        Dataset.create(tmp_path / "file", SCALE)


def test_07_the_name_of_a_dataset(tmp_path):
    ds = Dataset.create(tmp_path / "folder", SCALE)
    assert ds.name == "folder"
    ds.name = "set"
    assert ds.name == "set"
    assert raw(ds)["id"]["name"] == "set"
    check_reopened(ds)
    assert Dataset.create(tmp_path / "other", SCALE, name="explicit").name == "explicit"
    assert Dataset.open(tmp_path / "other").name == "explicit"


def test_08_an_unknown_version_is_refused(ds):
    content = raw(ds)
    assert content["version"] == 1
    put(ds.path, {**content, "version": 9000})
    with pytest.raises(PropertiesError, match="9000") as caught:
        Dataset(ds.path)
    assert isinstance(caught.value, ValueError)


def test_09_a_wrong_path_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"datasource-properties\.json") as caught:
        Dataset(tmp_path / "nothing here")
    assert "nothing here" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_10_the_long_name_of_a_mags_folder_is_found(ds):
    expected = ramp(1, 20, 20, 20)
    layer = ds.add_layer("color", COLOR)
    layer.add_mag(1, **SMALL)
    layer.add_mag(2, **SMALL).write(expected)
    content = raw(ds)
    for entry in content["dataLayers"][0]["mags"]:
        del entry["path"]
    put(ds.path, content)
    os.rename(os.path.join(layer.path, "2"), os.path.join(layer.path, "2-2-2"))
    found = Dataset(ds.path).get_layer("color").get_mag(2)
    assert found.path == os.path.join(layer.path, "2-2-2")
    assert np.array_equal(found.read(), expected)
    check_reopened(ds)
    shutil.rmtree(found.path)  # now neither name is there
    opened = Dataset(ds.path)
    assert list(opened.get_layer("color").mags) == [Mag(1), Mag(2)]
    assert opened.get_layer("color").get_mag(1).read().shape == (1, 40, 40, 40)
    with pytest.raises(DamagedHeaderError, match="color/2"):
        opened.get_layer("color").get_mag(2)
    opened.get_layer("color").bounding_box = BoundingBox((0, 0, 0), (8, 8, 8))
    assert [entry["mag"] for entry in raw(opened)["dataLayers"][0]["mags"]] == [
        [1] * 3,
        [2] * 3,
    ]  # it stays listed


def test_11_paths_in_the_file(ds):
    expected = ramp(1, 20, 20, 20)
    layer = ds.add_layer("color", COLOR)
    layer.add_mag(1, **SMALL).write(expected)
    content = raw(ds)
    for path in ("../ds/color/1", "./color/1", "color/1", os.path.join(ds.path, "color/1")):
        content["dataLayers"][0]["mags"][0]["path"] = path
        put(ds.path, content)
        mag = Dataset(ds.path).get_layer("color").get_mag(1)
        assert mag.path == os.path.join(ds.path, "color", "1")
        assert np.array_equal(mag.read(), expected)
        assert not mag.read_only
    Dataset(ds.path).get_layer("color").add_mag("2-2-1", **SMALL)
    kept, new = raw(ds)["dataLayers"][0]["mags"]
    assert kept["path"] == os.path.join(ds.path, "color/1")
    assert new["path"] == "./color/2-2-1"
    check_reopened(ds)


def test_a_mag_in_use_is_found_where_its_folder_was_renamed(ds):
    expected = ramp(1, 20, 20, 20)
    mag = ds.add_layer("color", COLOR).add_mag(2, **SMALL)
    mag.write(expected)
    short, long = os.path.join(ds.path, "color", "2"), os.path.join(ds.path, "color", "2-2-2")
    os.rename(short, long)
    assert np.array_equal(mag.read(), expected)
    assert mag.path == long
    os.rename(long, short)
    assert np.array_equal(mag.to_dask().compute(), expected)
    os.rename(short, long)
    mag.write(expected + 1)
    assert np.array_equal(mag.get_view().read(), expected + 1)
    assert not os.path.exists(short)
    os.rename(long, os.path.join(ds.path, "elsewhere"))
    with pytest.raises(DamagedHeaderError, match="missing"):  # what is gone is no zeros
        mag.read()


def test_12_a_mag_by_all_its_spellings(ds):
    layer = ds.add_layer("color", COLOR)
    mag = layer.add_mag(1, **SMALL)
    for spelling in ("1", 1, (1, 1, 1), [1, 1, 1], np.array([1, 1, 1]), Mag(1), np.int64(1), "1-1-1"):
        found = layer.get_mag(spelling)
        assert (found.mag, found.path, found.name) == (Mag(1), mag.path, "1")
        assert Mag(1) == spelling
    for missing in (2, "2-2-1"):
        with pytest.raises(MagNotFoundError, match="it has: 1") as caught:
            layer.get_mag(missing)
        assert isinstance(caught.value, IndexError)
    for wrong in (3, 0, -1, "one", "2-2", (2, 3, 1), (1, 1), 1.5, True):
        with pytest.raises(ValueError, match=r"."):
            layer.add_mag(wrong)


# --- layers ---------------------------------------------------------------------------------------------


def test_13_get_or_add_layer_twice(ds):
    arguments = {"dtype_per_layer": "uint24", "num_channels": 3}
    first = ds.get_or_add_layer("color", COLOR, **arguments)
    again = ds.get_or_add_layer("color", COLOR, **arguments)
    assert list(ds.layers) == ["color"]
    assert (again.name, again.dtype_per_layer) == (first.name, "uint24")
    assert ds.get_or_add_layer("color", COLOR).num_channels == 3  # what is not given need not agree
    for changed, word in [
        ({"dtype_per_layer": "uint48"}, "uint16"),
        ({"dtype_per_layer": "uint16", "num_channels": 2}, "channels"),
        ({"dtype_per_layer": None, "dtype_per_channel": "uint16"}, "uint16"),
        ({"category": SEGMENTATION}, "category"),
    ]:
        with pytest.raises(InvalidValueError, match=word):
            ds.get_or_add_layer(**{"layer_name": "color", "category": COLOR, **arguments, **changed})
    with pytest.raises(AlreadyExistsError) as caught:
        ds.add_layer("color", COLOR)
    assert isinstance(caught.value, IndexError)
    check_reopened(ds)


def test_14_get_or_add_mag_twice(ds):
    layer = ds.add_layer("color", COLOR)
    first = layer.get_or_add_mag("1", block_len=32, file_len=8, compress=True)
    again = layer.get_or_add_mag("1", block_len=32, file_len=8, compress=True)
    assert list(layer.mags) == [Mag(1)]
    assert (again.path, again.spec) == (first.path, first.spec)
    assert layer.get_or_add_mag(1).spec == first.spec  # 2021's defaults do not count as asked for
    for changed, word in [
        ({"block_len": 16}, "chunk"),
        ({"file_len": 4}, "shard"),
        ({"compress": False}, "compression"),
    ]:
        with pytest.raises(InvalidValueError, match=word):
            layer.get_or_add_mag("1", **{"block_len": 32, "file_len": 8, **changed})
    with pytest.raises(AlreadyExistsError) as caught:
        layer.add_mag(1)
    assert isinstance(caught.value, IndexError)
    check_reopened(ds)


def test_15_types_by_their_words(ds):
    for number, (arguments, channel, word) in enumerate(
        [
            ({"dtype_per_layer": "uint24", "num_channels": 3}, "uint8", "uint24"),
            ({"dtype_per_channel": np.uint8}, "uint8", "uint8"),
            ({"dtype_per_channel": np.uint8, "num_channels": 3}, "uint8", "uint24"),
            ({"dtype_per_layer": "float"}, "float32", "float"),
            ({"dtype_per_channel": float}, "float32", "float"),
            ({"dtype_per_layer": "double"}, "float64", "double"),
            ({"dtype_per_channel": np.float64}, "float64", "double"),
            ({"dtype_per_channel": "float", "num_channels": 3}, "float32", "float96"),
            ({"dtype_per_layer": "int"}, "int64", "int64"),
            ({"dtype_per_layer": "int", "num_channels": 4}, "int16", "int64"),
            ({"dtype_per_layer": int, "num_channels": 4}, "int16", "int64"),
            ({}, "uint8", "uint8"),
        ]
    ):
        layer = ds.add_layer(f"layer{number}", COLOR, **arguments)
        again = Dataset(ds.path).get_layer(layer.name)
        assert again.dtype_per_channel == layer.dtype_per_channel == np.dtype(channel), arguments
        assert raw(ds)["dataLayers"][number]["elementClass"] == word
    before = raw(ds)
    for arguments in (
        {"dtype_per_layer": "uint30", "num_channels": 3},
        {"dtype_per_layer": "int", "num_channels": 3},
        {"dtype_per_layer": int, "num_channels": 3},
    ):
        with pytest.raises(DTypeError) as caught:
            ds.add_layer("wrong", COLOR, **arguments)
        assert isinstance(caught.value, TypeError)
    with pytest.raises(ValueError, match="not both"):
        ds.add_layer("wrong", COLOR, dtype_per_layer="uint8", dtype_per_channel="uint8")
    for add in (ds.add_layer, ds.get_or_add_layer):
        with pytest.raises(ValueError, match="dtype_per_channel"):
            add("wrong", COLOR, dtype="uint8", dtype_per_layer="uint8")
    with pytest.raises(ValueError, match="texture"):
        ds.add_layer("wrong", "texture")
    assert raw(ds) == before
    check_reopened(ds)


def test_16_the_largest_segment_id(ds):
    layer = ds.add_layer("seg", SEGMENTATION, dtype_per_channel="uint64")
    assert isinstance(layer, SegmentationLayer)
    assert layer.largest_segment_id is None
    assert layer.refresh_largest_segment_id() is None
    mag = layer.add_mag(1, **SMALL)
    assert layer.refresh_largest_segment_id() is None
    layer.largest_segment_id = 12
    assert raw(ds)["dataLayers"][0]["largestSegmentId"] == 12
    assert Dataset(ds.path).get_layer("seg").largest_segment_id == 12
    ids = np.ones((40, 40, 40), "uint64")
    mag.write(ids)
    assert layer.largest_segment_id == 12  # ids never fall by themselves
    ids[39, 39, 39] = 2**60
    mag.write(ids)
    assert layer.largest_segment_id == 2**60  # a write raises it
    mag.write(np.full((1, 1, 1), 5, "uint64"), offset=(39, 39, 39))
    assert layer.largest_segment_id == 2**60
    assert layer.refresh_largest_segment_id() == layer.largest_segment_id == 5
    layer.mappings = ["a", "b"]
    layer.largest_segment_id = None
    assert "largestSegmentId" not in raw(ds)["dataLayers"][0]
    assert Dataset(ds.path).get_layer("seg").mappings == ("a", "b")
    check_reopened(ds)


def test_17_a_layer_by_its_category_must_be_the_only_one(ds):
    with pytest.raises(LayerNotFoundError, match="0 color layers") as caught:
        ds.get_color_layer()
    assert isinstance(caught.value, IndexError)
    with pytest.raises(LayerNotFoundError, match="0 segmentation layers"):
        ds.get_segmentation_layer()
    ds.add_layer("a", COLOR)
    ds.add_layer("x", SEGMENTATION)
    assert ds.get_color_layer().name == "a"
    assert ds.get_segmentation_layer().name == "x"
    ds.add_layer("b", COLOR)
    ds.add_layer("y", SEGMENTATION)
    with pytest.raises(LayerNotFoundError, match="'a', 'b'"):
        ds.get_color_layer()
    with pytest.raises(LayerNotFoundError, match="'x', 'y'"):
        ds.get_segmentation_layer()
    with pytest.raises(LayerNotFoundError, match="'a', 'x', 'b', 'y'"):
        ds.get_layer("c")


def test_18_renaming_a_layer(ds):
    expected = ramp(1, 40, 20, 20)
    layer = ds.add_layer("color", COLOR)
    mag = layer.add_mag(1, **SMALL)
    mag.write(expected)
    other_layer = ds.get_layer("color")
    other_mag = other_layer.get_mag(1)  # handles of their own, of the same dataset
    gone = layer.add_mag(2, **SMALL)
    layer.delete_mag(2)  # a handle of a mag that is no more does not keep the rename from its end
    ds.add_layer("taken", COLOR)
    os.mkdir(os.path.join(ds.path, "folder"))
    for name in ("taken", "folder"):
        with pytest.raises(AlreadyExistsError) as caught:
            layer.name = name
        assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidValueError):
        layer.name = "a/b"
    layer.name = "renamed"
    assert gone.mag == Mag(2)
    assert list(ds.layers) == ["renamed", "taken"]
    assert not os.path.exists(os.path.join(ds.path, "color"))
    assert os.path.isfile(os.path.join(ds.path, "renamed", "1", "header.wkw"))
    assert raw(ds)["dataLayers"][0]["mags"][0]["path"] == "./renamed/1"
    assert layer.name == other_layer.name == "renamed"
    for each in (mag, other_mag, ds.get_layer("renamed").get_mag(1)):
        assert each.layer.name == "renamed"
        assert np.array_equal(each.read(), expected)
    other_mag.write(expected, offset=(0, 20, 0))
    assert layer.bounding_box == BoundingBox((0, 0, 0), (40, 40, 20))
    with pytest.raises(LayerNotFoundError):
        ds.get_layer("color")
    check_reopened(ds)


def test_19_deleting(ds, tmp_path):
    source = Dataset.create(tmp_path / "source", SCALE)
    foreign = source.add_layer("color", COLOR).add_mag(1, **SMALL)
    foreign.write(ramp(1, 20, 20, 20))
    layer = ds.add_layer("color", COLOR)
    layer.add_mag(2, **SMALL).write(ramp(1, 8, 8, 8))
    layer.add_mag(4, **SMALL)
    layer.delete_mag("2")
    assert list(layer.mags) == [Mag(4)]
    assert os.listdir(layer.path) == ["4"]
    with pytest.raises(MagNotFoundError):
        layer.delete_mag(2)
    layer.add_symlink_mag(foreign)
    layer.delete_mag(1)  # only the link goes
    assert os.listdir(layer.path) == ["4"]
    ds.add_symlink_layer(source.get_layer("color"), new_layer_name="linked")
    assert list(ds.layers) == ["color", "linked"]
    ds.delete_layer("linked")
    ds.delete_layer("color")
    assert ds.layers == {}
    assert {*os.listdir(ds.path)} == {"datasource-properties.json", ".wkdask"}
    with pytest.raises(LayerNotFoundError):
        ds.delete_layer("color")
    assert np.array_equal(foreign.read(), ramp(1, 20, 20, 20))
    check_reopened(ds)
    check_reopened(source)


def test_20_a_layer_like_another(ds):
    layer = ds.add_layer(
        "seg", SEGMENTATION, dtype_per_channel="uint32", largest_segment_id=99, mappings=["axons"]
    )
    layer.add_mag(1, **SMALL)
    layer.bounding_box = BoundingBox((1, 2, 3), (4, 5, 6))
    layer.default_view_configuration = LayerViewConfiguration(alpha=20)
    like = ds.add_layer_like(layer, "like")
    assert (like.category, like.dtype_per_channel, like.num_channels) == (SEGMENTATION, np.dtype("uint32"), 1)
    assert (like.largest_segment_id, like.mappings) == (99, ("axons",))
    assert like.bounding_box == layer.bounding_box
    assert dict(like.mags) == {}
    like.default_view_configuration = LayerViewConfiguration(alpha=50)
    like.largest_segment_id = 100
    assert layer.default_view_configuration == LayerViewConfiguration(alpha=20)
    assert layer.largest_segment_id == 99
    assert ds.add_layer_like("seg", "named").bounding_box == layer.bounding_box
    with pytest.raises(AlreadyExistsError):
        ds.add_layer_like(layer, "seg")
    with pytest.raises(LayerNotFoundError, match="'other'"):
        ds.add_layer_like("other", "new")
    with pytest.raises(InvalidValueError, match="by its name"):
        ds.add_layer_like(ds, "new")
    check_reopened(ds)


def test_21_view_configurations(ds):
    layer = ds.add_layer("color", COLOR)
    assert layer.default_view_configuration is None
    assert ds.default_view_configuration is None
    layer.default_view_configuration = LayerViewConfiguration(
        color=(255, 0, 0), intensity_range=(0, 1), is_disabled=True, is_in_edit_mode=False
    )
    ds.default_view_configuration = DatasetViewConfiguration(
        four_bit=True, loading_strategy="PROGRESSIVE_QUALITY", position=(1, 2, 3), zoom=0.5
    )
    assert raw(ds)["dataLayers"][0]["defaultViewConfiguration"] == {
        "color": [255, 0, 0], "intensityRange": [0, 1], "isDisabled": True, "isInEditMode": False,
    }  # fmt: skip
    assert raw(ds)["defaultViewConfiguration"] == {
        "fourBit": True, "loadingStrategy": "PROGRESSIVE_QUALITY", "position": [1, 2, 3], "zoom": 0.5,
    }  # fmt: skip
    again = Dataset(ds.path)
    assert again.get_layer("color").default_view_configuration.color == (255, 0, 0)
    assert again.get_layer("color").default_view_configuration.alpha is None
    assert again.default_view_configuration.four_bit is True
    check_reopened(ds)
    layer.default_view_configuration = None
    assert "defaultViewConfiguration" not in raw(ds)["dataLayers"][0]


def test_a_linked_mag_is_read_only(ds, tmp_path):
    # beside 19 and 50: the data that survive a deletion are not written to either
    source = Dataset.create(tmp_path / "source", SCALE)
    source.add_layer("color", COLOR).add_mag(1, **SMALL).write(ramp(1, 8, 8, 8))
    linked = ds.add_layer("color", COLOR).add_symlink_mag(
        source.get_layer("color").get_mag(1), writable=False
    )
    later = Dataset(ds.path).get_layer("color").get_mag(1)  # nobody made a link in that session
    for mag in (linked, later):
        with pytest.raises(ReadOnlyError, match=r"outside of the dataset.*writable=True"):
            mag.write(ramp(1, 8, 8, 8))


def test_every_behaviour_has_a_test_and_a_row():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/behaviours").glob("test_*.py"))
    table = (ROOT / "docs" / "behaviours.md").read_text(encoding="utf-8")
    expected = list(range(1, 70))
    assert sorted(map(int, re.findall(r"^def test_(\d\d)_", text, re.MULTILINE))) == expected
    rows = re.findall(r"^\| (\d+) \| .+ \| `test_(\d\d)` \| .+ \|$", table, re.MULTILINE)
    assert [(int(number), int(test)) for number, test in rows] == [(number, number) for number in expected]
