"""How version 4 of the API says that a Zarr 3 array is compressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wkdask.errors import UnsupportedFormatError
from wkdask.storage.protocol import ZARR_COMPRESSIONS

__all__ = ["CompressLike", "Zarr3Config", "asked_compression"]


@dataclass(frozen=True, slots=True)
class Zarr3Config:
    """Codecs of a new Zarr 3 array, instead of ``compress=True``.

    Parameters
    ----------
    codecs
        As in ``zarr.json``, ``{"name": "gzip", …}`` or the name alone. The one that compresses counts; order of
        axes and bytes are always those of webknossos. None for Zstandard.
    chunk_key_encoding
        The default one, ``{"name": "default"}``, or None.

    Raises
    ------
    UnsupportedFormatError
        If it asks for something that arrays here are not made with.

    Examples
    --------
    >>> new = ds.add_layer("zarr", "color", data_format="zarr3")
    >>> new.add_mag(1, shard_shape=64, compress=Zarr3Config(codecs=["gzip"])).info.compression
    'gzip'
    """

    codecs: Sequence[Mapping[str, Any] | str] | None = None
    """Codecs."""
    chunk_key_encoding: Mapping[str, Any] | None = None
    """How chunks are called."""

    def __post_init__(self) -> None:
        _ = self.compression
        encoding = dict(self.chunk_key_encoding or {"name": "default"})
        separator = encoding.get("configuration", {}).get("separator", "/")
        if encoding.get("name") != "default" or separator != "/":
            raise UnsupportedFormatError(
                f'chunks of new arrays have the names of {{"name": "default"}}, c/0/1/2/3; got {encoding}'
            )

    @property
    def compression(self) -> str | bool:
        """The name of the compression; False for none."""
        if self.codecs is None:
            return "zstd"
        names = [codec if isinstance(codec, str) else str(codec.get("name")) for codec in self.codecs]
        for codec in self.codecs:
            if not isinstance(codec, str) and codec.get("name") == "sharding_indexed":
                return Zarr3Config(codec.get("configuration", {}).get("codecs", [])).compression
        unknown = {*names} - {*ZARR_COMPRESSIONS, "transpose", "bytes", "crc32c"}
        found = [name for name in names if name in ZARR_COMPRESSIONS]
        if unknown or len(found) > 1:
            raise UnsupportedFormatError(
                f"new arrays are compressed by one of {', '.join(ZARR_COMPRESSIONS)}, got the codecs {names}"
            )
        return found[0] if found else False


CompressLike = bool | Zarr3Config | None
"""What the API's ``compress=`` may be."""


def asked_compression(compress: CompressLike) -> str | bool | None:
    """Return what ``compress=`` asks for; None where nothing is said."""
    return compress.compression if isinstance(compress, Zarr3Config) else compress
