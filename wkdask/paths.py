"""Where a dataset, a layer or a mag is: a :class:`pathlib.Path` that may be used like a text, or a URL."""

from __future__ import annotations

import os
from pathlib import PosixPath
from typing import Any

from wkdask.objects.urls import checked_url, is_url, parent_of, url_name

__all__ = ["FolderPath", "UrlPath", "joined", "resolved", "shown_path"]


class FolderPath(PosixPath):
    """The folder of a dataset, a layer or a mag.

    A :class:`pathlib.Path` with what is usual with texts: it equals the same path as a str, ``path + "/x"`` is
    one, ``"x" in path`` looks for a part of it, and methods that only str has (``startswith``, ``split``) are
    those of the text. It hashes as a Path: in a set or a dict of str look up ``str(path)``. It is no str either:
    write ``str(path)`` into JSON, and where a part of another text is looked for.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return str(self) == other if isinstance(other, str) else super().__eq__(other)

    def __hash__(self) -> int:
        return super().__hash__()

    def __add__(self, other: str) -> str:
        return str(self) + other

    def __radd__(self, other: str) -> str:
        return other + str(self)

    def __contains__(self, part: str) -> bool:
        return part in str(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(str, name):
            raise AttributeError(f"a path has no attribute {name!r}")
        return getattr(str(self), name)


class UrlPath(str):
    """The URL of a dataset, a layer or a mag: a text that is put together as a path is.

    Examples
    --------
    >>> UrlPath("s3://bucket/dataset") / "color"
    's3://bucket/dataset/color'
    """

    __slots__ = ()

    def __truediv__(self, name: str) -> UrlPath:
        return UrlPath(f"{self}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return url_name(self)

    @property
    def parent(self) -> UrlPath:
        """The URL without the last part."""
        return UrlPath(parent_of(self))


def shown_path(path: str) -> FolderPath | UrlPath:
    """Return what users get of a path."""
    return UrlPath(path) if is_url(path) else FolderPath(path)


def joined(folder: str, path: str) -> str:
    """Return a path that is relative to a folder or a URL, as it is without dots; an absolute one of a disk stays.

    Examples
    --------
    >>> joined("s3://bucket/dataset", "./color/../seg")
    's3://bucket/dataset/seg'
    """
    return checked_url(f"{folder}/{path}") if is_url(folder) else os.path.normpath(os.path.join(folder, path))


def resolved(path: str) -> FolderPath | UrlPath:
    """Return what users get of a path whose links are followed; a URL has none."""
    return UrlPath(path) if is_url(path) else FolderPath(os.path.realpath(path))
