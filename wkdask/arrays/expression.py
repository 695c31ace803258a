"""A dask expression -> windows of write tasks.

::

    array[window] -> rechunk to units (Fortran order kept) -> map_blocks(write_block) -> optimised graph

One graph per window, built when its turn comes: neither memory nor the time to the first cube depend on
how many windows follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.errors import PlanError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.grid import CubeGrid, chunks_on_grid
from wkdask.jobs.job import Job, JobFolders, replace_stages
from wkdask.jobs.journal import Stream
from wkdask.jobs.plan import Window, WritePlan
from wkdask.jobs.tasks import Target, UnitReport, refuse_odd_block, write_block
from wkdask.jobs.windows import ArrayWindow, Stage, stream_of, task_name
from wkdask.storage.protocol import Voxels

if TYPE_CHECKING:
    import dask.array as da
    from dask.delayed import Delayed

__all__ = ["array_stages", "common_tasks", "cut_into_units", "refuse_shared_work", "unit_blocks"]

_COMMON_TASKS = 64
"""Tasks that two windows may share before the job counts as one that repeats work."""
_FEW_UNITS = 8
"""A graph may be built for so many units more than twice those that are asked for."""
_COMMON_PART = 3
"""They also are more than one in so many of a window's tasks: neighbours share blocks along their border."""


def array_stages(job: Job, array: da.Array, folders: JobFolders) -> list[Stage]:
    """Return the stages that write a dask array.

    Parameters
    ----------
    job
        Where it goes; the array's first voxel is the corner of ``job.plan.box``. If the array reads, or may
        read, what it replaces, all cubes are built before any is published: a task that runs twice must not
        read what its own job wrote.
    array
        ``(c, x, y, z)``, of the mag's type; its channels in one block.
    folders
        The job's private folders.
    """
    plan, folder = job.plan, folders.main
    if plan.parts is not None:
        staged = job.store.staged(f"{folder}/staged", raw=True)
        first = _array_stage(plan.parts, array, Target(staged, folder, job.durable), "fill")
    elif job.in_place:
        staged = job.store.staged(f"{folder}/staged")
        first = _array_stage(plan, array, Target(staged, folder, job.durable, job.verify), "stage")
    else:
        return [_array_stage(plan, array, Target(job.store, folder, job.durable, job.verify), "publish")]
    return [first, *replace_stages(job, folders)]


def _array_stage(plan: WritePlan, array: da.Array, target: Target, step: str) -> Stage:
    """Return the stage whose tasks are the blocks of an array, cut into the units of a plan."""
    stream = stream_of(plan, 0)
    return Stage(len(stream), _array_windows(plan, array, target, step, stream), (stream,))


def _array_windows(
    plan: WritePlan, array: da.Array, target: Target, step: str, stream: Stream
) -> Iterator[ArrayWindow]:
    """Yield one lazily built graph per window of a plan."""
    refuse_shared_work(plan, lambda window: _array_window(window, array, target, step).build(None))
    for window in plan.windows:
        yield _array_window(window, array, target, step, stream)


def _array_window(
    window: Window, array: da.Array, target: Target, step: str, stream: Stream | None = None
) -> ArrayWindow:
    """Return the part of an array that a window writes, with a write at the end of every block."""

    def build(sink: Callable[[UnitReport], None] | None) -> da.Array:
        import dask

        part = array[(slice(None), *window.box.to_slices(window.plan.box.topleft))]
        part = cut_into_units(part, window)
        name = f"{task_name('write', target.folder)}-{target.folder[-12:]}-{'-'.join(map(str, window.index))}"
        written = part.map_blocks(
            write_block,
            target=target,
            window=window,
            step=step,
            sink=sink,
            name=name,
            dtype=object,
            chunks=tuple((1,) * len(axis) for axis in part.chunks),
            meta=np.empty((0, 0, 0, 0), dtype=object),
        )
        (optimized,) = dask.optimize(written)
        result: da.Array = optimized
        return result

    return ArrayWindow(window.unit_boxes(), build, stream)


def cut_into_units(part: da.Array, window: Window) -> da.Array:
    """Return the array cut into the units of a window, as `cut_on_grid` does."""
    return cut_on_grid(part, window.box, window.plan.unit.shape)


def cut_on_grid(part: da.Array, box: BoundingBox, shape: Vec3Int) -> da.Array:
    """Return the array of a box cut on the absolute grid of a shape, Fortran order kept.

    ::

        (c, x, y, z) --pack--> (1, x, y, z) of whole voxels --T, rechunk, T--> --unpack--> (c, x, y, z)

    dask assembles blocks in C order, which seen through the transpose is Fortran order. Channels at its end would
    make numpy copy voxel by voxel, eight times slower: so a voxel travels as one element. The axis stays: by
    map_blocks(drop_axis=) it would be concatenated, into C order.
    """
    channels, space = part.chunks[0], chunks_on_grid(box, shape)
    if part.chunks[1:] == space:
        return part
    whole = np.dtype(f"V{part.dtype.itemsize * part.shape[0]}") if part.shape[0] > 1 else part.dtype
    packed = part.map_blocks(
        pack_voxels, whole, dtype=whole, chunks=((1,), *part.chunks[1:]), meta=np.empty((0,) * 4, whole)
    )
    # By tasks: dask's other method ("p2p") cannot be cut into windows and starts over when a worker dies.
    cut = packed.T.rechunk((*space[::-1], (1,)), balance=False, method="tasks").T
    return cut.map_blocks(
        unpack_voxels,
        part.dtype,
        dtype=part.dtype,
        chunks=(channels, *space),
        meta=np.empty((0,) * 4, part.dtype),
    )


