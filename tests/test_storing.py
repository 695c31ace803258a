"""Several expressions, one job: what they share is read once, whatever the mags are like."""

import os
import signal
import threading

import dask
import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox, store
from wkdask.arrays.lazy import LazySource
from wkdask.errors import InvalidValueError, PlanError, ReadOnlyError, ResumeError, TaskFailedError
from wkdask.jobs.events import JobStarted, UnitDone

BOX = BoundingBox((100, 38, 6), (150, 70, 60))
META = np.empty((0,) * 4, "uint8")


@pytest.fixture
def source(make_mag, random_voxels):
    """Return (mag, its voxels) in `BOX`."""
    mag, voxels = make_mag(), random_voxels((1, *BOX.size))
    mag.write(voxels, bounding_box=BOX)
    return mag, voxels


@pytest.fixture
def reads(monkeypatch):
    """Return the boxes that lazy arrays read."""
    seen, guard, real = [], threading.Lock(), LazySource.__getitem__

    def note(self, index):
        with guard:
            seen.append(str(index))
        return real(self, index)

    monkeypatch.setattr(LazySource, "__getitem__", note)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("chunks", ["cube", 16, None])
def test_each_input_is_read_once(source, make_mag, reads, chunks, leftovers):
    mag, voxels = source
    x = mag.to_dask(chunks)
    low, high, wide = make_mag(), make_mag(cube=64, compression="lz4"), make_mag("uint16", cube=16)
    events = []
    reports = store(
        [
            (255 - x, low, BOX),
            ((x > 9).astype("uint8")[0], high, BOX),  # (x, y, z), of one channel
            (x.astype("uint16") * 3, wide, BOX),
        ],
        progress=events.append,
    )
    assert np.array_equal(low.read(), 255 - voxels)
    assert np.array_equal(high.read(), voxels > 9)
    assert np.array_equal(wide.read(), voxels.astype("uint16") * 3)
    assert len(reads) == len(set(reads)) == x.npartitions
    for report, view in zip(reports, (low, high, wide), strict=True):
        assert report.label == view.place.label
        assert report.dataset_path == view.place.dataset_path
        assert report.bounding_box == view.layer.bounding_box == BOX
        assert report.cubes == len(view.spec.grid.cubes(BOX))
        assert report.bytes == voxels.size * view.spec.bytes_per_voxel
        assert leftovers(view) == []
    assert (reports[0].minimum, reports[0].maximum) == (255 - voxels.max(), 255 - voxels.min())
    assert [type(event) for event in events].count(JobStarted) == 1


def test_other_mags_and_channels(make_mag, random_voxels):
    mag, mean, half = make_mag(channels=3), make_mag("float32"), make_mag(channels=3, mag=2)
    voxels = random_voxels((3, *BOX.size))
    mag.write(voxels, bounding_box=BOX)
    x = mag.to_dask()
    store([(x[:, ::2, ::2, ::2], half, BOX), (x.mean(axis=0, dtype="float32", keepdims=True), mean, BOX)])
    assert np.array_equal(half.read(), voxels[:, ::2, ::2, ::2])
    assert np.array_equal(mean.read()[0], voxels.mean(axis=0, dtype="float32"))


def test_a_mag_that_is_also_read(source, make_mag, leftovers):
    mag, voxels = source
    other, x = make_mag(), mag.to_dask("cube")
    x = x.map_overlap(lambda block: np.roll(block, 1, axis=1), depth={1: 1}, boundary="periodic")
    reports = store([(x + np.uint8(1), other, BOX), (x, mag, BOX)])
    assert np.array_equal(mag.read(), np.roll(voxels, 1, axis=1))
    assert np.array_equal(other.read(), np.roll(voxels, 1, axis=1) + np.uint8(1))
    assert [report.label for report in reports] == [other.place.label, mag.place.label]
    assert leftovers(mag) == leftovers(other) == []


def test_many_windows(source, make_mag, monkeypatch):
    import wkdask.jobs.plan
    import wkdask.storing

    monkeypatch.setattr(wkdask.jobs.plan, "SINGLE_WINDOW_UNITS", 4)
    monkeypatch.setattr(wkdask.jobs.plan, "WINDOW_UNITS", 4)
    monkeypatch.setattr(wkdask.storing, "UNIT_NBYTES", 1)
    mag, voxels = source
    x, low, half = mag.to_dask("cube"), make_mag(), make_mag(mag=2)
    store([(255 - x, low, BOX), (x[:, ::2, ::2, ::2], half, BOX)])
    assert np.array_equal(low.read(), 255 - voxels)
    assert np.array_equal(half.read(), voxels[:, ::2, ::2, ::2])
    with pytest.raises(PlanError, match="common tasks"):
        store([(x, low, BOX), ((x > x.mean()).astype("uint8"), make_mag(), BOX)])


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


