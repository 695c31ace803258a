"""Connected components of a whole layer, as a job: labelled block by block, joined across the faces by the driver.

::

    1. label     every task labels its block on its own: 1, 2, … in each; kept in the job's private folder
    2. survey    every task reads its labels and the layer of voxels before its low faces: which pairs touch,
                 and where each component has its first voxel
       join      the driver joins the pairs and numbers what is left by the first voxels
    3. relabel   every task writes its block with the final ids

The ids do not depend on how the work was cut: they are those of `scipy.ndimage.label` for the whole volume. They
are integers all the way, exact up to 2**64 - 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.errors import ChannelError, DTypeError, InvalidValueError, PlanError, ReadOnlyError
from wkdask.geometry import BoundingBox, Vec3Int, Vec3IntLike, as_box
from wkdask.jobs.driver import run_planned
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.events import Event, UnitDone, WriteReport
from wkdask.jobs.job import Job, JobFolders, WriteOptions
from wkdask.jobs.plan import WritePlan, plan_again, plan_write
from wkdask.jobs.resume import identify, previous_manifest
from wkdask.jobs.tasks import Target, UnitReport, ended, write_unit
from wkdask.jobs.windows import Stage, call_windows, stream_of
from wkdask.mag_view import MagView
from wkdask.operations.callables import Shipped, call_name
from wkdask.operations.halo import read_around
from wkdask.progress.bar import ProgressLike, listeners_for
from wkdask.storage.protocol import StoredMag, Voxels

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Components", "label_components"]

_IdArray = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True)
class Components:
    """What was found."""

    count: int
    """Components; their ids follow each other without gaps."""
    report: WriteReport
    """What was written."""


def label_components(
    source: MagView,
    target: MagView,
    *,
    where: Callable[[Voxels], Any] | None = None,
    connectivity: int = 6,
    by_value: bool = False,
    halo: Vec3IntLike | int = 0,
    first_id: int = 1,
    bounding_box: BoundingBox | None = None,
    client: Client | None = None,
    durable: bool = True,
    task_memory: int | None = None,
    resume: bool = False,
    job: str | None = None,
    retries: int | None = None,
    progress: ProgressLike = None,
) -> Components:
    """Give every connected component of a layer an id of its own.

    Parameters
    ----------
    source
        What is labelled, one channel.
    target
        Where the ids go: another mag, of the same magnification and an unsigned type.
    where
        Called with a block ``(c, x, y, z)``, also of several channels; returns an array ``(x, y, z)`` or
        ``(1, x, y, z)`` that is true where a voxel belongs to a component. By default that is where it is not zero.
    connectivity
        6: neighbours share a face; 18: or an edge; 26: or a corner.
    by_value
        Whether neighbours belong together only where their voxels are equal, as in a segmentation; not with
        `where`.
    halo
        Voxels around the blocks that `where` gets; beyond the layer's box they are clipped, and what it returns may
        have the halo on it.
    first_id
        The id of the first component: the one whose first voxel has the least x, then y, then z. The others follow
        in that order.
    bounding_box
        Absolute, in voxels of mag 1; the layer's box by default. Outside of it nothing is connected.
    client, durable, task_memory, resume, job, retries, progress
        As in :meth:`MagView.map_cubes`.

    Returns
    -------
    Components
        Their number, and the report.

    Raises
    ------
    DTypeError
        If the target's type is no unsigned integer, or too small for the ids.
    InvalidValueError
        If the mags differ, or an option is none that there is.
    PlanError
        If source and target are one mag, or a block does not fit in memory.

    Notes
    -----
    The driver holds 24 bytes per component of a block, and 16 per pair that touches across a face.

    Examples
    --------
    >>> ids = ds.add_layer("components", "segmentation", dtype_per_channel="uint32").add_mag(1, shard_shape=32)
    >>> found = label_components(mag, ids, where=lambda block: (block < 20) | (block > 110))
    >>> isinstance(found, Components), found.count
    (True, 2)
    """
    from wkdask.kernels import CONNECTIVITIES

    if connectivity not in CONNECTIVITIES:
        raise InvalidValueError(
            f"connectivity is 6 (faces), 18 (or edges) or 26 (or corners), got {connectivity!r}"
        )
    _check(source, target, where, by_value, first_id)
    box = (source.bounding_box if bounding_box is None else as_box(bounding_box)).in_mag(target.mag)
    place = target.place
    if box.is_empty():
        raise PlanError(f"{place.label}: there is nothing to label, the box {box} holds no voxel")
    options = WriteOptions(
        client=client, durable=durable, task_memory=task_memory, resume=resume, job=job, retries=retries,
        listeners=listeners_for(progress),
    )  # fmt: skip
    margin = Vec3Int.from_scalar_or_vec(halo)
    engine = pick_engine(client, retries)
    what = call_name(where) if where is not None and job is None else "nonzero"
    name = f"components-{connectivity}{'-by-value' * by_value}-from-{first_id}-of-{what}-{margin}"
    if job is None:
        read = box.padded_with_margins(margin).intersection(source.box.extended_by(box))
        name = f"{name}-{source.place.store.fingerprint(read)}"
    identity = identify(place, box, name, options, name="components")
    previous = previous_manifest(place, box, identity, options)
    spec = place.store.spec
    if previous is not None:
        plan = plan_again(spec, box, previous.unit)
    else:
        plan = plan_write(
            spec, box, threads=engine.threads, memory=engine.task_memory(), task_memory=task_memory
        )
    blocks = _Blocks(
        source.place.store, source.box.extended_by(box), None if where is None else Shipped(where), margin, plan,
        connectivity, by_value,
    )  # fmt: skip
    join = _Join(plan, first_id, np.dtype(spec.dtype))
    the_job = Job.of(
        place,
        plan,
        "labelling",
        options,
        identity=identity,
        reads=[source.place.store],
        builds_first=True,
    )
    report = run_planned(
        the_job,
        lambda folders: _stages(the_job, blocks, join, folders),
        engine,
        [*options.listeners, join.take],
    )
    if report.was_finished:
        count = max(0, int(report.maximum or 0) - first_id + 1)  # ids are given one after the other
        return Components(count, report)
    return Components(join.count, report)


def _check(
    source: MagView, target: MagView, where: Callable[[Voxels], Any] | None, by_value: bool, first_id: int
) -> None:
    """Refuse what cannot be labelled."""
    if target.read_only:
        raise ReadOnlyError(f"{target.place.label} is read-only: {target.place.read_only}")
    if np.dtype(target.spec.dtype).kind != "u":
        raise DTypeError(
            f"{target.place.label} holds {target.spec.dtype}; ids need an unsigned integer, best uint64"
        )
    if target.num_channels != 1 or (where is None and source.num_channels != 1):
        raise ChannelError(
            f"components are labelled in one channel; {source.place.label} has {source.num_channels}, "
            f"{target.place.label} has {target.num_channels}"
        )
    if source.mag != target.mag:
        raise InvalidValueError(f"the source is of mag {source.mag}, the target of mag {target.mag}")
    if source.path == target.path:
        raise PlanError(f"{target.place.label} is source and target; write the ids into a new layer")
    if by_value and where is not None:
        raise InvalidValueError("give either where= or by_value=True")
    if first_id < 1 or first_id != int(first_id):
        raise InvalidValueError(
            f"the first id is 1 or more, since 0 is outside of all components; got {first_id}"
        )


@dataclass(frozen=True, slots=True)
class _Blocks:
    """What tasks need to know of the source and of how it is cut."""

    source: StoredMag
    """What is labelled."""
    valid: BoundingBox
    """Where there are voxels for the halo."""
    where: Shipped | None
    """Which voxels belong to components."""
    halo: Vec3Int
    """Around what `where` gets."""
    plan: WritePlan
    """The blocks are its units."""
    connectivity: int
    """Neighbours of a voxel."""
    by_value: bool
    """Whether only equal neighbours belong together."""

    def voxels(self, box: BoundingBox) -> Voxels:
        """Return what is labelled of a box, ``(x, y, z)``."""
        if self.where is None:
            voxels: Voxels = self.source.read(box)[0]
            return voxels
        block, covered = read_around(self.source, box.padded_with_margins(self.halo), self.valid, "clip")
        found = np.asarray(self.where(block))
        found = found[0] if found.ndim == 4 and found.shape[0] == 1 else found
        if found.shape == tuple(covered.size):
            found = found[box.to_slices(covered.topleft)]
        if found.shape != tuple(box.size):
            raise InvalidValueError(
                f"where() returned an array of shape {found.shape} for a block of {box.size} voxels"
            )
        belongs: Voxels = found != 0
        return belongs


def _stages(job: Job, blocks: _Blocks, join: _Join, folders: JobFolders) -> list[Stage]:
    """Return the three stages; the driver joins when the third begins."""
    plan, folder = job.plan, folders.main
    staged = job.store.staged(f"{folder}/staged")
    private = Target(staged, folder, job.durable)
    target = Target(job.store, folder, job.durable)
    first, last = stream_of(plan, 0), stream_of(plan, 1)
    label = call_windows(plan, folder, "label", lambda box: (label_unit, blocks, private, box), first)
    # Of no stream: what it reports to the driver is not in the journal, and reading it again costs little.
    survey = call_windows(plan, folder, "survey", lambda box: (survey_unit, blocks, staged, box))
    relabel = call_windows(
        plan, folder, "relabel", lambda box: (relabel_unit, staged, target, join.ids_of(box), box), last
    )
    return [
        Stage(len(first), label, (first,)),
        Stage(len(first), survey),
        Stage(len(last), relabel, (last,)),
    ]


def label_unit(blocks: _Blocks, target: Target, box: BoundingBox) -> UnitReport:
    """Label a block on its own, into the job's private mag."""
    from wkdask.kernels import label_block

    labels, firsts = label_block(blocks.voxels(box), blocks.connectivity, by_value=blocks.by_value)
    dtype = np.dtype(target.store.spec.dtype)
    if len(firsts) > np.iinfo(dtype).max:
        raise DTypeError(f"{len(firsts)} components in the block {box} are too many for {dtype}; use uint64")
    report = write_unit(labels.astype(dtype, order="F")[None], target, box)
    # Not what the job writes in the end: its bytes and min/max are those of the last stage.
    return replace(report, box=None, cubes=0, nbytes=0, file_nbytes=0, minimum=None, maximum=None)


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the driver learns of a block."""

    firsts: _IdArray
    """For each of its labels, where in the whole box its first voxel is: the larger x first, then y, then z."""
    pairs: _IdArray
    """``(n, 2)``: labels that touch across the block's low faces, each as block number × block volume + label."""


