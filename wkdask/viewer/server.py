"""The server: neuroglancer's client, its state, and the chunks of what is shown, for this machine only.

::

    /v/TOKEN/                                   the client's own files
    /events/TOKEN, /state/TOKEN                 the state, to the browser and back
    /data/TOKEN/precomputed/N/LAYER/info        volumes: metadata
    /data/TOKEN/precomputed/N/LAYER/MAG/CHUNK            and chunks; N counts what was shown before
    /data/TOKEN/zarr/LAYER/[MAG/]zarr.json      Zarr groups: metadata
    /data/TOKEN/zarr/LAYER/MAG/c/0/X/Y/Z                 and chunks

It listens on 127.0.0.1, in a thread of its own. A request without the token gets 403: other users of the machine
can reach the port too. A chunk is made and sent by the thread of its connection (`connections`), so many at a time;
if its browser hangs up before that, it is not made. tornado answers all else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import http.client
import importlib.util
import json
import logging
import os
import re
import secrets
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError
from tornado.netutil import add_accept_handler
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

from wkdask.errors import InvalidValueError, MissingPackageError
from wkdask.portable import cores
from wkdask.viewer import precomputed, zarr_group
from wkdask.viewer.chunks import ChunkCache
from wkdask.viewer.connections import Answer, Connections
from wkdask.viewer.requests import HungUpError, Slots
from wkdask.viewer.scales import Scale, ShownLayer

__all__ = ["Server", "client_folder"]

_logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
_HEADERS = {
    "Cache-Control": "no-cache",  # asked again, with the ETag of what the browser has
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address has the token
}
_CHUNK = re.compile(
    r"/data/(?P<token>[^/]+)/(?:precomputed/\d+|(?P<zarr>zarr))/(?P<layer>[^/]+)/(?P<mag>[^/]+)/"
    r"(?P<name>(?(zarr)c/.*|[^/]+))"
)
"""The path of a chunk."""
_CHUNK_PARTS = ("token", "layer", "mag", "name")
_KEEP_ALIVE_SECONDS = 15.0
"""How often a browser that waits for news of the state is written to: so that it is noticed when it has gone."""


def client_folder() -> str:
    """Return where the files of neuroglancer's client are, out of the package `neuroglancer`.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    found = importlib.util.find_spec("neuroglancer")
    for folder in (found.submodule_search_locations if found is not None else None) or ():
        client = os.path.join(folder, "static", "client")
        if os.path.isfile(os.path.join(client, "index.html")):
            return client
    raise MissingPackageError(
        "looking at data in the browser needs the package neuroglancer: pip install 'wkdask[view]'"
    )


