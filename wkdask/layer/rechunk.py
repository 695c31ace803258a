"""Rechunk a mag in place: a new folder beside the old one, and one commit that switches to it.

::

    color/1            listed; read and written as ever
    color/.1_2.new     the new cubes grow here, hidden; its marker says which folder it is to replace
    color/1_2          the same, complete, not listed yet
    ---------------    commit: the mag's path and the side of its cubes, both at once
    color/1_2          listed; from here on the mag opens as this one
    color/1            removed; a view or an array that was made of it raises, it never reads zeros

Killed at any moment, the properties name a whole folder: the old one or the new one. What is left beside it is
found by its marker and removed by the next call. The call after that reuses the name that is free again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace

from wkdask.errors import (
    InterruptedJobError,
    JobRunningError,
    LockTimeoutError,
    ReadOnlyError,
    TaskFailedError,
)
from wkdask.fsio import fsync_folder, lock, remove_folder
from wkdask.jobs.driver import open_sources
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import MagPlace, WriteOptions
from wkdask.jobs.mag_folders import listed_folders
from wkdask.layer.multiscales import write_multiscales
from wkdask.locations import is_own
from wkdask.operations.copy import copy_cubes
from wkdask.properties import MoveMag
from wkdask.properties.handle import Properties
from wkdask.storage.formats import create_mag, entry_of, found_format, open_mag
from wkdask.storage.protocol import PRIVATE, ArraySpec, StoredMag
from wkdask.storage.publish.dead_jobs import replaced_jobs
from wkdask.storage.publish.private import (
    opened_folder,
    private_folder,
    read_private_file,
    write_private_file,
)

__all__ = ["rechunk_in_place"]

_MARKER = "replaces"
"""File in a new folder's private one: which mag it is of, and the folder that it replaces."""
_LARGEST = 1 << 16
"""Bytes of it at most."""


def rechunk_in_place(
    properties: Properties, place: MagPlace, spec: ArraySpec, options: WriteOptions
) -> tuple[WriteReport | None, StoredMag]:
    """Cut a mag into other chunks and cubes, where it is.

    Parameters
    ----------
    properties
        The dataset's.
    place
        The mag.
    spec
        How it is to be stored; of the same type and channels.
    options
        How it runs.

    Returns
    -------
    WriteReport or None
        None if there was no cube.
    StoredMag
        The mag as it is now.

    Raises
    ------
    ReadOnlyError
        If the mag lies outside of the dataset.
    JobRunningError
        If another process is at it, or somebody wrote into the mag meanwhile: it stays as it is.
    TaskFailedError
        If tasks failed: it stays as it is.
    """
    if place.read_only is not None:
        raise ReadOnlyError(f"{place.label} is read-only: {place.read_only}")
    with _alone(place):
        _remove_leftovers(properties, place)
        folder = os.path.join(place.dataset_path, place.layer)
        data_format = found_format(place.store.path)
        name = _free_name(folder, place.mag.to_layer_name())
        draft, final = os.path.join(folder, f".{name}.new"), os.path.join(folder, name)
        try:
            new = create_mag(draft, spec, data_format)
            marker = {"mag": place.mag.to_layer_name(), "folder": os.path.relpath(place.store.path, folder)}
            private_folder(draft)
            with opened_folder(draft, PRIVATE) as private:
                write_private_file(private, _MARKER, json.dumps(marker).encode())
            report = _copied(place, replace(place, store=new), options)
            os.rename(draft, final)
            fsync_folder(folder)
            path = f"./{place.layer}/{name}"
            properties.commit(MoveMag(place.layer, place.mag, path, *entry_of(new)))
            write_multiscales(properties, place.layer)
        except BaseException:
            for left in (draft, final):
                if os.path.realpath(left) not in listed_folders(properties):
                    remove_folder(left)
            raise
        _remove_leftovers(properties, place)
        return report, open_mag(final, data_format)


