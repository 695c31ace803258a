"""The metadata of Zarr arrays, ``zarr.json`` (Zarr 3) and ``.zarray`` (Zarr 2), checked and read into a layout."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wkdask import settings
from wkdask.errors import DamagedHeaderError, DTypeError, UnsupportedFormatError
from wkdask.fsio import EXHAUSTED, open_regular
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import DTYPES
from wkdask.storage.zarr.codecs import Codec, codec_of
from wkdask.storage.zarr.layout import AXES, Sharding, ZarrLayout, check_sizes

__all__ = ["covers", "frozen", "parse", "parsed", "read_bytes", "room_for", "shape_around", "to_json"]

_METADATA_NBYTES = 1 << 20
"""Metadata of an array have a few hundred bytes."""


def parse(
    raw: Any, data_format: str, axis_order: Mapping[str, int] | None = None
) -> tuple[ZarrLayout, list[int]]:
    """Return an array's layout and its shape, in the order of its dimensions.

    Parameters
    ----------
    raw
        The JSON of the metadata file.
    data_format
        ``"zarr3"`` or ``"zarr"``.
    axis_order
        Which dimension is which axis, as the properties have it; else the names of the dimensions say, else
        they are (c, x, y, z) or (x, y, z).

    Raises
    ------
    ValueError
        If the metadata are damaged; says what is wrong.
    UnsupportedFormatError, DTypeError
        If they are sound, but not of an array that can be a layer.
    """
    layout, shape = (_parse_v3 if data_format == "zarr3" else _parse_v2)(raw, axis_order)
    check_sizes(layout)
    return layout, shape


def _parse_v3(raw: Any, axis_order: Mapping[str, int] | None) -> tuple[ZarrLayout, list[int]]:
    raw = _typed(raw, dict, "the metadata")
    if raw.get("zarr_format") != 3 or raw.get("node_type") != "array":
        raise ValueError(
            f"it is a {raw.get('node_type')!r} of Zarr {raw.get('zarr_format')!r}, not an array of Zarr 3"
        )
    if raw.get("storage_transformers"):
        raise UnsupportedFormatError("storage transformers are not supported")
    shape = _sides(raw, "shape", 0)
    axes = _axes(len(shape), axis_order, raw.get("dimension_names"))
    grid, grid_options = _named(raw.get("chunk_grid"), "chunk_grid")
    if grid != "regular":
        raise UnsupportedFormatError(
            f"a chunk grid of the kind {grid!r} is not supported, only a regular one"
        )
    shard = _sides(grid_options, "chunk_shape", 1)
    encoding, key_options = _named(raw.get("chunk_key_encoding"), "chunk_key_encoding")
    if encoding not in ("default", "v2"):
        raise UnsupportedFormatError(f"chunk keys of the kind {encoding!r} are not supported")
    separator = key_options.get("separator", "/" if encoding == "default" else ".")
    dtype = raw.get("data_type")
    if dtype is None:
        raise ValueError("it has no data_type")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise DTypeError(f"a layer cannot hold {dtype}; known types are {', '.join(DTYPES)}")
    codecs = _chain(raw.get("codecs"), "codecs")
    sharding, chunk = None, shard
    if codecs[0][0] == "sharding_indexed":
        if len(codecs) > 1:
            raise UnsupportedFormatError("codecs around shards are not supported")
        options = codecs[0][1]
        chunk = _sides(options, "chunk_shape", 1)
        codecs = _chain(options.get("codecs"), "the codecs of a shard")
        sharding = _sharding(options)
        if len(chunk) != len(shard) or any(large % small for large, small in zip(shard, chunk, strict=True)):
            raise ValueError(f"its shards {shard} are no multiple of their chunks {chunk}")
    order, big_endian, byte_codecs = _array_codecs(codecs, len(shape), dtype)
    dimensions = _Dimensions(axes, shape, chunk, shard, [axes[n] for n in reversed(order)])
    prefix = "c" + _separator(separator) if encoding == "default" else ""
    stored = _Elements(dtype, big_endian, raw.get("fill_value"), byte_codecs)
    return _layout("zarr3", dimensions, stored, (prefix, separator), sharding), shape


def _parse_v2(raw: Any, axis_order: Mapping[str, int] | None) -> tuple[ZarrLayout, list[int]]:
    raw = _typed(raw, dict, "the metadata")
    if raw.get("zarr_format") != 2:
        raise ValueError(f"it is of Zarr {raw.get('zarr_format')!r}, not 2")
    shape, chunk = _sides(raw, "shape", 0), _sides(raw, "chunks", 1)
    axes = _axes(len(shape), axis_order, None)
    text = raw.get("dtype")
    if not isinstance(text, str):
        raise DTypeError(f"a layer cannot hold structured voxels ({text!r})")
    try:
        stored = np.dtype(text)
    except TypeError:
        raise ValueError(f"its dtype {text!r} is none") from None
    if stored.name not in DTYPES:
        raise DTypeError(f"a layer cannot hold {text}; known types are {', '.join(DTYPES)}")
    if raw.get("filters"):
        raise UnsupportedFormatError("filters of Zarr 2 are not supported")
    codecs: tuple[Codec, ...] = ()
    if raw.get("compressor") is not None:
        options = dict(_typed(raw["compressor"], dict, "compressor"))
        name = _typed(options.pop("id", None), str, "the compressor's id")
        if name == "blosc":
            options["typesize"] = stored.itemsize
        codecs = (codec_of(name, options),)
    if raw.get("order") not in ("C", "F"):
        raise ValueError(f"its order is {raw.get('order')!r}, expected 'C' or 'F'")
    order = axes if raw["order"] == "F" else axes[::-1]
    separator = raw.get("dimension_separator", ".")
    dimensions = _Dimensions(axes, shape, chunk, chunk, order)
    elements = _Elements(stored.name, stored.byteorder == ">", raw.get("fill_value"), codecs)
    return _layout("zarr", dimensions, elements, ("", separator), None), shape


@dataclass(frozen=True, slots=True)
class _Dimensions:
    """What metadata say of the dimensions of an array, in their order."""

    axes: str
    """The letter of each; a dot for one that is none of ours."""
    shape: list[int]
    """Elements."""
    chunk: list[int]
    """Elements of a chunk."""
    shard: list[int]
    """Elements of a shard; of a chunk where there are none."""
    order: Sequence[str]
    """The letters, the axis that is fastest in memory first."""


@dataclass(frozen=True, slots=True)
class _Elements:
    """What metadata say of the elements of an array."""

    dtype: str
    """Type of a voxel, as numpy calls it."""
    big_endian: bool
    """Whether its highest byte comes first."""
    fill: Any
    """The value of missing chunks, as it is written there."""
    codecs: tuple[Codec, ...]
    """What is done to the bytes of a chunk, in this order."""


def _layout(
    data_format: str,
    dimensions: _Dimensions,
    elements: _Elements,
    names: tuple[str, str],
    sharding: Sharding | None,
) -> ZarrLayout:
    """Turn what is said per dimension into what is said per axis.

    Parameters
    ----------
    data_format
        ``"zarr3"`` or ``"zarr"``.
    dimensions, elements
        What is said.
    names
        What the names of chunks begin with, and what is between their numbers.
    sharding
        How the index of shards is stored; None where chunks are files.
    """
    axes, shape, chunk, shard = dimensions.axes, dimensions.shape, dimensions.chunk, dimensions.shard
    prefix, separator = names
    if len(chunk) != len(shape) or len(shard) != len(shape):
        raise ValueError(f"its shape {shape} and its chunks {shard} have different numbers of dimensions")
    for axis, length, *sides in zip(axes, shape, chunk, shard, strict=True):
        if axis == "." and (length > 1 or sides != [1, 1]):
            raise UnsupportedFormatError(
                f"an axis beside c, x, y, z that has {length} entries is not supported"
            )

    def per_axis(sides: list[int]) -> tuple[int, int, int, int]:
        c, x, y, z = (sides[axes.index(axis)] if axis in axes else 1 for axis in AXES)
        return (c, x, y, z)

    kept = [axis for axis in dimensions.order if axis != "."]
    missing = [axis for axis in AXES if axis not in axes]
    return ZarrLayout(
        data_format=data_format,
        axes=axes,
        dtype=elements.dtype,
        channels=per_axis(shape)[0],
        chunk=per_axis(chunk),
        shard=per_axis(shard),
        order="".join([*missing, *kept]),
        codecs=elements.codecs,
        sharding=sharding,
        prefix=prefix,
        separator=_separator(separator),
        big_endian=elements.big_endian,
        fill=_fill(elements.fill, elements.dtype),
    )


def _axes(ndim: int, axis_order: Mapping[str, int] | None, names: Any) -> str:
    """Return the letter of each dimension."""
    if axis_order is None and isinstance(names, list) and {"x", "y", "z"} <= {str(name) for name in names}:
        axis_order = {str(name): n for n, name in enumerate(names)}
        if len(axis_order) < len(names) and any(names.count(axis) > 1 for axis in AXES):
            raise ValueError(f"its dimensions are called {names!r:.200}")
    if axis_order is None:
        if ndim not in (3, 4):
            raise UnsupportedFormatError(f"an array of {ndim} dimensions without names is not supported")
        return "xyz" if ndim == 3 else "cxyz"
    letters = ["."] * ndim
    for axis in AXES:
        if axis in axis_order:
            n = axis_order[axis]
            if not isinstance(n, int) or not 0 <= n < ndim or letters[n] != ".":
                raise ValueError(
                    f"its axes {dict(axis_order)} are not those of an array of {ndim} dimensions"
                )
            letters[n] = axis
        elif axis != "c":
            raise ValueError(f"it has no axis {axis}: {dict(axis_order)}")
    return "".join(letters)


def _sharding(options: dict[str, Any]) -> Sharding:
    """Return how the index of shards is stored."""
    location = options.get("index_location", "end")
    names = _chain(options.get("index_codecs"), "index_codecs")
    little = names[0][0] == "bytes" and names[0][1].get("endian", "little") == "little"
    rest = [name for name, _ in names[1:]]
    if location not in ("start", "end") or not little or rest not in ([], ["crc32c"]):
        raise UnsupportedFormatError(f"a shard's index at {location!r}, encoded by {names}, is not supported")
    return Sharding(location == "end", bool(rest))


def _array_codecs(
    codecs: list[tuple[str, dict[str, Any]]], ndim: int, dtype: str
) -> tuple[list[int], bool, tuple[Codec, ...]]:
    """Return the order of dimensions in memory (slowest first), the byte order, and the codecs of bytes."""
    order = list(range(ndim))
    todo = list(codecs)
    while todo and todo[0][0] == "transpose":
        wanted = todo.pop(0)[1].get("order")
        if not isinstance(wanted, list) or sorted(map(repr, wanted)) != sorted(map(repr, range(ndim))):
            raise ValueError(f"its transpose has the order {wanted!r} of {ndim} dimensions")
        order = [order[n] for n in wanted]
    if not todo or todo[0][0] != "bytes":
        raise UnsupportedFormatError(f"its codecs {[name for name, _ in codecs]} are not supported")
    endian = todo.pop(0)[1].get("endian", "little")
    if endian not in ("little", "big"):
        raise ValueError(f"its bytes are {endian!r}-endian")
    big_endian = endian == "big" and np.dtype(dtype).itemsize > 1
    return order, big_endian, tuple(codec_of(name, options) for name, options in todo)


def _fill(value: Any, dtype: str) -> bytes:
    """Return the bytes of the element that missing chunks are full of; none for zeros."""
    kind = np.dtype(dtype)
    if value is None:
        return b""
    try:
        if isinstance(value, str) and value.startswith("0x"):
            element = np.array([int(value, 16)], f"u{kind.itemsize}").view(kind)
        else:
            element = np.array([value], kind)
        if kind.kind != "f" and int(element[0]) != value:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"its fill value {value!r} is no {dtype}") from None
    data = element.tobytes()
    return data if any(data) else b""


def _separator(value: Any) -> str:
    if value not in (".", "/"):
        raise ValueError(f"its keys are separated by {value!r}, expected '.' or '/'")
    return str(value)


def _named(value: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Return name and configuration of an extension point."""
    if isinstance(value, str):
        return value, {}
    value = _typed(value, dict, where)
    name = _typed(value.get("name"), str, f"the name of {where}")
    return name, _typed(value.get("configuration", {}), dict, f"the configuration of {name}")


