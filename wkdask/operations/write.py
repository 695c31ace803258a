"""Voxels in hand, numpy or dask -> a job on the right engine.

What a caller gives is checked here, once; everything below trusts it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wkdask.arrays.expression import array_stages
from wkdask.arrays.graph_facts import GraphFacts, facts_of, refuse_p2p, structure_of
from wkdask.arrays.lazy import block_shape
from wkdask.arrays.lowered import as_dask_array
from wkdask.arrays.names import why_name_changes
from wkdask.errors import ChannelError, DTypeError, InvalidValueError, PlanError, ReadOnlyError, ResumeError
from wkdask.geometry import BoundingBox
from wkdask.geometry.grid import chunks_on_grid
from wkdask.geometry.voxel_size import format_bytes, format_count
from wkdask.jobs.driver import run_planned
from wkdask.jobs.engines.choice import Engine, LocalEngine, pick_engine
from wkdask.jobs.events import WriteReport, html_table
from wkdask.jobs.job import Identity, Job, JobFolders, MagPlace, WriteOptions
from wkdask.jobs.plan import WritePlan, plan_again, plan_write, refuse_unknown_chunks
from wkdask.jobs.resume import identify, previous_manifest
from wkdask.jobs.tasks import Target, write_unit
from wkdask.jobs.windows import Stage, call_windows, stream_of
from wkdask.storage.formats import is_stored_mag
from wkdask.storage.protocol import ArraySpec, StoredMag, Voxels
from wkdask.storage.publish.manifest import Manifest

__all__ = [
    "MagPlace",
    "PlannedWrite",
    "WriteOptions",
    "name_to_resume",
    "plan_rewrite",
    "plan_voxels",
    "refuse_array_expr",
    "replaces_what_it_reads",
    "shape_of",
    "voxel_stages",
    "with_whole_voxels",
    "write_voxels",
]


_FEW_CUBES = 10_000
"""Up to so many cubes are looked for one by one; beyond that the mag's folders are listed."""


