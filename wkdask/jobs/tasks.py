"""What runs on a worker: one unit of work in, one small report out.

A task gets plain data (a stored mag, a private folder, a box) and, from an array expression, its block.
It publishes the cubes of its unit and returns what the driver needs: the box written and its statistics.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from wkdask.errors import ChannelError, DTypeError, InvalidValueError, StoreError
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag
from wkdask.jobs.plan import Window
from wkdask.objects.urls import is_url
from wkdask.storage.formats import found_format
from wkdask.storage.protocol import ArraySpec, StoredMag, Voxels
from wkdask.storage.publish.assemble import publish_assembled
from wkdask.storage.publish.locks import Attempt
from wkdask.storage.publish.publish import (
    Piece,
    landed_boxes,
    note_landed_boxes,
    publish_pieces,
    publish_staged,
)
from wkdask.storage.rereads import take_repeated

__all__ = [
    "NOTHING",
    "PlaceReport",
    "Target",
    "Total",
    "UnitReport",
    "ended",
    "fill_part",
    "landed_reports",
    "merge_reports",
    "note_landed",
    "publish_assembled_unit",
    "publish_block",
    "publish_unit",
    "refuse_odd_block",
    "sees_mag",
    "write_block",
    "write_unit",
]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a task writes, and how."""

    store: StoredMag
    """The mag; for a job in two phases its private, staged twin."""
    folder: str
    """The job's private folder."""
    durable: bool = True
    """Whether data are flushed to the disk before a cube counts as written."""
    verify: bool = False
    """Whether every cube is read back before it is published."""


