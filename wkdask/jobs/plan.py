"""(source, target) -> units and windows: integers in, integers out, refusals before anything is written.

::

    cubes     |.|.|.|.|.|.|.|.|      one file each
    units     |...|...|...|...|      one task each: whole cubes, about 64 MiB
    windows   |.......|.......|      what is in flight: one graph each, never one for all

All are cut on the absolute grid, so that a cube has one unit and a unit one window. The plan holds no
list of anything: cube, unit and window are computed from their number.

A cube that is too large for a task is assembled out of core::

    cube      |...............|      published when all its parts are there, by a task that never holds it
    parts     |...|...|...|...|      one task each: whole chunks, side by side in a private plain cube
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import ne
from typing import Any

import numpy as np

from wkdask.errors import PlanError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid, IndexRange, block_shape_near, chunks_on_grid
from wkdask.geometry.voxel_size import format_bytes
from wkdask.storage.protocol import LARGEST_COMPRESSED, ArraySpec

__all__ = ["UnitBoxes", "Window", "WritePlan", "plan_again", "plan_write", "refuse_unknown_chunks"]

MAX_CUBES = 10**12
"""Cubes of a job: at a million in a second it would take two weeks."""
UNIT_NBYTES = 64 << 20
"""A task of fewer bytes costs more in scheduling than in work."""
_BLOCK_NBYTES = 8 << 20
"""Source blocks that are whole cubes are units as they are, from so many bytes on."""
BESIDE_NBYTES = 48 << 20
"""What the first task of a process holds beside its voxels, which it never gives back: kernels, modules, buffers.

