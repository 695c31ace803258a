"""What boxes of any axes share: their parts along x, y, z, and grids there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self

import numpy as np

from wkdask.errors import AlignmentError, InvalidValueError
from wkdask.geometry.axis_vectors import C_AXIS, CXYZ_AXES, XYZ_AXES, VecInt, VecIntLike
from wkdask.geometry.vectors import Mag, MagLike, Vec3Int, Vec3IntLike

__all__ = [
    "AxesBox",
    "SpatialParts",
    "as_dict",
    "by_name",
    "check_flat",
    "in_axes",
    "parse_wkw_dict",
    "same_corners",
    "wkw_dict",
]


class AxesBox(Protocol):
    """A box along named axes."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes."""

    @property
    def topleft(self) -> Any:
        """The smallest corner."""

    @property
    def size(self) -> Any:
        """The extent."""

    @property
    def topleft_xyz(self) -> Vec3Int:
        """The smallest corner along x, y, z."""

    @property
    def size_xyz(self) -> Vec3Int:
        """The extent along x, y, z."""

    def get_shape(self, axis_name: str) -> int:
        """Return the extent along an axis."""

    def get_bounds(self, axis: str) -> tuple[int, int]:
        """Return the first position along an axis and the first one behind."""


class SpatialParts:
    """A box along any axes, seen along x, y and z."""

    __slots__ = ()
    topleft: VecInt
    size: VecInt
    index: VecInt

    def _with(self, **changes: Any) -> Self:
        raise NotImplementedError("a box says itself how it is changed")

    @property
    def topleft_xyz(self) -> Vec3Int:
        """The smallest corner along x, y, z."""
        return self.topleft.xyz

    @property
    def size_xyz(self) -> Vec3Int:
        """The extent along x, y, z."""
        return self.size.xyz

    @property
    def bottomright_xyz(self) -> Vec3Int:
        """The first corner outside along x, y, z."""
        return self.topleft.xyz + self.size.xyz

    @property
    def index_xyz(self) -> Vec3Int:
        """Which dimensions of a stored array x, y and z are."""
        return self.index.xyz

    def with_topleft_xyz(self, new_xyz: Vec3IntLike) -> Self:
        """Return a box of the same size elsewhere along x, y, z."""
        return self._with(topleft=self.topleft.with_xyz(new_xyz))

    def with_size_xyz(self, new_xyz: Vec3IntLike) -> Self:
        """Return a box of another size along x, y, z."""
        return self._with(size=self.size.with_xyz(new_xyz))

    def with_bottomright_xyz(self, new_xyz: Vec3IntLike) -> Self:
        """Return a box with another far corner along x, y, z."""
        return self.with_size_xyz(Vec3Int(new_xyz) - self.topleft.xyz)

    def padded_with_margins(self, margins_left: VecIntLike, margins_right: VecIntLike | None = None) -> Self:
        """Return the box grown by margins on both sides (right as left if not given).

        Parameters
        ----------
        margins_left, margins_right
            One per axis, a VecInt by its names; three for x, y, z only.
        """
        left = self._margins(margins_left)
        right = left if margins_right is None else self._margins(margins_right)
        return self._with(topleft=self.topleft - left, size=self.size + left + right)

    def _margins(self, margins: VecIntLike) -> VecInt:
        """Return margins along all axes; none along further ones where only x, y, z are given."""
        values = margins if type(margins) is VecInt else tuple(margins)
        axes = self.size.axes
        if len(values) == 3 and type(values) is not VecInt:
            known = dict(zip(XYZ_AXES, Vec3Int(values), strict=True))
            return VecInt([known.get(axis, 0) for axis in axes], axes=axes)
        return by_name(values, axes, "the margins")

    def align_with_mag(self, mag: MagLike | Vec3Int, ceil: bool = False) -> Self:
        """Return the box, in voxels of mag 1, on the grid of a mag: inwards, or outwards with `ceil`.

        Parameters
        ----------
        mag
            The mag; or the steps of any grid along x, y, z as a Vec3Int.
        ceil
            Whether to round outwards.
        """
        step = mag if isinstance(mag, Vec3Int) else Mag(mag).to_vec3_int()
        if not step.is_positive(strictly=True):
            raise InvalidValueError(f"the step of a grid must be positive, got {step}")
        low, high = self.topleft_xyz, self.bottomright_xyz
        corner = low // step * step if ceil else low.ceildiv(step) * step
        end = high.ceildiv(step) * step if ceil else high // step * step
        return self.with_topleft_xyz(corner).with_size_xyz((end - corner).pairmax(0))

    def in_mag(self, mag: MagLike) -> Self:
        """Return this box of mag-1 voxels counted in voxels of `mag` along x, y, z.

        Raises
        ------
        AlignmentError
            If a corner is not on the grid of that mag.
        """
        step = Mag(mag).to_vec3_int()
        if any(self.topleft_xyz % step) or any(self.bottomright_xyz % step):
            raise AlignmentError(
                f"the box {self} (voxels of mag 1) is not on the voxel grid of mag {Mag(mag)}; "
                f"the nearest around it is {self.align_with_mag(mag, ceil=True)}"
            )
        return self.with_topleft_xyz(self.topleft_xyz // step).with_size_xyz(self.size_xyz // step)

    def from_mag_to_mag1(self, from_mag: MagLike) -> Self:
        """Return this box of voxels of `from_mag` counted in voxels of mag 1 along x, y, z."""
        step = Mag(from_mag).to_vec3_int()
        return self.with_topleft_xyz(self.topleft_xyz * step).with_size_xyz(self.size_xyz * step)


def as_dict(values: Iterable[int], axes: Iterable[str]) -> dict[str, int]:
    """Return values by the names of axes."""
    return dict(zip(axes, values, strict=True))


def by_name(values: VecIntLike, axes: tuple[str, ...], what: str) -> VecInt:
    """Return values as a vector of these axes: by the names that a VecInt has, else one after the other."""
    if type(values) is VecInt:
        if set(values.axes) != set(axes):
            raise InvalidValueError(
                f"{what} has the axes {', '.join(values.axes)}, the box has {', '.join(axes)}"
            )
        return VecInt([values[axis] for axis in axes], axes=axes)
    found = list(values)
    if len(found) != len(axes):
        raise InvalidValueError(
            f"{what} {found!r} has {len(found)} components, the box has {', '.join(axes)}"
        )
    return VecInt(found, axes=axes)


def same_corners(box: AxesBox) -> tuple[Any, ...]:
    """Return what makes boxes equal."""
    return (tuple(box.topleft), tuple(box.size), tuple(box.axes))


def check_flat(box: AxesBox) -> None:
    """Raise InvalidValueError unless a box is flat along all axes but x, y and z."""
    thick = [axis for axis in box.axes if axis not in XYZ_AXES and box.get_shape(axis) != 1]
    if thick:
        raise InvalidValueError(
            f"the box must be flat along all axes but x, y, z; it has {box.get_shape(thick[0])} positions along "
            f"{thick[0]}: take one of them with with_bounds({thick[0]!r}, …, 1)"
        )


def in_axes(box: AxesBox, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array (x, y, z) or (c, x, y, z) with the axes of a flat box."""
    check_flat(box)
    if data.ndim not in (3, 4):
        raise InvalidValueError(
            f"an array (x, y, z) or (c, x, y, z) was expected, got one of shape {data.shape}"
        )
    spatial = [XYZ_AXES.index(axis) + data.ndim - 3 for axis in box.axes if axis in XYZ_AXES]
    turned = data.transpose([*range(data.ndim - 3), *spatial])
    shape: list[int] = []
    sizes = iter(turned.shape)
    for n, axis in enumerate(box.axes):
        if axis not in XYZ_AXES:
            shape.append(1)
            continue
        if not any(other in XYZ_AXES for other in box.axes[:n]) and data.ndim == 4:
            shape.append(next(sizes))  # channels before the first spatial axis
        shape.append(next(sizes))
    return turned.reshape(shape)


def wkw_dict(box: AxesBox, index: VecInt) -> dict[str, Any]:
    """Return a box as the properties file writes it; `index` says which dimension each axis is."""
    width, height, depth = box.size_xyz
    further = [axis for axis in box.axes if axis not in CXYZ_AXES]
    result: dict[str, Any] = {
        "topLeft": list(box.topleft_xyz),
        "width": width,
        "height": height,
        "depth": depth,
    }
    if further:
        result["additionalAxes"] = [
            {"name": axis, "bounds": list(box.get_bounds(axis)), "index": index[axis]} for axis in further
        ]
    result["axisOrder"] = {axis: index[axis] for axis in CXYZ_AXES if axis in box.axes}
    if C_AXIS in box.axes:
        first, last = box.get_bounds(C_AXIS)
        if first:
            result["channelIndex"] = first
        result["numChannels"] = last - first
    return result


def parse_wkw_dict(bbox: Mapping[str, Any]) -> tuple[list[int], list[int], list[str], list[int]]:
    """Return the corner, the size, the axes and their index of a box in the properties file's spelling.

    Raises
    ------
    InvalidValueError
        If a key is missing or holds something else.
    """
    order, further = bbox.get("axisOrder"), bbox.get("additionalAxes") or []
    if order is None:
        if further:
            raise InvalidValueError("a box with additionalAxes needs an axisOrder, which is missing")
        order = {axis: n for n, axis in enumerate(CXYZ_AXES)}
    try:
        lengths = ("width", "height", "depth")
        spans = {
            axis: (low, bbox[key]) for axis, low, key in zip(XYZ_AXES, bbox["topLeft"], lengths, strict=True)
        }
        if C_AXIS not in order and {order[axis] for axis in XYZ_AXES} == {1, 2, 3}:
            order = {C_AXIS: 0, **order}  # the place that is free is that of the channels
        if C_AXIS in order:
            spans[C_AXIS] = (
                bbox.get("channelIndex") or 0,
                1 if bbox.get("numChannels") is None else bbox["numChannels"],
            )
        places = {axis: order[axis] for axis in spans}
        for axis in further:
            low, high = axis["bounds"]
            spans[axis["name"]], places[axis["name"]] = (low, high - low), axis["index"]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidValueError(f"a box of a properties file was expected, got {bbox!r}: {error!r}") from None
    return (
        [low for low, _ in spans.values()],
        [n for _, n in spans.values()],
        list(spans),
        list(places.values()),
    )