def unit_blocks(array: da.Array, plan: WritePlan, units: Sequence[BoundingBox]) -> list[Delayed]:
    """Return the voxels of some units, each as a graph of its own.

    Parameters
    ----------
    array
        ``(c, x, y, z)``; its first voxel is the corner of ``plan.box``.
    plan
        Cuts it into units.
    units
        What each covers of ``plan.box``. Those that follow each other lie beside each other for the most part: no
        graph is built that is much larger than theirs.
    """
    import dask
    from dask.delayed import Delayed
    from dask.optimization import cull

    blocks = []
    for union, boxes in _neighbours(units, plan.unit):
        part = array[(slice(None), *union.to_slices(plan.box.topleft))]
        (cut,) = dask.optimize(cut_on_grid(part, union, plan.unit.shape))
        graph, first = dict(cut.__dask_graph__()), plan.unit.cubes(union).start
        for box in boxes:
            key = (cut.name, 0, *(plan.unit.cubes(box).start - first))
            blocks.append(Delayed(key, cull(graph, [key])[0]))
    return blocks


def _neighbours(
    units: Iterable[BoundingBox], grid: CubeGrid
) -> Iterator[tuple[BoundingBox, list[BoundingBox]]]:
    """Group boxes that follow each other as long as at least half of their union is theirs."""
    union, group = None, []
    for box in units:
        wider = box if union is None else union.extended_by(box)
        if union is not None and len(grid.cubes(wider)) > 2 * len(group) + _FEW_UNITS:
            yield union, group
            wider, group = box, []
        union = wider
        group.append(box)
    if union is not None:
        yield union, group


def common_tasks(blocks: Iterable[Delayed]) -> int:
    """Return how many tasks more than one of the blocks asks for; data that are there already do not count."""
    counts: Counter[Any] = Counter()
    for block in blocks:
        graph = block.__dask_graph__()
        counts.update(key for key, task in graph.items() if _computes(task))
    return sum(1 for count in counts.values() if count > 1)


def _computes(task: Any) -> bool:
    """Return whether this is a task, not data or another name."""
    return callable(getattr(task, "func", task[0] if isinstance(task, tuple) and task else None))


def pack_voxels(block: Voxels, whole: np.dtype[Any]) -> Voxels:
    """Return ``(c, x, y, z)`` as ``(1, x, y, z)`` with one element per voxel, x fastest."""
    from wkdask.kernels import to_fortran

    refuse_odd_block(block)  # before dask joins blocks, which would lose what is odd about them
    if block.shape[0] == 1 and block.strides[1] == block.itemsize:
        return block
    packed: Voxels = to_fortran(block).T.view(whole).T
    return packed


def unpack_voxels(block: Voxels, dtype: np.dtype[Any]) -> Voxels:
    """Return ``(1, x, y, z)`` with one element per voxel as ``(c, x, y, z)``, c fastest."""
    if block.dtype == dtype:
        return block
    voxels: Voxels = np.ascontiguousarray(block.T).view(dtype).T
    return voxels


def refuse_shared_work(plan: WritePlan, build: Callable[[Window], da.Array]) -> None:
    """Refuse an expression whose windows would each compute a large common part again.

    The graph of the first window is compared with those at the far ends of the plan, along each axis and
    across: apart from each other, they have tasks in common only where something spans the whole array, or one
    of its axes (a mean, a rechunk through all of it).

    Parameters
    ----------
    plan
        The windows.
    build
        Returns what is computed for a window.

    Raises
    ------
    PlanError
        If they share more than a few tasks; names one of them, and the remedy.
    """
    if plan.num_windows == 1:
        return

    def tasks(index: Vec3Int) -> set[Any]:
        return set(build(Window(plan, index)).__dask_graph__())

    indices = plan.window.cubes(plan.box)
    start, reach = indices.start, indices.shape - 1
    x, y, z = reach
    steps = {(x, 0, 0), (0, y, 0), (0, 0, z), (x, y, z)} - {(0, 0, 0)}
    first = tasks(start)
    for step in sorted(steps):
        other = tasks(start + step)
        common = first & other
        if len(common) <= max(_COMMON_TASKS, max(len(first), len(other)) // _COMMON_PART):
            continue
        example = next((key for key in common if isinstance(key, tuple)), next(iter(common)))
        raise PlanError(
            f"the {plan.num_windows} windows of this job would each compute {len(common)} common tasks again "
            f"(such as {example!r}): some of the expression spans the whole array. Compute that part once "
            f"before, as in m = x.mean().compute(); mag.write(x - m), or keep it with .persist(); a halo or a "
            f"rechunk over everything belongs into map_cubes, which cuts first"
        )
