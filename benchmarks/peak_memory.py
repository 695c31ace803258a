"""``255 - x`` from mag to mag in a process of its own: peak memory over the idle size, and what was planned.

python -m benchmarks.peak_memory DATASET TARGET threads|processes
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from wkdask import Dataset
from wkdask.geometry.voxel_size import format_bytes


def kib(field: str) -> int:
    """Return a field of this process's status, in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def begin() -> int:
    """Forget the peak so far; return the idle size, in KiB."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return kib("VmRSS:")


def main(source: str, target: str, where: str) -> None:
    dataset = Dataset.create(target, (1, 1, 1))
    layer = dataset.add_layer("inverted", "color")
    (images,) = Dataset(source).layers.values()
    mag = images.get_mag(1)
    warm = dataset.add_layer("warm", "color").add_mag(1, shard_shape=64)
    out = layer.add_mag(1, shard_shape=mag.spec.shard_shape)

    def small(**options: Any) -> None:
        """Import and compile what a job needs, wherever it runs."""
        warm.write(np.ones((256, 64, 64), "uint8"), progress=False)
        warm.write(255 - warm.to_dask(chunks=64), offset=(0, 0, 0), progress=False, **options)

    def job(**options: Any) -> int:
        array = 255 - mag.to_dask(chunks="cube")
        planned = out.plan_write(array, offset=(0, 0, 0), **options).plan.task_nbytes
        out.write(array, offset=(0, 0, 0), progress=False, **options)
        return planned

    if where == "threads":
        threads = len(os.sched_getaffinity(0))
        small()
        idle = begin()
        planned = job() * threads
        peaks = [(kib("VmHWM:") - idle) << 10]
    else:
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            small(client=client)
            idle_of = client.run(begin)
            planned = job(client=client)
            peaks = [(peak - idle_of[worker]) << 10 for worker, peak in client.run(kib, "VmHWM:").items()]
    held = ", ".join(format_bytes(peak) for peak in peaks)
    print(f"{where}: {held}, planned {format_bytes(planned)} ({max(peaks) / planned:.2f} of it)")


if __name__ == "__main__":
    main(*sys.argv[1:])
