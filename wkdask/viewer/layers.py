"""What was given to look at, as layers of the viewer.

::

    Dataset ──> its layers ──> one ShownLayer each, a Scale for each mag, read from its cubes
    dask array ──> where its mags' voxels lie, if its graph shows that ──> the finest Scale, computed
                   coarser Scales: downsampled from the finer one, exact
    (function, layer) ──> the function of each mag's lazy array: coarser Scales are quick, and approximate
"""

from __future__ import annotations

import os
from asyncio import CancelledError as AsyncCancelledError
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wkdask.arrays.graph_facts import facts_of
from wkdask.arrays.lowered import as_dask_array
from wkdask.errors import InvalidValueError, SchedulerLostError, WkdaskError
from wkdask.geometry import BoundingBox, Mag, Vec3Int
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.jobs.mag_folders import is_address, mag_folder
from wkdask.kernels import downsample, mirror_pad
from wkdask.labelled import MagGrid, is_labelled
from wkdask.paths import resolved
from wkdask.properties.further_axes import has_further_axes
from wkdask.properties.handle import Properties
from wkdask.storage.protocol import MagReader, Voxels
from wkdask.viewer.requests import cancelling, raise_if_hung_up
from wkdask.viewer.scales import Region, Scale, ShownLayer, served_dtype

if TYPE_CHECKING:
    import dask.array as da
    import xarray
    from distributed import Client

    from wkdask.dataset import Dataset
    from wkdask.layer import Layer
    from wkdask.view import View

__all__ = ["Where", "layers_of"]

_MOST_HALVINGS = 5
"""Coarser scales of an expression, at most: one chunk of the last is made out of 32768 of the finest."""
_ENOUGH = 1 << 16
"""Voxels of a scale that are enough to tell how dark and how bright a layer is."""
_SAMPLE = Vec3Int(64, 64, 8)
"""Sides of the boxes that are looked at for that."""


@dataclass(frozen=True, slots=True)
class Where:
    """What the caller says of things that do not say it themselves."""

    mags: tuple[Mag, ...] = ()
    """The mags that are shown, of a layer; all where there is none. Of an expression: its one mag."""
    bounding_box: BoundingBox | None = None
    """The part that is shown; of an expression: where it lies. In voxels of mag 1."""
    voxel_size: VoxelSize | None = None
    """Of mag 1 of an expression."""
    client: Client | None = None
    """The cluster that computes expressions; threads of this process where there is none."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an expression lies."""

    mag: Mag
    box: BoundingBox
    """Absolute, in voxels of the mag."""
    voxel_size: VoxelSize
    is_segmentation: bool


def layers_of(shown: Sequence[Any], where: Where) -> tuple[ShownLayer, ...]:
    """Return what is shown, each layer under a unique name.

    Parameters
    ----------
    shown
        Datasets, layers, mags, views, arrays; pairs of a name and one of these; ``(function, layer)`` and
        ``(name, function, layer)``.
    where
        What the caller says of them.

    Raises
    ------
    InvalidValueError
        If something is none of these, or it cannot be known where an array lies.
    """
    found: list[ShownLayer] = []
    for each in shown:
        for layer in _layers(each, where):
            names = {other.name for other in found}
            name, number = layer.name, 2
            while name in names:
                name, number = f"{layer.name} {number}", number + 1
            found.append(replace(layer, name=name))
    if not found:
        raise InvalidValueError("there is nothing to look at: give a dataset, layers, mags or dask arrays")
    return tuple(found)


