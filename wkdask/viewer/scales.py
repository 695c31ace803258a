"""What is served: layers, the resolutions that each has, and what a resolution's voxels come from.

All boxes are absolute and count voxels of the scale; all arrays are ``(c, x, y, z)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import Voxels

__all__ = ["CHUNK", "Region", "Scale", "ShownLayer", "extent_of", "middle_of", "sent_bytes", "served_dtype"]

CHUNK = Vec3Int(64, 64, 64)
"""Sides of a chunk that is served: 256 KiB of uint8, which a browser asks for dozens at a time."""

Region = Callable[["Scale", BoundingBox], Voxels]
"""Returns the voxels of a box of a scale, out of the chunks that are cached where it can."""


def _unchanged(_: BoundingBox) -> str:
    """Return the state of what stays as it is."""
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """One resolution of a layer."""

    name: str
    """Its mag, such as ``"2-2-1"``."""
    voxel: tuple[float, float, float]
    """Sides of a voxel in nm."""
    box: BoundingBox
    """Where there are voxels."""
    dtype: np.dtype[Any]
    """The type of its voxels."""
    num_channels: int
    """Channels of a voxel."""
    compute: Callable[[BoundingBox, Region], Voxels]
    """Returns the voxels of a box within `box`; may ask for those of another scale."""
    state: Callable[[BoundingBox], str] = _unchanged
    """Returns a text that is another one once the voxels of a box may have changed."""

    def cell_box(self, cell: Vec3Int) -> BoundingBox:
        """Return the box of a chunk: chunks are cut from the corner of the scale's box on, and end with it."""
        start = cell * CHUNK
        return BoundingBox(self.box.topleft + start, CHUNK.pairmin(self.box.size - start))

    @property
    def grid(self) -> Vec3Int:
        """Chunks along each axis."""
        return self.box.size.ceildiv(CHUNK)


@dataclass(frozen=True, slots=True, eq=False)
class ShownLayer:
    """A layer of the viewer."""

    name: str
    """Unique among those shown together."""
    is_segmentation: bool
    """Whether voxels are ids."""
    scales: tuple[Scale, ...]
    """The resolutions, finest first; at least one."""
    contrast: tuple[float, float] | None = None
    """The values shown as black and as white; None where they are not known, and of ids."""
    color: tuple[int, int, int] | None = None
    """What an image is multiplied by, red, green, blue, 0 to 255; None for grey."""
    notes: tuple[str, ...] = ()
    """What is said of it once: a type that is cast, a resolution that is approximate."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its voxels."""
        return self.scales[0].dtype

    @property
    def num_channels(self) -> int:
        """Channels of a voxel."""
        return self.scales[0].num_channels

    @property
    def box_nm(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The corners of the finest scale, in nm."""
        scale = self.scales[0]
        low, high = scale.box.topleft, scale.box.bottomright
        return (
            tuple(n * side for n, side in zip(low, scale.voxel, strict=True)),
            tuple(n * side for n, side in zip(high, scale.voxel, strict=True)),
        )


def served_dtype(dtype: np.dtype[Any], is_segmentation: bool) -> np.dtype[Any]:
    """Return the type in which voxels are sent: neuroglancer knows neither int64 nor float64.

    Examples
    --------
    >>> served_dtype(np.dtype("float64"), False), served_dtype(np.dtype("int64"), True)
    (dtype('float32'), dtype('uint64'))
    """
    if is_segmentation and dtype.kind != "u":
        return np.dtype(np.uint64)
    return np.dtype(np.float32) if dtype in (np.dtype(np.int64), np.dtype(np.float64)) else dtype


def sent_bytes(voxels: Voxels) -> memoryview:
    r"""Return the bytes of an array in C order, little-endian: without a copy if they lie so.

    Examples
    --------
    >>> sent_bytes(np.array([[1, 2], [3, 4]], ">u2")).tobytes()
    b'\x01\x00\x02\x00\x03\x00\x04\x00'
    """
    whole = np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("<"))
    return memoryview(whole.reshape(-1).view(np.uint8))


def middle_of(layers: tuple[ShownLayer, ...]) -> tuple[float, float, float]:
    """Return the middle of all layers that hold voxels, in nm."""
    boxes = [layer.box_nm for layer in layers if not layer.scales[0].box.is_empty()]
    if not boxes:
        return (0.0, 0.0, 0.0)
    low = [min(corner[axis] for corner, _ in boxes) for axis in range(3)]
    high = [max(corner[axis] for _, corner in boxes) for axis in range(3)]
    x, y, z = ((a + b) / 2 for a, b in zip(low, high, strict=True))
    return (x, y, z)


def extent_of(layers: tuple[ShownLayer, ...]) -> float:
    """Return the longest side of the box around all layers in the plane of x and y, in nm; at least 1."""
    boxes = [layer.box_nm for layer in layers if not layer.scales[0].box.is_empty()]
    sides = [high[axis] - low[axis] for low, high in boxes for axis in (0, 1)]
    return max([1.0, *(side for side in sides if math.isfinite(side))])
