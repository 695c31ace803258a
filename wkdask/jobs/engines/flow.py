"""Tasks that depend on each other: results handed from one to the next, depth first, on threads or on a cluster.

Windows come in an order in which a task follows those that it needs. Of the tasks that may run, the first in that
order runs first: a node of a tree before the leaves of the next sub-tree, so that few results wait::

    leaf leaf NODE leaf leaf NODE ROOT        what waits: the results of one node, and of some leaves

A task whose needs failed does not run, and is not reported: the failure that is the cause has been.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from threading import Condition
from typing import TYPE_CHECKING, Any

from wkdask.jobs.tasks import UnitReport
from wkdask.jobs.windows import NodeCall, NodeWindow

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["REPORT", "ClusterFlow", "LocalFlow", "call_here"]

REPORT = "-report"
"""What the key of a node's report ends with; without it, it is that of the node."""

_PATIENCE = 0.5
"""Seconds after which a window looks whether the job was stopped meanwhile."""


def call_here(call: NodeCall, results: list[Any]) -> tuple[UnitReport, Any]:
    """Run a task in this thread; its voxels are computed here too, when it asks for them."""
    block = call.block
    if block is None:
        return call.function(*call.arguments, results)
    compute = getattr(block, "compute", None)
    if compute is None:
        return call.function(*call.arguments, results, partial(_same, block))
    # Without the callbacks that a user may have given to dask: they know of one computation at a time.
    voxels = partial(compute, scheduler="synchronous", optimize_graph=False, callbacks=())
    return call.function(*call.arguments, results, voxels)


class LocalFlow:
    """Tasks of this process, over all windows of a job."""

    def __init__(self) -> None:
        self._results: dict[str, Any] = {}
        self._ended: set[str] = set()
        self._awaited: set[str] = set()
        self._failed: set[str] = set()
        self._begun = 0
        self._open: list[int] = []
        self._freed: list[tuple[int, tuple[str, ...]]] = []
        self._changed = Condition()

    def run(
        self,
        window: NodeWindow,
        threads: int,
        submit: Callable[..., Future[Any]],
        attempt: Callable[[NodeCall, list[Any]], Any],
        stopped: Callable[[], bool],
    ) -> None:
        """Run a window to its end.

        Parameters
        ----------
        window
            The tasks.
        threads
            How many run at once.
        submit
            Gives a call to the pool.
        attempt
            Runs a task on its inputs, reports how it ended, and returns its result; None if it failed.
        stopped
            Returns whether the job was stopped.
        """
        with self._changed:
            number = self._begun = self._begun + 1
            self._open.append(number)
        try:
            self._run(list(window.calls), threads, submit, attempt, stopped)
        finally:
            self._close(number, window)

    def _run(
        self,
        todo: list[NodeCall],
        threads: int,
        submit: Callable[..., Future[Any]],
        attempt: Callable[[NodeCall, list[Any]], Any],
        stopped: Callable[[], bool],
    ) -> None:
        """Run tasks, of which each comes after those that it needs."""
        running: dict[Future[Any], NodeCall] = {}
        while todo or running:
            while not stopped() and len(running) < threads and (call := self._next(todo)) is not None:
                results = [self._results.pop(key) for key in call.needs]
                try:
                    running[submit(attempt, call, results)] = call
                except RuntimeError:  # a pool that was shut down takes no more calls
                    return
                del results  # the task's alone, and freed as it goes
            if running:
                wait(running, timeout=_PATIENCE, return_when=FIRST_COMPLETED)
                # Not what `wait` returns: it overlooks calls that the pool's shutdown cancelled.
                for future in [future for future in running if future.done()]:
                    self._end(running.pop(future), future)
                    del future
            elif todo and not stopped():  # on what another window still works on
                with self._changed:
                    self._changed.wait(_PATIENCE)
            if stopped() and not running:
                return

    def _next(self, todo: list[NodeCall]) -> NodeCall | None:
        """Take the first task that may run; drop those that never may."""
        with self._changed:
            for place, call in enumerate(todo):
                before = (*call.needs, *call.after)
                if any(key in self._failed for key in before):
                    self._failed.add(call.key)
                    del todo[place]
                    return self._next(todo)
                if all(key in self._ended for key in before):
                    self._ended.difference_update(set(call.needs) - self._awaited)
                    return todo.pop(place)
        return None

    def _end(self, call: NodeCall, future: Future[Any]) -> None:
        """Keep what a task hands on."""
        result = None if future.cancelled() else future.result()
        with self._changed:
            if result is None:
                self._failed.add(call.key)
            else:
                self._ended.update([call.key] if call.handed_on or call.awaited else [])
                self._awaited.update([call.key] if call.awaited else [])
                if call.handed_on:
                    (self._results[call.key],) = result
            self._changed.notify_all()

    def _close(self, number: int, window: NodeWindow) -> None:
        """Forget what no task of this window or of one before it asks for any more."""
        with self._changed:
            self._open.remove(number)
            self._freed.append((number, tuple(key for call in window.calls for key in call.frees)))
            first = min(self._open, default=self._begun + 1)
            for _, keys in [freed for freed in self._freed if freed[0] < first]:
                self._ended.difference_update(keys)
                self._awaited.difference_update(keys)
            self._freed = [freed for freed in self._freed if freed[0] >= first]


