"""Three floats: `Vec3Float`, a frozen value."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from numbers import Real
from typing import Any, TypeAlias, cast, overload

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry.vectors import Vec3Int

__all__ = ["Vec3Float", "Vec3FloatLike", "as_vec3_float_or_none"]

Vec3FloatLike: TypeAlias = "Vec3Float | Sequence[float] | Iterable[float] | np.ndarray[Any, Any]"
"""Anything of three numbers."""


class Vec3Float(Sequence[float]):
    """Three floats ``(x, y, z)`` with element-wise arithmetic.

    Equal to, ordered like and hashed like the tuple of its components.

    Parameters
    ----------
    *args
        The three components, or one sequence of them.

    Raises
    ------
    InvalidValueError
        If there are not three, or one is not a number.

    Examples
    --------
    >>> Vec3Float(1, 2, 3) / 2
    Vec3Float(0.5,1.0,1.5)
    """

    __slots__ = ("_data",)
    _data: tuple[float, float, float]

    def __new__(cls, *args: Any) -> Vec3Float:
        """Return the vector itself where it is one already."""
        if len(args) == 1 and isinstance(args[0], Vec3Float):
            return args[0]
        values = tuple(args[0]) if len(args) == 1 and _is_array(args[0]) else args
        if len(values) != 3:
            raise InvalidValueError(f"expected three floats (x, y, z), got {values!r}")
        self = object.__new__(cls)
        object.__setattr__(self, "_data", tuple(_number(value) for value in values))
        return self

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Vec3Float cannot be changed: use with_x, with_y, with_z")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Vec3Float cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Vec3Float, self._data)

    @classmethod
    def from_xyz(cls, x: float, y: float, z: float) -> Vec3Float:
        """Return the vector of three numbers."""
        return cls(x, y, z)

    @classmethod
    def from_str(cls, string: str) -> Vec3Float:
        """Return the vector of a text such as ``"(1.5, 2, 3)"``."""
        try:
            values = [float(part) for part in string.strip().removeprefix("(").removesuffix(")").split(",")]
        except ValueError:
            raise InvalidValueError(f'three floats are written "1.5,2,3", got {string!r}') from None
        return cls(values)

    @classmethod
    def full(cls, value: float) -> Vec3Float:
        """Return ``(value, value, value)``."""
        return cls(value, value, value)

    @classmethod
    def zeros(cls) -> Vec3Float:
        """Return ``(0, 0, 0)``."""
        return cls.full(0)

    @classmethod
    def ones(cls) -> Vec3Float:
        """Return ``(1, 1, 1)``."""
        return cls.full(1)

    @property
    def x(self) -> float:
        """The x component."""
        return self._data[0]

    @property
    def y(self) -> float:
        """The y component."""
        return self._data[1]

    @property
    def z(self) -> float:
        """The z component."""
        return self._data[2]

    def with_x(self, new_x: float) -> Vec3Float:
        """Return a copy with another x."""
        return Vec3Float(new_x, self.y, self.z)

    def with_y(self, new_y: float) -> Vec3Float:
        """Return a copy with another y."""
        return Vec3Float(self.x, new_y, self.z)

    def with_z(self, new_z: float) -> Vec3Float:
        """Return a copy with another z."""
        return Vec3Float(self.x, self.y, new_z)

    def to_np(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a numpy array of float64."""
        return np.array(self._data, dtype=np.float64)

    def to_list(self) -> list[float]:
        """Return a plain list, as JSON wants it."""
        return list(self._data)

    def to_tuple(self) -> tuple[float, float, float]:
        """Return a plain tuple."""
        return self._data

    def to_vec3_int(self) -> Vec3Int:
        """Return the integers towards zero; InvalidValueError where a component is not finite."""
        try:
            return Vec3Int(tuple(int(value) for value in self._data))
        except (OverflowError, ValueError):
            raise InvalidValueError(f"{self!r} has no integers") from None

    @overload
    def __getitem__(self, index: int) -> float: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[float, ...]: ...

    def __getitem__(self, index: int | slice) -> float | tuple[float, ...]:
        return self._data[index]

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[float]:
        return iter(self._data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._data, dtype=dtype)

    def __eq__(self, other: object) -> Any:
        return self._compared(other, operator.eq)

    def __lt__(self, other: object) -> Any:
        return self._compared(other, operator.lt)

    def __le__(self, other: object) -> Any:
        return self._compared(other, operator.le)

    def __gt__(self, other: object) -> Any:
        return self._compared(other, operator.gt)

    def __ge__(self, other: object) -> Any:
        return self._compared(other, operator.ge)

    def _compared(self, other: object, compare: Callable[[Any, Any], bool]) -> Any:
        if not isinstance(other, Vec3Float | tuple):
            return NotImplemented
        return compare(self._data, tuple(other))

    def __hash__(self) -> int:
        return hash(self._data)

    def _with(self, other: Any, function: Callable[[float, float], float]) -> Vec3Float:
        """Return what a function makes of each pair of components."""
        others = Vec3Float(other) if _is_array(other) else Vec3Float.full(other)
        return Vec3Float(*map(function, self._data, others))

    def __add__(self, other: Any) -> Vec3Float:
        return self._with(other, operator.add)

    def __sub__(self, other: Any) -> Vec3Float:
        return self._with(other, operator.sub)

    def __mul__(self, other: Any) -> Vec3Float:
        return self._with(other, operator.mul)

    def __truediv__(self, other: Any) -> Vec3Float:
        return self._with(other, operator.truediv)

    def __neg__(self) -> Vec3Float:
        return self * -1

    def pairmin(self, other: Any) -> Vec3Float:
        """Return the component-wise minimum."""
        return self._with(other, min)

    def pairmax(self, other: Any) -> Vec3Float:
        """Return the component-wise maximum."""
        return self._with(other, max)

    def prod(self) -> float:
        """Return the product of the components."""
        return prod(self._data)

    def __repr__(self) -> str:
        return f"Vec3Float({','.join(map(str, self._data))})"


def _number(value: object) -> float:
    """Return a number as a float; refuse texts and bools."""
    if isinstance(value, Real | np.number) and not isinstance(value, bool | np.complexfloating):
        return float(cast(float, value))
    raise InvalidValueError(f"a vector has three floats (x, y, z); one of them is {value!r}")


def as_vec3_float_or_none(value: Vec3FloatLike | None) -> Vec3Float | None:
    """Return three floats, or None for None.

    Examples
    --------
    >>> as_vec3_float_or_none((4, 4, 35)), as_vec3_float_or_none(None)
    (Vec3Float(4.0,4.0,35.0), None)
    """
    return None if value is None else Vec3Float(value)


def _is_array(value: object) -> bool:
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0
