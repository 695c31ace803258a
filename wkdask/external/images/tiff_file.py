"""One TIFF: its directories and metadata -> which pages are sections, and what each holds.

Pages that are alike are one series. A file of several series is refused with what is there, unless one is chosen;
copies that are flagged as reduced, and the labels of slide scanners, are left out with a note.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wkdask.errors import ImageStackError
from wkdask.external.images.info import Choice, ImageFile, Layout, describe, layout_text, shown
from wkdask.external.images.orientation import ORIENTATIONS
from wkdask.external.images.plain_tiff import frame_of
from wkdask.external.images.tiff_pixels import check_extent, piece_of

__all__ = [
    "axes_of_tiff",
    "orientation_note",
    "planes_of",
    "probe_tiff",
    "sections_of",
    "series_depth",
    "series_of",
]

_DTYPES = {f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)} | {"float32", "float64"}
_JPEG = (6, 7, 33007, 34892)
"""Compressions whose decoder turns YCbCr into RGB."""
_SLIDES = ("svs", "scn", "qpi", "ndpi", "bif", "avs", "philips", "lsm")
"""Kinds of TIFF whose first series is the image, and whose others are thumbnails, labels and overviews."""
_IN_FILE_ORDER = ("generic", "uniform", "shaped")
_ALPHA = (1, 2)
_GREY = ("", "grayscale")
"""Modes of ImageJ in which what tifffile calls channels are sections."""


@dataclass(frozen=True, slots=True)
class _Series:
    """Pages that are alike."""

    directories: tuple[int, ...]
    """Their directories, in the order of the sections."""
    text: str
    """What they hold, in few words."""


def probe_tiff(path: str, choice: Choice, *, framed: bool) -> tuple[ImageFile, Layout]:
    """Read the header of a TIFF.

    Parameters
    ----------
    path
        The file.
    choice
        What is wanted of it.
    framed
        Whether the frame of a plain file is kept.

    Returns
    -------
    ImageFile
        Of the format ``"set"`` if its OME metadata name further files.
    Layout
        What each page holds, as stored.

    Raises
    ------
    ImageStackError
        If the file is damaged, not supported, or holds several series; names it.
    """
    import tifffile

    with tifffile.TiffFile(path, _multifile=False) as tiff:  # never opens the other files of an OME set
        count, name = len(tiff.pages), shown(path)
        # tifffile only logs a broken chain of directories, and continues with fewer pages.
        tiff.filehandle.seek(tiff.pages.next_page_offset)
        if tiff.filehandle.read(tiff.tiff.offsetsize) != bytes(tiff.tiff.offsetsize):
            raise ImageStackError(f"{name}: is damaged or truncated after page {count}")
        main = series_of(tiff)[0]
        notes = _calibration_notes(tiff.imagej_metadata or {})
        described = tiff.is_imagej or tiff.is_ome or tiff.is_shaped or tiff.is_mmstack
        if main.is_multifile or (described and main.kind in ("generic", "uniform")):
            if tiff.is_ome and "BinaryOnly" in tiff.ome_metadata:
                notes.append(
                    "its OME metadata are in another file, not read: its pages are taken in file order"
                )
            elif tiff.is_ome and choice.pages is None and "FileName=" in tiff.ome_metadata:
                return ImageFile(path, "set"), (0, 0, "", 0)
            elif choice.pages is None:
                raise ImageStackError(
                    f"{name}: its metadata describe more than this file holds: it is truncated, or one of several "
                    "files; save it again as one plain TIFF, or choose pages with page= (--page)"
                )
        if count == 1 and main.kind != "ome":
            if choice.at is not None:
                depth, planes = planes_of(path, tiff, main, choice, notes)
            else:
                depth = series_depth(path, tiff, main, notes, any_axes=choice.pages is not None)
                planes = choice.of_pages(path, depth) or range(depth)
            if depth > 1:
                return _together(path, tiff, main, depth, planes, choice, notes)
        pages = choice.of_pages(path, count)
        if pages is not None:
            chosen: Sequence[int] = pages
            if len(pages) < count:
                notes.append(f"of its {count} pages {len(pages)} are taken")
        else:
            chosen = _choose_series(path, tiff, choice, notes)
        return sections_of(path, tiff, chosen, choice, notes, framed=framed and count == 1)


def axes_of_tiff(path: str) -> dict[str, int]:
    """Return the positions along the axes C and T that the metadata of a TIFF name beside z; each of two or more.

    Time without z is z, as it is where a file is taken as one stack.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ImageStackError
        If it has other axes than those; names them.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if not series_of(tiff):
            raise ImageStackError(f"{shown(path)}: holds no page")
        main = series_of(tiff)[0]
        return {} if main.kind in _IN_FILE_ORDER[:2] else _split_axes(path, tiff, main)[1]


