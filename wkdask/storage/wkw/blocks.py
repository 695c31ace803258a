"""The blocks of a cube's file: whole runs of them at a time, put to their places by a kernel.

::

    file     header | block 0 | block 1 | block 2 | …     along a Morton curve
                    [-- one pread, pwrite --]             into a buffer that stays in the caches
    LZ4               decompressed, block by block        into another one
    array    each block's rows to their places            past the caches, if it is larger than they are

The wkw library reads and writes block by block, 32 KiB of uint8 at a time, and copies row by row: 32 bytes, half a
line of the cache, whose other half comes much later. Here whole runs of blocks go by one call, and the rows of two
neighbours are moved together. What is read comes through one descriptor, which was checked: there is no second look
at a name that may lead to another file by then. The library takes every file that it cannot open for a missing one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from wkdask.errors import CubePermissionError, DamagedCubeError
from wkdask.fsio import EXHAUSTED, open_regular
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.checksums import Checksums, find_sums, verifies
from wkdask.storage.open_cubes import CheckedFiles, Identity, identity_of
from wkdask.storage.protocol import Voxels
from wkdask.storage.rereads import fill, note_repeated, read_again
from wkdask.storage.wkw.format import HEADER_SIZE, WkwHeader, bytes_in, check_cube_file
from wkdask.storage.wkw.lz4 import bound, unpack

if TYPE_CHECKING:
    from wkdask.kernels import BlockTarget

__all__ = [
    "Batch",
    "OpenCube",
    "all_batches",
    "batches",
    "is_sound",
    "open_cube",
    "opened_cube",
    "read_box",
    "shrink_box",
    "target_of",
    "thread_buffer",
]

_BUFFER_NBYTES = 4 << 20
"""Bytes of blocks that are read at a time: they must still be in the third cache when they are placed."""
_FEW_NBYTES = 128 << 10
"""Bytes of blocks that a read of a box has at once: they must still be in the second cache when they are placed."""
_STREAM_NBYTES = 16 << 20
"""Arrays from so many bytes on are written past the caches, which would not hold them until they are used."""
_local = threading.local()

_checked: CheckedFiles[tuple[WkwHeader, Voxels | None]] = CheckedFiles()
"""Per process: headers and jump tables of cubes, checked against the geometry of their mags."""
_NO_ENDS: Voxels = np.frombuffer(b"", "<u8")
"""The jump table of a plain cube."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Blocks of a cube that are read, written and placed together, in their order in the file."""

    codes: Voxels
    """Their Morton numbers, which are those of their places in the file."""
    runs: Voxels
    """Those that follow each other in the file, ``(n, 3)``: start and stop in the batch, number of the first."""
    buffer: Voxels
    """Room for their bytes, one block after the other; the same for every batch of a thread."""


