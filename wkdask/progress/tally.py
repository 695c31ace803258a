"""Events of a job, counted, and what they come to in words.

Progress counts units, because a job in two phases publishes no cube before its second half.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from wkdask.geometry.voxel_size import format_bytes, format_count, format_rate
from wkdask.jobs.events import Event, JobFinished, JobStarted, UnitDone, UnitFailed

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """What is known of a job so far."""

    job: JobStarted
    """What was planned."""
    units: int = 0
    """Tasks that ended well, all phases."""
    cubes: int = 0
    """Cubes published, in all mags."""
    nbytes: int = 0
    """Bytes of the voxels written, uncompressed."""
    failed: int = 0
    """Tasks that failed."""
    first_error: str = ""
    """Of the first task that failed: where, and why."""
    start: float = field(default_factory=lambda: time.monotonic())
    """When the job began, by the monotonic clock, in seconds."""

    def __post_init__(self) -> None:
        self.units, self.cubes, self.nbytes = (
            self.job.units_before, self.job.cubes_before, self.job.nbytes_before
        )  # fmt: skip

    def take(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, UnitDone):
            self.units += 1
            self.cubes += event.report.cubes + sum(other.cubes for other in event.report.others)
            self.nbytes += event.report.nbytes + sum(other.nbytes for other in event.report.others)
        elif isinstance(event, JobFinished) and event.report is not None:
            # Also what tasks did that ended after the job was stopped, for which there is no event.
            reports = (event.report, *event.report.others)
            self.cubes = sum(report.cubes for report in reports)
            self.nbytes = sum(report.bytes for report in reports)
        elif isinstance(event, UnitFailed):
            self.failed += 1
            if self.failed == 1:
                error = event.error
                self.first_error = f"at {event.box} (voxels of that mag): {type(error).__name__}: {error}"

    @property
    def title(self) -> str:
        """What is done, and where: ``"writing layer 'color' mag 1"``."""
        return f"{self.job.action} {self.job.label}"

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self.start

    @property
    def rate(self) -> str:
        """Uncompressed bytes per second of wall time, in this run of the job.

        Tasks of a second phase, which publish what was built before, count none; where a run has only those, the
        share of the tasks says how much it was.
        """
        job = self.job
        share = (self.units - job.units_before) / job.units if job.units else 0.0
        return format_rate(max(self.nbytes - job.nbytes_before, share * job.nbytes), self.seconds)

    @property
    def cubes_done(self) -> str:
        """Cubes published, of all: ``"3/48 cubes"``."""
        return f"{self.cubes}/{_cubes(self.job.cubes)}"

    @property
    def failures(self) -> str:
        """How many tasks failed; empty where none did."""
        return f"{format_count(self.failed, 'task')} failed" if self.failed else ""

    def start_line(self) -> str:
        """Return what is about to happen."""
        job = self.job
        done = f", {job.cubes_before} of them done by earlier runs" if job.units_before else ""
        return (
            f"{self.title}: {_cubes(job.cubes)}{done}, {format_bytes(job.nbytes)} of voxels, on {job.engine}"
        )

    def line(self) -> str:
        """Return the progress of the job."""
        ended = self.units + self.failed
        units = self.units - self.job.units_before
        left = self.seconds * (self.job.units - ended) / units if units else None
        parts = [
            f"{self.cubes} of {_cubes(self.job.cubes)}",
            f"{100 * ended // max(self.job.units, 1)} %",
            self.rate,
            "" if left is None else f"{_duration(left)} left",
            self.failures,
        ]
        return f"{self.title}: {', '.join(part for part in parts if part)}"

    def summary(self) -> str:
        """Return how the job ended."""
        whole = not self.failed and self.units >= self.job.units
        cubes = _cubes(self.cubes) if whole else f"stopped after {self.cubes} of {_cubes(self.job.cubes)}"
        seconds = self.seconds
        time_taken = f"{seconds:.1f} s" if seconds < 60 else _duration(seconds)
        parts = [cubes, f"{format_bytes(self.nbytes)} of voxels in {time_taken}", self.rate, self.failures]
        return f"{self.title}: {', '.join(part for part in parts if part)}"


def _cubes(count: int) -> str:
    return format_count(count, "cube")


def _duration(seconds: float) -> str:
    """Return ``"0:07"``, ``"1:02:03"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
