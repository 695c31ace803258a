"""Renames and removals of the folders of layers and mags, which the next process ends if one is killed.

::

    note the edit in <dataset>/.wkdask/edit ─> commit the properties ─> rename or remove the folder ─> drop the note

The commit decides. The process that opens the dataset next and finds a note renames or removes the folder if
the commit has happened, and drops the note if it has not. A note names a layer's folder, or a mag's folder in
it, and nothing else: a name that leads elsewhere is not followed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from wkdask.errors import WkdaskError
from wkdask.fsio import remove_folder
from wkdask.jobs.mag_folders import listed_folders, mags_lock
from wkdask.properties.handle import Properties
from wkdask.storage.protocol import PRIVATE
from wkdask.storage.publish.private import (
    opened_folder,
    read_private_file,
    remove_private_temporaries,
    write_private_file,
)

__all__ = ["recover_edits", "recoverable_removal", "recoverable_rename"]

_logger = logging.getLogger(__name__)
_EDIT = "edit"
_LARGEST = 1 << 16
"""Bytes of a note at most."""


@contextlib.contextmanager
def recoverable_rename(properties: Properties, old: str, new: str) -> Iterator[None]:
    """Rename a layer's folder after the body has committed the layer's new name.

    If the body fails, the folder keeps its name.

    Parameters
    ----------
    properties
        The dataset's.
    old, new
        The names of the layer.

    Raises
    ------
    OSError
        If the folder cannot be renamed; the commit is then for the caller to undo.
    """
    with _noted(properties, {"rename": [old, new]}):
        yield


@contextlib.contextmanager
def recoverable_removal(properties: Properties, *names: str) -> Iterator[None]:
    """Remove a folder after the body has committed that the properties do not list it any more.

    Parameters
    ----------
    properties
        The dataset's.
    names
        The layer, and the name of a mag's folder in it if only that is to go.
    """
    with _noted(properties, {"remove": list(names)}):
        yield


@contextlib.contextmanager
def _noted(properties: Properties, edit: Mapping[str, Any]) -> Iterator[None]:
    """Note an edit while the body commits it, then bring the folders to what the properties say."""
    dataset = properties.folder
    with mags_lock(dataset):
        _bring_to_an_end(properties)
        with opened_folder(dataset, PRIVATE) as folder:
            remove_private_temporaries(folder, _EDIT)
            write_private_file(folder, _EDIT, json.dumps(edit).encode())
        try:
            yield
        finally:
            _bring_to_an_end(properties)


def recover_edits(properties: Properties) -> None:
    """Bring to its end what a killed process has begun; nothing is done, or made, where there is no note.

    Parameters
    ----------
    properties
        The dataset's. Where this user may not write, a line in the log says so, and all stays as it is.
    """
    if not os.path.lexists(os.path.join(properties.folder, PRIVATE, _EDIT)):
        return
    try:
        with mags_lock(properties.folder):
            _bring_to_an_end(properties)
    except (OSError, WkdaskError) as error:
        _logger.warning(
            "%s: an interrupted rename or removal could not be completed: %s", properties.folder, error
        )


def _bring_to_an_end(properties: Properties) -> None:
    """Rename or remove the folder of a note if its commit has happened; drop the note. The lock is held."""
    dataset = properties.folder
    try:
        with opened_folder(dataset, PRIVATE) as folder:
            edit = json.loads(read_private_file(folder, _EDIT, _LARGEST))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        edit = {}  # none that a process has left there
    match edit:
        case {"rename": [str(old), str(new)]} if _is_plain(old) and _is_plain(new):
            names = {layer.name for layer in properties.record.layers}
            source, target = os.path.join(dataset, old), os.path.join(dataset, new)
            if new in names and old not in names and os.path.lexists(source) and not os.path.lexists(target):
                os.rename(source, target)
        case {"remove": [str(layer), *rest]} if len(rest) < 2 and all(map(_is_plain, [layer, *rest])):
            _remove(properties, os.path.join(dataset, layer, *rest), is_layer=not rest)
    with opened_folder(dataset, PRIVATE) as folder, contextlib.suppress(FileNotFoundError):
        os.unlink(_EDIT, dir_fd=folder)


def _remove(properties: Properties, path: str, *, is_layer: bool) -> None:
    """Remove a folder in which no mag lies that is listed; of a symlink only the link goes."""
    if is_layer and any(layer.name == os.path.basename(path) for layer in properties.record.layers):
        return
    real = os.path.realpath(path)
    if any(mag == real or mag.startswith(f"{real}{os.sep}") for mag in listed_folders(properties)):
        return
    if os.path.islink(path):
        os.unlink(path)
    else:
        remove_folder(path)


def _is_plain(name: object) -> bool:
    """Return whether something is the name of an entry of a folder, and leads nowhere else."""
    return isinstance(name, str) and bool(name) and name not in (".", "..") and not {"/", "\0"} & {*name}
