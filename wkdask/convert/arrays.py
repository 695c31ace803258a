"""Arrays in files of other programs -> layers: as Zarr arrays become layers, by the same jobs.

::

    volume.mrc, file.h5:/raw, volume.nrrd, volume.nii, array.npy     >  mag 1
    precomputed/, knossos/                                           >  mag 1, and their coarser scales
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wkdask.convert.scales import ScaledLayer, Scales, channel_layers, layer_notes, selected_box
from wkdask.convert.zarr import convert_scales
from wkdask.errors import InvalidValueError, WkdaskWarning
from wkdask.external.arrays.file_array import FileArray, file_array
from wkdask.external.arrays.found import Asked, Found
from wkdask.external.arrays.kinds import kind_of, open_found, split_inner
from wkdask.external.foreign import Scale
from wkdask.fsio import checked_path
from wkdask.geometry import BoundingBox, Mag, Vec3Int, Vec3IntLike
from wkdask.geometry.voxel_size import VoxelSize, as_voxel_size
from wkdask.jobs.events import WriteReport
from wkdask.layer import LayerCategories
from wkdask.progress.bar import ProgressLike

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["convert_array", "open_arrays"]


def convert_array(
    path: str | os.PathLike[str],
    dataset_path: str | os.PathLike[str],
    *,
    voxel_size: Sequence[float] | VoxelSize | None = None,
    layer_name: str = "color",
    category: str = LayerCategories.COLOR_TYPE,
    offset: Vec3IntLike | None = None,
    bbox: BoundingBox | None = None,
    axes: str | None = None,
    together: bool = False,
    dtype: str | None = None,
    asked: Asked | None = None,
    data_format: str = "wkw",
    compression: str | bool | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunk_shape: Vec3IntLike | int | None = None,
    client: Client | None = None,
    progress: ProgressLike = None,
    durable: bool = True,
    resume: bool = False,
) -> list[WriteReport]:
    """Make a layer of an array in a file: MRC, HDF5, N5, neuroglancer precomputed, NRRD, NIfTI, npy, KNOSSOS, raw.

    The tasks, one per cube or part of it, run on the active :class:`distributed.Client`, or on local threads, and
    read the file themselves.

    Parameters
    ----------
    path
        The file or folder. Of HDF5 and N5 ``file.h5:/path`` names the dataset.
    dataset_path
        The dataset's folder; a dataset is made there if there is none.
    voxel_size
        Size of a voxel of mag 1 along (x, y, z), in nm, or a `VoxelSize`; by default as the file says.
    layer_name, category
        Of the layer.
    offset
        Where the first voxel goes: absolute, in voxels of mag 1. By default where the file says, if that is a whole
        voxel from 0 on, else at the origin.
    bbox
        The part that is converted, in voxels of the array. It keeps its place.
    axes
        A letter of t, c, z, y, x for each dimension; by default as the file says.
    together
        Keep all channels in one layer; as for :func:`wkdask.convert.zarr.convert_zarr`.
    dtype
        Type of the layer; that of the array by default. Floats are rounded; integers must fit, which is checked.
    asked
        What raw voxels are: shape, type, order; and whether bytes of an MRC file have a sign.
    data_format, compression, shard_shape, chunk_shape, client, progress, durable, resume
        As for :func:`wkdask.convert.zarr.convert_zarr`.

    Returns
    -------
    list of WriteReport
        One for each mag that was written.

    Raises
    ------
    DamagedHeaderError, UnsupportedFormatError, DTypeError, InvalidValueError
        If the array cannot become a layer, or an argument is missing. Nothing was written.
    AlreadyExistsError
        If the layer exists, or its folder. Nothing was written.
    MissingPackageError
        If the library that reads the format is not installed.
    TaskFailedError
        If voxels cannot be read. A mag without a published cube is removed; another can be resumed.

    Warns
    -----
    WkdaskWarning
        For all that is left out, or taken otherwise than one may expect.
    """
    source = open_arrays(
        path,
        voxel_size=voxel_size,
        layer_name=layer_name,
        category=category,
        offset=offset,
        bbox=bbox,
        axes=axes,
        together=together,
        dtype=dtype,
        asked=asked,
    )
    for note in source.notes:
        warnings.warn(note, WkdaskWarning, stacklevel=2)
    return convert_scales(
        source,
        dataset_path,
        data_format=data_format,
        compression=compression,
        shard_shape=shard_shape,
        chunk_shape=chunk_shape,
        client=client,
        progress=progress,
        durable=durable,
        resume=resume,
    )


def open_arrays(
    path: str | os.PathLike[str],
    *,
    voxel_size: Sequence[float] | VoxelSize | None = None,
    layer_name: str = "color",
    category: str = LayerCategories.COLOR_TYPE,
    offset: Vec3IntLike | None = None,
    bbox: BoundingBox | None = None,
    axes: str | None = None,
    together: bool = False,
    dtype: str | None = None,
    asked: Asked | None = None,
) -> Scales:
    """Return what an array in a file would become; only metadata are read.

    Parameters
    ----------
    path, voxel_size, layer_name, category, offset, bbox, axes, together, dtype, asked
        As for `convert_array`.

    Raises
    ------
    WkdaskError
        As there.
    """
    asked = asked or Asked()
    outer, _ = split_inner(os.fspath(path))
    checked_path(outer)
    if not os.path.lexists(outer):
        raise InvalidValueError(f"there is no {outer}")
    kind = kind_of(os.fspath(path), is_raw=asked.shape is not None)
    if kind is None:
        raise InvalidValueError(
            f"{outer} is of no format that is known here, by its name or by what is in it"
        )
    found = open_found(os.fspath(path), asked, kind)
    first = found.parts[0]
    known_axes = axes or found.axes
    if known_axes is None:
        raise InvalidValueError(
            f"{first.path} has the shape {first.shape}, and does not say which axis is which: name a letter "
            f"of t, c, z, "
            f"y, x for each, axes= (--axes), such as {'zyx' if len(first.shape) == 3 else 'czyx'}"
        )
    size = found.voxel_size if voxel_size is None else as_voxel_size(voxel_size)
    if size is None:
        raise InvalidValueError(
            f"{first.path} does not say how large its voxels are: give voxel_size= (--voxel-size), in nm"
        )
    notes = [f"{first.path} has the axes {known_axes} and voxels of {size}", *found.notes]
    arrays = [file_array(part, known_axes) for part in found.parts]
    if dtype is not None:
        arrays = [array.as_dtype(dtype) for array in arrays]
    elif arrays[0].spec.dtype != arrays[0].stored:
        notes.append(f"{first.path} holds {arrays[0].stored}, which is stored as {arrays[0].spec.dtype}")
    placed = _placed(found, arrays, offset, bbox, notes)
    layers = tuple(
        ScaledLayer(
            name,
            category,
            tuple(
                Scale(mag, array if channel is None else array.one_channel(channel), corner, box)
                for mag, array, corner, box in placed
            ),
        )
        for name, channel in channel_layers(arrays[0], layer_name, together, notes)
    )
    notes += layer_notes(layers)
    return Scales(first.path, size, layers, tuple(notes))


def _placed(
    found: Found,
    arrays: list[FileArray],
    offset: Vec3IntLike | None,
    bbox: BoundingBox | None,
    notes: list[str],
) -> list[tuple[Mag, FileArray, Vec3Int, BoundingBox]]:
    """Return each array with its mag, its first voxel's position, and the part to read; note what is left out."""
    own = Vec3Int(found.parts[0].corner or (0, 0, 0))
    corner = own if offset is None else Vec3Int(offset)
    if offset is None and any(own):
        notes.append(
            f"{found.parts[0].path} begins at voxel {own.to_tuple()}, and is put there; --offset says otherwise"
        )
    limit = selected_box(arrays[0], bbox).offset(corner)
    placed = [(Mag(1), arrays[0], corner, limit)]
    for part, array in zip(found.parts[1:], arrays[1:], strict=True):
        mag, step = Mag(part.step), Vec3Int(part.step)
        moved = corner - own
        at = Vec3Int(part.corner or (0, 0, 0)) + moved // step
        box = BoundingBox(at, array.size).intersection(limit.aligned_outwards(step).in_mag(mag))
        if any(moved % step) or not at.is_positive() or box.is_empty():
            notes.append(
                f"scale {part.path} is left out: it has no whole place in mag {mag}, or nothing of the box"
            )
            continue
        placed.append((mag, array, at, box))
    return placed
