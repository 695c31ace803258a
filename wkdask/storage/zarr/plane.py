"""One position along the further axes of a Zarr 3 array: a magnification (c, x, y, z) like any other.

An array (t, x, y, z) whose chunks have one position along t keeps each of them in a folder of its own::

    zarr.json            shape (7, 1024, 1024, 256), chunks (1, 32, 32, 32)
    c/0/{X}/{Y}/{Z}      the cubes of t = 0
    c/1/{X}/{Y}/{Z}      those of t = 1

So the folder ``c/1`` is read, built, published and locked as a mag, by the same code; only its metadata are derived
from those of the whole array.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from wkdask.errors import DamagedHeaderError, DTypeError, UnsupportedFormatError
from wkdask.fsio import atomic_write, checked_path, lock, make_folders
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.boxes import COORDINATE_LIMIT
from wkdask.storage.protocol import PRIVATE, ArraySpec, check_coordinates
from wkdask.storage.zarr.layout import ZarrLayout, document_of, layout_of_spec
from wkdask.storage.zarr.mag import ZarrMag
from wkdask.storage.zarr.metadata import parse, read_bytes, shape_around, to_json

__all__ = ["METADATA", "PlaneMag", "check_axes", "create_nd", "further_of", "open_plane"]

METADATA = "zarr.json"
SPATIAL = "xyz"


@dataclass(frozen=True, slots=True)
class PlaneMag(ZarrMag):
    """One position along the further axes of a Zarr 3 array; made by :func:`open_plane`.

    `path` is the folder of its cubes; everything else as for :class:`ZarrMag`.
    """

    root: str = ""
    """The absolute, real path of the array's folder."""
    all_axes: tuple[str, ...] = ()
    """The names of the array's dimensions."""
    positions: tuple[int, ...] = ()
    """The position along each further axis, in their order."""

    def __reduce__(self) -> tuple[Any, ...]:
        values = (self.outside, self.threads, self.root, self.all_axes, self.positions)
        return (PlaneMag, (self.path, self.layout, *values))

    @property
    def metadata_path(self) -> str:
        """The path of the array's ``zarr.json``."""
        return f"{self.root}/{METADATA}"

    def _document(self) -> tuple[bytes, list[int]]:
        """Return the array's metadata and the shape of this part, along the axes of `layout`."""
        data = read_bytes(self.metadata_path)
        layout, shape = _parsed(self.metadata_path, data, self.all_axes)
        if layout != self.layout:
            raise DamagedHeaderError(
                f"{self.metadata_path} now says {layout}, it said {self.layout} when it was opened"
            )
        return data, [shape[self.all_axes.index(axis)] for axis in self.layout.axes]

    def _grown(self, document: dict[str, Any], box: BoundingBox) -> list[int]:
        """Return the shape of the whole array with room for a box at this position."""
        shape = list(document["shape"])
        own = shape_around(self.layout, [shape[self.all_axes.index(axis)] for axis in self.layout.axes], box)
        for axis, side in zip(self.layout.axes, own, strict=True):
            shape[self.all_axes.index(axis)] = side
        for axis, position in zip(further_of(self.all_axes), self.positions, strict=True):
            n = self.all_axes.index(axis)
            shape[n] = max(shape[n], position + 1)
        return shape

    def prepare(self, box: BoundingBox) -> None:
        """Let the array's shape grow around a box, in whole cubes, and up to this position; make the folder."""
        check_coordinates(box, self.spec.shard_shape)
        self._refuse_foreign_layout()
        document = json.loads(self._document()[0])
        if self._grown(document, box) != document["shape"]:
            os.makedirs(f"{self.root}/{PRIVATE}/locks", exist_ok=True)
            with lock(f"{self.root}/{PRIVATE}/locks/metadata.lock"):  # of two that grow, both do
                document = json.loads(self._document()[0])
                document["shape"] = self._grown(document, box)
                atomic_write(self.metadata_path, to_json(document))
        make_folders(self.root, self.path)

    def opened(self, path: str) -> ZarrMag:
        """Open a private mag that :meth:`staged` made."""
        names = json.loads(read_bytes(os.path.join(path, METADATA))).get("dimension_names")
        if names == list("cxyz") and self.all_axes != tuple("cxyz"):  # a plain one
            return ZarrMag.open(path, self.layout.data_format)
        return open_plane(path, self.all_axes, self.positions)

    def staged(self, path: str, *, raw: bool = False) -> ZarrMag:
        """Make a private mag of the same type and cut; stored plainly where its cubes come in parts."""
        if raw:
            return ZarrMag.staged(self, path, raw=True)
        if not os.path.exists(os.path.join(path, METADATA)):  # there if an earlier run of the job made it
            room = BoundingBox((0, 0, 0), Vec3Int.full(COORDINATE_LIMIT) - self.spec.shard_shape)
            document = json.loads(self._document()[0])
            document["shape"] = self._grown(document, room)
            document["dimension_names"] = list(self.all_axes)
            os.makedirs(path, exist_ok=True)
            atomic_write(os.path.join(path, METADATA), to_json(document))
        found = open_plane(path, self.all_axes, self.positions)
        os.makedirs(f"{found.path}/{PRIVATE}/locks", exist_ok=True)
        return found

    def native_header(self) -> Any:
        """Return the metadata of the whole array as zarr-python's own object."""
        import zarr

        return zarr.open_array(self.root, mode="r").metadata


