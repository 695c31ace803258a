"""The command that makes layers of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import wkdask
from wkdask.cli.options import (
    connected,
    plain_errors,
    plan_option,
    report_option,
    resume_option,
    scheduler_option,
)
from wkdask.cli.types import (
    BOX,
    DTYPE,
    NEW_LAYER,
    PAGES,
    SIDES,
    SIDES_OF_CUBES,
    VOXEL_SIZE,
    Numbers,
    check_cut,
)

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["convert"]


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
    "--voxel-size",
    type=VOXEL_SIZE,
    help="Size of a voxel in nm, e.g. 4.6,4.6,45. OME-Zarr says it, all else needs it.",
)
@click.option(
    "--layer", "layer_name", type=NEW_LAYER, default="color", show_default=True, help="Name of the new layer."
)
@click.option(
    "--category", type=click.Choice(["color", "segmentation"]), default="color", show_default=True,
    help="Images, or ids of segments.",
)  # fmt: skip
@click.option(
    "--offset",
    type=Numbers(int, "0,0,10", least=0),
    help="Where the first voxel goes; 0,0,0 by default, for OME-Zarr where its translation says.",
)
@click.option("--bbox", type=BOX, help="Convert only this part, in voxels of the images; it keeps its place.")
@click.option(
    "--dtype", type=DTYPE,
    help="Type of the layer, such as uint8; that of the images by default. Without --rescale one that "
    "holds all their values; of Zarr each voxel is checked, and floats are rounded.",
)  # fmt: skip
@click.option(
    "--rescale",
    type=_Range(),
    help="Make MIN 0 and MAX the largest value of --dtype, and the rest in proportion.",
)
@click.option(
    "--gaps", type=click.Choice(["close", "keep", "refuse"]),
    help="Numbers that are missing in the names: later sections move up (close, the default), empty sections stay "
    "there (keep), or nothing is done (refuse).",
)  # fmt: skip
@click.option("--page", type=PAGES, help="Take these pages of every file: 3, 2-7, 2- or 1-9:2, from 1 on.")
@click.option(
    "--series", type=click.IntRange(min=1), help="Take this group of alike pages of every file, from 1 on."
)
@click.option("--orient", is_flag=True, help="Turn images as their orientation tag (TIFF, Exif) says.")
@click.option(
    "--tiles", type=click.Choice(["refuse", "join", "sections"]),
    help="Images that are tiles by their names (z/y/x.png): refuse them, the default, put those of each section "
    "side by side (join), or take each for a section.",
)  # fmt: skip
@click.option(
    "--data-format", type=click.Choice(["wkw", "zarr3", "zarr"]), default="wkw", show_default=True,
    help="How the layer is stored.",
)  # fmt: skip
@click.option(
    "--shard-shape", type=SIDES_OF_CUBES,
    help="Sides of a cube file in voxels; up to 1024, chosen by the size of the images.",
)  # fmt: skip
@click.option("--chunk-shape", type=SIDES, help="Sides of a chunk in voxels; 32 by default.")
@click.option(
    "--compression", type=click.Choice(["none", "lz4", "lz4hc", "zstd", "gzip", "blosc"]),
    help="How cubes are stored: lz4 by default, in Zarr zstd.",
)  # fmt: skip
@click.option(
    "--axes", help="Axes of a Zarr array, a letter each, such as zyx or cxyz; by default as it names them."
)
@click.option(
    "--together", is_flag=True, help="Keep all channels of a Zarr image in one layer, also if not RGB."
)
@click.option("--no-labels", is_flag=True, help="Leave out the labels of an OME-Zarr image.")
@click.option(
    "--downsample", "pyramid", is_flag=True, help="Compute the coarser mags that are not there as well."
)
@report_option
@scheduler_option
@resume_option
@plan_option
def convert(images: tuple[str, ...], dataset: str, **options: Any) -> None:
    """Turn images into a layer.

    IMAGES are the sections of a stack: TIFF, PNG or JPEG files or folders of them, in natural order (2.tif before
    10.tif), or multi-page TIFFs, with 8 to 64 bits of grey or RGB; images with transparency are refused. Column
    is x, row is y, section is z. What is left out or guessed is printed, also by --plan: gaps in the numbers of the
    names, pages that are no sections, orientations.

    Or IMAGES is one OME-Zarr image (0.4 or 0.5; a folder, or a .zip or .ozx file), whose scales all become mags
    as they are, and whose labels become layers; or one Zarr array. Channels become layers of their own, RGB one.

    \b
    Example:
      wkdask convert stack/*.tif dataset --voxel-size 4.6,4.6,45 --downsample
      wkdask convert labels/ dataset --voxel-size 4.6,4.6,45 --layer cells --category segmentation
      wkdask convert raw/ dataset --voxel-size 4,4,4 --dtype uint8 --rescale 0,4095
      wkdask convert raw/ dataset --voxel-size 4,4,4 --gaps keep --plan
      wkdask convert two_channels.tif dataset --voxel-size 4,4,4 --layer second --page 2-:2
      wkdask convert photos/ dataset --voxel-size 4,4,4 --page 1 --orient
      wkdask convert tiles/1/ dataset --voxel-size 4,4,4 --tiles join
      wkdask convert image.ome.zarr dataset
      wkdask convert array.zarr dataset --voxel-size 4,4,4 --axes zyx
    """
    pyramid, scheduler, report = (options.pop(name) for name in ("pyramid", "scheduler", "report_path"))
    plan_only = options.pop("plan_only")
    given = options.pop("compression")
    options["compression"] = False if given == "none" else given or "lz4"
    check_cut(
        options["data_format"],
        options["chunk_shape"],
        options["shard_shape"],
        options["compression"],
        usual_chunk=(32, 32, 32),
    )
    paths, context = [str(Path(image)) for image in images], click.get_current_context()
    from wkdask.external.zarr.store import is_zarr, root_of

    with plain_errors():
        zarr = [path for path in paths if is_zarr(root_of(path))]
    for name in _IMAGES_ONLY if zarr else _ZARR_ONLY:
        if options.pop(name):
            kind = "image files" if zarr else "Zarr"
            raise click.UsageError(f"--{name.replace('_', '-')} is for {kind} only", context)
    if zarr and len(paths) > 1:
        raise click.UsageError(f"{zarr[0]} is Zarr: it is converted alone, not with other images", context)
    if not zarr and options["voxel_size"] is None:
        raise click.MissingParameter(ctx=context, param_hint="'--voxel-size'", param_type="option")
    with plain_errors(), connected(scheduler, report) as client:
        work = _convert_zarr if zarr else _convert_images
        work(paths, dataset, client, options, pyramid, plan_only)


_ZARR_ONLY = ("axes", "no_labels", "together")
_OF_FILES = ("gaps", "page", "series", "orient", "tiles")
_IMAGES_ONLY = ("rescale", *_OF_FILES)


def _convert_images(
    paths: list[str],
    dataset: str,
    client: Client | None,
    options: dict[str, Any],
    pyramid: bool,
    plan_only: bool,
) -> None:
    """Convert a stack, or say how it would be."""
    from wkdask.convert.images import convert_images, notes_of, plan_images
    from wkdask.external.images.selection import open_images
    from wkdask.fsio import checked_path
    from wkdask.jobs.events import Event, JobStarted
    from wkdask.progress.bar import listeners_for

    name = options["layer_name"]
    options["offset"] = options["offset"] or (0, 0, 0)
    options["gaps"] = options["gaps"] or "close"
    options["tiles"] = options["tiles"] or "refuse"
    checked_path(dataset)
    chosen = {key: options.pop(key) for key in ("bbox", "dtype", "rescale", *_OF_FILES)}
    source = open_images(paths, **chosen)
    lines = [f"Images: {source.stack.order}"]
    lines += [f"Note: {note}" for note in notes_of(source, options["category"])]
    if plan_only:
        click.echo("\n".join(lines))
        cut = {
            key: value for key, value in options.items() if key not in ("voxel_size", "category", "resume")
        }
        click.echo(repr(plan_images(source, client=client, **cut)))
        return

    def tell(event: Event) -> None:
        """Print what is to be known once the job has begun: a refusal is one line."""
        if isinstance(event, JobStarted):
            click.echo("\n".join(lines), err=True)

    listeners = [tell, *listeners_for(True)]
    report = convert_images(source, dataset, client=client, progress=False, listeners=listeners, **options)
    click.echo(repr(report))
    if pyramid:
        _downsample([name], dataset, client, options)


def _convert_zarr(
    paths: list[str],
    dataset: str,
    client: Client | None,
    options: dict[str, Any],
    pyramid: bool,
    plan_only: bool,
) -> None:
    """Convert what is Zarr, or say what it would become."""
    from wkdask.convert.scales import open_scales
    from wkdask.convert.zarr import convert_scales, plan_scales
    from wkdask.fsio import checked_path

    checked_path(dataset)  # a plan is refused where the run would be
    taken = ("voxel_size", "layer_name", "category", "offset", "bbox", "axes", "together", "dtype")
    source = open_scales(paths[0], labels=not options["no_labels"], **{name: options[name] for name in taken})
    cut = {name: options[name] for name in ("data_format", "compression", "shard_shape", "chunk_shape")}
    if plan_only:
        click.echo(repr(source))
        for planned in plan_scales(source, client=client, **cut):
            click.echo(repr(planned))
        return
    for note in source.notes:
        click.echo(f"Note: {note}", err=True)
    names = [layer.name for layer in source.layers]
    for report in convert_scales(
        source, dataset, client=client, progress=True, resume=options["resume"], **cut
    ):
        click.echo(repr(report))
    if pyramid:
        _downsample(names, dataset, client, options)


def _downsample(names: list[str], dataset: str, client: Client | None, options: dict[str, Any]) -> None:
    """Compute the coarser mags of layers, stored as their finest."""
    for name in names:
        for report in (
            wkdask.Dataset(dataset)
            .get_layer(name)
            .downsample(
                compression=options["compression"], client=client, resume=options["resume"], progress=True
            )
        ):
            click.echo(repr(report))
