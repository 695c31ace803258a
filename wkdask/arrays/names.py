"""Why an array has another name in every process: random numbers, results of dask.delayed, addresses of objects.

A job is resumed by the name of its array (:mod:`wkdask.jobs.resume`). Where that name is non-deterministic, this
module says why.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["why_name_changes"]

_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_LARGEST_SEED = 1 << 64
"""Seeds that a person or a program chose are smaller; those that the system drew have 128 bits."""


def why_name_changes(array: Any, *, thorough: bool = False) -> str | None:
    """Return why the name of an array is non-deterministic; None where nothing says so.

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
