"""Where data with axes beside c, x, y, z go: checked, and cut into positions along these axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Mag, Vec3Int, Vec3IntLike
from wkdask.geometry.axis_vectors import C_AXIS, XYZ_AXES, VecInt
from wkdask.geometry.nd_boxes import NDBoundingBox, NormalizedBoundingBox
from wkdask.properties.further_axes import further_axes_of
from wkdask.storage.zarr.plane import further_of

if TYPE_CHECKING:
    from wkdask.layer import Layer

__all__ = ["Position", "Target", "cxyz_of", "nd_box_of", "span_of", "turned"]

Position: TypeAlias = int | slice | tuple[int, int]
"""A position along a further axis; or the first one and the first one behind."""


def nd_box_of(layer: Layer, axes: tuple[str, ...]) -> NormalizedBoundingBox:
    """Return a layer's box along the dimensions of its arrays, in voxels of mag 1."""
    box, record = layer.record.bounding_box, layer.record
    spans = {axis: (low, n) for axis, low, n in zip(XYZ_AXES, box.topleft, box.size, strict=True)}
    spans[C_AXIS] = (0, layer.num_channels)
    spans |= {axis.name: (axis.low, axis.high - axis.low) for axis in further_axes_of(record)}
    return NormalizedBoundingBox([spans[axis][0] for axis in axes], [spans[axis][1] for axis in axes], axes)


def span_of(axis: str, position: Position, bounds: tuple[int, int]) -> tuple[int, int]:
    """Return (first, first behind) of what a user gave for a further axis."""
    if isinstance(position, slice):
        if position.step not in (None, 1):
            raise InvalidValueError(f"positions along {axis} are taken one after the other, got {position!r}")
        low, high = (
            default if value is None else value
            for value, default in zip((position.start, position.stop), bounds, strict=True)
        )
    elif isinstance(position, tuple | list):
        if len(position) != 2:
            raise InvalidValueError(
                f"{axis} is a position, or the first one and the first one behind; got {position!r}"
            )
        low, high = position
    else:
        low, high = position, position + 1
    first, behind = VecInt(low, high, axes=("low", "high"))  # integers, or an error
    if behind < first:
        raise InvalidValueError(f"{axis} ends before it begins: {position!r}")
    return first, behind


def _single(axes: tuple[str, ...], positions: Mapping[str, Position]) -> list[str]:
    """Return the further axes that are given one position."""
    return [axis for axis in further_of(axes) if isinstance(positions.get(axis), int | np.integer)]


def turned(array: Any, axes: tuple[str, ...], positions: Mapping[str, Position]) -> Any:
    """Return an array (further axes, c, x, y, z) along `axes`, without those that are given one position.

    Where all further axes are given one, it is (c, x, y, z).
    """
    further, single = further_of(axes), _single(axes, positions)
    if len(single) == len(further):
        return array[(0,) * len(further)]
    present = (*further, C_AXIS, *XYZ_AXES)
    wanted = [axis for axis in axes if axis not in single]
    array = array[tuple(0 if axis in single or axis not in axes else slice(None) for axis in present)]
    left = [axis for axis in present if axis in wanted]
    return array.transpose([left.index(axis) for axis in wanted])


def cxyz_of(array: Any, axes: tuple[str, ...], positions: Mapping[str, Position]) -> Any:
    """Return what `turned` returned, with one position along each further axis, as (c, x, y, z)."""
    further, single = further_of(axes), _single(axes, positions)
    if len(single) == len(further):
        return array
    left = [axis for axis in axes if axis not in single]
    array = array[tuple(0 if axis in further else slice(None) for axis in left)]
    left = [axis for axis in left if axis not in further]
    array = array.transpose([left.index(axis) for axis in (C_AXIS, *XYZ_AXES) if axis in left])
    return array if C_AXIS in left else array[None]


@dataclass(frozen=True, slots=True)
class Target:
    """A mag with further axes, as far as data are checked against it."""

    label: str
    """What it is called in messages."""
    axes: tuple[str, ...]
    """The dimensions of the stored array."""
    num_channels: int
    """Channels of a voxel."""
    bounds: Mapping[str, tuple[int, int]]
    """The bounds of each further axis."""
    mag: Mag
    """The magnification."""

    @property
    def further(self) -> tuple[str, ...]:
        """The axes beside c, x, y, z."""
        return further_of(self.axes)

    def planes_of(self, array: Any, single: Iterable[str]) -> Any:
        """Return data as (further axes, c, x, y, z).

        Parameters
        ----------
        array
            Along `axes`, without those of one position; or (c, x, y, z) where all further axes have one. Of one
            channel c may be missing.
        single
            The further axes of one position.

        Raises
        ------
        InvalidValueError
            If the data have other axes, or another number of channels.
        """
        single = set(single)
        axes = tuple(axis for axis in self.axes if axis not in single)
        if len(single) == len(self.further):
            axes = (C_AXIS, *XYZ_AXES)
        if array.ndim == len(axes) - 1 and C_AXIS in axes and self.num_channels == 1:
            axes = tuple(axis for axis in axes if axis != C_AXIS)
        if array.ndim != len(axes):
            raise InvalidValueError(
                f"{self.label}: data along {', '.join(axes)} are expected, got the shape {tuple(array.shape)}"
            )
        channels = dict(zip(axes, array.shape, strict=True)).get(C_AXIS, 1)
        if channels != self.num_channels:
            raise InvalidValueError(
                f"{self.label} has {self.num_channels} channels, the data have {channels}"
            )
        wanted = [*self.further, C_AXIS, *XYZ_AXES]
        array = array.transpose([axes.index(axis) for axis in wanted if axis in axes])
        return array[tuple(slice(None) if axis in axes else None for axis in wanted)]

    def spans(
        self, shape: tuple[int, ...], box: NDBoundingBox | BoundingBox | None, given: Mapping[str, Position]
    ) -> dict[str, tuple[int, int]]:
        """Return which positions along each further axis data of a shape (further axes, c, x, y, z) have.

        Raises
        ------
        InvalidValueError
            If an axis is given twice, or the data have another number of positions.
        """
        found = {}
        for axis, count in zip(self.further, shape, strict=False):
            low = self.bounds[axis][0]
            if box is not None and axis in box.axes:
                if axis in given:
                    raise InvalidValueError(f"{axis} is in the box and in the arguments; give it once")
                found[axis] = box.get_bounds(axis)
            elif axis in given:
                found[axis] = span_of(axis, given[axis], self.bounds[axis])
            else:
                found[axis] = (low, low + count)
            if found[axis][1] - found[axis][0] != count:
                raise InvalidValueError(
                    f"{self.label}: the data have {count} positions along {axis}, but {found[axis][0]} to "
                    f"{found[axis][1]} is to be written"
                )
        return found

    def corner(
        self, shape: tuple[int, ...], offset: Vec3IntLike | None, box: NDBoundingBox | BoundingBox | None
    ) -> Vec3Int | None:
        """Return the corner in voxels of mag 1 that data go to; None if none is given.

        Raises
        ------
        InvalidValueError
            If it is given twice, or the box has another size than the data.
        """
        if box is None:
            return None if offset is None else Vec3Int(offset)
        if offset is not None:
            raise InvalidValueError("a place is a box or an offset, not both")
        extent = Vec3Int(shape[-3:]) * self.mag.to_vec3_int()
        if extent != box.size_xyz:
            raise InvalidValueError(
                f"{self.label}: the data span {extent} voxels of mag 1, the box {box.size_xyz}"
            )
        return box.topleft_xyz
