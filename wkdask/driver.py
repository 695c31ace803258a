"""Runs a plan on an engine: windows, reports, journal, merge, commit. The only caller of the commit of a job.

::

    private folder -> stage 1: windows -> outcomes ─┐
                      stage 2: windows -> outcomes ─┼─> merged report -> commit(box, id) -> WriteReport
                                                    └─> journal: which units are done

What landed is always merged, also when tasks failed or the user pressed Ctrl-C; then the error goes on, and the
job's folder is parked with its journal, so that the same call with ``resume=True`` goes on from there.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from wkdask.engines import Engine, Outcome
from wkdask.errors import LockTimeoutError, TaskFailedError
from wkdask.events import Event, JobFinished, JobStarted, Listener, UnitDone, UnitFailed, WriteReport
from wkdask.fsio import lock
from wkdask.geometry import BoundingBox, Mag
from wkdask.job import AnyWindow, Job, JobFolders, Stage, publish_stage
from wkdask.journal import Journal
from wkdask.plan import WritePlan, plan_again
from wkdask.properties.commit import Edit, GrowBox, RaiseSegmentId, commit
from wkdask.space import check_space
from wkdask.storage.jobs import JobFolder, Ticket, interrupted_jobs, job_folder, resumable_folder
from wkdask.storage.protocol import StoredMag
from wkdask.tasks import NOTHING, PlaceReport, Total, UnitReport, landed_reports

__all__ = ["commit_box", "finish_interrupted", "run_job", "run_unwritten", "stream_unwritten"]


def run_job(
    job: Job,
    stages: Callable[[JobFolders], Sequence[Stage]],
    engine: Engine,
    listeners: Sequence[Listener] = (),
) -> WriteReport | None:
    """Run a job to its end and note in the properties what it wrote.

    Parameters
    ----------
    job
        What is written.
    stages
        Called with the job's private folders; returns what is to be run, in order.
    engine
        Where it runs.
    listeners
        Called with the events of the job.

    Returns
    -------
    WriteReport or None
        The merged reports of all tasks, also of earlier runs that this one went on with; None if nothing was
        written.

    Raises
    ------
    TaskFailedError
        If tasks failed; what landed is in the properties nevertheless. The first task's error is chained.
    WorkerPathError
        If a worker does not see the mag; nothing was written.
    SpaceError
        If there is no room for it; nothing was written.
    SchedulerLostError
        If the scheduler is gone; what landed is in the properties.
    JobRunningError
        If the job is to be resumed, and another process is at work on it.
    """
    for store in (job.store, *(place.store for place in job.others)):
        finish_interrupted(store, engine, but_not=job.ticket if job.resume else None)
    return _run_job(job, stages, engine, listeners)


def _run_job(
    job: Job,
    stages: Callable[[JobFolders], Sequence[Stage]],
    engine: Engine,
    listeners: Sequence[Listener] = (),
) -> WriteReport | None:
    """Do what :func:`run_job` promises, on mags without interrupted jobs."""
    start = time.perf_counter()
    job.store.prepare(job.plan.box)
    for store in (job.store, *(place.store for place in job.others)):
        engine.check_sees(store.path)
    tally = _Tally()

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    def take(outcome: Outcome, journal: Journal | None) -> None:
        tally.add(outcome)
        if outcome.report is not None:
            if journal is not None and outcome.lane is not None:
                journal.note(outcome.lane, outcome.report)
            tell(UnitDone(job.label, outcome.report))
        elif outcome.error is not None:
            tell(UnitFailed(job.label, outcome.box, outcome.error))

    report, own = None, None
    try:
        with _terminable(), _folders_of(job) as (folders, own, journal):
            earlier = journal.merged if journal is not None else None
            tally.begin_with(earlier)
            check_space(job, engine.threads, earlier.nbytes if earlier is not None else 0)
            todo = stages(folders)
            tell(
                JobStarted(
                    label=job.label,
                    action=job.action,
                    units=sum(stage.units for stage in todo),
                    cubes=job.num_cubes,
                    nbytes=job.nbytes,
                    engine=engine.description,
                    units_before=journal.units if journal is not None else 0,
                    cubes_before=earlier.cubes if earlier is not None else 0,
                    nbytes_before=earlier.nbytes if earlier is not None else 0,
                )
            )
            try:
                for stage in todo:
                    if _is_over(stage, journal):
                        continue
                    if stage.replaces_source and own is not None and not own.in_second_phase:
                        own.begin_second_phase(job.store.snapshot(job.plan.box))
                    for outcome in engine.run(_remaining(stage.windows, journal)):
                        take(outcome, journal)
                    if tally.failures:
                        break
                    for lane in stage.lanes if journal is not None else ():
                        journal.close_lane(lane)  # type: ignore[union-attr]
                else:
                    if own is not None:
                        own.finished = True
            finally:
                engine.stop()
                if own is not None:
                    own.landed = tally.merged is not None
    except _Terminated:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        # The private folder is gone: no task of this job publishes anything from here on.
        late = engine.late()
        for outcome in late:
            tally.add(outcome)  # no listener is called: one that raised would lose the others
        _note_late(own, late)
        try:
            report = _commit(job, tally, time.perf_counter() - start)
        finally:
            tell(JobFinished(job.label, report))  # or a bar would stay on the terminal
    if tally.first_failure is not None:
        raise _failure(job, tally.first_failure, tally.failures)
    return report


def _note_late(own: JobFolder | None, late: Sequence[Outcome]) -> None:
    """Note in the journal of a job that was stopped what its last tasks have done all the same."""
    ended = [outcome for outcome in late if outcome.report is not None and outcome.lane is not None]
    if own is None or not own.parked or not ended:
        return
    # Where another process goes on with the job already, it does these again.
    skip = contextlib.suppress(LockTimeoutError, OSError)
    with skip, lock(f"{own.path}/alive", timeout=0), Journal(own.path) as journal:
        for outcome in ended:
            journal.note(outcome.lane, outcome.report)  # type: ignore[arg-type]


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: a batch system's warning before it kills."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the job as Ctrl-C does, unless somebody has other plans for it."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # batch systems send it more than once
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _folders_of(job: Job) -> Iterator[tuple[JobFolders, JobFolder | None, Journal | None]]:
    """Open the private folders of a job, and the journal of one that can be resumed."""
    with contextlib.ExitStack() as stack:
        others = {place.store.path: stack.enter_context(job_folder(place.store)) for place in job.others}
        if job.ticket is None:
            main = stack.enter_context(job_folder(job.store, job.plan.box))
            yield JobFolders(main, others), None, None
            return
        own = stack.enter_context(resumable_folder(job.store, job.ticket, resume=job.resume))
        journal = stack.enter_context(Journal(own.path))
        yield JobFolders(own.path, others), own, journal


def _is_over(stage: Stage, journal: Journal | None) -> bool:
    """Tell whether an earlier run of the job has completed a stage."""
    return journal is not None and bool(stage.lanes) and all(map(journal.is_whole, stage.lanes))


def _remaining(windows: Iterable[AnyWindow], journal: Journal | None) -> Iterator[AnyWindow]:
    """Yield windows without the units that the journal holds."""
    for window in windows:
        left = window.without_done(journal) if journal is not None and journal.units else window
        if len(left):
            yield left


def finish_interrupted(store: StoredMag, engine: Engine, but_not: Ticket | None = None) -> None:
    """Finish dead jobs that had begun to replace a mag's cubes by what they had read from it.

    Half of the mag is changed, the other half of the new voxels is in the job's folder: whoever reads or writes now
    would make a mixture of it for good.

    Parameters
    ----------
    store
        The mag.
    engine
        Where the rest of the publication runs.
    but_not
        The ticket of a job that is about to be resumed anyway.

    Raises
    ------
    JobRunningError
        If another process is at it.
    """
    for ticket in interrupted_jobs(store):
        if but_not is None or ticket.key != but_not.key:
            _finish(store, ticket, engine.again())


def _finish(store: StoredMag, ticket: Ticket, engine: Engine) -> None:
    """Run what is left of the second phase of a dead job."""
    plan = plan_again(store.spec, ticket.box, ticket.unit, ticket.part)
    job = Job(
        ticket.dataset_path, ticket.layer, ticket.mag, store, plan, action=ticket.action, ticket=ticket,
        resume=True,
    )  # fmt: skip
    _run_job(job, lambda folders: [publish_stage(job, folders.main, replaces_source=True)], engine)


def run_unwritten(
    label: str,
    plan: WritePlan,
    windows: Iterable[AnyWindow],
    engine: Engine,
    listeners: Sequence[Listener] = (),
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

    Raises
    ------
    TaskFailedError
        If a task failed.
    """
    for _ in stream_unwritten(label, plan, windows, engine, listeners):
        pass


