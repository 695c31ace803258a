"""What arrays of other programs have in common, however they are stored: a layer's mag is filled from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wkdask.errors import DTypeError, InvalidValueError, UnsupportedFormatError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.storage.protocol import DTYPES, ArraySpec, Voxels, empty_block

__all__ = [
    "WIDENED",
    "ForeignArray",
    "Scale",
    "cast_voxels",
    "check_axes",
    "check_cast",
    "check_channel",
    "in_layer_order",
]

WIDENED = {"bool": "uint8", "float16": "float32"}
"""Types that layers do not have, and the smallest one that holds them."""


class ForeignArray(Protocol):
    """An array that another program stored; plain data, whose voxels are read box by box as (c, x, y, z)."""

    @property
    def path(self) -> str:
        """Where it is, absolute, in words that name it alone."""

    @property
    def axes(self) -> str:
        """A letter for each dimension: t (of length 1), c, z, y, x in any order; x and y are there."""

    @property
    def size(self) -> Vec3Int:
        """Extent along (x, y, z)."""

    @property
    def spec(self) -> ArraySpec:
        """Type of the voxels that are read, channels and cut."""

    @property
    def stored(self) -> str:
        """Type of the voxels as they are stored."""

    @property
    def channel(self) -> int | None:
        """The channel that is read; None for all."""

    @property
    def is_mask(self) -> bool:
        """Whether the voxels must be 0 and 1."""

    @property
    def has_chunks(self) -> bool:
        """Whether there is any chunk; else all voxels are the fill value."""

    @property
    def how(self) -> str:
        """How its bytes become voxels, as far as nothing else here says so: another way is another job."""

    @property
    def chunk(self) -> Vec3Int:
        """Voxels (x, y, z) that are decoded together."""

    @property
    def stored_nbytes(self) -> int:
        """Bytes of one voxel as it is stored, all channels."""

    @property
    def decoding_nbytes(self) -> int:
        """Bytes that decoding takes beside the voxels that are read."""

    def as_dtype(self, dtype: str) -> ForeignArray:
        """Return the array read as another type, of which each voxel is checked when it is read."""

    def one_channel(self, number: int) -> ForeignArray:
        """Return one channel of the array."""

    def read(self, box: BoundingBox, threads: int = 1) -> Voxels:
        """Return the voxels of a box inside of it, ``(c, *box.size)`` in Fortran order."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One array, and the mag that it becomes."""

    mag: Mag
    """Which one."""
    array: ForeignArray
    """Where its voxels are."""
    corner: Vec3Int
    """Where the array's first voxel goes: absolute, in voxels of the mag."""
    box: BoundingBox
    """What is taken: absolute, in voxels of the mag."""


def check_cast(array: ForeignArray, dtype: str) -> None:
    """Refuse a type that an array cannot be read as.

    Raises
    ------
    DTypeError
        If a layer cannot hold it, or it cannot hold every value of the stored type.
    """
    if dtype not in DTYPES:
        raise DTypeError(f"a layer cannot hold {dtype}; known types are {', '.join(DTYPES)}")
    kind = np.dtype(dtype).kind
    if kind == "f" and np.dtype(array.stored).kind != "f" and not np.can_cast(array.stored, dtype, "safe"):
        raise DTypeError(f"{array.path} holds {array.stored}, and {dtype} cannot hold every {array.stored}")


def check_axes(path: str, axes: str, shape: tuple[int, ...]) -> str:
    """Return the axes of an array as small letters; refuse those that cannot be its axes.

    Raises
    ------
    InvalidValueError, UnsupportedFormatError
        If they cannot be.
    """
    letters = axes.lower()
    if len(letters) != len(shape) or set(letters) - set("tczyx") or len(set(letters)) < len(letters):
        raise InvalidValueError(
            f"{path} has the shape {shape}; its axes are as many different letters of t, c, z, y, x, got {axes!r}"
        )
    if not {"x", "y"} <= set(letters):
        raise InvalidValueError(f"{path} has the axes {axes!r}; an image has x and y")
    if "t" in letters and shape[letters.index("t")] != 1:
        raise UnsupportedFormatError(
            f"{path} has {shape[letters.index('t')]} time points (axes {letters}, shape {shape}); a layer holds "
            f"one: save the one that is meant as an array of its own"
        )
    return letters


def check_channel(array: ForeignArray, number: int) -> None:
    """Refuse a channel that an array does not have.

    Raises
    ------
    InvalidValueError
        If there is none of that number.
    """
    if not 0 <= number < array.spec.num_channels:
        raise InvalidValueError(
            f"{array.path} has {array.spec.num_channels} channel(s), and no channel {number}"
        )


def in_layer_order(array: ForeignArray, block: Voxels, axes: str, box: BoundingBox) -> Voxels:
    """Return what was read of an array as ``(c, x, y, z)``, in Fortran order and in the type that is wanted.

    Parameters
    ----------
    array
        The array.
    block
        What was read.
    axes
        Its axes: of c, z, y, x; x and y are there.
    box
        Which voxels these are.

    Raises
    ------
    DTypeError
        If the type that is wanted does not hold one of them; names it.
    """
    for axis in "zc":
        if axis not in axes:
            axes, block = axis + axes, block[None]
    block = block.transpose([axes.index(axis) for axis in "cxyz"])
    if array.spec.dtype != block.dtype.name:
        return cast_voxels(array, block, box)
    out = empty_block(array.spec, box)
    out[...] = block
    return out


def cast_voxels(array: ForeignArray, block: Voxels, box: BoundingBox) -> Voxels:
    """Return voxels (c, x, y, z) in the type that is wanted; integers exactly, floats rounded.

    Raises
    ------
    DTypeError
        If that does not hold one of them; names it.
    """
    out = empty_block(array.spec, box)
    for z in range(box.size.z):  # what is compared takes room too
        wrong = _put(array, block[..., z], out[..., z])
        if wrong.any():
            channel, x, y = (int(n[0]) for n in np.nonzero(wrong))
            where = Vec3Int(x, y, z) + box.topleft
            kind = "a mask of 0 and 1" if array.is_mask else array.spec.dtype
            value = block[channel, x, y, z]
            raise DTypeError(
                f"{array.path} holds {value} at voxel {where.to_tuple()}, which {kind} cannot hold"
            )
    return out


def _put(array: ForeignArray, section: Voxels, out: Voxels) -> Any:
    """Write a section in another type, and return which of its voxels that does not hold."""
    with np.errstate(invalid="ignore", over="ignore"):
        out[...] = section
        if out.dtype.kind == "f":
            return np.isinf(out) & np.isfinite(section)
        if section.dtype.kind == "b":
            return np.zeros((), bool)
        top = 1 if array.is_mask else int(np.iinfo(out.dtype).max)
        low = int(np.iinfo(out.dtype).min)
        return (section < low) | (section >= top + 1) | (out.astype(section.dtype) != section)
