"""The batch form: a function for every cube gives what it gives on the whole array, however the work is cut."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples

from wkdask import BoundingBox, Dataset, testing
from wkdask.errors import (
    DTypeError,
    InvalidValueError,
    PlanError,
    ReadOnlyError,
    ResumeError,
    TaskFailedError,
)
from wkdask.geometry.grid import box_tiles
from wkdask.jobs.events import JobStarted, UnitDone
from wkdask.storage.publish.jobs import unfinished_jobs

BOX = BoundingBox((100, 37, 5), (150, 70, 60))


def invert(block):
    return 255 - block


def smooth(block, size=(1, 3, 3, 3), mode="nearest"):
    """The mean over 3³ voxels; what is wrong at the block's edge is in the halo."""
    return ndi.uniform_filter(block.astype("float32"), size, mode=mode)


@pytest.fixture(scope="module")
def written_source(tmp_path_factory):
    """Return (the folder of a dataset, its voxels in `BOX`), for tests to copy."""
    folder, voxels = tmp_path_factory.mktemp("source") / "dataset", testing.random_voxels((1, *BOX.size))
    testing.small_mag(folder).write(voxels, bounding_box=BOX)
    return folder, voxels


@pytest.fixture
def source(written_source, tmp_path):
    """Return (mag, its voxels) in `BOX`."""
    folder, voxels = written_source
    shutil.copytree(folder, tmp_path / "source")
    return Dataset(tmp_path / "source").get_layer("layer").get_mag(1), voxels.copy(order="F")


# --- what the function gets and returns -------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_function_for_every_cube(source, make_mag, compression, leftovers):
    mag, voxels = source
    target = make_mag(compression=compression)
    report = mag.map_cubes(invert, target)
    assert np.array_equal(target.read(), 255 - voxels)
    assert report.bounding_box == target.layer.bounding_box == BOX
    assert report.cubes == len(mag.spec.grid.cubes(BOX))
    assert report.bytes == voxels.nbytes
    assert (report.minimum, report.maximum) == (255 - voxels.max(), 255 - voxels.min())
    assert leftovers(target) == []


@pytest.mark.slow
def test_small_cubes_go_several_to_a_task_and_the_function_gets_them_one_by_one(source, make_mag):
    mag, voxels = source
    target, events, seen = make_mag(cube=16), [], []

    def note(block, box):
        assert block.flags.f_contiguous
        assert block.flags.writeable
        assert block.shape == (1, *box.size)
        kept = block.copy()
        seen.append((box, kept))
        block[:] = 0  # the function's own: nobody else sees it
        return kept

    mag.map_cubes(note, target, progress=events.append)
    assert {box for box, _ in seen} == {box for _, box in target.spec.grid.pieces(BOX)}
    for box, block in seen:
        assert np.array_equal(block, voxels[(slice(None), *box.to_slices(BOX.topleft))])
    assert np.array_equal(target.read(), voxels)
    units = [event for event in events if isinstance(event, UnitDone)]
    assert 1 < len(units) < len(seen) / 8


