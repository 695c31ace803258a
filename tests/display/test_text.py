"""Reprs and previews: what datasets, layers and mags say of themselves, and what they look like."""

import os
import re
import shutil
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from reprs import COLOR, IDS, SHAPES, edit, tags, with_layer

from wkdask import BoundingBox, Dataset, VoxelSize
from wkdask.display import preview
from wkdask.display.html import dataset_html
from wkdask.display.preview import preview as picture
from wkdask.display.preview import save_preview
from wkdask.display.text import dataset_text, layer_text, mag_text
from wkdask.errors import (
    CategoryError,
    DamagedCubeError,
    InvalidValueError,
    LayerNotFoundError,
    OutOfBoundsError,
    WkdaskWarning,
)

# --- text ---------------------------------------------------------------------------------------------


def test_the_tree_of_a_dataset(ds):
    raw = with_layer(ds, compression="lz4")
    raw.downsample(coarsest_mag=2)
    with_layer(ds, "cells", np.full((8, 8, 8), 2**63 + 1, np.uint64), IDS)
    text = re.sub(r"[\d.]+ (B|KiB) on disk", "SIZE on disk", repr(ds))
    assert text.splitlines() == [
        "tissue",
        f"│  {ds.path}",
        "│  voxel size 8 × 8 × 30 nm",
        "├─ raw: color, uint32",
        "│  │  box (0, 0, 0) + (40, 20, 6) voxels of mag 1, 0.32 × 0.16 × 0.18 µm",
        "│  ├─ mag 1      40 × 20 × 6 voxels  18.8 KiB  2 cubes of 32³  chunks 16³  compression lz4  SIZE on disk",
        "│  └─ mag 2-2-1  20 × 10 × 6 voxels  4.69 KiB  1 cube of 32³   chunks 16³  compression lz4  SIZE on disk",
        "└─ cells: segmentation, uint64",
        "   │  box (0, 0, 0) + (8, 8, 8) voxels of mag 1, 0.064 × 0.064 × 0.24 µm",
        "   │  largest segment id 9223372036854775809",
        "   └─ mag 1  8 × 8 × 8 voxels  4 KiB  1 cube of 32³  chunks 16³  compression none  SIZE on disk",
    ]
    assert repr(ds) == dataset_text(ds)


def test_a_layer_and_a_mag(ds):
    layer = with_layer(ds, data=np.ones((3, 8, 8, 8), np.uint8))
    first, box, mag = repr(layer).splitlines()
    assert first == "raw: color, uint8 × 3 channels"
    assert box == "│  box (0, 0, 0) + (8, 8, 8) voxels of mag 1, 0.064 × 0.064 × 0.24 µm"
    assert mag.startswith("└─ mag 1  8 × 8 × 8 voxels  1.5 KiB  1 cube of 32³")
    rows = dict(re.split(r" *: ", line, maxsplit=1) for line in repr(layer.get_mag(1)).splitlines())
    assert rows["Mag"] == "1 of layer 'raw' (color, uint8 × 3 channels)"
    assert rows["Box"] == "(0, 0, 0) + (8, 8, 8) (voxels of this mag)"
    assert rows["Voxels"] == "8 × 8 × 8, 1.5 KiB; each 8 × 8 × 30 nm"
    assert rows["Cubes"] == "1 cube of 32³, chunks of 16³, compression none"
    assert rows["Files"].endswith(f", {ds.path}/raw/1")


def test_empty_things(ds):
    assert repr(ds).splitlines() == ["tissue", f"   {ds.path}", "   voxel size 8 × 8 × 30 nm"]
    layer = ds.add_layer("raw", COLOR)
    assert repr(layer).splitlines() == ["raw: color, uint8", "   empty", "   no mags"]
    mag = layer.add_mag(1)
    assert "0 × 0 × 0 voxels  0 B  0 cubes of 1024³" in repr(layer)
    assert "0 cubes of 1024³" in repr(mag)
    ids = ds.add_layer("ids", IDS)
    assert "largest segment id not known" in repr(ids)
    tags(ds._repr_html_())
    assert "<svg" not in mag._repr_html_()


