"""A layer copied: planned as a whole, built unlisted mag by mag, and listed when it is complete.

::

    plan      every mag is opened, every cut is checked       nothing is made
    build     <dataset>/<layer>/<mag>/  one job per mag       no reader sees half of a layer
    commit    the layer with all its mags, at once
"""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from wkdask.errors import (
    DamagedHeaderError,
    InvalidValueError,
    StoreError,
    UnsupportedFormatError,
    WkdaskError,
    WkdaskWarning,
)
from wkdask.fsio import remove_folder
from wkdask.geometry import EMPTY_BOX, BoundingBox, Mag, Vec3Int
from wkdask.jobs.driver import open_sources
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.job import MagPlace, WriteOptions
from wkdask.jobs.mag_folders import mag_folder
from wkdask.layer.layer import Layer
from wkdask.layer.multiscales import GROUP_FILES, write_multiscales
from wkdask.objects.download import download
from wkdask.objects.reading import list_names
from wkdask.objects.urls import is_url
from wkdask.operations.copy import copy_mag
from wkdask.paths import joined, resolved
from wkdask.properties import AddLayer, AddMag, Edit
from wkdask.properties.handle import Properties
from wkdask.storage.formats import (
    check_format,
    check_spec,
    create_mag,
    default_shard_shape,
    entry_of,
    fitting_compression,
    open_mag,
)
from wkdask.storage.protocol import ArraySpec, StoredMag

__all__ = [
    "CopyCut",
    "LayerCopy",
    "MagCopy",
    "MagState",
    "as_new_with_attachments",
    "build_layer",
    "copy_rest",
    "other_entries",
    "plan_layer",
]

_STRUCTURE = frozenset(
    (
        "name", "category", "boundingBox", "elementClass", "dataFormat", "numChannels", "mags", "wkwResolutions",
        "largestSegmentId", "mappings", "attachments",
    )
)  # fmt: skip
"""Keys of a layer in the properties file that a copy has of its own; all others go with it as they are."""


