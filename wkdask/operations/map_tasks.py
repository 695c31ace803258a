"""What a task of the batch form does: blocks are read around, the function is called, its results are published.

::

    unit      |.......|.......|         whole cubes, one task; read once, with its halo
    blocks    |...|...|...|...|         what the function gets, one after the other: a cube by default
    a block  <-|...|->                  with the halo, clipped or filled where the layer ends
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wkdask.errors import InvalidValueError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.grid import CubeGrid
from wkdask.jobs.job import Job, JobFolders, MagPlace
from wkdask.jobs.tasks import PlaceReport, Target, UnitReport, ended, note_landed, write_unit
from wkdask.operations.callables import Shipped
from wkdask.operations.halo import Boundary, read_around
from wkdask.storage.protocol import MagReader, Voxels
from wkdask.storage.publish.publish import landed_boxes

__all__ = [
    "MapOutput",
    "MapSource",
    "MapWork",
    "map_unit",
    "outputs_of",
    "record_unit",
    "scaled_box",
    "write_outputs",
]


@dataclass(frozen=True, slots=True)
class MapSource:
    """A mag that the function reads."""

    name: str | None
    """The function's keyword; None for its first argument."""
    store: MagReader
    """The mag."""
    mag: Mag
    """Its magnification."""
    valid: BoundingBox
    """What is there: the layer's box, absolute, in voxels of this mag."""
    halo: Vec3Int
    """Voxels of this mag around a block."""


@dataclass(frozen=True, slots=True)
class MapOutput:
    """A mag that the function's results go to."""

    name: str | None
    """The result's key; None where the function returns the block itself."""
    place: MagPlace
    """The mag."""
    target: Target
    """How it is written; the mag itself, or its staged twin."""
    staged: bool = False
    """Whether cubes are only built: they are published when all of the job's are."""


def outputs_of(job: Job, folders: JobFolders, names: Sequence[str | None]) -> tuple[MapOutput, ...]:
    """Return the mags of a job as outputs of its tasks; those that are replaced in place get private twins.

    Parameters
    ----------
    job
        The job.
    folders
        Its private folders.
    names
        The key of the result for each mag; None where a task has the block itself.
    """
    outputs = []
    for write, name in zip(job.writes, names, strict=True):
        folder = folders.of(write.store)
        store = write.store.staged(f"{folder}/staged") if write.in_place else write.store
        target = Target(store, folder, job.durable, job.verify)
        outputs.append(MapOutput(name, write.place, target, write.in_place))
    return tuple(outputs)


@dataclass(frozen=True, slots=True)
class MapWork:
    """What is done for each block; plain data, but for the function."""

    function: Shipped
    """The user's."""
    sources: tuple[MapSource, ...]
    """What it reads."""
    mag: Mag
    """In whose voxels units and blocks are cut: that of the first output, or else of the first source."""
    blocks: CubeGrid
    """What the function gets at a time, without the halo."""
    boundary: Boundary
    """How the halo is filled where a layer ends."""
    asks_box: bool
    """Whether the function wants to know its box."""

    def calls(self, unit: BoundingBox) -> Iterator[tuple[BoundingBox, list[BoundingBox], Any]]:
        """Yield (block without halo, what was read for it from each source, what the function returned)."""
        boxes = [box for _, box in self.blocks.pieces(unit)]
        whole = [self._read(source, unit) for source in self.sources]
        for box in boxes:
            parts = whole
            if len(boxes) > 1:
                parts = [
                    self._cut(source, *read, box) for source, read in zip(self.sources, whole, strict=True)
                ]
            first: list[Voxels] = []
            named: dict[str, Any] = {}
            for source, (block, _) in zip(self.sources, parts, strict=True):
                if source.name is None:
                    first.append(block)
                else:
                    named[source.name] = block
            if self.asks_box:
                named["box"] = box
            try:
                result = self.function(*first, **named)
            except Exception as error:
                error.add_note(f"for the block {box} (voxels of mag {self.mag})")
                raise
            yield box, [covered for _, covered in parts], result

    def around(self, source: MapSource, box: BoundingBox) -> BoundingBox:
        """Return what is read from a source for a box, halo included: in voxels of the source."""
        return scaled_box(box, self.mag, source.mag).padded_with_margins(source.halo)

    def _read(self, source: MapSource, box: BoundingBox) -> tuple[Voxels, BoundingBox]:
        return read_around(source.store, self.around(source, box), source.valid, self.boundary)

    def _cut(
        self, source: MapSource, whole: Voxels, covered: BoundingBox, box: BoundingBox
    ) -> tuple[Voxels, BoundingBox]:
        """Return a block out of what was read for the unit: a copy, since the function may change it."""
        part = self.around(source, box).intersection(covered)
        view = whole[(slice(None), *part.to_slices(covered.topleft))]
        return np.array(view, order="F"), part


def scaled_box(box: BoundingBox, from_mag: Mag, to_mag: Mag) -> BoundingBox:
    """Return a box of voxels of one mag in voxels of another, aligned outwards where that is coarser."""
    if from_mag == to_mag:
        return box
    return box.from_mag_to_mag1(from_mag).aligned_outwards(to_mag.to_vec3_int()).in_mag(to_mag)


def map_unit(work: MapWork, outputs: tuple[MapOutput, ...], unit: BoundingBox) -> UnitReport:
    """Call the function for the blocks of a unit, and publish what it returns.

    Parameters
    ----------
    work
        What is done.
    outputs
        Where it goes; the first is the job's own mag, whose voxels the unit counts.
    unit
        Absolute, in voxels of the first output.
    """
    start = time.perf_counter()
    boxes = [scaled_box(unit, work.mag, output.place.mag) for output in outputs]
    report = write_outputs(_results(work, outputs, boxes, unit), outputs, boxes)
    return replace(report, seconds=time.perf_counter() - start)