class ClusterFlow:
    """Tasks on a distributed scheduler, over all windows of a job.

    Each task is two: the node, whose result stays with the workers, and its report, which comes to the driver.
    """

    def __init__(self, client: Client, retries: int) -> None:
        self._client, self._retries = client, retries
        self._nodes: dict[str, Any] = {}
        self._reports: dict[str, Any] = {}
        self._awaited: set[str] = set()

    def submit(self, window: NodeWindow) -> list[tuple[NodeCall, Any, list[Any]]]:
        """Give the tasks of a window to the scheduler as one graph, which it runs depth first.

        Returns
        -------
        list of (NodeCall, Future, list of Future)
            Each task, its report, and the reports of the tasks that it depends on.
        """
        import dask

        nodes: dict[str, Any] = {}
        reports: dict[str, Any] = {}
        for call in window.calls:
            results = [nodes[key] if key in nodes else self._nodes.pop(key) for key in call.needs]
            ended = [reports.get(key, self._reports.get(key)) for key in call.after]
            name = f"{window.name}-{call.key}"
            # A partial is a thing to dask: it does not look for tasks in the arguments.
            task = partial(call.function, *call.arguments)
            blocks = [] if call.block is None else [call.block]
            nodes[call.key] = dask.delayed(_run_node)(task, results, ended, blocks, dask_key_name=name)
            reports[call.key] = dask.delayed(_report_of_node)(
                nodes[call.key], dask_key_name=f"{name}{REPORT}"
            )
        taken = {key for call in window.calls for key in call.needs}
        kept = [call.key for call in window.calls if call.handed_on and call.key not in taken]
        futures = self._client.compute(
            [*reports.values(), *(nodes[key] for key in kept)], retries=self._retries, optimize_graph=False
        )
        found = dict(zip(reports, futures, strict=False))
        self._nodes.update(zip(kept, futures[len(reports) :], strict=True))
        self._reports.update(found)
        submitted = [
            (call, found[call.key], [self._reports[key] for key in (*call.needs, *call.after)])
            for call in window.calls
        ]
        self._awaited.update(call.key for call in window.calls if call.awaited)
        for call in window.calls:
            self._awaited.difference_update(call.frees)
        for call in window.calls:
            unused = [*call.needs, *call.frees, *([] if call.handed_on else [call.key])]
            for key in unused:
                if key not in self._awaited:
                    self._reports.pop(key, None)
        return submitted

    def drop(self) -> None:
        """Let go of all results."""
        self._nodes.clear()
        self._reports.clear()


def _run_node(
    task: Callable[..., tuple[UnitReport, Any]], results: list[Any], ended: list[Any], blocks: list[Any]
) -> tuple[UnitReport, Any]:
    """Run a task on what those that it needs handed on, and on voxels that were computed for it."""
    del ended
    return task([handed for _, handed in results], *(partial(_same, block) for block in blocks))


def _same(value: Any) -> Any:
    """Return the argument."""
    return value


def _report_of_node(result: tuple[UnitReport, Any]) -> UnitReport:
    """Return the report alone."""
    return result[0]
