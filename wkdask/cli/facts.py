"""What commands print with ``--json``: reports, plans, datasets as plain values.

``docs/commands.md`` has the keys.
"""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any

from wkdask.errors import WkdaskError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wkdask.dataset import Dataset, Layer
    from wkdask.dataset.copies import DatasetCopy
    from wkdask.dataset.equality import Difference
    from wkdask.geometry import Mag
    from wkdask.jobs.events import WriteReport
    from wkdask.operations.histogram import Histogram
    from wkdask.operations.write import PlannedWrite
    from wkdask.pyramid.planned import PlannedPyramid
    from wkdask.storage.protocol import ArraySpec

__all__ = [
    "copy_plan_facts",
    "dataset_facts",
    "difference_facts",
    "histogram_facts",
    "plan_facts",
    "pyramid_facts",
    "reports_facts",
    "spec_facts",
]


def _report_facts(report: WriteReport) -> dict[str, Any]:
    """Return what was written into one mag."""
    return {
        "label": report.label,
        "dataset": report.dataset_path,
        "bounding_box": list(report.bounding_box.to_tuple6()),
        "cubes": report.cubes,
        "cubes_before": report.cubes_before,
        "bytes": report.bytes,
        "file_bytes": report.file_bytes,
        "minimum": _number(report.minimum),
        "maximum": _number(report.maximum),
        "seconds": round(report.seconds, 3),
        "was_finished": report.was_finished,
        "reads_repeated": report.reads_repeated,
        "verified": report.verified,
    }


def reports_facts(reports: Iterable[WriteReport]) -> list[dict[str, Any]]:
    """Return what was written, mag by mag, each once."""
    found = {(each.dataset_path, each.label): each for report in reports for each in (report, *report.others)}
    return [_report_facts(report) for report in found.values()]


def plan_facts(planned: PlannedWrite) -> dict[str, Any]:
    """Return what a write would take."""
    plan = planned.plan
    return {
        "label": planned.label,
        "box": list(plan.box.to_tuple6()),
        "shard_shape": list(plan.cube.shape),
        "cubes": plan.num_cubes,
        "bytes": plan.nbytes,
        "tasks": len((plan.parts or plan).units),
        "bytes_per_task": plan.task_nbytes,
        "bytes_available": planned.memory,
        "phases": 2 if planned.reads_target else 1,
        "windows": (plan.parts or plan).num_windows,
        "engine": planned.engine.description,
    }


def spec_facts(spec: ArraySpec) -> dict[str, Any]:
    """Return how a mag is stored."""
    return {
        "data_format": spec.data_format,
        "chunk_shape": list(spec.chunk_shape),
        "shard_shape": list(spec.shard_shape),
        "compression": spec.compression or "none",
    }


def copy_plan_facts(planned: DatasetCopy) -> list[dict[str, Any]]:
    """Return what a copy would take, mag by mag."""
    mags = []
    for layer in planned.layers:
        for each in layer.mags:
            plan = planned.plans.get((layer.name, each.mag))
            mags.append(
                {
                    "label": f"layer {layer.name!r} mag {each.mag}",
                    "box": list(each.box.to_tuple6()),
                    **spec_facts(each.spec),
                    "as_it_is": each.source.spec == each.spec,
                    "cubes": 0 if plan is None else plan.num_cubes,
                    "bytes": 0 if plan is None else plan.nbytes,
                    "tasks": 0 if plan is None else len((plan.parts or plan).units),
                    "bytes_per_task": 0 if plan is None else plan.task_nbytes,
                }
            )
    return mags


def difference_facts(found: Difference) -> dict[str, Any]:
    """Return what differs first between two datasets."""
    return {
        "what": found.what,
        "layer": found.layer,
        "mag": None if found.mag is None else found.mag.to_layer_name(),
        "voxel": None if found.voxel is None else list(found.voxel),
        "first": _plain(found.first),
        "second": _plain(found.second),
    }