@dataclass(frozen=True, slots=True)
class PlannedWrite:
    """What a write will do; made by :meth:`MagView.plan_write`, shown by printing it."""

    label: str
    """Layer and mag."""
    plan: WritePlan
    """Cubes, units, windows, memory."""
    engine: Engine
    """Where the tasks run."""
    memory: int | None
    """Bytes that one task may use; None where unknown."""
    reads_target: bool
    """Whether the array reads, or may read, what it replaces, so that nothing is published before all is built."""
    identity: Identity | None = None
    """By what another run of the same job is recognised."""
    sources: tuple[StoredMag, ...] = ()
    """The mags that the array is seen to read."""

    @property
    def staged(self) -> bool:
        """Whether all cubes are built in a private mag before any of them is published."""
        return self.reads_target or self.plan.part is not None

    def job(self, place: MagPlace, data: Any, options: WriteOptions, **more: Any) -> Job:
        """Return the job that writes an array as planned; `more` are further arguments of `Job.of`."""
        return Job.of(
            place,
            self.plan,
            "writing",
            options,
            identity=self.identity,
            reads=self.sources,
            in_place=self.reads_target,
            inputs=data if hasattr(data, "dask") else None,
            **more,
        )

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, value) pairs to show."""
        plan, spec = self.plan, self.plan.cube.shape
        tasks = format_count(len((plan.parts or plan).units), "task")
        if plan.parts is not None:
            how = f"{tasks}, which assemble cubes from parts of {plan.parts.unit.shape} voxels"
        else:
            how = f"{tasks} of {plan.unit.shape} voxels"
        limit = "" if self.memory is None else f", {format_bytes(self.memory)} are there"
        phases = "two: all cubes are built before the first is replaced" if self.reads_target else "one"
        return [
            ("To write", self.label),
            ("Box", f"{plan.box} (voxels of this mag)"),
            ("Cubes", f"{plan.num_cubes} of {spec} voxels"),
            ("Voxels", format_bytes(plan.nbytes)),
            ("Tasks", how),
            ("Memory", f"{format_bytes(plan.task_nbytes)} per task{limit}"),
            ("Phases", phases),
            ("Windows", f"{(plan.parts or plan).num_windows}, one or two in flight at a time"),
            ("Runs on", self.engine.description),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{name:<9}: {value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        return html_table(self.rows())


def shape_of(data: Any, place: MagPlace) -> tuple[int, int, int]:
    """Return the spatial shape of what is to be written, after checking type and channels.

    Raises
    ------
    InvalidValueError
        If `data` is no array of three or four dimensions, or holds no voxel.
    ChannelError
        If it has other channels than the layer.
    DTypeError
        If it is of another type, of another byte order, or masked.
    PlanError
        If it is a dask array that does not know the sizes of its blocks.
    """
    spec = place.store.spec
    if not hasattr(data, "dask") and not isinstance(data, np.ndarray):
        raise InvalidValueError(f"expected a numpy or a dask array, got {type(data).__name__}")
    if hasattr(data, "dask"):
        refuse_unknown_chunks(data.chunks)
    meta = getattr(data, "_meta", data)
    if isinstance(meta, np.ma.MaskedArray):
        raise DTypeError("a masked array has no voxels behind its mask; fill it first (numpy.ma.filled)")
    if data.ndim not in (3, 4):
        raise InvalidValueError(f"expected an array (x, y, z) or (c, x, y, z), got the shape {data.shape}")
    channels = 1 if data.ndim == 3 else data.shape[0]
    if channels != spec.num_channels:
        raise ChannelError(
            f"{place.label} has {spec.num_channels} channel(s), the array of shape {data.shape} has {channels}"
        )
    if data.dtype != np.dtype(spec.dtype):
        given = data.dtype if data.dtype.isnative else data.dtype.str
        raise DTypeError(
            f"{place.label} holds {spec.dtype}, the array is {given}; convert it where no value is lost: "
            f"array.astype({spec.dtype!r})"
        )
    if 0 in data.shape:
        raise InvalidValueError(f"an array of the shape {data.shape} holds no voxel to write")
    x, y, z = data.shape[-3:]
    return (x, y, z)


def plan_voxels(
    place: MagPlace,
    data: Any,
    box: BoundingBox,
    options: WriteOptions,
    *,
    kind: str = "",
    layer_box: BoundingBox | None = None,
) -> PlannedWrite:
    """Plan the write of an array into a box of a mag; nothing is written.

    Parameters
    ----------
    place, data, box, options
        As for `write_voxels`.
    kind
        What else the job does, which makes it another one than a plain write of the same array.
    layer_box
        The layer's box before the job, in voxels of mag 1, where a later run needs that.

    Raises
    ------
    PlanError
        If the plan cannot work.
    ResumeError
        If an array is to be resumed that has a non-deterministic name.
    """
    if isinstance(data, np.ndarray):
        return _plan_numpy(place, data, box, options, kind, layer_box)
    refuse_array_expr()
    refuse_p2p(data)
    facts = facts_of(data)
    what = name_to_resume(place, data, options)
    if what is not None and facts.reads(place.store.path):
        what = f"in place {structure_of(data, place.store.path)}"
    identity = identify(place, box, what, options, name=str(data.name), kind=kind, layer_box=layer_box)
    previous = previous_manifest(place, box, identity, options)
    if previous is not None:  # what it has published is in the box by now
        in_place = previous.staged
    else:
        in_place = replaces_what_it_reads(place, box, facts, options.in_place)
    engine = pick_engine(options.client, options.retries, options.resources)
    engine.check_inputs(facts.futures)
    memory = engine.task_memory()
    if previous is not None and previous.part is not None:
        plan = plan_again(place.store.spec, box, previous.unit, previous.part)
    else:
        plan = plan_write(
            place.store.spec,
            box,
            source_chunks=data.chunks[-3:],
            threads=engine.threads,
            memory=memory,
            task_memory=options.task_memory,
            unit=None if previous is None else previous.unit,
            in_parts=True,
        )
    identity = _of_first_run(identity, previous)
    sources = tuple(source for source in facts.sources if is_stored_mag(source))
    return PlannedWrite(place.label, plan, engine, memory, in_place, identity, sources)


def replaces_what_it_reads(
    place: MagPlace, box: BoundingBox, facts: GraphFacts, in_place: bool | None
) -> bool:
    """Return whether an expression reads, or may read, what it replaces.

    Functions, persisted blocks and objects in a graph can read a mag unseen. So an expression of which
    nothing else is known may have been computed from the mag, if there is anything in the box.

    Parameters
    ----------
    place, box
        What is written: the box absolute, in voxels of the mag.
    facts
        What the graph shows.
    in_place
        What the caller says; None for nothing.

    Raises
    ------
    InvalidValueError
        If the caller says no, and the graph shows that it does.
    """
    if facts.reads(place.store.path):
        if in_place is False:
            raise InvalidValueError(
                f"{place.label}: in_place=False, but the array reads the mag that it is written to; leave it out"
            )
        return True
    if in_place is not None:
        return in_place
    return not facts.is_known and holds_cubes(place.store, box)


def holds_cubes(store: StoredMag, box: BoundingBox) -> bool:
    """Return whether a mag has cubes that a box touches."""
    touched = store.spec.grid.cubes(box)
    if touched.shape.prod() <= _FEW_CUBES:
        return not store.is_empty(box)
    inside = BoundingBox.from_corners(touched.start, touched.stop)
    return any(inside.contains(index) for index in store.cubes_on_disk())


def name_to_resume(place: MagPlace, data: Any, options: WriteOptions) -> str | None:
    """Return what an array is recognised by in other processes; None where that cannot be, or is not wanted.

    An array of this process has a name only if the job may be resumed, since it takes time.

    Raises
    ------
    ResumeError
        If an array is to be resumed whose name is another one in every process.
    """
    if isinstance(data, np.ndarray):
        from dask.base import tokenize

        wanted = options.resume or options.job is not None
        return f"array-{tokenize(data) if options.job is None else ''}" if wanted else None
    why = None if options.job is not None else why_name_changes(data, thorough=options.resume)
    if why is not None and options.resume:
        raise ResumeError(
            f"{place.label}: this array cannot be resumed, since its name is non-deterministic: {why}. "
            f'Give seeds, or name the job yourself: job="..."'
        )
    return None if why is not None else str(data.name)


def plan_rewrite(
    place: MagPlace, box: BoundingBox, spec: ArraySpec, options: WriteOptions, memory: int | None = None
) -> PlannedWrite:
    """Plan the write of an expression on a mag into one that is cut and stored in another way.

    Parameters
    ----------
    place
        The mag, whose voxels are read block by block.
    box
        Absolute, in voxels of the mag.
    spec
        Type and cut of what is written.
    options
        How it would run.
    memory
        Bytes that a task may use; what the engine has by default.

    Raises
    ------
    PlanError
        If the plan cannot work, with what would.
    """
    engine = pick_engine(options.client, options.retries)
    if memory is None:
        memory = engine.task_memory()
    blocks = block_shape(place.store, None, box.size)
    plan = plan_write(
        spec,
        box,
        source_chunks=chunks_on_grid(box, blocks),
        threads=engine.threads,
        memory=memory,
        task_memory=options.task_memory,
        in_parts=True,
    )
    return PlannedWrite(place.label, plan, engine, memory, reads_target=False)


def _plan_numpy(
    place: MagPlace,
    data: Voxels,
    box: BoundingBox,
    options: WriteOptions,
    kind: str,
    layer_box: BoundingBox | None,
) -> PlannedWrite:
    """Plan the write of an array of this process."""
    engine = LocalEngine(retries=options.retries or 0)
    what = name_to_resume(place, data, options)
    identity = identify(place, box, what, options, name="a numpy array", kind=kind, layer_box=layer_box)
    previous = previous_manifest(place, box, identity, options)
    unit = None if previous is None else previous.unit
    plan = plan_write(place.store.spec, box, threads=engine.threads, unit=unit)
    identity = _of_first_run(identity, previous)
    return PlannedWrite(place.label, plan, engine, None, reads_target=False, identity=identity)


def _of_first_run(identity: Identity | None, previous: Manifest | None) -> Identity | None:
    """Return the identity of a job with the layer's box as it was before its first run."""
    if identity is None or previous is None:
        return identity
    return replace(identity, layer_box=previous.layer_box)


