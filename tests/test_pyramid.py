"""Pyramids against numpy: which mags, which voxels, however the work is cut."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wkdask import BoundingBox, Dataset, Mag, Vec3Int, VoxelSize, pyramid
from wkdask.errors import InvalidValueError, TaskFailedError, WkdaskWarning
from wkdask.pyramid import default_coarsest_mag, interpolation_of, mag_chain, read_mirrored

# --- which mags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "start", "end", "mode", "chain"),
    [
        ((10.5, 10.5, 24), 1, 16, "anisotropic", "2-2-1 4-4-2 8-8-4 16-16-8"),
        ((10.5, 10.5, 24), 1, 16, "auto", "2-2-1 4-4-2 8-8-4 16-16-8"),
        ((10.5, 10.5, 24), 1, 16, "Anisotropic", "2-2-1 4-4-2 8-8-4 16-16-8"),
        ((10.5, 10.5, 35), 1, 16, "anisotropic", "2-2-1 4-4-1 8-8-2 16-16-4"),
        ((1, 1, 2), "2-2-2", "16-16-8", "anisotropic", "4-4-2 8-8-4 16-16-8"),
        ((1, 1, 4), 1, "16-16-2", "anisotropic", "2-2-1 4-4-1 8-8-2 16-16-2"),
        ((85, 85, 346), 1, 4, "anisotropic", "2-2-1 4-4-1"),
        ((11.24, 11.24, 28), 1, 4, "anisotropic", "2-2-1 4-4-2"),
        ((1, 1, 1), 1, 8, "anisotropic", "2 4 8"),
        ((10.5, 10.5, 24), 1, 8, "isotropic", "2 4 8"),
        ((1, 1, 1), "2-2-1", 8, "isotropic", "4-4-2 8-8-4"),
        ((1, 1, 1), 1, 8, "constant_z", "2-2-1 4-4-1 8-8-1"),
        ((1, 1, 1), "2-2-2", 8, "constant_z", "4-4-2 8-8-2"),
        ((1, 1, 1), 8, 8, "isotropic", ""),
    ],
)
def test_the_chain_of_mags(size, start, end, mode, chain):
    expected = [Mag(word) for word in chain.split()]
    assert mag_chain(Mag(start), Mag(end), VoxelSize(size), mode) == expected


@pytest.mark.parametrize(("start", "end"), [(2, "16-16-2"), (1, "1-1-2"), (1, "4-4-16")])
def test_mags_that_cannot_be_reached(start, end):
    with pytest.raises(InvalidValueError, match="cannot be reached"):
        mag_chain(Mag(start), Mag(end), VoxelSize((10.5, 10.5, 24)))


def test_unknown_words():
    with pytest.raises(InvalidValueError, match="anisotropic, isotropic, constant_z"):
        mag_chain(Mag(1), Mag(4), VoxelSize((1, 1, 1)), "sideways")
    with pytest.raises(InvalidValueError, match="median"):
        interpolation_of("bilinearish", False)
    assert interpolation_of("DEFAULT", True) == "mode"
    assert interpolation_of("default", False) == "median"
    assert interpolation_of("Max", False) == "max"


def test_a_chain_does_not_go_back():
    with pytest.raises(InvalidValueError, match="finer"):
        mag_chain(Mag(8), Mag(4), VoxelSize((1, 1, 1)))


@pytest.mark.parametrize("size", [(4, 4, 1), (1, 1, 1), (1, 3, 9), (11, 1, 2)])
@pytest.mark.parametrize("start", ["1", "4-4-1", "1-4-2"])
def test_no_two_mags_have_one_largest_component(size, start):
    """A step that only lets a shorter axis catch up is left out; the chain goes on from where it led."""
    chain = [Mag(start), *mag_chain(Mag(start), Mag(16), VoxelSize(size))]
    for before, after in itertools.pairwise(chain):
        assert after.max_dim == 2 * before.max_dim
        assert all(b >= a for a, b in zip(before.to_vec3_int(), after.to_vec3_int(), strict=True))
    assert chain[-1].max_dim == 16


@pytest.mark.parametrize(
    ("side", "coarsest"),
    [(1, 4), (256, 4), (400, 4), (401, 8), (4096, 64), (32768, 512), (65536, 1024), (262144, 4096)],
)
def test_the_default_coarsest_mag(side, coarsest):
    for size in [(side, 1, 1), (1, side, 1), (side, side, 10 * side)]:
        assert default_coarsest_mag(BoundingBox((5, 6, 7), size)) == Mag(coarsest)


# --- which voxels ---------------------------------------------------------------------------------------


def oracle(voxels, corner, factors, mode):
    """Return (voxels, corner) of the next mag, by numpy alone: mirror, cut into windows, reduce each."""
    shape = voxels.shape[1:]
    low = [c // f for c, f in zip(corner, factors, strict=True)]
    high = [-(-(c + n) // f) for c, n, f in zip(corner, shape, factors, strict=True)]
    pads = [
        (c - a * f, b * f - c - n) for c, n, a, b, f in zip(corner, shape, low, high, factors, strict=True)
    ]
    whole = np.pad(voxels, [(0, 0), *pads], mode="symmetric")
    (fx, fy, fz), (nx, ny, nz) = factors, np.subtract(high, low)
    windows = whole.reshape(len(voxels), nx, fx, ny, fy, nz, fz)
    # in a window: z slowest, then x, then y
    windows = windows.transpose(0, 1, 3, 5, 6, 2, 4).reshape(len(voxels), nx, ny, nz, fx * fy * fz)
    if mode == "min":
        return windows.min(axis=-1), low
    if mode == "max":
        return windows.max(axis=-1), low
    if mode == "median":
        return np.trunc(np.median(windows.astype("float64"), axis=-1)).astype(voxels.dtype), low
    flat = windows.reshape(-1, windows.shape[-1])
    out = np.empty(len(flat), voxels.dtype)
    for number, window in enumerate(flat):
        values, first, counts = np.unique(window, return_index=True, return_counts=True)
        best = counts == counts.max()
        out[number] = values[best][np.argmin(first[best])]
    return out.reshape(windows.shape[:-1]), low


def layer_with(folder, voxels, corner, scale=(1, 1, 1), category="color", cube=32, start=1):
    layer = Dataset.create(folder, scale).add_layer(
        "layer", category, dtype_per_channel=voxels.dtype, num_channels=len(voxels)
    )
    mag = layer.add_mag(start, chunk_shape=16, shard_shape=cube)
    mag.write(voxels, offset=corner)
    return layer


CASES = [
    # mode, dtype, channels, values, scale, corner, size
    ("median", "uint8", 1, 256, (1, 1, 1), (3, 5, 7), (70, 45, 39)),
    ("median", "uint16", 3, 60000, (1, 1, 2.5), (33, 31, 1), (40, 37, 21)),
    ("median", "int16", 1, 300, (1, 1, 1), (0, 0, 0), (64, 32, 32)),
    ("mode", "uint32", 1, 4, (1, 1, 1), (3, 5, 7), (41, 30, 25)),
    ("mode", "uint64", 1, 3, (1, 1, 2.5), (1, 0, 63), (37, 41, 11)),
    ("mode", "uint8", 3, 3, (1, 1, 1), (31, 31, 31), (20, 13, 9)),
    ("min", "int8", 1, 100, (1, 1, 1), (3, 5, 7), (41, 30, 25)),
    ("max", "float32", 2, 100, (1, 1, 2.5), (3, 5, 7), (41, 30, 25)),
    ("median", "uint8", 1, 256, (1, 1, 1), (5, 5, 5), (1, 1, 1)),
    ("median", "uint8", 1, 256, (1, 1, 1), (7, 0, 3), (90, 1, 2)),
]


@pytest.mark.parametrize(("mode", "dtype", "channels", "values", "scale", "corner", "size"), CASES)
def test_a_pyramid_is_that_of_numpy(tmp_path, mode, dtype, channels, values, scale, corner, size):
    rng = np.random.default_rng(7)
    voxels = rng.integers(0, values, (channels, *size)).astype(dtype)
    if np.dtype(dtype).kind == "i":
        voxels -= np.array(values // 2, dtype)
    if dtype == "uint64":
        voxels += np.array(2**60, dtype)
    layer = layer_with(tmp_path / "ds", voxels, corner, scale, "segmentation" if mode == "mode" else "color")
    sampling = "constant_z" if size[2] == 1 else "anisotropic"  # what a single section gets anyway
    layer.downsample(coarsest_mag=8, interpolation_mode=mode, sampling_mode=sampling)
    assert layer.bounding_box == BoundingBox(corner, size)
    before = Mag(1)
    for mag in list(layer.mags)[1:]:
        factors = tuple(mag.to_vec3_int() // before.to_vec3_int())
        voxels, corner = oracle(voxels, corner, factors, mode)
        view = layer.get_mag(mag)
        assert view.box == BoundingBox(corner, voxels.shape[1:])
        assert np.array_equal(view.read(), voxels)
        before = mag
    assert before.max_dim == 8


@pytest.mark.parametrize(("start", "target"), [(1, "4-4-2"), (2, 8), ("2-2-1", "8-2-1"), ("2-2-1", "4-8-8")])
def test_any_step_that_divides(tmp_path, start, target):
    voxels = np.random.default_rng(3).integers(0, 9, (1, 37, 29, 31)).astype("uint8")
    corner = (9, 14, 3)
    layer = layer_with(tmp_path / "ds", voxels, corner, start=start)
    out = layer.add_mag(target, chunk_shape=16, shard_shape=32)
    factors = Mag(target).to_vec3_int() // Mag(start).to_vec3_int()
    options = pyramid.WriteOptions()
    source = layer.get_mag(start).place
    pyramid.downsample_mag(source, out.place, layer.bounding_box, "mode", options)
    expected, low = oracle(voxels, corner, tuple(factors), "mode")
    assert out.box == BoundingBox(low, expected.shape[1:])
    assert np.array_equal(out.read(), expected)
    for bad in (source, layer.add_mag("16-1-1", chunk_shape=16, shard_shape=32).place):
        with pytest.raises(InvalidValueError, match="cannot be computed"):
            pyramid.downsample_mag(out.place, bad, layer.bounding_box, "mode", options)


@pytest.mark.parametrize(("cube", "tile"), [(16, 1 << 9), (32, 3 << 10), (128, 1 << 12), (128, 1 << 30)])
def test_the_result_does_not_depend_on_cubes_and_tiles(tmp_path, monkeypatch, cube, tile):
    voxels = np.random.default_rng(5).integers(0, 200, (1, 75, 50, 41)).astype("uint8")
    corner = (3, 5, 7)
    expected, low = oracle(voxels, corner, (2, 2, 2), "median")
    monkeypatch.setattr(pyramid, "_TILE_NBYTES", tile)
    layer = layer_with(tmp_path / "ds", voxels, corner, cube=cube)
    (report,) = layer.downsample(coarsest_mag=2, compression=None)
    assert np.array_equal(layer.get_mag(2).read(), expected)
    assert report.cubes == len(layer.get_mag(2).spec.grid.cubes(BoundingBox(low, expected.shape[1:])))
    assert (report.minimum, report.maximum) == (expected.min(), expected.max())


def test_one_section_keeps_its_z(tmp_path):
    voxels = np.random.default_rng(5).integers(0, 200, (1, 40, 30, 1)).astype("uint8")
    layer = layer_with(tmp_path / "ds", voxels, (3, 5, 7))
    with pytest.warns(WkdaskWarning, match="constant_z"):
        layer.downsample(coarsest_mag=4)
    assert [mag.to_layer_name() for mag in layer.mags] == ["1", "2-2-1", "4-4-1"]


@pytest.mark.cluster
def test_a_pyramid_on_a_cluster(tmp_path, client):
    voxels = np.random.default_rng(5).integers(0, 200, (1, 130, 70, 41)).astype("uint8")
    layer = layer_with(tmp_path / "ds", voxels, (3, 5, 7))
    layer.downsample(coarsest_mag=4, client=client)
    half, low = oracle(voxels, (3, 5, 7), (2, 2, 2), "median")
    quarter, _ = oracle(half, low, (2, 2, 2), "median")
    assert np.array_equal(layer.get_mag(2).read(), half)
    assert np.array_equal(layer.get_mag(4).read(), quarter)


def test_a_damaged_source_is_named(tmp_path):
    layer = layer_with(tmp_path / "ds", np.ones((1, 70, 45, 39), "uint8"), (3, 5, 7))
    path = layer.get_mag(1).place.store.cube_path(Vec3Int(1, 1, 0))
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(TaskFailedError, match="downsampling") as caught:
        layer.downsample(coarsest_mag=2)
    assert path in str(caught.value)


# --- mirrored reads -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mirror_source(tmp_path_factory):
    """Return (stored mag, voxels, their corner)."""
    voxels = np.random.default_rng(0).integers(1, 255, (2, 23, 17, 12)).astype("uint8")
    layer = layer_with(tmp_path_factory.mktemp("mirror") / "ds", voxels, (9, 10, 11), cube=16)
    return layer.get_mag(1).place.store, voxels, (9, 10, 11)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mirrored_reads_are_those_of_numpy(mirror_source, data):
    store, voxels, corner = mirror_source
    lows, sizes, starts, extents = [], [], [], []
    for axis in range(3):
        low = data.draw(st.integers(0, voxels.shape[axis + 1] - 1))
        size = data.draw(st.integers(1, voxels.shape[axis + 1] - low))
        before = data.draw(st.integers(0, 9))
        start = data.draw(st.integers(-before, size - 1))
        stop = data.draw(st.integers(max(start, 0) + 1, size + 9))
        lows.append(low)
        sizes.append(size)
        starts.append(start)
        extents.append(stop - start)
    region = tuple(slice(low, low + size) for low, size in zip(lows, sizes, strict=True))
    padded = np.pad(voxels[(slice(None), *region)], [(0, 0)] + [(30, 30)] * 3, mode="symmetric")
    expected = padded[
        (slice(None), *(slice(30 + a, 30 + a + n) for a, n in zip(starts, extents, strict=True)))
    ]
    valid = BoundingBox(np.add(corner, lows), sizes)
    box = BoundingBox(np.add(valid.topleft, starts), extents)
    assert np.array_equal(read_mirrored(store, valid, box), expected)
