"""Coordinates: frozen values of integers, without I/O.

Everything spatial is ``(x, y, z)``. A :class:`BoundingBox` does not know its magnification: a docstring
says whether it counts voxels of mag 1 (properties, every ``bounding_box=`` argument) or of a mag.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, SupportsIndex, TypeAlias, cast

import numpy as np

from wkdask.errors import AlignmentError, InvalidValueError, OutOfBoundsError

__all__ = ["EMPTY_BOX", "BoundingBox", "Mag", "MagLike", "Vec3Int", "Vec3IntLike"]

Vec3IntLike: TypeAlias = "Vec3Int | Sequence[SupportsIndex] | np.ndarray[Any, Any]"
"""Anything of three integers."""

COORDINATE_LIMIT = 2**32
"""wkw counts voxels in unsigned 32-bit integers; beyond them it wraps around silently."""


def _integer(value: object, what: str) -> int:
    """Return `value` as an int; refuse floats, NaN, strings and bools, which numpy would let pass."""
    if isinstance(value, bool | np.bool_):
        raise InvalidValueError(f"{what} must be an integer, got {value!r}")
    try:
        return operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise InvalidValueError(f"{what} must be an integer, got {value!r}") from None


class Vec3Int(tuple[int, int, int]):
    """Three integers ``(x, y, z)`` with element-wise arithmetic.

    A tuple, so that it compares, hashes and unpacks like one; but ``+``, ``-``, ``*``, ``//`` and ``%``
    work per component, with another vector or with one integer.

    Parameters
    ----------
    x
        The x component, or all three as one sequence.
    y, z
        The other two components.

    Raises
    ------
    InvalidValueError
        If there are not three, or one is not an integer.

    Examples
    --------
    >>> Vec3Int(1, 2, 3) * 2 + (0, 0, 1)
    Vec3Int(2, 4, 7)
    >>> Vec3Int([8, 8, 4]).ceildiv(3)
    Vec3Int(3, 3, 2)
    """

    __slots__ = ()

    def __new__(cls, x: Any, y: Any = None, z: Any = None) -> Vec3Int:
        """Return the vector itself where it is one already."""
        if isinstance(x, Vec3Int) and y is None and z is None:
            return x
        parts = (x, y, z) if y is not None or z is not None else x
        try:
            values = tuple(_integer(part, "a component of a vector") for part in parts)
        except TypeError:
            raise InvalidValueError(f"expected three integers (x, y, z), got {x!r}") from None
        if len(values) != 3:
            raise InvalidValueError(f"expected three integers (x, y, z), got {values!r}")
        return tuple.__new__(cls, values)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (tuple(self),)

    @property
    def x(self) -> int:
        """The x component."""
        return self[0]

    @property
    def y(self) -> int:
        """The y component."""
        return self[1]

    @property
    def z(self) -> int:
        """The z component."""
        return self[2]

    @classmethod
    def full(cls, value: int) -> Vec3Int:
        """Return ``(value, value, value)``."""
        return cls(value, value, value)

    @classmethod
    def from_scalar_or_vec(cls, value: Any) -> Vec3Int:
        """Return a vector from three integers, or from one that stands for all three axes."""
        if isinstance(value, Iterable):
            return cls(value)
        return cls.full(value)

    def _zip(self, other: Any) -> Iterator[tuple[int, int]]:
        return zip(self, Vec3Int.from_scalar_or_vec(other), strict=True)

    def __add__(self, other: Any) -> Vec3Int:
        return Vec3Int(tuple(a + b for a, b in self._zip(other)))

    def __radd__(self, other: Any) -> Vec3Int:
        return self.__add__(other)

    def __sub__(self, other: Any) -> Vec3Int:
        return Vec3Int(tuple(a - b for a, b in self._zip(other)))

    def __rsub__(self, other: Any) -> Vec3Int:
        return (-self).__add__(other)

    def __mul__(self, other: Any) -> Vec3Int:
        return Vec3Int(tuple(a * b for a, b in self._zip(other)))

    def __rmul__(self, other: Any) -> Vec3Int:
        return self.__mul__(other)

    def __floordiv__(self, other: Any) -> Vec3Int:
        return Vec3Int(tuple(a // b for a, b in self._zip(other)))

    def __mod__(self, other: Any) -> Vec3Int:
        return Vec3Int(tuple(a % b for a, b in self._zip(other)))

    def __neg__(self) -> Vec3Int:
        return self * -1

    def ceildiv(self, other: Any) -> Vec3Int:
        """Return the component-wise quotient, rounded up."""
        return Vec3Int(tuple(-(-a // b) for a, b in self._zip(other)))

    def pairmin(self, other: Any) -> Vec3Int:
        """Return the component-wise minimum."""
        return Vec3Int(tuple(min(pair) for pair in self._zip(other)))

    def pairmax(self, other: Any) -> Vec3Int:
        """Return the component-wise maximum."""
        return Vec3Int(tuple(max(pair) for pair in self._zip(other)))

    def is_positive(self, *, strictly: bool = False) -> bool:
        """Tell whether no component is negative (or, `strictly`, none is below 1)."""
        return min(self) >= (1 if strictly else 0)

    def prod(self) -> int:
        """Return the product of the components."""
        return prod(self)

    def to_np(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return a numpy array of int64."""
        return np.array(self, dtype=np.int64)

    def to_tuple(self) -> tuple[int, int, int]:
        """Return a plain tuple."""
        return (self[0], self[1], self[2])

    def to_list(self) -> list[int]:
        """Return a plain list, as JSON wants it."""
        return list(self)

    def with_x(self, x: int) -> Vec3Int:
        """Return a copy with another x."""
        return Vec3Int(x, self[1], self[2])

    def with_y(self, y: int) -> Vec3Int:
        """Return a copy with another y."""
        return Vec3Int(self[0], y, self[2])

    def with_z(self, z: int) -> Vec3Int:
        """Return a copy with another z."""
        return Vec3Int(self[0], self[1], z)

    def __repr__(self) -> str:
        return f"Vec3Int({self[0]}, {self[1]}, {self[2]})"

    def __str__(self) -> str:
        return f"({self[0]}, {self[1]}, {self[2]})"


