"""Mends what can be mended without losing a voxel: nothing of the finest mag is written, and no box shrinks.

::

    findings ──plan_repairs──> a few Repair values, each with a sentence ──mend, if agreed──> checked again
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from wkdask.check.content import nonzero_part
from wkdask.check.findings import CheckReport, Finding
from wkdask.fsio import lock, locks, remove_entry
from wkdask.jobs.folder_edits import recover_edits
from wkdask.jobs.job import WriteOptions
from wkdask.jobs.mag_folders import mag_folder, mags_lock
from wkdask.layer.layer import layer_of
from wkdask.layer.multiscales import write_multiscales
from wkdask.locations import outside
from wkdask.properties.handle import Properties
from wkdask.properties.values import GrowBox, RaiseSegmentId
from wkdask.storage.formats import open_mag
from wkdask.storage.protocol import PRIVATE
from wkdask.storage.publish.dead_jobs import leftovers, sweep
from wkdask.storage.publish.private import private_folder

__all__ = ["Repair", "mend", "plan_repairs"]

_MAY_BE_VOXELS = (
    "stray-file", "temporary-file", "mag-unlisted", "job-unfinished", "cubes-outside-box", "voxels-outside-box",
    "cubes-outside-array", "array-too-small",
)  # fmt: skip
"""Findings beside errors that show that voxels of a finer mag may be elsewhere."""
_ROUNDS = 3
"""A box that has grown makes coarser mags stale; computed anew, they may have cubes outside of the box no more."""


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that a repair does."""

    what: str
    """What is done, as a sentence without its subject."""
    code: str
    """Of the finding that it mends."""
    run: Callable[[], None]
    """Does it."""


def plan_repairs(report: CheckReport, options: WriteOptions | None = None) -> list[Repair]:
    """Return what can be mended of a report, in the order in which it is to be done; nothing is changed.

    Parameters
    ----------
    report
        Of a check of this dataset.
    options
        How coarser mags are computed.
    """
    properties = Properties(report.path)
    how = options or WriteOptions()
    makers: dict[str, Callable[[Finding], Repair | None]] = {
        "edit-unfinished": partial(_finished_edit, properties),
        "leftover": partial(_removed_leftover, properties),
        "job-unfinished": partial(_forgotten_job, properties),
        "cubes-outside-box": partial(_grown_around_cubes, properties),
        "voxels-outside-box": partial(_grown_around_voxels, properties),
        "segment-id-missing": partial(_raised_id, properties),
        "segment-id-too-small": partial(_raised_id, properties),
        "ome-missing": partial(_written_ome, properties),
        "ome-stale": partial(_written_ome, properties),
        "mag-stale": partial(_computed_anew, properties, how),
    }
    order = {code: number for number, code in enumerate(makers)}
    found = [each for each in report if each.code in makers and not _is_to_wait(each, report)]
    made = [makers[each.code](each) for each in sorted(found, key=lambda each: order[each.code])]
    return [repair for repair in made if repair is not None]


def _is_to_wait(finding: Finding, report: CheckReport) -> bool:
    """Return whether coarser mags are not to be computed anew now, since the finer one may not be whole.

    Where a cube of it is lost, the coarser mags may be all that is left of its voxels. And where the box is to
    grow, what is stale shows afterwards.
    """
    return finding.code == "mag-stale" and any(
        each.layer == finding.layer and (each.severity == "error" or each.code in _MAY_BE_VOXELS)
        for each in report
    )


def mend(
    report: CheckReport,
    check_again: Callable[[], CheckReport],
    options: WriteOptions,
    agreed: Callable[[Sequence[Repair]], bool],
) -> tuple[CheckReport, list[Repair]]:
    """Mend what can be mended, and check again; a box that has grown may leave coarser mags to be computed anew.

    Parameters
    ----------
    report
        What was found.
    check_again
        Checks as before.
    options
        How coarser mags are computed.
    agreed
        Called with what would be done next; False ends it.

    Returns
    -------
    CheckReport
        What is left.
    list of Repair
        What was done.
    """
    done: list[Repair] = []
    for _ in range(_ROUNDS):
        repairs = plan_repairs(report, options)
        if not repairs or not agreed(repairs):
            break
        for repair in repairs:
            repair.run()
            done.append(repair)
        report = check_again()
    return report, done


def _finished_edit(properties: Properties, finding: Finding) -> Repair:
    return Repair(
        "end the rename or removal that was interrupted", finding.code, lambda: recover_edits(properties)
    )