def write_outputs(
    blocks: Sequence[Voxels], outputs: Sequence[MapOutput], boxes: Sequence[BoundingBox]
) -> UnitReport:
    """Publish the blocks of a unit, each in its mag; the job's own mag, which is the first, comes last.

    Parameters
    ----------
    blocks
        ``(c, *box.size)``, one per output.
    outputs
        Where they go.
    boxes
        What each covers, in voxels of its mag.

    Raises
    ------
    ChannelError, DTypeError, InvalidValueError
        If a block is not what its mag holds. The error says what had been published by then.
    """
    others: list[PlaceReport] = []
    output = outputs[0]
    try:
        for output, box, block in list(zip(outputs, boxes, blocks, strict=True))[1:]:
            others.extend(_written(block, output, box).of_other_mag(*_key_of(output.place)).others)
        output = outputs[0]
        report = _written(blocks[0], output, boxes[0])
    except BaseException as error:
        landed = landed_boxes(error)
        own = output is outputs[0]
        if not own:
            none = (0, 0, None, None)
            others += [
                PlaceReport(output.place.dataset_path, output.place.layer, output.place.mag, box, 1, *none)
                for box in landed
            ]
        note_landed(error, landed if own else [], others)
        raise
    return replace(report, others=tuple(others))


def _written(block: Voxels, output: MapOutput, box: BoundingBox) -> UnitReport:
    """Write a block; if it is only built and not published, the report has no box."""
    report = write_unit(block, output.target, box)
    return replace(report, box=None, cubes=0, file_nbytes=0) if output.staged else report


def _key_of(place: MagPlace) -> tuple[str, str, Mag]:
    return (place.dataset_path, place.layer, place.mag)


def _results(
    work: MapWork, outputs: tuple[MapOutput, ...], boxes: list[BoundingBox], unit: BoundingBox
) -> list[Voxels]:
    """Return what the function makes of a unit, for each output."""
    whole: list[Voxels | None] = [None] * len(outputs)
    for box, covered, result in work.calls(unit):
        for number, (output, out_box) in enumerate(zip(outputs, boxes, strict=True)):
            core = scaled_box(box, work.mag, output.place.mag)
            block = _core_of(_named(result, output, outputs), core, covered, work, output)
            if core == out_box:
                whole[number] = block
                continue
            if (array := whole[number]) is None:
                # No value of a voxel is lost: a function that returns another type is refused when it is written.
                array = np.empty((block.shape[0], *out_box.size), block.dtype, order="F")
                whole[number] = array
            if array.dtype != block.dtype or array.shape[0] != block.shape[0]:
                raise InvalidValueError(
                    f"{work.function.function!r} returned {block.dtype} with {block.shape[0]} channel(s) for the "
                    f"block {box}, {array.dtype} with {array.shape[0]} for one before"
                )
            array[(slice(None), *core.to_slices(out_box.topleft))] = _in_order(block)
    return [block for block in whole if block is not None]


def _in_order(block: Voxels) -> Voxels:
    """Return a block that numpy copies row by row into one of the order of the files."""
    if block.strides[1] <= block.strides[3]:
        return block
    from wkdask.kernels import to_fortran

    turned: Voxels = to_fortran(block) if block.dtype != bool else np.asfortranarray(block)
    return turned


def _named(result: Any, output: MapOutput, outputs: tuple[MapOutput, ...]) -> Any:
    """Return what a function returned for an output."""
    if output.name is None:
        return result
    names = {str(other.name) for other in outputs}
    if not isinstance(result, Mapping) or result.keys() != names:
        got = f"the keys {sorted(map(str, result))}" if isinstance(result, Mapping) else type(result).__name__
        raise InvalidValueError(f"the function is to return a dict of blocks for {sorted(names)}, got {got}")
    return result[output.name]


def _core_of(
    block: Any, core: BoundingBox, covered: list[BoundingBox], work: MapWork, output: MapOutput
) -> Voxels:
    """Return a block ``(c, *core.size)``: the function may leave the halo on it.

    Parameters
    ----------
    block
        What the function returned.
    core
        What is wanted, in voxels of the output.
    covered
        What was read from each source, halo included, in voxels of each.
    work, output
        What is done, and where the block goes.
    """
    if not isinstance(block, np.ndarray) or block.ndim not in (3, 4):
        got = f"an array of shape {block.shape}" if isinstance(block, np.ndarray) else type(block).__name__
        raise InvalidValueError(
            f"the function is to return a numpy array (c, x, y, z) or (x, y, z) for {output.place.label}, got {got}"
        )
    voxels: Voxels = block if block.ndim == 4 else block[None]
    size = Vec3Int(voxels.shape[1:])
    if size == core.size:
        return voxels
    mag = output.place.mag.to_vec3_int()
    with_halo = []
    for source, box in zip(work.sources, covered, strict=True):
        box = box.from_mag_to_mag1(source.mag)
        if not any(box.topleft % mag) and not any(box.bottomright % mag):
            box = box.in_mag(output.place.mag)
            if box.size == size and box.contains_bbox(core):
                return voxels[(slice(None), *core.to_slices(box.topleft))]
            with_halo.append(f", or with the halo {box.size}")
    raise InvalidValueError(
        f"the function returned the shape {voxels.shape} for the block {core} of {output.place.label}; expected "
        f"(c, x, y, z) of {core.size} voxels{''.join(dict.fromkeys(with_halo))}"
    )


def record_unit(work: MapWork, unit: BoundingBox) -> UnitReport:
    """Call the function for the blocks of a unit; the report carries what it returned, in their order."""
    start = time.perf_counter()
    values = [result for _, _, result in work.calls(unit)]
    return ended(unit, start, value=values)
