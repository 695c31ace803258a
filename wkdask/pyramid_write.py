"""A write and its pyramid as one job: the leaves of the tree write the finest mag.

::

    mag 4     [       #       |       #       ]
    mag 2     [   #   |   #   |   #   |   #   ]     halves go up, as in every pyramid
    mag 1     [ # | # | # | # | # | # | # | # ]     a leaf is a unit of the write: it computes its block, publishes
                ^                                   the cubes, and shrinks the block that it still holds

The finest mag is read only around what is written, within the leaf's own cubes. So a leaf never meets what another
one writes; where it would, or where its block cannot be had alone, the pyramid is computed after the write:

- the array reads the mag that it is written to, or cubes are assembled in parts: there is no block in hand when a
  cube is published;
- the first step shrinks by more than 2, or not by a divisor of the unit: windows look into other leaves;
- units have tasks in common (blocks of an expression that lie across their borders, halos, means): each leaf
  computes its own graph, so that they would be computed twice;
- unit and tree together do not fit into a task's memory, or tasks are to occupy resources of workers.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wkdask.errors import PlanError
from wkdask.events import WriteReport
from wkdask.expression import common_tasks, unit_blocks
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.job import Job, JobFolders, MagPlace, Stage, WriteOptions
from wkdask.plan import WINDOW_UNITS, WritePlan, plan_again
from wkdask.properties import GrowBox
from wkdask.pyramid import PyramidPlan, hulls_of, leaves_of, plan_pyramid, tree_stage
from wkdask.resume import earlier_run, job_key, ticket_of
from wkdask.storage.jobs import Ticket, unfinished_jobs
from wkdask.storage.protocol import ArraySpec
from wkdask.writer import PlannedWrite, name_to_resume, plan_voxels, run_planned

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
    """The layer's box before the write, in voxels of mag 1."""

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
        before = self.layer_box
        return plan_pyramid(
            (place.mag, place.store.spec),
            self.cuts,
            GrowBox(place.layer, box, place.mag).of(before),
            self.mode,
            options,
            boxes=[box.from_mag_to_mag1(place.mag)] if self.existing else None,
            before=None if before.is_empty() else before,
            existing=self.existing,
            **how,
        )


@dataclass(frozen=True, slots=True)
class WriteWithPyramid:
    """What a write with its pyramid will do as one job."""

    write: PlannedWrite
    """The write; its units are the leaves of the first tree."""
    pyramid: PyramidPlan
    """The coarser mags."""


def plan_with_pyramid(
    place: MagPlace, data: Any, box: BoundingBox, coarser: Coarser, options: WriteOptions
) -> WriteWithPyramid | None:
    """Plan a write and its pyramid as one job; nothing is written.

    Parameters
    ----------
    place, data, box, options
        As for `wkdask.writer.write_voxels`; all channels of the array in one block.
    coarser
        The coarser mags.

    Returns
    -------
    WriteWithPyramid or None
        None where the pyramid is to be computed after the write.

    Raises
    ------
    PlanError
        If the write cannot be planned.
    ResumeError
        If an array is to be resumed whose name is another one in every process.
    """
    write = plan_voxels(place, data, box, replace(options, resume=False))
    step = coarser.cuts[0][0].to_vec3_int() // place.mag.to_vec3_int()
    if write.staged or options.resources or max(step) > 2 or coarser.mode == "bicubic":
        return None
    name = name_to_resume(place, data, options)
    for ticket in unfinished_jobs(place.store) if options.resume and name is not None else ():
        # What the earlier run began with has changed since: the layer's box, and which mags there are.
        if ticket.layer_box is None:
            continue
        grown = GrowBox(place.layer, box, place.mag).of(ticket.layer_box)
        if grown.extended_by(coarser.layer_box) != grown:
            continue  # others have written since: there is no border any more where the earlier run saw one
        for existing in (coarser.existing, frozenset[Mag]()):
            first = replace(coarser, existing=existing, layer_box=ticket.layer_box)
            found = _planned(place, box, first, options, write, ticket.unit, name)
            if found is not None and found.write.ticket is not None and found.write.ticket.key == ticket.key:
                return found
    planned = _planned(place, box, coarser, options, write, write.plan.unit.shape, name)
    if planned is None or _has_common_tasks(planned, data):
        return None
    if planned.write.ticket is not None:
        earlier_run(
            place, box, planned.write.ticket.key, planned.write.ticket.name, options
        )  # warns of others
    return planned


