"""The controller's Docker Engine: used if one answers, else the distribution's, started directly where systemd is not PID 1."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from rig.shell import CACHE, RigError, run, say, wait_for


def answers() -> bool:
    """Whether a Docker Engine answers this client."""
    if not shutil.which("docker"):
        return False
    return (
        run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=30).returncode == 0
    )


def ensure() -> None:
    """Make an engine answer.

    Raises:
        RigError: it is not running and cannot be started by this user on this machine.
    """
    if answers():
        return
    if os.geteuid() != 0:
        raise RigError(
            "No Docker Engine answers and starting one needs root; start Docker or run make as root."
        )
    started = time.monotonic()
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "enable", "--now", "docker"])
        how = "systemctl"
    else:
        dockerd = shutil.which("dockerd") or "/usr/sbin/dockerd"
        if not Path(dockerd).exists():
            raise RigError("Docker Engine is not installed; run `make setup`.")
        CACHE.mkdir(exist_ok=True)
        Path("/var/run/docker.pid").unlink(missing_ok=True)
        with (CACHE / "dockerd.log").open("ab") as log:
            subprocess.Popen(
                [dockerd], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        how = "dockerd directly (systemd is not PID 1 here)"
    try:
        wait_for("An answer of the Docker Engine", answers, seconds=60)
    except RigError as error:
        log_file = CACHE / "dockerd.log"
        tail = (
            "\n".join(log_file.read_text(errors="replace").splitlines()[-6:])
            if log_file.exists()
            else "see: journalctl -u docker"
        )
        raise RigError(f"The Docker Engine does not start. {error}\n{tail}") from error
    say(f"engine: started with {how} ({time.monotonic() - started:.1f} s)")
