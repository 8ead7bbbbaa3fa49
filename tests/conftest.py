"""Fixtures for all tests: Ansible modules run outside a collection, and a scripted HTTP server."""

from __future__ import annotations

import contextlib
import importlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
import yaml
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[1]
# `from ansible.module_utils.glitchtip_api import ...` finds src/, as `module_utils = src` does in ansible.cfg
if str(ROOT / "src") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(ROOT / "src"))
# The same documents in a tenth of the time; tests read hundreds.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[misc]


class ModuleEndError(Exception):
    """Carries what exit_json or fail_json was given."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(str(result))
        self.result = result


@pytest.fixture
def run_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """run_module("glitchtip_team", _check=False, **options) -> result, in this process."""
    warnings: list[str] = []

    def exit_json(_self: Any, **result: Any) -> None:
        raise ModuleEndError({"changed": False, **result, "failed": False, "warnings": list(warnings)})

    def fail_json(_self: Any, msg: str, **result: Any) -> None:
        raise ModuleEndError({"changed": False, "msg": msg, **result, "failed": True})

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", exit_json)
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", fail_json)
    monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _self, text, **_: warnings.append(text))

    def run(name: str, /, _check: bool = False, **options: Any) -> dict[str, Any]:
        warnings.clear()
        if _check:
            options["_ansible_check_mode"] = True
        module = importlib.import_module(name)
        with patch_module_args(options), pytest.raises(ModuleEndError) as ended:
            module.main()
        return ended.value.result

    return run


_START = """
import json, runpy, sys
import ansible.module_utils
ansible.module_utils.__path__.append(sys.argv[1])
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_path(sys.argv[2], run_name="__main__")
"""


@pytest.fixture
def run_module_process() -> Callable[..., tuple[dict[str, Any], str]]:
    """Run a module as a process of its own: (parsed result, everything it printed). Nothing is patched."""

    def run(name: str, /, _check: bool = False, **options: Any) -> tuple[dict[str, Any], str]:
        arguments = {"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": _check, "_ansible_diff": True}}
        done = subprocess.run(
            [sys.executable, "-c", _START, str(ROOT / "src"), str(ROOT / "library" / f"{name}.py")],
            input=json.dumps(arguments).encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        printed = (done.stdout + done.stderr).decode()
        assert done.stdout, printed
        return json.loads(done.stdout), printed

    return run


@dataclass
class Asked:
    """One request as the server saw it; `connection` counts the connections, from 1."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """One scripted answer.

    `drop` closes the connection instead; `delay` waits first (seconds). `cut` announces so many bytes more than
    are sent, or, with `chunked`, leaves the last chunk out; `pieces` of the body are sent `pause` seconds apart.
    `wire` is sent in place of an answer, byte for byte. `hang_up` closes the connection afterwards, unsaid.
    """

    status: int = 200
    data: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    content_type: str = "application/json"
    drop: bool = False
    delay: float = 0.0
    cut: int = 0
    chunked: bool = False
    pieces: int = 1
    pause: float = 0.0
    wire: bytes | None = None
    hang_up: bool = False

    def parts(self, body: bytes) -> list[bytes]:
        """The body in about as many pieces as wanted."""
        size = max(1, len(body) // self.pieces)
        return [body[start : start + size] for start in range(0, len(body), size)]


class Script:
    """Answers in the given order, or from a function; fails the test's request with 418 when it runs dry."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: list[Reply] = []
        self.answer: Callable[[Asked], Reply] | None = None
        self.url = ""
        self.connections = 0

    def then(self, status: int = 200, data: Any = None, **more: Any) -> Script:
        self.replies.append(Reply(status, data, **more))
        return self

    def html(self, status: int = 200) -> Script:
        return self.then(status, raw=b"<!doctype html><h1>Page</h1>", content_type="text/html; charset=utf-8")

    @property
    def lines(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.asked]


@pytest.fixture
def scripted_server() -> Iterator[Script]:
    """A local HTTP server that answers what a test scripts, and remembers what it was asked."""
    script = Script()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            with lock:
                script.connections += 1
                self.number = script.connections
            super().setup()

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body, self.number)
            script.asked.append(asked)
            if script.answer:
                reply = script.answer(asked)
            else:
                reply = script.replies.pop(0) if script.replies else Reply(418, {"detail": "script ran dry"})
            time.sleep(reply.delay)
            if reply.drop:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            raw = reply.raw
            if raw is None:
                raw = b"" if reply.data is None else json.dumps(reply.data).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client gave up
                if reply.wire is not None:
                    self.wfile.write(reply.wire)
                else:
                    self.answer(reply, raw)
            if reply.wire is not None or reply.cut or reply.hang_up:
                self.close_connection = True

        def answer(self, reply: Reply, raw: bytes) -> None:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            if reply.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(raw) + reply.cut))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            for part in reply.parts(raw):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if reply.chunked else part)
                time.sleep(reply.pause)
            if reply.chunked and not reply.cut:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            """Keep the test output quiet."""

    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.serve)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    script.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield script
    http.shutdown()
    http.server_close()
