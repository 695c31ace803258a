"""Zarr as people really have it: read as zarr-python reads it, or refused by name; never silent."""

import contextlib
import json
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from foreign_zarr import halved, image, labels, turned
from thorough import mostly_slow

from wkdask import BoundingBox, Dataset, VoxelSize
from wkdask.cli.main import main
from wkdask.convert.scales import open_scales
from wkdask.convert.zarr import convert_zarr
from wkdask.errors import (
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    TaskFailedError,
    UnsupportedFormatError,
    WkdaskWarning,
)
from wkdask.external.target import viewer_notes

CALL = {"progress": False, "chunk_shape": 16}


def read(dataset, layer="color", mag=1):
    return Dataset(dataset).get_layer(layer).get_mag(mag).read()


def zyx(voxels):
    """Return one channel (1, x, y, z) as (z, y, x)."""
    return voxels[0].T


def moved(folder, separator):
    """Rename the chunk files of an array to names with another separator, as a wrong copy does."""
    old = "." if separator == "/" else "/"
    files = {str(file.relative_to(folder)): file for file in Path(folder).rglob("*") if file.is_file()}
    for name, file in files.items():
        if name[0] in "c0123456789":
            new = Path(folder, name.replace(old, separator))
            new.parent.mkdir(parents=True, exist_ok=True)
            file.rename(new)


# --- chunk files whose names are not those that the metadata say --------------------------------------------


@pytest.mark.parametrize(
    ("zarr_format", "encoding", "separator", "forms"),
    [
        (2, {"name": "v2", "separator": "."}, "/", ("'0/0/0'", "'0.0.0'")),
        (2, {"name": "v2", "separator": "/"}, ".", ("'0.0.0'", "'0/0/0'")),
        (3, {"name": "default", "separator": "/"}, ".", ("'c.0.0.0'", "'c/0/0/0'")),
        (3, {"name": "default", "separator": "."}, "/", ("'c/0/0/0'", "'c.0.0.0'")),
        (3, {"name": "v2", "separator": "."}, "/", ("'0/0/0'", "'0.0.0'")),
    ],
)
@pytest.mark.parametrize("filters", [False, True])
def test_chunks_with_other_names_than_the_metadata_say(
    tmp_path, random_voxels, zarr_format, encoding, separator, forms, filters
):
    import numcodecs

    voxels = random_voxels((1, 8, 8, 8))
    more = {"filters": [numcodecs.Delta(dtype="u1")]} if filters and zarr_format == 2 else {}
    zarr.create_array(
        tmp_path / "a.zarr", data=zyx(voxels), chunks=(8, 8, 8), zarr_format=zarr_format,
        chunk_key_encoding=encoding, **more,
    )  # fmt: skip
    call = {"voxel_size": (1, 1, 1), "axes": "zyx", **CALL}
    convert_zarr(tmp_path / "a.zarr", tmp_path / "good", **call)
    np.testing.assert_array_equal(read(tmp_path / "good"), voxels)
    moved(tmp_path / "a.zarr", separator)
    assert not zarr.open_array(tmp_path / "a.zarr", mode="r")[...].any()  # what others make of it
    with pytest.raises(DamagedHeaderError) as caught:
        convert_zarr(tmp_path / "a.zarr", tmp_path / "ds", **call)
    for form in forms:
        assert form in str(caught.value)
    assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize(("data_format", "separator"), [("zarr", "."), ("zarr3", ".")])
def test_a_layer_whose_chunks_have_other_names(tmp_path, random_voxels, data_format, separator):
    voxels = random_voxels((1, 20, 20, 20))
    layer = Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("l", "color", data_format=data_format)
    cut = {"shard_shape": 16} if data_format == "zarr3" else {}
    mag = layer.add_mag(1, chunk_shape=16, **cut)
    mag.write(voxels)
    moved(mag.path, separator)
    with pytest.raises(DamagedHeaderError, match="0/0/0/0"):
        layer.get_mag(1)
    assert "0/0/0/0" in repr(layer)  # info shows it, and goes on
    layer.delete_mag(1)
    assert (
        layer.add_mag(1, chunk_shape=16, **cut).read(size=(1, 1, 1)).sum() == 0
    )  # no chunk: nothing written


