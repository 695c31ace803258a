"""How a new mag is cut and compressed: the arguments of ``add_mag``, in today's and in 2021's spelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry import MagLike, Vec3Int, Vec3IntLike
from wkdask.layer.zarr_config import CompressLike, asked_compression
from wkdask.storage.formats import check_spec, check_voxel, default_shard_shape, fitting_compression
from wkdask.storage.protocol import ArraySpec

__all__ = [
    "Cut",
    "NewCut",
    "check_array",
    "compression_of",
    "cut_like",
    "default_shard_side",
    "either_spelling",
    "fitting_shard_shape",
    "in_chunks",
    "per_shard",
]

_LARGEST_SIDE = 1024
"""The default of WEBKNOSSOS: cubes of 1024³ voxels."""
_COMPRESSED_CUBE_NBYTES = 1 << 30
"""A cube is compressed by one task: by default it has no more bytes than this."""
_SMALL_CUBE_NBYTES = 16 << 20
"""It may be mostly empty then: it takes moments, and smaller ones would be many files."""

NewCut = tuple["Vec3IntLike | int | None", "Vec3IntLike | int | None"]
"""Sides of chunks and of cubes of new mags; None where nothing is said."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a user says of chunks, cubes and compression; None where nothing is said.

    Raises
    ------
    InvalidValueError
        If one thing is said in both spellings.
    """

    block_len: int | None
    """2021: side of a chunk in voxels."""
    file_len: Vec3IntLike | int | None
    """2021: side of a cube in chunks."""
    compress: CompressLike
    """2021: whether cubes are compressed; version 4: also how."""
    chunk_shape: Vec3IntLike | int | None
    """Sides of a chunk, in voxels of the mag."""
    shard_shape: Vec3IntLike | int | None
    """Sides of a cube, in voxels of the mag."""
    compression: str | bool | None
    """A name; False for none."""

    def __post_init__(self) -> None:
        for name, old, new in (
            ("chunk_shape", self.block_len, self.chunk_shape),
            ("shard_shape", self.file_len, self.shard_shape),
        ):
            if old is not None and new is not None:
                raise InvalidValueError(f"give either {name} or its 2021 spelling, not both")
        if self.compress is not None and self.compression is not None:
            raise InvalidValueError("give either compression or its 2021 spelling compress, not both")

    def to_spec(self, data_format: str, dtype: str, num_channels: int) -> ArraySpec:
        """Return type and cut of a new mag; what is not said is as the format has it."""
        chunk, shard = self._chunk or Vec3Int.full(32), None
        if chunk.is_positive(strictly=True):
            shard = self._shard(chunk)
            default = default_shard_shape(data_format, chunk, self.block_len or 32)
            if shard is None and any(default % chunk):
                raise InvalidValueError(
                    f"the default shard shape {default} is no multiple of the chunk shape {chunk}: each side "
                    "of that must be a power of two, or give shard_shape"
                )
        return ArraySpec(
            dtype=dtype,
            num_channels=num_channels,
            chunk_shape=chunk,
            shard_shape=shard or default_shard_shape(data_format, chunk, self.block_len or 32),
            compression=fitting_compression(data_format, self._compression),
        )

    def differences(self, spec: ArraySpec) -> list[str]:
        """Return what is said and is not so in a mag, in words."""
        compression = (
            spec.compression
            if self._compression is None
            else fitting_compression(spec.data_format, self._compression)
        )
        asked = {
            "chunk shape": (self._chunk or spec.chunk_shape, spec.chunk_shape),
            "shard shape": (self._shard(spec.chunk_shape) or spec.shard_shape, spec.shard_shape),
            "compression": (compression, spec.compression),
        }
        return [f"{what} {want}, it has {have}" for what, (want, have) in asked.items() if want != have]

    @property
    def _chunk(self) -> Vec3Int | None:
        """Sides of a chunk from either spelling."""
        shape = self.block_len if self.chunk_shape is None else self.chunk_shape
        return None if shape is None else Vec3Int.from_scalar_or_vec(shape)

    def _shard(self, chunk: Vec3Int) -> Vec3Int | None:
        """Sides of a cube from either spelling."""
        if self.shard_shape is not None:
            return Vec3Int.from_scalar_or_vec(self.shard_shape)
        return per_shard(chunk, None, self.file_len)

    @property
    def _compression(self) -> str | bool | None:
        """The compression from either spelling."""
        return self.compression if self.compress is None else asked_compression(self.compress)


def per_shard(
    chunk: Vec3Int, shard_shape: Vec3IntLike | int | None, chunks_per_shard: Vec3IntLike | int | None
) -> Vec3Int | None:
    """Return the sides of a cube, given as such or in chunks; None where neither is.

    Raises
    ------
    InvalidValueError
        If both are.
    """
    if shard_shape is not None and chunks_per_shard is not None:
        raise InvalidValueError("give either shard_shape or chunks_per_shard, not both")
    if shard_shape is not None:
        return Vec3Int.from_scalar_or_vec(shard_shape)
    return None if chunks_per_shard is None else chunk * chunks_per_shard


def cut_like(
    spec: ArraySpec,
    data_format: str,
    chunk_shape: Vec3IntLike | int | None,
    shard_shape: Vec3IntLike | int | None,
) -> tuple[Vec3Int, Vec3Int]:
    """Return the sides of chunks and cubes of a new mag: those given, else those of another mag.

    Where only chunks are given, cubes are as the format has them.
    """
    if chunk_shape is None:
        chunk = spec.chunk_shape
        return chunk, spec.shard_shape if shard_shape is None else Vec3Int.from_scalar_or_vec(shard_shape)
    chunk = Vec3Int.from_scalar_or_vec(chunk_shape)
    if shard_shape is None:
        return chunk, default_shard_shape(data_format, chunk)
    return chunk, Vec3Int.from_scalar_or_vec(shard_shape)


def default_shard_side(
    size: Vec3IntLike, bytes_per_voxel: int, compression: str | None, chunk_side: int = 32
) -> int:
    """Return the side of a cube that suits a new layer.

    The power of two that holds the longest extent, but at most 1024 and at least a chunk. A compressed cube is put
    together and compressed as a whole by one task: there the side is halved until a cube has at most 1 GiB of
    voxels, and a quarter of them at least are the layer's, unless it has no more than 16 MiB anyway.

    Parameters
    ----------
    size
        Extent of its voxels along (x, y, z), in voxels.
    bytes_per_voxel
        All channels.
    compression
        One of `wkdask.storage.protocol.COMPRESSIONS`.
    chunk_side
        Side of a chunk, in voxels.

    Examples
    --------
    >>> default_shard_side((6000, 6000, 3000), 1, "lz4"), default_shard_side((6000, 6000, 100), 1, "lz4")
    (1024, 256)
    """
    size = Vec3Int(size)
    side = min(_LARGEST_SIDE, 1 << (max(size) - 1).bit_length())

    def is_too_large() -> bool:
        nbytes = side**3 * bytes_per_voxel
        own = size.pairmin(Vec3Int.full(side)).prod() * bytes_per_voxel
        return nbytes > _COMPRESSED_CUBE_NBYTES or (nbytes > _SMALL_CUBE_NBYTES and nbytes > 4 * own)

    while compression is not None and is_too_large():
        side //= 2
    return max(side, chunk_side)


def fitting_shard_shape(
    size: Vec3IntLike, bytes_per_voxel: int, compression: str | None, chunk: Vec3Int, data_format: str
) -> Vec3Int:
    """Return the sides of a cube that suit a new layer: whole chunks; in Zarr 2, where a chunk is a file, one.

    Parameters
    ----------
    size, bytes_per_voxel, compression
        As for `default_shard_side`.
    chunk
        Sides of a chunk, in voxels.
    data_format
        One of `wkdask.storage.formats.DATA_FORMATS`.
    """
    if data_format == "zarr":
        return chunk
    side = default_shard_side(size, bytes_per_voxel, compression, max(chunk))
    return chunk * (Vec3Int.full(side) // chunk).pairmax(
        1
    )  # chunks whose sides are no powers of two: whole ones


def in_chunks(
    file_len: Vec3IntLike | int | None, chunks_per_shard: Vec3IntLike | int | None
) -> Vec3IntLike | int | None:
    """Return the chunks along the sides of a cube from 2021's or version 4's spelling; refuse both."""
    if file_len is not None and chunks_per_shard is not None:
        raise InvalidValueError("give either file_len or chunks_per_shard, not both")
    return chunks_per_shard if file_len is None else file_len


def check_array(array: Any, data_format: str, cut: Cut) -> int:
    """Refuse what no new mag can hold, before one is made; return the array's channels.

    Raises
    ------
    InvalidValueError, DTypeError, UnsupportedFormatError
        If it is not a numpy or a dask array ``(x, y, z)`` or ``(c, x, y, z)``, or the format cannot hold it cut so.
    """
    if not isinstance(array, np.ndarray) and not hasattr(array, "dask"):
        raise InvalidValueError(f"expected a numpy or a dask array, got {type(array).__name__}")
    if array.ndim not in (3, 4):
        raise InvalidValueError(f"expected an array (x, y, z) or (c, x, y, z), got the shape {array.shape}")
    channels = 1 if array.ndim == 3 else int(array.shape[0])
    check_voxel(data_format, str(array.dtype), channels)
    check_spec(cut.to_spec(data_format, str(array.dtype), channels), data_format)
    return channels


def either_spelling(name: str, value: MagLike | None, old_name: str, old: MagLike | None) -> MagLike | None:
    """Return a mag from its newer or its 2021 spelling; not from both."""
    if value is not None and old is not None:
        raise InvalidValueError(f"give either {name} or its 2021 spelling {old_name}, not both")
    return old if value is None else value


def compression_of(data_format: str, compress: CompressLike, compression: str | bool | None) -> str | None:
    """Return what a format makes of a compression in either spelling; what `compress` says counts."""
    wanted = compression if compress is None else asked_compression(compress)
    return fitting_compression(data_format, False if wanted is None else wanted)
