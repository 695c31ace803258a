"""Names of tiles: images whose names say that each is a part of a section, and where in it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from wkdask.errors import ImageStackError
from wkdask.external.images.info import shown
from wkdask.external.images.numbering import below_common_folder

__all__ = ["TileNames", "read_tile_names", "refuse_tiles"]

_NUMBER = re.compile(r"(mag|row|col|[xyzrc])?[-_]?([0-9]+)")
"""A part of a path that is nothing but a number, or says what it counts: ``0001``, ``z0001``, ``mag4``."""
_PLACE = re.compile(r"([0-9]+)[-_.]([0-9]+)([-_.][0-9]+)?")
"""A name that is nothing but a row and a column, and a zoom: ``3_0_1``."""
_FIELD = re.compile(r"(?<![a-z])(x|y|r|c|row|col|column)[-_=]?([0-9]+)(?![0-9])")
"""A part of a name that says where in a section it lies."""
_PAIRS = (("y", "x"), ("r", "c"), ("row", "col"), ("row", "column"))


@dataclass(frozen=True, slots=True)
class TileNames:
    """Where tiles lie, by their names."""

    pattern: str
    """By what they were recognised."""
    places: tuple[tuple[str, int, int], ...]
    """Of each path the name of its section, without what says where in it, then row and column."""
    levels: tuple[str, ...] = ("",)
    """What is above all sections, where that differs: folders of mags, zooms."""


def read_tile_names(paths: Sequence[str]) -> TileNames | None:
    """Return where tiles lie; None if the names are not those of tiles.

    Recognised are ``z/y/x.png``, also below a folder for every mag, where the same x is below several y, or the
    same y and x below several z; ``z/row_column_zoom.jpg``; and names with numbers for x and y, or rows and
    columns, that vary.

    Parameters
    ----------
    paths
        Absolute paths of the images.
    """
    if len(paths) < 2:
        return None
    parts = [os.path.splitext(name)[0].casefold().split(os.sep) for name in below_common_folder(paths)]
    return _in_folders(parts) or _in_names(parts)


def refuse_tiles(paths: Sequence[str]) -> None:
    """Refuse images that are tiles of sections: taken for sections of their own they would make a wrong volume.

    Parameters
    ----------
    paths
        Absolute paths of the images.

    Raises
    ------
    ImageStackError
        If so; says by what they were recognised.
    """
    found = read_tile_names(paths)
    if found is not None:
        raise ImageStackError(
            f'{shown(paths[0])}: is a tile, as its name and those beside it say ({found.pattern}): tiles="join" '
            "(--tiles join) puts those of each section side by side; if each is a section of its own, say so: "
            'tiles="sections" (--tiles sections)'
        )


def _in_folders(parts: Sequence[Sequence[str]]) -> TileNames | None:
    """Recognise tiles by their folders."""
    depth = min(len(names) for names in parts)
    if depth >= 3 and all(_NUMBER.fullmatch(name) for names in parts for name in names[-3:]):
        rows = {tuple(names[:-1]) for names in parts}
        ends = {(names[-2], names[-1]) for names in parts}
        columns = {names[-1] for names in parts}
        # The same names return below other folders, level by level: a grid, not counters that run on. A grid of one
        # tile is a stack.
        if len(rows) > 1 and len(ends) > 1 and min(len(ends), len(columns)) < len(parts):
            places = [("/".join(names[:-2]), _number(names[-2]), _number(names[-1])) for names in parts]
            levels = dict.fromkeys("/".join(names[:-3]) for names in parts)
            return TileNames("z/y/x", tuple(places), tuple(levels))
    found = [_PLACE.fullmatch(names[-1]) for names in parts]
    if depth >= 2 and all(found) and 1 < len({names[-1] for names in parts}) < len(parts):
        places = [
            ("/".join(names[:-1]), int(match[1]), int(match[2]))
            for names, match in zip(parts, found, strict=True)
            if match is not None
        ]
        levels = dict.fromkeys(
            "/".join(names[:-2]) + (match[3] or "")
            for names, match in zip(parts, found, strict=True)
            if match is not None
        )
        return TileNames("z/row_column", tuple(places), tuple(levels))
    return None


def _number(name: str) -> int:
    """Return the number that a part of a path is."""
    return int(re.sub(r"[^0-9]", "", name))


def _in_names(parts: Sequence[Sequence[str]]) -> TileNames | None:
    """Recognise tiles by words in front of numbers."""
    names = ["/".join(one) for one in parts]
    found = [dict(_FIELD.findall(name)) for name in names]
    for pair in _PAIRS:
        row, column = pair
        if all(row in fields and column in fields for fields in found):
            values = {(fields[row], fields[column]) for fields in found}
            if len(values) > 1:
                rest = [_FIELD.sub(lambda m: m[0] if m[1] not in pair else m[1], name) for name in names]  # noqa: B023
                places = zip(
                    rest,
                    (int(fields[row]) for fields in found),
                    (int(fields[column]) for fields in found),
                    strict=True,
                )
                return TileNames(f"{row}, {column}", tuple(places))
    return None
