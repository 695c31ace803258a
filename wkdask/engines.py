"""Where tasks run: threads of this process, or the workers of a distributed scheduler.

An engine takes windows and yields an :class:`Outcome` per unit, as they come. It knows neither formats nor
properties, keeps at most two windows in flight, and never gives up a unit silently.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from wkdask.errors import InvalidValueError, PlanError, SchedulerLostError, WorkerPathError
from wkdask.flow import REPORT, ClusterFlow, LocalFlow
from wkdask.geometry import BoundingBox
from wkdask.job import AnyWindow, ArrayWindow, CallWindow, NodeCall, NodeWindow
from wkdask.journal import Lane
from wkdask.plan import WINDOW_UNITS
from wkdask.tasks import UnitReport, sees_mag

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["DistributedEngine", "Engine", "LocalEngine", "Outcome", "pick_engine"]

_GRACE = 5.0
"""Seconds that running tasks get to report after a job was stopped, before they are cut off."""
_WORKER_TIMEOUT = 60.0
"""Seconds to wait for a first worker: a batch system takes its time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a unit ended."""

    box: BoundingBox
    """What it was to write, in voxels of the mag."""
    report: UnitReport | None = None
    """What it did."""
    error: BaseException | None = None
    """Why it failed."""
    lane: Lane | None = None
    """Numbers it for the journal."""


class Engine(Protocol):
    """Runs windows of units."""

    description: str
    """For people: where the tasks run."""
    threads: int
    """Tasks that run at once."""

    def task_memory(self) -> int | None:
        """Return the bytes that one task may use; None where unknown."""

    def check_sees(self, path: str) -> None:
        """Refuse to start where a worker does not see the mag."""

    def run(self, windows: Iterable[AnyWindow]) -> Iterator[Outcome]:
        """Yield how each unit ended; after a failure no new window is begun.

        Raises
        ------
        SchedulerLostError
            If the scheduler is gone.
        """

    def stop(self) -> None:
        """Begin no window any more, and wait a little for what runs."""

    def again(self) -> Engine:
        """Return an engine of the same kind that has not been stopped."""

    def late(self) -> list[Outcome]:
        """Return what was not taken from :meth:`run`, and drop the rest.

        Called after :meth:`stop`, when the job's private folder is gone and nothing more is published: so none
        of the cubes that came into view is missing here. The first may be one that `run` yielded last.
        """


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
        client = _active_client()
    if client is None:
        if resources:
            raise InvalidValueError(
                f"resources={dict(resources)} are those of a cluster's workers, and there is no client"
            )
        return LocalEngine(retries=retries or 0)
    return DistributedEngine(client, 2 if retries is None else retries, resources)


def _active_client() -> Client | None:
    """Return the client that dask itself would use, without importing distributed if nobody has."""
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


class LocalEngine:
    """Threads of this process."""

    def __init__(self, threads: int | None = None, retries: int = 0) -> None:
        import dask.config

        if threads is None:
            single = dask.config.get("scheduler", None) in ("synchronous", "sync", "single-threaded")
            threads = 1 if single else dask.config.get("num_workers", None) or len(os.sched_getaffinity(0))
        self.threads: int = threads
        self.description = f"{threads} local threads"
        self._retries = retries
        self._pool = _Pool(threads, thread_name_prefix="wkdask")
        self._flow = LocalFlow()
        self._stopped = False
        self._ended: deque[Outcome] = deque()
        # (number of the window, whether it is over); else there is something in _ended
        self._signals: SimpleQueue[tuple[int, bool]] = SimpleQueue()
        self._runners: list[Thread] = []

    def again(self) -> LocalEngine:
        """Return another one."""
        return LocalEngine(self.threads, self._retries)

    def task_memory(self) -> int | None:
        """Return a thread's share of the memory that is free now."""
        import psutil

        return int(psutil.virtual_memory().available // self.threads)

    def check_sees(self, path: str) -> None:
        """Check that this process sees the mag."""
        if (trouble := sees_mag(path)) is not None:
            raise WorkerPathError(trouble)

    def run(self, windows: Iterable[AnyWindow]) -> Iterator[Outcome]:
        """Yield how each unit ended; a window begins when the one before leaves threads idle."""
        source, begun, failed = iter(windows), 0, False
        left: dict[int, int] = {}
        while True:
            while not (failed or self._stopped) and sum(left.values()) < self.threads and len(left) < 2:
                if (window := next(source, None)) is None:
                    break
                left[begun] = len(window)
                self._begin(begun, window)
                begun += 1
            if not left:
                return
            number, over = self._signals.get()
            if over:
                del left[number]
            else:
                left[number] -= 1
            while self._ended:
                failed |= self._ended[0].error is not None
                yield self._ended[0]
                self._ended.popleft()  # not before it was taken: Ctrl-C can come at any moment

    def _begin(self, number: int, window: AnyWindow) -> None:
        """Start a window in a thread of its own, which only waits for those of the pool."""
        run: Callable[..., None] = self._run_nodes if isinstance(window, NodeWindow) else self._run_array
        if isinstance(window, CallWindow):
            # The calls are made here, in the driver's thread: an error on the way is the job's, and loses no unit.
            run = partial(self._run_calls, list(window.calls))
        runner = Thread(target=run, args=(number, window), name="wkdask-window", daemon=True)
        self._runners = [other for other in self._runners if other.is_alive()] + [runner]
        runner.start()

    def stop(self) -> None:
        """Begin no other tasks, and let the running ones end."""
        self._stopped = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for runner in self._runners:
            runner.join()

    def late(self) -> list[Outcome]:
        """Return what was not taken from :meth:`run`."""
        late, self._ended = list(self._ended), deque()
        return late

    def _put(self, number: int, outcome: Outcome) -> None:
        """Hand an outcome of a window to the thread that waits in :meth:`run`."""
        self._ended.append(outcome)
        self._signals.put((number, False))

    def _tried(self, box: BoundingBox, result: Callable[[], UnitReport], lane: Lane | None = None) -> Outcome:
        """Run a call, again where it fails and may be tried again."""
        outcome, tries = _attempt(box, result, lane), 1
        while outcome.error is not None and tries <= self._retries and not self._stopped:
            outcome, tries = _attempt(box, result, lane), tries + 1
        return outcome

    def _run_calls(self, calls: list[Any], number: int, window: CallWindow) -> None:
        """Run plain calls on the pool."""

        def attempt(
            box: BoundingBox, function: Callable[..., UnitReport], arguments: tuple[Any, ...]
        ) -> None:
            self._put(number, self._tried(box, lambda: function(*arguments), window.lane))

        try:
            futures: list[Future[Any]] = []
            with contextlib.suppress(RuntimeError):  # a pool that was shut down takes no more calls
                futures.extend(self._pool.submit(attempt, *call) for call in calls)
            _settle(futures)
        finally:
            self._signals.put((number, True))

    def _run_nodes(self, number: int, window: NodeWindow) -> None:
        """Run tasks that depend on each other."""

        def attempt(call: NodeCall, results: list[Any]) -> tuple[Any] | None:
            handed = None

            def work() -> UnitReport:
                nonlocal handed
                report, handed = call.function(*call.arguments, results)
                return report

            self._put(number, outcome := self._tried(call.box, work))
            return (handed,) if outcome.error is None else None

        try:
            self._flow.run(window, self.threads, self._pool.submit, attempt, lambda: self._stopped)
        except BaseException as error:
            self._put(number, Outcome(window.calls[0].box, error=error))
        finally:
            self._signals.put((number, True))

    def _run_array(self, number: int, window: ArrayWindow) -> None:
        """Compute one graph on the pool; reports come through the queue while it runs.

        If a task fails, dask stops there and does not say which block needed it. The units that have not
        reported are then computed one by one: that completes the sound ones and names the others.
        """
        import dask

        reported: set[BoundingBox] = set()

        def sink(report: UnitReport) -> None:
            reported.add(report.unit)
            self._put(number, Outcome(report.unit, report, lane=window.lane))

        options = {"scheduler": "threads", "pool": self._pool, "optimize_graph": False}
        try:
            arrays, keys = window.collections(sink)
            try:
                dask.compute(*arrays, **options)
            except BaseException:
                self._pool.settle()  # dask leaves running what ran beside the task that failed
                blocks = {array.name: array for array in arrays}
                for (name, *place), box in keys.items():
                    tries = 0
                    while not self._stopped and box not in reported:
                        try:
                            dask.compute(blocks[name].blocks[tuple(place)], **options)
                        except BaseException as error:
                            tries += 1
                            if tries > self._retries and not self._stopped:
                                self._put(number, Outcome(box, error=error, lane=window.lane))
                                break
        except BaseException as error:  # the graph itself could not be built
            self._put(number, Outcome(next(iter(window.units)), error=error, lane=window.lane))
        finally:
            self._signals.put((number, True))


class _Pool(ThreadPoolExecutor):
    """Threads that know what they have not finished."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unfinished: set[Future[Any]] = set()

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a call; see :class:`concurrent.futures.Executor`."""
        future = super().submit(*args, **kwargs)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def settle(self) -> None:
        """Wait until all that was submitted by now has ended or was cancelled."""
        _settle(list(self._unfinished))


def _settle(futures: list[Future[Any]]) -> None:
    """Wait until calls have ended or were cancelled."""
    while not all(future.done() for future in futures):
        wait_for(futures, timeout=0.1)  # nobody wakes who waits for a call that the pool's shutdown cancels


class DistributedEngine:
    """Workers of a distributed scheduler, reached through the user's client."""

    def __init__(
        self, client: Client, retries: int = 2, resources: Mapping[str, float] | None = None
    ) -> None:
        if client.asynchronous:
            raise InvalidValueError("wkdask needs a synchronous Client; make it with asynchronous=False")
        self._client = client
        self._address = _address(client)
        self._retries = retries
        self._resources = dict(resources or {})
        self._pending: dict[Any, tuple[BoundingBox, Any, Lane | None]] = {}
        self._yielded: Any = None
        self._flow = ClusterFlow(client, retries)
        self._causes: dict[Any, list[Any]] = {}
        workers = self._workers()
        if not workers:
            with contextlib.suppress(TimeoutError):
                client.wait_for_workers(1, timeout=_WORKER_TIMEOUT)
            if not (workers := self._workers()):
                raise WorkerPathError(f"no worker came to {_address(client)} within {_WORKER_TIMEOUT:.0f} s")
        if self._resources:
            workers = self._with_resources(workers)
        self.threads = sum(worker["nthreads"] for worker in workers.values())
        self.description = f"{len(workers)} workers, {self.threads} threads, at {_address(client)}"

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
        return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    def task_memory(self) -> int | None:
        """Return the share of the smallest worker's thread in its memory limit."""
        shares = [
            worker["memory_limit"] // max(worker["nthreads"], 1)
            for worker in self._workers().values()
            if worker.get("memory_limit")
        ]
        return min(shares, default=None)

    def check_sees(self, path: str) -> None:
        """Ask every worker whether it sees the mag and may write to it."""
        answers = self._client.run(sees_mag, path, on_error="return")
        # One that was lost while it was asked gets no tasks: its answer is an error, not a text.
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
                self._pending.update((future.key, (box, future, window.lane)) for future, box in futures)
                completed.update(future for future, _ in futures)
            if not self._pending:
                return
            batch = completed.next_batch()
            results = self._results(batch)
            for future in batch:
                box, _, lane = self._pending[future.key]
                result = results.get(future.key, future.result)
                outcome = _attempt(box, lambda result=result: _report_of(result()), lane)  # type: ignore[misc]
                if outcome.error is not None:
                    self._check_scheduler(outcome.error)
                failed |= outcome.error is not None
                self._yielded = future.key
                # A task that failed only because another one did is not named: that one is.
                causes = self._causes.pop(future.key, [])
                if outcome.error is None or not any(cause.status == "error" for cause in causes):
                    yield outcome
                del self._pending[future.key]  # not before it was taken: Ctrl-C can come at any moment

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
        """Tell a task that failed from a scheduler that is gone, with which all tasks are cancelled.

        Raises
        ------
        SchedulerLostError
            If it is gone.
        """
        from concurrent.futures import CancelledError

        if isinstance(error, CancelledError | OSError) and self._client.status != "running":
            raise SchedulerLostError(
                f"the connection to the scheduler at {self._address} was lost ({error}); what landed is in the "
                f"properties, the same call with resume=True goes on from there"
            ) from error

    def stop(self) -> None:
        """Give what runs a moment.

        Nothing is cancelled yet: a task that is cancelled as it begins would publish without a report.
        """
        self._wait_for_running(_GRACE)

    def late(self) -> list[Outcome]:
        """Return what was not taken from :meth:`run`, cancel the rest."""
        self._wait_for_running(_GRACE / 5)  # can only end or fail now, and what it reported is on its way
        # What was yielded last comes first.
        keys = sorted(self._pending, key=lambda key: key != self._yielded)
        pending, self._pending = [self._pending[key] for key in keys], {}
        late = [
            _attempt(box, lambda future=future: _report_of(future.result(timeout=_GRACE)), lane)  # type: ignore[misc]
            for box, future, lane in pending
            if future.status == "finished"
        ]
        with contextlib.suppress(Exception):  # the scheduler may be gone: then there is nothing to cancel
            self._client.cancel([future for _, future, _ in pending])
        self._flow.drop()
        return [outcome for outcome in late if outcome.report is not None]

    def _wait_for_running(self, seconds: float) -> None:
        """Wait for tasks that are with a worker now."""
        from distributed import wait

        if not self._pending:
            return
        with contextlib.suppress(Exception):  # TimeoutError; or the scheduler itself is gone
            running = {key for keys in self._client.processing().values() for key in keys}
            futures = [
                future
                for key, (_, future, _) in self._pending.items()
                if key in running or str(key).removesuffix(REPORT) in running
            ]
            wait(futures, timeout=seconds)


def _attempt(box: BoundingBox, result: Callable[[], UnitReport], lane: Lane | None = None) -> Outcome:
    """Return how a unit that has ended did so."""
    try:
        return Outcome(box, result(), lane=lane)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # CancelledError is no Exception
        return Outcome(box, error=error, lane=lane)


def _same(value: Any) -> Any:
    """Return the argument."""
    return value


def _report_of(result: Any) -> UnitReport:
    """Return the report itself, out of the array block that carries it."""
    report: UnitReport = result if isinstance(result, UnitReport) else result.item()
    return report


def _address(client: Client) -> str:
    """Return the scheduler's address."""
    return str(client.scheduler.address if client.scheduler is not None else "a closed client")