class Server:
    """Serves layers until it is closed.

    Parameters
    ----------
    layers
        What is shown.
    state
        Returns what the client shows at first, given the addresses of the layers' volumes.
    port
        The port; any that is free by default.
    cache_nbytes
        Bytes of decoded chunks that are kept.
    threads
        How many chunks are made at a time, at least one for each core; more where a cluster makes them.

    Raises
    ------
    InvalidValueError
        If the port is in use.
    MissingPackageError
        If neuroglancer is not installed.
    """

    def __init__(
        self,
        layers: tuple[ShownLayer, ...],
        state: Callable[[Mapping[str, str]], dict[str, Any]],
        port: int = 0,
        cache_nbytes: int = 256 << 20,
        threads: int = 0,
    ) -> None:
        self.token = secrets.token_urlsafe(24)
        self.cache = ChunkCache(cache_nbytes)
        self.layers = {layer.name: layer for layer in layers}
        self.served = 0
        """Chunks that were sent."""
        client = client_folder()
        try:
            self._socket = socket.create_server((HOST, port))
        except OSError as error:
            raise InvalidValueError(
                f"port {port} of {HOST} cannot be used: {os.strerror(error.errno or 0)}"
            ) from error
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.edition = 0
        """How often other layers were shown."""
        self.state = state(self.sources)
        self._generation = "wkdask/0"
        self._lock = threading.Lock()
        self.slots = Slots(max(cores(), threads))
        """Which chunks are being made."""
        self._loop: asyncio.AbstractEventLoop
        self._changed: asyncio.Condition
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(client)), name="wkdask-view", daemon=True
        )
        self._thread.start()
        self._ready.wait()

    @property
    def url(self) -> str:
        """The address of the viewer, with the token."""
        return f"http://{HOST}:{self.port}/v/{self.token}/"

    @property
    def data_url(self) -> str:
        """Where volumes and Zarr groups are."""
        return f"http://{HOST}:{self.port}/data/{self.token}"

    @property
    def sources(self) -> dict[str, str]:
        """The address of each layer's volume; another one after each change, so that the browser asks anew."""
        return {
            name: f"precomputed://{self.data_url}/precomputed/{self.edition}/{urllib.parse.quote(name, safe='')}"
            for name in self.layers
        }

    async def _serve(self, client: str) -> None:
        """Run until the server is closed."""
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Condition()
        self._closing = asyncio.Event()
        own = {"server": self}
        token = r"(?P<token>[^/]+)"
        volume = rf"/data/{token}/precomputed/\d+/(?P<layer>[^/]+)"
        application = Application(
            [
                (
                    rf"/v/{token}/(?P<path>.*)",
                    _ClientFiles,
                    {"path": client, "default_filename": "index.html", **own},
                ),
                (rf"/events/{token}", _Events, own),
                (rf"/state/{token}", _State, own),
                (rf"{volume}/info", _VolumeInfo, own),
                (rf"/data/{token}/zarr/(?P<layer>[^/]+)/zarr\.json", _ZarrGroup, own),
                (rf"/data/{token}/zarr/(?P<layer>[^/]+)/(?P<mag>[^/]+)/zarr\.json", _ZarrArray, own),
                (r"/favicon\.ico", _NoIcon),
                (rf"/[^/]*/{token}(?:/.*)?", _Nothing, own),
                (r"(?P<token>.*)", _Nothing, own),
            ],
            log_function=lambda _: None,
        )
        # What follows on the same connection may be for a chunk, so that we have to look at it.
        server = HTTPServer(application, no_keep_alive=True)

        def take(connection: socket.socket, address: Any) -> None:
            if self._closing.is_set():
                connection.close()
            else:
                server.handle_stream(IOStream(connection), address)

        def hand_over(connection: socket.socket, address: Any) -> None:
            self._loop.call_soon_threadsafe(take, connection, address)

        connections = Connections(_CHUNK.fullmatch, self._chunk, hand_over)
        stop_accepting = add_accept_handler(self._socket, connections.accept)
        self._ready.set()
        await self._closing.wait()
        stop_accepting()
        self._socket.close()
        connections.close(self.slots.close())
        await self.announce()
        await asyncio.sleep(0)  # what was handed over last
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(server.close_all_connections(), 5)

    # --- changes -------------------------------------------------------------------------------------

    def show(
        self,
        layers: tuple[ShownLayer, ...],
        state: Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, Any]],
        threads: int = 0,
    ) -> None:
        """Show other layers.

        Parameters
        ----------
        layers
            What is shown from now on.
        state
            Returns what the client shows, given what it shows now and the addresses of the layers' volumes.
        threads
            How many chunks are made at a time, if that is more than before.
        """

        async def change() -> None:
            # On the loop, where changes by the browser arrive: none of them is lost in between.
            old = {scale for layer in self.layers.values() for scale in layer.scales}
            self.slots.widen(threads)
            self.edition += 1
            self.layers = {layer.name: layer for layer in layers}
            self.state = state(self.state, self.sources)
            self._generation = f"wkdask/{self.edition}"
            self.cache.forget(old)
            await self.announce()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result()

    async def announce(self) -> None:
        """Tell all browsers that the state has changed."""
        async with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End the server: what is being computed is not waited for."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    # --- chunks --------------------------------------------------------------------------------------

    def _chunk(self, asked: re.Match[str], fields: Mapping[str, str]) -> Answer:
        """Answer a request for a chunk, in the thread of its connection; a damaged cube is an error that says so.

        Raises
        ------
        HungUpError
            If the browser has hung up.
        """
        token, layer, mag, name = (urllib.parse.unquote(asked[part]) for part in _CHUNK_PARTS)
        known = fields.get("if-none-match", "")
        try:
            self.check_token(token)
            shown = self.layer(layer)
            scale = self.scale(shown, mag)
            with self.slots.taken():
                tag, body = self._made(shown, scale, asked, name, known)
        except HungUpError:
            raise
        except HTTPError as error:
            return _told(error.status_code, error.reason or "", error.log_message or "")
        except InvalidValueError as error:
            return _told(404, "", str(error))
        except Exception as error:  # what computes an expression may raise anything
            text = f"{type(error).__name__}: {error}"
            _logger.warning("a chunk cannot be shown: %s", text)
            return _told(500, _one_ascii_line(text), text)
        if body is None:
            return Answer(304, {**_HEADERS, "Etag": tag})
        with self._lock:
            self.served += 1
        return Answer(200, {**_HEADERS, "Content-Type": "application/octet-stream", "Etag": tag}, body)

    def _made(
        self, shown: ShownLayer, scale: Scale, asked: re.Match[str], name: str, known: str
    ) -> tuple[str, memoryview | None]:
        """Return the ETag of a chunk, and its bytes unless the browser has them."""
        if asked["zarr"]:
            whole = zarr_group.box_of_key(scale, name)
            box = whole.intersection(scale.box)
        else:
            cell = precomputed.cell_named(scale, name)
            box = scale.cell_box(cell)
        state, tag = scale.state(box), ""
        if state:  # the files identify what is stored: it is neither hashed nor read again
            tag = _tag(f"{self.edition} {asked[0]} {state}".encode())
            if _knows(known, tag):
                return tag, None
        if asked["zarr"]:
            body = zarr_group.encoded(self.cache.region(scale, box), box, whole)
        else:
            body = precomputed.encoded(self.cache.chunk(scale, cell, state), shown)
        tag = tag or _tag(body)
        return tag, None if _knows(known, tag) else body

    # --- what the handlers need ----------------------------------------------------------------------

    def check_token(self, given: str) -> None:
        """Raise 403 if it is not the token."""
        if not hmac.compare_digest(given.encode(errors="replace"), self.token.encode()):
            raise HTTPError(403)

    def layer(self, name: str) -> ShownLayer:
        """Return a layer by its name in an address; 404 if there is none."""
        found = self.layers.get(name)
        if found is None:
            raise HTTPError(404, reason="no such layer")
        return found

    def scale(self, layer: ShownLayer, name: str) -> Scale:
        """Return a layer's scale by its name; 404 if there is none."""
        for scale in layer.scales:
            if scale.name == name:
                return scale
        raise HTTPError(404, reason="no such mag")

    async def new_state(self, known: str) -> tuple[dict[str, Any], str] | None:
        """Wait for a state that a browser does not have; None after a while without, and at the end."""
        async with self._changed:
            if self._generation == known and not self._closing.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _KEEP_ALIVE_SECONDS)
            return None if self._generation == known else (self.state, self._generation)

    async def take_state(self, state: dict[str, Any], known: str, new: str) -> bool:
        """Take over what a user did in the browser, unless it was done to a state that is no longer shown."""
        if known != self._generation:
            return False
        self.state, self._generation = state, new
        await self.announce()
        return True

    @property
    def is_closing(self) -> bool:
        """Whether the server is about to end."""
        return self._closing.is_set()