It counts where memory is short, as for cubes in parts, and there beside what was planned for an idle process."""
WINDOW_UNITS = 256
"""Units of one graph: enough to keep workers busy, few enough that building a graph takes moments."""
SINGLE_WINDOW_UNITS = 1024
"""Up to so many units a job is one graph, which shares whatever its units share."""


@dataclass(frozen=True, slots=True)
class WritePlan:
    """How a box of a mag is written."""

    box: BoundingBox
    """What is written: absolute, in voxels of the mag."""
    cube: CubeGrid
    """The mag's cubes."""
    unit: CubeGrid
    """Groups of whole cubes, one task each."""
    window: CubeGrid
    """Groups of whole units, one graph each."""
    voxel_nbytes: int
    """Bytes of a voxel, all channels."""
    task_nbytes: int
    """Bytes that a task is expected to hold at most."""
    part: CubeGrid | None = None
    """Parts of cubes, one task each, where a cube is too large for a task."""

    @property
    def parts(self) -> WritePlan | None:
        """The plan whose units are the parts; None where tasks hold whole cubes."""
        if self.part is None:
            return None
        window = _window_shape(self.part.shape, self.voxel_nbytes, self.box)
        return replace(self, unit=self.part, window=CubeGrid(window), part=None)

    @property
    def units(self) -> IndexRange:
        """Indices of all units."""
        return self.unit.cubes(self.box)

    @property
    def windows(self) -> Iterator[Window]:
        """Yield all windows, x fastest."""
        return (Window(self, index) for index in self.window.cubes(self.box))

    @property
    def num_windows(self) -> int:
        """Graphs that the job needs."""
        return len(self.window.cubes(self.box))

    @property
    def num_cubes(self) -> int:
        """Cubes that the box touches."""
        return len(self.cube.cubes(self.box))

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels written."""
        return self.box.volume() * self.voxel_nbytes


@dataclass(frozen=True, slots=True)
class Window:
    """The units that are in flight together."""

    plan: WritePlan
    """The whole."""
    index: Vec3Int
    """Index on the grid of windows."""

    @property
    def box(self) -> BoundingBox:
        """What the window writes, absolute."""
        return self.plan.window.cube_box(self.index).intersection(self.plan.box)

    @property
    def units(self) -> IndexRange:
        """Indices of its units on the grid of units."""
        return self.plan.unit.cubes(self.box)

    def unit_box(self, place: tuple[int, ...]) -> BoundingBox:
        """Return what a unit writes, by its place (x, y, z) within the window."""
        return self.plan.unit.cube_box(self.units.start + place).intersection(self.box)

    def unit_boxes(self) -> UnitBoxes:
        """Return what each unit writes, x fastest."""
        return UnitBoxes(self, self.units)


@dataclass(frozen=True, slots=True)
class UnitBoxes:
    """What units of a window write: counted before they are made, since a resumed job passes most of them by."""

    window: Window
    """The window."""
    units: IndexRange
    """Indices of all its units on the grid of units."""
    left: tuple[int, ...] | None = None
    """Which of them, x fastest; None for all."""

    def __len__(self) -> int:
        return len(self.units) if self.left is None else len(self.left)

    def __iter__(self) -> Iterator[BoundingBox]:
        return (box for _, box in self.items())

    def items(self) -> Iterator[tuple[Vec3Int, BoundingBox]]:
        """Yield the place (x, y, z) of each unit within the window, and what it writes."""
        units, grid, inside = self.units, self.window.plan.unit, self.window.box
        start = units.start
        indices = units if self.left is None else map(units.__getitem__, self.left)
        for index in indices:
            yield index - start, grid.cube_box(index).intersection(inside)

    def without(self, done: np.ndarray[Any, np.dtype[np.bool_]]) -> UnitBoxes:
        """Return the units of which `done`, x fastest and for all of the window, is false."""
        return replace(self, left=tuple(np.flatnonzero(~done).tolist()))


def refuse_unknown_chunks(chunks: Sequence[Sequence[float]]) -> None:
    """Refuse an array that does not know the sizes of its blocks.

    Raises
    ------
    PlanError
        If a length is NaN, as after indexing with a mask.
    """
    if any(math.isnan(length) for axis in chunks for length in axis):
        raise PlanError(
            "the array does not know the sizes of its blocks (NaN), so they cannot be placed on the cube "
            "grid; call array.compute_chunk_sizes() first"
        )


def plan_write(
    spec: ArraySpec,
    box: BoundingBox,
    *,
    source_chunks: Sequence[Sequence[int]] | None = None,
    threads: int = 1,
    memory: int | None = None,
    task_memory: int | None = None,
    unit_nbytes: int = UNIT_NBYTES,
    base: Vec3Int | None = None,
    unit: Vec3Int | None = None,
    in_parts: bool = False,
    listed: bool = False,
) -> WritePlan:
    """Plan the write of a box.

    Parameters
    ----------
    spec
        Type and cut of the target.
    box
        Absolute, in voxels of the target's mag.
    source_chunks
        Lengths (x, y, z) of the blocks of the array that is written; None where tasks read for themselves.
    threads
        Tasks that run at once: there should be several units for each.
    memory
        Bytes that one task may use; None where unknown.
    task_memory
        Bytes that a task needs, where the caller knows better than the estimate.
    unit_nbytes
        Bytes of voxels that a unit should have, if its cubes are smaller.
    base
        The least shape of a unit, where that is more than one cube: a whole number of cubes, or for tasks that
        write nothing anything.
    unit
        The shape of a unit, where it is given: that of a job that is resumed.
    in_parts
        Whether the tasks can write parts of a cube, so that one which does not fit can be assembled out of core.
    listed
        Whether only some units of the box will be run, which the caller lists: then it may be as large as it likes.

    Raises
    ------
    PlanError
        If a task would need more than `memory`, or the box can only be a mistake.
    """
    if box.is_empty():
        raise PlanError(f"there is nothing to write: the box {box} holds no voxel")
    cubes = spec.grid.cubes(box).shape.prod()
    if cubes > MAX_CUBES and not listed:
        raise PlanError(
            f"the box {box} has {cubes:.1e} cubes of {spec.shard_shape}, which no job can end; is it the layer's "
            f"box? Set that to where its data are"
        )
    share = box.volume() * spec.bytes_per_voxel // (4 * threads)
    wanted = max(min(unit_nbytes, share), spec.cube_nbytes if base is None else 0)
    least = base or spec.shard_shape
    shape = unit or _shape_of_blocks(spec, box, source_chunks, wanted) or _grown(spec, least, wanted, box)

    def needed(shape: Vec3Int) -> int:
        return task_memory or _task_nbytes(spec, CubeGrid(shape), box, source_chunks)

    if memory is not None and needed(shape) > memory and unit is None:
        shape = least  # no more cubes per task than needed
    plan = plan_again(spec, box, shape)
    if memory is None or needed(shape) <= memory:
        return replace(plan, task_nbytes=needed(shape))
    part = _part_that_fits(spec, box, source_chunks, memory) if in_parts and task_memory is None else None
    if part is None or (spec.compression is not None and spec.cube_nbytes > LARGEST_COMPRESSED):
        raise PlanError(_does_not_fit(spec, needed(shape), memory))
    own = _task_nbytes(spec, CubeGrid(part), box, source_chunks, in_parts=True)
    # Now and then one block more is on its way between workers (in one of some ten runs of 8 GiB).
    passing = 0 if source_chunks is None else math.prod(map(max, source_chunks)) * spec.bytes_per_voxel
    return replace(plan, part=CubeGrid(part), task_nbytes=own + passing + BESIDE_NBYTES)


def plan_again(spec: ArraySpec, box: BoundingBox, unit: Vec3Int, part: Vec3Int | None = None) -> WritePlan:
    """Return the plan of a job whose units are known, as those of one that is resumed.

    Parameters
    ----------
    spec, box
        As for `plan_write`.
    unit, part
        Voxels of a unit, and of a part where cubes are assembled out of core.
    """
    return WritePlan(
        box=box,
        cube=spec.grid,
        unit=CubeGrid(unit),
        window=CubeGrid(_window_shape(unit, spec.bytes_per_voxel, box)),
        voxel_nbytes=spec.bytes_per_voxel,
        task_nbytes=_task_nbytes(spec, CubeGrid(part or unit), box, None, in_parts=part is not None),
        part=None if part is None else CubeGrid(part),
    )


def _window_shape(unit: Vec3Int, voxel_nbytes: int, box: BoundingBox) -> Vec3Int:
    """Return the shape of a window: all of a small job, else so many units that a graph takes moments."""
    units = CubeGrid(unit).cubes(box)
    if len(units) <= SINGLE_WINDOW_UNITS:
        return units.stop * unit  # from the origin: no edge of it cuts the box
    return _doubled(unit, voxel_nbytes, WINDOW_UNITS * unit.prod() * voxel_nbytes, box)


def _part_that_fits(
    spec: ArraySpec, box: BoundingBox, chunks: Sequence[Sequence[int]] | None, memory: int
) -> Vec3Int | None:
    """Return the largest part of a cube, of whole chunks, that a task can hold; None if no part can."""
    shape = spec.shard_shape
    while _task_nbytes(spec, CubeGrid(shape), box, chunks, in_parts=True) > memory:
        smaller = block_shape_near(
            shape, spec.chunk_shape, spec.bytes_per_voxel, shape.prod() * spec.bytes_per_voxel - 1, box.size
        )
        if smaller == shape:
            return None
        shape = smaller
    return shape


def _does_not_fit(spec: ArraySpec, needed: int, memory: int) -> str:
    """Return what to say of a task that does not fit in memory, with what would."""
    side = spec.shard_shape
    while side.prod() * spec.bytes_per_voxel * 3 > memory and min(side) > max(spec.chunk_shape):
        side = side // 2
    return (
        f"a task would need about {format_bytes(needed)} (cube, its copy and the source blocks that touch "
        f"it), but only {format_bytes(memory)} are there for each task; use a smaller shard_shape than "
        f"{spec.shard_shape}, such as {side}; smaller source blocks; fewer threads per worker; or task_memory= "
        f"if you know that it needs less"
    )


def _shape_of_blocks(
    spec: ArraySpec, box: BoundingBox, chunks: Sequence[Sequence[int]] | None, wanted: int
) -> Vec3Int | None:
    """Return the shape of the source's blocks, if they are whole cubes and neither tiny nor huge.

    A unit that is one block needs no rechunk: reading, computing and writing it is a single task.
    """
    if chunks is None:
        return None
    shape = Vec3Int(
        max(lengths) if len(lengths) > 1 else -(-high // shard) * shard
        for lengths, high, shard in zip(chunks, box.bottomright, spec.shard_shape, strict=True)
    )
    nbytes = shape.pairmin(box.size).prod() * spec.bytes_per_voxel
    on_grid = chunks_on_grid(box, shape) == tuple(tuple(lengths) for lengths in chunks)
    if any(shape % spec.shard_shape) or not on_grid or not min(_BLOCK_NBYTES, wanted) <= nbytes <= 4 * wanted:
        return None
    return shape


def _grown(spec: ArraySpec, shape: Vec3Int, limit: int, box: BoundingBox) -> Vec3Int:
    """Return `shape` doubled as `_doubled` does, at least as it is."""
    return _doubled(shape, spec.bytes_per_voxel, max(limit, shape.prod() * spec.bytes_per_voxel), box)


def _doubled(shape: Vec3Int, voxel_nbytes: int, limit: int, box: BoundingBox) -> Vec3Int:
    """Return `shape` doubled along its shortest sides up to `limit` bytes, no further than the box reaches."""
    return block_shape_near(shape, shape, voxel_nbytes, limit, box.aligned_outwards(shape).size)


def _task_nbytes(
    spec: ArraySpec,
    unit: CubeGrid,
    box: BoundingBox,
    source_chunks: Sequence[Sequence[int]] | None,
    *,
    in_parts: bool = False,
) -> int:
    """Return the bytes that a task holds: its part of the box, a copy in the file's order, its source blocks.

    Where an array is rechunked, the blocks of the next unit are made while this one waits for a block from
    another worker. A compressed cube that is written in part is decoded and put together in memory as well, unless
    it is assembled out of core.
    """
    extent = unit.shape.pairmin(box.size)
    own = extent.prod() * spec.bytes_per_voxel
    source = 0
    if source_chunks is not None:
        touched = [
            _longest_overlap(lengths, low, step)
            for lengths, low, step in zip(source_chunks, box.topleft, unit.shape, strict=True)
        ]
        source = math.prod(touched) * spec.bytes_per_voxel
        if any(map(ne, map(tuple, source_chunks), chunks_on_grid(box, unit.shape))):
            source *= 2
    is_partial = box != box.aligned_outwards(spec.shard_shape)
    whole = spec.cube_nbytes if spec.compression is not None and is_partial and not in_parts else 0
    return own + max(own, whole) + source


def _longest_overlap(lengths: Sequence[int], low: int, step: int) -> int:
    """Return how many voxels along an axis the blocks touching one unit have together, at most."""
    longest, position = 0, low
    spans: dict[int, list[int]] = {}
    for length in lengths:
        if length:
            for number in {position // step, (position + length - 1) // step}:
                span = spans.setdefault(number, [position, position])
                span[1] = position + length
        position += length
    for start, stop in spans.values():
        longest = max(longest, stop - start)
    return longest
