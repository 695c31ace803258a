"""``wkdask info``: what a dataset holds."""

from __future__ import annotations

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run

__all__ = ["command"]


@shared_command("info", "layers", tasks=False)
@click.argument("dataset", type=click.Path())
def command(run: Run, dataset: str) -> None:
    """Print the layers and mags of a dataset: types, boxes, cubes, bytes on disk.

    \b
    Example:
      wkdask info dataset
      wkdask info dataset --layer color --json
    """
    import wkdask
    from wkdask.cli.facts import dataset_facts

    opened = wkdask.Dataset(dataset)
    if run.json:
        run.answer({"command": "info", **dataset_facts(opened, run.layers)})
        return
    if not run.layers:
        from wkdask.display.text import dataset_text

        run.say(dataset_text(opened))
        return
    from wkdask.display.text import layer_text

    for layer in [opened.get_layer(name) for name in run.layers]:
        run.say(layer_text(layer))
