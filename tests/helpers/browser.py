"""A real browser without a window: headless Chromium, told what to do by its DevTools protocol."""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tornado.websocket import websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""The program, None where there is none."""


class Browser:
    """One page of a browser.

    WebGL is drawn by the processor, so that the same picture comes out on every machine.
    """

    def __init__(self, size=(1000, 800)):
        self._folder = tempfile.mkdtemp(prefix="wkdask-browser-")
        self._process = subprocess.Popen(
            [
                CHROMIUM, "--headless=new", "--no-sandbox", "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
                "--ignore-gpu-blocklist", "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
                "--disable-dev-shm-usage", "--remote-debugging-port=0", f"--window-size={size[0]},{size[1]}",
                f"--user-data-dir={self._folder}", "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self.console = []
        """What the page has logged, and errors."""
        try:
            self._socket = self._loop.run_until_complete(self._connect())
            self.call("Page.enable")
            self.call("Runtime.enable")
            self.call("Log.enable")
            self.call(
                "Emulation.setDeviceMetricsOverride",
                width=size[0],
                height=size[1],
                deviceScaleFactor=1,
                mobile=False,
            )
        except BaseException:
            self.close()
            raise

    async def _connect(self):
        """Return the socket of the first page; the browser writes where it listens into a file."""
        import urllib.request

        port_file = Path(self._folder) / "DevToolsActivePort"
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            if port_file.exists() and (lines := port_file.read_text().splitlines()):
                with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                    pages = [page for page in json.load(answer) if page["type"] == "page"]
                if pages:
                    return await websocket_connect(pages[0]["webSocketDebuggerUrl"], max_message_size=1 << 28)
            await asyncio.sleep(0.05)
        raise RuntimeError(f"the browser did not start (exit code {self._process.poll()})")

    def call(self, method, **parameters):
        """Call a method of the protocol, and return its result."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), 60))

    async def _call(self, method, parameters):
        self._number += 1
        await self._socket.write_message(
            json.dumps({"id": self._number, "method": method, "params": parameters})
        )
        while True:
            text = await self._socket.read_message()
            if text is None:
                raise RuntimeError("the browser has ended")
            message = json.loads(text)
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            if message.get("method") in (
                "Runtime.exceptionThrown",
                "Log.entryAdded",
                "Runtime.consoleAPICalled",
            ):
                self.console.append(json.dumps(message["params"])[:2000])

    def open(self, url):
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def evaluate(self, script):
        """Return the value of an expression of JavaScript; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_until(self, script, seconds=120):
        """Wait until an expression of JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < end, (f"not true after {seconds} s: {script}", self.console[-5:])
            self._loop.run_until_complete(asyncio.sleep(0.1))

    def screenshot(self, path=None):
        """Return the page as an array (y, x, 3), kept as a PNG where a path is given."""
        import io

        import numpy as np
        from PIL import Image

        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            Path(path).write_bytes(png)
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def close(self):
        """End the browser, and remove what it left."""
        self._process.kill()
        self._process.wait()
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
