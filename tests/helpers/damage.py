"""Damage to datasets, one or two faults at a time, and what a check is to find of them.

A fault changes the folder of a sound dataset, as :func:`sound_dataset` makes it, by means of the file system and
of JSON alone.
"""

import dataclasses
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wkdask import Dataset

FORMATS = ("wkw", "wkw-lz4", "zarr3", "zarr")
ZARR = ("zarr3", "zarr")
WKW = ("wkw", "wkw-lz4")
OFFSET, SIZE = (3, 5, 0), (70, 66, 40)
LARGEST = 900


def sound_dataset(folder, kind):
    """Make a dataset of an image and a segmentation, of three mags each, that do not begin on the grid."""
    ds = Dataset.create(folder, (4, 4, 4))
    data_format = kind.partition("-")[0]
    compression = {"wkw": None, "wkw-lz4": "lz4"}.get(kind, "zstd")
    rng = np.random.default_rng(1)
    shard = 32 if data_format == "zarr" else 64
    for name, category, dtype, high in (
        ("color", "color", "uint8", 255),
        ("cells", "segmentation", "uint32", LARGEST),
    ):
        layer = ds.add_layer(name, category, dtype_per_channel=dtype, data_format=data_format)
        mag = layer.add_mag(1, chunk_shape=32, shard_shape=shard, compression=compression)
        voxels = rng.integers(1, high, SIZE).astype(dtype)
        voxels[-1, -1, -1] = high
        mag.write(voxels, offset=OFFSET)
        layer.downsample(coarsest_mag=4, compression=compression or False)
    return ds


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is done to a dataset, and what is to be found."""

    damage: Callable[[Path], object]
    codes: set[str]
    """Of errors and warnings, without a look at voxels."""
    deep: set[str] = dataclasses.field(default_factory=set)
    """Those that a look at all voxels finds beside them."""
    formats: tuple[str, ...] = FORMATS
    repaired: bool = False
    """Whether a repair leaves nothing to be found."""

    @property
    def name(self):
        """The name of the function."""
        return self.damage.__name__


FAULTS: list[Fault] = []


def fault(*codes, deep=(), formats=FORMATS, repaired=False):
    """Register a fault."""

    def register(damage):
        FAULTS.append(Fault(damage, {*codes}, {*deep}, formats, repaired))
        return damage

    return register


# --- means ----------------------------------------------------------------------------------------------


def edit(folder, change):
    """Change the properties file."""
    path = folder / "datasource-properties.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def layer(raw, name="color"):
    """Return the entry of a layer."""
    return next(each for each in raw["dataLayers"] if each["name"] == name)


def metadata(folder, name="color", mag="1"):
    """Return the path of a mag's header or array metadata."""
    return next(
        path
        for each in ("header.wkw", "zarr.json", ".zarray")
        if (path := folder / name / mag / each).exists()
    )


def change_json(path, change):
    """Change a file of JSON."""
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def cubes(folder, name="color", mag="1"):
    """Return the files of the cubes of a mag, in order."""
    home = folder / name / mag
    skip = ("header.wkw", "zarr.json", ".zarray", ".zattrs")
    return sorted(
        path
        for path in home.rglob("*")
        if path.is_file() and path.name not in skip and ".wkdask" not in path.parts
    )


