"""What several commands share: types of arguments, the cluster, errors as messages."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from wkdask.errors import WkdaskError
from wkdask.jobs.engines.choice import dashboard_text

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "check_output",
    "compression_option",
    "connected",
    "plain_errors",
    "plan_option",
    "report_option",
    "resume_option",
    "scheduler_option",
]


scheduler_option = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Run the tasks on this Dask scheduler, e.g. tcp://head:8786; without it on the local cores.",
)
resume_option = click.option(
    "--resume",
    is_flag=True,
    help="Go on where the same command stopped; nothing is done if it had ended, and another one is refused.",
)
plan_option = click.option(
    "--plan",
    "plan_only",
    is_flag=True,
    help="Print what would be done (cubes, bytes, memory); write nothing.",
)
compression_option = click.option(
    "--compression",
    type=click.Choice(["none", "lz4", "lz4hc"]),
    default="lz4",
    show_default=True,
    callback=lambda _ctx, _param, value: None if value == "none" else value,
    help="How cubes are stored; lz4hc is slower and 20-40 % smaller on segmentations.",
)


report_option = click.option(
    "--report",
    "report_path",
    type=click.Path(dir_okay=False),
    metavar="RUN.HTML",
    help="Write dask's performance report of the run there (with --scheduler; needs bokeh).",
)


@contextlib.contextmanager
def connected(address: str | None, report_path: str | None = None) -> Iterator[Client | None]:
    """Connect to a scheduler for the time of a command; None means local threads.

    With `report_path`, dask's performance report of that time is written there.
    """
    if address is None:
        if report_path is not None:
            raise click.UsageError("--report shows what a scheduler's workers did; it needs --scheduler")
        yield None
        return
    from distributed import Client
    from distributed.comm import get_address_host_port

    try:
        get_address_host_port(address)  # a client of what is no address takes 20 s to be given up
    except (ValueError, OSError) as error:
        raise click.BadParameter(
            f"expected an address such as tcp://head:8786, got {address!r}: {error}",
            param_hint="'--scheduler'",
        ) from error
    if report_path is not None:
        check_output(report_path)
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise click.ClickException(f"no scheduler answers at {address}: {error}") from error
    with client:
        click.echo(f"Scheduler {address}, {dashboard_text(client)}", err=True)
        with _reported(report_path, client):
            yield client


def check_output(path: str) -> None:
    """Refuse a file that could not be written at the end, before the work begins."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise click.ClickException(f"{path} is a folder; give the name of a file")
    if not os.path.isdir(folder):
        raise click.ClickException(f"there is no folder {folder}: {path} could not be written")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise click.ClickException(f"{path} may not be written by this user")


@contextlib.contextmanager
def _reported(path: str | None, client: Client) -> Iterator[None]:
    """Write dask's performance report of what runs meanwhile; None for no report."""
    if path is None:
        yield
        return
    if importlib.util.find_spec("bokeh") is None:
        raise click.ClickException("--report needs bokeh, here and on the scheduler: pip install bokeh")
    from distributed import performance_report

    with client.as_current(), performance_report(path):
        yield


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn expected errors into one message and exit code 1; anything else is a bug and keeps its traceback.

    What the system says of a file (it is not there, a disk is full, a part of a path is no folder) is expected.
    Exit code 2 is for what could not be understood, and had no effect: see `wkdask.cli.types`.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        for note in getattr(error, "__notes__", ()):
            click.echo(note, err=True)
        raise
    except (WkdaskError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # who reads the output has gone: click ends quietly
            raise
        notes = getattr(error, "__notes__", ())  # what to do now
        raise click.ClickException("\n".join([_told(error), *notes])) from error


def _told(error: WkdaskError | OSError) -> str:
    """Return an error in words; the system's own begin with a number, and name the file last."""
    if isinstance(error, WkdaskError) or error.strerror is None or error.filename is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"
