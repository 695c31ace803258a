"""Works on the cubes that exist: the gaps between them, however large, cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from wkdask.geometry import EMPTY_BOX, BoundingBox, Vec3Int
from wkdask.jobs.engines.choice import Engine, pick_engine
from wkdask.jobs.events import Event, UnitDone
from wkdask.jobs.job import MagPlace
from wkdask.jobs.plan import WritePlan, plan_write
from wkdask.jobs.tasks import UnitReport
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
    found = EMPTY_BOX

    def collect(event: Event) -> None:
        nonlocal found
        if isinstance(event, UnitDone) and event.report.value is not None:
            found = found.extended_by(event.report.value)

    name = task_name("bounds", place.store.path)
    windows = listed_windows(units, "", name, lambda unit: (nonzero_unit, place.store, unit))
    run_unwritten(place.label, plan, windows, engine, [collect], reads=[place.store])
    return found


def nonzero_unit(store: MagReader, box: BoundingBox) -> UnitReport:
    """Find the voxels of a unit that are not zero, cube by cube."""
    from wkdask.kernels import nonzero_bounds

    found = EMPTY_BOX
    for _, piece in store.spec.grid.pieces(box):
        bounds = nonzero_bounds(store.read(piece))
        if bounds is not None:
            found = found.extended_by(BoundingBox.from_corners(*bounds).offset(piece.topleft))
    return UnitReport(unit=box, value=found)
