"""Options of the webknossos command that say how its processes run: accepted, without effect."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["ignored_options"]

_IGNORED = ("jobs", "distribution_strategy", "job_resources")


def ignored_options(command: Any) -> Any:
    """Accept the options with which webknossos sets up its processes; warn that they have no effect here."""
    for name in reversed(_IGNORED):
        command = click.option(
            f"--{name.replace('_', '-')}", name, callback=_ignored, expose_value=False, hidden=True
        )(command)
    return command


def _ignored(_ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        click.echo(
            f"Note: {param.opts[0]} is ignored: tasks run on threads of this process, with --workers on as many "
            f"processes, with --scheduler on a cluster",
            err=True,
        )
