"""Jobs from start to end: what landed is noted, whatever happens; nothing private stays."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import dask
import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, Vec3Int
from wkdask.errors import DamagedCubeError, TaskFailedError, WkdaskError
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone, UnitFailed
from wkdask.jobs.plan import plan_write

BOX = BoundingBox((100, 37, 5), (150, 70, 60))
META = np.empty((0,) * 4, "uint8")


@pytest.fixture
def written(make_mag, random_voxels):
    """Return (mag, its voxels) in `BOX`."""
    mag, voxels = make_mag(), random_voxels((1, *BOX.size))
    mag.write(voxels, bounding_box=BOX)
    return mag, voxels


def failing_at(place):
    """Return a function for map_blocks that fails in one block."""

    def fails(block, block_id=None):
        import time

        if block_id is not None and tuple(block_id[1:]) == place:
            raise ZeroDivisionError("one block is bad")
        time.sleep(0.005)  # so that others run beside the one that fails
        return block

    return fails


def damage(mag, index):
    """Cut a cube short and return its path."""
    path = mag.place.store.cube_path(Vec3Int(index))
    os.truncate(path, os.path.getsize(path) // 2)
    return path


# --- a job that works -----------------------------------------------------------------------------------


def test_the_events_of_a_job(written, make_mag):
    mag, voxels = written
    target, events = make_mag(), []
    report = target.write(255 - mag.to_dask("cube"), bounding_box=BOX, progress=events.append)
    plan = plan_write(target.spec, BOX)
    first, *units, last = events
    assert isinstance(first, JobStarted)
    assert (first.label, first.action) == ("layer 'layer' mag 1", "writing")
    assert (first.cubes, first.nbytes) == (plan.num_cubes, voxels.nbytes)
    assert "local threads" in first.engine
    assert all(isinstance(event, UnitDone) for event in units)
    assert len(units) == first.units
    assert sum(event.report.cubes for event in units) == plan.num_cubes == report.cubes
    assert isinstance(last, JobFinished)
    assert last.report is report
    assert report.bounding_box == BOX
    assert report.bytes == voxels.nbytes
    assert (report.minimum, report.maximum) == (255 - voxels.max(), 255 - voxels.min())
    assert report.seconds > 0


# --- a task that fails ----------------------------------------------------------------------------------


def check_failed_job(target, voxels, box_covers_what_landed, leftovers, client=None, **options):
    x = da.from_array(voxels, chunks=(1, 32, 32, 32), inline_array=False)
    x = x.map_blocks(failing_at((3, 2, 1)), dtype="uint8", meta=META)
    events = []
    with pytest.raises(TaskFailedError) as caught:
        target.write(x, bounding_box=BOX, progress=events.append, client=client, **options)
    text = str(caught.value)
    assert "layer 'layer'" in text
    assert str(target.path) in text
    assert ".wkw" in text
    assert "ZeroDivisionError: one block is bad" in text
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert any(isinstance(event, UnitFailed) for event in events)
    assert isinstance(events[-1], JobFinished)
    box_covers_what_landed(target, BOX)
    assert leftovers(target) == []
    got = target.read(bounding_box=BOX)
    done = [event.report.box for event in events if isinstance(event, UnitDone)]
    assert len(done) == len({*done}) >= 4
    for box in done:
        place = (slice(None), *box.to_slices(BOX.topleft))
        assert np.array_equal(got[place], voxels[place])
    failed = [event.box for event in events if isinstance(event, UnitFailed)]
    assert all(not got[(slice(None), *box.to_slices(BOX.topleft))].any() for box in failed)
    bad_block = BoundingBox((100 + 96, 37 + 64, 5 + 32), (32, 32, 32))
    assert failed
    assert not any(box.intersection(bad_block).is_empty() for box in failed)
    assert {*done} | {*failed} == {*plan_units(target)}


def plan_units(target):
    from wkdask.jobs.engines.choice import LocalEngine

    plan = plan_write(target.spec, BOX, threads=LocalEngine().threads)
    return [box for window in plan.windows for box in window.unit_boxes()]


@pytest.mark.slow
def test_a_failed_task_is_named_and_the_others_land(
    make_mag, random_voxels, box_covers_what_landed, leftovers
):
    check_failed_job(make_mag(), random_voxels((1, *BOX.size)), box_covers_what_landed, leftovers)


@pytest.mark.slow
@pytest.mark.cluster
def test_a_failed_task_on_a_worker(make_mag, random_voxels, box_covers_what_landed, leftovers, client):
    check_failed_job(make_mag(), random_voxels((1, *BOX.size)), box_covers_what_landed, leftovers, client)


def test_many_failures_are_counted_and_hold_no_blocks(make_mag):
    def fails(block, block_id=None):
        if block_id is not None:
            raise OSError("disk on fire")
        return block

    mag, errors = make_mag(), []

    def listen(event):
        if isinstance(event, UnitFailed):
            errors.append(event.error)

    x = da.ones((1, 128, 128, 128), chunks=(1, 32, 32, 32), dtype="uint8")
    with pytest.raises(TaskFailedError, match=r"\(\d+ tasks failed\)"):
        mag.write(x.map_blocks(fails, dtype="uint8", meta=META), progress=listen)
    assert len(errors) > 2
    assert all(error.__traceback__ is None for error in errors[1:-1])
    assert mag.layer.bounding_box.is_empty()


def check_damaged_source(source, target, client=None):
    path = damage(source, (4, 2, 1))
    with pytest.raises(TaskFailedError) as caught:
        target.write(255 - source.to_dask("cube"), bounding_box=BOX, client=client)
    assert path in str(caught.value)
    assert isinstance(caught.value.__cause__, DamagedCubeError)
    assert not target.layer.bounding_box.is_empty()


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_damaged_source_cube_is_named(make_mag, random_voxels, compression):
    source = make_mag(compression=compression)
    source.write(random_voxels((1, *BOX.size)), bounding_box=BOX)
    check_damaged_source(source, make_mag())


@pytest.mark.cluster
def test_a_damaged_source_cube_is_named_by_workers_that_live_on(written, make_mag, client):
    pids = client.run(os.getpid)
    check_damaged_source(written[0], make_mag(), client)
    assert client.run(os.getpid) == pids


def test_a_damaged_target_cube_stays_as_it_is(written, leftovers):
    """It is written in part: its other voxels cannot be kept."""
    mag, voxels = written
    path = damage(mag, (4, 2, 1))
    with open(path, "rb") as file:
        before = file.read()
    with pytest.raises(TaskFailedError) as caught:
        mag.write(voxels[:, 30:60, 30:60, 30:60], offset=(130, 67, 35))
    assert path in str(caught.value)
    with open(path, "rb") as file:
        assert file.read() == before
    assert leftovers(mag) == []
    # a write of the whole cube replaces it
    mag.write(np.full((1, 32, 32, 32), 7, "uint8"), offset=(128, 64, 32))
    assert (mag.read(offset=(128, 64, 32), size=(32, 32, 32)) == 7).all()


# --- a job that is interrupted --------------------------------------------------------------------------


SLOW = """
import sys, time
import numpy as np, dask.array as da
from wkdask import BoundingBox, Dataset, Vec3Int

