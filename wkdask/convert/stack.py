"""Image stacks: paths -> a frozen description of sections that are decoded when they are read.

An image's column is x, its row is y, its place in the stack is z. Values are taken as they are stored: no
orientation tag, gamma or colour profile is applied, and MINISWHITE TIFFs are not inverted.
Opening a stack reads headers only and refuses what does not fit, before anything is written.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wkdask.convert.image_file import ImageFile, describe, probe
from wkdask.convert.image_file import decode as _decode
from wkdask.errors import ImageStackError, InvalidValueError, OutOfBoundsError

__all__ = ["ImageFile", "ImageStack", "find_images", "natural_key", "open_stack"]

_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
_HEADER_THREADS = 8  # opening files on a shared file system is mostly waiting


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

    @property
    def digest(self) -> str:
        """A short text that is the same for the same files, by their paths, in the same order."""
        text = "|".join(f"{file.path}:{file.pages}" for file in self.sections)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def section_name(self, z: int) -> str:
        """File of section z for messages, its page counted from 1: ``/data/s.tif, page 12 of 20``."""
        if not 0 <= z < self.depth:
            raise OutOfBoundsError(f"section {z} is not in the stack; expected 0 to {self.depth - 1}")
        _, file, pages = next(self._runs(z, z + 1, 1))
        return file.page_name(pages[0])

    def subset(self, z_start: int, z_stop: int) -> tuple[ImageStack, int]:
        """Only the files that hold the sections ``z_start`` to ``z_stop - 1``: what a task has to carry.

        Returns
        -------
        ImageStack
            Those files, each with all its pages.
        int
            Number of section `z_start` in it.
        """
        self._check_range(z_start, z_stop)
        files, first, skipped = [], 0, 0
        for file in self.sections:
            if first + file.pages <= z_start:
                skipped += file.pages
            elif first < z_stop:
                files.append(file)
            first += file.pages
        depth = sum(file.pages for file in files)
        return replace(self, sections=tuple(files), depth=depth), z_start - skipped

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
        self._check_range(z_start, z_stop)
        out = np.empty((*self.shape[:3], z_stop - z_start), self.dtype, order="F")

        def put(number: int, image: NDArray[Any]) -> None:
            # (y, x[, c]) in C order is (c, x, y) in Fortran order, so its transpose is a plain copy.
            out[..., number] = image.T

        self.each(z_start, z_stop, put, threads=threads)
        return out

    def each(
        self,
        z_start: int,
        z_stop: int,
        put: Callable[[int, NDArray[Any]], None],
        *,
        threads: int = 1,
        window: tuple[slice, slice] | None = None,
    ) -> None:
        """Decode the sections ``z_start`` to ``z_stop - 1``, each once, and hand them on as they come.

        Parameters
        ----------
        z_start, z_stop : int
            Half-open range, ``0 <= z_start <= z_stop <= depth``.
        put : callable
            Called with a section's number, from 0 for `z_start`, and its image (y, x) or (y, x, c); in `threads`.
        threads : int, default 1
            How many images are decoded at a time.
        window : tuple of slice, optional
            The rows and columns that are wanted. Of a TIFF only their strips and tiles are decoded.

        Raises
        ------
        ImageStackError, OutOfBoundsError
            As for `read`.
        """
        self._check_range(z_start, z_stop)
        if threads < 1:
            raise InvalidValueError(f"threads={threads}; expected 1 or more")
        layout = (self.width, self.height, self.dtype, self.num_channels)

        def work(run: tuple[int, ImageFile, range]) -> None:
            z, file, pages = run
            for k, image in enumerate(_decode(file, pages, layout, window), z - z_start):
                put(k, image)

        # No run longer than a thread's share, or one multi-page file would keep a single thread busy.
        runs = self._runs(z_start, z_stop, max(1, math.ceil((z_stop - z_start) / threads)))
        if threads == 1:
            for run in runs:
                work(run)
        else:
            with ThreadPoolExecutor(threads, "wkdask-images") as pool:
                list(pool.map(work, runs))

    def _check_range(self, z_start: int, z_stop: int) -> None:
        if not 0 <= z_start <= z_stop <= self.depth:
            raise OutOfBoundsError(
                f"sections {z_start} to {z_stop} leave the stack; expected 0 <= start <= stop <= {self.depth}"
            )

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
    first = probe(paths[0])  # most stacks are alike around their pixels: this one is parsed for all
    with ThreadPoolExecutor(min(_HEADER_THREADS, len(paths)), "wkdask-headers") as pool:
        files, layouts = zip(first, *pool.map(partial(probe, like=first), paths[1:]), strict=True)
    for file, layout in zip(files, layouts, strict=True):
        if layout != layouts[0]:
            raise ImageStackError(
                f"{file.path}: has {describe(layout)}, but the first image, {files[0].path}, has "
                f"{describe(layouts[0])}; all images of a stack must agree"
            )
    width, height, dtype, channels = layouts[0]
    return ImageStack(files, width, height, sum(file.pages for file in files), dtype, channels)
