"""The private folder of a job: born locked, swept or resumed when its driver is dead, renamed away when it ends.

A job builds its cubes in its private folder in the mag, and publishes each by one rename::

    <mag>/header.wkw
    <mag>/z0/y0/x0.wkw                         a published cube
    <mag>/.wkdask/locks/017.lock               held while a cube that falls on it is published
    <mag>/.wkdask/<job>/alive                  locked while the job's driver lives
    <mag>/.wkdask/<job>/ticket                 what the job is, where it can be resumed
    <mag>/.wkdask/<job>/journal                which of its units are done (`wkdask.journal`)
    <mag>/.wkdask/<job>/<host-pid-thread…>/    one private root per worker thread, reused for cube after cube
    <mag>/.wkdask/<job>/done-…                 notes of tasks whose results others need (`wkdask.pyramid_tasks`)
    <mag>/.wkdask/<job>/staged/                a private mag, where a job builds all before it publishes any
    <mag>/.wkdask/<job>/built/                 the same, since it began to publish: tasks that still build fail
    <mag>/.wkdask/<job>/before                 since the second phase began: how the mag's files were until then

A reader sees the old cube or the new one. When a job ends its folder is renamed away first: whatever a
task that was thought lost does later (rename out of it, rename into it) fails. What still builds may make
the folder anew, but without the file ``alive``: a task looks for it between building and publishing.

What becomes of the folder of a job whose driver is dead, when the next job on the mag begins::

    no ticket                                     swept
    the ticket's key is the new job's, to resume  taken over under a new name: late tasks of the dead job fail
    half of two phases is published               finished first (`interrupted_jobs`), for its voxels are in no
                                                  other place
    its box touches that of the new job           swept: resumed later, it would skip what the new job replaced
    elsewhere in the mag                          kept for its own resumption, without its tasks' roots
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from wkdask.errors import DamagedHeaderError, JobEndedError, JobRunningError, LockTimeoutError, ReadOnlyError
from wkdask.fsio import atomic_write, fsync_folder, lock, remove_folder
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.storage.protocol import PRIVATE, StoredMag

__all__ = [
    "JobFolder",
    "Ticket",
    "check_alive",
    "interrupted_jobs",
    "job_folder",
    "of_living_job",
    "resumable_folder",
    "take_built",
    "unfinished_jobs",
]

_JOB_NAME = re.compile(r"[0-9a-f]{12}")
_GONE_NAME = re.compile(r"\.[0-9a-f]{12}\.gone-[0-9a-f]{32}")
_TICKET, _JOURNAL, _BEFORE = "ticket", "journal", "before"
_KEPT = re.compile(r"alive|ticket|journal|before|staged.*|built|slab-.*|done-.*")
"""What a job that was resumed has a use for; all else belonged to its tasks."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a job is, so that another process can tell whether it is the same, and go on with it."""

    key: str
    """The same for the same work: name of the array or of the job, geometry of the target."""
    name: str
    """For people: what is written."""
    action: str
    """What is done, as a participle."""
    dataset_path: str
    """The dataset's folder."""
    layer: str
    """The layer's name."""
    mag: Mag
    """The mag."""
    box: BoundingBox
    """What is written: absolute, in voxels of the mag."""
    unit: Vec3Int
    """Voxels of a unit: the journal numbers units, so that a resumed job is cut as the first one was."""
    part: Vec3Int | None = None
    """Voxels of a part, where cubes are too large for a task."""
    resumable: bool = True
    """Whether what it leaves before its second phase is worth keeping for a later call."""
    layer_box: BoundingBox | None = None
    """The layer's box before the job, in voxels of mag 1, where that says what the job does: a run that stopped has
    changed it."""

    def to_bytes(self) -> bytes:
        """Return the ticket as the text of a file."""
        content = {
            "key": self.key,
            "name": self.name,
            "action": self.action,
            "dataset": self.dataset_path,
            "layer": self.layer,
            "mag": self.mag.to_layer_name(),
            "box": self.box.to_tuple6(),
            "unit": self.unit,
            "part": self.part,
            "resumable": self.resumable,
            "layer_box": None if self.layer_box is None else self.layer_box.to_tuple6(),
        }
        return json.dumps(content).encode()

    @classmethod
    def read(cls, folder: str) -> Ticket | None:
        """Return the ticket in a job's folder; None if there is none that can be read."""
        try:
            with open(f"{folder}/{_TICKET}", "rb") as file:
                content = json.load(file)
            layer_box = content.get("layer_box")
            return cls(
                content["key"], content["name"], content["action"], content["dataset"], content["layer"],
                Mag(content["mag"]), BoundingBox.from_tuple6(content["box"]), Vec3Int(content["unit"]),
                None if content["part"] is None else Vec3Int(content["part"]), content["resumable"],
                None if layer_box is None else BoundingBox.from_tuple6(layer_box),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(slots=True)
class JobFolder:
    """The private folder of a job that can be resumed."""

    path: str
    """Where it is."""
    resumed: bool
    """Whether an earlier run of the job left it."""
    finished: bool = False
    """Set when the job has come to its end: then nothing of it stays."""
    landed: bool = False
    """Set when a task has changed something: then there is something to go on with."""
    parked: bool = False
    """Whether the job has stopped, and its folder waits under another name."""

    def begin_second_phase(self, before: bytes) -> None:
        """Note durably that all is built, and how the mag's files are before the first one is replaced."""
        atomic_write(f"{self.path}/{_BEFORE}", before)

    @property
    def has_begun(self) -> bool:
        """Whether there is something to go on with."""
        if self.landed or self.resumed:
            return True
        with contextlib.suppress(OSError):
            return os.stat(f"{self.path}/{_JOURNAL}").st_size > 0
        return False

    @property
    def in_second_phase(self) -> bool:
        """Whether an earlier run of the job began to publish what it had built."""
        return os.path.exists(f"{self.path}/{_BEFORE}")


@contextlib.contextmanager
def job_folder(store: StoredMag, box: BoundingBox | None = None) -> Iterator[str]:
    """Make a private folder for a job that cannot be resumed, and take it away at the end.

    Parameters
    ----------
    store
        The mag.
    box
        What the job writes: absolute, in voxels of the mag; None where that is not known before.
    """
    private = _private_of(store)
    with contextlib.ExitStack() as stack:
        with lock(f"{private}/locks/jobs.lock"):
            _sweep(private, box)
            folder = _born(private, stack)
        try:
            yield folder
        finally:
            remove_folder(folder)


@contextlib.contextmanager
def resumable_folder(
    store: StoredMag, ticket: Ticket, *, resume: bool, writes: bool = True
) -> Iterator[JobFolder]:
    """Make a private folder for a job, or take over the one that an earlier run of it left.

    If the job has not finished by the end, the folder is parked under another name: tasks that still run
    fail, and the job can be resumed.

    Parameters
    ----------
    store
        The mag.
    ticket
        What the job is.
    resume
        Whether to go on where an earlier run stopped; else what that one left is swept.
    writes
        Whether the job changes the mag; one that only reads it takes nothing away from dead jobs that write.

    Raises
    ------
    JobRunningError
        If a living process works on the same job.
    """
    private = _private_of(store)
    with contextlib.ExitStack() as stack:
        with lock(f"{private}/locks/jobs.lock"):
            job = _taken_over(private, ticket, stack) if resume else None
            if writes:
                _sweep(private, ticket.box)
            if job is None:
                job = JobFolder(_born(private, stack), resumed=False)
                atomic_write(f"{job.path}/{_TICKET}", ticket.to_bytes())
                fsync_folder(private)
        try:
            yield job
        finally:
            if job.finished or not (job.in_second_phase or (ticket.resumable and job.has_begun)):
                remove_folder(job.path)
            else:
                with contextlib.suppress(FileNotFoundError):  # an impatient user, or the whole mag is gone
                    job.path = _renamed(job.path)
                    job.parked = True
                    _strip(job.path)


def take_built(store: StoredMag, folder: str) -> StoredMag:
    """Return the private mag in which a job has built all its cubes, taken away from the tasks that built them.

    One of them that was thought lost may still run: it would read what its own job has published since.

    Parameters
    ----------
    store
        The mag.
    folder
        The job's private folder.
    """
    built = f"{folder}/built"
    if not os.path.isdir(built):  # an earlier run of the job may have come so far
        os.rename(f"{folder}/staged", built)
    return store.opened(built)


def unfinished_jobs(store: StoredMag) -> list[Ticket]:
    """Return what dead jobs on a mag can be resumed."""
    jobs = _dead_jobs(f"{store.path}/{PRIVATE}")
    return [ticket for folder, ticket in jobs if ticket.resumable or os.path.exists(f"{folder}/{_BEFORE}")]


def interrupted_jobs(store: StoredMag) -> list[Ticket]:
    """Return the dead jobs on a mag that had begun to replace its cubes by what they read from it.

    The rest of their voxels is in their folders only: before anybody reads or writes the mag again they are to be
    finished.
    """
    private = f"{store.path}/{PRIVATE}"
    return [ticket for folder, ticket in _dead_jobs(private) if os.path.exists(f"{folder}/{_BEFORE}")]


def _private_of(store: StoredMag) -> str:
    """Return the private folder of a mag, made if it is not there."""
    private = f"{store.path}/{PRIVATE}"
    try:
        os.makedirs(f"{private}/locks", exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise ReadOnlyError(f"{store.path} cannot be written to: {error.strerror}") from error
    if os.path.realpath(f"{private}/locks") != f"{store.path}/{PRIVATE}/locks":
        raise ReadOnlyError(
            f"{private}, or locks in it, is a link; jobs only work in a folder of the mag itself"
        )
    return private


def _born(private: str, stack: contextlib.ExitStack) -> str:
    """Make a job's folder and hold its lock; the caller holds the lock that sweepers take."""
    folder = f"{private}/{uuid.uuid4().hex[:12]}"
    os.mkdir(folder)
    stack.enter_context(lock(f"{folder}/alive"))
    return folder


def _folders(private: str) -> list[str]:
    """Return the folders of jobs, living or dead."""
    try:
        with os.scandir(private) as entries:
            return [
                entry.path
                for entry in entries
                if _JOB_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []


def _dead_jobs(private: str) -> Iterator[tuple[str, Ticket]]:
    """Yield folder and ticket of the dead jobs that can be resumed; nothing is created."""
    for folder in _folders(private):
        ticket = Ticket.read(folder)
        if ticket is not None and not _is_living(folder):
            yield folder, ticket


def _is_living(folder: str) -> bool:
    """Tell whether a job's driver holds its lock."""
    try:
        if not os.path.exists(f"{folder}/alive"):
            return False
        with lock(f"{folder}/alive", timeout=0):
            return False
    except LockTimeoutError:
        return True
    except OSError:  # ended meanwhile, or another user's
        return not os.path.isdir(folder) or os.path.exists(f"{folder}/alive")


def _taken_over(private: str, ticket: Ticket, stack: contextlib.ExitStack) -> JobFolder | None:
    """Take over the folder of a dead job of the same key, under a new name; None if there is none."""
    for folder in _folders(private):
        found = Ticket.read(folder)
        if found is None or found.key != ticket.key:
            continue
        try:
            stack.enter_context(lock(f"{folder}/alive", timeout=0))
        except LockTimeoutError:
            raise JobRunningError(
                f"another process is at work on this job ({found.action} layer {found.layer!r} mag {found.mag}, "
                f"{found.name}); its folder is {folder}"
            ) from None
        folder = _renamed(folder)
        _strip(folder)
        return JobFolder(folder, resumed=True)
    return None


def _sweep(private: str, box: BoundingBox | None) -> None:
    """Remove what dead jobs left, but for what can be resumed and is not touched by a new job in `box`."""
    with os.scandir(private) as entries:
        for gone in [entry for entry in entries if _GONE_NAME.fullmatch(entry.name)]:
            shutil.rmtree(gone.path, ignore_errors=True)
    for folder in _folders(private):
        # A folder that ended meanwhile, or is another user's, is not ours to sweep.
        skip = contextlib.suppress(LockTimeoutError, FileNotFoundError, PermissionError)
        with skip, lock(f"{folder}/alive", timeout=0):
            ticket = Ticket.read(folder)
            if ticket is not None and (_is_beside(ticket, box) or os.path.exists(f"{folder}/{_BEFORE}")):
                _strip(folder)
            else:
                remove_folder(folder)


def _is_beside(ticket: Ticket, box: BoundingBox | None) -> bool:
    """Tell whether a dead job can be resumed after another one has written a box."""
    return ticket.resumable and box is not None and ticket.box.intersection(box).is_empty()


def _renamed(folder: str) -> str:
    """Give a job's folder another name, so that tasks that know it by the old one fail."""
    other = f"{os.path.dirname(folder)}/{uuid.uuid4().hex[:12]}"
    os.rename(folder, other)
    return other


def _strip(folder: str) -> None:
    """Remove what belonged to the tasks of a job from its folder."""
    for name in os.listdir(folder):
        if not _KEPT.fullmatch(name):
            shutil.rmtree(f"{folder}/{name}", ignore_errors=True)


def check_alive(folder: str) -> None:
    """Refuse to go on when the job has ended; call it between building and publishing."""
    if not os.path.lexists(f"{folder}/alive"):
        if _JOB_NAME.fullmatch(os.path.basename(folder)):
            remove_folder(folder)  # made anew by what still built
        raise JobEndedError(f"the job of {folder} has ended; this task publishes nothing")


@contextlib.contextmanager
def of_living_job(folder: str) -> Iterator[None]:
    """Let an error that comes of the job's end say so."""
    try:
        yield
    except (FileNotFoundError, DamagedHeaderError) as error:
        try:
            check_alive(folder)
        except JobEndedError as ended:
            raise ended from error
        raise
