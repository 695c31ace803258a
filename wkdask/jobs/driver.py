"""Runs a job as one transaction over all that it reads, writes and makes: opened, run, settled.

::

    open      finish what interrupted jobs left in any of its mags ─> private folder and manifest in each mag
              that it writes ─> new mags made, unlisted ─> room checked ─> array shapes grown
    run       stage 1: windows -> outcomes ─┐
              stage 2: windows -> outcomes ─┼─> tally, and the journal: which units are done
    settle    one commit of boxes, ids and new mags ─> stamps ─> receipt ─> private folders taken away

If tasks fail, or the user presses Ctrl-C, the folders go first, so that no task publishes any more; then
what landed is committed, and the error is raised. The folders of a job that can be resumed are parked with the
journal instead, and the same call with ``resume=True`` continues there. A mag that the job makes is listed
when it is whole, or not at all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from wkdask import settings
from wkdask.errors import (
    DamagedHeaderError,
    InterruptedJobError,
    JobRunningError,
    LockTimeoutError,
    PlanError,
    ReadOnlyError,
    ResumeError,
)
from wkdask.fsio import lock
from wkdask.geometry import BoundingBox
from wkdask.jobs.engines.choice import Engine, Outcome
from wkdask.jobs.events import Event, JobFinished, JobStarted, Listener, UnitDone, UnitFailed, WriteReport
from wkdask.jobs.job import Identity, Job, JobFolders, MagPlace, MagWrite, replace_stages
from wkdask.jobs.journal import Journal
from wkdask.jobs.mag_folders import discard_mag, make_mag, owner_of, prepare_folder
from wkdask.jobs.plan import plan_again
from wkdask.jobs.resume import refuse_other_work
from wkdask.jobs.settlement import JobTally, commit_job, failure_of
from wkdask.jobs.space import check_space
from wkdask.jobs.tasks import UnitReport
from wkdask.jobs.windows import AnyWindow, Stage
from wkdask.storage.protocol import PRIVATE, StoredMag
from wkdask.storage.publish.dead_jobs import has_replacing_job, illegible_jobs, replacing_now, sweep_ended
from wkdask.storage.publish.jobs import JobFolder, interrupted_jobs, job_folders
from wkdask.storage.publish.manifest import Manifest
from wkdask.storage.publish.private import private_folder
from wkdask.storage.publish.receipts import drop_receipts, read_receipt, write_receipt
from wkdask.storage.rereads import take_repeated

__all__ = [
    "finish_interrupted",
    "open_sources",
    "run_job",
    "run_planned",
]

_logger = logging.getLogger(__name__)


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
        What is read, written and made.
    stages
        Called with the job's private folders; returns what is to be run, in order.
    engine
        Where it runs.
    listeners
        Called with the events of the job.

    Returns
    -------
    WriteReport or None
        The merged reports of all tasks, also of previous runs that this one continued; None if nothing was written.
        If the same job has ended before, and what it wrote has not changed since, its report; nothing is done then.

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
        If the job is to be resumed and another process is at work on it, or one replaces a mag that it reads.
    InterruptedJobError
        If an interrupted job left a mag half replaced, and this user may not finish that.
    AlreadyExistsError
        If it would replace what another job wrote, and may not; nothing was written.
    InvalidValueError
        If one of the settings has a value that cannot work; nothing was written.
    """
    settings.check()
    key = job.identity.key if job.resume and job.identity is not None else None
    if key is not None and (report := _receipt(job, key)) is not None:
        for write in job.writes:  # it may have been killed before its folders went
            sweep_ended(write.store, key)
        return report
    if not job.overwrite:
        refuse_other_work(job)
    for write in job.writes:
        if not write.new:
            finish_interrupted(write.store, engine, but_not=key)
        if key is not None and write.in_place:
            _refuse_doubt(write.store)
    own = {write.store.path for write in job.writes}
    open_sources([store for store in job.reads if store.path not in own], engine)
    return _run_job(job, job.manifests(), stages, engine, listeners)


def run_planned(
    job: Job,
    stages: Callable[[JobFolders], Sequence[Stage]],
    engine: Engine,
    listeners: Sequence[Listener] = (),
) -> WriteReport:
    """Run a job that writes something for sure; see :func:`run_job`.

    Raises
    ------
    PlanError
        If it had no tasks.
    """
    report = run_job(job, stages, engine, listeners)
    if report is None:
        raise PlanError(f"{job.label}: the job had no tasks")
    return report


