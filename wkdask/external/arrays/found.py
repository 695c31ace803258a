"""What a format says of an array in a file, and what reads its voxels on a worker."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from wkdask.errors import InvalidValueError, MissingPackageError, UnsupportedFormatError
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.storage.protocol import Voxels

__all__ = [
    "Asked",
    "Found",
    "Part",
    "VoxelReader",
    "library",
    "one_of",
    "refuse_packed",
    "shown_error",
    "whole_steps",
]


class VoxelReader(Protocol):
    """Reads parts of an array; plain data, which goes to workers and opens the file there."""

    def read(self, index: tuple[slice, ...]) -> Voxels:
        """Return the voxels of an index of slices, one for each dimension, in the array's own order."""


@dataclass(frozen=True, slots=True)
class Part:
    """One array of a file: of a pyramid one of its scales."""

    path: str
    """Where it is, absolute, in words that name it alone."""
    reader: VoxelReader
    """Reads it."""
    shape: tuple[int, ...]
    """Its shape, in its own order."""
    dtype: str
    """numpy name of its type."""
    chunks: tuple[int, ...]
    """What is decoded together, in its own order."""
    step: tuple[int, int, int] = (1, 1, 1)
    """Voxels (x, y, z) of the finest scale in one of its own."""
    corner: tuple[int, int, int] | None = None
    """Where it begins along (x, y, z), in its own voxels; None where the file says nothing that is whole voxels."""
    at_once: int = 1
    """Chunks that the reader decodes at a time."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a format says."""

    parts: tuple[Part, ...]
    """The arrays that become mags, the finest first."""
    axes: str | None
    """A letter for each dimension; None where the file does not say."""
    voxel_size: VoxelSize | None
    """Of the finest; None where the file does not say."""
    notes: tuple[str, ...] = ()
    """What is left out, or is not taken as one may expect."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user says of a file that does not say it itself; None where nothing was said."""

    shape: tuple[int, ...] | None = None
    """Of raw voxels, in the order of the axes."""
    dtype: str | None = None
    """Of raw voxels, and of bytes of an MRC file that does not say whether they have a sign."""
    order: str = "C"
    """Of raw voxels: ``"C"``, the last axis is the fastest, or ``"F"``, the first."""
    big_endian: bool = False
    """Whether raw voxels begin with their highest byte."""
    skip: int = 0
    """Bytes before raw voxels."""


def library(name: str, what: str) -> ModuleType:
    """Return a library that only some inputs need.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"{what} is read by {name}, which is not installed: pip install 'wkdask[inputs]'"
        ) from error


def refuse_packed(path: str) -> None:
    """Refuse a file that is compressed as a whole: no part of it can be read without all that comes before.

    Raises
    ------
    UnsupportedFormatError
        If it is, by its first bytes.
    """
    with open(path, "rb") as file:
        start = file.read(6)
    for magic, command in ((b"\x1f\x8b", "gunzip"), (b"BZh", "bunzip2"), (b"\xfd7zXZ", "unxz")):
        if start.startswith(magic):
            raise UnsupportedFormatError(
                f"{path} is compressed as a whole, so that no part of it can be read alone: unpack it first "
                f"({command})"
            )


def shown_error(error: BaseException) -> str:
    """Return what a library says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"


def whole_steps(distance: Sequence[float], sides: Sequence[float]) -> tuple[int, int, int] | None:
    """Return a distance in whole voxels; None where it is between them, or negative."""
    steps = [float(a) / float(b) for a, b in zip(distance, sides, strict=True)]
    if any(not abs(step - round(step)) <= 1e-3 or round(step) < 0 for step in steps):
        return None
    x, y, z = map(round, steps)
    return (x, y, z)


def one_of(path: str, given: str, names: Mapping[str, Any], kind: str) -> str:
    """Return the name of an array in a file of several, if it is one.

    Raises
    ------
    InvalidValueError
        If it is not; names those that are there.
    """
    if given in names:
        return given
    there = ", ".join(f"{name} {value}" for name, value in list(names.items())[:20]) or "none"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    said = f"has no {kind} {given!r}" if given else f"has {len(names)} {kind}s"
    example = next(iter(names), "volumes/raw")
    raise InvalidValueError(
        f"{path} {said}; name one after a colon, as in {os.path.basename(path)}:/{example.lstrip('/')}; "
        f"there are {there}{more}"
    )
