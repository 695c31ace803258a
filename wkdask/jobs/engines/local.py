"""Units on threads of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from itertools import count
from queue import SimpleQueue
from threading import Thread
from typing import Any

from wkdask.errors import InvalidValueError, WorkerPathError
from wkdask.geometry import BoundingBox
from wkdask.jobs.engines.flow import LocalFlow, call_here
from wkdask.jobs.engines.protocol import Outcome, attempted
from wkdask.jobs.journal import Stream
from wkdask.jobs.tasks import UnitReport, sees_mag
from wkdask.jobs.windows import AnyWindow, ArrayWindow, CallWindow, NodeCall, NodeWindow
from wkdask.portable import cores

__all__ = ["LocalEngine"]


class LocalEngine:
    """Threads of this process."""

    def __init__(self, threads: int | None = None, retries: int = 0) -> None:
        import dask.config

        if threads is None:
            single = dask.config.get("scheduler", None) in ("synchronous", "sync", "single-threaded")
            threads = 1 if single else _configured_threads()
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

    def check_inputs(self, futures: Sequence[Any]) -> None:
        """Refuse results that are on a cluster: local threads cannot fetch them."""
        if futures:
            raise InvalidValueError(
                "the array holds blocks that were persisted on a cluster, and no client is active; give "
                "that client "
                "(client=), or build the array again"
            )

    def wait_for_persisted(self, collection: Any) -> None:
        """Nothing is on its way: blocks that were persisted by local threads are there."""

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
        """Start a window: plain calls go to the pool, others get a thread of their own that waits for the pool."""
        if isinstance(window, CallWindow):
            # The calls are made here, in the driver's thread: an error on the way is the job's, and loses no unit.
            self._submit_calls(number, list(window.calls), window.stream)
            return
        run: Callable[..., None] = self._run_nodes if isinstance(window, NodeWindow) else self._run_array
        runner = Thread(target=run, args=(number, window), name="wkdask-window", daemon=True)
        self._runners = [other for other in self._runners if other.is_alive()] + [runner]
        runner.start()

    def stop(self) -> None:
        """Begin no other tasks, and let the running ones end."""
        self._stopped = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for runner in self._runners:
            runner.join()

    def has_late(self) -> bool:
        """Return whether there are outcomes that were not taken from :meth:`run`."""
        return any(outcome.report is not None for outcome in self._ended)

    def late(self) -> list[Outcome]:
        """Return what was not taken from :meth:`run`."""
        late, self._ended = list(self._ended), deque()
        return late

    def _put(self, number: int, outcome: Outcome) -> None:
        """Hand an outcome of a window to the thread that waits in :meth:`run`."""
        self._ended.append(outcome)
        self._signals.put((number, False))

    def _tried(
        self, box: BoundingBox, result: Callable[[], UnitReport], stream: Stream | None = None
    ) -> Outcome:
        """Run a call, again where it fails and may be tried again."""
        outcome, tries = attempted(box, result, stream), 1
        while outcome.error is not None and tries <= self._retries and not self._stopped:
            outcome, tries = attempted(box, result, stream), tries + 1
        return outcome

    def _submit_calls(self, number: int, calls: Sequence[Any], stream: Stream | None) -> None:
        """Hand plain calls to the pool; the window ends when the last of them has ended, or was cancelled."""
        ended = count()

        def attempt(
            box: BoundingBox, function: Callable[..., UnitReport], arguments: tuple[Any, ...]
        ) -> None:
            self._put(number, self._tried(box, lambda: function(*arguments), stream))

        def end(_: object) -> None:
            if next(ended) == len(calls):  # one step of the interpreter: no two threads get the same number
                self._signals.put((number, True))

        for call in calls:
            try:
                self._pool.submit(attempt, *call).add_done_callback(end)
            except RuntimeError:  # a pool that was shut down takes no more calls
                end(None)
        end(None)

    def _run_nodes(self, number: int, window: NodeWindow) -> None:
        """Run tasks that depend on each other."""

        def attempt(call: NodeCall, results: list[Any]) -> tuple[Any] | None:
            handed = None

            def work() -> UnitReport:
                nonlocal handed
                report, handed = call_here(call, results)
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
            self._put(number, Outcome(report.unit, report, stream=window.stream))

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
                                self._put(number, Outcome(box, error=error, stream=window.stream))
                                break
        except BaseException as error:  # the graph itself could not be built
            self._put(number, Outcome(next(iter(window.units)), error=error, stream=window.stream))
        finally:
            self._signals.put((number, True))


def _configured_threads() -> int:
    """Return the threads that dask's option ``num_workers`` asks for; one per processor by default.

    Raises
    ------
    InvalidValueError
        If it is no positive number.
    """
    import dask.config

    given = dask.config.get("num_workers", None)
    if given is None:
        return cores()
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise InvalidValueError(f"dask's option num_workers is a number of threads from 1 on, got {given!r}")
    return given


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
        wait_for(futures, timeout=0.1)  # the shutdown of the pool cancels calls without waking their waiters
