"""Records of tasks that write nothing: in the order of the units, and kept where the job is to be resumed.

::

    units done   0 1 . 3 4 . .        3 and 4 wait for 2: never more than what is in flight
    taken        0 1 | 2 3 4 ...      in order; tasks begin as records are taken

A resumed job gives all records, also those of earlier runs: the journal has them as JSON. So they must be what JSON
gives back as it was: None, bool, int, float, str, lists of them, dicts of them by str.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wkdask.errors import ResumeError
from wkdask.geometry import BoundingBox
from wkdask.jobs.driver import open_sources
from wkdask.jobs.engines.choice import Engine
from wkdask.jobs.events import Listener
from wkdask.jobs.job import Identity, MagPlace
from wkdask.jobs.journal import Journal
from wkdask.jobs.plan import WritePlan
from wkdask.jobs.unwritten import stream_unwritten
from wkdask.jobs.windows import listed_windows, stream_of, task_name
from wkdask.storage.protocol import StoredMag
from wkdask.storage.publish.jobs import JobFolder, job_folders
from wkdask.storage.publish.manifest import Manifest

__all__ = ["RecordJob", "stream_records"]


@dataclass(frozen=True, slots=True)
class RecordJob:
    """A job that returns records and writes nothing."""

    place: MagPlace
    """The mag that is read; the journal of a job that can be resumed is in its private folder."""
    plan: WritePlan
    """The units, in whose order the records come."""
    call: Callable[[BoundingBox], tuple[Any, ...]]
    """``(function, *arguments)`` for a unit; the value of its report is the list of the unit's records."""
    identity: Identity | None = None
    """By what a later call recognises the job; None if it is not to be resumed."""
    reads: tuple[StoredMag, ...] = ()
    """The mags that are read."""

    def manifest(self) -> Manifest | None:
        """Return the job's manifest; None if it is not to be resumed."""
        if self.identity is None:
            return None
        return Manifest(
            key=self.identity.key,
            name=self.identity.name,
            action="reading for records",
            layer=self.place.layer,
            mag=self.place.mag,
            box=self.plan.box,
            unit=self.plan.unit.shape,
        )


def stream_records(job: RecordJob, engine: Engine, listeners: Sequence[Listener] = ()) -> Iterator[Any]:
    """Yield the records of a job, unit by unit, x fastest; tasks begin as the records are taken.

    Parameters
    ----------
    job
        What is done.
    engine
        Where it runs.
    listeners
        Called with the events.

    Raises
    ------
    TaskFailedError
        If a task failed: after the records before it.
    ResumeError
        If a record is none that the journal can keep.
    """
    engine.check_sees(job.place.store.path)
    open_sources(job.reads, engine)
    return _stream(job, engine, listeners)


def _stream(job: RecordJob, engine: Engine, listeners: Sequence[Listener]) -> Iterator[Any]:
    """Do what :func:`stream_records` promises, from the first record on."""
    stream = stream_of(job.plan, 0)
    with _journal(job) as (journal, folder):

        def is_done(number: int) -> bool:
            return journal is not None and journal.has(stream, number)

        grid, box = job.plan.unit, job.plan.box
        todo = (
            grid.cube_box(index).intersection(box)
            for number, index in enumerate(job.plan.units)
            if not is_done(number)
        )
        path = "" if folder is None else folder.path
        name = "map" if path else task_name("map", job.place.store.path)
        windows = listed_windows(todo, path, name, job.call, stream)
        units_before = journal.units if journal is not None else 0
        outcomes = stream_unwritten(job.place.label, job.plan, windows, engine, listeners, units_before)
        waiting: dict[int, list[Any]] = {}
        total = len(job.plan.units)
        number = 0
        with contextlib.closing(outcomes):  # also where the caller takes no more
            while number < total:
                if journal is not None and journal.has(stream, number):
                    waiting.pop(number, None)
                    yield from journal.value(stream, number)
                elif number in waiting:
                    yield from waiting.pop(number)
                elif (outcome := next(outcomes, None)) is not None and outcome.report is not None:
                    if journal is not None:
                        _check_plain(outcome.report.value)
                        journal.note(stream, outcome.report)
                    else:
                        waiting[stream.number_of(outcome.report.unit)] = outcome.report.value
                    continue
                number += 1
            for _ in outcomes:  # lets the job come to its end
                pass
        if folder is not None:
            folder.finished = True


@contextlib.contextmanager
def _journal(job: RecordJob) -> Iterator[tuple[Journal | None, JobFolder | None]]:
    """Open the journal of a job that can be resumed."""
    if (manifest := job.manifest()) is None:
        yield None, None
        return
    with contextlib.ExitStack() as stack:
        mags = [(job.place.store, manifest, None)]
        (folder,) = stack.enter_context(job_folders(mags, resume=True, writes=False))
        journal = stack.enter_context(Journal(folder.path, (folder.manifest or manifest).digest, {}))
        yield journal, folder


def _check_plain(value: Any, depth: int = 0) -> None:
    """Refuse a record that JSON would give back as something else.

    Raises
    ------
    ResumeError
        If so.
    """
    if type(value) in (type(None), bool, int, float, str):
        return
    if type(value) is list and depth < 100:
        for item in value:
            _check_plain(item, depth + 1)
        return
    if type(value) is dict and depth < 100 and all(type(key) is str for key in value):
        for item in value.values():
            _check_plain(item, depth + 1)
        return
    raise ResumeError(
        f"a record holds {type(value).__name__} {value!r:.60}, which the journal of a job that can be resumed does "
        f"not keep as it is; return None, bool, int, float, str, lists and dicts of them (x.item() of a numpy "
        f"number, x.tolist() of an array), or call it without resume=True"
    )
