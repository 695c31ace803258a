"""The levels of a pyramid, and what of them is stale after a write. Pure: integers in, integers out.

Level 0 is the mag that is read; each level above is computed from the one below. Boxes that count voxels of level 0
are on the grid of the coarsest level, so that each window of each level is either inside or outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.storage.protocol import ArraySpec

__all__ = ["Level", "boxes_to_redo", "disjoint", "levels_of", "passes_of"]


@dataclass(frozen=True, slots=True)
class Level:
    """One mag of a pyramid."""

    mag: Mag
    """The mag."""
    spec: ArraySpec
    """Type and cut."""
    step: Vec3Int
    """Voxels of level 0 per voxel, along each axis."""
    factors: Vec3Int
    """Voxels of the level below per voxel, along each axis."""
    box: BoundingBox
    """The layer's box, aligned outwards to this mag, in its voxels; nothing outside of it is read or written."""
    existing: bool = False
    """Whether the mag was there before, so that its cubes may be."""

    @property
    def cube(self) -> Vec3Int:
        """Voxels of level 0 along the sides of a cube."""
        return self.spec.shard_shape * self.step

    @property
    def chunk(self) -> Vec3Int:
        """Voxels of level 0 along the sides of a chunk, the least that a task may write by itself."""
        return self.spec.chunk_shape * self.step

    def within(self, box: BoundingBox) -> BoundingBox:
        """Return the voxels of this level in a box of level-0 voxels that is on its grid."""
        return BoundingBox(box.topleft // self.step, box.size // self.step).intersection(self.box)


def levels_of(
    source: tuple[Mag, ArraySpec],
    targets: Sequence[tuple[Mag, ArraySpec]],
    layer_box: BoundingBox,
    existing: Iterable[Mag] = (),
) -> tuple[Level, ...]:
    """Return the levels of a pyramid.

    Parameters
    ----------
    source
        The mag that is read, and its cut.
    targets
        The mags that are written, each computed from the one before.
    layer_box
        The layer's box, in voxels of mag 1.
    existing
        Those of them that were there before.

    Raises
    ------
    InvalidValueError
        If one cannot be computed from the one before.
    """
    base = source[0].to_vec3_int()
    levels = [_level(source, Vec3Int.full(1), Vec3Int.full(1), layer_box, True)]
    for mag, spec in targets:
        before = levels[-1].mag
        step, rest = mag.to_vec3_int() // before.to_vec3_int(), mag.to_vec3_int() % before.to_vec3_int()
        if any(rest) or step == Vec3Int.full(1):
            raise InvalidValueError(f"mag {mag} cannot be computed from mag {before}")
        levels.append(_level((mag, spec), mag.to_vec3_int() // base, step, layer_box, mag in set(existing)))
    return tuple(levels)


def _level(
    cut: tuple[Mag, ArraySpec], step: Vec3Int, factors: Vec3Int, layer_box: BoundingBox, existing: bool
) -> Level:
    mag, spec = cut
    box = layer_box.aligned_outwards(mag.to_vec3_int()).in_mag(mag)
    return Level(mag=mag, spec=spec, step=step, factors=factors, box=box, existing=existing)


def passes_of(levels: Sequence[Level], reaches: bool) -> list[tuple[Level, ...]]:
    """Cut a pyramid into parts that one tree each can compute; the source of a part is the last mag before it.

    A node computes from its own voxels alone. So from the second step on, no window may look beyond a node's
    border: neither a kernel whose support is wider than its window, nor a window that is more than half outside of
    the layer's box, whose mirrored voxels stand beyond it::

        factor 2   | a b | c .        the mirror image of c is c
        factor 4   | a b c d | e . . .   those of e are e d c: of another window, perhaps of another node

    The first step has no such limit: it reads.

    Parameters
    ----------
    levels
        The whole pyramid.
    reaches
        Whether the kernel looks beyond its window.
    """
    parts: list[list[Level]] = []
    for below, level in pairwise(levels):
        if not parts or reaches or max(level.factors) > 2:
            parts.append([below])
        parts[-1].append(level)
    return [tuple(_rebased(level, part[0]) for level in part) for part in parts]


def _rebased(level: Level, source: Level) -> Level:
    """Return a level that counts from another source."""
    return replace(level, step=level.step // source.step)


def disjoint(boxes: Iterable[BoundingBox]) -> list[BoundingBox]:
    """Return boxes that cover the same voxels, and perhaps more: those that overlap become their union."""
    found = [box for box in dict.fromkeys(boxes) if not box.is_empty()]
    while True:
        merged: list[BoundingBox] = []
        active: list[int] = []
        before = len(found)
        for box in sorted(found, key=lambda box: tuple(box.topleft)):
            active = [number for number in active if merged[number].bottomright.x > box.topleft.x]
            other = next((n for n in active if not merged[n].intersection(box).is_empty()), None)
            if other is None:
                active.append(len(merged))
                merged.append(box)
            else:
                merged[other] = merged[other].extended_by(box)
        found = merged
        if len(found) == before:
            return found


def boxes_to_redo(
    written: Iterable[BoundingBox],
    before: BoundingBox,
    now: BoundingBox,
    levels: Sequence[Level],
    *,
    reaches: bool = False,
) -> list[BoundingBox]:
    """Return what of the coarser mags is stale after voxels were written.

    Besides what was written, that is the old border where the layer's box grew: a window across it was computed
    from mirrored voxels, where there now are others::

        before    | a b | c]        the second window saw c c
        now       | a b | c 0 | 0 d]   it now sees c 0

    Parameters
    ----------
    written
        What was written, in voxels of mag 1.
    before, now
        The layer's box before and after, in voxels of mag 1.
    levels
        The whole pyramid.
    reaches
        Whether the kernel looks beyond its window.

    Returns
    -------
    list of BoundingBox
        Disjoint, in voxels of mag 1, aligned to the coarsest mag.
    """
    step = levels[-1].mag.to_vec3_int()
    # A voxel counts in a window beside its own where kernels look there, or where more than half of a window at the
    # border is mirrored: by one voxel at each level, all together by less than two of the coarsest.
    beyond = [reaches or any(level.factors[axis] > 2 for level in levels[1:]) for axis in range(3)]
    margin = step * [2 * wide for wide in beyond]
    stale = list(written)
    if not before.is_empty():
        low, high = before.topleft, before.bottomright
        for axis in range(3):
            for edge, grew in (
                (low, now.topleft[axis] < low[axis]),
                (high, now.bottomright[axis] > high[axis]),
            ):
                if grew and (edge[axis] % step[axis] or beyond[axis]):
                    start, stop = list(low), list(high)
                    start[axis] = (edge[axis] - (edge is high)) // step[axis] * step[axis]
                    stop[axis] = start[axis] + step[axis]
                    stale.append(BoundingBox.from_corners(start, stop))
    grown = (box if box.is_empty() else box.padded_with_margins(margin) for box in stale)
    inside = now.aligned_outwards(step)
    return disjoint(box.aligned_outwards(step).intersection(inside) for box in grown)
