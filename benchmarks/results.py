"""What is kept of the rows, and the table that is written from it."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Results", "table"]

OURS = ("wkdask", "wkw", "numpy", "numba", "dask", "distributed", "zarr", "tensorstore")


class Results:
    """One file of JSON per row, so that a run that stopped goes on where it stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def get(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.path(name).read_text())
        except FileNotFoundError:
            return None
        return found

    def put(self, name: str, result: Mapping[str, Any]) -> None:
        draft = self.path(name).with_suffix(".draft")
        draft.write_text(json.dumps(dict(result), indent=1))
        draft.rename(self.path(name))


def machine() -> str:
    """Return what this machine is."""
    model = platform.machine()
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model}, {pages} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """Return the versions of what runs in our own process."""
    found = {}
    for name in OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def table(results: Sequence[Mapping[str, Any]], command: str, peers: Mapping[str, str]) -> str:
    """Return the page: what was run where, ratios, speeds."""
    today = datetime.now(UTC).date()
    lines = [
        "# Results",
        "",
        f"{today}, {machine()}, load {os.getloadavg()[1]:.1f}.",
        "",
        f"`{command}`",
        "",
        "Ours: " + ", ".join(f"{name} {number}" for name, number in versions().items()) + ".",
        "Peers: " + (", ".join(f"{name} {number}" for name, number in peers.items()) or "none") + ".",
        "",
        "A ratio is the median over the rounds of (our speed / the other's) within one round; in brackets the",
        "least and the largest. Speeds are medians, of the bytes of mag 1. Every output was compared voxel",
        "by voxel, as the last column says.",
        "",
        "| work | against | ratio | wanted | reached | speeds, MB/s | compared |",
        "|---|---|---:|---:|---|---|---|",
    ]
    for result in results:
        lines += _rows(result)
    return "\n".join(lines) + "\n"


def _rows(result: Mapping[str, Any]) -> list[str]:
    """Return the rows of the table: one for each peer that a ratio is against."""
    work, wanted = result["work"], _number(result["wanted"])
    if "failed" in result:
        return [f"| {work} | | | {wanted} | failed | | {result['failed']} |"]
    if "ratios" not in result:
        return [f"| {work} | | | | | | {result['checked']} |"]
    speeds = ", ".join(
        f"{name} {statistics.median(values) / 1e6:.0f}" for name, values in result["speeds"].items()
    )
    lines = []
    for number, (against, ratios) in enumerate(result["ratios"].items()):
        ratio = statistics.median(ratios)
        reached = "" if not wanted else "yes" if ratio >= result["wanted"] else "**no**"
        shown = f"{_number(ratio)} ({_number(min(ratios))} to {_number(max(ratios))})"
        rest = (speeds, result["checked"]) if number == 0 else ("", "")
        lines.append(
            f"| {' | '.join((work if number == 0 else '', against, shown, wanted, reached, *rest))} |"
        )
    return lines


def _number(value: float | None) -> str:
    """Return a ratio with as many digits as it deserves."""
    if value is None:
        return ""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
