"""The tree of a pyramid: which task reads, assembles and publishes what. Pure: nothing is listed before its turn.

::

    mag 8        [               #               ]     a node takes its children's halves, publishes its cubes,
    mag 4        [       #       |       #       ]     hands its own half upwards
    mag 2        [   #   |   #   |   #   |   #   ]
    mag 1        [ # | # | # | # | # | # | # | # ]     read once, tile by tile, by the leaves

Nodes of one size are a *tier*. The leaves are the first: each reads its part of the finest mag (level 0) and
computes every level whose cubes lie inside it. Where cubes are small a leaf is a whole sub-tree; where they are
large, a leaf makes one cube, or a part of one. A cube that no task can hold is put together out of core: tasks
write their parts, on the chunk grid, into a private plain mag, and another task publishes it when all are there.

All tiers are cut on the absolute grid, so a cube has one owner. Shapes of tiers count voxels of level 0, boxes of
a level voxels of that level.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid, box_tiles
from wkdask.pyramid.levels import Level

__all__ = ["Tier", "TreeNode", "TreePlan"]


@dataclass(frozen=True, slots=True)
class Tier:
    """Nodes of one size."""

    shape: Vec3Int
    """Voxels of level 0 that a node covers."""
    first: int
    """The first level that its nodes write; what they take is one below for leaves, this one for others."""
    last: int
    """The last one; less than `first` where leaves only hand halves upwards."""
    staged: frozenset[int] = frozenset()
    """Levels of which its nodes write parts into a private mag."""
    settles: tuple[int, ...] = ()
    """Staged levels whose cubes are complete when the nodes within one of `shape` are done."""
    nodes: bool = True
    """False for a tier that only publishes what was staged below it."""


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One task of the tree."""

    tier: int
    """Its tier; the nodes of tier 0 are leaves."""
    cell: BoundingBox
    """What it covers, in voxels of level 0."""
    boxes: tuple[BoundingBox, ...]
    """What is computed of it, in voxels of level 0: disjoint, on the grid of the coarsest mag."""
    key: str
    """Unique within the tree."""
    needs: tuple[str, ...] = ()
    """Keys of the nodes whose halves it takes."""
    after: tuple[str, ...] = ()
    """Keys of the nodes that must have ended before it: those that wrote the parts that it publishes."""
    publishes: int | None = None
    """The level whose staged cubes it publishes; None for a node that computes."""
    parent: str | None = None
    """Key of the node that takes its halves; None where they are not wanted."""
    awaited: bool = False
    """Whether a later one names it in `after`."""
    frees: tuple[str, ...] = ()
    """Keys of the nodes that no later one names in `after`."""


@dataclass(frozen=True, slots=True)
class TreePlan:
    """How the coarser mags of a layer are computed from one of them."""

    levels: tuple[Level, ...]
    """The source, then the mags that are written, finest first."""
    tiers: tuple[Tier, ...]
    """The leaves, then each tier above; the shape of each is a multiple of the one before."""
    boxes: tuple[BoundingBox, ...]
    """What is computed, in voxels of level 0: disjoint, on the grid of the coarsest mag."""
    tile: Vec3Int
    """Voxels of level 0 that a leaf reads at once."""
    task_nbytes: int
    """Bytes that a task and what waits for others come to at most, for each thread."""

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels that are written, all mags."""
        return sum(
            level.within(box).volume() * level.spec.bytes_per_voxel
            for level in self.levels[1:]
            for box in self.boxes
        )

    @property
    def num_cubes(self) -> int:
        """Cubes of all mags that are written; those that several boxes touch count for each."""
        return sum(
            len(level.spec.grid.cubes(level.within(box))) for level in self.levels[1:] for box in self.boxes
        )

    @property
    def num_nodes(self) -> int:
        """Tasks."""
        if len(self.boxes) > 1:
            return sum(1 for _ in self.nodes())
        (box,) = self.boxes
        count = 0
        for tier in self.tiers:
            count += tier.nodes * len(CubeGrid(tier.shape).cubes(box))
            count += sum(len(CubeGrid(self.levels[level].cube).cubes(box)) for level in tier.settles)
        return count

    def nodes(self) -> Iterator[TreeNode]:
        """Yield all tasks, depth first: children before their parent, a sub-tree before the next."""
        top = len(self.tiers) - 1
        grid = CubeGrid(self.tiers[top].shape)
        # Each range of indices is in this order: merged, none is ever listed.
        indices = heapq.merge(*(grid.cubes(box) for box in self.boxes), key=lambda index: index[::-1])
        for index, _ in groupby(indices):
            held, awaited = None, []
            for node in self._below(top, grid.cube_box(index), self.boxes, None):
                if held is not None:
                    yield held
                held = node
                awaited += [node.key] if node.awaited else []
            if held is not None:
                yield replace(held, frees=tuple(awaited))

    def _below(
        self, number: int, cell: BoundingBox, boxes: Sequence[BoundingBox], parent: str | None
    ) -> Iterator[TreeNode]:
        """Yield the tasks within one cell of a tier."""
        parts = tuple(part for box in boxes if not (part := box.intersection(cell)).is_empty())
        if not parts:
            return
        tier = self.tiers[number]
        key = _key(number, cell)
        needs: list[str] = []
        written: list[TreeNode] = []
        if number:
            shape = self.tiers[number - 1].shape
            for child in box_tiles(cell, shape):
                for node in self._below(number - 1, child, parts, key if tier.nodes else parent):
                    if tier.nodes and node.parent == key:
                        needs.append(node.key)
                    if tier.settles and node.publishes is None:
                        written.append(node)
                    yield node
        if tier.nodes:
            above = parent if tier.last + 1 < len(self.levels) else None
            node = TreeNode(
                number, cell, parts, key, needs=tuple(needs), parent=above, awaited=bool(tier.staged)
            )
            written.append(node)
            yield node
        for level in tier.settles:
            yield from self._publications(number, level, cell, parts, written)

    def _publications(
        self,
        number: int,
        level: int,
        cell: BoundingBox,
        parts: Sequence[BoundingBox],
        written: Sequence[TreeNode],
    ) -> Iterator[TreeNode]:
        """Yield a task for each cube of a staged level in a cell."""
        writers = [node for node in written if level in self.tiers[node.tier].staged]
        for index in CubeGrid(self.levels[level].cube).cubes(cell):
            cube = CubeGrid(self.levels[level].cube).cube_box(index)
            mine = tuple(part for box in parts if not (part := box.intersection(cube)).is_empty())
            if mine:
                after = tuple(
                    node.key
                    for node in writers
                    if any(not box.intersection(cube).is_empty() for box in node.boxes)
                )
                yield TreeNode(
                    number, cube, mine, f"cube-{level}-{_corner(cube)}", after=after, publishes=level
                )


def _corner(box: BoundingBox) -> str:
    return "-".join(map(str, box.topleft))


def _key(tier: int, cell: BoundingBox) -> str:
    """Return the name of a node."""
    return f"node-{tier}-{_corner(cell)}"
