"""On several hosts: a link that is down for a while, a host that is lost for good and comes back too late.

The hosts are network namespaces; the scheduler and the driver run on the first, ``cluster/bare/workers.sh`` starts
the workers on the others, and the dataset is in a folder that all see.
"""

import itertools
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hosts_here import HEAD, Hosts, why_not
from repository import ROOT

import wkdask
from wkdask import Dataset

BARE = ROOT / "cluster/bare"
DASK = shutil.which("dask", path=Path(sys.executable).parent)
SCHEDULER = f"tcp://{HEAD}:8786"

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def _namespaces():
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture
def voxels(tmp_path, random_voxels):
    """Make a dataset of 64 cubes that is to be inverted into another layer, full of sevens; return its voxels."""
    voxels = random_voxels((1, 256, 256, 256))
    ds = Dataset.create(tmp_path / "ds", (8, 8, 30))
    for name, data in (("color", voxels), ("out", np.full_like(voxels, 7))):
        ds.add_layer(name, "color").add_mag(1, shard_shape=64, chunk_shape=32).write(data)
    return voxels


@pytest.fixture
def env():
    """The settings of ``cluster/bare``, but a silent connection is dead after 30 s: the shortest with which a
    break of 20 s is survived, because TCP tries again after 13 s and then after 26 s only."""
    return {
        **os.environ,
        "PYTHONPATH": str(Path(wkdask.__file__).parents[1]),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "DASK_CONFIG": str(BARE / "dask.yaml"),
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "30s",
        "DASK_DISTRIBUTED__WORKER__PRELOAD": str(ROOT / "tests" / "helpers" / "slow_publication.py"),
    }


DRIVER = """
import json, os, sys, time
from distributed import Client
from wkdask import Dataset

def inverted(block):
    time.sleep(float(os.environ.get("WKDASK_TEST_BLOCK_SECONDS", 0)))
    return 255 - block

def tell(event):
    if hasattr(event, "report") and hasattr(event.report, "worker"):
        print(json.dumps({"worker": event.report.worker, "unit": str(event.report.unit)}), flush=True)

if __name__ == "__main__":
    with Client(sys.argv[1], timeout=200) as client:
        client.wait_for_workers(int(sys.argv[2]), timeout=200)
        ds = Dataset("ds")
        x = ds.get_layer("color").get_mag(1).to_dask(chunks="cube")
        y = x.map_blocks(inverted, dtype="uint8")
        # Each cube is published as soon as it is built: the tests look at the cubes while the job runs.
        report = ds.get_layer("out").get_mag(1).write(y, progress=tell, in_place=False)
        print(json.dumps({"cubes": report.cubes, "seconds": report.seconds}), flush=True)
"""


