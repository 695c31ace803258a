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
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from wkdask.errors import DamagedHeaderError
from wkdask.fsio import remove_folder
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.jobs.driver import finish_interrupted
from wkdask.jobs.engines.choice import LocalEngine
from wkdask.jobs.job import MagPlace
from wkdask.jobs.tasks import PlaceReport, Target, note_landed
from wkdask.properties import load
from wkdask.storage.formats import address_of, open_address, open_mag
from wkdask.storage.protocol import MagReader, Voxels
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, landed_boxes, publish_pieces

__all__ = ["TaskWrites", "add_box", "current_writes", "gathered_writes"]

_WRITES, _PUBLISHED = "writes.json", "published.json"
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
    """``(c, x, y, z)`` of the whole cube; pages that were not written take no memory."""
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
    union = a.extended_by(b)
    if union.volume() == a.volume() + b.volume() - a.intersection(b).volume():
        return union
    return None


class TaskWrites:
    """What one task has written so far."""

    def __init__(self) -> None:
        self._cubes: dict[tuple[str, Vec3Int], _CubeBuffer] = {}
        self._places: dict[str, MagPlace] = {}
        self._reads: dict[str, list[BoundingBox]] = {}
        self._kept: str | None = None
        self._published: list[PlaceReport] | None = None

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

    def note_read(self, store: MagReader, box: BoundingBox) -> None:
        """Note that the task reads a box."""
        add_box(self._reads.setdefault(store.path, []), box)

    def overlay(self, store: MagReader, box: BoundingBox, block: Voxels) -> None:
        """Put what this task has written over a block that was read from the disk."""
        self.note_read(store, box)
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
        if self._published is not None:
            return self._published
        own = None if target is None else target.store.path
        reports: list[PlaceReport] = []
        landed: list[BoundingBox] = []
        others: list[PlaceReport] = []
        for path, place in self._places.items():
            try:
                report = self._publish_place(place, target)
            except BaseException as error:
                parts = landed_boxes(error)
                if path == own:
                    landed += parts
                else:
                    where = (place.dataset_path, place.layer, place.mag)
                    others += [PlaceReport(*where, box, 1, 0, 0, None, None) for box in parts]
                note_landed(error, landed, others)
                raise
            reports.append(report)
            if path == own:
                landed.append(report.box)
            else:
                others.append(report)
        if self._kept is not None:
            self._forget(reports)
        return reports

    # --- a second run of the same task ---------------------------------------------------------------

    def changes_what_it_read(self) -> bool:
        """Return whether a second run of the task, after a publication, would read what the first one wrote."""
        return any(
            not self._places[path].store.spec.grid.cube_box(index).intersection(box).is_empty()
            for path, index in self._cubes
            for box in self._reads.get(path, ())
        )

    def keep(self, path: str) -> bool:
        """Put what was written aside before it is published; False if an earlier run was first.

        What a worker had gathered when it was lost is published when its task runs again: the function is
        not called with voxels that it has changed already.
        """
        draft = f"{path}.{uuid.uuid4().hex}"
        os.mkdir(draft)
        entries = []
        for number, place in enumerate(self._places.values()):
            store = place.store
            staged = store.staged(f"{draft}/voxels/{number}", raw=True)
            boxes = []
            for (owner, index), buffer in self._cubes.items():
                corner = index * store.spec.shard_shape
                for box in buffer.boxes if owner == store.path else ():
                    staged.write_in_place(box, buffer.voxels[(slice(None), *box.to_slices(corner))])
                    boxes.append([*box.topleft, *box.size])
            names = [place.dataset_path, place.layer, place.mag.to_layer_name(), address_of(store)]
            entries.append([*names, boxes])
        with open(f"{draft}/{_WRITES}", "w", encoding="utf-8") as file:
            json.dump(entries, file)
        try:
            os.rename(draft, path)
        except OSError:
            if not os.path.exists(f"{path}/{_WRITES}"):
                raise
            shutil.rmtree(draft, ignore_errors=True)
            return False
        self._kept = path
        return True

    @classmethod
    def kept(cls, path: str) -> TaskWrites | None:
        """Return what an earlier run put aside; None if there was none."""
        try:
            with open(f"{path}/{_WRITES}", encoding="utf-8") as file:
                entries = json.load(file)
        except FileNotFoundError:
            return None
        writes = cls()
        try:
            for number, (dataset, layer, mag, address, boxes) in enumerate(entries):
                record = load(dataset).layer(layer)
                opened = open_address(address, record.data_format, record.mag(mag).raw)
                place = MagPlace(dataset, layer, Mag(mag), opened)
                staged = open_mag(f"{path}/voxels/{number}")
                for sides in boxes:
                    box = BoundingBox(sides[:3], sides[3:])
                    writes.write(place, staged.read(box), box)
            os.stat(f"{path}/voxels")  # taken away meanwhile, what was read may be zeros
        except (FileNotFoundError, DamagedHeaderError):
            with open(f"{path}/{_PUBLISHED}", encoding="utf-8") as file:
                rows = json.load(file)
            writes._published = [
                PlaceReport(dataset, layer, Mag(mag), BoundingBox(box[:3], box[3:]), *numbers)
                for dataset, layer, mag, box, *numbers in rows
            ]
        writes._kept = path
        return writes

    def _forget(self, reports: list[PlaceReport]) -> None:
        """Keep only the reports of what is published now."""
        rows = [
            [
                report.dataset_path,
                report.layer,
                report.mag.to_layer_name(),
                [*report.box.topleft, *report.box.size],
                *(report.cubes, report.nbytes, report.file_nbytes, report.minimum, report.maximum),
            ]
            for report in reports
        ]
        draft = f"{self._kept}/{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):  # the job has ended
            with open(draft, "w", encoding="utf-8") as file:
                json.dump(rows, file)
            os.rename(draft, f"{self._kept}/{_PUBLISHED}")
            remove_folder(f"{self._kept}/voxels")

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
        for report in reports:
            store.prepare(report.box)  # a mag that is gone must not come back as a folder
        if target is not None and target.store.path == store.path:
            file_nbytes = publish_pieces(
                store, target.folder, pieces, durable=target.durable, verify=target.verify
            )
        else:
            finish_interrupted(store, LocalEngine())
            with job_folder(store) as folder:
                file_nbytes = publish_pieces(store, folder, pieces)
            store.finish()
        return replace(reduce(PlaceReport.merged, reports), file_nbytes=file_nbytes)