def test_chunks_of_another_number_of_dimensions_are_not_passed_over(tmp_path):
    zarr.create_array(
        tmp_path / "a.zarr", shape=(8, 8, 8), dtype="uint8", zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )  # fmt: skip
    (tmp_path / "a.zarr/0").mkdir()
    (tmp_path / "a.zarr/0/0").write_bytes(b"x")
    with pytest.raises(DamagedHeaderError, match=r"'0/0'.*'0/0/0'"):
        open_scales(tmp_path / "a.zarr", voxel_size=(1, 1, 1), axes="zyx")


def test_an_array_without_chunks_is_said_to_have_none(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(8, 8, 8), dtype="uint8", fill_value=3)
    with pytest.warns(WkdaskWarning, match="no chunk files: all its voxels are its fill value"):
        convert_zarr(tmp_path / "a.zarr", tmp_path / "ds", voxel_size=(1, 1, 1), axes="zyx", **CALL)
    assert (read(tmp_path / "ds") == 3).all()


# --- units ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "meant"),
    [
        ("Micrometer", "micrometer"),
        ("micrometre", "micrometer"),
        ("microns", "micrometer"),
        ("micron", "micrometer"),
        ("um", "micrometer"),
        ("µm", "micrometer"),
        ("NANOMETERS", "nanometer"),
        ("nm", "nanometer"),
    ],
)
def test_units_as_people_spell_them(tmp_path, random_voxels, unit, meant):
    path = image(tmp_path / "i.zarr", [((1, 1, 1), random_voxels((1, 8, 8, 8)))], voxel=(2, 2, 5), unit=unit)
    assert open_scales(path).voxel_size == VoxelSize((2, 2, 5), meant)


@pytest.mark.parametrize(
    "unit",
    [
        "pixel", "", "null", None, "voxel", "cubit", {"x": None, "y": None, "z": "micrometer"},
        {"x": 7, "y": [], "z": ""},
    ],
)  # fmt: skip
def test_units_that_mean_nothing_need_a_voxel_size(tmp_path, random_voxels, unit):
    scales = [((1, 1, 1), random_voxels((1, 8, 8, 8))), ((2, 2, 2), random_voxels((1, 4, 4, 4)))]
    path = image(tmp_path / "i.zarr", scales, voxel=(1, 1, 3), unit=unit)
    with pytest.raises(InvalidValueError, match=r"units that are known.*--voxel-size"):
        open_scales(path)
    convert_zarr(path, tmp_path / "ds", voxel_size=(4, 4, 40), **CALL)
    assert Dataset(tmp_path / "ds").voxel_size == VoxelSize((4, 4, 40))
    for factors, voxels in scales:
        np.testing.assert_array_equal(read(tmp_path / "ds", mag=factors), voxels)


# --- coarse scales whose sides are quotients of extents ------------------------------------------------------


