"""The viewer: how long until the first picture, how fast chunks are served, and in how much memory.

python -m benchmarks.bench_viewer [--side 512] [--rounds 5] [--threads 2] [--folder FOLDER]

Chunks of 64³ are asked for over http by a process of its own, over six connections as a browser does (over one
for one thread), and the same boxes read by `mag.read` with as many threads as make chunks, in turn, round by
round, from LZ4 cubes of 1024³; the viewer keeps no chunks meanwhile. Ratios above 1 say
that the viewer took less. A dataset of 10 TB, of which two cubes exist, is opened as often as a small one.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import DEFAULT_STACK, Volumes
from wkdask import BoundingBox, Dataset, Vec3Int
from wkdask.viewer.layers import Where, layers_of
from wkdask.viewer.precomputed import chunk_name
from wkdask.viewer.scales import CHUNK
from wkdask.viewer.viewer import Viewer

Timed = Callable[[], tuple[float, float]]
"""Does the work of a round; returns CPU seconds of the side's process, and seconds."""


def peak_mib() -> float:
    """Return the largest size that this process has had, in MiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def viewer_side(pipe: Any, path: str, cache_nbytes: int) -> None:
    """Serve a dataset in a process of its own; say the address, CPU time and memory when asked."""
    viewer = Viewer(layers_of([Dataset(path)], Where()), cache_nbytes=cache_nbytes)
    pipe.send(viewer._server.data_url)
    while pipe.recv() is not None:
        pipe.send((time.process_time(), peak_mib(), viewer._server.cache.nbytes / (1 << 20)))
    viewer.close()


def read_side(pipe: Any, path: str, boxes: list[Any], threads: int) -> None:
    """Read boxes by `mag.read` in a process of its own, as often as it is asked."""
    mag = Dataset(path).get_layer("images").get_mag(1)

    def read(box: Any) -> bytes:
        return bytes(mag.read(*box).tobytes(order="F"))

    with ThreadPoolExecutor(threads) as pool:
        while pipe.recv() is not None:
            cpu, start = time.process_time(), time.perf_counter()
            total = sum(map(len, pool.map(read, boxes)))
            pipe.send((time.process_time() - cpu, time.perf_counter() - start, total))


def fetch_side(pipe: Any, connections: int) -> None:
    """Fetch addresses over connections that stay open, in a process of its own, with little work of its own."""

    def fetch(job: tuple[str, list[str]]) -> int:
        address, paths = job
        host, _, port = address.partition(":")
        room, total = memoryview(bytearray(2 << 20)), 0
        with socket.create_connection((host, int(port)), timeout=600) as connection:
            for path in paths:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
                come, end, nbytes = 0, -1, 0
                while end < 0 or come < end + nbytes:
                    count = connection.recv_into(room[come:])
                    come += count
                    if end < 0 and (end := bytes(room[: min(come, 4096)]).find(b"\r\n\r\n") + 4) < 4:
                        end = -1
                    elif not nbytes:
                        head = bytes(room[:end])
                        nbytes = int(re.search(rb"Content-Length: ([0-9]+)", head)[1])  # type: ignore[index]
                    if not count or not room[:12] == b"HTTP/1.1 200":
                        raise AssertionError(bytes(room[: min(come, 300)]))
                total += nbytes
        return total

    with ThreadPoolExecutor(connections) as pool:
        while (job := pipe.recv()) is not None:
            address, paths = job
            start = time.perf_counter()
            total = sum(pool.map(fetch, [(address, paths[n::connections]) for n in range(connections)]))
            pipe.send((time.perf_counter() - start, total))


class Side:
    """A process that is asked over a pipe."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        self._process.start()

    def answer(self) -> Any:
        return self._pipe.recv()

    def ask(self, what: Any = 0) -> Any:
        self._pipe.send(what)
        return self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(60)


