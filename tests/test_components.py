"""Connected components, cut into blocks and joined again: those of the whole volume, with the same ids."""

import itertools
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wkdask import BoundingBox, label_components
from wkdask.errors import ChannelError, DTypeError, InvalidValueError, PlanError, TaskFailedError
from wkdask.kernels import first_places, label_block

BOX = BoundingBox((100, 37, 5), (90, 70, 61))
CORNERS = {6: 1, 18: 2, 26: 3}


def blobs(shape, density, seed=0, smooth=1):
    """Return a mask of tangled blobs, some of which reach through the whole volume."""
    noise = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return noise > np.quantile(noise, 1 - density)


def reference(mask, connectivity=6):
    """Label the whole volume at once."""
    return ndi.label(mask, ndi.generate_binary_structure(3, CORNERS[connectivity]))


def same_partition(a, b):
    """Tell whether two labellings differ by the names of their ids only."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return len(pairs.T) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


@pytest.fixture
def ids(make_mag):
    """Return a function that makes an empty mag for ids."""
    return lambda dtype="uint64", **options: make_mag(dtype, category="segmentation", **options)


@pytest.fixture
def small_blocks(monkeypatch):
    """Let every block be one cube."""
    import wkdask.components as module

    plan = module.plan_write
    monkeypatch.setattr(module, "plan_write", lambda *args, **options: plan(*args, **options, unit_nbytes=1))


@pytest.fixture
def masked(make_mag):
    """Return a function that writes a mask into a mag."""

    def make(mask, corner=BOX.topleft, **options):
        mag = make_mag(**options)
        box = BoundingBox(corner, mask.shape)
        mag.write(np.asfortranarray(mask.astype("uint8"))[None], bounding_box=box)
        return mag

    return make


@pytest.mark.slow
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
    connectivity=st.sampled_from([6, 18, 26]),
)
@settings(deadline=None)
def test_a_block_against_scipy(shape, density, seed, connectivity):
    mask = np.random.default_rng(seed).random(shape) < density
    expected, count = reference(mask, connectivity)
    labels, firsts = label_block(np.asfortranarray(mask), connectivity)
    assert len(firsts) == count
    order = np.concatenate([[0], 1 + np.argsort(np.argsort(firsts))])
    assert np.array_equal(order[labels], expected)
    assert np.array_equal(first_places(labels), firsts)


@pytest.mark.slow
@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("density", [0.02, 0.15, 0.6])
def test_components_of_a_layer_are_those_of_the_whole(masked, ids, small_blocks, connectivity, density):
    mask = blobs(BOX.size, density)
    expected, count = reference(mask, connectivity)
    mag, target = masked(mask), ids()
    found = label_components(mag, target, connectivity=connectivity)
    assert found.count == count
    assert np.array_equal(target.read()[0], expected)
    assert target.layer.bounding_box == found.report.bounding_box == BOX
    assert found.report.maximum == target.layer.largest_segment_id == count
    assert found.report.bytes == BOX.volume() * 8


@pytest.mark.slow
@given(
    low=st.tuples(st.integers(0, 60), st.integers(0, 50), st.integers(0, 40)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 60)),
    cube=st.sampled_from([16, 32]),
    connectivity=st.sampled_from([6, 26]),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_box_and_any_cut_give_the_same_ids(masked, ids, small_blocks, low, size, cube, connectivity):
    mask = blobs(BOX.size, 0.3, seed=1)
    box = BoundingBox(BOX.topleft + low, size).intersection(BOX)
    if box.is_empty():
        return
    expected, count = reference(mask[box.to_slices(BOX.topleft)], connectivity)
    target = ids(cube=cube)
    found = label_components(masked(mask), target, connectivity=connectivity, bounding_box=box)
    assert found.count == count
    assert np.array_equal(target.read()[0], expected)


def test_one_component_through_every_block(masked, ids, small_blocks):
    """A snake that enters and leaves each block many times."""
    mask = np.zeros((65, 65, 33), bool)
    mask[:, ::2, ::2] = True
    mask[0, 1::4, ::2] = mask[-1, 3::4, ::2] = True
    mask[-1, -1, 1::4] = mask[0, 0, 3::4] = True
    expected, count = reference(mask)
    target = ids()
    assert label_components(masked(mask), target).count == count
    assert np.array_equal(target.read()[0], expected)


@pytest.mark.slow
def test_equal_neighbours_only(masked, ids, small_blocks):
    values = (
        np.random.default_rng(3)
        .integers(0, 3, tuple(BOX.size))
        .repeat(2, 0)
        .repeat(2, 1)[: BOX.size.x, : BOX.size.y]
    )
    target = ids()
    found = label_components(masked(values), target, by_value=True)
    parts = [ndi.label(values == value) for value in (1, 2)]
    assert found.count == parts[0][1] + parts[1][1]
    got = target.read()[0]
    assert np.array_equal(got != 0, values != 0)
    for value, (labels, _) in zip((1, 2), parts, strict=True):
        assert same_partition(got[values == value], labels[values == value])


@pytest.mark.parametrize("connectivity", [6, 26])
def test_against_connected_components_3d(masked, ids, small_blocks, connectivity):
    cc3d = pytest.importorskip("cc3d")
    values = np.asfortranarray(blobs(BOX.size, 0.4, seed=5) * (1 + (np.indices(BOX.size)[0] > 40))).astype(
        "uint8"
    )
    expected, count = cc3d.connected_components(values, connectivity=connectivity, return_N=True)
    target = ids()
    found = label_components(masked(values), target, connectivity=connectivity, by_value=True)
    assert found.count == count
    assert same_partition(target.read()[0], expected)


def test_ids_are_exact_up_to_the_last_one(masked, ids, small_blocks):
    mask = blobs(BOX.size, 0.1)
    expected, count = reference(mask)
    first = 2**64 - count
    target = ids()
    found = label_components(masked(mask), target, first_id=first)
    assert found.report.maximum == 2**64 - 1
    got = target.read()[0]
    assert np.array_equal(got[mask] - np.uint64(first - 1), expected[mask].astype("uint64"))
    assert not got[~mask].any()
    with pytest.raises(DTypeError, match="too many"):
        label_components(masked(mask), ids(), first_id=first + 1)


@pytest.mark.slow
def test_a_function_says_what_belongs_to_a_component(make_mag, random_voxels, ids, small_blocks):
    mag, voxels = make_mag(channels=3), random_voxels((3, *BOX.size))
    mag.write(voxels, bounding_box=BOX)

    def bright(block):
        import scipy.ndimage as ndi

        return ndi.median_filter(block.max(axis=0), 3, mode="nearest") > 200

    expected, count = reference(bright(voxels))
    target = ids()
    assert label_components(mag, target, where=bright, halo=1).count == count > 10
    assert np.array_equal(target.read()[0], expected)


def test_where_there_is_nothing(masked, ids):
    target = ids()
    assert label_components(masked(np.zeros(BOX.size)), target).count == 0
    assert not target.read().any()
    assert target.layer.bounding_box == BOX


SCRIPT = """
import sys, time
import wkdask.components as module
from wkdask import Dataset, label_components

