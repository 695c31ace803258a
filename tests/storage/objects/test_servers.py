"""The servers of the tests of object stores, seen by obstore alone: what each fault looks like to a client.

What is asserted here of obstore is what the package relies on.
"""

import hashlib
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import obstore
import proxy_rules as rules
import pytest
from folder_server import FolderServer
from http_client import get
from object_proxy import ObjectProxy
from object_server import SECRET, ObjectServer
from obstore.exceptions import (
    AlreadyExistsError,
    GenericError,
    NotModifiedError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
)
from obstore.store import HTTPStore, S3Store

_ONCE = {"max_retries": 0}
_FAST = {
    "max_retries": 2,
    "backoff": {
        "init_backoff": timedelta(milliseconds=1),
        "max_backoff": timedelta(milliseconds=5),
        "base": 2,
    },
}
DATA = bytes(range(256)) * 400


def store_of(bucket, retry=_ONCE, **client):
    """Return obstore's store of a bucket; the credentials come from the environment."""
    options = {"allow_http": True, **client}  # options given replace those of the environment
    return S3Store(bucket.name, prefix=bucket.prefix, client_options=options, retry_config=retry)


def read(store, first=1000, end=90000):
    return bytes(obstore.get(store, "k", options={"range": (first, end)}).bytes())


# the server


def test_what_is_put_is_there(bucket):
    store = S3Store.from_url(bucket.url)  # allowed http, and all else, by the environment
    put = obstore.put(store, "a/k", DATA)
    assert put["e_tag"] == f'"{hashlib.md5(DATA).hexdigest()}"'
    assert bucket.keys() == {"a/k": len(DATA)}
    assert bucket.read("a/k") == DATA
    found = obstore.get(store, "a/k", options={"range": (10, 30)})
    assert bytes(found.bytes()) == DATA[10:30]
    assert (found.meta["e_tag"], found.meta["size"]) == (put["e_tag"], len(DATA))
    parts = obstore.get_ranges(store, "a/k", starts=[5, 60_000], ends=[6, 60_009])
    assert [bytes(part) for part in parts] == [DATA[5:6], DATA[60_000:60_009]]
    assert [entry["path"] for entry in obstore.list(store, "a").collect()] == ["a/k"]
    obstore.delete(store, "a/k")
    assert bucket.keys() == {}
    with pytest.raises(FileNotFoundError):
        obstore.get(store, "a/k")


def test_what_is_outside_the_prefix_is_seen(bucket):
    obstore.put(S3Store(bucket.name), "other", b"1")
    bucket.write("k", b"22")
    assert bucket.keys() == {"../other": 1, "k": 2}
    bucket.remove("k")
    assert bucket.keys() == {"../other": 1}


def test_buckets_are_empty_and_their_credentials_reach_children(bucket):
    assert bucket.keys() == {}
    script = "import os; print(os.environ['AWS_SECRET_ACCESS_KEY'], os.environ['AWS_ENDPOINT_URL'])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.split() == [SECRET, bucket.endpoint]


def test_conditional_puts(bucket):
    store = store_of(bucket)
    first = obstore.put(store, "k", b"1", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "k", b"2", mode="create")
    second = obstore.put(store, "k", b"2", mode={"e_tag": first["e_tag"]})
    with pytest.raises(PreconditionError):
        obstore.put(store, "k", b"3", mode={"e_tag": first["e_tag"]})
    with pytest.raises(PreconditionError):
        obstore.get(store, "k", options={"if_match": first["e_tag"]})
    with pytest.raises(NotModifiedError):
        obstore.get(store, "k", options={"if_none_match": second["e_tag"]})
    assert bucket.read("k") == b"2"


def test_of_puts_at_once_one_wins(bucket):
    store = store_of(bucket)
    together = threading.Barrier(8)

    def one(number):
        together.wait()
        try:
            return obstore.put(store, "k", str(number).encode(), mode="create")["e_tag"] and number
        except AlreadyExistsError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [number for number in pool.map(one, range(8)) if number is not None]
    assert [str(number).encode() for number in won] == [bucket.read("k")]


def test_a_large_put_is_an_upload_in_parts(proxied_bucket):
    data = os.urandom(11 << 20)
    obstore.put(store_of(proxied_bucket), "k", data, chunk_size=5 << 20, use_multipart=True)
    assert proxied_bucket.read("k") == data
    assert proxied_bucket.unfinished_uploads() == []
    queries = [entry.query for entry in proxied_bucket.proxy.requests("PUT", "k")]
    assert sorted(re.search(r"partNumber=(\d)", query)[1] for query in queries) == ["1", "2", "3"]


