"""Connections of browsers: each has a thread, which answers requests for chunks itself and hands all others over.

::

    connection ──> a thread looks at the head of the request, and leaves it in the socket
                   a chunk      answered by that thread, which then waits for the next request
                   all else     the socket goes to tornado, which answers once and closes it

An event loop takes longer to send a chunk than a cube takes to be read; a thread sends it in one system call,
without a copy. A head is taken only if every line of it is well formed, and a body is refused: no second request
can be hidden in a first one.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wkdask.viewer.requests import HungUpError, Request

__all__ = ["Answer", "Connections"]

_MOST = 512
"""Connections with a thread, at most; a further one is closed. Browsers open six."""
_HEAD_NBYTES = 32 << 10
"""Bytes of a head, at most."""
_HEAD_SECONDS = 20.0
"""How long a head may take from its first byte on."""
_IDLE_SECONDS = 60.0
"""How long a connection may be silent, and how long a browser may take nothing of what is sent."""
_PART_SECONDS = 0.01
"""How long the rest of a head is waited for before it is looked at again."""
_LOOK_SECONDS = 0.1
"""How often it is looked whether the browsers that wait for a chunk are still there."""
_SEND_BUFFER = 1 << 20
"""Bytes that the system takes at once, if it may: more than a chunk of uint8."""

_END = re.compile(rb"\r?\n\r?\n")
_FIRST_LINE = re.compile(rb"GET (/[\x21-\x7e]*) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_HUNG_UP: int = getattr(select, "POLLRDHUP", 0)
"""What Linux says of a connection whose other end is closed; other systems do not tell it apart."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent to a browser."""

    status: int
    """The status of http."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Fields of the head, but for the length and those of the connection."""
    body: bytes | memoryview = b""
    """What follows, as bytes."""
    reason: str = ""
    """What the status line says; the usual words by default. One line of ASCII."""

    def head(self, connection: str) -> bytes:
        """Return the head."""
        lines = [f"HTTP/1.1 {self.status} {self.reason or http.client.responses[self.status]}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status != 304:
            lines.append(f"Content-Length: {len(self.body)}")
        lines += [f"Date: {_date(int(time.time()))}", f"Connection: {connection}", "", ""]
        return "\r\n".join(lines).encode("latin-1")


@functools.lru_cache(1)
def _date(seconds: int) -> str:
    """Return a time as heads have it."""
    return email.utils.formatdate(seconds, usegmt=True)


class Connections:
    """Answers requests of browsers until it is closed.

    Parameters
    ----------
    takes
        Returns what the path of a request asks for; None if others answer it.
    answer
        Returns the answer, given that and the fields of the head, their names in small letters. It works for a
        `Request`, which hangs up with the browser, and may raise HungUpError.
    hand_over
        Takes the connection whose request others answer; its bytes are still in it.
    """

    def __init__(
        self,
        takes: Callable[[str], Any],
        answer: Callable[[Any, Mapping[str, str]], Answer],
        hand_over: Callable[[socket.socket, Any], None],
    ) -> None:
        self._takes, self._answer, self._hand_over = takes, answer, hand_over
        self._lock = threading.Condition()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._asked: dict[Request, socket.socket] = {}
        """Requests that are being answered."""
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="wkdask-view-watcher", daemon=True)
        self._watcher.start()

    def accept(self, connection: socket.socket, address: Any) -> None:
        """Serve a new connection, in a new thread."""
        thread = threading.Thread(
            target=self._serve, args=(connection, address), name="wkdask-view-connection", daemon=True
        )
        with self._lock:
            if self._closing.is_set() or len(self._open) >= _MOST:
                connection.close()
                return
            self._open[connection] = thread
            try:
                thread.start()
            except RuntimeError:  # the system gives no further thread
                del self._open[connection]
                connection.close()

    def close(self, is_busy: Callable[[threading.Thread], bool]) -> None:
        """Close all connections, and wait for their threads.

        Parameters
        ----------
        is_busy
            Whether a thread is making a chunk: it ends later, and is not waited for.
        """
        with self._lock:
            self._closing.set()
            self._lock.notify()
            asked, still_open = list(self._asked), dict(self._open)
        for connection in still_open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for request in asked:
            request.hang_up()
        for thread in still_open.values():
            if not is_busy(thread):
                thread.join()
        self._watcher.join()

    # --- a connection --------------------------------------------------------------------------------

    def _serve(self, connection: socket.socket, address: Any) -> None:
        """Answer the requests of a connection, until one is not for us."""
        is_ours = True
        try:
            connection.settimeout(_IDLE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            while is_ours and (head := _peeked_head(connection)):
                first, *lines = head.split(b"\r\n")
                line = _FIRST_LINE.fullmatch(first)
                asked = self._takes(line[1].decode().partition("?")[0]) if line is not None else None
                if line is None or asked is None:
                    is_ours = False
                elif not self._answer_one(connection, len(head), asked, _fields(lines, line[2] == b"1")):
                    break
        except _BadRequestError as error:
            _refuse(connection, error.status)
        except (OSError, HungUpError):
            pass  # the browser has gone, or is silent: no answer would reach it
        finally:
            with self._lock:
                del self._open[connection]
            if is_ours:
                _end(connection)
            else:
                self._hand_over(connection, address)

    def _answer_one(
        self, connection: socket.socket, head_nbytes: int, asked: Any, fields: dict[str, str]
    ) -> bool:
        """Take a request out of a connection and answer it; return whether a further one may follow."""
        while head_nbytes:
            head_nbytes -= len(connection.recv(head_nbytes))
        is_old = fields["version"] == "0"
        wanted = {each.strip().lower() for each in fields.get("connection", "").split(",")}
        stays = "close" not in wanted and (not is_old or "keep-alive" in wanted)
        request = Request()
        with self._watching(request, connection), request.serving():
            answer = self._answer(asked, fields)
        _send(connection, answer.head("keep-alive" if stays else "close"), answer.body)
        return stays

    # --- whether browsers are still there ------------------------------------------------------------

    @contextlib.contextmanager
    def _watching(self, request: Request, connection: socket.socket) -> Iterator[None]:
        """Let a request hang up when its browser does."""
        with self._lock:
            if self._closing.is_set():
                raise HungUpError
            self._asked[request] = connection
            if len(self._asked) == 1:
                self._lock.notify()
        try:
            yield
        finally:
            with self._lock:
                self._asked.pop(request, None)

    def _watch(self) -> None:
        """Look now and then at the connections of requests that are being answered."""
        while not self._closing.wait(_LOOK_SECONDS):
            with self._lock:
                if not (self._asked or self._closing.is_set()):
                    self._lock.wait()  # for any request: those that are answered at once are not looked at
                asked = list(self._asked.items())
            for request, connection in asked:
                if _has_gone(connection):
                    with self._lock:
                        is_new = self._asked.pop(request, None) is not None
                    if is_new:
                        request.hang_up()


class _BadRequestError(Exception):
    """A request that is refused, and its connection closed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _peeked_head(connection: socket.socket) -> bytes:
    """Return the head of the next request, which stays in the socket; nothing if the browser has gone.

    Raises
    ------
    _BadRequestError
        If it is too long, or takes too long.
    """
    end = None
    while True:
        data = connection.recv(_HEAD_NBYTES, socket.MSG_PEEK)
        found = _END.search(data)
        if found is not None:
            return data[: found.end()]
        if not data or _has_gone(connection):
            return b""
        if len(data) == _HEAD_NBYTES:
            raise _BadRequestError(431)
        # A part is seldom: the rest comes at once. Looking does not wait for more than what is there.
        now = time.monotonic()
        end = now + _HEAD_SECONDS if end is None else end
        if now > end:
            raise _BadRequestError(408)
        time.sleep(_PART_SECONDS)


def _fields(lines: list[bytes], is_new: bool) -> dict[str, str]:
    """Return the fields of a head, their names in small letters, and the minor version of http.

    Raises
    ------
    _BadRequestError
        If a line is malformed, the host is not said once, or a body follows.
    """
    fields: dict[str, str] = {}
    for line in lines[:-2]:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise _BadRequestError(400)
        name, value = found[1].decode().lower(), found[2].decode("latin-1").strip()
        if name in fields:
            if name in ("host", "content-length"):
                raise _BadRequestError(400)
            value = f"{fields[name]}, {value}"
        fields[name] = value
    has_body = fields.get("content-length", "0") != "0" or "transfer-encoding" in fields
    if has_body or lines[-2:] != [b"", b""] or (is_new and "host" not in fields):
        raise _BadRequestError(400)
    return {**fields, "version": "1" if is_new else "0"}


def _send(connection: socket.socket, head: bytes, body: bytes | memoryview) -> None:
    """Send a head and what follows, in one call of the system if it takes all."""
    sent = connection.sendmsg([head, body])
    if sent < len(head):
        connection.sendall(head[sent:])
        sent = len(head)
    if sent < len(head) + len(body):
        rest = memoryview(body)[sent - len(head) :]
        while rest:  # each call may take as long as a silent connection, so that a slow one gets all
            rest = rest[connection.send(rest) :]


def _refuse(connection: socket.socket, status: int) -> None:
    """Say why a connection is closed, if the browser listens."""
    answer = Answer(status, {"Content-Type": "text/plain"}, f"{http.client.responses[status]}\n".encode())
    with contextlib.suppress(OSError):
        _send(connection, answer.head("close"), answer.body)


def _end(connection: socket.socket) -> None:
    """Close a connection: what has come is thrown away first, else the system takes back what it still sends."""
    with connection, contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.setblocking(False)
        connection.recv(_HEAD_NBYTES)


def _has_gone(connection: socket.socket) -> bool:
    """Return whether the other end is closed."""
    try:
        poll = select.poll()
        poll.register(connection, _HUNG_UP or select.POLLIN)
        # Elsewhere bytes of a next request hide the end: there the browser is noticed when it is answered.
        return bool(poll.poll(0)) and (bool(_HUNG_UP) or not connection.recv(1, socket.MSG_PEEK))
    except (OSError, ValueError):  # it is closed at this end
        return True
