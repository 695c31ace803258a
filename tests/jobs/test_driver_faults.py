"""Faults around a running job: workers, schedulers, mags that go; jobs that meet each other."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import dask
import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox, Dataset
from wkdask.errors import SchedulerLostError, SpaceError, TaskFailedError, WkdaskError, WkdaskWarning
from wkdask.jobs.events import JobStarted, UnitDone
from wkdask.storage.publish.jobs import unfinished_jobs

# Of workers that were killed, distributed leaves tasks behind whose errors nobody asks for.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

BOX = BoundingBox((100, 37, 5), (150, 120, 100))
META = np.empty((0,) * 4, "uint8")


@pytest.fixture
def source(make_mag, random_voxels):
    mag, voxels = make_mag(), random_voxels((1, *BOX.size))
    mag.write(voxels, bounding_box=BOX)
    return mag, voxels


@contextlib.contextmanager
def cluster(workers=2, **config):
    """Run a cluster of worker processes that a test may hurt; yield its client."""
    from distributed import Client, LocalCluster

    settings = {
        f"distributed.{name.replace('__', '-').replace('_', '.')}": value for name, value in config.items()
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
            memory_limit="2GiB", silence_logs="CRITICAL",
        ) as local,
        Client(local) as client,
    ):  # fmt: skip
        client.wait_for_workers(workers, timeout=60)
        yield client


def slowly(seconds):
    def slow(block):
        import time

        time.sleep(seconds)
        return 255 - block

    return slow


def inverted_slowly(mag, seconds=0.05):
    return mag.to_dask("cube").map_blocks(slowly(seconds), dtype="uint8", meta=META)


def at_unit(number, action):
    """Return a listener that does something when so many units are done."""
    done = []

    def listen(event):
        if isinstance(event, UnitDone):
            done.append(event)
            if len(done) == number:
                action()

    return listen


# --- tasks that fail, workers that die ------------------------------------------------------------------


def fails_at_first(folder, times):
    """Return a function that fails in each block so many times; it counts in files, which processes share."""
    folder = str(folder)

    def fails(block, block_id=None):
        import os

        if block_id is not None:
            count = f"{folder}/{'-'.join(map(str, block_id))}"
            with open(count, "ab") as file:
                file.write(b".")
            if os.path.getsize(count) <= times:
                raise OSError("try again")
        return 255 - block

    return fails


@pytest.mark.parametrize(("retries", "fails"), [(2, 2), (1, 2), (0, 1)])
def test_so_many_retries_and_no_more_on_local_threads(source, make_mag, tmp_path, retries, fails):
    check_retries(source, make_mag(), tmp_path, retries, fails, None)


@pytest.mark.cluster
@pytest.mark.parametrize(("retries", "fails"), [pytest.param(3, 3, marks=pytest.mark.slow), (1, 2)])
def test_so_many_retries_and_no_more_on_workers(source, make_mag, tmp_path, client, retries, fails):
    check_retries(source, make_mag(), tmp_path, retries, fails, client)


def check_retries(source, target, tmp_path, retries, fails, client):
    mag, voxels = source
    # A unit is a block here: of several blocks to a unit each would fail that often.
    unit = target.plan_write(mag.to_dask("cube"), bounding_box=BOX, client=client).plan.unit.shape
    x = mag.to_dask(tuple(unit)).map_blocks(fails_at_first(tmp_path, fails), dtype="uint8", meta=META)
    options = {"bounding_box": BOX, "retries": retries, "client": client}
    if fails <= retries:
        target.write(x, **options)
        assert np.array_equal(target.read(), 255 - voxels)
    else:
        with pytest.raises(TaskFailedError, match="try again"):
            target.write(x, **options)


@pytest.mark.slow
@pytest.mark.cluster
def test_a_task_that_kills_its_workers_stops_the_job_and_the_others_land(source, make_mag):
    mag, voxels = source

    def poison(block, block_id=None):
        import os

        if block_id is not None and tuple(block_id[1:]) == (3, 2, 1):
            os._exit(1)
        return 255 - block

    target = make_mag()
    with cluster(scheduler_allowed__failures=1) as client:
        x = mag.to_dask("cube").map_blocks(poison, dtype="uint8", meta=META)
        with pytest.raises(TaskFailedError, match="KilledWorker"):
            target.write(x, bounding_box=BOX, client=client)
    got, landed = target.read(bounding_box=BOX), 0
    for cube in target.cubes_on_disk():
        place = (slice(None), *cube.intersection(BOX).to_slices(BOX.topleft))
        assert np.array_equal(got[place], 255 - voxels[place])
        landed += 1
    assert landed > 4
    assert not target.layer.bounding_box.is_empty()
    assert unfinished_jobs(target.place.store)


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_killed_at_random_while_a_mag_is_inverted_in_place(make_mag, random_voxels):
    """255 - original, never original: a task that ran again did not read what its own job wrote."""
    mag, voxels = make_mag(compression="lz4"), random_voxels((1, *BOX.size))
    mag.write(voxels, bounding_box=BOX)
    rng, stop = np.random.default_rng(3), threading.Event()
    with cluster(workers=2, scheduler_allowed__failures=100) as client:

        def kill():
            while not stop.wait(rng.uniform(0.2, 0.6)) and len(killed) < 4:
                pids = [nanny.pid for nanny in client.cluster.workers.values() if nanny.pid]
                if len(pids) == len(client.scheduler_info()["workers"]) == 2:  # the last one was replaced
                    killed.append(int(rng.choice(pids)))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(killed[-1], signal.SIGKILL)

        killer, killed = threading.Thread(target=kill), []
        killer.start()
        try:
            report = mag.write(inverted_slowly(mag, 0.2), bounding_box=BOX, client=client)
        finally:
            stop.set()
            killer.join()
    assert killed
    assert report.bounding_box == BOX
    assert np.array_equal(mag.read(), 255 - voxels)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_worker_that_was_cut_off_and_wakes_changes_nothing(make_mag, random_voxels, compression):
    source, voxels = make_mag(), random_voxels((1, *BOX.size))
    source.write(voxels, bounding_box=BOX)
    target = make_mag(compression=compression)
    stopped = []
    with cluster(scheduler_worker__ttl="4s", scheduler_allowed__failures=100) as client:
        pids = list(client.run(os.getpid).values())

        def stop_one():
            os.kill(pids[0], signal.SIGSTOP)
            stopped.append(pids[0])

        try:
            report = target.write(
                inverted_slowly(source, 0.1), bounding_box=BOX, client=client, progress=at_unit(3, stop_one)
            )
            assert stopped
            assert np.array_equal(target.read(), 255 - voxels)
            # now others change the mag, and the one that was cut off comes back
            target.write(voxels, bounding_box=BOX)
            files = {name: os.stat(name).st_ino for name in cube_files(target)}
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):  # the nanny may have ended it
                    os.kill(pid, signal.SIGCONT)
        time.sleep(3)
    assert report.bounding_box == BOX
    assert np.array_equal(target.read(), voxels)
    assert {name: os.stat(name).st_ino for name in cube_files(target)} == files
    assert set(os.listdir(f"{target.path}/.wkdask")) == {"locks", "finished"}


def cube_files(mag):
    return [mag.place.store.cube_path(box.topleft // mag.spec.shard_shape) for box in mag.cubes_on_disk()]


# --- schedulers that are lost ---------------------------------------------------------------------------


@contextlib.contextmanager
def scheduler_and_workers(folder):
    """Run a scheduler and two workers as processes; yield (address, process of the scheduler)."""
    from distributed.utils import open_port

    port, processes = open_port("127.0.0.1"), []

    def start(*arguments):
        with open(folder / f"log{len(processes)}", "w") as log:
            command = [sys.executable, "-m", *arguments]
            processes.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))

    try:
        address = f"tcp://127.0.0.1:{port}"
        start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        for _ in range(2):
            start(
                "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny",
                "--host", "127.0.0.1", "--death-timeout", "30",
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield address, processes[0]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.cluster
def test_a_lost_scheduler_is_an_error_and_the_job_goes_on_with_a_new_one(source, make_mag, tmp_path):
    from distributed import Client

    mag, voxels = source
    target = make_mag()
    x = inverted_slowly(mag, 0.1)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        scheduler_and_workers(tmp_path / "one") as (address, scheduler),
        Client(address, timeout=10) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        start = time.monotonic()
        with pytest.raises(SchedulerLostError, match="resume=True") as caught:
            target.write(x, bounding_box=BOX, client=client, progress=at_unit(4, scheduler.kill))
        assert time.monotonic() - start < 60
        assert address in str(caught.value)
    assert not target.layer.bounding_box.is_empty()
    (ticket,) = unfinished_jobs(target.place.store)
    assert ticket.box == BOX
    with scheduler_and_workers(tmp_path / "two") as (address, _), Client(address, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
        report = target.write(x, bounding_box=BOX, client=client, resume=True)
    assert report.cubes_before >= 4
    assert report.bounding_box == target.layer.bounding_box == BOX
    assert np.array_equal(target.read(), 255 - voxels)


# --- mags and disks that go -----------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["source", "target"])
def test_a_mag_that_is_deleted_during_a_job_is_an_error(source, make_mag, which):
    mag, _ = source
    target = make_mag()
    gone = mag if which == "source" else target
    action = at_unit(3, lambda: os.rename(gone.path, f"{gone.path}.gone"))
    with dask.config.set(num_workers=1), pytest.raises((WkdaskError, OSError)) as caught:
        target.write(inverted_slowly(mag, 0.02), bounding_box=BOX, progress=action)
    assert str(gone.path) in str(caught.value)
    assert not os.path.exists(gone.path)  # nobody made it anew


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_volume_that_is_unmounted_during_a_job_is_an_error_and_never_zeros(
    make_mag, random_voxels, tmp_path, box_covers_what_landed
):
    volume = tmp_path / "volume"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", volume], check=True)
    mounted = True

    def unmount():
        nonlocal mounted
        subprocess.run(["umount", "-l", volume], check=True)
        mounted = False

    try:
        voxels, target = random_voxels((1, *BOX.size)) | np.uint8(1), make_mag()
        layer = Dataset.create(volume / "ds", (1, 1, 1)).add_layer("layer", "color")
        mag = layer.add_mag(1, chunk_shape=16, shard_shape=32)
        mag.write(voxels, bounding_box=BOX)
        with dask.config.set(num_workers=1), pytest.raises(TaskFailedError, match="volume"):
            target.write(inverted_slowly(mag, 0.02), bounding_box=BOX, progress=at_unit(3, unmount))
    finally:
        if mounted:
            unmount()
    box_covers_what_landed(target, BOX)
    for cube in target.cubes_on_disk():
        place = cube.intersection(BOX)
        expected = 255 - voxels[(slice(None), *place.to_slices(BOX.topleft))]
        assert np.array_equal(target.place.store.read(place), expected)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def small_mag(folder, compression=None):
    layer = Dataset.create(folder / "ds", (1, 1, 1)).add_layer("layer", "color")
    return layer.add_mag(1, chunk_shape=16, shard_shape=64, compression=compression)


def test_a_job_that_does_not_fit_on_the_disk_is_refused_before_it_starts(small_disk):
    mag = small_mag(small_disk)
    x = da.ones((1, 256, 256, 256), chunks=64, dtype="uint8")
    with pytest.raises(SpaceError, match="16 MiB") as caught:
        mag.write(x)
    assert str(mag.path) in str(caught.value)
    assert os.listdir(f"{mag.path}/.wkdask") == ["locks"]
    assert mag.layer.bounding_box.is_empty()
    mag.write(x[:, :128, :, :128])  # what fits is written
    mag.write(x[:, :128, :, :128] + 1)  # and replaced: that takes no room
    with pytest.raises(SpaceError, match="twice for a while"):
        mag.write(mag.to_dask() + 1)  # but in place all is there twice
    with dask.config.set({"wkdask.check-space": False}):
        mag.write(da.zeros((1, 1024, 256, 256), chunks=64, dtype="uint8"), offset=(1024, 0, 0))


def test_what_may_fit_if_it_compresses_is_a_warning(small_disk):
    mag = small_mag(small_disk, "lz4")
    with pytest.warns(WkdaskWarning, match="may fit if they compress well"):
        mag.write(da.ones((1, 256, 256, 256), chunks=64, dtype="uint8"))
    assert (mag.read() == 1).all()


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_disk_that_gets_full_during_a_job(small_disk, random_voxels, compression):
    mag, voxels = small_mag(small_disk, compression), random_voxels((1, 256, 256, 64))
    mag.write(voxels)
    x = da.from_array(255 - random_voxels((1, 256, 256, 256)), chunks=64)
    with (
        dask.config.set({"wkdask.check-space": False}),
        pytest.raises(TaskFailedError, match="space") as caught,
    ):
        mag.write(x)
    assert isinstance(caught.value.__cause__, OSError)
    got = mag.place.store.read(BoundingBox((0, 0, 0), (256, 256, 64)))
    new = np.asarray(x[..., :64])
    for index in np.ndindex(4, 4, 1):
        place = (slice(None), *(slice(64 * i, 64 * i + 64) for i in index))
        assert np.array_equal(got[place], voxels[place]) or np.array_equal(got[place], new[place])


# --- jobs that meet -------------------------------------------------------------------------------------


WRITER = """
import json
import sys
import dask.array as da
from wkdask import BoundingBox, Dataset, Mag

