"""Where in a view, as version 4 of the API says it: offsets and boxes in voxels of mag 1, absolute or relative."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import Protocol

from wkdask.errors import AlignmentError, InvalidValueError, OutOfBoundsError, WkdaskWarning
from wkdask.geometry import C_AXIS, CXYZ_AXES, BoundingBox, Mag, NDBoundingBox, Vec3Int, Vec3IntLike, as_box
from wkdask.storage.protocol import ArraySpec

__all__ = ["NOWHERE", "Where", "check_allowed", "spatial_box", "warn_of_parts_of_cubes"]


class _Located(Protocol):
    """What of a view matters here."""

    @property
    def mag(self) -> Mag:
        """The magnification."""

    @property
    def box(self) -> BoundingBox:
        """The view's box: absolute, in voxels of its mag."""

    @property
    def bounding_box(self) -> BoundingBox:
        """The view's box in voxels of mag 1."""

    @property
    def spec(self) -> ArraySpec:
        """Type and cut of the mag."""


def spatial_box(box: object, num_channels: int) -> BoundingBox:
    """Return a box along x, y, z of a mag that has the axes c, x, y, z.

    Raises
    ------
    InvalidValueError
        If it is none, has further axes, or some channels only.
    """
    found: BoundingBox | NDBoundingBox = as_box(box)
    if isinstance(found, BoundingBox):
        return found
    further = [axis for axis in found.axes if axis not in CXYZ_AXES]
    if further:
        raise InvalidValueError(
            f"the mag has the axes c, x, y, z, but the box has {', '.join(further)} too: {found}"
        )
    if C_AXIS in found.axes and found.get_bounds(C_AXIS) != (0, num_channels):
        low, high = found.get_bounds(C_AXIS)
        raise InvalidValueError(
            f"the box has c from {low} to {high}, but all {num_channels} channels are read and written together: "
            "take channels of the array"
        )
    return BoundingBox(found.topleft_xyz, found.size_xyz)


@dataclass(frozen=True, slots=True)
class Where:
    """The four ways in which version 4 says a place; at most one is given. All count voxels of mag 1."""

    relative_offset: Vec3IntLike | None = None
    """A corner, from the view's own corner on."""
    absolute_offset: Vec3IntLike | None = None
    """A corner."""
    relative_bounding_box: BoundingBox | None = None
    """A box, from the view's own corner on."""
    absolute_bounding_box: BoundingBox | None = None
    """A box; the same as ``bounding_box=``."""

    def box(
        self,
        view: _Located,
        offset: Vec3IntLike | None,
        size: Vec3IntLike | None,
        bounding_box: BoundingBox | None,
        shape: Vec3Int | None = None,
    ) -> BoundingBox | None:
        """Return the box that is meant, in voxels of mag 1; None where nothing is said in version 4's words.

        Parameters
        ----------
        view
            What relative places count from.
        offset, size, bounding_box
            What is said in our own words; only `size` goes with an offset, and counts voxels of mag 1 then.
        shape
            Voxels of the mag that an array has, where the box is that of an array.

        Raises
        ------
        InvalidValueError
            If a place is said twice, or a box has an offset and no size.
        """
        said = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        if not said:
            return None if bounding_box is None else spatial_box(bounding_box, view.spec.num_channels)
        both = [
            name for name, value in (("offset", offset), ("bounding_box", bounding_box)) if value is not None
        ]
        if len(said) + len(both) > 1:
            raise InvalidValueError(f"give one place, not {' and '.join([*both, *said])}")
        corner = view.bounding_box.topleft if said[0].startswith("relative") else Vec3Int(0, 0, 0)
        said_box = (
            self.absolute_bounding_box if self.relative_bounding_box is None else self.relative_bounding_box
        )
        if said_box is not None:
            whole = spatial_box(said_box, view.spec.num_channels)
            if size is not None:
                raise InvalidValueError(f"{said[0]}= has a size already, got size={size!r} too")
            return whole.offset(corner)
        given = self.absolute_offset if self.relative_offset is None else self.relative_offset
        if shape is not None:
            size = shape * view.mag.to_vec3_int()
        if size is None:
            raise InvalidValueError(f"{said[0]}= needs size=, both in voxels of mag 1")
        if min(corner := corner + Vec3Int(given)) < 0:
            raise OutOfBoundsError(f"voxel coordinates cannot be negative, got the corner {corner}")
        return BoundingBox(corner, size)


NOWHERE = Where()
"""Nothing said."""


def check_allowed(
    view: _Located,
    box: BoundingBox,
    where: Where,
    allow_resize: bool | None = None,
    allow_unaligned: bool | None = None,
) -> None:
    """Refuse a write that version 4 refuses, where the place is said in its words, or a caller asks for that.

    Parameters
    ----------
    view
        What is written.
    box
        The place: absolute, in voxels of the mag.
    where
        How it was said where it is.
    allow_resize
        False: the box may not leave the view's. None: as version 4 does in its own words, else allowed.
    allow_unaligned
        False: the box consists of whole cubes, or ends where the view's box ends. None: likewise, but version 4
        allows it where cubes are plain WKW.

    Raises
    ------
    OutOfBoundsError, AlignmentError
        If so.
    """
    if allow_resize is None:
        allow_resize = where == NOWHERE
    if allow_unaligned is None:
        is_plain_wkw = view.spec.data_format == "wkw" and view.spec.compression is None
        allow_unaligned = where == NOWHERE or is_plain_wkw
    if not allow_resize and not view.box.contains_bbox(box):
        raise OutOfBoundsError(
            f"the box {box} does not fit in the layer's bounding box {view.box} (voxels of mag {view.mag}); "
            "allow_resize=True lets that grow"
        )
    if not allow_unaligned:
        whole = _of_whole_cubes(view, box)
        if whole != box:
            raise AlignmentError(
                f"the box {box} is not aligned with the shard shape {view.spec.shard_shape}: it has cubes in part. "
                f"allow_unaligned=True lets them be read and written anew; the nearest of whole cubes is {whole} "
                f"(voxels of mag {view.mag})"
            )


def _of_whole_cubes(view: _Located, box: BoundingBox) -> BoundingBox:
    """Return a box grown to whole cubes, or to where the view's box ends."""
    return box.aligned_outwards(view.spec.shard_shape).intersection(view.box.extended_by(box))


def warn_of_parts_of_cubes(view: _Located, box: BoundingBox, where: Where) -> None:
    """Say, as version 4 does, that a part of a view that may be written to has cubes in part.

    It is said to those only who ask in version 4's words: scripts of 2021 have never heard it.

    Parameters
    ----------
    view
        The view.
    box
        The part: absolute, in voxels of the mag.
    where
        How it was said where it is.
    """
    if where == NOWHERE or box.is_empty():
        return
    whole = _of_whole_cubes(view, box)
    if whole != box:
        warnings.warn(
            f"the view of {box} is not aligned with the shard shape {view.spec.shard_shape}: each write into it "
            f"reads cubes that it has in part, and writes them anew. The nearest of whole cubes is {whole} (voxels "
            f"of mag {view.mag}); read_only=True says that nothing is written",
            WkdaskWarning,
            stacklevel=3,
        )
