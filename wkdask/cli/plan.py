"""``wkdask plan``: what a rewrite of a mag takes."""

from __future__ import annotations

from dataclasses import replace

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run
from wkdask.cli.types import check_cut
from wkdask.errors import InvalidValueError

__all__ = ["command"]


@shared_command(
    "plan", "layers", "mags", "bbox", "shard_shape", "chunk_shape", "compression", memory_alone=True
)
@click.argument("dataset", type=click.Path())
def command(run: Run, dataset: str) -> None:
    """Print what it takes to write all of a mag by an expression on it: cubes, tasks, memory.

    Of each layer the finest mag is meant, unless --mag says others. With --shard-shape, --chunk-shape,
    --compression and --memory the plan is made as if cubes were cut and stored so, and a task had so much memory.

    \b
    Example:
      wkdask plan dataset --layer color --shard-shape 2048 --memory 4GiB
    """
    import wkdask
    from wkdask.cli.facts import plan_facts
    from wkdask.geometry import Vec3Int
    from wkdask.operations.write import WriteOptions, plan_rewrite
    from wkdask.storage.formats import fitting_compression

    opened = wkdask.Dataset(dataset)
    views = []
    for layer in [opened.get_layer(name) for name in run.layers or opened.layers]:
        if not layer.mags:
            raise InvalidValueError(
                f"layer {layer.name!r} has no mag; leave it out: --layer names those that count"
            )
        views += [layer.get_mag(mag) for mag in run.mags or (min(layer.mags),)]
    planned = []
    with run.connected() as client:
        for view in views:
            spec = view.spec
            if run.shard_shape or run.chunk_shape or run.compression:
                word = spec.compression if run.compression is None else run.compressing
                check_cut(
                    spec.data_format, run.chunk_shape, run.shard_shape, word or False,
                    usual_chunk=spec.chunk_shape, usual_shard=spec.shard_shape,
                )  # fmt: skip
                shard = Vec3Int(run.shard_shape or spec.shard_shape)
                spec = replace(
                    spec,
                    shard_shape=shard,
                    chunk_shape=Vec3Int(run.chunk_shape or spec.chunk_shape).pairmin(shard),
                    compression=fitting_compression(spec.data_format, word or False),
                )
            box = view.box
            if run.bbox is not None:
                box = run.bbox.aligned_outwards(view.mag.to_vec3_int()).in_mag(view.mag).intersection(box)
            memory = None if client is not None else run.memory
            planned.append(plan_rewrite(view.place, box, spec, WriteOptions(client=client), memory))
            run.say(repr(planned[-1]))
    run.answer({"command": "plan", "plans": [plan_facts(each) for each in planned]})
