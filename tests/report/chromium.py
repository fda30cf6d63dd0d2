"""A headless Chromium, driven over its DevTools protocol through a pair of pipes."""

import base64
import contextlib
import io
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

VARIABLE = "ONNXFUSE_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LIMIT = 60
# The protocol speaks on descriptors 3 and 4, and those may be taken here.
_START = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def found():
    """The browser's program, or None."""
    named = os.environ.get(VARIABLE)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """A browser with one tab."""

    def __init__(self, program, profile):
        options = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars "
            "--no-first-run --disable-extensions --disable-background-networking "
            "--disable-component-update --disable-sync --mute-audio --remote-debugging-pipe"
        )
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [program, *options.split(), f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._numbers, self._session = b"", itertools.count(1), None
        self.events = []
        targets = self._ask("Target.getTargets")["targetInfos"]
        tab = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self._ask("Target.attachToTarget", targetId=tab, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")

    def close(self):
        with contextlib.suppress(OSError, AssertionError):
            self._session = None
            self._ask("Browser.close")
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(self, path, width=1280, height=900, scheme="light"):
        """Opens a file; gives the seconds until it was loaded and laid out."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        start = time.perf_counter()
        self._ask("Page.navigate", url=Path(path).resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()
        self.run("document.body.getBoundingClientRect().height")
        return time.perf_counter() - start

    def run(self, expression):
        """The value of a JavaScript expression in the page."""
        options = {"returnByValue": True, "awaitPromise": True}
        done = self._ask("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def media(self, **features):
        self._ask("Emulation.setEmulatedMedia", **features)

    def screenshot(self, *, whole=False):
        """What is seen, or the page as a whole, as (height, width, 3) bytes."""
        done = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return np.array(Image.open(io.BytesIO(base64.b64decode(done["data"]))).convert("RGB"))

    def _ask(self, method, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _read(self):
        """The next message; events are kept."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], LIMIT)
            assert ready, f"the browser said nothing for {LIMIT} s"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser is gone"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        told = json.loads(message)
        if "method" in told:
            self.events.append(told)
        return told
