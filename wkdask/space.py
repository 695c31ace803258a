"""Whether what a job is going to write fits on the disk, before it writes anything."""

from __future__ import annotations

import os
import warnings

from wkdask.errors import SpaceError, WkdaskWarning
from wkdask.fsio import free_bytes
from wkdask.job import Job
from wkdask.units import format_bytes

__all__ = ["check_space", "new_nbytes"]

_LOOKS = 1000
"""Cubes that are looked at, evenly spread, to tell how many are there already."""


def new_nbytes(job: Job) -> int:
    """Return the bytes by which the mag will grow, if its cubes are stored plainly and none is empty.

    A cube that is there takes no more room afterwards; of many cubes a thousand are looked at.

    Parameters
    ----------
    job
        What is written.
    """
    cubes = job.plan.cube.cubes(job.plan.box)
    step = max(1, len(cubes) // _LOOKS)
    chosen = range(0, len(cubes), step)
    missing = sum(not os.path.lexists(job.store.cube_path(cubes[number])) for number in chosen)
    return job.nbytes * missing // len(chosen)


def check_space(job: Job, nbytes_before: int = 0) -> None:
    """Refuse a job for which there is no room; warn where that depends on how well its voxels compress.

    The dask option ``wkdask.check-space`` (True) turns this off, for volumes that are empty for the most part.

    Parameters
    ----------
    job
        What is written.
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
    import dask.config

    if not dask.config.get("wkdask.check-space", True):
        return
    free = free_bytes(job.store.path)
    if free >= job.nbytes + job.private_nbytes:  # in nearly all cases there is nothing to look at
        return
    needed = max(0, new_nbytes(job) + job.private_nbytes - nbytes_before)
    if free >= needed:
        return
    text = (
        f"{job.label}: {job.action} takes up to {format_bytes(needed)} "
        f"({format_bytes(job.nbytes)} of voxels in {job.num_cubes} cubes"
        f"{f', {format_bytes(job.private_nbytes)} of them twice for a while' if job.private_nbytes else ''}), but "
        f"{job.store.path} has {format_bytes(free)} left"
    )
    if job.store.spec.compression is not None and free >= job.private_nbytes:
        warnings.warn(f"{text}; it may fit if they compress well", WkdaskWarning, stacklevel=2)
        return
    raise SpaceError(
        f"{text}. Nothing was written. If most of it is empty, set dask's option wkdask.check-space to False"
    )
