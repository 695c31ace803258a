"""Credentials that the caller gives, instead of the environment."""

import numpy as np
import pytest
from object_server import ACCESS_KEY, REGION, SECRET
from stored_objects import put_folder

from wkdask import Dataset
from wkdask.errors import InvalidValueError
from wkdask.fsio import checked_place

VOXELS = np.random.default_rng(1).integers(1, 200, (1, 16, 16, 16), "uint8")
GIVEN = {"key": ACCESS_KEY, "secret": SECRET, "client_kwargs": {"region_name": REGION}}


@pytest.fixture
def unknown(bucket, tmp_path, monkeypatch):
    """Return a bucket with a dataset, of which nothing is in the environment; its URL is its endpoint's."""
    ds = Dataset.create(tmp_path / "ds", (4, 4, 35))
    layer = ds.add_layer("color", "color", dtype="uint8")
    layer.add_mag(1, chunk_shape=8, shard_shape=16).write(VOXELS, progress=False)
    put_folder(ds.path, bucket.url)
    for name in bucket.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    return bucket


def test_options_in_the_words_of_s3fs(unknown):
    url = f"s3://{unknown.endpoint.removeprefix('http://')}/{unknown.name}/{unknown.prefix}"
    ds = Dataset(url, storage_options=GIVEN)
    assert np.array_equal(ds.get_layer("color").get_mag(1).read(), VOXELS)
    assert SECRET not in repr(vars(ds))


def test_options_in_the_words_of_obstore_with_an_endpoint(unknown):
    options = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET, "endpoint": unknown.endpoint}
    ds = Dataset.open(unknown.url, storage_options=options)
    assert np.array_equal(ds.get_layer("color").get_mag(1).read(), VOXELS)


def test_a_upath_brings_its_own(unknown):
    upath = pytest.importorskip("upath")
    path = upath.UPath(unknown.url, **GIVEN, endpoint_url=unknown.endpoint)
    ds = Dataset(path)
    assert ds.path == unknown.url
    assert np.array_equal(ds.get_layer("color").get_mag(1).read(), VOXELS)


@pytest.mark.parametrize("place", ["https://h/x", "memory://h/x", "folder"])
def test_what_takes_no_options_says_so(place):
    with pytest.raises(InvalidValueError, match="takes none") as caught:
        Dataset(place, storage_options={"secret": SECRET})
    assert SECRET not in str(caught.value)


def test_options_are_those_of_one_bucket(unknown):
    Dataset(unknown.url, storage_options={**GIVEN, "endpoint_url": unknown.endpoint})
    with pytest.raises(InvalidValueError, match="not understood"):
        Dataset("s3://another/x", storage_options={"what": "?"})
    assert checked_place("s3://another/x") == "s3://another/x"
