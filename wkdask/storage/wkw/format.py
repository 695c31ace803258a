"""The bytes of WKW headers and cubes, checked before anything in them is believed.

The wkw library aborts the process or returns wrong voxels on bad headers, and reads any file that it
cannot open as zeros. Its layout (webknossos-wrap, "WKW format")::

    0    4         5                     6           7            8             16
    WKW1 | log2 of block_len, file_len | block type | voxel type | bytes/voxel | data offset u64 | …

    RAW cube:  header, data                               data offset 16, size fixed by the header
    LZ4 cube:  header, jump table u64[blocks], data       entry i = where block i ends in the file
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wkdask.errors import DamagedCubeError, DamagedHeaderError, DTypeError, UnsupportedFormatError
from wkdask.fsio import EXHAUSTED, open_regular
from wkdask.geometry import Vec3Int
from wkdask.storage.protocol import COMPRESSIONS, DTYPES, ArraySpec
from wkdask.storage.rereads import reliably

__all__ = [
    "HEADER_SIZE",
    "WkwHeader",
    "bytes_in",
    "check_cube_file",
    "check_voxel",
    "header_in",
    "header_of_spec",
    "read_header",
]

HEADER_SIZE = 16
RAW, LZ4, LZ4HC = 1, 2, 3
_LAYOUT = struct.Struct("<3sBBBBBQ")
MAX_BLOCK_LEN = 128
"""The library's own header structure holds the block length in one byte."""
MAX_FILE_LEN = 256
"""A cube of 256 blocks a side has a jump table of 128 MiB; larger ones are a damaged byte, not a plan."""
MAX_BYTES_PER_VOXEL = 255


@dataclass(frozen=True, slots=True)
class WkwHeader:
    """The 16 bytes at the start of ``header.wkw`` and of every cube."""

    block_len: int
    """Side of a block (the design's chunk) in voxels."""
    file_len: int
    """Side of a cube in blocks."""
    block_type: int
    """1 RAW, 2 LZ4, 3 LZ4HC (the two LZ4 differ in the effort of the writer only)."""
    voxel_type: int
    """1-10, see `DTYPES`."""
    bytes_per_voxel: int
    """All channels together."""
    data_offset: int
    """Where the first block starts in a cube; 0 in ``header.wkw``."""

    @classmethod
    def parse(cls, data: bytes) -> WkwHeader:
        """Return the header that starts `data`; a ValueError says what is wrong."""
        if len(data) < HEADER_SIZE:
            raise ValueError(f"it has {len(data)} bytes, a header has {HEADER_SIZE}")
        magic, version, lengths, block_type, voxel_type, voxel_bytes, offset = _LAYOUT.unpack_from(data)
        if magic != b"WKW":
            raise ValueError(f"it starts with {magic!r}, not with b'WKW'")
        if version != 1:
            raise ValueError(f"its format version is {version}, known is 1")
        if block_type not in (RAW, LZ4, LZ4HC):
            raise ValueError(f"its block type is {block_type}, known are 1 to 3")
        if not 1 <= voxel_type <= len(DTYPES):
            raise ValueError(f"its voxel type is {voxel_type}, known are 1 to {len(DTYPES)}")
        if not voxel_bytes or voxel_bytes % np.dtype(DTYPES[voxel_type - 1]).itemsize:
            raise ValueError(f"a voxel of {voxel_bytes} bytes cannot hold {DTYPES[voxel_type - 1]}")
        return cls(1 << (lengths & 15), 1 << (lengths >> 4), block_type, voxel_type, voxel_bytes, offset)

    def to_bytes(self) -> bytes:
        """Return the 16 bytes."""
        lengths = (self.block_len.bit_length() - 1) | (self.file_len.bit_length() - 1) << 4
        return _LAYOUT.pack(
            b"WKW", 1, lengths, self.block_type, self.voxel_type, self.bytes_per_voxel, self.data_offset
        )

    @property
    def num_blocks(self) -> int:
        """Blocks in a cube."""
        return self.file_len**3

    @property
    def block_nbytes(self) -> int:
        """Bytes of a block's voxels."""
        return self.block_len**3 * self.bytes_per_voxel

    @property
    def geometry(self) -> tuple[int, int, int, int]:
        """What a cube and its ``header.wkw`` must share."""
        return (self.block_len, self.file_len, self.voxel_type, self.bytes_per_voxel)

    @property
    def dtype(self) -> str:
        """Numpy name of the type of one channel."""
        return DTYPES[self.voxel_type - 1]

    def to_spec(self) -> ArraySpec:
        """Return the format-free description."""
        return ArraySpec(
            dtype=self.dtype,
            num_channels=self.bytes_per_voxel // np.dtype(self.dtype).itemsize,
            chunk_shape=Vec3Int.full(self.block_len),
            shard_shape=Vec3Int.full(self.block_len * self.file_len),
            compression=COMPRESSIONS[self.block_type - 1],
        )

    def __str__(self) -> str:
        return (
            f"{self.dtype}, {self.bytes_per_voxel} bytes per voxel, blocks of {self.block_len}³, "
            f"{self.file_len}³ blocks"
        )