mag = Dataset(sys.argv[1]).get_layer("layer").get_mag(1)
if sys.argv[2] == "dask":
    def slow(block):
        time.sleep(0.1)
        return block + np.uint8(7)

    x = da.zeros((1, 512, 256, 256), chunks=(1, 32, 64, 64), dtype="uint8")
    x = x.map_blocks(slow, dtype="uint8", meta=np.empty((0,) * 4, "uint8"))
else:
    x = np.asfortranarray(np.random.default_rng(0).integers(1, 255, (1, 512, 512, 512), "uint8"))
mag.write(x, offset=(64, 32, 96))
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dask", "numpy"])
def test_ctrl_c_notes_what_landed_and_leaves_nothing(make_mag, box_covers_what_landed, leftovers, kind):
    mag = make_mag(compression=None if kind == "dask" else "lz4hc")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, mag.place.dataset_path, kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not next(iter(mag.cubes_on_disk()), None) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        start = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        seconds = time.monotonic() - start
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in err
    assert "done" not in out
    assert seconds < 15
    size = (512, 256, 256) if kind == "dask" else (512, 512, 512)
    landed = box_covers_what_landed(mag, BoundingBox((64, 32, 96), size))
    assert landed < len(mag.spec.grid.cubes(BoundingBox((64, 32, 96), size)))
    assert leftovers(mag) == []