@dataclass(frozen=True, slots=True)
class CopyCut:
    """How the mags of a copy are to be stored; None where they are as in the source."""

    chunk_shape: Vec3Int | None = None
    """Sides of a chunk, in voxels of the mag."""
    shard_shape: Vec3Int | None = None
    """Sides of a cube, in voxels of the mag."""
    file_len: int | None = None
    """Side of a cube in chunks, where `shard_shape` does not say."""
    compression: str | bool | None = True
    """A name; None for none; True for as it is."""
    data_format: str | None = None
    """One of `wkdask.storage.formats.DATA_FORMATS`."""

    def spec_of(self, source: ArraySpec, data_format: str) -> ArraySpec:
        """Return how a mag of a format is stored that is a copy of another one.

        Where nothing is said of the cut, and the format cannot have that of the source, it has its own: so chunks
        of Zarr 2, each a file, do not become as many small cubes.

        Raises
        ------
        UnsupportedFormatError, DTypeError, InvalidValueError
            If the format cannot hold it so.
        """
        copied = self.compression is True
        compression = fitting_compression(
            data_format, source.compression if copied else self.compression, copied=copied
        )
        chunk = self.chunk_shape or source.chunk_shape
        shard = self.shard_shape or (chunk * self.file_len if self.file_len else source.shard_shape)
        free = self.shard_shape is None and self.file_len is None
        if free and data_format == "zarr":
            shard = chunk
        elif free and source.data_format == "zarr" != data_format:
            shard = (default_shard_shape(data_format, chunk) // chunk).pairmax(1) * chunk
        wished = replace(source, chunk_shape=chunk, shard_shape=shard, compression=compression, layout="wkw")
        try:
            return check_spec(wished, data_format)
        except (UnsupportedFormatError, InvalidValueError):
            if not free or self.chunk_shape is not None or source.data_format == data_format:
                raise
        chunk = Vec3Int.full(32)
        shard = default_shard_shape(data_format, chunk)
        return check_spec(replace(wished, chunk_shape=chunk, shard_shape=shard), data_format)


@dataclass(frozen=True, slots=True)
class MagCopy:
    """What is copied of a mag, and how it is stored then."""

    mag: Mag
    """Which one."""
    source: StoredMag
    """Where it is read."""
    spec: ArraySpec
    """How the copy is stored."""
    box: BoundingBox
    """What is copied: absolute, in voxels of the mag; empty where there is nothing."""


@dataclass(frozen=True, slots=True)
class MagState:
    """How far the copy of a mag has come."""

    source: str
    """The state of the source when it was begun: its fingerprint."""
    whole: bool
    """Whether all is copied."""


@dataclass(frozen=True, slots=True)
class LayerCopy:
    """What is copied of a layer; nothing of it is made yet."""

    source: Layer
    """The layer."""
    edit: AddLayer
    """What its copy is called, and is."""
    mags: tuple[MagCopy, ...]
    """Its mags, in the order in which the source lists them."""
    exact: bool
    """Whether no voxel outside of the box is copied; else files are copied whole where they can be."""
    with_rest: bool = True
    """Whether what else is in the layer's folder is copied."""

    @property
    def name(self) -> str:
        """The name of the copy."""
        return self.edit.name


def plan_layer(
    foreign: Layer, name: str, cut: CopyCut | None = None, clip: BoundingBox | None = None
) -> LayerCopy:
    """Plan the copy of a layer; every mag is opened, nothing is made.

    Parameters
    ----------
    foreign
        The layer to copy.
    name
        What the copy is called.
    cut
        How its mags are to be stored; as they are by default.
    clip
        What of it is copied, in voxels of mag 1; all by default. In each mag it is aligned outwards.

    Raises
    ------
    UnsupportedFormatError, DTypeError, InvalidValueError
        If a mag cannot be read, or not be stored so.
    DamagedHeaderError
        If a mag's folder or metadata are missing or damaged.
    """
    cut = cut or CopyCut()
    check_format(foreign.data_format)
    data_format = cut.data_format or foreign.data_format
    check_format(data_format)
    box = foreign.record.bounding_box
    if clip is not None:
        box = box.intersection(clip)
    if box.is_empty():
        box = EMPTY_BOX
    mags = []
    for record in foreign.record.mags:
        store = foreign.get_mag(record.mag).place.store
        inside = box if box.is_empty() else box.aligned_outwards(record.mag.to_vec3_int()).in_mag(record.mag)
        try:
            spec = cut.spec_of(store.spec, data_format)
        except WkdaskError as error:
            error.add_note(f"layer {foreign.name!r} mag {record.mag} is stored as {store.spec}")
            raise
        mags.append(MagCopy(record.mag, store, spec, inside))
    edit = replace(as_new_with_attachments(foreign, name), data_format=data_format, bounding_box=box)
    return LayerCopy(foreign, edit, tuple(mags), clip is not None)


def build_layer(
    copy: LayerCopy,
    properties: Properties,
    options: WriteOptions,
    known: Mapping[Mag, MagState] | None = None,
    note: Callable[[Mag, MagState], None] = lambda _mag, _state: None,
) -> None:
    """Make a layer that was planned, mag by mag, and list it when it is complete.

    Parameters
    ----------
    copy
        The plan.
    properties
        The dataset that gets it.
    options
        How it runs.
    known
        Mags at which an earlier run was; one whose source has changed since is copied anew.
    note
        Called with each mag before it is copied, and after.

    Raises
    ------
    TaskFailedError
        If tasks failed. What was copied stays, unlisted.
    """
    folder = os.path.join(properties.folder, copy.name)
    os.makedirs(folder, exist_ok=True)
    edits: list[Edit] = [copy.edit]
    open_sources([each.source for each in copy.mags], pick_engine(options.client))
    for each in copy.mags:
        source = "" if each.box.is_empty() else each.source.fingerprint(each.box)
        path = os.path.join(folder, each.mag.to_layer_name())
        before = (known or {}).get(each.mag)
        if before is not None and before.source != source:
            remove_folder(path)
            before = None
        store = _made(each, path, copy.edit.data_format)
        if before is None or not before.whole:
            note(each.mag, MagState(source, whole=False))
            place = MagPlace(properties.folder, copy.name, each.mag, store)
            copy_mag(each.source, place, each.box, options, exact=copy.exact, draft=True)
            if source and each.source.fingerprint(each.box) != source:
                warnings.warn(
                    f"{each.source.path} was written to while it was copied; the copy may hold some of its old "
                    f"voxels and some of the new",
                    WkdaskWarning,
                    stacklevel=2,
                )
            note(each.mag, MagState(source, whole=True))
        cube_length, extra = entry_of(store)
        edits.append(AddMag(copy.name, each.mag, cube_length, extra=extra))
    if copy.with_rest:
        copy_rest(copy.source, folder)
    properties.commit(*edits)
    write_multiscales(properties, copy.name)


def _made(copy: MagCopy, path: str, data_format: str) -> StoredMag:
    """Return the mag that gets a copy: the one that an earlier run has made, or a new one."""
    with contextlib.suppress(DamagedHeaderError):
        found = open_mag(path, data_format)
        if found.spec == copy.spec:
            return found
        remove_folder(path)
    return create_mag(path, copy.spec, data_format, copy.box.bottomright.pairmax(1))


# --- what goes with a layer ------------------------------------------------------------------------------


def as_new_with_attachments(foreign: Layer, name: str) -> AddLayer:
    """Return the edit that adds a layer like a foreign one: its attachments too, and what is not known here.

    Attachments (meshes, agglomerates) in the layer's folder are found in the new one, where they are linked or
    copied to; others by their absolute path.
    """
    edit, raw = foreign.as_new(name), foreign.record.raw
    extra = {key: value for key, value in raw.items() if key not in _STRUCTURE} | dict(edit.extra)
    attachments = raw.get("attachments")
    if isinstance(attachments, dict):
        extra["attachments"] = {
            key: _moved_attachment(foreign, name, value) for key, value in attachments.items()
        }
    return replace(edit, extra=extra)


def _moved_attachment(foreign: Layer, name: str, value: Any) -> Any:
    """Return what the properties of a new layer say of an attachment, or of a list of them."""
    if isinstance(value, list):
        return [_moved_attachment(foreign, name, each) for each in value]
    if not isinstance(value, dict) or not isinstance(value.get("path"), str) or "://" in value["path"]:
        return value
    path = joined(foreign.dataset_path, value["path"])
    folder = str(foreign.path)
    is_copied = not path.startswith(
        ("http://", "https://")
    )  # a web server does not list what there is to copy
    if is_copied and path.startswith(folder + os.sep):
        path = f"./{name}{path[len(folder) :]}"
    return {**value, "path": path}


def other_entries(layer: Layer) -> list[str]:
    """Return what is in a layer's folder beside its mags: mappings, agglomerates, meshes."""
    mags = set()
    for record in layer.record.mags:
        try:
            mags.add(str(resolved(mag_folder(layer.dataset_path, layer.name, record))))
        except UnsupportedFormatError:
            continue
    path = str(layer.path)
    if is_url(path):
        entries = [f"{path}/{name}" for name in _names_at(path)]
    else:
        names = sorted(os.listdir(path)) if os.path.isdir(path) else []
        entries = [os.path.join(path, name) for name in names]
    return [
        entry
        for entry in entries
        if not os.path.basename(entry).startswith(".")
        and str(resolved(entry)) not in mags
        and not _is_mag_name(os.path.basename(entry))
        and os.path.basename(entry) not in GROUP_FILES  # derived, for this layer
    ]


def _names_at(url: str) -> list[str]:
    """Return what is beside the mags of a layer in an object store; nothing where the store does not list it."""
    try:
        folders, objects = list_names(url)
    except (PermissionError, StoreError) as error:
        warnings.warn(
            f"what is beside the mags of {url} is not copied, since it cannot be listed: {error}",
            WkdaskWarning,
            stacklevel=2,
        )
        return []
    return [*folders, *objects]


def _is_mag_name(name: str) -> bool:
    """Return whether a folder's name is a mag's."""
    try:
        Mag(name)
    except WkdaskError:
        return False
    return True


def copy_rest(layer: Layer, folder: str) -> None:
    """Copy what is in a layer's folder beside its mags."""
    for entry in other_entries(layer):
        target = os.path.join(folder, os.path.basename(entry))
        if is_url(entry):
            download(entry, target)
        elif os.path.isdir(entry):
            shutil.copytree(entry, target, dirs_exist_ok=True)
        else:
            shutil.copy2(entry, target)
