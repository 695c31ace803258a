"""``wkdask convert``: layers of images, OME-Zarr, or arrays in files of many formats."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wkdask.cli.options import AliasedOption, shared_command
from wkdask.cli.run import Run
from wkdask.cli.types import (
    CATEGORY,
    DTYPE,
    NEW_LAYER,
    PAGES,
    RANGE,
    SHAPE,
    VOXEL_SIZE,
    Numbers,
    check_cut,
)

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.convert.scales import Scales
    from wkdask.geometry.voxel_size import VoxelSize
    from wkdask.jobs.events import Event, WriteReport

__all__ = ["command", "pyramids"]


@dataclass(frozen=True, slots=True)
class _Request:
    """What the command's own options say; None where nothing was said."""

    images: tuple[str, ...]
    """What is converted."""
    dataset: str
    """Where it goes."""
    voxel_size: tuple[float, float, float] | VoxelSize | None
    """In nm, or as a dataset has it."""
    layer_name: str
    """Of the new layer."""
    category: str
    """Of the new layer."""
    offset: tuple[int, int, int] | None
    """Where the first voxel goes."""
    dtype: str | None
    """Of the new layer."""
    rescale: tuple[float, float] | None
    """What becomes 0 and the largest value."""
    gaps: str | None
    """What becomes of missing numbers."""
    page: str | None
    """Pages of every file."""
    series: int | None
    """Group of pages of every file."""
    orient: bool
    """Whether images are turned as they say."""
    tiles: str | None
    """What becomes of tiles."""
    axes: str | None
    """Of an array."""
    shape: tuple[int, ...] | None
    """Of raw voxels."""
    order: str | None
    """Of raw voxels."""
    big_endian: bool
    """Of raw voxels."""
    skip: int | None
    """Bytes before raw voxels."""
    together: bool
    """Whether channels of an array stay in one layer."""
    no_labels: bool
    """Whether labels of OME-Zarr are left out."""
    pyramid: bool
    """Whether coarser mags are computed."""


