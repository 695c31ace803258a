"""Attachments of a segmentation: what the properties file says of them, and where their data are."""

import json
import os

import numpy as np
import pytest

import wkdask
from wkdask import (
    AgglomerateAttachment,
    AttachmentDataFormat,
    BoundingBox,
    ConnectomeAttachment,
    CumsumAttachment,
    Dataset,
    MeshAttachment,
    SegmentIndexAttachment,
    SegmentStatisticsAttachment,
)
from wkdask.errors import (
    AlreadyExistsError,
    InvalidValueError,
    PropertiesError,
    ReadOnlyError,
    UnsupportedFormatError,
    WkdaskWarning,
)

ZARR3, HDF5, JSON = AttachmentDataFormat.Zarr3, AttachmentDataFormat.HDF5, AttachmentDataFormat.JSON


@pytest.fixture
def layer(tmp_path):
    return Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer(
        "seg", "segmentation", dtype_per_channel="uint32"
    )


@pytest.fixture
def data(tmp_path):
    """A folder and a file outside of the dataset."""
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "sub" / "zarr.json").write_text("{}")
    (tmp_path / "file.hdf5").write_text("hdf5")
    return tmp_path


def listed(layer):
    with open(os.path.join(layer.dataset_path, "datasource-properties.json")) as file:
        return json.load(file)["dataLayers"][0].get("attachments")


def edit(layer, attachments):
    path = os.path.join(layer.dataset_path, "datasource-properties.json")
    with open(path) as file:
        raw = json.load(file)
    raw["dataLayers"][0]["attachments"] = attachments
    with open(path, "w") as file:
        json.dump(raw, file)


def tree(folder):
    return sorted(
        os.path.relpath(os.path.join(top, name), folder)
        for top, folders, files in os.walk(folder)
        for name in [*folders, *files]
        if not name.startswith(".wkdask") and "/.wkdask" not in top
    )


def entry(name, path, data_format="zarr3"):
    return {"name": name, "path": str(path), "dataFormat": data_format}


def test_a_layer_without_attachments(layer):
    found = layer.attachments
    assert found.is_empty
    assert list(found) == []
    assert (found.meshes, found.agglomerates, found.connectomes) == ((), (), ())
    assert (found.segment_index, found.segment_statistics, found.cumsum) == (None, None, None)
    color = Dataset(layer.dataset_path).add_layer("color", "color")
    assert not hasattr(color, "attachments")


def test_attachments_are_listed_where_they_are(layer, data):
    expected = {
        "meshes": [entry("m", data / "out"), entry("n", "./seg/meshes/n", "neuroglancerPrecomputed")],
        "agglomerates": [entry("a.1", "s3://bucket/a", "hdf5")],
        "segmentIndex": entry("index", "./elsewhere/index"),
        "cumsum": entry("c", data / "c.json", "json"),
        "connectomes": [entry("x", data / "missing", "hdf5")],
        "segmentStatistics": entry("s", data / "out"),
    }
    found = layer.attachments
    mesh = found.add_mesh(data / "out", name="m", data_format=ZARR3)
    found.add_mesh("seg/meshes/n", name="n", data_format=AttachmentDataFormat.NeuroglancerPrecomputed)
    url = found.add_agglomerate("s3://bucket/a", name="a.1", data_format="hdf5")
    found.set_segment_index(data / "ds" / "elsewhere" / "index", name="index", data_format=ZARR3)
    found.set_cumsum("../c.json", name="c", data_format=JSON)
    found.add_connectome(data / "missing", name="x", data_format=HDF5)
    found.set_segment_statistics(data / "out", name="s", data_format=ZARR3)
    assert listed(layer) == expected

    assert (mesh.name, mesh.path, mesh.data_format) == ("m", data / "out", ZARR3)
    assert found.meshes == (
        mesh,
        MeshAttachment("n", data / "ds/seg/meshes/n", AttachmentDataFormat("neuroglancerPrecomputed")),
    )
    assert found.agglomerates == (url,)
    assert url.path == "s3://bucket/a"
    assert found.segment_index.path == data / "ds" / "elsewhere" / "index"
    assert (found.cumsum.name, found.segment_statistics.name) == ("c", "s")
    assert [type(each).type_name for each in found] == [
        "mesh", "mesh", "agglomerate", "segmentIndex", "segmentStatistics", "cumsum", "connectome",
    ]  # fmt: skip
    assert not found.is_empty


