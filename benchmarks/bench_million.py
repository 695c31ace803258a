"""A million cubes: time to the first, rate, memory of the driver over time, and what a resume costs.

python -m benchmarks.bench_million [--cubes 1000000] [--per-task 64] [--plot docs/million.svg] [--cluster]

The mag keeps nothing (``tests/helpers/null_store.py``). All else is real: plan, tasks, locks, journal, properties.
The job is made to fail in its last thousand cubes, and then resumed, so that a journal is read which was written.
Without ``--cluster`` the tasks run in threads of the driver, whose memory then is that of both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import dask
import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from null_store import null_mag  # noqa: E402

import wkdask.operations.map_cubes  # noqa: E402
from wkdask import BoundingBox  # noqa: E402
from wkdask.errors import TaskFailedError  # noqa: E402
from wkdask.jobs.events import JobStarted, UnitDone  # noqa: E402

SIDE = 16
LEFT = 1000
"""Cubes that the first run does not do."""


class Watch:
    """A listener that notes when cubes are done, and the memory of this process meanwhile."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.before = psutil.Process().memory_info().rss
        self.first: float | None = None
        self.cubes = 0
        self.samples: list[tuple[float, int, float]] = []
        self._ended = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def __call__(self, event: object) -> None:
        if isinstance(event, JobStarted):
            self.cubes = event.cubes_before
        if isinstance(event, UnitDone):
            self.cubes += event.report.cubes
            if self.first is None:
                self.first = time.perf_counter() - self.start

    def _sample(self) -> None:
        process = psutil.Process()
        while True:
            grown = (process.memory_info().rss - self.before) / 1e6
            self.samples.append((time.perf_counter() - self.start, self.cubes, grown))
            if self._ended.wait(0.5):
                return

    def end(self) -> float:
        """Stop and return the seconds since the start."""
        self._ended.set()
        return time.perf_counter() - self.start


def as_it_is(block, box, first_left=None):
    """Return the block; fail in the cubes from `first_left` on."""
    if first_left is not None and box.topleft.z >= first_left:
        raise RuntimeError("left for the second run")
    return block


def drive(folder: str, cubes: int, per_task: int, client=None) -> dict:
    """Drive cubes to the end in two runs; return the figures."""
    side = round(LEFT**0.5)
    layers = max(2, cubes // (side * side))
    count = layers * side * side
    box = BoundingBox((0, 0, 0), (side * SIDE, side * SIDE, layers * SIDE))
    source = null_mag(f"{folder}/source", SIDE, box=box)
    target = null_mag(f"{folder}/target", SIDE)
    wkdask.operations.map_cubes.UNIT_NBYTES = per_task * SIDE**3
    source.map_cubes(as_it_is, null_mag(f"{folder}/warm", SIDE), client=client,
                     bounding_box=BoundingBox((0, 0, 0), (SIDE,) * 3))  # fmt: skip
    left = (layers - 1) * SIDE

    first = Watch()
    with contextlib.suppress(TaskFailedError):
        source.map_cubes(
            lambda block, box: as_it_is(block, box, left),
            target,
            client=client,
            job="million",
            progress=first,
        )
    seconds = first.end()
    journal = next(Path(target.path).glob(".wkdask/*/journal")).stat().st_size
    done = first.cubes
    second = Watch()
    report = source.map_cubes(as_it_is, target, client=client, job="million", resume=True, progress=second)
    resumed = second.end()
    if report.cubes != count:
        raise RuntimeError(f"{report.cubes} of {count} cubes")
    return {
        "cubes": count,
        "cubes per task": per_task,
        "first cube after s": round(first.first or 0, 3),
        "cubes per s": round(done / seconds),
        "driver grew MB": round(max(grown for *_, grown in first.samples), 1),
        "journal bytes per unit": round(journal / max(1, done / per_task), 1),
        "resumed with cubes done": report.cubes_before,
        "resume s": round(resumed, 2),
        "samples": first.samples,
    }


def expression(folder: str) -> dict:
    """Begin an elementwise expression over 98 × 98 × 10 cubes of 1024³; return the time to the first cube."""

    class Enough(KeyboardInterrupt):
        pass

    box = BoundingBox((0, 0, 0), (98 * 1024, 98 * 1024, 10 * 1024))
    source = null_mag(f"{folder}/source", 1024, box=box)
    target = null_mag(f"{folder}/target", 1024)
    begun: list[float] = []
    start = time.perf_counter()
    before = psutil.Process().memory_info().rss

    def note(block):
        if block.size and not begun:
            begun.append(time.perf_counter() - start)
        return block

    def stop(event: object) -> None:
        if isinstance(event, UnitDone):
            raise Enough

    x = (255 - source.to_dask()).map_blocks(note, dtype="uint8", meta=np.empty((0,) * 4, "uint8"))
    with contextlib.suppress(Enough):
        target.write(x, bounding_box=box, progress=stop)
    grown = (psutil.Process().memory_info().rss - before) / 1e6
    return {"cubes": 98 * 98 * 10, "first block after s": round(begun[0], 2), "driver grew MB": round(grown)}


def plot(path: str, figures: dict) -> None:
    """Draw the memory of the driver over the cubes done."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    _, cubes, grown = np.array(figures["samples"]).T
    fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
    ax.plot(cubes / 1e6, grown, lw=1.5, color="#0b5394")
    ax.set_ylim(0, max(200, grown.max() * 1.1))
    ax.set_xlim(0, None)
    ax.set_xlabel("cubes done, in millions")
    ax.set_ylabel("driver grew by, MB")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(
        f"{figures['cubes']:,} cubes, {figures['cubes per task']} to a task: {figures['cubes per s']:,} cubes/s",
        fontsize=10, loc="left",
    )  # fmt: skip
    fig.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cubes", type=int, default=1_000_000)
    parser.add_argument("--per-task", type=int, default=64)
    parser.add_argument("--plot", help="Where to draw the memory over time, as SVG.")
    parser.add_argument("--cluster", action="store_true", help="Two worker processes instead of threads.")
    options = parser.parse_args()
    dask.config.set({"wkdask.check-space": False})  # what is not kept needs no room
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        client = None
        if options.cluster:
            from distributed import Client

            paths = [str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")]
            os.environ["PYTHONPATH"] = os.pathsep.join(paths)
            client = stack.enter_context(Client(n_workers=2, threads_per_worker=1, dashboard_address=":0"))
        figures = drive(f"{folder}/million", options.cubes, options.per_task, client)
        if options.plot:
            plot(options.plot, figures)
        figures.pop("samples")
        figures["expression"] = expression(f"{folder}/expression")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