def open_sources(stores: Iterable[StoredMag], engine: Engine) -> None:
    """Make sure that no mag which is about to be read is half replaced by an in-place job.

    Parameters
    ----------
    stores
        The mags.
    engine
        Where the rest of an interrupted publication runs.

    Raises
    ------
    JobRunningError
        If a living job replaces its cubes now.
    InterruptedJobError
        If a dead one did, and this user may not finish that.
    """
    for store in {store.path: store for store in stores}.values():
        finish_interrupted(store, engine)
        for manifest in replacing_now(store):
            raise JobRunningError(
                f"{store.path} is to be read, but another process replaces its cubes at the moment "
                f"({manifest.action} "
                f"{manifest.name} into {manifest.box}); try again when that has ended"
            )


def _refuse_doubt(store: StoredMag) -> None:
    """Refuse to resume a job in place where another one, which may be the same, has replaced the mag.

    Raises
    ------
    ResumeError
        If so.
    """
    for folder in illegible_jobs(store, replaced=True):
        raise ResumeError(
            f"{store.path}: a job has replaced the mag and was interrupted before its end, and its manifest "
            f"in {folder} "
            f"is damaged or gone. If it was this job, its voxels are complete: remove that folder. If it was "
            f"another one, make this call without resume=True (--resume)"
        )


def _receipt(job: Job, key: str) -> WriteReport | None:
    """Return the report of the same job, if it has ended before and its mags have not changed since."""
    mags = [(write.store, write.box) for write in job.writes if not write.new]
    if job.writes[0].new or (len(mags) < len(job.writes) and not job.in_place):  # they would be listed
        return None
    rows = read_receipt(key, mags, own_only=job.in_place)
    try:
        reports = [_report_of(job, number, row) for number, *row in rows or ()]
    except (TypeError, ValueError, KeyError):
        return None
    if not reports:
        return None
    _logger.info(
        "%s: the same job has ended before, and nothing has changed since; nothing is done", job.label
    )
    reports = [replace(report, was_finished=True) for report in reports]
    return replace(reports[0], others=tuple(reports[1:]))


def _rows_of(job: Job, report: WriteReport) -> list[list[Any]]:
    """Return the reports of a job as JSON, each with which of its mags it is about; -1 for another one."""
    numbers = {(write.place.dataset_path, write.place.label): n for n, write in enumerate(job.writes)}
    reports = (report, *report.others)
    return [[numbers.get((each.dataset_path, each.label), -1), *each.to_row()] for each in reports]


def _report_of(job: Job, number: int, row: Sequence[Any]) -> WriteReport:
    """Return the report of a row: its mag has the name that it has now, not the one of that time."""
    report = WriteReport.from_row(row)
    if not 0 <= number < len(job.writes):
        return report
    place = job.writes[number].place
    return replace(report, label=place.label, dataset_path=place.dataset_path)


def _run_job(
    job: Job,
    manifests: Sequence[Manifest | None],
    stages: Callable[[JobFolders], Sequence[Stage]],
    engine: Engine,
    listeners: Sequence[Listener] = (),
    *,
    settles: bool = True,
) -> WriteReport | None:
    """Do what :func:`run_job` promises, on mags without interrupted jobs.

    The strategy: everything up to the last task happens while the private folders exist. A job that came to its
    end is settled while they still are: killed at any moment before they go, it is found complete, and
    settled again. A job that did not is settled after they went, because only then no task of it lands any more.

    Parameters
    ----------
    job, stages, engine, listeners
        As for `run_job`.
    manifests
        What is noted in each mag's private folder.
    settles
        Whether the job is over when its stages are; else its folders are parked again.
    """
    start = time.perf_counter()
    take_repeated()  # of reads before this job
    tally = JobTally()
    folders: list[JobFolder] = []
    report, ended = None, False

    def notify(event: Event) -> None:
        for listener in listeners:
            listener(event)

    try:
        with _terminable(), _opened(job, manifests, engine) as (folders, journal):
            try:
                _run_stages(job, stages, engine, tally, folders, journal, notify)
            finally:
                engine.stop()
                # A job that is interrupted before it has heard of its first tasks is resumed all the same.
                folders[0].landed = tally.merged is not None or engine.has_late()
            if not tally.failures:
                report = _settle(job, tally, time.perf_counter() - start, leave_receipt=settles)
                ended = True
                for folder in folders:
                    folder.finished = settles
    except _Terminated:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        # The private folders are gone: no task of this job publishes anything from here on.
        late = engine.late()
        try:
            if not ended:
                for outcome in late:
                    tally.add(outcome)  # no listener is called: one that raised would lose the others
                _note_late(folders, late)
                if not any(folder.parked for folder in folders):
                    for write in job.writes:
                        if write.new:
                            discard_mag(write)
                report = commit_job(job, tally, time.perf_counter() - start, whole=False)
        finally:
            notify(JobFinished(job.label, report))  # or a bar would stay on the terminal
    if tally.first_failure is not None:
        raise failure_of(
            job,
            tally.first_failure,
            tally.failures,
            landed=report is not None and not job.writes[0].new,
            kept=any(folder.parked for folder in folders),
        )
    return report


