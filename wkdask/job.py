"""A job as plain values: what is written, in which stages, and what a window of tasks is."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from toolz import partition_all

from wkdask.events import Listener
from wkdask.geometry import BoundingBox, Mag
from wkdask.journal import Journal, Lane
from wkdask.plan import WINDOW_UNITS, UnitBoxes, WritePlan
from wkdask.storage.jobs import Ticket, take_built
from wkdask.storage.protocol import StoredMag, Voxels
from wkdask.tasks import UnitReport, publish_assembled_unit, publish_unit

if TYPE_CHECKING:
    import dask.array as da
    from dask.delayed import Delayed
    from distributed import Client

__all__ = [
    "AnyWindow",
    "ArrayWindow",
    "CallWindow",
    "Job",
    "JobFolders",
    "MagPlace",
    "NodeCall",
    "NodeWindow",
    "Stage",
    "WriteOptions",
    "call_windows",
    "lane_of",
    "listed_windows",
    "publish_stage",
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
    resume: bool = False
    """Go on where an earlier run of the same job stopped, if there is one."""
    job: str | None = None
    """A name by which an earlier run is found; None for the name of the array."""
    retries: int | None = None
    """How often a task that failed is tried again; None for the engine's own number."""
    resources: Mapping[str, float] | None = None
    """What of a worker each task occupies, such as ``{"GPU": 1}``; None for a thread only."""
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
    ticket: Ticket | None = None
    """What the job is to another process that would go on with it; None for a job that cannot be resumed."""
    resume: bool = False
    """Whether to go on where an earlier run of it stopped."""
    others: tuple[MagPlace, ...] = ()
    """Further mags that the tasks write, beside the job's own."""
    staged: bool = False
    """Whether all cubes are built in a private mag before any of them is published."""
    private_nbytes: int = 0
    """Bytes of other private voxels that exist at once, beside the cubes themselves."""

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
    def of(
        cls,
        place: MagPlace,
        plan: WritePlan,
        action: str,
        options: WriteOptions,
        *,
        ticket: Ticket | None = None,
        others: tuple[MagPlace, ...] = (),
        staged: bool = False,
        private_nbytes: int = 0,
    ) -> Job:
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
            ticket=ticket,
            resume=options.resume,
            others=others,
            staged=staged,
            private_nbytes=private_nbytes,
        )

    @property
    def label(self) -> str:
        """Layer and mag, for messages."""
        return f"layer {self.layer!r} mag {self.mag}"


@dataclass(frozen=True, slots=True)
class JobFolders:
    """The private folders of a job: one in each mag that it writes."""

    main: str
    """In the job's own mag."""
    others: dict[str, str]
    """In the further mags, by the path of the mag."""

    def of(self, store: StoredMag) -> str:
        """Return the folder in a mag."""
        return self.others.get(store.path, self.main)


@dataclass(frozen=True, slots=True)
class ArrayWindow:
    """A window whose tasks are the blocks of a dask array of reports."""

    units: UnitBoxes
    """What each block writes that is to be done."""
    build: Callable[[Callable[[UnitReport], None] | None], da.Array]
    """Makes the array; its argument is called with every report, if the tasks run in this process."""
    lane: Lane | None = None
    """Numbers the units for the journal; None where they are not noted there."""

    def __len__(self) -> int:
        return len(self.units)

    @property
    def boxes(self) -> dict[tuple[int, ...], BoundingBox]:
        """What each block writes, by its place (c, x, y, z)."""
        return {(0, *place): box for place, box in self.units.items()}

    def without_done(self, journal: Journal) -> ArrayWindow:
        """Return the window without the units that the journal holds."""
        if self.lane is None:
            return self
        return replace(self, units=self.units.without(journal.done_among(self.lane, self.units.units)))

    def collections(
        self, sink: Callable[[UnitReport], None] | None
    ) -> tuple[list[da.Array], dict[tuple[Any, ...], BoundingBox]]:
        """Build what is to be computed.

        Returns
        -------
        list of dask.array.Array
            The array itself, or those of its blocks that are to be done.
        dict
            What each of their blocks writes, by its key.
        """
        import dask

        array, boxes = self.build(sink), self.boxes
        if len(boxes) == array.npartitions:
            return [array], {(array.name, *place): box for place, box in boxes.items()}
        blocks = dask.optimize(*(array.blocks[place] for place in boxes))
        origin = (0,) * array.ndim
        keys = {(block.name, *origin): box for block, box in zip(blocks, boxes.values(), strict=True)}
        return list(blocks), keys


@dataclass(frozen=True, slots=True)
class CallWindow:
    """A window whose tasks are plain calls, which read for themselves."""

    units: UnitBoxes | Sequence[BoundingBox]
    """What each task writes; units of a plan where they are noted in the journal."""
    call: Callable[[BoundingBox], tuple[Any, ...]]
    """Returns ``(function, *arguments)`` for the box of a unit; the function is the same for all."""
    name: str
    """Start of the tasks' keys: unique within the job."""
    lane: Lane | None = None
    """Numbers the units for the journal; None where they are not noted there."""

    def __len__(self) -> int:
        return len(self.units)

    @property
    def calls(self) -> Iterator[tuple[BoundingBox, Callable[..., UnitReport], tuple[Any, ...]]]:
        """Yield (what it writes, function, arguments) for every task."""
        for box in self.units:
            function, *arguments = self.call(box)
            yield box, function, tuple(arguments)

    def without_done(self, journal: Journal) -> CallWindow:
        """Return the window without the units that the journal holds."""
        lane, units = self.lane, self.units
        if lane is None:
            return self
        if isinstance(units, UnitBoxes):
            return replace(self, units=units.without(journal.done_among(lane, units.units)))
        return replace(self, units=[box for box in units if not journal.is_done(lane, box)])


