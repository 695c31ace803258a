"""A stack of 2-D images -> a layer of a dataset that is made if there is none; planned, or done."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wkdask.convert.target import open_target
from wkdask.dataset import Dataset
from wkdask.errors import InvalidValueError, ResumeError, WkdaskWarning
from wkdask.external.images.info import shown
from wkdask.external.images.job import fill_mag, plan_source
from wkdask.external.images.selection import Selection, open_images
from wkdask.external.target import add_mag, check_layer, note_min_max, same_cut, spec_of, viewer_notes
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry import BoundingBox, Mag, Vec3IntLike
from wkdask.geometry.voxel_size import VoxelSize, as_voxel_size
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.events import Listener, WriteReport
from wkdask.jobs.job import WriteOptions
from wkdask.layer import LayerCategories
from wkdask.mag_view import MagView
from wkdask.operations.write import PlannedWrite
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.storage.protocol import ArraySpec, check_coordinates
from wkdask.storage.publish.jobs import unfinished_jobs

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["convert_images", "notes_of", "plan_images"]


def convert_images(
    inputs: Sequence[str | Path] | str | Path | Selection,
    dataset_path: str | os.PathLike[str],
    *,
    voxel_size: Sequence[float] | VoxelSize,
    layer_name: str = "color",
    category: str = LayerCategories.COLOR_TYPE,
    offset: Vec3IntLike = (0, 0, 0),
    bbox: BoundingBox | None = None,
    dtype: str | None = None,
    rescale: Sequence[float] | None = None,
    gaps: str = "close",
    page: int | str | None = None,
    series: int | None = None,
    orient: bool = False,
    tiles: str = "refuse",
    data_format: str = "wkw",
    compression: str | bool | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunk_shape: Vec3IntLike | int | None = None,
    client: Client | None = None,
    progress: ProgressLike = None,
    listeners: Sequence[Listener] = (),
    durable: bool = True,
    resume: bool = False,
    job: str | None = None,
) -> WriteReport:
    """Make a layer of a stack of images: column is x, row is y, section is z.

    Every image is decoded once. The tasks run on the active :class:`distributed.Client`, or on local threads;
    the memory that they need does not depend on the number of images.

    Parameters
    ----------
    inputs
        TIFF, PNG or JPEG files, folders of them, or multi-page TIFFs, all in natural order (2.tif before
        10.tif); see :func:`wkdask.external.images.stack.open_stack`. RGB is three channels (uint24). Images with
        transparency are refused: what is behind it is unknown. The files of one OME-TIFF set are one stack.
        Or what :func:`wkdask.external.images.selection.open_images` returned, which has printed its notes already.
    dataset_path
        The dataset's folder; a dataset is made there if there is none.
    voxel_size
        Size of a voxel of mag 1 along (x, y, z), in nm, or a `VoxelSize`.
    layer_name
        Name of the new layer.
    category
        ``"color"`` or ``"segmentation"``; the largest id of a segmentation is that of the images.
    offset
        Where the first image's first pixel goes: (x, y, z), absolute, in voxels of mag 1.
    bbox
        The part of the stack that is converted, in voxels of the stack; all by default. Its voxels go where they
        would go if all were converted. Images outside of it are not decoded, of a TIFF only the strips and tiles
        that it touches.
    dtype
        Type of the layer; that of the images by default, or one that holds every value of it.
    rescale
        Two values: the first becomes 0, the second the largest of `dtype` (``"uint8"``, ``"uint16"`` or
        ``"uint32"``), others in proportion, rounded, and what is below or above is cut off there. Without it no
        value changes.
    gaps
        What becomes of numbers that are missing in the names: ``"close"``, the sections after them move up;
        ``"keep"``, empty sections stay in their place; ``"refuse"``, also where two names have the same number.
    page
        Which pages of every file are taken, counted from 1: ``3``, ``"2-7"``, ``"2-"`` or, every second one,
        ``"1-9:2"``. Of an animated PNG, or a JPEG of several images, only the first.
    series
        Which group of alike pages of every file is taken, counted from 1, where there are several.
    orient
        Turn images as their orientation tag (TIFF, Exif) says.
    tiles
        What becomes of images that are tiles of sections by their names: ``"refuse"``; ``"join"``, those of a
        section are put side by side; ``"sections"``, each is taken for a section.
    data_format
        How the layer is stored: ``"wkw"``, ``"zarr3"`` or ``"zarr"``.
    compression
        As for :meth:`Layer.add_mag`: in WKW ``"lz4"``, ``"lz4hc"`` or none, which is the default; in Zarr
        ``"zstd"``, which is the default, ``"gzip"`` or ``"blosc"``, False for none.
    shard_shape
        Sides of a cube in voxels; by default what `default_shard_side` says: 1024 for a large stack; in Zarr 2,
        where every chunk is a file, those of a chunk.
    chunk_shape
        Sides of a chunk in voxels, 32 by default.
    client
        The cluster; the active one by default.
    progress
        As in :meth:`MagView.write`.
    listeners
        Called with the events of the job, beside those of `progress`.
    durable
        Flush to the disk before a cube counts as written.
    resume
        Go on with the layer where an earlier call with the same files stopped; if that came to its end, its report
        is returned. Files are taken for the same by their paths: one that could not be decoded may have been
        repaired meanwhile.
    job
        A name of your own by which the earlier call is recognised, where the files have moved.

    Returns
    -------
    WriteReport
        Box, cubes, bytes and min/max of what was written.

    Raises
    ------
    ImageStackError
        If the images are no stack; names the file. Nothing was written.
    AlreadyExistsError
        If the layer exists, or its folder; with `resume`, if another call wrote it. Nothing was written.
    InvalidValueError
        If the dataset has another voxel size, or an argument cannot work. Nothing was written.
    PlanError
        If a section or a cube does not fit in memory. Nothing was written.
    TaskFailedError
        If an image cannot be decoded; names the file. Slabs that were complete by then stay, and are in the
        layer's box; if there are none the layer is removed again.

    Warns
    -----
    WkdaskWarning
        For all that is left out, guessed or taken otherwise than one may expect: gaps and doubles in the numbers,
        pages and files that are left out, orientations, white that is 0, what WEBKNOSSOS does not show.
    """
    choices: dict[str, Any] = {"bbox": bbox, "dtype": dtype, "rescale": rescale, "gaps": gaps, "page": page}
    choices |= {"series": series, "orient": orient, "tiles": tiles}
    source = _opened(inputs, category, choices)
    size = as_voxel_size(voxel_size)
    box = source.box.offset(offset)
    spec = spec_of(
        data_format,
        source.dtype,
        source.num_channels,
        box.size,
        compression=compression,
        shard_shape=shard_shape,
        chunk_shape=chunk_shape,
    )
    check_coordinates(box, spec.shard_shape)
    check_layer(layer_name, category, source.dtype, source.num_channels, shown(source.first_file.path))
    options = WriteOptions(
        client=client,
        durable=durable,
        resume=resume,
        job=job,
        overwrite=False,
        listeners=[*listeners_for(progress), *listeners],
    )
    engine = pick_engine(client)
    plan = plan_source(source, spec, box, engine)
    folder = checked_path(dataset_path)
    is_new_dataset = not os.path.lexists(folder)
    dataset = open_target(folder, size, layer_name, resume=resume)
    is_new_layer, mag = layer_name not in dataset.layers, None
    try:
        mag = _mag(dataset, layer_name, category, spec, resume=resume)
        report = fill_mag(mag.place, source, plan, engine, options)
    except BaseException as error:
        interrupted = (
            not isinstance(error, Exception) and mag is not None and unfinished_jobs(mag.place.store)
        )
        landed = mag is not None and not mag.layer.bounding_box.is_empty()
        if is_new_layer and not interrupted and not landed:  # then the same call can be made again
            if is_new_dataset:
                remove_folder(folder)
            elif layer_name in dataset.layers:
                dataset.delete_layer(layer_name)
        raise
    note_min_max(mag.layer, report)
    return report


def notes_of(source: Selection, category: str) -> list[str]:
    """Return the notes on a selection that becomes a layer."""
    return [*source.notes, *viewer_notes(category, source.dtype, source.num_channels)]


def _opened(
    inputs: Sequence[str | Path] | str | Path | Selection, category: str, choices: dict[str, Any]
) -> Selection:
    """Open images, and warn of their notes; images that are open already are taken as they are."""
    if isinstance(inputs, Selection):
        usual = {"gaps": "close", "orient": False, "tiles": "refuse"}
        given = [name for name, value in choices.items() if value != usual.get(name)]
        if given:
            raise InvalidValueError(f"the images are opened already: give {', '.join(given)} to open_images")
        return inputs
    source = open_images(inputs, **choices)
    for note in notes_of(source, category):
        warnings.warn(note, WkdaskWarning, stacklevel=3)
    return source


def plan_images(
    inputs: Sequence[str | Path] | str | Path | Selection,
    *,
    layer_name: str = "color",
    category: str = LayerCategories.COLOR_TYPE,
    offset: Vec3IntLike = (0, 0, 0),
    bbox: BoundingBox | None = None,
    dtype: str | None = None,
    rescale: Sequence[float] | None = None,
    gaps: str = "close",
    page: int | str | None = None,
    series: int | None = None,
    orient: bool = False,
    tiles: str = "refuse",
    data_format: str = "wkw",
    compression: str | bool | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunk_shape: Vec3IntLike | int | None = None,
    client: Client | None = None,
) -> PlannedWrite:
    """Say what :func:`convert_images` would do with the same arguments; nothing is written.

    Parameters
    ----------
    inputs, layer_name, category, offset, bbox, dtype, rescale, gaps, page, series, orient, tiles, data_format, \
    compression, shard_shape, chunk_shape, client
        As for `convert_images`.

    Raises
    ------
    ImageStackError, PlanError
        As there.

    Warns
    -----
    WkdaskWarning
        As there.
    """
    choices: dict[str, Any] = {"bbox": bbox, "dtype": dtype, "rescale": rescale, "gaps": gaps, "page": page}
    choices |= {"series": series, "orient": orient, "tiles": tiles}
    source = _opened(inputs, category, choices)
    spec = spec_of(
        data_format,
        source.dtype,
        source.num_channels,
        source.box.size,
        compression=compression,
        shard_shape=shard_shape,
        chunk_shape=chunk_shape,
    )
    engine = pick_engine(client)
    plan = plan_source(source, spec, source.box.offset(offset), engine)
    memory = engine.task_memory()
    return PlannedWrite(f"layer {layer_name!r} mag 1", plan.write, engine, memory, reads_target=False)


def _mag(dataset: Dataset, name: str, category: str, spec: ArraySpec, *, resume: bool) -> MagView:
    """Return the mag that is to be filled; that of an earlier call only with `resume`."""
    if name in dataset.layers:
        layer = dataset.get_layer(name)
        if Mag(1) in layer.mags:
            mag = layer.get_mag(1)
            if not same_cut(mag.spec, spec):
                raise ResumeError(
                    f"layer {name!r} is not what this call would make: it holds {mag.spec}, the images need {spec}"
                )
            return mag
    else:
        with warnings.catch_warnings():  # what is not shown is said once, with what would make it
            warnings.filterwarnings("ignore", ".*webknossos 4 does not make", WkdaskWarning)
            layer = dataset.add_layer(
                name,
                category,
                dtype_per_channel=spec.dtype,
                num_channels=spec.num_channels,
                data_format=spec.data_format,
            )
    return add_mag(layer, 1, spec)
