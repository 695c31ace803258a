"""OME-Zarr beside the arrays of a Zarr layer: its mags are the scales of one image, for every reader of OME-Zarr.

::

    <dataset>/zarr.json               a group
    <dataset>/<layer>/zarr.json       a group whose attributes list the mags: OME-Zarr 0.5
    <dataset>/<layer>/2-2-1/zarr.json an array

In Zarr 2 the files are ``.zgroup`` and ``.zattrs``, and the version is 0.4. All is derived from the properties, and
rewritten when the mags of the layer change. A voxel of mag 2 covers voxels 0 and 1 of mag 1: its middle
lies half a voxel further, which the translation of each scale says.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

from wkdask.errors import WkdaskError, WkdaskWarning
from wkdask.fsio import atomic_write, remove_temporaries
from wkdask.geometry import Mag
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.jobs.mag_folders import is_address, mag_folder, mags_lock
from wkdask.locations import outside
from wkdask.properties import LayerRecord
from wkdask.properties.handle import Properties
from wkdask.storage.formats import axes_of, open_mag

__all__ = ["GROUP_FILES", "multiscales_fault", "write_multiscales"]

GROUP_FILES = ("zarr.json", ".zgroup", ".zattrs")
"""The names of the files that this module writes."""

_VERSIONS = {"zarr3": "0.5", "zarr": "0.4"}


def write_multiscales(properties: Properties, layer_name: str) -> None:
    """Write the OME-Zarr metadata of a Zarr layer as its mags are now; nothing is done for others.

    What else the group's attributes hold is kept. Where they cannot be written a warning says so: the layer
    itself does not need them.

    Parameters
    ----------
    properties
        The dataset.
    layer_name
        The layer; one that is gone, lies outside of the dataset, or has no folder there is passed over.
    """
    records = {record.name: record for record in properties.record.layers}
    layer = records.get(layer_name)
    folder = os.path.join(properties.folder, layer_name)
    if layer is None or layer.data_format not in _VERSIONS or outside(properties.folder, folder) is not None:
        return
    if not os.path.isdir(folder):  # a layer that is listed by the paths of its mags
        return
    try:
        with mags_lock(properties.folder):  # of two who change the mags, the later one sees both
            layer = properties.layer(layer_name)
            for name in GROUP_FILES:
                remove_temporaries(os.path.join(folder, name))
                remove_temporaries(os.path.join(properties.folder, name))
            scales = _multiscale(properties, layer, folder)
            if layer.data_format == "zarr3":
                _write_group_3(properties.folder, folder, scales)
            else:
                _write_group_2(properties.folder, folder, scales)
    except (WkdaskError, OSError) as error:
        warnings.warn(
            f"the OME-Zarr metadata of {folder} could not be written: {error}", WkdaskWarning, stacklevel=2
        )


def multiscales_fault(properties: Properties, layer: LayerRecord) -> tuple[str, str] | None:
    """Return what is wrong with the OME-Zarr metadata of a layer: "missing" or "stale", and why; None for nothing.

    Only which mags they list counts, and the scale of each: the rest other programs may say otherwise.

    Parameters
    ----------
    properties
        The dataset.
    layer
        The layer; of one that has no such metadata nothing is wrong.
    """
    folder = os.path.join(properties.folder, layer.name)
    if layer.data_format not in _VERSIONS or not os.path.isdir(folder):
        return None
    if outside(properties.folder, folder) is not None:
        return None
    wanted = _multiscale(properties, layer, folder)
    name = "zarr.json" if layer.data_format == "zarr3" else ".zattrs"
    path = os.path.join(folder, name)
    if wanted is None:
        return None
    if not os.path.lexists(path):
        return "missing", f"there is no {name}"
    found: Mapping[str, Any] = _read(path)
    if not found:
        return "stale", f"{name} cannot be understood"
    if layer.data_format == "zarr3":
        found = _mapping(_mapping(found.get("attributes")).get("ome"))
    listed = found.get("multiscales")
    if not isinstance(listed, list) or not listed:
        return "missing", f"{name} lists no multiscales"
    want, have = _scales_by_path(wanted), _scales_by_path(_mapping(listed[0]))
    if want.keys() != have.keys():
        return "stale", f"{name} lists {', '.join(have) or 'none'}, the mags are {', '.join(want)}"
    for each, scale in want.items():
        if not _alike(scale, have[each]):
            return "stale", f"{name} says that {each} has the scale {have[each]}, it has {scale}"
    return None


def _scales_by_path(multiscale: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scale of each array that a multiscale lists."""
    found: dict[str, Any] = {}
    datasets = multiscale.get("datasets")
    for entry in datasets if isinstance(datasets, list) else []:
        placed = _mapping(entry).get("coordinateTransformations")
        scales = [_mapping(each).get("scale") for each in (placed if isinstance(placed, list) else [])]
        path = str(_mapping(entry).get("path"))
        found[path] = next((scale for scale in scales if scale is not None), None)
    return found


