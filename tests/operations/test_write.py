"""What is written is what was given, wherever it lies and however it is cut; what cannot be is refused."""

import itertools
import os

import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples

from wkdask import BoundingBox, Dataset
from wkdask.errors import (
    ChannelError,
    DTypeError,
    InvalidValueError,
    OutOfBoundsError,
    PlanError,
    ReadOnlyError,
    TaskFailedError,
)
from wkdask.jobs.events import UnitDone
from wkdask.operations.write import MagPlace, write_voxels

DTYPES = ["uint8", "uint16", "uint32", "uint64", "float32", "float64", "int8", "int16", "int32", "int64"]
META = np.empty((0,) * 4, "uint8")
BOX = BoundingBox((100, 37, 5), (90, 80, 70))

pieces_of_a_box = st.tuples(st.tuples(*[st.integers(0, 70)] * 3), st.tuples(*[st.integers(1, 60)] * 3))


def cut(lengths, total):
    """Return the lengths repeated until they make up `total`."""
    chunks = []
    for length in itertools.cycle(lengths):
        if sum(chunks) == total:
            break
        chunks.append(min(length, total - sum(chunks)))
    return tuple(chunks)


# --- equal voxels, exact boxes --------------------------------------------------------------------------


@settings(
    max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    dtype=st.sampled_from(DTYPES),
    channels=st.sampled_from([1, 3]),
    compression=st.sampled_from([None, "lz4", "lz4hc"]),
    writes=st.lists(
        st.tuples(
            pieces_of_a_box,
            st.sampled_from(["F", "C", "dask", "3d"]),
            st.lists(st.integers(3, 50), min_size=3, max_size=5),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    reads=st.lists(pieces_of_a_box, min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_pieces_written_are_the_pieces_read(
    tmp_path_factory, random_voxels, dtype, channels, compression, writes, reads, seed
):
    layer = Dataset.create(tmp_path_factory.mktemp("writer") / "ds", (1, 1, 1)).add_layer(
        "layer", "color", dtype_per_channel=dtype, num_channels=channels
    )
    mag = layer.add_mag(1, chunk_shape=8, shard_shape=32, compression=compression)
    expected = np.zeros((channels, 130, 130, 130), dtype)
    lows, highs = [], []
    for number, ((corner, size), kind, lengths, zeros) in enumerate(writes):
        voxels = random_voxels((channels, *size), dtype, seed + number)
        if zeros:
            voxels[:, : size[0] // 2] = 0
        region = tuple(slice(low, low + n) for low, n in zip(corner, size, strict=True))
        expected[(slice(None), *region)] = voxels
        data = voxels
        if kind == "C":
            data = np.ascontiguousarray(voxels)
        elif kind == "3d" and channels == 1:
            data = voxels[0]
        elif kind == "dask":
            chunks = (cut([1, 2], channels), *(cut(lengths[axis:], n) for axis, n in enumerate(size)))
            data = da.from_array(voxels, chunks=chunks)
        report = mag.write(data, offset=corner, durable=False)
        assert report.bounding_box == BoundingBox(corner, size)
        assert report.bytes == voxels.nbytes
        assert report.cubes == len(mag.spec.grid.cubes(BoundingBox(corner, size)))
        assert (report.minimum, report.maximum) == (voxels.min(), voxels.max())
        lows.append(corner)
        highs.append(np.add(corner, size))
    assert mag.layer.bounding_box == BoundingBox.from_corners(np.min(lows, axis=0), np.max(highs, axis=0))
    for corner, size in reads:
        region = tuple(slice(low, low + n) for low, n in zip(corner, size, strict=True))
        got = mag.read(offset=corner, size=size)
        assert got.flags.f_contiguous
        assert np.array_equal(got, expected[(slice(None), *region)])
    assert np.array_equal(mag.to_dask().compute(), mag.read())
    reopened = Dataset(mag.place.dataset_path).get_layer("layer").get_mag(1)
    assert np.array_equal(reopened.read(offset=(0, 0, 0), size=(130, 130, 130)), expected)
    # a cube of zeros has no file
    for cube in mag.cubes_on_disk():
        assert expected[(slice(None), *cube.to_slices())].any()


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_volume_off_the_grid_from_badly_cut_blocks(make_mag, random_voxels, leftovers, compression):
    shape, corner = (300, 250, 150), (50, 37, 5)
    voxels = random_voxels((1, *shape))
    mag, events = make_mag(cube=64, chunk=16, compression=compression), []
    x = da.from_array(voxels, chunks=(1, 39, 65, 29), inline_array=False)
    report = mag.write(255 - x, offset=corner, progress=events.append)
    box = BoundingBox(corner, shape)
    cubes = {tuple(index) for index in mag.spec.grid.cubes(box)}
    done = [event.report for event in events if isinstance(event, UnitDone)]
    published = [tuple(index) for each in done for index in mag.spec.grid.cubes(each.box)]
    assert len(published) == len({*published}) == report.cubes == len(cubes)
    assert {*published} == cubes == {tuple(each.topleft // 64) for each in mag.cubes_on_disk()}
    assert np.array_equal(mag.read(), 255 - voxels)
    assert mag.layer.bounding_box == report.bounding_box == box
    files = [mag.place.store.cube_path(each.topleft // 64) for each in mag.cubes_on_disk()]
    assert report.file_bytes == sum(map(os.path.getsize, files))
    assert leftovers(mag) == []


@pytest.mark.cluster
def test_a_volume_on_a_cluster(make_mag, random_voxels, client):
    voxels = random_voxels((3, 110, 100, 90), "uint16")
    mag = make_mag("uint16", 3, compression="lz4")
    x = da.from_array(voxels, chunks=(2, 77, 50, 59), inline_array=False)
    report = mag.write(x + 1, offset=(100, 37, 5), client=client, verify=True)
    assert np.array_equal(mag.read(), voxels + 1)
    assert report.cubes == len(list(mag.cubes_on_disk()))


def test_zeros_remove_cubes_and_grow_the_box(make_mag):
    mag = make_mag()
    mag.write(np.ones((1, 64, 64, 64), "uint8"), offset=(32, 32, 32))
    assert len(list(mag.cubes_on_disk())) == 8
    mag.write(da.zeros((1, 32, 64, 64), chunks=20, dtype="uint8"), offset=(32, 32, 32))
    assert len(list(mag.cubes_on_disk())) == 4
    mag.write(np.zeros((1, 10, 10, 10), "uint8"), offset=(0, 0, 200))
    assert mag.layer.bounding_box == BoundingBox((0, 0, 32), (96, 96, 178))
    assert len(list(mag.cubes_on_disk())) == 4


@pytest.mark.parametrize("lazy", [False, True])
def test_the_largest_id_is_raised_exactly_and_never_falls(make_mag, lazy):
    mag = make_mag("uint64", category="segmentation")
    ids = np.zeros((1, 70, 40, 40), "uint64")
    for value, expected in [(5, 5), (2**53 + 1, 2**53 + 1), (7, 2**53 + 1), (2**64 - 1, 2**64 - 1)]:
        ids[0, 66, 3, 3] = value
        mag.write(da.from_array(ids, chunks=(1, 30, 30, 30)) if lazy else ids)
        assert mag.layer.largest_segment_id == expected
        assert Dataset(mag.place.dataset_path).get_segmentation_layer("layer").largest_segment_id == expected
    assert mag.read()[0, 66, 3, 3] == 2**64 - 1


def test_a_color_layer_gets_no_ids(make_mag):
    mag = make_mag("uint16")
    mag.write(np.full((8, 8, 8), 9, "uint16"))
    with open(os.path.join(mag.place.dataset_path, "datasource-properties.json")) as file:
        assert "largestSegmentId" not in file.read()


# --- a write that reads its own target ------------------------------------------------------------------


def shifted(block):
    return np.roll(block, 3, axis=1) ^ np.roll(block, -2, axis=3)


def check_in_place(make_mag, random_voxels, client):
    voxels = random_voxels((1, *BOX.size))
    for compression in (None, "lz4"):
        mag = make_mag(compression=compression)
        mag.write(voxels, bounding_box=BOX)
        inode = {path: os.stat(path).st_ino for path in cube_files(mag)}
        report = mag.write(255 - mag.to_dask("cube"), bounding_box=BOX, client=client)
        assert np.array_equal(mag.read(), 255 - voxels)
        assert report.cubes == len(mag.spec.grid.cubes(BOX))
        assert report.bytes == voxels.nbytes
        assert (report.minimum, report.maximum) == (255 - voxels.max(), 255 - voxels.min())
        assert all(os.stat(path).st_ino != inode[path] for path in cube_files(mag))

        def neighbours(block):
            import numpy as np

            return np.roll(block, 3, axis=1) ^ np.roll(block, -2, axis=3)

        x = mag.to_dask(16)
        y = x.map_overlap(
            neighbours, depth={0: 0, 1: 4, 2: 0, 3: 4}, boundary="periodic", dtype="uint8", meta=META
        )
        mag.write(y, bounding_box=BOX, client=client)
        assert np.array_equal(mag.read(), shifted(255 - voxels))
        # what the target holds around the box that is written stays
        part = BoundingBox((110, 47, 15), (50, 40, 33))
        expected = mag.read()
        mag.write(mag.to_dask(bounding_box=part.offset((7, 9, 11))), bounding_box=part, client=client)
        expected[:, 10:60, 10:50, 10:43] = expected[:, 17:67, 19:59, 21:54].copy()
        assert np.array_equal(mag.read(), expected)


def cube_files(mag):
    return [mag.place.store.cube_path(each.topleft // each.size) for each in mag.cubes_on_disk()]


@pytest.mark.slow
def test_in_place_on_threads(make_mag, random_voxels, leftovers):
    check_in_place(make_mag, random_voxels, None)


@pytest.mark.slow
@pytest.mark.cluster
def test_in_place_on_a_cluster(make_mag, random_voxels, client):
    check_in_place(make_mag, random_voxels, client)


def test_an_in_place_write_that_fails_changes_nothing(make_mag, random_voxels, leftovers):
    mag, voxels = make_mag(), random_voxels((1, *BOX.size))
    mag.write(voxels, bounding_box=BOX)

    def fails(block, block_id=None):
        if block_id == (0, 2, 2, 1):
            raise ZeroDivisionError("late")
        return 255 - block

    before = [os.stat(path).st_ino for path in cube_files(mag)]
    with pytest.raises(TaskFailedError, match="late"):
        mag.write(mag.to_dask("cube").map_blocks(fails, dtype="uint8", meta=META), bounding_box=BOX)
    assert np.array_equal(mag.read(), voxels)
    assert [os.stat(path).st_ino for path in cube_files(mag)] == before
    assert leftovers(mag) == []


# --- what is refused, with nothing written --------------------------------------------------------------


ONES = np.ones((1, 20, 20, 20), "uint8")
REFUSED = [
    (ONES.astype("uint16"), DTypeError),
    (ONES.astype("int8"), DTypeError),
    (ONES.astype(bool), DTypeError),
    (ONES.astype("float16"), DTypeError),
    (ONES.astype("complex64"), DTypeError),
    (np.full((1, 2, 2, 2), "a"), DTypeError),
    (np.full((1, 2, 2, 2), None, object), DTypeError),
    (np.ma.masked_equal(ONES, 1), DTypeError),
    (np.ones((3, 20, 20, 20), "uint8"), ChannelError),
    (np.ones((2, 20, 20, 20), "uint8"), ChannelError),
    (np.ones((0, 20, 20, 20), "uint8"), ChannelError),
    (np.ones((1, 0, 20, 20), "uint8"), InvalidValueError),
    (np.ones((20, 20, 0), "uint8"), InvalidValueError),
    (np.ones((20, 20), "uint8"), InvalidValueError),
    (np.ones((1, 1, 20, 20, 20), "uint8"), InvalidValueError),
    (ONES.tolist(), InvalidValueError),
    (None, InvalidValueError),
    (7, InvalidValueError),
    (np.uint8(7), InvalidValueError),
    (da.ones((1, 20, 20, 20), dtype="uint16"), DTypeError),
    (da.ones((1, 20, 20, 20), dtype="bool"), DTypeError),
    (da.ones((3, 20, 20, 20), dtype="uint8"), ChannelError),
    (da.ones((1, 20, 0, 20), dtype="uint8"), InvalidValueError),
    (da.ma.masked_equal(da.ones((1, 20, 20, 20), dtype="uint8"), 3), DTypeError),
    (da.from_array(ONES)[:, da.from_array(ONES[0, :, 0, 0]) > 0], PlanError),
]


@pytest.mark.parametrize(("data", "error"), REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_is_written(make_mag, state_of, leftovers, data, error):
    mag = make_mag()
    mag.write(np.ones((1, 40, 40, 40), "uint8"))
    before = state_of(mag)
    with pytest.raises(error):
        mag.write(data, offset=(5, 5, 5))
    assert state_of(mag) == before
    assert leftovers(mag) == []


def test_big_endian_is_refused_by_its_name(make_mag, state_of):
    mag = make_mag("uint16")
    before = state_of(mag)
    with pytest.raises(DTypeError, match=">u2"):
        mag.write(np.ones((1, 8, 8, 8), ">u2"))
    with pytest.raises(DTypeError, match=r"astype\('uint16'\)"):
        mag.write(np.ones((1, 8, 8, 8), "float64"))
    assert state_of(mag) == before


def test_one_channel_data_do_not_fit_three_channels(make_mag, state_of):
    mag = make_mag(channels=3)
    before = state_of(mag)
    for shape in [(8, 8, 8), (1, 8, 8, 8), (2, 8, 8, 8)]:
        with pytest.raises(ChannelError, match="3 channel"):
            mag.write(np.ones(shape, "uint8"))
    assert state_of(mag) == before


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("place", "error"),
    [
        ({"offset": (-1, 0, 0)}, OutOfBoundsError),
        ({"offset": (0, 0, 2**32 - 8)}, InvalidValueError),
        ({"offset": (0, 0)}, InvalidValueError),
        ({"offset": (0.5, 0, 0)}, InvalidValueError),
        ({"bounding_box": BoundingBox((0, 0, 0), (20, 20, 21))}, InvalidValueError),
        ({"bounding_box": BoundingBox((-5, 0, 0), (20, 20, 20))}, InvalidValueError),
        ({"offset": (0, 0, 0), "bounding_box": BoundingBox((0, 0, 0), (20, 20, 20))}, InvalidValueError),
    ],
)
def test_impossible_places_are_refused(make_mag, state_of, place, error, lazy):
    mag = make_mag()
    before = state_of(mag)
    data = da.from_array(ONES) if lazy else ONES
    with pytest.raises(error):
        mag.write(data, **place)
    assert state_of(mag) == before


def test_a_lie_of_an_expression_is_found_in_the_task(make_mag):
    mag = make_mag()
    x = da.ones((1, 20, 20, 20), dtype="uint8")
    for liar in (lambda block: block.astype("uint16"), lambda block: block[:, 1:], lambda block: block[0]):
        with pytest.raises(TaskFailedError, match="a block"):
            mag.write(x.map_blocks(liar, dtype="uint8", meta=META))
    assert mag.layer.bounding_box.is_empty()
    assert not list(mag.cubes_on_disk())


def test_a_read_only_place_says_why(make_mag):
    place = make_mag().place
    closed = MagPlace(place.dataset_path, place.layer, place.mag, place.store, "it is borrowed")
    with pytest.raises(ReadOnlyError, match="it is borrowed"):
        write_voxels(closed, ONES, BoundingBox((0, 0, 0), (20, 20, 20)), None)


def test_a_plan_beyond_the_memory_writes_nothing(make_mag, state_of):
    mag = make_mag()
    before = state_of(mag)
    x = da.ones((1, 64, 64, 64), dtype="uint8")
    with pytest.raises(PlanError, match="task_memory="):
        mag.write(x, task_memory=1 << 60)
    assert state_of(mag) == before
    mag.write(x, task_memory=1 << 20)
