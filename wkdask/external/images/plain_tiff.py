"""Plain TIFFs that differ in nothing but their pixels: one is parsed, the others are compared with it.

A stack is thousands of files that one program wrote, alike byte for byte around the pixels. Parsing each of
them, to check the stack and again to decode it, took longer than reading all of their pixels::

    file      |  header, tags  |  pixels, row by row  |  tags, metadata  |
    Frame     |     before     |                      |      after       |

What a parser says of one file is true of every file with the same frame, which is compared anew whenever a
file is read. A file with another frame is parsed. Of a stack there is one frame, that of its first file.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "frame_of"]

_FRAME_NBYTES = 64 << 10
"""A larger frame is not kept: it is compared for every file, and travels with the tasks."""
_POINTERS = {330, 34665, 34853, 40965}
"""Tags that point to further directories, anywhere in the file: SubIFDs, Exif, GPS, interoperability."""


@dataclass(frozen=True, slots=True)
class Frame:
    """All bytes of a TIFF around the pixels of its one image, and what a parser said of them."""

    suffix: str
    """Of the file that was parsed, with its dot: a parser may look at it."""
    before: bytes
    """From the start of the file to the first pixel."""
    after: bytes
    """From the last pixel to the end of the file."""
    shape: tuple[int, ...]
    """Rows and columns, and the samples of a pixel where there are several."""
    dtype: str
    """With its byte order, as in the file: ``"<u2"``."""

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def surrounds(self, path: str) -> bool:
        """Return whether this is all that a file holds beside its pixels."""
        if os.path.splitext(path)[1] != self.suffix:
            return False
        with open(path, "rb", buffering=0) as file:
            return self._is_in(file)

    def _is_in(self, file: BinaryIO) -> bool:
        """Compare size, start and end of an open file."""
        stop = len(self.before) + self.nbytes
        if os.fstat(file.fileno()).st_size != stop + len(self.after):
            return False
        start = os.pread(file.fileno(), len(self.before), 0)
        return start == self.before and os.pread(file.fileno(), len(self.after), stop) == self.after

    def read(self, path: str, window: tuple[slice, slice] | None = None) -> NDArray[Any] | None:
        """Read the image of a file that has this frame.

        Parameters
        ----------
        path
            The file.
        window
            Only these rows and columns, within the image; all by default. Other rows are not read.

        Returns
        -------
        numpy.ndarray or None
            Shape (rows, columns) or (rows, columns, samples), native byte order; None if the file does not have
            this frame, or not any more.
        """
        rows, columns = window or (slice(0, self.shape[0]), slice(None))
        image = np.empty((rows.stop - rows.start, *self.shape[1:]), self.dtype)
        row_nbytes = self.nbytes // self.shape[0]
        with open(path, "rb") as file:  # buffered: continues after a short read, straight into the array
            if not self._is_in(file):
                return None
            file.seek(len(self.before) + rows.start * row_nbytes)
            if file.readinto(image.reshape(-1).view(np.uint8)) != image.nbytes:
                return None
        if not image.dtype.isnative:
            image = image.byteswap(inplace=True).view(image.dtype.newbyteorder("="))
        return image[:, columns]


def frame_of(path: str, tiff: Any, page: Any) -> Frame | None:
    """Return the frame of a parsed file that holds one image.

    Parameters
    ----------
    path
        The file.
    tiff
        It, opened by `tifffile.TiffFile`.
    page
        Its only page, all of whose data are known to be in the file.

    Returns
    -------
    Frame or None
        None if the image is not stored plainly, row by row, or what is parsed may lie between its pixels.
    """
    if not page.is_final or page.is_tiled or page.axes not in ("YX", "YXS"):
        return None
    start = page.dataoffsets[0]
    stop, size = start + page.nbytes, tiff.filehandle.size
    if start + size - stop > _FRAME_NBYTES:
        return None
    tags = page.tags.values()
    parsed = [(page.offset, max(tag.offset for tag in tags) + tiff.tiff.tagsize + tiff.tiff.offsetsize)]
    parsed += [(tag.valueoffset, tag.valueoffset + tag.valuebytecount) for tag in tags]
    if any(start < end and begin < stop for begin, end in parsed) or _POINTERS & {tag.code for tag in tags}:
        return None
    with open(path, "rb") as file:
        before = file.read(start)
        file.seek(stop)
        after = file.read(size - stop)
    dtype = page.dtype.newbyteorder(tiff.byteorder)
    return Frame(os.path.splitext(path)[1], before, after, tuple(page.shape), dtype.str)
