"""How the command line is laid out: commands that are imported when they are called, and errors of one line."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import click

__all__ = ["CommandGroup", "OneLineUsageError", "one_line"]


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name; one is imported when it is asked for.

    Parameters
    ----------
    modules
        Name of the module, in `wkdask.cli`, of each command.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = dict(modules)
        self._added: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._added and name in self._modules:
            module = importlib.import_module(f"wkdask.cli.{self._modules[name]}")
            self._added[name] = module.command
        return self._added[name]

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._added

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._added[name] = command

    def __delitem__(self, name: str) -> None:
        del self._modules[name]
        self._added.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._modules, *self._added]))

    def __len__(self) -> int:
        return len({*self._modules, *self._added})


class CommandGroup(click.Group):
    """A group that knows its commands by name, and imports the one that is called.

    Parameters
    ----------
    sections
        The commands with a line on each, by the heading under which the help lists them.
    arguments
        Those of `click.Group`.
    """

    def __init__(self, *, sections: Mapping[str, Mapping[str, str]], **arguments: Any) -> None:
        names = [name for section in sections.values() for name in section]
        modules = {name: name.replace("-", "_") for name in names}
        super().__init__(commands=_Commands(modules), **arguments)
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, section by section; none of them is imported for it."""
        width = max(len(name) for section in self.sections.values() for name in section)
        for heading, section in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:<{width}}", line) for name, line in section.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called; of one that is not there, say which was meant."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], list(self.commands), n=3, cutoff=0.5)
            meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(self.commands)}."
            raise click.UsageError(f"No such command {args[0]!r}: {meant}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Return the context; what is not understood becomes one line."""
        with _told_in_one_line():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; what is not understood becomes one line."""
        with _told_in_one_line(ctx):
            return super().invoke(ctx)


class OneLineUsageError(click.UsageError):
    """What was not understood, in one line with what would be."""

    def show(self, file: Any = None) -> None:
        """Print it."""
        click.echo(f"Error: {self.format_message()}", file=file, err=file is None)


class RefusedLineError(OneLineUsageError):
    """The same of a command whose exit code 2 is an answer."""

    exit_code = 1


@contextlib.contextmanager
def _told_in_one_line(above: click.Context | None = None) -> Iterator[None]:
    """Turn what is not understood into one line; `above` is the context of the group, where there is one."""
    try:
        yield
    except OneLineUsageError:
        raise
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        context = error.ctx
        command = None if context is None else context.command
        message = one_line([error.format_message()])
        if context is not None:
            message += "" if message.endswith((".", "?", "!", "?)")) else "."
            if isinstance(error, click.MissingParameter) or "extra argument" in message:
                pieces = context.command.collect_usage_pieces(context)
                message += f" Usage: {' '.join([context.command_path, *pieces])}."
            message += f" See {context.command_path} -h"
        elif above is not None:  # the parser did not say of which command it is
            message += f"{'' if message.endswith('.') else '.'} See wkdask {above.invoked_subcommand} -h"
        told = RefusedLineError if getattr(command, "usage_code", 2) == 1 else OneLineUsageError
        raise told(message, context) from error


def one_line(texts: Iterable[str]) -> str:
    """Return texts, each of which may have several lines, as one line."""
    return "; ".join(" ".join(text.split()) for text in texts if text.strip())
