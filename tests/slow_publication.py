"""A preload for dask workers that makes the publication of cubes take its time, so that kills hit one.

``DASK_DISTRIBUTED__WORKER__PRELOAD=slow_publication.py``, and in the environment of the worker

- ``WKDASK_TEST_SECONDS=0.5``: a built cube waits so long before it is put in its place, under its lock;
- ``WKDASK_TEST_HOLD=/tmp/hold``: after cubes were built the task waits until this file is there. It makes
  ``/tmp/hold.begun`` when it begins to wait, ``/tmp/hold.over`` when it goes on.
"""

import os
import time


def slowed(replace):
    """Return `os.replace` that waits before it puts a cube in its place."""

    def wait_and_replace(source, target, **options):
        if str(target).endswith(".wkw") and "/.wkdask/" not in str(target):
            time.sleep(float(os.environ.get("WKDASK_TEST_SECONDS", 0)))
        return replace(source, target, **options)

    return wait_and_replace


def held(fdatasync):
    """Return `os.fdatasync`, which comes between building and publishing, that waits for a file."""

    def wait_and_sync(descriptor):
        fdatasync(descriptor)
        hold = os.environ.get("WKDASK_TEST_HOLD")
        if hold and not os.path.exists(hold):
            open(f"{hold}.begun", "w").close()
            while not os.path.exists(hold):
                time.sleep(0.01)
            open(f"{hold}.over", "w").close()

    return wait_and_sync


if os.replace.__name__ == "replace":  # distributed loads a preload twice
    os.replace, os.fdatasync = slowed(os.replace), held(os.fdatasync)
