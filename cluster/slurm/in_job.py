"""Downsample a dataset within one Slurm job: ``sbatch cluster/slurm/batch.sbatch cluster/slurm/in_job.py dataset``.

``srun`` starts this file once per task of the job. Task 0 becomes the scheduler, task 1 the driver, the others
workers: each stays in ``SLURMRunner(…)`` for as long as it has that role, and only the driver comes out of it.
"""

import os
import signal
import sys

from dask_jobqueue.slurm import SLURMRunner
from distributed import Client
from distributed.utils import json_load_robust

from wkdask import Dataset

THREADS = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
MEMORY = int(os.environ.get("SLURM_MEM_PER_CPU", 0)) * THREADS  # MiB; 0 where the job does not say
DRIVER = os.environ.get("SLURM_PROCID") == "1"
ROUND = os.environ.get("SLURM_RESTART_COUNT", "0")  # a requeued job keeps its id


def work(client: Client, path: str) -> None:
    """Downsample every layer; your own work goes here."""
    for layer in Dataset(path).layers.values():
        for report in layer.downsample(client=client, progress=True):
            print(report, flush=True)


def main() -> None:
    """Become scheduler, worker or driver; the driver does the work."""
    # A signal to the job reaches every task. The driver commits what landed; the others end when it is done.
    signal.signal(signal.SIGTERM, stop if DRIVER else signal.SIG_IGN)
    scheduler_file = f"scheduler-{os.environ['SLURM_JOB_ID']}-{ROUND}.json"
    if DRIVER:
        json_load_robust(scheduler_file, timeout=120)  # the runner would read it half-written
    interface = os.environ.get("WKDASK_INTERFACE")  # ib0, eth0, …
    with (
        SLURMRunner(
            scheduler_file=scheduler_file,
            scheduler_options={"interface": interface, "dashboard_address": "127.0.0.1:0"},
            worker_class="distributed.Nanny",  # starts a worker anew that was killed
            worker_options={
                "interface": interface,
                "dashboard_address": "127.0.0.1:0",
                "nthreads": THREADS,
                "memory_limit": f"{MEMORY}MiB" if MEMORY else "auto",
            },
        ) as runner,
        Client(runner) as client,
    ):
        print(f"Scheduler {runner.scheduler_address}, dashboard {client.dashboard_link}", flush=True)
        client.wait_for_workers(runner.n_workers, timeout=300)
        work(client, sys.argv[1])


def stop(*_: object) -> None:
    """End as after Ctrl-C: what landed is committed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it more than once
    raise KeyboardInterrupt


if __name__ == "__main__":  # a worker process imports this file
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(143)
