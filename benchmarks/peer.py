"""Our end of the peers' process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["RUNNING", "STARTED", "Peer"]

RUNNING = "webknossos, processes that run already"
STARTED = "webknossos, processes started for the call"


class Peer:
    """The peers' Python with `peer_side.py`: one line of JSON for a call, one for its answer."""

    def __init__(self, python: str, folder: Path) -> None:
        # Not beside our modules, and without our PYTHONPATH: nothing of ours can be imported there.
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        script = Path(__file__).with_name("peer_side.py")
        self._log = open(folder / "peer.log", "wb")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [python, str(script)],
            env=env,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __call__(self, call: str, **arguments: Any) -> Any:
        """Return the answer to a call; a call that is timed answers with its seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"call": call, "arguments": arguments}, default=os.fspath)
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        while answer := self._process.stdout.readline():
            if answer.startswith("{"):  # some peers print as they like
                break
        if not answer:
            raise RuntimeError(f"the peer's process ended; see {self._log.name}")
        found = json.loads(answer)
        if "error" in found:
            raise RuntimeError(f"the peer's {call} failed: {found['error']}")
        return found["result"]

    def webknossos(self, best: bool, call: str, **arguments: Any) -> list[tuple[str, Callable[[], float]]]:
        """Return the two ways in which a call of webknossos is timed: names, and what returns the seconds.

        With `best` it may also do without other processes, if that is faster.
        """
        alone = ["sequential"] if best else []
        return [
            (name, partial(self, call, executors=[executor, *alone], **arguments))
            for name, executor in ((RUNNING, "running"), (STARTED, "started"))
        ]

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
