"""What is taken of a stack: boxes decode no more than they touch, and values change only where asked, exactly."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from thorough import examples
from tiff_files import write_reversed

import wkdask
from wkdask.convert.images import convert_images, plan_images
from wkdask.errors import DTypeError, ImageStackError, InvalidValueError, OutOfBoundsError, PlanError
from wkdask.external.images.selection import select
from wkdask.external.images.stack import open_stack
from wkdask.geometry import BoundingBox

SIZE = (4.6, 4.6, 45)
BOX = BoundingBox((21, 35, 0), (90, 31, 1))
KINDS = {
    "plain": {},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "strips": {"rowsperstrip": 16, "compression": "zlib", "predictor": True},
    "lzw": {"rowsperstrip": 7, "compression": "lzw"},
    "tiles": {"tile": (32, 48)},
    "packed tiles": {"tile": (32, 48), "compression": "zlib"},
    "zstd tiles": {"tile": (16, 16), "compression": "zstd", "bigtiff": True},
}


def image(channels=1, dtype="uint16", seed=0, height=100, width=150):
    """Return a smooth image (y, x) or (y, x, c) of large values."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    shape = (height, width) if channels == 1 else (height, width, channels)
    return rng.integers(top // 2, top, shape, dtype, endpoint=True)


def saved(path, voxels, **options):
    rgb = voxels.ndim == 3
    tifffile.imwrite(path, voxels, photometric="rgb" if rgb else "minisblack", **options)
    return path


def window(voxels, box):
    """Return what a box of an image holds, as (c, x, y)."""
    low, high = box.topleft, box.bottomright
    cut = voxels[low.y : high.y, low.x : high.x]
    return cut.T.reshape(-1, *box.size[:2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint16"), (3, "uint8"), (3, "uint16")])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_box_of_every_kind_of_tiff(tmp_path, kind, channels, dtype, planar):
    voxels = image(channels, dtype)
    options = dict(KINDS[kind])
    if channels == 3:
        options["planarconfig"] = planar
        if planar == "separate":
            voxels = np.moveaxis(voxels, -1, 0)
    path = saved(tmp_path / "a.tif", voxels, **options)
    flat = np.moveaxis(voxels, 0, -1) if channels == 3 and planar == "separate" else voxels
    stack = open_stack([path])
    np.testing.assert_array_equal(stack.read(0, 1)[..., 0], flat.T.reshape(channels, 150, 100))
    got = select(stack, BOX).read(0, 1)
    np.testing.assert_array_equal(got[..., 0], window(flat, BOX))
    assert got.flags.f_contiguous


def test_a_box_of_jpeg_tiles_png_and_jpeg(tmp_path):
    # lossy: the box is what the whole image decodes to
    smooth = np.add.outer(np.arange(100), np.arange(150)).astype("uint8")
    tifffile.imwrite(tmp_path / "grey.tif", smooth, tile=(32, 48), compression="jpeg")
    colours = np.stack([smooth, smooth[::-1], smooth[:, ::-1]], -1)
    tifffile.imwrite(tmp_path / "rgb.tif", colours, tile=(32, 48), compression="jpeg", photometric="rgb")
    Image.fromarray(colours).save(tmp_path / "a.png")
    Image.fromarray(colours).save(tmp_path / "a.jpg")
    for name in ("grey.tif", "rgb.tif", "a.png", "a.jpg"):
        stack = open_stack([tmp_path / name])
        low, high = BOX.topleft, BOX.bottomright
        whole = stack.read(0, 1)[:, low.x : high.x, low.y : high.y]
        np.testing.assert_array_equal(select(stack, BOX).read(0, 1), whole, err_msg=name)


@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_any_box_of_tiles_and_strips(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    voxels = image(seed=1, height=37, width=53)
    spans = [sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)))) for n in (53, 37)]
    (x0, x1), (y0, y1) = ((low, max(high, low + 1)) for low, high in spans)
    box = BoundingBox((x0, y0, 0), (x1 - x0, y1 - y0, 1))
    for number, options in enumerate(({"tile": (16, 16)}, {"rowsperstrip": 5, "compression": "zlib"}, {})):
        path = folder / f"any{number}.tif"
        if not path.exists():
            saved(path, voxels, **options)
        got = select(open_stack([path]), box).read(0, 1)
        np.testing.assert_array_equal(got[..., 0], window(voxels, box))


