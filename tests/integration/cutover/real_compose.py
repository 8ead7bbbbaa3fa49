"""The Compose manager on a real Docker Engine with Compose v2: run as root on a machine that may be thrown away.

    python3 real_compose.py PROGRAM       PROGRAM: the zipapp (roles/ai-admin-cutover installs it), or src/

Needs nothing but python3 and Docker: the image is made of this machine's own ``sleep``. Prints one line a check and
ends with code 0 when all hold. It makes one project (``cutover-check``) and one image, and removes them.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from glitchtip_cutover.compose import Compose
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.services import Services

OLD = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@sentry.example.org/7"
NEW = "http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@127.0.0.1:8080/3"
KEY = "SENTRY_DSN"
PROJECT = IMAGE = "cutover-check"
NAMES = ("file", "text")


def docker(*arguments: str, data: bytes | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(["docker", *arguments], input=data, cwd=cwd, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"docker {arguments[0]} failed: {done.stderr.decode()[-300:]}")
    return done.stdout.decode()


def check(what: str, holds: bool) -> None:
    print(("ok    " if holds else "WRONG ") + what, flush=True)
    if not holds:
        raise SystemExit(1)


def make_image() -> None:
    """An image of ``sleep`` and the libraries that it needs."""
    linked = subprocess.run(["ldd", "/usr/bin/sleep"], capture_output=True, text=True, check=True).stdout
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in ("/usr/bin/sleep", *re.findall(r"(/\S+) \(", linked)):
            archive.add(os.path.realpath(path), arcname=path.lstrip("/"))
    docker("import", "-", IMAGE, data=buffer.getvalue())


def managed(root: Path) -> None:
    """There and back with a service that has its DSN from ``env_file`` and one that has it in the project's own file."""
    env = root / ".env"
    env.write_text(f"{KEY}={OLD}\n")
    service = {
        "image": IMAGE,
        "command": ["/usr/bin/sleep", "1000"],
        "restart": "always",
        "stop_signal": "SIGKILL",
    }
    project = {
        "services": {
            "file": {**service, "env_file": [".env"]},
            "text": {**service, "environment": {KEY: OLD}},
        }
    }
    (root / "docker-compose.yml").write_text(json.dumps(project))
    docker("compose", "-p", PROJECT, "up", "-d", cwd=root)
    config = parse_config(
        {
            "migration_id": "check",
            "manager": "compose",
            "compose": {
                "directory": str(root),
                "project": PROJECT,
                "docker": "/usr/bin/docker",
                "node": "node",
            },
            "state_dir": str(root / "state"),
            "env_file": str(env),
            "app_dir": str(root),
            "services": list(NAMES),
            "canary": "",
        },
        root / "config.json",
    )
    manager = Compose(config)
    check(
        "both services are seen",
        {one.name: one.online for one in manager.processes()} == dict.fromkeys(NAMES, True),
    )
    for dsn, overridden in ((NEW, True), (OLD, False)):
        env.write_text(f"{KEY}={dsn}\n")
        services = Services(config, manager, monotonic=time.monotonic, sleep=time.sleep)
        before = {one.name: one.pid for one in manager.processes()}
        began = time.monotonic()
        check(f"{len(NAMES)} services made anew", services.restart_together(dict.fromkeys(NAMES, dsn)) == {})
        for name in NAMES:
            services.wait_online(name)
        took = time.monotonic() - began
        found = {one.name: one for one in manager.processes()}
        check(
            f"every process has the DSN ({took:.1f} s)",
            all(running(one.pid) == dsn for one in found.values()),
        )
        check("every process is a new one", all(found[name].pid != before[name] for name in NAMES))
        check(
            "each has its own host name",
            all(one.hostname == running(one.pid, "HOSTNAME") for one in found.values()),
        )
        check("start times are near", all(abs(one.started_at - time.time()) < 60 for one in found.values()))
        override = root / "state" / "compose.override.json"
        check(f"an override is {'there' if overridden else 'gone'}", overrides(override) == overridden)
        check("nobody else reads it", not override.exists() or override.stat().st_mode & 0o077 == 0)
    os.kill(manager.processes()[0].pid, 9)
    time.sleep(3)
    check("a crash counts", max(one.restarts for one in manager.processes()) >= 1)


def overrides(path: Path) -> bool:
    return path.exists() and KEY in path.read_text()


def running(pid: int, variable: str = KEY) -> str | None:
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return next((line.partition("=")[2] for line in lines if line.startswith(f"{variable}=")), None)


def main() -> None:
    print(json.dumps({"compose": docker("compose", "version", "--short").strip()}))
    make_image()
    try:
        with tempfile.TemporaryDirectory() as directory:
            managed(Path(directory))
    finally:
        left = docker("ps", "-aq", f"--filter=label=com.docker.compose.project={PROJECT}").split()
        for arguments in (
            ["rm", "-f", *left] if left else [],
            ["network", "rm", f"{PROJECT}_default"],
            ["rmi", IMAGE],
        ):
            subprocess.run(["docker", *arguments], capture_output=True, check=False)
    print("all checks hold")


if __name__ == "__main__":
    main()
