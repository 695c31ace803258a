"""The process of the S3 server of tests: moto's, told over standard input what to do.

::

    test ── "refuse", "accept" ──> this process: no connection any more, then again; the objects stay in memory
         <── port, then one line per command
         ── end of input ──> ends, also where the test was killed

A request is answered under one lock, because moto looks at the condition of a conditional put first and stores
then. The body is received before that, so that a client that stops in the middle of a put keeps nobody waiting.
"""

import contextlib
import io
import os
import socket
import sys
import threading
import time

from moto.s3.models import FakeKey
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


def keep_values():
    """Read an object once, not for each range of it: moto reads all of it out of a file, and cuts."""
    read, write = FakeKey.value.fget, FakeKey.value.fset

    def value(key):
        if "kept" not in vars(key):
            key.kept = read(key)
        return key.kept

    def set_value(key, new):
        vars(key).pop("kept", None)
        write(key, new)

    FakeKey.value = property(value, set_value)


class OneAtATime:
    """An application of which one request is answered at a time, each some seconds late."""

    def __init__(self, app, delay):
        self._app = app
        self._delay = delay
        self._lock = threading.Lock()

    def __call__(self, environ, start_response):
        """Answer a request."""
        size = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(size))
        time.sleep(self._delay)
        with self._lock:
            parts = self._app(environ, start_response)
            try:
                return list(parts)
            finally:
                getattr(parts, "close", lambda: None)()


class Server:
    """Accepts connections, or refuses them."""

    def __init__(self, delay):
        self._app = OneAtATime(DomainDispatcherApplication(create_backend_app), delay)
        self._open = open_sockets = set()

        class Handler(WSGIRequestHandler):
            disable_nagle_algorithm = True  # else a body waits 40 ms for the headers' confirmation

            def setup(self):
                super().setup()
                open_sockets.add(self.connection)

            def finish(self):
                open_sockets.discard(self.connection)
                super().finish()

            def log(self, *message):
                pass

        self._handler = Handler
        self.port = 0
        self.accept()

    def accept(self):
        """Accept connections, on the same port as before."""
        self._server = make_server(
            "127.0.0.1", self.port, self._app, threaded=True, request_handler=self._handler
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def refuse(self):
        """Refuse connections, and close those that there are."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # its client was faster
                connection.shutdown(socket.SHUT_RDWR)


def end_with(parent):
    """End this process when its parent is gone, also while a fork of the parent keeps the input open."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def main():
    """Serve until the input ends."""
    threading.Thread(target=end_with, args=(int(sys.argv[2]),), daemon=True).start()
    keep_values()
    server = Server(float(sys.argv[1]))
    print(server.port, flush=True)
    for line in sys.stdin:
        getattr(server, line.strip())()
        print("done", flush=True)
    os._exit(0)  # threads of connections that are kept alive would wait for the next request


if __name__ == "__main__":
    main()
