"""The file system, as the rules of publication need it: atomic replace, fsync in batches, locks, sparse copies.

Nothing here knows what a cube or a dataset is.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence

from wkdask import settings
from wkdask.errors import InvalidValueError, LockTimeoutError, ReadOnlyError
from wkdask.objects.stores import plain_place
from wkdask.objects.urls import checked_url, is_url
from wkdask.portable import copy_in_kernel, data_extents, drop_cached, fcntl, sync_data

__all__ = [
    "EXHAUSTED",
    "atomic_write",
    "checked_path",
    "checked_place",
    "copy_sparse",
    "drop_file",
    "flushing",
    "free_bytes",
    "freed_later",
    "fsync_files",
    "fsync_folder",
    "holds_only_zeros",
    "is_there",
    "link_or_copy",
    "lock",
    "lock_timeout",
    "locks",
    "make_folders",
    "open_lock_file",
    "open_regular",
    "remove_entry",
    "remove_folder",
    "remove_temporaries",
    "replace_keeping_mode",
]

_logger = logging.getLogger(__name__)

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of a process or machine that has run out of something: they say nothing of the file."""

LARGE_NBYTES = 64 << 20
"""Bytes on the disk from which on flushing and freeing a file is worth a thread."""


def lock_timeout() -> float:
    """Return the seconds to wait for a lock: the setting ``wkdask.lock-timeout``."""
    return float(settings.get("lock-timeout"))


def checked_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of something local as text that native code and JSON can hold.

    Raises
    ------
    ReadOnlyError
        If it is a URL: those of datasets and mags that are read are taken by :func:`checked_place`.
    InvalidValueError
        If the path is empty, holds a NUL byte (native code would cut it there) or is not valid Unicode.
    """
    text = os.fspath(plain_place(path))
    if is_url(text):
        raise ReadOnlyError(f"{checked_url(str(text))} is in an object store; this works on local files only")
    if not isinstance(text, str) or not text:
        raise InvalidValueError(f"a path must be a text that is not empty, got {path!r}")
    if "\0" in text:
        raise InvalidValueError(f"a path cannot hold a NUL byte: {text!r}")
    full = os.path.abspath(text)
    try:
        full.encode("utf-8")  # also the folder that a relative path starts from
    except UnicodeEncodeError:
        raise InvalidValueError(f"a path must be valid Unicode: {full!r}") from None
    return full


def checked_place(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of what is read, or its URL in its normal form. Raises as :func:`checked_path`."""
    text = os.fspath(plain_place(path))
    return checked_url(str(text)) if is_url(text) else checked_path(text)


