"""Voxels around a box: read where a layer has them, filled where it ends.

::

    what the layer has           |a b c d e|
    reflect              ... b a |a b c d e| e d ...      as scipy and dask have it: the edge comes twice
    nearest              ... a a |a b c d e| e e ...
    a number             ... 7 7 |a b c d e| 7 7 ...
    clip                         |a b c d e|              the block ends where the layer does

What a voxel outside is filled with depends on the layer's box only, never on how the work is cut.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from wkdask.errors import DTypeError, InvalidValueError
from wkdask.geometry import BoundingBox
from wkdask.storage.protocol import ArraySpec, MagReader, Voxels

__all__ = ["Boundary", "check_boundary", "read_around"]

Boundary: TypeAlias = "str | int | float"
"""``"clip"``, ``"reflect"``, ``"nearest"``, or the value of the voxels outside."""


def check_boundary(boundary: Boundary, spec: ArraySpec) -> None:
    """Refuse a way of filling that is unknown, or a value that the voxels cannot have.

    Raises
    ------
    InvalidValueError, DTypeError
        If so.
    """
    if boundary in ("clip", "reflect", "nearest"):
        return
    if isinstance(boundary, str) or not np.isscalar(boundary):
        raise InvalidValueError(
            f'boundary is "clip", "reflect", "nearest" or the value of voxels outside, got {boundary!r}'
        )
    dtype = np.dtype(spec.dtype)
    try:
        fits = dtype.kind == "f" or dtype.type(boundary) == boundary
    except (OverflowError, ValueError):
        fits = False
    if not fits:
        raise DTypeError(f"boundary={boundary!r} is no value of {spec.dtype}")


def read_around(
    store: MagReader, box: BoundingBox, valid: BoundingBox, boundary: Boundary
) -> tuple[Voxels, BoundingBox]:
    """Read a box of which some may lie outside of what a layer has.

    Parameters
    ----------
    store
        The mag.
    box
        Absolute, in voxels of the mag; may begin below 0.
    valid
        What may be read.
    boundary
        How the rest is filled.

    Returns
    -------
    numpy.ndarray
        ``(c, x, y, z)``, Fortran-ordered, not shared with anybody.
    BoundingBox
        What it covers: `box`, or the part of it within `valid` if it is clipped.
    """
    inside = box.intersection(valid)
    if inside == box or boundary == "clip":
        return store.read(inside), inside
    if boundary not in ("reflect", "nearest"):
        spec = store.spec
        filled = np.full((spec.num_channels, *box.size), boundary, spec.dtype, order="F")
        if not inside.is_empty():
            filled[(slice(None), *inside.to_slices(box.topleft))] = store.read(inside)
        return filled, box
    ends = zip(box.topleft, box.bottomright, valid.topleft, valid.bottomright, strict=True)
    places = [_places(*four, boundary) for four in ends]
    union = BoundingBox.from_corners(
        [int(axis.min()) for axis in places], [int(axis.max()) + 1 for axis in places]
    )
    turned = store.read(union).T  # (z, y, x, c) in C order, which is what take leaves behind
    for axis, (indices, first) in enumerate(zip(places[::-1], union.topleft[::-1], strict=True)):
        turned = np.take(turned, indices - first, axis=axis)
    return turned.T, box


def _places(low: int, high: int, first: int, stop: int, boundary: Any) -> np.ndarray[Any, Any]:
    """Return which voxel along an axis stands for each one of [low, high), if [first, stop) are there."""
    length = stop - first
    if length < 1:
        raise InvalidValueError(f"boundary={boundary!r} has nothing to fill from: the layer's box is empty")
    distance = np.arange(low, high) - first
    if boundary == "nearest":
        return first + np.clip(distance, 0, length - 1)
    distance %= 2 * length
    return first + np.minimum(distance, 2 * length - 1 - distance)
