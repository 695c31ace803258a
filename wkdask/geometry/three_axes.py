"""What a box along x, y, z has in common with boxes along any axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from wkdask.errors import AxisNotFoundError, InvalidValueError
from wkdask.geometry.axis_vectors import CXYZ_AXES, XYZ_AXES, VecInt
from wkdask.geometry.box_axes import AxesBox, in_axes
from wkdask.geometry.nd_boxes import NormalizedBoundingBox
from wkdask.geometry.vectors import Vec3Int, Vec3IntLike

__all__ = ["ThreeAxes"]

_Kind = TypeVar("_Kind")


class ThreeAxes:
    """What a :class:`~wkdask.BoundingBox` shares with boxes of further axes.

    Examples
    --------
    >>> box = BoundingBox.from_axes("zyx", (6, 5, 4))
    >>> box, box.get_shape("z"), box.get_bounds("x")
    (BoundingBox((0, 0, 0), (4, 5, 6)), 6, (0, 4))
    >>> box.with_bounds("z", new_topleft=10)
    BoundingBox((0, 0, 10), (4, 5, 6))
    >>> box.with_topleft_xyz((1, 1, 1)).with_size_xyz((2, 2, 2)).with_bottomright_xyz((9, 9, 9))
    BoundingBox((1, 1, 1), (8, 8, 8))
    >>> box.normalize_axes(num_channels=3).size
    VecInt(3,4,5,6, axes=('c', 'x', 'y', 'z'))
    >>> BoundingBox.from_ndbbox(box.normalize_axes(1)) == box == box.denormalize()
    True
    >>> box.xyz_array_to_bbox_shape(np.zeros((4, 5, 6))).shape
    (4, 5, 6)
    """

    __slots__ = ()
    topleft: Vec3Int
    size: Vec3Int
    axes: ClassVar[tuple[str, ...]] = XYZ_AXES
    """The names of the axes."""
    index: ClassVar[Vec3Int] = Vec3Int(1, 2, 3)
    """Which dimensions of a stored array (c, x, y, z) the axes are."""
    index_xyz: ClassVar[Vec3Int] = Vec3Int(1, 2, 3)
    """The same."""
    ndim: ClassVar[int] = 3
    """The number of axes."""

    def __len__(self) -> int:
        return 3

    def _with(self, topleft: Vec3IntLike, size: Vec3IntLike) -> Self:
        raise NotImplementedError("a box says itself how it is changed")

    @property
    def topleft_xyz(self) -> Vec3Int:
        """The smallest corner."""
        return self.topleft

    @property
    def size_xyz(self) -> Vec3Int:
        """The extent."""
        return self.size

    @property
    def bottomright_xyz(self) -> Vec3Int:
        """The first corner outside."""
        return self.topleft + self.size

    @classmethod
    def from_axes(cls, axes: Iterable[str], sizes: Iterable[int]) -> Self:
        """Return the box from 0 along each of the axes x, y, z."""
        by_name = VecInt(tuple(sizes), axes=axes)
        if set(by_name.axes) != set(XYZ_AXES):
            raise InvalidValueError(f"a BoundingBox has the axes x, y, z; got {by_name.axes!r}")
        return _make(cls)(Vec3Int.full(0), by_name.xyz)

    @classmethod
    def from_ndbbox(cls, bbox: AxesBox) -> Self:
        """Return the box along x, y, z of one along any axes."""
        return _make(cls)(bbox.topleft_xyz, bbox.size_xyz)

    def get_shape(self, axis_name: str) -> int:
        """Return the extent along an axis; AxisNotFoundError for another than x, y, z."""
        return self.size[_place_of(axis_name)]

    def get_bounds(self, axis: str) -> tuple[int, int]:
        """Return the first position along an axis and the first one behind; AxisNotFoundError as `get_shape`."""
        place = _place_of(axis)
        return self.topleft[place], self.topleft[place] + self.size[place]

    def with_bounds(self, axis: str, new_topleft: int | None = None, new_size: int | None = None) -> Self:
        """Return a box with another corner or extent along one axis; AxisNotFoundError as `get_shape`."""
        place = _place_of(axis)
        corner, size = list(self.topleft), list(self.size)
        corner[place] = corner[place] if new_topleft is None else new_topleft
        size[place] = size[place] if new_size is None else new_size
        return self._with(corner, size)

    def with_topleft_xyz(self, new_xyz: Vec3IntLike) -> Self:
        """Return a box of the same size elsewhere."""
        return self._with(new_xyz, self.size)

    def with_size_xyz(self, new_xyz: Vec3IntLike) -> Self:
        """Return a box of another size at the same corner."""
        return self._with(self.topleft, new_xyz)

    def with_bottomright_xyz(self, new_xyz: Vec3IntLike) -> Self:
        """Return a box with another far corner."""
        return self._with(self.topleft, Vec3Int(new_xyz) - self.topleft)

    def xyz_array_to_bbox_shape(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return an array (x, y, z) or (c, x, y, z) as it is; refuse others."""
        in_axes(self, data)
        return data

    def normalize_axes(self, num_channels: int) -> NormalizedBoundingBox:
        """Return the box along c, x, y, z of a stored array with that many channels."""
        corner, size = (0, *self.topleft), (num_channels, *self.size)
        return NormalizedBoundingBox(corner, size, CXYZ_AXES)

    def denormalize(self) -> Self:
        """Return the box itself."""
        return self


def _make(kind: type[_Kind]) -> Callable[[Any, Any], _Kind]:
    """Return the class as what it is called with: a corner and a size."""
    made: Callable[[Any, Any], _Kind] = kind
    return made


def _place_of(axis: str) -> int:
    if axis not in XYZ_AXES:
        raise AxisNotFoundError(f"the box has no axis {axis!r}; it has x, y, z")
    return XYZ_AXES.index(axis)