def test_one_index_takes_the_place_of_the_other(layer, data):
    layer.attachments.set_segment_index(data / "out", name="one", data_format=ZARR3)
    layer.attachments.set_segment_index(data / "out", name="two", data_format=ZARR3)
    assert listed(layer) == {"segmentIndex": entry("two", data / "out")}


def test_a_name_is_taken_once_for_each_kind(layer, data):
    layer.attachments.add_mesh(data / "out", name="a", data_format=ZARR3)
    layer.attachments.add_agglomerate(data / "out", name="a", data_format=ZARR3)
    before = listed(layer)
    with pytest.raises(AlreadyExistsError, match="'a' among its meshes"):
        layer.attachments.add_mesh(data / "file.hdf5", name="a", data_format=HDF5)
    with pytest.raises(AlreadyExistsError, match="'a' among its meshes"):
        layer.attachments.add_attachments(
            MeshAttachment.from_path_and_name(data / "out", "b", data_format=ZARR3),
            MeshAttachment.from_path_and_name(data / "out", "a", data_format=ZARR3),
        )
    assert listed(layer) == before


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", ".a", "ä", 1])
def test_a_name_that_is_none_is_refused(layer, name):
    with pytest.raises(InvalidValueError, match="letters, digits"):
        layer.attachments.add_mesh("x", name=name, data_format=ZARR3)
    assert listed(layer) is None


@pytest.mark.parametrize(
    ("kind", "formats"),
    [
        (MeshAttachment, {"zarr3", "hdf5", "neuroglancerPrecomputed"}),
        (AgglomerateAttachment, {"zarr3", "hdf5"}),
        (ConnectomeAttachment, {"zarr3", "hdf5"}),
        (SegmentIndexAttachment, {"zarr3", "hdf5"}),
        (SegmentStatisticsAttachment, {"zarr3"}),
        (CumsumAttachment, {"zarr3", "json"}),
    ],
)
def test_each_kind_has_its_formats(kind, formats):
    for data_format in AttachmentDataFormat:
        if data_format.value in formats:
            made = kind.from_path_and_name("/x", "n", data_format=data_format)
            assert made.data_format is data_format
        else:
            with pytest.raises(
                InvalidValueError, match=f"{kind.__name__} is stored as .*zarr3.*got {data_format}"
            ):
                kind.from_path_and_name("/x", "n", data_format=data_format)
    with pytest.raises(InvalidValueError, match="got 'tiff'"):
        kind.from_path_and_name("/x", "n", data_format="tiff")


def test_an_attachment_is_of_a_kind():
    with pytest.raises(InvalidValueError, match="use MeshAttachment"):
        wkdask.Attachment.from_path_and_name("/x", "n", data_format=ZARR3)


def test_relative_paths_start_from_the_dataset_or_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert MeshAttachment.from_path_and_name("m", "n", data_format=ZARR3).path == tmp_path / "m"
    made = MeshAttachment.from_path_and_name("m", "n", data_format=ZARR3, dataset_path="/ds")
    assert str(made.path) == "/ds/m"


def test_copies_lie_in_the_layers_folder(layer, data):
    folder = layer.attachments.add_attachment_as_copy(
        AgglomerateAttachment.from_path_and_name(data / "out", "a", data_format=ZARR3)
    )
    file, index = layer.attachments.add_copy_attachments(
        MeshAttachment.from_path_and_name(data / "file.hdf5", "m", data_format=HDF5),
        SegmentIndexAttachment.from_path_and_name(data / "out" / "sub", "i", data_format=ZARR3),
    )
    assert listed(layer) == {
        "agglomerates": [entry("a", "./seg/agglomerates/a")],
        "meshes": [entry("m", "./seg/meshes/m.hdf5", "hdf5")],
        "segmentIndex": entry("i", "./seg/segmentIndex/i"),
    }
    assert tree(layer.path) == [
        "agglomerates", "agglomerates/a", "agglomerates/a/sub", "agglomerates/a/sub/zarr.json",
        "meshes", "meshes/m.hdf5", "segmentIndex", "segmentIndex/i", "segmentIndex/i/zarr.json",
    ]  # fmt: skip
    assert file.path.read_text() == "hdf5"
    assert folder == layer.attachments.agglomerates[0]
    assert index == layer.attachments.segment_index


