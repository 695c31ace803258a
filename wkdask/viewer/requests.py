"""What a browser asked for, and whether it still waits: work for one that has hung up is not begun.

A request is made by one thread from beginning to end, so that what it needs (chunks, finer chunks, futures of a
cluster) finds it by the thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

__all__ = ["HungUpError", "Request", "Slots", "cancelling", "raise_if_hung_up"]


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


class Slots:
    """How many requests are worked for at a time.

    Parameters
    ----------
    number
        So many.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._condition = threading.Condition()
        self._busy: set[threading.Thread] = set()
        self._is_closed = False

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a slot, and hold it.

        Raises
        ------
        HungUpError
            If the browser has hung up before there is one, or there are none any more.
        """
        here = threading.current_thread()
        while not self._has_taken(here):
            with cancelling(self._wake), self._condition:
                self._condition.wait_for(lambda: len(self._busy) < self.number or self._is_over())
        try:
            yield
        finally:
            with self._condition:
                self._busy.remove(here)
                self._condition.notify()

    def _has_taken(self, thread: threading.Thread) -> bool:
        """Give a thread a slot if there is one; raise HungUpError if its work is no longer wanted."""
        with self._condition:
            if self._is_over():
                self._condition.notify()  # what has woken this thread may have been meant for one that waits
                raise HungUpError
            if len(self._busy) >= self.number:
                return False
            self._busy.add(thread)
            return True

    def _is_over(self) -> bool:
        """Return whether the work of this thread is no longer wanted."""
        request = _current()
        return self._is_closed or (request is not None and request.is_hung_up)

    def _wake(self) -> None:
        """Let all that wait look again."""
        with self._condition:
            self._condition.notify_all()

    def widen(self, number: int) -> None:
        """Let more requests be worked for at a time, if that is more than now."""
        with self._condition:
            self.number = max(self.number, number)
            self._condition.notify_all()

    def close(self) -> Callable[[threading.Thread], bool]:
        """Give out no slot any more; return what says whether a thread still holds one."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        return self._busy.__contains__