@shared_command(
    "convert", "bbox", "data_format", "shard_shape", "chunk_shape", "compression", "resume", "dry_run"
)
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.argument("dataset", type=click.Path())
@click.option(
    "--voxel-size",
    type=VOXEL_SIZE,
    help="Size of a voxel in nm, e.g. 4.6,4.6,45. Needed where the files do not say it, as images do not; "
    "a further layer of a dataset has the dataset's.",
)
@click.option(
    "--layer", "layer_name", cls=AliasedOption, aliases=("--layer-name",), type=NEW_LAYER, default="color",
    show_default=True, help="Name of the new layer.",
)  # fmt: skip
@click.option(
    "--category", type=CATEGORY, default="color", show_default=True, help="Images, or ids of segments."
)
@click.option(
    "--offset",
    type=Numbers(int, "0,0,10", least=0),
    help="Where the first voxel goes; 0,0,0 by default, or where an OME-Zarr image or an array says.",
)
@click.option(
    "--dtype", type=DTYPE,
    help="Type of the layer, such as uint8; that of the images by default. Without --rescale one that "
    "holds all their values; of arrays each voxel is checked, and floats are rounded. Of raw voxels, and of MRC of "
    "bytes, the type in the file.",
)  # fmt: skip
@click.option(
    "--rescale",
    type=RANGE,
    help="Make MIN 0 and MAX the largest value of --dtype, and the rest in proportion.",
)
@click.option(
    "--gaps", type=click.Choice(["close", "keep", "refuse"]),
    help="Numbers that are missing in the names: later sections move up (close, the default), empty sections stay "
    "there (keep), or nothing is done (refuse).",
)  # fmt: skip
@click.option("--page", type=PAGES, help="Take these pages of every file: 3, 2-7, 2- or 1-9:2, from 1 on.")
@click.option(
    "--series", type=click.IntRange(min=1), help="Take this group of alike pages of every file, from 1 on."
)
@click.option("--orient", is_flag=True, help="Turn images as their orientation tag (TIFF, Exif) says.")
@click.option(
    "--tiles", type=click.Choice(["refuse", "join", "sections"]),
    help="Images that are tiles by their names (z/y/x.png): refuse them, the default, put those of each section "
    "side by side (join), or take each for a section.",
)  # fmt: skip
@click.option(
    "--axes", help="Axes of an array, a letter each, such as zyx or cxyz; by default as it names them."
)
@click.option("--shape", type=SHAPE, help="Of raw voxels: the sides, in the order of --axes.")
@click.option(
    "--order", type=click.Choice(["C", "F"]),
    help="Of raw voxels: the last axis is the fastest (C, the default), or the first (F).",
)  # fmt: skip
@click.option("--big-endian", is_flag=True, help="Of raw voxels: the highest byte comes first.")
@click.option("--skip", type=click.IntRange(0), help="Of raw voxels: bytes before the first.")
@click.option("--together", is_flag=True, help="Keep all channels of an array in one layer, also if not RGB.")
@click.option("--no-labels", is_flag=True, help="Leave out the labels of an OME-Zarr image.")
@click.option(
    "--downsample", "pyramid", is_flag=True, help="Compute the coarser mags that are not there as well."
)
def command(run: Run, **given: Any) -> None:
    """Turn images, OME-Zarr, or an array in a file of many formats into layers.

    IMAGES are the sections of a stack: TIFF, PNG or JPEG files or folders of them, in natural order (2.tif before
    10.tif), or multi-page TIFFs, with 8 to 64 bits of grey or RGB; images with transparency are refused. Column
    is x, row is y, section is z. What is left out or guessed is printed, also by --dry-run: gaps in the numbers of
    the names, pages that are no sections, orientations. A part (--bbox) is in voxels of the images, and keeps its
    place.

    Or IMAGES is one OME-Zarr image (0.4 or 0.5; a folder, or a .zip or .ozx file), whose scales all become mags
    as they are, and whose labels become layers; or one Zarr array; or one MRC, HDF5 (file.h5:/path), N5,
    neuroglancer precomputed, NRRD, NIfTI, .npy, KNOSSOS folder, or raw file (--shape, --dtype). Axes, voxel
    size and place come from the file where it has them, and are printed. Channels become layers of their
    own, RGB one.

    \b
    Example:
      wkdask convert stack/*.tif dataset --voxel-size 4.6,4.6,45 --downsample
      wkdask convert labels/ dataset --voxel-size 4.6,4.6,45 --layer cells --category segmentation
      wkdask convert raw/ dataset --voxel-size 4,4,4 --dtype uint8 --rescale 0,4095
      wkdask convert raw/ dataset --voxel-size 4,4,4 --gaps keep --dry-run
      wkdask convert two_channels.tif dataset --voxel-size 4,4,4 --layer second --page 2-:2
      wkdask convert photos/ dataset --voxel-size 4,4,4 --page 1 --orient
      wkdask convert tiles/1/ dataset --voxel-size 4,4,4 --tiles join
      wkdask convert image.ome.zarr dataset
      wkdask convert array.zarr dataset --voxel-size 4,4,4 --axes zyx
      wkdask convert tomogram.mrc dataset
      wkdask convert volume.h5:/volumes/raw dataset --axes zyx --voxel-size 4,4,40
      wkdask convert a.raw dataset --shape 100,512,512 --dtype uint8 --axes zyx --voxel-size 4,4,40
    """
    request = _Request(**given)
    check_cut(
        run.data_format or "wkw",
        run.chunk_shape,
        run.shard_shape,
        run.compressing,
        usual_chunk=(32, 32, 32),
    )
    paths, context = [str(Path(image)) for image in request.images], click.get_current_context()
    from wkdask.external.zarr.store import is_zarr, root_of

    zarr = [path for path in paths if is_zarr(root_of(path))]
    arrays = [] if zarr else _arrays_among(paths, request)
    single = zarr or arrays
    refused = _NOT_OF_ZARR if zarr else _NOT_OF_ARRAYS if arrays else _NOT_OF_IMAGES
    for name in refused:
        if getattr(request, name):
            raise click.UsageError(f"--{name.replace('_', '-')} is for {_MEANT_FOR[name]} only", context)
    if single and len(paths) > 1:
        kind = "Zarr" if zarr else "an array"
        raise click.UsageError(
            f"{single[0]} is {kind}: it is converted alone, not with other images", context
        )
    if not single and request.voxel_size is None:
        request = replace(request, voxel_size=_voxel_size_of(request.dataset))
    if not single and request.voxel_size is None:
        from wkdask.external.images.paths import find_images

        find_images(paths)  # what is not there, or no image, is not asked how large its voxels are
        raise click.UsageError(
            "Missing option '--voxel-size': images do not say how large a voxel is; give it in nm, as in "
            "--voxel-size 4.6,4.6,45",
            context,
        )
    from wkdask.fsio import checked_path

    checked_path(request.dataset)  # a plan is refused where the run would be
    with run.connected() as client:
        work = _convert_scales if single else _convert_images
        work(run, request, paths, client)


