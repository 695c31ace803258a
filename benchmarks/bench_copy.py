"""A WKW dataset into sharded Zarr 3, as webknossos lays it out, and back: against others who do it, in one run.

python -m benchmarks.bench_copy [--mib 1024] [--rounds 3] [--peers webknossos,dask,tensorstore]

The data are electron microscopy (``../shared/data/vnc``), tiled, in LZ4 cubes of 256³; the Zarr shards are of 256³
in chunks of 32³, inner transpose, zstd 5 with a checksum. Back to WKW webknossos compresses by LZ4HC, ours by LZ4
unless told otherwise. Everybody has two threads or two processes. Ours flushes what it wrote to disk unless told
not to, others do not. dask and tensorstore write an array that is in memory already: they neither read nor decode
WKW, and know no metadata. Commands count with their start. What each wrote is compared with the data.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np

from benchmarks.bench_zarr import THREADS, TensorStore, ZarrPython
from benchmarks.data import Volumes
from wkdask import Dataset

ROOT = Path(__file__).parents[1]


def peer_command() -> str | None:
    """Return webknossos's command, if there is one."""
    python = os.environ.get("WKDASK_PEER_PYTHON") or str(ROOT / ".venv-peer" / "bin" / "python")
    command = Path(python).parent / "webknossos"
    return str(command) if os.access(command, os.X_OK) else None


@dataclass(frozen=True, slots=True)
class Row:
    """What somebody did."""

    work: str
    """What was copied into what."""
    who: str
    """By whom."""
    rate: float
    """MB/s of voxels: the median of the rounds."""
    ratio: float
    """Their time over that of ``copy_dataset``, the median over the rounds; above 1 ours is faster."""
    cpu: float
    """Seconds of processor time, the median: what others do on the machine meanwhile changes it less."""


class Bench:
    """The datasets, and who copies them."""

    def __init__(self, folder: Path, mib: int, peers: tuple[str, ...]) -> None:
        self.folder = folder
        volumes = Volumes(folder, mib, None)
        self.wkw = volumes.dataset("images", "lz4")
        self.data = volumes["images"]
        self.zarr = folder / "zarr"
        Dataset(self.wkw).copy_dataset(self.zarr, data_format="zarr3", progress=False)
        self.sides: dict[str, dict[str, Callable[[], None]]] = {
            "to Zarr 3": {
                "wkdask copy_dataset": lambda: self.ours(self.wkw, "zarr3"),
                "wkdask copy_dataset, no flush": lambda: self.ours(self.wkw, "zarr3", durable=False),
                "wkdask copy": lambda: self.command([sys.executable, "-m", "wkdask", "copy"], "zarr3"),
            },
            "to WKW": {
                "wkdask copy_dataset": lambda: self.ours(self.zarr, "wkw"),
                "wkdask copy_dataset, lz4hc": lambda: self.ours(self.zarr, "wkw", "lz4hc"),
                "wkdask copy": lambda: self.command([sys.executable, "-m", "wkdask", "copy"], "wkw"),
            },
        }
        peer = peer_command()
        if "webknossos" in peers and peer is not None:
            command = [peer, "copy-dataset", "--jobs", str(THREADS)]
            self.sides["to Zarr 3"]["webknossos copy-dataset"] = lambda: self.command(command, "zarr3")
            self.sides["to WKW"]["webknossos copy-dataset"] = lambda: self.command(command, "wkw")
        like = Dataset(self.zarr).get_layer("images").get_mag(1).place.store.path
        if "dask" in peers:
            self.zarr_python = ZarrPython(folder, self.data, like, None)
            self.sides["to Zarr 3"]["dask.array.store, zarr-python"] = self.zarr_python.write
        if "tensorstore" in peers:
            self.tensorstore = TensorStore(folder, self.data, like)
            self.sides["to Zarr 3"]["tensorstore"] = self.tensorstore.write

    @property
    def copy(self) -> Path:
        """Where a copy goes."""
        return self.folder / "copy"

    def prepare(self, name: str) -> None:
        """Take away what an earlier round has made."""
        shutil.rmtree(self.copy, ignore_errors=True)
        if name == "tensorstore":
            self.tensorstore.make_empty()
        elif name.startswith("dask"):
            self.zarr_python.make_empty()

    def ours(
        self, source: Path, data_format: str, compression: str | bool = True, *, durable: bool = True
    ) -> None:
        """Copy in this process."""
        Dataset(source).copy_dataset(
            self.copy, data_format=data_format, compression=compression, durable=durable, progress=False
        )

    def command(self, command: list[str], data_format: str) -> None:
        """Copy by a command."""
        source = self.wkw if data_format == "zarr3" else self.zarr
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        arguments = [*command, "--data-format", data_format, str(source), str(self.copy)]
        subprocess.run(arguments, check=True, env=env, capture_output=True)

    def check(self, name: str) -> None:
        """Compare what a copy holds with the data."""
        if not name.startswith(("dask", "tensorstore")):  # those were compared when they were made
            assert np.array_equal(Dataset(self.copy).get_layer("images").get_mag(1).read(), self.data), name


def cpu_seconds() -> float:
    """Return the processor time of this process and of the commands that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def run(mib: int, rounds: int, peers: tuple[str, ...], folder: Path) -> list[Row]:
    """Time everybody in turns."""
    rows = []
    with dask.config.set(scheduler="threads", num_workers=THREADS):
        bench = Bench(folder, mib, peers)
        for work, sides in bench.sides.items():
            times: dict[str, list[float]] = {name: [] for name in sides}
            cpu: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(rounds + 1):
                for name, call in sides.items() if number % 2 else reversed(sides.items()):
                    bench.prepare(name)
                    start, used = time.perf_counter(), cpu_seconds()
                    call()
                    seconds, used = time.perf_counter() - start, cpu_seconds() - used
                    if number:  # the first round warms caches and compilers, and is compared
                        times[name].append(seconds)
                        cpu[name].append(used)
                    else:
                        bench.check(name)
            ours = times["wkdask copy_dataset"]
            for name, spent in times.items():
                ratio = statistics.median(a / b for a, b in zip(spent, ours, strict=True))
                rate = bench.data.nbytes / statistics.median(spent) / 1e6
                rows.append(Row(work, name, rate, ratio, statistics.median(cpu[name])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="of the volume")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="webknossos,dask,tensorstore")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = run(options.mib, options.rounds, tuple(options.peers.split(",")), Path(name))
    print(f"{options.mib} MiB of uint8, {THREADS} threads or jobs\n")
    print(f"| {'work':<9} | {'who':<29} |  MB/s | their time / ours | processor s |")
    print("|-----------|-------------------------------|------:|------------------:|------------:|")
    for row in rows:
        print(f"| {row.work:<9} | {row.who:<29} | {row.rate:5.0f} | {row.ratio:17.2f} | {row.cpu:11.1f} |")


if __name__ == "__main__":
    main()
