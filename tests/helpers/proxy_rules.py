"""What an `ObjectProxy` does to requests: each rule says to which, and how often.

A rule is given to a proxy, and counts: ``seen`` requests matched it, ``done`` of them were treated::

    with proxy.rule(LoseAnswer(method="PUT", key=r"\\.wkw$", times=1)) as rule:
        ...
    assert rule.done == 1
"""

import asyncio
import dataclasses
import re
import threading
from urllib.parse import unquote, urlsplit


class Dropped(Exception):
    """The connection to the client is to be closed, without any answer or any more of it."""


@dataclasses.dataclass
class Request:
    """A request as it arrived; a line of the log."""

    method: str
    target: str
    """The path and the query, as the client sent them."""
    headers: dict
    """By lower-case name."""
    passed: dict = dataclasses.field(repr=False)
    """The headers with which the server is asked, which rules may change."""
    body: bytes = dataclasses.field(repr=False)
    status: int | None = None
    """What the client was answered; None while it waits, and where the connection was dropped."""
    answered: int = 0
    """Bytes of the body that were sent to the client."""

    @property
    def path(self):
        """Return the path, decoded: ``/bucket/key``."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self):
        """Return what comes behind the question mark."""
        return urlsplit(self.target).query

    @property
    def key(self):
        """Return the key in the bucket; empty for a listing and other requests to the bucket itself."""
        return self.path.lstrip("/").partition("/")[2]

    @property
    def range(self):
        """Return the first and the last byte that were asked for; None for the whole object or a suffix."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2])) if found else None

    @property
    def if_match(self):
        """Return the ETag that the object must have; None without this condition."""
        return self.headers.get("if-match")

    @property
    def if_none_match(self):
        """Return the ETag that the object must not have, ``*`` for any; None without this condition."""
        return self.headers.get("if-none-match")


@dataclasses.dataclass
class Answer:
    """What the server answered, or is said to have answered."""

    status: int
    reason: str
    headers: list
    """(name, value) in the order of the server."""
    body: bytes = dataclasses.field(repr=False)
    cut: int | None = None
    """Bytes of the body after which the connection is closed; None for all of them."""


class Rule:
    """Which requests are treated, and how; the classes below say how.

    Parameters
    ----------
    method, key, query, where
        The method; regular expressions that are searched for in the key and the query; a function of the
        `Request`. A request matches that fulfils all of those given.
    after, every, times
        Of the requests that match, the first `after` pass, then each `every`-th is treated, `times` in all.
    """

    def __init__(self, method=None, key=None, query=None, where=None, after=0, every=1, times=None):
        self._method, self._key, self._query, self._where = method, key, query, where
        self._after, self._every, self._times = after, every, times
        self.seen = 0
        self.done = 0

    def takes(self, request):
        """Count a request; return whether it is to be treated."""
        if not (
            (self._method is None or self._method == request.method)
            and (self._key is None or re.search(self._key, request.key))
            and (self._query is None or re.search(self._query, request.query))
            and (self._where is None or self._where(request))
        ):
            return False
        self.seen += 1
        if self.seen <= self._after or (self.seen - self._after) % self._every:
            return False
        if self._times is not None and self.done >= self._times:
            return False
        self.done += 1
        return True

    async def before(self, request):
        """Return what the client is answered instead of passing the request on; None to pass it on."""

    async def behind(self, request, answer):
        """Return what the client gets of the server's answer."""
        return answer

    def end(self):
        """Let go what waits, when the rule ends."""


class Delay(Rule):
    """Requests wait before they are passed on, side by side."""

    def __init__(self, seconds, **which):
        super().__init__(**which)
        self._seconds = seconds

    async def before(self, request):
        """Wait."""
        await asyncio.sleep(self._seconds)


class Drop(Rule):
    """The connection is closed before the request is passed on: the server never hears of it."""

    async def before(self, request):
        """Close the connection."""
        raise Dropped


class LoseAnswer(Rule):
    """The server does what it is asked; the connection is closed before the client is answered."""

    async def behind(self, request, answer):
        """Close the connection."""
        raise Dropped


class Truncate(Rule):
    """The body ends early, and the connection with it; the headers promise all of it."""

    def __init__(self, keep, **which):
        super().__init__(**which)
        self._keep = keep

    async def behind(self, request, answer):
        """Cut the body."""
        return dataclasses.replace(answer, cut=min(self._keep, len(answer.body)))


