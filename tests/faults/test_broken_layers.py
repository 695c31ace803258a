"""A layer that cannot be understood closes itself only: it is listed, kept by every edit, and raises when used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_datasets import edit, raw

from wkdask import BoundingBox, Dataset
from wkdask.cli.main import main
from wkdask.errors import AlreadyExistsError, DamagedHeaderError, PropertiesError, WkdaskWarning
from wkdask.geometry import Mag
from wkdask.properties import AddLayer, AddMag, commit

BREAKS = {
    "unknown category": ({"category": "prediction"}, "prediction"),
    "no category": ({"category": ...}, "category is missing"),
    "unknown elementClass": ({"elementClass": "uint12"}, "uint12"),
    "elementClass is a number": ({"elementClass": 8}, "elementClass"),
    "dataFormat is a number": ({"dataFormat": 3}, "dataFormat"),
    "no dataFormat": ({"dataFormat": ..., "mags": [{"mag": 1}]}, "dataFormat is missing"),
    "wkwResolutions is an object": ({"mags": ..., "wkwResolutions": {"resolution": 1}}, "wkwResolutions"),
    "mags is an object": ({"mags": {"1": {}}}, "mags"),
    "mags is a number": ({"mags": 5}, "mags"),
    "no mags": ({"mags": ...}, "neither mags nor wkwResolutions"),
    "mappings is a text": ({"mappings": "axons"}, "mappings"),
    "no channels": ({"numChannels": 0}, "numChannels"),
}
VOXELS = np.random.default_rng(0).integers(1, 99, (1, 40, 40, 40)).astype("uint8")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a dataset of two layers, `good` and `bad`, both sound."""
    ds = Dataset.create(tmp_path_factory.mktemp("sound") / "ds", (4, 4, 4))
    for name in ("bad", "good"):
        ds.add_layer(name, "color").add_mag(1, chunk_shape=16, shard_shape=32).write(VOXELS)
    return ds.path


@pytest.fixture
def dataset(written, tmp_path):
    """A copy of that dataset."""
    shutil.copytree(written, tmp_path / "ds")
    return Dataset(tmp_path / "ds")


def change(ds, name, changes):
    """Change keys of a layer; ... removes one."""

    def apply(content):
        layer = next(layer for layer in content["dataLayers"] if layer["name"] == name)
        for key, value in changes.items():
            if value is ...:
                layer.pop(key)
            else:
                layer[key] = value

    edit(ds, apply)


@pytest.fixture(params=BREAKS)
def broken(request, dataset):
    """A dataset whose layer `bad` is broken, and what is said of it."""
    changes, words = BREAKS[request.param]
    change(dataset, "bad", changes)
    with pytest.warns(WkdaskWarning, match=f"cannot be used: .*'bad'.*{words}"):
        return Dataset(dataset.path), words


def test_the_other_layers_open_and_this_one_raises_when_it_is_used(broken):
    ds, words = broken
    assert list(ds.layers) == ["bad", "good"]
    np.testing.assert_array_equal(ds.get_layer("good").get_mag(1).read(), VOXELS)
    assert ds.get_color_layer().name == "good"
    bad = ds.layers["bad"]
    for call in (
        lambda: ds.get_layer("bad"),
        lambda: bad.get_mag(1),
        lambda: bad.bounding_box,
        lambda: bad.category,
        lambda: bad.mags[Mag(1)],
        lambda: bad.add_mag(2),
        lambda: bad.downsample(),
        lambda: ds.get_or_add_layer("bad", "color"),
        lambda: ds.copy_dataset(Path(ds.path).parent / "copy"),
        lambda: ds.first_difference(ds),
    ):
        with pytest.raises(PropertiesError, match=words):
            call()
    with pytest.raises(AlreadyExistsError):
        ds.add_layer("bad", "color")
    assert not (Path(ds.path).parent / "copy").exists()
    text = repr(ds)
    assert words in text
    assert "good: color, uint8" in text
    assert words in ds._repr_html_().replace("&#x27;", "'")


@pytest.mark.filterwarnings("ignore:a layer cannot be used")
def test_every_commit_keeps_it_byte_for_byte(broken):
    ds, _ = broken

    def kept():
        content = next(layer for layer in raw(ds)["dataLayers"] if layer["name"] == "bad")
        return json.dumps(content)

    before = kept()
    good = ds.get_layer("good")
    good.downsample(coarsest_mag=2)
    good.bounding_box = BoundingBox((0, 0, 0), (39, 40, 40))
    good.get_mag(1).write(VOXELS, offset=(32, 0, 0))
    good.name = "better"
    ds.add_layer("third", "segmentation").add_mag(1, chunk_shape=16, shard_shape=32)
    ds.delete_layer("third")
    ds.name = "other"
    ds.default_view_configuration = {"zoom": 2.0}
    assert kept() == before
    assert list(Dataset(ds.path).layers) == ["bad", "better"]
    copy = Dataset(ds.path).copy_dataset(Path(ds.path).parent / "copy", layers_to_ignore=["bad"])
    assert list(copy.layers) == ["better"]
    ds.delete_layer("bad")
    assert list(ds.layers) == ["better"]
    assert not Path(ds.path, "bad").exists()


