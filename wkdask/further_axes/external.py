"""Zarr arrays with axes beside c, x, y, z whose positions along them are no folders: read by zarr-python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.errors import DamagedHeaderError
from wkdask.geometry import Vec3Int

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["ForeignArray"]


@dataclass(frozen=True, slots=True)
class ForeignArray:
    """An array of another program, as it is on disk now; read only.

    Raises
    ------
    DamagedHeaderError
        When it is read: if its metadata are damaged, or contradict the properties.
    """

    path: str
    """Its folder."""
    axes: tuple[str, ...]
    """The names of its dimensions."""
    dtype: str
    """numpy name of the type that the properties say."""
    num_channels: int
    """The channels that the properties say."""
    channel: int | None = None
    """The first of them in the array, where that may have more; None: it has these."""

    def _open(self) -> Any:
        import zarr

        try:
            array = zarr.open_array(self.path, mode="r")
        except Exception as error:  # zarr-python raises many kinds
            raise DamagedHeaderError(f"{self.path} cannot be opened as a Zarr array: {error}") from error
        channels = (
            array.shape[self.axes.index("c")] if "c" in self.axes and array.ndim == len(self.axes) else 1
        )
        if (
            array.ndim != len(self.axes)
            or array.dtype != np.dtype(self.dtype)
            or (channels != self.num_channels if self.channel is None else channels < self._channels[1])
        ):
            begin = "" if self.channel is None else f", from channel {self.channel} on,"
            raise DamagedHeaderError(
                f"{self.path} is an array of {array.dtype} and the shape {array.shape}, the properties say "
                f"{self.num_channels} channels of {self.dtype}{begin} along {', '.join(self.axes)}"
            )
        return array

    @property
    def _channels(self) -> tuple[int, int]:
        """Which channels of the array they are: the first one, and the first one behind."""
        first = self.channel or 0
        return first, first + self.num_channels

    def _inside(self, spans: Mapping[str, tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the span of each of the array's axes; of channels those that are the layer's."""
        first = self._channels[0]
        return [
            (spans[axis][0] + first, spans[axis][1] + first) if axis == "c" else spans[axis]
            for axis in self.axes
        ]

    def check(self) -> None:
        """Raise DamagedHeaderError unless it can be opened and agrees with the properties."""
        self._open()

    def cut(self) -> tuple[Vec3Int, Vec3Int, str | None]:
        """Return the sides of a chunk and of a file along x, y, z, and the name of the compression, if any."""
        array = self._open()
        chunk, shard = (
            Vec3Int(*(sides[self.axes.index(axis)] for axis in "xyz"))
            for sides in (array.chunks, array.shards or array.chunks)
        )
        for codec in array.compressors:
            name = getattr(codec, "codec_id", None) or type(codec).__name__.removesuffix("Codec").lower()
            return chunk, shard, str(name)
        return chunk, shard, None

    def read(self, spans: Mapping[str, tuple[int, int]], order: Sequence[str]) -> np.ndarray[Any, Any]:
        """Return what lies in a span of each axis, in voxels of the array, along `order`; zeros beyond the array.

        An axis of `order` that the array has not gets one position.
        """
        array = self._open()
        wanted = self._inside(spans)
        inside = [(min(low, n), min(high, n)) for (low, high), n in zip(wanted, array.shape, strict=True)]
        part = np.asarray(array[tuple(slice(low, high) for low, high in inside)])
        pads = [
            (0, (high - low) - (end - start))
            for (low, high), (start, end) in zip(wanted, inside, strict=True)
        ]
        found: np.ndarray[Any, Any] = _in_order(np.pad(part, pads), self.axes, order)
        return found

    def to_dask(self, spans: Mapping[str, tuple[int, int]], order: Sequence[str]) -> da.Array:
        """Return the same as a lazy dask array, whose blocks are the array's files."""
        import dask.array as da

        array = self._open()
        lazy = da.from_array(array, chunks=array.shards or array.chunks)
        wanted = self._inside(spans)
        pads = [(0, max(0, behind - n)) for (_, behind), n in zip(wanted, array.shape, strict=True)]
        if any(behind for _, behind in pads):
            lazy = da.pad(lazy, pads)
        return _in_order(lazy[tuple(slice(*span) for span in wanted)], self.axes, order)


def _in_order(array: Any, axes: Sequence[str], order: Sequence[str]) -> Any:
    array = array.transpose([axes.index(axis) for axis in order if axis in axes])
    return array[tuple(slice(None) if axis in axes else None for axis in order)]
