"""Parts of a view, and whole arrays in and out of it, under the names of version 4 of the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.jobs.events import WriteReport
from wkdask.storage.protocol import Voxels

if TYPE_CHECKING:
    from wkdask.view.view import View

__all__ = ["chunk", "read_cxyz", "read_xyz", "views_on_disk", "write_cxyz"]


def chunk(
    self: View,
    chunk_shape: Vec3IntLike,
    *,
    chunk_border_alignments: Vec3IntLike | None = None,
    read_only: bool | None = None,
) -> Iterator[View]:
    """Yield views of the pieces of this one, z fastest, clipped at its box.

    Parameters
    ----------
    chunk_shape
        Sides of a piece, in voxels of mag 1.
    chunk_border_alignments
        The pieces are cut at multiples of this, in voxels of mag 1; without it, from the view's own corner.
    read_only
        Refuse writes; as this view by default.

    Raises
    ------
    InvalidValueError
        If a side is no whole number of voxels of this mag, or not a multiple of the alignment.

    Examples
    --------
    >>> [part.bounding_box.topleft.x for part in mag.chunk((32, 64, 32))]
    [0, 32]
    """
    pieces = self.bounding_box.chunk(chunk_shape, chunk_border_alignments)
    step = self.mag.to_vec3_int()
    for what, shape in (("chunk_shape", chunk_shape), ("chunk_border_alignments", chunk_border_alignments)):
        if shape is not None and any(Vec3Int(shape) % step):
            raise InvalidValueError(f"{what} {shape} is no whole number of voxels of mag {self.mag}")
    return (self.get_view(bounding_box=piece, read_only=read_only) for piece in pieces)


def read_xyz(
    self: View,
    *,
    relative_bounding_box: BoundingBox | None = None,
    absolute_bounding_box: BoundingBox | None = None,
) -> Voxels:
    """Read voxels into an array ``(c, x, y, z)``; the same as :meth:`read`.

    Parameters
    ----------
    relative_bounding_box, absolute_bounding_box
        As for :meth:`read`.

    Examples
    --------
    >>> mag.read_xyz(absolute_bounding_box=BoundingBox((0, 0, 0), (8, 8, 8))).shape
    (1, 8, 8, 8)
    """
    return self.read(relative_bounding_box=relative_bounding_box, absolute_bounding_box=absolute_bounding_box)


def read_cxyz(
    self: View,
    size: Vec3IntLike | None = None,
    *,
    relative_offset: Vec3IntLike | None = None,
    absolute_offset: Vec3IntLike | None = None,
    relative_bounding_box: BoundingBox | None = None,
    absolute_bounding_box: BoundingBox | None = None,
) -> Voxels:
    """Read voxels into an array ``(c, x, y, z)``, whatever the order of the stored axes; as :meth:`read` does.

    Parameters
    ----------
    size, relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
        As for :meth:`read`.

    Examples
    --------
    >>> mag.read_cxyz(absolute_offset=(8, 8, 8), size=(8, 8, 8)).shape
    (1, 8, 8, 8)
    """
    return self.read(
        size=size,
        relative_offset=relative_offset,
        absolute_offset=absolute_offset,
        relative_bounding_box=relative_bounding_box,
        absolute_bounding_box=absolute_bounding_box,
    )


def write_cxyz(
    self: View,
    data: Any,
    *,
    allow_resize: bool | None = None,
    allow_unaligned: bool | None = None,
    relative_offset: Vec3IntLike | None = None,
    absolute_offset: Vec3IntLike | None = None,
    relative_bounding_box: BoundingBox | None = None,
    absolute_bounding_box: BoundingBox | None = None,
) -> WriteReport:
    """Write an array ``(c, x, y, z)``, whatever the order of the stored axes; as :meth:`write` does.

    Parameters
    ----------
    data
        With its channel axis, also where there is one channel.
    allow_resize, allow_unaligned, relative_offset, absolute_offset, relative_bounding_box, absolute_bounding_box
        As for :meth:`write`.

    Raises
    ------
    InvalidValueError
        If the array has no channel axis.

    Examples
    --------
    >>> mag.write_cxyz(np.zeros((1, 8, 8, 8), "uint8"), absolute_offset=(8, 8, 8)).cubes
    1
    """
    if getattr(data, "ndim", None) != 4:
        raise InvalidValueError(
            f"expected an array (c, x, y, z), got the shape {getattr(data, 'shape', None)}"
        )
    return self.write(
        data,
        allow_resize=allow_resize,
        allow_unaligned=allow_unaligned,
        relative_offset=relative_offset,
        absolute_offset=absolute_offset,
        relative_bounding_box=relative_bounding_box,
        absolute_bounding_box=absolute_bounding_box,
    )


def views_on_disk(self: View, cubes: Iterator[BoundingBox], read_only: bool | None) -> Iterator[View]:
    """Yield a view of every cube that exists, clipped at the view's box."""
    for cube in cubes:
        part = cube.intersection(self.box)
        if not part.is_empty():
            yield self.get_view(bounding_box=part.from_mag_to_mag1(self.mag), read_only=read_only)
