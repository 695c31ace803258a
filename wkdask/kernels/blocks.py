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

from wkdask.kernels.layout import Block, call, flat, has_voxel_rows, jit, numbers, steps
from wkdask.kernels.moves import to_fortran
from wkdask.kernels.stand_ins import pack, unpack

__all__ = ["in_voxel_rows", "morton_numbers", "morton_places", "pack_blocks", "unpack_blocks"]


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
def _copy_rows(
    src: Any,
    start: Any,
    src_pitch: Any,
    dst: Any,
    place: Any,
    dst_pitch: Any,
    shape: Any,
    twin: Any,
    streamed: Any,
) -> None:
    """Copy the rows of a block, each followed by that of the block's neighbour in x, if `twin` says where that is.

    The compiler takes the choice between the three ways out of the loops; as a helper per row it stayed within, and
    cost more than the copying.
    """
    width, ny, nz = shape
    next_src, next_dst = twin
    zero, eight, many = np.uint64(0), np.uint64(8), np.uint64(32)
    words = (width >> np.uint64(3)) << np.uint64(3)
    for z in range(nz):
        for y in range(ny):
            p = start + y * src_pitch[0] + z * src_pitch[1]
            q = place + y * dst_pitch[0] + z * dst_pitch[1]
            if streamed:
                for i in range(zero, words, eight):
                    _stream(dst, q + i, _word(src, p + i))
                if next_src:
                    p, q = p + next_src, q + next_dst
                    for i in range(zero, words, eight):
                        _stream(dst, q + i, _word(src, p + i))
            elif width % many == zero:
                for i in range(zero, width, many):
                    _copy_32(dst, q + i, src, p + i)
                if next_src:
                    p, q = p + next_src, q + next_dst
                    for i in range(zero, width, many):
                        _copy_32(dst, q + i, src, p + i)
            else:
                for i in range(zero, words, eight):
                    _put(dst, q + i, _word(src, p + i))
                for i in range(words, width):
                    dst[q + i] = src[p + i]
                if next_src:
                    p, q = p + next_src, q + next_dst
                    for i in range(zero, words, eight):
                        _put(dst, q + i, _word(src, p + i))
                    for i in range(words, width):
                        dst[q + i] = src[p + i]


@jit
def _part(codes: Any, k: Any, side: Any, voxel: Any, low: Any, high: Any, pitch: Any) -> Any:
    """Say where the wanted part of a block lies.

    Returns its first byte among the blocks and in the array, its bytes in x, its rows in y and z, and whether the
    next block continues its rows.
    """
    one = np.uint64(1)
    code = codes[k]
    x = side * _every_third(code)
    y = side * _every_third(code >> one)
    z = side * _every_third(code >> np.uint64(2))
    x0, x1 = max(x, low[0]), min(x + side, high[0])
    y0, y1 = max(y, low[1]), min(y + side, high[1])
    z0, z1 = max(z, low[2]), min(z + side, high[2])
    start = ((((k * side + (z0 - z)) * side) + (y0 - y)) * side + (x0 - x)) * voxel
    place = (x0 - low[0]) * voxel + (y0 - low[1]) * pitch[0] + (z0 - low[2]) * pitch[1]
    width = (x1 - x0) * voxel
    pair = (
        k + one < np.uint64(codes.size)
        and code & one == np.uint64(0)
        and codes[k + one] == code + one
        and width == side * voxel
        and x1 + side <= high[0]
    )
    return start, place, width, y1 - y0, z1 - z0, pair


@jit
def _unpack(
    blocks: Any, array: Any, codes: Any, side: Any, voxel: Any, low: Any, high: Any, pitch: Any, streamed: Any
) -> None:
    """Copy rows out of blocks, of two neighbours in x at a time: together they fill a line of the cache."""
    k, zero, one = np.uint64(0), np.uint64(0), np.uint64(1)
    row = side * voxel
    rows = (row, row * side)
    while k < np.uint64(codes.size):
        start, place, width, ny, nz, pair = _part(codes, k, side, voxel, low, high, pitch)
        twin = (row * side * side, row) if pair else (zero, zero)
        stream = streamed and (width | place) & np.uint64(7) == zero
        _copy_rows(blocks, start, rows, array, place, pitch, (width, ny, nz), twin, stream)
        k += one
        if pair:
            k += one
    if streamed:
        _fence()


