"""Voxels in hand, numpy or dask -> a job on the right engine.

What a caller gives is checked here, once; everything below trusts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.driver import run_job
from wkdask.engines import Engine, LocalEngine, pick_engine
from wkdask.errors import ChannelError, DTypeError, InvalidValueError, PlanError, ReadOnlyError
from wkdask.events import WriteReport
from wkdask.expression import array_stages
from wkdask.geometry import BoundingBox
from wkdask.job import Job, MagPlace, Stage, WriteOptions, call_windows
from wkdask.lazy import reads_from
from wkdask.plan import WritePlan, plan_write, refuse_unknown_chunks
from wkdask.storage.protocol import Voxels
from wkdask.tasks import Target, write_unit

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["MagPlace", "WriteOptions", "shape_of", "write_voxels"]


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
    if data.ndim == 3:
        data = data[None]
    if isinstance(data, np.ndarray):
        engine: Engine = LocalEngine()
        plan = plan_write(place.store.spec, box, threads=engine.threads)

        def stages(job: Job, folder: str) -> list[Stage]:
            return _numpy_stages(job, data, folder)

    else:
        _refuse_array_expr()
        engine = pick_engine(options.client)
        plan = plan_write(
            place.store.spec,
            box,
            source_chunks=data.chunks[1:],
            threads=engine.threads,
            memory=engine.task_memory(),
            task_memory=options.task_memory,
        )
        two_phases = reads_from(data, place.store)

        def stages(job: Job, folder: str) -> list[Stage]:
            return array_stages(job, data, folder, two_phases=two_phases)

    return run_planned(place, plan, stages, engine, options)


def run_planned(
    place: MagPlace,
    plan: WritePlan,
    stages: Callable[[Job, str], Sequence[Stage]],
    engine: Engine,
    options: WriteOptions,
    action: str = "writing",
) -> WriteReport:
    """Run the stages of a plan as a job on a mag."""
    job = Job.of(place, plan, action, options)
    report = run_job(job, lambda folder: stages(job, folder), engine, options.listeners)
    if report is None:
        raise PlanError(f"{job.label}: the job had no tasks")
    return report


def _numpy_stages(job: Job, data: Voxels, folder: str) -> list[Stage]:
    """Return the stage that writes an array of this process: no graph, views of the array as arguments."""
    target = Target(job.store, folder, job.durable, job.verify)
    corner = job.plan.box.topleft
    windows = call_windows(
        job.plan,
        folder,
        "write",
        lambda box: (write_unit, data[(slice(None), *box.to_slices(corner))], target, box),
    )
    return [Stage(len(job.plan.units), windows)]


def _refuse_array_expr() -> None:
    """Refuse to write under dask's new array engine, whose graphs lose the order of our write tasks."""
    import dask.array as da

    enabled = getattr(da, "array_expr_enabled", lambda: False)
    if enabled():
        raise PlanError(
            "dask's array-expr mode is on; wkdask reads with it but does not write. Set the dask option "
            "array.query-planning to False before dask.array is imported"
        )


def as_single_channel_block(array: da.Array) -> da.Array:
    """Return the array with all its channels in one block, as cubes hold them."""
    return array.rechunk({0: -1}) if len(array.chunks[0]) > 1 else array
