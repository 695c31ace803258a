"""Three integers, and what a magnification is."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any, ClassVar, SupportsIndex, TypeAlias, cast

import numpy as np

from wkdask.errors import InvalidValueError

__all__ = ["Mag", "MagLike", "Vec3Int", "Vec3IntLike", "as_vec3_int_or_none"]

Vec3IntLike: TypeAlias = "Vec3Int | Sequence[SupportsIndex] | np.ndarray[Any, Any]"
"""Anything of three integers."""


def _integer(value: object, what: str) -> int:
    """Return `value` as an int; refuse floats, NaN, strings and bools, which numpy would let pass."""
    if isinstance(value, bool | np.bool_):
        raise InvalidValueError(f"{what} must be an integer, got {value!r}")
    try:
        return operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise InvalidValueError(f"{what} must be an integer, got {value!r}") from None


def _ceildiv(a: int, b: int) -> int:
    """Return the quotient, rounded up."""
    return -(-a // b)


class Vec3Int(tuple[int, int, int]):
    """Three integers ``(x, y, z)`` with element-wise arithmetic.

    A tuple, so that it compares, hashes and unpacks like one; but ``+``, ``-``, ``*``, ``//`` and ``%``
    work per component, with another vector or with one integer. Where a plain tuple stands first, ``+`` is the
    tuple's: ``(1, 2) + vector`` is a longer tuple, as in 2021.

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
    Vec3Int(2,4,7)
    >>> vec = Vec3Int([8, 8, 4])
    >>> Vec3Int.zeros(), Vec3Int.ones(), Vec3Int.from_xyz(1, 2, 3), Vec3Int.from_vec_or_int(4)
    (Vec3Int(0,0,0), Vec3Int(1,1,1), Vec3Int(1,2,3), Vec3Int(4,4,4))
    >>> vec.ceildiv(3), vec.pairmin(5), vec.pairmax((9, 0, 0)), vec.prod()
    (Vec3Int(3,3,2), Vec3Int(5,5,4), Vec3Int(9,8,4), 256)
    >>> vec.with_x(1).with_y(2).with_z(3), vec.with_xyz((0, 0, 0)), vec.add_or_none(None)
    (Vec3Int(1,2,3), Vec3Int(0,0,0), None)
    >>> vec.is_positive(strictly=True), vec.is_uniform(), vec.contains(4)
    (True, False, True)
    >>> vec.to_tuple(), vec.to_list(), vec.to_np()
    ((8, 8, 4), [8, 8, 4], array([8, 8, 4]))
    """

    __slots__ = ()

    axes: ClassVar[tuple[str, str, str]] = ("x", "y", "z")
    """What the components are called."""

    def __new__(cls, x: Any, y: Any = None, z: Any = None) -> Vec3Int:
        """Return the vector itself where it is one already."""
        if y is None and z is None:
            if isinstance(x, Vec3Int):
                return x
            if type(x) is tuple and len(x) == 3 and type(x[0]) is type(x[1]) is type(x[2]) is int:
                return tuple.__new__(cls, x)
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

    @property
    def xyz(self) -> Vec3Int:
        """The vector itself: it has no other axes."""
        return self

    @classmethod
    def full(cls, an_int: int) -> Vec3Int:
        """Return ``(an_int, an_int, an_int)``.

        Examples
        --------
        >>> Vec3Int.full(2)
        Vec3Int(2,2,2)
        """
        return cls(an_int, an_int, an_int)

    @classmethod
    def zeros(cls) -> Vec3Int:
        """Return ``(0, 0, 0)``."""
        return cls(0, 0, 0)

    @classmethod
    def ones(cls) -> Vec3Int:
        """Return ``(1, 1, 1)``."""
        return cls(1, 1, 1)

    @classmethod
    def from_xyz(cls, x: int, y: int, z: int) -> Vec3Int:
        """Return ``(x, y, z)``."""
        return cls(x, y, z)

    @classmethod
    def from_str(cls, string: str) -> Vec3Int:
        """Return the vector of a text ``"1,2,3"``; parentheses around it are allowed.

        Raises
        ------
        InvalidValueError
            If it is something else.

        Examples
        --------
        >>> Vec3Int.from_str("(1, 2, 3)")
        Vec3Int(1,2,3)
        """
        match = re.fullmatch(
            r"\s*\(?\s*([+-]?\d+)\s*,\s*([+-]?\d+)\s*,\s*([+-]?\d+)\s*\)?\s*", string, re.ASCII
        )
        if match is None:
            raise InvalidValueError(f'a vector is written "x,y,z", such as "1,2,3"; got {string!r}')
        return cls([int(part) for part in match.groups()])

    @classmethod
    def from_vec3_float(cls, vec: Iterable[float]) -> Vec3Int:
        """Return the whole parts of three numbers, cut towards zero.

        Examples
        --------
        >>> Vec3Int.from_vec3_float((1.9, -1.9, 0))
        Vec3Int(1,-1,0)
        """
        try:
            return cls([int(part) for part in vec])
        except (TypeError, ValueError, OverflowError):
            raise InvalidValueError(f"expected three finite numbers (x, y, z), got {vec!r}") from None

    @classmethod
    def from_vec_or_int(cls, vec_or_int: Any) -> Vec3Int:
        """Return a vector from three integers, or from one for all axes; see :meth:`from_scalar_or_vec`."""
        return cls.from_scalar_or_vec(vec_or_int)

    @classmethod
    def from_scalar_or_vec(cls, value: Any) -> Vec3Int:
        """Return a vector from three integers, or from one that stands for all three axes.

        Examples
        --------
        >>> Vec3Int.from_scalar_or_vec(4), Vec3Int.from_scalar_or_vec((1, 2, 3))
        (Vec3Int(4,4,4), Vec3Int(1,2,3))
        """
        if isinstance(value, Iterable):
            return cls(value)
        return cls.full(value)

    def _with(self, other: Any, function: Callable[[int, int], int]) -> Vec3Int:
        """Return a vector of what a function makes of each pair of components, which are integers already."""
        a, b, c = self
        if type(other) is int:
            x = y = z = other
        else:
            x, y, z = other if isinstance(other, Vec3Int) else Vec3Int.from_scalar_or_vec(other)
        return tuple.__new__(Vec3Int, (function(a, x), function(b, y), function(c, z)))

    def __add__(self, other: Any) -> Vec3Int:
        return self._with(other, operator.add)

    def __radd__(self, other: Any) -> Any:
        if isinstance(other, tuple):  # Python asks the subclass first; a tuple lengthens itself
            return tuple.__add__(other, self)
        return self.__add__(other)

    def __sub__(self, other: Any) -> Vec3Int:
        return self._with(other, operator.sub)

    def __rsub__(self, other: Any) -> Vec3Int:
        return (-self).__add__(other)

    def __mul__(self, other: Any) -> Vec3Int:
        return self._with(other, operator.mul)

    def __rmul__(self, other: Any) -> Vec3Int:
        return self.__mul__(other)

    def __floordiv__(self, other: Any) -> Vec3Int:
        return self._with(other, operator.floordiv)

    def __mod__(self, other: Any) -> Vec3Int:
        return self._with(other, operator.mod)

    def __neg__(self) -> Vec3Int:
        return self * -1

    def ceildiv(self, other: Any) -> Vec3Int:
        """Return the component-wise quotient, rounded up."""
        return self._with(other, _ceildiv)

    def pairmin(self, other: Any) -> Vec3Int:
        """Return the component-wise minimum."""
        return self._with(other, min)

    def pairmax(self, other: Any) -> Vec3Int:
        """Return the component-wise maximum."""
        return self._with(other, max)

    def is_positive(self, strictly_positive: bool = False, *, strictly: bool = False) -> bool:
        """Return whether no component is negative (with `strictly_positive`, or `strictly`: below 1)."""
        return min(self) >= (1 if strictly or strictly_positive else 0)

    def is_uniform(self) -> bool:
        """Return whether all components are equal."""
        return self[0] == self[1] == self[2]

    def contains(self, needle: int) -> bool:
        """Return whether a component is `needle`."""
        return needle in self

    def add_or_none(self, other: Any) -> Vec3Int | None:
        """Return the sum; None if `other` is None."""
        return None if other is None else self + other

    def get(self, axis: str, default: int | None = None) -> int:
        """Return the component of an axis, or the default where there is no such axis.

        Raises
        ------
        KeyError
            If there is neither.

        Examples
        --------
        >>> Vec3Int(1, 2, 3).get("z"), Vec3Int(1, 2, 3).get("t", 0)
        (3, 0)
        """
        if axis in self.axes:
            return self[self.axes.index(axis)]
        if default is None:
            raise KeyError(f"there is no axis {axis!r}; the axes are x, y, z")
        return default

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

    def with_x(self, new_x: int) -> Vec3Int:
        """Return a copy with another x."""
        return Vec3Int(new_x, self[1], self[2])

    def with_y(self, new_y: int) -> Vec3Int:
        """Return a copy with another y."""
        return Vec3Int(self[0], new_y, self[2])

    def with_z(self, new_z: int) -> Vec3Int:
        """Return a copy with another z."""
        return Vec3Int(self[0], self[1], new_z)

    def with_xyz(self, new_xyz: Vec3IntLike) -> Vec3Int:
        """Return another vector: all components are replaced."""
        return Vec3Int(new_xyz)

    def with_replaced(self, axis: int, new_element: int) -> Vec3Int:
        """Return a copy with another component, by its number: 0, 1, 2 for x, y, z.

        Examples
        --------
        >>> Vec3Int(1, 2, 3).with_replaced(2, 9)
        Vec3Int(1,2,9)
        """
        parts = list(self)
        parts[axis] = new_element
        return Vec3Int(parts)

    def moveaxis(self, source: int | Sequence[int], target: int | Sequence[int]) -> Vec3Int:
        """Return the components in another order, as :func:`numpy.moveaxis` reorders axes.

        Examples
        --------
        >>> Vec3Int(1, 2, 3).moveaxis(0, 2)
        Vec3Int(2,3,1)
        """
        order = np.moveaxis(np.empty((1, 2, 3)), source, target).shape  # axis n has n + 1 elements
        return Vec3Int([self[side - 1] for side in order])

    def __repr__(self) -> str:
        return f"Vec3Int({self[0]},{self[1]},{self[2]})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        """Return it within a text: ``(1, 2, 3)``."""
        return format(f"({self[0]}, {self[1]}, {self[2]})", spec)


def as_vec3_int_or_none(vec: Any) -> Vec3Int | None:
    """Return a vector from three integers, or from one for all axes; None for None.

    Examples
    --------
    >>> as_vec3_int_or_none(4), as_vec3_int_or_none(None)
    (Vec3Int(4,4,4), None)
    """
    return None if vec is None else Vec3Int.from_scalar_or_vec(vec)


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

    Examples
    --------
    >>> mag = Mag("4-4-2")
    >>> mag, mag == (4, 4, 2), mag * 2, mag // 2, mag < Mag(8)
    (Mag(4-4-2), True, Mag(8-8-4), Mag(2-2-1), True)
    >>> mag.max_dim, mag.max_dim_log2, mag.is_isotropic
    (4, 2, False)
    >>> mag.to_layer_name(), Mag(4).to_layer_name(), Mag(4).to_long_layer_name()
    ('4-4-2', '4', '4-4-4')
    >>> mag.to_vec3_int(), mag.to_list(), mag.to_tuple(), mag.to_np()
    (Vec3Int(4,4,2), [4, 4, 2], (4, 4, 2), array([4, 4, 2]))
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
    def max_dim_log2(self) -> int:
        """The logarithm of the largest component to the base 2."""
        return self.max_dim.bit_length() - 1

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

    def __mul__(self, other: MagLike) -> Mag:
        return Mag(self._vec * Mag(other)._vec)

    def __floordiv__(self, other: MagLike) -> Mag:
        return Mag(self._vec // Mag(other)._vec)

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
