"""Writes inside a task: gathered per cube, seen by the task itself, published once when it ends."""

import os

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wkdask import BoundingBox, Dataset
from wkdask.errors import ChannelError, DTypeError, InvalidValueError, OutOfBoundsError
from wkdask.jobs.tasks import PlaceReport, Target
from wkdask.operations.inline import TaskWrites, add_box, current_writes, gathered_writes
from wkdask.storage.publish.jobs import job_folder

each_compression = pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
CUBE = BoundingBox((32, 0, 64), (32, 32, 32))
PARTS = [
    BoundingBox((32, 0, 64), (5, 5, 5)),
    BoundingBox((40, 10, 70), (20, 7, 3)),
    BoundingBox((50, 12, 66), (14, 20, 30)),  # overlaps the one before
]


def publish(writes, mag=None):
    """Publish what a task has written, as the job of `mag` does."""
    if mag is None:
        return writes.publish(None)
    with job_folder(mag.place.store) as folder:
        return writes.publish(Target(mag.place.store, folder))


def inodes(mag):
    paths = [mag.place.store.cube_path(box.topleft // box.size) for box in mag.cubes_on_disk()]
    return {path: os.stat(path).st_ino for path in paths}


# --- boxes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([((0, 0, 0), (4, 4, 4)), ((4, 0, 0), (4, 4, 4))], [((0, 0, 0), (8, 4, 4))]),
        ([((0, 0, 0), (4, 4, 4)), ((1, 1, 1), (2, 2, 2))], [((0, 0, 0), (4, 4, 4))]),
        ([((1, 1, 1), (2, 2, 2)), ((0, 0, 0), (4, 4, 4))], [((0, 0, 0), (4, 4, 4))]),
        (
            [((0, 0, 0), (4, 4, 4)), ((8, 0, 0), (4, 4, 4)), ((4, 0, 0), (4, 4, 4))],
            [((0, 0, 0), (12, 4, 4))],
        ),
        (
            [((0, 0, 0), (4, 4, 4)), ((4, 4, 0), (4, 4, 4))],
            [((0, 0, 0), (4, 4, 4)), ((4, 4, 0), (4, 4, 4))],
        ),
        ([((0, 0, 0), (4, 4, 4)), ((2, 0, 0), (4, 4, 4))], [((0, 0, 0), (6, 4, 4))]),
    ],
)
def test_boxes_that_are_a_box_together_become_one(boxes, expected):
    known = []
    for box in boxes:
        add_box(known, BoundingBox(*box))
    assert known == [BoundingBox(*box) for box in expected]


side = st.tuples(st.integers(0, 5), st.integers(1, 4))


@given(st.lists(st.tuples(side, side, side), max_size=12))
def test_boxes_cover_what_was_added_and_no_more(parts):
    expected, covered, known = np.zeros((10, 10, 10), bool), np.zeros((10, 10, 10), bool), []
    for part in parts:
        box = BoundingBox(tuple(low for low, _ in part), tuple(size for _, size in part))
        expected[box.to_slices()] = True
        add_box(known, box)
    for box in known:
        covered[box.to_slices()] = True
    assert np.array_equal(covered, expected)


# --- where writes go ------------------------------------------------------------------------------------


def test_writes_are_gathered_within_a_task_only():
    assert current_writes() is None
    with gathered_writes() as outer:
        assert current_writes() is outer
        with gathered_writes() as inner:
            assert current_writes() is inner
        assert current_writes() is outer
        with pytest.raises(ZeroDivisionError), gathered_writes():
            1 / 0
        assert current_writes() is outer
    assert current_writes() is None