class Say(Rule):
    """The client is answered with a status, as S3 does; the server never hears of the request."""

    def __init__(self, status, code="InternalError", headers=(), **which):
        super().__init__(**which)
        self._status, self._code, self._headers = status, code, headers

    async def before(self, request):
        """Answer."""
        text = f"<Error><Code>{self._code}</Code><Message>said by a rule</Message></Error>".encode()
        body = b"" if request.method == "HEAD" else text
        headers = [("Content-Type", "application/xml"), *self._headers]
        return Answer(self._status, "Said", headers, body)


class OtherRange(Rule):
    """Of an object another range is answered than asked for.

    Parameters
    ----------
    shift
        Bytes by which the range is moved.
    told
        Whether ``Content-Range`` says so; else it claims what was asked for.
    """

    def __init__(self, shift, told=True, **which):
        super().__init__(**which)
        self._shift, self._told = shift, told

    def takes(self, request):
        """Take requests of ranges only."""
        return request.range is not None and super().takes(request)

    async def before(self, request):
        """Ask the server for the other range."""
        first, last = request.range
        request.passed["range"] = f"bytes={first + self._shift}-{last + self._shift}"

    async def behind(self, request, answer):
        """Claim what was asked for."""
        return answer if self._told else with_content_range(answer, *request.range)


class Swap(Rule):
    """Of each two answers to requests of ranges the bodies are exchanged, ``Content-Range`` too if `told`."""

    def __init__(self, told=True, **which):
        super().__init__(**which)
        self._told = told
        self._first = None

    def takes(self, request):
        """Take requests of ranges only."""
        return request.range is not None and super().takes(request)

    async def behind(self, request, answer):
        """Wait for the second of two answers; exchange them."""
        if self._first is None:
            self._first = answer, asyncio.get_running_loop().create_future()
            other = await self._first[1]
        else:
            (other, waits), self._first = self._first, None
            waits.set_result(answer)
        if self._told:
            return other
        return with_content_range(other, *request.range)


class Flip(Rule):
    """One bit of the body is wrong."""

    def __init__(self, at, **which):
        super().__init__(**which)
        self._at = at

    async def behind(self, request, answer):
        """Turn the bit over."""
        body = bytearray(answer.body)
        body[self._at] ^= 1
        return dataclasses.replace(answer, body=bytes(body))


class Without(Rule):
    """Headers are taken away: of requests (a server that ignores conditions), of answers (one without ETags)."""

    def __init__(self, request=(), answer=(), **which):
        super().__init__(**which)
        self._request = {name.lower() for name in request}
        self._answer = {name.lower() for name in answer}

    async def before(self, request):
        """Take headers away."""
        for name in self._request:
            request.passed.pop(name, None)

    async def behind(self, request, answer):
        """Take headers away."""
        kept = [(name, value) for name, value in answer.headers if name.lower() not in self._answer]
        return dataclasses.replace(answer, headers=kept)


class Hold(Rule):
    """Requests wait until the test releases them; those of a client that is dead by then are passed on as well.

    Parameters
    ----------
    answers
        Hold the server's answers, after it did what it is asked; else requests of which it knows nothing.
    """

    def __init__(self, answers=False, **which):
        super().__init__(**which)
        self._answers = answers
        self._changed = threading.Condition()
        self._arrived = 0
        self._released = False
        self._waiting = []

    def wait_for(self, requests=1, timeout=60):
        """Return when as many requests wait here, or did."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrived >= requests, timeout):
                raise TimeoutError(f"{self._arrived} of {requests} requests arrived")

    def release(self):
        """Let all requests pass, those that come later too."""
        with self._changed:
            self._released = True
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)

    end = release

    async def _wait(self):
        event = asyncio.Event()
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
            if self._released:
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()

    async def before(self, request):
        """Wait."""
        if not self._answers:
            await self._wait()

    async def behind(self, request, answer):
        """Wait."""
        if self._answers:
            await self._wait()
        return answer


def with_content_range(answer, first, last):
    """Return an answer that claims to be a range."""

    def claimed(name, value):
        if name.lower() != "content-range":
            return name, value
        return name, f"bytes {first}-{last}/{value.partition('/')[2]}"

    return dataclasses.replace(answer, headers=[claimed(*header) for header in answer.headers])
