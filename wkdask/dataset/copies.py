"""A dataset copied as one job of many: planned whole, resumable, its layers listed one by one as they are complete.

::

    <copy>/.wkdask/copy.json           what is copied how, which mags are done, whether all is
    <copy>/datasource-properties.json  the layers that are complete
    <copy>/<layer>/<mag>/              cubes come, and are listed with their layer
    <copy>/<layer>/<mag>/.wkdask/      the journal of the mag at which a copy has stopped

Killed at any moment, what is listed is whole, and the same call with ``resume=True`` continues from there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wkdask.errors import (
    AlreadyExistsError,
    InvalidValueError,
    JobRunningError,
    LockTimeoutError,
    ResumeError,
    WkdaskError,
)
from wkdask.fsio import checked_path, checked_place, lock, remove_folder
from wkdask.geometry import BoundingBox, Mag
from wkdask.geometry.voxel_size import VoxelSize, format_bytes, format_count
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.job import WriteOptions
from wkdask.jobs.plan import WritePlan
from wkdask.layer import Layer
from wkdask.layer.copies import CopyCut, LayerCopy, MagState, build_layer, plan_layer
from wkdask.objects.reading import object_state
from wkdask.objects.urls import is_url
from wkdask.operations.copy import plan_copy
from wkdask.paths import resolved
from wkdask.progress.combined import Whole
from wkdask.properties import PROPERTIES_FILE, SetViewConfiguration, create, load
from wkdask.properties.handle import Properties
from wkdask.storage.formats import format_of, open_mag
from wkdask.storage.protocol import PRIVATE
from wkdask.storage.publish.private import (
    opened_folder,
    private_folder,
    read_private_file,
    remove_private_temporaries,
    write_private_file,
)

__all__ = ["DatasetCopy", "is_copied", "plan_dataset", "run_copy"]

_STATE = "copy.json"
_LARGEST = 1 << 26
"""Bytes of a state at most: the copy has a line for each mag."""


@dataclass(frozen=True, slots=True)
class DatasetCopy:
    """What is copied of a dataset; shown by printing it."""

    source: str
    """The dataset's folder."""
    voxel_size: VoxelSize
    """Of the copy."""
    view_configuration: Any
    """How the dataset is shown at first, as JSON; None where nothing is said."""
    layers: tuple[LayerCopy, ...]
    """Its layers."""
    plans: dict[tuple[str, Mag], WritePlan]
    """How the mags are cut into tasks, by layer and mag; those without voxels are missing."""

    @property
    def request(self) -> dict[str, Any]:
        """What is copied and how, as JSON: a later call continues only if it asks for the same."""
        return {
            "source": str(resolved(self.source)),
            "voxel size": [list(self.voxel_size.factor), self.voxel_size.unit],
            "layers": {
                layer.name: {
                    "format": layer.edit.data_format,
                    "box": layer.edit.bounding_box.to_tuple6(),
                    "exact": layer.exact,
                    "mags": {each.mag.to_layer_name(): str(each.spec) for each in layer.mags},
                }
                for layer in self.layers
            },
        }

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, value) pairs to show."""
        rows = [("To copy", self.source)]
        for layer in self.layers:
            rows.append(("Layer", f"{layer.name}, {layer.edit.bounding_box} (voxels of mag 1)"))
            for each in layer.mags:
                plan = self.plans.get((layer.name, each.mag))
                work = "no voxels"
                if plan is not None:
                    cubes = format_count(plan.num_cubes, "cube")
                    tasks = format_count(len((plan.parts or plan).units), "task")
                    work = f"{cubes}, {format_bytes(plan.nbytes)} of voxels, {tasks}"
                how = f"{each.source.spec.data_format} → {each.spec.data_format}"
                if each.source.spec == each.spec:
                    how = "files as they are"
                rows.append(("  mag", f"{each.mag}: {how}, {each.spec}; {work}"))
        total = sum(plan.nbytes for plan in self.plans.values())
        most = max((plan.task_nbytes for plan in self.plans.values()), default=0)
        rows.append(("Voxels", format_bytes(total)))
        rows.append(("Memory", f"{format_bytes(most)} per task"))
        return rows

    def __repr__(self) -> str:
        return "\n".join(f"{name:<9}: {value}" for name, value in self.rows())


def plan_dataset(
    properties: Properties,
    layers: Sequence[Layer],
    voxel_size: VoxelSize,
    cut: CopyCut,
    clip: BoundingBox | None,
    options: WriteOptions,
) -> DatasetCopy:
    """Plan the copy of a dataset; all that can be refused is, and nothing is made.

    Parameters
    ----------
    properties
        The dataset.
    layers
        Those of its layers that are copied.
    voxel_size
        Of the copy.
    cut
        How mags are to be stored.
    clip
        What is copied, in voxels of mag 1; all by default.
    options
        How it runs.

    Raises
    ------
    InvalidValueError
        If the box touches no layer.
    UnsupportedFormatError, DTypeError, DamagedHeaderError, PlanError
        If a mag cannot be read, or not be stored so, or not in the memory that there is.
    """
    copies = tuple(_planned(layer, cut, clip) for layer in layers)
    if clip is not None and layers and all(copy.edit.bounding_box.is_empty() for copy in copies):
        boxes = ", ".join(f"{layer.name!r}: {layer.record.bounding_box}" for layer in layers)
        raise InvalidValueError(f"the box {clip} touches no layer (voxels of mag 1; {boxes})")
    engine = pick_engine(options.client)
    plans = {
        (copy.name, each.mag): plan_copy(each.source, each.spec, each.box, engine, options, exact=copy.exact)
        for copy in copies
        for each in copy.mags
        if not each.box.is_empty()
    }
    view = properties.record.default_view_configuration
    return DatasetCopy(properties.folder, voxel_size, view, copies, plans)


def _planned(layer: Layer, cut: CopyCut, clip: BoundingBox | None) -> LayerCopy:
    """Plan the copy of a layer; an error says which one it is, and that the others can be copied without it."""
    try:
        return plan_layer(layer, layer.name, cut, clip)
    except (WkdaskError, OSError) as error:
        error.add_note(
            f"layer {layer.name!r} cannot be copied so, and nothing was; layers= (or --layer) names those that are"
        )
        raise


@dataclass(slots=True)
class _State:
    """How far a copy has come."""

    request: dict[str, Any]
    """What is copied how."""
    mags: dict[str, dict[Mag, MagState]] = field(default_factory=dict)
    """By layer and mag: those at which it is or was."""
    finished: bool = False
    """Whether all is copied."""

    @classmethod
    def read(cls, folder: str) -> _State | None:
        """Return the state of a copy; None if there is none that can be read."""
        try:
            with opened_folder(folder, PRIVATE) as private:
                content = json.loads(read_private_file(private, _STATE, _LARGEST))
            mags = {
                layer: {Mag(name): MagState(source, whole) for name, (source, whole) in states.items()}
                for layer, states in content["mags"].items()
            }
            return cls(content["request"], mags, content["finished"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, folder: str) -> None:
        """Note it, durably."""
        mags = {
            layer: {mag.to_layer_name(): [state.source, state.whole] for mag, state in states.items()}
            for layer, states in self.mags.items()
        }
        content = {"request": self.request, "mags": mags, "finished": self.finished}
        with opened_folder(folder, PRIVATE) as private:
            write_private_file(private, _STATE, json.dumps(content, indent=1).encode())


def run_copy(plan: DatasetCopy, path: str | os.PathLike[str], options: WriteOptions) -> str:
    """Copy a dataset as it was planned.

    Parameters
    ----------
    plan
        What is copied how.
    path
        Folder of the copy.
    options
        How it runs; with `resume` an earlier copy into the folder is completed. Without `durable` nothing can be.

    Returns
    -------
    str
        The folder.

    Raises
    ------
    InvalidValueError
        If the folder lies in the dataset itself.
    AlreadyExistsError
        If the folder holds something that is not an unfinished copy.
    ResumeError
        If it holds an unfinished copy of something else, or one that is stored otherwise.
    JobRunningError
        If another process is at the same copy.
    TaskFailedError
        If tasks failed; what was copied stays for ``resume=True``. If nothing was, or not durably, nothing stays.
    """
    folder = checked_path(path)
    request = json.loads(json.dumps({**plan.request, "flushed": options.durable}))
    real = os.path.realpath(folder)
    source = str(resolved(plan.source))
    if not is_url(source) and os.path.commonpath([source, real]) == source:
        raise InvalidValueError(
            f"{folder} lies in the dataset {plan.source}, which cannot be copied into itself"
        )
    is_new = not os.path.lexists(folder)
    _check_target(folder, request, resume=options.resume)
    with _alone(folder):
        begun = _check_target(folder, request, resume=options.resume)
        state = begun or _State(request)
        if state.finished:
            return folder
        try:
            state.write(folder)
            _copy_layers(plan, folder, state, options)
            state.finished = True
            state.write(folder)
        except BaseException as error:
            if begun is not None or (options.durable and _has_landed(plan, folder)):
                error.add_note(
                    f"what was copied stays in {folder}, which lists the layers that are complete; the same call "
                    f"with resume=True (or --resume) continues from there"
                )
            else:
                error.add_note(f"nothing stays in {folder}")
                with contextlib.suppress(OSError):  # the first error says more
                    _clear(folder, is_new)
            raise
    return folder


def is_copied(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder holds a copy that came to its end."""
    folder = checked_place(path)
    if is_url(folder):  # the properties come last
        return object_state(f"{folder}/{PROPERTIES_FILE}") is not None
    state = _State.read(folder)
    return state is not None and state.finished


