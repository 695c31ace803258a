"""Several hosts for the tests: network namespaces on a bridge, with one file system between them.

::

    wkd…-0   10.231.0.1  scheduler, driver ── br0 ──┬── wkd…-1   10.231.0.2   workers
                                                    └── wkd…-2   10.231.0.3   workers

Every port is inside these namespaces; the host's own network is not touched. At the end whatever still runs in one
is ended by its id and the namespaces are deleted.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time

HEAD = "10.231.0.1"


def why_not():
    """Return why no namespaces can be made here; None where they can."""
    if shutil.which("ip", path=_PATH) is None:
        return "no ip (apt-get install iproute2)"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    probe = f"wkd{os.getpid()}-probe"
    made = subprocess.run([_ip(), "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run([_ip(), "netns", "del", probe], check=True)
    return None


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _ip():
    return shutil.which("ip", path=_PATH)


class Hosts:
    """A head and some others, by their names: ``hosts.names[0]`` is the head."""

    def __init__(self, count):
        self.names = [f"wkd{os.getpid()}-{number}" for number in range(count)]
        self._processes = []

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self):
        head = self.names[0]
        for name in self.names:
            _run("netns", "add", name)
            _run("-n", name, "link", "set", "lo", "up")
        _run("-n", head, "link", "add", "br0", "type", "bridge")
        _run("-n", head, "addr", "add", f"{HEAD}/24", "dev", "br0")
        _run("-n", head, "link", "set", "br0", "up")
        for number, name in enumerate(self.names[1:], start=1):
            _run(
                "link",
                "add",
                f"to{number}",
                "netns",
                head,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                name,
            )
            _run("-n", head, "link", "set", f"to{number}", "master", "br0", "up")
            _run("-n", name, "addr", "add", f"10.231.0.{number + 1}/24", "dev", "eth0")
            _run("-n", name, "link", "set", "eth0", "up")

    def __exit__(self, *_):
        for name in self.names:
            self.end(name)
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        for name in self.names:
            subprocess.run([_ip(), "netns", "del", name], check=False, capture_output=True)

    def start(self, number, log, *command, **options):
        """Start a process on a host; its output goes to a file."""
        return self.start_here(log, _ip(), "netns", "exec", self.names[number], *command, **options)

    def start_here(self, log, *command, **options):
        """Start a process that reaches the hosts by `ip netns exec`, as another would by ssh."""
        with open(log, "ab") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, **options)
        self._processes.append(process)
        return process

    def cut(self, number):
        """Pull a host's cable."""
        _run("-n", self.names[0], "link", "set", f"to{number}", "down")

    def mend(self, number):
        """Put it back."""
        _run("-n", self.names[0], "link", "set", f"to{number}", "up")

    def pids(self, name):
        """Return the ids of what runs on a host."""
        found = subprocess.run([_ip(), "netns", "pids", name], check=False, capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def signal(self, number, what):
        """Send a signal to all that runs on a host."""
        for pid in self.pids(self.names[number]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)

    def end(self, name):
        """End all that runs on a host."""
        end = time.monotonic() + 10
        while (pids := self.pids(name)) and time.monotonic() < end:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)


def _run(*arguments):
    subprocess.run([_ip(), *arguments], check=True, capture_output=True)
