"""A docker on PATH that answers from a file, and settings for the tools under test."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from glitchtip_ops.docker_stack import Container, Stack
from glitchtip_ops.process import OpsError

from .fake_docker import Refusal, docker

FAKE_DOCKER = Path(__file__).with_name("fake_docker.py")


def program(directory: Path, name: str, script: Path) -> None:
    """Put ``script`` on PATH as ``name``, started as fast as Python can."""
    path = directory / name
    source = script.read_text().replace('os.environ["FAKE_WORLD"]', repr(str(directory.parent)))
    path.write_text(f"#!{sys.executable} -IS\n{source}")
    path.chmod(0o755)


def container(service: str, **changes: Any) -> dict[str, Any]:
    """What ``docker inspect`` answers for a healthy container of ``service``."""
    entry = {
        "Id": (service.encode().hex() * 64)[:64],
        "Name": f"/glitchtip-{service}-1",
        "Image": "sha256:" + "a" * 64,
        "RestartCount": 0,
        "State": {
            "Status": "running",
            "OOMKilled": False,
            "ExitCode": 0,
            "StartedAt": "2026-01-10T00:00:00Z",
            "Health": {"Status": "healthy"},
        },
        "Config": {"Image": f"{service}:1", "Labels": {"com.docker.compose.service": service}},
        "HostConfig": {"Memory": 100 * 2**20, "RestartPolicy": {"Name": "unless-stopped"}},
        "Mounts": [],
    }
    state = changes.pop("State", {})
    entry["State"].update(state)
    entry.update(changes)
    return entry


class World:
    """A host with a fake engine: ``state`` is what docker answers, ``calls`` what it was asked."""

    def __init__(self, root: Path, monkeypatch: Any) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.compose = root / "opt"
        self.compose.mkdir()
        (self.compose / ".env").write_bytes(
            b"SECRET_KEY=" + b"5" * 64 + b"\nPOSTGRES_PASSWORD=" + b"7" * 32 + b"\n"
        )
        (self.compose / "docker-compose.yml").write_text("services: {}\n")
        self.backups = root / "backups"
        self.state: dict[str, Any] = {
            "containers": [container(name) for name in ("web", "worker", "postgres", "valkey")],
            "stats": "10MiB / 100MiB",
            "logs": {},
            "valkey": {},
        }
        program(self.bin, "docker", FAKE_DOCKER)
        monkeypatch.setenv("PATH", f"{self.bin}:{os.environ['PATH']}")
        self.save()

    def save(self) -> None:
        """Let the fake programs see ``state``."""
        (self.root / "docker.json").write_text(json.dumps(self.state))

    def without_processes(self, monkeypatch: Any) -> None:
        """Answer for docker in this process: for tests of what is done with the answers."""
        root = self.root

        def call(
            _: Stack,
            argv: Sequence[str],
            labels: Mapping[str, str] | None = None,
            *,
            timeout: float = 1.0,
            stdin: str = "",
        ) -> str:
            assert timeout > 0
            filters = [f"--filter=label={k}={v}" for k, v in (labels or {}).items()]
            try:
                return docker(root, [*argv, *filters], stdin)
            except Refusal as refusal:
                raise OpsError(f"docker {argv[0]} failed: {refusal}") from None

        def database_run(
            stack: Stack,
            postgres: Container,
            argv: Sequence[str],
            *,
            timeout: float,
            stdin: IO[bytes] | None = None,
            stdout: IO[bytes] | None = None,
            text: str = "",
        ) -> str:
            assert timeout > 0
            given = stdin.read().decode() if stdin else text
            try:
                answer = docker(root, stack.database_argv(postgres, argv)[1:], given)
            except Refusal as refusal:
                raise OpsError(f"{argv[0]} failed with exit code 1: {refusal}") from None
            if stdout:
                stdout.write(answer.encode())
                return ""
            return answer

        @contextmanager
        def database_session(stack: Stack, postgres: Container, database: str | None = None) -> Iterator[Any]:
            argv = ["psql", *(["-d", database] if database else [])]

            def execute(sql: str) -> list[list[str]]:
                text = docker(root, stack.database_argv(postgres, argv)[1:], sql)
                return [line.split("\t") for line in text.splitlines()]

            yield SimpleNamespace(execute=execute)

        monkeypatch.setattr(Stack, "_call", call)
        monkeypatch.setattr(Stack, "database_run", database_run)
        monkeypatch.setattr(Stack, "database_session", database_session)

    def with_fake_postgres(self, tables: dict[str, int]) -> None:
        """Have a database whose tables have these numbers of rows."""
        self.state["postgres"] = "fake"
        self.save()
        self.set_cluster({"glitchtip": tables})

    def set_cluster(self, databases: dict[str, dict[str, int]], **knobs: Any) -> None:
        """Say what the databases hold, and how the tools misbehave."""
        document = {"databases": databases, "version": "17.6", **knobs}
        (self.root / "cluster.json").write_text(json.dumps(document))

    def cluster(self) -> dict[str, Any]:
        """What the databases hold now."""
        return json.loads((self.root / "cluster.json").read_text())

    def calls(self) -> list[list[str]]:
        """Arguments of every call of docker."""
        path = self.root / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def settings(self) -> Any:
        """Settings of the tools that point into this world."""
        return SimpleNamespace(
            migration_id="m1",
            url="http://127.0.0.1:9",
            public_url="http://localhost:9090",
            organization="ai-admin",
            project="ai-admin",
            project_id="1",
            compose_dir=self.compose,
            backup_dir=self.backups,
            state_dir=self.root / "state",
            stack_id="",
            run_id="",
            token="t" * 64,
            dsn="http://" + "d" * 32 + "@127.0.0.1:9/1",
        )