def _layers(each: Any, where: Where, name: str | None = None) -> Iterator[ShownLayer]:
    """Yield the layers of one thing that was given."""
    if isinstance(each, tuple):
        if len(each) in (2, 3) and isinstance(each[0], str):
            rest = each[1:] if len(each) == 3 else each[1]
            yield from _layers(rest, where, each[0])
            return
        if len(each) == 2 and callable(each[0]) and hasattr(each[1], "mags"):
            yield _layer_of_function(each[0], each[1], where, name)
            return
    elif hasattr(each, "layers") and hasattr(each, "voxel_size") and isinstance(each.layers, Mapping):
        yield from _layers_of_dataset(each, where)
        return
    elif hasattr(each, "mags") and hasattr(each, "category"):
        yield _layer_of_mags(each, [*each.mags.values()], where, name or each.name)
        return
    elif hasattr(each, "place") and hasattr(each, "bounding_box"):
        yield _layer_of_view(each, where, name)
        return
    elif is_labelled(each):
        yield _layer_of_labelled(each, where, name or str(each.name or "expression"))
        return
    elif hasattr(each, "__dask_graph__") and hasattr(each, "chunks"):
        yield _layer_of_array(each, where, name or "expression")
        return
    elif isinstance(each, np.ndarray):
        import dask.array as da

        yield _layer_of_array(da.from_array(each, name=False), where, name or "array")
        return
    raise InvalidValueError(
        f"{type(each).__name__} cannot be looked at: give a dataset, a layer, a mag, a view, a dask array, a pair "
        f"of a function and a layer, or one of these behind a name, as in ('inverted', 255 - mag.to_dask())"
    )


# --- what is stored ----------------------------------------------------------------------------------


def _layers_of_dataset(dataset: Dataset, where: Where) -> Iterator[ShownLayer]:
    """Yield the layers of a dataset; what cannot be shown is a note of the first that can."""
    found, skipped = [], []
    for layer in dataset.layers.values():
        try:
            found.append(_layer_of_mags(layer, [*layer.mags.values()], where, layer.name))
        except (WkdaskError, OSError) as error:
            skipped.append(f"layer {layer.name!r} is not shown: {error}")
    if not found:
        raise InvalidValueError("; ".join([f"{dataset.path} has no layer to look at", *skipped]))
    yield replace(found[0], notes=(*found[0].notes, *skipped))
    yield from found[1:]


def _layer_of_mags(layer: Layer, mags: Sequence[View], where: Where, name: str) -> ShownLayer:
    """Return a stored layer with a scale for each of its mags."""
    _refuse_further_axes(layer)
    voxel_size = layer.dataset.voxel_size
    scales = [
        _stored(view.place.store, view.mag, _part(layer.record.bounding_box, view.mag, where), voxel_size)
        for view in mags
        if not where.mags or view.mag in where.mags
    ]
    if not scales:
        wanted = ", ".join(map(str, where.mags))
        raise InvalidValueError(
            f"layer {layer.name!r} has no mag{f' {wanted}' * bool(wanted)} to look at; it has "
            f"{', '.join(str(view.mag) for view in mags) or 'none'}"
        )
    scales.sort(key=lambda scale: scale.voxel)
    return _finished(layer, name, scales)


def _refuse_further_axes(layer: Layer) -> None:
    """Refuse a layer whose voxels have more than three coordinates."""
    if has_further_axes(layer.record.raw):
        raise InvalidValueError(
            f"layer {layer.name!r} has further axes: look at one position along them, such as mag.to_dask(t=0)"
        )


def _layer_of_view(view: View, where: Where, name: str | None) -> ShownLayer:
    """Return the part of one mag."""
    layer = getattr(view, "layer", None)
    box = (
        view.box if where.bounding_box is None else view.box.intersection(where.bounding_box.in_mag(view.mag))
    )
    place = view.place
    if layer is None:
        record = Properties(place.dataset_path).layer(place.layer)
        size = Properties(place.dataset_path).record.voxel_size
        scale = _stored(place.store, view.mag, box, size)
        return _toned(ShownLayer(name or place.layer, record.category == "segmentation", (scale,)), scale)
    return _finished(
        layer, name or layer.name, [_stored(place.store, view.mag, box, layer.dataset.voxel_size)]
    )


def _part(box: BoundingBox, mag: Mag, where: Where) -> BoundingBox:
    """Return the part of a layer's box that is shown, in voxels of a mag."""
    if where.bounding_box is not None:
        box = box.intersection(where.bounding_box)
    return box.aligned_outwards(mag.to_vec3_int()).in_mag(mag)