def _check_target(folder: str, request: dict[str, Any], *, resume: bool) -> _State | None:
    """Return the state of the copy that is to be resumed; refuse a folder that holds anything else."""
    if not os.path.lexists(folder):
        return None
    if not os.path.isdir(folder):
        raise AlreadyExistsError(f"{folder} exists and is not a folder")
    state = _State.read(folder)
    if state is None and not {*os.listdir(folder)} - {PRIVATE}:
        return None
    if state is None or not resume:
        unfinished = state is not None and not state.finished
        hint = "; it is a copy that stopped: resume=True (or --resume) continues it" if unfinished else ""
        raise AlreadyExistsError(f"{folder} exists and is not an empty folder{hint}")
    if state.request != request:
        was, now = state.request, request
        wrong = [key for key in now if was.get(key) != now[key]]
        names = {*now["layers"], *was.get("layers", {})}
        layers = sorted(name for name in names if was.get("layers", {}).get(name) != now["layers"].get(name))
        where = ", ".join(
            [*(key for key in wrong if key != "layers"), *(f"layer {name!r}" for name in layers)]
        )
        raise ResumeError(
            f"the copy in {folder} was begun with other arguments, or its source has changed ({where}); give the "
            f"same arguments, or copy into another folder"
        )
    return state


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Hold the lock of a copy."""
    os.makedirs(folder, exist_ok=True)
    private = private_folder(folder)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(f"{private}/locks/copy.lock", timeout=0))
        except LockTimeoutError as error:
            raise JobRunningError(f"another process is copying into {folder}") from error
        with opened_folder(folder, PRIVATE) as descriptor:
            remove_private_temporaries(descriptor, _STATE)
        yield


def _copy_layers(plan: DatasetCopy, folder: str, state: _State, options: WriteOptions) -> None:
    """Copy the layers that are not complete."""
    if not os.path.lexists(os.path.join(folder, PROPERTIES_FILE)):
        create(folder, os.path.basename(folder), plan.voxel_size)
    properties = Properties(folder)
    if plan.view_configuration is not None:
        properties.commit(SetViewConfiguration(None, plan.view_configuration))
    listed = {record.name for record in properties.record.layers}
    whole = _whole(plan, state, listed, options)
    reported = replace(options, listeners=(whole,) if options.listeners else ())
    try:
        for layer in plan.layers:
            if layer.name in listed:
                continue
            known = state.mags.setdefault(layer.name, {})

            def note(mag: Mag, now: MagState, known: dict[Mag, MagState] = known) -> None:
                known[mag] = now
                state.write(folder)

            build_layer(layer, properties, reported, dict(known), note)
    finally:
        whole.end()


def _has_landed(plan: DatasetCopy, folder: str) -> bool:
    """Return whether there is something to go on with: a layer, or a cube of one."""
    with contextlib.suppress(OSError):
        if load(folder).layers:
            return True
    for layer in plan.layers:
        for each in layer.mags:
            path = os.path.join(folder, layer.name, each.mag.to_layer_name())
            if format_of(path) is not None:
                with contextlib.suppress(OSError):
                    if next(open_mag(path).cubes_on_disk(), None) is not None:
                        return True
    return False


def _clear(folder: str, is_new: bool) -> None:
    """Remove all that was made in a folder, which was empty or missing before."""
    if is_new:
        remove_folder(folder)
        return
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            remove_folder(path)
        else:
            os.unlink(path)


def _whole(plan: DatasetCopy, state: _State, listed: set[str], options: WriteOptions) -> Whole:
    """Return a listener that reports the jobs, one per mag, as one."""
    before, left = (0, 0, 0), {}
    for layer in plan.layers:
        for each in layer.mags:
            planned = plan.plans.get((layer.name, each.mag))
            if planned is None:
                continue
            tasks = len(planned.units) + (0 if planned.parts is None else len(planned.parts.units))
            tasks += len((planned.parts or planned).units) if options.verify else 0
            counts = (tasks, planned.num_cubes, planned.nbytes)
            known = state.mags.get(layer.name, {}).get(each.mag)
            if layer.name in listed or (known is not None and known.whole):
                before = (before[0] + counts[0], before[1] + counts[1], before[2] + counts[2])
            else:
                left[f"layer {layer.name!r} mag {each.mag}"] = counts
    return Whole(f"dataset {os.path.basename(plan.source)!r}", "copying", left, before, options.listeners)