def _planned(
    place: MagPlace,
    box: BoundingBox,
    coarser: Coarser,
    options: WriteOptions,
    write: PlannedWrite,
    unit: Vec3Int,
    name: str | None,
) -> WriteWithPyramid | None:
    """Plan the job for units of some shape; None where the tree has no place beside the write."""
    plan = write.plan
    if unit != plan.unit.shape:
        plan = replace(plan_again(place.store.spec, box, unit), task_nbytes=plan.task_nbytes)
    try:
        pyramid = coarser.plan(place, box, options, engine=write.engine, leaf=unit, beside=plan.task_nbytes)
    except PlanError:
        return None
    ticket = write.ticket
    if name is not None:
        ticket = _ticket(place, plan, pyramid, coarser, name, options)
    return WriteWithPyramid(replace(write, plan=plan, ticket=ticket), pyramid)


def _ticket(
    place: MagPlace,
    plan: WritePlan,
    pyramid: PyramidPlan,
    coarser: Coarser,
    name: str,
    options: WriteOptions,
) -> Ticket:
    """Return by what an earlier run of the job is recognised: its tasks left notes by their place in the tree."""
    cut = [(tree.levels, tree.tiers, tree.tile, tree.boxes) for tree in pyramid.trees]
    text = repr((coarser.mode, [mag for mag, _ in coarser.cuts], cut))
    key = f"{job_key(place, plan.box, name, options)}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
    ticket = ticket_of(place, plan, "writing", key, f"{name} with its pyramid", options)
    return replace(ticket, layer_box=coarser.layer_box)


def _has_common_tasks(planned: WriteWithPyramid, data: Any) -> bool:
    """Tell whether leaves would compute something more than once; the first ones, which are neighbours, tell."""
    if isinstance(data, np.ndarray):
        return False
    plan, tree = planned.write.plan, planned.pyramid.trees[0]
    nodes = itertools.islice(tree.nodes(), WINDOW_UNITS)
    units = [box for _, box in itertools.islice(leaves_of(nodes, plan.box), _FIRST_UNITS)]
    return common_tasks(unit_blocks(_with_channels(data), plan, units)) > 0


def _with_channels(data: Any) -> Any:
    return data[None] if data.ndim == 3 else data


def write_with_pyramid(
    planned: WriteWithPyramid, place: MagPlace, data: Any, targets: Sequence[MagPlace], options: WriteOptions
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
    job = Job.of(
        place,
        plan,
        "writing",
        options,
        ticket=write.ticket,
        others=tuple(targets),
        private_nbytes=sum(tree.nbytes for tree in pyramid.trees),
    )
    stores = {mag.mag: mag.store for mag in (place, *targets)}

    def blocks(units: Sequence[BoundingBox]) -> Sequence[Any]:
        if isinstance(array, np.ndarray):
            return [array[(slice(None), *unit.to_slices(plan.box.topleft))] for unit in units]
        return unit_blocks(array, plan, units)

    def stages(job: Job, folders: JobFolders) -> list[Stage]:
        return [
            tree_stage(tree, pyramid.mode, job, stores, folders, None if number else blocks)
            for number, tree in enumerate(pyramid.trees)
        ]

    hulls = hulls_of(pyramid)
    for target in targets:
        target.store.prepare(hulls[target.mag])
    try:
        return run_planned(job, stages, write.engine, options)
    finally:
        for target in targets:
            target.store.finish()
