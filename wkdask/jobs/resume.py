"""Which calls are the same job: what a job's key is made of, and what a previous run of it left.

::

    first run    key = hash(what is computed, box, layout)  ─> manifest in the job's folder, journal beside it
    second run   the same call has the same key             ─> what the journal does not have is done
    third run    ... and finds a receipt                    ─> nothing is done

The name of an array says what is computed. It is the same in every process if it is made from the array's
content: the files of a mag, numpy arrays, functions, seeds. Where a job replaces what it reads,
the name changes when it has ended; there the structure of the expression counts, whatever the mag holds
(`wkdask.arrays.graph_facts.structure_of`). Where the name is non-deterministic, there is no way to know what a
previous run computed.
"""

from __future__ import annotations

import hashlib
import warnings

from wkdask.errors import AlreadyExistsError, InvalidValueError, ResumeError, WkdaskWarning
from wkdask.geometry import BoundingBox
from wkdask.jobs.job import Identity, Job, MagPlace, WriteOptions
from wkdask.storage.publish.dead_jobs import previous_run
from wkdask.storage.publish.jobs import unfinished_jobs
from wkdask.storage.publish.manifest import Manifest

__all__ = ["identify", "previous_manifest", "refuse_other_work"]


def identify(
    place: MagPlace,
    box: BoundingBox,
    what: str | None,
    options: WriteOptions,
    *,
    name: str,
    kind: str = "",
    layer_box: BoundingBox | None = None,
) -> Identity | None:
    """Return by what a job is recognised in every process; None for a job that cannot be.

    Parameters
    ----------
    place
        The job's own mag.
    box
        What is written: absolute, in voxels of the mag.
    what
        What is computed, and into which further mags; None where that is non-deterministic.
    options
        Its `job`, if the user gave one, stands for `what`.
    name
        What is written, for people.
    kind
        What else the job does, which makes it another one.
    layer_box
        As in `Identity`.

    Raises
    ------
    InvalidValueError
        If a job is to be resumed that does not flush what it wrote.
    """
    if options.resume and not options.durable:
        raise InvalidValueError(
            "resume=True needs durable=True: what was not flushed to the disk cannot be relied upon later"
        )
    if options.job is not None:
        name, parts = f"job {options.job!r}", ["job", options.job]
    elif what is None:
        return None
    else:
        parts = ["what", what, box.to_csv()]
    # Not the mag's path: the key lies in the mag's own folder, and follows where that is moved.
    text = "|".join([*parts, kind, repr(place.store.spec)])
    key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return Identity(key, name, layer_box)


def previous_manifest(
    place: MagPlace,
    box: BoundingBox,
    identity: Identity | None,
    options: WriteOptions,
    *,
    writes: bool = True,
) -> Manifest | None:
    """Return the manifest of a previous run of a job; None if there is none, or it is not to be resumed.

    Parameters
    ----------
    place, box, options
        As for `identify`.
    identity
        What that returned.
    writes
        Whether the job changes the mag; one that does not leaves unfinished jobs alone.

    Raises
    ------
    ResumeError
        If a job of the same name, given by the user, wrote another box.

    Warns
    -----
    WkdaskWarning
        If there is an unfinished job that is another one.
    """
    if not options.resume or identity is None:
        return None
    found = previous_run(place.store, identity.key)
    if found is not None:
        if found.box != box:
            raise ResumeError(
                f"{place.label}: the unfinished job {options.job!r} writes the box {found.box}, this call "
                f"{box} (voxels of that mag); give it another name, or the same box"
            )
        return found
    for manifest in unfinished_jobs(place.store) if writes and options.overwrite else ():
        if not manifest.box.intersection(box).is_empty():
            warnings.warn(
                f"{place.label}: there is an unfinished job, but it is another one: {manifest.action} "
                f"{manifest.name} into the box {manifest.box}; this call is {identity.name} into {box}. It "
                f"starts from "
                f"its beginning. (The name of an array changes with its expression and with the files it "
                f"reads; job= "
                f"gives a name of your own)",
                WkdaskWarning,
                stacklevel=2,
            )
    return None


def refuse_other_work(job: Job) -> None:
    """Refuse a job that would replace what another job wrote, or has begun to write.

    Parameters
    ----------
    job
        A job that has no receipt.

    Raises
    ------
    AlreadyExistsError
        If so, with what to do. What a previous run of the job itself wrote is no reason.
    """
    key = job.identity.key if job.identity is not None else None
    if job.resume and key is not None and previous_run(job.store, key) is not None:
        return
    anew = "let the call overwrite it (--overwrite), delete the mag, or choose another"
    for write in job.writes:
        for manifest in unfinished_jobs(write.store):
            if manifest.box.intersection(write.box).is_empty():
                continue
            if manifest.key == key and not job.resume:
                raise AlreadyExistsError(
                    f"{write.place.label}: this job was begun before; resume it (resume=True, --resume), or {anew}"
                )
            raise AlreadyExistsError(
                f"{write.place.label}: an unfinished job is there, but it is another one: {manifest.action} "
                f"{manifest.name}; repeat that call to resume it, {anew}"
            )
        grid = write.store.spec.grid
        if not write.new and any(
            not grid.cube_box(index).intersection(write.box).is_empty()
            for index in write.store.cubes_on_disk()
        ):
            raise AlreadyExistsError(
                f"{write.place.label} holds voxels in {write.box} (voxels of that mag) that another job wrote, or "
                f"changed; {anew}"
                if job.resume
                else f"{write.place.label} holds voxels in {write.box} (voxels of that mag); if the same job wrote "
                f"them, resume it (resume=True, --resume); else {anew}"
            )
