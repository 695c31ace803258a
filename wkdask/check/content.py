"""The rules of voxels: every cube is decoded, its largest id and what lies outside of the layer's box are noted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wkdask.check.cubes import ListedMag, note_suspects, suspect_of
from wkdask.check.findings import Findings
from wkdask.check.jobs import CheckJob, numbered
from wkdask.check.opened import OpenedLayer, OpenedMag
from wkdask.errors import WkdaskError
from wkdask.geometry import EMPTY_BOX, BoundingBox, Vec3Int
from wkdask.jobs.tasks import UnitReport, ended
from wkdask.storage.checksums import require_sound
from wkdask.storage.listing import Places, Suspect
from wkdask.storage.parallel import tiles
from wkdask.storage.protocol import StoredMag

__all__ = ["Decoded", "check_decoded", "check_segment_id", "decode_job", "nonzero_part"]

_UNIT_NBYTES = 64 << 20
"""Voxels of small cubes that a task decodes; of a large one it decodes all."""
_TILE_NBYTES = 16 << 20
"""Voxels that a task holds at once."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came of decoding some cubes."""

    suspects: tuple[Suspect, ...] = ()
    """Cubes that cannot be decoded."""
    maximum: int | None = None
    """The largest voxel in the layer's box; of images it is not asked for."""
    outside: BoundingBox = EMPTY_BOX
    """The box around voxels beside the layer's box that are not zero, in voxels of the mag."""
    nbytes: int = 0
    """Bytes of the voxels."""

    def merged(self, other: Decoded) -> Decoded:
        """Return what came of both."""
        known = [each for each in (self.maximum, other.maximum) if each is not None]
        return Decoded(
            (*self.suspects, *other.suspects),
            max(known, default=None),
            self.outside.extended_by(other.outside),
            self.nbytes + other.nbytes,
        )


def decode_job(listed: ListedMag) -> CheckJob:
    """Return the job that decodes every cube of a mag.

    Parameters
    ----------
    listed
        The mag.
    """
    opened, store = listed.opened, listed.opened.store
    places = np.unique(listed.indices, axis=0)
    batch = max(1, _UNIT_NBYTES // store.spec.cube_nbytes)
    # Of coarser mags what lies outside is of no consequence: the finest one says where there are voxels.
    wanted = (opened.layer.is_segmentation and np.dtype(store.spec.dtype).kind in "ui", listed.is_finest)

    def call(unit: BoundingBox) -> tuple[object, ...]:
        first = unit.topleft.x * batch
        return (decode_unit, store, places[first : first + batch], opened.box, wanted, unit)

    return CheckJob(
        label=f"{opened.label}: voxels",
        action="decode",
        path=store.path,
        units=numbered(-(-len(places) // batch)),
        call=call,
        cubes=len(places),
        nbytes=len(places) * store.spec.cube_nbytes,
    )


def decode_unit(
    store: StoredMag, places: Places, box: BoundingBox | None, wanted: tuple[bool, bool], unit: BoundingBox
) -> UnitReport:
    """Decode some cubes; the value is a `Decoded`.

    Parameters
    ----------
    store
        The mag.
    places
        Indices of the cubes.
    box
        The layer's box in voxels of the mag; None where it is not known.
    wanted
        Whether the largest voxel is asked for, and whether what lies outside of the box.
    unit
        Which unit it is.
    """
    start, total = time.perf_counter(), Decoded()
    for place in places.tolist():
        total = total.merged(_decoded(store, Vec3Int(place), box, *wanted))
    return ended(unit, start, cubes=len(places), nbytes=total.nbytes, value=total)


def _decoded(
    store: StoredMag, index: Vec3Int, box: BoundingBox | None, counts_ids: bool, looks_outside: bool
) -> Decoded:
    """Decode a cube, tile by tile."""
    from wkdask.kernels import nonzero_bounds

    spec, corner = store.spec, index * store.spec.shard_shape
    maximum, outside, nbytes = None, EMPTY_BOX, 0
    try:
        require_sound(store, index, from_disk=True)
        for part in tiles(spec, BoundingBox((0, 0, 0), spec.shard_shape), _TILE_NBYTES):
            tile = part.offset(corner)
            voxels = store.read(tile)
            nbytes += voxels.nbytes
            inside = tile if box is None else tile.intersection(box)
            if counts_ids and not inside.is_empty():
                seen = voxels[(slice(None), *inside.to_slices(tile.topleft))]
                maximum = max(int(seen.max()), maximum or 0)
            if looks_outside and inside != tile:
                bounds = nonzero_bounds(voxels)
                there = None if bounds is None else BoundingBox.from_corners(*bounds).offset(tile.topleft)
                if there is not None and not inside.contains_bbox(there):
                    outside = outside.extended_by(there)
    except (WkdaskError, OSError) as error:
        return Decoded((suspect_of(store, index, error),), maximum, outside, nbytes)
    return Decoded((), maximum, outside, nbytes)


def check_decoded(opened: OpenedMag, decoded: Decoded, findings: Findings) -> None:
    """Take in what came of decoding a mag.

    Parameters
    ----------
    opened
        The mag.
    decoded
        What came of all its cubes.
    findings
        Takes in what is wrong.
    """
    note_suspects(decoded.suspects, opened, findings)
    layer, path = opened.layer, opened.store.path
    if not decoded.outside.is_empty() and opened.box is not None:
        box = decoded.outside.from_mag_to_mag1(opened.mag)
        what = f"there are some in {decoded.outside}; the box is {opened.box} (voxels of this mag)"
        findings.add("voxels-outside-box", path, what, layer.name, opened.mag, boxes=[box])


def check_segment_id(
    layer: OpenedLayer, path: str, maximum: int | None, has_cubes: bool, findings: Findings
) -> None:
    """Find a largest segment id that is not known, or smaller than one that is there.

    Parameters
    ----------
    layer
        The layer.
    path
        Its folder.
    maximum
        The largest id in its mags; None where they were not decoded.
    has_cubes
        Whether there is a cube at all.
    findings
        Takes in what is wrong.
    """
    record = layer.record
    known = record.largest_segment_id
    if not (record.is_segmentation and has_cubes):
        return
    if known is None:
        told = "" if maximum is None else f"; the largest id is {maximum}"
        findings.add(
            "segment-id-missing", path, f"largestSegmentId is not there{told}", record.name, value=maximum
        )
    elif known < 0:
        findings.add("segment-id-too-small", path, f"largestSegmentId is {known}", record.name, value=maximum)
    elif maximum is not None and maximum > known:
        what = f"the largest id is {maximum}, largestSegmentId is {known}"
        findings.add("segment-id-too-small", path, what, record.name, value=maximum)


def nonzero_part(store: StoredMag, boxes: Sequence[BoundingBox]) -> BoundingBox:
    """Return the box around the voxels of some cubes that are not zero.

    Parameters
    ----------
    store
        The mag.
    boxes
        Whole cubes, in voxels of the mag.
    """
    from wkdask.kernels import nonzero_bounds

    found = EMPTY_BOX
    for box in boxes:
        for _, cube in store.spec.grid.pieces(box):
            for part in tiles(store.spec, BoundingBox((0, 0, 0), cube.size), _TILE_NBYTES):
                tile = part.offset(cube.topleft)
                bounds = None if store.is_empty(tile) else nonzero_bounds(store.read(tile))
                if bounds is not None:
                    found = found.extended_by(BoundingBox.from_corners(*bounds).offset(tile.topleft))
    return found
