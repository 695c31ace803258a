"""Kernels that shrink a block: one voxel out of each window of ``fx * fy * fz`` voxels, per channel.

All of them gather first: the k-th voxels of a run of neighbouring windows become row k of a small matrix in
cache. Then rows are combined element by element, which LLVM vectorises whatever the factors, the channels
and the layout were::

    source rows  a0 a1 b0 b1 c0 c1 ..      matrix  a0 b0 c0 ..    ->  one output row
                 a2 a3 b2 b3 c2 c3 ..              a2 b2 c2 ..
                                                   a1 b1 c1 ..
                                                   a3 b3 c3 ..

Rows stand in the order y fastest, then x, then z; the mode's tie rule is stated in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from wkdask.errors import AlignmentError, InvalidValueError
from wkdask.kernels.interpolation import INTERPOLATIONS, interpolate, reach
from wkdask.kernels.layout import (
    Block,
    as_bits,
    call,
    check_out,
    checked,
    flat,
    has_voxel_rows,
    jit,
    numbers,
    steps,
    triple,
)
from wkdask.kernels.moves import to_fortran

__all__ = ["MODES", "downsample"]

MODES = ("median", "mode", "min", "max", "nearest", *INTERPOLATIONS)

_MATRIX_BYTES = 1 << 15  # two thirds of a first-level cache
_LONGEST_RUN = 512


def _as(value: Any, like: Any) -> Any:
    """Cast from numba's 64 bits to the type of ``like``: LLVM then fits more lanes; kernels only."""


def _as_for(value: Any, like: Any) -> Callable[[Any, Any], Any]:
    """Implement :func:`_as` for a numba type."""
    kind = like

    def cast(value: Any, like: Any) -> Any:
        return kind(value)

    return cast


def _midpoint(a: Any, b: Any) -> Any:
    """Mean of two values of one type; kernels only."""


def _midpoint_for(a: Any, b: Any) -> Callable[[Any, Any], Any]:
    """Integers: exact without a wider type, and truncated toward zero. Floats: in float64, as numpy does."""
    kind = a

    def floating(a: Any, b: Any) -> Any:
        return kind((np.float64(a) + np.float64(b)) * 0.5)

    if isinstance(kind, types.Float):
        return floating

    def unsigned(a: Any, b: Any) -> Any:
        return kind(kind(a & b) + kind(kind(a ^ b) >> kind(1)))

    def signed(a: Any, b: Any) -> Any:
        low = kind(kind(a & b) + kind(kind(a ^ b) >> kind(1)))
        return kind(low + (kind(kind(a ^ b) & kind(1)) if low < kind(0) else kind(0)))

    return signed if kind.signed else unsigned


overload(_as)(_as_for)
overload(_midpoint)(_midpoint_for)


@jit
def _gather(
    src: Any, start: Any, sources: Any, factors: Any, nc: Any, width: Any, matrix: Any, pitch: Any
) -> None:
    """Fill the matrix with ``width`` windows (of ``nc`` channels each) whose first voxel is at ``start``."""
    sy, sz = sources
    fx, fy, fz = factors
    one, two, three, six = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(6)
    row = np.uint64(0)
    for dz in range(fz):
        for dx in range(fx):
            for dy in range(fy):
                p = start + dz * sz + dy * sy + dx * nc
                if fx == one:
                    for i in range(width * nc):
                        matrix[row + i] = src[p + i]
                elif nc == one and fx == two:
                    for i in range(width):
                        matrix[row + i] = src[p + two * i]
                elif nc == one:
                    for i in range(width):
                        matrix[row + i] = src[p + fx * i]
                elif nc == three and fx == two:
                    for i in range(width):
                        matrix[row + three * i] = src[p + six * i]
                        matrix[row + three * i + one] = src[p + six * i + one]
                        matrix[row + three * i + two] = src[p + six * i + two]
                else:
                    for c in range(nc):
                        for i in range(width):
                            matrix[row + i * nc + c] = src[p + fx * nc * i + c]
                row += pitch


