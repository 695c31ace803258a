"""What is given to look at, as layers: names, mags, where expressions lie, types and contrast."""

import dask.array as da
import numpy as np
import pytest
from reprs import IDS, with_layer

from wkdask import BoundingBox, Mag, NDBoundingBox
from wkdask.errors import InvalidValueError
from wkdask.geometry.voxel_size import VoxelSize
from wkdask.kernels import downsample
from wkdask.properties.view_configuration import LayerViewConfiguration
from wkdask.viewer.chunks import ChunkCache
from wkdask.viewer.layers import Where, layers_of

DATA = np.random.default_rng(0).integers(1, 255, (90, 70, 20), np.uint8)


def layers(*shown, **where):
    return layers_of(shown, Where(**where))


def read(scale):
    """Return all voxels of a scale, by its chunks."""
    return ChunkCache(1 << 26).region(scale, scale.box)


@pytest.fixture
def color(ds):
    layer = with_layer(ds, "color", DATA)
    layer.downsample(coarsest_mag="4-4-2")
    return layer


def test_a_layer_has_a_scale_for_each_mag(ds, color):
    (shown,) = layers(color)
    assert (shown.name, shown.is_segmentation) == ("color", False)
    assert [scale.name for scale in shown.scales] == [mag.to_layer_name() for mag in color.mags]
    for mag, scale in zip(color.mags.values(), shown.scales, strict=True):
        assert scale.box == mag.box
        assert scale.voxel == tuple(ds.voxel_size[axis] * mag.mag.to_tuple()[axis] for axis in range(3))
        np.testing.assert_array_equal(read(scale), mag.read())


@pytest.mark.parametrize("data_format", ["wkw", "zarr3", "zarr"])
def test_every_format(ds, data_format):
    layer = ds.add_layer("a", "color", dtype_per_channel="uint8", data_format=data_format)
    layer.add_mag(1, chunk_shape=32).write(DATA, offset=(7, 8, 9))
    (shown,) = layers(layer)
    np.testing.assert_array_equal(read(shown.scales[0])[0], DATA)
    assert shown.scales[0].box == BoundingBox((7, 8, 9), DATA.shape)


def test_a_dataset_a_mag_and_a_view(ds, color):
    with_layer(ds, "cells", DATA.astype("uint32"), IDS)
    ds.add_layer("empty", "color", dtype_per_channel="uint8")
    both = layers(ds)
    assert [(each.name, each.is_segmentation) for each in both] == [("color", False), ("cells", True)]
    assert any("'empty' is not shown" in note for note in both[0].notes)
    mag = color.get_mag(1)
    names = [
        each.name for each in layers(mag, mag.get_view(offset=(1, 2, 3), size=(5, 6, 7)), ("other", color))
    ]
    assert names == ["color", "color 2", "other"]
    (view,) = layers(mag.get_view(offset=(1, 2, 3), size=(5, 6, 7)))
    np.testing.assert_array_equal(read(view.scales[0])[0], DATA[1:6, 2:8, 3:10])


def test_mags_and_a_part(color):
    (shown,) = layers(color, mags=(Mag(1),), bounding_box=BoundingBox((10, 10, 2), (4, 5, 6)))
    assert [scale.name for scale in shown.scales] == ["1"]
    np.testing.assert_array_equal(read(shown.scales[0])[0], DATA[10:14, 10:15, 2:8])
    with pytest.raises(InvalidValueError, match="no mag 32"):
        layers(color, mags=(Mag(32),))


def test_an_expression_lies_where_the_mag_does_that_it_reads(ds):
    layer = ds.add_layer("a", "color", dtype_per_channel="uint8")
    layer.add_mag(2, chunk_shape=16, shard_shape=32).write(DATA, offset=(7, 8, 9))
    mag = layer.get_mag(2)
    for expression in (
        255 - mag.to_dask(),
        255 - mag.to_dask()[0],
        da.ones(DATA.shape, dtype="u1") * mag.to_dask()[0],
    ):
        (shown,) = layers(expression)
        assert (shown.scales[0].box, shown.scales[0].name) == (mag.box, "2")
        assert shown.scales[0].voxel == tuple(2 * side for side in ds.voxel_size)
    (shown,) = layers(255 - mag.to_dask())
    np.testing.assert_array_equal(read(shown.scales[0])[0], 255 - DATA)


def test_an_array_with_coordinates_lies_where_they_say(ds):
    pytest.importorskip("xarray")
    layer = ds.add_layer("a", "color", dtype_per_channel="uint8")
    mag = layer.add_mag("2-2-1", chunk_shape=32)
    mag.write(DATA, offset=(7, 8, 9))
    labelled = 255 - mag.to_xarray()
    part = labelled.isel(x=slice(3, 40), z=slice(2, None))
    for given in (part, part.transpose("z", "y", "x", "c"), part.isel(c=0)):
        (shown,) = layers(given)
        assert (shown.name, shown.scales[0].name) == ("a", "2-2-1")
        assert shown.scales[0].box == BoundingBox((10, 8, 11), (37, 70, 18))
        np.testing.assert_array_equal(read(shown.scales[0])[0], 255 - DATA[3:40, :, 2:])
    with pytest.raises(InvalidValueError, match="reads no mag: say voxel_size="):
        layers(part.compute())
    (shown,) = layers(part.compute(), mags=(Mag("2-2-1"),), voxel_size=ds.voxel_size)
    assert shown.scales[0].box == BoundingBox((10, 8, 11), (37, 70, 18))


