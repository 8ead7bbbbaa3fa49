"""Issues: ``{"id": "1", "shortId", "title", "status", "level", "count": "2", "project": {...}, ...}``."""

from __future__ import annotations

import builtins
import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..errors import GlitchTipError, InvalidError, MissingError, UnsupportedError
from ..paging import PAGE_SIZE
from ..search import OWN_SORTS, STATUSES, IssueSearch, in_parts, number
from .base import Objects, Resource, one, path_of
from .comments import write_comment_once
from .events import normal_event, normal_event_id

BULK_SIZE = 40  # 6.x changes the first 50 issues of a bulk change at once and leaves the rest to its worker
NO_FILTER = "no filter: this would change every issue of the organization; give ids or at least one filter"

_ISSUE_KEYS = {
    "share_id": "shareId",
    "status_details": "statusDetails",
    "subscription_details": "subscriptionDetails",
    "user_count": "userCount",
    "matching_event_id": "matchingEventId",
}
_PRIORITY_SECONDS = 300000.0


@dataclass(frozen=True)
class BulkOutcome:
    """What a bulk change did.

    Attributes:
        ids: ids of the issues that were changed (in a dry run: would be), in ascending order.
        matched: how many issues the search found, those that needed no change included.
        dry_run: nothing was written.
    """

    ids: tuple[str, ...]
    matched: int
    dry_run: bool = False


def normal_issue(issue: Mapping[str, Any]) -> dict[str, Any]:
    """An issue under its camelCase keys: the answer of a change has some in snake_case (5.2)."""
    return {_ISSUE_KEYS.get(key, key): value for key, value in issue.items()}


def priority(issue: Mapping[str, Any]) -> float:
    """The number behind the order ``priority``: log10 of the count plus the last event's time in 300,000 s."""
    return math.log10(max(1, int(issue["count"]))) + _time(issue["lastSeen"]).timestamp() / _PRIORITY_SECONDS


