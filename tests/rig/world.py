"""The throwaway world: one network, an image registry, "Sentry" (a second GlitchTip-speaking tracker), and a server of 1.9 GB and 1 CPU.

Everything carries the label ``owner=gtm`` and a name that begins with ``gtm-``; `make clean` removes exactly that.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rig import images, subject
from rig.shell import CACHE, ROOT, RigError, run, say, wait_for

NETWORK = "gtm"
#: Another name, port and inventory make a second server beside the demo's (Molecule does).
SERVER = os.environ.get("RIG_SERVER", "gtm-server")
SSH_PORT = int(os.environ.get("RIG_SSH_PORT", "22022"))
INVENTORY = ROOT / os.environ.get("RIG_INVENTORY", "inventory/demo")
REGISTRY = "gtm-registry"
REGISTRY_NAME = "registry.example.org:5000"
REGISTRY_LOCAL = "127.0.0.1:25000"
DEMO = CACHE / SERVER
KEY = DEMO / "id_ed25519"
MEMORY = "1900m"
CPUS = "1"


@dataclass(frozen=True)
class Server:
    """A throwaway server: its container, its SSH port on the loopback address, its image and its memory.

    ``user`` logs in over SSH with the key of ``directory``, which holds the server's files on this machine;
    ``inventory`` is the one that playbooks get.
    """

    name: str
    port: int
    image: str = "product"
    memory: str = MEMORY
    user: str = "root"
    inventory: Path = INVENTORY
    directory: Path = DEMO

    @property
    def key(self) -> Path:
        """Its private SSH key."""
        return self.directory / KEY.name


#: The one that most worlds consist of.
MAIN = Server(SERVER, SSH_PORT)


def _exists(name: str) -> bool:
    return run(["docker", "inspect", name], check=False).returncode == 0


def _running(name: str) -> bool:
    return run(["docker", "inspect", "-f", "{{.State.Running}}", name], check=False).stdout.strip() == "true"


def ensure_network() -> None:
    """The bridge that server, registry and "Sentry" share."""
    if run(["docker", "network", "inspect", NETWORK], check=False).returncode:
        run(["docker", "network", "create", "--label", "owner=gtm", NETWORK])


def ensure_registry() -> None:
    """Start the registry and push the stand-ins and a given image; images that it already has cost one look."""
    if not _running(REGISTRY):
        run(["docker", "rm", "-f", "-v", REGISTRY], check=False)
        flags = f"--label owner=gtm --network {NETWORK} --network-alias registry.example.org -p {REGISTRY_LOCAL}:5000".split()
        volume = f"{REGISTRY}-data:/var/lib/registry"
        run(["docker", "run", "-d", "--name", REGISTRY, *flags, "-v", volume, images.tag("registry")])
    for image, content, repository, version in published():
        local = f"{REGISTRY_LOCAL}/{repository}:{version}"
        mark = f"{local}-{content}"
        if run(["docker", "image", "inspect", mark], check=False).returncode == 0 and _in_registry(
            repository, mark.rsplit(":", 1)[1]
        ):
            continue
        for reference in (local, mark):
            run(["docker", "tag", image, reference])
            _push(reference)


def _in_registry(repository: str, version: str) -> bool:
    return images.url_answers(f"http://{REGISTRY_LOCAL}/v2/{repository}/manifests/{version}")


def _push(reference: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        done = run(["docker", "push", "-q", reference], check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise RigError(f"The rig's registry did not take {reference}: {done.stderr.strip()[-300:]}")
        time.sleep(0.5)


def published() -> list[tuple[str, str, str, str]]:
    """(local image, its content, repository in the registry, tag) of everything that the server may pull."""
    found = [
        (images.tag(name), images.tag(name).rsplit(":", 1)[1], repository, version)
        for name, repository, version in [
            *(
                (f"standin-{line}", subject.STANDIN, version)
                for line, version in images.GLITCHTIP_LINES.items()
            ),
            ("postgres", "standin/postgres", "17"),
            ("valkey", "standin/valkey", "8"),
        ]
    ]
    if given := subject.given():
        found.append((given.image, subject.content(given), given.repository, given.version))
    return found


def make_key(server: Server = MAIN) -> None:
    """An SSH key pair for the server, made once."""
    server.directory.mkdir(parents=True, exist_ok=True)
    if not server.key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo@example.org", "-f", str(server.key)])


def system_container(name: str, image: str, *, extra: list[str]) -> None:
    """Start a container whose PID 1 is systemd and in which an engine of its own can run (no --privileged, see the flags)."""
    run(["docker", "rm", "-f", "-v", name], check=False)
    run(["docker", "volume", "rm", "-f", f"{name}-docker"], check=False)
    flags = [
        "--label",
        "owner=gtm",
        "--cap-add",
        "ALL",
        "--cap-drop",
        "SYS_RESOURCE",
        "--security-opt",
        "seccomp=unconfined",
        "--security-opt",
        "apparmor=unconfined",
        "--security-opt",
        "systempaths=unconfined",
        "--cgroupns=host",
        "-v",
        "/sys/fs/cgroup:/sys/fs/cgroup:rw",
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/run/lock",
        "--tmpfs",
        "/tmp:exec",
        "-e",
        "container=docker",
    ]
    volume = f"{name}-docker:/var/lib/docker"
    run(["docker", "run", "-d", "--name", name, "--hostname", name, *flags, "-v", volume, *extra, image])


def start_server(server: Server = MAIN) -> str:
    """A fresh server, reachable over SSH on the loopback address; returns its full container id."""
    make_key(server)
    limits = ["--memory", server.memory, "--memory-swap", server.memory, "--cpus", CPUS]
    system_container(
        server.name,
        images.tag(server.image),
        extra=["--network", NETWORK, "-p", f"127.0.0.1:{server.port}:22", *limits],
    )
    install = "install -d -m 700 ~/.ssh && cat > ~/.ssh/authorized_keys"
    inside(["su", server.user, "-c", install], server, input_text=server.key.with_suffix(".pub").read_text())
    _wait_for_boot(server)
    return run(["docker", "inspect", "-f", "{{.Id}}", server.name]).stdout.strip()


def restart() -> None:
    """Pull the plug and boot again."""
    run(["docker", "kill", "-s", "KILL", SERVER])
    run(["docker", "start", SERVER])
    _wait_for_boot(MAIN)


def wait_for_stack() -> None:
    """Wait until every container of the stack is healthy."""
    listing = (
        "docker ps -q --filter label=com.docker.compose.project=glitchtip --filter health=healthy | wc -l"
    )
    wait_for("The stack's health", lambda: ssh(listing, check=False)[1] == "4", seconds=180, pause=2)


def inside(
    argv: Sequence[str], server: Server, *, input_text: str | None = None, timeout: float = 300
) -> str:
    """Run a command on the server as root without SSH, for checks from outside; its standard output. RigError when it fails."""
    done = run(["docker", "exec", "-i", server.name, *argv], input_text=input_text, timeout=timeout)
    return done.stdout


def _wait_for_boot(server: Server) -> None:
    asked = ["docker", "exec", server.name, "systemctl", "is-system-running"]
    wait_for(
        "The server's boot",
        lambda: run(asked, check=False).stdout.strip() in {"running", "degraded"},
        seconds=120,
    )
    wait_for("SSH on the server", lambda: ssh("true", check=False, server=server) == (0, ""), seconds=60)


def ssh_argv(server: Server = MAIN) -> list[str]:
    """The command that reaches the server as an operator would."""
    options = [
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "ConnectTimeout=5",
    ]
    return [
        "ssh",
        "-i",
        str(server.key),
        "-p",
        str(server.port),
        *options,
        f"{server.user}@127.0.0.1",
    ]


def ssh(
    command: str,
    *,
    input_text: str | None = None,
    check: bool = True,
    timeout: float = 300,
    server: Server = MAIN,
) -> tuple[int, str]:
    """Run a shell command on the server; (exit code, standard output without the last newline)."""
    done = run([*ssh_argv(server), command], input_text=input_text, check=check, timeout=timeout)
    return done.returncode, done.stdout.rstrip("\n")


def provision_product(dsn: str, server: Server = MAIN) -> None:
    """The world before the migration: .env with the "Sentry" DSN, nine PM2 processes online, saved, started on boot.

    One service carries the DSN in its PM2 environment too: the case in which changing .env alone changes nothing.
    """
    command = "AI_ADMIN_DSN_IN_PM2_ENV=whatsapp-safe-monitor /opt/ai-admin/provision.sh"
    ssh(command, input_text=dsn + "\n", server=server)


_PSS = """
import collections, glob, json, subprocess
form = '{{.ID}} {{.Label "com.docker.compose.service"}}'
chosen = "label=com.docker.compose.project=PROJECT"
listed = ["docker", "ps", "--no-trunc", "--filter", chosen, "--format", form]
services = dict(line.split() for line in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines())
found = collections.Counter()
for path in glob.glob("/proc/[0-9]*"):
    try:
        owner = next((s for i, s in services.items() if i in open(path + "/cgroup").read()), None)
        if owner:
            found[owner] += sum(int(line.split()[1]) for line in open(path + "/smaps_rollup") if line.startswith("Pss:"))
    except (OSError, IndexError):
        continue
