"""Kernels for the blocks of a plain WKW cube, which lie in the file along a Morton curve.

::

    Morton number of a block    … z1 y1 x1 z0 y0 x0     the bits of its place, interleaved: x changes first
    in the file                 block after block, each (c, x, y, z) in Fortran order
    in an array                 rows of a block's side, far from each other
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from wkdask.kernels.layout import Block, call, flat, has_voxel_rows, jit, numbers, steps
from wkdask.kernels.morton import morton_places
from wkdask.kernels.moves import to_fortran
from wkdask.kernels.stand_ins import pack, unpack

__all__ = [
    "READ_GAP",
    "BlockTarget",
    "in_voxel_rows",
    "pack_blocks",
    "read_blocks",
    "takes_voxel_rows",
    "unpack_blocks",
]

READ_GAP = 4096
"""Bytes between two wanted parts of a file that are read too: a page costs less than another call."""

_pread: Any = types.ExternalFunction("pread", types.intp(types.intc, types.uintp, types.uintp, types.int64))
_decode = types.ExternalFunction(
    "LZ4_decompress_safe", types.intc(types.uintp, types.uintp, types.intc, types.intc)
)


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

    The last bytes of a row are copied by a whole word that overlaps the one before. The compiler takes the choice
    between the ways out of the loops; as a helper per row it stayed within, and cost more than the copying.
    """
    width, ny, nz = shape
    next_src, next_dst = twin
    zero, eight, many = np.uint64(0), np.uint64(8), np.uint64(32)
    words, vectors = (width >> np.uint64(3)) << np.uint64(3), (width >> np.uint64(5)) << np.uint64(5)
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
            elif width >= many:
                for i in range(zero, vectors, many):
                    _copy_32(dst, q + i, src, p + i)
                if vectors < width:
                    _copy_32(dst, q + width - many, src, p + width - many)
                if next_src:
                    p, q = p + next_src, q + next_dst
                    for i in range(zero, vectors, many):
                        _copy_32(dst, q + i, src, p + i)
                    if vectors < width:
                        _copy_32(dst, q + width - many, src, p + width - many)
            elif width >= eight:
                for i in range(zero, words, eight):
                    _put(dst, q + i, _word(src, p + i))
                if words < width:
                    _put(dst, q + width - eight, _word(src, p + width - eight))
                if next_src:
                    p, q = p + next_src, q + next_dst
                    for i in range(zero, words, eight):
                        _put(dst, q + i, _word(src, p + i))
                    if words < width:
                        _put(dst, q + width - eight, _word(src, p + width - eight))
            else:
                for i in range(zero, width):
                    dst[q + i] = src[p + i]
                if next_src:
                    p, q = p + next_src, q + next_dst
                    for i in range(zero, width):
                        dst[q + i] = src[p + i]


