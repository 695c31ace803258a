"""The folders that dead jobs left in a mag: found, recognised, taken over, or swept.

What becomes of the folder of a job whose driver is dead, when the next job on the mag begins::

    no sound manifest                     swept; where cubes are half replaced, refused (`illegible_jobs`)
    the key is the new job's, to resume   taken over under a new name: late tasks of the dead job fail
    ``replacing``                         finished first (`interrupted_jobs`): its voxels are in no other place
    ``replaced``                          kept for its own resumption: the rest of the job is still to do
    its box touches that of the new job   swept: resumed later, it would skip what the new job replaced
    elsewhere in the mag                  kept for its own resumption, without its tasks' roots
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from wkdask.errors import JobRunningError, LockTimeoutError, ResumeError, WkdaskWarning
from wkdask.fsio import lock, remove_entry, remove_folder
from wkdask.geometry import BoundingBox
from wkdask.portable import fcntl
from wkdask.storage.protocol import PRIVATE, StoredMag
from wkdask.storage.publish.manifest import Manifest
from wkdask.storage.publish.private import (
    has_entry,
    open_private_file,
    opened_folder,
    private_folder,
    write_private_file,
)

__all__ = [
    "ALIVE",
    "JOB_NAME",
    "JOURNAL",
    "JobFolder",
    "Leftover",
    "has_replacing_job",
    "illegible_jobs",
    "interrupted_jobs",
    "is_unfinished",
    "leftovers",
    "previous_run",
    "renamed",
    "replaced_jobs",
    "replacing_now",
    "strip",
    "sweep",
    "sweep_ended",
    "taken_over",
    "unfinished_jobs",
    "unfinished_key",
    "warn_if_half_replaced",
]

JOB_NAME = re.compile(r"[0-9a-f]{12}")
_GONE_NAME = re.compile(r"\.[0-9a-f]{12}\.gone-[0-9a-f]{32}")
ALIVE, JOURNAL, _REPLACING, _REPLACED = "alive", "journal", "replacing", "replaced"
_BEFORE = "before"
"""What `replacing` was called before 0.1.0."""
_KEPT = re.compile(r"alive|manifest|ticket|journal|replacing|replaced|before|staged.*|built|slab-.*|done-.*")
"""Entries that a resumed job keeps; everything else is scratch of its tasks."""
_EMPTY_JOURNAL = 64
"""Bytes of a journal at most that names its job, and no unit."""


@dataclass(slots=True)
class JobFolder:
    """The private folder of a job in one mag."""

    path: str
    """Where it is."""
    manifest: Manifest | None = None
    """What the job does to the mag; None for a job of which nothing is resumed, finished or undone."""
    resumed: bool = False
    """Whether a previous run of the job left it."""
    finished: bool = False
    """Set when the job has come to its end: then nothing of it stays."""
    landed: bool = False
    """Set when a task has changed something: then there is something to resume."""
    parked: bool = False
    """Whether the job has stopped, and its folder waits under another name."""

    def begin_second_phase(self, state: bytes) -> None:
        """Note durably that all is built, before the first cube is replaced.

        Parameters
        ----------
        state
            The mag's fingerprint until then, for a person who inspects the folder.
        """
        with opened_folder(self.path) as folder:
            write_private_file(folder, _REPLACING, state)

    def end_second_phase(self) -> None:
        """Note durably that all cubes are replaced; what was built is not needed any more."""
        with opened_folder(self.path) as folder:
            name = _REPLACING if has_entry(folder, _REPLACING) else _BEFORE
            os.rename(name, _REPLACED, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
            remove_entry(folder, "built")

    @property
    def is_replacing(self) -> bool:
        """Whether some of the mag's cubes are replaced, and others may not be."""
        return _is_there(self.path, _REPLACING) or _is_there(self.path, _BEFORE)

    @property
    def is_replaced(self) -> bool:
        """Whether all of the mag's cubes are replaced."""
        return _is_there(self.path, _REPLACED)

    @property
    def has_begun(self) -> bool:
        """Whether there is something to resume."""
        if self.landed or self.resumed or self.is_replacing or self.is_replaced:
            return True
        with contextlib.suppress(OSError):
            return os.stat(f"{self.path}/{JOURNAL}", follow_symlinks=False).st_size > _EMPTY_JOURNAL
        return False


@dataclass(frozen=True, slots=True)
class _Dead:
    """The folder of a job whose driver is dead."""

    name: str
    manifest: Manifest
    replacing: bool
    replaced: bool


