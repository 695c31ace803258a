"""Levels of a pyramid, where it is cut into passes, and what is stale after a write."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyramid_oracle import oracle
from thorough import examples

from wkdask import BoundingBox, Mag, Vec3Int
from wkdask.errors import InvalidValueError
from wkdask.pyramid.levels import boxes_to_redo, disjoint, levels_of, passes_of
from wkdask.storage.protocol import ArraySpec

SPEC = ArraySpec("uint8", 1, Vec3Int(16, 16, 16), Vec3Int(32, 32, 32), None)
BOX = BoundingBox((3, 5, 7), (100, 60, 40))


def levels(*mags, box=BOX):
    first, *rest = (Mag(mag) for mag in mags)
    return levels_of((first, SPEC), [(mag, SPEC) for mag in rest], box)


def test_boxes_are_aligned_outwards_to_each_mag():
    found = levels(1, "2-2-1", "4-4-2")
    assert [level.box for level in found] == [
        BOX,
        BoundingBox((1, 2, 7), (51, 31, 40)),
        BoundingBox((0, 1, 3), (26, 16, 21)),
    ]
    assert [tuple(level.step) for level in found] == [(1, 1, 1), (2, 2, 1), (4, 4, 2)]
    assert [tuple(level.factors) for level in found] == [(1, 1, 1), (2, 2, 1), (2, 2, 2)]
    assert found[1].within(BoundingBox((0, 0, 0), (64, 64, 32))) == BoundingBox((1, 2, 7), (31, 30, 25))
    for bad in [(2, 1), (2, "4-1-4"), (2, 2)]:
        with pytest.raises(InvalidValueError, match="cannot be computed"):
            levels(*bad)


@pytest.mark.parametrize(
    ("mags", "reaches", "passes"),
    [
        ((1, 2, 4, 8), False, [(1, 2, 4, 8)]),
        ((1, 4, 8), False, [(1, 4, 8)]),  # the first step reads: any factor will do
        ((1, 2, 8, 16), False, [(1, 2), (2, 8, 16)]),
        ((1, 2, 4), True, [(1, 2), (2, 4)]),
        (("2-2-1", "4-4-1", "8-8-4"), False, [("2-2-1", "4-4-1"), ("4-4-1", "8-8-4")]),
    ],
)
def test_a_step_that_looks_beyond_its_window_begins_a_pass(mags, reaches, passes):
    found = passes_of(levels(*mags), reaches)
    assert [[str(level.mag) for level in part] for part in found] == [list(map(str, part)) for part in passes]
    for part in found:
        assert part[0].step == Vec3Int.full(1)
        assert part[-1].step == part[-1].mag.to_vec3_int() // part[0].mag.to_vec3_int()


boxes = st.builds(BoundingBox, st.tuples(*[st.integers(0, 20)] * 3), st.tuples(*[st.integers(0, 9)] * 3))


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(boxes, max_size=8))
def test_disjoint_boxes_cover_the_same(given_boxes):
    wanted, covered = np.zeros((30, 30, 30), int), np.zeros((30, 30, 30), int)
    for box in given_boxes:
        wanted[box.to_slices()] = 1
    for box in disjoint(given_boxes):
        covered[box.to_slices()] += 1
    assert covered.max() <= 1
    assert (covered >= wanted).all()
    if wanted.sum() == sum(box.volume() for box in given_boxes):  # none overlapped
        assert (covered == wanted).all()


@settings(max_examples=examples(60), deadline=None)
@example(
    (7, 0, 0), (1, 1, 1), (8, 0, 0), (1, 1, 1), ((4, 1, 2), (2, 2, 2))
)  # mirrored into the window beside its own
@given(
    st.tuples(*[st.integers(0, 9)] * 3),
    st.tuples(*[st.integers(1, 14)] * 3),
    st.tuples(*[st.integers(0, 16)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from([((2, 2, 2), (2, 2, 2)), ((2, 2, 1), (2, 2, 2)), ((4, 1, 2), (2, 2, 2))]),
)
def test_all_that_a_write_makes_stale_is_redone(corner, size, at, extent, chain):
    """Voxels of mag 1 are written, the box grows: whatever differs in a coarse mag is in the boxes to redo."""
    rng = np.random.default_rng(0)
    old, written = BoundingBox(corner, size), BoundingBox(at, extent)
    new = old.extended_by(written)
    before = rng.integers(1, 99, (1, *old.size)).astype("uint8")
    after = np.zeros((1, *new.size), "uint8")
    after[(slice(None), *old.to_slices(new.topleft))] = before
    after[(slice(None), *written.to_slices(new.topleft))] = rng.integers(100, 200, extent)
    mags = [Vec3Int(1, 1, 1)]
    for factors in chain:
        mags.append(mags[-1] * factors)
    stale = boxes_to_redo([written], old, new, levels(*mags, box=new))
    old_low, new_low = tuple(old.topleft), tuple(new.topleft)
    step = Vec3Int(1, 1, 1)
    for factors in chain:
        step = step * factors
        before, old_low = oracle(before, old_low, factors, "max")
        after, new_low = oracle(after, new_low, factors, "max")
        kept = np.zeros(after.shape, "uint8")  # what was not there is zero, as in a file
        there = BoundingBox(old_low, before.shape[1:])
        kept[(slice(None), *there.to_slices(new_low))] = before
        redone = np.zeros(after.shape, bool)
        for box in stale:
            inside = box.intersection(BoundingBox(Vec3Int(new_low) * step, Vec3Int(after.shape[1:]) * step))
            part = BoundingBox(inside.topleft // step, inside.size // step)
            redone[(slice(None), *part.to_slices(new_low))] = True
        assert not ((kept != after) & ~redone).any()
