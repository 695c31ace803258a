"""Progress: what a person, a log and a notebook see of a job."""

import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
import types
from io import StringIO

import dask
import dask.array as da
import numpy as np
import pytest
from rich.console import Console

from wkdask import BoundingBox, Dataset, LayerCategories, Mag, compiling
from wkdask.errors import TaskFailedError
from wkdask.jobs.events import JobFinished, JobStarted, UnitDone, UnitFailed, WriteReport
from wkdask.jobs.tasks import UnitReport
from wkdask.progress import bar as module
from wkdask.progress.bar import Bar, Lines, guarded, listeners_for, log_listener
from wkdask.progress.tally import Tally

LABEL = "layer 'color' mag 1"
BOX = BoundingBox((0, 0, 0), (32, 32, 32))


def started(units=4, cubes=4, nbytes=4_000_000):
    return JobStarted(LABEL, "writing", units, cubes, nbytes, "2 local threads")


def done(cubes=1, nbytes=1_000_000):
    return UnitDone(LABEL, UnitReport(BOX, BOX if cubes else None, cubes=cubes, nbytes=nbytes))


def failed(text="no space left"):
    return UnitFailed(LABEL, BOX, OSError(text))


FINISHED = JobFinished(LABEL, None)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def mag(tmp_path):
    ds = Dataset.create(tmp_path / "ds", (8, 8, 30))
    layer = ds.add_layer("color", LayerCategories.COLOR_TYPE)
    return layer.add_mag(1, chunk_shape=16, shard_shape=32)


def voxels():
    return da.full((64, 64, 32), 7, dtype=np.uint8, chunks=32)


# --- who listens --------------------------------------------------------------------------------------


def test_false_is_silence(mag, capfd):
    assert listeners_for(False) == []
    mag.write(voxels(), progress=False)
    assert capfd.readouterr() == ("", "")


def test_none_without_a_terminal_is_silence(mag, capfd):
    assert listeners_for(None) == []
    mag.write(voxels())
    assert capfd.readouterr() == ("", "")


def test_a_listener_hears_every_event_in_order(mag):
    heard = []
    mag.write(voxels(), progress=heard.append)
    kinds = [type(event) for event in heard]
    assert kinds[0] is JobStarted
    assert kinds[-1] is JobFinished
    assert kinds.count(UnitDone) == heard[0].units == len(kinds) - 2


def test_a_broken_listener_is_one_warning_and_the_job_goes_on(mag, caplog):
    def broken(event):
        raise ZeroDivisionError("oops")

    report = mag.write(voxels(), progress=broken)
    assert report.cubes == 4
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "oops" in record.getMessage()
    assert (mag.read() == 7).all()


def test_a_listener_may_stop_a_job():
    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        listeners_for(stop)[0](started())


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(module, "_on_terminal", lambda: True)
    monkeypatch.setattr(module, "guarded", lambda listener: listener)
    (now,), (later,) = listeners_for(True), listeners_for(None)
    assert (type(now), now._delay) == (Bar, 0)
    assert (type(later), later._delay) == (Bar, 0.5)
    monkeypatch.setattr(module, "_is_child_process", lambda: True)
    assert listeners_for(None) == []  # a worker of a local cluster shares the terminal