def previous_run(store: StoredMag, key: str) -> Manifest | None:
    """Return the manifest that a previous run of a job left in its own mag; None if there is none.

    A run that had built cubes from what they are to replace, and had not begun to replace them, counts only
    if the mag is still as it was then.

    Parameters
    ----------
    store
        The job's own mag.
    key
        The job's key.
    """
    for dead in _dead_jobs(store.path):
        manifest = dead.manifest
        if (manifest.key, manifest.role) == (key, 0) and (
            dead.replacing
            or dead.replaced
            or not manifest.staged
            or manifest.state == store.fingerprint(manifest.box)
        ):
            return manifest
    return None


def unfinished_jobs(store: StoredMag) -> list[Manifest]:
    """Return the manifests of dead jobs on a mag that can be resumed."""
    return [
        dead.manifest
        for dead in _dead_jobs(store.path)
        if dead.manifest.resumable or dead.replacing or dead.replaced
    ]


def interrupted_jobs(store: StoredMag) -> list[Manifest]:
    """Return the manifests of dead jobs on a mag that had begun to replace its cubes, and can be completed.

    The rest of their voxels is in their folders only, or only their commit is left: they are to be finished before
    anybody reads or writes the mag.
    """
    return [
        dead.manifest
        for dead in _dead_jobs(store.path)
        if dead.replacing or (dead.replaced and not dead.manifest.goes_on)
    ]


def illegible_jobs(store: StoredMag, *, replaced: bool = False) -> list[str]:
    """Return the folders of dead jobs that had begun to replace a mag's cubes and have no sound manifest any more.

    They cannot be finished: the mag is half replaced, and is not to be read or written as if it were whole.

    Parameters
    ----------
    store
        The mag.
    replaced
        Look for those that had replaced all cubes instead. The mag is whole then, but which job wrote it is
        unknown.
    """
    marker, found = _REPLACED if replaced else _REPLACING, []
    for name in _job_names(store.path):
        with contextlib.suppress(FileNotFoundError), opened_folder(store.path, PRIVATE, name) as folder:
            if has_entry(folder, marker) and Manifest.read(folder) is None and not _is_living(folder):
                found.append(f"{store.path}/{PRIVATE}/{name}")
    return found


def has_replacing_job(mag_path: str) -> bool:
    """Return whether a job, living or dead, has begun to replace a mag's cubes in place; it costs a look or two."""
    private = f"{mag_path}/{PRIVATE}"
    while True:
        names = _job_names(mag_path)
        if any(
            os.path.lexists(f"{private}/{name}/{marker}")
            for name in names
            for marker in (_REPLACING, _REPLACED, _BEFORE)
        ):
            return True
        if all(os.path.lexists(f"{private}/{name}") for name in names):
            return False
        # One has ended, or another process has taken it over under a new name: look again.


def unfinished_key(mag_path: str) -> str | None:
    """Return the key of a job that has not finished making the mag in a folder; None if there is none."""
    for name in _job_names(mag_path):
        with contextlib.suppress(OSError), opened_folder(mag_path, PRIVATE, name) as folder:
            manifest = Manifest.read(folder)
            if manifest is not None and manifest.creates:
                return manifest.key
    return None


def warn_if_half_replaced(mag_path: str) -> None:
    """Warn before a mag is read that a dead job has replaced in part; any job on it finishes that.

    It costs one look into the mag's private folder.

    Warns
    -----
    WkdaskWarning
        If so: what is read is a mixture of old and new voxels.
    """
    if not has_replacing_job(mag_path):
        return
    for dead in _dead_jobs(mag_path):
        if dead.replacing:
            warnings.warn(
                f"{mag_path} is half replaced by a job that was interrupted ({dead.manifest.action} "
                f"{dead.manifest.name} into {dead.manifest.box}): some of its cubes are new, others old. "
                f"Any write or "
                f"job on it finishes that first, and so does the same call with resume=True",
                WkdaskWarning,
                stacklevel=4,
            )


def replaced_jobs(store: StoredMag) -> list[Manifest]:
    """Return the manifests of dead jobs that have replaced a mag's cubes, and have more to do."""
    return [dead.manifest for dead in _dead_jobs(store.path) if dead.replaced]


def replacing_now(store: StoredMag) -> list[Manifest]:
    """Return the manifests of living jobs that replace cubes of a mag at the moment."""
    found = []
    for name in _job_names(store.path):
        with contextlib.suppress(OSError), opened_folder(store.path, PRIVATE, name) as folder:
            if (
                has_entry(folder, _REPLACING)
                and _is_living(folder)
                and (manifest := Manifest.read(folder)) is not None
            ):
                found.append(manifest)
    return found


def is_unfinished(mag_path: str) -> str | None:
    """Return why an unlisted folder is no mag that could be listed: a job that makes it has not ended; else None.

    Parameters
    ----------
    mag_path
        The folder.
    """
    for name in _job_names(mag_path):
        with contextlib.suppress(OSError), opened_folder(mag_path, PRIVATE, name) as folder:
            manifest = Manifest.read(folder)
            if manifest is not None and manifest.creates:
                doing = "is making" if _is_living(folder) else "was interrupted while it made"
                return f"a job ({manifest.action}, {manifest.name}) {doing} the mag in {mag_path}"
    return None


