"""Histograms of mags against numpy: types, parts, samples, jobs; what is read for them."""

import numpy as np
import pytest
from dask.distributed import Client

from wkdask import BoundingBox, Dataset
from wkdask.errors import DamagedCubeError, InvalidValueError, TaskFailedError
from wkdask.operations.histogram import _sample_of
from wkdask.storage.wkw.mag import WkwMag

SHAPE = (70, 50, 40)
BOX = BoundingBox((0, 0, 0), SHAPE)
FORMATS = ["wkw", "zarr3", "zarr"]


def noise(dtype, shape=SHAPE):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return rng.normal(50, 20, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -1000), min(info.max, 60_000), shape, dtype)


def make(folder, voxels, data_format="wkw", offset=(0, 0, 0), channels=1):
    layer = Dataset.create(folder, (4, 4, 40)).add_layer(
        "color", "color", dtype_per_channel=voxels.dtype, num_channels=channels, data_format=data_format
    )
    mag = layer.add_mag(1, chunk_shape=16, shard_shape=16 if data_format == "zarr" else 32)
    mag.write(voxels, offset)
    return mag


def expected_of(voxels, bins=256):
    """Return counts and edges as the documentation says them."""
    low, high = voxels.min(), voxels.max()
    if voxels.dtype.kind == "f":
        return np.histogram(voxels.astype(float), bins, (float(low), float(high)))
    low, high = int(low), int(high)
    if voxels.dtype.itemsize == 1:
        low, high = int(np.iinfo(voxels.dtype).min), int(np.iinfo(voxels.dtype).max)
    width = -(-(high - low + 1) // bins)
    edges = np.arange(low, high + 1 + width, width)
    edges = edges[: np.searchsorted(edges, high + 1) + 1]
    counts = np.zeros(len(edges) - 1, int)
    np.add.at(counts, (voxels.astype(int).ravel() - low) // width, 1)
    return counts, edges


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int64", "float32", "float64"]
)
def test_all_types(tmp_path, dtype, exact):
    voxels = noise(dtype)
    counts, edges = expected_of(voxels)
    found = make(tmp_path / "ds", voxels).histogram(exact=exact)
    assert np.array_equal(found.edges, edges)
    assert np.array_equal(found.counts, counts)
    assert (found.minimum, found.maximum) == (voxels.min(), voxels.max())
    assert (found.voxels, found.total, found.left_out, found.is_exact) == (voxels.size, voxels.size, 0, True)


@pytest.mark.parametrize("data_format", FORMATS)
def test_formats_and_what_is_not_stored(tmp_path, data_format):
    voxels = noise("uint8", (20, 20, 20)) | 1
    mag = make(tmp_path / "ds", voxels, data_format)
    mag.write(voxels[:1, :1, :1], (200, 3, 90))
    whole = np.zeros((201, 20, 91), np.uint8)
    whole[:20, :20, :20] = voxels
    whole[200, 3, 90] = voxels[0, 0, 0]
    for exact in (True, False):
        found = mag.histogram(exact=exact)
        assert np.array_equal(found.counts, np.bincount(whole.ravel(), minlength=256))
        assert found.minimum == 0


def test_a_part_and_fewer_bins(tmp_path):
    voxels = noise("uint8")
    mag = make(tmp_path / "ds", voxels, offset=(5, 6, 7))
    box = BoundingBox((10, 10, 10), (40, 20, 30))
    part = voxels[5:45, 4:24, 3:33]
    for exact in (True, False):
        for found in (
            mag.histogram(8, bounding_box=box, exact=exact),
            mag.get_view(bounding_box=box).histogram(8, exact=exact),
        ):
            assert np.array_equal(found.counts, np.histogram(part, 8, (0, 256))[0])
            assert found.edges.tolist() == [*range(0, 257, 32)]
            assert (found.bounding_box, found.total) == (box, part.size)


def test_channels_count_together(tmp_path):
    rgb = noise("uint8", (3, 20, 20, 20))
    found = make(tmp_path / "ds", rgb, channels=3).histogram(exact=True)
    assert np.array_equal(found.counts, np.bincount(rgb.ravel(), minlength=256))
    assert found.total == rgb.size


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32"])
def test_a_range_of_ones_own(tmp_path, dtype, exact):
    voxels = noise(dtype)
    inside = voxels[(voxels >= 40) & (voxels <= 79)]
    found = make(tmp_path / "ds", voxels).histogram(10, value_range=(40, 79), exact=exact)
    ends = (40, 79) if dtype == "float32" else (40, 80)
    assert np.array_equal(found.counts, np.histogram(inside, 10, ends)[0])
    assert found.left_out == voxels.size - inside.size
    assert (found.minimum, found.maximum) == (voxels.min(), voxels.max())


def test_what_is_no_number_is_left_out(tmp_path):
    voxels = noise("float32")
    voxels[:4, 0, 0] = np.nan, np.inf, -np.inf, np.nan
    finite = voxels[np.isfinite(voxels)]
    found = make(tmp_path / "ds", voxels).histogram(exact=True)
    assert found.left_out == 4
    assert np.array_equal(found.counts, expected_of(finite)[0])
    assert (found.minimum, found.maximum) == (finite.min(), finite.max())
    assert "256 bins" in repr(found)


def test_an_empty_mag(tmp_path):
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer(
        "color", "color", dtype_per_channel="float32"
    )
    found = layer.add_mag(1).histogram(exact=True)
    assert (found.voxels, found.total, found.minimum, int(found.counts.sum())) == (0, 0, None, 0)
    assert "no finite value" in repr(found)


def test_a_large_mag_is_sampled(tmp_path, monkeypatch):
    mag = make(tmp_path / "ds", np.ones((4, 4, 4), "uint8"), offset=(1 << 20, 1 << 20, 1 << 16))
    read = []
    original = WkwMag.read
    monkeypatch.setattr(
        WkwMag, "read", lambda self, box, *more: read.append(box) or original(self, box, *more)
    )
    found = mag.histogram(bounding_box=BoundingBox((0, 0, 0), (1 << 20, 1 << 20, 1 << 16)))
    assert len(read) == 256
    assert found.voxels == 256 * 64**3 < found.total == 1 << 56
    assert not found.is_exact
    assert found.counts[0] == found.voxels


def test_a_sample_is_spread_evenly_and_within():
    box = BoundingBox((30, 64, 100), (5000, 3000, 700))
    boxes = _sample_of(box)
    assert 250 <= len(boxes) == len({*boxes}) <= 256
    assert all(box.contains_bbox(each) for each in boxes)
    for axis in range(3):
        middles = [(each.topleft[axis] - box.topleft[axis]) / box.size[axis] for each in boxes]
        assert np.histogram(middles, 4, (0, 1))[0].min() >= 40
    assert sum(each.volume() for each in _sample_of(BOX)) == BOX.volume()


def test_the_job_reads_a_bounded_part_at_a_time(tmp_path, monkeypatch):
    voxels = noise("uint8", (600, 300, 20))
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("color", "color")
    mag = layer.add_mag(1, shard_shape=1024)
    mag.write(voxels)
    read = []
    original = WkwMag.read
    monkeypatch.setattr(
        WkwMag, "read", lambda self, box, *more: read.append(box) or original(self, box, *more)
    )
    assert np.array_equal(mag.histogram(exact=True).counts, np.bincount(voxels.ravel(), minlength=256))
    assert max(box.size.pairmax(1).to_np().max() for box in read) <= 256
    assert sum(box.volume() for box in read) == voxels.size


def test_mistakes(tmp_path):
    mag = make(tmp_path / "ds", noise("uint8"))
    for wrong in (0, -1, 2.5, True, "many", 1 << 30):
        with pytest.raises(InvalidValueError, match="bins"):
            mag.histogram(wrong)
    for wrong in ((5, 3), (0, np.nan), (1,), "ab", (0.5, 3), (0, np.inf)):
        with pytest.raises(InvalidValueError, match="value_range"):
            mag.histogram(value_range=wrong)


def test_a_damaged_cube_is_an_error(tmp_path):
    mag = make(tmp_path / "ds", noise("uint8"))
    with open(mag.place.store.cube_path(next(mag.place.store.cubes_on_disk())), "r+b") as file:
        file.truncate(100)
    with pytest.raises(DamagedCubeError):
        mag.histogram()
    with pytest.raises(TaskFailedError, match="DamagedCubeError"):
        mag.histogram(exact=True)


@pytest.mark.cluster
@pytest.mark.slow
def test_on_a_cluster(tmp_path, client):
    assert isinstance(client, Client)
    for dtype in ("uint16", "float32"):
        voxels = noise(dtype)
        counts, edges = expected_of(voxels)
        found = make(tmp_path / dtype, voxels).histogram(exact=True)
        assert np.array_equal(found.counts, counts)
        assert np.array_equal(found.edges, edges)