def test_no_stderr_and_dumb_terminals_are_no_terminals(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert listeners_for(None) == []
    listeners_for(True)[0](started())
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setenv("TERM", "dumb")
    assert not module._on_terminal()
    monkeypatch.setenv("TERM", "xterm")
    assert module._on_terminal()


# --- counting -----------------------------------------------------------------------------------------


def test_the_line_says_where_the_job_stands(clock):
    tally = Tally(started())
    assert tally.line() == f"writing {LABEL}: 0 of 4 cubes, 0 %, 0 MB/s"
    clock.now += 2
    tally.take(done())
    assert tally.line() == f"writing {LABEL}: 1 of 4 cubes, 25 %, 0.5 MB/s, 0:06 left"
    tally.take(done(nbytes=99_000_000))
    tally.take(failed())
    assert tally.line() == f"writing {LABEL}: 2 of 4 cubes, 75 %, 50 MB/s, 0:01 left, 1 task failed"


def test_the_first_half_of_a_job_in_two_phases_is_progress(clock):
    tally = Tally(started(units=8))
    clock.now += 3
    for _ in range(4):
        tally.take(done(cubes=0))
    assert "0 of 4 cubes, 50 %, 1.3 MB/s, 0:03 left" in tally.line()
    for _ in range(4):
        tally.take(done(nbytes=0))
    assert tally.summary() == f"writing {LABEL}: 4 cubes, 3.81 MiB of voxels in 3.0 s, 1.3 MB/s"


def test_the_summary_of_a_job_that_did_not_end_well(clock):
    tally = Tally(started())
    tally.take(done())
    clock.now += 3723
    assert "stopped after 1 of 4 cubes, 977 KiB of voxels in 1:02:03" in tally.summary()
    tally.take(failed("first"))
    tally.take(failed("second"))
    assert tally.summary().endswith("2 tasks failed")
    assert tally.first_error == "at (0, 0, 0) + (32, 32, 32) (voxels of that mag): OSError: first"


def test_the_summary_counts_tasks_that_ended_after_the_stop(clock):
    tally = Tally(started())
    tally.take(done())
    report = WriteReport(LABEL, BOX, 2, 2_000_000, 0, 0, 1, 1.0)
    clock.now += 1
    tally.take(JobFinished(LABEL, report))
    assert (
        tally.summary() == f"writing {LABEL}: stopped after 2 of 4 cubes, 1.91 MiB of voxels in 1.0 s, 2 MB/s"
    )


def test_a_job_without_units_does_not_divide_by_zero():
    tally = Tally(started(units=0, cubes=0, nbytes=0))
    assert "0 %" in tally.line()
    assert "0 cubes" in tally.summary()


# --- lines --------------------------------------------------------------------------------------------


def test_lines_come_at_the_start_every_so_often_and_at_the_end(clock):
    lines = []
    listener = Lines(lines.append, 10)
    listener(started())
    for _ in range(4):
        clock.now += 6
        listener(done())
    listener(FINISHED)
    shown = [line.removeprefix(f"writing {LABEL}: ") for line in lines]
    assert shown == [
        "4 cubes, 3.81 MiB of voxels, on 2 local threads",
        "2 of 4 cubes, 50 %, 0.17 MB/s, 0:12 left",
        "4 of 4 cubes, 100 %, 0.17 MB/s, 0:00 left",
        "4 cubes, 3.81 MiB of voxels in 24.0 s, 0.17 MB/s",
    ]


def test_a_failure_is_told_when_it_happens_and_once(clock):
    lines = []
    listener = Lines(lines.append, 10)
    for event in (started(), failed("disk full"), failed("later"), FINISHED):
        listener(event)
    assert [("disk full" in line, "later" in line) for line in lines] == [
        (False, False),
        (True, False),
        (False, False),
    ]
    assert "stopped after 0 of 4 cubes" in lines[-1]
    assert "2 tasks failed" in lines[-1]


def test_delayed_lines_skip_short_jobs(clock):
    lines = []
    listener = Lines(lines.append, 10, delay=0.5)
    for event in (started(), done(), FINISHED):
        listener(event)
    assert lines == []
    listener(started())
    clock.now += 1
    for event in (done(), FINISHED):
        listener(event)
    assert len(lines) == 2


@pytest.mark.parametrize("listener", [Lines(lambda line: None, 1), Bar()])
def test_a_job_that_ended_before_it_began(listener, capfd):
    listener(FINISHED)
    listener(done())
    assert capfd.readouterr() == ("", "")


def test_a_log_without_terminal_gets_plain_lines(mag, capfd):
    with dask.config.set({"wkdask.progress-interval": "1ms"}):
        mag.write(voxels(), progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "\x1b" not in err
    first, *between, last = err.splitlines()
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d writing {LABEL}: 4 cubes, 128 KiB of voxels, on \d local threads", first
    )
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d writing {LABEL}: 4 cubes, 128 KiB of voxels in 0\.\d s, [\d.]+ MB/s", last
    )
    assert all(" of 4 cubes, " in line for line in between)