@pytest.mark.parametrize(
    "rounding", [lambda n: n // 2, lambda n: -(-n // 2), round], ids=["floor", "ceil", "round"]
)
@pytest.mark.parametrize("side", [101, 4999, 7007, 30975])
@pytest.mark.parametrize("translated", [None, "by the quotient", "by the factor"])
def test_odd_sides_that_were_halved(tmp_path, side, rounding, translated):
    path, datasets, n = tmp_path / "i.zarr", [], side
    group = zarr.create_group(path, zarr_format=3)
    for level in range(5):
        group.create_array(str(level), shape=(1, 2, n), chunks=(1, 2, n), dtype="uint8")[...] = level + 1
        scale = [1.0, 1.0, side / n]
        placed = [{"type": "scale", "scale": scale}]
        if translated is not None:
            factor = side / n if translated == "by the quotient" else 2**level
            placed.append({"type": "translation", "translation": [0.0, 0.0, (factor - 1) / 2]})
        datasets.append({"path": str(level), "coordinateTransformations": placed})
        n = rounding(n / 2) if rounding is round else rounding(n)
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    scales = open_scales(path)
    found = [(scale.mag.to_tuple(), scale.array.size.x) for scale in scales.layers[0].scales]
    assert [mag for mag, _ in found] == [(2**level, 1, 1) for level in range(5)]
    assert all(size in (side // mag[0], -(-side // mag[0])) for mag, size in found)
    said = [n for n in scales.notes if "is taken for mag" in n]
    assert len(said) == sum(abs(side / size - mag[0]) > mag[0] / 1000 for mag, size in found)


def test_a_quotient_that_is_no_halving_is_left_out(tmp_path, random_voxels):
    scales = [((1, 1, 1), random_voxels((1, 60, 60, 4))), ((1.5, 1.5, 1), random_voxels((1, 40, 40, 4)))]
    notes = open_scales(image(tmp_path / "i.zarr", scales)).notes
    assert len(notes) == 1
    assert "scale '1'" in notes[0]
    assert "1.5 × 1.5 × 1" in notes[0]


# --- labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["micrometer", None, "pixel"])
@pytest.mark.parametrize("voxel", [(0.25, 0.25, 1.5), (1.0, 1.0, 1.0)])
def test_labels_are_measured_as_their_image_is(tmp_path, random_voxels, unit, voxel):
    if unit == "micrometer" and voxel == (1.0, 1.0, 1.0):
        pytest.skip("these labels say that their voxels are larger")
    voxels, ids = random_voxels((1, 40, 32, 8)), random_voxels((1, 40, 32, 8), "uint16")
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels)], voxel=(0.25, 0.25, 1.5), unit="micrometer")
    scales = [((1, 1, 1), ids), ((2, 2, 1), halved(ids, (2, 2, 1)))]
    labels(path, cells=(scales, {"axes": "zyx", "unit": unit, "voxel": voxel}))
    found = open_scales(path)
    assert bool(found.notes) == (unit != "micrometer")
    for note in found.notes:
        assert "'cells' have no units" in note
    assert [scale.mag.to_tuple() for scale in found.layers[1].scales] == [(1, 1, 1), (2, 2, 1)]
    with pytest.warns(WkdaskWarning) if found.notes else contextlib.nullcontext():
        convert_zarr(path, tmp_path / "ds", **CALL)
    for factors, expected in scales:
        np.testing.assert_array_equal(read(tmp_path / "ds", "cells", factors), expected)


@pytest.mark.parametrize("dtype", ["bool", "float32", "float64"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_masks_become_segmentations(tmp_path, random_voxels, dtype, version):
    voxels = random_voxels((1, 40, 32, 8))
    mask = voxels > 128
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels)], version=version)
    labels(path, version, mask=([((1, 1, 1), mask.astype(dtype))], {"axes": "zyx"}))
    with pytest.warns(WkdaskWarning, match=f"{dtype}.*stored as uint8"):
        convert_zarr(path, tmp_path / "ds", **CALL)
    layer = Dataset(tmp_path / "ds").get_segmentation_layer("mask")
    assert layer.dtype_per_channel == "uint8"
    np.testing.assert_array_equal(layer.get_mag(1).read(), mask.astype("uint8"))


def test_a_mask_with_another_value_is_refused_where_it_is_found(tmp_path, random_voxels):
    voxels = random_voxels((1, 40, 32, 8))
    mask = (voxels > 128).astype("float32")
    mask[0, 7, 5, 3] = 0.5
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels)])
    coarse = halved(mask, (2, 2, 2))
    labels(path, mask=([((1, 1, 1), mask), ((2, 2, 2), coarse)], {"axes": "zyx"}))
    with pytest.warns(WkdaskWarning), pytest.raises(TaskFailedError, match=r"0\.5 at voxel \(7, 5, 3\)"):
        convert_zarr(path, tmp_path / "ds", **CALL)


