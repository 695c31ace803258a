"""``wkdask convert-zarr``: `wkdask convert` of an array under the name of the webknossos command."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from wkdask.cli.convert import pyramids
from wkdask.cli.ignored import ignored_options
from wkdask.cli.options import AliasedOption, shared_command
from wkdask.cli.run import Run
from wkdask.cli.types import INTERPOLATION, MAG, NEW_LAYER, SAMPLING, UNIT, VOXEL_SIZE, check_cut

if TYPE_CHECKING:
    from wkdask.geometry import Mag

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Request:
    """What the command's own options say."""

    source: str
    """The array."""
    target: str
    """The dataset."""
    voxel_size: tuple[float, float, float]
    """In `unit`."""
    unit: str
    """A unit of length."""
    layer_name: str
    """Of the new layer."""
    is_segmentation: bool
    """Whether voxels are ids."""
    flip_axes: str | None
    """Not supported."""
    compress: bool
    """Whether cubes are compressed."""
    downsample: bool
    """Whether coarser mags are computed."""
    max_mag: Mag | None
    """The coarsest of them."""
    interpolation_mode: str
    """How they are computed."""
    sampling_mode: str
    """Which they are."""


@shared_command("convert-zarr", "data_format", "shard_shape", "chunk_shape")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--voxel-size", type=VOXEL_SIZE, required=True, help="Size of a voxel in --unit, e.g. 4.6,4.6,45."
)
@click.option("--unit", type=UNIT, default="nanometer", show_default=True, help="Of --voxel-size.")
@click.option(
    "--layer", "layer_name", cls=AliasedOption, aliases=("--layer-name",), type=NEW_LAYER, default="color",
    show_default=True, help="Name of the new layer.",
)  # fmt: skip
@click.option(
    "--is-segmentation-layer/--no-is-segmentation-layer",
    "is_segmentation",
    default=False,
    help="Voxels are ids.",
)
@click.option("--flip-axes", help="Not supported: SOURCE is taken as it is.")
@click.option("--compress/--no-compress", default=True, show_default=True, help="Compress the cubes.")
@click.option(
    "--downsample/--no-downsample", default=True, show_default=True, help="Compute the coarser mags."
)
@click.option("--max-mag", type=MAG, help="End here; by default where a section is about 100 voxels wide.")
@click.option(
    "--interpolation-mode",
    type=INTERPOLATION,
    default="default",
    show_default=True,
    help="How mags are computed.",
)
@click.option("--sampling-mode", type=SAMPLING, default="anisotropic", show_default=True, help="Which mags.")
@ignored_options
def command(run: Run, **given: Any) -> None:
    """Turn a Zarr array (axes x, y, z or c, x, y, z unless it names them) into a layer, as `wkdask convert` does.

    The layer is stored as Zarr 3, unless --data-format says otherwise.

    \b
    Example:
      wkdask convert-zarr array.zarr dataset --voxel-size 4,4,4 --layer color
    """
    from wkdask.cli.facts import reports_facts
    from wkdask.convert.scales import open_scales
    from wkdask.convert.zarr import convert_scales
    from wkdask.fsio import checked_path
    from wkdask.geometry.voxel_size import VoxelSize

    request = _Request(**given)
    if request.flip_axes is not None:
        raise click.UsageError(
            "--flip-axes is not supported; flip the array first, e.g. array[::-1] in Dask",
            click.get_current_context(),
        )
    data_format = run.data_format or "zarr3"
    word = "lz4" if request.compress else "none"
    run = replace(run, data_format=data_format, compression=word)
    check_cut(data_format, run.chunk_shape, run.shard_shape, run.compressing, usual_chunk=(32, 32, 32))
    checked_path(request.target)
    scales = open_scales(
        request.source,
        voxel_size=VoxelSize(request.voxel_size, request.unit),
        layer_name=request.layer_name,
        category="segmentation" if request.is_segmentation else "color",
        axes=_axes_of(request.source),
    )
    notes = [f"Note: {note}" for note in scales.notes]
    with run.connected() as client:
        for note in notes:
            run.note(note)
        reports = convert_scales(
            scales,
            request.target,
            client=client,
            progress=run.listening,
            compression=run.compressing,
            data_format=data_format,
            chunk_shape=run.chunk_shape,
            shard_shape=run.shard_shape,
        )
        for report in reports:
            run.say(repr(report))
        if request.downsample:
            how: dict[str, Any] = {
                "coarsest_mag": request.max_mag,
                "interpolation_mode": request.interpolation_mode,
                "sampling_mode": request.sampling_mode,
            }
            names = [layer.name for layer in scales.layers]
            reports = [*reports, *pyramids(run, request.target, names, client, **how)]
    facts = reports_facts(reports)
    run.answer({"command": "convert-zarr", "notes": notes, "reports": facts})


def _axes_of(source: str) -> str | None:
    """Return the axes of an array that does not name them: the webknossos command takes it for x, y, z."""
    import zarr

    try:
        array: Any = zarr.open(source, mode="r")
    except Exception:  # what is wrong with it is reported where it is converted
        return None
    names = getattr(getattr(array, "metadata", None), "dimension_names", None)
    if not hasattr(array, "shape") or (names and all(names)):
        return None
    return {3: "xyz", 4: "cxyz"}.get(array.ndim)
