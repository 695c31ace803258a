"""A function for every chunk of a view, as tasks that own whole cubes.

::

    chunks   |..|..|..|..|..|..|..|..|     64³, on the absolute grid, clipped at the view
    cubes    |...........|...........|     256³
    tasks    |     0     |     1     |     a task runs the chunks of its cubes and publishes each cube once
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from wkdask.errors import AlignmentError, InvalidValueError, TaskFailedError, WkdaskWarning
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.geometry.grid import IndexRange
from wkdask.jobs.driver import run_job
from wkdask.jobs.engines.choice import LocalEngine, pick_engine
from wkdask.jobs.events import Event, UnitDone
from wkdask.jobs.job import Job, JobFolders, MagPlace, WriteOptions
from wkdask.jobs.plan import plan_write
from wkdask.jobs.tasks import PlaceReport, Target, UnitReport, ended, note_landed
from wkdask.jobs.unwritten import run_unwritten
from wkdask.jobs.windows import Stage, call_windows, task_name
from wkdask.operations.callables import Shipped
from wkdask.operations.inline import TaskWrites, gathered_writes
from wkdask.operations.script_executor import ScriptExecutor
from wkdask.storage.publish.jobs import of_living_job

if TYPE_CHECKING:
    from wkdask.jobs.events import WriteReport

__all__ = ["ChunkedView", "chunk_shape_2021", "run_chunks", "warn_of_ignored"]


@dataclass(frozen=True, slots=True)
class ChunkedView:
    """A view and how it is cut; plain data, which a worker turns into a view again."""

    place: MagPlace
    """The mag."""
    box: BoundingBox
    """The view's box: absolute, in voxels of its mag."""
    chunk_shape: Vec3Int
    """Sides of a chunk, in voxels of its mag."""
    read_only: bool
    """Whether the function may write into it."""

    @property
    def chunks(self) -> IndexRange:
        """Indices of the chunks on the absolute grid."""
        return IndexRange(
            self.box.topleft // self.chunk_shape, self.box.bottomright.ceildiv(self.chunk_shape)
        )

    def chunk_box(self, index: Vec3Int) -> BoundingBox:
        """Return what a chunk covers of the view."""
        return BoundingBox(index * self.chunk_shape, self.chunk_shape).intersection(self.box)


def chunk_shape_2021(chunk_size: Vec3IntLike) -> Vec3Int:
    """Return the shape of chunks; the API asks for powers of two that are multiples of 32.

    Raises
    ------
    AlignmentError
        If a side is something else.
    """
    shape = Vec3Int.from_scalar_or_vec(chunk_size)
    if any(side < 32 or side & (side - 1) for side in shape):
        raise AlignmentError(
            f"the sides of chunks are powers of two from 32 on, so that cubes are cut evenly; got {shape}"
        )
    return shape


def warn_of_ignored(**given: object) -> None:
    """Say that arguments by which other libraries cut and run their work do nothing here, if any is given."""
    names = [
        f"{name}="
        for name, value in given.items()
        if value is not None and not isinstance(value, ScriptExecutor)
    ]
    if names:
        warnings.warn(
            f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} ignored: wkdask cuts the work itself, "
            "and tasks run on the active dask client, or on local threads",
            WkdaskWarning,
            stacklevel=3,
        )


