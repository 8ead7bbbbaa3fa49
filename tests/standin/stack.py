"""The stand-in as four containers of the docker CLI: web, worker, PostgreSQL, Valkey, on one network. No
Compose.

The rig starts its "Sentry" this way, and ``make contract`` its servers. Everything carries the label
``owner=gtm`` and is named ``<name>-web``, ``<name>-worker``, ``<name>-postgres``, ``<name>-valkey``; volumes
``<name>-postgres`` and ``<name>-valkey``. Starting a stack that runs is cheap and changes nothing. By hand::

    python tests/standin/stack.py start gtm-contract --image I --postgres-image P --valkey-image V --port
    18080 python tests/standin/stack.py stop gtm-contract
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

LABEL = "owner=gtm"
PARTS = ("web", "worker", "postgres", "valkey")
CONTAINER_PORTS = {"5.2": 8080, "6.2": 8000}
DATABASE = "glitchtip"
#: As the role runs it: what is accepted survives a kill of Valkey but for a second.
VALKEY_COMMAND = ("valkey-server", "--appendonly", "yes", "--maxmemory-policy", "noeviction")


class StackError(Exception):
    """A stack cannot be started or asked; its text is one sentence for a person."""


@dataclass(frozen=True)
class Stack:
    """What to start.

    ``port`` is where the web server listens inside and outside: ``http://127.0.0.1:<published>``.
    ``domain`` is GLITCHTIP_DOMAIN, hence scheme, host and port of every DSN (default: the published
    address). ``alias`` is a further name of the web container on ``network``, where it listens on
    ``alias_port``.
    """

    name: str
    image: str
    postgres_image: str
    valkey_image: str
    line: str = "5.2"
    published: int = 0
    domain: str = ""
    network: str = ""
    alias: str = ""
    alias_port: int = 0
    address: str = "127.0.0.1"
    email: str = "admin@example.org"
    password: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The published address on this machine."""
        return f"http://{self.address}:{self.published}"

    @property
    def listen(self) -> int:
        """The port inside the web container."""
        return self.alias_port or CONTAINER_PORTS[self.line]

    def secret(self, purpose: str) -> str:
        """A password of this stack that a second call finds again (test equipment: no secret worth
        keeping)."""
        return hashlib.sha256(f"{self.name}:{purpose}".encode()).hexdigest()[:32]

    @property
    def superuser_password(self) -> str:
        """What ``email`` logs in with."""
        return self.password or self.secret("superuser")

    def settings(self) -> dict[str, str]:
        """The environment of web and worker."""
        return {
            "SECRET_KEY": self.secret("secret key"),
            "DATABASE_URL": (
                f"postgres://{DATABASE}:{self.secret('postgres')}@{self.name}-postgres:5432/{DATABASE}"
            ),
            "VALKEY_URL": f"redis://{self.name}-valkey:6379/0",
            "GLITCHTIP_DOMAIN": self.domain or self.url,
            "ENABLE_USER_REGISTRATION": "false",
            "GLITCHTIP_ALLOW_PRIVATE_IPS": "true",
            "GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS": "true",
            "PORT": str(self.listen),
            "GRANIAN_PORT": str(self.listen),
            "DATABASE_POOL_MIN_SIZE": "1",
            "DATABASE_POOL_MAX_SIZE": "4",
            # Without a name that begins with EMAIL_ the 6.2 line has no e-mail.
            "EMAIL_URL": "consolemail://",
            **self.environment,
        }