@jit
def _part(codes: Any, k: Any, side: Any, voxel: Any, low: Any, high: Any, origin: Any, pitch: Any) -> Any:
    """Say where the wanted part of a block lies; `origin` is the voxel of the cube that the array begins with.

    It may lie before the cube: the numbers wrap around, and so do their differences. Returns the part's first byte
    among the blocks and in the array, its bytes in x, its rows in y and z, and whether the next block goes on with
    its rows.
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
    place = (x0 - origin[0]) * voxel + (y0 - origin[1]) * pitch[0] + (z0 - origin[2]) * pitch[1]
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
    blocks: Any,
    array: Any,
    codes: Any,
    side: Any,
    voxel: Any,
    low: Any,
    high: Any,
    origin: Any,
    pitch: Any,
    streamed: Any,
) -> None:
    """Copy rows out of blocks, of two neighbours in x at a time: together they fill a line of the cache."""
    k, zero, one = np.uint64(0), np.uint64(0), np.uint64(1)
    row = side * voxel
    rows = (row, row * side)
    while k < np.uint64(codes.size):
        start, place, width, ny, nz, pair = _part(codes, k, side, voxel, low, high, origin, pitch)
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
        start, place, width, ny, nz, pair = _part(codes, k, side, voxel, low, high, low, pitch)
        twin = (row, row * side * side) if pair else (zero, zero)
        _copy_rows(array, place, pitch, blocks, start, rows, (width, ny, nz), twin, False)
        k += one
        if pair:
            k += one


@jit
def _next_code(code: Any, levels: Any, low: Any, high: Any) -> Any:
    """Return the first Morton number from `code` on whose block lies in a box of blocks; that of none at the end.

    Octants of the cube that lie outside are passed over as a whole.
    """
    zero, one, three = np.uint64(0), np.uint64(1), np.uint64(3)
    while code < one << three * levels:
        x, y, z = _every_third(code), _every_third(code >> one), _every_third(code >> np.uint64(2))
        if low[0] <= x < high[0] and low[1] <= y < high[1] and low[2] <= z < high[2]:
            return code
        level = zero
        while level < levels and not code & ((one << three * (level + one)) - one):
            n = one << (level + one)
            if (
                x < high[0] and low[0] < x + n and y < high[1] and low[1] < y + n
                and z < high[2] and low[2] < z + n
            ):  # fmt: skip
                break
            level += one
        code += one << three * level
    return code


@jit
def _fill(descriptor: Any, address: Any, nbytes: Any, position: Any) -> Any:
    """Read bytes from a position of a file; False if they are not all there, or the file cannot be read."""
    while nbytes:
        count: Any = _pread(np.int32(descriptor), address, nbytes, np.int64(position))
        if count <= 0:
            return False
        address, nbytes, position = (
            address + np.uint64(count),
            nbytes - np.uint64(count),
            position + np.uint64(count),
        )
    return True


@jit
def _load_plain(
    descriptor: Any, offset: Any, side: Any, voxel: Any, low: Any, high: Any, codes: Any, plain: Any, gap: Any
) -> Any:
    """Read the wanted layers of blocks, of a single layer the wanted rows; False if that fails.

    What lies beside each other in the file lies so in the buffer, too.
    """
    one = np.uint64(1)
    row = side * voxel
    layer, nbytes = row * side, row * side * side
    begin = end = position = np.uint64(0)  # what the next call reads: in the buffer; in the file
    for k in range(np.uint64(codes.size)):
        y, z = side * _every_third(codes[k] >> one), side * _every_third(codes[k] >> np.uint64(2))
        z0, z1 = max(z, low[2]), min(z + side, high[2])
        start = k * nbytes + (z0 - z) * layer
        stop = start + (z1 - z0) * layer
        if z1 - z0 == one:
            start, stop = start + (max(y, low[1]) - y) * row, start + (min(y + side, high[1]) - y) * row
        if k and codes[k] == codes[k - one] + one and start - end <= gap:
            end = stop
            continue
        if not _fill(descriptor, plain.ctypes.data + begin, end - begin, position):
            return False
        begin, end, position = start, stop, offset + codes[k] * nbytes + (start - k * nbytes)
    return _fill(descriptor, plain.ctypes.data + begin, end - begin, position)


@jit
def _load_packed(
    descriptor: Any, ends: Any, offset: Any, nbytes: Any, codes: Any, plain: Any, packed: Any, gap: Any
) -> Any:
    """Read compressed blocks and decompress each; False if that fails."""
    one = np.uint64(1)
    count, k = np.uint64(codes.size), np.uint64(0)
    while k < count:
        begin = ends[codes[k] - one] if codes[k] else offset
        end, behind = ends[codes[k]], k + one
        while behind < count and ends[codes[behind] - one] - end <= gap:
            end = ends[codes[behind]]
            behind += one
        if not _fill(descriptor, packed.ctypes.data, end - begin, begin):
            return False
        while k < behind:
            start, stop = ends[codes[k] - one] if codes[k] else offset, ends[codes[k]]
            source, place = packed.ctypes.data + (start - begin), plain.ctypes.data + k * nbytes
            size = _decode(source, place, stop - start, nbytes)
            if size < 0 or np.uint64(size) != nbytes:
                return False
            k += one
    return True


@jit
def _read(
    array: Any, plain: Any, packed: Any, ends: Any, given: Any, streamed: Any
) -> Any:  # fmt: skip
    """Read a box of a cube, a few blocks at a time, through buffers that stay in the second cache.

    All numbers come as one array: to hand over each by itself takes longer than to read a block.
    """
    zero, one, three = np.uint64(0), np.uint64(1), np.uint64(3)
    descriptor, offset, side, voxel, levels, gap = given[0], given[1], given[2], given[3], given[4], given[5]
    low, high = (given[6], given[7], given[8]), (given[9], given[10], given[11])
    origin, pitch = (given[12], given[13], given[14]), (given[15], given[16])
    nbytes = side * side * side * voxel
    capacity = np.uint64(plain.size) // nbytes
    first = (low[0] // side, low[1] // side, low[2] // side)
    last = ((high[0] - one) // side + one, (high[1] - one) // side + one, (high[2] - one) // side + one)
    codes = np.empty(capacity, np.uint64)
    end = one << three * levels
    code = _next_code(zero, levels, first, last)
    while code < end:
        count = zero
        # Two neighbours in x stay together: their rows are moved at once.
        while code < end and count < capacity and not (count and count + one == capacity and not code & one):
            codes[count] = code
            count += one
            code = _next_code(code + one, levels, first, last)
        if ends.size:
            is_there = _load_packed(descriptor, ends, offset, nbytes, codes[:count], plain, packed, gap)
        else:
            is_there = _load_plain(descriptor, offset, side, voxel, low, high, codes[:count], plain, gap)
        if not is_there:
            return False
        _unpack(plain, array, codes[:count], side, voxel, low, high, origin, pitch, streamed)
    return True


@dataclass(frozen=True, slots=True)
class BlockTarget:
    """Where voxels go: an array as the kernels take it, looked at once for all the cubes of a read."""

    memory: Block
    """Its bytes."""
    voxel: int
    """Bytes of a voxel, all channels."""
    pitch: tuple[int, int]
    """Bytes from one voxel to the next in y, and in z."""
    streamed: bool
    """Whether to write past the caches."""

    @classmethod
    def of(cls, out: Block, *, streamed: bool) -> BlockTarget:
        """Return an array ``(c, x, y, z)`` as a target: channels, then x, are contiguous.

        Parameters
        ----------
        out
            The array; y and z have any positive stride.
        streamed
            Write past the caches: faster where the array is larger than they are.
        """
        memory = flat(out, writeable=True).view(np.uint8)
        _, _, y, z = out.strides
        if streamed:
            streamed = not (memory.ctypes.data % 8 or y % 8 or z % 8)
        # Along an axis of one voxel the stride is not used, and may be anything.
        pitch = (y if out.shape[2] > 1 else 0, z if out.shape[3] > 1 else 0)
        return cls(memory, out.shape[0] * out.itemsize, pitch, streamed)

    def part(self, low: Sequence[int], high: Sequence[int], origin: Sequence[int]) -> Block:
        """Return the memory of a box as an array (bytes of a voxel, x, y, z).

        Parameters
        ----------
        low, high, origin : three integers (x, y, z)
            As for :func:`read_blocks`.
        """
        strides = (self.voxel, *self.pitch)
        begin = sum((a - b) * stride for a, b, stride in zip(low, origin, strides, strict=True))
        shape = (self.voxel, *(int(b) - int(a) for a, b in zip(low, high, strict=True)))
        return np.lib.stride_tricks.as_strided(self.memory[int(begin) :], shape, (1, *strides))


def unpack_blocks(
    blocks: Block,
    codes: Block,
    side: int,
    low: Sequence[int],
    high: Sequence[int],
    target: BlockTarget,
    origin: Sequence[int],
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
    target
        Where it goes.
    origin : three integers (x, y, z)
        The voxel of the cube that the target begins with; may lie outside of the cube.
    """
    wrapped = numbers([value % 2**64 for value in origin])
    call(
        _unpack, blocks, target.memory, codes, np.uint64(side), np.uint64(target.voxel), numbers(low),
        numbers(high), wrapped, numbers(target.pitch), target.streamed,
        instead=lambda: unpack(
            _cut(blocks, target.voxel, side), target.part(low, high, origin), morton_places(codes), side, low
        ),
    )  # fmt: skip