MagLike: TypeAlias = "Mag | int | str | Sequence[int] | np.ndarray[Any, Any]"
"""What :class:`Mag` accepts: ``4``, ``"4"``, ``"4-4-2"``, ``(4, 4, 2)``, a Mag."""


class Mag:
    """A magnification: how many voxels of mag 1 one voxel spans along x, y and z.

    Parameters
    ----------
    mag
        An integer for all axes, three integers, or a text such as ``"2"`` or ``"2-2-1"``.

    Raises
    ------
    InvalidValueError
        If a component is not a power of two, or the text is not a mag.

    Notes
    -----
    Mags are equal where their components are, also to the raw value (``Mag(1) == "1"``), and are
    **ordered by their largest component only**, which is how WEBKNOSSOS picks the one to show.
    """

    __slots__ = ("_vec",)
    __array_ufunc__ = None  # so that `array == mag` asks the mag, not each component
    _vec: Vec3Int

    def __init__(self, mag: MagLike) -> None:
        if isinstance(mag, Mag):
            vec = mag._vec
        elif isinstance(mag, str):
            if not re.fullmatch(r"\s*\d{1,20}(\s*-\s*\d{1,20}\s*-\s*\d{1,20})?\s*", mag, re.ASCII):
                raise InvalidValueError(f'a mag is written as "4" or "4-4-2", got {mag!r}')
            vec = _vec_of(int(part) for part in mag.split("-"))
        elif isinstance(mag, Iterable):
            vec = _vec_of(mag)
        else:
            vec = Vec3Int.full(_integer(mag, "a mag"))
        if any(part < 1 or part & (part - 1) for part in vec):
            raise InvalidValueError(f"the components of a mag are powers of two, got {vec}")
        object.__setattr__(self, "_vec", vec)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Mag cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Mag, (tuple(self._vec),))

    @property
    def x(self) -> int:
        """Voxels of mag 1 along x."""
        return self._vec.x

    @property
    def y(self) -> int:
        """Voxels of mag 1 along y."""
        return self._vec.y

    @property
    def z(self) -> int:
        """Voxels of mag 1 along z."""
        return self._vec.z

    @property
    def max_dim(self) -> int:
        """The largest component."""
        return max(self._vec)

    @property
    def is_isotropic(self) -> bool:
        """Whether all components are equal."""
        return len(set(self._vec)) == 1

    def to_vec3_int(self) -> Vec3Int:
        """Return the components."""
        return self._vec

    def to_np(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the components as a numpy array."""
        return self._vec.to_np()

    def to_list(self) -> list[int]:
        """Return the components as a list."""
        return list(self._vec)

    def to_tuple(self) -> tuple[int, int, int]:
        """Return the components as a plain tuple."""
        return self._vec.to_tuple()

    def to_layer_name(self) -> str:
        """Return the folder's name: ``"4"`` where isotropic, else ``"4-4-2"``."""
        return str(self.x) if self.is_isotropic else self.to_long_layer_name()

    def to_long_layer_name(self) -> str:
        """Return the long form of the folder's name: ``"4-4-4"``."""
        return "-".join(map(str, self._vec))

    def __iter__(self) -> Iterator[int]:
        return iter(self._vec)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mag):
            return self._vec == other._vec
        try:
            return self._vec == Mag(cast(Any, other))._vec
        except (InvalidValueError, TypeError, ValueError):
            return False

    def __hash__(self) -> int:
        return hash(self._vec)

    def __lt__(self, other: MagLike) -> bool:
        return self.max_dim < Mag(other).max_dim

    def __le__(self, other: MagLike) -> bool:
        return self.max_dim <= Mag(other).max_dim

    def __gt__(self, other: MagLike) -> bool:
        return self.max_dim > Mag(other).max_dim

    def __ge__(self, other: MagLike) -> bool:
        return self.max_dim >= Mag(other).max_dim

    def __repr__(self) -> str:
        return f"Mag({self.to_layer_name()})"

    def __str__(self) -> str:
        return self.to_layer_name()


