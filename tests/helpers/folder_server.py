"""A folder over http, read only, with ranges and conditions, or without: what https:// data lie behind.

::

    with FolderServer(folder) as server:
        server.url        # http://127.0.0.1:port
        server.requests   # what was asked, and answered
    with FolderServer(folder, ranges=False, etags=False): ...   # as python -m http.server

`ObjectProxy(server.url)` puts faults before it.
"""

import asyncio
import dataclasses
import email.utils
import os
import re
import threading
from pathlib import Path

import tornado.httpserver
import tornado.netutil
import tornado.web


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request and its answer."""

    method: str
    path: str
    range: str | None
    status: int


class _Handler(tornado.web.RequestHandler):
    """Answers GET and HEAD."""

    def initialize(self, server):
        self._server = server

    def compute_etag(self):
        return None  # ours come from the file, and only where they are wanted

    def finish(self, chunk=None):
        asked = self.request  # noted before the client can go on
        self._server.requests.append(
            Asked(asked.method, asked.path, asked.headers.get("Range"), self.get_status())
        )
        return super().finish(chunk)

    def head(self, path):
        self.get(path)

    def write_error(self, status_code, **error):
        self.finish(self._reason)

    def get(self, path):
        file = self._server.folder / path
        if file.is_dir():
            raise tornado.web.HTTPError(self._server.folder_status)
        try:
            opened = file.open("rb")
        except OSError:
            raise tornado.web.HTTPError(404) from None
        with opened:
            self._answer(opened, os.fstat(opened.fileno()))

    def _answer(self, opened, changed):
        asked = self.request.headers
        date = email.utils.formatdate(changed.st_mtime, usegmt=True)
        etag = f'"{changed.st_ino:x}-{changed.st_mtime_ns:x}-{changed.st_size:x}"'
        self.set_header("Last-Modified", date)
        if self._server.etags:
            self.set_header("ETag", etag)
            if asked.get("If-Match", etag) not in (etag, "*"):
                raise tornado.web.HTTPError(412)
            if asked.get("If-None-Match") in (etag, "*"):
                self.set_status(304)
                return
        first, last = 0, changed.st_size - 1
        if self._server.ranges:
            self.set_header("Accept-Ranges", "bytes")
            # a range of what the file was before is not wanted: all of it is answered
            if "Range" in asked and asked.get("If-Range", etag) in (etag, date):
                first, last = self._range(asked["Range"], changed.st_size)
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("Content-Length", last + 1 - first)
        if self.request.method != "HEAD":
            opened.seek(first)
            self.write(opened.read(last + 1 - first))

    def _range(self, text, size):
        """Return the first and the last byte of a range."""
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
        if not found or not any(found.groups()):
            return 0, size - 1
        if not found[1]:
            first, last = max(0, size - int(found[2])), size - 1
        else:
            first, last = int(found[1]), min(int(found[2] or size), size - 1)
        if first >= size:
            self.set_header("Content-Range", f"bytes */{size}")
            raise tornado.web.HTTPError(416)
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {first}-{last}/{size}")
        return first, last


class FolderServer:
    """Serves a folder on the loopback, in a thread of its own; used in a ``with`` statement.

    Parameters
    ----------
    folder
        What is served.
    ranges, etags
        Whether ranges are answered, and whether there are ETags and conditions on them.
    folder_status
        What the address of a folder is answered: 404 or 403.
    """

    def __init__(self, folder, ranges=True, etags=True, folder_status=404):
        self.folder = Path(folder)
        self.ranges, self.etags, self.folder_status = ranges, etags, folder_status
        self.requests = []
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(sockets),), daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _serve(self, sockets):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        application = tornado.web.Application(
            [("/(.*)", _Handler, {"server": self})], log_function=lambda handler: None
        )
        server = tornado.httpserver.HTTPServer(application)
        server.add_sockets(sockets)
        self._ready.set()
        await self._end.wait()
        server.stop()
        await server.close_all_connections()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
