"""Pages of a TIFF -> pixels: whole, or a window, of which only the strips and tiles that it touches are decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wkdask.errors import ImageStackError
from wkdask.external.images.info import ImageFile, Layout, shown
from wkdask.external.images.orientation import Window
from wkdask.external.images.tiff_log import handle_log

__all__ = ["check_extent", "decode_tiff", "piece_of"]

_JPEG = (7, 33007)
"""Compressions of which every strip or tile is a JPEG with an end."""
_JPEG_END = b"\xff\xd9"
_TAIL = 64
"""The end may be followed by so many bytes of padding."""


def check_extent(name: str, page: Any) -> None:
    """Refuse a page whose strips or tiles are not all there: tifffile would fill them with zeros.

    Parameters
    ----------
    name
        File and page, for the message.
    page
        The page, as tifffile has parsed it.

    Raises
    ------
    ImageStackError
        If something is missing.
    """
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


def piece_of(page: Any) -> tuple[int, int] | None:
    """Return the rows and columns that are decoded at once for a window of a page; None if all of them."""
    if page.is_contiguous:
        return (1, page.imagewidth) if page.is_final and page.axes != "SYX" else None
    return (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)


def decode_tiff(
    file: ImageFile, pages: range, layout: Layout, window: Window | None = None
) -> Iterator[NDArray[Any]]:
    """Decode pages of a TIFF, as they are stored.

    Parameters
    ----------
    file
        The file.
    pages
        Which of its sections, counted from 0.
    layout
        What each must hold, as stored.
    window
        Only these rows and columns; all by default, and of a page that holds something else.

    Yields
    ------
    numpy.ndarray
        (rows, columns) or (rows, columns, channels).
    """
    import tifffile

    if file.frame is not None and (image := file.frame.read(file.path, window)) is not None:
        yield image
        return
    handle_log()
    with tifffile.TiffFile(file.path, _multifile=False) as tiff:
        for k in pages:
            page = tiff.pages.get(0 if file.together else file.directories[k])
            # The whole of an image that has changed says how.
            cut = window if (page.imagewidth, page.imagelength) == layout[:2] else None
            if file.together:
                image = _stored_rows(tiff, page, page.dataoffsets[0] + file.directories[k] * page.nbytes, cut)
            else:
                check_extent(file.page_name(k), page)
                if cut is None:
                    _check_jpeg_ends(file.page_name(k), page)
                    image = page.asarray(maxworkers=1)  # the caller has the threads
                elif page.is_final:
                    image = _stored_rows(tiff, page, page.dataoffsets[0], cut)
                elif page.is_contiguous:  # of reversed bits, or differences: tifffile reads it whole
                    image = page.asarray(maxworkers=1)[(..., *cut) if page.axes == "SYX" else cut]
                else:
                    image = _segments(file.page_name(k), tiff, page, cut)
            yield np.moveaxis(image, 0, -1) if page.axes == "SYX" else image


def _stored_rows(tiff: Any, page: Any, start: int, window: Window | None) -> NDArray[Any]:
    """Return an image that is stored plainly, row by row: of a window only its rows are read."""
    if not page.is_final:
        raise ImageStackError(f"{shown(tiff.filehandle.path)}: changed since the stack was opened")
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


def _check_jpeg_ends(name: str, page: Any) -> None:
    """Refuse strips and tiles whose JPEG is cut off: its decoder would fill them with grey."""
    if page.compression not in _JPEG:
        return
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset + max(0, count - _TAIL))
        _check_jpeg_end(name, file.read(min(count, _TAIL)))


def _check_jpeg_end(name: str, data: bytes) -> None:
    """Refuse a JPEG without its end."""
    if _JPEG_END not in data[-_TAIL:]:
        raise ImageStackError(f"{name}: a strip or tile is cut off: its JPEG has no end")


def _segments(name: str, tiff: Any, page: Any, window: Window) -> NDArray[Any]:
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
        data = tiff.filehandle.read(count)
        if page.compression in _JPEG:
            _check_jpeg_end(name, data)
        segment, _, _ = decode(data, index, **options)
        out[
            plane, low_y - rows.start : high_y - rows.start, low_x - columns.start : high_x - columns.start
        ] = segment[0, low_y - top : high_y - top, low_x - left : high_x - left]
    if page.axes == "SYX":
        return out[..., 0]
    return out[0] if page.axes == "YXS" else out[0, ..., 0]
