"""Several jobs as one: one start, one end, counts that add up."""

import pytest

from wkdask.geometry import BoundingBox
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone, WriteReport
from wkdask.jobs.tasks import UnitReport
from wkdask.progress.combined import Whole

BOX = BoundingBox((0, 0, 0), (4, 4, 4))


def report(label, cubes, before=0):
    return WriteReport(label, BOX, cubes, 64 * cubes, 10, 0, 9, 2.0, cubes_before=before)


@pytest.fixture
def heard():
    return []


def test_jobs_add_up(heard):
    whole = Whole("all", "copying", {"a": (3, 5, 50), "b": (2, 4, 40)}, (10, 20, 200), [heard.append])
    assert heard == []
    done = UnitDone("a", UnitReport(BOX))
    whole(JobStarted("a", "writing", 6, 5, 50, "threads", 2, 1, 10))  # begun by an earlier run, cut otherwise
    whole(done)
    whole(JobFinished("a", report("a", 5, 1)))
    whole(JobStarted("b", "writing", 2, 4, 40, "threads"))
    whole(done)
    whole(JobFinished("b", report("b", 4)))
    whole.end()
    started, *units, finished = heard
    assert started == JobStarted("all", "copying", 18, 29, 290, "threads", 12, 21, 210)
    assert units == [done, done]
    assert (finished.report.cubes, finished.report.cubes_before, finished.report.seconds) == (29, 21, 4.0)


def test_what_never_begins_is_not_told_of(heard):
    Whole("all", "copying", {"a": (3, 5, 50)}, (0, 0, 0), [heard.append]).end()
    assert heard == []


def test_jobs_that_write_nothing_have_no_report(heard):
    whole = Whole("all", "comparing", {"a": (3, 5, 50)}, (0, 0, 0), [heard.append])
    whole(JobStarted("a", "reading", 3, 0, 50, "threads"))
    whole(JobFinished("a", None))
    whole.end()
    assert heard == [JobStarted("all", "comparing", 3, 5, 50, "threads"), JobFinished("all", None)]
