"""Kernels that count voxels: by value where a type has few, in bins of values otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from wkdask.errors import DTypeError
from wkdask.kernels.layout import Block, as_bits, call, checked, flat, jit, numbers, steps
from wkdask.kernels.stand_ins import count

__all__ = ["count_bins", "count_values", "finite_range"]

_LANES = 4
"""Tables that neighbours are counted in by turns: no sum waits for the one before it, of the same value."""
_SLAB = 1 << 18
"""Voxels that numpy works on at a time: they stay in the caches."""


@jit
def _count(voxels: Any, shape: Any, strides: Any, tables: Any, size: Any) -> None:
    """Count the voxels of rows in `tables`, which follow each other, each of `size` values."""
    n3, n2, n1, n0 = shape
    s3, s2, s1, s0 = strides
    one = np.uint64(1)
    lanes = np.uint64(tables.size) // size
    for i3 in range(n3):
        for i2 in range(n2):
            for i1 in range(n1):
                p = i3 * s3 + i2 * s2 + i1 * s1
                lane = np.uint64(0)
                for _ in range(n0):
                    tables[lane * size + np.uint64(voxels[p])] += one
                    p += s0
                    lane = lane + one
                    if lane == lanes:
                        lane = np.uint64(0)


def count_values(block: Block) -> Block:
    """Count how often each value of a type of 8 or 16 bits occurs.

    Parameters
    ----------
    block : array (c, x, y, z)
        Voxels in any layout.

    Returns
    -------
    array of int64
        One count for each value of the type, the least first.

    Raises
    ------
    DTypeError
        If the type has more values.
    """
    block = checked(block)
    if block.dtype.kind not in "ui" or block.itemsize > 2:
        raise DTypeError(f"Only types of 8 and 16 bits are counted by value, got {block.dtype}.")
    size = 1 << 8 * block.itemsize
    tables = np.zeros(size * (_LANES if block.itemsize == 1 else 1), np.uint64)
    if block.size:
        rows = as_bits(block).transpose(3, 2, 1, 0)
        if min(rows.strides) < 0:
            rows = np.ascontiguousarray(rows)
        if rows.flags.c_contiguous:
            rows = rows.reshape(1, 1, 1, -1)
        call(
            _count, flat(rows), numbers(rows.shape), numbers(steps(rows)), tables, np.uint64(size),
            instead=lambda: count(rows, tables),
        )  # fmt: skip
    counts = tables.reshape(-1, size).sum(axis=0).astype(np.int64)
    # The bits of negative numbers are those of the largest unsigned ones.
    return np.roll(counts, size // 2) if block.dtype.kind == "i" else counts


def _slabs(block: Block) -> Iterator[Block]:
    """Yield the voxels of a block in pieces."""
    line = block.reshape(-1, order="F" if block.flags.f_contiguous else "C")
    return (line[start : start + _SLAB] for start in range(0, line.size, _SLAB))


def finite_range(block: Block) -> tuple[int, int] | tuple[float, float] | None:
    """Find the smallest and the largest voxel that are finite numbers; None if there is none."""
    block = checked(block)
    if block.dtype.kind != "f":
        return (int(block.min()), int(block.max())) if block.size else None
    low, high = np.inf, -np.inf
    for slab in _slabs(block):
        finite = slab[np.isfinite(slab)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return None if low > high else (low, high)


def count_bins(block: Block, low: int | float, high: int | float, bins: int, width: int = 0) -> Block:
    """Count how many voxels are in each of some bins of one width; those outside of all are in none.

    Parameters
    ----------
    block : array (c, x, y, z)
        Voxels in any layout.
    low, high
        The least value of the first bin, the largest of the last one, which is counted in it.
    bins
        How many bins there are.
    width
        How many values a bin of integers has.

    Returns
    -------
    array of int64
        One count for each bin.
    """
    block = checked(block)
    counts = np.zeros(bins, np.int64)
    for slab in _slabs(block):
        if block.dtype.kind == "f":
            counts += np.histogram(slab.astype(np.float64), bins, (low, high))[0]
        else:
            inside = slab[(slab >= low) & (slab <= high)]
            # Modulo 2**64 a difference of two integers is right also where one of them is beyond int64.
            with np.errstate(over="ignore"):
                distance = inside.astype(np.uint64) - np.uint64(int(low) % (1 << 64))
            counts += np.bincount((distance // np.uint64(width)).astype(np.intp), minlength=bins)
    return counts
