"""Edits of what a file says about its layers: boxes, ids, mappings, views, the name. And what all edits share."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex

import numpy as np

from wkdask.errors import InvalidValueError, OutOfBoundsError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.boxes import COORDINATE_LIMIT
from wkdask.properties.rawjson import Raw
from wkdask.properties.records import box_of, layout_of, no_such_layer, segment_id_of

__all__ = [
    "Edit",
    "GrowBox",
    "NoteMinMax",
    "RaiseSegmentId",
    "SetBox",
    "SetDatasetName",
    "SetMappings",
    "SetSegmentId",
    "SetViewConfiguration",
    "box_json",
    "find_layer",
    "id_json",
    "names_json",
    "plain_json",
    "whole_argument",
]

LARGEST_PLAIN_INTEGER = 2**53 - 1
"""Above it JavaScript, and so WEBKNOSSOS, rounds a JSON number; such ids are written as text in an object."""


class Edit(Protocol):
    """What `commit` replays."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Change the JSON object of a whole properties file, or raise; a failed edit is never written."""


# --- what edits share -------------------------------------------------------------------------------


def find_layer(raw: Raw, name: str) -> Raw:
    """Return the JSON object of a layer, or raise LayerNotFoundError."""
    for layer in raw["dataLayers"]:
        if layer["name"] == name:
            return layer  # type: ignore[no-any-return]
    raise no_such_layer(name, (layer["name"] for layer in raw["dataLayers"]))


def whole_argument(value: SupportsIndex, what: str, low: int, high: int) -> int:
    """Return an integer of any type as int, or raise InvalidValueError if it is not from `low` to `high`."""
    try:
        number = low - 1 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        raise InvalidValueError(f"{what} is a whole number from {low} to {high}, got {value!r}")
    return number


def box_json(box: BoundingBox) -> Raw:
    """Return the JSON object of a box of mag-1 voxels, or raise OutOfBoundsError if no array can have it."""
    if min(box.topleft) < 0 or max(box.bottomright) > COORDINATE_LIMIT:
        raise OutOfBoundsError(
            f"the box {box} (voxels of mag 1) leaves the region from 0 to 2^32 of each axis"
        )
    return box.to_wkw_dict()


def id_json(value: SupportsIndex | None) -> int | Raw | None:
    """Return how the file writes a segment id, or raise InvalidValueError beyond 64 bits."""
    if value is None:
        return None
    number = whole_argument(value, "a largest segment id", 0, 2**64 - 1)
    if number <= LARGEST_PLAIN_INTEGER:
        return number
    return {"customJsonEncoding": "bigint", "value": str(number)}


def names_json(names: Iterable[str]) -> list[str]:
    """Return the names of mappings as a list, or raise InvalidValueError."""
    found = [] if isinstance(names, str) else list(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in found):
        raise InvalidValueError(f"mappings are a sequence of names, got {names!r}")
    return found


def plain_json(value: Mapping[str, Any], what: str) -> Raw:
    """Return a deep copy that holds only what JSON has, or raise InvalidValueError."""
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))  # type: ignore[no-any-return]
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"{what} is not JSON: {error}") from None


def _segmentation(raw: Raw, name: str) -> Raw:
    layer = find_layer(raw, name)
    if layer["category"] != "segmentation":
        raise InvalidValueError(f"the {layer['category']} layer {name!r} has no segment ids and mappings")
    return layer


def _set_box(layer: Raw, box: BoundingBox) -> None:
    old = layer.get("boundingBox")
    layer["boundingBox"] = {**(old if isinstance(old, dict) else {}), **box_json(box)}


# --- boxes and ids ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GrowBox:
    """Grow a layer's box by what was written to one of its magnifications.

    A side moves only where the written box goes beyond the present one aligned outwards to the mag: a write
    of a coarse mag that merely fills its last voxel does not claim voxels of mag 1. An empty layer takes the
    box as it is. Raises LayerNotFoundError or OutOfBoundsError on `apply`.
    """

    layer: str
    """The layer."""
    box: BoundingBox
    """In voxels of `mag`, absolute; an empty one changes nothing."""
    mag: Mag
    """The magnification that was written."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Set the grown box."""
        layer = find_layer(raw, self.layer)
        if self.box.is_empty():
            return
        _set_box(layer, self.of(box_of(layer)))

    def of(self, current: BoundingBox) -> BoundingBox:
        """Return what a layer's box becomes, both in voxels of mag 1."""
        box = self.box.from_mag_to_mag1(self.mag)
        if current.is_empty():
            return box
        aligned = current.aligned_outwards(Mag(self.mag).to_vec3_int())
        return BoundingBox.from_corners(
            _beyond(box.topleft, aligned.topleft, current.topleft, operator.lt),
            _beyond(box.bottomright, aligned.bottomright, current.bottomright, operator.gt),
        )


