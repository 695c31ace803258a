"""One image file: its header -> what it holds, and its pages -> pixels; TIFF, PNG and JPEG.

What a decoder would pass over in silence (a missing strip, a cut JPEG, a broken chain of pages, alpha, a second
image) is refused by name, or noted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wkdask.errors import ImageStackError
from wkdask.external.images.info import Choice, ImageFile, Layout, describe, shown
from wkdask.external.images.orientation import Window, stored_window, swaps_axes, turned
from wkdask.external.images.png_file import decode_png, exif_orientation, probe_png
from wkdask.external.images.tiff_file import orientation_note, probe_tiff
from wkdask.external.images.tiff_log import collected_log
from wkdask.external.images.tiff_pixels import decode_tiff

__all__ = ["Choice", "ImageFile", "Layout", "Window", "decode", "decoded_nbytes", "describe", "probe"]

# Content decides the format, not the suffix: what a link points to may have none.
_MAGIC = {b"II*": "tiff", b"II+": "tiff", b"MM\0": "tiff", b"\x89PN": "png", b"\xff\xd8\xff": "jpeg"}
_JPEG_SAMPLES = {"L": 1, "RGB": 3}
_IMAGES_OF_SET = 0xB001
"""The tag of a multi-picture file that counts its images."""


def probe(
    path: str, like: tuple[ImageFile, Layout] | None = None, choice: Choice | None = None
) -> tuple[ImageFile, Layout]:
    """Read one file's header: the file with its number of pages, and what each page holds.

    Parameters
    ----------
    path
        The file.
    like
        What was returned for another file, with the same choice. One with the same frame holds the same, and is not
        parsed; one with another gets none: they would be as many as files.
    choice
        What is wanted of a file of several images; all of its one stack by default.

    Raises
    ------
    ImageStackError
        If the file is damaged or not supported; names it.
    """
    choice = choice or Choice()
    try:
        if like is not None and like[0].frame is not None and like[0].frame.surrounds(path):
            return replace(like[0], path=path), like[1]
        with open(path, "rb") as stream:
            magic = stream.read(3)
        kind = _MAGIC.get(magic)
        if kind is None:
            raise ImageStackError(f"{shown(path)}: is neither TIFF, PNG nor JPEG; it starts with {magic!r}")
        if kind == "tiff":
            with collected_log() as messages:
                file, layout = probe_tiff(path, choice, framed=like is None)
            logged = tuple(f"tifffile says: {text}" for text in messages)
            file = replace(file, notes=(*file.notes, *logged))
        else:
            file, layout = _probe_image(path, kind, choice)
        if swaps_axes(file.orientation):
            layout = (layout[1], layout[0], *layout[2:])
        return file, layout
    except (ImageStackError, MemoryError):
        raise
    except Exception as error:  # parsers raise whatever they stumble over
        raise ImageStackError(
            f"{shown(path)}: cannot read the header: {type(error).__name__}: {error}"
        ) from error


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
        Rows, columns, channels; in C order, but for images that are turned.

    Raises
    ------
    ImageStackError
        If a page cannot be decoded, or holds something else; names file and page.
    """
    width, height, dtype, channels = layout
    if file.format == "planes":
        parts = [decode(plane, pages, (*layout[:3], 1), window) for plane in file.planes]
        for images in zip(*parts, strict=True):
            yield np.stack(images, axis=-1)
        return
    if file.samples:
        for image in decode(_whole(file), pages, (*layout[:3], file.stored_samples), window):
            yield image[..., file.samples[0]] if len(file.samples) == 1 else image[..., list(file.samples)]
        return
    if file.format == "tiles":
        yield _joined(file, layout, window or (slice(0, height), slice(0, width)))
        return
    if window is not None:
        window = stored_window(window, height, width, file.orientation)
    if swaps_axes(file.orientation):
        width, height = height, width
    expected: tuple[int, ...] = (height, width, channels)[: 2 if channels == 1 else 3]
    if file.format == "tiff":
        images = decode_tiff(file, pages, (width, height, dtype, channels), window)
    else:
        images = _decode_image(file, dtype)
    for page in pages:
        try:
            image = next(images)
        except (ImageStackError, MemoryError):
            raise
        except Exception as error:
            raise ImageStackError(
                f"{file.page_name(page)}: cannot decode the image: {type(error).__name__}: {error}"
            ) from error
        if window is not None and image.shape[:2] == (height, width):
            image = image[window]
        if window is not None:
            rows, columns = window
            expected = (rows.stop - rows.start, columns.stop - columns.start, *expected[2:])
        if image.shape != expected or image.dtype.name != dtype:
            raise ImageStackError(
                f"{file.page_name(page)}: changed since the stack was opened: holds {image.dtype.name} of "
                f"shape {image.shape} (rows, columns, channels), expected {dtype} of shape {expected}"
            )
        yield turned(image, file.orientation)