@dataclass(frozen=True, slots=True)
class Leftover:
    """The folder of a job in a mag, looked at from outside."""

    path: str
    """Where it is."""
    state: Literal["living", "resumable", "replacing", "ended"]
    """Its driver lives; it can be resumed; it has replaced cubes, and is to be finished; nothing needs it."""
    manifest: Manifest | None
    """What the job does to the mag; None where no sound manifest is there."""


def leftovers(mag_path: str) -> list[Leftover]:
    """Return the folders of jobs in a mag, and those on their way out; nothing is changed."""
    found = []
    for name in _job_names(mag_path):
        with contextlib.suppress(FileNotFoundError), opened_folder(mag_path, PRIVATE, name) as folder:
            manifest = Manifest.read(folder)
            if _is_living(folder):
                state: Literal["living", "resumable", "replacing", "ended"] = "living"
            elif has_entry(folder, _REPLACING) or has_entry(folder, _REPLACED) or has_entry(folder, _BEFORE):
                state = "replacing"
            else:
                state = "resumable" if manifest is not None and manifest.resumable else "ended"
            found.append(Leftover(f"{mag_path}/{PRIVATE}/{name}", state, manifest))
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        gone = [name for name in os.listdir(f"{mag_path}/{PRIVATE}") if _GONE_NAME.fullmatch(name)]
        found += [Leftover(f"{mag_path}/{PRIVATE}/{name}", "ended", None) for name in gone]
    return found


def _job_names(mag_path: str) -> list[str]:
    """Return the names of the folders of jobs in a mag, living or dead."""
    try:
        with os.scandir(f"{mag_path}/{PRIVATE}") as entries:
            return [
                entry.name
                for entry in entries
                if JOB_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _dead_jobs(mag_path: str) -> Iterator[_Dead]:
    """Yield the dead jobs of a mag that have a sound manifest; nothing is created."""
    for name in _job_names(mag_path):
        with contextlib.suppress(OSError), opened_folder(mag_path, PRIVATE, name) as folder:
            manifest = Manifest.read(folder)
            if manifest is not None and not _is_living(folder):
                replacing = has_entry(folder, _REPLACING) or (
                    has_entry(folder, _BEFORE) and not manifest.resumable
                )
                yield _Dead(name, manifest, replacing, has_entry(folder, _REPLACED))


@contextlib.contextmanager
def _dead_lock(folder: int) -> Iterator[None]:
    """Hold the lock of a job that is dead.

    Raises
    ------
    LockTimeoutError
        If the job lives.
    PermissionError
        If it is another user's, who does not share it.
    """
    try:
        descriptor = open_private_file(folder, ALIVE, os.O_RDWR)
    except PermissionError as error:
        if error.errno == errno.EACCES:
            raise
        yield  # it is none that a job has left
        return
    except OSError:  # there is none, or a link or FIFO in its place
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockTimeoutError("the job lives") from None
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _is_living(folder: int) -> bool:
    """Return whether a job's driver holds its lock; True also where this user cannot know."""
    try:
        with _dead_lock(folder):
            return False
    except (LockTimeoutError, PermissionError):
        return True


def taken_over(
    mags: Sequence[tuple[StoredMag, Manifest | None, BoundingBox | None]], stack: contextlib.ExitStack
) -> list[JobFolder] | None:
    """Take over the folders that a previous run of a job left in all its mags; None if they are not all there."""
    taken: list[JobFolder] = []
    with contextlib.ExitStack() as held:
        for store, manifest, _ in mags:
            if manifest is None:
                return None
            private = private_folder(store.path)
            with lock(f"{private}/locks/jobs.lock"):
                folder = _taken_over(private, manifest, held)
            if folder is not None:
                taken.append(folder)
            elif not taken:
                return None
            elif any(each.is_replacing or each.is_replaced for each in taken):
                for each in taken:
                    each.path = renamed(each.path)
                raise ResumeError(
                    f"{manifest.label}: an interrupted job ({manifest.action} {manifest.name}) had begun to "
                    f"replace "
                    f"cubes in place; of what it wrote into this mag nothing is there any more, and it cannot be "
                    f"computed again. The other mags are finished by the next call on them"
                )
            else:
                warnings.warn(
                    f"{manifest.label}: of an interrupted job ({manifest.action} {manifest.name}) nothing is there "
                    f"any more in this mag, which was deleted or written by another job; the job starts from its "
                    f"beginning",
                    WkdaskWarning,
                    stacklevel=2,
                )
                for each in taken:
                    remove_folder(each.path)
                return None
        stack.push(held.pop_all())
    return taken


def _taken_over(private: str, manifest: Manifest, stack: contextlib.ExitStack) -> JobFolder | None:
    """Take over the folder of a dead job of the same key and role, under a new name; None if there is none."""
    for name in _job_names(os.path.dirname(private)):
        with contextlib.suppress(OSError), opened_folder(private, name) as folder:
            found = Manifest.read(folder)
            if found is None or (found.key, found.role) != (manifest.key, manifest.role):
                continue
            replacing = has_entry(folder, _REPLACING) or has_entry(folder, _REPLACED)
            if found.state != manifest.state and not replacing:
                continue  # the mag was changed since: what was built was computed from what it was
            try:
                stack.enter_context(_dead_lock(folder))
            except LockTimeoutError:
                raise JobRunningError(
                    f"another process is at work on this job ({found.action} {found.label}, {found.name}); its "
                    f"folder is {private}/{name}"
                ) from None
            path = renamed(f"{private}/{name}")
            if not os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(folder)):
                raise OSError(errno.EINVAL, "the folder of a job was exchanged", f"{private}/{name}")
            strip(folder)
            return JobFolder(path, found, resumed=True)
    return None


