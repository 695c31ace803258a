"""Random boxes, read one after the other as a training does: by CPU time and by the clock, within one run.

python -m benchmarks.bench_random_reads [--mib 128] [--rounds 5] [--sizes 32,64,128,256] [--kinds images,labels]
    [--cubes 256,1024] [--processes 1,2] [--stack FOLDER] [--folder FOLDER] [--peer-python PYTHON]

The same boxes are read by every side in turn, round by round, from the page cache: by `mag.read`, by the reader, by
the reader into an array that is there already; by the bare wkw library (zarr-python for Zarr), and by webknossos in
the peers' Python. A size of 0 stands for whole sections. Shown are milliseconds of CPU time per box, and ratios to
the bare library: above 1, less time was taken.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import wkw

from benchmarks.data import DEFAULT_STACK, KINDS, VOXEL_SIZE, Volumes
from benchmarks.peer import Peer
from wkdask import Dataset

Boxes = list[tuple[tuple[int, int, int], tuple[int, int, int]]]
Opened = Callable[[tuple[int, int, int], tuple[int, int, int]], Any]
FORMS = {"wkw": ("raw", None), "wkw-lz4": ("lz4", "lz4"), "zarr3": ("zstd", "zstd")}
COUNTS = {32: 200, 64: 100, 128: 40, 256: 12, 0: 20}
"""Boxes of a round, by their side."""


@dataclass(frozen=True)
class Place:
    """Where a volume lies."""

    dataset: str
    layer: str

    @property
    def mag(self) -> Any:
        return Dataset(self.dataset).get_layer(self.layer).get_mag(1)


def by_read(place: Place) -> Opened:
    mag = place.mag
    return lambda offset, size: mag.read(offset, size)


def by_reader(place: Place) -> Opened:
    reader = place.mag.open_reader()
    return lambda offset, size: reader.read(offset, size)


def by_reader_out(place: Place) -> Opened:
    reader, kept = place.mag.open_reader(), {}

    def read(offset: tuple[int, int, int], size: tuple[int, int, int]) -> Any:
        if size not in kept:
            kept[size] = np.empty((1, *size), reader.dtype, order="F")
        return reader.read(offset, size, out=kept[size])

    return read


def by_wkw(place: Place) -> Opened:
    dataset = wkw.Dataset.open(str(place.mag.path))
    return lambda offset, size: dataset.read(offset, size)


def by_zarr(place: Place) -> Opened:
    array = place.mag.get_zarr_array()
    return lambda offset, size: array[
        (slice(None), *(slice(a, a + n) for a, n in zip(offset, size, strict=True)))
    ]


def by_peer(peer: Peer, place: Place, boxes: Boxes) -> tuple[float, float, Any]:
    cpu, seconds, total = peer("random_reads", path=place.dataset, layer=place.layer, boxes=boxes)
    return cpu, seconds, [total]


OURS = {"mag.read": by_read, "reader": by_reader, "reader, out=": by_reader_out}


def take(open_side: Callable[[Place], Opened], place: Place, orders: Any, answers: Any) -> None:
    """Read boxes in a process of its own until there are no more; answer with CPU time and sums."""
    read = open_side(place)
    while (boxes := orders.get()) is not None:
        start = time.process_time()
        for box in boxes:
            found = read(*box)
        seconds = time.process_time() - start
        answers.put((seconds, int(found.sum(dtype=np.uint64))))


class Readers:
    """Processes that read for one side."""

    def __init__(self, open_side: Callable[[Place], Opened], place: Place, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._orders = [context.SimpleQueue() for _ in range(count)]
        self._answers = context.SimpleQueue()
        self._processes = [
            context.Process(target=take, args=(open_side, place, orders, self._answers), daemon=True)
            for orders in self._orders
        ]
        for process in self._processes:
            process.start()

    def __call__(self, boxes: Boxes) -> tuple[float, float, Any]:
        """Let each process read its share; return CPU seconds, seconds, and sums of the last boxes."""
        start = time.perf_counter()
        for number, orders in enumerate(self._orders):
            orders.put(boxes[number :: len(self._orders)])
        answers = [self._answers.get() for _ in self._orders]
        seconds = time.perf_counter() - start
        return sum(cpu for cpu, _ in answers), seconds, sorted(total for _, total in answers)

    def close(self) -> None:
        for orders in self._orders:
            orders.put(None)
        for process in self._processes:
            process.join(60)


def make_place(folder: Path, volume: Any, kind: str, form: str, cube: int) -> Place:
    dtype, category = KINDS[kind]
    data_format = "zarr3" if form == "zarr3" else "wkw"
    path = folder / f"{kind}-{form}-{cube}"
    layer = Dataset.create(path, VOXEL_SIZE).add_layer(
        kind, category, dtype_per_channel=dtype, data_format=data_format
    )
    mag = layer.add_mag(1, chunk_shape=32, shard_shape=cube, compression=FORMS[form][1])
    mag.write(volume, offset=(0, 0, 0), durable=False, progress=False)
    return Place(str(path), kind)


@dataclass
class RandomBoxes:
    """Makes the boxes of a round."""

    rng: np.random.Generator
    shape: tuple[int, ...]
    """Voxels (x, y, z) that there are."""
    side: int
    """Of a box; 0 for whole sections."""

    @property
    def count(self) -> int:
        return COUNTS.get(self.side, 20)

    def __call__(self) -> Boxes:
        nx, ny, nz = (min(self.side, n) for n in self.shape) if self.side else (*self.shape[:2], 1)
        x, y, z = self.shape
        return [
            (tuple(int(self.rng.integers(0, n + 1)) for n in (x - nx, y - ny, z - nz)), (nx, ny, nz))
            for _ in range(self.count)
        ]


def measure(
    sides: dict[str, Callable[[Boxes], tuple[float, float, Any]]], make: RandomBoxes, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return (CPU, wall) seconds of each side, round by round; refuse sides that read different voxels."""
    for read in sides.values():
        read(make())
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        boxes = make()
        found = {}
        for name, read in list(sides.items())[:: 1 if number % 2 else -1]:
            cpu, seconds, found[name] = read(boxes)
            times[name].append((cpu, seconds))
        if len({str(sums) for sums in found.values()}) > 1:
            raise AssertionError(f"the sides read different voxels: {found}")
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_random_reads")
    parser.add_argument("--mib", type=int, default=128, help="MiB of each volume")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="32,64,128,256")
    parser.add_argument("--kinds", default="images,labels")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--cubes", default="256,1024")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--stack", type=Path, default=DEFAULT_STACK)
    parser.add_argument("--folder", type=Path, default=None, help="for data; removed at the end")
    parser.add_argument("--peer-python", default=None, help="Python of an environment with webknossos")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder, prefix="wkdask-random-reads-"))
    peer = Peer(given.peer_python, folder) if given.peer_python else None
    if peer is None:
        print("webknossos is left out: no --peer-python")
    try:
        run(given, folder, peer)
    finally:
        if peer is not None:
            peer.close()
        shutil.rmtree(folder)


