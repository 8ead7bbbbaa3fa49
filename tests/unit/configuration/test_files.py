"""An export as two files: no secret in the first, nothing that runs in either."""

from __future__ import annotations

import pytest

HOOK = "https://hooks.example.org/canary-path?token=canary-hook"


def organization(**more):
    return {
        "name": "Acme",
        "teams": ["crew"],
        "members": [],
        "projects": [
            {
                "name": "Shop",
                "teams": ["crew"],
                "keys": [],
                "alerts": [{"name": "chat", "quantity": 1, "recipients": [{"type": "webhook", "url": HOOK}]}],
            }
        ],
        "monitors": [],
        "status_pages": [],
        **more,
    }


def test_the_two_files_together_are_the_structure(filters, loaded, tmp_path):
    assert loaded(filters.configuration_files([organization()]), tmp_path) == [organization()]


def test_no_secret_is_in_the_file_for_the_repository(filters, loaded, tmp_path):
    monitor = {"name": "site", "type": "GET", "url": "https://user:canary-word@www.example.org/"}
    other = {"name": "api", "type": "GET", "url": "https://www.example.org/health?key=canary-key"}
    plain = {"name": "plain", "type": "GET", "url": "https://www.example.org/health"}
    files = filters.configuration_files([organization(monitors=[monitor, other, plain])])
    assert "canary" not in files["configuration"]
    assert "https://www.example.org/health" in files["configuration"]
    assert files["secrets"].count("canary") == 4
    assert loaded(files, tmp_path)[0]["monitors"] == [monitor, other, plain]


def test_the_key_of_a_bot_is_a_secret(filters, loaded, tmp_path):
    found = organization()
    config = {"bot_email": "bot@example.org", "api_key": "canary-api-key"}
    zulip = {"type": "zulip", "url": "https://chat.example.org/", "config": config}
    found["projects"][0]["alerts"][0]["recipients"] = [zulip]
    files = filters.configuration_files([found])
    assert "canary" not in files["configuration"]
    assert loaded(files, tmp_path) == [found]


def test_equal_names_do_not_share_a_secret(filters, loaded, tmp_path):
    rule = {"name": "A b", "recipients": [{"type": "webhook", "url": f"{HOOK}1"}]}
    twin = {"name": "a-B", "recipients": [{"type": "webhook", "url": f"{HOOK}2"}]}
    found = organization()
    found["projects"][0]["alerts"] = [rule, twin]
    assert loaded(filters.configuration_files([found]), tmp_path) == [found]


@pytest.mark.parametrize(
    "text",
    [
        "{{ lookup('pipe', 'touch /tmp/x') }}",
        "{% if 1 %}x{% endif %}",
        "{# y #}",
        "#jinja2: x",
        "#jinja2: variable_start_string:'[%', variable_end_string:'%]'\n[% lookup('pipe', 'touch /tmp/x') %]",
    ],
)
def test_names_that_look_like_templates_stay_text(filters, loaded, tmp_path, text):
    found = organization(teams=[text])
    found["projects"][0]["name"] = text
    assert loaded(filters.configuration_files([found]), tmp_path) == [found]


@pytest.mark.parametrize(
    "text", ["", "no", "1", "null", "a: b", "- x", "Ünïcode", "tab\tquote\"'", "line\nbreak", "a\x85b\u2028c\u2029d\ufeff", "\x01\x7f", " a\r\n "]
)
def test_text_stays_text(filters, loaded, tmp_path, text):
    found = organization(teams=[text])
    assert loaded(filters.configuration_files([found]), tmp_path) == [found]


def test_differences_are_a_table(filters):
    change = {"kind": "alert", "name": "chat", "project": "Shop", "organization": "Acme"}
    lines = filters.configuration_table(
        {
            "plan": [
                {**change, "action": "update", "before": {"quantity": 1}, "after": {"quantity": 3}},
                {**change, "action": "create", "name": "other", "before": {}, "after": {"quantity": 3}},
            ],
            "unmanaged": [{"kind": "status_page", "name": "old", "project": None, "organization": "Acme"}],
        }
    )
    assert lines == [
        "difference  kind         name   project  organization  server -> configuration",
        "differs     alert        chat   Shop     Acme          quantity: 1 -> 3",
        "missing     alert        other  Shop     Acme",
        "unmanaged   status page  old             Acme",
    ]
    assert filters.configuration_table({"plan": [], "unmanaged": []}) == ["no differences"]
