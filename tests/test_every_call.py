"""Every public call that reads or writes, in every format, on threads and processes; others' libraries read it."""

import dask
import numpy as np
import pytest
from every_call import (
    BEYOND,
    CALLS,
    CANVAS,
    FIRST,
    SOURCE,
    State,
    difference,
    make_scene,
    whole_state,
)

from wkdask import BoundingBox

FORMATS = ["wkw", "zarr3", "zarr"]
OLDER = [(name, older) for name, call in CALLS.items() for older in (False, True) if call.older or not older]
EVERYDAY = {name: ("wkw", "zarr3")[n % 2] for n, name in enumerate(CALLS)}
"""The format that a call is tried in every day; in the others, and where it finds older voxels, it is slow."""
SOME = [
    pytest.param(name, older, fmt, marks=[pytest.mark.slow] * (older or fmt != EVERYDAY[name]))
    for name, older in OLDER
    for fmt in FORMATS
]


def check(scene, state, moment):
    """Compare all datasets with what numpy says, voxel by voxel, and their layers' boxes."""
    words = difference(whole_state(scene.folder), state)
    assert not words, f"{moment}: {words}"


def run_and_grow(name, data_format, older, folder, **how):
    """Make a call into a fresh mag, and again beyond its first box, so that arrays grow."""
    call = CALLS[name]
    scene, state = make_scene(folder, data_format)
    for box in (FIRST, BEYOND) if call.grows else (FIRST,):
        call.prepare(scene, state, box, older)
        check(scene, state, f"before {box}")
        call.run(scene, box, **how)
        call.expect(state, box)
        check(scene, state, f"after {box}")


@pytest.mark.parametrize(("name", "older", "data_format"), SOME)
def test_a_call_on_threads(tmp_path, name, older, data_format):
    run_and_grow(name, data_format, older, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["zarr3", "zarr"])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_whose_arrays_end_with_the_box(tmp_path, name, data_format):
    with dask.config.set({"wkdask.zarr-shape": "box"}):
        run_and_grow(name, data_format, False, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("name", "older"), OLDER)
def test_a_call_on_processes(client, tmp_path, name, older, data_format):
    how = {} if name == "slice_writer" else {"client": client}  # it writes in this process
    run_and_grow(name, data_format, older, tmp_path, **how)


@pytest.mark.slow
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.resumes])
def test_a_call_that_may_go_on_and_has_nothing_to_go_on_from(tmp_path, name, data_format):
    run_and_grow(name, data_format, False, tmp_path, resume=True)


@pytest.fixture(params=FORMATS)
def grown(request, tmp_path):
    """Return a scene with a mag that grew, and its voxels."""
    scene, state = make_scene(tmp_path, request.param)
    scene.add()
    for box in (FIRST, BEYOND):
        scene.put(state, ("ds", "color", 1), box, SOURCE)
    return scene, state