def _beyond(written: Vec3Int, aligned: Vec3Int, current: Vec3Int, is_beyond: Any) -> Vec3Int:
    triples = zip(written, aligned, current, strict=True)
    return Vec3Int([new if is_beyond(new, limit) else old for new, limit, old in triples])


@dataclass(frozen=True, slots=True)
class SetBox:
    """Set a layer's box; raises LayerNotFoundError or OutOfBoundsError on `apply`."""

    layer: str
    """The layer."""
    box: BoundingBox
    """In voxels of mag 1, absolute."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Set the box, whatever was there."""
        _set_box(find_layer(raw, self.layer), self.box)


@dataclass(frozen=True, slots=True)
class RaiseSegmentId:
    """Raise the largest segment id to what was written; never lowers it; ignored by color layers.

    Raises LayerNotFoundError or InvalidValueError (beyond 64 bits) on `apply`.
    """

    layer: str
    """The layer."""
    value: int | None
    """The largest value written; None or a negative one changes nothing."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Set the id where it is larger, or where none is known."""
        layer = find_layer(raw, self.layer)
        if layer["category"] != "segmentation" or self.value is None or self.value < 0:
            return
        current = segment_id_of(layer)
        if current is None or self.value > current:
            layer["largestSegmentId"] = id_json(self.value)


@dataclass(frozen=True, slots=True)
class SetSegmentId:
    """Set the largest segment id; raises LayerNotFoundError or InvalidValueError on `apply`."""

    layer: str
    """A segmentation layer."""
    value: int | None
    """From 0 to 2^64 - 1; None: not known."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Set or, for None, drop the id (the old layout writes null)."""
        layer = _segmentation(raw, self.layer)
        if self.value is None and layout_of(raw) == "v4":
            layer.pop("largestSegmentId", None)
        else:
            layer["largestSegmentId"] = id_json(self.value)


# --- names and views --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetDatasetName:
    """Set the dataset's name in the file; raises InvalidValueError on `apply`."""

    name: str
    """Any text that is not empty."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Set the name; the team stays."""
        if not isinstance(self.name, str) or not self.name:
            raise InvalidValueError(f"the name of a dataset is a text that is not empty, got {self.name!r}")
        raw["id"]["name"] = self.name


@dataclass(frozen=True, slots=True)
class SetViewConfiguration:
    """Set how WEBKNOSSOS shows a layer or the dataset.

    Raises LayerNotFoundError or InvalidValueError (not JSON) on `apply`.
    """

    layer: str | None
    """The layer; None: the dataset."""
    value: Mapping[str, Any] | None
    """The whole configuration as JSON; None removes it."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Replace or remove ``defaultViewConfiguration``."""
        holder = raw if self.layer is None else find_layer(raw, self.layer)
        if self.value is None:
            holder.pop("defaultViewConfiguration", None)
        else:
            holder["defaultViewConfiguration"] = plain_json(self.value, "a view configuration")


@dataclass(frozen=True, slots=True)
class NoteMinMax:
    """Note the smallest and the largest voxel of an image for its first view, where nothing of that kind is said.

    Only the ends of the range's slider, as webknossos does it: what is shown as black and as white WEBKNOSSOS finds
    by itself, without outliers. Raises LayerNotFoundError on `apply`.
    """

    layer: str
    """The layer's name."""
    minimum: float
    """The smallest voxel."""
    maximum: float
    """The largest voxel."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Set ``min`` and ``max``, unless it is a segmentation, or the user has set a range."""
        layer = find_layer(raw, self.layer)
        shown = layer.get("defaultViewConfiguration") or {}
        if layer.get("category") != "color" or not isinstance(shown, dict):
            return
        if {"min", "max", "intensityRange"} & {key for key, value in shown.items() if value is not None}:
            return
        layer["defaultViewConfiguration"] = {**shown, "min": self.minimum, "max": self.maximum}


@dataclass(frozen=True, slots=True)
class SetNumChannels:
    """Say how many channels a layer has, where the file did not; files of 2021 left it to the header."""

    layer: str
    """The layer's name."""
    num_channels: int
    """Channels of a voxel."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Set the key, unless it is there."""
        find_layer(raw, self.layer).setdefault("numChannels", self.num_channels)


@dataclass(frozen=True, slots=True)
class SetMappings:
    """Set the names of a segmentation's mappings; raises LayerNotFoundError or InvalidValueError on `apply`."""

    layer: str
    """A segmentation layer."""
    mappings: tuple[str, ...]
    """The names; none removes the key (the old layout writes an empty list)."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Replace ``mappings``."""
        layer = _segmentation(raw, self.layer)
        if not self.mappings and layout_of(raw) == "v4":
            layer.pop("mappings", None)
        else:
            layer["mappings"] = names_json(self.mappings)
