"""Coordinates: frozen values of integers, without I/O.

Everything spatial is ``(x, y, z)``. A :class:`BoundingBox` does not know its magnification: a docstring
says whether it counts voxels of mag 1 (properties, every ``bounding_box=`` argument) or of a mag.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wkdask.axis_vectors import (
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
from wkdask.errors import AlignmentError, InvalidValueError, OutOfBoundsError
from wkdask.nd_geometry import NDBoundingBox, NormalizedBoundingBox, register_plain_box
from wkdask.three_axes import ThreeAxes
from wkdask.vec3_float import Vec3Float, Vec3FloatLike
from wkdask.vectors import Mag, MagLike, Vec3Int, Vec3IntLike

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
]

COORDINATE_LIMIT = 2**32
"""wkw counts voxels in unsigned 32-bit integers; beyond them it wraps around silently."""


@dataclass(frozen=True, slots=True, init=False)
class BoundingBox(ThreeAxes):
    """An axis-aligned box of voxels: `topleft` is inside, `bottomright` is the first voxel outside.

    Parameters
    ----------
    topleft
        The smallest corner (x, y, z); components may be negative.
    size
        The extent along each axis, none negative.

    Raises
    ------
    InvalidValueError
        If a component is not an integer or a size is negative.
    """

    topleft: Vec3Int
    """The smallest corner, inside the box."""
    size: Vec3Int
    """Voxels along each axis."""

    def __init__(self, topleft: Vec3IntLike, size: Vec3IntLike) -> None:
        corner, extent = Vec3Int(topleft), Vec3Int(size)
        if not extent.is_positive():
            raise InvalidValueError(f"the size of a box cannot be negative, got {extent}")
        object.__setattr__(self, "topleft", corner)
        object.__setattr__(self, "size", extent)

    def __reduce__(self) -> tuple[Any, ...]:
        return (BoundingBox, (tuple(self.topleft), tuple(self.size)))

    @classmethod
    def from_corners(cls, topleft: Vec3IntLike, bottomright: Vec3IntLike) -> BoundingBox:
        """Return the box between two corners; empty (size 0) along an axis where they cross."""
        corner = Vec3Int(topleft)
        return cls(corner, (Vec3Int(bottomright) - corner).pairmax(0))

    @classmethod
    def from_wkw_dict(cls, box: dict[str, Any]) -> BoundingBox:
        """Return the box of ``{"topLeft": [x, y, z], "width": …, "height": …, "depth": …}``."""
        return cls(box["topLeft"], (box["width"], box["height"], box["depth"]))

    def to_wkw_dict(self) -> dict[str, Any]:
        """Return the box as the properties file writes it."""
        width, height, depth = self.size
        return {"topLeft": list(self.topleft), "width": width, "height": height, "depth": depth}

    @classmethod
    def from_tuple2(cls, box: tuple[Vec3IntLike, Vec3IntLike]) -> BoundingBox:
        """Return the box of ``(topleft, size)``."""
        return cls(*box)

    def to_tuple2(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Return ``(topleft, size)`` as plain tuples."""
        return (self.topleft.to_tuple(), self.size.to_tuple())

    @classmethod
    def from_tuple6(cls, box: Sequence[int]) -> BoundingBox:
        """Return the box of ``(x, y, z, width, height, depth)``."""
        if len(box) != 6:
            raise InvalidValueError(f"expected six integers x,y,z,width,height,depth, got {box!r}")
        return cls(tuple(box[:3]), tuple(box[3:]))

    def to_tuple6(self) -> tuple[int, ...]:
        """Return ``(x, y, z, width, height, depth)``."""
        return (*self.topleft, *self.size)

    @classmethod
    def from_csv(cls, text: str) -> BoundingBox:
        """Return the box of a text ``"x,y,z,width,height,depth"``."""
        try:
            return cls.from_tuple6([int(part) for part in text.split(",")])
        except ValueError as error:
            raise InvalidValueError(f'a box is written "x,y,z,width,height,depth", got {text!r}') from error

    def to_csv(self) -> str:
        """Return ``"x,y,z,width,height,depth"``."""
        return ",".join(map(str, self.to_tuple6()))

    @property
    def bottomright(self) -> Vec3Int:
        """The first corner outside: ``topleft + size``."""
        return self.topleft + self.size

    def is_empty(self) -> bool:
        """Tell whether the box holds no voxel."""
        return 0 in self.size

    def volume(self) -> int:
        """Return the number of voxels."""
        return self.size.prod()

    def with_topleft(self, topleft: Vec3IntLike) -> BoundingBox:
        """Return a box of the same size elsewhere."""
        return BoundingBox(topleft, self.size)

    def with_size(self, size: Vec3IntLike) -> BoundingBox:
        """Return a box of another size at the same corner."""
        return BoundingBox(self.topleft, size)

    def with_bottomright(self, bottomright: Vec3IntLike) -> BoundingBox:
        """Return a box with another far corner."""
        return BoundingBox(self.topleft, Vec3Int(bottomright) - self.topleft)

    def offset(self, vector: Vec3IntLike) -> BoundingBox:
        """Return the box moved by a vector."""
        return BoundingBox(self.topleft + vector, self.size)

    def padded_with_margins(
        self, margins_left: Vec3IntLike, margins_right: Vec3IntLike | None = None
    ) -> BoundingBox:
        """Return the box grown by margins on both sides (the right ones default to the left ones)."""
        left = Vec3Int(margins_left)
        right = left if margins_right is None else Vec3Int(margins_right)
        return BoundingBox(self.topleft - left, self.size + left + right)

    def extended_by(self, other: BoundingBox) -> BoundingBox:
        """Return the smallest box around both; an empty box adds nothing."""
        if other.__class__ is not BoundingBox:  # one along any axes
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
        if other.__class__ is not BoundingBox:  # one along any axes
            return other.intersected_with(self, dont_assert)
        common = self.intersection(other)
        if common.is_empty() and not dont_assert:
            raise OutOfBoundsError(f"the boxes {self} and {other} have no voxel in common")
        return common

    def contains_bbox(self, other: BoundingBox) -> bool:
        """Tell whether no voxel of `other` is outside."""
        if other.__class__ is not BoundingBox:  # one along any axes, which must be x, y, z and perhaps c
            other = BoundingBox(other.denormalize().topleft, other.denormalize().size)
        return other.is_empty() or self.intersection(other) == other

    def contains(self, point: Sequence[float]) -> bool:
        """Tell whether a point is inside."""
        return all(
            low <= value < high
            for low, value, high in zip(self.topleft, point, self.bottomright, strict=True)
        )

    def aligned_outwards(self, step: Vec3IntLike) -> BoundingBox:
        """Return the smallest box around this one whose corners are multiples of `step`; empty stays empty."""
        step = _step(step)
        corner = self.topleft // step * step
        end = self.bottomright.ceildiv(step) * step
        return BoundingBox(corner, tuple(n and b - a for n, a, b in zip(self.size, corner, end, strict=True)))

    def aligned_inwards(self, step: Vec3IntLike) -> BoundingBox:
        """Return the largest box inside this one whose corners are multiples of `step`."""
        step = _step(step)
        return BoundingBox.from_corners(self.topleft.ceildiv(step) * step, self.bottomright // step * step)

    def align_with_mag(self, mag: MagLike, ceil: bool = False) -> BoundingBox:
        """Return the box, in voxels of mag 1, on the grid of a mag: inwards, or outwards with `ceil`."""
        step = Mag(mag).to_vec3_int()
        return self.aligned_outwards(step) if ceil else self.aligned_inwards(step)

    def in_mag(self, mag: MagLike) -> BoundingBox:
        """Return this box of mag-1 voxels counted in voxels of `mag`.

        Raises
        ------
        AlignmentError
            If a corner is not on the grid of that mag; the message names the nearest box that is.
        """
        step = Mag(mag).to_vec3_int()
        if any(self.topleft % step) or any(self.bottomright % step):
            raise AlignmentError(
                f"the box {self} (voxels of mag 1) is not on the voxel grid of mag {Mag(mag)}; "
                f"the nearest around it is {self.aligned_outwards(step)}"
            )
        return BoundingBox(self.topleft // step, self.size // step)

    def from_mag_to_mag1(self, from_mag: MagLike) -> BoundingBox:
        """Return this box of voxels of `from_mag` counted in voxels of mag 1."""
        step = Mag(from_mag).to_vec3_int()
        return BoundingBox(self.topleft * step, self.size * step)

    def chunk(
        self, chunk_shape: Vec3IntLike, chunk_border_alignments: Vec3IntLike | None = None
    ) -> Iterator[BoundingBox]:
        """Yield the pieces of the box, z slowest and x fastest.

        Parameters
        ----------
        chunk_shape
            The size of a piece; those at the border are clipped.
        chunk_border_alignments
            The pieces are cut at multiples of this; without it, from the box's own corner.

        Raises
        ------
        InvalidValueError
            If a shape is not positive, or not a multiple of the alignment.
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
        for z in range(start.z, end.z, shape.z):
            for y in range(start.y, end.y, shape.y):
                for x in range(start.x, end.x, shape.x):
                    yield BoundingBox((x, y, z), shape).intersection(self)

    def to_slices(self, offset: Vec3IntLike | None = None) -> tuple[slice, slice, slice]:
        """Return the slices (x, y, z) of the box in an array whose first voxel is at `offset`.

        Raises
        ------
        OutOfBoundsError
            If the box starts before the array; a negative slice would count from the array's end.
        """
        corner = self.topleft - (Vec3Int(offset) if offset is not None else 0)
        if not (corner.is_positive() or self.is_empty()):
            first = tuple(self.topleft - corner)
            raise OutOfBoundsError(f"the box {self} starts before the array, whose first voxel is {first}")
        x, y, z = (slice(low, low + n) for low, n in zip(corner, self.size, strict=True))
        return (x, y, z)

    def __repr__(self) -> str:
        return f"BoundingBox({tuple(self.topleft)}, {tuple(self.size)})"

    def __str__(self) -> str:
        return f"{tuple(self.topleft)} + {tuple(self.size)}"


def _step(step: Vec3IntLike) -> Vec3Int:
    """Return a step of a grid as a vector; refuse those that make no grid."""
    vec = Vec3Int(step)
    if not vec.is_positive(strictly=True):
        raise InvalidValueError(f"the step of a grid must be positive, got {vec}")
    return vec


register_plain_box(BoundingBox, BoundingBox)

EMPTY_BOX = BoundingBox((0, 0, 0), (0, 0, 0))
"""The box of a layer that holds nothing yet."""