def _alike(wanted: list[float], found: Any) -> bool:
    """Return whether two scales are the same, but for rounding."""
    if not isinstance(found, list) or len(found) != len(wanted):
        return False
    return all(
        isinstance(b, int | float) and math.isclose(a, b, rel_tol=1e-6)
        for a, b in zip(wanted, found, strict=True)
    )


def _multiscale(properties: Properties, layer: LayerRecord, folder: str) -> dict[str, Any] | None:
    """Return what OME-Zarr calls a multiscale; None where no mag can be one of its scales."""
    size = properties.record.voxel_size
    datasets: list[dict[str, Any]] = []
    axes: str | None = None
    for record in sorted(layer.mags, key=lambda record: record.mag):
        if is_address(record):
            continue
        mag_path = mag_folder(properties.folder, layer.name, record)
        name = os.path.relpath(mag_path, folder)
        with contextlib.suppress(WkdaskError):  # a mag that cannot be opened is no scale
            found = axes_of(open_mag(mag_path, layer.data_format, record.raw))
            if os.path.dirname(name) or name == ".." or not _is_ordered(found) or found != (axes or found):
                continue
            axes = found
            datasets.append({"path": name, "coordinateTransformations": _placed(record.mag, size, found)})
    if axes is None:
        return None
    kinds = {"c": {"name": "c", "type": "channel"}}
    return {
        "name": layer.name,
        "axes": [kinds.get(axis) or {"name": axis, "type": "space", "unit": size.unit} for axis in axes],
        "datasets": datasets,
    }


def _is_ordered(axes: str) -> bool:
    """Return whether OME-Zarr allows this order of axes: channels first, all of them known."""
    return sorted(axes.removeprefix("c")) == ["x", "y", "z"]


def _placed(mag: Mag, size: VoxelSize, axes: str) -> list[dict[str, Any]]:
    """Return the scale of a mag, and where the middle of its first voxel lies."""
    steps = dict(zip("xyz", mag, strict=True))
    sides = dict(zip("xyz", size.factor, strict=True))
    scale = [1.0 if axis == "c" else steps[axis] * sides[axis] for axis in axes]
    shift = [0.0 if axis == "c" else (steps[axis] - 1) / 2 * sides[axis] for axis in axes]
    placed: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if any(shift):
        placed.append({"type": "translation", "translation": shift})
    return placed


def _write_group_3(dataset: str, folder: str, scales: dict[str, Any] | None) -> None:
    """Write ``zarr.json`` of the layer, and of the dataset where there is none."""
    group: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    path = os.path.join(folder, "zarr.json")
    found = _read(path)
    new = {**group, **found, "zarr_format": 3} if found.get("node_type") == "group" else dict(group)
    attributes = dict(_mapping(new["attributes"]))
    ome = dict(_mapping(attributes.get("ome", {})))
    attributes["ome"] = _with_scales(ome | {"version": _VERSIONS["zarr3"]}, scales)
    new["attributes"] = attributes
    _write(os.path.join(dataset, "zarr.json"), group, keep=True)
    _write(path, new)


def _write_group_2(dataset: str, folder: str, scales: dict[str, Any] | None) -> None:
    """Write ``.zgroup`` and ``.zattrs`` of the layer, and ``.zgroup`` of the dataset where there is none."""
    group = {"zarr_format": 2}
    path = os.path.join(folder, ".zattrs")
    versioned = None if scales is None else {"version": _VERSIONS["zarr"]} | scales
    _write(os.path.join(dataset, ".zgroup"), group, keep=True)
    _write(os.path.join(folder, ".zgroup"), group)
    _write(path, _with_scales(_read(path), versioned))


def _with_scales(attributes: Mapping[str, Any], scales: dict[str, Any] | None) -> dict[str, Any]:
    """Return attributes with these multiscales, or without any."""
    rest = {key: value for key, value in attributes.items() if key != "multiscales"}
    return rest if scales is None else rest | {"multiscales": [scales]}


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _read(path: str) -> Mapping[str, Any]:
    """Return the JSON object in a file; an empty one where there is none that can be understood."""
    try:
        with open(path, "rb") as file:
            return _mapping(json.load(file))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}


def _write(path: str, content: Mapping[str, Any], *, keep: bool = False) -> None:
    """Write a JSON file, unless it says so already; with `keep` only if there is none."""
    if os.path.lexists(path) and (keep or _read(path) == content):
        return
    atomic_write(path, json.dumps(content, indent=4).encode())
