"""What an export notes beside its target until it has ended, so that it can be resumed.

::

    .NAME.wkdask-export/     beside NAME, hidden
        lock                 held by the export that runs
        manifest.json        what is exported, and how it is cut
        journal              the numbers of the units that are done, one a line
        …                    what a format keeps: parts, or the file before it gets its name

A unit is noted when what it made is on the disk. An export that is resumed leaves its manifest, which says that
it has ended: the same call again does nothing.

The folder lies where others may write, or came out of an archive. So it is opened by descriptor and is no link; and
where one of its entries is a link, a FIFO, or a second name of another file, no export has left it so: then
nothing in it counts, and what it led to is not touched.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from wkdask.errors import AlreadyExistsError, JobRunningError, LockTimeoutError
from wkdask.fsio import lock, remove_entry
from wkdask.storage.publish.private import (
    open_private_file,
    opened_folder,
    read_private_file,
    write_private_file,
)

__all__ = ["ExportFolder", "Manifest", "held_folder"]


_MANIFEST, _JOURNAL, _LOCK = "manifest.json", "journal", "lock"
_LARGEST = 1 << 16
"""Bytes of a manifest at most."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export is."""

    key: str
    """The same for the same export of the same voxels."""
    unit: tuple[int, int, int]
    """Voxels of a unit."""
    files: int = 0
    """How many files it has made; 0 for one that has not ended."""
    nbytes: int = 0
    """Bytes of them."""

    def to_json(self) -> bytes:
        """Return it as the content of its file."""
        raw = {"version": 1, "key": self.key, "unit": self.unit, "files": self.files, "bytes": self.nbytes}
        return json.dumps(raw).encode()

    @classmethod
    def read(cls, folder: int) -> Manifest | None:
        """Return that in a folder, given by its descriptor; None where there is none that can be understood."""
        try:
            raw = json.loads(read_private_file(folder, _MANIFEST, _LARGEST))
            x, y, z = map(int, raw["unit"])
            if raw["version"] != 1 or min(x, y, z) < 1:
                return None
            return cls(str(raw["key"]), (x, y, z), int(raw["files"]), int(raw["bytes"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """The private folder of an export."""

    path: str
    """Absolute."""

    @classmethod
    def of(cls, target: str) -> ExportFolder:
        """Return that of a target."""
        parent, name = os.path.split(target)
        return cls(os.path.join(parent, f".{name}.wkdask-export"))

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open it by descriptor."""
        parent, name = os.path.split(self.path)
        with opened_folder(parent, name) as folder:
            yield folder

    @property
    def manifest(self) -> Manifest | None:
        """What the export is; None where there is none, or something else is in its folder."""
        with self.opened() as folder:
            return Manifest.read(folder) if _holds_files_only(folder) else None

    def begin(self, manifest: Manifest) -> None:
        """Begin an export: what an earlier one left is removed."""
        self.sweep()
        with self.opened() as folder:
            write_private_file(folder, _MANIFEST, manifest.to_json())

    def sweep(self) -> None:
        """Remove all but the lock, the manifest first: without it nothing else counts."""
        with self.opened() as folder:
            for name in sorted(os.listdir(folder), key=lambda name: name != _MANIFEST):
                if name != _LOCK:
                    remove_entry(folder, name)

    def done(self, units: int) -> set[int]:
        """Return the numbers of the units that are done; a line that was cut off does not count."""
        try:
            with (
                self.opened() as folder,
                open(open_private_file(folder, _JOURNAL, os.O_RDONLY), "rb") as file,
            ):
                *lines, _ = file.read().split(b"\n")
        except FileNotFoundError:
            return set()
        numbers = {int(line[:-1]) for line in lines if line.endswith(b".") and line[:-1].isdigit()}
        return {number for number in numbers if number < units}

    def note(self, number: int) -> None:
        """Note a unit that is done."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        # A line of its own also after one that a crash cut off, which has no full stop.
        with self.opened() as folder, open(open_private_file(folder, _JOURNAL, flags), "ab") as file:
            file.write(b"\n%d.\n" % number)


def _holds_files_only(folder: int) -> bool:
    """Return whether all in a folder, given by its descriptor, are folders and files of one name."""
    for _, folders, files, above in os.fwalk(".", dir_fd=folder):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):  # a task of a dead export may still be at work
                info = os.stat(name, dir_fd=above, follow_symlinks=False)
                if not stat.S_ISDIR(info.st_mode) and not (stat.S_ISREG(info.st_mode) and info.st_nlink == 1):
                    return False
    return True


@contextlib.contextmanager
def held_folder(target: str) -> Iterator[ExportFolder]:
    """Hold the private folder of a target, made if it is not there.

    Raises
    ------
    JobRunningError
        If another export into the same target runs.
    AlreadyExistsError
        If something else has the folder's name.
    """
    folder = ExportFolder.of(target)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder.path)
    try:
        with folder.opened():
            pass
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise AlreadyExistsError(
            f"{folder.path} is a link, or no folder: nothing is exported into {target} while it is there"
        ) from error
    try:
        with lock(f"{folder.path}/lock", timeout=0):
            yield folder
    except LockTimeoutError as error:
        raise JobRunningError(f"another export into {target} runs, which holds {error}") from error
