"""Zarr in: every scale is a mag, voxel by voxel as it was; what cannot be is refused by name, early."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from foreign_zarr import halved, image, labels, turned

import wkdask
from wkdask import BoundingBox, Dataset, VoxelSize
from wkdask.convert import zarr as module
from wkdask.convert.scales import open_scales
from wkdask.convert.zarr import convert_zarr
from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    OutOfBoundsError,
    PlanError,
    TaskFailedError,
    UnsupportedFormatError,
    WkdaskWarning,
)

FACTORS = [(1, 1, 1), (2, 2, 1), (4, 4, 2)]


def pyramid(voxels, factors=FACTORS):
    return [(f, halved(voxels, f)) for f in factors]


def check(dataset, scales, corner=(0, 0, 0), layer="color"):
    """Compare every mag with what the scales hold."""
    found = Dataset(dataset).get_layer(layer)
    finest = scales[0][1]
    assert found.bounding_box == BoundingBox(corner, finest.shape[1:])
    if finest.min() < finest.max():
        shown = found.default_view_configuration
        is_image = found.category == "color"
        assert (shown and (shown.min, shown.max)) == ((finest.min(), finest.max()) if is_image else None)
    assert [mag.to_tuple() for mag in sorted(found.mags, key=lambda mag: mag.to_tuple())] == [
        f for f, _ in scales
    ]
    for factors, voxels in scales:
        mag = found.get_mag(factors)
        at = [c // f for c, f in zip(corner, factors, strict=True)]
        np.testing.assert_array_equal(mag.read(offset=at, size=voxels.shape[1:]), voxels)
    return found


# --- every voxel -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "axes"),
    [("0.4", "czyx"), ("0.5", "tczyx"), ("0.5", "zyx"), ("0.4", "xyz"), ("0.5", "cxyz"), ("0.4", "yzxc")],
)
def test_scales_become_mags(tmp_path, random_voxels, version, axes):
    scales = pyramid(random_voxels((3 if "c" in axes else 1, 75, 50, 21), "uint8"))
    path = image(tmp_path / "i.zarr", scales, axes, version, unit="micrometer", voxel=(0.25, 0.25, 1.5))
    reports = convert_zarr(path, tmp_path / "ds", chunk_shape=16, shard_shape=32, progress=False)
    check(tmp_path / "ds", scales)
    assert len(reports) == 3
    assert Dataset(tmp_path / "ds").voxel_size == VoxelSize((0.25, 0.25, 1.5), "micrometer")


@pytest.mark.parametrize(
    ("data_format", "dtype"), [("wkw", "uint16"), ("zarr3", "int32"), ("zarr", "float32"), ("wkw", "uint64")]
)
def test_types_and_formats(tmp_path, random_voxels, data_format, dtype):
    scales = pyramid(random_voxels((1, 40, 33, 10), dtype), FACTORS[:2])
    path = image(tmp_path / "i.zarr", scales)
    category = "segmentation" if dtype == "uint64" else "color"  # images of 64 bits are not shown
    convert_zarr(
        path, tmp_path / "ds", data_format=data_format, chunk_shape=16, category=category, progress=False
    )
    layer = check(tmp_path / "ds", scales)
    assert (layer.data_format, layer.dtype_per_channel) == (data_format, dtype)


@pytest.mark.parametrize("source_format", ["zarr3", "zarr"])
def test_our_own_image_comes_back_as_it_was(tmp_path, random_voxels, source_format):
    # whole shards on disk, the box only in the properties
    ds = Dataset.create(tmp_path / "a", VoxelSize((0.5, 0.5, 1.25), "micrometer"))
    layer = ds.add_layer("raw", "color", dtype_per_channel="uint16", data_format=source_format)
    cut = {"shard_shape": 32} if source_format == "zarr3" else {}
    layer.add_mag(1, chunk_shape=16, **cut).write(random_voxels((1, 90, 70, 20), "uint16"), offset=(17, 8, 5))
    layer.downsample(coarsest_mag=4)
    convert_zarr(layer.path, tmp_path / "b", layer_name="raw", chunk_shape=16, shard_shape=64, progress=False)
    back = Dataset(tmp_path / "b")
    assert back.voxel_size == ds.voxel_size
    other = back.get_layer("raw")
    assert other.bounding_box == layer.bounding_box
    assert sorted(map(str, other.mags)) == sorted(map(str, layer.mags)) == ["1", "2-2-1", "4-4-2"]
    for mag in layer.mags:
        assert other.get_mag(mag).box == layer.get_mag(mag).box
        np.testing.assert_array_equal(other.get_mag(mag).read(), layer.get_mag(mag).read())


@pytest.mark.parametrize("shift", ["half voxel", None])
def test_a_translation_is_where_the_layer_begins(tmp_path, random_voxels, shift):
    scales = pyramid(random_voxels((1, 40, 30, 8)))
    path = image(tmp_path / "i.zarr", scales, offset=(12, 8, 2), shift=shift)
    convert_zarr(path, tmp_path / "ds", chunk_shape=16, progress=False)
    check(tmp_path / "ds", scales, (12, 8, 2) if shift else (0, 0, 0))
    convert_zarr(path, tmp_path / "other", chunk_shape=16, offset=(100, 0, 4), progress=False)
    check(tmp_path / "other", scales, (100, 0, 4))


def test_a_flat_image_has_one_section(tmp_path, random_voxels):
    scales = pyramid(random_voxels((1, 60, 50, 1)), [(1, 1, 1), (2, 2, 1)])
    path = image(tmp_path / "i.zarr", scales, "yx", voxel=(4, 4, 4))
    convert_zarr(path, tmp_path / "ds", progress=False)
    check(tmp_path / "ds", scales)
    assert Dataset(tmp_path / "ds").scale == (4, 4, 4)


def test_units_that_differ_become_nanometers(tmp_path, random_voxels):
    units = {"x": "micrometer", "y": "nanometer", "z": "angstrom"}
    path = image(
        tmp_path / "i.zarr", pyramid(random_voxels((1, 20, 20, 4))), voxel=(0.5, 500, 20000), unit=units
    )
    convert_zarr(path, tmp_path / "ds", progress=False)
    assert Dataset(tmp_path / "ds").voxel_size.unit == "nanometer"
    assert Dataset(tmp_path / "ds").scale == pytest.approx((500, 500, 2000))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_become_segmentations(tmp_path, random_voxels, version):
    scales = pyramid(random_voxels((3, 40, 32, 8)))
    ids = random_voxels((1, 40, 32, 8), "uint32") // 2**12
    path = image(tmp_path / "i.zarr", scales, version=version)
    coarse = pyramid(ids, FACTORS[1:])
    labels(
        path, version, cells=(pyramid(ids), {"axes": "zyx"}), coarse=(coarse, {"axes": "zyx"}),
        noise=([((1, 1, 1), ids.astype("float32"))], {"axes": "zyx"}),
    )  # fmt: skip
    with pytest.warns(WkdaskWarning, match="'noise' are left out: .*float32"):
        convert_zarr(path, tmp_path / "ds", chunk_shape=16, shard_shape=16, progress=False)
    check(tmp_path / "ds", scales)
    check(tmp_path / "ds", pyramid(ids), layer="cells")
    assert Dataset(tmp_path / "ds").get_segmentation_layer("cells").largest_segment_id == ids.max()
    layer = Dataset(tmp_path / "ds").get_layer("coarse")
    assert sorted(map(str, layer.mags)) == ["2-2-1", "4-4-2"]
    np.testing.assert_array_equal(layer.get_mag("2-2-1").read(), coarse[0][1])
    convert_zarr(path, tmp_path / "alone", labels=False, progress=False)
    assert list(Dataset(tmp_path / "alone").layers) == ["color"]


@pytest.mark.parametrize("axes", ["czyx", "zyxc"])
def test_channels_become_layers_but_for_rgb(tmp_path, random_voxels, axes):
    scales = pyramid(random_voxels((3, 40, 32, 8), "uint16"))
    path = image(tmp_path / "i.zarr", scales, axes)
    with pytest.warns(WkdaskWarning, match="3 channels .* color_0 to color_2") as caught:
        convert_zarr(path, tmp_path / "ds", chunk_shape=16, progress=False)
    assert len(caught) == 1
    assert list(Dataset(tmp_path / "ds").layers) == ["color_0", "color_1", "color_2"]
    for number in range(3):
        check(tmp_path / "ds", [(f, v[number : number + 1]) for f, v in scales], layer=f"color_{number}")
    with pytest.warns(WkdaskWarning, match=r"does not show .*3 channels of uint16.*without --together"):
        convert_zarr(path, tmp_path / "one", chunk_shape=16, progress=False, together=True)
    check(tmp_path / "one", scales)
    with pytest.raises(InvalidValueError, match="no channel 3"):
        open_scales(path, together=True).layers[0].scales[0].array.one_channel(3)


def test_a_part_keeps_its_place(tmp_path, random_voxels):
    voxels = random_voxels((1, 64, 48, 16))
    path = image(tmp_path / "i.zarr", pyramid(voxels))
    box = BoundingBox((9, 10, 3), (30, 21, 9))
    convert_zarr(path, tmp_path / "ds", bbox=box, offset=(4, 4, 4), chunk_shape=16, progress=False)
    layer = Dataset(tmp_path / "ds").get_layer("color")
    assert layer.bounding_box == box.offset((4, 4, 4))
    for factors in FACTORS:
        inside = box.aligned_outwards(factors).in_mag(factors)
        expected = halved(voxels, factors)[(slice(None), *inside.to_slices())]
        np.testing.assert_array_equal(layer.get_mag(factors).read(), expected)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("axes", [None, "xyz", "cxyz", "yx"])
def test_one_array(tmp_path, random_voxels, zarr_format, axes):
    voxels = random_voxels((2 if axes == "cxyz" else 1, 50, 40, 1 if axes == "yx" else 9), "uint16")
    data = turned(voxels, axes or "zyx")
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=data.shape, dtype=data.dtype, chunks=tuple(min(7, n) for n in data.shape),
        zarr_format=zarr_format,
    )  # fmt: skip
    array[...] = data
    call = {"voxel_size": (4, 4, 40), "axes": axes, "chunk_shape": 16, "progress": False, "together": True}
    words = {None: "taken for zyx", "cxyz": "does not show .*2 channels"}.get(axes)
    with contextlib.nullcontext() if words is None else pytest.warns(WkdaskWarning, match=words):
        convert_zarr(tmp_path / "a.zarr", tmp_path / "ds", **call)
    check(tmp_path / "ds", [((1, 1, 1), voxels)])


def test_names_of_dimensions_tell_the_axes(tmp_path, random_voxels):
    voxels = random_voxels((1, 20, 30, 7))
    new = zarr.create_array(
        tmp_path / "3.zarr", data=turned(voxels, "xzy"), dimension_names=["X", "Z", "Y"], chunks=(8, 8, 8)
    )
    old = zarr.create_array(tmp_path / "2.zarr", data=turned(voxels, "yxz"), zarr_format=2, chunks=(8, 8, 8))
    old.attrs["_ARRAY_DIMENSIONS"] = ["y", "x", "z"]
    for name in (new, old):
        path = name.store.root
        convert_zarr(path, tmp_path / "ds", voxel_size=(1, 1, 1), layer_name=f"l{path.stem}", progress=False)
        check(tmp_path / "ds", [((1, 1, 1), voxels)], layer=f"l{path.stem}")


@pytest.mark.parametrize(
    "codecs",
    [
        {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")},
        {"compressors": zarr.codecs.GzipCodec()},
        {"compressors": None},
        {"shards": (32, 32, 32), "compressors": zarr.codecs.ZstdCodec()},
        {"fill_value": 7},
        {"filters": zarr.codecs.TransposeCodec(order=(1, 0, 2))},
    ],
    ids=["blosc", "gzip", "plain", "shards", "fill", "transposed"],
)  # fmt: skip
def test_codecs_of_others(tmp_path, random_voxels, codecs):
    voxels = random_voxels((1, 60, 40, 33), "uint16")
    voxels[:, :32, :32, :32] = 7
    data = turned(voxels, "zyx")
    zarr.create_array(tmp_path / "a.zarr", shape=data.shape, dtype="uint16", chunks=(16, 16, 16), **codecs)[
        ...
    ] = data
    convert_zarr(tmp_path / "a.zarr", tmp_path / "ds", voxel_size=(1, 1, 1), axes="zyx", progress=False)
    check(tmp_path / "ds", [((1, 1, 1), voxels)])


def test_filters_are_read_by_zarr_python(tmp_path):
    import numcodecs

    voxels = np.arange(24 * 20 * 10, dtype="int32").reshape((1, 24, 20, 10))
    zarr.create_array(
        tmp_path / "a.zarr", data=turned(voxels, "zyx"), zarr_format=2, chunks=(8, 8, 8),
        filters=[numcodecs.Delta(dtype="i4")],
    )  # fmt: skip
    (layer,) = open_scales(tmp_path / "a.zarr", voxel_size=(1, 1, 1), axes="zyx").layers
    assert layer.scales[0].array.store is None
    convert_zarr(tmp_path / "a.zarr", tmp_path / "ds", voxel_size=(1, 1, 1), axes="zyx", progress=False)
    check(tmp_path / "ds", [((1, 1, 1), voxels)])


# --- what does not fit -----------------------------------------------------------------------------------


def test_scales_that_are_no_mags_are_left_out_by_name(tmp_path, random_voxels):
    voxels = random_voxels((1, 48, 48, 12))
    factors = [(1, 1, 1), (1.5, 1.5, 1), (2, 2, 1), (3, 3, 1), (4, 4, 2)]
    scales = [(f, halved(voxels, [max(1, int(n)) for n in f])) for f in factors]
    path = image(tmp_path / "i.zarr", scales)
    with pytest.warns(WkdaskWarning) as caught:
        convert_zarr(path, tmp_path / "ds", progress=False)
    check(tmp_path / "ds", [scale for scale in scales if scale[0] in FACTORS])
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 2
    assert "scale '1'" in texts[0]
    assert "1.5 × 1.5 × 1" in texts[0]
    assert "scale '3'" in texts[1]
    assert "powers of two" in texts[1]


def test_a_scale_off_the_grid_is_left_out(tmp_path, random_voxels):
    scales = pyramid(random_voxels((1, 40, 30, 8)))
    path = image(tmp_path / "i.zarr", scales, offset=(2, 2, 0))
    with pytest.warns(WkdaskWarning, match=r"scale '2' .*\(2, 2, 0\) .*multiples of \(4, 4, 2\)"):
        convert_zarr(path, tmp_path / "ds", progress=False)
    check(tmp_path / "ds", scales[:2], (2, 2, 0))


def test_scales_that_were_cropped_or_padded(tmp_path, random_voxels):
    voxels = random_voxels((1, 41, 31, 8))
    fine, coarse = voxels, halved(voxels, (2, 2, 1))
    padded = np.zeros((1, 32, 32, 8), "uint8")
    padded[:, :21, :16] = coarse
    path = image(tmp_path / "padded.zarr", [((1, 1, 1), fine), ((2, 2, 1), padded)])
    convert_zarr(path, tmp_path / "a", progress=False)
    check(tmp_path / "a", [((1, 1, 1), fine), ((2, 2, 1), coarse)])
    path = image(tmp_path / "cropped.zarr", [((1, 1, 1), fine), ((2, 2, 1), coarse[:, :20])])
    with pytest.warns(WkdaskWarning, match=r"scale '1' .*the rest of that mag is 0"):
        convert_zarr(path, tmp_path / "b", progress=False)
    found = Dataset(tmp_path / "b").get_layer("color").get_mag("2-2-1").read()
    np.testing.assert_array_equal(found[:, :20], coarse[:, :20])
    assert not found[:, 20:].any()


def edit(path, change):
    """Change the OME metadata of an image of 0.5."""
    file = Path(path, "zarr.json")
    content = json.loads(file.read_text())
    change(content["attributes"]["ome"])
    file.write_text(json.dumps(content))


def first(ome):
    return ome["multiscales"][0]


def placing(kind, numbers, scale=None):
    """Return a change: a transformation of the whole image, or of a scale."""
    key = "path" if isinstance(numbers, str) else kind
    return lambda ome: (first(ome) if scale is None else first(ome)["datasets"][scale]).update(
        coordinateTransformations=[{"type": kind, key: numbers}]
    )


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda ome: ome.update(version="0.6"), UnsupportedFormatError, "0.6"),
        (lambda ome: ome.pop("multiscales"), DamagedHeaderError, "no OME-Zarr image"),
        (lambda ome: first(ome).pop("axes"), DamagedHeaderError, "axes"),
        (lambda ome: first(ome).update(axes=["z", "y", "x"]), UnsupportedFormatError, "0.4"),
        (lambda ome: first(ome)["axes"][0].update(name="q", type="space"), UnsupportedFormatError, "q, z, y, x"),
        (lambda ome: first(ome)["axes"][1].update(unit="cubit"), InvalidValueError, "cubit.*--voxel-size"),
        (lambda ome: first(ome)["axes"][1].pop("unit"), InvalidValueError, "--voxel-size"),
        (lambda ome: first(ome)["datasets"].clear(), DamagedHeaderError, "no scale"),
        (lambda ome: first(ome)["datasets"][0].update(path="9"), DamagedHeaderError, "9"),
        (lambda ome: first(ome)["datasets"][0].update(path="../other"), InvalidValueError, "outside"),
        (placing("scale", [1], 0), DamagedHeaderError, "4 axes"),
        (placing("scale", [1, 1, 1, 0], 0), DamagedHeaderError, "a scale of"),
        (placing("scale", "s", 0), UnsupportedFormatError, "path"),
        (placing("translation", [0, 0, 1, 0]), InvalidValueError, "--offset"),
        (placing("translation", [0, 0, 0, -4]), InvalidValueError, "--offset"),
    ],
)  # fmt: skip
def test_images_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path, random_voxels, change, error, words
):
    path = image(tmp_path / "i.zarr", pyramid(random_voxels((1, 20, 20, 4))))
    edit(path, change)
    with pytest.raises(error, match=words) as caught:
        convert_zarr(path, tmp_path / "ds", progress=False)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "ds").exists()


def test_times_types_and_shapes_that_no_layer_holds(tmp_path):
    for name, shape, dtype, axes, error, words in [
        ("time", (2, 8, 8, 8), "uint8", "tzyx", UnsupportedFormatError, "2 time points"),
        ("complex", (8, 8, 8), "complex64", "zyx", DTypeError, "complex64"),
        ("empty", (0, 8, 8), "uint8", "zyx", UnsupportedFormatError, "no voxel"),
        ("twice", (8, 8, 8), "uint8", "zyy", InvalidValueError, "zyy"),
        ("few", (8, 8, 8), "uint8", "yx", InvalidValueError, "yx"),
        ("no-x", (8, 8, 8), "uint8", "czy", InvalidValueError, "x and y"),
        ("six", (1,) * 6, "uint8", None, InvalidValueError, "--axes"),
        ("size", (8, 8, 8), "uint8", "zyx", InvalidValueError, "--voxel-size"),
        ("many", (65, 8, 8, 8), "uint8", None, InvalidValueError, "65 layers, .* axes czyx.*--axes"),
    ]:
        zarr.create_array(tmp_path / f"{name}.zarr", shape=shape, dtype=dtype)
        size = None if name == "size" else (1, 1, 1)
        with pytest.raises(error, match=words) as caught:
            convert_zarr(
                tmp_path / f"{name}.zarr", tmp_path / "ds", voxel_size=size, axes=axes, progress=False
            )
        assert f"{name}.zarr" in str(caught.value)
    assert not (tmp_path / "ds").exists()


def test_folders_that_are_something_else(tmp_path, random_voxels):
    (tmp_path / "plain").mkdir()
    with pytest.raises(InvalidValueError, match="no Zarr"):
        convert_zarr(tmp_path / "plain", tmp_path / "ds")
    group = zarr.create_group(tmp_path / "series.zarr")
    image(tmp_path / "series.zarr/0", pyramid(random_voxels((1, 20, 20, 4))))
    assert group is not None
    with pytest.raises(DamagedHeaderError, match="one by one: 0"):
        convert_zarr(tmp_path / "series.zarr", tmp_path / "ds")
    ds = Dataset.create(tmp_path / "own", (1, 1, 1))
    layer = ds.add_layer("l", "color", data_format="zarr")
    layer.add_mag(1, chunk_shape=16).write(random_voxels((1, 20, 20, 4)))
    with pytest.raises(DamagedHeaderError, match="WEBKNOSSOS dataset"):
        convert_zarr(ds.path, tmp_path / "ds")
    with pytest.raises(InvalidValueError, match="convert its layer"):
        convert_zarr(f"{layer.path}/1", tmp_path / "ds", voxel_size=(1, 1, 1))
    with pytest.raises(OutOfBoundsError, match="no part of"):
        convert_zarr(layer.path, tmp_path / "ds", bbox=BoundingBox((0, 0, 0), (999, 1, 1)))
    assert not (tmp_path / "ds").exists()


def test_a_layer_that_is_there_is_not_touched(tmp_path, random_voxels):
    scales = pyramid(random_voxels((1, 20, 20, 4)))
    path = image(tmp_path / "i.zarr", scales)
    convert_zarr(path, tmp_path / "ds", progress=False)
    with pytest.raises(AlreadyExistsError, match="color"):
        convert_zarr(path, tmp_path / "ds", progress=False)
    reports = convert_zarr(path, tmp_path / "ds", progress=False, resume=True)
    assert all(report.was_finished for report in reports)
    other = image(tmp_path / "other.zarr", pyramid(random_voxels((1, 20, 20, 4), seed=1)))
    with pytest.raises(AlreadyExistsError, match="holds voxels"):
        convert_zarr(other, tmp_path / "ds", progress=False, resume=True)
    with pytest.raises(InvalidValueError, match="voxels of"):
        convert_zarr(path, tmp_path / "ds", voxel_size=(9, 9, 9), layer_name="other", progress=False)
    check(tmp_path / "ds", scales)


# --- memory, faults, resuming ----------------------------------------------------------------------------


class Small:
    threads = 1

    def task_memory():
        return 100 << 20


def test_blocks_are_whole_chunks_of_the_array_and_fit_in_memory(tmp_path, monkeypatch):
    zarr.create_array(tmp_path / "sections.zarr", shape=(64, 512, 512), dtype="uint8", chunks=(1, 512, 512))
    (layer,) = open_scales(tmp_path / "sections.zarr", voxel_size=(1, 1, 1), axes="zyx").layers
    (scale,) = layer.scales
    spec = module.spec_of(
        "wkw", "uint8", 1, scale.box.size, compression="lz4", shard_shape=1024, chunk_shape=32
    )
    assert module._block_shape(scale, spec, 1, None) == (512, 512, 32)
    assert module._block_shape(scale, spec, 8, None) == (512, 512, 32)
    assert module._block_shape(scale, spec, 1, 7 << 20) == (256, 256, 32)  # 2 MiB, three times
    zarr.create_array(tmp_path / "one.zarr", shape=(256, 512, 512), dtype="uint8", chunks=(256, 512, 512))
    monkeypatch.setattr(module, "pick_engine", lambda client: Small)
    with (
        pytest.warns(WkdaskWarning, match="no chunk files"),
        pytest.raises(PlanError, match=r"one\.zarr is compressed in chunks of \(512, 512, 256\)"),
    ):
        convert_zarr(tmp_path / "one.zarr", tmp_path / "ds", voxel_size=(1, 1, 1), axes="zyx", progress=False)
    assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize("axes", ["zyx", "yx"])
def test_a_damaged_chunk_is_named_and_leaves_no_half_mag(tmp_path, random_voxels, axes):
    # our own reader, and zarr-python
    voxels = random_voxels((1, 64, 64, 1))
    path = image(tmp_path / "i.zarr", pyramid(voxels, FACTORS[:2]), axes, chunks=32, voxel=(4, 4, 4))
    (chunk,) = (file for file in Path(path, "1").rglob("*") if file.is_file() and file.name != "zarr.json")
    chunk.write_bytes(b"damaged")
    with pytest.raises(TaskFailedError) as caught:
        convert_zarr(path, tmp_path / "ds", progress=False)
    assert f"{path}/1" in str(caught.value)
    if axes == "zyx":
        assert str(chunk) in str(caught.value)
    assert list(Dataset(tmp_path / "ds").get_layer("color").mags) == [(1, 1, 1)]  # that is whole


@pytest.mark.parametrize("data_format", ["wkw", "zarr3"])
@pytest.mark.parametrize("is_there", [False, True])
def test_an_image_of_which_nothing_can_be_read_leaves_nothing(tmp_path, random_voxels, is_there, data_format):
    path = image(tmp_path / "i.zarr", pyramid(random_voxels((1, 64, 64, 1)), FACTORS[:1]), "zyx", chunks=64)
    (chunk,) = (file for file in Path(path, "0").rglob("*") if file.is_file() and file.name != "zarr.json")
    chunk.write_bytes(b"damaged")
    if is_there:
        Dataset.create(tmp_path / "ds", open_scales(path).voxel_size)
    with pytest.raises(TaskFailedError) as caught:
        convert_zarr(path, tmp_path / "ds", progress=False, data_format=data_format)
    assert "What the other tasks wrote" not in str(caught.value)
    assert os.path.exists(tmp_path / "ds") == is_there
    if is_there:
        assert not Dataset(tmp_path / "ds").layers
        assert not os.path.exists(tmp_path / "ds/color")


CHILD = """
import os, sys, threading
from wkdask.external.zarr import array as zarr_array
from wkdask.convert import zarr as zarr_layers
from wkdask.convert.zarr import convert_zarr
count, read, gate = [0], zarr_array.ZarrArray.read, threading.Lock()
def slow(self, box, threads=1):
    with gate:
        count[0] += 1
        if count[0] > 3:
            os._exit(9)
    return read(self, box, threads)
