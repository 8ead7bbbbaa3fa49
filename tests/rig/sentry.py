""" "Sentry": a second tracker that speaks the same API, beside the server and not on it."""

from __future__ import annotations

from typing import Any

from stack import PARTS, Stack, StackError, start

from glitchtip_api import Client
from glitchtip_api.session import login
from rig import images, world
from rig.shell import RigError
from rig.trackers import SCOPES, Tracker

NAME = "gtm-sentry"
#: A server beside the demo's has a project of its own: what one product reports is compared with what GlitchTip got of it.
PROJECT = "ai-admin" if world.SERVER == "gtm-server" else f"ai-admin on {world.SERVER}"
HOST = "sentry.example.org"
URL_ON_SERVER = f"http://{HOST}:9000"
STACK = Stack(
    name=NAME,
    image=images.tag("standin-5.2"),
    postgres_image=images.tag("postgres"),
    valkey_image=images.tag("valkey"),
    line="5.2",
    published=29000,
    domain=URL_ON_SERVER,
    network=world.NETWORK,
    alias=HOST,
    alias_port=9000,
    email="owner@example.org",
)


def containers() -> list[str]:
    """Names of its containers."""
    return [f"{NAME}-{part}" for part in PARTS]


def launch() -> None:
    """Start what of it does not run."""
    try:
        start(STACK)
    except StackError as error:
        raise RigError(f'"Sentry" does not start: {error}') from error


def provision(name: str = PROJECT) -> tuple[Tracker, str]:
    """The product's organization and project ``name`` there; (how to read it, the DSN that the product reports to)."""
    with login(STACK.url, STACK.email, STACK.superuser_password) as session:
        token = session.ensure_token("demo", SCOPES).token
    client = Client(STACK.url, token)
    organization = _one(client.organizations.list(), "name", "Example") or client.organizations.create(
        "Example"
    )
    slug = organization["slug"]
    team = _one(client.teams.list(slug), "slug", "ai-admin") or client.teams.create(slug, "ai-admin")
    project = _one(client.projects.list(slug), "name", name)
    if project is None:
        project = client.projects.create(slug, team["slug"], name=name, platform="node")
    key = client.keys.list(slug, project["slug"])[0]
    tracker = Tracker(
        url=STACK.url,
        email=STACK.email,
        password=STACK.superuser_password,
        token=token,
        organization=slug,
        project=project["slug"],
        project_id=str(project["id"]),
    )
    return tracker, str(key["dsn"]["public"])


def _one(found: list[dict[str, Any]], key: str, value: str) -> dict[str, Any] | None:
    return next((item for item in found if item[key] == value), None)
