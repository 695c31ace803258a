"""What the tasks of a pyramid do: read, shrink, assemble, publish, hand their half upwards.

A task that runs again, because the worker that held its half died, finds a note of its first run in the job's
folder: it takes the half from the cubes that it published then. A task whose parent has such a note hands up
nothing, because the parent will not look::

    note of     parent: read nothing, hand up nothing
                itself: read the cubes of its last level, shrink them
                none: do the work
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.jobs.tasks import PlaceReport, Target, UnitReport, ended, note_landed, publish_block
from wkdask.pyramid.levels import Level
from wkdask.pyramid.tree import Tier, TreeNode
from wkdask.pyramid.voxels import Half, Readable, Stored, Written, assembled, first_half, halved
from wkdask.storage.protocol import StoredMag, Voxels
from wkdask.storage.publish.assemble import publish_parts
from wkdask.storage.publish.jobs import of_living_job
from wkdask.storage.publish.locks import Attempt
from wkdask.storage.publish.publish import Piece, landed_boxes, publish_pieces

__all__ = ["TreeWork", "is_noted", "run_node"]


@dataclass(frozen=True, slots=True)
class TreeWork:
    """What all tasks of a tree share."""

    dataset_path: str
    """The dataset's folder."""
    layer: str
    """The layer's name."""
    mag: Mag
    """The job's own mag; what is written into others is reported beside it."""
    source: StoredMag
    """Level 0."""
    levels: tuple[Level, ...]
    """The levels."""
    tiers: tuple[Tier, ...]
    """The tiers."""
    tile: Vec3Int
    """Voxels of level 0 that a leaf reads at once."""
    mode: str
    """A mode of `wkdask.kernels.downsample`."""
    targets: tuple[Target, ...]
    """Where each level from 1 on is published."""
    staged: tuple[StoredMag | None, ...]
    """The private mags in which cubes come together in parts, one per level from 1 on."""
    folder: str
    """The job's private folder, for notes."""
    cut: str
    """Stands for how the tree is cut: the notes of a tree that is cut in another way are about other tasks."""
    writes: Target | None = None
    """Where leaves publish level 0 too, if they do: see `written`."""
    written: BoundingBox | None = None
    """What of level 0 the leaves publish, in its voxels. Each publishes what of it is in its cell, of whole cubes,
    and reads only the rest."""

    def unit_of(self, node: TreeNode) -> BoundingBox:
        """Return what a node is for, in voxels of the job's mag."""
        box = node.cell.from_mag_to_mag1(self.levels[0].mag)
        return box.aligned_outwards(self.mag.to_vec3_int()).in_mag(self.mag)


def run_node(
    work: TreeWork,
    node: TreeNode,
    halves: Sequence[Sequence[Half]],
    block: Callable[[], Voxels] | None = None,
) -> tuple[UnitReport, list[Half]]:
    """Run a task of the tree.

    Parameters
    ----------
    work
        What all tasks share.
    node
        Which one.
    halves
        What its children handed up.
    block
        For a leaf that writes: computes its voxels of level 0, ``(c, x, y, z)``; not called where they have been
        published.

    Returns
    -------
    UnitReport
        What it published: in the job's own mag, and in others.
    list of Half
        What it hands up.
    """
    start = time.perf_counter()
    run = _Run(work, node)
    with of_living_job(work.folder):
        if node.parent is not None and _noted(work, node.parent) is not None:
            return run.report(_noted(work, node.key) or [], start), []
        places = _noted(work, node.key)
        if places is not None:
            return run.report(places, start), run.halves_again()
        try:
            if block is not None:
                run.write(block())
            elif run.must_write:
                # The driver leaves voxels out where there is a note: this host does not see it.
                raise RuntimeError(f"{node.key}: the note of an earlier run in {work.folder} is gone")
            handed = run.publish() if node.publishes is not None else run.compute(halves)
        except BaseException as error:
            run.note_landed(error)
            raise
        if run.places:
            _note(work, node.key, run.places)
        return run.report(run.places, start), handed