def test_an_upload_that_was_not_completed_is_seen(proxied_bucket):
    with (
        proxied_bucket.proxy.rule(rules.Say(403, query="partNumber=2")),
        pytest.raises(PermissionDeniedError),
    ):
        obstore.put(store_of(proxied_bucket), "k", bytes(11 << 20), chunk_size=5 << 20, use_multipart=True)
    assert proxied_bucket.keys() == {}
    assert proxied_bucket.unfinished_uploads() == []
    assert [entry.status for entry in proxied_bucket.proxy.requests("DELETE", "k")] == [204]


def test_a_server_that_stops_keeps_its_objects():
    with ObjectServer() as server:
        bucket = server.new_bucket()
        credentials = {
            "access_key_id": bucket.environ["AWS_ACCESS_KEY_ID"],
            "secret_access_key": SECRET,
            "endpoint": bucket.endpoint,
        }
        store = S3Store(
            bucket.name, config=credentials, client_options={"allow_http": True}, retry_config=_ONCE
        )
        etag = obstore.put(store, "k", b"1")["e_tag"]
        server.stop()
        with pytest.raises(GenericError, match="error sending request"):
            obstore.get(store, "k")
        server.start()
        assert obstore.head(store, "k")["e_tag"] == etag
        server.freeze()
        hasty = S3Store(
            bucket.name,
            config=credentials,
            client_options={"allow_http": True, "timeout": "100ms"},
            retry_config=_ONCE,
        )
        with pytest.raises(GenericError):
            obstore.get(hasty, "k")
        server.thaw()
        assert bytes(obstore.get(store, "k").bytes()) == b"1"
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_server_ends_with_the_process_that_started_it():
    script = (
        f"import sys; sys.path.insert(0, {os.path.dirname(rules.__file__)!r}); import os, object_server\n"
        "server = object_server.ObjectServer(); print(server.endpoint, flush=True)\n"
        "os.fork() and os.kill(os.getpid(), 9)\n"
        "os.close(1); os.close(2); os.read(0, 1)"  # the fork has what the server reads from, and lives on
    )
    command = [sys.executable, "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as child:
        endpoint = child.stdout.readline().strip()
        assert child.stderr.read() == ""  # the server has it too: this is the end of both
        assert child.wait() == -9
    with pytest.raises(OSError, match="refused"):
        get(endpoint)


# the proxy


def test_the_log_has_what_was_asked(proxied_bucket):
    store, proxy = store_of(proxied_bucket), proxied_bucket.proxy
    etag = obstore.put(store, "k", DATA, mode="create")["e_tag"]
    obstore.get(store, "k", options={"range": (5, 105), "if_match": etag}).bytes()
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "gone")
    (put,), (got,), (head,) = proxy.requests("PUT"), proxy.requests("GET", "k"), proxy.requests("HEAD")
    assert (put.key, put.if_none_match, put.status, len(put.body)) == ("data/k", "*", 200, len(DATA))
    assert (got.range, got.if_match, got.status, got.answered) == ((5, 104), etag, 206, 100)
    assert (head.path, head.status) == (f"/{proxied_bucket.name}/data/gone", 404)
    assert got.headers["host"] == proxied_bucket.endpoint.removeprefix("http://")
    proxy.clear()
    assert proxy.log == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (rules.Drop, "error sending request"),
        (rules.LoseAnswer, "error sending request"),
        (lambda **which: rules.Truncate(10_000, **which), "request or response body error"),
        (lambda **which: rules.Say(500, **which), "500 Internal Server Error"),
        (lambda **which: rules.Say(503, "SlowDown", **which), "503 Service Unavailable"),
        (lambda **which: rules.Say(429, **which), "429 Too Many Requests"),
    ],
)
def test_what_is_repeated_when_it_fails(proxied_bucket, rule, text):
    proxied_bucket.write("k", DATA)
    proxy = proxied_bucket.proxy
    with proxy.rule(rule()) as broken, pytest.raises(GenericError, match=text):
        read(store_of(proxied_bucket))
    assert (broken.seen, broken.done) == (1, 1)
    with proxy.rule(rule()) as broken, pytest.raises(GenericError, match=text):
        read(store_of(proxied_bucket, _FAST))
    assert broken.done == 3
    with proxy.rule(rule(times=2)) as broken:
        assert read(store_of(proxied_bucket, _FAST)) == DATA[1000:90000]
    assert (broken.seen, broken.done) == (3, 2)


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, PermissionDeniedError), (404, FileNotFoundError), (400, GenericError), (409, AlreadyExistsError)],
)
def test_what_is_not_repeated(proxied_bucket, status, error):
    proxied_bucket.write("k", DATA)
    with proxied_bucket.proxy.rule(rules.Say(status)) as said, pytest.raises(error):
        read(store_of(proxied_bucket, _FAST))
    assert said.done == 1