def is_there(path: str) -> bool:
    """Return whether something has a name; a link that leads nowhere counts.

    Raises
    ------
    OSError
        If that cannot be found out: `os.path.lexists` would say no, and what is there would be taken for absent.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def open_regular(path: str) -> int:
    """Open a regular file for reading; never block on a FIFO, never mistake a folder for a file.

    Returns
    -------
    int
        A file descriptor that the caller closes.

    Raises
    ------
    FileNotFoundError
        If there is no such name; a dangling link counts as damage instead (``OSError`` ELOOP).
    OSError
        If it cannot be opened, or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if os.path.islink(path):
            raise OSError(errno.ELOOP, "a symbolic link that leads nowhere", path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        kind = stat.filemode(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"not a regular file ({kind})", path)
    return descriptor


def fsync_files(paths: Iterable[str]) -> None:
    """Make the data of files durable: one pass, so that the disk sees one queue and not one stop per file."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sync_data(descriptor)
        finally:
            os.close(descriptor)


def drop_file(path: str) -> None:
    """Flush a file, if it is there, and drop it from the page cache, so that it is read from the disk."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
        drop_cached(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: str) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems refuse to sync a folder; they order renames themselves
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def replace_keeping_mode(source: str, target: str) -> None:
    """Rename `source` over `target`; the file there before passes on its mode and, where allowed, its group.

    Where there was none, the file gets the group that it would have had if it had been made there: that of a
    folder with the setgid bit.
    """
    try:
        old = os.stat(target)
    except FileNotFoundError:
        folder = os.stat(os.path.dirname(target) or ".")
        if folder.st_mode & stat.S_ISGID and os.stat(source).st_gid != folder.st_gid:
            with contextlib.suppress(PermissionError):
                os.chown(source, -1, folder.st_gid)
    else:
        with contextlib.suppress(PermissionError):
            os.chown(source, -1, old.st_gid)
        try:
            os.chmod(source, stat.S_IMODE(old.st_mode))
        except PermissionError:  # another user's file, as of a job that this user finishes
            if stat.S_IMODE(os.stat(source).st_mode) != stat.S_IMODE(old.st_mode):
                _logger.warning("%s keeps its own permissions, not those of the file before it", target)
    os.replace(source, target)


def atomic_write(path: str, data: bytes) -> None:
    """Write a small file so that a reader, or a crash at any moment, sees the old content or the new.

    The data go to a new file in the same folder, are made durable, and are renamed over `path`; a link
    at `path` stays a link. On failure (a full disk) the old file is as it was and nothing else stays.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace_keeping_mode(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error says more
            os.unlink(temporary)
        raise
    fsync_folder(folder)


def remove_temporaries(path: str) -> None:
    """Remove what killed calls of :func:`atomic_write` left of a file; under its lock there is no living one."""
    folder, name = os.path.split(os.path.realpath(path))
    with os.scandir(folder) as entries:
        dead = [
            each.path for each in entries if each.name.startswith(f".{name}.") and each.name.endswith(".tmp")
        ]
    for each in dead:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(each)


def free_bytes(path: str) -> int:
    """Return how many bytes this user may still write on the file system of a path.

    Quotas count where the file system answers for them (most network and XFS project quotas do); a quota of
    the user alone shows only when a write fails.
    """
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize


def open_lock_file(path: str) -> int:
    """Open a lock file; a new one is open to everybody who may write in its folder, whatever the umask."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return os.open(
            path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        )  # a link could lead two locks to one file
    folder_mode = stat.S_IMODE(os.stat(os.path.dirname(path) or ".").st_mode)
    os.fchmod(
        descriptor, 0o600 | (0o060 if folder_mode & 0o020 else 0) | (0o006 if folder_mode & 0o002 else 0)
    )
    return descriptor


@contextlib.contextmanager
def lock(path: str, timeout: float | None = None) -> Iterator[None]:
    """Hold an exclusive ``flock`` on a lock file, which is created if missing and never removed.

    A new descriptor per call: ``flock`` belongs to it, so threads exclude each other too, and the kernel
    frees it when the process dies. There is no fallback where the file system cannot lock.

    Raises
    ------
    LockTimeoutError
        If it is still held after `timeout` seconds (default :func:`lock_timeout`).
    OSError
        If the file system cannot lock.
    """
    limit = time.monotonic() + (lock_timeout() if timeout is None else timeout)
    descriptor = open_lock_file(path)
    try:
        pause = 0.0005
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise LockTimeoutError(
                        f"the lock {path} is still held by another process; is a writer frozen? "
                        f"(lslocks shows who holds it)"
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, 0.05)
        try:
            yield
        finally:
            fcntl.flock(
                descriptor, fcntl.LOCK_UN
            )  # closing is not enough: a child forked meanwhile has the lock
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locks(paths: Sequence[str], timeout: float | None = None) -> Iterator[None]:
    """Hold several locks, always taken in the order of their real paths: two holders cannot wait in a ring."""
    with contextlib.ExitStack() as stack:
        for path in sorted({os.path.realpath(path) for path in paths}):
            stack.enter_context(lock(path, timeout))
        yield


