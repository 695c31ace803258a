"""``wkdask histogram``: how often values occur."""

from __future__ import annotations

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run

__all__ = ["command"]


@shared_command("histogram", "layers", "mags", "bbox")
@click.argument("dataset", type=click.Path())
@click.option(
    "--exact", is_flag=True, help="Count all voxels (of the finest mag, without --mag), not a sample of them."
)
@click.option("--bins", type=click.IntRange(1, 1 << 20), metavar="N", default=256, show_default=True,
              help="How many bins there are at most.")  # fmt: skip
def command(run: Run, dataset: str, exact: bool, bins: int) -> None:
    """Print how often values occur in images: their contrast, before they are computed with.

    A few hundred boxes are looked at, in the coarsest mag that has a million voxels, which takes moments. Layers of
    images are counted, and others that --layer names.

    \b
    Example:
      wkdask histogram dataset
      wkdask histogram dataset --layer color --mag 4 --bbox 0,0,0,512,512,64
      wkdask histogram dataset --layer color --exact --workers 4
    """
    import wkdask
    from wkdask.cli.facts import histogram_facts
    from wkdask.display.histogram import histogram_text
    from wkdask.errors import InvalidValueError

    if not exact and (run.scheduler or run.workers):
        raise click.UsageError("a sample is read by this process: --scheduler and --workers are for --exact")
    opened = wkdask.Dataset(dataset)
    layers = [opened.get_layer(name) for name in run.layers]
    layers = layers or [layer for layer in opened.layers.values() if layer.category == "color"]
    if not layers:
        raise InvalidValueError(
            f"{dataset} has no layer of images; name one: --layer {', '.join(opened.layers)}"
        )
    found = []
    with run.connected() as client:
        for layer in layers:
            for mag in run.mags or (None,):
                source = layer if mag is None else layer.get_mag(mag)
                box = run.bbox
                if box is not None and mag is not None:
                    box = box.aligned_outwards(mag.to_vec3_int())
                found.append(
                    source.histogram(
                        bins, bounding_box=box, exact=exact, client=client, progress=run.listening
                    )
                )
                run.say(histogram_text(found[-1]))
    run.answer({"command": "histogram", "histograms": [histogram_facts(each) for each in found]})
