"""Runs a call of `every_call` in a child that is killed, or refused something, at a chosen moment.

A child counts the calls of `os` that change a folder or flush a file, whichever thread makes them, and kills itself
before or after one of them. `PRELUDE` is for the process that children are forked of: it has run every call
once, so that everything is compiled and imported.
"""

import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import threading
import warnings
from dataclasses import dataclass

import dask
import numpy as np
from children import fail_syscalls
from every_call import CALLS, CANVAS, CUBE, ELSEWHERE, FIRST, Scene, copied

from wkdask import Dataset
from wkdask.errors import WkdaskError

COUNTED = (
    "replace", "rename", "link", "unlink", "mkdir", "rmdir", "fsync", "fdatasync", "ftruncate",
)  # fmt: skip

PRELUDE = """
import killing
killing.warm_up()
"""


REFUSED_CALLS = {
    errno.ENOSPC: ("write", "pwrite64", "ftruncate", "mkdir", "mkdirat", "copy_file_range"),
    errno.EIO: ("read", "pread64", "write", "pwrite64", "fsync", "fdatasync"),
    errno.EMFILE: ("openat",),
    errno.EACCES: ("mkdir", "mkdirat", "rename", "renameat", "renameat2"),
}
"""What the kernel refuses from a moment on, by the errno."""


class Moments:
    """Counts the calls of `os` from now on, and does something at one of them."""

    def __init__(self, at=0, after=False, error=None, lasting=False):
        self.count, self._at, self._after, self._error, self._lasting = 0, at, after, error, lasting
        self._lock = threading.Lock()
        for name in COUNTED:
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, original):
        def call(*args, **kwargs):
            with self._lock:
                self.count += 1
                now = self.count == self._at
            if now and self._lasting:
                fail_syscalls(self._error, *REFUSED_CALLS[self._error])
            elif now and self._error is not None:
                raise OSError(self._error, os.strerror(self._error))
            if now and self._error is None and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **kwargs)
            if now and self._error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def tell(**facts):
    """Print what the parent is to know, as the last line."""
    print("\nfacts " + json.dumps(facts), flush=True)


def told(ended):
    """Return what a child told; None if it did not come so far."""
    lines = [line for line in ended.out.splitlines() if line.startswith("facts ")]
    return json.loads(lines[-1][6:]) if lines else None


# --- in the child -----------------------------------------------------------------------------------------


def run_call(folder, data_format, name, at=0, after=False, error=None, lasting=False, **how):
    """Run a call; it is killed, or meets an error, at a moment."""
    moments = Moments(at, after, error, lasting)
    facts = {}
    with dask.config.set(num_workers=2), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            CALLS[name].run(Scene(folder, data_format), FIRST, **how)
        except Exception as raised:
            if not isinstance(raised, (WkdaskError, OSError)) and not lasting:
                raise
            facts = {"error": type(raised).__name__, "text": str(raised)[:600]}
    tell(count=moments.count, **facts)


def run_other(folder, data_format, what, key):
    """Run another job on a mag, or one that reads it."""
    scene = Scene(folder, data_format)
    mag = scene.mag(key[1], key[2], key[0])
    box = mag.layer.bounding_box
    facts = {}
    with dask.config.set(num_workers=2), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            OTHERS[what](scene, mag, box)
        except (WkdaskError, OSError) as raised:
            facts = {"error": type(raised).__name__, "text": str(raised)[:600]}
    tell(**facts)


def _write(scene, mag, box):
    shape = (1, *ELSEWHERE.in_mag(mag.mag).size)
    mag.write(np.full(shape, 77, mag.get_dtype()), bounding_box=ELSEWHERE, progress=False)


def _rechunk(scene, mag, box):
    side = (
        16 if mag.spec.shard_shape[0] == 32 else 32
    )  # another one: else there is nothing to do, and so no job
    mag.rechunk(side if scene.data_format == "zarr" else 16, side, progress=False)


def _compress(scene, mag, box):
    # One that it has not: else there is nothing to do, and so no job.
    known = ("lz4", "lz4hc") if scene.data_format == "wkw" else ("gzip", "zstd")
    mag.compress(compression=known[mag.spec.compression == known[0]], progress=False)


def _result(scene, mag):
    result = Dataset.create(scene.path("result"), (1, 1, 1))
    return result.add_layer(
        "color", "color", dtype_per_channel=mag.get_dtype(), data_format=scene.data_format
    )


def _copy_mag(scene, mag, box):
    _result(scene, mag).add_copy_mag(mag)


def _expression(scene, mag, box):
    target = _result(scene, mag).add_mag(mag.mag, **scene.layout)
    target.write(mag.to_dask() + 0, bounding_box=box, progress=False)