def _copied(place: MagPlace, target: MagPlace, options: WriteOptions) -> WriteReport | None:
    """Copy all cubes of a mag, also those outside of the layer's box; refuse to go on if it changed meanwhile."""
    source = place.store
    open_sources(
        [source], pick_engine(options.client)
    )  # what an interrupted job left half replaced is finished first
    if pending := replaced_jobs(source):
        raise InterruptedJobError(
            f"{place.label}: an interrupted job ({pending[0].action} {pending[0].name}) has replaced its "
            f"cubes and has more "
            f"to do; call that again with resume=True first"
        )
    before = _state(source)
    report = copy_cubes(source, target, options, "rechunking")
    if _state(source) != before:
        raise JobRunningError(
            f"{place.label} was written to while it was cut into other cubes; it stays as it is. Do it again when "
            f"no other process writes"
        )
    if report is None and before[0]:
        raise TaskFailedError(f"{place.label}: none of its {len(before[0])} cubes was copied")
    return report


def _state(store: StoredMag) -> tuple[list[tuple[int, ...]], list[str]]:
    """Return which cubes there are, and what changes when one of them does."""
    grid = store.spec.grid
    cubes = list(store.cubes_on_disk())
    return [tuple(index) for index in cubes], [store.fingerprint(grid.cube_box(index)) for index in cubes]


@contextlib.contextmanager
def _alone(place: MagPlace) -> Iterator[None]:
    """Hold the lock of a mag under which it is rechunked; of two processes, one does it."""
    folder = os.path.join(place.dataset_path, PRIVATE, "locks")
    os.makedirs(folder, exist_ok=True)
    name = f"rechunk-{place.layer}-{place.mag.to_layer_name()}.lock"
    try:
        with lock(os.path.join(folder, name), timeout=0):
            yield
    except LockTimeoutError as error:
        raise JobRunningError(f"{place.label} is being cut into other cubes by another process") from error


def _free_name(folder: str, name: str) -> str:
    """Return the mag's usual name, or one made of it, that nothing in a layer's folder has."""
    number, free = 1, name
    while os.path.lexists(os.path.join(folder, free)):
        number, free = number + 1, f"{name}_{number + 1}"
    return free


def _remove_leftovers(properties: Properties, place: MagPlace) -> None:
    """Remove what calls that died have left of a mag; the caller holds its lock.

    A folder with a marker that is not listed was never switched to; one that is listed was, and what it replaces
    goes. A draft goes also where it has no marker yet.
    """
    folder = os.path.join(place.dataset_path, place.layer)
    name = re.escape(place.mag.to_layer_name())
    going = re.compile(rf"\.\.?{name}(_[0-9]+)?(\.new)?\.gone-[0-9a-f]{{32}}")
    draft = re.compile(rf"\.{name}(_[0-9]+)?\.new")
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        if draft.fullmatch(entry):
            remove_folder(path)
            continue
        if going.fullmatch(entry):  # renamed away already, by `remove_folder`
            shutil.rmtree(path, ignore_errors=True)
            continue
        replaced = _replaced(path, place.mag.to_layer_name())
        if replaced is None:
            continue
        if os.path.realpath(path) not in listed_folders(properties):
            remove_folder(path)
            continue
        old = os.path.normpath(os.path.join(folder, replaced))
        if os.path.lexists(old) and is_own(properties, place.layer, old):
            remove_folder(old)
        with opened_folder(path, PRIVATE) as private:
            os.unlink(_MARKER, dir_fd=private)


def _replaced(path: str, mag: str) -> str | None:
    """Return which folder a folder replaces that was made for a mag; None if it was not."""
    try:
        with opened_folder(path, PRIVATE) as private:
            marker = json.loads(read_private_file(private, _MARKER, _LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    match marker:
        case {"mag": name, "folder": str(folder)} if name == mag and "\0" not in folder:
            return folder
    return None
