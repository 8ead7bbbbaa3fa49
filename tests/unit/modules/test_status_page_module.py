"""Module glitchtip_status_page: check, do, check again, do again; and what no server can do is a failure."""

from __future__ import annotations

import pytest

OPTIONS = {"organization": "acme", "name": "Service status", "public": True}


@pytest.fixture
def pages(glitchtip):
    """The status pages of the fake server."""
    kept = []

    def create(asked, organization):
        glitchtip.one(glitchtip.organizations, slug=organization)
        slug = glitchtip.free_slug(asked.json["name"], kept)
        kept.insert(0, {**asked.json, "slug": slug, "monitors": []})
        return kept[0]

    path = r"/api/0/organizations/([^/]+)/status-pages/"
    organization = "/api/0/organizations/([^/]+)/"
    glitchtip.extra_routes += [
        ("GET", path, lambda _a, _o: kept),
        ("POST", path, create),
        ("GET", organization, lambda _a, o: glitchtip.one(glitchtip.organizations, slug=o)),
    ]
    return kept


@pytest.fixture
def run(run_module, provisioned, pages):
    """Run the module against the fake server with organization acme."""
    assert pages == []

    def call(_check=False, **more):
        options = {**OPTIONS, **more}
        return run_module(
            "glitchtip_status_page", _check=_check, url=provisioned.url, token=provisioned.token, **options
        )

    return call


def test_check_do_check_do(run, provisioned):
    foreseen = run(_check=True)
    assert (foreseen["changed"], foreseen["predicted"], provisioned.writes) == (True, True, [])
    done = run()
    expected = {"name": "Service status", "slug": "service-status", "isPublic": True}
    assert (done["changed"], done["status_page"]) == (True, expected)
    assert done["diff"]["after"] == {"state": "present", **expected}
    for check in (True, False):
        again = run(_check=check)
        assert (again["changed"], again["status_page"]) == (False, expected)
    assert len(provisioned.writes) == 1


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("wanted", [{"public": False}, {"state": "absent"}])
def test_what_the_api_cannot_do_fails_in_check_mode_too(run, provisioned, wanted, check):
    run()
    failed = run(_check=check, **wanted)
    assert (failed["failed"], failed["failure"]["code"]) == (True, "unsupported")
    assert "/admin/uptime/statuspage/" in failed["msg"]
    assert len(provisioned.writes) == 1


def test_absent_is_well_when_there_is_none(run):
    result = run(state="absent")
    assert (result["changed"], result["status_page"]) == (False, None)


def test_a_missing_organization_is_foreseen_in_check_mode_and_fails_outside(run):
    foreseen = run(_check=True, organization="later")
    assert (foreseen["changed"], foreseen["predicted"]) == (True, True)
    assert "there is no organization 'later'" in foreseen["msg"]
    assert run(organization="later")["failure"]["code"] == "missing"


def test_a_bare_host_is_foreseen(run_module):
    foreseen = run_module(
        "glitchtip_status_page",
        _check=True,
        url="http://127.0.0.1:1",
        token="t",
        **{**OPTIONS, "public": None},
    )
    assert (foreseen["changed"], foreseen["status_page"]["isPublic"]) == (True, False)
