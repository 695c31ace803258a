"""Small writes into large cubes: against a plain copy of the cube's file, interleaved, within one run.

python -m benchmarks.bench_small_writes [--rounds 5] [--side 1024] [--folder /tmp]

A box of 64³ voxels is written into a full plain cube, into an almost empty one, and slice by slice through the
buffered writer. The cube is in the page cache; the copy is made by ``copy_file_range`` over the data extents, into
a new file, once left to the kernel and once flushed to the disk, as a write is by default.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wkdask import BoundingBox, Dataset, MagView
from wkdask.fsio import copy_sparse
from wkdask.geometry import Vec3Int
from wkdask.kernels import to_fortran

BLOCK = 64


def make_mag(folder: Path, side: int, full: bool) -> MagView:
    """Return a mag with one plain cube, full of noise or with one voxel."""
    dataset = Dataset.create(folder, (1, 1, 1))
    layer = dataset.add_layer("color", "color", dtype_per_channel="uint8")
    mag = layer.add_mag(1, chunk_shape=32, shard_shape=side)
    if not full:
        mag.write(np.ones((1, 1, 1), "uint8"), progress=False)
        return mag
    rng = np.random.default_rng(0)
    layer_of_chunks = to_fortran(rng.integers(1, 255, (1, side, side, 32), dtype="uint8"))
    with mag.get_buffered_slice_writer(buffer_size=32) as writer:
        for _ in range(side // 32):
            for z in range(32):
                writer.send(layer_of_chunks[..., z])
    return mag


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def copying(mag: MagView, flushed: bool) -> Callable[[], object]:
    """Return what copies the cube's file."""
    source = mag.place.store.cube_path(Vec3Int(0, 0, 0))
    target = f"{mag.path}/../copy"

    def copy() -> None:
        copy_sparse(source, target)
        if flushed:
            descriptor = os.open(target, os.O_RDONLY)
            os.fdatasync(descriptor)
            os.close(descriptor)

    return copy


def writing(mag: MagView, durable: bool) -> Callable[[], object]:
    """Return what writes the block."""
    block = np.full((1, BLOCK, BLOCK, BLOCK), 7, "uint8", order="F")
    corner = Vec3Int.full(mag.spec.shard_shape.x // 2 - 20)  # off the chunk grid
    return lambda: mag.write(block, offset=corner, durable=durable, progress=False)


def small_writes(folder: Path, side: int, rounds: int) -> None:
    """Print a table: a copy, the same write, and their ratio."""
    print(f"| {BLOCK}³ into a cube of {side}³ | copy ms | write ms | ratio |")
    print("|------------------------------|--------:|---------:|------:|")
    for full in (True, False):
        mag = make_mag(folder / f"full-{full}", side, full)
        writing(mag, False)()
        for durable in (False, True):
            pairs = []
            for _ in range(rounds):
                copy = seconds(copying(mag, durable))
                os.unlink(f"{mag.path}/../copy")
                pairs.append((copy, seconds(writing(mag, durable))))
            ratio = statistics.median(ours / theirs for theirs, ours in pairs)
            copied, written = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
            name = f"{'full' if full else 'almost empty'}{', flushed' if durable else ''}"
            print(f"| {name:<28} | {copied:7.1f} | {written:8.1f} | {ratio:5.2f} |")


def slices(folder: Path, side: int) -> None:
    """Print what the slice writer takes for one cube: how often it publishes it, and memory."""
    mag = make_mag(folder / "slices", side, full=False)
    path = mag.place.store.cube_path(Vec3Int(0, 0, 0))
    before, inodes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, set()
    data = np.full((side, side), 3, "uint8", order="F")
    start = time.perf_counter()
    with mag.get_buffered_slice_writer(buffer_size=32) as writer:
        for _ in range(side):
            writer.send(data)
            inodes.add(os.stat(path).st_ino)
    inodes.add(os.stat(path).st_ino)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"{side} slices of {side} x {side}: {time.perf_counter() - start:.1f} s, published {len(inodes) - 1} "
        f"time(s), peak memory grew by {max(grown, 0) >> 10} MiB (a buffer has {32 * side * side >> 20} MiB)"
    )
    assert mag.get_view(size=(1, 1, side)).read().min() == 3
    assert mag.layer.bounding_box == BoundingBox((0, 0, 0), Vec3Int.full(side))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        small_writes(Path(folder), options.side, options.rounds)
        slices(Path(folder), options.side)


if __name__ == "__main__":
    main()
