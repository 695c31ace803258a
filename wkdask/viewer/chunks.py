"""Decoded chunks of scales: made once, by whichever request comes first, and kept while there is room."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import OrderedDict
from concurrent.futures import Future

import numpy as np

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels
from wkdask.viewer.requests import HungUpError, raise_if_hung_up
from wkdask.viewer.scales import CHUNK, Scale

__all__ = ["ChunkCache"]

_Key = tuple[Scale, Vec3Int]


class ChunkCache:
    """Chunks by scale and place; the least recently used goes first.

    Parameters
    ----------
    max_nbytes
        Bytes of voxels that are kept. What is being made comes on top.
    """

    def __init__(self, max_nbytes: int) -> None:
        self.max_nbytes = max_nbytes
        self.nbytes = 0
        self._lock = threading.Lock()
        self._chunks: OrderedDict[_Key, tuple[str, Voxels]] = OrderedDict()
        self._running: dict[_Key, Future[Voxels]] = {}

    def chunk(self, scale: Scale, cell: Vec3Int, state: str | None = None) -> Voxels:
        """Return a chunk: out of the cache, if the cubes that it came from are as they were.

        Of several threads that ask for one chunk one makes it, and the others wait; if the browser that it is made
        for hangs up, one of the others makes it. A coarser chunk waits for finer ones and never the other way
        round, so that no two wait for each other.

        Parameters
        ----------
        scale
            The scale.
        cell
            Which chunk of it.
        state
            The state of its voxels, if the caller has just asked the scale for it.

        Raises
        ------
        HungUpError
            If the browser that this thread makes it for has hung up.
        """
        while True:
            raise_if_hung_up()
            with contextlib.suppress(HungUpError):
                return self._chunk((scale, cell), state)

    def _chunk(self, key: _Key, state: str | None) -> Voxels:
        """Return a chunk; raise HungUpError where the browser of this thread, or of the one that makes it, went."""
        scale, cell = key
        box = scale.cell_box(cell)
        if state is None:
            state = scale.state(box)
        with self._lock:
            found = self._chunks.get(key)
            if found is not None and found[0] == state:
                self._chunks.move_to_end(key)
                return found[1]
            running = self._running.get(key)
            if running is None:
                mine = self._running[key] = Future()
        if running is not None:
            return running.result()
        try:
            voxels = scale.compute(box, self.region)
        except BaseException as error:
            with self._lock:
                del self._running[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            self._keep(key, state, voxels)
        mine.set_result(voxels)
        return voxels

    def _keep(self, key: _Key, state: str, voxels: Voxels) -> None:
        self._drop(key)
        self._chunks[key] = (state, voxels)
        self.nbytes += voxels.nbytes
        while self.nbytes > self.max_nbytes:
            self._drop(next(iter(self._chunks)))

    def _drop(self, key: _Key) -> None:
        found = self._chunks.pop(key, None)
        if found is not None:
            self.nbytes -= found[1].nbytes

    def region(self, scale: Scale, box: BoundingBox) -> Voxels:
        """Return the voxels of a box within a scale, put together out of its chunks.

        Parameters
        ----------
        scale
            The scale.
        box
            Within the scale's box.
        """
        whole = np.empty((scale.num_channels, *box.size), scale.dtype, order="F")
        near, far = box.topleft - scale.box.topleft, box.bottomright - scale.box.topleft
        cells = [range(low, high) for low, high in zip(near // CHUNK, far.ceildiv(CHUNK), strict=True)]
        for cell in map(Vec3Int, *zip(*itertools.product(*cells), strict=True)):
            there = scale.cell_box(cell)
            part = there.intersection(box)
            voxels = self.chunk(scale, cell)
            from_chunk = (slice(None), *part.offset(-there.topleft).to_slices())
            whole[(slice(None), *part.offset(-box.topleft).to_slices())] = voxels[from_chunk]
        return whole

    def forget(self, scales: set[Scale]) -> None:
        """Drop the chunks of scales that are no longer shown."""
        with self._lock:
            for key in [key for key in self._chunks if key[0] in scales]:
                self._drop(key)
