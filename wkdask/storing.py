"""Several dask expressions, one job: what they share is read and computed once.

::

    a window     x ─┬─> y ─> block of y ─┐
                    └─> m ─> block of m ─┴─> one task per unit: publishes its cubes in both mags

The targets may differ in type, cut and magnification; their boxes are one box in voxels of mag 1, and a unit is
whole cubes of all of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.arrays.expression import cut_into_units, refuse_shared_work
from wkdask.arrays.graph_facts import GraphFacts, facts_of, refuse_p2p, structure_of
from wkdask.arrays.names import why_name_changes
from wkdask.errors import InvalidValueError, PlanError, ReadOnlyError, ResumeError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid
from wkdask.jobs.driver import run_planned
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import Job, JobFolders, MagPlace, MagWrite, WriteOptions, replace_stages
from wkdask.jobs.plan import UNIT_NBYTES, Window, WritePlan, plan_again, plan_write
from wkdask.jobs.resume import identify, previous_manifest
from wkdask.jobs.tasks import UnitReport
from wkdask.jobs.windows import ArrayWindow, Stage, stream_of, task_name
from wkdask.mag_view import MagView
from wkdask.operations.map_tasks import MapOutput, outputs_of, scaled_box, write_outputs
from wkdask.operations.write import refuse_array_expr, replaces_what_it_reads, with_whole_voxels
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.storage.formats import is_stored_mag
from wkdask.storage.protocol import Voxels
from wkdask.view.coordinates import without_coordinates

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client

__all__ = ["store"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One array and where it goes."""

    array: da.Array
    """``(c, x, y, z)``."""
    place: MagPlace
    """The mag."""
    box: BoundingBox
    """Absolute, in voxels of the mag."""
    in_place: bool = False
    """Whether the arrays read, or may read, what is replaced there."""


def store(
    writes: Sequence[tuple[Any, ...]],
    *,
    client: Client | None = None,
    durable: bool = True,
    verify: bool = False,
    task_memory: int | None = None,
    resume: bool = False,
    job: str | None = None,
    retries: int | None = None,
    resources: Mapping[str, float] | None = None,
    in_place: bool | None = None,
    progress: ProgressLike = None,
) -> list[WriteReport]:
    """Write several dask arrays as one job, in which what they share is read and computed once.

    Parameters
    ----------
    writes
        ``(array, mag, bounding_box)`` each: as for :meth:`MagView.write`, the box in voxels of mag 1; it may be
        left out as there. All boxes are the same; the mags may differ in type, in the side of their cubes, and in
        magnification. Arrays of xarray go where their coordinates say.
    client, durable, verify, task_memory, resume, job, retries, in_place, progress
        As in :meth:`MagView.write`.
    resources
        What each task occupies of a worker, such as ``{"GPU": 1}``.

    Returns
    -------
    list of WriteReport
        What was written, in the order of `writes`.

    Raises
    ------
    InvalidValueError
        If an entry is no dask array and mag, two have the same mag, or an array does not fit its mag.
    PlanError
        If the boxes differ, a unit of whole cubes of all mags does not fit in memory, or windows share work;
        nothing was written.
    ResumeError
        If `resume` is asked for an array with a non-deterministic name, without `job`.
    TaskFailedError
        If tasks failed; what landed is in the properties.

    Notes
    -----
    If one of the mags is, or may be, read as well, all of its cubes are built before any is published.

    Examples
    --------
    >>> x, box = mag.to_dask(), layer.bounding_box
    >>> inverted = ds.add_layer_like(layer, "inverted").add_mag(1, shard_shape=32)
    >>> bright = ds.add_layer_like(layer, "bright").add_mag(1, shard_shape=32)
    >>> reports = wkdask.store([(255 - x, inverted, box), ((x > 99).astype("uint8"), bright, box)])
    >>> [report.cubes for report in reports]
    [4, 4]
    """
    options = WriteOptions(
        client=client, durable=durable, verify=verify, task_memory=task_memory, resume=resume, job=job,
        retries=retries, resources=resources, in_place=in_place, listeners=listeners_for(progress),
    )  # fmt: skip
    refuse_array_expr()
    given = [_entry(*write) if len(write) in (2, 3) else _refuse(write) for write in writes]
    _check_together(given)
    facts = _facts(given)
    entries = sorted(given, key=lambda entry: not facts.reads(entry.place.store.path))
    lead = entries[0]
    what, name = _what(entries, facts, options)
    identity = identify(lead.place, lead.box, what, options, name=name)
    previous = previous_manifest(lead.place, lead.box, identity, options)
    entries = [
        replace(
            entry,
            in_place=number in previous.in_place
            if previous is not None
            else replaces_what_it_reads(entry.place, entry.box, facts, in_place),
        )
        for number, entry in enumerate(entries)
    ]
    lead = entries[0]
    engine = pick_engine(client, retries, resources)
    engine.check_inputs(facts.futures)
    if previous is not None:
        plan = plan_again(lead.place.store.spec, lead.box, previous.unit)
    else:
        base = _base(entries)
        per_voxel = sum(entry.box.volume() * entry.place.store.spec.bytes_per_voxel for entry in entries) / (
            lead.box.volume()
        )
        plan = plan_write(
            lead.place.store.spec,
            lead.box,
            threads=engine.threads,
            unit_nbytes=int(UNIT_NBYTES * lead.place.store.spec.bytes_per_voxel / per_voxel),
            base=base,
            memory=engine.task_memory(),
            # of every array a block, its copy in the order of the files, and the source blocks around it
            task_memory=task_memory or int(3 * per_voxel * base.pairmin(lead.box.size).prod()),
        )
    the_job = Job.of(
        lead.place,
        plan,
        "writing",
        options,
        identity=identity,
        others=[_write_of(entry, lead, plan) for entry in entries[1:]],
        reads=[source for source in facts.sources if is_stored_mag(source)],
        in_place=lead.in_place,
        inputs=[entry.array for entry in entries],
    )
    report = run_planned(
        the_job, lambda folders: _stages(the_job, entries, folders), engine, options.listeners
    )
    reports = {(each.dataset_path, each.label): each for each in (report, *report.others)}
    return [reports[entry.place.dataset_path, entry.place.label] for entry in given]


