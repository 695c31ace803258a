"""Coarser and finer mags of layers with further axes: each position is what a layer of its own would be."""

import os
import threading

import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, NDBoundingBox
from wkdask.errors import (
    AlreadyExistsError,
    InvalidValueError,
    ReadOnlyError,
    TaskFailedError,
    UnsupportedFormatError,
)

CORNER = (5, 6, 7)
SIZE = (300, 220, 31)
COUNTS = {"t": 2, "q": 2}


def random(shape, dtype="uint8"):
    return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


def make(tmp_path, axes="tcxyz", category="color", dtype="uint8"):
    """Return a layer with these axes, filled; and its voxels along t, q, c, x, y, z."""
    channels = 3 if "c" in axes and category == "color" else 1
    sizes = {"c": channels, **COUNTS, **dict(zip("xyz", SIZE, strict=True))}
    low = dict(zip("xyz", CORNER, strict=True))
    box = NDBoundingBox([low.get(axis, 0) for axis in axes], [sizes[axis] for axis in axes], axes)
    dataset = Dataset.create(tmp_path / "ds", (4, 4, 9))
    layer = dataset.add_layer(
        "l", category, bounding_box=box, data_format="zarr3", num_channels=channels, dtype_per_channel=dtype
    )
    data = random([sizes[axis] for axis in axes], dtype)
    layer.add_mag(1, chunk_shape=16, shard_shape=64).write(data)
    return layer, data


def positions(layer):
    return list(layer.get_mag(1).positions())


def alone(layer, position, **how):
    """Return a plain layer of one position, in a dataset of its own."""
    folder = f"{layer.dataset_path}-{'-'.join(map(str, position.values()))}"
    dataset = Dataset.create(folder, (4, 4, 9))
    plain = dataset.add_layer(
        "l",
        layer.category,
        num_channels=layer.num_channels,
        dtype_per_channel=layer.dtype,
        data_format="zarr3",
    )
    source = layer.get_mag(layer.get_finest_mag().mag)
    plain.add_mag(source.mag, chunk_shape=16, shard_shape=64)
    plain.bounding_box = BoundingBox(CORNER, SIZE)
    plain.get_mag(source.mag).write(source.read(**position), absolute_offset=CORNER)
    return plain


@pytest.mark.parametrize("axes", ["tcxyz", "txyz", "tqxyz"])
def test_coarser_mags(tmp_path, axes):
    layer, _ = make(tmp_path, axes)
    reports = layer.downsample()
    mags = list(layer.mags)
    assert len(mags) > 1
    assert len(reports) == len(positions(layer)) * (len(mags) - 1)
    for position in positions(layer):
        plain = alone(layer, position)
        plain.downsample()
        assert list(plain.mags) == mags
        for mag in mags:
            assert np.array_equal(layer.get_mag(mag).read(**position), plain.get_mag(mag).read())
    assert not os.path.exists(layer.path / ".wkdask")
    again = Dataset(layer.dataset_path).get_layer("l")
    assert again.get_mag(mags[-1]).further_axes == layer.get_mag(1).further_axes
    assert {finding.code for finding in again.dataset.check(deep=True).findings} == {"mag-unchecked"}


def test_ids_are_not_mixed(tmp_path):
    layer, _ = make(tmp_path, "txyz", "segmentation", "uint32")
    layer.downsample_mag(1, 2, interpolation_mode="nearest", compress=False, shard_shape=32)
    assert layer.get_mag(2).at(t=1).spec.shard_shape == (32, 32, 32)
    assert layer.get_mag(2).at(t=1).spec.compression is None
    plain = alone(layer, {"t": 1})
    plain.downsample_mag(1, 2, interpolation_mode="nearest")
    assert np.array_equal(layer.get_mag(2).read(t=1), plain.get_mag(2).read())


def test_mags_are_computed_anew(tmp_path):
    layer, data = make(tmp_path, "txyz")
    layer.downsample_mag_list(1, ["2-2-1", "4-4-2"])
    with pytest.raises(AlreadyExistsError, match="2-2-1"):
        layer.downsample_mag(1, "2-2-1")
    layer.get_mag(1).write(np.zeros_like(data), t=(0, 2))
    changed = BoundingBox(CORNER, (64, 64, 31))
    layer.redownsample(boxes=[changed])
    near, far = layer.get_mag("4-4-2").read(t=1)[0, :8, :8], layer.get_mag("4-4-2").read(t=1)[0, -8:, -8:]
    assert (near.any(), far.all()) == (False, True)
    layer.redownsample()
    assert not layer.get_mag("4-4-2").read().any()
    assert layer.downsample_mag(1, "2-2-1", allow_overwrite=True).label == "layer 'l' mag 2-2-1"