def planes_of(
    path: str, tiff: Any, series: Any, choice: Choice, notes: list[str]
) -> tuple[int, Sequence[int]]:
    """Return the number of planes of a series, and which of them are the chosen sections, in their order.

    Parameters
    ----------
    path
        The file.
    tiff
        It, opened by `tifffile.TiffFile`.
    series
        One of its series.
    choice
        What is wanted of it.
    notes
        Grows by what is guessed.

    Raises
    ------
    ImageStackError
        If its axes are others than those of the choice; names the file.
    """
    if choice.at is None:
        depth = series_depth(path, tiff, series, notes)
        return depth, range(depth)
    named, further = _split_axes(path, tiff, series)
    expected = {each.axis: each.count for each in choice.at}
    if further != expected:
        found, wanted = (
            ", ".join(f"{axis} of {n}" for axis, n in axes.items()) or "none" for axes in (further, expected)
        )
        raise ImageStackError(f"{shown(path)}: has the axes {found} beside z; the first image has {wanted}")
    numbers, at = np.arange(math.prod(n for _, n in named)), {each.axis: each.position for each in choice.at}
    places = tuple(at.get(axis, slice(None)) for axis, _ in named)
    chosen = numbers.reshape([n for _, n in named])[places].reshape(-1).tolist()
    return len(numbers), chosen


def _split_axes(path: str, tiff: Any, series: Any) -> tuple[list[tuple[str, int]], dict[str, int]]:
    """Return the axes of a series that are not within its pages, and those of them that are channels and time."""
    named, split, fits = _axes_of(series)
    named = [(axis, n) for axis, n in named[:split] if n > 1]
    further = {axis: n for axis, n in named if axis in "CT"}
    # tifffile calls all pages of a plain ImageJ stack channels; only as many as ImageJ counts are.
    metadata = tiff.imagej_metadata or {}
    if series.kind == "imagej" and metadata.get("channels", 1) == 1 and metadata.get("mode", "") in _GREY:
        further.pop("C", None)
    depth = [axis for axis, _ in named if axis not in further]
    if not depth and "T" in further:
        del further["T"]
    if not fits or len(depth) > 1:
        sides = " x ".join(str(n) for _, n in named)
        raise ImageStackError(
            f"{shown(path)}: has the axes {''.join(axis for axis, _ in named)} of {sides} beside those of its "
            f"pages, {series.keyframe.axes}; expected at most channels (C), time (T) and one more"
        )
    return named, further


def series_of(tiff: Any) -> Sequence[Any]:
    """Return the series of a file, with their axes of length one where tifffile keeps only what was asked for."""
    found: Sequence[Any] = tiff.series(squeeze=False) if callable(tiff.series) else tiff.series
    return found


def _axes_of(series: Any) -> tuple[list[tuple[str, int]], int, bool]:
    """Return the axes of a series, how many come before those of its pages, and whether the rest is as stored."""
    page = series.keyframe
    if hasattr(series, "get_axes"):
        sides = zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True)
    else:  # tifffile since 2026.11; `series_of` asked for all of them
        sides = zip(series.axes, series.shape, strict=True)
    named = [(axis, n) for axis, n in sides if n > 1 or axis in page.axes]
    if "S" not in page.axes:
        named = [(axis, n) for axis, n in named if axis != "S" or n > 1]
    split = len(named) - len(page.axes)
    inner = "".join("S" if axis == "C" and axis not in page.axes else axis for axis, _ in named[split:])
    fits = inner == page.axes and tuple(n for _, n in named[split:]) == tuple(page.shape)
    return named, max(split, 0), fits


