"""OME-Zarr metadata, 0.4 (Zarr 2) and 0.5 (Zarr 3): which arrays are the scales of an image, and where they lie.

The words are those that `wkdask.layer.multiscales` writes::

    scale         side of a voxel, in the unit of its axis
    translation   middle of the first voxel. A voxel of mag 2 covers voxels 0 and 1 of mag 1, so that its
                  middle lies half a voxel of mag 1 further; many programs do not say so, and mean it all the same
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wkdask.errors import DamagedHeaderError, InvalidValueError, UnsupportedFormatError
from wkdask.external.zarr.store import children, is_file, is_zarr, read_json
from wkdask.geometry import Mag, Vec3Int
from wkdask.geometry.voxel_size import VoxelSize, unit_named
from wkdask.properties import PROPERTIES_FILE

__all__ = ["Image", "ScaleEntry", "corner_of", "is_whole", "label_names", "matched", "place", "read_image"]

_VERSIONS = ("0.4", "0.5")
_TOLERANCE = 1e-3
"""Scales are written with few digits: so far, relative to a voxel, they may be beside a whole number."""


@dataclass(frozen=True, slots=True)
class ScaleEntry:
    """One scale of an image."""

    name: str
    """Path of the array, relative to the image."""
    sides: tuple[float, float, float]
    """Sides of a voxel along (x, y, z), in nm, or in no unit at all where the image has none."""
    shift: tuple[float, float, float]
    """Middle of the first voxel along (x, y, z), in the same."""


@dataclass(frozen=True, slots=True)
class Image:
    """What the metadata of an OME-Zarr image say."""

    path: str
    """Its folder."""
    axes: str
    """A letter for each dimension of its arrays."""
    voxel_size: VoxelSize | None
    """Of the finest scale; None where an axis has no unit that is known."""
    scales: tuple[ScaleEntry, ...]
    """The finest first."""
    units: tuple[str | None, str | None, str | None]
    """Of the axes (x, y, z); None where there is none that is known."""
    unit_text: str
    """What its own metadata say of units, for messages; empty where all are known."""
    channel_names: tuple[str, ...]
    """What omero metadata call the channels; none where there are none."""
    notes: tuple[str, ...]
    """What else is in the metadata, and is not taken."""


def read_image(path: str, parent: Image | None = None) -> Image:
    """Read the metadata of an image.

    Parameters
    ----------
    path
        The folder of the group that has ``multiscales``.
    parent
        The image that these are labels of: they are measured in its units where they have none of their own, or
        it has none; and they are as deep as its sections where they have no z axis.

    Raises
    ------
    DamagedHeaderError
        If they are damaged, or there are none.
    UnsupportedFormatError
        If they are of another version, or more than this.
    """
    content = _attributes(path)
    multiscales = content.get("multiscales")
    if not multiscales:
        raise DamagedHeaderError(f"{path} is a Zarr group, but no OME-Zarr image{_children(path, content)}")
    try:
        first = multiscales[0]
        version = content.get("version", first.get("version", _VERSIONS[0]))
        if not str(version).startswith(_VERSIONS):
            raise UnsupportedFormatError(
                f"{path} is OME-Zarr {version}; known are {' and '.join(_VERSIONS)}: convert it to one first"
            )
        axes = _axes(path, first["axes"])
        named = dict(zip(axes, [axis.get("unit") for axis in first["axes"]], strict=True))
        after = first.get("coordinateTransformations") or []
        raw = [
            (str(entry["path"]), *_placed(path, [*entry["coordinateTransformations"], *after], len(axes)))
            for entry in first["datasets"]
        ]
        others = [str(each.get("name", number)) for number, each in enumerate(multiscales)][1:]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DamagedHeaderError(
            f"{path}: its OME-Zarr metadata are damaged: {type(error).__name__}: {error}"
        ) from error
    if not raw:
        raise DamagedHeaderError(f"{path}: its OME-Zarr metadata list no scale")
    order = [(axes if "z" in axes else axes + "z").index(axis) for axis in "xyz"]
    written = sorted(
        ((name, _at(order, [*scale, 1.0]), _at(order, [*shift, 0.0])) for name, scale, shift in raw),
        key=_volume,
    )
    units = _units(named, parent)
    nm = [1.0 if None in units else VoxelSize((1, 1, 1), str(unit)).to_nanometer()[0] for unit in units]
    if (
        "z" not in axes
    ):  # sections of the parent's depth, or voxels as deep as those of the finest scale are wide
        wide = written[0][1][0] if parent is None else parent.scales[0].sides[2] / nm[2]
        written = [(name, (x, y, wide), shift) for name, (x, y, _), shift in written]
    scales = tuple(
        ScaleEntry(name, _product(scale, nm), _product(shift, nm)) for name, scale, shift in written
    )
    size = None
    if None not in units:  # one unit is kept, so that no digit changes
        size = VoxelSize(written[0][1], str(units[0])) if len(set(units)) == 1 else VoxelSize(scales[0].sides)
    notes = (
        [f"{path} has {len(others)} more multiscales ({', '.join(others)}), which are left out"]
        if others
        else []
    )
    text = ""
    if not all(unit_named(named[axis]) for axis in "xyz" if axis in named):
        text = ", ".join(f"{axis}: {named[axis]!r}" for axis in "xyz" if axis in named)
    return Image(path, axes, size, scales, units, text, _channel_names(content), tuple(notes))


def _channel_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels of channels in omero metadata, which may hold anything."""
    omero = content.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    return tuple(
        str(channel.get("label", number)) if isinstance(channel, dict) else str(number)
        for number, channel in enumerate(channels if isinstance(channels, list) else [])
    )


