"""TIFFs that no library writes: reversed bits, other photometrics, other tags."""

import struct

import imagecodecs
import numpy as np
import tifffile

# A tag that nobody reads, among those that come before 270: it becomes the one that is wanted.
_SPARE = 265


def write_reversed(path, image, **options):
    """Write a TIFF whose bits are stored in reverse order (FillOrder 2)."""
    tifffile.imwrite(path, image, extratags=[(_SPARE, 3, 1, 2, False)], **options)
    with tifffile.TiffFile(path) as tiff:
        order = tiff.byteorder
        spare = [page.tags[_SPARE].offset for page in tiff.pages]
        data = [
            piece for page in tiff.pages for piece in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
    with open(path, "r+b") as file:
        for offset in spare:
            file.seek(offset)
            file.write(struct.pack(f"{order}H", 266))
        for offset, count in data:
            file.seek(offset)
            stored = file.read(count)
            file.seek(offset)
            file.write(imagecodecs.bitorder_encode(stored))


def retag(path, code, value):
    """Replace the value of a tag of one number on every page."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for page in tiff.pages:
            page.tags[code].overwrite(value)


def by_hand(pages, *, byteorder="<", after_header=b""):
    """Return a classic TIFF: of each page its tags, and its data in one strip.

    Tags are {code: (type, values)}; those of the strip are added.
    """
    sizes = {1: "B", 2: "s", 3: "H", 4: "I", 5: "I", 12: "d"}
    content = bytearray((b"II" if byteorder == "<" else b"MM") + struct.pack(f"{byteorder}HI", 42, 8))
    content += after_header
    links = [4]
    for tags, data in pages:
        start = len(content)
        content += data + b"\0" * (len(data) % 2)
        tags = dict(tags) | {273: (4, [start]), 279: (4, [len(data)])}
        entries = b""
        for code, (kind, values) in sorted(tags.items()):
            raw = values if kind == 2 else struct.pack(f"{byteorder}{len(values)}{sizes[kind]}", *values)
            count = len(values) // 2 if kind == 5 else len(values)
            if len(raw) > 4:
                place = len(content)
                content += raw + b"\0" * (len(raw) % 2)
                raw = struct.pack(f"{byteorder}I", place)
            entries += struct.pack(f"{byteorder}HHI", code, kind, count) + raw.ljust(4, b"\0")
        struct.pack_into(f"{byteorder}I", content, links[-1], len(content))
        content += struct.pack(f"{byteorder}H", len(tags)) + entries
        links.append(len(content))
        content += bytes(4)
    return bytes(content)


def grey_tags(width, height, bits=8, photometric=1, samples=1, **more):
    """Return the tags of a plain page, for `by_hand`."""
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * samples),
        259: (3, [1]),
        262: (3, [photometric]),
        277: (3, [samples]),
        278: (4, [height]),
    }
    return tags | {int(code.removeprefix("t")): value for code, value in more.items()}


def random_image(shape, dtype, seed=0):
    """Random voxels of all bits, without NaN."""
    dtype = np.dtype(dtype)
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
    if dtype.kind == "f":
        raw[..., -1] &= 0x3F
    return np.ascontiguousarray(raw).view(dtype)[..., 0]
