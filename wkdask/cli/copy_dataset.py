"""``wkdask copy-dataset``: `wkdask copy` under the name of the webknossos command."""

from __future__ import annotations

import os

import click

from wkdask.cli.copy import copy
from wkdask.cli.ignored import ignored_options
from wkdask.cli.options import shared_command
from wkdask.cli.run import Run
from wkdask.errors import InvalidValueError

__all__ = ["command"]


@shared_command("copy-dataset", "data_format", "shard_shape", "chunk_shape")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--exists-ok/--no-exists-ok", default=False, help="Add the layers to a dataset that is there already."
)
@ignored_options
def command(run: Run, source: str, target: str, exists_ok: bool) -> None:
    """Copy a dataset, as `wkdask copy` does.

    With --exists-ok the layers of SOURCE are added to TARGET; it is refused if one of them is there already.

    \b
    Example:
      wkdask copy-dataset dataset archive --data-format zarr3
    """
    if exists_ok and os.path.lexists(target) and os.listdir(target):
        _copy_into(run, source, target)
    else:
        copy(run, "copy-dataset", source, target)


def _copy_into(run: Run, source: str, target: str) -> None:
    """Copy the layers of a dataset into one that is there."""
    from wkdask import Dataset

    given = {
        "--data-format": run.data_format, "--shard-shape": run.shard_shape, "--chunk-shape": run.chunk_shape
    }  # fmt: skip
    if named := [name for name, value in given.items() if value is not None]:
        raise InvalidValueError(
            f"{named[0]} is for a new dataset; into {target}, which is there, layers are copied as they are"
        )
    dataset, other = Dataset(source), Dataset(target)
    if taken := [name for name in dataset.layers if name in other.layers]:
        raise InvalidValueError(
            f"{target} has a layer {taken[0]!r} already; nothing was copied: delete it there, or copy "
            f"single layers into a new dataset with wkdask copy --layer"
        )
    with run.connected() as client:
        for layer in dataset.layers.values():
            other.add_copy_layer(layer, client=client, progress=run.listening)
            run.say(f"layer {layer.name!r} was copied to {target}")
    run.answer(
        {
            "command": "copy-dataset",
            "dataset": target,
            "was_finished": False,
            "layers": list(dataset.layers),
            "reports": [],
        }
    )
