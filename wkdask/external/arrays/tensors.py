"""N5 and neuroglancer precomputed, read by tensorstore; their JSON says voxel size, scales and where they begin."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wkdask.errors import DamagedHeaderError, InvalidValueError, UnsupportedFormatError
from wkdask.external.arrays.found import Asked, Found, Part, library, one_of, shown_error, whole_steps
from wkdask.geometry.voxel_size import VoxelSize, unit_named
from wkdask.storage.protocol import Voxels

__all__ = ["n5_found", "precomputed_found"]

_JSON_NBYTES = 16 << 20
_CHUNKS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An array that tensorstore reads, with its index from 0 on."""

    spec: str
    """The specification for tensorstore, as JSON."""

    def opened(self) -> Any:
        """Open it, with no cache and few threads: tasks are many."""
        import tensorstore

        context = tensorstore.Context(
            {"cache_pool": {"total_bytes_limit": 0}, "data_copy_concurrency": {"limit": _CHUNKS_AT_ONCE}}
        )
        array = tensorstore.open(json.loads(self.spec), read=True, context=context).result()
        return array[tensorstore.d[:].translate_to[0]]

    def read(self, index: tuple[slice, ...]) -> Voxels:
        """Return a part."""
        part: Voxels = self.opened()[index].read().result()
        return part


