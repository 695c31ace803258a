"""The main job on data that it makes itself: tissue, a filter on two worker processes, pyramids, a picture."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from wkdask.compiling import unwatch, watch
from wkdask.dataset import Dataset
from wkdask.demo.tissue import make_tissue
from wkdask.display.preview import save_preview
from wkdask.display.text import dataset_text
from wkdask.errors import AlreadyExistsError
from wkdask.fsio import checked_path, remove_folder
from wkdask.geometry.voxel_size import format_bytes, format_count, format_rate
from wkdask.jobs.events import WriteReport
from wkdask.layer import LayerCategories
from wkdask.portable import cores
from wkdask.properties import PROPERTIES_FILE
from wkdask.storage.protocol import PRIVATE, Voxels
from wkdask.storage.publish.private import make_shared_folder

if TYPE_CHECKING:
    import dask.array as da

    from wkdask.progress.bar import ProgressLike

__all__ = ["find_membranes", "run_demo"]

SIZE = (512, 512, 96)
"""Voxels of the demo's volume."""
VOXEL_SIZE = (8.0, 8.0, 30.0)
"""Their size in nm: sections are thick, as in serial-section microscopy."""
OFFSET = (100, 37, 5)
"""The volume does not begin on the cube grid: real ones seldom do."""
SHARD = 128
"""Side of a cube file in voxels."""
HALO = (0, 6, 6, 1)
"""Voxels around a block that the filter needs, (c, x, y, z)."""
MARK = os.path.join(PRIVATE, "demo")
"""The file, in the dataset's folder, by which a later demo knows that it may replace what is there."""
PICTURE = "preview.png"
"""The picture, in the dataset's folder."""
MADE = frozenset({PRIVATE, PROPERTIES_FILE, PICTURE, "color", "cells", "membranes"})
"""All that a demo puts into the dataset's folder."""


def find_membranes(block: Voxels) -> Voxels:
    """Return how much darker each voxel is than its surroundings: membranes become bright lines.

    The mean over 13 × 13 × 1 voxels minus the mean over 3 × 3 × 3, times four, cut to uint8.

    Parameters
    ----------
    block
        ``(c, x, y, z)``, uint8.
    """
    gray = block.astype(np.float32)
    fine = _box_mean(_box_mean(_box_mean(gray, 1, 1), 2, 1), 3, 1)
    coarse = _box_mean(_box_mean(gray, 1, 6), 2, 6)
    found: Voxels = np.clip(4 * (coarse - fine), 0, 255).astype(np.uint8)
    return found


def _box_mean(block: Voxels, axis: int, radius: int) -> Voxels:
    """Return the running mean over 2 · radius + 1 voxels along an axis, edges repeated."""
    widths = [(0, 0)] * block.ndim
    widths[axis] = (radius + 1, radius)
    sums = np.cumsum(np.pad(block, widths, mode="edge"), axis=axis, dtype=np.float64)
    low = np.take(sums, range(block.shape[axis]), axis=axis)
    high = np.take(sums, range(2 * radius + 1, 2 * radius + 1 + block.shape[axis]), axis=axis)
    return ((high - low) / (2 * radius + 1)).astype(np.float32)


def run_demo(
    path: str,
    *,
    overwrite: bool = False,
    echo: Callable[[str], None] = print,
    progress: ProgressLike = True,
) -> str:
    """Make a dataset, filter it on a cluster of two processes, downsample it, draw it.

    Parameters
    ----------
    path
        Folder of the dataset.
    overwrite
        Replace what an earlier demo left there, and nothing else.
    echo
        Called with lines of text.
    progress
        As for :meth:`MagView.write`, of what the worker processes do.

    Returns
    -------
    str
        Path of the picture.

    Raises
    ------
    AlreadyExistsError
        If `path` holds something and `overwrite` is False, or anything that no demo made.
    PermissionError, FileNotFoundError, NotADirectoryError
        If a dataset cannot be made there.
    """
    path = checked_path(path)
    _make_room(path, overwrite)

    def tell(text: str | None) -> None:
        if text is not None:
            echo(f"  {text}")

    watch(tell)
    try:
        return _run(path, echo, progress)
    finally:
        unwatch(tell)


