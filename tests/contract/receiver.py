"""A webhook receiver for rules about deliveries, shared by all processes of a run.

``CONTRACT_RECEIVER=host:port`` names this machine as the server sees it; the run listens on that port, on all
interfaces. Without it a receiver on the loopback serves a server of this machine, and for any other server
there is none. ``CONTRACT_RECEIVER=none`` turns the rules off. What came is kept in files of the run's own
directory, where every process finds it.
"""

from __future__ import annotations

import ipaddress
import json
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .server import DELIVERY_SECONDS, wait_until

_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


class ReceiverError(Exception):
    """The receiver that was asked for cannot be; its text is one sentence."""


@dataclass(frozen=True)
class Receiver:
    """What came to the receiver at ``url``, kept in ``directory``."""

    url: str
    directory: Path

    @property
    def received(self) -> list[dict[str, Any]]:
        """Every request so far, oldest first: ``method``, ``path``, ``headers`` (lower case), ``body``.

        ``body`` is the JSON of it, its text when it is none, and None when it was empty.
        """
        path = self.directory / "received"
        lines = path.read_text().split("\n") if path.exists() else []
        return [json.loads(line) for line in lines if line]

    def on(self, path: str) -> list[dict[str, Any]]:
        """What was posted to this path."""
        return [item for item in self.received if item["path"] == path and item["method"] == "POST"]

    def nth(self, path: str, count: int, seconds: float = DELIVERY_SECONDS) -> dict[str, Any]:
        """The message number ``count`` (from 1) to this path; fails when it does not come in time."""
        assert wait_until(lambda: len(self.on(path)) >= count, seconds), (
            f"message {count} to {self.url}{path} did not come in {seconds:.0f} s; can the server reach that address?"
            " (CONTRACT_RECEIVER=host:port names another, docs/contract.md)"
        )
        return self.on(path)[count - 1]

    def first(self, path: str, seconds: float = DELIVERY_SECONDS) -> dict[str, Any]:
        """The first message to this path; fails when none comes in time."""
        return self.nth(path, 1, seconds)

    def answer(self, path: str, status: int, *, location: str = "", seconds: float = 0) -> None:
        """From now on requests to this path are answered with this status, after so many seconds.

        ``location`` is where a redirect leads to. Otherwise: 500 where ``fail`` is in the path, else 200, at once.
        """
        with (self.directory / "answers").open("a") as file:
            file.write(json.dumps([path, status, location, seconds]) + "\n")


def address(setting: str | None, server_url: str) -> tuple[str, str, int] | None:
    """Where to listen and what to call it: (interface, host as the server sees it, port; 0: any).

    None: there is no receiver. Raises :class:`ReceiverError` for a setting that makes no sense.
    """
    if setting in {"none", "NONE"}:
        return None
    if setting:
        match = _HOST_PORT.fullmatch(setting)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ReceiverError(
                f"CONTRACT_RECEIVER must be host:port (an address of this machine that the server reaches, and a free"
                f" port), or none, not {setting!r}"
            )
        return "0.0.0.0", match["host"], int(match["port"])
    return ("127.0.0.1", "127.0.0.1", 0) if is_loopback(server_url) else None


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine by its loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: The 6.2 line delivers to all recipients of a tick at once; the base class keeps 5 callers waiting and refuses the rest.
    request_queue_size = 256


class Listener:
    """The listening side, in the process that leads the run."""

    def __init__(self, interface: str, host: str, port: int, directory: Path) -> None:
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                item = {"method": self.command, "path": self.path, "headers": headers, "body": _body(raw)}
                with lock, (directory / "received").open("a") as file:
                    file.write(json.dumps({**item, "time": time.time()}) + "\n")
                status, location, seconds = _answer(directory, self.path)
                time.sleep(seconds)
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET = do_HEAD = _serve  # noqa: N815 - the names that the base class looks for

            def log_message(self, *_: Any) -> None:
                """Keep the output quiet."""

        try:
            self._http = _Server((interface, port), Handler)
        except OSError as error:
            raise ReceiverError(
                f"CONTRACT_RECEIVER: port {port} of this machine cannot be used ({error.strerror or error}); name another"
            ) from error
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        self.url = f"http://{host}:{self._http.server_address[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()


def _body(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode("utf-8", "replace")


def _answer(directory: Path, path: str) -> tuple[int, str, float]:
    """Status, ``Location`` and the seconds before both."""
    file = directory / "answers"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for where, status, location, seconds in reversed(rows):
        if where == path:
            return int(status), str(location), float(seconds)
    return (500 if "fail" in path else 200), "", 0.0
