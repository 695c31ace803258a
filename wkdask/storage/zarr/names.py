"""The files of a Zarr array on disk: which there are, by the names of their keys."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from wkdask.errors import DamagedCubeError, DamagedHeaderError
from wkdask.storage.zarr.layout import ZarrLayout

__all__ = ["check_names", "check_names_in", "keys_on_disk", "name_left_out", "place_of", "places_on_disk"]

_LOOK_AT = 20_000
"""So many files are looked at for those that are none of an array: some tenths of a second."""

_KEY = re.compile(r"(c[./])?[0-9]+([./][0-9]+)*")
"""The name of a chunk's file in any of the forms that there are, relative to the array's folder."""


def places_on_disk(layout: ZarrLayout, folder: str) -> Iterator[tuple[int, ...]]:
    """Yield the places of the files that exist, in the order of the array's dimensions."""
    return _places(folder, len(layout.axes), layout.prefix, layout.separator)


def check_names(folder: str, ndim: int, prefix: str, separator: str) -> str | None:
    """Refuse an array of whose chunks none is named as its metadata say, while files of another form are there.

    Such chunks would be passed over, and the array read as its fill value. One look at the folder, which ends at
    the first file of the form that the metadata say.

    Parameters
    ----------
    folder
        The folder of the array.
    ndim
        Its dimensions.
    prefix, separator
        What the names of its files start with, and what is between their numbers.

    Returns
    -------
    str or None
        The name of a file that the metadata say; None where the array has no chunk file at all.

    Raises
    ------
    DamagedHeaderError
        If so; names both forms.
    """
    found = None
    with contextlib.suppress(OSError):  # the reader of the array reports what cannot be listed
        for place in _places(folder, ndim, prefix, separator, in_order=False):
            return prefix + separator.join(map(str, place))
        found = next(keys_on_disk(folder), None)
    if found is None:
        return None
    raise _misnamed(folder, found, ndim, prefix, separator)


def check_names_in(folder: str, names: Iterable[str], ndim: int, prefix: str, separator: str) -> str | None:
    """Refuse an array as `check_names` does, by the names of its files, relative to its folder."""
    wanted = _pattern(prefix, ndim, separator)
    found = None
    for name in names:
        if wanted.fullmatch(name):
            return name
        if found is None and _KEY.fullmatch(name):
            found = name
    if found is None:
        return None
    raise _misnamed(folder, found, ndim, prefix, separator)


def name_left_out(names: Iterable[str], counts: Sequence[int], prefix: str, separator: str) -> str | None:
    """Return the name of a chunk's file that is none of an array: of another form, or beyond its shape.

    Parameters
    ----------
    names
        The names of its files, relative to its folder, of which the first are looked at.
    counts
        Its files along each dimension.
    prefix, separator
        As for `check_names`.
    """
    wanted = _pattern(prefix, len(counts), separator)
    for name in itertools.islice(filter(_KEY.fullmatch, names), _LOOK_AT):
        place = wanted.fullmatch(name)
        if place is None or any(int(n) >= count for n, count in zip(place.groups(), counts, strict=True)):
            return name
    return None


def place_of(layout: ZarrLayout, key: str) -> tuple[int, ...] | None:
    """Return the place of a file by its name, in the order of the array's dimensions; None if it is none."""
    found = _pattern(layout.prefix, len(layout.axes), layout.separator).fullmatch(key)
    return None if found is None else tuple(map(int, found.groups()))


def _misnamed(folder: str, found: str, ndim: int, prefix: str, separator: str) -> DamagedHeaderError:
    """Return the error that names the form of the files, and that of the metadata."""
    return DamagedHeaderError(
        f"{folder} has chunk files such as {found!r}, but its metadata say that they are named as "
        f"{prefix + separator.join('0' * ndim)!r}, and there is none: it would be read as if it had no chunks. "
        f"Correct the separator in its metadata (dimension_separator in .zarray, chunk_key_encoding in zarr.json), "
        f"or copy the array again"
    )


def _pattern(prefix: str, count: int, separator: str) -> re.Pattern[str]:
    """Return the pattern of the names ``{prefix}{n}{separator}{n}…``."""
    number = "(0|[1-9][0-9]*)"
    return re.compile(re.escape(prefix) + re.escape(separator).join([number] * count))


def keys_on_disk(folder: str, above: str = "") -> Iterator[str]:
    """Yield the names of files that are chunks in any form, relative to the array's folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = above + entry.name
            if entry.is_dir():
                if _KEY.fullmatch(f"{name}/0"):
                    yield from keys_on_disk(entry.path, f"{name}/")
            elif _KEY.fullmatch(name):
                yield name


def _places(
    folder: str, ndim: int, prefix: str, separator: str, *, in_order: bool = True
) -> Iterator[tuple[int, ...]]:
    """Yield the places of the files that exist."""
    if separator == "/":
        *parents, prefix = prefix.split("/")
        yield from _nested(os.path.join(folder, *parents), prefix, ndim, in_order)
    else:
        yield from _numbered(folder, prefix, ndim, separator, in_order)


def _nested(folder: str, prefix: str, depth: int, in_order: bool) -> Iterator[tuple[int, ...]]:
    """Yield the places of the files in nested folders, one per dimension."""
    for (number,) in _numbered(folder, prefix, 1, "", in_order):
        if depth == 1:
            yield (number,)
        else:
            for place in _nested(f"{folder}/{prefix}{number}", "", depth - 1, in_order):
                yield (number, *place)


def _numbered(
    folder: str, prefix: str, count: int, separator: str, in_order: bool
) -> Iterator[tuple[int, ...]]:
    """Yield the numbers in the names ``{prefix}{n}{separator}{n}…`` in a folder."""
    pattern = _pattern(prefix, count, separator)
    try:
        entries = os.scandir(folder)
    except NotADirectoryError:
        return
    except FileNotFoundError:
        if os.path.islink(folder):
            raise DamagedCubeError(f"{folder} is a link that leads nowhere") from None
        return
    with entries:
        found = (
            tuple(map(int, match.groups())) for entry in entries if (match := pattern.fullmatch(entry.name))
        )
        yield from sorted(found) if in_order else found
