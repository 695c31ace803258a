"""A box read cube by cube; a large one in parts, by several threads, of one pool that all reads of a process share.

::

    box ──on the grid──> a cut per cube ──large ones in tiles, small ones together──> parts of some MiB ──> threads

A cube is opened once, by the first part that needs it. The thread that asks works too, so that a read always goes
on, however busy the others are.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from math import prod
from typing import TypeAlias, TypeVar

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import box_tiles
from wkdask.storage.open_cubes import OpenedOnce
from wkdask.storage.protocol import ArraySpec

__all__ = ["PART_NBYTES", "Corner", "read_cubes", "run_all", "tiles"]

C = TypeVar("C")
Corner: TypeAlias = "tuple[int, ...]"
"""A place (x, y, z) in a cube, in voxels."""
Part: TypeAlias = "tuple[OpenedOnce[C], Vec3Int, Corner, Corner]"
"""A cube, its index, and the corners of what is read of it."""

PART_NBYTES = 4 << 20
"""A part of fewer bytes is read before another thread has begun with it."""
_MOST = 64
"""Threads of the pool; they are started when they are needed."""

_pools: list[ThreadPoolExecutor] = []
"""The pool of this process, once there is one; a forked child has none of its parent's threads, and begins anew."""

os.register_at_fork(after_in_child=_pools.clear)


def read_cubes(
    spec: ArraySpec,
    box: BoundingBox,
    threads: int,
    open_cube: Callable[[Vec3Int], C],
    read: Callable[[C, Vec3Int, Corner, Corner], None],
) -> None:
    """Read a box cube by cube; each cube is opened once.

    Parameters
    ----------
    spec
        Type and cut of the mag.
    box
        Absolute, in voxels of the mag.
    threads
        How many may read at once.
    open_cube
        Opens the cube of an index.
    read
        Reads a part of a cube: the cube, its index, and the corners of the part, in voxels of the cube.
    """
    nbytes = box.volume() * spec.bytes_per_voxel
    if threads == 1 or nbytes < 2 * PART_NBYTES:
        for index, low, high in spec.grid.cuts(box):
            read(open_cube(index), index, low, high)
    else:
        limit = max(PART_NBYTES, nbytes // (4 * threads))
        run_all(
            (partial(_read_parts, parts, read) for parts in _shares(spec, box, limit, open_cube)), threads
        )


def _shares(
    spec: ArraySpec, box: BoundingBox, limit: int, open_cube: Callable[[Vec3Int], C]
) -> Iterator[deque[Part[C]]]:
    """Yield what threads read, with about `limit` bytes each: small cubes together, a large one in tiles."""
    parts: deque[Part[C]] = deque()
    nbytes = 0
    for index, low, high in spec.grid.cuts(box):
        cube = OpenedOnce(partial(open_cube, index))
        for tile in tiles(spec, BoundingBox.from_corners(low, high), limit):
            parts.append((cube, index, tile.topleft, tile.bottomright))
            nbytes += tile.volume() * spec.bytes_per_voxel
            if nbytes >= limit:
                yield parts
                parts, nbytes = deque(), 0
    if parts:
        yield parts


def _read_parts(parts: deque[Part[C]], read: Callable[[C, Vec3Int, Corner, Corner], None]) -> None:
    """Read parts of cubes; nothing holds a cube after its last one."""
    while parts:
        cube, index, low, high = parts.popleft()
        read(cube.get(), index, low, high)
        del cube


def tiles(spec: ArraySpec, box: BoundingBox, limit: int) -> list[BoundingBox]:
    """Cut a box of one cube, on its chunk grid, into parts as cubic as can be.

    The chunks of such a part follow each other along a Morton curve, as far as they can.

    Parameters
    ----------
    spec
        Type and cut of the mag.
    box
        In voxels of the cube.
    limit
        Bytes that a part should stay within; it has a chunk at least.
    """
    if box.volume() * spec.bytes_per_voxel <= limit:
        return [box]
    sides = list(spec.chunk_shape)
    while 2 * prod(map(min, sides, box.size)) * spec.bytes_per_voxel <= limit:
        growing = [
            (side, axis)
            for axis, (side, end, cube) in enumerate(zip(sides, box.size, spec.shard_shape, strict=True))
            if side < min(end, cube)
        ]
        if not growing:
            break
        sides[min(growing)[1]] *= 2
    return list(box_tiles(box, sides, sides))


def run_all(jobs: Iterable[Callable[[], None]], threads: int) -> None:
    """Run jobs, on this thread and on others; after the first that fails no further ones are begun.

    Parameters
    ----------
    jobs
        In the order in which they are begun; each is let go as soon as it has been run.
    threads
        How many work at once.
    """
    queue = deque(jobs)

    def work() -> None:
        try:
            while True:
                try:
                    job = queue.popleft()
                except IndexError:
                    return
                job()
                del job
        except BaseException:
            queue.clear()
            raise

    helpers: list[Future[None]] = []
    if threads > 1 and len(queue) > 1:
        pool = _pool()
        with contextlib.suppress(RuntimeError):  # the interpreter is about to end: this thread does all
            helpers.extend(pool.submit(work) for _ in range(min(threads, len(queue), _MOST) - 1))
    try:
        work()
    finally:
        queue.clear()
        begun = [helper for helper in helpers if not helper.cancel()]
        wait(begun)
    for helper in begun:
        helper.result()


def _pool() -> ThreadPoolExecutor:
    """Return the pool of this process."""
    if not _pools:
        _pools.append(ThreadPoolExecutor(_MOST, thread_name_prefix="wkdask-read"))
    return _pools[0]
