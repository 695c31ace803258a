"""Arrays of `dask-array`, where that package is installed."""

import numpy as np
import pytest

from wkdask.arrays.lowered import as_dask_array

dask_array = pytest.importorskip("dask_array")

DATA = np.random.default_rng(0).integers(0, 255, (64, 48, 40), np.uint8)


def test_an_expression_becomes_an_array_of_dask():
    import dask.array as da

    lowered = as_dask_array(255 - dask_array.from_array(DATA, chunks=32))
    assert isinstance(lowered, da.Array)
    np.testing.assert_array_equal(lowered.compute(), 255 - DATA)


@pytest.mark.parametrize("data_format", ["wkw", "zarr3"])
def test_it_is_written(make_mag, data_format):
    mag = make_mag(data_format=data_format)
    mag.write(255 - dask_array.from_array(DATA, chunks=32))
    np.testing.assert_array_equal(mag.read()[0], 255 - DATA)


def test_other_things_stay_as_they_are():
    assert as_dask_array(DATA) is DATA