def histogram_facts(found: Histogram) -> dict[str, Any]:
    """Return how often values occur."""
    return {
        "label": found.label,
        "mag": found.mag.to_layer_name(),
        "bounding_box": list(found.bounding_box.to_tuple6()),
        "voxels": found.voxels,
        "voxels_in_box": found.total,
        "minimum": _number(found.minimum),
        "maximum": _number(found.maximum),
        "left_out": found.left_out,
        "counts": found.counts.tolist(),
        "edges": found.edges.tolist(),
    }


def dataset_facts(dataset: Dataset, names: Iterable[str] = ()) -> dict[str, Any]:
    """Return a dataset: its layers, their mags, the cubes on the disk.

    Parameters
    ----------
    dataset
        The dataset.
    names
        Of the layers that are wanted; all where there is none.
    """
    layers = [dataset.get_layer(name) for name in names] or list(dataset.layers.values())
    voxel_size = dataset._file.record.voxel_size
    return {
        "dataset": os.fspath(dataset.path),
        "name": dataset.name,
        "voxel_size": list(voxel_size.factor),
        "unit": str(voxel_size.unit),
        "layers": [_layer_facts(layer) for layer in layers],
    }


def _layer_facts(layer: Layer) -> dict[str, Any]:
    record = layer.record
    facts: dict[str, Any] = {
        "name": layer.name,
        "category": record.category,
        "data_format": record.data_format,
        "bounding_box": list(record.bounding_box.to_tuple6()),
    }
    with contextlib.suppress(WkdaskError, OSError):  # of a format that is listed only
        facts.update(dtype=str(layer.dtype_per_channel), num_channels=layer.num_channels)
    if record.is_segmentation:
        facts["largest_segment_id"] = record.largest_segment_id
    mags = sorted((mag.mag for mag in record.mags), key=lambda mag: (mag.max_dim, mag.to_tuple()))
    facts["mags"] = [_mag_facts(layer, mag) for mag in mags]
    return facts


def _mag_facts(layer: Layer, mag: Mag) -> dict[str, Any]:
    from wkdask.display.counting import count_all
    from wkdask.storage.publish.jobs import unfinished_jobs

    facts: dict[str, Any] = {"mag": mag.to_layer_name()}
    try:
        view = layer.get_mag(mag)
        if axes := getattr(view, "further_axes", ()):
            return {
                **facts,
                "further_axes": list(axes),
                "path": os.fspath(view.path),
            }
        (count,) = count_all([view.place.store])
        if count.error is not None:
            raise count.error
        return {
            **facts,
            **spec_facts(view.spec),
            "path": os.fspath(view.path),
            "box": list(view.box.to_tuple6()),
            "cubes": count.cubes if count.complete else None,
            "bytes": view.box.volume() * view.spec.bytes_per_voxel,
            "bytes_on_disk": count.nbytes if count.complete else None,
            "read_only": view.place.read_only,
            "unfinished": [f"{job.action} {job.name}" for job in unfinished_jobs(view.place.store)],
        }
    except (WkdaskError, OSError) as error:
        return {**facts, "error": f"{type(error).__name__}: {error}"}


def _number(value: Any) -> int | float | None:
    """Return a number that JSON has; None for one that it has not, such as NaN."""
    if value is None:
        return None
    number: int | float = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, or its text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float) or hasattr(value, "item"):
        return _number(value)
    return str(value)


def pyramid_facts(planned: PlannedPyramid) -> dict[str, Any]:
    """Return what coarser mags would take."""
    mags = []
    for place, box in zip(planned.targets, planned.boxes, strict=True):
        spec = place.store.spec
        mags.append(
            {
                "label": place.label,
                "mag": place.mag.to_layer_name(),
                "box": list(box.to_tuple6()),
                **spec_facts(spec),
                "cubes": len(spec.grid.cubes(box)),
                "bytes": box.volume() * spec.bytes_per_voxel,
            }
        )
    return {
        "label": planned.label,
        "from_mag": planned.start.to_layer_name(),
        "interpolation_mode": planned.mode,
        "mags": mags,
        "cubes": sum(mag["cubes"] for mag in mags),
        "bytes": planned.nbytes,
        "tasks": planned.num_tasks,
        "bytes_per_task": planned.plan.task_nbytes,
        "engine": planned.plan.engine.description,
    }