def test_only_tiles_of_the_box_are_decoded(tmp_path):
    voxels = image()
    path = saved(tmp_path / "a.tif", voxels, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offsets, counts = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    with open(path, "r+b") as file:  # the last tile, far from the box
        file.seek(offsets[-1])
        file.write(os.urandom(counts[-1]))
    stack = open_stack([path])
    box = BoundingBox((0, 0, 0), (100, 64, 1))
    np.testing.assert_array_equal(select(stack, box).read(0, 1)[..., 0], window(voxels, box))
    with pytest.raises(ImageStackError, match=r"a\.tif"):
        stack.read(0, 1)


def test_a_selection_travels_light_and_subsets(tmp_path):
    for z in range(9):
        saved(tmp_path / f"{z}.tif", image(seed=z))
    whole = select(open_stack([tmp_path]), BoundingBox((3, 4, 2), (50, 40, 6)), "uint8", (0, 65535))
    part, first = pickle.loads(pickle.dumps(whole)).subset(3, 5)
    assert [Path(file.path).name for file in part.stack.sections] == ["5.tif", "6.tif"]
    np.testing.assert_array_equal(part.read(first, first + 2), whole.read(3, 5))
    assert len({whole.digest, select(whole.stack).digest, select(whole.stack, whole.box).digest}) == 3
    assert select(whole.stack).digest == whole.stack.digest


# --- values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32"])
@pytest.mark.parametrize("wanted", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("limits", [(0, 4095), (-300.5, 20000), (100, 101)])
def test_rescaled_values_are_proportions_rounded_and_cut(tmp_path, dtype, wanted, limits):
    rng = np.random.default_rng(5)
    if dtype == "float32":
        voxels = (rng.normal(size=(60, 70)) * 5000).astype(dtype)
        voxels[0, :4] = np.nan, np.inf, -np.inf, 0
    else:
        info = np.iinfo(dtype)
        voxels = rng.integers(info.min, info.max, (60, 70), dtype, endpoint=True)
        voxels[0, :2] = info.min, info.max
    (low, high), top = limits, np.iinfo(wanted).max
    exact = (np.nan_to_num(voxels.astype("float64"), nan=low, posinf=1e200, neginf=-1e200) - low) * (
        top / (high - low)
    )
    expected = np.clip(np.rint(exact), 0, top).astype(wanted)
    got = select(open_stack([saved(tmp_path / "a.tif", voxels)]), None, wanted, limits).read(0, 1)
    assert got.dtype == wanted
    np.testing.assert_array_equal(got[0, ..., 0], expected.T)


def test_values_are_never_lost_unasked(tmp_path):
    voxels = image(dtype="uint16")
    stack = open_stack([saved(tmp_path / "a.tif", voxels)])
    wide = select(stack, dtype="uint32").read(0, 1)
    assert wide.dtype == "uint32"
    np.testing.assert_array_equal(wide[0, ..., 0], voxels.T)
    for narrow in ("uint8", "int16"):
        with pytest.raises(DTypeError, match=rf"a\.tif holds uint16, and {narrow} cannot .*--rescale"):
            select(stack, dtype=narrow)
    with pytest.raises(DTypeError, match="no type"):
        select(stack, dtype="uint7")
    for dtype, rescale in [
        (None, (0, 1)),
        ("float32", (0, 1)),
        ("uint8", (1, 1)),
        ("uint8", (0, np.nan)),
        ("uint8", (1,)),
    ]:
        with pytest.raises(InvalidValueError, match="rescale"):
            select(stack, dtype=dtype, rescale=rescale)
    for box in (
        BoundingBox((0, 0, 0), (151, 5, 1)),
        BoundingBox((0, 0, 1), (5, 5, 1)),
        BoundingBox((0, 0, 0), (5, 0, 1)),
    ):
        with pytest.raises(OutOfBoundsError, match=r"the stack.*150"):
            select(stack, box)


# --- conversions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["wkw", "zarr3", "zarr"])
def test_a_box_keeps_its_place(tmp_path, data_format):
    stack = np.stack([image(seed=z) for z in range(70)], -1)  # (y, x, z)
    (tmp_path / "in").mkdir()
    for z in range(70):
        saved(tmp_path / "in" / f"{z}.tif", stack[..., z], compression="zlib")
    for z in (0, 1, 69):  # outside: never decoded
        with open(tmp_path / "in" / f"{z}.tif", "r+b") as file:
            file.seek(-600, os.SEEK_END)
            file.write(os.urandom(500))
    box = BoundingBox((21, 35, 5), (90, 31, 60))
    report = convert_images(
        tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, bbox=box, offset=(100, 0, 7), dtype="uint8",
        rescale=(0, 65535), data_format=data_format, chunk_shape=16, progress=False,
    )  # fmt: skip
    layer = wkdask.Dataset(tmp_path / "ds").get_layer("color")
    assert layer.bounding_box == BoundingBox((121, 35, 12), box.size) == report.bounding_box
    assert (layer.data_format, layer.dtype_per_channel) == (data_format, "uint8")
    expected = np.rint(stack[35:66, 21:111, 5:65] / 257).astype("uint8").transpose(1, 0, 2)
    np.testing.assert_array_equal(layer.get_mag(1).read()[0], expected)
    assert layer.get_mag(1).spec.compression == (None if data_format == "wkw" else "zstd")


@pytest.mark.parametrize(("data_format", "shard"), [("zarr3", 64), ("zarr", None)])
def test_into_zarr_as_other_readers_see_it(tmp_path, data_format, shard):
    import zarr

    voxels = np.stack([image(3, "uint8", seed=z) for z in range(5)])  # (z, y, x, c)
    (tmp_path / "in").mkdir()
    for z in range(5):
        saved(tmp_path / "in" / f"{z}.tif", voxels[z])
    convert_images(
        tmp_path / "in", tmp_path / "ds", voxel_size=SIZE, data_format=data_format, chunk_shape=32,
        shard_shape=shard, compression="gzip", progress=False,
    )  # fmt: skip
    array = zarr.open_array(tmp_path / "ds/color/1", mode="r")
    assert array.chunks == (3, 32, 32, 32)
    assert array.shards == (None if shard is None else (3, 64, 64, 64))
    np.testing.assert_array_equal(array[:, :150, :100, :5], voxels.transpose(3, 2, 1, 0))


PLANNED = {
    # an image is 6 MB, of which the box is 64 x 64
    "one strip": ({"compression": "zlib", "rowsperstrip": 1500}, 13_000_000, 11_000_000),
    "reversed bits": ({"reversed": True}, 13_000_000, 11_000_000),
    "plain": ({}, 600_000, 500_000),  # twice 64 rows of 4000 bytes
    "strips": ({"compression": "zlib", "rowsperstrip": 100}, 900_000, 700_000),
    "tiles": ({"tile": (256, 256)}, 330_000, 270_000),
    "packed tiles": ({"tile": (256, 256), "compression": "zlib"}, 330_000, 270_000),
}


@pytest.mark.parametrize(("options", "enough", "less"), PLANNED.values(), ids=PLANNED)
def test_the_plan_counts_what_is_decoded(tmp_path, monkeypatch, options, enough, less):
    from wkdask.external.images import job as job_module

    if "reversed" in options:
        write_reversed(tmp_path / "a.tif", image(width=2000, height=1500))
    else:
        saved(tmp_path / "a.tif", image(width=2000, height=1500), **options)
    small = BoundingBox((0, 0, 0), (64, 64, 1))
    monkeypatch.setattr(job_module.LocalEngine, "task_memory", lambda self: enough)
    plan_images(tmp_path / "a.tif", bbox=small)
    monkeypatch.setattr(job_module.LocalEngine, "task_memory", lambda self: less)
    with pytest.raises(PlanError, match="decode"):
        plan_images(tmp_path / "a.tif", bbox=small)


def test_the_plan_counts_a_whole_png(tmp_path, monkeypatch):
    from wkdask.external.images import job as job_module

    Image.fromarray(image(width=2000, height=1500)).save(tmp_path / "a.png")
    small = BoundingBox((0, 0, 0), (64, 64, 1))
    monkeypatch.setattr(job_module.LocalEngine, "task_memory", lambda self: 13_000_000)
    plan_images(tmp_path / "a.png", bbox=small)
    monkeypatch.setattr(job_module.LocalEngine, "task_memory", lambda self: 11_000_000)
    with pytest.raises(PlanError, match="decode"):
        plan_images(tmp_path / "a.png", bbox=small)