def test_flat_labels(tmp_path, random_voxels):
    voxels, ids = random_voxels((1, 40, 32, 1)), random_voxels((1, 40, 32, 1), "uint16")
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels)], voxel=(0.5, 0.5, 3), unit="micrometer")
    labels(path, flat=([((1, 1, 1), ids)], {"axes": "yx", "voxel": (0.5, 0.5, 3), "unit": "micrometer"}))
    convert_zarr(path, tmp_path / "ds", **CALL)
    np.testing.assert_array_equal(read(tmp_path / "ds", "flat"), ids)


def test_flat_labels_of_a_deep_image_are_its_first_section(tmp_path, random_voxels):
    voxels, ids = random_voxels((1, 40, 32, 5)), random_voxels((1, 40, 32, 1), "uint16")
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels)])
    labels(path, flat=([((1, 1, 1), ids)], {"axes": "yx"}))
    with pytest.warns(WkdaskWarning, match="the rest of that mag is 0"):
        convert_zarr(path, tmp_path / "ds", **CALL)
    found = Dataset(tmp_path / "ds").get_layer("flat").get_mag(1)
    np.testing.assert_array_equal(found.read(offset=(0, 0, 0), size=(40, 32, 1)), ids)


# --- what else is in a group ----------------------------------------------------------------------------------


def test_a_second_multiscale_is_said(tmp_path, random_voxels):
    path = image(tmp_path / "i.zarr", [((1, 1, 1), random_voxels((1, 8, 8, 8)))])
    file = Path(path, "zarr.json")
    content = json.loads(file.read_text())
    multiscales = content["attributes"]["ome"]["multiscales"]
    multiscales.append({**multiscales[0], "name": "other"})
    file.write_text(json.dumps(content))
    assert [note for note in open_scales(path).notes if "1 more multiscales (other)" in note]


def zipped(folder, file, above=""):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as target:
        for each in sorted(Path(folder).rglob("*")):
            if each.is_file():
                target.write(each, f"{above}{each.relative_to(folder)}")
    shutil.rmtree(folder)
    return file


@pytest.mark.parametrize(("name", "above"), [("i.ozx", ""), ("i.zarr.zip", ""), ("i.zip", "i.zarr/")])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_zip_files(tmp_path, random_voxels, name, above, version):
    voxels, ids = random_voxels((1, 40, 32, 8)), random_voxels((1, 40, 32, 8), "uint16")
    scales = [((1, 1, 1), voxels), ((2, 2, 1), halved(voxels, (2, 2, 1)))]
    path = image(tmp_path / "i.zarr", scales, version=version, unit="micrometer")
    labels(path, version, cells=([((1, 1, 1), ids)], {"axes": "zyx", "unit": "micrometer"}))
    zipped(path, tmp_path / name, above)
    done = CliRunner().invoke(main, ["convert", str(tmp_path / name), str(tmp_path / "ds")])
    assert done.exit_code == 0, done.output
    for factors, expected in scales:
        np.testing.assert_array_equal(read(tmp_path / "ds", mag=factors), expected)
    np.testing.assert_array_equal(read(tmp_path / "ds", "cells"), ids)


def test_a_zip_file_with_chunks_of_other_names(tmp_path, random_voxels):
    zarr.create_array(tmp_path / "a.zarr", data=zyx(random_voxels((1, 8, 8, 8))), zarr_format=2)
    moved(tmp_path / "a.zarr", "/")
    path = zipped(tmp_path / "a.zarr", tmp_path / "a.zip")
    with pytest.raises(DamagedHeaderError, match=r"'0/0/0'.*'0.0.0'"):
        open_scales(path, voxel_size=(1, 1, 1), axes="zyx")