def docker(*arguments: str, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
    """Run the docker CLI; its output.

    Raises :class:`StackError` when it fails and ``check`` is set.
    """
    done = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if check and done.returncode:
        raise StackError(f"docker {arguments[0]} failed: {done.stderr.strip()[-400:]}")
    return done.stdout.strip()


def _running(name: str, image: str) -> bool:
    """Whether the container runs, of this very image; one of another image or a stopped one is removed."""
    found = docker("ps", "-a", "--filter", f"name=^{name}$", "--format", "{{.State}} {{.Image}}", check=False)
    if not found:
        return False
    state, _, used = found.partition(" ")
    if state == "running" and used == image:
        return True
    docker("rm", "-f", name)
    return False


def labels_of(name: str) -> list[str]:
    """The labels that Compose would give container ``<project>-<service>``, so that operators' tools find it."""
    project, _, service = name.rpartition("-")
    labels = {"project": project, "service": service, "oneoff": "False"}
    return [word for key, value in labels.items() for word in ("--label", f"com.docker.compose.{key}={value}")]


def _run(
    name: str,
    image: str,
    network: str,
    options: list[str],
    environment: Mapping[str, str],
    command: Sequence[str] = (),
) -> None:
    """Start a container. Values of its environment travel in ours, not on the command line."""
    if _running(name, image):
        return
    names = [part for key in environment for part in ("--env", key)]
    common = [
        "--detach",
        "--name",
        name,
        "--label",
        LABEL,
        *labels_of(name),
        "--network",
        network,
        "--restart",
        "unless-stopped",
    ]
    docker("run", *common, *names, *options, image, *command, environment=environment)


def start(stack: Stack) -> Stack:
    """Start what does not run, migrate, make the superuser, wait for the web server.

    Raises :class:`StackError`.
    """
    network = _start_databases(stack)
    _prepare(stack, network)
    _start_web(stack, network)
    fast = {
        "SERVER_ROLE": "worker_with_beat" if stack.line == "5.2" else "worker",
        "CELERY_WORKER_POOL": "threads",
        "CELERY_WORKER_CONCURRENCY": "2",
        "CELERY_WORKER_PREFETCH_MULTIPLIER": "50",
    }
    _run(f"{stack.name}-worker", stack.image, network, HARDENED, {**fast, **stack.settings()})
    _wait_for_web(stack)
    return stack


def start_empty(stack: Stack) -> None:
    """Migrate a new stack and start its web server while no user exists, registration and organizations closed.

    :func:`start` replaces that web server. Raises :class:`StackError`.
    """
    closed = {"ENABLE_USER_REGISTRATION": "false", "ENABLE_ORGANIZATION_CREATION": "false"}
    empty = replace(stack, environment={**stack.environment, **closed})
    network = _start_databases(empty)
    _prepare(empty, network, superuser=False)
    _start_web(empty, network)
    _wait_for_web(empty)


def end_empty(stack: Stack) -> None:
    """Remove the web server of :func:`start_empty`."""
    docker("rm", "-f", f"{stack.name}-web")


HARDENED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


def _start_web(stack: Stack, network: str) -> None:
    web = [*HARDENED, "--publish", f"{stack.address}:{stack.published}:{stack.listen}"]
    if stack.alias:
        web += ["--network-alias", stack.alias]
    curing = {"UWSGI_ADD_HEADER": "Connection: close"} if stack.line == "5.2" else {}
    _run(f"{stack.name}-web", stack.image, network, web, {**curing, **stack.settings(), "SERVER_ROLE": "web"})


def _start_databases(stack: Stack) -> str:
    """PostgreSQL and Valkey with their volumes; the network."""
    network = stack.network or f"{stack.name}-network"
    if not docker("network", "ls", "--quiet", "--filter", f"name=^{network}$"):
        docker("network", "create", "--label", LABEL, network)
    for part in ("postgres", "valkey"):
        docker("volume", "create", "--label", LABEL, f"{stack.name}-{part}")
    _run(
        f"{stack.name}-postgres",
        stack.postgres_image,
        network,
        ["--volume", f"{stack.name}-postgres:/var/lib/postgresql/data"],
        {
            "POSTGRES_USER": DATABASE,
            "POSTGRES_DB": DATABASE,
            "POSTGRES_PASSWORD": stack.secret("postgres"),
            "PGDATA": "/var/lib/postgresql/data/pgdata",
        },
    )
    volume = ["--volume", f"{stack.name}-valkey:/data"]
    _run(f"{stack.name}-valkey", stack.valkey_image, network, volume, {}, VALKEY_COMMAND)
    _wait_for_postgres(f"{stack.name}-postgres")
    return network


def _prepare(stack: Stack, network: str, *, superuser: bool = True) -> None:
    """Migrations and superuser in a container that ends; nothing when the web server runs already."""
    if _running(f"{stack.name}-web", stack.image):
        return
    environment = {
        **stack.settings(),
        "DJANGO_SUPERUSER_EMAIL": stack.email,
        "DJANGO_SUPERUSER_PASSWORD": stack.superuser_password,
    }
    names = [part for key in environment for part in ("--env", key)]
    command = "./bin/run-migrate.sh"
    if superuser:
        command += (
            " && { out=$(./manage.py createsuperuser --noinput 2>&1)"
            ' || case "$out" in *taken*) ;; *) echo "$out" >&2; exit 1 ;; esac; }'
        )
    arguments = ["--rm", "--label", LABEL, "--network", network, *names, stack.image, "sh", "-c", command]
    docker("run", *arguments, environment=environment)


def _wait_for_postgres(name: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    # The port answers only after the first initialisation, which listens on the socket alone.
    while time.monotonic() < end:
        probe = ["docker", "exec", name, "pg_isready", "-q", "-h", "127.0.0.1", "-U", DATABASE]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.3)
    raise StackError(
        f"{name} is not ready after {seconds:.0f} s: {_last_lines(name)}"
    )


def _wait_for_web(stack: Stack, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{stack.url}/api/settings/", timeout=3) as answer:
                json.load(answer)
                return
        except (urllib.error.URLError, OSError, ValueError):
            time.sleep(0.2)
    raise StackError(f"{stack.url} does not answer after {seconds:.0f} s: {_last_lines(f'{stack.name}-web')}")


def _last_lines(name: str) -> str:
    """The end of what a container printed, on both streams."""
    shown = subprocess.run(
        ["docker", "logs", "--tail", "5", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return shown.stdout.strip()


def stop(name: str, *, volumes: bool = True) -> None:
    """Remove the containers of a stack, its own network and (by default) its volumes. Harmless when it is
    gone."""
    for part in PARTS:
        if docker("ps", "-aq", "--filter", f"name=^{name}-{part}$", check=False):
            docker("rm", "-f", "-v", f"{name}-{part}")
    if volumes:
        for part in ("postgres", "valkey"):
            if docker("volume", "ls", "-q", "--filter", f"name=^{name}-{part}$", check=False):
                docker("volume", "rm", f"{name}-{part}")
    if docker("network", "ls", "-q", "--filter", f"name=^{name}-network$", check=False):
        docker("network", "rm", f"{name}-network")


def main(arguments: list[str] | None = None) -> int:
    """Start or stop a stack; the exit status."""
    parser = argparse.ArgumentParser(description="Run the GlitchTip stand-in as containers.")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start")
    starting.add_argument("name")
    for option in ("--image", "--postgres-image", "--valkey-image"):
        starting.add_argument(option, required=True)
    starting.add_argument("--line", default="5.2", choices=sorted(CONTAINER_PORTS))
    starting.add_argument("--port", type=int, required=True, help="published on 127.0.0.1")
    starting.add_argument("--domain", default="", help="GLITCHTIP_DOMAIN")
    starting.add_argument("--network", default="")
    starting.add_argument("--alias", default="", help="a further name on the network")
    starting.add_argument("--alias-port", type=int, default=0, help="port inside, with --alias")
    stopping = commands.add_parser("stop")
    stopping.add_argument("name")
    options = parser.parse_args(arguments)
    try:
        if options.command == "stop":
            stop(options.name)
            return 0
        stack = start(
            Stack(
                options.name,
                options.image,
                options.postgres_image,
                options.valkey_image,
                options.line,
                options.port,
                options.domain,
                options.network,
                options.alias,
                options.alias_port,
            )
        )
    except StackError as error:
        print(f"stand-in: {error}", file=sys.stderr)
        return 1
    print(f"{stack.url}  {stack.email}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
