"""Exports, read back by libraries of others: every voxel, the voxel size, its unit; what cannot be is refused."""

import itertools
import json
import xml.etree.ElementTree as ElementTree
import zipfile

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from repository import SHARED
from thorough import examples, mostly_slow

from wkdask import BoundingBox, Dataset, VoxelSize, testing
from wkdask.convert.images import convert_images
from wkdask.convert.zarr import convert_zarr
from wkdask.errors import DTypeError, InvalidValueError
from wkdask.storage.protocol import DTYPES

CORNER = (5, 6, 7)
VOXEL = (4.6, 4.6, 45)
VNC = SHARED / "data" / "vnc"


def mag_of(folder, voxels, data_format="wkw", compression=None, mag=1, voxel_size=VOXEL, corner=CORNER):
    """Return a mag that holds voxels (c, x, y, z) from a corner on."""
    dataset = Dataset.create(folder, voxel_size)
    layer = dataset.add_layer(
        "color",
        "color",
        dtype_per_channel=str(voxels.dtype),
        num_channels=len(voxels),
        data_format=data_format,
    )
    made = layer.add_mag(
        mag, chunk_shape=16, shard_shape=16 if data_format == "zarr" else 32, compression=compression
    )
    made.write(voxels, offset=corner, progress=False)
    return made


# --- readers of others: each returns (c, x, y, z) -----------------------------------------------------------


def read_tiff(path):
    with tifffile.TiffFile(path) as tiff:
        (series,) = tiff.series
        axes, array = series.axes, series.asarray()
    for axis in "ZC":
        if axis not in axes and not (axis == "C" and "S" in axes):
            axes, array = axis + axes, array[None]
    axes = axes.replace("S", "C")
    return array.transpose([axes.index(axis) for axis in "CXYZ"])


def read_sections(folder):
    paths = sorted(folder.iterdir())
    return np.concatenate([read_tiff(path) for path in paths], axis=3)


def read_pngs(folder):
    sections = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
    return np.stack(
        [each[None].T if each.ndim == 2 else each.transpose(1, 0, 2) for each in sections]
    ).transpose(3, 1, 2, 0)


def read_npy(path):
    return np.load(path)


def read_nrrd(path):
    array, _ = pytest.importorskip("nrrd").read(str(path))
    return array if array.ndim == 4 else array[None]


def read_ozx(path):
    array = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")["0"]
    names, voxels = array.metadata.dimension_names, array[...]
    if "c" not in names:
        names, voxels = ("c", *names), voxels[None]
    return voxels.transpose([names.index(axis) for axis in "cxyz"])


WAYS = {
    "sections": ("tiff", "sections", read_sections, DTYPES),
    "tiff": ("tiff", "stack.tif", read_tiff, DTYPES),
    "ome-tiff": ("ome-tiff", "stack.ome.tif", read_tiff, [each for each in DTYPES if "int64" not in each]),
    "ozx": ("ozx", "image.ozx", read_ozx, DTYPES),
    "nrrd": ("nrrd", "a.nrrd", read_nrrd, DTYPES),
    "npy": ("npy", "a.npy", read_npy, DTYPES),
}


STORED = [("wkw", None), ("wkw", "lz4"), ("zarr3", "zstd"), ("zarr", "zstd")]


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=examples(10), phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_every_voxel_comes_out(tmp_path_factory, way, data):
    data_format, name, read, dtypes = WAYS[way]
    dtype = data.draw(st.sampled_from(dtypes), "dtype")
    channels = data.draw(st.sampled_from([1, 1, 2, 3]), "channels")
    size = data.draw(st.tuples(st.integers(2, 70), st.integers(2, 40), st.integers(2, 40)), "size")
    stored = data.draw(
        st.sampled_from([("wkw", None), ("wkw", "lz4"), ("zarr3", "zstd"), ("zarr", "zstd")]), "stored"
    )
    if channels == 3 and stored[0] == "wkw" and dtype != "uint8":
        channels = 2
    voxels = testing.random_voxels((channels, *size), dtype)
    tmp_path = tmp_path_factory.mktemp("export")
    mag = mag_of(tmp_path / "ds", voxels, *stored)
    low = data.draw(st.tuples(*(st.integers(0, side - 2) for side in size)), "low")
    box = BoundingBox(low, [side - at for side, at in zip(size, low, strict=True)])
    expected = voxels[(slice(None), *box.to_slices())]
    report = mag.export(
        tmp_path / name, data_format, offset=box.topleft + CORNER, size=box.size, progress=False
    )
    np.testing.assert_array_equal(read(tmp_path / name), expected)
    assert read(tmp_path / name).dtype.newbyteorder("=") == np.dtype(dtype)
    assert report.bytes == expected.nbytes
    assert report.files == (box.size.z if way == "sections" else 1)


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint8", 3), ("uint16", 1)])
def test_png(tmp_path, random_voxels, dtype, channels):
    voxels = random_voxels((channels, 40, 30, 10), dtype)
    mag_of(tmp_path / "ds", voxels).export(tmp_path / "png", "png", progress=False)
    np.testing.assert_array_equal(read_pngs(tmp_path / "png"), voxels)
    image = Image.open(tmp_path / "png" / "color_00007.png")
    image.load()
    assert image.info["voxel size"] == "4.6, 4.6, 45 nm"


