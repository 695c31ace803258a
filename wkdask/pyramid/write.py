"""A write and its pyramid as one job: where it can be, the leaves of the tree write the finest mag.

::

    mag 4     [       #       |       #       ]
    mag 2     [   #   |   #   |   #   |   #   ]     downsampled blocks go up, as in every pyramid
    mag 1     [ # | # | # | # | # | # | # | # ]     a leaf is a unit of the write: it computes its block, publishes
                ^                                   the cubes, and shrinks the block that it still holds

The finest mag is read only around what is written, within the leaf's own cubes. So a leaf never meets what another
one writes; where it would, or where its block cannot be had alone, the stages of the pyramid follow those of
the write, in the same job:

- the array reads the mag that it is written to, or cubes are assembled in parts: there is no block in hand when a
  cube is published;
- the first step shrinks by more than 2, or not by a divisor of the unit: windows look into other leaves;
- units have tasks in common (blocks of an expression that lie across their borders, halos, means): each leaf
  computes its own graph, so that they would be computed twice;
- unit and tree together do not fit into a task's memory, or tasks are to occupy resources of workers.

Coarser mags that the job makes are listed when it ends, with the box. Until then the layer is as it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wkdask.arrays.expression import common_tasks, unit_blocks
from wkdask.errors import PlanError
from wkdask.geometry import BoundingBox, Mag
from wkdask.jobs.driver import run_planned
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import JobFolders, MagPlace, WriteOptions
from wkdask.jobs.plan import WINDOW_UNITS
from wkdask.jobs.windows import Stage
from wkdask.operations.write import PlannedWrite, plan_voxels, voxel_stages
from wkdask.properties import GrowBox
from wkdask.pyramid.job import (
    PyramidPlan,
    leaves_of,
    plan_pyramid,
    run_with_pyramid,
    tree_stages,
    unions_of,
    writes_of,
)
from wkdask.storage.protocol import ArraySpec

__all__ = ["Coarser", "WriteWithPyramid", "plan_with_pyramid", "write_with_pyramid"]

_FIRST_UNITS = 64
"""So many are looked at for tasks in common."""


@dataclass(frozen=True, slots=True)
class Coarser:
    """The coarser mags of a layer, and what they are computed for."""

    cuts: tuple[tuple[Mag, ArraySpec], ...]
    """Each computed from the one before, the first from the mag that is written."""
    mode: str
    """A mode of `wkdask.kernels.downsample`."""
    existing: frozenset[Mag]
    """Those that were there before; if there is none, all of the layer is computed, not only what is written."""
    layer_box: BoundingBox
    """The layer's box, in voxels of mag 1."""
    before: BoundingBox
    """The layer's box before the first run of the write: windows across its border were computed from
    mirrored voxels."""

    def plan(self, place: MagPlace, box: BoundingBox, options: WriteOptions, **how: Any) -> PyramidPlan:
        """Plan the pyramid of a write; nothing is written.

        Parameters
        ----------
        place
            The mag that is written.
        box
            What is written: absolute, in voxels of the mag.
        options, **how
            As for `plan_pyramid`.
        """
        return plan_pyramid(
            (place.mag, place.store.spec),
            self.cuts,
            GrowBox(place.layer, box, place.mag).of(self.layer_box),
            self.mode,
            options,
            boxes=[box.from_mag_to_mag1(place.mag)] if self.existing else None,
            before=None if self.before.is_empty() else self.before,
            existing=self.existing,
            **how,
        )


@dataclass(frozen=True, slots=True)
class WriteWithPyramid:
    """What a write with its pyramid will do as one job."""

    write: PlannedWrite
    """The write."""
    pyramid: PyramidPlan
    """The coarser mags."""
    in_leaves: bool
    """Whether the units of the write are the leaves of the first tree; else the pyramid follows."""


def plan_with_pyramid(
    place: MagPlace, data: Any, box: BoundingBox, coarser: Coarser, options: WriteOptions
) -> WriteWithPyramid:
    """Plan a write and its pyramid as one job; nothing is written.

    Parameters
    ----------
    place, data, box, options
        As for `wkdask.operations.write.write_voxels`; all channels of the array in one block.
    coarser
        The coarser mags.

    Raises
    ------
    PlanError
        If the write, or the pyramid, cannot be planned.
    ResumeError
        If an array is to be resumed that has a non-deterministic name.
    """
    write = plan_voxels(
        place, data, box, options, kind=f"pyramid by {coarser.mode}", layer_box=coarser.layer_box
    )
    if write.identity is not None and write.identity.layer_box is not None:  # of the first run
        coarser = replace(coarser, before=write.identity.layer_box)
    step = coarser.cuts[0][0].to_vec3_int() // place.mag.to_vec3_int()
    if not (write.staged or options.resources or max(step) > 2 or coarser.mode == "bicubic"):
        plan = write.plan
        try:
            pyramid = coarser.plan(
                place, box, options, engine=write.engine, leaf=plan.unit.shape, beside=plan.task_nbytes
            )
        except PlanError:  # the tree has no room beside the write
            pass
        else:
            planned = WriteWithPyramid(write, pyramid, in_leaves=True)
            if not _has_common_tasks(planned, data):
                return planned
    pyramid = coarser.plan(place, box, replace(options, task_memory=None), engine=write.engine)
    return WriteWithPyramid(write, pyramid, in_leaves=False)


def _has_common_tasks(planned: WriteWithPyramid, data: Any) -> bool:
    """Return whether leaves would compute something more than once, as the first ones do, which are neighbours."""
    if isinstance(data, np.ndarray):
        return False
    plan, tree = planned.write.plan, planned.pyramid.trees[0]
    nodes = itertools.islice(tree.nodes(), WINDOW_UNITS)
    units = [box for _, box in itertools.islice(leaves_of(nodes, plan.box), _FIRST_UNITS)]
    return common_tasks(unit_blocks(_with_channels(data), plan, units)) > 0


def _with_channels(data: Any) -> Any:
    return data[None] if data.ndim == 3 else data


def write_with_pyramid(
    planned: WriteWithPyramid,
    place: MagPlace,
    data: Any,
    targets: Sequence[MagPlace],
    new: Collection[Mag],
    options: WriteOptions,
) -> WriteReport:
    """Write an array and compute the coarser mags of it, as one job.

    Parameters
    ----------
    planned
        From `plan_with_pyramid`, for the same arguments.
    place, data, options
        As there.
    targets
        The coarser mags, finest first.
    new
        Those of them that the job makes.

    Returns
    -------
    WriteReport
        Of the mag that is written; its `others` are those of the coarser mags.

    Raises
    ------
    TaskFailedError
        If a task failed; what landed is in the properties.
    """
    write, pyramid = planned.write, planned.pyramid
    array, plan = _with_channels(data), write.plan
    job = write.job(place, data, options, others=writes_of(targets, unions_of(pyramid), new))
    stores = {mag.mag: mag.store for mag in (place, *targets)}

    def blocks(units: Sequence[BoundingBox]) -> Sequence[Any]:
        if isinstance(array, np.ndarray):
            return [array[(slice(None), *unit.to_slices(plan.box.topleft))] for unit in units]
        return unit_blocks(array, plan, units)

    def stages(folders: JobFolders) -> list[Stage]:
        if planned.in_leaves:
            return tree_stages(pyramid, job, stores, folders, blocks)
        return [*voxel_stages(job, array, folders), *tree_stages(pyramid, job, stores, folders)]

    run = run_planned if planned.in_leaves else run_with_pyramid
    return run(job, stages, write.engine, options.listeners)
