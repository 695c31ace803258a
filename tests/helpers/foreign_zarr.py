"""OME-Zarr images as other programs write them: by zarr-python, with axes in any order."""

import numpy as np
import zarr

VERSIONS = {"0.4": 2, "0.5": 3}
TYPES = {"t": "time", "c": "channel"}


def turned(voxels, axes):
    """Return voxels (c, x, y, z) as an array of these axes; t is new, a missing c or z is dropped."""
    for number, axis in reversed(list(enumerate("cxyz"))):
        if axis not in axes:
            voxels = voxels.take(0, axis=number)
    left = [axis for axis in "cxyz" if axis in axes]
    voxels = voxels.transpose([left.index(axis) for axis in axes if axis != "t"])
    return np.expand_dims(voxels, axes.index("t")) if "t" in axes else voxels


def halved(voxels, factors):
    """Return voxels (c, x, y, z), every so manieth along (x, y, z)."""
    x, y, z = factors
    return voxels[:, ::x, ::y, ::z]


def image(
    folder,
    scales,
    axes="czyx",
    version="0.5",
    voxel=(4.0, 4.0, 40.0),
    unit="nanometer",
    shift="half voxel",
    offset=(0.0, 0.0, 0.0),
    chunks=16,
    **more,
):
    """Write an image.

    ``scales`` are pairs of factors (x, y, z) and voxels (c, x, y, z). ``shift`` is "half voxel" as the middle of a
    larger voxel lies, or None for no translation at all; ``offset`` is in voxels of the finest.
    """
    group = zarr.create_group(folder, zarr_format=VERSIONS[version])
    datasets = []
    for number, (factors, voxels) in enumerate(scales):
        data = turned(voxels, axes)
        names = {"dimension_names": list(axes)} if version == "0.5" else {}
        array = group.create_array(
            str(number), shape=data.shape, dtype=data.dtype, chunks=tuple(min(chunks, n) for n in data.shape),
            **names, **more,
        )  # fmt: skip
        array[...] = data
        sides = {axis: f * v for axis, f, v in zip("xyz", factors, voxel, strict=True)}
        moved = {
            axis: (o + (f - 1) / 2) * v for axis, f, v, o in zip("xyz", factors, voxel, offset, strict=True)
        }
        placed = [{"type": "scale", "scale": [sides.get(axis, 1.0) for axis in axes]}]
        if shift is not None:
            placed.append({"type": "translation", "translation": [moved.get(axis, 0.0) for axis in axes]})
        datasets.append({"path": str(number), "coordinateTransformations": placed})
    listed = [{"name": axis, "type": TYPES.get(axis, "space")} for axis in axes]
    for entry in listed:
        if unit is not None and entry["type"] == "space":
            entry["unit"] = unit if isinstance(unit, str) else unit[entry["name"]]
    multiscale = {"axes": listed, "datasets": datasets, "name": "image"}
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
    return folder


def labels(folder, version="0.5", **images):
    """Write the labels group of an image, and its images by name: (scales, options)."""
    group = zarr.create_group(folder / "labels", zarr_format=VERSIONS[version])
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "labels": list(images)}
    else:
        group.attrs["labels"] = list(images)
    for name, (scales, options) in images.items():
        image(folder / "labels" / name, scales, version=version, **options)
