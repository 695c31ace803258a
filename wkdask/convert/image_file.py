"""One image file: its header -> what it holds, and its pages -> pixels; TIFF, PNG and JPEG.

What a decoder would pass over in silence (a missing strip, a cut JPEG, a broken chain of pages, alpha) is
refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wkdask.convert.plain_tiff import Frame, frame_of
from wkdask.errors import ImageStackError

__all__ = ["ImageFile", "Layout", "Window", "decode", "describe", "probe"]

_DTYPES = {f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)} | {"float32", "float64"}
# Content decides the format, not the suffix: what a link points to may have none.
_MAGIC = {b"II*": "tiff", b"II+": "tiff", b"MM\0": "tiff", b"\x89PN": "png", b"\xff\xd8\xff": "jpeg"}
# How pillow names stored samples -> (dtype, channels). Its mode hides 16-bit RGB, which it cuts to 8 bits.
_PNG_SAMPLES = {"L": ("uint8", 1), "I;16B": ("uint16", 1), "RGB": ("uint8", 3), "RGB;16B": ("uint16", 3)}
_JPEG_SAMPLES = {"L": ("uint8", 1), "RGB": ("uint8", 3)}
_REFUSED = {
    "1": "is a 1-bit image; save it with 8 bits per pixel",
    "P": "is a palette image: its indices or its colours may be meant; save it as grey or RGB",
    "A": "has transparency (an alpha channel); save it without, as grey or RGB",
}

Layout: TypeAlias = tuple[int, int, str, int]
"""Width and height in pixels, name of the data type, channels."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of a stack: one section, or several where it is a multi-page TIFF."""

    path: str
    """Absolute path, links resolved."""
    format: str
    """``"tiff"``, ``"png"`` or ``"jpeg"``."""
    pages: int = 1
    """Number of sections in the file."""
    directories: Sequence[int] | None = range(1)
    """The TIFF directory of each section; None: the first describes them all, stored one after the other."""
    frame: Frame | None = None
    """All that the file holds around the pixels of its one section, where these are stored plainly."""

    def page_name(self, page: int) -> str:
        """Path, and where there are several pages which one, counted from 1."""
        return self.path if self.pages == 1 else f"{self.path}, page {page + 1} of {self.pages}"


def describe(layout: Layout) -> str:
    """Return a layout in words."""
    return f"{layout[0]} x {layout[1]} pixels (width x height) of {layout[2]} in {layout[3]} channel(s)"


def probe(path: str, like: tuple[ImageFile, Layout] | None = None) -> tuple[ImageFile, Layout]:
    """Read one file's header: the file with its number of pages, and what each page holds.

    Parameters
    ----------
    path
        The file.
    like
        What was returned for another file. One with the same frame holds the same, and is not parsed; one with
        another gets none: they would be as many as files.

    Raises
    ------
    ImageStackError
        If the file is damaged or not supported; names it.
    """
    try:
        if like is not None and like[0].frame is not None and like[0].frame.surrounds(path):
            return replace(like[0], path=path), like[1]
        with open(path, "rb") as stream:
            magic = stream.read(3)
        kind = _MAGIC.get(magic)
        if kind is None:
            raise ImageStackError(f"{path}: is neither TIFF, PNG nor JPEG; it starts with {magic!r}")
        return (
            _probe_tiff(path, framed=like is None)
            if kind == "tiff"
            else (ImageFile(path, kind), _probe_image(path, kind))
        )
    except (ImageStackError, MemoryError):
        raise
    except Exception as error:  # parsers raise whatever they stumble over
        raise ImageStackError(f"{path}: cannot read the header: {type(error).__name__}: {error}") from error


Window: TypeAlias = tuple[slice, slice]
"""Rows and columns, with start and stop."""