def run_chunks(
    function: Callable[[Sequence[Any], int], Any],
    views: Sequence[ChunkedView],
    view_of: Callable[[MagPlace, BoundingBox, bool], Any],
    options: WriteOptions,
    *,
    keep: bool,
) -> tuple[WriteReport | None, list[Any]]:
    """Call a function for every chunk of one view, or of several that are cut alike.

    Parameters
    ----------
    function
        Called with the views of a chunk, one per entry of `views`, and the chunk's number.
    views
        The last one is the one whose cubes the tasks own; all have the same number of chunks along each axis.
    view_of
        Makes a view of a place, a box and a flag.
    options
        How it runs.
    keep
        Whether what the function returns is wanted.

    Returns
    -------
    WriteReport or None
        What was written into the last view; None if nothing was.
    list
        What the function returned, in the order of the chunks; empty without `keep`.

    Raises
    ------
    AlignmentError
        If views are cut into different numbers of chunks, or chunks and cubes straddle each other.
    TaskFailedError
        If the function raised; what was written before is in the properties.
    """
    owner = views[-1]
    if owner.box.is_empty():
        return None, []
    shapes = {view.chunks.shape for view in views}
    if len(shapes) != 1:
        raise AlignmentError(
            "the views are cut into different numbers of chunks: "
            + ", ".join(f"{view.chunks.shape} of {view.place.label}" for view in views)
        )
    base = _unit_base(owner)
    engine = pick_engine(options.client)
    plan = plan_write(
        owner.place.store.spec,
        owner.box,
        threads=engine.threads,
        memory=engine.task_memory(),
        task_memory=options.task_memory,
        base=base,
    )
    values: list[tuple[int, Any]] = []

    def collect(event: Event) -> None:
        if isinstance(event, UnitDone) and event.report.value is not None:
            values.extend(event.report.value)

    listeners = [*options.listeners, *([collect] if keep else [])]
    arguments = (Shipped(function), tuple(views), view_of, keep, not isinstance(engine, LocalEngine))

    if all(view.read_only for view in views):
        name = task_name("chunks", owner.place.store.path)
        windows = call_windows(plan, "", name, lambda box: (chunks_unit, *arguments, None, box))
        reads = [view.place.store for view in views]
        run_unwritten(owner.place.label, plan, windows, engine, listeners, reads=reads)
        report = None
    else:
        reads = [view.place.store for view in views[:-1]]
        job = Job.of(owner.place, plan, "mapping", options, reads=reads)

        def stages(folders: JobFolders) -> list[Stage]:
            target = Target(owner.place.store, folders.main, options.durable, options.verify)
            return [
                Stage(
                    len(plan.units),
                    call_windows(
                        plan,
                        folders.main,
                        "chunks",
                        lambda box: (chunks_unit, *arguments, target, box),
                    ),
                )
            ]

        report = run_job(job, stages, engine, listeners)
    return report, [value for _, value in sorted(values, key=lambda entry: entry[0])]


def _unit_base(view: ChunkedView) -> Vec3Int:
    """Return the smallest box that is whole cubes and whole chunks."""
    shard = view.place.store.spec.shard_shape
    if view.read_only:
        return view.chunk_shape
    if any(chunk % cube and cube % chunk for chunk, cube in zip(view.chunk_shape, shard, strict=True)):
        raise AlignmentError(
            f"chunks of {view.chunk_shape} straddle the cubes of {shard} of {view.place.label}; along each "
            f"axis a chunk divides a cube or is a whole number of cubes"
        )
    return shard.pairmax(view.chunk_shape)


def chunks_unit(
    function: Callable[[Sequence[Any], int], Any],
    views: Sequence[ChunkedView],
    view_of: Callable[[MagPlace, BoundingBox, bool], Any],
    keep: bool,
    may_rerun: bool,
    target: Target | None,
    box: BoundingBox,
) -> UnitReport:
    """Run the chunks of a unit, gather what they write, and publish it.

    Where a task may run again because its worker was lost, voxels that are read and changed are changed once
    only: what the first run writes is kept in the job's folder before any of it is published.
    """
    kept = None
    if target is not None and may_rerun:
        kept = f"{target.folder}/kept-{'-'.join(map(str, box.topleft))}"
        if (earlier := TaskWrites.kept(kept)) is not None:
            result = _published(earlier, views[-1], target, box)
            if keep:
                error = TaskFailedError(
                    f"the worker that ran the function for {box} was lost, and what it returned with it; what it "
                    f"wrote is published, so the function is not called again"
                )
                note_landed(error, [result.box] if result.box is not None else [], list(result.others))
                raise error
            return result
    writes, values = _run_function(function, views, view_of, keep, box)
    if kept is not None and target is not None and writes.changes_what_it_read():
        with of_living_job(target.folder):
            is_first = writes.keep(kept)
        if not is_first:
            writes = TaskWrites.kept(kept) or writes
    return replace(_published(writes, views[-1], target, box), value=values or None)


