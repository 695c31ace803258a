"""Edits of what belongs to a layer beside its voxels: attachments and coordinate transformations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.properties.rawjson import Raw
from wkdask.properties.values import find_layer, plain_json

__all__ = ["DropAttachment", "PutAttachment", "SetTransformations"]


@dataclass(frozen=True, slots=True)
class PutAttachment:
    """List an attachment of a layer.

    Raises on `apply` a LayerNotFoundError, an AlreadyExistsError (the name) or an InvalidValueError.
    """

    layer: str
    """The layer."""
    key: str
    """Where it is listed: ``"meshes"``, ``"segmentIndex"``, …"""
    entry: Mapping[str, Any]
    """Its ``name``, ``path`` and ``dataFormat``."""
    is_list: bool
    """Whether there can be several; one alone takes the place of the one before."""
    renamed_from: str | None = None
    """The name of the entry that it replaces; unknown keys of that entry are kept."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Add the entry, or put it where the old one was."""
        layer = find_layer(raw, self.layer)
        entry = plain_json(self.entry, "an attachment")
        attachments = layer.get("attachments") or {}
        listed = _listed(attachments, self.key)
        names = [each.get("name") for each in listed]
        if self.renamed_from is not None:
            place = _place(names, self.renamed_from, self.layer, self.key)
            entry = {**listed[place], **entry}
            names.pop(place)
        if entry["name"] in names and self.is_list:
            raise AlreadyExistsError(
                f"layer {self.layer!r} has an attachment {entry['name']!r} among its {self.key} already"
            )
        if self.renamed_from is not None:
            listed[place] = entry
        else:
            listed = [*listed, entry] if self.is_list else [entry]
        attachments[self.key] = listed if self.is_list else listed[-1]
        layer["attachments"] = attachments


@dataclass(frozen=True, slots=True)
class DropAttachment:
    """Remove an attachment from a layer's list; raises LayerNotFoundError or InvalidValueError on `apply`."""

    layer: str
    """The layer."""
    key: str
    """Where it is listed."""
    name: str
    """Its name."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Drop the entry, and the keys that are empty then."""
        layer = find_layer(raw, self.layer)
        attachments = layer.get("attachments") or {}
        listed = _listed(attachments, self.key)
        del listed[_place([each.get("name") for each in listed], self.name, self.layer, self.key)]
        if listed:
            attachments[self.key] = listed
        else:
            attachments.pop(self.key)
        if not attachments:
            layer.pop("attachments")


def _listed(attachments: Raw, key: str) -> list[Raw]:
    """Return a copy of the entries under a key, which holds a list or one of them."""
    value = attachments.get(key)
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _place(names: list[Any], name: str, layer: str, key: str) -> int:
    if name not in names:
        known = ", ".join(map(repr, names)) or "none"
        raise InvalidValueError(
            f"layer {layer!r} has no attachment {name!r} among its {key}; it has: {known}"
        )
    return names.index(name)


@dataclass(frozen=True, slots=True)
class SetTransformations:
    """Set a layer's coordinate transformations; raises LayerNotFoundError or InvalidValueError on `apply`."""

    layer: str
    """The layer."""
    value: Sequence[Mapping[str, Any]]
    """The transformations as JSON, in the order in which they are applied; none removes the key."""

    def apply(self, raw: dict[str, Any]) -> None:
        """Replace or remove ``coordinateTransformations``."""
        layer = find_layer(raw, self.layer)
        if self.value:
            layer["coordinateTransformations"] = [plain_json(each, "a transformation") for each in self.value]
        else:
            layer.pop("coordinateTransformations", None)