@jit
def _pack(
    array: Any, blocks: Any, codes: Any, side: Any, voxel: Any, low: Any, high: Any, pitch: Any
) -> None:
    """Copy rows into blocks, as :func:`_unpack` does out of them."""
    k, zero, one = np.uint64(0), np.uint64(0), np.uint64(1)
    row = side * voxel
    rows = (row, row * side)
    while k < np.uint64(codes.size):
        start, place, width, ny, nz, pair = _part(codes, k, side, voxel, low, high, pitch)
        twin = (row, row * side * side) if pair else (zero, zero)
        _copy_rows(array, place, pitch, blocks, start, rows, (width, ny, nz), twin, False)
        k += one
        if pair:
            k += one


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


def morton_places(codes: Block) -> Block:
    """Return where the blocks of Morton numbers lie in the cube: (n, 3), x, y and z in blocks."""
    places = np.zeros((codes.size, 3), np.uint64)
    for bit in range(int(codes.max(initial=0)).bit_length()):
        places[:, bit % 3] |= (codes >> np.uint64(bit) & np.uint64(1)) << np.uint64(bit // 3)
    return places


def unpack_blocks(
    blocks: Block,
    codes: Block,
    side: int,
    low: Sequence[int],
    high: Sequence[int],
    out: Block,
    *,
    streamed: bool,
) -> None:
    """Put the blocks of a plain cube to their places in an array.

    Parameters
    ----------
    blocks : array of uint8
        Blocks one after the other, at least as many as there are codes.
    codes : array of uint64
        Their Morton numbers within the cube.
    side : int
        Voxels along a block.
    low, high : three integers (x, y, z)
        The box of the cube's voxels that is wanted; every block has some of them, and only they are written.
    out : array (c, x, y, z)
        Where that box goes: channels, then x, are contiguous, y and z have any positive stride.
    streamed : bool
        Write past the caches: faster where the array is larger than they are.
    """
    memory = flat(out, writeable=True).view(np.uint8)
    streamed = streamed and not any(n % 8 for n in (memory.ctypes.data, *out.strides[2:]))
    voxel, pitch = _voxel_nbytes(out), _pitch(out)
    call(
        _unpack, blocks, memory, codes, np.uint64(side), voxel, numbers(low), numbers(high), pitch, streamed,
        instead=lambda: unpack(_cut(blocks, voxel, side), _in_bytes(memory, out), morton_places(codes), side, low),
    )  # fmt: skip


def pack_blocks(
    block: Block, codes: Block, side: int, low: Sequence[int], high: Sequence[int], out: Block
) -> None:
    """Put the voxels of an array to their places in the blocks of a plain cube.

    Parameters
    ----------
    block : array (c, x, y, z)
        Voxels of a box of the cube: channels, then x, are contiguous, y and z have any positive stride.
    codes, side, low, high
        As for :func:`unpack_blocks`; `low` and `high` are the box that `block` covers.
    out : array of uint8
        Blocks one after the other; voxels outside of the box stay as they are.
    """
    memory = flat(block).view(np.uint8)
    voxel, pitch = _voxel_nbytes(block), _pitch(block)
    call(
        _pack, memory, out, codes, np.uint64(side), voxel, numbers(low), numbers(high), pitch,
        instead=lambda: pack(_in_bytes(memory, block), _cut(out, voxel, side), morton_places(codes), side, low),
    )  # fmt: skip


def in_voxel_rows(block: Block) -> Block:
    """Return an array whose channels, then x, are contiguous: itself, or a copy in Fortran order."""
    return block if has_voxel_rows(block) else to_fortran(block)


def _voxel_nbytes(block: Block) -> Any:
    """Return the bytes of a voxel, all channels."""
    return np.uint64(block.shape[0] * block.itemsize)


def _pitch(block: Block) -> tuple[Any, ...]:
    """Return the bytes from one voxel to the next in y, and in z."""
    return numbers([step * block.itemsize for step in steps(block)[2:]])


def _cut(blocks: Block, voxel: int, side: int) -> Block:
    """View blocks that follow each other as (n, bytes of a voxel, x, y, z)."""
    whole = blocks.size // (int(voxel) * side**3)
    rows = blocks[: whole * int(voxel) * side**3].reshape((whole, side, side, side, int(voxel)))
    return rows.transpose(0, 4, 3, 2, 1)


def _in_bytes(memory: Block, block: Block) -> Block:
    """View the memory of a block (c, x, y, z) of contiguous rows as (bytes of a voxel, x, y, z)."""
    voxel = int(_voxel_nbytes(block))
    strides = (1, voxel, *(int(pitch) for pitch in _pitch(block)))
    shape = (voxel, *block.shape[1:])
    return np.lib.stride_tricks.as_strided(memory, shape, strides, writeable=memory.flags.writeable)
