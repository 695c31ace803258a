"""Two helpers that scripts for the Dataset API import from its ``utils``."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from wkdask.operations.chunks import warn_of_ignored

__all__ = ["get_executor_for_args", "named_partial"]


@contextlib.contextmanager
def get_executor_for_args(args: object = None, executor: object = None) -> Iterator[None]:
    """Return a context in which a script runs its calls: tasks run on the active dask client, or on local threads.

    Parameters
    ----------
    args, executor
        How another library would run them; ignored, with a warning.

    Examples
    --------
    >>> with get_executor_for_args() as executor:
    ...     report = mag.for_each_chunk(lambda args: None, executor=executor)
    """
    warn_of_ignored(args=args, executor=executor)
    yield None


def named_partial(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Return a function with some of its arguments fixed, which keeps its name."""
    return functools.update_wrapper(functools.partial(func, *args, **kwargs), func)
