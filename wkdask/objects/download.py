"""Objects copied to files, as they are."""

from __future__ import annotations

import os

from wkdask.objects.reading import list_objects, read_range

__all__ = ["download"]

_PART_NBYTES = 64 << 20
"""Bytes of an object that are in memory at a time."""


def download(url: str, target: str) -> int:
    """Copy an object, or all objects below a prefix, to the local disk.

    Parameters
    ----------
    url
        The object, or the prefix.
    target
        The file or folder that is made.

    Returns
    -------
    int
        How many objects were copied.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    PermissionError, StoreError
        If the store does not give them.
    """
    try:
        return _to_file(url, target)
    except FileNotFoundError:
        count = 0
        for each in list_objects(url):
            if ".." in each.name.split("/") or each.name.endswith("/"):
                continue  # no name of a file below the target
            count += _to_file(f"{url}/{each.name}", os.path.join(target, *each.name.split("/")))
        if not count:
            raise
        return count


def _to_file(url: str, target: str) -> int:
    """Copy one object to a file."""
    part = read_range(url, 0, _PART_NBYTES)
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    with open(target, "wb") as file:
        while part.data:
            file.write(part.data)
            if file.tell() >= part.size:
                break
            part = read_range(url, file.tell(), file.tell() + _PART_NBYTES, part)
    return 1
