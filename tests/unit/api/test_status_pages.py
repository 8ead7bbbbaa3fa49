"""Status pages: made once, and a clear word for all that the API cannot do."""

from __future__ import annotations

import pytest

from glitchtip_api import AmbiguousError, GlitchTipError, MissingError
from glitchtip_api.ensure import ensure_status_page
from glitchtip_api.ensure.status_page import predicted_status_page, view_status_page
from glitchtip_api.errors import InvalidError, UnsupportedError

ACME, OTHER = {"id": "1", "slug": "acme", "name": "Acme"}, {"id": "2", "slug": "other", "name": "Other"}
LIST = "/api/0/organizations/acme/status-pages/"


def page(name="Status", slug="status", public=True):
    return {"name": name, "slug": slug, "isPublic": public, "monitors": []}


def writes(server):
    return [line for line in server.lines if not line.startswith("GET")]


def test_a_new_page_is_made_after_looking(client, server):
    server.then(200, []).then(200, ACME).then(200, []).then(201, page())
    outcome = ensure_status_page(client, "acme", "Status", public=True)
    assert (outcome.changed, outcome.after) == (True, {"name": "Status", "slug": "status", "isPublic": True})
    assert server.asked[-1].json == {"name": "Status", "isPublic": True}
    assert writes(server) == [f"POST {LIST}"]


def test_a_dry_run_foresees_it_and_sends_nothing(client, server):
    server.then(200, []).then(200, ACME).then(200, []).then(200, [ACME])
    outcome = ensure_status_page(client, "acme", "Status", dry_run=True)
    assert (outcome.changed, outcome.predicted) == (True, True)
    assert (
        outcome.after == predicted_status_page("Status") == {"name": "Status", "slug": "", "isPublic": False}
    )
    assert writes(server) == []


def test_a_page_that_is_there_costs_no_request(client, server):
    for public in (None, True):
        outcome = ensure_status_page(client, "acme", "Status", public=public, listed=[page()])
        assert (outcome.changed, outcome.after) == (False, view_status_page(page()))
    assert server.lines == []


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("found", "wanted", "sentence"),
    [
        (
            page(public=True),
            {"public": False},
            "the status page 'Status' of 'acme' cannot be made private over the API",
        ),
        (
            page(public=False),
            {"public": True},
            "the status page 'Status' of 'acme' cannot be made public over the API",
        ),
        (page(), {"state": "absent"}, "the status page 'Status' of 'acme' cannot be deleted over the API"),
    ],
)
def test_what_the_api_cannot_do_is_said_before_and_after(client, server, found, wanted, sentence, dry_run):
    with pytest.raises(UnsupportedError) as refused:
        ensure_status_page(client, "acme", "Status", listed=[found], dry_run=dry_run, **wanted)
    assert refused.value.code == "unsupported"
    assert str(refused.value).startswith(sentence)
    assert "/admin/uptime/statuspage/" in refused.value.hint
    assert server.lines == []


def test_a_page_that_is_not_there_is_absent(client, server):
    assert ensure_status_page(client, "acme", "Status", state="absent", listed=[]).changed is False
    assert server.lines == []


def test_two_pages_of_the_name_are_never_guessed_between(client):
    with pytest.raises(AmbiguousError, match="2 status pages are called 'Status': status, status-2"):
        ensure_status_page(client, "acme", "Status", listed=[page(), page(slug="status-2")])


def test_a_missing_organization_is_said_though_the_list_does_not_care(client, server):
    server.then(200, []).then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match="there is no organization 'acme'"):
        ensure_status_page(client, "acme", "Status", public=True, dry_run=True)


def test_a_name_has_1_to_200_characters(client, server):
    for name in ("", "x" * 201):
        with pytest.raises(InvalidError, match="the name of a status page has 1 to 200 characters"):
            ensure_status_page(client, "acme", name)
    assert server.lines == []


def test_a_create_that_answered_500_but_happened_is_adopted(client, server):
    server.then(200, []).html(500).then(200, [page()]).then(200, [ACME])
    assert ensure_status_page(client, "acme", "Status", public=True, listed=[]).after["slug"] == "status"
    assert writes(server) == [f"POST {LIST}"]


# Whose pages they are


def test_of_one_organization_all_pages_are_its_own(client, server):
    server.then(200, [page(), page("Inside", "inside", public=False)]).then(200, [ACME])
    assert [found["name"] for found in client.status_pages.list("acme")] == ["Status", "Inside"]
    assert len(server.lines) == 2


def test_of_several_organizations_the_public_pages_at_its_own_address_are_its_own(client, server):
    pages = [page(), page("Theirs", "theirs"), page("Inside", "inside", public=False), page()]
    server.then(200, pages).then(200, [ACME, OTHER]).html(200).html(404)
    assert client.status_pages.list("acme") == [page()]
    assert server.lines[2:] == ["GET /status-pages/acme/status/", "GET /status-pages/acme/theirs/"]


def test_a_failure_at_the_address_of_a_page_is_no_answer(client, server):
    server.then(200, [page()]).then(200, [ACME, OTHER]).html(403)
    with pytest.raises(GlitchTipError, match="403"):
        client.status_pages.list("acme")


def test_a_member_of_several_organizations_cannot_look_after_private_pages(client, server):
    server.then(200, []).then(200, [ACME, OTHER])
    with pytest.raises(
        AmbiguousError, match="'Inside' would be private, but the server does not tell"
    ) as refused:
        ensure_status_page(client, "acme", "Inside", public=False, listed=[])
    assert "a member of 'acme' only" in refused.value.hint
    assert writes(server) == []


def test_a_private_page_of_the_name_somewhere_is_not_doubled(client, server):
    server.then(200, [page("Inside", "inside", public=False)]).then(200, [ACME, OTHER])
    with pytest.raises(AmbiguousError, match="a private page called 'Inside' exists"):
        ensure_status_page(client, "acme", "Inside", public=True, listed=[])
    assert writes(server) == []


def test_a_page_cannot_be_deleted_by_the_resource_either(client, server):
    with pytest.raises(
        UnsupportedError, match="the status page 'status' of 'acme' cannot be deleted over the API"
    ):
        client.status_pages.delete("acme", "status")
    assert server.lines == []
