"""Comments on issues. A missing issue or comment is 400, a body without text breaks the server."""

from __future__ import annotations

from typing import Any

from . import auth, db
from .auth import api
from .http import HttpError, Request, Response, Row, answer, fail, no_content, server_error, stamp
from .issues import find_issue
from .pagination import paginate
from .validation import Error, Field, payload, unprocessable

READ = ("event:read", "event:admin")
WRITE = ("event:write", "event:admin")
ADMIN = ("event:admin",)
_SELECT = (
    "SELECT c.*, u.email FROM issue_events_comment c LEFT JOIN users_user u ON u.id = c.user_id"
    " WHERE c.issue_id = %s"
)
_MEMBER = (
    "EXISTS (SELECT FROM issue_events_issue i JOIN projects_project p ON p.id = i.project_id"
    " JOIN organizations_ext_organizationuser m ON m.organization_id = p.organization_id"
    " WHERE i.id = c.issue_id AND m.user_id = %s)"
)


def comment_json(row: Row) -> dict[str, Any]:
    """A comment with its author."""
    author = {"id": str(row["user_id"]), "email": auth.renderable(row["email"])} if row["user_id"] else None
    return {
        "data": {"text": row["text"]},
        "type": "note",
        "dateCreated": stamp(row["created"]),
        "user": author,
        "id": row["id"],
    }


def _text(request: Request) -> str:
    body = payload(request, [Field("data", kind="dict", required=True)])
    errors: list[Error] = []
    for key, value in body["data"].items():
        where = ["body", "payload", "data", key]
        if key != "text":
            expected = "'text'"
            errors.append(
                {
                    "type": "literal_error",
                    "loc": [*where, "[key]"],
                    "msg": f"Input should be {expected}",
                    "ctx": {"expected": expected},
                }
            )
        if not isinstance(value, str):
            errors.append({"type": "string_type", "loc": where, "msg": "Input should be a valid string"})
    if errors:
        raise unprocessable(errors)
    if "text" not in body["data"]:
        raise server_error()
    return str(body["data"]["text"])


@api("/api/0/issues/{issue:int}/comments/", "GET", scopes=READ)
def list_comments(request: Request, issue: str) -> Response:
    """Newest first; an issue that is not there has none."""
    return paginate(
        request,
        f"{_SELECT} AND {_MEMBER}",
        [issue, auth.user_id(request)],
        "created",
        lambda rows: [comment_json(row) for row in rows],
        descending=True,
    )


@api("/api/0/issues/{issue:int}/comments/", "POST", scopes=WRITE)
def create_comment(request: Request, issue: str) -> Response:
    """The text is kept as it is, also when it is empty; the same text twice is two comments."""
    text = _text(request)
    try:
        number = find_issue(request, issue)["id"]
    except HttpError:
        raise fail(400, "Issue does not exist") from None
    row = db.must(
        "INSERT INTO issue_events_comment (issue_id, user_id, text) VALUES (%s, %s, %s) RETURNING *",
        [number, auth.user_id(request), text],
    )
    return answer(comment_json({**row, "email": (request.user or {})["email"]}), 201)


def _find(request: Request, issue: str, comment: str) -> Row:
    """The comment, whoever of the organization wrote it."""
    row = db.one(f"{_SELECT} AND c.id = %s AND {_MEMBER}", [issue, comment, auth.user_id(request)])
    if row is None:
        raise fail(400, "Comment does not exist")
    return row


@api("/api/0/issues/{issue:int}/comments/{comment:int}/", "PUT", scopes=WRITE)
def update_comment(request: Request, issue: str, comment: str) -> Response:
    """Replaces the text; nothing shows that it was edited."""
    text = _text(request)
    row = _find(request, issue, comment)
    db.execute("UPDATE issue_events_comment SET text = %s WHERE id = %s", [text, row["id"]])
    return answer(comment_json({**row, "text": text}))


@api("/api/0/issues/{issue:int}/comments/{comment:int}/", "DELETE", scopes=ADMIN)
def delete_comment(request: Request, issue: str, comment: str) -> Response:
    """204, again 400."""
    db.execute("DELETE FROM issue_events_comment WHERE id = %s", [_find(request, issue, comment)["id"]])
    return no_content()
