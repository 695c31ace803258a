"""What another user may not read is found as that, and ends nothing."""

import os

import pytest
from damage import cubes, sound_dataset

from wkdask.check.run import check_dataset

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def as_nobody(function):
    """Return what a function returns to a user who may only read what all may."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, " ".join(sorted(function())).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as file:
        return {*file.read().split()}


@pytest.mark.parametrize("deep", [False, True])
def test_what_another_user_may_not_read_is_no_damage(tmp_path, deep):
    folder = tmp_path / "ds"
    sound_dataset(folder, "wkw")
    for home in (folder, *folder.parents):
        if str(home).startswith(("/dev/shm/", "/tmp/")):
            os.chmod(home, 0o755)
    check_dataset(folder, deep=deep)  # a child does not compile
    assert as_nobody(lambda: {each.code for each in check_dataset(folder, deep=deep)} | {"looked"}) == {
        "looked"
    }
    os.chmod(cubes(folder)[0], 0o600)
    os.chmod(folder / "cells" / "2", 0o700)
    found = as_nobody(lambda: {each.code for each in check_dataset(folder, deep=deep)})
    assert found == {"no-permission"}
