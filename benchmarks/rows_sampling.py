"""Rows of pyramids and compression: against webknossos, Igneous, tinybrain, and the wkw library in a bare loop."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import wkw

from benchmarks.bare import BareMag, read_all, read_and_drop
from benchmarks.contest import Bench, Contest, Row, Side
from benchmarks.data import SIDE, fresh_copy
from benchmarks.rows_io import NAMES, equal
from wkdask import Dataset

MAGS = (2, 4, 8)
SMALL = 64
"""Cubes against Igneous: of larger ones it makes one mag at a time, or needs a lot of memory."""


def rows() -> Iterator[Row]:
    wanted = {("images", None): 10, ("labels", None): 8, ("images", "lz4"): 12, ("labels", "lz4"): 12}
    for kind, compression in itertools.product(("images", "labels"), (None, "lz4")):
        yield Row(
            f"pyramid-{kind}-{NAMES[compression]}",
            f"pyramid to mag 8: {kind}, {NAMES[compression]}",
            wanted[kind, compression],
            partial(against_webknossos, kind, compression),
        )
    for kind in ("images", "labels"):
        yield Row(
            f"pyramid-bare-{kind}",
            f"pyramid to mag 8 against reading mag 1 and writing three mags, no kernels: {kind}, raw",
            0.6,
            partial(against_bare, kind),
        )
    yield Row(
        "pyramid-igneous", "pyramid of 3 mags: labels, raw, cubes and chunks of 64³", 2.5, against_igneous
    )
    yield Row("mode-tinybrain", "mode of 2 × 2 × 2, one thread, in memory: labels", None, against_tinybrain)
    for kind, wanted_hc in (("images", 2), ("labels", None)):
        title = f"compress in place: {kind}, lz4hc"
        yield Row(f"compress-{kind}-lz4hc", title, wanted_hc, partial(compress, kind, "lz4hc"))
    title = "compress in place: images, lz4 (theirs: lz4hc)"
    yield Row("compress-images-lz4", title, 8, partial(compress, "images", "lz4"))


class Pyramid:
    """A copy of a dataset whose coarser mags are made again and again."""

    def __init__(self, bench: Bench, kind: str, compression: str | None, name: str, side: int = SIDE) -> None:
        self.path = fresh_copy(bench.volumes.dataset(kind, compression, side), bench.folder / name)
        self.kind, self.compression = kind, compression

    @property
    def layer(self) -> Any:
        return Dataset(self.path).get_layer(self.kind)

    def drop(self) -> None:
        layer = self.layer
        for mag in [mag for mag in layer.mags if mag != 1]:
            layer.delete_mag(mag)

    def make(self, coarsest: int = MAGS[-1], durable: bool = False) -> None:
        self.layer.downsample(
            from_mag=1,
            coarsest_mag=coarsest,
            sampling_mode="isotropic",
            compression=self.compression,
            durable=durable,
            progress=False,
        )

    def mag_path(self, mag: int) -> Path:
        return self.path / self.kind / str(mag)


def coarse_shape(shape: tuple[int, ...], factor: int) -> tuple[int, ...]:
    return tuple(-(-n // factor) for n in shape)


def against_webknossos(kind: str, compression: str | None, bench: Bench) -> Contest:
    volume = bench.volumes[kind]
    ours = Pyramid(bench, kind, compression, "ours")
    theirs = Pyramid(bench, kind, compression, "theirs")

    def check() -> str:
        for mag in MAGS:
            shape = coarse_shape(volume.shape[1:], mag)
            equal(read_all(ours.mag_path(mag), shape), read_all(theirs.mag_path(mag), shape))
        return f"mags {', '.join(map(str, MAGS))} are equal, voxel by voxel"

    peers = bench.peer.webknossos(
        True,
        "downsample",
        path=theirs.path,
        layer=kind,
        coarsest=MAGS[-1],
        compress=compression is not None,
        shard=SIDE,
    )
    return Contest(
        volume.nbytes,
        [
            Side("wkdask", ours.make, ours.drop),
            *(Side(name, run, is_peer=True) for name, run in peers),
            Side("wkdask, flushed to the disk", lambda: ours.make(durable=True), ours.drop),
        ],
        check,
        rounds=3,
    )


def against_bare(kind: str, bench: Bench) -> Contest:
    volume = bench.volumes[kind]
    ours = Pyramid(bench, kind, None, "ours")
    coarse = [np.asfortranarray(volume[:, ::mag, ::mag, ::mag]) for mag in MAGS]
    targets = [BareMag(bench.folder / f"bare-{mag}", str(volume.dtype), None) for mag in MAGS]

    def bare() -> None:
        read_and_drop(ours.mag_path(1), volume.shape[1:])
        for target, voxels in zip(targets, coarse, strict=True):
            target.write(voxels)

    def clear() -> None:
        for target in targets:
            target.clear()

    def check() -> str:
        for target, voxels in zip(targets, coarse, strict=True):
            equal(read_all(target.path, voxels.shape[1:]), voxels)
        return "the bare loop computes nothing; the pyramid itself is compared in the rows above"

    return Contest(
        volume.nbytes,
        [Side("wkdask", ours.make, ours.drop), Side("bare wkw loop", bare, clear)],
        check,
    )


def against_igneous(bench: Bench) -> Contest:
    volume = bench.volumes["labels"]
    ours = Pyramid(bench, "labels", None, "ours", SMALL)
    npy, path = bench.volumes.folder / f"labels-{bench.volumes.mib}.npy", bench.folder / "precomputed"
    # It makes no mag that is smaller than a chunk.
    mags = [mag for mag in MAGS if min(volume.shape[1:]) // mag >= SMALL]
    bench.peer("igneous_prepare", path=path, npy=npy, side=SMALL)

    def check() -> str:
        shares = []
        for mip, mag in enumerate(mags, 1):
            out = bench.folder / "mip.npy"
            bench.peer("igneous_read", path=path, mip=mip, npy=out)
            found = np.load(out)
            mine = read_all(ours.mag_path(mag), coarse_shape(volume.shape[1:], mag))[0]
            shares.append(f"{np.mean(found == mine):.2%}")
        return f"voxels equal to Igneous's in mags {mags}: {', '.join(shares)}"

    return Contest(
        volume.nbytes,
        [
            Side("wkdask", lambda: ours.make(mags[-1]), ours.drop),
            Side(
                "Igneous, local queue of as many processes",
                lambda: bench.peer("igneous", path=path, mips=len(mags)),
            ),
        ],
        check,
        rounds=3,
    )


def against_tinybrain(bench: Bench) -> Contest:
    from wkdask.kernels import downsample

    volume = np.asfortranarray(bench.volumes["labels"][:, :SIDE, :SIDE, :SIDE])
    npy, out = bench.folder / "labels.npy", bench.folder / "coarse.npy"
    np.save(npy, volume)

    def ours() -> float:
        start = time.perf_counter()
        downsample(volume, (2, 2, 2), "mode")
        return time.perf_counter() - start

    def check() -> str:
        share = np.mean(np.load(out).reshape(-1) == downsample(volume, (2, 2, 2), "mode")[0].reshape(-1))
        return f"{share:.2%} of the voxels are equal"

    return Contest(
        volume.nbytes,
        [Side("wkdask", ours), Side("tinybrain", lambda: bench.peer("tinybrain", npy=npy, out=out))],
        check,
        rounds=9,
    )


def compress(kind: str, compression: str, bench: Bench) -> Contest:
    volume, raw = bench.volumes[kind], bench.volumes.dataset(kind, None)
    paths = {name: bench.folder / name for name in ("ours", "theirs")}

    def ours(name: str) -> None:
        mag = Dataset(paths[name]).get_layer(kind).get_mag(1)
        mag.compress(compression=compression, progress=False)

    def check() -> str:
        sizes = []
        for name in ("ours", "theirs"):
            folder = paths[name] / kind / "1"
            sizes.append(sum(cube.stat().st_size for cube in folder.rglob("x*.wkw")) / volume.nbytes)
            with contextlib.closing(wkw.Dataset.open(str(folder))) as dataset:
                if dataset.header.block_type == 1:
                    raise AssertionError(f"{folder} is not compressed")
            equal(read_all(folder, volume.shape[1:]), volume)
        return f"both hold the volume, in {sizes[0]:.4f} and {sizes[1]:.4f} of its bytes"

    peers = bench.peer.webknossos(False, "compress", source=raw, path=paths["theirs"], layer=kind)
    return Contest(
        volume.nbytes,
        [
            Side("wkdask", lambda: ours("ours"), lambda: fresh_copy(raw, paths["ours"])),
            *(Side(name, run, is_peer=True) for name, run in peers),
        ],
        check,
        rounds=3,
    )
