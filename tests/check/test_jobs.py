"""What jobs leave, dead or alive, as a check sees it."""

import signal
import threading

import dask.array as da
import numpy as np
import pytest
from damage import sound_dataset

from wkdask import Dataset
from wkdask.check.repair import mend
from wkdask.check.run import check_dataset
from wkdask.jobs.job import WriteOptions

KILLED = """
import os, signal, sys
import dask.array as da
import numpy as np
import wkdask

os.chdir(args[0])

def block(block_info=None):
    if block_info[None]["chunk-location"][1] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    shape = block_info[None]["chunk-shape"]
    return np.full(shape, 7, "uint8")

ds = wkdask.Dataset("ds")
array = da.map_blocks(block, chunks=((1,), (64, 64), (64,), (64,)), dtype="uint8", meta=np.empty((0,) * 4, "uint8"))
if args[1] == "write":
    ds.get_layer("color").get_mag(1).write(array, offset=(0, 0, 0), job="killed", resume=True, progress=False)
else:
    def kill(*_): os.kill(os.getpid(), signal.SIGKILL)
    import wkdask.jobs.driver as driver
    driver.commit_job = kill
    ds.get_layer("color").downsample(coarsest_mag=8, resume=True, progress=False)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder, which holds a sound dataset."""
    monkeypatch.chdir(tmp_path)
    sound_dataset(tmp_path / "ds", "wkw")
    return tmp_path


def run_killed(children, here, what):
    """Run a job that is killed while it works."""
    done = children.wait(children.start(KILLED, here, what))
    assert done.code == -signal.SIGKILL, done.out


def codes(report):
    return {each.code for each in report}


def test_an_interrupted_job_is_found_and_forgotten_by_a_repair(here, children):
    run_killed(children, here, "write")
    report = check_dataset(here / "ds")
    assert codes(report) == {"job-unfinished"}
    assert codes(check_dataset(here / "ds")) == {"job-unfinished"}  # a look changes nothing
    before = Dataset("ds").get_layer("color").get_mag(1).read()
    report, done = mend(report, lambda: check_dataset(here / "ds"), WriteOptions(), lambda repairs: True)
    assert codes(report) == set()
    assert ["forget the interrupted job" in each.what for each in done] == [True]
    assert np.array_equal(Dataset("ds").get_layer("color").get_mag(1).read(), before)


def test_a_mag_that_was_never_completed_is_found_and_left_alone(here, children):
    run_killed(children, here, "downsample")
    report = check_dataset(here / "ds")
    assert codes(report) == {"mag-unfinished"}
    left, done = mend(report, lambda: check_dataset(here / "ds"), WriteOptions(), lambda repairs: True)
    assert done == []
    assert codes(left) == {"mag-unfinished"}
    Dataset("ds").get_layer("color").downsample(coarsest_mag=8, resume=True, progress=False)
    assert codes(check_dataset(here / "ds", deep=True)) == set()


def test_a_job_that_was_interrupted_while_it_replaced_cubes_is_not_forgotten(here):
    home = here / "ds/color/1/.wkdask/0123456789ab"
    home.mkdir(parents=True)
    for name in ("alive", "replacing"):
        (home / name).touch()
    report = check_dataset(here / "ds", deep=True)
    assert codes(report) == {"job-replacing"}
    left, _ = mend(report, lambda: check_dataset(here / "ds"), WriteOptions(), lambda repairs: True)
    assert codes(left) == {"job-replacing"}
    assert (home / "replacing").exists()


def test_the_files_of_a_job_at_work_are_no_leftovers(here):
    begun, go_on = threading.Event(), threading.Event()

    def block(block_info=None):
        begun.set()
        assert go_on.wait(60)
        return np.full(block_info[None]["chunk-shape"], 9, "uint8")

    array = da.map_blocks(
        block, chunks=((1,), (64,), (64,), (32,)), dtype="uint8", meta=np.empty((0,) * 4, "uint8")
    )
    mag = Dataset("ds").get_layer("color").get_mag(1)
    writing = threading.Thread(target=lambda: mag.write(array, offset=(0, 0, 0), progress=False))
    writing.start()
    try:
        assert begun.wait(60)
        report = check_dataset(here / "ds")
        assert codes(report) == {"job-running"}
        assert report.is_clean
        left, done = mend(report, lambda: check_dataset(here / "ds"), WriteOptions(), lambda repairs: True)
        assert (codes(left), done) == ({"job-running"}, [])
    finally:
        go_on.set()
        writing.join()
    assert (mag.read(absolute_offset=(0, 0, 0), size=(64, 64, 32)) == 9).all()


def test_a_linked_mag_is_checked_and_never_changed(here):
    other = Dataset.create("other", (4, 4, 4))
    source = Dataset("ds").get_layer("color")
    other.add_symlink_layer(source, "linked")
    assert codes(check_dataset("other", deep=True)) == set()
    home = here / "ds/color/1/.wkdask/0123456789ab"
    home.mkdir(parents=True)
    report = check_dataset("other")
    assert codes(report) == {"leftover"}
    _, done = mend(report, lambda: check_dataset("other"), WriteOptions(), lambda repairs: True)
    assert done == []
    assert home.exists()
