"""Calls that only the 6.x line has: issues by their organization's path, and commits.

From the OpenAPI document of GlitchTip 6.2.6, not measured. On the 5.2 line these paths belong to the
single-page app, or know other methods only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from . import auth, comments, events, issues, state
from .http import Handler, Request, Response, answer, html, router, unknown_path

_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")


def only_on_6(
    pattern: str, method: str, *, scopes: tuple[str, ...], alone: bool = True
) -> Callable[[Handler], Handler]:
    """Register a call of the 6.x line; ``alone``: the 5.2 line does not know this path at all."""

    def elsewhere(request: Request, **_: str) -> Response:
        if alone and state.get().settings.line == "5.2":
            return unknown_path(request)
        response = html("Method not allowed", 405)
        response.headers["Allow"] = method if alone else "PUT"
        return response

    def register(handler: Handler) -> Handler:
        checked = auth.api(pattern, method, scopes=scopes)(handler)

        @functools.wraps(handler)
        def wrapped(request: Request, **parts: str) -> Response:
            here = elsewhere if state.get().settings.line == "5.2" else checked
            return here(request, **parts)

        if alone:
            router.route(pattern, *_METHODS)(elsewhere)
        router.route(pattern, method)(wrapped)
        return wrapped

    return register


_ISSUE = "/api/0/organizations/{org}/issues/{issue:int}/"


@only_on_6(_ISSUE, "GET", scopes=issues.READ, alone=False)
def get_organization_issue(request: Request, org: str, issue: str) -> Response:
    """One issue."""
    return answer(issues.issue_json(issues.find_issue(request, issue, org), detail=True))


@only_on_6(_ISSUE, "DELETE", scopes=issues.WRITE, alone=False)
def delete_organization_issue(request: Request, org: str, issue: str) -> Response:
    """Out of the lists at once; the worker removes it later."""
    issues.find_issue(request, issue, org)
    return issues.delete_issue(request, issue=issue)


@only_on_6("/api/0/issues/{issue:int}/commits/", "GET", scopes=issues.READ)
def commits(request: Request, issue: str) -> Response:
    """Commits of the release in which the issue first appeared; nobody uploads any here."""
    issues.find_issue(request, issue)
    return answer([])


@only_on_6(f"{_ISSUE}commits/", "GET", scopes=issues.READ)
def organization_commits(request: Request, org: str, issue: str) -> Response:
    """The same by the organization's path."""
    issues.find_issue(request, issue, org)
    return answer([])


@only_on_6(f"{_ISSUE}tags/", "GET", scopes=issues.READ)
def organization_tags(request: Request, org: str, issue: str) -> Response:
    """Tags with their values by count."""
    return issues.tags_of(request, issues.find_issue(request, issue, org))


@only_on_6(f"{_ISSUE}events/", "GET", scopes=issues.READ)
def organization_events(request: Request, org: str, issue: str) -> Response:
    """Newest first."""
    auth.organization(request, org)
    return events.issue_events(request, issue)


@only_on_6(f"{_ISSUE}events/latest/", "GET", scopes=issues.READ)
def organization_latest_event(request: Request, org: str, issue: str) -> Response:
    """The newest event."""
    issues.find_issue(request, issue, org)
    return events.latest_event(request, issue=issue)


@only_on_6(f"{_ISSUE}comments/", "GET", scopes=comments.READ)
def organization_comments(request: Request, org: str, issue: str) -> Response:
    """Newest first."""
    auth.organization(request, org)
    return comments.list_comments(request, issue=issue)
