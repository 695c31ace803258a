"""A proxy between a client and a server of objects, which does what networks and loaded servers do.

::

    client ── request ──> proxy: rules ── request ──> server
           <── answer ─── rules ── log ── answer ──

It runs in a thread of the test with a loop of its own. Requests and answers are read as a whole, and passed on as
they are but for what a rule changes (`proxy_rules`); the ``Host`` header that the client signed stays.
"""

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit

from proxy_rules import Answer, Dropped, Request

_NO_BODY = (204, 304)


async def _head(reader):
    """Return the first line and the headers of a message."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    return lines[0], [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]


async def _body(reader, headers):
    """Return a body, by the headers in lower case; up to the end where nothing says how long it is."""
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    if headers.get("transfer-encoding") != "chunked":
        return await reader.read()
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(parts)


class ObjectProxy:
    """A proxy before one server; used in a ``with`` statement.

    Parameters
    ----------
    endpoint
        ``http://host:port`` of the server.
    """

    def __init__(self, endpoint):
        address = urlsplit(endpoint)
        self._server = address.hostname, address.port
        self._rules = []
        self._log = []
        self._connections = set()
        self._loop = asyncio.new_event_loop()
        self._listener = None
        self.port = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy of tests", daemon=True)
        self._thread.start()
        self.start()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for rule in self._rules:
            rule.end()
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    # what a test says

    @contextlib.contextmanager
    def rule(self, rule):
        """Apply a rule inside a ``with`` statement, after those that are there already."""
        self._rules = [*self._rules, rule]
        try:
            yield rule
        finally:
            self._rules = [other for other in self._rules if other is not rule]
            rule.end()

    def stop(self):
        """Refuse connections, and close those that there are."""
        self._call(self._refuse())

    def start(self):
        """Accept connections, on the same port as before."""
        self._call(self._accept())

    @property
    def log(self):
        """Return the requests in the order in which they came."""
        return list(self._log)

    def requests(self, method=None, key=""):
        """Return the requests of the log with a method, whose key ends so."""
        return [
            entry
            for entry in self.log
            if (method is None or entry.method == method) and entry.key.endswith(key)
        ]

    def clear(self):
        """Forget the requests so far."""
        self._log = []

    # what the loop does

    async def _accept(self):
        self._listener = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, limit=1 << 20, backlog=512
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _refuse(self):
        self._listener.close()
        for writer in list(self._connections):
            writer.transport.abort()

    async def _close(self):
        await self._refuse()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader, writer):
        self._connections.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (Dropped, asyncio.CancelledError):
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()  # the client or the server is gone: so is the connection
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _exchange(self, reader, writer):
        """Pass one request on, and its answer; return whether another may follow."""
        first, headers = await _head(reader)
        method, target, _ = first.split(" ")
        found = {name.lower(): value for name, value in headers}
        if found.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        has_body = "content-length" in found or "transfer-encoding" in found
        body = await _body(reader, found) if has_body else b""
        request = Request(method, target, found, dict(found), body)
        self._log.append(request)
        answer = await self._answered(request)
        sent = answer.body if answer.cut is None else answer.body[: answer.cut]
        request.status, request.answered = answer.status, len(sent)
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{n}: {v}" for n, v in answer.headers)]
        if method != "HEAD" and answer.status not in _NO_BODY:
            lines.append(f"Content-Length: {len(answer.body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        writer.write(sent)
        await writer.drain()
        if answer.cut is not None:
            writer.close()  # what was sent arrives, then the end
            return False
        return found.get("connection", "").lower() != "close"

    async def _answered(self, request):
        """Return what a client is answered, by the rules and the server."""
        rules = [rule for rule in self._rules if rule.takes(request)]
        for number, rule in enumerate(rules):
            answer = await rule.before(request)
            if answer is not None:
                rules = rules[:number]  # the others would change what the server said
                break
        else:
            answer = await self._asked(request)
        for rule in reversed(rules):
            answer = await rule.behind(request, answer)
        return answer

    async def _asked(self, request):
        """Return what the server answers."""
        reader, writer = await asyncio.open_connection(*self._server, limit=1 << 20)
        try:
            hop_by_hop = ("connection", "transfer-encoding", "content-length", "expect")
            kept = [(name, value) for name, value in request.passed.items() if name not in hop_by_hop]
            lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{n}: {v}" for n, v in kept)]
            lines += [f"content-length: {len(request.body)}", "connection: close", "", ""]
            writer.write("\r\n".join(lines).encode("latin-1"))
            writer.write(request.body)
            await writer.drain()
            first, headers = await _head(reader)
            status, _, reason = first.partition(" ")[2].partition(" ")
            found = {name.lower(): value for name, value in headers}
            bodyless = request.method == "HEAD" or int(status) in _NO_BODY
            body = b"" if bodyless else await _body(reader, found)
            own = {"connection", "transfer-encoding"} | (set() if bodyless else {"content-length"})
            return Answer(
                int(status), reason, [(name, v) for name, v in headers if name.lower() not in own], body
            )
        finally:
            writer.close()
