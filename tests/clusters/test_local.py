"""``cluster/local`` as it is written down: its script, its commands, and the settings of all of ``cluster/``."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import dask
import distributed
import numpy as np
import pytest
import yaml
from processes_here import code_blocks, end, listening, marked, with_free_ports
from repository import ROOT

import wkdask
from wkdask import Dataset

CLUSTER = ROOT / "cluster"
README = CLUSTER / "local/README.md"


@pytest.fixture
def volume(tmp_path, random_voxels):
    voxels = random_voxels((1, 128, 128, 64))
    ds = Dataset.create(tmp_path / "dataset", (8, 8, 30))
    ds.add_layer("color", "color").add_mag(1, shard_shape=32, chunk_shape=16).write(voxels)
    return tmp_path / "dataset"


@pytest.fixture
def expected(volume, tmp_path):
    """The pyramid that local threads make: {mag: voxels}."""
    path = shutil.copytree(volume, tmp_path / "expected")
    layer = Dataset(path).get_layer("color")
    layer.downsample(coarsest_mag=8)
    return {str(mag): view.read() for mag, view in layer.mags.items()}


@pytest.fixture
def env():
    """The environment of a shell with nothing of dask's in it, and a mark by which its processes are known."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    return clean | {
        "PYTHONPATH": str(Path(wkdask.__file__).parents[1]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WKDASK_TEST_MARK": uuid.uuid4().hex,
    }


def check(path, expected):
    layer = Dataset(path).get_layer("color")
    assert list(map(str, layer.mags)) == list(expected)
    for mag, view in layer.mags.items():
        assert np.array_equal(view.read(), expected[str(mag)])


@pytest.mark.slow
@pytest.mark.cluster
def test_the_script(volume, expected, env, tmp_path):
    (script,) = (text for language, text in code_blocks(README) if language == "python")
    (tmp_path / "script.py").write_text(with_free_ports(script))
    env["DASK_CONFIG"] = str(CLUSTER / "local/dask.yaml")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Dashboard http://127.0.0.1:")
    check(volume, expected)


@pytest.mark.slow
@pytest.mark.cluster
def test_the_commands(volume, expected, env, tmp_path):
    (commands,) = (text for language, text in code_blocks(README) if not language)
    scheduler, worker, job = map(shlex.split, with_free_ports(commands).splitlines())
    mark = f"WKDASK_TEST_MARK={env['WKDASK_TEST_MARK']}"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(tmp_path / "log", "wb"))
        for command in (scheduler, worker):
            started = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)
            stack.callback(end, started)
        limit = time.monotonic() + 60
        while (tmp_path / "log").read_text().count("Registered to") < 4:
            assert time.monotonic() < limit, (tmp_path / "log").read_text()
            time.sleep(0.2)
        assert listening(marked(mark)) == {"127.0.0.1"}
        done = subprocess.run(
            [*job, "--coarsest-mag", "8"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "on 4 workers, 4 threads" in done.stderr
        assert "dashboard http://127.0.0.1:" in done.stderr
    assert marked(mark) == []
    check(volume, expected)


def leaves(config, path=()):
    if not isinstance(config, dict) or not config:
        yield path
    else:
        for name, value in config.items():
            yield from leaves(value, (*path, name))


SETTINGS = [path for path in sorted(CLUSTER.glob("*/*.yaml")) if path.parent.name != "kubernetes"]


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_setting_is_one_that_dask_knows(path):
    """A misspelt setting changes nothing and says nothing."""
    known = [Path(module.__file__).with_name(f"{module.__name__}.yaml") for module in (dask, distributed)]
    if path.name == "jobqueue.yaml":
        known.append(Path(pytest.importorskip("dask_jobqueue").__file__).with_name("jobqueue.yaml"))
    defaults = dask.config.merge(*(yaml.safe_load(file.read_text()) for file in known))
    for names in leaves(yaml.safe_load(path.read_text())):
        place = defaults
        for name in names:
            if place in ({}, None):  # as of `scheduler-options`: what is in there is not listed
                break
            assert name in place, ".".join(names)
            place = place[name]
