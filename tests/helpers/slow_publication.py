"""A preload for dask workers that makes the publication of cubes take its time, so that kills hit one.

``DASK_DISTRIBUTED__WORKER__PRELOAD=slow_publication.py``, and in the environment of the worker

- ``WKDASK_TEST_SECONDS=0.5``: a built cube waits so long before it is put in its place, under its lock; with
  ``WKDASK_TEST_IN=/1/`` only where that is part of its path;
- ``WKDASK_TEST_HOLD=/tmp/hold``: the task waits until this file is there. It makes ``/tmp/hold.begun`` when it
  begins to wait, ``/tmp/hold.over`` when it goes on. ``WKDASK_TEST_HOLD_AT`` says where: ``built``, when its cubes
  are built, or ``locked``, when it holds the lock of the first one.
"""

import os
import time


def slowed(replace):
    """Return `os.replace` that waits before it puts a cube in its place."""

    def wait_and_replace(source, target, **options):
        if str(target).endswith(".wkw") and "/.wkdask/" not in str(target):
            if os.environ.get("WKDASK_TEST_IN", "") in str(target):
                time.sleep(float(os.environ.get("WKDASK_TEST_SECONDS", 0)))
            hold("locked")
        return replace(source, target, **options)

    return wait_and_replace


def held(fdatasync):
    """Return `os.fdatasync`, which comes between building and publishing, that waits for a file."""

    def wait_and_sync(descriptor):
        fdatasync(descriptor)
        hold("built")

    return wait_and_sync


def hold(at):
    """Wait at one of two places for the file that the environment names."""
    file = os.environ.get("WKDASK_TEST_HOLD")
    if file and os.environ["WKDASK_TEST_HOLD_AT"] == at and not os.path.exists(file):
        open(f"{file}.begun", "w").close()
        while not os.path.exists(file):
            time.sleep(0.01)
        open(f"{file}.over", "w").close()


if os.replace.__name__ == "replace":  # distributed loads a preload twice
    os.replace, os.fdatasync = slowed(os.replace), held(os.fdatasync)
