"""Workers that come late, that are lost by halves, that have what a task occupies."""

import os
import signal
import threading

import numpy as np
import pytest

from wkdask import BoundingBox, store
from wkdask.errors import PlanError, TaskFailedError
from wkdask.jobs.events import UnitDone

# Of workers that were killed, distributed leaves tasks behind whose errors nobody asks for.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

BOX = BoundingBox((100, 38, 6), (150, 120, 100))


@pytest.fixture
def source(make_mag, random_voxels):
    mag, voxels = make_mag(), random_voxels((1, *BOX.size))
    mag.write(voxels, bounding_box=BOX)
    return mag, voxels


@pytest.fixture
def small_units(monkeypatch):
    monkeypatch.setattr("wkdask.operations.map_cubes.UNIT_NBYTES", 1)


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_that_come_late_get_work(source, make_mag, small_units):
    from distributed import Client, LocalCluster

    mag, voxels = source
    target, workers = make_mag(), []

    def function(block):
        import time

        time.sleep(0.15)
        return 255 - block

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", memory_limit="1GiB"
        ) as cluster,
        Client(cluster) as client,
    ):

        def note(event):
            if isinstance(event, UnitDone):
                if not workers:
                    cluster.scale(3)
                workers.append(event.report.worker)

        mag.map_cubes(function, target, client=client, progress=note)
    assert np.array_equal(target.read(), 255 - voxels)
    assert len(set(workers)) == 3


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True])
def test_half_of_the_workers_are_lost_every_few_seconds(source, make_mag, small_units, in_place):
    """As spot instances are: killed without a word, replaced some time later."""
    from distributed import Client, LocalCluster

    mag, voxels = source
    target = mag if in_place else make_mag(compression="lz4")
    ended, lost, killed = threading.Event(), [], []

    def function(block):
        import time

        time.sleep(0.3)
        return 255 - block

    with (
        LocalCluster(
            n_workers=4, threads_per_worker=1, dashboard_address=":0", memory_limit="1GiB"
        ) as cluster,
        Client(cluster) as client,
    ):

        def reap():
            while not ended.wait(4):
                pids = list(client.run(os.getpid, on_error="ignore").values())
                for pid in pids[: len(pids) // 2]:
                    try:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                    except ProcessLookupError:
                        lost.append(pid)

        reaper = threading.Thread(target=reap)
        reaper.start()
        try:
            report = mag.map_cubes(function, target, client=client, retries=20)
        finally:
            ended.set()
            reaper.join()
    assert len(killed) >= 4
    assert np.array_equal(target.read(), 255 - voxels)
    assert report.cubes == len(mag.spec.grid.cubes(BOX))
    assert target.layer.bounding_box == BOX


@pytest.mark.slow
@pytest.mark.cluster
def test_resources_and_retries(source, make_mag, tmp_path):
    """Tasks go to the workers that have what they occupy; one that fails now and then is tried again."""
    from distributed import Client, LocalCluster

    mag, voxels = source
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            dashboard_address=":0",
            resources={"GPU": 1},
            memory_limit="1GiB",
        ) as cluster,
        Client(cluster),
    ):
        marks = str(tmp_path / "marks")
        os.mkdir(marks)

        def exclusive(block, box):
            """Fail if another task runs beside this one, and the first time at every tenth block."""
            import os
            import time

            os.mkdir(f"{marks}/busy")
            time.sleep(0.01)
            os.rmdir(f"{marks}/busy")
            name = f"{marks}/{box.topleft.x}-{box.topleft.y}-{box.topleft.z}"
            if sum(box.topleft) % 64 == 0 and not os.path.exists(name):
                open(name, "w").close()
                raise OSError("now and then")
            return 255 - block

        target = make_mag()
        mag.map_cubes(exclusive, target, resources={"GPU": 1}, retries=3)
        assert np.array_equal(target.read(), 255 - voxels)
        assert len(os.listdir(marks)) > 5
        with pytest.raises(TaskFailedError, match="now and then"):
            mag.map_cubes(lambda block: exec("raise OSError('now and then')"), make_mag(), retries=0)
        x = mag.to_dask("cube")
        other = make_mag()
        other.write(255 - x, bounding_box=BOX, resources={"GPU": 1})
        assert np.array_equal(other.read(), 255 - voxels)
        for call in (
            lambda: mag.map_cubes(np.invert, make_mag(), resources={"GPU": 2}),
            lambda: other.write(x, bounding_box=BOX, resources={"FPGA": 1}),
            lambda: store([(x, other, BOX)], resources={"FPGA": 1}),
        ):
            with pytest.raises(PlanError, match="--resources"):
                call()


@pytest.mark.cluster
@pytest.mark.slow
def test_a_task_under_which_many_workers_die_has_as_many_tries_as_are_asked_for(source, make_mag, tmp_path):
    from distributed import Client, LocalCluster

    mag, voxels = source
    marks = str(tmp_path / "marks")
    os.mkdir(marks)

    def function(block, box):
        import os
        import signal

        deaths = len(os.listdir(marks))
        if deaths < 5 and tuple(box.topleft) == (128, 64, 32):
            os.mkdir(f"{marks}/{deaths}")
            os.kill(os.getpid(), signal.SIGKILL)
        return 255 - block

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", memory_limit="1GiB"
        ) as cluster,
        Client(cluster) as client,
    ):
        with pytest.raises(TaskFailedError, match="KilledWorker"):
            mag.map_cubes(function, make_mag(), client=client)
        for name in os.listdir(marks):
            os.rmdir(f"{marks}/{name}")
        target = make_mag()
        mag.map_cubes(function, target, client=client, retries=3)
    assert np.array_equal(target.read(), 255 - voxels)
