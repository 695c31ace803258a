"""What runs on a worker: a unit in, a report out."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wkdask import BoundingBox
from wkdask.errors import ChannelError, DTypeError, InvalidValueError, JobEndedError
from wkdask.jobs.plan import plan_write
from wkdask.jobs.tasks import (
    Target,
    UnitReport,
    fill_part,
    merge_reports,
    publish_unit,
    sees_mag,
    write_block,
    write_unit,
)
from wkdask.storage.publish.jobs import job_folder

BOX = BoundingBox((20, 5, 33), (50, 30, 40))


def test_a_unit_is_published_and_reported(make_mag, random_voxels):
    mag, block = make_mag("int16", 2), random_voxels((2, *BOX.size), "int16")
    with job_folder(mag.place.store) as folder:
        report = write_unit(block, Target(mag.place.store, folder), BOX)
    cubes = {(x, y, z) for x in range(3) for y in range(2) for z in (1, 2)}
    assert report.unit == report.box == BOX
    assert report.cubes == len(cubes)
    assert report.nbytes == block.nbytes
    assert (report.minimum, report.maximum) == (block.min(), block.max())
    assert report.worker.endswith(f":{os.getpid()}")
    assert {tuple(box.topleft // 32) for box in mag.cubes_on_disk()} == cubes
    files = [mag.place.store.cube_path(box.topleft // 32) for box in mag.cubes_on_disk()]
    assert report.file_nbytes == sum(map(os.path.getsize, files))
    assert np.array_equal(mag.place.store.read(BOX), block)
    assert len(pickle.dumps(report)) < 1_000


@pytest.mark.parametrize(
    "stored",
    [("wkw", None), ("wkw", "lz4"), ("zarr3", "zstd"), ("zarr3", None)],
    ids=str,
)
@pytest.mark.parametrize(
    "box",
    [
        BoundingBox((0, 0, 0), (64, 64, 64)),
        BoundingBox((16, 32, 0), (64, 16, 64)),
        BoundingBox((5, 9, 14), (51, 47, 40)),
    ],
    ids=["whole cubes", "whole blocks", "off the blocks"],
)
def test_the_report_has_the_min_max_of_the_block_alone(make_mag, stored, box):
    """Of whatever is stored beside it, of zero cubes and zero blocks in it too."""
    data_format, compression = stored
    mag = make_mag("int16", compression=compression, data_format=data_format)
    values = np.random.default_rng(0).integers(3, 90, (1, *box.size), "int16")
    beside = np.full((1, 128, 96, 96), -7, "int16")
    sparse = values.copy()
    sparse[:, :32, :, :] = 0
    fives = np.full_like(values, 5, order="F")
    everywhere = BoundingBox((0, 0, 0), (128, 96, 96))
    blocks = [(beside, everywhere), (values, box), (sparse, box), (np.zeros_like(values), box), (fives, box)]
    expected = [(-7, -7), (3, 89), (0, 89), (0, 0), (5, 5)]
    target = mag.place.store
    with job_folder(target) as folder:
        reports = [write_unit(block, Target(target, folder), place) for block, place in blocks]
        private = Target(target.staged(f"{folder}/private", raw=True), folder)
        parts = [fill_part(block, private, place) for block, place in blocks]
    assert [(report.minimum, report.maximum) for report in reports] == expected
    assert [(report.minimum, report.maximum) for report in parts] == expected


def test_any_memory_order_is_the_same_voxels(make_mag, random_voxels):
    block = random_voxels((1, *BOX.size))
    for given_block in (block, np.ascontiguousarray(block), np.repeat(block, 2, axis=2)[:, :, ::2]):
        mag = make_mag()
        with job_folder(mag.place.store) as folder:
            write_unit(given_block, Target(mag.place.store, folder), BOX)
        assert np.array_equal(mag.place.store.read(BOX), block)


@pytest.mark.parametrize(
    ("block", "error"),
    [
        (np.ones((1, *BOX.size), "uint16"), DTypeError),
        (np.ones((1, *BOX.size), ">u2"), DTypeError),
        (np.ones((2, *BOX.size), "uint8"), ChannelError),
        (np.ones(tuple(BOX.size), "uint8"), ChannelError),
        (np.ones((1, 50, 30, 39), "uint8"), InvalidValueError),
        (np.ma.masked_less(np.ones((1, *BOX.size), "uint8"), 3), DTypeError),
    ],
)
def test_a_block_that_is_not_what_was_promised_is_refused(make_mag, block, error):
    mag = make_mag()
    with job_folder(mag.place.store) as folder, pytest.raises(error):
        write_unit(block, Target(mag.place.store, folder), BOX)
    assert not list(mag.cubes_on_disk())


def test_a_task_of_a_job_that_ended_publishes_nothing(make_mag, random_voxels):
    mag = make_mag()
    with job_folder(mag.place.store) as folder:
        pass
    with pytest.raises(JobEndedError):
        write_unit(random_voxels((1, *BOX.size)), Target(mag.place.store, folder), BOX)
    assert not list(mag.cubes_on_disk())


def test_an_array_task_finds_its_box_by_its_place(make_mag, random_voxels):
    mag, block = make_mag(), random_voxels((1, *BOX.size))
    plan = plan_write(mag.spec, BOX, unit_nbytes=1)
    (window,) = plan.windows
    heard = []
    with job_folder(mag.place.store) as folder:
        target = Target(mag.place.store, folder)
        for unit in window.units:
            place = tuple(unit - window.units.start)
            part = block[(slice(None), *window.unit_box(place).to_slices(BOX.topleft))]
            result = write_block(part, target, window, True, heard.append, block_id=(0, *place))
            assert result.shape == (1, 1, 1, 1)
            assert result.item() is heard[-1]
    assert np.array_equal(mag.place.store.read(BOX), block)
    assert sum(report.cubes for report in heard) == plan.num_cubes


def test_staged_units_name_no_box_and_are_published_twice_the_same(make_mag, random_voxels):
    mag, block = make_mag(), random_voxels((1, *BOX.size))
    (window,) = plan_write(mag.spec, BOX).windows
    unit = next(iter(window.unit_boxes()))
    with job_folder(mag.place.store) as folder:
        staged = mag.place.store.staged(f"{folder}/staged")
        part = block[(slice(None), *unit.to_slices(BOX.topleft))]
        first = write_block(part, Target(staged, folder), window, "stage", block_id=(0, 0, 0, 0)).item()
        assert first.box is None
        assert first.cubes == 0
        assert not list(mag.cubes_on_disk())
        once = publish_unit(mag.place.store, staged, folder, unit, True)
        again = publish_unit(mag.place.store, staged, folder, unit, True)
    assert once.box == again.box == unit
    assert once.cubes == len(plan_write(mag.spec, unit).cube.cubes(unit))
    assert np.array_equal(mag.place.store.read(unit), part)


numbers = st.none() | st.integers(-(2**63), 2**64 - 1) | st.just(float("nan"))
reports = st.builds(
    UnitReport,
    unit=st.builds(BoundingBox, st.tuples(*[st.integers(0, 99)] * 3), st.tuples(*[st.integers(1, 9)] * 3)),
    box=st.none()
    | st.builds(BoundingBox, st.tuples(*[st.integers(0, 99)] * 3), st.tuples(*[st.integers(1, 9)] * 3)),
    cubes=st.integers(0, 9),
    nbytes=st.integers(0, 99),
    minimum=numbers,
    maximum=numbers,
)


@given(first=reports, second=reports)
def test_merged_reports_are_unions_sums_and_min_max(first, second):
    boxes = [report.box for report in (first, second) if report.box is not None]
    lows = [
        each.minimum for each in (first, second) if each.minimum is not None and each.minimum == each.minimum
    ]
    highs = [
        each.maximum for each in (first, second) if each.maximum is not None and each.maximum == each.maximum
    ]
    merged = merge_reports(first, second)
    assert merged.cubes == first.cubes + second.cubes
    assert merged.nbytes == first.nbytes + second.nbytes
    if not boxes:
        assert merged.box is None
    else:
        for axis in range(3):
            assert merged.box.topleft[axis] == min(box.topleft[axis] for box in boxes)
            assert merged.box.bottomright[axis] == max(box.bottomright[axis] for box in boxes)
    if lows:
        assert merged.minimum == min(lows)
    if highs:
        assert merged.maximum == max(highs)  # exact also above 2**53


def test_who_sees_a_mag(make_mag, tmp_path):
    assert sees_mag(make_mag().path) is None
    gone = str(tmp_path / "not-mounted" / "1")
    assert gone in sees_mag(gone)
    assert "does not see" in sees_mag(gone)
    (tmp_path / "file").write_text("")
    assert sees_mag(str(tmp_path / "file")) is not None
