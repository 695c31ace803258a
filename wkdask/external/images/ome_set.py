"""OME-TIFF images in several files: which page of which file is which section."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from html import unescape

from wkdask.errors import ImageStackError
from wkdask.external.images.info import Choice, ImageFile, Layout, describe, shown
from wkdask.external.images.orientation import swaps_axes
from wkdask.external.images.tiff_file import planes_of, sections_of, series_of
from wkdask.external.images.tiff_log import collected_log

__all__ = ["check_members", "read_set"]


def read_set(path: str, choice: Choice) -> tuple[list[ImageFile], Layout, list[str]]:
    """Read the set that one of its files belongs to.

    Parameters
    ----------
    path
        Any file whose OME metadata name all of them. They are looked for in its folder.
    choice
        What is wanted of the set: a series, and whether images are turned.

    Returns
    -------
    list of ImageFile
        The files in the order of the sections; each as often as other files come between its pages.
    Layout
        What each section holds.
    list of str
        Notes for the user.

    Raises
    ------
    ImageStackError
        If planes or files are missing, or it holds several images; names the file.
    """
    import tifffile

    notes: list[str] = []
    with collected_log(), tifffile.TiffFile(path) as tiff:  # what it misses is counted below
        found = [series for series in series_of(tiff) if series.kind == "ome"]
        if not found:
            missing = _missing_files(path, str(tiff.ome_metadata))
            raise ImageStackError(f"{shown(path)}: is one of several files of an OME image: {missing}")
        number = choice.series or 1
        if number > len(found) or (len(found) > 1 and choice.series is None):
            raise ImageStackError(
                f"{shown(path)}: its OME metadata describe {len(found)} series of images; choose one with series= "
                f"(--series 1 to {len(found)})"
            )
        series, text = found[number - 1], str(tiff.ome_metadata)
        depth, chosen = planes_of(path, tiff, series, choice, notes)
        planes = [None if frame is None else (frame.parent.filehandle.path, frame.index) for frame in series]
    there = sum(plane is not None for plane in planes)
    if there != depth:
        raise ImageStackError(
            f"{shown(path)}: is one of several files of an OME image, whose metadata promise {depth} planes; "
            f"{there} are there, {_missing_files(path, text)}"
        )
    planes = [planes[k] for k in chosen]
    runs: list[tuple[str, list[int]]] = []
    for name, index in (plane for plane in planes if plane is not None):
        if not runs or runs[-1][0] != name:
            runs.append((name, []))
        runs[-1][1].append(index)
    files, layout = [], None
    for name, indexes in runs:
        with collected_log(), tifffile.TiffFile(name, _multifile=False) as tiff:
            file, found_layout = sections_of(os.path.realpath(name), tiff, indexes, choice, [])
        if layout is not None and found_layout != layout:
            raise ImageStackError(
                f"{shown(name)}: has {describe(found_layout)}, the files before {describe(layout)}"
            )
        layout = found_layout
        files.append(file)
    if layout is None:
        raise ImageStackError(f"{shown(path)}: its OME metadata describe no plane")
    if swaps_axes(files[0].orientation):
        layout = (layout[1], layout[0], *layout[2:])
    return files, layout, notes


def _missing_files(path: str, text: str) -> str:
    """Return which files OME metadata name that are not in the folder of a file."""
    names = dict.fromkeys(unescape(name) for name in re.findall(r'FileName="([^"]+)"', text))
    absent = [name for name in names if not os.path.exists(os.path.join(os.path.dirname(path), name))]
    if not absent:
        return "others are missing in its files"
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    return f"{', '.join(absent[:3])}{more} missing"


def check_members(given: Sequence[str], files: Sequence[ImageFile]) -> list[str]:
    """Refuse files that are not of a set; return notes on those that were not given.

    Parameters
    ----------
    given
        Real paths of all files that the user gave.
    files
        The files of the set.

    Raises
    ------
    ImageStackError
        If a file that was given is no part of it; names it.
    """
    members = {file.path for file in files}
    for path in given:
        if path not in members:
            raise ImageStackError(
                f"{shown(path)}: is no part of the OME-TIFF image that the other files belong to; convert it alone"
            )
    more = len(members - set(given))
    notes = [f"{len(members)} files are one OME-TIFF image: its metadata say the order of the sections"]
    if more:
        notes.append(f"{more} of them were not given, but belong to it, and are read too")
    return notes
