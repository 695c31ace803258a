"""``wkdask demo``: a small dataset from nothing to a picture."""

from __future__ import annotations

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run

__all__ = ["command"]


@shared_command("demo", "overwrite", tasks=False)
@click.argument("path", type=click.Path(), default="wkdask-demo")
def command(run: Run, path: str) -> None:
    """Make a small dataset, filter it on two worker processes, downsample it, draw it.

    With --overwrite the dataset of an earlier demo is replaced, and nothing else.

    \b
    Example:
      wkdask demo tissue --overwrite
    """
    from wkdask.demo.run import run_demo

    def tell(text: str) -> None:
        """Print what the demo does: the result itself is the picture."""
        if run.json or run.quiet:
            run.note(text)
        else:
            run.say(text)

    picture = run_demo(path, overwrite=run.overwrite, echo=tell, progress=run.listening)
    if run.quiet:
        run.say(picture)
    run.answer({"command": "demo", "dataset": path, "picture": picture})
