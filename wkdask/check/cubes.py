"""The rules of cubes that need no voxels: their places, their headers and indexes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from wkdask.check.findings import Findings
from wkdask.check.jobs import CheckJob, numbered
from wkdask.check.opened import OpenedLayer, OpenedMag
from wkdask.errors import WkdaskError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.jobs.tasks import UnitReport, ended
from wkdask.storage.formats import extent_of, is_zero_filled, scan_cubes
from wkdask.storage.listing import Listing, Places, Suspect
from wkdask.storage.protocol import StoredMag

__all__ = [
    "ListedMag",
    "check_boxes",
    "check_places",
    "merged_boxes",
    "note_suspects",
    "probe",
    "scan_job",
    "suspect_of",
]

_BATCH = 1024
"""Files that a task looks at: some milliseconds on a local disk, a second on a slow share."""
_LARGE_PART = 4
"""A box without cubes in a quarter of its length is too large; black margins of images are smaller."""
MOST_BOXES = 1000
"""Boxes of a finding at most; more become their union."""


@dataclass(frozen=True, slots=True)
class ListedMag:
    """A mag, and what lies in its folder."""

    opened: OpenedMag
    """The mag."""
    listing: Listing
    """Its files."""
    at_rest: bool
    """Whether no job, living or dead, is in the middle of replacing its cubes."""
    is_finest: bool
    """Whether it is the finest mag of its layer."""

    @property
    def indices(self) -> Places:
        """``(n, 3)``: the indices (x, y, z) of its cubes; twice if the channels of a cube are in two files."""
        return self.listing.places[:, 1:]

    def union(self) -> BoundingBox | None:
        """Return the box of whole cubes around all of them, in voxels of mag 1; None where there is none."""
        if not len(self.indices):
            return None
        shard = np.array(self.opened.store.spec.shard_shape)
        low, high = self.indices.min(0) * shard, (self.indices.max(0) + 1) * shard
        return BoundingBox.from_corners(low.tolist(), high.tolist()).from_mag_to_mag1(self.opened.mag)


def merged_boxes(boxes: Sequence[BoundingBox]) -> tuple[BoundingBox, ...]:
    """Return boxes, of which those side by side along an axis become one; their union where they are too many."""
    found = list(dict.fromkeys(boxes))
    for axis in range(3):
        merged: list[BoundingBox] = []
        others = [other for other in range(3) if other != axis]
        for box in sorted(found, key=lambda each: (*(each.topleft[n] for n in others), each.topleft[axis])):
            last = merged[-1] if merged else None
            if (
                last is not None
                and last.bottomright[axis] == box.topleft[axis]
                and all((last.topleft[n], last.size[n]) == (box.topleft[n], box.size[n]) for n in others)
            ):
                merged[-1] = last.extended_by(box)
            else:
                merged.append(box)
        found = merged
    if len(found) > MOST_BOXES:
        found = [reduce(BoundingBox.extended_by, found)]
    return tuple(found)


# --- where cubes lie ------------------------------------------------------------------------------------


def check_places(listed: ListedMag, findings: Findings) -> None:
    """Find cubes outside of the layer's box or of the array, and a box that reaches beyond the array.

    Parameters
    ----------
    listed
        The mag.
    findings
        Takes in what is found.
    """
    opened, store, indices = listed.opened, listed.opened.store, listed.indices
    where = opened.layer.name, opened.mag
    shard = np.array(store.spec.shard_shape)
    low, high = indices * shard, (indices + 1) * shard
    extent = extent_of(store)
    if extent != Vec3Int.zeros():
        beyond = (low >= np.array(extent)).any(axis=1)
        if beyond.any():
            what = f"{_such_as(listed, beyond)}; the array has {extent} voxels"
            findings.add("cubes-outside-array", store.path, what, *where)
        ends = opened.box.bottomright if opened.box is not None and not opened.box.is_empty() else extent
        if len(indices):
            ends = ends.pairmax(Vec3Int(high.max(0).tolist()))
        room = ends.ceildiv(store.spec.shard_shape) * store.spec.shard_shape
        if any(
            have >= end + side for have, end, side in zip(extent, room, store.spec.shard_shape, strict=True)
        ):
            what = f"the array has {extent} voxels, box and cubes end at {ends} in this mag"
            findings.add("array-too-large", store.path, what, *where)
        slack = 0 if opened.mag == Mag(1) else 1  # other programs round the last voxel of a coarser mag down
        if opened.box is not None and any(
            end - have > slack for end, have in zip(opened.box.bottomright, extent, strict=True)
        ):
            what = f"the box ends at {opened.box.bottomright} in this mag, the array has {extent} voxels"
            findings.add("array-too-small", store.path, what, *where)
    if not is_zero_filled(store):
        findings.add("array-fill-value", store.path, "its fill value is not 0", *where)
    if opened.box is None or not len(indices):
        return
    if opened.box.is_empty():
        outside = np.ones(len(indices), bool)
    else:
        outside = ((high <= np.array(opened.box.topleft)) | (low >= np.array(opened.box.bottomright))).any(1)
    if outside.any():
        cubes = np.unique(indices[outside], axis=0).tolist()
        grid = store.spec.grid
        boxes = [grid.cube_box(Vec3Int(cube)).from_mag_to_mag1(opened.mag) for cube in cubes]
        what = f"{_such_as(listed, outside)}; the box is {opened.box} in this mag"
        findings.add("cubes-outside-box", store.path, what, *where, boxes=merged_boxes(boxes))


def _such_as(listed: ListedMag, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> str:
    """Return how many files are chosen, and the first of them."""
    store, count = listed.opened.store, int(chosen.sum())
    path = store.cube_path(Vec3Int(listed.indices[int(chosen.argmax())].tolist()))
    name = os.path.relpath(path, store.path)
    return f"{count} of {len(chosen)} {'lies' if count == 1 else 'lie'} there, such as {name}"


def check_boxes(
    layer: OpenedLayer, mags: Sequence[ListedMag], others: BoundingBox | None, findings: Findings
) -> None:
    """Find a box that reaches beyond all cubes of the finest mag, and mags without cubes.

    Parameters
    ----------
    layer
        The layer.
    mags
        Its mags that could be listed, finest first.
    others
        The box around those of the dataset's other layers; None where there is none.
    findings
        Takes in what is found.
    """
    record = layer.record
    for listed in mags:
        if not len(listed.indices) and is_zero_filled(listed.opened.store) and not _is_empty(layer):
            findings.add("no-cubes", listed.opened.store.path, "it has none", record.name, listed.opened.mag)
    filled = [listed for listed in mags if len(listed.indices)]
    if not filled:
        return
    finest, union = filled[0], filled[0].union()
    if layer.box is None or layer.box.is_empty() or union is None or not is_zero_filled(finest.opened.store):
        return
    most = _beyond(layer.box, union)
    if not any(most):
        return
    cube = finest.opened.store.spec.shard_shape * finest.opened.mag.to_vec3_int()
    if record.is_segmentation:  # a few cells in the box of the whole image are as they should be
        most = Vec3Int.zeros() if others is None else most.pairmin(_beyond(layer.box, others))
    too_large = any(
        far >= side and _LARGE_PART * far >= whole
        for far, side, whole in zip(most, cube, layer.box.size, strict=True)
    )
    code = "box-too-large" if too_large else "box-sparse"
    what = f"the box is {layer.box}, the cubes of mag {finest.opened.mag} are in {union} (voxels of mag 1)"
    findings.add(code, finest.opened.store.path, what, record.name, finest.opened.mag)


def _beyond(box: BoundingBox, union: BoundingBox) -> Vec3Int:
    """Return how far a box reaches beyond another one along each axis, on the side where that is more."""
    before, after = union.topleft - box.topleft, box.bottomright - union.bottomright
    return before.pairmax(after).pairmax(0)


def _is_empty(layer: OpenedLayer) -> bool:
    """Return whether a layer says itself that it holds nothing."""
    return layer.box is not None and layer.box.is_empty()


# --- headers and indexes --------------------------------------------------------------------------------


def scan_job(listed: ListedMag) -> CheckJob:
    """Return the job that looks at the header and the index of every cube of a mag.

    Parameters
    ----------
    listed
        The mag.
    """
    store, places = listed.opened.store, listed.listing.places

    def call(unit: BoundingBox) -> tuple[object, ...]:
        first = unit.topleft.x * _BATCH
        return (scan_unit, store, places[first : first + _BATCH], unit)

    return CheckJob(
        label=f"{listed.opened.label}: cubes",
        action="scan",
        path=store.path,
        units=numbered(-(-len(places) // _BATCH)),
        call=call,
        cubes=len(places),
        nbytes=0,
    )


def scan_unit(store: StoredMag, places: Places, unit: BoundingBox) -> UnitReport:
    """Look at the headers and indexes of some files; the value is what is wrong with them.

    Parameters
    ----------
    store
        The mag.
    places
        The files.
    unit
        Which unit it is.
    """
    start = time.perf_counter()
    suspects, nbytes = scan_cubes(store, places)
    return ended(unit, start, cubes=len(places), file_nbytes=nbytes, value=suspects)


def note_suspects(suspects: Sequence[Suspect], opened: OpenedMag, findings: Findings) -> None:
    """Take in what is wrong with files of cubes."""
    for kind, path, what in suspects:
        code = {"mode": "no-permission", "damaged": "cube-damaged", "trailing": "cube-trailing"}[kind]
        findings.add(code, path, what, opened.layer.name, opened.mag)


def probe(listed: ListedMag, findings: Findings) -> None:
    """Decode a chunk of the first and the last cube of a mag: wrong codecs in its metadata show in any of them.

    Parameters
    ----------
    listed
        The mag.
    findings
        Takes in what is found.
    """
    store, indices = listed.opened.store, listed.indices
    for number in {0, len(indices) - 1} if len(indices) else ():
        index = Vec3Int(indices[number].tolist())
        try:
            store.read(BoundingBox(index * store.spec.shard_shape, store.spec.chunk_shape))
        except (WkdaskError, OSError) as error:
            note_suspects([suspect_of(store, index, error)], listed.opened, findings)


def suspect_of(store: StoredMag, index: Vec3Int, error: Exception) -> Suspect:
    """Return a cube that could not be read as what a scan of it would have found."""
    kind = "mode" if isinstance(error, PermissionError) else "damaged"
    return (kind, store.cube_path(index), str(error))
