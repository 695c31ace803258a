"""Kernels that look at every voxel once: smallest and largest value, is there anything, and where."""

from __future__ import annotations

from typing import Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.kernels.layout import Block, as_bits, call, checked, flat, has_voxel_rows, jit, numbers, steps
from wkdask.kernels.moves import to_fortran
from wkdask.kernels.stand_ins import extend, has_any

__all__ = ["MinMax", "block_stats", "is_zero", "nonzero_bounds"]


@jit
def _extrema(voxels: Any, shape: Any, strides: Any, lows: Any, highs: Any) -> None:
    """Lower ``lows`` and raise ``highs``, lane by lane, over rows of voxels.

    Streams instead of one running value: they have no order between them that LLVM would have to keep, which
    for floats it must. A comparison with NaN is false, so NaN changes nothing.
    """
    rows, n2, n1, n0 = shape
    s3, s2, s1, _ = strides
    zero, lanes = np.uint64(0), np.uint64(lows.size)
    for i3 in range(rows):
        for i2 in range(n2):
            for i1 in range(n1):
                p = i3 * s3 + i2 * s2 + i1 * s1
                for start in range(zero, n0, lanes):
                    q = p + start
                    for lane in range(min(lanes, n0 - start)):
                        value = voxels[q + lane]
                        lows[lane] = value if value < lows[lane] else lows[lane]
                        highs[lane] = value if value > highs[lane] else highs[lane]


@jit
def _first(data: Any, start: Any, size: Any) -> Any:
    """Offset of the first byte that is not zero, ``size`` if there is none."""
    zero: Any = np.uint64(0)
    one, run = np.uint64(1), np.uint64(256)
    for offset in range(zero, size, run):
        p = start + offset
        length = min(run, size - offset)
        top = np.uint8(0)
        for i in range(length):
            top = max(top, data[p + i])
        if top:
            i = zero
            while data[p + i] == 0:
                i += one
            return offset + i
    return size


@jit
def _last(data: Any, start: Any, size: Any) -> Any:
    """One more than the offset of the last byte that is not zero, 0 if there is none."""
    zero, one, run = np.uint64(0), np.uint64(1), np.uint64(256)
    end = size
    while end > zero:
        length = min(run, end)
        p = start + end - length
        top = np.uint8(0)
        for i in range(length):
            top = max(top, data[p + i])
        if top:
            while data[start + end - one] == 0:
                end -= one
            return end
        end -= length
    return zero


@jit
def _any(data: Any, shape: Any, strides: Any) -> bool:
    """Say whether any byte of the rows is not zero; stop at the first."""
    n3, n2, n1, n0 = shape
    s3, s2, s1, _ = strides
    for i3 in range(n3):
        for i2 in range(n2):
            for i1 in range(n1):
                if _first(data, i3 * s3 + i2 * s2 + i1 * s1, n0) < n0:
                    return True
    return False


@jit
def _bounds(data: Any, shape: Any, strides: Any, found: Any) -> None:
    """Set ``found`` to (lo, hi) of the bytes that are not zero along the axes (3, 2, 1, row).

    Within a row only the bytes outside the box found so far matter, once the row itself is in the box: dense
    data cost next to nothing.
    """
    n3, n2, n1, n0 = shape
    s3, s2, s1, _ = strides
    one = np.uint64(1)
    lo3, hi3, lo2, hi2, lo1, hi1 = n3, np.uint64(0), n2, np.uint64(0), n1, np.uint64(0)
    lo0, hi0 = n0, np.uint64(0)
    for i3 in range(n3):
        for i2 in range(n2):
            for i1 in range(n1):
                p = i3 * s3 + i2 * s2 + i1 * s1
                inside = lo3 <= i3 < hi3 and lo2 <= i2 < hi2 and lo1 <= i1 < hi1
                first = _first(data, p, lo0 if inside else n0)
                if not inside:
                    if first == n0:
                        continue
                    lo3, hi3 = min(lo3, i3), max(hi3, i3 + one)
                    lo2, hi2 = min(lo2, i2), max(hi2, i2 + one)
                    lo1, hi1 = min(lo1, i1), max(hi1, i1 + one)
                lo0 = min(lo0, first)
                if hi0 < n0:
                    last = _last(data, p + hi0, n0 - hi0)
                    if last:
                        hi0 += last
    found[0], found[1], found[2], found[3] = lo3, lo2, lo1, lo0
    found[4], found[5], found[6], found[7] = hi3, hi2, hi1, hi0


def _rows(block: Block) -> Block:
    """View the voxels, in memory order, as 4-D with contiguous rows last; a copy only for odd strides.

    Which axis is which is lost: broadcast axes are cut to one voxel, neighbouring axes are joined.
    """
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in block.strides)
    view = block[once]
    if min(steps(view)) < 0:
        view = to_fortran(view)
    order = sorted(range(4), key=lambda axis: (view.shape[axis] > 1, -view.strides[axis]))
    view = view.transpose(order)
    if view.shape[3] > 1 and steps(view)[3] != 1:
        view = np.ascontiguousarray(view)
    for axis in (2, 1, 0):
        # The rows of this axis follow each other without a gap: join them.
        if view[tuple(slice(0, 1) if i < axis else slice(None) for i in range(4))].flags.c_contiguous:
            view = view.reshape((*view.shape[:axis], *(1,) * (3 - axis), -1))
    return view


