"""Boxes of WKW cubes that are objects.

::

    RAW   header (16 bytes) ─> ranges of the blocks        the header once for each version of the cube
    LZ4   header, jump table ─> ranges of the blocks       the table as well
    all of a small cube: one request
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wkdask.errors import DamagedCubeError
from wkdask.geometry import BoundingBox
from wkdask.objects.reading import Part, read_object, read_range
from wkdask.storage.objects.pieces import WHOLE_NBYTES, Kept, Pieces
from wkdask.storage.protocol import Voxels
from wkdask.storage.wkw.blocks import OpenCube, batches
from wkdask.storage.wkw.format import HEADER_SIZE, RAW, WkwHeader, check_cube_file

if TYPE_CHECKING:
    from wkdask.kernels import BlockTarget

__all__ = ["FetchedCube", "fetch_cube", "forget_cube"]


@dataclass(frozen=True, slots=True)
class _Beginning:
    """What a cube's first bytes say."""

    version: Part
    """The request that gave them: every other one asks for the same version."""
    header: WkwHeader
    """The cube's own header."""
    ends: Voxels | None
    """Where each block ends; None for an uncompressed cube."""


_kept: Kept[_Beginning] = Kept()
"""Per process: the beginnings of cubes."""


class FetchedCube(OpenCube):
    """A part of a cube, whose bytes are in memory."""

    __slots__ = ("_pieces",)

    def __init__(self, header: WkwHeader, ends: Voxels | None, pieces: Pieces) -> None:
        super().__init__(pieces.url, -1, header, ends)
        self._pieces = pieces

    def read(
        self, low: Sequence[int], high: Sequence[int], target: BlockTarget, origin: Sequence[int]
    ) -> None:
        """Put a box into its place in an array; blocks that lie together in a piece are not copied before."""
        from wkdask.kernels import unpack_blocks

        nbytes = self.header.block_nbytes
        for batch in batches(self.header, BoundingBox.from_corners(low, high)):
            buffer = batch.buffer
            if self.ends is None and len(batch.runs) == 1:
                position = self.header.data_offset + int(batch.runs[0, 2]) * nbytes
                buffer = np.frombuffer(self._piece(position, len(batch.codes) * nbytes), np.uint8)
            else:
                self.load(batch)
            unpack_blocks(buffer, batch.codes, self.header.block_len, low, high, target, origin)

    def _piece(self, position: int, nbytes: int) -> memoryview:
        """Return bytes that were fetched."""
        data = self._pieces.read(position, nbytes)
        if len(data) != nbytes:
            raise DamagedCubeError(f"the cube {self.path} is damaged: it ends at byte {self._pieces.size}")
        return data

    def _read(self, target: Voxels, starts: Voxels, stops: Voxels, positions: Voxels) -> bool:
        """Fill parts of a buffer from the pieces."""
        for start, stop, position in zip(starts.tolist(), stops.tolist(), positions.tolist(), strict=True):
            target[start:stop] = np.frombuffer(self._piece(position, stop - start), np.uint8)
        return False

    def _unpack_again(self, number: int, position: int, packed: Voxels, out: Voxels) -> None:
        """Refuse a block that cannot be decompressed: the caller fetches the cube again."""
        raise DamagedCubeError(
            f"the cube {self.path} is damaged: its block {number} of {self.header.num_blocks} cannot be "
            f"decompressed"
        )


def forget_cube(url: str) -> None:
    """Read a cube's beginning anew when it is needed next."""
    _kept.forget(url)


def fetch_cube(url: str, dataset: WkwHeader, low: Sequence[int], high: Sequence[int]) -> FetchedCube | None:
    """Fetch what a box of a cube needs; None where there is no such object.

    Parameters
    ----------
    url
        The cube's object.
    dataset
        The mag's header.
    low, high
        The corners of the box, in voxels of the cube.

    Raises
    ------
    DamagedCubeError
        If it is not a sound cube of this mag.
    ChangedObjectError
        If it was replaced since its beginning was read.
    PermissionError, StoreError
        If the store does not give it.
    """
    side = dataset.block_len * dataset.file_len
    known = _kept.get(url, dataset.geometry)
    try:
        if known is None and not any(low) and tuple(high) == (side, side, side) and _is_small(dataset):
            part = read_object(url, _most_nbytes(dataset))
            pieces = Pieces.of(url, part)
            beginning = _beginning_in(pieces, part, dataset)
            return FetchedCube(beginning.header, beginning.ends, pieces)
        if known is None:
            known = _read_beginning(url, dataset)
    except FileNotFoundError:
        return None
    box = BoundingBox.from_corners(low, high)
    return FetchedCube(known.header, known.ends, Pieces.fetched(url, _ranges(known, box), known.version))


def _is_small(header: WkwHeader) -> bool:
    """Return whether a whole cube is fetched at once."""
    return header.num_blocks * header.block_nbytes <= WHOLE_NBYTES


def _most_nbytes(header: WkwHeader) -> int:
    """Return the bytes that a cube of a mag has at most, however it is compressed."""
    return 2 * header.num_blocks * (header.block_nbytes + 64) + HEADER_SIZE


def _read_beginning(url: str, dataset: WkwHeader) -> _Beginning:
    """Fetch a cube's header, with the jump table where the mag is compressed, and check it."""
    table = 0 if dataset.block_type == RAW else 8 * dataset.num_blocks
    part = read_range(url, 0, HEADER_SIZE + table)
    pieces = Pieces.of(url, part)
    try:
        own = WkwHeader.parse(bytes(pieces.read(0, HEADER_SIZE)))
    except ValueError as error:
        raise DamagedCubeError(f"the cube {url} is damaged: {error}") from None
    if own.block_type != RAW and not table and own.geometry == dataset.geometry:
        # A compressed cube in an uncompressed mag: each cube says how it is stored.
        part = read_range(url, 0, HEADER_SIZE + 8 * own.num_blocks, part)
        pieces = Pieces.of(url, part)
    beginning = _beginning_in(pieces, part, dataset)
    nbytes = 200 + (0 if beginning.ends is None else beginning.ends.nbytes)
    _kept.put(url, dataset.geometry, beginning, nbytes)
    return beginning


def _beginning_in(pieces: Pieces, part: Part, dataset: WkwHeader) -> _Beginning:
    """Check header, size and jump table in what was fetched."""

    def read(start: int, nbytes: int) -> bytes:
        return bytes(pieces.read(start, nbytes))

    header, ends = check_cube_file(pieces.url, read, part.size, dataset)
    return _Beginning(part.without_data(), header, ends)


def _ranges(known: _Beginning, box: BoundingBox) -> list[tuple[int, int]]:
    """Return where the blocks of a box lie in the object."""
    header, found = known.header, []
    for batch in batches(header, box):
        for start, stop, number in batch.runs.tolist():
            if known.ends is None:
                first = header.data_offset + number * header.block_nbytes
                last = first + (stop - start) * header.block_nbytes
            else:
                last_number = number + stop - start - 1
                first = int(known.ends[number - 1]) if number else header.data_offset
                last = int(known.ends[last_number])
            found.append((first, last))
    return found
