"""The batch form: a function for every cube. No array graph; workers get boxes and read for themselves.

::

    MagView.map_cubes ─> MapRequest ─┬─ with targets ─> a job: units of whole cubes, published, journal, commit
                                     └─ without ──────> records, in the order of the cubes, as they are taken
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wkdask.arrays.graph_facts import GraphFacts
from wkdask.errors import InvalidValueError, PlanError, ReadOnlyError, ResumeError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.grid import CubeGrid
from wkdask.geometry.voxel_size import format_bytes
from wkdask.jobs.driver import run_planned
from wkdask.jobs.engines.choice import Engine, pick_engine
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import Job, JobFolders, MagPlace, MagWrite, WriteOptions, replace_stages
from wkdask.jobs.plan import UNIT_NBYTES, WritePlan, plan_again, plan_write
from wkdask.jobs.records import RecordJob, stream_records
from wkdask.jobs.resume import identify, previous_manifest
from wkdask.jobs.windows import Stage, call_windows, stream_of
from wkdask.operations.callables import Shipped, call_name, describe, takes
from wkdask.operations.halo import Boundary, check_boundary
from wkdask.operations.map_tasks import MapSource, MapWork, map_unit, outputs_of, record_unit, scaled_box
from wkdask.operations.write import replaces_what_it_reads
from wkdask.storage.protocol import ArraySpec, StoredMag, check_coordinates

__all__ = ["MapRequest", "map_into", "map_to_records"]

_UNITS_PER_THREAD = 4
"""Units in flight per thread while records are returned in block order: enough to keep all threads busy."""


@dataclass(frozen=True, slots=True)
class MapRequest:
    """What a user asked for, checked where it needs no plan."""

    function: Callable[..., Any]
    """Called for every block."""
    origin: MagPlace
    """The mag whose method was called: the function's first argument."""
    layers: Mapping[str | None, tuple[MagPlace, BoundingBox]]
    """What is read, by the function's keywords: mag, and the layer's box in voxels of it."""
    targets: Mapping[str | None, MagPlace]
    """Where the results go, by their keys; None where the function returns the block itself; none for records."""
    box: BoundingBox
    """What is mapped, in voxels of mag 1."""
    halo: Vec3Int
    """Voxels of the origin's mag around a block."""
    boundary: Boundary = "clip"
    """How the halo is filled where a layer ends."""
    block_shape: Vec3Int | None = None
    """What the function gets at a time, in voxels of the first target (or of the origin); a cube by default."""
    options: WriteOptions = field(default_factory=WriteOptions)
    """How it runs."""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InvalidValueError(f"func is to be a function, got {type(self.function).__name__}")
        if not self.halo.is_positive():
            raise InvalidValueError(f"a halo cannot be negative, got {self.halo}")
        if self.box.is_empty():
            raise PlanError(
                f"{self.origin.label}: there is nothing to map, the box {self.box} holds no voxel"
            )
        for place, _ in self.layers.values():
            check_boundary(self.boundary, place.store.spec)
        for place in self.targets.values():
            if place.read_only is not None:
                raise ReadOnlyError(f"{place.label} is read-only: {place.read_only}")
        paths = [place.store.path for place in self.targets.values()]
        if len(set(paths)) < len(paths):
            raise InvalidValueError(f"two targets are the same mag: {sorted(paths)}")

    @property
    def reads(self) -> tuple[StoredMag, ...]:
        """The mags that the function gets."""
        return tuple(place.store for place, _ in self.layers.values())

    @property
    def facts(self) -> GraphFacts:
        """What is known of what the function reads: its arguments, and perhaps more by itself."""
        return GraphFacts(self.reads, is_known=False)

    @property
    def ordered_targets(self) -> list[tuple[str | None, MagPlace]]:
        """The targets, the job's own mag first: one that is read, if any is."""
        facts = self.facts
        return sorted(self.targets.items(), key=lambda item: not facts.reads(item[1].store.path))

    def target_box(self, place: MagPlace) -> BoundingBox:
        """Return what is written of a target: absolute, in voxels of its mag."""
        return scaled_box(self.lead_box, self.lead.mag, place.mag)

    @property
    def lead(self) -> MagPlace:
        """The mag in whose voxels the work is cut."""
        return self.ordered_targets[0][1] if self.targets else self.origin

    @property
    def lead_box(self) -> BoundingBox:
        """What is mapped: absolute, in voxels of the lead, whole voxels of every target."""
        mags = [place.mag.to_vec3_int() for place in self.targets.values()] or [self.lead.mag.to_vec3_int()]
        step = Vec3Int(tuple(math.lcm(*sides) for sides in zip(*mags, strict=True)))
        return self.box.aligned_outwards(step).in_mag(self.lead.mag)

    @property
    def base(self) -> Vec3Int:
        """The least that a task does: whole cubes of every target, in voxels of the lead."""
        lead = self.lead.mag.to_vec3_int()
        cubes = [
            place.store.spec.shard_shape * place.mag.to_vec3_int() for place in self.targets.values()
        ] or [self.lead.store.spec.shard_shape * lead]
        whole = Vec3Int(tuple(math.lcm(*sides) for sides in zip(*cubes, strict=True))) // lead
        if self.block_shape is None:
            return whole
        if not self.block_shape.is_positive(strictly=True):
            raise InvalidValueError(f"the sides of a block must be positive, got {self.block_shape}")
        pairs = zip(self.block_shape, whole, strict=True)
        if self.targets and any(block % cube and cube % block for block, cube in pairs):
            raise InvalidValueError(
                f"blocks of {self.block_shape} straddle the cubes of the targets; a block is a whole number of "
                f"{whole} voxels (of mag {self.lead.mag}), or divides them"
            )
        return self.block_shape.pairmax(whole) if self.targets else self.block_shape

    @property
    def blocks(self) -> CubeGrid:
        """What the function gets at a time."""
        return CubeGrid(self.block_shape or self.base)

    def work(self) -> MapWork:
        """Return what a task does."""
        lead_box = self.lead_box
        sources = []
        origin_mag = self.origin.mag.to_vec3_int()
        for name, (place, valid) in self.layers.items():
            if self.boundary == "clip":  # a block is never smaller than what is asked for
                valid = valid.extended_by(scaled_box(lead_box, self.lead.mag, place.mag))
            halo = (self.halo * origin_mag).ceildiv(place.mag.to_vec3_int())
            sources.append(MapSource(name, place.store, place.mag, valid, halo))
        return MapWork(
            Shipped(self.function),
            tuple(sources),
            self.lead.mag,
            self.blocks,
            self.boundary,
            takes(self.function, "box"),
        )

    def name(self, work: MapWork) -> str:
        """Return what the job is called: the same for the same work in every process.

        Raises
        ------
        ResumeError
            If the function has another name in every process.
        """
        if self.options.job is not None:
            return describe(self.function)
        replaced = [place.store.path for _, place in self.ordered_targets]
        # The state of what the job itself replaces does not count: it is another one when the job has ended.
        read = [
            f"{source.name}={'target' if source.store.path in replaced else self._state(work, source)}"
            for source in work.sources
        ]
        # Mags are named from the lead's on: the dataset may be moved, the layer renamed.
        places = (os.path.relpath(place.store.path, self.lead.store.path) for place in self.targets.values())
        how = [self.halo, self.boundary, self.blocks.shape, *self.targets, *places]
        return "|".join([call_name(self.function), *map(str, how), *read])

    def _state(self, work: MapWork, source: MapSource) -> str:
        """Return what changes when something changes of what is read of a source by all tasks together."""
        box = work.around(source, self.lead_box).intersection(source.valid)
        path = os.path.relpath(source.store.path, self.lead.store.path)
        return f"{path}:{source.store.fingerprint(box)}"


