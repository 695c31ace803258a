"""The demo: what a new user sees first."""

import os

import numpy as np
import pytest

import wkdask
from wkdask.demo.run import MADE, find_membranes, membranes_of, run_demo
from wkdask.errors import AlreadyExistsError


@pytest.mark.slow  # a minute, of which most is the start of two workers and compiling
@pytest.mark.cluster
@pytest.mark.timeout(280)
def test_demo_makes_a_dataset_and_says_what_is_there(tmp_path, capfd):
    lines = []
    picture = run_demo(str(tmp_path / "demo"), echo=lines.append, progress=False)
    assert capfd.readouterr() == ("", "")  # what is said goes to echo

    dataset = wkdask.Dataset(tmp_path / "demo")
    assert set(dataset.layers) == {"color", "cells", "membranes"}
    for layer in dataset.layers.values():
        assert layer.bounding_box == wkdask.BoundingBox((100, 37, 5), (512, 512, 96))
        assert [str(mag) for mag in layer.mags] == ["1", "2-2-1", "4-4-1", "8-8-2"]
        assert len(list(layer.get_mag(1).cubes_on_disk())) == 25
    color, membranes = (dataset.get_layer(name).get_mag(1) for name in ("color", "membranes"))
    assert (membranes.read() == membranes_of(color.to_dask()).compute(scheduler="threads")).all()
    assert (
        dataset.get_segmentation_layer("cells").largest_segment_id
        == dataset.get_layer("cells").get_mag(1).read().max()
    )

    from PIL import Image

    with Image.open(picture) as image:
        assert np.asarray(image.convert("L")).std() > 20
    assert any("membranes" in line for line in lines)
    assert {*os.listdir(dataset.path)} == MADE


class Grown(Exception):
    """The demo has come to its work."""


@pytest.fixture
def begin(monkeypatch):
    """Return a function that starts a demo, which ends where its work begins."""

    def grow():
        raise Grown

    monkeypatch.setattr("wkdask.demo.run.grow_tissue", grow)
    return lambda path, overwrite=False: run_demo(str(path), overwrite=overwrite, echo=lambda _: None)


def test_overwrite_replaces_what_a_demo_made_and_nothing_else(tmp_path, begin):
    demo = tmp_path / "demo"
    for overwrite in (False, True):
        with pytest.raises(Grown):
            begin(demo, overwrite)
    with pytest.raises(AlreadyExistsError, match="--overwrite"):
        begin(demo)
    (demo / "notes.txt").write_text("precious")
    with pytest.raises(AlreadyExistsError, match=r"no demo made \(notes.txt\)"):
        begin(demo, overwrite=True)
    assert (demo / "notes.txt").read_text() == "precious"


def test_a_folder_a_file_or_a_dataset_that_no_demo_made_stays(tmp_path, begin):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    wkdask.Dataset.create(tmp_path / "dataset", (4, 4, 35)).add_layer("color", "color")
    (tmp_path / "link").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    for path in ("folder", "file", "dataset", "link"):
        with pytest.raises(AlreadyExistsError, match="no demo made it"):
            begin(tmp_path / path, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_where_no_dataset_can_be_nothing_is_computed(tmp_path, begin):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        begin(tmp_path / "file" / "demo")


def test_find_membranes_marks_dark_lines():
    block = np.full((1, 40, 40, 5), 180, np.uint8)
    block[:, 20] = 60
    found = find_membranes(block)
    assert found.dtype == np.uint8
    assert found[0, 20].min() > 100
    assert found[0, 5].max() == 0
