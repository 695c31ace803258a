"""Commands under the names of the webknossos command, with its options, for scripts that call it."""

from __future__ import annotations

import os
from typing import Any

import click

import wkdask
from wkdask.cli.options import connected, plain_errors, scheduler_option
from wkdask.cli.types import INTERPOLATION, MAG, NEW_LAYER, SIDES, SIDES_OF_CUBES, UNIT, VOXEL_SIZE
from wkdask.errors import InvalidValueError
from wkdask.geometry import Mag
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.storage.formats import DATA_FORMATS

__all__ = [
    "check_equality",
    "convert_zarr",
    "copy_dataset",
    "ignored_options",
    "layer_name_option",
    "upsample",
]

SAMPLING = click.Choice(["anisotropic", "isotropic", "constant_z"])
_IGNORED = ("jobs", "distribution_strategy", "job_resources")


def ignored_options(command: Any) -> Any:
    """Accept what says how webknossos runs its processes; a warning says that it does nothing here."""
    for name in reversed(_IGNORED):
        command = click.option(
            f"--{name.replace('_', '-')}", name, callback=_ignored, expose_value=False, hidden=True
        )(command)
    return command


def _ignored(_ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        click.echo(
            f"Note: {param.opts[0]} is ignored: tasks run on the local cores, or with --scheduler on a cluster",
            err=True,
        )


layer_name_option = click.option(
    "--layer-name", "--layer", "layers", multiple=True, help="Only this layer; may be given several times."
)


@click.command(name="check-equality")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@layer_name_option
@scheduler_option
@ignored_options
@click.pass_context
def check_equality(
    ctx: click.Context, source: str, target: str, layers: tuple[str, ...], scheduler: str | None
) -> None:
    """Compare two datasets, as `wkdask equal` does: exit code 0 where they are equal, 1 where they differ.

    \b
    Example:
      wkdask check-equality dataset archive
    """
    from wkdask.cli.copy import equal_command

    ctx.invoke(equal_command, first=source, second=target, layers=layers, scheduler=scheduler)


@click.command(name="copy-dataset")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--data-format", type=click.Choice(DATA_FORMATS), help="How the copy is stored; as SOURCE by default."
)
@click.option("--chunk-shape", type=SIDES, help="Sides of a chunk in voxels.")
@click.option("--shard-shape", type=SIDES_OF_CUBES, help="Sides of a cube in voxels.")
@click.option(
    "--exists-ok/--no-exists-ok", default=False, help="Add the layers to a dataset that is there already."
)
@scheduler_option
@ignored_options
@click.pass_context
def copy_dataset(ctx: click.Context, /, source: str, target: str, exists_ok: bool, **options: Any) -> None:
    """Copy a dataset, as `wkdask copy` does.

    With --exists-ok the layers of SOURCE are added to TARGET; it is refused if one of them is there already.

    \b
    Example:
      wkdask copy-dataset dataset archive --data-format zarr3
    """
    from wkdask.cli.copy import copy_command

    if exists_ok and os.path.lexists(target) and os.listdir(target):
        _copy_into(source, target, **options)
        return
    ctx.invoke(
        copy_command,
        source=source,
        target=target,
        layers=(),
        compression=None,
        bounding_box=None,
        resume=False,
        plan_only=False,
        report_path=None,
        **options,
    )


def _copy_into(source: str, target: str, scheduler: str | None, **options: Any) -> None:
    """Copy the layers of a dataset into one that is there."""
    with plain_errors(), connected(scheduler) as client:
        if given := [name for name, value in options.items() if value is not None]:
            raise InvalidValueError(
                f"--{given[0].replace('_', '-')} is for a new dataset; into {target}, which is there, layers are "
                "copied as they are"
            )
        dataset, other = wkdask.Dataset(source), wkdask.Dataset(target)
        if taken := [name for name in dataset.layers if name in other.layers]:
            raise InvalidValueError(f"{target} has a layer {taken[0]!r} already; nothing was copied")
        for layer in dataset.layers.values():
            other.add_copy_layer(layer, client=client, progress=True)
            click.echo(f"layer {layer.name!r} was copied to {target}")