def test_log_listener_logs_at_info(mag, caplog):
    with caplog.at_level(logging.INFO):
        mag.write(voxels(), progress=log_listener())
        mag.write(voxels(), progress=log_listener(logging.getLogger("mine"), interval=0))
    names = {record.name for record in caplog.records if record.levelno == logging.INFO}
    assert {"wkdask.progress.bar", "mine"} <= names
    assert "writing layer 'color' mag 1: 4 cubes" in caplog.text


def test_percent_signs_in_a_name_are_no_format(caplog):
    with caplog.at_level(logging.INFO):
        log_listener()(JobStarted("layer '%s' mag 1", "writing", 1, 1, 1, "here"))
    assert "layer '%s' mag 1" in caplog.text


def test_all_mags_of_a_job_are_counted():
    """A pyramid of 9 cubes of mag 2 and 1 of mag 4 is at 9 of 10 when the finer mag is there."""
    tally = Tally(JobStarted(LABEL, "downsampling", 2, 10, 10_000_000, "2 local threads"))
    tally.take(done(cubes=9))
    assert tally.cubes_done == "9/10 cubes"
    other = UnitReport(BOX, BOX, cubes=1, nbytes=1_000_000).of_other_mag("ds", "color", Mag(4))
    tally.take(UnitDone(LABEL, other))
    assert tally.cubes_done == "10/10 cubes"


def test_what_only_publishes_has_a_rate(clock):
    """A conversion that is resumed when all images are decoded: its tasks count no bytes of their own."""
    begun = JobStarted(LABEL, "converting", 8, 4, 4_000_000, "2 local threads", 4, 0, 4_000_000)
    tally = Tally(begun)
    clock.now += 1
    for _ in range(4):
        tally.take(done(nbytes=0))
    assert tally.rate == "2 MB/s"


def test_that_kernels_are_compiled_is_a_line(monkeypatch):
    monkeypatch.setattr(compiling, "_DELAY", 0.01)
    lines = []
    listener = Lines(lines.append, 10)
    listener(started())
    with compiling.compiling("kernels for uint8"):
        deadline = time.monotonic() + 5
        while len(lines) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    listener(FINISHED)
    with compiling.compiling("kernels for uint16"):
        time.sleep(0.05)
    (line,) = [line for line in lines if "compiling" in line]
    assert line == f"writing {LABEL}: compiling kernels for uint8, once on this machine …"


# --- bar ----------------------------------------------------------------------------------------------


def bar(delay=0.0, width=110, terminal=True):
    screen = StringIO()
    console = Console(file=screen, force_terminal=terminal, width=width, color_system=None)
    return Bar(console, delay), screen


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_bar_shows_counts_and_leaves_one_line(width, clock):
    listener, screen = bar(width=width)
    listener(started())
    clock.now += 1
    listener(done(nbytes=50_000_000))
    listener._progress.refresh()
    shown = plain(screen.getvalue())
    assert "1/4 cubes" in shown
    assert "25%" in shown
    assert "50 MB/s" in shown
    assert "writing" in shown
    screen.truncate(0)
    for event in (done(), done(), done(), FINISHED):
        listener(event)
    assert screen.getvalue().count("\x1b[?25h") == 1  # the cursor is back
    last = plain(screen.getvalue()).rstrip("\n").rpartition("\n")[2].rpartition("\r")[2]
    assert last == f"writing {LABEL}: 4 cubes, 50.5 MiB of voxels in 1.0 s, 53 MB/s"


def test_a_title_that_is_cut_keeps_its_mag():
    listener, screen = bar(width=80)
    listener(JobStarted("layer 'a_name_that_is_long' mag 4-4-1", "downsampling", 4, 4, 0, "2 local threads"))
    listener(FINISHED)
    assert "mag 4-4-1 " in plain(screen.getvalue()).splitlines()[0]


def test_failures_are_counted_and_the_first_is_told_after_the_bar():
    listener, screen = bar()
    for event in (started(), done(), failed("[red]disk[/red] full"), failed("later")):
        listener(event)
    listener._progress.refresh()
    assert "2 tasks failed" in plain(screen.getvalue())
    listener(FINISHED)
    *_, summary, error = plain(screen.getvalue()).splitlines()
    assert "stopped after 1 of 4 cubes" in summary
    assert error.endswith("OSError: [red]disk[/red] full")  # the text of an error is no markup


