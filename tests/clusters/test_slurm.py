"""On a real Slurm, started here on the loopback: jobs of workers, a job of everything, jobs that are cancelled.

The files of ``cluster/slurm`` are what runs; the data are the real stack where it is beside the repository.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from processes_here import listening
from repository import ROOT
from slurm_on_loopback import Slurm, missing_programs

import wkdask
from wkdask import Dataset

STACK = ROOT.parent / "shared/data/vnc/raw"
VOXEL_SIZE = (4.6, 4.6, 45)

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A Slurm of one node and eight processors."""
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed (apt-get install slurm-wlm munge): no {', '.join(missing)}")
    pytest.importorskip("dask_jobqueue", reason="pip install wkdask[slurm]")
    slurm = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """A dataset in cubes of 64³: sections of insect brain, or synthetic tissue where those are not there."""
    path = tmp_path_factory.mktemp("stack") / "ds"
    ds = Dataset.create(path, VOXEL_SIZE)
    mag = ds.add_layer("color", "color").add_mag(1, shard_shape=64, chunk_shape=32)
    if STACK.is_dir():
        import tifffile

        sections = sorted(STACK.glob("*.tif"))
        mag.write(np.stack([tifffile.imread(path).T for path in sections], axis=-1))
    else:
        from wkdask.demo.tissue import make_tissue

        mag.write(make_tissue((1024, 1024, 20), voxel_size=VOXEL_SIZE)[0])
    return path


@pytest.fixture(scope="session")
def expected(stack, tmp_path_factory):
    """The layers that jobs are to write, computed by local threads: {layer: {mag: voxels}}."""
    path = shutil.copytree(stack, tmp_path_factory.mktemp("expected") / "ds")
    ds = Dataset(path)
    color = ds.get_layer("color")
    inverted = ds.add_layer("inverted", "color")
    inverted.add_mag(1, shard_shape=64).write(255 - color.get_mag(1).read())
    color.downsample()
    inverted.downsample()
    return {name: voxels_of(path, name) for name in ds.layers}


@pytest.fixture
def place(tmp_path, stack, slurm):
    """A folder with the dataset and ``cluster/``, as a user has it."""
    shutil.copytree(stack, tmp_path / "ds")
    shutil.copytree(ROOT / "cluster", tmp_path / "cluster")
    return tmp_path


@pytest.fixture
def env():
    """What a user's shell says: the environment of this Python, the network of this Slurm, small workers."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "PYTHONPATH": str(Path(wkdask.__file__).parents[1]),
        "DASK_CONFIG": "cluster/slurm/jobqueue.yaml",
        "DASK_JOBQUEUE__SLURM__INTERFACE": "lo",
        "DASK_JOBQUEUE__SLURM__CORES": "1",
        "DASK_JOBQUEUE__SLURM__MEMORY": "1GiB",
        "DASK_WKDASK__PROGRESS_INTERVAL": "1",
        "WKDASK_INTERFACE": "lo",
    }


@pytest.fixture
def slow(env):
    """The same, but a cube takes its time to appear."""
    preload = ROOT / "tests" / "helpers" / "slow_publication.py"
    return {**env, "DASK_DISTRIBUTED__WORKER__PRELOAD": str(preload), "WKDASK_TEST_SECONDS": "0.2"}


RESOURCES = ("--ntasks=4", "--cpus-per-task=1", "--mem-per-cpu=1G")
BATCH = (*RESOURCES, "cluster/slurm/batch.sbatch", "cluster/slurm/in_job.py")


def voxels_of(path, name):
    return {str(mag): view.read() for mag, view in Dataset(path).get_layer(name).mags.items()}


def check(path, expected, name="inverted"):
    """Compare every voxel of every mag of a layer; nothing of a job is left."""
    found = voxels_of(path, name)
    assert list(found) == list(expected[name])
    for mag, voxels in expected[name].items():
        assert np.array_equal(found[mag], voxels), mag
        assert {*os.listdir(path / name / mag / ".wkdask")} <= {"locks", "finished"}, mag


def published(path, layer="inverted", mag="1"):
    """Return how many cubes of a mag are there."""
    return sum(1 for cube in (path / layer / mag).glob("z*/y*/x*.wkw"))


def until(condition, timeout, what):
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return found


class Driver:
    """A script that runs on this host while the test goes on."""

    def __init__(self, slurm, place, env, *command):
        self.log = place / "driver.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=place, env={**slurm.env, **env}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ended(self, timeout):
        """Return the exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the driver did not end:\n{self.log.read_text()}")


@pytest.fixture(autouse=True)
def _empty_queue(request):
    """Leave no job to the next test."""
    yield
    if "slurm" in request.fixturenames:
        request.getfixturevalue("slurm").cancel_all()


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_two_jobs_write_a_pyramid(slurm, place, env, expected, scheme):
    env["DASK_CONFIG"] = with_certificate(place) if scheme == "tls" else env["DASK_CONFIG"]
    (place / "two.py").write_text(TWO_JOBS)
    with Driver(slurm, place, env, "python", "two.py", f"{scheme}://") as driver:
        assert driver.ended(120) == 0, driver.log.read_text()
    log = driver.log.read_text()
    workers = {line for line in log.splitlines() if line.startswith("worker ")}
    assert len(workers) == 2, workers
    assert f"at {scheme}://127.0.0.1:" in log
    check(place / "ds", expected, "color")


