"""Every public call that reads gives at a URL what it gives on a folder; every one that writes there is refused."""

import os

import pytest
from distributed import Client, LocalCluster
from folder_server import FolderServer
from reading_calls import (
    CALLS,
    LAYOUTS,
    OF_THE_DATASET,
    REFUSED,
    UNLISTED,
    Scene,
    at_urls,
    make_dataset,
    memory_url,
    same,
)
from stored_objects import put_folder

from wkdask import Dataset, NDBoundingBox
from wkdask.errors import ReadOnlyError, UnsupportedFormatError, WkdaskWarning
from wkdask.objects.reading import list_objects

DAILY = ("wkw-lz4", "memory")


def every(*places):
    """Return each layout at each place; most are slow."""
    return [
        pytest.param(
            (layout, place),
            id=f"{layout}-{place}",
            marks=[] if (layout, place) == DAILY else [pytest.mark.slow],
        )
        for layout in LAYOUTS
        for place in places
    ]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """A path that is taken for a relative one would make something here."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert os.listdir(folder) == []


@pytest.fixture
def there(request, tmp_path):
    """Return (the folder of a dataset, where it is as well, what kind of place that is)."""
    layout, place = request.param
    folder = str(tmp_path / "ds")
    make_dataset(folder, layout)
    if place == "http":
        with FolderServer(tmp_path) as server:
            yield folder, f"{server.url}/ds", place
        return
    if place == "s3":
        url = request.getfixturevalue("bucket").url
        put_folder(folder, url)
    else:
        url = memory_url(folder)
    yield folder, at_urls(folder, url) if place == "listed" else url, place


def tried(call, scene):
    """Return what a call gives, or its error."""
    scene.out.mkdir()
    try:
        return call(scene)
    except Exception as error:
        return error


@pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")
@pytest.mark.parametrize("there", every("memory", "s3", "http", "listed"), indirect=True)
def test_what_is_read(there, tmp_path):
    folder, path, place = there
    wrong = {}
    for name, call in CALLS.items():
        if place == "http" and name in UNLISTED:
            continue
        here = tried(call, Scene(folder, tmp_path / f"{name}-here", folder))
        far = tried(call, Scene(path, tmp_path / f"{name}-there", folder))
        if isinstance(here, Exception) or not same(here, far):
            wrong[name] = here, far
    assert not wrong


@pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")
@pytest.mark.parametrize("there", every("memory", "s3", "listed"), indirect=True)
def test_what_would_write_is_refused(there, tmp_path):
    folder, path, place = there
    calls = REFUSED if place == "listed" else REFUSED | OF_THE_DATASET
    url = str(Dataset(path).get_layer("color").get_mag(1).path).rsplit("/", 2)[0]
    before = list(list_objects(url))
    found = {name: tried(call, Scene(path, tmp_path / name, folder)) for name, call in calls.items()}
    assert {name: each for name, each in found.items() if not isinstance(each, ReadOnlyError)} == {}
    assert list(list_objects(url)) == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")
def test_what_processes_read(bucket, tmp_path):
    """Workers find the credentials in the environment that they were started with."""
    folder = str(tmp_path / "ds")
    make_dataset(folder, "wkw-lz4")
    put_folder(folder, bucket.url)
    names = ("lazily", "compared", "dataset_copied", "written_elsewhere")
    expected = {name: tried(CALLS[name], Scene(folder, tmp_path / f"{name}-here", folder)) for name in names}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        for name in names:
            assert same(expected[name], tried(CALLS[name], Scene(bucket.url, tmp_path / name, folder))), name


def test_attachments_keep_their_place(tmp_path):
    """A copy has them where they were copied to; one of a web server, and what lists the layer, has their URLs."""
    folder = str(tmp_path / "ds")
    make_dataset(folder, "wkw-raw")
    url = memory_url(folder)

    def meshes(dataset):
        return [str(each.path) for each in dataset.get_layer("seg").attachments]

    assert meshes(Dataset(url)) == [f"{url}/seg/meshes/mesh.hdf5"]
    copy = Dataset(url).copy_dataset(tmp_path / "copy", progress=False)
    assert meshes(copy) == [f"{copy.path}/seg/meshes/mesh.hdf5"]
    assert (tmp_path / "copy/seg/meshes/mesh.hdf5").read_bytes() == b"a mesh"
    listing = Dataset.create(tmp_path / "listing", (11.24, 11.24, 28))
    listing.add_layer_as_ref(f"{url}/seg")
    assert meshes(listing) == [f"{url}/seg/meshes/mesh.hdf5"]
    assert meshes(Dataset(url).shallow_copy_dataset(tmp_path / "shallow")) == [f"{url}/seg/meshes/mesh.hdf5"]
    with FolderServer(tmp_path) as server:
        with pytest.warns(WkdaskWarning, match="does not list its files"):
            copy = Dataset(f"{server.url}/ds").copy_dataset(tmp_path / "from-web", progress=False)
        assert meshes(copy) == [f"{server.url}/ds/seg/meshes/mesh.hdf5"]


def test_a_layer_with_a_further_axis_is_refused(tmp_path):
    ds = Dataset.create(tmp_path / "ds", (1, 1, 1))
    box = NDBoundingBox((0, 0, 0, 0), (3, 16, 16, 16), ("t", "x", "y", "z"))
    ds.add_layer("l", "color", bounding_box=box, data_format="zarr3", dtype_per_channel="uint8").add_mag(1)
    far = Dataset(memory_url(str(tmp_path / "ds")))
    with pytest.raises(UnsupportedFormatError, match=r"'l' mag 1 has axes beside c, x, y, z"):
        far.get_layer("l").get_mag(1)
    assert "UnsupportedFormatError" in repr(far)
