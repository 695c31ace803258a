"""A box read in parts, by threads of one pool."""

import multiprocessing
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage import parallel
from wkdask.storage.parallel import read_cubes, run_all, tiles
from wkdask.storage.protocol import ArraySpec
from wkdask.testing import boxes_within


def spec_of(chunk, cube, channels=1):
    return ArraySpec(
        "uint8", channels, Vec3Int.from_scalar_or_vec(chunk), Vec3Int.from_scalar_or_vec(cube), None
    )


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([(8, 8), (8, 32), (32, 1024), (1, 256), ((16, 16, 1), (64, 64, 4))]),
    st.sampled_from([1, 3, 8]),
    boxes_within(1000, 1),
    st.integers(1, 5),
)
def test_tiles_cover_a_box_chunk_by_chunk(cut, channels, box, parts):
    spec = spec_of(*cut, channels)
    box = BoundingBox(box.topleft % spec.shard_shape, box.size)
    box = box.intersection(BoundingBox((0, 0, 0), spec.shard_shape))
    limit = box.volume() * channels // parts + 1
    found = tiles(spec, box, limit)
    assert sum(tile.volume() for tile in found) == box.volume()
    assert len({tuple(tile.topleft) for tile in found}) == len(found)
    for tile in found:
        assert box.contains_bbox(tile)
        fits = all(side <= chunk for side, chunk in zip(tile.size, spec.chunk_shape, strict=True))
        assert tile.volume() * channels <= limit or fits
        inner = zip(tile.topleft, box.topleft, spec.chunk_shape, strict=True)
        assert all(low % chunk == 0 or low == first for low, first, chunk in inner)


def test_tiles_are_as_large_as_they_may_be():
    spec = spec_of(32, 1024)
    sizes = {tile.size for tile in tiles(spec, BoundingBox((0, 0, 0), (1024, 1024, 1024)), 16 << 20)}
    assert sizes == {Vec3Int(256, 256, 256)}
    section = tiles(spec, BoundingBox((0, 0, 7), (1000, 1000, 1)), 100_000)
    assert 10 <= len(section) <= 20


@pytest.mark.parametrize(
    ("cube", "size", "threads", "parts"),
    [
        (64, (128, 128, 127), 4, 8),  # less than two parts: cube by cube
        (64, (128, 128, 512), 1, 32),  # one thread, too
        (64, (128, 128, 512), 4, 32),  # small cubes are read whole
        (256, (256, 256, 256), 16, 4),  # a cube is cut into parts of some MiB, however many threads there are
    ],
)
def test_parts_are_bounded_by_cubes_and_bytes_and_each_cube_is_opened_once(cube, size, threads, parts):
    spec, box = spec_of(32, cube), BoundingBox((0, 0, 0), size)
    opened, read = [], []
    read_cubes(
        spec, box, threads, lambda index: opened.append(index) or index, lambda *part: read.append(part)
    )
    assert len(read) == parts
    assert sorted(opened) == sorted(spec.grid.cubes(box))
    assert all(cube == index for cube, index, _, _ in read)
    volumes = [BoundingBox.from_corners(low, high).volume() for _, _, low, high in read]
    assert sum(volumes) == box.volume()


def test_reads_share_a_pool_and_never_wait_for_each_other():
    """Jobs that wait for each other need as many threads as there are: the caller's is one of them."""
    for _ in range(3):
        together = threading.Barrier(4)
        run_all([lambda: together.wait(60) for _ in range(4)], 4)  # noqa: B023 - called in the loop's body
    assert len(parallel._pools) == 1
    names = []
    run_all([lambda: names.append(threading.current_thread()) for _ in range(5)], 1)
    assert set(names) == {threading.current_thread()}


def test_the_first_error_ends_a_read():
    done = []

    def fail():
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        run_all([fail, *[lambda: done.append(1)] * 5], 1)
    assert not done
    together = threading.Barrier(2)
    with pytest.raises(OSError, match="no"):
        run_all([lambda: together.wait(60), lambda: (together.wait(60) and fail()) or fail()], 2)


def run_in_child(results):
    together = threading.Barrier(3)
    run_all([lambda: together.wait(60) for _ in range(3)], 3)
    results.put(len(parallel._pools))


def test_a_forked_child_has_a_pool_of_its_own():
    run_in_child_of_parent = threading.Barrier(3)
    run_all([lambda: run_in_child_of_parent.wait(60) for _ in range(3)], 3)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=run_in_child, args=(results,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert results.get() == 1
