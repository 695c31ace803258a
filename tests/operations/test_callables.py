"""A user's function on workers: one that they cannot import fails the job at once, and the next job runs."""

import sys
import types

import numpy as np
import pytest

from wkdask.errors import TaskFailedError


@pytest.fixture
def only_here():
    """Return a function of a module that this process has, and no worker."""
    module = types.ModuleType("a_module_of_the_driver")
    exec("def total(block): return int(block.sum())", module.__dict__)
    sys.modules[module.__name__] = module
    yield module.total
    del sys.modules[module.__name__]


@pytest.mark.cluster
@pytest.mark.timeout(60)
def test_a_function_that_workers_cannot_import_fails_the_job(make_mag, client, only_here):
    mag = make_mag()
    mag.write(np.ones((40, 40, 40), "uint8"))
    with pytest.raises(TaskFailedError, match="cannot import the function") as failed:
        list(mag.map_cubes(only_here))
    assert "a_module_of_the_driver" in str(failed.value)
    with pytest.raises(TaskFailedError, match=r"cannot import the function.*upload_file"):
        mag.map_chunk(only_here, chunk_shape=(32, 32, 32))
    assert sum(mag.map_cubes(lambda block: int(block.sum()))) == 40**3
