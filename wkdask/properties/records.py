"""``datasource-properties.json`` <-> frozen records.

Pure, apart from `load`. A record keeps the JSON object that it was read from as `raw`, so that an edit can
leave every key that is not known here as it was. Both layouts are read: that of 2021 ("legacy": ``scale`` is
a list of nanometers, ``wkwResolutions``) and that of webknossos 4 ("v4": ``scale`` with a unit, ``mags``).
"""

from __future__ import annotations

import os
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from wkdask.errors import (
    DTypeError,
    InvalidValueError,
    LayerNotFoundError,
    MagNotFoundError,
    PropertiesError,
)
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag, MagLike
from wkdask.geometry.boxes import COORDINATE_LIMIT
from wkdask.geometry.voxel_size import VoxelSize, unit_named
from wkdask.properties.elements import dtype_of, element_class
from wkdask.properties.rawjson import (
    PROPERTIES_FILE,
    Raw,
    optional,
    read_bytes,
    required,
    to_raw,
    typed,
    whole,
)

__all__ = [
    "PROPERTIES_FILE",
    "DatasetRecord",
    "LayerRecord",
    "Layout",
    "MagRecord",
    "dtype_of",
    "element_class",
    "load",
    "parse",
]

CATEGORIES = ("color", "segmentation")
OWN_FORMATS = ("wkw", "zarr", "zarr3")
MAX_NAME_BYTES = 255
"""Of a folder's name, on every file system that matters."""
Layout: TypeAlias = Literal["v4", "legacy"]


@dataclass(frozen=True, slots=True)
class MagRecord:
    """One magnification of a layer, as the file lists it."""

    mag: Mag
    """The magnification."""
    path: str | None
    """As written: relative to the dataset, absolute, or a URL; None: the folder of the mag's name in the layer."""
    cube_length: int | None
    """Voxels of this mag along each side of a cube file; None where the file does not say (Zarr)."""
    raw: Mapping[str, Any] = field(repr=False, hash=False)
    """The JSON object; not to be changed."""


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One layer, as the file lists it."""

    name: str
    """Also the name of its folder."""
    category: str
    """``"color"`` or ``"segmentation"``."""
    element_class: str | None
    """All channels of a voxel in one word, such as ``"uint24"``; None where only the metadata of the mags know."""
    dtype_per_channel: np.dtype[Any] | None
    """What `element_class` comes to per channel; None where that is not known."""
    num_channels: int | None
    """Channels per voxel; None where only ``header.wkw`` knows."""
    data_format: str
    """``"wkw"``, ``"zarr"``, ``"zarr3"``, or one that wkdask only lists."""
    mags: tuple[MagRecord, ...]
    """The magnifications, in the order of the file."""
    largest_segment_id: int | None
    """Of a segmentation, where it is known."""
    mappings: tuple[str, ...]
    """Names of mappings of a segmentation."""
    default_view_configuration: Mapping[str, Any] | None = field(hash=False)
    """How WEBKNOSSOS shows the layer; not to be changed."""
    notes: tuple[str, ...]
    """What the file does not say of the layer, and where it is taken from."""
    raw: Mapping[str, Any] = field(repr=False, hash=False)
    """The JSON object; not to be changed."""

    @property
    def is_segmentation(self) -> bool:
        """Whether voxels are ids."""
        return self.category == "segmentation"

    @property
    def bounding_box(self) -> BoundingBox:
        """The layer's box in voxels of mag 1, absolute.

        It is checked when it is used, so that one impossible box does not close the whole dataset.

        Raises
        ------
        PropertiesError
            If the box is missing, not three whole numbers each, negative, or beyond 32 bits.
        """
        return box_of(self.raw)

    def mag(self, mag: MagLike) -> MagRecord:
        """Return the record of a magnification.

        Raises
        ------
        MagNotFoundError
            If it is not listed; the message lists those that are.
        """
        for record in self.mags:
            if record.mag == mag:
                return record
        raise no_such_mag(self.name, mag, (record.mag for record in self.mags))


@dataclass(frozen=True, slots=True)
class BrokenLayer:
    """A layer that cannot be understood: it is listed and kept, and raises when it is used."""

    name: str
    """Also the name of its folder."""
    reason: str
    """What is wrong, with the path of the file."""
    raw: Mapping[str, Any] = field(repr=False, hash=False)
    """The JSON object; not to be changed."""


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """A whole properties file."""

    name: str
    """The name in the file; WEBKNOSSOS shows the folder's."""
    voxel_size: VoxelSize
    """The size of a voxel of mag 1."""
    layers: tuple[LayerRecord, ...]
    """Those that can be used, in the order of the file."""
    broken: tuple[BrokenLayer, ...]
    """Those that cannot."""
    version: int
    """Of the file's format; 1 where the file has none."""
    layout: Layout
    """Which keys a new layer gets; see `layout_of`."""
    default_view_configuration: Mapping[str, Any] | None = field(hash=False)
    """How WEBKNOSSOS shows the dataset; not to be changed."""
    raw: Mapping[str, Any] = field(repr=False, hash=False)
    """The JSON object; not to be changed."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all layers, in the order of the file; also of those that cannot be used."""
        return tuple(layer["name"] for layer in self.raw["dataLayers"])

    def layer(self, name: str) -> LayerRecord:
        """Return the record of a layer.

        Raises
        ------
        LayerNotFoundError
            If there is none of that name; the message lists those that there are.
        PropertiesError
            If it is there, and cannot be understood.
        """
        for record in self.layers:
            if record.name == name:
                return record
        for broken in self.broken:
            if broken.name == name:
                raise PropertiesError(broken.reason)
        raise no_such_layer(name, self.names)