@click.command(name="convert-zarr")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--voxel-size", type=VOXEL_SIZE, required=True, help="Size of a voxel in --unit, e.g. 4.6,4.6,45."
)
@click.option("--unit", type=UNIT, default="nanometer", show_default=True, help="Of --voxel-size.")
@click.option(
    "--layer-name",
    "layer_name",
    type=NEW_LAYER,
    default="color",
    show_default=True,
    help="Name of the new layer.",
)
@click.option(
    "--is-segmentation-layer/--no-is-segmentation-layer",
    "is_segmentation",
    default=False,
    help="Voxels are ids.",
)
@click.option(
    "--data-format", type=click.Choice(DATA_FORMATS), default="zarr3", show_default=True,
    help="How the layer is stored.",
)  # fmt: skip
@click.option("--chunk-shape", type=SIDES, help="Sides of a chunk; 32 by default.")
@click.option("--shard-shape", type=SIDES_OF_CUBES, help="Sides of a cube in voxels.")
@click.option("--flip-axes", help="Not supported: SOURCE is taken as it is.")
@click.option("--compress/--no-compress", default=True, show_default=True, help="Compress the cubes.")
@click.option(
    "--downsample/--no-downsample", default=True, show_default=True, help="Compute the coarser mags."
)
@click.option("--max-mag", type=MAG, help="End here; by default where a section is about 100 voxels wide.")
@click.option(
    "--interpolation-mode",
    type=INTERPOLATION,
    default="default",
    show_default=True,
    help="How mags are computed.",
)
@click.option("--sampling-mode", type=SAMPLING, default="anisotropic", show_default=True, help="Which mags.")
@scheduler_option
@ignored_options
def convert_zarr(source: str, target: str, **options: Any) -> None:
    """Turn a Zarr array (axes x, y, z or c, x, y, z unless it names them) into a layer, as `wkdask convert` does.

    \b
    Example:
      wkdask convert-zarr array.zarr dataset --voxel-size 4,4,4 --layer-name color
    """
    from wkdask.convert.scales import open_scales
    from wkdask.convert.zarr import convert_scales

    if options["flip_axes"] is not None:
        raise click.UsageError("--flip-axes is not supported; flip the array first, e.g. array[::-1] in Dask")
    compression = "zstd" if options["data_format"] != "wkw" else "lz4"
    compression_given: str | bool = compression if options["compress"] else False
    with plain_errors(), connected(options["scheduler"]) as client:
        size = VoxelSize(options["voxel_size"], options["unit"])
        scales = open_scales(
            source,
            voxel_size=size,
            layer_name=options["layer_name"],
            category="segmentation" if options["is_segmentation"] else "color",
            axes=_axes_of(source),
        )
        for note in scales.notes:
            click.echo(f"Note: {note}", err=True)
        cut = {name: options[name] for name in ("data_format", "chunk_shape", "shard_shape")}
        for report in convert_scales(
            scales, target, client=client, progress=True, compression=compression_given, **cut
        ):
            click.echo(repr(report))
        if not options["downsample"]:
            return
        for layer in scales.layers:
            for report in (
                wkdask.Dataset(target)
                .get_layer(layer.name)
                .downsample(
                    coarsest_mag=options["max_mag"],
                    interpolation_mode=options["interpolation_mode"],
                    sampling_mode=options["sampling_mode"],
                    compression=compression_given,
                    client=client,
                    progress=True,
                )
            ):
                click.echo(repr(report))


def _axes_of(source: str) -> str | None:
    """Return the axes of an array that does not name them: the webknossos command takes it for x, y, z."""
    import zarr

    try:
        array: Any = zarr.open(source, mode="r")
    except Exception:  # what is wrong with it is reported where it is converted
        return None
    names = getattr(getattr(array, "metadata", None), "dimension_names", None)
    if not hasattr(array, "shape") or (names and all(names)):
        return None
    return {3: "xyz", 4: "cxyz"}.get(array.ndim)


@click.command()
@click.argument("source", metavar="DATASET", type=click.Path())
@click.option("--from-mag", type=MAG, required=True, help="Start here.")
@click.option("--finest-mag", type=MAG, default="1", show_default=True, help="End here.")
@click.option("--sampling-mode", type=SAMPLING, default="anisotropic", show_default=True, help="Which mags.")
@layer_name_option
@scheduler_option
@ignored_options
def upsample(
    source: str,
    from_mag: Mag,
    finest_mag: Mag,
    sampling_mode: str,
    layers: tuple[str, ...],
    scheduler: str | None,
) -> None:
    """Compute finer magnifications by repeating voxels.

    \b
    Example:
      wkdask upsample dataset --from-mag 4 --layer color
    """
    with plain_errors(), connected(scheduler) as client:
        dataset = wkdask.Dataset(source)
        for layer in [dataset.get_layer(name) for name in layers] or list(dataset.layers.values()):
            for report in layer.upsample(
                from_mag, finest_mag, sampling_mode=sampling_mode, client=client, progress=True
            ):
                click.echo(repr(report))
