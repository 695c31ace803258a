"""Which units of a job are done, in a file that survives the driver.

One line per unit, appended when the unit's report has reached the driver: its cubes were flushed, renamed, and
their folders flushed before that. So a line never promises what a crash could take back::

    [0,17,[64,0,0,64,64,64],[64,0,5,64,64,59],8,241664,119671,0,255]
     |  |  the unit's box   what was written   |  bytes  in files | largest voxel
     |  number of the unit  (1: the same box)  cubes              smallest voxel
     lane
    [0,17,...,[["/ds","labels","1",...]]]       what it wrote into further mags
    [0,17,...,[],[{"n":3}]]                     what it returned
    ["lane",0]                                  all of lane 0 is done

A line that is cut short, and whatever follows it, was not yet on the disk: those units are done again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import time
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wkdask.geometry import BoundingBox, Mag
from wkdask.grid import CubeGrid, IndexRange
from wkdask.tasks import NOTHING, PlaceReport, Total, UnitReport

__all__ = ["Journal", "Lane"]

_FILE = "journal"
_logger = logging.getLogger(__name__)
_SYNC_SECONDS = 1.0
"""A crash of the machine loses the lines of so many seconds at most; that of a process loses none."""
_BATCH_NBYTES = 1 << 18
"""Lines are parsed so many bytes at a time."""


@dataclass(frozen=True, slots=True)
class Lane:
    """The units of one kind within a job, numbered by the grid that cuts them."""

    number: int
    """Which of the job's lanes; the same in every run of it."""
    grid: CubeGrid
    """Cuts the box into units."""
    box: BoundingBox
    """What the lane covers: absolute, in voxels of the mag."""
    units: IndexRange = field(init=False, repr=False, compare=False)
    """All of them, by their index on the grid."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", self.grid.cubes(self.box))

    def __len__(self) -> int:
        return len(self.units)

    def number_of(self, unit: BoundingBox) -> int:
        """Return the number of a unit, x fastest."""
        x, y, z = unit.topleft // self.grid.shape - self.units.start
        nx, ny, _ = self.units.shape
        return x + nx * (y + ny * z)

    def numbers_of(self, units: IndexRange) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the numbers of a box of units, x fastest."""
        nx, ny, _ = self.units.shape
        x, y, z = (
            np.arange(low, high) - first
            for low, high, first in zip(units.start, units.stop, self.units.start, strict=True)
        )
        return (x + nx * (y[:, None] + ny * z[:, None, None])).ravel()


