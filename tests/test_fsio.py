"""The file system for real: full disks, killed writers, locks between processes, holes."""

import contextlib
import errno
import itertools
import os
import random
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import dask
import pytest
from descriptors import open_below
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples

import wkdask
from wkdask import fsio
from wkdask.errors import InvalidValueError, LockTimeoutError

ROOT = Path(wkdask.__file__).parent.parent
GROUP = 54321  # any group that is not ours
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount, change group and user")


@contextlib.contextmanager
def process(script, *args):
    """Run a script in a Python process of its own, which is gone at the end."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *map(str, args)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, text=True, stdin=pipe, stdout=pipe) as child:
        try:
            yield child
        finally:
            child.kill()


def names(folder):
    return sorted(os.listdir(folder))


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount does not work here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # also where a failed test holds a file


# paths


def test_checked_path_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fsio.checked_path("a/../b") == str(tmp_path / "b")
    assert fsio.checked_path(Path("µ m")) == str(tmp_path / "µ m")
    assert fsio.checked_path(tmp_path) == str(tmp_path)


@pytest.mark.parametrize("bad", ["", "a\0b", "\udcff", b"bytes"], ids=repr)
def test_bad_paths(bad):
    with pytest.raises(InvalidValueError, match="a path"):
        fsio.checked_path(bad)


def test_a_relative_path_from_a_folder_that_is_no_text(tmp_path, monkeypatch):
    odd = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(odd)
    monkeypatch.chdir(odd)
    with pytest.raises(InvalidValueError, match="Unicode"):
        fsio.checked_path("ds")


def test_only_no_such_name_is_not_there(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "dangling", "loop", "."):
        assert fsio.is_there(str(tmp_path / name))
    for name in ("missing", "no folder/missing", "dangling/missing"):
        assert not fsio.is_there(str(tmp_path / name))
    for name in ("file/below", "loop/below", "x" * 300):
        with pytest.raises(OSError, match=r"below|xxx"):  # os.path.lexists says False
            fsio.is_there(str(tmp_path / name))


# open_regular


def test_open_regular_reads(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open(fsio.open_regular(str(tmp_path / name)), "rb") as file:
            assert file.read() == b"content"
            assert not os.get_inheritable(file.fileno())


def test_only_no_such_name_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        fsio.open_regular(str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        fsio.open_regular(str(tmp_path / "no folder" / "missing"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling", "loop", "device", "socket", "below a file"])
def test_open_regular_refuses_what_is_no_file(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)  # an open that waits for a writer would hang here
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to("x")
    elif kind == "device":
        path = Path("/dev/null")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.write_bytes(b"")
        path = path / "y"
    with pytest.raises(OSError, match=r".") as caught:
        fsio.open_regular(str(path))
    assert not isinstance(caught.value, FileNotFoundError)  # which would be read as an empty cube
    assert caught.value.filename == str(path)
    assert open_below(tmp_path) == []


# atomic_write


def test_atomic_write_makes_and_replaces(tmp_path):
    path = str(tmp_path / "file")
    for data in (b"old", b"", b"new" * 1000):
        fsio.atomic_write(path, data)
        assert Path(path).read_bytes() == data
        assert names(tmp_path) == ["file"]


def test_atomic_write_makes_files_like_open_does(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    fsio.atomic_write(str(tmp_path / "file"), b"x")
    assert mode_of(tmp_path / "file") == mode_of(tmp_path / "plain")


def test_atomic_write_with_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fsio.atomic_write("file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o640, 0o444])
def test_atomic_write_keeps_the_mode(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    fsio.atomic_write(str(path), b"new")
    assert mode_of(path) == mode
    assert path.read_bytes() == b"new"


@needs_root
def test_atomic_write_keeps_the_group(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, -1, GROUP)
    path.chmod(0o2664)
    fsio.atomic_write(str(path), b"new")
    assert os.stat(path).st_gid == GROUP
    assert mode_of(path) == 0o2664


@needs_root
def test_a_new_file_in_a_setgid_folder_has_its_group(tmp_path):
    os.chown(tmp_path, -1, GROUP)
    tmp_path.chmod(0o2775)
    fsio.atomic_write(str(tmp_path / "file"), b"x")
    assert os.stat(tmp_path / "file").st_gid == GROUP


@pytest.mark.parametrize("there", [True, False])
def test_atomic_write_keeps_a_link_and_replaces_its_target(tmp_path, there):
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    target, link = tmp_path / "real" / "file", tmp_path / "links" / "file"
    if there:
        target.write_bytes(b"old")
        target.chmod(0o640)
    link.symlink_to("../real/file")
    fsio.atomic_write(str(link), b"new")
    assert os.readlink(link) == "../real/file"
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    assert not there or mode_of(target) == 0o640
    assert (names(tmp_path / "real"), names(tmp_path / "links")) == (["file"], ["file"])


def test_a_full_disk_leaves_the_old_file_and_nothing_else(small_disk):
    path = small_disk / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with pytest.raises(OSError, match="No space left"):
        fsio.atomic_write(str(path), bytes(200_000))
    assert path.read_bytes() == b"old"
    assert mode_of(path) == 0o640
    assert names(small_disk) == ["file"]
    fsio.atomic_write(str(path), b"new")  # the space came back
    assert path.read_bytes() == b"new"


def test_a_quota_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    script = """
import resource, sys
from wkdask import fsio
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    fsio.atomic_write(sys.argv[1], bytes(200_000))
except OSError as error:
    print(error.errno)
