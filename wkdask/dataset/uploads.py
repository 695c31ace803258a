"""Datasets copied to object stores, file by file as they are.

::

    listing of the target ─> files that are not there as they are here ─> puts, several at once
                                                                       └─> the properties, last

A reader finds the whole dataset or none: its properties come when everything that they list is there. Files are
neither decoded nor changed, so that a mag at the target is stored as here. A call that was killed is resumed by
doing it again: what the target has with the same bytes is passed over.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wkdask import settings
from wkdask.errors import AlreadyExistsError, InvalidValueError, WkdaskError, WkdaskWarning
from wkdask.fsio import checked_place
from wkdask.geometry import EMPTY_BOX
from wkdask.geometry.voxel_size import format_bytes, format_count
from wkdask.jobs.driver import open_sources
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.events import JobFinished, JobStarted, Listener, UnitDone, WriteReport
from wkdask.jobs.mag_folders import is_address, mag_folder
from wkdask.jobs.tasks import UnitReport
from wkdask.layer import Layer
from wkdask.layer.copies import other_entries
from wkdask.layer.multiscales import GROUP_FILES
from wkdask.objects.reading import Listed, list_objects, read_object, read_range
from wkdask.objects.urls import is_url, url_name
from wkdask.objects.writing import put, put_new
from wkdask.properties import PROPERTIES_FILE
from wkdask.properties.handle import Properties
from wkdask.properties.rawjson import to_bytes
from wkdask.storage.parallel import run_all
from wkdask.storage.protocol import PRIVATE, StoredMag

__all__ = ["Upload", "plan_upload", "run_upload", "warn_of_unused"]

_COMPARED_NBYTES = 16 << 20
"""Bytes of an object that are read back at a time."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file that is copied."""

    path: str
    """Where it is."""
    name: str
    """Its name below the dataset's URL."""
    nbytes: int
    """Its size."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What is copied to an object store; ``print`` shows it."""

    source: str
    """The dataset's folder."""
    url: str
    """The URL of the copy."""
    properties: bytes
    """The properties file of the copy."""
    files: tuple[_File, ...]
    """All other files."""
    sources: tuple[StoredMag, ...]
    """The mags."""

    @property
    def nbytes(self) -> int:
        """Bytes of the files."""
        return sum(file.nbytes for file in self.files)

    def __repr__(self) -> str:
        return (
            f"To copy  : {self.source}\n"
            f"To       : {self.url}\n"
            f"Files    : {format_count(len(self.files), 'file')}, {format_bytes(self.nbytes)}, as they are"
        )


def plan_upload(
    properties: Properties, layers: Sequence[Layer], url: str, changes: Mapping[str, object]
) -> Upload:
    """List what the copy of layers to an object store consists of; nothing is copied.

    Parameters
    ----------
    properties
        The dataset's.
    layers
        Which of its layers are copied.
    url
        The URL of the copy.
    changes
        What else was asked for, by the names of the arguments; None for what was not.

    Raises
    ------
    InvalidValueError
        If the dataset is in an object store itself, or the copy is to have another format, compression or box.
    DamagedHeaderError, UnsupportedFormatError
        If a mag cannot be opened, or a layer has axes beside c, x, y, z.
    """
    source, raw = properties.folder, properties.record.raw
    if is_url(source):
        raise InvalidValueError(
            f"{source} is in an object store; copy it to a disk first, then from there to another store"
        )
    if asked := ", ".join(name for name, value in changes.items() if value is not None):
        raise InvalidValueError(
            f"into an object store files are copied as they are, without {asked}; make such a copy on a disk "
            f"first, and copy that to {url}"
        )
    files: list[_File] = []
    stores: list[StoredMag] = []
    listed = []
    for layer in layers:
        layer._refuse_further_axes("it is not copied into an object store, where such layers are not read")
        record = layer.record
        mags = []
        for mag in record.mags:
            if is_address(mag):
                mags.append(dict(mag.raw))  # it stays where it is
                continue
            stores.append(layer.get_mag(mag.mag).place.store)
            name = f"{layer.name}/{mag.mag.to_layer_name()}"
            files += _files_in(mag_folder(source, layer.name, mag), name)
            mags.append({**mag.raw, "path": f"./{name}"} if "mags" in record.raw else dict(mag.raw))
        for entry in other_entries(layer):
            files += _files_in(entry, f"{layer.name}/{os.path.basename(entry)}")
        for each in GROUP_FILES:
            files += _files_in(os.path.join(str(layer.path), each), f"{layer.name}/{each}")
        listed.append({**record.raw, "mags" if "mags" in record.raw else "wkwResolutions": mags})
    if any(layer.data_format != "wkw" for layer in layers):
        for each in GROUP_FILES:
            files += _files_in(os.path.join(source, each), each)
    content = to_bytes({**raw, "dataLayers": listed}, os.path.join(source, PROPERTIES_FILE))
    return Upload(source, checked_place(url), content, tuple(files), tuple(stores))


def warn_of_unused(**given: object) -> None:
    """Warn of arguments that say where tasks run: there are none.

    Warns
    -----
    WkdaskWarning
        If one of them is given.
    """
    if names := ", ".join(f"{name}=" for name, value in given.items() if value is not None):
        warnings.warn(
            f"{names} not used: this process copies the files, without tasks", WkdaskWarning, stacklevel=3
        )


