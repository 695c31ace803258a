"""Who may publish: attempts, their private roots, the locks of cubes, and how a frozen holder is fenced off.

A worker that is stopped, or cut off, keeps the locks that it holds. Whoever waits for one shuts it out::

    holder A, frozen                          waiter B
    lock file = inode 1, note in it: A        A is an earlier run of B's own unit, or silent for too long
    A's root: built, ready to be renamed  <-  1. A's root is renamed away
    …                                     <-  2. a new inode takes the name of the lock file
    wakes, renames out of its root: ENOENT    3. B locks inode 2

What a publication changes outside of its root it changes by renames out of the root (a new cube) or into it
(a cube that became empty). So A can publish nothing and remove nothing after 1, at whatever instruction it was
stopped, and it still excludes all others until 2. A may make the root anew if it stands in the middle
of building: then the root's mark is missing, for which A looks between the last building and the first rename.

The note is written after the lock is taken and taken away before it is given back; no note, no right to
publish. Who writes one looks again whether the lock file still is the inode that it locked.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wkdask.errors import JobEndedError, LockTimeoutError
from wkdask.fsio import lock, lock_timeout, open_lock_file, remove_folder
from wkdask.geometry import Vec3Int
from wkdask.portable import fcntl
from wkdask.storage.protocol import PRIVATE, StoredMag
from wkdask.storage.publish.jobs import check_alive, of_living_job

__all__ = ["Attempt", "cube_locks", "of_living_attempt"]

LOCK_FILES = 256
"""Lock files per mag: cubes share them, so that a mag of a million cubes does not need a million."""
GRACE = 1.0
"""Seconds that a second run of a unit waits for the first, which may be at work and not frozen."""
NOTE_GRACE = 5.0
"""Seconds after which a holder without a note is passed by; it may be between two system calls, but not longer."""
_MARK = "here"
_NOTE_NBYTES = 4096
_NO_NOTE = b"-"
"""First byte of a lock file in which there is no note, whatever follows."""
_local = threading.local()


class Attempt:
    """One run of one unit of work, from its start to its end, in one thread.

    A scheduler that gives a worker up runs its unit again: a new attempt of the same unit. Make one when a task
    begins and hand it to every publication of the task; the private root is the same for all of them, so that an
    attempt that was fenced off in one publishes nothing in the next.

    Parameters
    ----------
    unit
        What the task is for: the same text in every run of it, another one for every other task of the job.
        Empty where it does not run twice.
    """

    __slots__ = ("_roots", "began", "unit")

    def __init__(self, unit: str = "") -> None:
        self.unit = unit
        self.began = time.time()
        self._roots: dict[tuple[str, str], str] = {}

    def root(self, store: StoredMag, folder: str) -> str:
        """Return the private root of this attempt in a job's folder: the thread's, made on first use."""
        key = (store.path, folder)
        if key not in self._roots:
            self._roots[key] = _thread_root(store, folder)
        return self._roots[key]

    def check(self, store: StoredMag, folder: str) -> None:
        """Refuse to go on when the job has ended or this attempt was fenced off.

        To be called between the last building and the first rename.

        Raises
        ------
        JobEndedError
            If so; it publishes nothing.
        """
        check_alive(folder)
        root = self.root(store, folder)
        if not _is_marked(root):
            remove_folder(root)  # made anew while it built
            raise JobEndedError(
                f"this task was thought lost, because it was silent while it held the lock of a cube in "
                f"{store.path}; it publishes nothing"
            )


def _thread_root(store: StoredMag, folder: str) -> str:
    """Return this thread's private root in a job's folder; reused until the thread is fenced off."""
    roots: dict[str, str] = _local.__dict__.setdefault("roots", {})
    key = f"{os.getpid()}:{store.path}:{folder}"  # a forked child is not this thread
    if key in roots and _is_marked(roots[key]):
        return roots[key]
    # Host, process and thread are for humans: containers share such names, and two writers never share a root.
    me = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    root = f"{folder}/{me}-{uuid.uuid4().hex[:8]}"
    os.mkdir(root)
    store.prepare_scratch(root)
    with open(f"{root}/{_MARK}", "xb"):
        pass
    if len(roots) > 16:
        roots.clear()
    roots[key] = root
    return root


def _is_marked(root: str) -> bool:
    """Return whether a root is the one that was made, and in its place."""
    return os.path.lexists(f"{root}/{_MARK}")


@contextlib.contextmanager
def of_living_attempt(attempt: Attempt, store: StoredMag, folder: str) -> Iterator[None]:
    """Let an error that comes of the job's end, or of being fenced off, say so."""
    with of_living_job(folder):
        try:
            yield
        except OSError as error:
            try:
                attempt.check(store, folder)
            except JobEndedError as ended:
                raise ended from error
            raise


