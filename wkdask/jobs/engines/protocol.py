"""What an engine is: it takes windows of units and yields how each unit ended, as they come.

It knows neither formats nor properties, keeps at most two windows in flight, and never gives up a unit silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wkdask.geometry import BoundingBox
from wkdask.jobs.journal import Stream
from wkdask.jobs.tasks import UnitReport
from wkdask.jobs.windows import AnyWindow

__all__ = ["Engine", "Outcome", "attempted"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a unit ended."""

    box: BoundingBox
    """What it was to write, in voxels of the mag."""
    report: UnitReport | None = None
    """What it did."""
    error: BaseException | None = None
    """Why it failed."""
    stream: Stream | None = None
    """Numbers it for the journal."""


class Engine(Protocol):
    """Runs windows of units."""

    description: str
    """For people: where the tasks run."""
    threads: int
    """Tasks that run at once."""

    def task_memory(self) -> int | None:
        """Return the bytes that one task may use; None where unknown."""

    def check_sees(self, path: str) -> None:
        """Refuse to start where a worker does not see the mag."""

    def check_inputs(self, futures: Sequence[Any]) -> None:
        """Refuse persisted results that the tasks cannot get.

        Raises
        ------
        InvalidValueError
            If they are on another cluster.
        """

    def run(self, windows: Iterable[AnyWindow]) -> Iterator[Outcome]:
        """Yield how each unit ended; after a failure no new window is begun.

        Raises
        ------
        SchedulerLostError
            If the scheduler is gone.
        """

    def wait_for_persisted(self, collection: Any) -> None:
        """Wait for the persisted blocks of what a job computes, before it replaces what they may be computed from.

        Those that the job itself does not need may still be on their way.
        """

    def stop(self) -> None:
        """Begin no window any more, and wait a little for what runs."""

    def again(self) -> Engine:
        """Return an engine of the same kind that has not been stopped."""

    def has_late(self) -> bool:
        """Return whether tasks have ended well that were not taken from :meth:`run`; called after :meth:`stop`."""

    def late(self) -> list[Outcome]:
        """Return what was not taken from :meth:`run`, and drop the rest.

        Called after :meth:`stop`, when the job's private folder is gone and nothing more is published: so none
        of the cubes that came into view is missing here. The first may be one that `run` yielded last.
        """


def attempted(box: BoundingBox, result: Callable[[], UnitReport], stream: Stream | None = None) -> Outcome:
    """Return how a unit that has ended did so."""
    try:
        return Outcome(box, result(), stream=stream)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # CancelledError is no Exception
        return Outcome(box, error=error, stream=stream)
