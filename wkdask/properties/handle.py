"""The properties of one dataset as they are on disk now, read again only when the file changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from wkdask.errors import ReadOnlyError
from wkdask.fsio import checked_place
from wkdask.objects.urls import is_url
from wkdask.properties.commit import commit
from wkdask.properties.rawjson import PROPERTIES_FILE, read_bytes
from wkdask.properties.records import DatasetRecord, LayerRecord, load, parse
from wkdask.properties.values import Edit

__all__ = ["Handles", "Properties"]


class Handles:
    """Handles that are in use, each by itself: a set of weak references would take equal ones for one."""

    def __init__(self) -> None:
        self._by_id: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def add(self, handle: Any) -> None:
        """Remember a handle as long as somebody uses it."""
        self._by_id[id(handle)] = handle

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._by_id.values()))


@dataclass(slots=True)
class Properties:
    """The properties file of a dataset: shared by the handles of the dataset, its layers and mags.

    Several handles, here or in other processes, never hold a stale view: each look costs one ``stat``.
    """

    folder: str
    """The dataset's folder, absolute."""
    outside: str = field(default="read-only", repr=False)
    """What may happen with what the dataset reaches outside of its folder: "read-only", "refuse" or "write"."""
    read_only: bool = field(default=False, repr=False)
    """Whether every change of the dataset is refused through these handles."""
    links: set[str] = field(default_factory=set, repr=False, compare=False)
    """Real paths of folders outside that handles of this session link and may write to."""
    unasked: set[str] = field(default_factory=set, repr=False, compare=False)
    """Names of layers that this session made without being asked for a data format."""
    layers: Handles = field(default_factory=Handles, repr=False, compare=False)
    """The handles of layers that are in use: they follow where one of them renames its layer."""
    _known: tuple[tuple[int, int, int], DatasetRecord] | None = field(default=None, repr=False, compare=False)
    """The file's inode, size and time, and what it said: one value, for threads look at once."""

    _parsed: tuple[bytes, DatasetRecord] | None = field(default=None, repr=False, compare=False)
    """The bytes of a file in an object store, and what they said."""

    def __post_init__(self) -> None:
        self.folder = checked_place(self.folder)

    def __reduce__(self) -> tuple[type[Properties], tuple[Any, ...]]:
        return (Properties, (self.folder, self.outside, self.read_only, set(self.links)))

    @property
    def is_read_only(self) -> bool:
        """Whether the dataset cannot be changed through this handle."""
        return self.read_only or is_url(self.folder)

    def check_writable(self) -> None:
        """Refuse to change a dataset that was opened read-only.

        Raises
        ------
        ReadOnlyError
            If it was.
        """
        if is_url(self.folder):
            raise ReadOnlyError(
                f"the dataset {self.folder} is in an object store, where datasets are read only"
            )
        if self.read_only:
            raise ReadOnlyError(f"the dataset {self.folder} was opened with read_only=True")

    def may_write(self, folder: str) -> bool:
        """Return whether what lies outside of the dataset may be written to."""
        if is_url(folder):
            return False
        real = os.path.realpath(folder)
        return self.outside == "write" or any(
            real == link or real.startswith(f"{link}{os.sep}") for link in self.links
        )

    @property
    def record(self) -> DatasetRecord:
        """The dataset as the file says now."""
        known = self._known
        if is_url(self.folder):
            data, path = read_bytes(self.folder)  # remembered for some seconds
            if self._parsed is None or self._parsed[0] is not data:
                self._parsed = (data, parse(data, path))
            return self._parsed[1]
        try:
            info = os.stat(os.path.join(self.folder, PROPERTIES_FILE))
        except OSError:
            return load(self.folder)  # says what is wrong
        seen = (info.st_ino, info.st_size, info.st_mtime_ns)
        if known is None or known[0] != seen:
            self._known = known = (seen, load(self.folder))
        return known[1]

    def layer(self, name: str) -> LayerRecord:
        """Return one layer's record.

        Raises
        ------
        LayerNotFoundError
            If there is none of that name.
        """
        return self.record.layer(name)

    def commit(self, *edits: Edit | Sequence[Edit]) -> DatasetRecord:
        """Replay edits on the file as it is now; see `wkdask.properties.commit`."""
        self.check_writable()
        flat = [edit for given in edits for edit in (given if isinstance(given, Sequence) else (given,))]
        return commit(self.folder, flat)
