"""Stand-ins for ``pm2``, ``node`` and ``systemd-run``, run as programs: ``fakes.py ROLE ARGUMENTS``.

They keep the facts that matter: a restarted service reads ``.env``, but a value in its PM2 environment wins;
``restart_time`` grows with a restart; PM2's ``--update-env`` takes over the caller's variables.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any


def env_value(directory: Path, key: str = "SENTRY_DSN") -> str | None:
    """The last value of ``key``, as dotenv reads a plain file."""
    found = re.findall(
        rf"^(?:export )?{key}=[\"']?([^\"'\s#]*)", (directory / ".env").read_text(), re.MULTILINE
    )
    return found[-1] if found else None


def send(dsn: str, event_id: str, tags: dict[str, str]) -> int:
    """Post one event to ``dsn`` and return the HTTP status."""
    import http.client

    scheme, key, host, project = re.fullmatch(r"(https?)://([^@]+)@([^/]+)/(\d+)", dsn).groups()  # type: ignore[union-attr]
    event = json.dumps({"event_id": event_id, "timestamp": time.time(), "tags": tags}).encode()
    body = b"\n".join((json.dumps({"event_id": event_id}).encode(), b'{"type":"event"}', event, b""))
    assert scheme == "http"
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("POST", f"/api/{project}/envelope/?sentry_key={key}", body)
    return connection.getresponse().status


def show_process(home: Path, service: dict[str, Any]) -> None:
    """Let the process of a service be seen as ``/proc`` shows those of a real PM2, beside its home."""
    if not service["pid"]:
        return
    details = service["pm2_env"]
    directory = home.parent / "proc" / str(service["pid"])
    directory.mkdir(parents=True, exist_ok=True)
    given = {key: value for key, value in details.items() if isinstance(value, str)}
    given |= service.get("fake_smuggled", {})
    (directory / "environ").write_text("".join(f"{key}={value}\0" for key, value in given.items()))
    (directory / "cmdline").write_text(f"node {details['pm_exec_path']}\0")
    for name, path in (("exe", home.parent / "bin" / "node"), ("cwd", details["pm_cwd"])):
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(path)


def _start(service: dict[str, Any], pids: list[int]) -> None:
    details = service["pm2_env"]
    service["pid"] = max(pids) + 1
    details["status"] = "online"
    details["pm_uptime"] = int(time.time() * 1000)
    if service.get("fake_crash_on") and service["fake_crash_on"] in (_dsn(service) or ""):
        details["status"] = "errored"
        service["pid"] = 0
        details["restart_time"] += 15
    elif service.get("fake_emits"):
        send(_dsn(service) or "", os.urandom(16).hex(), {"service": service["name"]})
    if details.get("cron_restart"):
        details.update(status="stopped", exit_code=0)
        service["pid"] = 0


def _dsn(service: dict[str, Any]) -> str | None:
    details = service["pm2_env"]
    return details.get("SENTRY_DSN") or env_value(Path(details["pm_cwd"]))


def pm2(arguments: list[str]) -> int:
    """``restart ID|/PATTERN/ [--update-env]`` and ``save``; each is logged. (The wrapper answers ``jlist``.)

    Calls that come together follow each other, as in PM2's one daemon.
    """
    import fcntl

    home = Path(os.environ["PM2_HOME"])
    with (home / "daemon.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _pm2(home, arguments)


def _wanted(service: dict[str, Any], target: str) -> bool:
    """Whether PM2 means this service by an id or by a pattern of names."""
    if target.startswith("/") and target.endswith("/"):
        return re.search(target[1:-1], service["name"]) is not None
    return str(service["pm_id"]) == target


def _pm2(home: Path, arguments: list[str]) -> int:
    store = home / "fake.json"
    services = json.loads(store.read_text())
    with (home / "calls.log").open("a") as log:
        log.write(" ".join(arguments) + "\n")
    if arguments == ["save"]:
        (home / "dump.pm2").write_text(
            json.dumps([{"name": service["name"], **service["pm2_env"]} for service in services])
        )
        return 0
    found = [service for service in services if arguments[0] == "restart" and _wanted(service, arguments[1])]
    for service in found:
        details = service["pm2_env"]
        if "--update-env" in arguments:
            details.update(
                {
                    key: value
                    for key, value in os.environ.items()
                    if key not in ("PM2_HOME", "FAKE_SYSTEMD_LOG")
                }
            )
        details["restart_time"] += 1 if service["pid"] else 0
        if not service.get("fake_ignores_restart"):
            _start(service, [other["pid"] for other in services] + [1000])
            show_process(home, service)
    part = store.with_suffix(".part")
    part.write_text(json.dumps(services))
    part.rename(store)
    return 0 if found else 1


def node(arguments: list[str]) -> int:
    """The probe: what ``src/instrument.js`` of the product would do in this directory and environment."""
    import base64
    import hashlib

    loaded = next(word for word in arguments if word.startswith("--import=data:"))
    text = base64.b64decode(loaded.split("base64,", 1)[1]).decode()
    request, _ = json.JSONDecoder().raw_decode(text[len("const request = ") :])
    print("noise of the product")
    dsn = os.environ.get("SENTRY_DSN", env_value(Path.cwd()))
    if not dsn:
        print(f"\n{request['marker']}" + json.dumps({"unproven": "the SDK client has no DSN"}))
        return 0
    key, host, project = re.fullmatch(r"https?://([^@]+)@([^/]+)/(\d+)", dsn).groups()  # type: ignore[union-attr]
    try:
        status = send(dsn, request["event_id"], request["tags"]) if request["send"] else 0
    except OSError:
        status = 0
    client = {"host": host, "project_id": project, "key_sha256": hashlib.sha256(key.encode()).hexdigest()}
    report = {
        "clients": [client],
        "flushed": True,
        "status": status or None,
    }
    print(f"\n{request['marker']}{json.dumps(report)}")
    return 0


def systemd(arguments: list[str]) -> int:
    """``systemd-run`` and ``systemctl``: keep the command line, so that a test can play the timer."""
    log = Path(os.environ["FAKE_SYSTEMD_LOG"])
    with log.open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    return 0


if __name__ == "__main__":
    role, rest = sys.argv[1], sys.argv[2:]
    sys.exit({"pm2": pm2, "node": node, "systemd": systemd}[role](rest))
