"""``wkdask map``: a function of a module for every cube of a layer, from a shell or a batch script."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

import wkdask
from wkdask.cli.options import (
    compression_option,
    connected,
    plain_errors,
    report_option,
    resume_option,
    scheduler_option,
)
from wkdask.cli.types import BOUNDARY, BOX, BYTES, DTYPE, MAG, NEW_LAYER, PART, RESOURCE, Numbers
from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.grid import split_box
from wkdask.operations.halo import check_boundary
from wkdask.storage.formats import check_spec, fitting_compression
from wkdask.storage.protocol import ArraySpec

__all__ = ["map_command"]


@click.command(name="map")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.argument("source", metavar="SRC", type=click.Path())
@click.argument("target", metavar="DST", type=click.Path())
@click.option("--layer", required=True, help="The layer of SRC that is read.")
@click.option(
    "--target", "target_layer", type=NEW_LAYER, required=True, help="The layer of DST that is written."
)
@click.option("--mag", type=MAG, default="1", show_default=True, help="The mag that is read.")
@click.option("--target-mag", type=MAG, help="The mag that is written; that which is read by default.")
@click.option(
    "--dtype", type=DTYPE, help="Type of a new layer, such as uint8; that of the source by default."
)
@click.option(
    "--category",
    type=click.Choice(["color", "segmentation"]),
    help="Of a new layer; as the source by default.",
)
@click.option(
    "--shard-shape",
    type=click.IntRange(1),
    help="Side of a cube of a new layer in voxels; the source's by default.",
)
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
@click.option("--box", "--bbox", type=BOX, help="What is mapped, in voxels of mag 1; the layer by default.")
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
@click.option("--overwrite", is_flag=True, help="Write over what another call wrote into a mag.")
@compression_option
@resume_option
@report_option
@scheduler_option
def map_command(function: str, source: str, target: str, **options: Any) -> None:
    """Call a function for every cube of a layer, and write what it returns into another.

    FUNCTION gets a numpy array (c, x, y, z), halo included, and returns the block; MODULE is found in the working
    folder first. Its code travels to the workers of a scheduler.

    A layer and a mag that are not there are made; if nothing could be written they are removed again. What another
    call wrote (another function, halo or box) is replaced only with --overwrite.

    \b
    Example:
      wkdask map filters:sharpen dataset dataset --layer color --target sharp --halo 4,4,1
      wkdask map filters:sharpen dataset dataset --layer color --target sharp --part 3/8 --resume
    """
    module, name = _named(function)
    with plain_errors(), connected(options["scheduler"], options["report_path"]) as client:
        func = _function_of(module, name)
        mag = wkdask.Dataset(source).get_layer(options["layer"]).get_mag(options["mag"])
        check_boundary(options["boundary"], mag.spec)
        planned = _Target(mag, target, options)
        box = planned.box_of(options["box"], options["part"])
        with planned.made() as out:
            report = mag.map_cubes(
                func,
                out,
                halo=options["halo"],
                boundary=options["boundary"],
                bounding_box=box,
                client=client,
                task_memory=options["task_memory"],
                resume=options["resume"],
                retries=options["retries"],
                resources=dict(options["resources"]) or None,
                overwrite=options["overwrite"],
                progress=True,
            )
        click.echo(repr(report))


def _named(text: str) -> tuple[str, str]:
    """Return module and name of ``module:name``."""
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        raise click.BadParameter(f"expected MODULE:FUNCTION, got {text!r}", param_hint="'MODULE:FUNCTION'")
    return module, name


def _function_of(module_name: str, name: str) -> Callable[..., Any]:
    """Return a function of a module, which travels by value, as workers need not have it."""
    import cloudpickle

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InvalidValueError(f"the module {module_name!r} cannot be imported: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        near = [other for other, value in vars(module).items() if callable(value) and other[0] != "_"]
        raise InvalidValueError(f"{module_name} has no function {name!r}; it has {', '.join(near) or 'none'}")
    if os.path.dirname(os.path.abspath(module.__file__ or "")) == os.getcwd():
        cloudpickle.register_pickle_by_value(module)
    found: Callable[..., Any] = function
    return found


class _Target:
    """The mag that is written: looked at, and checked, before anything is made.

    Parameters
    ----------
    mag
        What is read.
    path
        The dataset that is written.
    options
        Of the command.
    """

    def __init__(self, mag: wkdask.MagView, path: str, options: dict[str, Any]) -> None:
        self._mag, self._path, self._options = mag, path, options
        self._name: str = options["target_layer"]
        self._which: Mag = options["target_mag"] or options["mag"]
        layers = wkdask.Dataset(path).layers
        self._layer = layers.get(self._name)
        there = self._layer is not None and self._which in self._layer.mags
        self._there = self._layer.get_mag(self._which) if self._layer is not None and there else None
        self._category = options["category"] or mag.layer.category
        self._spec = self._there.spec if self._there is not None else self._new_spec()
        self._check()

    def _new_spec(self) -> ArraySpec:
        """Return what a new mag is like."""
        like, side = self._mag.spec, self._options["shard_shape"]
        shard = like.shard_shape if side is None else Vec3Int.full(side)
        dtype, channels, data_format = self._options["dtype"] or str(like.dtype), like.num_channels, "wkw"
        if self._layer is not None:
            dtype, channels = str(self._layer.dtype_per_channel), self._layer.num_channels
            data_format = str(self._layer.data_format)
        compression = fitting_compression(data_format, self._options["compression"] or False)
        try:
            chunk = like.chunk_shape.pairmin(shard)
            return check_spec(ArraySpec(dtype, channels, chunk, shard, compression, data_format), data_format)
        except InvalidValueError as error:
            if side is None:
                raise
            raise click.BadParameter(str(error), param_hint="'--shard-shape'") from error

    def _check(self) -> None:
        """Refuse options that say something else than what is there, and a mag that would be written over."""
        options, layer = self._options, self._layer
        if layer is not None:
            said = {"dtype": options["dtype"], "category": options["category"]}
            has = {"dtype": str(layer.dtype_per_channel), "category": str(layer.category)}
            for name, value in said.items():
                if value is not None and value != has[name]:
                    raise InvalidValueError(
                        f"layer {self._name!r} is there, and its {name} is {has[name]}: --{name} {value} is for a "
                        f"new layer"
                    )
        if self._there is None:
            return
        side = options["shard_shape"]
        if side is not None and self._spec.shard_shape != (side, side, side):
            raise InvalidValueError(
                f"{self._there.place.label} is there, with cubes of {self._spec.shard_shape}: --shard-shape {side} "
                f"is for a new one"
            )
        if not (options["overwrite"] or options["resume"] or options["part"]):
            raise AlreadyExistsError(
                f"layer {self._name!r} has a mag {self._which} already. --resume continues the same job on it, "
                f"--overwrite writes over what is in it"
            )

    def box_of(self, box: BoundingBox | None, part: tuple[int, int] | None) -> BoundingBox | None:
        """Return what is mapped, in voxels of mag 1."""
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
    def made(self) -> Iterator[wkdask.MagView]:
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
            if self._options["part"] is not None:
                error.add_note(f"{out.place.label} stays: other parts may be about to be written to it")
            elif next(out.cubes_on_disk(), None) is None:
                self._remove()
                error.add_note(f"nothing could be written; {out.place.label} was removed again")
            else:
                error.add_note(
                    "what was written stays: the same call with --resume continues, --overwrite begins anew"
                )
            raise

    def _make(self) -> wkdask.MagView:
        """Make the layer and the mag."""
        spec, dataset = self._spec, wkdask.Dataset(self._path)
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
            dataset = wkdask.Dataset(self._path)
        try:
            return dataset.get_layer(self._name).add_mag(
                self._which,
                chunk_shape=spec.chunk_shape,
                shard_shape=spec.shard_shape,
                compression=spec.compression or False,
            )
        except AlreadyExistsError:
            if self._options["part"] is None:
                raise
            return wkdask.Dataset(self._path).get_layer(self._name).get_mag(self._which)

    def _remove(self) -> None:
        """Remove what was made."""
        dataset = wkdask.Dataset(self._path)
        layer = dataset.get_layer(self._name)
        layer.delete_mag(self._which)
        if self._layer is None and not layer.mags:
            dataset.delete_layer(self._name)