class _Handler(RequestHandler):
    """Answers requests that carry the token."""

    def initialize(self, server: Server) -> None:
        self.server = server

    def prepare(self) -> None:
        self.server.check_token(self.path_kwargs.get("token") or "")

    def set_default_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **more: Any) -> None:
        """Say what is wrong, as text."""
        error = (more.get("exc_info") or (None, None))[1]
        told = getattr(error, "log_message", None) if isinstance(error, HTTPError) else None
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        text = told.replace("%%", "%") if told else self._reason  # tornado doubles them for its log
        self.finish(f"{text}\n")


class _Nothing(_Handler):
    """Whatever else is asked for."""

    def get(self, **_: str) -> None:
        raise HTTPError(404)

    post = get


class _NoIcon(RequestHandler):
    """Browsers ask for an icon, without the token."""

    def get(self) -> None:
        self.set_status(204)


class _ClientFiles(_Handler, StaticFileHandler):
    """The files of neuroglancer's client."""

    def initialize(self, server: Server, path: str, default_filename: str) -> None:  # type: ignore[override]
        self.server = server
        StaticFileHandler.initialize(self, path, default_filename)

    async def get(self, token: str, path: str, include_body: bool = True) -> None:  # type: ignore[override]
        await StaticFileHandler.get(self, path, include_body)

    async def head(self, token: str, path: str) -> None:  # type: ignore[override]
        await StaticFileHandler.get(self, path, include_body=False)


