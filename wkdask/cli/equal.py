"""``wkdask equal``: whether two datasets hold the same."""

from __future__ import annotations

import sys

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run

__all__ = ["command", "compare"]


@shared_command("equal", "layers", answers=True)
@click.argument("first", metavar="A", type=click.Path())
@click.argument("second", metavar="B", type=click.Path())
def command(run: Run, first: str, second: str) -> None:
    """Compare two datasets of any formats and cuts: properties, and every voxel in the layers' boxes.

    Prints the first difference: layer by layer of A, mag by mag, cube by cube, x fastest. The exit code is 0 where
    they are equal, 1 where they differ, 2 where they cannot be compared.

    \b
    Example:
      wkdask equal dataset archive
    """
    compare(run, "equal", first, second)


def compare(run: Run, name: str, first: str, second: str) -> None:
    """Do it, and exit with 1 where they differ."""
    import wkdask
    from wkdask.cli.facts import difference_facts

    opened = wkdask.Dataset(first)
    other = wkdask.Dataset(second)
    with run.connected() as client:
        found = opened.first_difference(other, run.layers or None, client=client, progress=run.listening)
    difference = None if found is None else difference_facts(found)
    run.answer({"command": name, "equal": found is None, "difference": difference})
    if found is not None:
        run.say(str(found))
        sys.exit(1)
    run.say(f"{first} and {second} are equal")