def copy_sparse(source: str, target: str, *, flushed: bool = False) -> None:
    """Copy a file to a new one, data extents only; holes stay holes.

    Uses ``SEEK_DATA`` and ``copy_file_range`` (which shares blocks where the file system can) and falls
    back to plain copies where the file system has neither. `source` is opened by :func:`open_regular`.

    Parameters
    ----------
    source, target
        The file, and the new one.
    flushed
        Flush a large copy to the disk while it is made, for a caller that flushes it at the end: copying and
        flushing a GiB one after the other takes up to twice as long.
    """
    with open(open_regular(source), "rb") as reader, open(target, "xb") as writer:
        info = os.fstat(reader.fileno())
        os.truncate(writer.fileno(), info.st_size)
        large = flushed and info.st_blocks * 512 >= LARGE_NBYTES
        with flushing(writer.fileno()) if large else contextlib.nullcontext():
            for start, stop in data_extents(reader.fileno(), info.st_size):
                _copy_range(reader.fileno(), writer.fileno(), start, stop)


@contextlib.contextmanager
def flushing(descriptor: int) -> Iterator[None]:
    """Flush a file again and again while it is written, so that the disk works meanwhile."""
    ended = threading.Event()

    def flush() -> None:
        while not ended.wait(0.02):
            with contextlib.suppress(OSError):  # the caller flushes too, and meets the error
                sync_data(descriptor)

    thread = threading.Thread(target=flush, name="wkdask-flush", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def freed_later(path: str) -> Iterator[None]:
    """Replace or remove a large file without waiting until its blocks are free (0.3 s and more for a GiB)."""
    try:
        large = os.stat(path).st_blocks * 512 >= LARGE_NBYTES
        descriptor = open_regular(path) if large else None
    except OSError:
        descriptor = None
    try:
        yield
    finally:
        if descriptor is not None:
            threading.Thread(target=os.close, args=(descriptor,), name="wkdask-free", daemon=True).start()


def link_or_copy(source: str, target: str) -> None:
    """Make a hard link to a file, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
            raise
        copy_sparse(source, target)


def _copy_range(source: int, target: int, start: int, stop: int) -> None:
    """Copy bytes [start, stop) between descriptors at the same place."""
    in_kernel = True
    while start < stop:
        if in_kernel:
            done = copy_in_kernel(source, target, stop - start, start)
            if done is None:
                in_kernel = False
                continue
            copied = done
        else:
            data = os.pread(source, min(stop - start, 16 << 20), start)
            copied = os.pwrite(target, data, start) if data else 0
        if not copied:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += copied


def make_folders(root: str, folder: str) -> list[str]:
    """Make a folder below a root and those in between, but not the root: one that was taken away stays so.

    Returns
    -------
    list of str
        The root and all folders below: what is to be flushed for those to last that were not there.
    """
    path, touched = root, [root]
    for name in os.path.relpath(folder, root).split(os.sep):
        path = os.path.join(path, name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        touched.append(path)
    return touched


def remove_folder(path: str) -> None:
    """Remove a folder and all in it; first rename it away, so that a late writer into it fails.

    Of a link only the link goes. What cannot be removed stays under a hidden name, which readers skip, and
    is removed by the next call for a neighbour.
    """
    parent, name = os.path.split(path.rstrip("/"))
    try:
        descriptor = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        doomed = f".{name}.gone-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(name, doomed, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        for each in os.listdir(descriptor):
            if _GONE.search(each):
                remove_entry(descriptor, each)
    finally:
        os.close(descriptor)


_GONE = re.compile(r"^\..*\.gone-[0-9a-f]{32}$")


def remove_entry(folder: int, name: str) -> None:
    """Remove a file, a link or a folder with all in it; what cannot be removed stays.

    Parameters
    ----------
    folder
        The descriptor of the folder that holds it: nothing is followed that is exchanged for a link meanwhile.
    name
        Its name there.
    """
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)
        return
    for _ in range(3):  # a late task may have made something in it meanwhile
        with contextlib.suppress(OSError):
            shutil.rmtree(name, dir_fd=folder)
            return


def holds_only_zeros(path: str, offset: int) -> bool:
    """Return whether a file holds only zero bytes from `offset` on; holes are not read."""
    with open(path, "rb") as file:
        descriptor = file.fileno()
        for start, stop in data_extents(descriptor, os.fstat(descriptor).st_size):
            position = max(start, offset)
            while position < stop:
                data = os.pread(descriptor, min(stop - position, 1 << 20), position)
                if data.strip(b"\0"):
                    return False
                if not data:
                    return True
                position += len(data)
    return True
