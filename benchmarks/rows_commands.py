"""Rows of whole commands, as they are typed: from the start of the process to its end, on both sides."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bare import read_all
from benchmarks.contest import Bench, Contest, Row, Side
from benchmarks.data import SIDE, VOXEL_SIZE, drop, fresh_copy, image_stack, threads
from benchmarks.rows_io import equal
from wkdask import Dataset

SIZE = ",".join(map(str, VOXEL_SIZE))


def rows() -> Iterator[Row]:
    yield Row("command-convert", "`convert` of an image stack, from the shell: raw", 5, convert)
    yield Row(
        "command-downsample", "`downsample` to mag 8, from the shell: lz4 (theirs: lz4hc)", 12, downsample
    )


def command(*arguments: object) -> Callable[[], None]:
    """Return what runs a command to its end."""

    def run() -> None:
        done = subprocess.run([str(part) for part in arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")

    return run


def ours(*arguments: object) -> Callable[[], None]:
    return command(sys.executable, "-m", "wkdask", *arguments)


def theirs(bench: Bench, *arguments: object) -> Callable[[], None]:
    """Return webknossos's command with as many processes as we have threads."""
    if bench.peer_python is None:
        raise RuntimeError("this row needs a peer: give --peer-python (see benchmarks/README.md)")
    program = Path(bench.peer_python).with_name("webknossos")
    return command(program, *arguments, "--jobs", threads())


def convert(bench: Bench) -> Contest:
    volume = bench.volumes["images"]
    images = image_stack(volume, bench.folder / "stack")
    paths = {name: bench.folder / name for name in ("ours", "theirs")}

    def check() -> str:
        for path in paths.values():
            (layer,) = Dataset(path).layers.values()
            equal(read_all(Path(layer.get_mag(1).path), volume.shape[1:]), volume)
        return "both hold the stack"

    cut = ("--voxel-size", SIZE, "--shard-shape", SIDE)
    return Contest(
        volume.nbytes,
        [
            Side(
                "wkdask convert",
                ours("convert", images, paths["ours"], *cut, "--compression", "none"),
                lambda: drop(paths["ours"]),
            ),
            Side(
                "webknossos convert",
                theirs(
                    bench, "convert", images, paths["theirs"], *cut, "--data-format", "wkw", "--no-compress"
                ),
                lambda: drop(paths["theirs"]),
            ),
        ],
        check,
        rounds=3,
    )


def downsample(bench: Bench) -> Contest:
    volume, source = bench.volumes["images"], bench.volumes.dataset("images", None)
    paths = {name: bench.folder / name for name in ("ours", "theirs")}
    options = ("--coarsest-mag", 8, "--sampling-mode", "isotropic")

    def check() -> str:
        for mag in (2, 4, 8):
            shape = tuple(-(-n // mag) for n in volume.shape[1:])
            mine, other = (read_all(path / "images" / str(mag), shape) for path in paths.values())
            equal(mine, other)
        return "mags 2, 4, 8 are equal, voxel by voxel"

    return Contest(
        volume.nbytes,
        [
            Side(
                "wkdask downsample",
                ours("downsample", paths["ours"], *options, "--compression", "lz4"),
                lambda: fresh_copy(source, paths["ours"]),
            ),
            Side(
                "webknossos downsample",
                theirs(bench, "downsample", paths["theirs"], *options),
                lambda: fresh_copy(source, paths["theirs"]),
            ),
        ],
        check,
        rounds=3,
    )