def _voxel_size_of(dataset: str) -> VoxelSize | None:
    """Return the voxel size of a dataset, which a new layer shares; None where there is no dataset yet."""
    from wkdask import Dataset
    from wkdask.properties import PROPERTIES_FILE

    is_there = os.path.lexists(os.path.join(dataset, PROPERTIES_FILE))
    return Dataset(dataset).voxel_size if is_there else None


_OF_IMAGES = ("rescale", "gaps", "page", "series", "orient", "tiles")
_OF_RAW = ("shape", "order", "big_endian", "skip")
_MEANT_FOR = {
    **dict.fromkeys(_OF_IMAGES, "image files"),
    **dict.fromkeys(_OF_RAW, "raw voxels"),
    **dict.fromkeys(("axes", "together"), "Zarr and other arrays"),
    "no_labels": "OME-Zarr",
}
"""What the options are for that not all inputs have."""
_NOT_OF_ZARR = (*_OF_IMAGES, *_OF_RAW)
_NOT_OF_ARRAYS = (*_OF_IMAGES, "no_labels")
_NOT_OF_IMAGES = (*_OF_RAW, "axes", "together", "no_labels")


def _arrays_among(paths: list[str], request: _Request) -> list[str]:
    """Return those of the inputs that are arrays in files."""
    from wkdask.external.arrays.kinds import kind_of

    return [path for path in paths if kind_of(path, is_raw=request.shape is not None) is not None]


def _open_scales(run: Run, request: _Request, path: str) -> Scales:
    """Open Zarr, or an array in a file; what is not said of it is looked up there."""
    from wkdask.convert.scales import open_scales
    from wkdask.external.zarr.store import is_zarr, root_of

    how: dict[str, Any] = {
        "voxel_size": request.voxel_size,
        "layer_name": request.layer_name,
        "category": request.category,
        "offset": request.offset,
        "bbox": run.bbox,
        "axes": request.axes,
        "together": request.together,
    }
    if is_zarr(root_of(path)):
        return open_scales(path, labels=not request.no_labels, dtype=request.dtype, **how)
    from wkdask.convert.arrays import open_arrays
    from wkdask.external.arrays.found import Asked
    from wkdask.external.arrays.kinds import kind_of

    # Of raw voxels, and of bytes of MRC, --dtype is what they are in the file.
    kind = kind_of(path, is_raw=request.shape is not None)
    stored = kind == "raw" or (kind == "mrc" and request.dtype in ("int8", "uint8"))
    asked = Asked(
        request.shape,
        request.dtype if stored else None,
        request.order or "C",
        request.big_endian,
        request.skip or 0,
    )
    if kind != "raw" and (asked.shape or request.order or asked.big_endian or asked.skip):
        raise click.UsageError(
            f"{path} is {kind}, which says its shape itself: --shape, --order, --big-endian and --skip are "
            f"for raw voxels",
            click.get_current_context(),
        )
    return open_arrays(path, dtype=None if stored else request.dtype, asked=asked, **how)


