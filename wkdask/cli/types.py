"""Types of arguments: what a word of a command line means, or one line and exit code 2 where it means nothing.

What a type needs is imported when a word is looked at: a help is shown without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from wkdask.errors import InvalidValueError, WkdaskError

if TYPE_CHECKING:
    from wkdask.geometry import BoundingBox, Mag

__all__ = [
    "BOUNDARY",
    "BOX",
    "BYTES",
    "CATEGORY",
    "COMPRESSION",
    "DATA_FORMAT",
    "DTYPE",
    "INTERPOLATION",
    "MAG",
    "NEW_LAYER",
    "PAGES",
    "PART",
    "PNG",
    "RANGE",
    "RESOURCE",
    "SAMPLING",
    "SHAPE",
    "SIDES",
    "SIDES_OF_CUBES",
    "UNIT",
    "VOXEL_SIZE",
    "Numbers",
    "check_cut",
]


def check_cut(
    data_format: str,
    chunk_shape: tuple[int, ...] | None,
    shard_shape: tuple[int, ...] | None,
    compression: str | bool | None,
    *,
    usual_chunk: tuple[int, ...] | None = None,
    usual_shard: tuple[int, ...] | None = None,
) -> None:
    """Refuse, as a command line that is not understood, what no mag of a format can be cut and compressed by.

    Parameters
    ----------
    data_format, chunk_shape, shard_shape, compression
        What was given; None where nothing was.
    usual_chunk, usual_shard
        Sides of a chunk and of a cube where none are given; None where those of what is copied count.
    """
    from wkdask.geometry import Vec3Int
    from wkdask.storage.formats import check_spec, fitting_compression
    from wkdask.storage.protocol import ArraySpec

    chunk = chunk_shape or (shard_shape if data_format == "zarr" else usual_chunk)
    shard = shard_shape or usual_shard or chunk or (32, 32, 32)
    if chunk_shape is None and shard_shape is not None and chunk is not None:
        chunk = tuple(map(min, chunk, shard))
    try:
        fitting = fitting_compression(data_format, compression)
        spec = ArraySpec("uint8", 1, Vec3Int(chunk or shard), Vec3Int(shard), fitting, data_format)
        check_spec(spec, data_format)
    except WkdaskError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """Three numbers separated by commas.

    Parameters
    ----------
    kind
        ``int`` or ``float``.
    example
        What would be right, for the message.
    broadcast
        Whether one number may stand for all three.
    least
        The smallest number.
    above
        What every number is larger than.
    """

    def __init__(
        self,
        kind: type[int] | type[float],
        example: str,
        *,
        broadcast: bool = False,
        least: int | None = None,
        above: int | None = None,
    ) -> None:
        self._kind, self._example, self._broadcast = kind, example, broadcast
        self._least, self._above = least, above
        self.name = "N|X,Y,Z" if broadcast else "X,Y,Z"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self._kind(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) == 1 and self._broadcast:
            numbers *= 3
        if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
            count = "one number or three" if self._broadcast else "three numbers"
            self.fail(f"expected {count} such as {self._example}, got {value!r}", param, ctx)
        if self._least is not None and min(numbers) < self._least:
            self.fail(f"expected numbers from {self._least} on, got {value!r}", param, ctx)
        if self._above is not None and min(numbers) <= self._above:
            self.fail(f"expected numbers above {self._above}, got {value!r}", param, ctx)
        return numbers


class _RangeType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """Two numbers: 0,4095."""

    name = "MIN,MAX"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            low, high = map(float, str(value).split(","))
        except ValueError:
            self.fail(f"expected two numbers such as 0,4095, got {value!r}", param, ctx)
        return low, high


class _MagType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """A magnification: 4 or 4-4-2."""

    name = "MAG"

    def convert(self, value: Any, param: Any, ctx: Any) -> Mag:
        """Return the mag."""
        from wkdask.geometry import Mag

        try:
            return Mag(value)
        except WkdaskError as error:
            self.fail(str(error), param, ctx)


class _BoxType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """A corner and a size."""

    name = "X,Y,Z,W,H,D"

    def convert(self, value: Any, param: Any, ctx: Any) -> BoundingBox:
        """Return the box."""
        from wkdask.geometry import BoundingBox

        try:
            box = value if isinstance(value, BoundingBox) else BoundingBox.from_csv(value)
        except WkdaskError:
            self.fail(f"expected a corner and a size such as 0,0,10,512,512,20, got {value!r}", param, ctx)
        if box.is_empty():
            self.fail(f"the box {value} holds no voxel", param, ctx)
        return box


class _BytesType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """An amount of memory: 4GiB."""

    name = "BYTES"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Return how many."""
        if isinstance(value, int):
            return value
        from dask.utils import parse_bytes

        try:
            count = int(parse_bytes(value))
        except ValueError:
            count = 0
        if count <= 0:
            self.fail(f"expected bytes such as 4GiB, got {value!r}", param, ctx)
        return count


