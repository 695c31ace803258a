"""Which units of a job are done, in a file that survives the driver: evidence, not a promise.

One line per unit, appended when the unit's report has reached the driver: its cubes were flushed, renamed, and
their folders flushed before that. So a line never promises what a crash could take back::

    5d1c90f2 ["job","9f…"]                         the checksum of the job manifest that the journal belongs to
    8a9410c3 ["lane",0,[64,64,64],[0,0,0,512,512,64]]  how stream 0 is cut: voxels of a unit, and the box
    b7a0f1e6 [0,17,[64,0,0,64,64,64],[64,0,5,64,64,59],8,241664,119671,0,255]
       |      |  |  the unit's box   what was written   |  bytes  in files | largest voxel
       |      |  |                   (1: the same box)  cubes              smallest voxel
       |      |  index of the unit
       |      stream
       checksum (CRC-32) of the rest of the line
    …        [0,17,...,[["/ds","labels","1",...]]]  what it wrote into further mags
    …        [0,17,...,[],[{"n":3}]]                what it returned
    …        ["end",0]                              all of stream 0 is done

A line counts only if its checksum is right, its index is that of its box, what was written lies in that box,
and what was written into further mags lies in what the job may write there. Reading ends at the first line
that does not: those units are done again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import time
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wkdask.errors import ResumeError
from wkdask.fsio import remove_entry
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.grid import CubeGrid, IndexRange
from wkdask.jobs.tasks import NOTHING, PlaceReport, Total, UnitReport
from wkdask.portable import sync_data
from wkdask.storage.publish.private import open_private_file, opened_folder

__all__ = ["Journal", "Stream"]

_FILE = "journal"
_logger = logging.getLogger(__name__)
_SYNC_SECONDS = 1.0
"""A crash of the machine loses the lines of so many seconds at most; that of a process loses none."""
_BATCH_NBYTES = 1 << 18
"""Lines are parsed so many bytes at a time."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The units of one kind within a job, numbered by the grid that cuts them."""

    number: int
    """Which of the job's streams; the same in every run of it."""
    grid: CubeGrid
    """Cuts the box into units."""
    box: BoundingBox
    """What the stream covers: absolute, in voxels of the mag."""
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

    def is_unit(self, index: int, box: Sequence[int]) -> bool:
        """Return whether a box (x, y, z, width, height, depth) is that of the unit of an index."""
        nx, ny, nz = self.units.shape
        if index >= nx * ny * nz:
            return False
        place = (index % nx, index // nx % ny, index // (nx * ny))
        for axis in range(3):
            side = self.grid.shape[axis]
            low = (self.units.start[axis] + place[axis]) * side
            first, last = self.box.topleft[axis], self.box.bottomright[axis]
            start, stop = max(low, first), min(low + side, last)
            if box[axis] != start or box[axis] + box[axis + 3] != stop:
                return False
        return True

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
    """The units of a stream that are done: one bit each."""

    stream: Stream | None = None
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
        """Return which of many units are done."""
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

    def __init__(
        self,
        folder: str,
        job: str = "",
        limits: Mapping[tuple[str, str, str], BoundingBox] | None = None,
    ) -> None:
        """Open the journal in a folder, and read what a previous run noted.

        Parameters
        ----------
        folder
            The job's private folder.
        job
            The checksum of the job's manifest. A journal of another job is not believed.
        limits
            What the job may write: boxes in voxels of the mag, by dataset, layer and mag; None for a job
            whose tasks may write anywhere.
        """
        self._path = f"{folder}/{_FILE}"
        self._job = job
        self._limits = limits
        self._done: dict[int, _Done] = {}
        self.units = 0
        """Units that earlier runs had done."""
        self._total = NOTHING
        with opened_folder(folder) as home:
            try:
                self._descriptor = open_private_file(home, _FILE, os.O_RDWR | os.O_CREAT)
            except OSError:
                # A link, a FIFO, another user's file: it is not believed, and nothing is written through it.
                remove_entry(home, _FILE)
                self._descriptor = open_private_file(home, _FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._length = 0
        self._synced = time.monotonic()
        self._is_broken = False
        try:
            self._length = self._read()
            os.ftruncate(self._descriptor, self._length)
            os.lseek(self._descriptor, self._length, os.SEEK_SET)
            if not self._length:
                self._append(["job", job])
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def merged(self) -> UnitReport | None:
        """The reports of all units that earlier runs had done, as one."""
        return self._total.report()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the job's own error says more; the lines are with the kernel
            sync_data(self._descriptor)
        os.close(self._descriptor)

    def is_done(self, stream: Stream, unit: BoundingBox) -> bool:
        """Return whether a unit is done."""
        return self.has(stream, stream.number_of(unit))

    def has(self, stream: Stream, number: int) -> bool:
        """Return whether the unit of a number is done."""
        done = self._known(stream)
        return done is not None and number in done

    def _known(self, stream: Stream) -> _Done | None:
        """Return what is noted of a stream; None if nothing is.

        Raises
        ------
        ResumeError
            If it is noted of a stream that is cut otherwise: its indices are those of other units.
        """
        done = self._done.get(stream.number)
        if done is not None and done.stream != stream:
            was = "" if done.stream is None else f"units of {done.stream.grid.shape} in {done.stream.box}"
            raise ResumeError(
                f"{self._path} counts {was}, this call units of {stream.grid.shape} in {stream.box}; call it "
                f"without resume=True (--resume) to begin from the start"
            )
        return done

    def done_among(self, stream: Stream, units: IndexRange) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which of a box of units are done, x fastest."""
        done = self._known(stream)
        if done is None:
            return np.zeros(len(units), bool)
        return done.among(stream.numbers_of(units))

    def value(self, stream: Stream, number: int) -> Any:
        """Return what the unit of a number returned; it is done."""
        place = self._done[stream.number].places[number]
        line = b""
        while not line.endswith(b"\n"):
            part = os.pread(self._descriptor, max(4096, len(line)), place + len(line))
            if not part:
                raise OSError(errno.ENOSPC, "what a task returned could not be kept", self._path)
            line += part[: part.find(b"\n") + 1] or part
        return json.loads(line[_CHECKSUM:])[_VALUE]

    def is_whole(self, stream: Stream) -> bool:
        """Return whether a stream was closed."""
        done = self._known(stream)
        return done is not None and done.whole

    def note(self, stream: Stream, report: UnitReport) -> None:
        """Note the report of a unit."""
        number = stream.number_of(report.unit)
        done = self._of(stream)
        if done.add(number):
            if report.value is not None:
                done.put(number, self._length)
            self._append(_line(stream.number, number, report))

    def close_stream(self, stream: Stream) -> None:
        """Note durably that all units of a stream are done."""
        self._of(stream).whole = True
        self._synced -= _SYNC_SECONDS
        self._append(["end", stream.number])

    def _of(self, stream: Stream) -> _Done:
        """Return what is noted of a stream. For a new stream, first note how it is cut."""
        done = self._known(stream)
        if done is None:
            done = self._done[stream.number] = _Done(stream)
            self._append(["lane", stream.number, list(stream.grid.shape), stream.box.to_tuple6()])
        return done

    def _append(self, line: list[Any]) -> None:
        """Write a line; it is with the kernel when this returns, on the disk within a second.

        A journal that cannot be written stops no job: what it lacks would be done again.
        """
        if self._is_broken:
            return
        data = _encode(line).encode()
        data = b"%08x %s\n" % (zlib.crc32(data), data)
        try:
            self._length += len(data)
            while data:
                data = data[os.write(self._descriptor, data) :]
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                sync_data(self._descriptor)
                self._synced = time.monotonic()
        except OSError as error:
            self._is_broken = True  # nothing may follow a line that is cut short
            _logger.warning("%s cannot be written (%s); what follows could not be resumed", self._path, error)

    def _read(self) -> int:
        """Read what earlier runs noted; return how many bytes of it count."""
        length = 0
        with open(os.dup(self._descriptor), "rb") as file:
            while lines := file.readlines(_BATCH_NBYTES):
                if not length and not self._is_of_job(lines[0]):
                    return 0
                if lines[-1].endswith(b"\n") and all(map(_is_sound, lines)):
                    with contextlib.suppress(ValueError):
                        texts = [line[_CHECKSUM:] for line in lines]
                        entries = json.loads(b"[" + b",".join(texts) + b"]")
                        # A line that is no JSON of its own, but makes some with its neighbours, is one too many.
                        if len(entries) == len(lines) and self._take_all(entries, lines, length):
                            length += sum(map(len, lines))
                            continue
                for line in lines:
                    if not (line.endswith(b"\n") and _is_sound(line) and self._take_line(line, length)):
                        return length
                    length += len(line)
        return length

    def _is_of_job(self, line: bytes) -> bool:
        """Return whether the first line names this job's manifest."""
        return _is_sound(line) and line[_CHECKSUM:] == _encode(["job", self._job]).encode() + b"\n"

    def _take_all(self, entries: list[Any], lines: Sequence[bytes], place: int) -> bool:
        """Take many lines of an earlier run; False, and none is taken, if one of them makes no sense."""
        streams = {number: done.stream for number, done in self._done.items()}
        for entry in entries:
            if type(entry) is not list or not self._makes_sense(entry, streams):
                return False
        total, units = self._total, 0
        done, of = _Done(), -1
        for entry, line in zip(entries, lines, strict=True):
            stream = entry[0]
            if stream == "lane":
                self._done.setdefault(entry[1], _Done(streams[entry[1]]))
            elif stream == "end":
                self._done[entry[1]].whole = True
            elif stream != "job":
                if stream != of:
                    done, of = self._done[stream], stream
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
            return self._take_all([json.loads(line[_CHECKSUM:])], [line], place)
        except (ValueError, RecursionError):
            return False

    def _makes_sense(self, entry: list[Any], streams: dict[int, Stream | None]) -> bool:
        """Return whether a line says something that this job can have noted; adds the stream that it describes."""
        kind = entry[0] if entry else None
        if kind == "job":
            return entry == ["job", self._job]
        if kind == "end":
            return len(entry) == 2 and type(entry[1]) is int and entry[1] in streams
        if kind == "lane":
            if (
                len(entry) != 4
                or type(entry[1]) is not int
                or not (_is_shape(entry[2]) and _is_box(entry[3]))
            ):
                return False
            stream = Stream(entry[1], CubeGrid(Vec3Int(entry[2])), BoundingBox.from_tuple6(entry[3]))
            return streams.setdefault(entry[1], stream) == stream
        return _is_unit(entry, streams) and self._is_allowed(entry)

    def _is_allowed(self, entry: list[Any]) -> bool:
        """Return whether what a unit wrote into further mags lies in what the job may write there."""
        if len(entry) <= _OTHERS or not entry[_OTHERS] or self._limits is None:
            return True
        try:
            for dataset, layer, mag, box, *numbers in entry[_OTHERS]:
                limit = self._limits.get((dataset, layer, mag))
                if limit is None or len(numbers) != 5 or not _is_box(box):
                    return False
                if not limit.contains_bbox(BoundingBox.from_tuple6(box)):
                    return False
        except (TypeError, ValueError):
            return False
        return True


_CHECKSUM = 9
"""Bytes before the text of a line: its checksum and a space."""
_OTHERS, _VALUE = 9, 10
"""Where in a line is what not every line has: writes into further mags, and the returned value."""
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _is_sound(line: bytes) -> bool:
    """Return whether a line is as it was written."""
    text = line[_CHECKSUM:-1] if line.endswith(b"\n") else line[_CHECKSUM:]
    return line[:_CHECKSUM] == b"%08x " % zlib.crc32(text)


def _is_unit(entry: list[Any], streams: Mapping[int, Stream | None]) -> bool:
    """Return whether a line notes a unit: its index must be that of its box, and what it wrote lie in there."""
    if not _OTHERS <= len(entry) <= _VALUE + 1:
        return False
    number, index, unit, box, cubes, nbytes, file_nbytes, low, high = entry[:_OTHERS]
    if not (
        type(number) is int
        and type(index) is int
        and index >= 0
        and type(cubes) is int
        and type(nbytes) is int
        and type(file_nbytes) is int
        and _is_box(unit)
        and (box is None or box == 1 or _is_box(box))
        and (low is None or type(low) in (int, float))
        and (high is None or type(high) in (int, float))
    ):
        return False
    stream = streams.get(number)
    if stream is None:
        return False
    x, y, z, width, height, depth = unit
    if width <= 0 or height <= 0 or depth <= 0 or (x, y, z) < (0, 0, 0):
        return False
    if box is not None and box != 1:
        a, b, c, w, h, d = box
        if not (
            x <= a and a + w <= x + width and y <= b and b + h <= y + height and z <= c and c + d <= z + depth
        ):
            return False
    return stream.is_unit(index, unit)


def _is_shape(numbers: Any) -> bool:
    return type(numbers) is list and len(numbers) == 3 and all(type(n) is int and n > 0 for n in numbers)


def _is_box(numbers: Any) -> bool:
    return type(numbers) is list and len(numbers) == 6 and all(type(number) is int for number in numbers)


def _line(stream: int, number: int, report: UnitReport) -> list[Any]:
    """Return a report as a line."""
    unit = report.unit
    box = None if report.box is None else 1 if report.box == unit else report.box.to_tuple6()
    line = [
        stream, number, unit.to_tuple6(), box,
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
