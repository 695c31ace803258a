"""The private folder of a job: born locked, swept when its driver is dead, renamed away when it ends.

A job builds its cubes in its private folder in the mag, and publishes each by one rename::

    <mag>/header.wkw
    <mag>/z0/y0/x0.wkw                         a published cube
    <mag>/.wkdask/locks/017.lock               held while a cube that falls on it is published
    <mag>/.wkdask/<job>/alive                  locked while the job's driver lives
    <mag>/.wkdask/<job>/<host-pid-thread…>/    one private root per worker thread, reused for cube after cube
    <mag>/.wkdask/<job>/staged/                a private mag, where a job builds all before it publishes any

A reader sees the old cube or the new one. When a job ends its folder is renamed away first: whatever a
task that was thought lost does later (rename out of it, rename into it) fails. The wkw library would make
the folder anew, but without the file ``alive``: a task looks for it between building and publishing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import threading
import uuid
from collections.abc import Iterator

from wkdask.errors import DamagedHeaderError, JobEndedError, LockTimeoutError, ReadOnlyError
from wkdask.fsio import lock, remove_folder
from wkdask.storage.protocol import PRIVATE, StoredMag

__all__ = ["check_alive", "job_folder", "of_living_job", "scratch_root"]

_JOB_NAME = re.compile(r"[0-9a-f]{12}")
_GONE_NAME = re.compile(r"\.[0-9a-f]{12}\.gone-[0-9a-f]{32}")
_local = threading.local()


@contextlib.contextmanager
def job_folder(store: StoredMag) -> Iterator[str]:
    """Make a job's private folder in a mag, sweep those of dead jobs, and take it away at the end."""
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
    folder = f"{private}/{uuid.uuid4().hex[:12]}"
    # No sweeper may see the folder before its owner holds it: born under a lock that sweepers take too.
    with contextlib.ExitStack() as stack:
        with lock(f"{private}/locks/jobs.lock"):
            _sweep(private)
            os.mkdir(folder)
            stack.enter_context(lock(f"{folder}/alive"))
        try:
            yield folder
        finally:
            remove_folder(folder)


def _sweep(private: str) -> None:
    """Remove the folders of jobs whose driver is dead: nobody holds their lock."""
    with os.scandir(private) as entries:
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    for entry in folders:
        if _GONE_NAME.fullmatch(entry.name):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif _JOB_NAME.fullmatch(entry.name):
            # A folder that ended meanwhile, or is another user's, is not ours to sweep.
            skip = contextlib.suppress(LockTimeoutError, FileNotFoundError, PermissionError)
            with skip, lock(f"{entry.path}/alive", timeout=0):
                remove_folder(entry.path)


def check_alive(folder: str) -> None:
    """Refuse to go on when the job has ended; call it between building and publishing."""
    if not os.path.lexists(f"{folder}/alive"):
        if _JOB_NAME.fullmatch(os.path.basename(folder)):
            remove_folder(folder)  # what the wkw library made anew
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


def scratch_root(store: StoredMag, folder: str) -> str:
    """Return this thread's private root in a job's folder; made on first use, then reused."""
    roots: dict[str, str] = _local.__dict__.setdefault("roots", {})
    key = f"{os.getpid()}:{store.path}:{folder}"  # a forked child is not this thread
    if key in roots:
        return roots[key]
    # Host, process and thread are for humans: containers share such names, and two writers never share a root.
    me = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    root = f"{folder}/{me}-{uuid.uuid4().hex[:8]}"
    os.mkdir(root)
    store.prepare_scratch(root)
    if len(roots) > 16:
        roots.clear()
    roots[key] = root
    return root
