"""Where tasks run: threads of this process, or the workers of a distributed scheduler.

An engine takes windows and yields an :class:`Outcome` per unit, as they come. It knows neither formats nor
properties, keeps at most two windows in flight, and never gives up a unit silently.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from wkdask.errors import InvalidValueError, WorkerPathError
from wkdask.geometry import BoundingBox
from wkdask.job import AnyWindow, ArrayWindow, CallWindow
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
        """Yield how each unit ended; after a failure no new window is begun."""

    def stop(self) -> None:
        """Begin no window any more, and wait a little for what runs."""

    def late(self) -> list[Outcome]:
        """Return what was not taken from :meth:`run`, and drop the rest.

        Called after :meth:`stop`, when the job's private folder is gone and nothing more is published: so none
        of the cubes that came into view is missing here. The first may be one that `run` yielded last.
        """


def pick_engine(client: Client | None = None) -> Engine:
    """Return the engine of a client, of the active client, or of local threads.

    Inside a task there is no active client to nest in: local threads it is then.
    """
    if client is None:
        client = _active_client()
    return LocalEngine() if client is None else DistributedEngine(client)


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

    def __init__(self, threads: int | None = None) -> None:
        import dask.config

        if threads is None:
            single = dask.config.get("scheduler", None) in ("synchronous", "sync", "single-threaded")
            threads = 1 if single else dask.config.get("num_workers", None) or len(os.sched_getaffinity(0))
        self.threads: int = threads
        self.description = f"{threads} local threads"
        self._pool = _Pool(threads, thread_name_prefix="wkdask")
        self._stopped = False
        self._ended: deque[Outcome] = deque()
        self._signals: SimpleQueue[bool] = SimpleQueue()  # True: look into _ended; False: the window is over
        self._runner: Thread | None = None

    def task_memory(self) -> int | None:
        """Return a thread's share of the memory that is free now."""
        import psutil

        return int(psutil.virtual_memory().available // self.threads)

    def check_sees(self, path: str) -> None:
        """Check that this process sees the mag."""
        if (trouble := sees_mag(path)) is not None:
            raise WorkerPathError(trouble)

    def run(self, windows: Iterable[AnyWindow]) -> Iterator[Outcome]:
        """Yield how each unit ended, window after window."""
        for window in windows:
            run = self._run_calls if isinstance(window, CallWindow) else self._run_array
            self._runner = Thread(target=run, args=(window,), name="wkdask-window", daemon=True)
            self._runner.start()
            failed = False
            while self._signals.get():
                while self._ended:
                    failed |= self._ended[0].error is not None
                    yield self._ended[0]
                    self._ended.popleft()  # not before it was taken: Ctrl-C can come at any moment
            if failed:
                return

    def stop(self) -> None:
        """Begin no other tasks, and let the running ones end."""
        self._stopped = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._runner is not None:
            self._runner.join()

    def late(self) -> list[Outcome]:
        """Return what was not taken from :meth:`run`."""
        late, self._ended = list(self._ended), deque()
        return late

    def _put(self, outcome: Outcome) -> None:
        """Hand an outcome to the thread that waits in :meth:`run`."""
        self._ended.append(outcome)
        self._signals.put(True)

    def _run_calls(self, window: CallWindow) -> None:
        """Run plain calls on the pool."""

        def attempt(
            box: BoundingBox, function: Callable[..., UnitReport], arguments: tuple[Any, ...]
        ) -> None:
            self._put(_attempt(box, lambda: function(*arguments)))

        try:
            with contextlib.suppress(RuntimeError):  # a pool that was shut down takes no more calls
                for call in window.calls:
                    self._pool.submit(attempt, *call)
            self._pool.settle()
        finally:
            self._signals.put(False)

    def _run_array(self, window: ArrayWindow) -> None:
        """Compute one graph on the pool; reports come through the queue while it runs.

        If a task fails, dask stops there and does not say which block needed it. The units that have not
        reported are then computed one by one: that completes the sound ones and names the others.
        """
        import dask

        reported: set[BoundingBox] = set()

        def sink(report: UnitReport) -> None:
            reported.add(report.unit)
            self._put(Outcome(report.unit, report))

        options = {"scheduler": "threads", "pool": self._pool, "optimize_graph": False}
        try:
            array = window.build(sink)
            try:
                dask.compute(array, **options)
            except BaseException:
                self._pool.settle()  # dask leaves running what ran beside the task that failed
                for place, box in window.boxes.items():
                    if not self._stopped and box not in reported:
                        try:
                            dask.compute(array.blocks[place], **options)
                        except BaseException as error:
                            if not self._stopped:
                                self._put(Outcome(box, error=error))
        except BaseException as error:  # the graph itself could not be built
            self._put(Outcome(next(iter(window.boxes.values())), error=error))
        finally:
            self._signals.put(False)


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
        """Wait until all that was submitted has ended or was cancelled."""
        while self._unfinished:  # nobody wakes who waits for a call that the shutdown of the pool cancels
            wait_for(list(self._unfinished), timeout=0.1)


class DistributedEngine:
    """Workers of a distributed scheduler, reached through the user's client."""

    def __init__(self, client: Client, retries: int = 2) -> None:
        if client.asynchronous:
            raise InvalidValueError("wkdask needs a synchronous Client; make it with asynchronous=False")
        self._client = client
        self._retries = retries
        self._pending: dict[str, tuple[BoundingBox, Any]] = {}
        self._yielded: str | None = None
        workers = self._workers()
        if not workers:
            with contextlib.suppress(TimeoutError):
                client.wait_for_workers(1, timeout=_WORKER_TIMEOUT)
            if not (workers := self._workers()):
                raise WorkerPathError(f"no worker came to {_address(client)} within {_WORKER_TIMEOUT:.0f} s")
        self.threads = sum(worker["nthreads"] for worker in workers.values())
        self.description = f"{len(workers)} workers, {self.threads} threads, at {_address(client)}"

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
        blind = {worker: answer for worker, answer in answers.items() if answer is not None}
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
                self._pending.update((future.key, (box, future)) for future, box in futures)
                completed.update(future for future, _ in futures)
            if not self._pending:
                return
            future = next(completed)
            box, _ = self._pending[future.key]
            outcome = _attempt(box, lambda future=future: _report_of(future.result()))  # type: ignore[misc]
            failed |= outcome.error is not None
            self._yielded = future.key
            yield outcome
            del self._pending[future.key]  # not before it was taken: Ctrl-C can come at any moment

    def _submit(self, window: AnyWindow) -> list[tuple[Any, BoundingBox]]:
        """Give the tasks of a window to the scheduler."""
        if isinstance(window, CallWindow):
            return [
                (
                    self._client.submit(
                        function, *arguments, key=f"{window.name}-{number}", retries=self._retries, pure=False
                    ),
                    box,
                )
                for number, (box, function, arguments) in enumerate(window.calls)
            ]
        from distributed import futures_of

        array = self._client.persist(window.build(None), optimize_graph=False, retries=self._retries)
        return [(future, window.boxes[future.key[1:]]) for future in futures_of(array)]

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
            _attempt(box, lambda future=future: _report_of(future.result(timeout=_GRACE)))  # type: ignore[misc]
            for box, future in pending
            if future.status == "finished"
        ]
        with contextlib.suppress(Exception):  # the scheduler may be gone: then there is nothing to cancel
            self._client.cancel([future for _, future in pending])
        return [outcome for outcome in late if outcome.report is not None]

    def _wait_for_running(self, seconds: float) -> None:
        """Wait for tasks that are with a worker now."""
        from distributed import wait

        if not self._pending:
            return
        with contextlib.suppress(Exception):  # TimeoutError; or the scheduler itself is gone
            running = {key for keys in self._client.processing().values() for key in keys}
            futures = [future for key, (_, future) in self._pending.items() if key in running]
            wait(futures, timeout=seconds)


def _attempt(box: BoundingBox, result: Callable[[], UnitReport]) -> Outcome:
    """Return how a unit that has ended did so."""
    try:
        return Outcome(box, result())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # CancelledError is no Exception
        return Outcome(box, error=error)


def _report_of(result: Any) -> UnitReport:
    """Return the report itself, out of the array block that carries it."""
    report: UnitReport = result if isinstance(result, UnitReport) else result.item()
    return report


def _address(client: Client) -> str:
    """Return the scheduler's address."""
    return str(client.scheduler.address if client.scheduler is not None else "a closed client")
