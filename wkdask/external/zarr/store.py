"""Where Zarr of other programs is: in a folder, or in a zip file, under one kind of path.

::

    /data/image.zarr/0/zarr.json          a file in a folder
    /data/image.ozx/0/zarr.json           an entry of a zip file; so is /data/image.zarr.zip/image.zarr/0/zarr.json
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from wkdask.errors import DamagedHeaderError
from wkdask.storage.zarr.names import check_names, check_names_in, keys_on_disk, name_left_out

if TYPE_CHECKING:
    from zarr import Array

__all__ = [
    "children",
    "first_chunk",
    "in_zip",
    "is_file",
    "is_zarr",
    "left_out_chunk",
    "open_array",
    "read_json",
    "root_of",
]

_SUFFIXES = (".zip", ".ozx")
_FILES = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


def in_zip(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return the zip file that a path leads into, and the name inside; None where it leads into none."""
    file = os.fspath(path)
    while not os.path.lexists(file) and file != os.path.dirname(file):
        file = os.path.dirname(file)
    if not file.lower().endswith(_SUFFIXES) or not os.path.isfile(file):
        return None
    return file, os.fspath(path)[len(file) :].strip("/")


def root_of(path: str | os.PathLike[str]) -> str:
    """Return where the Zarr of a zip file begins: the file itself, or the only folder in it; else the path."""
    path = os.fspath(path)
    found = in_zip(path)
    if found is None or found[1] or is_zarr(path):
        return path
    tops = {name.partition("/")[0] for name in _entries(path) if not name.startswith("__MACOSX/")}
    inner = f"{path}/{next(iter(tops))}" if len(tops) == 1 else path
    return inner if is_zarr(inner) else path


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Return whether a path, in a folder or a zip file, has one of the files that make it Zarr."""
    path = os.fspath(path)
    return any(is_file(f"{path}/{name}") for name in _FILES)


def is_file(path: str) -> bool:
    """Return whether there is a file, or such an entry of a zip file."""
    if os.path.lexists(path):
        return os.path.isfile(path)
    found = in_zip(path)
    return found is not None and found[1] in _entries(found[0])


def read_json(path: str) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one where there is no file.

    Raises
    ------
    DamagedHeaderError
        If it is no JSON object.
    """
    try:
        content = json.loads(_read(path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (
        OSError,
        ValueError,
        RecursionError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DamagedHeaderError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DamagedHeaderError(f"{path} holds no JSON object")
    return content


def children(path: str) -> list[str]:
    """Return the names of the folders in a folder, or in one of a zip file, in order; none where there is none."""
    found = in_zip(path)
    if found is None:
        try:
            with os.scandir(path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted({name.partition("/")[0] for name in _below(*found) if "/" in name})


def open_array(path: str) -> Array[Any]:
    """Open an array with zarr-python; what that stumbles over is raised as it is."""
    import zarr

    found = in_zip(path)
    if found is not None:
        return zarr.open_array(_zip_store(*_version(found[0])), path=found[1], mode="r")
    # Not by its name: one with "::" or "://" in it would be taken for a URL.
    return zarr.open_array(zarr.storage.LocalStore(path, read_only=True), mode="r")


def first_chunk(path: str, ndim: int, prefix: str, separator: str) -> str | None:
    """Return the name of a chunk's file, None where there is none; see `check_names` for what is refused."""
    found = in_zip(path)
    if found is None:
        return check_names(path, ndim, prefix, separator)
    return check_names_in(path, _below(*found), ndim, prefix, separator)


def left_out_chunk(path: str, counts: Sequence[int], prefix: str, separator: str) -> str | None:
    """Return the name of a chunk's file that is none of an array; see `name_left_out`."""
    found = in_zip(path)
    with contextlib.suppress(OSError):  # the reader of the array reports what cannot be listed
        return name_left_out(
            keys_on_disk(path) if found is None else _below(*found), counts, prefix, separator
        )
    return None


# --- zip files ----------------------------------------------------------------------------------------


def _read(path: str) -> bytes:
    found = None if os.path.lexists(path) else in_zip(path)
    if found is None:
        with open(path, "rb") as file:
            return file.read()
    if found[1] not in _entries(found[0]):
        raise FileNotFoundError(path)
    return _opened(*_version(found[0])).read(found[1])


def _version(file: str) -> tuple[str, int, int]:
    """Return a file's path, time and size: what is remembered of it is that of the file as it is."""
    info = os.stat(file)
    return file, info.st_mtime_ns, info.st_size


@functools.lru_cache(8)
def _opened(file: str, time: int, size: int) -> zipfile.ZipFile:
    """Open a zip file; it stays open, since its table may have millions of entries."""
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError) as error:
        raise DamagedHeaderError(f"{file} cannot be read as a zip file: {error}") from error


@functools.lru_cache(8)
def _zip_store(file: str, time: int, size: int) -> Any:
    """Return zarr-python's store of a zip file, which is opened once."""
    import zarr

    return zarr.storage.ZipStore(file, mode="r")


def _entries(file: str) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of a zip file by their names."""
    return _opened(*_version(file)).NameToInfo


def _below(file: str, inner: str) -> Iterator[str]:
    """Yield the names of the entries below a folder of a zip file, relative to it."""
    start = f"{inner}/" if inner else ""
    return (name[len(start) :] for name in _entries(file) if name.startswith(start))
