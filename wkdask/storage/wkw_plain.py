"""Plain cubes without the wkw library: whole runs of blocks at a time, put to their places by a kernel.

::

    file     header | block 0 | block 1 | block 2 | …     along a Morton curve
                    [-- one pread, pwrite --]             into a buffer that stays in the caches
    array    each block's rows to their places            past the caches, if it is larger than they are

The library reads and writes block by block, 32 KiB of uint8 at a time, and copies row by row: 32 bytes, half a line
of the cache, whose other half comes much later. Here whole runs of blocks go by one call, and the rows of two
neighbours are moved together. And what is read comes through one descriptor, which was checked: there is no second
look at a name that may lead to another file by then.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from wkdask.errors import DamagedCubeError
from wkdask.fsio import open_regular
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels
from wkdask.storage.wkw_format import HEADER_SIZE, RAW, WkwHeader, check_cube_file

if TYPE_CHECKING:
    from wkdask.kernels import Extremes

__all__ = ["lay_out", "make_folders", "plain_tiles", "read_plain", "shrink_plain", "write_plain"]

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
        If it is not a sound cube of this mag, became shorter while it was read, or the disk does not give it.
    """
    from wkdask.kernels import unpack_blocks

    target = out[(slice(None), *BoundingBox(place, box.size).to_slices())]
    streamed = out.nbytes >= _STREAM_NBYTES

    def place_blocks(buffer: Voxels, codes: Voxels, side: int) -> None:
        unpack_blocks(buffer, codes, side, box.topleft, box.bottomright, target, streamed=streamed)

    return _read_blocks(path, dataset, box, place_blocks)


def shrink_plain(
    path: str, dataset: WkwHeader, box: BoundingBox, factors: Vec3Int, mode: str, out: Voxels
) -> bool:
    """Read a box of a plain cube and shrink it, block by block, while the blocks are in the caches.

    Parameters
    ----------
    path, dataset
        As for :func:`read_plain`.
    box
        Relative to the cube's corner, in voxels, on the grid of the factors.
    factors, mode
        As for :func:`wkdask.kernels.downsample_blocks`; the side of a block is a multiple of the factors.
    out
        The array ``(c, *box.size // factors)``: channels, then x, are contiguous.

    Returns
    -------
    bool
        False if the cube is stored otherwise, or cannot be opened: nothing was read then.

    Raises
    ------
    DamagedCubeError
        As :func:`read_plain`.
    """
    from wkdask.kernels import downsample_blocks

    def shrink(buffer: Voxels, codes: Voxels, side: int) -> None:
        places = _places(codes.tobytes())
        downsample_blocks(buffer, places, side, box.topleft, box.bottomright, factors, mode, out)

    return _read_blocks(path, dataset, box, shrink)


def _read_blocks(
    path: str, dataset: WkwHeader, box: BoundingBox, use: Callable[[Voxels, Voxels, int], None]
) -> bool:
    """Read the blocks of a box of a plain cube, batch by batch, and let each be used.

    Parameters
    ----------
    path, dataset, box
        As for :func:`read_plain`.
    use
        Called with the blocks one after the other, their Morton numbers, and their side in voxels.

    Returns
    -------
    bool
        False if the cube is stored otherwise, or cannot be opened: nothing was read then.
    """
    try:
        descriptor = open_regular(path)
    except OSError:
        return False
    try:
        if os.pread(descriptor, HEADER_SIZE, 0)[5:6] != bytes([RAW]):
            return False
        header = check_cube_file(path, descriptor, os.fstat(descriptor).st_size, dataset)
        for codes, runs, buffer in _buffered(header, box):
            for start, stop, position in runs:
                _read_bytes(path, descriptor, position, buffer[start:stop])
            use(buffer, codes, header.block_len)
    except DamagedCubeError:
        raise
    except OSError as error:
        raise DamagedCubeError(f"the cube {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return True


@lru_cache(maxsize=256)
def _places(codes: bytes) -> Voxels:
    """Return where blocks lie in a cube, of their Morton numbers."""
    from wkdask.kernels import morton_places

    return morton_places(np.frombuffer(codes, np.uint64))


def make_folders(path: str) -> None:
    """Make the two folders of a cube in a mag's.

    Raises
    ------
    FileNotFoundError
        If the mag's folder is gone: a private one that was taken away must not come back.
    """
    folder = os.path.dirname(path)
    for name in (os.path.dirname(folder), folder):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name)


