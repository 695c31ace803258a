"""Jobs as plain values."""

import pickle

import numpy as np
import pytest
from dask.utils import key_split

from wkdask import BoundingBox
from wkdask.jobs.job import Job, WriteOptions
from wkdask.jobs.plan import plan_write
from wkdask.jobs.windows import CallWindow, call_windows, task_name


def call(box):
    return (len, box, 7)


def test_a_window_of_calls_has_one_per_unit(make_mag):
    mag = make_mag()
    plan = plan_write(mag.spec, BoundingBox((5, 5, 5), (100, 100, 100)), unit_nbytes=1)
    (window,) = call_windows(plan, "/data/color/2-2-1/.wkdask/0123456789ab", "write", call)
    (planned,) = plan.windows
    assert [box for box, _, _ in window.calls] == list(planned.unit_boxes())
    assert all(entry[1:] == (len, (entry[0], 7)) for entry in window.calls)
    assert window.name == "write_color_2_2_1-0123456789ab-0"


def test_windows_of_calls_are_made_one_by_one(make_mag):
    plan = plan_write(make_mag(cube=32).spec, BoundingBox((0, 0, 0), (2**18, 2**18, 2**18)))
    windows = call_windows(plan, "/x", "write", call)
    first, second = next(windows), next(windows)
    assert isinstance(first, CallWindow)
    assert first.name != second.name


def test_a_job_says_what_it_is_and_pickles(make_mag):
    mag = make_mag(mag=(2, 2, 1))
    plan = plan_write(mag.spec, BoundingBox((5, 5, 5), (100, 100, 100)))
    job = Job.of(mag.place, plan, "writing", WriteOptions())
    assert job.label == "layer 'layer' mag 2-2-1"
    assert pickle.loads(pickle.dumps(job)) == job


@pytest.mark.parametrize(
    ("layer", "mag", "name"),
    [
        ("color", "1", "write_color_1"),
        ("color", "2-2-1", "write_color_2_2_1"),
        ("my layer-2.b", "1", "write_my_layer_2_b_1"),
        ("-", "1", "write_1"),
        ("Zellen_µ", "4", "write_Zellen_µ_4"),
        ("deadbeef", "1", "write_deadbeef_1"),
        ("x" * 200, "1", f"write_{'x' * 40}_1"),
    ],
)
def test_a_dashboard_groups_tasks_by_layer_and_mag(layer, mag, name):
    for folder in (f"/data/{layer}/{mag}", f"/data/{layer}/{mag}/.wkdask/0123456789ab"):
        assert task_name("write", folder) == name
        assert key_split(f"{task_name('write', folder)}-0123456789ab-3-000001") == name
        assert key_split((f"{task_name('write', folder)}-0123456789ab-0-0-0", 0, 1, 2, 3)) == name
    assert task_name("map", "") == "map"


@pytest.mark.cluster
def test_tasks_of_a_cluster_are_called_so(client, make_mag):
    import dask.array as da

    def prefixes():
        return {*client.run_on_scheduler(lambda dask_scheduler: [*dask_scheduler.task_prefixes])}

    mag, before = make_mag(mag=(2, 2, 1)), prefixes()  # those of other tests on this cluster
    mag.write(da.ones((64, 64, 64), dtype="uint8", chunks=32), client=client)
    mag.write(mag.to_dask("cube") + 1, client=client)
    mag.to_dask("cube").persist(scheduler=client)
    mag.map_cubes(np.negative, target=mag, client=client)
    mag.layer.downsample(from_mag=(2, 2, 1), coarsest_mag=4, client=client)
    names = prefixes() - before
    layer = task_name("", mag.path)
    expected = {f"{action}_{layer}" for action in ("write", "publish", "read", "map")}
    assert expected <= names
    assert task_name("downsample", mag.layer.get_mag(4).path) in names
    assert [name for name in names if name.startswith("wkdask")] == []