def sweep(private: str, box: BoundingBox | None, new: Manifest | None) -> None:
    """Remove what dead jobs left, but for what can be resumed and is not touched by a new job in `box`.

    Parameters
    ----------
    private
        The mag's private folder.
    box
        What the new job writes, in voxels of the mag; None where that is not known.
    new
        The manifest of the new job, if that begins from its start: it takes the place of a previous run.
    """
    with opened_folder(private) as above, os.scandir(private) as entries:
        for gone in [entry.name for entry in entries if _GONE_NAME.fullmatch(entry.name)]:
            remove_entry(above, gone)
        for name in _job_names(os.path.dirname(private)):
            # A folder that ended meanwhile, or is another user's, is not ours to sweep.
            skip = contextlib.suppress(LockTimeoutError, OSError)
            with skip, opened_folder(private, name) as folder, _dead_lock(folder):
                manifest = Manifest.read(folder)
                replaced = has_entry(folder, _REPLACED) and not (
                    manifest is not None and new is not None and manifest.key == new.key
                )
                replacing = has_entry(folder, _REPLACING) or has_entry(folder, _BEFORE)
                if replacing or (manifest is not None and (_is_beside(manifest, box, new) or replaced)):
                    strip(folder)
                else:
                    doomed = f".{name}.gone-{uuid.uuid4().hex}"
                    os.rename(name, doomed, src_dir_fd=above, dst_dir_fd=above)
                    remove_entry(above, doomed)


def sweep_ended(store: StoredMag, key: str) -> None:
    """Remove what a job left in a mag that had ended, and was killed before it took its folders away.

    Parameters
    ----------
    store
        The mag.
    key
        The job's key.
    """

    def is_ended(name: str) -> bool:
        if _GONE_NAME.fullmatch(name):
            return True
        skip = contextlib.suppress(LockTimeoutError, OSError)
        if JOB_NAME.fullmatch(name):
            with skip, opened_folder(store.path, PRIVATE, name) as folder, _dead_lock(folder):
                manifest = Manifest.read(folder)
                return manifest is not None and manifest.key == key
        return False

    try:
        with opened_folder(store.path, PRIVATE) as above:
            if not any(is_ended(name) for name in os.listdir(above)):
                return
            with lock(f"{private_folder(store.path)}/locks/jobs.lock"):
                for name in os.listdir(above):
                    if is_ended(name):
                        remove_entry(above, name)
    except FileNotFoundError:  # the mag, or all that is private in it, is gone
        return


def _is_beside(manifest: Manifest, box: BoundingBox | None, new: Manifest | None) -> bool:
    """Return whether a dead job can be resumed after another one has written a box."""
    if new is not None and (manifest.key, manifest.role) == (new.key, new.role):
        return False
    return manifest.resumable and box is not None and manifest.box.intersection(box).is_empty()


def renamed(folder: str) -> str:
    """Give a job's folder another name, so that tasks that know it by the old one fail."""
    private, name = os.path.split(folder)
    other = uuid.uuid4().hex[:12]
    with opened_folder(private) as above:
        os.rename(name, other, src_dir_fd=above, dst_dir_fd=above)
    return f"{private}/{other}"


def strip(folder: int) -> None:
    """Remove the files of a job's tasks from its folder, given by its descriptor."""
    for name in os.listdir(folder):
        if not _KEPT.fullmatch(name):
            remove_entry(folder, name)


def _is_there(folder: str, name: str) -> bool:
    return os.path.lexists(f"{folder}/{name}")