def lay_out(path: str, header: WkwHeader) -> None:
    """Make a plain cube without data, unless it is there: the same bytes, whoever comes first."""
    make_folders(path)
    size = HEADER_SIZE + header.num_blocks * header.block_nbytes
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if os.fstat(descriptor).st_size < size:
            os.pwrite(descriptor, replace(header, data_offset=HEADER_SIZE).to_bytes(), 0)
            os.truncate(descriptor, size)
    finally:
        os.close(descriptor)


def write_plain(
    path: str, box: BoundingBox, block: Voxels, *, fresh: bool, extremes: Extremes | None = None
) -> None:
    """Write a box of a plain cube, in place.

    Of a block that the box covers in part the other voxels stay; blocks next to each other may be written by others
    meanwhile.

    Parameters
    ----------
    path
        The cube's file: a private one, laid out or copied.
    box
        Relative to the cube's corner, in voxels.
    block
        Its voxels ``(c, *box.size)``, any layout.
    fresh
        Whether there are no data yet: what is zero is then left out, as a hole in the file.
    extremes
        Takes in the block's voxels, batch by batch.
    """
    from wkdask.kernels import in_voxel_rows, is_zero, pack_blocks

    block = in_voxel_rows(block)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        header = WkwHeader.parse(os.pread(descriptor, HEADER_SIZE, 0))
        whole = box.aligned_outwards(Vec3Int.full(header.block_len)) == box
        if extremes is not None and not whole:  # the buffer has other voxels too
            extremes.add(block)
        for codes, runs, buffer in _buffered(header, box):
            if not whole and fresh:
                buffer[:] = 0
            elif not whole:
                for start, stop, position in runs:
                    _read_bytes(path, descriptor, position, buffer[start:stop])
            pack_blocks(block, codes, header.block_len, box.topleft, box.bottomright, buffer)
            if extremes is not None and whole:
                extremes.add(buffer.view(block.dtype)[None, :, None, None])
            if fresh and is_zero(buffer[None, None, None]):
                continue
            for start, stop, position in runs:
                _write_bytes(descriptor, position, buffer[start:stop])
    finally:
        os.close(descriptor)


def _buffered(
    header: WkwHeader, box: BoundingBox
) -> Iterator[tuple[Voxels, list[tuple[int, int, int]], Voxels]]:
    """Yield the blocks of a box, batch by batch.

    Yields
    ------
    (codes, runs, buffer)
        Their Morton numbers; the runs that they come in as (start and stop in the buffer, byte in the file); the
        buffer for them.
    """
    side, nbytes = header.block_len, header.block_nbytes
    batches = _batches(box.topleft // side, box.bottomright.ceildiv(side), nbytes)
    buffer = _buffer(len(batches[0][0]) * nbytes)
    for codes, runs in batches:
        places = [(start, stop, header.data_offset + number * nbytes) for start, stop, number in runs]
        yield codes, places, buffer[: len(codes) * nbytes]


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
        Morton numbers of the blocks of a batch; its runs in the file as (start and stop in the buffer, number of
        the first block).
    """
    from wkdask.kernels import morton_numbers

    codes = morton_numbers(low, high)
    at_once = max(2, _BUFFER_NBYTES // nbytes)
    batches = []
    for start in range(0, codes.size, at_once):
        batch = codes[start : start + at_once]
        edges = [0, *(np.flatnonzero(np.diff(batch) != 1) + 1).tolist(), batch.size]
        runs = [(a * nbytes, b * nbytes, int(batch[a])) for a, b in pairwise(edges)]
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


def _write_bytes(descriptor: int, position: int, source: Voxels) -> None:
    """Write bytes into a file."""
    part = memoryview(source)
    while part:
        count = os.pwrite(descriptor, part, position)
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