@pytest.mark.slow
@given(
    low=st.tuples(st.integers(0, 90), st.integers(0, 60), st.integers(0, 40)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60)),
    halo=st.tuples(st.integers(0, 9), st.integers(0, 40), st.integers(0, 3)),
    cube=st.sampled_from([16, 32, 64]),
    boundary=st.sampled_from(["clip", "reflect", "nearest", 7]),
)
@settings(
    max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_halo_boxes_and_boundaries_against_numpy(source, make_mag, low, size, halo, cube, boundary):
    """Every block is what the whole, padded volume has there."""
    mag, voxels = source
    box = BoundingBox(BOX.topleft + low, size).intersection(BOX)
    if box.is_empty():
        return
    pad = [(0, 0), *((n, n) for n in halo)]
    modes = {"reflect": "symmetric", "nearest": "edge"}
    if boundary == "clip":
        whole = voxels
    elif boundary == 7:
        whole = np.pad(voxels, pad, constant_values=7)
    else:
        whole = np.pad(voxels, pad, mode=modes[boundary])
    origin = BOX.topleft - (halo if boundary != "clip" else 0)
    target, seen = make_mag(cube=cube), []

    def check(block, box):
        around = box.padded_with_margins(halo)
        around = around.intersection(BOX) if boundary == "clip" else around
        assert np.array_equal(block, whole[(slice(None), *around.to_slices(origin))])
        seen.append(box)
        return block  # with its halo, which is taken off

    mag.map_cubes(check, target, halo=halo, boundary=boundary, bounding_box=box)
    assert len(seen) == len(set(seen))
    assert set(seen) == {piece for _, piece in target.spec.grid.pieces(box)}
    expected = voxels[(slice(None), *box.to_slices(BOX.topleft))]
    assert np.array_equal(target.read(), expected)
    assert target.layer.bounding_box == box


def test_a_halo_larger_than_the_layer_is_reflected_again_and_again(make_mag):
    mag, box = make_mag(), BoundingBox((3, 5, 7), (2, 3, 1))
    voxels = np.arange(6, dtype="uint8").reshape((1, *box.size))
    mag.write(voxels, bounding_box=box)
    expected = np.pad(voxels, [(0, 0), (9, 9), (9, 9), (9, 9)], mode="symmetric")
    (got,) = mag.map_cubes(lambda block: block, halo=9, boundary="reflect")
    assert np.array_equal(got, expected)


def test_a_filter_with_a_halo_equals_the_filter_of_the_whole(source, make_mag):
    mag, voxels = source
    target = make_mag("float32", cube=64)
    mag.map_cubes(smooth, target, halo=1)
    assert np.array_equal(target.read(), smooth(voxels))
    again = make_mag("float32", cube=64)
    mag.map_cubes(lambda block: smooth(block)[:, 1:-1, 1:-1, 1:-1], again, halo=1, boundary="reflect")
    assert np.array_equal(again.read(), smooth(voxels, mode="reflect"))


def test_three_axes_where_there_is_one_channel_and_c_order(source, make_mag):
    mag, voxels = source
    target = make_mag()
    mag.map_cubes(lambda block: np.ascontiguousarray(255 - block[0]), target)
    assert np.array_equal(target.read(), 255 - voxels)


def test_other_types_and_channels(make_mag, random_voxels):
    mag, target = make_mag("uint16", channels=3), make_mag("float32")
    voxels = random_voxels((3, *BOX.size), "uint16")
    mag.write(voxels, bounding_box=BOX)
    mag.map_cubes(lambda block: block.mean(axis=0, dtype="float32"), target)
    assert np.array_equal(target.read()[0], voxels.mean(axis=0, dtype="float32"))


@pytest.mark.parametrize("halo", [0, 2])
def test_a_coarser_target(source, make_mag, halo):
    mag, voxels = source
    target = make_mag(mag=2)
    box = BOX.aligned_outwards((2, 2, 2))
    pad = list(zip((0, *(BOX.topleft - box.topleft)), (0, *(box.bottomright - BOX.bottomright)), strict=True))
    whole = np.pad(voxels, pad, mode="edge")
    mag.map_cubes(lambda block: block[:, ::2, ::2, ::2], target, halo=halo, boundary="nearest")
    assert target.layer.bounding_box == box
    assert np.array_equal(target.read(), whole[:, ::2, ::2, ::2])


def test_a_finer_target(make_mag, random_voxels):
    mag, target = make_mag(mag=2), make_mag()
    box = BoundingBox((10, 20, 30), (60, 40, 20))
    voxels = random_voxels((1, *(box.size // 2)))
    mag.write(voxels, bounding_box=box)
    mag.map_cubes(lambda block: block.repeat(2, 1).repeat(2, 2).repeat(2, 3), target)
    assert np.array_equal(target.read(), voxels.repeat(2, 1).repeat(2, 2).repeat(2, 3))


@pytest.mark.slow
def test_several_sources_by_name(source, make_mag, random_voxels):
    mag, voxels = source
    mask, coarse = make_mag("uint8", cube=64), make_mag("uint16", mag=(2, 2, 1))
    holes = random_voxels((1, *BOX.size), seed=1) & 1
    mask.write(holes, bounding_box=BOX)
    area = BOX.aligned_outwards((2, 2, 1))
    small = random_voxels((1, *area.in_mag((2, 2, 1)).size), "uint16", seed=2)
    coarse.write(small, bounding_box=area)
    large = small.repeat(2, 1).repeat(2, 2)[(slice(None), *BOX.to_slices(area.topleft))]

    def combine(block, mask, coarse, box):
        start = box.topleft % (2, 2, 1)
        large = coarse.repeat(2, 1).repeat(2, 2)
        x, y, z = (slice(low, low + n) for low, n in zip(start, box.size, strict=True))
        return block * mask + large[:, x, y, z]

    target = make_mag("uint16")
    mag.map_cubes(combine, target, sources={"mask": mask, "coarse": coarse})
    assert np.array_equal(target.read(), voxels * holes + large)
    # a function that takes no other block
    again = make_mag()
    mag.map_cubes(lambda a, b: a * b, again, sources={"a": mag, "b": mask})
    assert np.array_equal(again.read(), voxels * holes)


def test_several_targets_by_name(source, make_mag):
    mag, voxels = source
    targets = {"low": make_mag(), "wide": make_mag("uint16", cube=64), "half": make_mag(mag=2)}
    box = BOX.aligned_outwards((2, 2, 2))

    def split(block):
        return {"low": block, "wide": block.astype("uint16") * 3, "half": block[:, ::2, ::2, ::2]}

    reports = mag.map_cubes(split, targets, boundary="nearest")
    x = np.pad(voxels, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
    assert np.array_equal(targets["low"].read(), x)
    assert np.array_equal(targets["wide"].read(), x.astype("uint16") * 3)
    assert np.array_equal(targets["half"].read(), x[:, ::2, ::2, ::2])
    assert {name: report.bounding_box for name, report in reports.items()} == dict.fromkeys(targets, box)
    for name, report in reports.items():
        assert report.cubes == len(list(targets[name].cubes_on_disk()))
        assert report.label == targets[name].place.label
        assert targets[name].layer.bounding_box == box


@pytest.mark.parametrize("shape", [16, (64, 32, 32), 96])
def test_blocks_of_another_shape_than_cubes(source, make_mag, shape):
    mag, voxels = source
    target, seen = make_mag(), []

    def note(block, box):
        seen.append(box)
        return 255 - block

    mag.map_cubes(note, target, block_shape=shape)
    sides = (shape,) * 3 if isinstance(shape, int) else shape
    assert len(seen) == len(set(seen))
    assert set(seen) == set(box_tiles(BOX, sides, sides))
    assert np.array_equal(target.read(), 255 - voxels)


def test_a_write_into_a_part_keeps_the_rest(source, make_mag):
    mag, voxels = source
    target = make_mag(compression="lz4")
    target.write(voxels, bounding_box=BOX)
    part = BoundingBox((110, 50, 10), (40, 33, 21))
    mag.map_cubes(invert, target, bounding_box=part)
    expected = voxels.copy()
    place = (slice(None), *part.to_slices(BOX.topleft))
    expected[place] = 255 - voxels[place]
    assert np.array_equal(target.read(), expected)


# --- in place --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_in_place_with_a_halo(make_mag, random_voxels, compression, leftovers):
    mag, voxels = make_mag(compression=compression), random_voxels((1, *BOX.size))
    mag.write(voxels, bounding_box=BOX)
    mag.map_cubes(lambda block: smooth(block).astype("uint8"), mag, halo=1)
    assert np.array_equal(mag.read(), smooth(voxels).astype("uint8"))
    assert leftovers(mag) == []


@pytest.mark.slow
def test_in_place_and_into_another_mag(source, make_mag):
    mag, voxels = source
    other = make_mag("uint16")

    def both(block):
        return {"other": smooth(block).astype("uint16"), "self": smooth(block).astype("uint8")}

    reports = mag.map_cubes(both, {"other": other, "self": mag}, halo=1)
    assert np.array_equal(mag.read(), smooth(voxels).astype("uint8"))
    assert np.array_equal(other.read(), smooth(voxels).astype("uint16"))
    assert reports["self"].label == mag.place.label
    assert reports["self"].cubes == reports["other"].cubes == len(mag.spec.grid.cubes(BOX))


# --- records ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_shape", [None, (32, 64, 16), 50])
def test_records_come_in_the_order_of_the_blocks(source, block_shape):
    mag, voxels = source
    sides = {None: (32, 32, 32), 50: (50, 50, 50)}.get(block_shape, block_shape)
    boxes = list(box_tiles(BOX, sides, sides))
    before = os.listdir(f"{mag.path}/.wkdask")

    def slow(block, box):
        time.sleep(0.01 * (box.topleft.x // 32 % 2))
        return box, int(block.sum())

    records = list(mag.map_cubes(slow, block_shape=block_shape))
    expected = [(box, int(voxels[(slice(None), *box.to_slices(BOX.topleft))].sum())) for box in boxes]
    assert records == expected
    assert os.listdir(f"{mag.path}/.wkdask") == before


def test_records_are_made_as_they_are_taken(make_mag):
    mag, called = make_mag(), []
    box = BoundingBox((0, 0, 0), (32, 32, 32 * 10**6))
    records = mag.map_cubes(lambda block, box: called.append(box), bounding_box=box)
    assert called == []
    assert [next(records) for _ in range(10)] == [None] * 10
    records.close()
    assert 10 <= len(called) < 5000
    count = len(called)
    time.sleep(0.1)
    assert len(called) == count


def test_a_function_that_fails_for_a_record(source):
    mag, _ = source
    boxes = list(box_tiles(BOX, (32, 32, 32), (32, 32, 32)))

    def fails(block, box):
        return box if box != boxes[17] else 1 // 0

    taken = []
    with pytest.raises(TaskFailedError, match="ZeroDivisionError"):
        taken.extend(mag.map_cubes(fails))
    assert taken == boxes[: len(taken)]


def counted(block, box, folder):
    """Return a record, and leave a file for every call; fail while one is there."""
    name = "-".join(map(str, box.topleft))
    with open(f"{folder}/{name}-{time.monotonic_ns()}", "xb"):
        pass
    if name == "192-64-32" and os.path.exists(f"{folder}/fail"):
        raise ZeroDivisionError("not yet")
    return {"box": list(box.to_tuple6()), "mean": float(block.mean()), "large": 2**64 - 1, "none": None}


def calls_in(folder):
    return sorted("-".join(name.split("-")[:3]) for name in os.listdir(folder) if name != "fail")


def test_records_of_a_job_that_is_resumed(source, tmp_path):
    mag, voxels = source
    folder = tmp_path / "calls"
    folder.mkdir()
    (folder / "fail").touch()
    function = functools.partial(counted, folder=str(folder))
    boxes = list(box_tiles(BOX, (32, 32, 32), (32, 32, 32)))
    with pytest.raises(TaskFailedError):
        list(mag.map_cubes(function, resume=True))
    (ticket,) = unfinished_jobs(mag.place.store)
    assert ticket.box == BOX
    (folder / "fail").unlink()
    first = calls_in(folder)
    records = list(mag.map_cubes(function, resume=True))
    assert [BoundingBox.from_tuple6(record["box"]) for record in records] == boxes
    means = [float(voxels[(slice(None), *box.to_slices(BOX.topleft))].mean()) for box in boxes]
    assert [record["mean"] for record in records] == means
    assert records[0]["large"] == 2**64 - 1
    second = calls_in(folder)
    done_twice = len(second) - len(set(second))
    assert len(set(second)) == len(boxes)
    assert done_twice <= 4  # those of the task that failed
    assert len(first) > 4
    assert unfinished_jobs(mag.place.store) == []


def test_records_that_are_not_taken_to_the_end_are_kept(source, tmp_path):
    mag, _ = source
    function = functools.partial(counted, folder=str(tmp_path))
    records = mag.map_cubes(function, resume=True)
    first = [next(records) for _ in range(5)]
    records.close()
    called = len(calls_in(tmp_path))
    again = list(mag.map_cubes(function, resume=True))
    assert again[:5] == first
    assert len(calls_in(tmp_path)) - called < len(again)


def test_a_job_of_records_leaves_dead_jobs_that_write_alone(source, make_mag):
    mag, _ = source
    target = make_mag()
    with pytest.raises(TaskFailedError):
        mag.map_cubes(lambda block, box: block if box.topleft.x < 128 else 1 // 0, target)
    (before,) = unfinished_jobs(target.place.store)
    list(target.map_cubes(lambda block: int(block.sum()), resume=True, bounding_box=BOX, job="count"))
    assert unfinished_jobs(target.place.store) == [before]


@pytest.mark.parametrize("record", [(1, 2), np.int64(3), {1: 2}, [object()], b"x", np.zeros(3)])
def test_records_that_a_journal_cannot_keep(source, record):
    mag, _ = source
    with pytest.raises(ResumeError, match="without resume"):
        list(mag.map_cubes(lambda block: record, resume=True, job="records"))
    assert len(list(mag.map_cubes(lambda block: record))) == len(mag.spec.grid.cubes(BOX))


# --- resume ----------------------------------------------------------------------------------------------


def failing(block, box, folder):
    counted(block, box, folder)
    return 255 - block


@pytest.mark.parametrize("in_place", [False, True])
def test_a_failed_job_goes_on_where_it_stopped(source, make_mag, tmp_path, in_place):
    mag, voxels = source
    target = mag if in_place else make_mag()
    folder = tmp_path / "calls"
    folder.mkdir()
    (folder / "fail").touch()
    function = functools.partial(failing, folder=str(folder))
    with pytest.raises(TaskFailedError) as caught:
        mag.map_cubes(function, target, resume=True)
    assert any("for the block" in note for note in caught.value.__cause__.__notes__)
    (folder / "fail").unlink()
    before, events = calls_in(folder), []
    report = mag.map_cubes(function, target, resume=True, progress=events.append)
    started = next(event for event in events if isinstance(event, JobStarted))
    assert started.units_before > 0
    assert np.array_equal(target.read(), 255 - voxels)
    assert report.cubes == len(mag.spec.grid.cubes(BOX))
    assert report.bytes == voxels.nbytes
    after = calls_in(folder)
    assert len(after) < len(before) + len(set(after))
    assert set(after) == {"-".join(map(str, box.topleft)) for _, box in mag.spec.grid.pieces(BOX)}


SCRIPT = """
import sys, time, os
from wkdask import Dataset

def slow(block):
    time.sleep(0.05)
    return 255 - block

source = Dataset(sys.argv[1]).get_layer("layer").get_mag(1)
target = Dataset(sys.argv[2]).get_layer("layer").get_mag(1)
report = source.map_cubes(slow, target, resume=True)
print(report.cubes_before)
"""


@pytest.mark.slow
def test_a_killed_driver_is_resumed_by_a_new_process(source, make_mag, tmp_path):
    mag, voxels = source
    target, script = make_mag(), tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), mag.place.dataset_path, target.place.dataset_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(target.cubes_on_disk())) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    landed = len(list(target.cubes_on_disk()))
    assert 5 <= landed < len(mag.spec.grid.cubes(BOX))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    assert int(done.stdout) > 0
    assert np.array_equal(target.read(), 255 - voxels)


def test_another_function_is_another_job(source, make_mag):
    mag, voxels = source
    target, state = make_mag(), {"fail": True}

    def function(add, fail):
        return lambda block, box: block + np.uint8(add) if box.topleft.x < 128 or not fail() else 1 // 0

    def maybe():
        return state["fail"]

    with pytest.raises(TaskFailedError):
        mag.map_cubes(function(1, maybe), target, resume=True)
    state["fail"] = False
    with pytest.warns(match="it is another one"):
        mag.map_cubes(function(2, maybe), target, resume=True)
    assert np.array_equal(target.read(), voxels + np.uint8(2))


class Nameless:
    def __init__(self):
        import threading

        self.lock = threading.Lock()

    def __call__(self, block):
        return 255 - block


def test_a_function_without_a_lasting_name(source, make_mag):
    mag, voxels = source
    with pytest.raises(ResumeError, match="job="):
        mag.map_cubes(Nameless(), make_mag(), resume=True)
    for options in ({}, {"resume": True, "job": "mine"}):
        target = make_mag()
        mag.map_cubes(Nameless(), target, **options)
        assert np.array_equal(target.read(), 255 - voxels)


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (InvalidValueError, {"boundary": "mirror"}),
        (DTypeError, {"boundary": 256}),
        (DTypeError, {"boundary": 0.5}),
        (InvalidValueError, {"halo": (-1, 0, 0)}),
        (InvalidValueError, {"block_shape": 48}),
        (InvalidValueError, {"block_shape": 0}),
        (PlanError, {"bounding_box": BoundingBox((0, 0, 0), (0, 1, 1))}),
        (InvalidValueError, {"retries": -1}),
        (InvalidValueError, {"resources": {"GPU": 1}}),
        (PlanError, {"task_memory": 1 << 60}),
        (PlanError, {"halo": 10**5, "boundary": "reflect"}),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_before_anything_is_written(source, make_mag, state_of, error, options):
    mag, _ = source
    target = make_mag()
    before = state_of(target)
    with pytest.raises(error):
        mag.map_cubes(invert, target, **options)
    assert state_of(target) == before


def test_targets_that_cannot_be(source, make_mag):
    mag, _ = source
    with pytest.raises(InvalidValueError, match="same mag"):
        mag.map_cubes(invert, {"a": mag, "b": mag})
    with pytest.raises(InvalidValueError, match="records"):
        mag.map_cubes(invert, {})
    with pytest.raises(InvalidValueError, match="function"):
        mag.map_cubes(3, mag)


@pytest.mark.slow
def test_targets_that_are_all_read_and_replaced(source, make_mag, random_voxels):
    mag, voxels = source
    other, others = make_mag(), random_voxels((1, *BOX.size), seed=9)
    other.write(others, bounding_box=BOX)
    both = {"a": mag, "b": other}
    mag.map_cubes(lambda a, b: {"a": a + b, "b": a - b}, both, sources=both)
    assert np.array_equal(mag.read(bounding_box=BOX), voxels + others)
    assert np.array_equal(other.read(bounding_box=BOX), voxels - others)


def test_a_read_only_target(source, make_mag, new):
    mag, _ = source
    layer = new().add_symlink_layer(mag.layer.path, writable=False)
    with pytest.raises(ReadOnlyError):
        mag.map_cubes(invert, layer.get_mag(1))


@pytest.mark.parametrize(
    ("result", "match"),
    [
        (lambda block: None, "numpy array"),
        (lambda block: block[:, 1:], "shape"),
        (lambda block: block.astype("uint16"), "uint16"),
        (lambda block: np.concatenate([block, block]), "channel|shape"),
        (lambda block: {"a": block}, "numpy array"),
    ],
)
def test_what_a_function_may_not_return(source, make_mag, result, match):
    mag, _ = source
    target = make_mag()
    with pytest.raises(TaskFailedError, match=match):
        mag.map_cubes(result, target)
    assert list(target.cubes_on_disk()) == []


def test_named_blocks_that_are_missing(source, make_mag):
    mag, _ = source
    with pytest.raises(TaskFailedError, match=r"\['a', 'b'\]"):
        mag.map_cubes(lambda block: {"a": block}, {"a": make_mag(), "b": make_mag()})


# --- on a cluster ----------------------------------------------------------------------------------------


@pytest.mark.cluster
def test_on_workers_with_a_closure_a_partial_and_records(source, make_mag, client):
    mag, voxels = source
    target, pids = make_mag("float32"), {*client.run(os.getpid).values()}
    mean = 3.0

    def centred(block, box):
        import scipy.ndimage as ndi  # of the worker

        return ndi.uniform_filter(block.astype("float32"), (1, 3, 3, 3), mode="nearest") - mean

    events = []
    mag.map_cubes(centred, target, halo=1, progress=events.append)
    assert np.array_equal(target.read(), smooth(voxels) - 3.0)
    workers = {int(event.report.worker.split(":")[1]) for event in events if isinstance(event, UnitDone)}
    assert workers == pids
    records = list(mag.map_cubes(functools.partial(np.sum, dtype="int64")))
    boxes = box_tiles(BOX, (32, 32, 32), (32, 32, 32))
    assert records == [voxels[(slice(None), *box.to_slices(BOX.topleft))].sum(dtype="int64") for box in boxes]


@pytest.mark.slow
@pytest.mark.cluster
def test_in_place_on_workers_of_which_one_is_killed(source, client, leftovers):
    mag, voxels = source
    pids, killed = list(client.run(os.getpid).values()), []

    def slow(block):
        import time

        time.sleep(0.02)
        return 255 - block

    def kill_one(event):
        if isinstance(event, UnitDone) and not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    mag.map_cubes(slow, mag, progress=kill_one)
    assert killed
    assert np.array_equal(mag.read(), 255 - voxels)
    assert leftovers(mag) == []
    client.wait_for_workers(2, timeout=60)


# --- several drivers on one mag ----------------------------------------------------------------------------


def test_a_split_is_the_box_and_shares_no_cube(source):
    mag, _ = source
    for count in (1, 2, 3, 5, 100):
        parts = mag.split(count)
        cubes = [index for part in parts for index in mag.spec.grid.cubes(part)]
        assert len(cubes) == len(set(cubes))
        assert set(cubes) == set(mag.spec.grid.cubes(BOX))
        assert sum(part.volume() for part in parts) == BOX.volume()
        assert len(parts) == min(count, 5)
    with pytest.raises(InvalidValueError):
        mag.split(0)


SPLIT = SCRIPT.replace(
    "slow, target, resume=True",
    "slow, target, resume=True, bounding_box=target.split(\n"
    "    4, bounding_box=source.bounding_box)[int(sys.argv[3])]",
)


@pytest.mark.slow
def test_four_drivers_on_one_mag_killed_and_resumed(source, make_mag, tmp_path):
    mag, voxels = source
    target, script = make_mag(compression="lz4"), tmp_path / "script.py"
    script.write_text(SPLIT)
    command = [sys.executable, str(script), mag.place.dataset_path, target.place.dataset_path]
    env = {**os.environ, "DASK_NUM_WORKERS": "1"}

    def start(count):
        return [
            subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True, env=env)
            for n in range(count)
        ]

    processes = start(4)
    deadline = time.monotonic() + 60
    while len(list(target.cubes_on_disk())) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in processes[:3]:  # the fourth goes on beside those that come back
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert len(list(target.cubes_on_disk())) < len(mag.spec.grid.cubes(BOX))
    again = start(3)
    for process in [*again, processes[3]]:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert np.array_equal(target.read(), 255 - voxels)
    assert Dataset(target.place.dataset_path).get_layer("layer").bounding_box == BOX
    assert len(list(target.cubes_on_disk())) == len(mag.spec.grid.cubes(BOX))