zarr_array.ZarrArray.read = slow
zarr_layers._LEAST_NBYTES = 32**3
convert_zarr(sys.argv[1], sys.argv[2], chunk_shape=16, shard_shape=32, progress=False)
"""


@pytest.mark.slow
def test_a_killed_conversion_goes_on(tmp_path, random_voxels, monkeypatch):
    scales = pyramid(random_voxels((1, 64, 64, 64)))
    path = image(tmp_path / "i.zarr", scales)
    env = {**os.environ, "PYTHONPATH": str(Path(wkdask.__file__).parents[1]), "DASK_NUM_WORKERS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, path, tmp_path / "ds"], env=env, check=False, timeout=120
    )
    assert done.returncode == 9
    with pytest.raises(AlreadyExistsError, match="--resume"):
        convert_zarr(path, tmp_path / "ds", chunk_shape=16, shard_shape=32, progress=False)
    from wkdask.external.zarr.array import ZarrArray

    monkeypatch.setattr(module, "_LEAST_NBYTES", 32**3)
    boxes, read = [], ZarrArray.read
    monkeypatch.setattr(
        ZarrArray, "read", lambda self, box, threads=1: boxes.append(box) or read(self, box, threads)
    )
    convert_zarr(path, tmp_path / "ds", chunk_shape=16, shard_shape=32, progress=False, resume=True)
    check(tmp_path / "ds", scales)
    fine = [box for box in boxes if box.size == (32, 32, 32)]
    assert 0 < len(fine) <= 6  # of 8, and at least two had landed
    reports = convert_zarr(path, tmp_path / "ds", chunk_shape=16, shard_shape=32, progress=False, resume=True)
    assert all(report.was_finished for report in reports)


@pytest.mark.slow
@pytest.mark.cluster
def test_on_a_cluster(tmp_path, random_voxels, local_cluster):
    from distributed import Client

    scales = pyramid(random_voxels((1, 80, 64, 40), "uint16"))
    path = image(tmp_path / "i.zarr", scales)
    with Client(local_cluster) as client:
        convert_zarr(path, tmp_path / "ds", chunk_shape=16, shard_shape=32, client=client, progress=False)
    check(tmp_path / "ds", scales)
