"""How the files of cubes are made: whole, from a part and an older cube, from a plain one, or part by part.

All of it happens in private folders. :mod:`wkdask.storage.wkw` reads cubes and checks them.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from wkdask.errors import DamagedCubeError, InvalidValueError
from wkdask.fsio import copy_sparse, fsync_files, fsync_folder, holds_only_zeros, link_or_copy, open_regular
from wkdask.geometry import BoundingBox
from wkdask.storage.protocol import Voxels
from wkdask.storage.wkw_format import HEADER_SIZE, LZ4HC, RAW, WkwHeader
from wkdask.storage.wkw_native import native_compress, native_read, native_write
from wkdask.storage.wkw_plain import lay_out, make_folders, write_plain

if TYPE_CHECKING:
    from wkdask.kernels import Extremes
    from wkdask.storage.wkw import WkwMag

__all__ = ["block_type_of", "build_cube", "encode_cube", "read_scratch", "unlink", "write_in_place"]

_SLAB_NBYTES = 1 << 20
"""Bytes that are still in the processor's cache when they have been copied."""
_PROBE_NBYTES = 1 << 20
"""Bytes that are written to learn why the library could not write."""


def build_cube(
    mag: WkwMag,
    root: str,
    slot: int,
    box: BoundingBox,
    block: Voxels,
    base: str | None,
    flushed: bool,
    extremes: Extremes | None,
) -> bool:
    """Build a cube in a private folder; False if it would hold only zeros.

    ::

        RAW, whole           -> start sparse, write the block's chunks
        RAW, part of a cube  -> copy the old file's data extents (or start sparse), write the block's chunks
        LZ4, whole           -> one native write
        LZ4, part of a cube  -> decode the old cube (or zeros), put the block in, write the whole
    """
    from wkdask.kernels import is_zero, to_fortran

    spec = mag.spec
    shape = (spec.num_channels, *box.size)
    if block.dtype != np.dtype(spec.dtype) or block.shape != shape:
        raise InvalidValueError(f"a block is {block.dtype} {block.shape}, expected {spec.dtype} {shape}")
    path = _clear(mag, root, slot)
    corner = BoundingBox((slot * spec.shard_shape.x, 0, 0), spec.shard_shape)
    whole = box.size == spec.shard_shape
    zero = is_zero(block)
    plain = mag.header.block_type == RAW and (whole or base is None or block_type_of(base) == RAW)
    if zero and extremes is not None:
        extremes.add(block[:, :1, :1, :1])
        extremes = None
    if zero and (whole or base is None):
        return False
    if plain:
        if whole or base is None:
            lay_out(path, mag.header)
        else:
            make_folders(path)
            copy_sparse(base, path, flushed=flushed)
        write_plain(path, box, block, fresh=whole or base is None, extremes=extremes)
        return not (zero and holds_only_zeros(path, HEADER_SIZE))
    if whole:
        _write(mag, root, corner, _in_one_piece(block, extremes))
        return True
    if extremes is not None:
        extremes.add(block)
    if base is None:
        cube = np.zeros((spec.num_channels, *spec.shard_shape), spec.dtype, order="F")
    else:
        cube = _read_file(mag, base, root, slot)
    to_fortran(block, out=cube[(slice(None), *box.to_slices())])
    if zero and is_zero(cube):
        return False
    _write(mag, root, corner, cube)
    return True