@jit
def _exchange(matrix: Any, low: Any, high: Any, width: Any) -> None:
    """Order two rows: the smaller values into ``low``, the larger into ``high``."""
    for i in range(width):
        a, b = matrix[low + i], matrix[high + i]
        matrix[low + i] = b if b < a else a
        matrix[high + i] = a if b < a else b


@jit
def _sort_rows(matrix: Any, n: Any, width: Any, pitch: Any) -> None:
    """Sort the columns of the first ``n`` rows by Batcher's merge exchange (Knuth, volume 3, 5.2.2 M).

    The same comparisons for every column, so that whole rows are compared at once.
    """
    zero, one = np.uint64(0), np.uint64(1)
    top = one
    while top + top < n:
        top += top
    p = top
    while p > zero:
        q, r, d = top, zero, p
        while True:
            for i in range(n - d):
                if i & p == r:
                    _exchange(matrix, i * pitch, (i + d) * pitch, width)
            if q == p:
                break
            d, q, r = q - p, q >> one, p
        p >>= one


@jit
def _median(matrix: Any, n: Any, width: Any, pitch: Any, dst: Any, start: Any) -> None:
    """Middle value, or the mean of the two middle values; NaN where a window holds one."""
    nans = n * pitch  # one more row: the NaN of each window, else zero
    for i in range(width):
        matrix[nans + i] = 0
    for k in range(n):
        for i in range(width):
            value = matrix[k * pitch + i]
            matrix[nans + i] = value if value != value else matrix[nans + i]
    _sort_rows(matrix, n, width, pitch)
    one = np.uint64(1)
    low, high = ((n - one) >> one) * pitch, (n >> one) * pitch
    for i in range(width):
        nan = matrix[nans + i]
        middle = _midpoint(matrix[low + i], matrix[high + i])
        dst[start + i] = nan if nan != nan else middle


@jit
def _extreme(matrix: Any, n: Any, width: Any, pitch: Any, dst: Any, start: Any, largest: Any) -> None:
    """Smallest or largest value; NaN where a window holds one."""
    for k in range(np.uint64(1), n):
        p = k * pitch
        if largest:
            for i in range(width):
                a, b = matrix[i], matrix[p + i]
                matrix[i] = b if b > a or b != b else a
        else:
            for i in range(width):
                a, b = matrix[i], matrix[p + i]
                matrix[i] = b if b < a or b != b else a
    for i in range(width):
        dst[start + i] = matrix[i]


@jit
def _mode_of(matrix: Any, n: Any, p: Any, pitch: Any) -> Any:
    """Most frequent value of one column, the earliest of equals.

    Only later voxels are counted for each: complete for the first voxel of a value, too few for its others,
    which so never win over it.
    """
    one, best, winner = np.uint64(1), np.uint64(0), matrix[p]
    i = np.uint64(0)
    while i + best < n:
        value, count = matrix[p + i * pitch], one
        for k in range(i + one, n):
            count += np.uint64(matrix[p + k * pitch] == value)
        if count > best:
            best, winner = count, value
        i += one
    return winner