@contextlib.contextmanager
def cube_locks(
    store: StoredMag, folder: str, indices: Iterable[Vec3Int], attempt: Attempt, *, slow: bool = False
) -> Iterator[None]:
    """Hold the locks of cubes, always taken in one order, so that two holders cannot wait in a ring.

    Parameters
    ----------
    store
        The mag.
    folder
        The job's private folder.
    indices
        The cubes.
    attempt
        Whose root holds what will be published.
    slow
        Show signs of life meanwhile: what is done under the lock may take longer than others care to wait.

    Raises
    ------
    LockTimeoutError
        If a silent holder could not be fenced off, such as one of another user.
    JobEndedError
        If this attempt was fenced off itself.
    """
    note = _note_of(store, folder, attempt)
    taken: list[int] = []
    try:
        for path in sorted({_lock_path(store, index) for index in indices}):
            descriptor = _take(path, store, note)
            taken.append(descriptor)
        attempt.check(store, folder)
        with _signs_of_life(taken) if slow else contextlib.nullcontext():
            yield
    finally:
        for descriptor in taken:
            _give_back(descriptor)


def _lock_path(store: StoredMag, index: Vec3Int) -> str:
    """Return the lock file that a cube falls on."""
    number = (index.x * 73_856_093 ^ index.y * 19_349_663 ^ index.z * 83_492_791) % LOCK_FILES
    return f"{store.path}/{PRIVATE}/locks/{number:03d}.lock"


class _Pulse:
    """Touches lock files while they are registered, from one thread that is frozen where its process is."""

    REST = 5.0
    """Seconds between two touches, or less where others are less patient."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._pauses: dict[int, float] = {}
        self._guard = threading.Lock()
        self._hurry = threading.Event()
        threading.Thread(target=self._beat, name="wkdask-locks", daemon=True).start()

    def _beat(self) -> None:
        while True:
            with self._guard:
                pause = min(self._pauses.values(), default=self.REST)
            if self._hurry.wait(pause):
                self._hurry.clear()
                continue
            with self._guard:
                for descriptor in self._pauses:
                    with contextlib.suppress(OSError):
                        os.utime(descriptor)

    @contextlib.contextmanager
    def touching(self, descriptors: list[int]) -> Iterator[None]:
        """Touch open files from time to time."""
        pause = min(self.REST, max(0.02, lock_timeout() / 10))
        with self._guard:
            if pause < min(self._pauses.values(), default=self.REST):
                self._hurry.set()
            self._pauses.update(dict.fromkeys(descriptors, pause))
        try:
            yield
        finally:
            with self._guard:  # before they are closed, and their numbers given to other files
                for descriptor in descriptors:
                    self._pauses.pop(descriptor, None)


_pulses: list[_Pulse] = []


def _signs_of_life(descriptors: list[int]) -> contextlib.AbstractContextManager[None]:
    """Touch the lock files meanwhile."""
    if not _pulses or _pulses[-1].process != os.getpid():  # a forked child has no such thread
        _pulses[:] = [_Pulse()]
    return _pulses[-1].touching(descriptors)


# --- notes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Note:
    """Who holds a lock. Its paths are relative to the mag, which other hosts may see under another name."""

    root: str
    """The holder's private root."""
    job: str
    """Its job's folder."""
    unit: str
    """What its task is for; see :class:`Attempt`."""
    began: float
    """When its attempt began, by its host's clock: seconds."""
    token: str
    """Differs for every time that somebody holds locks."""
    who: str
    """Host and process, for messages."""

    def to_bytes(self) -> bytes:
        row = [self.root, self.job, self.unit, self.began, self.token, self.who]
        return json.dumps(row).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> _Note | None:
        """Return a note; None where there is none, or half of one."""
        try:
            text, end, _ = data.partition(b"\n")  # what follows is left of a longer one
            if not end:
                return None
            root, job, unit, began, token, who = json.loads(text)
            return cls(str(root), str(job), str(unit), float(began), str(token), str(who))
        except (ValueError, TypeError):
            return None

    def root_in(self, store: StoredMag) -> str | None:
        """Return the path of the holder's root; None if it is none that a job of this mag makes."""
        root = os.path.normpath(os.path.join(store.path, self.root))
        job = os.path.dirname(root)
        private = os.path.dirname(job)
        # .wkdask/<job>/<root>, or ../<root> where the mag is a private one in the job's folder
        inside = store.path.startswith(f"{job}/") and os.path.basename(private) == PRIVATE
        if not inside and private != f"{store.path}/{PRIVATE}":
            return None
        return root if job == os.path.normpath(os.path.join(store.path, self.job)) else None


