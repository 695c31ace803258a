"""The reader plugin: which paths it takes, what it returns, and its manifest as napari's engine validates it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import wkdask
from wkdask import Dataset
from wkdask.errors import InvalidValueError, WkdaskWarning
from wkdask.napari_reader import get_reader

MANIFEST = Path(wkdask.__file__).parent / "napari.yaml"


@pytest.fixture
def ds(tmp_path):
    """A dataset of an image, ids, and a layer that cannot be shown."""
    dataset = Dataset.create(tmp_path / "ds", (4, 4, 30))
    voxels = np.full((20, 20, 20), 7, "uint8")
    dataset.add_layer("color", "color").add_mag(1, shard_shape=32).write(voxels)
    dataset.add_layer("cells", "segmentation", dtype_per_channel="uint32").add_mag(1, shard_shape=32).write(
        voxels.astype("uint32")
    )
    return dataset


def test_which_paths_are_read(ds, tmp_path):
    path = str(ds.path)
    assert get_reader(path) is not None
    assert get_reader([path, path]) is not None
    assert get_reader(f"{path}/datasource-properties.json") is not None
    (tmp_path / "other.tif").write_bytes(b"")
    for other in (str(tmp_path), str(tmp_path / "other.tif"), f"{path}/color", [path, str(tmp_path)], []):
        assert get_reader(other) is None


def test_what_is_read(ds):
    for path in (str(ds.path), [str(ds.path)], f"{ds.path}/datasource-properties.json"):
        found = get_reader(path)(path)
        assert [(kind, said["name"], said["multiscale"]) for _, said, kind in found] == [
            ("image", "color", True),
            ("labels", "cells", True),
        ]
        assert all((arrays[0].compute() == 7).all() for arrays, _, _ in found)


def test_a_layer_that_cannot_be_shown_is_said(ds):
    ds.add_layer("empty", "color")
    with pytest.warns(WkdaskWarning, match="'empty' is not shown: .*no mags"):
        assert len(get_reader(str(ds.path))(str(ds.path))) == 2


@pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")
def test_nothing_to_show(tmp_path):
    Dataset.create(tmp_path / "ds", (4, 4, 30)).add_layer("empty", "color")
    with pytest.raises(InvalidValueError, match="no layer to look at"):
        get_reader(str(tmp_path / "ds"))(str(tmp_path / "ds"))


def test_napari_is_not_imported():
    script = "import sys, wkdask.napari_reader; assert 'napari' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": str(MANIFEST.parent.parent)}
    subprocess.run([sys.executable, "-c", script], check=True, env=env)


def test_the_manifest_names_what_there_is():
    content = yaml.safe_load(MANIFEST.read_text())
    (command,) = content["contributions"]["commands"]
    module, _, name = command["python_name"].partition(":")
    assert getattr(sys.modules[module], name) is get_reader
    assert [reader["command"] for reader in content["contributions"]["readers"]] == [command["id"]]
    pyproject = (MANIFEST.parent.parent / "pyproject.toml").read_text()
    assert '[project.entry-points."napari.manifest"]\nwkdask = "wkdask:napari.yaml"' in pyproject


def test_the_manifest_is_valid_for_napari(ds):
    npe2 = pytest.importorskip("npe2", reason="npe2, napari's plugin engine, is not installed")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    manager = npe2.PluginManager()
    manager.register(manifest)
    manager.activate("wkdask")
    folder, file = str(ds.path), f"{ds.path}/datasource-properties.json"
    for path in (folder, file):
        assert [reader.command for reader in manager.iter_compatible_readers([path])] == ["wkdask.get_reader"]
    assert [*manager.iter_compatible_readers([f"{folder}/other.tif"])] == []
    (reader,) = manager.iter_compatible_readers([folder])
    read = reader.exec(kwargs={"path": [folder], "stack": False}, _registry=manager.commands)
    assert [kind for _, _, kind in read([folder], stack=False)] == ["image", "labels"]
