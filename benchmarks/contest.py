"""One row of the table: sides that do the same work in turn, round by round, and what they made compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data import Volumes
from benchmarks.peer import Peer

__all__ = ["Bench", "Contest", "Row", "Side", "run_contest"]


@dataclass
class Bench:
    """What every row may use."""

    volumes: Volumes
    """The data."""
    folder: Path
    """For whatever a row makes; emptied when it ends."""
    peer_python: str | None
    """Python of the peers; None where there is none."""
    rounds: int | None = None
    """Rounds of every row; None for as many as the row says."""
    _peer: Peer | None = None

    @property
    def peer(self) -> Peer:
        """The peers' process, started when it is first asked for."""
        if self._peer is None:
            if self.peer_python is None:
                raise RuntimeError("this row needs a peer: give --peer-python (see benchmarks/README.md)")
            self._peer = Peer(self.peer_python, self.folder)
        return self._peer

    def close(self) -> None:
        """End the peers' process."""
        if self._peer is not None:
            self._peer.close()


@dataclass
class Side:
    """One way of doing a row's work."""

    name: str
    """Who does it."""
    run: Callable[[], Any]
    """Does it; returns the seconds it took if it measured them itself, in a process of its own."""
    prepare: Callable[[], object] = lambda: None
    """Makes room for it, off the clock, before every round."""
    nbytes: int | None = None
    """Bytes of its own work, where it does less of it because it would take minutes."""
    is_peer: bool = False
    """Whether our ratio to it is shown, too, and held against what the row wants."""


@dataclass
class Contest:
    """What a row measures."""

    nbytes: int
    """Bytes of voxels that the work goes through."""
    sides: Sequence[Side]
    """Ours first, then the one that the ratio is against, then others: peers as well, or only shown."""
    check: Callable[[], str]
    """Called after every side ran once; compares what they made, says how, raises where it differs."""
    rounds: int = 5
    """How often, unless the command line says."""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    """For the command line."""
    work: str
    """What is done."""
    wanted: float | None
    """The ratio to reach; None where nothing was asked for."""
    make: Callable[[Bench], Contest] = field(repr=False)
    """Makes its contest."""


def run_contest(row: Row, bench: Bench, say: Callable[[str], None]) -> dict[str, Any]:
    """Run a row and return what is kept of it, as plain data."""
    contest = row.make(bench)
    if not contest.sides:  # measured by its check alone
        return {"name": row.name, "work": row.work, "wanted": row.wanted, "checked": contest.check()}
    for side in contest.sides:  # warms caches, pools and compilers; what it made is compared
        seconds = _timed(side)
        say(f"  {side.name}: {seconds:.2f} s at first")
    checked = contest.check()
    say(f"  {checked}")
    rounds = bench.rounds or contest.rounds
    times: dict[str, list[float]] = {side.name: [] for side in contest.sides}
    for number in range(rounds):
        # Who comes first changes from round to round: a disk that writes back is nobody's alone.
        order = contest.sides if number % 2 == 0 else contest.sides[::-1]
        for side in order:
            times[side.name].append(_timed(side))
    speeds = {
        side.name: [(side.nbytes or contest.nbytes) / seconds for seconds in times[side.name]]
        for side in contest.sides
    }
    ours, *others = contest.sides
    ratios = {
        side.name: [a / b for a, b in zip(speeds[ours.name], speeds[side.name], strict=True)]
        for number, side in enumerate(others)
        if side.is_peer or not number
    }
    return {
        "name": row.name,
        "work": row.work,
        "wanted": row.wanted,
        "speeds": speeds,
        "ratios": ratios,
        "checked": checked,
        "mib": contest.nbytes >> 20,
    }


def _timed(side: Side) -> float:
    """Return the seconds of one run."""
    side.prepare()
    start = time.perf_counter()
    seconds = side.run()
    return seconds if isinstance(seconds, float) else time.perf_counter() - start