@dataclass(frozen=True, slots=True)
class PlaceReport:
    """What a task wrote into one mag by calling ``write`` in its body."""

    dataset_path: str
    """The dataset's folder."""
    layer: str
    """The layer's name."""
    mag: Mag
    """The mag."""
    box: BoundingBox
    """The union of what was published, absolute, in voxels of the mag; empty where cubes were only built."""
    cubes: int
    """Cubes published."""
    nbytes: int
    """Bytes of the voxels written, uncompressed."""
    file_nbytes: int
    """Bytes of the files published."""
    minimum: int | float | None
    """Smallest voxel written."""
    maximum: int | float | None
    """Largest voxel written."""

    @classmethod
    def of(cls, dataset_path: str, layer: str, mag: Mag, report: UnitReport) -> PlaceReport:
        """Return what a report says of a job's own mag."""
        return cls(
            dataset_path, layer, mag, report.box or EMPTY_BOX, report.cubes, report.nbytes, report.file_nbytes,
            report.minimum, report.maximum,
        )  # fmt: skip

    def merged(self, other: PlaceReport) -> PlaceReport:
        """Return the report of two tasks on the same mag."""
        return replace(
            self,
            box=self.box.extended_by(other.box),
            cubes=self.cubes + other.cubes,
            nbytes=self.nbytes + other.nbytes,
            file_nbytes=self.file_nbytes + other.file_nbytes,
            minimum=_least(self.minimum, other.minimum),
            maximum=_greatest(self.maximum, other.maximum),
        )


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What one task did."""

    unit: BoundingBox
    """What the task was for, absolute, in voxels of the mag."""
    box: BoundingBox | None = None
    """The voxels published, absolute, in voxels of the mag; None for a task that only prepared."""
    cubes: int = 0
    """Cubes published, or removed because they became empty."""
    nbytes: int = 0
    """Bytes of the voxels written, uncompressed."""
    file_nbytes: int = 0
    """Bytes of the files published."""
    minimum: int | float | None = None
    """Smallest voxel written."""
    maximum: int | float | None = None
    """Largest voxel written."""
    seconds: float = 0.0
    """Time that the task took on its worker."""
    worker: str = ""
    """Host and process."""
    others: tuple[PlaceReport, ...] = ()
    """What the task's body wrote into other mags than the job's own."""
    value: Any = None
    """What the task's body returned, for the driver's listeners; merged reports have none."""
    reads_repeated: int = 0
    """Reads of its process that were wrong at first and right when they were repeated, since the report before."""
    verified: int = 0
    """Bytes of the voxels that were read back from the disk and compared with those they were copied from."""

    def of_other_mag(self, dataset_path: str, layer: str, mag: Mag) -> UnitReport:
        """Return the report of a task that wrote into a further mag of its job, which this report is about."""
        written = PlaceReport.of(dataset_path, layer, mag, self)
        return UnitReport(
            self.unit,
            seconds=self.seconds,
            worker=self.worker,
            others=(written,),
            reads_repeated=self.reads_repeated,
        )


class Total(NamedTuple):
    """Reports of many tasks as one: union of the boxes, sums, min/max. Plain numbers: a job adds up millions."""

    unit: tuple[int, ...] | None = None
    """Corners (x, y, z, x, y, z) of the union of the units; None where there was no report."""
    box: tuple[int, ...] | None = None
    """Corners of the union of what was published; None where nothing was."""
    cubes: int = 0
    """As in :class:`UnitReport`, like all that follows."""
    nbytes: int = 0
    file_nbytes: int = 0
    minimum: int | float | None = None
    maximum: int | float | None = None
    seconds: float = 0.0
    others: tuple[PlaceReport, ...] = ()
    reads_repeated: int = 0
    verified: int = 0

    def plus(
        self,
        unit: Sequence[int],
        box: Sequence[int] | None,
        cubes: int,
        nbytes: int,
        file_nbytes: int,
        minimum: int | float | None,
        maximum: int | float | None,
        seconds: float = 0.0,
    ) -> Total:
        """Return this total and one report; boxes as (x, y, z, width, height, depth)."""
        union = _union(self.unit, unit)
        return Total(
            union,
            self.box
            if box is None
            else union
            if box is unit and self.box == self.unit
            else _union(self.box, box),
            self.cubes + cubes,
            self.nbytes + nbytes,
            self.file_nbytes + file_nbytes,
            _least(self.minimum, minimum),
            _greatest(self.maximum, maximum),
            self.seconds + seconds,
            self.others,
            self.reads_repeated,
            self.verified,
        )

    def with_others(self, reports: Iterable[PlaceReport]) -> Total:
        """Return this total and what was written into further mags."""
        return self._replace(others=_merged_places((*self.others, *reports)))

    def plus_report(self, report: UnitReport) -> Total:
        """Return this total and one report."""
        unit = report.unit.to_tuple6()
        box = None if report.box is None else unit if report.box == report.unit else report.box.to_tuple6()
        total = self.plus(
            unit, box, report.cubes, report.nbytes, report.file_nbytes, report.minimum, report.maximum,
            report.seconds,
        )  # fmt: skip
        if report.reads_repeated or report.verified:
            total = total._replace(
                reads_repeated=total.reads_repeated + report.reads_repeated,
                verified=total.verified + report.verified,
            )
        return total.with_others(report.others) if report.others else total

    def report(self) -> UnitReport | None:
        """Return the total as a report; None if nothing was added."""
        if self.unit is None:
            return None
        return UnitReport(
            BoundingBox.from_corners(self.unit[:3], self.unit[3:]),
            None if self.box is None else BoundingBox.from_corners(self.box[:3], self.box[3:]),
            *self[2:8],
            others=self.others,
            reads_repeated=self.reads_repeated,
            verified=self.verified,
        )


NOTHING = Total()
"""No report."""


def merge_reports(first: UnitReport, second: UnitReport) -> UnitReport:
    """Return the report of two tasks as one: union of the boxes, sums, min/max."""
    merged = NOTHING.plus_report(first).plus_report(second).report()
    return replace(merged or first, worker=first.worker)


def _union(corners: tuple[int, ...] | None, box: Sequence[int]) -> tuple[int, ...]:
    """Return the corners of a union that holds a box too."""
    x, y, z, width, height, depth = box
    if corners is None:
        return (x, y, z, x + width, y + height, z + depth)
    a, b, c, d, e, f = corners
    width, height, depth = x + width, y + height, z + depth
    return (
        x if x < a else a,
        y if y < b else b,
        z if z < c else c,
        width if width > d else d,
        height if height > e else e,
        depth if depth > f else f,
    )


def _least(first: int | float | None, second: int | float | None) -> int | float | None:
    """Return the smaller one of those that are there; NaN only if there is nothing else."""
    if second is None or second != second:
        return second if first is None else first
    return second if first is None or first != first or second < first else first


def _greatest(first: int | float | None, second: int | float | None) -> int | float | None:
    """Return the larger one of those that are there; NaN only if there is nothing else."""
    if second is None or second != second:
        return second if first is None else first
    return second if first is None or first != first or second > first else first


def _merged_places(reports: tuple[PlaceReport, ...]) -> tuple[PlaceReport, ...]:
    """Return one report per mag."""
    by_place: dict[tuple[str, str, Mag], PlaceReport] = {}
    for report in reports:
        key = (report.dataset_path, report.layer, report.mag)
        by_place[key] = by_place[key].merged(report) if key in by_place else report
    return tuple(by_place.values())


def note_landed(error: BaseException, own: list[BoundingBox], others: list[PlaceReport]) -> None:
    """Let the error of a task say what it had published: into the job's own mag, and into others."""
    note_landed_boxes(error, own)
    error._wkdask_others = tuple(others)  # type: ignore[attr-defined]


