"""What lies in the folder of a mag: its cubes' files, by name, and all that is none of them.

::

    names of each level of folders ──walk──> the numbers in the names of cubes, as one array
                                         └─> odd entries: files of other names, links that lead nowhere, …

Readers pass over what they do not know; here it is found.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from wkdask.storage.protocol import PRIVATE

__all__ = ["Listing", "Odd", "Places", "Suspect", "is_readable", "list_files"]

Places: TypeAlias = "npt.NDArray[np.int64]"
"""``(n, 4)``: the numbers (c, x, y, z) of files of cubes."""
Suspect: TypeAlias = "tuple[str, str, str]"
"""What a look at a file found: "damaged", "mode" or "trailing" (bytes), the path, and what is wrong."""
OddKind: TypeAlias = Literal["stray", "cycle", "broken", "mode", "unreadable"]


@dataclass(frozen=True, slots=True)
class Odd:
    """An entry that is no file of a cube, or a folder that cannot be listed."""

    kind: OddKind
    """A file of another name, a link to a folder above, a link to nothing, a mode that hides it, an I/O error."""
    path: str
    """Where it is."""
    what: str
    """What is wrong, in words."""


@dataclass(slots=True)
class Listing:
    """What lies in the folder of a mag."""

    places: Places
    """The files of cubes, in the order of the walk: neighbours lie in one folder."""
    odd: list[Odd] = field(default_factory=list)
    """What else there is; at most `MOST_ODD`."""


_DIGITS = re.compile("[0-9]+")
MOST_ODD = 10_000
"""Odd entries that are listed: a mag of a million files of another name is found out by fewer."""


def is_readable(mode: int) -> bool:
    """Return whether a mode lets its owner read a file, or list and enter a folder."""
    needed = 0o500 if stat.S_ISDIR(mode) else 0o400
    return mode & needed == needed


def list_files(
    root: str,
    levels: Sequence[re.Pattern[str]],
    own: frozenset[str],
    place_of: Callable[[Sequence[int]], Sequence[int]],
) -> Listing:
    """List the folder of a mag.

    Parameters
    ----------
    root
        The folder.
    levels
        What the names at each depth are like, the last of them those of files; groups are numbers.
    own
        Names at the top that belong to the mag beside its cubes.
    place_of
        Turns the numbers on the way to a file into its (c, x, y, z).
    """
    walk = _Walk(levels, own)
    walk.folder(root, 0, ())
    numbers = np.concatenate([np.empty((0, walk.width), np.int64), *walk.rows])
    turn = list(place_of(range(1, walk.width + 1)))
    columns = np.concatenate([np.zeros((len(numbers), 1), np.int64), numbers], axis=1)
    return Listing(columns[:, turn], walk.odd)


class _Walk:
    """One walk through the folders of a mag.

    Parameters
    ----------
    levels, own
        As for `list_files`.
    """

    def __init__(self, levels: Sequence[re.Pattern[str]], own: frozenset[str]) -> None:
        self._levels = levels
        self._own = own
        self._files = re.compile(f"(?:{levels[-1].pattern.replace('(', '(?:')}/)*", re.ASCII)
        self.rows: list[npt.NDArray[np.int64]] = []
        self.width = sum(level.groups for level in levels)
        self.odd: list[Odd] = []

    def note(self, kind: OddKind, path: str, what: str) -> None:
        """Take in an odd entry."""
        if len(self.odd) < MOST_ODD:
            self.odd.append(Odd(kind, path, what))

    def folder(self, path: str, depth: int, numbers: tuple[int, ...]) -> None:
        """Walk through a folder."""
        try:
            mode = os.stat(path).st_mode
            if not is_readable(mode):
                self.note("mode", path, f"its mode is {stat.filemode(mode)}")
            if depth + 1 == len(self._levels) and self._only_files(path, depth, numbers):
                return
            entries = os.scandir(path)
        except OSError as error:
            self.note("mode" if error.errno == errno.EACCES else "unreadable", path, str(error.strerror))
            return
        match, last = self._levels[depth].fullmatch, depth + 1 == len(self._levels)
        folders: list[tuple[str, tuple[int, ...]]] = []
        files: list[tuple[int, ...]] = []
        try:
            with entries:
                for entry in entries:
                    found = match(entry.name)
                    if found is None:
                        if depth or entry.name not in self._own:
                            self.note("stray", entry.path, self._why(entry, depth))
                    elif last:
                        files.append((*numbers, *map(int, found.groups())))
                    elif self._can_enter(entry):
                        folders.append((entry.path, (*numbers, *map(int, found.groups()))))
        except OSError as error:
            self.note("unreadable", path, str(error.strerror))
        if files:
            self.rows.append(np.array(files, np.int64))
        for inner, on_the_way in sorted(folders, key=lambda each: each[1]):
            self.folder(inner, depth + 1, on_the_way)

    def _only_files(self, path: str, depth: int, numbers: tuple[int, ...]) -> bool:
        """Take in a folder in which all names are those of cubes, by one look; False where some are not.

        That is three times as fast as to look at them one by one.
        """
        names = os.listdir(path)
        if not depth:
            names = [name for name in names if name not in self._own]
        text = "/".join([*names, ""])
        if not self._files.fullmatch(text):
            return False
        rows = np.empty((len(names), self.width), np.int64)
        rows[:, : len(numbers)] = numbers
        found = np.array(list(map(int, _DIGITS.findall(text))), np.int64)
        rows[:, len(numbers) :] = found.reshape(len(names), -1) if names else 0
        self.rows.append(rows)
        return True

    def _can_enter(self, entry: os.DirEntry[str]) -> bool:
        """Return whether an entry is a folder of cubes; note what else it is."""
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not os.path.exists(target):
                self.note("broken", entry.path, f"it leads to {os.readlink(entry.path)}")
                return False
            if os.path.commonpath([target, os.path.realpath(os.path.dirname(entry.path))]) == target:
                self.note("cycle", entry.path, f"it leads to {target}")
                return False
            if os.path.isdir(target):
                return True
        elif entry.is_dir():
            return True
        self.note("stray", entry.path, "a file is where a folder of cubes belongs")
        return False

    def _why(self, entry: os.DirEntry[str], depth: int) -> str:
        """Return why an entry is none of the mag's."""
        if entry.is_symlink() and not os.path.exists(entry.path):
            return "a link that leads nowhere"
        kind = "folder" if entry.is_dir() else "file"
        lower = re.sub(r"0*([0-9]+)", r"\1", entry.name.lower())
        if lower != entry.name and self._levels[depth].fullmatch(lower):
            return f"a {kind} under this name is passed over; it may be {lower!r}"
        return f"a {kind} that is none of the mag's"


OWN_NAMES = frozenset({PRIVATE})
"""What every mag may hold beside cubes and metadata."""
