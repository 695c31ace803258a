"""Takes away from `os` what macOS does not have; to be imported before wkdask."""

import os
import sys

MISSING = (
    "sched_getaffinity", "sched_setaffinity", "fdatasync", "copy_file_range", "posix_fadvise", "posix_fallocate",
    "memfd_create", "eventfd", "pidfd_open", "splice", "preadv", "pwritev", "SEEK_DATA", "SEEK_HOLE", "O_TMPFILE",
    "O_PATH",
)  # fmt: skip
"""Of these, ``preadv`` and ``SEEK_DATA`` are on newer versions of macOS."""

assert "wkdask" not in sys.modules
for name in MISSING:
    if hasattr(os, name):
        delattr(os, name)
if hasattr(os, "process_cpu_count"):  # Python 3.13's asks the scheduler where there is one to ask
    os.process_cpu_count = os.cpu_count
