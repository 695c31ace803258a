"""What tifffile only logs of a file: collected while its header is parsed, and printed once for all files.

Without a handler Python prints every such line on stderr, several times for every file.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collected_log", "handle_log"]

_OBJECT = re.compile(r"<tifffile\.[^>]*>,?\s*")
"""How a message names the file, page or tag that it is about: files that are alike have one message."""
_LONGEST = 200

_installing = threading.Lock()


class _Collector(logging.Handler):
    """Keeps the messages of threads that want them; loggers above get all of them as before."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.wanted = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        messages: list[str] | None = getattr(self.wanted, "messages", None)
        if messages is not None:
            text = _OBJECT.sub("", record.getMessage()).strip()[:_LONGEST]
            if text not in messages:
                messages.append(text)


_collector = _Collector()


def handle_log() -> None:
    """Keep tifffile's log off the screen where no handler is set: wkdask has reported all of it."""
    logger = logging.getLogger("tifffile")
    with _installing:
        if _collector not in logger.handlers:
            logger.addHandler(_collector)


@contextmanager
def collected_log() -> Iterator[list[str]]:
    """Collect the warnings and errors that tifffile logs in this thread.

    Yields
    ------
    list of str
        The messages so far, each once, without names of objects.
    """
    handle_log()
    messages: list[str] = []
    _collector.wanted.messages = messages
    try:
        yield messages
    finally:
        _collector.wanted.messages = None
