"""Slice writers and readers: every axis, one publication per cube, nothing lost, nothing left."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import wkdask
from wkdask import BoundingBox, Dataset
from wkdask.errors import (
    ChannelError,
    DTypeError,
    InvalidValueError,
    OutOfBoundsError,
    ReadOnlyError,
    TaskFailedError,
)

each_axis = pytest.mark.parametrize("dimension", [0, 1, 2])
CORNER = (37, 5, 70)
SHAPE = (50, 45, 70)


def slices_of(voxels, dimension):
    """Return the slices of an array (c, x, y, z) along an axis."""
    return list(np.moveaxis(voxels, dimension + 1, 0))


def send(mag, slices, **options):
    with mag.get_buffered_slice_writer(**options) as writer:
        for each in slices:
            writer.send(each)
    return writer.report


def send_and_fail(writer, slices):
    with writer:
        for each in slices:
            writer.send(each)
        raise ZeroDivisionError("mine")


def inodes(mag):
    paths = [mag.place.store.cube_path(box.topleft // box.size) for box in mag.cubes_on_disk()]
    return {path: os.stat(path).st_ino for path in paths}


# --- writing --------------------------------------------------------------------------------------------


@pytest.mark.slow
@each_axis
@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
@pytest.mark.parametrize("buffer_size", [1, 7, 32, 1000])
def test_slices_along_every_axis(make_mag, random_voxels, leftovers, dimension, compression, buffer_size):
    mag, voxels = make_mag("uint16", compression=compression), random_voxels((1, *SHAPE), "uint16")
    report = send(
        mag, slices_of(voxels, dimension), offset=CORNER, buffer_size=buffer_size, dimension=dimension
    )
    assert np.array_equal(mag.read(), voxels)
    box = BoundingBox(CORNER, SHAPE)
    assert report.bounding_box == mag.layer.bounding_box == box
    assert report.cubes == len(inodes(mag)) == len(mag.spec.grid.cubes(box))  # once each
    assert report.bytes == voxels.nbytes
    assert report.file_bytes == sum(os.stat(path).st_size for path in inodes(mag))
    assert (report.minimum, report.maximum) == (voxels.min(), voxels.max())
    assert leftovers(mag) == []


@each_axis
def test_three_channels(make_mag, random_voxels, dimension):
    mag, voxels = make_mag(channels=3), random_voxels((3, *SHAPE))
    send(mag, slices_of(voxels, dimension), offset=CORNER, dimension=dimension)
    assert np.array_equal(mag.read(), voxels)


def test_slices_of_one_channel_may_have_two_dimensions(make_mag, random_voxels):
    mag, voxels = make_mag(), random_voxels((1, *SHAPE))
    send(mag, [each[0] for each in slices_of(voxels, 2)])
    assert np.array_equal(mag.read(), voxels)


def test_any_memory_order(make_mag, random_voxels):
    mag, voxels = make_mag(), random_voxels((1, *SHAPE))
    orders = [np.ascontiguousarray, np.asfortranarray, lambda a: a[:, ::-1][:, ::-1]]
    send(mag, [orders[z % 3](each) for z, each in enumerate(slices_of(voxels, 2))])
    assert np.array_equal(mag.read(), voxels)


def test_the_same_array_may_be_used_for_every_slice(make_mag, random_voxels):
    mag, voxels = make_mag(), random_voxels((1, *SHAPE))
    page = np.empty(SHAPE[:2], "uint8")
    with mag.get_buffered_slice_writer() as writer:
        for each in slices_of(voxels, 2):
            page[...] = each[0]
            writer.send(page)
    assert np.array_equal(mag.read(), voxels)


@each_axis
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_slices_over_what_is_there(make_mag, random_voxels, dimension, compression):
    mag, old = make_mag(compression=compression), random_voxels((1, 96, 64, 160))
    mag.write(old)
    new = random_voxels((1, *SHAPE), seed=1)
    report = send(mag, slices_of(new, dimension), offset=CORNER, dimension=dimension)
    expected = old.copy()
    expected[(slice(None), *BoundingBox(CORNER, SHAPE).to_slices())] = new
    assert np.array_equal(mag.read(), expected)
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (96, 64, 160))
    assert report.bounding_box == BoundingBox(CORNER, SHAPE)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_zeros_are_written_over_voxels(make_mag, random_voxels, compression):
    mag, old = make_mag(compression=compression), random_voxels((1, 64, 64, 64)) | 1
    mag.write(old)
    before = inodes(mag)
    send(mag, [np.zeros((40, 40), "uint8")] * 40)
    expected = old.copy()
    expected[:, :40, :40, :40] = 0
    assert np.array_equal(mag.read(), expected)
    assert set(before) - set(inodes(mag)) == {mag.place.store.cube_path(mag.spec.shard_shape * 0)}


def test_zeros_alone_make_no_cube_but_grow_the_box(make_mag):
    mag = make_mag()
    report = send(mag, [np.zeros((40, 40), "uint8")] * 40)
    assert inodes(mag) == {}
    assert mag.layer.bounding_box == report.bounding_box == BoundingBox((0, 0, 0), (40, 40, 40))


@pytest.mark.parametrize("buffer_size", [4, 32])
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_slices_of_different_sizes(make_mag, random_voxels, buffer_size, compression):
    """Zeros fill up a buffer; of what lies beyond the slices of a buffer nothing is touched."""
    mag, old = make_mag(compression=compression, cube=32), random_voxels((1, 64, 64, 64)) | 1
    mag.write(old)
    sizes = [(20, 30)] * 16 + [(50, 10)] * 8 + [(33, 33)] * 12 + [(20, 30)] * 12
    data = [random_voxels((1, *size), seed=z) | 1 for z, size in enumerate(sizes)]
    send(mag, data, buffer_size=buffer_size, offset=(0, 0, 0))
    expected = old.copy()
    for start in range(0, len(sizes), buffer_size):
        part = sizes[start : start + buffer_size]
        union = [max(size[axis] for size in part) for axis in (0, 1)]
        expected[:, : union[0], : union[1], start : start + len(part)] = 0
        for z, (x, y) in enumerate(part, start):
            expected[:, :x, :y, z] = data[z][0]
    assert np.array_equal(mag.read(), expected)


def test_a_coarse_mag_counts_its_own_voxels(make_mag, random_voxels):
    mag, voxels = make_mag(mag=(2, 2, 1)), random_voxels((1, *SHAPE))
    send(mag, slices_of(voxels, 2), offset=(10, 20, 30))
    box1 = BoundingBox((20, 40, 30), (100, 90, 70))
    assert mag.layer.bounding_box == box1
    assert np.array_equal(mag.read(bounding_box=box1), voxels)
    new = random_voxels((1, *SHAPE), seed=1)
    send(mag, slices_of(new, 2), bounding_box=box1)
    assert np.array_equal(mag.read(bounding_box=box1), new)


def test_a_view_counts_from_its_corner(make_mag, random_voxels):
    mag, voxels = make_mag(), random_voxels((1, 10, 10, 10))
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (100, 100, 100))
    view = mag.get_view((40, 41, 42), (30, 30, 30))
    send(view, slices_of(voxels, 0), offset=(1, 2, 3), dimension=0)
    assert np.array_equal(mag.read((41, 43, 45), (10, 10, 10)), voxels)
    send(view, slices_of(voxels, 0), dimension=0)
    assert np.array_equal(mag.read((40, 41, 42), (10, 10, 10)), voxels)


def test_the_largest_id_is_noted(make_mag):
    mag = make_mag("uint64", category="segmentation")
    send(mag, [np.full((5, 5), value, "uint64") for value in (7, 2**50, 3)], buffer_size=1)
    assert mag.layer.largest_segment_id == 2**50


def test_nothing_sent_is_nothing_written(make_mag, state_of, leftovers):
    mag = make_mag()
    before = state_of(mag)
    assert send(mag, []) is None
    assert state_of(mag) == before
    assert leftovers(mag) == []


def test_each_cube_is_published_when_the_slices_pass_its_edge(make_mag, random_voxels):
    mag, voxels = make_mag(cube=32), random_voxels((1, 40, 40, 100))
    seen = {}
    with mag.get_buffered_slice_writer(buffer_size=8) as writer:
        for z, each in enumerate(slices_of(voxels, 2), 1):
            writer.send(each)
            for path, inode in inodes(mag).items():
                assert seen.setdefault(path, inode) == inode, "published twice"
            assert len(seen) == 4 * (z // 32)
            private = Path(mag.path, ".wkdask")
            staged = [path for path in private.glob("*/staged/*/*/*.wkw")]  # noqa: C416
            assert len(staged) <= 4, "staged cubes are dropped"
    assert len(inodes(mag)) == 16
    assert all(inodes(mag)[path] == inode for path, inode in seen.items())
    assert np.array_equal(mag.read(), voxels)


@pytest.mark.slow
def test_memory_is_a_buffers(make_mag):
    mag = make_mag(cube=64)
    page = np.ones((512, 512), "uint8")
    send(mag, [page] * 8, buffer_size=8)  # compile, import
    tracemalloc.start()
    send(mag, (page for _ in range(192)), buffer_size=8, offset=(0, 0, 0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (17 << 20) + 4 * 8 * page.nbytes  # 16 MiB are reserved where the properties are read
    assert 192 * page.nbytes > (44 << 20)


# --- refusals and failures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (np.ones((4, 4), "uint16"), DTypeError),
        (np.ones((4, 4), ">u1").astype(">u2"), DTypeError),
        (np.ones((2, 4, 4), "uint8"), ChannelError),
        (np.ones((1, 4, 4, 1), "uint8"), InvalidValueError),
        (np.ones(4, "uint8"), InvalidValueError),
        (np.ones((0, 4), "uint8"), InvalidValueError),
        (np.ma.masked_equal(np.ones((4, 4), "uint8"), 1), DTypeError),
        ("no array", DTypeError),
    ],
)
def test_a_slice_that_does_not_fit_is_refused(make_mag, state_of, leftovers, data, error):
    mag = make_mag()
    before = state_of(mag)
    with pytest.raises(error):
        send(mag, [np.ones((4, 4), "uint8"), data])
    assert state_of(mag) == before
    assert leftovers(mag) == []


@pytest.mark.parametrize(
    "options", [{"dimension": 3}, {"dimension": -1}, {"dimension": "t"}, {"buffer_size": 0}]
)
def test_impossible_arguments(make_mag, options):
    mag = make_mag()
    with pytest.raises(InvalidValueError):
        mag.get_buffered_slice_writer(**options)
    mag.write(np.ones((4, 4, 4), "uint8"))
    with pytest.raises(InvalidValueError), mag.get_buffered_slice_reader(**options):
        pass


def test_nothing_leaves_a_view(make_mag, leftovers):
    mag = make_mag()
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (100, 100, 100))
    view = mag.get_view((32, 32, 32), (32, 32, 32))
    for slices, options in [
        ([np.ones((33, 4), "uint8")], {}),
        ([np.ones((4, 4), "uint8")] * 33, {"buffer_size": 40}),
        ([np.ones((4, 4), "uint8")], {"offset": (29, 0, 0)}),
    ]:
        with pytest.raises(OutOfBoundsError):
            send(view, slices, **options)
    with pytest.raises(OutOfBoundsError):
        view.get_buffered_slice_writer(bounding_box=BoundingBox((0, 0, 0), (4, 4, 4)))
    with pytest.raises(OutOfBoundsError):
        view.get_buffered_slice_writer(offset=(-1, 0, 0))
    assert mag.read((0, 0, 0), (200, 200, 200)).sum() == 0
    assert leftovers(mag) == []


def test_a_read_only_view_has_no_writer(make_mag):
    mag = make_mag()
    mag.write(np.ones((4, 4, 4), "uint8"))
    with pytest.raises(ReadOnlyError):
        mag.get_view(read_only=True).get_buffered_slice_writer()


def test_a_writer_is_used_once_and_in_a_with_statement(make_mag):
    mag = make_mag()
    writer, page = mag.get_buffered_slice_writer(buffer_size=1), np.ones((4, 4), "uint8")
    with pytest.raises(InvalidValueError, match="with"):
        writer.send(page)
    with writer:
        writer.send(page)
    with pytest.raises(InvalidValueError, match="with"):
        writer.send(page)
    with pytest.raises(InvalidValueError, match="once"), writer:
        pass
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (4, 4, 1))


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_an_error_keeps_what_was_published_and_drops_the_rest(
    make_mag, random_voxels, leftovers, compression
):
    mag, voxels = make_mag(cube=32, compression=compression), random_voxels((1, 40, 40, 100))
    writer = mag.get_buffered_slice_writer(buffer_size=8)
    with pytest.raises(ZeroDivisionError, match="mine"):
        send_and_fail(writer, slices_of(voxels, 2)[:71])
    assert writer.report.bounding_box == mag.layer.bounding_box == BoundingBox((0, 0, 0), (40, 40, 64))
    assert writer.report.cubes == len(inodes(mag)) == 8
    assert np.array_equal(mag.read(), voxels[..., :64])
    assert mag.read((0, 0, 64), (40, 40, 36)).sum() == 0
    assert leftovers(mag) == []


def test_an_error_before_the_first_cube_leaves_no_trace(make_mag, state_of, leftovers):
    mag = make_mag()
    before = state_of(mag)
    writer = mag.get_buffered_slice_writer(buffer_size=2)
    with pytest.raises(ZeroDivisionError, match="mine"):
        send_and_fail(writer, [np.ones((4, 4), "uint8")] * 5)
    assert writer.report is None
    assert state_of(mag) == before
    assert leftovers(mag) == []


def test_a_damaged_cube_is_named_and_the_others_are_noted(make_mag, random_voxels, leftovers):
    mag, voxels = make_mag(cube=32, compression="lz4"), random_voxels((1, 20, 20, 96))
    mag.write(np.ones((32, 32, 96), "uint8"))
    damaged = Path(mag.place.store.cube_path(mag.spec.shard_shape * 0 + (0, 0, 1)))
    damaged.write_bytes(damaged.read_bytes()[:-5])
    mag.layer.bounding_box = BoundingBox((0, 0, 0), (0, 0, 0))
    with pytest.raises(OSError, match=r"x0\.wkw"):
        send(mag, slices_of(voxels, 2))
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), (20, 20, 32))
    assert leftovers(mag) == []


def test_a_deleted_mag_is_not_made_anew(make_mag):
    mag = make_mag()
    writer = mag.get_buffered_slice_writer()
    mag.layer.delete_mag(1)
    with pytest.raises(OSError, match="header"), writer:
        pass
    assert not os.path.exists(mag.path)


# --- several at once ------------------------------------------------------------------------------------

SLAB = """if True:
    import sys
    import numpy as np
    import wkdask
    path, number = sys.argv[1], int(sys.argv[2])
    mag = wkdask.Dataset(path).get_layer("layer").get_mag(1)
    print("ready", flush=True)
    sys.stdin.readline()
    with mag.get_buffered_slice_writer(offset=(0, 5, 10 + 25 * number), buffer_size=6) as writer:
        for z in range(25):
            writer.send(np.full((40, 50), 25 * number + z + 1, "uint8"))"""


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_processes_write_disjoint_slabs_at_once(make_mag, leftovers, compression):
    """The cubes are shared between neighbours; box and voxels are exactly the union (libs#908)."""
    mag = make_mag(cube=64, compression=compression)
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    pipe = subprocess.PIPE
    children = [
        subprocess.Popen(
            [sys.executable, "-c", SLAB, mag.place.dataset_path, str(number)],
            env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe,
        )
        for number in range(4)
    ]  # fmt: skip
    try:
        for child in children:
            assert child.stdout.readline().strip() == "ready"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            _, errors = child.communicate(timeout=60)
            assert child.returncode == 0, errors
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert mag.layer.bounding_box == BoundingBox((0, 5, 10), (40, 50, 100))
    expected = np.broadcast_to(np.arange(1, 101, dtype="uint8"), (1, 40, 50, 100))
    assert np.array_equal(mag.read(), expected)
    assert leftovers(mag) == []


def test_slices_inside_of_for_each_chunk(make_mag, random_voxels, leftovers):
    source, target = make_mag(), make_mag(cube=64, compression="lz4")
    voxels = random_voxels((1, *SHAPE))
    source.write(voxels, offset=CORNER)

    def copy(argument):
        view, _ = argument
        with (
            view.get_buffered_slice_reader(buffer_size=5) as slices,
            target.get_buffered_slice_writer(offset=view.global_offset, buffer_size=3) as writer,
        ):
            for each in slices:
                writer.send(each)
        assert writer.report is None  # the task reports it

    source.get_view(read_only=True).for_each_chunk(copy, (64, 64, 64))
    assert np.array_equal(target.read(), voxels)
    assert target.layer.bounding_box == BoundingBox(CORNER, SHAPE)
    assert leftovers(target) == []


def test_slices_of_a_task_are_seen_by_the_task(make_mag, random_voxels):
    mag, voxels = make_mag(cube=64), random_voxels((1, 64, 64, 64)) // 2
    mag.write(voxels)

    def twice(argument):
        view, _ = argument
        for _ in range(2):
            with (
                view.get_buffered_slice_reader(buffer_size=8) as slices,
                view.get_buffered_slice_writer(buffer_size=8) as writer,
            ):
                for each in slices:
                    writer.send(each + np.uint8(10))

    report = mag.for_each_chunk(twice, (64, 64, 64))
    assert np.array_equal(mag.read(), voxels + 20)
    assert report.cubes == 1


def test_an_error_of_a_slice_inside_of_a_task(make_mag, state_of):
    mag = make_mag()
    before = state_of(mag)

    def wrong(argument):
        view, _ = argument
        with view.get_buffered_slice_writer(buffer_size=1) as writer:
            writer.send(np.ones((4, 4), "uint16"))

    with pytest.raises(TaskFailedError, match="DTypeError"):
        wkdask.View(mag.place, BoundingBox((0, 0, 0), (32, 32, 32))).for_each_chunk(wrong)
    assert state_of(mag) == before


# --- reading --------------------------------------------------------------------------------------------


@each_axis
@pytest.mark.parametrize("buffer_size", [1, 7, 1000])
def test_slices_are_read_along_every_axis(make_mag, random_voxels, dimension, buffer_size):
    mag, voxels = make_mag(channels=3), random_voxels((3, *SHAPE))
    mag.write(voxels, offset=CORNER)
    with mag.get_buffered_slice_reader(buffer_size=buffer_size, dimension=dimension) as slices:
        read = list(slices)
    assert [each.shape for each in read] == [each.shape for each in slices_of(voxels, dimension)]
    assert np.array_equal(np.stack(read), np.stack(slices_of(voxels, dimension)))


def test_a_part_is_read(make_mag, random_voxels):
    mag, voxels = make_mag(), random_voxels((1, *SHAPE))
    mag.write(voxels, offset=CORNER)
    part = voxels[:, 10:20, 5:15, 3:33]
    view = mag.get_view(CORNER, SHAPE)
    for handle, options in [
        (mag, {"offset": (47, 10, 73), "size": (10, 10, 30)}),
        (view, {"offset": (10, 5, 3), "size": (10, 10, 30)}),
        (view, {"bounding_box": BoundingBox((47, 10, 73), (10, 10, 30))}),
        (view.get_view((10, 5, 3), (10, 10, 30)), {}),
    ]:
        with handle.get_buffered_slice_reader(**options, buffer_size=4) as slices:
            assert np.array_equal(np.stack(list(slices), axis=-1), part)


def test_an_empty_box_has_no_slices(make_mag):
    mag = make_mag()
    with mag.get_buffered_slice_reader() as slices:
        assert list(slices) == []
    mag.write(np.ones((4, 4, 4), "uint8"))
    with mag.get_buffered_slice_reader(size=(4, 4, 0)) as slices:
        assert list(slices) == []
    with mag.get_buffered_slice_reader(size=(0, 4, 4)) as slices:
        assert [each.shape for each in slices] in ([], [(1, 0, 4)] * 4)


def test_from_one_mag_to_another(make_mag, random_voxels):
    source, target, voxels = make_mag(), make_mag(compression="lz4", cube=64), random_voxels((1, *SHAPE))
    source.write(voxels, offset=CORNER)
    with (
        source.get_buffered_slice_reader(buffer_size=16, dimension=1) as slices,
        target.get_buffered_slice_writer(offset=CORNER, buffer_size=10, dimension=1) as writer,
    ):
        for each in slices:
            writer.send(each)
    assert source.content_is_equal(target)


@pytest.mark.parametrize("data_format", ["wkw", "zarr3", "zarr"])
def test_a_reader_sees_what_was_published(tmp_path, data_format):
    expected = np.random.default_rng(0).integers(1, 200, (1, 40, 30, 20)).astype("uint8")
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("color", "color", data_format=data_format)
    mag = layer.add_mag(1, chunk_shape=16, shard_shape=16 if data_format == "zarr" else 32)
    other = Dataset(tmp_path / "ds").get_layer("color").get_mag(1)
    with mag.get_buffered_slice_writer(buffer_size=4) as writer:
        for z in range(10):
            writer.send(expected[..., z])
        assert other.bounding_box.is_empty()
        writer.publish()
        np.testing.assert_array_equal(other.read(), expected[..., :10])
        writer.publish()  # nothing new
        for z in range(10, 20):
            writer.send(expected[..., z])
    np.testing.assert_array_equal(other.read(), expected)
    assert writer.report.bounding_box == BoundingBox((0, 0, 0), (40, 30, 20))
    with pytest.raises(InvalidValueError, match="used in a with statement"):
        writer.publish()


def test_a_crash_leaves_what_was_published(tmp_path):
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("color", "color")
    mag = layer.add_mag(1, shard_shape=32)
    with pytest.raises(KeyboardInterrupt), mag.get_buffered_slice_writer(buffer_size=2) as writer:  # noqa: PT012
        writer.send(np.full((5, 6), 3, "uint8"))
        writer.publish()
        writer.send(np.full((5, 6), 4, "uint8"))
        raise KeyboardInterrupt
    np.testing.assert_array_equal(mag.read(), np.full((1, 5, 6, 1), 3, "uint8"))


def test_inside_a_task_each_cube_is_published_once(tmp_path):
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("color", "color")
    mag = layer.add_mag(1, shard_shape=32)
    mag.write(np.ones((8, 8, 8), "uint8"))

    def early(chunk):
        view, _ = chunk
        with view.get_buffered_slice_writer() as writer:
            writer.send(np.zeros((8, 8), "uint8"))
            writer.publish()

    with pytest.raises(TaskFailedError, match="inside a task nothing is published before it ends"):
        mag.for_each_chunk(early, chunk_shape=(32, 32, 32))
    assert mag.read().min() == 1
