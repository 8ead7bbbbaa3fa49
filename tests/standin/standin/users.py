"""Users: ``/api/0/``, ``/api/0/users/``."""

from __future__ import annotations

import json
from typing import Any

from . import auth, db
from .auth import api
from .http import (
    Request,
    Response,
    Row,
    answer,
    fail,
    no_content,
    not_found,
    router,
    server_error,
    stamp,
)
from .pagination import paginate
from .validation import Error, Field, payload, unprocessable

#: What a user may set for the pages of the browser.
OPTIONS = ("timezone", "stacktraceOrder", "language", "clock24Hours", "preferredTheme")


def user_json(user: Row) -> dict[str, Any]:
    """A user as every answer embeds it. A reserved e-mail domain makes the answer a 500."""
    return {
        "id": str(user["id"]),
        "options": {name: user["options"].get(name) for name in OPTIONS},
        "username": user["email"],
        "dateJoined": stamp(user["created"]),
        "email": auth.renderable(user["email"]),
        "hasPasswordAuth": True,
        "identities": [],
        "lastLogin": stamp(user["last_login"]),
        "isSuperuser": user["is_superuser"],
        "isActive": user["is_active"],
        "name": user["name"],
    }


def me_or_number(name: str) -> list[Error]:
    """The errors of a part of a path that is neither ``me`` nor a number."""
    return [
        {
            "type": "literal_error",
            "loc": ["path", name, "literal['me']"],
            "msg": "Input should be 'me'",
            "ctx": {"expected": "'me'"},
        },
        {
            "type": "int_parsing",
            "loc": ["path", name, "int"],
            "msg": "Input should be a valid integer, unable to parse string as an integer",
        },
    ]


def token_json(token: Row) -> dict[str, Any]:
    """An API token, its value included."""
    return {
        "id": token["id"],
        "label": token["label"],
        "scopes": auth.scope_names(token["scopes"]),
        "token": token["token"],
        "created": stamp(token["created"]),
    }


@router.route("/api/0/", "GET")
def api_root(request: Request) -> Response:
    """Open to all; with a valid token it tells the user and the token with its scopes. It knows no session."""
    if request.headers.get("authorization"):
        auth.authenticate(request)
    known = request.token is not None
    return answer(
        {
            "version": "0",
            "user": user_json(request.user) if request.user and known else None,
            "auth": token_json(request.token) if request.token else None,
        },
        Vary="Accept-Language, origin, Cookie",
    )


def _me(request: Request) -> Row:
    return db.must("SELECT * FROM users_user WHERE id = %s", [auth.user_id(request)])


def _number(user: str) -> str:
    """``me`` or a number; 422 for anything else."""
    if user != "me" and not user.isdigit():
        raise unprocessable(me_or_number("user_id"))
    return user


def _only_me(request: Request, user: str) -> Row:
    """The user itself; 404 for the number of another."""
    if _number(user) not in {"me", str(auth.user_id(request))}:
        raise not_found()
    return _me(request)


@api("/api/0/users/", "GET")
def list_users(request: Request) -> Response:
    """The user itself."""
    return paginate(
        request,
        "SELECT * FROM users_user WHERE id = %s",
        [auth.user_id(request)],
        "created",
        lambda rows: [user_json(row) for row in rows],
    )


@api("/api/0/users/{user}/", "GET")
def get_user(request: Request, user: str) -> Response:
    """The user itself, whichever number is asked for."""
    _number(user)
    return answer({**user_json(_me(request)), "chatwootIdentifierHash": None})


@api("/api/0/users/{user}/", "PUT")
def update_user(request: Request, user: str) -> Response:
    """Name and options; 500 without a name."""
    body = payload(
        request,
        [Field("options", kind="dict", required=True), Field("name", nullable=True, max_length=255)],
    )
    row = _only_me(request, user)
    if body.get("name") is None:
        raise server_error()
    options = {name: value for name, value in body["options"].items() if name in OPTIONS}
    changed = db.must(
        "UPDATE users_user SET name = %s, options = %s WHERE id = %s RETURNING *",
        [body["name"], json.dumps(options), row["id"]],
    )
    return answer(user_json(changed))


@api("/api/0/users/{user}/", "DELETE")
def delete_user(request: Request, user: str) -> Response:
    """204; a primary owner of an organization stays (400)."""
    row = _only_me(request, user)
    if db.one(
        "SELECT 1 AS one FROM organizations_ext_organizationuser WHERE user_id = %s AND is_owner", [row["id"]]
    ):
        raise fail(400, "User is organization owner. Delete organization or transfer ownership first.")
    db.execute("DELETE FROM users_user WHERE id = %s", [row["id"]])
    return no_content()


@api("/api/0/users/{user}/notifications/", "GET", "PUT")
def notifications(request: Request, user: str) -> Response:
    """Whether projects mail the user, unless they say otherwise. Any number is the user itself."""
    _number(user)
    row = _me(request)
    wanted = row["subscribe_by_default"]
    if request.method == "PUT":
        body = payload(request, [Field("subscribeByDefault", kind="bool")])
        wanted = body.get("subscribeByDefault", True)
        db.execute("UPDATE users_user SET subscribe_by_default = %s WHERE id = %s", [wanted, row["id"]])
    return answer({"subscribeByDefault": wanted})
