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

import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wkdask.convert.image_plan import ConversionPlan, default_shard_side, plan_conversion
from wkdask.convert.stack import ImageStack, open_stack
from wkdask.dataset import Dataset
from wkdask.engines import LocalEngine, pick_engine
from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.events import Listener, WriteReport
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike
from wkdask.job import CallWindow, Job, Stage
from wkdask.layer import LayerCategories
from wkdask.progress import ProgressLike, listeners_for
from wkdask.properties import PROPERTIES_FILE, AddLayer
from wkdask.storage.assemble import move_voxels, publish_assembled
from wkdask.storage.fence import Attempt
from wkdask.storage.protocol import ArraySpec, StoredMag, check_coordinates
from wkdask.storage.wkw_format import header_of_spec
from wkdask.tasks import UnitReport, merge_reports
from wkdask.units import VoxelSize
from wkdask.writer import WriteOptions, run_planned

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["convert_images"]


# --- the tasks -----------------------------------------------------------------------------------------


def convert_part(
    stack: ImageStack,
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
    stack
        The files that hold the part's sections.
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
    from wkdask.kernels import block_stats

    start = time.perf_counter()
    origin = batches[0].topleft.z - first
    reports = []
    # Batches share chunks, which are read, changed and written back. A first attempt of this task that was thought
    # lost must not do so in the cubes that others fill: the batches come together in a mag of this attempt.
    shared = len(batches) == 1
    own = private if shared else private.staged(f"{folder}/part-{uuid.uuid4().hex}", raw=True)
    for box in batches:
        block = stack.read(box.topleft.z - origin, box.bottomright.z - origin, threads=threads)
        own.write_in_place(box, block, durable=durable and shared)
        low, high = block_stats(block)
        reports.append(UnitReport(unit=box, nbytes=block.nbytes, minimum=low, maximum=high))
        del block  # before the next one is decoded: two would not fit
    whole = reduce(merge_reports, reports)
    if not shared:
        move_voxels(own, private, whole.unit, durable=durable)
        remove_folder(own.path)
    return replace(whole, seconds=time.perf_counter() - start, worker=_worker())


def publish_part(
    store: StoredMag, private: StoredMag, folder: str, box: BoundingBox, durable: bool
) -> UnitReport:
    """Publish the private cubes that a unit covers."""
    start = time.perf_counter()
    cubes, file_nbytes = publish_assembled(
        store, private, folder, box, durable=durable, attempt=Attempt(f"publish {box}")
    )
    return UnitReport(
        unit=box,
        box=box,
        cubes=cubes,
        file_nbytes=file_nbytes,
        seconds=time.perf_counter() - start,
        worker=_worker(),
    )


def _worker() -> str:
    """Return host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


_Call = tuple[BoundingBox, Callable[..., UnitReport], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class _Conversion:
    """A job's stages, made one by one: no list of all tasks, and of the files only those of a task."""

    stack: ImageStack
    plan: ConversionPlan
    job: Job
    folder: str
    decoders: int
    """Threads that decode, where there are fewer parts than that."""
    private: dict[int, StoredMag] = field(default_factory=dict)
    """The private mags that exist, by the number of their slab."""

    def stages(self) -> list[Stage]:
        """Return the stages; a private mag is made when its stage begins."""
        slabs = self.plan.slabs
        counts = [(len(self.plan.parts(slab)), len(self.plan.units(slab))) for slab in slabs]
        return [
            Stage(
                (counts[number][0] if number < len(slabs) else 0) + (counts[number - 1][1] if number else 0),
                self._windows(number, slabs),
            )
            for number in range(len(slabs) + 1)
        ]

    def _windows(self, number: int, slabs: Sequence[BoundingBox]) -> Iterator[CallWindow]:
        """Yield the one window of a stage."""
        if number > 1:
            # All that published it has ended. Renamed away first: a task that was thought lost and comes to it
            # now fails.
            remove_folder(self.private.pop(number - 2).path)
        calls: list[_Call] = []
        if number:
            private = self.private[number - 1]
            calls += [
                (box, publish_part, (self.job.store, private, self.folder, box, self.job.durable))
                for box in self.plan.units(slabs[number - 1])
            ]
        if number < len(slabs):
            self.private[number] = self.job.store.staged(f"{self.folder}/slab-{number}", raw=True)
            calls += self._part_calls(slabs[number], self.private[number])
        yield CallWindow(calls, f"wkdask-convert-{self.folder[-12:]}-{number}")

    def _part_calls(self, slab: BoundingBox, private: StoredMag) -> Iterator[_Call]:
        """Yield the tasks that fill a slab."""
        parts = self.plan.parts(slab)
        threads = max(1, self.decoders // len(parts))
        corner = self.plan.write.box.topleft.z
        for part in parts:
            files, first = self.stack.subset(part.topleft.z - corner, part.bottomright.z - corner)
            batches = list(self.plan.batches(part))
            arguments = (files, first, private, self.folder, batches, threads, self.job.durable)
            yield part, convert_part, arguments


# --- the whole -----------------------------------------------------------------------------------------


def convert_images(
    inputs: Sequence[str | Path] | str | Path,
    dataset_path: str | os.PathLike[str],
    *,
    voxel_size: Sequence[float] | VoxelSize,
    layer_name: str = "color",
    category: str = LayerCategories.COLOR_TYPE,
    offset: Vec3IntLike = (0, 0, 0),
    compression: str | None = None,
    shard_shape: Vec3IntLike | int | None = None,
    chunk_shape: Vec3IntLike | int = 32,
    client: Client | None = None,
    progress: ProgressLike = None,
    listeners: Sequence[Listener] = (),
    durable: bool = True,
) -> WriteReport:
    """Make a layer of a stack of images: column is x, row is y, section is z.

    Every image is decoded once. The tasks run on the active :class:`distributed.Client`, or on local threads;
    the memory that they need does not depend on the number of images.

    Parameters
    ----------
    inputs
        TIFF, PNG or JPEG files, folders of them, or multi-page TIFFs, all in natural order (2.tif before
        10.tif); see :func:`wkdask.convert.stack.open_stack`.
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
    compression
        ``None``, ``"lz4"`` or ``"lz4hc"``.
    shard_shape
        Side of a cube in voxels; by default what `default_shard_side` says: 1024 for a large stack.
    chunk_shape
        Side of a chunk in voxels.
    client
        The cluster; the active one by default.
    progress
        As in :meth:`MagView.write`.
    listeners
        Called with the events of the job, beside those of `progress`.
    durable
        Flush to the disk before a cube counts as written.

    Returns
    -------
    WriteReport
        Box, cubes, bytes and extremes of what was written.

    Raises
    ------
    ImageStackError
        If the images are no stack; names the file. Nothing was written.
    AlreadyExistsError
        If the layer exists, or its folder. Nothing was written.
    InvalidValueError
        If the dataset has another voxel size, or an argument cannot work. Nothing was written.
    PlanError
        If a section or a cube does not fit in memory. Nothing was written.
    TaskFailedError
        If an image cannot be decoded; names the file. Slabs that were complete by then stay, and are in the
        layer's box; if there are none the layer is removed again.
    """
    stack = open_stack([inputs] if isinstance(inputs, str | Path) else inputs)
    size = voxel_size if isinstance(voxel_size, VoxelSize) else VoxelSize(tuple(voxel_size))  # type: ignore[arg-type]
    box = BoundingBox(offset, stack.shape[1:])
    spec = _spec(stack, compression, shard_shape, chunk_shape)
    check_coordinates(box, spec.shard_shape)
    _check_layer(stack, layer_name, category)
    engine = pick_engine(client)
    plan = plan_conversion(spec, box, threads=engine.threads, memory=engine.task_memory())

    dataset = _dataset(checked_path(dataset_path), size, layer_name)
    layer = dataset.add_layer(
        layer_name, category, dtype_per_channel=stack.dtype, num_channels=stack.num_channels
    )
    try:
        mag = layer.add_mag(
            1, chunk_shape=spec.chunk_shape, shard_shape=spec.shard_shape, compression=compression
        )
        # The threads of a worker are its user's choice; here the cores are ours.
        decoders = engine.threads if isinstance(engine, LocalEngine) else 1
        return run_planned(
            mag.place,
            plan.write,
            lambda job, folder: _Conversion(stack, plan, job, folder, decoders).stages(),
            engine,
            WriteOptions(client=client, durable=durable, listeners=[*listeners_for(progress), *listeners]),
            action="converting",
        )
    except BaseException:
        if layer.bounding_box.is_empty():  # nothing landed: the same call can be made again
            dataset.delete_layer(layer_name)
        raise


def _spec(
    stack: ImageStack,
    compression: str | None,
    shard_shape: Vec3IntLike | int | None,
    chunk_shape: Vec3IntLike | int,
) -> ArraySpec:
    """Return type and cut of the layer; refuse what WKW cannot hold."""
    import numpy as np

    chunk = Vec3Int.from_scalar_or_vec(chunk_shape)
    voxel_nbytes = stack.num_channels * np.dtype(stack.dtype).itemsize
    if shard_shape is None:
        shard_shape = default_shard_side(stack.shape[1:], voxel_nbytes, compression, max(chunk))
    spec = ArraySpec(
        dtype=stack.dtype,
        num_channels=stack.num_channels,
        chunk_shape=chunk,
        shard_shape=Vec3Int.from_scalar_or_vec(shard_shape),
        compression=compression,
    )
    header_of_spec(spec)
    return spec


def _check_layer(stack: ImageStack, name: str, category: str) -> None:
    """Refuse a layer that cannot be, before a dataset is made for it."""
    if category == LayerCategories.SEGMENTATION_TYPE and (
        stack.num_channels > 1 or stack.dtype.startswith("float")
    ):
        raise InvalidValueError(
            f"the ids of a segmentation are whole numbers in one channel, but {stack.sections[0].path} holds "
            f"{stack.dtype} in {stack.num_channels} channel(s); use the category color, or save the ids themselves"
        )
    edit = AddLayer(name, category, stack.dtype, stack.num_channels)
    edit.apply({"scale": {}, "version": 1, "dataLayers": []})


def _dataset(path: str, voxel_size: VoxelSize, layer_name: str) -> Dataset:
    """Return the dataset, made if there is none; refuse one that the layer cannot be added to."""
    properties = os.path.join(path, PROPERTIES_FILE)
    if not os.path.lexists(properties):
        try:
            return Dataset.create(path, voxel_size)
        except AlreadyExistsError:
            if not os.path.lexists(properties):  # else another process was faster
                raise
    dataset = Dataset(path)
    if layer_name in dataset.layers:
        raise AlreadyExistsError(
            f"{path} has a layer {layer_name!r} already; choose another name, or delete it first"
        )
    folder = os.path.join(path, layer_name)
    if os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise AlreadyExistsError(
            f"{folder} exists, but the properties list no layer {layer_name!r}; move it away first"
        )
    there, given = dataset.voxel_size.to_nanometer(), voxel_size.to_nanometer()
    if not all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(there, given, strict=True)):
        raise InvalidValueError(
            f"{path} has voxels of {dataset.voxel_size}, got {voxel_size}; all layers of a dataset share one size"
        )
    return dataset
