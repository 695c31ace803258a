"""Checking the headers of all cubes of a mag, against `find` that reads 16 bytes of each file.

python -m benchmarks.bench_check [--cubes 60000] [--data-format wkw] [--compression lz4] [--rounds 5]

The cubes are small and in the page cache: what is measured is the work for each of them. Ratios are of CPU time,
user and system together, of all threads and children; above 1 the check takes less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from wkdask import BoundingBox, Dataset
from wkdask.check.run import check_dataset

SIDE = 16
FINDS = {
    "find -exec head {} +": "find {} -type f -exec head -qc 16 {{}} + > /dev/null",
    "find -exec head {} ;": "find {} -type f -exec head -qc 16 {{}} \\; > /dev/null",
}


def make(folder: Path, data_format: str, compression: str | None, count: int) -> int:
    """Make a dataset whose cubes are copies of one; return how many there are."""
    layer = Dataset.create(folder, (4, 4, 4)).add_layer("layer", "color", data_format=data_format)
    shard = SIDE // 2 if data_format == "zarr" else SIDE
    mag = layer.add_mag(1, chunk_shape=SIDE // 2, shard_shape=shard, compression=compression)
    mag.write(np.random.default_rng(0).integers(1, 255, (shard,) * 3).astype("uint8"), progress=False)
    home = folder / "layer" / "1"
    store = mag.place.store
    data = Path(store.cube_path(next(iter(store.cubes_on_disk())))).read_bytes()
    along = round(count ** (1 / 3))
    names = {"wkw": "z{}/y{}/x{}.wkw", "zarr3": "c/0/{}/{}/{}", "zarr": "0/{}/{}/{}"}
    for place in np.ndindex(along, along, along):
        path = home / names[data_format].format(*place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    layer.bounding_box = BoundingBox((0, 0, 0), (along * shard,) * 3)
    for name in ("zarr.json", ".zarray"):
        with contextlib.suppress(FileNotFoundError):
            raw = json.loads((home / name).read_text())
            (home / name).write_text(json.dumps(raw | {"shape": [1, *[along * shard] * 3]}))
    return int(along**3)


def cpu_of(command: str) -> float:
    """Return the CPU time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, shell=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cubes", type=int, default=60_000)
    parser.add_argument("--data-format", default="wkw", choices=["wkw", "zarr3", "zarr"])
    parser.add_argument("--compression")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as name:
        folder = Path(name) / "dataset"
        count = make(folder, given.data_format, given.compression, given.cubes)
        check_dataset(folder)  # the kernel is compiled meanwhile
        checks, batched, metadata = [], [], []
        for _ in range(given.rounds):
            before = time.process_time()
            report = check_dataset(folder)
            checks.append(time.process_time() - before)
            batched.append(cpu_of(FINDS["find -exec head {} +"].format(folder / "layer" / "1")))
            before = time.process_time()
            check_dataset(folder, metadata_only=True)
            metadata.append(time.process_time() - before)
        few = next(path for path in sorted((folder / "layer" / "1").iterdir()) if path.is_dir())
        files = sum(path.is_file() for path in few.rglob("*"))
        one_by_one = cpu_of(FINDS["find -exec head {} ;"].format(few)) / max(files, 1)
    each = statistics.median(checks) / count
    print(f"{report.cubes} files of cubes, {given.data_format}, {given.compression or 'not compressed'}")
    print(
        f"check: {each * 1e6:.1f} µs of CPU for each; metadata only {statistics.median(metadata) * 1e3:.1f} ms"
    )
    print(f"{'find -exec head {} +'}: {statistics.median(batched) / count / each:.2f} times that")
    print(f"{'find -exec head {} ;'}: {one_by_one / each:.0f} times that")


if __name__ == "__main__":
    main()
