"""Stored mags as dask arrays: what is read, where blocks are cut, what names say."""

import itertools

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples

from wkdask import BoundingBox, Dataset, Vec3Int
from wkdask.arrays.graph_facts import facts_of
from wkdask.arrays.lazy import LazySource, block_shape, lazy_array
from wkdask.errors import AlignmentError, InvalidValueError
from wkdask.storage.wkw.mag import WkwMag

CORNER = (100, 37, 5)
SIZE = (90, 70, 40)
HALO = {0: 0, 1: 2, 2: 2, 3: 2}


class CountingMag(WkwMag):
    """A mag that notes the boxes asked for."""

    asked: list = []  # noqa: RUF012 - cleared by the test

    def read(self, box, threads=1):
        self.asked.append(box)
        return super().read(box, threads)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Return (mag, its voxels) with a box off the grid, in cubes of 32³."""
    rng = np.random.default_rng(1)
    voxels = rng.integers(1, 255, (2, *SIZE), dtype="uint16")
    layer = Dataset.create(tmp_path_factory.mktemp("lazy") / "ds", (1, 1, 1)).add_layer(
        "layer", "color", dtype_per_channel="uint16", num_channels=2
    )
    mag = layer.add_mag(1, chunk_shape=16, shard_shape=32)
    mag.write(voxels, offset=CORNER)
    return mag, voxels


# --- what is read ---------------------------------------------------------------------------------------


def test_no_channel_is_no_voxel(filled):
    mag, _ = filled
    store = CountingMag(mag.place.store.path, mag.place.store.header)
    CountingMag.asked.clear()
    got = lazy_array(store, BoundingBox(CORNER, SIZE))[2:].compute()
    assert (got.shape, got.dtype) == ((0, *SIZE), np.uint16)
    assert CountingMag.asked == []


def test_arrays_of_billions_of_blocks_are_refused(filled):
    store = filled[0].place.store
    for size, chunks in (((2**30,) * 3, None), ((2**31, 1, 1), 16), ((2**20,) * 3, 32)):
        with pytest.raises(InvalidValueError, match="blocks of"):
            lazy_array(store, BoundingBox((0, 0, 0), size), chunks)
    array = lazy_array(store, BoundingBox((0, 0, 0), (2**17,) * 3))
    assert array.nbytes == 4 * 2**51
    assert array[:, :3, :3, :3].compute().sum() == 0


@pytest.mark.parametrize("chunks", [None, "cube", 16])
def test_a_slice_asks_the_store_for_its_voxels_only(filled, chunks):
    mag, voxels = filled
    store = CountingMag(mag.place.store.path, mag.place.store.header)
    array = lazy_array(store, BoundingBox(CORNER, SIZE), chunks)
    CountingMag.asked.clear()
    got = array[:, 10:20, 0:5, 7:9].compute()
    assert np.array_equal(got, voxels[:, 10:20, 0:5, 7:9])
    assert sum(box.volume() for box in CountingMag.asked) == 100


def test_making_and_slicing_reads_nothing(filled):
    mag, _ = filled
    store = CountingMag(mag.place.store.path, mag.place.store.header)
    CountingMag.asked.clear()
    255 - lazy_array(store, BoundingBox(CORNER, SIZE))[:, 3:50].astype("uint16")
    assert CountingMag.asked == []


def parts(length):
    """Strategy of an index along an axis."""
    return st.one_of(
        st.integers(-length, length - 1),
        st.slices(length),
        st.lists(st.integers(-length, length - 1), max_size=5),
        st.lists(st.booleans(), min_size=length, max_size=length).map(np.array),
    )


def is_fancy(part):
    return isinstance(part, list | np.ndarray)


def orthogonal(array, index):
    """Return `array` indexed along each axis on its own: the oracle."""
    for axis, part in reversed(list(enumerate(index))):
        part = np.array(part, dtype=int) if isinstance(part, list) else part
        array = array[(slice(None),) * axis + (part,)]
    return array


@settings(max_examples=examples(60), deadline=None)
@given(index=st.tuples(parts(2), *map(parts, SIZE)))
def test_the_source_indexes_orthogonally(filled, index):
    mag, voxels = filled
    source = LazySource(mag.place.store, BoundingBox(CORNER, SIZE), "token")
    expected = orthogonal(voxels, index)
    got = source[tuple(np.array(part, int) if isinstance(part, list) else part for part in index)]
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@settings(max_examples=examples(40), deadline=None)
@given(
    index=st.tuples(parts(2), *map(parts, SIZE)).filter(lambda index: sum(map(is_fancy, index)) <= 1),
    dots=st.integers(0, 4),
    chunks=st.sampled_from([None, "cube", (16, 64, 32)]),
)
def test_the_dask_array_indexes_as_numpy_does(filled, index, dots, chunks):
    mag, voxels = filled
    index = (*index[: 4 - dots], *[slice(None)] * dots)
    expected = orthogonal(voxels, index)
    asked = (*index[: 4 - dots], Ellipsis) if dots else index
    got = mag.to_dask(chunks)[asked].compute(scheduler="sync")
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@settings(max_examples=examples(20), deadline=None)
@given(
    index=st.lists(st.one_of(st.slices(2), st.just(slice(None))), min_size=4, max_size=4),
    places=st.lists(st.integers(0, 4), min_size=1, max_size=2),
)
def test_new_axes_come_where_they_are_asked_for(filled, index, places):
    mag, voxels = filled
    for place in places:
        index.insert(place, None)
    assert np.array_equal(mag.to_dask("cube")[tuple(index)].compute(scheduler="sync"), voxels[tuple(index)])


@pytest.mark.parametrize("index", [0, 1, -1, slice(1, 2), slice(None, None, -1), [1], [1, 0, 1]])
@pytest.mark.parametrize("chunks", [None, "cube"])
def test_one_channel_of_several(filled, index, chunks):
    mag, voxels = filled
    assert np.array_equal(mag.to_dask(chunks)[index].compute(), voxels[index])
    assert np.array_equal(mag.to_dask(chunks)[index, ..., 3:9].compute(), voxels[index, ..., 3:9])


def test_chained_slices_and_masks_of_values(filled):
    mag, voxels = filled
    x = mag.to_dask("cube")
    got = x[:, 10:80][:, 5:60, 3, :8][..., ::-2] + 1
    assert np.array_equal(got.compute(), voxels[:, 10:80][:, 5:60, 3, :8][..., ::-2] + 1)
    assert np.array_equal(np.sort(x[x > 200].compute()), np.sort(voxels[voxels > 200]))


@pytest.mark.parametrize("chunks", [None, "cube", 16, (32, 8, 64)])
def test_every_block_is_in_fortran_order(filled, chunks):
    mag, voxels = filled
    x = mag.to_dask(chunks)
    for block in x.to_delayed().ravel()[::7]:
        assert block.compute(scheduler="sync").flags.f_contiguous
    assert x.dtype == voxels.dtype
    assert np.array_equal(x.compute(), voxels)


def test_an_empty_layer_and_an_empty_box(make_mag):
    x = make_mag(channels=3).to_dask()
    assert x.shape == (3, 0, 0, 0)
    assert x.compute().shape == (3, 0, 0, 0)


# --- where blocks are cut -------------------------------------------------------------------------------


def edges(box, chunks):
    """Return the absolute positions along each axis at which blocks are cut, ends included."""
    return [
        [low + n for n in itertools.accumulate(lengths, initial=0)]
        for low, lengths in zip(box.topleft, chunks[1:], strict=True)
    ]


def test_one_block_per_cube(filled):
    mag, _ = filled
    expected = ((2,), (28, 32, 30), (27, 32, 11), (27, 13))
    assert mag.to_dask("cube").chunks == expected
    box = BoundingBox((110, 40, 7), (50, 30, 30))
    assert mag.to_dask("cube", bounding_box=box).chunks == ((2,), (18, 32), (24, 6), (25, 5))


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    corner=st.tuples(*[st.integers(0, 300)] * 3),
    size=st.tuples(*[st.integers(1, 400)] * 3),
    limit=st.integers(13, 26),
)
def test_the_default_is_near_the_configured_size_and_never_straddles(filled, corner, size, limit):
    mag, _ = filled
    box = BoundingBox(corner, size)
    with dask.config.set({"array.chunk-size": 2**limit}):
        x = lazy_array(mag.place.store, box)
    assert x.shape == (2, *size)
    for cuts in edges(box, x.chunks):
        for low, high in itertools.pairwise(cuts):
            within = low // 32 == (high - 1) // 32
            whole = (low % 32 == 0 or low == cuts[0]) and (high % 32 == 0 or high == cuts[-1])
            assert within or whole
        assert all(cut % 16 == 0 for cut in cuts[1:-1])
    assert np.prod(x.chunksize) * 2 <= max(2**limit, 16**3 * 4)


def test_the_default_grows_with_the_option(make_mag):
    store = make_mag(cube=64, chunk=32).place.store
    extent = Vec3Int(1000, 1000, 1000)
    with dask.config.set({"array.chunk-size": "32KiB"}):
        assert block_shape(store, None, extent) == (32, 32, 32)
    with dask.config.set({"array.chunk-size": "256KiB"}):
        assert block_shape(store, "auto", extent) == (64, 64, 64)
    with dask.config.set({"array.chunk-size": "3MiB"}):
        assert sorted(block_shape(store, None, extent)) == [128, 128, 128]


@pytest.mark.parametrize("chunks", [48, (32, 32, 24), (32, 33, 32), 80])
def test_blocks_that_straddle_cubes_are_refused(filled, chunks):
    with pytest.raises(AlignmentError, match="straddle the cubes"):
        filled[0].to_dask(chunks)


@pytest.mark.parametrize("chunks", [0, -32, (32, 0, 32), "whole", "32", (32, 32), (1, 32, 32, 32), 16.5, {}])
def test_chunks_that_mean_nothing_are_refused(filled, chunks):
    with pytest.raises(InvalidValueError):
        filled[0].to_dask(chunks)


# --- names ----------------------------------------------------------------------------------------------


def test_names_are_the_same_in_another_process(filled, children):
    mag, _ = filled
    code = (
        "mag = wkdask.Dataset(args[0]).get_layer('layer').get_mag(1); "
        "x = mag.to_dask('cube'); print(x.name, (255 - x).name)"
    )
    x = mag.to_dask("cube")
    assert children.run(code, mag.place.dataset_path).split() == [x.name, (255 - x).name]


def test_names_tell_boxes_chunks_and_contents_apart(make_mag, random_voxels):
    mag = make_mag(compression=None)
    mag.write(random_voxels((1, 64, 64, 64)))
    names = [
        mag.to_dask().name,
        mag.to_dask(16).name,
        mag.to_dask(bounding_box=BoundingBox((0, 0, 0), (32, 64, 64))).name,
        mag.to_dask(bounding_box=BoundingBox((32, 0, 0), (32, 64, 64))).name,
    ]
    assert mag.to_dask().name == names[0]
    mag.write(random_voxels((1, 1, 1, 1), seed=5), offset=(40, 40, 40))
    names.append(mag.to_dask().name)
    assert len({*names}) == 5
    # a rewrite elsewhere does not rename what lies apart from it
    assert mag.to_dask(bounding_box=BoundingBox((0, 0, 0), (32, 64, 64))).name == names[2]


def test_a_rewritten_mag_is_not_taken_from_the_old_name(make_mag, random_voxels):
    mag = make_mag()
    mag.write(random_voxels((1, 32, 32, 32)))
    first = mag.to_dask()
    kept = first.persist()
    new = random_voxels((1, 32, 32, 32), seed=2)
    mag.write(new)
    assert np.array_equal(mag.to_dask().compute(), new)
    assert mag.to_dask().name != kept.name


# --- who reads whom -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimized", [False, True])
def test_an_expression_is_seen_to_read_its_mag_and_no_other(filled, make_mag, random_voxels, optimized):
    mag, _ = filled
    other = make_mag(dtype="uint16", channels=2)
    other.write(random_voxels((2, *SIZE), "uint16"))
    x, y = mag.to_dask("cube"), other.to_dask("cube")
    expressions = [
        lambda x: x,
        lambda x: 255 - x,
        lambda x: x[:, 5:50, ::2],
        lambda x: x.rechunk((1, 50, 50, 13)) + 1,
        lambda x: x.map_overlap(lambda block: block, depth=HALO, boundary="reflect"),
        lambda x: x - x.max(),
        lambda x: da.concatenate([x, x], axis=1),
        lambda x: da.zeros(x.shape, chunks=x.chunks, dtype=x.dtype) + x.T.rechunk(20).T,
        lambda x: x.map_blocks(lambda block: block.copy(order="C")),
    ]
    for expression in expressions:
        mine, foreign = expression(x), expression(y)
        if optimized:
            mine, foreign = dask.optimize(mine)[0], dask.optimize(foreign)[0]
        assert facts_of(mine).reads(mag.place.store.path)
        assert not facts_of(foreign).reads(mag.place.store.path)
    assert facts_of(x[:, :70, :64] + y[:, :70, :64]).reads(mag.place.store.path)
    assert not facts_of(da.ones((2, 4, 4, 4))).reads(mag.place.store.path)


def test_a_mag_reached_through_a_link_is_the_same_mag(filled, tmp_path):
    mag, _ = filled
    link = tmp_path / "link"
    link.symlink_to(mag.place.dataset_path)
    linked = Dataset(link).get_layer("layer").get_mag(1)
    assert facts_of(linked.to_dask()).reads(mag.place.store.path)
    assert linked.to_dask().name == mag.to_dask().name


def test_expressions_pickle_small_and_without_voxels(filled):
    mag, voxels = filled
    x = 255 - mag.to_dask("cube")
    data = cloudpickle.dumps(x)
    assert len(data) < 8_000
    assert np.array_equal(cloudpickle.loads(data).compute(), 255 - voxels)
    assert len(cloudpickle.dumps(mag.place.store)) < 1_000
