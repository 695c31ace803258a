"""The commands."""

from __future__ import annotations

from dataclasses import replace

import click

import wkdask
from wkdask.cli.aliases import check_equality, convert_zarr, copy_dataset, ignored_options, upsample
from wkdask.cli.batch import map_command
from wkdask.cli.compress import compress
from wkdask.cli.convert import convert
from wkdask.cli.copy import copy_command, equal_command
from wkdask.cli.options import (
    check_output,
    compression_option,
    connected,
    plain_errors,
    report_option,
    resume_option,
    scheduler_option,
)
from wkdask.cli.types import BYTES, INTERPOLATION, MAG, PNG
from wkdask.geometry import Mag, Vec3Int
from wkdask.geometry.voxel_size import format_bytes
from wkdask.pyramid.mags import interpolation_of

__all__ = ["main"]

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=_CONTEXT, invoke_without_command=True)
@click.version_option(wkdask.__version__, "-V", "--version")
@click.pass_context
def main(ctx: click.Context) -> None:
    """WEBKNOSSOS datasets, native to Dask.

    \b
    Example:
      wkdask demo
      wkdask convert stack/ dataset --voxel-size 4.6,4.6,45
      wkdask downsample dataset
      wkdask info dataset
    """
    if ctx.invoked_subcommand is None:  # which is no mistake
        click.echo(ctx.get_help())


@main.command()
@click.argument("path", type=click.Path(), default="wkdask-demo")
@click.option("--overwrite", is_flag=True, help="Replace the dataset of an earlier demo.")
def demo(path: str, overwrite: bool) -> None:
    """Make a small dataset, filter it on two worker processes, downsample it, draw it.

    \b
    Example:
      wkdask demo tissue --overwrite
    """
    from wkdask.demo.run import run_demo

    with plain_errors():
        run_demo(path, overwrite=overwrite, echo=click.echo)


@main.command()
@click.argument("dataset", type=click.Path())
def info(dataset: str) -> None:
    """Print the layers and mags of a dataset: types, boxes, cubes, bytes on disk.

    All cubes are counted; on a terminal a line says how many were found so far.

    \b
    Example:
      wkdask info dataset
    """
    from wkdask.display.text import dataset_text_counted
    from wkdask.progress.bar import passing_line

    with plain_errors(), passing_line() as show:
        opened = wkdask.Dataset(dataset)
        text = dataset_text_counted(
            opened, lambda cubes, nbytes: show(f"counting: {cubes} cubes, {format_bytes(nbytes)} on disk")
        )
    click.echo(text)


@main.command()
@click.argument("dataset", type=click.Path())
@click.option("-o", "--output", type=PNG, default="preview.png", show_default=True, help="The PNG.")
@click.option("--layer", "layers", multiple=True, help="Only this layer; may be given several times.")
@click.option("--z", type=int, help="Section, in voxels of mag 1; the middle one by default.")
@click.option(
    "--max-side", type=click.IntRange(16), default=1024, show_default=True, help="Pixels per layer."
)
def preview(dataset: str, output: str, layers: tuple[str, ...], z: int | None, max_side: int) -> None:
    """Draw one section of every layer, from the mag that fits.

    Layers that are empty are named. Where one cannot be read the exit code is 1, and the picture shows the others.

    \b
    Example:
      wkdask preview dataset -o dataset.png
    """
    from wkdask.display.preview import draw_sheet

    with plain_errors():
        check_output(output)
        opened = wkdask.Dataset(dataset)
        path, hidden = draw_sheet(opened, output, layers=layers or None, z=z, max_side=max_side)
        click.echo(path)
        for name, error in hidden.items():
            click.echo(f"layer {name!r} is not shown: {error}", err=True)
        if any(isinstance(error, OSError) for error in hidden.values()):
            raise click.exceptions.Exit(1)


