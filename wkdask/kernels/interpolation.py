"""Kernels that shrink a block by interpolation: bilinear and bicubic, the same voxel by voxel however work is cut.

An output voxel is the interpolant at the centre of its window. Along an axis with an odd factor the centre is a
voxel; with an even factor it lies half-way between two, and the interpolant there is a fixed weighting of the
nearest voxels::

    factor 2     . | a b | .        bilinear  (a + b) / 2
                 z | a b | c        bicubic   (-z + 9 a + 9 b - c) / 16      looks one voxel beyond the window
    factor 4     | a b c d |        bilinear  (b + c) / 2, bicubic (-a + 9 b + 9 c - d) / 16
    factor 3     | a b c |          b

Bilinear is linear interpolation, bicubic the cubic convolution of Catmull and Rom (Keys, a = -1/2); both are
separable, the axes alike. Integers are summed up exactly, rounded to the nearest (halves up) and clipped to their
type; floats are summed up in float64, always in the same order. Nothing is smoothed first: what is finer than the
result's voxels is sampled, as elsewhere under these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wkdask.kernels.layout import Block, call, flat, has_voxel_rows, jit, numbers, steps
from wkdask.kernels.moves import to_fortran

__all__ = ["INTERPOLATIONS", "interpolate", "reach"]

INTERPOLATIONS = ("bilinear", "bicubic")
"""Modes that mix values: not for ids."""


def reach(mode: str, factors: Sequence[int]) -> tuple[int, int, int]:
    """Return how many voxels beyond a window, on each side, a mode looks along (x, y, z)."""
    x, y, z = (int(mode == "bicubic" and factor == 2) for factor in factors)
    return (x, y, z)


def _taps(mode: str, factor: int) -> tuple[list[tuple[int, int]], int]:
    """Return (voxel relative to the window's first, weight) along an axis, and log2 of the weights' sum."""
    if factor % 2:
        return [(factor // 2, 1)], 0
    middle = factor // 2
    if mode == "bilinear":
        return [(middle - 1, 1), (middle, 1)], 1
    return [(middle - 2, -1), (middle - 1, 9), (middle, 9), (middle + 1, -1)], 4


@jit
def _sum_floats(
    src: Any, dst: Any, shape: Any, sources: Any, targets: Any, factors: Any, rows: Any, taps: Any, sums: Any
) -> None:
    """Add up the taps of every window: first whole rows along z and y, then along x."""
    nc, nx, ny, nz = shape
    sy, sz = sources
    ty, tz = targets
    fx, fy, fz = factors
    offsets, weights = rows
    places, across = taps
    for z in range(nz):
        for y in range(ny):
            start = z * fz * sz + y * fy * sy
            sums[:] = 0.0
            for tap in range(offsets.size):
                weight, p = weights[tap], start + offsets[tap]
                for i in range(sums.size):
                    sums[i] += weight * np.float64(src[p + i])
            for x in range(nx):
                for c in range(nc):
                    total = 0.0
                    for tap in range(places.size):
                        total += across[tap] * sums[places[tap] + x * fx * nc + c]
                    dst[z * tz + y * ty + x * nc + c] = total


@jit
def _sum_integers(
    src: Any,
    dst: Any,
    shape: Any,
    sources: Any,
    targets: Any,
    factors: Any,
    rows: Any,
    taps: Any,
    sums: Any,
    bits: Any,
    bounds: Any,
) -> None:
    """Add up the taps of every window exactly: first whole rows along z and y, then along x."""
    nc, nx, ny, nz = shape
    sy, sz = sources
    ty, tz = targets
    fx, fy, fz = factors
    offsets, weights = rows
    places, across = taps
    half = (np.int64(1) << bits) >> np.int64(1)
    least, most = bounds
    for z in range(nz):
        for y in range(ny):
            start = z * fz * sz + y * fy * sy
            sums[:] = 0
            for tap in range(offsets.size):
                weight, p = weights[tap], start + offsets[tap]
                for i in range(sums.size):
                    sums[i] += weight * src[p + i]
            for x in range(nx):
                for c in range(nc):
                    total = half
                    for tap in range(places.size):
                        total += across[tap] * sums[places[tap] + x * fx * nc + c]
                    dst[z * tz + y * ty + x * nc + c] = min(max(total >> bits, least), most)


@jit
def _sum_wide_integers(
    src: Any,
    dst: Any,
    shape: Any,
    sources: Any,
    targets: Any,
    factors: Any,
    rows: Any,
    taps: Any,
    sums: Any,
    bits: Any,
    bounds: Any,
) -> None:
    """Do the same for integers of 64 bits, whose upper and lower halves are summed up apart.

    The weights of a window come to less than 2**13, so that neither sum leaves 64 bits. Then
    result = upper * 2**(32 - bits) + lower / 2**bits, clipped before the parts are put together.
    """
    nc, nx, ny, nz = shape
    sy, sz = sources
    ty, tz = targets
    fx, fy, fz = factors
    offsets, weights = rows
    places, across = taps
    half = (np.int64(1) << bits) >> np.int64(1)
    mask, place = np.int64(0xFFFFFFFF), np.int64(32) - bits
    least, most, least_top, most_top, split = bounds
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                for c in range(nc):
                    start = z * fz * sz + y * fy * sy + x * fx * nc + c
                    upper, lower = np.int64(0), half
                    for tap in range(offsets.size):
                        for step in range(places.size):
                            value = src[start + offsets[tap] + places[step]]
                            weight = weights[tap] * across[step]
                            upper += weight * np.int64(value >> split)
                            lower += weight * (np.int64(value) & mask)
                    low = lower >> bits
                    top = upper + (low >> place)
                    i = z * tz + y * ty + x * nc + c
                    if top < least_top:
                        dst[i] = least
                    elif top > most_top:
                        dst[i] = most
                    else:
                        dst[i] = (top << place) | (low & ((np.int64(1) << place) - np.int64(1)))


def interpolate(block: Block, factors: tuple[int, int, int], mode: str, out: Block) -> Block:
    """Fill ``out`` with the interpolants at the centres of a block's windows.

    Parameters
    ----------
    block : array (c, x, y, z)
        Whole windows, and :func:`reach` voxels more on every side.
    factors : three integers (fx, fy, fz)
        Voxels of the block per voxel of the result.
    mode : str
        One of :data:`INTERPOLATIONS`.
    out : array (c, x, y, z)
        Same data type; its shape is that of the windows.
    """
    if not out.size:
        return out
    if not (has_voxel_rows(out) and out.flags.aligned):
        np.copyto(out, interpolate(block, factors, mode, np.empty(out.shape, out.dtype, order="F")))
        return out
    source = block if has_voxel_rows(block) else to_fortran(block)
    halo = reach(mode, factors)
    strides = [source.shape[0], *steps(source)[2:]]
    along, bits = [], 0
    for factor, margin, stride in zip(factors, halo, strides, strict=True):
        taps, log = _taps(mode, factor)
        along.append([((place + margin) * stride, weight) for place, weight in taps])
        bits += log
    rows = [(z[0] + y[0], z[1] * y[1]) for z in along[2] for y in along[1]]
    kind = block.dtype.type
    # An int32 holds what the taps of a window come to where a voxel has up to 16 bits.
    number: type[np.generic] = np.int32 if block.itemsize <= 2 else np.int64
    if block.dtype.kind == "f":
        number = np.float64
    arguments = (
        flat(source),
        flat(out, writeable=True),
        numbers(out.shape),
        numbers(strides[1:]),
        numbers(steps(out)[2:]),
        numbers(factors),
        _columns(rows, number),
        _columns(along[0], number),
        np.empty(source.shape[0] * source.shape[1], number),
    )
    if block.dtype.kind == "f":
        scale = 2.0**-bits  # exact, and so is a product with it
        arguments[7][1][:] *= scale
        call(_sum_floats, *arguments)
        return out
    limits = np.iinfo(block.dtype)
    if block.itemsize < 8:
        call(_sum_integers, *arguments, np.int64(bits), (np.int64(limits.min), np.int64(limits.max)))
        return out
    # Whatever is beyond the type differs from its limits in the bits above `place` already.
    tops = [np.int64(int(limit) >> (32 - bits)) for limit in (limits.min, limits.max)]
    call(
        _sum_wide_integers, *arguments, np.int64(bits), (kind(limits.min), kind(limits.max), *tops, kind(32))
    )
    return out


def _columns(pairs: Sequence[tuple[int, int]], number: type[np.generic]) -> tuple[Any, Any]:
    """Return offsets and weights as two arrays."""
    return np.array([pair[0] for pair in pairs], np.uint64), np.array([pair[1] for pair in pairs], number)