"""
    with process(script, path) as child:
        assert child.stdout.read() == f"{errno.EFBIG}\n"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_failures_name_their_cause(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "loop").symlink_to("loop")
    before = names(tmp_path)
    with pytest.raises(FileNotFoundError):
        fsio.atomic_write(str(tmp_path / "missing" / "x"), b"x")
    with pytest.raises(NotADirectoryError):
        fsio.atomic_write(str(tmp_path / "file" / "x"), b"x")
    with pytest.raises(IsADirectoryError):
        fsio.atomic_write(str(tmp_path / "folder"), b"x")
    with pytest.raises(OSError, match="Too many levels"):
        fsio.atomic_write(str(tmp_path / "loop"), b"x")
    with pytest.raises(TypeError):
        fsio.atomic_write(str(tmp_path / "file"), "text")
    assert before == names(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"old"


@needs_root
def test_a_read_only_folder_of_another_user(tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own folders are closed to others
        os.chmod(folder, 0o755)
        path = Path(folder, "file")
        path.write_bytes(b"old")
        script = """
import os, sys
from wkdask import fsio
os.setegid(int(sys.argv[2])); os.seteuid(int(sys.argv[2]))
try:
    fsio.atomic_write(sys.argv[1], b"new")
except PermissionError:
    print("refused")
"""
        with process(script, path, NOBODY) as child:
            assert child.stdout.read() == "refused\n"
        assert path.read_bytes() == b"old"
        assert names(folder) == ["file"]


@needs_root
def test_a_group_that_cannot_be_given_does_not_stop_the_write(tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        path = Path(folder, "file")
        path.write_bytes(b"old")
        os.chown(path, NOBODY, GROUP)
        path.chmod(0o640)
        script = """
import os, sys
from wkdask import fsio
os.setgroups([]); os.setegid(int(sys.argv[2])); os.seteuid(int(sys.argv[2]))
fsio.atomic_write(sys.argv[1], b"new")
"""
        with process(script, path, NOBODY) as child:
            assert child.wait(timeout=60) == 0
        assert path.read_bytes() == b"new"
        assert mode_of(path) == 0o640
        assert names(folder) == ["file"]


def test_readers_and_a_kill_see_one_content_or_the_other(tmp_path):
    path = tmp_path / "file"
    size = 300_000
    path.write_bytes(b"a" * size)
    script = """
import sys
from wkdask import fsio
print("ready", flush=True)
while True:
    for letter in (b"b", b"a"):
        fsio.atomic_write(sys.argv[1], letter * int(sys.argv[2]))
