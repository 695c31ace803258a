"""What the tests of the core share: small datasets, and one cluster of two worker processes."""

import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile

# Where an environment switches byte code off, each process that a test starts would compile the package again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tests damage thousands of cubes for good: these are read twice, without a pause.
os.environ.setdefault("DASK_WKDASK__READ_RETRIES", "1")

import dask
import hypothesis
import pytest
from thorough import examples

from wkdask import BoundingBox, Dataset, testing

_MEMORY = "/dev/shm"
_MEMORY_BYTES = 6 << 30
"""Room that the files of tests may take there; they take some hundred MB."""

_QUIET = {
    "distributed.worker.profile.enabled": False,  # else every process looks at its own stack 100 times a second
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}
"""What keeps the processes of a cluster from working while nobody asks for anything."""


def pytest_addoption(parser):
    """Let the files of the tests be on a disk."""
    parser.addoption(
        "--disk",
        action="store_true",
        help="put the files of the tests into TMPDIR on the disk; else into memory where there is room for them, "
        "because half of the time goes by while a disk flushes",
    )


def _has_room(folder):
    """Return whether a folder is in memory, and the machine has memory to spare."""
    try:
        info = os.statvfs(folder)
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return False
    return os.access(folder, os.W_OK) and min(info.f_bavail * info.f_frsize, free) > _MEMORY_BYTES


def pytest_configure(config):
    """Let children feel Ctrl-C also where a shell started the tests in the background, deaf to it.

    A worker that was killed may take its time to start again: a LocalCluster gives it up after 15 s by default.
    """
    if not config.getoption("--disk") and "TMPDIR" not in os.environ and _has_room(_MEMORY):
        os.environ["TMPDIR"] = tempfile.tempdir = _MEMORY
    # No deadline: an example may wait for others.
    hypothesis.settings.register_profile("shared machines", deadline=None, max_examples=examples(100))
    hypothesis.settings.load_profile("shared machines")
    dask.config.set({"distributed.deploy.lost-worker-timeout": "5 minutes"})
    dask.config.set(_QUIET)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    """Keep what is collected out of the garbage collector's sight: it lives to the end, and is large."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


@pytest.fixture
def make_mag(tmp_path):
    """Return a function that makes an empty mag in a dataset of its own."""
    numbers = itertools.count()

    def make(
        dtype="uint8",
        channels=1,
        cube=32,
        chunk=16,
        compression=None,
        category="color",
        mag=1,
        scale=(1, 1, 1),
        data_format="wkw",
    ):
        return testing.small_mag(
            tmp_path / f"dataset{next(numbers)}",
            dtype,
            channels,
            category=category,
            mag=mag,
            chunk_shape=chunk,
            shard_shape=cube,
            compression=compression,
            data_format=data_format,
            voxel_size=scale,
        )

    return make


@pytest.fixture
def random_voxels():
    """Return a function that makes reproducible voxels in Fortran order, zeros rare."""
    return testing.random_voxels


@pytest.fixture
def leftovers():
    """Return a function that lists what a job left in a mag's private folder, but for the notes to resume it by."""

    def private(mag):
        folder = os.path.join(mag.path, ".wkdask")
        left = sorted({*os.listdir(folder)} - {"locks", "finished"}) if os.path.isdir(folder) else []
        return [name for name in left if {*os.listdir(f"{folder}/{name}")} - {"alive", "manifest", "journal"}]

    return private


@pytest.fixture
def state_of():
    """Return a function that reads all that a refused write must not change: properties, files of cubes."""

    def state(mag):
        dataset = mag.layer.path + "/.."
        cubes = [mag.place.store.cube_path(box.topleft // box.size) for box in mag.cubes_on_disk()]
        with open(os.path.join(dataset, "datasource-properties.json"), "rb") as file:
            return file.read(), [(path, os.stat(path).st_ino, os.stat(path).st_mtime_ns) for path in cubes]

    return state


@pytest.fixture
def box_covers_what_landed():
    """Return a function that checks, by the files alone, that a layer's box is around all cubes of a mag."""

    def check(mag, written):
        with open(os.path.join(mag.layer.path, "..", "datasource-properties.json")) as file:
            raw = json.load(file)
        (layer,) = raw["dataLayers"]
        box = BoundingBox.from_wkw_dict(layer["boundingBox"])
        landed = [cube.intersection(written) for cube in mag.cubes_on_disk()]
        assert landed
        assert all(box.contains_bbox(part.from_mag_to_mag1(mag.mag)) for part in landed)
        assert written.from_mag_to_mag1(mag.mag).contains_bbox(box)
        return len(landed)

    return check


@pytest.fixture(scope="session")
def local_cluster():
    """Two worker processes of one thread each, for all tests of the session."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        memory_limit="2GiB",
    ) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _scheduler_of_before():
    """Find the test that leaves a client's scheduler in dask's configuration, not those that come after it."""
    before = dask.config.get("scheduler", None)
    yield
    assert dask.config.get("scheduler", None) == before


@pytest.fixture
def client(local_cluster):
    """A client of the cluster, active while the test runs."""
    from distributed import Client

    with Client(local_cluster) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


@pytest.fixture
def new(tmp_path):
    """Return a function that makes a dataset."""
    return lambda name="ds", scale=(11.24, 11.24, 28): Dataset.create(tmp_path / name, scale)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB, mounted where a dataset will be."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    folder = tmp_path / "data"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount does not work here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def children():
    """A process that forks children that have imported everything, in milliseconds."""
    from children import Children

    with Children() as children:
        yield children


@pytest.fixture(scope="session")
def object_server():
    """A real S3 server on the loopback, started by the first test that needs it."""
    from object_server import ObjectServer

    with ObjectServer() as server:
        yield server


@pytest.fixture
def bucket(object_server, monkeypatch):
    """An empty bucket; its credentials are in the environment, also of processes that a test starts."""
    from object_server import set_environ

    bucket = object_server.new_bucket()
    set_environ(monkeypatch, bucket)
    return bucket


@pytest.fixture
def proxied_bucket(object_server, monkeypatch):
    """A bucket as above behind a proxy, `proxied_bucket.proxy`: it logs requests, and takes rules for them."""
    from object_proxy import ObjectProxy
    from object_server import set_environ

    with ObjectProxy(object_server.endpoint) as proxy:
        bucket = object_server.new_bucket(proxy)
        set_environ(monkeypatch, bucket)
        yield bucket


@pytest.fixture
def invoke():
    """Return a function that runs a command; an exception that is no plain error is raised here."""

    from click.testing import CliRunner

    from wkdask.cli import main

    def run(*arguments, code=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return run