def test_what_is_no_zip_file_is_named(tmp_path):
    (tmp_path / "a.ozx").write_bytes(b"PK, but no zip file")
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "a.ozx"), str(tmp_path / "ds")])
    assert done.exit_code == 1
    assert "a.ozx" in done.output
    assert "zip" in done.output
    assert not (tmp_path / "ds").exists()


def test_names_that_look_like_addresses(tmp_path, random_voxels):
    voxels = random_voxels((1, 20, 16, 1))
    path = image(
        tmp_path / "zip::i.zarr", [((1, 1, 1), voxels)], "yx", voxel=(4, 4, 4)
    )  # read by zarr-python
    convert_zarr(path, tmp_path / "ds::1", **CALL)
    np.testing.assert_array_equal(read(tmp_path / "ds::1"), voxels)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_metadata_that_are_only_consolidated_are_told(tmp_path, random_voxels, version):
    path = image(tmp_path / "i.zarr", [((1, 1, 1), random_voxels((1, 8, 8, 8)))], version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path, zarr_format=3 if version == "0.5" else 2)
    Path(path, "0", "zarr.json" if version == "0.5" else ".zarray").unlink()
    with pytest.raises(DamagedHeaderError, match="consolidate"):
        open_scales(path)


# --- axes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 30, 3), (8, 40, 30, 3), (40, 30, 4)])
def test_colours_at_the_end_are_not_taken_for_x(tmp_path, shape):
    zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="uint8")
    with pytest.raises(InvalidValueError, match=r"colours.*--axes"):
        open_scales(tmp_path / "a.zarr", voxel_size=(1, 1, 1))


def test_names_of_dimensions_are_known_or_refused(tmp_path, random_voxels):
    voxels = random_voxels((1, 9, 7, 5))
    for names, axes in [
        (["depth", "row", "column"], "zyx"), (["width", "height", "plane"], "xyz"), ([None] * 3, "zyx"),
        (["dim_0", "dim_1", "dim_2"], "zyx"),
    ]:  # fmt: skip
        zarr.create_array(
            tmp_path / "a.zarr", data=turned(voxels, axes), dimension_names=names, overwrite=True
        )
        array = open_scales(tmp_path / "a.zarr", voxel_size=(1, 1, 1)).layers[0].scales[0].array
        assert (array.axes, array.are_assumed) == (axes, names[0] in (None, "dim_0"))
    zarr.create_array(
        tmp_path / "a.zarr", data=turned(voxels, "zyx"), dimension_names=["a", "b", "c"], overwrite=True
    )
    with pytest.raises(InvalidValueError, match=r"a, b, c.*--axes"):
        open_scales(tmp_path / "a.zarr", voxel_size=(1, 1, 1))


# --- what WEBKNOSSOS does not show ----------------------------------------------------------------------------


def test_what_webknossos_shows_needs_no_note():
    for dtype in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32"):
        assert viewer_notes("color", dtype, 1) == []
    assert viewer_notes("color", "uint8", 3) == []
    for dtype in ("uint8", "uint64", "int64"):
        assert viewer_notes("segmentation", dtype, 1) == []
    for dtype, channels in [
        ("float64", 1), ("uint64", 1), ("int64", 1), ("uint8", 2), ("uint16", 3), ("float64", 3)
    ]:  # fmt: skip
        (note,) = viewer_notes("color", dtype, channels)
        assert dtype in note
        assert "--rescale" in note
        (note,) = viewer_notes("color", dtype, channels, remedy="use --split")
        assert "use --split" in note
        assert "--rescale" not in note


@pytest.mark.parametrize(
    ("stored", "wanted"), [("float64", "float32"), ("uint64", "uint32"), ("int64", "int32")]
)
def test_layers_are_cast_where_that_is_asked_for(tmp_path, random_voxels, stored, wanted):
    voxels = random_voxels((1, 20, 16, 8), "uint16").astype(stored)
    if stored == "float64":
        voxels += 1 / 3
    else:
        voxels[0, 0, 0, 0] = np.iinfo(wanted).max
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels)])
    with pytest.warns(WkdaskWarning, match=rf"does not show.*--dtype {wanted}"):
        convert_zarr(path, tmp_path / "as it is", **CALL)
    np.testing.assert_array_equal(read(tmp_path / "as it is"), voxels)
    convert_zarr(path, tmp_path / "ds", dtype=wanted, **CALL)
    assert read(tmp_path / "ds").dtype == wanted
    np.testing.assert_array_equal(read(tmp_path / "ds"), voxels.astype(wanted))


