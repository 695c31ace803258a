"""The making of cubes' files: plain ones in place, box by box; whole ones of any kind, block after block.

All of it happens in private folders.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels
from wkdask.storage.wkw.blocks import OpenCube, batches, thread_buffer
from wkdask.storage.wkw.format import HEADER_SIZE, LZ4HC, RAW, WkwHeader
from wkdask.storage.wkw.lz4 import bound, pack

if TYPE_CHECKING:
    from wkdask.kernels import MinMax

__all__ = ["lay_out", "make_folders", "write_cube", "write_plain"]

_HOLE_NBYTES = 1 << 20
"""What is zero in a plain cube is left out in pieces of so many bytes, or of a block where that has more."""
_LZ4HC_LEVEL = 9
"""The default of LZ4HC, which the wkw library takes too."""


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
    """Make an uncompressed cube without data, unless it is there; its bytes do not depend on the task."""
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
    path: str, box: BoundingBox, block: Voxels, *, fresh: bool, min_max: MinMax | None = None
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
    min_max
        Takes in the block's voxels, batch by batch.
    """
    from wkdask.kernels import in_voxel_rows, is_zero, pack_blocks

    block = in_voxel_rows(block)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        header = WkwHeader.parse(os.pread(descriptor, HEADER_SIZE, 0))
    except BaseException:
        os.close(descriptor)
        raise
    with contextlib.closing(OpenCube(path, descriptor, header, None)) as cube:
        whole = box.aligned_outwards(Vec3Int.full(header.block_len)) == box
        if min_max is not None and not whole:  # the buffer has other voxels too
            min_max.add(block)
        for batch in batches(header, box):
            buffer, nbytes = batch.buffer, header.block_nbytes
            if not whole and fresh:
                buffer[:] = 0
            elif not whole:
                cube.load(batch)
            pack_blocks(block, batch.codes, header.block_len, box.topleft, box.bottomright, buffer)
            if min_max is not None and whole:
                min_max.add(buffer.view(block.dtype)[None, :, None, None])
            step = max(1, _HOLE_NBYTES // nbytes)
            for start, stop, number in batch.runs.tolist():
                for first in range(start, stop, step):
                    part = buffer[first * nbytes : min(first + step, stop) * nbytes]
                    if not (fresh and is_zero(part[None, None, None])):
                        _write_bytes(descriptor, header.data_offset + (number + first - start) * nbytes, part)


def write_cube(path: str, header: WkwHeader, buffers: Iterable[Voxels]) -> None:
    """Write a cube as a whole, from its first block to its last.

    ::

        LZ4    header | table: where each block ends | block | block | …      each as long as it came out
        RAW    header | block | block | …

    Parameters
    ----------
    path
        The cube's file, in a private folder; it is not there yet, or is written anew.
    header
        The mag's: its block type is the file's.
    buffers
        All blocks in their order in the file, some at a time; each array is done with before the next one is asked
        for. None lies in the thread's buffer of packed blocks, which is filled here.
    """
    plain = header.block_type == RAW
    level = _LZ4HC_LEVEL if header.block_type == LZ4HC else 0
    start = HEADER_SIZE + (0 if plain else 8 * header.num_blocks)
    ends = np.empty(0 if plain else header.num_blocks, "<u8")
    number, position = 0, start
    make_folders(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for buffer in buffers:
            if not plain:
                count = buffer.size // header.block_nbytes
                packed = thread_buffer("packed", count * bound(header.block_nbytes))
                relative = pack(buffer, header.block_nbytes, level, packed)
                buffer = packed[: int(relative[-1])]
                ends[number : number + count] = relative + np.uint64(position)
                number += count
            _write_bytes(descriptor, position, buffer)
            position += buffer.size
        head = replace(header, data_offset=start).to_bytes() + ends.tobytes()
        _write_bytes(descriptor, 0, np.frombuffer(head, np.uint8))
    finally:
        os.close(descriptor)


def _write_bytes(descriptor: int, position: int, source: Voxels) -> None:
    """Write bytes into a file."""
    part = memoryview(source)
    while part:
        count = os.pwrite(descriptor, part, position)
        part, position = part[count:], position + count