@contextlib.contextmanager
def _opened(
    job: Job, manifests: Sequence[Manifest | None], engine: Engine
) -> Iterator[tuple[list[JobFolder], Journal | None]]:
    """Make everything ready for a job's tasks: folders and manifests first, then mags, room and shapes."""
    key = job.identity.key if job.resume and job.identity is not None else None
    for write in job.writes:
        if write.new:
            prepare_folder(write, key)
        else:
            # A mag that is gone must not come back as a folder.
            write.store.opened(os.path.dirname(write.store.metadata_path))
    mags = [(write.store, manifest, write.box) for write, manifest in zip(job.writes, manifests, strict=True)]
    with contextlib.ExitStack() as stack:
        folders = stack.enter_context(job_folders(mags, resume=job.resume, durable=job.durable))
        journal = None
        if job.identity is not None and (manifest := folders[0].manifest) is not None:
            journal = stack.enter_context(Journal(folders[0].path, manifest.digest, _limits(job)))
        for write in job.writes:
            if write.new:
                make_mag(write, keep=folders[0].resumed)
        for write in job.writes:
            engine.check_sees(write.store.path)
        done = journal.merged if journal is not None else None
        check_space(job, engine.threads, done.nbytes if done is not None else 0)
        for write in job.writes:
            write.store.prepare(write.box)
        yield folders, journal


def _limits(job: Job) -> dict[tuple[str, str, str], BoundingBox]:
    """Return what a job may write: boxes by dataset, layer and mag."""
    return {
        (write.place.dataset_path, write.place.layer, write.place.mag.to_layer_name()): write.box
        for write in job.writes
    }


def _run_stages(
    job: Job,
    stages: Callable[[JobFolders], Sequence[Stage]],
    engine: Engine,
    tally: JobTally,
    folders: Sequence[JobFolder],
    journal: Journal | None,
    notify: Callable[[Event], None],
) -> None:
    """Run the stages that previous runs have not completed, until one has failures."""
    done = journal.merged if journal is not None else None
    tally.begin_with(done)
    todo = stages(JobFolders.at(job, folders))
    notify(
        JobStarted(
            label=job.label,
            action=job.action,
            units=sum(stage.units for stage in todo),
            cubes=job.all_cubes,
            nbytes=job.all_nbytes,
            engine=engine.description,
            units_before=journal.units if journal is not None else 0,
            cubes_before=_sum_of(done, "cubes"),
            nbytes_before=_sum_of(done, "nbytes"),
        )
    )
    # What was read is replaced in part: nothing is computed from it again, whatever the journal says.
    is_built = any(folder.is_replacing or folder.is_replaced for folder in folders)
    first = next((number for number, stage in enumerate(todo) if stage.replaces is not None), 0)
    for stage in todo[first:] if is_built else todo:
        target = None if stage.replaces is None else folders[stage.replaces]
        if not _is_over(stage, journal) and not (target is not None and target.is_replaced):
            if target is not None:
                _begin_replacing(job, folders, engine)
            for outcome in engine.run(_remaining(stage.windows, journal)):
                tally.add(outcome)
                if outcome.report is not None:
                    if journal is not None and outcome.stream is not None:
                        journal.note(outcome.stream, outcome.report)
                    notify(UnitDone(job.label, outcome.report))
                elif outcome.error is not None:
                    notify(UnitFailed(job.label, outcome.box, outcome.error))
            if tally.failures:
                return
            for stream in stage.streams if journal is not None else ():
                journal.close_stream(stream)  # type: ignore[union-attr]
        if target is not None and not target.is_replaced:
            target.end_second_phase()


def _sum_of(done: UnitReport | None, name: str) -> int:
    """Return what earlier runs counted, in all mags of the job."""
    return 0 if done is None else sum(getattr(report, name) for report in (done, *done.others))


def _begin_replacing(job: Job, folders: Sequence[JobFolder], engine: Engine) -> None:
    """Note in every mag that the job replaces in place that all is built, before the first cube is replaced."""
    if all(
        folder.is_replacing or folder.is_replaced
        for write, folder in zip(job.writes, folders, strict=True)
        if write.in_place
    ):
        return
    if job.inputs is not None:
        engine.wait_for_persisted(job.inputs)
    for write, folder in zip(job.writes, folders, strict=True):
        if write.in_place and not (folder.is_replacing or folder.is_replaced):
            folder.begin_second_phase(folder.manifest.state.encode() if folder.manifest is not None else b"")


