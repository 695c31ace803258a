"""One cube file of a Zarr array: a shard of chunks with an index, or a single chunk.

::

    chunk | chunk | … | chunk | (offset, length) u64 per chunk | crc32c

A file is opened once per read, so that its index and its chunks belong together, whatever replaces it
meanwhile. Size and index are checked at every opening; each chunk must decode to exactly its size. With
`webknossos 4`'s order a chunk's bytes are those of a Fortran-ordered block: nothing is transposed.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wkdask.errors import CubePermissionError, DamagedCubeError
from wkdask.fsio import open_regular
from wkdask.storage.checksums import crc32c, find_sums, verifies
from wkdask.storage.open_cubes import CheckedFiles, identity_of
from wkdask.storage.protocol import Voxels
from wkdask.storage.rereads import fill, read_again
from wkdask.storage.zarr.codecs import Bytes, decode
from wkdask.storage.zarr.layout import ZarrLayout
from wkdask.storage.zarr.zstd import decompressor

__all__ = [
    "ABSENT",
    "Corner",
    "CubeFile",
    "Numbers",
    "Table",
    "Touched",
    "fill_of",
    "index_nbytes",
    "places_in_plain_file",
    "read_file",
    "region",
]

Corner: TypeAlias = "tuple[int, int, int, int]"
"""A place (c, x, y, z) in a file, in voxels."""
Numbers: TypeAlias = "npt.NDArray[np.int64]"
Table: TypeAlias = "npt.NDArray[np.uint64]"

ABSENT = 2**64 - 1
_RUN_NBYTES = 4 << 20
"""Neighbouring chunks are read together, up to so many bytes."""
_GAP_NBYTES = 64 << 10
"""What lies between two chunks is read too, rather than asking twice, up to so many bytes."""


_checked: CheckedFiles[Table] = CheckedFiles()
"""Per process: indexes of files, checked against the layouts of their mags."""


class CubeFile:
    """An open file, its size and index checked; closed by a ``with`` statement, or with its last reference."""

    __slots__ = ("_descriptor", "_size", "identity", "layout", "path", "sums", "table")

    def __init__(self, path: str, layout: ZarrLayout, descriptor: int, mag_path: str) -> None:
        self.path = path
        self.layout = layout
        self._descriptor = descriptor
        info = os.fstat(descriptor)
        self._size = info.st_size
        self.identity = identity_of(info)
        """What the file was when it was opened and checked."""
        self.sums = find_sums(mag_path, path, info) if verifies() else None
        """What its bytes are compared with; None where they are not."""
        table = _checked.get(path, info, layout)
        if table is None:
            table = self._checked_table()
            _checked.put(path, info, layout, table, table.nbytes)
        self.table = table
        """``(offset, length)`` of each chunk; the largest number twice where there is none."""

    @classmethod
    def open(cls, path: str, layout: ZarrLayout, mag_path: str) -> CubeFile | None:
        """Open a file; None where there is none.

        Raises
        ------
        DamagedCubeError
            If it is there and is no sound cube of the array, or the way to it is a link that leads nowhere.
        """
        descriptor = cls._descriptor_of(path, mag_path)
        if descriptor is None:
            return None
        try:
            return cls(path, layout, descriptor, mag_path)
        except DamagedCubeError as error:

            def again() -> CubeFile | None:  # network file systems ask for a file's size when it is opened
                other = cls._descriptor_of(path, mag_path)
                return None if other is None else cls(path, layout, other, mag_path)

            return read_again(path, error, again)

    @staticmethod
    def _descriptor_of(path: str, mag_path: str) -> int | None:
        """Open a file for :meth:`open`."""
        try:
            return open_regular(path)
        except FileNotFoundError:
            name = os.path.dirname(path)
            while len(name) > len(mag_path):
                if os.path.islink(name) and not os.path.exists(name):
                    raise DamagedCubeError(f"the cube {path}: {name} is a link that leads nowhere") from None
                name = os.path.dirname(name)
            return None
        except PermissionError as error:
            raise CubePermissionError(f"the cube {path} cannot be opened: {error.strerror}") from error
        except OSError as error:
            raise DamagedCubeError(f"the cube {path} cannot be opened: {error.strerror}") from error

    def __enter__(self) -> CubeFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the caller does not read from it afterwards."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def damaged(self, why: object) -> DamagedCubeError:
        """Return the error that names the file."""
        return DamagedCubeError(f"the cube {self.path} is damaged: {why}")

    def undecodable(self, n: int, data: bytes) -> DamagedCubeError:
        """Return the error of a chunk that could not be decoded, with the reason."""
        try:
            decode(self.layout.codecs, data, np.empty(self.layout.chunk_nbytes, np.uint8))
        except ValueError as error:
            return self.damaged(f"its chunk {n} cannot be decoded: {error}")
        return self.damaged(f"its chunk {n} could not be decoded; a second try could")

    def _checked_table(self) -> Table:
        """Return the index, once every entry leads to bytes of this file."""
        layout, size = self.layout, self._size
        if layout.sharding is None:
            table = np.array([[0, size]], np.uint64)
            low, high = 0, size
        else:
            nbytes = index_nbytes(layout)
            if size < nbytes:
                raise self.damaged(f"it has {size} bytes, its index alone has {nbytes}")
            low, high = (0, size - nbytes) if layout.sharding.at_end else (nbytes, size)
            data = self._pread(nbytes, high if layout.sharding.at_end else 0)
            if layout.sharding.checksum:
                stated = struct.unpack("<I", data[-4:])[0]
                data = data[:-4]
                if (found := crc32c(data)) != stated:
                    raise self.damaged(f"the checksum of its index is {found:08x}, it says {stated:08x}")
            table = np.frombuffer(data, "<u8").reshape(-1, 2)
        offset, length = table[:, 0], table[:, 1]
        present = offset != ABSENT
        sound = (offset >= low) & (offset <= high) & (length > 0) & (length <= high - offset)
        if not any(codec.compresses for codec in layout.codecs):
            sound &= length == layout.chunk_nbytes + 4 * len(layout.codecs)
        wrong = np.flatnonzero(np.where(present, ~sound, length != ABSENT))
        if wrong.size:
            n = int(wrong[0])
            raise self.damaged(
                f"its chunk {n} has {length[n]} bytes from byte {offset[n]} on, the file has {size}"
            )
        return table

    def _pread(self, nbytes: int, offset: int) -> bytes:
        """Read bytes that are there, or say so; compared with their checksums if they are to be."""
        if self.sums is not None:
            return self.sums.read(self._descriptor, self.path, offset, nbytes).tobytes()
        data = b""
        with contextlib.suppress(OSError):  # comes again below
            data = os.pread(self._descriptor, nbytes, offset)
        if len(data) == nbytes:
            return data
        rest = bytearray(nbytes - len(data))
        fill(self.path, self._descriptor, memoryview(rest), offset + len(data))
        return data + rest

    def has_all_places(self) -> bool:
        """Return whether it is laid out as by :func:`lay_out_file`: each chunk in its own place."""
        return bool(np.array_equal(self.table, places_in_plain_file(self.layout)))

    def batches(self, numbers: Numbers) -> Iterator[tuple[Numbers, Numbers, Bytes]]:
        """Yield (which of the chunks, ``(offset, length)`` of each in the bytes, bytes), of those that exist.

        The bytes are valid until the next ones are asked for.
        """
        chosen: list[Numbers] = []
        starts: list[int] = []
        data: list[bytes] = []
        nbytes = 0
        for run, start, part in self.runs(numbers):
            if nbytes and nbytes + len(part) > _RUN_NBYTES:
                yield self._joined(numbers, chosen, starts, data)
                chosen, starts, data, nbytes = [], [], [], 0
            chosen.append(run)
            starts.append(start - nbytes)
            data.append(part)
            nbytes += len(part)
        if data:
            yield self._joined(numbers, chosen, starts, data)

    def _joined(
        self, numbers: Numbers, runs: list[Numbers], starts: list[int], data: list[bytes]
    ) -> tuple[Numbers, Numbers, Bytes]:
        """Return runs as one: their chunks, where each lies in the bytes, and the bytes."""
        run = np.concatenate(runs)
        entries = self.table[numbers[run]].astype(np.int64)
        entries[:, 0] -= np.repeat(starts, [len(each) for each in runs])
        return run, entries, np.frombuffer(b"".join(data) if len(data) > 1 else data[0], np.uint8)

    def runs(self, numbers: Numbers) -> Iterator[tuple[Numbers, int, bytes]]:
        """Yield (which of the chunks, where they start in the file, its bytes there), of those that exist."""
        there = np.flatnonzero(self.table[numbers, 0] != ABSENT)
        there = there[np.argsort(self.table[numbers[there], 0], kind="stable")]
        first = start = stop = 0
        for k, (offset, length) in enumerate(self.table[numbers[there]].tolist()):
            if k > first and (offset > stop + _GAP_NBYTES or offset + length - start > _RUN_NBYTES):
                yield there[first:k], start, self._pread(stop - start, start)
                first = k
            if k == first:
                start = stop = offset
            stop = max(stop, offset + length)
        if there.size:
            yield there[first:], start, self._pread(stop - start, start)

    def encoded(self, numbers: Numbers) -> Iterator[tuple[int, memoryview]]:
        """Yield (which of the chunks, its bytes in the file) of those that exist, in the order of the file."""
        for run, start, data in self.runs(numbers):
            whole = memoryview(data)
            for k, (offset, length) in zip(run.tolist(), self.table[numbers[run]].tolist(), strict=True):
                yield k, whole[offset - start : offset - start + length]

    def decoded(self, numbers: Numbers) -> Iterator[tuple[int, Voxels]]:
        """Yield (which of the chunks, its voxels) of those that exist; valid until the next one is asked for."""
        scratch = np.empty(self.layout.chunk_nbytes, np.uint8)
        for k, data in self.encoded(numbers):
            try:
                voxels = self._decode(int(numbers[k]), data, scratch)
            except DamagedCubeError as error:
                voxels = self.decoded_again(int(numbers[k]), error, scratch)
            yield k, voxels

    def decoded_again(self, n: int, error: DamagedCubeError, scratch: Bytes) -> Voxels:
        """Return the voxels of a chunk that could not be decoded, read from the disk once more.

        Parameters
        ----------
        n
            The chunk.
        error
            What was wrong with it.
        scratch
            Room for its bytes.
        """
        offset, length = (int(number) for number in self.table[n])

        def read() -> Voxels:
            return self._decode(n, memoryview(self._pread(length, offset)), scratch)

        return read_again(self.path, error, read, (offset, length), self._descriptor)

    def _decode(self, n: int, data: memoryview, scratch: Bytes) -> Voxels:
        """Return the voxels of a chunk's bytes."""
        layout = self.layout
        flat = scratch
        if layout.codecs:
            try:
                decode(layout.codecs, data, scratch)
            except ValueError as error:
                raise self.damaged(f"its chunk {n} cannot be decoded: {error}") from None
        elif data.nbytes != scratch.nbytes:
            raise self.damaged(f"its chunk {n} has {data.nbytes} bytes, expected {scratch.nbytes}")
        else:
            flat = np.frombuffer(data, np.uint8)
        voxels: Voxels = layout.view(flat.view(layout.stored_dtype))
        return voxels