def test_a_copy_that_is_refused_leaves_nothing(layer, data):
    mesh = MeshAttachment.from_path_and_name(data / "file.hdf5", "m", data_format=HDF5)
    before = tree(layer.dataset_path)
    with pytest.raises(FileNotFoundError):
        layer.attachments.add_attachment_as_copy(MeshAttachment("m", data / "nothing", ZARR3))
    with pytest.raises(UnsupportedFormatError, match="add_attachment_as_ref"):
        layer.attachments.add_attachment_as_copy(
            MeshAttachment.from_path_and_name("s3://bucket/m", "m", data_format=ZARR3)
        )
    with pytest.raises(InvalidValueError, match="contains the layer's folder"):
        layer.attachments.add_attachment_as_copy(
            MeshAttachment.from_path_and_name(layer.dataset_path, "m", data_format=ZARR3)
        )
    assert tree(layer.dataset_path) == before
    layer.attachments.add_attachment_as_copy(mesh)
    before = tree(layer.dataset_path), listed(layer)
    with pytest.raises(AlreadyExistsError, match="'m' among its meshes"):
        layer.attachments.add_attachment_as_copy(mesh)
    layer.attachments.rename_attachment(layer.attachments.meshes[0], new_name="other")
    with pytest.raises(AlreadyExistsError, match=r"m\.hdf5 exists already"):
        layer.attachments.add_attachment_as_copy(mesh)
    assert tree(layer.dataset_path) == before[0]