def header_of_spec(spec: ArraySpec) -> WkwHeader:
    """Return the header that stores an array so.

    Raises
    ------
    UnsupportedFormatError
        If chunks or cubes are not cubic powers of two within WKW's limits, or the compression is none of WKW's.
    DTypeError
        If a voxel has more than 255 bytes.
    """
    block_len, cube_len = spec.chunk_shape.x, spec.shard_shape.x
    file_len = cube_len // block_len
    for name, sides, side in (
        ("chunk shape", spec.chunk_shape, block_len),
        ("shard shape", spec.shard_shape, cube_len),
    ):
        if sides != Vec3Int.full(side) or side & (side - 1):
            raise UnsupportedFormatError(f"WKW needs a {name} of equal powers of two, got {sides}")
    if block_len > MAX_BLOCK_LEN or file_len > MAX_FILE_LEN:
        raise UnsupportedFormatError(
            f"WKW files are written with blocks up to {MAX_BLOCK_LEN}³ and up to {MAX_FILE_LEN}³ blocks, "
            f"got {block_len}³ and {file_len}³"
        )
    if spec.compression not in COMPRESSIONS:
        raise UnsupportedFormatError(
            f'WKW cubes are stored with the compression None, "lz4" or "lz4hc", got {spec.compression!r}'
        )
    check_voxel(spec.dtype, spec.num_channels)
    return WkwHeader(
        block_len=block_len,
        file_len=file_len,
        block_type=COMPRESSIONS.index(spec.compression) + 1,
        voxel_type=DTYPES.index(spec.dtype) + 1,
        bytes_per_voxel=spec.bytes_per_voxel,
        data_offset=0,
    )


def check_voxel(dtype: str, num_channels: int) -> None:
    """Refuse a voxel that WKW cannot hold.

    Raises
    ------
    DTypeError
        If it has more than 255 bytes.
    """
    nbytes = np.dtype(dtype).itemsize * num_channels
    if nbytes > MAX_BYTES_PER_VOXEL:
        raise DTypeError(
            f"{num_channels} channels of {dtype} are {nbytes} bytes per voxel; "
            f"WKW holds at most {MAX_BYTES_PER_VOXEL}"
        )


def read_header(path: str) -> WkwHeader:
    """Return the header in a ``header.wkw``.

    Raises
    ------
    DamagedHeaderError
        If the file is missing or damaged.
    UnsupportedFormatError
        If its blocks or cubes are larger than the wkw library can hold.
    """
    return reliably(path, lambda: _header_in(path), HEADER_SIZE)


def _header_in(path: str) -> WkwHeader:
    """Do what :func:`read_header` promises, by one read."""
    try:
        descriptor = open_regular(path)
        try:
            data = os.pread(descriptor, HEADER_SIZE, 0)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise DamagedHeaderError(
            f"{path} is missing: is the folder a magnification, is the share mounted?"
        ) from error
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise DamagedHeaderError(f"{path} cannot be read: {error}") from error
    return header_in(path, data)


