"""The cube grid: cubes, pieces, chunk tuples and block shapes, against plain counting."""

import itertools
import math
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wkdask.errors import InvalidValueError
from wkdask.geometry import EMPTY_BOX, BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid, IndexRange, block_shape_near, box_tiles, chunks_on_grid

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # shared cores
SIDES = st.tuples(*[st.integers(1, 6)] * 3).map(Vec3Int)
SMALL = st.integers(-9, 9)
BOXES = st.builds(BoundingBox, st.tuples(SMALL, SMALL, SMALL), st.tuples(*[st.integers(0, 8)] * 3))


def voxels(box):
    """All voxels of a box, one by one."""
    return [(x, y, z) for z in axis(box, 2) for y in axis(box, 1) for x in axis(box, 0)]


def axis(box, number):
    return range(box.topleft[number], box.bottomright[number])


# cubes and pieces


@PATIENT
@given(BOXES, SIDES)
def test_pieces_cover_the_box_once_each_in_its_cube(box, sides):
    grid = CubeGrid(sides)
    pieces = list(grid.pieces(box))
    assert sorted(voxels(box)) == sorted(voxel for _, piece in pieces for voxel in voxels(piece))
    for index, piece in pieces:
        assert not piece.is_empty()
        assert {tuple(index)} == {tuple(Vec3Int(voxel) // sides) for voxel in voxels(piece)}
        assert grid.cube_box(index).contains_bbox(piece)
    assert len({index for index, _ in pieces}) == len(pieces)


@PATIENT
@given(BOXES, SIDES)
def test_cubes_are_those_that_the_box_touches(box, sides):
    cubes = CubeGrid(sides).cubes(box)
    assert {tuple(Vec3Int(voxel) // sides) for voxel in voxels(box)} == set(cubes)
    assert len(list(cubes)) == len(cubes)


@PATIENT
@given(st.tuples(SMALL, SMALL, SMALL).map(Vec3Int), SIDES)
def test_a_cube_covers_its_own_voxels(index, sides):
    grid = CubeGrid(sides)
    box = grid.cube_box(index)
    assert {tuple(index)} == {tuple(Vec3Int(voxel) // sides) for voxel in voxels(box)}
    assert sides.prod() == box.volume()
    assert list(grid.cubes(box)) == [index]


def test_pieces_of_one_box():
    box = BoundingBox((100, 0, 0), (2000, 512, 600))
    assert list(CubeGrid(Vec3Int(1024, 512, 512)).pieces(box)) == [
        ((0, 0, 0), BoundingBox((100, 0, 0), (924, 512, 512))),
        ((1, 0, 0), BoundingBox((1024, 0, 0), (1024, 512, 512))),
        ((2, 0, 0), BoundingBox((2048, 0, 0), (52, 512, 512))),
        ((0, 0, 1), BoundingBox((100, 0, 512), (924, 512, 88))),
        ((1, 0, 1), BoundingBox((1024, 0, 512), (1024, 512, 88))),
        ((2, 0, 1), BoundingBox((2048, 0, 512), (52, 512, 88))),
    ]


def test_an_empty_box_has_no_pieces():
    grid = CubeGrid(Vec3Int(4, 4, 4))
    for box in (EMPTY_BOX, BoundingBox((5, 5, 5), (0, 3, 3)), BoundingBox((-1, -1, -1), (0, 0, 0))):
        assert list(grid.pieces(box)) == []
        assert len(grid.cubes(box)) == 0
        assert not grid.cubes(box)


@PATIENT
@given(BOXES, SIDES, SIDES)
def test_a_group_is_whole_cubes(box, sides, factors):
    grid = CubeGrid(sides)
    groups = grid.grouped(factors)
    assert [side * factor for side, factor in zip(sides, factors, strict=True)] == list(groups.shape)
    for index, piece in groups.pieces(box):
        for cube in grid.cubes(piece):  # a cube has one group
            assert groups.cube_box(index).contains_bbox(grid.cube_box(cube))


@pytest.mark.parametrize("sides", [(0, 4, 4), (4, -4, 4)])
def test_a_cube_has_sides(sides):
    with pytest.raises(InvalidValueError, match="sides of a cube must be positive"):
        CubeGrid(Vec3Int(sides))


# ranges of indices


@PATIENT
@given(st.tuples(SMALL, SMALL, SMALL).map(Vec3Int), st.tuples(*[st.integers(0, 5)] * 3))
def test_numbers_and_indices_are_one_to_one(start, shape):
    cubes = IndexRange(start, start + shape)
    expected = [  # x fastest, z slowest
        (x, y, z)
        for z in range(start.z, start.z + shape[2])
        for y in range(start.y, start.y + shape[1])
        for x in range(start.x, start.x + shape[0])
    ]
    assert expected == list(cubes)
    assert expected == [cubes[number] for number in range(len(cubes))]
    assert shape == cubes.shape
    for outside in (-1, len(cubes), len(cubes) + 7):
        with pytest.raises(IndexError):
            cubes[outside]


def test_a_huge_range_is_never_listed():
    # 10^18 cubes: to list them would take a life, so the answers are computed
    cubes = IndexRange(Vec3Int(5, -5, 0), Vec3Int(10**6 + 5, 10**6 - 5, 10**6))
    assert len(cubes) == 10**18
    assert cubes[0] == (5, -5, 0)
    assert cubes[10**6 - 1] == (10**6 + 4, -5, 0)
    assert cubes[10**6] == (5, -4, 0)
    assert cubes[10**18 - 1] == (10**6 + 4, 10**6 - 6, 10**6 - 1)
    assert list(itertools.islice(cubes, 3)) == [(5, -5, 0), (6, -5, 0), (7, -5, 0)]
    assert len(pickle.dumps(cubes)) < 500
    assert pickle.loads(pickle.dumps(cubes)) == cubes


@PATIENT
@given(st.integers(0, 10**18 - 1))
def test_numbers_of_a_huge_range(number):
    cubes = IndexRange(Vec3Int(0, 0, 0), Vec3Int(10**6, 10**6, 10**6))
    x, y, z = cubes[number]
    assert number == x + 10**6 * y + 10**12 * z
    assert 0 <= min(x, y, z) <= max(x, y, z) < 10**6


def test_a_million_cubes_of_a_box():
    cubes = CubeGrid(Vec3Int(32, 32, 32)).cubes(BoundingBox((31, 31, 31), (3200 - 31, 3200 - 31, 3200 - 31)))
    assert len(cubes) == 10**6
    assert cubes[999_999] == (99, 99, 99)
    assert cubes[123_456] == (56, 34, 12)


# chunk tuples


@pytest.mark.parametrize(
    ("lengths", "topleft", "length", "side"),
    [
        ((924, 1024, 52), 100, 2000, 1024),
        ((1024, 976), 0, 2000, 1024),
        ((1024, 1024), 1024, 2048, 1024),
        ((5,), 3, 5, 8),
        ((5, 1), 3, 6, 8),
        ((1, 8, 3), -1, 12, 8),
        ((7, 7, 6), 0, 20, 7),
        ((0,), 5, 0, 8),
        ((0,), 8, 0, 8),
        ((1,), 8, 1, 8),
        ((1,), 7, 1, 8),
    ],
)
def test_chunks_of_one_axis(lengths, topleft, length, side):
    box = BoundingBox((topleft, 0, 0), (length, 1, 1))
    assert (lengths, (1,), (1,)) == chunks_on_grid(box, Vec3Int(side, 1, 1))


@PATIENT
@given(BOXES, SIDES)
def test_chunks_add_up_and_their_edges_lie_on_the_grid(box, sides):
    chunks = chunks_on_grid(box, sides)
    assert list(box.size) == [sum(lengths) for lengths in chunks]
    for lengths, low, high, side in zip(chunks, box.topleft, box.bottomright, sides, strict=True):
        inner = set(itertools.accumulate(lengths[:-1], initial=low)) - {low}
        assert {edge for edge in range(low + 1, high) if edge % side == 0} == inner
        assert all(lengths) or lengths == (0,)


@PATIENT
@given(BOXES.filter(lambda box: not box.is_empty()), SIDES)
def test_chunks_are_the_sizes_of_the_pieces(box, sides):
    sizes = {piece.topleft: piece.size for _, piece in CubeGrid(sides).pieces(box)}
    edges = [
        list(zip(itertools.accumulate(lengths[:-1], initial=low), lengths, strict=True))
        for lengths, low in zip(chunks_on_grid(box, sides), box.topleft, strict=True)
    ]
    assert sizes == {
        (x, y, z): (width, height, depth) for (x, width), (y, height), (z, depth) in itertools.product(*edges)
    }


# block shapes

MIB = 2**20
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
CHUNKS = st.sampled_from([1, 2, 8, 32, 64, 10, 25, 100])
COUNTS = st.sampled_from([1, 2, 4, 8, 16, 32]) | st.integers(1, 48)  # chunks along the side of a cube
CASES = st.tuples(
    st.tuples(*[st.tuples(CHUNKS, COUNTS)] * 3),
    st.sampled_from([1, 2, 3, 4, 8, 24]),
    st.integers(0, 40).map(lambda exponent: 2**exponent) | st.integers(1, 2**32),
    st.tuples(*[st.integers(0, 100_000)] * 3).map(Vec3Int),
)


def block_of(case):
    sides, voxel, limit, extent = case
    chunk = Vec3Int([chunk for chunk, _ in sides])
    cube = Vec3Int([chunk * count for chunk, count in sides])
    return cube, chunk, block_shape_near(cube, chunk, voxel, limit, extent)


@PATIENT
@given(CASES)
def test_no_block_straddles_a_cube(case):
    cube, chunk, block = block_of(case)
    for cube_side, chunk_side, side in zip(cube, chunk, block, strict=True):
        assert side > 0
        assert cube_side % side == 0 or side % cube_side == 0
        assert side % chunk_side == 0
    assert not any(block % cube) or not any(cube % block)  # a part of a cube, or whole cubes


@PATIENT
@given(CASES)
def test_blocks_stay_within_the_limit_where_a_chunk_does(case):
    _, voxel, limit, _ = case
    _, chunk, block = block_of(case)
    if chunk.prod() * voxel <= limit:
        assert block.prod() * voxel <= limit
    else:
        assert block == chunk


@PATIENT
@given(CASES)
def test_blocks_are_not_needlessly_small(case):
    _, voxel, limit, extent = case
    cube, chunk, block = block_of(case)
    if cube.prod() * voxel <= limit:
        assert not any(block % cube)
        grown = [axis for axis in range(3) if block[axis] > cube[axis]]
        for axis in grown:  # the doubling that led here began inside the box
            assert block[axis] // 2 < extent[axis]
        if 2 * block.prod() * voxel <= limit:  # there was room: so the box is covered
            assert (block - extent).is_positive()
    else:
        # the last cut was into a prime number of parts, and without it the block was too large
        primes = {prime for prime in PRIMES if 0 in (cube // block) % prime}
        assert block == chunk or max(primes) * block.prod() * voxel > limit


@PATIENT
@given(st.integers(0, 10), st.sampled_from([1, 2, 4, 8]), st.integers(15, 40))
def test_power_of_two_cubes_come_close_to_the_limit(exponent, voxel, limit):
    side = 32 * 2**exponent
    block = block_shape_near(
        Vec3Int.full(side), Vec3Int.full(32), voxel, 2**limit * voxel, Vec3Int.full(2**40)
    )
    assert block.prod() == 2**limit


def test_block_shapes():
    def near(cube, chunk, voxel, limit, extent):
        return block_shape_near(*map(Vec3Int.full, (cube, chunk)), voxel, limit, Vec3Int(extent))

    huge = (100_000, 100_000, 100_000)
    assert near(1024, 32, 1, 128 * MIB, huge) == (512, 512, 512)
    assert near(1024, 32, 1, 256 * MIB, huge) == (1024, 512, 512)  # z is cut first: a part stays in one piece
    assert near(1024, 32, 8, 128 * MIB, huge) == (256, 256, 256)
    assert near(1024, 32, 1, 2**30, huge) == (1024, 1024, 1024)
    assert near(256, 32, 1, 128 * MIB, huge) == (512, 512, 512)
    assert near(256, 32, 1, 16 * MIB, huge) == (256, 256, 256)
    assert near(64, 32, 1, 128 * MIB, (2000, 2000, 50)) == (2048, 1024, 64)
    assert near(32, 32, 1, 128 * MIB, (10, 10, 10)) == (32, 32, 32)
    assert near(1024, 32, 1, 1, huge) == (32, 32, 32)  # never below a chunk
    assert near(32, 32, 1, 1, huge) == (32, 32, 32)
    # sides that are no powers of two
    assert near(96, 32, 8, MIB, huge) == (96, 32, 32)
    assert near(1000, 100, 1, 128 * MIB, huge) == (500, 500, 500)
    assert near(1000, 100, 1, 64 * MIB, huge) == (500, 500, 100)
    assert near(224, 32, 1, MIB, huge) == (224, 32, 32)
    assert near(32, 32, 1, 128 * MIB, (0, 0, 0)) == (32, 32, 32)


def test_block_shapes_with_unequal_sides():
    cube, chunk, extent = Vec3Int(1024, 1024, 128), Vec3Int(32, 32, 32), Vec3Int(9000, 9000, 9000)
    assert block_shape_near(cube, chunk, 1, 128 * MIB, extent) == cube
    assert block_shape_near(cube, chunk, 1, 64 * MIB, extent) == (1024, 512, 128)
    assert block_shape_near(cube, chunk, 1, 256 * MIB, extent) == (1024, 1024, 256)
    assert math.prod(block_shape_near(cube, chunk, 3, 128 * MIB, extent)) * 3 <= 128 * MIB


# tiles


@PATIENT
@given(BOXES, SIDES, st.booleans())
def test_tiles_are_the_chunks_in_the_order_of_memory(box, sides, aligned):
    steps = sides if aligned else None
    found = list(box_tiles(box, sides, steps))
    assert sorted(found, key=str) == sorted(box.chunk(sides, steps), key=str)
    assert found == sorted(found, key=lambda tile: tile.topleft.to_tuple()[::-1])
