"""How a pyramid is cut into tasks so that they fit into memory. Pure: integers in, integers out.

A leaf is whole cubes of the first level where that leaves enough of them for all threads, and a part of a cube
where it does not. A node above takes 8 to 64 of the nodes below it. What a task holds is known beforehand: its own
voxels of every level, the halves that it takes, a cube under construction; and what waits for tasks to come, which
is little because work goes depth first. Where that is too much the nodes are cut smaller; a cube that no node can
hold is written in parts; and what cannot be written in parts is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from wkdask.errors import PlanError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid, block_shape_near
from wkdask.geometry.voxel_size import format_bytes
from wkdask.pyramid.levels import Level, disjoint
from wkdask.pyramid.tree import Tier, TreePlan
from wkdask.storage.publish.assemble import publication_nbytes

__all__ = ["plan_tree"]

LEAF_NBYTES = 128 << 20
"""Source voxels of a leaf at most, unless one cube asks for more; at least half of it, where that leaves work for
all threads: a scheduler hands out 100 to 5000 tasks per second."""
_LEAST_LEAF_NBYTES = 8 << 20
"""A leaf is not cut smaller than this, however few there are."""
TILE_NBYTES = 4 << 20
"""Source voxels that a leaf holds at once: they stay in the cache between the read and the kernel."""
_FAN_IN = 64
"""Children of a node, where its cubes do not ask for more."""


def plan_tree(
    levels: Sequence[Level],
    boxes: Sequence[BoundingBox] | None = None,
    *,
    threads: int = 1,
    memory: int | None = None,
    task_memory: int | None = None,
    leaf: Vec3Int | None = None,
) -> TreePlan:
    """Plan one pass of a pyramid.

    Parameters
    ----------
    levels
        The source, then the mags that are written.
    boxes
        What is computed, in voxels of level 0; aligned outwards to the coarsest mag here. All by default.
    threads
        Tasks that run at once.
    memory
        Bytes that one task may use; None where unknown. Nodes are cut so that they fit.
    task_memory
        Bytes that a task needs, where the caller knows better than the estimate.
    leaf
        Voxels of level 0 of a leaf, where something else has cut the work already: the units of a write, whose
        blocks are then the leaves' voxels. A whole number of windows of the first step.

    Raises
    ------
    PlanError
        If there is nothing to compute, or a task would need more than `memory` however the tree is cut.
    """
    levels, coarsest = tuple(levels), levels[-1]
    whole = BoundingBox(coarsest.box.topleft * coarsest.step, coarsest.box.size * coarsest.step)
    wanted = (
        [whole]
        if boxes is None
        else [box.aligned_outwards(coarsest.step).intersection(whole) for box in boxes]
    )
    parts = disjoint(wanted)
    if not parts:
        raise PlanError(
            "there is nothing to compute: the layer's box, or all that was asked for, holds no voxel"
        )
    volume = sum(box.volume() for box in parts)
    design = _Design(levels, parts, max(1, volume * levels[0].spec.bytes_per_voxel // (4 * threads)), threads)
    design.leaf = leaf
    budget, least = (None if task_memory else memory), None
    for _ in range(8):
        tiers = design.tiers(budget, memory)
        if tiers is not None:
            needed = task_memory or design.task_nbytes(tiers)
            least = needed if least is None else min(least, needed)
            if memory is None or needed <= memory:
                return TreePlan(levels, tiers, tuple(parts), design.tile(tiers[0].shape), needed)
        if budget is None:
            break
        budget = budget * 3 // 4  # what waits for other tasks counts too: smaller nodes, less of it
    largest = max(levels[1:], key=lambda level: level.spec.cube_nbytes)
    least = design.least_nbytes() if least is None else least
    raise PlanError(
        f"a task of the pyramid would need about {format_bytes(least)} (its cubes, their voxels on the way, and "
        f"what waits for other tasks), but only {format_bytes(memory or 0)} are there for each task; use a smaller "
        f"shard_shape than {largest.spec.shard_shape} for mag {largest.mag}, fewer threads per worker, or "
        f"task_memory= if you know that it needs less"
    )


class _Design:
    """Shapes of tiers for a budget of bytes."""

    def __init__(
        self, levels: tuple[Level, ...], boxes: Sequence[BoundingBox], share: int, threads: int
    ) -> None:
        self.levels, self.share, self.threads = levels, share, threads
        self.boxes = boxes
        self.leaf: Vec3Int | None = None
        self.extent = boxes[0].size
        for box in boxes[1:]:
            self.extent = self.extent.pairmax(box.size)
        self.top = len(levels) - 1

    def tile(self, shape: Vec3Int) -> Vec3Int:
        """Return what a leaf reads at once."""
        base = _lcm(self.levels[0].chunk, self.levels[1].step)
        return block_shape_near(shape, base, self.levels[0].spec.bytes_per_voxel, TILE_NBYTES, shape)

    def piece(self, level: int, shape: Vec3Int) -> int:
        """Return the bytes of a level's voxels in a node of some shape, at most."""
        known = self.levels[level]
        return shape.pairmin(self.extent).ceildiv(known.step).prod() * known.spec.bytes_per_voxel

    def building(self, level: int, shape: Vec3Int) -> int:
        """Return the bytes that building a cube of a level takes beside the node's own voxels of it."""
        known = self.levels[level]
        ragged = any(
            any(corner % known.cube) for box in self.boxes for corner in (box.topleft, box.bottomright)
        )
        if known.spec.compression is not None and (ragged or known.existing):
            return known.spec.cube_nbytes  # the old cube, or zeros, around what is written
        return 0 if shape == known.cube else min(known.spec.cube_nbytes, self.piece(level, shape))

    def node_nbytes(self, shape: Vec3Int, first: int, last: int, staged: Iterable[int] = ()) -> int:
        """Return the bytes that a node holds at most: a leaf if `first` is 1 and `shape` that of a leaf."""
        handed = range(first + 1, min(last + 1, self.top) + 1)
        own = 2 * self.piece(first, shape) + sum(self.piece(level, shape) for level in handed)
        return own + self._building_of(range(first, last + 1), shape, staged)

    def leaf_nbytes(self, shape: Vec3Int, last: int, staged: Iterable[int] = ()) -> int:
        """Return the bytes that a leaf holds at most: its voxels of every level, and tiles of the source."""
        own = sum(self.piece(level, shape) for level in range(1, min(last + 1, self.top) + 1))
        tile = self.tile(shape).pairmin(self.extent).prod() * self.levels[0].spec.bytes_per_voxel
        return own + 3 * tile + self._building_of(range(1, last + 1), shape, staged)

    def _building_of(self, levels: Iterable[int], shape: Vec3Int, staged: Iterable[int]) -> int:
        staged = set(staged)
        return max(
            (
                min(self.piece(level, shape), self.levels[level].spec.cube_nbytes)
                if level in staged
                else self.building(level, shape)
                for level in levels
            ),
            default=0,
        )

    def tiers(self, budget: int | None, memory: int | None) -> tuple[Tier, ...] | None:
        """Return the tiers whose nodes stay within a budget, what publishes within all; None if there are none."""
        limit = math.inf if budget is None else budget
        shape = self._leaf_shape(limit)
        if shape is None:
            return None
        last, staged = self._reach(shape, 1, limit, leaf=True)
        tiers = [Tier(shape, 1, last, staged)]
        while last < self.top:
            first = last + 1
            found = self._node_shape(shape, first, limit)
            if found is None:
                return None
            shape = found
            last, staged = self._reach(shape, first, limit, leaf=False)
            if last < first:
                return None
            tiers.append(Tier(shape, first, last, staged))
        return self._settled(tiers, math.inf if budget is None or memory is None else memory)

    def _leaf_shape(self, limit: float) -> Vec3Int | None:
        """Return the shape of the leaves: whole cubes of the first level if that leaves enough of them."""
        source, first = self.levels[0], self.levels[1]
        if self.leaf is not None:
            fits = not any(self.leaf % first.step) and self.leaf_nbytes(self.leaf, 0) <= limit
            return self.leaf if fits else None
        wanted = min(LEAF_NBYTES, max(self.share, _LEAST_LEAF_NBYTES))
        above = self.levels[min(2, self.top)].step
        cube = _lcm(_lcm(first.cube, source.chunk), above)
        if self._nbytes(cube) > wanted:
            enough = self._count(cube) >= 4 * self.threads
            if (enough or self._must_stage(cube, 1, limit)) and self.leaf_nbytes(cube, 1) <= limit:
                return cube
        base = _lcm(source.chunk, first.step)
        if self._must_stage(cube, 1, limit) and self.leaf_nbytes(cube, 1) > limit:
            base = _lcm(_lcm(base, first.chunk), above)
        while True:
            shape = block_shape_near(cube, base, source.spec.bytes_per_voxel, wanted, self._reached(cube))
            if self.leaf_nbytes(shape, 0) <= limit:
                return shape
            if wanted <= self._nbytes(base):
                return None
            wanted = min(wanted, self._nbytes(shape)) // 2

    def _count(self, shape: Vec3Int) -> int:
        """Return how many nodes of a shape there are."""
        return sum(len(CubeGrid(shape).cubes(box)) for box in self.boxes)

    def _nbytes(self, shape: Vec3Int) -> int:
        """Return the bytes of the source's voxels in a shape."""
        return shape.prod() * self.levels[0].spec.bytes_per_voxel

    def _reached(self, shape: Vec3Int) -> Vec3Int:
        """Return how far shapes on the grid of `shape` need to reach at most."""
        reach = self.boxes[0].aligned_outwards(shape).size
        for box in self.boxes[1:]:
            reach = reach.pairmax(box.aligned_outwards(shape).size)
        return reach

    def _must_stage(self, shape: Vec3Int, level: int, limit: float) -> bool:
        """Return whether no node could put a cube of a level together in memory."""
        cube = _lcm(shape, self.levels[level].cube)
        return self.node_nbytes(cube, level, level) > limit

    def _reach(self, shape: Vec3Int, first: int, limit: float, *, leaf: bool) -> tuple[int, frozenset[int]]:
        """Return the last level that nodes write, beginning with `first`, and those that they write in parts."""
        staged: set[int] = set()
        level = first
        while level <= self.top:
            known = self.levels[level]
            if level < self.top and any(shape % self.levels[level + 1].step):
                break
            parts = bool(any(shape % known.cube))
            if parts and (any(shape % known.chunk) or not self._must_stage(shape, level, limit)):
                break
            trial = staged | {level} if parts else staged
            needed = (
                self.leaf_nbytes(shape, level, trial)
                if leaf
                else self.node_nbytes(shape, first, level, trial)
            )
            if needed > limit:
                break
            staged = trial
            level += 1
        return level - 1, frozenset(staged)

    def _node_shape(self, below: Vec3Int, level: int, limit: float) -> Vec3Int | None:
        """Return the shape of nodes that begin with a level: whole cubes, or else parts that fit."""
        known = self.levels[level]
        above = self.levels[min(level + 1, self.top)].step
        shape = _lcm(_lcm(below, known.cube), above)
        if self.node_nbytes(shape, level, level) > limit:
            shape = _lcm(_lcm(below, known.chunk), above)
            if self.node_nbytes(shape, level, level, [level]) > limit:
                return None
        while True:
            axis = min(
                (side, axis)
                for axis, side in enumerate(
                    side if side < reach else math.inf
                    for side, reach in zip(shape, self._reached(shape), strict=True)
                )
            )
            if axis[0] == math.inf:
                return shape
            larger = Vec3Int(side * 2 if number == axis[1] else side for number, side in enumerate(shape))
            if (
                self._count(larger) < 4 * self.threads
                or (larger // below).prod() > _FAN_IN
                or self.piece(level, larger) > LEAF_NBYTES
                or self.node_nbytes(larger, level, level) > limit
            ):
                return shape
            shape = larger

    def _settled(self, tiers: list[Tier], limit: float) -> tuple[Tier, ...] | None:
        """Return the tiers, each with the levels whose staged cubes are complete with its nodes."""
        for number, tier in enumerate(list(tiers)):
            for level in sorted(tier.staged):
                if publication_nbytes(self.levels[level].spec) > limit:
                    return None
                cube = self.levels[level].cube
                place = next((n for n in range(number, len(tiers)) if not any(tiers[n].shape % cube)), None)
                if place is None:
                    place = len(tiers)
                    tiers.append(Tier(_lcm(tiers[-1].shape, cube), 1, 0, nodes=False))
                tiers[place] = replace(tiers[place], settles=(*tiers[place].settles, level))
        return tuple(tiers)

    def task_nbytes(self, tiers: Sequence[Tier]) -> int:
        """Return the bytes for each thread: the largest task, and its share in the halves that wait."""
        peak = self.leaf_nbytes(tiers[0].shape, tiers[0].last, tiers[0].staged)
        waiting = 0
        for below, tier in pairwise(tiers):
            if tier.nodes:
                peak = max(peak, self.node_nbytes(tier.shape, tier.first, tier.last, tier.staged))
                siblings = (tier.shape.pairmin(self._reached(below.shape))).ceildiv(below.shape).prod()
                waiting += (siblings + self.threads) * self.piece(tier.first, below.shape)
        published = [publication_nbytes(self.levels[level].spec) for tier in tiers for level in tier.settles]
        return max(peak, *published, 0) + waiting // self.threads

    def least_nbytes(self) -> int:
        """Return the bytes that the most careful design would need at least, for a message."""
        return max(
            min(
                2 * self.piece(level, self.levels[level].cube)
                + self.building(level, self.levels[level].cube),
                publication_nbytes(self.levels[level].spec),
            )
            for level in range(1, self.top + 1)
        )


def _lcm(a: Vec3Int, b: Vec3Int) -> Vec3Int:
    """Return the least common multiple along each axis."""
    return Vec3Int(math.lcm(x, y) for x, y in zip(a, b, strict=True))
