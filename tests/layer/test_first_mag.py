"""A layer whose data format nobody asked for: WKW, unless its box or its first mag needs Zarr 3."""

import json
import os
import warnings

import numpy as np
import pytest
import zarr

from wkdask import BoundingBox, Dataset, NDBoundingBox, Zarr3Config
from wkdask.errors import UnsupportedFormatError, WkdaskError, WkdaskWarning
from wkdask.properties import AddMag

FLAT = {"chunk_shape": 8, "shard_shape": (32, 32, 8)}
GZIP = Zarr3Config(codecs=({"name": "bytes"}, {"name": "gzip", "configuration": {"level": 3}}))


@pytest.fixture
def dataset(tmp_path):
    return Dataset(tmp_path / "ds", voxel_size=(4, 4, 4))


def format_in_file(dataset, name="color"):
    layers = json.loads((dataset.path / "datasource-properties.json").read_text())["dataLayers"]
    return next(layer["dataFormat"] for layer in layers if layer["name"] == name)


@pytest.mark.parametrize("how", [FLAT, {"shard_shape": 16, "chunk_shape": 8, "compress": GZIP}])
@pytest.mark.parametrize("add", ["add_mag", "get_or_add_mag"])
def test_the_first_mag_makes_the_layer_zarr_where_wkw_has_no_such_cubes(dataset, how, add):
    data = np.arange(40 * 40 * 8, dtype=np.uint8).reshape(40, 40, 8)
    layer = dataset.add_layer("color", "color")
    with pytest.warns(WkdaskWarning, match=r"stored as Zarr 3.*WKW.*data_format="):
        mag = getattr(layer, add)(1, **how)
    mag.write(data)
    assert layer.data_format == dataset.get_layer("color").data_format == format_in_file(dataset) == "zarr3"
    assert np.array_equal(zarr.open_array(mag.path, mode="r")[0, :40, :40, :8], data)
    assert (mag.path.parent / "zarr.json").is_file(), "OME metadata beside it"
    assert layer.add_mag(2).info.data_format == "zarr3"
    with pytest.raises(UnsupportedFormatError):
        dataset.add_layer("other", "color", data_format="wkw").add_mag(1, **how)


def test_the_format_changes_with_the_first_mag_or_not_at_all(dataset, monkeypatch):
    layer = dataset.add_layer("color", "color")
    before = (dataset.path / "datasource-properties.json").read_text()

    def full_disk(self, raw):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AddMag, "apply", full_disk)
    with pytest.warns(WkdaskWarning, match="stored as Zarr 3"), pytest.raises(OSError, match="No space"):
        layer.add_mag(1, **FLAT)
    assert (dataset.path / "datasource-properties.json").read_text() == before
    assert os.listdir(layer.path) == []
    monkeypatch.undo()
    layer.add_mag(1, chunk_shape=8, shard_shape=64)
    assert format_in_file(dataset) == "wkw"


def test_what_wkw_can_store_stays_wkw(dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = dataset.add_layer("color", "color")
        layer.add_mag(1, chunk_shape=8, shard_shape=64)
    assert format_in_file(dataset) == "wkw"
    with pytest.raises(UnsupportedFormatError, match="WKW"):
        layer.add_mag(2, **FLAT)  # the first mag has decided


def test_a_layer_of_another_session_or_of_a_format_that_was_asked_for_is_left_alone(dataset):
    dataset.add_layer("color", "color")
    with pytest.raises(UnsupportedFormatError, match="WKW"):
        Dataset.open(dataset.path).get_layer("color").add_mag(1, **FLAT)
    dataset.delete_layer("color")
    with pytest.raises(UnsupportedFormatError, match="WKW"):
        dataset.add_layer("color", "color", data_format="wkw").add_mag(1, **FLAT)
    assert format_in_file(dataset) == "wkw"


@pytest.mark.parametrize(
    "how",
    [
        {"chunk_shape": 16, "shard_shape": (8, 16, 16)},
        {"shard_shape": 96},
        {"chunk_shape": 12, "shard_shape": 48},
        {"block_len": 12, "file_len": 4},
    ],
)
def test_what_webknossos_does_not_make_either_changes_nothing(dataset, how):
    layer = dataset.add_layer("color", "color")
    with pytest.raises(WkdaskError, match=r"WKW|multiple"):
        layer.add_mag(1, **how)
    assert (format_in_file(dataset), layer.mags.keys()) == ("wkw", set())


def test_a_box_of_further_axes_makes_the_layer_zarr(dataset):
    box = NDBoundingBox((0, 0, 0, 0, 0), (3, 1, 16, 16, 8), "tcxyz")
    layer = dataset.add_layer("color", "color", bounding_box=box)
    assert format_in_file(dataset) == "zarr3"
    mag = layer.add_mag(1, chunk_shape=8, shard_shape=16)
    data = np.ones((1, 16, 16, 8), np.uint8)
    mag.write(data, t=1)
    assert [int(mag.read(t=t).max()) for t in range(3)] == [0, 1, 0]
    with pytest.raises(UnsupportedFormatError, match="Zarr 3"):
        dataset.add_layer("other", "color", bounding_box=box, data_format="wkw")


def test_boxes_of_all_axes_of_a_plain_mag(dataset):
    box = NDBoundingBox((0, 0, 0), (16, 16, 8), "xyz")
    layer = dataset.add_layer("color", "color", bounding_box=box, num_channels=2)
    mag = layer.add_mag(1, chunk_shape=8, shard_shape=16)
    assert layer.bounding_box == BoundingBox((0, 0, 0), (16, 16, 8))
    data = np.arange(2 * 16 * 16 * 8, dtype=np.uint8).reshape(2, 16, 16, 8)
    mag.write(data, absolute_bounding_box=box)
    part = NDBoundingBox((0, 2, 4, 8), (2, 3, 2, 5), "czyx")
    expected = data[:, 8:13, 4:6, 2:5]
    assert np.array_equal(mag.read(absolute_bounding_box=part), expected)
    assert np.array_equal(mag.read_cxyz(absolute_bounding_box=layer.normalized_bounding_box), data)
    assert np.array_equal(mag.get_view(relative_bounding_box=part, read_only=True).read(), expected)
    assert np.array_equal(mag.to_dask(bounding_box=part).compute(), expected)
    with pytest.raises(ValueError, match="c from 1 to 2"):
        mag.read(absolute_bounding_box=part.with_bounds("c", 1, 1))
    with pytest.raises(ValueError, match="has t too"):
        mag.read(absolute_bounding_box=NDBoundingBox((0, 0, 0, 0), (1, 4, 4, 4), "txyz"))
