"""The tree of a pyramid: each voxel made once, each cube published once, what is needed comes first, memory."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from wkdask import BoundingBox, Mag, Vec3Int
from wkdask.errors import PlanError
from wkdask.pyramid import plan as pyramid_plan
from wkdask.pyramid.levels import levels_of, passes_of
from wkdask.pyramid.plan import plan_tree
from wkdask.storage.protocol import ArraySpec

GIB = 1 << 30


def spec(side, dtype="uint8", compression=None, chunk=32):
    return ArraySpec(dtype, 1, Vec3Int.full(min(chunk, side)), Vec3Int.full(side), compression)


def pyramid(size, sides, corner=(0, 0, 0), mags=(1, 2, 4, 8), dtype="uint8", compression=None):
    """Return the levels of a layer."""
    cuts = [spec(side, dtype, compression) for side in sides]
    source, *targets = zip(map(Mag, mags), cuts, strict=True)
    return levels_of(source, targets, BoundingBox(corner, size))


def summary(plan):
    return [(tuple(tier.shape), tier.first, tier.last, sorted(tier.staged)) for tier in plan.tiers]


def check(plan):
    """Check what holds for every tree, and return its nodes."""
    nodes = list(plan.nodes())
    assert len(nodes) == plan.num_nodes
    by_key = {node.key: node for node in nodes}
    assert len(by_key) == len(nodes)
    seen, freed = set(), set()
    made = [np.zeros(level.box.size, np.uint8) for level in plan.levels]
    published: list[dict] = [{} for _ in plan.levels]
    for node in nodes:
        assert seen.issuperset(node.needs)
        assert seen.issuperset(node.after)
        assert not freed & {*node.needs, *node.after}
        assert all(by_key[key].parent == node.key for key in node.needs)
        assert all(by_key[key].awaited for key in node.after)
        seen.add(node.key)
        freed.update(node.frees)
        tier = plan.tiers[node.tier]
        if node.publishes is not None:
            level = plan.levels[node.publishes]
            (index,) = set(level.spec.grid.cubes(level.within(node.boxes[0])))
            # every part of the cube has been written
            writers = [key for key in seen if node.publishes in plan.tiers[by_key[key].tier].staged]
            touching = [
                key
                for key in writers
                if by_key[key].publishes is None
                and any(not a.intersection(b).is_empty() for a in by_key[key].boxes for b in node.boxes)
            ]
            assert set(touching) == set(node.after)
            published[node.publishes].setdefault(index, []).append(node.key)
            continue
        for number in range(tier.first, tier.last + 1):
            level = plan.levels[number]
            for box in map(level.within, node.boxes):
                made[number][box.to_slices(level.box.topleft)] += 1
                if number not in tier.staged:
                    for index in set(level.spec.grid.cubes(box)):
                        published[number].setdefault(index, []).append(node.key)
                else:  # no two tasks write into one chunk
                    for corner, size, chunk, low, high in zip(
                        box.topleft, box.size, level.spec.chunk_shape, level.box.topleft, level.box.bottomright,
                        strict=True,
                    ):  # fmt: skip
                        assert corner % chunk == 0 or corner == low
                        assert (corner + size) % chunk == 0 or corner + size == high
    for number, level in enumerate(plan.levels[1:], start=1):
        wanted = np.zeros(level.box.size, np.uint8)
        for box in plan.boxes:
            wanted[level.within(box).to_slices(level.box.topleft)] = 1
        assert np.array_equal(made[number], wanted)
        cubes = {index for box in plan.boxes for index in level.spec.grid.cubes(level.within(box))}
        assert set(published[number]) == cubes
        assert all(len(set(owners)) == 1 for owners in published[number].values())
    assert freed == {node.key for node in nodes if node.awaited}
    return nodes


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_every_tree_makes_each_voxel_and_publishes_each_cube_once(data):
    draw = data.draw
    mags = [Mag(1)]
    for _ in range(draw(st.integers(1, 4))):
        factors = draw(st.sampled_from([(2, 2, 2), (2, 2, 1), (1, 2, 2), (2, 1, 1), (4, 4, 2)]))
        mags.append(Mag(mags[-1].to_vec3_int() * factors))
    sides = [draw(st.sampled_from([8, 16, 32, 64])) for _ in mags]
    compressions = [draw(st.sampled_from([None, "lz4"])) for _ in mags]
    cuts = [spec(side, "uint8", lz4, chunk=8) for side, lz4 in zip(sides, compressions, strict=True)]
    box = BoundingBox(draw(st.tuples(*[st.integers(0, 70)] * 3)), draw(st.tuples(*[st.integers(1, 130)] * 3)))
    source, *targets = zip(mags, cuts, strict=True)
    memory = draw(st.sampled_from([None, 1 << 14, 1 << 16, 1 << 18, 1 << 20]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid_plan, "LEAF_NBYTES", draw(st.sampled_from([1 << 11, 1 << 15, 1 << 18])))
        patch.setattr(pyramid_plan, "_LEAST_LEAF_NBYTES", draw(st.sampled_from([1 << 9, 1 << 13])))
        for part in passes_of(levels_of(source, targets, box), reaches=False):
            boxes = None
            if draw(st.booleans()):
                corners = [
                    draw(st.tuples(*[st.integers(0, n - 1) for n in part[0].box.size])) for _ in range(3)
                ]
                boxes = [
                    BoundingBox(part[0].box.topleft + corner, (9, 5, 3)).intersection(part[0].box)
                    for corner in corners
                ]
            try:
                plan = plan_tree(part, boxes, threads=draw(st.integers(1, 3)), memory=memory)
            except PlanError:
                assert memory is not None
                continue
            assert memory is None or plan.task_nbytes <= memory
            check(plan)


def test_small_cubes_are_whole_sub_trees():
    plan = plan_tree(pyramid((2048, 2048, 1024), [64] * 4), threads=4)
    assert summary(plan) == [((512, 512, 512), 1, 3, [])]
    assert plan.task_nbytes < 64 << 20
    assert plan.num_nodes == 32


def test_large_cubes_are_nodes_of_their_own():
    plan = plan_tree(pyramid((16384, 16384, 16384), [1024] * 4), threads=4, memory=8 * GIB)
    # a leaf fills one cube of mag 2 from 8 GiB; above, a node takes the halves of its eight children
    assert summary(plan) == [
        ((2048, 2048, 2048), 1, 1, []),
        ((4096, 4096, 4096), 2, 2, []),
        ((8192, 8192, 8192), 3, 3, []),
    ]
    assert plan.num_nodes == 512 + 64 + 8
    tiers = [node.tier for node in plan.nodes()]
    leaves_before = [tiers[: tiers.index(tier)].count(0) for tier in (1, 2)]
    assert leaves_before == [8, 64]  # depth first


def test_few_large_cubes_are_shared_among_threads():
    plan = plan_tree(pyramid((1024, 1024, 1024), [1024] * 4), threads=2)
    assert summary(plan)[0] == ((512, 512, 512), 1, 0, [])
    assert len([node for node in check(plan) if node.tier == 0]) == 8


@pytest.mark.slow
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_cubes_that_no_task_can_hold_are_written_in_parts(compression):
    levels = pyramid((8192, 8192, 8192), [1024] * 4, dtype="uint64", compression=compression)
    plan = plan_tree(levels, threads=4, memory=GIB)
    assert plan.task_nbytes <= GIB
    assert plan.tiers[0].staged == {1, 2, 3}
    assert sum(node.publishes is not None for node in plan.nodes()) == 64 + 8 + 1
    # on the way lie no more than 1 GiB for each thread, however the memory is: no task ever holds a cube of 8 GiB


def test_what_no_task_can_hold_is_refused():
    levels = pyramid((8192, 8192, 8192), [1024] * 4, dtype="uint64")
    with pytest.raises(PlanError, match=r"1024, 1024, 1024.*task_memory="):
        plan_tree(levels, threads=4, memory=GIB // 64)
    assert plan_tree(levels, threads=4, memory=GIB // 64, task_memory=1).task_nbytes == 1


def test_less_memory_means_smaller_nodes():
    levels = pyramid((8192, 8192, 8192), [256] * 4, dtype="uint32")
    plans = [plan_tree(levels, threads=2, memory=memory) for memory in (None, GIB, GIB // 6)]
    for plan, memory in zip(plans[1:], (GIB, GIB // 6), strict=True):
        assert plan.task_nbytes <= memory
    assert plans[0].num_nodes <= plans[-1].num_nodes


def test_the_first_node_of_an_endless_tree_comes_at_once():
    levels = pyramid((1 << 30, 1 << 30, 1 << 20), [1024] * 4)
    plan = plan_tree(levels, threads=1000, memory=8 * GIB)
    first = next(plan.nodes())
    assert first.tier == 0
    assert plan.num_nodes > 10**11
    assert plan.nbytes > 10**20


def test_what_lies_between_two_boxes_is_not_touched():
    levels = pyramid((4096, 4096, 64), [64] * 4)
    boxes = [BoundingBox((0, 0, 0), (8, 8, 8)), BoundingBox((4000, 4000, 56), (8, 8, 8))]
    plan = plan_tree(levels, boxes, threads=2)
    nodes = check(plan)
    assert sum(len(node.boxes) for node in nodes if node.tier == 0) == 2
    assert plan.nbytes == 2 * (4**3 + 2**3 + 1)
    with pytest.raises(PlanError, match="nothing to compute"):
        plan_tree(levels, [BoundingBox((5000, 0, 0), (8, 8, 8))])


def test_existing_compressed_cubes_count():
    levels = pyramid((512, 512, 512), [512] * 4, compression="lz4")
    rewritten = tuple(replace(level, existing=True) for level in levels)
    assert plan_tree(rewritten).task_nbytes >= plan_tree(levels).task_nbytes