def test_bytes_on_disk_are_blocks_not_lengths(ds):
    layer = ds.add_layer("raw", COLOR)
    mag = layer.add_mag(1, shard_shape=256)
    mag.write(np.ones((32, 32, 32), np.uint8))  # a RAW cube of 16 MiB, almost all of it a hole
    path = mag.place.store.cube_path(next(mag.place.store.cubes_on_disk()))
    size, used = os.stat(path).st_size, os.stat(path).st_blocks * 512
    if used >= size:
        pytest.skip("this file system has no holes")
    assert f"{used / 1024:.3g} KiB on disk" in repr(layer)


def test_counting_stops(ds):
    layer = with_layer(ds)
    assert "at least 1 cube of 32³" in dataset_text(ds, max_cubes=1)
    assert "? cubes of 32³" in dataset_text(ds, max_seconds=-1)
    assert "2 cubes of 32³" in layer_text(layer)


@pytest.mark.parametrize(
    ("factor", "unit", "shown"),
    [
        ((8, 8, 30), "nm", "0.064 × 0.064 × 0.24 µm"),
        ((1, 1, 1), "micrometer", "8 × 8 × 8 µm"),
        ((1, 1, 2), "mm", "8 × 8 × 16 mm"),
    ],
)
def test_physical_sizes(tmp_path, factor, unit, shown):
    ds = Dataset.create(tmp_path / "ds", VoxelSize(factor, unit))
    assert repr(with_layer(ds, data=np.ones((8, 8, 8), np.uint8))).splitlines()[1].endswith(shown)


# --- what cannot be opened ----------------------------------------------------------------------------


def test_what_cannot_be_opened_says_why_in_its_line(ds):
    for name in ("gone", "torn", "far", "good"):
        with_layer(ds, name)
    mag = ds.get_layer("far").get_mag(1)
    shutil.rmtree(os.path.join(ds.path, "gone", "1"))
    with open(os.path.join(ds.path, "torn", "1", "header.wkw"), "wb") as file:
        file.write(b"WKW")

    def change(properties):
        layers = {layer["name"]: layer for layer in properties["dataLayers"]}
        layers["far"]["boundingBox"]["topLeft"] = [-5, 0, 0]
        n5 = dict(layers["good"], name="foreign", dataFormat="n5")
        properties["dataLayers"].append(n5)

    edit(ds, change)
    for text in (repr(ds), tags(ds._repr_html_()).text):
        assert text.count("DamagedHeaderError") == 2
        assert "PropertiesError: the bounding box of layer 'far'" in text
        assert "no box" in text
        assert "color, uint32, stored as n5" in text
        assert "UnsupportedFormatError" in text
        assert "good" in text
        assert "40 × 20 × 6" in text
    for layer in ds.layers.values():
        assert repr(layer) in "\n".join(line[3:] for line in repr(ds).splitlines())
        tags(layer._repr_html_())
    assert "Box          : PropertiesError" in repr(mag)
    assert "<svg" not in mag._repr_html_()


def test_a_layer_or_dataset_that_is_gone(ds):
    layer = with_layer(ds)
    record, mag = layer.record, layer.get_mag(1)
    ds.delete_layer("raw")
    assert repr(layer).startswith("raw\n   LayerNotFoundError")
    assert "LayerNotFoundError" in tags(layer._repr_html_()).text
    assert mag_text(record, mag).startswith("Mag          : 1 of layer 'raw'")
    shutil.rmtree(ds.path)
    first, second = repr(ds).splitlines()
    assert first == ds.path
    assert "FileNotFoundError" in second
    assert "FileNotFoundError" in tags(ds._repr_html_()).text


def test_a_damaged_properties_file(ds):
    with open(os.path.join(ds.path, "datasource-properties.json"), "w") as file:
        file.write("{")
    assert "PropertiesError" in repr(ds)
    tags(dataset_html(ds))


# --- previews -----------------------------------------------------------------------------------------


def gradient(size=(60, 40, 8), dtype=np.uint8):
    x, y, z = np.indices(size)
    return (x + 2 * y + 10 * z).astype(dtype)


