"""What several commands share: types of arguments, the cluster, errors as messages."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from wkdask.errors import WkdaskError
from wkdask.geometry import BoundingBox, Mag

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "BOX",
    "MAG",
    "Numbers",
    "compression_option",
    "connected",
    "plain_errors",
    "plan_option",
    "report_option",
    "resume_option",
    "scheduler_option",
]


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """Three numbers separated by commas."""

    def __init__(self, kind: type[int] | type[float], *, broadcast: bool = False) -> None:
        self._kind = kind
        self._broadcast = broadcast
        self.name = "N or X,Y,Z" if broadcast else "X,Y,Z"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self._kind(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) == 1 and self._broadcast:
            return numbers * 3
        if len(numbers) != 3:
            self.fail(f"expected three numbers such as 4.6,4.6,45, got {value!r}", param, ctx)
        return numbers


class _MagType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """A magnification: 4 or 4-4-2."""

    name = "MAG"

    def convert(self, value: Any, param: Any, ctx: Any) -> Mag:
        """Return the mag."""
        try:
            return Mag(value)
        except WkdaskError as error:
            self.fail(str(error), param, ctx)


class _BoxType(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.3 on
    """A corner and a size."""

    name = "X,Y,Z,W,H,D"

    def convert(self, value: Any, param: Any, ctx: Any) -> BoundingBox:
        """Return the box."""
        try:
            return value if isinstance(value, BoundingBox) else BoundingBox.from_csv(value)
        except WkdaskError:
            self.fail(f"expected a corner and a size such as 0,0,10,512,512,20, got {value!r}", param, ctx)


BOX = _BoxType()
MAG = _MagType()

scheduler_option = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Run the tasks on this Dask scheduler, e.g. tcp://head:8786; without it on the local cores.",
)
resume_option = click.option(
    "--resume",
    is_flag=True,
    help="Go on where the same command stopped that was killed, interrupted or failed.",
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
            raise click.ClickException("--report shows what a scheduler's workers did; it needs --scheduler")
        yield None
        return
    from distributed import Client
    from distributed.comm import get_address_host_port

    try:
        get_address_host_port(address)  # a client of what is no address takes 20 s to be given up
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise click.ClickException(f"no scheduler answers at {address}: {error}") from error
    with client:
        click.echo(f"Scheduler {address}, dashboard {client.dashboard_link}", err=True)
        with _reported(report_path, client):
            yield client


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
    """Turn expected errors into one message and exit code 1; anything else is a bug and keeps its traceback."""
    try:
        yield
    except (WkdaskError, FileNotFoundError, PermissionError) as error:
        notes = getattr(error, "__notes__", ())  # what to do now
        raise click.ClickException("\n".join([str(error), *notes])) from error
