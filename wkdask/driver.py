"""Runs a plan on an engine: windows, reports, merge, commit. The only caller of the commit of a job.

::

    private folder -> stage 1: windows -> outcomes ─┐
                      stage 2: windows -> outcomes ─┴─> merged report -> commit(box, id) -> WriteReport

What landed is always merged, also when tasks failed or the user pressed Ctrl-C; then the error goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import reduce

from wkdask.engines import Engine, Outcome
from wkdask.errors import PlanError, TaskFailedError
from wkdask.events import Event, JobFinished, JobStarted, Listener, UnitDone, UnitFailed, WriteReport
from wkdask.geometry import BoundingBox
from wkdask.job import Job, Stage
from wkdask.properties.commit import Edit, GrowBox, RaiseSegmentId, commit
from wkdask.storage.publish import job_folder
from wkdask.tasks import UnitReport, merge_reports

__all__ = ["run_job"]


def run_job(
    job: Job,
    stages: Callable[[str], Sequence[Stage]],
    engine: Engine,
    listeners: Sequence[Listener] = (),
) -> WriteReport:
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
    WriteReport
        The merged reports of all tasks.

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
    reports: list[UnitReport] = []
    failures: list[tuple[BoundingBox, BaseException]] = []

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    def take(outcome: Outcome) -> None:
        if outcome.report is not None:
            # Merged at once: the driver's memory does not grow with the number of units.
            reports[:] = [reduce(merge_reports, [*reports, outcome.report])]
            tell(UnitDone(job.label, outcome.report))
        elif outcome.error is not None:
            failures.append((outcome.box, outcome.error))
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
                    cubes=job.plan.num_cubes,
                    nbytes=job.plan.nbytes,
                    engine=engine.description,
                )
            )
            try:
                for stage in todo:
                    for outcome in engine.run(stage.windows):
                        take(outcome)
                    if failures:
                        break
            finally:
                for outcome in engine.stop():
                    take(outcome)
    finally:
        # The private folder is gone: no task of this job publishes anything from here on.
        report = _commit(job, reports, time.perf_counter() - start)
        tell(JobFinished(job.label, report))
    if failures:
        raise _failure(job, failures)
    if report is None:
        raise PlanError(f"{job.label}: the job had no tasks")
    return report


def _commit(job: Job, reports: Sequence[UnitReport], seconds: float) -> WriteReport | None:
    """Merge a box and a largest id into the properties."""
    if not reports or reports[0].box is None:
        return None
    merged, box = reports[0], reports[0].box
    edits: list[Edit] = [GrowBox(job.layer, box, job.mag)]
    if isinstance(merged.maximum, int):
        edits.append(RaiseSegmentId(job.layer, merged.maximum))
    commit(job.dataset_path, edits)
    job.store.finish()
    return WriteReport(
        label=job.label,
        bounding_box=box.from_mag_to_mag1(job.mag),
        cubes=merged.cubes,
        bytes=merged.nbytes,
        file_bytes=merged.file_nbytes,
        minimum=merged.minimum,
        maximum=merged.maximum,
        seconds=seconds,
    )


def _failure(job: Job, failures: Sequence[tuple[BoundingBox, BaseException]]) -> TaskFailedError:
    """Return the error of a job whose tasks failed, with the first one's error as its cause."""
    box, cause = failures[0]
    cubes = job.plan.cube.cubes(box)
    first = job.store.cube_path(cubes.start)
    more = f" and {len(cubes) - 1} more" if len(cubes) > 1 else ""
    others = f" ({len(failures)} tasks failed)" if len(failures) > 1 else ""
    error = TaskFailedError(
        f"{job.label}: {job.action} the cube {first}{more} (voxels {box} of that mag) failed with "
        f"{type(cause).__name__}: {cause}{others}. What the other tasks wrote is in the properties"
    )
    error.__cause__ = cause
    return error