def test_a_copy_whose_commit_fails_is_removed(layer, data, monkeypatch):
    before = tree(layer.dataset_path)
    monkeypatch.setattr("wkdask.fsio.atomic_write", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        layer.attachments.add_attachment_as_copy(MeshAttachment("m", data / "out", ZARR3))
    assert tree(layer.dataset_path) == before


@pytest.mark.parametrize("relative", [False, True])
def test_links_lie_in_the_layers_folder(layer, data, relative):
    (made,) = layer.attachments.add_symlink_attachments(
        MeshAttachment.from_path_and_name(data / "out", "m", data_format=ZARR3), make_relative=relative
    )
    link = os.path.join(layer.path, "meshes", "m")
    assert os.readlink(link) == ("../../../out" if relative else str(data / "out"))
    assert str(made.path) == link
    assert listed(layer) == {"meshes": [entry("m", "./seg/meshes/m")]}
    layer.attachments.delete_attachment(made)
    assert not os.path.lexists(link)
    assert (data / "out" / "sub" / "zarr.json").is_file()


def test_references_to_attachments_of_another_layer(layer, data):
    other = Dataset(layer.dataset_path).add_layer("other", "segmentation", dtype_per_channel="uint32")
    mesh = layer.attachments.add_attachment_as_copy(MeshAttachment("m", data / "out", ZARR3))
    other.attachments.add_attachment_as_ref(mesh)
    other.attachments.add_attachment_as_ref(mesh, new_name="again")
    raw = other.record.raw["attachments"]
    assert raw == {"meshes": [entry("m", "./seg/meshes/m"), entry("again", "./seg/meshes/m")]}
    outside = Dataset.create(data / "ds2", (1, 1, 1)).add_layer("s", "segmentation")
    outside.attachments.add_attachments(mesh)
    assert listed(outside) == {"meshes": [entry("m", data / "ds/seg/meshes/m")]}
    outside.attachments.delete_attachment(outside.attachments.meshes[0])
    assert listed(outside) is None
    assert os.path.isdir(mesh.path)


def test_a_rename_keeps_place_data_and_unknown_keys(layer, data):
    edit(
        layer, {"meshes": [{**entry("a", "./seg/meshes/a"), "more": 1}, entry("b", data / "out")], "new": [1]}
    )
    first = layer.attachments.meshes[0]
    renamed = layer.attachments.rename_attachment(first, new_name="c")
    assert renamed == MeshAttachment("c", data / "ds/seg/meshes/a", ZARR3)
    assert listed(layer)["meshes"] == [{**entry("c", "./seg/meshes/a"), "more": 1}, entry("b", data / "out")]
    assert layer.attachments.rename_attachment(renamed, new_name="c") == renamed
    with pytest.raises(AlreadyExistsError, match="'b'"):
        layer.attachments.rename_attachment(renamed, new_name="b")
    with pytest.raises(InvalidValueError, match=r"does not list .*its meshes are: 'c', 'b'"):
        layer.attachments.rename_attachment(first, new_name="d")
    layer.attachments.delete_attachment(renamed)
    assert listed(layer) == {"meshes": [entry("b", data / "out")], "new": [1]}


def test_only_the_layers_own_data_are_deleted(layer, data):
    found = layer.attachments
    copy = found.add_attachment_as_copy(MeshAttachment("m", data / "out", ZARR3))
    found.add_attachment_as_ref(copy, new_name="twice")
    found.delete_attachment(copy)
    assert os.path.isdir(copy.path)  # the other one has it
    found.delete_attachment(found.meshes[0])
    assert tree(layer.path) == []
    layer.add_mag(1, shard_shape=32).write(np.ones((8, 8, 8), np.uint32))
    for path in (layer.path, os.path.join(layer.path, "1"), layer.dataset_path, data / "out"):
        found.delete_attachment(found.add_mesh(path, name="evil", data_format=ZARR3))
        assert os.path.exists(path)
    file = found.add_attachment_as_copy(MeshAttachment("f", data / "file.hdf5", HDF5))
    found.delete_attachment(file)
    assert not os.path.exists(os.path.join(layer.path, "meshes"))
    with pytest.raises(InvalidValueError, match="does not list"):
        found.delete_attachment(file)


def test_files_of_before_are_detected(layer, data):
    for name in (
        "meshes/b.hdf5",
        "meshes/a.hdf5",
        "meshes/z.txt",
        "agglomerates/v.hdf5",
        "connectomes/c.hdf5",
    ):
        os.makedirs(os.path.dirname(os.path.join(layer.path, name)), exist_ok=True)
        with open(os.path.join(layer.path, name), "w") as file:
            file.write("x")
    with open(os.path.join(layer.path, "agglomerates", "cumsum.json"), "w") as file:
        file.write("x")
    expected = {
        "meshes": [entry("a", "./seg/meshes/a.hdf5", "hdf5"), entry("b", "./seg/meshes/b.hdf5", "hdf5")],
        "agglomerates": [entry("v", "./seg/agglomerates/v.hdf5", "hdf5")],
        "connectomes": [entry("c", "./seg/connectomes/c.hdf5", "hdf5")],
        "cumsum": entry("cumsum", "./seg/agglomerates/cumsum.json", "json"),
    }
    layer.attachments.detect_legacy_attachments()
    assert listed(layer) == expected
    layer.attachments.detect_legacy_attachments()
    assert listed(layer) == expected
    with open(os.path.join(layer.path, "meshes", "a b.hdf5"), "w") as file:
        file.write("x")
    with pytest.warns(WkdaskWarning, match=r"a b\.hdf5 is not listed"):
        layer.attachments.detect_legacy_attachments()


def test_a_format_of_a_newer_version_is_kept(layer):
    edit(layer, {"meshes": [entry("m", "./m", "newer")]})
    (mesh,) = layer.attachments.meshes
    assert mesh.data_format == "newer"


@pytest.mark.parametrize("wrong", [[1], [{"name": "m"}], {"name": "m", "path": 1, "dataFormat": "zarr3"}, 5])
def test_what_is_no_attachment_is_named(layer, wrong):
    edit(layer, {"meshes": wrong})
    with pytest.raises(PropertiesError, match="layer 'seg': attachments: meshes: expected name, path"):
        list(layer.attachments)


def test_attachments_of_a_linked_layer_are_read_only(layer, data):
    linked = Dataset.create(data / "ds2", (1, 1, 1)).add_symlink_layer(layer.path, writable=False)
    with pytest.raises(ReadOnlyError, match="read-only"):
        linked.attachments.add_attachment_as_copy(MeshAttachment("m", data / "out", ZARR3))
    assert tree(layer.path) == []


def test_a_renamed_layer_and_a_copy_keep_their_attachments(layer, data):
    layer.bounding_box = BoundingBox((0, 0, 0), (8, 8, 8))
    layer.attachments.add_attachment_as_copy(MeshAttachment("m", data / "out", ZARR3))
    layer.name = "new"
    (mesh,) = layer.attachments.meshes
    assert mesh.path == data / "ds/new/meshes/m"
    assert (mesh.path / "sub" / "zarr.json").is_file()
