"""Runs what a check does to many cubes as tasks on the scheduler; a task returns a small value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wkdask.geometry import BoundingBox
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.events import Listener
from wkdask.jobs.job import WriteOptions
from wkdask.jobs.unwritten import stream_unwritten
from wkdask.jobs.windows import listed_windows, task_name
from wkdask.progress.combined import Counts, Whole

__all__ = ["CheckJob", "numbered", "run_check_job", "whole_of"]


@dataclass(frozen=True, slots=True)
class CheckJob:
    """Tasks of one kind on one mag."""

    label: str
    """For people, and different for each job of a check."""
    action: str
    """What a task does, in a word, for the dashboard."""
    path: str
    """The mag's folder."""
    units: Sequence[BoundingBox]
    """One for each task: voxels of the mag, or a number (see `numbered`)."""
    call: Callable[[BoundingBox], tuple[Any, ...]]
    """Returns ``(function, *arguments)`` for a unit; the function returns a `UnitReport` with a value."""
    cubes: int
    """Files that are looked at."""
    nbytes: int
    """Bytes of the voxels that are read, uncompressed."""


def numbered(count: int) -> list[BoundingBox]:
    """Return units that are numbers only: of files, of which a batch is no box."""
    return [BoundingBox((number, 0, 0), (1, 1, 1)) for number in range(count)]


def run_check_job(job: CheckJob, options: WriteOptions, listener: Listener) -> Iterator[Any]:
    """Yield what the tasks of a job return, as they end.

    Parameters
    ----------
    job
        The job.
    options
        Where it runs.
    listener
        Called with its events.

    Raises
    ------
    TaskFailedError
        If a task failed: what is wrong with a dataset fails none.
    """
    if not job.units:
        return
    windows = listed_windows(job.units, "", task_name(job.action, job.path), job.call)
    engine = pick_engine(options.client)
    for outcome in stream_unwritten(job.label, job, windows, engine, [listener]):
        if outcome.report is not None:
            yield outcome.report.value


def whole_of(label: str, jobs: Sequence[CheckJob], options: WriteOptions) -> Whole:
    """Return a listener that reports jobs as one.

    Parameters
    ----------
    label
        What is checked.
    jobs
        All that are to come.
    options
        Who listens.
    """
    left: dict[str, Counts] = {
        job.label: (len(job.units), job.cubes, job.nbytes) for job in jobs if job.units
    }
    return Whole(label, "checking", left, (0, 0, 0), options.listeners)
