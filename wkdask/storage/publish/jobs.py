"""The private folders of a job: locked from the start, renamed away at its end, resumed or removed if it died.

A job has one private folder in each mag that it writes. It builds cubes there and publishes each by one rename::

    <mag>/header.wkw
    <mag>/z0/y0/x0.wkw                         a published cube
    <mag>/.wkdask/locks/017.lock               held while a cube that falls on it is published
    <mag>/.wkdask/checksums/z0/y0/x0.wkw.crc   checksums of a cube, where the mag has them (`storage.checksums`)
    <mag>/.wkdask/finished/<key>               the receipt of a job that has ended (`publish.receipts`)
    <mag>/.wkdask/<job>/alive                  locked while the job's driver lives
    <mag>/.wkdask/<job>/manifest               what the job does to this mag (`publish.manifest`)
    <mag>/.wkdask/<job>/journal                which of its units are done (`wkdask.jobs.journal`); in its first mag
    <mag>/.wkdask/<job>/<host-pid-thread…>/    one private root per worker thread, reused for cube after cube
    <mag>/.wkdask/<job>/done-…                 notes of tasks whose results others need (`wkdask.pyramid.tasks`)
    <mag>/.wkdask/<job>/staged/                a private mag, where a job builds all before it publishes any
    <mag>/.wkdask/<job>/built/                 the same, since it began to publish: tasks that still build fail
    <mag>/.wkdask/<job>/replacing              since the second phase began: some of the mag's cubes are replaced
    <mag>/.wkdask/<job>/replaced               the same file, since the second phase ended: all of them are

A reader sees the old cube or the new one. When a job ends its folders are renamed away first: whatever a task
that was thought lost does later (rename out of them, rename into them) fails. What still builds may make a folder
anew, but without the file ``alive``: a task looks for it between building and publishing.

`wkdask.storage.publish.dead_jobs` says what becomes of the folders of a job whose driver is dead.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence

from wkdask import settings
from wkdask.errors import DamagedHeaderError, JobEndedError
from wkdask.fsio import fsync_folder, lock, make_folders, remove_folder
from wkdask.geometry import BoundingBox
from wkdask.storage.checksums import begin_checksums
from wkdask.storage.protocol import StoredMag
from wkdask.storage.publish.dead_jobs import (
    ALIVE,
    JOB_NAME,
    JobFolder,
    interrupted_jobs,
    renamed,
    strip,
    sweep,
    taken_over,
    unfinished_jobs,
)
from wkdask.storage.publish.manifest import Manifest
from wkdask.storage.publish.private import make_shared_folder, opened_folder, private_folder

__all__ = [
    "JobFolder",
    "check_alive",
    "interrupted_jobs",
    "job_folder",
    "job_folders",
    "of_living_job",
    "take_built",
    "unfinished_jobs",
]


@contextlib.contextmanager
def job_folder(store: StoredMag, box: BoundingBox | None = None) -> Iterator[str]:
    """Make a private folder for a job without a manifest, and remove it at the end.

    Parameters
    ----------
    store
        The mag.
    box
        What the job writes: absolute, in voxels of the mag; None where that is not known before.
    """
    with job_folders([(store, None, box)], resume=False) as (folder,):
        yield folder.path


@contextlib.contextmanager
def job_folders(
    mags: Sequence[tuple[StoredMag, Manifest | None, BoundingBox | None]],
    *,
    resume: bool,
    durable: bool = True,
    writes: bool = True,
) -> Iterator[list[JobFolder]]:
    """Make a job's private folders, or take over those that a previous run of it left.

    If the job has not finished by the end, and there is something to resume, its folders are parked under
    other names: tasks that still run fail.

    Parameters
    ----------
    mags
        For each mag that the job writes, its own first: the mag, the manifest, and the box if there is no manifest.
    resume
        Whether to continue a previous run; else what that one left is swept.
    durable
        Flush the manifest to the disk.
    writes
        Whether the job changes the mags; one that only reads takes nothing away from dead jobs that write.

    Raises
    ------
    JobRunningError
        If a living process works on the same job.
    ResumeError
        If a previous run had begun to replace cubes, and one of its further mags was taken away since.
    """
    if writes and settings.get("checksums"):
        for store, _, _ in mags:
            _private_folder_of(store)
            begin_checksums(store.path)
    with contextlib.ExitStack() as stack:
        folders = taken_over(mags, stack) if resume else None
        if folders is None:
            folders = []
            for store, manifest, box in mags:
                private = _private_folder_of(store)
                with lock(f"{private}/locks/jobs.lock"):
                    if writes:
                        sweep(private, box if manifest is None else manifest.box, manifest)
                    folder = JobFolder(_born(private, stack), manifest)
                    if manifest is not None:
                        with opened_folder(folder.path) as descriptor:
                            manifest.write(descriptor, durable=durable)
                        if durable:
                            fsync_folder(private)
                folders.append(folder)
        elif writes:
            for store, manifest, box in mags:
                private = _private_folder_of(store)
                with lock(f"{private}/locks/jobs.lock"):
                    sweep(private, box if manifest is None else manifest.box, None)
        try:
            yield folders
        finally:
            _end(folders)


def _private_folder_of(store: StoredMag) -> str:
    """Return a mag's private folder, made if it is not there; of one position of an array also what is above it."""
    make_folders(os.path.dirname(store.metadata_path), store.path)  # but not the mag, which may be gone
    return private_folder(store.path)


