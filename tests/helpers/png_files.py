"""PNG files of any kind, made by hand."""

import struct
import zlib

import numpy as np

PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def packed(samples, bits):
    """Return rows of samples as PNG stores them, each after its filter byte."""
    rows = samples.reshape(len(samples), -1)
    if bits == 16:
        raw = rows.astype(">u2").view(np.uint8)
    elif bits == 8:
        raw = rows.astype(np.uint8)
    else:
        split = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        raw = np.packbits(split.reshape(len(rows), -1).astype(np.uint8), axis=1)
    return np.hstack([np.zeros((len(rows), 1), np.uint8), raw]).tobytes()


def png(samples, bits, *, colour=0, palette=None, interlaced=False, extra=()):
    """Return a PNG of samples (rows, columns[, channels]), made without a library."""
    height, width = samples.shape[:2]
    raw = (
        b"".join(
            packed(part, bits)
            for left, top, across, down in PASSES
            if (part := samples[top::down, left::across]).size
        )
        if interlaced
        else packed(samples, bits)
    )
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))), *extra]
    parts += [(b"PLTE", palette.astype(np.uint8).tobytes())] if palette is not None else []
    parts += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def grey_palette(values):
    return np.repeat(np.asarray(values)[:, None], 3, 1)
