"""Events -> what a person sees while a job runs: a bar on a terminal or in a notebook, lines in a log.

::

    JobStarted, UnitDone, UnitFailed, JobFinished -> Tally -> Bar   (terminal, rich)
                                                        └-> Lines (log files, logging; notebooks, under a bar)
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from wkdask import settings
from wkdask.compiling import unwatch, watch
from wkdask.jobs.events import Event, JobFinished, JobStarted, Listener, UnitFailed
from wkdask.progress.notebook import NotebookBar
from wkdask.progress.tally import Tally

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["Bar", "Lines", "ProgressLike", "listeners_for", "log_listener", "passing_line", "say"]

ProgressLike: TypeAlias = "bool | Callable[[Event], None] | None"
"""``True`` for a bar, ``False`` for none, a listener, ``None`` for a bar where a person watches."""

_DELAY = 0.5
"""Seconds that a job must last before a bar appears by default."""
_BESIDE_TITLE = 48
"""Columns of a terminal for what stands beside the title: bar, per cent, cubes, rate, time."""
_NOTEBOOK_INTERVAL = 0.25
"""Seconds between two looks of a line in a notebook."""

_screen = threading.Lock()
"""Held by the one bar that is on the terminal; a job inside a job's task shows none."""

_logger = logging.getLogger(__name__)


def listeners_for(progress: ProgressLike) -> Sequence[Listener]:
    """Return the listeners that a ``progress=`` argument asks for.

    Parameters
    ----------
    progress
        A listener: that one. ``False``: none. ``True``: a bar on a terminal or in a notebook, else a plain line
        every 10 s (the setting ``wkdask.progress-interval``) on stderr. ``None``: as True, but nothing where
        neither a terminal nor a notebook is watched, and nothing for jobs that last less than half a second.

    Returns
    -------
    sequence of Listener
        Each survives its own errors: the first is logged as a warning, and the job continues.
    """
    if callable(progress):
        return [guarded(progress)]
    if progress is False:
        return []
    delay = 0.0 if progress else _DELAY
    if not progress and _is_child_process():
        return []
    if _in_notebook():
        return [guarded(Lines(NotebookBar(), _NOTEBOOK_INTERVAL, delay, in_place=True))]
    if _on_terminal():
        return [guarded(Bar(delay=delay))]
    return [guarded(Lines(_print_line, _configured_interval()))] if progress else []


def say(progress: ProgressLike, line: str) -> None:
    """Print what a job takes for granted, where its progress is shown; a listener of one's own hears of no text.

    Parameters
    ----------
    progress
        As for `listeners_for`.
    line
        The text.
    """
    if callable(progress) or progress is False or (not progress and _is_child_process()):
        return
    if progress or _in_notebook() or _on_terminal():
        _print_line(line)


def log_listener(logger: logging.Logger | None = None, interval: float | None = None) -> Listener:
    """Return a listener that logs the start, the progress and the end of a job at the level INFO.

    Parameters
    ----------
    logger
        Where to; ``wkdask.progress.bar`` by default.
    interval
        Least seconds between two lines; the setting ``wkdask.progress-interval`` (10) by default.
    """
    target = _logger if logger is None else logger
    return guarded(Lines(target.info, _configured_interval() if interval is None else interval))


