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

    All cubes are counted; on a terminal a line says how many were found so far.

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
    from wkdask.display.text import dataset_text_counted, layer_text_counted
    from wkdask.geometry.voxel_size import format_bytes
    from wkdask.progress.bar import passing_line

    with passing_line() as show:

        def tell(cubes: int, nbytes: int) -> None:
            if run.listening is True:
                show(f"counting: {cubes} cubes, {format_bytes(nbytes)} on disk")

        chosen = [opened.get_layer(name) for name in run.layers]
        texts = [layer_text_counted(layer, tell) for layer in chosen]
        if not chosen:
            texts = [dataset_text_counted(opened, tell)]
    for text in texts:
        run.say(text)
