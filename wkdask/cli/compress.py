"""``wkdask compress``: the cubes of layers stored with another compression, in place."""

from __future__ import annotations

import click

import wkdask
from wkdask.cli.aliases import ignored_options
from wkdask.cli.options import compression_option, connected, plain_errors, scheduler_option
from wkdask.cli.types import MAG
from wkdask.geometry import Mag

__all__ = ["compress"]


@click.command()
@click.argument("dataset", type=click.Path())
@click.option(
    "--layer", "--layer-name", "layers", multiple=True, help="Only this layer; may be given several times."
)
@click.option("--mag", "mags", type=MAG, multiple=True, help="Only this mag; may be given several times.")
@compression_option
@scheduler_option
@ignored_options
def compress(
    dataset: str,
    layers: tuple[str, ...],
    mags: tuple[Mag, ...],
    compression: str | None,
    scheduler: str | None,
) -> None:
    """Store the cubes of WKW layers with another compression, in place.

    Each cube is replaced at once; a dataset that is read meanwhile has both kinds. The same command goes on where
    it was stopped: cubes that are stored so already are left alone.

    \b
    Example:
      wkdask compress dataset --layer color --compression lz4hc
    """
    with plain_errors(), connected(scheduler) as client:
        opened = wkdask.Dataset(dataset)
        chosen = [opened.get_layer(name) for name in layers or opened.layers]
        views = [layer.get_mag(mag) for layer in chosen for mag in mags or layer.mags]
        for view in views:
            report = view.compress(compression=compression, client=client, progress=True)
            if report is not None:
                click.echo(repr(report))
            elif next(view.cubes_on_disk(), None) is None:
                click.echo(f"{view.place.label}: there is no cube")
            else:
                click.echo(f"{view.place.label}: nothing to do, all cubes are stored so already")