def _note_of(store: StoredMag, folder: str, attempt: Attempt) -> _Note:
    """Return the note of an attempt."""
    unit = attempt.unit if len(attempt.unit) < _NOTE_NBYTES // 16 else attempt.unit[: _NOTE_NBYTES // 16]
    return _Note(
        root=os.path.relpath(attempt.root(store, folder), store.path),
        job=os.path.relpath(folder, store.path),
        unit=unit,
        began=attempt.began,
        token=uuid.uuid4().hex,
        who=f"process {os.getpid()} of {socket.gethostname()}",
    )


def _read_note(descriptor: int) -> _Note | None:
    return _Note.parse(os.pread(descriptor, _NOTE_NBYTES, 0))


def _note_down(descriptor: int, path: str, note: _Note) -> bool:
    """Write into a locked file who holds it; False if another file took its name before that was done."""
    inode = os.fstat(descriptor).st_ino
    try:
        # A second descriptor: what was written through it is on the server, for others to read, when it is closed.
        second = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(second).st_ino != inode:
                return False
            text = note.to_bytes()
            os.pwrite(second, _NO_NOTE, 0)
            os.pwrite(second, text[1:], 1)
            os.pwrite(second, text[:1], 0)  # last: a note that can be read is whole
        finally:
            os.close(second)
        return os.stat(path).st_ino == inode
    except FileNotFoundError:
        return False


# --- taking a lock, breaking a lock -----------------------------------------------------------------------


def _try(descriptor: int) -> bool:
    """Lock an open file, if it is not locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take(path: str, store: StoredMag, note: _Note) -> int:
    """Lock a lock file and leave a note in it; returns the descriptor that :func:`_give_back` takes."""
    timeout = lock_timeout()
    pause = 0.0005
    state: object = None
    since = time.monotonic()
    while True:
        descriptor = open_lock_file(path)
        try:
            if _try(descriptor):
                left = _read_note(descriptor)
                if left is not None:  # its holder died, or lost its lock without knowing
                    _shut_out(store, left)
                if _note_down(descriptor, path, note):
                    taken, descriptor = descriptor, -1
                    return taken
                continue
            holder = _read_note(descriptor)
            info = os.fstat(descriptor)
            # A sign of life is a change of the file; clocks of other hosts do not matter.
            now = (info.st_ino, info.st_mtime_ns, holder)
            if now != state:
                state, since = now, time.monotonic()
            if time.monotonic() - since >= _patience(holder, store, note, timeout):
                _break(path, descriptor, holder, store, timeout)
                pause = 0.0005
                continue
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _give_back(descriptor: int) -> None:
    """Take the note away, then unlock."""
    try:
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, _NO_NOTE, 0)  # truncation takes 30 times as long, and waits for the journal
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would leave it to a child forked meanwhile
    finally:
        os.close(descriptor)


def _patience(holder: _Note | None, store: StoredMag, note: _Note, timeout: float) -> float:
    """Return how many seconds a holder may be silent before it is fenced off."""
    if holder is None:
        return min(NOTE_GRACE, timeout)
    root = holder.root_in(store)
    if root is not None and not _is_marked(root):
        return 0  # fenced off already, or its job has ended
    if note.unit and (holder.job, holder.unit) == (note.job, note.unit) and holder.began < note.began:
        return min(GRACE, timeout)
    return timeout


def _shut_out(store: StoredMag, holder: _Note) -> None:
    """Take away the root of a holder: nothing can be renamed out of it or into it any more."""
    root = holder.root_in(store)
    if root is not None and _is_marked(root):
        remove_folder(root)


def _break(path: str, held: int, holder: _Note | None, store: StoredMag, timeout: float) -> None:
    """Shut out the holder of a lock and put a new file in the place of the lock file that it holds.

    Only one process does so at a time, and only if nothing has changed since it decided to.
    """
    with lock(f"{os.path.dirname(path)}/breaker.lock", timeout):
        try:
            same = os.stat(path).st_ino == os.fstat(held).st_ino
        except FileNotFoundError:
            return
        if not same or _read_note(held) != holder:
            return
        if _try(held):
            fcntl.flock(held, fcntl.LOCK_UN)
            return
        if holder is not None:
            if holder.root_in(store) is None:
                raise LockTimeoutError(f"the lock {path} is held by {holder.who}, in a job of another mag")
            try:
                _shut_out(store, holder)
            except PermissionError as error:
                raise LockTimeoutError(
                    f"the lock {path} has been held by {holder.who} for {timeout:g} seconds without a sign of "
                    f"life, and this user may not shut it out: {error.strerror}. End that process"
                ) from error
        draft = f"{path}.{uuid.uuid4().hex}.tmp"
        new = open_lock_file(draft)
        try:
            _try(new)  # no process enters before the last line of this block
            os.rename(draft, path)
            # One more may have locked the old file and left a note between our looks at it.
            late = _read_note(held)
            if late is not None and late != holder:
                _shut_out(store, late)
            fcntl.flock(new, fcntl.LOCK_UN)
        finally:
            os.close(new)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