def sections_of(
    path: str, tiff: Any, chosen: Sequence[int], choice: Choice, notes: list[str], *, framed: bool = False
) -> tuple[ImageFile, Layout]:
    """Check that pages are alike and all there, and describe them as sections.

    Parameters
    ----------
    path
        The file.
    tiff
        It, opened by `tifffile.TiffFile`.
    chosen
        The directories of the sections, in their order.
    choice
        What is wanted of the file.
    notes
        The notes on it so far.
    framed
        Whether the frame of a plain file is kept.

    Raises
    ------
    ImageStackError
        If not; names file and page.
    """
    count = len(tiff.pages)
    layout: Layout | None = None
    piece: tuple[int, int] | None = (0, 0)
    orientations, texts = set(), list(notes)
    for index in chosen:
        page, name = tiff.pages.get(index), _page_name(path, index, count)
        found = _page_layout(name, page, choice)
        if layout is not None and found != layout:
            raise ImageStackError(f"{name}: has {describe(found)}, the pages before {describe(layout)}")
        layout = found
        check_extent(name, page)
        own = piece_of(page)
        piece = None if piece is None or own is None else (max(piece[0], own[0]), max(piece[1], own[1]))
        orientations.add(_orientation(page))
        texts += [text for text in _page_notes(page) if text not in texts]
    if layout is None:
        raise ImageStackError(f"{shown(path)}: holds no page")
    if choice.orient and len(orientations) > 1:
        raise ImageStackError(
            f"{shown(path)}: its pages have the orientations {sorted(orientations)}; they cannot be turned alike"
        )
    if not choice.orient:
        texts += [orientation_note(value) for value in sorted(orientations - {1})]
    order: Sequence[int] = tuple(chosen)
    order = range(len(order)) if order == tuple(range(len(order))) else order
    page = tiff.pages.get(order[0])
    file = ImageFile(
        path,
        "tiff",
        len(order),
        order,
        frame=frame_of(path, tiff, page) if framed else None,
        piece=piece,
        orientation=orientations.pop() if choice.orient else 1,
        notes=tuple(texts),
    )
    return file, layout


def _together(
    path: str, tiff: Any, main: Any, depth: int, order: Sequence[int], choice: Choice, notes: list[str]
) -> tuple[ImageFile, Layout]:
    """Describe a file whose one directory describes many pages."""
    first, name = main.keyframe, shown(path)
    layout = _page_layout(name, first, choice)
    if not first.is_final or main.dataoffset is None:
        raise ImageStackError(f"{name}: its metadata promise {depth} pages, but it has one")
    if main.dataoffset + depth * first.nbytes > tiff.filehandle.size:
        raise ImageStackError(f"{name}: is truncated; its metadata promise {depth} pages")
    if choice.series not in (None, 1):
        raise ImageStackError(f"{name}: holds 1 series, but series {choice.series} was asked for")
    if choice.at is None and len(order) < depth:
        notes.append(f"of its {depth} pages {len(order)} are taken")
    file, _ = sections_of(path, tiff, [0], choice, notes)
    return replace(file, pages=len(order), directories=order, together=True), layout


