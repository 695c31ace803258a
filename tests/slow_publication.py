"""A preload for dask workers that makes every publication of a cube take its time, so that kills hit one.

``DASK_DISTRIBUTED__WORKER__PRELOAD=slow_publication.py WKDASK_TEST_SECONDS=0.5 dask worker …``
"""

import os
import time


def slowed(replace):
    """Return `os.replace` that waits before it puts a cube in its place."""

    def wait_and_replace(source, target, **options):
        if str(target).endswith(".wkw") and "/.wkdask/" not in str(target):
            time.sleep(float(os.environ["WKDASK_TEST_SECONDS"]))
        return replace(source, target, **options)

    return wait_and_replace


if os.replace.__name__ == "replace":  # distributed loads a preload twice
    os.replace = slowed(os.replace)