"""
    seen = set()
    with process(script, path, size) as child:
        assert child.stdout.readline() == "ready\n"
        end = time.monotonic() + 60
        for number in itertools.count():
            data = path.read_bytes()
            assert data in (b"a" * size, b"b" * size)
            seen.add(data[:1])
            if number > 1000 and len(seen) == 2:
                break
            assert time.monotonic() < end
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert path.read_bytes() in (b"a" * size, b"b" * size)
    assert all(name == "file" or name.startswith(".file.") for name in names(tmp_path))  # hidden leftovers


# replace_keeping_mode


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444, 0o755])
def test_replace_keeps_the_mode(tmp_path, mode):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    target.chmod(mode)
    fsio.replace_keeping_mode(str(source), str(target))
    assert target.read_bytes() == b"new"
    assert mode_of(target) == mode
    assert names(tmp_path) == ["target"]


def test_replace_where_nothing_was(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    source.chmod(0o604)
    fsio.replace_keeping_mode(str(source), str(target))
    assert target.read_bytes() == b"new"
    assert mode_of(target) == 0o604


@needs_root
@pytest.mark.parametrize("mode", [0o2664, 0o2755, 0o6755])
def test_replace_keeps_group_and_setgid(tmp_path, mode):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    os.chown(target, -1, GROUP)
    target.chmod(mode)  # chown clears these bits: the order matters
    fsio.replace_keeping_mode(str(source), str(target))
    assert (os.stat(target).st_gid, mode_of(target)) == (GROUP, mode)


# fsync


def test_fsync(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"x")
        path.chmod(0o444)
    fsio.fsync_files(map(str, paths))
    fsio.fsync_folder(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        fsio.fsync_files([str(tmp_path / "missing")])
    with pytest.raises(NotADirectoryError):
        fsio.fsync_folder(str(paths[0]))
    assert open_below(tmp_path) == []


# space


def test_free_bytes(tmp_path, small_disk):
    space = os.statvfs(tmp_path)
    assert 0 < fsio.free_bytes(str(tmp_path)) <= space.f_blocks * space.f_frsize
    assert fsio.free_bytes(str(small_disk)) == 64 << 10
    (small_disk / "file").write_bytes(bytes(5000))
    assert fsio.free_bytes(str(small_disk)) == 56 << 10
    with pytest.raises(FileNotFoundError):
        fsio.free_bytes(str(tmp_path / "missing"))


# locks

COUNT = """
import sys, time
from pathlib import Path
from wkdask import fsio
lock, counter, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(times):
    with fsio.lock(lock):
        number = int(counter.read_text())
        time.sleep(0.0005)
        counter.write_text(str(number + 1))
"""

HOLD = """
import sys
from wkdask import fsio
with fsio.lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
print("freed", flush=True)
sys.stdin.readline()
"""


def test_a_lock_excludes_processes(tmp_path):
    lock, counter = tmp_path / "lock", tmp_path / "counter"
    counter.write_text("0")
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(process(COUNT, lock, counter, 100)) for _ in range(3)]
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:  # all at once
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            assert child.wait(timeout=60) == 0
    assert counter.read_text() == "300"


def test_a_lock_excludes_threads(tmp_path):
    lock, counter = str(tmp_path / "lock"), tmp_path / "counter"
    counter.write_text("0")

    def count():
        for _ in range(50):
            with fsio.lock(lock):
                number = int(counter.read_text())
                time.sleep(0.0005)
                counter.write_text(str(number + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counter.read_text() == "200"


def test_a_held_lock_times_out_and_a_freed_one_is_taken(tmp_path):
    lock = str(tmp_path / "lock")
    with process(HOLD, lock) as child:
        assert child.stdout.readline() == "held\n"
        for timeout in (0, 0.2):
            start = time.monotonic()
            with (
                pytest.raises(LockTimeoutError, match="still held by another process") as caught,
                fsio.lock(lock, timeout),
            ):
                pytest.fail("two processes hold the lock")
            assert timeout <= time.monotonic() - start < timeout + 5
            assert lock in str(caught.value)
            assert isinstance(caught.value, TimeoutError)
        child.stdin.write("free\n")
        child.stdin.flush()
        assert child.stdout.readline() == "freed\n"
        with fsio.lock(lock, timeout=0):  # the process lives on
            pass


def test_a_kill_frees_the_lock(tmp_path):
    lock = str(tmp_path / "lock")
    with process(HOLD, lock) as child:
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
        with fsio.lock(lock, timeout=0):
            pass


def test_a_waiting_process_gets_the_lock_of_a_killed_one(tmp_path):
    lock = str(tmp_path / "lock")
    with process(HOLD, lock) as holder, process(HOLD, lock) as waiter:
        ready, _, _ = select.select([holder.stdout, waiter.stdout], [], [], 60)
        if waiter.stdout in ready:  # the second was faster
            holder, waiter = waiter, holder
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        assert waiter.stdout.readline() == "held\n"


def test_an_error_inside_frees_the_lock(tmp_path):
    lock = str(tmp_path / "lock")
    with pytest.raises(KeyError, match="inside"), fsio.lock(lock):
        raise KeyError("inside")
    with fsio.lock(lock, timeout=0):
        pass
    assert open_below(tmp_path) == []


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    script = """
import os, signal, sys, time
from wkdask import fsio
with fsio.lock(sys.argv[1]):
    child = os.fork()  # holds a copy of the descriptor
    if not child:
        time.sleep(60)
        os._exit(0)
