"""Threads and workers: no unit is given up silently, none is reported twice, stopping never hangs."""

import asyncio
import threading
import time

import dask
import dask.array as da
import pytest

from wkdask import BoundingBox
from wkdask.errors import InvalidValueError, WorkerPathError
from wkdask.jobs.engines.choice import DistributedEngine, LocalEngine, pick_engine
from wkdask.jobs.events import JobFinished, UnitDone
from wkdask.jobs.tasks import UnitReport
from wkdask.jobs.windows import CallWindow


def box_of(number):
    return BoundingBox((number, 0, 0), (1, 1, 1))


def window_of(function, numbers, name="wkdask-test"):
    """Return a window whose units call ``function(number)`` and report."""

    def unit(number, box):  # workers cannot import this module: nothing of it is named in here
        function(number)
        return UnitReport(unit=box, box=box, cubes=1)

    boxes = [box_of(number) for number in numbers]
    return CallWindow(boxes, lambda box: (unit, box.topleft.x, box), f"{name}-{id(function)}")


def finish(engine, outcomes):
    """Return the units of outcomes and of those that come late, after stopping."""
    engine.stop()
    late = engine.late()
    done = [outcome for outcome in outcomes if outcome.report is not None]
    if done and late and late[0].report == done[-1].report:  # what run() yielded last may come once more
        late = late[1:]
    return [outcome.box.topleft.x for outcome in [*done, *late] if outcome.report is not None]


def test_all_units_of_all_windows_end():
    engine = LocalEngine(2)
    outcomes = list(engine.run([window_of(lambda n: None, range(5)), window_of(lambda n: None, range(5, 9))]))
    assert all(outcome.error is None for outcome in outcomes)
    assert sorted(finish(engine, outcomes)) == list(range(9))


def test_after_a_failure_the_window_ends_and_no_other_begins():
    engine = LocalEngine(2)

    def fails(number):
        if number == 3:
            raise OSError("disk on fire")

    outcomes = list(engine.run([window_of(fails, range(8)), window_of(fails, range(8, 16))]))
    bad = [outcome for outcome in outcomes if outcome.error is not None]
    assert [outcome.box for outcome in bad] == [box_of(3)]
    assert isinstance(bad[0].error, OSError)
    assert sorted(finish(engine, outcomes)) == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("threads", [1, 3])
def test_stopping_in_the_middle_reports_what_ended_and_begins_nothing(threads):
    engine, done = LocalEngine(threads), []

    def slow(number):
        time.sleep(0.05)
        done.append(number)

    outcomes = []
    for outcome in engine.run([window_of(slow, range(100))]):
        outcomes.append(outcome)
        if len(outcomes) == 2:
            break
    stopper = threading.Thread(target=engine.stop, daemon=True)
    stopper.start()
    stopper.join(10)
    assert not stopper.is_alive(), "stop() hangs"
    assert len(done) <= 2 + 2 * threads
    ended = len(done)
    assert sorted(finish(engine, outcomes)) == sorted(done)
    time.sleep(0.2)
    assert len(done) == ended


def test_an_outcome_that_was_not_taken_is_late():
    """As when Ctrl-C comes while an outcome is on its way out of `run`."""
    engine = LocalEngine(1)
    run = engine.run([window_of(lambda n: None, range(3))])
    first = next(run)
    run.close()
    engine.stop()
    assert engine.late()[0] is first


def counted(windows, begun):
    for window in windows:
        begun.append(window)
        yield window


def test_windows_begin_one_after_the_other():
    engine, begun = LocalEngine(2), []
    windows = (window_of(lambda n: None, range(5 * w, 5 * w + 5)) for w in range(10**9))
    run = engine.run(counted(windows, begun))
    outcomes = []
    for number in range(23):
        outcomes.append(next(run))
        assert len(begun) <= (number + 1) // 5 + 1  # the next one when a thread is idle
    run.close()
    assert set(range(20)) <= {*finish(engine, outcomes)} <= set(range(25))


def test_a_stopped_engine_begins_no_window():
    engine, done = LocalEngine(1), []
    engine.stop()
    assert list(engine.run([window_of(done.append, range(3))])) == []
    assert done == []


def test_local_engines_follow_the_options_of_dask():
    with dask.config.set(scheduler="synchronous"):
        assert LocalEngine().threads == 1
    with dask.config.set(num_workers=5):
        assert LocalEngine().threads == 5
    assert LocalEngine(3).description == "3 local threads"
    assert LocalEngine(2).task_memory() > 0


def test_a_mag_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(WorkerPathError, match="nowhere"):
        LocalEngine(1).check_sees(str(tmp_path / "nowhere"))