def _convert_images(run: Run, request: _Request, paths: list[str], client: Client | None) -> None:
    """Convert a stack, or say how it would be."""
    from wkdask.cli.facts import plan_facts, reports_facts
    from wkdask.convert.images import convert_images, notes_of, plan_images
    from wkdask.external.images.selection import open_images
    from wkdask.jobs.events import JobStarted
    from wkdask.progress.bar import listeners_for

    source = open_images(
        paths,
        bbox=run.bbox,
        dtype=request.dtype,
        rescale=request.rescale,
        gaps=request.gaps or "close",
        page=request.page,
        series=request.series,
        orient=request.orient,
        tiles=request.tiles or "refuse",
    )
    lines = [f"Images: {source.stack.order}"]
    lines += [f"Note: {note}" for note in notes_of(source, request.category)]
    how: dict[str, Any] = {
        "layer_name": request.layer_name,
        "offset": request.offset or (0, 0, 0),
        **_cut(run),
    }
    if run.dry_run:
        plan = plan_images(source, client=client, **how)
        run.say("\n".join([*lines, repr(plan)]))
        run.answer({"command": "convert", "notes": lines, "plans": [plan_facts(plan)]})
        return

    def tell(event: Event) -> None:
        """Print what is to be known once the job has begun: a refusal is one line."""
        if isinstance(event, JobStarted):
            for line in lines:
                run.note(line)

    reports = [
        convert_images(
            source,
            request.dataset,
            voxel_size=request.voxel_size or (),  # it is there: `command` looked
            category=request.category,
            client=client,
            resume=run.resume,
            progress=False,
            listeners=[tell, *listeners_for(run.listening)],
            **how,
        )
    ]
    run.say(repr(reports[0]))
    if request.pyramid:
        reports += pyramids(run, request.dataset, [request.layer_name], client)
    answer = reports_facts(reports)
    run.answer({"command": "convert", "notes": lines, "reports": answer})


def _convert_scales(run: Run, request: _Request, paths: list[str], client: Client | None) -> None:
    """Convert what is Zarr, or an array in a file; or say what it would become."""
    from wkdask.cli.facts import plan_facts, reports_facts
    from wkdask.convert.zarr import convert_scales, plan_scales

    source = _open_scales(run, request, paths[0])
    notes = [f"Note: {note}" for note in source.notes]
    if run.dry_run:
        plans = plan_scales(source, client=client, **_cut(run))
        run.say("\n".join([repr(source), *map(repr, plans)]))
        run.answer({"command": "convert", "notes": notes, "plans": [plan_facts(plan) for plan in plans]})
        return
    for note in notes:
        run.note(note)
    reports = convert_scales(
        source, request.dataset, client=client, progress=run.listening, resume=run.resume, **_cut(run)
    )
    for report in reports:
        run.say(repr(report))
    if request.pyramid:
        reports = [*reports, *pyramids(run, request.dataset, [layer.name for layer in source.layers], client)]
    run.answer({"command": "convert", "notes": notes, "reports": reports_facts(reports)})


def _cut(run: Run) -> dict[str, Any]:
    """Return how new mags are stored."""
    return {
        "data_format": run.data_format or "wkw",
        "shard_shape": run.shard_shape,
        "chunk_shape": run.chunk_shape,
        "compression": run.compressing,
    }


def pyramids(
    run: Run, dataset: str, names: list[str], client: Client | None, **how: Any
) -> list[WriteReport]:
    """Compute the coarser mags of layers, stored as their finest, and print what was done."""
    from wkdask import Dataset

    reports: list[WriteReport] = []
    for name in names:
        layer = Dataset(dataset).get_layer(name)
        if layer.plan_downsample(client=client, resume=run.resume, **how) is None:
            continue  # they are there, whoever made them: with an OME-Zarr image, perhaps
        reports += layer.downsample(
            compression=run.compressing, client=client, resume=run.resume, progress=run.listening, **how
        )
    for report in reports:
        run.say(repr(report))
    return reports
