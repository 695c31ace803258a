"""Helpers that scripts for the Dataset API import from its ``utils``."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from wkdask.operations.chunks import warn_of_ignored
from wkdask.operations.script_executor import ScriptExecutor, as_completed

__all__ = ["get_executor_for_args", "named_partial", "snake_to_camel_case", "wait_and_ensure_success"]


@contextlib.contextmanager
def get_executor_for_args(args: object = None, executor: object = None) -> Iterator[ScriptExecutor]:
    """Return a context in which a script runs its calls: tasks run on the active dask client, or on local threads.

    Parameters
    ----------
    args, executor
        How another library would run them; ignored, with a warning.

    Examples
    --------
    >>> with get_executor_for_args() as executor:                                      # doctest: +SKIP
    ...     mag.for_each_chunk(function, executor=executor)
    ...     wait_and_ensure_success(executor.map_to_futures(other, arguments))
    """
    warn_of_ignored(args=args, executor=executor)
    own = ScriptExecutor()
    try:
        yield own
    finally:
        own.shutdown()


def named_partial(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Return a function with some of its arguments fixed, which keeps its name."""
    return functools.update_wrapper(functools.partial(func, *args, **kwargs), func)


def snake_to_camel_case(snake_case_name: str) -> str:
    """Return a name of Python's style as the properties file spells it: ``fourBit`` for ``four_bit``."""
    first, *others = snake_case_name.split("_")
    return first + "".join(word.title() for word in others)


def wait_and_ensure_success(
    futures: Iterable[Any], executor: object = None, progress_desc: str | None = None
) -> list[Any]:
    """Return what tasks return, in the order in which they end; raise the error of the first that fails.

    Parameters
    ----------
    futures
        Of `get_executor_for_args`, of an executor of `concurrent.futures`, or of a `distributed.Client`.
    executor
        Where they run; a future knows that itself.
    progress_desc
        Without effect.
    """
    del executor, progress_desc
    return [future.result() for future in as_completed(futures)]
