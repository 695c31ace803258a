"""The grid of cubes that a box is stored in, drawn as a block in oblique projection: SVG with few lines.

::

            z
        +--------+
       /  top   /|
    y +--------+ |        x to the right, y down as in sections, z away from the eye
      | front  | +
      |        |/
      +--------+
          x
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from wkdask.geometry import BoundingBox, Vec3Int

__all__ = ["MAX_CELLS", "cube_cuts", "grid_svg"]

MAX_CELLS = 16
"""Cells along an axis that are drawn; where there are more cubes, a cell stands for several."""
_LEAST = 0.12
"""Share of the longest side that the others are drawn with at least: a stack of ten sections is still a block."""
_BEND = 0.6
"""Exponent of the ratio of two sides: less than one, so that flat boxes keep some depth."""
_DEPTH = (0.42, -0.3)
"""The offset on the drawing of one step along z."""
_MARGIN = 22.0
"""Room for the numbers."""


def cube_cuts(box: BoundingBox, cube: Vec3Int, axis: int) -> tuple[list[float], int]:
    """Return where lines between cubes cross an axis of a box, from 0 to 1, and how many cubes lie between two.

    Parameters
    ----------
    box
        The box, in voxels of the mag; the grid of cubes begins at voxel 0.
    cube
        Sides of a cube.
    axis
        0, 1 or 2.
    """
    low, length, side = box.topleft[axis], box.size[axis], cube[axis]
    first, last = low // side, -(-(low + length) // side)
    step = max(1, math.ceil((last - first) / MAX_CELLS))
    start = (first // step + 1) * step
    return [(n * side - low) / length for n in range(start, last, step)], step


def grid_svg(
    box: BoundingBox,
    cube: Vec3Int,
    voxel: Sequence[float],
    size: float = 150.0,
    section: float | None = None,
) -> str:
    """Return a drawing of a box with the borders of its cubes.

    At most `MAX_CELLS` cells are drawn along an axis, so that the text has a few thousand characters whatever the
    box. Colours are those of the classes ``wk-front``, ``wk-top``, ``wk-side``, ``wk-cuts``.

    Parameters
    ----------
    box
        The box, in voxels of the mag; not empty.
    cube
        Sides of a cube.
    voxel
        Lengths of a voxel, in any unit: sides are drawn by lengths.
    size
        Length of the longest side on the paper.
    section
        Where along z, from 0 to 1, a section is marked; none by default.
    """
    lengths = [n * max(step, 1e-12) for n, step in zip(box.size, voxel, strict=True)]
    longest = max(lengths)
    width, height, far = (size * max((length / longest) ** _BEND, _LEAST) for length in lengths)
    right, up = far * _DEPTH[0], far * _DEPTH[1]
    left, top = 2.0, _MARGIN - up

    def at(x: float, y: float, z: float) -> str:
        """Return a point of the box, from (0, 0, 0) to (1, 1, 1), on the paper."""
        return f"{left + x * width + z * right:.1f},{top + y * height + z * up:.1f}"

    def face(name: str, *corners: tuple[float, float, float]) -> str:
        return f"<path class='{name}' d='M{' L'.join(at(*corner) for corner in corners)} Z'/>"

    lines, steps = [], []
    ends: list[tuple[float, float, float]]
    for axis in range(3):
        cuts, step = cube_cuts(box, cube, axis)
        steps.append(step)
        for cut in cuts:
            if axis == 0:  # down the front, and along the top
                ends = [(cut, 1, 0), (cut, 0, 0), (cut, 0, 1)]
            elif axis == 1:  # across the front, and along the side
                ends = [(0, cut, 0), (1, cut, 0), (1, cut, 1)]
            else:  # across the top, and down the side
                ends = [(0, 0, cut), (1, 0, cut), (1, 1, cut)]
            lines.append("M" + " L".join(at(*end) for end in ends))
    parts = [
        face("wk-front", (0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)),
        face("wk-top", (0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 0, 0)),
        face("wk-side", (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0)),
    ]
    if lines:
        parts.append(f"<path class='wk-cuts' d='{' '.join(lines)}'/>")
    if section is not None:
        ends = [(0, 0, section), (1, 0, section), (1, 1, section)]
        parts.append(f"<path class='wk-section' d='M{' L'.join(at(*end) for end in ends)}'/>")
    x, y, z = box.size
    parts += [
        f"<text x='{left + width / 2:.1f}' y='{top + height + 14:.1f}' text-anchor='middle'>x {x}</text>",
        f"<text x='{left + width + right + 5:.1f}' y='{top + up + height / 2:.1f}'>y {y}</text>",
        f"<text x='{left + width + right / 2 + 5:.1f}' y='{top + height + up / 2 + 12:.1f}'>z {z}</text>",
    ]
    whole_width = left + width + right + 12 + 7 * max(len(f"y {y}"), len(f"z {z}"))
    whole_height = top + height + _MARGIN
    counts = " × ".join(str(n) for n in _counts(box, cube))
    title = f"{counts} cubes" + (
        f", every {'/'.join(map(str, steps))}th border drawn" if max(steps) > 1 else ""
    )
    return (
        f"<svg class='wk-grid' width='{whole_width:.0f}' height='{whole_height:.0f}' role='img'>"
        f"<title>{title}</title>{''.join(parts)}</svg>"
    )


def _counts(box: BoundingBox, cube: Vec3Int) -> Vec3Int:
    """Return the cubes along each axis that a box touches."""
    return box.aligned_outwards(cube).size // cube
