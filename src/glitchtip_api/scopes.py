"""Which token scopes each call accepts, so that a refusal can name what is missing.

Read from the permission decorators of the 5.2 line and measured there with tokens of one scope each. Calls
that are not here check no scope. One of the named scopes is enough; a higher one does not always include a
lower one (lists of projects want ``project:read`` itself).
"""

from __future__ import annotations

import re
from functools import cache

_ORG = "org:read org:write org:admin"
_TEAM = "team:read team:write team:admin"
_MEMBER = "member:read member:write member:admin"
_PROJECT = "project:read project:write project:admin"
_EVENT = "event:read event:write event:admin"
_CHANGE_PROJECT = "project:write project:admin"
_CHANGE_EVENT = "event:write event:admin"
_CHANGE_TEAM = "team:write team:admin"
_RELEASES = "project:releases"

# method, path below /api/0/ ("*" is one part of a path), accepted scopes
ACCEPTED: tuple[tuple[str, str, str], ...] = (
    ("GET", "organizations/", _ORG),
    ("POST", "organizations/", "org:write org:admin"),
    ("GET", "organizations/*/", _ORG),
    ("PUT", "organizations/*/", "org:write org:admin"),
    ("DELETE", "organizations/*/", "org:admin"),
    ("GET", "organizations/*/environments/", _ORG),
    ("GET", "organizations/*/stats_v2/", _ORG),
    ("GET", "organizations/*/members/", _MEMBER),
    ("POST", "organizations/*/members/", "member:write member:admin"),
    ("GET", "organizations/*/members/*/", _MEMBER),
    ("PUT", "organizations/*/members/*/", "member:write member:admin"),
    ("DELETE", "organizations/*/members/*/", "member:admin"),
    ("POST", "organizations/*/members/*/set_owner/", "member:admin"),
    ("POST", "organizations/*/members/*/teams/*/", _CHANGE_TEAM),
    ("DELETE", "organizations/*/members/*/teams/*/", _CHANGE_TEAM),
    ("GET", "organizations/*/teams/", f"{_TEAM} {_ORG}"),
    ("POST", "organizations/*/teams/", f"{_CHANGE_TEAM} org:write org:admin"),
    ("GET", "teams/*/*/", _TEAM),
    ("PUT", "teams/*/*/", _CHANGE_TEAM),
    ("DELETE", "teams/*/*/", "team:admin"),
    ("GET", "teams/*/*/members/", _MEMBER),
    ("GET", "teams/*/*/projects/", "project:read"),
    ("POST", "teams/*/*/projects/", _CHANGE_PROJECT),
    ("GET", "projects/", "project:read"),
    ("GET", "organizations/*/projects/", "project:read"),
    ("GET", "projects/*/*/", _PROJECT),
    ("PUT", "projects/*/*/", _CHANGE_PROJECT),
    ("DELETE", "projects/*/*/", "project:admin"),
    ("GET", "projects/*/*/teams/", f"{_TEAM} {_ORG}"),
    # the decorator says "project.write" there, which no token can have
    ("POST", "projects/*/*/teams/*/", "project:admin"),
    ("DELETE", "projects/*/*/teams/*/", "project:admin"),
    ("GET", "projects/*/*/keys/", _PROJECT),
    ("POST", "projects/*/*/keys/", _CHANGE_PROJECT),
    ("GET", "projects/*/*/keys/*/", _PROJECT),
    ("PUT", "projects/*/*/keys/*/", _CHANGE_PROJECT),
    ("DELETE", "projects/*/*/keys/*/", "project:admin"),
    ("GET", "projects/*/*/alerts/", "project:read"),
    ("POST", "projects/*/*/alerts/", _CHANGE_PROJECT),
    ("PUT", "projects/*/*/alerts/*/", _CHANGE_PROJECT),
    ("DELETE", "projects/*/*/alerts/*/", "project:admin"),
    ("GET", "projects/*/*/environments/", _PROJECT),
    ("PUT", "projects/*/*/environments/*/", _CHANGE_PROJECT),
    ("GET", "organizations/*/issues/", _EVENT),
    ("PUT", "organizations/*/issues/", _CHANGE_EVENT),
    ("DELETE", "organizations/*/issues/", _CHANGE_EVENT),
    ("PUT", "organizations/*/issues/*/", _CHANGE_EVENT),
    ("GET", "organizations/*/issues/*/hashes/", "event:read"),
    ("DELETE", "organizations/*/issues/*/hashes/", "event:admin"),
    ("GET", "organizations/*/issues/*/events/*/json/", _EVENT),
    ("GET", "projects/*/*/issues/", _EVENT),
    ("GET", "projects/*/*/events/", _EVENT),
    ("GET", "projects/*/*/events/*/", _EVENT),
    ("GET", "issues/*/", _EVENT),
    ("PUT", "issues/*/", _CHANGE_EVENT),
    ("DELETE", "issues/*/", _CHANGE_EVENT),
    ("GET", "issues/*/events/", _EVENT),
    ("GET", "issues/*/events/*/", _EVENT),
    ("GET", "issues/*/tags/", _EVENT),
    ("GET", "issues/*/user-reports/", _EVENT),
    ("GET", "issues/*/comments/", "event:read event:admin"),
    ("POST", "issues/*/comments/", _CHANGE_EVENT),
    ("PUT", "issues/*/comments/*/", _CHANGE_EVENT),
    ("DELETE", "issues/*/comments/*/", "event:admin"),
    ("POST", "organizations/*/artifactbundle/assemble/", f"{_CHANGE_PROJECT} {_RELEASES}"),
    ("POST", "organizations/*/releases/*/assemble/", f"{_RELEASES} {_CHANGE_PROJECT}"),
    ("GET", "organizations/*/releases/", _RELEASES),
    ("POST", "organizations/*/releases/", _RELEASES),
    ("GET", "organizations/*/releases/*/", _RELEASES),
    ("PUT", "organizations/*/releases/*/", _RELEASES),
    ("DELETE", "organizations/*/releases/*/", _RELEASES),
    ("GET", "organizations/*/releases/*/files/", _RELEASES),
    ("GET", "organizations/*/releases/*/files/*/", _RELEASES),
    ("DELETE", "organizations/*/releases/*/files/*/", _RELEASES),
    ("GET", "projects/*/*/releases/", _RELEASES),
    ("POST", "projects/*/*/releases/", _RELEASES),
    ("GET", "projects/*/*/releases/*/", _RELEASES),
    ("PUT", "projects/*/*/releases/*/", _RELEASES),
    ("DELETE", "projects/*/*/releases/*/", _RELEASES),
    ("GET", "projects/*/*/releases/*/files/", _RELEASES),
    ("GET", "projects/*/*/releases/*/files/*/", _RELEASES),
    ("DELETE", "projects/*/*/releases/*/files/*/", _RELEASES),
    ("POST", "import/", "org:admin"),
)


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str], tuple[str, ...]], ...]:
    return tuple(
        (method, re.compile("/api/0/" + path.replace("*", "[^/]+")), tuple(scopes.split()))
        for method, path, scopes in ACCEPTED
    )


def accepted_scopes(method: str, path: str) -> tuple[str, ...]:
    """The scopes of which a call needs one, e.g. ("project:write", "project:admin"); empty when unknown."""
    method = "GET" if method == "HEAD" else method
    for known, pattern, scopes in _patterns():
        if known == method and pattern.fullmatch(path):
            return scopes
    return ()
