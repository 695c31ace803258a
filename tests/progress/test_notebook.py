"""Progress in a notebook: one output per job that changes, with a bar that is as long as what is done."""

import re
import sys
import time
import types

import pytest
from reprs import tags

from wkdask import BoundingBox
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone, UnitFailed
from wkdask.jobs.tasks import UnitReport
from wkdask.progress.bar import listeners_for
from wkdask.progress.notebook import bar_html
from wkdask.progress.tally import Tally

LABEL = "layer 'color' mag 1"
BOX = BoundingBox((0, 0, 0), (32, 32, 32))


def started(units=4):
    return JobStarted(LABEL, "writing", units, 4, 4_000_000, "2 local threads")


def done():
    return UnitDone(LABEL, UnitReport(BOX, BOX, cubes=1, nbytes=1_000_000))


def failed(text="no space left"):
    return UnitFailed(LABEL, BOX, OSError(text))


FINISHED = JobFinished(LABEL, None)


class Cell:
    """The output of a cell: for each display, what it has shown, as text and as HTML."""

    def __init__(self, monkeypatch):
        self.texts, self.pages = [], []
        kernel = types.SimpleNamespace(kernel=object())
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
        monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=self.display))

    def display(self, bundle, raw, display_id=None):
        self.texts.append([])
        self.pages.append([])
        self.update(bundle, raw)
        return types.SimpleNamespace(update=self.update)

    def update(self, bundle, raw):
        self.texts[-1].append(bundle["text/plain"])
        self.pages[-1].append(bundle["text/html"])


@pytest.fixture
def cell(monkeypatch):
    return Cell(monkeypatch)


def test_one_output_changes(cell, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (listener,) = listeners_for(True)
    for _ in range(2):  # as a pyramid does: one listener, several jobs
        listener(started(units=2))
        now[0] += 1
        for event in (done(), failed("<b>"), FINISHED):
            listener(event)
    assert len(cell.texts) == 2
    assert "on 2 local threads" in cell.texts[0][0]
    assert "1 of 4 cubes, 50 %" in cell.texts[0][1]
    assert cell.texts[0][-1].endswith("OSError: <b>")
    for page, text in zip(cell.pages[0], cell.texts[0], strict=True):
        found = tags(page)
        assert found.names == {"div", "code"}
        assert found.text.strip() == text
    assert [width(page) for page in cell.pages[0]] == [0, 50, 100]


def width(page):
    (percent,) = re.findall(r"width:(\d+)%", page)
    return int(percent)


def colour(page):
    (found,) = re.findall(r"%;background:(#\w+)", page)
    return found


def test_the_bar_says_what_is_done_and_whether_it_failed():
    tally = Tally(started())
    running = bar_html(tally, "x")
    assert width(running) == 0
    tally.take(done())
    assert width(bar_html(tally, "x")) == 25
    assert colour(bar_html(tally, "x")) == colour(running)
    for _ in range(3):
        tally.take(done())
    ended = bar_html(tally, "x")
    assert width(ended) == 100
    tally.take(failed())
    assert width(bar_html(tally, "x")) == 100  # never more
    assert len({colour(running), colour(ended), colour(bar_html(tally, "x"))}) == 3
    assert width(bar_html(Tally(started(units=0)), "x")) == 0


def test_what_earlier_runs_have_done_counts():
    tally = Tally(JobStarted(LABEL, "writing", 8, 4, 4_000_000, "here", 4, 2, 2_000_000))
    assert width(bar_html(tally, "x")) == 50