def boxes_in(sides: Vec3Int) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Return the boxes of all chunks, in an order in which neighbours seldom follow each other."""
    corners = itertools.product(*(range(0, n, side) for n, side in zip(sides, CHUNK, strict=True)))
    boxes = [(corner, CHUNK.to_tuple()) for corner in corners]
    return [boxes[n] for n in np.random.default_rng(0).permutation(len(boxes))]


def paths_of(data_url: str, boxes: list[Any]) -> tuple[str, list[str]]:
    """Return the server, and the paths of chunks."""
    parts = urllib.parse.urlsplit(data_url)
    names = [chunk_name(BoundingBox(*box)) for box in boxes]
    return parts.netloc, [f"{parts.path}/precomputed/0/images/1/{name}" for name in names]


def served(path: str, sides: Vec3Int, rounds: int, threads: int) -> None:
    """Print how fast chunks are served, against reads."""
    boxes = boxes_in(sides)
    viewer, reader = Side(viewer_side, path, 0), Side(read_side, path, boxes, threads)
    browser = Side(fetch_side, 1 if threads == 1 else 6)
    job = paths_of(viewer.answer(), boxes)
    cpu, wall, rates = [], [], []
    for number in range(rounds + 1):
        before = viewer.ask()[0]
        seconds, total = browser.ask(job)
        used = viewer.ask()[0] - before
        read_cpu, read_seconds, read_total = reader.ask()
        if total != read_total:
            raise AssertionError(f"{total} bytes were served, {read_total} read")
        if number:  # the first one loads kernels and fills the page cache
            cpu.append(read_cpu / used)
            wall.append(read_seconds / seconds)
            rates.append(total / seconds / 1e6)
    for side in (viewer, reader, browser):
        side.close()
    print(f"{len(boxes)} chunks of 64³, {threads} threads: {statistics.median(rates):.0f} MB/s served;")
    print(
        f"    against mag.read with as many: by the clock {spread(wall)}, by the server's CPU time {spread(cpu)}"
    )


def memory(path: str, sides: Vec3Int, threads: int) -> None:
    """Print how much a viewer grows while it serves more than it may keep."""
    boxes, cache = boxes_in(sides), 16 << 20
    viewer, browser = Side(viewer_side, path, cache), Side(fetch_side, threads)
    address, paths = paths_of(viewer.answer(), boxes)
    browser.ask((address, paths[:8]))
    _, before, _ = viewer.ask()
    browser.ask((address, paths))
    _, after, kept = viewer.ask()
    viewer.close()
    browser.close()
    print(
        f"served {len(boxes) / 4:.0f} MiB with a cache of {cache >> 20} MiB: {kept:.0f} MiB kept, "
        f"the process grew by {after - before:.0f} MiB"
    )


def first_picture(path: str, rounds: int) -> None:
    """Print how long a command takes from its start to its address, and to its first chunk."""
    times: dict[str, list[float]] = {"import wkdask": [], "the address": [], "the first chunk": []}
    for number in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import wkdask; wkdask.Dataset"], check=True)
        imported = time.perf_counter() - start
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "wkdask", "view", path, "--no-browser", "--json", "--quiet"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if process.stdout is None:
            raise AssertionError
        url = json.loads(process.stdout.readline())["url"]
        opened = time.perf_counter() - start
        netloc, (chunk,) = paths_of(url.replace("/v/", "/data/").rstrip("/"), [((0, 0, 0), CHUNK.to_tuple())])
        connection = http.client.HTTPConnection(netloc, timeout=60)
        connection.request("GET", chunk)
        answer = connection.getresponse()
        if answer.status != 200 or not answer.read():
            raise AssertionError(answer.status)
        seen = time.perf_counter() - start
        process.send_signal(signal.SIGINT)
        process.wait(60)
        if number:
            for what, seconds in zip(times, (imported, opened, seen), strict=True):
                times[what].append(seconds)
    print(
        "seconds from the start of a process: "
        + ", ".join(f"{name} {spread(found)}" for name, found in times.items())
    )


def opening(small: str, large: str, rounds: int) -> None:
    """Print how long it takes to open a dataset of 10 TB, and a small one, in a process that runs."""
    times: dict[str, list[float]] = {small: [], large: []}
    for number in range(rounds + 1):
        for path, found in times.items():
            start = time.process_time()
            layers_of([Dataset(path)], Where())
            if number:
                found.append(time.process_time() - start)
    print(
        f"ms of CPU time to open: small {spread([1000 * t for t in times[small]])}, "
        f"10 TB {spread([1000 * t for t in times[large]])}"
    )


def spread(values: list[float]) -> str:
    """Return a median, and between what values are."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def sparse(path: Path) -> str:
    """Make a dataset of 10 TB of which two cubes exist."""
    layer = Dataset.create(path, (4, 4, 40)).add_layer("images", "color")
    mag = layer.add_mag(1, compression="lz4")
    for corner in ((0, 0, 0), (32_000, 32_000, 9_000)):
        mag.write(np.full((64, 64, 64), 7, np.uint8), corner, progress=False)
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_viewer")
    parser.add_argument("--side", type=int, default=512, help="voxels along x and y; 256 along z")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stack", type=Path, default=DEFAULT_STACK)
    parser.add_argument("--folder", type=Path, default=None, help="for data; removed at the end")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder, prefix="wkdask-viewer-"))
    try:
        volume = Volumes(folder, given.side**2 * 256 >> 20, given.stack)["images"]
        path = str(folder / "images.wk")
        mag = Dataset.create(path, (4, 4, 40)).add_layer("images", "color").add_mag(1, compression="lz4")
        mag.write(volume, durable=False, progress=False)
        sides = Vec3Int(volume.shape[-3:])
        first_picture(path, given.rounds)
        served(path, sides, given.rounds, given.threads)
        memory(path, sides, given.threads)
        opening(path, sparse(folder / "sparse.wk"), given.rounds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", os.getcwd())
    main()
