"""Kernels for the blocks of a plain WKW cube, which lie in the file along a Morton curve.

::

    Morton number of a block    … z1 y1 x1 z0 y0 x0     the bits of its place, interleaved: x changes first
    in the file                 block after block, each (c, x, y, z) in Fortran order
    in an array                 rows of a block's side, far from each other
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from wkdask.kernels.layout import Block, jit, numbers

__all__ = ["morton_numbers", "unpack_blocks"]


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return the address of the eight bytes from an index of an array of bytes on."""
    data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), ir.IntType(64).as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def _copy_32(_: Any, target: Any, to: Any, source: Any, index: Any) -> Any:
    """Copy 32 bytes from anywhere to anywhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(64), 4).as_pointer()
        kinds = signature.args
        load = builder.load(
            builder.bitcast(_pointer(context, builder, kinds[2], *arguments[2:]), vector), align=1
        )
        place = builder.bitcast(_pointer(context, builder, kinds[0], *arguments[:2]), vector)
        builder.store(load, place, align=1)
        return context.get_dummy_value()

    return types.void(target, to, source, index), generate


@intrinsic  # type: ignore[untyped-decorator]
def _word(_: Any, source: Any, index: Any) -> Any:
    """Load eight bytes from anywhere in an array of bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        word.align = 1
        return word

    return types.uint64(source, index), generate


@intrinsic  # type: ignore[untyped-decorator]
def _put(_: Any, target: Any, index: Any, word: Any) -> Any:
    """Store eight bytes anywhere in an array of bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *place, value = arguments
        builder.store(value, _pointer(context, builder, signature.args[0], *place)).align = 1
        return context.get_dummy_value()

    return types.void(target, index, word), generate


@intrinsic  # type: ignore[untyped-decorator]
def _stream(_: Any, target: Any, index: Any, word: Any) -> Any:
    """Store eight aligned bytes past the caches: the lines that they fill are not read from memory first."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *place, value = arguments
        store = builder.store(value, _pointer(context, builder, signature.args[0], *place))
        store.align = 8
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(target, index, word), generate


@intrinsic  # type: ignore[untyped-decorator]
def _fence(_: Any) -> Any:
    """Let streamed stores be seen before whatever this thread stores next."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@jit
def _every_third(number: Any) -> Any:
    """Return the bits 0, 3, 6, … of a number, side by side."""
    number &= np.uint64(0x1249249249249249)
    number = (number ^ (number >> np.uint64(2))) & np.uint64(0x10C30C30C30C30C3)
    number = (number ^ (number >> np.uint64(4))) & np.uint64(0x100F00F00F00F00F)
    number = (number ^ (number >> np.uint64(8))) & np.uint64(0x001F0000FF0000FF)
    return (number ^ (number >> np.uint64(16))) & np.uint64(0x001F00000000FFFF)


@jit
def _unpack(
    src: Any, dst: Any, codes: Any, side: Any, voxel: Any, low: Any, high: Any, pitch: Any, streamed: Any
) -> None:
    """Put blocks to their places, two that are neighbours in x at a time: their rows fill a line of the cache."""
    zero, one, two, three, eight = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(8)
    step = np.uint64(32)
    row = side * voxel
    nbytes = row * side * side
    count = np.uint64(codes.size)
    k = zero
    while k < count:
        code = codes[k]
        x, y, z = (
            side * _every_third(code),
            side * _every_third(code >> one),
            side * _every_third(code >> two),
        )
        x0, x1 = max(x, low[0]), min(x + side, high[0])
        y0, y1 = max(y, low[1]), min(y + side, high[1])
        z0, z1 = max(z, low[2]), min(z + side, high[2])
        width = (x1 - x0) * voxel
        pair = (
            k + one < count
            and code & one == zero
            and codes[k + one] == code + one
            and width == row
            and x1 + side <= high[0]
        )
        start = k * nbytes + (x0 - x) * voxel
        place = (x0 - low[0]) * voxel
        words = (width >> three) << three
        stream = streamed and words == width and place & np.uint64(7) == zero
        even = width % step == zero
        for v in range(z0, z1):
            for u in range(y0, y1):
                p = start + ((v - z) * side + (u - y)) * row
                q = place + (u - low[1]) * pitch[0] + (v - low[2]) * pitch[1]
                if stream:
                    for i in range(zero, words, eight):
                        _stream(dst, q + i, _word(src, p + i))
                    if pair:
                        for i in range(zero, words, eight):
                            _stream(dst, q + row + i, _word(src, p + nbytes + i))
                elif even:
                    for i in range(zero, words, step):
                        _copy_32(dst, q + i, src, p + i)
                    if pair:
                        for i in range(zero, words, step):
                            _copy_32(dst, q + row + i, src, p + nbytes + i)
                else:
                    for i in range(zero, words, eight):
                        _put(dst, q + i, _word(src, p + i))
                    for i in range(words, width):
                        dst[q + i] = src[p + i]
                    if pair:
                        for i in range(zero, words, eight):
                            _put(dst, q + row + i, _word(src, p + nbytes + i))
                        for i in range(words, width):
                            dst[q + row + i] = src[p + nbytes + i]
        k += two if pair else one
    if streamed:
        _fence()


def _spread(numbers: Block) -> Block:
    """Return numbers with two zero bits put between any two of their bits."""
    number = numbers.astype(np.uint64)
    for shift, mask in (
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        number = (number ^ (number << np.uint64(shift))) & np.uint64(mask)
    return number


def morton_numbers(low: Sequence[int], high: Sequence[int]) -> Block:
    """Return the Morton numbers of the blocks in a box, in their order in the file.

    Parameters
    ----------
    low, high : three integers (x, y, z)
        The first block, and the first outside along each axis, within the cube.

    Returns
    -------
    array of uint64
        Sorted; the blocks of an octant of the cube, or of an octant of that, follow each other without a gap.
    """
    x, y, z = (_spread(np.arange(first, last)) for first, last in zip(low, high, strict=True))
    y, z = y << np.uint64(1), z << np.uint64(2)
    codes: Block = (x | y[:, None] | z[:, None, None]).ravel()
    codes.sort()
    return codes


def unpack_blocks(
    data: Block,
    codes: Block,
    side: int,
    voxel_nbytes: int,
    low: Sequence[int],
    high: Sequence[int],
    out: Block,
    pitch: tuple[int, int],
    *,
    streamed: bool,
) -> None:
    """Put the blocks of a plain cube to their places in an array.

    Parameters
    ----------
    data : array of uint8
        Blocks one after the other.
    codes : array of uint64
        Their Morton numbers within the cube.
    side, voxel_nbytes : int
        Voxels along a block, bytes of a voxel.
    low, high : three integers (x, y, z)
        The box of the cube's voxels that is wanted; every block has some of them, and only they are written.
    out : array of uint8
        Memory of the array, from voxel `low` on; channels, then x, are contiguous.
    pitch : two integers
        Bytes from one voxel of it to the next in y, and in z.
    streamed : bool
        Write past the caches: faster where the array is larger than they are.
    """
    aligned = out.ctypes.data % 8 == 0 and pitch[0] % 8 == 0 and pitch[1] % 8 == 0
    _unpack(
        data,
        out,
        codes,
        np.uint64(side),
        np.uint64(voxel_nbytes),
        numbers(low),
        numbers(high),
        numbers(pitch),
        streamed and aligned,
    )