for line in sys.stdin:
    path, layer, mag, value, box = json.loads(line)
    mag, box = Mag(mag), BoundingBox.from_csv(box)
    view = Dataset(path).get_layer(layer).get_mag(mag)
    print("ready", flush=True)
    sys.stdin.readline()
    x = da.full((1, *box.size), value, chunks=20, dtype="uint8")
    view.write(x, bounding_box=box.from_mag_to_mag1(mag))
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def writers():
    """Return a function that lets up to four processes write at one moment: (layer, mag, value, box) each."""
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]  # fmt: skip

    def write(path, jobs):
        chosen = processes[: len(jobs)]
        for process, (layer, mag, value, box) in zip(chosen, jobs, strict=True):
            process.stdin.write(json.dumps([str(path), layer, mag, value, box.to_csv()]) + "\n")
            process.stdin.flush()
        for process in chosen:
            assert process.stdout.readline() == "ready\n"
        for process in chosen:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in chosen:
            assert process.stdout.readline() == "done\n"

    yield write
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0


@pytest.fixture
def shared(tmp_path):
    ds = Dataset.create(tmp_path / "shared", (1, 1, 1))
    for name in ("a", "b"):
        layer = ds.add_layer(name, "color")
        for mag in (1, 2):
            layer.add_mag(mag, chunk_shape=16, shard_shape=32)
    return ds


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_jobs_that_write_parts_of_the_same_cubes_lose_nothing(tmp_path, compression, writers):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    mag = ds.add_layer("a", "color").add_mag(1, chunk_shape=16, shard_shape=64, compression=compression)
    boxes = [
        BoundingBox((30 * k, 0, 7), (30, 100, 90)) for k in range(4)
    ]  # their borders cut cubes and chunks
    writers(ds.path, [("a", "1", k + 1, box) for k, box in enumerate(boxes)])
    expected = np.zeros((1, 120, 100, 90), "uint8")
    for k in range(4):
        expected[:, 30 * k : 30 * k + 30] = k + 1
    assert ds.get_layer("a").bounding_box == BoundingBox((0, 0, 7), (120, 100, 90))
    assert np.array_equal(mag.read(), expected)
    assert set(os.listdir(f"{mag.path}/.wkdask")) == {"locks", "finished"}