def _run(path: str, echo: Callable[[str], None], progress: ProgressLike) -> str:
    """Do what `run_demo` promises, in a folder that is free."""
    start = time.perf_counter()
    dataset = Dataset.create(path, VOXEL_SIZE)  # first of all: where it cannot be, nothing is computed
    _leave_mark(path)
    echo(f"Growing {SIZE[0]} × {SIZE[1]} × {SIZE[2]} voxels of tissue …")
    raw, labels = grow_tissue()
    color = dataset.add_layer("color", LayerCategories.COLOR_TYPE, dtype_per_channel="uint8")
    cells = dataset.add_layer("cells", LayerCategories.SEGMENTATION_TYPE, dtype_per_channel="uint32")
    source = color.add_mag(1, shard_shape=SHARD, compression="lz4")
    _say(echo, source.write(raw, offset=OFFSET))
    _say(echo, cells.add_mag(1, shard_shape=SHARD, compression="lz4").write(labels, offset=OFFSET))

    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,  # of workers that look for the scheduler while both end
        ) as cluster,
        Client(cluster) as client,
    ):
        echo(f"Two worker processes at {cluster.scheduler_address}")
        membranes = dataset.add_layer("membranes", LayerCategories.COLOR_TYPE, dtype_per_channel="uint8")
        target = membranes.add_mag(1, shard_shape=SHARD, compression="lz4")
        expression = membranes_of(source.to_dask(chunks="cube"))
        report = target.write(expression, bounding_box=color.bounding_box, client=client, progress=progress)
        _say(echo, report)
        for layer in (color, cells, membranes):
            for report in layer.downsample(coarsest_mag=8, client=client):
                _say(echo, report)
    picture = save_preview(dataset, os.path.join(path, PICTURE))
    echo("")
    echo(dataset_text(dataset))
    echo("")
    echo(f"Picture: {picture}")
    echo(f"Done in {time.perf_counter() - start:.0f} s")
    return picture


def membranes_of(image: da.Array) -> da.Array:
    """Return the membranes of an image as a dask expression: each block is filtered with a halo around it."""
    import dask.array as da

    return da.map_overlap(
        find_membranes,
        image,
        depth=HALO,
        boundary="reflect",
        dtype=np.uint8,
        meta=np.empty((0,) * 4, np.uint8),
    )


def grow_tissue() -> tuple[Voxels, Voxels]:
    """Return image and cells of the demo, each ``(x, y, z)``, grown in slabs on all cores."""
    raw = np.empty(SIZE, np.uint8, order="F")
    labels = np.empty(SIZE, np.uint32, order="F")
    depth = 16

    def grow(z: int) -> None:
        size = (SIZE[0], SIZE[1], min(depth, SIZE[2] - z))
        raw[:, :, z : z + depth], labels[:, :, z : z + depth] = make_tissue(
            size, voxel_size=VOXEL_SIZE, offset=(0, 0, z)
        )

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(grow, range(0, SIZE[2], depth)))
    return raw, labels


def _leave_mark(path: str) -> None:
    """Note in a dataset that a demo made it."""
    make_shared_folder(os.path.join(path, PRIVATE))
    with open(os.path.join(path, MARK), "x") as file:
        file.write("made by wkdask demo, which may replace it\n")


def _make_room(path: str, overwrite: bool) -> None:
    """Refuse a folder that holds something, or remove what an earlier demo made."""
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return
    if not os.path.isfile(os.path.join(path, MARK)):
        raise AlreadyExistsError(f"{path} exists, and no demo made it; give the demo another path")
    if others := sorted({*os.listdir(path)} - MADE):
        raise AlreadyExistsError(
            f"{path} holds what no demo made ({', '.join(others)}); move it away, or give the demo another path"
        )
    if not overwrite:
        raise AlreadyExistsError(
            f"{path} holds the dataset of an earlier demo; look at its picture {os.path.join(path, PICTURE)}, "
            f"or run again with --overwrite"
        )
    remove_folder(path)


def _say(echo: Callable[[str], None], report: WriteReport) -> None:
    """Print one line about a write."""
    echo(
        f"  {report.label:<28} {format_count(report.cubes, 'cube'):>9}  {format_bytes(report.bytes):>9}  "
        f"{format_rate(report.bytes, report.seconds):>9}"
    )
