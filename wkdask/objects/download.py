"""Objects copied to files, as they are."""

from __future__ import annotations

import os

from wkdask.objects.reading import list_objects, read_object

__all__ = ["download"]


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
    data = read_object(url).data
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    with open(target, "wb") as file:
        file.write(data)
    return 1
