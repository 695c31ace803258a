"""One Zarr array of any program: its axes told apart, its voxels read box by box as (c, x, y, z).

Most arrays are read by our own reader of Zarr mags, which is faster and names the damaged file. What that does not
know (flat arrays without z, filters, unusual codecs) is read by zarr-python.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wkdask.errors import (
    DamagedCubeError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    UnsupportedFormatError,
    WkdaskError,
)
from wkdask.fsio import checked_path
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.properties import PROPERTIES_FILE
from wkdask.storage.formats import format_of, open_mag
from wkdask.storage.protocol import DTYPES, ArraySpec, StoredMag, Voxels, empty_block

__all__ = ["ZarrArray", "is_zarr", "open_zarr_array", "read_json"]

_FILES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_USUAL_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}
"""The axes of an array that does not name them: the order of OME-Zarr."""
_LETTERS = {"time": "t", "channel": "c"}
_CHUNKS_AT_ONCE = 10
"""So many chunks zarr-python decodes at a time."""


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """A Zarr array of up to five axes; plain data, made by `open_zarr_array`."""

    path: str
    """The absolute, real path of its folder."""
    axes: str
    """A letter for each dimension: t (of length 1), c, z, y, x in any order; x and y are there."""
    are_assumed: bool
    """Whether nobody said so."""
    size: Vec3Int
    """Extent along (x, y, z); 1 along z where there is no such axis."""
    spec: ArraySpec
    """Type, channels and cut."""
    store: StoredMag | None
    """Our own reader; None where zarr-python reads the array."""
    chunk_nbytes: int
    """Bytes of a decoded chunk, with all the channels in it."""
    channel: int | None = None
    """The channel that is read; None for all."""

    def one_channel(self, number: int) -> ZarrArray:
        """Return one channel of the array; zarr-python reads it, which passes over the chunks of others.

        Raises
        ------
        InvalidValueError
            If there is none of that number.
        """
        if not 0 <= number < self.spec.num_channels:
            raise InvalidValueError(
                f"{self.path} has {self.spec.num_channels} channel(s), and no channel {number}"
            )
        return replace(self, spec=replace(self.spec, num_channels=1), store=None, channel=number)

    @property
    def chunk(self) -> Vec3Int:
        """Voxels (x, y, z) that are decoded together."""
        return self.spec.chunk_shape

    @property
    def decoding_nbytes(self) -> int:
        """Bytes that decoding takes beside the voxels that are read: chunks, and what they are in the file."""
        return (
            2 * self.chunk.prod() * self.spec.bytes_per_voxel * (_CHUNKS_AT_ONCE if self.store is None else 1)
        )

    def read(self, box: BoundingBox, threads: int = 1) -> Voxels:
        """Return the voxels of a box, ``(c, *box.size)`` in Fortran order.

        Parameters
        ----------
        box
            In voxels of the array; inside of it.
        threads
            How many chunks may be decoded at a time.

        Raises
        ------
        DamagedCubeError
            If they cannot be read; names the file, or the array.
        """
        if self.store is not None:
            return self.store.read(box, threads)
        spans = dict(zip("xyz", box.to_slices(), strict=True))
        fixed = {"t": 0} if self.channel is None else {"t": 0, "c": self.channel}
        index = tuple(fixed.get(axis, spans.get(axis, slice(None))) for axis in self.axes)
        import zarr

        try:
            # Opened anew: it takes a millisecond, and a block is read for many.
            block = np.asarray(zarr.open_array(self.path, mode="r")[index])
        except (WkdaskError, MemoryError):
            raise
        except Exception as error:  # codecs raise whatever they stumble over
            raise DamagedCubeError(
                f"{self.path}: cannot read the voxels {box}: {type(error).__name__}: {error}"
            ) from error
        left = "".join(axis for axis in self.axes if axis not in fixed)
        for axis in "zc":
            if axis not in left:
                left, block = axis + left, block[None]
        out = empty_block(self.spec, box)
        out[...] = block.transpose([left.index(axis) for axis in "cxyz"])
        return out


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is the folder of a Zarr array or group."""
    return any(os.path.isfile(os.path.join(path, name)) for name in _FILES)