def _settle(job: Job, tally: JobTally, seconds: float, *, leave_receipt: bool) -> WriteReport | None:
    """Commit what a job did that came to its end, and leave a receipt; done twice it does the same."""
    report = commit_job(job, tally, seconds)
    for write in job.writes:
        write.store.finish()
        drop_receipts(write.store, write.box)
    if leave_receipt and job.identity is not None and job.durable and report is not None:
        mags = [(write.store, write.box) for write in job.writes]
        write_receipt(job.identity.key, mags, _rows_of(job, report), durable=job.durable)
    return report


def _note_late(folders: Sequence[JobFolder], late: Sequence[Outcome]) -> None:
    """Note in the journal of a job that was stopped what its last tasks have done all the same."""
    ended = [outcome for outcome in late if outcome.report is not None and outcome.stream is not None]
    if not ended or not folders or not folders[0].parked or (manifest := folders[0].manifest) is None:
        return
    # If another process has already resumed the job, it redoes these.
    path = folders[0].path
    skip = contextlib.suppress(LockTimeoutError, OSError)
    with skip, lock(f"{path}/alive", timeout=0), Journal(path, manifest.digest) as journal:
        for outcome in ended:
            journal.note(outcome.stream, outcome.report)  # type: ignore[arg-type]


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


def _is_over(stage: Stage, journal: Journal | None) -> bool:
    """Return whether an earlier run of the job has completed a stage."""
    return journal is not None and bool(stage.streams) and all(map(journal.is_whole, stage.streams))


def _remaining(windows: Iterable[AnyWindow], journal: Journal | None) -> Iterator[AnyWindow]:
    """Yield windows without the units that the journal holds."""
    for window in windows:
        left = window.without_done(journal) if journal is not None and journal.units else window
        if len(left):
            yield left


def finish_interrupted(store: StoredMag, engine: Engine, but_not: str | None = None) -> None:
    """Finish dead jobs that had begun to replace a mag's cubes by what they had read from it.

    Half of the mag is changed, the other half of the new voxels is in the job's folder: a process that reads or
    writes now would make a mixture of it for good.

    Parameters
    ----------
    store
        The mag.
    engine
        Where the rest of the publication runs.
    but_not
        The key of a job that is about to be resumed anyway.

    Raises
    ------
    InterruptedJobError
        If this user may not finish it.
    """
    if not has_replacing_job(store.path):  # in nearly all cases
        return
    manifest = None
    try:
        # Of several who come upon it, one finishes it; the others wait.
        with lock(f"{private_folder(store.path)}/locks/finish.lock"):
            for manifest in interrupted_jobs(store):
                if manifest.key != but_not:
                    _finish(store, manifest, engine.again())
            for folder in illegible_jobs(store):
                raise InterruptedJobError(
                    f"{store.path} is half replaced by a job that was interrupted, and its manifest in {folder} is "
                    f"damaged or gone: some of the cubes may be new, others old. Write the voxels again from their "
                    f"source, after you have removed that folder"
                )
    except (DamagedHeaderError, FileNotFoundError) as error:
        raise InterruptedJobError(
            f"{store.path} was being replaced by a job that was interrupted ({_told(manifest)}), and what that job "
            f"had built is damaged or gone ({error}): some of its cubes may be new, others old. Write the box "
            f"again from its source, after you have removed the job's folder in {store.path}/{PRIVATE}"
        ) from error
    except (ReadOnlyError, PermissionError) as error:
        raise InterruptedJobError(
            f"{store.path} is half replaced by a job that was interrupted ({_told(manifest)}), and this user may "
            f"not finish that: {error}. Any job on that mag by a user who may write there does"
        ) from error


def _told(manifest: Manifest | None) -> str:
    """Return what a job does, in words."""
    return "" if manifest is None else f"{manifest.action} {manifest.name} into {manifest.box}"


def _finish(store: StoredMag, manifest: Manifest, engine: Engine) -> None:
    """Run what is left of the second phase of a dead job, as far as it concerns one mag."""
    plan = plan_again(store.spec, manifest.box, manifest.unit, manifest.part)
    owner = owner_of(store)
    place = owner or MagPlace("", manifest.layer, manifest.mag, store)
    write = MagWrite(place, manifest.box, in_place=True, unit=manifest.unit)
    job = Job(
        (write,),
        plan,
        manifest.action,
        identity=Identity(manifest.key, manifest.name, manifest.layer_box),
        resume=True,
        grows_box=owner is not None,
    )
    _run_job(
        job, [manifest], lambda folders: replace_stages(job, folders), engine, settles=not manifest.goes_on
    )