@pytest.mark.parametrize(
    ("stored", "value", "wanted"),
    [
        ("uint16", 256, "uint8"), ("int16", -1, "uint16"), ("uint64", 2**63, "int64"),
        ("int64", -(2**31) - 1, "int32"),
        ("float32", 0.5, "uint8"), ("float32", np.nan, "uint8"), ("float64", 2.0**64, "uint64"),
        ("float64", 1e39, "float32"), ("float32", np.inf, "int32"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*does not show")  # images of 64 bits
def test_a_value_that_does_not_fit_is_named(tmp_path, stored, value, wanted):
    voxels = np.ones((1, 20, 16, 8), stored)
    voxels[0, 3, 4, 5] = value
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels)])
    with pytest.raises(TaskFailedError, match=r"at voxel \(3, 4, 5\)"):
        convert_zarr(path, tmp_path / "ds", dtype=wanted, **CALL)
    assert not (tmp_path / "ds").exists()
    with pytest.raises(DTypeError, match="bool"):
        convert_zarr(path, tmp_path / "other", dtype="bool", **CALL)


def test_numbers_of_the_command_line(tmp_path, random_voxels):
    voxels = random_voxels((1, 20, 16, 8), "uint8").astype("int64")
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels)])
    done = CliRunner().invoke(main, ["convert", str(path), str(tmp_path / "ds"), "--dtype", "uint8"])
    assert done.exit_code == 0, done.output
    assert "Note" not in done.output
    np.testing.assert_array_equal(read(tmp_path / "ds"), voxels.astype("uint8"))


# --- layers whose missing chunks are not zeros ----------------------------------------------------------------


FILLS = [(7, "uint8"), (-1, "int16"), (0.5, "float32"), (0, "uint8")]


@pytest.mark.parametrize(
    ("zarr_format", "fill", "dtype"),
    mostly_slow(
        [(number, *fill) for fill in FILLS for number in (2, 3)], lambda n, _: n % 4 in (0, 3)
    ),  # each format, each value
)
def test_missing_chunks_of_a_layer_count_as_their_fill_value(tmp_path, zarr_format, fill, dtype):
    voxels = np.full((1, 40, 40, 40), fill, dtype)
    voxels[:, :16, :16, :16] = 0
    voxels[:, 20:24, 3:5, 30:33] = 3
    ds = Dataset.create(tmp_path / "ds", (4, 4, 4))
    array = zarr.create_array(
        tmp_path / "ds/l/1", shape=(1, 48, 40, 40), dtype=dtype, chunks=(1, 16, 16, 16), fill_value=fill,
        zarr_format=zarr_format,
    )  # fmt: skip
    array[:, :40] = voxels
    array[:, 40:] = 0
    layer = ds.add_layer_for_existing_files("l", "color")
    mag = layer.get_mag(1)
    nonzero = np.argwhere(voxels[0])
    expected = BoundingBox.from_corners(nonzero.min(0), nonzero.max(0) + 1)
    assert mag.calculate_bounding_box() == expected
    layer.bounding_box = BoundingBox((0, 0, 0), (40, 40, 40))
    np.testing.assert_array_equal(mag.read(), voxels)
    copies = [
        ds.copy_dataset(tmp_path / "copy").get_layer("l"),
        ds.copy_dataset(tmp_path / "zarr", data_format="zarr3", shard_shape=32, chunk_shape=16).get_layer(
            "l"
        ),
        ds.add_copy_layer(layer, "again"),
    ]
    for copy in copies:
        np.testing.assert_array_equal(copy.get_mag(1).read(offset=(0, 0, 0), size=(40, 40, 40)), voxels)
        assert copy.get_mag(1).calculate_bounding_box() == expected
    layer.downsample(coarsest_mag=2, interpolation_mode="nearest", sampling_mode="isotropic")
    np.testing.assert_array_equal(layer.get_mag(2).read(), voxels[:, ::2, ::2, ::2])
    assert ds.first_difference(tmp_path / "copy", ["l"]) is not None  # of mag 2, which came later


