"""``wkdask map``: a function of a module for every cube of a layer, from a shell or a batch script."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

import wkdask
from wkdask.cli.options import (
    MAG,
    Numbers,
    compression_option,
    connected,
    plain_errors,
    report_option,
    resume_option,
    scheduler_option,
)
from wkdask.errors import AlreadyExistsError, InvalidValueError
from wkdask.geometry import BoundingBox, Mag, Vec3Int

__all__ = ["map_command"]


@dataclass(frozen=True, slots=True)
class _TargetOptions:
    """What a target layer is like, where it is new."""

    name: str
    dtype: str | None
    category: str | None
    shard_shape: int | None
    compression: str | None


@click.command(name="map")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.argument("source", metavar="SRC", type=click.Path())
@click.argument("target", metavar="DST", type=click.Path())
@click.option("--layer", required=True, help="The layer of SRC that is read.")
@click.option("--target", "target_layer", required=True, help="The layer of DST that is written.")
@click.option("--mag", type=MAG, default="1", show_default=True, help="The mag that is read.")
@click.option("--target-mag", type=MAG, help="The mag that is written; that which is read by default.")
@click.option("--dtype", help="Type of a new layer, such as uint8; that of the source by default.")
@click.option(
    "--category",
    type=click.Choice(["color", "segmentation"]),
    help="Of a new layer; as the source by default.",
)
@click.option(
    "--shard-shape", type=int, help="Side of a cube of a new layer in voxels; the source's by default."
)
@click.option(
    "--halo",
    type=Numbers(int, broadcast=True),
    default=(0, 0, 0),
    help="Voxels around a block; 0 by default.",
)
@click.option(
    "--boundary",
    default="clip",
    show_default=True,
    help="Where the halo leaves the layer: clip, reflect, nearest, or a number that fills.",
)
@click.option(
    "--box", metavar="X,Y,Z,W,H,D", help="What is mapped, in voxels of mag 1; the layer by default."
)
@click.option(
    "--part", metavar="K/N", help="Of N drivers that share the work by cubes, this is number K (from 1)."
)
@click.option("--retries", type=int, help="How often a task that failed is tried again.")
@click.option("--task-memory", help="What a task needs, such as 4GiB, where the estimate is wrong.")
@click.option(
    "--resource", "resources", multiple=True, metavar="NAME=N", help="What a task occupies of a worker."
)
@click.option("--overwrite", is_flag=True, help="Write into a mag that is there already.")
@compression_option
@resume_option
@report_option
@scheduler_option
def map_command(function: str, source: str, target: str, **options: Any) -> None:
    """Call a function for every cube of a layer, and write what it returns into another.

    FUNCTION gets a numpy array (c, x, y, z), halo included, and returns the block; MODULE is found in the working
    folder first. Its code travels to the workers of a scheduler.

    \b
    Example:
      wkdask map filters:sharpen dataset dataset --layer color --target sharp --halo 4,4,1
      wkdask map filters:sharpen dataset dataset --layer color --target sharp --part 3/8 --resume
    """
    with plain_errors(), connected(options["scheduler"], options["report_path"]) as client:
        func = _function_of(function)
        mag = wkdask.Dataset(source).get_layer(options["layer"]).get_mag(options["mag"])
        out = _target_mag(
            mag,
            target,
            options["target_mag"] or options["mag"],
            _TargetOptions(
                options["target_layer"], options["dtype"], options["category"], options["shard_shape"],
                options["compression"],
            ),
            existing=options["overwrite"] or options["resume"] or options["part"] is not None,
        )  # fmt: skip
        report = mag.map_cubes(
            func,
            out,
            halo=options["halo"],
            boundary=_boundary_of(options["boundary"]),
            bounding_box=_box_of(options["box"], options["part"], mag, out),
            client=client,
            task_memory=_bytes_of(options["task_memory"]),
            resume=options["resume"],
            retries=options["retries"],
            resources=_resources_of(options["resources"]),
            progress=True,
        )
        click.echo(repr(report))


def _function_of(text: str) -> Callable[..., Any]:
    """Return the function of ``module:name``; its module travels by value, as workers need not have it."""
    import cloudpickle

    module_name, colon, name = text.partition(":")
    if not colon or not module_name or not name:
        raise InvalidValueError(f"expected MODULE:FUNCTION, got {text!r}")
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


def _target_mag(
    mag: wkdask.MagView, path: str, target_mag: Mag, new: _TargetOptions, *, existing: bool
) -> wkdask.MagView:
    """Return the mag that is written, made if it is not there.

    Several drivers may come here at once: of two who make it, the second finds it made.
    """
    source = mag.layer
    dataset = wkdask.Dataset(path)
    category = new.category or source.category
    try:
        layer = dataset.add_layer(
            new.name,
            category,
            dtype_per_channel=new.dtype or mag.get_dtype(),
            num_channels=mag.num_channels,
        )
    except AlreadyExistsError:
        layer = wkdask.Dataset(path).get_layer(new.name)
    side = mag.spec.shard_shape if new.shard_shape is None else Vec3Int.full(new.shard_shape)
    chunk = mag.spec.chunk_shape.pairmin(side)
    try:
        return layer.add_mag(target_mag, chunk_shape=chunk, shard_shape=side, compression=new.compression)
    except AlreadyExistsError as error:
        if not existing:
            raise AlreadyExistsError(
                f"{error}. --resume goes on with it, --overwrite writes over what is in it"
            ) from error
        return wkdask.Dataset(path).get_layer(new.name).get_mag(target_mag)


def _box_of(
    text: str | None, part: str | None, mag: wkdask.MagView, out: wkdask.MagView
) -> BoundingBox | None:
    """Return what is mapped, in voxels of mag 1."""
    box = None if text is None else BoundingBox.from_csv(text)
    if part is None:
        return box
    number, _, count = part.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise InvalidValueError(f"a part is written K/N with K from 1 to N, such as 3/8; got {part!r}")
    whole = (mag.bounding_box if box is None else box).aligned_outwards(out.mag.to_vec3_int())
    parts = out.split(int(count), bounding_box=whole)
    if int(number) > len(parts):
        raise InvalidValueError(f"there are cubes for {len(parts)} parts only; nothing is left for {part}")
    return parts[int(number) - 1]


def _boundary_of(text: str) -> str | int | float:
    """Return a way of filling, or the number that fills."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _bytes_of(text: str | None) -> int | None:
    """Return ``4GiB`` in bytes."""
    import dask.utils

    try:
        return None if text is None else int(dask.utils.parse_bytes(text))
    except ValueError as error:
        raise InvalidValueError(f"expected bytes such as 4GiB, got {text!r}") from error


def _resources_of(texts: tuple[str, ...]) -> dict[str, float] | None:
    """Return ``("GPU=1",)`` as a dict."""
    try:
        return {name: float(count) for name, _, count in (text.partition("=") for text in texts)} or None
    except ValueError as error:
        raise InvalidValueError(
            f"resources are written NAME=N, such as GPU=1; got {' '.join(texts)}"
        ) from error
