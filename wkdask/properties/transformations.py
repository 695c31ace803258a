"""Where WEBKNOSSOS puts the voxels of a layer: affine maps and thin plate splines, as frozen values."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import cos, radians, sin
from typing import Any, ClassVar

import numpy as np

from wkdask.errors import InvalidValueError, PropertiesError
from wkdask.geometry.vec3_float import Vec3Float, Vec3FloatLike

__all__ = [
    "AffineCoordinateTransformation",
    "CoordinateTransformation",
    "OtherCoordinateTransformation",
    "ThinPlateSplineCoordinateTransformation",
    "transformation_of",
    "transformations_json",
]

Array = np.ndarray[Any, np.dtype[np.float64]]


class CoordinateTransformation:
    """What maps a layer's coordinates to those of the dataset, in voxels of mag 1.

    Examples
    --------
    >>> layer.coordinate_transformations = [AffineCoordinateTransformation.from_translation((10, 0, 0))]
    >>> isinstance(layer.coordinate_transformations[0], CoordinateTransformation)
    True
    """

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the properties file has for it."""
        raise NotImplementedError(f"{type(self).__name__} has no JSON")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CoordinateTransformation):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(repr(self.to_json()))


def _frozen(value: Any, what: str, shape: tuple[int | None, int]) -> Array:
    """Return numbers as an array of floats that cannot be written to, or raise InvalidValueError."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidValueError(f"{what} has numbers only, got {reprlib.repr(value)}") from None
    wanted = (array.shape[0] if array.ndim and shape[0] is None else shape[0], shape[1])
    if array.shape != wanted:
        expected = " × ".join("N" if n is None else str(n) for n in shape)
        raise InvalidValueError(f"{what} has the shape {expected}, got {array.shape}")
    if not np.isfinite(array).all():
        raise InvalidValueError(f"{what} has finite numbers only, got {reprlib.repr(array.tolist())}")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, init=False, eq=False)
class AffineCoordinateTransformation(CoordinateTransformation):
    """A matrix that maps ``(x, y, z, 1)``.

    Parameters
    ----------
    matrix
        4 × 4 numbers, row by row.

    Raises
    ------
    InvalidValueError
        If it is not 4 × 4 finite numbers.

    Examples
    --------
    >>> moved = AffineCoordinateTransformation.identity().scale((2, 2, 1)).translate((10, 0, 0))
    >>> moved.matrix[0].tolist()
    [2.0, 0.0, 0.0, 10.0]
    """

    matrix: Array
    """4 × 4 float64; cannot be written to."""

    def __init__(self, matrix: Any) -> None:
        object.__setattr__(self, "matrix", _frozen(matrix, "an affine matrix", (4, 4)))

    @classmethod
    def identity(cls) -> AffineCoordinateTransformation:
        """Return the map that changes nothing."""
        return cls(np.eye(4))

    @classmethod
    def from_translation(cls, translation: Vec3FloatLike) -> AffineCoordinateTransformation:
        """Return the map that adds a vector."""
        matrix = np.eye(4)
        matrix[:3, 3] = Vec3Float(translation)
        return cls(matrix)

    @classmethod
    def from_scale(cls, scale: Vec3FloatLike) -> AffineCoordinateTransformation:
        """Return the map that multiplies x, y and z by a factor each."""
        return cls(np.diag([*Vec3Float(scale), 1.0]))

    @classmethod
    def from_rotation(cls, axis: str, angle: float) -> AffineCoordinateTransformation:
        """Return the rotation about an axis.

        Parameters
        ----------
        axis
            ``"x"``, ``"y"`` or ``"z"``.
        angle
            In degrees; about z, positive angles turn x to y.

        Raises
        ------
        InvalidValueError
            If there is no such axis.
        """
        place = _axis(axis)
        first, second = (place + 1) % 3, (place + 2) % 3
        matrix = np.eye(4)
        matrix[first, first] = matrix[second, second] = cos(radians(angle))
        matrix[second, first] = sin(radians(angle))
        matrix[first, second] = -matrix[second, first]
        return cls(matrix)

    def chain(self, other: AffineCoordinateTransformation) -> AffineCoordinateTransformation:
        """Return this map followed by another one."""
        if not isinstance(other, AffineCoordinateTransformation):
            raise InvalidValueError(
                f"only affine maps can be chained into one, got {other!r}; a layer may have several transformations"
            )
        return AffineCoordinateTransformation(other.matrix @ self.matrix)

    def translate(self, translation: Vec3FloatLike) -> AffineCoordinateTransformation:
        """Return this map followed by `from_translation`."""
        return self.chain(self.from_translation(translation))

    def scale(self, scale: Vec3FloatLike) -> AffineCoordinateTransformation:
        """Return this map followed by `from_scale`."""
        return self.chain(self.from_scale(scale))

    def rotate(self, axis: str, angle: float) -> AffineCoordinateTransformation:
        """Return this map followed by `from_rotation`; the angle is in degrees."""
        return self.chain(self.from_rotation(axis, angle))

    def flip(self, axis: str) -> AffineCoordinateTransformation:
        """Return this map with one coordinate of its result negated."""
        factors = [1.0, 1.0, 1.0]
        factors[_axis(axis)] = -1.0
        return self.scale(factors)

    def to_json(self) -> dict[str, Any]:
        """Return ``{"type": "affine", "matrix": …}``."""
        return {"type": "affine", "matrix": self.matrix.tolist()}


@dataclass(frozen=True, slots=True, init=False, eq=False)
class ThinPlateSplineCoordinateTransformation(CoordinateTransformation):
    """A smooth map that takes landmarks to others.

    Parameters
    ----------
    source, target
        N × 3 numbers each: where landmarks are in the layer, and where they go.

    Raises
    ------
    InvalidValueError
        If there are none, not as many of both, or one is not three finite numbers.

    Examples
    --------
    >>> corners = [(0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)]
    >>> layer.coordinate_transformations = [ThinPlateSplineCoordinateTransformation(corners, corners)]
    >>> len(layer.coordinate_transformations)
    1
    """

    source: Array
    """N × 3 float64: in the layer; cannot be written to."""
    target: Array
    """N × 3 float64: in the dataset; cannot be written to."""

    def __init__(self, source: Any, target: Any) -> None:
        both = [("source", source), ("target", target)]
        if any(isinstance(value, Sequence | np.ndarray) and len(value) == 0 for _, value in both):
            raise InvalidValueError("a thin plate spline needs at least one landmark in source and in target")
        for name, value in both:
            object.__setattr__(self, name, _frozen(value, f"the {name} of a thin plate spline", (None, 3)))
        if len(self.source) != len(self.target):
            raise InvalidValueError(
                f"each landmark of source has one in target, got {len(self.source)} and {len(self.target)}"
            )

    @classmethod
    def from_pairs(cls, pairs: Iterable[Sequence[Vec3FloatLike]]) -> ThinPlateSplineCoordinateTransformation:
        """Return the map of pairs (source, target) of points."""
        found = [tuple(pair) for pair in pairs]
        if any(len(pair) != 2 for pair in found):
            raise InvalidValueError(f"landmarks are pairs of points, got {reprlib.repr(found)}")
        return cls([Vec3Float(a).to_tuple() for a, _ in found], [Vec3Float(b).to_tuple() for _, b in found])

    @property
    def pairs(self) -> tuple[tuple[Vec3Float, Vec3Float], ...]:
        """The landmarks as pairs (source, target)."""
        points = zip(self.source.tolist(), self.target.tolist(), strict=True)
        return tuple((Vec3Float(a), Vec3Float(b)) for a, b in points)

    def to_json(self) -> dict[str, Any]:
        """Return ``{"type": "thin_plate_spline", "correspondences": {"source": …, "target": …}}``."""
        landmarks = {"source": self.source.tolist(), "target": self.target.tolist()}
        return {"type": "thin_plate_spline", "correspondences": landmarks}


@dataclass(frozen=True, slots=True, eq=False)
class OtherCoordinateTransformation(CoordinateTransformation):
    """A transformation of a kind that is not known here; kept as the properties file has it."""

    KEYS: ClassVar[tuple[str, ...]] = ("type",)
    raw: Mapping[str, Any] = field()
    """The JSON object; not to be changed."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return dict(self.raw)


