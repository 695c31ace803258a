"""Pyramids of wkdask and of webknossos 4.3.3: the same mags, the same voxels."""

import shutil

import numpy as np
import pytest
from peer_process import (
    ODD,
    PLAIN,
    SBEM,
    TEM,
    PeerError,
    same_pyramid,
    voxels,
)

from wkdask import BoundingBox, Dataset, Mag, VoxelSize
from wkdask.errors import InvalidValueError, WkdaskWarning
from wkdask.pyramid import plan as pyramid_plan
from wkdask.pyramid.mags import default_coarsest_mag, mag_chain

pytestmark = pytest.mark.peer

WHOLE = BoundingBox((0, 0, 0), (64, 64, 64))
RAGGED = BoundingBox((3, 5, 7), (130, 67, 31))
SLIVER = BoundingBox((61, 62, 63), (7, 6, 5))
LINE = BoundingBox((1, 1, 1), (1, 1, 5))
SAMPLED = [(WHOLE, PLAIN), (RAGGED, SBEM), (RAGGED, ODD), (SLIVER, TEM), (SLIVER, PLAIN), (LINE, SBEM)]


@pytest.fixture
def twins(peer, tmp_path):
    """Return a function that downsamples the same voxels here and there, and compares all mags."""

    def compare(data, box, scale, category="color", coarsest="8", compression=None, **options):
        dtype = str(data.dtype)
        ds = Dataset.create(tmp_path / "ours", scale)
        layer = ds.add_layer("layer", category, dtype_per_channel=dtype, num_channels=len(data))
        layer.add_mag(1, shard_shape=64).write(data, offset=box.topleft)
        twin = tmp_path / "theirs"
        shutil.copytree(ds.path, twin)
        chain = peer("downsample", path=twin, layer="layer", coarsest_mag=coarsest, **options)
        layer.downsample(coarsest_mag=coarsest, compression=compression, **options)
        assert [str(mag) for mag in layer.mags] == chain
        same_pyramid(peer, ds, twin)

    return compare


@pytest.mark.parametrize(("box", "scale"), SAMPLED)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int16", "int32", "float32"])
def test_images_downsample_to_the_same_medians(twins, dtype, box, scale):
    twins(voxels((1, *box.size), dtype), box, scale)


@pytest.mark.parametrize(("box", "scale"), SAMPLED)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int16", "int64"])
@pytest.mark.parametrize("ids", [2, 4, 100])
def test_segmentations_downsample_to_the_same_modes_among_many_ties(twins, dtype, box, scale, ids):
    top = np.iinfo(dtype).max  # above 2**53 where the type goes there
    expected = top - voxels((1, *box.size), dtype, low=0, high=ids - 1)
    expected[expected == top] = 0  # an ordinary value
    twins(expected, box, scale, "segmentation")


@pytest.mark.parametrize(("box", "scale"), [(RAGGED, SBEM), (SLIVER, TEM), (LINE, SBEM)])
@pytest.mark.parametrize("mode", ["min", "max", "median", "mode"])
@pytest.mark.parametrize(("category", "dtype"), [("color", "int16"), ("segmentation", "uint32")])
def test_every_mode_gives_the_same_voxels(twins, mode, category, dtype, box, scale):
    twins(voxels((1, *box.size), dtype, low=0, high=9), box, scale, category, interpolation_mode=mode)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_min_max_of_huge_ids_are_the_same(twins, mode):
    data = voxels((1, *RAGGED.size), "uint64", low=2**53)
    twins(data, RAGGED, SBEM, "segmentation", interpolation_mode=mode)


