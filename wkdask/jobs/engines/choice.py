"""Which engine runs a job: threads of this process, or the workers of the active client's scheduler."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wkdask.errors import InvalidValueError
from wkdask.jobs.engines.cluster import DistributedEngine
from wkdask.jobs.engines.local import LocalEngine
from wkdask.jobs.engines.protocol import Engine, Outcome

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "DistributedEngine",
    "Engine",
    "LocalEngine",
    "Outcome",
    "active_client",
    "dashboard_text",
    "pick_engine",
]


def pick_engine(
    client: Client | None = None, retries: int | None = None, resources: Mapping[str, float] | None = None
) -> Engine:
    """Return the engine of a client, of the active client, or of local threads.

    Inside a task there is no active client to nest in: local threads it is then.

    Parameters
    ----------
    client
        The cluster; the active one by default.
    retries
        How often a task that failed is tried again; by default twice on a cluster, and not on local threads,
        where the second try would meet the same disk and the same data.
    resources
        What each task occupies of a worker, such as ``{"GPU": 1}``; the workers were started with as much.

    Raises
    ------
    InvalidValueError
        If `retries` is negative, or there are `resources` but no cluster.
    PlanError
        If no worker has the resources.
    """
    if retries is not None and retries < 0:
        raise InvalidValueError(f"a task can be tried again 0 times or more, got retries={retries}")
    if client is None:
        client = active_client()
    if client is None:
        if resources:
            raise InvalidValueError(
                f"resources={dict(resources)} are those of a cluster's workers, and there is no client"
            )
        return LocalEngine(retries=retries or 0)
    return DistributedEngine(client, 2 if retries is None else retries, resources)


def dashboard_text(client: Client) -> str:
    """Say where a scheduler's dashboard is; where it listens on the scheduler's host only, how to get there.

    Parameters
    ----------
    client
        A client of the scheduler.
    """
    import socket
    from urllib.parse import urlsplit

    if "dashboard" not in client.scheduler_info().get("services", {}):
        return "no dashboard"
    link = client.dashboard_link
    host, port = urlsplit(link).hostname, urlsplit(link).port
    if host is None or port is None:  # behind a proxy: as the user's configuration says
        return f"dashboard {link}"
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return f"dashboard http://127.0.0.1:{port}/status after ssh -L {port}:127.0.0.1:{port} {host}"
    return f"dashboard {link}"


def active_client() -> Client | None:
    """Return the client that dask itself would use, without importing distributed if it is not imported yet."""
    import sys

    import dask.config

    if "distributed" not in sys.modules:
        return None
    if dask.config.get("scheduler", None) not in (None, "dask.distributed", "distributed"):
        return None  # as in ``with dask.config.set(scheduler="threads")``
    from distributed import default_client, get_worker

    with contextlib.suppress(ValueError):
        get_worker()
        return None
    with contextlib.suppress(ValueError):
        return default_client()
    return None