def _chain(value: Any, where: str) -> list[tuple[str, dict[str, Any]]]:
    """Return names and configurations of a list of codecs."""
    codecs = [_named(entry, where) for entry in _typed(value, list, where)]
    if not codecs:
        raise ValueError(f"{where} is empty")
    return codecs


def _sides(raw: dict[str, Any], key: str, low: int) -> list[int]:
    """Return a list of whole numbers."""
    values = _typed(raw.get(key), list, key)
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**62:
            raise ValueError(f"its {key} is {values!r:.200}, expected whole numbers of at least {low}")
    return list(values)


def _typed(value: Any, kind: type, where: str) -> Any:
    """Return a value that has a type."""
    if not isinstance(value, kind):
        raise ValueError(f"{where} is {value!r:.200}, expected a {kind.__name__}")
    return value


# --- metadata on disk ---------------------------------------------------------------------------------


def frozen(axis_order: Mapping[str, int] | None) -> tuple[tuple[str, int], ...] | None:
    """Return the order of axes as a key."""
    return None if axis_order is None else tuple(axis_order.items())


def read_bytes(path: str) -> bytes:
    """Return the bytes of a metadata file."""
    try:
        descriptor = open_regular(path)
        try:
            data = os.pread(descriptor, _METADATA_NBYTES + 1, 0)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise DamagedHeaderError(
            f"{path} is missing: is the folder a magnification, is the share mounted?"
        ) from error
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise DamagedHeaderError(f"{path} cannot be read: {error}") from error
    if len(data) > _METADATA_NBYTES:
        raise DamagedHeaderError(
            f"{path} has more than {_METADATA_NBYTES} bytes, which no array's metadata have"
        )
    return data


