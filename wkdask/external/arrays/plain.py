"""Voxels that lie in a file one after the other: raw ones, and those behind the headers of npy, MRC, NRRD, NIfTI.

A library reads the header and says where they begin; they are read through a map of the file into memory, of
which the system keeps what fits.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from wkdask.errors import DamagedHeaderError, InvalidValueError
from wkdask.external.arrays.found import Asked, Found, Part, refuse_packed, shown_error
from wkdask.storage.protocol import Voxels

__all__ = ["PlainVoxels", "npy_found", "plain_part", "raw_found"]

_WINDOW = 64
"""Sides of what is read at once, at least: voxels are read row by row."""


@dataclass(frozen=True, slots=True)
class PlainVoxels:
    """An array in a file, uncompressed."""

    path: str
    """The file."""
    offset: int
    """Bytes before its first voxel."""
    shape: tuple[int, ...]
    """Its shape."""
    dtype: str
    """Type of a voxel, with its byte order."""
    order: str
    """``"C"`` or ``"F"``."""

    def read(self, index: tuple[slice, ...]) -> Voxels:
        """Return a part, in the byte order of this machine."""
        voxels = np.memmap(
            self.path, self.dtype, "r", self.offset, self.shape, "F" if self.order == "F" else "C"
        )
        part = np.array(voxels[index])
        return part.astype(part.dtype.newbyteorder("="), copy=False)


def plain_part(reader: PlainVoxels) -> Part:
    """Return an array in a file, checked for its size.

    Raises
    ------
    DamagedHeaderError
        If the file is shorter than its voxels.
    """
    dtype, shape = np.dtype(reader.dtype), reader.shape
    needed, there = reader.offset + math.prod(shape) * dtype.itemsize, os.stat(reader.path).st_size
    if there < needed:
        raise DamagedHeaderError(
            f"{reader.path} is cut off: its {dtype.name} voxels of shape {shape} end at byte {needed}, and "
            f"it has {there}"
        )
    chunks = tuple(min(side, _WINDOW) for side in shape)
    return Part(reader.path, reader, shape, dtype.name, chunks)


def npy_found(path: str, inner: str, asked: Asked) -> Found:
    """Return what a ``.npy`` file says."""
    del inner, asked
    refuse_packed(path)
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
            offset = file.tell()
    except (ValueError, OSError, EOFError) as error:
        raise DamagedHeaderError(f"{path} cannot be read as .npy: {shown_error(error)}") from error
    if dtype.hasobject or dtype.fields is not None:
        raise InvalidValueError(f"{path} holds {dtype}, which are no voxels")
    reader = PlainVoxels(path, offset, tuple(map(int, shape)), dtype.str, "F" if fortran else "C")
    return Found((plain_part(reader),), None, None)


def raw_found(path: str, inner: str, asked: Asked) -> Found:
    """Return what a user says of a file of raw voxels.

    Raises
    ------
    InvalidValueError
        If shape or type are missing, or are not those of the file.
    """
    del inner
    if asked.shape is None or asked.dtype is None:
        raise InvalidValueError(
            f"{path} holds raw voxels, or is of a format that is not known: say what they are, shape= and "
            f"dtype= (--shape, "
            f"--dtype), such as --shape 100,512,512 --dtype uint8 --axes zyx"
        )
    dtype = np.dtype(asked.dtype).newbyteorder(">" if asked.big_endian else "<")
    reader = PlainVoxels(path, asked.skip, asked.shape, dtype.str, asked.order)
    part = plain_part(reader)
    needed, there = asked.skip + math.prod(asked.shape) * dtype.itemsize, os.stat(path).st_size
    if there > needed:
        raise InvalidValueError(
            f"{path} has {there} bytes, and {dtype.name} voxels of shape {asked.shape} from byte "
            f"{asked.skip} on end at "
            f"{needed}: give the right shape= and dtype= (--shape, --dtype), or skip={there - needed + asked.skip} "
            f"(--skip) if there is a header"
        )
    return Found((part,), None, None)