def further_of(axes: Sequence[str]) -> tuple[str, ...]:
    """Return the axes beside c, x, y, z, in their order."""
    return tuple(axis for axis in axes if axis not in ("c", *SPATIAL))


def open_plane(root: str, axes: Sequence[str], positions: Sequence[int]) -> PlaneMag:
    """Open one position along the further axes of an array.

    Parameters
    ----------
    root
        The array's folder.
    axes
        The names of its dimensions.
    positions
        The position along each further axis, in their order; none negative.

    Raises
    ------
    DamagedHeaderError
        If the metadata are missing or damaged.
    UnsupportedFormatError, DTypeError
        If the array is sound, but a position along its further axes has no folder of its own.
    """
    folder = os.path.realpath(checked_path(root))
    name = f"{folder}/{METADATA}"
    layout, _ = _parsed(name, read_bytes(name), tuple(axes))
    return _plane(folder, layout, tuple(axes), tuple(positions))


def _plane(root: str, layout: ZarrLayout, axes: tuple[str, ...], positions: tuple[int, ...]) -> PlaneMag:
    """Return the mag in the folder of a position."""
    place = dict(zip(further_of(axes), positions, strict=True))
    numbers = [str(place.get(axis, 0)) for axis in _leading(axes)]
    prefix = json.loads(read_bytes(f"{root}/{METADATA}"))["chunk_key_encoding"]
    encoding = prefix if isinstance(prefix, str) else prefix["name"]
    path = "/".join([root, *(["c"] if encoding == "default" else []), *numbers])
    return PlaneMag(path, layout, root=root, all_axes=axes, positions=positions)


def _leading(axes: Sequence[str]) -> tuple[str, ...]:
    """Return the axes before the first of x, y, z: they are the folders above those of cubes."""
    first = min(axes.index(axis) for axis in SPATIAL)
    return tuple(axes[:first])


@functools.lru_cache(256)
def _parsed(path: str, data: bytes, axes: tuple[str, ...]) -> tuple[ZarrLayout, tuple[int, ...]]:
    """Return the layout of one position along the further axes, and the shape of the whole array."""
    try:
        raw = json.loads(data)
        document, kept = _without_further(raw, axes)
        layout, _ = parse(document, "zarr3", {axis: n for n, axis in enumerate(kept)})
        if layout.files_per_cube > 1 or layout.grid[0] > 1:
            raise UnsupportedFormatError(
                "its channels are in several chunks, which is not supported with further axes"
            )
        # the numbers of leading axes are in the path of the folder, that of channels too
        rest = "".join(axis for axis in kept if axis not in _leading(axes))
        return replace(layout, axes=rest, prefix=""), tuple(raw["shape"])
    except (UnsupportedFormatError, DTypeError) as error:
        raise type(error)(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError) as error:
        raise DamagedHeaderError(f"{path} is damaged: {error!r}") from error