def stream_unwritten(
    label: str,
    plan: WritePlan,
    windows: Iterable[AnyWindow],
    engine: Engine,
    listeners: Sequence[Listener] = (),
    units_before: int = 0,
) -> Generator[Outcome, None, None]:
    """Yield how tasks end that own no cubes, as they do; no more are begun than are taken soon.

    Parameters
    ----------
    label, plan, windows, engine, listeners
        As for `run_unwritten`.
    units_before
        How many of the units earlier runs have done.

    Raises
    ------
    TaskFailedError
        If a task failed, after what ran beside it has been yielded.
    """
    tally = _Tally()
    started = JobStarted(
        label, "reading", len(plan.units), 0, plan.nbytes, engine.description, units_before=units_before
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
                _commit_boxes(tally.merged.others)
        finally:
            for listener in listeners:
                listener(JobFinished(label, None))
    if tally.first_failure is not None:
        cause = tally.first_failure.error
        raise TaskFailedError(
            f"{label}: reading the voxels {tally.first_failure.box} failed with {type(cause).__name__}: {cause}"
        ) from cause


class _Tally:
    """What the outcomes of a job come to; its memory does not grow with their number."""

    def __init__(self) -> None:
        self._state: tuple[Total, Outcome | None] = (NOTHING, None)
        self.first_failure: Outcome | None = None
        self.failures = 0
        self.cubes_before = 0

    @property
    def merged(self) -> UnitReport | None:
        """All reports as one; None if there is none."""
        return self._state[0].report()

    def begin_with(self, earlier: UnitReport | None) -> None:
        """Count what earlier runs of the job did."""
        if earlier is not None:
            self._state = (NOTHING.plus_report(earlier), None)
            self.cubes_before = earlier.cubes

    def add(self, outcome: Outcome) -> None:
        """Count an outcome, once even if it comes twice in a row: Ctrl-C can come while it is handed over."""
        total, last = self._state
        if last is not None and (outcome is last or (outcome.report and outcome.report == last.report)):
            return
        if outcome.report is not None:
            total = total.plus_report(outcome.report)
        elif outcome.error is not None:
            for landed in landed_reports(outcome.error, outcome.box):
                total = total.plus_report(landed)
            if self.first_failure is None:
                self.first_failure = outcome
            else:
                outcome.error.__traceback__ = None  # its frames hold the blocks of a task
        self.failures += outcome.error is not None
        self._state = (total, outcome)


def _commit(job: Job, tally: _Tally, seconds: float) -> WriteReport | None:
    """Note in the properties what the tasks of a job wrote, also into other mags than the job's own."""
    merged = tally.merged
    if merged is None:
        return None
    try:
        if merged.box is not None:
            commit(job.dataset_path, _edits(job.layer, job.mag, merged.box, merged.maximum))
    finally:
        _commit_boxes(merged.others)
    if merged.box is None and not merged.cubes:
        return None
    job.store.finish()
    box = merged.box or job.plan.box
    others = tuple(_place_report(report, seconds) for report in merged.others)
    return replace(
        _report(job.label, job.mag, merged, box, seconds),
        cubes_before=tally.cubes_before,
        dataset_path=job.dataset_path,
        others=others,
    )


def _commit_boxes(reports: Iterable[PlaceReport]) -> None:
    """Note boxes in the properties: each, also where another one's dataset or layer is gone."""
    with contextlib.ExitStack() as stack:
        for report in reports:
            edits = _edits(report.layer, report.mag, report.box, report.maximum)
            stack.callback(commit, report.dataset_path, edits)


def commit_box(landed: PlaceReport, store: StoredMag, seconds: float) -> WriteReport:
    """Note in the properties what was written without a job's tasks, slice by slice."""
    commit(landed.dataset_path, _edits(landed.layer, landed.mag, landed.box, landed.maximum))
    store.finish()
    return _place_report(landed, seconds)


def _place_report(landed: PlaceReport, seconds: float) -> WriteReport:
    """Return what a user gets to see of the writes into one of several mags."""
    report = _report(f"layer {landed.layer!r} mag {landed.mag}", landed.mag, landed, landed.box, seconds)
    return replace(report, dataset_path=landed.dataset_path)


def _report(
    label: str, mag: Mag, merged: UnitReport | PlaceReport, box: BoundingBox, seconds: float
) -> WriteReport:
    """Return what a user gets to see of merged reports."""
    return WriteReport(
        label=label,
        bounding_box=box.from_mag_to_mag1(mag),
        cubes=merged.cubes,
        bytes=merged.nbytes,
        file_bytes=merged.file_nbytes,
        minimum=merged.minimum,
        maximum=merged.maximum,
        seconds=seconds,
    )


def _edits(layer: str, mag: Mag, box: BoundingBox, maximum: int | float | None) -> list[Edit]:
    """Return the edits that note a write."""
    edits: list[Edit] = [GrowBox(layer, box, mag)]
    if isinstance(maximum, int):
        edits.append(RaiseSegmentId(layer, maximum))
    return edits


def _failure(job: Job, first_failure: Outcome, failures: int) -> TaskFailedError:
    """Return the error of a job whose tasks failed, with the first one's error as its cause."""
    box, cause = first_failure.box, first_failure.error
    cubes = job.plan.cube.cubes(box)
    first = job.store.cube_path(cubes.start)
    more = f" and {len(cubes) - 1} more" if len(cubes) > 1 else ""
    others = f" ({failures} tasks failed)" if failures > 1 else ""
    error = TaskFailedError(
        f"{job.label}: {job.action} the cube {first}{more} (voxels {box} of that mag) failed with "
        f"{type(cause).__name__}: {cause}{others}. What the other tasks wrote is in the properties"
    )
    error.__cause__ = cause
    return error
