"""Arguments of views, checked."""

from __future__ import annotations

from wkdask import settings
from wkdask.errors import InvalidValueError
from wkdask.geometry import Vec3Int, Vec3IntLike
from wkdask.portable import cores

__all__ = ["because", "checked_size", "checked_threads"]


def checked_threads(threads: int | None) -> int:
    """Return how many threads read; refuse what is no number from 1 on."""
    if threads is None:
        import dask.config

        return settings.get("read-threads") or dask.config.get("num_workers", None) or cores()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InvalidValueError(f"threads is a number from 1 on, got {threads!r}")
    return threads


def checked_size(size: Vec3IntLike) -> Vec3Int:
    """Return a size; refuse a negative one."""
    extent = Vec3Int(size)
    if not extent.is_positive():
        raise InvalidValueError(f"a size cannot be negative, got {extent}")
    return extent


def because(reason: str | None) -> str:
    """Return a reason as the end of a sentence."""
    return f": {reason}" if reason else ""