def test_what_was_written_is_seen_and_not_yet_on_disk(make_mag, random_voxels):
    mag, old, new = make_mag(), random_voxels((1, 96, 40, 40)), random_voxels((1, 50, 30, 35), seed=1)
    mag.write(old, offset=(0, 0, 0))
    before = inodes(mag)
    with gathered_writes() as writes:
        report = mag.write(new, offset=(20, 5, 3))
        expected = old.copy()
        expected[:, 20:70, 5:35, 3:38] = new
        assert np.array_equal(mag.read(), expected)
        assert np.array_equal(mag.read((30, 0, 30), (40, 40, 5)), expected[:, 30:70, :, 30:35])
        view = mag.get_view((20, 5, 3), (10, 10, 10))
        assert np.array_equal(view.read(), new[:, :10, :10, :10])
        with mag.get_buffered_slice_reader(buffer_size=7) as slices:
            assert np.array_equal(np.stack(list(slices), axis=-1), expected)
        assert inodes(mag) == before
        assert (report.bounding_box, report.cubes) == (BoundingBox((20, 5, 3), (50, 30, 35)), 0)
        assert (report.minimum, report.maximum) == (new.min(), new.max())
        publish(writes, mag)
    assert np.array_equal(mag.read(), expected)


def test_the_task_does_not_keep_a_reference_to_the_array(make_mag):
    mag, block = make_mag(), np.ones((8, 8, 8), "uint8")
    with gathered_writes() as writes:
        mag.write(block)
        block[...] = 99
        publish(writes, mag)
    assert np.array_equal(mag.read(size=(8, 8, 8)), np.ones((1, 8, 8, 8)))


@each_compression
@pytest.mark.parametrize("old", [False, True])
def test_parts_of_a_cube_keep_its_other_voxels(make_mag, random_voxels, compression, old):
    mag = make_mag("uint16", 2, compression=compression)
    expected = np.zeros((2, *CUBE.size), "uint16", order="F")
    if old:
        expected = random_voxels((2, *CUBE.size), "uint16")
        mag.write(expected, offset=CUBE.topleft)
    expected = expected.copy()
    with gathered_writes() as writes:
        for seed, part in enumerate(PARTS):
            block = random_voxels((2, *part.size), "uint16", seed=seed + 1)
            expected[(slice(None), *part.to_slices(CUBE.topleft))] = block
            mag.write(block, offset=part.topleft)
        (report,) = publish(writes, mag)
    assert np.array_equal(mag.read(CUBE.topleft, CUBE.size), expected)
    assert report.cubes == 1
    assert report.box == BoundingBox((32, 0, 64), (32, 32, 32))
    assert len(inodes(mag)) == 1


@each_compression
def test_parts_that_become_zero_empty_a_cube(make_mag, compression):
    mag = make_mag(compression=compression)
    for part in PARTS[:2]:
        mag.write(np.ones(part.size, "uint8"), offset=part.topleft)
    assert len(inodes(mag)) == 1
    with gathered_writes() as writes:
        for part in PARTS[:2]:
            mag.write(np.zeros(part.size, "uint8"), offset=part.topleft)
        (report,) = publish(writes, mag)
    assert inodes(mag) == {}
    assert (report.minimum, report.maximum) == (0, 0)


def test_a_cube_is_published_once_however_often_it_was_written(make_mag, random_voxels):
    mag, voxels = make_mag(cube=64), random_voxels((1, 128, 64, 64))
    with gathered_writes() as writes:
        for _ in range(2):
            for box in BoundingBox((0, 0, 0), (128, 64, 64)).chunk((16, 32, 8)):
                mag.write(voxels[(slice(None), *box.to_slices())], offset=box.topleft)
        (report,) = publish(writes, mag)
    assert report == PlaceReport(
        mag.place.dataset_path, "layer", mag.mag, BoundingBox((0, 0, 0), (128, 64, 64)),
        2, voxels.nbytes, report.file_nbytes, voxels.min(), voxels.max(),
    )  # fmt: skip
    assert report.file_nbytes == sum(os.stat(path).st_size for path in inodes(mag))
    assert np.array_equal(mag.read((0, 0, 0), (128, 64, 64)), voxels)


# --- other mags -----------------------------------------------------------------------------------------


def test_every_mag_gets_a_report_of_its_own(make_mag, random_voxels, leftovers):
    own, other, voxels = make_mag(), make_mag(compression="lz4"), random_voxels((1, 40, 40, 40))
    with gathered_writes() as writes:
        own.write(voxels, offset=(3, 4, 5))
        other.write(voxels[:, :10], offset=(100, 0, 0))
        mine, foreign = publish(writes, own)
    assert (mine.dataset_path, foreign.dataset_path) == (own.place.dataset_path, other.place.dataset_path)
    assert mine.box == BoundingBox((3, 4, 5), (40, 40, 40))
    assert foreign.box == BoundingBox((100, 0, 0), (10, 40, 40))
    assert np.array_equal(own.read((3, 4, 5), (40, 40, 40)), voxels)
    assert np.array_equal(other.read((100, 0, 0), (10, 40, 40)), voxels[:, :10])
    assert leftovers(own) == leftovers(other) == []


