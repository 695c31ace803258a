"""``wkdask copy``: a dataset into any format and cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from wkdask.cli.options import shared_command
from wkdask.cli.run import Run

if TYPE_CHECKING:
    from wkdask.jobs.events import Event
    from wkdask.layer import Layer

__all__ = ["command", "copy"]


@shared_command(
    "copy", "layers", "bbox", "data_format", "shard_shape", "chunk_shape", "compression", "resume", "dry_run"
)
@click.argument("source", metavar="SRC", type=click.Path())
@click.argument("target", metavar="DST", type=click.Path())
@click.option(
    "--verify", is_flag=True, help="Read the copy back from the disk and compare it with SRC, voxel by voxel."
)
def command(run: Run, source: str, target: str, verify: bool) -> None:
    """Copy a dataset, into another format, cut or compressed otherwise if wanted.

    All layers with their mags, view configurations, transformations and attachments. Where format, cut and
    compression stay, files are copied as they are. A layer is listed in DST when it is complete.
    SRC may be a URL (s3, gs, az, https); so may DST, where files are copied as they are.

    \b
    Example:
      wkdask copy dataset archive --data-format zarr3 --shard-shape 256 --compression zstd
      wkdask copy dataset cutout --layer color --bbox 1024,1024,0,2048,2048,512
      wkdask copy dataset s3://bucket/dataset --resume
    """
    copy(run, "copy", source, target, verify=verify)


def copy(run: Run, name: str, source: str, target: str, *, verify: bool = False) -> None:
    """Do it, under the name of either command."""
    import wkdask
    from wkdask.cli.facts import copy_plan_facts, reports_facts
    from wkdask.dataset.copies import is_copied
    from wkdask.dataset.uploads import plan_upload
    from wkdask.geometry.voxel_size import format_bytes
    from wkdask.jobs.events import JobFinished, WriteReport
    from wkdask.objects.urls import is_url
    from wkdask.progress.bar import listeners_for

    dataset = wkdask.Dataset(source)
    for layer in [dataset.get_layer(each) for each in run.layers] or dataset.layers.values():
        _check(run, layer)
    how: dict[str, Any] = {
        "layers": run.layers or None,
        "data_format": run.data_format,
        "shard_shape": run.shard_shape,
        "chunk_shape": run.chunk_shape,
        "compression": True if run.compression is None else run.compressing or None,
        "bounding_box": run.bbox,
    }
    reports: list[WriteReport] = []
    shown = listeners_for(run.listening)

    def listen(event: Event) -> None:
        """Show progress, and keep the report."""
        for listener in shown:
            listener(event)
        if isinstance(event, JobFinished) and event.report is not None:
            reports.append(event.report)

    with run.connected() as client:
        if run.dry_run and is_url(target):
            layers = [dataset.get_layer(each) for each in run.layers] or list(dataset.layers.values())
            changes = {**how, "layers": None, "compression": run.compression}
            upload = plan_upload(dataset._file, layers, target, changes)
            run.say(repr(upload))
            run.answer({"command": name, "files": len(upload.files), "bytes": upload.nbytes})
            return
        if run.dry_run:
            plan = dataset.plan_copy(client=client, **how)
            run.say(repr(plan))
            run.answer({"command": name, "plans": copy_plan_facts(plan)})
            return
        finished = run.resume and is_copied(target)
        made = dataset.copy_dataset(
            target, client=client, resume=run.resume, verify=verify, progress=listen, **how
        )
    run.say(repr(made))
    if verified := sum(report.verified for report in reports):
        what = "files were read back" if is_url(target) else "voxels were read back from the disk"
        run.say(f"Verified: {format_bytes(verified)} of {what}, and are as in {source}")
    if repeated := sum(report.reads_repeated for report in reports):
        run.say(f"Reads that were wrong at first and right when they were repeated: {repeated}")
    if finished:
        run.say("The same copy was finished by an earlier run; nothing was done")
    run.answer(
        {
            "command": name,
            "dataset": target,
            "was_finished": finished,
            "reports": reports_facts(reports),
        }
    )


def _check(run: Run, layer: Layer) -> None:
    """Refuse a cut, or a compression, that the mags of a layer cannot have."""
    if run.shard_shape is None and run.chunk_shape is None and run.compression is None:
        return
    from wkdask.errors import DTypeError, InvalidValueError, UnsupportedFormatError
    from wkdask.geometry import Vec3Int
    from wkdask.layer.copies import CopyCut

    cut = CopyCut(
        None if run.chunk_shape is None else Vec3Int(run.chunk_shape),
        None if run.shard_shape is None else Vec3Int(run.shard_shape),
        compression=True if run.compression is None else run.compressing or None,
    )
    for mag in [record.mag for record in layer.record.mags]:
        spec = getattr(layer.get_mag(mag), "spec", None)
        try:
            if spec is not None:
                cut.spec_of(spec, run.data_format or str(layer.data_format))
        except DTypeError:
            raise
        except (InvalidValueError, UnsupportedFormatError) as error:
            raise click.UsageError(
                f"layer {layer.name!r} mag {mag}: {error}", click.get_current_context()
            ) from error