def index_nbytes(layout: ZarrLayout) -> int:
    """Return the bytes of the index of a shard."""
    if layout.sharding is None:
        return 0
    return 16 * layout.num_chunks + (4 if layout.sharding.checksum else 0)


@dataclass(frozen=True, slots=True)
class Touched:
    """The chunks that a region of a file touches, c fastest, then x: the order in which they lie in new files."""

    numbers: Numbers
    """Their numbers in the index."""
    inner: Numbers
    """``(n, 4)``: where in each chunk the common part starts."""
    outer: Numbers
    """``(n, 4)``: where in the region it starts."""
    size: Numbers
    """``(n, 4)``: its extent."""
    whole: npt.NDArray[np.bool_]
    """Whether it is the whole chunk."""

    @classmethod
    def of(cls, layout: ZarrLayout, low: Corner, high: Corner) -> Touched:
        """Return the chunks of the region [low, high)."""
        spans = []
        for side, start, stop in zip(layout.chunk, low, high, strict=True):
            place = np.arange(start // side, -(-stop // side))
            first = np.maximum(start, place * side)
            last = np.minimum(stop, (place + 1) * side)
            spans.append(np.stack([place, first - place * side, first - start, last - first], axis=1))
        left = np.arange(math.prod(map(len, spans)))  # of the chunks' places along c, x, y, z: those to come
        rows = np.empty((left.size, 4, 4), np.int64)
        for axis, span in enumerate(spans):
            rows[:, axis] = span[left % len(span)]
            left //= len(span)
        size = rows[:, :, 3]
        return cls(
            rows[:, :, 0] @ _weights(layout),
            rows[:, :, 1],
            rows[:, :, 2],
            size,
            (size == layout.chunk).all(1),
        )

    def slices(self, k: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return the common part of chunk and region, in the chunk and in the region."""
        spans = zip(self.inner[k].tolist(), self.outer[k].tolist(), self.size[k].tolist(), strict=True)
        pairs = [(slice(a, a + n), slice(b, b + n)) for a, b, n in spans]
        inner, outer = zip(*pairs, strict=True)
        return inner, outer


@functools.lru_cache(maxsize=64)
def _weights(layout: ZarrLayout) -> Numbers:
    """Return by how much the number of a chunk grows from one place to the next along c, x, y, z."""
    return np.array([layout.number_of([int(n == axis) for n in range(4)]) for axis in range(4)])


def read_file(file: CubeFile, low: Corner, high: Corner, out: Voxels) -> None:
    """Read the region [low, high) of a file into an array of its size; missing chunks hold the fill value."""
    touched = Touched.of(file.layout, low, high)
    if not _unpack(file, touched, out):
        for k, chunk in file.decoded(touched.numbers):
            inner, outer = touched.slices(k)
            np.copyto(out[outer], chunk[inner])
    fill = fill_of(file.layout)
    for k in np.flatnonzero(file.table[touched.numbers, 0] == ABSENT).tolist():
        out[touched.slices(k)[1]] = fill


def _unpack(file: CubeFile, touched: Touched, out: Voxels) -> bool:
    """Read chunks many at a time, where they are stored as webknossos does; False where they are not."""
    from wkdask.kernels.chunks import can_pack, unpack_chunks

    layout = file.layout
    context = decompressor() if layout.is_packed and out.shape[0] == layout.chunk[0] else None
    if context is None or not can_pack(out):
        return False
    regions = np.empty((len(touched.numbers), 9), np.int64)
    regions[:, 0:6:2] = touched.inner[:, 1:]
    regions[:, 1:6:2] = touched.size[:, 1:]
    regions[:, 6:] = touched.outer[:, 1:]
    for run, entries, data in file.batches(touched.numbers):
        done = unpack_chunks(data, entries, regions[run], layout.chunk[1:], context, out)
        while done < len(run):
            (offset, length), k = entries[done], int(run[done])
            n = int(touched.numbers[k])
            error = file.undecodable(n, data[offset : offset + length].tobytes())
            inner, outer = touched.slices(k)
            np.copyto(
                out[outer], file.decoded_again(n, error, np.empty(layout.chunk_nbytes, np.uint8))[inner]
            )
            done += 1
            if done < len(run):
                done += unpack_chunks(
                    data, entries[done:], regions[run[done:]], layout.chunk[1:], context, out
                )
    return True


def fill_of(layout: ZarrLayout) -> Any:
    """Return what voxels that are not stored are."""
    return np.frombuffer(layout.fill, layout.dtype)[0] if layout.fill else 0


def places_in_plain_file(layout: ZarrLayout) -> Table:
    """Return the index of a plain file in which every chunk has its place, whether it was written or not."""
    offsets = np.arange(layout.num_chunks, dtype=np.uint64) * np.uint64(layout.chunk_nbytes)
    return np.stack([offsets, np.full_like(offsets, layout.chunk_nbytes)], axis=1)


def region(corner: Sequence[int], size: Sequence[int], channels: tuple[int, int]) -> tuple[Corner, Corner]:
    """Return the corners [low, high) of a box in a file, with its channels."""
    x, y, z = corner
    nx, ny, nz = size
    return (channels[0], x, y, z), (channels[1], x + nx, y + ny, z + nz)