def _files_in(path: str, name: str, above: tuple[str, ...] = ()) -> Iterator[_File]:
    """Yield a file, or all files of a folder but the private ones; links are followed, but not in a circle."""
    if os.path.isfile(path):
        yield _File(path, name, os.stat(path).st_size)
    elif os.path.isdir(path):
        real = os.path.realpath(path)
        if real in above:
            raise InvalidValueError(f"{path} is a link to {real}, in which it lies: what it holds has no end")
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name != PRIVATE and not entry.name.endswith(".tmp"):
                    yield from _files_in(entry.path, f"{name}/{entry.name}", (*above, real))


def run_upload(
    upload: Upload,
    *,
    resume: bool = False,
    verify: bool = False,
    listeners: Sequence[Listener] = (),
) -> WriteReport:
    """Copy a dataset to an object store as it was planned.

    Parameters
    ----------
    upload
        What is copied.
    resume
        Pass over what is there with the same bytes.
    verify
        Read every object back, and compare it with its file.
    listeners
        Called with the events.

    Raises
    ------
    AlreadyExistsError
        If there is anything at the URL, and the call is not to be resumed; or another dataset.
    FileNotFoundError
        If a file has gone since it was listed.
    StoreError, PermissionError
        If the store does not take an object. What was copied stays, without properties, for ``resume=True``.
    WkdaskError
        If a file has changed while it was copied, or reads back otherwise.
    """
    url, there = upload.url, _check_target(upload, resume=resume)
    start = time.perf_counter()
    open_sources(upload.sources, pick_engine(None))
    before = [_state(file) for file in upload.files]
    label = f"dataset {url_name(url)!r}"

    guard = threading.Lock()

    def notify(event: Any) -> None:
        with guard:
            for listener in listeners:
                listener(event)

    notify(
        JobStarted(
            label=label,
            action="copying",
            units=len(upload.files),
            cubes=len(upload.files),
            nbytes=upload.nbytes,
            engine=f"{settings.get('store-requests')} requests at once",
            units_before=0,
            cubes_before=0,
            nbytes_before=0,
        )
    )
    copied: list[int] = []

    def copy(file: _File) -> None:
        if not _is_same(file, there.get(file.name)):
            put(f"{url}/{file.name}", Path(file.path))
            copied.append(file.nbytes)
        if verify:
            _compare(file, f"{url}/{file.name}")
        notify(UnitDone(label, UnitReport(EMPTY_BOX, cubes=1, nbytes=file.nbytes, file_nbytes=file.nbytes)))

    report = None
    try:
        run_all((partial(copy, file) for file in upload.files), int(settings.get("store-requests")))
        for file, state in zip(upload.files, before, strict=True):
            if _state(file) != state:
                raise WkdaskError(
                    f"{file.path} was written to while it was copied; the same call with resume=True (--resume) "
                    f"copies it again"
                )
        if PROPERTIES_FILE not in there:
            put_new(f"{url}/{PROPERTIES_FILE}", upload.properties)
        report = WriteReport(
            label=label,
            bounding_box=EMPTY_BOX,
            cubes=len(upload.files),
            bytes=upload.nbytes,
            file_bytes=sum(copied),
            minimum=None,
            maximum=None,
            seconds=time.perf_counter() - start,
            dataset_path=url,
            was_finished=PROPERTIES_FILE in there,
            verified=upload.nbytes if verify else 0,
        )
        return report
    except BaseException as error:
        error.add_note(
            f"what was copied stays at {url}, without properties; the same call with resume=True (or --resume) "
            f"goes on from there"
        )
        raise
    finally:
        notify(JobFinished(label, report))


def _check_target(upload: Upload, *, resume: bool) -> dict[str, Listed]:
    """Return what is at the target; refuse anything that is not to be resumed."""
    url = upload.url
    there = {each.name: each for each in list_objects(url)}
    if there and not resume:
        more = (
            "; resume=True (or --resume) goes on with a copy that stopped"
            if PROPERTIES_FILE not in there
            else ""
        )
        raise AlreadyExistsError(f"there are {format_count(len(there), 'object')} at {url} already{more}")
    if PROPERTIES_FILE in there and bytes(read_object(f"{url}/{PROPERTIES_FILE}").data) != upload.properties:
        raise AlreadyExistsError(f"there is another dataset at {url} already, or this one has changed since")
    return there


def _state(file: _File) -> tuple[int, int, int]:
    """Return what changes when a file is written to."""
    info = os.stat(file.path)
    return info.st_ino, info.st_size, info.st_mtime_ns


def _is_same(file: _File, there: Listed | None) -> bool:
    """Return whether an object is known to hold the bytes of a file: its ETag is their MD5, as of most stores."""
    if there is None or there.size != file.nbytes:
        return False
    tag = there.version.strip('"')
    if len(tag) != 32:
        return False  # put in parts, or encrypted by a key of the user's
    digest = hashlib.md5(usedforsecurity=False)
    with open(file.path, "rb") as opened:
        while data := opened.read(4 << 20):
            digest.update(data)
    return digest.hexdigest() == tag


def _compare(file: _File, url: str) -> None:
    """Read an object back, and compare it with its file."""
    with open(file.path, "rb") as opened:
        position, version = 0, None
        while data := opened.read(_COMPARED_NBYTES):
            version = read_range(url, position, position + len(data), version)
            if version.data != data or version.size != file.nbytes:
                raise WkdaskError(f"{url} reads back with other bytes than {file.path}")
            position += len(data)
