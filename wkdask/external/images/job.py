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

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

from wkdask.external.images.info import shown
from wkdask.external.images.plan import ConversionPlan, plan_conversion
from wkdask.external.images.selection import Selection
from wkdask.fsio import remove_folder
from wkdask.geometry import BoundingBox
from wkdask.jobs.driver import run_planned
from wkdask.jobs.engines.choice import LocalEngine
from wkdask.jobs.engines.protocol import Engine
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import Job, MagPlace, WriteOptions
from wkdask.jobs.journal import Stream
from wkdask.jobs.resume import identify, previous_manifest
from wkdask.jobs.tasks import UnitReport, ended, merge_reports, publish_assembled_unit
from wkdask.jobs.windows import CallWindow, Stage, task_name
from wkdask.storage.protocol import ArraySpec, StoredMag
from wkdask.storage.publish.assemble import move_voxels

__all__ = ["fill_mag", "plan_source"]


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
    # Batches share chunks: each reads, changes and rewrites them. A first attempt of this task that was thought
    # lost may still run, and must not do so in the same cubes: each attempt has a private mag for its batches.
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
    return ended(whole.unit, start, nbytes=whole.nbytes, minimum=whole.minimum, maximum=whole.maximum)


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
        name = f"{task_name('convert', self.folder)}-{self.folder[-12:]}-{number}"
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


# --- the job -------------------------------------------------------------------------------------------


def plan_source(
    source: Selection, spec: ArraySpec, box: BoundingBox, engine: Engine, **given: Any
) -> ConversionPlan:
    """Plan how images fill a mag; errors as `plan_conversion`.

    Parameters
    ----------
    source
        The images.
    spec
        Type and chunk layout of the mag.
    box
        Where they go: absolute, in voxels of the mag.
    engine
        What the tasks run on.
    **given
        How the job was cut that is resumed.
    """
    return plan_conversion(
        spec,
        box,
        threads=engine.threads,
        memory=engine.task_memory(),
        image_nbytes=source.image_nbytes,
        **given,
    )


def fill_mag(
    place: MagPlace, source: Selection, plan: ConversionPlan, engine: Engine, options: WriteOptions
) -> WriteReport:
    """Fill a mag with images.

    Parameters
    ----------
    place
        The mag, which is there.
    source
        The images.
    plan
        What `plan_source` returned; a job that is resumed stays cut as it was.
    engine
        What the tasks run on.
    options
        How the job is run.

    Raises
    ------
    ResumeError
        If the unfinished job of the mag is another one.
    TaskFailedError
        If an image cannot be decoded; names the file.
    """
    box, spec = plan.write.box, place.store.spec
    name = f"{source.depth} sections from {shown(source.first_file.path)} on ({source.digest})"
    identity = identify(place, box, name, options, name=name)
    previous = previous_manifest(place, box, identity, options)
    if previous is not None and previous.part is not None:
        cut = {"unit": previous.unit, "slab_depth": previous.part.z}
        plan = plan_source(source, spec, box, engine, **cut)
    # The threads of a worker are its user's choice; here the cores are ours.
    decoders = engine.threads if isinstance(engine, LocalEngine) else 1
    run = Job.of(
        place,
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
