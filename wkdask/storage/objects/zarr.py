"""Regions of Zarr shards and chunks that are objects.

::

    sharded     index (the last bytes, or the first) ─> ranges of the chunks
    unsharded   the whole object
    all of a small shard: one request
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wkdask.objects.reading import Part, read_end, read_object, read_range
from wkdask.storage.objects.pieces import WHOLE_NBYTES, Kept, Pieces
from wkdask.storage.zarr.layout import ZarrLayout
from wkdask.storage.zarr.shard import ABSENT, CubeFile, Table, Touched, index_nbytes

__all__ = ["FetchedShard", "fetch_shard", "forget_shard"]

_MOST_CHUNK_NBYTES = 64 << 10
"""Bytes that encoding may add to a chunk."""


@dataclass(frozen=True, slots=True)
class _Index:
    """What the index of a shard says."""

    version: Part
    """The request that gave it: every other one asks for the same version."""
    table: Table
    """``(offset, length)`` of each chunk."""


_kept: Kept[_Index] = Kept()
"""Per process: the indexes of shards."""


class FetchedShard(CubeFile):
    """A part of a file of a Zarr array, whose bytes are in memory."""

    __slots__ = ("_pieces",)

    def __init__(self, layout: ZarrLayout, pieces: Pieces, table: Table | None = None) -> None:
        self.path = pieces.url
        self.layout = layout
        self._descriptor = -1
        self._size = pieces.size
        self._pieces = pieces
        self.identity = (0, 0, 0, 0, 0)
        self.sums = None
        self.table = self._checked_table() if table is None else table

    def _pread(self, nbytes: int, offset: int) -> bytes:
        """Return bytes that were fetched, or say that the object ends before."""
        data = bytes(self._pieces.read(offset, nbytes))
        if len(data) != nbytes:
            raise self.damaged(f"it ends at byte {self._size}")
        return data

    def decoded_again(self, n: int, error: OSError, scratch: object) -> np.ndarray:
        """Refuse a chunk that cannot be decoded: the caller fetches the shard again."""
        raise error


def forget_shard(url: str) -> None:
    """Read a shard's index anew when it is needed next."""
    _kept.forget(url)


def fetch_shard(url: str, layout: ZarrLayout, low: Sequence[int], high: Sequence[int]) -> FetchedShard | None:
    """Fetch what a region of a file needs; None where there is no such object.

    Parameters
    ----------
    url
        The object.
    layout
        The array's.
    low, high
        The corners (c, x, y, z) of the region, in voxels of the file.

    Raises
    ------
    DamagedCubeError
        If it is not a sound file of the array.
    ChangedObjectError
        If it was replaced since its index was read.
    PermissionError, StoreError
        If the store does not give it.
    """
    most = layout.num_chunks * (layout.chunk_nbytes + _MOST_CHUNK_NBYTES) + index_nbytes(layout)
    all_of_it = not any(low) and tuple(high) == tuple(layout.shard)
    small = layout.num_chunks * layout.chunk_nbytes <= WHOLE_NBYTES
    known = _kept.get(url, layout)
    try:
        if layout.sharding is None or (known is None and all_of_it and small):
            return FetchedShard(layout, Pieces.of(url, read_object(url, most)))
        if known is None:
            known = _read_index(url, layout)
    except FileNotFoundError:
        return None
    touched = Touched.of(layout, (low[0], low[1], low[2], low[3]), (high[0], high[1], high[2], high[3]))
    entries = known.table[touched.numbers]
    ranges = [(offset, offset + length) for offset, length in entries.tolist() if offset != ABSENT]
    return FetchedShard(layout, Pieces.fetched(url, ranges, known.version), known.table)


def _read_index(url: str, layout: ZarrLayout) -> _Index:
    """Fetch and check the index of a shard."""
    nbytes = index_nbytes(layout)
    at_end = layout.sharding is not None and layout.sharding.at_end
    part = read_end(url, nbytes) if at_end else read_range(url, 0, nbytes)
    table = FetchedShard(layout, Pieces.of(url, part)).table
    index = _Index(part.without_data(), table)
    _kept.put(url, layout, index, 200 + table.nbytes)
    return index
