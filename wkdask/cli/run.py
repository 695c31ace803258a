"""One call of a command: what the shared options say, where its tasks run, what it prints, how it fails."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from wkdask.cli.group import one_line
from wkdask.errors import WkdaskError

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.geometry import BoundingBox, Mag
    from wkdask.progress.bar import ProgressLike

__all__ = ["Run", "check_output", "plain_errors"]


@dataclass(frozen=True, slots=True)
class Run:
    """What the shared options say; those that a command does not have are as if they were not given."""

    layers: tuple[str, ...] = ()
    """Names of layers; all where there is none."""
    mags: tuple[Mag, ...] = ()
    """Mags; all where there is none."""
    bbox: BoundingBox | None = None
    """A part, in voxels of mag 1."""
    data_format: str | None = None
    """How something is stored."""
    shard_shape: tuple[int, int, int] | None = None
    """Sides of a cube in voxels."""
    chunk_shape: tuple[int, int, int] | None = None
    """Sides of a chunk in voxels."""
    compression: str | None = None
    """``"none"``, or a name; None where nothing was said."""
    scheduler: str | None = None
    """Address of the scheduler on which tasks run."""
    workers: int | None = None
    """Processes that are started for the tasks."""
    memory: int | None = None
    """Bytes of each of them; of a task, where there are none and something is planned."""
    resume: bool = False
    """Go on where the same command stopped."""
    overwrite: bool = False
    """Replace what is there."""
    dry_run: bool = False
    """Say what would be done; do nothing."""
    report: str | None = None
    """Where dask's performance report of the run goes."""
    json: bool = False
    """Print one JSON object instead of text."""
    progress: str = "auto"
    """``"auto"``, ``"json"`` or ``"none"``."""
    quiet: bool = False
    """Print nothing but the result and errors."""
    verbose: bool = False
    """Log at the level INFO, and show tracebacks."""

    def check(self, *, memory_alone: bool = False) -> None:
        """Refuse options that do not go together.

        Parameters
        ----------
        memory_alone
            Whether `memory` means something without `workers`.
        """
        context = click.get_current_context()
        clusters = self.scheduler is not None or self.workers is not None
        if self.scheduler is not None and self.workers is not None:
            raise click.UsageError(
                "--scheduler connects to workers that are there, --workers starts some: give one of them",
                context,
            )
        if self.memory is not None and self.scheduler is not None and not memory_alone:
            raise click.UsageError(
                "the workers of --scheduler have the memory that they were started with: leave out --memory",
                context,
            )
        if self.memory is not None and self.workers is None and not memory_alone:
            raise click.UsageError(
                "--memory is that of each of the --workers: say how many, as in --workers 4 --memory 4GiB",
                context,
            )
        if self.report is not None and not clusters:
            raise click.UsageError(
                "--report shows what workers did; it needs --scheduler or --workers", context
            )
        if self.scheduler is not None:
            _check_address(self.scheduler)
        if self.quiet and self.progress == "json":
            raise click.UsageError(
                "--quiet shows no progress, --progress json does: give one of them", context
            )

    @property
    def listening(self) -> ProgressLike:
        """What a call of the API gets as ``progress=``."""
        if self.quiet or self.progress == "none":
            return False
        if self.progress == "json":
            from wkdask.cli.events import JsonLines

            return JsonLines()
        return True

    @property
    def compressing(self) -> str | Literal[False]:
        """What a call of the API gets as ``compression=`` for what is new: lz4 where nothing was said."""
        return False if self.compression == "none" else self.compression or "lz4"

    def say(self, text: str) -> None:
        """Print a line of the result, for people."""
        if not self.json:
            click.echo(text)

    def note(self, text: str) -> None:
        """Print what is to be known beside the result, on stderr."""
        if self.quiet:
            return
        click.echo(json.dumps({"event": "note", "text": text}) if self.progress == "json" else text, err=True)

    def answer(self, facts: Mapping[str, Any]) -> None:
        """Print the result as one JSON object, if that was asked for."""
        if self.json:
            click.echo(json.dumps(facts, ensure_ascii=False))

    @contextlib.contextmanager
    def connected(self) -> Iterator[Client | None]:
        """Connect to the scheduler, or start workers, for the time of a command; None means local threads."""
        if self.scheduler is None and self.workers is None:
            yield None
            return
        if self.report is not None:
            check_output(self.report)
        with self._client() as client, _reported(self.report, client):
            yield client

    @contextlib.contextmanager
    def _client(self) -> Iterator[Client]:
        """Yield a client of the scheduler, or of workers that end with it."""
        from distributed import Client, LocalCluster

        from wkdask.jobs.engines.choice import dashboard_text

        address = self.scheduler
        if address is None:
            with contextlib.ExitStack() as stack:
                try:
                    with _deaf_children():
                        cluster = stack.enter_context(
                            LocalCluster(
                                n_workers=self.workers,
                                processes=True,
                                memory_limit=self.memory or "auto",
                                dashboard_address=None,
                                silence_logs=logging.WARNING if self.verbose else logging.CRITICAL,
                            )
                        )
                except (OSError, RuntimeError, TimeoutError) as error:
                    raise click.ClickException(
                        f"{self.workers} worker processes could not be started ({error}): give fewer --workers, or "
                        f"none to run on threads"
                    ) from error
                client = stack.enter_context(Client(cluster, set_as_default=False))
                self.note(f"{self.workers} worker process{'es' * (self.workers != 1)} on this machine")
                yield client
            return
        try:
            client = Client(address, timeout=10, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise click.ClickException(
                f"no scheduler answers at {address} ({one_line([str(error)])}): start one there (dask scheduler), "
                f"or give --workers to start processes on this machine"
            ) from error
        with client:
            self.note(f"Scheduler {address}, {dashboard_text(client)}")
            yield client


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Let processes that start meanwhile not hear Ctrl-C, which a terminal sends to all: this process ends them.

    What they inherit is that the signal is blocked. Here it waits until they have started.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # when it starts, it lets the signal through in its thread
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_address(address: str) -> None:
    """Refuse what is no address: a client would take 20 s to give it up."""
    from distributed.comm import get_address_host_port

    try:
        get_address_host_port(address)
    except (ValueError, OSError) as error:
        raise click.BadParameter(
            f"expected an address such as tcp://head:8786, got {address!r}: {error}",
            click.get_current_context(),
            param_hint="'--scheduler'",
        ) from error


@contextlib.contextmanager
def _reported(path: str | None, client: Client) -> Iterator[None]:
    """Write dask's performance report of what runs meanwhile; None for no report."""
    if path is None:
        yield
        return
    import importlib.util

    if importlib.util.find_spec("bokeh") is None:
        raise click.ClickException("--report needs bokeh, here and on the scheduler: pip install bokeh")
    from distributed import performance_report

    with client.as_current(), performance_report(path):
        yield


def check_output(path: str) -> None:
    """Refuse a file that could not be written at the end, before the work begins."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise click.ClickException(f"{path} is a folder; give the name of a file")
    if not os.path.isdir(folder):
        raise click.ClickException(
            f"there is no folder {folder}: {path} could not be written; make the folder, or name another"
        )
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise click.ClickException(f"{path} may not be written by this user; name another file")


class _CannotError(click.ClickException):
    """What cannot be done, of a command whose exit code 1 is an answer: as that of `cmp` and `diff`."""

    exit_code = 2


@contextlib.contextmanager
def plain_errors(*, verbose: bool = False, answers: bool = False) -> Iterator[None]:
    """Turn errors into one line and an exit code.

    What the system says of a file (it is not there, a disk is full, a part of a path is no folder) is expected. An
    error that is not is a fault of wkdask: the line says so.

    Parameters
    ----------
    verbose
        Print the traceback as well, and log at the level INFO.
    answers
        Whether exit code 1 is an answer of the command: that of an error is 2 then.
    """
    failed = _CannotError if answers else click.ClickException
    with _logged(verbose):
        try:
            yield
        except KeyboardInterrupt as error:
            for note in getattr(error, "__notes__", ()):
                click.echo(note, err=True)
            raise
        except (click.UsageError, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # of a broken pipe: who reads the output has gone, and click ends quietly
        except click.ClickException as error:
            raise failed(one_line([error.message])) from error
        except (WkdaskError, OSError) as error:
            if verbose:
                traceback.print_exc()
            notes = getattr(error, "__notes__", ())  # what to do now
            raise failed(one_line([_told(error), *notes])) from error
        except Exception as error:
            if verbose:
                traceback.print_exc()
            told = f"unexpected {type(error).__name__}: {error}"
            advice = "this is a fault of wkdask, please report it; --verbose shows the traceback"
            raise failed(one_line([told, advice])) from error


@contextlib.contextmanager
def _logged(verbose: bool) -> Iterator[None]:
    """Print what wkdask logs from the level INFO on, if that is wanted."""
    if not verbose:
        yield
        return
    logger = logging.getLogger("wkdask")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def _told(error: WkdaskError | OSError) -> str:
    """Return an error in words; the system's own begin with a number, and name the file last."""
    if isinstance(error, WkdaskError) or error.strerror is None or error.filename is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"
