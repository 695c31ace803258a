"""A box of a mag as numpy and dask take arrays: a shape, a type, an index, the conversion to an array."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from wkdask.arrays.lazy import LazySource
from wkdask.errors import InvalidValueError, PlanError
from wkdask.geometry import BoundingBox
from wkdask.jobs.job import MagPlace
from wkdask.storage.protocol import Voxels

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["ArrayLike", "as_array"]


class ArrayLike:
    """The part of a view that makes it an array ``(c, x, y, z)`` of the voxels in its box.

    Index ``[:, 0, 0, 0]`` is the corner of the box, as in the array of ``to_dask()``: ``box.topleft``, absolute, in
    voxels of this mag. The box of a mag is that of its layer.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        _place: MagPlace

        @property
        def box(self) -> BoundingBox: ...  # noqa: D102

        def read(self) -> Voxels: ...  # noqa: D102

        def to_dask(self) -> da.Array: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(c, x, y, z)``: channels, and the voxels of the box."""
        x, y, z = self.box.size
        return (self._place.store.spec.num_channels, x, y, z)

    @property
    def ndim(self) -> int:
        """Four."""
        return 4

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one channel."""
        return np.dtype(self._place.store.spec.dtype)

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Lengths of the blocks of ``to_dask()`` along each axis."""
        chunks: tuple[tuple[int, ...], ...] = self.to_dask().chunks
        return chunks

    def __getitem__(self, index: Any) -> Any:
        """Return the voxels of an index of integers, slices, lists and ``...``, counted from the corner of the box.

        Lists along several axes are combined as by :func:`numpy.ix_`. Only what lies between the smallest and the
        largest index along each axis is read.

        Examples
        --------
        >>> mag[0, 3:5, 4, 10]
        array([7, 8], dtype=uint8)
        """
        parts = list(index) if isinstance(index, tuple) else [index]
        dots = [number for number, part in enumerate(parts) if part is ...]
        if len(dots) > 1 or len(parts) - len(dots) > self.ndim or any(part is None for part in parts):
            raise IndexError(f"an index of (c, x, y, z) has at most four parts, and one '...'; got {index!r}")
        if dots:
            parts[dots[0] : dots[0] + 1] = [slice(None)] * (self.ndim + 1 - len(parts))
        return LazySource(self._place.store, self.box, "")[tuple(parts)]

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        self._refuse_assignment()

    def _refuse_assignment(self) -> NoReturn:
        """Say what to call instead of an assignment, or of dask's ``store``, which assigns block by block."""
        raise PlanError(
            f"{self._place.label} is not written by assignment, nor by dask's store: mag.write(array, offset) or "
            f"mag.write(array, bounding_box=...) does that as one job, for numpy and dask arrays; wkdask.store for "
            f"several arrays at once"
        )

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """Return all voxels of the box, read now; see numpy's rules for `dtype` and `copy`."""
        if copy is False:
            raise InvalidValueError(
                f"{self._place.label} lies in files: its voxels cannot be had without a copy"
            )
        block = self.read()
        return block if dtype is None or block.dtype == dtype else block.astype(dtype)

    def to_dask_array(self) -> da.Array:
        """Return ``to_dask()``, under the name by which ``dask.array.asarray`` asks for it.

        Examples
        --------
        >>> bool(da.asarray(mag).sum().compute() == mag.read().sum())
        True
        >>> mag.to_dask_array().shape
        (1, 64, 64, 32)
        """
        return self.to_dask()

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        # A graph is made, and nothing has been computed: dask's store shows the target here for the first time.
        frame = sys._getframe(1)
        for _ in range(_DEEPEST):
            if (frame.f_code.co_name, frame.f_globals.get("__name__")) == ("store", "dask.array.core"):
                self._refuse_assignment()
            if frame.f_back is None:
                break
            frame = frame.f_back
        store = self._place.store
        return (type(self).__name__, store.path, self.box.to_tuple6(), store.fingerprint(self.box))


def as_array(data: Any) -> Any:
    """Return what is to be written: of a view its lazy array, of anything else itself."""
    return data.to_dask() if isinstance(data, ArrayLike) else data


_DEEPEST = 60
"""Calls between dask's `store` and the token of its target, at most."""
