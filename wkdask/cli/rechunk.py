"""``wkdask rechunk``: mags cut into other cubes and chunks, in place."""

from __future__ import annotations

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run
from wkdask.cli.types import check_cut

__all__ = ["command"]


@shared_command("rechunk", "layers", "mags", "shard_shape", "chunk_shape", "compression", "dry_run")
@click.argument("dataset", type=click.Path())
def command(run: Run, dataset: str) -> None:
    """Cut mags into other cubes and chunks, in place.

    The new cubes grow beside the old ones, and the properties switch to them when all are there: until then the mag
    is read as before. A mag that is cut and stored so already is left alone.

    \b
    Example:
      wkdask rechunk dataset --layer color --shard-shape 512
      wkdask rechunk dataset --mag 1 --shard-shape 1024 --chunk-shape 32 --dry-run
    """
    import wkdask
    from wkdask.cli.facts import reports_facts, spec_facts
    from wkdask.geometry import Vec3Int
    from wkdask.geometry.voxel_size import format_bytes, format_count
    from wkdask.storage.formats import fitting_compression

    if run.shard_shape is None and run.chunk_shape is None:
        raise click.UsageError(
            "say how it is to be cut: --shard-shape 512 and --chunk-shape 32, or one of them",
            click.get_current_context(),
        )
    opened = wkdask.Dataset(dataset)
    chosen = [opened.get_layer(name) for name in run.layers or opened.layers]
    views = [layer.get_mag(mag) for layer in chosen for mag in run.mags or layer.mags]
    work, plans, reports = [], [], []
    for view in views:  # all of them, before the first is cut
        spec = view.spec
        named = fitting_compression(
            spec.data_format, (spec.compression or False) if run.compression is None else run.compressing
        )
        check_cut(
            spec.data_format, run.chunk_shape, run.shard_shape, named or False,
            usual_chunk=spec.chunk_shape, usual_shard=spec.shard_shape,
        )  # fmt: skip
        shard = Vec3Int(run.shard_shape or spec.shard_shape)
        chunk = Vec3Int(run.chunk_shape or spec.chunk_shape).pairmin(shard)
        if spec.data_format == "zarr":
            shard = chunk = Vec3Int(run.shard_shape or run.chunk_shape or spec.shard_shape)
        if (shard, chunk, named) == (spec.shard_shape, spec.chunk_shape, spec.compression):
            run.say(f"{view.place.label}: nothing to do, it is cut so already")
        else:
            work.append((view, shard, chunk, named))
    if run.dry_run:
        for view, shard, chunk, named in work:
            nbytes = view.box.volume() * view.spec.bytes_per_voxel
            cubes = {"before": sum(1 for _ in view.cubes_on_disk()), "after": 0}
            if not view.box.is_empty():
                cubes["after"] = len(type(view.spec.grid)(shard).cubes(view.box))
            plans.append(
                {
                    "label": view.place.label,
                    **spec_facts(view.spec),
                    "shard_shape": list(shard),
                    "chunk_shape": list(chunk),
                    "compression": named or "none",
                    "cubes_before": cubes["before"],
                    "cubes": cubes["after"],
                    "bytes": nbytes,
                }
            )
            run.say(
                f"{view.place.label}: {format_count(cubes['before'], 'cube')} of {view.spec.shard_shape} voxels "
                f"to be cut into up to {cubes['after']} of {shard}, chunks of {chunk}, compression "
                f"{named or 'none'}; {format_bytes(nbytes)} of voxels"
            )
        run.answer({"command": "rechunk", "plans": plans})
        return
    with run.connected() as client:
        for view, shard, chunk, named in work:
            report = view.rechunk(
                chunk, shard, named is not None, compression=named, client=client, progress=run.listening
            )
            if report is None:
                run.say(f"{view.place.label}: there is no cube")
            else:
                reports.append(report)
                run.say(repr(report))
    run.answer({"command": "rechunk", "reports": reports_facts(reports)})