@dataclass(frozen=True, slots=True)
class NodeCall:
    """A task of a tree: it takes what other tasks returned, and what it returns goes to another one."""

    key: str
    """Unique within the job."""
    box: BoundingBox
    """What it is for, in voxels of the job's mag."""
    function: Callable[..., tuple[UnitReport, Any]]
    """Called with the arguments and the list of what `needs` returned; returns its report, and what it hands on."""
    arguments: tuple[Any, ...]
    """What it is called with first."""
    needs: tuple[str, ...] = ()
    """Tasks before it whose results it takes; nobody else takes them."""
    after: tuple[str, ...] = ()
    """Tasks before it that must have ended, whose results it does not take."""
    handed_on: bool = False
    """Whether a later task takes its result."""
    awaited: bool = False
    """Whether a later task names it in `after`."""
    frees: tuple[str, ...] = ()
    """Tasks that no later one names in `after`."""
    block: Delayed | Voxels | None = None
    """Voxels that are not there yet, or an array of this process: if given, the function's last argument is what
    computes them, ``() -> array``."""


@dataclass(frozen=True, slots=True)
class NodeWindow:
    """A window of tasks that depend on each other, and perhaps on tasks of earlier windows.

    They are in an order in which each comes after those that it needs, and is run in that order as far as threads
    allow: so what is handed on does not pile up.
    """

    calls: list[NodeCall]
    """The tasks."""
    name: str
    """Start of the tasks' keys: unique to the job."""
    lane: Lane | None = None
    """None: a task of a tree cannot be left out because it has run before; others may need its result."""

    def __len__(self) -> int:
        return len(self.calls)

    def without_done(self, journal: Journal) -> NodeWindow:
        """Return the window itself."""
        del journal
        return self


AnyWindow: TypeAlias = ArrayWindow | CallWindow | NodeWindow
"""What an engine takes."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a job that must end before the next begins."""

    units: int
    """Tasks in it."""
    windows: Iterable[AnyWindow]
    """The tasks, window by window."""
    lanes: tuple[Lane, ...] = ()
    """What the journal notes as a whole when the stage has ended; if an earlier run has, the stage is skipped."""
    replaces_source: bool = False
    """Whether this is the second of two phases, which replaces what the first one read."""


def call_windows(
    plan: WritePlan,
    folder: str,
    name: str,
    call: Callable[[BoundingBox], tuple[Any, ...]],
    lane: Lane | None = None,
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
    lane
        Numbers the units for the journal.
    """
    return _windows((window.unit_boxes() for window in plan.windows), folder, name, call, lane)


def listed_windows(
    boxes: Iterable[BoundingBox],
    folder: str,
    name: str,
    call: Callable[[BoundingBox], tuple[Any, ...]],
    lane: Lane | None = None,
) -> Iterator[CallWindow]:
    """Yield windows of plain calls for units that are listed, because most of their hull is empty.

    Parameters
    ----------
    boxes
        What each unit covers.
    folder, name, call, lane
        As for `call_windows`.
    """
    return _windows(partition_all(WINDOW_UNITS, boxes), folder, name, call, lane)


def _windows(
    windows: Iterable[UnitBoxes | Sequence[BoundingBox]],
    folder: str,
    name: str,
    call: Callable[[BoundingBox], tuple[Any, ...]],
    lane: Lane | None,
) -> Iterator[CallWindow]:
    """Yield one window of calls per group of boxes."""
    # A scheduler takes tasks of one key for one task: two jobs on the same mag must not share theirs.
    job = folder[-12:] or uuid.uuid4().hex[:12]
    for number, boxes in enumerate(windows):
        yield CallWindow(boxes, call, f"wkdask-{name}-{job}-{number}", lane)


def lane_of(plan: WritePlan, number: int) -> Lane:
    """Return the lane of the units of a plan.

    Parameters
    ----------
    plan
        The plan.
    number
        Which of the job's lanes it is.
    """
    return Lane(number, plan.unit, plan.box)


def publish_stage(job: Job, folder: str, *, replaces_source: bool) -> Stage:
    """Return the second stage of a job that has built its cubes in the private mag ``staged`` in its folder.

    Parameters
    ----------
    job
        The job; the stage is its lane 1.
    folder
        The job's private folder.
    replaces_source
        Whether the first stage read what this one replaces.
    """
    lane = lane_of(job.plan, 1)
    publish = publish_unit if job.plan.part is None else publish_assembled_unit

    def windows() -> Iterator[CallWindow]:
        built = take_built(job.store, folder)
        yield from call_windows(
            job.plan,
            folder,
            "publish",
            lambda box: (publish, job.store, built, folder, box, job.durable),
            lane,
        )

    return Stage(len(lane), windows(), (lane,), replaces_source)