def _without_further(raw: Any, axes: tuple[str, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the metadata of an array without its further axes, and the axes that are left.

    Raises
    ------
    UnsupportedFormatError
        If a position along them has no folder of its own.
    ValueError, KeyError, TypeError, IndexError
        If the metadata are damaged.
    """
    if raw["zarr_format"] != 3 or raw["node_type"] != "array" or len(raw["shape"]) != len(axes):
        raise ValueError(f"it is no Zarr 3 array of the axes {', '.join(axes)}")
    if any(axis in further_of(axes) for axis in axes[len(_leading(axes)) :]):
        raise UnsupportedFormatError(f"its axes {', '.join(axes)} have a further one after x, y or z")
    kept = [n for n, axis in enumerate(axes) if axis in ("c", *SPATIAL)]

    def sides(values: list[int]) -> list[int]:
        if len(values) != len(axes):
            raise ValueError(f"its chunks {values} have not the axes {', '.join(axes)}")
        if any(side != 1 for n, side in enumerate(values) if n not in kept):
            raise UnsupportedFormatError(f"its chunks {values} have several positions along further axes")
        return [values[n] for n in kept]

    def chain(codecs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        labels, found = list(range(len(axes))), []
        for codec in codecs:
            if codec["name"] == "transpose":
                if sorted(codec["configuration"]["order"]) != list(range(len(axes))):
                    raise ValueError(f"its transpose has the order {codec['configuration']['order']}")
                labels = [labels[n] for n in codec["configuration"]["order"]]
            elif codec["name"] == "sharding_indexed":
                options = codec["configuration"]
                inner = options | {
                    "chunk_shape": sides(options["chunk_shape"]),
                    "codecs": chain(options["codecs"]),
                }
                found.append(codec | {"configuration": inner})
            else:
                found.append(codec)
        order = [kept.index(n) for n in labels if n in kept]
        if order == sorted(order):
            return found
        return [{"name": "transpose", "configuration": {"order": order}}, *found]

    encoding = raw["chunk_key_encoding"]
    name = encoding if isinstance(encoding, str) else encoding["name"]
    options = {} if isinstance(encoding, str) else encoding.get("configuration", {})
    if options.get("separator", "/" if name == "default" else ".") != "/":
        raise UnsupportedFormatError(
            "its chunks are not in folders, which is not supported with further axes"
        )
    grid = raw["chunk_grid"]
    document = {
        **{key: value for key, value in raw.items() if key != "dimension_names"},
        "shape": [raw["shape"][n] for n in kept],
        "chunk_grid": grid | {"configuration": {"chunk_shape": sides(grid["configuration"]["chunk_shape"])}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "/"}},
        "codecs": chain(raw["codecs"]),
    }
    return document, tuple(axes[n] for n in kept)


def create_nd(path: str, spec: ArraySpec, axes: Sequence[str], sizes: dict[str, int]) -> None:
    """Make the folder of an array with further axes, with its metadata published atomically.

    Parameters
    ----------
    path
        The folder.
    spec
        Type and cut along c, x, y, z; along each further axis a chunk has one position.
    axes
        The names of the dimensions: x, y, z last, in this order.
    sizes
        How far the array reaches along each axis but c; along x, y and z it gets whole cubes.

    Raises
    ------
    UnsupportedFormatError, DTypeError
        If the array cannot be written so; nothing was made.
    """
    check_axes(axes, spec.num_channels)
    document = document_of(layout_of_spec(spec, "zarr3"), (1, 1, 1, 1))
    sides = {"c": spec.num_channels, **dict(zip(SPATIAL, spec.shard_shape, strict=True))}
    chunk = {"c": spec.num_channels, **dict(zip(SPATIAL, spec.chunk_shape, strict=True))}
    shape = {"c": spec.num_channels, **{axis: max(1, sizes[axis]) for axis in axes if axis != "c"}}
    for axis in SPATIAL:
        shape[axis] = -(-shape[axis] // sides[axis]) * sides[axis]
    document["shape"] = [shape[axis] for axis in axes]
    document["dimension_names"] = list(axes)
    document["chunk_grid"]["configuration"]["chunk_shape"] = [sides.get(axis, 1) for axis in axes]
    codecs = document["codecs"]
    if codecs[0]["name"] == "sharding_indexed":
        codecs[0]["configuration"]["chunk_shape"] = [chunk.get(axis, 1) for axis in axes]
        codecs = codecs[0]["configuration"]["codecs"]
    codecs[0]["configuration"]["order"] = list(range(len(axes)))[::-1]
    folder = checked_path(path)
    os.makedirs(folder, exist_ok=True)
    atomic_write(os.path.join(folder, METADATA), to_json(document))


def check_axes(axes: Sequence[str], num_channels: int) -> None:
    """Refuse the axes of an array that is not written here, before anything is made for it.

    Raises
    ------
    UnsupportedFormatError
        If x, y, z are not the last ones, in this order, or channels have no axis.
    """
    if tuple(axes[-3:]) != tuple(SPATIAL) or len(set(axes)) != len(axes):
        raise UnsupportedFormatError(
            f"arrays with further axes are written with x, y, z last, such as t, c, x, y, z; got {', '.join(axes)}"
        )
    if "c" not in axes and num_channels > 1:
        raise UnsupportedFormatError(
            f"an array of {num_channels} channels needs the axis c; got {', '.join(axes)}"
        )
