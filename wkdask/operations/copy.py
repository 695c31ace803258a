"""Voxels from one stored mag to another: copied, compressed, cut into other cubes.

::

    same type, cut and compression        cube files are copied, nothing is decoded
    anything else                         a task reads its unit and publishes it
    ... and cubes too large for a task    tasks fill parts of private plain cubes, which are then published
    the same mag, another compression     each cube is rewritten under its lock, the header changes last
"""

from __future__ import annotations

import time
from dataclasses import replace

from wkdask.errors import InvalidValueError, ReadOnlyError
from wkdask.geometry import BoundingBox
from wkdask.jobs.driver import run_job
from wkdask.jobs.engines.choice import Engine, LocalEngine, pick_engine
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import Job, JobFolders, MagPlace, WriteOptions, replace_stages
from wkdask.jobs.plan import WritePlan, plan_again, plan_write
from wkdask.jobs.resume import identify, previous_manifest
from wkdask.jobs.tasks import Target, UnitReport, ended, fill_part, write_unit
from wkdask.jobs.windows import Stage, call_windows, listed_windows, stream_of
from wkdask.operations.existing import plan_existing
from wkdask.operations.verify import verify_stage
from wkdask.storage.formats import built_by, is_stored_mag
from wkdask.storage.protocol import ArraySpec, StoredMag
from wkdask.storage.publish.copies import publish_copies, rewrite_cubes
from wkdask.storage.publish.locks import Attempt

__all__ = ["compress_in_place", "copy_cubes", "copy_mag", "plan_copy"]


def plan_copy(
    source: StoredMag,
    target: ArraySpec,
    box: BoundingBox,
    engine: Engine,
    options: WriteOptions,
    *,
    exact: bool = False,
) -> WritePlan:
    """Plan the copy of a box from a mag into another one; nothing is written.

    Parameters
    ----------
    source, target
        Where the voxels are, and how they will be stored.
    box
        Absolute, in voxels of the mag; not empty.
    engine
        Where it runs.
    options
        How it runs.
    exact
        Whether cubes that the box covers in part are copied as voxels.

    Raises
    ------
    PlanError
        If a task would need more memory than there is.
    """
    # Files are copied by the kernel, and parts of them slab by slab: but for LZ4, whose cubes are compressed whole.
    as_files = _copies_files(source, target) and not (exact and target.compression == "lz4")
    return plan_write(
        target,
        box,
        threads=engine.threads,
        memory=None if as_files else engine.task_memory(),
        task_memory=options.task_memory,
        in_parts=True,
    )


def _copies_files(source: StoredMag, target: ArraySpec) -> bool:
    """Return whether cube files are copied as they are: those of a mag on a disk that is stored alike."""
    return source.spec == target and is_stored_mag(source)


