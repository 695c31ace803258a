"""How a mag is stored, in the words of version 4 of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, NormalizedBoundingBox, Vec3Int
from wkdask.jobs.job import MagPlace
from wkdask.names import DataFormat
from wkdask.storage.protocol import ArraySpec

__all__ = ["ArrayInfo", "info_of", "zarr_array_of"]


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """How a mag is stored.

    Examples
    --------
    >>> mag.info.data_format, mag.info.chunk_shape, mag.info.shard_shape, mag.info.compression
    (<DataFormat.WKW: 'wkw'>, Vec3Int(32,32,32), Vec3Int(32,32,32), None)
    """

    data_format: DataFormat
    """WKW, Zarr 3 or Zarr 2."""
    num_channels: int
    """Channels of a voxel."""
    voxel_type: np.dtype[Any]
    """Type of one channel."""
    chunk_shape: Vec3Int
    """Sides of a chunk, in voxels of the mag."""
    shard_shape: Vec3Int
    """Sides of a cube, in voxels of the mag."""
    bounding_box: NormalizedBoundingBox
    """Where the view is: absolute, in voxels of the mag, with the channels as an axis ``c``, and with
    further axes if there are any."""
    compression_mode: bool
    """Whether cubes are compressed."""
    compression: str | None
    """How."""

    @property
    def chunks_per_shard(self) -> Vec3Int:
        """Chunks along the sides of a cube."""
        return self.shard_shape // self.chunk_shape

    @property
    def ndim(self) -> int:
        """Axes of the array, those of `bounding_box`."""
        return len(self.bounding_box.axes)


def info_of(spec: ArraySpec, box: BoundingBox) -> ArrayInfo:
    """Return how a mag is stored, and where a view of it is."""
    return ArrayInfo(
        data_format=DataFormat(spec.data_format),
        num_channels=spec.num_channels,
        voxel_type=np.dtype(spec.dtype),
        chunk_shape=spec.chunk_shape,
        shard_shape=spec.shard_shape,
        bounding_box=box.normalize_axes(spec.num_channels),
        compression_mode=spec.compression is not None,
        compression=spec.compression,
    )


def zarr_array_of(place: MagPlace, *, read_only: bool) -> Any:
    """Return the array of a Zarr mag as zarr-python has it.

    Raises
    ------
    InvalidValueError
        If the mag is stored as WKW.
    """
    if place.store.spec.data_format == "wkw":
        raise InvalidValueError(f"{place.label} is stored as WKW, and is no Zarr array; use to_dask()")
    import zarr

    return zarr.open_array(place.store.path, mode="r" if read_only else "r+")
