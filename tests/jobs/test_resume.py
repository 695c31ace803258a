"""Jobs that go on where an earlier run stopped; jobs that are other ones; names that mean nothing."""

import glob
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox
from wkdask.arrays.names import why_name_changes
from wkdask.errors import (
    AlreadyExistsError,
    InvalidValueError,
    JobRunningError,
    ResumeError,
    TaskFailedError,
    WkdaskWarning,
)
from wkdask.jobs.events import JobStarted, UnitDone
from wkdask.jobs.settlement import JobTally
from wkdask.storage.publish.jobs import interrupted_jobs, unfinished_jobs

BOX = BoundingBox((100, 37, 5), (150, 70, 60))
META = np.empty((0,) * 4, "uint8")


class Failing:
    """Fails at a block as long as a file is there; named by its arguments only."""

    __name__ = "failing"

    def __init__(self, place, flag):
        self.place, self.flag = place, str(flag)

    def __dask_tokenize__(self):
        return ("Failing", self.place, self.flag)

    def __call__(self, block, block_id=None):
        if block_id is not None and tuple(block_id[1:]) == self.place and os.path.exists(self.flag):
            raise ZeroDivisionError("not yet")
        return 255 - block


class Nameless:
    def __call__(self, block):
        return block


@pytest.fixture
def source(make_mag, random_voxels):
    mag, voxels = make_mag(), random_voxels((1, *BOX.size))
    mag.write(voxels, bounding_box=BOX)
    return mag, voxels


def failing(mag, tmp_path, place=(3, 2, 1)):
    flag = tmp_path / "flag"
    flag.touch()
    return flag, mag.to_dask("cube").map_blocks(Failing(place, flag), dtype="uint8", meta=META)


def only_locks(mag):
    """Return what is in a mag's private folder, but for receipts."""
    return sorted({*os.listdir(f"{mag.path}/.wkdask")} - {"finished"})


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_failed_job_goes_on_where_it_stopped(source, make_mag, tmp_path, compression):
    mag, voxels = source
    target = make_mag(compression=compression)
    flag, x = failing(mag, tmp_path)
    with pytest.raises(TaskFailedError):
        target.write(x, bounding_box=BOX)
    (ticket,) = unfinished_jobs(target.place.store)
    assert ticket.box == BOX
    before = {path: os.stat(path).st_ino for path in cube_files(target)}
    assert before
    flag.unlink()
    events = []
    _, again = failing(mag, tmp_path)
    flag.unlink()
    report = target.write(again, bounding_box=BOX, resume=True, progress=events.append)
    assert np.array_equal(target.read(), 255 - voxels)
    started, *units = [event for event in events if isinstance(event, JobStarted | UnitDone)]
    assert started.units_before > 0
    assert started.units_before + len(units) == started.units
    assert started.cubes_before == report.cubes_before == len(before)
    # the report is that of the whole job
    assert report.cubes == started.cubes
    assert report.bytes == voxels.nbytes
    assert (report.minimum, report.maximum) == (255 - voxels.max(), 255 - voxels.min())
    assert report.bounding_box == target.layer.bounding_box == BOX
    assert {path: os.stat(path).st_ino for path in before} == before  # nothing was done twice
    assert f"{len(before)} of them by earlier runs" in repr(report)
    assert set(only_locks(target)) <= {"locks", "finished"}


