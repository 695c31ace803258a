"""Files and folders of attachments, which are found complete or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

from wkdask.fsio import fsync_files, fsync_folder, remove_folder

__all__ = ["made_apart", "remove"]


@contextlib.contextmanager
def made_apart(target: str) -> Iterator[str]:
    """Let a file or a folder be made under a hidden name, flush it, and give it its name; remove it after an error.

    Parameters
    ----------
    target
        Where it goes, in a folder that exists.
    """
    folder, name = os.path.split(target)
    hidden = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        yield hidden
        if os.path.isfile(hidden):
            fsync_files([hidden])
        for path, _, names in os.walk(hidden):
            fsync_files(os.path.join(path, name) for name in names)
            fsync_folder(path)
        os.rename(hidden, target)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the cause
            remove(hidden)
        raise
    fsync_folder(folder)


def remove(path: str) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        remove_folder(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
