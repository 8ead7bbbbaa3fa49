"""A stack whose Valkey is a real server on a socket, and whose worker and database are played."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unit.ops_support import container

from glitchtip_ops.docker_stack import Container, Stack, parse_container
from glitchtip_ops.process import OpsError

SERVER = shutil.which("valkey-server") or shutil.which("redis-server")
CLI = shutil.which("valkey-cli") or shutil.which("redis-cli") or ""


def event_id(number: int) -> str:
    """The id of a test event."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def kombu(
    number: int, *, task: str = "apps.event_ingest.tasks.ingest_event", received: float = 1.0, **extra: Any
) -> str:
    """A message of GlitchTip 5.2 as it lies in list ``celery``."""
    payload = {"event_id": {"__type__": "uuid", "__value__": {"hex": event_id(number)}}, "type": "error"}
    argument = {"project_id": 1, "received": received, "payload": payload}
    body = [[argument], {}, {"callbacks": None}] if "ingest" in task else [[number], {}, {}]
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-type": "application/json",
            "headers": {"task": task, "id": f"task-{number}", "eta": extra.pop("eta", None), **extra},
            "properties": {"delivery_tag": f"tag-{number}", "delivery_info": {"routing_key": "celery"}},
        }
    )


def vtask(number: int, **changes: Any) -> bytes:
    """A dead letter of django-vtasks 3.1.0."""
    task = {
        "id": f"task-{number}",
        "func": "apps.event_ingest.tasks.ingest_event",
        "queue": "ingest",
        "ts": 5.0,
        "args": [
            {
                "received": "2026-01-10T00:00:00+00:00",
                "payload": {"event_id": event_id(number), "type": "error"},
            }
        ],
        "error_msg": "connection failed",
        "failed_at": 6.0,
    }
    return json.dumps({**task, **changes}).encode()


class PlayedStack(Stack):
    """Valkey is real; the worker takes and stores when it is started, as Celery and GlitchTip 5.2 do."""

    def __init__(self, root: Path) -> None:
        super().__init__("played")
        self.socket = root / "valkey.sock"
        assert SERVER is not None
        self.server = subprocess.Popen(
            [
                SERVER,
                "--port",
                "0",
                "--unixsocket",
                str(self.socket),
                "--save",
                "",
                "--dir",
                str(root),
                "--appendonly",
                "yes",
            ],
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + 10
        while not self.socket.exists() and time.monotonic() < end:
            time.sleep(0.02)
        self.entries = {name: container(name) for name in ("postgres", "valkey", "web", "worker")}
        self.entries["worker"]["State"]["StartedAt"] = datetime.now(UTC).isoformat()
        self.rows: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.excess: dict[int, int] = {}
        self.writes: list[str] = []  # answers to who asks for the statements at work, then none
        self.on_count = lambda: None
        self.log: list[str] = []
        self.tools = [Path(CLI).name]
        self.stuck = False
        self.can_decode = True
        self.exit_code = 0

    def close(self) -> None:
        """End the server."""
        self.server.kill()
        self.server.wait()

    def valkey(self, *argv: str | bytes) -> str:
        """A command to the real server."""
        argv_ = [CLI, "-s", str(self.socket), "--raw", *argv]
        return (
            subprocess.run(argv_, check=True, capture_output=True).stdout.decode("utf-8", "replace").strip()
        )

    def unacked(self, number: int, *, taken: float | None = None, **extra: Any) -> None:
        """Leave a message in the hands of the worker before this one (or of who took it then)."""
        taken = time.time() - 60 if taken is None else taken
        self.valkey(
            "HSET", "unacked", f"tag-{number}", json.dumps([json.loads(kombu(number, **extra)), "", "celery"])
        )
        self.valkey("ZADD", "unacked_index", str(taken), f"tag-{number}")

    def containers(self) -> list[Container]:
        """As inspected."""
        return [parse_container(entry) for entry in self.entries.values()]

    def execute(self, _: Container, argv: Sequence[str], stdin: str = "") -> str:
        """Commands to Valkey are real."""
        if argv[0] in ("valkey-cli", "redis-cli"):
            if argv[0] not in self.tools:
                raise OpsError(f'docker exec failed: exec: "{argv[0]}": executable file not found in $PATH')
            done = subprocess.run(
                [CLI, "-s", str(self.socket), *argv[1:]],
                capture_output=True,
                check=False,
                input=stdin.encode(),
            )
            return done.stdout.decode("utf-8", "replace")
        if argv[0] == "python" and self.can_decode:
            return "null\n" * len(stdin.splitlines())
        raise OpsError(f"docker exec failed: no {argv[0]}")

    def environment(self, *_: Any) -> dict[str, str]:
        """None."""
        return {}

    def stop(self, container: Container, grace: int) -> int:
        """Stop it."""
        assert grace >= 30
        self.log.append(f"stop {container.service}")
        self.entries[container.service]["State"].update(Status="exited", ExitCode=self.exit_code)
        return self.exit_code

    def start(self, container: Container) -> None:
        """Start it; a worker restores what is older than an hour and stores everything."""
        entry = self.entries[container.service]
        if entry["State"]["Status"] == "running":
            return
        self.log.append(f"start {container.service}")
        entry["State"].update(Status="running", StartedAt=datetime.now(UTC).isoformat())
        if container.service == "worker" and not self.stuck:
            self.work(time.time())

    def restart(self, container: Container, grace: int) -> None:
        """Only noted."""
        assert grace >= 30
        self.log.append(f"restart {container.service}")

    def work(self, now: float) -> None:
        """What a worker's start does, kombu 5.5.4 and GlitchTip 5.2."""
        if self.valkey("EXISTS", "unacked_mutex") != "1":
            for tag in self.valkey("ZRANGEBYSCORE", "unacked_index", "0", str(now - 3600)).split():
                body = self.valkey("HGET", "unacked", tag)
                self.valkey("HDEL", "unacked", tag)
                self.valkey("ZREM", "unacked_index", tag)
                if body:
                    message = json.loads(body)[0]
                    message["headers"]["redelivered"] = True
                    self.valkey("RPUSH", "celery", json.dumps(message))
        while body := self.valkey("RPOP", "celery"):
            arguments = json.loads(base64.b64decode(json.loads(body)["body"]))[0]
            if isinstance(arguments[0], dict):
                number = arguments[0]["payload"]["event_id"]["__value__"]["hex"]
                self.rows[number] = 1
                self.counts[number] = self.counts.get(number, 0) + 1

    def database_run(self, *_: Any, timeout: float, text: str = "", **__: Any) -> str:
        """The ids that are stored."""
        assert timeout > 0
        if self.entries["postgres"]["State"]["Status"] != "running":
            raise OpsError("psql failed with exit code 2: could not connect")
        assert text == "SELECT 1;" or "SET statement_timeout" in text, "the server would go on with it for ever"
        if "pg_stat_activity" in text:
            return self.writes.pop(0) if self.writes else ""
        if "SELECT issue.id" in text:
            self.on_count()
            return "".join(f"{number} {excess}\n" for number, excess in self.excess.items())
        if "BEGIN;" in text:
            for more, issue in re.findall(r"SET count = count - (\d+) WHERE id = (\d+);", text):
                self.excess[int(issue)] -= int(more)
            return ""
        if "{" not in text:
            return "1\n"
        asked = text.split("{", 1)[1].split("}", 1)[0].split(",")
        return "".join(f"{each[:8]}-{each[8:]}\n" for each in asked if each in self.rows)
