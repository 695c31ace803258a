"""Runs a plan on an engine: windows, reports, merge, commit. The only caller of the commit of a job.

::

    private folder -> stage 1: windows -> outcomes ─┐
                      stage 2: windows -> outcomes ─┴─> merged report -> commit(box, id) -> WriteReport

What landed is always merged, also when tasks failed or the user pressed Ctrl-C; then the error goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from wkdask.engines import Engine, Outcome
from wkdask.errors import TaskFailedError
from wkdask.events import Event, JobFinished, JobStarted, Listener, UnitDone, UnitFailed, WriteReport
from wkdask.geometry import BoundingBox, Mag
from wkdask.job import AnyWindow, Job, Stage
from wkdask.plan import WritePlan
from wkdask.properties.commit import Edit, GrowBox, RaiseSegmentId, commit
from wkdask.storage.jobs import job_folder
from wkdask.storage.protocol import StoredMag
from wkdask.tasks import PlaceReport, UnitReport, landed_reports, merge_reports

__all__ = ["commit_box", "run_job", "run_unwritten"]


def run_job(
    job: Job,
    stages: Callable[[str], Sequence[Stage]],
    engine: Engine,
    listeners: Sequence[Listener] = (),
) -> WriteReport | None:
    """Run a job to its end and note in the properties what it wrote.

    Parameters
    ----------
    job
        What is written.
    stages
        Called with the job's private folder; returns what is to be run, in order.
    engine
        Where it runs.
    listeners
        Called with the events of the job.

    Returns
    -------
    WriteReport or None
        The merged reports of all tasks; None if nothing was written.

    Raises
    ------
    TaskFailedError
        If tasks failed; what landed is in the properties nevertheless. The first task's error is chained.
    WorkerPathError
        If a worker does not see the mag; nothing was written.
    """
    start = time.perf_counter()
    job.store.prepare(job.plan.box)
    engine.check_sees(job.store.path)
    tally = _Tally()

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    def take(outcome: Outcome) -> None:
        tally.add(outcome)
        if outcome.report is not None:
            tell(UnitDone(job.label, outcome.report))
        elif outcome.error is not None:
            tell(UnitFailed(job.label, outcome.box, outcome.error))

    report = None
    try:
        with job_folder(job.store) as folder:
            todo = stages(folder)
            tell(
                JobStarted(
                    label=job.label,
                    action=job.action,
                    units=sum(stage.units for stage in todo),
                    cubes=job.num_cubes,
                    nbytes=job.nbytes,
                    engine=engine.description,
                )
            )
            try:
                for stage in todo:
                    for outcome in engine.run(stage.windows):
                        take(outcome)
                    if tally.failures:
                        break
            finally:
                engine.stop()
    finally:
        # The private folder is gone: no task of this job publishes anything from here on.
        for outcome in engine.late():
            tally.add(outcome)  # no listener is called: one that raised would lose the others
        try:
            report = _commit(job, tally.merged, time.perf_counter() - start)
        finally:
            tell(JobFinished(job.label, report))  # or a bar would stay on the terminal
    if tally.first_failure is not None:
        raise _failure(job, tally.first_failure, tally.failures)
    return report


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
    tally = _Tally()
    started = JobStarted(label, "reading", len(plan.units), 0, plan.nbytes, engine.description)
    try:
        for listener in listeners:
            listener(started)
        for outcome in engine.run(windows):
            tally.add(outcome)
            if outcome.report is not None:
                for listener in listeners:
                    listener(UnitDone(label, outcome.report))
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
        self._state: tuple[UnitReport | None, Outcome | None] = (None, None)
        self.first_failure: Outcome | None = None
        self.failures = 0

    @property
    def merged(self) -> UnitReport | None:
        """All reports as one."""
        return self._state[0]

    def add(self, outcome: Outcome) -> None:
        """Count an outcome, once even if it comes twice in a row: Ctrl-C can come while it is handed over."""
        merged, last = self._state
        if last is not None and (outcome is last or (outcome.report and outcome.report == last.report)):
            return
        if outcome.report is not None:
            merged = outcome.report if merged is None else merge_reports(merged, outcome.report)
        elif outcome.error is not None:
            for landed in landed_reports(outcome.error, outcome.box):
                merged = landed if merged is None else merge_reports(merged, landed)
            if self.first_failure is None:
                self.first_failure = outcome
            else:
                outcome.error.__traceback__ = None  # its frames hold the blocks of a task
        self.failures += outcome.error is not None
        self._state = (merged, outcome)


def _commit(job: Job, merged: UnitReport | None, seconds: float) -> WriteReport | None:
    """Note in the properties what the tasks of a job wrote, also into other mags than the job's own."""
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
    return _report(job.label, job.mag, merged, merged.box or job.plan.box, seconds)


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
    return _report(f"layer {landed.layer!r} mag {landed.mag}", landed.mag, landed, landed.box, seconds)


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
