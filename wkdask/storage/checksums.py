"""Checksums of cubes: a hidden file beside each, by which a flipped bit of an uncompressed voxel is found.

::

    <mag>/z0/y0/x0.wkw                          a cube, or a shard
    <mag>/.wkdask/checksums/z0/y0/x0.wkw.crc    its entry: size, time, and the CRC-32C of each 64 KiB of the file

    entry of another size or time  ->  stale: the cube was written by another program, and nothing is known of it
    the same size and time         ->  every piece must have its checksum

A mag has checksums if the folder exists; a publication replaces the entry before the cube. The time is that
of the file's data, to which a publication gives digits below a microsecond of its choice, so that no other write
happens to have the same time. A tool that copies the files and keeps their times must copy the entries as well.

Pieces of 64 KiB: a read of a few chunks is verified without much around it, and the entry of a cube of 1 GiB has
64 KiB.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wkdask import settings
from wkdask.errors import DamagedCubeError
from wkdask.fsio import open_regular
from wkdask.geometry import Vec3Int
from wkdask.portable import data_extents, drop_cached
from wkdask.storage.open_cubes import CheckedFiles
from wkdask.storage.protocol import PRIVATE, StoredMag
from wkdask.storage.publish.private import (
    make_shared_folder,
    opened_folder,
    private_folder,
    read_private_file,
)
from wkdask.storage.rereads import fill, read_again

__all__ = [
    "ENTRY",
    "FOLDER",
    "Checksums",
    "Verdict",
    "begin_checksums",
    "crc32c",
    "drop_entry",
    "find_sums",
    "has_checksums",
    "put_entry",
    "require_sound",
    "verifies",
    "verify_cube",
    "write_entry",
]

FOLDER = "checksums"
"""In the private folder of a mag that has checksums."""
PIECE_NBYTES = 1 << 16
"""Bytes of a file that have one checksum."""
_READ_NBYTES = 4 << 20
"""Bytes that are read at a time where a whole file is."""
ENTRY = ".crc"
"""What the name of an entry ends with."""
_MAGIC = b"WKCRC32C"
_HEAD = struct.Struct("<8sQqQ")
_LARGEST = 256 << 20
"""Bytes of an entry at most."""


def crc32c(data: Any) -> int:
    """Return the Castagnoli checksum of bytes."""
    import google_crc32c

    return int(google_crc32c.value(data if isinstance(data, bytes) else np.frombuffer(data, np.uint8)))


@dataclass(frozen=True, slots=True)
class Checksums:
    """What the bytes of a file were when it was published."""

    size: int
    """Bytes of the file."""
    time_ns: int
    """When its data changed last."""
    crcs: npt.NDArray[np.uint32]
    """The checksum of each piece."""

    def is_of(self, info: os.stat_result) -> bool:
        """Return whether a file has not been written since, as far as its size and time say."""
        return info.st_size == self.size and info.st_mtime_ns == self.time_ns

    def read(self, descriptor: int, path: str, start: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Read bytes of a file whose pieces have their checksums; fewer where the file ends.

        Parameters
        ----------
        descriptor, path
            The file, and its name for messages.
        start, nbytes
            The bytes.

        Raises
        ------
        DamagedCubeError
            If a piece has another checksum, or the file is shorter.
        """
        stop = min(start + nbytes, self.size)
        first = start // PIECE_NBYTES * PIECE_NBYTES
        data = _bytes_of(descriptor, path, first, min(-(-stop // PIECE_NBYTES) * PIECE_NBYTES, self.size))
        for place in self.wrong(data, first // PIECE_NBYTES):
            piece = data[place - first : place - first + PIECE_NBYTES]
            self.read_again(descriptor, path, place, piece)
        return data[start - first : max(stop - first, 0)]

    def read_again(self, descriptor: int, path: str, place: int, piece: npt.NDArray[np.uint8]) -> None:
        """Read a piece once more that has another checksum.

        Parameters
        ----------
        descriptor, path
            The file.
        place, piece
            Where the piece begins, and room for it.

        Raises
        ------
        DamagedCubeError
            If it has another one again.
        """
        error = DamagedCubeError(
            f"the cube {path} is damaged: its bytes {place} to {place + piece.size} have another checksum than "
            f"when they were written"
        )

        def read() -> None:
            fill(path, descriptor, memoryview(piece), place)
            if crc32c(piece) != self.crcs[place // PIECE_NBYTES]:
                raise error

        read_again(path, error, read, (place, piece.size), descriptor)

    def wrong(self, data: npt.NDArray[np.uint8], first: int) -> Iterator[int]:
        """Yield where pieces begin whose checksum is another one.

        Parameters
        ----------
        data
            Whole pieces, or all up to the file's end.
        first
            The number of the first of them.
        """
        for number in range(-(-data.size // PIECE_NBYTES)):
            piece = data[number * PIECE_NBYTES : (number + 1) * PIECE_NBYTES]
            if crc32c(piece) != self.crcs[first + number]:
                yield (first + number) * PIECE_NBYTES

    def to_bytes(self) -> bytes:
        """Return the entry as it is stored: it has a checksum of itself."""
        data = _HEAD.pack(_MAGIC, self.size, self.time_ns, PIECE_NBYTES) + self.crcs.astype("<u4").tobytes()
        return data + struct.pack("<I", crc32c(data))

    @classmethod
    def from_bytes(cls, data: bytes) -> Checksums | None:
        """Return a stored entry; None for what is none, such as one that a crash has cut."""
        if len(data) < _HEAD.size + 4 or struct.unpack("<I", data[-4:])[0] != crc32c(data[:-4]):
            return None
        magic, size, time_ns, piece = _HEAD.unpack_from(data)
        crcs = np.frombuffer(data[_HEAD.size : -4], "<u4")
        if magic != _MAGIC or piece != PIECE_NBYTES or crcs.size != -(-size // PIECE_NBYTES):
            return None
        return cls(size, time_ns, crcs)


def _bytes_of(descriptor: int, path: str, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Read bytes that are there, or say so."""
    data = np.empty(max(stop - start, 0), np.uint8)
    fill(path, descriptor, memoryview(data), start)
    return data


# --- entries ---------------------------------------------------------------------------------------------


def begin_checksums(mag_path: str) -> None:
    """Let the cubes that are published into a mag from now on have checksums."""
    make_shared_folder(f"{private_folder(mag_path)}/{FOLDER}")


def has_checksums(mag_path: str) -> bool:
    """Return whether cubes that are published into a mag get checksums."""
    try:
        return stat.S_ISDIR(os.lstat(f"{mag_path}/{PRIVATE}/{FOLDER}").st_mode)
    except OSError:
        return False


def write_entry(path: str) -> str:
    """Write the entry of a cube that is built and not yet published, beside it; return the entry's path."""
    descriptor = open_regular(path)
    try:
        crcs = _checksums_of(descriptor, path)
        info = os.fstat(descriptor)
        digits = 1 + (int(crcs[-1]) if crcs.size else 0) % 999
        with contextlib.suppress(PermissionError):  # of another user's file
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns // 1000 * 1000 + digits))
        info = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    with open(path + ENTRY, "wb") as file:
        file.write(Checksums(info.st_size, info.st_mtime_ns, crcs).to_bytes())
    return path + ENTRY


def _checksums_of(descriptor: int, path: str) -> npt.NDArray[np.uint32]:
    """Return the checksums of a file's pieces; holes are not read."""
    size = os.fstat(descriptor).st_size
    crcs = np.full(-(-size // PIECE_NBYTES), crc32c(bytes(PIECE_NBYTES)), np.uint32)
    if size % PIECE_NBYTES:
        crcs[-1] = crc32c(bytes(size % PIECE_NBYTES))
    done = 0
    for start, stop in data_extents(descriptor, size):
        start = max(start // PIECE_NBYTES * PIECE_NBYTES, done)
        done = min(-(-stop // PIECE_NBYTES) * PIECE_NBYTES, size)
        for first in range(start, done, _READ_NBYTES):
            data = _bytes_of(descriptor, path, first, min(first + _READ_NBYTES, done))
            for place in range(0, data.size, PIECE_NBYTES):
                crcs[(first + place) // PIECE_NBYTES] = crc32c(data[place : place + PIECE_NBYTES])
    return crcs


def put_entry(entry: str, mag_path: str, cube_path: str) -> str:
    """Let an entry take the place of that of a cube, before the cube does; return its folder.

    Parameters
    ----------
    entry
        What :func:`write_entry` has made.
    mag_path, cube_path
        The mag's folder, and the name of the cube in it.
    """
    *folders, name = _names(mag_path, cube_path)
    for number in range(len(folders)):
        above = opened_folder(mag_path, PRIVATE, FOLDER, *folders[:number])
        with above as descriptor, contextlib.suppress(FileExistsError):
            os.mkdir(folders[number], dir_fd=descriptor)
    with opened_folder(mag_path, PRIVATE, FOLDER, *folders) as folder:
        os.rename(entry, name, dst_dir_fd=folder)
    return "/".join((mag_path, PRIVATE, FOLDER, *folders))


def drop_entry(mag_path: str, cube_path: str) -> None:
    """Remove the entry of a cube that was removed, if there is one."""
    *folders, name = _names(mag_path, cube_path)
    with contextlib.suppress(OSError), opened_folder(mag_path, PRIVATE, FOLDER, *folders) as folder:
        os.unlink(name, dir_fd=folder)


def _names(mag_path: str, cube_path: str) -> list[str]:
    """Return the way from the folder of checksums to the entry of a cube."""
    return f"{cube_path[len(mag_path) + 1 :]}{ENTRY}".split("/")


def _entry_of(mag_path: str, cube_path: str) -> Checksums | None:
    """Return the entry of a cube; None where there is none that can be believed."""
    *folders, name = _names(mag_path, cube_path)
    try:
        with opened_folder(mag_path, PRIVATE, FOLDER, *folders) as folder:
            return Checksums.from_bytes(read_private_file(folder, name, _LARGEST))
    except OSError:
        return None


# --- verifying -------------------------------------------------------------------------------------------


_known: CheckedFiles[Checksums] = CheckedFiles()
"""Per process: the checksums of cubes that have not changed since."""


def verifies() -> bool:
    """Return whether what is read is compared with checksums: the setting ``wkdask.verify-reads``."""
    return settings.is_on("verify-reads")


def find_sums(mag_path: str, cube_path: str, info: os.stat_result) -> Checksums | None:
    """Return the checksums of an open cube; None where there are none, or those of another state of it.

    Parameters
    ----------
    mag_path, cube_path
        The mag's folder, and the name of the cube in it.
    info
        The state of the open file.
    """
    found = _known.get(cube_path, info, mag_path)
    if found is None:
        found = _entry_of(mag_path, cube_path)
        if found is None or not found.is_of(info):
            return None
        _known.put(cube_path, info, mag_path, found, found.crcs.nbytes)
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checksums say of a cube."""

    state: str
    """``"sound"``, ``"damaged"``, ``"stale"`` (another program wrote it), or ``"none"`` (no cube, or no entry)."""
    wrong: tuple[tuple[int, int], ...] = ()
    """The parts of the file, first byte and end, that have other checksums than when they were written."""


def verify_cube(store: StoredMag, index: Vec3Int, *, from_disk: bool = True) -> Verdict:
    """Compare all bytes of a cube with their checksums; what is wrong is read again (`wkdask.storage.rereads`).

    Parameters
    ----------
    store, index
        The mag, and the cube.
    from_disk
        Read from the disk what is in the page cache.

    Raises
    ------
    OSError
        If the cube's file cannot be opened or read.
    """
    path = store.cube_path(index)
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return Verdict("none")
    try:
        sums = _entry_of(store.path, path)
        if sums is None:
            return Verdict("none")
        if from_disk:
            drop_cached(descriptor)
        wrong = _wrong_parts(descriptor, path, sums) if sums.is_of(os.fstat(descriptor)) else []
        # A program that writes in place meanwhile changes the time of the file.
        if not sums.is_of(os.fstat(descriptor)):
            return Verdict("stale")
    finally:
        os.close(descriptor)
    return Verdict("damaged", tuple(wrong)) if wrong else Verdict("sound")


def require_sound(store: StoredMag, index: Vec3Int, *, from_disk: bool = False) -> None:
    """Refuse a cube that has other checksums than when it was written: what keeps its voxels would hide that.

    Parameters
    ----------
    store, index, from_disk
        As for :func:`verify_cube`.

    Raises
    ------
    DamagedCubeError
        If so.
    """
    if parts := verify_cube(store, index, from_disk=from_disk).wrong:
        first, end = parts[0]
        more = f", and {len(parts) - 1} more parts," if len(parts) > 1 else ""
        raise DamagedCubeError(
            f"the cube {store.cube_path(index)} is damaged: its bytes {first} to {end}{more} have other checksums "
            f"than when they were written"
        )


def _wrong_parts(descriptor: int, path: str, sums: Checksums) -> list[tuple[int, int]]:
    """Return the parts of a file that have other checksums, first byte and end."""
    wrong: list[tuple[int, int]] = []
    for first in range(0, sums.size, _READ_NBYTES):
        data = _bytes_of(descriptor, path, first, min(first + _READ_NBYTES, sums.size))
        for place in sums.wrong(data, first // PIECE_NBYTES):
            piece = data[place - first : place - first + PIECE_NBYTES]
            try:
                sums.read_again(descriptor, path, place, piece)
            except DamagedCubeError:
                wrong.append((place, place + piece.size))
    return wrong