@jit
def _mode(matrix: Any, n: Any, width: Any, pitch: Any, dst: Any, start: Any) -> None:
    """Most frequent value, the earliest of equals."""
    for i in range(width):
        dst[start + i] = matrix[i]
    if n <= np.uint64(2):
        return
    if n == np.uint64(4):
        p1, p2, p3 = pitch, np.uint64(2) * pitch, np.uint64(3) * pitch
        for i in range(width):
            a, b, c, d = matrix[i], matrix[p1 + i], matrix[p2 + i], matrix[p3 + i]
            # a wins with any partner or if there is no pair at all; then b; then c and d are the only pair.
            late = b if (b == c) | (b == d) else (c if c == d else a)
            dst[start + i] = a if (a == b) | (a == c) | (a == d) else late
        return
    same = True
    for k in range(np.uint64(1), n):
        p = k * pitch
        for i in range(width):
            same &= matrix[i] == matrix[p + i]
    if same:
        return
    if n != np.uint64(8):
        for i in range(width):
            dst[start + i] = _mode_of(matrix, n, i, pitch)
        return
    p1, p2, p3 = pitch, np.uint64(2) * pitch, np.uint64(3) * pitch
    p4, p5, p6, p7 = p1 + p3, p2 + p3, p3 + p3, np.uint64(7) * pitch
    for i in range(width):
        a, b, c, d = matrix[i], matrix[p1 + i], matrix[p2 + i], matrix[p3 + i]
        e, f, g, h = matrix[p4 + i], matrix[p5 + i], matrix[p6 + i], matrix[p7 + i]
        best = _as((a == b) + (a == c) + (a == d) + (a == e) + (a == f) + (a == g) + (a == h), a)
        winner = a
        count = _as((b == c) + (b == d) + (b == e) + (b == f) + (b == g) + (b == h), a)
        winner, best = (b if count > best else winner), (count if count > best else best)
        count = _as((c == d) + (c == e) + (c == f) + (c == g) + (c == h), a)
        winner, best = (c if count > best else winner), (count if count > best else best)
        count = _as((d == e) + (d == f) + (d == g) + (d == h), a)
        winner, best = (d if count > best else winner), (count if count > best else best)
        count = _as((e == f) + (e == g) + (e == h), a)
        winner, best = (e if count > best else winner), (count if count > best else best)
        count = _as((f == g) + (f == h), a)
        winner, best = (f if count > best else winner), (count if count > best else best)
        dst[start + i] = g if (g == h) & (best == 0) else winner


@jit
def _sample_median(
    src: Any, dst: Any, shape: Any, sources: Any, targets: Any, factors: Any, run: Any
) -> None:
    """Walk over the output rows in runs of ``run`` windows."""
    nc, nx, ny, nz = shape
    sy, sz = sources
    ty, tz = targets
    fx, fy, fz = factors
    n, pitch = fx * fy * fz, run * nc
    matrix = np.empty((n + np.uint64(1)) * pitch, src.dtype)
    for z in range(nz):
        for y in range(ny):
            for x in range(np.uint64(0), nx, run):
                width = min(run, nx - x)
                start = z * fz * sz + y * fy * sy + x * fx * nc
                _gather(src, start, sources, factors, nc, width, matrix, pitch)
                _median(matrix, n, width * nc, pitch, dst, z * tz + y * ty + x * nc)


@jit
def _sample_mode(src: Any, dst: Any, shape: Any, sources: Any, targets: Any, factors: Any, run: Any) -> None:
    """Walk over the output rows in runs of ``run`` windows."""
    nc, nx, ny, nz = shape
    sy, sz = sources
    ty, tz = targets
    fx, fy, fz = factors
    n, pitch = fx * fy * fz, run * nc
    matrix = np.empty((n + np.uint64(1)) * pitch, src.dtype)
    for z in range(nz):
        for y in range(ny):
            for x in range(np.uint64(0), nx, run):
                width = min(run, nx - x)
                start = z * fz * sz + y * fy * sy + x * fx * nc
                _gather(src, start, sources, factors, nc, width, matrix, pitch)
                _mode(matrix, n, width * nc, pitch, dst, z * tz + y * ty + x * nc)


@jit
def _sample_extreme(
    src: Any, dst: Any, shape: Any, sources: Any, targets: Any, factors: Any, run: Any, largest: Any
) -> None:
    """Walk over the output rows in runs of ``run`` windows."""
    nc, nx, ny, nz = shape
    sy, sz = sources
    ty, tz = targets
    fx, fy, fz = factors
    n, pitch = fx * fy * fz, run * nc
    matrix = np.empty((n + np.uint64(1)) * pitch, src.dtype)
    for z in range(nz):
        for y in range(ny):
            for x in range(np.uint64(0), nx, run):
                width = min(run, nx - x)
                start = z * fz * sz + y * fy * sy + x * fx * nc
                _gather(src, start, sources, factors, nc, width, matrix, pitch)
                _extreme(matrix, n, width * nc, pitch, dst, z * tz + y * ty + x * nc, largest)


