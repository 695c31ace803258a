"""The commands by name: what a help of the whole needs, and no more."""

from __future__ import annotations

import click

from wkdask import __version__
from wkdask.cli.group import CommandGroup

__all__ = ["main"]

_COMMANDS = {
    "Commands": {
        "demo": "Make a small dataset, filter it on two worker processes, downsample it, draw it.",
        "info": "Print the layers and mags of a dataset: types, boxes, cubes, bytes on disk.",
        "preview": "Draw one section of every layer, from the mag that fits.",
        "histogram": "Print how often values occur in images.",
        "view": "Show a dataset in the browser, in neuroglancer.",
        "convert": "Turn images, OME-Zarr, or an array in a file of many formats into layers.",
        "export": "Write a layer, or a part, as TIFF, PNG, OME-TIFF, zipped OME-Zarr, NRRD or npy.",
        "copy": "Copy a dataset, into another format, cut or compressed otherwise if wanted.",
        "check": "Check whether a dataset holds what it says.",
        "equal": "Compare two datasets of any formats and cuts.",
        "plan": "Print what it takes to write all of a mag by an expression on it: cubes, tasks, memory.",
        "map": "Call a function for every cube of a layer, and write what it returns into another.",
        "downsample": "Compute the coarser magnifications of layers.",
        "upsample": "Compute finer magnifications by repeating voxels.",
        "compress": "Store the cubes of layers with another compression, in place.",
        "rechunk": "Cut mags into other cubes and chunks, in place.",
    },
    "Commands under the names of webknossos": {
        "check-equality": "As equal.",
        "convert-zarr": "As convert, of a Zarr array.",
        "copy-dataset": "As copy.",
    },
}
"""Each is the `command` of the module of its name."""


@click.group(
    name="wkdask",
    cls=CommandGroup,
    sections=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(__version__, "-V", "--version", prog_name="wkdask")
@click.pass_context
def main(ctx: click.Context) -> None:
    """WEBKNOSSOS datasets, native to Dask.

    \b
    Example:
      wkdask demo
      wkdask convert stack/ dataset --voxel-size 4.6,4.6,45
      wkdask downsample dataset --workers 4
      wkdask info dataset --json
    """
    if ctx.invoked_subcommand is None:  # which is no mistake
        click.echo(ctx.get_help())