try:
    with fsio.lock(sys.argv[1], timeout=0):
        print("taken", flush=True)
finally:
    os.kill(child, signal.SIGKILL)
"""
    with process(script, tmp_path / "lock") as child:
        assert child.stdout.readline() == "taken\n"


def test_a_lock_does_not_pass_to_started_programs(tmp_path):
    with fsio.lock(str(tmp_path / "lock")):
        done = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True
        )
    assert "lock" not in done.stdout.replace(".lock", "")


def test_a_lock_file_stays(tmp_path):
    lock = tmp_path / "lock"
    for _ in range(2):
        with fsio.lock(str(lock)):
            inode = lock.stat().st_ino
    assert lock.stat().st_ino == inode
    with pytest.raises(FileNotFoundError), fsio.lock(str(tmp_path / "missing" / "lock")):
        pytest.fail("there is nothing to lock")


@pytest.mark.timeout(60)
def test_locks_in_opposite_orders_do_not_deadlock(tmp_path):
    first, second, third = (str(tmp_path / name) for name in "abc")
    done = []

    def work(*paths):
        for _ in range(100):
            with fsio.locks(paths, timeout=30):
                done.append(paths)

    orders = [(first, second, third), (third, second, first), (second, third, first)]
    threads = [threading.Thread(target=work, args=order) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert len(done) == 300


def test_locks_hold_them_all(tmp_path):
    paths = [str(tmp_path / name) for name in "ba"]
    with fsio.locks(paths):
        for path in paths:
            with pytest.raises(LockTimeoutError), fsio.lock(path, timeout=0):
                pytest.fail("held twice")
    with fsio.locks(paths, timeout=0):
        pass
    with fsio.locks([]):
        pass


def test_locks_give_back_what_they_took_before_they_failed(tmp_path):
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    with fsio.lock(second):
        with pytest.raises(LockTimeoutError, match=second), fsio.locks([second, first], timeout=0):
            pytest.fail("held twice")
        with fsio.lock(first, timeout=0):
            pass


def test_one_lock_under_two_names_is_taken_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    names_of_it = [str(tmp_path / "real" / "a"), str(tmp_path / "link" / "a"), f"{tmp_path}/real/../real/a"]
    with fsio.locks([*names_of_it, names_of_it[0]], timeout=0.1):
        pass


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, 600), (2, 2), (0.5, 0.5), ("90s", 90), ("2 minutes", 120)]
)
def test_the_timeout_is_configured(value, seconds):
    with dask.config.set({} if value is None else {"wkdask.lock-timeout": value}):
        assert fsio.lock_timeout() == seconds


def test_a_lock_waits_as_long_as_is_configured(tmp_path):
    lock = str(tmp_path / "lock")
    with fsio.lock(lock), dask.config.set({"wkdask.lock-timeout": "100ms"}):
        start = time.monotonic()
        with pytest.raises(LockTimeoutError), fsio.lock(lock):
            pytest.fail("held twice")
        assert 0.1 <= time.monotonic() - start < 5


# large files


@pytest.mark.parametrize("size", [0, 1 << 20, 5 << 20])
def test_a_large_copy_is_flushed_while_it_is_made(tmp_path, monkeypatch, size):
    monkeypatch.setattr(fsio, "LARGE_NBYTES", 4 << 20)
    data = random.Random(1).randbytes(size)
    (tmp_path / "a").write_bytes(data)
    before = threading.active_count()
    fsio.copy_sparse(str(tmp_path / "a"), str(tmp_path / "b"), flushed=True)
    assert (tmp_path / "b").read_bytes() == data
    assert threading.active_count() == before
    (tmp_path / "c").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        fsio.copy_sparse(str(tmp_path / "a"), str(tmp_path / "c"), flushed=True)


def test_a_full_disk_stops_a_flushed_copy(small_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(fsio, "LARGE_NBYTES", 1)
    (tmp_path / "a").write_bytes(bytes(200_000))
    with pytest.raises(OSError, match="No space left"):
        fsio.copy_sparse(str(tmp_path / "a"), str(small_disk / "b"), flushed=True)


def test_a_replaced_file_is_freed_later(tmp_path, monkeypatch):
    monkeypatch.setattr(fsio, "LARGE_NBYTES", 1)
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(name.encode() * 3000)
    with fsio.freed_later(str(tmp_path / "old")):
        os.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"new" * 3000
    end = time.monotonic() + 30
    while open_below(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.01)
    with fsio.freed_later(str(tmp_path / "missing")):
        pass
    with pytest.raises(ZeroDivisionError), fsio.freed_later(str(tmp_path / "old")):
        1 / 0


# copy_sparse

EXTENTS = st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=9000)), max_size=6)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EXTENTS, st.integers(0, 2**20))
def test_copies_are_equal(extents, size):
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "a"), os.path.join(folder, "b")
        expected = bytearray(max([size, *(start + len(data) for start, data in extents)]))
        with open(source, "wb") as file:
            file.truncate(len(expected))
            for start, data in extents:
                file.seek(start)
                file.write(data)
                expected[start : start + len(data)] = data
        fsio.copy_sparse(source, target)
        assert expected == Path(target).read_bytes()
        assert expected == Path(source).read_bytes()
        assert os.stat(target).st_blocks <= os.stat(source).st_blocks + 16


def test_holes_stay_holes(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    size = 64 << 20
    with open(source, "wb") as file:
        file.truncate(size)
        for start in (0, 31 << 20, size - 5):
            file.seek(start)
            file.write(b"voxel")
    if os.stat(source).st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no holes")
    fsio.copy_sparse(str(source), str(target))
    fsio.fsync_files([str(target)])
    assert os.stat(target).st_size == size
    assert os.stat(target).st_blocks * 512 <= 1 << 20
    with open(source, "rb") as one, open(target, "rb") as other:
        while data := one.read(1 << 20):
            assert data == other.read(1 << 20)


def test_a_file_of_one_hole_and_an_empty_one(tmp_path):
    for number, size in enumerate((0, 64 << 20)):
        source, target = tmp_path / f"a{number}", tmp_path / f"b{number}"
        source.touch()
        os.truncate(source, size)
        fsio.copy_sparse(str(source), str(target))
        assert os.stat(target).st_size == size
        assert os.stat(target).st_blocks == os.stat(source).st_blocks == 0


def test_copies_between_file_systems(tmp_path):
    # the kernel refuses copy_file_range here, or copies itself: the bytes are the same
    others = [
        folder
        for folder in ("/dev/shm", "/var/tmp")
        if os.access(folder, os.W_OK) and os.stat(folder).st_dev != os.stat(tmp_path).st_dev
    ]
    if not others:
        pytest.skip("there is no second file system")
    data = random.Random(5).randbytes(3 << 20)
    with tempfile.TemporaryDirectory(dir=others[0]) as folder:
        there, back = Path(folder, "a"), tmp_path / "b"
        with open(tmp_path / "a", "wb") as file:
            file.seek(20 << 20)
            file.write(data)
        fsio.copy_sparse(str(tmp_path / "a"), str(there))
        fsio.copy_sparse(str(there), str(back))
        assert back.read_bytes() == there.read_bytes() == bytes(20 << 20) + data
        assert os.stat(there).st_blocks * 512 <= 4 << 20
        assert os.stat(back).st_blocks * 512 <= 4 << 20


def test_a_copy_does_not_overwrite(tmp_path):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        fsio.copy_sparse(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"old"


@pytest.mark.timeout(20)
def test_a_copy_of_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "dangling", "folder"):
        with pytest.raises(OSError, match=r".") as caught:
            fsio.copy_sparse(str(tmp_path / name), str(tmp_path / "copy"))
        assert not isinstance(caught.value, FileNotFoundError)  # a partial write would begin with zeros
        assert not (tmp_path / "copy").exists()
    with pytest.raises(FileNotFoundError):
        fsio.copy_sparse(str(tmp_path / "missing"), str(tmp_path / "copy"))


def test_a_full_disk_stops_a_copy(small_disk, tmp_path):
    (tmp_path / "a").write_bytes(bytes(200_000))
    with pytest.raises(OSError, match="No space left"):
        fsio.copy_sparse(str(tmp_path / "a"), str(small_disk / "b"))


# remove_folder


def make_tree(folder):
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_bytes(b"x")
    (folder / "file").write_bytes(b"x")
    return folder


@pytest.mark.parametrize("end", ["", "/"])
def test_remove_folder(tmp_path, end):
    make_tree(tmp_path / "mag")
    make_tree(tmp_path / "mag2")
    fsio.remove_folder(str(tmp_path / "mag") + end)
    assert names(tmp_path) == ["mag2"]
    fsio.remove_folder(str(tmp_path / "mag"))  # gone already
    assert names(tmp_path) == ["mag2"]


def test_remove_folder_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_tree(tmp_path / "mag")
    fsio.remove_folder("mag")
    assert names(tmp_path) == []


def test_a_late_writer_fails(tmp_path):
    script = """
