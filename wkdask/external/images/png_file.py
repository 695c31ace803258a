"""PNG files: what a header says, and pixels; checked chunk by chunk, whatever the bits, palettes and interlacing.

A decoder gets only what the pixels need. libpng prints a warning for every chunk that it does not like, and for
every interlaced file; of those it is given one image per pass.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wkdask.errors import ImageStackError
from wkdask.external.images.info import Layout, shown
from wkdask.external.images.orientation import ORIENTATIONS

__all__ = ["decode_png", "exif_orientation", "probe_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> samples of a pixel as stored."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced image: first column, first row, step along x, step along y."""
_WIDER = 257
"""What a grey value of 8 bits is multiplied by for one of 16: white stays white."""


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of every chunk, checked; what comes after the last one is passed over."""
    place, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, place)
        body = content[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, place + 8 + length)
        if len(body) != length or checksum != zlib.crc32(kind + body):
            raise ValueError(f"the chunk {kind.decode('latin-1')} at byte {place} is damaged")
        place += 12 + length
        yield kind, body


def _encoded(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of some chunks."""
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"".join([_SIGNATURE, *parts])


def exif_orientation(metadata: bytes | None) -> int:
    """Return the orientation that Exif metadata name; 1 where there is none, or where they cannot be read."""
    from PIL.Image import Exif

    exif = Exif()
    try:
        exif.load(metadata or b"")
        value = exif.get(274, 1)
    except (SyntaxError, ValueError, KeyError, OSError, struct.error):  # they say nothing of the pixels
        return 1
    return value if value in ORIENTATIONS else 1


def probe_png(path: str, page: int | None, *, alpha: bool = False) -> tuple[Layout, int, bool, int]:
    """Read a PNG's header.

    Parameters
    ----------
    path
        The file.
    page
        Which image of an animation is wanted, counted from 1; only the first can be.
    alpha
        Accept an alpha channel: one more sample of a pixel.

    Returns
    -------
    tuple
        The layout; the number of images; whether the samples are of fewer than 8 bits or a palette's, so that they
        may stand for wider ones too; the orientation that its Exif metadata name.

    Raises
    ------
    ImageStackError
        If it is not grey or RGB, or has transparency that is not accepted; names the file.
    """
    from PIL.PngImagePlugin import PngImageFile

    # The class, not Image.open: its limit on pixels is global, and large sections exceed it.
    with open(path, "rb") as stream, PngImageFile(stream) as image:
        frames = int(getattr(image, "n_frames", 1))
        clear = "transparency" in image.info
        orientation = exif_orientation(image.info.get("exif"))
        palette = image.palette
        size, colours = image.size, b"" if palette is None else palette.getdata()[1]
        stream.seek(len(_SIGNATURE) + 16)
        bits, colour = stream.read(2)
    if frames > 1 and page is None:
        raise ImageStackError(
            f"{shown(path)}: is an animation of {frames} images; only its first can be taken: page=1 (--page 1)"
        )
    if clear or (colour in (4, 6) and not alpha):
        problem = "has transparency (an alpha channel); save it without, as grey or RGB"
    elif colour == 3 and any(colours[k] != colours[k // 3 * 3] for k in range(len(colours))):
        problem = "is a palette image: its indices or its colours may be meant; save it as grey or RGB"
    else:
        few = colour == 3 or bits < 8
        dtype = "uint16" if bits == 16 else "uint8"
        return (*size, dtype, 1 if colour == 3 else _CHANNELS[colour]), frames, few, orientation
    raise ImageStackError(f"{shown(path)}: {problem}")


def decode_png(path: str, dtype: str) -> NDArray[Any]:
    """Decode a PNG.

    Parameters
    ----------
    path
        The file.
    dtype
        Type of its stack: a grey image of few bits in a stack of 16 bits becomes one of 16.

    Returns
    -------
    numpy.ndarray
        (rows, columns) or (rows, columns, 3), C order; grey of few bits and of a palette as 8 bits.

    Raises
    ------
    ValueError
        If a chunk is damaged.
    """
    import imagecodecs  # keeps 16-bit RGB; pillow does not

    with open(path, "rb") as stream:
        chunks = [(kind, body) for kind, body in _chunks(stream.read()) if kind in _NEEDED]
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if interlaced:
        image = _interlaced(chunks, width, height, bits, colour)
    else:
        image = imagecodecs.png_decode(_encoded(*chunks))
    if colour == 3:
        image = np.ascontiguousarray(image[..., 0])  # the palette is grey, or the file was refused
    if (colour == 3 or bits < 8) and dtype == "uint16":
        image = image.astype(np.uint16) * np.uint16(_WIDER)
    return image


def _interlaced(
    chunks: list[tuple[bytes, bytes]], width: int, height: int, bits: int, colour: int
) -> NDArray[Any]:
    """Decode an interlaced image: each of its passes is an image of every n-th pixel."""
    import imagecodecs

    stored = memoryview(zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT")))
    rest = [(kind, body) for kind, body in chunks if kind == b"PLTE"]
    out: NDArray[Any] | None = None
    place = 0
    for left, top, across, down in _PASSES:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns <= 0 or rows <= 0:
            continue
        length = rows * (1 + -(-columns * bits * _CHANNELS[colour] // 8))
        header = struct.pack(">IIBBBBB", columns, rows, bits, colour, 0, 0, 0)
        data = zlib.compress(stored[place : place + length], 1)
        place += length
        part = imagecodecs.png_decode(_encoded((b"IHDR", header), *rest, (b"IDAT", data), (b"IEND", b"")))
        part = part.reshape(rows, columns, *part.shape[2:])
        if out is None:
            out = np.empty((height, width, *part.shape[2:]), part.dtype)
        out[top::down, left::across] = part
    if out is None or place > len(stored):
        raise ValueError("the image data are shorter than its passes")
    return out
