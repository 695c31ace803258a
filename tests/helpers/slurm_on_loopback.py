"""A Slurm of our own for the tests: munged, slurmctld and slurmd on the loopback, in a private folder.

Nothing of an installed Slurm is touched: its configuration, key, ports and state are ours, and every process is
ended by its id. Jobs run as the user who runs the tests.
"""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil
from processes_here import end, free_port, marked

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
CPUS = 8
"""What the node says it has; jobs are scheduled by this number, whatever the machine has."""

_CONF = """
ClusterName=wkdask
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=20
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobRequeue=1
OverTimeLimit=0
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} \
ThreadsPerCore=1 RealMemory=16000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE DefMemPerCPU=1000 State=UP
"""


def missing_programs():
    """Return the programs of Slurm and munge that are not installed."""
    return [name for name in PROGRAMS if _which(name) is None]


def _which(name):
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Slurm:
    """One node, one partition."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._processes = []

    def start(self):
        """Start the three daemons; return when the node takes jobs."""
        for name in ("run", "state", "spool", "log", "munge"):
            (self.folder / name).mkdir(mode=0o700)
        key = self.folder / "munge/munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        host = socket.gethostname().split(".")[0]
        self.conf.write_text(
            _CONF.format(
                folder=self.folder,
                host=host,
                user=getpass.getuser(),
                cpus=CPUS,
                ctld_port=free_port(),
                d_port=free_port(),
            )
        )
        run = self.folder / "run"
        self._spawn(
            "munged", "--foreground", "--force",  # its socket is for us alone
            f"--key-file={key}", f"--socket={run}/munge.socket",
            f"--pid-file={run}/munged.pid", f"--log-file={self.folder}/log/munged.log",
            f"--seed-file={run}/munge.seed",
        )  # fmt: skip
        self._until(lambda: (run / "munge.socket").exists(), 20, "munged")
        self._spawn("slurmctld", "-D", "-f", str(self.conf))
        self._spawn("slurmd", "-D", "-f", str(self.conf))
        self._until(
            lambda: "idle" in self.call("sinfo", "-h", "-o", "%t", check=False), 60, "a node that takes jobs"
        )

    def stop(self):
        """Cancel what runs, then end the daemons by their ids, the last started first."""
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):  # the logs have told why
            self.cancel_all()
        for process in reversed(self._processes):
            end(process)
        for process in self.processes():  # steps that outlived slurmd
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self):
        """Return the processes that were started with this Slurm's environment, but its own: jobs and drivers."""
        found = []
        for process in marked(f"SLURM_CONF={self.conf}"):
            with contextlib.suppress(psutil.NoSuchProcess):
                if not process.name().startswith(("slurm", "munge")):  # slurmctld has a child of another name
                    found.append(process)
        return found

    def cancel_all(self):
        """Cancel all jobs; return when they have ended."""
        self.call("scancel", "--user", getpass.getuser(), check=False)
        self._until(lambda: not self.call("squeue", "-h", check=False).strip(), 60, "an empty queue")

    @property
    def env(self):
        """The environment in which Slurm's commands find this Slurm."""
        return {**os.environ, "SLURM_CONF": str(self.conf), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

    def call(self, *command, check=True, timeout=60, **options):
        """Run a command of Slurm's; return what it prints."""
        done = subprocess.run(
            command, env={**self.env, **options.pop("env", {})}, check=False, timeout=timeout, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout}")
        return done.stdout

    def submit(self, *arguments, **options):
        """Submit a batch script; return the job's id."""
        return self.call("sbatch", "--parsable", *map(str, arguments), **options).strip().split(";")[0]

    def state(self, job):
        """Return a job's state: RUNNING, COMPLETED, CANCELLED, …"""
        return self.field(job, "JobState")

    def field(self, job, name):
        """Return a field of what Slurm says of a job."""
        words = self.call("scontrol", "show", "job", "-o", job).split()
        return next(word.split("=", 1)[1] for word in words if word.startswith(f"{name}="))

    def running(self):
        """Return the ids of the jobs that run."""
        return self.call("squeue", "-h", "-t", "R", "-o", "%i").split()

    def wait(self, job, timeout, states=("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")):
        """Wait until a job is in one of the states; return which."""
        found = []

        def arrived():
            found.append(self.state(job))
            return found[-1] in states

        self._until(arrived, timeout, f"job {job} in one of the states {states}")
        return found[-1]

    def _spawn(self, name, *arguments):
        with open(self.folder / f"log/{name}.out", "wb") as out:
            self._processes.append(
                subprocess.Popen(
                    [_which(name), *arguments], env=self.env, stdout=out, stderr=out, stdin=subprocess.DEVNULL
                )
            )

    def _until(self, condition, timeout, what):
        end = time.monotonic() + timeout
        while not condition():
            dead = [process.args[0] for process in self._processes if process.poll() is not None]
            if dead or time.monotonic() > end:
                raise RuntimeError(f"no {what} within {timeout} s; ended: {dead}\n{self._logs()}")
            time.sleep(0.2)

    def _logs(self):
        logs = sorted((self.folder / "log").iterdir())
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs)