def landed_reports(error: BaseException, unit: BoundingBox) -> list[UnitReport]:
    """Return what a task had published before it failed; it cannot be taken back, so it is reported."""
    reports = [UnitReport(unit=box, box=box, cubes=1) for box in landed_boxes(error)]
    others = getattr(error, "_wkdask_others", ())
    return [*reports, UnitReport(unit=unit, others=others)] if others else reports


def ended(unit: BoundingBox, start: float, **done: Any) -> UnitReport:
    """Return the report of a task that ends now, on its worker.

    Parameters
    ----------
    unit
        What the task was for, absolute, in voxels of the mag.
    start
        When it began, by `time.perf_counter`.
    **done
        What it did: further fields of the report.
    """
    return UnitReport(
        unit,
        **done,
        seconds=time.perf_counter() - start,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        reads_repeated=take_repeated(),
    )


def write_unit(block: Voxels, target: Target, box: BoundingBox) -> UnitReport:
    """Publish the cubes that a block covers.

    Parameters
    ----------
    block
        The voxels, ``(c, *box.size)``; any order in memory, Fortran order is three times as fast.
    target
        Where they go.
    box
        Absolute, in voxels of the mag; touches whole cubes of which no other task writes any.

    Raises
    ------
    ChannelError, DTypeError, InvalidValueError
        If the block is not what the expression promised.
    """
    return publish_block(block, target, box, Attempt(str(box)))[0]


def publish_block(
    block: Voxels, target: Target, box: BoundingBox, attempt: Attempt
) -> tuple[UnitReport, Voxels]:
    """Do what `write_unit` does, and return the block as it was published too: in the order of the file.

    Parameters
    ----------
    block, target, box
        As for `write_unit`.
    attempt
        The run of the task.
    """
    from wkdask.kernels import MinMax

    start = time.perf_counter()
    spec = target.store.spec
    block = _checked_block(block, spec, box)
    min_max = MinMax(block.dtype)
    pieces = [
        Piece(index, piece, block[(slice(None), *piece.to_slices(box.topleft))])
        for index, piece in spec.grid.pieces(box)
    ]
    file_nbytes = publish_pieces(
        target.store,
        target.folder,
        pieces,
        durable=target.durable,
        verify=target.verify,
        attempt=attempt,
        min_max=min_max,
    )
    minimum, maximum = min_max.values or (None, None)
    report = ended(
        box,
        start,
        box=box,
        cubes=len(pieces),
        nbytes=block.nbytes,
        file_nbytes=file_nbytes,
        minimum=minimum,
        maximum=maximum,
    )
    return report, block


def fill_part(block: Voxels, target: Target, box: BoundingBox) -> UnitReport:
    """Write a part of a cube into a private, plain mag, where other tasks write the other parts.

    Parameters
    ----------
    block
        The voxels, ``(c, *box.size)``.
    target
        The private mag.
    box
        Absolute, in voxels of the mag; whole chunks, none of which another task writes.
    """
    from wkdask.kernels import MinMax

    start = time.perf_counter()
    block = _checked_block(block, target.store.spec, box)
    min_max = MinMax(block.dtype)
    target.store.write_in_place(box, block, durable=target.durable, min_max=min_max)
    minimum, maximum = min_max.values or (None, None)
    return ended(box, start, nbytes=block.nbytes, minimum=minimum, maximum=maximum)


