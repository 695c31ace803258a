"""Tasks that hand results on: order, failures, what is kept, on threads and on workers."""

import gc
import time
import weakref

import dask.array as da
import numpy as np
import pytest

from wkdask import BoundingBox
from wkdask.jobs.engines.choice import DistributedEngine, LocalEngine
from wkdask.jobs.tasks import UnitReport
from wkdask.jobs.windows import NodeCall, NodeWindow


def box_of(number):
    return BoundingBox((number, 0, 0), (1, 1, 1))


def tree_of(function, depth, fan=3, name="wkdask-flow"):
    """Return the calls of a tree, depth first: leaves hand on their number, nodes the sum of what they get."""

    def task(number, results):  # workers cannot import this module: nothing of it is named in here
        value = function(number, results)
        report = UnitReport(unit=type(box)((number, 0, 0), (1, 1, 1)), cubes=1, value=int(value))
        return report, value

    box, calls = box_of(0), []

    def grow(level, parent):
        number = len(calls)
        needs = []
        if level:
            needs = [grow(level - 1, True) for _ in range(fan)]
            number = len(calls)
        key = f"{level}-{number}"
        calls.append(NodeCall(key, box_of(number), task, (number,), needs=tuple(needs), handed_on=parent))
        return key

    grow(depth, False)
    return calls


def windows_of(calls, length, name="wkdask-flow"):
    return [NodeWindow(calls[i : i + length], name) for i in range(0, len(calls), length)]


def add(number, results):
    return sum(results) if results else number


def root_of(calls):
    """Return what the root of a tree of `add` comes to."""
    values = {}
    for number, call in enumerate(calls):
        values[call.key] = sum(values[key] for key in call.needs) if call.needs else number
    return values[calls[-1].key]


def with_block(number, results, block):
    return UnitReport(box_of(number), value=int(block().sum())), None


def test_a_task_computes_the_voxels_that_it_asks_for():
    asked = []
    lazy = da.ones(5, chunks=5, dtype=int).map_blocks(lambda b: asked.append(1) or b, meta=np.empty(0, int))
    (block,) = lazy.to_delayed()
    asked.clear()

    def without(number, results, block):
        return UnitReport(box_of(number), value=0), None

    calls = [
        NodeCall("a", box_of(0), with_block, (0,), block=block),
        NodeCall("b", box_of(1), with_block, (1,), block=np.arange(3)),
        NodeCall("c", box_of(2), without, (2,), block=block),
    ]
    outcomes = LocalEngine(threads=2).run([NodeWindow(calls, "wkdask-flow")])
    assert sorted(outcome.report.value for outcome in outcomes) == [0, 3, 5]
    assert len(asked) == 1


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 4, 1000])
def test_results_reach_who_needs_them(threads, length):
    calls = tree_of(add, 3)
    engine = LocalEngine(threads)
    outcomes = list(engine.run(windows_of(calls, length)))
    assert all(outcome.error is None for outcome in outcomes)
    assert sorted(outcome.box.topleft.x for outcome in outcomes) == list(range(len(calls)))
    assert max(outcomes, key=lambda outcome: outcome.box.topleft.x).report.value == root_of(calls)
    engine.stop()
    assert engine.late() == []


def test_one_thread_goes_depth_first_and_keeps_nothing():
    class Result:
        """Can be watched."""

        def __init__(self, value):
            self.value = value

        def __int__(self):
            return self.value

    alive, most, order = weakref.WeakValueDictionary(), 0, []

    def watched(number, results):
        nonlocal most
        order.append(number)
        most = max(most, len(alive))
        result = alive[number] = Result(add(number, [int(result) for result in results]))
        return result

    engine = LocalEngine(1)
    outcomes = list(engine.run(windows_of(tree_of(watched, 4), 1000)))
    assert order == list(range(len(outcomes)))
    assert most <= 4 * 2 + 2  # two siblings at each level wait for the third; 81 leaves do not pile up
    engine.stop()
    gc.collect()
    assert len(alive) == 0


def fails_at(*bad):
    def function(number, results):
        if number in bad:
            raise OSError("disk on fire")
        return sum(results) if results else number

    return function


