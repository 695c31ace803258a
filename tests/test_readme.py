"""The README's code runs as it stands: its Python block after block, its commands as far as their options."""

import re
import shlex

import click
import numpy as np
import pytest
import tifffile
from repository import ROOT

from wkdask import Dataset
from wkdask.cli import main

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(rf"^wkdask ((?:{'|'.join(main.commands)}) .+?)(?:  +#.*)?$", README, re.MULTILINE)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A dataset named as in the README, in the working folder."""
    monkeypatch.chdir(tmp_path)
    dataset = Dataset.create("e2006", (11.24, 11.24, 28))
    mag = dataset.add_layer("color", "color").add_mag(1, shard_shape=256)
    voxels = np.random.default_rng(0).integers(1, 255, (540, 540, 64), np.uint8)
    mag.write(np.asfortranarray(voxels), progress=False)
    for folder in ("images", "raw"):
        (tmp_path / folder).mkdir()
        for z in range(3):
            tifffile.imwrite(tmp_path / folder / f"{z:03}.tif", voxels[:, :, z].T)
    return dataset


@pytest.mark.slow
def test_the_python_blocks_run(dataset):
    space = {"__name__": "readme"}
    for block in BLOCKS:
        # Nobody listens at the README's address: what its client is asked to do runs on local threads.
        code = block.replace('client = Client("tcp://head:8786")', "client = None")
        exec(compile(code, "README.md", "exec"), space)
    voxels = dataset.get_layer("color").get_mag(1).read()
    layers = Dataset("e2006").layers
    assert {"inverted", "smoothed", "darker"} <= {*layers}
    assert np.array_equal(layers["inverted"].get_mag(1).read(size=(540, 540, 64)), 255 - voxels)
    assert np.array_equal(layers["darker"].get_mag(1).read(), voxels // 2)
    assert np.array_equal(Dataset("dataset").get_layer("raw").get_mag(1).read()[0], voxels[0, :, :, :3])
    assert Dataset("filtered").get_layer("color").get_mag(1).read().shape == (1, 540, 540, 64)


def test_there_is_something_to_test():
    assert len(BLOCKS) >= 4
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_understood(line):
    name, *arguments = shlex.split(line)
    command = main.commands[name]
    with click.Context(main) as above:
        command.make_context(name, arguments, parent=above)  # a UsageError where it is not