@pytest.mark.slow  # four processes that import it all
def test_jobs_on_other_layers_other_mags_and_the_same_cubes(shared, writers):
    box, half = BoundingBox((0, 0, 0), (96, 96, 96)), BoundingBox((40, 8, 8), (32, 32, 32))
    writers(shared.path, [("a", "1", 1, box), ("a", "2", 2, half), ("b", "1", 3, box), ("b", "1", 4, box)])
    a, b = shared.get_layer("a"), shared.get_layer("b")
    assert (a.get_mag(1).read(offset=(0, 0, 0), size=(96, 96, 96)) == 1).all()
    assert (a.get_mag(2).read(offset=half.topleft, size=half.size) == 2).all()
    assert a.bounding_box == BoundingBox((0, 0, 0), (144, 96, 96))
    assert b.bounding_box == box
    got = b.get_mag(1).read()
    for cube in b.get_mag(1).cubes_on_disk():  # whole cubes never mix
        part = got[(slice(None), *cube.to_slices())]
        assert part.min() == part.max() in (3, 4)


@pytest.mark.slow
def test_four_jobs_that_grow_the_box_twenty_times(tmp_path, writers):
    """Where webknossos 4.3.3 lost boxes in 8 of 8 trials."""
    rng = np.random.default_rng(0)
    for trial in range(20):
        ds = Dataset.create(tmp_path / f"ds{trial}", (1, 1, 1))
        ds.add_layer("a", "color").add_mag(1, chunk_shape=16, shard_shape=32)
        boxes = [BoundingBox(rng.integers(0, 400, 3), rng.integers(1, 70, 3)) for _ in range(4)]
        writers(ds.path, [("a", "1", k + 1, box) for k, box in enumerate(boxes)])
        union = boxes[0]
        for box in boxes[1:]:
            union = union.extended_by(box)
        assert Dataset(ds.path).get_layer("a").bounding_box == union
        shutil.rmtree(ds.path)


@pytest.mark.slow
def test_a_resumed_job_says_how_much_was_done(source, make_mag):
    mag, _ = source
    target, events = make_mag(), []

    def stop():
        raise KeyboardInterrupt

    with dask.config.set(num_workers=1), pytest.raises(KeyboardInterrupt):
        target.write(inverted_slowly(mag, 0), bounding_box=BOX, progress=at_unit(4, stop))
    target.write(inverted_slowly(mag, 0), bounding_box=BOX, resume=True, progress=events.append)
    (started,) = [event for event in events if isinstance(event, JobStarted)]
    assert 3 <= started.units_before <= 5
    assert started.nbytes_before > 0