def _run_function(
    function: Callable[[Sequence[Any], int], Any],
    views: Sequence[ChunkedView],
    view_of: Callable[[MagPlace, BoundingBox, bool], Any],
    keep: bool,
    box: BoundingBox,
) -> tuple[TaskWrites, list[tuple[int, Any]]]:
    """Return what the function writes and returns for the chunks of a unit."""
    owner = views[-1]
    values = []
    with gathered_writes() as writes:
        for number, index in _chunks_in(owner, box):
            place = index - owner.chunks.start
            handles = [
                view_of(view.place, view.chunk_box(view.chunks.start + place), view.read_only)
                for view in views
            ]
            try:
                value = function(handles, number)
            except Exception as error:
                error.add_note(f"in chunk {number}, {handles[-1].box} of {owner.place.label}")
                raise
            if keep:
                values.append((number, value))
    return writes, values


def _published(writes: TaskWrites, owner: ChunkedView, target: Target | None, box: BoundingBox) -> UnitReport:
    """Publish what a unit writes, and report it."""
    start = time.perf_counter()
    reports = writes.publish(target)
    ours = [report for report in reports if _is_at(report, owner.place)]
    others = tuple(report for report in reports if not _is_at(report, owner.place))
    result = ended(box, start, others=others)
    if not ours:
        return result
    return replace(  # of several positions along further axes, which have one layer and mag, all
        result,
        box=reduce(BoundingBox.extended_by, (own.box for own in ours)),
        cubes=sum(own.cubes for own in ours),
        nbytes=sum(own.nbytes for own in ours),
        file_nbytes=sum(own.file_nbytes for own in ours),
        minimum=min((own.minimum for own in ours if own.minimum is not None), default=None),
        maximum=max((own.maximum for own in ours if own.maximum is not None), default=None),
    )


def _is_at(report: PlaceReport, place: MagPlace) -> bool:
    """Return whether a report is of a mag."""
    return (report.dataset_path, report.layer, report.mag) == (place.dataset_path, place.layer, place.mag)


def _chunks_in(view: ChunkedView, box: BoundingBox) -> Iterator[tuple[int, Vec3Int]]:
    """Yield number and index of the chunks of a view that lie in a unit's box."""
    chunks = view.chunks
    nx, ny, _ = chunks.shape
    inside = IndexRange(box.topleft // view.chunk_shape, box.bottomright.ceildiv(view.chunk_shape))
    for index in inside:
        x, y, z = index - chunks.start
        yield x + nx * (y + ny * z), index


def check_zipped(source: ChunkedView, target: ChunkedView) -> None:
    """Refuse empty views, chunks that do not match each other, and chunks that are no whole cubes.

    Raises
    ------
    AlignmentError, InvalidValueError
        If so.
    """
    for what, size in (("source", source.box.size), ("target", target.box.size)):
        if 0 in size:
            raise InvalidValueError(f"the {what} view is empty")
    for axis in range(3):
        left = source.box.size[axis] * target.chunk_shape[axis]
        right = target.box.size[axis] * source.chunk_shape[axis]
        if left != right:
            raise AlignmentError(
                f"the views {source.box.size} and {target.box.size} are not in the ratio of their chunks "
                f"{source.chunk_shape} and {target.chunk_shape}"
            )
        # Chunks are cut on the absolute grids: the first ones must be cut off alike, or the others are shifted.
        left = source.box.topleft[axis] % source.chunk_shape[axis] * target.chunk_shape[axis]
        right = target.box.topleft[axis] % target.chunk_shape[axis] * source.chunk_shape[axis]
        if left != right and max(source.chunks.shape[axis], target.chunks.shape[axis]) > 1:
            raise AlignmentError(
                f"the views begin at {source.box.topleft} and {target.box.topleft}, at different places within "
                f"their chunks {source.chunk_shape} and {target.chunk_shape}: the chunks would not match"
            )
    shard = target.place.store.spec.shard_shape
    if any(target.chunk_shape % shard):
        raise AlignmentError(
            f"the target's chunks {target.chunk_shape} are no whole number of its cubes {shard}"
        )