def _bytes_per_voxel(mags: list[tuple[Mag, ArraySpec]], lead: Mag) -> float:
    """Return the bytes of mags that lie under a voxel of the lead."""
    volume = lead.to_vec3_int().prod()
    return sum(volume / mag.to_vec3_int().prod() * spec.bytes_per_voxel for mag, spec in mags)


def _task_nbytes(request: MapRequest, work: MapWork, unit: Vec3Int) -> int:
    """Return the bytes that a task holds: what it reads, a block of it for the function, results and a copy."""
    unit = unit.pairmin(request.lead_box.size)
    block = work.blocks.shape.pairmin(unit)
    corner = BoundingBox((0, 0, 0), unit)
    total = 0.0
    for source in work.sources:
        total += work.around(source, corner).volume() * source.store.spec.bytes_per_voxel
        if block != unit:
            part = BoundingBox((0, 0, 0), block)
            total += work.around(source, part).volume() * source.store.spec.bytes_per_voxel
    outputs = [(place.mag, place.store.spec) for place in request.targets.values()]
    return int(total + 2 * unit.prod() * _bytes_per_voxel(outputs, request.lead.mag))


def _unit_nbytes(request: MapRequest, work: MapWork) -> int:
    """Return the bytes of the lead that a unit should have, so that neither reads nor writes are too much."""
    lead = request.lead
    reads = _bytes_per_voxel([(s.mag, s.store.spec) for s in work.sources], lead.mag)
    writes = _bytes_per_voxel([(p.mag, p.store.spec) for p in request.targets.values()], lead.mag)
    return int(UNIT_NBYTES * lead.store.spec.bytes_per_voxel / max(reads, writes))


