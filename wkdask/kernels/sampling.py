"""Shrinking a block: one voxel out of each window of ``fx * fy * fz`` voxels, per channel.

What to expect of each mode is said here; how it is computed, in :mod:`wkdask.kernels.windows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

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
    numbers,
    steps,
    triple,
)
from wkdask.kernels.moves import to_fortran
from wkdask.kernels.stand_ins import sample, sample_each
from wkdask.kernels.windows import WAYS, sample_array, sample_blocks

__all__ = ["BLOCK_MODES", "MODES", "downsample", "downsample_blocks"]

MODES = ("median", "mode", "min", "max", "nearest", *INTERPOLATIONS)
BLOCK_MODES = ("median", "mode", "min", "max")
"""What :func:`downsample_blocks` can do."""
_MATRIX_BYTES = 1 << 15  # two thirds of a first-level cache
_LONGEST_RUN = 512


def _way(mode: str, dtype: np.dtype[Any], nc: int, factors: Sequence[int]) -> tuple[Any, ...]:
    """Return the code of the mode for the loops; the faster loop for the usual windows does not handle NaN."""
    if mode == "median" and dtype.kind != "f" and nc == 1 and tuple(factors) in ((2, 2, 1), (2, 2, 2)):
        return WAYS["columns"]
    return WAYS[mode]


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
    instead = None if source.dtype.kind == "f" else lambda: sample(source, factors, mode, target)
    call(sample_array, *arguments, *_way(mode, source.dtype, nc, factors), instead=instead)
    return out


def downsample_blocks(
    blocks: Block,
    places: Block,
    side: int,
    low: Sequence[int],
    high: Sequence[int],
    factors: Sequence[int],
    mode: str,
    out: Block,
) -> None:
    """Shrink a part of a plain WKW cube whose blocks are in memory as they are in the file, one after the other.

    What :func:`~wkdask.kernels.unpack_blocks` and :func:`downsample` do, while the blocks are in the caches.

    Parameters
    ----------
    blocks : array of uint8
        Blocks one after the other, at least as many as there are places; aligned to voxels.
    places : array of uint64, (n, 3)
        Where each lies in the cube (x, y, z), in blocks.
    side : int
        Voxels along a block, a multiple of the factors.
    low, high : three integers (x, y, z)
        The box of the cube's voxels that is wanted, on the grid of the factors; every block has some of them.
    factors, mode
        As for :func:`downsample`; one of the modes of :data:`BLOCK_MODES`.
    out : array (c, x, y, z)
        Where the shrunk box goes: channels, then x, are contiguous, y and z have any positive stride.
    """
    kind = out.dtype if mode != "mode" or out.dtype.kind == "f" else np.dtype(f"u{out.itemsize}")
    source = blocks[: blocks.size // out.itemsize * out.itemsize].view(kind)
    source.flags.writeable = False
    target, nc = out.view(kind), out.shape[0]

    def instead() -> None:
        n = nc * side**3
        whole = source[: source.size // n * n].reshape((-1, side, side, side, nc)).transpose(0, 4, 3, 2, 1)
        sample_each(whole, target, places, side, (low, high), factors, mode)

    call(
        sample_blocks,
        source,
        flat(target, writeable=True),
        places.reshape(-1),
        np.uint64(side),
        (numbers(low), numbers(high)),
        numbers((out.shape[0], *steps(out)[2:])),
        numbers(factors),
        *_way(mode, out.dtype, out.shape[0], factors),
        instead=None if kind.kind == "f" else instead,
    )
