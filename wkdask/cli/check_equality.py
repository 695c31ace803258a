"""``wkdask check-equality``: `wkdask equal` under the name of the webknossos command."""

from __future__ import annotations

import click

from wkdask.cli.equal import compare
from wkdask.cli.ignored import ignored_options
from wkdask.cli.options import shared_command
from wkdask.cli.run import Run

__all__ = ["command"]


@shared_command("check-equality", "layers", answers=True)
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@ignored_options
def command(run: Run, source: str, target: str) -> None:
    """Compare two datasets, as `wkdask equal` does: exit code 0 where they are equal, 1 where they differ.

    \b
    Example:
      wkdask check-equality dataset archive
    """
    compare(run, "check-equality", source, target)
