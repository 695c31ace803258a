"""Rates of the kernels on one thread, in MB/s of input: ``python benchmarks/bench_kernels.py [side]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wkdask import kernels

DTYPES = ("uint8", "uint16", "uint32", "uint64", "float32")


def rate(function: Callable[[], object], nbytes: int) -> tuple[float, float]:
    """Seconds of the first call (compiles, or loads from numba's cache), then MB/s of the best of five."""
    started = time.perf_counter()
    function()
    first = time.perf_counter() - started
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return first, nbytes / best / 1e6


def labels(side: int, dtype: str) -> NDArray[np.generic]:
    """Wavy cells of about 20 voxels: most windows hold one label, every row crosses borders."""
    grid = np.arange(side, dtype=np.float32)
    x, y, z = np.meshgrid(grid, grid, grid, indexing="ij", sparse=True)
    cells = [np.floor((u + 4 * np.sin(v / 9)) / 21).astype(np.int64) + 1 for u, v in ((x, y), (y, z), (z, x))]
    return np.asfortranarray((cells[0] * 31 + cells[1] * 7 + cells[2]).astype(dtype)[None])


def main(side: int = 256) -> None:
    rng = np.random.default_rng(0)
    print(f"{'kernel':34} {'type':8} {'first s':>8} {'MB/s':>8}   (1, {side}, {side}, {side})")
    for dtype in DTYPES:
        c_order = rng.integers(0, 256, (1, side, side, side)).astype(dtype)
        block = np.asfortranarray(c_order)
        out = np.empty_like(block)
        zeros = np.zeros_like(block)
        cells = labels(side, dtype)
        jobs: dict[str, Callable[[], object]] = {
            "to_fortran, C order": lambda c=c_order, out=out: kernels.to_fortran(c, out),
            "numpy copyto, C order": lambda c=c_order, out=out: np.copyto(out, c),
            "block_stats": lambda b=block: kernels.block_stats(b),
            "is_zero (all zero)": lambda z=zeros: kernels.is_zero(z),
            "nonzero_bounds (all zero)": lambda z=zeros: kernels.nonzero_bounds(z),
            "upsample 2x2x2": lambda b=block: kernels.upsample(b, (2, 2, 2)),
        }
        for factors in ((2, 2, 2), (2, 2, 1)):
            name = "x".join(map(str, factors))
            for mode in kernels.MODES:
                jobs[f"{mode} {name}, random"] = lambda b=block, f=factors, m=mode: kernels.downsample(
                    b, f, m
                )
            jobs[f"mode {name}, labels"] = lambda b=cells, f=factors: kernels.downsample(b, f, "mode")
        for name, job in jobs.items():
            first, mb = rate(job, block.nbytes)
            print(f"{name:34} {dtype:8} {first:8.2f} {mb:8.0f}", flush=True)
    c_order = rng.integers(0, 256, (3, side, side, side // 2)).astype(np.uint8)
    block = np.asfortranarray(c_order)
    out = np.empty_like(block)
    mb = rate(lambda: kernels.to_fortran(c_order, out), block.nbytes)[1]
    print(f"{'three channels':34} {'to_fortran':>12} {mb:.0f}")
    for mode in kernels.MODES:
        mb = rate(lambda mode=mode: kernels.downsample(block, (2, 2, 2), mode), block.nbytes)[1]
        print(f"{'three channels':34} {mode:>12} {mb:.0f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
