"""Pyramids as jobs: coarser mags from one of them, in one pass; finer ones by repeating voxels.

Sampling is defined voxel by voxel, independent of how the work is cut: an output voxel is the median (mode,
…) of the window of source voxels that it covers. Where the window leaves the layer's box, the voxels
inside are mirrored into the gap, so that borders neither darken nor erode (as webknossos 4 does)::

    source      | a b c | d e .     box ends after e
    windows of 2  a b | c d | e e   the last one sees e mirrored

`pyramid_levels` and `pyramid_plan` say what is computed by which task, `pyramid_tasks` what a task does.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from toolz import partition_all

from wkdask.errors import PlanError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.jobs.driver import run_job, run_planned
from wkdask.jobs.engines.choice import Engine, pick_engine
from wkdask.jobs.events import Listener, WriteReport
from wkdask.jobs.job import Identity, Job, JobFolders, MagPlace, MagWrite, WriteOptions
from wkdask.jobs.plan import WINDOW_UNITS, WritePlan, plan_again, plan_write
from wkdask.jobs.resume import identify, previous_manifest
from wkdask.jobs.tasks import Target, UnitReport, write_unit
from wkdask.jobs.windows import NodeCall, NodeWindow, Stage, call_windows, task_name
from wkdask.pyramid.levels import boxes_to_redo, levels_of, passes_of
from wkdask.pyramid.plan import plan_tree
from wkdask.pyramid.tasks import TreeWork, is_noted, run_node
from wkdask.pyramid.tree import TreeNode, TreePlan
from wkdask.storage.protocol import ArraySpec, MagReader, StoredMag

__all__ = [
    "PyramidPlan",
    "downsample_mags",
    "leaves_of",
    "plan_pyramid",
    "run_with_pyramid",
    "tree_stage",
    "tree_stages",
    "unions_of",
    "upsample_mag",
    "writes_of",
]


@dataclass(frozen=True, slots=True)
class PyramidPlan:
    """How coarser mags are computed from one mag."""

    trees: tuple[TreePlan, ...]
    """One after the other: the first reads the source, each other one the last mag of the one before."""
    mode: str
    """A mode of `wkdask.kernels.downsample`."""
    engine: Engine
    """Where it runs."""

    @property
    def task_nbytes(self) -> int:
        """Bytes that a task, and what waits for others, come to at most, for each thread."""
        return max(tree.task_nbytes for tree in self.trees)


def plan_pyramid(
    source: tuple[Mag, ArraySpec],
    targets: Sequence[tuple[Mag, ArraySpec]],
    layer_box: BoundingBox,
    mode: str,
    options: WriteOptions,
    *,
    boxes: Iterable[BoundingBox] | None = None,
    before: BoundingBox | None = None,
    existing: Iterable[Mag] = (),
    leaf: Vec3Int | None = None,
    beside: int = 0,
    engine: Engine | None = None,
) -> PyramidPlan:
    """Plan a pyramid; nothing is written, no mag needs to be there.

    Parameters
    ----------
    source, targets
        The mag that is read and those that are written, each from the one before; with their cuts.
    layer_box
        The layer's box, in voxels of mag 1; voxels outside of it are never read.
    mode
        A mode of `wkdask.kernels.downsample`.
    options
        How it runs.
    boxes
        What has changed, in voxels of mag 1; all by default.
    before
        The layer's box when the pyramid was last computed, where it has grown since.
    existing
        Those of the targets that were there before.
    leaf
        Voxels of the source in a leaf of the first pass, where the leaves write them.
    beside
        Bytes that such a leaf needs for that.
    engine
        Where it runs, if that is not for `options` to say.

    Raises
    ------
    InvalidValueError
        If a mag cannot be computed from the one before.
    PlanError
        If there is nothing to compute, or it cannot be cut so that tasks fit into memory.
    """
    levels = levels_of(source, targets, layer_box, existing)
    bicubic = mode == "bicubic"
    stale = None
    if boxes is not None:
        stale = boxes_to_redo(boxes, before or layer_box, layer_box, levels, reaches=bicubic)
    engine = engine or pick_engine(options.client, options.retries)
    memory = engine.task_memory()
    trees: list[TreePlan] = []
    for part in passes_of(levels, bicubic):
        step = part[0].mag.to_vec3_int()
        own = None if stale is None else [BoundingBox(box.topleft // step, box.size // step) for box in stale]
        first = leaf if not trees else None
        left = None if memory is None else memory - beside * (first is not None)
        trees.append(
            plan_tree(
                part, own, threads=engine.threads, memory=left, task_memory=options.task_memory, leaf=first
            )
        )
    return PyramidPlan(tuple(trees), mode, engine)


def downsample_mags(
    plan: PyramidPlan,
    source: MagPlace,
    targets: Sequence[MagPlace],
    new: Collection[Mag],
    options: WriteOptions,
) -> list[WriteReport]:
    """Compute coarser mags from one mag.

    Parameters
    ----------
    plan
        From `plan_pyramid`, for these mags.
    source, targets
        The mag that is read and those that are written, each from the one before.
    new
        Those of the targets that the job makes; they are listed when all are complete.
    options
        How it runs.

    Returns
    -------
    list of WriteReport
        One per target.

    Raises
    ------
    TaskFailedError
        If a task failed; what landed in mags that were there before stays.
    """
    stores = {place.mag: place.store for place in (source, *targets)}
    unions = unions_of(plan)
    main = targets[0]
    whole = plan_again(main.store.spec, unions[main.mag], main.store.spec.shard_shape, None)
    identity = _identity(plan, source, targets, whole, options)
    previous_manifest(main, whole.box, identity, options)  # warns if there is another unfinished job
    job = Job.of(
        main,
        whole,
        "downsampling",
        options,
        identity=identity,
        others=writes_of(targets[1:], unions, new),
        reads=[source.store],
        new=main.mag in new,
    )

    def stages(folders: JobFolders) -> list[Stage]:
        return tree_stages(plan, job, stores, folders)

    report = run_with_pyramid(job, stages, plan.engine, options.listeners)
    reports = {each.label: each for each in (report, *report.others)}
    return [reports[place.label] for place in targets]


def run_with_pyramid(
    job: Job,
    stages: Callable[[JobFolders], Sequence[Stage]],
    engine: Engine,
    listeners: Sequence[Listener],
) -> WriteReport:
    """Run a job whose last stages compute a pyramid from what is on the disk by then; as `run_planned`."""
    report = run_job(job, stages, engine, listeners)
    if report is None:
        raise PlanError(f"{job.label}: the job had no tasks")
    return report


def writes_of(
    places: Iterable[MagPlace], unions: Mapping[Mag, BoundingBox], new: Collection[Mag]
) -> list[MagWrite]:
    """Return what a job does to the coarser mags of a pyramid."""
    return [MagWrite(place, unions[place.mag], new=place.mag in new) for place in places]


def _identity(
    plan: PyramidPlan, source: MagPlace, targets: Sequence[MagPlace], whole: WritePlan, options: WriteOptions
) -> Identity | None:
    """Return by what a previous run of the same pyramid is recognised."""
    union = reduce(BoundingBox.extended_by, plan.trees[0].boxes)
    coarser = ", ".join(str(place.mag) for place in targets)
    name = f"mags {coarser} from mag {source.mag} by {plan.mode}"
    boxes = repr([tree.boxes for tree in plan.trees])
    what = "|".join([name, boxes, source.store.fingerprint(union)])
    return identify(targets[0], whole.box, what, options, name=name)


def unions_of(plan: PyramidPlan) -> dict[Mag, BoundingBox]:
    """Return the box around what is written of each mag, in its voxels."""
    unions = {}
    for tree in plan.trees:
        union = reduce(BoundingBox.extended_by, tree.boxes)
        unions.update({level.mag: level.within(union) for level in tree.levels[1:]})
    return unions


def tree_stages(
    plan: PyramidPlan,
    job: Job,
    stores: dict[Mag, StoredMag],
    folders: JobFolders,
    blocks: Callable[[Sequence[BoundingBox]], Sequence[Any]] | None = None,
) -> list[Stage]:
    """Return the stages that compute a pyramid, one per tree; `blocks` are written by the leaves of the first."""
    return [
        tree_stage(tree, plan.mode, job, stores, folders, None if number else blocks)
        for number, tree in enumerate(plan.trees)
    ]


def tree_stage(
    tree: TreePlan,
    mode: str,
    job: Job,
    stores: dict[Mag, StoredMag],
    folders: JobFolders,
    blocks: Callable[[Sequence[BoundingBox]], Sequence[Any]] | None = None,
) -> Stage:
    """Return the stage that runs one tree.

    Parameters
    ----------
    tree
        What is computed.
    mode
        A mode of `wkdask.kernels.downsample`.
    job
        The job that it belongs to.
    stores
        All mags of the pyramid.
    folders
        The job's private folders.
    blocks
        Where the leaves write level 0, which is the job's own mag: returns the voxels of boxes, one of
        `NodeCall.block` for each.
    """
    in_parts = {number for tier in tree.tiers for number in tier.staged}
    targets, staged = [], []
    for number, level in enumerate(tree.levels[1:], start=1):
        store = stores[level.mag]
        folder = folders.of(store)
        targets.append(Target(store, folder, job.durable, job.verify))
        # In the folder that stays if the job is interrupted.
        private = f"{folders.main}/staged-{level.mag}"
        staged.append(store.staged(private, raw=True) if number in in_parts else None)
    work = TreeWork(
        dataset_path=job.dataset_path,
        layer=job.layer,
        mag=job.mag,
        source=stores[tree.levels[0].mag],
        levels=tree.levels,
        tiers=tree.tiers,
        tile=tree.tile,
        mode=mode,
        targets=tuple(targets),
        staged=tuple(staged),
        folder=folders.main,
        cut=hashlib.blake2b(
            repr((tree.tiers, tree.tile, tree.boxes, mode)).encode(), digest_size=6
        ).hexdigest(),
        writes=None if blocks is None else Target(job.store, folders.main, job.durable, job.verify),
        written=None if blocks is None else job.plan.box,
    )
    return Stage(tree.num_nodes, _windows(tree, work, blocks))


def _windows(
    tree: TreePlan, work: TreeWork, blocks: Callable[[Sequence[BoundingBox]], Sequence[Any]] | None
) -> Iterator[NodeWindow]:
    """Yield the tasks of a tree, a window at a time."""
    name = f"{task_name('downsample', work.folder)}-{work.folder[-12:]}-{work.levels[0].mag}"
    for nodes in partition_all(WINDOW_UNITS, tree.nodes()):
        written: dict[str, Any] = {}
        if blocks is not None and work.written is not None:
            leaves = {
                node.key: box
                for node, box in leaves_of(nodes, work.written)
                if not is_noted(work, node)  # voxels that no task will ask for
            }
            written = dict(zip(leaves, blocks(list(leaves.values())), strict=True))
        calls = [
            NodeCall(
                key=node.key,
                box=work.unit_of(node),
                function=run_node,
                # What it waits for is the engine's business, and may be much.
                arguments=(work, replace(node, needs=(), after=(), frees=())),
                needs=node.needs,
                after=node.after,
                handed_on=node.parent is not None,
                awaited=node.awaited,
                frees=node.frees,
                block=written.get(node.key),
            )
            for node in nodes
        ]
        yield NodeWindow(calls, name)


def leaves_of(nodes: Iterable[TreeNode], box: BoundingBox) -> Iterator[tuple[TreeNode, BoundingBox]]:
    """Yield the leaves that have a part in a box of level 0, each with its part."""
    for node in nodes:
        if node.tier == 0 and node.publishes is None:
            part = box.intersection(node.cell)
            if not part.is_empty():
                yield node, part


def upsample_mag(
    source: MagPlace, target: MagPlace, layer_box: BoundingBox, options: WriteOptions, *, new: bool = True
) -> WriteReport:
    """Compute one mag from a coarser one by repeating voxels.

    Parameters
    ----------
    source, target
        The two mags of one layer.
    layer_box
        The layer's box, in voxels of mag 1; it does not grow.
    options
        How it runs.
    new
        Whether the job makes the second mag, which is listed when it is complete.
    """
    factors = source.mag.to_vec3_int() // target.mag.to_vec3_int()
    box = layer_box.aligned_outwards(target.mag.to_vec3_int()).in_mag(target.mag)
    engine = pick_engine(options.client)
    plan = plan_write(
        target.store.spec,
        box,
        threads=engine.threads,
        memory=engine.task_memory(),
        task_memory=options.task_memory,
    )

    job = Job.of(target, plan, "upsampling", options, reads=[source.store], new=new)

    def stages(folders: JobFolders) -> list[Stage]:
        out = Target(job.store, folders.main, job.durable, job.verify)
        windows = call_windows(
            plan, folders.main, "upsample", lambda unit: (upsample_unit, source.store, factors, out, unit)
        )
        return [Stage(len(plan.units), windows)]

    return run_planned(job, stages, engine, options.listeners)


def upsample_unit(source: MagReader, factors: Vec3Int, target: Target, box: BoundingBox) -> UnitReport:
    """Compute and publish the target cubes of a unit from the coarser voxels that cover it."""
    from wkdask.kernels import upsample

    start = time.perf_counter()
    coarse = BoundingBox.from_corners(box.topleft // factors, box.bottomright.ceildiv(factors))
    block = upsample(source.read(coarse), tuple(factors))
    inner = box.offset(-(coarse.topleft * factors))
    report = write_unit(block[(slice(None), *inner.to_slices())], target, box)
    return replace(report, seconds=time.perf_counter() - start)
