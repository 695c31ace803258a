"""What it costs to build all cubes before the first is replaced: one phase and two, interleaved, within one run.

python -m benchmarks.bench_in_place [--rounds 5] [--mib 512] [--folder /tmp]

A function of a user's is written over a full mag. `in_place=False` publishes each cube when it is built.
`in_place=None` (the default, since the function could read the mag) builds all in a private mag first, and then
renames. Prints the median of the ratio of their wall times and processor times, and the disk space that the second
takes at most.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from wkdask import Dataset, MagView

SIDE = 256


def make_mag(folder: Path, mib: int, compression: str | None) -> MagView:
    """Return a full mag of noise in cubes of 256³."""
    layer = Dataset.create(folder, (1, 1, 1)).add_layer("color", "color")
    mag = layer.add_mag(1, chunk_shape=32, shard_shape=SIDE, compression=compression)
    voxels = np.random.default_rng(0).integers(1, 255, (1, SIDE, SIDE, mib * 16), dtype="uint8")
    mag.write(voxels, progress=False)
    return mag


def blocks(mag: MagView) -> da.Array:
    """Return what is written: a function that dask knows nothing of, in Fortran order."""
    source = da.zeros((1, *mag.box.size), chunks=(1, SIDE, SIDE, SIDE), dtype="uint8")

    def fill(block: Any) -> Any:
        return np.full(block.shape, 7, "uint8", order="F")

    return source.map_blocks(fill, dtype="uint8", meta=np.empty((0,) * 4, "uint8"))


def used(folder: Path) -> int:
    """Return the bytes on the disk below a folder, each file once."""
    seen: dict[int, int] = {}
    for home, _, names in os.walk(folder):
        for name in names:
            try:
                info = os.stat(os.path.join(home, name))
            except FileNotFoundError:
                continue
            seen[info.st_ino] = info.st_blocks * 512
    return sum(seen.values())


def timed(mag: MagView, in_place: bool | None, durable: bool) -> tuple[float, float]:
    """Return the wall and processor seconds of a write."""
    wall, processor = time.perf_counter(), time.process_time()
    mag.write(blocks(mag), in_place=in_place, durable=durable, progress=False)
    return time.perf_counter() - wall, time.process_time() - processor


def peak_of(mag: MagView, folder: Path) -> int:
    """Return the most bytes on the disk while a mag is written in two phases."""
    peak, done = used(folder), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, used(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        mag.write(blocks(mag), progress=False)
    finally:
        done.set()
        watcher.join()
    return peak


def main() -> None:
    """Run the rounds and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    for compression in (None, "lz4"):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            mag = make_mag(folder / "ds", options.mib, compression)
            timed(mag, False, True)  # kernels are compiled
            for durable in (True, False):
                walls, processors = [], []
                for _ in range(options.rounds):
                    one, two = timed(mag, False, durable), timed(mag, None, durable)
                    walls.append(two[0] / one[0])
                    processors.append(two[1] / one[1])
                print(
                    f"{compression or 'uncompressed':12} durable={durable!s:5} two phases / one: "
                    f"wall {statistics.median(walls):.2f}, processor {statistics.median(processors):.2f}"
                )
            before = used(folder)
            print(
                f"{compression or 'uncompressed':12} most on the disk: {peak_of(mag, folder) / before:.2f} x"
            )


if __name__ == "__main__":
    main()
