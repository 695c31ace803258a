"""Writes inside a task: gathered per cube, visible to the task itself, published once when it ends.

::

    for_each_chunk(fn, 64³) over cubes of 1024³:

    task = one cube      fn(chunk 0).write ─┐
                         fn(chunk 1).write ─┼─> buffer of the cube ─> one publication, one report
                         …                  ┘

A write inside a task never starts a job of its own: its box travels with the task's report, and the driver
commits it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.job import MagPlace
from wkdask.storage.jobs import job_folder
from wkdask.storage.protocol import StoredMag, Voxels
from wkdask.storage.publish import Piece, publish_pieces
from wkdask.tasks import PlaceReport, Target

__all__ = ["TaskWrites", "add_box", "current_writes", "gathered_writes"]

_local = threading.local()


def current_writes() -> TaskWrites | None:
    """Return what gathers the writes of the task that runs in this thread; None outside of such a task."""
    writes: TaskWrites | None = getattr(_local, "writes", None)
    return writes


@contextlib.contextmanager
def gathered_writes() -> Iterator[TaskWrites]:
    """Gather the writes of this thread for the time of a task."""
    outer = current_writes()
    _local.writes = TaskWrites()
    try:
        yield _local.writes
    finally:
        _local.writes = outer


@dataclass(slots=True)
class _CubeBuffer:
    """The voxels that a task has written into one cube."""

    voxels: Voxels
    """``(c, x, y, z)`` of the whole cube; pages that nobody wrote take no memory."""
    boxes: list[BoundingBox] = field(default_factory=list)
    """What was written: absolute, merged where boxes continue each other."""


def add_box(boxes: list[BoundingBox], box: BoundingBox) -> None:
    """Add a box to boxes; those that are a box together become one."""
    for known in boxes:
        if known.contains_bbox(box):
            return
        if (merged := _joined(known, box)) is not None:
            boxes.remove(known)
            add_box(boxes, merged)
            return
    boxes.append(box)


def _joined(a: BoundingBox, b: BoundingBox) -> BoundingBox | None:
    """Return the union of two boxes, if it is a box."""
    hull = a.extended_by(b)
    if hull.volume() == a.volume() + b.volume() - a.intersection(b).volume():
        return hull
    return None


class TaskWrites:
    """What one task has written so far."""

    def __init__(self) -> None:
        self._cubes: dict[tuple[str, Vec3Int], _CubeBuffer] = {}
        self._places: dict[str, MagPlace] = {}

    def write(self, place: MagPlace, block: Voxels, box: BoundingBox) -> None:
        """Take a checked block ``(c, x, y, z)`` for a box, absolute, in voxels of the mag."""
        spec = place.store.spec
        self._places.setdefault(place.store.path, place)
        for index, piece in spec.grid.pieces(box):
            key = (place.store.path, index)
            if key not in self._cubes:
                shape = (spec.num_channels, *spec.shard_shape)
                self._cubes[key] = _CubeBuffer(np.zeros(shape, spec.dtype, order="F"))
            buffer = self._cubes[key]
            inner = piece.to_slices(index * spec.shard_shape)
            buffer.voxels[(slice(None), *inner)] = block[(slice(None), *piece.to_slices(box.topleft))]
            add_box(buffer.boxes, piece)

    def overlay(self, store: StoredMag, box: BoundingBox, block: Voxels) -> None:
        """Put what this task has written over a block that was read from the disk."""
        if store.path not in self._places:
            return
        for index, _ in store.spec.grid.pieces(box):
            buffer = self._cubes.get((store.path, index))
            if buffer is None:
                continue
            for written in buffer.boxes:
                common = written.intersection(box)
                if not common.is_empty():
                    inner = common.to_slices(index * store.spec.shard_shape)
                    block[(slice(None), *common.to_slices(box.topleft))] = buffer.voxels[
                        (slice(None), *inner)
                    ]

    def publish(self, target: Target | None) -> list[PlaceReport]:
        """Publish all cubes that were written, each once; return one report per mag.

        Parameters
        ----------
        target
            The job's own mag, whose private folder is there; other mags get one for the time of this call.
        """
        return [self._publish_place(place, target) for place in self._places.values()]

    def _publish_place(self, place: MagPlace, target: Target | None) -> PlaceReport:
        """Publish the cubes of one mag."""
        from wkdask.kernels import block_stats

        store = place.store
        pieces, reports = [], []
        for (path, index), buffer in self._cubes.items():
            if path != store.path:
                continue
            corner = index * store.spec.shard_shape
            parts = [(box, buffer.voxels[(slice(None), *box.to_slices(corner))]) for box in buffer.boxes]
            pieces.append(Piece(index, *parts[0], tuple(parts[1:])))
            for number, (box, block) in enumerate(parts):
                cubes = 1 if number == 0 else 0
                reports.append(
                    PlaceReport(
                        place.dataset_path,
                        place.layer,
                        place.mag,
                        box,
                        cubes,
                        block.nbytes,
                        0,
                        *block_stats(block),
                    )
                )
        if target is not None and target.store.path == store.path:
            file_nbytes = publish_pieces(
                store, target.folder, pieces, durable=target.durable, verify=target.verify
            )
        else:
            for report in reports:
                store.prepare(report.box)  # a mag that is gone must not come back as a folder
            with job_folder(store) as folder:
                file_nbytes = publish_pieces(store, folder, pieces)
            store.finish()
        return replace(reduce(PlaceReport.merged, reports), file_nbytes=file_nbytes)