def cube_files(mag):
    return [mag.place.store.cube_path(box.topleft // mag.spec.shard_shape) for box in mag.cubes_on_disk()]


def test_without_an_earlier_run_all_is_written(source, make_mag):
    mag, voxels = source
    target = make_mag()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = target.write(255 - mag.to_dask(), bounding_box=BOX, resume=True)
        again = target.write(255 - mag.to_dask(), bounding_box=BOX, resume=True)
    assert np.array_equal(target.read(), 255 - voxels)
    assert report.cubes_before == again.cubes_before == 0
    assert report.cubes == again.cubes


def test_without_resume_all_is_done_again(source, make_mag, tmp_path):
    mag, voxels = source
    target = make_mag()
    flag, x = failing(mag, tmp_path)
    with pytest.raises(TaskFailedError):
        target.write(x, bounding_box=BOX)
    flag.unlink()
    report = target.write(x, bounding_box=BOX)
    assert report.cubes_before == 0
    assert np.array_equal(target.read(), 255 - voxels)
    assert not unfinished_jobs(target.place.store)


def test_another_expression_is_another_job_and_says_so(source, make_mag, tmp_path):
    mag, voxels = source
    target = make_mag()
    _, x = failing(mag, tmp_path)
    with pytest.raises(TaskFailedError):
        target.write(x, bounding_box=BOX)
    with pytest.warns(WkdaskWarning, match="unfinished job, but it is another one"):
        report = target.write(mag.to_dask("cube") // 2, bounding_box=BOX, resume=True)
    assert report.cubes_before == 0
    assert np.array_equal(target.read(), voxels // 2)
    assert not unfinished_jobs(target.place.store)


def test_a_changed_source_is_another_job(source, make_mag, tmp_path):
    mag, voxels = source
    target = make_mag()
    flag, x = failing(mag, tmp_path)
    with pytest.raises(TaskFailedError):
        target.write(x, bounding_box=BOX)
    mag.write(voxels[:, :1, :1, :1], offset=BOX.topleft)
    _, x = failing(mag, tmp_path)
    flag.unlink()
    with pytest.warns(WkdaskWarning, match="another one"):
        target.write(x, bounding_box=BOX, resume=True)
    assert np.array_equal(target.read(), 255 - voxels)


@pytest.mark.slow
def test_a_job_elsewhere_in_the_mag_is_left_alone(source, make_mag, tmp_path):
    mag, voxels = source
    target = make_mag()
    flag, x = failing(mag, tmp_path)
    with pytest.raises(TaskFailedError):
        target.write(x, bounding_box=BOX)
    landed = {path: os.stat(path).st_ino for path in cube_files(target)}
    target.write(voxels[:, :8, :8, :8], offset=(512, 0, 0))
    assert len(unfinished_jobs(target.place.store)) == 1
    flag.unlink()
    report = target.write(x, bounding_box=BOX, resume=True)
    assert report.cubes_before == len(landed)
    assert np.array_equal(target.read(bounding_box=BOX), 255 - voxels)
    # one that touches it takes its place: resumed later it would skip what was written meanwhile
    flag.touch()
    with pytest.raises(TaskFailedError):
        target.write(x, bounding_box=BOX)
    target.write(voxels[:, :8, :8, :8], offset=BOX.topleft)
    assert not unfinished_jobs(target.place.store)


def test_a_name_of_ones_own(source, make_mag, tmp_path):
    mag, voxels = source
    target = make_mag()
    flag, x = failing(mag, tmp_path)
    with pytest.raises(TaskFailedError):
        target.write(x, bounding_box=BOX, job="invert")
    flag.unlink()
    with pytest.raises(ResumeError, match="unfinished job 'invert' writes the box"):
        target.write(x[:, 1:], offset=BOX.topleft, resume=True, job="invert")
    same = da.from_array(255 - voxels, chunks=32, name=False)
    report = target.write(same, bounding_box=BOX, resume=True, job="invert")
    assert report.cubes_before > 0
    assert np.array_equal(target.read(), 255 - voxels)


def test_a_numpy_array_is_recognised_by_its_voxels(make_mag, random_voxels):
    voxels = random_voxels((1, *BOX.size))
    target, seen = make_mag(), []

    def stop(event):
        if isinstance(event, UnitDone):
            seen.append(event)
            if len(seen) == 2:
                raise KeyboardInterrupt

    with dask.config.set(num_workers=1), pytest.raises(KeyboardInterrupt):
        target.write(voxels, bounding_box=BOX, resume=True, progress=stop)
    with pytest.warns(WkdaskWarning, match="another one"):
        target.write(voxels + 1, bounding_box=BOX, resume=True)
    seen.clear()
    with dask.config.set(num_workers=1), pytest.raises(KeyboardInterrupt):
        target.write(voxels, bounding_box=BOX, resume=True, progress=stop)
    report = target.write(voxels.copy(order="F"), bounding_box=BOX, resume=True)
    assert report.cubes_before > 0
    assert np.array_equal(target.read(), voxels)


def test_a_job_that_was_interrupted_before_it_heard_of_a_task_is_resumed(
    make_mag, random_voxels, monkeypatch
):
    """Ctrl-C while the first tasks run: these publish, and the same call does not do them again."""
    voxels, target = random_voxels((1, *BOX.size)), make_mag()
    add, calls = JobTally.add, []

    def interrupted(self, outcome):
        calls.append(outcome)
        if len(calls) == 1:
            raise KeyboardInterrupt
        add(self, outcome)

    monkeypatch.setattr(JobTally, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        target.write(voxels, bounding_box=BOX, resume=True)
    report = target.write(voxels, bounding_box=BOX, resume=True)
    assert report.cubes_before > 0
    assert np.array_equal(target.read(), voxels)


def random_arrays():
    shape, chunks = (1, 64, 64, 64), 32
    delayed = dask.delayed(np.zeros)((1, 64, 64, 64), "uint8")
    return {
        "unseeded": da.random.default_rng().integers(0, 9, shape, dtype="uint8", chunks=chunks),
        "of the module": da.random.randint(0, 9, shape, chunks=chunks).astype("uint8"),
        "delayed": da.from_delayed(delayed, shape, "uint8") + 1,
    }


@pytest.mark.parametrize("kind", ["unseeded", "of the module", "delayed"])
def test_arrays_that_are_named_by_chance_are_not_resumed(make_mag, kind):
    x, target = random_arrays()[kind], make_mag()
    with pytest.raises(ResumeError, match="non-deterministic"):
        target.write(x, resume=True)
    assert not os.path.exists(f"{target.path}/.wkdask")
    assert target.write(x, resume=True, job="mine").cubes == 8


def test_arrays_with_a_name_of_their_own(source):
    mag, voxels = source
    seeded = da.random.default_rng(7).integers(0, 9, (1, 64, 64, 64), dtype="uint8", chunks=32)
    assert "address of an object" in why_name_changes(mag.to_dask().map_blocks(Nameless()) + 1)
    for x in (seeded, seeded + 1, mag.to_dask(), da.from_array(voxels), da.zeros((1, 9, 9, 9)) + 1):
        assert why_name_changes(x, thorough=True) is None


def test_what_is_not_durable_is_not_resumed(make_mag):
    with pytest.raises(InvalidValueError, match="durable"):
        make_mag().write(da.zeros((1, 64, 64, 64), dtype="uint8"), resume=True, durable=False)


# --- killed drivers -------------------------------------------------------------------------------------


DRIVER = """
import os, sys, time
import numpy as np
from wkdask import Dataset

def slow(block):
    time.sleep(float(sys.argv[4]))
    if hold := os.environ.get("WKDASK_TEST_HOLD"):
        open(f"{hold}.begun", "w").close()
        while not os.path.exists(hold):
            time.sleep(0.01)
    return 255 - block

source = Dataset(sys.argv[1]).get_layer("layer").get_mag(1)
target = Dataset(sys.argv[2]).get_layer("layer").get_mag(1)
x = source.to_dask("cube").map_blocks(slow, dtype="uint8", meta=np.empty((0,) * 4, "uint8"))
print("ready", flush=True)
report = target.write(x, bounding_box=source.layer.bounding_box, resume=sys.argv[3] == "resume")
print("done", report.cubes, report.cubes_before, flush=True)
"""


def start_driver(source, target, mode="resume", pause=0.02, hold=None):
    """Start a job in a process; with `hold` its blocks wait for that file, and ``<hold>.begun`` says so."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, source.place.dataset_path, target.place.dataset_path, mode, str(pause)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | ({} if hold is None else {"WKDASK_TEST_HOLD": str(hold)}),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    _, cubes, before = out.split()
    return int(cubes), int(before)


def kill_after(process, target, seconds, number=signal.SIGKILL):
    time.sleep(seconds)
    process.send_signal(number)
    process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data_format", "compression"), [("wkw", None), ("wkw", "lz4"), ("zarr3", "zstd"), ("zarr3", False)]
)
def test_a_killed_driver_is_gone_on_from(source, make_mag, data_format, compression):
    mag, voxels = source
    target = make_mag(data_format=data_format, compression=compression)
    process = start_driver(mag, target, pause=0.05)
    deadline = time.monotonic() + 60
    while len(list(target.cubes_on_disk())) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    landed = {path: os.stat(path).st_ino for path in cube_files(target)}
    assert target.layer.bounding_box.is_empty()  # nobody lived to commit it
    cubes, before = finish(start_driver(mag, target, pause=0))
    assert cubes == target.plan_write(mag.to_dask(), bounding_box=BOX).plan.num_cubes
    assert len(landed) - 8 <= before <= len(landed)  # what two threads were at, and what was not yet noted
    kept = [path for path, inode in landed.items() if os.stat(path).st_ino == inode]
    assert len(kept) >= before  # redone at most what was in flight
    assert target.layer.bounding_box == BOX
    assert np.array_equal(target.read(), 255 - voxels)
    assert set(only_locks(target)) <= {"locks", "finished"}


@pytest.mark.slow
def test_a_job_that_is_running_is_left_alone(source, make_mag, tmp_path):
    mag, voxels = source
    target = make_mag()
    hold = tmp_path / "hold"
    process = start_driver(mag, target, pause=0, hold=hold)
    try:
        while not Path(f"{hold}.begun").exists():
            time.sleep(0.01)
        with start_driver(mag, target) as again:
            _, err = again.communicate(timeout=200)
        assert again.returncode != 0
        assert JobRunningError.__name__ in err
        target.write(voxels[:, :8, :8, :8], offset=(512, 0, 0))  # another job beside it
    finally:
        hold.touch()
        _, before = finish(process)
    assert before == 0
    assert np.array_equal(target.read(bounding_box=BOX), 255 - voxels)


def check_in_place(mag, voxels):
    """Whatever state a killed in-place job left, the same call with resume inverts once."""
    finish(start_driver(mag, mag, pause=0))
    assert np.array_equal(mag.read(), 255 - voxels)
    assert set(only_locks(mag)) <= {"locks", "finished"}


@pytest.mark.slow
def test_an_in_place_job_killed_while_it_builds(source):
    mag, voxels = source
    process = start_driver(mag, mag, pause=0.05)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    assert np.array_equal(mag.read(), voxels)
    check_in_place(mag, voxels)


def killed_in_second_phase(mag):
    """Kill an in-place job when some of its cubes, not all, have taken their place."""
    inodes = {path: os.stat(path).st_ino for path in cube_files(mag)}
    process = start_driver(mag, mag, pause=0)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        replaced = sum(os.stat(path).st_ino != inode for path, inode in inodes.items())
        if replaced:
            break
    process.kill()
    process.communicate()
    return sum(os.stat(path).st_ino != inode for path, inode in inodes.items()), len(inodes)


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["wkw", "zarr3"])
@pytest.mark.parametrize("then", ["resume", "write elsewhere", "overwrite"])
def test_an_in_place_job_killed_while_it_publishes(make_mag, random_voxels, then, data_format):
    mag, voxels = make_mag(data_format=data_format), random_voxels((1, *BOX.size))
    for _ in range(10):
        mag.write(voxels, bounding_box=BOX)
        replaced, cubes = killed_in_second_phase(mag)
        if 0 < replaced < cubes and interrupted_jobs(mag.place.store):
            break
    else:
        pytest.fail("no kill hit the second phase")
    with pytest.warns(WkdaskWarning, match="half replaced"):
        name = mag.to_dask("cube").name
    expected = 255 - voxels
    if then == "resume":
        check_in_place(mag, voxels)
        assert mag.to_dask("cube").name != name
        return
    if then == "write elsewhere":  # the next job finishes it first
        mag.write(voxels[:, :8, :8, :8], offset=(512, 0, 0))
    else:
        mag.write(voxels[:, :40, :40, :40], bounding_box=BOX.with_size((40, 40, 40)))
        expected[:, :40, :40, :40] = voxels[:, :40, :40, :40]
    assert np.array_equal(mag.read(bounding_box=BOX), expected)
    assert set(only_locks(mag)) <= {"locks", "finished"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_told_to_stop_commits_and_is_gone_on_from(source, make_mag, number):
    mag, voxels = source
    target = make_mag()
    process = start_driver(mag, target, pause=0.1)
    while not next(iter(target.cubes_on_disk()), None):
        time.sleep(0.01)
    start = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert time.monotonic() - start < 15
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT)
    landed = len(list(target.cubes_on_disk()))
    assert not target.layer.bounding_box.is_empty()
    _, before = finish(start_driver(mag, target, pause=0))
    assert landed - 4 <= before <= landed
    assert np.array_equal(target.read(), 255 - voxels)


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lz4"])
@pytest.mark.parametrize("in_place", [False, True])
def test_drivers_killed_at_random(make_mag, random_voxels, compression, in_place):
    rng = np.random.default_rng(11)
    for seed in range(int(os.environ.get("WKDASK_KILLS", "4"))):
        mag, voxels = make_mag(compression=compression), random_voxels((1, *BOX.size), seed=seed)
        mag.write(voxels, bounding_box=BOX)
        target = mag if in_place else make_mag(compression=compression)
        for _ in range(3):
            kill_after(start_driver(mag, target, pause=0.01), target, rng.uniform(0, 0.8))
        finish(start_driver(mag, target, pause=0))
        # killed before it had begun, or after its end, an in-place job inverts once more or less
        got = target.read(bounding_box=BOX)
        assert np.array_equal(got, 255 - voxels) or (in_place and np.array_equal(got, voxels))
        assert set(only_locks(target)) <= {"locks", "finished"}


def test_the_place_of_an_unfinished_job_is_known(make_mag, tmp_path):
    """Where nothing says it: the box of the layer is not what it was when the job began."""
    target, flag = make_mag(), tmp_path / "flag"
    flag.touch()

    def fails_at_first(block, block_id=None):
        if block_id is not None and block_id[1] == 0 and flag.exists():
            raise ZeroDivisionError("not yet")
        return block

    x = da.ones((1, 128, 64, 64), chunks=(1, 32, 32, 32), dtype="uint8")
    x = x.map_blocks(fails_at_first, dtype="uint8", meta=META)
    with pytest.raises(TaskFailedError):
        target.write(x)
    assert target.layer.bounding_box.topleft != (0, 0, 0)
    flag.unlink()
    assert target.write(x, resume=True).cubes_before > 0
    assert target.layer.bounding_box == BoundingBox((0, 0, 0), (128, 64, 64))


# --- pyramids -------------------------------------------------------------------------------------------


PYRAMID = """
import sys, time
import dask
import wkdask.pyramid.job as pyramid
import wkdask.pyramid.plan as plan
from wkdask import Dataset

def slow(*arguments):
    time.sleep(float(sys.argv[3]))
    return run_node(*arguments)

run_node, pyramid.run_node, plan.LEAF_NBYTES = pyramid.run_node, slow, 1 << 18  # leaves of one cube of mag 2
layer = Dataset(sys.argv[1]).get_layer("layer")
print("ready", flush=True)
with dask.config.set(num_workers=2):
    reports = layer.downsample(coarsest_mag=8, resume=sys.argv[2] == "resume", compression=None)
print("done", sum(report.cubes for report in reports), flush=True)
"""


def start_pyramid(mag, mode, pause):
    process = subprocess.Popen(
        [sys.executable, "-c", PYRAMID, mag.place.dataset_path, mode, str(pause)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_pyramid_goes_on_where_it_stopped(make_mag, random_voxels, number):
    whole, mag = make_mag(), make_mag()
    voxels = random_voxels((1, 256, 192, 256))
    for each in (whole, mag):
        each.write(voxels)
    expected = whole.layer.downsample(coarsest_mag=8, compression=None)
    process = start_pyramid(mag, "first", 0.05)
    first = f"{mag.layer.path}/2"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(glob.glob(f"{first}/z*/*/*.wkw")) < 10:
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=60)
    landed = {path: os.stat(path).st_ino for path in glob.glob(f"{first}/z*/*/*.wkw")}
    with pytest.raises(AlreadyExistsError, match="resume=True"):
        mag.layer.downsample(coarsest_mag=8)
    process = start_pyramid(mag, "resume", 0)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert int(out.split()[1]) == sum(report.cubes for report in expected)
    for level in (2, 4, 8):
        got, want = mag.layer.get_mag(level), whole.layer.get_mag(level)
        assert np.array_equal(got.read(), want.read())
        assert only_locks(got) == ["locks"]
    kept = [path for path, inode in landed.items() if os.stat(path).st_ino == inode]
    assert kept, "nothing was kept of what had been done"
    again = mag.layer.downsample(coarsest_mag=8, resume=True)  # answered by its receipt
    assert [(report.was_finished, report.cubes) for report in again] == [
        (True, each.cubes) for each in expected
    ]


@pytest.mark.parametrize("in_place", [False, True])
def test_what_a_finished_job_left_goes_when_it_is_called_again(
    make_mag, random_voxels, monkeypatch, leftovers, in_place
):
    mag, other, voxels = make_mag(), make_mag(), random_voxels((1, *BOX.size))
    mag.write(voxels, bounding_box=BOX)
    target = mag if in_place else other
    with monkeypatch.context() as patch:  # killed after the receipt, before the folders went
        patch.setattr("wkdask.storage.publish.jobs.remove_folder", lambda path: None)
        target.write(255 - mag.to_dask(), bounding_box=BOX)
    (left,) = {*only_locks(target)} - {"locks", "finished"}
    os.makedirs(f"{target.path}/.wkdask/.{left}.gone-{'0' * 32}/inside")
    report = target.write(255 - mag.to_dask(), bounding_box=BOX, resume=True)
    assert report.was_finished
    assert {*only_locks(target)} <= {"locks", "finished"}
    assert np.array_equal(target.read(), 255 - voxels)
    target.rechunk(16, 64)  # refused while a job seemed to have more to do
    assert np.array_equal(target.read(), 255 - voxels)


def test_data_without_a_place_never_go_where_another_job_began(source, make_mag, tmp_path):
    mag, voxels = source
    target, elsewhere = make_mag(), BOX.offset((400, 0, 0))
    flag, x = failing(mag, tmp_path)
    with pytest.raises(TaskFailedError):
        target.write(x, bounding_box=elsewhere)
    assert [job.box for job in unfinished_jobs(target.place.store)] == [elsewhere]
    target.layer.bounding_box = BoundingBox((0, 0, 0), elsewhere.bottomright)
    target.write(voxels, resume=True)  # of the same size
    assert np.array_equal(target.read(bounding_box=BoundingBox((0, 0, 0), BOX.size)), voxels)
    flag.unlink()
    target.write(x, bounding_box=elsewhere, resume=True)
    assert np.array_equal(target.read(bounding_box=elsewhere), 255 - voxels)
    assert np.array_equal(target.read(bounding_box=BoundingBox((0, 0, 0), BOX.size)), voxels)
