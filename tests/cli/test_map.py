"""``wkdask map`` as a batch script calls it: in a folder with the function's module."""

import os
import shutil
import subprocess
import sys

import click.testing
import numpy as np
import pytest
import scipy.ndimage as ndi

from wkdask import BoundingBox, Dataset, testing
from wkdask.cli import main

BOX = BoundingBox((100, 37, 5), (150, 70, 60))
MODULE = """
import numpy as np

GAIN = 2

def double(block):
    return (GAIN * block.astype("uint16"))

def smooth(block):
    import scipy.ndimage as ndi
    return ndi.uniform_filter(block.astype("float32"), (1, 3, 3, 3), mode="nearest")

def invert(block):
    return 255 - block

def fail(block):
    raise RuntimeError("not so")

def as_float(block):
    return block.astype("float32")
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs ``wkdask map`` in a folder that holds filters.py, and returns what it says."""
    (tmp_path / "filters.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "filters", raising=False)

    def run(*arguments, code=0):
        done = click.testing.CliRunner().invoke(main, ["map", *map(str, arguments)])
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    yield run
    sys.modules.pop("filters", None)


@pytest.fixture(scope="module")
def written_source(tmp_path_factory):
    """Return (the folder of a dataset, its voxels in `BOX`), for tests to copy."""
    folder, voxels = tmp_path_factory.mktemp("source") / "dataset", testing.random_voxels((1, *BOX.size))
    testing.small_mag(folder).write(voxels, bounding_box=BOX)
    return folder, voxels


@pytest.fixture
def source(written_source, tmp_path):
    """Return (mag, its voxels, the path of its dataset)."""
    folder, voxels = written_source
    shutil.copytree(folder, tmp_path / "source")
    mag = Dataset(tmp_path / "source").get_layer("layer").get_mag(1)
    return mag, voxels.copy(order="F"), mag.place.dataset_path


def written(path, name="new", mag=1):
    return Dataset(path).get_layer(name).get_mag(mag)


def test_a_function_of_a_module(source, run):
    _, voxels, path = source
    out = run("filters:smooth", path, path, "--layer", "layer", "--target", "new", "--dtype", "float32",
              "--halo", "1", "--compression", "none", "--shard-shape", "64")  # fmt: skip
    assert "Bounding box : (100, 37, 5) + (150, 70, 60)" in out
    target = written(path)
    assert target.spec.shard_shape == (64, 64, 64)
    expected = ndi.uniform_filter(voxels.astype("float32"), (1, 3, 3, 3), mode="nearest")
    assert np.array_equal(target.read(), expected)
    arguments = ("filters:invert", path, path, "--layer", "layer", "--target", "new")
    assert "--overwrite" in run(*arguments, code=1)


def test_parts_one_after_the_other_are_the_whole(source, run):
    _, voxels, path = source
    options = ("filters:double", path, path, "--layer", "layer", "--target", "new", "--dtype", "uint16")
    for number in (2, 1, 3):
        run(*options, "--part", f"{number}/3")
    assert "--resume" in run(*options, "--part", "2/3", code=1)  # it is there
    assert "nothing was done" in run(*options, "--part", "2/3", "--resume")
    assert np.array_equal(written(path).read(), 2 * voxels.astype("uint16"))


@pytest.mark.slow
def test_parts_side_by_side_are_the_whole(source, run):
    """As an array of batch jobs has them: one process each, all at once."""
    _, voxels, path = source
    command = [sys.executable, "-m", "wkdask", "map", "filters:double", path, path, "--layer", "layer"]
    command += ["--target", "new", "--dtype", "uint16"]
    processes = [subprocess.Popen([*command, "--part", f"{number}/3"]) for number in (1, 2, 3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert np.array_equal(written(path).read(), 2 * voxels.astype("uint16"))
    assert written(path).layer.bounding_box == BOX


def test_in_place_and_a_box(source, run):
    mag, voxels, path = source
    run("filters:invert", path, path, "--layer", "layer", "--target", "layer", "--overwrite",
        "--box", "100,37,5,10,20,30", "--task-memory", "1MiB", "--retries", "1")  # fmt: skip
    expected = voxels.copy()
    expected[:, :10, :20, :30] = 255 - expected[:, :10, :20, :30]
    assert np.array_equal(mag.read(), expected)


@pytest.mark.parametrize(
    ("code", "function", "more", "message"),
    [
        (2, "filters", (), "MODULE:FUNCTION"),
        (2, "filters:invert", ("--part", "4/3"), "K/N"),
        (2, "filters:invert", ("--resource", "GPU"), "NAME=N"),
        (2, "filters:invert", ("--task-memory", "much"), "4GiB"),
        (2, "filters:invert", ("--report", "run.html"), "--scheduler"),
        (2, "filters:invert", ("--scheduler", "tcp://nowhere:none"), "tcp://head:8786"),
        (2, "filters:invert", ("--boundary", "mirror"), "reflect"),
        (2, "filters:invert", ("--box", "0,0,0,1,1"), "corner and a size"),
        (2, "filters:invert", ("--box", "0,0,0,0,1,1"), "no voxel"),
        (2, "filters:invert", ("--halo", "1,2"), "such as 4 or 4,4,1"),
        (2, "filters:invert", ("--halo", "-1"), "from 0 on"),
        (2, "filters:invert", ("--retries", "-1"), "-1"),
        (2, "filters:invert", ("--shard-shape", "100"), "--shard-shape"),
        (2, "filters:invert", ("--dtype", "unit8"), "uint8"),
        (1, "filters:invert", ("--boundary", "300"), "no value of uint8"),
        (1, "filters:invert", ("--part", "9/9"), "parts only"),
        (1, "nothing:there", (), "cannot be imported"),
        (1, "filters:there", (), "it has double"),
        (1, "filters:fail", (), "not so"),
        (1, "filters:as_float", (), "float32"),
        (1, "filters:invert", ("--halo", "1", "--dtype", "int8"), "uint8"),
    ],
)
def test_what_it_says_no_to_leaves_nothing(source, run, code, function, more, message):
    _, voxels, path = source
    before = sorted(os.listdir(path))
    assert message in run(function, path, path, "--layer", "layer", "--target", "new", *more, code=code)
    assert sorted({*os.listdir(path)} - {".wkdask"}) == sorted({*before} - {".wkdask"})
    assert [*Dataset(path).layers] == ["layer"]
    assert np.array_equal(Dataset(path).get_layer("layer").get_mag(1).read(), voxels)


def test_resume_continues_the_same_job_only(source, run):
    _, voxels, path = source
    options = (path, path, "--layer", "layer", "--target", "new")
    run("filters:invert", *options)
    assert "finished by an earlier run; nothing was done" in run("filters:invert", *options, "--resume")
    for other in (("filters:double",), ("filters:invert",)):
        more = () if other == ("filters:double",) else ("--halo", "1")
        for part in ((), ("--part", "1/2")):
            assert "--overwrite" in run(*other, *options, *more, *part, "--resume", code=1)
    assert "its dtype is uint8" in run("filters:double", *options, "--resume", "--dtype", "uint16", code=1)
    assert np.array_equal(written(path).read(), 255 - voxels)


def test_what_landed_stays_and_is_resumed(source, run, tmp_path, monkeypatch):
    """Cubes that were written before the function failed are neither lost nor mixed with another function's."""
    _, voxels, path = source
    # A block fails that is not the first: with one thread the others have landed by then.
    monkeypatch.setenv("DASK_NUM_WORKERS", "1")
    (tmp_path / "picky.py").write_text(
        "import os\n\ndef pick(block, box):\n"
        "    if box.topleft.x > 200 and not os.path.exists('fine'):\n        raise RuntimeError('not so')\n"
        "    return 255 - block\n"
    )
    options = (path, path, "--layer", "layer", "--target", "new", "--halo", "0")
    text = run("picky:pick", *options, code=1)
    assert "--resume" in text
    assert "another one" in run("filters:invert", *options, "--resume", code=1)
    (tmp_path / "fine").touch()
    assert "by earlier runs" in run("picky:pick", *options, "--resume")
    assert np.array_equal(written(path).read(), 255 - voxels)
    sys.modules.pop("picky", None)


@pytest.mark.cluster
def test_on_a_scheduler_whose_workers_lack_the_module(source, run, client, tmp_path):
    _, voxels, path = source
    out = run("filters:double", path, path, "--layer", "layer", "--target", "new", "--dtype", "uint16",
              "--scheduler", client.scheduler.address)  # fmt: skip
    assert client.scheduler.address in out
    assert np.array_equal(written(path).read(), 2 * voxels.astype("uint16"))
    pytest.importorskip("bokeh")
    run("filters:invert", path, path, "--layer", "layer", "--target", "other",
        "--scheduler", client.scheduler.address, "--report", "run.html")  # fmt: skip
    report = (tmp_path / "run.html").read_text()
    assert "map_unit" in report
    assert os.path.getsize(tmp_path / "run.html") > 10_000
