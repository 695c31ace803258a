"""``wkdask downsample``: coarser mags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from wkdask.cli.ignored import ignored_options
from wkdask.cli.options import shared_command
from wkdask.cli.run import Run
from wkdask.cli.types import INTERPOLATION, MAG, SAMPLING, check_cut

if TYPE_CHECKING:
    from wkdask.geometry import Mag
    from wkdask.layer import Layer

__all__ = ["check_new_mags", "command"]


@shared_command(
    "downsample", "layers", "shard_shape", "chunk_shape", "compression", "resume", "overwrite", "dry_run"
)
@click.argument("dataset", type=click.Path())
@click.option("--from-mag", type=MAG, help="Start here; by default from the coarsest there is.")
@click.option(
    "--coarsest-mag", type=MAG, help="End here; by default where a section is about 100 voxels wide."
)
@click.option(
    "--interpolation-mode",
    type=INTERPOLATION,
    default="default",
    show_default=True,
    help="default (median for images, mode for segmentations), median, mode, nearest, min, max, bilinear, bicubic.",
)
@click.option(
    "--sampling-mode",
    type=SAMPLING,
    default="anisotropic",
    show_default=True,
    help="How the next mag is chosen.",
)
@ignored_options
def command(
    run: Run,
    dataset: str,
    from_mag: Mag | None,
    coarsest_mag: Mag | None,
    interpolation_mode: str,
    sampling_mode: str,
) -> None:
    """Compute the coarser magnifications of layers.

    All of them in one pass over the mag that is read. With --overwrite mags that are there, or were left
    unfinished, are computed again.

    \b
    Example:
      wkdask downsample dataset --layer color --coarsest-mag 8 --compression lz4hc
      wkdask downsample dataset --workers 4 --memory 4GiB --resume
    """
    import wkdask
    from wkdask.cli.facts import pyramid_facts, reports_facts

    opened = wkdask.Dataset(dataset)
    chosen = [opened.get_layer(name) for name in run.layers or opened.layers]
    check_new_mags(run, chosen)
    how: dict[str, Any] = {
        "from_mag": from_mag,
        "coarsest_mag": coarsest_mag,
        "interpolation_mode": interpolation_mode,
        "compression": run.compressing,
        "sampling_mode": sampling_mode,
        "chunk_shape": run.chunk_shape,
        "shard_shape": run.shard_shape,
        "allow_overwrite": run.overwrite,
        "resume": run.resume,
    }
    plans, reports = [], []
    with run.connected() as client:
        for layer in chosen:  # all of them, before the first is computed
            plan = layer.plan_downsample(client=client, **how)
            plans.append(plan)
            if run.dry_run:
                run.say(_nothing(layer) if plan is None else repr(plan))
        if run.dry_run:
            run.answer(
                {
                    "command": "downsample",
                    "plans": [pyramid_facts(plan) for plan in plans if plan is not None],
                }
            )
            return
        for layer in chosen:
            made = layer.downsample(client=client, progress=run.listening, **how)
            reports += made
            if not made:
                run.say(_nothing(layer))
            for report in made:
                run.say(repr(report))
    run.answer({"command": "downsample", "reports": reports_facts(reports)})


def _nothing(layer: Layer) -> str:
    """Return why there is nothing to do, and how there would be."""
    mags = sorted(record.mag for record in layer.record.mags)
    told = f"layer {layer.name!r}: nothing to do, it has mag {mags[-1]} already"
    if len(mags) == 1:
        return f"{told}; --coarsest-mag makes coarser ones"
    return f"{told}, however that was computed; --from-mag {mags[0]} --overwrite computes it anew"


def check_new_mags(run: Run, layers: list[Layer]) -> None:
    """Refuse a cut, or a compression, that new mags of layers cannot have."""
    if run.shard_shape is None and run.chunk_shape is None and run.compression is None:
        return
    for layer in layers:
        for mag in [record.mag for record in layer.record.mags][:1]:
            spec = getattr(layer.get_mag(mag), "spec", None)
            if spec is not None:
                check_cut(
                    spec.data_format, run.chunk_shape, run.shard_shape, run.compressing,
                    usual_chunk=spec.chunk_shape, usual_shard=spec.shard_shape,
                )  # fmt: skip
