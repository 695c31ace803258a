"""The demo: what a new user sees first."""

import numpy as np
import pytest

import wkdask
from wkdask.demo.run import find_membranes, membranes_of, run_demo
from wkdask.errors import AlreadyExistsError


@pytest.mark.cluster
@pytest.mark.timeout(280)
def test_demo_makes_a_dataset_and_says_what_is_there(tmp_path):
    lines = []
    picture = run_demo(str(tmp_path / "demo"), echo=lines.append)

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

    with pytest.raises(AlreadyExistsError, match="--overwrite"):
        run_demo(str(tmp_path / "demo"), echo=lines.append)


def test_demo_leaves_foreign_folders_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(AlreadyExistsError, match="not a dataset"):
        run_demo(str(tmp_path), overwrite=True, echo=print)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_find_membranes_marks_dark_lines():
    block = np.full((1, 40, 40, 5), 180, np.uint8)
    block[:, 20] = 60
    found = find_membranes(block)
    assert found.dtype == np.uint8
    assert found[0, 20].min() > 100
    assert found[0, 5].max() == 0