def write_voxels(place: MagPlace, data: Any, box: BoundingBox, options: WriteOptions) -> WriteReport:
    """Write an array into a box of a mag.

    A dask array runs on the client; a numpy array is in this process and is written from here.

    Parameters
    ----------
    place
        The mag.
    data
        Checked by `shape_of`; its spatial shape is the box's size.
    box
        Absolute, in voxels of the mag.
    options
        How it runs.

    Raises
    ------
    ReadOnlyError
        If the mag is outside of its dataset.
    PlanError
        If the plan cannot work; nothing was written.
    TaskFailedError
        If a task failed; what landed is in the properties.
    """
    if place.read_only is not None:
        raise ReadOnlyError(f"{place.label} is read-only: {place.read_only}")
    planned = plan_voxels(place, data, box, options)
    if data.ndim == 3:
        data = data[None]

    job = planned.job(place, data, options)
    return run_planned(
        job, lambda folders: voxel_stages(job, data, folders), planned.engine, options.listeners
    )


def voxel_stages(job: Job, data: Any, folders: JobFolders) -> list[Stage]:
    """Return the stages that write an array ``(c, x, y, z)`` of this process, or of dask."""
    if isinstance(data, np.ndarray):
        return _numpy_stages(job, data, folders.main)
    return array_stages(job, data, folders)


def _numpy_stages(job: Job, data: Voxels, folder: str) -> list[Stage]:
    """Return the stage that writes an array of this process: no graph, views of the array as arguments."""
    target = Target(job.store, folder, job.durable, job.verify)
    corner = job.plan.box.topleft
    stream = stream_of(job.plan, 0)
    windows = call_windows(
        job.plan,
        folder,
        "write",
        lambda box: (write_unit, data[(slice(None), *box.to_slices(corner))], target, box),
        stream,
    )
    return [Stage(len(stream), windows, (stream,))]


def refuse_array_expr() -> None:
    """Refuse to write under dask's new array engine, whose graphs lose the order of our write tasks."""
    import dask.array as da

    enabled = getattr(da, "array_expr_enabled", lambda: False)
    if enabled():
        raise PlanError(
            "dask's array-expr mode is on; wkdask reads with it but does not write. Set the dask option "
            "array.query-planning to False before dask.array is imported"
        )


def with_whole_voxels(data: Any) -> Any:
    """Return a dask array ``(c, x, y, z)`` with all channels of a voxel in one block, as cubes hold them."""
    data = as_dask_array(data)
    if not hasattr(data, "dask") or data.ndim == 3 or len(data.chunks[0]) == 1:
        return data
    return data.rechunk({0: -1})
