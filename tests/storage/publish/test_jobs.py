"""A job's folder apart from publication (see test_publish): its lock, its scratch roots, how it ends."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import wkdask
from wkdask.errors import DamagedHeaderError, JobEndedError, LockTimeoutError, ReadOnlyError
from wkdask.fsio import lock
from wkdask.storage.publish.jobs import check_alive, job_folder, of_living_job
from wkdask.storage.publish.locks import Attempt


@pytest.fixture
def store(make_mag):
    return make_mag().place.store


def root_of(store, folder):
    return Attempt().root(store, folder)


def names(store):
    return sorted(os.listdir(f"{store.path}/.wkdask"))


def test_a_job_is_locked_while_it_lives(store):
    with job_folder(store) as folder:
        assert os.path.dirname(folder) == f"{store.path}/.wkdask"
        check_alive(folder)
        with pytest.raises(LockTimeoutError), lock(f"{folder}/alive", timeout=0):
            pass
    with pytest.raises(JobEndedError, match="publishes nothing"):
        check_alive(folder)


def test_the_error_of_a_job_is_not_hidden_by_its_end(store):
    def work():
        with job_folder(store) as folder:
            os.rename(folder, f"{folder}.elsewhere")  # as an impatient user does
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        work()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_says_read_only(store):
    os.chmod(store.path, stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(ReadOnlyError, match="cannot be written"), job_folder(store):
            pass
    finally:
        os.chmod(store.path, 0o755)


NOBODY = """if True:
    import os, sys
    from wkdask.errors import ReadOnlyError
    from wkdask.storage.publish.jobs import job_folder
    from wkdask.storage.wkw.mag import WkwMag
    store = WkwMag.open(sys.argv[1])
    os.setresuid(65534, 65534, 65534)
    try:
        with job_folder(store):
            print("made")
    except ReadOnlyError as error:
        print(error)"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become nobody")
def test_another_user_is_told_that_the_mag_is_read_only(store):
    for parent in Path(store.path).parents[:-2]:  # the folders of pytest are closed to others
        os.chmod(parent, os.stat(parent).st_mode | 0o055)
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, store.path], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{store.path} cannot be written to: Permission denied"
    assert not os.path.exists(f"{store.path}/.wkdask")


def test_a_thread_keeps_its_root_for_the_job(store):
    with job_folder(store) as first, job_folder(store) as second:
        root = root_of(store, first)
        assert os.path.dirname(root) == first
        assert os.path.isfile(f"{root}/header.wkw")
        assert root_of(store, first) == root
        other = root_of(store, second)
        assert os.path.dirname(other) == second
        found = []
        thread = threading.Thread(target=lambda: found.append(root_of(store, first)))
        thread.start()
        thread.join()
        assert found[0] not in (root, other)
        assert os.path.dirname(found[0]) == first
    with job_folder(store) as third:
        assert os.path.dirname(root_of(store, third)) == third


def test_roots_of_many_jobs_are_forgotten(store):
    for _ in range(40):
        with job_folder(store) as folder:
            assert os.path.dirname(root_of(store, folder)) == folder
    from wkdask.storage.publish.locks import _local

    assert len(_local.roots) <= 17
    assert names(store) == ["locks"]


def test_a_job_that_has_ended_has_no_roots(store):
    with job_folder(store) as folder:
        pass
    with pytest.raises(FileNotFoundError):
        root_of(store, folder)
    assert names(store) == ["locks"]


def test_errors_of_the_jobs_end_say_so_and_others_stay(store):
    with job_folder(store) as folder:
        with pytest.raises(FileNotFoundError, match="other"), of_living_job(folder):
            raise FileNotFoundError(errno.ENOENT, "other", "x")
        with pytest.raises(ZeroDivisionError), of_living_job(folder):
            1 / 0
    for error in (FileNotFoundError(errno.ENOENT, "gone", folder), DamagedHeaderError("gone")):
        with pytest.raises(JobEndedError) as caught, of_living_job(folder):
            raise error
        assert caught.value.__cause__ is error
    with pytest.raises(ZeroDivisionError), of_living_job(folder):
        1 / 0


def test_what_a_late_task_makes_anew_is_removed(store):
    with job_folder(store) as folder:
        pass
    os.makedirs(f"{folder}/root/z0")
    with pytest.raises(JobEndedError):
        check_alive(folder)
    assert names(store) == ["locks"]
    (Path(store.path) / ".wkdask" / "precious").mkdir()
    with pytest.raises(JobEndedError):
        check_alive(f"{store.path}/.wkdask/precious")  # no job's name
    assert names(store) == ["locks", "precious"]


def test_many_jobs_begin_and_end_at_once(store):
    errors = []

    def work():
        try:
            for _ in range(10):
                with job_folder(store) as folder:
                    check_alive(folder)
                    root_of(store, folder)
                    check_alive(folder)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names(store) == ["locks"]
