"""Tiles -> sections: the tiles of each section side by side, on a grid without gaps or overlap.

A section is one `ImageFile` of tiles. Of a window only the tiles that it touches are decoded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import accumulate

from wkdask.errors import ImageStackError
from wkdask.external.images.info import ImageFile, Layout, describe, shown
from wkdask.external.images.numbering import Order, natural_key, put_in_order
from wkdask.external.images.tile_names import TileNames

__all__ = ["Grid", "join_tiles", "sections_of_tiles"]

Grid = dict[tuple[int, int], str]
"""The path of the tile at each row and column, as their names number them."""


def sections_of_tiles(paths: Sequence[str], names: TileNames) -> tuple[Order, list[Grid]]:
    """Sort tiles by their sections.

    Parameters
    ----------
    paths
        Absolute paths of the tiles.
    names
        Where they lie.

    Returns
    -------
    Order
        The names of the sections, as paths, in their order.
    list of Grid
        The tiles of each.

    Raises
    ------
    ImageStackError
        If a tile is missing, two lie at one place, or there are sections of several mags; names it.
    """
    if len(names.levels) > 1:
        raise ImageStackError(
            f"{shown(paths[0])}: there are tiles of several mags or stacks beside it, {', '.join(names.levels)}; "
            "give those of one"
        )
    grids: dict[str, Grid] = {}
    for path, (section, row, column) in zip(paths, names.places, strict=True):
        grid = grids.setdefault(os.path.join(os.sep, section), {})
        if (twin := grid.setdefault((row, column), path)) != path:
            raise ImageStackError(
                f"{shown(path)}: lies at row {row}, column {column} of its section, as {shown(twin)}"
            )
    rows, columns = ({place[axis] for grid in grids.values() for place in grid} for axis in (0, 1))
    for section, grid in grids.items():
        missing = next(((y, x) for y in sorted(rows) for x in sorted(columns) if (y, x) not in grid), None)
        if missing is not None:
            raise ImageStackError(
                f"{shown(next(iter(grid.values())))}: of its section {section.strip(os.sep)!r} the tile at row "
                f"{missing[0]}, column {missing[1]} is missing; the tiles of all sections have the rows "
                f"{min(rows)} to {max(rows)} and the columns {min(columns)} to {max(columns)}"
            )
    order = put_in_order(sorted(grids, key=natural_key))
    return order, [grids[section] for section in order.paths]


def join_tiles(grid: Grid, probe: Callable[[str], tuple[ImageFile, Layout]]) -> tuple[ImageFile, Layout]:
    """Describe one section.

    Parameters
    ----------
    grid
        Its tiles.
    probe
        Describes the file of a path.

    Raises
    ------
    ImageStackError
        If the tiles do not fit together; names one.
    """
    rows, columns = (sorted({place[axis] for place in grid}) for axis in (0, 1))
    found = [[probe(os.path.realpath(grid[row, column])) for column in columns] for row in rows]
    first, layout = found[0][0]
    widths = [one[0] for _, one in found[0]]
    heights = [line[0][1][1] for line in found]
    for line, height in zip(found, heights, strict=True):
        for (file, own), width in zip(line, widths, strict=True):
            wanted = (width, height, *layout[2:])
            if own != wanted or file.pages != 1:
                raise ImageStackError(
                    f"{shown(file.path)}: holds {file.pages} image(s) of {describe(own)}; its row and column of "
                    f"tiles have one of {describe(wanted)}"
                )
    whole = (sum(widths), sum(heights), *layout[2:])
    notes = dict.fromkeys(note for line in found for file, _ in line for note in file.notes)
    section = ImageFile(
        first.path,
        "tiles",
        tiles=tuple(tuple(file for file, _ in line) for line in found),
        edges=((0, *accumulate(heights)), (0, *accumulate(widths))),
        notes=tuple(notes),
    )
    return section, whole
