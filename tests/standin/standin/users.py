"""Users: ``/api/0/``, ``/api/0/users/``."""

from __future__ import annotations

from typing import Any

from . import auth, db
from .auth import api
from .http import Request, Response, Row, answer, not_found, router, stamp
from .pagination import paginate


def user_json(user: Row) -> dict[str, Any]:
    """A user as every answer embeds it. A reserved e-mail domain makes the answer a 500."""
    return {
        "id": str(user["id"]),
        "options": dict.fromkeys(
            ("timezone", "stacktraceOrder", "language", "clock24Hours", "preferredTheme")
        ),
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
    """Open to all; with a valid token it tells the user and the token with its scopes."""
    auth.authenticate(request)
    return answer(
        {
            "version": "0",
            "user": user_json(request.user) if request.user else None,
            "auth": token_json(request.token) if request.token else None,
        },
        Vary="Accept-Language, origin, Cookie",
    )


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
    """``me`` or the own id."""
    if user not in {"me", str(auth.user_id(request))}:
        raise not_found()
    row = db.must("SELECT * FROM users_user WHERE id = %s", [auth.user_id(request)])
    return answer({**user_json(row), "chatwootIdentifierHash": None})
