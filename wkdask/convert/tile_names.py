"""Folders of tiles: images whose names say that each is a part of a section."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from wkdask.convert.image_info import shown
from wkdask.convert.numbering import below_common_folder
from wkdask.errors import ImageStackError

__all__ = ["refuse_tiles"]

_NUMBER = re.compile(r"(mag|row|col|[xyzrc])?[-_]?[0-9]+")
"""A part of a path that is nothing but a number, or says what it counts: ``0001``, ``z0001``, ``mag4``."""
_PLACE = re.compile(r"[0-9]+[-_.][0-9]+([-_.][0-9]+)?")
"""A name that is nothing but a row and a column, and a zoom: ``3_0_1``."""
_FIELD = re.compile(r"(?<![a-z])(x|y|r|c|row|col|column)[-_=]?([0-9]+)(?![0-9])")
"""A part of a name that says where in a section it lies."""
_PAIRS = (("x", "y"), ("r", "c"), ("row", "col"), ("row", "column"))


def refuse_tiles(paths: Sequence[str]) -> None:
    """Refuse images that are tiles of sections: taken for sections of their own they would make a wrong volume.

    Recognised are ``z/y/x.png``, also below a folder for every mag, where the same x is below several y, or the
    same y and x below several z; ``z/row_column_zoom.jpg``; and names with numbers for x and y, or rows and
    columns, that vary.

    Parameters
    ----------
    paths
        Absolute paths of the images.

    Raises
    ------
    ImageStackError
        If so; says by what they were recognised.
    """
    if len(paths) < 2:
        return
    parts = [os.path.splitext(name)[0].casefold().split(os.sep) for name in below_common_folder(paths)]
    pattern = _folders(parts) or _names(parts)
    if pattern:
        raise ImageStackError(
            f"{shown(paths[0])}: is a tile, as its name and those beside it say ({pattern}): put the tiles of each "
            "section together into one image first; if each is a section of its own, say so: "
            'tiles="sections" (--tiles sections)'
        )


def _folders(parts: Sequence[Sequence[str]]) -> str:
    """Recognise tiles by their folders; return the pattern, empty if there is none."""
    depths = {len(names) for names in parts}
    if min(depths) >= 3 and all(_NUMBER.fullmatch(name) for names in parts for name in names[-3:]):
        rows = {tuple(names[:-1]) for names in parts}
        ends = {(names[-2], names[-1]) for names in parts}
        columns = {names[-1] for names in parts}
        # The same names return below other folders, level by level: a grid, not counters that run on. A grid of one
        # tile is a stack.
        if len(rows) > 1 and len(ends) > 1 and min(len(ends), len(columns)) < len(parts):
            return "z/y/x"
    places = {names[-1] for names in parts}
    if min(depths) >= 2 and 1 < len(places) < len(parts) and all(map(_PLACE.fullmatch, places)):
        return "z/row_column"
    return ""


def _names(parts: Sequence[Sequence[str]]) -> str:
    """Recognise tiles by words in front of numbers; return the pattern, empty if there is none."""
    found = [dict(_FIELD.findall("/".join(names))) for names in parts]
    for first, second in _PAIRS:
        if all(first in fields and second in fields for fields in found):
            values = {(fields[first], fields[second]) for fields in found}
            if len({a for a, _ in values}) > 1 or len({b for _, b in values}) > 1:
                return f"{first}, {second}"
    return ""