@functools.lru_cache(256)
def parsed(
    path: str, data: bytes, data_format: str, axis_order: tuple[tuple[str, int], ...] | None
) -> tuple[ZarrLayout, tuple[int, ...]]:
    """Return layout and shape that metadata say; remembered, since every read looks at them."""
    try:
        raw = json.loads(data)
        layout, shape = parse(raw, data_format, None if axis_order is None else dict(axis_order))
    except (UnsupportedFormatError, DTypeError) as error:
        raise type(error)(f"{path}: {error}") from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise DamagedHeaderError(f"{path} is damaged: {error}") from error
    return layout, tuple(shape)


def to_json(document: dict[str, Any]) -> bytes:
    """Return metadata as bytes."""
    return json.dumps(document, indent=2).encode()


def covers(layout: ZarrLayout, shape: Sequence[int], box: BoundingBox) -> bool:
    """Return whether an array of a shape has all voxels of a box."""
    return all(
        shape[layout.axes.index(axis)] >= high for axis, high in zip("xyz", box.bottomright, strict=True)
    )


def shape_around(layout: ZarrLayout, shape: Sequence[int], box: BoundingBox) -> list[int]:
    """Return a shape, grown around a box: to the end of the cubes that it touches, or see `room_for`."""
    new = list(shape)
    for axis, end in zip("xyz", room_for(box.bottomright, Vec3Int(layout.shard[1:])), strict=True):
        n = layout.axes.index(axis)
        new[n] = max(shape[n], end)
    return new


def room_for(end: Vec3Int, shard: Vec3Int) -> Vec3Int:
    """Return the shape (x, y, z) that an array needs so that it holds all voxels up to an end.

    Whole shards by default, as webknossos makes them: it writes whole ones, and cannot write into an array that
    ends within one. Viewers of OME-Zarr show all of an array, and begin in its middle; for them the setting
    ``wkdask.zarr-shape: box`` lets an array end where the voxels do.

    Parameters
    ----------
    end
        The far corner of what it holds.
    shard
        Sides of a shard.

    Raises
    ------
    InvalidValueError
        If the setting is to something else.
    """
    return end if settings.get("zarr-shape") == "box" else end.ceildiv(shard) * shard