def header_in(path: str, data: bytes) -> WkwHeader:
    """Return the header in the bytes of a ``header.wkw``. Raises as :func:`read_header`."""
    try:
        header = WkwHeader.parse(data)
    except ValueError as error:
        raise DamagedHeaderError(f"{path} cannot be read: {error}") from error
    if header.block_len > MAX_BLOCK_LEN or header.file_len > MAX_FILE_LEN:
        raise UnsupportedFormatError(
            f"{path} asks for blocks of {header.block_len}³ voxels and {header.file_len}³ blocks per cube; "
            f"up to {MAX_BLOCK_LEN}³ and {MAX_FILE_LEN}³ are supported"
        )
    return header


def check_cube_file(
    path: str, read: Callable[[int, int], bytes], size: int, dataset: WkwHeader
) -> tuple[WkwHeader, np.ndarray[tuple[int], np.dtype[np.uint64]] | None]:
    """Check header, size and jump table of an open cube.

    Parameters
    ----------
    path
        Its name, for the message.
    read
        Returns its bytes, by the first one and their number; fewer where the file ends.
    size
        Its size in bytes.
    dataset
        The mag's header. The block type may differ: each cube is read by its own.

    Returns
    -------
    WkwHeader
        The cube's own.
    array of uint64 or None
        Where each block ends in the file; None for a plain cube.

    Raises
    ------
    DamagedCubeError
        If header, size or jump table are not those of a whole cube of this mag.
    OSError
        If the disk does not give them.
    """
    try:
        header = WkwHeader.parse(read(0, HEADER_SIZE))
    except ValueError as error:
        raise DamagedCubeError(f"the cube {path} is damaged: {error}") from None
    if header.geometry != dataset.geometry:
        raise DamagedCubeError(f"the cube {path} holds {header}, but its header.wkw says {dataset}")
    if header.block_type == RAW:
        expected = header.data_offset + header.num_blocks * header.block_nbytes
        if header.data_offset < HEADER_SIZE or size != expected:
            raise DamagedCubeError(
                f"the cube {path} is damaged: it has {size} bytes, its header (data from byte "
                f"{header.data_offset} on) asks for {expected}"
            )
        return header, None
    table_end = HEADER_SIZE + 8 * header.num_blocks
    if header.data_offset != table_end or size < table_end:
        raise DamagedCubeError(
            f"the cube {path} is damaged: its data start at byte {header.data_offset} of {size}, "
            f"after its jump table they start at {table_end}"
        )
    data = read(HEADER_SIZE, 8 * header.num_blocks)
    table = np.frombuffer(data[: len(data) // 8 * 8], dtype="<u8")
    if table.size != header.num_blocks or not _is_sound(table, table_end, size, header.block_nbytes):
        raise DamagedCubeError(
            f"the cube {path} is damaged: its jump table does not lead through the file's {size} bytes"
        )
    return header, table


def bytes_in(descriptor: int, start: int, nbytes: int) -> bytes:
    """Return bytes of an open file; fewer where it ends."""
    data = os.pread(descriptor, nbytes, start)
    while 0 < len(data) < nbytes and (more := os.pread(descriptor, nbytes - len(data), start + len(data))):
        data += more
    return data


def _is_sound(table: np.ndarray[tuple[int], np.dtype[np.uint64]], start: int, size: int, block: int) -> bool:
    """Return whether the ends of the blocks increase from `start` to within `size`, none above LZ4's worst case."""
    worst = block + block // 255 + 16  # LZ4_compressBound
    if int(table[-1]) > size or int(table[0]) <= start:
        return False
    if int(table[0]) - start > worst:
        return False
    if not bool((table[1:] > table[:-1]).all()):
        return False
    return bool((np.diff(table) <= worst).all())
