"""What tests ask of processes that they started: which there are, where they listen, how they end."""

import contextlib
import re
import socket
import subprocess
from pathlib import Path

import psutil


def free_port():
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def marked(mark):
    """Return the processes whose environment has a variable, as ``NAME=value``: ours, and what they started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def listening(processes):
    """Return the addresses on which processes accept connections, without their ports."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found |= {
                connection.laddr.ip
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    return found


def end(process, patience=30):
    """Ask a process to end, and make it."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def code_blocks(path):
    """Return the code blocks of a Markdown file as (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", Path(path).read_text(), re.MULTILINE | re.DOTALL)


def with_free_ports(text):
    """Replace the ports that a README names by free ones: what it says may run here already."""
    for port in ("8786", "8787"):
        free = free_port()
        text = text.replace(f":{port}", f":{free}").replace(f"--port {port}", f"--port {free}")
    return text