def interrupted(target, error, client=None):
    """Write slowly, raise `error` from a listener after the second unit, return the reports heard."""

    def slow(block):
        import time

        time.sleep(0.05)
        return block

    heard = []

    def listen(event):
        if isinstance(event, UnitDone):
            heard.append(event.report)
            if len(heard) == 2:
                raise error

    x = da.ones((1, *BOX.size), chunks=(1, 16, 32, 32), dtype="uint8")
    x = x.map_blocks(slow, dtype="uint8", meta=META)
    with pytest.raises(type(error)):
        target.write(x, bounding_box=BOX, progress=listen, client=client)
    return heard


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_whatever_ends_a_job_what_landed_is_noted(make_mag, box_covers_what_landed, leftovers, error):
    mag = make_mag()
    heard = interrupted(mag, error)
    assert len(heard) == 2
    box_covers_what_landed(mag, BOX)
    assert leftovers(mag) == []


@pytest.mark.slow
@pytest.mark.cluster
def test_an_interrupted_job_on_workers(make_mag, box_covers_what_landed, leftovers, client):
    mag = make_mag()
    start = time.monotonic()
    interrupted(mag, KeyboardInterrupt(), client)
    assert time.monotonic() - start < 20
    landed = box_covers_what_landed(mag, BOX)
    assert leftovers(mag) == []
    time.sleep(1)
    assert len(list(mag.cubes_on_disk())) == landed  # nobody goes on in secret
    report = mag.write(da.ones((1, *BOX.size), chunks=64, dtype="uint8"), bounding_box=BOX, client=client)
    assert report.bounding_box == BOX
    assert (mag.read() == 1).all()


# --- on a cluster ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.cluster
def test_a_worker_that_is_killed_costs_nothing(written, make_mag, leftovers, client):
    mag, voxels = written
    target, killed = make_mag(compression="lz4"), []
    pids = list(client.run(os.getpid).values())

    def slow(block):
        import time

        time.sleep(0.03)
        return 255 - block

    def kill_one(event):
        if isinstance(event, UnitDone) and not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    x = mag.to_dask(16).map_blocks(slow, dtype="uint8", meta=META)
    report = target.write(x, bounding_box=BOX, progress=kill_one, client=client)
    assert killed
    assert np.array_equal(target.read(), 255 - voxels)
    assert report.bounding_box == target.layer.bounding_box == BOX
    assert leftovers(target) == []
    client.wait_for_workers(2, timeout=60)


