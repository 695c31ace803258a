"""Which calls are the same job: what a job's key is made of, and what an earlier run of it left.

::

    first run    key = hash(name of the array, target, box)  ─> ticket in the job's folder, journal beside it
    second run   the same expression has the same name       ─> the same key: what the journal does not have

A name is the same in every process where it is made of what the array is: of the files of a mag, of numpy arrays,
functions, seeds. Where it is drawn by chance there is no telling what an earlier run computed.
"""

from __future__ import annotations

import hashlib
import re
import uuid
import warnings
from typing import Any

from wkdask.errors import InvalidValueError, ResumeError, WkdaskWarning
from wkdask.geometry import BoundingBox
from wkdask.job import MagPlace, WriteOptions
from wkdask.plan import WritePlan
from wkdask.storage.jobs import Ticket, unfinished_jobs

__all__ = ["earlier_run", "job_key", "ticket_of", "why_name_changes"]

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_LARGEST_SEED = 1 << 64
"""Seeds that a person or a program chose are smaller; those that the system drew have 128 bits."""


def job_key(place: MagPlace, box: BoundingBox, name: str, options: WriteOptions) -> str:
    """Return what tells a job from all others on a mag, in every process.

    Parameters
    ----------
    place
        The mag.
    box
        What is written: absolute, in voxels of the mag.
    name
        What is written there: the name of an array, or of a function and what it reads.
    options
        Its `job`, if the user gave one, stands for name and box.

    Raises
    ------
    InvalidValueError
        If a job is to be resumed that does not flush what it wrote.
    """
    if options.resume and not options.durable:
        raise InvalidValueError(
            "resume=True needs durable=True: what was not flushed to the disk cannot be relied upon later"
        )
    what = ["job", options.job] if options.job is not None else ["name", name, box.to_csv()]
    text = "|".join([*what, place.store.path, repr(place.store.spec)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def earlier_run(
    place: MagPlace, box: BoundingBox, key: str, name: str, options: WriteOptions, *, writes: bool = True
) -> Ticket | None:
    """Return the ticket of an earlier run of a job; None if there is none, or it is not to be resumed.

    Parameters
    ----------
    place, box, name, options
        As for `job_key`.
    key
        The job's key.
    writes
        Whether the job changes the mag; one that does not is nothing to an unfinished job.

    Raises
    ------
    ResumeError
        If a job of the same name, given by the user, wrote another box.

    Warns
    -----
    WkdaskWarning
        If there is an unfinished job that is another one.
    """
    if not options.resume:
        return None
    unfinished = unfinished_jobs(place.store)
    for ticket in unfinished:
        if ticket.key == key:
            if ticket.box != box:
                raise ResumeError(
                    f"{place.label}: the unfinished job {options.job!r} writes the box {ticket.box}, this call "
                    f"{box} (voxels of that mag); give it another name, or the same box"
                )
            return ticket
    touching = [ticket for ticket in unfinished if not ticket.box.intersection(box).is_empty()]
    for ticket in touching if writes else ():
        warnings.warn(
            f"{place.label}: there is an unfinished job, but it is another one: {ticket.action} {ticket.name} into "
            f"the box {ticket.box}; this call is {name} into {box}. It starts from its beginning. (The name of an "
            f"array changes with its expression and with the files it reads; job= gives a name of your own)",
            WkdaskWarning,
            stacklevel=2,
        )
    return None


def ticket_of(
    place: MagPlace,
    plan: WritePlan,
    action: str,
    key: str | None,
    name: str,
    options: WriteOptions,
    *,
    staged: bool = False,
) -> Ticket:
    """Return the ticket of a job.

    Parameters
    ----------
    place
        The mag.
    plan
        The plan of this run: that of the earlier run, where there is one.
    action
        What is done, as a participle.
    key
        The job's key; None for a job that no later call can be recognised as.
    name, options
        As for `job_key`.
    staged
        Whether the job publishes nothing before all is built. If it was not said that it is to be resumed, a
        failure then leaves nothing: what was built may fill a disk, and nobody asked for it.
    """
    return Ticket(
        key=key or f"once-{uuid.uuid4().hex}",
        name=name if options.job is None else f"job {options.job!r}",
        action=action,
        dataset_path=place.dataset_path,
        layer=place.layer,
        mag=place.mag,
        box=plan.box,
        unit=plan.unit.shape,
        part=None if plan.part is None else plan.part.shape,
        resumable=key is not None and options.durable and (options.resume or not staged),
    )


def why_name_changes(array: Any, *, thorough: bool = False) -> str | None:
    """Return why an array has another name in every process; None where nothing says so.

    Parameters
    ----------
    array
        A dask array.
    thorough
        Whether to look into the tasks of a block for random numbers too; it costs as much as building their graph.
    """
    import dask

    graph = array.__dask_graph__()
    for name in map(str, getattr(graph, "layers", None) or graph):
        if found := _UUID4.search(name):
            return f"{name!r} is named by chance ({found[0]}), as results of dask.delayed are"
        if " at 0x" in name:
            return (
                f"{name!r} is named after the place of an object in memory; a function has a name of its own"
            )
    if not thorough:
        return None
    (block,) = dask.optimize(array.blocks[(0,) * array.ndim])
    reasons = map(_why_drawn, dict(block.__dask_graph__()).values())
    return next((reason for reason in reasons if reason is not None), None)


def _why_drawn(task: Any, depth: int = 0) -> str | None:
    """Return why the random numbers of a task cannot be drawn again; None if they can, or there are none."""
    if getattr(getattr(task, "func", task), "__name__", "") == "_apply_random":
        return "its random numbers come of a RandomState, which does not say whether it was seeded"
    sequence = getattr(task, "seed_seq", getattr(task, "_seed_seq", task))
    entropy = getattr(sequence, "entropy", None)
    if isinstance(entropy, int) and entropy >= _LARGEST_SEED:
        return "its random numbers come of a generator without a seed"
    if depth > 8:
        return None
    if isinstance(task, dict):
        children = list(task.values())
    elif isinstance(task, list | tuple):
        children = list(task)
    else:
        children = [*(getattr(task, "args", None) or ()), *(getattr(task, "kwargs", None) or {}).values()]
        children += [value] if (value := getattr(task, "value", None)) is not None else []
    return next((reason for child in children if (reason := _why_drawn(child, depth + 1))), None)
