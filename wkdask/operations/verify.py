"""Verified copies: what was published is read back from the disk and compared with its source.

::

    copy ──> flush ──> drop from the page cache ──> read both, part by part ──> the first voxel that differs
"""

from __future__ import annotations

import time

import numpy as np

from wkdask.errors import DamagedCubeError
from wkdask.fsio import drop_file
from wkdask.geometry import BoundingBox
from wkdask.jobs.job import Job
from wkdask.jobs.tasks import UnitReport, ended
from wkdask.jobs.windows import Stage, call_windows, stream_of
from wkdask.storage.open_cubes import forget
from wkdask.storage.parallel import tiles
from wkdask.storage.protocol import StoredMag, Voxels

__all__ = ["verify_stage", "verify_unit"]

_STREAM = 2
"""A copy has up to two streams before."""
_PART_NBYTES = 32 << 20
"""Bytes of voxels that are compared at a time."""


def verify_stage(job: Job, source: StoredMag, folder: str) -> Stage:
    """Return the stage that follows those of a copy.

    Parameters
    ----------
    job
        The copy.
    source
        What was copied.
    folder
        The job's private folder.
    """
    plan = job.plan.parts or job.plan
    stream = stream_of(plan, _STREAM)
    windows = call_windows(plan, folder, "verify", lambda box: (verify_unit, source, job.store, box), stream)
    return Stage(len(stream), windows, (stream,))


def verify_unit(source: StoredMag, target: StoredMag, box: BoundingBox) -> UnitReport:
    """Compare a box of a copy, read from the disk, with what it was copied from.

    Raises
    ------
    DamagedCubeError
        If a voxel differs; names the box and the cube.
    """
    start = time.perf_counter()
    for index, piece in target.spec.grid.pieces(box):
        path = target.cube_path(index)
        drop_file(path)
        forget(path)
        for part in tiles(target.spec, piece, _PART_NBYTES):
            copied, wanted = target.read(part), source.read(part)
            if (found := _first_difference(copied, wanted)) is not None:
                (c, *inner), got, expected = found
                voxel = tuple(part.topleft + inner)
                raise DamagedCubeError(
                    f"the copy {path} differs from {source.path} in the box {part} (voxels of that mag): voxel "
                    f"{voxel}, channel {c}, is {got}, and was copied from {expected}. Remove the copy and make it "
                    f"again, elsewhere if the disk is to blame"
                )
    return ended(box, start, verified=box.volume() * target.spec.bytes_per_voxel)


def _first_difference(
    copied: Voxels, wanted: Voxels
) -> tuple[tuple[int, int, int, int], int | float, int | float] | None:
    """Return the first voxel whose bytes differ, z slowest, and both values; None where none does."""
    ours, theirs = copied.reshape(-1, order="F"), wanted.reshape(-1, order="F")
    if np.array_equal(ours.view(np.uint8), theirs.view(np.uint8)):
        return None
    size = ours.itemsize
    bytes_differ = ours.view(np.uint8) != theirs.view(np.uint8)
    place = int(bytes_differ.argmax()) // size
    c, x, y, z = (int(n) for n in np.unravel_index(place, copied.shape, order="F"))
    return (c, x, y, z), ours[place].item(), theirs[place].item()
