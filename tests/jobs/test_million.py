"""Many cubes: what a job costs before the first one, per cube, in memory, and when it is resumed."""

import itertools
import json
import subprocess
import sys
import time
import zlib

import dask
import dask.array as da
import numpy as np
import psutil
import pytest
from null_store import null_mag
from repository import ROOT

from wkdask import BoundingBox
from wkdask.errors import PlanError, TaskFailedError
from wkdask.geometry.grid import CubeGrid
from wkdask.geometry.vectors import Vec3Int
from wkdask.jobs.events import JobStarted, UnitDone
from wkdask.jobs.journal import Journal
from wkdask.jobs.plan import plan_again
from wkdask.jobs.tasks import UnitReport
from wkdask.jobs.windows import call_windows, stream_of

META = np.empty((0,) * 4, "uint8")
MANY = BoundingBox((0, 0, 0), (98 * 32, 98 * 32, 10 * 32))
"""98 × 98 × 10 cubes of 32³."""


@pytest.fixture
def no_room_needed():
    with dask.config.set({"wkdask.check-space": False}):
        yield


@pytest.mark.slow
def test_a_hundred_thousand_cubes_in_the_driver_alone(tmp_path, monkeypatch, no_room_needed):
    """More tasks than in any test beside: the driver stays as it is, and a resume passes over what is done."""
    import wkdask.operations.map_cubes

    monkeypatch.setattr(wkdask.operations.map_cubes, "UNIT_NBYTES", 8**3 * 100)
    box = BoundingBox((0, 0, 0), (8 * 50, 8 * 50, 8 * 8))
    source, target = null_mag(tmp_path / "a", 8, box=box), null_mag(tmp_path / "b", 8)
    fail, seen = [True], []

    def function(block, box):
        if fail and box.topleft.z == 56:
            raise ZeroDivisionError
        return block

    with pytest.raises(TaskFailedError):
        source.map_cubes(function, target, job="many", progress=seen.append)
    fail.clear()
    before, start, first = psutil.Process().memory_info().rss, time.monotonic(), []

    def note(event):
        if isinstance(event, JobStarted | UnitDone):
            first.append((time.monotonic() - start, event))

    report = source.map_cubes(function, target, job="many", resume=True, progress=note)
    assert report.cubes == 50 * 50 * 8
    assert report.cubes_before > 0
    assert first[0][0] < 5
    assert psutil.Process().memory_info().rss - before < 100e6


def line_of(number, unit):
    """Return what the journal notes for a unit."""
    return checked_line([0, number, list(unit), 1, 1, 512, 100, 0, 9])


