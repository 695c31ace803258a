"""A function for every chunk: each chunk once, each cube once, whatever the function does."""

import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import wkdask
from wkdask import BoundingBox, Dataset
from wkdask.errors import (
    AlignmentError,
    InvalidValueError,
    OutOfBoundsError,
    ReadOnlyError,
    TaskFailedError,
    WkdaskWarning,
)
from wkdask.fsio import lock
from wkdask.geometry import Vec3Int
from wkdask.geometry.grid import box_tiles
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone
from wkdask.jobs.tasks import Target, landed_reports
from wkdask.operations.chunks import ChunkedView, chunk_shape_2021, chunks_unit
from wkdask.storage.publish.jobs import job_folder

BOX = BoundingBox((37, 5, 70), (100, 70, 60))
"""Unaligned to everything."""


@pytest.fixture
def filled(make_mag, random_voxels):
    """Return a function that makes (mag, its voxels in `BOX`), the voxels small enough to add 50."""

    def fill(box=BOX, **options):
        mag = make_mag(**options)
        voxels = random_voxels((mag.num_channels, *box.size)) // 2
        mag.write(voxels.astype(mag.get_dtype()), offset=box.topleft)
        return mag, voxels.astype(mag.get_dtype())

    return fill


def add_fifty(argument):
    view, _ = argument
    view.write(view.read() + np.uint8(50))


def expected_chunks(box, side):
    """Return the boxes of the chunks of a box on the absolute grid, x fastest."""
    return list(box_tiles(box, (side, side, side), (side, side, side)))


# --- every voxel once -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
@pytest.mark.parametrize("cube", [32, 64, 128])
def test_an_increment_reaches_every_voxel_once(filled, leftovers, compression, cube):
    mag, voxels = filled(cube=cube, compression=compression)
    around = mag.read((0, 0, 0), (256, 256, 256)).copy()
    events = []
    report = mag.for_each_chunk(add_fifty, (64, 64, 64), progress=events.append)
    assert np.array_equal(mag.read(), voxels + 50)
    around[(slice(None), *BOX.to_slices())] += 50
    assert np.array_equal(mag.read((0, 0, 0), (256, 256, 256)), around)
    cubes = len(mag.spec.grid.cubes(BOX))
    assert report.cubes == cubes == len(list(mag.cubes_on_disk()))
    assert sum(event.report.cubes for event in events if isinstance(event, UnitDone)) == cubes
    assert report.bounding_box == mag.layer.bounding_box == BOX
    assert report.bytes == voxels.nbytes
    assert (report.minimum, report.maximum) == (voxels.min() + 50, voxels.max() + 50)
    assert (type(events[0]), type(events[-1])) == (JobStarted, JobFinished)
    assert leftovers(mag) == []


@pytest.mark.cluster
@pytest.mark.parametrize("cube", [pytest.param(32, marks=pytest.mark.slow), 128])
def test_an_increment_on_workers(filled, leftovers, client, cube):
    mag, voxels = filled(cube=cube, compression="lz4")

    def add(argument):
        view, _ = argument
        view.write(view.read() + 50)

    report = mag.for_each_chunk(add, (64, 64, 64))
    assert np.array_equal(mag.read(), voxels + 50)
    assert report.cubes == len(mag.spec.grid.cubes(BOX))
    assert mag.layer.bounding_box == BOX
    assert leftovers(mag) == []


def test_a_view_leaves_what_is_around_it(filled):
    mag, voxels = filled()
    inner = BoundingBox((60, 30, 80), (77, 41, 33))
    mag.get_view(inner.topleft, inner.size).for_each_chunk(add_fifty, (64, 64, 64))
    expected = voxels.copy()
    expected[(slice(None), *inner.to_slices(BOX.topleft))] += 50
    assert np.array_equal(mag.read(), expected)


def test_chunks_lie_on_the_absolute_grid_clipped_and_numbered_x_fastest(filled):
    mag, _ = filled()
    seen = mag.map_chunk(lambda view: (view.box, view.size, view.read_only), (64, 64, 64))
    boxes = expected_chunks(BOX, 64)
    assert len(boxes) == 3 * 2 * 2
    assert seen == [(box, box.size, False) for box in boxes]
    numbers = []
    mag.for_each_chunk(lambda argument: numbers.append((argument[1], argument[0].box)), (64, 64, 64))
    assert sorted(numbers) == list(enumerate(boxes))