class _Events(_Handler):
    """News of the state, as server-sent events."""

    async def get(self, token: str) -> None:
        self.set_header("Content-Type", "text/event-stream")
        known = self.get_argument("gs", "")
        with contextlib.suppress(StreamClosedError):
            # The client waits for the configuration of its surface, which we leave as it is.
            self.write(_event("c", {}, "wkdask"))
            while not self.server.is_closing:
                news = await self.server.new_state(known)
                if news is None:
                    self.write(": still here\n\n")
                elif news[1].rpartition("/")[0] != self.get_argument("c", ""):
                    self.write(_event("s", *news))
                known = news[1] if news is not None else known
                await self.flush()


def _event(key: str, state: Mapping[str, Any], generation: str) -> str:
    """Return an event that sets a state."""
    return "data: " + json.dumps({"k": key, "s": state, "g": generation}) + "\n\n"


class _State(_Handler):
    """What a user did in the browser."""

    def check_xsrf_cookie(self) -> None:
        """There are no cookies: the token is in the address."""

    async def post(self, token: str) -> None:
        try:
            given = json.loads(self.request.body)
            state, known, new = given["s"], given["pg"], f"{given['c']}/{given['g']}"
        except (ValueError, KeyError, TypeError) as error:
            raise HTTPError(400) from error
        if not isinstance(state, dict) or not await self.server.take_state(state, known, new):
            self.set_status(412)
            return
        self.finish({"g": new})


def _one_ascii_line(text: str) -> str:
    """Return a text as a status line has it, which the client shows."""
    return " ".join(text.encode("ascii", "replace").decode().split())[:500]


def _told(status: int, reason: str, text: str) -> Answer:
    """Return an answer that says what is wrong, as text."""
    body = f"{text or reason or http.client.responses[status]}\n".encode(errors="replace")
    return Answer(status, {**_HEADERS, "Content-Type": "text/plain; charset=utf-8"}, body, reason)


def _tag(content: bytes | memoryview) -> str:
    """Return an ETag."""
    return f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"'


def _knows(known: str, tag: str) -> bool:
    """Return whether a browser has what an ETag is of, given its ``If-None-Match``."""
    return any(each.strip().removeprefix("W/") in (tag, "*") for each in known.split(","))


class _VolumeInfo(_Handler):
    """Metadata of a volume."""

    def get(self, token: str, layer: str) -> None:
        self.finish(precomputed.volume_info(self.server.layer(layer)))


class _ZarrGroup(_Handler):
    """Metadata of a layer's group."""

    def get(self, token: str, layer: str) -> None:
        self.finish(zarr_group.group_metadata(self.server.layer(layer)))


class _ZarrArray(_Handler):
    """Metadata of a mag's array."""

    def get(self, token: str, layer: str, mag: str) -> None:
        shown = self.server.layer(layer)
        self.finish(zarr_group.array_metadata(shown, self.server.scale(shown, mag)))
