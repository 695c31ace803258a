"""``wkdask check``: whether a dataset holds what it says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run

if TYPE_CHECKING:
    from wkdask.check.findings import CheckReport
    from wkdask.check.repair import Repair

__all__ = ["command"]

FOUND = 2
"""The exit code where something was found; 1 is that of a check that could not run."""


@shared_command("check", "layers", usage_code=1)
@click.argument("dataset", type=click.Path())
@click.option("--deep", is_flag=True, help="Decode every cube, and compare coarser mags with finer ones.")
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="With --deep: compare N parts of each coarser mag, of some MiB each. All by default.",
)
@click.option(
    "--metadata-only", is_flag=True, help="Look at no cube, only at properties, folders and metadata."
)
@click.option(
    "--repair", is_flag=True, help="Mend what cannot lose a voxel: print it, ask, do it, check again."
)
@click.option("--yes", is_flag=True, help="With --repair: do not ask.")
def command(
    run: Run, dataset: str, deep: bool, sample: int | None, metadata_only: bool, repair: bool, yes: bool
) -> None:
    """Check whether a dataset holds what it says.

    Properties against folders and metadata, the header and index of every cube, what dead jobs and other programs
    have left, and what a WEBKNOSSOS server needs. The exit code is 0 where there is neither an error nor a warning,
    2 where there is, 1 where the check could not run.

    \b
    Example:
      wkdask check dataset
      wkdask check dataset --deep --workers 4
      wkdask check dataset --deep --repair --yes
    """
    from wkdask.check.repair import mend
    from wkdask.check.run import check_dataset
    from wkdask.jobs.job import WriteOptions
    from wkdask.progress.bar import listeners_for

    _check_options(deep=deep, sample=sample, metadata_only=metadata_only, repair=repair, yes=yes)
    done: list[Repair] = []
    with run.connected() as client:
        options = WriteOptions(client=client, listeners=listeners_for(run.listening))

        def check() -> CheckReport:
            return check_dataset(
                dataset,
                run.layers or None,
                deep=deep,
                sample=sample,
                metadata_only=metadata_only,
                options=options,
            )

        report = check()
        if repair:
            report, done = mend(
                report, check, options, lambda repairs: _agreed(run, report, repairs, yes=yes)
            )
    run.say(str(report))
    run.answer({"command": "check", **report.to_json(), "repaired": [each.what for each in done]})
    if not report.is_clean:
        sys.exit(FOUND)


def _check_options(*, deep: bool, sample: int | None, metadata_only: bool, repair: bool, yes: bool) -> None:
    """Refuse options that do not go together."""
    context = click.get_current_context()
    if metadata_only and deep:
        raise click.UsageError(
            "--metadata-only looks at no cube, --deep at all voxels: give one of them", context
        )
    if sample is not None and not deep:
        raise click.UsageError("--sample is of what --deep compares: give both", context)
    if yes and not repair:
        raise click.UsageError("--yes agrees to what --repair does: give both", context)


def _agreed(run: Run, report: CheckReport, repairs: Sequence[Repair], *, yes: bool) -> bool:
    """Print what would be done, and ask; what was found is printed first."""
    run.say(str(report))
    run.note("To repair it:")
    for each in repairs:
        run.note(f"  {each.what} ({each.code})")
    if yes:
        return True
    if not sys.stdin.isatty():
        run.note("Nothing was changed: --yes agrees to the repairs where there is no terminal.")
        return False
    return click.confirm("Do it?", err=True)
