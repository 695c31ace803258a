"""The command that makes layers of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import wkdask
from wkdask.cli.options import (
    Numbers,
    connected,
    plain_errors,
    plan_option,
    report_option,
    resume_option,
    scheduler_option,
)
from wkdask.errors import WkdaskError
from wkdask.geometry import BoundingBox

__all__ = ["convert"]


class _Box(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """A corner and a size."""

    name = "X,Y,Z,W,H,D"

    def convert(self, value: Any, param: Any, ctx: Any) -> BoundingBox:
        """Return the box."""
        try:
            return value if isinstance(value, BoundingBox) else BoundingBox.from_csv(value)
        except WkdaskError:
            self.fail(f"expected a corner and a size such as 0,0,10,512,512,20, got {value!r}", param, ctx)


class _Range(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """Two numbers."""

    name = "MIN,MAX"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            low, high = map(float, str(value).split(","))
        except ValueError:
            self.fail(f"expected two numbers such as 0,4095, got {value!r}", param, ctx)
        return low, high


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.argument("dataset", type=click.Path())
@click.option(
    "--voxel-size", type=Numbers(float), required=True, help="Size of a voxel in nm, e.g. 4.6,4.6,45."
)
@click.option("--layer", "layer_name", default="color", show_default=True, help="Name of the new layer.")
@click.option(
    "--category", type=click.Choice(["color", "segmentation"]), default="color", show_default=True,
    help="Images, or ids of segments.",
)  # fmt: skip
@click.option("--offset", type=Numbers(int), help="Voxel of the first image's corner; 0,0,0 by default.")
@click.option(
    "--bbox", type=_Box(), help="Convert only this part, in voxels of the images; it keeps its place."
)
@click.option(
    "--dtype", help="Type of the layer, such as uint8; that of the images by default. Without --rescale one that "
    "holds all their values.",
)  # fmt: skip
@click.option(
    "--rescale",
    type=_Range(),
    help="Make MIN 0 and MAX the largest value of --dtype, and the rest in proportion.",
)
@click.option(
    "--data-format", type=click.Choice(["wkw", "zarr3", "zarr"]), default="wkw", show_default=True,
    help="How the layer is stored.",
)  # fmt: skip
@click.option(
    "--shard-shape", type=Numbers(int, broadcast=True),
    help="Sides of a cube file in voxels; up to 1024, chosen by the size of the images.",
)  # fmt: skip
@click.option(
    "--chunk-shape", type=Numbers(int, broadcast=True), help="Sides of a chunk in voxels; 32 by default."
)
@click.option(
    "--compression", type=click.Choice(["none", "lz4", "lz4hc", "zstd", "gzip", "blosc"]),
    help="How cubes are stored: lz4 by default, in Zarr zstd.",
)  # fmt: skip
@click.option("--downsample", "pyramid", is_flag=True, help="Compute the coarser mags as well.")
@report_option
@scheduler_option
@resume_option
@plan_option
def convert(images: tuple[str, ...], dataset: str, **options: Any) -> None:
    """Turn a stack of 2-D images into a layer: column is x, row is y, section is z.

    IMAGES are TIFF, PNG or JPEG files or folders of them, in natural order (2.tif before 10.tif), or
    multi-page TIFFs, with 8 to 64 bits of grey or RGB. Images with transparency are refused.

    \b
    Example:
      wkdask convert stack/*.tif dataset --voxel-size 4.6,4.6,45 --downsample
      wkdask convert labels/ dataset --voxel-size 4.6,4.6,45 --layer cells --category segmentation
      wkdask convert raw/ dataset --voxel-size 4,4,4 --dtype uint8 --rescale 0,4095
    """
    pyramid, scheduler, report = (options.pop(name) for name in ("pyramid", "scheduler", "report_path"))
    plan_only = options.pop("plan_only")
    given = options.pop("compression")
    options["compression"] = False if given == "none" else given or "lz4"
    with plain_errors(), connected(scheduler, report) as client:
        _convert_images([str(Path(image)) for image in images], dataset, client, options, pyramid, plan_only)


def _convert_images(
    paths: list[str], dataset: str, client: Any, options: dict[str, Any], pyramid: bool, plan_only: bool
) -> None:
    """Convert a stack, or say how it would be."""
    from wkdask.convert.images import convert_images, is_converted, plan_images

    name, resume = options["layer_name"], options["resume"]
    options["offset"] = options["offset"] or (0, 0, 0)
    if plan_only:
        cut = {
            key: value for key, value in options.items() if key not in ("voxel_size", "category", "resume")
        }
        click.echo(repr(plan_images(paths, client=client, **cut)))
        return
    if not (pyramid and resume and is_converted(dataset, name)):
        click.echo(repr(convert_images(paths, dataset, client=client, progress=True, **options)))
    if pyramid:
        _downsample(dataset, name, client, options)


def _downsample(dataset: str, layer_name: str, client: Any, options: dict[str, Any]) -> None:
    """Compute the coarser mags of a layer, stored as its finest."""
    layer = wkdask.Dataset(dataset).get_layer(layer_name)
    for report in layer.downsample(
        compression=options["compression"], client=client, resume=options["resume"], progress=True
    ):
        click.echo(repr(report))