def _checked_memory(request: MapRequest, work: MapWork, plan: WritePlan, engine: Engine) -> WritePlan:
    """Return a plan whose tasks fit: with the least unit, if the one that was wished for does not.

    Raises
    ------
    PlanError
        If even that does not fit.
    """
    memory, own = engine.task_memory(), request.options.task_memory
    if memory is None or (own or _task_nbytes(request, work, plan.unit.shape)) <= memory:
        return plan
    needed = own or _task_nbytes(request, work, request.base)
    if needed > memory:
        raise PlanError(
            f"a task would need about {format_bytes(needed)} (what it reads with its halo, what it returns, and a "
            f"copy), but only {format_bytes(memory)} are there for each task; use a target with smaller cubes than "
            f"{request.base}, a smaller halo, fewer threads per worker; or task_memory=, if it needs less"
        )
    return plan_again(request.lead.store.spec, plan.box, request.base)


def map_into(request: MapRequest) -> dict[str | None, WriteReport]:
    """Run a function that returns blocks as a job on the targets.

    Returns
    -------
    dict
        What was written into each target, by its key.

    Raises
    ------
    PlanError, ResumeError
        If the plan cannot work; nothing was written.
    TaskFailedError
        If a task failed; what landed is in the properties.
    """
    options, lead, work = request.options, request.lead, request.work()
    for place in request.targets.values():
        check_coordinates(request.target_box(place), place.store.spec.shard_shape)
    engine = pick_engine(options.client, options.retries, options.resources)
    what, name = None, describe(request.function)
    try:
        what = request.name(work)
    except ResumeError:
        if options.resume:
            raise
    identity = identify(lead, request.lead_box, what, options, name=name)
    previous = previous_manifest(lead, request.lead_box, identity, options)
    if previous is not None:
        plan = plan_again(lead.store.spec, request.lead_box, previous.unit)
    else:
        plan = plan_write(
            lead.store.spec,
            request.lead_box,
            threads=engine.threads,
            unit_nbytes=_unit_nbytes(request, work),
            base=request.base,
        )
        plan = _checked_memory(request, work, plan, engine)
    writes = []
    for number, (_, place) in enumerate(request.ordered_targets):
        box = request.target_box(place)
        if previous is not None:
            in_place = number in previous.in_place
        else:
            in_place = replaces_what_it_reads(place, box, request.facts, options.in_place)
        unit = plan.unit.shape * lead.mag.to_vec3_int() // place.mag.to_vec3_int()
        writes.append(MagWrite(place, box, in_place=in_place, unit=unit))
    job = Job.of(
        lead,
        plan,
        "mapping",
        options,
        identity=identity,
        others=writes[1:],
        reads=request.reads,
        in_place=writes[0].in_place,
    )
    report = run_planned(job, lambda folders: _stages(job, request, work, folders), engine, options.listeners)
    reports = {(each.dataset_path, each.label): each for each in (report, *report.others)}
    return {name: reports[place.dataset_path, place.label] for name, place in request.targets.items()}


def _stages(job: Job, request: MapRequest, work: MapWork, folders: JobFolders) -> list[Stage]:
    """Return the stages of a job: one, or more if it reads, or may read, a mag that it replaces."""
    outputs = outputs_of(job, folders, [name for name, _ in request.ordered_targets])
    stream = stream_of(job.plan, 0)
    windows = call_windows(job.plan, folders.main, "map", lambda box: (map_unit, work, outputs, box), stream)
    return [Stage(len(stream), windows, (stream,)), *replace_stages(job, folders)]


def map_to_records(request: MapRequest) -> Iterator[Any]:
    """Return an iterator of what a function returns for every block, x fastest; it runs as they are taken.

    Raises
    ------
    PlanError, ResumeError
        If the plan cannot work.
    """
    options, work, spec = request.options, request.work(), request.lead.store.spec
    engine = pick_engine(options.client, options.retries, options.resources)
    lead, box, name = request.lead, request.lead_box, describe(request.function)
    identity = previous = None
    if options.resume:
        identity = identify(lead, box, f"records|{request.name(work)}", options, name=name)
        previous = previous_manifest(lead, box, identity, options, writes=False)
    plan = plan_again(spec, box, _row_of_blocks(request, work, engine) if previous is None else previous.unit)
    job = RecordJob(request.lead, plan, lambda box: (record_unit, work, box), identity, request.reads)
    return stream_records(job, engine, options.listeners)


def _row_of_blocks(request: MapRequest, work: MapWork, engine: Engine) -> Vec3Int:
    """Return a unit of blocks side by side along x: records then come in their order, unit by unit."""
    block = work.blocks.shape
    in_row = len(work.blocks.cubes(request.lead_box.with_size(request.lead_box.size.with_y(1).with_z(1))))
    wished = _unit_nbytes(request, work) // max(block.prod() * request.lead.store.spec.bytes_per_voxel, 1)
    share = len(work.blocks.cubes(request.lead_box)) // (_UNITS_PER_THREAD * engine.threads)
    count = max(1, min(wished, share, in_row))
    unit = block * (count, 1, 1)
    plan = plan_again(request.lead.store.spec, request.lead_box, unit)
    return _checked_memory(request, work, plan, engine).unit.shape
