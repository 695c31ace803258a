"""Pyramids by numpy alone, and small layers to make them of."""

import numpy as np

from wkdask import Dataset


def oracle(voxels, corner, factors, mode):
    """Return (voxels, corner) of the next mag, by numpy alone: mirror, cut into windows, reduce each."""
    shape = voxels.shape[1:]
    low = [c // f for c, f in zip(corner, factors, strict=True)]
    high = [-(-(c + n) // f) for c, n, f in zip(corner, shape, factors, strict=True)]
    pads = [
        (c - a * f, b * f - c - n) for c, n, a, b, f in zip(corner, shape, low, high, factors, strict=True)
    ]
    whole = np.pad(voxels, [(0, 0), *pads], mode="symmetric")
    (fx, fy, fz), (nx, ny, nz) = factors, np.subtract(high, low)
    windows = whole.reshape(len(voxels), nx, fx, ny, fy, nz, fz)
    # in a window: z slowest, then x, then y
    windows = windows.transpose(0, 1, 3, 5, 6, 2, 4).reshape(len(voxels), nx, ny, nz, fx * fy * fz)
    if mode == "min":
        return windows.min(axis=-1), low
    if mode == "max":
        return windows.max(axis=-1), low
    if mode == "median":
        return np.trunc(np.median(windows.astype("float64"), axis=-1)).astype(voxels.dtype), low
    flat = windows.reshape(-1, windows.shape[-1])
    out = np.empty(len(flat), voxels.dtype)
    for number, window in enumerate(flat):
        values, first, counts = np.unique(window, return_index=True, return_counts=True)
        best = counts == counts.max()
        out[number] = values[best][np.argmin(first[best])]
    return out.reshape(windows.shape[:-1]), low


def layer_with(folder, voxels, corner, scale=(1, 1, 1), category="color", cube=32, start=1):
    layer = Dataset.create(folder, scale).add_layer(
        "layer", category, dtype_per_channel=voxels.dtype, num_channels=len(voxels)
    )
    mag = layer.add_mag(start, chunk_shape=16, shard_shape=cube)
    mag.write(voxels, offset=corner)
    return layer
