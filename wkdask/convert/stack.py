"""Image stacks: paths -> a frozen description of sections that are decoded when they are read.

An image's column is x, its row is y, its place in the stack is z. Values are taken as they are stored: no
orientation tag, gamma or colour profile is applied, and MINISWHITE TIFFs are not inverted.
Opening a stack reads headers only and refuses what does not fit, before anything is written.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wkdask.errors import ImageStackError, InvalidValueError, OutOfBoundsError

__all__ = ["ImageFile", "ImageStack", "find_images", "natural_key", "open_stack"]

_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
_DTYPES = {f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)} | {"float32", "float64"}
_HEADER_THREADS = 8  # opening files on a shared file system is mostly waiting
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

_Layout = tuple[int, int, str, int]  # width, height, dtype, channels


def natural_key(path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Sort key that puts ``2.tif`` before ``10.tif``, folder by folder.

    Digits compare as numbers of any length, text without case, the suffix last (``a.tif`` before ``a1.tif``).
    Paths that are equal by that (``01`` and ``1``) compare as plain text.
    """
    pure = PurePath(path)

    def chunks(text: str) -> tuple[tuple[int, int, str], ...]:
        # (length, digits) orders numbers of any length; int() refuses very long ones.
        return tuple(
            (0, len(digits.lstrip("0")), digits.lstrip("0")) if digits else (1, 0, other.casefold())
            for digits, other in re.findall(r"([0-9]+)|([^0-9]+)", text)
        )

    return tuple(map(chunks, (*pure.parent.parts, pure.stem))), pure.suffix.casefold(), str(pure)


def find_images(inputs: Sequence[str | Path]) -> list[str]:
    """Collect image files in natural order.

    Parameters
    ----------
    inputs : sequence of str or Path
        Files, and folders that are searched at any depth (linked folders too, each once).
        Hidden files and folders inside them, and files with other suffixes, are skipped.

    Returns
    -------
    list of str
        Absolute paths without duplicates, all inputs together in the order of `natural_key`: the order that a
        shell gives to ``*.tif`` is not the order of the sections. Links are sorted by name.

    Raises
    ------
    ImageStackError
        A path is missing or no image by its suffix, nothing was found, or two images differ only in suffix.
    """
    paths: set[str] = set()
    for item in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        path = os.path.abspath(item)
        found = list(_walk(path)) if os.path.isdir(path) else [path]
        if not found:
            raise ImageStackError(f"{path}: no images in this folder; looked for {', '.join(_SUFFIXES)}")
        if not os.path.lexists(path):
            raise ImageStackError(f"{path}: no such file or folder; give image files or folders of images")
        if not found[0].lower().endswith(_SUFFIXES):
            raise ImageStackError(f"{path}: not a supported image; expected {', '.join(_SUFFIXES)}")
        paths.update(found)
    if not paths:
        raise ImageStackError("no images: the list of inputs is empty; give image files or folders of images")
    stems: dict[str, str] = {}
    for path in (ordered := sorted(paths, key=natural_key)):
        if (twin := stems.setdefault(os.path.splitext(path)[0], path)) != path:
            raise ImageStackError(
                f"{path}: {twin} has the same name but for the suffix, so its section would come twice; "
                "give the files of one format only"
            )
    return ordered


def _walk(folder: str) -> Iterator[str]:
    """Image files below a folder; a folder that cannot be listed is an error, not an empty one."""

    def refuse(error: OSError) -> None:
        raise ImageStackError(f"{error.filename}: cannot list this folder: {error.strerror}") from error

    start, seen = os.path.realpath(folder), set[str]()
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in seen or start.startswith(os.path.join(real, "")):  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and name.lower().endswith(_SUFFIXES):
                yield os.path.join(root, name)


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

    def page_name(self, page: int) -> str:
        """Path, and where there are several pages which one, counted from 1."""
        return self.path if self.pages == 1 else f"{self.path}, page {page + 1} of {self.pages}"


