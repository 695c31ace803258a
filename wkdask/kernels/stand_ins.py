"""What numpy does in place of a kernel that is not compiled yet; :func:`wkdask.kernels.layout.call` says when.

Each function gives the same voxels as its kernel, bit by bit, and takes little memory beside its arguments: the
plans of jobs know nothing of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wkdask.kernels.layout import Block

__all__ = ["count", "extend", "has_any", "pack", "sample", "sample_each", "transpose", "unpack"]

_BYTES = 1 << 20
"""Bytes that are worked on at a time: they stay in the caches."""
_SIDE, _DEPTH = 64, 16
"""Voxels of a tile along the two axes that are exchanged, and along the third."""


def transpose(src: Block, dst: Block) -> None:
    """Copy (c, b, o, a), where a is the fastest axis of `src` and b that of `dst`, tile by tile."""
    _, nb, no, na = src.shape
    for a, b, o in itertools.product(range(0, na, _SIDE), range(0, nb, _SIDE), range(0, no, _DEPTH)):
        tile = np.s_[:, b : b + _SIDE, o : o + _DEPTH, a : a + _SIDE]
        dst[tile] = src[tile]


def has_any(rows: Block) -> bool:
    """Say whether any byte of the rows (4-D, the last axis contiguous) is not zero."""
    return any(rows[..., start : start + _BYTES].max() for start in range(0, rows.shape[3], _BYTES))


def extend(rows: Block, lows: Block, highs: Block) -> None:
    """Lower the first of `lows`, and raise the first of `highs`, to what is in rows of voxels; NaN is ignored."""
    lows[0] = np.fmin(lows[0], np.fmin.reduce(rows, axis=None))
    highs[0] = np.fmax(highs[0], np.fmax.reduce(rows, axis=None))


def count(rows: Block, tables: Block) -> None:
    """Add to the first of `tables` how often each value occurs in rows (4-D) of unsigned integers."""
    size = 1 << 8 * rows.itemsize
    for row in rows.reshape(-1, rows.shape[3]):
        for start in range(0, len(row), _BYTES // 8):  # numpy counts integers of 8 bytes
            tables[:size] += np.bincount(row[start : start + _BYTES // 8], minlength=size).astype(np.uint64)


def unpack(blocks: Block, array: Block, places: Block, side: int, low: Sequence[int]) -> None:
    """Copy blocks (n, c, x, y, z) to their places in an array (c, x, y, z)."""
    for block, part, place in _parts(places, side, low, array.shape[1:]):
        array[place] = blocks[block][part]


def pack(array: Block, blocks: Block, places: Block, side: int, low: Sequence[int]) -> None:
    """Copy into the blocks, as :func:`unpack` does out of them."""
    for block, part, place in _parts(places, side, low, array.shape[1:]):
        blocks[block][part] = array[place]


def sample_each(
    blocks: Block, out: Block, places: Block, side: int, box: tuple[Sequence[int], Sequence[int]],
    factors: Sequence[int], mode: str,
) -> None:  # fmt: skip
    """Shrink blocks (n, c, x, y, z) into an array (c, x, y, z), of a box of their cube: integers only."""
    low, high = box
    size = [stop - start for start, stop in zip(low, high, strict=True)]
    for block, part, place in _parts(places, side, low, size):
        target = [
            slice(axis.start // factor, axis.stop // factor)
            for axis, factor in zip(place[1:], factors, strict=True)
        ]
        sample(blocks[block][part], factors, mode, out[(slice(None), *target)])


def _parts(
    places: Block, side: int, low: Sequence[int], size: Sequence[int]
) -> Iterator[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
    """Yield which part of each block lies in a box of the cube, and where in the box."""
    for block, corner in enumerate((places * np.uint64(side)).tolist()):
        part, place = [slice(None)], [slice(None)]
        for first, begin, length in zip(corner, map(int, low), size, strict=True):
            start, stop = max(first, begin), min(first + side, begin + int(length))
            part.append(slice(start - first, stop - first))
            place.append(slice(start - begin, stop - begin))
        yield block, tuple(part), tuple(place)


def sample(block: Block, factors: Sequence[int], mode: str, out: Block) -> None:
    """Shrink a block (c, x, y, z) of whole windows by "median", "mode", "min" or "max": integers only."""
    fx, fy, fz = factors
    _, _, ny, nz = out.shape
    row = fx * fy * fz * out[:, :, 0, 0].nbytes
    deep = max(_BYTES // (row * ny), 1)
    wide = ny if deep > 1 else max(_BYTES // row, 1)
    for y, z in itertools.product(range(0, ny, wide), range(0, nz, deep)):
        windows = block[:, :, y * fy : (y + wide) * fy, z * fz : (z + deep) * fz]
        voxels = [
            windows[:, dx::fx, dy::fy, dz::fz] for dz in range(fz) for dx in range(fx) for dy in range(fy)
        ]
        _COMBINE[mode](voxels, out[:, :, y : y + wide, z : z + deep])


def _median(voxels: list[Block], out: Block) -> None:
    """Middle value, or the mean of the two middle values, truncated toward zero."""
    # Batcher's merge exchange (Knuth, volume 3, 5.2.2 M), as the kernel sorts.
    n = len(voxels)
    top = 1 << max((n - 1).bit_length() - 1, 0)
    p = top
    while p:
        q, r, d = top, 0, p
        while True:
            for i in range(n - d):
                if i & p == r:
                    low, high = voxels[i], voxels[i + d]
                    voxels[i], voxels[i + d] = np.minimum(low, high), np.maximum(low, high)
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    a, b = voxels[(n - 1) // 2], voxels[n // 2]
    one = out.dtype.type(1)
    mean = (a & b) + ((a ^ b) >> one)
    if out.dtype.kind == "i":
        mean += (a ^ b) & (mean < 0)
    out[...] = mean


def _mode(voxels: list[Block], out: Block) -> None:
    """Most frequent value, the earliest of equals.

    Only later voxels are counted for each: complete for the first voxel of a value, too few for its others.
    """
    out[...] = voxels[0]
    best = np.zeros(out.shape, np.uint32, order="F")
    for i, voxel in enumerate(voxels):
        count = np.zeros(out.shape, np.uint32, order="F")
        for other in voxels[i + 1 :]:
            count += voxel == other
        wins = count > best
        np.copyto(out, voxel, where=wins)
        np.copyto(best, count, where=wins)


def _extreme(better: Any, voxels: list[Block], out: Block) -> None:
    """Smallest or largest value."""
    out[...] = voxels[0]
    for voxel in voxels[1:]:
        better(out, voxel, out=out)


_COMBINE: dict[str, Any] = {
    "median": _median,
    "mode": _mode,
    "min": lambda voxels, out: _extreme(np.minimum, voxels, out),
    "max": lambda voxels, out: _extreme(np.maximum, voxels, out),
}
