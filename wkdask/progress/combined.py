"""The events of several jobs as those of one: one start, one end, and what their tasks did in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wkdask.geometry import EMPTY_BOX
from wkdask.jobs.events import Event, JobFinished, JobStarted, Listener, WriteReport

__all__ = ["Counts", "Whole"]

Counts = tuple[int, int, int]
"""Tasks, cubes, bytes of voxels."""


class Whole:
    """A listener of several jobs, one after the other, that reports them as one.

    Parameters
    ----------
    label, action
        What the whole is called, and what is done, as a participle.
    left
        What each job is expected to be, by its label.
    before
        The same of what earlier runs have done, whose jobs do not come again.
    listeners
        Called with the events of the whole.
    """

    def __init__(
        self,
        label: str,
        action: str,
        left: Mapping[str, Counts],
        before: Counts,
        listeners: Sequence[Listener],
    ) -> None:
        self._label, self._action = label, action
        self._left = dict(left)
        self._before = before
        self._listeners = listeners
        self._begun = False
        self._reports: list[WriteReport] = []

    def __call__(self, event: Event) -> None:
        """Handle an event of one of the jobs."""
        if isinstance(event, JobStarted):
            if not self._begun:
                self._begin(event)
        elif isinstance(event, JobFinished):
            if event.report is not None:
                self._reports.append(event.report)
        else:
            self._tell(event)

    def _begin(self, first: JobStarted) -> None:
        """Report the whole when its first job begins: it may be the one that a previous run had begun."""
        self._begun = True
        expected = self._left.get(first.label, (0, 0, 0))
        self._left[first.label] = (first.units, first.cubes or expected[1], first.nbytes)
        units, cubes, nbytes = _sum(self._before, *self._left.values())
        before = _sum(self._before, (first.units_before, first.cubes_before, first.nbytes_before))
        self._tell(JobStarted(self._label, self._action, units, cubes, nbytes, first.engine, *before))

    def end(self) -> None:
        """Report that no more jobs will come."""
        if not self._begun:
            return
        _, cubes, nbytes = self._before
        total = None
        if self._reports:
            total = WriteReport(
                label=self._label,
                bounding_box=EMPTY_BOX,
                cubes=cubes + sum(report.cubes for report in self._reports),
                bytes=nbytes + sum(report.bytes for report in self._reports),
                file_bytes=sum(report.file_bytes for report in self._reports),
                minimum=None,
                maximum=None,
                seconds=sum(report.seconds for report in self._reports),
                cubes_before=cubes + sum(report.cubes_before for report in self._reports),
                reads_repeated=sum(report.reads_repeated for report in self._reports),
                verified=sum(report.verified for report in self._reports),
            )
        self._tell(JobFinished(self._label, total))

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


def _sum(*counts: Counts) -> Counts:
    """Return the sums of triples."""
    units, cubes, nbytes = (sum(column) for column in zip(*counts, strict=True))
    return units, cubes, nbytes