def test_without_a_client_threads_it_is():
    assert isinstance(pick_engine(), LocalEngine)


# --- on the cluster -------------------------------------------------------------------------------------


@pytest.mark.cluster
def test_which_engine_is_picked(client):
    assert isinstance(pick_engine(), DistributedEngine)
    assert pick_engine().threads == 2
    # of 2 GiB, what is left below the limit at which workers pause, beside an idle process
    assert pick_engine().task_memory() == int(0.8 * (2 << 30)) - (200 << 20)
    for name in ("threads", "synchronous"):
        with dask.config.set(scheduler=name):
            assert isinstance(pick_engine(), LocalEngine)
            assert isinstance(pick_engine(client), DistributedEngine)

    def inside():
        from wkdask.jobs.engines.choice import pick_engine

        return type(pick_engine()).__name__

    assert client.submit(inside).result(timeout=30) == "LocalEngine"


@pytest.mark.cluster
def test_an_asynchronous_client_is_refused(local_cluster):
    from distributed import Client

    async def refused():
        async with Client(local_cluster.scheduler_address, asynchronous=True, set_as_default=False) as other:
            with pytest.raises(InvalidValueError, match="asynchronous=False"):
                DistributedEngine(other)

    asyncio.run(refused())


@pytest.mark.cluster
def test_workers_that_do_not_see_the_mag_are_named(client, tmp_path):
    gone = str(tmp_path / "only-here" / "color" / "1")
    with pytest.raises(WorkerPathError) as caught:
        DistributedEngine(client).check_sees(gone)
    text = str(caught.value)
    assert "2 of 2 workers" in text
    assert gone in text
    assert "tcp://127.0.0.1" in text
    assert "same absolute path" in text
    (tmp_path / "only-here" / "color" / "1").mkdir(parents=True)
    DistributedEngine(client).check_sees(gone)


@pytest.mark.slow
@pytest.mark.cluster
def test_units_on_workers_end_fail_and_stop(client):
    engine = DistributedEngine(client, retries=0)

    def fails(number):
        if number == 3:
            raise OSError("disk on fire")

    outcomes = list(engine.run([window_of(fails, range(6), "wkdask-fails")]))
    assert [outcome.box for outcome in outcomes if outcome.error is not None] == [box_of(3)]
    assert sorted(finish(engine, outcomes)) == [0, 1, 2, 4, 5]

    engine, begun = DistributedEngine(client), []
    windows = (window_of(lambda n: None, range(99 * w, 99 * w + 99), f"wkdask-{w}") for w in range(10**9))
    run = engine.run(counted(windows, begun))
    outcomes = [next(run) for _ in range(500)]
    assert len(begun) <= 500 // 99 + 4  # at most one window more than 256 units in flight
    run.close()
    reported = finish(engine, outcomes)
    assert 500 <= len(reported) == len({*reported}) <= 99 * len(begun)

    engine = DistributedEngine(client)
    start, outcomes = time.monotonic(), []

    def slow(number):
        time.sleep(0.3)

    for outcome in engine.run([window_of(slow, range(200), "wkdask-slow")]):
        outcomes.append(outcome)
        if len(outcomes) == 2:
            break
    reported = finish(engine, outcomes)
    assert time.monotonic() - start < 30
    assert 2 <= len(reported) < 100
    assert len(reported) == len({*reported})


def test_a_window_whose_calls_cannot_be_made_is_an_error_of_the_driver():
    def call(box):
        if box.topleft.x == 3:
            raise ZeroDivisionError("no such call")
        return (unit, box)

    def unit(box):
        return UnitReport(unit=box, box=box, cubes=1)

    engine = LocalEngine(threads=1)
    with pytest.raises(ZeroDivisionError):
        list(engine.run([CallWindow([box_of(number) for number in range(5)], call, "wkdask-test")]))
    engine.stop()


@pytest.mark.cluster
def test_stopping_gives_fused_chains_their_moment(client, make_mag):
    """What runs then has a key that dask made up: it reports all the same."""
    mag = make_mag(cube=32)

    def slow(block):
        time.sleep(1)
        return block + 1

    array = da.zeros((1, 128, 64, 32), dtype="uint8", chunks=(1, 16, 16, 16)).rechunk((1, 32, 32, 32))
    ended = []

    def interrupt(event):
        if isinstance(event, JobFinished):
            ended.append(event.report)
        if isinstance(event, UnitDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mag.write(array.map_blocks(slow, dtype="uint8"), progress=interrupt, client=client)
    (report,) = ended
    landed = len(list(mag.cubes_on_disk()))
    assert 1 <= landed < 8
    assert report.cubes == landed, "a unit that ran when the job was stopped did not report"