def test_a_failure_is_named_once_and_what_needs_it_does_not_run():
    calls = tree_of(fails_at(1), 2)
    engine = LocalEngine(2)
    outcomes = list(engine.run(windows_of(calls, 1000)))
    bad = [outcome for outcome in outcomes if outcome.error is not None]
    assert [outcome.box for outcome in bad] == [box_of(1)]
    # node 3 needs leaf 1, the root (12) needs node 3
    assert sorted(o.box.topleft.x for o in outcomes if o.report) == [0, 2, *range(4, 12)]
    engine.stop()


def test_a_task_may_wait_for_others_without_their_results():
    ended = []

    def task(name, pause, results):
        time.sleep(pause)
        assert results == []
        ended.append(name)
        return UnitReport(unit=box_of(0)), None

    calls = [
        NodeCall("a", box_of(0), task, ("a", 0.2), awaited=True),
        NodeCall("b", box_of(1), task, ("b", 0.0), awaited=True),
        NodeCall("c", box_of(2), task, ("c", 0.0), after=("a", "b")),
        NodeCall("d", box_of(3), task, ("d", 0.0), after=("b",), frees=("a", "b")),
    ]
    engine = LocalEngine(2)
    assert all(outcome.error is None for outcome in engine.run(windows_of(calls, 2)))
    assert ended.index("c") > max(ended.index("a"), ended.index("b"))
    assert ended.index("d") > ended.index("b")
    engine.stop()


def test_stopping_ends_a_tree():
    def slow(number, results):
        time.sleep(0.05)
        return number

    engine = LocalEngine(2)
    outcomes = []
    for outcome in engine.run(windows_of(tree_of(slow, 3), 10)):
        outcomes.append(outcome)
        if len(outcomes) == 3:
            break
    start = time.monotonic()
    engine.stop()
    assert time.monotonic() - start < 2
    assert len(outcomes) + len(engine.late()) < 10


@pytest.mark.cluster
@pytest.mark.parametrize("length", [4, 1000])
def test_a_tree_on_workers(client, length):
    calls = tree_of(fails_at(), 3)
    engine = DistributedEngine(client)
    outcomes = list(engine.run(windows_of(calls, length, f"wkdask-flow-{length}")))
    assert all(outcome.error is None for outcome in outcomes)
    assert sorted(outcome.box.topleft.x for outcome in outcomes) == list(range(len(calls)))
    assert max(outcomes, key=lambda outcome: outcome.box.topleft.x).report.value == root_of(calls)
    engine.stop()
    assert engine.late() == []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(client.has_what().values()):
        time.sleep(0.05)  # nothing of it stays with the workers
    assert not any(client.has_what().values())


@pytest.mark.cluster
def test_a_failure_on_a_worker_is_named_once(client):
    calls = tree_of(fails_at(1), 2)
    engine = DistributedEngine(client, retries=0)
    outcomes = list(engine.run(windows_of(calls, 1000, "wkdask-flow-bad")))
    bad = [outcome for outcome in outcomes if outcome.error is not None]
    assert [outcome.box for outcome in bad] == [box_of(1)]
    assert sorted(o.box.topleft.x for o in outcomes if o.report) == [0, 2, *range(4, 12)]
    engine.stop()
    engine.late()


@pytest.mark.cluster
def test_waiting_without_results_on_workers(client):
    def task(results):
        return report, len(results)

    report = UnitReport(unit=box_of(0))
    calls = [
        NodeCall("a", box_of(0), task, (), awaited=True, handed_on=True),
        NodeCall("b", box_of(1), task, (), needs=("a",)),
        NodeCall("c", box_of(2), task, (), after=("a",)),
        NodeCall("d", box_of(3), task, (), after=("a",), frees=("a",)),
    ]
    engine = DistributedEngine(client)
    outcomes = list(engine.run(windows_of(calls, 2, "wkdask-flow-after")))
    assert sorted(outcome.box.topleft.x for outcome in outcomes) == [0, 1, 2, 3]
    assert all(outcome.error is None for outcome in outcomes)
    engine.stop()