def block_stats(block: Block) -> tuple[int, int] | tuple[float, float]:
    """Find the smallest and the largest voxel in one pass at memory speed.

    Parameters
    ----------
    block : array (c, x, y, z)
        At least one voxel, any layout.

    Returns
    -------
    (smallest, largest)
        Python integers, or floats. NaN is ignored; if there is nothing else, both are NaN.

    Raises
    ------
    InvalidValueError
        The block is empty or not 4-D.
    """
    block = checked(block)
    min_max = MinMax(block.dtype)
    min_max.add(block)
    found = min_max.values
    if found is None:
        raise InvalidValueError(f"A block without voxels has no minimum: its shape is {block.shape}.")
    return found


class MinMax:
    """The smallest and the largest of voxels that come in parts, each while it is in the processor's cache.

    Memory is then read once for all that is done with a part: a pass of its own is a fifth of writing plain cubes.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of all voxels.
    """

    def __init__(self, dtype: Any) -> None:
        dtype = np.dtype(dtype)
        least, most = (np.inf, -np.inf) if dtype.kind == "f" else (np.iinfo(dtype).max, np.iinfo(dtype).min)
        self._lows = np.full(512, least, dtype)
        self._highs = np.full(512, most, dtype)
        self._any = False

    def add(self, block: Block) -> None:
        """Take in the voxels of a block (c, x, y, z), any layout."""
        block = checked(block)
        if block.size:
            rows = _rows(block)
            call(
                _extrema, flat(rows), numbers(rows.shape), numbers(steps(rows)), self._lows, self._highs,
                instead=lambda: extend(rows, self._lows, self._highs),
            )  # fmt: skip
            self._any = True

    @property
    def values(self) -> tuple[int, int] | tuple[float, float] | None:
        """Smallest and largest, as `block_stats` returns them; None before the first voxel."""
        if not self._any:
            return None
        low, high = self._lows.min(), self._highs.max()
        if self._lows.dtype.kind == "f":
            return (float("nan"), float("nan")) if low > high else (float(low), float(high))
        return int(low), int(high)


def is_zero(block: Block) -> bool:
    """Say whether all voxels are zero; stops at the first that is not.

    Zero is the bit pattern of zeros: a float block with -0.0 or NaN is not zero, because leaving it out of
    the files would not bring back the same voxels. An empty block is zero.

    Parameters
    ----------
    block : array (c, x, y, z)
        Voxels in any layout.

    Returns
    -------
    bool
        True if nothing would be lost by not storing the block.
    """
    block = checked(block)
    if not block.size:
        return True
    rows = _rows(as_bits(block))
    *outer, n0 = rows.shape
    strides = [step * rows.itemsize for step in steps(rows)]
    return not call(
        _any, flat(rows).view(np.uint8), numbers([*outer, n0 * rows.itemsize]), numbers(strides),
        instead=lambda: has_any(rows),
    )  # fmt: skip


def nonzero_bounds(block: Block) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    """Find the smallest box that holds all voxels that are not zero, in any channel.

    Zero is meant bit by bit, as in :func:`is_zero`.

    Parameters
    ----------
    block : array (c, x, y, z)
        Voxels in any layout.

    Returns
    -------
    (lo, hi) or None
        First voxel of the box and the voxel behind its last, both (x, y, z) and relative to the block; None
        if all voxels are zero.
    """
    block = checked(block)
    if not block.size:
        return None
    c_order = block.flags.c_contiguous and not block.flags.f_contiguous
    # Rows run along z in C order and along (c, x) in Fortran order.
    if not (c_order or has_voxel_rows(block)):
        block = to_fortran(block)
    rows = as_bits(block if c_order else block.transpose(3, 2, 1, 0))
    found = np.zeros(8, np.uint64)
    *outer, n0 = rows.shape
    strides = [step * rows.itemsize for step in steps(rows)]
    if not c_order:
        nz, ny, nx, nc = rows.shape
        outer, n0, strides = [1, nz, ny], nx * nc, [0, *strides[:2], 0]
    call(_bounds, flat(rows).view(np.uint8), numbers([*outer, n0 * rows.itemsize]), numbers(strides), found)
    lo, hi = [int(n) for n in found[:4]], [int(n) for n in found[4:]]
    if hi[3] == 0:
        return None
    width = rows.itemsize if c_order else rows.itemsize * block.shape[0]
    lo[3], hi[3] = lo[3] // width, -(-hi[3] // width)
    x, y, z = (1, 2, 3) if c_order else (3, 2, 1)
    return (lo[x], lo[y], lo[z]), (hi[x], hi[y], hi[z])