class _BoundaryType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """A way of filling, or the number that fills."""

    name = "clip|reflect|nearest|N"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | int | float:
        """Return the word or the number."""
        if not isinstance(value, str) or value in ("clip", "reflect", "nearest"):
            return value  # type: ignore[no-any-return]
        try:
            return int(value)
        except ValueError:
            pass
        try:
            return float(value)
        except ValueError:
            self.fail(f"expected clip, reflect, nearest or a number, got {value!r}", param, ctx)


class _PartType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """One of several parts: 3/8."""

    name = "K/N"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Return which of how many."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            self.fail(f"a part is written K/N with K from 1 to N, such as 3/8; got {value!r}", param, ctx)
        return number, count


class _ResourceType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """What a task occupies of a worker: GPU=1."""

    name = "NAME=N"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, float]:
        """Return name and number."""
        if isinstance(value, tuple):
            return value
        name, _, text = value.partition("=")
        try:
            count = float(text)
        except ValueError:
            count = 0.0
        if not name or not count > 0 or not math.isfinite(count):
            self.fail(f"a resource is written NAME=N, such as GPU=1; got {value!r}", param, ctx)
        return name, count


class _Checked(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """A text that a function of the API takes, or refuses with its own words."""

    def __init__(self, name: str, check: Callable[[str], Any]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the text itself."""
        try:
            self._check(value)
        except WkdaskError as error:
            self.fail(str(error), param, ctx)
        return value


def _check_layer_name(name: str) -> None:
    from wkdask.properties import AddLayer

    AddLayer(name, "color", "uint8", 1).apply({"scale": {}, "version": 1, "dataLayers": []})


def _check_pages(pages: str) -> None:
    from wkdask.external.images.info import Choice

    Choice.of(pages, None, False)


def _check_unit(unit: str) -> None:
    from wkdask.geometry.voxel_size import VoxelSize

    VoxelSize((1, 1, 1), unit)


def _check_png(path: str) -> None:
    if not path.lower().endswith(".png"):
        raise InvalidValueError(f"a preview is a PNG; name it so, got {path}")


class _DTypeType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """A type of voxels: uint8."""

    name = "TYPE"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Return the name that numpy has for it."""
        import numpy as np

        from wkdask.storage.protocol import DTYPES

        try:
            name = str(np.dtype(value))
        except TypeError:
            name = ""
        if name not in DTYPES:
            self.fail(f"layers hold {', '.join(DTYPES)}; got {value!r}", param, ctx)
        return name


class _ShapeType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """The sides of an array: 100,512,512."""

    name = "N,N,N"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            sides = tuple(map(int, str(value).split(",")))
        except ValueError:
            sides = ()
        if not 2 <= len(sides) <= 5 or min(sides) < 1:
            self.fail(f"expected the sides of an array such as 100,512,512, got {value!r}", param, ctx)
        return sides


BOUNDARY = _BoundaryType()
BOX = _BoxType()
BYTES = _BytesType()
CATEGORY = click.Choice(["color", "segmentation"])
COMPRESSION = click.Choice(["none", "lz4", "lz4hc", "zstd", "gzip", "zlib", "blosc"])
DATA_FORMAT = click.Choice(["wkw", "zarr3", "zarr"])
DTYPE = _DTypeType()
INTERPOLATION = click.Choice(
    ["default", "median", "mode", "min", "max", "nearest", "bilinear", "bicubic"], case_sensitive=False
)
"""Those of `wkdask.kernels`, which is not imported to show a help; so it is with formats and compressions."""
MAG = _MagType()
NEW_LAYER = _Checked("NAME", _check_layer_name)
PAGES = _Checked("PAGES", _check_pages)
PART = _PartType()
PNG = _Checked("PNG", _check_png)
RANGE = _RangeType()
RESOURCE = _ResourceType()
SAMPLING = click.Choice(["anisotropic", "isotropic", "constant_z"])
SHAPE = _ShapeType()
SIDES = Numbers(int, "32 or 32,32,16", broadcast=True, least=1)
"""Of a chunk."""
UNIT = _Checked("UNIT", _check_unit)
SIDES_OF_CUBES = Numbers(int, "256 or 256,256,64", broadcast=True, least=1)
VOXEL_SIZE = Numbers(float, "4.6,4.6,45", above=0)