def same(block):
    return block


def _map_from(scene, mag, box):
    target = _result(scene, mag).add_mag(mag.mag, **scene.layout)
    mag.map_cubes(same, target, progress=False)


WRITERS = {"write": _write, "rechunk": _rechunk, "compress": _compress}
READERS = {"copy_mag": _copy_mag, "expression": _expression, "map": _map_from}
OTHERS = WRITERS | READERS


def warm_up():
    """Run every call once, in threads that end."""
    import tempfile

    import dask.threaded
    from every_call import make_scene

    for data_format in ("wkw", "zarr3"):
        for call in CALLS.values():
            with tempfile.TemporaryDirectory() as folder, dask.config.set(num_workers=2):
                scene, state = make_scene(folder, data_format)
                call.prepare(scene, state, FIRST, call.older)
                call.run(scene, FIRST)
    dask.threaded.default_pool = None
    dask.threaded.pools.clear()


# --- in the test -----------------------------------------------------------------------------------------


@dataclass
class Template:
    """A prepared scene on disk, what is in it, and what the call makes of it."""

    folder: str
    data_format: str
    name: str
    before: object
    after: object
    count: int
    """Moments in a whole run."""


def outside_of(folder):
    """Return what must not change: every file of the source dataset and of a stranger's folder."""
    found = {}
    for root in ("src", "stranger"):
        for above, folders, files in os.walk(os.path.join(folder, root)):
            folders[:] = [each for each in folders if each != ".wkdask"]
            for name in files:
                path = os.path.join(above, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, folder)] = hashlib.sha1(file.read()).hexdigest()
    return found


_TRASH = re.compile(r".*\.gone-.*|.*\.tmp|.*~.*")


def left_in(folder, *, finished):
    """Return what is left in private folders that must not be; of an unfinished job less is too much."""
    left = []
    for above, folders, files in os.walk(folder):
        if ".wkdask" in above:
            left += [os.path.join(above, name) for name in [*folders, *files] if _TRASH.fullmatch(name)]
        if os.path.basename(above) == ".wkdask":
            for name in [*folders, *files]:
                kept = name in ("locks", "finished", "stamp", "copy.json", "checksums")
                if not kept and finished:
                    left.append(os.path.join(above, name))
                elif not kept and re.fullmatch("[0-9a-f]{12}", name) and not finished:
                    inside = os.listdir(os.path.join(above, name))
                    wrong = [
                        each
                        for each in inside
                        if not re.fullmatch(
                            r"alive|manifest|journal|replacing|replaced|staged.*|built|slab-.*|done-.*", each
                        )
                    ]
                    left += [os.path.join(above, name, each) for each in wrong]
            folders[:] = []
    return [os.path.relpath(path, folder) for path in left]


def has_cubes(folder, key):
    """Return whether any voxel of a mag is stored."""
    dataset, layer, mag = key
    return any(Dataset(os.path.join(folder, dataset)).get_layer(layer).get_mag(mag).cubes_on_disk())


def unlisted_mags(folder, state):
    """Return the folders of mags that no properties list."""
    unlisted = []
    for dataset in os.listdir(folder):
        for above, _folders, files in os.walk(os.path.join(folder, dataset)):
            if ".wkdask" in above or not {"header.wkw", "zarr.json", ".zarray"} & set(files):
                continue
            parts = os.path.relpath(above, folder).split(os.sep)
            if len(parts) == 3 and parts[2].isdigit() and (*parts[:2], int(parts[2])) not in state.voxels:
                unlisted.append("/".join(parts))
    return unlisted