@dataclass(frozen=True, slots=True)
class ImageStack:
    """A stack of equal 2-D images, made by `open_stack`; holds no pixels and no open files."""

    sections: tuple[ImageFile, ...]
    """The files in the order of z, each with its number of pages."""
    width: int
    """Extent in x, voxels."""
    height: int
    """Extent in y, voxels."""
    depth: int
    """Extent in z: number of sections."""
    dtype: str
    """Name of the data type, in native byte order."""
    num_channels: int
    """1 (grey) or 3 (RGB)."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape as (c, x, y, z)."""
        return self.num_channels, self.width, self.height, self.depth

    def section_name(self, z: int) -> str:
        """File of section z for messages, its page counted from 1: ``/data/s.tif, page 12 of 20``."""
        if not 0 <= z < self.depth:
            raise OutOfBoundsError(f"section {z} is not in the stack; expected 0 to {self.depth - 1}")
        _, file, pages = next(self._runs(z, z + 1, 1))
        return file.page_name(pages[0])

    def read(self, z_start: int, z_stop: int, *, threads: int = 1) -> NDArray[Any]:
        """Decode the sections ``z_start`` to ``z_stop - 1``, each once.

        Parameters
        ----------
        z_start, z_stop : int
            Half-open range, ``0 <= z_start <= z_stop <= depth``.
        threads : int, default 1
            How many images are decoded at a time.

        Returns
        -------
        numpy.ndarray
            Shape (c, x, y, z), Fortran order, native byte order.

        Raises
        ------
        ImageStackError
            An image cannot be decoded, or is not what it was when the stack was opened; names file and page.
        OutOfBoundsError
            The range leaves the stack.
        """
        if not 0 <= z_start <= z_stop <= self.depth:
            raise OutOfBoundsError(
                f"sections {z_start} to {z_stop} leave the stack; expected 0 <= start <= stop <= {self.depth}"
            )
        if threads < 1:
            raise InvalidValueError(f"threads={threads}; expected 1 or more")
        out = np.empty((*self.shape[:3], z_stop - z_start), self.dtype, order="F")

        def fill(run: tuple[int, ImageFile, range]) -> None:
            z, file, pages = run
            for k, image in enumerate(_decode(file, pages, self), z - z_start):
                # (y, x[, c]) in C order is (c, x, y) in Fortran order, so its transpose is a plain copy.
                out[..., k] = image.T

        # No run longer than a thread's share, or one multi-page file would keep a single thread busy.
        runs = self._runs(z_start, z_stop, max(1, math.ceil((z_stop - z_start) / threads)))
        if threads == 1:
            for run in runs:
                fill(run)
        else:
            with ThreadPoolExecutor(threads, "wkdask-images") as pool:
                list(pool.map(fill, runs))
        return out

    def _runs(self, z_start: int, z_stop: int, longest: int) -> Iterator[tuple[int, ImageFile, range]]:
        """Sections as (z, file, its pages), so that a file is opened once for many pages."""
        first = 0
        for file in self.sections:
            stop = min(first + file.pages, z_stop)
            for z in range(max(first, z_start), stop, longest):
                yield z, file, range(z - first, min(z + longest, stop) - first)
            first += file.pages


