"""Kernels that move voxels without looking at them: C order to Fortran order, padding, replication."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.kernels.layout import Block, as_bits, call, check_out, checked, flat, jit, numbers, steps, triple
from wkdask.kernels.stand_ins import transpose

__all__ = ["mirror_pad", "to_fortran", "upsample"]

# Tile sides by itemsize: runs of 128 to 256 bytes on both sides (memory hardly minds the jumps between them),
# and two tiles stay in the first-level cache.
_TILE = {1: 128, 2: 128, 4: 64, 8: 32}


@jit
def _turn_bytes(words: Any, turned: Any, rows: Any, columns: Any, pitch: Any) -> None:
    """Transpose a tile of bytes: 8x8 bytes in eight 64-bit words, by swapping halves, quarters, eighths."""
    half, quarter, eighth = np.uint64(32), np.uint64(16), np.uint64(8)
    by_half, by_quarter = np.uint64(0x00000000FFFFFFFF), np.uint64(0x0000FFFF0000FFFF)
    by_eighth = np.uint64(0x00FF00FF00FF00FF)
    line = pitch >> np.uint64(3)
    line2, line4 = line << np.uint64(1), line << np.uint64(2)
    for row in range(rows):
        for column in range(columns):
            p = row * pitch + column
            q = p + line4
            a, b, c, d = words[p], words[p + line], words[p + line2], words[p + line2 + line]
            e, f, g, h = words[q], words[q + line], words[q + line2], words[q + line2 + line]
            s, t = ((a >> half) ^ e) & by_half, ((b >> half) ^ f) & by_half
            u, v = ((c >> half) ^ g) & by_half, ((d >> half) ^ h) & by_half
            a, b, c, d = a ^ (s << half), b ^ (t << half), c ^ (u << half), d ^ (v << half)
            e, f, g, h = e ^ s, f ^ t, g ^ u, h ^ v
            s, t = ((a >> quarter) ^ c) & by_quarter, ((b >> quarter) ^ d) & by_quarter
            u, v = ((e >> quarter) ^ g) & by_quarter, ((f >> quarter) ^ h) & by_quarter
            a, b, e, f = a ^ (s << quarter), b ^ (t << quarter), e ^ (u << quarter), f ^ (v << quarter)
            c, d, g, h = c ^ s, d ^ t, g ^ u, h ^ v
            s, t = ((a >> eighth) ^ b) & by_eighth, ((c >> eighth) ^ d) & by_eighth
            u, v = ((e >> eighth) ^ f) & by_eighth, ((g >> eighth) ^ h) & by_eighth
            a, c, e, g = a ^ (s << eighth), c ^ (t << eighth), e ^ (u << eighth), g ^ (v << eighth)
            b, d, f, h = b ^ s, d ^ t, f ^ u, h ^ v
            p = column * pitch + row
            q = p + line4
            turned[p], turned[p + line], turned[p + line2], turned[p + line2 + line] = a, b, c, d
            turned[q], turned[q + line], turned[q + line2], turned[q + line2 + line] = e, f, g, h


@jit
def _transpose(src: Any, dst: Any, shape: Any, src_steps: Any, dst_steps: Any, side: Any) -> None:
    """Copy (c, b, o, a), where a is the fastest axis of ``src`` and b that of ``dst``, tile by tile.

    A tile is read in long runs along a into a private buffer, turned there, and written in long runs along b:
    going straight from one to the other, lines 64 KiB apart would evict each other. The axis o runs inside,
    so that successive tiles stay in the same memory pages.
    """
    nc, nb, no, na = shape
    sc, sb, so, _ = src_steps
    dc, db, do, da = dst_steps
    zero, one, seven, eight = np.uint64(0), np.uint64(1), np.uint64(7), np.uint64(8)
    bytewise = src.itemsize == 1
    words = np.empty(side * side * np.uint64(src.itemsize) // eight, np.uint64)
    turned = np.empty_like(words)
    tile, tile_turned = words.view(src.dtype), turned.view(src.dtype)
    for a0 in range(zero, na, side):
        ka = min(side, na - a0)
        for b0 in range(zero, nb, side):
            kb = min(side, nb - b0)
            for o in range(no):
                for c in range(nc):
                    start = c * sc + b0 * sb + o * so + a0
                    for b in range(kb):
                        p, q = start + b * sb, b * side
                        for a in range(ka):
                            tile[q + a] = src[p + a]
                    if bytewise:
                        _turn_bytes(words, turned, (kb + seven) // eight, (ka + seven) // eight, side)
                    start = c * dc + b0 * db + o * do + a0 * da
                    for a in range(ka):
                        q = start + a * da
                        if bytewise and db == one:
                            p = a * side
                            for b in range(kb):
                                dst[q + b] = tile_turned[p + b]
                        elif bytewise:
                            p = a * side
                            for b in range(kb):
                                dst[q + b * db] = tile_turned[p + b]
                        elif db == one:
                            for b in range(kb):
                                dst[q + b] = tile[b * side + a]
                        else:
                            for b in range(kb):
                                dst[q + b * db] = tile[b * side + a]


def _transposed_axes(block: Block, out: Block) -> tuple[int, int, int, int] | None:
    """Order the axes for :func:`_transpose`, or None where source and target run along the same axis."""
    long = [axis for axis in (1, 2, 3) if block.shape[axis] > 1]
    src, dst = steps(block), steps(out)
    if min(src) < 0 or min(dst) < 0 or len(long) < 2:
        return None
    fast, target = next((axis for axis in long if src[axis] == 1), 0), long[0]
    if fast in (0, target) or dst[fast] <= dst[target]:
        return None
    return 0, target, 6 - fast - target, fast


def to_fortran(block: Block, out: Block | None = None) -> Block:
    """Give the same voxels in Fortran order (c fastest, then x).

    Parameters
    ----------
    block : array (c, x, y, z)
        Voxels in any layout. C order is transposed tile by tile, about ten times as fast as numpy does it.
    out : array, optional
        Where to put them: same shape and data type, a Fortran array or a box of a larger one.

    Returns
    -------
    array (c, x, y, z)
        ``out``; without it ``block`` itself if that is in Fortran order already, else a new array.

    Raises
    ------
    InvalidValueError
        ``block`` is not 4-D, or ``out`` does not fit.
    """
    block = checked(block)
    if out is None:
        if block.flags.f_contiguous:
            return block
        out = np.empty(block.shape, block.dtype, order="F")
    else:
        check_out(out, block.shape, block.dtype)
    axes = _transposed_axes(block, out) if block.size and out.flags.aligned else None
    if axes is None:
        np.copyto(out, block)
        return out
    src, dst = as_bits(block).transpose(axes), as_bits(out).transpose(axes)
    call(
        _transpose,
        flat(src),
        flat(dst, writeable=True),
        numbers(src.shape),
        numbers(steps(src)),
        numbers(steps(dst)),
        np.uint64(_TILE[block.itemsize]),
        instead=lambda: transpose(src, dst),
    )
    return out


def mirror_pad(block: Block, before: Sequence[int], after: Sequence[int]) -> Block:
    """Continue a block beyond its border by mirroring it, the border voxel twice (``abc`` -> ``cbaabccba``).

    Parameters
    ----------
    block : array (c, x, y, z)
        At least one voxel.
    before, after : three integers (x, y, z)
        Voxels to add in front and behind; more than the block's size mirrors again.

    Returns
    -------
    array (c, x, y, z)
        Fortran order; ``block`` itself if nothing is to be added and it is in Fortran order.

    Raises
    ------
    InvalidValueError
        A padding is negative, or the block is empty.
    """
    block = checked(block)
    widths = list(zip(triple("before", before, 0), triple("after", after, 0), strict=True))
    if not any(map(any, widths)):
        return to_fortran(block)
    if not block.size:
        raise InvalidValueError(f"Nothing to mirror: the block has shape {block.shape}.")
    return to_fortran(np.pad(to_fortran(block), [(0, 0), *widths], mode="symmetric"))


def upsample(block: Block, factors: Sequence[int]) -> Block:
    """Repeat each voxel ``factors`` times along x, y, z.

    Parameters
    ----------
    block : array (c, x, y, z)
        Voxels in any layout.
    factors : three integers (fx, fy, fz)
        Each at least 1.

    Returns
    -------
    array (c, x * fx, y * fy, z * fz)
        A new array in Fortran order.

    Raises
    ------
    InvalidValueError
        The block is not 4-D, or a factor is not a positive integer.
    """
    block = checked(block)
    fx, fy, fz = triple("factors", factors, 1)
    nc, nx, ny, nz = block.shape
    # First along x, with strides; then whole rows are copied, so that numpy's inner loop stays long.
    rows = np.empty((nc, fx, nx, ny, nz), block.dtype, order="F")
    for i in range(fx):
        rows[:, i] = block
    out = np.empty((nc * fx * nx, fy, ny, fz, nz), block.dtype, order="F")
    out[...] = rows.reshape((-1, 1, ny, 1, nz) if rows.size else (nc * fx * nx, 1, ny, 1, nz), order="F")
    return out.reshape((nc, fx * nx, fy * ny, fz * nz), order="F")