def test_uint8_is_shown_as_it_is(ds):
    data = gradient()
    layer = with_layer(ds, data=data)
    shown = picture(layer)
    assert shown.dtype == np.uint8
    assert shown.shape == (40, 60, 3)
    for channel in range(3):
        np.testing.assert_array_equal(shown[..., channel], data[:, :, 4].T)
    np.testing.assert_array_equal(picture(layer, z=1)[..., 0], data[:, :, 1].T)
    np.testing.assert_array_equal(picture(layer.get_mag(1), z=1), picture(layer, z=1))


def test_three_channels_are_red_green_blue(ds):
    data = np.stack([gradient(), gradient() + 1, 255 - gradient()])
    np.testing.assert_array_equal(picture(with_layer(ds, data=data), 3), data[..., 3].transpose(2, 1, 0))


def test_two_channels_show_the_first(ds):
    data = np.stack([gradient(), 255 - gradient()])
    np.testing.assert_array_equal(picture(with_layer(ds, data=data), 3)[..., 1], data[0, :, :, 3].T)


@pytest.mark.parametrize("dtype", ["uint16", "int8", "float32", "float64", "uint64"])
def test_other_types_are_stretched(ds, dtype):
    data = (gradient(dtype=np.int64) // 2).astype(dtype)
    shown = picture(with_layer(ds, data=data), 0)[..., 0].astype(int)
    section = data[:, :, 0].T.astype(float)
    low, high = np.percentile(section, (1, 99))
    assert (shown[section <= low] == 0).all()
    assert (shown[section >= high] == 255).all()
    assert (np.diff(shown, axis=1) >= 0).all()


def test_floats_that_are_no_numbers(ds):
    data = gradient(dtype=np.float64)
    data[0, 0, 4], data[1, 0, 4], data[2, 0, 4] = np.nan, np.inf, -np.inf
    shown = picture(with_layer(ds, data=data))[..., 0]
    assert shown[0, :3].tolist() == [0, 255, 0]
    data[:30], data[30:] = np.finfo(float).max, -np.finfo(float).max
    shown = picture(with_layer(ds, "huge", data=data))[..., 0]
    assert (shown[0, 0], shown[0, -1]) == (255, 0)
    assert (picture(with_layer(ds, "one", data=np.full((8, 8, 8), 3.5))) == 128).all()
    assert (picture(with_layer(ds, "nan", data=np.full((8, 8, 8), np.nan))) == 0).all()


def test_ids_have_colours_of_their_own_exactly(ds):
    ids = np.zeros((64, 64, 1), np.uint64)
    ids[:, 32:, 0] = 2**64 - 1 - np.arange(64 * 32, dtype=np.uint64).reshape(64, 32)
    layer = with_layer(ds, "cells", ids, IDS)
    shown = picture(layer)
    assert (shown[:32] == 0).all()
    colours = np.unique(shown[32:].reshape(-1, 3), axis=0)
    assert len(colours) > 0.99 * 64 * 32  # 2^64-1 and 2^64-2 are one float
    assert (colours.max(axis=1) > 90).all()
    np.testing.assert_array_equal(picture(layer, max_side=32), shown[::2, ::2])  # whatever else is there


def test_the_colour_of_an_id_does_not_depend_on_its_type(ds):
    ids = gradient().astype(np.uint8)
    first = picture(with_layer(ds, "a", ids, IDS))
    np.testing.assert_array_equal(first, picture(with_layer(ds, "b", ids.astype(np.uint32), IDS)))


def test_the_finest_mag_that_fits_is_read(ds):
    layer = with_layer(ds, data=np.random.default_rng(0).integers(0, 255, (130, 70, 4), np.uint8))
    layer.downsample(coarsest_mag=4)
    assert picture(layer).shape == (70, 130, 3)
    two = layer.get_mag("2-2-1").read()[0]
    np.testing.assert_array_equal(picture(layer, max_side=65)[..., 0], two[:, :, 2].T)
    assert picture(layer, max_side=64).shape == (18, 33, 3)
    four = layer.get_mag("4-4-1").read()[0]
    np.testing.assert_array_equal(picture(layer, max_side=8)[..., 0], four[::5, ::5, 2].T)


def test_a_large_section_is_read_tile_by_tile(ds, monkeypatch):
    monkeypatch.setattr(preview, "_TILE", 16)
    data = np.random.default_rng(0).integers(0, 255, (101, 67, 3), np.uint8)
    layer = ds.add_layer("raw", COLOR)
    mag = layer.add_mag(1, **SHAPES)
    mag.write(data, offset=(7, 21, 5))
    for side in (1, 2, 10, 34, 101):
        stride = -(-101 // side)
        np.testing.assert_array_equal(picture(mag, 6, max_side=side)[..., 0], data[::stride, ::stride, 1].T)


def test_a_coarse_mag_shows_the_voxel_that_holds_z(ds):
    layer = with_layer(ds, data=gradient((16, 16, 4)), mag=2)
    layer.bounding_box = BoundingBox((1, 1, 1), (29, 29, 6))
    for z in range(1, 7):
        np.testing.assert_array_equal(picture(layer, z)[..., 0], gradient((16, 16, 4))[:15, :15, z // 2].T)


def test_what_cannot_be_shown(ds):
    layer = ds.add_layer("raw", COLOR)
    with pytest.raises(InvalidValueError, match="'raw' is empty"):
        picture(layer)
    layer.bounding_box = BoundingBox((0, 0, 3), (8, 8, 8))
    with pytest.raises(InvalidValueError, match="no mag"):
        picture(layer)
    layer.add_mag(1, **SHAPES)
    with pytest.raises(OutOfBoundsError, match="z = 11; its box goes from 3 to 10"):
        picture(layer, 11)
    with pytest.raises(InvalidValueError, match="max_side must be positive"):
        picture(layer, max_side=0)
    assert (picture(layer) == 0).all()


def test_a_damaged_cube_is_an_error_not_black(ds):
    layer = with_layer(ds, data=gradient())
    with open(os.path.join(layer.path, "1", "z0", "y0", "x0.wkw"), "wb") as file:
        file.write(b"x")
    with pytest.raises(DamagedCubeError):
        picture(layer)


def test_a_notebook_shows_the_picture(ds):
    layer = with_layer(ds, data=gradient())
    png = picture(layer)._repr_png_()
    with Image.open(BytesIO(png)) as image:
        assert np.array_equal(np.asarray(image), picture(layer))
    assert picture(layer)[0]._repr_png_() is None


def test_a_part_of_a_layer_and_a_mag(ds):
    data = np.random.default_rng(0).integers(1, 255, (60, 40, 8), np.uint8)
    layer = with_layer(ds, data=data)
    layer.downsample(coarsest_mag=2, sampling_mode="isotropic")
    whole = picture(layer, 5)
    assert np.array_equal(picture(layer, 5, bounding_box=((10, 4, 3), (20, 30, 5))), whole[4:34, 10:30])
    assert np.array_equal(picture(layer, bounding_box=((10, 4, 3), (20, 30, 5))), whole[4:34, 10:30])
    assert picture(layer, mag=2).shape == (20, 30, 3)
    with pytest.raises(OutOfBoundsError, match="nothing in"):
        picture(layer, bounding_box=((100, 0, 0), (5, 5, 5)))
    with pytest.raises(OutOfBoundsError, match="no section"):
        picture(layer, 7, bounding_box=((0, 0, 0), (5, 5, 5)))


@pytest.mark.parametrize("max_side", [1024, 30])
def test_ids_over_an_image(ds, max_side):
    layer = with_layer(ds, data=np.full((60, 40, 4), 100, np.uint8))
    ids = np.zeros((60, 40, 4), np.uint32)
    ids[20:40, 10:20] = 7
    cells = with_layer(ds, "cells", ids, IDS)
    shown, plain = (picture(layer, max_side=max_side, overlay=each) for each in (cells, None))
    colour = picture(cells, max_side=max_side)
    inside = (colour != 0).any(axis=2)
    assert 0 < inside.sum() < inside.size
    assert np.array_equal(shown[~inside], plain[~inside])
    expected = np.rint(0.6 * plain[inside] + 0.4 * np.asarray(colour[inside]))
    assert np.array_equal(shown[inside], expected)
    with pytest.raises(CategoryError):
        picture(layer, overlay=layer)


# --- sheets -------------------------------------------------------------------------------------------


def opened(path):
    with Image.open(path) as image:
        image.load()
        return np.asarray(image)


@pytest.mark.slow
def test_a_sheet_holds_the_section_of_each_layer(ds, tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (600, 400, 2), np.uint8)
    with_layer(ds, data=data)
    with_layer(ds, "cells", (data // 64).astype(np.uint32), IDS)
    path = save_preview(ds, tmp_path / "out.png")
    assert path == str(tmp_path / "out.png")
    sheet = opened(path)
    corner = sheet[0, 0]
    for name in ("raw", "cells"):
        section = picture(ds.get_layer(name), 1)
        rows = (sheet != corner).any(axis=2)
        found = [
            (y, x)
            for y in range(sheet.shape[0] - 400)
            for x in (28, 28 + 600 + 28)
            if rows[y, x : x + 600].any() and np.array_equal(sheet[y : y + 400, x : x + 600], section)
        ]
        assert len(found) == 1, name
        y, x = found[0]
        assert (sheet[:y, x : x + 600] == 255).all(axis=2).any()  # a caption in white
        bar = (sheet[y + 400 :, x : x + 600] == 255).all(axis=2).sum(axis=1).max()
        assert bar >= 125  # 1 µm is 125 pixels of 8 nm; then comes the text
    assert len(np.unique(sheet[:30].reshape(-1, 3), axis=0)) > 1


@pytest.mark.parametrize("scale", [(8, 24, 30), (24, 8, 30)])
def test_pixels_are_square_in_nm(tmp_path, scale):
    ds = Dataset.create(tmp_path / "ds", scale)
    layer = with_layer(ds, data=gradient((60, 60, 2)))
    panel = preview._panel_of(layer, None, 1024, ds.scale)
    width, height = panel.image.size
    assert width / height == pytest.approx(scale[0] / scale[1], rel=0.01)
    assert max(width, height) == 512
    assert panel.nm_per_pixel == pytest.approx(60 * 24 / 512)
    small = preview._panel_of(layer, None, 30, ds.scale)
    assert max(small.image.size) == 30


@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_layer_that_cannot_be_shown_says_so_in_its_panel(ds, tmp_path, count):
    for number in range(count):
        with_layer(ds, f"raw{number}", gradient())
    ds.add_layer("empty_with_a_name_that_is_much_too_long_for_the_width_of_its_panel", COLOR)
    with pytest.warns(WkdaskWarning, match="is not shown: .*is empty"):
        save_preview(ds, tmp_path / "out.png", max_side=64)
    assert opened(tmp_path / "out.png").ndim == 3


def test_only_the_layers_asked_for(ds, tmp_path):
    with_layer(ds, data=gradient())
    ds.add_layer("empty", COLOR)
    one = opened(save_preview(ds, tmp_path / "one.png", layers=["raw"]))
    with pytest.warns(WkdaskWarning, match="layer 'empty' is not shown"):
        two = opened(save_preview(ds, tmp_path / "two.png"))
    assert one.shape[1] < two.shape[1]
    with pytest.raises(InvalidValueError, match="'empty' is empty"):
        save_preview(ds, tmp_path / "no.png", layers=["raw", "empty"])
    with pytest.raises(LayerNotFoundError):
        save_preview(ds, tmp_path / "no.png", layers=["other"])
    with pytest.raises(InvalidValueError, match="no layer to show"):
        save_preview(ds, tmp_path / "no.png", z=100)
    with pytest.raises(InvalidValueError, match=r"name it so, got .*no\.jpg"):
        save_preview(ds, tmp_path / "no.jpg")
    assert not (tmp_path / "no.png").exists()


@given(st.floats(1e-6, 1e12))
def test_scale_bars_have_round_lengths(limit):
    length = preview._round_length(limit)
    assert limit / 2.5001 <= length <= limit * 1.0001
    assert f"{length:.0e}"[0] in "125"
    assert length == pytest.approx(float(f"{length:.0e}"))
