"""What this process has open, whatever other threads open and close meanwhile."""

import contextlib
import os


def open_below(folder):
    """Return the files and folders at or below a folder that this process has open, those that were removed too."""
    folder, found = os.path.realpath(folder), []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path == folder or path.startswith(f"{folder}/"):
                found.append(path)
    return found
