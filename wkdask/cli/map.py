"""``wkdask map``: a function of a module for every cube of a layer, from a shell or a batch script."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from wkdask.cli.functions import function_name, function_of
from wkdask.cli.options import shared_command
from wkdask.cli.run import Run
from wkdask.cli.types import BOUNDARY, BYTES, CATEGORY, DTYPE, MAG, NEW_LAYER, PART, RESOURCE, Numbers
from wkdask.errors import AlreadyExistsError, InvalidValueError, UnsupportedFormatError

if TYPE_CHECKING:
    from wkdask import MagView
    from wkdask.geometry import BoundingBox, Mag
    from wkdask.operations.write import PlannedWrite
    from wkdask.storage.protocol import ArraySpec

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Request:
    """What the command's own options say."""

    function: str
    """``module:function``."""
    source: str
    """The dataset that is read."""
    target: str
    """The dataset that is written."""
    target_layer: str
    """The layer of it."""
    target_mag: Mag | None
    """The mag of that; as the one that is read where nothing was said."""
    dtype: str | None
    """Of a new layer."""
    category: str | None
    """Of a new layer."""
    halo: tuple[int, int, int]
    """Voxels around a block."""
    boundary: str | int | float
    """How the halo is filled."""
    part: tuple[int, int] | None
    """Which of how many drivers this is."""
    retries: int | None
    """How often a task that failed is tried again."""
    task_memory: int | None
    """Bytes that a task needs."""
    resources: tuple[tuple[str, float], ...]
    """What a task occupies of a worker."""


@shared_command(
    "map",
    "layers",
    "mags",
    "bbox",
    "data_format",
    "shard_shape",
    "chunk_shape",
    "compression",
    "resume",
    "overwrite",
    "dry_run",
)
@click.argument("function", metavar="MODULE:FUNCTION")
@click.argument("source", metavar="SRC", type=click.Path())
@click.argument("target", metavar="DST", type=click.Path())
@click.option(
    "--target", "target_layer", type=NEW_LAYER, required=True, help="The layer of DST that is written."
)
@click.option("--target-mag", type=MAG, help="The mag that is written; that which is read by default.")
@click.option(
    "--dtype", type=DTYPE, help="Type of a new layer, such as uint8; that of the source by default."
)
@click.option("--category", type=CATEGORY, help="Of a new layer; as the source by default.")
@click.option(
    "--halo",
    type=Numbers(int, "4 or 4,4,1", broadcast=True, least=0),
    default=(0, 0, 0),
    help="Voxels around a block; 0 by default.",
)
@click.option(
    "--boundary",
    type=BOUNDARY,
    metavar="HOW",
    default="clip",
    show_default=True,
    help="Where the halo leaves the layer: clip, reflect, nearest, or a number that fills.",
)
@click.option(
    "--part", type=PART, help="Of N drivers that share the work by cubes, this is number K (from 1)."
)
@click.option("--retries", type=click.IntRange(0), help="How often a task that failed is tried again.")
@click.option(
    "--task-memory", type=BYTES, help="What a task needs, such as 4GiB, where the estimate is wrong."
)
@click.option(
    "--resource", "resources", type=RESOURCE, multiple=True, help="What a task occupies of a worker."
)
def command(run: Run, **given: Any) -> None:
    """Call a function for every cube of a layer, and write what it returns into another.

    FUNCTION gets a numpy array (c, x, y, z), halo included, and returns the block; MODULE is found in the working
    folder first. Its code travels to the workers of a scheduler.

    What is read is the finest mag of the only layer, unless --layer and --mag name another. A layer and a mag that
    are not there are made; if nothing could be written they are removed again. What another call wrote (another
    function, halo or box) is replaced only with --overwrite.

    \b
    Example:
      wkdask map filters:sharpen dataset dataset --layer color --target sharp --halo 4,4,1
      wkdask map filters:sharpen dataset dataset --layer color --target sharp --part 3/8 --resume
    """
    import wkdask
    from wkdask.cli.facts import plan_facts, reports_facts
    from wkdask.operations.halo import check_boundary

    request = _Request(**given)
    module, name = function_name(request.function)
    func = function_of(module, name)
    mag = _source(run, request, wkdask.Dataset(request.source))
    check_boundary(request.boundary, mag.spec)
    planned = _Target(mag, run, request)
    box = planned.box_of(run.bbox, request.part)
    with run.connected() as client:
        if run.dry_run:
            plan = planned.plan(client, box)
            run.say(repr(plan))
            run.answer({"command": "map", "plans": [plan_facts(plan)]})
            return
        with planned.made() as out:
            report = mag.map_cubes(
                func,
                out,
                halo=request.halo,
                boundary=request.boundary,
                bounding_box=box,
                client=client,
                task_memory=request.task_memory,
                resume=run.resume,
                retries=request.retries,
                resources=dict(request.resources) or None,
                overwrite=run.overwrite,
                progress=run.listening,
            )
    run.say(repr(report))
    run.answer({"command": "map", "reports": reports_facts([report])})