@main.command()
@click.argument("dataset", type=click.Path())
@click.option(
    "--layer", "--layer-name", "layers", multiple=True, help="Only this layer; may be given several times."
)
@click.option("--from-mag", type=MAG, help="Start here; by default from the coarsest there is.")
@click.option(
    "--coarsest-mag", type=MAG, help="End here; by default where a section is about 100 voxels wide."
)
@click.option(
    "--interpolation-mode",
    type=INTERPOLATION,
    default="default",
    show_default=True,
    help="default (median for images, mode for segmentations), median, mode, nearest, min, max, bilinear, bicubic.",
)
@click.option(
    "--sampling-mode",
    type=click.Choice(["anisotropic", "isotropic", "constant_z"]),
    default="anisotropic",
    show_default=True,
    help="How the next mag is chosen.",
)
@compression_option
@click.option("--overwrite", is_flag=True, help="Compute mags again that are there, or were left unfinished.")
@report_option
@scheduler_option
@resume_option
@ignored_options
def downsample(
    dataset: str,
    layers: tuple[str, ...],
    from_mag: Mag | None,
    coarsest_mag: Mag | None,
    interpolation_mode: str,
    sampling_mode: str,
    compression: str | None,
    overwrite: bool,
    report_path: str | None,
    scheduler: str | None,
    resume: bool,
) -> None:
    """Compute the coarser magnifications of all layers.

    \b
    Example:
      wkdask downsample dataset --layer color --coarsest-mag 8 --compression lz4hc
    """
    with plain_errors(), connected(scheduler, report_path) as client:
        opened = wkdask.Dataset(dataset)
        chosen = [opened.get_layer(name) for name in layers or opened.layers]
        for layer in chosen:  # all of them, before the first is computed
            interpolation_of(interpolation_mode, layer.record.is_segmentation)
        for layer in chosen:
            reports = layer.downsample(
                from_mag=from_mag,
                coarsest_mag=coarsest_mag,
                interpolation_mode=interpolation_mode,
                compression=compression,
                sampling_mode=sampling_mode,
                allow_overwrite=overwrite,
                client=client,
                resume=resume,
                progress=True,
            )
            if not reports:
                click.echo(
                    f"layer {layer.name!r}: nothing to do, it has mag {layer.record.mags[-1].mag} already"
                )
            for report in reports:
                click.echo(repr(report))


@main.command()
@click.argument("dataset", type=click.Path())
@click.option("--layer", "layer_name", required=True, help="The layer.")
@click.option("--mag", type=MAG, default="1", show_default=True, help="The mag.")
@click.option(
    "--shard-shape", type=click.IntRange(1), help="As if cubes had this side, in voxels of the mag."
)
@click.option(
    "--compression",
    type=click.Choice(["none", "lz4", "lz4hc"]),
    help="As if cubes were stored so.",
)
@click.option("--memory", type=BYTES, help="As if a task had so much memory, e.g. 2GiB.")
@scheduler_option
def plan(
    dataset: str,
    layer_name: str,
    mag: Mag,
    shard_shape: int | None,
    compression: str | None,
    memory: int | None,
    scheduler: str | None,
) -> None:
    """Print what it takes to write all of a mag by an expression on it: cubes, tasks, memory.

    \b
    Example:
      wkdask plan dataset --layer color --shard-shape 2048 --memory 4GiB
    """
    from wkdask.operations.write import WriteOptions, plan_rewrite

    with plain_errors(), connected(scheduler) as client:
        view = wkdask.Dataset(dataset).get_layer(layer_name).get_mag(mag)
        spec = view.spec
        if shard_shape is not None:
            spec = replace(spec, shard_shape=Vec3Int.full(shard_shape))
        if compression is not None:
            spec = replace(spec, compression=None if compression == "none" else compression)
        click.echo(repr(plan_rewrite(view.place, view.box, spec, WriteOptions(client=client), memory)))


for added in (
    compress,
    convert,
    copy_command,
    equal_command,
    map_command,
    check_equality,
    convert_zarr,
    copy_dataset,
    upsample,
):
    main.add_command(added)
