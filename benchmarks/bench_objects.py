"""Datasets in an object store: whole mags and random boxes, against bare requests, tensorstore and webknossos.

python -m benchmarks.bench_objects [--mib 256] [--rounds 3] [--delay 0.02] [--boxes 40] [--peer-python PYTHON]

The server is the S3 server of the tests, on the loopback; it lets each request wait for the delay. Sides take
turns, round by round. Shown are seconds and ratios within one run: above 1, less time was taken.

- mag       all cubes of 256³, two requests at once: `mag.read`; two threads that get the objects and drop them
- boxes     random boxes of 64³ out of cubes of 1024³, in round trips: cold, when nothing is known of the cubes, and
            after that
- put       `copy_dataset` to the store; as many threads that put the same files
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import obstore

sys.path.append(str(Path(__file__).parents[1] / "tests" / "helpers"))

from object_server import ObjectServer

from benchmarks.data import DEFAULT_STACK, Volumes
from wkdask import Dataset
from wkdask.objects.reading import list_objects
from wkdask.objects.stores import store_of
from wkdask.objects.urls import Address
from wkdask.storage.objects.wkw import forget_cube
from wkdask.storage.objects.zarr import forget_shard

SIDE = 64
"""Of the random boxes."""

PEER = """
import sys, time
from webknossos import Dataset
url, offsets = sys.argv[1], eval(sys.argv[2])
mag = Dataset.open(url).get_layer(sys.argv[3]).get_mag(1)
mag.read(absolute_offset=offsets[0], size=(64, 64, 64))
start = time.perf_counter()
for offset in offsets[1:]:
    mag.read(absolute_offset=offset, size=(64, 64, 64))
