"""Where the folders of mags are, who lists them, and how a job makes and lists a new one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    JobRunningError,
    LockTimeoutError,
    UnsupportedFormatError,
)
from wkdask.fsio import checked_path, lock, remove_entry, remove_folder
from wkdask.geometry import Mag
from wkdask.jobs.job import MagPlace, MagWrite
from wkdask.objects.urls import SCHEMES, checked_url, is_url
from wkdask.properties import PROPERTIES_FILE, AddMag, LayerRecord, MagRecord, load
from wkdask.properties.handle import Properties
from wkdask.storage.formats import create_mag, entry_of, metadata_names
from wkdask.storage.protocol import PRIVATE, StoredMag
from wkdask.storage.publish.dead_jobs import is_unfinished, unfinished_key
from wkdask.storage.publish.private import make_shared_folder, opened_folder

_logger = logging.getLogger(__name__)
_WAIT_SECONDS = 5.0
"""Seconds between two looks whether a lock without a limit is free."""

__all__ = [
    "clear_leftovers",
    "discard_mag",
    "is_address",
    "is_listed",
    "listed_folders",
    "listing_of",
    "mag_folder",
    "mags_lock",
    "make_mag",
    "making_lock",
    "owner_of",
    "prepare_folder",
    "refuse_external_files",
    "refuse_unfinished",
]


def mag_folder(dataset_path: str, layer_name: str, record: MagRecord) -> str:
    """Return a mag's folder: as the properties say, or by its short name, or by its long one; or its URL."""
    if record.path is not None and is_address(record):
        return _checked_address(layer_name, record, record.path)
    if is_url(dataset_path):
        below = record.path or f"{layer_name}/{record.mag.to_layer_name()}"
        return checked_url(f"{dataset_path}/{below}")
    if record.path is not None:
        folder = os.path.normpath(os.path.join(dataset_path, record.path))
        if os.path.basename(folder) == record.mag.to_layer_name():
            return _long_if_renamed(os.path.dirname(folder), record.mag)
        return folder
    return _long_if_renamed(os.path.join(dataset_path, layer_name), record.mag)


def _checked_address(layer_name: str, record: MagRecord, path: str) -> str:
    """Return the URL of a mag.

    Raises
    ------
    UnsupportedFormatError
        If it is of a kind that is not read.
    """
    if not is_url(path):
        raise UnsupportedFormatError(
            f"layer {layer_name!r} mag {record.mag} is at {path}; URLs that are read begin with "
            f"{', '.join(f'{scheme}://' for scheme in SCHEMES)}"
        )
    return checked_url(path)


def _long_if_renamed(layer_folder: str, mag: Mag) -> str:
    """Return a mag's folder of the short name, or that of the long one if there is only that."""
    short = os.path.join(layer_folder, mag.to_layer_name())
    long = os.path.join(layer_folder, mag.to_long_layer_name())
    return long if os.path.isdir(long) and not os.path.isdir(short) else short


def is_address(record: MagRecord) -> bool:
    """Return whether a mag is at a URL."""
    return "://" in (record.path or "")


def listed_folders(properties: Properties) -> set[str]:
    """Return the real paths of the folders of all mags that a dataset lists; of a broken layer what it may mean."""
    listed = {
        os.path.realpath(mag_folder(properties.folder, layer.name, mag))
        for layer in properties.record.layers
        for mag in layer.mags
        if not is_address(mag)
    }
    for broken in properties.record.broken:
        mags = broken.raw.get("mags")
        paths = [mag.get("path") for mag in mags if isinstance(mag, dict)] if isinstance(mags, list) else []
        listed |= {
            os.path.realpath(os.path.join(properties.folder, path))
            for path in (broken.name, *paths)
            if isinstance(path, str) and "://" not in path and "\0" not in path
        }
    return listed


def owner_of(store: StoredMag) -> MagPlace | None:
    """Return the mag of a dataset that lies in a folder, by the properties two folders above it; None if none does.

    Parameters
    ----------
    store
        The mag on disk. A dataset may have been moved, and a layer renamed, since a job began on it.
    """
    dataset = os.path.dirname(os.path.dirname(store.path))
    if not os.path.isfile(os.path.join(dataset, PROPERTIES_FILE)):
        return None
    for layer in load(dataset).layers:
        for record in layer.mags:
            if (
                not is_address(record)
                and os.path.realpath(mag_folder(dataset, layer.name, record)) == store.path
            ):
                return MagPlace(dataset, layer.name, record.mag, store)
    return None


@contextlib.contextmanager
def mags_lock(dataset_path: str) -> Iterator[None]:
    """Hold the lock of a dataset under which folders of mags are made or listed."""
    with lock(os.path.join(_locks(dataset_path), "mags.lock")):
        yield