def _choose_series(path: str, tiff: Any, choice: Choice, notes: list[str]) -> Sequence[int]:
    """Return the directories of the sections: those of the only series, or of the chosen one."""
    name = shown(path)
    kind = series_of(tiff)[0].kind
    found = _alike(tiff, choice.series, notes) if kind in _IN_FILE_ORDER else _described(name, tiff, notes)
    if kind in _SLIDES and choice.series is None and len(found) > 1:
        others = ", ".join(series.text for series in found[1:])
        notes.append(f"its thumbnails, labels and overviews are left out: {others}")
        found = found[:1]
    if choice.series is not None:
        if choice.series > len(found):
            raise ImageStackError(
                f"{name}: holds {len(found)} series, but series {choice.series} was asked for"
            )
        taken = found[choice.series - 1]
        if len(found) > 1:
            notes.append(f"series {choice.series} of {len(found)} is taken, {taken.text}")
        number = choice.series - 1
    elif len(found) > 1:
        texts = "; ".join(f"series {k + 1}: {series.text}" for k, series in enumerate(found))
        raise ImageStackError(
            f"{name}: holds {len(found)} series of images that do not form one stack; {texts}. "
            "Choose one with series= (--series), or pages with page= (--page)"
        )
    else:
        taken, number = found[0], 0
    if kind not in _IN_FILE_ORDER:
        main = series_of(tiff)[number]
        depth, planes = planes_of(path, tiff, main, choice, notes)
        there = len(taken.directories)
        if there != depth:
            raise ImageStackError(
                f"{name}: its {main.kind.upper()} metadata promise {depth} planes, {there} are there"
            )
        taken = replace(taken, directories=tuple(taken.directories[k] for k in planes))
    elif kind == "shaped":
        offsets = {tiff.pages.get(index).offset for index in taken.directories}  # SubIFDs have other ones
        alike = [s for s in series_of(tiff) if s.keyframe is not None and s.keyframe.offset in offsets]
        chosen: Sequence[int] = ()
        if choice.at is None or len(alike) > 1:
            depth = sum(series_depth(path, tiff, series, notes) for series in alike)
        else:
            depth, chosen = planes_of(path, tiff, alike[0], choice, notes)
        if depth != len(taken.directories):
            raise ImageStackError(
                f"{name}: holds {len(taken.directories)} pages, but its metadata promise {depth}"
            )
        if chosen:
            taken = replace(taken, directories=tuple(taken.directories[k] for k in chosen))
    _note_copies_inside(name, tiff, taken.directories[0], notes)
    return taken.directories


def _alike(tiff: Any, chosen: int | None, notes: list[str]) -> list[_Series]:
    """Group the pages of a file by what they hold, in file order, without reduced copies and masks."""
    pages = [tiff.pages.get(index) for index in range(len(tiff.pages))]
    kept = [page for page in pages if not (page.is_reduced or page.is_mask)] or pages
    left = [page for page in pages if page.is_reduced or page.is_mask]
    if left and len(left) < len(pages):
        sizes = ", ".join(dict.fromkeys(f"{page.imagewidth} x {page.imagelength}" for page in left))
        notes.append(f"{len(left)} page(s) flagged as reduced copies or masks are left out: {sizes}")
    groups: dict[Layout, list[int]] = {}
    for page in kept:
        key = (page.imagewidth, page.imagelength, str(page.dtype), page.samplesperpixel)
        groups.setdefault(key, []).append(page.index)
    if len(groups) == 2 and chosen is None:
        _leave_out_thumbnail(groups, notes)
    return [
        _Series(
            tuple(indexes),
            f"{_numbers(indexes)}: {layout_text(key)}",
        )
        for key, indexes in groups.items()
    ]


def _leave_out_thumbnail(groups: dict[Layout, list[int]], notes: list[str]) -> None:
    """Leave out a single page of at most half the extent of several others, which are alike."""
    large, small = sorted(groups, key=lambda layout: -layout[0] * layout[1])
    if (
        len(groups[large]) > len(groups[small]) == 1
        and 2 * max(small[0] / large[0], small[1] / large[1]) <= 1
    ):
        notes.append(
            f"{_numbers(groups[small])}, {layout_text(small)}, is taken for a thumbnail and left out; series= "
            "or page= (--series, --page) choose otherwise"
        )
        del groups[small]