def _end(folders: list[JobFolder]) -> None:
    """Park the folders of a job that can be resumed; take the others away."""
    finished = all(folder.finished for folder in folders)
    begun = any(folder.has_begun for folder in folders)
    manifests = [folder.manifest for folder in folders]
    resumable = begun and all(manifest is not None and manifest.resumable for manifest in manifests)
    kept = not finished and (resumable or any(each.is_replacing or each.is_replaced for each in folders))
    # The first folder goes last: with it goes the journal, by which a later run recognises the others.
    for folder in reversed(folders):
        if not kept:
            remove_folder(folder.path)
            continue
        with contextlib.suppress(FileNotFoundError):  # an impatient user, or the whole mag is gone
            folder.path = renamed(folder.path)
            folder.parked = True
            with opened_folder(folder.path) as descriptor:
                strip(descriptor)


def take_built(store: StoredMag, folder: str) -> StoredMag:
    """Return the private mag in which a job has built all its cubes, taken away from the tasks that built them.

    One of them that was thought lost may still run: it would read what its own job has published since.

    Parameters
    ----------
    store
        The mag.
    folder
        The job's private folder in it.
    """
    built = f"{folder}/built"
    if not os.path.isdir(built):  # a previous run of the job may have come so far
        os.rename(f"{folder}/staged", built)
    return store.opened(built)


def _born(private: str, stack: contextlib.ExitStack) -> str:
    """Make a job's folder and hold its lock; the caller holds the lock that those who remove dead jobs take."""
    folder = f"{private}/{uuid.uuid4().hex[:12]}"
    make_shared_folder(folder)
    stack.enter_context(lock(f"{folder}/{ALIVE}"))
    return folder


# --- in tasks --------------------------------------------------------------------------------------------


def check_alive(folder: str) -> None:
    """Refuse to go on when the job has ended; call it between building and publishing."""
    if not os.path.lexists(f"{folder}/{ALIVE}"):
        if JOB_NAME.fullmatch(os.path.basename(folder)):
            remove_folder(folder)  # made again by what still built
        raise JobEndedError(f"the job of {folder} has ended; this task publishes nothing")


@contextlib.contextmanager
def of_living_job(folder: str) -> Iterator[None]:
    """Re-raise errors that come of the job's end as such."""
    try:
        yield
    except (FileNotFoundError, DamagedHeaderError) as error:
        try:
            check_alive(folder)
        except JobEndedError as ended:
            raise ended from error
        raise
