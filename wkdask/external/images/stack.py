"""Image stacks: paths -> a frozen description of sections that are decoded when they are read.

An image's column is x, its row is y, its place in the stack is z. Values are taken as they are stored: no gamma or
colour profile is applied, MINISWHITE TIFFs are not inverted, and images are turned only where that is asked for.
Opening a stack reads headers only and refuses what does not fit, before anything is written; what is left out or
guessed is in its notes.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wkdask.errors import ImageStackError, InvalidValueError, OutOfBoundsError
from wkdask.external.images.file import decode as _decode
from wkdask.external.images.file import probe
from wkdask.external.images.info import Choice, ImageFile, Layout, describe, shown
from wkdask.external.images.numbering import Order, natural_key, put_in_order
from wkdask.external.images.ome_set import check_members, read_set
from wkdask.external.images.orientation import Window
from wkdask.external.images.paths import find_images, find_with_notes
from wkdask.external.images.tile_grid import join_tiles, sections_of_tiles
from wkdask.external.images.tile_names import TileNames, read_tile_names, refuse_tiles

__all__ = [
    "GAPS",
    "TILES",
    "ImageFile",
    "ImageStack",
    "find_images",
    "natural_key",
    "open_stack",
    "stack_in_order",
]

GAPS = ("close", "keep", "refuse")
"""What becomes of numbers that are missing in the names."""
TILES = ("refuse", "join", "sections")
"""What becomes of images that are tiles by their names."""
_HEADER_THREADS = 8  # opening files on a shared file system is mostly waiting


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
    """1 (grey), 3 (RGB), or as many as were put together."""
    order: str = field(default="", compare=False)
    """How many sections there are, the first and the last file, in words."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was left out, guessed or converted, in words."""

    @property
    def layout(self) -> Layout:
        """What every section holds."""
        return self.width, self.height, self.dtype, self.num_channels

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape as (c, x, y, z)."""
        return self.num_channels, self.width, self.height, self.depth

    @property
    def digest(self) -> str:
        """A short text that is the same for the same files, by their paths, in the same order."""
        text = "|".join(_identity(file) for file in self.sections)
        return hashlib.blake2b(os.fsencode(text), digest_size=8).hexdigest()

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
        part = replace(self, sections=tuple(files), depth=depth, order="", notes=())
        return part, z_start - skipped

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
        out = np.zeros((*self.shape[:3], z_stop - z_start), self.dtype, order="F")

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
        window: Window | None = None,
    ) -> None:
        """Decode the sections ``z_start`` to ``z_stop - 1``, each once, and hand them on as they come.

        Parameters
        ----------
        z_start, z_stop : int
            Half-open range, ``0 <= z_start <= z_stop <= depth``.
        put : callable
            Called with a section's number, from 0 for `z_start`, and its image (y, x) or (y, x, c); in `threads`.
            Not for sections whose files are missing.
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

        def work(run: tuple[int, ImageFile, range]) -> None:
            z, file, pages = run
            if file.format == "missing":
                return
            for k, image in enumerate(_decode(file, pages, self.layout, window), z - z_start):
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


def _identity(file: ImageFile) -> str:
    """Return what distinguishes a file, and what is taken of it, from others."""
    text = f"{file.path}:{file.pages}"
    if file.tiles:
        return ",".join(_identity(tile) for line in file.tiles for tile in line)
    if file.planes:
        return "+".join(map(_identity, file.planes))
    if file.samples:
        text += f":{list(file.samples)} of {file.stored_samples}"
    if file.directories == range(file.pages) and file.orientation == 1:
        return text
    return f"{text}:{list(file.directories)}:{file.orientation}"


