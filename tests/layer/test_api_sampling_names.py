"""Sampling with version 4's parameters: how new mags are cut, sources in other datasets, mags of other datasets."""

import numpy as np
import pytest
from small_datasets import COLOR, SEGMENTATION, filled, names, ramp

from wkdask import Dataset, SamplingModes, Zarr3Config
from wkdask.errors import AlreadyExistsError, InvalidValueError, WkdaskWarning

DATA = ramp(1, 64, 64, 64)
CUT = {"chunk_shape": 8, "shard_shape": 32}


@pytest.fixture
def layer(new):
    return filled(new(scale=(1, 1, 1)), DATA)


def cut(mag):
    return {"chunk_shape": mag.spec.chunk_shape.x, "shard_shape": mag.spec.shard_shape.x}


@pytest.fixture
def expected(layer, new):
    """The pyramid of the same voxels, cut as the finest mag."""
    other = filled(new("expected", (1, 1, 1)), DATA)
    other.downsample_mag_list(1, [2, 4])
    return {str(mag): view.read() for mag, view in other.mags.items()}


def check(layer, expected):
    for mag, voxels in expected.items():
        assert np.array_equal(layer.get_mag(mag).read(), voxels)


@pytest.mark.slow
def test_coarser_mags_are_cut_as_is_wished(layer, expected):
    layer.downsample(coarsest_mag=4, compress=False, **CUT)
    check(layer, expected)
    assert [cut(layer.get_mag(mag)) for mag in (2, 4)] == [CUT, CUT]
    assert layer.get_mag(2).spec.compression is None
    layer.delete_mag(4)
    layer.delete_mag(2)
    layer.downsample_mag(1, 2, chunk_shape=8)  # 16 chunks of it are a default cube, or what the format has
    assert layer.get_mag(2).spec.chunk_shape == (8, 8, 8)
    layer.downsample_mag_list(2, [4], shard_shape=64)
    assert cut(layer.get_mag(4)) == {"chunk_shape": 8, "shard_shape": 64}
    check(layer, expected)


def test_mags_are_only_set_up(layer):
    assert layer.downsample(coarsest_mag=4, only_setup_mags=True, **CUT) == []
    assert names(layer) == ["1", "2", "4"]
    assert not layer.get_mag(2).read().any()
    assert layer.downsample_mag(1, 8, only_setup_mag=True, **CUT) is None
    assert cut(layer.get_mag(8)) == CUT


def test_what_is_refused_leaves_no_mags(layer):
    layer.downsample_mag(1, 2)
    with pytest.raises(AlreadyExistsError):
        layer.downsample_mag_list(1, [2, 4], **CUT)
    with pytest.raises(AlreadyExistsError):
        layer.downsample(from_mag=1, coarsest_mag=4, **CUT)
    with pytest.raises(InvalidValueError):
        layer.downsample(coarsest_mag=8, interpolation_mode="nonsense", **CUT)
    with pytest.raises(InvalidValueError):
        layer.downsample(coarsest_mag=8, chunk_shape=3, shard_shape=5)
    with pytest.raises(InvalidValueError, match="max_mag"):
        layer.downsample(coarsest_mag=8, max_mag=8, **CUT)
    assert names(layer) == ["1", "2"]


def test_from_a_mag_of_another_dataset(layer, expected, new):
    target = new("target", (1, 1, 1)).add_layer("layer", COLOR)
    target.bounding_box = layer.bounding_box
    target.downsample(from_mag_view=layer.get_mag(1), coarsest_mag=4)
    assert names(target) == ["2", "4"]
    check(target, {mag: expected[mag] for mag in "24"})
    again = target.dataset.add_layer("again", COLOR)
    again.bounding_box = layer.bounding_box
    assert again.downsample_mag(1, 2, from_mag_view=layer.get_mag(1), **CUT).cubes == 1
    check(again, {"2": expected["2"]})
    assert names(layer) == ["1"]


def test_mags_of_another_dataset_that_do_not_fit(layer, new):
    ds = new("target", (1, 1, 1))
    target = ds.add_layer("layer", COLOR)
    with pytest.raises(InvalidValueError, match="empty"):
        target.downsample(from_mag_view=layer.get_mag(1))
    other = ds.add_layer("other", COLOR, "uint16")
    target.bounding_box = other.bounding_box = layer.bounding_box
    with pytest.raises(InvalidValueError, match="uint16"):
        other.downsample(from_mag_view=layer.get_mag(1), coarsest_mag=2)
    with pytest.raises(InvalidValueError, match="from_mag"):
        target.downsample(from_mag=2, from_mag_view=layer.get_mag(1), coarsest_mag=4)
    with pytest.raises(InvalidValueError, match="no mag"):
        target.downsample(coarsest_mag=4, **CUT)
    assert (names(target), names(other)) == ([], [])