class Issues(Resource):
    """/api/0/issues/ and /api/0/organizations/{organization}/issues/"""

    def iterate(
        self,
        organization: str,
        project: str | None = None,
        *,
        search: IssueSearch | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Issues of an organization, or of one of its projects, newest `lastSeen` first.

        Args:
            project: slug. Its list also holds issues that were merged into others, and deleted ones that the
                worker has not removed; ``IssueSearch(projects=[id])`` on the organization does not.
            search: what to look for. The orders ``count`` and ``priority`` read everything first.
            params: parameters of the server as they are; they win over those of `search`.

        An issue comes once, also when it moves to another page meanwhile.

        Raises InvalidError for a search that the server would misread, or an order in `params` that loses
        issues between pages.
        """
        wanted = search or IssueSearch()
        merged = {**(wanted.params() if search else {}), **(params or {})}
        if (params or {}).get("sort") in OWN_SORTS:
            raise InvalidError(
                code="bad_sort",
                detail=f"pages in the order {merged['sort']!r} skip and repeat issues:"
                " give it as IssueSearch(sort=...), which sorts here",
            )
        path = (
            path_of("organizations", organization, "issues")
            if project is None
            else path_of("projects", organization, project, "issues")
        )
        found = _once(self._client.paginate(path, merged))
        if wanted.seen_since is not None:
            found = _seen_since(found, wanted.seen_since, ends=merged.get("sort") == "-last_seen")
        if wanted.sorted_here and "sort" not in (params or {}):
            key: Callable[[Mapping[str, Any]], float] = (
                priority if wanted.sort.endswith("priority") else lambda issue: int(issue["count"])
            )
            found = iter(sorted(found, key=key, reverse=wanted.sort.startswith("-")))
        yield from found

    def list(
        self,
        organization: str,
        project: str | None = None,
        params: Mapping[str, Any] | None = None,
        limit: int | None = None,
        *,
        search: IssueSearch | None = None,
    ) -> Objects:
        """The same as a list; `limit` ends the reading early."""
        return builtins.list(islice(self.iterate(organization, project, search=search, params=params), limit))

    def get(self, issue_id: str | int) -> dict[str, Any] | None:
        """One issue, or None. One that was merged into another, or is being deleted, can still be read."""
        return self._client.get_or_none(path_of("issues", issue_id))

    def by_event_id(self, organization: str, event_id: str) -> dict[str, Any] | None:
        """The issue of an event, with the event's id as ``matchingEventId``; None when no event has that id."""
        path = path_of("organizations", organization, "issues")
        answer = self._client.request("GET", path, params={"query": normal_event_id(event_id)})
        if answer.headers.get("x-sentry-direct-hit") != "1":
            raise UnsupportedError(
                "GET", path, answer.status, "unsupported", "the server did not take the text for an event id"
            )
        return answer.data[0] if answer.data else None

    def events(self, issue_id: str | int, limit: int | None = PAGE_SIZE) -> Objects:
        """The newest events of an issue, complete, `limit` at most. An issue that is not there has none."""
        found = self._client.paginate(path_of("issues", issue_id, "events"))
        return [normal_event(event) for event in islice(found, limit)]

    def latest_event(self, issue_id: str | int) -> dict[str, Any] | None:
        """The newest event of an issue, or None (also when an issue has lost its events)."""
        return self._client.get_or_none(path_of("issues", issue_id, "events", "latest"))

    def event(self, issue_id: str | int, event_id: str) -> dict[str, Any] | None:
        """One event of an issue, or None."""
        return self._client.get_or_none(path_of("issues", issue_id, "events", normal_event_id(event_id)))

    def event_json(self, organization: str, issue_id: str | int, event_id: str) -> dict[str, Any] | None:
        """An event in its raw form: with `level`, `environment` and `tags` as an object; None without one.

        5.2 answers 500 for an event that is not there, so that answer is believed only when the event cannot
        be read otherwise either. 6.x answers 404.
        """
        plain = normal_event_id(event_id)
        path = path_of("organizations", organization, "issues", issue_id, "events", plain, "json")
        try:
            return self._client.get_or_none(path)
        except GlitchTipError as error:
            if error.status == 500 and self.event(issue_id, plain) is None:
                return None
            raise

    def tags(self, issue_id: str | int, key: str | None = None) -> Objects:
        """Tags by key: ``{"key", "uniqueValues", "totalValues", "topValues": [{"value", "count"}, ...]}``.

        In the order of their keys (the server's order changes). Raises GlitchTipError (`not_found`) for an
        issue that is not there.
        """
        path = path_of("issues", issue_id, "tags")
        found: Objects = self._client.get(path, None if key is None else {"key": key})
        return sorted(found, key=lambda tag: str(tag["key"]))

    def hashes(self, organization: str, issue_id: str | int) -> Objects:
        """What groups events into this issue: ``{"id": 32 digits, "latestEvent": {...} or None}``."""
        return builtins.list(
            self._client.paginate(path_of("organizations", organization, "issues", issue_id, "hashes"))
        )

    def remove_hashes(self, organization: str, issue_id: str | int, hashes: Sequence[str]) -> None:
        """Let later events with these hashes make issues of their own. Past events stay where they are."""
        if not hashes:
            raise InvalidError(code="no_hashes", detail="name the hashes to remove")
        path = path_of("organizations", organization, "issues", issue_id, "hashes")
        self._client.request("DELETE", path, params={"id": [normal_event_id(text) for text in hashes]})

    def user_reports(self, issue_id: str | int) -> Objects:
        """What users wrote about it: ``{"eventID", "name", "email", "comments", "dateCreated"}``."""
        return builtins.list(self._client.paginate(path_of("issues", issue_id, "user-reports")))

    def commits(self, issue_id: str | int) -> Objects:
        """Commits of the release in which the issue first appeared (6.0.9 and later).

        Raises UnsupportedError on a server without them, GlitchTipError (`not_found`) without the issue.
        """
        issue = self._existing(issue_id)
        _need(issue, "firstRelease", "commits of an issue")
        found: Objects = self._client.get(path_of("issues", issue_id, "commits"))
        return found

    def update(self, issue_id: str | int, *, status: str) -> dict[str, Any]:
        """Set the status: unresolved, resolved or ignored. Raises InvalidError for anything else."""
        path = path_of("issues", issue_id)
        return normal_issue(one(self._client.put(path, {"status": _status(status)}), path))

    def resolve(
        self, issue_id: str | int, *, in_release: str | None = None, in_next_release: bool = False
    ) -> dict[str, Any]:
        """Resolve, if wanted in a release: its events do not open the issue again (6.0.8 and later).

        Args:
            in_release: version; one that the server does not know is ignored by it without a word.
            in_next_release: the project's newest release, as the server understands it.

        Raises UnsupportedError when a release is wanted of a server that would only drop it (5.2), and
        GlitchTipError (`not_found`) without the issue.
        """
        if in_release is None and not in_next_release:
            return self.update(issue_id, status="resolved")
        if in_release is not None and in_next_release:
            raise InvalidError(
                code="bad_release", detail="resolve in one release or in the next, not in both"
            )
        _need(self._existing(issue_id), "firstRelease", "resolving in a release")
        details = {"inNextRelease": True} if in_release is None else {"inRelease": in_release}
        path = path_of("issues", issue_id)
        body = {"status": "resolved", "statusDetails": details}
        return normal_issue(one(self._client.put(path, body), path))

    def assign(self, issue_id: str | int, assignee: str | None) -> dict[str, Any]:
        """Assign to ``user:<id>``, ``team:<slug>`` or a member's e-mail address; None assigns to nobody (6.2).

        Raises UnsupportedError on 5.2, which would drop it without a word, and GlitchTipError (`not_found`)
        when the issue, the member or the team is not there.
        """
        _need(self._existing(issue_id), "assignedTo", "assigning an issue")
        path = path_of("issues", issue_id)
        return normal_issue(one(self._client.put(path, {"assignedTo": assignee or ""}), path))

    def _existing(self, issue_id: str | int) -> dict[str, Any]:
        path = path_of("issues", issue_id)
        return one(self._client.get(path), path)

    def delete(self, issue_id: str | int) -> bool:
        """Delete one; the worker removes it within seconds, until then it can be read. False: was not there."""
        return self._client.remove(path_of("issues", issue_id))

    def comments(self, issue_id: str | int) -> Objects:
        """Comments, newest first: ``{"id": 1, "data": {"text"}, "user": {...}, "dateCreated"}``.

        An issue that is not there has none.
        """
        return builtins.list(self._client.paginate(path_of("issues", issue_id, "comments")))

    def add_comment(self, issue_id: str | int, text: str) -> dict[str, Any]:
        """Write a comment, once also when its answer is lost. Raises MissingError without the issue."""
        path = path_of("issues", issue_id, "comments")

        def create() -> dict[str, Any]:
            return self._comment(lambda: self._client.post(path, {"data": {"text": text}}), path)

        return write_comment_once(self._client, path, text, create)

    def edit_comment(self, issue_id: str | int, comment_id: int, text: str) -> dict[str, Any]:
        """Replace the text of a comment; nothing shows that it was edited. Raises MissingError without it."""
        path = path_of("issues", issue_id, "comments", comment_id)
        return self._comment(lambda: self._client.put(path, {"data": {"text": text}}), path)

    def remove_comment(self, issue_id: str | int, comment_id: int) -> bool:
        """Delete a comment. False when it was not there."""
        path = path_of("issues", issue_id, "comments", comment_id)
        try:
            return self._client.remove(path)
        except GlitchTipError as error:
            if _does_not_exist(error):
                return False
            raise

    def _comment(self, write: Callable[[], Any], path: str) -> dict[str, Any]:
        try:
            return one(write(), path)
        except GlitchTipError as error:
            if _does_not_exist(error):  # 400 instead of 404
                raise MissingError(
                    error.method, path, error.status, "missing", error.detail, "or its user is no member"
                ) from None
            raise

    def merge(self, organization: str, issue_ids: Sequence[str | int], *, dry_run: bool = False) -> str:
        """Merge issues of one project into the one with the highest id, and return that id.

        The others leave the organization's list, and later events of all come to the survivor. At most 1,000
        past events move, tags do not. On 5.2 the survivor's count is not summed, on 6.2 it grows by what
        moved.

        Raises InvalidError for fewer than two or more than 40 issues, or issues of different projects;
        MissingError when one is not in the organization's list (deleted, or merged already: it would
        swallow the others).
        """
        ids = sorted({number(value, "an issue") for value in issue_ids}, key=int)
        if not 2 <= len(ids) <= BULK_SIZE:
            raise InvalidError(
                code="bad_merge", detail=f"a merge takes 2 to {BULK_SIZE} issues, not {len(ids)}"
            )
        found = {issue["id"]: issue for issue in self.iterate(organization, search=IssueSearch(ids=ids))}
        gone = [value for value in ids if value not in found]
        if gone:
            raise MissingError(
                code="missing", detail=f"not among the issues of {organization}: {', '.join(gone)}"
            )
        projects = sorted({str(issue["project"]["slug"]) for issue in found.values()})
        if len(projects) > 1:
            raise InvalidError(
                code="bad_merge", detail=f"the issues belong to several projects: {', '.join(projects)}"
            )
        if not dry_run:
            path = path_of("organizations", organization, "issues")
            self._client.put(path, {"merge": 1}, params={"id": ids})
        return ids[-1]

    def bulk_update(
        self,
        organization: str,
        *,
        status: str,
        search: IssueSearch | None = None,
        ids: Sequence[str | int] | None = None,
        expect: int | None = None,
        dry_run: bool = False,
    ) -> BulkOutcome:
        """Set the status of all issues that a search finds, or of these ids.

        What the search finds is read first and then changed by id, forty at a time, and read back: the
        server's own bulk change answers 200 whatever it did, changes merged and deleted issues too, does not
        understand event ids, and without a filter changes the whole organization.

        Args:
            expect: how many issues it may touch at most.

        Raises InvalidError for an empty filter (code `no_filter`) or when more than `expect` would be touched
        (code `too_many`); GlitchTipError (code `not_applied`) when an issue did not take the status.
        """
        _status(status)
        found = self._selected(organization, search, ids)
        touched = [issue["id"] for issue in found if issue["status"] != status]
        _within(touched, expect)
        if not dry_run:
            path = path_of("organizations", organization, "issues")
            for part in in_parts(touched, BULK_SIZE):
                self._client.put(path, {"status": status}, params={"id": part})
                now = self.iterate(organization, search=IssueSearch(ids=part))
                other = sorted((issue["id"] for issue in now if issue["status"] != status), key=int)
                if other:
                    raise GlitchTipError(
                        "PUT", path, 200, "not_applied", f"still not {status}: {', '.join(other)}"
                    )
        return BulkOutcome(tuple(touched), len(found), dry_run)

    def bulk_delete(
        self,
        organization: str,
        *,
        search: IssueSearch | None = None,
        ids: Sequence[str | int] | None = None,
        expect: int | None = None,
        dry_run: bool = False,
    ) -> BulkOutcome:
        """Delete all issues that a search finds, or these ids. Guarded like `bulk_update`."""
        found = self._selected(organization, search, ids)
        touched = [issue["id"] for issue in found]
        _within(touched, expect)
        if not dry_run:
            path = path_of("organizations", organization, "issues")
            for part in in_parts(touched, BULK_SIZE):
                self._client.request("DELETE", path, params={"id": part})
        return BulkOutcome(tuple(touched), len(found), dry_run)

    def _selected(
        self, organization: str, search: IssueSearch | None, ids: Sequence[str | int] | None
    ) -> Objects:
        """The issues that a bulk change is about, in the order of their ids."""
        if ids is not None and search is not None:
            raise InvalidError(code="bad_search", detail="give ids or a search, not both")
        if ids is not None and not ids:
            return []
        searches = (
            [IssueSearch(ids=part) for part in in_parts(ids, BULK_SIZE)] if ids else [search or IssueSearch()]
        )
        found: dict[str, dict[str, Any]] = {}
        for wanted in searches:
            if wanted.is_empty:
                raise InvalidError(code="no_filter", detail=NO_FILTER)
            # By first event, because that never changes: an issue cannot move to another page meanwhile.
            steady = {"sort": "first_seen"}
            for issue in self.iterate(organization, search=wanted, params=steady):
                found[issue["id"]] = issue
        return sorted(found.values(), key=lambda issue: int(issue["id"]))


def permalink(issue: Mapping[str, Any], organization: str, domain: str | None = None) -> str:
    """The address of an issue in the server's pages.

    The server's own ``permalink`` has the project's slug where the organization's belongs; only its domain is
    right.

    Args:
        organization: slug.
        domain: address of the server as people see it; None takes it from the issue.

    Raises InvalidError when the issue does not say its domain and none is given.
    """
    base = domain
    if base is None:
        end = f"/{issue['project']['slug']}/issues/{issue['id']}"
        shown = str(issue.get("permalink") or "")
        if not shown.endswith(end):
            raise InvalidError(
                code="no_domain", detail="the issue does not say its server's address: give domain"
            )
        base = shown.removesuffix(end)
    return f"{base.rstrip('/')}/{organization}/issues/{issue['id']}"


def _status(status: str) -> str:
    if status not in STATUSES:
        raise InvalidError(code="bad_status", detail=f"a status is one of {', '.join(STATUSES)}")
    return status


def _within(touched: Sequence[str], expect: int | None) -> None:
    if expect is not None and len(touched) > expect:
        raise InvalidError(
            code="too_many",
            detail=f"{len(touched)} issues would be touched, {expect} at most were expected; nothing was changed",
        )


def _need(issue: Mapping[str, Any], key: str, what: str) -> None:
    """Raise UnsupportedError unless the server's issues have that key (it tells the line)."""
    if key not in issue:
        raise UnsupportedError(
            code="unsupported",
            detail=f"this server does not know {what}",
            hint="GlitchTip 6.2 does; nothing changed",
        )


def _does_not_exist(error: GlitchTipError) -> bool:
    return error.status == 400 and error.detail.endswith("does not exist")


def _once(issues: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for issue in issues:
        if issue["id"] not in seen:
            seen.add(issue["id"])
            yield issue


def _seen_since(
    issues: Iterator[dict[str, Any]], since: dt.datetime, *, ends: bool
) -> Iterator[dict[str, Any]]:
    for issue in issues:
        if _time(issue["lastSeen"]) >= since:
            yield issue
        elif ends:  # newest first: the rest is older
            return


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
