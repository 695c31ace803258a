"""What users' tests may take: the comparison names what differs, the strategies keep to their limits."""

import doctest

import numpy as np
import pytest
from hypothesis import given

from wkdask import testing
from wkdask.testing import (
    assert_equal_mags,
    boxes,
    boxes_within,
    chunk_layouts,
    dtypes,
    random_voxels,
    small_mag,
)


def test_the_examples_run():
    assert doctest.testmod(testing).attempted >= 8
    assert doctest.testmod(testing).failed == 0


def test_a_difference_is_named(tmp_path):
    voxels = random_voxels((1, 20, 20, 20))
    one, other, wider = (small_mag(tmp_path / name) for name in "abc")
    other_type = small_mag(tmp_path / "d", "uint16")
    for mag in (one, other):
        mag.write(voxels)
    assert_equal_mags(one, other)
    changed = voxels.copy()
    changed[0, 3, 4, 5] ^= 1
    other.write(changed)
    with pytest.raises(AssertionError, match=r"1 of 8000 voxels differ, the first at .* = \(0, 3, 4, 5\)"):
        assert_equal_mags(one, other)
    wider.write(random_voxels((1, 20, 20, 21)))
    with pytest.raises(AssertionError, match="bounding_box"):
        assert_equal_mags(one, wider)
    other_type.write(voxels.astype("uint16"))
    with pytest.raises(AssertionError, match="dtype: uint8 and uint16"):
        assert_equal_mags(one, other_type)


def test_not_a_number_equals_itself(tmp_path):
    voxels = np.full((1, 8, 8, 8), np.nan, "float32")
    mags = [small_mag(tmp_path / name, "float32") for name in "ab"]
    for mag in mags:
        mag.write(voxels)
    assert_equal_mags(*mags)


@given(boxes(2, 9, 50), boxes_within(12, 3))
def test_boxes_keep_to_their_limits(box, within):
    assert all(2 <= side <= 9 for side in box.size)
    assert all(0 <= corner <= 50 for corner in box.topleft)
    assert all(side >= 3 for side in within.size)
    assert all(0 <= low < high <= 12 for low, high in zip(within.topleft, within.bottomright, strict=True))


@pytest.mark.slow
@given(dtypes("segmentation"), chunk_layouts(32))
def test_every_layout_can_be_made(tmp_path_factory, dtype, layout):
    mag = small_mag(tmp_path_factory.mktemp("made") / "ds", dtype, category="segmentation", **layout)
    mag.write(np.ones((5, 6, 7), dtype))
    assert (mag.read() == 1).all()