class _Run:
    """One task on its way."""

    def __init__(self, work: TreeWork, node: TreeNode) -> None:
        self.source: Readable = Stored(work.source)
        self.work, self.node, self.tier = work, node, work.tiers[node.tier]
        self.places: list[PlaceReport] = []
        self._attempt = Attempt(f"{work.levels[0].mag}-{node.key}")
        self._level: int | None = None  # which one is being published

    @property
    def must_write(self) -> bool:
        """Whether some of the node's voxels of level 0 are to be written."""
        written = self.work.written
        return (
            self.node.tier == 0
            and self.node.publishes is None
            and written is not None
            and (not written.intersection(self.node.cell).is_empty())
        )

    def write(self, block: Voxels) -> None:
        """Publish the voxels of level 0 that the node was given; from then on they are not read."""
        target, written = self.work.writes, self.work.written
        if target is None or written is None:  # a node that has voxels has a place for them
            raise RuntimeError(f"{self.node.key} has voxels, and no place for them")
        box = written.intersection(self.node.cell)
        self._level = 0
        report, block = publish_block(block, target, box, self._attempt)
        self._add(0, [box], report.cubes, report.file_nbytes, report.minimum, report.maximum)
        is_empty = report.minimum == 0 == report.maximum
        self.source = Written(self.work.source, box, None if is_empty else block)

    def compute(self, halves: Sequence[Sequence[Half]]) -> list[Half]:
        """Make the node's levels one after the other, store each, return what goes up."""
        first, last = self.tier.first, self.tier.last
        if self.node.tier == 0:
            parts = self._first_halves()
        else:
            level = self.work.levels[first]
            wanted = [level.within(box) for box in self.node.boxes]
            parts = [assembled(box, [half for handed in halves for half in handed], level) for box in wanted]
        for number in range(first, last + 1):
            self._store(number, parts)
            if number < last or self.node.parent is not None:
                parts = [self._halved(half, number + 1) for half in parts]
        return [] if self.node.parent is None else _without_zeros(parts)

    def _first_halves(self) -> list[Half]:
        """Return level 1 of a leaf."""
        source, level = self.work.levels[:2]
        tile, mode = self.work.tile, self.work.mode
        return [first_half(self.source, source, level, box, tile, mode) for box in self.node.boxes]

    def halves_again(self) -> list[Half]:
        """Return what goes up, from the cubes that an earlier run stored."""
        if self.node.parent is None:
            return []
        number = self.tier.last
        if number == 0:  # a leaf that has published nothing but what it wrote
            return _without_zeros(self._first_halves())
        level = self.work.levels[number]
        private = self.work.staged[number - 1] if number in self.tier.staged else None
        store = private or self.work.targets[number - 1].store
        boxes = [level.within(box) for box in self.node.boxes]
        return [self._halved((box, store.read(box)), number + 1) for box in boxes]

    def _halved(self, half: Half, number: int) -> Half:
        return halved(half, self.work.levels[number].factors, self.work.mode)

    def _store(self, number: int, parts: Sequence[Half]) -> None:
        """Publish the voxels of a level, or write them to where its cubes come together."""
        from wkdask.kernels import MinMax

        level, target = self.work.levels[number], self.work.targets[number - 1]
        private = self.work.staged[number - 1]
        if number in self.tier.staged and private is not None:
            for box, block in parts:
                if block is not None:
                    private.write_in_place(box, block, durable=target.durable)
            return
        self._level = number
        min_max = MinMax(level.spec.dtype)
        pieces: dict[Vec3Int, Piece] = {}
        for box, block in parts:
            voxels = _zeros(level, box) if block is None else block
            for index, piece in level.spec.grid.pieces(box):
                view = voxels[(slice(None), *piece.to_slices(box.topleft))]
                if index in pieces:
                    pieces[index] = replace(pieces[index], more=(*pieces[index].more, (piece, view)))
                else:
                    pieces[index] = Piece(index, piece, view)
        file_nbytes = publish_pieces(
            target.store,
            target.folder,
            list(pieces.values()),
            durable=target.durable,
            verify=target.verify,
            attempt=self._attempt,
            min_max=min_max,
        )
        boxes = [box for box, _ in parts]
        self._add(number, boxes, len(pieces), file_nbytes, *(min_max.values or (None, None)))

    def publish(self) -> list[Half]:
        """Publish a cube whose parts are all there."""
        number = self.node.publishes or 0
        level, target, private = (
            self.work.levels[number],
            self.work.targets[number - 1],
            self.work.staged[number - 1],
        )
        if private is None:  # a plan that stages a level has a private mag for it
            raise RuntimeError(f"level {number} has no private mag")
        self._level = number
        boxes = [level.within(box) for box in self.node.boxes]
        file_nbytes = publish_parts(
            target.store,
            private,
            target.folder,
            boxes[0].topleft // level.spec.shard_shape,
            boxes,
            durable=target.durable,
            attempt=self._attempt,
        )
        self._add(number, boxes, 1, file_nbytes, None, None)
        return []

    def _add(
        self,
        number: int,
        boxes: Sequence[BoundingBox],
        cubes: int,
        file_nbytes: int,
        minimum: int | float | None,
        maximum: int | float | None,
    ) -> None:
        """Remember what was published."""
        level = self.work.levels[number]
        union = boxes[0]
        for box in boxes[1:]:
            union = union.extended_by(box)
        self.places.append(
            PlaceReport(
                dataset_path=self.work.dataset_path,
                layer=self.work.layer,
                mag=level.mag,
                box=union,
                cubes=cubes,
                nbytes=sum(box.volume() for box in boxes) * level.spec.bytes_per_voxel,
                file_nbytes=file_nbytes,
                minimum=minimum,
                maximum=maximum,
            )
        )

    def report(self, places: Sequence[PlaceReport], start: float) -> UnitReport:
        """Return what the driver gets."""
        others = tuple(place for place in places if place.mag != self.work.mag)
        report = ended(self.work.unit_of(self.node), start, others=others)
        own = next((place for place in places if place.mag == self.work.mag), None)
        if own is None:
            return report
        return replace(
            report,
            box=own.box,
            cubes=own.cubes,
            nbytes=own.nbytes,
            file_nbytes=own.file_nbytes,
            minimum=own.minimum,
            maximum=own.maximum,
        )

    def note_landed(self, error: BaseException) -> None:
        """Let an error say what had been published before it."""
        landed = landed_boxes(error)
        if landed and self._level is not None:
            self._add(self._level, landed, len(landed), 0, None, None)
        own = [place.box for place in self.places if place.mag == self.work.mag]
        note_landed(error, own, [place for place in self.places if place.mag != self.work.mag])


