"""One Zarr array of any program: its axes identified, its voxels read box by box as (c, x, y, z).

Most arrays are read by our own reader of Zarr mags, which is faster and names the damaged file. What that does not
know (flat arrays without z, filters, unusual codecs) is read by zarr-python.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wkdask.errors import (
    DamagedCubeError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    UnsupportedFormatError,
    WkdaskError,
)
from wkdask.external.foreign import (
    WIDENED,
    cast_voxels,
    check_axes,
    check_cast,
    check_channel,
    in_layer_order,
)
from wkdask.external.zarr.store import first_chunk, in_zip, is_file, left_out_chunk, open_array, read_json
from wkdask.fsio import checked_path
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.properties import PROPERTIES_FILE
from wkdask.storage.formats import open_mag
from wkdask.storage.protocol import DTYPES, ArraySpec, StoredMag, Voxels
from wkdask.storage.zarr.layout import METADATA_NAMES

__all__ = ["ZarrArray", "named_axes", "open_zarr_array"]

_USUAL_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}
"""The axes of an array that does not name them: the order of OME-Zarr."""
_LETTERS = {
    "time": "t", "channel": "c", "channels": "c", "depth": "z", "plane": "z", "height": "y", "row": "y",
    "width": "x", "column": "x", "col": "x",
}  # fmt: skip
"""Names of dimensions that are no letters."""
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
    """Whether this was guessed."""
    size: Vec3Int
    """Extent along (x, y, z); 1 along z where there is no such axis."""
    spec: ArraySpec
    """Type of the voxels that are read, channels and cut."""
    stored: str
    """Type of the voxels as they are stored; where it is another one, each voxel is checked on its way."""
    store: StoredMag | None
    """Our own reader; None where zarr-python reads the array."""
    chunk_nbytes: int
    """Bytes of a decoded chunk, with all the channels in it."""
    has_chunks: bool
    """Whether there is any chunk; else all voxels are the fill value."""
    notes: tuple[str, ...]
    """What is not read of it, or not as it is stored."""
    channel: int | None = None
    """The channel that is read; None for all."""
    is_mask: bool = False
    """Whether the voxels must be 0 and 1."""

    def as_dtype(self, dtype: str) -> ZarrArray:
        """Return the array read as another type, of which each voxel is checked when it is read.

        Raises
        ------
        DTypeError
            If a layer cannot hold it.
        """
        check_cast(self, dtype)
        return replace(self, spec=replace(self.spec, dtype=dtype))

    def as_mask(self) -> ZarrArray:
        """Return the array read as uint8, and refused if a voxel is neither 0 nor 1."""
        return replace(self.as_dtype("uint8"), is_mask=True)

    def one_channel(self, number: int) -> ZarrArray:
        """Return one channel of the array; zarr-python reads it, which passes over the chunks of others.

        Raises
        ------
        InvalidValueError
            If there is none of that number.
        """
        check_channel(self, number)
        return replace(self, spec=replace(self.spec, num_channels=1), store=None, channel=number)

    @property
    def how(self) -> str:
        """Nothing: all is in the metadata of the array."""
        return ""

    @property
    def chunk(self) -> Vec3Int:
        """Voxels (x, y, z) that are decoded together."""
        return self.spec.chunk_shape

    @property
    def stored_nbytes(self) -> int:
        """Bytes of one voxel as it is stored, all channels."""
        return self.spec.num_channels * np.dtype(self.stored).itemsize

    @property
    def decoding_nbytes(self) -> int:
        """Bytes that decoding takes beside the voxels that are read: chunks, and what they are in the file."""
        return 2 * self.chunk.prod() * self.stored_nbytes * (_CHUNKS_AT_ONCE if self.store is None else 1)

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
        DTypeError
            If another type than the stored one is wanted, and it does not hold a voxel; names that.
        """
        if self.store is not None:
            block = self.store.read(box, threads)
            return block if self.spec.dtype == self.stored else cast_voxels(self, block, box)
        spans = dict(zip("xyz", box.to_slices(), strict=True))
        fixed = {"t": 0} if self.channel is None else {"t": 0, "c": self.channel}
        index = tuple(fixed.get(axis, spans.get(axis, slice(None))) for axis in self.axes)
        try:
            # Opened anew: it takes a millisecond, and a block is read for many.
            block = np.asarray(open_array(self.path)[index])
        except (WkdaskError, MemoryError):
            raise
        except Exception as error:  # codecs raise whatever they stumble over
            raise DamagedCubeError(
                f"{self.path}: cannot read the voxels {box}: {type(error).__name__}: {error}"
            ) from error
        return in_layer_order(self, block, "".join(axis for axis in self.axes if axis not in fixed), box)


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
    data_format = _format_of(folder)
    try:
        array = open_array(folder)
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        chunks, shards = tuple(array.chunks), tuple(array.shards or array.chunks)
        stored = _stored_chunks(folder)
        key, attributes = array.metadata.encode_chunk_key((0,) * len(shape)), array.attrs.asdict()
    except Exception as error:  # zarr-python raises whatever it stumbles over
        raise DamagedHeaderError(
            f"{folder} cannot be opened as a Zarr array: {type(error).__name__}: {error}"
        ) from error
    found = None if axes is not None else named_axes(folder, data_format, len(shape))
    letters = check_axes(folder, axes or found or _assumed_axes(folder, shape), shape)
    kind = WIDENED.get(dtype.name, dtype.name)
    if kind not in DTYPES:
        known = ", ".join((*WIDENED, *DTYPES))
        raise DTypeError(f"{folder}: a layer cannot hold {dtype}; known types are {known}")

    def per_axis(lengths: Sequence[int]) -> Vec3Int:
        known = dict(zip(letters, lengths, strict=True))
        return Vec3Int(*(known.get(axis, 1) for axis in "xyz"))

    if min(*chunks, *shards, *stored) < 1:
        raise DamagedHeaderError(f"{folder} has chunks of {chunks} in files of {stored} voxels")
    if 0 in shape:
        raise UnsupportedFormatError(f"{folder} has the shape {shape}: it holds no voxel")
    separator = "/" if "/" in key else "."
    prefix = f"c{separator}" if key.startswith("c") else ""
    there = first_chunk(folder, len(shape), prefix, separator)
    counts = [-(-length // side) for length, side in zip(shape, shards, strict=True)]
    notes = []
    if there is None:
        notes.append(f"{folder} has no chunk files: all its voxels are its fill value")
    elif (other := left_out_chunk(folder, counts, prefix, separator)) is not None:
        notes.append(
            f"{folder} has chunk files, such as {other}, that lie beyond its shape {shape} or have other names "
            f"than {there}: they are left out"
        )
    if kind != dtype.name:
        notes.append(f"{folder} holds {dtype.name}, which is stored as {kind}")
    calibration = {key: attributes[key] for key in ("scale_factor", "add_offset") if key in attributes}
    if calibration:
        notes.append(f"{folder} has the calibration {calibration!r:.100}, which is not applied to its voxels")
    channels = shape[letters.index("c")] if "c" in letters else 1
    return ZarrArray(
        path=folder,
        axes=letters,
        are_assumed=(axes or found) is None,
        size=per_axis(shape),
        spec=ArraySpec(kind, channels, per_axis(chunks), per_axis(shards), None, data_format),
        stored=dtype.name,
        store=_own_reader(folder, data_format, letters),
        chunk_nbytes=math.prod(chunks) * dtype.itemsize,
        has_chunks=there is not None,
        notes=tuple(notes),
    )


def _format_of(folder: str) -> str:
    """Return the format of an array, by the file that holds its metadata."""
    for data_format, name in METADATA_NAMES.items():
        if is_file(f"{folder}/{name}"):
            return data_format
    consolidated = os.path.dirname(folder)
    hint = ""
    if is_file(f"{consolidated}/.zmetadata") or "consolidated_metadata" in read_json(
        f"{consolidated}/zarr.json"
    ):
        hint = (
            f": its metadata are only in those that {consolidated} consolidates. Write them beside the array, as "
            f"they are there under its name"
        )
    raise DamagedHeaderError(f"{folder} is no Zarr array: it holds neither zarr.json nor .zarray{hint}")


def _own_reader(folder: str, data_format: str, letters: str) -> StoredMag | None:
    """Return the array as a mag, if our reader knows its kind."""
    if in_zip(folder) is not None:
        return None
    order = {axis: n for n, axis in enumerate(letters) if axis != "t"}
    try:
        return open_mag(folder, data_format, {"axisOrder": order})
    except WkdaskError:  # zarr-python could open it, so that it is not damaged
        return None


def named_axes(folder: str, data_format: str, ndim: int) -> str | None:
    """Return the axes that an array names; None if it does not.

    Raises
    ------
    InvalidValueError
        If it names others than are known.
    """
    if data_format == "zarr3":
        content = read_json(os.path.join(folder, "zarr.json"))
        attributes = content.get("attributes")
        names = content.get("dimension_names")
        if not names and isinstance(attributes, dict):
            names = attributes.get("_ARRAY_DIMENSIONS")
    else:
        names = read_json(os.path.join(folder, ".zattrs")).get("_ARRAY_DIMENSIONS")
    if not isinstance(names, list) or len(names) != ndim:
        return None
    if all(name is None or re.fullmatch(r"|dim_?[0-9]+", str(name)) for name in names):  # xarray's for none
        return None
    letters = [_LETTERS.get(str(name).lower(), str(name).lower()) for name in names]
    if any(letter not in tuple("tczyx") for letter in letters):
        raise InvalidValueError(
            f"{folder} calls its dimensions {', '.join(map(str, names))}; which axis is which? Name a letter of "
            f"t, c, z, y, x for each (--axes)"
        )
    return "".join(letters)


def _assumed_axes(folder: str, shape: tuple[int, ...]) -> str:
    """Return the usual axes of an array that names none."""
    mag_of = os.path.dirname(os.path.dirname(folder))
    if os.path.isfile(os.path.join(mag_of, PROPERTIES_FILE)):
        raise InvalidValueError(
            f"{folder} is a mag of the WEBKNOSSOS dataset {mag_of}, which names its axes; convert its layer, "
            f"{os.path.dirname(folder)}, or name the axes (--axes), such as cxyz"
        )
    usual = _USUAL_AXES.get(len(shape))
    colours = len(shape) > 2 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 4
    if usual is None or colours:
        last = f", the last of which may be {shape[-1]} colours" if colours else ""
        raise InvalidValueError(
            f"{folder} has the shape {shape}{last}; which axis is which? Name a letter of t, c, z, y, x for "
            f"each (--axes)"
        )
    return usual


def _stored_chunks(folder: str) -> tuple[int, ...]:
    """Return the sides of a file as the metadata have them: zarr-python reads a side of 0 as 1 since 3.4."""
    raw = read_json(os.path.join(folder, "zarr.json")) or read_json(os.path.join(folder, ".zarray"))
    grid = raw["chunk_grid"]["configuration"]["chunk_shape"] if "chunk_grid" in raw else raw["chunks"]
    return tuple(side for sides in grid for side in (sides if isinstance(sides, list) else [sides]))