# --- small things that metadata say ---------------------------------------------------------------------------


def test_labels_that_are_listed_and_not_there_are_told(tmp_path, random_voxels):
    path = image(tmp_path / "i.zarr", [((1, 1, 1), random_voxels((1, 8, 8, 8)))])
    labels(path, cells=([((1, 1, 1), random_voxels((1, 8, 8, 8)))], {"axes": "zyx"}))
    shutil.rmtree(path / "labels/cells")
    (note,) = open_scales(path).notes
    assert "'cells' are left out" in note


def test_dimensions_that_contradict_the_image_are_refused(tmp_path, random_voxels):
    path = image(tmp_path / "i.zarr", [((1, 1, 1), random_voxels((1, 8, 6, 4)))], "zyx")
    file = Path(path, "0", "zarr.json")
    content = json.loads(file.read_text()) | {"dimension_names": ["x", "y", "z"]}
    file.write_text(json.dumps(content))
    with pytest.raises(UnsupportedFormatError, match=r"xyz.*zyx.*--axes"):
        open_scales(path)
    assert open_scales(path, axes="xyz").layers[0].scales[0].array.size == (4, 6, 8)
    file.write_text(json.dumps(content | {"dimension_names": ["a", "b", "c"]}))
    assert open_scales(path).layers[0].scales[0].array.size == (8, 6, 4)


def test_names_of_channels_are_told(tmp_path, random_voxels):
    path = image(tmp_path / "i.zarr", [((1, 1, 1), random_voxels((2, 8, 8, 8)))], version="0.4")
    file = Path(path, ".zattrs")
    content = json.loads(file.read_text())
    named = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    for omero, words in [(named, "channels (DAPI, GFP) of"), ({}, "channels of"), (7, "channels of")]:
        file.write_text(json.dumps(content | {"omero": omero}))
        assert any(words in note for note in open_scales(path).notes)


def test_half_floats_are_stored_as_floats(tmp_path, random_voxels):
    voxels = random_voxels((1, 20, 16, 8)).astype("float16") / 3
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels)])
    with pytest.warns(WkdaskWarning, match="float16, which is stored as float32"):
        convert_zarr(path, tmp_path / "ds", **CALL)
    np.testing.assert_array_equal(read(tmp_path / "ds"), voxels)


def test_plates_are_named(tmp_path):
    group = zarr.create_group(tmp_path / "p.zarr", zarr_format=2)
    group.attrs["plate"] = {"rows": [{"name": "A"}]}
    group.create_group("A")
    with pytest.raises(DamagedHeaderError, match="but a plate; convert what is in it one by one: A"):
        open_scales(tmp_path / "p.zarr")


@pytest.mark.parametrize(
    ("said", "is_"), [((2, 2, 1), (2, 2, 2)), ((2, 2, 2), (2, 2, 1)), ((4, 4, 1), (2, 2, 1))]
)
def test_scales_that_contradict_their_voxels_are_left_out(tmp_path, random_voxels, said, is_):
    voxels = random_voxels((1, 64, 48, 12))
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels), (said, halved(voxels, is_))], chunks=6)
    found = open_scales(path)
    assert [str(scale.mag) for scale in found.layers[0].scales] == ["1"]
    (note,) = found.notes
    assert "scale '1'" in note
    assert "as if they were" in note


