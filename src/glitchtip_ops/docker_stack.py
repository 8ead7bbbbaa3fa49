"""The containers of the GlitchTip stack, seen through the Docker command line.

Containers are found by the label that Compose gives them, so nothing here reads (or needs the right to read)
the Compose file and its secrets. All sizes are bytes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from glitchtip_core import memory as core
from glitchtip_core.process import run_raw

from .process import OpsError, run

_LIST_TIMEOUT = 30.0
_ANSWER_TIMEOUT = (
    900.0  # seconds for one answer of the database; counting the rows of a large one takes minutes
)
#: Docker's own, when neither image nor Compose file says how long a stop may take (seconds).
_ENGINE_STOP_TIMEOUT = 10
_UNITS = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
# For psql, pg_dump and pg_restore in the official image's container: libpq's variables from the image's own.
_WITH_DATABASE = (
    'PGUSER="${POSTGRES_USER:-postgres}"; PGDATABASE="${POSTGRES_DB:-$PGUSER}"; '
    'PGPASSWORD="${POSTGRES_PASSWORD:-}"; '
    'if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"; fi; '
    'export PGUSER PGDATABASE PGPASSWORD; exec "$@"'
)


@dataclass(frozen=True)
class Container:
    """One container of the stack. ``health`` is None when the image and the Compose file define no check."""

    service: str
    name: str
    id: str
    state: str
    health: str | None
    restarts: int
    oom_killed: bool
    exit_code: int
    started_at: str
    image: str
    image_id: str
    memory_limit: int
    finished_job: bool
    pid: int = 0
    stop_timeout: int = 10

    @property
    def running(self) -> bool:
        """Whether its main process runs (a paused or restarting container does not)."""
        return self.state == "running"

    @property
    def well(self) -> bool:
        """Running and not unhealthy; a container that is still starting is not yet well."""
        return self.running and self.health in (None, "healthy")


def parse_container(entry: Mapping[str, Any]) -> Container:
    """One entry of ``docker inspect``. Raises OpsError when it does not look like one."""
    try:
        state, config, host = entry["State"], entry["Config"], entry["HostConfig"]
        policy = str(host.get("RestartPolicy", {}).get("Name") or "no")
        health = state.get("Health") or {}
        return Container(
            service=str(config["Labels"]["com.docker.compose.service"]),
            name=str(entry["Name"]).lstrip("/"),
            id=str(entry["Id"]),
            state=str(state["Status"]),
            health=str(health["Status"]) if health.get("Status") not in (None, "none") else None,
            restarts=int(entry.get("RestartCount", 0)),
            oom_killed=bool(state.get("OOMKilled", False)),
            exit_code=int(state.get("ExitCode", 0)),
            started_at=str(state.get("StartedAt", "")),
            image=str(config.get("Image", "")),
            image_id=str(entry.get("Image", "")),
            memory_limit=int(host.get("Memory") or 0),
            finished_job=policy == "no" and state["Status"] == "exited" and state.get("ExitCode") == 0,
            pid=int(state.get("Pid") or 0),
            stop_timeout=int(config.get("StopTimeout") or _ENGINE_STOP_TIMEOUT),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OpsError(f"docker inspect answered something unexpected ({type(error).__name__})") from None


def read_oom_kills(container: Container) -> int | None:
    """Processes of ``container`` that the kernel killed for lack of memory since its start; None: not known.

    Docker's own flag tells that it happened at all; this counter also tells how often.
    """
    return core.read_oom_kills(container.pid)


def parse_size(text: str) -> int:
    """``12.5MiB`` and the like, as ``docker stats`` prints it. Raises OpsError for anything else."""
    match = re.fullmatch(r"([0-9.]+)\s*([A-Za-z]+)", text.strip())
    if match is None or match[2] not in _UNITS:
        raise OpsError(f"docker stats printed a size that is not one: {text[:40]!r}")
    return int(float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True)
class Usage:
    """What a container uses now: ``memory`` in bytes without page cache, ``cpu`` in percent of one core."""

    memory: int
    cpu: float | None


def _percent(text: str) -> float | None:
    try:
        return float(text.strip().rstrip("%"))
    except ValueError:
        return None


class Stack:
    """The Compose project ``project`` on this host."""

    def __init__(self, project: str = "glitchtip", docker: str = "docker") -> None:
        self.project = project
        self.docker = docker

    def containers(self) -> list[Container]:
        """All containers of the project but one-off runs and jobs that ended well, sorted by service.

        Raises OpsError when the engine does not answer.
        """
        listed = self._call(
            ["ps", "--all", "--quiet", "--no-trunc"],
            labels={"com.docker.compose.project": self.project, "com.docker.compose.oneoff": "False"},
        )
        ids = listed.split()
        if not ids:
            return []
        try:
            entries = json.loads(self._call(["inspect", "--type", "container", *ids]))
        except ValueError:
            raise OpsError("docker inspect did not answer JSON") from None
        found = [parse_container(entry) for entry in entries]
        return sorted((c for c in found if not c.finished_job), key=lambda c: (c.service, c.name))

    def container(self, service: str) -> Container:
        """The running container of ``service``. Raises OpsError when there is none."""
        for candidate in self.containers():
            if candidate.service == service and candidate.running:
                return candidate
        raise OpsError(f"no running container of service {service} in the Compose project {self.project}")

    def usage(self, containers: Sequence[Container]) -> dict[str, Usage]:
        """What each running container uses, by name, as ``docker stats`` counts."""
        ids = [container.id for container in containers if container.running]
        if not ids:
            return {}
        text = self._call(
            ["stats", "--no-stream", "--format", "{{.Name}}\t{{.MemUsage}}\t{{.CPUPerc}}", *ids]
        )
        used: dict[str, Usage] = {}
        for line in text.splitlines():
            name, memory, cpu = [*line.split("\t"), "", ""][:3]
            if name and "/" in memory and not memory.startswith("--"):
                used[name] = Usage(parse_size(memory.split("/", 1)[0]), _percent(cpu))
        return used

    def memory_used(self, containers: Sequence[Container]) -> dict[str, int]:
        """Bytes used by each running container by name, without page cache."""
        return {name: usage.memory for name, usage in self.usage(containers).items()}

    def root_directory(self) -> Path:
        """Where the engine keeps images, containers and volumes. Raises OpsError when it does not answer."""
        text = self._call(["info", "--format", "{{.DockerRootDir}}"]).strip()
        if not text.startswith("/"):
            raise OpsError("docker info did not tell where the engine keeps its data")
        return Path(text)

    def stop(self, container: Container, grace: int) -> int:
        """Stop ``container``, killed after ``grace`` seconds; the exit code of its process (137: killed).

        Harmless when it does not run. It stays stopped, also over a reboot, until :meth:`start`.
        """
        self._call(["stop", "-t", str(grace), container.id], timeout=grace + _LIST_TIMEOUT)
        return int(self._call(["inspect", "--format", "{{.State.ExitCode}}", container.id]).strip() or 0)

    def start(self, container: Container) -> None:
        """Start a stopped container; harmless when it runs."""
        self._call(["start", container.id], timeout=2 * _LIST_TIMEOUT)

    def restart(self, container: Container, grace: int) -> None:
        """Stop and start ``container``, killed after ``grace`` seconds."""
        self._call(["restart", "-t", str(grace), container.id], timeout=grace + 2 * _LIST_TIMEOUT)

    def environment(self, container: Container, names: Sequence[str]) -> dict[str, str]:
        """The variables ``names`` of the container's environment, those that are set; no others are kept."""
        text = self._call(["inspect", "--format", "{{json .Config.Env}}", container.id])
        try:
            pairs = [str(each).partition("=") for each in json.loads(text) or []]
        except (ValueError, TypeError):
            raise OpsError("docker inspect did not answer JSON") from None
        return {name: value for name, _, value in pairs if name in names}

    def workers(self, containers: Sequence[Container]) -> list[Container]:
        """The containers that process events: service ``worker``, else ``web`` where it is all in one process (6.x).

        A web server that is not the worker is never among them, also while there is no worker at all: what has to
        stop the worker would stop the web server.
        """
        found = [c for c in containers if c.service == "worker"]
        return found or [c for c in containers if c.service == "web" and self._is_all_in_one(c)]

    def _is_all_in_one(self, web: Container) -> bool:
        return self.environment(web, ["SERVER_ROLE"]).get("SERVER_ROLE") == "all_in_one"

    def services(self, named: Sequence[str], containers: Sequence[Container]) -> tuple[str, ...]:
        """``named`` without ``worker`` where the web server's process is the worker too (6.x, all in one)."""
        if "worker" not in named or any(container.service == "worker" for container in containers):
            return tuple(named)
        web = next((container for container in containers if container.service == "web"), None)
        if web is None or not self._is_all_in_one(web):
            return tuple(named)
        return tuple(name for name in named if name != "worker")

    def log_lines(self, container: Container, since: str, until: str | None = None) -> list[str]:
        """Lines that ``container`` wrote from ``since`` to ``until`` (RFC 3339; None: now), both streams."""
        bounds = ["--since", since, *(["--until", until] if until else [])]
        done = run([self.docker, "logs", *bounds, container.id], timeout=_LIST_TIMEOUT)
        if done.code != 0:
            raise OpsError(f"docker logs of {container.service} failed: {done.reason}")
        return (done.stdout + done.stderr).splitlines()

    def execute(self, container: Container, argv: Sequence[str], stdin: str = "") -> str:
        """Run ``argv`` inside ``container`` and return what it printed. Raises OpsError when it fails."""
        return self._call(["exec", *(["-i"] if stdin else []), container.id, *argv], stdin=stdin)

    def image_digests(self, containers: Sequence[Container]) -> dict[str, dict[str, str]]:
        """Per service: the image's name, local id, and registry digest (empty when it never had one)."""
        result: dict[str, dict[str, str]] = {}
        for container in containers:
            text = self._call(["image", "inspect", "--format", "{{json .RepoDigests}}", container.image_id])
            try:
                digests = json.loads(text) or []
            except ValueError:
                digests = []
            digest = str(digests[0]).rpartition("@")[2] if digests else ""
            result[container.service] = {"image": container.image, "id": container.image_id, "digest": digest}
        return result

    def volume_source(self, container: Container, destination: str) -> Path | None:
        """Where the host keeps what ``container`` sees at ``destination``; None when that cannot be told."""
        text = self._call(["inspect", "--format", "{{json .Mounts}}", container.id])
        try:
            mounts = json.loads(text)
        except ValueError:
            return None
        for mount in mounts if isinstance(mounts, list) else []:
            if destination.startswith(str(mount.get("Destination", "\0"))) and mount.get("Source"):
                return Path(str(mount["Source"]))
        return None

    def database_argv(self, container: Container, argv: Sequence[str]) -> list[str]:
        """The whole command that runs ``argv`` (psql, pg_dump, ...) in the database container.

        User, database and password come from the container's own environment; none is in the argument list.
        """
        return [self.docker, "exec", "-i", container.id, "sh", "-c", _WITH_DATABASE, "sh", *argv]

    def database_run(
        self,
        container: Container,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        text: str = "",
    ) -> str:
        """Run ``argv`` in the database container and return what it printed.

        ``stdin`` and ``stdout`` connect files instead of ``text`` and the returned string.
        Raises OpsError with the first line of its complaint when it fails or takes longer than ``timeout``.
        """
        name = argv[0]
        try:
            done = run_raw(
                self.database_argv(container, argv),
                environment=os.environ,
                timeout=timeout,
                stdin=stdin if stdin is not None else text.encode(),
                stdout=stdout,
            )
        except OpsError as error:
            raise OpsError(f"{name}: {error}") from None
        if done.code != 0:
            complaint = done.errors.decode("utf-8", "replace").strip().splitlines()
            reason = complaint[0][:300] if complaint else "no message"
            raise OpsError(f"{name} failed with exit code {done.code}: {reason}")
        return done.output.decode("utf-8", "replace")

    @contextmanager
    def database_session(
        self, container: Container, database: str | None = None
    ) -> Iterator[DatabaseSession]:
        """A held psql session in the database container; ended when the block is left.

        ``database`` is another one than the container's own.
        """
        argv = ["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
        argv += ["-d", database] if database else []
        with subprocess.Popen(
            self.database_argv(container, argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                yield DatabaseSession(process)
            finally:
                if process.stdin is not None and not process.stdin.closed:
                    with suppress(BrokenPipeError):
                        process.stdin.close()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()

    def _call(
        self,
        argv: Sequence[str],
        labels: Mapping[str, str] | None = None,
        *,
        timeout: float = _LIST_TIMEOUT,
        stdin: str = "",
    ) -> str:
        filters = [f"--filter=label={name}={value}" for name, value in (labels or {}).items()]
        done = run([self.docker, *argv, *filters], timeout=timeout, stdin=stdin)
        if done.code != 0:
            raise OpsError(f"docker {argv[0]} failed: {done.reason}")
        return done.stdout


class DatabaseSession:
    """One psql process that keeps its transaction open between statements."""

    _MARK = "--end-of-answer--"

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def execute(self, sql: str, timeout: float = _ANSWER_TIMEOUT) -> list[list[str]]:
        r"""Run ``sql`` (statements end with ``;`` or ``\gexec``) and return its rows as lists of columns.

        Raises OpsError with PostgreSQL's message when a statement fails: psql ends then (ON_ERROR_STOP). After
        ``timeout`` seconds without the whole answer the session is ended, which is an OpsError, too.
        """
        ended = threading.Event()

        def end() -> None:
            ended.set()
            self._process.kill()

        timer = threading.Timer(timeout, end)
        timer.daemon = True
        timer.start()
        try:
            return self._answer(sql)
        except OpsError:
            if ended.is_set():
                raise OpsError(
                    f"the database did not answer within {timeout:g} s: see its container's log and pg_stat_activity for "
                    "what holds it up, then run it again"
                ) from None
            raise
        finally:
            timer.cancel()

    def _answer(self, sql: str) -> list[list[str]]:
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        try:
            self._process.stdin.write(f"{sql}\n\\echo {self._MARK}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise OpsError(f"the database session ended: {self._complaint()}") from None
        rows: list[list[str]] = []
        for line in self._process.stdout:
            if line.rstrip("\n") == self._MARK:
                return rows
            rows.append(line.rstrip("\n").split("\t"))
        raise OpsError(f"the database session ended: {self._complaint()}")

    def _complaint(self) -> str:
        assert self._process.stderr is not None  # noqa: S101
        lines = self._process.stderr.read().strip().splitlines()
        return lines[0][:300] if lines else "no message"
