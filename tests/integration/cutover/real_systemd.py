"""The systemd manager and the detached runs on a real systemd: run as root on a machine that may be thrown away.

    python3 real_systemd.py PROGRAM       PROGRAM: the zipapp (roles/ai-admin-cutover installs it), or src/

Needs nothing but python3. Prints one line a check and ends with code 0 when all hold. It makes units of its own
(``cutover-check-*``) and removes them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.services import Services
from glitchtip_cutover.systemd import Systemd

OLD = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@sentry.example.org/7"
NEW = "http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@127.0.0.1:8080/3"
KEY = "SENTRY_DSN"
UNITS = Path("/etc/systemd/system")
NAMES = {"cutover-check-file": "EnvironmentFile={env}", "cutover-check-text": f"Environment={KEY}={OLD}"}


def systemctl(*arguments: str) -> str:
    return subprocess.run(
        ["systemctl", *arguments], capture_output=True, text=True, check=False
    ).stdout.strip()


def check(what: str, holds: bool) -> None:
    print(("ok    " if holds else "WRONG ") + what, flush=True)
    if not holds:
        raise SystemExit(1)


def running(pid: int) -> str | None:
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return next((line.partition("=")[2] for line in lines if line.startswith(f"{KEY}=")), None)


def soon_running(pid: int, dsn: str) -> bool:
    """Whether the process has the DSN, once it is the unit's own program: systemd calls a simple unit started as soon as it has forked."""
    deadline = time.monotonic() + 10
    while running(pid) != dsn and time.monotonic() < deadline:
        time.sleep(0.1)
    return running(pid) == dsn


def managed(root: Path) -> None:
    """There and back with one unit that reads ``.env`` by itself and one that has the DSN in its text."""
    env = root / ".env"
    env.write_text(f"{KEY}={OLD}\n")
    for name, line in NAMES.items():
        text = f"[Service]\n{line.format(env=env)}\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=0\n"
        (UNITS / f"{name}.service").write_text(text)
    systemctl("daemon-reload")
    systemctl("start", *NAMES)
    config = parse_config(
        {
            "migration_id": "check",
            "manager": "systemd",
            "state_dir": str(root / "state"),
            "env_file": str(env),
            "app_dir": str(root),
            "services": list(NAMES),
        },
        root / "config.json",
    )
    manager = Systemd(config)
    for dsn, drop_in in ((NEW, True), (OLD, False)):
        env.write_text(f"{KEY}={dsn}\n")
        services = Services(config, manager, monotonic=time.monotonic, sleep=time.sleep)
        began = time.monotonic()
        check(
            f"restart of {len(NAMES)} units by one call",
            services.restart_together(dict.fromkeys(NAMES, dsn)) == {},
        )
        for name in NAMES:
            services.wait_online(name)
        took = time.monotonic() - began
        found = {process.name: process for process in manager.processes()}
        check(
            f"every process has the DSN ({took:.1f} s)",
            all(soon_running(one.pid, dsn) for one in found.values()),
        )
        check("the counters stand at 0", all(one.restarts == 0 for one in found.values()))
        check("start times are near", all(abs(one.started_at - time.time()) < 30 for one in found.values()))
        there = (UNITS / "cutover-check-text.service.d" / "90-ai-admin-cutover.conf").exists()
        check(f"a drop-in is {'there' if drop_in else 'gone'}", there == drop_in)
        check("the unit's text shows no new DSN", NEW not in systemctl("cat", "cutover-check-text"))
    os.kill(manager.processes()[0].pid, 9)
    time.sleep(1)
    check("a crash counts", manager.processes()[0].restarts == 1)


def detached() -> None:
    """A decided end is no failed unit and starts no OnFailure; a killed one does (the negative control)."""
    mark = Path("/run/cutover-check-mark")
    (UNITS / "cutover-check-recover.service").write_text(
        f"[Service]\nType=oneshot\nExecStart=/bin/touch {mark}\n"
    )
    systemctl("daemon-reload")
    for ending, wanted in (("exit 1", False), ("exit 75", False), ("exit 4", True), ("kill -9 $$$$", True)):
        mark.unlink(missing_ok=True)
        subprocess.run(
            ["systemd-run", "--quiet", "--collect", "--wait", "--service-type=exec", "--unit=cutover-check-run",
             "--property=OnFailure=cutover-check-recover.service", "--property=SuccessExitStatus=1 2 3 5 75",
             "/bin/sh", "-c", ending],
            check=False,
        )  # fmt: skip
        time.sleep(1.5)
        check(f"'{ending}' {'starts' if wanted else 'does not start'} the recovery", mark.exists() == wanted)
    mark.unlink(missing_ok=True)


def main() -> None:
    if not Path("/run/systemd/system").is_dir():
        raise SystemExit("systemd does not run here")
    print(json.dumps({"systemd": systemctl("--version").splitlines()[0]}))
    try:
        with tempfile.TemporaryDirectory() as directory:
            managed(Path(directory))
        detached()
    finally:
        systemctl("stop", *NAMES)
        for path in UNITS.glob("cutover-check-*.service"):
            path.unlink()
        for path in UNITS.glob("cutover-check-*.service.d/*"):
            path.unlink()
            path.parent.rmdir()
        systemctl("daemon-reload")
    print("all checks hold")


if __name__ == "__main__":
    main()
