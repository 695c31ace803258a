"""Where a dataset, a layer or a mag is: a :class:`pathlib.Path` that may be used like the text that it was."""

from __future__ import annotations

from pathlib import PosixPath
from typing import Any

__all__ = ["FolderPath"]


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
