"""The byte codecs of Zarr chunks: encoded bytes to the bytes of a chunk and back, never more than asked for.

A chunk's size is known before it is decoded. What a damaged or hostile chunk claims to hold is compared with
it first, so that no claim is ever allocated. Decoding and encoding run without the interpreter lock.
"""

from __future__ import annotations

import functools
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wkdask.errors import UnsupportedFormatError
from wkdask.storage.checksums import crc32c
from wkdask.storage.zarr.zstd import compress, decompress

__all__ = ["ZSTD", "Bytes", "Codec", "codec_of", "crc32c", "decode", "encode"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
"""Bytes as a flat array."""

_BLOSC_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_SLACK = 1 << 16
"""What a codec may add to bytes that it cannot make smaller."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One codec from bytes to bytes."""

    name: str
    """``"zstd"``, ``"gzip"``, ``"zlib"``, ``"blosc"``, ``"lz4"`` or ``"crc32c"``."""
    options: str = "{}"
    """Its configuration as canonical JSON: hashable, and pickled as text."""

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration; not to be changed."""
        return _settings(self.options)

    @property
    def compresses(self) -> bool:
        """Whether it is there to save space; a checksum is not."""
        return self.name != "crc32c"


@functools.lru_cache
def _settings(options: str) -> dict[str, Any]:
    """Return a configuration from its text."""
    settings: dict[str, Any] = json.loads(options)
    return settings


ZSTD = Codec("zstd", '{"checksum": true, "level": 5}')
"""What webknossos 4 writes into shards."""


def codec_of(name: str, options: dict[str, Any]) -> Codec:
    """Return a codec by its name and configuration.

    Raises
    ------
    UnsupportedFormatError
        If it is none that volumes are stored with.
    """
    if name not in _DECODERS:
        raise UnsupportedFormatError(
            f"the codec {name!r} is not supported; known are {', '.join(sorted(_DECODERS))}"
        )
    return Codec(name, json.dumps(options, sort_keys=True))


def encode(codecs: Sequence[Codec], chunk: Any) -> Any:
    """Return the encoded bytes of a chunk, whose own bytes lie in one piece; valid until the next call."""
    for codec in codecs:
        chunk = _ENCODERS[codec.name](chunk, codec.settings)
    return chunk


def decode(codecs: Sequence[Codec], data: Any, out: Bytes) -> None:
    """Decode a chunk into its buffer.

    Raises
    ------
    ValueError
        If it does not decode to exactly as many bytes as `out` has; says why. What `out` holds then is undefined.
    """
    sizes = [out.nbytes]
    for codec in codecs:
        sizes.append(sizes[-1] + 4 if codec.name == "crc32c" else 2 * sizes[-1] + _SLACK)
    last = len(codecs) - 1
    for number in range(last, -1, -1):
        codec = codecs[number]
        # All but the innermost codec give bytes whose number only has a bound.
        exact = number == 0 or all(inner.name == "crc32c" for inner in codecs[:number])
        target = out if number == 0 else None
        data = _DECODERS[codec.name](data, sizes[number], exact, target)
    if data is not out:
        if memoryview(data).nbytes != out.nbytes:
            raise ValueError(f"it holds {memoryview(data).nbytes} bytes, a chunk has {out.nbytes}")
        out[:] = np.frombuffer(data, np.uint8)


# --- the codecs: (data, size of the result or a bound, is it exact, where to put it) -> bytes ---------


def _check_claim(claimed: int, size: int, exact: bool) -> None:
    """Compare the number of bytes that data claim to hold with what a chunk has, before anything is allocated."""
    if claimed > size or (exact and claimed != size):
        raise ValueError(
            f"it claims to hold {claimed} bytes, a chunk has {'' if exact else 'at most '}{size}"
        )


def _decode_zstd(data: Any, size: int, exact: bool, out: Bytes | None) -> Any:
    target = np.empty(size, np.uint8) if out is None else out
    try:
        found = decompress(data, target)
    except ValueError as error:
        raise ValueError(f"Zstandard: {error}") from None
    return target if found == size else target[:found]


def _encode_zstd(data: Any, options: dict[str, Any]) -> Any:
    return compress(data, int(options.get("level", 0)), bool(options.get("checksum", False)))


def _inflate(data: Any, size: int, wbits: int) -> bytes:
    """Decompress a zlib or gzip stream, of which no more than `size` bytes are made."""
    engine = zlib.decompressobj(wbits)
    try:
        found = engine.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"{error}") from None
    if len(found) > size:
        raise ValueError(f"it holds more than the {size} bytes of a chunk")
    if not engine.eof:
        raise ValueError(f"it ends after {len(found)} bytes, in the middle of its stream")
    return found


def _decode_gzip(data: Any, size: int, exact: bool, out: Bytes | None) -> Any:
    return _inflate(data, size, 31)


def _encode_gzip(data: Any, options: dict[str, Any]) -> Any:
    import gzip

    return gzip.compress(data, int(options.get("level", 5)), mtime=0)


def _decode_zlib(data: Any, size: int, exact: bool, out: Bytes | None) -> Any:
    return _inflate(data, size, 15)


def _encode_zlib(data: Any, options: dict[str, Any]) -> Any:
    return zlib.compress(data, int(options.get("level", 1)))


def _decode_blosc(data: Any, size: int, exact: bool, out: Bytes | None) -> Any:
    from numcodecs import blosc

    view = memoryview(data)
    if view.nbytes < 16:
        raise ValueError(f"it has {view.nbytes} bytes, a Blosc header alone has 16")
    claimed, _, compressed = struct.unpack_from("<III", view, 4)
    _check_claim(claimed, size, exact)
    if compressed != view.nbytes:
        raise ValueError(f"its Blosc header speaks of {compressed} bytes, it has {view.nbytes}")
    target = np.empty(claimed, np.uint8) if out is None or out.nbytes != claimed else out
    try:
        blosc.decompress(data, target)
    except RuntimeError as error:
        raise ValueError(f"Blosc: {error}") from None
    return target


def _encode_blosc(data: Any, options: dict[str, Any]) -> Any:
    from numcodecs import blosc

    shuffle = options.get("shuffle", 1)
    return blosc.compress(
        np.frombuffer(data, np.uint8).view(f"u{_element_size(options)}"),
        str(options.get("cname", "zstd")).encode(),
        int(options.get("clevel", 5)),
        _BLOSC_SHUFFLES.get(shuffle, shuffle),
        int(options.get("blocksize", 0)),
    )


def _element_size(options: dict[str, Any]) -> int:
    """Return the size of the elements that Blosc shuffles; it matters for the compression only."""
    size = int(options.get("typesize", 1))
    return size if size in (1, 2, 4, 8) else 1


def _decode_lz4(data: Any, size: int, exact: bool, out: Bytes | None) -> Any:
    from numcodecs import lz4

    view = memoryview(data)
    if view.nbytes < 5:
        raise ValueError(f"it has {view.nbytes} bytes, too few for LZ4")
    claimed = struct.unpack_from("<I", view)[0]
    _check_claim(claimed, size, exact)
    target = np.empty(claimed, np.uint8) if out is None or out.nbytes != claimed else out
    try:
        lz4.decompress(data, target)
    except RuntimeError as error:
        raise ValueError(f"LZ4: {error}") from None
    return target


def _encode_lz4(data: Any, options: dict[str, Any]) -> Any:
    from numcodecs import lz4

    return lz4.compress(data, int(options.get("acceleration", 1)))


def _decode_crc32c(data: Any, size: int, exact: bool, out: Bytes | None) -> Any:
    view = memoryview(data).cast("B")
    if view.nbytes < 4:
        raise ValueError(f"it has {view.nbytes} bytes, too few for a checksum")
    found, stated = crc32c(view[:-4]), struct.unpack("<I", view[-4:])[0]
    if found != stated:
        raise ValueError(f"its checksum is {found:08x}, it says {stated:08x}")
    return view[:-4]


def _encode_crc32c(data: Any, options: dict[str, Any]) -> Any:
    view = memoryview(data).cast("B")
    return bytes(view) + struct.pack("<I", crc32c(view))


_DECODERS: dict[str, Callable[[Any, int, bool, Bytes | None], Any]] = {
    "zstd": _decode_zstd,
    "gzip": _decode_gzip,
    "zlib": _decode_zlib,
    "blosc": _decode_blosc,
    "lz4": _decode_lz4,
    "crc32c": _decode_crc32c,
}
_ENCODERS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "zstd": _encode_zstd,
    "gzip": _encode_gzip,
    "zlib": _encode_zlib,
    "blosc": _encode_blosc,
    "lz4": _encode_lz4,
    "crc32c": _encode_crc32c,
}
