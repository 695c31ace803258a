"""Files and folders that a user gives -> paths of images."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wkdask.errors import ImageStackError
from wkdask.external.images.info import shown
from wkdask.external.images.numbering import natural_key
from wkdask.fsio import checked_path
from wkdask.objects.urls import is_url

__all__ = ["find_images", "find_with_notes"]

_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
_THREADS = 8  # looking at files on a shared file system is mostly waiting
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def find_images(inputs: Sequence[str | Path] | str | Path) -> list[str]:
    """Collect image files in natural order.

    Parameters
    ----------
    inputs : sequence of str or Path
        Files, and folders that are searched at any depth (linked folders too, each once).
        Hidden files and folders inside them, and files with other suffixes, are skipped.

    Returns
    -------
    list of str
        Absolute paths without duplicates, all inputs together in the order of `natural_key`: the order that a
        shell gives to ``*.tif`` is not the order of the sections. Links are sorted by name.

    Raises
    ------
    ImageStackError
        A path is missing, no image by its suffix, a broken link, or no file (a pipe, a device); nothing was found;
        or two images differ only in suffix.
    """
    return find_with_notes(inputs)[0]


def find_with_notes(inputs: Sequence[str | Path] | str | Path) -> tuple[list[str], list[str]]:
    """Collect image files as `find_images` does; also notes on files that were skipped."""
    paths: set[str] = set()
    skipped: list[str] = []
    for item in [inputs] if isinstance(inputs, (str, Path)) else inputs:
        path = checked_path(item) if is_url(item) else os.path.abspath(item)  # the first refuses
        found = list(_walk(path, skipped)) if os.path.isdir(path) else [path]
        if not found:
            raise ImageStackError(
                f"{shown(path)}: no images in this folder; looked for {', '.join(_SUFFIXES)}"
            )
        if not os.path.lexists(path):
            raise ImageStackError(
                f"{shown(path)}: no such file or folder; give image files or folders of images"
            )
        if not found[0].lower().endswith(_SUFFIXES):
            raise ImageStackError(f"{shown(path)}: not a supported image; expected {', '.join(_SUFFIXES)}")
        paths.update(found)
    if not paths:
        raise ImageStackError("no images: the list of inputs is empty; give image files or folders of images")
    stems: dict[str, str] = {}
    for path in (ordered := sorted(paths, key=natural_key)):
        if (twin := stems.setdefault(os.path.splitext(path)[0], path)) != path:
            raise ImageStackError(
                f"{shown(path)}: {shown(twin)} has the same name but for the suffix, so its section would come "
                "twice; give the files of one format only"
            )
    with ThreadPoolExecutor(min(_THREADS, len(ordered)), "wkdask-paths") as pool:
        list(pool.map(_check_file, ordered))
    return ordered, _skipped_notes(skipped)


def _skipped_notes(skipped: Sequence[str]) -> list[str]:
    """Tell of files that are no images by their suffix."""
    if not skipped:
        return []
    kinds = sorted({os.path.splitext(path)[1].lower() or "none" for path in skipped})
    return [
        f"{len(skipped)} file(s) have other suffixes than images ({', '.join(kinds[:8])}) and are left out; "
        f"the first is {shown(sorted(skipped)[0])}"
    ]


def _check_file(path: str) -> None:
    """Refuse what is no file: opening a pipe would wait for a writer."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if os.path.islink(path):
            text = f"is a link to {shown(os.readlink(path))}, which cannot be opened: {error.strerror}"
        else:
            text = f"cannot be opened: {error.strerror}"
        raise ImageStackError(f"{shown(path)}: {text}") from error
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise ImageStackError(f"{shown(path)}: is {kind}, not an image file")


def _walk(folder: str, skipped: list[str]) -> Iterator[str]:
    """Image files below a folder; a folder that cannot be listed is an error, not an empty one."""

    def refuse(error: OSError) -> None:
        raise ImageStackError(
            f"{shown(error.filename)}: cannot list this folder: {error.strerror}"
        ) from error

    start, seen = os.path.realpath(folder), set[str]()
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(root)
        if real in seen or start.startswith(os.path.join(real, "")):  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.startswith("."):
                continue
            if name.lower().endswith(_SUFFIXES):
                yield os.path.join(root, name)
            else:
                skipped.append(os.path.join(root, name))
