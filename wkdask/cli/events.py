"""Progress as JSON lines on stderr, for programs: ``--progress json``."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from wkdask.jobs.events import Event, JobFinished, JobStarted, UnitFailed
from wkdask.progress.tally import Tally

__all__ = ["JsonLines"]

_INTERVAL = 1.0
"""Seconds between two lines of a job at least, but for its start, its failures and its end."""


class JsonLines:
    """A listener that prints a line of JSON at the start, once in a second, for each failure, and at the end."""

    def __init__(self) -> None:
        self._tally: Tally | None = None
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, JobStarted):
            self._tally = Tally(event)
            self._last = time.monotonic()
            self._print("started", action=event.action, engine=event.engine)
            return
        tally = self._tally
        if tally is None:
            return
        tally.take(event)
        if isinstance(event, UnitFailed):
            self._print("failed", box=list(event.box.to_tuple6()), error=" ".join(str(event.error).split()))
        elif isinstance(event, JobFinished):
            self._print("finished")
            self._tally = None
        elif time.monotonic() >= self._last + _INTERVAL:
            self._last = time.monotonic()
            self._print("progress")

    def _print(self, event: str, **more: Any) -> None:
        """Print a line with the progress of the job in numbers."""
        if self._tally is None:
            return
        tally, job = self._tally, self._tally.job
        facts = {
            "event": event,
            "job": job.label,
            "tasks": job.units,
            "tasks_done": tally.units,
            "tasks_failed": tally.failed,
            "cubes": job.cubes,
            "cubes_done": tally.cubes,
            "bytes": job.nbytes,
            "bytes_done": tally.nbytes,
            "seconds": round(tally.seconds, 3),
        }
        click.echo(json.dumps({**facts, **more}), err=True)