def read_blocks(
    file: tuple[int, int, Block],
    side: int,
    levels: int,
    low: Sequence[int],
    high: Sequence[int],
    target: BlockTarget,
    origin: Sequence[int],
    buffers: tuple[Block, Block],
    instead: Callable[[], bool],
) -> bool:
    """Read a box of a cube's file and put its voxels to their places, without the interpreter lock.

    :func:`~wkdask.kernels.has_lz4` must hold.

    Parameters
    ----------
    file
        Its descriptor; where its first block begins; where each block ends, an array of uint64: an empty one for a
        plain cube, of whose blocks only the wanted layers or rows are read.
    side, levels
        Voxels along a block; binary logarithm of the blocks along the cube.
    low, high : three integers (x, y, z)
        The box, in voxels of the cube.
    target
        Where it goes.
    origin : three integers (x, y, z)
        The voxel of the cube that the target begins with; may lie outside of the cube.
    buffers : two arrays of uint8
        Room for some blocks, two at least; and for as many compressed ones, each with `READ_GAP` bytes more.
    instead
        Does the same without this kernel.

    Returns
    -------
    bool
        False if bytes are not there or cannot be read, or a compressed block is not exactly a block: then not all
        voxels of the box were written.
    """
    descriptor, offset, ends = file
    plain, packed = buffers
    x, y, z = origin
    wrap = 2**64 - 1
    given = np.array(
        (
            descriptor, offset, side, target.voxel, levels, READ_GAP, *low, *high, x & wrap, y & wrap, z & wrap,
            *target.pitch,
        ),
        np.uint64,
    )  # fmt: skip
    return bool(call(_read, target.memory, plain, packed, ends, given, target.streamed, instead=instead))


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


def takes_voxel_rows(out: Block) -> bool:
    """Say whether blocks can be put to their places in an array: channels, then x, are contiguous."""
    return out.flags.aligned and out.dtype.isnative and has_voxel_rows(out)


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
