"""Status pages: what the API can do, and the page that people see."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture
def scratch(server):
    """Two organizations of their own; the slugs."""
    names = [f"Contract pages {uuid.uuid4().hex[:8]}" for _ in range(2)]
    slugs = [server.post("/api/0/organizations/", {"name": name})["slug"] for name in names]
    yield slugs
    for slug in slugs:
        server.call("DELETE", f"/api/0/organizations/{slug}/")


def pages(organization):
    return f"/api/0/organizations/{organization}/status-pages/"


def title():
    return f"Status {uuid.uuid4().hex[:8]}"


def test_a_page_has_a_name_a_slug_and_no_monitors(server, scratch):
    name = title()
    made = server.post(pages(scratch[0]), {"name": name, "isPublic": True})
    assert made == {"isPublic": True, "name": name, "monitors": [], "slug": name.lower().replace(" ", "-")}


def test_a_page_is_private_unless_it_says_otherwise(server, scratch):
    assert server.post(pages(scratch[0]), {"name": title()})["isPublic"] is False


def test_the_same_name_twice_is_two_pages_and_the_slug_is_counted_up_within_the_organization(server, scratch):
    name = title()
    slug = name.lower().replace(" ", "-")
    made = [server.post(pages(scratch[0]), {"name": name})["slug"] for _ in range(2)]
    assert made == [slug, f"{slug}-2"]
    assert server.post(pages(scratch[1]), {"name": name})["slug"] == slug


def test_the_list_has_the_pages_of_all_organizations_of_the_user_whatever_the_path_says(server, scratch):
    names = [title() for _ in scratch]
    for organization, name in zip(scratch, names, strict=True):
        server.post(pages(organization), {"name": name})
    for organization in (*scratch, "nope-nope"):
        found = [
            page["name"] for page in server.get(f"{pages(organization)}?limit=100") if page["name"] in names
        ]
        assert found == names[::-1]


def test_a_page_needs_a_name_of_at_most_200_characters_and_an_organization(server, scratch):
    answers = [server.call("POST", pages(scratch[0]), body) for body in ({}, {"name": "x" * 201})]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert [answer.json()["detail"][0]["type"] for answer in answers] == ["missing", "string_too_long"]
    assert server.call("POST", pages("nope-nope"), {"name": "x"}).status_code == 404


def test_a_page_can_be_neither_read_alone_nor_changed_nor_deleted(server, scratch):
    slug = server.post(pages(scratch[0]), {"name": title()})["slug"]
    for method in ("GET", "PUT", "DELETE"):
        answer = server.call(method, f"{pages(scratch[0])}{slug}/", {"name": "x"})
        assert server.has_no_path(answer, 404), method
    assert server.call("DELETE", pages(scratch[0])).status_code == 405


def test_pages_need_no_scope_but_a_user(server, scratch, scoped):
    token = scoped("member:read")
    assert server.post(pages(scratch[0]), {"name": title()}, token=token)["slug"]
    assert server.call("GET", pages(scratch[0]), token=token).status_code == 200
    assert server.call("GET", pages(scratch[0]), anonymous=True).status_code == 401


def test_a_public_page_is_html_for_everyone_and_may_be_kept_for_a_minute(server, scratch):
    name = title()
    slug = server.post(pages(scratch[0]), {"name": name, "isPublic": True})["slug"]
    answer = server.call("GET", f"/status-pages/{scratch[0]}/{slug}/", anonymous=True)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert f"<h1>{name}</h1>" in answer.text
    assert answer.headers["Cache-Control"] == "max-age=60"
    assert server.call("GET", f"/status-pages/{scratch[1]}/{slug}/", anonymous=True).status_code == 404


def test_a_private_page_is_404_but_for_a_member_who_is_logged_in(server, scratch, cookies):
    slug = server.post(pages(scratch[0]), {"name": title()})["slug"]
    where = f"/status-pages/{scratch[0]}/{slug}/"
    assert server.call("GET", where, anonymous=True).status_code == 404
    assert server.call("GET", where).status_code == 404
    assert server.call("GET", where, cookies=cookies).status_code == 200
