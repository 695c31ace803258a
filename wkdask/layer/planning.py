"""What the sampling of a layer would take; nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wkdask.geometry import Mag, MagLike
from wkdask.jobs.engines.choice import pick_engine
from wkdask.jobs.job import WriteOptions
from wkdask.jobs.plan import plan_write
from wkdask.layer.chunk_layout import compression_of
from wkdask.layer.pyramid import place_like, planned_chain, refuse_existing_mags
from wkdask.layer.sampling import ShapeLike, coarser_chain, finer_chain
from wkdask.names import SamplingModes
from wkdask.operations.write import PlannedWrite
from wkdask.pyramid.mags import interpolation_of
from wkdask.pyramid.planned import PlannedPyramid

if TYPE_CHECKING:
    from distributed import Client

    from wkdask.dataset import Dataset
    from wkdask.layer.layer import Layer

__all__ = ["plan_downsample", "plan_upsample"]


def plan_downsample(
    self: Layer,
    from_mag: MagLike | None = None,
    coarsest_mag: MagLike | None = None,
    interpolation_mode: str = "default",
    compression: str | bool | None = "lz4",
    sampling_mode: str = SamplingModes.ANISOTROPIC,
    *,
    align_with_other_layers: bool | Dataset = True,
    allow_overwrite: bool = False,
    chunk_shape: ShapeLike = None,
    shard_shape: ShapeLike = None,
    client: Client | None = None,
    resume: bool = False,
) -> PlannedPyramid | None:
    """Return what :meth:`downsample` would do; nothing is written. None if there is no mag to make.

    Parameters
    ----------
    from_mag, coarsest_mag, interpolation_mode, compression, sampling_mode, align_with_other_layers, allow_overwrite
        As for :meth:`downsample`.
    chunk_shape, shard_shape, client, resume
        As for :meth:`downsample`.

    Returns
    -------
    PlannedPyramid or None
        Shown by printing it.

    Raises
    ------
    AlreadyExistsError, InvalidValueError, PlanError
        If :meth:`downsample` would refuse it before its first task. Whether mags that are there are those of the
        same call is not looked at.

    Examples
    --------
    >>> planned = layer.plan_downsample(coarsest_mag=2)
    >>> [str(mag) for mag in layer.mags]
    ['1']
    """
    start, chain = coarser_chain(self, from_mag, None, coarsest_mag, sampling_mode, align_with_other_layers)
    mode = interpolation_of(interpolation_mode, self.record.is_segmentation)
    if not chain:
        return None
    if not (allow_overwrite or resume):
        refuse_existing_mags(self, chain, ", or compute it anew with allow_overwrite=True (--overwrite)")
    plan, source, targets, _ = planned_chain(
        self,
        start,
        chain,
        mode,
        compression_of(self.data_format, None, compression),
        WriteOptions(client=client),
        cut=(chunk_shape, shard_shape),
    )
    return PlannedPyramid(f"layer {self.name!r}", source.mag, mode, tuple(targets), plan)


def plan_upsample(
    self: Layer,
    from_mag: MagLike,
    finest_mag: MagLike = 1,
    compression: str | bool | None = "lz4",
    sampling_mode: str = SamplingModes.ANISOTROPIC,
    *,
    align_with_other_layers: bool | Dataset = True,
    chunk_shape: ShapeLike = None,
    shard_shape: ShapeLike = None,
    client: Client | None = None,
) -> list[PlannedWrite]:
    """Return what :meth:`upsample` would do, mag by mag; nothing is written.

    Parameters
    ----------
    from_mag, finest_mag, compression, sampling_mode, align_with_other_layers, chunk_shape, shard_shape, client
        As for :meth:`upsample`.

    Raises
    ------
    AlreadyExistsError, InvalidValueError, PlanError
        If :meth:`upsample` would refuse it before its first task.

    Examples
    --------
    >>> coarse = ds.add_layer("coarse", "color")
    >>> report = coarse.add_mag("2-2-1", shard_shape=32).write(np.full((32, 32, 32), 7, "uint8"))
    >>> [each.plan.num_cubes for each in coarse.plan_upsample(from_mag="2-2-1")]
    [4]
    """
    start, chain = finer_chain(self, from_mag, None, Mag(finest_mag), sampling_mode, align_with_other_layers)
    source, engine = self.get_mag(start), pick_engine(client)
    named = compression_of(self.data_format, None, compression)
    planned = []
    for mag in chain:
        target = place_like(self, source, mag, named, (chunk_shape, shard_shape))
        box = self.record.bounding_box.aligned_outwards(mag.to_vec3_int()).in_mag(mag)
        memory = engine.task_memory()
        plan = plan_write(target.store.spec, box, threads=engine.threads, memory=memory)
        planned.append(PlannedWrite(target.label, plan, engine, memory, reads_target=False))
    return planned
