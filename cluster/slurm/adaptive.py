"""Invert and downsample a layer on Slurm jobs that come and go with the work.

Start it where it may run for hours: on a login node in tmux, or in a small job of its own::

    export DASK_CONFIG=cluster/slurm/jobqueue.yaml
    python cluster/slurm/adaptive.py /data/dataset --jobs 10
    sbatch --time=2-0 --mem=4G --wrap "python cluster/slurm/adaptive.py /data/dataset --jobs 10"
"""

import argparse
import signal
import sys

from dask_jobqueue import SLURMCluster
from distributed import Client

from wkdask import Dataset
from wkdask.jobs.engines.choice import dashboard_text


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
    """Ask Slurm for workers, do the work, give the workers back."""
    parser = argparse.ArgumentParser(description="Invert and downsample a layer on Slurm jobs.")
    parser.add_argument("dataset")
    parser.add_argument("--jobs", type=int, default=2, help="jobs of workers at most")
    arguments = parser.parse_args()
    with SLURMCluster() as cluster, Client(cluster) as client:
        # `adapt` replaces a job that ends or is cancelled; `cluster.scale(jobs=…)` does not.
        cluster.adapt(minimum_jobs=1, maximum_jobs=arguments.jobs)
        print(f"Scheduler {cluster.scheduler_address}, {dashboard_text(client)}", flush=True)
        work(client, arguments.dataset)


def stop(*_: object) -> None:
    """End as after Ctrl-C: what landed is committed, the workers are given back."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it more than once
    raise KeyboardInterrupt


if __name__ == "__main__":  # a worker process may import this file
    signal.signal(signal.SIGTERM, stop)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(143)