def downsample(block: Block, factors: Sequence[int], mode: str, out: Block | None = None) -> Block:
    """Make one voxel out of each window of ``fx * fy * fz`` voxels, per channel.

    Parameters
    ----------
    block : array (c, x, y, z)
        Voxels in any layout; others than Fortran order are copied first. The windows start at its corner.
    factors : three integers (fx, fy, fz)
        Each at least 1; the block's shape is a multiple of them (see :func:`mirror_pad`), but for what
        ``"bicubic"`` looks at beyond it: :func:`~wkdask.kernels.interpolation.reach` voxels more on each side.
    mode : str
        One of :data:`MODES`, which say as webknossos 4:

        - ``"median"``: the mean of the two middle values where a window has an even number of voxels,
          truncated toward zero; exact for all integers. NaN in a window gives NaN.
        - ``"mode"``: the most frequent value, zero like any other; of equals the one whose first voxel comes
          earliest in the order y fastest, then x, then z. A NaN equals nothing, and 0.0 equals -0.0.
        - ``"min"``, ``"max"``: NaN in a window gives NaN.
        - ``"nearest"``: the first voxel of each window.
        - ``"bilinear"``, ``"bicubic"``: see :mod:`wkdask.kernels.interpolation`.
    out : array (c, x // fx, y // fy, z // fz), optional
        Where to put the result, same data type.

    Returns
    -------
    array (c, x // fx, y // fy, z // fz)
        ``out``, else a new array in Fortran order.

    Raises
    ------
    InvalidValueError
        The mode is unknown, a factor is not a positive integer, or ``out`` does not fit.
    AlignmentError
        The block's shape is not a multiple of the factors.
    """
    block = checked(block)
    factors = triple("factors", factors, 1)
    if mode not in MODES:
        raise InvalidValueError(f"mode={mode!r}: expected one of {', '.join(MODES)}.")
    margins = reach(mode, factors)
    nc, *size = block.shape
    size = [n - 2 * margin for n, margin in zip(size, margins, strict=True)]
    if min(size) < 0 or any(n % factor for n, factor in zip(size, factors, strict=True)):
        nearest = tuple(
            -(-max(n, 0) // factor) * factor + 2 * margin
            for n, factor, margin in zip(size, factors, margins, strict=True)
        )
        around = f" with {margins} voxels around them" if any(margins) else ""
        raise AlignmentError(
            f"A block of {block.shape[1:]} voxels is not made of whole windows of {factors}{around}; "
            f"the next size up that is: {nearest} (see mirror_pad)."
        )
    shape = (nc, *(n // factor for n, factor in zip(size, factors, strict=True)))
    if out is None:
        out = np.empty(shape, block.dtype, order="F")
    else:
        check_out(out, shape, block.dtype)
    fx, fy, fz = factors
    if mode == "nearest" or factors == (1, 1, 1):
        return to_fortran(block[:, ::fx, ::fy, ::fz], out)
    if not out.size:
        return out
    if mode in INTERPOLATIONS:
        return interpolate(block, factors, mode, out)
    if not (has_voxel_rows(out) and out.flags.aligned):
        np.copyto(out, downsample(block, factors, mode))
        return out
    source, target = (block, out) if has_voxel_rows(block) else (to_fortran(block), out)
    if mode == "mode" and block.dtype.kind != "f":
        source, target = as_bits(source), as_bits(target)  # floats are not: 0.0 equals -0.0
    run = min(max(_MATRIX_BYTES // (nc * fx * fy * fz * block.itemsize), 16), _LONGEST_RUN)
    arguments = (
        flat(source),
        flat(target, writeable=True),
        numbers(shape),
        numbers(steps(source)[2:]),
        numbers(steps(target)[2:]),
        numbers(factors),
        np.uint64(run),
    )
    if mode == "median":
        call(_sample_median, *arguments)
    elif mode == "mode":
        call(_sample_mode, *arguments)
    else:
        call(_sample_extreme, *arguments, mode == "max")
    return out
