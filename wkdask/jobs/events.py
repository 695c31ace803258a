"""Frozen events of a job: what progress bars, logs and tests listen to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeAlias

from wkdask.geometry import BoundingBox
from wkdask.geometry.voxel_size import format_bytes, format_rate
from wkdask.jobs.tasks import UnitReport

__all__ = [
    "Event",
    "JobFinished",
    "JobStarted",
    "Listener",
    "UnitDone",
    "UnitFailed",
    "WriteReport",
    "html_table",
]


def html_table(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and values as a table for a notebook."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table style='text-align:left'>{cells}</table>"


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What a write did, merged from the reports of its tasks.

    Examples
    --------
    >>> report = mag.write(np.full((32, 32, 32), 9, "uint8"), offset=(0, 0, 0))
    >>> report.cubes, report.bytes, report.minimum, report.maximum, isinstance(report, WriteReport)
    (1, 32768, 9, 9, True)
    """

    label: str
    """Layer and mag."""
    bounding_box: BoundingBox
    """The union of what was written, in voxels of mag 1."""
    cubes: int
    """Cubes published; each once."""
    bytes: int
    """Bytes of the voxels written, uncompressed."""
    file_bytes: int
    """Bytes of the files published."""
    minimum: int | float | None
    """Smallest voxel written."""
    maximum: int | float | None
    """Largest voxel written."""
    seconds: float
    """From the start of the job to the commit of the properties."""
    cubes_before: int = 0
    """How many of the cubes were published by earlier runs, with which a resumed job went on."""
    dataset_path: str = ""
    """The dataset's folder."""
    others: tuple[WriteReport, ...] = ()
    """What the same job wrote into further mags."""
    was_finished: bool = False
    """Whether the same job had ended before, and nothing was done now."""
    reads_repeated: int = 0
    """Reads that gave wrong data at first and right data when they were repeated: of all mags, in this run."""
    verified: int = 0
    """Bytes of the voxels that a copy read back from the disk and compared with its source; in this run."""

    def to_row(self) -> list[Any]:
        """Return the report, without those of further mags, as JSON."""
        return [
            self.label, self.bounding_box.to_tuple6(), self.cubes, self.bytes, self.file_bytes,
            self.minimum, self.maximum, self.seconds, self.cubes_before, self.dataset_path,
        ]  # fmt: skip

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> WriteReport:
        """Return the report of a row."""
        label, box, *numbers = row
        return cls(label, BoundingBox.from_tuple6(box), *numbers)

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, value) pairs to show."""
        min_max = [] if self.minimum is None else [("Range", f"{self.minimum} to {self.maximum}")]
        return [
            ("Written", self.label),
            ("Bounding box", f"{self.bounding_box} (voxels of mag 1)"),
            ("Cubes", f"{self.cubes}{self._before()}"),
            ("Voxels", f"{format_bytes(self.bytes)}, {format_bytes(self.file_bytes)} in files"),
            *min_max,
            *(
                [("Verified", f"{format_bytes(self.verified)}, read back from the disk")]
                if self.verified
                else []
            ),
            *(
                [("Reads", f"{self.reads_repeated} repeated, since they were wrong")]
                if self.reads_repeated
                else []
            ),
            *([("State", "finished by an earlier run; nothing was done")] if self.was_finished else []),
            ("Time", f"{self.seconds:.2f} s, {format_rate(self.bytes, self.seconds)}"),
        ]

    def _before(self) -> str:
        """Return how much of the job was done before this run, in words."""
        return f", {self.cubes_before} of them by earlier runs" if self.cubes_before else ""

    def __repr__(self) -> str:
        return "\n".join(f"{name:<13}: {value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        return html_table(self.rows())


@dataclass(frozen=True, slots=True)
class JobStarted:
    """The plan is made, nothing is written yet."""

    label: str
    """Layer and mag."""
    action: str
    """What is done, as a participle: "writing", "downsampling"."""
    units: int
    """Tasks to come, all phases together."""
    cubes: int
    """Cubes that will be published."""
    nbytes: int
    """Bytes of the voxels to be written, uncompressed."""
    engine: str
    """Where the tasks run."""
    units_before: int = 0
    """Tasks of these that earlier runs of the job have done."""
    cubes_before: int = 0
    """Cubes of these that earlier runs have published."""
    nbytes_before: int = 0
    """Bytes of these that earlier runs have written."""


@dataclass(frozen=True, slots=True)
class UnitDone:
    """A task has ended well."""

    label: str
    """Layer and mag."""
    report: UnitReport
    """What it did."""


@dataclass(frozen=True, slots=True)
class UnitFailed:
    """A task has failed for good."""

    label: str
    """Layer and mag."""
    box: BoundingBox
    """What it would have written, in voxels of the mag."""
    error: BaseException
    """Why."""


@dataclass(frozen=True, slots=True)
class JobFinished:
    """The properties hold what was written; `report` is None if nothing was."""

    label: str
    """Layer and mag."""
    report: WriteReport | None
    """The merged reports."""


Event: TypeAlias = JobStarted | UnitDone | UnitFailed | JobFinished
"""What a listener is called with."""

Listener: TypeAlias = Callable[[Event], None]
"""Called in the driver, in its thread."""
