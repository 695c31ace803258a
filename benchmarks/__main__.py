"""Ratios against peers, side by side on the same data, into benchmarks/RESULTS.md.

python -m benchmarks [--quick] [--only read,pyramid] [--peer-python PYTHON] [--folder FOLDER]

Each row runs in a process of its own and is kept: a run that was stopped goes on, --fresh begins anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import rows_checksums, rows_commands, rows_io, rows_other, rows_sampling
from benchmarks.contest import Bench, Row, run_contest
from benchmarks.data import Volumes
from benchmarks.peer import Peer
from benchmarks.results import Results, table

ROW_SECONDS = 600
"""A row that takes longer has failed."""


def all_rows() -> Iterator[Row]:
    yield from rows_io.rows()
    yield from rows_sampling.rows()
    yield from rows_commands.rows()
    yield from rows_other.rows()
    yield from rows_checksums.rows()


def chosen_rows(only: str | None) -> list[Row]:
    """Return the rows whose names begin with one of the words, all by default."""
    words = tuple(only.split(",")) if only else ("",)
    rows = [row for row in all_rows() if row.name.startswith(words)]
    if not rows:
        raise SystemExit(f"no row begins with {only}; there are {', '.join(row.name for row in all_rows())}")
    return rows


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="256 MiB and three rounds: about five minutes")
    parser.add_argument("--mib", type=int, help="MiB of each volume (1024)")
    parser.add_argument("--rounds", type=int, help="rounds of every row (as many as it needs)")
    parser.add_argument("--only", help="rows whose names begin so, separated by commas")
    parser.add_argument("--fresh", action="store_true", help="drop the results of an earlier run")
    parser.add_argument(
        "--peer-python",
        default=os.environ.get("WKDASK_PEER_PYTHON"),
        help="Python of the peers' environment ($WKDASK_PEER_PYTHON)",
    )
    parser.add_argument("--stack", type=Path, help="folder of images to tile (../shared/data/vnc/raw)")
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/wkdask-benchmarks"), help="for data and results"
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.mib = options.mib or (256 if options.quick else 1024)
    options.rounds = options.rounds or (3 if options.quick else None)
    return options


def run_row(options: argparse.Namespace) -> None:
    """Run one row, in this process, and keep its result."""
    (row,) = [row for row in all_rows() if row.name == options.row]
    scratch = options.folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    volumes = Volumes(options.folder, options.mib, options.stack)
    bench = Bench(volumes, scratch, options.peer_python, options.rounds)
    try:
        result = run_contest(row, bench, lambda line: print(line, flush=True))
    finally:
        bench.close()
        shutil.rmtree(scratch, ignore_errors=True)
    results_of(options).put(row.name, result)


def results_of(options: argparse.Namespace) -> Results:
    return Results(options.folder / f"results-{options.mib}")


def main() -> None:
    options = parse()
    if options.row:
        run_row(options)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    results = results_of(options)
    rows = chosen_rows(options.only)
    if options.fresh:
        for row in rows:
            results.path(row.name).unlink(missing_ok=True)
    for number, row in enumerate(rows, 1):
        if results.get(row.name) is None:
            print(f"[{number}/{len(rows)}] {row.name}", flush=True)
            start = time.perf_counter()
            failure = _in_own_process(row, options)
            print(f"  {failure or 'done'}, {time.perf_counter() - start:.0f} s", flush=True)
            if failure is not None:
                shutil.rmtree(options.folder / "scratch", ignore_errors=True)
                failed = {"name": row.name, "work": row.work, "wanted": row.wanted, "failed": failure}
                results.put(f"{row.name}.failed", failed)
        write_table(options, results)
    print(f"written: {options.results}")


def _in_own_process(row: Row, options: argparse.Namespace) -> str | None:
    """Run a row in a process; return why it failed."""
    given = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    command = [sys.executable, "-m", "benchmarks", *given, "--row", row.name]
    log = options.folder / f"{row.name}.log"
    with open(log, "w") as errors:
        try:
            done = subprocess.run(command, stderr=errors, timeout=ROW_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return f"not done after {ROW_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return f"ended with {done.returncode}: {lines[-1].strip()[:200] if lines else 'no message'}"


def write_table(options: argparse.Namespace, results: Results) -> None:
    """Write what is known of all rows."""
    found = []
    for row in all_rows():
        result = results.get(row.name) or results.get(f"{row.name}.failed")
        if result is not None:
            found.append(result)
    command = " ".join(["python -m benchmarks", f"--mib {options.mib}"])
    options.results.write_text(table(found, command, peer_versions(options)))


def peer_versions(options: argparse.Namespace) -> dict[str, str]:
    """Return the versions of the peers, asked for once per folder of results."""
    results = results_of(options)
    if options.peer_python is None:
        return {}
    if (known := results.get("peer-versions")) is None:
        peer = Peer(options.peer_python, options.folder)
        known = peer("versions")
        peer.close()
        results.put("peer-versions", known)
    return known


if __name__ == "__main__":
    main()