def checked_line(entry):
    """Return a line of a journal: a checksum, and what it is of."""
    text = json.dumps(entry, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def first_lines(side):
    """Return what a journal begins with: its job, and the cubes of 8³ of its box."""
    return checked_line(["job", ""]) + checked_line(["lane", 0, [8] * 3, [0, 0, 0, side, side, side]])


@pytest.mark.slow
def test_units_that_are_done_are_read_and_passed_over_by_the_thousand(tmp_path):
    """A million of them take less than a minute."""
    plan = plan_again(
        null_mag(tmp_path / "ds", 8).spec, BoundingBox((0, 0, 0), (400, 400, 400)), Vec3Int.full(8)
    )
    stream, left = stream_of(plan, 0), {17, 999, 50_000, 124_999}
    with open(tmp_path / "journal", "w") as file:
        file.write(first_lines(400))
        for number, (x, y, z) in enumerate(plan.units):
            if number not in left:
                file.write(line_of(number, (x * 8, y * 8, z * 8, 8, 8, 8)))
    before, start = psutil.Process().memory_info().rss, time.process_time()
    with Journal(str(tmp_path)) as journal:
        windows = call_windows(plan, "/x", "test", lambda box: (len, box), stream)
        rest = [box for window in windows for box in window.without_done(journal).units]
    seconds = time.process_time() - start
    assert [stream.number_of(box) for box in rest] == sorted(left)
    assert journal.units == journal.merged.cubes == len(stream) - len(left)
    assert journal.merged.box == plan.box
    assert seconds / len(stream) < 60e-6
    assert psutil.Process().memory_info().rss - before < 50e6


def test_those_lines_are_what_is_written(tmp_path):
    plan = plan_again(
        null_mag(tmp_path / "ds", 8).spec, BoundingBox((0, 0, 0), (80, 80, 80)), Vec3Int.full(8)
    )
    stream, unit = stream_of(plan, 0), BoundingBox((8, 16, 24), (8, 8, 8))
    with Journal(str(tmp_path)) as journal:
        journal.note(stream, UnitReport(unit, unit, 1, 512, 100, 0, 9))
    noted = first_lines(80) + line_of(stream.number_of(unit), unit.to_tuple6())
    assert (tmp_path / "journal").read_text() == noted


# --- expressions ------------------------------------------------------------------------------------------


class Enough(KeyboardInterrupt):
    """Stops a job from a listener."""


def test_an_expression_over_a_hundred_thousand_cubes(tmp_path, monkeypatch, no_room_needed):
    """The first block is computed soon, and no graph is larger than that of a window.

    With cubes of 1024³ there are as many of them, of which none has to be computed here.
    """
    import wkdask.arrays.expression
    import wkdask.operations.write

    sizes, begun, real = [], [], wkdask.arrays.expression._array_window

    def watched(*arguments):
        made = real(*arguments)

        def build(sink):
            array = made.build(sink)
            sizes.append(len(array.__dask_graph__()))
            return array

        return type(made)(made.units, build, made.stream)

    def note(block):
        if block.size:
            begun.append(time.monotonic())
        return block

    def stop(event):
        if isinstance(event, UnitDone):
            raise Enough

    plan_write = wkdask.operations.write.plan_write
    monkeypatch.setattr(
        wkdask.operations.write, "plan_write", lambda *a, **o: plan_write(*a, **o, unit_nbytes=1)
    )
    monkeypatch.setattr(wkdask.arrays.expression, "_array_window", watched)
    source, target = null_mag(tmp_path / "a", 32, box=MANY), null_mag(tmp_path / "b", 32)
    before, start = psutil.Process().memory_info().rss, time.monotonic()
    x = (255 - source.to_dask("cube")).map_blocks(note, dtype="uint8", meta=META)
    assert target.plan_write(x, bounding_box=MANY).plan.num_cubes == 98 * 98 * 10
    with pytest.raises(Enough):
        target.write(x, bounding_box=MANY, progress=stop)
    assert begun[0] - start < 60
    assert 256 <= max(sizes) <= 512  # of 256 units, each of which is read, computed and written in one go
    assert psutil.Process().memory_info().rss - before < 1e9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "is_refused"),
    [
        (lambda x: (x - x.mean()).astype("uint8"), True),
        (lambda x: x.rechunk((1, -1, 64, 64)).rechunk((1, 64, -1, 64)).rechunk((1, 64, 64, -1)), True),
        (
            lambda x: da.overlap.overlap(x, {1: 1, 2: 1, 3: 1}, "reflect").map_blocks(
                lambda block: block[:, 1:-1, 1:-1, 1:-1], chunks=x.chunks, dtype="uint8", meta=META
            ),
            False,
        ),
    ],
    ids=["mean", "rechunk", "overlap"],
)
def test_work_that_windows_share(make_mag, random_voxels, monkeypatch, make, is_refused):
    """What spans the array is refused with the remedy; an overlap is only shared along the borders of windows."""
    import wkdask.jobs.plan
    import wkdask.operations.write

    plan_write = wkdask.operations.write.plan_write
    monkeypatch.setattr(wkdask.jobs.plan, "SINGLE_WINDOW_UNITS", 8)
    monkeypatch.setattr(wkdask.jobs.plan, "WINDOW_UNITS", 8)
    monkeypatch.setattr(
        wkdask.operations.write, "plan_write", lambda *a, **o: plan_write(*a, **o, unit_nbytes=1)
    )
    source, target, box = make_mag(), make_mag(), BoundingBox((0, 0, 0), (256, 256, 64))
    source.write(random_voxels((1, *box.size)), bounding_box=box)
    x = make(source.to_dask(32))
    assert target.plan_write(x, bounding_box=box).plan.num_windows > 8
    if is_refused:
        with pytest.raises(PlanError, match=r"common tasks.*persist.*map_cubes"):
            target.write(x, bounding_box=box)
        assert next(target.cubes_on_disk(), None) is None
    else:
        target.write(x, bounding_box=box)
        assert np.array_equal(target.read(), x.compute())


def test_windows_are_counted_before_they_are_made(make_mag):
    grid = CubeGrid(Vec3Int(8, 8, 8))
    spec = make_mag(cube=32).spec
    plan = plan_again(spec, BoundingBox((0, 0, 0), (2**20, 2**20, 2**20)), grid.shape * 4)
    start = time.process_time()
    first = list(
        itertools.islice(call_windows(plan, "/x", "test", lambda box: (len, box), stream_of(plan, 0)), 100)
    )
    assert time.process_time() - start < 1
    assert sum(map(len, first)) == 100 * 256


@pytest.mark.slow
def test_a_million_cubes_to_the_end_and_resumed(tmp_path):
    """The figures of the docs, with room for a busy machine: rate, memory, resume."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_million", "--cubes", "200000", "--plot", f"{tmp_path}/plot.svg"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=900,
    )  # fmt: skip
    figures = json.loads(done.stdout)
    assert figures["first cube after s"] < 5
    assert figures["driver grew MB"] < 200
    assert figures["resume s"] < 20
    assert figures["resumed with cubes done"] > 0.9 * figures["cubes"]
    assert figures["expression"]["first block after s"] < 60
    assert (tmp_path / "plot.svg").stat().st_size > 1000
