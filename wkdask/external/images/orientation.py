"""How an image is to be turned, as its orientation tag says (TIFF tag 274, Exif): 1, as stored, to 8.

A window of a turned image is turned back, so that no more of a file is decoded than it touches.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from numpy.typing import NDArray

__all__ = ["ORIENTATIONS", "Window", "orientation_of", "stored_window", "swaps_axes", "turned"]

Window: TypeAlias = tuple[slice, slice]
"""Rows and columns, with start and stop."""

# (swap rows and columns, then reverse the rows, then the columns), and in words.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
ORIENTATIONS = {
    2: "mirrored left to right",
    3: "rotated by 180 degrees",
    4: "mirrored top to bottom",
    5: "transposed",
    6: "to be rotated by 90 degrees clockwise",
    7: "transposed along the other diagonal",
    8: "to be rotated by 90 degrees anticlockwise",
}
"""What an orientation says of an image as stored."""


def swaps_axes(orientation: int) -> bool:
    """Return whether rows become columns."""
    return _TURNS[orientation][0]


def orientation_of(*, flip_rows: bool, flip_columns: bool, swap: bool) -> int:
    """Return the orientation of an image whose rows, columns are reversed, and after that change places.

    Parameters
    ----------
    flip_rows, flip_columns
        Whether the last row becomes the first, and the last column.
    swap
        Whether rows then become columns.
    """
    turn = (True, flip_columns, flip_rows) if swap else (False, flip_rows, flip_columns)
    return next(value for value, each in _TURNS.items() if each == turn)


def turned(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of an image (rows, columns[, channels]) as its orientation says."""
    swap, rows, columns = _TURNS[orientation]
    image = image.swapaxes(0, 1) if swap else image
    return image[:: -1 if rows else 1, :: -1 if columns else 1]


def stored_window(window: Window, height: int, width: int, orientation: int) -> Window:
    """Return where a window of a turned image lies in the image as stored.

    Parameters
    ----------
    window
        Rows and columns of the turned image.
    height, width
        Extent of the turned image, pixels.
    orientation
        1 to 8.
    """
    swap, flip_rows, flip_columns = _TURNS[orientation]
    rows, columns = window
    if flip_rows:
        rows = slice(height - rows.stop, height - rows.start)
    if flip_columns:
        columns = slice(width - columns.stop, width - columns.start)
    return (columns, rows) if swap else (rows, columns)
