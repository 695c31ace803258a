"""Jobs as plain values."""

import pickle

from wkdask import BoundingBox
from wkdask.jobs.job import Job, WriteOptions
from wkdask.jobs.plan import plan_write
from wkdask.jobs.windows import CallWindow, call_windows


def call(box):
    return (len, box, 7)


def test_a_window_of_calls_has_one_per_unit(make_mag):
    mag = make_mag()
    plan = plan_write(mag.spec, BoundingBox((5, 5, 5), (100, 100, 100)), unit_nbytes=1)
    (window,) = call_windows(plan, "/x/.wkdask/0123456789ab", "write", call)
    (planned,) = plan.windows
    assert [box for box, _, _ in window.calls] == list(planned.unit_boxes())
    assert all(entry[1:] == (len, (entry[0], 7)) for entry in window.calls)
    assert window.name == "wkdask-write-0123456789ab-0"


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
