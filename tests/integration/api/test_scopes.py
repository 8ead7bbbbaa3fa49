"""The table of scopes against a server: each scope of each call, with tokens that have only that one."""

from __future__ import annotations

import uuid

import pytest
import requests

from glitchtip_api import Client, GlitchTipError
from glitchtip_api.scopes import ACCEPTED, accepted_scopes
from glitchtip_api.validate import SCOPES

# Bodies and queries are looked at before scopes are; this has what any of the calls wants.
BODY = {
    "name": "scopes",
    "slug": "scopes",
    "email": "nobody@example.org",
    "orgRole": "member",
    "isHidden": False,
    "data": {"text": "scopes"},
    "version": "1",
    "projects": ["none"],
    "checksum": "0" * 40,
    "chunks": [],
    "url": "http://127.0.0.1:9/",
    "authToken": "none",
    "organizationSlug": "none",
}
QUERIES = {
    "organizations/*/stats_v2/": {
        "category": "error",
        "interval": "1d",
        "field": "sum(quantity)",
        "start": "2026-01-01T00:00:00Z",
        "end": "2026-01-02T00:00:00Z",
    },
    "organizations/*/issues/*/hashes/": {"id": "0" * 32},
    "organizations/*/releases/*/files/*/": {"project_slug": "none"},
}
PERMISSION_DENIED = {"detail": "Permission denied"}


@pytest.fixture(scope="module")
def tokens(target):
    """scope -> token with that one."""
    label = f"scopes {uuid.uuid4().hex[:8]}"
    with target.login(per_second=None) as session:
        made = {scope: session.tokens.create(f"{label} {scope}", [scope]) for scope in SCOPES}
        yield {scope: token["token"] for scope, token in made.items()}
        for token in made.values():
            session.tokens.delete(token["id"])


def path_for(pattern):
    """An address of the call under which nothing is."""
    number, name = "999999999", f"none-{uuid.uuid4().hex[:8]}"
    parts = pattern.rstrip("/").split("/")
    numeric = {"issues", "comments", "members", "alerts", "files"}
    filled = []
    for position, part in enumerate(parts):
        before = parts[position - 1] if position else ""
        if part != "*":
            filled.append(part)
        elif before == "keys":
            filled.append(str(uuid.uuid4()))
        elif before == "events":
            filled.append(uuid.uuid4().hex)
        else:
            filled.append(number if before in numeric else name)
    return "/api/0/" + "/".join(filled) + "/"


def delete_organization(url, token, slug):
    """The only thing that the calls below really make."""
    with Client(url, token) as client:
        client.delete(f"/api/0/organizations/{slug}/")


@pytest.mark.parametrize(("method", "pattern"), [(method, pattern) for method, pattern, _ in ACCEPTED])
def test_exactly_the_named_scopes_are_accepted(target, tokens, method, pattern):
    path = path_for(pattern)
    accepted = set()
    for scope, token in tokens.items():
        answer = requests.request(
            method,
            target.url + path,
            json=BODY if method in ("POST", "PUT") else None,
            params=QUERIES.get(pattern),
            headers={"Authorization": f"Bearer {token}"},
            timeout=20,
            allow_redirects=False,
        )
        if "html" in answer.headers.get("Content-Type", ""):
            pytest.skip(f"this server has no {method} {path}")
        if not (answer.status_code == 403 and answer.json() == PERMISSION_DENIED):
            accepted.add(scope)
            assert answer.status_code != 422, answer.text
        if (method, pattern, answer.status_code) == ("POST", "organizations/", 201):
            delete_organization(target.url, tokens["org:admin"], answer.json()["slug"])
    assert accepted == set(accepted_scopes(method, path))


def test_a_refusal_names_the_scopes_that_would_do(target, tokens):
    with (
        Client(target.url, tokens["event:read"]) as client,
        pytest.raises(GlitchTipError, match=r"the token needs one of org:read, org:write, org:admin"),
    ):
        client.organizations.list()
