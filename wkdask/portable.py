"""Calls that not every operating system has: what Linux does, and what is done on macOS instead.

This is the first module that `import wkdask` runs: where nothing can replace what is missing it says so.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

try:
    import fcntl
except ImportError as error:
    raise ImportError(
        "wkdask runs on Linux and on macOS. It relies on file locks (flock) and on replacing files that are open, "
        "which Windows does not have: on Windows use it in WSL, the Windows Subsystem for Linux (wsl --install)"
    ) from error

__all__ = ["copy_in_kernel", "cores", "data_extents", "drop_cached", "fcntl", "read_into", "sync_data"]

_NO_HOLES = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY)
"""What a file system answers that knows nothing of holes."""
_NO_COPIES = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What it answers if it cannot copy by itself."""
_PAGES_NBYTES = 2 << 20
"""Linux drops whole pages only, and the largest has so many bytes."""
_NO_CACHE = 48
"""``F_NOCACHE`` of macOS."""


def cores() -> int:
    """Return the processors that this process may use; where that is not known, those of the machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def sync_data(descriptor: int) -> None:
    """Make the data of a file durable, and its times only where the two cannot be told apart."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def read_into(descriptor: int, buffer: Any, position: int) -> int:
    """Read into a buffer from a position of a file; return how many bytes came, 0 at the end.

    Parameters
    ----------
    descriptor
        The file.
    buffer
        A memoryview of bytes.
    position
        Where in the file.
    """
    preadv = getattr(os, "preadv", None)
    if preadv is not None:
        return int(preadv(descriptor, [buffer], position))
    data = os.pread(descriptor, len(buffer), position)
    buffer[: len(data)] = data
    return len(data)


def drop_cached(descriptor: int, start: int = 0, nbytes: int = 0) -> None:
    """Ask the system to forget what it has cached of a part of a file, so that the next read asks the disk.

    What has not reached the disk yet stays cached: flush it first. It is a request; where the system does not know
    it, nothing happens.

    Parameters
    ----------
    descriptor
        The file.
    start, nbytes
        The part; 0 bytes for all from there on.
    """
    advise = getattr(os, "posix_fadvise", None)
    if advise is not None:
        first = start // _PAGES_NBYTES * _PAGES_NBYTES
        last = -(-(start + nbytes) // _PAGES_NBYTES) * _PAGES_NBYTES
        with contextlib.suppress(OSError):
            advise(descriptor, first, last - first if nbytes else 0, os.POSIX_FADV_DONTNEED)
        return
    with contextlib.suppress(OSError):  # macOS: what this descriptor reads is not cached from here on
        fcntl.fcntl(descriptor, _NO_CACHE, 1)


def data_extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the (start, stop) of the parts of a file that hold data; the whole file where that is unknown.

    Parameters
    ----------
    descriptor
        The file.
    size
        Its length.
    """
    seek_data, seek_hole = getattr(os, "SEEK_DATA", None), getattr(os, "SEEK_HOLE", None)
    position = 0
    while position < size:
        if seek_data is None or seek_hole is None:
            yield position, size
            return
        try:
            start = os.lseek(descriptor, position, seek_data)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            if error.errno not in _NO_HOLES:
                raise
            yield position, size
            return
        stop = os.lseek(descriptor, start, seek_hole)
        yield start, stop
        position = stop


def copy_in_kernel(source: int, target: int, count: int, position: int) -> int | None:
    """Copy bytes between files at the same place, without a way through this process.

    Parameters
    ----------
    source, target
        The files.
    count
        Bytes at most.
    position
        Where.

    Returns
    -------
    int or None
        Bytes copied; None where the system or the file system cannot do that.
    """
    copy = getattr(os, "copy_file_range", None)
    if copy is None:
        return None
    try:
        return int(copy(source, target, count, position, position))
    except OSError as error:
        if error.errno not in _NO_COPIES:
            raise
        return None
