"""Compiled loops over the windows of a block; :mod:`wkdask.kernels.sampling` calls them.

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

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from wkdask.kernels.layout import jit

__all__ = ["WAYS", "sample_array", "sample_blocks"]

_ON = np.uint64(1)
WAYS = {
    "columns": (_ON, None, None, None),
    "median": (None, _ON, None, None),
    "mode": (None, None, _ON, None),
    "min": (None, None, None, False),
    "max": (None, None, None, True),
}
"""The last four arguments of the loops, of which one is not None.

Numba leaves out the branches of an argument that is None before it compiles, so that a process that needs the
median of uint8 does not wait for the mode as well: a quarter of the time.

"columns" is the median of windows 2 x 2 x (1 or 2), of one channel of integers.
"""
_BLOCK_RUN = np.uint64(16)  # windows of two voxels along a block of 32


def _as(value: Any, like: Any) -> Any:
    """Cast from numba's 64 bits to the type of ``like``: LLVM then fits more streams; kernels only."""


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
def _sort_columns(
    src: Any, start: Any, sources: Any, fz: Any, length: Any, matrix: Any, at: Any, pitch: Any
) -> None:
    """Sort the rows of windows of 2 x 2 x (1 or 2) against each other, as they lie in memory, into as many rows."""
    sy, sz = sources
    p1, p2, p3 = pitch, np.uint64(2) * pitch, np.uint64(3) * pitch
    if fz == np.uint64(1):
        for i in range(length):
            p, q = start + i, at + i
            a, b = src[p], src[p + sy]
            matrix[q], matrix[p1 + q] = min(a, b), max(a, b)
        return
    for i in range(length):
        p, q = start + i, at + i
        a, b, c, d = src[p], src[p + sy], src[p + sz], src[p + sz + sy]
        a, b = min(a, b), max(a, b)
        c, d = min(c, d), max(c, d)
        b, c, a, d = max(a, c), min(b, d), min(a, c), max(b, d)
        matrix[q], matrix[p1 + q], matrix[p2 + q], matrix[p3 + q] = a, min(b, c), max(b, c), d


@jit
def _median_of_columns(matrix: Any, fz: Any, width: Any, pitch: Any, dst: Any, at: Any) -> None:
    """Median of windows of 2 x 2 x (1 or 2) integers, one channel, from rows by :func:`_sort_columns`.

    Only sorted values have to be distinguished in x. Of two sorted columns ``a`` and ``b`` of ``n`` values the
    smaller half is ``min(a[i], b[n - 1 - i])``, the larger ``max(a[i], b[n - 1 - i])`` (Batcher): the median
    lies between the largest of the one and the smallest of the other.
    """
    p1, p2, p3 = pitch, np.uint64(2) * pitch, np.uint64(3) * pitch
    if fz == np.uint64(1):
        for i in range(width):
            k = np.uint64(2) * i
            a, b, c, d = matrix[k], matrix[p1 + k], matrix[k + np.uint64(1)], matrix[p1 + k + np.uint64(1)]
            dst[at + i] = _midpoint(max(min(a, d), min(b, c)), min(max(a, d), max(b, c)))
        return
    for i in range(width):
        k = np.uint64(2) * i
        a, b, c, d = matrix[k], matrix[p1 + k], matrix[p2 + k], matrix[p3 + k]
        k += np.uint64(1)
        e, f, g, h = matrix[p3 + k], matrix[p2 + k], matrix[p1 + k], matrix[k]
        low = max(max(min(a, e), min(b, f)), max(min(c, g), min(d, h)))
        high = min(min(max(a, e), max(b, f)), min(max(c, g), max(d, h)))
        dst[at + i] = _midpoint(low, high)


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
def sample_array(
    src: Any,
    dst: Any,
    shape: Any,
    sources: Any,
    targets: Any,
    factors: Any,
    run: Any,
    columns: Any,
    median: Any,
    mode: Any,
    largest: Any,
) -> None:
    """Walk over the output rows of an array in runs of ``run`` windows; what it makes of each, :data:`WAYS` say."""
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
                start, to = z * fz * sz + y * fy * sy + x * fx * nc, z * tz + y * ty + x * nc
                if columns is not None:
                    length = fx * width
                    _sort_columns(src, start, sources, fz, length, matrix, np.uint64(0), length)
                    _median_of_columns(matrix, fz, width, length, dst, to)
                if median is not None:
                    _gather(src, start, sources, factors, nc, width, matrix, pitch)
                    _median(matrix, n, width * nc, pitch, dst, to)
                if mode is not None:
                    _gather(src, start, sources, factors, nc, width, matrix, pitch)
                    _mode(matrix, n, width * nc, pitch, dst, to)
                if largest is not None:
                    _gather(src, start, sources, factors, nc, width, matrix, pitch)
                    _extreme(matrix, n, width * nc, pitch, dst, to, largest)


