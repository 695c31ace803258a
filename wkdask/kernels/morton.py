"""Morton numbers: the order in which the blocks of a WKW cube lie in its file.

The number of a block has the bits of its place, interleaved: ``… z1 y1 x1 z0 y0 x0``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wkdask.kernels.layout import Block

__all__ = ["morton_numbers", "morton_places"]


def _spread(numbers: Block) -> Block:
    """Return numbers with two zero bits put between any two of their bits."""
    number = numbers.astype(np.uint64)
    for shift, mask in (
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        number = (number ^ (number << np.uint64(shift))) & np.uint64(mask)
    return number


def morton_numbers(low: Sequence[int], high: Sequence[int]) -> Block:
    """Return the Morton numbers of the blocks in a box, in their order in the file.

    Parameters
    ----------
    low, high : three integers (x, y, z)
        The first block, and the first outside along each axis, within the cube.

    Returns
    -------
    array of uint64
        Sorted; the blocks of an octant of the cube, or of an octant of that, follow each other without a gap.
    """
    x, y, z = (_spread(np.arange(first, last)) for first, last in zip(low, high, strict=True))
    y, z = y << np.uint64(1), z << np.uint64(2)
    codes: Block = (x | y[:, None] | z[:, None, None]).ravel()
    codes.sort()
    return codes


def morton_places(codes: Block) -> Block:
    """Return where the blocks of Morton numbers lie in the cube: (n, 3), x, y and z in blocks."""
    places = np.zeros((codes.size, 3), np.uint64)
    for bit in range(int(codes.max(initial=0)).bit_length()):
        places[:, bit % 3] |= (codes >> np.uint64(bit) & np.uint64(1)) << np.uint64(bit // 3)
    return places
