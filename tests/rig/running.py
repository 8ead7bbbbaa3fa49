"""Which tracker the running SDK client of each service has, asked from outside, and whether a record of the product agrees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rig import world
from rig.shell import RigError

SCRIPT = Path(__file__).with_name("sdk_of_processes.mjs")
#: Seconds in which a job that starts every minute is met while it runs, and a service that is just reloaded answers.
WAIT = 240
#: What `ai-admin-cutover` records for a service whose DSN it could not prove.
UNPROVEN = ("", "none", "unproven")


@dataclass(frozen=True)
class Client:
    """The SDK client of one running process: ``host`` with its port, project id, SHA-256 of the key."""

    host: str
    project: str
    key_sha256: str
    enabled: bool = True

    @classmethod
    def of_dsn(cls, dsn: str) -> Client:
        """The client that a service with this DSN must have."""
        parts = urlsplit(dsn)
        host = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        key = hashlib.sha256(str(parts.username).encode()).hexdigest()
        return cls(host, parts.path.strip("/"), key)

    def __str__(self) -> str:
        return f"{self.host}/{self.project}" + ("" if self.enabled else " (off)")


@dataclass(frozen=True)
class Instance:
    """One process of a service, as PM2 lists it, with every SDK client found in it and below it."""

    service: str
    clients: tuple[Client, ...]
    problem: str = ""


def instances(server: world.Server, user: str, pm2_home: str, node: str, pm2: str) -> list[Instance]:
    """Every process that PM2 of ``user`` runs on the server. RigError when it cannot be asked."""
    environment = [f"PM2_HOME={pm2_home}", f"PATH={Path(node).parent}:/usr/bin:/bin"]
    argv = ["runuser", "-u", user, "--", "env", *environment, node, "--input-type=module", "-"]
    asked = json.dumps({"pm2": pm2, "wait": WAIT})
    text = world.inside([*argv, asked], server, input_text=SCRIPT.read_text(), timeout=WAIT + 240)
    return parse(text)


def parse(text: str) -> list[Instance]:
    """What the script printed. RigError when it is not its list."""
    try:
        rows = json.loads(text.splitlines()[-1])
        if not isinstance(rows, list):
            raise TypeError(type(rows).__name__)
        return [
            Instance(
                row["service"],
                tuple(
                    Client(
                        one.get("host", "no DSN"),
                        str(one.get("project", "")),
                        one.get("key", ""),
                        one.get("enabled", False),
                    )
                    for one in row["clients"]
                ),
                row["problem"],
            )
            for row in rows
        ]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise RigError(f"The running services could not be asked: {error!r}") from None


def strays(found: Iterable[Instance], services: Iterable[str], expected: Client) -> list[str]:
    """A sentence for each service that is missing, or whose running client is not the ``expected`` one in every process."""
    listed = list(found)
    problems = [
        f"{name} is not among the running services"
        for name in services
        if name not in {one.service for one in listed}
    ]
    for one in listed:
        if one.problem:
            problems.append(f"{one.service}: {one.problem}")
        elif not one.clients:
            problems.append(f"{one.service}: no running SDK client")
        problems += [
            f"{one.service} really reports to {client}, not to {expected}"
            + (" (another key)" if str(client) == str(expected) else "")
            for client in one.clients
            if client != expected
        ]
    return problems


def false_proofs(
    found: Iterable[Instance], recorded: Iterable[Mapping[str, Any]], expected: Client
) -> list[str]:
    """A sentence for each service that is recorded as proven although a running client of it has another DSN."""
    proven = {str(row["name"]): str(row["proof"]) for row in recorded if row.get("proof", "") not in UNPROVEN}
    wrong = {
        one.service: [client for client in one.clients if client != expected]
        for one in found
        if one.service in proven
    }
    return [
        f"{name} is recorded as proven ({proven[name]}) and really reports to {', '.join(sorted({str(c) for c in clients}))}"
        for name, clients in wrong.items()
        if clients
    ]