print(json.dumps({service: round(kib / 1024, 1) for service, kib in sorted(found.items())}))
"""


def memory_mib(project: str, server: Server = MAIN) -> dict[str, float]:
    """Memory of each service of a Compose project on the server, in MiB: proportional set size (PSS) of its processes."""
    found: dict[str, float] = json.loads(
        ssh("python3 -", input_text=_PSS.replace("PROJECT", project), server=server)[1]
    )
    return found


def remove_server(server: Server = MAIN) -> None:
    """Remove this server alone, with its engine's volume."""
    run(["docker", "rm", "-f", "-v", server.name], check=False)
    run(["docker", "volume", "rm", "-f", f"{server.name}-docker"], check=False)
    shutil.rmtree(server.directory, ignore_errors=True)


def remove() -> None:
    """Remove every container, volume and network that the rig made, and its cache of the demo; images stay."""
    for kind, listing, removal in (
        ("containers", ["docker", "ps", "-aq"], ["docker", "rm", "-f", "-v"]),
        ("networks", ["docker", "network", "ls", "-q"], ["docker", "network", "rm"]),
    ):
        ids = run([*listing, "--filter", "label=owner=gtm"]).stdout.split()
        if ids:
            run([*removal, *ids])
        say(f"{kind} removed: {len(ids)}")
    named = [name for name in run(["docker", "volume", "ls", "-q"]).stdout.split() if name.startswith("gtm-")]
    if named:
        run(["docker", "volume", "rm", "-f", *named])
    say(f"volumes removed: {len(named)}")
    for path in CACHE.glob("gtm-*"):
        shutil.rmtree(path, ignore_errors=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
