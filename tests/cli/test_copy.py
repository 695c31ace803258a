"""``wkdask copy`` and ``wkdask equal``: whole runs, exit codes, errors in one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wkdask
from wkdask import BoundingBox, Dataset, fsio


@pytest.fixture
def dataset(tmp_path, random_voxels):
    ds = Dataset.create(tmp_path / "ds", (4, 4, 35))
    for name in ("color", "more"):
        mag = ds.add_layer(name, "color").add_mag(1, chunk_shape=16, shard_shape=32)
        mag.write(random_voxels((1, 70, 50, 40)), offset=(10, 20, 30))
    return ds


def test_there_and_back(invoke, dataset, tmp_path):
    text = invoke(
        "copy", dataset.path, tmp_path / "zarr", "--data-format", "zarr3", "--shard-shape", "48,32,16",
        "--chunk-shape", 16, "--compression", "zstd",
    )  # fmt: skip
    assert re.findall(r"copying dataset 'ds': 48 cubes, .* of voxels, on", text)
    assert len(re.findall("copying", text)) == 2, "one start and one end for all layers"
    spec = Dataset(tmp_path / "zarr").get_layer("more").get_mag(1).spec
    assert (spec.data_format, spec.shard_shape, spec.compression) == ("zarr3", (48, 32, 16), "zstd")
    invoke("copy", tmp_path / "zarr", tmp_path / "wkw", "--data-format", "wkw", "--compression", "none")
    assert invoke("equal", dataset.path, tmp_path / "wkw").splitlines()[-1].endswith("are equal")


def test_a_copy_that_is_verified_says_so(invoke, dataset, tmp_path):
    text = invoke("copy", dataset.path, tmp_path / "copy", "--verify")
    assert re.search(r"Verified: .*iB of voxels were read back from the disk", text)
    facts = json.loads(invoke("copy", dataset.path, tmp_path / "again", "--verify", "--json", "--quiet"))
    nbytes = sum(layer.get_mag(1).read().nbytes for layer in dataset.layers.values())
    assert [(each["verified"], each["reads_repeated"]) for each in facts["reports"]] == [(nbytes, 0)]
    facts = json.loads(invoke("copy", dataset.path, tmp_path / "other", "--json", "--quiet"))
    assert [each["verified"] for each in facts["reports"]] == [0]


def test_a_copy_that_differs_is_an_error_of_the_command(invoke, dataset, tmp_path, monkeypatch):
    drop = fsio.drop_file

    def spoil(path):
        drop(path)
        with open(path, "r+b") as file:
            file.seek(-1000, os.SEEK_END)
            file.write(bytes(1000))

    monkeypatch.setattr("wkdask.operations.verify.drop_file", spoil)
    text = invoke("copy", dataset.path, tmp_path / "copy", "--verify", "--progress", "none", code=1)
    assert re.search(r"differs from .*/ds/color/1 in the box", text)


def test_a_box_of_one_layer(invoke, dataset, tmp_path):
    before = dataset.get_layer("color").get_mag(1).read((20, 20, 30), (30, 50, 40))
    arguments = ["copy", dataset.path, tmp_path / "part", "--layer", "color", "--bbox", "20,0,0,30,900,900"]
    assert "Memory" in invoke(*arguments, "--plan")
    assert not (tmp_path / "part").exists()
    invoke(*arguments)
    part = Dataset(tmp_path / "part")
    assert list(part.layers) == ["color"]
    assert part.get_layer("color").bounding_box == BoundingBox((20, 20, 30), (30, 50, 40))
    assert np.array_equal(part.get_layer("color").get_mag(1).read(), before)


def test_a_finished_copy_says_so(invoke, dataset, tmp_path):
    arguments = ["copy", dataset.path, tmp_path / "copy", "--layer", "color"]
    assert "nothing was done" not in invoke(*arguments)
    assert invoke(*arguments, "--resume").endswith("finished by an earlier run; nothing was done\n")
    assert "other arguments" in invoke(*arguments, "--layer", "more", "--resume", code=1)


def test_exit_codes_of_equal(invoke, dataset, tmp_path):
    dataset.copy_dataset(tmp_path / "other", progress=False)
    other = Dataset(tmp_path / "other").get_layer("more").get_mag(1)
    other.write(np.zeros((1, 1, 1), "uint8"), offset=(12, 20, 30))
    text = invoke("equal", dataset.path, tmp_path / "other", code=1)
    assert "layer 'more' mag 1, voxel (c, x, y, z) = (0, 12, 20, 30): " in text
    assert text.splitlines()[-1].endswith("against 0")
    invoke("equal", dataset.path, tmp_path / "other", "--layer", "color")
    invoke("equal", dataset.path, tmp_path / "nowhere", code=2)
    invoke("equal", dataset.path, tmp_path / "other", "--layer", "nobody", code=2)
    invoke("equal", dataset.path, code=2)
    (box, *_) = other.cubes_on_disk()
    path = Path(other.place.store.cube_path(box.topleft // box.size))
    path.write_bytes(path.read_bytes()[:40])
    assert str(path) in invoke("equal", dataset.path, tmp_path / "other", code=2)


def test_mistakes(invoke, dataset, tmp_path):
    target = tmp_path / "copy"
    for wrong in (
        ["--data-format", "n5"],
        ["--bbox", "1,2,3"],
        ["--shard-shape", "1,2"],
        ["--compression", "zip"],
    ):
        assert invoke("copy", dataset.path, target, *wrong, code=2).startswith("Error: ")
    for wrong in (["--compression", "zstd"], ["--shard-shape", "48"]):
        assert "layer 'color' mag 1" in invoke("copy", dataset.path, target, *wrong, code=2)
    for wrong in (
        ["--layer", "nobody"],
        ["--bbox", "900,0,0,1,1,1"],
    ):
        assert invoke("copy", dataset.path, target, *wrong, code=1).startswith("Error: ")
    assert not target.exists()
    invoke("copy", dataset.path, target)
    assert "not an empty folder" in invoke("copy", dataset.path, target, code=1)


def test_a_copy_that_failed_says_how_to_go_on(invoke, dataset, tmp_path):
    mag = dataset.get_layer("more").get_mag(1)
    (box, *_) = mag.cubes_on_disk()
    path = Path(mag.place.store.cube_path(box.topleft // box.size))
    content = path.read_bytes()
    path.write_bytes(content[:40])
    arguments = ["copy", dataset.path, tmp_path / "copy", "--compression", "lz4"]
    assert "--resume" in invoke(*arguments, code=1).splitlines()[-1]
    path.write_bytes(content)
    assert "done by earlier runs" in invoke(*arguments, "--resume")
    invoke("equal", dataset.path, tmp_path / "copy")


@pytest.mark.slow
def test_as_a_process_of_its_own(dataset, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}

    def real(*arguments):
        command = [sys.executable, "-m", "wkdask", *map(str, arguments)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)

    done = real("copy", dataset.path, tmp_path / "copy", "--data-format", "zarr3")
    assert (done.returncode, "copying" in done.stderr) == (0, True), done.stderr
    done = real("equal", dataset.path, tmp_path / "copy")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