def _spec(driver: str, path: str, **more: Any) -> str:
    return json.dumps({"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}, **more})


def _json(path: str) -> Mapping[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    DamagedHeaderError
        If it is none.
    """
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(_JSON_NBYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedHeaderError(f"{path} cannot be read: {shown_error(error)}") from error
    if not isinstance(content, dict):
        raise DamagedHeaderError(f"{path} holds no JSON object")
    return content


# --- precomputed ---------------------------------------------------------------------------------------


def precomputed_found(path: str, inner: str, asked: Asked) -> Found:
    """Return what a neuroglancer precomputed volume says: every scale becomes a mag.

    Raises
    ------
    DamagedHeaderError
        If its ``info`` is damaged.
    """
    del inner, asked
    library("tensorstore", "precomputed")
    info = _json(f"{path}/info")
    try:
        kind = str(info["data_type"])
        channels = int(info["num_channels"])
        scales = sorted(info["scales"], key=lambda scale: np.prod(scale["resolution"]))
        finest = [float(side) for side in scales[0]["resolution"]]
        parts, notes = [], []
        for scale in scales:
            name, sides = str(scale["key"]), [float(side) for side in scale["resolution"]]
            step = whole_steps(sides, finest)
            if step is None or min(step) < 1 or any(n & (n - 1) for n in step):
                notes.append(
                    f"scale {name!r} of {path} is left out: its voxels {sides} are no powers of two of {finest}"
                )
                continue
            parts.append(_scale(path, scale, kind, channels, step))
        size = VoxelSize((finest[0], finest[1], finest[2]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, InvalidValueError):
            raise
        raise DamagedHeaderError(f"{path}/info is damaged: {shown_error(error)}") from error
    return Found(tuple(parts), "xyzc", size, tuple(notes))


def _scale(path: str, scale: Mapping[str, Any], kind: str, channels: int, step: tuple[int, int, int]) -> Part:
    """Return one scale."""
    name = str(scale["key"])
    x, y, z = map(int, scale["size"])
    sx, sy, sz = map(int, scale["chunk_sizes"][0])
    ox, oy, oz = map(int, scale.get("voxel_offset", (0, 0, 0)))
    corner = (ox, oy, oz) if min(ox, oy, oz) >= 0 else None
    spec = _spec("neuroglancer_precomputed", path, scale_metadata={"key": name})
    return Part(
        f"{path}:{name}",
        _Tensor(spec),
        (x, y, z, channels),
        kind,
        (sx, sy, sz, channels),
        step,
        corner,
        _CHUNKS_AT_ONCE,
    )


# --- N5 ------------------------------------------------------------------------------------------------


def n5_found(path: str, inner: str, asked: Asked) -> Found:
    """Return what an N5 dataset says; of a group with scales the finest, ``s0``.

    Raises
    ------
    DamagedHeaderError
        If its attributes are damaged.
    InvalidValueError
        If it is a group of several datasets, and none of them is named.
    """
    del asked
    library("tensorstore", "N5")
    folder = os.path.realpath(os.path.join(path, inner.strip("/")))
    if os.path.commonpath([folder, path]) != path:
        raise InvalidValueError(f"{inner} points outside of {path}")
    notes = []
    if not _is_dataset(folder):
        there = _datasets(folder)
        multiscale = bool(there) and all(name.startswith("s") and name[1:].isdigit() for name in there)
        if len(there) == 1 or (multiscale and "s0" in there):
            name = "s0" if multiscale else next(iter(there))
            rest = [other for other in there if other != name]
            left = f"; {', '.join(rest)} are left out, and --downsample computes coarser mags" if rest else ""
            notes.append(f"the dataset {name} of {folder} is taken{left}")
        else:
            name = one_of(
                path,
                inner.strip("/"),
                {f"{inner.strip('/')}/{n}".lstrip("/"): s for n, s in there.items()},
                "dataset",
            )
            name = os.path.relpath(os.path.join(path, name), folder)
        parent, folder = folder, os.path.join(folder, name)
    else:
        parent = os.path.dirname(folder)
    attributes = _json(f"{folder}/attributes.json")
    try:
        shape = tuple(map(int, attributes["dimensions"]))
        chunks = tuple(map(int, attributes["blockSize"]))
        kind = np.dtype(str(attributes["dataType"])).name
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedHeaderError(f"{folder}/attributes.json is damaged: {shown_error(error)}") from error
    reader = _Tensor(_spec("n5", folder))
    try:
        reader.opened()
    except (ValueError, OSError) as error:
        raise UnsupportedFormatError(f"{folder} cannot be opened as N5: {shown_error(error)}") from error
    group = _json(f"{parent}/attributes.json") if os.path.isfile(f"{parent}/attributes.json") else {}
    axes = _n5_axes(attributes, len(shape)) or _n5_axes(group, len(shape))
    size = _n5_size(attributes, axes) or _n5_size(group, axes)
    return Found(
        (Part(folder, reader, shape, kind, chunks, at_once=_CHUNKS_AT_ONCE),), axes, size, tuple(notes)
    )


def _is_dataset(folder: str) -> bool:
    """Return whether this is a dataset, not a group."""
    return os.path.isfile(f"{folder}/attributes.json") and "dimensions" in _json(f"{folder}/attributes.json")


def _datasets(folder: str) -> dict[str, str]:
    """Return the datasets below a group, two levels deep: names, and what they hold."""
    found: dict[str, str] = {}
    for depth in ("", "*"):
        tops = sorted(os.listdir(folder)) if depth else [""]
        for top in tops:
            base = os.path.join(folder, top)
            if not os.path.isdir(base) or (top and _is_dataset(base)):
                continue
            for name in sorted(os.listdir(base)):
                if os.path.isdir(f"{base}/{name}") and _is_dataset(f"{base}/{name}"):
                    held = _json(f"{base}/{name}/attributes.json")
                    found[os.path.join(top, name)] = f"{held.get('dimensions')} {held.get('dataType')}"
    return found


def _n5_axes(attributes: Mapping[str, Any], ndim: int) -> str | None:
    """Return the axes that attributes name: N5 counts x first."""
    names = attributes.get("axes")
    if not isinstance(names, list) and isinstance(attributes.get("pixelResolution"), dict) and ndim == 3:
        return "xyz"  # of BigDataViewer and the N5 viewer, whose axes are these
    if not isinstance(names, list) and isinstance(
        attributes.get("transform"), dict
    ):  # COSEM, in the order of C
        names = attributes["transform"].get("axes")
        names = list(reversed(names)) if isinstance(names, list) else None
    letters = "".join(str(name).lower()[:1] for name in names) if isinstance(names, list) else ""
    known = len(letters) == ndim and not set(letters) - set("tczyx") and len(set(letters)) == ndim
    return letters if known else None


def _n5_size(attributes: Mapping[str, Any], axes: str | None) -> VoxelSize | None:
    """Return the voxel size that attributes name, for axes in the order of N5."""
    given = attributes.get("pixelResolution")
    sides: Any = given.get("dimensions") if isinstance(given, dict) else None
    unit: Any = given.get("unit") if isinstance(given, dict) else None
    transform = attributes.get("transform")
    if sides is None and isinstance(transform, dict):
        scale, units = transform.get("scale"), transform.get("units")
        sides = list(reversed(scale)) if isinstance(scale, list) else None
        unit = units[0] if isinstance(units, list) and len(set(map(str, units))) == 1 else None
    if sides is None:
        sides, units = attributes.get("resolution"), attributes.get("units")
        unit = units[0] if isinstance(units, list) and len(set(map(str, units))) == 1 else None
    named = unit_named(unit)
    if not isinstance(sides, list) or len(sides) != len(axes or "") or named is None:
        return None
    try:
        by_axis = dict(zip(str(axes), map(float, sides), strict=True))
        return VoxelSize((by_axis["x"], by_axis["y"], by_axis["z"]), named)
    except (ValueError, TypeError, KeyError):
        return None