@jit
def _gather_plane(
    src: Any, start: Any, sources: Any, factors: Any, shape: Any, matrix: Any, pitch: Any
) -> None:
    """Fill the matrix with all windows ``(nc, nx, ny)`` of a plane, whose first voxel is at ``start``."""
    sy, sz = sources
    fx, fy, fz = factors
    nc, nx, ny = shape
    one, two = np.uint64(1), np.uint64(2)
    whole = nc == one and fx == two and nx == _BLOCK_RUN
    row = np.uint64(0)
    for dz in range(fz):
        for dx in range(fx):
            for dy in range(fy):
                p = start + dz * sz + dy * sy + dx * nc
                if whole:  # the run's length is known when this is compiled: it becomes a shuffle
                    for y in range(ny):
                        q, r = p + y * fy * sy, row + y * _BLOCK_RUN
                        for i in range(_BLOCK_RUN):
                            matrix[r + i] = src[q + two * i]
                else:
                    for y in range(ny):
                        q, r = p + y * fy * sy, row + y * nx * nc
                        for c in range(nc):
                            for i in range(nx):
                                matrix[r + i * nc + c] = src[q + fx * nc * i + c]
                row += pitch


@jit
def sample_blocks(
    src: Any,
    dst: Any,
    places: Any,
    side: Any,
    box: Any,
    pitches: Any,
    factors: Any,
    columns: Any,
    median: Any,
    mode: Any,
    largest: Any,
) -> None:
    """Walk over blocks of ``side`` voxels that follow each other in memory; all windows of a plane are one run."""
    zero, two, three = np.uint64(0), np.uint64(2), np.uint64(3)
    low, high = box
    nc, ty, tz = pitches  # of x, y and z in dst
    fx, fy, fz = factors
    sources = (side * nc, side * side * nc)
    sy, sz = sources
    n, pitch = fx * fy * fz, (side // fx) * (side // fy) * nc
    matrix = np.empty((n + np.uint64(1)) * pitch, src.dtype)
    plane = np.empty(pitch, src.dtype)
    for k in range(np.uint64(places.size) // three):
        x, y, z = side * places[three * k], side * places[three * k + 1], side * places[three * k + 2]
        x0, y0, z0 = max(x, low[0]), max(y, low[1]), max(z, low[2])
        nx = (min(x + side, high[0]) - x0) // fx
        ny = (min(y + side, high[1]) - y0) // fy
        nz = (min(z + side, high[2]) - z0) // fz
        start = (((k * side + (z0 - z)) * side + (y0 - y)) * side + (x0 - x)) * nc
        to = (x0 - low[0]) // fx * nc + (y0 - low[1]) // fy * ty + (z0 - low[2]) // fz * tz
        row = nx * nc
        for wz in range(nz):
            first = start + wz * fz * sz
            if columns is not None:
                for wy in range(ny):
                    p, q = first + wy * fy * sy, wy * fx * nx
                    if nx == _BLOCK_RUN:
                        _sort_columns(src, p, sources, fz, two * _BLOCK_RUN, matrix, q, fx * pitch)
                    else:
                        _sort_columns(src, p, sources, fz, fx * nx, matrix, q, fx * pitch)
                _median_of_columns(matrix, fz, ny * row, fx * pitch, plane, zero)
            if median is not None:
                _gather_plane(src, first, sources, factors, (nc, nx, ny), matrix, pitch)
                _median(matrix, n, ny * row, pitch, plane, zero)
            if mode is not None:
                _gather_plane(src, first, sources, factors, (nc, nx, ny), matrix, pitch)
                _mode(matrix, n, ny * row, pitch, plane, zero)
            if largest is not None:
                _gather_plane(src, first, sources, factors, (nc, nx, ny), matrix, pitch)
                _extreme(matrix, n, ny * row, pitch, plane, zero, largest)
            for wy in range(ny):
                p, q = wy * row, to + wz * tz + wy * ty
                if row == _BLOCK_RUN:
                    for i in range(_BLOCK_RUN):
                        dst[q + i] = plane[p + i]
                else:
                    for i in range(row):
                        dst[q + i] = plane[p + i]