@pytest.mark.parametrize("mode", ["default", "mode", "min", "max"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_three_channels_downsample_to_the_same_voxels(twins, dtype, mode):
    low_high = {} if dtype == "float32" else {"low": 0, "high": 5 if mode == "mode" else None}
    twins(voxels((3, *RAGGED.size), dtype, **low_high), RAGGED, SBEM, interpolation_mode=mode)


@pytest.mark.parametrize("mode", ["median", "min", "max"])
def test_voxels_that_are_no_numbers_spread_the_same_way(twins, mode):
    data = voxels((1, *RAGGED.size), "float32")
    data[:, ::7] = np.nan
    data[:, 1::5, ::3] = np.inf
    data[:, :, 1::6] = -np.inf
    twins(data, RAGGED, SBEM, interpolation_mode=mode)


@pytest.mark.parametrize("compression", [None, "lz4", "lz4hc"])
@pytest.mark.parametrize("sampling_mode", ["anisotropic", "isotropic", "constant_z"])
def test_each_sampling_mode_gives_the_same_pyramid(twins, sampling_mode, compression):
    box = BoundingBox((5, 60, 1), (200, 131, 70))
    twins(voxels((1, *box.size)), box, SBEM, sampling_mode=sampling_mode, compression=compression)


@pytest.mark.parametrize(
    ("category", "dtype", "ids"), [("color", "uint8", None), ("segmentation", "uint64", 3)]
)
@pytest.mark.parametrize("leaf", [1 << 12, 1 << 15, 1 << 18])
@pytest.mark.parametrize("scale", [PLAIN, SBEM])
def test_however_the_tree_is_cut_the_voxels_are_the_same(
    twins, monkeypatch, category, dtype, ids, leaf, scale
):
    for name, nbytes in [("LEAF_NBYTES", leaf), ("_LEAST_LEAF_NBYTES", leaf // 4), ("TILE_NBYTES", 1 << 13)]:
        monkeypatch.setattr(pyramid_plan, name, nbytes)
    box = BoundingBox((61, 3, 127), (197, 90, 75))
    data = voxels((1, *box.size), dtype, low=0, high=ids)
    twins(data, box, scale, category, coarsest="16", compression="lz4")


def test_an_empty_region_stays_empty_in_both_pyramids(twins):
    data = np.zeros((1, 200, 100, 70), "uint8", "F")
    data[:, 150:, 80:] = voxels((1, 50, 20, 70))
    twins(data, BoundingBox((0, 0, 0), (200, 100, 70)), SBEM)


@pytest.mark.parametrize("sampling_mode", ["anisotropic", "isotropic"])
def test_a_layer_of_one_section_keeps_its_one_section(twins, sampling_mode):
    box = BoundingBox((3, 5, 7), (130, 67, 1))
    with pytest.warns(WkdaskWarning, match="constant_z"):
        twins(voxels((1, *box.size)), box, SBEM, sampling_mode=sampling_mode)


@pytest.mark.parametrize("category", ["color", "segmentation"])
def test_a_pyramid_that_both_build_by_turns_is_the_one_that_either_builds(peer, tmp_path, category):
    data = voxels((1, *RAGGED.size), "uint16", low=0, high=3)
    ds = Dataset.create(tmp_path / "turns", PLAIN)
    layer = ds.add_layer("layer", category, dtype_per_channel="uint16")
    layer.add_mag(1, shard_shape=64, compression="lz4").write(data, offset=RAGGED.topleft)
    twin = tmp_path / "theirs"
    shutil.copytree(ds.path, twin)
    peer("downsample", path=twin, layer="layer", coarsest_mag="16")

    layer.downsample(coarsest_mag=2)
    peer("downsample", path=ds.path, layer="layer", coarsest_mag="4")
    layer.downsample(coarsest_mag=8, compression="lz4hc")
    peer("downsample", path=ds.path, layer="layer", coarsest_mag="16")
    same_pyramid(peer, ds, twin)


CHAINS = [
    # voxel size, from, to, sampling mode -> mags
    ((10.5, 10.5, 24), "1", "16", "anisotropic", ["2-2-1", "4-4-2", "8-8-4", "16-16-8"]),
    ((10.5, 10.5, 35), "1", "16", "anisotropic", ["2-2-1", "4-4-1", "8-8-2", "16-16-4"]),
    ((10.5, 10.5, 10.5), "1", "16", "anisotropic", ["2", "4", "8", "16"]),
    ((10.5, 24, 35), "1", "16", "anisotropic", ["2-1-1", "4-2-2", "8-4-4", "16-8-8"]),
    ((1, 1, 2), "2", "16-16-8", "anisotropic", ["4-4-2", "8-8-4", "16-16-8"]),
    ((1, 1, 4), "1", "16-16-2", "anisotropic", ["2-2-1", "4-4-1", "8-8-2", "16-16-2"]),
    ((85, 85, 346), "1", "4", "anisotropic", ["2-2-1", "4-4-1"]),
    ((4.6, 4.6, 45), "1", "32", "anisotropic", ["2-2-1", "4-4-1", "8-8-1", "16-16-2", "32-32-4"]),
    ((10.5, 10.5, 24), "1", "16", "isotropic", ["2", "4", "8", "16"]),
    ((1, 1, 1), "2-2-1", "8", "isotropic", ["4-4-2", "8-8-4"]),
    ((10.5, 10.5, 24), "1", "16", "constant_z", ["2-2-1", "4-4-1", "8-8-1", "16-16-1"]),
    ((10.5, 10.5, 24), "2", "16", "constant_z", ["4-4-2", "8-8-2", "16-16-2"]),
]


def chain_there(peer, path, scale, size, from_mag="1", coarsest=None, mode="anisotropic"):
    """Return the mags that the peer would compute; it only sets them up."""
    peer("create", path=path, factor=list(scale))
    peer("add_layer", path=path, name="layer", category="color", dtype="uint8", box=[[0, 0, 0], list(size)])
    peer("add_mag", path=path, layer="layer", mag=from_mag)
    options = {"coarsest_mag": coarsest, "sampling_mode": mode, "only_setup_mags": True}
    return peer("downsample", path=path, layer="layer", **options)[1:]


@pytest.mark.parametrize(("scale", "from_mag", "coarsest", "mode", "expected"), CHAINS)
def test_the_same_mags_are_chosen(peer, tmp_path, scale, from_mag, coarsest, mode, expected):
    chain = mag_chain(Mag(from_mag), Mag(coarsest), VoxelSize(scale), mode)
    assert [str(mag) for mag in chain] == expected
    assert chain_there(peer, tmp_path / "t", scale, (4096, 4096, 512), from_mag, coarsest, mode) == expected


def test_the_same_mags_are_chosen_for_voxels_of_any_shape(peer, tmp_path):
    rng = np.random.default_rng(4)
    for number in range(60):
        scale = tuple(map(float, rng.choice([1, 2, 3, 4, 4.6, 8, 10.5, 11.24, 25, 28, 45, 90.5], 3)))
        from_mag = str(rng.choice(["1", "2", "2-2-1", "1-1-2", "4-2-1", "1-2-4"]))
        coarsest = str(Mag(2 ** int(rng.integers(3, 7))))
        expected = chain_there(peer, tmp_path / f"{number}", scale, (4096, 4096, 512), from_mag, coarsest)
        chain = mag_chain(Mag(from_mag), Mag(coarsest), VoxelSize(scale))
        assert [str(mag) for mag in chain] == expected, (scale, from_mag, coarsest)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((20, 20, 20), 4),
        ((256, 256, 64), 4),
        ((400, 10, 10), 4),
        ((401, 10, 10), 8),
        ((10, 1601, 9000), 32),
        ((4096, 4096, 4096), 64),
        ((32768, 32768, 10), 512),
        ((65536, 1, 2), 1024),
        ((262144, 262144, 262144), 4096),
    ],
)
def test_the_same_mag_is_the_coarsest_by_default(peer, tmp_path, size, expected):
    box = BoundingBox((0, 0, 0), size)
    assert default_coarsest_mag(box).max_dim == expected
    chain = [str(mag) for mag in mag_chain(Mag(1), default_coarsest_mag(box), VoxelSize(SBEM))]
    theirs = chain_there(peer, tmp_path / "t", SBEM, size)
    assert theirs == chain
    assert Mag(theirs[-1]).max_dim == expected


@pytest.mark.parametrize(("from_mag", "coarsest"), [("2", "16-16-2"), ("1", "1-1-2"), ("1", "4-4-16")])
def test_neither_finds_a_way_to_a_mag_that_cannot_be_reached(peer, tmp_path, from_mag, coarsest):
    scale = (10.5, 10.5, 24)
    with pytest.raises(PeerError, match="RuntimeError"):
        chain_there(peer, tmp_path / "t", scale, (4096, 4096, 512), from_mag, coarsest)
    with pytest.raises(InvalidValueError):
        mag_chain(Mag(from_mag), Mag(coarsest), VoxelSize(scale))


def test_neither_takes_a_coarsest_mag_that_is_finer_than_the_start(peer, tmp_path):
    with pytest.raises(PeerError, match="AssertionError"):
        chain_there(peer, tmp_path / "t", SBEM, (4096, 4096, 512), "4-4-2", "2")
    with pytest.raises(InvalidValueError):
        mag_chain(Mag("4-4-2"), Mag("2"), VoxelSize(SBEM))


def test_constant_z_ignores_the_z_of_the_coarsest_mag(peer, tmp_path):
    expected = ["2-2-1", "4-4-1"]
    theirs = chain_there(peer, tmp_path / "t", SBEM, (4096, 4096, 512), "1", "4-4-16", "constant_z")
    chain = mag_chain(Mag(1), Mag("4-4-16"), VoxelSize(SBEM), "constant_z")
    assert [str(mag) for mag in chain] == theirs == expected


def test_a_second_layer_gets_the_mags_of_the_first(peer, tmp_path):
    ds = Dataset.create(tmp_path / "ours", PLAIN)
    for name in ("first", "second"):
        ds.add_layer(name, "color").add_mag(1, shard_shape=64).write(voxels((1, 64, 64, 64)))
    for mag in ("2-2-1", "4-4-1"):
        ds.get_layer("first").add_mag(mag, shard_shape=64)
    twin = tmp_path / "theirs"
    shutil.copytree(ds.path, twin)
    expected = peer("downsample", path=twin, layer="second", coarsest_mag="8")
    assert not {"2", "4"} & {*expected}, "the peer chose on its own"
    ds.get_layer("second").downsample(coarsest_mag=8)
    assert [str(mag) for mag in ds.get_layer("second").mags] == expected
