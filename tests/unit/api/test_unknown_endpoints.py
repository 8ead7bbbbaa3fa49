"""404 in JSON: an object that is not there, or a path that the server does not serve. Only the capital differs."""

from __future__ import annotations

import inspect

import pytest

from glitchtip_api import GlitchTipError
from glitchtip_api.resources.base import Resource

ARGUMENTS = {
    "organization": "acme",
    "project": "shop",
    "team": "crew",
    "member_id": "4",
    "key_id": "9193e83c-80dc-4292-b568-632c3b3c23c6",
    "alert_id": 1,
    "monitor_id": 1,
    "issue_id": 1,
    "comment_id": 1,
    "version": "1.0",
    "event_id": "0" * 32,
}
UNSUPPORTED = {("status_pages", "delete")}


def readers_and_removers(client):
    """Every method of every resource that reads or removes one object by its address."""
    for name, resource in vars(client).items():
        if not isinstance(resource, Resource):
            continue
        for method, function in inspect.getmembers(resource, inspect.ismethod):
            removes = method in ("delete", "remove_comment", "remove_team", "remove_from_team")
            if (method == "get" or removes) and (name, method) not in UNSUPPORTED:
                wanted = inspect.signature(function).parameters
                yield f"{name}.{method}", function, [ARGUMENTS[argument] for argument in wanted]


def test_no_method_takes_an_unknown_path_for_a_missing_object(client, server):
    found = list(readers_and_removers(client))
    assert len(found) >= 15
    for name, function, arguments in found:
        server.then(404, {"detail": "Not found"})
        with pytest.raises(GlitchTipError) as failure:
            function(*arguments)
        assert failure.value.code == "no_endpoint", name
        assert "enabledFeatures" in str(failure.value), name


def test_every_method_takes_a_missing_object_for_one(client, server):
    for name, function, arguments in readers_and_removers(client):
        server.then(404, {"detail": "Not Found"})
        assert not function(*arguments), name


def test_a_server_without_the_endpoint_in_json_is_still_of_the_newer_line(client, server):
    server.then(200, {"version": ""}).then(404, {"detail": "Not found"})
    assert client.line == "6.x"


def test_the_link_of_an_invitation_is_in_no_answer(client, server):
    link = "https://t.example.org/accept/4/canary-invite/"
    server.then(201, {"id": "4", "email": "a@example.org", "inviteLink": link})
    assert "canary" not in str(client.members.invite("acme", "a@example.org"))


def test_a_repeated_removal_takes_no_unknown_path_for_success(client, server):
    server.html(502).then(404, {"detail": "Not found"})
    with pytest.raises(GlitchTipError) as failure:
        client.teams.delete("acme", "crew")
    assert failure.value.code == "no_endpoint"
    server.html(502).then(404, {"detail": "Not Found"})
    assert client.teams.delete("acme", "crew") is True
