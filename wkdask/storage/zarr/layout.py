"""How a Zarr array is laid out in files, as a plain value, and the metadata that a new one gets.

What webknossos 4 writes, and what we write::

    Zarr 3   shape (c, x, y, z), rounded up to whole shards from voxel 0 on
             one file per shard: c/0/x/y/z
               chunks 32³, each transposed to Fortran order, little-endian, zstd 5 with a checksum
               an index of (offset, length) at the end, with a crc32c
    Zarr 2   one file per chunk: 0/x/y/z, Fortran order, zstd 5

Arrays of other programs may have other axes, orders, codecs and names of files; a layout says which.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wkdask.errors import UnsupportedFormatError
from wkdask.geometry import Vec3Int
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.zarr.codecs import ZSTD, Codec, codec_of

__all__ = ["AXES", "METADATA_NAMES", "Sharding", "ZarrLayout", "check_sizes", "document_of", "layout_of_spec"]

METADATA_NAMES = {"zarr3": "zarr.json", "zarr": ".zarray"}
"""The file that makes a folder an array, by data format."""

_MAX_CHUNKS = 1 << 24
"""An index of so many chunks has 256 MiB; a longer one is a damaged number, not a plan."""
_MAX_CHUNK_NBYTES = 1 << 31
"""The codecs count in 32 bits."""
_CHUNK_COMPRESSIONS = ("zstd", "gzip", "zlib", "blosc", "lz4")
AXES = "cxyz"
"""The axes of voxels, in the order of every array that users see."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """How the index of a shard is stored."""

    at_end: bool = True
    """Whether it follows the chunks."""
    checksum: bool = True
    """Whether a crc32c follows it."""


@dataclass(frozen=True, slots=True)
class ZarrLayout:
    """All that the files of an array depend on; not its shape, which grows."""

    data_format: str
    """``"zarr3"`` or ``"zarr"`` (Zarr 2)."""
    axes: str
    """One letter per dimension of the array: c, x, y, z; ``.`` for one of length 1 that is passed over."""
    dtype: str
    """numpy name of the type of one channel."""
    channels: int
    """Channels of a voxel."""
    chunk: tuple[int, int, int, int]
    """Channels, and voxels along x, y, z, of the unit that is encoded on its own."""
    shard: tuple[int, int, int, int]
    """The same of a file; equal to `chunk` where there are no shards."""
    order: str = "cxyz"
    """The axes c, x, y, z in the order of memory in a decoded chunk, the fastest first."""
    codecs: tuple[Codec, ...] = ()
    """From the bytes of a chunk to those in the file."""
    sharding: Sharding | None = None
    """None where every chunk is a file."""
    prefix: str = ""
    """What the names of files start with."""
    separator: str = "/"
    """Between the numbers in the names of files."""
    big_endian: bool = False
    """Whether voxels are stored the other way round."""
    fill: bytes = b""
    """One element: what a missing chunk holds, if not zeros."""

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Chunks in a file along c, x, y, z."""
        c, x, y, z = (large // small for large, small in zip(self.shard, self.chunk, strict=True))
        return (c, x, y, z)

    @property
    def num_chunks(self) -> int:
        """Chunks in a file."""
        return math.prod(self.grid)

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk) * np.dtype(self.dtype).itemsize

    @property
    def files_per_cube(self) -> int:
        """Files that hold the channels of a voxel; more than one only in arrays of other programs."""
        return -(-self.channels // self.shard[0])

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Type of an element as it is stored."""
        return np.dtype(self.dtype).newbyteorder(">" if self.big_endian else "<")

    @property
    def compression(self) -> str | None:
        """Name of the codec that saves space; None if none does."""
        return next((codec.name for codec in self.codecs if codec.compresses), None)

    @property
    def is_packed(self) -> bool:
        """Whether a chunk is a piece of a Fortran-ordered block of all channels, and only zstd is done to it."""
        return (
            self.order == AXES
            and not self.big_endian
            and self.chunk[0] == self.channels
            and [codec.name for codec in self.codecs] == ["zstd"]
        )

    def number_of(self, place: Sequence[int]) -> int:
        """Return a chunk's number in the index, by its place (c, x, y, z) in the shard."""
        number = 0
        for axis in self.axes:
            if axis in AXES:
                n = AXES.index(axis)
                number = number * self.grid[n] + place[n]
        return number

    def key(self, place: Sequence[int]) -> str:
        """Return the name of a file, by its place (c, x, y, z) in the array."""
        numbers = (str(place[AXES.index(axis)]) if axis in AXES else "0" for axis in self.axes)
        return self.prefix + self.separator.join(numbers)

    def view(self, chunk: Any) -> Any:
        """View the flat elements of a decoded chunk as (c, x, y, z)."""
        sides = [self.chunk[AXES.index(axis)] for axis in self.order]
        turned = [self.order.index(axis) for axis in AXES]
        return chunk.reshape(sides, order="F").transpose(turned)

    def to_spec(self) -> ArraySpec:
        """Return the format-free description."""
        return ArraySpec(
            dtype=self.dtype,
            num_channels=self.channels,
            chunk_shape=Vec3Int(self.chunk[1:]),
            shard_shape=Vec3Int(self.shard[1:]),
            compression=self.compression,
            layout=f"{self.data_format}:{hashlib.blake2b(repr(self).encode(), digest_size=8).hexdigest()}",
        )

    def __str__(self) -> str:
        cut = "×".join(map(str, self.chunk[1:]))
        shards = "" if self.sharding is None else f" in shards of {'×'.join(map(str, self.shard[1:]))}"
        return (
            f"{self.channels} × {self.dtype}, chunks of {cut}{shards}, {self.compression or 'not compressed'}"
        )


def layout_of_spec(spec: ArraySpec, data_format: str) -> ZarrLayout:
    """Return the layout in which webknossos 4 stores such an array.

    Raises
    ------
    UnsupportedFormatError
        If Zarr cannot hold it so: shards in Zarr 2, a compression of another format.
    """
    codecs: tuple[Codec, ...] = ()
    if spec.compression is not None:
        if spec.compression not in _CHUNK_COMPRESSIONS:
            raise UnsupportedFormatError(
                f"Zarr layers are compressed with {', '.join(_CHUNK_COMPRESSIONS)} or not at all, "
                f"got {spec.compression!r}"
            )
        codecs = (_default_codec(spec, data_format),)
    if data_format == "zarr" and spec.chunk_shape != spec.shard_shape:
        raise UnsupportedFormatError(
            f"Zarr 2 has no shards: each chunk is a file; got chunks of {spec.chunk_shape} and shards of "
            f"{spec.shard_shape}; give one of them, or use data_format='zarr3'"
        )
    chunk = (spec.num_channels, *spec.chunk_shape)
    layout = ZarrLayout(
        data_format=data_format,
        axes="cxyz",
        dtype=spec.dtype,
        channels=spec.num_channels,
        chunk=chunk,
        shard=(spec.num_channels, *spec.shard_shape),
        codecs=codecs,
        sharding=Sharding() if data_format == "zarr3" and spec.chunk_shape != spec.shard_shape else None,
        prefix="c/" if data_format == "zarr3" else "",
    )
    check_sizes(layout)
    return layout


def _default_codec(spec: ArraySpec, data_format: str) -> Codec:
    """Return the codec of a name with the options that a new array gets."""
    name, size = spec.compression, np.dtype(spec.dtype).itemsize
    if data_format == "zarr":
        allowed: dict[str, dict[str, Any]] = {
            "blosc": {"blocksize": 0, "clevel": 5, "cname": "zstd", "shuffle": 1, "typesize": size},
            "lz4": {"acceleration": 1},
        }
        return codec_of(str(name), allowed.get(str(name), {"level": 5}))
    if name == "zstd":
        return ZSTD
    if name == "gzip":
        return codec_of("gzip", {"level": 5})
    if name == "blosc":
        options = {"blocksize": 0, "clevel": 5, "cname": "zstd", "shuffle": "shuffle", "typesize": size}
        return codec_of("blosc", options)
    raise UnsupportedFormatError(f"Zarr 3 knows the codecs zstd, gzip and blosc, got {name!r}")


def document_of(layout: ZarrLayout, shape: Sequence[int]) -> dict[str, Any]:
    """Return the metadata of a new array that :func:`layout_of_spec` laid out, of a shape (c, x, y, z)."""
    fill: float | int = 0.0 if np.dtype(layout.dtype).kind == "f" else 0
    options = [(codec.name, json.loads(codec.options)) for codec in layout.codecs]
    if layout.data_format == "zarr":
        compressor = None
        if options:
            name, settings = options[0]
            compressor = {"id": name} | {key: settings[key] for key in settings if key != "typesize"}
        return {
            "chunks": list(layout.chunk),
            "compressor": compressor,
            "dimension_separator": "/",
            "dtype": np.dtype(layout.dtype).newbyteorder("<").str,
            "fill_value": fill,
            "filters": None,
            "order": "F",
            "shape": list(shape),
            "zarr_format": 2,
        }
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inner: list[dict[str, Any]] = [
        {"name": "transpose", "configuration": {"order": [3, 2, 1, 0]}},
        {"name": "bytes"} if np.dtype(layout.dtype).itemsize == 1 else little,
        *({"name": name, "configuration": settings} for name, settings in options),
    ]
    sharding = {
        "chunk_shape": list(layout.chunk),
        "codecs": inner,
        "index_codecs": [little, {"name": "crc32c"}],
    }
    sharded = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": layout.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(layout.shard)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": inner if layout.sharding is None else sharded,
        "dimension_names": list("cxyz"),
        "attributes": {},
    }


def check_sizes(layout: ZarrLayout) -> None:
    """Refuse absurd sizes before memory of that size is allocated."""
    if layout.channels < 1:
        raise ValueError("it has no channel")
    if layout.chunk_nbytes > _MAX_CHUNK_NBYTES:
        raise UnsupportedFormatError(
            f"its chunks have {layout.chunk_nbytes} bytes; up to {_MAX_CHUNK_NBYTES} are supported"
        )
    if layout.num_chunks > _MAX_CHUNKS:
        raise UnsupportedFormatError(
            f"its shards have {layout.num_chunks} chunks; up to {_MAX_CHUNKS} are supported"
        )
