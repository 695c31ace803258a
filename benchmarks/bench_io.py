"""Reading and writing against the bare wkw library in a bare loop: ratios, interleaved, within one run.

python -m benchmarks.bench_io [--rounds 5] [--compression raw|lz4] [--side 256]

The data are half a gibibyte of tissue from ``wkdask.synthetic``. Both sides use the same number of threads, and the
voxels that each wrote are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import wkw

from wkdask import Dataset
from wkdask.synthetic import make_tissue

THREADS = len(os.sched_getaffinity(0))


class Bare:
    """The wkw library in a loop over cubes."""

    def __init__(self, folder: Path, data: np.ndarray, side: int, block_type: int) -> None:
        self.path, self.data, self.side, self.block_type = str(folder), data, side, block_type
        self.corners = list(itertools.product(*(range(0, n, side) for n in data.shape[1:])))

    def write(self, data: np.ndarray) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        header = wkw.Header(np.uint8, file_len=self.side // 32, block_type=self.block_type)
        dataset = wkw.Dataset.create(self.path, header)

        def write(corner):
            x, y, z = corner
            dataset.write(corner, data[:, x : x + self.side, y : y + self.side, z : z + self.side])

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(write, self.corners))

    def read(self) -> None:
        dataset = wkw.Dataset.open(self.path)
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda corner: dataset.read(corner, (self.side,) * 3).shape, self.corners))


def consume(array: da.Array) -> None:
    """Compute every block and drop it."""
    shapes = array.map_blocks(
        lambda block: np.full((1, 1, 1, 1), block.size), chunks=(1, 1, 1, 1), dtype=np.int64
    )
    dask.compute(shapes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compression", choices=["raw", "lz4"], default="raw")
    parser.add_argument("--side", type=int, default=256)
    options = parser.parse_args()
    compression = None if options.compression == "raw" else "lz4"

    tissue, _ = make_tissue((512, 512, 64))
    data = np.asfortranarray(np.tile(tissue, (2, 2, 8)))[None]
    turned = np.ascontiguousarray(data)
    with tempfile.TemporaryDirectory() as folder:
        bare = Bare(Path(folder) / "bare", data, options.side, 1 if compression is None else 2)
        dataset = Dataset.create(Path(folder) / "ours", (4, 4, 40))
        names = (f"layer{number}" for number in itertools.count())

        def ours(array, durable: bool = False):
            layer = dataset.add_layer(next(names), "color")
            mag = layer.add_mag(1, shard_shape=options.side, compression=compression)
            mag.write(array, offset=(0, 0, 0), durable=durable, progress=False)
            return mag

        cut = (1,) + (options.side,) * 3
        lazy, lazy_turned = (da.from_array(array, chunks=cut, name=False) for array in (data, turned))
        mag = ours(data)
        bare.write(data)
        assert np.array_equal(mag.read(), data)
        assert np.array_equal(wkw.Dataset.open(bare.path).read((0, 0, 0), data.shape[1:]), data)
        out = dataset.add_layer("inverted", "color").add_mag(
            1, shard_shape=options.side, compression=compression
        )
        works = {
            "read a mag, blocks consumed": (bare.read, lambda: consume(mag.to_dask(chunks="cube"))),
            "mag.read() into one array": (bare.read, mag.read),
            "write numpy, Fortran order": (lambda: bare.write(data), lambda: ours(data)),
            "write dask, Fortran order": (lambda: bare.write(data), lambda: ours(lazy)),
            "the same, flushed to the disk": (lambda: bare.write(data), lambda: ours(lazy, durable=True)),
            "write dask, C order": (lambda: bare.write(turned), lambda: ours(lazy_turned)),
            "255 - x, mag to mag": (
                lambda: (bare.read(), bare.write(data)),
                lambda: out.write(
                    255 - mag.to_dask(chunks="cube"), offset=(0, 0, 0), durable=False, progress=False
                ),
            ),
        }
        print(
            f"{THREADS} threads, {data.nbytes >> 20} MiB, cubes of {options.side}³, {options.compression}\n"
        )
        print(f"| {'work':<30} | {'bare MB/s':>9} | {'wkdask MB/s':>11} | ratio |")
        print(f"|{'-' * 32}|{'-' * 10}:|{'-' * 12}:|------:|")
        for name, (theirs, own) in works.items():
            times: list[tuple[float, float]] = []
            for _ in range(options.rounds):
                pair = []
                for work in (theirs, own):
                    start = time.perf_counter()
                    work()
                    pair.append(time.perf_counter() - start)
                times.append((pair[0], pair[1]))
                for layer in [
                    name for name in dataset.layers if name.startswith("layer") and name != "layer0"
                ]:
                    dataset.delete_layer(layer)
            rates = [data.nbytes / statistics.median(column) / 1e6 for column in zip(*times, strict=True)]
            ratio = statistics.median(a / b for a, b in times)
            print(f"| {name:<30} | {rates[0]:9.0f} | {rates[1]:11.0f} | {ratio:5.2f} |")


if __name__ == "__main__":
    main()