@pytest.mark.parametrize(
    ("channels", "tile", "codec"),
    mostly_slow(
        itertools.product([1, 3], [None, 16, 64], ["none", "deflate", "lzw", "zstd"]),
        lambda n, _: n % 4 == (n // 4) % 4 or n % 12 == 11,  # every day each codec, each tile
    ),
)
def test_codecs_and_tiles(tmp_path, random_voxels, codec, tile, channels):
    voxels = random_voxels((channels, 70, 50, 6)) // 16
    mag = mag_of(tmp_path / "ds", voxels)
    for name in ("stack.tif", "sections", "stack.ome.tif"):
        mag.export(
            tmp_path / name, codec=codec, tile=tile, format=None if "." in name else "tiff", progress=False
        )
        read = read_tiff if "." in name else read_sections
        np.testing.assert_array_equal(read(tmp_path / name), voxels)
    with tifffile.TiffFile(tmp_path / "stack.tif") as tiff:
        page = tiff.pages[3]
        assert page.compression.name.replace("ADOBE_", "") == codec.upper()
        assert page.is_tiled == (tile is not None)
        assert (page.tilewidth, page.tilelength) == ((tile, tile) if tile else (0, 0))


def test_pages_of_many_strips(tmp_path, random_voxels):
    voxels = random_voxels((1, 600, 1000, 3), "uint16") // 999
    mag_of(tmp_path / "ds", voxels).export(tmp_path / "a.tif", progress=False)
    np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif"), voxels)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert len(tiff.pages[0].dataoffsets) == 5


def test_a_large_tiff_is_bigtiff(tmp_path, random_voxels, monkeypatch):
    voxels = random_voxels((1, 40, 30, 10))
    monkeypatch.setattr("wkdask.export.tiff._CLASSIC_NBYTES", voxels.nbytes - 1)
    report = mag_of(tmp_path / "ds", voxels).export(tmp_path / "a.tif", progress=False)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff
    np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif"), voxels)
    assert "ImageJ" in report.notes[0]


# --- metadata ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("voxel_size", "mag", "expected", "symbol"),
    [
        (VoxelSize(VOXEL), 1, (4.6, 4.6, 45), "nm"),
        (VoxelSize(VOXEL), (2, 2, 1), (9.2, 9.2, 45), "nm"),
        (VoxelSize((0.5, 0.25, 1.5), "micrometer"), 1, (0.5, 0.25, 1.5), "µm"),
        (VoxelSize((1, 2, 3), "inch"), 1, (2.54e7, 5.08e7, 7.62e7), "nm"),
    ],
)
def test_voxel_size_and_unit(tmp_path, random_voxels, voxel_size, mag, expected, symbol):
    source = mag_of(tmp_path / "ds", random_voxels((1, 20, 20, 20)), mag=mag, voxel_size=voxel_size)
    for name in ("a.tif", "a.ome.tif", "a.nrrd", "a.ozx", "a"):
        source.export(tmp_path / name, None if "." in name else "tiff", progress=False)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tags, imagej = tiff.pages[0].tags, tiff.imagej_metadata
        per_unit = [tags[name].value for name in ("XResolution", "YResolution")]
        assert [b / a for a, b in per_unit] == pytest.approx(expected[:2], rel=1e-6)
        assert imagej["spacing"] == pytest.approx(expected[2])
        assert imagej["unit"].replace("um", "µm").replace("\\u00B5m", "µm") == symbol
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        (pixels,) = [e for e in ElementTree.fromstring(tiff.ome_metadata).iter() if e.tag.endswith("Pixels")]
        assert [float(pixels.get(f"PhysicalSize{axis}")) for axis in "XYZ"] == pytest.approx(expected)
        assert {pixels.get(f"PhysicalSize{axis}Unit") for axis in "XYZ"} == {symbol}
    with tifffile.TiffFile(sorted((tmp_path / "a").iterdir())[0]) as tiff:
        tags = tiff.pages[0].tags
        nm = [1e7 * b / a for a, b in (tags[name].value for name in ("XResolution", "YResolution"))]
        assert nm == pytest.approx(
            [side * step for side, step in zip(voxel_size.to_nanometer(), source.mag, strict=True)][:2],
            rel=1e-6,
        )
        assert json.loads(tags["ImageDescription"].value)["spacing"] == pytest.approx(expected[2])
    header = pytest.importorskip("nrrd").read_header(str(tmp_path / "a.nrrd"))
    np.testing.assert_allclose(header["space directions"], np.diag(expected))
    np.testing.assert_allclose(header["space origin"], np.multiply(CORNER, expected))
    assert header["space units"] == [symbol.replace("µ", "u")] * 3


