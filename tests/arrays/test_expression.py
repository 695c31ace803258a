"""Expressions as windows of write tasks: graphs that do not grow, work that is not repeated."""

import os

import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox
from wkdask.arrays.expression import array_stages, common_tasks, cut_into_units, unit_blocks
from wkdask.errors import PlanError
from wkdask.jobs import plan
from wkdask.jobs.events import UnitDone
from wkdask.jobs.job import Job, JobFolders, WriteOptions
from wkdask.jobs.plan import plan_write

HALO = {0: 0, 1: 3, 2: 3, 3: 3}
BOX = BoundingBox((100, 37, 5), (150, 70, 60))


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of up to eight units; more than eight units are several windows."""
    monkeypatch.setattr(plan, "SINGLE_WINDOW_UNITS", 8)
    monkeypatch.setattr(plan, "WINDOW_UNITS", 8)


@pytest.fixture
def small_units(monkeypatch):
    """Plans with one cube per unit."""
    original = plan.plan_write

    def planned(*args, **kwargs):
        return original(*args, **{**kwargs, "unit_nbytes": 1})

    for module in ("wkdask.operations.write", "wkdask.pyramid.job"):
        monkeypatch.setattr(f"{module}.plan_write", planned)


def job_on(mag, box, *, in_place=False, **kwargs):
    planned = plan_write(mag.spec, box, **kwargs)
    return Job.of(mag.place, planned, "writing", WriteOptions(), in_place=in_place)


def source(voxels, chunks):
    """Return the voxels as a dask array made from blocks, not one big array in the graph."""
    return da.from_array(voxels, chunks=chunks, name="source-of-the-test", inline_array=False)


@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_in_fortran_order_are_never_turned(make_mag, random_voxels, monkeypatch, channels):
    # they are packed as they come: a copy into C order before that is five times slower, and nobody sees it
    import wkdask.arrays.expression as module

    came, pack = [], module.pack_voxels
    monkeypatch.setattr(
        module,
        "pack_voxels",
        lambda block, whole: came.append(block.flags.f_contiguous) or pack(block, whole),
    )
    voxels = random_voxels((channels, 96, 96, 96), "uint16")
    mag = make_mag("uint16", channels, cube=32)
    mag.write(voxels)
    box = BoundingBox((0, 0, 0), (96, 96, 96))
    window = next(iter(plan_write(make_mag("uint16", channels, cube=64).spec, box).windows))
    cut = cut_into_units(mag.to_dask("cube"), window)
    np.testing.assert_array_equal(cut.compute(scheduler="sync"), voxels)
    assert len(came) == 27
    assert all(came)


def test_one_graph_per_window_made_when_its_turn_comes(make_mag):
    mag = make_mag(cube=64, chunk=32)
    box = BoundingBox((0, 0, 0), (2**15, 2**15, 2**13))
    built = []

    def note(block):
        built.append(1)
        return block

    x = da.zeros((1, *box.size), chunks=(1, 1024, 1024, 1024), dtype="uint8").map_blocks(note, dtype="uint8")
    job = job_on(mag, box)
    (stage,) = array_stages(job, x, JobFolders("/nowhere/.wkdask/0123456789ab", {}))
    assert stage.units == len(job.plan.units) > 20_000
    windows = iter(stage.windows)
    first = next(windows)
    graph = dict(first.build(None).__dask_graph__())
    assert len(first.boxes) <= plan.WINDOW_UNITS
    assert len(graph) < 12 * plan.WINDOW_UNITS
    second = next(windows)
    assert not {*first.boxes.values()} & {*second.boxes.values()}
    assert sum(built) <= 1  # dask may call it once, on an empty block


def test_blocks_come_in_fortran_order_through_a_rechunk(make_mag, random_voxels):
    mag, box = make_mag(), BoundingBox((100, 37, 5), (80, 70, 50))
    mag.write(random_voxels((1, *box.size)), bounding_box=box)
    (window,) = job_on(mag, box, threads=4).plan.windows
    for x in (mag.to_dask(16), 255 - mag.to_dask(8), mag.to_dask("cube"), 255 - mag.to_dask((64, 16, 64))):
        orders = []

        def note(block, orders=orders):
            sides = [step for step, side in zip(block.strides, block.shape, strict=True) if side > 1]
            orders.append(sides == sorted(sides))
            return block

        cut = cut_into_units(x, window)
        cut.map_blocks(note, dtype="uint8", meta=np.empty((0,) * 4, "uint8")).compute(scheduler="sync")
        assert len(orders) == len(window.units)
        assert all(orders)
        starts = [
            np.cumsum([low, *lengths]) for low, lengths in zip(box.topleft, cut.chunks[1:], strict=True)
        ]
        units = window.plan.unit.shape
        assert all((cuts[1:-1] % side == 0).all() for cuts, side in zip(starts, units, strict=True))


@pytest.mark.parametrize("order", [1, -1])
def test_units_have_graphs_of_their_own(make_mag, random_voxels, order):
    """Any units, in any order; what more than one of them would compute is counted."""
    box = BoundingBox((33, 0, 64), (90, 70, 50))
    voxels, planned = random_voxels((1, *box.size)), job_on(make_mag(), box, unit_nbytes=1).plan
    units = [unit for _, unit in planned.unit.pieces(box)][::order][::3]
    on_grid = da.from_array(voxels, chunks=(1, (31, 32, 27), (32, 32, 6), (32, 18)))
    across = da.from_array(voxels, chunks=(1, 40, 40, 40))
    for x, common in [
        (on_grid, False),
        (255 - on_grid, False),
        (255 - across, True),
        (on_grid - on_grid.min(), True),
    ]:
        expected = x.compute()
        blocks = unit_blocks(x, planned, units)
        for unit, block in zip(units, blocks, strict=True):
            voxels_of_unit = block.compute(scheduler="sync", optimize_graph=False)
            assert np.array_equal(voxels_of_unit, expected[(slice(None), *unit.to_slices(box.topleft))])
        assert (common_tasks(blocks) > 0) == common
        tasks = [len(block.__dask_graph__()) for block in blocks]
        assert common or max(tasks) < 12  # not those of the whole


@pytest.mark.slow
def test_windows_write_the_same_as_one_graph(make_mag, random_voxels, small_units, small_windows, leftovers):
    voxels = random_voxels((1, *BOX.size))
    for chunks in [(1, 77, 50, 59), (1, 150, 120, 100), (1, 32, 32, 32)]:
        mag, events = make_mag(), []
        report = mag.write(255 - source(voxels, chunks), bounding_box=BOX, progress=events.append)
        planned = job_on(mag, BOX, unit_nbytes=1).plan
        assert planned.num_windows > 8
        assert np.array_equal(mag.read(bounding_box=BOX), 255 - voxels)
        assert report.cubes == planned.num_cubes
        done = [event.report for event in events if isinstance(event, UnitDone)]
        assert sum(each.unit.volume() for each in done) == BOX.volume()
        assert len({each.unit for each in done}) == len(done) == len(planned.units)
        assert leftovers(mag) == []


@pytest.mark.slow
def test_halos_and_reductions_over_one_axis_pass_in_windows(
    make_mag, random_voxels, small_units, small_windows
):
    voxels = random_voxels((1, *BOX.size))
    source_mag, mag = make_mag(), make_mag()
    source_mag.write(voxels, bounding_box=BOX)
    x = source_mag.to_dask("cube")

    def spread(block):
        return np.maximum(np.roll(block, 2, axis=1), np.roll(block, -2, axis=2))

    expected = np.maximum(np.roll(voxels, 2, axis=1), np.roll(voxels, -2, axis=2))
    y = x.map_overlap(spread, depth=HALO, boundary="none", dtype="uint8", meta=np.empty((0,) * 4, "uint8"))
    mag.write(y, bounding_box=BOX)
    inner = (slice(None), slice(4, -4), slice(4, -4), slice(4, -4))
    assert np.array_equal(mag.read(bounding_box=BOX)[inner], expected[inner])


def test_work_that_all_windows_share_is_refused_with_the_remedy(
    make_mag, random_voxels, small_units, small_windows, state_of
):
    voxels = random_voxels((1, *BOX.size), "float32")
    source_mag, mag = make_mag("float32"), make_mag("float32")
    source_mag.write(voxels, bounding_box=BOX)
    x = source_mag.to_dask("cube")
    before = state_of(mag)
    with pytest.raises(PlanError) as caught:
        mag.write(x - x.mean(), bounding_box=BOX)
    for part in ("windows", "common tasks", ".mean().compute()", ".persist()"):
        assert part in str(caught.value)
    assert state_of(mag) == before
    with pytest.raises(PlanError, match="common tasks"):  # windows that lie diagonally share nothing here
        mag.write(x.rechunk(16) - x.rechunk(16).mean(axis=3, keepdims=True), bounding_box=BOX)
    mean = x.mean().compute()
    mag.write(x - mean, bounding_box=BOX)
    assert np.allclose(mag.read(bounding_box=BOX), voxels - voxels.mean(), atol=1e-4)
    mag.write(x - x.mean().persist(), bounding_box=BOX)
    assert np.allclose(mag.read(bounding_box=BOX), voxels - voxels.mean(), atol=1e-4)


@pytest.mark.parametrize("corner", [(0, 0, 0), (100, 37, 5), (1000, 1010, 1020)])
def test_a_small_job_may_share_what_it_likes(make_mag, random_voxels, corner):
    """Up to 1024 units are one graph wherever the box lies: the mean is computed once."""
    voxels = random_voxels((1, 90, 80, 70), "float32")
    calls = []

    def note(block):
        calls.append(block.shape)
        return block

    x = source(voxels, (1, 10, 20, 20)).map_blocks(note, dtype="float32", meta=np.empty((0,) * 4, "float32"))
    mag = make_mag("float32")
    mag.write(x - x.mean(), offset=corner)
    got = mag.read()
    assert np.allclose(got, voxels - voxels.mean(), atol=1e-4)
    assert len(calls) == x.npartitions


@pytest.mark.slow
def test_windows_that_share_a_border_are_no_shared_work(make_mag, random_voxels, small_units, small_windows):
    """Small source blocks astride the border of two windows are read twice; that is not worth a refusal."""
    box = BoundingBox((0, 0, 0), (128, 64, 64))
    voxels = random_voxels((1, *box.size))
    mag = make_mag()
    assert job_on(mag, box, unit_nbytes=1).plan.num_windows == 2
    mag.write(source(voxels, (1, 5, 5, 5)), bounding_box=box)
    assert np.array_equal(mag.read(), voxels)


def test_two_phases_are_two_stages(make_mag):
    mag, box = make_mag(), BoundingBox((0, 0, 0), (64, 64, 64))
    x = da.ones((1, 64, 64, 64), dtype="uint8")
    folder = f"{mag.path}/.wkdask/0123456789ab"
    first, second = array_stages(job_on(mag, box, in_place=True), x, JobFolders(folder, {}))
    assert first.units == second.units
    assert os.path.isdir(f"{folder}/staged")
    calls = [entry for window in second.windows for entry in window.calls]
    assert {(function.__name__, arguments[0].__name__) for _, function, arguments in calls} == {
        ("publish_of", "publish_unit")
    }
    assert sum(each.volume() for each, _, _ in calls) == box.volume()
    # from here on, a task of the first stage that was thought lost has no place to write to
    assert not os.path.exists(f"{folder}/staged")
    assert {arguments[3].path for _, _, arguments in calls} == {f"{folder}/built"}
