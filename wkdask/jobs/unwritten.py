"""Runs tasks that own no cubes: nothing is made or locked for them, and their results are the caller's."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence, Sized
from typing import Protocol

from wkdask.errors import TaskFailedError
from wkdask.jobs.driver import open_sources
from wkdask.jobs.engines.choice import Engine, Outcome
from wkdask.jobs.events import JobFinished, JobStarted, Listener, UnitDone
from wkdask.jobs.plan import WritePlan
from wkdask.jobs.settlement import JobTally, commit_boxes
from wkdask.jobs.windows import AnyWindow
from wkdask.storage.protocol import StoredMag

__all__ = ["Work", "run_unwritten", "stream_unwritten"]


class Work(Protocol):
    """How much there is to do; a `WritePlan` says it too."""

    @property
    def units(self) -> Sized:
        """The tasks."""

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels that they read, uncompressed."""


def run_unwritten(
    label: str,
    plan: WritePlan,
    windows: Iterable[AnyWindow],
    engine: Engine,
    listeners: Sequence[Listener] = (),
    *,
    reads: Iterable[StoredMag] = (),
) -> None:
    """Run tasks that own no cubes, so that nothing is made or locked for them.

    Parameters
    ----------
    label
        What they work on, for messages.
    plan, windows
        The units, and the tasks for them.
    engine
        Where it runs.
    listeners
        Called with the events; `UnitDone` carries what a task returned.
    reads
        The mags that are read.

    Raises
    ------
    TaskFailedError
        If a task failed.
    JobRunningError, InterruptedJobError
        As for `open_sources`.
    """
    open_sources(reads, engine)
    for _ in stream_unwritten(label, plan, windows, engine, listeners):
        pass


def stream_unwritten(
    label: str,
    plan: Work,
    windows: Iterable[AnyWindow],
    engine: Engine,
    listeners: Sequence[Listener] = (),
    units_before: int = 0,
    *,
    action: str = "reading",
    cubes: int = 0,
    cubes_before: int = 0,
    nbytes_before: int = 0,
) -> Generator[Outcome, None, None]:
    """Yield how tasks end that own no cubes, as they do; no more are begun than are taken soon.

    Parameters
    ----------
    label, plan, windows, engine, listeners
        As for `run_unwritten`.
    units_before, cubes_before, nbytes_before
        How many of the units, of their cubes and of their bytes earlier runs have done.
    action
        What is done, as a participle.
    cubes
        How many the tasks report, where they do.

    Raises
    ------
    TaskFailedError
        If a task failed, after what ran beside it has been yielded.
    """
    tally = JobTally()
    started = JobStarted(
        label,
        action,
        len(plan.units),
        cubes,
        plan.nbytes,
        engine.description,
        units_before=units_before,
        cubes_before=cubes_before,
        nbytes_before=nbytes_before,
    )
    try:
        for listener in listeners:
            listener(started)
        for outcome in engine.run(windows):
            tally.add(outcome)
            if outcome.report is not None:
                for listener in listeners:
                    listener(UnitDone(label, outcome.report))
                yield outcome
    finally:
        engine.stop()
        for outcome in engine.late():
            tally.add(outcome)
        try:
            if tally.merged is not None:
                commit_boxes(tally.merged.others)
        finally:
            for listener in listeners:
                listener(JobFinished(label, None))
    if tally.first_failure is not None:
        cause = tally.first_failure.error
        raise TaskFailedError(
            f"{label}: {action} the voxels {tally.first_failure.box} failed with {type(cause).__name__}: {cause}"
        ) from cause
