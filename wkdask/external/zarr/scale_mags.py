"""Which scale of an OME-Zarr image is which mag, and what of it is taken."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from wkdask.errors import InvalidValueError, UnsupportedFormatError
from wkdask.external.foreign import ForeignArray, Scale
from wkdask.external.zarr.array import ZarrArray, named_axes, open_zarr_array
from wkdask.external.zarr.ome_zarr import Image, ScaleEntry, is_whole, place
from wkdask.external.zarr.store import is_zarr
from wkdask.geometry import BoundingBox, Mag, Vec3Int

__all__ = ["Taken", "channel_of", "scale_array", "scales_of"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken of an image, by its finest scale."""

    finest: ScaleEntry
    """The scale that is mag 1."""
    size: Vec3Int
    """Its extent, in its voxels."""
    corner: Vec3Int
    """Where it begins: absolute, in voxels of mag 1."""
    limit: BoundingBox
    """What is taken: absolute, in voxels of mag 1."""


def scale_array(image: Image, scale: ScaleEntry, axes: str | None) -> ZarrArray:
    """Open the array of a scale, which must lie inside of the image's folder."""
    path = os.path.realpath(os.path.join(image.path, scale.name))
    if os.path.commonpath([path, image.path]) != image.path:
        raise InvalidValueError(f"{image.path}: its scale {scale.name!r} lies outside of it, at {path}")
    array = open_zarr_array(path, axes or image.axes)
    if axes is None:
        named = None
        with contextlib.suppress(InvalidValueError):  # names of other kinds say nothing
            named = named_axes(path, array.spec.data_format, len(image.axes))
        if named not in (None, image.axes):
            raise UnsupportedFormatError(
                f"{path} calls its dimensions {named}, its image {image.axes}; name the right axes (--axes)"
            )
    return array


def channel_of(array: ZarrArray, channel: int | None) -> ZarrArray:
    """Return one channel of an array, or all of it."""
    return array if channel is None else array.one_channel(channel)


def scales_of(
    image: Image,
    taken: Taken,
    axes: str | None,
    notes: list[str],
    channel: int | None = None,
    dtype: str | None = None,
) -> tuple[Scale, ...]:
    """Return the scales of an image that are mags; note those that are not.

    Parameters
    ----------
    image
        The image, or one of its labels.
    taken
        What is taken.
    axes
        Instead of the image's.
    notes
        Grows; the first of several channels counts for all.
    channel
        The channel that is taken; None for all.
    dtype
        Type that the voxels are read as, or "mask"; None for the stored one.
    """
    scales: dict[Mag, Scale] = {}
    notes = notes if not channel else []
    for entry in image.scales:
        try:
            if not is_zarr(f"{image.path}/{entry.name}"):
                raise InvalidValueError("it is listed, but not there")
            scale = _scale_of(image, entry, taken, axes, channel, dtype)
            if not scale.array.has_chunks and any(finer.array.has_chunks for finer in scales.values()):
                raise InvalidValueError("it has no chunk files, but finer scales have")
            if scale.mag in scales:
                raise InvalidValueError(f"it is mag {scale.mag}, as {scales[scale.mag].array.path} is")
            if scales:
                _check_alike(next(iter(scales.values())).array, scale.array)
        except InvalidValueError as error:
            if not scales and entry is image.scales[-1]:
                raise InvalidValueError(
                    f"{image.path}: scale {entry.name!r} cannot be a mag: {error}"
                ) from error
            notes.append(f"scale {entry.name!r} of {image.path} is left out: {error}")
            continue
        scales[scale.mag] = scale
        notes += _scale_notes(image, entry, scale, taken)
    return tuple(scales.values())


def _scale_notes(image: Image, entry: ScaleEntry, scale: Scale, taken: Taken) -> list[str]:
    """Return how a scale differs from the mag that it is taken for."""
    notes = []
    name = f"scale {entry.name!r} of {image.path}"
    factors = [side / unit for side, unit in zip(entry.sides, taken.finest.sides, strict=True)]
    if any(round(f) != n for f, n in zip(factors, scale.mag, strict=True)) or not all(map(is_whole, factors)):
        notes.append(
            f"{name} says that its voxels are {' × '.join(f'{f:.6g}' for f in factors)} of the finest; since it "
            f"has {scale.array.size.to_tuple()} of {taken.size.to_tuple()} voxels, it is taken for mag {scale.mag}"
        )
    whole = taken.limit.aligned_outwards(scale.mag.to_vec3_int()).in_mag(scale.mag)
    if scale.box != whole:
        notes.append(
            f"{name} holds {scale.box} of {whole} (voxels of mag {scale.mag}); the rest of that mag is 0"
        )
    return notes


def _scale_of(
    image: Image,
    entry: ScaleEntry,
    taken: Taken,
    axes: str | None,
    channel: int | None,
    dtype: str | None,
) -> Scale:
    """Return a scale as a mag; refuse one that is none."""
    array = channel_of(scale_array(image, entry, axes), channel)
    mag, distance = place(entry, taken.finest, (array.size, taken.size))
    _check_extent(array, mag, taken)
    step, start = mag.to_vec3_int(), taken.corner + distance
    if any(start % step) or not start.is_positive():
        raise InvalidValueError(
            f"it begins at voxel {start.to_tuple()} of mag 1, which is no voxel of mag {mag}: those begin at "
            f"multiples of {step.to_tuple()}. Another offset (--offset) may do, such as 0,0,0"
        )
    at = start // step
    box = BoundingBox(at, array.size).intersection(taken.limit.aligned_outwards(step).in_mag(mag))
    if box.is_empty():
        raise InvalidValueError(f"it holds nothing of the box {taken.limit} (voxels of mag 1)")
    if dtype is not None:
        array = array.as_mask() if dtype == "mask" else array.as_dtype(dtype)
    return Scale(mag, array, at, box)


def _check_extent(array: ZarrArray, mag: Mag, taken: Taken) -> None:
    """Refuse a scale that has as many voxels as one of another mag: either its numbers or its voxels are wrong.

    More voxels than it needs may be whole cubes, as webknossos writes them; fewer may be a part, or one section.
    """
    for axis, step, has, whole, cube in zip(
        "xyz", mag, array.size, taken.size, array.spec.shard_shape, strict=True
    ):
        needs = -(-whole // step)
        if has in (1, whole // step, needs, -(-needs // cube) * cube):
            continue
        for power in (1 << n for n in range(whole.bit_length())):
            if has in (whole // power, -(-whole // power)):
                raise InvalidValueError(
                    f"along {axis} its voxels are {step} of the finest, but it has {has} voxels where the finest "
                    f"has {whole}, as if they were {power}"
                )


def _check_alike(first: ForeignArray, other: ForeignArray) -> None:
    """Refuse a scale of another type than the finest has."""
    have, want = other.spec, first.spec
    if (have.dtype, have.num_channels) != (want.dtype, want.num_channels):
        raise InvalidValueError(
            f"it holds {have.num_channels} × {have.dtype}, {first.path} {want.num_channels} × {want.dtype}"
        )