def test_the_bar_of_a_short_job_never_appears():
    listener, screen = bar(delay=30)
    for event in (started(), done(), FINISHED):
        listener(event)
    assert screen.getvalue() == ""
    assert listener._timer is None


def test_a_delayed_bar_appears_though_no_task_has_ended():
    listener, screen = bar(delay=0.01)
    listener(started())
    deadline = time.monotonic() + 5
    while "0/4 cubes" not in screen.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    listener(FINISHED)
    assert "0/4 cubes" in screen.getvalue()
    assert "stopped after 0 of 4 cubes" in screen.getvalue()


def test_one_bar_at_a_time():
    (outer, outer_screen), (inner, inner_screen) = bar(), bar()
    outer(started())
    for event in (started(), done(), FINISHED):  # a write inside a task of the outer job
        inner(event)
    assert inner_screen.getvalue() == ""
    outer(started())  # a job whose end was never told does not keep the screen
    outer(FINISHED)
    assert outer_screen.getvalue().count("stopped") == 1
    for event in (started(), FINISHED):
        inner(event)
    assert "stopped" in inner_screen.getvalue()


def test_a_screen_that_breaks_is_given_back(caplog):
    class Broken(StringIO):
        def write(self, text):
            raise OSError("gone")

    listener = guarded(Bar(Console(file=Broken(), force_terminal=True)))
    for event in (started(), done(), FINISHED):
        listener(event)
    assert not module._screen.locked()
    assert "gone" in caplog.text


def test_a_real_job_with_a_bar(mag):
    listener, screen = bar()
    mag.write(voxels(), progress=listener)
    mag.write(255 - mag.to_dask(), progress=listener)  # in two phases
    assert plain(screen.getvalue()).count("4 cubes, 128 KiB of voxels in") == 2


def test_a_real_job_that_fails_gives_the_screen_back(mag):
    def broken(block):
        raise ValueError("bad block")

    listener, screen = bar()
    with pytest.raises(TaskFailedError):
        mag.write(
            voxels().map_blocks(broken, dtype=np.uint8, meta=np.empty((0,) * 3, np.uint8)), progress=listener
        )
    assert "ValueError: bad block" in plain(screen.getvalue())
    assert not module._screen.locked()


SCRIPT = """
import sys, time
import dask.array as da, numpy as np
from wkdask import Dataset
def slow(block):
    time.sleep(0.2)
    return block
mag = Dataset.create(sys.argv[1], (8, 8, 30)).add_layer("color", "color").add_mag(1, chunk_shape=16, shard_shape=32)
x = da.ones((2048, 64, 32), dtype=np.uint8, chunks=32)
x = x.map_blocks(slow, dtype=np.uint8, meta=np.empty((0,) * 3, np.uint8))
mag.write(x[:int(sys.argv[2])], task_memory=1 << 20)
"""


def on_terminal(arguments, interrupt_at=None):
    """Run the script with a terminal as its stderr; return its exit code and what the terminal saw."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "110"}
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    child = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=env)
    os.close(theirs)
    seen = b""
    try:
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux: the last process that had it open is gone
                break
            if not part:
                break
            seen += part
            if interrupt_at is not None and interrupt_at in seen:
                child.send_signal(signal.SIGINT)
                interrupt_at = None
        return child.wait(timeout=30), seen.decode()
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def test_a_terminal_sees_a_bar_and_one_line_stays(tmp_path):
    code, seen = on_terminal([tmp_path / "ds", 256])
    assert code == 0
    assert "━" in seen
    assert "/16 cubes" in seen
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    assert "writing layer 'color' mag 1: 16 cubes, 512 KiB of voxels in" in seen.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_leaves_the_terminal_in_order(tmp_path):
    code, seen = on_terminal([tmp_path / "ds", 2048], interrupt_at="━".encode())
    assert code != 0
    assert "KeyboardInterrupt" in seen
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    assert "stopped after" in plain(seen)


def test_a_passing_line_is_on_a_terminal_only_and_goes(monkeypatch):
    class Terminal(StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    for screen, expected in ((Terminal(), "\r\033[K1 cube\r\033[K2 cubes\r\033[K"), (StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", screen)
        with module.passing_line() as show:
            show("1 cube")
            show("2 cubes")
        assert screen.getvalue() == expected
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with module.passing_line():
        pass
    assert screen.getvalue() == ""
