"""Objects put whole, under conditions, and through faults: what is there is known afterwards."""

import dask
import numpy as np
import pytest
from proxy_rules import Drop, LoseAnswer, Say

from wkdask.errors import StoreError
from wkdask.objects.reading import ChangedObjectError, read_object
from wkdask.objects.stores import store_of
from wkdask.objects.urls import Address
from wkdask.objects.writing import delete, put, put_new, replace


@pytest.fixture
def quick():
    """Repeat a request twice at most."""
    with dask.config.set({"wkdask.store-retries": 2}):
        yield


def content(url):
    return bytes(read_object(url).data)


def test_put_takes_bytes_and_files(bucket, tmp_path):
    data = np.random.default_rng(0).bytes(100_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    put(f"{bucket.url}/bytes", data)
    put(f"{bucket.url}/file", path)
    put(f"{bucket.url}/empty", b"")
    assert content(f"{bucket.url}/bytes") == data
    assert content(f"{bucket.url}/file") == data
    assert content(f"{bucket.url}/empty") == b""


@pytest.mark.slow
def test_a_large_file_goes_in_parts_and_appears_whole(bucket, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(np.random.default_rng(0).bytes(65 << 20))
    put(f"{bucket.url}/large", path)
    assert content(f"{bucket.url}/large") == path.read_bytes()
    assert not bucket.unfinished_uploads()


@pytest.mark.parametrize("fault", [Drop, LoseAnswer, lambda **how: Say(503, **how)])
def test_a_put_that_fails_is_repeated(proxied_bucket, quick, fault):
    url = f"{proxied_bucket.url}/x"
    with proxied_bucket.proxy.rule(fault(method="PUT", times=2)) as rule:
        put(url, b"mine")
    assert rule.done == 2
    assert content(url) == b"mine"


def test_a_new_object_is_put_once(bucket):
    url = f"{bucket.url}/x"
    put_new(url, b"first")
    with pytest.raises(FileExistsError, match="exists already"):
        put_new(url, b"second")
    assert content(url) == b"first"


def test_a_version_is_replaced_once(bucket):
    url = f"{bucket.url}/x"
    put(url, b"first")
    version = read_object(url)
    replace(url, b"second", version)
    with pytest.raises(ChangedObjectError):
        replace(url, b"third", version)
    assert content(url) == b"second"


def test_a_lost_answer_to_a_condition_is_no_conflict(proxied_bucket, quick):
    """The request that is made again finds our own object."""
    url = f"{proxied_bucket.url}/x"
    with proxied_bucket.proxy.rule(LoseAnswer(method="PUT", times=1)) as rule:
        put_new(url, b"first")
    assert rule.done == 1
    version = read_object(url)
    with proxied_bucket.proxy.rule(LoseAnswer(method="PUT", times=1)) as rule:
        replace(url, b"second", version)
    assert rule.done == 1
    assert content(url) == b"second"


def test_a_conflict_after_a_fault_is_one(proxied_bucket, quick):
    """The first request did not arrive, and another process has put its object meanwhile."""
    url = f"{proxied_bucket.url}/x"
    put(url, b"theirs")
    with proxied_bucket.proxy.rule(Drop(method="PUT", times=1)), pytest.raises(FileExistsError):
        put_new(url, b"mine")
    assert content(url) == b"theirs"


def test_a_store_that_stays_away_is_an_error(proxied_bucket, quick):
    url = f"{proxied_bucket.url}/x"
    with (
        proxied_bucket.proxy.rule(Say(503, method="PUT")) as rule,
        pytest.raises(StoreError, match=r"x cannot be written: .*503.* \(asked 3 times\)"),
    ):
        put(url, b"mine")
    assert rule.done == 3


def test_a_forbidden_put_is_not_repeated(proxied_bucket, quick):
    with (
        proxied_bucket.proxy.rule(Say(403, method="PUT")) as rule,
        pytest.raises(PermissionError, match="access denied"),
    ):
        put(f"{proxied_bucket.url}/x", b"mine")
    assert rule.done == 1


def test_deleting_twice_does_the_same(bucket):
    url = f"{bucket.url}/x"
    put(url, b"mine")
    delete(url)
    delete(url)
    with pytest.raises(FileNotFoundError):
        read_object(url)
    assert bucket.keys() == {}


def test_a_web_server_is_not_written_to():
    with pytest.raises(StoreError, match="web server"):
        put("https://host/x", b"")


def test_credentials_are_looked_for_again_when_they_were_refused(proxied_bucket, quick, monkeypatch):
    """A session that began with none, or with those of yesterday, is not bound to them."""
    url = f"{proxied_bucket.url}/x"
    with proxied_bucket.proxy.rule(Say(403, times=1)), pytest.raises(PermissionError):
        put(url, b"mine")
    before = store_of(Address.of(url))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ANOTHERKEY")
    with proxied_bucket.proxy.rule(Say(403, times=1)), pytest.raises(PermissionError):
        put(url, b"mine")
    assert store_of(Address.of(url)) != before
    put(url, b"mine")
    assert content(url) == b"mine"
