"""Files of a private folder, which others may have made, changed or exchanged: opened by descriptor, never by link.

A dataset may come from an archive, or lie in a folder that a group of users shares. So nothing below ``.wkdask`` is
believed to be what its name says::

    <mag>            trusted: the user named it
    └ .wkdask        opened relative to it; a link is refused
      └ <job>        opened relative to that; a link is refused
        └ manifest   a regular file of one name, of an expected owner, of bounded size; a link, a FIFO, a second
                     name of another file are refused

What is removed is removed relative to these descriptors (`wkdask.fsio.remove_entry`): a folder that is
exchanged for a link meanwhile is not followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator

from wkdask.errors import ReadOnlyError
from wkdask.storage.protocol import PRIVATE

__all__ = [
    "check_private_file",
    "has_entry",
    "make_shared_folder",
    "open_private_file",
    "opened_folder",
    "private_folder",
    "read_private_file",
    "remove_private_temporaries",
    "write_private_file",
]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def opened_folder(root: str, *names: str) -> Iterator[int]:
    """Open a folder below a trusted one by descriptor.

    Parameters
    ----------
    root
        The trusted folder, which may be named by a link.
    names
        The names on the way down, none of which may be a link.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    OSError
        If a name on the way is a link (ELOOP, ENOTDIR) or no folder.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            below = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def check_private_file(descriptor: int, folder: int, name: str) -> os.stat_result:
    """Return the state of an opened file; refuse one that no job has left there.

    Raises
    ------
    OSError
        If it is not a regular file, has a second name, or belongs to somebody else than this user, the
        folder's owner or the folder's group.
    """
    info, home = os.fstat(descriptor), os.fstat(folder)
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, f"not a regular file ({stat.filemode(info.st_mode)})", name)
    if info.st_nlink > 1:
        raise OSError(errno.EMLINK, "the file has a second name elsewhere", name)
    if info.st_uid not in (os.geteuid(), home.st_uid) and info.st_gid != home.st_gid:
        raise OSError(errno.EPERM, f"the file belongs to the user {info.st_uid}", name)
    return info


def open_private_file(folder: int, name: str, flags: int, mode: int = 0o666) -> int:
    """Open a file of a private folder, checked by `check_private_file`; the caller closes the descriptor.

    Parameters
    ----------
    folder
        The folder's descriptor.
    name
        The file's name in it.
    flags, mode
        As for `os.open`.
    """
    descriptor = os.open(name, flags | _FILE, mode, dir_fd=folder)
    try:
        check_private_file(descriptor, folder, name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_private_file(folder: int, name: str, most: int) -> bytes:
    """Return the content of a small file of a private folder.

    Parameters
    ----------
    folder, name
        As for `open_private_file`.
    most
        Bytes that it may have.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    OSError
        If it is none that a job has left there, or is larger.
    """
    descriptor = open_private_file(folder, name, os.O_RDONLY)
    with open(descriptor, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"the file has more than {most} bytes", name)
    return data


def write_private_file(folder: int, name: str, data: bytes, *, durable: bool = True) -> None:
    """Write a file of a private folder so that a reader, or a crash, meets the old content or the new.

    Parameters
    ----------
    folder, name
        As for `open_private_file`; what has the name is replaced, never written through.
    data
        The content.
    durable
        Flush file and folder to the disk.
    """
    temporary = f".{name}.{uuid.uuid4().hex}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o666, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error says more
            os.unlink(temporary, dir_fd=folder)
        raise
    if durable:
        os.fsync(folder)


def remove_private_temporaries(folder: int, name: str) -> None:
    """Remove what killed calls of `write_private_file` left of a file; the caller holds the lock of its writers.

    Parameters
    ----------
    folder, name
        As for `write_private_file`.
    """
    for each in os.listdir(folder):
        if each.startswith(f".{name}.") and each.endswith(".tmp"):
            with contextlib.suppress(OSError):  # not there any more, or a folder: none that a call has left
                os.unlink(each, dir_fd=folder)


def private_folder(mag_path: str) -> str:
    """Return the private folder of a mag, made if it is not there.

    Raises
    ------
    ReadOnlyError
        If this user may not write there, or the folder is a link.
    """
    private = f"{mag_path}/{PRIVATE}"
    for folder in (private, f"{private}/locks"):  # nothing is made behind a link
        try:
            make_shared_folder(folder)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise ReadOnlyError(f"{mag_path} cannot be written to: {error.strerror}") from error
        if os.path.islink(folder):
            raise ReadOnlyError(
                f"{private}, or locks in it, is a symlink; jobs only work in a folder of the mag itself"
            )
    return private


def make_shared_folder(path: str) -> None:
    """Make a folder, unless it is there, with the write permissions of the folder above."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    above = stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) & 0o022
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if above & ~mode:
        os.chmod(path, mode | above)


def has_entry(folder: int, name: str) -> bool:
    """Return whether a folder, given by its descriptor, has an entry; a symlink counts as one."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
