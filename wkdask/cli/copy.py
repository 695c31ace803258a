"""``wkdask copy`` and ``wkdask equal``: a dataset into any format and cut, and whether two hold the same."""

from __future__ import annotations

import sys
from typing import Any

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
from wkdask.cli.types import BOX, SIDES, SIDES_OF_CUBES
from wkdask.dataset.copies import is_copied
from wkdask.storage.formats import DATA_FORMATS
from wkdask.storage.protocol import COMPRESSIONS, ZARR_COMPRESSIONS

__all__ = ["copy_command", "equal_command"]


class _CannotCompareError(click.ClickException):
    """A comparison could not be made: the exit code is that of `cmp` and `diff`."""

    exit_code = 2


@click.command(name="copy")
@click.argument("source", metavar="SRC", type=click.Path())
@click.argument("target", metavar="DST", type=click.Path())
@click.option("--layer", "layers", multiple=True, help="Only this layer; may be given several times.")
@click.option(
    "--data-format",
    type=click.Choice(DATA_FORMATS),
    help="How the copy is stored; as each layer is by default.",
)
@click.option(
    "--shard-shape",
    type=SIDES_OF_CUBES,
    help="Sides of a cube in voxels; as they are by default.",
)
@click.option(
    "--chunk-shape",
    type=SIDES,
    help="Sides of a chunk in voxels; as they are by default.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", *filter(None, COMPRESSIONS), *ZARR_COMPRESSIONS]),
    help="How cubes (lz4, lz4hc) or chunks of Zarr are stored; as they are by default.",
)
@click.option(
    "--bbox",
    "bounding_box",
    type=BOX,
    help="What is copied, in voxels of mag 1: corner and size; all by default.",
)
@resume_option
@plan_option
@report_option
@scheduler_option
def copy_command(source: str, target: str, **options: Any) -> None:
    """Copy a dataset, into another format, cut or compressed otherwise if wanted.

    All layers with their mags, view configurations, transformations and attachments. Where format, cut and
    compression stay, files are copied as they are. A layer is listed in DST when it is complete.

    \b
    Example:
      wkdask copy dataset archive --data-format zarr3 --shard-shape 256 --compression zstd
      wkdask copy dataset cutout --layer color --bbox 1024,1024,0,2048,2048,512
    """
    word = options["compression"]
    arguments = {
        "layers": options["layers"] or None,
        "data_format": options["data_format"],
        "shard_shape": options["shard_shape"],
        "chunk_shape": options["chunk_shape"],
        "compression": True if word is None else None if word == "none" else word,
        "bounding_box": options["bounding_box"],
    }
    with plain_errors(), connected(options["scheduler"], options["report_path"]) as client:
        dataset = wkdask.Dataset(source)
        if options["plan_only"]:
            click.echo(repr(dataset.plan_copy(client=client, **arguments)))
            return
        finished = options["resume"] and is_copied(target)
        copy = dataset.copy_dataset(
            target, client=client, resume=options["resume"], progress=True, **arguments
        )
        click.echo(repr(copy))
        if finished:
            click.echo("The same copy was finished by an earlier run; nothing was done")


@click.command(name="equal")
@click.argument("first", metavar="A", type=click.Path())
@click.argument("second", metavar="B", type=click.Path())
@click.option("--layer", "layers", multiple=True, help="Only this layer; may be given several times.")
@scheduler_option
def equal_command(first: str, second: str, layers: tuple[str, ...], scheduler: str | None) -> None:
    """Compare two datasets of any formats and cuts: properties, and every voxel in the layers' boxes.

    Prints the first difference: layer by layer of A, mag by mag, cube by cube, x fastest. The exit code is 0 where
    they are equal, 1 where they differ, 2 where they cannot be compared.

    \b
    Example:
      wkdask equal dataset archive
    """
    try:
        with plain_errors(), connected(scheduler) as client:
            found = wkdask.Dataset(first).first_difference(
                second, layers or None, client=client, progress=True
            )
    except click.UsageError:
        raise
    except click.ClickException as error:
        raise _CannotCompareError(error.message) from error
    if found is not None:
        click.echo(str(found))
        sys.exit(1)
    click.echo(f"{first} and {second} are equal")