def _stored(store: MagReader, mag: Mag, box: BoundingBox, voxel_size: VoxelSize) -> Scale:
    """Return a scale that is read from a mag's cubes."""
    spec = store.spec

    def read(part: BoundingBox, _: Region) -> Voxels:
        return store.read(part)

    return Scale(
        mag.to_layer_name(), _sides(mag, voxel_size), box, np.dtype(spec.dtype), spec.num_channels, read,
        store.fingerprint,
    )  # fmt: skip


def _sides(mag: Mag, voxel_size: VoxelSize) -> tuple[float, float, float]:
    """Return the sides of a mag's voxel in nm."""
    x, y, z = (step * side for step, side in zip(mag, voxel_size.to_nanometer(), strict=True))
    return (x, y, z)


def _finished(layer: Layer, name: str, scales: list[Scale], *notes: str) -> ShownLayer:
    """Return a layer as its view configuration says it is shown."""
    wanted = layer.default_view_configuration
    shown = ShownLayer(name, layer.category == "segmentation", tuple(scales), notes=notes)
    if wanted is not None:
        low_high = wanted.intensity_range
        if low_high is not None and wanted.is_inverted:
            low_high = (low_high[1], low_high[0])
        shown = replace(shown, contrast=low_high, color=wanted.color)
    return _toned(shown, _enough(scales))


def _enough(scales: Sequence[Scale]) -> Scale:
    """Return the coarsest scale with enough voxels to tell how bright a layer is."""
    many = [scale for scale in scales if scale.box.volume() >= _ENOUGH]
    return many[-1] if many else scales[0]


def _toned(layer: ShownLayer, scale: Scale) -> ShownLayer:
    """Return a layer with the contrast of a sample of its voxels, if it is an image without a configured one.

    What cannot be read has no contrast: the viewer shows the error where the chunk would be.
    """
    sent = served_dtype(layer.dtype, layer.is_segmentation)
    notes = layer.notes
    if sent != layer.dtype:
        told = (
            f"layer {layer.name!r}: neuroglancer does not show {layer.dtype}; its voxels are sent as {sent}"
        )
        notes = (*notes, told)
    contrast = layer.contrast
    if contrast is None and not layer.is_segmentation and not scale.box.is_empty():
        try:
            contrast = _range_of([scale.compute(part, _direct) for part in _sample(scale.box)])
        except (WkdaskError, OSError):
            contrast = None
    return replace(layer, contrast=contrast, notes=notes)


def _direct(scale: Scale, box: BoundingBox) -> Voxels:
    """Return the voxels of a box without a cache."""
    return scale.compute(box, _direct)