def test_a_failed_job_goes_on_where_it_stopped(
    source, make_mag, tmp_path, monkeypatch, box_covers_what_landed
):
    import wkdask.storing

    monkeypatch.setattr(wkdask.storing, "UNIT_NBYTES", 1)
    mag, voxels = source
    low, wide, flag = make_mag(), make_mag("uint16"), tmp_path / "flag"

    def writes():
        x = mag.to_dask("cube").map_blocks(Failing((3, 2, 1), flag), dtype="uint8", meta=META)
        return [(x, low, BOX), (x.astype("uint16"), wide, BOX)]

    flag.touch()
    with pytest.raises(TaskFailedError):
        store(writes())
    for view in (low, wide):
        assert 0 < box_covers_what_landed(view, BOX) < len(view.spec.grid.cubes(BOX))
    flag.unlink()
    events = []
    reports = store(writes(), resume=True, progress=events.append)
    assert events[0].units_before > 0
    assert events[0].units_before + sum(isinstance(event, UnitDone) for event in events) == events[0].units
    assert np.array_equal(low.read(), 255 - voxels)
    assert np.array_equal(wide.read(), (255 - voxels).astype("uint16"))
    assert [report.cubes for report in reports] == [len(low.spec.grid.cubes(BOX))] * 2


@pytest.mark.slow
@pytest.mark.cluster
def test_on_workers_of_which_one_is_killed(source, make_mag, client):
    mag, voxels = source
    low, high, killed = make_mag(), make_mag("uint16", compression="lz4"), []
    pids = list(client.run(os.getpid).values())

    def slow(block):
        import time

        time.sleep(0.03)
        return 255 - block

    def kill_one(event):
        if isinstance(event, UnitDone) and not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    x = mag.to_dask("cube").map_blocks(slow, dtype="uint8", meta=META)
    store([(x, low, BOX), (x.astype("uint16"), high, BOX)], progress=kill_one)
    assert killed
    assert np.array_equal(low.read(), 255 - voxels)
    assert np.array_equal(high.read(), (255 - voxels).astype("uint16"))
    client.wait_for_workers(2, timeout=60)


def test_what_is_refused(source, make_mag, new, state_of):
    mag, voxels = source
    x, target = mag.to_dask(), make_mag()
    before = state_of(target)
    with pytest.raises(InvalidValueError, match="empty"):
        store([])
    with pytest.raises(InvalidValueError, match="numpy"):
        store([(voxels, target, BOX)])
    with pytest.raises(InvalidValueError, match="expected"):
        store([(x,)])
    with pytest.raises(InvalidValueError, match="same mag"):
        store([(x, target, BOX), (x, target, BOX)])
    with pytest.raises(PlanError, match="one box"):
        store([(x, target, BOX), (x, make_mag(), BOX.offset((1, 0, 0)))])
    with pytest.raises(PlanError, match="would need"):
        store([(x, target, BOX), (x + 1, make_mag(), BOX)], task_memory=1 << 60)
    with pytest.raises(ResumeError, match="job="):
        store([(x, target, BOX), (da.random.random(x.shape).astype("uint8"), make_mag(), BOX)], resume=True)
    with pytest.raises(ReadOnlyError):
        store([(x, new().add_symlink_layer(mag.layer.path, writable=False).get_mag(1), BOX)])
    assert state_of(target) == before
    with dask.config.set(num_workers=1):
        assert [report.bounding_box for report in store([(x, target, BOX)])] == [BOX]


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["wkw", "zarr3"])
def test_mags_that_are_all_read_and_replaced(make_mag, random_voxels, data_format):
    first, second = (random_voxels((1, *BOX.size), seed=seed) for seed in (1, 2))
    a, b = make_mag(data_format=data_format), make_mag(data_format=data_format)
    a.write(first, bounding_box=BOX)
    b.write(second, bounding_box=BOX)
    x, y = a.to_dask(), b.to_dask()
    store([(x + y, a, BOX), (x - y, b, BOX)])
    assert np.array_equal(a.read(bounding_box=BOX), first + second)
    assert np.array_equal(b.read(bounding_box=BOX), first - second)
