"""The options that commands share: each has one name, one type and one text, wherever it is."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import click

from wkdask.cli.run import Run, plain_errors
from wkdask.cli.types import BOX, BYTES, COMPRESSION, DATA_FORMAT, MAG, SIDES, SIDES_OF_CUBES

__all__ = ["SHARED", "AliasedOption", "SharedCommand", "shared_command"]


class AliasedOption(click.Option):
    """An option with older spellings, which work and are not shown.

    Parameters
    ----------
    names
        The parameter's name, the option, and its short form if it has one.
    aliases
        Other spellings.
    arguments
        Those of `click.Option`.
    """

    def __init__(self, names: tuple[str, ...], aliases: tuple[str, ...] = (), **arguments: Any) -> None:
        super().__init__([*names, *aliases], **arguments)
        self.aliases = aliases

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return what the help says, without the aliases."""
        opts = self.opts
        self.opts = [opt for opt in opts if opt not in self.aliases]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = opts

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return how an error calls the option."""
        return " / ".join(repr(opt) for opt in self.opts if opt not in self.aliases)


def _flag(field: str, option: str, text: str, *short: str, aliases: tuple[str, ...] = ()) -> AliasedOption:
    return AliasedOption((field, option, *short), aliases, is_flag=True, help=text)


SHARED: dict[str, Callable[[], click.Option]] = {
    "layers": lambda: AliasedOption(
        ("layers", "--layer"), ("--layer-name",), multiple=True, metavar="NAME",
        help="The layer; may be given several times. All layers by default.",
    ),
    "mags": lambda: AliasedOption(
        ("mags", "--mag"), type=MAG, multiple=True,
        help="The mag, such as 4 or 4-4-2; may be given several times. All mags by default.",
    ),
    "bbox": lambda: AliasedOption(
        ("bbox", "--bbox"), ("--box",), type=BOX,
        help="Only this part: corner and size, in voxels of mag 1. All by default.",
    ),
    "data_format": lambda: AliasedOption(
        ("data_format", "--data-format"), type=DATA_FORMAT,
        help="How layers are stored: WKW, Zarr 3 or Zarr 2. As what is read by default; new layers as WKW.",
    ),
    "shard_shape": lambda: AliasedOption(
        ("shard_shape", "--shard-shape"), type=SIDES_OF_CUBES,
        help="Sides of a cube in voxels; in WKW one power of two. As those of what is read by default, or as suits "
        "its size.",
    ),
    "chunk_shape": lambda: AliasedOption(
        ("chunk_shape", "--chunk-shape"), type=SIDES,
        help="Sides of a chunk in voxels. As those of what is read by default, else 32.",
    ),
    "compression": lambda: AliasedOption(
        ("compression", "--compression"), type=COMPRESSION,
        help="How cubes are stored; lz4hc is slower and 20-40 % smaller on segmentations; lz4 and lz4hc are "
        "zstd in Zarr, which has the last four. By default lz4; copies, plans and rechunks keep what there is.",
    ),
    "resume": lambda: _flag(
        "resume", "--resume",
        "Go on where the same command stopped; nothing is done if it had ended, and another one is refused.",
    ),
    "overwrite": lambda: _flag("overwrite", "--overwrite", "Replace what an earlier command left there."),
    "dry_run": lambda: _flag(
        "dry_run", "--dry-run", "Print what would be done (cubes, bytes, memory); write nothing.", "-n",
        aliases=("--plan",),
    ),
    "scheduler": lambda: AliasedOption(
        ("scheduler", "--scheduler"), metavar="ADDRESS",
        help="Run the tasks on this Dask scheduler, e.g. tcp://head:8786. On threads of this process by default.",
    ),
    "workers": lambda: AliasedOption(
        ("workers", "--workers"), type=click.IntRange(1), metavar="N",
        help="Start N worker processes on this machine for the tasks, and end them afterwards.",
    ),
    "memory": lambda: AliasedOption(
        ("memory", "--memory"), type=BYTES,
        help="Memory of each of the --workers, e.g. 4GiB; for `wkdask plan` without them that of a task.",
    ),
    "report": lambda: AliasedOption(
        ("report", "--report"), type=click.Path(dir_okay=False), metavar="RUN.HTML",
        help="Write dask's performance report of the run there (with --scheduler or --workers; needs bokeh).",
    ),
    "json": lambda: _flag("json", "--json", "Print one JSON object on stdout instead of text (docs/commands.md)."),
    "progress": lambda: AliasedOption(
        ("progress", "--progress"), type=click.Choice(["auto", "json", "none"]), default="auto", show_default=True,
        help="On stderr: a bar or lines of text (auto), lines of JSON, or none.",
    ),
    "quiet": lambda: _flag("quiet", "--quiet", "Print nothing but the result and errors.", "-q"),
    "verbose": lambda: _flag("verbose", "--verbose", "Log what is done, and show the traceback of an error.", "-v"),
}  # fmt: skip
"""Makes each option, by its field in `Run`."""

_OF_TASKS = ("scheduler", "workers", "memory", "report")
_OF_PRINTING = ("json", "progress", "quiet", "verbose")


class SharedCommand(click.Command):
    """A command whose help has the shared options in a section of their own.

    Parameters
    ----------
    shared
        The names of the shared parameters.
    usage_code
        The exit code where the command line is not understood.
    arguments
        Those of `click.Command`.
    """

    def __init__(self, *, shared: tuple[str, ...], usage_code: int = 2, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.shared = shared
        self.usage_code = usage_code

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, in two sections."""
        last = ("resume", "overwrite", "dry_run", *_OF_TASKS, *_OF_PRINTING)
        own: list[tuple[str, str]] = []
        run: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                (run if param.name in last or "--help" in param.opts else own).append(record)
        for heading, records in (("Options", own), ("How it runs, and what it prints", run)):
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


@contextlib.contextmanager
def _fewer_collections() -> Iterator[None]:
    """Let the garbage collector look seldom: imports make many objects, none of them garbage."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def shared_command(
    name: str,
    *shared: str,
    tasks: bool = True,
    memory_alone: bool = False,
    answers: bool = False,
    usage_code: int = 2,
    hidden: bool = False,
) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a command of a function of a `Run` and of the command's own options.

    Parameters
    ----------
    name
        Of the command.
    shared
        The fields of `Run` that it has options for, beside those of where tasks run and of what is printed.
    tasks
        Whether it has tasks, which may run elsewhere.
    memory_alone
        Whether --memory means something without --workers.
    answers
        Whether exit code 1 is an answer, and an error has 2.
    usage_code
        The exit code where the command line is not understood.
    hidden
        Whether the list of commands leaves it out.
    """
    fields = (*shared, *(_OF_TASKS if tasks else ()), *_OF_PRINTING)

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def call(**given: Any) -> None:
            run = Run(**{field: given.pop(field) for field in fields})
            run.check(memory_alone=memory_alone)
            with plain_errors(verbose=run.verbose, answers=answers), _fewer_collections():
                function(run, **given)

        own: list[click.Parameter] = list(reversed(getattr(function, "__click_params__", [])))
        return SharedCommand(
            shared=fields,
            usage_code=usage_code,
            name=name,
            params=[*own, *(SHARED[field]() for field in fields)],
            callback=call,
            help=inspect.getdoc(function),
            hidden=hidden,
        )

    return decorate