def _zeros(level: Level, box: BoundingBox) -> Voxels:
    """Return zeros that take no memory."""
    return np.broadcast_to(np.zeros((), level.spec.dtype), (level.spec.num_channels, *box.size))


def _without_zeros(parts: Sequence[Half]) -> list[Half]:
    """Return halves of which those that hold zeros only take no memory."""
    from wkdask.kernels import is_zero

    return [(box, None if block is None or is_zero(block) else block) for box, block in parts]


# --- notes ----------------------------------------------------------------------------------------------


def _note_path(work: TreeWork, key: str) -> str:
    return f"{work.folder}/done-{work.cut}-{work.levels[0].mag}-{key}"


def is_noted(work: TreeWork, node: TreeNode) -> bool:
    """Return whether an earlier run of a task, or of its parent, has left a note."""
    keys = [node.key] if node.parent is None else [node.key, node.parent]
    return any(os.path.exists(_note_path(work, key)) for key in keys)


def _note(work: TreeWork, key: str, places: Sequence[PlaceReport]) -> None:
    """Note in the job's folder what a task has published."""
    content = [
        [str(place.mag), place.box.to_tuple6(), place.cubes, place.nbytes, place.file_nbytes]
        + [place.minimum, place.maximum]
        for place in places
    ]
    path = _note_path(work, key)
    temporary = f"{path}.{uuid.uuid4().hex[:8]}"
    with open(temporary, "x") as file:
        json.dump(content, file)
    os.replace(temporary, path)


def _noted(work: TreeWork, key: str) -> list[PlaceReport] | None:
    """Return what an earlier run of a task has published; None where there was none."""
    try:
        with open(_note_path(work, key)) as file:
            content = json.load(file)
    except (FileNotFoundError, ValueError):  # half of one, if the machine went down just then
        return None
    return [
        PlaceReport(work.dataset_path, work.layer, Mag(mag), BoundingBox.from_tuple6(box), *numbers)
        for mag, box, *numbers in content
    ]