def test_scales_of_whole_cubes_are_taken(tmp_path, random_voxels):
    # webknossos rounds the shapes of all mags up to whole shards
    voxels = random_voxels((1, 64, 64, 64))
    coarse = np.zeros_like(voxels)
    coarse[:, :32, :32, :32] = halved(voxels, (2, 2, 2))
    path = image(tmp_path / "i.zarr", [((1, 1, 1), voxels), ((2, 2, 2), coarse)], chunks=64)
    convert_zarr(path, tmp_path / "ds", **CALL)
    np.testing.assert_array_equal(read(tmp_path / "ds", mag=2), coarse[:, :32, :32, :32])


def test_scales_that_are_empty_shells_are_left_out(tmp_path, random_voxels):
    voxels = random_voxels((1, 64, 48, 12))
    scales = [(f, halved(voxels, f)) for f in [(1, 1, 1), (2, 2, 1), (4, 4, 1)]]
    path = image(tmp_path / "i.zarr", scales)
    shutil.rmtree(path / "1/c")
    shutil.rmtree(path / "2")
    found = open_scales(path)
    assert [str(scale.mag) for scale in found.layers[0].scales] == ["1"]
    assert "scale '1'" in found.notes[0]
    assert "no chunk files, but finer scales have" in found.notes[0]
    assert "scale '2'" in found.notes[1]
    assert "listed, but not there" in found.notes[1]


@pytest.mark.parametrize("separator", [".", "/"])
def test_chunks_beyond_the_shape_are_told(tmp_path, random_voxels, separator):
    voxels = random_voxels((1, 20, 16, 8))
    zarr.create_array(
        tmp_path / "a.zarr", data=zyx(voxels), chunks=(4, 4, 4), zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": separator},
    )  # fmt: skip
    assert not open_scales(tmp_path / "a.zarr", voxel_size=(1, 1, 1), axes="zyx").notes
    file = tmp_path / "a.zarr/.zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": [8, 16, 15]}))
    (note,) = open_scales(tmp_path / "a.zarr", voxel_size=(1, 1, 1), axes="zyx").notes
    assert "beyond its shape (8, 16, 15)" in note


def test_chunks_of_two_forms_are_told(tmp_path, random_voxels):
    voxels = random_voxels((1, 16, 16, 8))
    zarr.create_array(tmp_path / "a.zarr", data=zyx(voxels), chunks=(2, 4, 4), zarr_format=2)
    (tmp_path / "a.zarr/1/2").mkdir(parents=True)
    (tmp_path / "a.zarr/1.2.3").rename(tmp_path / "a.zarr/1/2/3")
    (note,) = open_scales(tmp_path / "a.zarr", voxel_size=(1, 1, 1), axes="zyx").notes
    assert "such as 1/2/3" in note
    path = zipped(tmp_path / "a.zarr", tmp_path / "a.zip")
    (note,) = open_scales(path, voxel_size=(1, 1, 1), axes="zyx").notes
    assert "such as 1/2/3" in note


def test_a_plan_is_refused_where_the_run_is(tmp_path, random_voxels):
    path = image(tmp_path / "i.zarr", [((1, 1, 1), random_voxels((1, 8, 8, 8)))])
    for more in ([], ["--plan"]):
        done = CliRunner().invoke(main, ["convert", str(path), f"{tmp_path}/ds\udcff", *more])
        assert done.exit_code == 1
        assert "Unicode" in done.output


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_calibration_that_is_not_applied_is_told(tmp_path, random_voxels, zarr_format):
    voxels = random_voxels((1, 20, 16, 8))
    array = zarr.create_array(tmp_path / "a.zarr", data=zyx(voxels), zarr_format=zarr_format)
    array.attrs.update(scale_factor=0.5, add_offset=100)
    with pytest.warns(WkdaskWarning, match=r"scale_factor.*not applied"):
        convert_zarr(tmp_path / "a.zarr", tmp_path / "ds", voxel_size=(1, 1, 1), axes="zyx", **CALL)
    np.testing.assert_array_equal(read(tmp_path / "ds"), voxels)
