"""An export, from plan to report: units as tasks that own no cubes, a journal of their own, one name at the end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

from wkdask import settings
from wkdask.errors import AlreadyExistsError, InvalidValueError, ResumeError, SpaceError, WkdaskWarning
from wkdask.export.extract import Extract
from wkdask.export.folder import ExportFolder, Manifest, held_folder
from wkdask.export.formats import format_of_name, writer_of
from wkdask.export.writer import Cut, Writer
from wkdask.fsio import checked_path, free_bytes, fsync_folder, is_there, remove_folder
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.geometry.voxel_size import VoxelSize, format_bytes, format_count, format_rate
from wkdask.jobs.driver import open_sources
from wkdask.jobs.engines.choice import Engine
from wkdask.jobs.events import html_table
from wkdask.jobs.job import MagPlace, WriteOptions
from wkdask.jobs.plan import plan_again
from wkdask.jobs.tasks import UnitReport, ended
from wkdask.jobs.unwritten import stream_unwritten
from wkdask.jobs.windows import listed_windows, task_name
from wkdask.properties import load
from wkdask.storage.protocol import ArraySpec

__all__ = ["ExportPlan", "ExportReport", "export", "plan_export"]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export made; made by :meth:`MagView.export`."""

    label: str
    """Layer and mag."""
    path: str
    """The file, or the folder of files."""
    bounding_box: BoundingBox
    """What was exported, in voxels of mag 1."""
    files: int
    """Files."""
    bytes: int
    """Bytes of the voxels, uncompressed."""
    file_bytes: int
    """Bytes of the files."""
    seconds: float
    """From the plan to the last file."""
    notes: tuple[str, ...] = ()
    """What the files do not say, or say in a way of their own."""
    was_finished: bool = False
    """Whether the same export had ended before, and nothing was done now."""

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, value) pairs to show."""
        return [
            ("Exported", f"{self.label} to {self.path}"),
            ("Bounding box", f"{self.bounding_box} (voxels of mag 1)"),
            ("Files", f"{self.files}, {format_bytes(self.file_bytes)}"),
            ("Voxels", format_bytes(self.bytes)),
            *([("State", "finished by an earlier run; nothing was done")] if self.was_finished else []),
            ("Time", f"{self.seconds:.2f} s, {format_rate(self.bytes, self.seconds)}"),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{name:<13}: {value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        return html_table(self.rows())


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What an export will do; made by `plan_export`, shown by printing it."""

    place: MagPlace
    """The mag."""
    writer: Writer
    """The format, and what is written in it."""
    cut: Cut
    """The units of its tasks."""
    engine: Engine
    """Where they run."""
    memory: int | None
    """Bytes that one task may use; None where unknown."""

    @property
    def label(self) -> str:
        """What goes where."""
        return f"{self.place.label} to {self.writer.target}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the files do not say, and what takes longer than one may expect."""
        return (*self.writer.notes, *self.cut.notes)

    @property
    def num_cubes(self) -> int:
        """Cubes of the mag that are read."""
        return len(self.place.store.spec.grid.cubes(self.writer.extract.box))

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, value) pairs to show."""
        extract = self.writer.extract
        limit = "" if self.memory is None else f", {format_bytes(self.memory)} are there"
        return [
            ("To export", self.label),
            ("Box", f"{extract.box} (voxels of this mag)"),
            ("Cubes", f"{self.num_cubes} of {self.place.store.spec.shard_shape} voxels"),
            ("Voxels", format_bytes(extract.nbytes)),
            ("Tasks", format_count(len(self.cut), "task")),
            ("Memory", f"{format_bytes(self.cut.task_nbytes)} per task{limit}"),
            ("Runs on", self.engine.description),
            *(("Note", note) for note in self.notes),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{name:<9}: {value}" for name, value in self.rows())


def plan_export(
    place: MagPlace,
    box: BoundingBox,
    path: str | os.PathLike[str],
    data_format: str | None,
    engine: Engine,
    *,
    codec: str | None = None,
    tile: int | None = None,
    name: str | None = None,
    channel: int | None = None,
) -> ExportPlan:
    """Say what an export will do; nothing is made.

    Parameters
    ----------
    place
        The mag.
    box
        What is exported: absolute, in voxels of the mag.
    path, data_format, codec, tile, name, channel
        As for :meth:`MagView.export`.
    engine
        Where it runs.

    Raises
    ------
    InvalidValueError, DTypeError, PlanError
        If it cannot work.
    """
    target = checked_path(path)
    if box.is_empty():
        raise InvalidValueError(f"there is nothing to export: the box {box} of {place.label} holds no voxel")
    channels = place.store.spec.num_channels
    if channel is not None and not 0 <= channel < channels:
        raise InvalidValueError(
            f"{place.label} has {channels} channel(s), and no channel {channel} (from 0 on)"
        )
    size = load(place.dataset_path).voxel_size
    x, y, z = (side * step for side, step in zip(size.factor, place.mag.to_vec3_int(), strict=True))
    extract = Extract(place.store, box, place.layer, place.mag, VoxelSize((x, y, z), size.unit), channel)
    writer = writer_of(
        extract, target, data_format or format_of_name(target), codec=codec, tile=tile, name=name
    )
    memory = engine.task_memory()
    return ExportPlan(place, writer, writer.cut(engine.threads, memory, None), engine, memory)


def export(plan: ExportPlan, options: WriteOptions, *, overwrite: bool = False) -> ExportReport:
    """Do what was planned.

    Parameters
    ----------
    plan
        What `plan_export` returned.
    options
        How it runs; its client is that of the plan's engine.
    overwrite
        Replace files that are there.

    Raises
    ------
    AlreadyExistsError
        If the target is there already.
    ResumeError
        If another export stopped there.
    JobRunningError
        If another export into the target runs.
    SpaceError
        If there is no room for it.
    TaskFailedError
        If a task failed; what is done can be resumed.
    """
    target = plan.writer.target
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        raise InvalidValueError(f"there is no folder {parent}, in which {target} would be made")
    _refuse_kind(plan.writer)
    run = _Export(plan, options, overwrite, time.perf_counter())
    with held_folder(target) as folder:
        before = folder.manifest
        try:
            return run.run(folder)
        except BaseException as error:
            if run.refused:
                if before is None:  # else it is another export's, which is left as it is
                    run.leave_nothing(folder)
            elif run.resumed or run.has_made_something(folder):
                error.add_note(
                    "what is done stays: the same call with resume=True (--resume) continues from there"
                )
            else:
                run.leave_nothing(folder)
            raise


def _refuse_kind(writer: Writer) -> None:
    """Refuse a folder where a file is to be, and the other way round."""
    is_folder = os.path.isdir(writer.target)
    if is_folder and not writer.is_folder:
        raise AlreadyExistsError(f"{writer.target} is a folder; give the name of a file")
    if writer.is_folder and is_there(writer.target) and not is_folder:
        raise AlreadyExistsError(f"{writer.target} is a file; give the name of a folder, which is made")


class _Export:
    """One run of an export."""

    def __init__(self, plan: ExportPlan, options: WriteOptions, overwrite: bool, start: float) -> None:
        self._plan, self._options, self._overwrite, self._start = plan, options, overwrite, start
        self._writer, self._cut = plan.writer, plan.cut
        self._makes_folder = plan.writer.is_folder and not os.path.isdir(plan.writer.target)
        self.resumed = False
        self.refused = True

    def run(self, folder: ExportFolder) -> ExportReport:
        """Run it, from where an earlier run stopped if that is asked for."""
        manifest, key = folder.manifest, self._key()
        if self._options.resume and manifest is not None and not (self._overwrite and manifest.key != key):
            if manifest.key != key:
                raise ResumeError(
                    f"another export into {self._writer.target} stopped here, or the voxels have changed since: "
                    f"overwrite=True (--overwrite) begins anew"
                )
            self.resumed = True
            if manifest.files and all(map(is_there, self._writer.names())):
                return self._report(manifest, was_finished=True)
            self._cut = self._writer.cut(self._plan.engine.threads, None, Vec3Int(manifest.unit))
        done = folder.done(len(self._cut)) if self.resumed else set()
        if not self.resumed:
            self._refuse_what_is_there(unfinished=manifest is not None and not manifest.files)
        self._check_space(len(done))
        open_sources([self._plan.place.store], self._plan.engine)
        self.refused = False
        if self._writer.is_folder:
            os.makedirs(self._writer.target, exist_ok=True)
        if not self.resumed:
            folder.begin(Manifest(key, self._cut.grid.shape.to_tuple()))
        self._plan.engine.check_sees(folder.path)
        self._writer.begin(folder.path)
        self._run_units(folder, done)
        made = self._writer.finish(folder.path, self._cut)
        fsync_folder(os.path.dirname(self._writer.target))
        ended = Manifest(key, self._cut.grid.shape.to_tuple(), made.files, made.nbytes)
        if self._options.resume:
            folder.begin(ended)
        else:
            remove_folder(folder.path)
        return self._report(ended)

    def _key(self) -> str:
        """Return what is the same for the same export of the same voxels, wherever the dataset is."""
        extract = self._writer.extract
        what = (
            self._writer.parameters, extract.layer, extract.mag, extract.box, extract.channel, extract.voxel_size,
            extract.dtype, extract.channels, extract.store.fingerprint(extract.box),
        )  # fmt: skip
        return hashlib.blake2b(repr(what).encode(), digest_size=16).hexdigest()

    def _refuse_what_is_there(self, *, unfinished: bool) -> None:
        """Refuse to replace files without overwrite=True; note those that stay beside the new ones."""
        writer = self._writer
        if not self._overwrite:
            there = next(filter(is_there, writer.names()), None)
            if there is not None:
                hint = "resume=True (--resume) continues it, " if unfinished else ""
                stopped = ", of an export that stopped" if unfinished else ""
                raise AlreadyExistsError(
                    f"{there} is there already{stopped}; {hint}overwrite=True (--overwrite) replaces it"
                )
        if writer.is_folder and not self._makes_folder:
            new = set(writer.names())
            with os.scandir(writer.target) as entries:
                others = [entry.name for entry in entries if entry.path not in new and entry.name[0] != "."]
            if others:
                text = (
                    f"{writer.target} holds {format_count(len(others), 'other file')}, such as {min(others)}"
                )
                warnings.warn(f"{text}, which stay beside the new ones", WkdaskWarning, stacklevel=5)

    def _check_space(self, done: int) -> None:
        """Refuse an export for which there is no room; warn where that depends on how well it compresses."""
        if not settings.get("check-space"):
            return
        writer = self._writer
        left = writer.extract.nbytes * (len(self._cut) - done) // len(self._cut)
        needed = left + (writer.copies - 1) * writer.extract.nbytes
        parent = os.path.dirname(writer.target)
        free = free_bytes(parent)
        if free >= needed:
            return
        twice = ", all of it twice for a while" if writer.copies > 1 else ""
        text = f"exporting to {writer.target} takes up to {format_bytes(needed)}{twice}"
        text = f"{text}, but {parent} has {format_bytes(free)} left"
        if writer.is_compressed:
            warnings.warn(f"{text}; it may fit if the voxels compress well", WkdaskWarning, stacklevel=5)
            return
        raise SpaceError(f"{text}. Nothing was written. If most is empty, set wkdask.check-space to False")

    def _run_units(self, folder: ExportFolder, done: set[int]) -> None:
        """Run the tasks that are not done, and note each that ends."""
        plan, cut, writer = self._plan, self._cut, self._writer
        spec, extract = plan.place.store.spec, writer.extract
        last = extract.box.bottomright

        def call(unit: BoundingBox) -> tuple[Any, ...]:
            return (export_unit, writer, folder.path, cut.number(unit), unit, _cubes_ended(spec, unit, last))

        todo = (unit for number, unit in enumerate(cut.units()) if number not in done)
        before = [unit for number, unit in enumerate(cut.units()) if number in done]
        outcomes = stream_unwritten(
            plan.place.label,
            replace(plan_again(spec, cut.box, cut.grid.shape), voxel_nbytes=extract.voxel_nbytes),
            listed_windows(todo, "", task_name("export", extract.store.path), call),
            plan.engine,
            self._options.listeners,
            len(done),
            action="exporting",
            cubes=plan.num_cubes,
            cubes_before=sum(_cubes_ended(spec, unit, last) for unit in before),
            nbytes_before=sum(unit.volume() for unit in before) * extract.voxel_nbytes,
        )
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                if outcome.report is not None:
                    folder.note(cut.number(outcome.report.unit))

    def _report(self, made: Manifest, *, was_finished: bool = False) -> ExportReport:
        """Return what a user gets to see."""
        extract, place = self._writer.extract, self._plan.place
        return ExportReport(
            label=place.label,
            path=self._writer.target,
            bounding_box=extract.box.from_mag_to_mag1(place.mag),
            files=made.files,
            bytes=extract.nbytes,
            file_bytes=made.nbytes,
            seconds=time.perf_counter() - self._start,
            notes=self._plan.notes,
            was_finished=was_finished,
        )

    def has_made_something(self, folder: ExportFolder) -> bool:
        """Return whether a unit is done, or a file of a unit that is not: each of them is whole."""
        return bool(folder.done(len(self._cut))) or (
            self._writer.is_folder and any(map(is_there, self._writer.names()))
        )

    def leave_nothing(self, folder: ExportFolder) -> None:
        """Remove what a run made that came to nothing."""
        remove_folder(folder.path)
        if self._makes_folder:
            with contextlib.suppress(OSError):  # it is not there, or somebody put something into it
                os.rmdir(self._writer.target)


def _cubes_ended(spec: ArraySpec, unit: BoundingBox, last: Vec3Int) -> int:
    """Return how many cubes of a mag a unit is the last one to read."""
    counts = [
        high // side - low // side + (high == end and high % side != 0)
        for low, high, side, end in zip(unit.topleft, unit.bottomright, spec.shard_shape, last, strict=True)
    ]
    return int(counts[0] * counts[1] * counts[2])


def export_unit(writer: Writer, folder: str, number: int, unit: BoundingBox, cubes: int) -> UnitReport:
    """Make the part of a unit.

    Parameters
    ----------
    writer
        The format, and what is written in it.
    folder
        The private folder of the export.
    number
        Which of the units it is.
    unit
        What is exported: absolute, in voxels of the mag.
    cubes
        How many cubes are read for the last time.
    """
    start = time.perf_counter()
    file_nbytes = writer.write(folder, number, unit)
    nbytes = unit.volume() * writer.extract.voxel_nbytes
    return ended(unit, start, cubes=cubes, nbytes=nbytes, file_nbytes=file_nbytes)
