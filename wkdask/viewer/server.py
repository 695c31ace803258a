"""The server: neuroglancer's client, its state, and the chunks of what is shown, for this machine only.

::

    /v/TOKEN/                                   the client's own files
    /events/TOKEN, /state/TOKEN                 the state, to the browser and back
    /data/TOKEN/precomputed/N/LAYER/info        volumes: metadata
    /data/TOKEN/precomputed/N/LAYER/MAG/CHUNK            and chunks; N counts what was shown before
    /data/TOKEN/zarr/LAYER/[MAG/]zarr.json      Zarr groups: metadata
    /data/TOKEN/zarr/LAYER/MAG/c/0/X/Y/Z                 and chunks

It listens on 127.0.0.1, in a thread of its own. A request without the token gets 403: other users of the machine
can reach the port too. A chunk is made by a thread of a pool; if its request is closed before that, it is not made.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import hmac
import importlib.util
import json
import logging
import os
import secrets
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

from wkdask.errors import InvalidValueError, MissingPackageError, WkdaskError
from wkdask.geometry import BoundingBox
from wkdask.portable import cores
from wkdask.viewer import precomputed, zarr_group
from wkdask.viewer.chunks import ChunkCache
from wkdask.viewer.requests import HungUpError, Request
from wkdask.viewer.scales import Scale, ShownLayer

__all__ = ["Server", "client_folder"]

_logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
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
        self._threads = max(cores(), threads)
        self._pool = self._new_pool()
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
                (rf"{volume}/(?P<mag>[^/]+)/(?P<chunk>[^/]+)", _VolumeChunk, own),
                (rf"/data/{token}/zarr/(?P<layer>[^/]+)/zarr\.json", _ZarrGroup, own),
                (rf"/data/{token}/zarr/(?P<layer>[^/]+)/(?P<mag>[^/]+)/zarr\.json", _ZarrArray, own),
                (rf"/data/{token}/zarr/(?P<layer>[^/]+)/(?P<mag>[^/]+)/(?P<key>c/.*)", _ZarrChunk, own),
                (r"/favicon\.ico", _NoIcon),
                (rf"/[^/]*/{token}(?:/.*)?", _Nothing, own),
                (r"(?P<token>.*)", _Nothing, own),
            ],
            log_function=lambda _: None,
        )
        server = HTTPServer(application)
        server.add_socket(self._socket)
        self._ready.set()
        await self._closing.wait()
        server.stop()
        await self.announce()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(server.close_all_connections(), 5)

    def _new_pool(self) -> concurrent.futures.ThreadPoolExecutor:
        """Return the threads that make chunks."""
        return concurrent.futures.ThreadPoolExecutor(self._threads, thread_name_prefix="wkdask-view")

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
            if threads > self._threads:
                self._threads, old_pool = threads, self._pool
                self._pool = self._new_pool()
                old_pool.shutdown(wait=False)
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
            self._pool.shutdown(wait=False, cancel_futures=True)

    # --- what the handlers need ----------------------------------------------------------------------

    def layer(self, name: str) -> ShownLayer:
        """Return a layer by its name in an address; 404 if there is none."""
        found = self.layers.get(urllib.parse.unquote(name))
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
        given = self.path_kwargs.get("token") or ""
        if not hmac.compare_digest(given.encode(), self.server.token.encode()):
            raise HTTPError(403)

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "no-cache")  # asked again, with the ETag of what the browser has
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")  # the address has the token

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


class _Computed(_Handler):
    """What a thread of the pool makes."""

    _waiting: concurrent.futures.Future[bytes | None] | None = None
    _request: Request

    _tag: str | None = None

    async def send(self, scale: Scale, find: Callable[[], BoundingBox], make: Callable[[], bytes]) -> None:
        """Send a chunk, unless the browser has it; a damaged cube is an error that says so.

        Parameters
        ----------
        scale
            The scale that it is of.
        find
            Returns which voxels it has.
        make
            Returns its bytes.
        """
        self._request = Request()
        known = self.request.headers.get("If-None-Match", "")

        def answer() -> bytes | None:
            with self._request.serving():
                state = scale.state(find())
                if (
                    state
                ):  # stored voxels are identified by their files: they are neither hashed nor read again
                    whole = f"{self.server.edition} {self.request.path} {state}"
                    self._tag = f'"{hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest()}"'
                    if self._tag in known:
                        return None
                return make()

        self._waiting = self.server._pool.submit(answer)
        try:
            body = await asyncio.wrap_future(self._waiting)
        except InvalidValueError as error:
            raise HTTPError(404, str(error)) from error
        except (WkdaskError, OSError, ArithmeticError, ValueError, TypeError, MemoryError) as error:
            told = f"{type(error).__name__}: {error}"
            _logger.warning("a chunk cannot be shown: %s", told)
            raise HTTPError(500, told, reason=_one_ascii_line(told)) from error
        except (asyncio.CancelledError, HungUpError):  # before it was begun, and meanwhile
            return
        if body is None:
            self.set_status(304)
            self.set_etag_header()
            await self.finish()
            return
        self.set_header("Content-Type", "application/octet-stream")
        self.server.served += 1
        with contextlib.suppress(StreamClosedError):
            await self.finish(body)

    def compute_etag(self) -> str | None:
        """Return what identifies this answer; a hash of the data if they are computed."""
        return self._tag or super().compute_etag()

    def on_connection_close(self) -> None:
        """Cancel what has not been started, here or on a cluster."""
        if self._waiting is not None and not self._waiting.cancel():
            # In a thread of its own: a scheduler may take its time to answer.
            asyncio.get_running_loop().run_in_executor(None, self._request.hang_up)


class _VolumeInfo(_Handler):
    """Metadata of a volume."""

    def get(self, token: str, layer: str) -> None:
        self.finish(precomputed.volume_info(self.server.layer(layer)))


class _VolumeChunk(_Computed):
    """A chunk of a volume."""

    async def get(self, token: str, layer: str, mag: str, chunk: str) -> None:
        shown = self.server.layer(layer)
        scale = self.server.scale(shown, mag)

        def make() -> bytes:
            cell = precomputed.cell_named(scale, chunk)
            return precomputed.encoded(self.server.cache.chunk(scale, cell), shown)

        await self.send(scale, lambda: scale.cell_box(precomputed.cell_named(scale, chunk)), make)


class _ZarrGroup(_Handler):
    """Metadata of a layer's group."""

    def get(self, token: str, layer: str) -> None:
        self.finish(zarr_group.group_metadata(self.server.layer(layer)))


class _ZarrArray(_Handler):
    """Metadata of a mag's array."""

    def get(self, token: str, layer: str, mag: str) -> None:
        shown = self.server.layer(layer)
        self.finish(zarr_group.array_metadata(shown, self.server.scale(shown, mag)))


class _ZarrChunk(_Computed):
    """A chunk of a mag's array."""

    async def get(self, token: str, layer: str, mag: str, key: str) -> None:
        scale = self.server.scale(self.server.layer(layer), mag)

        def find() -> BoundingBox:
            return zarr_group.box_of_key(scale, key).intersection(scale.box)

        def make() -> bytes:
            found = find()
            return zarr_group.encoded(
                self.server.cache.region(scale, found), found, zarr_group.box_of_key(scale, key)
            )

        await self.send(scale, find, make)