def test_mags_are_only_made(tmp_path):
    layer, _ = make(tmp_path, "txyz")
    assert layer.downsample(only_setup_mags=True, coarsest_mag="2-2-1") == []
    assert list(layer.mags) == [1, "2-2-1"]
    assert not layer.get_mag("2-2-1").read().any()


def test_finer_mags(tmp_path):
    layer, _ = make(tmp_path, "txyz")
    coarse = layer.dataset.add_layer("coarse", "color", bounding_box=layer.bounding_box, data_format="zarr3")
    small = random((2, 76, 57, 16))
    coarse.add_mag("4-4-2", chunk_shape=16, shard_shape=32).write(small, absolute_offset=(4, 4, 6))
    coarse.bounding_box = layer.bounding_box
    reports = coarse.upsample("4-4-2", align_with_other_layers=False)
    assert next(iter(coarse.mags)) == 1
    assert len(reports) == 2 * (len(coarse.mags) - 1)
    whole = small.repeat(4, 1).repeat(4, 2).repeat(2, 3)
    assert np.array_equal(coarse.get_mag(1).read(), whole[:, 1:301, 2:222, 1:32])
    with pytest.raises(AlreadyExistsError, match="has mag"):
        coarse.upsample("4-4-2", align_with_other_layers=False)


def test_from_a_mag_elsewhere(tmp_path):
    layer, _ = make(tmp_path, "txyz")
    layer.downsample(coarsest_mag="2-2-1")
    other = Dataset.create(tmp_path / "other", (4, 4, 9)).add_layer(
        "l", "color", bounding_box=layer.bounding_box, data_format="zarr3"
    )
    other.downsample(from_mag_view=layer.get_mag(1), coarsest_mag="2-2-1")
    assert list(other.mags) == ["2-2-1"]
    assert np.array_equal(other.get_mag("2-2-1").read(), layer.get_mag("2-2-1").read())
    with pytest.raises(InvalidValueError, match="further axes t, the mag that is read has none"):
        other.downsample_mag(1, "4-4-1", from_mag_view=layer.get_mag(1).at(t=0))


def test_what_cannot_be(tmp_path):
    layer, _ = make(tmp_path, "txyz")
    with pytest.raises(UnsupportedFormatError, match="cannot be resumed"):
        layer.downsample(resume=True)
    with pytest.raises(InvalidValueError, match="cannot be computed"):
        layer.downsample_mag_list(1, ["2-2-1", "1-1-2"])
    os.makedirs(layer.path / "2-2-1")
    (layer.path / "2-2-1/mine").write_text("mine")
    with pytest.raises(AlreadyExistsError, match="holds files"):
        layer.downsample(coarsest_mag="2-2-1")
    assert sorted(os.listdir(layer.path)) == ["1", "2-2-1"]
    read = Dataset(layer.dataset_path, read_only=True).get_layer("l")
    with pytest.raises(ReadOnlyError):
        read.downsample(coarsest_mag="2-2-1")
    assert list(layer.mags) == [1]


def test_what_fails_leaves_nothing(tmp_path):
    layer, _ = make(tmp_path, "txyz")
    (shard, *_) = sorted((layer.path / "1/c/1").glob("[0-9]*/*/*"))
    os.truncate(shard, 30)
    with pytest.raises(TaskFailedError):
        layer.downsample()
    assert os.listdir(layer.path) == ["1"]
    assert list(layer.mags) == [1]


def test_what_a_killed_call_left_goes(tmp_path):
    layer, _ = make(tmp_path, "txyz")
    left = layer.path / ".wkdask/making-2-2-1"
    os.makedirs(left / "c/9")
    (left / "c/9/zarr.json").write_text("{")
    layer.downsample(coarsest_mag="2-2-1")
    assert sorted(os.listdir(layer.path)) == ["1", "2-2-1"]
    assert not os.path.exists(layer.path / "2-2-1/c/9")


def test_of_two_calls_one_makes_the_mags(tmp_path):
    layer, _ = make(tmp_path, "txyz")
    errors = []

    def work():
        try:
            layer.downsample(coarsest_mag="2-2-1")
        except AlreadyExistsError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert list(layer.mags) == [1, "2-2-1"]
    assert layer.get_mag("2-2-1").read().all()


# copies