def read_json(path: str) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one where there is no file.

    Raises
    ------
    DamagedHeaderError
        If it is no JSON object.
    """
    try:
        with open(path, "rb") as file:
            content = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedHeaderError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DamagedHeaderError(f"{path} holds no JSON object")
    return content


def open_zarr_array(path: str | os.PathLike[str], axes: str | None = None) -> ZarrArray:
    """Open an array by its metadata; no voxel is read.

    Parameters
    ----------
    path
        Its folder.
    axes
        A letter for each of its dimensions; by default the names that it gives them (``dimension_names``, or
        xarray's ``_ARRAY_DIMENSIONS``), else ``yx``, ``zyx``, ``czyx`` or ``tczyx``.

    Raises
    ------
    DamagedHeaderError
        If it is no array, or its metadata are damaged.
    DTypeError, UnsupportedFormatError
        If a layer cannot hold its voxels, or it has more than one time point.
    InvalidValueError
        If the axes are not those of the array.
    """
    folder = os.path.realpath(checked_path(path))
    data_format = format_of(folder)
    if data_format not in ("zarr3", "zarr"):
        raise DamagedHeaderError(f"{folder} is no Zarr array: it holds neither zarr.json nor .zarray")
    try:
        import zarr

        array = zarr.open_array(folder, mode="r")
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        chunks, shards = tuple(array.chunks), tuple(array.shards or array.chunks)
    except Exception as error:  # zarr-python raises whatever it stumbles over
        raise DamagedHeaderError(
            f"{folder} cannot be opened as a Zarr array: {type(error).__name__}: {error}"
        ) from error
    found = None if axes is not None else _named_axes(folder, data_format, len(shape))
    letters = _checked_axes(folder, axes or found or _assumed_axes(folder, shape), shape)
    if dtype.name not in DTYPES:
        raise DTypeError(f"{folder}: a layer cannot hold {dtype}; known types are {', '.join(DTYPES)}")

    def per_axis(lengths: Sequence[int]) -> Vec3Int:
        known = dict(zip(letters, lengths, strict=True))
        return Vec3Int(*(known.get(axis, 1) for axis in "xyz"))

    if 0 in shape:
        raise UnsupportedFormatError(f"{folder} has the shape {shape}: it holds no voxel")
    channels = shape[letters.index("c")] if "c" in letters else 1
    spec = ArraySpec(dtype.name, channels, per_axis(chunks), per_axis(shards), None, data_format)
    store = _own_reader(folder, data_format, letters)
    chunk_nbytes = math.prod(chunks) * dtype.itemsize
    return ZarrArray(folder, letters, (axes or found) is None, per_axis(shape), spec, store, chunk_nbytes)


def _own_reader(folder: str, data_format: str, letters: str) -> StoredMag | None:
    """Return the array as a mag, if our reader knows its kind."""
    order = {axis: n for n, axis in enumerate(letters) if axis != "t"}
    try:
        return open_mag(folder, data_format, {"axisOrder": order})
    except WkdaskError:  # zarr-python could open it, so that it is not damaged
        return None


def _named_axes(folder: str, data_format: str, ndim: int) -> str | None:
    """Return the axes that an array names; None if it does not."""
    if data_format == "zarr3":
        content = read_json(os.path.join(folder, "zarr.json"))
        names = content.get("dimension_names") or content.get("attributes", {}).get("_ARRAY_DIMENSIONS")
    else:
        names = read_json(os.path.join(folder, ".zattrs")).get("_ARRAY_DIMENSIONS")
    if not isinstance(names, list) or len(names) != ndim or not all(isinstance(name, str) for name in names):
        return None
    letters = [_LETTERS.get(name.lower(), name.lower()) for name in names]
    return "".join(letters) if all(letter in tuple("tczyx") for letter in letters) else None


def _assumed_axes(folder: str, shape: tuple[int, ...]) -> str:
    """Return the usual axes of an array that names none."""
    mag_of = os.path.dirname(os.path.dirname(folder))
    if os.path.isfile(os.path.join(mag_of, PROPERTIES_FILE)):
        raise InvalidValueError(
            f"{folder} is a mag of the WEBKNOSSOS dataset {mag_of}, which tells its axes; convert its layer, "
            f"{os.path.dirname(folder)}, or name the axes (--axes), such as cxyz"
        )
    usual = _USUAL_AXES.get(len(shape))
    if usual is None:
        raise InvalidValueError(
            f"{folder} has the shape {shape}; which axis is which? Name a letter of t, c, z, y, x for each (--axes)"
        )
    return usual


def _checked_axes(folder: str, axes: str, shape: tuple[int, ...]) -> str:
    """Refuse axes that cannot be those of an array."""
    letters = axes.lower()
    if len(letters) != len(shape) or set(letters) - set("tczyx") or len(set(letters)) < len(letters):
        raise InvalidValueError(
            f"{folder} has the shape {shape}; its axes are as many different letters of t, c, z, y, x, got {axes!r}"
        )
    if not {"x", "y"} <= set(letters):
        raise InvalidValueError(f"{folder} has the axes {axes!r}; an image has x and y")
    if "t" in letters and shape[letters.index("t")] != 1:
        raise UnsupportedFormatError(
            f"{folder} has {shape[letters.index('t')]} time points (axes {letters}, shape {shape}); a layer holds "
            f"one: save the one that is meant as an array of its own"
        )
    return letters