@dataclass(slots=True)
class _Done:
    """The units of a lane that are done: one bit each."""

    bits: bytearray = field(default_factory=bytearray)
    whole: bool = False
    places: array[int] = field(default_factory=lambda: array("q"))
    """Where in the file the lines of units are that returned something."""

    def add(self, number: int) -> bool:
        """Note a unit; False if it was noted before."""
        place, bit = number >> 3, 1 << (number & 7)
        bits = self.bits
        if place >= len(bits):
            bits.extend(bytes(max(place + 1 - len(bits), len(bits) // 8)))
        if bits[place] & bit:
            return False
        bits[place] |= bit
        return True

    def put(self, number: int, place: int) -> None:
        """Note where the line of a unit is."""
        if number >= len(self.places):
            self.places.extend(itertools.repeat(-1, number + 1 - len(self.places)))
        self.places[number] = place

    def __contains__(self, number: int) -> bool:
        place = number >> 3
        return self.whole or (place < len(self.bits) and bool(self.bits[place] >> (number & 7) & 1))

    def among(self, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Tell which of many units are done."""
        if self.whole:
            return np.ones(len(numbers), bool)
        bits = np.frombuffer(self.bits, np.uint8)
        places = numbers >> 3
        known = places < len(bits)
        found = np.zeros(len(numbers), bool)
        found[known] = bits[places[known]] >> (numbers[known] & 7) & 1
        return found


class Journal:
    """The journal in a job's folder; used by the driver alone, in a ``with`` statement.

    Its memory is one bit per unit, and eight bytes where units returned something.
    """

    def __init__(self, folder: str) -> None:
        self._path = f"{folder}/{_FILE}"
        self._done: dict[int, _Done] = {}
        self.units = 0
        """Units that earlier runs had done."""
        self._total = NOTHING
        self._length = self._read()
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.ftruncate(self._descriptor, self._length)
        os.lseek(self._descriptor, self._length, os.SEEK_SET)
        self._synced = time.monotonic()
        self._is_broken = False

    @property
    def merged(self) -> UnitReport | None:
        """The reports of all units that earlier runs had done, as one."""
        return self._total.report()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the job's own error tells more; the lines are with the kernel
            os.fdatasync(self._descriptor)
        os.close(self._descriptor)

    def is_done(self, lane: Lane, unit: BoundingBox) -> bool:
        """Tell whether a unit is done."""
        return self.has(lane, lane.number_of(unit))

    def has(self, lane: Lane, number: int) -> bool:
        """Tell whether the unit of a number is done."""
        done = self._done.get(lane.number)
        return done is not None and number in done

    def done_among(self, lane: Lane, units: IndexRange) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Tell which of a box of units are done, x fastest."""
        done = self._done.get(lane.number)
        if done is None:
            return np.zeros(len(units), bool)
        return done.among(lane.numbers_of(units))

    def value(self, lane: Lane, number: int) -> Any:
        """Return what the unit of a number returned; it is done."""
        place = self._done[lane.number].places[number]
        line = b""
        while not line.endswith(b"\n"):
            part = os.pread(self._descriptor, max(4096, len(line)), place + len(line))
            if not part:
                raise OSError(errno.ENOSPC, "what a task returned could not be kept", self._path)
            line += part[: part.find(b"\n") + 1] or part
        return json.loads(line)[_VALUE]

    def is_whole(self, lane: Lane) -> bool:
        """Tell whether a lane was closed."""
        return lane.number in self._done and self._done[lane.number].whole

    def note(self, lane: Lane, report: UnitReport) -> None:
        """Note the report of a unit."""
        number = lane.number_of(report.unit)
        done = self._of(lane.number)
        if done.add(number):
            if report.value is not None:
                done.put(number, self._length)
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
        data = _encode(line).encode() + b"\n"
        try:
            self._length += len(data)
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
            while lines := file.readlines(_BATCH_NBYTES):
                if lines[-1].endswith(b"\n"):
                    with contextlib.suppress(ValueError):
                        entries = json.loads(b"[" + b",".join(lines) + b"]")
                        # A line that is no JSON of its own, but makes some with its neighbours, is one too many.
                        if len(entries) == len(lines) and self._take_all(entries, lines, length):
                            length += sum(map(len, lines))
                            continue
                for line in lines:
                    if not line.endswith(b"\n") or not self._take_line(line, length):
                        return length
                    length += len(line)
        return length

    def _take_all(self, entries: list[Any], lines: list[bytes], place: int) -> bool:
        """Take many lines of an earlier run; False, and none is taken, if one of them makes no sense."""
        for entry in entries:
            if type(entry) is not list or not (_is_lane(entry) or _is_unit(entry)):
                return False
        total, units = self._total, 0
        done, of = _Done(), -1
        for entry, line in zip(entries, lines, strict=True):
            lane = entry[0]
            if lane == "lane":
                self._of(entry[1]).whole = True
            else:
                if lane != of:
                    done, of = self._of(lane), lane
                if done.add(entry[1]):
                    units += 1
                    total = _added(total, entry)
                    if len(entry) > _VALUE:
                        done.put(entry[1], place)
            place += len(line)
        self._total = total
        self.units += units
        return True

    def _take_line(self, line: bytes, place: int) -> bool:
        """Take a line of an earlier run; False if it makes no sense."""
        try:
            return self._take_all([json.loads(line)], [line], place)
        except (ValueError, RecursionError):
            return False


_UNIT, _WRITTEN, _OTHERS, _VALUE = 2, 3, 9, 10
"""Where in a line the boxes are, and what not every line has."""
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _is_lane(entry: list[Any]) -> bool:
    """Tell whether a line notes the end of a lane."""
    return len(entry) == 2 and entry[0] == "lane" and type(entry[1]) is int


def _is_unit(entry: list[Any]) -> bool:
    """Tell whether a line notes a unit."""
    if not _OTHERS <= len(entry) <= _VALUE + 1:
        return False
    lane, number, unit, box, cubes, nbytes, file_nbytes, low, high = entry[:_OTHERS]
    return (
        type(lane) is int
        and type(number) is int
        and number >= 0
        and type(cubes) is int
        and type(nbytes) is int
        and type(file_nbytes) is int
        and _is_box(unit)
        and (box is None or box == 1 or _is_box(box))
        and (low is None or type(low) in (int, float))
        and (high is None or type(high) in (int, float))
    )


def _is_box(numbers: Any) -> bool:
    return type(numbers) is list and len(numbers) == 6 and all(type(number) is int for number in numbers)


def _line(lane: int, number: int, report: UnitReport) -> list[Any]:
    """Return a report as a line."""
    unit = report.unit
    box = None if report.box is None else 1 if report.box == unit else report.box.to_tuple6()
    line = [
        lane, number, unit.to_tuple6(), box,
        report.cubes, report.nbytes, report.file_nbytes, report.minimum, report.maximum,
    ]  # fmt: skip
    if report.others or report.value is not None:
        line.append(
            [
                [
                    other.dataset_path, other.layer, other.mag.to_layer_name(), other.box.to_tuple6(),
                    other.cubes, other.nbytes, other.file_nbytes, other.minimum, other.maximum,
                ]
                for other in report.others
            ]
        )  # fmt: skip
    if report.value is not None:
        line.append(report.value)
    return line


def _added(total: Total, entry: list[Any]) -> Total:
    """Return a total and a line together."""
    _, _, unit, box, cubes, nbytes, file_nbytes, low, high = entry[:_OTHERS]
    total = total.plus(unit, unit if box == 1 else box, cubes, nbytes, file_nbytes, low, high)
    if len(entry) > _OTHERS and entry[_OTHERS]:
        total = total.with_others(
            PlaceReport(dataset, layer, Mag(mag), BoundingBox.from_tuple6(place), *numbers)
            for dataset, layer, mag, place, *numbers in entry[_OTHERS]
        )
    return total
