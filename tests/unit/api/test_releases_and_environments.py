"""Releases and environments: looked for before they are made, written whole, never out of reach."""

from __future__ import annotations

import pytest

from glitchtip_api.errors import InvalidError

ORG = "/api/0/organizations/acme"
RELEASE = {
    "version": "shop@1.0",
    "ref": "main",
    "dateReleased": "2026-11-21T02:00:44.826Z",
    "projects": [{"name": "Shop", "slug": "shop"}],
}
NOT_FOUND = {"detail": "Not Found"}


def test_a_release_is_looked_for_before_it_is_made_because_the_second_is_a_500(client, server):
    server.then(404, NOT_FOUND).then(201, RELEASE)
    assert client.releases.create("acme", "shop@1.0", ["shop", "shop"], ref="main") == RELEASE
    assert server.lines == [f"GET {ORG}/releases/shop%401.0/", f"POST {ORG}/releases/"]
    assert server.asked[1].json == {"version": "shop@1.0", "projects": ["shop"], "ref": "main"}


def test_a_release_that_is_there_gets_the_projects_that_it_lacks(client, server):
    both = {**RELEASE, "projects": [*RELEASE["projects"], {"name": "Web", "slug": "web"}]}
    server.then(200, RELEASE).then(201, both)
    assert client.releases.create("acme", "shop@1.0", ["shop", "web"]) == both
    assert server.lines[1:] == ["POST /api/0/projects/acme/web/releases/"]
    server.then(200, both)
    assert client.releases.create("acme", "shop@1.0", ["shop"]) == both
    assert len(server.lines) == 3


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        ({"ref": "v2"}, {"ref": "v2", "dateReleased": RELEASE["dateReleased"]}),
        (
            {"date_released": "2026-01-01T00:00:00Z"},
            {"ref": "main", "dateReleased": "2026-01-01T00:00:00Z"},
        ),
    ],
)
def test_a_change_writes_the_rest_back_because_the_server_forgets_it(client, server, change, sent):
    server.then(200, RELEASE).then(200, RELEASE)
    client.releases.update("acme", "shop@1.0", **change)
    assert server.asked[1].json == sent


def test_a_release_that_is_not_there_is_not_changed(client, server):
    server.then(404, NOT_FOUND)
    assert client.releases.update("acme", "shop@1.0", ref="x") is None
    assert len(server.lines) == 1


@pytest.mark.parametrize("version", ["", " ", "a/b", "..", ".", "x" * 256])
def test_a_version_that_the_server_cannot_find_again_is_refused(client, server, version):
    for call in (client.releases.get, client.releases.delete):
        with pytest.raises(InvalidError, match="1 to 255 characters and no slash"):
            call("acme", version)
    with pytest.raises(InvalidError):
        client.releases.create("acme", version, ["shop"])
    assert server.asked == []


def test_a_release_without_a_project_is_refused(client, server):
    with pytest.raises(InvalidError, match=r"'shop@1\.0' needs a project"):
        client.releases.create("acme", "shop@1.0", [])
    assert server.asked == []


def test_releases_are_listed_of_an_organization_or_of_a_project(client, server):
    server.then(200, [RELEASE]).then(200, []).then(204).then(404, NOT_FOUND)
    assert client.releases.list("acme") == [RELEASE]
    assert client.releases.list("acme", "web") == []
    assert [client.releases.delete("acme", "shop@1.0") for _ in range(2)] == [True, False]
    assert [line.partition("?")[0] for line in server.lines] == [
        f"GET {ORG}/releases/",
        "GET /api/0/projects/acme/web/releases/",
        f"DELETE {ORG}/releases/shop%401.0/",
        f"DELETE {ORG}/releases/shop%401.0/",
    ]


def test_an_environment_of_two_projects_is_listed_once(client, server):
    production = {"id": 3, "name": "production"}
    server.then(200, [production, production, {"id": 1, "name": "staging"}])
    assert [found["name"] for found in client.environments.list("acme")] == ["production", "staging"]
    assert "visibility=visible" in server.lines[0]


def test_an_environment_is_hidden_by_its_name(client, server):
    server.then(200, {"id": 3, "name": "my env", "isHidden": True})
    assert client.environments.hide("acme", "shop", "my env")["isHidden"] is True
    assert server.lines == ["PUT /api/0/projects/acme/shop/environments/my%20env/"]
    assert server.asked[0].json == {"name": "my env", "isHidden": True}


def test_what_the_server_cannot_reach_is_refused(client, server):
    with pytest.raises(InvalidError, match="it has a slash"):
        client.environments.hide("acme", "shop", "a/b")
    with pytest.raises(InvalidError, match="visible, hidden, all"):
        client.environments.list("acme", visibility="some")
    assert server.asked == []
