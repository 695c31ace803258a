"""What a conversion makes: the layer, type and chunk layout of its mags; checked before anything is written."""

from __future__ import annotations

import math

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry import MagLike, Vec3Int, Vec3IntLike
from wkdask.jobs.events import WriteReport
from wkdask.layer import Layer, LayerCategories
from wkdask.layer.chunk_layout import fitting_shard_shape
from wkdask.mag_view import MagView
from wkdask.properties import AddLayer
from wkdask.properties.values import NoteMinMax
from wkdask.storage.formats import check_format, check_spec, fitting_compression
from wkdask.storage.protocol import ArraySpec

__all__ = ["add_mag", "check_layer", "note_min_max", "same_cut", "spec_of", "viewer_notes"]


def spec_of(
    data_format: str,
    dtype: str,
    num_channels: int,
    size: Vec3Int,
    *,
    compression: str | bool | None,
    shard_shape: Vec3IntLike | int | None,
    chunk_shape: Vec3IntLike | int | None,
) -> ArraySpec:
    """Return type and cut of a new mag; what is not said suits the size.

    Parameters
    ----------
    data_format
        ``"wkw"``, ``"zarr3"`` or ``"zarr"``.
    dtype, num_channels
        Of the voxels.
    size
        Extent along (x, y, z), in voxels of the mag.
    compression
        As for :meth:`Layer.add_mag`.
    shard_shape, chunk_shape
        Sides of a cube and of a chunk, in voxels of the mag. In Zarr 2, where both are one, either says both.

    Raises
    ------
    InvalidValueError, UnsupportedFormatError, DTypeError
        If the format cannot hold it so.
    """
    check_format(data_format)
    compression = fitting_compression(data_format, compression)
    if data_format == "zarr" and chunk_shape is None:
        chunk_shape = shard_shape
    chunk = Vec3Int.from_scalar_or_vec(32 if chunk_shape is None else chunk_shape)
    if shard_shape is None:
        voxel_nbytes = num_channels * np.dtype(dtype).itemsize
        shard_shape = fitting_shard_shape(size, voxel_nbytes, compression, chunk, data_format)
    spec = ArraySpec(
        dtype=dtype,
        num_channels=num_channels,
        chunk_shape=chunk,
        shard_shape=Vec3Int.from_scalar_or_vec(shard_shape),
        compression=compression,
        layout=data_format,
    )
    check_spec(spec, data_format)
    return spec


def same_cut(have: ArraySpec, want: ArraySpec) -> bool:
    """Return whether a mag is what `spec_of` would make it."""
    return have.data_format == want.data_format and (
        (have.dtype, have.num_channels, have.chunk_shape, have.shard_shape, have.compression)
        == (want.dtype, want.num_channels, want.chunk_shape, want.shard_shape, want.compression)
    )


def add_mag(layer: Layer, mag: MagLike, spec: ArraySpec) -> MagView:
    """Add a mag with the chunk layout that `spec_of` returns."""
    return layer.add_mag(
        mag,
        chunk_shape=spec.chunk_shape,
        shard_shape=spec.shard_shape,
        compression=spec.compression or False,
    )


def check_layer(name: str, category: str, dtype: str, num_channels: int, source: str) -> None:
    """Refuse a layer that cannot be, before a dataset is made for it.

    Parameters
    ----------
    name, category, dtype, num_channels
        Of the layer.
    source
        What holds the voxels, for the message.

    Raises
    ------
    InvalidValueError, DTypeError
        If so.
    """
    if category == LayerCategories.SEGMENTATION_TYPE and (num_channels > 1 or dtype.startswith("float")):
        raise InvalidValueError(
            f"the ids of a segmentation are whole numbers in one channel, but {source} holds "
            f"{dtype} in {num_channels} channel(s); use the category color, or save the ids themselves"
        )
    edit = AddLayer(name, category, dtype, num_channels)
    edit.apply({"scale": {}, "version": 1, "dataLayers": []})


def viewer_notes(category: str, dtype: str, num_channels: int, *, remedy: str | None = None) -> list[str]:
    """Say what of a layer WEBKNOSSOS does not show, and what would make it.

    It shows images of one channel of up to 32 bits, or of three of uint8 (RGB); segmentations of any integers.

    Parameters
    ----------
    category, dtype, num_channels
        Of the layer.
    remedy
        What would make a layer that it shows; by default what converts images.
    """
    if category == LayerCategories.SEGMENTATION_TYPE:
        return []
    if num_channels > 1 and (num_channels, dtype) != (3, "uint8"):
        what = f"{num_channels} channels of {dtype}: of several channels only three of uint8 (RGB)"
    elif dtype in ("int64", "uint64", "float64"):
        what = f"{dtype}: of images no more than 32 bits per voxel"
    else:
        return []
    usual = 'dtype="uint8" with rescale=(MIN, MAX) (--dtype uint8 --rescale MIN,MAX) makes one that it shows'
    return [f"WEBKNOSSOS does not show a layer of {what}; {remedy or usual}"]


def note_min_max(layer: Layer, report: WriteReport) -> None:
    """Note the smallest and the largest voxel of a new image for its first view, unless a range is set already.

    Parameters
    ----------
    layer
        The layer.
    report
        Of the job that wrote all of its finest mag.
    """
    if report.minimum is None or report.maximum is None:
        return
    low, high = float(report.minimum), float(report.maximum)
    if low < high and math.isfinite(low) and math.isfinite(high):
        layer._commit(NoteMinMax(layer.name, low, high))
