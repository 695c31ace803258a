"""How the files of cubes are made: whole, from a part and an older cube, from a plain one, or part by part.

All of it happens in private folders. :mod:`wkdask.storage.wkw.mag` reads cubes and checks them.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from wkdask.errors import InvalidValueError, UnsupportedFormatError
from wkdask.fsio import copy_sparse, fsync_files, fsync_folder, holds_only_zeros, link_or_copy
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.voxel_size import format_bytes
from wkdask.storage.protocol import LARGEST_COMPRESSED, StoredMag, Voxels
from wkdask.storage.wkw.blocks import OpenCube, all_batches, open_cube
from wkdask.storage.wkw.files import lay_out, make_folders, write_cube, write_plain
from wkdask.storage.wkw.format import HEADER_SIZE, RAW, WkwHeader

if TYPE_CHECKING:
    from wkdask.kernels import MinMax

__all__ = ["block_type_of", "build_cube", "encode_cube", "unlink", "write_in_place"]


def build_cube(
    path: str,
    header: WkwHeader,
    box: BoundingBox,
    block: Voxels,
    base: str | None,
    flushed: bool,
    min_max: MinMax | None,
) -> bool:
    """Build a cube at a path in a private folder, over what is there; False if it would hold only zeros.

    ::

        RAW, whole           -> start sparse, write the block's chunks
        RAW, part of a cube  -> copy the old file's data extents (or start sparse), write the block's chunks
        LZ4, whole           -> compress the block's chunks, batch by batch
        LZ4, part of a cube  -> the same, over the old cube's chunks (or zeros)
    """
    from wkdask.kernels import is_zero

    spec = header.to_spec()
    shape = (spec.num_channels, *box.size)
    if block.dtype != np.dtype(spec.dtype) or block.shape != shape:
        raise InvalidValueError(f"a block is {block.dtype} {block.shape}, expected {spec.dtype} {shape}")
    unlink(path)
    whole = box.size == spec.shard_shape
    zero = is_zero(block)
    plain = header.block_type == RAW and (whole or base is None or block_type_of(base, header) == RAW)
    if zero and min_max is not None:
        min_max.add(block[:, :1, :1, :1])
        min_max = None
    if zero and (whole or base is None):
        return False
    if plain:
        if whole or base is None:
            lay_out(path, header)
        else:
            make_folders(path)
            copy_sparse(base, path, flushed=flushed)
        write_plain(path, box, block, fresh=whole or base is None, min_max=min_max)
        return not (zero and holds_only_zeros(path, HEADER_SIZE))
    if spec.cube_nbytes > LARGEST_COMPRESSED:
        raise UnsupportedFormatError(
            f"a cube of {spec.shard_shape} voxels is compressed as a whole; larger ones than "
            f"{format_bytes(LARGEST_COMPRESSED)} are not written"
        )
    with ExitStack() as stack:
        old = None if whole or base is None else stack.enter_context(_opened(base, header))
        buffers = _over(old, header, box, block, min_max)
        if not zero:
            write_cube(path, header, buffers)
            return True
        kept: list[bool] = []
        write_cube(path, header, _noting(buffers, kept))
        return any(kept)


def _over(
    old: OpenCube | None, header: WkwHeader, box: BoundingBox, block: Voxels, min_max: MinMax | None
) -> Iterator[Voxels]:
    """Yield all blocks of a cube in their order in the file, batch by batch: old ones, with a box put over them.

    Parameters
    ----------
    old
        The older cube; without one the other voxels are zeros.
    header
        The mag's.
    box
        What is put over them, relative to the cube's corner, in voxels.
    block
        Its voxels ``(c, *box.size)``, any layout.
    min_max
        Takes in the block's voxels.
    """
    from wkdask.kernels import in_voxel_rows, morton_places, pack_blocks

    block = in_voxel_rows(block)
    side, nbytes = header.block_len, header.block_nbytes
    cube = BoundingBox((0, 0, 0), Vec3Int.full(side * header.file_len))
    whole = box == cube
    if min_max is not None and not whole:  # the buffers have other voxels too
        min_max.add(block)
    low, high = np.array(box.topleft), np.array(box.bottomright)
    for batch in all_batches(header):
        runs = [(0, len(batch.codes))]
        if not whole:
            corners = morton_places(batch.codes).astype(np.int64) * side
            touched = ((corners < high) & (corners + side > low)).all(axis=1)
            covered = ((corners >= low) & (corners + side <= high)).all(axis=1)
            if covered.all():
                pass  # all of the buffer is written anew
            elif old is None:
                batch.buffer[:] = 0
            else:
                old.load(batch)
            edges = np.flatnonzero(np.diff(touched, prepend=False, append=False))
            runs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
        for start, stop in runs:
            target = batch.buffer[start * nbytes : stop * nbytes]
            pack_blocks(block, batch.codes[start:stop], side, box.topleft, box.bottomright, target)
        if min_max is not None and whole:
            min_max.add(batch.buffer.view(block.dtype)[None, :, None, None])
        yield batch.buffer


def _noting(buffers: Iterable[Voxels], kept: list[bool]) -> Iterator[Voxels]:
    """Pass on buffers, and note of each whether anything is in it."""
    from wkdask.kernels import is_zero

    for buffer in buffers:
        kept.append(not is_zero(buffer[None, None, None]))
        yield buffer


@contextmanager
def _opened(path: str, header: WkwHeader) -> Iterator[OpenCube]:
    """Open a cube that was there a moment ago."""
    with open_cube(path, header) as cube:
        if cube is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        yield cube


def encode_cube(path: str, header: WkwHeader, source: str) -> bool:
    """Store a checked cube at a path, as the mag stores its cubes; False if it is plain and holds only zeros.

    ::

        plain -> plain  a second name for it, nothing is copied
        else            block after block, in the order in which they lie in both files
    """
    unlink(path)
    if holds_only_zeros(source, HEADER_SIZE):
        return False
    with _opened(source, header) as cube:
        if cube.ends is None and header.block_type == RAW:
            make_folders(path)
            link_or_copy(source, path)
        else:
            write_cube(path, header, _all_blocks(cube))
    return True


def _all_blocks(cube: OpenCube) -> Iterator[Voxels]:
    """Yield the blocks of a cube in their order in the file, batch by batch."""
    for batch in all_batches(cube.header):
        cube.load(batch)
        yield batch.buffer


def write_in_place(
    mag: StoredMag,
    header: WkwHeader,
    box: BoundingBox,
    block: Voxels,
    *,
    durable: bool,
    min_max: MinMax | None,
) -> None:
    """Write a block into the cubes of a private, plain mag; of a cube that gets only zeros none is made.

    Each chunk has its own place in a plain cube, so that tasks may write other chunks of it meanwhile.
    """
    from wkdask.kernels import is_zero

    if header.block_type != RAW:
        raise InvalidValueError(f"{mag.path} is compressed; parts of a cube can only be stored plainly")
    touched = []
    for index, piece in mag.spec.grid.pieces(box):
        part = block[(slice(None), *piece.to_slices(box.topleft))]
        path = mag.cube_path(index)
        zero = is_zero(part)
        if zero and min_max is not None:
            min_max.add(part[:, :1, :1, :1])
        if zero:
            # Zeros over zeros would fill the holes of the file.
            if not mag.check_cube(path) or is_zero(mag.read(piece)):
                continue
        else:
            lay_out(path, header)
        inner = piece.offset(-(index * mag.spec.shard_shape))
        write_plain(path, inner, part, fresh=False, min_max=None if zero else min_max)
        touched.append(path)
    if durable:
        fsync_files(touched)
        folders = {os.path.dirname(path) for path in touched}
        for folder in sorted(folders | {os.path.dirname(folder) for folder in folders}):
            fsync_folder(folder)
        if touched:
            fsync_folder(mag.path)


def block_type_of(path: str, header: WkwHeader) -> int:
    """Return how a cube of a mag with this header is stored."""
    with _opened(path, header) as cube:
        return cube.header.block_type


def unlink(path: str) -> None:
    """Remove a file if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