print((time.perf_counter() - start) / (len(offsets) - 1))
"""


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def contest(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each side; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number, (name, call) in itertools.product(range(rounds), sides.items()):
        seconds = timed(call)
        if number or rounds == 1:  # the first round fills caches and compiles
            found[name].append(seconds)
    return {name: statistics.median(times) for name, times in found.items()}


def bare_gets(url: str) -> Callable[[], None]:
    """Return what gets all objects of a mag, two at a time, and drops them."""
    store, keys = (
        store_of(Address.of(url)),
        [Address.of(f"{url}/{each.name}").key for each in list_objects(url)],
    )

    def get(key: str) -> int:
        return len(memoryview(obstore.get(store, key).bytes()))

    def run() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(get, keys))

    return run


def bare_puts(folder: Path, url: str, threads: int) -> Callable[[], None]:
    """Return what puts all files of a dataset."""
    store, base = store_of(Address.of(url)), Address.of(url).key
    files = [path for path in folder.rglob("*") if path.is_file() and ".wkdask" not in path.parts]

    def put(path: Path) -> None:
        obstore.put(store, f"{base}/{path.relative_to(folder)}", path, use_multipart=False)

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(put, files))

    return run


def mag_of(url: str, kind: str = "images") -> Any:
    return Dataset(url).get_layer(kind).get_mag(1)


def round_trip(url: str) -> float:
    """Return the seconds of a request for one byte."""
    address = Address.of(mag_of(url).place.store.metadata_path)
    store = store_of(address)
    return statistics.median(
        timed(lambda: obstore.get_range(store, address.key, start=0, length=1)) for _ in range(15)
    )


def offsets_in(shape: tuple[int, ...], count: int) -> list[tuple[int, int, int]]:
    random = np.random.default_rng(5)
    return [tuple(int(random.integers(0, side - SIDE)) for side in shape[1:]) for _ in range(count)]


def random_rows(
    url: str, zarr_url: str, arguments: argparse.Namespace, shape: tuple[int, ...]
) -> Iterator[str]:
    """Yield what random boxes took."""
    offsets = offsets_in(shape, arguments.boxes)
    trip = round_trip(url)
    yield f"one round trip: {1000 * trip:.1f} ms"
    for name, where, forget in (("WKW, LZ4", url, forget_cube), ("Zarr 3", zarr_url, forget_shard)):
        mag = mag_of(where)
        mag.read(offset=offsets[0], size=(SIDE,) * 3)
        cubes = [mag.place.store.cube_path(index) for index in mag.place.store.cubes_on_disk()]

        def cold(
            offset: tuple[int, int, int], mag: Any = mag, cubes: Any = cubes, forget: Any = forget
        ) -> float:
            for cube in cubes:
                forget(cube)
            return timed(lambda: mag.read(offset=offset, size=(SIDE,) * 3))

        first = statistics.median(cold(offset) for offset in offsets)
        warm = statistics.median(timed(lambda: mag.read(offset=each, size=(SIDE,) * 3)) for each in offsets)  # noqa: B023
        yield f"{name}: cold {first / trip:.2f} round trips, after that {warm / trip:.2f}"
        if name == "Zarr 3":
            yield f"  tensorstore, index known: {by_tensorstore(where, offsets) / trip:.2f} round trips"
        elif arguments.peer_python:
            command = [
                arguments.peer_python,
                "-c",
                PEER,
                where,
                repr(offsets[: arguments.boxes // 2]),
                "images",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
            seconds = float(done.stdout.split()[-1]) if done.returncode == 0 else None
            told = done.stderr[-300:] if seconds is None else f"{seconds / trip:.2f} round trips"
            yield f"  webknossos: {told}"


def by_tensorstore(url: str, offsets: list[tuple[int, int, int]]) -> float:
    """Return the seconds of a box by tensorstore."""
    import tensorstore

    address = Address.of(mag_of(url).path)
    spec = {
        "driver": "zarr3",
        "kvstore": {
            "driver": "s3",
            "bucket": address.bucket,
            "path": f"{address.key}/",
            "endpoint": os.environ["AWS_ENDPOINT_URL"],
            "aws_region": "us-east-1",
        },
        "recheck_cached_data": "open",
        "context": {"cache_pool": {"total_bytes_limit": 64 << 20}},
    }
    array = tensorstore.open(spec).result()

    def read(offset: tuple[int, int, int]) -> Any:
        x, y, z = offset
        return array[:, x : x + SIDE, y : y + SIDE, z : z + SIDE].read().result()

    read(offsets[0])
    return statistics.median(timed(lambda each=each: read(each)) for each in offsets[1:])  # type: ignore[misc]


def run(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Yield lines of results."""
    volumes = Volumes(folder, arguments.mib, arguments.stack)
    with ObjectServer(delay=arguments.delay) as server:
        bucket = server.new_bucket()
        os.environ.update(bucket.environ)
        for compression in (None, "lz4"):
            local = volumes.dataset("images", compression)
            url = f"{bucket.url}/{compression}"
            threads = 8
            puts = contest(
                {
                    "put": lambda url=url, local=local: copied(local, url),
                    "bare": bare_puts(local, f"{url}-bare", threads),
                },
                arguments.rounds,
            )
            name = compression or "uncompressed"
            yield f"put {name}: {puts['bare'] / puts['put']:.2f} × bare puts ({puts['put']:.2f} s)"
            copied(local, url)
            with dask.config.set({"num_workers": 2, "wkdask.store-requests": 2}):
                mag = mag_of(url)
                sides = {"mag": mag.read, "bare": bare_gets(mag.path)}
                gets = contest(sides, arguments.rounds)
            yield f"mag {name}: {gets['bare'] / gets['mag']:.2f} × bare gets ({gets['mag']:.2f} s)"
        large = volumes.dataset("images", "lz4", 1024)
        zarr = folder / "zarr"
        if not zarr.exists():
            Dataset(large).copy_dataset(zarr, data_format="zarr3", shard_shape=1024, compression="zstd")
        copied(large, f"{bucket.url}/large")
        copied(zarr, f"{bucket.url}/zarr")
        yield from random_rows(
            f"{bucket.url}/large", f"{bucket.url}/zarr", arguments, volumes["images"].shape
        )


def copied(local: Path, url: str) -> None:
    """Put a dataset where there is none."""
    for each in list_objects(url):
        obstore.delete(store_of(Address.of(url)), Address.of(f"{url}/{each.name}").key)
    Dataset(local).copy_dataset(url)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--boxes", type=int, default=40)
    parser.add_argument("--stack", type=Path, default=DEFAULT_STACK)
    parser.add_argument("--peer-python", default=os.environ.get("WKDASK_PEER_PYTHON"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="wkdask-objects-"))
    try:
        for line in run(arguments, folder):
            print(line, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