def no_such_layer(name: str, names: Iterable[str]) -> LayerNotFoundError:
    """Return the error that a layer is not there, with those that are."""
    known = ", ".join(map(repr, names)) or "none"
    return LayerNotFoundError(f"there is no layer {name!r}; the dataset has: {known}")


def no_such_mag(layer: str, mag: object, mags: Iterable[Mag]) -> MagNotFoundError:
    """Return the error that a mag is not there, with those that are."""
    known = ", ".join(map(str, mags)) or "none"
    return MagNotFoundError(f"layer {layer!r} has no mag {mag}; it has: {known}")


def load(folder: str | os.PathLike[str]) -> DatasetRecord:
    """Read the properties file of a dataset's folder.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PropertiesError
        If it cannot be understood.
    """
    data, path = read_bytes(folder)
    return parse(data, path)


def parse(data: bytes | str, path: str) -> DatasetRecord:
    """Return the record of the content of a properties file.

    Parameters
    ----------
    data
        The content, at most 16 MiB.
    path
        Where it comes from, for messages.

    Raises
    ------
    PropertiesError
        If it is not JSON, or not of the form that both layouts share. What is wrong with a layer is noted, and
        raised when that is used; so are boxes.
    """
    return _dataset(to_raw(data, path), path)


def layout_of(raw: Mapping[str, Any]) -> Layout:
    """Return which layout new layers of a file get.

    "legacy" if some layer has only ``wkwResolutions``, or if ``scale`` is a list and there is no version,
    as in 2021; else "v4".
    """
    old_layers = any(
        layer.get("wkwResolutions") is not None and layer.get("mags") is None for layer in raw["dataLayers"]
    )
    return "legacy" if old_layers or (isinstance(raw["scale"], list) and "version" not in raw) else "v4"


def _dataset(raw: Raw, path: str) -> DatasetRecord:
    version = whole(raw.get("version", 1), f"{path}: version")
    if version != 1:
        raise PropertiesError(f"{path}: version {version} of the format is not known, only 1 is")
    identity = required(raw, "id", dict, path)
    layers: list[LayerRecord] = []
    broken: list[BrokenLayer] = []
    names = []
    for number, layer in enumerate(required(raw, "dataLayers", list, path)):
        place = f"{path}: layer number {number}"
        name = required(typed(layer, dict, place), "name", str, place)
        where = f"{path}: layer {reprlib.repr(name)}"
        _check_folder_name(name, where)
        names.append(name)
        try:
            layers.append(_layer(layer, name, where))
        except PropertiesError as error:
            broken.append(BrokenLayer(name, str(error), layer))
    for name, count in Counter(names).most_common(1):
        if count > 1:
            raise PropertiesError(f"{path}: {count} layers are called {reprlib.repr(name)}")
    return DatasetRecord(
        name=required(identity, "name", str, f"{path}: id"),
        voxel_size=_voxel_size(raw, path),
        layers=tuple(layers),
        broken=tuple(broken),
        version=version,
        layout=layout_of(raw),
        default_view_configuration=optional(raw, "defaultViewConfiguration", dict, path),
        raw=raw,
    )