def _vec_of(parts: Iterable[Any]) -> Vec3Int:
    """Return a vector of one part (for all axes) or of three."""
    try:
        values = tuple(parts)
    except TypeError:  # an array without axes
        raise InvalidValueError(f"expected one integer or three, got {parts!r}") from None
    return Vec3Int.full(values[0]) if len(values) == 1 else Vec3Int(values)


@dataclass(frozen=True, slots=True, init=False)
class BoundingBox:
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
        if self.is_empty():
            return other
        if other.is_empty():
            return self
        return BoundingBox.from_corners(
            self.topleft.pairmin(other.topleft), self.bottomright.pairmax(other.bottomright)
        )

    def intersection(self, other: BoundingBox) -> BoundingBox:
        """Return the common box, of size 0 where there is none."""
        return BoundingBox.from_corners(
            self.topleft.pairmax(other.topleft), self.bottomright.pairmin(other.bottomright)
        )

    def intersected_with(self, other: BoundingBox, dont_assert: bool = False) -> BoundingBox:
        """Return the common box.

        Raises
        ------
        OutOfBoundsError
            If the boxes have no common voxel, unless `dont_assert`.
        """
        common = self.intersection(other)
        if common.is_empty() and not dont_assert:
            raise OutOfBoundsError(f"the boxes {self} and {other} have no voxel in common")
        return common

    def contains_bbox(self, other: BoundingBox) -> bool:
        """Tell whether no voxel of `other` is outside."""
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


EMPTY_BOX = BoundingBox((0, 0, 0), (0, 0, 0))
"""The box of a layer that holds nothing yet."""
