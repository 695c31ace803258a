"""What stands for the content of a mag: the inodes, sizes and times of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

__all__ = ["fingerprint_of"]


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
    digest = hashlib.blake2b(header, digest_size=16)
    for name in names:
        digest.update(f"{_state(path, name)};".encode())
    return digest.hexdigest()


def _state(path: str, name: str) -> str:
    """Return what changes when a file is replaced or rewritten."""
    try:
        info = os.stat(f"{path}/{name}")
    except OSError:
        return "-"
    return f"{info.st_ino}.{info.st_size}.{info.st_mtime_ns}"
