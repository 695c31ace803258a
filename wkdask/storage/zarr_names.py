"""The files of a Zarr array on disk: which there are, by the names of their keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from wkdask.errors import DamagedCubeError
from wkdask.storage.zarr_layout import ZarrLayout

__all__ = ["places_on_disk"]


def places_on_disk(layout: ZarrLayout, folder: str) -> Iterator[tuple[int, ...]]:
    """Yield the places of the files that exist, in the order of the array's dimensions."""
    if layout.separator == "/":
        *parents, prefix = layout.prefix.split("/")
        yield from _nested(os.path.join(folder, *parents), prefix, len(layout.axes))
    else:
        yield from _numbered(folder, layout.prefix, len(layout.axes), layout.separator)


def _nested(folder: str, prefix: str, depth: int) -> Iterator[tuple[int, ...]]:
    """Yield the places of the files in nested folders, one per dimension."""
    for (number,) in _numbered(folder, prefix, 1, ""):
        if depth == 1:
            yield (number,)
        else:
            for place in _nested(f"{folder}/{prefix}{number}", "", depth - 1):
                yield (number, *place)


def _numbered(folder: str, prefix: str, count: int, separator: str) -> list[tuple[int, ...]]:
    """Return the numbers in the names ``{prefix}{n}{separator}{n}…`` in a folder, in order."""
    number = "(0|[1-9][0-9]*)"
    pattern = re.compile(re.escape(prefix) + re.escape(separator).join([number] * count))
    try:
        names = os.listdir(folder)
    except NotADirectoryError:
        return []
    except FileNotFoundError:
        if os.path.islink(folder):
            raise DamagedCubeError(f"{folder} is a link that leads nowhere") from None
        return []
    return sorted(tuple(map(int, found.groups())) for name in names if (found := pattern.fullmatch(name)))
