"""A real browser, driven over a pipe in its own protocol (Chrome DevTools Protocol): no driver, no package, no port."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PHONE, DESK = (390, 844), (1280, 900)
_TIMEOUT = 60.0


class BrowserError(Exception):
    """The browser refused a command, or did not answer."""


class Browser:
    """One page of one headless Chromium; ``requests`` and ``complaints`` are what the page caused so far."""

    def __init__(self, process: subprocess.Popen[bytes], to_browser: int, from_browser: int) -> None:
        self._process, self._out, self._in = process, to_browser, from_browser
        self._buffer, self._number = b"", 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to the page and its answer. Raises BrowserError."""
        return self._call(method, parameters, self._session)

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                return answer.get("result", {})
            self._note(answer)

    def _message(self, timeout: float = _TIMEOUT) -> dict[str, Any]:
        until = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise BrowserError(f"the browser said nothing for {timeout:g} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise BrowserError(f"the browser ended (exit code {self._process.poll()})")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method", ""), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(told["entry"]["text"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(told)[:500])
        self.seen = method

    def open(self, path: Path, size: tuple[int, int] = DESK, scheme: str = "light", media: str = "") -> None:
        """Show the file at ``path`` in a window of ``size``, with the colour scheme and the medium given."""
        self.requests.clear()
        self.complaints.clear()
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=media, features=[feature])
        self.call("Page.navigate", url=path.as_uri())
        self.seen = ""
        while self.seen != "Page.loadEventFired":
            self._note(self._message())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page. Raises BrowserError when it throws."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserError(json.dumps(result["exceptionDetails"])[:500])
        return result["result"].get("value")

    def screenshot(self, path: Path, part: tuple[int, int, int, int] | None = None) -> None:
        """The whole page as PNG, or a part (left, top, width, height)."""
        clip = {"clip": dict(zip(("x", "y", "width", "height"), part, strict=True), scale=1)} if part else {}
        result = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, **clip)
        path.write_bytes(base64.b64decode(result["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        result = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        return base64.b64decode(result["data"])


@contextmanager
def chromium(profile: Path, proxy: str) -> Iterator[Browser]:
    """A headless Chromium whose every way out is ``proxy``; its files are below ``profile``."""
    program = shutil.which("chromium")
    if program is None:
        raise BrowserError("chromium is not installed; run make setup (Debian package chromium)")
    read_end, to_browser = os.pipe()
    from_browser, write_end = os.pipe()

    def place() -> None:  # the protocol's pipe is descriptors 3 and 4
        first, second = os.dup(read_end), os.dup(write_end)
        os.dup2(first, 3)
        os.dup2(second, 4)

    environment = {
        **os.environ,
        "HOME": str(profile),
        "XDG_CONFIG_HOME": str(profile),
        "XDG_CACHE_HOME": str(profile),
    }
    process = subprocess.Popen(
        [
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-component-update",
            "--disable-background-networking",
            "--disable-default-apps",
            "--disable-domain-reliability",
            "--disable-sync",
            "--disable-features=NetworkTimeServiceQuerying,OptimizationHints,MediaRouter,Translate",
            "--no-first-run",
            "--hide-scrollbars",
            f"--proxy-server={proxy}",
            "--proxy-bypass-list=<-loopback>",
            f"--user-data-dir={profile / 'profile'}",
            "--remote-debugging-pipe",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        preexec_fn=place,
        pass_fds=(3, 4),
    )
    os.close(read_end)
    os.close(write_end)
    try:
        yield Browser(process, to_browser, from_browser)
    finally:
        os.close(to_browser)
        os.close(from_browser)
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