def run(given: argparse.Namespace, folder: Path, peer: Peer | None) -> None:
    """Measure and print all rows."""
    numbers = {
        name: [int(n) for n in getattr(given, name).split(",")] for name in ("sizes", "cubes", "processes")
    }
    volumes = Volumes(folder, given.mib, given.stack)
    print(f"{'what':<36}{'side':<14}{'CPU ms':>8}{'CPU ratio':>11}{'wall ratio':>12}")
    for kind, form, cube in itertools.product(
        given.kinds.split(","), given.forms.split(","), numbers["cubes"]
    ):
        volume = volumes[kind]
        place = make_place(folder, volume, kind, form, cube)
        bare = "zarr-python" if form == "zarr3" else "bare wkw"
        for count in numbers["processes"]:
            opened = {
                name: Readers(open_side, place, count)
                for name, open_side in {**OURS, bare: by_zarr if form == "zarr3" else by_wkw}.items()
            }
            sides: dict[str, Callable[[Boxes], tuple[float, float, Any]]] = dict(opened)
            if peer is not None and count == 1:
                sides["webknossos"] = partial(by_peer, peer, place)
            rng = np.random.default_rng(0)
            for side in numbers["sizes"]:
                make = RandomBoxes(rng, volume.shape[1:], side)
                what = f"{kind}, {form}, {cube}³, {f'{side}³' if side else 'section'}, {count} proc."
                show(what, measure(sides, make, given.rounds), bare, make.count)
            for readers in opened.values():
                readers.close()
        shutil.rmtree(place.dataset)


def show(what: str, times: dict[str, list[tuple[float, float]]], bare: str, count: int) -> None:
    """Print the lines of a row: medians of the rounds."""
    for name, rounds in times.items():
        ratios = [
            statistics.median(theirs[n] / ours[n] for ours, theirs in zip(rounds, times[bare], strict=True))
            for n in (0, 1)
        ]
        cpu = statistics.median(cpu for cpu, _ in rounds) / count * 1000
        print(f"{what:<36}{name:<14}{cpu:>8.3f}{ratios[0]:>11.2f}{ratios[1]:>12.2f}", flush=True)


if __name__ == "__main__":
    main()