def open_stack(
    inputs: Sequence[str | Path] | str | Path,
    *,
    gaps: str = "close",
    page: int | str | None = None,
    series: int | None = None,
    orient: bool = False,
    tiles: str = "refuse",
) -> ImageStack:
    """Describe files and folders as one stack, in the order of their names, reading image headers only.

    Parameters
    ----------
    inputs : sequence of str or Path
        What `find_images` takes. The pages of a TIFF, or the one stacking axis of its ImageJ, OME or tifffile
        metadata, are consecutive sections. Copies in it that are flagged as reduced are left out. The files of one
        OME-TIFF set are one stack, in the order that their metadata say.
    gaps : {"close", "keep", "refuse"}
        What becomes of numbers that are missing in the names: the sections after them move up, or empty sections
        stay in their place, or the stack is refused, as it is then if two names have the same number.
    page : int or str, optional
        Which pages of every file are taken, counted from 1: ``3``, ``"2-7"``, ``"2-"``, ``"1-9:2"``.
    series : int, optional
        Which group of alike pages of every file is taken, counted from 1.
    orient : bool, default False
        Turn images as their orientation tag (TIFF, Exif) says.
    tiles : {"refuse", "join", "sections"}
        What becomes of images that are tiles by their names: those of a section side by side are a section, or each
        is.

    Returns
    -------
    ImageStack
        Its files by their real paths, which workers in other folders see too.

    Raises
    ------
    ImageStackError
        Nothing was found; an image is damaged or not supported (1-bit TIFF, palette, alpha, CMYK, YCbCr, complex,
        several stacking axes, several series); or an image differs from the first in size, type or channels. Names
        the file.
    InvalidValueError
        If an argument cannot work.
    """
    choice = Choice.of(page, series, orient)
    found, notes = find_with_notes(inputs)
    return stack_in_order(put_in_order(found), choice, notes, gaps=gaps, tiles=tiles)


def _check_words(gaps: str, tiles: str) -> None:
    """Refuse words that are none of those there are."""
    for name, value, values in (("gaps", gaps, GAPS), ("tiles", tiles, TILES)):
        if value not in values:
            raise InvalidValueError(f"{name}={value!r}; expected one of {', '.join(values)}")


def stack_in_order(
    order: Order, choice: Choice, notes: Sequence[str] = (), *, gaps: str = "close", tiles: str = "sections"
) -> ImageStack:
    """Describe files in a given order as one stack, reading image headers only.

    Parameters
    ----------
    order
        The files.
    choice
        What is wanted of every file.
    notes
        What is to be notes of them so far.
    gaps
        As for `open_stack`.
    tiles
        As for `open_stack`; tiles that are joined are in the order of their names.

    Raises
    ------
    ImageStackError
        As for `open_stack`.
    """
    # Imported before the threads start, which would only queue for the import lock.
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin  # noqa: F401
    import tifffile  # noqa: F401

    _check_words(gaps, tiles)
    notes = list(notes)
    if tiles == "refuse":
        refuse_tiles(order.paths)
    elif tiles == "join" and (names := read_tile_names(order.paths)) is not None:
        return _open_tiles(order.paths, names, gaps, choice, notes)
    paths = [os.path.realpath(path) for path in order.paths]
    first = probe(
        paths[0], choice=choice
    )  # most stacks are alike around their pixels: this one is parsed for all
    with ThreadPoolExecutor(min(_HEADER_THREADS, len(paths)), "wkdask-headers") as pool:
        probed = partial(probe, like=first, choice=choice)
        files, layouts = zip(first, *pool.map(probed, paths[1:]), strict=True)
    if any(file.format == "set" for file in files):
        member = next(file for file in files if file.format == "set")
        members, layout, more = read_set(member.path, choice)
        files = tuple(members)
        notes += [*check_members(paths, files), *more]
    else:
        layout = _common_layout(files, layouts)
        files, more = _numbered(files, order, gaps)
        notes += more
    depth = sum(file.pages for file in files)
    return _stack(files, layout, f"{depth} section(s) of {order.text}", notes)


def _open_tiles(
    paths: Sequence[str], names: TileNames, gaps: str, choice: Choice, notes: Sequence[str]
) -> ImageStack:
    """Describe tiles as one stack."""
    order, grids = sections_of_tiles(paths, names)
    like = probe(os.path.realpath(min(grids[0].items())[1]), choice=choice)
    with ThreadPoolExecutor(min(_HEADER_THREADS, len(grids)), "wkdask-headers") as pool:
        joined = partial(join_tiles, probe=partial(probe, like=like, choice=choice))
        files, layouts = zip(*pool.map(joined, grids), strict=True)
    layout = _common_layout(files, layouts)
    rows, columns = len(files[0].tiles), len(files[0].tiles[0])
    numbered, more = _numbered(files, order, gaps)
    text = f"{len(files)} section(s) of {rows} x {columns} tiles (rows x columns), {names.pattern}"
    side_by_side = f"tiles are put side by side, {rows} x {columns} in each section, without overlap"
    return _stack(numbered, layout, text, [*notes, side_by_side, *more])


