"""What a browser asked for, and whether it still waits: work for one that has hung up is not begun.

A request is made by one thread from beginning to end, so that what it needs (chunks, finer chunks, futures of a
cluster) finds it by the thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

__all__ = ["HungUpError", "Request", "cancelling", "raise_if_hung_up"]


class HungUpError(Exception):
    """The browser has closed the connection: the chunk is no longer wanted."""


class Request:
    """A request for one chunk."""

    def __init__(self) -> None:
        self.is_hung_up = False
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] | None = None

    def hang_up(self) -> None:
        """Say that the browser has gone, and cancel what runs elsewhere for it."""
        with self._lock:
            self.is_hung_up, cancel = True, self._cancel
        if cancel is not None:
            cancel()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Work for the request, in this thread."""
        _here.request = self
        try:
            yield
        finally:
            _here.request = None


_here = threading.local()


def _current() -> Request | None:
    """Return the request that this thread works for; None in threads that do not."""
    return getattr(_here, "request", None)


def raise_if_hung_up() -> None:
    """End the work for a request whose browser has hung up.

    Raises
    ------
    HungUpError
        If it has.
    """
    request = _current()
    if request is not None and request.is_hung_up:
        raise HungUpError


@contextlib.contextmanager
def cancelling(cancel: Callable[[], object]) -> Iterator[None]:
    """Wait for something that `cancel` ends, which is called if the browser hangs up meanwhile."""
    request = _current()
    if request is None:
        yield
        return
    with request._lock:
        request._cancel, is_late = cancel, request.is_hung_up
    try:
        if is_late:
            cancel()
        yield
    finally:
        with request._lock:
            request._cancel = None
