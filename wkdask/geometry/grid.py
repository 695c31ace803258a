"""The cube grid: voxel boxes to cube indices, and to the chunk tuples of a dask array.

All boxes here count voxels of one mag. The grid starts at voxel (0, 0, 0) and never moves::

    voxel   0       64      128     192     256
            |   0   |   1   |   2   |   3   |      cube index
                 [..........................)      a box
                 | 1|   2   |   2   |   2  |       its chunks: the inner edges lie on the grid
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from wkdask.errors import InvalidValueError
from wkdask.geometry.boxes import BoundingBox, Vec3Int, Vec3IntLike

__all__ = ["CubeGrid", "IndexRange", "block_shape_near", "box_tiles", "chunks_on_grid", "split_box"]


@dataclass(frozen=True, slots=True)
class IndexRange:
    """A box of cube indices as a sequence: numbered x fastest, z slowest, without ever being listed."""

    start: Vec3Int
    """The first index."""
    stop: Vec3Int
    """The first index outside, along each axis."""

    @property
    def shape(self) -> Vec3Int:
        """Cubes along each axis."""
        return self.stop - self.start

    def __len__(self) -> int:
        return self.shape.prod()

    def __getitem__(self, number: int) -> Vec3Int:
        if not 0 <= number < len(self):
            raise IndexError(number)
        nx, ny, _ = self.shape
        return self.start + (number % nx, number // nx % ny, number // (nx * ny))

    def __iter__(self) -> Iterator[Vec3Int]:
        (x0, y0, z0), (x1, y1, z1) = self.start, self.stop
        return (Vec3Int(x, y, z) for z in range(z0, z1) for y in range(y0, y1) for x in range(x0, x1))


@dataclass(frozen=True, slots=True)
class CubeGrid:
    """A regular grid of cubes from voxel (0, 0, 0) on.

    Raises
    ------
    InvalidValueError
        If a side is not positive.
    """

    shape: Vec3Int
    """Voxels of the mag along each side of a cube."""

    def __post_init__(self) -> None:
        if not self.shape.is_positive(strictly=True):
            raise InvalidValueError(f"the sides of a cube must be positive, got {self.shape}")

    def cube_box(self, index: Vec3Int) -> BoundingBox:
        """Return the box that a cube covers."""
        return BoundingBox(index * self.shape, self.shape)

    def cubes(self, box: BoundingBox) -> IndexRange:
        """Return the cubes that a box touches; none for an empty box."""
        if box.is_empty():
            return IndexRange(Vec3Int(0, 0, 0), Vec3Int(0, 0, 0))
        return IndexRange(box.topleft // self.shape, box.bottomright.ceildiv(self.shape))

    def pieces(self, box: BoundingBox) -> Iterator[tuple[Vec3Int, BoundingBox]]:
        """Yield (cube index, the part of `box` in that cube) for every cube that the box touches."""
        for index in self.cubes(box):
            yield index, self.cube_box(index).intersection(box)

    def cuts(self, box: BoundingBox) -> Iterator[tuple[Vec3Int, tuple[int, ...], tuple[int, ...]]]:
        """Yield (cube index, low, high) for every cube that the box touches: the part of it, in voxels of the cube.

        What :meth:`pieces` yields, in plain numbers: small reads take less time than boxes would.
        """
        if box.is_empty():
            return
        spans = [
            [
                (n, max(low - n * side, 0), min(high - n * side, side))
                for n in range(low // side, -(-high // side))
            ]
            for low, high, side in zip(box.topleft, box.bottomright, self.shape, strict=True)
        ]
        for z, y, x in itertools.product(*reversed(spans)):
            yield Vec3Int((x[0], y[0], z[0])), (x[1], y[1], z[1]), (x[2], y[2], z[2])

    def grouped(self, factors: Vec3Int) -> CubeGrid:
        """Return the grid whose cubes are groups of `factors` cubes of this one."""
        return CubeGrid(self.shape * factors)


def chunks_on_grid(box: BoundingBox, shape: Vec3Int) -> tuple[tuple[int, ...], ...]:
    """Return the lengths (x, y, z) of the pieces of a box cut at every multiple of `shape`.

    Examples
    --------
    >>> chunks_on_grid(BoundingBox((100, 0, 5), (2000, 512, 10)), Vec3Int(1024, 512, 8))
    ((924, 1024, 52), (512,), (3, 7))
    """
    return tuple(
        _lengths(low, high, step) for low, high, step in zip(box.topleft, box.bottomright, shape, strict=True)
    )


def split_box(box: BoundingBox, shape: Vec3Int, parts: int) -> list[BoundingBox]:
    """Return a box cut at multiples of `shape` into so many parts, along the axis of most pieces.

    Parameters
    ----------
    box
        What is cut.
    shape
        Sides of the pieces that stay whole.
    parts
        How many parts, as even as whole pieces allow; fewer where there are fewer pieces along the axis.
    """
    pieces = CubeGrid(shape).cubes(box)
    axis = max(range(3), key=lambda axis: (pieces.shape[axis], axis))
    count = pieces.shape[axis]
    if not count:
        return []
    parts = min(parts, count)
    step = shape[axis]
    cuts = [(pieces.start[axis] + count * number // parts) * step for number in range(1, parts)]
    edges = [box.topleft[axis], *cuts, box.bottomright[axis]]
    return [
        BoundingBox.from_corners(_with(box.topleft, axis, low), _with(box.bottomright, axis, high))
        for low, high in itertools.pairwise(edges)
    ]


def _lengths(low: int, high: int, step: int) -> tuple[int, ...]:
    """Return the lengths of [low, high) cut at every multiple of `step`; ``(0,)`` for nothing, as dask has it."""
    if low >= high:
        return (0,)
    edges = [low, *range((low // step + 1) * step, high, step), high]
    return tuple(b - a for a, b in itertools.pairwise(edges))


def block_shape_near(
    cube_shape: Vec3Int, chunk_shape: Vec3Int, bytes_per_voxel: int, limit: int, extent: Vec3Int
) -> Vec3Int:
    """Return the shape of dask blocks near `limit` bytes: a part of a cube, or whole cubes.

    A cube above the limit is halved along its longest side, never below a chunk (or cut in three, or five,
    where the number of chunks asks for it); small cubes are doubled along the shortest side while the block
    stays within the limit and does not outgrow `extent`.

    Parameters
    ----------
    cube_shape, chunk_shape
        Sides of a cube and of the chunks in it, in voxels of the mag.
    bytes_per_voxel
        Bytes of one voxel, all channels.
    limit
        Bytes that a block should stay within.
    extent
        Size of the box that is to be cut; blocks much larger than it are of no use.

    Returns
    -------
    Vec3Int
        A divisor or a multiple of the cube's side along each axis, so that no block straddles a cube.
    """
    shape = cube_shape
    while shape.prod() * bytes_per_voxel > limit:
        cuts = [
            (side, axis, _smallest_factor(side // chunk))
            for axis, (side, chunk) in enumerate(zip(shape, chunk_shape, strict=True))
            if side > chunk and side % chunk == 0
        ]
        if not cuts:
            return shape
        side, axis, parts = max(cuts)
        shape = _with(shape, axis, side // parts)
    while True:
        doubles = [
            (side, axis) for axis, (side, end) in enumerate(zip(shape, extent, strict=True)) if side < end
        ]
        if not doubles or 2 * shape.prod() * bytes_per_voxel > limit or any(shape % cube_shape):
            return shape
        _, axis = min(doubles)
        shape = _with(shape, axis, shape[axis] * 2)


def _smallest_factor(number: int) -> int:
    """Return the smallest prime factor of a number above 1."""
    return next((factor for factor in range(2, math.isqrt(number) + 1) if number % factor == 0), number)


def _with(shape: Vec3Int, axis: int, side: int) -> Vec3Int:
    """Return `shape` with another side along one axis."""
    sides = list(shape)
    sides[axis] = side
    return Vec3Int(sides)


def box_tiles(
    box: BoundingBox, sides: Vec3IntLike, steps: Vec3IntLike | None = None
) -> Iterator[BoundingBox]:
    """Yield the pieces of a box x fastest, as voxels lie in memory; `BoundingBox.chunk` has x slowest.

    Parameters
    ----------
    box
        The box; pieces at its border are clipped.
    sides
        The size of a piece.
    steps
        The pieces are cut at multiples of this; without it, from the box's own corner.
    """
    shape, start, end = Vec3Int(sides), box.topleft, box.bottomright
    if steps is not None:
        start = start // Vec3Int(steps) * Vec3Int(steps)
    if box.is_empty():
        return
    for z, y, x in itertools.product(*(range(start[n], end[n], shape[n]) for n in (2, 1, 0))):
        yield BoundingBox((x, y, z), shape).intersection(box)