def with_certificate(place):
    """Make a certificate; return the folder with its settings and those of the jobs, as the README of TLS says."""
    make = place / "cluster/tls/make-certificate.sh"
    subprocess.run(["bash", make, place / "tls"], check=True, capture_output=True)
    (place / "config").mkdir()
    shutil.copy(place / "tls/dask.yaml", place / "config/tls.yaml")
    shutil.copy(place / "cluster/slurm/jobqueue.yaml", place / "config")
    return str(place / "config")


TWO_JOBS = """
import sys
from dask_jobqueue import SLURMCluster
from distributed import Client
from wkdask import Dataset

def tell(event):
    if hasattr(event, "report") and hasattr(event.report, "worker"):
        print("worker", event.report.worker, flush=True)
    if hasattr(event, "engine"):
        print("on", event.engine, flush=True)

if __name__ == "__main__":
    with SLURMCluster(protocol=sys.argv[1]) as cluster, Client(cluster) as client:
        cluster.scale(jobs=2)
        client.wait_for_workers(2, timeout=60)
        Dataset("ds").get_layer("color").downsample(progress=tell)
"""


def test_a_cancelled_job_is_replaced(slurm, place, slow, expected):
    slow["DASK_JOBQUEUE__SLURM__DEATH_TIMEOUT"] = "20"
    with Driver(slurm, place, slow, "python", "cluster/slurm/adaptive.py", "ds", "--jobs", "2") as driver:
        until(lambda: published(place / "ds") > 8 or driver.process.poll() is not None, 60, "no cube")
        first = slurm.running()
        assert listening(slurm.processes()) == {"127.0.0.1"}  # driver, scheduler, workers
        slurm.call("scancel", first[0])
        later = until(lambda: {*slurm.running()} - {*first}, 60, "no job instead of the cancelled one")
        assert later
        assert driver.ended(150) == 0, driver.log.read_text()
    log = driver.log.read_text()
    assert "dashboard http://127.0.0.1:" in log
    check(place / "ds", expected)


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_the_batch_script_runs_to_its_end(slurm, place, env, expected, scheme):
    env["DASK_CONFIG"] = with_certificate(place) if scheme == "tls" else env["DASK_CONFIG"]
    job = slurm.submit(*BATCH, "ds", cwd=place, env=env)
    assert slurm.wait(job, 120) == "COMPLETED", (place / f"wkdask-{job}.log").read_text()
    log = (place / f"wkdask-{job}.log").read_text()
    assert f"on 2 workers, 2 threads, at {scheme}://127.0.0.1:" in log
    assert "dashboard http://127.0.0.1:" in log
    assert slurm.field(job, "ExitCode") == "0:0"
    check(place / "ds", expected)


def test_a_job_that_fails_says_so_by_its_exit_code(slurm, place, env):
    job = slurm.submit(*BATCH, "nowhere", cwd=place, env=env)
    assert slurm.wait(job, 120) == "FAILED"
    assert slurm.field(job, "ExitCode") == "1:0"
    assert "nowhere" in (place / f"wkdask-{job}.log").read_text()


def cubes_of(path):
    """Return {path: (inode, time)} of the cubes of the layer that is written."""
    cubes = (path / "inverted/1").glob("z*/y*/x*.wkw")
    return {str(cube): (cube.stat().st_ino, cube.stat().st_mtime_ns) for cube in cubes}


def check_resumed(place, expected, before, log):
    """The second run left alone what the first one had done; the result is the whole."""
    check(place / "ds", expected)
    ds = Dataset(place / "ds")
    assert ds.get_layer("inverted").bounding_box == ds.get_layer("color").bounding_box
    after = cubes_of(place / "ds")
    again = sum(1 for path, state in before.items() if after[path] != state)
    assert again <= IN_FLIGHT, f"{again} of {len(before)} cubes were written again\n{log}"


IN_FLIGHT = 4 * 8
"""Cubes of the units that two workers were at, or had just reported; a unit of this stack has 8."""


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_a_driver_that_is_gone_and_its_successor_goes_on(slurm, place, env, slow, expected, how):
    """Cancelled, it commits what landed; killed, it says nothing. The next job goes on all the same."""
    first = slurm.submit(*BATCH, "ds", cwd=place, env=slow)
    until(lambda: len(cubes_of(place / "ds")) > 60, 120, "no cubes")
    if how == "cancelled":
        slurm.call("scancel", first)
    else:  # scancel is gentler; the rest of the job is to end by itself
        (driver,) = (process for process in slurm.processes() if is_driver(process))
        driver.kill()
    assert slurm.wait(first, 60) == ("CANCELLED" if how == "cancelled" else "FAILED")
    until(lambda: not slurm.processes(), 30, f"still there: {slurm.processes()}")
    before, text = cubes_of(place / "ds"), (place / f"wkdask-{first}.log").read_text()
    committed = not Dataset(place / "ds").get_layer("inverted").bounding_box.is_empty()
    assert committed == ("stopped after" in text) == (how == "cancelled"), text

    second = slurm.submit(*BATCH, "ds", cwd=place, env=env)
    text = (place / f"wkdask-{second}.log").read_text
    assert slurm.wait(second, 150) == "COMPLETED", text()
    assert "done by earlier runs" in text()
    check_resumed(place, expected, before, text())


