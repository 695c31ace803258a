"""``wkdask export``: a box of a mag as files of other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run
from wkdask.errors import InvalidValueError

if TYPE_CHECKING:
    from wkdask.mag_view import MagView

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Request:
    """What the command's own options say; None where nothing was said."""

    dataset: str
    """What is read."""
    out: str
    """The file or the folder."""
    format: str | None
    """Of the files."""
    codec: str | None
    """How voxels are compressed."""
    tile: int | None
    """Side of a TIFF's tiles."""
    name: str | None
    """Pattern of the names of one file per section."""
    channel: int | None
    """The only channel."""


@shared_command("export", "layers", "mags", "bbox", "resume", "overwrite", "dry_run")
@click.argument("dataset", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--format", type=click.Choice(["tiff", "png", "ome-tiff", "ozx", "nrrd", "npy"]),
    help="Of the files; by default as the name OUT says. ozx is zipped OME-Zarr.",
)  # fmt: skip
@click.option(
    "--codec", type=click.Choice(["none", "deflate", "lzw", "zstd"]),
    help="Compression: of TIFF deflate by default, of ozx zstd; png has its own, nrrd and npy none.",
)  # fmt: skip
@click.option(
    "--tile", type=click.IntRange(16), help="Side of a TIFF's tiles, a multiple of 16; strips by default."
)
@click.option(
    "--name", metavar="PATTERN",
    help="Names of one file per section; {layer}_{z:05}.tif by default. {n} counts from 0, {z} voxels of the mag.",
)  # fmt: skip
@click.option("--channel", type=click.IntRange(0), help="Only this channel, from 0 on.")
def command(run: Run, **given: Any) -> None:
    """Write a layer, or a part, as TIFF, PNG, OME-TIFF, zipped OME-Zarr, NRRD or npy.

    OUT is a file, or for one file per section (tiff, png) a folder, which `wkdask convert` reads. The finest mag by
    default. Voxel size and unit are in the metadata where the format has a place for them; what it cannot say is
    printed. A file gets its name when it is complete, and an export that was stopped is continued with --resume.

    \b
    Example:
      wkdask export dataset stack/ --layer color --format tiff
      wkdask export dataset stack.tif --layer color --bbox 0,0,0,2048,2048,100 --tile 256
      wkdask export dataset cells.ome.tif --layer cells --mag 2
      wkdask export dataset color.ozx --layer color --resume
      wkdask export dataset png/ --layer color --format png --name "s{n:04}.png" --dry-run
    """
    request = _Request(**given)
    import wkdask

    mag = _source(run, wkdask.Dataset(request.dataset))
    how: dict[str, Any] = {name: getattr(request, name) for name in ("codec", "tile", "name", "channel")}
    with run.connected() as client:
        from wkdask.export.job import export, plan_export
        from wkdask.jobs.engines.choice import pick_engine
        from wkdask.jobs.job import WriteOptions
        from wkdask.progress.bar import listeners_for

        box = mag.box_to_read(None, None, run.bbox)
        plan = plan_export(mag.place, box, request.out, request.format, pick_engine(client), **how)
        notes = [f"Note: {note}" for note in plan.notes]
        if run.dry_run:
            run.say(repr(plan))
            facts = {
                "label": plan.label,
                "box": list(box.to_tuple6()),
                "cubes": plan.num_cubes,
                "bytes": plan.writer.extract.nbytes,
                "tasks": len(plan.cut),
                "bytes_per_task": plan.cut.task_nbytes,
                "bytes_available": plan.memory,
                "engine": plan.engine.description,
            }
            run.answer({"command": "export", "notes": notes, "plans": [facts]})
            return
        for note in notes:
            run.note(note)
        options = WriteOptions(client=client, resume=run.resume, listeners=listeners_for(run.listening))
        report = export(plan, options, overwrite=run.overwrite)
    run.say(repr(report))
    run.answer(
        {
            "command": "export",
            "notes": notes,
            "path": report.path,
            "label": report.label,
            "bounding_box": list(report.bounding_box.to_tuple6()),
            "files": report.files,
            "bytes": report.bytes,
            "file_bytes": report.file_bytes,
            "seconds": round(report.seconds, 3),
            "was_finished": report.was_finished,
        }
    )


def _source(run: Run, dataset: Any) -> MagView:
    """Return the mag that is exported."""
    context = click.get_current_context()
    names = run.layers or tuple(dataset.layers)
    if len(names) != 1:
        there = ", ".join(dataset.layers) or "none"
        raise click.UsageError(
            f"one layer is exported: --layer names it, once; {dataset.path} has {there}", context
        )
    if len(run.mags) > 1:
        raise click.UsageError("one mag is exported: --mag names it, once", context)
    layer = dataset.get_layer(names[0])
    if not layer.mags:
        raise InvalidValueError(f"layer {layer.name!r} has no mag that could be read; --layer names another")
    mag: MagView = layer.get_mag(run.mags[0] if run.mags else min(layer.mags))
    return mag
