"""Small files of datasets at URLs: read once, and looked at again after some seconds.

A handle looks at the properties at each call, as it does on a disk, where a look costs microseconds. Here one
costs a request: what was read counts for `store-refresh` seconds, unless this process has written it meanwhile.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from wkdask import settings
from wkdask.objects.reading import object_state, read_object

__all__ = ["Metadata", "forget_metadata", "read_metadata"]

_MOST = 10_000
"""Files that are remembered; when there are more, all are forgotten."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """A small file."""

    data: bytes
    """Its bytes."""
    version: str
    """What changes with it."""


_known: dict[str, tuple[float, Metadata]] = {}
_lock = threading.Lock()


def read_metadata(url: str, most: int = 16 << 20, fresh: bool = False) -> Metadata:
    """Return a small file as it was some seconds ago at most.

    Parameters
    ----------
    url
        Which.
    most
        Bytes that it may have.
    fresh
        Ask now, whatever is known.

    Raises
    ------
    FileNotFoundError, PermissionError, StoreError
        As :func:`~wkdask.objects.reading.read_object`.
    """
    now = time.monotonic()
    known = _known.get(url)
    if known is not None and not fresh and now - known[0] < float(settings.get("store-refresh")):
        return known[1]
    if known is not None:
        state = object_state(url)
        if state is not None and state.version == known[1].version:
            with _lock:
                _known[url] = (now, known[1])
            return known[1]
    try:
        part = read_object(url, most)
    except FileNotFoundError:
        forget_metadata(url)
        raise
    found = Metadata(bytes(part.data), part.version)
    with _lock:
        if len(_known) >= _MOST:
            _known.clear()
        _known[url] = (now, found)
    return found


def forget_metadata(url: str) -> None:
    """Ask for a file again when it is needed next."""
    with _lock:
        _known.pop(url, None)