def test_a_lost_answer_to_a_conditional_put_looks_like_a_conflict(proxied_bucket):
    store, proxy = store_of(proxied_bucket, _FAST), proxied_bucket.proxy
    with proxy.rule(rules.LoseAnswer(method="PUT", times=1)), pytest.raises(AlreadyExistsError):
        obstore.put(store, "k", b"ours", mode="create")
    assert proxied_bucket.read("k") == b"ours"
    etag = obstore.head(store, "k")["e_tag"]
    with proxy.rule(rules.LoseAnswer(method="PUT", times=1)), pytest.raises(PreconditionError):
        obstore.put(store, "k", b"ours too", mode={"e_tag": etag})
    assert proxied_bucket.read("k") == b"ours too"
    with proxy.rule(rules.Drop(method="PUT", times=1)):
        obstore.put(store, "k2", b"passed", mode="create")
    assert proxied_bucket.read("k2") == b"passed"


def test_a_conditional_put_that_times_out_is_not_repeated_and_may_arrive_later(proxied_bucket):
    store, proxy = store_of(proxied_bucket, _FAST, timeout="200ms"), proxied_bucket.proxy
    with proxy.rule(rules.Hold(method="PUT", answers=True)) as stored:
        with proxy.rule(rules.Hold(method="PUT")) as held:
            with pytest.raises(GenericError, match="error sending request"):
                obstore.put(store, "k", b"late", mode="create")
            held.wait_for()
            assert held.seen == 1
            assert proxied_bucket.keys() == {}
        stored.wait_for()
        assert proxied_bucket.read("k") == b"late"
    with proxy.rule(rules.Hold(method="GET")) as asked, pytest.raises(GenericError):
        read(store)
    assert asked.seen == 3


def test_which_requests_a_rule_takes(proxied_bucket):
    proxy, store = proxied_bucket.proxy, store_of(proxied_bucket)
    for name in ("a", "b"):
        proxied_bucket.write(name, b"x")

    def failed(rule, count=9):
        with proxy.rule(rule):
            done = []
            for number in range(count):
                try:
                    obstore.get(store, "ab"[number % 2])
                except PermissionDeniedError:
                    done.append(number)
        return done

    assert failed(rules.Say(403, every=3)) == [2, 5, 8]
    assert failed(rules.Say(403, key="b$")) == [1, 3, 5, 7]
    assert failed(rules.Say(403, after=2, times=3)) == [2, 3, 4]
    assert failed(rules.Say(403, key="a$", after=1, every=2)) == [4, 8]
    assert failed(rules.Say(403, method="HEAD")) == []
    assert failed(rules.Say(403, where=lambda request: request.path.endswith("/b"))) == [1, 3, 5, 7]
    assert failed(rules.Delay(0)) == []


def test_other_ranges_than_asked_for(proxied_bucket):
    proxied_bucket.write("k", DATA)
    store, proxy = store_of(proxied_bucket), proxied_bucket.proxy
    with (
        proxy.rule(rules.OtherRange(5)),
        pytest.raises(GenericError, match=r"Requested 1000..90000, got 1005"),
    ):
        read(store)
    with proxy.rule(rules.OtherRange(5, told=False)):
        assert read(store) == DATA[1005:90005]
    with proxy.rule(rules.Flip(7)):
        assert read(store, 0, 9) == DATA[:7] + b"\6" + DATA[8:9]
    assert read(store) == DATA[1000:90000]


def test_answers_that_are_exchanged(proxied_bucket):
    proxied_bucket.write("k", DATA)
    store = store_of(proxied_bucket)
    ranges = {"starts": [0, 50_010], "ends": [10, 50_020], "coalesce": 0}
    with proxied_bucket.proxy.rule(rules.Swap(told=False)) as swapped:
        first, second = obstore.get_ranges(store, "k", **ranges)
    assert swapped.done == 2
    assert (bytes(first), bytes(second)) == (DATA[50_010:50_020], DATA[:10])
    with proxied_bucket.proxy.rule(rules.Swap()), pytest.raises(GenericError, match="Requested"):
        obstore.get_ranges(store, "k", **ranges)


def test_a_server_without_etags_and_one_that_ignores_conditions(proxied_bucket):
    store, proxy = store_of(proxied_bucket), proxied_bucket.proxy
    with proxy.rule(rules.Without(answer=["ETag"])):
        proxied_bucket.write("k", DATA)
        assert obstore.head(store, "k")["e_tag"] is None
        with pytest.raises(GenericError, match="ETag Header missing"):
            obstore.put(store, "k", b"1")
    with proxy.rule(rules.Without(request=["If-None-Match", "If-Match"])):
        obstore.put(store, "k", b"2", mode="create")
    assert proxied_bucket.read("k") == b"2"
    assert proxy.requests("PUT")[-1].if_none_match == "*"


