"""Layers and datasets copied or linked: whole, with everything that the properties say of them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wkdask.errors import AlreadyExistsError, InvalidValueError, UnsupportedFormatError, WkdaskError
from wkdask.events import Listener
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry import Mag, Vec3Int
from wkdask.job import WriteOptions
from wkdask.layer import Layer, layer_of
from wkdask.multiscales import GROUP_FILES, write_multiscales
from wkdask.places import link_folder, mag_folder
from wkdask.properties import AddLayer, AddMag, Edit, MagRecord, RemoveLayer, SetViewConfiguration
from wkdask.properties.handle import Properties
from wkdask.storage.formats import check_format, entry_of, fitting_compression, open_mag
from wkdask.transfer import copy_mag

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["copy_layer", "copy_view_configuration", "link_layer", "link_mags", "open_foreign_layer"]


def open_foreign_layer(layer: Layer | str | os.PathLike[str]) -> Layer:
    """Return a layer of another dataset, from its handle or its folder.

    Raises
    ------
    FileNotFoundError
        If the folder above holds no dataset.
    LayerNotFoundError
        If that dataset does not list it.
    """
    if isinstance(layer, Layer):
        return layer
    folder = checked_path(layer)
    properties = Properties(os.path.dirname(folder))
    return layer_of(properties, properties.layer(os.path.basename(folder)))


def link_layer(foreign: Layer, properties: Properties, name: str, make_relative: bool) -> Layer:
    """Add a layer whose folder is a link to another dataset's layer; read-only here.

    Raises
    ------
    AlreadyExistsError
        If the dataset has a layer, or its folder something, of that name.
    UnsupportedFormatError, DamagedHeaderError
        If one of its mags cannot be read; nothing was made.
    """
    folder = os.path.join(properties.folder, name)
    own_folder = os.path.realpath(foreign.path)
    edits: list[Edit] = [_as_new(foreign, name)]
    for record in foreign.record.mags:
        there = mag_folder(foreign.dataset_path, foreign.name, record)
        inside = os.path.realpath(os.path.dirname(there)) == own_folder
        path = f"./{name}/{os.path.basename(there)}" if inside else os.path.realpath(there)
        edits.append(_add_mag(foreign, record, name, there, path))
    _refuse_taken(properties, name)
    link_folder(own_folder, folder, make_relative)
    try:
        properties.commit(*edits)
    except BaseException:
        os.unlink(folder)
        raise
    return layer_of(properties, properties.layer(name))


def copy_layer(
    foreign: Layer,
    properties: Properties,
    name: str,
    *,
    chunk_side: int | None = None,
    shard_side: int | None = None,
    file_len: int | None = None,
    compression: str | bool | None = True,
    data_format: str | None = None,
    client: Client | None = None,
    listeners: Sequence[Listener] = (),
) -> Layer:
    """Add a layer that is a copy of another dataset's, with all its mags and whatever else is in its folder.

    Parameters
    ----------
    foreign
        The layer to copy.
    properties
        The dataset that gets it.
    name
        Its name there.
    chunk_side, shard_side
        Another cut, in voxels; as it is by default.
    file_len
        Side of a cube in chunks, where `shard_side` does not say.
    compression
        Another compression; ``True`` for as it is.
    data_format
        ``"wkw"``, ``"zarr3"`` or ``"zarr"``; as it is by default.
    client, listeners
        Where it runs, and who hears of it.

    Raises
    ------
    AlreadyExistsError
        If the dataset has a layer, or its folder something, of that name.
    TaskFailedError
        If tasks failed; the layer was removed again.
    """
    _refuse_taken(properties, name)
    data_format = foreign.data_format if data_format is None else data_format
    check_format(data_format)
    properties.commit(replace(_as_new(foreign, name), data_format=data_format))
    folder = os.path.join(properties.folder, name)
    box = foreign.bounding_box
    try:
        os.makedirs(folder, exist_ok=True)
        layer = layer_of(properties, properties.layer(name))
        for record in foreign.record.mags:
            source = foreign.get_mag(record.mag)
            spec = source.spec
            chunk = Vec3Int.full(chunk_side) if chunk_side else spec.chunk_shape
            shard = shard_side or (chunk * file_len if file_len else spec.shard_shape)
            if layer.data_format == "zarr" and not shard_side and not file_len:
                shard = chunk
            copied = compression is True
            kept = fitting_compression(
                layer.data_format, spec.compression if copied else compression, copied=copied
            )
            added = layer.add_mag(record.mag, chunk_shape=chunk, shard_shape=shard, compression=kept or False)
            step = record.mag.to_vec3_int()
            voxels = box.aligned_outwards(step).in_mag(record.mag)
            options = WriteOptions(client=client, listeners=listeners)
            copy_mag(source.place.store, added.place, voxels, options)
        layer.bounding_box = box
        _copy_rest(foreign, folder)
    except BaseException as error:
        # What is missing in half a copy would be read as zeros.
        error.add_note(f"the layer {name!r} was not complete; it was removed from {properties.folder}")
        with contextlib.suppress(WkdaskError, OSError):  # the first error tells more
            properties.commit(RemoveLayer(name))
            remove_folder(folder)
        raise
    return layer


def link_mags(foreign: Layer, properties: Properties, make_relative: bool) -> None:
    """Add a layer whose mags, and whatever else is in its folder, are links to another dataset's.

    The layer's folder itself is new: more mags may be added to it.
    """
    name = foreign.name
    folder = os.path.join(properties.folder, name)
    _refuse_taken(properties, name)
    edits: list[Edit] = [_as_new(foreign, name)]
    linked = {}
    for record in foreign.record.mags:
        source = os.path.realpath(mag_folder(foreign.dataset_path, name, record))
        edits.append(_add_mag(foreign, record, name, source))
        linked[source] = record.mag.to_layer_name()
    properties.commit(*edits)
    os.makedirs(folder, exist_ok=True)
    for source, entry in linked.items():
        link_folder(source, os.path.join(folder, entry), make_relative)
    for entry in _other_entries(foreign):
        if os.path.realpath(entry) not in linked:
            link_folder(os.path.realpath(entry), os.path.join(folder, os.path.basename(entry)), make_relative)
    write_multiscales(properties, name)


def copy_view_configuration(source: Properties, target: Properties) -> None:
    """Let a dataset be shown as another one."""
    configuration = source.record.default_view_configuration
    if configuration is not None:
        target.commit(SetViewConfiguration(None, configuration))


def _as_new(foreign: Layer, name: str) -> AddLayer:
    """Return the edit that adds a layer like a foreign one, with its attachments (meshes, agglomerates).

    Those in the layer's folder are found in the new one, where they are linked or copied to; others by their
    absolute path.
    """
    edit = foreign.as_new(name)
    attachments = foreign.record.raw.get("attachments")
    if not isinstance(attachments, dict):
        return edit

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(each) for each in value]
        if not isinstance(value, dict) or not isinstance(value.get("path"), str) or "://" in value["path"]:
            return value
        path = os.path.normpath(os.path.join(foreign.dataset_path, value["path"]))
        if path.startswith(foreign.path + os.sep):
            path = f"./{name}{path[len(foreign.path) :]}"
        return {**value, "path": path}

    found = {key: moved(value) for key, value in attachments.items()}
    return replace(edit, extra={**edit.extra, "attachments": found})


def _add_mag(layer: Layer, record: MagRecord, name: str, folder: str, path: str | None = None) -> AddMag:
    """Return the edit that lists a mag of another dataset, by its header where the properties do not say."""
    check_format(layer.data_format)
    if record.cube_length is not None:
        return AddMag(name, record.mag, record.cube_length, path)
    cube_length, extra = entry_of(open_mag(folder, layer.data_format, record.raw))
    return AddMag(name, record.mag, cube_length, path, extra)


def _refuse_taken(properties: Properties, name: str) -> None:
    """Refuse a name that a layer or a file of the dataset has, or that is no name of a folder in it."""
    if os.path.basename(name) != name:
        raise InvalidValueError(f"a layer's name is the name of its folder, got {name!r}")
    if any(record.name == name for record in properties.record.layers):
        raise AlreadyExistsError(f"the dataset {properties.folder} has a layer {name!r} already")
    if os.path.lexists(os.path.join(properties.folder, name)):
        raise AlreadyExistsError(f"{os.path.join(properties.folder, name)} exists already")


def _other_entries(layer: Layer) -> list[str]:
    """Return what is in a layer's folder beside its mags: mappings, agglomerates, meshes."""
    mags = set()
    for record in layer.record.mags:
        try:
            mags.add(os.path.realpath(mag_folder(layer.dataset_path, layer.name, record)))
        except UnsupportedFormatError:
            continue
    names = sorted(os.listdir(layer.path)) if os.path.isdir(layer.path) else []
    entries = [os.path.join(layer.path, name) for name in names]
    return [
        entry
        for entry in entries
        if not os.path.basename(entry).startswith(".")
        and os.path.realpath(entry) not in mags
        and not _is_mag_name(os.path.basename(entry))
        and os.path.basename(entry) not in GROUP_FILES  # derived, for this layer
    ]


def _is_mag_name(name: str) -> bool:
    """Tell whether a folder's name is a mag's."""
    try:
        Mag(name)
    except WkdaskError:
        return False
    return True


def _copy_rest(layer: Layer, folder: str) -> None:
    """Copy what is in a layer's folder beside its mags."""
    for entry in _other_entries(layer):
        target = os.path.join(folder, os.path.basename(entry))
        if os.path.isdir(entry):
            shutil.copytree(entry, target)
        else:
            shutil.copy2(entry, target)
