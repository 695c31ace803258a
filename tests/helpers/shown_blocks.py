"""Functions of blocks that the viewer shows, in a module that workers can import."""

import os

import numpy as np


def of_process(block):
    """Return the number of the process that computes it, as far as it fits into a voxel."""
    return np.full_like(block, os.getpid() % 251)


def held(block):
    """Say that it has begun, and wait until it may go on."""
    from distributed import Event, Queue

    if block.size > 1:  # not where dask asks for the type
        Queue("begun").put(1)
        assert Event("go on").wait(timeout=60)
    return block
