"""Reads that gave wrong data, repeated: on network file systems the next one may give the right data.

::

    read ──right──> done                                     costs nothing
         ──wrong──> drop the part from the page cache ─> pause ─> read ──right──> a warning, and a count
                         ^                                          │
                         └────────── up to `read-retries` times ────┴──> the error, with how often it was read

What is wrong can only be seen where something does not fit: a header, a jump table, an index, a chunk that cannot
be decoded, a checksum, fewer bytes than the file has. A plain repetition would get the wrong page of the cache once
more. A file that no repetition could read is remembered: a cube that is damaged for good costs the pauses once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from wkdask import settings
from wkdask.errors import CubePermissionError, DamagedCubeError, DamagedHeaderError
from wkdask.fsio import EXHAUSTED
from wkdask.portable import drop_cached, read_into

__all__ = ["fill", "note_repeated", "read_again", "reliably", "take_repeated"]

_logger = logging.getLogger(__name__)
T = TypeVar("T")
Damage = (DamagedCubeError, DamagedHeaderError)
"""What a repetition may mend."""

_PAUSES = (0.0, 0.05, 0.25, 1.0)
"""Seconds before each repetition; before any further one as long as before the last of these."""
_MOST = 10_000
"""Files that are remembered as damaged for good."""

_lock = threading.Lock()
_repeated = 0
_hopeless: dict[str, tuple[int, ...]] = {}


def reliably(path: str, read: Callable[[], T], nbytes: int = 0) -> T:
    """Return what a read of the beginning of a file gives; see :func:`read_again`.

    Parameters
    ----------
    path
        The file.
    read
        Opens it, reads and checks.
    nbytes
        How much of it is read; 0 for all.
    """
    try:
        return read()
    except Damage as error:
        return read_again(path, error, read, (0, nbytes))


def read_again(
    path: str,
    error: OSError,
    read: Callable[[], T],
    part: tuple[int, int] = (0, 0),
    descriptor: int | None = None,
) -> T:
    """Repeat a read that failed, as often as the setting ``wkdask.read-retries`` says.

    Parameters
    ----------
    path
        The file.
    error
        Why the first read failed.
    read
        Reads and checks once more, from the disk.
    part
        What is read: the first byte, and how many; 0 for all from there on.
    descriptor
        The file, where it is read through one that is open: another file may have the name by now.

    Raises
    ------
    DamagedCubeError, DamagedHeaderError
        The last error, which says how often it was tried.
    """
    if isinstance(error, CubePermissionError) or isinstance(error.__cause__, FileNotFoundError):
        raise error
    if getattr(error, "_wkdask_given_up", False):  # of a read within this one
        raise error
    state = _state_of(path)
    tries = int(settings.get("read-retries"))
    if state is not None and _hopeless.get(path) == state:
        tries = min(tries, 1)
    why = str(error)
    for number in range(tries):
        time.sleep(_PAUSES[min(number, len(_PAUSES) - 1)])
        if descriptor is None:
            _drop(path, part)
        else:
            drop_cached(descriptor, *part)
        try:
            found = read()
        except Damage as again:
            error = again
            if isinstance(error, CubePermissionError):
                raise
            continue
        note_repeated(path, why, number + 1)
        return found
    raise _given_up(path, state, error, tries)


def fill(path: str, descriptor: int, view: memoryview, position: int) -> bool:
    """Read bytes of a cube that must be there into a buffer; return whether that took more than one read of a part.

    What came before the bytes ended is kept: only the rest is asked for again.

    Parameters
    ----------
    path, descriptor
        The file.
    view
        Gets the bytes.
    position
        Where they begin in the file.

    Raises
    ------
    DamagedCubeError
        If the file ends before, or the disk does not give them.
    """
    repeated = False
    while view:
        try:
            count = _some(path, descriptor, view, position)
        except DamagedCubeError as error:
            read, part = partial(_some, path, descriptor, view, position), (position, len(view))
            count, repeated = read_again(path, error, read, part, descriptor), True
        view, position = view[count:], position + count
    return repeated


def _some(path: str, descriptor: int, view: memoryview, position: int) -> int:
    """Read some bytes, at least one."""
    try:
        count = read_into(descriptor, view, position)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise DamagedCubeError(f"the cube {path} cannot be read: {error.strerror}") from error
    if not count:
        raise DamagedCubeError(f"the cube {path} is damaged: it ends at byte {position}")
    return count


def note_repeated(path: str, why: str, times: int) -> None:
    """Count and log that a read was right when it was repeated.

    Parameters
    ----------
    path, why
        The file, and what was wrong at first.
    times
        How often it was repeated.
    """
    global _repeated
    with _lock:
        _repeated += 1
    _logger.warning(
        "a read of %s gave wrong data (%s), and right data when it was repeated (%d ×)", path, why, times
    )


def take_repeated() -> int:
    """Return how many reads of this process were repeated with success since the last call."""
    global _repeated
    if not _repeated:
        return 0
    with _lock:
        found, _repeated = _repeated, 0
    return found


def _given_up(path: str, state: tuple[int, ...] | None, error: OSError, tries: int) -> OSError:
    """Return the error of a read that no repetition mended."""
    if tries:
        error.args = (f"{error} (read {tries + 1} times)",)
        if state is not None:
            with _lock:
                if len(_hopeless) >= _MOST:
                    _hopeless.clear()
                _hopeless[path] = state
    error._wkdask_given_up = True  # type: ignore[attr-defined]
    return error


def _state_of(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced or rewritten; None if it cannot be looked at."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _drop(path: str, part: tuple[int, int]) -> None:
    """Drop a part of a file from the page cache."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            drop_cached(descriptor, *part)
        finally:
            os.close(descriptor)
