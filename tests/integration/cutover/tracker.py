"""A tracker in one process: projects, keys, events and the envelope endpoint, with faults on request."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass
class FakeTracker:
    """One project of one organization. ``stores=False`` accepts events and loses them, like a dead worker."""

    key: str
    project_id: str = "1"
    token: str = "tokentokentokentokentokentokentoken0"
    organization: str = "ai-admin"
    project: str = "ai-admin"
    stores: bool = True
    fault: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    posts: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> FakeTracker:
        tracker = self

        class Handler(BaseHTTPRequestHandler):
            wbufsize = -1
            disable_nagle_algorithm = True

            def log_message(self, *_arguments: object) -> None:
                """Quiet."""

            def do_GET(self) -> None:
                tracker.requests.append(self.path)
                self._answer(*tracker.get(self.path, self.headers.get("Authorization", "")))

            def do_POST(self) -> None:
                body = self._chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else b""
                body = body or self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self._answer(*tracker.post(self.path, self.headers.get("X-Sentry-Auth", ""), body))

            def _chunks(self) -> bytes:
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def _answer(self, status: int, data: Any) -> None:
                html = isinstance(data, str)
                body = data.encode() if html else json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if html else "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"

    @property
    def dsn(self) -> str:
        return f"http://{self.key}@{self.netloc}/{self.project_id}"

    def get(self, path: str, authorization: str) -> tuple[int, Any]:
        base = f"/api/0/projects/{self.organization}/{self.project}/"
        if self.fault == "html":
            return 200, "<!doctype html><title>GlitchTip</title>"
        if self.fault == "500":
            return 500, {"detail": "broken"}
        if authorization != f"Bearer {self.token}":
            return 401, {"detail": "Unauthorized"}
        if path == base:
            return 200, {"id": self.project_id, "slug": self.project}
        if path == f"{base}keys/":
            dashed = f"{self.key[:8]}-{self.key[8:12]}-{self.key[12:16]}-{self.key[16:20]}-{self.key[20:]}"
            return 200, [{"id": dashed, "public": dashed, "projectID": int(self.project_id)}]
        if path == f"{base}events/":
            return 200, list(reversed(self.events))[:50]
        if path.startswith(f"{base}events/"):
            wanted = path[len(base) + len("events/") :].strip("/")
            found = [event for event in self.events if event["eventID"] == wanted]
            return (200, found[0]) if found else (404, {"detail": "Not Found"})
        return 404, {"detail": "Not Found"}

    def post(self, path: str, auth: str, body: bytes) -> tuple[int, Any]:
        self.posts.append(path)
        if path.split("?")[0] != f"/api/{self.project_id}/envelope/" or self.key not in auth + path:
            return 403, {"detail": "Denied"}
        lines = body.split(b"\n")
        header = json.loads(lines[0])
        for item, payload in itertools.pairwise(lines[1:]):
            if self.stores and item.startswith(b"{") and json.loads(item).get("type") == "event":
                self._store(json.loads(payload))
        return 200, {"id": header.get("event_id")}

    def _store(self, event: dict[str, Any]) -> None:
        self.events.append(
            {
                "eventID": event["event_id"],
                "dateCreated": datetime.fromtimestamp(event["timestamp"], UTC).isoformat(),
                "tags": [{"key": key, "value": value} for key, value in event.get("tags", {}).items()],
            }
        )
