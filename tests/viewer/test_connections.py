"""Connections: what their threads answer, hand over and refuse, and that none outlives its server."""

import http.client
import re
import socket
import threading

import numpy as np
import pytest
from viewer_slots import recorded_slots

from wkdask import BoundingBox, Vec3Int
from wkdask.viewer import connections
from wkdask.viewer.precomputed import chunk_name
from wkdask.viewer.requests import HungUpError, Request, Slots, cancelling, raise_if_hung_up
from wkdask.viewer.scales import Scale, ShownLayer
from wkdask.viewer.server import Server

CHUNKS = 4
NBYTES = 64**3


class Shown:
    """A server of four chunks, voxels of each its number; the chunks of `held` wait for `go_on`."""

    def __init__(self):
        self.begun, self.go_on, self.held = threading.Semaphore(0), threading.Event(), set()
        self.scale = Scale(
            "1", (4.0, 4.0, 40.0), BoundingBox((0, 0, 0), (64 * CHUNKS, 64, 64)), np.dtype("uint8"), 1, self.compute
        )  # fmt: skip
        layer = ShownLayer("a b%20", False, (self.scale,), contrast=(0, 1))
        self.server = Server((layer,), lambda sources: {}, cache_nbytes=0)
        self.server.slots.number = 2
        self.root = f"/data/{self.server.token}/precomputed/0/a%20b%2520"

    def compute(self, part, region):
        number = part.topleft.x // 64
        if number in self.held:
            self.begun.release()
            assert self.go_on.wait(60)
        return np.full((1, *part.size), number, np.uint8)

    def path(self, number):
        return f"{self.root}/1/{chunk_name(self.scale.cell_box(Vec3Int(number, 0, 0)))}"

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=60)

    def request(self, number, *fields):
        return "\r\n".join([f"GET {self.path(number)} HTTP/1.1", "Host: x", *fields, "", ""]).encode()

    def raw(self, data):
        """Send bytes, and return all that comes until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            with connection.makefile("rb") as file:
                return file.read()


@pytest.fixture
def shown():
    made = Shown()
    yield made
    made.go_on.set()
    made.server.close()


def status_of(answer):
    return int(re.match(rb"HTTP/1\.1 (\d+) ", answer)[1])


def bodies_of(data, count):
    """Return the bodies of answers that follow each other, and what is left."""
    found = []
    for _ in range(count):
        head, _, data = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])
        found.append(data[:length])
        data = data[length:]
    return found, data


def test_chunks_and_all_else_over_one_connection_of_a_client(shown):
    connection = http.client.HTTPConnection("127.0.0.1", shown.server.port, timeout=60)
    for target, status, stays in (
        (shown.path(1), 200, True),
        (shown.path(2), 200, True),
        (shown.path(2).replace("0-64", "0-65"), 404, True),
        (f"{shown.root}/info", 200, False),
        (shown.path(3) + "?again", 200, True),
        (shown.path(1).replace(shown.server.token, "x"), 403, True),
        (f"/v/{shown.server.token}/", 200, False),
        ("/nothing", 403, False),
    ):
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read()
        assert (answer.status, answer.will_close) == (status, not stays)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        if status == 200 and stays:
            assert len(set(body)) == 1
            assert len(body) == NBYTES
    connection.close()


def test_requests_that_are_sent_together_are_answered_in_order(shown):
    last = f"GET {shown.root}/info HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    data = shown.raw(b"".join(shown.request(number) for number in (3, 0, 2)) + last)
    bodies, rest = bodies_of(data, 4)
    assert bodies[:3] == [bytes([number]) * NBYTES for number in (3, 0, 2)]
    assert b"neuroglancer_multiscale_volume" in bodies[3]
    assert rest == b""


@pytest.mark.parametrize(
    ("version", "field", "stays"),
    [("1.1", "X: y", True), ("1.1", "Connection: x, Close", False), ("1.0", "X: y", False)]
    + [("1.0", "Connection: keep-alive", True)],
)
def test_connections_stay_open_as_the_browser_wants(shown, version, field, stays):
    one = f"GET {shown.path(1)} HTTP/{version}\r\nHost: x\r\n{field}\r\n\r\n".encode()
    data = shown.raw(one + shown.request(2, "Connection: close"))
    bodies, rest = bodies_of(data, 2 if stays else 1)
    assert bodies == [bytes([number]) * NBYTES for number in ((1, 2) if stays else (1,))]
    assert rest == b""
    assert (b"Connection: keep-alive" in data) == stays


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: 5"],
        ["Content-Length: 0", "Content-Length: 0"],
        ["Content-Length: +0"],
        ["Transfer-Encoding: chunked"],
        ["Transfer-Encoding: identity"],
        ["Content-Length : 5"],
        ["X: 1", " folded: 2"],
        ["X: a\nContent-Length: 5"],
        ["X: a\0"],
        ["no colon"],
        ["Host: twice"],
    ],
)
def test_what_could_hide_a_second_request_is_refused(shown, fields):
    answer = shown.raw(shown.request(1, *fields) + shown.request(2))
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1
    assert shown.server.served == 0


def test_a_request_without_a_host_is_refused(shown):
    assert status_of(shown.raw(f"GET {shown.path(1)} HTTP/1.1\r\n\r\n".encode())) == 400


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT"])
def test_other_methods_are_not_for_chunks(shown, method):
    data = shown.request(1, "Content-Length: 0").replace(b"GET", method.encode())
    assert status_of(shown.raw(data)) in (404, 405)


def test_garbage_is_refused(shown):
    assert status_of(shown.raw(b"\x16\x03\x01\r\n\r\n")) == 400
    assert status_of(shown.raw(b"GET " + b"x" * connections._HEAD_NBYTES)) == 431


def test_a_head_may_come_in_parts_but_not_for_ever(shown, monkeypatch):
    with shown.connect() as connection:
        request = shown.request(1, "Connection: close")
        for byte in range(0, len(request), 40):
            connection.sendall(request[byte : byte + 40])
        with connection.makefile("rb") as file:
            assert bodies_of(file.read(), 1)[0] == [b"\1" * NBYTES]
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.0)
    assert status_of(shown.raw(b"GET /")) == 408
    monkeypatch.setattr(connections, "_IDLE_SECONDS", 0.01)
    assert shown.raw(b"") == b""


def test_connections_beyond_the_limit_are_closed(shown, monkeypatch):
    monkeypatch.setattr(connections, "_MOST", 1)
    with shown.connect() as first:
        first.sendall(shown.request(1))
        assert first.recv(12) == b"HTTP/1.1 200"
        assert shown.raw(b"") == b""
        assert shown.server.served == 1


def test_a_browser_that_hangs_up_frees_its_place(shown):
    shown.held = {0, 1, 2}
    waiting, given_up = recorded_slots(shown.server)
    asked = []
    for number in range(3):
        asked.append(shown.connect())
        asked[-1].sendall(shown.request(number))
        waiting.get(timeout=60)
        if number < 2:
            assert shown.begun.acquire(timeout=60)
    asked[2].close()  # while it waits
    given_up.get(timeout=60)
    asked[1].close()  # while its chunk is made: what cannot be stopped ends, and nobody gets it
    shown.go_on.set()
    with asked[0]:
        assert asked[0].recv(12) == b"HTTP/1.1 200"
    assert bodies_of(shown.raw(shown.request(3, "Connection: close")), 1)[0] == [b"\3" * NBYTES]
    assert not shown.begun.acquire(blocking=False)


def test_work_elsewhere_is_cancelled_when_the_browser_hangs_up():
    cancelled, begun = threading.Event(), threading.Event()

    def answer(asked, fields):
        with cancelling(cancelled.set):
            begun.set()
            assert cancelled.wait(60)
        raise_if_hung_up()

    served = connections.Connections(lambda path: path, answer, lambda *given: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        served.accept(*listener.accept())
    there.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert begun.wait(60)
    there.close()
    assert cancelled.wait(60)
    served.close(lambda thread: False)


def test_without_a_word_of_the_system_the_end_is_seen_too(monkeypatch):
    for hung_up in (connections._HUNG_UP, 0):
        monkeypatch.setattr(connections, "_HUNG_UP", hung_up)
        here, there = socket.socketpair()
        with here, there:
            assert not connections._has_gone(here)
            there.sendall(b"x")
            assert not connections._has_gone(here)
            here.recv(1)
            there.close()
            assert connections._has_gone(here)
            here.close()
            assert connections._has_gone(here)


def test_closing_ends_threads_and_does_not_wait_for_what_is_made(shown):
    before = set(threading.enumerate())
    shown.held = {0}
    idle, busy, half = shown.connect(), shown.connect(), shown.connect()
    idle.sendall(shown.request(1))
    assert idle.recv(12) == b"HTTP/1.1 200"
    half.sendall(b"GET /da")
    busy.sendall(shown.request(0))
    assert shown.begun.acquire(timeout=60)
    shown.server.close()
    left = {thread for thread in threading.enumerate() if thread not in before}
    assert len(left) == 1  # it makes the chunk
    shown.go_on.set()
    left.pop().join(60)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wkdask-view")]
    for connection in (idle, busy, half):
        connection.close()


def test_slots_are_passed_on_by_those_who_give_up():
    slots, request, gone = Slots(1), Request(), threading.Event()

    def wait():
        with request.serving(), pytest.raises(HungUpError), slots.taken():
            pass
        gone.set()

    with slots.taken():
        thread = threading.Thread(target=wait)
        thread.start()
        request.hang_up()
        assert gone.wait(60)
        thread.join()
    with slots.taken():
        is_busy = slots.close()
        assert is_busy(threading.current_thread())
    with pytest.raises(HungUpError), slots.taken():
        pass
