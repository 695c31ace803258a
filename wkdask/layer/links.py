"""Layers copied or linked: whole, with everything that the properties say of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, cast

from wkdask.errors import AlreadyExistsError, InvalidValueError, UnsupportedFormatError, WkdaskError
from wkdask.fsio import checked_place, remove_folder
from wkdask.further_axes.mag_view import NDMagView
from wkdask.geometry.axis_vectors import CXYZ_AXES
from wkdask.jobs.job import WriteOptions
from wkdask.jobs.mag_folders import mag_folder
from wkdask.layer.copies import (
    CopyCut,
    as_new_with_attachments,
    build_layer,
    copy_rest,
    other_entries,
    plan_layer,
)
from wkdask.layer.layer import Layer, layer_of
from wkdask.layer.multiscales import write_multiscales
from wkdask.layer.positions import copy_positions
from wkdask.locations import link_folder
from wkdask.objects.urls import is_url
from wkdask.paths import joined, resolved
from wkdask.properties import AddLayer, AddMag, Edit, MagRecord, RemoveLayer, SetViewConfiguration, check_edit
from wkdask.properties.further_axes import SetFurtherAxes, axes_of_layer, further_axes_of, has_further_axes
from wkdask.properties.handle import Properties
from wkdask.storage.formats import check_format, entry_of, open_mag

__all__ = [
    "copy_layer",
    "copy_view_configuration",
    "link_layer",
    "link_mags",
    "open_foreign_layer",
    "refer_to_layer",
]


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
    folder = checked_place(layer)
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
    own_folder = str(resolved(str(foreign.path)))
    edits: list[Edit] = [as_new_with_attachments(foreign, name)]
    for record in foreign.record.mags:
        there = mag_folder(foreign.dataset_path, foreign.name, record)
        inside = str(resolved(os.path.dirname(there))) == own_folder
        path = f"./{name}/{os.path.basename(there)}" if inside else str(resolved(there))
        edits.append(_add_mag(foreign, record, name, there, path))
    _refuse_taken(properties, name)
    link_folder(own_folder, folder, make_relative)
    try:
        properties.commit(*edits)
    except BaseException:
        os.unlink(folder)
        raise
    return layer_of(properties, properties.layer(name))


def refer_to_layer(foreign: Layer, properties: Properties, name: str) -> Layer:
    """Add a layer whose mags, and attachments, are listed by their paths in another dataset; nothing is made.

    Raises
    ------
    AlreadyExistsError
        If the dataset has a layer, or its folder something, of that name.
    UnsupportedFormatError, DamagedHeaderError
        If one of its mags cannot be read; nothing was made.
    """
    edits: list[Edit] = [_as_new_with_references(foreign, name)]
    for record in foreign.record.mags:
        there = str(resolved(mag_folder(foreign.dataset_path, foreign.name, record)))
        edits.append(_add_mag(foreign, record, name, there, there))
    _refuse_taken(properties, name)
    properties.commit(*edits)
    write_multiscales(properties, name)
    return layer_of(properties, properties.layer(name))


def _as_new_with_references(foreign: Layer, name: str, relative_to: str | None = None) -> AddLayer:
    """Return the edit that adds a layer like a foreign one, whose attachments are those of the foreign one.

    Their paths are absolute, or relative to a folder.
    """
    new = as_new_with_attachments(foreign, name)
    extra = dict(new.extra)
    if "attachments" in extra:
        extra["attachments"] = _moved(foreign.record.raw["attachments"], foreign.dataset_path, relative_to)
    return replace(new, extra=extra)


def _moved(attachments: Any, folder: str, relative_to: str | None) -> Any:
    """Return what the properties in a folder say of attachments, with paths that hold from anywhere, or another."""
    if isinstance(attachments, list):
        return [_moved(each, folder, relative_to) for each in attachments]
    if not isinstance(attachments, dict):
        return attachments
    path = attachments.get("path")
    if not isinstance(path, str):
        return {key: _moved(value, folder, relative_to) for key, value in attachments.items()}
    if "://" in path:
        return attachments
    there = joined(folder, path)
    return {
        **attachments,
        "path": there if relative_to is None or is_url(there) else os.path.relpath(there, relative_to),
    }


def copy_layer(
    foreign: Layer,
    properties: Properties,
    name: str,
    options: WriteOptions | None = None,
    cut: CopyCut | None = None,
    *,
    with_rest: bool = True,
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
    options
        How it runs.
    cut
        How its mags are to be stored; as they are by default.
    with_rest
        Whether attachments are copied too.

    Raises
    ------
    AlreadyExistsError
        If the dataset has a layer, or its folder something, of that name.
    UnsupportedFormatError, DamagedHeaderError
        If one of its mags cannot be read; nothing was made.
    TaskFailedError
        If tasks failed; what was copied was removed again.
    """
    _refuse_taken(properties, name)
    if has_further_axes(foreign.record.raw):
        return _copy_nd_layer(
            foreign, properties, name, options or WriteOptions(), cut or CopyCut(), with_rest=with_rest
        )
    copy = plan_layer(foreign, name, cut)
    if not with_rest:
        copy = replace(copy, edit=_without_attachments(copy.edit), with_rest=False)
    check_edit(properties.folder, copy.edit)
    folder = _new_folder(properties, name)
    try:
        build_layer(copy, properties, options or WriteOptions())
    except BaseException as error:
        error.add_note(f"the layer {name!r} was not complete; it was removed from {properties.folder}")
        with contextlib.suppress(WkdaskError, OSError):  # the first error says more
            remove_folder(folder)
        raise
    return layer_of(properties, properties.layer(name))


