"""Vectors whose components have names: `VecInt`, a frozen value; and the names of axes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any, TypeAlias, cast, overload

import numpy as np

from wkdask.errors import AxisNotFoundError, InvalidValueError
from wkdask.geometry.vectors import Vec3Int, Vec3IntLike, _ceildiv, _integer
from wkdask.names import (
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
)

__all__ = [
    "CXYZ_AXES",
    "C_AXIS",
    "TCXYZ_AXES",
    "TXYZ_AXES",
    "T_AXIS",
    "XYZ_AXES",
    "XY_AXES",
    "X_AXIS",
    "Y_AXIS",
    "Z_AXIS",
    "VecInt",
    "VecIntLike",
]

VecIntLike: TypeAlias = "VecInt | Sequence[int] | Iterable[int] | np.ndarray[Any, Any]"
"""Integers, one per axis."""


class VecInt(Sequence[int]):
    """Integers, one for each of some named axes, with element-wise arithmetic.

    Equal to, ordered like and hashed like the tuple of its components, whatever the axes are called. A
    :class:`Vec3Int` counts as one, with the axes x, y, z.

    Parameters
    ----------
    *args
        The components, or one sequence of them; then the axes, if `axes` does not give them.
    axes
        The names of the axes, one for each component.
    **kwargs
        The components by the names of their axes, instead of all else: ``VecInt(t=1, x=2)``.

    Raises
    ------
    InvalidValueError
        If a component is not an integer, axes are missing or appear twice, or there are not as many.

    Examples
    --------
    >>> VecInt(1, 2, 3, 4, axes=("t", "x", "y", "z")) + 1
    VecInt(2,3,4,5, axes=('t', 'x', 'y', 'z'))
    >>> VecInt(t=1, x=2) + VecInt(x=10, t=20)
    VecInt(21,12, axes=('t', 'x'))
    """

    __slots__ = ("_data", "axes")
    _data: tuple[int, ...]
    axes: tuple[str, ...]
    """The names of the axes, in the order of the components."""

    def __new__(cls, *args: Any, axes: Iterable[str] | None = None, **kwargs: int) -> VecInt:
        """Return the components under their names; a vector without `axes` is returned as it is."""
        if kwargs:
            if args or axes is not None:
                raise InvalidValueError(
                    "components are given by position or by the names of axes, not by both"
                )
            return _vector(kwargs.values(), kwargs)
        values: Any = args
        if len(args) == 2 and axes is None and _is_sequence(args[0]) and _is_sequence(args[1]):
            values, axes = args
        elif len(args) == 1 and _is_sequence(args[0]):
            values = args[0]
        if axes is None:
            if isinstance(values, VecInt):  # or a Vec3Int, whose axes are known
                return values
            raise InvalidValueError(
                f"a vector needs the names of its axes, got only {values!r}; write "
                'VecInt(1, 2, 3, 4, axes=("t", "x", "y", "z")) or VecInt(t=1, x=2, y=3, z=4)'
            )
        return _vector(values, axes)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} cannot be changed: use with_replaced({name!r}, …)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_vector, (self._data, self.axes))

    # --- making some -----------------------------------------------------------------------------------

    @classmethod
    def full(cls, an_int: int, axes: Iterable[str]) -> VecInt:
        """Return a vector whose components are all the same."""
        names = tuple(axes)
        return _vector([an_int] * len(names), names)

    @classmethod
    def zeros(cls, axes: Iterable[str]) -> VecInt:
        """Return a vector of zeros."""
        return cls.full(0, axes)

    @classmethod
    def ones(cls, axes: Iterable[str]) -> VecInt:
        """Return a vector of ones."""
        return cls.full(1, axes)

    @staticmethod
    def from_str(string: str, axes: Iterable[str] | None = None) -> VecInt:
        """Return the vector of a text such as ``"(1, 2, 3)"``; `axes` must be given."""
        try:
            values = [int(part) for part in string.strip().removeprefix("(").removesuffix(")").split(",")]
        except ValueError:
            raise InvalidValueError(f'a vector is written "1,2,3" or "(1, 2, 3)", got {string!r}') from None
        return VecInt(values, axes=axes)

    # --- looking at one --------------------------------------------------------------------------------

    @overload
    def __getitem__(self, index: int | str) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...

    def __getitem__(self, index: int | str | slice) -> int | tuple[int, ...]:
        return self._data[self._place(index) if isinstance(index, str) else index]

    def __len__(self) -> int:
        return len(self._data)

    def __bool__(self) -> bool:
        return bool(self._data)

    def __iter__(self) -> Iterator[int]:
        return iter(self._data)

    def __contains__(self, item: object) -> bool:
        return item in self._data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._data, dtype=dtype)

    def __eq__(self, other: object) -> Any:
        data = _data_of(other)
        return NotImplemented if data is None else self._data == data

    def __lt__(self, other: object) -> bool:
        data = _data_of(other)
        return NotImplemented if data is None else self._data < data

    def __le__(self, other: object) -> bool:
        data = _data_of(other)
        return NotImplemented if data is None else self._data <= data

    def __gt__(self, other: object) -> bool:
        data = _data_of(other)
        return NotImplemented if data is None else self._data > data

    def __ge__(self, other: object) -> bool:
        data = _data_of(other)
        return NotImplemented if data is None else self._data >= data

    def __hash__(self) -> int:
        return hash(self._data)

    def _place(self, axis: str) -> int:
        """Return which component an axis has, or raise AxisNotFoundError."""
        if axis not in self.axes:
            raise AxisNotFoundError(
                f"the vector has no axis {axis!r}; it has {', '.join(self.axes) or 'none'}"
            )
        return self.axes.index(axis)

    def get(self, axis: str, default: int | None = None) -> int:
        """Return the component of an axis, or `default`.

        Raises
        ------
        AxisNotFoundError
            If there is no such axis and no default.
        """
        if default is not None and axis not in self.axes:
            return default
        return self._data[self._place(axis)]

    @property
    def x(self) -> int:
        """The component of the axis x; AxisNotFoundError where there is none."""
        return self.get(X_AXIS)

    @property
    def y(self) -> int:
        """The component of the axis y; AxisNotFoundError where there is none."""
        return self.get(Y_AXIS)

    @property
    def z(self) -> int:
        """The component of the axis z; AxisNotFoundError where there is none."""
        return self.get(Z_AXIS)

    @property
    def c(self) -> int:
        """The component of the axis c; AxisNotFoundError where there is none."""
        return self.get(C_AXIS)

    @property
    def xyz(self) -> Vec3Int:
        """The components of x, y and z, in this order; AxisNotFoundError where one is missing."""
        return Vec3Int(self.x, self.y, self.z)

    def is_positive(self, strictly_positive: bool = False) -> bool:
        """Return whether no component is negative (or, `strictly_positive`, none is below 1)."""
        return all(value >= (1 if strictly_positive else 0) for value in self._data)

    def is_uniform(self) -> bool:
        """Return whether all components are equal."""
        return len(set(self._data)) <= 1

    def contains(self, needle: int) -> bool:
        """Return whether a component has this value."""
        return needle in self._data

    def prod(self) -> int:
        """Return the product of the components."""
        return prod(self._data)

    def to_np(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return a numpy array of int64."""
        return np.array(self._data, dtype=np.int64)

    def to_list(self) -> list[int]:
        """Return a plain list, as JSON wants it."""
        return list(self._data)

    def to_tuple(self) -> tuple[int, ...]:
        """Return a plain tuple."""
        return self._data

    # --- others like it --------------------------------------------------------------------------------

    def with_replaced(self, axis: str | int, new_element: int) -> VecInt:
        """Return a copy with another component, named by its axis or by its place."""
        if isinstance(axis, str):
            place = self._place(axis)
        else:
            place = range(len(self))[axis]
        return _vector((*self._data[:place], new_element, *self._data[place + 1 :]), self.axes)

    def with_x(self, new_x: int) -> VecInt:
        """Return a copy with another x."""
        return self.with_replaced(X_AXIS, new_x)

    def with_y(self, new_y: int) -> VecInt:
        """Return a copy with another y."""
        return self.with_replaced(Y_AXIS, new_y)

    def with_z(self, new_z: int) -> VecInt:
        """Return a copy with another z."""
        return self.with_replaced(Z_AXIS, new_z)

    def with_c(self, new_c: int) -> VecInt:
        """Return a copy with another c."""
        return self.with_replaced(C_AXIS, new_c)

    def with_xyz(self, new_xyz: Vec3IntLike | VecInt) -> VecInt:
        """Return a copy with other components for x, y and z."""
        x, y, z = new_xyz.xyz if type(new_xyz) is VecInt else Vec3Int(new_xyz)
        return self.with_x(x).with_y(y).with_z(z)

    def moveaxis(self, source: int | Sequence[int], target: int | Sequence[int]) -> VecInt:
        """Return the components and their axes in another order, as :func:`numpy.moveaxis` moves axes."""
        order = np.moveaxis(np.empty(range(len(self))), source, target).shape  # of axes of lengths 0, 1, 2, …
        return _vector([self._data[n] for n in order], [self.axes[n] for n in order])

    def _with(self, other: Any, function: Callable[[int, int], int]) -> VecInt:
        """Return what a function makes of each pair of components; those of another vector go by their names."""
        if isinstance(other, VecInt):
            names = cast("tuple[str, ...]", getattr(other, "axes", XYZ_AXES))  # a Vec3Int may have none
            if set(names) == set(self.axes):
                by_name = dict(zip(names, other, strict=True))
                values: tuple[Any, ...] = tuple(by_name[axis] for axis in self.axes)
            else:
                raise InvalidValueError(
                    f"vectors of the axes {', '.join(self.axes)} and {', '.join(names)} cannot be combined"
                )
        elif _is_sequence(other):
            values = tuple(_integer(value, "a component of a vector") for value in other)
        else:
            values = (_integer(other, "a component of a vector"),) * len(self)
        if len(values) != len(self):
            raise InvalidValueError(
                f"{values!r} has {len(values)} components, the vector {self!r} has {len(self)}"
            )
        return _vector(map(function, self._data, values), self.axes)

    def __add__(self, other: Any) -> VecInt:
        return self._with(other, operator.add)

    def __sub__(self, other: Any) -> VecInt:
        return self._with(other, operator.sub)

    def __mul__(self, other: Any) -> VecInt:
        return self._with(other, operator.mul)

    def __floordiv__(self, other: Any) -> VecInt:
        return self._with(other, operator.floordiv)

    def __mod__(self, other: Any) -> VecInt:
        return self._with(other, operator.mod)

    def __neg__(self) -> VecInt:
        return self * -1

    def ceildiv(self, other: Any) -> VecInt:
        """Return the component-wise quotient, rounded up."""
        return self._with(other, _ceildiv)

    def pairmin(self, other: Any) -> VecInt:
        """Return the component-wise minimum."""
        return self._with(other, min)

    def pairmax(self, other: Any) -> VecInt:
        """Return the component-wise maximum."""
        return self._with(other, max)

    def add_or_none(self, other: VecInt | None) -> VecInt | None:
        """Return the sum, or None if there is nothing to add."""
        return None if other is None else self + other

    def __repr__(self) -> str:
        return f"VecInt({','.join(map(str, self._data))}, axes={self.axes!r})"


VecInt.register(Vec3Int)  # a tuple, for speed; with the axes x, y, z


def _is_sequence(value: object) -> bool:
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0


def _data_of(other: object) -> tuple[int, ...] | None:
    """Return what a vector is compared with; None for what is neither a vector nor a tuple."""
    if isinstance(other, tuple):
        return other
    return other._data if isinstance(other, VecInt) else None


def _vector(values: Iterable[Any], axes: Iterable[str]) -> VecInt:
    """Return a vector; refuse a number of components that differs from the number of axes."""
    data = tuple(_integer(value, "a component of a vector") for value in values)
    names = tuple(axes)
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidValueError(f"axes are named by texts such as 'x', got {names!r}")
    if len(set(names)) != len(names):
        raise InvalidValueError(f"each axis can be named once, got {names!r}")
    if len(data) != len(names):
        raise InvalidValueError(f"{len(data)} components {data!r} for {len(names)} axes {names!r}")
    self = object.__new__(VecInt)
    object.__setattr__(self, "_data", data)
    object.__setattr__(self, "axes", names)
    return self