def test_ozx_is_as_rfc_9_says(tmp_path, random_voxels):
    voxels = random_voxels((2, 40, 30, 10), "uint16")
    voxels[:, :, :, 5:] = 0
    mag_of(tmp_path / "ds", voxels).export(tmp_path / "a.ozx", progress=False)
    with zipfile.ZipFile(tmp_path / "a.ozx") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["zarr.json", "0/zarr.json", "0/c/0/0/0/0"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.comment) == {
            "ome": {"version": "0.5", "zipFile": {"centralDirectory": {"jsonFirst": True}}}
        }
        group = json.loads(archive.read("zarr.json"))["attributes"]["ome"]
    (image,) = group["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "z", "y", "x"]
    scale, shift = image["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([1, 45, 4.6, 4.6])
    assert shift["translation"] == pytest.approx([0, 7 * 45, 6 * 4.6, 5 * 4.6])


def test_a_shard_of_zeros_is_no_entry(tmp_path):
    mag = mag_of(tmp_path / "ds", np.zeros((1, 300, 8, 8), "uint8"), corner=(0, 0, 0))
    mag.write(np.full((1, 1, 1), 3, "uint8"), offset=(299, 0, 0), progress=False)
    mag.export(tmp_path / "a.ozx", progress=False)
    with zipfile.ZipFile(tmp_path / "a.ozx") as archive:
        assert archive.namelist()[2:] == ["0/c/0/0/1"]
    np.testing.assert_array_equal(read_ozx(tmp_path / "a.ozx"), mag.read())


# --- and in again ------------------------------------------------------------------------------------------


SECTIONS = [
    ("tiff", "uint8", 1), ("tiff", "uint8", 3), ("tiff", "uint64", 1), ("tiff", "float32", 1),
    ("png", "uint8", 3), ("png", "uint16", 1),
]  # fmt: skip
BACK = [(*section, stored) for section in SECTIONS for stored in ("wkw", "zarr3", "zarr")]


@pytest.mark.parametrize(
    ("kind", "dtype", "channels", "stored"), mostly_slow(BACK, lambda n, _: n % 3 == n // 3 % 3)
)
def test_sections_are_what_convert_reads(tmp_path, random_voxels, stored, kind, dtype, channels):
    voxels = random_voxels((channels, 50, 40, 20), dtype)
    mag_of(tmp_path / "ds", voxels, stored).export(tmp_path / "out", kind, progress=False)
    category = "segmentation" if dtype == "uint64" else "color"
    convert_images(
        tmp_path / "out", tmp_path / "back", voxel_size=VOXEL, category=category, offset=CORNER,
        data_format=stored, chunk_shape=16, progress=False,
    )  # fmt: skip
    back = Dataset(tmp_path / "back").get_layer("color")
    assert back.bounding_box == BoundingBox(CORNER, voxels.shape[1:])
    np.testing.assert_array_equal(back.get_mag(1).read(), voxels)


@pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_a_stack_is_what_convert_reads(tmp_path, random_voxels, name, dtype):
    voxels = random_voxels((1, 50, 40, 20), dtype)
    mag_of(tmp_path / "ds", voxels).export(tmp_path / name, progress=False)
    convert_images(tmp_path / name, tmp_path / "back", voxel_size=VOXEL, chunk_shape=16, progress=False)
    np.testing.assert_array_equal(Dataset(tmp_path / "back").get_layer("color").get_mag(1).read(), voxels)


@pytest.mark.parametrize("stored", ["wkw", "zarr3", "zarr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_ozx_is_what_convert_reads(tmp_path, random_voxels, stored, channels):
    voxels = random_voxels((channels, 50, 40, 20))
    size = VoxelSize((0.5, 0.5, 1.25), "micrometer")
    mag_of(tmp_path / "ds", voxels, stored, voxel_size=size).export(tmp_path / "a.ozx", progress=False)
    convert_zarr(tmp_path / "a.ozx", tmp_path / "back", data_format=stored, chunk_shape=16, progress=False)
    back = Dataset(tmp_path / "back")
    assert back.voxel_size == size
    assert back.get_layer("color").bounding_box == BoundingBox(CORNER, voxels.shape[1:])
    np.testing.assert_array_equal(back.get_layer("color").get_mag(1).read(), voxels)


def test_one_channel(tmp_path, random_voxels):
    voxels = random_voxels((2, 50, 40, 20), "uint16")
    mag = mag_of(tmp_path / "ds", voxels)
    for name, read in (("a.npy", read_npy), ("a.ozx", read_ozx), ("a.tif", read_tiff), ("a.nrrd", read_nrrd)):
        mag.export(tmp_path / name, channel=1, progress=False)
        np.testing.assert_array_equal(read(tmp_path / name), voxels[1:])


@pytest.mark.skipif(not VNC.is_dir(), reason="the images of ../shared/data are not here")
def test_real_sections_come_back(tmp_path):
    part = BoundingBox((0, 0, 0), (512, 384, 20))
    convert_images(VNC / "raw", tmp_path / "ds", voxel_size=VOXEL, bbox=part, progress=False)
    mag = Dataset(tmp_path / "ds").get_layer("color").get_mag(1)
    mag.export(tmp_path / "tiff", "tiff", progress=False)
    images = [tifffile.imread(path) for path in sorted((VNC / "raw").iterdir())]
    expected = np.stack([image[:384, :512].T for image in images], axis=-1)
    np.testing.assert_array_equal(read_sections(tmp_path / "tiff")[0], expected)
    convert_images(tmp_path / "tiff", tmp_path / "back", voxel_size=VOXEL, progress=False)
    assert Dataset(tmp_path / "ds").first_difference(Dataset(tmp_path / "back")) is None


# --- what cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "channels", "arguments", "error", "words"),
    [
        ("uint32", 1, {"format": "png"}, DTypeError, "uint32"),
        ("float32", 1, {"format": "png"}, DTypeError, "float32"),
        ("uint16", 2, {"format": "png"}, DTypeError, "--channel"),
        ("uint64", 1, {"format": "ome-tiff"}, DTypeError, "uint64"),
        ("int64", 1, {"format": "ome-tiff"}, DTypeError, "int64"),
        ("uint8", 1, {"format": "gif"}, InvalidValueError, "ome-tiff"),
        ("uint8", 1, {"format": None}, InvalidValueError, "--format"),
        ("uint8", 1, {"format": "npy", "codec": "zstd"}, InvalidValueError, "none"),
        ("uint8", 1, {"format": "png", "codec": "deflate"}, InvalidValueError, "its own|one of its own"),
        ("uint8", 1, {"format": "tiff", "codec": "lz4"}, InvalidValueError, "deflate"),
        ("uint8", 1, {"format": "tiff", "tile": 20}, InvalidValueError, "multiple of 16"),
        ("uint8", 1, {"format": "npy", "tile": 16}, InvalidValueError, "tiles"),
        ("uint8", 1, {"format": "npy", "name": "{z}.tif"}, InvalidValueError, "folder"),
        ("uint8", 1, {"format": "tiff", "name": "section.tif"}, InvalidValueError, "{z}"),
        ("uint8", 1, {"format": "tiff", "name": "{z}.png"}, InvalidValueError, ".tif"),
        ("uint8", 1, {"format": "tiff", "name": "../{z}.tif"}, InvalidValueError, "pattern"),
        ("uint8", 1, {"format": "tiff", "name": "{y}.tif"}, InvalidValueError, "pattern"),
        ("uint8", 1, {"format": "tiff", "name": "{z.real.imag}.tif"}, InvalidValueError, "pattern"),
        (
            "uint8",
            1,
            {"format": "tiff", "size": (1, 9, 9), "offset": (5, 6, 7)},
            InvalidValueError,
            "ome-tiff",
        ),
        ("uint8", 1, {"format": "tiff", "channel": 1}, InvalidValueError, "no channel 1"),
        ("uint8", 1, {"format": "npy", "size": (0, 1, 1), "offset": (0, 0, 0)}, InvalidValueError, "nothing"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    tmp_path, random_voxels, dtype, channels, arguments, error, words
):
    mag = mag_of(tmp_path / "ds", random_voxels((channels, 10, 10, 10), dtype))
    with pytest.raises(error, match=words):
        mag.export(tmp_path / "out", progress=False, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["ds"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s{n:03}.tif", ["s000.tif", "s001.tif", "s002.tif"]),
        ("{layer}-{mag}-{z}.tiff", ["color-1-7.tiff", "color-1-8.tiff", "color-1-9.tiff"]),
        ("{z:06d}.tif", ["000007.tif", "000008.tif", "000009.tif"]),
    ],
)
def test_names(tmp_path, random_voxels, name, expected):
    mag = mag_of(tmp_path / "ds", random_voxels((1, 10, 10, 3)))
    mag.export(tmp_path / "out", "tiff", name=name, progress=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == expected