@pytest.mark.filterwarnings("ignore:a layer cannot be used")
def test_commands_show_it_and_refuse_it(broken):
    ds, words = broken
    info = CliRunner().invoke(main, ["info", str(ds.path)])
    assert info.exit_code == 0
    assert words in info.output
    for command in (
        ["downsample", str(ds.path)],
        ["compress", str(ds.path)],
        ["preview", str(ds.path), "--layer", "bad"],
    ):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 1, done.output
        assert words in done.output
    assert list(ds.get_layer("good").mags) == [Mag(1)]


def test_it_is_whole_again_once_the_file_is(dataset):
    change(dataset, "bad", {"category": "prediction"})
    handle = dataset.layers["bad"]
    with pytest.raises(PropertiesError, match="prediction"):
        handle.get_mag(1)
    change(dataset, "bad", {"category": "color"})
    np.testing.assert_array_equal(handle.get_mag(1).read(), VOXELS)


def test_no_edit_breaks_a_layer(dataset):
    before = raw(dataset)
    bad = AddLayer("new", "color", "uint8", 1, extra={"mappings_": 1, "defaultViewConfiguration": [1]})
    with pytest.raises(PropertiesError, match=r"'new'.*defaultViewConfiguration"):
        commit(dataset.path, [bad])
    assert raw(dataset) == before


# --- what is unambiguous --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [..., None])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("dtype", "channels"), [("uint16", 1), ("uint8", 3), ("float32", 1)])
def test_the_headers_tell_a_missing_element_class(tmp_path, value, legacy, dtype, channels):
    ds = Dataset.create(tmp_path / "ds", (4, 4, 4))
    voxels = np.repeat(VOXELS, channels, axis=0).astype(dtype)
    layer = ds.add_layer("l", "color", dtype_per_channel=dtype, num_channels=channels)
    layer.add_mag(1, chunk_shape=16, shard_shape=32).write(voxels)
    change(ds, "l", {"elementClass": value})
    if legacy:
        resolutions = [{"resolution": 1, "cubeLength": 32}]
        change(ds, "l", {"mags": ..., "numChannels": ..., "dataFormat": ..., "wkwResolutions": resolutions})
    with pytest.warns(WkdaskWarning) as caught:
        ds = Dataset(ds.path)
    texts = [str(warning.message) for warning in caught]
    assert all(
        f"{key} is missing" in text
        for key, text in zip(("dataFormat", "elementClass")[1 - legacy :], texts, strict=True)
    )
    layer = ds.get_layer("l")
    assert (layer.dtype_per_channel, layer.num_channels, layer.data_format) == (dtype, channels, "wkw")
    assert layer.dtype_per_layer == {"uint16": "uint16", "uint8": "uint24", "float32": "float32"}[dtype]
    np.testing.assert_array_equal(layer.get_mag(1).read(), voxels)
    layer.downsample(coarsest_mag=2, interpolation_mode="nearest")
    np.testing.assert_array_equal(layer.get_mag(2).read(), voxels[:, ::2, ::2, ::2])
    assert f"{dtype}" in repr(layer)
    kept = raw(ds)["dataLayers"][0]
    assert kept.get("elementClass") is None


def test_headers_that_differ_tell_nothing(tmp_path):
    ds = Dataset.create(tmp_path / "ds", (4, 4, 4))
    for name, dtype in (("l", "uint8"), ("other", "uint16")):
        ds.add_layer(name, "color", dtype_per_channel=dtype).add_mag(1, chunk_shape=16, shard_shape=32)
    commit(ds.path, [AddMag("l", Mag(2), 32, path="./other/1")])
    change(ds, "l", {"elementClass": ..., "numChannels": ...})
    with pytest.warns(WkdaskWarning, match="elementClass is missing"):
        layer = Dataset(ds.path).get_layer("l")
    with pytest.raises(DamagedHeaderError, match="mag 1 holds 1 × uint8 and mag 2 holds 1 × uint16"):
        layer.get_mag(1)


@pytest.mark.parametrize("said", ["1", "1-1-1"])
def test_resolutions_that_are_texts(dataset, said):
    resolutions = [{"resolution": said, "cubeLength": 32}]
    change(dataset, "good", {"mags": ..., "wkwResolutions": resolutions})
    ds = Dataset(dataset.path)
    np.testing.assert_array_equal(ds.get_layer("good").get_mag(1).read(), VOXELS)
    ds.get_layer("good").downsample(coarsest_mag=2)
    content = raw(ds)["dataLayers"][1]["wkwResolutions"]
    assert content[0] == resolutions[0]  # kept as it was
    assert [Mag(entry["resolution"]) for entry in content] == [Mag(1), Mag(2)]
    ds.get_layer("good").delete_mag(1)
    assert [str(mag) for mag in ds.get_layer("good").mags] == ["2"]
