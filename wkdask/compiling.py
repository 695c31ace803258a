"""Says that machine code is being made, which takes seconds once on a machine, and looks as if nothing happened."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

__all__ = ["compiling", "unwatch", "watch"]

_DELAY = 1.0
"""Seconds that it must last before it is told: what is loaded from the disk takes less."""

_watchers: list[Callable[[str | None], None]] = []
_running: list[str] = []


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
        Seconds after which it is told, where the usual second is not right.
    """
    if not _watchers:
        yield
        return
    told = threading.Event()
    timer = threading.Timer(_DELAY if delay is None else delay, _begin, (what, told))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if told.is_set():
            _running.remove(what)
            if not _running:
                _tell(None)


def _begin(what: str, told: threading.Event) -> None:
    """Tell of the first of several that are compiled at once."""
    _running.append(what)
    told.set()
    if len(_running) == 1:
        _tell(f"compiling {what}, once on this machine …")


def _tell(text: str | None) -> None:
    for watcher in tuple(_watchers):
        with contextlib.suppress(Exception):  # a display that fails must not end a task
            watcher(text)
