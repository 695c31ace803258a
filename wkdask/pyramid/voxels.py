"""The voxels of a pyramid's task: read and mirrored, shrunk, put together.

Nothing here is published; where a block lies is said by a box, in voxels of its own level.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import box_tiles
from wkdask.pyramid.levels import Level
from wkdask.storage.protocol import MagReader, Voxels

__all__ = ["Half", "Readable", "Stored", "Written", "assembled", "first_half", "halved", "read_mirrored"]

Half = tuple[BoundingBox, Voxels | None]
"""Voxels of one level: where, and what; None for zeros only."""


class Readable(Protocol):
    """What a leaf takes its voxels from."""

    def read(self, box: BoundingBox) -> Voxels:
        """Return the voxels of a box."""

    def shrink(self, box: BoundingBox, factors: Vec3Int, mode: str, out: Voxels) -> None:
        """Write the voxels of a box, shrunk, into an array: see `MagReader.shrink`."""

    def is_empty(self, box: BoundingBox) -> bool:
        """Return whether it is known, without a look at voxels, that all of a box is zero."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Level 0 as it is on the disk."""

    store: MagReader
    """The mag."""

    def read(self, box: BoundingBox) -> Voxels:
        """Return the voxels of a box."""
        return self.store.read(box)

    def shrink(self, box: BoundingBox, factors: Vec3Int, mode: str, out: Voxels) -> None:
        """Write the voxels of a box, shrunk, into an array."""
        self.store.shrink(box, factors, mode, out)

    def is_empty(self, box: BoundingBox) -> bool:
        """Return whether there is no cube in a box."""
        return self.store.is_empty(box)


@dataclass(frozen=True, slots=True)
class Written:
    """Level 0 with a block that was just written in place of what is on the disk."""

    store: MagReader
    """The mag, for the voxels around the block."""
    box: BoundingBox
    """Where the block is, in voxels of the mag."""
    block: Voxels | None
    """Its voxels; None for zeros only."""

    def read(self, box: BoundingBox) -> Voxels:
        """Return the voxels of a box."""
        common = box.intersection(self.box)
        if common.is_empty():
            return self.store.read(box)
        new = 0 if self.block is None else self.block[(slice(None), *common.to_slices(self.box.topleft))]
        if common == box and not isinstance(new, int):
            return new
        voxels = self.store.read(box)
        voxels[(slice(None), *common.to_slices(box.topleft))] = new
        return voxels

    def shrink(self, box: BoundingBox, factors: Vec3Int, mode: str, out: Voxels) -> None:
        """Write the voxels of a box, shrunk, into an array."""
        from wkdask.kernels import downsample

        if box.intersection(self.box).is_empty():
            self.store.shrink(box, factors, mode, out)
        else:
            downsample(self.read(box), tuple(factors), mode, out=out)

    def is_empty(self, box: BoundingBox) -> bool:
        """Return whether a box is a part of a block of zeros."""
        return self.block is None and self.box.contains_bbox(box)


def first_half(
    voxels: Readable, source: Level, level: Level, box: BoundingBox, tile: Vec3Int, mode: str
) -> Half:
    """Return level 1 of a box of level-0 voxels, read tile by tile; nothing is read where no cube is.

    Parameters
    ----------
    voxels
        Level 0.
    source, level
        Levels 0 and 1.
    box
        Voxels of level 0, on the grid of level 1; those outside of the layer's box are mirrored.
    tile
        Voxels of level 0 that are read at once.
    mode
        A mode of `wkdask.kernels.downsample`.
    """
    from wkdask.kernels import downsample, reach

    target = level.within(box)
    out: Voxels = np.empty((level.spec.num_channels, *target.size), dtype=level.spec.dtype, order="F")
    tile = tile // level.factors
    empty = True
    for part in box_tiles(target, tile, tile):
        place = out[(slice(None), *part.to_slices(target.topleft))]
        window = BoundingBox(part.topleft * level.factors, part.size * level.factors)
        if voxels.is_empty(window.padded_with_margins(level.factors).intersection(source.box)):
            place[...] = 0
            continue
        empty = False
        seen = window.padded_with_margins(reach(mode, level.factors))
        if seen == window and source.box.contains_bbox(window):
            voxels.shrink(window, level.factors, mode, place)
        else:
            downsample(read_mirrored(voxels, source.box, seen), tuple(level.factors), mode, out=place)
    return target, None if empty else out


