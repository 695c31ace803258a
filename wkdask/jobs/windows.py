"""Windows of tasks: what an engine takes, and the stages that they make up."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from toolz import partition_all

from wkdask.geometry import BoundingBox
from wkdask.jobs.journal import Journal, Stream
from wkdask.jobs.plan import WINDOW_UNITS, UnitBoxes, WritePlan
from wkdask.jobs.tasks import UnitReport
from wkdask.storage.protocol import PRIVATE, Voxels

if TYPE_CHECKING:
    import dask.array as da
    from dask.delayed import Delayed

__all__ = [
    "AnyWindow",
    "ArrayWindow",
    "CallWindow",
    "NodeCall",
    "NodeWindow",
    "Stage",
    "call_windows",
    "listed_windows",
    "stream_of",
    "task_name",
]


_NAME_LENGTH = 40
"""Characters of a layer's name in the keys of tasks."""


@dataclass(frozen=True, slots=True)
class ArrayWindow:
    """A window whose tasks are the blocks of a dask array of reports."""

    units: UnitBoxes
    """What each block writes that is to be done."""
    build: Callable[[Callable[[UnitReport], None] | None], da.Array]
    """Makes the array; its argument is called with every report, if the tasks run in this process."""
    stream: Stream | None = None
    """Numbers the units for the journal; None where they are not noted there."""

    def __len__(self) -> int:
        return len(self.units)

    @property
    def boxes(self) -> dict[tuple[int, ...], BoundingBox]:
        """What each block writes, by its place (c, x, y, z)."""
        return {(0, *place): box for place, box in self.units.items()}

    def without_done(self, journal: Journal) -> ArrayWindow:
        """Return the window without the units that the journal holds."""
        if self.stream is None:
            return self
        return replace(self, units=self.units.without(journal.done_among(self.stream, self.units.units)))

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
    stream: Stream | None = None
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
        stream, units = self.stream, self.units
        if stream is None:
            return self
        if isinstance(units, UnitBoxes):
            return replace(self, units=units.without(journal.done_among(stream, units.units)))
        return replace(self, units=[box for box in units if not journal.is_done(stream, box)])


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
    """Earlier tasks whose results it takes. No other task takes them."""
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
    stream: Stream | None = None
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
    streams: tuple[Stream, ...] = ()
    """What the journal notes as a whole when the stage has ended; if an earlier run has, the stage is skipped."""
    replaces: int | None = None
    """Which of the job's mags it replaces by what was built before; None for a stage that replaces none."""


def call_windows(
    plan: WritePlan,
    folder: str,
    name: str,
    call: Callable[[BoundingBox], tuple[Any, ...]],
    stream: Stream | None = None,
) -> Iterator[CallWindow]:
    """Yield the windows of a plan whose units are plain calls.

    Parameters
    ----------
    plan
        What is written.
    folder
        The job's private folder, which makes the tasks' keys unique, and says layer and mag in them; empty for a
        job that writes nothing.
    name
        What the task does, for the dashboard; see `task_name`.
    call
        Returns ``(function, *arguments)`` for the box of a unit.
    stream
        Numbers the units for the journal.
    """
    return _windows((window.unit_boxes() for window in plan.windows), folder, name, call, stream)


def listed_windows(
    boxes: Iterable[BoundingBox],
    folder: str,
    name: str,
    call: Callable[[BoundingBox], tuple[Any, ...]],
    stream: Stream | None = None,
) -> Iterator[CallWindow]:
    """Yield windows of plain calls for units that are listed, because most of their union is empty.

    Parameters
    ----------
    boxes
        What each unit covers.
    folder, name, call, stream
        As for `call_windows`.
    """
    return _windows(partition_all(WINDOW_UNITS, boxes), folder, name, call, stream)


def _windows(
    windows: Iterable[UnitBoxes | Sequence[BoundingBox]],
    folder: str,
    name: str,
    call: Callable[[BoundingBox], tuple[Any, ...]],
    stream: Stream | None,
) -> Iterator[CallWindow]:
    """Yield one window of calls per group of boxes."""
    # A scheduler takes tasks of one key for one task: two jobs on the same mag must not share theirs.
    job = folder[-12:] or uuid.uuid4().hex[:12]
    for number, boxes in enumerate(windows):
        yield CallWindow(boxes, call, f"{task_name(name, folder)}-{job}-{number}", stream)


def task_name(action: str, folder: str) -> str:
    """Return how the keys of tasks begin: what is done, to which layer and mag, such as ``"write_color_2_2_1"``.

    A dashboard groups tasks by that: dask takes what comes before the first word that has other characters than
    letters, where a minus begins a word. So there is none in it.

    Parameters
    ----------
    action
        What is done, in a word.
    folder
        The folder of the mag, or a job's private folder in it.
    """
    layer_and_mag = folder.split(f"/{PRIVATE}/")[0].split("/")[-2:]
    words = (re.sub(r"\W+", "_", word).strip("_")[:_NAME_LENGTH] for word in (action, *layer_and_mag))
    return "_".join(filter(None, words))


def stream_of(plan: WritePlan, number: int) -> Stream:
    """Return the stream of the units of a plan.

    Parameters
    ----------
    plan
        The plan.
    number
        Which of the job's streams it is.
    """
    return Stream(number, plan.unit, plan.box)