class OpenCube:
    """An open cube whose header, size and jump table were checked; closed with its last reference."""

    __slots__ = ("_descriptor", "ends", "header", "identity", "path", "sums")

    def __init__(
        self,
        path: str,
        descriptor: int,
        header: WkwHeader,
        ends: Voxels | None,
        identity: Identity = (0, 0, 0, 0, 0),
        sums: Checksums | None = None,
    ) -> None:
        self.path = path
        self._descriptor = descriptor
        self.header = header
        """The cube's own: it is read by its own block type."""
        self.ends = ends
        """Where each block ends in the file; None for a plain cube, whose blocks are all of one size."""
        self.identity = identity
        """What its file was when it was opened and checked."""
        self.sums = sums
        """What its bytes are compared with; None where they are not."""

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the caller does not read from it afterwards."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(
        self, low: Sequence[int], high: Sequence[int], target: BlockTarget, origin: Sequence[int]
    ) -> None:
        """Read a box into its place in an array.

        Parameters
        ----------
        low, high
            The corners of the box, in voxels of the cube.
        target
            The array.
        origin
            The voxel of the cube that the array begins with; may lie outside of the cube.

        Raises
        ------
        DamagedCubeError
            If the file became shorter since it was checked, a block cannot be decompressed, or the disk fails.
        """
        from wkdask import kernels

        header = self.header
        repeated = failed = False

        def read_batches() -> bool:
            nonlocal repeated
            for batch in batches(header, BoundingBox.from_corners(low, high)):
                repeated |= self.load(batch)
                kernels.unpack_blocks(batch.buffer, batch.codes, header.block_len, low, high, target, origin)
            return True

        if self._descriptor >= 0 and self.sums is None and kernels.has_lz4():
            nbytes = header.block_nbytes
            count = max(2, _FEW_NBYTES // nbytes)
            plain = packed = thread_buffer("plain", count * nbytes)[: count * nbytes]
            if (ends := self.ends) is None:
                ends = _NO_ENDS
            else:
                packed = thread_buffer("packed", count * (bound(nbytes) + kernels.READ_GAP))
            file, levels = (self._descriptor, header.data_offset, ends), header.file_len.bit_length() - 1
            buffers = plain, packed
            if kernels.read_blocks(
                file, header.block_len, levels, low, high, target, origin, buffers, read_batches
            ):
                return
            failed = True
        read_batches()  # says what is wrong, and with what
        if failed and not repeated:
            note_repeated(self.path, "bytes were missing, or a block could not be decompressed", 1)

    def load(self, batch: Batch) -> bool:
        """Fill the buffer of a batch with its blocks; return whether they had to be read more than once.

        Raises
        ------
        DamagedCubeError
            If the file became shorter since it was checked, a block cannot be decompressed, or its bytes have
            another checksum.
        """
        return self._load_plain(batch) if self.ends is None else self._load_packed(batch, self.ends)

    def _load_plain(self, batch: Batch) -> bool:
        """Read blocks of one size."""
        nbytes = self.header.block_nbytes
        starts, stops, numbers = batch.runs.T
        return self._read(
            batch.buffer, starts * nbytes, stops * nbytes, self.header.data_offset + numbers * nbytes
        )

    def _load_packed(self, batch: Batch, table: Voxels) -> bool:
        """Read compressed blocks into a buffer of their own, run after run, and decompress them."""
        nbytes = self.header.block_nbytes
        packed = thread_buffer("packed", len(batch.codes) * bound(nbytes))
        codes = batch.codes.astype(np.int64)
        edges = np.empty((len(codes), 2), np.int64)  # of each block: first in the file, then in the buffer
        edges[:, 0] = np.where(codes > 0, table[codes - 1], self.header.data_offset)
        edges[:, 1] = table[codes]
        starts, stops, _ = batch.runs.T
        positions, ends = edges[starts, 0], edges[stops - 1, 1]
        filled = np.cumsum(ends - positions)
        begins = filled - (ends - positions)
        repeated = self._read(packed, begins, filled, positions)
        shifts = np.repeat(begins - positions, stops - starts)
        edges += shifts[:, None]
        done = unpack(packed, edges.view(np.uint64), nbytes, batch.buffer)
        while done < len(edges):
            start, stop = edges[done].tolist()
            block = batch.buffer[done * nbytes : (done + 1) * nbytes]
            self._unpack_again(int(codes[done]), start - int(shifts[done]), packed[start:stop], block)
            repeated, done = True, done + 1
            done += unpack(packed, edges[done:].view(np.uint64), nbytes, batch.buffer[done * nbytes :])
        return repeated

    def _unpack_again(self, number: int, position: int, packed: Voxels, out: Voxels) -> None:
        """Decompress a block that could not be, from bytes that are read once more.

        Parameters
        ----------
        number, position
            The block, and where it begins in the file.
        packed, out
            Room for its bytes, and the block.
        """
        error = DamagedCubeError(
            f"the cube {self.path} is damaged: its block {number} of {self.header.num_blocks} cannot be "
            f"decompressed"
        )
        edges = np.array([[0, packed.size]], np.uint64)

        def read() -> None:
            self._read(packed, *(np.array([place]) for place in (0, packed.size, position)))
            if not unpack(packed, edges, out.size, out):
                raise error

        read_again(self.path, error, read, (position, packed.size), self._descriptor)

    def _read(self, target: Voxels, starts: Voxels, stops: Voxels, positions: Voxels) -> bool:
        """Fill parts of a buffer, each from a position of the file; return whether one was read more than once."""
        view, repeated = memoryview(target), False
        for start, stop, position in zip(starts.tolist(), stops.tolist(), positions.tolist(), strict=True):
            if self.sums is None:
                repeated |= fill(self.path, self._descriptor, view[start:stop], position)
            else:
                target[start:stop] = self.sums.read(self._descriptor, self.path, position, stop - start)
        return repeated


def opened_cube(path: str, dataset: WkwHeader) -> OpenCube | None:
    """Open a cube for reading; None if it is not there.

    What was checked of a file that has not changed since is not checked again.

    Parameters
    ----------
    path
        The cube's file.
    dataset
        The mag's header.

    Raises
    ------
    DamagedCubeError
        If it is not a sound cube of this mag, or the disk does not give it.
    CubePermissionError
        If this user may not read it.
    """
    descriptor = _descriptor_of(path)
    if descriptor is None:
        return None
    try:
        return _checked_cube(path, descriptor, dataset)
    except DamagedCubeError as error:

        def again() -> OpenCube | None:  # network file systems ask for a file's size when it is opened
            other = _descriptor_of(path)
            return None if other is None else _checked_cube(path, other, dataset)

        return read_again(path, error, again, (0, HEADER_SIZE + 8 * dataset.num_blocks))


def _descriptor_of(path: str) -> int | None:
    """Open a cube's file; None if it is not there."""
    with _reading(path):
        try:
            return open_regular(path)
        except FileNotFoundError:
            return None


def _checked_cube(path: str, descriptor: int, dataset: WkwHeader) -> OpenCube:
    """Return an open file as a cube that was checked; it is closed where it is none."""
    try:
        with _reading(path):
            info = os.fstat(descriptor)
            sums = find_sums(_mag_of(path), path, info) if verifies() else None
            found = _checked.get(path, info, dataset.geometry)
            if found is None:
                found = check_cube_file(
                    path, partial(_bytes_of, path, descriptor, sums), info.st_size, dataset
                )
                nbytes = 0 if found[1] is None else found[1].nbytes
                _checked.put(path, info, dataset.geometry, found, nbytes)
        return OpenCube(path, descriptor, found[0], found[1], identity_of(info), sums)
    except BaseException:
        os.close(descriptor)
        raise


def _bytes_of(path: str, descriptor: int, sums: Checksums | None, start: int, nbytes: int) -> bytes:
    """Return bytes of a cube, compared with their checksums if they are to be; fewer where the file ends."""
    if sums is not None:
        return sums.read(descriptor, path, start, nbytes).tobytes()
    return bytes_in(descriptor, start, nbytes)


def _mag_of(path: str) -> str:
    """Return the folder of a cube's mag."""
    return os.path.dirname(os.path.dirname(os.path.dirname(path)))


def is_sound(path: str, dataset: WkwHeader) -> bool:
    """Return whether a cube was checked and has not changed since."""
    try:
        return _checked.get(path, os.stat(path), dataset.geometry) is not None
    except OSError:  # opening it says why
        return False


@contextmanager
def open_cube(path: str, dataset: WkwHeader) -> Iterator[OpenCube | None]:
    """Open a cube for the body of a ``with`` statement; see :func:`opened_cube`."""
    cube = opened_cube(path, dataset)
    try:
        yield cube
    finally:
        if cube is not None:
            cube.close()


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn the errors of the disk into those of a cube."""
    try:
        yield
    except DamagedCubeError:
        raise
    except PermissionError as error:
        raise CubePermissionError(f"the cube {path} cannot be opened: {error.strerror}") from error
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise DamagedCubeError(f"the cube {path} cannot be read: {error.strerror}") from error


def read_box(path: str, dataset: WkwHeader, box: BoundingBox, out: Voxels, place: Vec3Int) -> bool:
    """Read a box of a cube into its place in an array.

    Parameters
    ----------
    path
        The cube's file.
    dataset
        The mag's header.
    box
        Relative to the cube's corner, in voxels.
    out
        The array ``(c, x, y, z)``, Fortran-contiguous.
    place
        Where in it the box begins (x, y, z).

    Returns
    -------
    bool
        False if there is no such cube: nothing was read then.

    Raises
    ------
    DamagedCubeError
        If it is not a sound cube of this mag, became shorter while it was read, or the disk does not give it.
    """
    with open_cube(path, dataset) as cube:
        if cube is None:
            return False
        cube.read(box.topleft, box.bottomright, target_of(out), box.topleft - place)
    return True


def target_of(out: Voxels) -> BlockTarget:
    """Return an array ``(c, x, y, z)``, whose channels, then x, are contiguous, as what cubes are read into."""
    from wkdask.kernels import BlockTarget

    return BlockTarget.of(out, streamed=out.nbytes >= _STREAM_NBYTES)


def shrink_box(
    path: str, dataset: WkwHeader, box: BoundingBox, factors: Vec3Int, mode: str, out: Voxels
) -> bool:
    """Read a box of a cube and shrink it, block by block, while the blocks are in the caches.

    Parameters
    ----------
    path, dataset
        As for :func:`read_box`.
    box
        Relative to the cube's corner, in voxels, on the grid of the factors.
    factors, mode
        As for :func:`wkdask.kernels.downsample_blocks`; the side of a block is a multiple of the factors.
    out
        The array ``(c, *box.size // factors)``: channels, then x, are contiguous.

    Returns
    -------
    bool
        False if there is no such cube: nothing was read then.

    Raises
    ------
    DamagedCubeError
        As :func:`read_box`.
    """
    from wkdask.kernels import downsample_blocks

    def shrink(buffer: Voxels, codes: Voxels, side: int) -> None:
        places = _places(codes.tobytes())
        downsample_blocks(buffer, places, side, box.topleft, box.bottomright, factors, mode, out)

    return _read_blocks(path, dataset, box, shrink)


def _read_blocks(
    path: str, dataset: WkwHeader, box: BoundingBox, use: Callable[[Voxels, Voxels, int], None]
) -> bool:
    """Read the blocks of a box of a cube, batch by batch, and let each be used.

    Parameters
    ----------
    path, dataset, box
        As for :func:`read_box`.
    use
        Called with the blocks one after the other, their Morton numbers, and their side in voxels.

    Returns
    -------
    bool
        False if there is no such cube: nothing was read then.
    """
    with open_cube(path, dataset) as cube:
        if cube is None:
            return False
        for batch in batches(cube.header, box):
            cube.load(batch)
            use(batch.buffer, batch.codes, cube.header.block_len)
    return True


@lru_cache(maxsize=256)
def _places(codes: bytes) -> Voxels:
    """Return where blocks lie in a cube, of their Morton numbers."""
    from wkdask.kernels import morton_places

    return morton_places(np.frombuffer(codes, np.uint64))


def batches(header: WkwHeader, box: BoundingBox) -> Iterator[Batch]:
    """Yield the blocks of a box, batch by batch.

    Parameters
    ----------
    header
        The cube's.
    box
        Relative to the cube's corner, in voxels.
    """
    side, nbytes = header.block_len, header.block_nbytes
    cut = _batches(box.topleft // side, box.bottomright.ceildiv(side), nbytes)
    buffer = thread_buffer("plain", len(cut[0][0]) * nbytes)
    for codes, runs in cut:
        yield Batch(codes, runs, buffer[: len(codes) * nbytes])


def all_batches(header: WkwHeader) -> Iterator[Batch]:
    """Yield all blocks of a cube, batch by batch, in their order in the file; there may be millions."""
    nbytes, count = header.block_nbytes, header.num_blocks
    at_once = min(count, max(2, _BUFFER_NBYTES // nbytes))
    buffer = thread_buffer("plain", at_once * nbytes)
    for first in range(0, count, at_once):
        codes = np.arange(first, min(first + at_once, count), dtype=np.uint64)
        yield Batch(codes, np.array([[0, len(codes), first]]), buffer[: len(codes) * nbytes])


@lru_cache(maxsize=32)
def _batches(low: Vec3Int, high: Vec3Int, nbytes: int) -> list[tuple[Voxels, Voxels]]:
    """Return the blocks of a box, as they are read and placed together.

    Parameters
    ----------
    low, high
        The box in blocks of the cube.
    nbytes
        Bytes of a block.

    Returns
    -------
    list of (codes, runs)
        Morton numbers of the blocks of a batch; its runs, as in :class:`Batch`.
    """
    from wkdask.kernels import morton_numbers

    codes = morton_numbers(low, high)
    at_once = max(2, _BUFFER_NBYTES // nbytes)
    cut = []
    for start in range(0, codes.size, at_once):
        batch = codes[start : start + at_once]
        starts = np.append(0, np.flatnonzero(np.diff(batch) != 1) + 1)
        stops = np.append(starts[1:], batch.size)
        cut.append((batch, np.stack([starts, stops, batch[starts].astype(np.int64)], axis=1)))
    return cut


def thread_buffer(name: str, nbytes: int) -> Voxels:
    """Return a buffer of this thread, by its name; one that is unusually large is not kept."""
    kept: Voxels | None = getattr(_local, name, None)
    if kept is not None and kept.nbytes >= nbytes:
        return kept
    buffer = np.empty(max(nbytes, _BUFFER_NBYTES), np.uint8)
    if buffer.nbytes <= 4 * _BUFFER_NBYTES:
        setattr(_local, name, buffer)
    return buffer
