"""Wrong reads, in any process: a library that stands between it and the C library.

::

    pread, preadv of a file below a folder ──> of each 64 KiB a share is spoilt: short, zeros, or noise
    posix_fadvise(DONTNEED)                ──> other ones are spoilt from here on

So a plain repetition reads the same wrong bytes, as from a page cache; what was dropped from it is most probably
right. Machine code is lied to as well: it calls the same functions.
"""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SLOT 65536
#define FILES 4096
static uint32_t epochs[FILES];
static long lies;

static uint64_t mixed(uint64_t x) {
    x ^= x >> 30; x *= 0xbf58476d1ce4e5b9ULL; x ^= x >> 27; x *= 0x94d049bb133111ebULL; return x ^ (x >> 31);
}

static int is_lied_about(int fd, struct stat *info, uint64_t *name_hash) {
    const char *under = getenv("LIES_UNDER");
    char name[64], path[4096];
    if (!under || fstat(fd, info) || !S_ISREG(info->st_mode)) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    if (strncmp(path, under, strlen(under)) || strstr(path, "/.wkdask/")) return 0;
    *name_hash = 1;  /* of the name below the folder: what is spoilt first is the same in every run */
    for (const char *c = path + strlen(under); *c; c++) *name_hash = mixed(*name_hash + (unsigned char)*c);
    return 1;
}

static ssize_t spoilt(int fd, char *data, ssize_t count, off_t start) {
    struct stat info;
    uint64_t file;
    if (count <= 0 || !is_lied_about(fd, &info, &file)) return count;
    long rate = atol(getenv("LIES_PER_10000"));
    const char *kinds = getenv("LIES_KINDS");
    uint32_t epoch = epochs[info.st_ino % FILES];
    for (off_t slot = start / SLOT; slot * SLOT < start + count; slot++) {
        uint64_t h = mixed(mixed(file + slot) + epoch);
        if ((long)(h % 10000) >= rate) continue;
        off_t first = slot * SLOT > start ? slot * SLOT - start : 0;
        off_t end = (slot + 1) * SLOT < start + count ? (slot + 1) * SLOT - start : count;
        __atomic_add_fetch(&lies, 1, __ATOMIC_RELAXED);
        char kind = kinds[(h >> 20) % strlen(kinds)];
        if (kind == 's') return first;
        if (kind == 'z') memset(data + first, 0, end - first);
        else for (off_t k = first; k < end; k++) data[k] ^= 0xa5;
    }
    return count;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

ssize_t pread(int fd, void *data, size_t n, off_t at) {
    REAL(ssize_t, "pread", int, void *, size_t, off_t);
    return spoilt(fd, data, real(fd, data, n, at), at);
}
ssize_t pread64(int fd, void *data, size_t n, off64_t at) { return pread(fd, data, n, at); }

ssize_t preadv(int fd, const struct iovec *parts, int count, off_t at) {
    REAL(ssize_t, "preadv", int, const struct iovec *, int, off_t);
    ssize_t n = real(fd, parts, count, at);
    return count == 1 ? spoilt(fd, parts[0].iov_base, n, at) : n;
}
ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t at) { return preadv(fd, parts, count, at); }

int posix_fadvise(int fd, off_t start, off_t n, int advice) {
    struct stat info;
    uint64_t file;
    if (advice == POSIX_FADV_DONTNEED && is_lied_about(fd, &info, &file))
        __atomic_add_fetch(&epochs[info.st_ino % FILES], 1, __ATOMIC_RELAXED);
    return 0;
}
int posix_fadvise64(int fd, off64_t start, off64_t n, int advice) { return posix_fadvise(fd, start, n, advice); }

__attribute__((destructor)) static void tell(void) {
    const char *path = getenv("LIES_LOG");
    FILE *log = path && lies ? fopen(path, "a") : NULL;
    if (log) { fprintf(log, "%ld\n", lies); fclose(log); }
}
"""


@functools.cache
def _library():
    """Return the path of the library, compiled once per process; skips the test where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or os.uname().sysname != "Linux":
        pytest.skip("there is no C compiler, or this is no Linux")
    folder = Path(tempfile.mkdtemp(prefix="wkdask-lies-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "lies.c").write_text(_SOURCE)
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", folder / "lies.so", folder / "lies.c", "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "lies.so"


def lying(under, log, per_10000=100, kinds="szn"):
    """Return the environment of a process whose reads below a folder lie.

    Parameters
    ----------
    under
        The folder.
    log
        A file that gets a line with the number of lies from each process.
    per_10000
        How many of 10 000 pieces of 64 KiB are spoilt.
    kinds
        "s" for short reads, "z" for zeros, "n" for noise.
    """
    return {
        "LD_PRELOAD": str(_library()),
        "LIES_UNDER": str(under),
        "LIES_PER_10000": str(per_10000),
        "LIES_KINDS": kinds,
        "LIES_LOG": str(log),
    }


def lies_told(log):
    """Return how many lies the processes told that have ended."""
    return sum(map(int, Path(log).read_text().split())) if Path(log).exists() else 0