def test_a_driver_that_is_gone_while_it_downsamples(slurm, place, env, slow, expected):
    """Its successor takes no half of a mag for a whole one."""
    slow |= {"WKDASK_TEST_SECONDS": "1", "WKDASK_TEST_IN": "/2-2-1/"}
    first = slurm.submit(*BATCH, "ds", cwd=place, env=slow)
    until(lambda: published(place / "ds", mag="2-2-1") > 2, 120, "no cubes of the pyramid")
    slurm.call("scancel", first)
    assert slurm.wait(first, 60) == "CANCELLED"
    assert published(place / "ds", mag="2-2-1") < 64
    before = cubes_of(place / "ds")
    second = slurm.submit(*BATCH, "ds", cwd=place, env=env)
    assert slurm.wait(second, 150) == "COMPLETED", (place / f"wkdask-{second}.log").read_text()
    check(place / "ds", expected)
    assert cubes_of(place / "ds") == before


def is_driver(process):
    """Tell whether a process is the second task of a job, or was started by it."""
    with contextlib.suppress(psutil.Error):
        return process.environ().get("SLURM_PROCID") == "1"
    return False


COMMAND = """#!/usr/bin/env bash
trap : TERM
python -c 'import slow_publication; from wkdask.cli import main; main()' downsample ds --coarsest-mag 2 &
wait $!
wait $!
echo "exit code $?"
"""


def test_a_command_that_is_cancelled(slurm, place, slow, expected):
    """`wkdask` itself, on the threads of a job, is told to end as Slurm does it."""
    (place / "command.sbatch").write_text(COMMAND)
    slow["PYTHONPATH"] += f":{ROOT / 'tests' / 'helpers'}"
    log = place / "log"
    log.touch()
    job = slurm.submit("--output=log", "command.sbatch", cwd=place, env=slow)
    until(lambda: " left" in log.read_text(), 60, "no progress in the log")
    slurm.call("scancel", job)
    assert slurm.wait(job, 60) == "CANCELLED"
    until(lambda: "exit code" in log.read_text(), 30, log.read_text())
    text = log.read_text()
    assert "exit code 143" in text
    assert re.search(r"stopped after \d+ of 64 cubes", text), text
    assert re.search(r"mag 2-2-1: \d+ of 64 cubes, \d+ %, .*B/s, \d:\d\d left", text), text
    layer = Dataset(place / "ds").get_layer("color")
    assert [str(mag) for mag in layer.mags] == ["1"]  # a mag is listed when it is whole
    layer.downsample(coarsest_mag=2, resume=True)
    np.testing.assert_array_equal(layer.get_mag("2-2-1").read(), expected["color"]["2-2-1"])


def test_a_job_goes_back_into_the_queue_before_its_time_is_over(slurm, place, slow, expected):
    """Slurm's own warning, before a limit of two minutes; mag 1 takes two workers longer than that."""
    slow |= {"WKDASK_TEST_SECONDS": "1", "WKDASK_TEST_IN": "/inverted/1/"}
    limit = (
        "--time=2",
        "--signal=B:USR1@5",
    )  # Slurm warns 5 to 35 seconds before the end, as it finds the time
    job = slurm.submit(*limit, *BATCH, "ds", cwd=place, env=slow)
    log = place / f"wkdask-{job}.log"
    until(lambda: slurm.field(job, "Restarts") == "1", 240, "job in the queue again")
    before = cubes_of(place / "ds")
    assert before
    assert not Dataset(place / "ds").get_layer("inverted").bounding_box.is_empty()
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=5")  # the second round is to end
    assert slurm.wait(job, 300, states=("COMPLETED", "FAILED", "CANCELLED")) == "COMPLETED", log.read_text()
    text = log.read_text()
    assert "the time is nearly up" in text
    assert f"job {job}, round 1" in text
    assert "done by earlier runs" in text
    check_resumed(place, expected, before, text)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jupyter's own libraries
def test_the_cluster_notebook_on_slurm(slurm, place, env):
    """The notebook that runs on two processes runs on jobs by one line."""
    from notebooks_here import FOLDER, outputs, run_notebook

    settings = {**slurm.env, **env, "DASK_CONFIG": str(place / env["DASK_CONFIG"])}
    notebook = run_notebook(FOLDER / "04_cluster.ipynb", place, **settings, WKDASK_WHERE="slurm")
    assert outputs(notebook, "text/plain")[-1] == "True"
    assert list(place.glob("slurm-*.out")), "no job ran"
