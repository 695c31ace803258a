"""``wkdask upsample``: finer mags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from wkdask.cli.downsample import check_new_mags
from wkdask.cli.ignored import ignored_options
from wkdask.cli.options import shared_command
from wkdask.cli.run import Run
from wkdask.cli.types import MAG, SAMPLING

if TYPE_CHECKING:
    from wkdask.geometry import Mag

__all__ = ["command"]


@shared_command("upsample", "layers", "shard_shape", "chunk_shape", "compression", "dry_run")
@click.argument("dataset", type=click.Path())
@click.option("--from-mag", type=MAG, required=True, help="Start here.")
@click.option("--finest-mag", type=MAG, default="1", show_default=True, help="End here.")
@click.option(
    "--sampling-mode",
    type=SAMPLING,
    default="anisotropic",
    show_default=True,
    help="How the next mag is chosen.",
)
@ignored_options
def command(run: Run, dataset: str, from_mag: Mag, finest_mag: Mag, sampling_mode: str) -> None:
    """Compute finer magnifications by repeating voxels.

    The mags are those that downsampling from --finest-mag to --from-mag goes through. Those that are there already
    are refused.

    \b
    Example:
      wkdask upsample dataset --from-mag 4 --layer color
    """
    import wkdask
    from wkdask.cli.facts import plan_facts, reports_facts

    opened = wkdask.Dataset(dataset)
    chosen = [opened.get_layer(name) for name in run.layers or opened.layers]
    check_new_mags(run, chosen)
    how: dict[str, Any] = {
        "compression": run.compressing,
        "sampling_mode": sampling_mode,
        "chunk_shape": run.chunk_shape,
        "shard_shape": run.shard_shape,
    }
    planned, reports = [], []
    with run.connected() as client:
        for layer in chosen:  # all of them, before the first is computed
            planned += layer.plan_upsample(from_mag, finest_mag, client=client, **how)
        for plan in planned if run.dry_run else ():
            run.say(repr(plan))
        if run.dry_run:
            run.answer({"command": "upsample", "plans": [plan_facts(plan) for plan in planned]})
            return
        for layer in chosen:
            for report in layer.upsample(from_mag, finest_mag, client=client, progress=run.listening, **how):
                reports.append(report)
                run.say(repr(report))
    run.answer({"command": "upsample", "reports": reports_facts(reports)})
