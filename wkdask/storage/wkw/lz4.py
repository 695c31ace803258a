"""LZ4 for the blocks of cubes: a batch at a time, by machine code where it can be, else one after the other.

What a block claims is never trusted: it is decompressed into exactly the bytes of a block, or refused.
"""

from __future__ import annotations

import numpy as np

from wkdask.storage.protocol import Voxels

__all__ = ["bound", "pack", "unpack"]


def bound(nbytes: int) -> int:
    """Return the most bytes that a block can become: ``LZ4_compressBound``."""
    return nbytes + nbytes // 255 + 16


def pack(blocks: Voxels, nbytes: int, level: int, out: Voxels) -> Voxels:
    """Compress blocks; of one in which LZ4 finds nothing LZ4HC does not look for more.

    Parameters
    ----------
    blocks : array of uint8
        Blocks one after the other.
    nbytes
        Bytes of a block.
    level
        0 for LZ4, else the level of LZ4HC.
    out : array of uint8
        Gets the results one after the other; has `bound` bytes for each.

    Returns
    -------
    array of uint64
        Where each of them ends.
    """
    from wkdask.kernels import has_lz4, pack_lz4

    if has_lz4():
        return pack_lz4(blocks, nbytes, level, bound(nbytes), out)
    ends = np.empty(blocks.size // nbytes, np.uint64)
    position = 0
    for number, block in enumerate(blocks.reshape(-1, nbytes)):
        packed = np.frombuffer(_encode(block, level), np.uint8)
        out[position : position + packed.size] = packed
        position += packed.size
        ends[number] = position
    return ends


def unpack(packed: Voxels, edges: Voxels, nbytes: int, out: Voxels) -> int:
    """Decompress blocks.

    Parameters
    ----------
    packed : array of uint8
        The compressed blocks.
    edges : array of uint64 (n, 2)
        Where each of them begins and ends.
    nbytes
        Bytes of a block.
    out : array of uint8
        Gets the blocks one after the other.

    Returns
    -------
    int
        Number of the first that is not exactly a block, or of all.
    """
    from wkdask.kernels import has_lz4, unpack_lz4

    if has_lz4():
        return unpack_lz4(packed, edges, nbytes, out)
    for number, (start, stop) in enumerate(edges.tolist()):
        if not _decode(packed[start:stop], out[number * nbytes : (number + 1) * nbytes]):
            return number
    return len(edges)


def _encode(block: Voxels, level: int) -> bytes:
    """Compress one block where no machine code can call the library."""
    import imagecodecs

    packed = imagecodecs.lz4_encode(block.tobytes())
    if level and len(packed) < block.size:  # as in `wkdask.kernels.pack_lz4`
        packed = imagecodecs.lz4_encode(block.tobytes(), level=level, hc=True)
    return bytes(packed)


def _decode(packed: Voxels, out: Voxels) -> bool:
    """Decompress one block; False if that is not exactly what is in it."""
    import imagecodecs

    try:
        found = imagecodecs.lz4_decode(packed.tobytes(), out=out.size)
    except imagecodecs.Lz4Error:
        return False
    if len(found) != out.size:
        return False
    out[:] = np.frombuffer(found, np.uint8)
    return True
