"""Paths of handles are paths, and may be used like texts; handles of one thing are equal."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from small_datasets import COLOR, filled, ramp

from wkdask import Dataset


@pytest.fixture
def ds(new):
    ds = new()
    filled(ds, ramp(1, 20, 20, 20))
    return ds


def test_paths_are_paths(ds, tmp_path):
    layer = ds.get_layer("layer")
    mag = layer.get_mag(1)
    assert ds.path == tmp_path / "ds"
    assert layer.path == tmp_path / "ds" / "layer"
    assert mag.path == tmp_path / "ds" / "layer" / "1"
    for path in (ds.path, layer.path, mag.path):
        assert isinstance(path, Path)
        assert path.is_dir()
    assert (ds.path / "datasource-properties.json").is_file()
    assert mag.path.parent.parent == ds.path
    assert mag.path.name == "1"
    assert hash(ds.path) == hash(tmp_path / "ds")
    assert {tmp_path / "ds": 1}[ds.path] == 1


def test_paths_may_be_used_like_texts(ds, tmp_path):
    path, text = ds.path, str(tmp_path / "ds")
    assert path == text
    assert text == path
    assert path != text + "x"
    assert path + "/layer" == text + "/layer"
    assert "at " + path == f"at {text}" == f"at {path}"
    assert "ds" in path
    assert "elsewhere" not in path
    assert path.startswith(os.sep)
    assert path.endswith("ds")
    assert path.split("/")[-1] == "ds"
    assert os.path.join(path, "x") == text + "/x"
    assert pickle.loads(pickle.dumps(path)) == path
    with pytest.raises(AttributeError, match="'nonsense'"):
        path.nonsense


def test_handles_of_one_thing_are_equal(ds):
    again = Dataset(ds.path)
    layer, same = ds.get_layer("layer"), again.get_layer("layer")
    assert ds == again
    assert layer == same == layer.dataset.get_layer("layer")
    assert layer.get_mag(1) == layer.get_mag("1") == same.get_mag((1, 1, 1))
    assert layer.get_mag(1).get_view() == same.get_mag(1).get_view()
    assert len({ds, again}) == len({layer, same}) == len({layer.get_mag(1), same.get_mag(1)}) == 1
    copy = pickle.loads(pickle.dumps(layer.get_mag(1)))
    assert copy == layer.get_mag(1)
    assert hash(copy) == hash(layer.get_mag(1))


def test_handles_of_other_things_are_not(ds, new):
    layer = ds.get_layer("layer")
    other = ds.add_layer("other", COLOR)
    assert ds != new("second")
    assert layer != other
    assert layer != ds
    assert layer.get_mag(1) != layer.add_mag(2)
    assert layer.get_mag(1) != other.add_mag(1)
    mag = layer.get_mag(1)
    view = mag.get_view()
    assert mag != view
    assert view != mag.get_view(size=(5, 5, 5))
    assert view != mag.get_view(read_only=True)
    assert ds != 5
    assert layer != "layer"
    assert mag != 1


def test_every_equal_handle_follows_a_rename(ds):
    layers = [ds.get_layer("layer"), ds.get_layer("layer")]
    mags = [layer.get_mag(1) for layer in layers for _ in range(2)]
    known = {*mags, *layers}
    layers[0].name = "renamed"
    assert [layer.name for layer in layers] == ["renamed", "renamed"]
    assert all(mag.path == ds.path / "renamed" / "1" for mag in mags)
    assert all(np.array_equal(mag.read(), ramp(1, 20, 20, 20)) for mag in mags)
    assert all(handle in known for handle in (*mags, *layers))


@pytest.mark.parametrize(
    ("given", "word"), [("float", "float32"), ("double", "float64"), ("uint24", "uint24"), ("int64", "int64")]
)
def test_the_type_of_a_layer_has_its_bits(new, given, word):
    channels = 3 if given == "uint24" else 1
    layer = new().add_layer("layer", COLOR, dtype_per_layer=given, num_channels=channels)
    assert layer.dtype_per_layer == word
    assert Dataset(layer.dataset.path).get_layer("layer").dtype_per_layer == word


def test_every_equal_handle_knows_how_the_mag_is_stored(ds):
    mags = [ds.get_layer("layer").get_mag(1) for _ in range(2)]
    mags[0].compress()
    assert [mag.info.compression for mag in mags] == ["lz4hc", "lz4hc"]
    mags[1].rechunk(16, 64, compress=False)
    assert [mag.spec for mag in mags] == [Dataset(ds.path).get_layer("layer").get_mag(1).spec] * 2
    assert all(np.array_equal(mag.read(), ramp(1, 20, 20, 20)) for mag in mags)
