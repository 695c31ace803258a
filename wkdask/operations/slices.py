"""Slice by slice, in and out, through buffers.

::

    send(slice) ─> buffer of 32 slices ─> private plain cubes ─(when the slices pass a cube's edge)─> published

A cube is published once, however many slices it has; what was sent is in memory for a buffer's length only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from functools import reduce
from types import TracebackType
from typing import Any

import numpy as np

from wkdask.errors import (
    AlignmentError,
    ChannelError,
    DTypeError,
    InvalidValueError,
    OutOfBoundsError,
    ReadOnlyError,
)
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.jobs.driver import finish_interrupted
from wkdask.jobs.engines.choice import LocalEngine
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import MagPlace
from wkdask.jobs.settlement import commit_box
from wkdask.jobs.tasks import PlaceReport
from wkdask.operations.inline import add_box, current_writes
from wkdask.operations.where import NOWHERE, Where
from wkdask.storage.protocol import MagReader, StoredMag, Voxels, check_coordinates
from wkdask.storage.publish.assemble import publish_parts
from wkdask.storage.publish.jobs import job_folder

__all__ = ["BufferedSliceWriter", "check_dimension", "check_first_slice", "read_slices"]


def check_dimension(dimension: int | str, buffer_size: int) -> int:
    """Return the number of an axis; refuse one that is none of x, y, z (0, 1, 2), and a buffer without room.

    Raises
    ------
    InvalidValueError
        If so.
    """
    axis = {"x": 0, "y": 1, "z": 2}.get(dimension, -1) if isinstance(dimension, str) else dimension
    if axis not in (0, 1, 2):
        raise InvalidValueError(f"dimension is 0, 1 or 2 (x, y or z), got {dimension!r}")
    if buffer_size < 1:
        raise InvalidValueError(f"a buffer holds at least one slice, got {buffer_size}")
    return axis


def check_first_slice(place: MagPlace, corner: Vec3Int, where: Where, allow_unaligned: bool | None) -> None:
    """Refuse slices that do not begin a cube, where version 4's words say their place, or a caller asks for that.

    Parameters
    ----------
    place
        The mag.
    corner
        The first voxel: absolute, in voxels of the mag.
    where
        How it was said where that is.
    allow_unaligned
        What the caller says.

    Raises
    ------
    AlignmentError
        If so.
    """
    shard = place.store.spec.shard_shape
    allowed = where == NOWHERE if allow_unaligned is None else allow_unaligned
    if not allowed and any(corner % shard):
        raise AlignmentError(
            f"{place.label}: slices from {corner} on do not begin at a cube of {shard}; allow_unaligned=True lets "
            f"parts of cubes be read and written anew; the nearest before is {corner // shard * shard}"
        )


def read_slices(store: MagReader, box: BoundingBox, buffer_size: int, dimension: int) -> Iterator[Voxels]:
    """Yield the slices of a box along an axis, reading `buffer_size` of them at a time.

    Parameters
    ----------
    store
        The mag.
    box
        Absolute, in voxels of the mag.
    buffer_size
        Slices that are read together.
    dimension
        0, 1 or 2: the slices are (c, y, z), (c, x, z) or (c, x, y).
    """
    step = list(box.size.pairmax(1))
    step[dimension] = buffer_size
    for part in box.chunk(step):
        block = store.read(part)
        if (writes := current_writes()) is not None:
            writes.overlay(store, part, block)
        for number in range(block.shape[dimension + 1]):
            yield block[(slice(None),) * (dimension + 1) + (number,)]


class BufferedSliceWriter:
    """Writes slices one after the other; used in a ``with`` statement.

    Made by :meth:`View.get_buffered_slice_writer`. Several writers, also in several processes, may write to
    disjoint boxes of one mag at once.

    Examples
    --------
    >>> with mag.get_buffered_slice_writer(offset=(0, 0, 40)) as writer:
    ...     writer.send(np.ones((64, 64), "uint8"))
    ...     writer.publish()                                # readers see it now
    ...     writer.reset_offset(absolute_offset=(0, 0, 50))
    ...     writer.send(np.ones((64, 64), "uint8"))
    >>> layer.bounding_box.bottomright.z
    51
    """

    def __init__(
        self,
        place: MagPlace,
        corner: Vec3Int,
        limits: BoundingBox | None,
        buffer_size: int,
        dimension: int | str,
        origin: Vec3Int,
    ) -> None:
        axis = check_dimension(dimension, buffer_size)
        if place.read_only is not None:
            raise ReadOnlyError(f"{place.label} is read-only: {place.read_only}")
        self._place = place
        self._corner = corner
        self._limits = limits
        self._buffer_size = buffer_size
        self._axis = axis
        self._origin = origin
        self._buffer: list[Voxels] = []
        self._sent = 0
        self._open = False
        self._stack = contextlib.ExitStack()
        self._folder: str | None = None
        self._staged: StoredMag | None = None
        self._waiting: dict[Vec3Int, list[BoundingBox]] = {}
        self._landed: PlaceReport | None = None
        self._min_max: tuple[Any, Any] | None = None
        self._start = time.perf_counter()
        self.report: WriteReport | None = None
        """What was written; set when the ``with`` block ends."""

    def __enter__(self) -> BufferedSliceWriter:
        if self._open or self._sent:
            raise InvalidValueError("a slice writer is used once; get another one")
        if current_writes() is None:
            store = self._place.store
            store.prepare(BoundingBox(self._corner, (1, 1, 1)))
            finish_interrupted(store, LocalEngine())
            with contextlib.ExitStack() as stack:
                self._folder = stack.enter_context(job_folder(store))
                self._staged = store.staged(f"{self._folder}/staged", raw=True)
                self._stack = stack.pop_all()
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with self._stack:
                if kind is None:
                    self._flush()
                    self._publish(list(self._waiting))
        finally:
            self._open = False
            self._commit()

    def publish(self) -> None:
        """Let readers see all that was sent so far.

        By default a writer publishes a cube once, when the slices have passed its edge or the ``with`` ends.
        A cube that is published before that is merged with what is sent later: a large one is then written anew for
        each of these calls.

        Raises
        ------
        InvalidValueError
            Outside of the ``with``, or inside a task, whose cubes are published once, when it ends.
        """
        if not self._open:
            raise InvalidValueError("a slice writer is used in a with statement")
        if current_writes() is not None:
            raise InvalidValueError("inside a task nothing is published before it ends: each cube once")
        self._flush()
        self._publish(list(self._waiting))
        self._commit()

    def reset_offset(
        self,
        relative_offset: Vec3IntLike | None = None,
        absolute_offset: Vec3IntLike | None = None,
        relative_bounding_box: BoundingBox | None = None,
        absolute_bounding_box: BoundingBox | None = None,
    ) -> None:
        """Write what was sent, and let the next slice begin elsewhere.

        Parameters
        ----------
        relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
            Where, by its corner: in voxels of mag 1; relative ones count from the view's corner. One of them.

        Raises
        ------
        InvalidValueError, AlignmentError
            If there is none or more than one, or it is not on this mag's voxel grid.
        """
        corners = [
            (relative, Vec3Int(given if not isinstance(given, BoundingBox) else given.topleft))
            for relative, given in (
                (True, relative_offset),
                (False, absolute_offset),
                (True, relative_bounding_box),
                (False, absolute_bounding_box),
            )
            if given is not None
        ]
        if len(corners) != 1:
            raise InvalidValueError(f"give one place for the next slice, got {len(corners)}")
        ((relative, corner),) = corners
        corner = BoundingBox(corner, (0, 0, 0)).in_mag(self._place.mag).topleft
        self._flush()
        self._publish(list(self._waiting))
        self._corner, self._sent = corner + (self._origin if relative else 0), 0

    def send(self, data: Voxels) -> None:
        """Take the next slice.

        Parameters
        ----------
        data
            ``(c, a, b)``, or ``(a, b)`` where there is one channel; a and b are the two axes that are not the
            writer's, in the order x, y, z. Slices of different sizes are padded with zeros within a buffer.
            The slice is copied: the array may be used again at once.

        Raises
        ------
        ChannelError, DTypeError, InvalidValueError
            If the slice does not fit the layer.
        """
        if not self._open:
            raise InvalidValueError("a slice writer is used in a with statement")
        spec = self._place.store.spec
        if isinstance(data, np.ma.MaskedArray):
            raise DTypeError("a masked array has no voxels behind its mask; fill it first (numpy.ma.filled)")
        block = np.array(data)
        if block.dtype != np.dtype(spec.dtype):
            raise DTypeError(f"{self._place.label} holds {spec.dtype}, the slice is {block.dtype}")
        if block.ndim == 2:
            block = block[None]
        if block.ndim != 3 or 0 in block.shape:
            raise InvalidValueError(f"a slice is (x, y) or (c, x, y) and not empty, got {np.shape(data)}")
        if block.shape[0] != spec.num_channels:
            raise ChannelError(
                f"{self._place.label} has {spec.num_channels} channel(s), the slice has {block.shape[0]}"
            )
        self._buffer.append(block)
        if len(self._buffer) == self._buffer_size:
            self._flush()

    def _flush(self) -> None:
        """Write the buffer into the private cubes, and publish the cubes that no later slice can touch."""
        if not self._buffer:
            return
        shape = tuple(max(block.shape[axis] for block in self._buffer) for axis in (1, 2))
        channels = self._place.store.spec.num_channels
        size = list(shape)
        size.insert(self._axis, len(self._buffer))
        out = np.zeros((channels, *size), self._place.store.spec.dtype, order="F")
        for number, block in enumerate(self._buffer):
            inner: list[Any] = [slice(None), *(slice(0, side) for side in block.shape[1:])]
            inner.insert(self._axis + 1, number)
            out[tuple(inner)] = block
        start = list(self._corner)
        start[self._axis] += self._sent
        box = BoundingBox(start, size)
        if self._limits is not None and not self._limits.contains_bbox(box):
            raise OutOfBoundsError(f"the slices {box} leave the view {self._limits}")
        check_coordinates(box, self._place.store.spec.shard_shape)
        self._sent += len(self._buffer)
        self._buffer = []
        self._put(out, box)

    def _put(self, block: Voxels, box: BoundingBox) -> None:
        """Hand a block on: to the task that runs here, or to the private cubes."""
        from wkdask.kernels import block_stats

        if (writes := current_writes()) is not None:
            writes.write(self._place, block, box)
            return
        if self._staged is None:
            raise InvalidValueError("the slice writer was opened inside a task and is used outside of it")
        low, high = block_stats(block)
        least, most = self._min_max or (low, high)
        self._min_max = (min(least, low), max(most, high))
        self._staged.write_in_place(box, block)
        for index, piece in self._place.store.spec.grid.pieces(box):
            add_box(self._waiting.setdefault(index, []), piece)
        position = box.bottomright[self._axis]
        shard = self._place.store.spec.shard_shape
        self._publish(
            [index for index in self._waiting if (index[self._axis] + 1) * shard[self._axis] <= position]
        )

    def _publish(self, indices: Iterable[Vec3Int]) -> None:
        """Publish cubes from the private mag and drop them there."""
        if self._staged is None or self._folder is None or self._min_max is None:
            return
        store, staged = self._place.store, self._staged
        for index in indices:
            boxes = self._waiting[index]  # several, where slices of different sizes were sent
            store.prepare(reduce(BoundingBox.extended_by, boxes))
            file_nbytes = publish_parts(store, staged, self._folder, index, boxes)
            nbytes = sum(box.volume() for box in boxes) * store.spec.bytes_per_voxel
            landed = PlaceReport(
                self._place.dataset_path, self._place.layer, self._place.mag,
                reduce(BoundingBox.extended_by, boxes), 1, nbytes, file_nbytes, *self._min_max,
            )  # fmt: skip
            self._landed = landed if self._landed is None else self._landed.merged(landed)
            del self._waiting[index]
            staged.drop_cube(index)

    def _commit(self) -> None:
        """Note in the properties what landed."""
        if self._landed is not None:
            seconds = time.perf_counter() - self._start
            self.report = commit_box(self._landed, self._place.store, seconds)