def open_stack(inputs: Sequence[str | Path]) -> ImageStack:
    """Describe files and folders as one stack, in natural order, reading image headers only.

    Parameters
    ----------
    inputs : sequence of str or Path
        What `find_images` takes. The pages of a TIFF, or the one stacking axis of its ImageJ, OME or tifffile
        metadata, are consecutive sections. Small copies in it (flagged as reduced, or at most half as wide
        and high: thumbnails, pyramids) are left out.

    Returns
    -------
    ImageStack
        Its files by their real paths, which workers in other folders see too.

    Raises
    ------
    ImageStackError
        Nothing was found; an image is damaged or not supported (1-bit, palette, alpha, CMYK, complex, several
        stacking axes); or an image differs from the first in size, type or channels. Names the file.
    """
    # Imported before the threads start, which would only queue for the import lock.
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin  # noqa: F401
    import tifffile  # noqa: F401

    paths = [os.path.realpath(path) for path in find_images(inputs)]
    with ThreadPoolExecutor(min(_HEADER_THREADS, len(paths)), "wkdask-headers") as pool:
        files, layouts = zip(*pool.map(_probe, paths), strict=True)
    for file, layout in zip(files, layouts, strict=True):
        if layout != layouts[0]:
            raise ImageStackError(
                f"{file.path}: has {_describe(layout)}, but the first image, {files[0].path}, has "
                f"{_describe(layouts[0])}; all images of a stack must agree"
            )
    width, height, dtype, channels = layouts[0]
    return ImageStack(files, width, height, sum(file.pages for file in files), dtype, channels)


def _describe(layout: _Layout) -> str:
    return f"{layout[0]} x {layout[1]} pixels (width x height) of {layout[2]} in {layout[3]} channel(s)"


def _probe(path: str) -> tuple[ImageFile, _Layout]:
    """Read one file's header."""
    try:
        with open(path, "rb") as stream:
            magic = stream.read(3)
        kind = _MAGIC.get(magic)
        if kind is None:
            raise ImageStackError(f"{path}: is neither TIFF, PNG nor JPEG; it starts with {magic!r}")
        return _probe_tiff(path) if kind == "tiff" else (ImageFile(path, kind), _probe_image(path, kind))
    except (ImageStackError, MemoryError):
        raise
    except Exception as error:  # parsers raise whatever they stumble over
        raise ImageStackError(f"{path}: cannot read the header: {type(error).__name__}: {error}") from error


def _decode(file: ImageFile, pages: range, stack: ImageStack) -> Iterator[NDArray[Any]]:
    """Decode pages of one file as (y, x) or (y, x, c)."""
    expected = (stack.height, stack.width, 3)[: 2 if stack.num_channels == 1 else 3]
    images = _decode_tiff(file, pages) if file.format == "tiff" else _decode_image(file)
    for page in pages:
        try:
            image = next(images)
        except (ImageStackError, MemoryError):
            raise
        except Exception as error:
            raise ImageStackError(
                f"{file.page_name(page)}: cannot decode the image: {type(error).__name__}: {error}"
            ) from error
        if image.shape != expected or image.dtype.name != stack.dtype:
            raise ImageStackError(
                f"{file.page_name(page)}: changed since the stack was opened: holds {image.dtype.name} of "
                f"shape {image.shape} (rows, columns, channels), expected {stack.dtype} of shape {expected}"
            )
        yield image


def _probe_image(path: str, kind: str) -> _Layout:
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


def _probe_tiff(path: str) -> tuple[ImageFile, _Layout]:
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
                        f"{name}: has {_describe(other)}, the pages before {_describe(layout)}"
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
        return ImageFile(
            path, "tiff", depth, range(depth) if order == list(range(depth)) else tuple(order)
        ), layout


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


def _page_layout(name: str, page: Any) -> _Layout:
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


def _decode_tiff(file: ImageFile, pages: range) -> Iterator[NDArray[Any]]:
    import tifffile

    with tifffile.TiffFile(file.path, _multifile=False) as tiff:
        for k in pages:
            page = tiff.pages.get(0 if file.directories is None else file.directories[k])
            if file.directories is None:
                dtype = page.dtype.newbyteorder(tiff.byteorder)
                start = page.dataoffsets[0] + k * page.nbytes
                image = tiff.filehandle.read_array(dtype, math.prod(page.shape), start).reshape(page.shape)
            else:
                _check_extent(file.page_name(k), page)
                image = page.asarray(maxworkers=1)  # read() has the threads
            yield np.moveaxis(image, 0, -1) if page.axes == "SYX" else image
