"""Reads boxes of a magnification again and again, as training does: random ones, in many processes."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.errors import DTypeError, InvalidValueError
from wkdask.geometry import BoundingBox, Mag, Vec3IntLike
from wkdask.operations.inline import current_writes
from wkdask.operations.where import Where
from wkdask.storage.protocol import ArraySpec, KeptReader, Voxels, empty_block
from wkdask.view.checks import checked_threads

if TYPE_CHECKING:
    from wkdask.view.box_view import BoxView

__all__ = ["BoxReader"]


class BoxReader:
    """Reads boxes of a magnification again and again, and keeps its cubes open meanwhile.

    Made by :meth:`MagView.open_reader` and :meth:`View.open_reader`. It believes the mag's header or metadata, and
    each cube once it was checked, as long as it is open. A cube that is replaced is noticed, and so is one that
    comes or goes: a box holds the voxels of before or of after, cube by cube.

    It may be used by many threads at once, after a fork, and pickled: every process opens the cubes for itself.
    Close it, or use it in a ``with`` statement.

    Examples
    --------
    >>> with mag.open_reader() as reader:
    ...     boxes = [reader.read((x, 0, 0), (16, 16, 16)) for x in (0, 10, 20)]
    >>> [int(box[0, 0, 0, 0]) for box in boxes]
    [0, 10, 20]
    >>> batch = np.empty((2, 1, 16, 16, 16), "uint8")       # (sample, c, x, y, z)
    >>> with mag.open_reader() as reader:
    ...     for sample, x in zip(batch, (0, 10)):
    ...         _ = reader.read((x, 0, 0), (16, 16, 16), out=sample)
    >>> batch[:, 0, 0, 0, 0]
    array([ 0, 10], dtype=uint8)
    """

    __slots__ = ("_is_closed", "_kept", "_lock", "_most_cubes", "_process", "_store", "_threads", "_view")

    def __init__(self, view: BoxView, most_cubes: int, threads: int) -> None:
        if isinstance(most_cubes, bool) or not isinstance(most_cubes, int) or most_cubes < 1:
            raise InvalidValueError(f"max_open_cubes is a number from 1 on, got {most_cubes!r}")
        self._view = view
        self._store = view.place.store
        self._most_cubes = most_cubes
        self._threads = checked_threads(threads)
        self._is_closed = False
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._kept: KeptReader | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        self._refuse_if_closed()
        return (BoxReader, (self._view, self._most_cubes, self._threads))

    def __enter__(self) -> BoxReader:
        self._refuse_if_closed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def spec(self) -> ArraySpec:
        """Type and cut of the mag."""
        return self._store.spec

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one channel."""
        return np.dtype(self.spec.dtype)

    @property
    def num_channels(self) -> int:
        """Channels of a voxel."""
        return self.spec.num_channels

    @property
    def mag(self) -> Mag:
        """The magnification."""
        return self._view.mag

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    def read(
        self,
        offset: Vec3IntLike | None = None,
        size: Vec3IntLike | None = None,
        *,
        bounding_box: BoundingBox | None = None,
        relative_offset: Vec3IntLike | None = None,
        absolute_offset: Vec3IntLike | None = None,
        relative_bounding_box: BoundingBox | None = None,
        absolute_bounding_box: BoundingBox | None = None,
        out: Voxels | None = None,
    ) -> Voxels:
        """Read voxels into one array.

        Parameters
        ----------
        offset, size
            As for the ``read`` of the view that the reader was opened from: in voxels of the mag, absolute for a
            MagView, relative to a View.
        bounding_box
            Instead of both: absolute, in voxels of mag 1.
        relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
            The same in version 4's words, all in voxels of mag 1, also the `size` that goes with an offset.
        out
            Gets the voxels: an array ``(c, x, y, z)`` of the box's size and the mag's type, in any order of memory.
            One whose channels, then x, are contiguous (Fortran order) is written to directly.

        Returns
        -------
        numpy.ndarray
            `out`; without it a new array ``(c, x, y, z)``, Fortran-ordered. Zeros where nothing was written.

        Raises
        ------
        InvalidValueError
            If the reader was closed, or `out` has another shape, or is read-only.
        DTypeError
            If `out` has another type.
        OutOfBoundsError, AlignmentError
            As the view's.
        DamagedCubeError, DamagedHeaderError
            If a cube exists but cannot be read, or the mag is gone.

        Examples
        --------
        >>> with mag.open_reader() as reader:
        ...     reader.read(bounding_box=BoundingBox((10, 20, 0), (2, 2, 1)))[0, :, :, 0]
        array([[30, 31],
               [31, 32]], dtype=uint8)
        """
        self._refuse_if_closed()
        where = Where(relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box)
        box = self._view.box_to_read(offset, size, bounding_box, where)
        if out is None:
            out = block = empty_block(self.spec, box)
        else:
            block = self._block_for(out, box)
        if not box.is_empty():
            self._reader().read(box, block, self._threads)
            if (writes := current_writes()) is not None:
                writes.overlay(self._store, box, block)
        if block is not out:
            from wkdask.kernels import to_fortran

            to_fortran(block, out=out)
        return out

    def _block_for(self, out: Voxels, box: BoundingBox) -> Voxels:
        """Return what is read into for a given array: itself, or one whose order of memory the formats write."""
        shape = (self.num_channels, *box.size)
        if not isinstance(out, np.ndarray) or out.shape != shape or not out.flags.writeable:
            given = (
                f"a read-only one of {out.shape}"
                if isinstance(out, np.ndarray) and out.shape == shape
                else out
            )
            raise InvalidValueError(
                f"out must be a writeable array (c, x, y, z) of {shape}, got {getattr(given, 'shape', given)}"
            )
        if out.dtype != self.dtype:
            raise DTypeError(f"out holds {out.dtype}, the mag {self.dtype}")
        from wkdask.kernels import takes_voxel_rows

        return out if takes_voxel_rows(out) else empty_block(self.spec, box)

    def _reader(self) -> KeptReader:
        """Return the open cubes of this process; those that a fork has copied belong to the parent."""
        kept = self._kept
        if kept is not None and self._process == os.getpid():
            return kept
        if self._process != os.getpid():
            self._lock, self._kept, self._process = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._kept is None:
                self._kept = self._store.kept_open(self._most_cubes)
            return self._kept

    def _refuse_if_closed(self) -> None:
        """Refuse what a closed reader cannot do."""
        if self._is_closed:
            raise InvalidValueError(f"the reader of {self._view.place.label} was closed; open another one")

    def close(self) -> None:
        """Close the cubes; the reader is of no more use. Closing it twice does nothing."""
        self._is_closed = True
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"up to {self._most_cubes} cubes open"
        return f"BoxReader({self._view.place.label}, {state})"