def cube_states(got, before, after, mag):
    """Return how many cubes are as before, as after, and neither; those that are the same count as neither one."""
    old = new = 0
    wrong = []
    for x in range(0, CANVAS[0] // mag, CUBE):
        for y in range(0, CANVAS[1] // mag, CUBE):
            for z in range(0, CANVAS[2] // mag, CUBE):
                part = (slice(x, x + CUBE), slice(y, y + CUBE), slice(z, z + CUBE))
                is_old, is_new = (np.array_equal(got[part], each[part]) for each in (before, after))
                if not (is_old or is_new):
                    wrong.append((x, y, z))
                old += is_old and not is_new
                new += is_new and not is_old
    return old, new, wrong


def with_elsewhere(state, key):
    """Return a state in which the small write was made too."""
    changed = copied(state)
    if key in changed.voxels:
        changed.put(key, ELSEWHERE, np.full(CANVAS, 77, changed.voxels[key].dtype))
    return changed


def judge(template, got, action, key, call):
    """Return what is wrong with a state after a kill and what followed it; an empty list if nothing is."""
    before, after, wrong = template.before, template.after, []
    if action == "write":
        before, after = with_elsewhere(before, key), with_elsewhere(after, key)
    for each in sorted({*got.voxels, *before.voxels, *after.voxels}):
        if each[0] == "result":
            continue
        listed = each in got.voxels
        if not listed:
            if each in before.voxels:
                wrong.append(f"{each} is not listed any more")
            continue
        if each not in before.voxels and each not in after.voxels:
            wrong.append(f"{each} is listed")
            continue
        new = after.voxels[each]
        if each not in before.voxels:
            # Readers read the layer's box only: a mag may be listed, with an empty box, before a job fills it.
            if not got.boxes[each[:2]].is_empty() and not np.array_equal(got.voxels[each], new):
                zeros = np.count_nonzero((got.voxels[each] == 0) & (new != 0))
                wrong.append(f"the new {each} is not whole: {zeros} voxels read zero")
            continue
        old_cubes, new_cubes, bad = cube_states(got.voxels[each], before.voxels[each], new, each[2])
        if bad:
            wrong.append(f"{each}: the cubes at {bad} are neither old nor new")
        elif each in call.whole and each == key and old_cubes and new_cubes:
            wrong.append(f"{each}: {old_cubes} cubes are old, {new_cubes} new")
    for each in sorted({*got.boxes, *before.boxes}):
        if each[0] == "result":
            continue
        box = got.boxes.get(each)
        old, new = before.boxes.get(each), after.boxes.get(each)
        allowed = [one for one in (old, new) if one is not None]
        if box is None:
            if old is not None:
                wrong.append(f"the layer {each} is gone")
        elif old is not None and not old.is_empty() and not box.contains_bbox(old):
            wrong.append(f"the box of {each} is {box}, it was {old}")
        elif not box.is_empty() and not any(one.contains_bbox(box) for one in allowed if not one.is_empty()):
            wrong.append(f"the box of {each} is {box}, want {old} or {new}")
    return wrong


def result_differs(got, key):
    """Return whether what a reader made is not what is in the mag that it read."""
    result = ("result", "color", key[2])
    if result not in got.voxels:
        return "the reader has made nothing"
    box = got.boxes[key[:2]]
    part = tuple(slice(a // key[2], b // key[2]) for a, b in zip(box.topleft, box.bottomright, strict=True))
    if not np.array_equal(got.voxels[result][part], got.voxels[key][part]):
        return f"the reader's voxels are not those of {key}"
    return ""


def copy_template(template, folder):
    """Copy a scene for one run."""
    shutil.copytree(template.folder, folder, symlinks=True)
    return folder


def draw(seed, *more):
    """Return a random generator that is the same for the same arguments."""
    return random.Random(f"{seed}|" + "|".join(map(str, more)))


# --- damaged notes ----------------------------------------------------------------------------------------


def notes_of_dead_jobs(folder):
    """Return the manifests and journals that dead jobs have left in a scene."""
    found = []
    for above, _, files in os.walk(folder):
        parts = above.split(os.sep)
        if len(parts) > 1 and parts[-2] == ".wkdask" and re.fullmatch("[0-9a-f]{12}", parts[-1]):
            found += [os.path.join(above, name) for name in ("manifest", "journal") if name in files]
    return sorted(found, key=lambda path: (os.path.relpath(path, folder).split(".wkdask")[0], path[-7:]))


def damage(path, how, random, stranger):
    """Damage a file as a disk, an archive or another user may."""
    with open(path, "rb") as file:
        data = file.read()
    if how == "flip" and data:
        at = random.randrange(len(data))
        data = data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
    elif how == "truncate":
        data = data[: random.randrange(len(data) + 1)]
    elif how == "swap lines":
        lines = data.splitlines(keepends=True)
        random.shuffle(lines)
        data = b"".join(lines)
    elif how == "repeat":
        data += data[len(data) // 2 :] + b"\n"
    elif how == "other JSON":
        data = random.choice([b"{}", b"[]", b"null", b'{"job": {}, "checksum": ""}', b"[" * 2000])
    os.unlink(path)
    if how == "link":
        with open(stranger, "wb") as file:
            file.write(data)
        os.symlink(stranger, path)
    elif how == "hard link":
        with open(stranger, "wb") as file:
            file.write(data)
        os.link(stranger, path)
    elif how == "FIFO":
        os.mkfifo(path)
    elif how != "gone":
        with open(path, "wb") as file:
            file.write(data)


DAMAGES = ("flip", "truncate", "swap lines", "repeat", "other JSON", "link", "hard link", "FIFO", "gone")
ERRNOS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES)
