"""Invert and downsample a layer within one Slurm job.

::

    sbatch cluster/slurm/batch.sbatch cluster/slurm/in_job.py /data/dataset

``srun`` starts this file once per task of the job. Task 0 becomes the scheduler, task 1 the driver, the others
workers: each stays in ``SLURMRunner(…)`` for as long as it has that role, and only the driver comes out of it.
"""

import os
import signal
import sys

from dask_jobqueue.slurm import SLURMRunner
from distributed import Client, Security
from distributed.core import rpc
from distributed.utils import json_load_robust

from wkdask import Dataset
from wkdask.jobs.engines.choice import dashboard_text

THREADS = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
MEMORY = int(os.environ.get("SLURM_MEM_PER_CPU", 0)) * THREADS  # MiB; 0 where the job does not say
DRIVER = os.environ.get("SLURM_PROCID") == "1"
ROUND = os.environ.get("SLURM_RESTART_COUNT", "0")  # a requeued job keeps its id


def work(client: Client, path: str) -> None:
    """Invert a layer and downsample the result; your own work goes here."""
    dataset = Dataset(path)
    color = dataset.get_layer("color")
    source = color.get_mag(1)
    target = dataset.get_or_add_layer("inverted", color.category, dtype_per_channel=color.dtype_per_channel)
    options = {"client": client, "progress": True}
    if len(target.mags) < 2:  # the pyramid is begun when mag 1 is complete
        shape = source.spec.shard_shape
        mag = target.get_or_add_mag(1, shard_shape=shape, compression="lz4")
        # `resume` goes on with what an earlier round left; the box makes it the same call in every round
        report = mag.write(255 - source.to_dask(), bounding_box=color.bounding_box, resume=True, **options)
        print(report, flush=True)
    for report in target.downsample(from_mag=1, allow_overwrite=True, **options):
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
        # What the runner ends the scheduler with; its own knows no TLS.
        runner.scheduler_comm = rpc(
            runner.scheduler_address, connection_args=Security().get_connection_args("client")
        )
        print(f"Scheduler {runner.scheduler_address}, {dashboard_text(client)}", flush=True)
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