def decoded_nbytes(file: ImageFile, layout: Layout, window: Window | None) -> int:
    """Return how many bytes a file's decoder holds at once for one section, without what it reads.

    Parameters
    ----------
    file
        The file.
    layout
        What its sections hold.
    window
        The rows and columns that are wanted; None: all.
    """
    width, height, dtype, channels = layout
    if file.format == "planes":
        whole = math.prod((width, height) if window is None else (side.stop - side.start for side in window))
        planes = sum(decoded_nbytes(plane, (*layout[:3], 1), window) for plane in file.planes)
        return int(whole) * np.dtype(dtype).itemsize * channels + planes
    if file.samples:
        return decoded_nbytes(_whole(file), (*layout[:3], file.stored_samples), window)
    if file.format == "tiles":
        tile = max(b - a for a, b in pairwise(file.edges[0])), max(b - a for a, b in pairwise(file.edges[1]))
        sides = (width, height) if window is None else (side.stop - side.start for side in window)
        return int(math.prod(sides) + math.prod(tile)) * np.dtype(dtype).itemsize * channels
    voxel = np.dtype(dtype).itemsize * channels
    if window is None or file.piece is None:
        return width * height * voxel
    window = stored_window(window, height, width, file.orientation)
    rows, columns = (side.stop - side.start for side in window)
    if swaps_axes(file.orientation):
        width, height = height, width
    if file.piece == (1, width):  # stored plainly: its rows are read as a whole
        return int(rows * width * voxel)
    return int(rows * columns + min(file.piece[0], height) * file.piece[1]) * voxel


def _whole(file: ImageFile) -> ImageFile:
    """Return a file with all of its samples taken."""
    return replace(file, samples=(), stored_samples=0)


def _joined(file: ImageFile, layout: Layout, window: Window) -> NDArray[Any]:
    """Decode a window of a section of tiles."""
    rows, columns = window
    out = np.empty(
        (rows.stop - rows.start, columns.stop - columns.start, layout[3])[: 2 if layout[3] == 1 else 3],
        layout[2],
    )
    for line, (top, bottom) in zip(file.tiles, pairwise(file.edges[0]), strict=True):
        for tile, (left, right) in zip(line, pairwise(file.edges[1]), strict=True):
            low_y, high_y = max(rows.start, top), min(rows.stop, bottom)
            low_x, high_x = max(columns.start, left), min(columns.stop, right)
            if low_y >= high_y or low_x >= high_x:
                continue
            own = (right - left, bottom - top, *layout[2:])
            part = (slice(low_y - top, high_y - top), slice(low_x - left, high_x - left))
            whole = (high_y - low_y, high_x - low_x) == (bottom - top, right - left)
            image = next(decode(tile, range(1), own, None if whole else part))
            out[low_y - rows.start : high_y - rows.start, low_x - columns.start : high_x - columns.start] = (
                image
            )
    return out


def _probe_image(path: str, kind: str, choice: Choice) -> tuple[ImageFile, Layout]:
    """Read the header of a PNG or JPEG."""
    if choice.pages not in (None, (1, 1, 1)) or choice.series not in (None, 1):
        raise ImageStackError(f"{shown(path)}: of PNG and JPEG files only page 1 can be chosen")
    page = None if choice.pages is None else 1
    if kind == "png":
        layout, images, widens, orientation = probe_png(path, page, alpha=choice.alpha)
    else:
        layout, images, orientation = _probe_jpeg(path, page)
        widens = False
    notes = [] if choice.orient or orientation == 1 else [orientation_note(orientation)]
    if images > 1:
        notes.append(f"of its {images} images the first is taken")
    if widens:
        notes.append(
            "its grey values of few bits, or of a palette, are taken as 8 bits, from 0 (black) to 255"
        )
    turn = orientation if choice.orient else 1
    file = ImageFile(path, kind, orientation=turn, widens=widens, notes=tuple(notes))
    return file, layout


def _probe_jpeg(path: str, page: int | None) -> tuple[Layout, int, int]:
    """Return the layout of a JPEG, its number of images, and its orientation."""
    from PIL.JpegImagePlugin import JpegImageFile

    # The class, not Image.open: its limit on pixels is global, and large sections exceed it.
    with open(path, "rb") as stream, JpegImageFile(stream) as image:
        images = _images_of_set(image)
        if images > 1 and page is None:
            raise ImageStackError(
                f"{shown(path)}: holds {images} images (MPO); only its first can be taken: choose page=1 (--page 1)"
            )
        channels = _JPEG_SAMPLES.get(image.mode)
        if channels is None:
            raise ImageStackError(
                f"{shown(path)}: holds {image.mode} samples; expected 8 bits of grey or RGB"
            )
        return (*image.size, "uint8", channels), images, exif_orientation(image.info.get("exif"))


def _images_of_set(image: Any) -> int:
    """Return how many images a JPEG holds; 1 where its index of them cannot be read."""
    try:
        index: dict[int, Any] = image._getmp() or {_IMAGES_OF_SET: 1}
        return int(index[_IMAGES_OF_SET])
    except (SyntaxError, TypeError, KeyError, IndexError):  # what pillow raises, and passes over itself
        return 1


def _decode_image(file: ImageFile, dtype: str) -> Iterator[NDArray[Any]]:
    """Decode a PNG or JPEG."""
    if file.format == "png":
        yield decode_png(file.path, dtype)
    else:
        from PIL.JpegImagePlugin import JpegImageFile  # refuses cut files, which imagecodecs fills with grey

        with open(file.path, "rb") as stream, JpegImageFile(stream) as image:
            yield np.asarray(image)