def test_a_publication_changes_the_token_of_a_large_array(make_mag):
    """Above 10 000 cubes a stamp stands for them, also where the mag is not the job's own."""
    mag = make_mag(cube=16)
    mag.write(np.ones((16, 16, 16), "uint8"), offset=(16 * 30, 0, 0))
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (16 * 64, 16 * 64, 16 * 4))
    before = mag.to_dask().name
    assert mag.to_dask().name == before
    with gathered_writes() as writes:
        mag.write(np.full((16, 16, 16), 2, "uint8"), offset=(16 * 30, 0, 0))
        publish(writes)
    assert mag.to_dask().name != before


def test_a_mag_that_was_deleted_meanwhile_does_not_come_back(make_mag):
    mag = make_mag()
    with gathered_writes() as writes:
        mag.write(np.ones((4, 4, 4), "uint8"))
        mag.layer.delete_mag(1)
        with pytest.raises(OSError, match="header"):
            publish(writes)
    assert not os.path.exists(mag.path)


# --- what is written ------------------------------------------------------------------------------------


def test_a_lazy_array_is_computed_in_the_task(make_mag, random_voxels):
    source, target, voxels = make_mag(), make_mag(), random_voxels((1, 70, 40, 33))
    source.write(voxels)
    with gathered_writes() as writes:
        target.write(255 - source.to_dask(), offset=(0, 0, 0))
        publish(writes, target)
    assert np.array_equal(target.read((0, 0, 0), voxels.shape[1:]), 255 - voxels)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda block: block.astype("float32") + 0.5, DTypeError),
        (lambda block: np.repeat(block, 2, axis=0), ChannelError),
        (lambda block: block[:, :5], InvalidValueError),
        (lambda block: block[:, :1, :1, :1], InvalidValueError),  # would be broadcast
        (lambda block: np.ma.masked_equal(block, 1), DTypeError),
    ],
)
def test_a_lazy_array_that_computes_to_something_else_is_refused(make_mag, function, error):
    mag = make_mag()
    lying = da.ones((1, 10, 10, 10), chunks=-1, dtype="uint8").map_blocks(
        function, dtype="uint8", meta=np.empty((0, 0, 0, 0), "uint8")
    )
    with gathered_writes() as writes:
        with pytest.raises(error):
            mag.write(lying)
        assert publish(writes, mag) == []
    assert inodes(mag) == {}


def test_what_does_not_fit_is_refused_as_outside_of_a_task(make_mag):
    mag = make_mag()
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (40, 40, 40))
    view = mag.get_view((0, 0, 0), (10, 10, 10))
    with gathered_writes() as writes:
        with pytest.raises(DTypeError):
            mag.write(np.ones((2, 2, 2), "uint16"))
        with pytest.raises(ChannelError):
            mag.write(np.ones((2, 2, 2, 2), "uint8"))
        with pytest.raises(OutOfBoundsError):
            view.write(np.ones((2, 2, 11), "uint8"))
        assert publish(writes, mag) == []


def test_without_writes_nothing_is_published(make_mag):
    mag = make_mag()
    assert TaskWrites().publish(None) == []
    assert not os.path.exists(os.path.join(mag.path, ".wkdask"))


def test_the_largest_id_of_a_task_is_reported(make_mag):
    mag = make_mag("uint64", category="segmentation")
    with gathered_writes() as writes:
        mag.write(np.full((2, 2, 2), 2**40, "uint64"))
        mag.write(np.full((2, 2, 2), 7, "uint64"), offset=(40, 0, 0))
        (report,) = publish(writes, mag)
    assert (report.minimum, report.maximum) == (7, 2**40)
    assert isinstance(report.maximum, int)
    assert (
        Dataset(mag.place.dataset_path).get_layer("layer").largest_segment_id is None
    )  # the driver notes it