def decode(
    file: ImageFile, pages: range, layout: Layout, window: Window | None = None
) -> Iterator[NDArray[Any]]:
    """Decode pages of one file, each as (y, x) or (y, x, c).

    Parameters
    ----------
    file
        The file.
    pages
        Which of its sections, counted from 0.
    layout
        What each must hold.
    window
        Only these rows and columns; all by default. Of a TIFF only the strips and tiles that hold them are decoded.

    Yields
    ------
    numpy.ndarray
        In C order: rows, columns, channels.

    Raises
    ------
    ImageStackError
        If a page cannot be decoded, or holds something else; names file and page.
    """
    width, height, dtype, channels = layout
    rows, columns = window or (slice(0, height), slice(0, width))
    expected: tuple[int, ...] = (height, width, 3)[: 2 if channels == 1 else 3]
    if file.format == "tiff" and window is not None:
        expected = (rows.stop - rows.start, columns.stop - columns.start, *expected[2:])
        images = _decode_tiff(file, pages, layout, window)
    else:
        images = _decode_tiff(file, pages, layout) if file.format == "tiff" else _decode_image(file)
    for page in pages:
        try:
            image = next(images)
        except (ImageStackError, MemoryError):
            raise
        except Exception as error:
            raise ImageStackError(
                f"{file.page_name(page)}: cannot decode the image: {type(error).__name__}: {error}"
            ) from error
        if image.shape != expected or image.dtype.name != dtype:
            raise ImageStackError(
                f"{file.page_name(page)}: changed since the stack was opened: holds {image.dtype.name} of "
                f"shape {image.shape} (rows, columns, channels), expected {dtype} of shape {expected}"
            )
        yield image if window is None or file.format == "tiff" else image[rows, columns]


def _probe_image(path: str, kind: str) -> Layout:
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    # The classes, not Image.open: its limit on pixels is global, and large sections exceed it.
    with open(path, "rb") as stream, (PngImageFile if kind == "png" else JpegImageFile)(stream) as image:
        stored = str(image.tile[0][3]) if kind == "png" else image.mode
        layout = (_PNG_SAMPLES if kind == "png" else _JPEG_SAMPLES).get(stored)
        clear = "transparency" in image.info
        if layout is None or clear:
            reason = "A" if clear or image.mode in ("LA", "RGBA") else image.mode
            text = _REFUSED.get(reason, f"holds {stored} samples; expected 8 or 16 bits of grey or RGB")
            raise ImageStackError(f"{path}: {text}")
        return (*image.size, *layout)


def _decode_image(file: ImageFile) -> Iterator[NDArray[Any]]:
    if file.format == "png":
        import imagecodecs  # checks every CRC and keeps 16-bit RGB; pillow does neither

        with open(file.path, "rb") as stream:
            yield imagecodecs.png_decode(stream.read())
    else:
        from PIL.JpegImagePlugin import JpegImageFile  # refuses cut files, which imagecodecs fills with grey

        with open(file.path, "rb") as stream, JpegImageFile(stream) as image:
            yield np.asarray(image)


