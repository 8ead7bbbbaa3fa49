"""What is tested and with which limits, and whether that can be tested at all: found out before anything is sent."""

from __future__ import annotations

import ipaddress
import uuid
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from glitchtip_api import Client, GlitchTipError, parse_dsn

from ..docker_stack import Stack
from ..process import OpsError, run

_INSPECT_TIMEOUT = 30.0


@dataclass(frozen=True)
class Target:
    """One project of one server: its API and its DSN. ``ca_path``: PEM file of the authorities to trust."""

    url: str
    organization: str
    project: str
    token: str = field(repr=False)
    dsn: str = field(repr=False)
    ca_path: str | None = None


@dataclass(frozen=True)
class Limits:
    """What the test allows.

    Attributes:
        latency: seconds from capture to read back, 95th percentile of the scenarios.
        stack_mib: MiB of the whole stack at its peak.
        patience: seconds after sending until an event is on time.
        grace: seconds more in which a late one is still told from a lost one.
    """

    latency: float = 5.0
    stack_mib: float = 500.0
    patience: float = 60.0
    grace: float = 30.0


def check_target(client: Client, target: Target) -> str:
    """The number of the project, when the DSN leads into it and the token may read it.

    No key is tried out: one request with a wrong key makes GlitchTip refuse its whole project for 30 s.

    Raises OpsError or GlitchTipError, one sentence each.
    """
    dsn = parse_dsn(target.dsn)
    where = f"{target.organization}/{target.project}"
    try:
        project = client.projects.get(target.organization, target.project)
    except GlitchTipError as error:
        if error.status == 401:
            raise OpsError(
                f"{target.url} does not know this API token (401): it was deleted or belongs to another server."
            ) from None
        raise
    if project is None:
        raise OpsError(
            f"There is no project {where} on {target.url}, or the token's user is no member: it may have been deleted."
        )
    project_id = str(project["id"])
    if dsn.project_id != project_id:
        raise OpsError(
            f"The DSN sends to project number {dsn.project_id}, but {where} is number {project_id}: "
            "it belongs to another project, or to one that was deleted."
        )
    keys = {
        str(key.get("public", "")).replace("-", "").lower()
        for key in client.keys.list(target.organization, target.project)
    }
    if keys and dsn.key not in keys:
        raise OpsError(
            f"The key in the DSN is none of the keys of {where}: it was deleted, or the DSN is mistyped. Nothing was sent."
        )
    client.events.get(
        target.organization, target.project, uuid.uuid4().hex
    )  # names the scope that is missing
    return project_id


def listening_address(target: Target, stack: Stack | None, asked: str) -> str:
    """Where the uptime part listens, so that the server's worker reaches it; empty: nobody knows.

    What was ``asked``, else the gateway of the stack's Docker network, else 127.0.0.1 for a server on this machine.
    """
    if asked:
        return asked
    if stack is not None:
        return gateway(stack)
    host = urlsplit(target.url).hostname or ""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return "127.0.0.1" if local else ""


def gateway(stack: Stack) -> str:
    """The host's address in the network of the stack's containers; empty when it has none. Raises OpsError."""
    containers = [container for container in stack.containers() if container.running]
    if not containers:
        return ""
    form = "{{range .NetworkSettings.Networks}}{{.Gateway}} {{end}}"
    done = run(
        [stack.docker, "inspect", "--type", "container", "--format", form, containers[0].id],
        timeout=_INSPECT_TIMEOUT,
    )
    if done.code:
        raise OpsError(f"docker inspect failed: {done.reason}")
    return next(iter(done.stdout.split()), "")
