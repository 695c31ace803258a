"""What is taken of an image stack: a box of it, in another type where that is asked for.

A selection is to a conversion what the whole stack is: sections that are decoded when they are read. Nothing is
ever rescaled, and no value is lost, unless the user says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wkdask.errors import DTypeError, InvalidValueError, OutOfBoundsError
from wkdask.external.images.file import ImageFile, decoded_nbytes
from wkdask.external.images.info import shown
from wkdask.external.images.orientation import Window
from wkdask.external.images.stack import ImageStack, open_stack
from wkdask.geometry import BoundingBox

__all__ = ["Selection", "open_images", "select"]

_RESCALED = ("uint8", "uint16", "uint32")
"""The types that values can be rescaled to."""
_BAND_NBYTES = 4 << 20
"""Values of so many bytes are rescaled at a time."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A box of a stack, made by `select`; holds no pixels and no open files."""

    stack: ImageStack
    """The images."""
    box: BoundingBox
    """What is taken, in voxels of the stack."""
    dtype: str
    """Type of the voxels that are read."""
    rescale: tuple[float, float] | None
    """The values that become 0 and the largest of `dtype`; None: values stay as they are."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape as (c, x, y, z)."""
        return (self.stack.num_channels, *self.box.size)

    @property
    def num_channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self.stack.num_channels

    @property
    def depth(self) -> int:
        """Number of sections."""
        return self.box.size.z

    @property
    def window(self) -> Window | None:
        """Rows and columns that are taken; None: all."""
        low, high = self.box.topleft, self.box.bottomright
        whole = (low.x, low.y, high.x, high.y) == (0, 0, self.stack.width, self.stack.height)
        return None if whole else (slice(low.y, high.y), slice(low.x, high.x))

    @property
    def image_nbytes(self) -> int:
        """Bytes that a decoder holds for one section at most, before anything is cut from it."""
        stack, window = self.stack, self.window
        kinds = {
            (file.piece, file.orientation, file.edges): file
            for file in stack.sections
            if file.format != "missing"
        }
        return max(decoded_nbytes(file, stack.layout, window) for file in kinds.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, guessed or converted, in words."""
        return self.stack.notes

    @property
    def first_file(self) -> ImageFile:
        """The first file of the stack, for messages."""
        return self.stack.sections[0]

    @property
    def digest(self) -> str:
        """A short text that is the same for the same of the same files."""
        whole = select(self.stack)
        return (
            self.stack.digest
            if self == whole
            else f"{self.stack.digest} {self.box} {self.dtype} {self.rescale}"
        )

    def subset(self, z_start: int, z_stop: int) -> tuple[Selection, int]:
        """Only the files that hold some sections of the selection, and the number of the first of them in it."""
        corner = self.box.topleft.z
        stack, first = self.stack.subset(corner + z_start, corner + z_stop)
        box = BoundingBox(self.box.topleft.with_z(0), self.box.size.with_z(stack.depth))
        return replace(self, stack=stack, box=box), first

    def read(self, z_start: int, z_stop: int, *, threads: int = 1) -> NDArray[Any]:
        """Decode sections, each once.

        Parameters
        ----------
        z_start, z_stop : int
            Half-open range of the selection's sections.
        threads : int, default 1
            How many images are decoded at a time.

        Returns
        -------
        numpy.ndarray
            Shape (c, x, y, z), Fortran order, native byte order.

        Raises
        ------
        ImageStackError
            An image cannot be decoded, or is not what it was; names file and page.
        """
        corner = self.box.topleft.z
        out = np.zeros((*self.shape[:3], z_stop - z_start), self.dtype, order="F")
        table = None if self.rescale is None else _table(self.stack.dtype, self.dtype, self.rescale)

        def put(number: int, image: NDArray[Any]) -> None:
            # (y, x[, c]) in C order is (c, x, y) in Fortran order, so its transpose is a plain copy.
            target = out[..., number].T
            image = image.reshape(target.shape)
            if self.rescale is None:
                target[...] = image
            elif table is not None:
                np.take(table, image.view(f"u{image.itemsize}"), out=target, mode="clip")
            else:
                _rescale(image, target, self.rescale)

        self.stack.each(corner + z_start, corner + z_stop, put, threads=threads, window=self.window)
        return out


def select(
    stack: ImageStack,
    box: BoundingBox | None = None,
    dtype: str | None = None,
    rescale: Sequence[float] | None = None,
) -> Selection:
    """Select a part of a stack.

    Parameters
    ----------
    stack
        The images.
    box
        What is taken, in voxels of the stack; all by default.
    dtype
        Type of the voxels; as they are stored by default. Without `rescale` one that holds every value of theirs.
    rescale
        Two values: the first becomes 0, the second the largest of `dtype`, others in proportion, rounded; what is
        below or above is cut off there. Values that are no number become 0.

    Raises
    ------
    OutOfBoundsError
        If the box leaves the stack.
    DTypeError
        If the type cannot hold the values.
    InvalidValueError
        If `rescale` cannot work.
    """
    whole = BoundingBox((0, 0, 0), stack.shape[1:])
    if box is not None and (box.is_empty() or not whole.contains_bbox(box)):
        raise OutOfBoundsError(f"the box {box} is no part of the stack, which is {whole}")
    wanted = stack.dtype if dtype is None else dtype
    if rescale is None:
        if not _holds(wanted, stack.dtype):
            raise DTypeError(
                f"{shown(stack.sections[0].path)} holds {stack.dtype}, and {wanted} cannot hold all of its values; "
                f"say which values become 0 and the largest: rescale=(MIN, MAX) (--rescale MIN,MAX)"
            )
        return Selection(stack, box or whole, wanted, None)
    if dtype not in _RESCALED:
        raise InvalidValueError(
            f"rescale needs the type of its results, dtype= (--dtype), one of {', '.join(_RESCALED)}; got {dtype}"
        )
    values = tuple(map(float, rescale))
    if len(values) != 2 or not -np.inf < values[0] < values[1] < np.inf:
        raise InvalidValueError(
            f"rescale must be two numbers, the first below the second, such as 0,4095; got {rescale!r}"
        )
    return Selection(stack, box or whole, wanted, (values[0], values[1]))


def open_images(
    inputs: Sequence[str | Path] | str | Path,
    *,
    bbox: BoundingBox | None = None,
    dtype: str | None = None,
    rescale: Sequence[float] | None = None,
    gaps: str = "close",
    page: int | str | None = None,
    series: int | None = None,
    orient: bool = False,
    tiles: str = "refuse",
) -> Selection:
    """Open images and select what is to be converted, for :func:`wkdask.convert.images.convert_images`.

    Parameters
    ----------
    inputs, bbox, dtype, rescale, gaps, page, series, orient, tiles
        As there.

    Returns
    -------
    Selection
        Its `notes` say what was left out, guessed or converted; `stack.order` which files come first and last.

    Raises
    ------
    ImageStackError, OutOfBoundsError, DTypeError, InvalidValueError
        As there.
    """
    stack = open_stack(inputs, gaps=gaps, page=page, series=series, orient=orient, tiles=tiles)
    return select(stack, bbox, dtype, rescale)


def _holds(wanted: str, stored: str) -> bool:
    """Return whether a type holds every value of another."""
    try:
        return bool(np.can_cast(np.dtype(stored), np.dtype(wanted), "safe"))
    except TypeError:
        raise DTypeError(f"{wanted!r} is no type of voxels") from None


def _table(stored: str, wanted: str, rescale: tuple[float, float]) -> NDArray[Any] | None:
    """Return what each stored value becomes, by its bits; None for types of too many values."""
    kind = np.dtype(stored)
    if kind.kind == "f" or kind.itemsize > 2:
        return None
    values = np.arange(1 << 8 * kind.itemsize, dtype=f"u{kind.itemsize}").view(kind)
    table = np.empty(values.shape, wanted)
    _rescale(values, table, rescale)
    return table


def _rescale(source: NDArray[Any], target: NDArray[Any], rescale: tuple[float, float]) -> None:
    """Write rescaled values, some rows at a time: as numbers of eight bytes all would need much room."""
    (low, high), top = rescale, np.iinfo(target.dtype).max
    rows = max(1, _BAND_NBYTES // max(1, 8 * source[:1].size))
    for start in range(0, len(source), rows):
        values = source[start : start + rows].astype(np.float64)
        values -= low
        values *= top / (high - low)
        np.nan_to_num(values, copy=False, nan=0.0, posinf=float(top), neginf=0.0)
        target[start : start + rows] = np.clip(np.rint(values, out=values), 0, top, out=values)