def copy_mag(
    source: StoredMag,
    target: MagPlace,
    box: BoundingBox,
    options: WriteOptions,
    action: str = "copying",
    *,
    exact: bool = False,
    draft: bool = False,
    new: bool = False,
) -> WriteReport | None:
    """Copy the voxels of a box from one mag to another of the same magnification.

    Parameters
    ----------
    source
        Where they are.
    target
        Where they go; of the same type and channels.
    box
        Absolute, in voxels of the mag.
    options
        How it runs; with `verify` what was copied is read back from the disk and compared with the source.
    action
        What to call it.
    exact
        Copy no voxel outside of the box. Else, where files are copied, whole cubes are.
    draft
        The target's layer is not listed yet: no layer's box grows, and a copy that stopped can be resumed.
    new
        The job makes the target, which is listed when it is complete.

    Returns
    -------
    WriteReport or None
        None if the box is empty.

    Raises
    ------
    InvalidValueError
        If type or channels differ.
    PlanError
        If a task would need more memory than there is.
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
    identity = previous = None
    if draft or (new and options.resume):  # all other copies cannot be resumed: what they made is removed
        name = f"a copy of {source.path}"
        what = f"{name}|{source.fingerprint(box)}|{exact}"
        identity = identify(target, box, what, options, name=name)
        previous = previous_manifest(target, box, identity, options)
    if previous is not None:
        plan = plan_again(want, box, previous.unit, previous.part)
    else:
        plan = plan_copy(source, want, box, engine, options, exact=exact)
    job = Job.of(
        target, plan, action, options, identity=identity, reads=[source], new=new, grows_box=not draft
    )

    def stages(folders: JobFolders) -> list[Stage]:
        # On a cluster a worker's other threads are somebody else's.
        spare = max(1, engine.threads // len(plan.units)) if isinstance(engine, LocalEngine) else 1
        copied = _copy_stages(job, source, folders, exact=exact, spare=spare)
        return [*copied, verify_stage(job, source, folders.main)] if options.verify else copied

    return run_job(job, stages, engine, options.listeners)


def _copy_stages(job: Job, source: StoredMag, folders: JobFolders, *, exact: bool, spare: int) -> list[Stage]:
    """Return the stages of a copy: one, or two where cubes are assembled from parts; `spare` threads for a task."""
    parts, folder = job.plan.parts, folders.main
    stream = stream_of(parts or job.plan, 0)
    if parts is None:
        out = Target(built_by(job.store, spare), folder, job.durable)
        windows = call_windows(
            job.plan, folder, "copy", lambda unit: (copy_unit, source, out, unit, exact, spare), stream
        )
        return [Stage(len(stream), windows, (stream,))]
    private = Target(job.store.staged(f"{folder}/staged", raw=True), folder, job.durable)
    windows = call_windows(parts, folder, "copy", lambda part: (copy_part, source, private, part), stream)
    return [Stage(len(stream), windows, (stream,)), *replace_stages(job, folders)]


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
    job = Job.of(target, plan, action, options, reads=[source], listed_cubes=len(cubes), grows_box=False)

    def stages(folders: JobFolders) -> list[Stage]:
        out = Target(target.store, folders.main, options.durable, options.verify)
        windows = listed_windows(
            units, folders.main, "copy", lambda unit: (copy_whole_unit, source, out, unit)
        )
        return [Stage(len(units), windows)]

    return run_job(job, stages, engine, options.listeners)


def copy_whole_unit(source: StoredMag, target: Target, box: BoundingBox) -> UnitReport:
    """Copy what a unit covers; report the cubes that came of it."""
    report, store = copy_unit(source, target, box), target.store
    cubes = sum(store.check_cube(store.cube_path(index)) for index in store.spec.grid.cubes(box))
    return replace(report, box=None, cubes=cubes, nbytes=cubes * store.spec.cube_nbytes)


def copy_part(source: StoredMag, target: Target, box: BoundingBox) -> UnitReport:
    """Copy a part of a cube into a private plain one."""
    return fill_part(source.read(box), target, box)


def copy_unit(
    source: StoredMag, target: Target, box: BoundingBox, exact: bool = False, threads: int = 1
) -> UnitReport:
    """Copy what a unit covers: its files, or its voxels where the mags are stored differently, or apart."""
    if not _copies_files(source, target.store.spec):
        return write_unit(source.read(box, threads), target, box)
    start = time.perf_counter()
    cubes, file_nbytes = publish_copies(
        target.store,
        source,
        target.folder,
        box,
        exact=exact,
        durable=target.durable,
        attempt=Attempt(str(box)),
    )
    nbytes = box.volume() * source.spec.bytes_per_voxel
    return ended(box, start, box=box, cubes=cubes, nbytes=nbytes, file_nbytes=file_nbytes)


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
    job = Job.of(
        replace(place, store=wanted), plan, "compressing", options, listed_cubes=len(cubes), grows_box=False
    )

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
    return ended(box, start, cubes=cubes, nbytes=nbytes, file_nbytes=file_nbytes)
