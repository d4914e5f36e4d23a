"""A headless Chromium, driven through a pipe by its own protocol: no other package."""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
TIMEOUT = 60.0


def executable():
    """Where a Chromium is, or `None`."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page of a browser.

    Attributes:
        requested: the URLs that it asked for.
        complaints: what its console said and what its scripts raised.
    """

    def __init__(self, send_to, read_from):
        self._send_to, self._read_from = send_to, read_from
        self._numbers = itertools.count(1)
        self._unread = b""
        self._session = None
        self._loaded = False
        self.requested, self.complaints = [], []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, path):
        """Opens a file and waits until it is loaded."""
        self._loaded = False
        self._call("Page.navigate", url=Path(path).resolve().as_uri())
        while not self._loaded:
            self._take(self._message())

    def evaluate(self, script):
        """The value of a JavaScript expression."""
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key, code, text=""):
        """Presses a key of the keyboard."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self._call("Input.dispatchKeyEvent", type="keyUp", **common)

    def look(self, width, scheme="light", height=900):
        """Sets the width of the window, in CSS pixels, and the colour scheme."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self._call("Emulation.setEmulatedMedia", features=[preference])

    def picture(self, path):
        """Writes a PNG of the whole page."""
        found = self._call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True
        )
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def _call(self, method, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send_to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._take(answer)

    def _take(self, event):
        parameters = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(parameters["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.complaints.append(parameters["entry"]["text"])
            case "Page.javascriptDialogOpening":
                self.complaints.append(f"dialog: {parameters['message']}")
                raise AssertionError(self.complaints)

    def _message(self):
        end = time.monotonic() + TIMEOUT
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._read_from], [], [], TIMEOUT)
            received = os.read(self._read_from, 2**16) if ready else b""
            assert received, "the browser is gone"
            assert time.monotonic() < end, "the browser says nothing"
            self._unread += received
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def opened_browser():
    """A page in a browser of its own."""
    theirs_to_read, send_to = os.pipe()
    read_from, theirs_to_write = os.pipe()
    # Chromium reads from descriptor 3 and writes to 4.
    command = f'exec "$@" 3<&{theirs_to_read} 4>&{theirs_to_write}'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = subprocess.Popen(
            [
                *("bash", "-c", command, "bash", executable()),
                *OPTIONS,
                f"--user-data-dir={folder}",
            ],
            pass_fds=(theirs_to_read, theirs_to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_to_read)
        os.close(theirs_to_write)
        try:
            yield Page(send_to, read_from)
        finally:
            browser.terminate()
            try:
                browser.wait(timeout=20)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()
            os.close(send_to)
            os.close(read_from)
