"""Private folders that others have made or exchanged: nothing outside is touched, nothing hangs, work goes on."""

import itertools
import os
import platform
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from thorough import mostly_slow

from wkdask import BoundingBox, Dataset, Mag, Vec3Int
from wkdask.errors import InterruptedJobError
from wkdask.storage.publish.manifest import Manifest
from wkdask.storage.publish.private import opened_folder

ELSEWHERE = BoundingBox((960, 960, 960), (64, 64, 32))
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become other users")


@pytest.fixture
def for_all():
    """Return a folder that every user can reach; those of pytest are for one."""
    with tempfile.TemporaryDirectory(prefix="wkdask-shared-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def manifest(**more):
    """Return the manifest of a dead job elsewhere in the mag, which is kept for its own resumption."""
    facts = {"key": "x", "name": "n", "action": "writing", "layer": "layer", "mag": Mag(1), "box": ELSEWHERE}
    return Manifest(**facts, unit=Vec3Int(32, 32, 32), **more)


def dead_job(mag, name="aaaaaaaaaaaa", written=True):
    """Leave the folder of a dead job in a mag; return its path."""
    folder = os.path.join(mag.path, ".wkdask", name)
    os.makedirs(folder)
    with open(f"{folder}/alive", "w"), opened_folder(folder) as descriptor:
        if written:
            manifest().write(descriptor, durable=False)
    return folder


EXCHANGING = """
import ctypes
libc = ctypes.CDLL(None)
os.setgroups([]); os.setgid(3000); os.setuid(2002)
a, b, number = args
while True:  # renameat2, RENAME_EXCHANGE
    libc.syscall(number, -100, a.encode(), -100, b.encode(), 2)
"""


@pytest.mark.slow
@root_only
def test_a_folder_that_another_user_exchanges_for_a_link(for_all, children):
    home = for_all / "home"
    (home / "photos").mkdir(parents=True)
    (home / "photos" / "a.jpg").write_text("x")
    home.chmod(0o700)
    layer = Dataset.create(for_all / "ds", (1, 1, 1)).add_layer("layer", "color")
    mag = layer.add_mag(1, chunk_shape=16, shard_shape=32)
    mag.write(np.full((1, 64, 64, 32), 7, "uint8"))
    folder, private = dead_job(mag), os.path.join(mag.path, ".wkdask")
    os.symlink(home, f"{private}/link")
    for each, mode in ((private, 0o2775), (folder, 0o2777)):
        os.chown(each, 0, 3000)
        os.chmod(each, mode)
    number = {"x86_64": 316, "aarch64": 276}[platform.machine()]
    child, rounds, exchanged, start = None, 0, 0, time.monotonic()
    try:
        child = children.start(EXCHANGING, folder, f"{private}/link", number)
        while time.monotonic() - start < 20 and rounds < 400:
            rounds += 1
            exchanged += os.path.islink(folder)
            mag.write(np.full((1, 2, 2, 2), rounds % 250, "uint8"), offset=(0, 0, 0), progress=False)
            assert os.listdir(home) == ["photos"], f"round {rounds}"
            assert os.listdir(home / "photos") == ["a.jpg"]
            if not os.path.lexists(folder) and not os.path.lexists(f"{private}/link"):
                dead_job(mag)
                os.symlink(home, f"{private}/link")
                os.chmod(folder, 0o2777)
    finally:
        if child is not None:
            os.kill(child, signal.SIGKILL)
            ended = children.wait(child)
            assert ended.code == -signal.SIGKILL, ended.out
    assert rounds > 20
    assert exchanged, "nothing was exchanged: the test tests nothing"
    assert (mag.read((0, 0, 0), (2, 2, 2)) == rounds % 250).all()


# --- another user's dead job ------------------------------------------------------------------------------

COLLEAGUE = """
import numcodecs.zstd  # later it may lie where another user cannot read
import wkdask
os.setgroups([]); os.setgid(3000); os.setuid({user}); os.umask(0o002)
mag = wkdask.Dataset.open(args[0]).get_layer("layer").get_mag(1)
"""
DIES = """
from wkdask.storage.publish.dead_jobs import JobFolder
begun = JobFolder.begin_second_phase
def begin(self, state):
    begun(self, state)
    count = [0]
    def die(name):
        original_call = getattr(os, name)
        def call(*arguments, **options):
            count[0] += 1
            if count[0] > args[1]:
                os.kill(os.getpid(), 9)
            return original_call(*arguments, **options)
        setattr(os, name, call)
    for name in ("rename", "replace", "link"):
        die(name)
JobFolder.begin_second_phase = begin
mag.write(255 - mag.to_dask(), progress=False)
"""


@root_only
@pytest.mark.parametrize(
    ("data_format", "after"),
    mostly_slow([("wkw", 0), ("zarr3", 3), ("wkw", 3), ("zarr3", 0)], lambda n, _: n < 2),
)
def test_a_colleagues_job_died_in_place(for_all, children, data_format, after, random_voxels):
    shared = for_all / "shared"
    shared.mkdir()
    os.chown(shared, 2001, 3000)
    shared.chmod(0o2775)
    ours = f"""
import numcodecs.zstd
os.setgroups([]); os.setgid(3000); os.setuid(2001); os.umask(0o002)
import wkdask
ds = wkdask.Dataset.create(args[0], (1, 1, 1))
layer = ds.add_layer("layer", "color", data_format={data_format!r})
mag = layer.add_mag(1, chunk_shape=16, shard_shape=32)
voxels = np.load(args[1])
mag.write(voxels, progress=False)
"""
    path, voxels = str(shared / "ds"), random_voxels((1, 64, 64, 32))
    np.save(for_all / "voxels.npy", voxels)
    (for_all / "voxels.npy").chmod(0o644)
    children.run(ours, path, str(for_all / "voxels.npy"))
    ended = children.wait(children.start(COLLEAGUE.format(user=2002) + DIES, path, after))
    assert ended.code == -signal.SIGKILL, ended.out
    write = """
mag.write(np.full((1, 4, 4, 4), 9, "uint8"), offset=(0, 0, 0), progress=False)
"""
    children.run(COLLEAGUE.format(user=2001) + write, path)  # the owner of the dataset, not of the job
    expected = 255 - voxels
    expected[:, :4, :4, :4] = 9
    mag = Dataset.open(path).get_layer("layer").get_mag(1)
    assert np.array_equal(mag.read(), expected)
    private = os.path.join(mag.path, ".wkdask")
    assert {*os.listdir(private)} <= {"locks", "finished", "stamp"}
    for above, _, files in os.walk(mag.path):
        if ".wkdask" in above:
            continue
        for name in files:
            info = os.stat(os.path.join(above, name))
            assert info.st_gid == 3000, name
            assert info.st_mode & stat.S_IWGRP, name
    children.run(COLLEAGUE.format(user=2002) + write, path)  # and the colleague goes on as well


# --- what is no file --------------------------------------------------------------------------------------


def run_with_timeout(children, script, *args):
    """Run a script that must not hang."""
    ended = children.wait(children.start("import wkdask\n" + script, *args), timeout=60)
    assert ended.code == 0, ended.out
    return ended.out


JOBS = {
    "write": "mag.write(np.full((1, 4, 4, 4), 9, 'uint8'), offset=(0, 0, 0), progress=False)",
    "resume": "mag.write(np.full((1, 4, 4, 4), 9, 'uint8'), offset=(0, 0, 0), resume=True, progress=False)",
    "in place": "mag.write(mag.to_dask() * 1, resume=True, progress=False)",
    "rechunk": "mag.rechunk(16, 64, progress=False)",
    "copy": "mag.layer.dataset.copy_dataset(args[1], progress=False)",
    "downsample": "mag.layer.downsample(coarsest_mag=2, resume=True, progress=False)",
}


PRIVATE_FILES = ("manifest", "journal", "alive", "replacing", "ticket")


@pytest.mark.filterwarnings("ignore:.*half replaced")
@pytest.mark.parametrize(
    ("name", "job"),  # every day each name, and each job
    mostly_slow(itertools.product(PRIVATE_FILES, JOBS), lambda n, _: (n // len(JOBS) + n) % 3 == 0),
)
def test_a_fifo_in_a_job_folder(make_mag, tmp_path, children, name, job):
    mag = make_mag()
    expected = np.full((1, 64, 64, 32), 7, "uint8")
    mag.write(expected)
    folder = dead_job(mag, written=name not in ("manifest", "ticket"))
    if os.path.lexists(f"{folder}/{name}"):
        os.unlink(f"{folder}/{name}")
    os.mkfifo(f"{folder}/{name}")
    script = (
        "mag = wkdask.Dataset.open(args[0]).get_layer('layer').get_mag(1)\n"
        + f"""
try:
    {JOBS[job]}
except wkdask.errors.WkdaskError as error:
    print("refused", type(error).__name__)
"""
    )
    out = run_with_timeout(children, script, mag.layer.dataset.path, str(tmp_path / "copy"))
    if name != "replacing":  # whose job elsewhere is half done, and cannot be finished
        assert "refused" not in out, out
    if job in ("write", "resume") and "refused" not in out:
        expected[:, :4, :4, :4] = 9
    again = Dataset.open(mag.layer.dataset.path).get_layer("layer").get_mag(1)
    assert np.array_equal(again.read(), expected)


@pytest.mark.parametrize("what", ["link", "hard link", "FIFO", "folder", "device"])
@pytest.mark.parametrize("name", ["manifest", "journal"])
def test_what_stands_in_place_of_a_file_is_not_written_through(make_mag, tmp_path, children, name, what):
    mag = make_mag()
    mag.write(np.full((1, 64, 64, 32), 7, "uint8"))
    folder = dead_job(mag, written=name != "manifest")
    stranger, path = tmp_path / "stranger", f"{folder}/{name}"
    with open(stranger, "wb") as file, opened_folder(folder) as descriptor:
        file.write(b"mine")
        if os.path.lexists(path):
            os.unlink(path)
        if name == "manifest" and what in ("link", "hard link"):  # a sound one, but not here
            manifest().write(descriptor, durable=False)
            shutil.copyfile(path, stranger)
            os.unlink(path)
    before = stranger.read_bytes()
    if what == "link":
        os.symlink(stranger, path)
    elif what == "hard link":
        os.link(stranger, path)
    elif what == "FIFO":
        os.mkfifo(path)
    elif what == "folder":
        os.makedirs(f"{path}/inside")
    elif os.geteuid() == 0:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    script = """
mag = wkdask.Dataset.open(args[0]).get_layer('layer').get_mag(1)
for resume in (False, True):
    mag.write(np.full((1, 4, 4, 4), 9, 'uint8'), offset=(0, 0, 0), resume=resume, progress=False)
"""
    run_with_timeout(children, script, mag.layer.dataset.path)
    assert stranger.read_bytes() == before
    assert (mag.read((0, 0, 0), (4, 4, 4)) == 9).all()
    assert (mag.read((4, 0, 0), (60, 64, 32)) == 7).all()


@pytest.mark.parametrize("data", [None, b"", b"{}"])
def test_a_half_replaced_mag_without_a_sound_manifest_is_not_taken_for_a_whole_one(make_mag, tmp_path, data):
    mag = make_mag()
    mag.write(np.full((1, 64, 64, 32), 7, "uint8"))
    folder = dead_job(mag, written=False)
    Path(folder, "replacing").write_bytes(b"state")
    if data is not None:
        Path(folder, "manifest").write_bytes(data)
    inverted = 255 - mag.to_dask()
    for call in (
        lambda: mag.write(inverted, resume=True, progress=False),
        lambda: mag.write(np.full((1, 4, 4, 4), 9, "uint8"), offset=(0, 0, 0), progress=False),
        lambda: mag.rechunk(16, 64, progress=False),
        lambda: mag.layer.dataset.copy_dataset(tmp_path / "copy", data_format="zarr3", progress=False),
        lambda: mag.layer.downsample(coarsest_mag=2, progress=False),
    ):
        with pytest.raises(InterruptedJobError, match=r"manifest in .*aaaaaaaaaaaa is damaged or gone"):
            call()
    assert os.path.isdir(folder)
    shutil.rmtree(folder)
    mag.write(np.full((1, 64, 64, 32), 8, "uint8"), progress=False)
    assert (mag.read() == 8).all()