def survey_unit(blocks: _Blocks, staged: StoredMag, box: BoundingBox) -> UnitReport:
    """Find the first voxels of a block's components, and which of them touch those of blocks before it."""
    from wkdask.kernels import first_places

    start = time.perf_counter()
    labels = staged.read(box)[0]
    whole = blocks.plan.box
    x, rest = np.divmod(first_places(labels), np.uint64(box.size.y * box.size.z))
    y, z = np.divmod(rest, np.uint64(box.size.z))
    dx, dy, dz = (np.uint64(n) for n in box.topleft - whole.topleft)
    firsts: Any = (z + dz) + np.uint64(whole.size.z) * ((y + dy) + np.uint64(whole.size.y) * (x + dx))
    pairs = [_touching(blocks, staged, box, axis) for axis in range(3)]
    value = _Survey(firsts, np.unique(np.concatenate(pairs), axis=0))
    return ended(box, start, value=value)


def _touching(blocks: _Blocks, staged: StoredMag, box: BoundingBox, axis: int) -> _IdArray:
    """Return the pairs of labels that touch across a low face of a block.

    ::

        before   . . . . . . .      one layer, one voxel wider than the block on all sides
        inside     o o o o o        the block's first layer: each voxel o has up to 9 neighbours before it
    """
    from wkdask.kernels import CONNECTIVITIES

    whole, none = blocks.plan.box, np.empty((0, 2), np.uint64)
    if box.topleft[axis] == whole.topleft[axis]:
        return none
    one = Vec3Int(*(int(n == axis) for n in range(3)))
    inside = BoundingBox(box.topleft, [1 if n == axis else side for n, side in enumerate(box.size)])
    before = inside.offset(-one).padded_with_margins(one * -1 + 1).intersection(whole)
    own, other = (_numbered(blocks, staged, part) for part in (inside, before))
    mine, yours = (blocks.voxels(part) for part in (inside, before)) if blocks.by_value else (own, other)
    reach = CONNECTIVITIES[blocks.connectivity] - 1
    pairs = [none]
    for step in np.ndindex(3, 3, 3):
        shift = Vec3Int(*(int(n) - 1 for n in step))
        if shift[axis] or sum(map(abs, shift)) > reach:
            continue
        there = inside.offset(shift - one).intersection(before)
        here_ = there.offset(one - shift)
        a, b = here_.to_slices(inside.topleft), there.to_slices(before.topleft)
        touch = (own[a] != 0) & (other[b] != 0)
        if blocks.by_value:
            touch &= mine[a] == yours[b]
        pairs.append(np.unique(np.stack([other[b][touch], own[a][touch]], axis=1), axis=0))
    return np.concatenate(pairs)


