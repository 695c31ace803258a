"""Axes beside c, x, y, z, as the properties file lists them, and the edits of them."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wkdask.errors import InvalidValueError, PropertiesError
from wkdask.properties.rawjson import whole
from wkdask.properties.records import LayerRecord, MagRecord
from wkdask.properties.values import find_layer

__all__ = [
    "FurtherAxis",
    "GrowAxes",
    "SetFurtherAxes",
    "axes_of_layer",
    "channel_index",
    "further_axes_of",
    "has_further_axes",
]


@dataclass(frozen=True, slots=True)
class FurtherAxis:
    """An axis beside c, x, y, z."""

    name: str
    """Such as ``"t"``."""
    low: int
    """The first position."""
    high: int
    """The first position behind."""
    index: int
    """Which dimension of the stored array it is."""


def has_further_axes(raw: Mapping[str, Any]) -> bool:
    """Return whether the JSON object of a layer has axes beside c, x, y, z."""
    return bool(raw.get("additionalAxes"))


def further_axes_of(record: LayerRecord) -> tuple[FurtherAxis, ...]:
    """Return the further axes of a layer, sorted by their index.

    Raises
    ------
    PropertiesError
        If one is not a name, two bounds and an index.
    """
    where = f"layer {record.name!r}: additionalAxes"
    value = record.raw.get("additionalAxes") or []
    axes = []
    for entry in value if isinstance(value, list) else [value]:
        try:
            low, high = (whole(each, f"{where}: bounds") for each in entry["bounds"])
            axis = FurtherAxis(entry["name"], low, high, whole(entry["index"], f"{where}: index"))
        except (KeyError, TypeError, ValueError) as error:
            raise PropertiesError(
                f"{where}: expected name, bounds and index, got {reprlib.repr(entry)}: {error}"
            ) from None
        if not isinstance(axis.name, str) or axis.name in ("c", "x", "y", "z", "") or high < low:
            raise PropertiesError(f"{where}: expected name, bounds and index, got {reprlib.repr(entry)}")
        axes.append(axis)
    axes.sort(key=lambda axis: axis.index)
    if len({axis.name for axis in axes}) < len(axes) or len({axis.index for axis in axes}) < len(axes):
        raise PropertiesError(f"{where}: two of {reprlib.repr(value)} are the same axis")
    return tuple(axes)


def axes_of_layer(record: LayerRecord, entry: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Return the names of the dimensions of a layer's arrays, in their order.

    Parameters
    ----------
    record
        The layer.
    entry
        The JSON object of one of its mags, if there is one.

    Raises
    ------
    PropertiesError
        If the properties do not say where an axis is, or two are at one place.
    """
    box = record.raw.get("boundingBox")
    order = (entry or {}).get("axisOrder") or (box.get("axisOrder") if isinstance(box, dict) else None)
    places = {axis.name: axis.index for axis in further_axes_of(record)}
    known = dict(order) if isinstance(order, Mapping) else {}
    where = f"layer {record.name!r}: axisOrder {reprlib.repr(order)}"
    for axis in "cxyz":
        if axis in known:
            places[axis] = whole(known[axis], f"{where}: {axis}")
        elif axis != "c":
            raise PropertiesError(f"{where} does not say where {axis} is")
    names = sorted(places, key=places.__getitem__)
    if sorted(places.values()) != list(range(len(names))):
        raise PropertiesError(
            f"{where} and additionalAxes do not number the axes {', '.join(names)} from 0 on"
        )
    return tuple(names)


def channel_index(record: MagRecord) -> int | None:
    """Return which channel of its array a mag is, or begins with; None where it has all of them.

    Raises
    ------
    PropertiesError
        If that is no number, or negative.
    """
    value = record.raw.get("channelIndex")
    if value is None:
        return None
    where = f"mag {record.mag}: channelIndex"
    index = whole(value, where)
    if index < 0:
        raise PropertiesError(f"{where}: expected a number from 0 on, got {index}")
    return index


@dataclass(frozen=True, slots=True)
class SetFurtherAxes:
    """Say which further axes a layer has, and where c, x, y, z are; raises LayerNotFoundError on `apply`."""

    layer: str
    """The layer."""
    axes: tuple[FurtherAxis, ...]
    """The further axes."""
    order: Mapping[str, int]
    """Which dimension of a stored array x, y, z, and c if there is one, are."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Replace ``additionalAxes``; mags say the order themselves, a layer without any says it beside its box."""
        layer = find_layer(raw, self.layer)
        old = {axis["name"]: axis for axis in layer.get("additionalAxes") or []}
        layer["additionalAxes"] = [
            {
                **old.get(axis.name, {}),
                "name": axis.name,
                "bounds": [axis.low, axis.high],
                "index": axis.index,
            }
            for axis in self.axes
        ]
        if not layer.get("mags"):
            layer["boundingBox"] = {**layer["boundingBox"], "axisOrder": dict(self.order)}


@dataclass(frozen=True, slots=True)
class GrowAxes:
    """Let the bounds of further axes grow around what was written.

    Raises LayerNotFoundError or InvalidValueError (no such axis) on `apply`.
    """

    layer: str
    """The layer."""
    spans: Mapping[str, tuple[int, int]]
    """The first position that was written along each axis, and the first one behind."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Grow the bounds; those of an axis without a position become what was written."""
        layer = find_layer(raw, self.layer)
        listed = {axis["name"]: axis for axis in layer.get("additionalAxes") or []}
        for name, (low, high) in self.spans.items():
            if name not in listed:
                raise InvalidValueError(f"layer {self.layer!r} has no axis {name!r}; it has {_names(listed)}")
            old_low, old_high = listed[name]["bounds"]
            listed[name]["bounds"] = (
                [low, high] if old_low == old_high else [min(low, old_low), max(high, old_high)]
            )


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