def _units(named: Mapping[str, Any], parent: Image | None) -> tuple[str | None, str | None, str | None]:
    """Return the units along (x, y, z), by their full names."""
    if parent is not None and None in parent.units:
        return (None, None, None)  # its numbers are of the same kind, whatever that is
    own = {axis: unit_named(unit) for axis, unit in named.items()}
    if "z" not in own:
        own["z"] = own["x"]
    if parent is not None:
        own |= {axis: own[axis] or unit for axis, unit in zip("xyz", parent.units, strict=True)}
    return (own["x"], own["y"], own["z"])


def matched(image: Image, entry: ScaleEntry) -> Image:
    """Return an image whose finest scale has the voxels of another image's scale, and lies where that lies."""
    first = image.scales[0]
    ratios = [new / old for new, old in zip(entry.sides, first.sides, strict=True)]
    scales = tuple(
        ScaleEntry(
            scale.name,
            _product(scale.sides, ratios),
            _sum(entry.shift, _product(_sum(scale.shift, _product(first.shift, [-1, -1, -1])), ratios)),
        )
        for scale in image.scales
    )
    return replace(image, scales=scales)


def _sum(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the sums of numbers along (x, y, z)."""
    x, y, z = (p + q for p, q in zip(a, b, strict=True))
    return (x, y, z)


def _at(order: list[int], numbers: list[float]) -> tuple[float, float, float]:
    """Return numbers along (x, y, z)."""
    x, y, z = (numbers[n] for n in order)
    return (x, y, z)


def _product(numbers: tuple[float, float, float], factors: Sequence[float]) -> tuple[float, float, float]:
    """Return the products of numbers along (x, y, z)."""
    x, y, z = (a * b for a, b in zip(numbers, factors, strict=True))
    return (x, y, z)


def _volume(scale: tuple[str, tuple[float, float, float], Any]) -> float:
    """Return the volume of a voxel, by which scales are sorted."""
    return math.prod(scale[1])


def label_names(path: str) -> list[str]:
    """Return the names of the images in the ``labels`` group of an image; none where there is no such group."""
    folder = os.path.join(path, "labels")
    names = _attributes(folder).get("labels", []) if is_zarr(folder) else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DamagedHeaderError(f"{folder}: its labels are {names!r:.200}, expected names")
    return names


def place(
    scale: ScaleEntry, finest: ScaleEntry, extents: tuple[Vec3Int, Vec3Int] | None = None
) -> tuple[Mag, Vec3Int]:
    """Return which mag a scale is, and where it begins.

    Parameters
    ----------
    scale
        One of the scales.
    finest
        That which is mag 1.
    extents
        Voxels (x, y, z) of both. Many programs write the quotient of these as the scale, such as 101 / 50 = 2.02
        where 101 voxels were halved; then the voxels that there are prove the factor 2.

    Returns
    -------
    Mag
        Its sides in those of `finest`.
    Vec3Int
        The first voxel's corner, in voxels of mag 1, relative to the corner of `finest`; whole voxels of the mag.

    Raises
    ------
    InvalidValueError
        If it is no mag, or lies between the voxels; says why.
    """
    factors = [side / unit for side, unit in zip(scale.sides, finest.sides, strict=True)]
    whole = [round(factor) for factor in factors]
    if extents is not None:
        whole = [_halvings(*given) for given in zip(factors, *extents, strict=True)]
    elif not all(map(is_whole, factors)):
        whole = [0]
    if min(whole) < 1:
        raise InvalidValueError(
            f"its voxels are {_text(factors)} of the finest, which are no whole multiples"
        )
    try:
        mag = Mag(whole)
    except InvalidValueError:
        raise InvalidValueError(
            f"its voxels are {_text(factors)} of the finest; mags are powers of two"
        ) from None
    if scale.shift == finest.shift:  # the metadata ignore that the centres of larger voxels are shifted
        return mag, Vec3Int(0, 0, 0)
    corner = []
    for there, here, unit, step, factor in zip(
        scale.shift, finest.shift, finest.sides, whole, factors, strict=True
    ):
        # Who writes a quotient of extents as the scale writes the middle of such a voxel as the translation.
        steps = ((there - here) / unit - (factor - 1) / 2) / factor
        if abs(steps - round(steps)) > 10 * _TOLERANCE:
            steps = ((there - here) / unit - (step - 1) / 2) / step
        if abs(steps - round(steps)) > 10 * _TOLERANCE:
            raise InvalidValueError(
                f"its corner is {steps:.4g} of its voxels from that of the finest, which lies between them"
            )
        corner.append(round(steps) * step)
    return mag, Vec3Int(*corner)


def is_whole(factor: float) -> bool:
    """Return whether a factor is a whole number, but for the digits that were written."""
    return abs(factor - round(factor)) <= _TOLERANCE * round(factor)


def _halvings(factor: float, extent: int, finest: int) -> int:
    """Return the whole factor that a quotient of extents stands for; 0 if it stands for none."""
    if is_whole(factor):
        return round(factor)
    power = 1 << round(math.log2(factor)) if 1 < factor < 2**32 else 0
    halved = power and extent in (finest // power, -(-finest // power))
    return power if halved and math.isclose(factor, finest / extent, rel_tol=_TOLERANCE) else 0


def corner_of(path: str, finest: ScaleEntry) -> Vec3Int:
    """Return where the finest scale of an image begins, in its own voxels.

    Raises
    ------
    InvalidValueError
        If that is between the voxels, or negative.
    """
    steps = [shift / side for shift, side in zip(finest.shift, finest.sides, strict=True)]
    if any(abs(step - round(step)) > 10 * _TOLERANCE or round(step) < 0 for step in steps):
        raise InvalidValueError(
            f"{path}: the translation of its finest scale, {finest.name!r}, is {_text(steps)} of its voxels; a "
            f"layer begins at a whole voxel from 0 on: say where (--offset), such as 0,0,0"
        )
    return Vec3Int(*map(round, steps))


def _text(numbers: list[float]) -> str:
    return " × ".join(f"{number:.6g}" for number in numbers)


def _attributes(path: str) -> dict[str, Any]:
    """Return the attributes of a group that are OME-Zarr's."""
    if is_file(os.path.join(path, "zarr.json")):
        attributes = read_json(os.path.join(path, "zarr.json")).get("attributes", {})
        content = attributes.get("ome", attributes) if isinstance(attributes, dict) else {}
    else:
        content = read_json(os.path.join(path, ".zattrs"))
    if not isinstance(content, dict):
        raise DamagedHeaderError(f"{path}: its attributes are {content!r:.200}, expected an object")
    return content


def _children(path: str, content: Mapping[str, Any]) -> str:
    """Return what else could be meant, in words."""
    if os.path.isfile(os.path.join(path, PROPERTIES_FILE)):
        return ": it is a WEBKNOSSOS dataset. Convert one of its layers, or copy it"
    kind = next((f" but a {kind}" for kind in ("plate", "well") if kind in content), "")
    inside = [name for name in children(path) if is_zarr(f"{path}/{name}")]
    return f"{kind}; convert what is in it one by one: {', '.join(inside[:20])}" if inside else kind


def _axes(path: str, raw: list[Any]) -> str:
    """Return a letter for each axis."""
    names = []
    for axis in raw:
        if not isinstance(axis, Mapping):  # OME-Zarr 0.3
            raise UnsupportedFormatError(f"{path}: its axes are {raw!r:.200}; known is OME-Zarr 0.4 and 0.5")
        name, kind = str(axis["name"]).lower(), axis.get("type")
        names.append({"time": "t", "channel": "c"}.get(str(kind), name))
    letters = "".join(names)
    if len(letters) != len(names) or set(letters) - set("tczyx") or len(set(letters)) < len(letters):
        raise UnsupportedFormatError(
            f"{path} has the axes {', '.join(names)}; known are t, c, z, y, x, each once. Convert one array of it, "
            f"and name its axes (--axes)"
        )
    if not {"x", "y"} <= set(letters):
        raise UnsupportedFormatError(f"{path} has the axes {', '.join(names)}; an image has x and y")
    return letters


def _placed(path: str, raw: list[Any], ndim: int) -> tuple[list[float], list[float]]:
    """Return scale and translation that transformations make one after the other."""
    scale, shift = [1.0] * ndim, [0.0] * ndim
    for entry in raw:
        kind = entry["type"]
        if kind == "identity":
            continue
        if kind not in ("scale", "translation") or kind not in entry:
            raise UnsupportedFormatError(
                f"{path}: a coordinate transformation {entry!r:.200} is not supported; known are scale, translation"
            )
        numbers = [float(number) for number in entry[kind]]
        if len(numbers) != ndim or not all(map(math.isfinite, numbers)):
            raise ValueError(f"a {kind} of {numbers} for {ndim} axes")
        if kind == "scale":
            if min(numbers) <= 0:
                raise ValueError(f"a scale of {numbers}")
            scale = [a * b for a, b in zip(scale, numbers, strict=True)]
            shift = [a * b for a, b in zip(shift, numbers, strict=True)]
        else:
            shift = [a + b for a, b in zip(shift, numbers, strict=True)]
    return scale, shift