def _described(name: str, tiff: Any, notes: list[str]) -> list[_Series]:
    """Return the series that ImageJ, OME and similar metadata describe."""
    # A frame's own index may be its place in the series (Micro-Manager); where it lies in the file is certain.
    places = {tiff.pages.get(index).offset: index for index in range(len(tiff.pages))}
    found, listed = [], set[int]()
    for series in series_of(tiff):
        page = series.keyframe
        indexes = tuple(
            places[frame.offset] for frame in series if frame is not None and frame.offset in places
        )
        listed.update(indexes)
        label = f"{series.name!r}, " if series.name else ""
        found.append(
            _Series(
                indexes,
                f"{label}{len(series)} plane(s) of {page.imagewidth} x {page.imagelength} {page.dtype}",
            )
        )
    rest = [index for index in range(len(tiff.pages)) if index not in listed]
    reduced = [index for index in rest if tiff.pages.get(index).is_reduced]
    if len(rest) > len(reduced) and series_of(tiff)[0].kind not in _SLIDES:
        others = _numbers([index for index in rest if index not in reduced])
        raise ImageStackError(
            f"{name}: its metadata do not describe {others}; choose pages with page= (--page)"
        )
    if rest:
        notes.append(f"{len(rest)} page(s) that are no part of its image are left out")
    return found


def _note_copies_inside(name: str, tiff: Any, index: int, notes: list[str]) -> None:
    """Note the SubIFDs of a page: smaller copies; refuse one that is larger than the page itself."""
    import tifffile

    page = tiff.pages.get(index)
    for number, offset in enumerate(page.subifds or ()):
        tiff.filehandle.seek(offset)
        inside = tifffile.TiffPage(tiff, (index, number))
        if inside.imagewidth * inside.imagelength > page.imagewidth * page.imagelength:
            raise ImageStackError(
                f"{name}: its page {index + 1} is a small copy of an image of {inside.imagewidth} x "
                f"{inside.imagelength} in a SubIFD, which is not read; save that as a TIFF of its own"
            )
    if page.subifds:
        notes.append(f"{len(page.subifds)} smaller copies of a page, in SubIFDs, are left out")


def series_depth(path: str, tiff: Any, series: Any, notes: list[str], *, any_axes: bool = False) -> int:
    """Return the sections of one series, which may have one axis beside y, x and samples.

    Parameters
    ----------
    path
        The file.
    tiff
        It, opened by `tifffile.TiffFile`.
    series
        One of its series.
    notes
        Grows by what is guessed.
    any_axes
        Count the pages of all axes: the user says which of them are sections.

    Raises
    ------
    ImageStackError
        If its axes are others, by their names; names the file.
    """
    page = series.keyframe
    named, split, fits = _axes_of(series)
    stacking = [(axis, n) for axis, n in named[:split] if n > 1]
    # tifffile calls the pages of a plain ImageJ stack channels; those that ImageJ shows as channels are.
    mode = (tiff.imagej_metadata or {}).get("mode", "") if series.kind == "imagej" else "colour"
    channels = "C" in dict(stacking) and mode not in ("", "grayscale")
    if fits and any_axes:
        return math.prod(n for _, n in stacking)
    if not fits or len(stacking) > 1 or channels:
        sides = " x ".join(str(n) for _, n in named)
        stored = "" if fits else f", in pages of {page.axes}"
        raise ImageStackError(
            f"{shown(path)}: has the axes {''.join(axis for axis, _ in named)} of {sides}{stored}; expected Y, X "
            "and one stacking axis before them (channels only as RGB samples): save one stack per channel and time "
            "point" + (", or choose pages with page= (--page), such as 1-:2" if fits else "")
        )
    axis = stacking[0][0] if stacking else "Z"
    if axis not in "ZIQ":
        notes.append(f"its axis {axis} is taken for z")
    return math.prod(n for _, n in stacking)


def _calibration_notes(metadata: dict[str, Any]) -> list[str]:
    """Report ImageJ's calibration: it stores signed numbers as unsigned ones, with an offset."""
    terms = [metadata.get(f"c{k}", default) for k, default in ((0, 0), (1, 1))]
    if "cf" not in metadata or (metadata["cf"] == 0 and terms == [0, 1]):
        return []
    shows = f" as {terms[0]} + {terms[1]} * value" if metadata["cf"] == 0 else " by a calibration"
    return [f"ImageJ shows its values{shows}; they are taken as they are stored"]


