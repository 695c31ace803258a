"""A new dataset of one array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wkdask.errors import InvalidValueError
from wkdask.external.target import note_min_max
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry import Mag, Vec3Int, Vec3IntLike
from wkdask.geometry.axis_vectors import C_AXIS, XYZ_AXES
from wkdask.geometry.voxel_size import VoxelSize, as_voxel_size
from wkdask.labelled import MagGrid, is_labelled, moved_to_origin, voxel_size_of
from wkdask.layer import Layer
from wkdask.layer.chunk_layout import Cut, check_array, fitting_shard_shape
from wkdask.names import LayerCategories
from wkdask.progress.bar import ProgressLike, say
from wkdask.storage.formats import check_format, fitting_compression
from wkdask.storage.publish.dead_jobs import unfinished_jobs
from wkdask.view.array_like import as_array

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.dataset.dataset import Dataset

__all__ = ["from_dask", "is_to_resume", "remove_dataset"]


def from_dask(
    cls: type[Dataset],
    dataset_path: str | os.PathLike[str],
    array: Any,
    voxel_size: Sequence[float] | VoxelSize | None = None,
    *,
    name: str | None = None,
    layer_name: str = "color",
    category: str = LayerCategories.COLOR_TYPE,
    largest_segment_id: int | None = None,
    topleft: Vec3IntLike | None = None,
    data_format: str = "wkw",
    chunk_shape: Vec3IntLike | int | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    compression: str | bool | None = None,
    pyramid: bool = True,
    client: Client | None = None,
    durable: bool = True,
    resume: bool = False,
    job: str | None = None,
    progress: ProgressLike = None,
) -> Dataset:
    """Make a dataset of an array: one layer, with its pyramid.

    Parameters
    ----------
    dataset_path
        Folder of the new dataset; made if missing, else it must be empty.
    array
        A dask or numpy array ``(x, y, z)`` or ``(c, x, y, z)``, of a type that layers hold. A dask array is
        computed block by block, on the active :class:`distributed.Client` or on local threads. An array whose
        axes are (z, y, x) is given as ``array.T``. How its axes are taken is printed where progress is shown.
        An array of xarray has its axes x, y, z, and c, in any order.
    voxel_size
        Size of a voxel along (x, y, z), in nm, or a `VoxelSize`. Of an array of xarray whose coordinates have
        units it is how far these lie apart.
    name
        The dataset's name; the folder's by default.
    layer_name, category
        Of the layer: ``"color"`` or ``"segmentation"``.
    largest_segment_id
        Of a segmentation; by default that of the array.
    topleft
        Where the array's first voxel goes: (x, y, z), absolute, in voxels of mag 1. By default where the
        coordinates of an array of xarray say, else to the origin.
    data_format
        How the layer is stored: ``"wkw"``, ``"zarr3"``, or ``"zarr"`` for Zarr 2.
    chunk_shape, shard_shape
        Sides of a chunk (32³) and of a cube, in voxels of mag 1; cubes are by default as
        ``wkdask convert`` makes them: up to 1024³, smaller where the array is.
    compression
        As for :meth:`Layer.add_mag`; by default ``"lz4"``, in Zarr ``"zstd"``. False for none.
    pyramid
        Compute the coarser mags as well, those that :meth:`Layer.downsample` would add.
    client, durable, progress
        As for :meth:`MagView.write`.
    resume, job
        Go on where an earlier call with the same array and path stopped, as :meth:`MagView.write` does.

    Returns
    -------
    Dataset
        The new one.

    Raises
    ------
    AlreadyExistsError
        If the folder holds something, and `resume` is not asked for.
    InvalidValueError, DTypeError, UnsupportedFormatError, PlanError
        If the array, or an argument, cannot work. Nothing is left behind.
    AlignmentError, ChannelError
        If the coordinates of an array of xarray are not those of voxels of that size, one after the other, and
        `topleft` is not given; or those of its channels are not 0, 1, 2, ….
    TaskFailedError
        If a task failed. What landed stays if it can be resumed; else nothing is left behind.

    Examples
    --------
    >>> x = da.random.default_rng(0).random((128, 128, 32), chunks=64).astype("float32")
    >>> noise = Dataset.from_dask("noise", x, voxel_size=(4, 4, 35))
    >>> noise.get_layer("color").get_mag(1).shape
    (1, 128, 128, 32)
    """
    array, voxel_size, corner = _without_coordinates(array, voxel_size, topleft)
    array = as_array(array)
    check_format(data_format)
    compression = fitting_compression(data_format, "lz4" if compression is None else compression)
    given = Cut(None, None, None, chunk_shape, shard_shape, compression or False)
    channels = check_array(array, data_format, given)
    if shard_shape is None and all(length > 0 for length in array.shape):  # not of unknown length (NaN)
        chunk = Vec3Int.from_scalar_or_vec(32 if chunk_shape is None else chunk_shape)
        voxel_nbytes = channels * array.dtype.itemsize
        shard_shape = fitting_shard_shape(array.shape[-3:], voxel_nbytes, compression, chunk, data_format)
    path = checked_path(dataset_path)
    axes = "(x, y, z)" if array.ndim == 3 else "(c, x, y, z)"
    say(progress, f"array {tuple(array.shape)} taken as {axes}, first voxel at {corner}")
    is_there = os.path.lexists(path)
    dataset = (cls.get_or_create if resume else cls.create)(path, voxel_size, name)
    try:
        layer = dataset.get_or_add_layer(
            layer_name,
            category,
            dtype_per_channel=array.dtype,
            num_channels=channels,
            largest_segment_id=None if layer_name in dataset.layers else largest_segment_id,
            data_format=data_format,
        )
        mag = layer.get_or_add_mag(
            1, chunk_shape=chunk_shape, shard_shape=shard_shape, compression=compression or False
        )
        report = mag.write(
            array,
            corner,
            client=client,
            durable=durable,
            resume=resume,
            job=job,
            pyramid=pyramid,
            progress=progress,
        )
    except BaseException:
        if not resume and not any(map(is_to_resume, dataset.layers.values())):
            remove_dataset(dataset, whole=not is_there)
        raise
    note_min_max(layer, report)
    return dataset


def _without_coordinates(
    array: Any, voxel_size: Sequence[float] | VoxelSize | None, topleft: Vec3IntLike | None
) -> tuple[Any, VoxelSize, Vec3Int]:
    """Return an array as numpy or dask has it, the size of its voxels, and where it begins."""
    corner = Vec3Int((0, 0, 0) if topleft is None else topleft)
    if not is_labelled(array):
        if voxel_size is None:
            raise InvalidValueError(
                "voxel_size= is missing: only arrays of xarray say it, by their coordinates"
            )
        return array, as_voxel_size(voxel_size), corner
    size = voxel_size_of(array) if voxel_size is None else as_voxel_size(voxel_size)
    if topleft is not None:
        array = moved_to_origin(array, size)
    grid = MagGrid("the new layer's mag 1", Mag(1), size, array.sizes.get(C_AXIS, 1))
    plain, starts = grid.taken_apart(array)
    return plain, size, corner + Vec3Int(*(starts.get(axis, 0) for axis in XYZ_AXES))


def is_to_resume(layer: Layer) -> bool:
    """Return whether voxels of a layer were written by a call that has failed, which may go on from there."""
    return not layer.record.bounding_box.is_empty() and any(
        unfinished_jobs(mag.place.store) for mag in layer.mags.values()
    )


def remove_dataset(dataset: Dataset, *, whole: bool) -> None:
    """Remove a dataset that was just made; without `whole` its folder stays, empty as it was."""
    if whole:
        remove_folder(str(dataset.path))
        return
    with os.scandir(dataset.path) as entries:
        for entry in entries:
            if entry.is_dir():
                remove_folder(entry.path)
            else:
                os.unlink(entry.path)