def _probe_tiff(path: str, *, framed: bool) -> tuple[ImageFile, Layout]:
    import tifffile

    with tifffile.TiffFile(path, _multifile=False) as tiff:  # never opens the other files of an OME set
        count = len(tiff.pages)
        # tifffile only logs a broken chain of directories, and goes on with fewer pages.
        tiff.filehandle.seek(tiff.pages.next_page_offset)
        if tiff.filehandle.read(tiff.tiff.offsetsize) != bytes(tiff.tiff.offsetsize):
            raise ImageStackError(f"{path}: is damaged or truncated after page {count}")
        main = tiff.series[0]
        in_file_order = main.kind in ("generic", "uniform", "shaped")
        described = tiff.is_imagej or tiff.is_ome or tiff.is_shaped
        if main.is_multifile or (described and main.kind in ("generic", "uniform")):
            raise ImageStackError(
                f"{path}: its ImageJ, OME or tifffile metadata describe more than this file holds: "
                "it is truncated, or one of several files; save it again as one plain TIFF"
            )
        first = main.keyframe
        layout = _page_layout(path, first)
        alike = [s for s in tiff.series if s.keyframe.shape == first.shape] if in_file_order else [main]
        depth = sum(_series_depth(path, tiff, series) for series in alike)
        if count == 1 and depth > 1:
            if main.dataoffset is None or main.dataoffset + depth * first.nbytes > tiff.filehandle.size:
                raise ImageStackError(f"{path}: is truncated; its metadata promise {depth} pages")
            return ImageFile(path, "tiff", depth, None), layout
        listed = None if in_file_order else [frame.index for frame in main]
        chosen = []
        for index in range(count):
            page, name = tiff.pages.get(index), f"{path}, page {index + 1} of {count}"
            if page.shape == first.shape and (listed is None or index in listed):
                if (other := _page_layout(name, page)) != layout:
                    raise ImageStackError(
                        f"{name}: has {describe(other)}, the pages before {describe(layout)}"
                    )
                _check_extent(name, page)
                chosen.append(index)
            elif not (
                page.is_reduced or 2 * max(page.imagewidth / layout[0], page.imagelength / layout[1]) <= 1
            ):
                raise ImageStackError(
                    f"{name}: is {page.imagewidth} x {page.imagelength} pixels and not part of the stack of "
                    f"{layout[0]} x {layout[1]}; only small copies are left out: save it as a file of its own"
                )
        if len(chosen) != depth:
            raise ImageStackError(f"{path}: holds {len(chosen)} pages, but its metadata promise {depth}")
        order = listed or chosen
        directories = range(depth) if order == list(range(depth)) else tuple(order)
        frame = frame_of(path, tiff, first) if framed and count == 1 else None
        return ImageFile(path, "tiff", depth, directories, frame), layout