@pytest.mark.parametrize("cut", [{}, {"shard_shape": 32, "compress": False}])
def test_a_copy(tmp_path, cut):
    layer, data = make(tmp_path)
    dataset = Dataset.create(tmp_path / "other", (4, 4, 9))
    small = NDBoundingBox((0, 0, 2, 2, 2), (1, 3, 3, 3, 3), ("t", "c", "x", "y", "z"))
    other = dataset.add_layer("l", "color", bounding_box=small, num_channels=3, data_format="zarr3")
    copy = other.add_mag_as_copy(layer.get_mag(1), **cut)
    assert np.array_equal(copy.read(absolute_bounding_box=layer.bounding_box), data)
    assert copy.at(t=1).spec.shard_shape == (cut.get("shard_shape", 64),) * 3
    assert copy.at(t=1).spec.compression == (None if cut else "zstd")
    assert other.bounding_box.get_bounds("t") == (0, 2)
    assert tuple(other.bounding_box.bottomright_xyz) == (305, 226, 38)
    with pytest.raises(AlreadyExistsError, match="mag 1"):
        other.add_mag_as_copy(layer.get_mag(1))
    layer.get_mag(1).write(data[1], t=0)
    again = other.add_mag_as_copy(layer.get_mag(1), exists_ok=True)
    assert np.array_equal(again.read(absolute_bounding_box=layer.bounding_box), data[[1, 1]])


def test_a_copy_as_another_mag_keeps_the_box(tmp_path):
    layer, data = make(tmp_path, "txyz")
    other = Dataset.create(tmp_path / "other", (4, 4, 9)).add_layer(
        "l", "color", bounding_box=layer.bounding_box, data_format="zarr3"
    )
    copy = other.add_mag_as_copy(layer.get_mag(1), mag=2)
    assert list(other.mags) == [2]
    corner = NDBoundingBox((1, 10, 12, 14), (1, 600, 440, 62), ("t", "x", "y", "z"))
    assert np.array_equal(copy.read(absolute_bounding_box=corner), data[1:2])


def test_what_is_no_copy(tmp_path):
    layer, _ = make(tmp_path, "txyz")
    mag = layer.get_mag(1)
    dataset = Dataset.create(tmp_path / "other", (4, 4, 9))
    box = layer.bounding_box
    ids = dataset.add_layer(
        "ids", "segmentation", bounding_box=box, data_format="zarr3", dtype_per_channel="uint32"
    )
    with pytest.raises(InvalidValueError, match="not a copy"):
        ids.add_mag_as_copy(mag)
    others = NDBoundingBox(tuple(box.topleft), tuple(box.size), ("q", "x", "y", "z"))
    by_q = dataset.add_layer("q", "color", bounding_box=others, data_format="zarr3")
    with pytest.raises(InvalidValueError, match="further axes q, the mag that is read has t"):
        by_q.add_mag_as_copy(mag)
    with pytest.raises(InvalidValueError, match=r"\(q\).*a mag that has them, not layer 'l' mag 1"):
        by_q.add_mag_as_copy(mag.at(t=0))
    plain = dataset.add_layer("plain", "color", data_format="zarr3")
    with pytest.raises(UnsupportedFormatError, match="is a mag for the rest"):
        plain.add_mag_as_copy(mag)
    assert [list(each.mags) for each in dataset.layers.values()] == [[], [], []]
    assert os.listdir(by_q.path) == []


@pytest.mark.parametrize("cut", [{}, {"shard_shape": 32, "compress": False}])
def test_a_copied_layer(tmp_path, cut):
    layer, _ = make(tmp_path)
    layer.downsample(coarsest_mag="2-2-1")
    layer.default_view_configuration = {"alpha": 0.5}
    dataset = Dataset.create(tmp_path / "other", (4, 4, 9))
    copy = dataset.add_layer_as_copy(layer, "copy", **cut)
    assert list(copy.mags) == list(layer.mags)
    assert copy.bounding_box == layer.bounding_box
    assert copy.default_view_configuration == layer.default_view_configuration
    for mag in layer.mags:
        assert np.array_equal(copy.get_mag(mag).read(), layer.get_mag(mag).read())
        assert copy.get_mag(mag).at(t=0).spec.shard_shape == (cut.get("shard_shape", 64),) * 3
    with pytest.raises(AlreadyExistsError, match="copy"):
        dataset.add_layer_as_copy(layer, "copy")


def test_a_layer_that_cannot_be_copied_leaves_nothing(tmp_path):
    layer, _ = make(tmp_path, "txyz")
    dataset = Dataset.create(tmp_path / "other", (4, 4, 9))
    with pytest.raises(UnsupportedFormatError, match="Zarr 3"):
        dataset.add_layer_as_copy(layer, data_format="wkw")
    (shard, *_) = sorted((layer.path / "1/c/1").glob("[0-9]*/*/*"))
    os.truncate(shard, 30)
    with pytest.raises(TaskFailedError):
        dataset.add_layer_as_copy(layer, shard_shape=32)
    assert list(dataset.layers) == []
    assert not os.path.exists(tmp_path / "other/l")
