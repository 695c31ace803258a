"""Rows of whole jobs, of import and memory, and of other formats."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from benchmarks.bare import read_all
from benchmarks.contest import Bench, Contest, Row, Side
from benchmarks.data import SIDE, VOXEL_SIZE, drop, fresh_copy, image_stack
from benchmarks.rows_io import CUBE, FreshMag, equal, open_mag
from wkdask import Dataset
from wkdask.convert.images import convert_images


def rows() -> Iterator[Row]:
    yield Row("invert", "`255 - x` from mag to mag: images, raw", 4, invert)
    yield Row("convert", "convert an image stack to mag 1: images, raw", 5, convert)
    yield Row("import", "`import wkdask` (wanted: at most 1.3 × the time)", 1 / 1.3, imports)
    yield Row("memory", "peak memory of each process over its idle size, of the planned bytes", None, memory)
    yield Row("zarr-write", "write an array, compressed, in blocks of 32³ in cubes: images", None, zarr_write)
    yield Row("zarr-read", "read it into one array: images", None, zarr_read)


def invert(bench: Bench) -> Contest:
    volume, source = bench.volumes["images"], open_mag(bench, "images", None)
    target = FreshMag(bench, "images", None)
    theirs = fresh_copy(bench.volumes.dataset("images", None), bench.folder / "theirs")

    def check() -> str:
        for path in (Path(target.mag.path), theirs / "inverted" / "1"):
            equal(read_all(path, volume.shape[1:]), 255 - volume)
        return "both hold 255 - x"

    peers = bench.peer.webknossos(False, "invert", path=theirs, layer="images", shard=SIDE)
    return Contest(
        volume.nbytes,
        [
            Side(
                "wkdask, not flushed",
                lambda: target.write(255 - source.to_dask(chunks="cube"), durable=False),
                target.renew,
            ),
            *(Side(name, run, is_peer=True) for name, run in peers),
            Side(
                "wkdask, flushed to the disk",
                lambda: target.write(255 - source.to_dask(chunks="cube")),
                target.renew,
            ),
        ],
        check,
        rounds=3,
    )


def convert(bench: Bench) -> Contest:
    volume = bench.volumes["images"]
    images = image_stack(volume, bench.folder / "stack")
    ours, theirs = bench.folder / "ours", bench.folder / "theirs"

    def check() -> str:
        for path in (ours, theirs):
            (layer,) = Dataset(path).layers.values()
            equal(read_all(Path(layer.get_mag(1).path), volume.shape[1:]), volume)
        return "both hold the stack"

    def make(durable: bool) -> None:
        convert_images(
            images,
            ours,
            voxel_size=VOXEL_SIZE,
            layer_name="images",
            shard_shape=SIDE,
            compression=None,
            durable=durable,
            progress=False,
        )

    peers = bench.peer.webknossos(
        True, "convert", images=images, path=theirs, voxel_size=VOXEL_SIZE, shard=SIDE
    )
    return Contest(
        volume.nbytes,
        [
            Side("wkdask, not flushed", lambda: make(False), lambda: drop(ours)),
            *(Side(name, run, is_peer=True) for name, run in peers),
            Side("wkdask, flushed to the disk", lambda: make(True), lambda: drop(ours)),
        ],
        check,
        rounds=3,
    )


def imports(bench: Bench) -> Contest:
    # With bytecode, as after the first import anywhere: an environment may forbid to write it.
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(bench.folder / "bytecode")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)

    def start(statement: str) -> Callable[[], None]:
        def run() -> None:
            subprocess.run([sys.executable, "-c", statement], env=env, check=True)

        return run

    return Contest(
        1 << 20,
        [
            Side("`import wkdask`", start("import wkdask")),
            Side("`import dask.array, wkw`", start("import dask.array, wkw")),
        ],
        lambda: "speeds are starts of a process",
        rounds=9,
    )


def memory(bench: Bench) -> Contest:
    """Return a contest without sides: it is measured once, by its check."""
    path = bench.volumes.dataset("images", None)
    return Contest(0, [], lambda: _peaks(path, bench.folder))


def _peaks(source: Path, folder: Path) -> str:
    """Write `255 - x` on local threads and on two processes, and say what each held at most."""
    script = Path(__file__).with_name("peak_memory.py")
    root = Path(__file__).parents[1]
    lines = []
    for where in ("threads", "processes"):
        done = subprocess.run(
            [sys.executable, str(script), str(source), str(folder / where), where],
            env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        lines.append(done.stdout.strip())
    return "; ".join(lines)


def _zarr(path: Path, volume: Any) -> Any:
    """Make a Zarr 3 array of shards like our cubes, inner chunks of 32³, LZ4 by Blosc without its shuffle."""
    import zarr
    from zarr.codecs import BloscCodec

    return zarr.create_array(
        str(path),
        shape=volume.shape,
        dtype=volume.dtype,
        shards=CUBE,
        chunks=(1, 32, 32, 32),
        compressors=BloscCodec(cname="lz4", shuffle="noshuffle"),
        overwrite=True,
    )


def _tensorstore(path: Path) -> Any:
    import tensorstore as ts

    return ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}).result()


def _slab(bench: Bench) -> Any:
    """Return a part of the images: others write at some ten MB/s."""
    return bench.volumes["images"][:, : 2 * SIDE, : 2 * SIDE, :SIDE]


def zarr_write(bench: Bench) -> Contest:
    volume = np.asfortranarray(_slab(bench))
    lazy = da.from_array(volume.T, chunks=CUBE[::-1], name=False).T
    ours = FreshMag(bench, "images", "lz4")
    paths = {name: bench.folder / name for name in ("dask", "zarr", "tensorstore")}
    arrays = {name: _zarr(path, volume) for name, path in paths.items()}

    def renew(name: str) -> None:
        shutil.rmtree(paths[name], ignore_errors=True)
        arrays[name] = _zarr(paths[name], volume)

    def zarr_cubes() -> None:
        arrays["zarr"][...] = volume

    def tensorstore() -> None:
        _tensorstore(paths["tensorstore"]).write(volume).result()

    def check() -> str:
        equal(read_all(ours.mag.place.store.path, volume.shape[1:]), volume)
        for name in paths:
            equal(np.asarray(_tensorstore(paths[name]).read().result()), volume)
        return "all hold the array"

    return Contest(
        volume.nbytes,
        [
            Side("wkdask", lambda: ours.write(lazy, durable=False), ours.renew),
            Side("dask to_zarr, sharded", lambda: da.store(lazy, arrays["dask"]), lambda: renew("dask")),
            Side("zarr-python, sharded", zarr_cubes, lambda: renew("zarr")),
            Side("tensorstore, sharded Zarr 3", tensorstore, lambda: renew("tensorstore")),
        ],
        check,
        rounds=3,
    )


def zarr_read(bench: Bench) -> Contest:
    volume = np.asfortranarray(_slab(bench))
    ours, path = FreshMag(bench, "images", "lz4"), bench.folder / "zarr"
    ours.renew()
    ours.write(volume)
    _zarr(path, volume)
    _tensorstore(path).write(volume).result()

    def by_zarr() -> Any:
        import zarr

        return zarr.open_array(str(path), mode="r")[...]

    def check() -> str:
        for found in (ours.mag.read(), by_zarr(), np.asarray(_tensorstore(path).read().result())):
            equal(found, volume)
        return "all read the array"

    return Contest(
        volume.nbytes,
        [
            Side("wkdask", lambda: ours.mag.read() is None),
            Side("zarr-python, sharded", lambda: by_zarr() is None),
            Side("tensorstore, sharded Zarr 3", lambda: _tensorstore(path).read().result() is None),
        ],
        check,
        rounds=3,
    )