plan = module.plan_write
module.plan_write = lambda *args, **options: plan(*args, **options, unit_nbytes=1)
real = getattr(module, sys.argv[3])

def slow(*arguments):
    time.sleep(0.1)
    return real(*arguments)

if sys.argv[4] == "slow":
    setattr(module, sys.argv[3], slow)
mags = [Dataset(path).get_layer("layer").get_mag(1) for path in sys.argv[1:3]]
print(label_components(*mags, resume=True, progress=lambda event: print(type(event).__name__, flush=True)).count)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["label_unit", "survey_unit", "relabel_unit"])
def test_a_driver_killed_in_any_stage_is_resumed(masked, ids, tmp_path, stage):
    mask = blobs(BOX.size, 0.2)
    expected, count = reference(mask)
    mag, target, script = masked(mask), ids(), tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), mag.place.dataset_path, target.place.dataset_path, stage]
    process = subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, text=True)
    units = len(mag.spec.grid.cubes(BOX))
    wanted = units * ["label_unit", "survey_unit", "relabel_unit"].index(stage) + 4
    lines = filter("UnitDone\n".__eq__, process.stdout)
    assert len(list(itertools.islice(lines, wanted))) == wanted
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    out = subprocess.run(
        [*command, "fast"], stdout=subprocess.PIPE, text=True, timeout=120, check=True
    ).stdout
    assert int(out.split()[-1]) == count
    assert out.count("UnitDone") < 3 * units
    assert np.array_equal(target.read()[0], expected)


@pytest.mark.slow
@pytest.mark.cluster
def test_on_workers_of_which_one_is_killed(masked, ids, small_blocks, client):
    mask = blobs(BOX.size, 0.2)
    expected, count = reference(mask)
    pids, seen, target = list(client.run(os.getpid).values()), [], ids()

    def kill_one(event):
        seen.append(event)
        if len(seen) == 30:
            os.kill(pids[0], signal.SIGKILL)

    assert label_components(masked(mask), target, progress=kill_one).count == count
    assert np.array_equal(target.read()[0], expected)
    client.wait_for_workers(2, timeout=60)


def test_what_cannot_be_labelled(masked, ids, make_mag):
    mag = masked(np.ones(BOX.size))
    with pytest.raises(DTypeError, match="unsigned"):
        label_components(mag, make_mag("int32"))
    with pytest.raises(ChannelError):
        label_components(make_mag(channels=3), ids(), bounding_box=BOX)
    with pytest.raises(InvalidValueError, match="26"):
        label_components(mag, ids(), connectivity=8)
    with pytest.raises(InvalidValueError, match="mag 2"):
        label_components(mag, ids(mag=2))
    with pytest.raises(PlanError, match="new layer"):
        label_components(mag, mag)
    with pytest.raises(InvalidValueError, match="either"):
        label_components(mag, ids(), by_value=True, where=np.any)
    with pytest.raises(InvalidValueError, match="first id"):
        label_components(mag, ids(), first_id=0)
    with pytest.raises(TaskFailedError, match="shape"):
        label_components(mag, ids(), where=lambda block: block[0, 1:])
    noise = np.random.default_rng(0).random((64, 64, 64)) < 0.2
    with pytest.raises(TaskFailedError, match="too many for uint8"):
        label_components(masked(noise), ids("uint8"))