def refuse_odd_block(block: Any) -> None:
    """Refuse a block that is no plain numpy array: what is masked, sparse, or on another device has no voxels here.

    Raises
    ------
    DTypeError
        If so, with what to call.
    """
    if isinstance(block, np.ma.MaskedArray):
        raise DTypeError("a block is a masked array; fill it first: array.map_blocks(numpy.ma.filled)")
    if not isinstance(block, np.ndarray):
        kind = f"{type(block).__module__}.{type(block).__name__}"
        raise DTypeError(
            f"a block is of {kind}, expected numpy.ndarray; convert it first: array.map_blocks(numpy.asarray)"
        )


def _checked_block(block: Voxels, spec: ArraySpec, box: BoundingBox) -> Voxels:
    """Return a block in the order of the file; refuse one that the expression did not promise."""
    from wkdask.kernels import to_fortran

    refuse_odd_block(block)
    if block.dtype != np.dtype(spec.dtype):
        raise DTypeError(f"a block is of {block.dtype}, the mag holds {spec.dtype}")
    if block.ndim != 4 or block.shape[0] != spec.num_channels:
        raise ChannelError(f"a block has the shape {block.shape}, expected ({spec.num_channels}, x, y, z)")
    if block.shape[1:] != tuple(box.size):
        raise InvalidValueError(f"a block has the shape {block.shape}, expected (c, *{tuple(box.size)})")
    # C order is turned once, all cubes together.
    return to_fortran(block) if block.strides[1] > block.strides[3] else block


def write_block(
    block: Voxels,
    target: Target,
    window: Window,
    step: str,
    sink: Callable[[UnitReport], None] | None = None,
    block_id: tuple[int, ...] | None = None,
) -> np.ndarray[Any, Any]:
    """Write a block of an array expression: the function that ``map_blocks`` puts at the end of it.

    Parameters
    ----------
    block
        The voxels.
    target
        Where they go.
    window
        The window whose units are the blocks of the array.
    step
        What is done with it: ``"publish"``; ``"stage"``, the first of two phases, whose report names no box; or
        ``"fill"``, where it is a part of a cube.
    sink
        Called with the report, where the driver is in the same process and waits for it.
    block_id
        The block's place (c, x, y, z), from dask.

    Returns
    -------
    numpy.ndarray
        One :class:`UnitReport`, as an object array of shape (1, 1, 1, 1).
    """
    place = (0, 0, 0) if block_id is None else block_id[1:]
    box = window.unit_box(place)
    report = fill_part(block, target, box) if step == "fill" else write_unit(block, target, box)
    if step == "stage":
        report = replace(report, box=None, cubes=0, file_nbytes=0)
    if sink is not None:
        sink(report)
    result = np.empty((1, 1, 1, 1), dtype=object)
    result[0, 0, 0, 0] = report
    return result


def publish_unit(
    store: StoredMag, staged: StoredMag, folder: str, box: BoundingBox, durable: bool
) -> UnitReport:
    """Publish the staged cubes that a box covers: the second of two phases."""
    start, attempt = time.perf_counter(), Attempt(str(box))
    cubes, file_nbytes = 0, 0
    for index, piece in store.spec.grid.pieces(box):
        file_nbytes += publish_staged(store, staged, folder, index, piece, durable=durable, attempt=attempt)
        cubes += 1
    return ended(box, start, box=box, cubes=cubes, file_nbytes=file_nbytes)


def publish_assembled_unit(
    store: StoredMag, assembled: StoredMag, folder: str, box: BoundingBox, durable: bool
) -> UnitReport:
    """Publish the cubes of a box from the private mag in which tasks have assembled them from parts."""
    start, attempt = time.perf_counter(), Attempt(str(box))
    cubes, file_nbytes = publish_assembled(store, assembled, folder, box, durable=durable, attempt=attempt)
    return ended(box, start, box=box, cubes=cubes, file_nbytes=file_nbytes)


def sees_mag(path: str) -> str | None:
    """Return None if this process sees a mag's folder and may write to it, or reads its URL; else what is wrong."""
    try:
        if is_url(path):
            return None if found_format(path) else f"{socket.gethostname()} finds no mag at {path}"
        if not os.path.isdir(path):
            return f"{socket.gethostname()} does not see {path}"
        if not os.access(path, os.W_OK | os.X_OK):
            return f"{socket.gethostname()} may not write to {path}"
    except (OSError, StoreError) as error:
        return f"{socket.gethostname()}: {error}"
    return None
