"""Whether what a job is going to write fits on the disk, before it writes anything."""

from __future__ import annotations

import warnings

from wkdask import settings
from wkdask.errors import SpaceError, WkdaskWarning
from wkdask.fsio import free_bytes
from wkdask.geometry.voxel_size import format_bytes, format_count
from wkdask.jobs.job import Job, MagWrite
from wkdask.storage.space import space_needed

__all__ = ["check_space"]


def check_space(job: Job, threads: int, nbytes_before: int = 0) -> None:
    """Refuse a job for which there is no room; warn where that depends on how well its voxels compress.

    The setting ``wkdask.check-space`` turns this off, for volumes that are empty for the most part.

    Parameters
    ----------
    job
        What is written.
    threads
        Tasks that run at once.
    nbytes_before
        Bytes of voxels that earlier runs of it have written.

    Raises
    ------
    SpaceError
        If the file system has less room than plain cubes will take.

    Warns
    -----
    WkdaskWarning
        If it has less room than the voxels, which are to be compressed.
    """
    if not settings.get("check-space"):
        return
    spec, free = job.store.spec, free_bytes(job.store.path)
    further = sum(_whole_cubes(write) * write.store.spec.cube_nbytes for write in job.writes[1:])
    most = 2 * (job.num_cubes * spec.cube_nbytes + further) + job.private_nbytes
    if free >= most:  # in nearly all cases there is nothing to look at
        return
    needed = space_needed(job.store, job.plan.box, at_once=threads, staged=job.staged)
    for write in job.writes[1:]:
        needed += space_needed(write.store, write.box, at_once=threads, staged=write.in_place)
    needed = max(0, needed + job.private_nbytes - nbytes_before)
    if free >= needed:
        return
    twice = ", all of them twice for a while" if job.staged else ""
    text = (
        f"{job.label}: {job.action} takes up to {format_bytes(needed)} ({format_bytes(job.nbytes)} of voxels in "
        f"{format_count(job.num_cubes, 'cube')}{twice}), but {job.store.path} has {format_bytes(free)} left"
    )
    if spec.compression is not None:
        warnings.warn(f"{text}; it may fit if they compress well", WkdaskWarning, stacklevel=2)
        return
    raise SpaceError(f"{text}. Nothing was written. If most of it is empty, set wkdask.check-space to False")


def _whole_cubes(write: MagWrite) -> int:
    """Return how many cubes the box of a further mag touches."""
    return len(write.store.spec.grid.cubes(write.box))