def _source(run: Run, request: _Request, dataset: Any) -> MagView:
    """Return the mag that is read."""
    from wkdask.paths import resolved

    context = click.get_current_context()
    same = resolved(request.source) == resolved(request.target)
    others = [name for name in dataset.layers if not (same and name == request.target_layer)]
    names = run.layers or tuple(others or dataset.layers)
    if len(names) != 1:
        there = ", ".join(dataset.layers) or "none"
        raise click.UsageError(
            f"one layer is mapped: --layer names it, once; {dataset.path} has {there}", context
        )
    if len(run.mags) > 1:
        raise click.UsageError("one mag is mapped: --mag names it, once", context)
    layer = dataset.get_layer(names[0])
    if not layer.mags:
        raise InvalidValueError(f"layer {layer.name!r} has no mag that could be read; --layer names another")
    view: MagView = layer.get_mag(run.mags[0] if run.mags else min(layer.mags))
    return view


class _Target:
    """The mag that is written: looked at, and checked, before anything is made.

    Parameters
    ----------
    mag
        What is read.
    run, request
        What the options say.
    """

    def __init__(self, mag: MagView, run: Run, request: _Request) -> None:
        from wkdask import Dataset

        self._mag, self._path, self._run, self._request = mag, request.target, run, request
        self._name = request.target_layer
        self._which: Mag = request.target_mag or mag.mag
        layers = Dataset(self._path).layers
        self._layer = layers.get(self._name)
        there = self._layer is not None and self._which in self._layer.mags
        self._there = self._layer.get_mag(self._which) if self._layer is not None and there else None
        self._category = request.category or mag.layer.category
        self._spec = self._there.spec if self._there is not None else self._new_spec()
        self._check()

    def _new_spec(self) -> ArraySpec:
        """Return what a new mag is like."""
        from wkdask.geometry import Vec3Int
        from wkdask.storage.formats import check_spec, fitting_compression
        from wkdask.storage.protocol import ArraySpec

        like, run = self._mag.spec, self._run
        dtype, channels = self._request.dtype or str(like.dtype), like.num_channels
        data_format = run.data_format or "wkw"
        if self._layer is not None:
            dtype, channels = str(self._layer.dtype_per_channel), self._layer.num_channels
            data_format = str(self._layer.data_format)
        compression = fitting_compression(data_format, run.compressing)
        shard = Vec3Int(run.shard_shape or like.shard_shape)
        chunk = Vec3Int(run.chunk_shape) if run.chunk_shape else like.chunk_shape.pairmin(shard)
        if data_format == "zarr":
            shard = chunk = Vec3Int(run.shard_shape or run.chunk_shape or like.chunk_shape)
        try:
            return check_spec(ArraySpec(dtype, channels, chunk, shard, compression, data_format), data_format)
        except (InvalidValueError, UnsupportedFormatError) as error:
            if not (run.shard_shape or run.chunk_shape or run.compression):
                raise
            which = (
                "--shard-shape"
                if run.shard_shape
                else "--chunk-shape"
                if run.chunk_shape
                else "--compression"
            )
            context = click.get_current_context()
            raise click.BadParameter(str(error), context, param_hint=repr(which)) from error

    def plan(self, client: Any, box: BoundingBox | None) -> PlannedWrite:
        """Return what the writes would take; what the function itself needs is not known."""
        from wkdask.jobs.engines.choice import pick_engine
        from wkdask.jobs.plan import plan_write
        from wkdask.operations.write import PlannedWrite

        step = self._which.to_vec3_int()
        whole = (self._mag.bounding_box if box is None else box).aligned_outwards(step).in_mag(self._which)
        engine = pick_engine(client)
        memory, request = engine.task_memory(), self._request
        plan = plan_write(
            self._spec, whole, threads=engine.threads, memory=memory, task_memory=request.task_memory
        )
        in_place = self._there is not None and self._there.place.store.path == self._mag.place.store.path
        return PlannedWrite(
            f"layer {self._name!r} mag {self._which}", plan, engine, memory, reads_target=in_place
        )

    def _check(self) -> None:
        """Refuse options that say something else than what is there, and a mag that would be written over."""
        run, layer = self._run, self._layer
        if layer is not None:
            said = {
                "dtype": self._request.dtype,
                "category": self._request.category,
                "data-format": run.data_format,
            }
            has = {
                "dtype": str(layer.dtype_per_channel),
                "category": str(layer.category),
                "data-format": str(layer.data_format),
            }
            for name, value in said.items():
                if value is not None and value != has[name]:
                    raise InvalidValueError(
                        f"layer {self._name!r} is there, and its {name} is {has[name]}: --{name} {value} is for a "
                        f"new layer"
                    )
        if self._there is None:
            return
        for option, sides, own in (
            ("--shard-shape", run.shard_shape, self._spec.shard_shape),
            ("--chunk-shape", run.chunk_shape, self._spec.chunk_shape),
        ):
            if sides is not None and own != sides:
                raise InvalidValueError(
                    f"{self._there.place.label} is there, with sides of {own}: {option} "
                    f"{','.join(map(str, sides))} is for a new one"
                )
        if not (run.overwrite or run.resume or self._request.part or run.dry_run):
            raise AlreadyExistsError(
                f"layer {self._name!r} has a mag {self._which} already. --resume continues the same job on it, "
                f"--overwrite writes over what is in it"
            )

    def box_of(self, box: BoundingBox | None, part: tuple[int, int] | None) -> BoundingBox | None:
        """Return what is mapped, in voxels of mag 1."""
        from wkdask.geometry.grid import split_box

        if part is None:
            return box
        number, count = part
        step = self._which.to_vec3_int()
        whole = (self._mag.bounding_box if box is None else box).aligned_outwards(step)
        parts = split_box(whole, self._spec.shard_shape * step, count)
        if number > len(parts):
            raise InvalidValueError(
                f"there are cubes for {len(parts)} parts only; nothing is left for {number}/{count}"
            )
        return parts[number - 1]

    @contextlib.contextmanager
    def made(self) -> Iterator[MagView]:
        """Yield the mag, made if it is not there, and removed again if nothing of it could be written.

        Several drivers, each with a part, may come here at once: of two who make it, the second finds it made. So
        there it stays, as the others may be about to write.
        """
        if self._there is not None:
            yield self._there
            return
        out = self._make()
        try:
            yield out
        except BaseException as error:
            if self._request.part is not None:
                error.add_note(f"{out.place.label} stays: other parts may be about to be written to it")
            elif next(out.cubes_on_disk(), None) is None:
                self._remove()
                error.add_note(f"nothing could be written; {out.place.label} was removed again")
            else:
                error.add_note(
                    "what was written stays: the same call with --resume continues, --overwrite begins anew"
                )
            raise

    def _make(self) -> MagView:
        """Make the layer and the mag."""
        from wkdask import Dataset

        spec, dataset = self._spec, Dataset(self._path)
        try:
            if self._layer is None:
                dataset.add_layer(
                    self._name,
                    self._category,
                    dtype_per_channel=spec.dtype,
                    num_channels=spec.num_channels,
                    data_format=spec.data_format,
                )
        except AlreadyExistsError:
            dataset = Dataset(self._path)
        try:
            return dataset.get_layer(self._name).add_mag(
                self._which,
                chunk_shape=spec.chunk_shape,
                shard_shape=spec.shard_shape,
                compression=spec.compression or False,
            )
        except AlreadyExistsError:
            if self._request.part is None:
                raise
            return Dataset(self._path).get_layer(self._name).get_mag(self._which)

    def _remove(self) -> None:
        """Remove what was made."""
        from wkdask import Dataset

        dataset = Dataset(self._path)
        layer = dataset.get_layer(self._name)
        layer.delete_mag(self._which)
        if self._layer is None and not layer.mags:
            dataset.delete_layer(self._name)