def _write_of(entry: _Entry, lead: _Entry, plan: WritePlan) -> MagWrite:
    """Return what the job does to a further mag; its units are those of the plan, in voxels of that mag."""
    unit = plan.unit.shape * lead.place.mag.to_vec3_int() // entry.place.mag.to_vec3_int()
    return MagWrite(entry.place, entry.box, in_place=entry.in_place, unit=unit)


def _refuse(write: Any) -> _Entry:
    raise InvalidValueError(f"expected (array, mag, bounding_box), got {write!r:.80}")


def _entry(array: Any, mag: Any, bounding_box: BoundingBox | None = None) -> _Entry:
    """Return an entry, checked on its own."""
    offset = None
    if isinstance(mag, MagView):
        array, offset = without_coordinates(mag, array, None, bounding_box)
    if not isinstance(mag, MagView) or not hasattr(array, "dask"):
        raise InvalidValueError(
            f"expected a dask array and a MagView, got {type(array).__name__} and {type(mag).__name__}; a numpy "
            f"array is written by MagView.write"
        )
    if mag.read_only:
        raise ReadOnlyError(f"{mag.place.label} is read-only: {mag.place.read_only}")
    box = mag.box_to_write(array, offset, bounding_box)
    array = with_whole_voxels(array)
    return _Entry(array if array.ndim == 4 else array[None], mag.place, box)


def _check_together(entries: Sequence[_Entry]) -> None:
    """Refuse what cannot be one job."""
    if not entries:
        raise InvalidValueError("there is nothing to write: the list is empty")
    paths = [entry.place.store.path for entry in entries]
    if len(set(paths)) < len(paths):
        raise InvalidValueError(f"two arrays go to the same mag: {sorted(paths)}")
    boxes = [entry.box.from_mag_to_mag1(entry.place.mag) for entry in entries]
    for entry, box in zip(entries, boxes, strict=True):
        refuse_p2p(entry.array)
        if box != boxes[0]:
            raise PlanError(
                f"the arrays are to be written into one box; {entries[0].place.label} gets {boxes[0]}, "
                f"{entry.place.label} {box} (voxels of mag 1). Write them by MagView.write, one by one"
            )


def _facts(entries: Sequence[_Entry]) -> GraphFacts:
    """Return what all the arrays together read."""
    each = [facts_of(entry.array) for entry in entries]
    return GraphFacts(
        tuple(source for facts in each for source in facts.sources),
        all(facts.is_known for facts in each),
        tuple(future for facts in each for future in facts.futures),
    )


def _base(entries: Sequence[_Entry]) -> Vec3Int:
    """Return the least unit: whole cubes of every mag, in voxels of the first."""
    cubes = [entry.place.store.spec.shard_shape * entry.place.mag.to_vec3_int() for entry in entries]
    whole = Vec3Int([math.lcm(*sides) for sides in zip(*cubes, strict=True)])
    return whole // entries[0].place.mag.to_vec3_int()


