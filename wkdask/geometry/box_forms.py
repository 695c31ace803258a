"""The forms in which boxes are written: dicts, texts, tuples, names of checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry.vectors import Vec3Int, Vec3IntLike

__all__ = ["BoundingBoxNamedTuple", "BoxForms"]


class BoundingBoxNamedTuple(NamedTuple):
    """A box as a named pair of plain tuples, as 2021 has it."""

    topleft: tuple[int, int, int]
    """The smallest corner."""
    size: tuple[int, int, int]
    """Voxels along each axis."""


class BoxForms:
    """The part of a :class:`~wkdask.geometry.boxes.BoundingBox` that reads and writes its other forms.

    Examples
    --------
    >>> box = BoundingBox((1, 2, 3), (4, 5, 6))
    >>> box.to_csv(), box.to_tuple6(), box.to_checkpoint_name()
    ('1,2,3,4,5,6', (1, 2, 3, 4, 5, 6), '1_2_3_4_5_6')
    >>> box.to_tuple2() == box.to_named_tuple() == ((1, 2, 3), (4, 5, 6))
    True
    >>> box.to_wkw_dict()
    {'topLeft': [1, 2, 3], 'width': 4, 'height': 5, 'depth': 6}
    >>> box.to_config_dict()
    {'topleft': [1, 2, 3], 'size': [4, 5, 6]}
    >>> box == BoundingBox.from_csv("1,2,3,4,5,6") == BoundingBox.from_tuple6((1, 2, 3, 4, 5, 6))
    True
    >>> box == BoundingBox.from_tuple2(((1, 2, 3), (4, 5, 6))) == BoundingBox.from_named_tuple(box.to_named_tuple())
    True
    >>> box == BoundingBox.from_wkw_dict(box.to_wkw_dict()) == BoundingBox.from_config_dict(box.to_config_dict())
    True
    >>> box == BoundingBox.from_checkpoint_name("x_1_2_3_4_5_6") == BoundingBox.from_points([(1, 2, 3), (4, 6, 8)])
    True
    """

    __slots__ = ()

    topleft: Vec3Int
    size: Vec3Int

    if TYPE_CHECKING:

        def __init__(self, topleft: Vec3IntLike, size: Vec3IntLike) -> None: ...

    @classmethod
    def from_auto(cls, obj: Any) -> Self:
        """Return the box of any form that there is.

        Parameters
        ----------
        obj
            A box; ``"x,y,z,width,height,depth"``; six integers; ``(topleft, size)``; a dict with ``topLeft``,
            ``width``, ``height``, ``depth`` or with ``topleft`` and ``size``; either of these as JSON.

        Raises
        ------
        InvalidValueError
            If it is none of these.

        Examples
        --------
        >>> BoundingBox.from_auto("0,0,0,64,64,32") == BoundingBox.from_auto([(0, 0, 0), (64, 64, 32)])
        True
        """
        if isinstance(obj, cls):
            return obj
        if isinstance(obj, str):
            if not obj.lstrip().startswith("{"):
                return cls.from_csv(obj)
            try:
                return cls.from_auto(json.loads(obj))
            except json.JSONDecodeError as error:
                raise InvalidValueError(f"the box {obj!r} is no JSON: {error}") from error
        if isinstance(obj, Mapping):
            try:
                return cls.from_config_dict(obj) if "size" in obj else cls.from_wkw_dict(obj)
            except KeyError as error:
                raise InvalidValueError(f"the box {obj!r} has no {error}") from None
        if isinstance(obj, list | tuple | np.ndarray) and len(obj) == 6:
            return cls.from_tuple6(list(obj))
        if isinstance(obj, list | tuple | np.ndarray) and len(obj) == 2:
            return cls(obj[0], obj[1])
        raise InvalidValueError(
            f'expected a box, "x,y,z,width,height,depth", six integers, (topleft, size), or a dict with topLeft, '
            f"width, height and depth or with topleft and size; got {obj!r}"
        )

    @classmethod
    def from_points(cls, points: Iterable[Vec3IntLike]) -> Self:
        """Return the smallest box that holds all points as voxels.

        Raises
        ------
        InvalidValueError
            If there are no points.
        """
        vectors = [Vec3Int(point) for point in points]
        if not vectors:
            raise InvalidValueError("there is no box around no points")
        low, high = vectors[0], vectors[0]
        for vector in vectors:
            low, high = low.pairmin(vector), high.pairmax(vector)
        return cls(low, high - low + 1)

    @classmethod
    def from_wkw_dict(cls, bbox: Mapping[str, Any]) -> Self:
        """Return the box of ``{"topLeft": [x, y, z], "width": …, "height": …, "depth": …}``."""
        return cls(bbox["topLeft"], (bbox["width"], bbox["height"], bbox["depth"]))

    def to_wkw_dict(self) -> dict[str, Any]:
        """Return the box as the properties file writes it."""
        width, height, depth = self.size
        return {"topLeft": list(self.topleft), "width": width, "height": height, "depth": depth}

    @classmethod
    def from_config_dict(cls, bbox: Mapping[str, Any]) -> Self:
        """Return the box of ``{"topleft": [x, y, z], "size": [x, y, z]}``."""
        return cls(bbox["topleft"], bbox["size"])

    def to_config_dict(self) -> dict[str, Any]:
        """Return ``{"topleft": [x, y, z], "size": [x, y, z]}``."""
        return {"topleft": self.topleft.to_list(), "size": self.size.to_list()}

    @classmethod
    def from_checkpoint_name(cls, checkpoint_name: str) -> Self:
        """Return the box of a name with ``x_y_z_width_height_depth`` in it.

        Raises
        ------
        InvalidValueError
            If it is not.
        """
        match = re.search(r"(?<!\d)\d+(_\d+){5}(?!\d)", checkpoint_name, re.ASCII)
        if match is None:
            raise InvalidValueError(
                f"expected a name with x_y_z_width_height_depth in it, got {checkpoint_name!r}"
            )
        return cls.from_tuple6([int(part) for part in match.group().split("_")])

    def to_checkpoint_name(self) -> str:
        """Return ``"x_y_z_width_height_depth"``."""
        return "_".join(map(str, self.to_tuple6()))

    @classmethod
    def from_named_tuple(cls, bb_named_tuple: Any) -> Self:
        """Return the box of anything with the attributes ``topleft`` and ``size``."""
        return cls(bb_named_tuple.topleft, bb_named_tuple.size)

    def to_named_tuple(self) -> BoundingBoxNamedTuple:
        """Return ``topleft`` and ``size`` as a named pair of plain tuples."""
        return BoundingBoxNamedTuple(*self.to_tuple2())

    @classmethod
    def from_tuple2(cls, tuple2: tuple[Vec3IntLike, Vec3IntLike]) -> Self:
        """Return the box of ``(topleft, size)``."""
        return cls(*tuple2)

    def to_tuple2(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Return ``(topleft, size)`` as plain tuples."""
        return (self.topleft.to_tuple(), self.size.to_tuple())

    @classmethod
    def from_tuple6(cls, tuple6: Sequence[int]) -> Self:
        """Return the box of ``(x, y, z, width, height, depth)``."""
        if len(tuple6) != 6:
            raise InvalidValueError(f"expected six integers x,y,z,width,height,depth, got {tuple6!r}")
        return cls(tuple(tuple6[:3]), tuple(tuple6[3:]))

    def to_tuple6(self) -> tuple[int, ...]:
        """Return ``(x, y, z, width, height, depth)``."""
        return (*self.topleft, *self.size)

    @classmethod
    def from_csv(cls, csv_bbox: str) -> Self:
        """Return the box of a text ``"x,y,z,width,height,depth"``."""
        try:
            return cls.from_tuple6([int(part) for part in csv_bbox.split(",")])
        except ValueError as error:
            raise InvalidValueError(
                f'a box is written "x,y,z,width,height,depth", got {csv_bbox!r}'
            ) from error

    def to_csv(self) -> str:
        """Return ``"x,y,z,width,height,depth"``."""
        return ",".join(map(str, self.to_tuple6()))