def test_a_chunk_is_a_cube_by_default(filled):
    mag, _ = filled(cube=64)
    assert mag.map_chunk(lambda view: view.box) == expected_chunks(BOX, 64)


def test_chunks_of_a_coarse_mag_count_its_own_voxels(make_mag, random_voxels):
    mag, voxels = make_mag(mag=(2, 2, 1)), random_voxels((1, 50, 70, 40)) // 2
    mag.write(voxels, offset=(10, 10, 10))
    report = mag.for_each_chunk(add_fifty, (32, 32, 32))
    assert np.array_equal(mag.read(), voxels + 50)
    assert report.bounding_box == mag.layer.bounding_box == BoundingBox((20, 20, 10), (100, 140, 40))


# --- what a function writes -----------------------------------------------------------------------------


def test_some_chunks_only(filled):
    mag, voxels = filled(cube=64)

    def odd(argument):
        view, number = argument
        if number % 2:
            view.write(view.read() + np.uint8(50))

    report = mag.for_each_chunk(odd, (32, 32, 32))
    expected = voxels.copy()
    written = [box for number, box in enumerate(expected_chunks(BOX, 32)) if number % 2]
    for box in written:
        expected[(slice(None), *box.to_slices(BOX.topleft))] += 50
    assert np.array_equal(mag.read(), expected)
    assert report.bytes == sum(box.volume() for box in written)
    assert report.cubes == len({box.topleft // 64 for box in written})


def test_nothing(filled, state_of):
    mag, voxels = filled()
    before = state_of(mag)
    assert mag.for_each_chunk(lambda argument: None, (64, 64, 64)) is None
    assert state_of(mag) == before
    empty = mag.get_view((40, 10, 80), (0, 10, 10))
    assert empty.for_each_chunk(add_fifty, (64, 64, 64)) is None
    assert empty.map_chunk(lambda view: 1, (64, 64, 64)) == []
    assert np.array_equal(mag.read(), voxels)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_parts_overlaps_and_repetitions(filled, compression):
    mag, voxels = filled(cube=128, compression=compression)

    def scribble(argument):
        view, _ = argument
        view.write(np.full(view.size, 1, "uint8"))
        half = view.size // 2
        view.write(np.full(half.pairmax(1), 2, "uint8"), offset=view.size - half.pairmax(1))
        view.write(np.full((1, 1, 1), 3, "uint8"))
        seen = view.read()
        view.write(seen + np.uint8(10))
        view.write(np.zeros((1, 1, 1), "uint8"))

    report = mag.for_each_chunk(scribble, (64, 64, 64))
    expected = np.zeros_like(voxels)
    for box in expected_chunks(BOX, 64):
        half = (box.size // 2).pairmax(1)
        part = np.full(box.size, 11, "uint8")
        part[tuple(slice(low, None) for low in box.size - half)] = 12
        part[0, 0, 0] = 0
        expected[(slice(None), *box.to_slices(BOX.topleft))] = part
    assert np.array_equal(mag.read(), expected)
    assert report.cubes == len(list(mag.cubes_on_disk()))


def test_a_write_of_a_lazy_array_inside_of_a_task(filled):
    mag, voxels = filled()

    def lazily(argument):
        view, _ = argument
        view.write(da.full(view.size, 7, dtype="uint8", chunks=16) + view.to_dask())

    mag.for_each_chunk(lazily, (64, 64, 64))
    assert np.array_equal(mag.read(), voxels + 7)


def test_a_dataset_that_grows_has_the_exact_box(make_mag):
    mag = make_mag()
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (200, 200, 200))
    view = mag.get_view((10, 20, 30), (150, 100, 90))
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (0, 0, 0))

    def centre(argument):
        chunk, _ = argument
        if chunk.box.contains_bbox(BoundingBox((70, 70, 70), (1, 1, 1))):
            chunk.write(np.ones((3, 4, 5), "uint8"), offset=(5, 6, 7))

    report = view.for_each_chunk(centre, (64, 64, 64))
    corner = (64 + 5, 64 + 6, 64 + 7)
    assert report.bounding_box == mag.layer.bounding_box == BoundingBox(corner, (3, 4, 5))
    assert report.cubes == 1
    assert mag.read().sum() == 60


# --- other mags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_a_function_writes_into_another_dataset(filled, make_mag, leftovers, read_only):
    mag, voxels = filled()
    other = make_mag(compression="lz4", cube=64)
    view = mag.get_view(BOX.topleft, BOX.size, read_only=read_only)

    def invert(argument):
        chunk, _ = argument
        other.write(255 - chunk.read(), offset=chunk.global_offset)

    assert view.for_each_chunk(invert, (64, 64, 64)) is None  # nothing went into the view's own mag
    assert np.array_equal(other.read(), 255 - voxels)
    assert other.layer.bounding_box == BOX
    assert np.array_equal(mag.read(), voxels)
    assert leftovers(mag) == leftovers(other) == []


@pytest.mark.cluster
def test_boxes_of_several_mags_are_noted_from_workers(filled, make_mag, client):
    mag, voxels = filled()
    ds = Dataset(mag.place.dataset_path)
    mag2 = mag.layer.add_mag(2, chunk_shape=16, shard_shape=32)
    cells = ds.add_layer("cells", "segmentation", dtype_per_channel="uint32").add_mag(
        1, chunk_shape=16, shard_shape=32
    )
    other = make_mag()

    def everywhere(argument):
        view, _ = argument
        data = view.read()
        view.write(data + 1)
        cells.write(data.astype("uint32") * 1000, offset=view.global_offset)
        mag2.write(data[:, :1, :1, :1], offset=(300, 300, 300))
        other.write(data[:, ::2, ::2, ::2], offset=view.global_offset // 2)

    report = mag.for_each_chunk(everywhere, (64, 64, 64))
    assert np.array_equal(mag.read(BOX.topleft, BOX.size), voxels + 1)
    assert np.array_equal(cells.read(BOX.topleft, BOX.size), voxels.astype("uint32") * 1000)
    assert report.bounding_box == BOX
    assert ds.get_layer("cells").bounding_box == BOX
    assert ds.get_layer("cells").largest_segment_id == int(voxels.max()) * 1000
    assert mag.layer.bounding_box == BOX.extended_by(BoundingBox((600, 600, 600), (2, 2, 2)))
    assert other.layer.bounding_box.contains_bbox(BoundingBox((19, 3, 35), (49, 34, 29)))


def test_the_own_box_is_noted_also_if_another_dataset_is_gone(make_mag):
    mag, other = make_mag(), make_mag()
    properties = Path(other.place.dataset_path, "datasource-properties.json")
    elsewhere = wkdask.View(other.place, BOX)

    def both(argument):
        view, _ = argument
        view.write(np.ones((1, 1, 1), "uint8"))
        elsewhere.write(np.ones((1, 1, 1), "uint8"))

    with pytest.raises(OSError, match="no dataset"):
        wkdask.View(mag.place, BOX).for_each_chunk(
            both, (256, 256, 256), progress=lambda event: properties.unlink(missing_ok=True)
        )
    assert mag.layer.bounding_box == BoundingBox(BOX.topleft, (1, 1, 1))


# --- tasks that run again -------------------------------------------------------------------------------


@pytest.mark.cluster
def test_an_increment_is_not_repeated_when_its_task_is(filled, make_mag, client, leftovers):
    """The own cubes are published, then those of another mag fail: the scheduler runs the task again."""
    mag, voxels = filled(BoundingBox((0, 0, 0), (64, 64, 64)), cube=64)
    other = make_mag(compression="lz4")
    other.write(np.ones((32, 32, 32), "uint8"))
    cube = Path(other.place.store.cube_path(Vec3Int(0, 0, 0)))
    cube.write_bytes(cube.read_bytes()[:-3])

    def both(argument):
        view, _ = argument
        view.write(view.read() + 50)
        other.write(np.full((10, 10, 10), 7, "uint8"))

    with pytest.raises(TaskFailedError, match=r"x0\.wkw"):
        mag.for_each_chunk(both)
    assert np.array_equal(mag.read(), voxels + 50)
    assert leftovers(mag) == leftovers(other) == []


@pytest.mark.slow
@pytest.mark.cluster
def test_an_increment_survives_the_death_of_its_worker(filled, make_mag, client, leftovers, tmp_path):
    """The worker is killed between the publication of its cubes and its report."""
    mag, voxels = filled(BoundingBox((0, 0, 0), (64, 64, 64)), cube=64)
    other = make_mag()
    other.write(np.ones((4, 4, 4), "uint8"))

    def both(argument):
        view, _ = argument
        with open(tmp_path / "runs", "a") as file:
            print(os.getpid(), file=file)
        view.write(view.read() + 50)
        other.write(np.full((10, 10, 10), 7, "uint8"))

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not np.array_equal(mag.read(), voxels + 50):
            time.sleep(0.02)
        os.kill(int((tmp_path / "runs").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with lock(f"{other.path}/.wkdask/locks/jobs.lock"):  # here the task waits, its own cube published
        running = threading.Thread(target=lambda: reports.append(mag.for_each_chunk(both)))
        reports = []
        running.start()
        killer.start()
        killer.join()
    running.join()
    assert len((tmp_path / "runs").read_text().split()) == 1, "the function is not called again"
    assert np.array_equal(mag.read(), voxels + 50)
    assert other.read((0, 0, 0), (10, 10, 10)).sum() == 7_000
    assert other.layer.bounding_box == BoundingBox((0, 0, 0), (10, 10, 10))
    assert [report.cubes for report in reports] == [1]
    assert leftovers(mag) == leftovers(other) == []
    client.wait_for_workers(2, timeout=60)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_task_that_runs_twice_writes_the_same(filled, keep, compression):
    mag, voxels = filled(compression=compression)
    view = ChunkedView(mag.place, BOX, Vec3Int(64, 64, 64), False)
    unit = BoundingBox((37, 5, 70), (91, 59, 58))

    def twice(views, number):
        (chunk,) = views
        chunk.write(chunk.read() + np.uint8(50))
        chunk.write(np.zeros((3, 3, 3), "uint8"), offset=(5, 5, 5))
        return number

    with job_folder(mag.place.store) as folder:
        task = (twice, (view,), wkdask.View, keep, True, Target(mag.place.store, folder), unit)
        first = chunks_unit(*task)
        state = mag.read()
        if keep:
            assert first.value == [(number, number) for number in (0, 1)]
            with pytest.raises(TaskFailedError, match="lost") as caught:
                chunks_unit(*task)
            assert [report.box for report in landed_reports(caught.value, unit)] == [first.box]
        else:
            second = chunks_unit(*task)
            assert (second.box, second.cubes, second.nbytes) == (first.box, first.cubes, first.nbytes)
            assert (second.minimum, second.maximum) == (first.minimum, first.maximum)
    assert np.array_equal(mag.read(), state)
    expected = voxels.copy()
    expected[(slice(None), *unit.to_slices(BOX.topleft))] += 50
    for chunk in expected_chunks(unit, 64):
        corner = chunk.topleft - BOX.topleft + 5
        expected[(slice(None), *BoundingBox(corner, (3, 3, 3)).to_slices())] = 0
    assert np.array_equal(state, expected)


def test_two_runs_of_a_task_at_once_agree(filled):
    """The second reads while the first publishes: what the first kept counts."""
    mag, voxels = filled()
    view = ChunkedView(mag.place, BOX, Vec3Int(64, 64, 64), False)
    unit = BoundingBox((37, 5, 70), (91, 59, 58))
    barrier = threading.Barrier(4)
    numbers = iter([50, 60, 70, 80])

    def add(views, number):
        if number == 0:
            barrier.wait()
            amounts[threading.get_ident()] = next(numbers)
        views[0].write(views[0].read() + np.uint8(amounts[threading.get_ident()]))

    amounts = {}
    with job_folder(mag.place.store) as folder:
        task = (add, (view,), wkdask.View, False, True, Target(mag.place.store, folder), unit)
        threads = [threading.Thread(target=chunks_unit, args=task) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (kept,) = Path(folder).glob("kept-*")
        assert sorted(os.listdir(kept)) == ["published.json", "writes.json"], "the voxels are not kept"
    place = (slice(None), *unit.to_slices(BOX.topleft))
    assert sum(np.array_equal(mag.read()[place], voxels[place] + np.uint8(n)) for n in amounts.values()) == 1


@pytest.mark.cluster
def test_what_is_only_written_is_not_put_aside(filled, make_mag, client):
    mag, voxels = filled()
    source = mag.get_view()
    target = wkdask.View(make_mag().place, BOX)

    def copy(argument):
        source, target, _ = argument
        target.write(source.read())

    seen = []
    source.for_zipped_chunks(
        copy, target, (64, 64, 64), (64, 64, 64),
        progress=lambda event: seen.extend(Path(target.path).glob(".wkdask/*/kept-*")),
    )  # fmt: skip
    assert seen == []
    assert np.array_equal(target.read(), voxels)


# --- failures -------------------------------------------------------------------------------------------


def test_what_landed_in_another_mag_before_a_failure_is_noted_there(make_mag):
    own, other = make_mag(), make_mag(compression="lz4")
    far = wkdask.View(other.place, BoundingBox((960, 0, 0), (64, 32, 32)))
    far.write(np.ones((1, 64, 32, 32), "uint8"))
    cube = Path(other.place.store.cube_path(Vec3Int(31, 0, 0)))
    cube.write_bytes(cube.read_bytes()[:-3])
    other.layer.bounding_box = BoundingBox((0, 0, 0), (0, 0, 0))

    def both(argument):
        view, _ = argument
        view.write(np.ones((2, 2, 2), "uint8"))
        far.write(np.full((1, 40, 32, 32), 2, "uint8"))  # a whole cube, and a part of the damaged one

    with pytest.raises(TaskFailedError, match=r"x31\.wkw"):
        wkdask.View(own.place, BoundingBox((0, 0, 0), (32, 32, 32))).for_each_chunk(both)
    assert own.layer.bounding_box == BoundingBox((0, 0, 0), (2, 2, 2))
    assert other.layer.bounding_box == BoundingBox((960, 0, 0), (32, 32, 32))
    assert own.read().sum() == 8
    assert other.read().sum() == 2 * 32**3


@pytest.mark.parametrize("where", ["threads", pytest.param("workers", marks=pytest.mark.cluster)])
def test_a_function_that_raises_names_layer_and_chunk(filled, leftovers, request, where):
    mag, voxels = filled()
    if where == "workers":
        request.getfixturevalue("client")

    def third(argument):
        view, number = argument
        view.write(view.read() + 50)
        if number == 2:
            raise ZeroDivisionError("mine")

    with pytest.raises(TaskFailedError, match="layer 'layer' mag 1: mapping") as caught:
        mag.for_each_chunk(third, (64, 64, 64))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    (note,) = caught.value.__cause__.__notes__
    assert "chunk 2" in note
    assert str(expected_chunks(BOX, 64)[2]) in note
    assert "layer 'layer' mag 1" in note
    now = mag.read()
    for number, box in enumerate(expected_chunks(BOX, 64)):
        place = (slice(None), *box.to_slices(BOX.topleft))
        before = np.array_equal(now[place], voxels[place])
        assert before or np.array_equal(now[place], voxels[place] + 50), "a chunk is old or new"
        assert before or number != 2
    assert leftovers(mag) == []


def test_what_other_tasks_wrote_before_a_failure_is_noted(make_mag, leftovers):
    mag = make_mag(cube=64)
    whole = BoundingBox((0, 0, 0), (64 * 16, 64, 64))

    def late(argument):
        view, number = argument
        if number == 15:
            raise ZeroDivisionError
        view.write(np.ones(view.size, "uint8"))

    with pytest.raises(TaskFailedError, match="properties"):
        wkdask.View(mag.place, whole).for_each_chunk(late)
    landed = list(mag.cubes_on_disk())
    assert landed
    box = landed[0]
    for cube in landed:
        box = box.extended_by(cube)
    assert mag.layer.bounding_box == box
    assert mag.read().sum() == 64**3 * len(landed)
    assert leftovers(mag) == []


def test_a_failure_of_a_read_only_function(filled, state_of):
    mag, _ = filled()
    before = state_of(mag)
    view = mag.get_view(BOX.topleft, BOX.size, read_only=True)
    with pytest.raises(TaskFailedError, match="ZeroDivisionError") as caught:
        view.map_chunk(lambda chunk: 1 // 0, (64, 64, 64))
    assert "in chunk 0" in caught.value.__cause__.__notes__[0]
    assert state_of(mag) == before


def test_a_function_may_not_leave_its_chunk(filled):
    mag, voxels = filled()

    def leave(argument):
        view, _ = argument
        view.write(np.ones((1, 1, 1), "uint8"), offset=view.size)

    with pytest.raises(TaskFailedError) as caught:
        mag.for_each_chunk(leave, (64, 64, 64))
    assert isinstance(caught.value.__cause__, OutOfBoundsError)
    assert np.array_equal(mag.read(), voxels)


@pytest.mark.parametrize("shape", [(16, 64, 64), (48, 64, 64), (0, 0, 0), (-32, 32, 32), (100, 64, 64)])
def test_chunks_are_powers_of_two_from_32_on(filled, state_of, shape):
    mag, _ = filled()
    before = state_of(mag)
    with pytest.raises(AlignmentError, match="powers of two"):
        mag.for_each_chunk(add_fifty, shape)
    with pytest.raises(AlignmentError, match="powers of two"):
        mag.map_chunk(len, shape)
    assert state_of(mag) == before
    assert chunk_shape_2021(64) == Vec3Int(64, 64, 64)


def test_chunks_that_straddle_cubes_are_refused(make_mag):
    mag = make_mag(chunk=8, cube=8)
    view = ChunkedView(mag.place, BOX, Vec3Int(12, 8, 8), False)
    from wkdask.jobs.job import WriteOptions
    from wkdask.operations.chunks import run_chunks

    with pytest.raises(AlignmentError, match="straddle"):
        run_chunks(lambda views, number: None, [view], wkdask.View, WriteOptions(), keep=False)


# --- reading only ---------------------------------------------------------------------------------------


def test_a_read_only_view_makes_nothing_on_disk(filled):
    mag, voxels = filled()
    root = Path(mag.place.dataset_path)
    subprocess.run(["rm", "-r", f"{mag.path}/.wkdask"], check=True)
    before = {path: os.lstat(path).st_mtime_ns for path in root.rglob("*")}
    for path in root.rglob("*"):
        if path.is_dir():
            path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        view = mag.get_view(BOX.topleft, BOX.size, read_only=True)
        sums = view.map_chunk(lambda chunk: int(chunk.read().sum()), (64, 64, 64))
        seen = []
        assert view.for_each_chunk(lambda argument: seen.append(argument[1]), (64, 64, 64)) is None
    finally:
        for path in root.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
    expected = [
        int(voxels[(slice(None), *box.to_slices(BOX.topleft))].sum()) for box in expected_chunks(BOX, 64)
    ]
    assert sums == expected
    assert sorted(seen) == list(range(12))
    assert {path: os.lstat(path).st_mtime_ns for path in root.rglob("*")} == before


def test_chunks_of_a_read_only_view_are_read_only(filled):
    mag, _ = filled()
    view = mag.get_view(BOX.topleft, BOX.size, read_only=True)
    assert view.map_chunk(lambda chunk: chunk.read_only, (64, 64, 64)) == [True] * 12
    with pytest.raises(TaskFailedError) as caught:
        view.for_each_chunk(add_fifty, (64, 64, 64))
    assert isinstance(caught.value.__cause__, ReadOnlyError)


@pytest.mark.cluster
def test_results_come_in_order_from_workers(filled, client):
    mag, voxels = filled(cube=32)

    def slow_first(view):
        import time

        time.sleep(0.2 if view.box.topleft.x < 64 else 0)
        return view.box, int(view.read().sum()), os.getpid()

    found = mag.map_chunk(slow_first, (64, 64, 64))
    assert [(box, total) for box, total, _ in found] == [
        (box, int(voxels[(slice(None), *box.to_slices(BOX.topleft))].sum()))
        for box in expected_chunks(BOX, 64)
    ]
    assert os.getpid() not in {pid for _, _, pid in found}


def test_results_may_be_anything(filled):
    mag, _ = filled()
    assert mag.map_chunk(lambda view: None, (128, 128, 128)) == [None] * 4
    results = mag.map_chunk(lambda view: {"box": view.box, "data": view.read()}, (128, 128, 128))
    assert [result["data"].shape[1:] for result in results] == [tuple(r["box"].size) for r in results]


# --- two views ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["threads", pytest.param("workers", marks=pytest.mark.cluster)])
def test_zipped_chunks_of_different_mags(filled, request, where):
    mag, voxels = filled(BoundingBox((38, 6, 70), (150, 100, 90)))
    mag2 = mag.layer.add_mag(2, chunk_shape=16, shard_shape=32, compression="lz4")
    if where == "workers":
        request.getfixturevalue("client")

    def skip(argument):
        source, target, _ = argument
        assert source.read_only
        target.write(source.read()[:, ::2, ::2, ::2])

    source, target = mag.get_view(), mag2.get_view()
    report = source.for_zipped_chunks(skip, target, (64, 64, 64), (32, 32, 32))
    assert np.array_equal(mag2.read(), voxels[:, ::2, ::2, ::2])
    assert report.bounding_box == mag.layer.bounding_box == BoundingBox((38, 6, 70), (150, 100, 90))
    assert report.cubes == len(list(mag2.cubes_on_disk()))
    assert np.array_equal(mag.read(), voxels)


def test_zipped_chunks_are_numbered_alike(filled, make_mag):
    mag, _ = filled(BoundingBox((10, 20, 30), (150, 100, 90)))
    other = make_mag(cube=64)
    target = wkdask.View(other.place, BoundingBox((64 + 10, 20, 128 + 30), (150, 100, 90)))
    seen = []

    def note(argument):
        source, target, number = argument
        seen.append((number, source.box, target.box.offset((-64, 0, -128))))

    mag.get_view().for_zipped_chunks(note, target, (64, 64, 64), (64, 64, 64))
    boxes = expected_chunks(BoundingBox((10, 20, 30), (150, 100, 90)), 64)
    assert sorted(seen) == [(number, box, box) for number, box in enumerate(boxes)]


@pytest.mark.parametrize(
    ("target", "chunk", "message"),
    [
        (BoundingBox((0, 0, 0), (64, 64, 64)), (64, 64, 64), "ratio"),
        (BoundingBox((0, 0, 0), (128, 128, 64)), (64, 64, 64), "ratio"),
        (BoundingBox((0, 0, 0), (128, 128, 128)), (32, 64, 64), "ratio"),
        (BoundingBox((0, 0, 0), (0, 128, 128)), (64, 64, 64), "empty"),
        (BoundingBox((7, 0, 0), (128, 128, 128)), (64, 64, 64), "would not match"),
        (BoundingBox((0, 0, 32), (128, 128, 128)), (64, 64, 64), "would not match"),
    ],
)
def test_views_that_do_not_match_are_refused(make_mag, target, chunk, message):
    mag, other = make_mag(), make_mag()
    source = wkdask.View(mag.place, BoundingBox((0, 0, 0), (128, 128, 128)))
    with pytest.raises(InvalidValueError, match=message):
        source.for_zipped_chunks(
            lambda argument: pytest.fail("called"),
            wkdask.View(other.place, target),
            (64, 64, 64),
            chunk,
        )


def test_a_shift_that_keeps_the_number_of_chunks_is_refused(make_mag):
    """Both are cut into three: 54 + 64 + 10 and 5 + 32 + 27 voxels."""
    mag, other = make_mag(), make_mag()
    source = wkdask.View(mag.place, BoundingBox((10, 0, 0), (128, 64, 64)))
    target = wkdask.View(other.place, BoundingBox((27, 0, 0), (64, 32, 32)))
    with pytest.raises(AlignmentError, match="would not match"):
        source.for_zipped_chunks(lambda argument: None, target, (64, 64, 64), (32, 32, 32))


def test_one_pair_of_chunks_may_lie_anywhere(filled, make_mag):
    mag, _ = filled()
    other = make_mag()
    source = mag.get_view((70, 10, 75), (20, 20, 20))
    target = wkdask.View(other.place, BoundingBox((1, 2, 3), (20, 20, 20)))
    source.for_zipped_chunks(
        lambda argument: argument[1].write(argument[0].read()), target, (64, 64, 64), (64, 64, 64)
    )
    assert np.array_equal(other.read(), source.read())


def test_a_targets_chunks_are_whole_cubes(make_mag):
    mag, other = make_mag(), make_mag(cube=64)
    source = wkdask.View(mag.place, BoundingBox((0, 0, 0), (128, 128, 128)))
    target = wkdask.View(other.place, BoundingBox((0, 0, 0), (128, 128, 128)))
    with pytest.raises(AlignmentError, match="whole number of its cubes"):
        source.for_zipped_chunks(lambda argument: None, target, (32, 32, 32), (32, 32, 32))


def test_equal_content_is_told_whatever_the_cut(filled, make_mag):
    mag, voxels = filled()
    other = make_mag(cube=64, compression="lz4")
    other.write(voxels, offset=(100, 100, 100))
    assert mag.content_is_equal(other)
    assert mag.get_view().content_is_equal(other.get_view())
    assert mag.get_view().content_is_equal(other)  # a mag's size counts from the origin, a view's does not
    other.write(np.full((1, 1, 1), voxels[0, -1, -1, -1] + 1, "uint8"), offset=(249, 199, 189))
    assert not mag.content_is_equal(other)
    assert not mag.get_view().content_is_equal(other.get_view((100, 100, 100), (149, 100, 90)))


# --- the arguments of other libraries -------------------------------------------------------------------


def test_an_executor_is_ignored_with_a_warning(filled, make_mag):
    mag, voxels = filled()
    with pytest.warns(WkdaskWarning, match="executor"):
        mag.for_each_chunk(add_fifty, (64, 64, 64), executor=object())
    assert np.array_equal(mag.read(), voxels + 50)
    with pytest.warns(WkdaskWarning, match="executor"):
        assert len(mag.map_chunk(lambda view: 1, (64, 64, 64), object())) == 12
    view = mag.get_view((37, 5, 70), (5, 5, 5))
    target = wkdask.View(make_mag().place, view.box)
    with pytest.warns(WkdaskWarning, match="executor"):
        view.for_zipped_chunks(lambda argument: None, target, (64, 64, 64), (64, 64, 64), executor=object())


@pytest.mark.slow
def test_a_view_of_a_chunk_works_in_another_process(filled, tmp_path):
    mag, voxels = filled()
    views = mag.map_chunk(lambda view: view, (64, 64, 64))
    data = pickle.dumps(views[3])
    assert len(data) < 1_000
    (tmp_path / "view").write_bytes(data)
    script = (
        "import pickle, sys, numpy as np; view = pickle.load(open(sys.argv[1], 'rb')); "
        "view.for_each_chunk(lambda a: a[0].write(a[0].read() + np.uint8(50)), (32, 32, 32)); print(view.box)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "view"], env=env, capture_output=True, text=True, check=True
    )
    box = expected_chunks(BOX, 64)[3]
    assert done.stdout.strip() == str(box)
    voxels[(slice(None), *box.to_slices(BOX.topleft))] += 50
    assert np.array_equal(mag.read(), voxels)


@pytest.mark.cluster
def test_two_readers_of_one_mag_at_once_get_their_own_results(make_mag, client):
    mag = make_mag(cube=32)
    mag.write(np.ones((64, 32, 32), np.uint8))
    view = mag.get_view(read_only=True)
    found = {}

    def read(answer):
        def function(_view):
            time.sleep(0.3)  # both jobs are on the scheduler together
            return answer

        found[answer] = view.map_chunk(function, client=client)

    readers = [threading.Thread(target=read, args=(answer,)) for answer in ("first", "second")]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == {"first": ["first"] * 2, "second": ["second"] * 2}
