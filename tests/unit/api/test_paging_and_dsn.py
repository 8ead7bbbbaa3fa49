"""Pages of lists, and DSNs."""

from __future__ import annotations

import pytest

from glitchtip_api import GlitchTipError, NotJsonError, parse_dsn
from glitchtip_api.errors import InvalidError
from glitchtip_api.paging import next_cursor

KEY = "9193e83c80dc4292b568632c3b3c23c6"


def glitchtip_link(cursor: str, more: bool) -> str:
    """The header as GlitchTip 5.2 sends it: the whole value wrapped in {'...'}."""
    host = "http://public.example.org/api/0/organizations/"
    return (
        f'{{\'<{host}?limit=2>; rel="previous"; results="false", <{host}?cursor={cursor}&limit=2>; '
        f'rel="next"; results="{str(more).lower()}"; cursor="{cursor}"\'}}'
    )


def test_the_malformed_link_header_gives_the_next_cursor():
    assert next_cursor(glitchtip_link("bz0xJnA9", True)) == "bz0xJnA9"


def test_a_well_formed_link_header_gives_the_next_cursor():
    link = (
        '<https://s.example.org/x/?&cursor=0:0:1>; rel="previous"; results="false"; cursor="0:0:1", '
        '<https://s.example.org/x/?&cursor=0:100:0>; rel="next"; results="true"; cursor="0:100:0"'
    )
    assert next_cursor(link) == "0:100:0"


@pytest.mark.parametrize("link", [None, "", "nonsense", glitchtip_link("abc", False)])
def test_the_last_page_has_no_next_cursor(link):
    assert next_cursor(link) is None


def test_a_list_is_read_page_by_page_from_the_address_that_was_given(client, server):
    server.then(200, [{"id": 1}, {"id": 2}], headers={"Link": glitchtip_link("two", True)})
    server.then(200, [{"id": 3}], headers={"Link": glitchtip_link("three", False)})
    assert [item["id"] for item in client.paginate("/api/0/organizations/")] == [1, 2, 3]
    assert server.lines[1] == "GET /api/0/organizations/?limit=100&cursor=two"


def test_a_repeated_cursor_ends_in_a_failure_and_not_in_a_loop(client, server):
    for _ in range(2):
        server.then(200, [{"id": 1}], headers={"Link": glitchtip_link("same", True)})
    with pytest.raises(GlitchTipError) as failure:
        list(client.paginate("/api/0/organizations/"))
    assert failure.value.code == "paging"


def test_an_object_where_a_list_was_due_is_a_failure(client, server):
    server.then(200, {"detail": "x"})
    with pytest.raises(NotJsonError):
        client.organizations.list()


def test_parts_of_a_path_are_quoted(client, server):
    server.then(200, [])
    client.teams.list("a/../b")
    assert server.lines == ["GET /api/0/organizations/a%2F..%2Fb/teams/?limit=100"]


@pytest.mark.parametrize(
    ("text", "base", "project"),
    [
        (f"http://{KEY}@127.0.0.1:8080/1", "http://127.0.0.1:8080", "1"),
        (f"https://{KEY}@errors.example.org/gt/12", "https://errors.example.org/gt", "12"),
        (f"https://{KEY}:secret@errors.example.org/3", "https://errors.example.org", "3"),
        (f"http://{KEY}@[2001:db8::1]:9000/4", "http://[2001:db8::1]:9000", "4"),
        ("http://9193e83c-80dc-4292-b568-632c3b3c23c6@h.example.org/5", "http://h.example.org", "5"),
    ],
)
def test_a_dsn_is_taken_apart(text, base, project):
    dsn = parse_dsn(text)
    assert (dsn.base_url, dsn.project_id, dsn.key) == (base, project, KEY)
    assert dsn.envelope_path == f"/api/{project}/envelope/"


def test_a_dsn_hides_its_key_when_printed():
    dsn = parse_dsn(f"http://{KEY}@h.example.org/1")
    assert KEY not in f"{dsn} {dsn!r}"
    assert dsn.url == f"http://{KEY}@h.example.org/1"


def test_a_dsn_is_rewritten_to_another_address():
    dsn = parse_dsn(f"http://{KEY}@localhost:9090/1").with_base("http://127.0.0.1:8080/")
    assert dsn.url == f"http://{KEY}@127.0.0.1:8080/1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        f"ftp://{KEY}@h/1",
        f"http://{KEY}@/1",
        "http://short@h/1",
        f"http://{KEY}@h/",
        f"http://{KEY}@h/x",
    ],
)
def test_a_bad_dsn_is_refused_without_showing_its_key(text):
    with pytest.raises(InvalidError, match="not a DSN") as failure:
        parse_dsn(text)
    assert KEY not in str(failure.value)
