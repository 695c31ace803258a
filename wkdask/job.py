"""A job as plain values: what is written, in which stages, and what a window of tasks is."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from toolz import partition_all

from wkdask.events import Listener
from wkdask.geometry import BoundingBox, Mag
from wkdask.plan import WINDOW_UNITS, WritePlan
from wkdask.storage.protocol import StoredMag
from wkdask.tasks import UnitReport

if TYPE_CHECKING:
    import dask.array as da
    from distributed import Client

__all__ = [
    "AnyWindow",
    "ArrayWindow",
    "CallWindow",
    "Job",
    "MagPlace",
    "Stage",
    "WriteOptions",
    "call_windows",
    "listed_windows",
]


@dataclass(frozen=True, slots=True)
class MagPlace:
    """Where a magnification is, as plain data: all that a handle needs to work anywhere."""

    dataset_path: str
    """The dataset's folder."""
    layer: str
    """The layer's name."""
    mag: Mag
    """Which of its mags."""
    store: StoredMag
    """The mag on disk."""
    read_only: str | None = None
    """Why nothing may be written there; None where it may."""

    @property
    def label(self) -> str:
        """Layer and mag, for messages."""
        return f"layer {self.layer!r} mag {self.mag}"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a write runs; none of these changes what is written."""

    client: Client | None = None
    """The cluster; None for the active client, or local threads where there is none."""
    durable: bool = True
    """Flush data to the disk before a cube counts as written."""
    verify: bool = False
    """Read every cube back before it is published."""
    task_memory: int | None = None
    """Bytes that one task needs, where the estimate is wrong."""
    listeners: Sequence[Listener] = ()
    """Called with the events of the job."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is written, and where its box is noted."""

    dataset_path: str
    """The dataset's folder."""
    layer: str
    """The layer's name."""
    mag: Mag
    """The mag that is written."""
    store: StoredMag
    """The mag on disk."""
    plan: WritePlan
    """Cubes, units, windows."""
    action: str = "writing"
    """What is done, as a participle."""
    durable: bool = True
    """Whether data are flushed to the disk before a cube counts as written."""
    verify: bool = False
    """Whether every cube is read back before it is published."""
    listed_cubes: int | None = None
    """Cubes that the job touches, where those are listed and most of the plan's box is empty."""

    @property
    def num_cubes(self) -> int:
        """Cubes that the job touches."""
        return self.plan.num_cubes if self.listed_cubes is None else self.listed_cubes

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels that the job writes."""
        if self.listed_cubes is None:
            return self.plan.nbytes
        return self.listed_cubes * self.store.spec.cube_nbytes

    @classmethod
    def of(cls, place: MagPlace, plan: WritePlan, action: str, options: WriteOptions) -> Job:
        """Return the job that carries out a plan at a place."""
        return cls(
            dataset_path=place.dataset_path,
            layer=place.layer,
            mag=place.mag,
            store=place.store,
            plan=plan,
            action=action,
            durable=options.durable,
            verify=options.verify,
        )

    @property
    def label(self) -> str:
        """Layer and mag, for messages."""
        return f"layer {self.layer!r} mag {self.mag}"


@dataclass(frozen=True, slots=True)
class ArrayWindow:
    """A window whose tasks are the blocks of a dask array of reports."""

    boxes: dict[tuple[int, ...], BoundingBox]
    """What each block writes, by its place (c, x, y, z)."""
    build: Callable[[Callable[[UnitReport], None] | None], da.Array]
    """Makes the array; its argument is called with every report, if the tasks run in this process."""


@dataclass(frozen=True, slots=True)
class CallWindow:
    """A window whose tasks are plain calls, which read for themselves."""

    calls: list[tuple[BoundingBox, Callable[..., UnitReport], tuple[Any, ...]]]
    """(what it writes, function, arguments)"""
    name: str
    """Start of the tasks' keys: unique within the job."""


AnyWindow: TypeAlias = ArrayWindow | CallWindow
"""What an engine takes."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a job that must end before the next begins."""

    units: int
    """Tasks in it."""
    windows: Iterable[AnyWindow]
    """The tasks, window by window."""


def call_windows(
    plan: WritePlan, folder: str, name: str, call: Callable[[BoundingBox], tuple[Any, ...]]
) -> Iterator[CallWindow]:
    """Yield the windows of a plan whose units are plain calls.

    Parameters
    ----------
    plan
        What is written.
    folder
        The job's private folder, which makes the tasks' keys unique; empty for a job that writes nothing.
    name
        What the task does, for the dashboard.
    call
        Returns ``(function, *arguments)`` for the box of a unit.
    """
    return _windows((window.unit_boxes() for window in plan.windows), folder, name, call)


def listed_windows(
    boxes: Iterable[BoundingBox], folder: str, name: str, call: Callable[[BoundingBox], tuple[Any, ...]]
) -> Iterator[CallWindow]:
    """Yield windows of plain calls for units that are listed, because most of their hull is empty.

    Parameters
    ----------
    boxes
        What each unit covers.
    folder, name, call
        As for `call_windows`.
    """
    return _windows(partition_all(WINDOW_UNITS, boxes), folder, name, call)


def _windows(
    windows: Iterable[Iterable[BoundingBox]],
    folder: str,
    name: str,
    call: Callable[[BoundingBox], tuple[Any, ...]],
) -> Iterator[CallWindow]:
    """Yield one window of calls per group of boxes."""
    # A scheduler takes tasks of one key for one task: two jobs on the same mag must not share theirs.
    job = folder[-12:] or uuid.uuid4().hex[:12]
    for number, boxes in enumerate(windows):
        calls = []
        for box in boxes:
            function, *arguments = call(box)
            calls.append((box, function, tuple(arguments)))
        yield CallWindow(calls, f"wkdask-{name}-{job}-{number}")
