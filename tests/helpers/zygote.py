"""Processes that are there at once: a preloaded one forks a child for every call, to be stopped, woken, killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import wkdask

SERVER = """if True:
    import json, os, signal, sys, traceback
    space = {"__name__": "zygote"}
    exec(json.loads(sys.stdin.readline()), space)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order[0] == "fork":
            child = os.fork()
            if not child:
                status = 1
                try:
                    os.close(0)
                    exec(order[1], space)
                    status = 0
                except BaseException:
                    traceback.print_exc()
                    sys.stderr.flush()
                finally:
                    os._exit(status)
            print(child, flush=True)
        else:
            _, status = os.waitpid(order[1], os.WUNTRACED)
            print("stopped" if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status), flush=True)
"""


class Zygote:
    """Forks children of a process that has run a prelude; used in a ``with`` statement."""

    def __init__(self, prelude):
        env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], env=env, text=True, stdin=pipe, stdout=pipe
        )
        self._children = set()
        assert self._ask(prelude) == "ready"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def _ask(self, order):
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return self._server.stdout.readline().strip()

    def start(self, code):
        """Run code in a child, in the names of the prelude; return its process id."""
        child = int(self._ask(["fork", code]))
        self._children.add(child)
        return child

    def wait(self, child):
        """Wait until a child has stopped or ended; return "stopped", or its exit code (minus the signal)."""
        state = self._ask(["wait", child])
        if state == "stopped":
            return state
        self._children.discard(child)
        return int(state)

    def run(self, code):
        """Run code in a child to its end."""
        state = self.wait(self.start(code))
        assert state == 0, f"the child ended with {state}"