import os, sys
folder = sys.argv[1]
open(os.path.join(folder, "cube"), "wb").close()
print("built", flush=True)
sys.stdin.readline()
try:
    os.replace(os.path.join(folder, "cube"), sys.argv[2])
except FileNotFoundError:
    print("too late", flush=True)
"""
    folder = make_tree(tmp_path / "job")
    with process(script, folder, tmp_path / "published") as child:
        assert child.stdout.readline() == "built\n"
        fsio.remove_folder(str(folder))
        child.stdin.write("publish\n")
        child.stdin.flush()
        assert child.stdout.readline() == "too late\n"
    assert names(tmp_path) == []


def test_writers_that_go_on_leave_no_visible_folder(tmp_path):
    # files keep appearing while the folder is removed; the name is gone at once and does not come back
    folder = make_tree(tmp_path / "job")
    stop, failed = threading.Event(), threading.Event()

    def write():
        for number in range(10**9):
            if stop.is_set():
                return
            try:
                (folder / f"cube{number}").write_bytes(b"x")
            except FileNotFoundError:
                failed.set()
                return

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    fsio.remove_folder(str(folder))
    assert not folder.exists()
    assert failed.wait(30)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not folder.exists()
    assert all(name.startswith(".") for name in names(tmp_path))


def test_of_a_link_only_the_link_goes(tmp_path):
    make_tree(tmp_path / "foreign")
    (tmp_path / "mag").symlink_to("foreign")
    fsio.remove_folder(str(tmp_path / "mag"))
    assert names(tmp_path) == ["foreign"]
    assert names(tmp_path / "foreign") == ["deep", "file"]


def test_links_inside_are_not_followed(tmp_path):
    make_tree(tmp_path / "foreign")
    make_tree(tmp_path / "mag")
    (tmp_path / "mag" / "link").symlink_to(tmp_path / "foreign")
    fsio.remove_folder(str(tmp_path / "mag"))
    assert names(tmp_path) == ["foreign"]
    assert names(tmp_path / "foreign") == ["deep", "file"]


# --- folders ------------------------------------------------------------------------------------------


def test_folders_are_made_below_a_root_that_is_there(tmp_path):
    deep = tmp_path / "root" / "c" / "0" / "7"
    with pytest.raises(FileNotFoundError):
        fsio.make_folders(str(tmp_path / "root"), str(deep))
    assert not (tmp_path / "root").exists()
    (tmp_path / "root" / "c").mkdir(parents=True)
    expected = [str(path) for path in (deep.parents[2], deep.parents[1], deep.parents[0], deep)]
    for _ in range(2):
        assert fsio.make_folders(str(tmp_path / "root"), str(deep)) == expected
        assert deep.is_dir()