def assembled(box: BoundingBox, halves: Sequence[Half], level: Level) -> Half:
    """Put the halves within a box together; they cover it."""
    mine = [half for half in halves if not half[0].intersection(box).is_empty()]
    if len(mine) == 1 or all(block is None for _, block in mine):
        return box, mine[0][1]
    out: Voxels = np.empty((level.spec.num_channels, *box.size), dtype=level.spec.dtype, order="F")
    for place, block in mine:
        out[(slice(None), *place.to_slices(box.topleft))] = 0 if block is None else block
    return box, out


def halved(half: Half, factors: Vec3Int, mode: str) -> Half:
    """Return a block shrunk by factors; where its box is not made of whole windows, voxels are mirrored there.

    Only the windows at such a border are padded, not the block::

        | a a | b b | b b | b .        three windows as they are, one with its b mirrored

    Parameters
    ----------
    half
        Where the block is, in its own voxels, and the block, ``(c, *box.size)``.
    factors
        Voxels of the block per voxel of the result, along each axis.
    mode
        A mode of `wkdask.kernels.downsample`.
    """
    from wkdask.kernels import downsample, mirror_pad

    box, block = half
    wide = box.aligned_outwards(factors)
    target = BoundingBox(wide.topleft // factors, wide.size // factors)
    if block is None:
        return target, None
    out: Voxels = np.empty((block.shape[0], *target.size), dtype=block.dtype, order="F")
    for part in _by_border(box, target, factors):
        windows = BoundingBox(part.topleft * factors, part.size * factors)
        inside = windows.intersection(box)
        voxels = block[(slice(None), *inside.to_slices(box.topleft))]
        if inside != windows:
            before, after = inside.topleft - windows.topleft, windows.bottomright - inside.bottomright
            voxels = mirror_pad(voxels, tuple(before), tuple(after))
        downsample(voxels, tuple(factors), mode, out=out[(slice(None), *part.to_slices(target.topleft))])
    return target, out


def _by_border(box: BoundingBox, target: BoundingBox, factors: Vec3Int) -> Iterator[BoundingBox]:
    """Cut the windows of a box into those that are whole and, along each axis, those across its border."""
    spans = []
    for axis in range(3):
        low, high = target.topleft[axis], target.bottomright[axis]
        cuts = {low, high}
        if box.topleft[axis] % factors[axis]:
            cuts.add(low + 1)
        if box.bottomright[axis] % factors[axis]:
            cuts.add(high - 1)
        spans.append(list(itertools.pairwise(sorted(cuts))))
    for corners in itertools.product(*spans):
        yield BoundingBox.from_corners(*zip(*corners, strict=True))


def read_mirrored(source: Readable | MagReader, valid: BoundingBox, box: BoundingBox) -> Voxels:
    """Read a box of which some may lie outside of the valid voxels; those are mirrored at the border.

    The mirror image of a voxel k outside is the voxel k-1 inside, also where that lies outside of `box`, so
    that the result does not depend on how the work is cut.
    """
    from wkdask.kernels import mirror_pad

    inside = box.intersection(valid)
    if inside == box:
        return source.read(box)
    before, after = inside.topleft - box.topleft, box.bottomright - inside.bottomright
    # As many voxels beyond the box, on its inner side, as are to be mirrored on its outer side.
    wide = BoundingBox.from_corners(inside.topleft - after, inside.bottomright + before).intersection(valid)
    block = mirror_pad(source.read(wide), tuple(before), tuple(after))
    crop = box.offset(before - wide.topleft)
    return block[(slice(None), *crop.to_slices())]