def _page_layout(name: str, page: Any, choice: Choice) -> Layout:
    """Return what a page holds; refuse what is not grey or RGB, by name."""
    import tifffile

    colours = getattr(page.photometric, "name", str(page.photometric))
    samples = page.samplesperpixel
    colour_samples = samples - (any(kind in _ALPHA for kind in page.extrasamples) if choice.alpha else 0)
    if page.bitspersample == 1:
        problem = "is a 1-bit image; save it with 8 bits per pixel"
    elif isinstance(page.bitspersample, tuple):
        problem = f"has samples of {page.bitspersample} bits; expected as many in each"
    elif page.bitspersample == 24 and page.sampleformat != 3:
        problem = "has integers of 24 bits, whose bytes readers order in two ways; save it with 32 bits"
    elif colours == "PALETTE":
        problem = "is a palette image: its indices or its colours may be meant; save it as grey or RGB"
    elif any(kind in _ALPHA for kind in page.extrasamples) and not choice.alpha:
        problem = "has transparency (an alpha channel); save it without, as grey or RGB"
    elif colours == "YCBCR" and (page.compression not in _JPEG or page.planarconfig != 1):
        problem = "holds YCBCR samples that are not stored as JPEG; save it as grey or RGB"
    elif 262 not in page.tags and page.compression not in _JPEG:
        problem = "does not say what its samples are (no PhotometricInterpretation); save it as grey or RGB"
    elif page.compression == 1 and page.predictor != 1:
        problem = "is not compressed, but says that it holds differences (Predictor); readers disagree on it"
    elif colours not in ("MINISBLACK", "MINISWHITE", "RGB", "YCBCR") or colour_samples not in (1, 3):
        problem = f"holds {samples} {colours} samples per pixel; expected grey or RGB"
    elif colours in ("RGB", "YCBCR") and colour_samples == 1:
        problem = f"holds 1 {colours} sample per pixel; expected 3, or grey"
    elif page.axes not in (("YX",) if samples == 1 else ("YXS", "SYX")):
        problem = f"its pages have the axes {page.axes}; expected one image per page"
    elif page.dtype is None or page.dtype.name not in _DTYPES:
        problem = f"has the data type {page.dtype}; expected one of {', '.join(sorted(_DTYPES))}"
    elif page.compression != 1 and page.compression not in tifffile.TIFF.DECOMPRESSORS:
        problem = f"has the compression {page.compression!r}, which cannot be decoded"
    else:
        return page.imagewidth, page.imagelength, page.dtype.name, samples
    raise ImageStackError(f"{name}: {problem}")


def _page_notes(page: Any) -> list[str]:
    """Return what a reader of a page may expect otherwise."""
    notes = []
    if page.photometric == 0:
        notes.append("0 is white in it (MINISWHITE); its values are taken as they are stored")
    if page.bitspersample not in (8, 16, 32, 64):
        notes.append(f"its values of {page.bitspersample} bits are taken as they are, in {page.dtype}")
    if page.samplesperpixel == 3 and page.photometric not in (2, 6):
        notes.append("its 3 samples per pixel, which it does not call RGB, are taken for red, green and blue")
    return notes


def _orientation(page: Any) -> int:
    """Return the orientation of a page; 1 where there is none, or one that does not exist."""
    value = page.tags.valueof(274, 1)
    return int(value) if value in ORIENTATIONS else 1


def orientation_note(value: int) -> str:
    """Return the note on an image whose orientation is not applied."""
    return (
        f"its orientation tag says {value} ({ORIENTATIONS[value]}); its voxels are taken as they are stored, "
        "orient=True (--orient) turns them"
    )


def _page_name(path: str, index: int, count: int) -> str:
    """Return file and page for messages."""
    return shown(path) if count == 1 else f"{shown(path)}, page {index + 1} of {count}"


def _numbers(indexes: Sequence[int]) -> str:
    """Return pages in words, counted from 1: ``pages 2-7, 9``."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    texts = [f"{low + 1}" if low == high else f"{low + 1}-{high + 1}" for low, high in runs]
    return ("page " if len(indexes) == 1 else "pages ") + ", ".join(texts[:9] + ["..."] * (len(texts) > 9))
