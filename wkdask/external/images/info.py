"""What is known of an image file before its pixels are read, and what of it is wanted."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from wkdask.errors import ImageStackError, InvalidValueError
from wkdask.external.images.plain_tiff import Frame

__all__ = ["AxisPosition", "Choice", "ImageFile", "Layout", "describe", "layout_text", "shown"]

Layout: TypeAlias = tuple[int, int, str, int]
"""Width and height in pixels, name of the data type, channels."""


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as text for messages: bytes of a name that are not UTF-8 by their numbers."""
    return os.fsencode(path).decode(errors="backslashreplace")


def layout_text(layout: Layout) -> str:
    """Return a layout in few words."""
    samples = {1: "", 3: " RGB"}.get(layout[3], f" in {layout[3]} channels")
    return f"{layout[0]} x {layout[1]} {layout[2]}{samples}"


def describe(layout: Layout) -> str:
    """Return a layout in words."""
    return f"{layout[0]} x {layout[1]} pixels (width x height) of {layout[2]} in {layout[3]} channel(s)"


@dataclass(frozen=True, slots=True)
class AxisPosition:
    """A position along an axis of a file's metadata."""

    axis: str
    """``"C"`` or ``"T"``."""
    position: int
    """Counted from 0."""
    count: int
    """How many positions there are."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is wanted of every file that holds more than one image, made by `of`."""

    pages: tuple[int, int | None, int] | None = None
    """First and last page, counted from 1 (None: to the end), and step; None: all pages of the one series."""
    series: int | None = None
    """Which group of alike pages, counted from 1; None: the only one."""
    orient: bool = False
    """Turn every image as its orientation says."""
    alpha: bool = False
    """Accept transparency: it is one more sample of a pixel."""
    at: tuple[AxisPosition, ...] | None = None
    """The positions along the axes that its metadata name beside z; None: there must be none."""

    @classmethod
    def of(cls, page: int | str | None, series: int | None, orient: bool) -> Choice:
        """Return a checked choice.

        Parameters
        ----------
        page
            ``3``, ``"2-7"``, ``"2-"`` or, every second one, ``"1-9:2"``; counted from 1.
        series
            Counted from 1.
        orient
            Whether images are turned.

        Raises
        ------
        InvalidValueError
            If the text is none of these.
        """
        if page is not None and series is not None:
            raise InvalidValueError("page= and series= (--page, --series) exclude each other; give one")
        if series is not None and series < 1:
            raise InvalidValueError(f"series={series}; expected 1 or more")
        if page is None:
            return cls(None, series, orient)
        found = re.fullmatch(r"([0-9]+)(-([0-9]*))?(:([0-9]+))?", str(page).strip())
        if found is None:
            raise InvalidValueError(f"page={page!r}; expected a number or a range: 3, 2-7, 2- or 1-9:2")
        first, step = int(found[1]), int(found[5] or 1)
        last = first if found[2] is None else int(found[3]) if found[3] else None
        if first < 1 or step < 1 or (last is not None and last < first):
            raise InvalidValueError(
                f"page={page!r}; pages are counted from 1, the first is not behind the last"
            )
        return cls((first, last, step), None, orient)

    def of_pages(self, path: str, count: int) -> range | None:
        """Return which of `count` pages are wanted, counted from 0; None if no pages were chosen.

        Raises
        ------
        ImageStackError
            If the file does not have them; names it.
        """
        if self.pages is None:
            return None
        first, last, step = self.pages
        if (last or first) > count:
            raise ImageStackError(
                f"{shown(path)}: has {count} page(s), but page {last or first} was asked for"
            )
        return range(first - 1, count if last is None else last, step)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file of a stack: one section, or several where it is a multi-page TIFF."""

    path: str
    """Absolute path, links resolved; of missing sections the empty text."""
    format: str
    """``"tiff"``, ``"png"``, ``"jpeg"``; ``"tiles"``: several of them side by side; ``"planes"``: a file for each
    channel; ``"missing"``: empty sections;
    ``"set"``: a part of an OME image."""
    pages: int = 1
    """Number of sections in the file."""
    directories: Sequence[int] = range(1)
    """The TIFF directory of each section; where `together`, the number of each section."""
    together: bool = False
    """The first directory describes them all, stored one after the other."""
    frame: Frame | None = None
    """All that the file holds around the pixels of its one section, where these are stored plainly."""
    piece: tuple[int, int] | None = None
    """Rows and columns that are decoded at once, where a window needs no more; None: the whole image."""
    orientation: int = 1
    """How its images are turned when they are read; 1: not at all."""
    widens: bool = False
    """Grey of few bits: taken for wider grey where the others of its stack are."""
    tiles: tuple[tuple[ImageFile, ...], ...] = ()
    """Row by row, the files that make the section."""
    planes: tuple[ImageFile, ...] = ()
    """The files that hold one channel each, of a section of the format ``"planes"``."""
    samples: tuple[int, ...] = ()
    """Which samples of a pixel are taken, of `stored_samples`; empty: all."""
    stored_samples: int = 0
    """Samples of a pixel as stored, where only some are taken."""
    edges: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """The rows of pixels, and the columns, at which rows and columns of tiles begin; and the last ones end."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What is left out or guessed of it, in words, without its name."""

    def page_name(self, page: int) -> str:
        """Path, and where there are several pages which one, counted from 1."""
        if self.format == "missing":
            return "a section that is missing"
        name = shown(self.path)
        if self.directories == range(1):
            return name
        if self.directories == range(self.pages):
            return f"{name}, page {page + 1} of {self.pages}"
        return f"{name}, page {self.directories[page] + 1}"
