"""`wkdask view` as a process: it prints where to look, serves, and ends cleanly at Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from http_client import get

import wkdask
from wkdask import Dataset


@pytest.fixture
def dataset(tmp_path):
    ds = Dataset.create(tmp_path / "ds", (8, 8, 30))
    ds.add_layer("color", "color").add_mag(1, chunk_shape=16, shard_shape=32).write(
        np.full((40, 40, 8), 7, np.uint8)
    )
    (tmp_path / "filters.py").write_text("def double(block):\n    return block * 2\n")
    return ds


@pytest.fixture
def started(tmp_path):
    """Return a function that starts the command, and returns the process."""
    running = []

    def start(*arguments):
        env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "wkdask", "view", *arguments],
                env=env, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_it_serves_until_ctrl_c(dataset, started):
    process = started("ds", "--no-browser", "--expr", "filters:double", "--json")
    facts = json.loads(process.stdout.readline())
    assert facts["layers"] == ["color", "double"]
    root = facts["url"].replace("/v/", "/data/")
    assert get(facts["url"])[0] == 200
    for name, value in (("color", 7), ("double", 14)):
        status, _, body = get(f"{root}precomputed/0/{name}/1/0-40_0-40_0-8")
        assert (status, set(body), len(body)) == (200, {value}, 40 * 40 * 8)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "ssh -N -L" in told
    assert "approximate" not in told  # there is one mag
    assert "Traceback" not in told
    with pytest.raises(OSError, match="refused"):
        get(facts["url"])


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("is_there", [True, False])
def test_workers_compute_the_expression(dataset, tmp_path, started, local_cluster, is_there):
    (tmp_path / "filters.py").write_text(
        "import os\n\n\ndef where(block):\n"
        "    return block.map_blocks(lambda b: b * 0 + os.getpid() % 251, dtype='u1')\n"
    )
    where = ["--scheduler", local_cluster.scheduler_address] if is_there else ["--workers", "1"]
    process = started("ds", "--no-browser", "--expr", "filters:where", "--json", *where)
    facts = json.loads(process.stdout.readline())
    root = facts["url"].replace("/v/", "/data/")
    status, _, body = get(f"{root}precomputed/0/where/1/0-40_0-40_0-8")
    assert (status, len({*body})) == (200, 1)
    assert body[0] != process.pid % 251
    if is_there:
        assert body[0] in {worker.pid % 251 for worker in local_cluster.workers.values()}
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "Traceback" not in told


def test_a_port_in_use(dataset, started):
    with dataset.view(new=True) as viewer:
        process = started("ds", "--no-browser", "--port", str(viewer.port))
        out, told = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert told == f"Error: port {viewer.port} of 127.0.0.1 cannot be used: Address already in use\n"