@contextlib.contextmanager
def making_lock(dataset_path: str, layer: str) -> Iterator[None]:
    """Hold the lock under which jobs make mags of a layer; wait as long as another job does."""
    path = os.path.join(_locks(dataset_path), f"making-{layer}.lock")
    waited = False
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock(path, timeout=_WAIT_SECONDS if waited else 0))
            except LockTimeoutError:
                if not waited:
                    _logger.warning("layer %r: waiting for another job, which makes mags of the layer", layer)
                waited = True
                continue
            yield
            return


def _locks(dataset_path: str) -> str:
    """Return the folder of a dataset's locks, made if it is not there; a dataset at a URL is refused."""
    private = os.path.join(checked_path(dataset_path), PRIVATE)
    make_shared_folder(private)
    make_shared_folder(os.path.join(private, "locks"))
    return os.path.join(private, "locks")


# --- new mags --------------------------------------------------------------------------------------------


def refuse_external_files(folder: str) -> None:
    """Refuse a folder that is to become a mag and holds more than the header of one that was never listed.

    Raises
    ------
    AlreadyExistsError
        If it holds anything else; only the user knows what that is.
    """
    if os.path.isdir(folder) and set(os.listdir(folder)) - {*metadata_names(), PRIVATE}:
        raise AlreadyExistsError(
            f"{folder} holds files, but the properties do not list it; remove it, move it away, or list it with "
            f"add_mag_for_existing_files"
        )


def refuse_unfinished(folder: str) -> None:
    """Refuse to open or list a folder that a job has not finished making: what is missing would read as zeros.

    Raises
    ------
    DamagedHeaderError
        If so, with what to do.
    """
    if (why := is_unfinished(folder)) is not None:
        raise DamagedHeaderError(
            f"{why}; it is not complete. Call that again with resume=True (--resume), or remove the folder"
        )


def clear_leftovers(folder: str) -> None:
    """Make an empty folder for a new mag; what a dead job has left there unfinished goes.

    The caller holds `mags_lock`, and has seen that the properties do not list the folder.

    Raises
    ------
    JobRunningError
        If a living job makes a mag there.
    AlreadyExistsError
        If it holds anything that is not of a job.
    """
    if (why := is_unfinished(folder)) is not None:
        if " is making " in why:
            raise JobRunningError(f"{why} at the moment; try again when it has ended")
        remove_folder(folder)
    refuse_external_files(folder)
    os.makedirs(folder, exist_ok=True)


def prepare_folder(write: MagWrite, key: str | None) -> None:
    """Make the folder of a mag that a job is about to make, unless a previous run of the same job has.

    Parameters
    ----------
    write
        The mag, not listed yet.
    key
        The job's key, if it is to be resumed.
    """
    with mags_lock(write.place.dataset_path):
        if is_listed(write.place):
            raise AlreadyExistsError(
                f"{write.place.label} was added by another process meanwhile; call it again"
            )
        if key is not None and unfinished_key(write.store.path) == key:
            return
        clear_leftovers(write.store.path)


def make_mag(write: MagWrite, *, keep: bool) -> None:
    """Write the metadata of a mag that a job makes; it stays unlisted.

    Parameters
    ----------
    write
        The mag, in whose folder the job has its private one.
    keep
        Whether what a previous run of the job has made is kept; else it goes.
    """
    if not keep:
        with opened_folder(write.store.path) as folder:
            for name in {*os.listdir(folder)} - {PRIVATE}:
                remove_entry(folder, name)
    if not os.path.lexists(write.store.metadata_path):
        spec = write.store.spec
        create_mag(write.store.path, spec, spec.data_format, write.box.bottomright)


def discard_mag(write: MagWrite) -> None:
    """Remove a mag that a job has begun to make, unless it is listed."""
    with contextlib.suppress(FileNotFoundError):
        if not is_listed(write.place):
            remove_folder(write.store.path)


def is_listed(place: MagPlace) -> bool:
    """Return whether the properties list a mag."""
    record = _layer(place.dataset_path, place.layer)
    return record is not None and any(each.mag == place.mag for each in record.mags)


def listing_of(write: MagWrite) -> AddMag | None:
    """Return the edit that lists a mag which a job has made; None if it is listed already."""
    if is_listed(write.place):
        return None
    cube_length, extra = entry_of(write.store)
    return AddMag(write.place.layer, Mag(write.place.mag), cube_length, extra=extra)


def _layer(dataset_path: str, name: str) -> LayerRecord | None:
    return next((layer for layer in load(dataset_path).layers if layer.name == name), None)
