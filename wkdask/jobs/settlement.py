"""What the outcomes of a job come to, and how they reach the properties: one commit per dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace

from wkdask.errors import TaskFailedError
from wkdask.geometry import BoundingBox, Mag
from wkdask.jobs.engines.choice import Outcome
from wkdask.jobs.events import WriteReport
from wkdask.jobs.job import Job
from wkdask.jobs.mag_folders import listing_of
from wkdask.jobs.tasks import NOTHING, PlaceReport, Total, UnitReport, landed_reports
from wkdask.properties import load
from wkdask.properties.commit import Edit, GrowBox, RaiseSegmentId, commit
from wkdask.storage.protocol import StoredMag

__all__ = ["JobTally", "commit_box", "commit_boxes", "commit_job", "failure_of"]


class JobTally:
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


def commit_job(job: Job, tally: JobTally, seconds: float, *, whole: bool = True) -> WriteReport | None:
    """Note in the properties what the tasks of a job wrote, and list the mags that it has made.

    Parameters
    ----------
    job, tally, seconds
        The job, what its tasks reported, and how long they took.
    whole
        Whether the job came to its end; else the mags that it makes stay unlisted.
    """
    merged = tally.merged
    if merged is None:
        return None
    # All edits of one dataset in one commit: a reader sees a pyramid with all its mags, or without.
    edits: dict[str, list[Edit]] = {}
    written = [PlaceReport.of(job.dataset_path, job.layer, job.mag, merged), *merged.others]
    new = {write.key: write for write in job.writes if write.new}
    for report in written:
        write = new.pop((report.dataset_path, report.layer, report.mag), None)
        if write is not None and not whole:
            continue
        if write is not None and (listing := listing_of(write)) is not None:
            edits.setdefault(report.dataset_path, []).append(listing)
        if job.grows_box and not report.box.is_empty():
            grown = _edits(report.layer, report.mag, report.box, report.maximum)
            edits.setdefault(report.dataset_path, []).extend(grown)
    for write in new.values() if whole else ():  # those of which nothing was written
        if (listing := listing_of(write)) is not None:
            edits.setdefault(write.place.dataset_path, []).append(listing)
    with contextlib.ExitStack() as stack:  # each dataset, also where another one is gone
        for dataset, each in edits.items():
            stack.callback(commit, dataset, each)
    if merged.box is None and not merged.cubes:
        return None
    box = merged.box or job.plan.box
    if not job.grows_box:  # cubes were handled as a whole; only what lies in the layer is reported
        box = _within_layer(job, box)
    others = tuple(_place_report(report, seconds) for report in merged.others)
    return replace(
        _report(job.label, job.mag, merged, box, seconds),
        cubes_before=tally.cubes_before,
        dataset_path=job.dataset_path,
        others=others,
        reads_repeated=merged.reads_repeated,
        verified=merged.verified,
    )


def _within_layer(job: Job, box: BoundingBox) -> BoundingBox:
    """Return what of a box lies in the layer's box; all of it where that is not known."""
    records = (layer for layer in load(job.dataset_path).layers if layer.name == job.layer)
    if (layer := next(records, None)) is None:
        return box
    step = job.mag.to_vec3_int()
    inside = box.intersection(layer.bounding_box.aligned_outwards(step).in_mag(job.mag))
    return box if inside.is_empty() else inside


def commit_boxes(reports: Iterable[PlaceReport]) -> None:
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


def failure_of(
    job: Job, first_failure: Outcome, failures: int, *, landed: bool, kept: bool
) -> TaskFailedError:
    """Return the error of a job whose tasks failed, with the first one's error as its cause.

    Parameters
    ----------
    job
        The job.
    first_failure, failures
        How the first task failed, and how many did.
    landed
        Whether other tasks wrote something that is listed now.
    kept
        Whether the job can be resumed.
    """
    box, cause = first_failure.box, first_failure.error
    cubes = job.plan.cube.cubes(box)
    first = job.store.cube_path(cubes.start)
    more = f" and {len(cubes) - 1} more" if len(cubes) > 1 else ""
    others = f" ({failures} tasks failed)" if failures > 1 else ""
    error = TaskFailedError(
        f"{job.label}: {job.action} the cube {first}{more} (voxels {box} of that mag) failed with "
        f"{type(cause).__name__}: {cause}{others}"
        + (". What the other tasks wrote is in the properties" if landed else "")
        + ("; the same call with resume=True (--resume) continues from there" if kept else "")
    )
    error.__cause__ = cause
    return error
