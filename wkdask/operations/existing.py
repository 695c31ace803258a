"""Works on the cubes that exist: the gaps between them, however large, cost nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.geometry import EMPTY_BOX, BoundingBox, Vec3Int
from wkdask.jobs.engines.choice import Engine, pick_engine
from wkdask.jobs.events import Event, UnitDone
from wkdask.jobs.job import MagPlace
from wkdask.jobs.plan import WritePlan, plan_write
from wkdask.jobs.tasks import UnitReport, ended
from wkdask.jobs.unwritten import run_unwritten
from wkdask.jobs.windows import listed_windows, task_name
from wkdask.storage.protocol import MagReader, StoredMag

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["nonzero_box", "plan_existing"]


def plan_existing(
    store: StoredMag, cubes: Sequence[Vec3Int], engine: Engine, task_memory: int | None = None
) -> tuple[WritePlan, list[BoundingBox]]:
    """Plan a work on the cubes that exist; the gaps between them, however large, cost nothing.

    Parameters
    ----------
    store
        The mag.
    cubes
        Indices of its cubes, at least one.
    engine
        Where it runs.
    task_memory
        Bytes that a task needs, where the estimate is wrong.

    Returns
    -------
    WritePlan
        The plan of the union.
    list of BoundingBox
        Its units that hold a cube: absolute, in voxels of the mag.
    """
    grid = store.spec.grid
    union = reduce(BoundingBox.extended_by, map(grid.cube_box, cubes))
    plan = plan_write(
        store.spec,
        union,
        threads=engine.threads,
        memory=engine.task_memory(),
        task_memory=task_memory,
        listed=True,
    )
    units = sorted({index * grid.shape // plan.unit.shape for index in cubes}, key=lambda unit: unit[::-1])
    return plan, [plan.unit.cube_box(unit).intersection(union) for unit in units]


def nonzero_box(place: MagPlace, client: Client | None = None) -> BoundingBox:
    """Return the smallest box around the voxels of a mag that are not zero.

    Cubes are read from outside in, a few first and ever more, until no other one reaches beyond what was found.

    Parameters
    ----------
    place
        The mag.
    client
        The cluster; the active one by default.

    Returns
    -------
    BoundingBox
        Absolute, in voxels of the mag; `EMPTY_BOX` if there is no such voxel.
    """
    cubes = list(place.store.cubes_on_disk())
    if not cubes:
        return EMPTY_BOX
    engine = pick_engine(client)
    plan, units = plan_existing(place.store, cubes, engine)
    found, at_once = EMPTY_BOX, max(_FIRST_UNITS, 2 * engine.threads)

    def collect(event: Event) -> None:
        nonlocal found
        if isinstance(event, UnitDone) and event.report.value is not None:
            found = found.extended_by(event.report.value)

    name = task_name("bounds", place.store.path)
    while units:
        units = outermost_first(units)
        call = partial(_call_of, place.store, found)
        windows = listed_windows(units[:at_once], "", name, call)
        run_unwritten(place.label, plan, windows, engine, [collect], reads=[place.store])
        units = [unit for unit in units[at_once:] if not found.contains_bbox(unit)]
        engine, at_once = pick_engine(client), 2 * at_once
    return found


_FIRST_UNITS = 8
"""Units that are read before it is asked which others can still change the box: it has so many corners."""


def outermost_first(units: Sequence[BoundingBox]) -> list[BoundingBox]:
    """Return units in the order in which they may change the box around all voxels: corners, edges, faces.

    Parameters
    ----------
    units
        Boxes on one grid, at least one.
    """
    low = np.array([unit.topleft for unit in units])
    high = np.array([unit.bottomright for unit in units])
    size = (high - low).max(axis=0)
    # How many units lie further out, on each of the six sides.
    depth = np.concatenate([(low - low.min(axis=0)) // size, (high.max(axis=0) - high) // size], axis=1)
    sides = (depth == depth.min(axis=1, keepdims=True)).sum(axis=1)
    return [units[n] for n in np.lexsort((-sides, depth.min(axis=1)))]


def _call_of(store: MagReader, known: BoundingBox, unit: BoundingBox) -> tuple[Any, ...]:
    """Return the task of a unit."""
    return (nonzero_unit, store, unit, known)


def nonzero_unit(store: MagReader, box: BoundingBox, known: BoundingBox = EMPTY_BOX) -> UnitReport:
    """Find the box around voxels that are not zero, from outside in: what cannot change it is not read.

    ::

        +-----------+
        |1  2    4 3|   layers of chunks, one side after the other, until what is left lies within what was found
        |   +--+    |
        +---+--+----+

    Parameters
    ----------
    store
        The mag.
    box
        The unit: absolute, in voxels of the mag. No voxel of it is read twice.
    known
        A box that is part of the answer.
    """
    from wkdask.kernels import nonzero_bounds

    start = time.perf_counter()
    found, left = EMPTY_BOX, box
    for axis, is_far in itertools.product((2, 1, 0), (False, True)):
        while not left.is_empty() and _reaches_beyond(left, known, axis, is_far):
            layer, left = _split_off(left, axis, is_far, store.spec.chunk_shape[axis])
            bounds = None if store.is_empty(layer) else nonzero_bounds(store.read(layer))
            if bounds is not None:
                there = BoundingBox.from_corners(*bounds).offset(layer.topleft)
                found, known = found.extended_by(there), known.extended_by(there)
    return ended(box, start, value=found)


def _reaches_beyond(box: BoundingBox, known: BoundingBox, axis: int, is_far: bool) -> bool:
    """Return whether a box reaches further out on a side than what is known."""
    if known.is_empty():
        return True
    if is_far:
        return box.bottomright[axis] > known.bottomright[axis]
    return box.topleft[axis] < known.topleft[axis]


def _split_off(box: BoundingBox, axis: int, is_far: bool, step: int) -> tuple[BoundingBox, BoundingBox]:
    """Return the outermost layer of chunks of a box on a side, and the rest."""
    low, high = box.topleft[axis], box.bottomright[axis]
    cut = max(low, (high - 1) // step * step) if is_far else min(high, (low // step + 1) * step)
    below, above = list(box.bottomright), list(box.topleft)
    below[axis] = above[axis] = cut
    parts = BoundingBox.from_corners(box.topleft, below), BoundingBox.from_corners(above, box.bottomright)
    return parts[::-1] if is_far else parts