def transformation_of(raw: Any, where: str) -> CoordinateTransformation:
    """Return the value of a JSON object.

    Parameters
    ----------
    raw
        The object.
    where
        What it belongs to, for messages.

    Raises
    ------
    PropertiesError
        If it is not the JSON of a transformation.
    """
    try:
        kind = raw["type"]
        if kind == "affine" and set(raw) == {"type", "matrix"}:
            return AffineCoordinateTransformation(raw["matrix"])
        if kind == "thin_plate_spline" and set(raw) == {"type", "correspondences"}:
            landmarks = raw["correspondences"]
            return ThinPlateSplineCoordinateTransformation(landmarks["source"], landmarks["target"])
        return OtherCoordinateTransformation(raw)
    except (InvalidValueError, KeyError, TypeError) as error:
        raise PropertiesError(
            f"{where}: {reprlib.repr(raw)} is no coordinate transformation: {error}"
        ) from None


def transformations_json(
    values: Iterable[CoordinateTransformation | Mapping[str, Any]] | None,
) -> list[dict[str, Any]]:
    """Return transformations, in the order in which they are applied, as JSON objects.

    Raises
    ------
    InvalidValueError
        If one is neither a transformation nor a JSON object.
    """
    if isinstance(values, CoordinateTransformation | Mapping):
        raise InvalidValueError(f"a sequence of transformations is expected, got one: {reprlib.repr(values)}")
    found = list(values or ())
    if not all(isinstance(each, CoordinateTransformation | Mapping) for each in found):
        raise InvalidValueError(f"a sequence of transformations is expected, got {reprlib.repr(found)}")
    return [each.to_json() if isinstance(each, CoordinateTransformation) else dict(each) for each in found]


def _axis(axis: str) -> int:
    if axis not in ("x", "y", "z"):
        raise InvalidValueError(f"an axis is x, y or z, got {axis!r}")
    return "xyz".index(axis)
