"""Chains of mags, and blocks sampled in memory, under the names that scripts of 2021 import."""

import numpy as np
import pytest

from wkdask import COLOR_CATEGORY, SEGMENTATION_CATEGORY, Mag
from wkdask.dataset.downsampling_utils import (
    InterpolationModes,
    calculate_default_coarsest_mag,
    calculate_default_max_mag,
    calculate_mags_to_downsample,
    calculate_mags_to_upsample,
    downsample_cube,
    parse_interpolation_mode,
)
from wkdask.dataset.upsampling_utils import upsample_cube
from wkdask.errors import InvalidValueError

SIZE = (4, 4, 9)


@pytest.mark.parametrize(
    ("mags", "size"),
    [
        (["1", "2-2-1", "4-4-2", "8-8-4"], SIZE),
        (["2", "4-4-2", "8-8-4"], (1, 1, 2)),
        (["1", "2", "4", "8-8-4"], None),
        (["1", "2-2-1", "4-4-1"], None),
    ],
)
def test_a_chain_and_its_reverse(mags, size):
    chain = [Mag(each) for each in mags]
    for more in [(None, size), (size,)]:  # version 4, and 2021
        assert calculate_mags_to_downsample(chain[0], chain[-1], *more) == chain[1:]
        assert calculate_mags_to_upsample(chain[-1], chain[0], *more) == chain[-2::-1]


def test_a_chain_that_follows_another_dataset(new):
    layer = new().add_layer("layer", COLOR_CATEGORY)
    layer.add_mag("2-2-2", shard_shape=32)
    found = calculate_mags_to_downsample(Mag(1), Mag(4), layer.dataset, SIZE)
    assert found == [Mag("2-2-2"), Mag("4-4-2")]  # alone it would be 2-2-1


def test_chains_that_there_are_not():
    with pytest.raises(RuntimeError, match="cannot be reached"):
        calculate_mags_to_downsample(Mag(1), Mag("4-4-16"), None, (10.5, 10.5, 24))
    with pytest.raises(AssertionError, match="finer"):
        calculate_mags_to_downsample(Mag(4), Mag(2), None, None)
    with pytest.raises(InvalidValueError, match="dataset to align with"):
        calculate_mags_to_downsample(Mag(1), Mag(2), 5, SIZE)


def test_the_default_coarsest_mag():
    assert calculate_default_coarsest_mag is calculate_default_max_mag
    assert calculate_default_coarsest_mag((256, 256, 256)) == Mag(4)
    assert calculate_default_coarsest_mag((16384, 65536, 100)) == Mag(1024)


def test_modes_by_their_names():
    assert parse_interpolation_mode("DEFAULT", SEGMENTATION_CATEGORY) is InterpolationModes.MODE
    assert parse_interpolation_mode("default", COLOR_CATEGORY) is InterpolationModes.MEDIAN
    assert parse_interpolation_mode("Max", COLOR_CATEGORY) is InterpolationModes.MAX


@pytest.mark.parametrize("channels", [(), (2,)])
@pytest.mark.parametrize("mode", InterpolationModes)
def test_a_block_of_one_value_stays_so(mode, channels):
    block = np.full((*channels, 8, 4, 2), 7, np.uint16)
    assert np.array_equal(downsample_cube(block, [2, 2, 1], mode), np.full((*channels, 4, 2, 2), 7))


def test_blocks_coarser_and_finer():
    block = np.broadcast_to(np.arange(8, dtype=np.uint8), (4, 4, 8))
    assert np.array_equal(downsample_cube(block, [2, 2, 2], InterpolationModes.MAX)[0, 0], [1, 3, 5, 7])
    finer = upsample_cube(block, [2, 1, 2])
    assert finer.shape == (8, 4, 16)
    assert np.array_equal(finer[3, 2], np.repeat(np.arange(8), 2))
    assert np.array_equal(upsample_cube(block[None], [2, 1, 2]), finer[None])
