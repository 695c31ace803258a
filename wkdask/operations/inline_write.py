"""A write within a task: gathered there, published and reported when the task ends."""

from __future__ import annotations

import time
from typing import Any

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import MagPlace
from wkdask.operations.inline import TaskWrites
from wkdask.operations.write import shape_of

__all__ = ["write_inline"]


def write_inline(place: MagPlace, writes: TaskWrites, data: Any, box: BoundingBox) -> WriteReport:
    """Let a task gather an array.

    Parameters
    ----------
    place
        The mag.
    writes
        What the task has gathered so far.
    data
        The array, checked; a dask array is computed here.
    box
        Where it goes: absolute, in voxels of the mag.

    Raises
    ------
    InvalidValueError
        If a dask array computes to another shape than it had.
    """
    start = time.perf_counter()
    if hasattr(data, "dask"):
        data = data.compute(scheduler="synchronous")
        if shape_of(data, place) != box.size:  # type and channels are checked there
            raise InvalidValueError(f"the array computes to the shape {data.shape}, not to {box.size} voxels")
    from wkdask.kernels import block_stats

    block = data if data.ndim == 4 else data[None]
    writes.write(place, block, box)
    minimum, maximum = block_stats(block)
    return WriteReport(
        label=place.label,
        bounding_box=box.from_mag_to_mag1(place.mag),
        cubes=0,
        bytes=block.nbytes,
        file_bytes=0,
        minimum=minimum,
        maximum=maximum,
        seconds=time.perf_counter() - start,
    )
