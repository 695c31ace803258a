"""``wkdask preview``: a picture of a dataset."""

from __future__ import annotations

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run, check_output
from wkdask.cli.types import PNG

__all__ = ["command"]


@shared_command("preview", "layers", tasks=False)
@click.argument("dataset", type=click.Path())
@click.option("-o", "--output", type=PNG, default="preview.png", show_default=True, help="The PNG.")
@click.option("--z", type=int, help="Section, in voxels of mag 1; the middle one by default.")
@click.option(
    "--max-side", type=click.IntRange(16), default=1024, show_default=True, help="Pixels per layer."
)
def command(run: Run, dataset: str, output: str, z: int | None, max_side: int) -> None:
    """Draw one section of every layer, from the mag that fits.

    Layers that are empty are named. Where one cannot be read the exit code is 1, and the picture shows the others.

    \b
    Example:
      wkdask preview dataset -o dataset.png
    """
    import wkdask
    from wkdask.display.preview import draw_sheet

    check_output(output)
    opened = wkdask.Dataset(dataset)
    path, hidden = draw_sheet(opened, output, layers=run.layers or None, z=z, max_side=max_side)
    run.say(path)
    not_shown = {name: str(error) for name, error in hidden.items()}
    for name, why in not_shown.items():
        click.echo(f"layer {name!r} is not shown: {why}", err=True)
    run.answer({"command": "preview", "picture": path, "not_shown": not_shown})
    if any(isinstance(error, OSError) for error in hidden.values()):
        raise click.exceptions.Exit(1)
