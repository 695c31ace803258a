"""Processes that start in milliseconds: forked from one that has imported everything, and has no threads.

::

    test ── {"script", "args"} ──> parent ── fork ──> child: runs the script, prints into a file, exits
         <── its process id ──────
    test ── SIGKILL ─────────────────────────────────> child
         ── {"wait": id} ────────> parent
         <── how it ended ────────

A script sees its arguments as ``args``, and `fail_syscalls`, which lets the kernel itself refuse system calls.
"""

import contextlib
import ctypes
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

_CALLS = {
    "x86_64": {
        "read": 0, "write": 1, "pread64": 17, "pwrite64": 18, "fsync": 74, "fdatasync": 75, "ftruncate": 77,
        "truncate": 76, "rename": 82, "mkdir": 83, "openat": 257, "renameat": 264, "renameat2": 316,
        "copy_file_range": 326, "getdents64": 217, "lseek": 8,
    },
    "aarch64": {
        "read": 63, "write": 64, "pread64": 67, "pwrite64": 68, "fsync": 82, "fdatasync": 83, "ftruncate": 46,
        "truncate": 45, "mkdirat": 34, "openat": 56, "renameat": 38, "renameat2": 276, "copy_file_range": 285,
        "getdents64": 61, "lseek": 62,
    },
}  # fmt: skip
"""Numbers of system calls that a test may let fail."""


def fail_syscalls(number, *names):
    """Let system calls fail with an errno from now on, in this process and all its threads, for good.

    Those that begin with a descriptor fail for descriptors above 2 only, so that errors can still be printed.
    """
    calls = _CALLS[platform.machine()]
    numbers = [calls[name] for name in names if name in calls]
    anyway = {
        calls.get(name)
        for name in ("openat", "rename", "mkdir", "mkdirat", "truncate", "renameat", "renameat2")
    }
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    program = [(load, 0, 0, 0)]
    for call in numbers:
        if call in anyway:
            program += [(equal, 0, 1, call), (give, 0, 0, 0x00050000 | number)]
        else:  # the low half of the first argument
            program += [(equal, 0, 4, call), (load, 0, 0, 16), (above, 0, 1, 3)]
            program += [(give, 0, 0, 0x00050000 | number), (give, 0, 0, 0x7FFF0000)]
    program.append((give, 0, 0, 0x7FFF0000))
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.syscall(
        {"x86_64": 317, "aarch64": 277}[platform.machine()], 1, 1, ctypes.create_string_buffer(header)
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


@dataclass
class Ended:
    """How a child ended."""

    code: int
    """What it exited with; the negative number of the signal that killed it."""
    out: str
    """What it printed, errors too."""


class Children:
    """The process that children are forked from; close it."""

    def __init__(self):
        package = str(Path(__file__).parents[1])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([package, str(Path(__file__).parent)])}
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._folder = tempfile.TemporaryDirectory(prefix="wkdask-children-")
        self._files = {}
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the process that forks children did not start")

    def _ask(self, question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, script, *args):
        """Start a script; return its process id."""
        name = os.path.join(self._folder.name, str(time.monotonic_ns()))
        pid = self._ask({"script": script, "args": args, "out": name})
        self._files[pid] = name
        return pid

    def wait(self, pid, timeout=60):
        """Wait for a child; one that does not end in time is killed and an error."""
        limit = time.monotonic() + timeout
        while (code := self._ask({"wait": pid})) is None:
            if time.monotonic() > limit:
                os.kill(pid, 9)
                raise TimeoutError(f"the child hangs; it printed {self.out(pid)[-2000:]}")
            time.sleep(0.002)
        return Ended(code, self.out(pid))

    def out(self, pid):
        """Return what a child printed so far."""
        path = Path(self._files[pid])
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, script, *args, timeout=60):
        """Run a script to its end; return what it printed, and raise if it failed or was killed."""
        ended = self.wait(self.start(script, *args), timeout)
        if ended.code:
            raise AssertionError(f"the child ended with {ended.code}: {ended.out[-3000:]}")
        return ended.out

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()
        self._folder.cleanup()


def _child(question):
    """Be the child."""
    out = os.open(question["out"], os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    code = 1
    try:
        exec(  # scripts of the tests
            compile(question["script"], "<script>", "exec"),
            {"args": question["args"], "fail_syscalls": fail_syscalls, "__name__": "__main__"},
        )
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main():
    import dask.array
    import dask.threaded  # noqa: F401
    import numpy as np

    import wkdask.storage.wkw_native as native
    from wkdask.kernels import block_stats, is_zero, nonzero_bounds, to_fortran

    native._library()
    for dtype in ("uint8", "uint16", "float32"):
        block = np.ones((1, 4, 4, 4), dtype)
        block_stats(block), is_zero(block), to_fortran(block), nonzero_bounds(np.asfortranarray(block))
    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            pid, status = os.waitpid(question["wait"], os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
            continue
        pid = os.fork()
        if not pid:
            _child(question)
        print(pid, flush=True)


if __name__ == "__main__":
    _main()
