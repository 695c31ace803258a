"""Units on the workers of a distributed scheduler, which is the user's."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wkdask import settings
from wkdask.errors import InvalidValueError, PlanError, SchedulerLostError, WorkerPathError
from wkdask.geometry import BoundingBox
from wkdask.jobs.engines.flow import ClusterFlow
from wkdask.jobs.engines.protocol import Outcome, attempted
from wkdask.jobs.journal import Stream
from wkdask.jobs.plan import WINDOW_UNITS
from wkdask.jobs.tasks import UnitReport, sees_mag
from wkdask.jobs.windows import AnyWindow, CallWindow, NodeWindow

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DistributedEngine"]

_GRACE = 5.0
"""Seconds that running tasks get to report after a job was stopped, before they are cut off."""
_IDLE_NBYTES = 200 << 20
"""What a worker's process holds without tasks: the interpreter, numpy, dask, compiled kernels."""
_DEFAULT_RETRIES = 2
"""How often a task that failed is tried again, by default."""
_WORKER_TIMEOUT = 60.0
"""Seconds to wait for a first worker by default, where no batch system has to start it."""
_BATCH_MODULES = (
    "dask_jobqueue",
    "dask_kubernetes",
    "dask_gateway",
    "dask_mpi",
    "dask_cloudprovider",
    "coiled",
)
"""Clusters whose workers wait in a queue, for as long as that takes."""
_LOOK = 10.0
"""Seconds between two lines of the log that say what is waited for."""
_logger = logging.getLogger(__name__)


