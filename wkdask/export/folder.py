"""What an export notes beside its target until it has ended, so that it can be resumed.

::

    .NAME.wkdask-export/     beside NAME, hidden
        lock                 held by the export that runs
        manifest.json        what is exported, and how it is cut
        journal              the numbers of the units that are done, one a line
        …                    what a format keeps: parts, or the file before it gets its name

A unit is noted when what it made is on the disk. An export that is resumed leaves its manifest, which says that
it has ended: the same call again does nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from wkdask.errors import JobRunningError, LockTimeoutError
from wkdask.fsio import atomic_write, lock, remove_folder, remove_temporaries

__all__ = ["ExportFolder", "Manifest", "held_folder"]


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
    def read(cls, path: str) -> Manifest | None:
        """Return that of a file; None where there is none that can be understood: it is then no previous run."""
        try:
            with open(path, "rb") as file:
                raw = json.loads(file.read(1 << 16))
            x, y, z = map(int, raw["unit"])
            if raw["version"] != 1 or min(x, y, z) < 1:
                return None
            return cls(str(raw["key"]), (x, y, z), int(raw["files"]), int(raw["bytes"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
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

    @property
    def manifest(self) -> Manifest | None:
        """What the export is; None where there is none."""
        return Manifest.read(f"{self.path}/manifest.json")

    def begin(self, manifest: Manifest) -> None:
        """Begin an export: what an earlier one left is removed."""
        self.sweep()
        self.note_manifest(manifest)

    def note_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        remove_temporaries(f"{self.path}/manifest.json")
        atomic_write(f"{self.path}/manifest.json", manifest.to_json())

    def sweep(self) -> None:
        """Remove all but the lock, the manifest first: without it nothing else counts."""
        names = sorted(os.listdir(self.path), key=lambda name: name != "manifest.json")
        for name in names:
            path = f"{self.path}/{name}"
            if name == "lock":
                continue
            if os.path.isdir(path) and not os.path.islink(path):
                remove_folder(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def done(self, units: int) -> set[int]:
        """Return the numbers of the units that are done; a line that was cut off does not count."""
        try:
            with open(f"{self.path}/journal", "rb") as file:
                *lines, _ = file.read().split(b"\n")
        except FileNotFoundError:
            return set()
        numbers = {int(line[:-1]) for line in lines if line.endswith(b".") and line[:-1].isdigit()}
        return {number for number in numbers if number < units}

    def note(self, number: int) -> None:
        """Note a unit that is done."""
        # A line of its own also after one that a crash cut off, which has no full stop.
        with open(f"{self.path}/journal", "ab") as file:
            file.write(b"\n%d.\n" % number)


@contextlib.contextmanager
def held_folder(target: str) -> Iterator[ExportFolder]:
    """Hold the private folder of a target, made if it is not there.

    Raises
    ------
    JobRunningError
        If another export into the same target runs.
    """
    folder = ExportFolder.of(target)
    os.makedirs(folder.path, exist_ok=True)
    try:
        with lock(f"{folder.path}/lock", timeout=0):
            yield folder
    except LockTimeoutError as error:
        raise JobRunningError(f"another export into {target} runs, which holds {error}") from error
