"""The stack exactly as role glitchtip deploys it (images, commands, environment, limits), as containers of the docker CLI: no Compose needed.

The role's Compose template is rendered by Ansible; each service becomes one ``docker run``. All run on one CPU. Used by the drill of the
backlog and by ``bench.backlog``, on the stand-in or on a real image (``GLITCHTIP_IMAGE``, ``GLITCHTIP_VERSION``).
"""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader import AnsibleCollectionConfig
from rig import images, subject
from rig.shell import ROOT, RigError, run, wait_for

ROLE = ROOT / "roles/glitchtip"
EMAIL = "owner@example.org"
_LABEL = "owner=gtm"
_PLACE = {"postgres": "/var/lib/postgresql/data", "valkey": "/data"}


def load_plugins() -> None:
    """Let templates of this process use Ansible's lookups and the filters of this repository; once is enough."""
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader()
    filter_loader.add_directory(str(ROOT / "filter_plugins"))


def trusted(value: Any) -> Any:
    """The same structure with its strings marked as templates, as Ansible does for files of a role."""
    if isinstance(value, dict):
        return {name: trusted(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [trusted(entry) for entry in value]
    return trust_as_template(value) if isinstance(value, str) else value


def rendered(variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the role's Compose file, its sizing) for these variables; values of ``.env`` stay ``${NAME:?}``."""
    load_plugins()
    known: dict[str, Any] = {"ansible_managed": "rendered by a test", "role_path": str(ROLE)}
    for part in ("defaults", "vars"):
        known |= yaml.safe_load((ROLE / part / "main.yml").read_text(encoding="utf-8"))
    templar = Templar(loader=DataLoader(), variables=trusted(known | dict(variables)))
    source = (ROLE / "templates/docker-compose.yml.j2").read_text(encoding="utf-8")
    found = yaml.safe_load(templar.template(trust_as_template("#jinja2: trim_blocks:True\n" + source)))
    sizing = templar.template(trust_as_template("{{ __glitchtip_sizing }}"))
    assert isinstance(found, dict)
    assert isinstance(sizing, dict)
    return found, sizing


def run_arguments(service: Mapping[str, Any], limits: Mapping[str, str]) -> list[str]:
    """Options of ``docker run`` for one service; environment, image and command are not among them."""
    memory = limits.get("memory", service["deploy"]["resources"]["limits"]["memory"])
    found = ["--memory", memory, "--memory-swap", memory]
    found += ["--cpus", service["deploy"]["resources"]["limits"]["cpus"], "--cpuset-cpus", "0"]
    found += ["--cpu-shares", str(service["cpu_shares"])]
    found += ["--pids-limit", str(service["deploy"]["resources"]["limits"]["pids"])]
    found += ["--restart", service["restart"]]
    found += ["--read-only"] if service.get("read_only") else []
    for option, key in (
        ("--cap-drop", "cap_drop"),
        ("--cap-add", "cap_add"),
        ("--tmpfs", "tmpfs"),
        ("--security-opt", "security_opt"),
    ):
        found += [word for value in service.get(key, []) for word in (option, value)]
    found += ["--shm-size", service["shm_size"]] if "shm_size" in service else []
    if "stop_grace_period" in service:
        found += ["--stop-timeout", service["stop_grace_period"].removesuffix("s")]
    check = service["healthcheck"]
    words = [word.replace("$$", "$") for word in check["test"][1:]]
    found += ["--health-cmd", shlex.join(words), "--health-interval", "10s"]
    found += ["--health-timeout", check["timeout"], "--health-start-period", check["start_period"]]
    return found


@dataclass
class RoleStack:
    """One stack. ``limits`` replaces the role's memory limit of single services, and the health check of those in ``blind``
    always passes: only controls do so.
    """

    name: str
    published: int
    variables: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    blind: Set[str] = frozenset()
    password: str = field(default_factory=lambda: secrets.token_hex(12))

    def __post_init__(self) -> None:
        chosen = subject.given() or subject.of_line("5.2")
        self.image, self.version = chosen.image, chosen.version
        pinned = {
            "glitchtip": self.image,
            "postgres": images.tag("postgres"),
            "valkey": images.tag("valkey"),
        }
        given = {
            "glitchtip_version": self.version,
            "glitchtip_images": pinned,
            "glitchtip_public_url": self.url,
        }
        self.document, self.sizing = rendered({**given, **self.variables})
        self.secrets = {"SECRET_KEY": secrets.token_hex(16), "POSTGRES_PASSWORD": secrets.token_hex(16)}

    @property
    def url(self) -> str:
        """The published address on this machine."""
        return f"http://127.0.0.1:{self.published}"

    @property
    def services(self) -> Sequence[str]:
        """Names of the services, stores first."""
        found = self.document["services"]
        return sorted(found, key=lambda name: name not in _PLACE)

    def container(self, service: str) -> str:
        """Name of a service's container."""
        return f"{self.name}-{service}"

    def environment(self, service: str) -> dict[str, str]:
        """Environment of a service, secrets filled in."""
        found: dict[str, str] = self.document["services"][service].get("environment", {})
        return {
            key: self.secrets.get(value.removeprefix("${").removesuffix(":?}"), value)
            for key, value in found.items()
        }

    def start(self) -> None:
        """Stores, migrations, superuser, then web and worker; waits until all are healthy. RigError when that fails."""
        run(["docker", "network", "create", "--label", _LABEL, self.name])
        for service in ("postgres", "valkey"):
            run(["docker", "volume", "create", "--label", _LABEL, self.container(service)])
            self._run(service)
        self.wait_healthy(["postgres", "valkey"])
        self.once("./bin/run-migrate.sh")
        self.once(
            "./manage.py createsuperuser --noinput",
            {"DJANGO_SUPERUSER_EMAIL": EMAIL, "DJANGO_SUPERUSER_PASSWORD": self.password},
        )
        rest = [service for service in self.services if service not in _PLACE]
        for service in rest:
            self._run(service)
        self.wait_healthy(rest)

    def _run(self, service: str) -> None:
        found = self.document["services"][service]
        environment = self.environment(service)
        options = run_arguments(found, {"memory": self.limits[service]} if service in self.limits else {})
        options += ["--name", self.container(service), "--network", self.name, "--network-alias", service]
        for label, value in (("project", self.name), ("service", service), ("oneoff", "False")):
            options += ["--label", f"com.docker.compose.{label}={value}"]
        if service in self.blind:
            options[options.index("--health-cmd") + 1] = "true"
        if service in _PLACE:
            options += ["--volume", f"{self.container(service)}:{_PLACE[service]}"]
        for port in found.get("ports", []):
            options += ["--publish", f"127.0.0.1:{self.published}:{port.rpartition(':')[2]}"]
        names = [word for key in environment for word in ("--env", key)]
        command = [word.replace("$$", "$") for word in found.get("command", [])]
        argv = ["docker", "run", "-d", "--label", _LABEL, *options, *names, found["image"], *command]
        run(argv, env=environment)

    def once(self, command: str, extra: Mapping[str, str] | None = None) -> str:
        """Run a command in a container of the web service that ends; what it prints."""
        environment = {**self.environment("web"), **(extra or {})}
        names = [word for key in environment for word in ("--env", key)]
        argv = ["docker", "run", "--rm", "--label", _LABEL, "--network", self.name, "--cpuset-cpus", "0"]
        argv += [*names, self.document["services"]["web"]["image"], "sh", "-c", command]
        return run(argv, env=environment).stdout

    def health(self, service: str) -> str:
        """``healthy``, ``starting``, ``unhealthy`` as the engine says."""
        argv = ["docker", "inspect", "-f", "{{.State.Health.Status}}", self.container(service)]
        return run(argv, check=False).stdout.strip()

    def wait_healthy(self, services: Sequence[str], seconds: float = 180) -> None:
        """Wait until all of them are healthy."""
        wait_for(
            f"Health of {', '.join(services)}",
            lambda: all(self.health(service) == "healthy" for service in services),
            seconds=seconds,
            pause=1,
        )

    def sql(self, statement: str) -> str:
        """Output of one statement, unaligned, tuples only."""
        argv = [
            "docker",
            "exec",
            self.container("postgres"),
            "psql",
            "-U",
            "glitchtip",
            "-d",
            "glitchtip",
            "-tAc",
        ]
        return run([*argv, statement]).stdout.strip()

    def valkey(self, *words: str) -> str:
        """Answer of one valkey-cli command."""
        return run(["docker", "exec", self.container("valkey"), "valkey-cli", *words]).stdout.strip()

    def waiting(self) -> int:
        """Events in Valkey that are not stored yet: waiting and in hand (names of the 5.2 line)."""
        return int(self.valkey("LLEN", "celery")) + int(self.valkey("HLEN", "unacked"))

    def remove(self) -> None:
        """Remove containers, volumes and network; harmless when they are gone."""
        for service in self.services:
            run(["docker", "rm", "-f", "-v", self.container(service)], check=False)
        for service in _PLACE:
            run(["docker", "volume", "rm", "-f", self.container(service)], check=False)
        run(["docker", "network", "rm", self.name], check=False)


@dataclass(frozen=True)
class Memory:
    """One container's memory in MiB and its kills: ``pss`` of its processes, highest ``peak`` of its cgroup (file pages included)."""

    pss: float
    peak: float
    limit: float
    failures: int
    kills: int
    restarts: int
    killed: bool


def _inspected(container: str) -> dict[str, Any]:
    done = run(["docker", "inspect", container], check=False)
    if done.returncode:
        raise RigError(f"Container {container} does not exist.")
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def cgroup_of(pid: int) -> Path:
    """Directory of the memory control group of a process, version 1 or 2."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
    return Path("/sys/fs/cgroup") / lines[-1][2].lstrip("/")


def _number(directory: Path, *names: str) -> int:
    for name in names:
        path = directory / name
        if path.exists():
            text = path.read_text().strip()
            return int(text) if text.isdigit() else 0
    return 0


def _counter(directory: Path, key: str, *names: str) -> int:
    for name in names:
        path = directory / name
        for line in path.read_text().splitlines() if path.exists() else []:
            if line.split()[0] == key:
                return int(line.split()[1])
    return 0


def _pss(directory: Path) -> float:
    total = 0
    for pid in (directory / "cgroup.procs").read_text().split():
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def memory_of(container: str) -> Memory:
    """Read one running container's memory and kills from its cgroup, and what the engine remembers."""
    found = _inspected(container)
    state = found["State"]
    killed, restarts = bool(state["OOMKilled"]), int(found["RestartCount"])
    pid = int(state["Pid"])
    if not pid:
        return Memory(0, 0, 0, 0, 0, restarts, killed)
    group = cgroup_of(pid)
    mib = 1024 * 1024
    return Memory(
        pss=round(_pss(group), 1),
        peak=round(_number(group, "memory.max_usage_in_bytes", "memory.peak") / mib, 1),
        limit=round(_number(group, "memory.limit_in_bytes", "memory.max") / mib, 1),
        failures=_number(group, "memory.failcnt") or _counter(group, "max", "memory.events"),
        kills=_counter(group, "oom_kill", "memory.oom_control", "memory.events"),
        restarts=restarts,
        killed=killed,
    )