def _numbered(files: Sequence[ImageFile], order: Order, gaps: str) -> tuple[tuple[ImageFile, ...], list[str]]:
    """Return files with empty sections where those are wanted, and notes on their numbers."""
    notes = [*order.notes, *_numbering_notes(order, gaps)]
    return (_with_missing(files, order) if gaps == "keep" else tuple(files)), notes


def _stack(files: Sequence[ImageFile], layout: Layout, order: str, notes: Sequence[str]) -> ImageStack:
    """Return a stack of checked files."""
    width, height, dtype, channels = layout
    return ImageStack(
        tuple(_without_notes(file) for file in files),
        width,
        height,
        sum(file.pages for file in files),
        dtype,
        channels,
        order=order,
        notes=(*notes, *_file_notes(files)),
    )


def _without_notes(file: ImageFile) -> ImageFile:
    """Return a file as tasks need it."""
    tiles = tuple(tuple(replace(tile, notes=()) for tile in line) for line in file.tiles)
    return replace(file, tiles=tiles, notes=())


def _common_layout(files: Sequence[ImageFile], layouts: Sequence[Layout]) -> Layout:
    """Return what all images of a stack hold; grey of few bits is taken for the wider grey of the others."""
    whole = next((k for k, file in enumerate(files) if not file.widens), 0)
    wanted = layouts[whole]
    for file, layout in zip(files, layouts, strict=True):
        same = (*layout[:2], layout[3]) == (*wanted[:2], wanted[3])
        if layout != wanted and not (file.widens and same and wanted[2] == "uint16"):
            raise ImageStackError(
                f"{shown(file.path)}: has {describe(layout)}, but the first image, {shown(files[whole].path)}, has "
                f"{describe(wanted)}; all images of a stack must agree"
            )
    return wanted


def _numbering_notes(order: Order, gaps: str) -> list[str]:
    """Report numbers that are missing or double, or refuse them."""
    texts = [text for text in (order.gaps_text, order.doubles_text) if text]
    if texts and gaps == "refuse":
        raise ImageStackError(f'{"; ".join(texts)}; gaps="refuse" was asked for')
    notes = []
    if order.gaps_text:
        ways = {
            "close": 'the sections after move up; gaps="keep" (--gaps keep) leaves empty sections there, '
            'gaps="refuse" stops',
            "keep": "empty sections stay in their place",
        }
        notes.append(f"{order.gaps_text}; {ways[gaps]}")
    if order.doubles_text:
        notes.append(f"{order.doubles_text}; each is taken as a section")
    return notes


def _with_missing(files: Sequence[ImageFile], order: Order) -> tuple[ImageFile, ...]:
    """Put empty sections where numbers are missing."""
    if order.gaps and (more := next((file for file in files if file.pages != 1), None)):
        raise ImageStackError(
            f'{more.page_name(0)}: gaps="keep" does not know how many sections a file that is missing would hold; '
            "it is for files of one section"
        )
    if order.doubles:
        raise ImageStackError(f'{order.doubles_text}; gaps="keep" wants one file for each')
    counts = {gap.place: gap.count for gap in order.gaps}
    filled = []
    for place, file in enumerate(files):
        if place in counts:
            filled.append(ImageFile("", "missing", counts[place], range(counts[place])))
        filled.append(file)
    return tuple(filled)


def _file_notes(files: Sequence[ImageFile]) -> list[str]:
    """Report once what is the same for many files."""
    notes: dict[str, list[str]] = {}
    for file in files:
        for text in file.notes:
            notes.setdefault(text, []).append(shown(file.path))
    return [
        f"{paths[0]}: {text}" if len(paths) == 1 else f"{len(paths)} files, the first is {paths[0]}: {text}"
        for text, paths in notes.items()
    ]
