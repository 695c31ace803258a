"""Which units of a job are done, in a file that survives the driver.

One line per unit, appended when the unit's report has reached the driver: its cubes were flushed, renamed, and
their folders flushed before that. So a line never promises what a crash could take back::

    [0,17,"64,0,0,64,64,64","64,0,5,64,64,59",8,241664,119671,0,255]
     |  |  the unit's box    what was written   |  bytes  in files | largest voxel
     |  number of the unit                      cubes              smallest voxel
     lane
    ["lane",0]      all of lane 0 is done

A line that is cut short, and whatever follows it, was not yet on the disk: those units are done again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass, field
from typing import Any

from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.grid import CubeGrid
from wkdask.tasks import PlaceReport, UnitReport, merge_reports

__all__ = ["Journal", "Lane"]

_FILE = "journal"
_logger = logging.getLogger(__name__)
_SYNC_SECONDS = 1.0
"""A crash of the machine loses the lines of so many seconds at most; that of a process loses none."""


@dataclass(frozen=True, slots=True)
class Lane:
    """The units of one kind within a job, numbered by the grid that cuts them."""

    number: int
    """Which of the job's lanes; the same in every run of it."""
    grid: CubeGrid
    """Cuts the box into units."""
    box: BoundingBox
    """What the lane covers: absolute, in voxels of the mag."""

    def __len__(self) -> int:
        return len(self.grid.cubes(self.box))

    def number_of(self, unit: BoundingBox) -> int:
        """Return the number of a unit, x fastest."""
        cubes = self.grid.cubes(self.box)
        x, y, z = Vec3Int(unit.topleft // self.grid.shape) - cubes.start
        nx, ny, _ = cubes.shape
        return x + nx * (y + ny * z)


@dataclass(slots=True)
class _Done:
    """The units of a lane that are done: one bit each."""

    bits: bytearray = field(default_factory=bytearray)
    whole: bool = False

    def add(self, number: int) -> bool:
        """Note a unit; False if it was noted before."""
        place, bit = divmod(number, 8)
        if place >= len(self.bits):
            self.bits.extend(bytes(place + 1 - len(self.bits)))
        before = self.bits[place] >> bit & 1
        self.bits[place] |= 1 << bit
        return not before

    def __contains__(self, number: int) -> bool:
        place, bit = divmod(number, 8)
        return self.whole or (place < len(self.bits) and bool(self.bits[place] >> bit & 1))


class Journal:
    """The journal in a job's folder; used by the driver alone, in a ``with`` statement.

    Its memory is one bit per unit.
    """

    def __init__(self, folder: str) -> None:
        self._path = f"{folder}/{_FILE}"
        self._done: dict[int, _Done] = {}
        self.units = 0
        """Units that earlier runs had done."""
        self.merged: UnitReport | None = None
        """The reports of all units that earlier runs had done, as one."""
        length = self._read()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.ftruncate(self._descriptor, length)
        os.lseek(self._descriptor, length, os.SEEK_SET)
        self._synced = time.monotonic()
        self._is_broken = False

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the job's own error tells more; the lines are with the kernel
            os.fdatasync(self._descriptor)
        os.close(self._descriptor)

    def is_done(self, lane: Lane, unit: BoundingBox) -> bool:
        """Tell whether a unit is done."""
        done = self._done.get(lane.number)
        return done is not None and (done.whole or lane.number_of(unit) in done)

    def is_whole(self, lane: Lane) -> bool:
        """Tell whether a lane was closed."""
        return lane.number in self._done and self._done[lane.number].whole

    def note(self, lane: Lane, report: UnitReport) -> None:
        """Note the report of a unit."""
        number = lane.number_of(report.unit)
        if self._of(lane.number).add(number):
            self._append(_line(lane.number, number, report))

    def close_lane(self, lane: Lane) -> None:
        """Note durably that all units of a lane are done."""
        self._of(lane.number).whole = True
        self._synced -= _SYNC_SECONDS
        self._append(["lane", lane.number])

    def _of(self, lane: int) -> _Done:
        return self._done.setdefault(lane, _Done())

    def _append(self, line: list[Any]) -> None:
        """Write a line; it is with the kernel when this returns, on the disk within a second.

        A journal that cannot be written stops no job: what it lacks would be done again.
        """
        if self._is_broken:
            return
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fdatasync(self._descriptor)
                self._synced = time.monotonic()
        except OSError as error:
            self._is_broken = True  # nothing may follow a line that is cut short
            _logger.warning("%s cannot be written (%s); what follows could not be resumed", self._path, error)

    def _read(self) -> int:
        """Read what earlier runs noted; return how many bytes of it are whole lines."""
        length = 0
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n") or not self._take(line):
                    break
                length += len(line)
        return length

    def _take(self, line: bytes) -> bool:
        """Take a line of an earlier run; False if it makes no sense."""
        try:
            lane, number, *rest = json.loads(line)
            if lane == "lane":
                self._of(number).whole = True
            elif self._of(lane).add(number):
                self.units += 1
                report = _report(*rest)
                self.merged = report if self.merged is None else merge_reports(self.merged, report)
        except (ValueError, TypeError, KeyError):
            return False
        return True


def _line(lane: int, number: int, report: UnitReport) -> list[Any]:
    """Return a report as a line."""
    box = None if report.box is None else report.box.to_csv()
    numbers = [report.cubes, report.nbytes, report.file_nbytes, report.minimum, report.maximum]
    others = [
        [
            other.dataset_path, other.layer, other.mag.to_layer_name(), other.box.to_csv(),
            other.cubes, other.nbytes, other.file_nbytes, other.minimum, other.maximum,
        ]
        for other in report.others
    ]  # fmt: skip
    return [lane, number, report.unit.to_csv(), box, *numbers, *([others] if others else [])]


def _report(
    unit: str, box: str | None, cubes: int, nbytes: int, file_nbytes: int, minimum: Any, maximum: Any,
    others: list[list[Any]] | None = None,
) -> UnitReport:  # fmt: skip
    """Return the report of a line."""
    return UnitReport(
        unit=BoundingBox.from_csv(unit),
        box=None if box is None else BoundingBox.from_csv(box),
        cubes=cubes,
        nbytes=nbytes,
        file_nbytes=file_nbytes,
        minimum=minimum,
        maximum=maximum,
        others=tuple(
            PlaceReport(dataset, layer, Mag(mag), BoundingBox.from_csv(place), *numbers)
            for dataset, layer, mag, place, *numbers in others or ()
        ),
    )