def _without_attachments(edit: AddLayer) -> AddLayer:
    return replace(edit, extra={key: value for key, value in edit.extra.items() if key != "attachments"})


def _new_folder(properties: Properties, name: str) -> str:
    """Make the folder of a new layer; of two who make that of the same name, one does."""
    folder = os.path.join(properties.folder, name)
    try:
        os.mkdir(folder)
    except FileExistsError:
        raise AlreadyExistsError(f"{folder} exists already") from None
    return folder


def _copy_nd_layer(
    foreign: Layer,
    properties: Properties,
    name: str,
    options: WriteOptions,
    cut: CopyCut,
    *,
    with_rest: bool,
) -> Layer:
    """Add a copy of a layer with further axes, mag by mag and position by position; as `copy_layer`."""
    if cut.data_format not in (None, "zarr3"):
        raise UnsupportedFormatError(
            f"layer {foreign.name!r} has axes beside c, x, y, z, which are written in Zarr 3 only, not in "
            f"{cut.data_format!r}"
        )
    record = foreign.record
    edit = replace(as_new_with_attachments(foreign, name), data_format="zarr3")
    if not with_rest:
        edit = _without_attachments(edit)
    axes = axes_of_layer(record, record.mags[0].raw if record.mags else None)
    order = {axis: axes.index(axis) for axis in CXYZ_AXES if axis in axes}
    mags = [
        (each.mag, view, cut.spec_of(view.first_position().spec, "zarr3"))
        for each in record.mags
        for view in [cast(NDMagView, foreign.get_mag(each.mag))]
    ]
    check_edit(properties.folder, edit)
    folder = _new_folder(properties, name)
    try:
        properties.commit(edit, SetFurtherAxes(name, further_axes_of(record), order))
        layer = layer_of(properties, properties.layer(name))
        for mag, view, spec in mags:
            copy_positions(layer, mag, view, spec, options, extend=True)
        layer.bounding_box = record.bounding_box
        if with_rest:
            copy_rest(foreign, folder)
    except BaseException as error:
        error.add_note(f"the layer {name!r} was not complete; it was removed from {properties.folder}")
        with contextlib.suppress(WkdaskError, OSError):  # the first error says more
            properties.commit(RemoveLayer(name))
        with contextlib.suppress(WkdaskError, OSError):
            remove_folder(folder)
        raise
    return layer


def link_mags(foreign: Layer, properties: Properties, make_relative: bool) -> None:
    """Add a layer whose mags, and whatever else is in its folder, are links to another dataset's.

    The layer's folder itself is new: more mags may be added to it. Attachments are listed by their paths in the
    other dataset; where a folder holds nothing else there is no link to it, so that more may be added here. What
    is at a URL cannot be linked: mags there are listed by their URLs.
    """
    name = foreign.name
    folder = os.path.join(properties.folder, name)
    _refuse_taken(properties, name)
    new = _as_new_with_references(foreign, name, properties.folder if make_relative else None)
    edits: list[Edit] = [new]
    attached = set(_paths_in(new.extra.get("attachments"), properties.folder))
    linked = {}
    for record in foreign.record.mags:
        source = str(resolved(mag_folder(foreign.dataset_path, name, record)))
        edits.append(_add_mag(foreign, record, name, source, source if is_url(source) else None))
        if not is_url(source):
            linked[source] = record.mag.to_layer_name()
    properties.commit(*edits)
    os.makedirs(folder, exist_ok=True)
    for source, entry in linked.items():
        link_folder(source, os.path.join(folder, entry), make_relative)
    for entry in () if is_url(foreign.dataset_path) else other_entries(foreign):
        if os.path.realpath(entry) not in linked and not _consists_of(entry, attached):
            link_folder(os.path.realpath(entry), os.path.join(folder, os.path.basename(entry)), make_relative)
    write_multiscales(properties, name)


def _paths_in(attachments: Any, folder: str) -> Iterator[str]:
    """Yield the real paths of attachments, by what the properties in a folder say of them."""
    for value in attachments.values() if isinstance(attachments, dict) else ():
        for each in value if isinstance(value, list) else [value]:
            path = each.get("path") if isinstance(each, dict) else None
            if isinstance(path, str) and "://" not in path:
                yield os.path.realpath(os.path.join(folder, path))


def _consists_of(entry: str, paths: Collection[str]) -> bool:
    """Return whether a file or a folder is one of those at the paths, or has nothing but such."""
    if os.path.realpath(entry) in paths:
        return True
    if os.path.islink(entry) or not os.path.isdir(entry):
        return False
    names = os.listdir(entry)
    return bool(names) and all(_consists_of(os.path.join(entry, name), paths) for name in names)


def copy_view_configuration(source: Properties, target: Properties) -> None:
    """Let a dataset be shown as another one."""
    configuration = source.record.default_view_configuration
    if configuration is not None:
        target.commit(SetViewConfiguration(None, configuration))


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
    if name in properties.record.names:
        raise AlreadyExistsError(f"the dataset {properties.folder} has a layer {name!r} already")
    if os.path.lexists(os.path.join(properties.folder, name)):
        raise AlreadyExistsError(f"{os.path.join(properties.folder, name)} exists already")