def reads(scene, state, **how):
    """Read a mag in every way."""

    def sum_of(view):  # workers cannot import this module: functions travel by value from in here
        return int(view.read().sum(dtype="int64")), view.size.to_tuple()

    def total_of(block):
        return int(block.sum(dtype="int64"))

    mag, expected = scene.mag(), state.voxels["ds", "color", 1]
    box = FIRST.extended_by(BEYOND)
    part = expected[box.to_slices()][None]
    assert mag.bounding_box == box
    np.testing.assert_array_equal(mag.read(), part)
    np.testing.assert_array_equal(mag.to_dask().compute(), part)
    np.testing.assert_array_equal(
        mag.to_dask(bounding_box=BEYOND).compute(), expected[BEYOND.to_slices()][None]
    )
    view = mag.get_view(bounding_box=FIRST)
    np.testing.assert_array_equal(view.read(), expected[FIRST.to_slices()][None])
    around = BoundingBox((0, 0, 0), CANVAS)
    np.testing.assert_array_equal(mag.read(bounding_box=around), expected[None])
    for dimension in range(3):
        with mag.get_buffered_slice_reader(bounding_box=box, buffer_size=5, dimension=dimension) as reader:
            slices = list(reader)
        np.testing.assert_array_equal(np.stack(slices, axis=dimension + 1), part)
    filled = np.argwhere(expected.reshape(4, 16, 2, 16, 2, 16).any(axis=(1, 3, 5)))
    cubes = [BoundingBox(tuple(map(int, index * 16)), (16, 16, 16)) for index in filled]
    assert sorted(each.topleft for each in mag.cubes_on_disk()) == sorted(each.topleft for each in cubes)
    union = mag.calculate_bounding_box(**how)
    points = np.argwhere(expected)
    assert union == BoundingBox.from_corners(points.min(axis=0), points.max(axis=0) + 1)
    sums = mag.get_view(bounding_box=box).map_chunk(sum_of, chunk_shape=(32, 32, 32), **how)
    total = sum(total for total, _ in sums)
    assert total == int(part.sum(dtype="int64"))
    assert sorted(record for record in mag.map_cubes(total_of, **how)) == sorted(
        int(expected[each.intersection(box).to_slices()].sum(dtype="int64"))
        for each in box.chunk((16, 16, 16), (16, 16, 16))
    )


def test_reads_on_threads(grown):
    reads(*grown)


@pytest.mark.slow
def test_reads_on_processes(client, grown):
    reads(*grown, client=client)


def equality(scene, state, **how):
    """Compare a mag with one that is equal, and with one in which a voxel differs."""
    scene.add("other")
    for box in (FIRST, BEYOND):
        scene.put(state, ("ds", "other", 1), box, SOURCE)
    assert scene.mag().content_is_equal(scene.mag("other"), **how)
    last = BEYOND.bottomright - 1
    changed = np.full((1, 1, 1, 1), 255, "uint8")
    scene.mag("other").write(changed, offset=last, progress=False)
    assert not scene.mag().content_is_equal(scene.mag("other"), **how)


def test_equality_on_threads(grown):
    equality(*grown)


@pytest.mark.slow
def test_equality_on_processes(client, grown):
    equality(*grown, client=client)


def test_the_referee_sees_what_is_wrong(tmp_path):
    scene, state = make_scene(tmp_path, "wkw")
    wrong = State(dict(state.voxels), dict(state.boxes))
    key = ("src", "color", 1)
    wrong.voxels[key] = state.voxels[key].copy()
    wrong.voxels[key][-1, -1, -1] += 1
    assert "1 voxels differ" in difference(whole_state(scene.folder), wrong)
    wrong = State(dict(state.voxels), {key[:2]: FIRST})
    assert "box of" in difference(whole_state(scene.folder), wrong)
    assert "not listed" in difference(State({}, state.boxes), state)


@pytest.mark.slow
@pytest.mark.parametrize("data_format", FORMATS)
def test_the_default_compression_of_every_call_fits_the_format(tmp_path, data_format):
    scene, state = make_scene(tmp_path, data_format)
    scene.add("color", (2,))
    scene.put(state, ("ds", "color", 2), FIRST, SOURCE)
    layer = scene.layer()
    layer.downsample(coarsest_mag=4, progress=False)
    layer.upsample(2, finest_mag=1, progress=False)
    for mag in (1, 4):
        state.fill(("ds", "color", mag), FIRST, SOURCE)
    check(scene, state, "after both")
    for name, function in {
        "compressed": scene.mag().compress,
        "rechunked": lambda path: scene.mag().rechunk(target_path=path),
    }.items():
        function(scene.path(name))
        state.voxels[name, "color", 1] = state.voxels["ds", "color", 1]
        state.boxes[name, "color"] = state.boxes["ds", "color"]
    check(scene, state, "after the copies")
    scene.mag().compress(progress=False)
    scene.mag().rechunk(progress=False)
    check(scene, state, "after the changes in place")
