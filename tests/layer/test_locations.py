"""Where magnifications are: folders, links, what lies outside of a dataset."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from wkdask import BoundingBox, Dataset, Mag
from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    InvalidValueError,
    LayerNotFoundError,
    OutsideError,
    UnsupportedFormatError,
    WkdaskError,
)
from wkdask.locations import (
    HOW_TO_WRITE,
    check_agreement,
    cubes_box,
    foreign_mag,
    is_address,
    is_own,
    link_folder,
    mag_folder,
    mag_place,
    outside,
    refuse_outside,
    voxel_by_headers,
)
from wkdask.properties import AddMag, MagRecord
from wkdask.properties.handle import Properties


def record(mag, path=None, cube_length=None):
    return MagRecord(Mag(mag), path, cube_length, {})


# --- folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mag", "path", "folder"),
    [
        (1, None, "color/1"),
        ("2-2-1", None, "color/2-2-1"),
        (4, "./color/4", "color/4"),
        (4, "elsewhere/4", "elsewhere/4"),
        (4, "../other/color/4", "../other/color/4"),
        (4, "/absolute/4", "/absolute/4"),
    ],
)
def test_a_mag_is_where_the_properties_say(tmp_path, mag, path, folder):
    expected = os.path.normpath(tmp_path / "ds" / folder)
    assert mag_folder(str(tmp_path / "ds"), "color", record(mag, path)) == expected


def test_the_long_name_counts_where_there_is_no_short_one(tmp_path):
    (tmp_path / "color" / "2-2-2").mkdir(parents=True)
    assert mag_folder(str(tmp_path), "color", record(2)) == str(tmp_path / "color" / "2-2-2")
    (tmp_path / "color" / "2").mkdir()
    assert mag_folder(str(tmp_path), "color", record(2)) == str(tmp_path / "color" / "2")


@pytest.mark.parametrize("url", ["ftp://example.com/1", "zip::http://x", "file:///data/1"])
def test_addresses_of_other_kinds_are_not_read(tmp_path, url):
    with pytest.raises(UnsupportedFormatError, match="URLs that are read begin with s3://, gs://"):
        mag_folder(str(tmp_path), "color", record(1, url))


def test_a_mag_at_a_url_and_a_mag_of_a_dataset_at_a_url(tmp_path):
    assert mag_folder(str(tmp_path), "color", record(1, "s3://bucket//a/1/")) == "s3://bucket/a/1"
    assert mag_folder("s3://bucket/ds", "color", record(1, "./color/1")) == "s3://bucket/ds/color/1"
    assert mag_folder("s3://bucket/ds", "color", record(2)) == "s3://bucket/ds/color/2"


def test_what_is_outside_says_where(tmp_path):
    ds, other = tmp_path / "ds", tmp_path / "ds2"
    for folder in (ds / "color" / "1", other / "color" / "1"):
        folder.mkdir(parents=True)
    (ds / "link").symlink_to(other / "color")
    (ds / "inner").symlink_to(ds / "color")
    (tmp_path / "alias").symlink_to(ds)
    for inside in (ds / "color" / "1", ds / "absent", ds / "inner" / "1", tmp_path / "alias" / "color"):
        assert outside(str(ds), str(inside)) is None
        assert outside(str(tmp_path / "alias"), str(inside)) is None
    for far in (ds / "link" / "1", other / "color" / "1", tmp_path, Path("/")):
        why = outside(str(ds), str(far))
        assert os.path.realpath(far) in why
        assert str(ds) in why


def test_addresses_are_told_from_paths():
    for path in ("https://example.com/1", "s3://bucket/1", "zip::http://x"):
        assert is_address(record(1, path))
    for path in (None, "./color/1", "/data/1", "a:b", "C:/x"):
        assert not is_address(record(1, path))


def test_what_may_happen_with_a_mag_outside(make_mag, tmp_path):
    mag, other = make_mag(), make_mag()
    folder, store = mag.place.dataset_path, other.place.store
    for word, why in (("read-only", f"{outside(folder, store.path)}; {HOW_TO_WRITE}"), ("write", None)):
        place = mag_place(Properties(folder, word), "layer", Mag(1), store)
        assert (place.read_only, place.store.outside) == (why, word)
        assert (place.store.path, place.dataset_path) == (store.path, folder)
    with pytest.raises(OutsideError, match="layer 'layer' mag 1: it is linked from"):
        mag_place(Properties(folder, "refuse"), "layer", Mag(1), store)
    own = mag_place(Properties(folder, "refuse"), "layer", Mag(1), mag.place.store)
    assert (own.read_only, own.store.outside) == (None, "refuse")


def test_a_dataset_that_reaches_outside_is_refused_where_that_is_asked_for(make_mag):
    mag, other = make_mag(), make_mag()
    folder = mag.place.dataset_path
    refuse_outside(Properties(folder, "refuse"))
    properties = Properties(folder)
    for path in (str(other.path), "http://example.com/1"):
        properties.commit(AddMag("layer", Mag(2), 32, path=path))
        with pytest.raises(OutsideError, match="mag 2"):
            refuse_outside(Properties(folder, "refuse"))
        for word in ("read-only", "write"):
            refuse_outside(Properties(folder, word))
        Dataset(folder).get_layer("layer").delete_mag(2)
    with pytest.raises(InvalidValueError, match='"refuse"'):
        refuse_outside(Properties(folder, "open"))
    assert os.path.isdir(other.path)


# --- links ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
def test_a_link_leads_to_its_target(tmp_path, relative):
    (tmp_path / "a" / "target").mkdir(parents=True)
    (tmp_path / "a" / "target" / "file").write_text("x")
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "alias").symlink_to(tmp_path / "real" / "deep")
    for link in (tmp_path / "b" / "c" / "link", tmp_path / "alias" / "d" / "link"):
        link_folder(str(tmp_path / "a" / "target"), str(link), relative)
        assert (link / "file").read_text() == "x"
        assert os.path.isabs(os.readlink(link)) is not relative
        with pytest.raises(AlreadyExistsError):
            link_folder(str(tmp_path / "a" / "target"), str(link), relative)


# --- other datasets' mags -------------------------------------------------------------------------------


def test_a_foreign_mag_by_handle_and_by_folder(make_mag, tmp_path, monkeypatch):
    mag = make_mag(mag=(2, 2, 1))
    mag.write(np.ones((4, 4, 4), "uint8"), offset=(40, 0, 0))
    box = BoundingBox((80, 0, 0), (8, 8, 4))
    monkeypatch.chdir(mag.layer.path)
    for given in (mag, mag.get_view(), mag.path, Path(mag.path), f"{mag.path}/", "2-2-1"):
        which, store, found = foreign_mag(given)
        assert (which, store, found) == (Mag("2-2-1"), mag.place.store, box)
    shutil.copytree(mag.path, tmp_path / "alone" / "4-4-1")
    which, store, found = foreign_mag(tmp_path / "alone" / "4-4-1")
    assert (which, store.spec, found) == (Mag("4-4-1"), mag.spec, None)


def test_what_is_no_mag_is_refused(make_mag, tmp_path):
    mag = make_mag()
    with pytest.raises(DamagedHeaderError):
        foreign_mag(tmp_path)
    with pytest.raises(WkdaskError):
        foreign_mag(shutil.copytree(mag.path, tmp_path / "no mag"))
    with pytest.raises(LayerNotFoundError):
        foreign_mag(shutil.copytree(mag.path, Path(mag.place.dataset_path) / "unlisted" / "1"))


def test_the_box_of_the_cubes_that_exist(make_mag):
    mag = make_mag()
    assert cubes_box(mag.place.store).is_empty()
    mag.write(np.ones((1, 1, 1), "uint8"), offset=(40, 0, 100))
    assert cubes_box(mag.place.store) == BoundingBox((32, 0, 96), (32, 32, 32))
    mag.write(np.ones((1, 1, 1), "uint8"), offset=(0, 70, 100))
    assert cubes_box(mag.place.store) == BoundingBox((0, 0, 96), (64, 96, 32))


def test_a_header_that_contradicts_is_named(make_mag):
    store = make_mag("uint16", 2).place.store
    check_agreement("layer", record(1), "uint16", 2, store)
    check_agreement("layer", record(1, cube_length=32), "uint16", 2, store)
    for dtype, channels, cube, word in [
        ("uint8", 2, 32, "dtype uint16 against uint8"),
        ("uint16", 1, 32, "channels 2 against 1"),
        ("uint16", 2, 64, "cubeLength 32 against 64"),
    ]:
        with pytest.raises(DamagedHeaderError, match=word):
            check_agreement("layer", record(1, cube_length=cube), dtype, channels, store)


def test_channels_come_from_a_header_that_agrees(make_mag):
    mag = make_mag("uint16", 3)
    layer = mag.layer
    folder = mag.place.dataset_path
    layer.add_mag(2, shard_shape=32)
    assert voxel_by_headers(folder, layer.record)[1] == 3
    header = Path(mag.path, "header.wkw")
    good = header.read_bytes()
    for content in (b"", good[:6] + b"\1\1" + good[8:]):
        header.write_bytes(content)
        assert voxel_by_headers(folder, layer.record)[1] == 3  # the other mag's
    layer.delete_mag(2)
    with pytest.raises(DamagedHeaderError, match=r"'uint48'.*header\.wkw says uint8"):
        voxel_by_headers(folder, layer.record)
    layer.delete_mag(1)
    with pytest.raises(DamagedHeaderError, match="there are no mags"):
        voxel_by_headers(folder, layer.record)


# --- what may be removed --------------------------------------------------------------------------------


def test_own_folders_are_the_layers_and_listed_nowhere(make_mag, tmp_path):
    mag = make_mag()
    ds = Dataset(mag.place.dataset_path)
    properties = Properties(ds.path)
    other = ds.add_layer("other", "color")
    (Path(mag.layer.path) / "8").mkdir()
    (tmp_path / "far").mkdir()
    (Path(mag.layer.path) / "16").symlink_to(tmp_path / "far")
    assert is_own(properties, "layer", f"{mag.layer.path}/8")
    assert not is_own(properties, "layer", mag.path)  # still listed
    assert not is_own(properties, "other", f"{mag.layer.path}/8")
    assert not is_own(properties, "layer", f"{mag.layer.path}/16")
    assert not is_own(properties, "layer", str(tmp_path / "far"))
    assert not is_own(properties, "layer", mag.layer.path)
    properties.commit(AddMag(other.name, Mag(8), 32, path="./layer/8"))
    assert not is_own(properties, "layer", f"{mag.layer.path}/8")