class DistributedEngine:
    """Workers of a distributed scheduler, reached through the user's client."""

    def __init__(
        self, client: Client, retries: int = _DEFAULT_RETRIES, resources: Mapping[str, float] | None = None
    ) -> None:
        if client.asynchronous:
            raise InvalidValueError("wkdask needs a synchronous Client; make it with asynchronous=False")
        self._client = client
        self._address = _address(client)
        self._retries = retries
        self._resources = dict(resources or {})
        self._pending: dict[Any, tuple[BoundingBox, Any, Stream | None]] = {}
        self._yielded: Any = None
        # Calls that may be submitted again, and how often they have been.
        self._calls: dict[Any, tuple[tuple[Any, ...], int]] = {}
        self._flow = ClusterFlow(client, retries)
        self._causes: dict[Any, list[Any]] = {}
        if client.status not in ("running", "connecting"):
            raise SchedulerLostError(
                f"the client of {self._address} is {client.status}; open a new Client, or give client=None with no "
                f"client active to run on local threads"
            )
        workers = self._workers() or self._first_workers()
        if self._resources:
            workers = self._with_resources(workers)
        self.threads = sum(worker["nthreads"] for worker in workers.values())
        self.description = f"{len(workers)} workers, {self.threads} threads, at {_address(client)}"

    def _first_workers(self) -> dict[str, Any]:
        """Wait for a first worker, and say so; return what there is then.

        Raises
        ------
        WorkerPathError
            If none comes within ``wkdask.worker-timeout`` seconds.
        """
        limit = worker_timeout(self._client)
        start = time.monotonic()
        while limit is None or time.monotonic() - start < limit:
            left = _LOOK if limit is None else min(_LOOK, max(0.1, limit - (time.monotonic() - start)))
            with contextlib.suppress(TimeoutError):
                self._client.wait_for_workers(1, timeout=left)
            if workers := self._workers():
                return workers
            _logger.warning(
                "no worker at %s yet, after %.0f s (%s)",
                self._address,
                time.monotonic() - start,
                "no limit" if limit is None else f"up to {limit:g} s; the setting wkdask.worker-timeout",
            )
        raise WorkerPathError(
            f"no worker came to {self._address} within {limit:g} s; start some, or let the setting "
            f"wkdask.worker-timeout be longer, or None for no limit"
        )

    def check_inputs(self, futures: Sequence[Any]) -> None:
        """Refuse results that were persisted on another cluster, or with a client that is closed."""
        for future in futures:
            owner = getattr(future, "client", None) or getattr(future, "_client", None)
            if owner is None or owner is self._client or _address(owner) == self._address:
                continue
            raise InvalidValueError(
                f"the array holds blocks that were persisted at {_address(owner)}, the job runs at "
                f"{self._address}; give "
                f"that client (client=), or persist them again here"
            )

    def again(self) -> DistributedEngine:
        """Return another one at the same scheduler."""
        return DistributedEngine(self._client, self._retries, self._resources)

    def _with_resources(self, workers: dict[str, Any]) -> dict[str, Any]:
        """Return the workers on which a task finds what it occupies; refuse where it would wait for ever."""
        able = {
            address: worker
            for address, worker in workers.items()
            if all(worker.get("resources", {}).get(name, 0) >= n for name, n in self._resources.items())
        }
        if not able:
            there = sorted({str(worker.get("resources", {})) for worker in workers.values()})
            raise PlanError(
                f"no worker has the resources {self._resources} for a task; the {len(workers)} workers have "
                f"{', '.join(there)}. Start them with dask worker --resources"
            )
        return able

    def _workers(self) -> dict[str, Any]:
        """Return what the scheduler knows of its workers."""
        try:
            return dict(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, KeyError) as error:
            raise self._lost(error) from error

    def _lost(self, error: BaseException) -> SchedulerLostError:
        """Return the error of a scheduler that is gone."""
        return SchedulerLostError(
            f"the connection to the scheduler at {self._address} was lost ({error}); what landed is in the "
            f"properties, the same call with resume=True continues from there"
        )

    def task_memory(self) -> int | None:
        """Return the share of the smallest worker's thread in what its process may hold.

        A worker takes no new tasks from a fraction of its limit on (``distributed.worker.memory.pause``), and needs
        some of it before it has any.
        """
        import dask.config

        fraction = dask.config.get("distributed.worker.memory.pause", 0.8) or 0.8
        shares = [
            max(int(fraction * limit) - _IDLE_NBYTES, limit // 4) // max(worker["nthreads"], 1)
            for worker in self._workers().values()
            if (limit := worker.get("memory_limit"))
        ]
        return min(shares, default=None)

    def check_sees(self, path: str) -> None:
        """Ask every worker whether it sees the mag and may write to it."""
        try:
            answers = self._client.run(sees_mag, path, on_error="return")
        except OSError as error:  # CommClosedError is one
            raise self._lost(error) from error
        # A worker that was lost while it was asked gets no tasks: its answer is an error, not a string.
        blind = {worker: answer for worker, answer in answers.items() if isinstance(answer, str)}
        if blind:
            named = "; ".join(f"worker {worker}: {answer}" for worker, answer in list(blind.items())[:3])
            raise WorkerPathError(
                f"{len(blind)} of {len(answers)} workers cannot work on {path}: {named}. All workers and the "
                f"driver must see the dataset under the same absolute path"
            )

    def run(self, windows: Iterable[AnyWindow]) -> Iterator[Outcome]:
        """Yield how each unit ended; a new window begins when less than one is left in flight."""
        from distributed import as_completed as futures_completed

        source = iter(windows)
        completed = futures_completed([], loop=self._client.loop)  # not that of a default client
        low_water = max(WINDOW_UNITS, 2 * self.threads)
        failed = False
        while True:
            while (
                not failed and len(self._pending) < low_water and (window := next(source, None)) is not None
            ):
                futures = self._submit(window)
                self._pending.update((future.key, (box, future, window.stream)) for future, box in futures)
                completed.update(future for future, _ in futures)
            if not self._pending:
                return
            batch = completed.next_batch()
            results = self._results(batch)
            for future in batch:
                box, _, stream = self._pending[future.key]
                result = results.get(future.key, future.result)
                outcome = attempted(box, lambda result=result: _report_of(result()), stream)  # type: ignore[misc]
                if outcome.error is not None:
                    self._check_scheduler(outcome.error)
                    if (other := self._begun_again(future.key, outcome.error)) is not None:
                        self._pending[other.key] = (box, other, stream)
                        completed.add(other)
                        del self._pending[future.key]
                        continue
                failed |= outcome.error is not None
                self._yielded = future.key
                # A task that failed only because another one did is not named: that one is.
                causes = self._causes.pop(future.key, [])
                if outcome.error is None or not any(cause.status == "error" for cause in causes):
                    yield outcome
                del self._pending[future.key]  # not before it was taken: Ctrl-C can come at any moment
                self._calls.pop(future.key, None)

    def _begun_again(self, key: Any, error: BaseException) -> Any:
        """Submit a call again under which more workers died than dask puts up with; None if it had its tries.

        Where workers are lost for other reasons than their tasks, as spot instances are, the user asks for more
        retries than the default. By default a task that kills its workers costs no more of them than with dask.
        """
        from distributed import KilledWorker

        if key not in self._calls or not isinstance(error, KilledWorker):
            return None
        call, tries = self._calls.pop(key)
        if tries >= self._retries - _DEFAULT_RETRIES:
            return None
        _, function, arguments = call
        name = f"{str(key).partition('~')[0]}~{tries + 1}"
        future = self._client.submit(
            function,
            *arguments,
            key=name,
            retries=self._retries,
            resources=self._resources or None,
            pure=False,
        )
        self._calls[future.key] = (call, tries + 1)
        return future

    def _results(self, futures: list[Any]) -> dict[Any, Callable[[], Any]]:
        """Fetch what tasks returned, together: one by one it takes longer than many a task itself.

        None of them is there if a task failed, or the worker that has its result is gone: then the caller asks for
        each on its own.
        """
        if not all(future.status == "finished" for future in futures):
            return {}
        try:
            values = self._client.gather(futures)
        except Exception:  # comes again for the one that it is about
            return {}
        return {future.key: partial(_same, value) for future, value in zip(futures, values, strict=True)}

    def _submit(self, window: AnyWindow) -> list[tuple[Any, BoundingBox]]:
        """Give the tasks of a window to the scheduler, in one message."""
        options = {"retries": self._retries, "resources": self._resources or None}
        if isinstance(window, CallWindow):
            calls = list(window.calls)
            (function,) = {function for _, function, _ in calls}
            futures = self._client.map(
                function,
                *zip(*(arguments for _, _, arguments in calls), strict=True),
                # A scheduler begins the tasks of one message in the order of their names.
                key=[f"{window.name}-{number:06d}" for number in range(len(calls))],
                pure=False,
                **options,
            )
            if self._retries > _DEFAULT_RETRIES:
                self._calls.update(
                    (future.key, (call, 0)) for future, call in zip(futures, calls, strict=True)
                )
            return [(future, box) for future, (box, _, _) in zip(futures, calls, strict=True)]
        if isinstance(window, NodeWindow):
            submitted = self._flow.submit(window)
            self._causes.update((report.key, causes) for _, report, causes in submitted)
            return [(report, call.box) for call, report, _ in submitted]
        from distributed import futures_of

        arrays, keys = window.collections(None)
        persisted = self._client.persist(arrays, optimize_graph=False, **options)
        return [(future, keys[future.key]) for future in futures_of(persisted)]

    def _check_scheduler(self, error: BaseException) -> None:
        """Distinguish a task that failed from a scheduler that is gone, with which all tasks are cancelled.

        Raises
        ------
        SchedulerLostError
            If it is gone.
        """
        from concurrent.futures import CancelledError

        if isinstance(error, CancelledError | OSError) and self._client.status != "running":
            raise self._lost(error) from error

    def wait_for_persisted(self, collection: Any) -> None:
        """Wait for the persisted blocks of a collection."""
        from distributed import futures_of, wait

        if futures := futures_of(collection, client=self._client):
            wait(futures)

    def stop(self) -> None:
        """Give what runs a moment.

        Nothing is cancelled yet: a task that is cancelled as it begins would publish without a report.
        """
        self._wait_for_running(_GRACE)

    def has_late(self) -> bool:
        """Return whether tasks have ended that were not taken from :meth:`run`."""
        return any(future.status == "finished" for _, future, _ in self._pending.values())

    def late(self) -> list[Outcome]:
        """Return what was not taken from :meth:`run`, cancel the rest."""
        self._wait_for_running(_GRACE / 5)  # can only end or fail now, and what it reported is on its way
        # What was yielded last comes first.
        keys = sorted(self._pending, key=lambda key: key != self._yielded)
        pending, self._pending = [self._pending[key] for key in keys], {}
        late = [
            attempted(box, lambda future=future: _report_of(future.result(timeout=_GRACE)), stream)  # type: ignore[misc]
            for box, future, stream in pending
            if future.status == "finished"
        ]
        with contextlib.suppress(Exception):  # the scheduler may be gone: then there is nothing to cancel
            self._client.cancel([future for _, future, _ in pending])
        self._flow.drop()
        return [outcome for outcome in late if outcome.report is not None]

    def _wait_for_running(self, seconds: float) -> None:
        """Wait for tasks that are with a worker now.

        Not by the keys of our futures: where dask fuses a chain of tasks, what runs has a key of its own.
        """
        if not self._pending:
            return
        limit = time.monotonic() + seconds
        with contextlib.suppress(Exception):  # the scheduler itself is gone
            running = self._processing()
            while running and time.monotonic() < limit:
                time.sleep(0.05)
                running &= self._processing()

    def _processing(self) -> set[Any]:
        """Return the keys of the tasks that are with a worker."""
        return {key for keys in self._client.processing().values() for key in keys}


def _same(value: Any) -> Any:
    """Return the argument."""
    return value


def _report_of(result: Any) -> UnitReport:
    """Return the report itself, out of the array block that carries it."""
    report: UnitReport = result if isinstance(result, UnitReport) else result.item()
    return report


def worker_timeout(client: Client) -> float | None:
    """Return how many seconds to wait for a first worker; None for no limit.

    The setting ``wkdask.worker-timeout`` says so. If it is ``auto`` there is no limit where a batch system starts
    the workers, whose queue may take hours, and a minute elsewhere.

    Raises
    ------
    InvalidValueError
        If the setting is none.
    """
    given = settings.get("worker-timeout")
    if given != "auto":
        return None if given is None else float(given)
    by_batch_system = type(client.cluster).__module__.partition(".")[0] in _BATCH_MODULES
    return None if by_batch_system else _WORKER_TIMEOUT


def _address(client: Client) -> str:
    """Return the scheduler's address."""
    return str(client.scheduler.address if client.scheduler is not None else "a closed client")