def _sample(box: BoundingBox) -> list[BoundingBox]:
    """Return small boxes in the middle section: one in the middle, four towards the corners."""
    size = box.size.pairmin(_SAMPLE)
    free = box.size - size
    sixths = [(3, 3), (1, 1), (5, 1), (1, 5), (5, 5)]
    corners = {Vec3Int(free.x * x // 6, free.y * y // 6, free.z // 2) for x, y in sixths}
    return [BoundingBox(box.topleft + corner, size) for corner in sorted(corners)]


def _range_of(blocks: Sequence[Voxels]) -> tuple[float, float] | None:
    """Return the values between which all but one in a thousand voxels on each side are; zeros are no tissue."""
    values = np.concatenate([block[(block != 0) & np.isfinite(block)] for block in blocks])
    if not values.size:
        return None
    low, high = (float(value) for value in np.percentile(values, (0.1, 99.9)))
    return (low, high) if low < high else (min(low, 0.0), max(high, 1.0))


# --- what is computed --------------------------------------------------------------------------------


def _layer_of_array(array: da.Array, where: Where, name: str) -> ShownLayer:
    """Return a lazy expression, with coarser scales that are downsampled out of it."""
    array = _with_channels(as_dask_array(array))
    place = _place_of(array, where)
    finest = _computed(array, place, where.client)
    is_ids = place.is_segmentation and array.dtype.kind in "ui" and array.dtype.itemsize > 1
    scales = [finest]
    while len(scales) <= _MOST_HALVINGS and max(scales[-1].grid) > 1:
        scales.append(_halved(scales[-1], "mode" if is_ids else "median"))
    return _toned(ShownLayer(name, is_ids, tuple(scales)), finest)


def _layer_of_labelled(labelled: xarray.DataArray, where: Where, name: str) -> ShownLayer:
    """Return an array of xarray, which lies where its coordinates say if it is known in which mag."""
    import dask.array as da

    boxes = facts_of(labelled.data).boxes if hasattr(labelled.data, "dask") else ()
    read = [found for source, _ in boxes if (found := _listed(source.path)) is not None]
    mag = where.mags[0] if where.mags else read[0].mag if read else Mag(1)
    size = where.voxel_size or (read[0].voxel_size if read else None)
    if size is None:
        raise InvalidValueError(f"{name!r} reads no mag: say voxel_size=, and mag= if it is not 1")
    grid = MagGrid(repr(name), mag, size, labelled.sizes.get("c", 1))
    array, starts = grid.taken_apart(labelled)
    if where.bounding_box is None and len(starts) == 3:
        corner = Vec3Int(*(starts[axis] for axis in "xyz"))
        box = BoundingBox(corner, Vec3Int(*array.shape[-3:])).from_mag_to_mag1(mag)
        where = replace(where, bounding_box=box)
    lazy = array if hasattr(array, "dask") else da.from_array(array, name=False)
    return _layer_of_array(lazy, replace(where, mags=(mag,), voxel_size=size), name)


def _layer_of_function(
    function: Callable[[da.Array], da.Array], layer: Layer, where: Where, name: str | None
) -> ShownLayer:
    """Return a function of the lazy array of each mag of a layer: the coarser ones are approximate."""
    _refuse_further_axes(layer)
    scales = []
    for view in layer.mags.values():
        if where.mags and view.mag not in where.mags:
            continue
        box = _part(layer.record.bounding_box, view.mag, where)
        lazy = view.to_dask(bounding_box=box.from_mag_to_mag1(view.mag))
        array = _with_channels(as_dask_array(function(lazy)))
        if tuple(array.shape[1:]) != tuple(box.size):
            raise InvalidValueError(
                f"the function returns {array.shape} for mag {view.mag} of layer {layer.name!r}, whose box is "
                f"{box}: it must keep the sides, as map_overlap and elementwise operations do"
            )
        place = _Place(view.mag, box, layer.dataset.voxel_size, layer.category == "segmentation")
        scales.append(_computed(array, place, where.client))
    if not scales:
        raise InvalidValueError(f"layer {layer.name!r} has no such mag")
    title = name or getattr(function, "__name__", "function").strip("<>")
    dtype = scales[0].dtype
    is_ids = layer.category == "segmentation" and dtype.kind in "ui" and dtype.itemsize > 1
    notes: tuple[str, ...] = ()
    if len(scales) > 1:
        notes = (
            f"layer {title!r}: mag {scales[0].name} is exact; the coarser ones are the function of coarser mags, "
            f"which is approximate",
        )
    return _toned(ShownLayer(title, is_ids, tuple(scales), notes=notes), _enough(scales))


def _with_channels(array: da.Array) -> da.Array:
    """Return an array ``(c, x, y, z)`` of a type that has numbers."""
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4:
        raise InvalidValueError(
            f"an expression has the axes (c, x, y, z) or (x, y, z), got the shape {array.shape}"
        )
    if any(not isinstance(n, int | np.integer) for n in array.shape):
        raise InvalidValueError(
            f"the shape {array.shape} of the expression is not known before it is computed: compute_chunk_sizes() "
            f"finds it"
        )
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
        raise InvalidValueError(f"voxels of type {array.dtype} cannot be shown; cast them with .astype(...)")
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _place_of(array: da.Array, where: Where) -> _Place:
    """Return where an expression lies: as the caller says, or as the mags that it reads do.

    Raises
    ------
    InvalidValueError
        If neither says so.
    """
    sides = Vec3Int(*array.shape[1:])
    boxes = facts_of(array).boxes
    read = [(found, box) for source, box in boxes if (found := _listed(source.path)) is not None]
    fitting = {(listed.mag, box.topleft): listed for listed, box in read if box.size == sides}
    known = next(iter(fitting.values()), None)
    if len(where.mags) > 1:
        raise InvalidValueError("an expression lies in one mag: give one")
    mag = where.mags[0] if where.mags else known.mag if known else Mag(1)
    if where.bounding_box is not None:
        corner = where.bounding_box.in_mag(mag).topleft
    elif len(fitting) == 1:
        ((_, corner),) = fitting
    else:
        what = ", ".join(f"{box} of {listed.path}" for listed, box in read) or "no mag as a whole"
        raise InvalidValueError(
            f"where an expression of {sides} voxels lies cannot be seen: it reads {what}. Say it: bounding_box= in "
            f"voxels of mag 1, mag= if it is not 1, and voxel_size= if no mag is read"
        )
    sizes = [listed.voxel_size for listed in (known, *(each for each, _ in read)) if listed is not None]
    size = where.voxel_size or next(iter(sizes), VoxelSize((1, 1, 1)))
    return _Place(mag, BoundingBox(corner, sides), size, known is not None and known.is_segmentation)


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the properties say of the mag in a folder."""

    path: str
    mag: Mag
    voxel_size: VoxelSize
    is_segmentation: bool


def _listed(path: str) -> _Listed | None:
    """Return what the dataset two folders above says of a mag's folder; None if it does not list it there."""
    folder = os.path.dirname(os.path.dirname(path))
    try:
        properties = Properties(folder)
        for layer in properties.record.layers:
            for record in layer.mags:
                if is_address(record):
                    continue
                if resolved(mag_folder(folder, layer.name, record)) == resolved(path):
                    return _Listed(
                        path, record.mag, properties.record.voxel_size, layer.category == "segmentation"
                    )
    except (WkdaskError, OSError):
        return None
    return None


def _computed(array: da.Array, place: _Place, client: Client | None) -> Scale:
    """Return a scale whose voxels are computed: on the cluster, or by the thread that asks."""
    corner = place.box.topleft

    def compute(part: BoundingBox, _: Region) -> Voxels:
        lazy = array[(slice(None), *part.offset(-corner).to_slices())]
        if client is not None:
            return _computed_by(client, lazy)
        return np.asarray(lazy.compute(scheduler="synchronous"))

    mag = place.mag
    return Scale(
        mag.to_layer_name(),
        _sides(mag, place.voxel_size),
        place.box,
        np.dtype(array.dtype),
        array.shape[0],
        compute,
    )


def _computed_by(client: Client, lazy: da.Array) -> Voxels:
    """Return an array that a cluster computes; where the browser hangs up, the cluster need not begin.

    Raises
    ------
    HungUpError
        If the browser has hung up.
    SchedulerLostError
        If the cluster has given it up.
    """
    future = client.compute(lazy)
    try:
        with cancelling(future.cancel):
            return np.asarray(future.result())
    except (CancelledError, AsyncCancelledError) as error:
        raise_if_hung_up()
        raise SchedulerLostError(f"the cluster has cancelled the chunk: {error}") from error


def _halved(finer: Scale, mode: str) -> Scale:
    """Return a scale that is downsampled from a finer one by 2 along each axis that is long enough.

    Parameters
    ----------
    finer
        The finer scale.
    mode
        A mode of `wkdask.kernels.downsample`.
    """
    steps = Mag(finer.name).to_vec3_int()
    # As the mags of a pyramid: an axis along which voxels are much longer is halved later.
    shortest = min(finer.voxel)
    factors = Vec3Int(*(2 if side < 2 * shortest else 1 for side in finer.voxel))
    outer = finer.box.aligned_outwards(factors)
    box = BoundingBox(outer.topleft // factors, outer.size // factors)

    def compute(part: BoundingBox, region: Region) -> Voxels:
        wanted = BoundingBox(part.topleft * factors, part.size * factors)
        there = wanted.intersection(finer.box)
        voxels = region(finer, there)
        if there != wanted:  # as at the border of a layer's box
            voxels = mirror_pad(
                voxels, there.topleft - wanted.topleft, wanted.bottomright - there.bottomright
            )
        return downsample(voxels, factors, mode)

    x, y, z = (side * factor for side, factor in zip(finer.voxel, factors, strict=True))
    return Scale(
        Mag(steps * factors).to_layer_name(), (x, y, z), box, finer.dtype, finer.num_channels, compute
    )