def _voxel_size(raw: Raw, path: str) -> VoxelSize:
    scale = raw.get("scale")
    factor, unit = scale, "nanometer"
    if isinstance(scale, dict):
        factor, unit = scale.get("factor"), scale.get("unit", unit)
    numbers = isinstance(factor, list) and all(type(part) in (int, float) for part in factor)
    try:
        if not numbers or not isinstance(unit, str):
            raise InvalidValueError("expected three numbers, or {factor, unit}")
        return VoxelSize(tuple(factor), unit_named(unit) or unit)  # type: ignore[arg-type]
    except (InvalidValueError, OverflowError) as error:
        raise PropertiesError(f"{path}: scale {reprlib.repr(scale)}: {error}") from None


def _layer(raw: Raw, name: str, where: str) -> LayerRecord:
    category = required(raw, "category", str, where)
    if category not in CATEGORIES:
        raise PropertiesError(
            f"{where}: unknown category {reprlib.repr(category)}, known are {', '.join(CATEGORIES)}"
        )
    word = optional(raw, "elementClass", str, where)
    channels = raw.get("numChannels")
    if channels is not None:
        channels = whole(channels, f"{where}: numChannels", low=1)
    try:
        dtype = None if word is None else dtype_of(word, channels)
        if channels is None and dtype is not None and element_class(dtype, 3) == word:
            channels = 3  # by convention: no plain type has that many bits
    except DTypeError as error:
        raise PropertiesError(f"{where}: {error}") from None
    data_format = data_format_of(raw, where)
    is_segmentation = category == "segmentation"
    notes = []
    if raw.get("dataFormat") is None:
        notes.append("dataFormat is missing, and taken for wkw, since its mags have what only wkw has")
    if word is None:
        notes.append("elementClass is missing, and taken from the metadata of its mags")
    return LayerRecord(
        name=name,
        category=category,
        element_class=word,
        dtype_per_channel=dtype,
        num_channels=channels,
        data_format=data_format,
        mags=_mags(raw, data_format, where),
        largest_segment_id=segment_id_of(raw, f"{where}: largestSegmentId") if is_segmentation else None,
        mappings=_mappings(raw, where),
        default_view_configuration=optional(raw, "defaultViewConfiguration", dict, where),
        notes=tuple(f"{where}: {note}" for note in notes),
        raw=raw,
    )


def data_format_of(layer: Mapping[str, Any], where: str = "a layer") -> str:
    """Return the data format in the JSON object of a layer; if it is missing, its mags may show that it is wkw."""
    if layer.get("dataFormat") is None:
        mags = layer.get("mags")
        entries = mags if isinstance(mags, list) else []
        cut = [isinstance(mag, dict) and mag.get("cubeLength") is not None for mag in entries]
        if (cut and all(cut)) or (mags is None and layer.get("wkwResolutions")):
            return "wkw"
    found: str = required(layer, "dataFormat", str, where)
    return found


def _check_folder_name(name: str, where: str) -> None:
    """Refuse a name that points outside the dataset, that readers skip (hidden), or that no folder can have."""
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise PropertiesError(f"{where}: the name is not valid Unicode") from None
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise PropertiesError(
            f"{where}: a name is that of a folder: not empty, without / and NUL, not starting with a dot"
        )
    if length > MAX_NAME_BYTES or name == PROPERTIES_FILE:
        raise PropertiesError(
            f"{where}: a name is that of a folder: at most {MAX_NAME_BYTES} bytes, and not {PROPERTIES_FILE}"
        )


def entry_mag(entry: Mapping[str, Any], key: str, where: str) -> Mag:
    """Return the mag of an entry of ``mags`` (key "mag") or ``wkwResolutions`` (key "resolution")."""
    value = entry.get(key)
    parts = value if isinstance(value, list) else [value] * 3
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}(-[0-9]{1,10}-[0-9]{1,10})?", value):
        words = value.split("-")  # as some programs write it: "2" or "2-2-1"
        parts = [int(word) for word in (words if len(words) == 3 else words * 3)]
    try:
        if len(parts) != 3:
            raise InvalidValueError("expected one integer or three")
        return Mag([whole(part, f"{where}: {key}", low=1, high=COORDINATE_LIMIT) for part in parts])
    except InvalidValueError as error:
        raise PropertiesError(f"{where}: {key} {reprlib.repr(value)}: {error}") from None


