"""Zarr arrays and OME-Zarr images of other programs -> layers: every scale becomes a mag, none is computed.

What is there is printed first (`open_scales`). Then each scale is a lazy array, written as any other is: one task
per cube, in bounded memory, to be resumed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.arrays.lazy import LazySource
from wkdask.convert.scales import ScaledLayer, Scales, open_scales
from wkdask.convert.target import open_target
from wkdask.dataset import Dataset
from wkdask.errors import (
    AlreadyExistsError,
    JobRunningError,
    PlanError,
    ResumeError,
    WkdaskError,
    WkdaskWarning,
)
from wkdask.external.foreign import Scale
from wkdask.external.target import add_mag, check_layer, note_min_max, same_cut, spec_of
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.geometry.grid import block_shape_near, chunks_on_grid
from wkdask.geometry.voxel_size import VoxelSize, format_bytes
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import WriteOptions
from wkdask.jobs.plan import plan_write
from wkdask.layer import LayerCategories
from wkdask.mag_view import MagView
from wkdask.operations.write import PlannedWrite, write_voxels
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.storage.protocol import ArraySpec, check_coordinates
from wkdask.storage.publish.jobs import unfinished_jobs

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client

__all__ = ["convert_scales", "convert_zarr", "plan_scales"]

_BLOCK_NBYTES = 128 << 20
"""A block that is read at a time has no more bytes than this."""
_LEAST_NBYTES = 4 << 20
"""And is not made smaller than this for the sake of more threads."""


def convert_zarr(
    path: str | os.PathLike[str],
    dataset_path: str | os.PathLike[str],
    *,
    voxel_size: Sequence[float] | VoxelSize | None = None,
    layer_name: str = "color",
    category: str = LayerCategories.COLOR_TYPE,
    offset: Vec3IntLike | None = None,
    bbox: BoundingBox | None = None,
    axes: str | None = None,
    labels: bool = True,
    together: bool = False,
    dtype: str | None = None,
    data_format: str = "wkw",
    compression: str | bool | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunk_shape: Vec3IntLike | int | None = None,
    client: Client | None = None,
    progress: ProgressLike = None,
    durable: bool = True,
    resume: bool = False,
) -> list[WriteReport]:
    """Make layers of an OME-Zarr image (0.4 or 0.5) and its labels, or a layer of one Zarr array.

    Every scale whose voxels are whole multiples of the finest scale's (powers of two, as mags are) becomes a mag,
    as it is; a warning names the others. The tasks, one per cube or part of it, run on the active
    :class:`distributed.Client`, or on local threads.

    Parameters
    ----------
    path
        Folder of the image or array, or a zip file (``.zip``, ``.ozx``) of one. Of a layer of a WEBKNOSSOS dataset
        that is stored as Zarr, the layer's box is taken, not all of its whole cubes.
    dataset_path
        The dataset's folder; a dataset is made there if there is none.
    voxel_size
        Size of a voxel of the finest scale along (x, y, z), in nm, or a `VoxelSize`. By default as the image says,
        in its unit (in nm where its axes have several); an array, and an image without units, needs it.
    layer_name, category
        Of the image. Labels are segmentations of their own names.
    offset
        Where the first voxel of the finest scale goes: absolute, in voxels of mag 1. By default where its
        translation says.
    bbox
        The part that is converted, in voxels of the finest scale; of coarser ones what touches it. It keeps its
        place.
    axes
        A letter of t, c, z, y, x for each dimension. By default as the metadata say, or for an array that does not
        name them ``yx``, ``zyx``, ``czyx`` or ``tczyx``. There may be one time point only.
    labels
        Whether the images in ``labels/`` become layers too.
    together
        Keep all channels in one layer. By default only three of uint8, which are shown as colours (RGB), and those
        of a layer of a WEBKNOSSOS dataset; of others each becomes a layer, named by its number: ``color_0``.
    dtype
        Type of the image's layers; that of the array by default. Floats are rounded to it; integers must fit, which
        is checked voxel by voxel. Labels keep their type, but masks, of bool or of floats that are 0 and 1, which
        become uint8.
    data_format, compression, shard_shape, chunk_shape
        How the layers are stored; as for :func:`wkdask.convert.images.convert_images`.
    client, progress, durable
        As in :meth:`MagView.write`.
    resume
        Go on with the layers where an earlier call of the same path stopped; of mags that it had ended the reports
        are returned.

    Returns
    -------
    list of WriteReport
        One for each mag that was written.

    Raises
    ------
    DamagedHeaderError, UnsupportedFormatError, DTypeError, InvalidValueError
        If the image cannot become a layer, or an argument cannot work. Nothing was written.
    AlreadyExistsError
        If a layer exists, or its folder. Nothing was written.
    PlanError
        If a cube, or a chunk of the array, does not fit in memory.
    TaskFailedError
        If voxels cannot be read. A mag without a published cube is removed; another can be resumed.

    Warns
    -----
    WkdaskWarning
        For each scale, or labels, that are left out or taken for what they do not say; and for what WEBKNOSSOS does
        not show.
    """
    source = open_scales(
        path,
        voxel_size=voxel_size,
        layer_name=layer_name,
        category=category,
        offset=offset,
        bbox=bbox,
        axes=axes,
        labels=labels,
        together=together,
        dtype=dtype,
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


def convert_scales(
    source: Scales,
    dataset_path: str | os.PathLike[str],
    *,
    data_format: str = "wkw",
    compression: str | bool | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunk_shape: Vec3IntLike | int | None = None,
    client: Client | None = None,
    progress: ProgressLike = None,
    durable: bool = True,
    resume: bool = False,
) -> list[WriteReport]:
    """Make the layers that `open_scales` has found.

    Parameters
    ----------
    source
        What it returned.
    dataset_path, data_format, compression, shard_shape, chunk_shape, client, progress, durable, resume
        As for `convert_zarr`.

    Raises
    ------
    WkdaskError
        As there.
    """
    folder = checked_path(dataset_path)
    engine = pick_engine(client)
    threads, memory = engine.threads, engine.task_memory()
    specs = _specs(source, data_format, compression, shard_shape, chunk_shape)
    work = list(zip(source.layers, specs, strict=True))
    for layer, spec in work:  # all is checked before anything is written
        for scale in layer.scales:
            _block_shape(scale, spec, threads, memory)
    is_new = not os.path.lexists(folder)
    try:
        datasets = [open_target(folder, source.voxel_size, layer.name, resume=resume) for layer, _ in work]
        reports = []
        for dataset, (layer, spec) in zip(datasets, work, strict=True):
            for scale in layer.scales:
                mag, is_new_mag = _mag(dataset, layer, scale, spec)
                options = WriteOptions(
                    client=client,
                    durable=durable,
                    resume=resume,
                    # The blocks depend on threads and memory; the job is the same whatever these are.
                    job=f"conversion of {scale.array.path} ({_digest(scale)})",
                    overwrite=False,
                    listeners=listeners_for(progress),
                )
                blocks = _block_shape(scale, spec, threads, memory)
                reports.append(_write(mag, scale, blocks, options, is_new_mag))
                if scale is layer.scales[0]:
                    note_min_max(mag.layer, reports[-1])
    except BaseException:
        with contextlib.suppress(OSError, WkdaskError):  # the first error is the cause
            if is_new and not Dataset(folder).layers:
                remove_folder(folder)  # nothing landed
        raise
    return reports


def plan_scales(
    source: Scales,
    *,
    data_format: str = "wkw",
    compression: str | bool | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunk_shape: Vec3IntLike | int | None = None,
    client: Client | None = None,
) -> list[PlannedWrite]:
    """Say what `convert_scales` would do with the same arguments, mag by mag; nothing is written.

    Parameters
    ----------
    source, data_format, compression, shard_shape, chunk_shape, client
        As there.

    Raises
    ------
    WkdaskError
        As there.
    """
    engine = pick_engine(client)
    threads, memory = engine.threads, engine.task_memory()
    planned = []
    for layer, spec in zip(
        source.layers, _specs(source, data_format, compression, shard_shape, chunk_shape), strict=True
    ):
        for scale in layer.scales:
            blocks = chunks_on_grid(scale.box, _block_shape(scale, spec, threads, memory))
            plan = plan_write(
                spec, scale.box, source_chunks=blocks, threads=threads, memory=memory, in_parts=True
            )
            label = f"layer {layer.name!r} mag {scale.mag}"
            planned.append(PlannedWrite(label, plan, engine, memory, reads_target=False))
    return planned


def _specs(
    source: Scales,
    data_format: str,
    compression: str | bool | None,
    shard_shape: Vec3IntLike | int | None,
    chunk_shape: Vec3IntLike | int | None,
) -> list[ArraySpec]:
    """Return type and cut of the mags of each layer; refuse layers that cannot be."""
    specs = []
    for layer in source.layers:
        finest = layer.scales[0]
        spec = spec_of(
            data_format,
            layer.spec.dtype,
            layer.spec.num_channels,
            finest.box.from_mag_to_mag1(finest.mag).size,
            compression=compression,
            shard_shape=shard_shape,
            chunk_shape=chunk_shape,
        )
        check_layer(layer.name, layer.category, spec.dtype, spec.num_channels, finest.array.path)
        for scale in layer.scales:
            check_coordinates(scale.box, spec.shard_shape)
        specs.append(spec)
    return specs


def _write(mag: MagView, scale: Scale, blocks: Vec3Int, options: WriteOptions, is_new: bool) -> WriteReport:
    """Fill a mag; remove a new one where nothing of it landed, or what did would be taken for all there is."""
    try:
        return write_voxels(mag.place, _lazy(scale, blocks), scale.box, options)
    except BaseException as error:
        landed = next(mag.cubes_on_disk(), None) is not None
        unfinished = bool(unfinished_jobs(mag.place.store))
        own = is_new or (unfinished and not isinstance(error, AlreadyExistsError | JobRunningError))
        if own and (not unfinished or (isinstance(error, Exception) and not landed)):
            layer = mag.layer
            layer.delete_mag(scale.mag)
            if not layer.mags:
                layer.dataset.delete_layer(layer.name)
        raise


def _mag(dataset: Dataset, layer: ScaledLayer, scale: Scale, spec: ArraySpec) -> tuple[MagView, bool]:
    """Return the mag that a scale is written to, and whether it was made now; else an earlier call has made it."""
    if layer.name not in dataset.layers:
        dataset.add_layer(
            layer.name,
            layer.category,
            dtype_per_channel=spec.dtype,
            num_channels=spec.num_channels,
            data_format=spec.data_format,
        )
    found = dataset.get_layer(layer.name)
    if scale.mag not in found.mags:
        return add_mag(found, scale.mag, spec), True
    mag = found.get_mag(scale.mag)
    if not same_cut(mag.spec, spec):
        raise ResumeError(
            f"layer {layer.name!r} is not what this call would make: it holds {mag.spec}, the array needs {spec}"
        )
    return mag, False


def _block_shape(scale: Scale, spec: ArraySpec, threads: int, memory: int | None) -> Vec3Int:
    """Return the shape of the blocks that a scale is read in.

    They lie on the grid of the mag's cubes, and are at least chunks of the array, so that these are decoded once
    where both grids allow it. There are some for every thread.

    Raises
    ------
    PlanError
        If a chunk of the array does not fit in memory.
    """
    start, array = spec.shard_shape, scale.array
    if all(count & (count - 1) == 0 for count in spec.shard_shape // spec.chunk_shape):
        # The smallest part of a cube, halved and halved again, that holds a chunk of the array.
        start = Vec3Int(
            min(cube, chunk << (-(-wanted // chunk) - 1).bit_length())
            for cube, chunk, wanted in zip(spec.shard_shape, spec.chunk_shape, array.chunk, strict=True)
        )
    nbytes = scale.box.volume() * spec.bytes_per_voxel
    least = max(_LEAST_NBYTES, start.pairmin(scale.box.size).prod() * spec.bytes_per_voxel)
    limit = min(_BLOCK_NBYTES, max(least, nbytes // (4 * threads)))
    if memory is not None:
        # A task holds a block, a copy in the order of the file, and what it is decoded from.
        more = max(1, array.stored_nbytes // spec.bytes_per_voxel)  # where it is read as a smaller type
        limit = min(limit, (memory - array.decoding_nbytes) // (3 * more))
    if memory is not None and limit < spec.chunk_shape.prod() * spec.bytes_per_voxel:
        raise PlanError(
            f"{array.path} is compressed in chunks of {array.chunk.to_tuple()} voxels, which take "
            f"{format_bytes(array.decoding_nbytes)} to decode; only {format_bytes(memory)} are there for each "
            f"task: use fewer threads per worker, or workers with more memory"
        )
    return block_shape_near(start, spec.chunk_shape, spec.bytes_per_voxel, limit, scale.box.size)


def _lazy(scale: Scale, blocks: Vec3Int) -> da.Array:
    """Return what is taken of a scale as a dask array ``(c, x, y, z)``; its name is the same in every process."""
    import dask.array as da

    array, box = scale.array, scale.box
    token = f"{_digest(scale)}-{'-'.join(map(str, blocks))}"
    dtype: np.dtype[Any] = np.dtype(array.spec.dtype)
    return da.from_array(
        LazySource(array, box.offset(-scale.corner), token),
        chunks=((array.spec.num_channels,), *chunks_on_grid(box, blocks)),
        name=f"wkdask-convert-{token}",
        fancy=True,  # only then does dask push slices down
        inline_array=True,
        lock=False,
        asarray=False,
        meta=np.empty((0, 0, 0, 0), dtype=dtype),
    )


def _digest(scale: Scale) -> str:
    """Return a short text that is the same for the same conversion of the same array, by its path."""
    array = scale.array
    what = (array.path, array.axes, array.channel, array.stored, array.is_mask, array.size, array.spec)
    text = "|".join(map(str, (*what, array.how, scale.corner, scale.box)))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