@contextlib.contextmanager
def command_line_cluster(folder):
    """Run a scheduler and two workers by dask's own command line, as three processes; yield the address."""
    file, processes = folder / "scheduler.json", []

    def start(*arguments):
        home = folder / f"home{len(processes)}"
        home.mkdir()
        with open(folder / f"log{len(processes)}", "w") as log:
            processes.append(
                subprocess.Popen([sys.executable, "-m", *arguments], cwd=home, stdout=log, stderr=log)
            )

    try:
        start(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
            "--scheduler-file", str(file), "--no-dashboard",
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text().strip():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(2):
            start(
                "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1",
                "--no-dashboard", "--no-nanny", "--host", "127.0.0.1",
            )  # fmt: skip
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_started_by_hand_in_other_folders(written, make_mag, tmp_path, monkeypatch):
    from distributed import Client

    mag, voxels = written
    other = make_mag("uint8")
    # opened by a relative path: workers have another working folder
    monkeypatch.chdir(tmp_path)
    target = Dataset(os.path.relpath(other.place.dataset_path)).get_layer("layer").get_mag(1)
    (tmp_path / "cluster").mkdir()
    with command_line_cluster(tmp_path / "cluster") as address, Client(address) as client:
        client.wait_for_workers(2, timeout=60)
        events = []
        report = target.write(255 - mag.to_dask("cube"), bounding_box=BOX, progress=events.append)
        assert address in events[0].engine
        pids = {*client.run(os.getpid).values()}
        workers = {int(event.report.worker.split(":")[1]) for event in events if isinstance(event, UnitDone)}
        assert workers <= pids
        assert len(workers) == 2
    assert report.bounding_box == BOX
    assert np.array_equal(target.read(), 255 - voxels)


@pytest.mark.cluster
def test_a_numpy_array_is_written_from_here_and_inside_a_task_inline(written, make_mag, client):
    mag, voxels = written
    target = make_mag()

    def inside(target, mag, box):
        import threading

        before = threading.active_count()
        report = target.write(255 - mag.read(bounding_box=box), bounding_box=box)
        target.write(255 - mag.to_dask("cube", bounding_box=box), bounding_box=box)
        assert threading.active_count() < before + 10
        return report.bounding_box

    assert client.submit(inside, target, mag, BOX).result(timeout=60) == BOX
    assert np.array_equal(target.read(), 255 - voxels)
    events = []
    target.write(voxels, bounding_box=BOX, progress=events.append)
    assert "local threads" in events[0].engine
    assert np.array_equal(target.read(), voxels)


def test_two_jobs_on_one_mag_lose_nothing(make_mag, random_voxels):
    """Their parts share cubes: each keeps the other's voxels, and both boxes are in the union."""
    for compression in (None, "lz4"):
        mag, voxels = make_mag(compression=compression), random_voxels((1, 80, 80, 80))
        parts = [slice(0, 37), slice(37, 80)]
        threads = [
            threading.Thread(
                target=mag.write, args=(voxels[:, part],), kwargs={"offset": (part.start + 5, 9, 11)}
            )
            for part in parts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert mag.layer.bounding_box == BoundingBox((5, 9, 11), (80, 80, 80))
        assert np.array_equal(mag.read(), voxels)


def test_a_deleted_mag_is_refused_before_a_task(make_mag, random_voxels):
    mag = make_mag()
    os.unlink(os.path.join(mag.path, "header.wkw"))
    with pytest.raises(WkdaskError, match=r"header\.wkw"):
        mag.write(random_voxels((1, 8, 8, 8)))


def test_the_cubes_that_landed_before_their_unit_failed_are_in_the_box(tmp_path):
    dataset = Dataset.create(tmp_path / "ds", (1, 1, 1))
    layer = dataset.add_layer("color", "color")
    mag = layer.add_mag(1, shard_shape=32)
    # Two cubes in one unit: the first is written whole, the second in part, over a damaged cube.
    damaged = tmp_path / "ds" / "color" / "1" / "z0" / "y0" / "x1.wkw"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"not a cube")
    with dask.config.set(num_workers=1), pytest.raises(TaskFailedError, match=r"x1\.wkw"):
        mag.write(np.ones((48, 32, 32), np.uint8))
    assert mag.read(offset=(0, 0, 0), size=(32, 32, 32)).all()
    assert layer.bounding_box == BoundingBox((0, 0, 0), (32, 32, 32))
    assert damaged.read_bytes() == b"not a cube"