def _in_one_piece(block: Voxels, extremes: Extremes | None) -> Voxels:
    """Return a block in Fortran order; a view of a larger array, which the wkw library does not take, is copied."""
    from wkdask.kernels import to_fortran

    if extremes is None or block.flags.f_contiguous:
        if extremes is not None:
            extremes.add(block)
        return to_fortran(block)
    out = np.empty(block.shape, block.dtype, order="F")
    depth = max(1, _SLAB_NBYTES // (block.nbytes // block.shape[3]))
    for z in range(0, block.shape[3], depth):
        slab = out[..., z : z + depth]
        to_fortran(block[..., z : z + depth], out=slab)
        extremes.add(slab)
    return out


def encode_cube(mag: WkwMag, root: str, slot: int, source: str) -> bool:
    """Store a checked plain cube in a slot, as the mag stores its cubes; False if it holds only zeros.

    ::

        RAW    -> a second name for it, nothing is copied
        LZ4HC  -> compressed by the library block by block, whatever its size
        LZ4    -> read whole, written whole: the library has no other way
    """
    path = _clear(mag, root, slot)
    if holds_only_zeros(source, HEADER_SIZE):
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if mag.header.block_type == RAW:
        link_or_copy(source, path)
    elif mag.header.block_type == LZ4HC:
        if not native_compress(source, path):
            raise _why(root, os.stat(source).st_size, "compress a cube")
    else:
        corner = BoundingBox((slot * mag.spec.shard_shape.x, 0, 0), mag.spec.shard_shape)
        _write(mag, root, corner, _read_file(mag, source, root, slot))
    return True


def write_in_place(
    mag: WkwMag, box: BoundingBox, block: Voxels, durable: bool, extremes: Extremes | None
) -> None:
    """Write a block into the cubes of a private, plain mag; of a cube that gets only zeros none is made.

    Each chunk has its own place in a plain cube, so that tasks may write other chunks of it meanwhile.
    """
    from wkdask.kernels import is_zero

    if mag.header.block_type != RAW:
        raise InvalidValueError(f"{mag.path} is compressed; parts of a cube can only be stored plainly")
    touched = []
    for index, piece in mag.spec.grid.pieces(box):
        part = block[(slice(None), *piece.to_slices(box.topleft))]
        path = mag.cube_path(index)
        zero = is_zero(part)
        if zero and extremes is not None:
            extremes.add(part[:, :1, :1, :1])
        if zero:
            # Zeros over zeros would fill the holes of the file.
            if not mag.check_cube(path) or is_zero(mag.read(piece)):
                continue
        else:
            lay_out(path, mag.header)
        inner = piece.offset(-(index * mag.spec.shard_shape))
        write_plain(path, inner, part, fresh=False, extremes=None if zero else extremes)
        touched.append(path)
    if durable:
        fsync_files(touched)
        folders = {os.path.dirname(path) for path in touched}
        for folder in sorted(folders | {os.path.dirname(folder) for folder in folders}):
            fsync_folder(folder)
        if touched:
            fsync_folder(mag.path)


def read_scratch(mag: WkwMag, root: str, box: BoundingBox) -> Voxels:
    """Return voxels from a private folder; slot n starts at voxel (n · cube side, 0, 0)."""
    block = np.zeros((mag.spec.num_channels, *box.size), mag.spec.dtype, order="F")
    if not native_read(root, mag.header.to_bytes(), box, block):
        raise DamagedCubeError(f"a cube built in {root} cannot be decoded")
    return block


def block_type_of(path: str) -> int:
    """Return how a checked cube is stored."""
    descriptor = open_regular(path)
    try:
        return WkwHeader.parse(os.pread(descriptor, HEADER_SIZE, 0)).block_type
    finally:
        os.close(descriptor)


def unlink(path: str) -> None:
    """Remove a file if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _clear(mag: WkwMag, root: str, slot: int) -> str:
    """Return the path of a slot, in which nothing is left."""
    path = mag.slot_path(root, slot)
    unlink(path)
    unlink(f"{path}_tmp")  # the library's own temporary name, left by a killed predecessor
    return path


def _write(mag: WkwMag, root: str, box: BoundingBox, block: Voxels) -> None:
    """Write into a private folder; an error carries the reason that the library does not pass on."""
    if not native_write(root, mag.header.to_bytes(), box, block):
        raise _why(root, block.nbytes, "write a cube")


def _why(root: str, nbytes: int, action: str) -> OSError:
    """Return the error that the library met and kept to itself: a write of our own meets it too."""
    probe = f"{root}/probe-{os.getpid()}-{os.urandom(4).hex()}"
    space = os.statvfs(root)
    try:
        with open(probe, "xb", buffering=0) as file:
            left = min(nbytes, _PROBE_NBYTES)
            while left > 0:
                left -= file.write(bytes(left)) or left
            os.fsync(file.fileno())
    except OSError as error:
        return OSError(
            error.errno, f"the wkw library could not {action} of {nbytes} bytes: {error.strerror}", root
        )
    finally:
        unlink(probe)
    if space.f_bavail * space.f_frsize < nbytes:
        return OSError(errno.ENOSPC, f"no space left to {action} of {nbytes} bytes", root)
    return OSError(errno.EIO, f"the wkw library could not {action} of {nbytes} bytes", root)


def _read_file(mag: WkwMag, path: str, root: str, slot: int) -> Voxels:
    """Return all voxels of a checked cube, read through a link in the private folder."""
    from wkdask.kernels import is_zero

    link = mag.slot_path(root, slot)
    os.makedirs(os.path.dirname(link), exist_ok=True)
    os.symlink(os.path.realpath(path), link)
    box = BoundingBox((slot * mag.spec.shard_shape.x, 0, 0), mag.spec.shard_shape)
    try:
        cube = read_scratch(mag, root, box)
        if is_zero(cube) and not is_zero(mag.read_over(root, box, 255)):  # see WkwMag._read_again
            raise OSError(errno.EIO, "the cube cannot be opened now, its other voxels would be lost", path)
        return cube
    except DamagedCubeError:
        raise DamagedCubeError(f"the cube {path} is damaged: its voxels cannot be decoded") from None
    finally:
        unlink(link)
