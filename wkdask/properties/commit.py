"""The only place that writes ``datasource-properties.json``.

An edit is a small value that says what changes. `commit` replays edits, under a lock, on the file as it is
at that moment; so two processes that grow one layer never lose each other's growth.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from wkdask import fsio
from wkdask.errors import AlreadyExistsError, InvalidValueError, PropertiesError
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.properties.rawjson import PROPERTIES_FILE, Raw, is_same, read_bytes, to_bytes, to_raw
from wkdask.properties.records import DatasetRecord, Layout, parse
from wkdask.properties.structure import (
    AddLayer,
    AddMag,
    MoveMag,
    RemoveLayer,
    RemoveMag,
    RenameLayer,
    SetDataFormat,
)
from wkdask.properties.values import (
    Edit,
    GrowBox,
    RaiseSegmentId,
    SetBox,
    SetDatasetName,
    SetMappings,
    SetNumChannels,
    SetSegmentId,
    SetViewConfiguration,
)

__all__ = [
    "AddLayer",
    "AddMag",
    "Edit",
    "GrowBox",
    "MoveMag",
    "RaiseSegmentId",
    "RemoveLayer",
    "RemoveMag",
    "RenameLayer",
    "SetBox",
    "SetDataFormat",
    "SetDatasetName",
    "SetMappings",
    "SetNumChannels",
    "SetSegmentId",
    "SetViewConfiguration",
    "check_edit",
    "commit",
    "create",
]


def create(
    folder: str | os.PathLike[str], name: str, voxel_size: VoxelSize, layout: Layout = "v4"
) -> DatasetRecord:
    """Write the properties file of a dataset without layers.

    Parameters
    ----------
    folder
        The dataset's folder; made if missing. What else is in it does not matter.
    name
        The dataset's name, not empty.
    voxel_size
        The size of a voxel of mag 1, in its unit.
    layout
        "v4" as webknossos 4 writes it, or "legacy" as in 2021 (the voxel size is then written in nanometers).

    Returns
    -------
    DatasetRecord
        What was written.

    Raises
    ------
    AlreadyExistsError
        If there is such a file, or another process makes it at the same time; or if `folder` is a file.
    InvalidValueError
        If the name is empty or the layout unknown.
    """
    if layout not in ("v4", "legacy"):
        raise InvalidValueError(f'a layout is "v4" or "legacy", got {layout!r}')
    legacy = layout == "legacy"
    raw: Raw = {"id": {"name": "", "team": ""}}
    SetDatasetName(name).apply(raw)
    raw["scale"] = (
        list(voxel_size.to_nanometer())
        if legacy
        else {"factor": list(voxel_size.factor), "unit": voxel_size.unit}
    )
    raw["dataLayers"] = []
    if not legacy:
        raw["version"] = 1

    folder = fsio.checked_path(folder)
    path = os.path.join(folder, PROPERTIES_FILE)
    data = to_bytes(raw, path)
    record = parse(data, path)
    _refuse_existing(path)  # before anything is made beside a dataset that may not be ours
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError:
        raise AlreadyExistsError(f"no dataset can be made at {folder}: a file is there") from None
    with _locked(path):
        _refuse_existing(path)
        fsio.atomic_write(path, data)
    return record


def commit(folder: str | os.PathLike[str], edits: Sequence[Edit]) -> DatasetRecord:
    """Replay edits on the properties file as it is now, and write it atomically.

    Safe from any number of processes and threads at once. A reader sees the old file or the new one; so
    does the next commit after a crash. Keys that wkdask does not know stay as they are. A file that the edits
    do not change is not written.

    Parameters
    ----------
    folder
        The dataset's folder.
    edits
        Replayed in order; all of them take effect, or none.

    Returns
    -------
    DatasetRecord
        The file as it is then, with what others committed before.

    Raises
    ------
    FileNotFoundError
        If there is no properties file.
    PropertiesError
        If the file cannot be understood, or would not be understood afterwards.
    LockTimeoutError
        If another process holds the lock for too long.
    WkdaskError
        What an edit raises; the file is untouched then.
    """
    folder = fsio.checked_path(folder)
    _, path = read_bytes(folder)  # a wrong folder is refused before a lock is made in it
    with _locked(path):
        data, _ = read_bytes(folder)
        before = parse(data, path)
        raw = to_raw(data, path)
        for edit in edits:
            bound = replace(edit, folder=edit.folder or folder) if isinstance(edit, RenameLayer) else edit
            bound.apply(raw)
        if is_same(raw, dict(before.raw)):
            return before
        data = to_bytes(raw, path)
        record = _parsed_after(before, data, path)
        fsio.remove_temporaries(path)
        fsio.atomic_write(path, data)
    return record


def check_edit(folder: str | os.PathLike[str], edit: Edit) -> None:
    """Apply an edit to the properties file as it is now, and write nothing: what it raises, it would raise later.

    Raises
    ------
    FileNotFoundError, PropertiesError, WkdaskError
        As :func:`commit`.
    """
    data, path = read_bytes(fsio.checked_path(folder))
    raw = to_raw(data, path)
    edit.apply(raw)
    _parsed_after(parse(data, path), to_bytes(raw, path), path)


def _parsed_after(before: DatasetRecord, data: bytes, path: str) -> DatasetRecord:
    """Return what edits made of a dataset; refuse them if a layer cannot be understood that could be before."""
    record = parse(data, path)
    known = {layer.name for layer in before.broken}
    for layer in record.broken:
        if layer.name not in known:
            raise PropertiesError(layer.reason)
    return record


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock of a properties file; it lies beside the real file, one for all links to it."""
    home = os.path.dirname(os.path.realpath(path))
    folder = os.path.join(home, ".wkdask", "locks")
    os.makedirs(folder, exist_ok=True)
    with fsio.lock(os.path.join(folder, "properties.lock")):
        yield


def _refuse_existing(path: str) -> None:
    if os.path.lexists(path):
        raise AlreadyExistsError(f"there already is a dataset: {path}")
