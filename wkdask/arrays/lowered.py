"""Arrays of the package `dask-array`, dask's query optimiser, as arrays of `dask.array`."""

from __future__ import annotations

from typing import Any

__all__ = ["as_dask_array"]


def as_dask_array(data: Any) -> Any:
    """Return an array of `dask_array` as one of `dask.array` that computes the same; whatever else as it is.

    The expression is optimised as a whole, and becomes one graph with a task for each of its chunks: what cuts it
    into windows needs the chunks.

    Parameters
    ----------
    data
        What was given to be written.
    """
    if type(data).__module__.partition(".")[0] != "dask_array":
        return data
    import dask.array as da

    lowered = data.optimize()
    graph = dict(lowered.__dask_graph__())
    return da.Array(graph, lowered.name, lowered.chunks, dtype=lowered.dtype, meta=lowered._meta)
