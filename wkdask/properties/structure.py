"""Edits of which layers and magnifications a file lists."""

from __future__ import annotations

import posixpath
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag
from wkdask.geometry.boxes import COORDINATE_LIMIT
from wkdask.properties.elements import element_class
from wkdask.properties.rawjson import PROPERTIES_FILE, Raw
from wkdask.properties.records import (
    CATEGORIES,
    MAX_NAME_BYTES,
    data_format_of,
    entry_mag,
    layout_of,
    no_such_mag,
)
from wkdask.properties.values import box_json, find_layer, id_json, names_json, plain_json, whole_argument

__all__ = ["AddLayer", "AddMag", "MoveMag", "RemoveLayer", "RemoveMag", "RenameLayer", "SetDataFormat"]

_NAME = re.compile(r"[A-Za-z0-9_$@-][A-Za-z0-9_$@.-]*")
_AXIS_ORDER = {"c": 0, "x": 1, "y": 2, "z": 3}


def _check_new_name(raw: Raw, name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidValueError(
            f"a layer's name has letters, digits and _ $ @ - . and does not start with a dot; got {name!r}"
        )
    if len(name) > MAX_NAME_BYTES or name == PROPERTIES_FILE:
        raise InvalidValueError(
            f"a layer's name is that of a folder: at most {MAX_NAME_BYTES} letters, and not {PROPERTIES_FILE}; "
            f"got {reprlib.repr(name)}"
        )
    if any(layer["name"] == name for layer in raw["dataLayers"]):
        raise AlreadyExistsError(f"there already is a layer {name!r}")


# --- layers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddLayer:
    """Add a layer without magnifications.

    Raises on `apply` an AlreadyExistsError, an InvalidValueError (name, category, id, extra key), an
    OutOfBoundsError (box) or a DTypeError.
    """

    name: str
    """Letters, digits and ``_ $ @ - .``, not starting with a dot."""
    category: str
    """``"color"`` or ``"segmentation"``."""
    dtype_per_channel: str
    """Such as ``"uint8"``; ``"float"`` has 32 bits."""
    num_channels: int
    """Channels per voxel."""
    data_format: str = "wkw"
    """``"wkw"``, ``"zarr3"``, …"""
    bounding_box: BoundingBox = EMPTY_BOX
    """In voxels of mag 1, absolute."""
    largest_segment_id: int | None = None
    """Of a segmentation, if known."""
    mappings: Sequence[str] = ()
    """Of a segmentation."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the layer, as JSON: ``defaultViewConfiguration``, ``coordinateTransformations``, …"""

    def apply(self, raw: dict[str, Any]) -> None:
        """Append the layer, in the layout of the file."""
        _check_new_name(raw, self.name)
        if self.category not in CATEGORIES:
            raise InvalidValueError(f"a category is one of {', '.join(CATEGORIES)}; got {self.category!r}")
        legacy = layout_of(raw) == "legacy" and self.data_format == "wkw"
        channels = whole_argument(self.num_channels, "the number of channels", 1, 2**16)
        word = element_class(self.dtype_per_channel, channels)
        layer: Raw = {
            "name": self.name,
            "category": self.category,
            "boundingBox": box_json(self.bounding_box),
        }
        if legacy:
            layer |= {"elementClass": word, "dataFormat": "wkw", "numChannels": channels}
            layer |= {"wkwResolutions": []} | self._segmentation_keys(legacy)
        else:
            layer |= {"dataFormat": self.data_format, "mags": []} | self._segmentation_keys(legacy)
            layer |= {"numChannels": channels, "elementClass": word}
        clash = {*layer, "mags", "wkwResolutions", "largestSegmentId", "mappings"} & {*self.extra}
        if clash:
            raise InvalidValueError(f"extra cannot set {', '.join(sorted(clash))}")
        raw["dataLayers"].append(layer | plain_json(self.extra, "extra"))

    def _segmentation_keys(self, legacy: bool) -> Raw:
        if self.category != "segmentation":
            if self.largest_segment_id is not None or self.mappings:
                raise InvalidValueError(f"the color layer {self.name!r} has no segment ids and mappings")
            return {}
        keys: Raw = {}
        if legacy or self.largest_segment_id is not None:  # readers of 2021 want both keys
            keys["largestSegmentId"] = id_json(self.largest_segment_id)
        if legacy or self.mappings:
            keys["mappings"] = names_json(self.mappings)
        return keys


@dataclass(frozen=True, slots=True)
class SetDataFormat:
    """Give a layer without mags another data format.

    Raises LayerNotFoundError or InvalidValueError on `apply`.
    """

    name: str
    """The layer."""
    data_format: str
    """``"wkw"``, ``"zarr3"``, …"""

    def apply(self, raw: dict[str, Any]) -> None:
        """Set the format, unless the layer has mags, or is written as in 2021."""
        layer = find_layer(raw, self.name)
        if layer.get("mags") != [] or layer.get("wkwResolutions") is not None:
            raise InvalidValueError(f"layer {self.name!r} has mags, or can have mags of WKW only")
        layer["dataFormat"] = self.data_format


@dataclass(frozen=True, slots=True)
class RemoveLayer:
    """Remove a layer; raises LayerNotFoundError on `apply`."""

    name: str
    """The layer."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Drop the layer's object."""
        raw["dataLayers"].remove(find_layer(raw, self.name))


@dataclass(frozen=True, slots=True)
class RenameLayer:
    """Rename a layer; paths that lead into its folder follow.

    Raises on `apply` a LayerNotFoundError, an AlreadyExistsError or an InvalidValueError.
    """

    old: str
    """The layer."""
    new: str
    """Its new name, also of its folder."""
    folder: str | None = None
    """The dataset's absolute path: with it, absolute and ``../`` paths follow too; `commit` fills it in."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Change the name, and the paths of mags and attachments of all layers."""
        layer = find_layer(raw, self.old)
        if self.new == self.old:
            return
        _check_new_name(raw, self.new)
        layer["name"] = self.new
        for each in raw["dataLayers"]:
            for holder in _path_holders(each):
                holder["path"] = self._moved(holder["path"])

    def _moved(self, path: str) -> str:
        if "://" in path:
            return path
        base = self.folder or ""
        home = posixpath.normpath(posixpath.join(base, self.old))
        full = posixpath.normpath(posixpath.join(base, path))
        if full != home and not full.startswith(home + "/"):
            return path
        return f"./{self.new}{full[len(home) :]}"


def _path_holders(layer: Raw) -> Iterator[Raw]:
    """Yield the objects of a layer that hold a ``path``: its mags and its attachments."""
    mags = layer.get("mags")
    holders = list(mags) if isinstance(mags, list) else []
    attachments = layer.get("attachments")
    if isinstance(attachments, dict):
        for value in attachments.values():
            holders += value if isinstance(value, list) else [value]
    return (holder for holder in holders if isinstance(holder, dict) and isinstance(holder.get("path"), str))


# --- magnifications ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddMag:
    """List a magnification that is ready on disk.

    Raises on `apply` a LayerNotFoundError, an AlreadyExistsError or an InvalidValueError.
    """

    layer: str
    """The layer."""
    mag: Mag
    """The magnification."""
    cube_length: int | None
    """Voxels of this mag along each side of a wkw cube; None for other formats."""
    path: str | None = None
    """Where it is: relative to the dataset, absolute or a URL; None: ``./<layer>/<mag>``."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the entry, or another ``axisOrder``, as JSON."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Append the entry to the lists that the layer has."""
        layer, mag = find_layer(raw, self.layer), Mag(self.mag)
        old, new = _listed(layer, "wkwResolutions"), _listed(layer, "mags")
        if mag in old or mag in new:
            raise AlreadyExistsError(f"layer {self.layer!r} already has mag {mag}")
        is_wkw = data_format_of(layer) == "wkw"
        if self.cube_length is None and is_wkw:
            raise InvalidValueError(f"mag {mag} of the wkw layer {self.layer!r} needs a cube length")
        cube = self.cube_length
        if cube is not None:
            cube = whole_argument(cube, "a cube length", 1, COORDINATE_LIMIT)
        if self.path is not None and (not self.path or "\0" in self.path):
            raise InvalidValueError(f"the path of mag {mag} is empty or holds a NUL byte: {self.path!r}")
        clash = {"mag", "path", "cubeLength"} & {*self.extra}
        if clash:
            raise InvalidValueError(f"extra cannot set {', '.join(sorted(clash))}")
        self._check_axes(layer)
        default = f"./{self.layer}/{mag.to_layer_name()}"
        path = default if self.path is None else self.path
        # an old entry has no field for a path: a reader of wkwResolutions would look in the wrong folder
        fits_old = is_wkw and posixpath.normpath(path) == posixpath.normpath(default) and not self.extra
        if layer.get("wkwResolutions") is not None:
            if not fits_old:
                _move_to_mags(layer)
            elif layer.get("mags") is None or set(new) <= set(old):
                layer["wkwResolutions"].append({"resolution": mag.to_list(), "cubeLength": cube})
        if layer.get("mags") is not None or layer.get("wkwResolutions") is None:
            entry: Raw = {"mag": mag.to_list(), "path": path}
            if cube is not None:
                entry["cubeLength"] = cube
            entry |= {"axisOrder": dict(_AXIS_ORDER)} | plain_json(self.extra, "extra")
            layer["mags"] = [*(layer.get("mags") or []), entry]

    def _check_axes(self, layer: Raw) -> None:
        """Refuse a mag that lacks axes which the layer has: with it, no mag of the layer could be opened."""
        further = [axis for axis in layer.get("additionalAxes") or [] if isinstance(axis, Mapping)]
        order = self.extra.get("axisOrder", _AXIS_ORDER)
        places = {*order.values(), *(axis.get("index") for axis in further)}
        if further and places != {*range(len(order) + len(further))}:
            names = ", ".join(str(axis.get("name")) for axis in further)
            raise InvalidValueError(
                f"layer {self.layer!r} has axes beside c, x, y, z ({names}), and mag {self.mag} is not one of its "
                "mags: it lacks them; layer.add_mag() adds one, and mag.write() writes its positions"
            )


@dataclass(frozen=True, slots=True)
class MoveMag:
    """Let a magnification be in another folder, cut into other cubes; its other keys stay.

    Raises on `apply` a LayerNotFoundError, a MagNotFoundError or an InvalidValueError.
    """

    layer: str
    """The layer."""
    mag: Mag
    """The magnification."""
    path: str
    """Where it is, relative to the dataset: ``./<layer>/<folder>``."""
    cube_length: int | None = None
    """Voxels of this mag along each side of a wkw cube; None for other formats."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """An ``axisOrder`` that is not the usual one, as JSON."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Change the entries of both lists; an old one has no place for another folder, and becomes a new one."""
        layer, mag = find_layer(raw, self.layer), Mag(self.mag)
        listed = [each for key in ("mags", "wkwResolutions") for each in _listed(layer, key)]
        if mag not in listed:
            raise no_such_mag(self.layer, mag, dict.fromkeys(listed))
        changed: Raw = {}
        if self.cube_length is not None:
            changed["cubeLength"] = whole_argument(self.cube_length, "a cube length", 1, COORDINATE_LIMIT)
        usual = posixpath.normpath(self.path) == posixpath.normpath(f"{self.layer}/{mag.to_layer_name()}")
        if not usual and layer.get("wkwResolutions") is not None:
            _move_to_mags(layer)
        if (entry := _listed(layer, "wkwResolutions").get(mag)) is not None:
            entry.update(changed)
        if (entry := _listed(layer, "mags").get(mag)) is not None:
            entry.update({"path": self.path} | changed)
            if "axisOrder" in entry or self.extra:
                entry.update({"axisOrder": dict(_AXIS_ORDER)} | plain_json(self.extra, "extra"))


@dataclass(frozen=True, slots=True)
class RemoveMag:
    """Remove a magnification; raises LayerNotFoundError or MagNotFoundError on `apply`."""

    layer: str
    """The layer."""
    mag: Mag
    """The magnification."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Drop its entries."""
        layer, mag = find_layer(raw, self.layer), Mag(self.mag)
        present = [(key, _listed(layer, key)) for key in ("mags", "wkwResolutions")]
        if not any(mag in entries for _, entries in present):
            raise no_such_mag(self.layer, mag, {each: None for _, entries in present for each in entries})
        for key, entries in present:
            if mag in entries:
                layer[key].remove(entries[mag])


def _listed(layer: Raw, key: str) -> dict[Mag, Raw]:
    """Return the entries of ``mags`` or ``wkwResolutions`` by mag."""
    inner = "mag" if key == "mags" else "resolution"
    where = f"layer {layer['name']!r}"
    return {entry_mag(entry, inner, where): entry for entry in layer.get(key) or []}


def _move_to_mags(layer: Raw) -> None:
    """Turn ``wkwResolutions`` into ``mags``; no path is made up, since the folder may have the long name."""
    new = _listed(layer, "mags")
    for mag, entry in _listed(layer, "wkwResolutions").items():
        rest = {key: value for key, value in entry.items() if key != "resolution"}
        if mag in new:
            for key, value in rest.items():
                new[mag].setdefault(key, value)
        else:
            new[mag] = {"mag": mag.to_list(), **rest, "axisOrder": dict(_AXIS_ORDER)}
    layer["mags"] = list(new.values())
    del layer["wkwResolutions"]
