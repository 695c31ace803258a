"""Plans: whole cubes, one owner each, nothing that grows with the dataset, refusals before a start."""

import itertools
import math
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from wkdask import BoundingBox, Vec3Int
from wkdask.errors import PlanError
from wkdask.jobs import plan
from wkdask.jobs.plan import plan_write, refuse_unknown_chunks
from wkdask.storage.protocol import ArraySpec
from wkdask.testing import boxes


def spec_of(cube=32, dtype="uint8", channels=1):
    return ArraySpec(dtype, channels, Vec3Int.full(min(cube, 32)), Vec3Int.full(cube), None)


@settings(max_examples=examples(60), deadline=None)
@given(
    box=boxes(),
    cube=st.sampled_from([32, 64]),
    unit_nbytes=st.integers(10, 22).map(lambda n: 2**n),
    threads=st.integers(1, 9),
    single=st.sampled_from([1, 8, 1024]),
    size=st.sampled_from([1, 4, 30]),
)
def test_every_cube_is_in_one_unit_and_every_unit_in_one_window(
    box, cube, unit_nbytes, threads, single, size
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SINGLE_WINDOW_UNITS", single)
        patch.setattr(plan, "WINDOW_UNITS", size)
        spec = spec_of(cube)
        planned = plan_write(spec, box, threads=threads, unit_nbytes=unit_nbytes)
        windows = list(planned.windows)
    units = [unit for window in windows for unit in window.unit_boxes()]
    cubes = [tuple(index) for unit in units for index in spec.grid.cubes(unit)]
    ranges = (
        range(low // cube, -(-high // cube)) for low, high in zip(box.topleft, box.bottomright, strict=True)
    )
    expected = set(itertools.product(*ranges))
    assert len(cubes) == len({*cubes}) == planned.num_cubes
    assert {*cubes} == expected
    assert sum(unit.volume() for unit in units) == box.volume()
    assert all(box.contains_bbox(unit) for unit in units)
    assert len(units) == len(planned.units)
    assert len(windows) == planned.num_windows
    assert planned.nbytes == box.volume()
    if len(units) <= single:
        assert len(windows) == 1
    else:
        assert max(len(window.units) for window in windows) <= max(size, 1)


@settings(max_examples=examples(40), deadline=None)
@given(box=boxes())
def test_a_unit_is_found_by_its_place(box):
    planned = plan_write(spec_of(), box, unit_nbytes=2**16)
    for window in planned.windows:
        start = window.units.start
        for unit, expected in zip(window.units, window.unit_boxes(), strict=True):
            assert window.unit_box(tuple(unit - start)) == expected


@pytest.mark.parametrize("corner", [(0, 0, 0), (100, 37, 5), (1000, 1000, 1000), (2**20 - 13, 5, 2**31)])
def test_a_small_job_is_one_window_wherever_it_lies(corner):
    planned = plan_write(spec_of(64), BoundingBox(corner, (600, 500, 300)))
    assert planned.num_windows == 1
    assert next(planned.windows).box == planned.box


def test_huge_plans_cost_nothing():
    box = BoundingBox((17, 5, 3), (98 * 1024 - 50, 98 * 1024 - 50, 10 * 1024 - 50))
    tracemalloc.start()
    start = time.perf_counter()
    planned = plan_write(spec_of(1024), box)
    first = next(planned.windows)
    boxes = first.unit_boxes()
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert planned.num_cubes == 98 * 98 * 10
    assert len(boxes) <= plan.WINDOW_UNITS
    assert planned.num_windows >= 98 * 98 * 10 / plan.WINDOW_UNITS
    assert len(planned.units) == 98 * 98 * 10
    assert seconds < 0.5
    assert peak < 2 << 20


def test_small_cubes_are_grouped_and_large_ones_are_not():
    box = BoundingBox((0, 0, 0), (4096, 4096, 4096))
    grouped = plan_write(spec_of(64), box)
    assert 32 << 20 <= grouped.unit.shape.prod() <= 64 << 20
    assert plan_write(spec_of(1024), box).unit.shape == (1024, 1024, 1024)
    # of a small box every thread gets something to do
    small = plan_write(spec_of(32), BoundingBox((0, 0, 0), (256, 256, 256)), threads=4)
    assert len(small.units) >= 16


@pytest.mark.parametrize("chunks", [((1,), (math.nan, 3)), ((1,), (3.0,), (math.nan,))])
def test_unknown_chunks_are_refused(chunks):
    with pytest.raises(PlanError, match="compute_chunk_sizes"):
        refuse_unknown_chunks(chunks)


def test_known_chunks_pass():
    refuse_unknown_chunks(((1,), (3, 3), (4,), (0,)))


@pytest.mark.parametrize("size", [(0, 3, 3), (0, 0, 0)])
def test_nothing_to_write_is_refused(size):
    with pytest.raises(PlanError, match="nothing to write"):
        plan_write(spec_of(), BoundingBox((0, 0, 0), size))


def test_a_task_beyond_the_memory_is_refused_with_remedies():
    box = BoundingBox((0, 0, 0), (2048, 2048, 2048))
    with pytest.raises(PlanError) as caught:
        plan_write(spec_of(1024, "uint64"), box, memory=4 << 30)
    text = str(caught.value)
    for part in ("16 GiB", "4 GiB", "shard_shape", "(1024, 1024, 1024)", "source blocks", "fewer threads"):
        assert part in text
    assert "task_memory=" in text
    assert plan_write(spec_of(1024, "uint64"), box, memory=4 << 30, task_memory=3 << 30).num_cubes == 8
    assert plan_write(spec_of(1024, "uint64"), box, memory=None).num_cubes == 8


def test_the_source_blocks_of_a_task_count():
    spec, box = spec_of(64), BoundingBox((0, 0, 0), (512, 512, 512))
    aligned = plan_write(spec, box, source_chunks=((64,) * 8,) * 3, unit_nbytes=1)
    one_block = plan_write(spec, box, source_chunks=((512,),) * 3, unit_nbytes=1)
    assert aligned.task_nbytes == pytest.approx(3 * aligned.unit.shape.prod(), rel=0.4)
    assert one_block.task_nbytes >= 512**3
    with pytest.raises(PlanError, match="source blocks"):
        plan_write(spec, box, source_chunks=((512,),) * 3, memory=100 << 20)


@settings(max_examples=examples(60), deadline=None)
@given(lengths=st.lists(st.integers(0, 90), min_size=1, max_size=12), low=st.integers(0, 100))
def test_the_longest_overlap_is_that_of_a_brute_search(lengths, low):
    step = 32
    ends = list(itertools.accumulate(lengths, initial=low))
    spans = [(a, b) for a, b in itertools.pairwise(ends) if b > a]
    best = 0
    for unit in range(low // step, ends[-1] // step + 1):
        touching = [(a, b) for a, b in spans if a < (unit + 1) * step and b > unit * step]
        if touching:
            best = max(best, touching[-1][1] - touching[0][0])
    assert plan._longest_overlap(lengths, low, step) == best