def guarded(listener: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls a listener and logs its first error instead of raising it.

    What is no `Exception` passes: a listener may raise KeyboardInterrupt to stop a job.
    """
    failed = False

    def call(*arguments: Any) -> None:
        nonlocal failed
        try:
            listener(*arguments)
        except Exception as error:
            if not failed:
                failed = True
                _logger.warning("the progress listener %r failed with %r; the job continues", listener, error)
                _logger.debug("traceback of the listener", exc_info=True)

    return call


class Lines:
    """A listener that writes lines of text: at the start, from time to time, at the end.

    Parameters
    ----------
    write
        Called with each line, without its line break.
    interval
        Least seconds between two lines.
    delay
        Seconds that a job must last before its first line.
    in_place
        Whether each line takes the place of the one before: then the errors are on the last.
    """

    def __init__(
        self, write: Callable[[str], None], interval: float, delay: float = 0.0, in_place: bool = False
    ) -> None:
        self._write, self._interval, self._delay, self._in_place = write, interval, delay, in_place
        self._tally: Tally | None = None
        self._next: float = 0.0
        self._shown = False

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, JobStarted):
            self._tally, self._shown = Tally(event), False
            unwatch(self._compiling)
            watch(self._compiling)
            self._next = self._tally.start + (self._delay or self._interval)
            if self._in_place and hasattr(self._write, "begin"):
                self._write.begin(self._tally)
            if not self._delay:
                self._show(self._tally.start_line())
            return
        tally = self._tally
        if tally is None:  # the job ended before it began
            return
        tally.take(event)
        if isinstance(event, JobFinished):
            self._tally = None
            unwatch(self._compiling)
            if self._shown or not self._delay:
                error = f"; the first {tally.first_error}" if tally.failed and self._in_place else ""
                self._show(tally.summary() + error)
            return
        if isinstance(event, UnitFailed) and tally.failed == 1 and not self._in_place:
            self._show(f"{tally.title}: a task failed {tally.first_error}")
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval
            self._show(tally.line())

    def _compiling(self, text: str | None) -> None:
        """Write that a task compiles, which is why nothing seems to happen."""
        if (tally := self._tally) is not None and text is not None:
            self._show(f"{tally.title}: {text}")

    def _show(self, line: str) -> None:
        self._shown = True
        self._write(line)


class Bar:
    """A listener that shows a bar on a terminal, and leaves one line when the job has ended.

    Parameters
    ----------
    console
        A :class:`rich.console.Console`; one on stderr by default.
    delay
        Seconds that a job must last before the bar appears; a shorter one leaves no line either.
    """

    def __init__(self, console: Console | None = None, delay: float = 0.0) -> None:
        self._console, self._delay = console, delay
        self._tally: Tally | None = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, JobStarted):
            self._close()  # of a job whose end was not reported
            self._open(Tally(event))
            return
        tally = self._tally
        if tally is None:  # the job ended before it began
            return
        tally.take(event)
        if not isinstance(event, JobFinished):
            with self._lock:
                self._draw(tally)
        elif (console := self._close()) is not None:
            from rich.text import Text

            red = "red" if tally.failed else ""
            console.print(Text(tally.summary(), style=red), soft_wrap=True)
            if tally.failed:
                console.print(Text(f"the first {tally.first_error}", style="red"), soft_wrap=True)

    def _open(self, tally: Tally) -> None:
        """Show the bar, now or after the delay: a first task may take minutes, so a timer does it."""
        self._tally = tally
        watch(self._compiling)
        if self._delay:
            self._timer = threading.Timer(self._delay, guarded(self._show), (tally,))
            self._timer.daemon = True
            self._timer.start()
        else:
            self._show(tally)

    def _show(self, tally: Tally) -> None:
        """Show the bar of a job, unless the job is over or another bar is on the screen."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.table import Column

        with self._lock:
            if self._tally is not tally or not _screen.acquire(blocking=False):
                return
            try:
                self._console = self._console or Console(stderr=True)
                title = _shortened(tally.title, self._console.width - _BESIDE_TITLE)
                self._progress = Progress(
                    TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
                    BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
                    TaskProgressColumn(),
                    TextColumn("{task.fields[cubes]}", markup=False, table_column=Column(no_wrap=True)),
                    TextColumn("{task.fields[rate]}", markup=False, table_column=Column(no_wrap=True)),
                    TimeRemainingColumn(compact=True),
                    TextColumn("{task.fields[failed]}", style="red", markup=False),
                    TextColumn("{task.fields[doing]}", markup=False),
                    console=self._console,
                    transient=True,
                    expand=True,
                )
                self._task = self._progress.add_task(
                    title, total=max(tally.job.units, 1), cubes="", rate="", failed="", doing=""
                )
                self._draw(tally)
                self._progress.start()
            except BaseException:
                broken, self._progress = self._progress, None
                _screen.release()
                if broken is not None:
                    with contextlib.suppress(Exception):  # it has not begun; what it took, it gives back
                        broken.stop()
                raise

    def _draw(self, tally: Tally) -> None:
        """Bring the bar up to date, where it is shown."""
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task,
                completed=tally.units + tally.failed,
                cubes=tally.cubes_done,
                rate=tally.rate,
                failed=tally.failures,
            )

    def _compiling(self, text: str | None) -> None:
        """Show that a task compiles, which is why the bar does not move."""
        with self._lock:
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, doing=text or "")

    def _close(self) -> Console | None:
        """Take the bar off the screen; return the console if the bar was on it."""
        unwatch(self._compiling)
        with self._lock:
            self._tally = None
            timer, self._timer = self._timer, None
            progress, self._progress = self._progress, None
            if timer is not None:
                timer.cancel()
            if progress is None:
                return None
            try:
                progress.stop()
            finally:
                _screen.release()
            return self._console


def _shortened(title: str, width: int) -> str:
    """Return a title that fits, cut in its middle: it ends with the mag."""
    if len(title) <= max(width, 20):
        return title
    head = (max(width, 20) - 1) // 2
    return f"{title[:head]}…{title[len(title) + head + 1 - max(width, 20) :]}"


@contextlib.contextmanager
def passing_line() -> Iterator[Callable[[str], None]]:
    """Return a function that shows a line on a terminal, in the place of the one before, until the block ends.

    Where stderr is no terminal nothing is shown.
    """
    shown = False

    def show(line: str) -> None:
        nonlocal shown
        if _on_terminal():
            shown = True
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _print_line(line: str) -> None:
    """Print a line on stderr with the time of day, at once: a log is read while it grows."""
    if sys.stderr is not None:
        print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


def _configured_interval() -> float:
    """Return the seconds between two lines of a log."""
    return float(settings.get("progress-interval"))


def _on_terminal() -> bool:
    """Return whether stderr is a terminal that can move its cursor."""
    import os

    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


def _is_child_process() -> bool:
    """Return whether this process was started by multiprocessing, as workers of a local cluster are."""
    import multiprocessing

    return multiprocessing.parent_process() is not None
