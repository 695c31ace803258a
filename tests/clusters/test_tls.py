"""Over TLS: the certificate of ``cluster/tls``, a job with spawned workers, and who is turned away."""

import contextlib
import json
import os
import pickle
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes_here import code_blocks, end, listening, marked, with_free_ports
from repository import ROOT

import wkdask
from wkdask import Dataset

SCRIPT = ROOT / "cluster/tls/make-certificate.sh"
BIN = Path(sys.executable).parent

pytestmark = [pytest.mark.timeout(200)]


@pytest.fixture(scope="module", autouse=True)
def _openssl():
    if shutil.which("openssl") is None or shutil.which("bash") is None:
        pytest.skip("no openssl (apt-get install openssl), or no bash")


def make(folder, *arguments):
    return subprocess.run(
        ["bash", SCRIPT, folder, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_certificate_is_for_its_owner_alone(tmp_path):
    folder = tmp_path / "with space"
    made = make(folder, "7")
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"export DASK_CONFIG={folder}/dask.yaml\n"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "cert.pem": 0o600, "key.pem": 0o600, "dask.yaml": 0o600,
    }  # fmt: skip
    cert = str(folder / "cert.pem")
    # as Python 3.13 and later verify
    strict = subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", cert, cert], capture_output=True)
    assert strict.returncode == 0, strict.stderr


def test_a_certificate_is_not_replaced(tmp_path):
    assert make(tmp_path).returncode == 0
    key = (tmp_path / "key.pem").read_bytes()
    again = make(tmp_path)
    assert again.returncode == 1
    assert "is there" in again.stderr
    assert (tmp_path / "key.pem").read_bytes() == key


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    assert make(folder).returncode == 0
    return folder


def environment(folder=None):
    """Return the environment of a shell, with the configuration of a certificate or with none."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    env |= {"PYTHONPATH": str(Path(wkdask.__file__).parents[1]), "DASK_WKDASK__PROGRESS_INTERVAL": "1"}
    return env | ({"DASK_CONFIG": f"{folder}/dask.yaml"} if folder else {})


@pytest.fixture(scope="module")
def commands():
    """What the README tells to type: scheduler, worker, job."""
    _, (_, text), *_ = code_blocks(SCRIPT.with_name("README.md"))
    export, *lines = with_free_ports(text).splitlines()
    assert export == "export DASK_CONFIG=~/.wkdask-tls/dask.yaml"
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def scheduler(certificate, commands, tmp_path_factory):
    """The address of a scheduler with two spawned workers, all over TLS, started as the README says."""
    folder = tmp_path_factory.mktemp("cluster")
    env = environment(certificate) | {"WKDASK_TEST_MARK": str(folder)}
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "log", "wb"))
        for program, *arguments in commands[:2]:
            command = [BIN / program, *arguments]
            stack.callback(end, subprocess.Popen(command, env=env, stdout=log, stderr=log))
        limit = time.monotonic() + 60
        while (folder / "log").read_text().count("Registered to") < 2:
            assert time.monotonic() < limit, (folder / "log").read_text()
            time.sleep(0.2)
        yield commands[2][-1]
        assert listening(marked(f"WKDASK_TEST_MARK={folder}")) == {"127.0.0.1"}


@pytest.fixture
def volume(tmp_path, random_voxels):
    voxels = random_voxels((1, 128, 128, 128))
    ds = Dataset.create(tmp_path / "dataset", (8, 8, 30))
    ds.add_layer("color", "color").add_mag(1, shard_shape=32, chunk_shape=16).write(voxels)
    return voxels


def run(code, *arguments, folder=None, cwd=None):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment(folder), cwd=cwd,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


LISTENING = """
import json, sys
import psutil

listening = set()

def look(*_):
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for connection in process.net_connections("all"):
            if connection.status == psutil.CONN_LISTEN:
                listening.add(str(connection.laddr))
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_a_job_over_tls(scheduler, certificate, volume, tmp_path):
    """Case 40: spawned workers, a round trip, and the driver listens nowhere."""
    code = (
        LISTENING
        + """
from distributed import Client
from wkdask import Dataset

with Client(sys.argv[1]) as client:
    client.wait_for_workers(2, timeout=60)
    ds = Dataset("dataset")
    x = ds.get_layer("color").get_mag(1).to_dask(chunks="cube")
    out = ds.add_layer("out", "color").add_mag(1, shard_shape=32, chunk_shape=16)
    report = out.write(255 - x, progress=look)
    ds.get_layer("out").downsample(coarsest_mag=2, progress=look)
    look()
    def parent():
        import multiprocessing
        return type(multiprocessing.current_process()).__name__
    print(json.dumps({
        "cubes": report.cubes,
        "listening": sorted(listening),
        "workers": [worker for worker in client.scheduler_info()["workers"]],
        "processes": sorted(set(client.run(parent).values())),
    }))
"""
    )
    done = run(code, scheduler, folder=certificate, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert scheduler.startswith("tls://")
    assert len(said["workers"]) == 2
    assert all(worker.startswith("tls://127.0.0.1:") for worker in said["workers"])
    assert said["processes"] == ["SpawnProcess"]
    assert said["cubes"] == 64
    assert said["listening"] == []
    ds = Dataset(tmp_path / "dataset")
    assert np.array_equal(ds.get_layer("out").get_mag(1).read(), 255 - volume)
    assert list(map(str, ds.get_layer("out").mags)) == ["1", "2-2-1"]


@pytest.mark.slow
@pytest.mark.cluster
def test_the_command_line_over_tls(scheduler, commands, certificate, volume, tmp_path):
    program, *arguments = commands[2]
    done = subprocess.run(
        [BIN / program, *arguments], env=environment(certificate), cwd=tmp_path, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "on 2 workers" in done.stderr
    assert f"Scheduler {scheduler}, dashboard http://127.0.0.1:" in done.stderr


@pytest.mark.slow
@pytest.mark.cluster
def test_the_script_of_the_readme(certificate, volume, tmp_path):
    (code,) = (text for language, text in code_blocks(SCRIPT.with_name("README.md")) if language == "python")
    assert '"~/.wkdask-tls"' in code
    (tmp_path / "script.py").write_text(code.replace("~/.wkdask-tls", str(certificate)))
    done = subprocess.run(
        [sys.executable, "script.py"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert list(map(str, Dataset(tmp_path / "dataset").get_layer("color").mags)) == ["1", "2-2-1", "4-4-1"]


CONNECT = """
import sys
from distributed import Client
with Client(sys.argv[1], timeout=8) as client:
    print("connected to", len(client.scheduler_info()["workers"]), "workers")
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_who_has_no_certificate_is_refused(scheduler, certificate, tmp_path):
    plain = scheduler.replace("tls://", "tcp://")
    assert "connected to 2 workers" in run(CONNECT, scheduler, folder=certificate).stdout
    assert make(tmp_path / "other").returncode == 0
    for address, folder in [
        (scheduler, None),  # has none
        (plain, None),  # does not even speak TLS
        (scheduler, tmp_path / "other"),  # has one of another cluster
        (plain, certificate),  # has it, and may not go without encryption
    ]:
        done = run(CONNECT, address, folder=folder)
        assert done.returncode != 0, (address, folder)
        assert "connected" not in done.stdout
    assert "connected to 2 workers" in run(CONNECT, scheduler, folder=certificate).stdout


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.slow
@pytest.mark.cluster
def test_what_a_stranger_sends_is_not_unpickled(scheduler, certificate, tmp_path):
    """A pickle in the form of a message, over TLS without a certificate and over a bare socket."""
    trap = tmp_path / "executed"
    message = pickle.dumps(Trap(str(trap)))
    frames = (2).to_bytes(8, "little") + (0).to_bytes(8, "little") + len(message).to_bytes(8, "little")
    sent = (len(frames) + len(message)).to_bytes(8, "little") + frames + message
    host, port = scheduler.removeprefix("tls://").split(":")

    with socket.create_connection((host, int(port)), timeout=10) as bare:
        answer = talk(bare, sent)
    assert b"compression" not in answer  # a scheduler's greeting

    context = ssl.create_default_context(cafile=certificate / "cert.pem")
    context.check_hostname = False
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        try:
            with context.wrap_socket(raw) as encrypted:
                answer = talk(encrypted, sent)
        except ssl.SSLError:
            answer = b""
    assert b"compression" not in answer
    assert not trap.exists()
    with open(tmp_path / "proof", "wb") as file:
        file.write(message)
    pickle.loads((tmp_path / "proof").read_bytes()).close()
    assert trap.exists(), "the trap does not work"


def talk(connection, sent):
    """Send, and return what comes back until the other end hangs up."""
    got = b""
    with contextlib.suppress(OSError):
        connection.sendall(sent)
        while part := connection.recv(4096):
            got += part
    return got