def _mags(raw: Raw, data_format: str, where: str) -> tuple[MagRecord, ...]:
    """Return the union of both lists; what ``mags`` says about a mag counts."""
    new, old = optional(raw, "mags", list, where), optional(raw, "wkwResolutions", list, where)
    if new is None and old is None and data_format in OWN_FORMATS:
        raise PropertiesError(f"{where}: neither mags nor wkwResolutions is there")
    records = _mag_entries(new or [], "mag", where)
    for mag, record in _mag_entries(old or [], "resolution", where).items():
        mine = records.setdefault(mag, record)
        if mine.cube_length is None:
            records[mag] = MagRecord(mag, mine.path, record.cube_length, mine.raw)
    return tuple(records.values())


def _mag_entries(entries: list[Any], key: str, where: str) -> dict[Mag, MagRecord]:
    records: dict[Mag, MagRecord] = {}
    for entry in entries:
        mag = entry_mag(typed(entry, dict, f"{where}: an entry for a mag"), key, where)
        if mag in records:
            raise PropertiesError(f"{where}: mag {mag} is listed twice")
        cube = entry.get("cubeLength")
        if cube is not None:
            cube = whole(cube, f"{where}: cubeLength of mag {mag}", low=1, high=COORDINATE_LIMIT)
        path = optional(entry, "path", str, f"{where}: mag {mag}") if key == "mag" else None
        records[mag] = MagRecord(mag, path, cube, entry)
    return records


def segment_id_of(layer: Mapping[str, Any], where: str = "largestSegmentId") -> int | None:
    """Return the largest segment id in the JSON object of a layer."""
    value = layer.get("largestSegmentId")
    if value is None:
        return None
    if isinstance(value, dict) and value.get("customJsonEncoding") == "bigint":
        digits = value.get("value")
        if isinstance(digits, str) and re.fullmatch(r"-?[0-9]{1,20}", digits):
            value = int(digits)
    return whole(value, where, low=-(2**63), high=2**64)


def _mappings(raw: Raw, where: str) -> tuple[str, ...]:
    names = optional(raw, "mappings", list, where) or []
    return tuple(typed(name, str, f"{where}: a name in mappings") for name in names)


def _plain_box(value: Any) -> BoundingBox | None:
    """Return a box that is sound at first sight, without a word on what is wrong with another one."""
    corner = value.get("topLeft") if type(value) is dict else None
    if type(corner) is not list or len(corner) != 3:
        return None
    size = [value.get("width"), value.get("height"), value.get("depth")]
    if any(type(n) is not int or n < 0 for n in (*corner, *size)):
        return None
    if max(a + n for a, n in zip(corner, size, strict=True)) > COORDINATE_LIMIT:
        return None
    return BoundingBox(tuple(corner), tuple(size))


def box_of(layer: Mapping[str, Any]) -> BoundingBox:
    """Return the box in the JSON object of a layer, refusing what no stored array can have."""
    value = layer.get("boundingBox")
    if (box := _plain_box(value)) is not None:
        return box
    shown = f"the bounding box of layer {layer['name']!r} is {reprlib.repr(value)}"
    if not isinstance(value, dict):
        raise PropertiesError(f"{shown}; expected topLeft [x, y, z], width, height, depth")
    corner = typed(value.get("topLeft"), list, f"{shown}: topLeft")
    if len(corner) != 3:
        raise PropertiesError(f"{shown}: topLeft has {len(corner)} components, expected 3")
    topleft = [whole(part, f"{shown}: topLeft", low=None) for part in corner]
    size = [whole(value.get(key), f"{shown}: {key}") for key in ("width", "height", "depth")]
    if topleft == [-1, -1, -1] and size == [0, 0, 0]:  # how files before 2021 wrote an empty layer
        return EMPTY_BOX
    if min(topleft) < 0:
        raise PropertiesError(f"{shown}: topLeft is negative")
    box = BoundingBox(topleft, size)
    if max(box.bottomright) > COORDINATE_LIMIT:
        raise PropertiesError(f"{shown}: it ends beyond 2^32, but wkw counts in 32 bits")
    return box
