"""Sharded Zarr 3, as webknossos 4 lays it out, against the others who read and write it: interleaved, in one run.

python -m benchmarks.bench_zarr [--rounds 5] [--side 512] [--dtype uint8] [--peers tensorstore,zarr,zarrs]

The data are electron microscopy (``../shared/data/vnc``), tiled, or synthetic tissue where that is not there.
Shards of 256³, chunks of 32³, zstd 5 with a checksum, the inner transpose. Everybody has two threads, and nobody
flushes to the disk. What each wrote is compared with the data before anything is timed; slow peers get a part of
the data.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREADS = 2
os.environ.setdefault("RAYON_NUM_THREADS", str(THREADS))

import dask  # noqa: E402
import dask.array as da  # noqa: E402
import numpy as np  # noqa: E402

from wkdask import Dataset  # noqa: E402
from wkdask.demo.tissue import make_tissue  # noqa: E402

VNC = Path(__file__).parents[2] / "shared" / "data" / "vnc" / "raw"
SHARD, CHUNK = 256, 32


@dataclass(frozen=True, slots=True)
class Row:
    """What one library did with one work."""

    work: str
    """``"write"``; ``"read"``, block by block, each dropped; or ``"read whole"``, into one array."""
    name: str
    """Who."""
    rate: float
    """MB/s of voxels: the median of the rounds."""
    ratio: float
    """Its time over ours, the median over the rounds; above 1 we are faster."""


def volume(side: int, dtype: str) -> np.ndarray:
    """Return (1, side, side, side / 2) voxels in Fortran order."""
    if VNC.is_dir():
        import tifffile

        block = np.stack([tifffile.imread(path) for path in sorted(VNC.glob("*.tif"))], axis=-1)
    else:
        block, _ = make_tissue((512, 512, 64))
    shape = (side, side, side // 2)
    repeats = [-(-wanted // n) for wanted, n in zip(shape, block.shape, strict=True)]
    x, y, z = map(slice, shape)
    return np.asfortranarray(np.tile(block, repeats)[x, y, z].astype(dtype))[None]


class Ours:
    """wkdask, from the public interface."""

    def __init__(self, folder: Path, data: np.ndarray) -> None:
        self.dataset = Dataset.create(folder / "wkdask", (4, 4, 40))
        self.data = data
        self.array = blocks_of(data)
        self.mag = self._add("read")
        self.mag.write(data, offset=(0, 0, 0), durable=False, progress=False)
        assert np.array_equal(self.mag.read(), data)

    def _add(self, name: str):
        layer = self.dataset.add_layer(name, "color", dtype_per_channel=self.data.dtype, data_format="zarr3")
        return layer.add_mag(1, chunk_shape=CHUNK, shard_shape=SHARD)

    def make_empty(self) -> None:
        if "write" in self.dataset.layers:
            self.dataset.delete_layer("write")
        self.target = self._add("write")

    def write(self) -> None:
        self.target.write(self.array, offset=(0, 0, 0), durable=False, progress=False)

    def read(self) -> None:
        consume(self.mag.to_dask(chunks="cube"))

    def read_whole(self) -> None:
        self.mag.read()


def blocks_of(data: np.ndarray) -> da.Array:
    """Return an array as blocks of a shard each, in Fortran order; dask copies it once, here."""
    return da.from_array(data.T, chunks=(SHARD, SHARD, SHARD, 1), name=False).T


def consume(array: da.Array) -> None:
    """Compute every block and drop it."""
    done = array.map_blocks(
        lambda block: np.full((1, 1, 1, 1), block.size), chunks=(1, 1, 1, 1), dtype=np.int64
    )
    dask.compute(done)


class TensorStore:
    """One write and one read of the whole array, which it cuts itself; its pools have two threads."""

    def __init__(self, folder: Path, data: np.ndarray, like: str) -> None:
        import tensorstore

        self.data, self.folder, self.like = data, folder / "tensorstore", like
        self.context = tensorstore.Context(
            {"data_copy_concurrency": {"limit": THREADS}, "file_io_concurrency": {"limit": THREADS}}
        )
        self.make_empty()
        self.write()
        assert np.array_equal(self._open().read(order="F").result(), data)

    def _open(self):
        import tensorstore

        store = {"driver": "file", "path": str(self.folder), "file_io_sync": False}
        return tensorstore.open({"driver": "zarr3", "kvstore": store}, context=self.context).result()

    def make_empty(self) -> None:
        fresh(self.folder, self.like)

    def write(self) -> None:
        self._open().write(self.data).result()

    def read_whole(self) -> None:
        self._open().read(order="F").result()

    def read(self) -> None:
        """Shard by shard, each dropped, as dask's threads would."""
        array = self._open()
        boxes = [
            tuple(slice(n * SHARD, (n + 1) * SHARD) for n in place)
            for place in itertools.product(*(range(-(-side // SHARD)) for side in self.data.shape[1:]))
        ]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda box: array[:, *box].read(order="F").result().shape, boxes))


class ZarrPython:
    """dask's threads and zarr-python, a shard at a time; with its own pipeline of codecs, or that of zarrs."""

    def __init__(self, folder: Path, data: np.ndarray, like: str, pipeline: str | None) -> None:
        self.data, self.like, self.folder = data, like, folder / f"zarr {pipeline is not None}"
        self.array = blocks_of(data)
        self.settings = {"async.concurrency": THREADS, "threading.max_workers": THREADS}
        if pipeline is not None:
            self.settings["codec_pipeline.path"] = pipeline
        self.make_empty()
        self.write()
        assert np.array_equal(self._open()[...], data)

    def _open(self):
        import zarr

        return zarr.open_array(self.folder, mode="r+")

    def make_empty(self) -> None:
        fresh(self.folder, self.like, self.data.shape)

    def write(self) -> None:
        import zarr

        with zarr.config.set(self.settings):
            da.store(self.array, self._open(), lock=False)

    def read(self) -> None:
        import zarr

        with zarr.config.set(self.settings):
            cut = (1, SHARD, SHARD, SHARD)
            consume(da.from_array(self._open(), chunks=cut, name=False, lock=False))


def fresh(folder: Path, like: str, shape: tuple[int, ...] | None = None) -> None:
    """Make an empty array with the metadata of one of ours."""
    import json

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    document = json.loads(Path(like, "zarr.json").read_text())
    if shape is not None:
        document["shape"] = list(shape)
    (folder / "zarr.json").write_text(json.dumps(document))


def run(
    side: int = 512, dtype: str = "uint8", rounds: int = 5, peers: tuple[str, ...] = ("tensorstore",)
) -> list[Row]:
    """Time everybody in turns; return one row per work and library."""
    data = volume(side, dtype)
    part = np.asfortranarray(data[:, : min(side, 2 * SHARD), : min(side, SHARD), : min(side, SHARD)])
    rows = []
    with (
        tempfile.TemporaryDirectory() as name,
        dask.config.set(scheduler="threads", num_workers=THREADS),
    ):
        folder = Path(name)
        ours = Ours(folder, data)
        everybody: dict[str, tuple[Any, int]] = {"wkdask": (ours, data.nbytes)}
        if "tensorstore" in peers:
            everybody["tensorstore"] = (TensorStore(folder, data, ours.mag.place.store.path), data.nbytes)
        if "zarr" in peers:
            everybody["zarr-python"] = (
                ZarrPython(folder, part, ours.mag.place.store.path, None),
                part.nbytes,
            )
        if "zarrs" in peers:
            zarrs = ZarrPython(folder, part, ours.mag.place.store.path, "zarrs.ZarrsCodecPipeline")
            everybody["zarr-python with zarrs"] = (zarrs, part.nbytes)
        times: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for work in ("write", "read", "read whole"):
                for name, (who, nbytes) in everybody.items():
                    call = getattr(who, work.replace(" ", "_"), None)
                    if call is None:
                        continue
                    if work == "write":
                        who.make_empty()
                    start = time.perf_counter()
                    call()
                    times.setdefault((work, name), []).append((time.perf_counter() - start) / nbytes)
        for (work, name), spent in times.items():
            ratio = statistics.median(a / b for a, b in zip(spent, times[work, "wkdask"], strict=True))
            rows.append(Row(work, name, 1 / statistics.median(spent) / 1e6, ratio))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--side", type=int, default=1024, help="of the volume, which is half as deep: 1024 is half a GiB"
    )
    parser.add_argument("--dtype", default="uint8")
    parser.add_argument("--peers", default="tensorstore,zarr,zarrs")
    options = parser.parse_args()
    rows = run(options.side, options.dtype, options.rounds, tuple(options.peers.split(",")))
    print(
        f"{THREADS} threads, {options.side}² × {options.side // 2} {options.dtype}, shards of {SHARD}³, "
        f"chunks of {CHUNK}³, zstd 5\n"
    )
    print(f"| {'work':<10} | {'library':<22} |  MB/s | its time / ours |")
    print("|------------|------------------------|------:|----------------:|")
    for row in rows:
        print(f"| {row.work:<10} | {row.name:<22} | {row.rate:5.0f} | {row.ratio:15.2f} |")


if __name__ == "__main__":
    main()
