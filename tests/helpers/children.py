"""Children of a process that has imported everything: they print, and the kernel refuses them system calls.

::

    test ── script, args ──> zygote ── fork ──> child: runs the script, prints into a file, ends
         ── SIGKILL ──────────────────────────> child

A script sees its arguments as ``args``, and `fail_syscalls`.
"""

import ctypes
import json
import os
import platform
import signal
import struct
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from zygote import Zygote

_CALLS = {
    "x86_64": {
        "read": 0, "write": 1, "pread64": 17, "pwrite64": 18, "fsync": 74, "fdatasync": 75, "ftruncate": 77,
        "truncate": 76, "rename": 82, "mkdir": 83, "openat": 257, "renameat": 264, "renameat2": 316,
        "copy_file_range": 326, "getdents64": 217, "lseek": 8,
        "preadv": 295, "pwritev": 296, "preadv2": 327, "pwritev2": 328,
    },
    "aarch64": {
        "read": 63, "write": 64, "pread64": 67, "pwrite64": 68, "fsync": 82, "fdatasync": 83, "ftruncate": 46,
        "truncate": 45, "mkdirat": 34, "openat": 56, "renameat": 38, "renameat2": 276, "copy_file_range": 285,
        "getdents64": 61, "lseek": 62, "preadv": 69, "pwritev": 70, "preadv2": 286, "pwritev2": 287,
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


PRELUDE = f"""
import json, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
import dask.array, dask.threaded
import wkdask
import wkdask.cli
for name in wkdask.__all__:
    getattr(wkdask, name)  # which imports it: children find all of it there
from wkdask.kernels import block_stats, is_zero, nonzero_bounds, to_fortran
from children import fail_syscalls

for dtype in ("uint8", "uint16", "float32"):
    block = np.ones((1, 4, 4, 4), dtype)
    block_stats(block), is_zero(block), to_fortran(block), nonzero_bounds(np.asfortranarray(block))


def begin(out):
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # no file of the script is a standard one
    sys.stdout = open(1, "w", buffering=1, closefd=False)
"""


class Children:
    """Starts children in milliseconds; used in a ``with`` statement.

    Parameters
    ----------
    prelude
        What the process that they are forked of runs as well; no thread of it may live on.
    """

    def __init__(self, prelude=""):
        self._zygote = Zygote(PRELUDE + prelude)
        self._folder = tempfile.TemporaryDirectory(prefix="wkdask-children-")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._zygote.__exit__(*error)
        self._folder.cleanup()

    def start(self, script, *args):
        """Start a script; return its process id."""
        name = os.path.join(self._folder.name, str(time.monotonic_ns()))
        code = f"begin({name!r})\nargs = json.loads({json.dumps(args, default=os.fspath)!r})\n{script}"
        child = self._zygote.start(code)
        os.symlink(name, self._out(child))
        return child

    def _out(self, child):
        return os.path.join(self._folder.name, f"{child}.out")

    def out(self, child):
        """Return what a child printed so far."""
        path = Path(self._out(child))
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, child, timeout=60):
        """Wait for a child; one that does not end in time is killed, and an error."""
        late = threading.Timer(timeout, os.kill, (child, signal.SIGKILL))
        late.start()
        code = self._zygote.wait(child)
        hangs = not late.is_alive()
        late.cancel()
        ended = Ended(code, self.out(child))
        os.unlink(self._out(child))  # the number may come again
        if hangs and code == -signal.SIGKILL:
            raise TimeoutError(f"the child hung; it printed {ended.out[-2000:]}")
        return ended

    def run(self, script, *args, timeout=60):
        """Run a script to its end; return what it printed, and raise if it failed or was killed."""
        ended = self.wait(self.start(script, *args), timeout)
        if ended.code:
            raise AssertionError(f"the child ended with {ended.code}: {ended.out[-3000:]}")
        return ended.out
