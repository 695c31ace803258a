"""Boxes along any axes: x, y, z and further ones such as t or c. Frozen values, without I/O.

:class:`NDBoundingBox` says itself where in a stored array each of its axes is (`index`). A
:class:`NormalizedBoundingBox` has the channels as an axis too, as a stored array has.
"""

from __future__ import annotations

import itertools
from abc import ABCMeta
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import numpy as np

from wkdask.errors import InvalidValueError, OutOfBoundsError
from wkdask.geometry.axis_vectors import C_AXIS, CXYZ_AXES, XYZ_AXES, VecInt, VecIntLike
from wkdask.geometry.box_axes import (
    AxesBox,
    SpatialParts,
    as_dict,
    by_name,
    check_flat,
    in_axes,
    parse_wkw_dict,
    same_corners,
    wkw_dict,
)
from wkdask.geometry.vectors import MagLike, Vec3Int, Vec3IntLike

__all__ = ["DEFAULT_BOX_NAME", "NDBoundingBox", "NormalizedBoundingBox", "register_plain_box"]

DEFAULT_BOX_NAME = "Unnamed Bounding Box"
Color: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class NDBoundingBox(SpatialParts, metaclass=ABCMeta):
    """A box along named axes: `topleft` is inside, `bottomright` is the first corner outside.

    A :class:`~wkdask.BoundingBox` counts as one, with the axes x, y, z. Boxes are equal where corner, size
    and axes are, whatever their index, name, visibility and colour.

    Parameters
    ----------
    topleft
        The smallest corner, one integer per axis. A VecInt goes by the names of its axes.
    size
        The extent along each axis. A negative one spans the voxels before `topleft`.
    axes
        The names of the axes, such as ``("t", "x", "y", "z")``.
    index
        Which dimension of a stored array each axis is; 0, 1, 2, … in the order of `axes` if not given. The box
        keeps its axes in this order.
    name, is_visible, color
        How the box is shown; `color` is red, green, blue and opacity from 0 to 1.

    Raises
    ------
    InvalidValueError
        If the arguments have not the same length, a component is not an integer, or an axis or an index
        appears twice.

    Examples
    --------
    >>> box = NDBoundingBox((0, 10, 20, 30), (7, 64, 64, 32), ("t", "x", "y", "z"))
    >>> box.with_bounds("t", 3, 1)
    NDBoundingBox(topleft=(3, 10, 20, 30), size=(1, 64, 64, 32), axes={'t': 0, 'x': 1, 'y': 2, 'z': 3})
    """

    topleft: VecInt
    """The smallest corner, inside the box."""
    size: VecInt
    """The extent along each axis, never negative."""
    axes: tuple[str, ...]
    """The names of the axes, sorted by `index`."""
    index: VecInt
    """Which dimension of a stored array each axis is."""
    name: str | None = DEFAULT_BOX_NAME
    """A name to show."""
    is_visible: bool = True
    """Whether the box is shown."""
    color: Color | None = None
    """Red, green, blue, opacity, from 0 to 1."""

    def __init__(
        self,
        topleft: VecIntLike,
        size: VecIntLike,
        axes: Iterable[str],
        index: VecIntLike | None = None,
        name: str | None = DEFAULT_BOX_NAME,
        is_visible: bool = True,
        color: Color | None = None,
    ) -> None:
        names = tuple(axes)
        corner, extent = by_name(topleft, names, "topleft"), by_name(size, names, "size")
        places = by_name(range(len(names)) if index is None else index, names, "index")
        if len(set(places)) != len(places):
            raise InvalidValueError(
                f"index says which dimension each axis is, but two of {places!r} are the same"
            )
        order = tuple(sorted(names, key=places.get))
        start = [min(corner[axis], corner[axis] + extent[axis]) for axis in order]
        for key, value in (
            ("topleft", VecInt(start, axes=order)),
            ("size", VecInt([abs(extent[axis]) for axis in order], axes=order)),
            ("axes", order),
            ("index", VecInt([places[axis] for axis in order], axes=order)),
            ("name", name),
            ("is_visible", is_visible),
            ("color", color),
        ):
            object.__setattr__(self, key, value)

    def __reduce__(self) -> tuple[Any, ...]:
        values = (self.topleft, self.size, self.axes, self.index, self.name, self.is_visible, self.color)
        return (type(self), values)

    @classmethod
    def from_axes(cls, axes: Iterable[str], sizes: Iterable[int]) -> Self:
        """Return the box from 0 along each axis."""
        names = tuple(axes)
        return cls(VecInt.zeros(names), tuple(sizes), names)

    # --- looking at one --------------------------------------------------------------------------------

    @property
    def bottomright(self) -> VecInt:
        """The first corner outside: ``topleft + size``."""
        return self.topleft + self.size

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.axes)

    def __len__(self) -> int:
        return len(self.axes)

    def get_shape(self, axis_name: str) -> int:
        """Return the extent along an axis; AxisNotFoundError where the box has none of that name."""
        return self.size.get(axis_name)

    def get_bounds(self, axis: str) -> tuple[int, int]:
        """Return the first position along an axis and the first one behind; AxisNotFoundError as `get_shape`."""
        low = self.topleft.get(axis)
        return low, low + self.size.get(axis)

    def is_empty(self) -> bool:
        """Return whether the box has no voxel."""
        return not self.size.is_positive(strictly_positive=True)

    def volume(self) -> int:
        """Return the product of the extents."""
        return self.size.prod()

    def contains(self, coord: VecIntLike) -> bool:
        """Return whether a point, one number per axis, is inside.

        Raises
        ------
        InvalidValueError
            If the point has another number of components.
        """
        point = [coord[axis] for axis in self.axes] if type(coord) is VecInt else list(coord)
        if len(point) != len(self):
            raise InvalidValueError(f"a point of this box has the axes {', '.join(self.axes)}; got {coord!r}")
        corners = zip(self.topleft, point, self.bottomright, strict=True)
        return all(bool(low <= value < high) for low, value, high in corners)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NDBoundingBox):
            return NotImplemented
        if isinstance(other, NormalizedBoundingBox) and not isinstance(self, NormalizedBoundingBox):
            other = other.denormalize()
        return same_corners(self) == same_corners(other)

    def __hash__(self) -> int:
        plain = self.denormalize()
        corner, size = tuple(plain.topleft), tuple(plain.size)
        return hash((corner, size) if plain.axes == XYZ_AXES else (corner, size, plain.axes))

    # --- others like it --------------------------------------------------------------------------------

    def with_topleft(self, new_topleft: VecIntLike) -> Self:
        """Return a box of the same size elsewhere."""
        return self._with(topleft=new_topleft)

    def with_size(self, new_size: VecIntLike) -> Self:
        """Return a box of another size at the same corner."""
        return self._with(size=new_size)

    def with_bottomright(self, new_bottomright: VecIntLike) -> Self:
        """Return a box with another far corner."""
        return self._with(size=by_name(new_bottomright, self.axes, "bottomright") - self.topleft)

    def with_index(self, new_index: VecIntLike) -> Self:
        """Return a box whose axes are other dimensions of a stored array."""
        return self._with(index=new_index)

    def with_index_xyz(self, new_xyz: Vec3IntLike) -> Self:
        """Return a box whose axes x, y and z are other dimensions of a stored array."""
        return self._with(index=self.index.with_xyz(new_xyz))

    def with_bounds(self, axis: str, new_topleft: int | None = None, new_size: int | None = None) -> Self:
        """Return a box with another corner or extent along one axis.

        Raises
        ------
        AxisNotFoundError
            If the box has no such axis.
        """
        low, high = self.get_bounds(axis)
        return self._with(
            topleft=self.topleft.with_replaced(axis, low if new_topleft is None else new_topleft),
            size=self.size.with_replaced(axis, high - low if new_size is None else new_size),
        )

    def with_name(self, name: str | None) -> Self:
        """Return a box of another name."""
        return self._with(name=name)

    def with_is_visible(self, is_visible: bool) -> Self:
        """Return a box that is shown, or not."""
        return self._with(is_visible=is_visible)

    def with_color(self, color: Color) -> Self:
        """Return a box of another colour."""
        return self._with(color=color)

    def offset(self, vector: VecIntLike) -> Self:
        """Return the box moved by a vector of all axes, or of x, y and z."""
        step = vector if isinstance(vector, VecInt) else tuple(vector)
        if len(step) == 3 and self.ndim != 3:
            return self.with_topleft_xyz(self.topleft_xyz + tuple(step))
        return self._with(topleft=self.topleft + by_name(step, self.axes, "vector"))

    def _with(self, **changes: Any) -> Self:
        return replace(self, **changes)

    # --- two boxes -------------------------------------------------------------------------------------

    def _fitting(self, other: AxesBox) -> NDBoundingBox:
        """Return another box as one of this one's kind, or raise InvalidValueError."""
        if isinstance(other, NormalizedBoundingBox) and not isinstance(self, NormalizedBoundingBox):
            other = other.denormalize()
        found = NDBoundingBox(other.topleft, other.size, other.axes)
        if found.axes != self.axes:
            raise InvalidValueError(
                f"boxes can be put together only where their axes are the same, in the same order: "
                f"{', '.join(self.axes)} and {', '.join(found.axes)}"
            )
        return found

    def extended_by(self, other: AxesBox) -> Self:
        """Return the smallest box around both; an empty box adds nothing.

        Raises
        ------
        InvalidValueError
            If the boxes have not the same axes in the same order.
        """
        box = self._fitting(other)
        if box.is_empty():
            return self
        if self.is_empty():
            return self._with(topleft=box.topleft, size=box.size)
        corner = self.topleft.pairmin(box.topleft)
        return self._with(topleft=corner, size=self.bottomright.pairmax(box.bottomright) - corner)

    def intersected_with(self, other: AxesBox, dont_assert: bool = False) -> Self:
        """Return the common box.

        Raises
        ------
        OutOfBoundsError
            If the boxes have no common voxel, unless `dont_assert`; the size is 0 there then.
        InvalidValueError
            If the boxes have not the same axes in the same order.
        """
        box = self._fitting(other)
        corner = self.topleft.pairmax(box.topleft)
        common = self._with(
            topleft=corner, size=(self.bottomright.pairmin(box.bottomright) - corner).pairmax(0)
        )
        if common.is_empty() and not dont_assert:
            raise OutOfBoundsError(f"the boxes {self} and {other} have no voxel in common")
        return common

    def contains_bbox(self, inner_bbox: AxesBox) -> bool:
        """Return whether a box of the same axes lies inside this one."""
        box = self._fitting(inner_bbox)
        common = self.intersected_with(box, dont_assert=True)
        return same_corners(common) == same_corners(box)

    # --- grids -----------------------------------------------------------------------------------------

    def _along_all(self, given: VecIntLike, what: str, channels: int = 1) -> VecInt:
        """Return a shape of all axes; one of x, y, z takes `channels` and 1 of each further axis."""
        values = given if type(given) is VecInt else tuple(given)
        if len(values) == 3 and type(values) is not VecInt:
            if self.ndim == 3 and set(self.axes) != set(XYZ_AXES) and type(given) is not Vec3Int:
                raise InvalidValueError(
                    f"{what} {values!r} is ambiguous for a box of the axes {', '.join(self.axes)}: "
                    f"name them, VecInt({', '.join(f'{axis}=…' for axis in self.axes)})"
                )
            known = {**dict(zip(XYZ_AXES, Vec3Int(values), strict=True)), C_AXIS: channels}
            values = VecInt([known.get(axis, 1) for axis in self.axes], axes=self.axes)
        shape = by_name(values, self.axes, what)
        if not shape.is_positive(strictly_positive=True):
            raise InvalidValueError(f"{what} must be positive along each axis, got {shape!r}")
        return shape

    def chunk(
        self, chunk_shape: VecIntLike, chunk_border_alignments: VecIntLike | None = None
    ) -> Iterator[Self]:
        """Yield the pieces of the box, the first axis slowest.

        Parameters
        ----------
        chunk_shape
            The size of a piece along all axes, or along x, y, z in this order (then all channels and one
            position of each further axis); pieces at the border are clipped. A VecInt goes by its names.
        chunk_border_alignments
            The pieces are cut at multiples of this; without it, from the box's own corner.

        Raises
        ------
        InvalidValueError
            If a shape is not positive, not a multiple of the alignment, or does not say which axes it is of.
        """
        shape = self._chunk_shape(chunk_shape)
        return self._pieces(self._starts(shape, chunk_border_alignments), shape)

    def _pieces(self, starts: Iterator[tuple[int, ...]], shape: VecInt) -> Iterator[Self]:
        for corner in starts:
            low = self.topleft.pairmax(corner)
            high = self.bottomright.pairmin(shape + corner)
            yield self._with(topleft=low, size=high - low)

    def iter_chunk_starts(
        self, chunk_shape: VecIntLike, chunk_border_alignments: VecIntLike | None = None
    ) -> Iterator[tuple[int, ...]]:
        """Yield where the pieces of :meth:`chunk` begin, in their order, before they are clipped at the border.

        Parameters
        ----------
        chunk_shape, chunk_border_alignments
            As for :meth:`chunk`.
        """
        return self._starts(self._chunk_shape(chunk_shape), chunk_border_alignments)

    def iter_overlapping_grid_cells(
        self, cell_shape: VecIntLike, clip_to: AxesBox | None = None
    ) -> Iterator[tuple[int, ...]]:
        """Yield where the cells of a grid begin that have voxels of the box; the grid begins at the origin.

        Parameters
        ----------
        cell_shape
            The size of a cell along all axes, or along x, y, z (then 1 along all others, channels too).
        clip_to
            Pass over cells that have no voxel in common with this box.
        """
        box = self if clip_to is None else self.intersected_with(clip_to, dont_assert=True)
        cell = self._along_all(cell_shape, "the shape of a cell")
        return box._starts(cell, cell)

    def _chunk_shape(self, chunk_shape: VecIntLike) -> VecInt:
        channels = max(1, self.get_shape(C_AXIS)) if C_AXIS in self.axes else 1
        return self._along_all(chunk_shape, "the shape of a chunk", channels)

    def _starts(self, shape: VecInt, alignments: VecIntLike | None) -> Iterator[tuple[int, ...]]:
        """Return an iterator over where pieces of a shape begin, the first axis slowest."""
        start = self.topleft
        if alignments is not None:
            align = self._along_all(alignments, "the alignment of chunks")
            if any(shape % align):
                raise InvalidValueError(
                    f"the chunk shape {shape!r} is not a multiple of the alignment {align!r}"
                )
            start = start // align * align
        if self.is_empty():
            return iter(())
        return itertools.product(*map(range, start, self.bottomright, shape))

    @classmethod
    def group_boxes_with_aligned_mag(
        cls, bounding_boxes: Iterable[NDBoundingBox], aligning_mag: MagLike
    ) -> dict[NDBoundingBox, list[NDBoundingBox]]:
        """Return the boxes in groups that are the same box aligned outwards to a mag, by that box."""
        groups: dict[NDBoundingBox, list[NDBoundingBox]] = {}
        for box in bounding_boxes:
            groups.setdefault(box.align_with_mag(aligning_mag, ceil=True), []).append(box)
        return groups

    # --- arrays and texts ------------------------------------------------------------------------------

    def to_slices(self) -> tuple[slice, ...]:
        """Return the slices of the box in an array whose dimensions are its axes."""
        return tuple(slice(low, high) for low, high in zip(self.topleft, self.bottomright, strict=True))

    def to_slices_xyz(self) -> tuple[slice, ...]:
        """Return `to_slices`, of a box that is flat along all axes but x, y and z.

        Raises
        ------
        InvalidValueError
            If it is not flat.
        """
        check_flat(self)
        return self.to_slices()

    def slice_array(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the part of an array, whose dimensions are the axes of the box, that lies in the box."""
        part: np.ndarray[Any, Any] = array[self.to_slices()]
        return part

    def xyz_array_to_bbox_shape(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return an array (x, y, z) or (c, x, y, z) with the axes of the box, which is flat along all others.

        Channels come before the first of x, y, z.

        Raises
        ------
        InvalidValueError
            If the box is not flat, or the array has neither 3 nor 4 dimensions.
        """
        return in_axes(self, data)

    def to_config_dict(self) -> dict[str, Any]:
        """Return ``{"topleft": […], "size": […], "axes": (…)}``."""
        return {"topleft": self.topleft.to_list(), "size": self.size.to_list(), "axes": self.axes}

    def to_checkpoint_name(self) -> str:
        """Return the corner and the size, joined by underscores."""
        return "_".join(map(str, (*self.topleft, *self.size)))

    # --- with channels ---------------------------------------------------------------------------------

    def normalize_axes(self, num_channels: int) -> NormalizedBoundingBox:
        """Return the box as one of a stored array, with its channels.

        Parameters
        ----------
        num_channels
            The extent along the axis c, which a box of more than one channel must have.

        Raises
        ------
        InvalidValueError
            If the box has no axis c for several channels.
        """
        values = (self.axes, self.index, self.name, self.is_visible, self.color)
        if C_AXIS not in self.axes:
            if num_channels != 1:
                raise InvalidValueError(
                    f"a box of {num_channels} channels needs the axis c, this one has {', '.join(self.axes)}"
                )
            return NormalizedBoundingBox(self.topleft, self.size, *values)
        return NormalizedBoundingBox(self.topleft, self.size.with_c(num_channels), *values)

    def denormalize(self) -> AxesBox:
        """Return the box itself."""
        return self

    def __repr__(self) -> str:
        axes = dict(zip(self.axes, self.index, strict=True))
        return f"{type(self).__name__}(topleft={tuple(self.topleft)}, size={tuple(self.size)}, axes={axes})"


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class NormalizedBoundingBox(NDBoundingBox):
    """A box of a stored array, whose channels are an axis too; a box without channels means all of them.

    Examples
    --------
    >>> box = BoundingBox((0, 0, 0), (64, 64, 32)).normalize_axes(num_channels=3)
    >>> isinstance(box, NormalizedBoundingBox), box.denormalize()
    (True, BoundingBox((0, 0, 0), (64, 64, 32)))
    """

    def denormalize(self) -> AxesBox:
        """Return a :class:`~wkdask.BoundingBox` where the axes are c, x, y, z, else an :class:`NDBoundingBox`."""
        if self.axes == CXYZ_AXES and tuple(self.index) == (0, 1, 2, 3):
            return _plain_box(self.topleft_xyz, self.size_xyz)
        values = (self.axes, self.index, self.name, self.is_visible, self.color)
        return NDBoundingBox(self.topleft, self.size, *values)

    def _fitting(self, other: AxesBox) -> NDBoundingBox:
        """Return another box with channels, those of this one where it has none, or raise InvalidValueError."""
        if not isinstance(other, NormalizedBoundingBox) and C_AXIS in self.axes and C_AXIS not in other.axes:
            corner, size = as_dict(other.topleft, other.axes), as_dict(other.size, other.axes)
            low, count = self.topleft.c, self.size.c
            axes = tuple(axis for axis in self.axes if axis == C_AXIS or axis in other.axes)
            if set(axes) == {C_AXIS, *other.axes}:
                other = NDBoundingBox(
                    VecInt([corner.get(axis, low) for axis in axes], axes=axes),
                    VecInt([size.get(axis, count) for axis in axes], axes=axes),
                    axes,
                )
        return super(NormalizedBoundingBox, self)._fitting(other)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, NDBoundingBox) and not isinstance(other, NormalizedBoundingBox):
            return same_corners(self.denormalize()) == same_corners(other)
        return NDBoundingBox.__eq__(self, other)

    __hash__ = NDBoundingBox.__hash__

    def to_wkw_dict(self) -> dict[str, Any]:
        """Return the box as the properties file writes it, with ``axisOrder`` and ``additionalAxes``.

        A box whose channels do not begin with the first has a ``channelIndex``.
        """
        return wkw_dict(self, self.index)

    @classmethod
    def from_wkw_dict(cls, bbox: Mapping[str, Any]) -> NormalizedBoundingBox:
        """Return the box of what `to_wkw_dict` returns, or of ``topLeft, width, height, depth``.

        Raises
        ------
        InvalidValueError
            If a key is missing or holds something else.
        """
        return cls(*parse_wkw_dict(bbox))


_plain_boxes: list[Callable[[Vec3Int, Vec3Int], AxesBox]] = []


def register_plain_box(kind: type[AxesBox], make: Callable[[Vec3Int, Vec3Int], AxesBox]) -> None:
    """Say which class is the box of the axes x, y, z: it comes in a module after this one, and counts as N-d."""
    _plain_boxes[:] = [make]
    NDBoundingBox.register(kind)


def _plain_box(topleft: Vec3Int, size: Vec3Int) -> AxesBox:
    return _plain_boxes[0](topleft, size)
