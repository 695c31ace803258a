"""A stack of 2-D images -> a layer: every image is decoded once, no slab is ever in memory.

Of each slab *parts*, one per layer of chunks, are decoded and written side by side into plain cubes in the
job's private folder; then these are published::

    stage 0   parts of slab 0
    stage 1   publish slab 0, parts of slab 1        while one slab is published the next is decoded, so that
    stage 2   publish slab 1, parts of slab 2        workers do not wait at the end of a slab; before it
    …         …                                      begins, the private cubes of slab 0 are removed
    stage n   publish slab n-1

No more than two slabs of private cubes exist at a time. For a plain target they take no extra room: a cube
is published by giving it its second name.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wkdask.convert.images.info import shown
from wkdask.convert.images.plan import ConversionPlan, plan_conversion
from wkdask.convert.images.selection import Selection, open_images
from wkdask.convert.target import add_mag, check_layer, open_target, same_cut, spec_of, viewer_notes
from wkdask.dataset import Dataset
from wkdask.errors import InvalidValueError, ResumeError, WkdaskWarning
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry import BoundingBox, Mag, Vec3IntLike
from wkdask.geometry.voxel_size import VoxelSize, as_voxel_size
from wkdask.jobs.driver import run_planned
from wkdask.jobs.engines.choice import LocalEngine, pick_engine
from wkdask.jobs.events import Listener, WriteReport
from wkdask.jobs.job import Job, WriteOptions
from wkdask.jobs.journal import Stream
from wkdask.jobs.resume import identify, previous_manifest
from wkdask.jobs.tasks import UnitReport, merge_reports, publish_assembled_unit
from wkdask.jobs.windows import CallWindow, Stage
from wkdask.layer import LayerCategories
from wkdask.mag_view import MagView
from wkdask.operations.write import PlannedWrite
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.storage.protocol import ArraySpec, StoredMag, check_coordinates
from wkdask.storage.publish.assemble import move_voxels
from wkdask.storage.publish.jobs import unfinished_jobs

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["convert_images", "notes_of", "plan_images"]


# --- the tasks -----------------------------------------------------------------------------------------


def convert_part(
    source: Selection,
    first: int,
    private: StoredMag,
    folder: str,
    batches: Sequence[BoundingBox],
    threads: int,
    durable: bool,
) -> UnitReport:
    """Decode the sections of a part, each once, into private cubes.

    Parameters
    ----------
    source
        The files that hold the part's sections, and what is taken of them.
    first
        Number of the part's first section in it.
    private
        A plain private mag.
    folder
        The job's private folder.
    batches
        What is decoded at once, from the first section on: absolute, in voxels of mag 1.
    threads
        How many images are decoded at a time.
    durable
        Flush what was written to the disk: a report of this task is relied on after a crash.
    """
    from wkdask.kernels import MinMax

    start = time.perf_counter()
    origin = batches[0].topleft.z - first
    reports = []
    # Batches share chunks, which are read, changed and written back. A first attempt of this task that was thought
    # lost must not do so in the cubes that others fill: the batches come together in a mag of this attempt.
    shared = len(batches) == 1
    own = private if shared else private.staged(f"{folder}/part-{uuid.uuid4().hex}", raw=True)
    for box in batches:
        block = source.read(box.topleft.z - origin, box.bottomright.z - origin, threads=threads)
        min_max = MinMax(block.dtype)
        own.write_in_place(box, block, durable=durable and shared, min_max=min_max)
        low, high = min_max.values or (None, None)
        reports.append(UnitReport(unit=box, nbytes=block.nbytes, minimum=low, maximum=high))
        del block  # before the next one is decoded: two would not fit
    whole = reduce(merge_reports, reports)
    if not shared:
        move_voxels(own, private, whole.unit, durable=durable)
        remove_folder(own.path)
    return replace(whole, seconds=time.perf_counter() - start, worker=_worker())


def _worker() -> str:
    """Return host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class _Conversion:
    """A job's stages, made one by one: no list of all tasks, and of the files only those of a task."""

    source: Selection
    plan: ConversionPlan
    job: Job
    folder: str
    decoders: int
    """Threads that decode, where there are fewer parts than that."""

    def stages(self) -> list[Stage]:
        """Return the stages; a private mag is made when its stage begins."""
        slabs = self.plan.slabs
        return [self._stage(number, slabs) for number in range(len(slabs) + 1)]

    def _stage(self, number: int, slabs: Sequence[BoundingBox]) -> Stage:
        """Return the stage that publishes one slab and decodes the next."""
        streams = []
        if number:
            streams.append(Stream(2 * number - 1, self.plan.write.unit, slabs[number - 1]))
        if number < len(slabs):
            streams.append(Stream(2 * number, self.plan.part_grid, slabs[number]))
        return Stage(sum(map(len, streams)), self._windows(number, slabs, streams), tuple(streams))

    def _windows(
        self, number: int, slabs: Sequence[BoundingBox], streams: list[Stream]
    ) -> Iterator[CallWindow]:
        """Yield the windows of a stage: what publishes, and what decodes."""
        if number > 1:
            # All that published it has ended. Renamed away first: a task that was thought lost and comes to it
            # now fails.
            remove_folder(self._private_path(number - 2))
        name = f"wkdask-convert-{self.folder[-12:]}-{number}"
        if number:
            publish = partial(self._publish_call, self._private(number - 1))
            yield CallWindow(list(self.plan.units(slabs[number - 1])), publish, f"{name}-publish", streams[0])
        if number < len(slabs):
            parts = self.plan.parts(slabs[number])
            threads = max(1, self.decoders // len(parts))
            decode = partial(self._part_call, self._private(number), threads)
            yield CallWindow(parts, decode, f"{name}-decode", streams[-1])

    def _private_path(self, number: int) -> str:
        """Return where the private mag of a slab is."""
        return f"{self.folder}/slab-{number}"

    def _private(self, number: int) -> StoredMag:
        """Return the private mag of a slab, made if it is not there."""
        return self.job.store.staged(self._private_path(number), raw=True)

    def _publish_call(self, private: StoredMag, box: BoundingBox) -> tuple[Any, ...]:
        """Return the task that publishes cubes of a slab."""
        return (publish_assembled_unit, self.job.store, private, self.folder, box, self.job.durable)

    def _part_call(self, private: StoredMag, threads: int, part: BoundingBox) -> tuple[Any, ...]:
        """Return the task that fills a part of a slab."""
        corner = self.plan.write.box.topleft.z
        files, first = self.source.subset(part.topleft.z - corner, part.bottomright.z - corner)
        batches = list(self.plan.batches(part))
        return (convert_part, files, first, private, self.folder, batches, threads, self.job.durable)


# --- the whole -----------------------------------------------------------------------------------------


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
        10.tif); see :func:`wkdask.convert.images.stack.open_stack`. RGB is three channels (uint24). Images with
        transparency are refused: what is behind it is unknown. The files of one OME-TIFF set are one stack.
        Or what :func:`wkdask.convert.images.selection.open_images` returned, which has printed its notes already.
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
    memory = engine.task_memory()
    image_nbytes = source.image_nbytes
    plan = plan_conversion(spec, box, threads=engine.threads, memory=memory, image_nbytes=image_nbytes)
    folder = checked_path(dataset_path)
    is_new_dataset = not os.path.lexists(folder)
    dataset = open_target(folder, size, layer_name, resume=resume)
    is_new_layer, mag = layer_name not in dataset.layers, None
    name = f"{source.depth} sections from {shown(source.first_file.path)} on ({source.digest})"
    try:
        mag = _mag(dataset, layer_name, category, spec, resume=resume)
        identity = identify(mag.place, box, name, options, name=name)
        previous = previous_manifest(mag.place, box, identity, options)
        if previous is not None and previous.part is not None:
            plan = plan_conversion(
                spec,
                box,
                threads=engine.threads,
                memory=memory,
                unit=previous.unit,
                slab_depth=previous.part.z,
                image_nbytes=image_nbytes,
            )
        # The threads of a worker are its user's choice; here the cores are ours.
        decoders = engine.threads if isinstance(engine, LocalEngine) else 1
        run = Job.of(
            mag.place,
            plan.write,
            "converting",
            options,
            identity=identity,
            part=box.size.with_z(plan.slab_depth),
            private_nbytes=0 if spec.compression is None else plan.private_nbytes,
        )
        return run_planned(
            run,
            lambda folders: _Conversion(source, plan, run, folders.main, decoders).stages(),
            engine,
            options.listeners,
        )
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
    memory = engine.task_memory()
    plan = plan_conversion(
        spec,
        source.box.offset(offset),
        threads=engine.threads,
        memory=memory,
        image_nbytes=source.image_nbytes,
    )
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
