"""Says that machine code is being made, which takes seconds once on a machine, and looks as if nothing happened."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

__all__ = ["compiling", "unwatch", "watch"]

_DELAY = 1.0
"""Seconds that it must last before it is reported: what is loaded from the disk takes less."""

_watchers: list[Callable[[str | None], None]] = []
_running: list[threading.Event] = []
"""What was reported and has not ended: an event each, since several may bear one name."""
_lock = threading.Lock()
"""Held where a timer that fires meets the end of what it was to report."""


def watch(watcher: Callable[[str | None], None]) -> None:
    """Call a function with what is compiled, whenever that lasts, and with None when it is over."""
    _watchers.append(watcher)


def unwatch(watcher: Callable[[str | None], None]) -> None:
    """Call it no more."""
    with contextlib.suppress(ValueError):
        _watchers.remove(watcher)


@contextlib.contextmanager
def compiling(what: str, delay: float | None = None) -> Iterator[None]:
    """Let those who watch know of it, if what happens meanwhile lasts.

    Parameters
    ----------
    what
        What is compiled.
    delay
        Seconds after which it is reported; one by default.
    """
    if not _watchers:
        yield
        return
    ended = threading.Event()
    timer = threading.Timer(_DELAY if delay is None else delay, _begin, (what, ended))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with _lock:
            ended.set()
            was_reported = ended in _running
            if was_reported:
                _running.remove(ended)
            is_last = was_reported and not _running
        if is_last:
            _tell(None)


def _begin(what: str, ended: threading.Event) -> None:
    """Report the first of several that are compiled at once, unless it has ended meanwhile."""
    with _lock:
        if ended.is_set():
            return
        _running.append(ended)
        is_first = len(_running) == 1
    if is_first:
        _tell(f"compiling {what}, once on this machine …")


def _tell(text: str | None) -> None:
    for watcher in tuple(_watchers):
        with contextlib.suppress(Exception):  # a display that fails must not end a task
            watcher(text)
