"""Helpers that scripts for the Dataset API import from its ``utils``; their paths are those of files, or texts."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from wkdask.errors import InvalidValueError
from wkdask.operations.chunks import warn_of_ignored
from wkdask.operations.script_executor import ScriptExecutor, as_completed

__all__ = [
    "copytree",
    "dump_path",
    "get_executor_for_args",
    "is_fs_path",
    "is_remote_path",
    "named_partial",
    "rmtree",
    "snake_to_camel_case",
    "wait_and_ensure_success",
]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@contextlib.contextmanager
def get_executor_for_args(args: object = None, executor: object = None) -> Iterator[ScriptExecutor]:
    """Return a context in which a script runs its calls: tasks run on the active dask client, or on local threads.

    Parameters
    ----------
    args, executor
        How another library would run them; ignored, with a warning.

    Examples
    --------
    >>> with get_executor_for_args() as executor:
    ...     report = mag.for_each_chunk(lambda args: None, executor=executor)
    ...     squares = executor.map_to_futures(lambda n: n * n, [1, 2])
    ...     sorted(wait_and_ensure_success(squares))
    [1, 4]
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


def rmtree(path: str | os.PathLike[str]) -> None:
    """Remove a folder with all in it, a file, or a link without what it points to; what is missing is no error."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def copytree(
    in_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    ignore: Callable[[Any, list[str]], Iterable[str]] | None = None,
    threads: int | None = None,
    progress_desc: str | None = None,
) -> None:
    """Copy a folder with all that is in it, into a folder that may exist; links are followed.

    Parameters
    ----------
    in_path, out_path
        The folder, and where the copy goes.
    ignore
        Called with a folder and the names in it; returns those that are left out, as
        :func:`shutil.ignore_patterns` does.
    threads, progress_desc
        Without effect.
    """
    del threads, progress_desc
    shutil.copytree(in_path, out_path, ignore=ignore, dirs_exist_ok=True)


def is_fs_path(path: object) -> bool:
    """Return whether a path is one of the file system, and not an address such as ``s3://bucket/dataset``."""
    return isinstance(path, str | os.PathLike) and _ADDRESS.match(_text(path)) is None


def is_remote_path(path: object) -> bool:
    """Return whether a path is an address, such as ``s3://bucket/dataset``."""
    return _ADDRESS.match(_text(path)) is not None


def _text(path: object) -> str:
    """Return the text of a path. Paths of other libraries say their address by `str` only."""
    return str(path)


def dump_path(path: str | os.PathLike[str], dataset_path: str | os.PathLike[str] | None = None) -> str:
    """Return a path as the properties file of a dataset writes it: ``./…`` inside of the dataset, else the whole.

    Parameters
    ----------
    path
        A path; a relative one is relative to the dataset.
    dataset_path
        The folder of the dataset.

    Raises
    ------
    InvalidValueError
        If a relative path comes without a dataset, or the dataset's path is relative.
    """
    if is_remote_path(path):
        return _text(path)
    if dataset_path is not None and not os.path.isabs(dataset_path):
        raise InvalidValueError(f"the path of the dataset must be absolute, got {os.fspath(dataset_path)!r}")
    if dataset_path is None and not os.path.isabs(path):
        raise InvalidValueError(
            f"{os.fspath(path)!r} is relative: give dataset_path, which it is relative to"
        )
    base = Path(dataset_path or "/").resolve()
    whole = (base / path).resolve()
    if dataset_path is not None and whole.is_relative_to(base):
        return f"./{whole.relative_to(base).as_posix()}"
    return whole.as_posix()


def snake_to_camel_case(snake_case_name: str) -> str:
    """Return a name such as ``"four_bit"`` in the properties file's spelling: ``"fourBit"``."""
    return re.sub("_([a-z0-9])", lambda found: found[1].upper(), snake_case_name)


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
