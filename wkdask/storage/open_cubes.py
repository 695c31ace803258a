"""Cubes that stay open between reads: the memory of a reader, bounded, and never older than the files.

::

    path ──stat──> the same file as the one that is open?  ──yes──> read from it
                                                           ──no───> open, check, remember; the oldest one goes

A cube is replaced by a rename, so that another file is under its name: a stat of the name shows it. What other
programs write into a cube in place changes its times. No other file gets the inode of one that is open.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

__all__ = ["SETTLED_NS", "CheckedFiles", "Identity", "OpenCubes", "OpenedOnce", "forget", "identity_of"]

SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again without a new time: it is looked at anew."""

Identity: TypeAlias = "tuple[int, int, int, int, int]"
"""Device, inode, size, time of the data, time of the inode."""


class Identified(Protocol):
    """An open cube; its file is closed with its last reference."""

    @property
    def identity(self) -> Identity:
        """What its file was when it was opened and checked."""


C = TypeVar("C", bound=Identified)
T = TypeVar("T")


def identity_of(info: os.stat_result) -> Identity:
    """Return what changes when a file is replaced, rewritten, or its permissions change."""
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


class CheckedFiles(Generic[T]):
    """What the checks of files found, valid while the files do not change; safe for many threads.

    Parameters
    ----------
    most
        Files that are remembered; when there are more, all are forgotten.
    most_nbytes
        Bytes of what is remembered of them.
    """

    def __init__(self, most: int = 100_000, most_nbytes: int = 64 << 20) -> None:
        self._most = most
        self._most_nbytes = most_nbytes
        self._nbytes = 0
        self._known: dict[str, tuple[Identity, object, T]] = {}
        self._lock = threading.Lock()
        _all_checked.append(self)

    def get(self, path: str, info: os.stat_result, against: object) -> T | None:
        """Return what was found in a file.

        Parameters
        ----------
        path, info
            The file, and what it is now.
        against
            What it was checked against: with anything else it is to be checked anew.
        """
        known = self._known.get(path)
        if known is None or known[0] != identity_of(info) or known[1] != against:
            return None
        return known[2]

    def put(self, path: str, info: os.stat_result, against: object, found: T, nbytes: int) -> None:
        """Remember what was found; not of a file that may change again without a new time.

        Parameters
        ----------
        path, info, against
            As for :meth:`get`.
        found, nbytes
            What was found, and about how many bytes it takes.
        """
        if time.time_ns() - info.st_ctime_ns <= SETTLED_NS:
            return
        with self._lock:
            if len(self._known) >= self._most or self._nbytes + nbytes > self._most_nbytes:
                self._known.clear()
                self._nbytes = 0
            self._known[path] = (identity_of(info), against, found)
            self._nbytes += nbytes

    def forget(self, path: str) -> None:
        """Forget a file."""
        self._known.pop(path, None)


_all_checked: list[CheckedFiles[Any]] = []
"""Those of this process, which live as long as it does."""


def forget(path: str) -> None:
    """Forget what was found in a file, whoever checked it: it is to be read again."""
    for known in _all_checked:
        known.forget(path)


class OpenCubes(Generic[C]):
    """Cubes that are kept open, the least recently used ones leave first; for many threads.

    Parameters
    ----------
    most
        How many are kept.
    open_cube
        Opens and checks the cube of a path; None where there is none, an error where it cannot be read.
    """

    def __init__(self, most: int, open_cube: Callable[[str], C | None]) -> None:
        self._most = most
        self._open = open_cube
        self._kept: dict[str, C] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, path: str) -> C | None:
        """Return the cube that is under a path now; None where there is none."""
        kept = self._kept.get(path)
        if kept is not None:
            try:
                same = identity_of(os.stat(path)) == kept.identity
            except OSError:  # opening it says why
                same = False
            if same:
                with self._lock:
                    if self._kept.pop(path, None) is not None:
                        self._kept[path] = kept  # the youngest one now
                return kept
            with self._lock:
                self._kept.pop(path, None)
        cube = self._open(path)
        if cube is not None:
            with self._lock:
                self._kept[path] = cube
                while len(self._kept) > self._most:
                    del self._kept[next(iter(self._kept))]
        return cube

    def clear(self) -> None:
        """Let all of them go; one that a thread reads from is closed when that is done."""
        with self._lock:
            self._kept.clear()


class OpenedOnce(Generic[T]):
    """A cube of which several threads read parts: opened by the first that needs it.

    Parameters
    ----------
    open_cube
        Returns it.
    """

    def __init__(self, open_cube: Callable[[], T]) -> None:
        self._open = open_cube
        self._found: list[T] = []
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the cube."""
        with self._lock:
            if not self._found:
                self._found.append(self._open())
            return self._found[0]