def test_requests_and_answers_that_are_held(proxied_bucket):
    store, proxy = store_of(proxied_bucket), proxied_bucket.proxy
    with ThreadPoolExecutor(1) as pool, proxy.rule(rules.Hold(method="PUT")) as held:
        put = pool.submit(obstore.put, store, "k", b"1")
        held.wait_for()
        assert proxied_bucket.keys() == {}
        assert not put.done()
        held.release()
        put.result(60)
        assert proxied_bucket.keys() == {"k": 1}
    with ThreadPoolExecutor(1) as pool, proxy.rule(rules.Hold(answers=True, method="PUT")) as held:
        put = pool.submit(obstore.put, store, "k", b"22")
        held.wait_for()
        assert proxied_bucket.keys() == {"k": 2}
        assert not put.done()
        held.release()
        put.result(60)
    assert proxy.requests("PUT")[-1].status == 200


def test_a_proxy_that_refuses_connections(proxied_bucket):
    store = store_of(proxied_bucket)
    proxied_bucket.write("k", DATA)
    assert read(store) == DATA[1000:90000]  # the connection is kept, and closed by the proxy
    proxied_bucket.proxy.stop()
    with pytest.raises(GenericError, match="error sending request"):
        read(store)
    proxied_bucket.proxy.start()
    assert read(store) == DATA[1000:90000]


@pytest.mark.parametrize("rule", [rules.Drop(), rules.Say(403), rules.Say(500), rules.Truncate(0)])
def test_no_error_names_the_secret(proxied_bucket, rule):
    proxied_bucket.write("k", DATA)
    store = store_of(proxied_bucket)
    with proxied_bucket.proxy.rule(rule), pytest.raises((GenericError, PermissionDeniedError)) as raised:
        read(store)
    for text in (str(raised.value), repr(raised.value), repr(store)):
        assert not re.search(f"{SECRET}|Signature|[Aa]uthorization", text)


# the folder over http


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "k").write_bytes(DATA)
    return tmp_path


def http_store(server):
    return HTTPStore(server.url, client_options={"allow_http": True}, retry_config=_ONCE)


def test_ranges_and_conditions_over_http(folder):
    with FolderServer(folder) as server:
        store = http_store(server)
        etag = obstore.head(store, "sub/k")["e_tag"]
        found = obstore.get(store, "sub/k", options={"range": (10, 30), "if_match": etag})
        assert (bytes(found.bytes()), found.meta["e_tag"]) == (DATA[10:30], etag)
        assert found.meta["size"] == len(DATA)
        assert bytes(obstore.get(store, "sub/k", options={"range": {"suffix": 3}}).bytes()) == DATA[-3:]
        (folder / "sub" / "k").write_bytes(b"new")
        with pytest.raises(PreconditionError):
            obstore.get(store, "sub/k", options={"range": (0, 2), "if_match": etag})
        status, headers, body = get(f"{server.url}/sub/k", Range="bytes=0-1", **{"If-Range": etag})
        assert (status, body) == (200, b"new")
        status, _, body = get(f"{server.url}/sub/k", Range="bytes=0-1", **{"If-Range": headers["Etag"]})
        assert (status, body) == (206, b"ne")
        assert get(f"{server.url}/sub/k", Range="bytes=3-")[0] == 416
        with pytest.raises(FileNotFoundError):
            obstore.get(store, "gone")
        asked = [(entry.method, entry.range, entry.status) for entry in server.requests]
    assert asked[:3] == [("HEAD", None, 200), ("GET", "bytes=10-29", 206), ("GET", "bytes=-3", 206)]
    assert [status for _, _, status in asked[3:]] == [412, 200, 206, 416, 404]


def test_an_http_server_without_ranges_and_etags(folder):
    with FolderServer(folder, ranges=False, etags=False, folder_status=403) as server:
        store = http_store(server)
        assert obstore.head(store, "sub/k")["e_tag"] is None
        assert bytes(obstore.get(store, "sub/k").bytes()) == DATA
        with pytest.raises(NotSupportedError, match="Range request not supported"):
            obstore.get(store, "sub/k", options={"range": (10, 30)})
        with pytest.raises(PermissionDeniedError):
            obstore.get(store, "sub")


def test_a_proxy_before_a_folder(folder):
    with FolderServer(folder) as server, ObjectProxy(server.url) as proxy:
        store = HTTPStore(proxy.endpoint, client_options={"allow_http": True}, retry_config=_FAST)
        with proxy.rule(rules.Say(503, times=1)):
            assert bytes(obstore.get(store, "sub/k").bytes()) == DATA
        assert [entry.status for entry in proxy.log] == [503, 200]
        assert len(server.requests) == 1
