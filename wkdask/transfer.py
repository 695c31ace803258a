"""Voxels from one stored mag to another: copied, compressed, cut into other cubes.

::

    same type, cut and compression        cube files are copied, nothing is decoded
    anything else                         a task reads its unit and publishes it
    the same mag, another compression     each cube is rewritten under its lock, the header changes last
"""

from __future__ import annotations

import time
from dataclasses import replace

from wkdask.driver import run_job
from wkdask.engines import pick_engine
from wkdask.errors import InvalidValueError, ReadOnlyError
from wkdask.events import WriteReport
from wkdask.existing import plan_existing
from wkdask.geometry import BoundingBox
from wkdask.job import Job, JobFolders, MagPlace, Stage, WriteOptions, call_windows, listed_windows
from wkdask.plan import plan_write
from wkdask.storage.copies import publish_copies, rewrite_cubes
from wkdask.storage.fence import Attempt
from wkdask.storage.protocol import StoredMag
from wkdask.tasks import Target, UnitReport, here, write_unit

__all__ = ["compress_in_place", "copy_cubes", "copy_mag"]


def copy_mag(
    source: StoredMag, target: MagPlace, box: BoundingBox, options: WriteOptions, action: str = "copying"
) -> WriteReport | None:
    """Copy the voxels of a box from one mag to another of the same magnification.

    Parameters
    ----------
    source
        Where they are.
    target
        Where they go; of the same type and channels.
    box
        Absolute, in voxels of the mag. Where files are copied, whole cubes are.
    options
        How it runs.
    action
        What to call it.

    Returns
    -------
    WriteReport or None
        None if the box is empty.

    Raises
    ------
    InvalidValueError
        If type or channels differ.
    """
    have, want = source.spec, target.store.spec
    if (have.dtype, have.num_channels) != (want.dtype, want.num_channels):
        raise InvalidValueError(
            f"{source.path} holds {have.num_channels} × {have.dtype}, {target.label} {want.num_channels} × "
            f"{want.dtype}: that is not a copy"
        )
    if box.is_empty():
        return None
    engine = pick_engine(options.client)
    plan = plan_write(
        want, box, threads=engine.threads, memory=engine.task_memory(), task_memory=options.task_memory
    )
    job = Job.of(target, plan, action, options)

    def stages(folders: JobFolders) -> list[Stage]:
        out = Target(target.store, folders.main, options.durable, options.verify)
        windows = call_windows(plan, folders.main, "copy", lambda unit: (copy_unit, source, out, unit))
        return [Stage(len(plan.units), windows)]

    return run_job(job, stages, engine, options.listeners)


def copy_cubes(source: StoredMag, target: MagPlace, options: WriteOptions, action: str) -> WriteReport | None:
    """Copy all that a mag holds, wherever it is, into an empty one; the layer's box stays as it is.

    Parameters
    ----------
    source, target, options, action
        As for `copy_mag`.

    Returns
    -------
    WriteReport or None
        None if there is no cube.
    """
    grid, new_grid = source.spec.grid, target.store.spec.grid
    cubes = {cube for index in source.cubes_on_disk() for cube in new_grid.cubes(grid.cube_box(index))}
    if not cubes:
        return None
    engine = pick_engine(options.client)
    plan, units = plan_existing(target.store, sorted(cubes), engine, options.task_memory)
    job = replace(Job.of(target, plan, action, options), listed_cubes=len(cubes))

    def stages(folders: JobFolders) -> list[Stage]:
        out = Target(target.store, folders.main, options.durable, options.verify)
        windows = listed_windows(
            units, folders.main, "copy", lambda unit: (copy_whole_unit, source, out, unit)
        )
        return [Stage(len(units), windows)]

    return run_job(job, stages, engine, options.listeners)


def copy_whole_unit(source: StoredMag, target: Target, box: BoundingBox) -> UnitReport:
    """Copy what a unit covers; report the cubes that came of it, and no box, by which a layer would grow."""
    report, store = copy_unit(source, target, box), target.store
    cubes = sum(store.check_cube(store.cube_path(index)) for index in store.spec.grid.cubes(box))
    return replace(report, box=None, cubes=cubes, nbytes=cubes * store.spec.cube_nbytes)


def copy_unit(source: StoredMag, target: Target, box: BoundingBox) -> UnitReport:
    """Copy what a unit covers: its files, or its voxels where the mags are stored differently."""
    if source.spec != target.store.spec:
        return write_unit(source.read(box), target, box)
    start = time.perf_counter()
    cubes, file_nbytes = publish_copies(
        target.store, source, target.folder, box, durable=target.durable, attempt=Attempt(str(box))
    )
    return UnitReport(
        unit=box,
        box=box,
        cubes=cubes,
        nbytes=box.volume() * source.spec.bytes_per_voxel,
        file_nbytes=file_nbytes,
        seconds=time.perf_counter() - start,
        worker=here(),
    )


def compress_in_place(place: MagPlace, compression: str | None, options: WriteOptions) -> WriteReport | None:
    """Store the cubes of a mag with another compression, each replaced under its lock, the header last.

    A reader meets both kinds meanwhile, and reads each by its own header. A job that dies half-way leaves a
    mag that is read as before; done again, it completes.

    Parameters
    ----------
    place
        The mag.
    compression
        One of `wkdask.storage.protocol.COMPRESSIONS`.
    options
        How it runs.

    Returns
    -------
    WriteReport or None
        None if there is no cube.
    """
    if place.read_only is not None:
        raise ReadOnlyError(f"{place.label} is read-only: {place.read_only}")
    wanted = place.store.recompressed(compression)
    cubes = list(place.store.cubes_on_disk())
    if not cubes:
        wanted.publish_header()
        return None
    engine = pick_engine(options.client)
    plan, units = plan_existing(wanted, cubes, engine, options.task_memory)
    # No box is reported: compression grows no layer.
    job = replace(Job.of(replace(place, store=wanted), plan, "compressing", options), listed_cubes=len(cubes))

    def stages(folders: JobFolders) -> list[Stage]:
        out = Target(wanted, folders.main, options.durable, options.verify)
        windows = listed_windows(units, folders.main, "compress", lambda unit: (compress_unit, out, unit))
        return [Stage(len(units), windows)]

    report = run_job(job, stages, engine, options.listeners)
    wanted.publish_header()
    return report


def compress_unit(target: Target, box: BoundingBox) -> UnitReport:
    """Rewrite the cubes of a unit that are not stored as they should be."""
    start = time.perf_counter()
    cubes, nbytes, file_nbytes = rewrite_cubes(
        target.store, target.folder, box, durable=target.durable, attempt=Attempt(str(box))
    )
    return UnitReport(
        unit=box,
        cubes=cubes,
        nbytes=nbytes,
        file_nbytes=file_nbytes,
        seconds=time.perf_counter() - start,
        worker=here(),
    )