def _series_depth(path: str, tiff: Any, series: Any) -> int:
    """Sections in one image of a TIFF, which may have one axis beside y, x and samples."""
    stacking = [
        (axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXS" and n > 1
    ]
    # tifffile calls the pages of a plain ImageJ stack channels; those that ImageJ shows as channels are.
    mode = (tiff.imagej_metadata or {}).get("mode") if tiff.is_imagej else None
    channels = series.kind == "ome" or mode in ("composite", "color")
    if len(stacking) > 1 or (channels and "C" in dict(stacking)):
        raise ImageStackError(
            f"{path}: has the axes {series.axes} of shape {tuple(series.shape)}; expected Y, X and one "
            "stacking axis (channels only as RGB samples): save one stack per channel and time point"
        )
    return math.prod(n for _, n in stacking)


def _page_layout(name: str, page: Any) -> Layout:
    import tifffile

    colours = getattr(page.photometric, "name", str(page.photometric))
    if page.bitspersample == 1:
        problem = _REFUSED["1"]
    elif colours == "PALETTE":
        problem = _REFUSED["P"]
    elif page.extrasamples and page.samplesperpixel in (2, 4):
        problem = _REFUSED["A"]
    elif colours not in ("MINISBLACK", "MINISWHITE", "RGB", "YCBCR") or page.samplesperpixel not in (1, 3):
        problem = f"holds {page.samplesperpixel} {colours} samples per pixel; expected grey or RGB"
    elif page.axes not in ("YX", "YXS", "SYX"):
        problem = f"its pages have the axes {page.axes}; expected one image per page"
    elif page.dtype is None or page.dtype.name not in _DTYPES:
        problem = f"has the data type {page.dtype}; expected one of {', '.join(sorted(_DTYPES))}"
    elif page.compression != 1 and page.compression not in tifffile.TIFF.DECOMPRESSORS:
        problem = f"has the compression {page.compression!r}, which cannot be decoded"
    else:
        return page.imagewidth, page.imagelength, page.dtype.name, page.samplesperpixel
    raise ImageStackError(f"{name}: {problem}")


def _check_extent(name: str, page: Any) -> None:
    """Refuse a page whose strips or tiles are not all there: tifffile would fill them with zeros."""
    offsets, counts, size = page.dataoffsets, page.databytecounts, page.parent.filehandle.size
    if page.is_contiguous:
        offsets, counts = offsets[:1], (page.nbytes,)
    if min(len(offsets), len(counts)) < (1 if page.is_contiguous else math.prod(page.chunked)):
        raise ImageStackError(f"{name}: is damaged: strips or tiles are missing from its header")
    for offset, count in zip(offsets, counts, strict=False):
        if offset <= 0 or count <= 0:
            raise ImageStackError(f"{name}: has an empty strip or tile: sparse, or never written to its end")
        if offset + count > size:
            raise ImageStackError(f"{name}: is truncated: data up to byte {offset + count} in {size} bytes")


def _decode_tiff(
    file: ImageFile, pages: range, layout: Layout, window: Window | None = None
) -> Iterator[NDArray[Any]]:
    import tifffile

    if file.frame is not None and (image := file.frame.read(file.path, window)) is not None:
        yield image
        return
    with tifffile.TiffFile(file.path, _multifile=False) as tiff:
        for k in pages:
            page = tiff.pages.get(0 if file.directories is None else file.directories[k])
            if window is not None and (page.imagewidth, page.imagelength) != layout[:2]:
                window = None  # the whole image then says how it has changed
            if file.directories is None:
                image = _stored_rows(tiff, page, page.dataoffsets[0] + k * page.nbytes, window)
            else:
                _check_extent(file.page_name(k), page)
                if window is None:
                    image = page.asarray(maxworkers=1)  # the caller has the threads
                elif page.is_contiguous:
                    image = _stored_rows(tiff, page, page.dataoffsets[0], window)
                else:
                    image = _segments(tiff, page, window)
            yield np.moveaxis(image, 0, -1) if page.axes == "SYX" else image


def _stored_rows(tiff: Any, page: Any, start: int, window: Window | None) -> NDArray[Any]:
    """Return an image that is stored plainly, row by row: of a window only its rows are read."""
    dtype = page.dtype.newbyteorder(tiff.byteorder)
    if window is None or page.axes == "SYX":
        image: NDArray[Any] = tiff.filehandle.read_array(dtype, math.prod(page.shape), start)
        image = image.reshape(page.shape)
        return image if window is None else image[(slice(None), *window)]
    rows, columns = window
    row = page.shape[1:]
    start += rows.start * math.prod(row) * dtype.itemsize
    count = rows.stop - rows.start
    image = tiff.filehandle.read_array(dtype, count * math.prod(row), start)
    return image.reshape(count, *row)[:, columns]


def _segments(tiff: Any, page: Any, window: Window) -> NDArray[Any]:
    """Return a window of an image, decoding only the strips or tiles that it touches."""
    rows, columns = window
    height, width = (
        (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    )
    across, down = -(-page.imagewidth // width), -(-page.imagelength // height)
    decode, options = page.decode, {}  # made when it is first looked at, from tags that it reads in the file
    if page.compression in (6, 7, 33007, 34892):  # JPEG: what its strips share is stored once
        options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    planes, samples = (page.samplesperpixel, 1) if page.axes == "SYX" else (1, page.samplesperpixel)
    out = np.zeros((planes, rows.stop - rows.start, columns.stop - columns.start, samples), page.dtype)
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        plane, place = divmod(index, across * down)
        top, left = place // across * height, place % across * width
        low_y, high_y = max(rows.start, top), min(rows.stop, top + height, page.imagelength)
        low_x, high_x = max(columns.start, left), min(columns.stop, left + width, page.imagewidth)
        if low_y >= high_y or low_x >= high_x:
            continue
        tiff.filehandle.seek(offset)
        segment, _, _ = decode(tiff.filehandle.read(count), index, **options)
        out[
            plane, low_y - rows.start : high_y - rows.start, low_x - columns.start : high_x - columns.start
        ] = segment[0, low_y - top : high_y - top, low_x - left : high_x - left]
    if page.axes == "SYX":
        return out[..., 0]
    return out[0] if page.axes == "YXS" else out[0, ..., 0]
