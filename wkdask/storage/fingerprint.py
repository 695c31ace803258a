"""What stands for the content of a mag: the inodes, sizes and times of its files.

A job that replaces a mag by what it read from it (``mag.write(255 - mag.to_dask())``) publishes in a second phase,
cube by cube. Until it has ended the mag counts as the one that it was before, here and in the names of arrays over
it: so that the same expression, made anew after the job's driver has died, has the same name, and the job is found
again. The job's folder holds the files' state from before for that::

    <mag>/.wkdask/<job>/before     {"z0/y0/x0.wkw": "inode.size.time", "z0/y0/x1.wkw": "-", ...}
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable

from wkdask.storage.protocol import PRIVATE

__all__ = ["fingerprint_of", "snapshot_of"]

_BEFORE = "before"


def fingerprint_of(path: str, header: bytes, names: Iterable[str]) -> str:
    """Return a text that changes when one of a mag's files does.

    Parameters
    ----------
    path
        The mag's folder.
    header
        The bytes of its metadata.
    names
        The files and folders that stand for its content, relative to the folder.
    """
    before = _states_before(path)
    digest = hashlib.blake2b(header, digest_size=16)
    for name in names:
        digest.update(f"{before.get(name) or _state(path, name)};".encode())
    return digest.hexdigest()


def snapshot_of(path: str, names: Iterable[str]) -> bytes:
    """Return the states of a mag's files, as a job notes them before it replaces the first one."""
    before = _states_before(path)
    return json.dumps({name: before.get(name) or _state(path, name) for name in names}).encode()


def _state(path: str, name: str) -> str:
    """Return what changes when a file is replaced or rewritten."""
    try:
        info = os.stat(f"{path}/{name}")
    except OSError:
        return "-"
    return f"{info.st_ino}.{info.st_size}.{info.st_mtime_ns}"


def _states_before(path: str) -> dict[str, str]:
    """Return the states from before of all files that jobs are replacing now."""
    states: dict[str, str] = {}
    try:
        folders = [entry.path for entry in os.scandir(f"{path}/{PRIVATE}") if entry.name[0] != "."]
    except OSError:
        return states
    for folder in folders:
        # No such file in nearly all cases; one that cannot be read was not finished, so nothing was replaced.
        with contextlib.suppress(OSError, ValueError), open(f"{folder}/{_BEFORE}", "rb") as file:
            states = json.load(file) | states
    return states
