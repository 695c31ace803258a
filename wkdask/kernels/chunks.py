"""Chunks of Zarr shards, compressed and decompressed many at a time without the interpreter lock.

A chunk of 32³ bytes takes zstd 30 µs; asking Python before and after each one costs a third of that, and two
threads that do so wait for each other. Here a thread hands over a batch::

    block (c, x, y, z)  ──rows──>  a chunk's bytes  ──zstd──>  one piece of memory, chunk after chunk
    bytes of a shard    ──zstd──>  a chunk's bytes  ──rows──>  block

A chunk's bytes are those of a Fortran-ordered block: rows along c and x lie in one piece on both sides. The zstd
library is the one that is linked into numcodecs; machine code finds its functions by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import types

from wkdask.kernels.layout import Block, call, flat, has_voxel_rows, jit, numbers, steps
from wkdask.kernels.libraries import link

__all__ = ["can_pack", "pack_chunks", "unpack_chunks"]

_size = types.uintp
_compress = types.ExternalFunction("ZSTD_compress2", _size(_size, _size, _size, _size, _size))
_decompress = types.ExternalFunction("ZSTD_decompressDCtx", _size(_size, _size, _size, _size, _size))


def _is_linked() -> bool:
    """Make the functions of zstd known to machine code; False if the library does not show them."""
    from numcodecs import zstd

    return link(zstd.__file__, "ZSTD_compress2", "ZSTD_decompressDCtx")


def can_pack(block: Block) -> bool:
    """Return whether the rows of a block, along channels and x, lie in one piece, and zstd is available."""
    return _is_linked() and block.flags.aligned and has_voxel_rows(block)


@jit
def _pack(
    src: Any,
    starts: Any,
    row: Any,
    shape: Any,
    pitch: Any,
    context: Any,
    scratch: Any,
    out: Any,
    bound: Any,
    sizes: Any,
) -> Any:
    """Compress chunks one after the other; returns the number of the first that failed, or that of all."""
    zero = np.uint64(0)
    ny, nz = shape
    words = scratch.view(np.uint64)
    position = zero
    for k in range(starts.size):
        p = zero
        for z in range(zero, nz):
            for y in range(zero, ny):
                q = starts[k] + y * pitch[0] + z * pitch[1]
                for i in range(zero, row):
                    scratch[p + i] = src[q + i]
                p += row
        bits = np.uint64(0)
        for i in range(words.size):
            bits |= words[i]
        sizes[k] = zero
        if bits == zero:
            continue
        size = np.uint64(_compress(context, out.ctypes.data + position, bound, scratch.ctypes.data, p))
        if size > bound:  # an error is a very large number
            return k
        sizes[k] = size
        position += size
    return starts.size


@jit
def _unpack(
    src: Any, starts: Any, sizes: Any, nbytes: Any, row: Any, layer: Any, regions: Any, pitch: Any,
    context: Any, scratch: Any, dst: Any,
) -> Any:  # fmt: skip
    """Decompress chunks, each to its place; returns the number of the first that failed, or that of all."""
    zero = np.uint64(0)
    for k in range(starts.size):
        size = _decompress(context, scratch.ctypes.data, nbytes, src.ctypes.data + starts[k], sizes[k])
        if np.uint64(size) != nbytes:
            return k
        first, width, y0, ny, z0, nz, place = regions[k]
        for z in range(zero, nz):
            for y in range(zero, ny):
                p = first + (y0 + y) * row + (z0 + z) * layer
                q = place + y * pitch[0] + z * pitch[1]
                for i in range(zero, width):
                    dst[q + i] = scratch[p + i]
    return starts.size


def pack_chunks(
    block: Block,
    corners: Block,
    shape: Sequence[int],
    context: int,
    bound: int,
    out: Block,
    encode: Callable[[Block], Any],
) -> Block:
    """Compress chunks of a block.

    Parameters
    ----------
    block : array (c, x, y, z)
        For which :func:`can_pack` holds.
    corners : array (n, 3)
        Where chunks start in it, (x, y, z); each lies in it as a whole.
    shape
        Voxels (x, y, z) of a chunk; all channels are in it.
    context
        Address of a ``ZSTD_CCtx`` with its parameters set, for this thread only.
    bound
        ``ZSTD_compressBound`` of a chunk.
    out : array of uint8
        Gets the results one after the other; has `bound` bytes for each.
    encode
        Compresses the bytes of one chunk, while the kernel is not compiled yet.

    Returns
    -------
    array of uint64
        Bytes of each result; 0 for a chunk of zeros.

    Raises
    ------
    ValueError
        If zstd reports an error.
    """
    data = flat(block.view(f"u{block.itemsize}")).view(np.uint8)
    _, _, y, z = (step * block.itemsize for step in steps(block))
    voxel = block.shape[0] * block.itemsize
    places = np.asarray(corners, np.uint64).reshape(-1, 3) @ np.array([voxel, y, z], np.uint64)
    row = shape[0] * voxel
    scratch = np.zeros(
        -(-row * shape[1] * shape[2] // 8) * 8, np.uint8
    )  # whole words, the last one's rest empty
    sizes = np.zeros(len(places), np.uint64)

    def one_by_one() -> int:
        position = 0
        for k, corner in enumerate(np.asarray(corners).tolist()):
            part = tuple(slice(first, first + side) for first, side in zip(corner, shape, strict=True))
            chunk = block[(slice(None), *part)].reshape(-1, order="F").view(np.uint8)
            if not chunk.any():
                continue
            packed = np.frombuffer(encode(chunk), np.uint8)
            out[position : position + packed.size] = packed
            sizes[k], position = packed.size, position + packed.size
        return len(places)

    done = call(
        _pack, data, places, np.uint64(row), numbers(shape[1:]), numbers((y, z)), np.uint64(context), scratch, out,
        np.uint64(bound), sizes, instead=one_by_one,
    )  # fmt: skip
    if done < len(places):
        raise ValueError(f"zstd failed to compress a chunk of {row * shape[1] * shape[2]} bytes")
    return sizes


def unpack_chunks(
    data: Block, entries: Block, regions: Block, shape: Sequence[int],
    context: int, out: Block,
) -> int:  # fmt: skip
    """Decompress chunks and put parts of them to their places.

    Parameters
    ----------
    data : array of uint8
        Bytes of a file.
    entries : array (n, 2)
        ``(start, size)`` of each chunk in it.
    regions : array (n, 9)
        ``(x0, nx, y0, ny, z0, nz, x, y, z)`` of each chunk: the part of it, and where that starts in `out`.
    shape
        Voxels (x, y, z) of a chunk.
    context
        Address of a ``ZSTD_DCtx``, for this thread only.
    out : array (c, x, y, z)
        For which :func:`can_pack` holds.

    Returns
    -------
    int
        The first chunk that does not decompress to exactly its size, or the number of chunks.
    """
    target = flat(out.view(f"u{out.itemsize}"), writeable=True).view(np.uint8)
    _, _, y, z = (step * out.itemsize for step in steps(out))
    voxel = out.shape[0] * out.itemsize
    given = np.asarray(regions, np.uint64).reshape(-1, 9)
    parts = given[:, :7].copy()
    parts[:, :2] *= np.uint64(voxel)
    parts[:, 6] = given[:, 6:] @ np.array([voxel, y, z], np.uint64)
    row = shape[0] * voxel
    nbytes = row * shape[1] * shape[2]
    table = np.asarray(entries, np.uint64).reshape(-1, 2)
    done: int = _unpack(
        data, table[:, 0].copy(), table[:, 1].copy(), np.uint64(nbytes), np.uint64(row), np.uint64(row * shape[1]),
        parts, numbers((y, z)), np.uint64(context), np.empty(nbytes, np.uint8), target,
    )  # fmt: skip
    return done
