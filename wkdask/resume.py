"""Which calls are the same job: what a job's key is made of, and what a previous run of it left.

::

    first run    key = hash(what is computed, box, layout)  ─> manifest in the job's folder, journal beside it
    second run   the same call has the same key             ─> what the journal does not have is done
    third run    ... and finds a receipt                    ─> nothing is done

The name of an array says what is computed. It is the same in every process if it is made from the array's
content: the files of a mag, numpy arrays, functions, seeds. Where a job replaces what it reads,
the name changes when it has ended; there the structure of the expression counts, whatever the mag holds
(`wkdask.graph_facts.structure_of`). Where the name is non-deterministic, there is no way to know what a
previous run computed.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from typing import Any

from wkdask.errors import InvalidValueError, ResumeError, WkdaskWarning
from wkdask.geometry import BoundingBox
from wkdask.job import Identity, MagPlace, WriteOptions
from wkdask.storage.dead_jobs import previous_run
from wkdask.storage.jobs import unfinished_jobs
from wkdask.storage.manifest import Manifest

__all__ = ["identify", "previous_manifest", "why_name_changes"]

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_LARGEST_SEED = 1 << 64
"""Seeds that a person or a program chose are smaller; those that the system drew have 128 bits."""


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
        name, told = f"job {options.job!r}", ["job", options.job]
    elif what is None:
        return None
    else:
        told = ["what", what, box.to_csv()]
    # Not the mag's path: the key lies in the mag's own folder, and follows where that is moved.
    text = "|".join([*told, kind, repr(place.store.spec)])
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
    for manifest in unfinished_jobs(place.store) if writes else ():
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
            return f"{name!r} has a non-deterministic name ({found[0]}), as results of dask.delayed have"
        if " at 0x" in name:
            return (
                f"{name!r} is named after the address of an object in memory; use a function defined with def"
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