def test_coarser_scales_of_an_expression_are_downsampled_exactly(color):
    (shown,) = layers(255 - color.get_mag(1).to_dask())
    assert len(shown.scales) > 1
    for finer, coarser in zip(shown.scales, shown.scales[1:], strict=False):
        factors = tuple(round(b / a) for a, b in zip(finer.voxel, coarser.voxel, strict=True))
        voxels = read(finer)
        padding = [(0, -n % factor) for n, factor in zip(voxels.shape[1:], factors, strict=True)]
        expected = downsample(
            np.asfortranarray(np.pad(voxels, [(0, 0), *padding], mode="symmetric")), factors, "median"
        )
        np.testing.assert_array_equal(read(coarser), expected)


def test_a_function_of_a_layer_is_that_of_each_mag(color):
    (shown,) = layers(("inverted", lambda block: 255 - block, color))
    for mag, scale in zip(color.mags.values(), shown.scales, strict=True):
        np.testing.assert_array_equal(read(scale), 255 - mag.read())
    assert "approximate" in shown.notes[0]
    with pytest.raises(InvalidValueError, match="must keep the sides"):
        layers((lambda block: block[:, ::2], color))


def test_an_expression_of_the_query_optimiser(color):
    dask_array = pytest.importorskip("dask_array", reason="the package dask-array is not installed")
    lazy = 255 - dask_array.from_array(color.get_mag(1).read(), chunks=32)
    (shown,) = layers(lazy, bounding_box=color.bounding_box)
    np.testing.assert_array_equal(read(shown.scales[0])[0], 255 - DATA)


def test_where_an_expression_lies_must_be_known(ds, color):
    part = color.get_mag(1).to_dask()[:, 10:50]
    with pytest.raises(InvalidValueError, match="bounding_box="):
        layers(part)
    (shown,) = layers(part, bounding_box=BoundingBox((10, 0, 0), (40, 70, 20)))
    assert shown.scales[0].box == BoundingBox((10, 0, 0), (40, 70, 20))
    assert shown.scales[0].voxel == tuple(ds.voxel_size)
    np.testing.assert_array_equal(read(shown.scales[0])[0], DATA[10:50])
    (shown,) = layers(DATA, bounding_box=BoundingBox((0, 0, 0), (1, 1, 1)), voxel_size=VoxelSize((3, 4, 5)))
    assert (shown.name, shown.scales[0].voxel) == ("array", (3.0, 4.0, 5.0))


@pytest.mark.parametrize(
    "wrong", ["text", 7, ("name",), (), da.ones((2, 3)), da.ones((4, 4, 4), dtype="complex64"), ("a", "b")]
)
def test_other_things_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        layers(wrong, bounding_box=BoundingBox((0, 0, 0), (4, 4, 4)))


def test_nothing_is_refused():
    with pytest.raises(InvalidValueError, match="nothing to look at"):
        layers()


def test_contrast_comes_from_the_configuration_or_from_the_voxels(ds):
    data = np.full((300, 200, 20), 100, np.uint16)
    data[:100], data[-1] = 3000, 9  # the one at the edge is no sample
    layer = with_layer(ds, "a", data)
    assert layers(layer)[0].contrast == (100, 3000)
    layer.default_view_configuration = LayerViewConfiguration(color=(255, 0, 0), intensity_range=(10, 120))
    assert (layers(layer)[0].contrast, layers(layer)[0].color) == ((10, 120), (255, 0, 0))
    layer.default_view_configuration = LayerViewConfiguration(intensity_range=(10, 120), is_inverted=True)
    assert layers(layer)[0].contrast == (120, 10)


def test_types_that_the_client_does_not_know_are_noted(ds):
    assert "sent as float32" in layers(with_layer(ds, "a", DATA.astype("float64")))[0].notes[0]
    assert layers(with_layer(ds, "b", DATA.astype("float32")))[0].notes == ()
    (shown,) = layers((lambda block: block > 100, ds.get_layer("b")))
    assert set(np.unique(read(shown.scales[0]))) == {0, 255}


def test_further_axes_are_refused_by_name(ds):
    movie = ds.add_layer(
        "movie", "color", dtype_per_channel="uint8", data_format="zarr3",
        bounding_box=NDBoundingBox((0, 0, 0, 0), (3, 8, 8, 8), ("t", "x", "y", "z"), (1, 2, 3, 4)),
    )  # fmt: skip
    movie.add_mag(1, shard_shape=32)
    for shown in (movie, (lambda block: block, movie)):
        with pytest.raises(InvalidValueError, match="further axes"):
            layers(shown)