def _removed_leftover(properties: Properties, finding: Finding) -> Repair | None:
    """Remove what a dead process has left: a job's folder, a temporary file, a folder on its way out."""
    path = finding.path
    folder, name = os.path.split(path)
    if outside(properties.folder, folder) is not None:
        return None
    if os.path.basename(folder) == PRIVATE:
        return Repair(f"remove {path}", finding.code, lambda: _sweep(os.path.dirname(folder)))

    def remove() -> None:
        # Under these locks the files are written whose temporary copies these are: none is of a living process.
        private = os.path.join(properties.folder, PRIVATE, "locks")
        os.makedirs(private, exist_ok=True)
        with mags_lock(properties.folder), locks([os.path.join(private, "properties.lock")]):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                remove_entry(descriptor, name)
            finally:
                os.close(descriptor)

    return Repair(f"remove {path}", finding.code, remove)


def _forgotten_job(properties: Properties, finding: Finding) -> Repair | None:
    """Remove the folder of a job that could be resumed; the cubes that it has published stay."""
    mag_path = os.path.dirname(os.path.dirname(finding.path))
    if outside(properties.folder, mag_path) is not None:
        return None
    return Repair(
        f"forget the interrupted job in {mag_path}, which cannot be resumed then; the cubes that it has "
        f"published stay",
        finding.code,
        lambda: _sweep(mag_path),
    )


def _sweep(mag_path: str) -> None:
    """Remove the folders of dead jobs in a mag, but for those that are to be finished."""
    if any(left.state in ("resumable", "ended") for left in leftovers(mag_path)):
        private = private_folder(mag_path)
        with lock(f"{private}/locks/jobs.lock"):
            sweep(private, None, None)


def _grown_around_cubes(properties: Properties, finding: Finding) -> Repair | None:
    """Grow a layer's box around the voxels of cubes outside of it; around the cubes where these are all zero."""
    if finding.layer is None or finding.mag is None:
        return None
    name, mag = finding.layer, finding.mag

    def grow() -> None:
        layer = properties.layer(name)
        record = layer.mag(mag)
        store = open_mag(mag_folder(properties.folder, name, record), layer.data_format, record.raw)
        edits = []
        for box in (box.in_mag(mag) for box in finding.boxes):
            for _, cube in store.spec.grid.pieces(box):
                if store.check_cube(store.cube_path(cube.topleft // store.spec.shard_shape)):
                    part = nonzero_part(store, [cube])
                    edits.append(GrowBox(name, cube if part.is_empty() else part, mag))
        properties.commit(edits)

    count = len(finding.boxes)
    return Repair(
        f"grow the box of layer {name!r} around the voxels of {'a box' if count == 1 else f'{count} boxes'} of "
        f"cubes of mag {mag}",
        finding.code,
        grow,
    )


def _grown_around_voxels(properties: Properties, finding: Finding) -> Repair | None:
    """Grow a layer's box around voxels outside of it."""
    if finding.layer is None or finding.mag is None or not finding.boxes:
        return None
    name, mag, box = finding.layer, finding.mag, finding.boxes[0]
    return Repair(
        f"grow the box of layer {name!r} around the voxels in {box}",
        finding.code,
        lambda: _commit(properties, GrowBox(name, box.in_mag(mag), mag)),
    )


def _commit(properties: Properties, edit: GrowBox | RaiseSegmentId) -> None:
    properties.commit(edit)


def _raised_id(properties: Properties, finding: Finding) -> Repair | None:
    """Raise the largest segment id to the one that was found; without `deep` none was."""
    if finding.layer is None or not isinstance(finding.value, int):
        return None
    edit = RaiseSegmentId(finding.layer, finding.value)
    what = f"raise the largest segment id of layer {finding.layer!r} to {finding.value}"
    return Repair(what, finding.code, lambda: _commit(properties, edit))


def _written_ome(properties: Properties, finding: Finding) -> Repair | None:
    if finding.layer is None:
        return None
    name = finding.layer
    return Repair(
        f"write the OME-Zarr metadata of layer {name!r}",
        finding.code,
        lambda: write_multiscales(properties, name),
    )


def _computed_anew(properties: Properties, options: WriteOptions, finding: Finding) -> Repair | None:
    """Compute boxes of the coarser mags anew, as the other boxes of the mag were computed."""
    if finding.layer is None or finding.mag is None:
        return None
    name, boxes, mode = finding.layer, list(finding.boxes), str(finding.value)
    layer = properties.layer(name)
    for record in layer.mags:
        folder = mag_folder(properties.folder, name, record)
        if record.mag >= finding.mag and outside(properties.folder, folder) is not None:
            return None

    def redo() -> None:
        listener = options.listeners[0] if options.listeners else False
        layer_of(properties, properties.layer(name)).redownsample(
            mode, boxes=boxes, client=options.client, progress=listener
        )

    return Repair(
        f"compute {len(boxes)} boxes of the coarser mags of layer {name!r} anew, by {mode}",
        finding.code,
        redo,
    )