def _numbered(blocks: _Blocks, staged: StoredMag, box: BoundingBox) -> _IdArray:
    """Return the labels of a box, each as block number × block volume + label; 0 stays 0."""
    grid = blocks.plan.unit
    first, shape = blocks.plan.units.start, blocks.plan.units.shape
    x, y, z = (
        np.arange(low, high, dtype=np.int64) // side - start
        for low, high, side, start in zip(box.topleft, box.bottomright, grid.shape, first, strict=True)
    )
    number = (x[:, None, None] + shape.x * (y[:, None] + shape.y * z)).astype(np.uint64)
    labels = staged.read(box)[0].astype(np.uint64)
    numbered: _IdArray = np.where(labels != 0, number * np.uint64(grid.shape.prod()) + labels, np.uint64(0))
    return numbered


def relabel_unit(staged: StoredMag, target: Target, ids: _IdArray, box: BoundingBox) -> UnitReport:
    """Write a block with its final ids, those of the labels 1, 2 and so on."""
    table = np.concatenate([np.zeros(1, np.uint64), ids]).astype(target.store.spec.dtype)
    labels = staged.read(box)
    return write_unit(np.take(table, labels.T.astype(np.intp)).T, target, box)


@dataclass(slots=True)
class _Join:
    """The driver's part: collects what the surveys found, joins it, gives the final ids."""

    plan: WritePlan
    first_id: int
    dtype: np.dtype[Any]
    count: int = 0
    """Components in the end."""
    _surveys: dict[int, _Survey] = field(default_factory=dict)
    _starts: np.ndarray[Any, np.dtype[np.int64]] | None = None
    _ids: _IdArray | None = None

    def take(self, event: Event) -> None:
        """Keep what a survey found; a listener of the job."""
        if isinstance(event, UnitDone) and isinstance(event.report.value, _Survey):
            stream = stream_of(self.plan, 0)
            self._surveys[stream.number_of(event.report.unit)] = event.report.value

    def ids_of(self, box: BoundingBox) -> _IdArray:
        """Return the final ids of the labels 1, 2, … of a block."""
        if self._ids is None or self._starts is None:
            self._starts, self._ids = self._joined()
        number = stream_of(self.plan, 0).number_of(box)
        return self._ids[self._starts[number] : self._starts[number + 1]]

    def _joined(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], _IdArray]:
        """Return where the ids of each block begin, and all of them."""
        from wkdask.kernels import merge_pairs

        surveys = [self._surveys.pop(number) for number in range(len(self.plan.units))]
        starts = np.concatenate([[0], np.cumsum([len(survey.firsts) for survey in surveys])]).astype(np.int64)
        firsts = np.concatenate([survey.firsts for survey in surveys])
        numbered = np.concatenate([survey.pairs for survey in surveys])
        del surveys
        # A label of a block is 1 or more, and at most the block's volume: hence the 1 that is taken away and added.
        volume = np.uint64(self.plan.unit.shape.prod())
        block, label = np.divmod(numbered - np.uint64(1), volume)
        pairs = starts[block.astype(np.int64)] + label.astype(np.int64)
        roots = merge_pairs(np.arange(len(firsts), dtype=np.int64), pairs)
        least = firsts.copy()
        np.minimum.at(least, roots, firsts)
        own = np.flatnonzero(roots == np.arange(len(roots)))
        self.count = len(own)
        last = self.first_id + self.count - 1
        if self.count and last > np.iinfo(self.dtype).max:
            raise DTypeError(
                f"{self.count} components from id {self.first_id} on are too many for {self.dtype}"
            )
        ranks = np.empty(len(roots), np.uint64)
        ranks[own[np.argsort(least[own], kind="stable")]] = np.arange(self.count, dtype=np.uint64)
        return starts, ranks[roots] + np.uint64(self.first_id)
