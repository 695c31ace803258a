"""An array in a file as what every foreign array is: read box by box as (c, x, y, z)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from wkdask.errors import DamagedCubeError, DTypeError, UnsupportedFormatError, WkdaskError
from wkdask.external.arrays.found import Part, VoxelReader, shown_error
from wkdask.external.foreign import WIDENED, check_axes, check_cast, check_channel, in_layer_order
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import DTYPES, ArraySpec, Voxels

__all__ = ["FileArray", "file_array"]


@dataclass(frozen=True, slots=True)
class FileArray:
    """An array in a file, made by `file_array`; see :class:`~wkdask.external.foreign.ForeignArray`."""

    path: str
    """The file, and the array in it where it has several."""
    axes: str
    """A letter for each dimension."""
    size: Vec3Int
    """Extent along (x, y, z)."""
    spec: ArraySpec
    """Type of the voxels that are read, channels and cut."""
    stored: str
    """Type of the voxels as they are stored."""
    reader: VoxelReader
    """Opens the file, on the worker."""
    at_once: int
    """Chunks that are decoded at a time."""
    channel: int | None = None
    """The channel that is read; None for all."""

    is_mask = False
    has_chunks = True

    @property
    def how(self) -> str:
        """What reads it, and of raw voxels what a user said of them."""
        return repr(self.reader)

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
        return 2 * self.chunk.prod() * self.stored_nbytes * self.at_once

    def as_dtype(self, dtype: str) -> FileArray:
        """Return the array read as another type, of which each voxel is checked when it is read."""
        check_cast(self, dtype)
        return replace(self, spec=replace(self.spec, dtype=dtype))

    def one_channel(self, number: int) -> FileArray:
        """Return one channel of the array.

        Raises
        ------
        InvalidValueError
            If there is none of that number.
        """
        check_channel(self, number)
        return replace(self, spec=replace(self.spec, num_channels=1), channel=number)

    def read(self, box: BoundingBox, threads: int = 1) -> Voxels:
        """Return the voxels of a box inside of it, ``(c, *box.size)`` in Fortran order.

        Raises
        ------
        DamagedCubeError
            If they cannot be read; names the file.
        DTypeError
            If another type than the stored one is wanted, and it does not hold a voxel; names that.
        """
        del threads
        spans = dict(zip("xyz", box.to_slices(), strict=True))
        first, count = (0, self.spec.num_channels) if self.channel is None else (self.channel, 1)
        fixed = {"t": slice(0, 1), "c": slice(first, first + count)}
        index = tuple(spans.get(axis, fixed.get(axis, slice(None))) for axis in self.axes)
        try:
            block = self.reader.read(index)
        except (WkdaskError, MemoryError):
            raise
        except Exception as error:  # libraries raise whatever they stumble over
            raise DamagedCubeError(
                f"{self.path}: cannot read the voxels {box}: {shown_error(error)}"
            ) from error
        if "t" in self.axes:
            block = block.take(0, self.axes.index("t"))
        return in_layer_order(self, block, self.axes.replace("t", ""), box)


def file_array(part: Part, axes: str) -> FileArray:
    """Return an array of a file along axes.

    Parameters
    ----------
    part
        What the format says of it.
    axes
        A letter for each of its dimensions.

    Raises
    ------
    InvalidValueError, UnsupportedFormatError, DTypeError
        If it cannot be a layer.
    """
    letters = check_axes(part.path, axes, part.shape)
    kind = WIDENED.get(part.dtype, part.dtype)
    if kind not in DTYPES:
        known = ", ".join((*WIDENED, *DTYPES))
        raise DTypeError(f"{part.path}: a layer cannot hold {part.dtype}; known types are {known}")
    if math.prod(part.shape) == 0:
        raise UnsupportedFormatError(f"{part.path} has the shape {part.shape}: it holds no voxel")

    def per_axis(lengths: tuple[int, ...]) -> Vec3Int:
        known = dict(zip(letters, lengths, strict=True))
        return Vec3Int(*(known.get(axis, 1) for axis in "xyz"))

    channels = part.shape[letters.index("c")] if "c" in letters else 1
    chunk = per_axis(part.chunks).pairmax(1)
    spec = ArraySpec(kind, channels, chunk, chunk, None, "file")
    return FileArray(part.path, letters, per_axis(part.shape), spec, part.dtype, part.reader, part.at_once)
