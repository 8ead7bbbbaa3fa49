"""``docker`` for tests, run as a program; the project stands in ``$FAKE_DOCKER/project.json``.

It keeps facts of the engine and of Compose v2: a container keeps the environment that it was created with;
``restart`` reads no ``env_file`` again; ``up --force-recreate`` does; ``environment:`` wins over ``env_file:``, a
later file over an earlier one; ``config`` prints ``$`` doubled; a new container's ``RestartCount`` is 0.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FAKE_DOCKER"])


def dotenv(path: str) -> dict[str, str]:
    lines = Path(path).read_text().splitlines() if Path(path).is_file() else []
    return dict(line.split("=", 1) for line in lines if "=" in line)


def resolved(project: dict[str, Any], overrides: list[str]) -> dict[str, dict[str, str]]:
    """Every service's environment, as Compose would create it now."""
    found = {}
    texts: dict[str, str] = {}
    for name, service in project["services"].items():
        found[name] = {
            **(dotenv(service["env_file"]) if service.get("env_file") else {}),
            **service["environment"],
        }
        for path in overrides:
            if path not in texts:
                texts[path] = sys.stdin.read() if path == "-" else Path(path).read_text()
            more = json.loads(texts[path])["services"].get(name, {})
            found[name].update(more.get("environment", {}))
    return found


def container(project: dict[str, Any], name: str) -> dict[str, Any]:
    one = project["containers"][name]
    return {
        "Id": one["id"],
        "Name": f"/shop-{name}-1",
        "RestartCount": one["restarts"],
        "State": {
            "Status": one["status"],
            "Pid": one["pid"],
            "ExitCode": one.get("code", 0),
            "StartedAt": one["started"],
            **({"Health": {"Status": one["health"]}} if one.get("health") else {}),
        },
        "HostConfig": {"RestartPolicy": {"Name": one["policy"]}},
        "Config": {
            "Env": [f"{key}={value}" for key, value in one["env"].items()],
            "WorkingDir": "/srv/app",
            "User": "node",
            "Entrypoint": ["node"],
            "Cmd": [*(["--watch"] if name == "text" else []), "--import", "./a.mjs", "src/x.js"],
            "Labels": {
                "com.docker.compose.service": name,
                "com.docker.compose.project": "shop",
                "com.docker.compose.oneoff": "False",
                "com.docker.compose.project.config_files": one["files"],
            },
        },
    }


def main(arguments: list[str]) -> int:
    store = HOME / "project.json"
    project = json.loads(store.read_text())
    with (HOME / "calls.log").open("a") as log:
        log.write(f"[by {os.getuid()} in {os.getcwd()}] {' '.join(arguments)}\n")
    if project.get("down") or project.get("denied") == os.getuid():
        print("Cannot connect to the Docker daemon", file=sys.stderr)
        return 1
    if arguments[0] == "version":
        print("27.5.1")
    elif arguments[0] == "ps":
        print("\n".join(one["id"] for one in project["containers"].values()))
    elif arguments[0] == "inspect":
        print(json.dumps([container(project, name) for name in project["containers"]]))
    elif arguments[0] == "exec":
        ids = {one["id"]: one for one in project["containers"].values()}
        at = next(number for number, word in enumerate(arguments) if word in ids)
        options = dict(word.removeprefix("--").split("=", 1) for word in arguments[1:at])
        given = os.environ.get(options["env"]) if options.get("env") else None
        told = f"{options['user']} {options['workdir']}"
        inside = ids[arguments[at]]["env"].get("SENTRY_DSN")
        print(f"exec {inside} given {given} {told} {' '.join(arguments[at + 1 :])}")
    elif arguments[0] == "compose":
        files = [word.removeprefix("--file=") for word in arguments if word.startswith("--file=")]
        if files[:1] not in ([], [project["file"]]):
            return 14
        for path in files[:1]:
            Path(path).is_file() and Path(path).read_bytes()
        if project.get("complains"):
            print(project["complains"], file=sys.stderr)
            return 3
        if "up" in arguments and project.get("fails_to_start"):
            print(project["fails_to_start"], file=sys.stderr)
            return 1
        environments = resolved(project, files[1:])
        if "config" in arguments:
            doubled = {
                name: {"environment": {key: value.replace("$", "$$") for key, value in values.items()}}
                for name, values in environments.items()
            }
            print(json.dumps({"name": "shop", "services": doubled}))
        elif "run" in arguments:
            name = arguments[arguments.index("--entrypoint=node") + 1]
            print(f"run {environments[name].get('SENTRY_DSN')}")
        elif "up" in arguments:
            for name in arguments[arguments.index("--") + 1 :]:
                one = project["containers"][name]
                number = int(one["id"].rsplit("-", 1)[1]) + 1
                one.update(
                    id=f"{name}-{number}",
                    pid=one["pid"] + 1000,
                    restarts=0,
                    status="running",
                    env=environments[name],
                    files=",".join(files) or project["file"],
                    started=datetime.now(UTC).isoformat().replace("+00:00", "000Z"),
                )
                if project["services"][name].get("dies"):
                    one.update(status="exited", code=1, pid=0)
            store.write_text(json.dumps(project))
            if any(project["services"][name].get("dies") for name in project["services"]):
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
