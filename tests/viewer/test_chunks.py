"""The cache of decoded chunks: bounded, one computation each, and nothing of it is stale."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from wkdask import BoundingBox, Vec3Int
from wkdask.viewer.chunks import ChunkCache
from wkdask.viewer.requests import HungUpError, Request, cancelling, raise_if_hung_up
from wkdask.viewer.scales import Scale

BOX = BoundingBox((3, 5, 7), (150, 130, 70))
VOXELS = np.asfortranarray(np.random.default_rng(0).integers(0, 255, (1, *BOX.size), np.uint8))


def part_of(box):
    return VOXELS[(slice(None), *box.offset(-BOX.topleft).to_slices())]


def scale_that(compute, state=lambda box: ""):
    return Scale("1", (4.0, 4.0, 40.0), BOX, np.dtype("uint8"), 1, compute, state)


@pytest.mark.parametrize(
    "box",
    [
        BOX,
        BoundingBox((3, 5, 7), (1, 1, 1)),
        BoundingBox((60, 60, 60), (20, 20, 10)),
        BoundingBox((152, 134, 76), (1, 1, 1)),
    ],
)
def test_a_region_is_put_together_out_of_chunks(box):
    cache = ChunkCache(1 << 20)
    scale = scale_that(lambda part, region: part_of(part))
    np.testing.assert_array_equal(cache.region(scale, box), part_of(box))


def test_the_least_recently_used_goes_first():
    made = []

    def compute(box, region):
        made.append(box)
        return part_of(box)

    scale = scale_that(compute)
    cache = ChunkCache(2 * 64**3)
    a, b, c = Vec3Int(0, 0, 0), Vec3Int(1, 0, 0), Vec3Int(0, 1, 0)
    for cell in (a, b, a, c, a, b):  # b goes when c comes, and is made again
        cache.chunk(scale, cell)
        assert cache.nbytes <= cache.max_nbytes
    assert made == [scale.cell_box(cell) for cell in (a, b, c, b)]


def test_a_chunk_that_is_larger_than_the_cache_is_returned_all_the_same():
    cache = ChunkCache(10)
    scale = scale_that(lambda part, region: part_of(part))
    assert cache.chunk(scale, Vec3Int(0, 0, 0)).shape == (1, 64, 64, 64)
    assert cache.nbytes == 0


def test_many_who_ask_at_a_time_wait_for_one():
    made, begun, go_on = [], threading.Event(), threading.Event()

    def compute(box, region):
        made.append(box)
        begun.set()
        assert go_on.wait(60)
        return part_of(box)

    cache, scale = ChunkCache(1 << 20), scale_that(compute)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache.chunk, scale, Vec3Int(0, 0, 0)) for _ in range(4)]
        assert begun.wait(60)
        go_on.set()
        found = [each.result() for each in asked]
    assert all(np.array_equal(each, part_of(scale.cell_box(Vec3Int(0, 0, 0)))) for each in found)
    assert len(made) == 1


def test_one_who_still_waits_makes_what_another_has_given_up():
    begun, hung_up = threading.Event(), threading.Event()
    made, first = [], Request()

    def compute(box, region):
        made.append(threading.current_thread())
        if len(made) == 1:
            with cancelling(hung_up.set):
                begun.set()
                assert hung_up.wait(60)
            raise_if_hung_up()
        return part_of(box)

    cache, scale, cell = ChunkCache(1 << 20), scale_that(compute), Vec3Int(0, 0, 0)

    def ask(request):
        with request.serving():
            return cache.chunk(scale, cell)

    with ThreadPoolExecutor(2) as pool:
        given_up = pool.submit(ask, first)
        assert begun.wait(60)
        waiting = pool.submit(ask, Request())
        first.hang_up()
        with pytest.raises(HungUpError):
            given_up.result(timeout=60)
        assert np.array_equal(waiting.result(timeout=60), part_of(scale.cell_box(cell)))
    assert len(made) == 2
    assert np.array_equal(ask(Request()), part_of(scale.cell_box(cell)))
    assert len(made) == 2


def test_the_finer_chunks_of_one_that_nobody_waits_for_are_not_begun():
    made, request = [], Request()

    def fine(box, region):
        made.append(box)
        request.hang_up()
        return part_of(box)

    finer = scale_that(fine)
    coarser = scale_that(lambda box, region: region(finer, BOX))
    cache = ChunkCache(1 << 24)
    with request.serving(), pytest.raises(HungUpError):
        cache.chunk(coarser, Vec3Int(0, 0, 0))
    assert len(made) == 1


def test_hanging_up_late_and_twice_does_no_harm():
    request, cancelled = Request(), []
    request.hang_up()
    with request.serving(), cancelling(lambda: cancelled.append(1)):
        pass
    request.hang_up()
    assert cancelled == [1]
    with cancelling(lambda: cancelled.append(2)):  # nobody's work
        raise_if_hung_up()
    assert cancelled == [1]


def test_an_error_is_not_kept():
    errors = [OSError("a share has gone")]

    def compute(box, region):
        if errors:
            raise errors.pop()
        return part_of(box)

    cache, scale = ChunkCache(1 << 20), scale_that(compute)
    with pytest.raises(OSError, match="share"):
        cache.chunk(scale, Vec3Int(0, 0, 0))
    assert cache.chunk(scale, Vec3Int(0, 0, 0)).any()


def test_what_was_rewritten_is_read_again():
    state = ["first"]
    scale = scale_that(
        lambda part, region: np.full((1, *part.size), len(state[0]), np.uint8), lambda box: state[0]
    )
    cache = ChunkCache(1 << 20)
    assert (cache.chunk(scale, Vec3Int(0, 0, 0)) == 5).all()
    state[0] = "the second"
    assert (cache.chunk(scale, Vec3Int(0, 0, 0)) == 10).all()
    assert cache.nbytes == 64**3


def test_scales_that_are_no_longer_shown_are_forgotten():
    one, two = (scale_that(lambda part, region: part_of(part)) for _ in range(2))
    cache = ChunkCache(1 << 24)
    for scale in (one, two):
        cache.chunk(scale, Vec3Int(0, 0, 0))
    cache.forget({one})
    assert cache.nbytes == 64**3