@pytest.mark.parametrize("elsewhere", [False, True])
def test_finer_mags(new, elsewhere):
    coarse = filled(new(scale=(1, 1, 1)), ramp(1, 16, 16, 16), mag=4)
    target = coarse
    if elsewhere:
        target = new("target", (1, 1, 1)).add_layer("layer", COLOR)
        target.bounding_box = coarse.bounding_box
        target.upsample(4, from_mag_view=coarse.get_mag(4), finest_mag=1, compress=False, **CUT)
    else:
        target.upsample(4, finest_mag=1, **CUT)
    for mag in (2, 1):
        expected = np.repeat(ramp(1, 16, 16, 16), 4 // mag, axis=1)
        expected = np.repeat(np.repeat(expected, 4 // mag, axis=2), 4 // mag, axis=3)
        assert np.array_equal(target.get_mag(mag).read(), expected)
        assert cut(target.get_mag(mag)) == CUT
    with pytest.raises(AlreadyExistsError):
        target.upsample(4, finest_mag=1, from_mag_view=coarse.get_mag(4))
    with pytest.raises(InvalidValueError, match="8-8-1"):
        target.upsample(4, finest_mag="8-8-1", from_mag_view=coarse.get_mag(4))


def test_mags_follow_those_of_another_dataset(layer, new):
    guide = filled(new("guide", (1, 1, 1)), DATA)
    for mag in ("2-2-1", "4-4-2"):
        guide.add_mag(mag)
    layer.downsample(coarsest_mag="4-4-2", align_with_other_layers=guide.dataset)
    assert names(layer) == ["1", "2-2-1", "4-4-2"]
    free = filled(layer.dataset, DATA, name="free")
    free.downsample(coarsest_mag=4, align_with_other_layers=False)
    assert names(free) == ["1", "2", "4"]
    own = filled(new("own", (1, 1, 1)), DATA)  # its own layers are others only to other layers
    own.add_mag("2-2-1")
    own.delete_mag("2-2-1")
    own.downsample(coarsest_mag=4, align_with_other_layers=own.dataset)
    assert names(own) == ["1", "2", "4"]
    fine = filled(new("fine", (1, 1, 1)), ramp(1, 16, 16, 16), mag="4-4-2")
    fine.upsample("4-4-2", finest_mag=1, align_with_other_layers=guide.dataset)
    assert names(fine) == ["1", "2-2-1", "4-4-2"]


@pytest.mark.parametrize("mode", [SamplingModes.ISOTROPIC, SamplingModes.CONSTANT_Z, "isotropic"])
def test_modes_have_names(layer, mode):
    layer.downsample(coarsest_mag="4-4-1" if mode == "constant_z" else 4, sampling_mode=mode)
    assert names(layer) == (["1", "2-2-1", "4-4-1"] if mode == "constant_z" else ["1", "2", "4"])


def test_a_segmentation_in_zarr_by_a_configuration(new):
    data = np.repeat(np.repeat(np.repeat(ramp(1, 16, 16, 16, dtype="uint32"), 4, 1), 4, 2), 4, 3)
    layer = new(scale=(1, 1, 1)).add_layer("layer", SEGMENTATION, dtype="uint32", data_format="zarr3")
    layer.add_mag(1, chunk_shape=16, shard_shape=32).write(data)
    layer.downsample(coarsest_mag=4, compress=Zarr3Config(["gzip"]), **CUT)
    assert layer.get_mag(4).spec.compression == "gzip"
    assert np.array_equal(layer.get_mag(4).read(), data[:, ::4, ::4, ::4])
    assert np.array_equal(
        Dataset(layer.dataset.path).get_layer("layer").get_mag(2).read(), data[:, ::2, ::2, ::2]
    )


def test_arguments_of_2021_and_version_4_that_do_nothing_are_said(layer):
    layer.downsample(coarsest_mag=2)
    for arguments in ({"compress": True}, {"buffer_edge_len": 1}, {"args": object()}, {"chunk_shape": 8}):
        (name,) = arguments
        with pytest.warns(WkdaskWarning, match=f"{name}="):
            layer.redownsample(**arguments)
    for call in (
        lambda: layer.downsample(coarsest_mag=4, buffer_shape=(8, 8, 8)),
        lambda: layer.downsample_mag(1, 8, buffer_shape=(8, 8, 8)),
        lambda: layer.downsample_mag_list(1, [16], buffer_shape=(8, 8, 8)),
    ):
        with pytest.warns(WkdaskWarning, match="buffer_shape="):
            call()
    assert names(layer) == ["1", "2", "4", "8", "16"]
