"""Where a script runs functions of its own: as wkdask runs its tasks, on the active client or on local threads."""

from __future__ import annotations

import concurrent.futures
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from wkdask.jobs.engines.choice import active_client
from wkdask.operations.callables import Shipped, describe

__all__ = ["ScriptExecutor", "as_completed"]


class ScriptExecutor:
    """What ``get_executor_for_args`` gives; calls of wkdask that get it as ``executor=`` run as without."""

    def __init__(self) -> None:
        self._client = active_client()
        self._pool: concurrent.futures.Executor | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Start a call of a function, and return its future."""
        if self._client is not None:
            shipped = fn if isinstance(fn, Shipped) else Shipped(fn)
            key = f"{describe(shipped.function)}-{uuid.uuid4().hex}"
            return self._client.submit(shipped, *args, key=key, pure=False, **kwargs)
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="wkdask-script")
        return self._pool.submit(fn, *args, **kwargs)

    def map_to_futures(self, fn: Callable[[Any], Any], args: Iterable[Any]) -> list[Any]:
        """Start a call of a function for each argument, and return their futures."""
        shipped = Shipped(fn)
        return [self.submit(shipped, each) for each in args]

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """Yield what a function returns for the arguments, in their order."""
        shipped = Shipped(fn)
        futures = [self.submit(shipped, *each) for each in zip(*iterables, strict=False)]
        return (future.result() for future in futures)

    def map_unordered(self, fn: Callable[[Any], Any], args: Iterable[Any]) -> Iterator[Any]:
        """Yield what a function returns for the arguments, in the order in which the calls end."""
        futures = self.map_to_futures(fn, args)
        return (future.result() for future in as_completed(futures))

    def as_completed(self, futures: Iterable[Any]) -> Iterator[Any]:
        """Yield futures in the order in which they end."""
        return as_completed(futures)

    def shutdown(self, wait: bool = True) -> None:
        """Wait for the calls that were started on threads, unless told not to."""
        if self._pool is not None:
            self._pool.shutdown(wait=wait)


def as_completed(futures: Iterable[Any]) -> Iterator[Any]:
    """Yield futures in the order in which they end: those of `concurrent.futures`, or those of a client."""
    waiting = list(futures)
    if all(isinstance(future, concurrent.futures.Future) for future in waiting):
        yield from concurrent.futures.as_completed(waiting)
    else:
        import distributed

        yield from distributed.as_completed(waiting)
