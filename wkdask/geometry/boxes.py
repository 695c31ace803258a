"""Coordinates: frozen values of integers, without I/O.

Everything spatial is ``(x, y, z)``. A :class:`BoundingBox` does not know its magnification: a docstring
says whether it counts voxels of mag 1 (properties, every ``bounding_box=`` argument) or of a mag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from wkdask.errors import AlignmentError, InvalidValueError, OutOfBoundsError
from wkdask.geometry.axis_vectors import (
    C_AXIS,
    CXYZ_AXES,
    T_AXIS,
    TCXYZ_AXES,
    TXYZ_AXES,
    X_AXIS,
    XY_AXES,
    XYZ_AXES,
    Y_AXIS,
    Z_AXIS,
    VecInt,
    VecIntLike,
)
from wkdask.geometry.box_forms import BoxForms
from wkdask.geometry.nd_boxes import NDBoundingBox, NormalizedBoundingBox, register_plain_box
from wkdask.geometry.three_axes import ThreeAxes
from wkdask.geometry.vec3_float import Vec3Float, Vec3FloatLike
from wkdask.geometry.vectors import Mag, MagLike, Vec3Int, Vec3IntLike

__all__ = [
    "CXYZ_AXES",
    "C_AXIS",
    "EMPTY_BOX",
    "TCXYZ_AXES",
    "TXYZ_AXES",
    "T_AXIS",
    "XYZ_AXES",
    "XY_AXES",
    "X_AXIS",
    "Y_AXIS",
    "Z_AXIS",
    "BoundingBox",
    "Mag",
    "MagLike",
    "NDBoundingBox",
    "NormalizedBoundingBox",
    "Vec3Float",
    "Vec3FloatLike",
    "Vec3Int",
    "Vec3IntLike",
    "VecInt",
    "VecIntLike",
    "as_box",
]

COORDINATE_LIMIT = 2**32
"""wkw counts voxels in unsigned 32-bit integers; beyond them it wraps around silently."""


Color = tuple[float, float, float, float]
"""Red, green, blue, opacity, 0 to 1."""

UNNAMED = "Unnamed Bounding Box"
"""The name of a box that has none."""


@dataclass(frozen=True, slots=True, init=False)
class BoundingBox(ThreeAxes, BoxForms):
    """An axis-aligned box of voxels: `topleft` is inside, `bottomright` is the first voxel outside.

    Parameters
    ----------
    topleft
        The smallest corner (x, y, z); components may be negative.
    size
        The extent along each axis, none negative.
    axes, index
        What a box of further axes says of them; this one has x, y, z, numbered 1, 2, 3, and no others.
    name, is_visible, color
        How WEBKNOSSOS shows it in an annotation; boxes that differ only in this are equal.

    Raises
    ------
    InvalidValueError
        If a component is not an integer, a size is negative, or there are other axes.

    Examples
    --------
    A corner and a size; an index behind the box is not in it.

    >>> box = BoundingBox((10, 20, 0), (100, 50, 8))
    >>> box.bottomright, box.volume(), box.is_empty()
    (Vec3Int(110,70,8), 40000, False)
    >>> box == BoundingBox.from_corners((10, 20, 0), (110, 70, 8))
    True
    >>> box.contains((109, 69, 7)), box.contains_bbox(box.offset((1, 0, 0)))
    (True, False)

    Others made of it:

    >>> box.with_topleft((0, 0, 0)).with_size((5, 5, 5)), box.with_bottomright((20, 30, 1))
    (BoundingBox((0, 0, 0), (5, 5, 5)), BoundingBox((10, 20, 0), (10, 10, 1)))
    >>> box.with_bounds_x(0, 5).with_bounds_y(new_size_y=5).with_bounds_z(3)
    BoundingBox((0, 20, 3), (5, 5, 8))
    >>> box.extended_by(BoundingBox.empty()) == box
    True
    >>> box.intersection(box.offset((500, 0, 0))).is_empty()
    True
    >>> box.intersected_with(BoundingBox((0, 0, 0), (32, 32, 32)))
    BoundingBox((10, 20, 0), (22, 12, 8))

    In an annotation of WEBKNOSSOS:

    >>> box.with_name("soma").with_color((1, 0, 0, 1)).with_is_visible(False) == box
    True
    """

    topleft: Vec3Int
    """The smallest corner, inside the box."""
    size: Vec3Int
    """Voxels along each axis."""
    _shown: tuple[str | None, bool, Color | None] | None = field(compare=False)
    """Name, visibility and color; None as long as nothing is said of them."""

    def __init__(
        self,
        topleft: Vec3IntLike,
        size: Vec3IntLike,
        axes: Sequence[str] = XYZ_AXES,
        index: Vec3IntLike = (1, 2, 3),
        name: str | None = UNNAMED,
        is_visible: bool = True,
        color: Color | None = None,
    ) -> None:
        corner, extent = Vec3Int(topleft), Vec3Int(size)
        if not extent.is_positive():
            raise InvalidValueError(f"the size of a box cannot be negative, got {extent}")
        if axes is not XYZ_AXES and (tuple(axes) != XYZ_AXES or Vec3Int(index) != (1, 2, 3)):
            raise InvalidValueError(f"a BoundingBox has the axes x, y, z and no others, got {tuple(axes)}")
        shown = (
            None if name is UNNAMED and is_visible is True and color is None else (name, is_visible, color)
        )
        object.__setattr__(self, "topleft", corner)
        object.__setattr__(self, "size", extent)
        object.__setattr__(self, "_shown", shown)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickled, (tuple(self.topleft), tuple(self.size), self._shown))

    def _with(self, topleft: Vec3IntLike, size: Vec3IntLike) -> BoundingBox:
        """Return another box that is shown like this one."""
        return _unpickled(topleft, size, self._shown)

    # --- name and color -----------------------------------------------------------------------------

    @property
    def name(self) -> str | None:
        """The box's name in an annotation."""
        return UNNAMED if self._shown is None else self._shown[0]

    @property
    def is_visible(self) -> bool:
        """Whether an annotation shows the box."""
        return True if self._shown is None else self._shown[1]

    @property
    def color(self) -> Color | None:
        """Red, green, blue, opacity, 0 to 1; None leaves it to WEBKNOSSOS."""
        return None if self._shown is None else self._shown[2]

    def with_name(self, name: str | None) -> BoundingBox:
        """Return the box with another name."""
        return _unpickled(self.topleft, self.size, (name, self.is_visible, self.color))

    def with_is_visible(self, is_visible: bool) -> BoundingBox:
        """Return the box shown, or not."""
        return _unpickled(self.topleft, self.size, (self.name, is_visible, self.color))

    def with_color(self, color: Color) -> BoundingBox:
        """Return the box with another color: red, green, blue, opacity, 0 to 1."""
        return _unpickled(self.topleft, self.size, (self.name, self.is_visible, color))

    # --- boxes made of others ------------------------------------------------------------------------

    @classmethod
    def empty(cls) -> BoundingBox:
        """Return the box at the origin that holds no voxel."""
        return cls((0, 0, 0), (0, 0, 0))

    @classmethod
    def from_corners(cls, topleft: Vec3IntLike, bottomright: Vec3IntLike) -> BoundingBox:
        """Return the box between two corners; empty (size 0) along an axis where they cross."""
        corner = Vec3Int(topleft)
        return cls(corner, (Vec3Int(bottomright) - corner).pairmax(0))

    @property
    def bottomright(self) -> Vec3Int:
        """The first corner outside: ``topleft + size``."""
        return self.topleft + self.size

    def is_empty(self) -> bool:
        """Return whether the box holds no voxel."""
        return 0 in self.size

    def volume(self) -> int:
        """Return the number of voxels."""
        return self.size.prod()

    def with_topleft(self, new_topleft: Vec3IntLike) -> BoundingBox:
        """Return a box of the same size elsewhere."""
        return self._with(new_topleft, self.size)

    def with_size(self, new_size: Vec3IntLike) -> BoundingBox:
        """Return a box of another size at the same corner."""
        return self._with(self.topleft, new_size)

    def with_bottomright(self, new_bottomright: Vec3IntLike) -> BoundingBox:
        """Return a box with another far corner."""
        return self._with(self.topleft, Vec3Int(new_bottomright) - self.topleft)

    def with_bounds_x(self, new_topleft_x: int | None = None, new_size_x: int | None = None) -> BoundingBox:
        """Return a box with other bounds along x; what is not given stays."""
        return self.with_bounds("x", new_topleft_x, new_size_x)

    def with_bounds_y(self, new_topleft_y: int | None = None, new_size_y: int | None = None) -> BoundingBox:
        """Return a box with other bounds along y; what is not given stays."""
        return self.with_bounds("y", new_topleft_y, new_size_y)

    def with_bounds_z(self, new_topleft_z: int | None = None, new_size_z: int | None = None) -> BoundingBox:
        """Return a box with other bounds along z; what is not given stays."""
        return self.with_bounds("z", new_topleft_z, new_size_z)

    def offset(self, vector: Vec3IntLike) -> BoundingBox:
        """Return the box moved by a vector."""
        return self._with(self.topleft + vector, self.size)

    def padded_with_margins(
        self, margins_left: Vec3IntLike, margins_right: Vec3IntLike | None = None
    ) -> BoundingBox:
        """Return the box grown by margins on both sides (the right ones default to the left ones).

        Examples
        --------
        >>> BoundingBox((10, 10, 10), (4, 4, 4)).padded_with_margins((2, 2, 0), (5, 0, 0))
        BoundingBox((8, 8, 10), (11, 6, 4))
        """
        left = Vec3Int(margins_left)
        right = left if margins_right is None else Vec3Int(margins_right)
        return self._with(self.topleft - left, self.size + left + right)

    def extended_by(self, other: BoundingBox) -> BoundingBox:
        """Return the smallest box around both; an empty box adds nothing."""
        if other.__class__ is not BoundingBox:  # a box along any axes
            return other.extended_by(self)
        if self.is_empty():
            return other
        if other.is_empty():
            return self
        return BoundingBox.from_corners(
            self.topleft.pairmin(other.topleft), self.bottomright.pairmax(other.bottomright)
        )

    def intersection(self, other: BoundingBox) -> BoundingBox:
        """Return the common box, of size 0 where there is none."""
        (ax, ay, az), (aw, ah, ad) = self.topleft, self.size
        (bx, by, bz), (bw, bh, bd) = other.topleft, other.size
        x, y, z = max(ax, bx), max(ay, by), max(az, bz)
        width, height, depth = min(ax + aw, bx + bw) - x, min(ay + ah, by + bh) - y, min(az + ad, bz + bd) - z
        return BoundingBox(Vec3Int(x, y, z), Vec3Int(max(width, 0), max(height, 0), max(depth, 0)))

    def intersected_with(self, other: BoundingBox, dont_assert: bool = False) -> BoundingBox:
        """Return the common box.

        Raises
        ------
        OutOfBoundsError
            If the boxes have no common voxel, unless `dont_assert`.
        """
        if other.__class__ is not BoundingBox:  # a box along any axes
            return other.intersected_with(self, dont_assert)
        common = self.intersection(other)
        if common.is_empty() and not dont_assert:
            raise OutOfBoundsError(f"the boxes {self} and {other} have no voxel in common")
        return common

    def contains_bbox(self, inner_bbox: BoundingBox) -> bool:
        """Return whether no voxel of another box is outside."""
        if (
            inner_bbox.__class__ is not BoundingBox
        ):  # a box along any axes, which must be x, y, z and perhaps c
            inner_bbox = BoundingBox(inner_bbox.denormalize().topleft, inner_bbox.denormalize().size)
        return inner_bbox.is_empty() or self.intersection(inner_bbox) == inner_bbox

    def contains(self, coord: Sequence[float]) -> bool:
        """Return whether a point is inside."""
        return all(
            bool(low <= value < high)
            for low, value, high in zip(self.topleft, coord, self.bottomright, strict=True)
        )

    def aligned_outwards(self, step: Vec3IntLike) -> BoundingBox:
        """Return the smallest box around this one whose corners are multiples of `step`; empty stays empty.

        Examples
        --------
        >>> BoundingBox((10, 0, 0), (30, 8, 8)).aligned_outwards((32, 32, 8))
        BoundingBox((0, 0, 0), (64, 32, 8))
        """
        step = _step(step)
        corner = self.topleft // step * step
        end = self.bottomright.ceildiv(step) * step
        return BoundingBox(corner, tuple(n and b - a for n, a, b in zip(self.size, corner, end, strict=True)))

    def aligned_inwards(self, step: Vec3IntLike) -> BoundingBox:
        """Return the largest box inside this one whose corners are multiples of `step`.

        Examples
        --------
        >>> BoundingBox((10, 0, 0), (60, 64, 8)).aligned_inwards((32, 32, 8))
        BoundingBox((32, 0, 0), (32, 64, 8))
        """
        step = _step(step)
        return BoundingBox.from_corners(self.topleft.ceildiv(step) * step, self.bottomright // step * step)

    def align_with_mag(self, mag: MagLike, ceil: bool = False) -> BoundingBox:
        """Return the box, in voxels of mag 1, on the grid of a mag: inwards, or outwards with `ceil`.

        Examples
        --------
        >>> BoundingBox((3, 4, 5), (8, 8, 8)).align_with_mag("4-4-2", ceil=True)
        BoundingBox((0, 4, 4), (12, 8, 10))
        """
        step = Mag(mag).to_vec3_int()
        return self.aligned_outwards(step) if ceil else self.aligned_inwards(step)

    def in_mag(self, mag: MagLike) -> BoundingBox:
        """Return this box of mag-1 voxels counted in voxels of `mag`.

        Raises
        ------
        AlignmentError
            If a corner is not on the grid of that mag; the message names the nearest box that is.

        Examples
        --------
        >>> BoundingBox((8, 8, 4), (64, 64, 32)).in_mag("4-4-2")
        BoundingBox((2, 2, 2), (16, 16, 16))
        """
        step = Mag(mag).to_vec3_int()
        if any(self.topleft % step) or any(self.bottomright % step):
            raise AlignmentError(
                f"the box {self} (voxels of mag 1) is not on the voxel grid of mag {Mag(mag)}; "
                f"the nearest around it is {self.aligned_outwards(step)}"
            )
        return BoundingBox(self.topleft // step, self.size // step)

    def from_mag_to_mag1(self, from_mag: MagLike) -> BoundingBox:
        """Return this box of voxels of `from_mag` counted in voxels of mag 1.

        Examples
        --------
        >>> BoundingBox((2, 2, 2), (16, 16, 16)).from_mag_to_mag1("4-4-2")
        BoundingBox((8, 8, 4), (64, 64, 32))
        """
        step = Mag(from_mag).to_vec3_int()
        return BoundingBox(self.topleft * step, self.size * step)

    def chunk(
        self,
        chunk_shape: Vec3IntLike | None = None,
        chunk_border_alignments: Vec3IntLike | None = None,
        *,
        chunk_size: Vec3IntLike | None = None,
    ) -> Iterator[BoundingBox]:
        """Yield the pieces of the box, x slowest and z fastest.

        Parameters
        ----------
        chunk_shape
            The size of a piece; those at the border are clipped.
        chunk_border_alignments
            The pieces are cut at multiples of this; without it, from the box's own corner.
        chunk_size
            The 2021 spelling of `chunk_shape`.

        Raises
        ------
        InvalidValueError
            If a shape is not positive, or not a multiple of the alignment.

        Examples
        --------
        >>> for piece in BoundingBox((10, 0, 0), (60, 8, 8)).chunk((32, 8, 8), chunk_border_alignments=(32, 8, 8)):
        ...     print(piece)
        (10, 0, 0) + (22, 8, 8)
        (32, 0, 0) + (32, 8, 8)
        (64, 0, 0) + (6, 8, 8)
        """
        shape = _chunk_shape(chunk_shape, chunk_size)
        for corner in self.iter_chunk_toplefts(shape, chunk_border_alignments):
            yield BoundingBox(corner, shape).intersection(self)

    def iter_chunk_toplefts(
        self,
        chunk_shape: Vec3IntLike,
        chunk_border_alignments: Vec3IntLike | None = None,
        clip_to: BoundingBox | None = None,
    ) -> Iterator[tuple[int, int, int]]:
        """Yield where the pieces of the box begin, in their order, before they are clipped at its border.

        Parameters
        ----------
        chunk_shape, chunk_border_alignments
            As for :meth:`chunk`.
        clip_to
            Pass over pieces that have no voxel in common with this box.

        Examples
        --------
        >>> [*BoundingBox((10, 0, 0), (60, 8, 8)).iter_chunk_toplefts((32, 8, 8))]
        [(10, 0, 0), (42, 0, 0)]
        """
        shape = Vec3Int(chunk_shape)
        if not shape.is_positive(strictly=True):
            raise InvalidValueError(f"the shape of a chunk must be positive, got {shape}")
        start = self.topleft
        if chunk_border_alignments is not None:
            align = Vec3Int(chunk_border_alignments)
            if not align.is_positive(strictly=True) or any(shape % align):
                raise InvalidValueError(f"the chunk shape {shape} is not a multiple of the alignment {align}")
            start = start // align * align
        if self.is_empty():
            return
        end = self.bottomright
        for x in range(start.x, end.x, shape.x):
            for y in range(start.y, end.y, shape.y):
                for z in range(start.z, end.z, shape.z):
                    if clip_to is None or not BoundingBox((x, y, z), shape).intersection(clip_to).is_empty():
                        yield (x, y, z)

    def iter_chunk_starts(
        self, chunk_shape: Vec3IntLike, chunk_border_alignments: Vec3IntLike | None = None
    ) -> Iterator[tuple[int, int, int]]:
        """Yield where the pieces of the box begin; :meth:`iter_chunk_toplefts` without `clip_to`.

        Examples
        --------
        >>> [*BoundingBox((0, 0, 0), (4, 2, 2)).iter_chunk_starts((2, 2, 2))]
        [(0, 0, 0), (2, 0, 0)]
        """
        return self.iter_chunk_toplefts(chunk_shape, chunk_border_alignments)

    def iter_overlapping_grid_cells(
        self, cell_shape: Vec3IntLike, clip_to: BoundingBox | None = None
    ) -> Iterator[tuple[int, int, int]]:
        """Yield where the cells of a grid begin that have voxels of the box; the grid begins at the origin.

        Parameters
        ----------
        cell_shape
            The size of a cell.
        clip_to
            Pass over cells that have no voxel in common with this box.

        Examples
        --------
        >>> [*BoundingBox((3, 0, 0), (2, 1, 1)).iter_overlapping_grid_cells((4, 4, 4))]
        [(0, 0, 0), (4, 0, 0)]
        """
        return self.iter_chunk_toplefts(cell_shape, cell_shape, clip_to)

    @staticmethod
    def group_boxes_with_aligned_mag(
        bounding_boxes: Iterable[BoundingBox], aligning_mag: MagLike
    ) -> dict[BoundingBox, list[BoundingBox]]:
        """Return boxes grouped by what they become when they are aligned outwards to a mag.

        Examples
        --------
        >>> boxes = [BoundingBox((x, 0, 0), (1, 1, 1)) for x in (0, 3, 5)]
        >>> groups = BoundingBox.group_boxes_with_aligned_mag(boxes, 4)
        >>> {str(box): len(members) for box, members in groups.items()}
        {'(0, 0, 0) + (4, 4, 4)': 2, '(4, 0, 0) + (4, 4, 4)': 1}
        """
        groups: dict[BoundingBox, list[BoundingBox]] = {}
        for box in bounding_boxes:
            groups.setdefault(box.align_with_mag(aligning_mag, ceil=True), []).append(box)
        return groups

    def slice_array(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return what an array ``(x, y, z, …)``, whose first voxel is the origin, has in the box.

        Examples
        --------
        >>> BoundingBox((1, 0, 0), (2, 3, 1)).slice_array(np.zeros((8, 8, 8))).shape
        (2, 3, 1)
        """
        return array[self.to_slices()]

    def to_slices(self, offset: Vec3IntLike | None = None) -> tuple[slice, slice, slice]:
        """Return the slices (x, y, z) of the box in an array whose first voxel is at `offset`.

        Raises
        ------
        OutOfBoundsError
            If the box starts before the array; a negative slice would count from the array's end.

        Examples
        --------
        >>> BoundingBox((10, 20, 30), (2, 3, 4)).to_slices(offset=(10, 10, 10))
        (slice(0, 2, None), slice(10, 13, None), slice(20, 24, None))
        """
        corner = self.topleft - (Vec3Int(offset) if offset is not None else 0)
        if not (corner.is_positive() or self.is_empty()):
            first = tuple(self.topleft - corner)
            raise OutOfBoundsError(f"the box {self} starts before the array, whose first voxel is {first}")
        x, y, z = (slice(low, low + n) for low, n in zip(corner, self.size, strict=True))
        return (x, y, z)

    def to_slices_xyz(self) -> tuple[slice, slice, slice]:
        """Return the slices (x, y, z) in an array whose first voxel is the origin; as :meth:`to_slices`.

        Examples
        --------
        >>> BoundingBox((1, 0, 0), (2, 3, 4)).to_slices_xyz()
        (slice(1, 3, None), slice(0, 3, None), slice(0, 4, None))
        """
        return self.to_slices()

    def __repr__(self) -> str:
        return f"BoundingBox({tuple(self.topleft)}, {tuple(self.size)})"

    def __str__(self) -> str:
        return f"{tuple(self.topleft)} + {tuple(self.size)}"


def as_box(box: Any) -> BoundingBox:
    """Return what an argument ``bounding_box=`` means: a box (also one of further axes), or any form of one.

    Raises
    ------
    InvalidValueError
        If it is none.
    """
    return cast(BoundingBox, box) if isinstance(box, NDBoundingBox) else BoundingBox.from_auto(box)


def _step(step: Vec3IntLike) -> Vec3Int:
    """Return a step of a grid as a vector; refuse those that make no grid."""
    vec = Vec3Int(step)
    if not vec.is_positive(strictly=True):
        raise InvalidValueError(f"the step of a grid must be positive, got {vec}")
    return vec


register_plain_box(BoundingBox, BoundingBox)


def _unpickled(
    topleft: Vec3IntLike, size: Vec3IntLike, shown: tuple[str | None, bool, Color | None] | None
) -> BoundingBox:
    """Return a box and how it is shown."""
    if shown is None:
        return BoundingBox(topleft, size)
    name, is_visible, color = shown
    return BoundingBox(topleft, size, name=name, is_visible=is_visible, color=color)


def _chunk_shape(shape: Vec3IntLike | None, old: Vec3IntLike | None) -> Vec3Int:
    """Return the shape of chunks from either spelling."""
    if (shape is None) == (old is None):
        raise InvalidValueError("give either chunk_shape or its 2021 spelling chunk_size")
    return Vec3Int(old if shape is None else shape)


EMPTY_BOX = BoundingBox((0, 0, 0), (0, 0, 0))
"""The box of a layer that holds nothing yet."""