def _what(entries: Sequence[_Entry], facts: GraphFacts, options: WriteOptions) -> tuple[str | None, str]:
    """Return what the job computes, None where that is non-deterministic, and its name for people.

    Raises
    ------
    ResumeError
        If such an array is to be resumed.
    """
    name = " and ".join(entry.array.name for entry in entries)
    if options.job is None:
        for entry in entries:
            why = why_name_changes(entry.array, thorough=options.resume)
            if why is not None and options.resume:
                raise ResumeError(
                    f"{entry.place.label}: this array cannot be resumed, since its name is "
                    f"non-deterministic: {why}. "
                    f'Give seeds, or name the job yourself: job="..."'
                )
            if why is not None:
                return None, name
    targets = [path for entry in entries if facts.reads(path := entry.place.store.path)]
    parts = [structure_of(entry.array, *targets) if targets else entry.array.name for entry in entries]
    lead = entries[0].place.store.path  # the others are named from there on: the dataset may be moved
    places = [os.path.relpath(entry.place.store.path, lead) for entry in entries]
    return "|".join([*parts, *places]), name


def _stages(job: Job, entries: Sequence[_Entry], folders: JobFolders) -> list[Stage]:
    """Return the stages of a job: one, or more where mags are read that it replaces."""
    outputs = outputs_of(job, folders, [None] * len(entries))
    stream = stream_of(job.plan, 0)
    windows = _windows(job.plan, entries, outputs, folders.main)
    return [Stage(len(stream), windows, (stream,)), *replace_stages(job, folders)]


def _windows(
    plan: WritePlan, entries: Sequence[_Entry], outputs: tuple[MapOutput, ...], folder: str
) -> Iterator[ArrayWindow]:
    """Yield one lazily built graph per window, over all arrays."""
    lead = entries[0].place.mag.to_vec3_int()
    plans = []
    for entry in entries:
        mag = entry.place.mag.to_vec3_int()
        cut = plan_again(entry.place.store.spec, entry.box, plan.unit.shape * lead // mag)
        plans.append(replace(cut, window=CubeGrid(plan.window.shape * lead // mag)))

    def build(window: Window, sink: Callable[[UnitReport], None] | None = None) -> da.Array:
        import dask
        import dask.array as da

        parts = []
        for entry, own in zip(entries, plans, strict=True):
            part = Window(own, window.index)
            block = entry.array[(slice(None), *part.box.to_slices(entry.box.topleft))]
            parts.append(cut_into_units(block, part))
        written = da.map_blocks(
            write_blocks,
            *parts,
            outputs=outputs,
            window=window,
            sink=sink,
            name=f"{task_name('store', folder)}-{folder[-12:]}-{'-'.join(map(str, window.index))}",
            dtype=object,
            chunks=tuple((1,) * len(axis) for axis in parts[0].chunks),
            meta=np.empty((0, 0, 0, 0), dtype=object),
        )
        (optimized,) = dask.optimize(written)
        result: da.Array = optimized
        return result

    refuse_shared_work(plan, build)
    stream = stream_of(plan, 0)
    for window in plan.windows:
        yield ArrayWindow(window.unit_boxes(), lambda sink, window=window: build(window, sink), stream)  # type: ignore[misc]


def write_blocks(
    *blocks: Voxels,
    outputs: tuple[MapOutput, ...],
    window: Window,
    sink: Callable[[UnitReport], None] | None = None,
    block_id: tuple[int, ...] | None = None,
) -> np.ndarray[Any, Any]:
    """Write a block of every array: the function that ``map_blocks`` puts at the end of them.

    Parameters
    ----------
    blocks
        The voxels, one block per output.
    outputs
        Where they go; the first is the job's own mag.
    window
        The window whose units are the blocks, in voxels of the first output.
    sink
        Called with the report, where the driver is in the same process and waits for it.
    block_id
        The place of the blocks (c, x, y, z), from dask.

    Returns
    -------
    numpy.ndarray
        One :class:`UnitReport`, as an object array of shape (1, 1, 1, 1).
    """
    unit = window.unit_box((0, 0, 0) if block_id is None else block_id[1:])
    boxes = [scaled_box(unit, outputs[0].place.mag, output.place.mag) for output in outputs]
    report = write_outputs(blocks, outputs, boxes)
    if sink is not None:
        sink(report)
    result = np.empty((1, 1, 1, 1), dtype=object)
    result[0, 0, 0, 0] = report
    return result
