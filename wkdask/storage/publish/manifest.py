"""The job manifest: what a job does to a mag, as a checksummed file in the job's private folder there.

A job has one manifest in every mag that it writes. The first of them, of role 0, is the job's own: with it lies the
journal. Each says all that is needed to finish what a dead job has begun to replace in that mag, and none
names a path: a manifest is about the mag in whose folder it lies, wherever that was moved.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

from wkdask.errors import WkdaskError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.storage.publish.private import read_private_file, write_private_file

__all__ = ["MANIFEST", "Manifest"]

MANIFEST = "manifest"
_TICKET = "ticket"
"""The name of a manifest in wkdask before 0.1.0; it had no checksum."""
_LARGEST = 1 << 20
"""Bytes of a manifest at most."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a job does to one mag, so that another process can recognise the job, resume it, or finish it."""

    key: str
    """The same for the same work: what is computed, where it goes, how it is cut."""
    name: str
    """For people: what is written."""
    action: str
    """Verb for messages, such as "writing"."""
    layer: str
    """The layer's name when the job began, for people."""
    mag: Mag
    """The mag, for people."""
    box: BoundingBox
    """What the job may write of the mag: absolute, in voxels of it."""
    unit: Vec3Int
    """Voxels of a unit, in this mag: the journal counts units by this grid."""
    part: Vec3Int | None = None
    """Voxels of a part, where cubes are assembled out of core."""
    role: int = 0
    """0 for the job's own mag, 1 and more for its further mags."""
    resumable: bool = True
    """Whether what the job leaves is worth keeping for a later call."""
    in_place: tuple[int, ...] = ()
    """The roles of those of the job's mags of which all cubes are built before the first is replaced."""
    creates: bool = False
    """Whether the job makes the mag. It is listed in the properties when it is whole."""
    goes_on: bool = False
    """Whether there is more to do for the job when the cubes of this mag have been published."""
    state: str = ""
    """The fingerprint of the box when the job began, where the job reads what it replaces."""
    layer_box: BoundingBox | None = None
    """The layer's box before the job, in voxels of mag 1, where that says what the job does."""

    @property
    def staged(self) -> bool:
        """Whether all cubes of this mag are built before the first is replaced."""
        return self.role in self.in_place

    @property
    def label(self) -> str:
        """Layer and mag, for messages."""
        return f"layer {self.layer!r} mag {self.mag}"

    @property
    def digest(self) -> str:
        """The checksum of the content."""
        return _digest(self._content())

    def write(self, folder: int, *, durable: bool) -> None:
        """Write the manifest into a job's folder, given by its descriptor."""
        content = self._content()
        data = json.dumps({"checksum": _digest(content), "job": content}).encode()
        write_private_file(folder, MANIFEST, data, durable=durable)

    @classmethod
    def read(cls, folder: int) -> Manifest | None:
        """Return the manifest in a job's folder, given by its descriptor; None if no sound one is there."""
        try:
            document = json.loads(read_private_file(folder, MANIFEST, _LARGEST))
            content = document["job"]
            if document["checksum"] != _digest(content):
                return None
            return cls._parsed(content)
        except FileNotFoundError:
            return cls._read_ticket(folder)
        except (OSError, ValueError, KeyError, TypeError, WkdaskError, RecursionError):
            return None

    @classmethod
    def _read_ticket(cls, folder: int) -> Manifest | None:
        """Return a ticket as a manifest: enough to finish a job that had begun to replace cubes."""
        try:
            content = json.loads(read_private_file(folder, _TICKET, _LARGEST))
            return cls._parsed(
                {
                    **{
                        key: content[key]
                        for key in ("key", "name", "action", "layer", "mag", "box", "unit", "part")
                    },
                    "resumable": False,
                    "in_place": [0],
                }
            )
        except (OSError, ValueError, KeyError, TypeError, WkdaskError, RecursionError):
            return None

    def _content(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            **content,
            "mag": self.mag.to_layer_name(),
            "box": self.box.to_tuple6(),
            "unit": list(self.unit),
            "part": None if self.part is None else list(self.part),
            "layer_box": None if self.layer_box is None else self.layer_box.to_tuple6(),
        }

    @classmethod
    def _parsed(cls, content: dict[str, Any]) -> Manifest:
        """Return the manifest of checked content; raises what a wrong value raises."""
        kinds = {"key": str, "name": str, "action": str, "layer": str, "state": str, "role": int}
        kinds |= dict.fromkeys(("resumable", "creates", "goes_on"), bool)
        values = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        for name, kind in kinds.items():
            if name in values and type(values[name]) is not kind:
                raise TypeError(f"{name} is {values[name]!r}")
        values["in_place"] = tuple(values.get("in_place", ()))
        values["mag"] = Mag(values["mag"])
        values["box"] = BoundingBox.from_tuple6(values["box"])
        for name in ("unit", "part"):
            if values[name] is not None:
                values[name] = Vec3Int(values[name])
                if not values[name].is_positive(strictly=True):
                    raise ValueError(f"{name} is {values[name]}")
        if values.get("layer_box") is not None:
            values["layer_box"] = BoundingBox.from_tuple6(values["layer_box"])
        return cls(**values)


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