def overwrite(path, data, at=0):
    """Write bytes into a file; a negative place counts from its end."""
    with open(path, "r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        file.write(data)


# --- the properties file --------------------------------------------------------------------------------


@fault("properties-damaged")
def properties_cut_short(folder):
    path = folder / "datasource-properties.json"
    path.write_bytes(path.read_bytes()[:200])


@fault("properties-damaged")
def properties_empty(folder):
    (folder / "datasource-properties.json").write_bytes(b"")


@fault("properties-damaged")
def properties_not_utf8(folder):
    (folder / "datasource-properties.json").write_bytes(b"\xff\xfe\x00{}")


@fault("properties-damaged")
def properties_is_a_folder(folder):
    os.unlink(folder / "datasource-properties.json")
    os.mkdir(folder / "datasource-properties.json")


@fault("properties-missing")
def properties_removed(folder):
    os.unlink(folder / "datasource-properties.json")


@fault("no-permission")
def properties_hidden_by_their_mode(folder):
    os.chmod(folder / "datasource-properties.json", 0)


@fault("properties-damaged")
def scale_is_nan(folder):
    edit(folder, lambda raw: raw.update(scale={"factor": [float("nan"), 4, 4], "unit": "nanometer"}))


@fault("properties-damaged")
def layers_of_one_name(folder):
    edit(folder, lambda raw: raw["dataLayers"].append(layer(raw)))


@fault("layer-broken")
def element_class_unknown(folder):
    edit(folder, lambda raw: layer(raw).update(elementClass="uint7"))


@fault("layer-broken")
def mag_listed_twice(folder):
    edit(folder, lambda raw: layer(raw)["mags"].append(layer(raw)["mags"][0]))


@fault("layer-broken")
def mag_of_zero(folder):
    edit(folder, lambda raw: layer(raw)["mags"][1].update(mag=[0, 2, 2]))


@fault("box-invalid")
def box_of_negative_size(folder):
    edit(folder, lambda raw: layer(raw)["boundingBox"].update(width=-5))


@fault("box-invalid")
def box_missing(folder):
    edit(folder, lambda raw: layer(raw).pop("boundingBox"))


@fault("layer-incomplete")
def element_class_missing(folder):
    edit(folder, lambda raw: layer(raw).pop("elementClass"))


@fault("mag-mismatch")
def element_class_of_other_bits(folder):
    edit(folder, lambda raw: layer(raw).update(elementClass="uint16"))


@fault("segment-id-missing")
def segment_id_missing(folder):
    edit(folder, lambda raw: layer(raw, "cells").pop("largestSegmentId"))


@fault(deep=["segment-id-too-small"], repaired=True)
def segment_id_too_small(folder):
    edit(folder, lambda raw: layer(raw, "cells").update(largestSegmentId=LARGEST // 2))


@fault("server-large-ids")
def segment_id_beyond_javascript(folder):
    edit(folder, lambda raw: layer(raw, "cells").update(largestSegmentId=2**53))


@fault("attachment-missing")
def attachment_missing(folder):
    entry = {"meshes": [{"name": "m", "path": "./cells/meshes/m.hdf5", "dataFormat": "hdf5"}]}
    edit(folder, lambda raw: layer(raw, "cells").update(attachments=entry))


@fault("segment-id-too-small")
def segment_id_negative(folder):
    edit(folder, lambda raw: layer(raw, "cells").update(largestSegmentId=-5))


@fault("properties-unusual")
def properties_with_a_byte_order_mark(folder):
    path = folder / "datasource-properties.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


@fault("properties-damaged")
def unit_unknown(folder):
    edit(folder, lambda raw: raw["scale"].update(unit="furlong"))


@fault("properties-unusual")
def attachments_of_another_form(folder):
    edit(folder, lambda raw: layer(raw, "cells").update(attachments=[1]))


@fault("mag-mismatch")
def data_format_of_others(folder):
    edit(folder, lambda raw: layer(raw).update(dataFormat="n5"))


@fault("mag-missing", "mag-unlisted")
def mag_listed_elsewhere(folder):
    edit(folder, lambda raw: layer(raw)["mags"][0].update(path="../other/1"))


# --- boxes ----------------------------------------------------------------------------------------------


@fault("cubes-outside-box", deep=["voxels-outside-box", "mag-stale"], repaired=True)
def box_too_small(folder):
    edit(folder, lambda raw: layer(raw)["boundingBox"].update(width=50))


@fault("cubes-outside-box", deep=["voxels-outside-box", "mag-stale"], formats=ZARR[1:], repaired=True)
def box_cut_along_two_axes(folder):
    edit(folder, lambda raw: layer(raw)["boundingBox"].update(width=27, height=20))


@fault("box-too-large", "array-too-small", formats=ZARR)
def box_far_too_large_for_an_array(folder):
    edit(folder, lambda raw: layer(raw)["boundingBox"].update(depth=1000))


@fault("box-too-large", formats=WKW)
def box_far_too_large(folder):
    edit(folder, lambda raw: layer(raw)["boundingBox"].update(depth=1000))


@fault("box-too-large", deep=["mag-stale"], formats=WKW)
def box_of_ids_beyond_that_of_the_image(folder):
    edit(folder, lambda raw: layer(raw, "cells")["boundingBox"].update(height=300))


# --- mags -----------------------------------------------------------------------------------------------


@fault("mag-missing")
def mag_folder_removed(folder):
    shutil.rmtree(folder / "color" / "2")


def _scales(raw):
    return (raw["attributes"]["ome"] if "attributes" in raw else raw)["multiscales"][0]


@fault("mag-missing", "layer-unlisted")
def layer_folder_in_the_wrong_case(folder):
    os.rename(folder / "color", folder / "Color")


@fault("mag-missing")
def layer_folder_is_a_file(folder):
    shutil.rmtree(folder / "color")
    (folder / "color").touch()


@fault("mag-unlisted")
def mag_under_two_names(folder):
    shutil.copytree(folder / "color" / "2", folder / "color" / "2-2-2")


@fault("mag-unlisted", "server-mag-step", deep=[])
def mag_not_listed(folder):
    edit(folder, lambda raw: layer(raw)["mags"].pop(1))
    for name in ("zarr.json", ".zattrs"):
        if (path := folder / "color" / name).exists():
            change_json(path, lambda raw: _scales(raw)["datasets"].pop(1))


@fault("layer-unlisted")
def layer_not_listed(folder):
    edit(folder, lambda raw: raw["dataLayers"].pop(0))


@fault("mag-damaged")
def metadata_cut_short(folder):
    path = metadata(folder)
    path.write_bytes(path.read_bytes()[:10])


@fault("mag-damaged")
def metadata_removed(folder):
    os.unlink(metadata(folder))


@fault("mag-damaged")
def metadata_are_a_folder(folder):
    path = metadata(folder)
    os.unlink(path)
    os.mkdir(path)


@fault("mag-mismatch")
def metadata_of_another_type(folder):
    shutil.copy(metadata(folder, "cells"), metadata(folder))


@fault("mag-mismatch", formats=WKW)
def header_of_another_cube_length(folder):
    overwrite(metadata(folder), bytes([0x25]), at=4)  # cubes of 4 blocks


@fault("mag-damaged", formats=WKW)
def header_of_another_version(folder):
    overwrite(metadata(folder), bytes([2]), at=3)


@fault("cubes-outside-array", "array-too-small", formats=ZARR)
def array_too_small(folder):
    change_json(metadata(folder), lambda raw: raw.update(shape=[1, 64, 64, 32]))


@fault("array-too-large", formats=ZARR)
def array_far_too_large(folder):
    change_json(metadata(folder), lambda raw: raw.update(shape=[1, 4096, 4096, 4096]))


@fault("array-fill-value", formats=ZARR[1:])
def array_full_of_sevens(folder):
    change_json(metadata(folder), lambda raw: raw.update(fill_value=7))


@fault("cube-damaged", deep=[], formats=["zarr"])
def other_compressor(folder):
    change_json(metadata(folder), lambda raw: raw.update(compressor={"id": "gzip", "level": 5}))


# --- cubes ----------------------------------------------------------------------------------------------


@fault("cube-damaged")
def cube_empty(folder):
    os.truncate(cubes(folder)[0], 0)


@fault("cube-damaged", formats=[*WKW, "zarr3"])
def cube_cut_short(folder):
    path = cubes(folder)[-1]
    os.truncate(path, path.stat().st_size - 7)


@fault(deep=["cube-damaged"], formats=["zarr"])
def chunk_cut_short(folder):
    path = cubes(folder)[3]
    os.truncate(path, path.stat().st_size // 2)


@fault("cube-damaged", formats=WKW)
def cube_of_another_version(folder):
    overwrite(cubes(folder)[1], bytes([9]), at=3)


@fault("cube-damaged", formats=WKW)
def cube_of_another_type(folder):
    overwrite(cubes(folder)[1], bytes([3, 4]), at=6)


@fault("cube-damaged", formats=["wkw-lz4"])
def jump_table_beyond_the_end(folder):
    overwrite(cubes(folder)[1], struct.pack("<Q", 1 << 40), at=16 + 8 * 7)


@fault("cube-damaged", formats=["wkw-lz4"])
def jump_table_backwards(folder):
    overwrite(cubes(folder)[1], struct.pack("<Q", 100), at=16 + 8 * 3)


@fault(deep=["cube-damaged"], formats=["wkw-lz4"])
def blocks_of_noise(folder):
    path = cubes(folder)[1]
    (start,) = struct.unpack_from("<Q", path.read_bytes(), 16 + 8 * 2)
    overwrite(path, bytes(3000), at=start)  # block 3 begins with a token that leads nowhere


@fault("cube-damaged", formats=["zarr3"])
def index_of_another_checksum(folder):
    overwrite(cubes(folder)[1], b"\x00\x01\x02\x03", at=-4)


@fault(deep=["cube-damaged"], formats=["zarr3"])
def chunks_of_noise(folder):
    overwrite(cubes(folder)[1], b"\xff" * 3000, at=100)


@fault("cube-damaged")
def cube_is_a_folder(folder):
    path = cubes(folder)[0]
    os.unlink(path)
    os.mkdir(path)


@fault("cube-damaged")
def cube_is_a_link_to_nothing(folder):
    path = cubes(folder)[0]
    os.unlink(path)
    os.symlink("nowhere", path)


@fault("no-permission")
def cube_hidden_by_its_mode(folder):
    os.chmod(cubes(folder)[0], 0)


@fault("no-permission")
def folder_of_cubes_hidden_by_its_mode(folder):
    os.chmod(cubes(folder)[0].parent, 0o300)


@fault("stray-file", deep=["cubes-missing"], formats=WKW)
def folder_of_cubes_in_the_wrong_case(folder):
    os.rename(folder / "color/1/z0/y1", folder / "color/1/z0/Y1")


@fault("stray-file", deep=["cubes-missing"])
def cube_under_a_wrong_name(folder):
    path = cubes(folder)[0]
    os.rename(path, path.with_name(path.name.replace("0", "00")))


@fault("stray-file", deep=["cubes-missing"], formats=WKW)
def cube_in_a_wrong_folder(folder):
    os.rename(folder / "color/1/z0/y1/x1.wkw", folder / "color/1/z0/x1.wkw")


@fault("stray-file", formats=[*WKW, "zarr3"])
def file_where_a_folder_belongs(folder):
    home = cubes(folder)[0].parent
    shutil.rmtree(home)
    home.touch()


@fault(deep=["cubes-missing"])
def cube_removed(folder):
    os.unlink(cubes(folder)[0])


@fault(deep=["mag-stale"], repaired=True)
def coarser_cube_removed(folder):
    os.unlink(cubes(folder, mag="2")[0])


@fault(deep=["mag-stale"], repaired=True)
def coarser_cube_of_another_place(folder):
    first, last = cubes(folder, "cells")[0], cubes(folder, "cells", "2")[0]
    shutil.copy(first, last)


@fault("link-cycle")
def link_to_the_folder_above(folder):
    home = cubes(folder)[0].parent
    os.symlink("..", home.parent / home.name.replace("0", "7"))


@fault("stray-file")
def name_of_bytes_that_are_no_text(folder):
    os.close(os.open(os.fsencode(folder / "color/1") + b"/k\xe9", os.O_CREAT))


@fault("temporary-file")
def temporary_file_of_another_program(folder):
    path = cubes(folder)[0]
    shutil.copy(path, path.with_name(f".{path.name}.Xy12Zz"))


@fault("temporary-file")
def partial_file_of_zarr_python(folder):
    (cubes(folder)[0].parent / "0123abcd.partial").write_bytes(b"123")


@fault("cubes-outside-box", deep=["voxels-outside-box"], formats=WKW, repaired=True)
def cube_far_outside(folder):
    path = cubes(folder)[0]
    far = folder / "color/1/z0/y0/x5.wkw"
    shutil.copy(path, far)


@fault("cube-damaged")
def cube_is_a_pipe(folder):
    path = cubes(folder)[0]
    os.unlink(path)
    os.mkfifo(path)


@fault("cube-trailing", formats=["wkw-lz4"])
def bytes_behind_the_last_block(folder):
    path = cubes(folder)[0]
    path.write_bytes(path.read_bytes() + b"xx")


@fault("link-broken", "mag-missing")
def mag_is_a_link_to_itself(folder):
    shutil.rmtree(folder / "color" / "2")
    os.symlink("2", folder / "color" / "2")


@fault("link-broken")
def folder_of_cubes_is_a_link_to_itself(folder):
    home = cubes(folder)[0].parent
    name = home.name.replace("0", "9")
    os.symlink(name, home.parent / name)


@fault("no-permission")
def layer_hidden_by_its_mode(folder):
    os.chmod(folder / "color", 0)


@fault("stray-file")
def file_where_jobs_have_their_folders(folder):
    shutil.rmtree(folder / "color/1/.wkdask", ignore_errors=True)
    (folder / "color/1/.wkdask").touch()


@fault(deep=["mag-stale"], repaired=True)
def finest_mag_written_without_the_coarser_ones(folder):
    mag = Dataset(folder).get_layer("cells").get_mag(1)
    mag.write(np.full((1, 20, 30, 20), 3, "uint32"), offset=(10, 10, 0), progress=False)


# --- what processes leave -------------------------------------------------------------------------------


@fault("leftover", repaired=True)
def folder_of_a_dead_job(folder):
    home = folder / "color/1/.wkdask/0123456789ab"
    home.mkdir(parents=True)
    (home / "alive").touch()
    (home / "host-1-2").mkdir()
    (home / "host-1-2" / "0.shard").write_bytes(b"1")


@fault("leftover", repaired=True)
def folder_on_its_way_out(folder):
    (folder / "color/1/.wkdask").mkdir(exist_ok=True)
    (folder / f"color/1/.wkdask/.0123456789ab.gone-{'a' * 32}").mkdir()


@fault("leftover", repaired=True)
def temporary_properties(folder):
    (folder / f".datasource-properties.json.{'b' * 32}.tmp").write_bytes(b"{")


@fault("leftover", repaired=True)
def layer_on_its_way_out(folder):
    (folder / f".old.gone-{'c' * 32}/1").mkdir(parents=True)


@fault("edit-unfinished", repaired=True)
def rename_that_was_interrupted(folder):
    (folder / ".wkdask").mkdir(exist_ok=True)
    (folder / ".wkdask/edit").write_text(json.dumps({"rename": ["old", "color"]}))


# --- OME-Zarr -------------------------------------------------------------------------------------------


@fault("ome-missing", formats=ZARR, repaired=True)
def ome_removed(folder):
    for name in ("zarr.json", ".zattrs"):
        (folder / "color" / name).unlink(missing_ok=True)


@fault("ome-stale", formats=ZARR, repaired=True)
def ome_of_fewer_mags(folder):
    for name in ("zarr.json", ".zattrs"):
        if (path := folder / "color" / name).exists():
            change_json(path, lambda raw: _scales(raw)["datasets"].pop())


@fault("ome-stale", formats=ZARR, repaired=True)
def ome_of_another_voxel_size(folder):
    edit(folder, lambda raw: raw.update(scale={"factor": [4, 4, 5], "unit": "nanometer"}))


# --- two at a time --------------------------------------------------------------------------------------


@fault("cube-damaged", "leftover")
def damaged_cube_and_leftover(folder):
    cube_empty(folder)
    folder_of_a_dead_job(folder)


@fault("temporary-file", deep=["segment-id-too-small"])
def small_id_and_temporary_file(folder):
    segment_id_too_small(folder)
    temporary_file_of_another_program(folder)


@fault("mag-missing", "no-permission")
def missing_mag_and_hidden_cube(folder):
    mag_folder_removed(folder)
    cube_hidden_by_its_mode(folder)
