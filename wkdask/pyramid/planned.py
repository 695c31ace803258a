"""What a pyramid would take, shown before it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wkdask.geometry import BoundingBox, Mag
from wkdask.geometry.voxel_size import format_bytes, format_count
from wkdask.jobs.job import MagPlace
from wkdask.pyramid.job import PyramidPlan, unions_of

__all__ = ["PlannedPyramid"]


@dataclass(frozen=True, slots=True)
class PlannedPyramid:
    """What :meth:`Layer.downsample` will do; made by :meth:`Layer.plan_downsample`, shown by printing it."""

    label: str
    """The layer."""
    start: Mag
    """The mag that is read."""
    mode: str
    """How voxels are computed."""
    targets: Sequence[MagPlace]
    """The mags that are written, finest first."""
    plan: PyramidPlan
    """Tasks and memory."""

    @property
    def boxes(self) -> list[BoundingBox]:
        """What is written of each mag, in its voxels."""
        unions = unions_of(self.plan)
        return [unions[place.mag] for place in self.targets]

    @property
    def num_tasks(self) -> int:
        """Tasks of all mags."""
        return sum(tree.num_nodes for tree in self.plan.trees)

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels that are written, all mags."""
        return sum(tree.nbytes for tree in self.plan.trees)

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, value) pairs to show."""
        rows = [("To make", f"{self.label} from mag {self.start} by {self.mode}")]
        for place, box in zip(self.targets, self.boxes, strict=True):
            spec = place.store.spec
            count = len(spec.grid.cubes(box))
            cubes = f"{format_count(count, 'cube')} of {spec.shard_shape} voxels"
            rows.append(("  mag", f"{place.mag}: {box}, {cubes}, compression {spec.compression or 'none'}"))
        return [
            *rows,
            ("Voxels", format_bytes(self.nbytes)),
            ("Tasks", format_count(self.num_tasks, "task")),
            ("Memory", f"{format_bytes(self.plan.task_nbytes)} per task"),
            ("Runs on", self.plan.engine.description),
        ]

    def __repr__(self) -> str:
        return "\n".join(f"{name:<9}: {value}" for name, value in self.rows())
