"""``wkdask compress``: the cubes of layers stored with another compression, in place."""

from __future__ import annotations

import click

from wkdask.cli.ignored import ignored_options
from wkdask.cli.options import shared_command
from wkdask.cli.run import Run
from wkdask.cli.types import check_cut

__all__ = ["command"]


@shared_command("compress", "layers", "mags", "compression", "resume", "dry_run")
@click.argument("dataset", type=click.Path())
@ignored_options
def command(run: Run, dataset: str) -> None:
    """Store the cubes of layers with another compression, in place.

    Each cube is replaced at once; a dataset that is read meanwhile has both kinds. The same command continues where
    it was stopped, also without --resume: cubes that are stored so already are left alone.

    \b
    Example:
      wkdask compress dataset --layer color --compression lz4hc
    """
    import wkdask
    from wkdask.cli.facts import reports_facts, spec_facts
    from wkdask.geometry.voxel_size import format_bytes, format_count
    from wkdask.storage.formats import fitting_compression

    opened = wkdask.Dataset(dataset)
    chosen = [opened.get_layer(name) for name in run.layers or opened.layers]
    views = [layer.get_mag(mag) for layer in chosen for mag in run.mags or layer.mags]
    for view in views:  # all of them, before the first is stored anew
        spec = view.spec
        check_cut(
            spec.data_format,
            None,
            None,
            run.compressing,
            usual_chunk=spec.chunk_shape,
            usual_shard=spec.shard_shape,
        )
    if run.dry_run:
        plans = []
        for view in views:
            spec, cubes = view.spec, sum(1 for _ in view.cubes_on_disk())
            now = fitting_compression(spec.data_format, run.compressing) or "none"
            nbytes = cubes * spec.cube_nbytes
            plans.append(
                {
                    "label": view.place.label,
                    **spec_facts(spec),
                    "compression": now,
                    "cubes": cubes,
                    "bytes": nbytes,
                }
            )
            run.say(
                f"{view.place.label}: {format_count(cubes, 'cube')}, up to {format_bytes(nbytes)} of voxels, "
                f"to be stored as {now}; now new cubes are stored as {spec.compression or 'none'}"
            )
        run.answer({"command": "compress", "plans": plans})
        return
    reports = []
    with run.connected() as client:
        for view in views:
            compression = run.compressing or None
            report = view.compress(compression=compression, client=client, progress=run.listening)
            if report is not None:
                reports.append(report)
                run.say(repr(report))
            elif next(view.cubes_on_disk(), None) is None:
                run.say(f"{view.place.label}: there is no cube")
            else:
                run.say(f"{view.place.label}: nothing to do, all cubes are stored so already")
    run.answer({"command": "compress", "reports": reports_facts(reports)})
