"""Plain cubes read without the wkw library: whole runs of blocks at a time, put to their places by a kernel.

::

    file     header | block 0 | block 1 | block 2 | …     along a Morton curve
                    [---- one pread ----]                 into a buffer that stays in the caches
    array    each block's rows to their places            past the caches, if it is larger than they are

The library reads block by block and copies row by row: 32 bytes of uint8, half a line of the cache, whose other
half comes much later. Here the rows of two neighbours are written together. And what is read comes through one
descriptor, which was checked: there is no second look at a name that may lead to another file by then.
"""

from __future__ import annotations

import math
import os
import threading
from functools import lru_cache
from itertools import pairwise

import numpy as np

from wkdask.errors import DamagedCubeError
from wkdask.fsio import open_regular
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels
from wkdask.storage.wkw_format import HEADER_SIZE, RAW, WkwHeader, check_cube_file

__all__ = ["plain_tiles", "read_plain"]

_TILE_NBYTES = 16 << 20
"""Bytes that are read in one go: enough to hide what opening a file costs, few enough to spread over threads."""
_BUFFER_NBYTES = 2 << 20
"""Bytes of blocks that are read at a time: they must still be in the second or third cache when they are placed."""
_STREAM_NBYTES = 16 << 20
"""Arrays from so many bytes on are written past the caches, which would not hold them until they are used."""
_local = threading.local()


def plain_tiles(header: WkwHeader, box: BoundingBox, threads: int) -> list[BoundingBox]:
    """Cut a box into parts of one cube each, whose blocks follow each other in the file as far as they can.

    Parameters
    ----------
    header
        The mag's.
    box
        Absolute, in voxels of the mag.
    threads
        Threads that read at once: there are tiles for each.
    """
    sides, cube = [header.block_len] * 3, header.block_len * header.file_len
    nbytes = box.volume() * header.bytes_per_voxel
    limit = _TILE_NBYTES if threads == 1 else min(_TILE_NBYTES, nbytes // (2 * threads))
    if nbytes <= limit and box.topleft // cube == (box.bottomright - 1) // cube:
        return [box]
    while 2 * math.prod(map(min, sides, box.size)) * header.bytes_per_voxel <= limit:
        growing = [
            (side, axis)
            for axis, (side, end) in enumerate(zip(sides, box.size, strict=True))
            if side < min(end, cube)
        ]
        if not growing:
            break
        sides[min(growing)[1]] *= 2
    return list(box.chunk(sides, sides))


def read_plain(path: str, dataset: WkwHeader, box: BoundingBox, out: Voxels, place: Vec3Int) -> bool:
    """Read a box of a plain cube into its place in an array.

    Parameters
    ----------
    path
        The cube's file.
    dataset
        The mag's header.
    box
        Relative to the cube's corner, in voxels.
    out
        The array ``(c, x, y, z)``, Fortran-contiguous.
    place
        Where in it the box begins (x, y, z).

    Returns
    -------
    bool
        False if the cube is stored otherwise, or cannot be opened: nothing was read then.

    Raises
    ------
    DamagedCubeError
        If it is not a sound cube of this mag, or became shorter while it was read.
    """
    try:
        descriptor = open_regular(path)
    except OSError:
        return False
    try:
        if os.pread(descriptor, HEADER_SIZE, 0)[5:6] != bytes([RAW]):
            return False
        header = check_cube_file(path, descriptor, os.fstat(descriptor).st_size, dataset)
        _read_box(path, descriptor, header, box, out, place)
    finally:
        os.close(descriptor)
    return True


def _read_box(
    path: str, descriptor: int, header: WkwHeader, box: BoundingBox, out: Voxels, place: Vec3Int
) -> None:
    """Read a box of an open cube that was checked."""
    from wkdask.kernels import unpack_blocks

    side, voxel = header.block_len, header.bytes_per_voxel
    pitch = (out.strides[2], out.strides[3])
    start = place.x * voxel + place.y * pitch[0] + place.z * pitch[1]
    memory = out.reshape(-1, order="F").view(np.uint8)[start:]
    streamed = out.nbytes >= _STREAM_NBYTES
    batches = _batches(box.topleft // side, box.bottomright.ceildiv(side), header.block_nbytes)
    buffer = _buffer(len(batches[0][0]) * header.block_nbytes)
    for codes, runs in batches:
        for first, number, count in runs:
            position = header.data_offset + number * header.block_nbytes
            _read_bytes(path, descriptor, position, buffer[first:][: count * header.block_nbytes])
        unpack_blocks(
            buffer, codes, side, voxel, box.topleft, box.bottomright, memory, pitch, streamed=streamed
        )


@lru_cache(maxsize=32)
def _batches(low: Vec3Int, high: Vec3Int, nbytes: int) -> list[tuple[Voxels, list[tuple[int, int, int]]]]:
    """Return the blocks of a box, as they are read and placed together.

    Parameters
    ----------
    low, high
        The box in blocks of the cube.
    nbytes
        Bytes of a block.

    Returns
    -------
    list of (codes, runs)
        Morton numbers of the blocks of a batch; its runs in the file as (byte in the buffer, number of the
        first block, how many).
    """
    from wkdask.kernels import morton_numbers

    codes = morton_numbers(low, high)
    at_once = max(2, _BUFFER_NBYTES // nbytes)
    batches = []
    for start in range(0, codes.size, at_once):
        batch = codes[start : start + at_once]
        edges = [0, *(np.flatnonzero(np.diff(batch) != 1) + 1).tolist(), batch.size]
        runs = [(a * nbytes, int(batch[a]), b - a) for a, b in pairwise(edges)]
        batches.append((batch, runs))
    return batches


def _read_bytes(path: str, descriptor: int, position: int, target: Voxels) -> None:
    """Fill bytes from a file."""
    part = memoryview(target)
    while part:
        count = os.preadv(descriptor, [part], position)
        if not count:
            raise DamagedCubeError(f"the cube {path} is damaged: it ends at byte {position}")
        part, position = part[count:], position + count


def _buffer(nbytes: int) -> Voxels:
    """Return this thread's buffer; one that is unusually large is not kept."""
    kept: Voxels | None = getattr(_local, "buffer", None)
    if kept is not None and kept.nbytes >= nbytes:
        return kept
    buffer = np.empty(max(nbytes, _BUFFER_NBYTES), np.uint8)
    if buffer.nbytes <= 4 * _BUFFER_NBYTES:
        _local.buffer = buffer
    return buffer