class Job:
    """Scheduler, workers and a driver that inverts the dataset, each on its host."""

    def __init__(self, hosts, folder, env, voxels, lost=()):
        self.hosts, self.folder, self.result = hosts, folder, 255 - voxels
        self.mag = Dataset(folder / "ds").get_layer("out").get_mag(1)
        (folder / "driver.py").write_text(DRIVER)
        hosts.start(0, folder / "scheduler.log", DASK, "scheduler", "--host", HEAD, "--port", "8786", env=env)
        worker = {
            **env,
            "REMOTE": "ip netns exec",
            "WORKER": "--interface eth0 --nthreads 1 --memory-limit 1GiB",
        }
        for number, name in enumerate(hosts.names[1:], start=1):
            more = dict(lost) if number == len(hosts.names) - 1 else {}
            hosts.start_here(
                self.worker_log(number), "bash", str(BARE / "workers.sh"), SCHEDULER, name,
                env={**worker, **more}, cwd=folder,
            )  # fmt: skip
        self.driver = hosts.start(
            0, folder / "driver.log", sys.executable, "driver.py", SCHEDULER, str(len(hosts.names) - 1),
            env=env, cwd=folder,
        )  # fmt: skip

    def worker_log(self, number):
        return self.folder / f"worker{number}.log"

    def lines(self):
        """Return what the driver said of its units and of its end."""
        text = (self.folder / "driver.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def files(self):
        """Return {path: (inode, time)} of all files of the mag."""
        paths = [
            path for path in Path(self.mag.path).rglob("*") if path.is_file() and "locks" not in path.parts
        ]
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    def done(self):
        """Return how many cubes hold the result; each other one holds what it held before."""
        done = 0
        for x, y, z in itertools.product(range(0, 256, 64), repeat=3):
            cube = self.mag.read((x, y, z), (64, 64, 64))
            is_new = np.array_equal(cube, self.result[:, x : x + 64, y : y + 64, z : z + 64])
            assert is_new or (cube == 7).all(), f"the cube at {(x, y, z)} is torn"
            done += is_new
        return done

    def until(self, condition, timeout, what):
        """Wait, and look at every cube meanwhile."""
        end = time.monotonic() + timeout
        while not condition():
            log = self.folder / "driver.log"
            assert self.driver.poll() is None, f"the driver ended before {what}:\n{log.read_text()}"
            assert time.monotonic() < end, f"no {what} after {timeout} s:\n{log.read_text()}"
            self.done()
            time.sleep(0.3)

    def ends(self, timeout):
        """Wait for a good end: all cubes hold the result, the private folder is gone."""
        self.until(lambda: self.lines() and "cubes" in self.lines()[-1], timeout, "end of the job")
        assert self.driver.wait(30) == 0
        assert self.lines()[-1]["cubes"] == 64
        assert self.done() == 64
        assert {*os.listdir(os.path.join(self.mag.path, ".wkdask"))} <= {"locks", "finished"}


def test_a_link_that_is_down_for_twenty_seconds(tmp_path, env, voxels):
    """Shorter than the timeout: the worker goes on with its tasks, and nothing is done twice."""
    with Hosts(3) as hosts:
        job = Job(hosts, tmp_path, {**env, "WKDASK_TEST_BLOCK_SECONDS": "1"}, voxels)
        job.until(lambda: job.done() > 4, 300, "cubes")
        hosts.cut(1)
        down = time.monotonic()
        while time.monotonic() < down + 20:
            assert job.driver.poll() is None, "the job ended before the link came back"
            job.done()
            time.sleep(0.5)
        hosts.mend(1)
        job.ends(300)
    units = [line["unit"] for line in job.lines() if "unit" in line]
    assert len(units) == len({*units})
    assert len({line["worker"] for line in job.lines() if "unit" in line}) == 2, "a worker was given up"


@pytest.mark.parametrize("at", ["built", "locked"])
def test_a_host_that_is_lost_and_comes_back_too_late(tmp_path, env, voxels, at):
    """Its tasks begin elsewhere when the timeout is over; what it does after the job's end changes nothing.

    It is lost with built cubes in hand, or with the lock of one of them.
    """
    hold = tmp_path / "hold"
    with Hosts(4) as hosts:
        job = Job(
            hosts, tmp_path, env, voxels, lost={"WKDASK_TEST_HOLD": str(hold), "WKDASK_TEST_HOLD_AT": at}
        )
        lost = 3
        job.until(
            lambda: (tmp_path / "hold.begun").exists(), 300, "built cubes on the host that is to be lost"
        )
        hosts.signal(lost, signal.SIGSTOP)  # as a host that hangs: it does not even see that its link is gone
        hosts.cut(lost)
        job.ends(400)
        before = job.files()
        hold.touch()
        hosts.signal(lost, signal.SIGCONT)
        end = time.monotonic() + 200
        while hosts.pids(hosts.names[lost]):  # until the worker there gives up too
            assert time.monotonic() < end, job.worker_log(lost).read_text()[-3000:]
            assert job.files() == before
            time.sleep(0.1)
        assert (tmp_path / "hold.over").exists(), "the lost task did not go on"
        assert job.files() == before
        assert job.done() == 64
