"""API tokens: session cookie only, full value in every answer, no update."""

from __future__ import annotations

import secrets

from . import auth, db
from .auth import session_api
from .http import Request, Response, answer, no_content, not_found
from .pagination import paginate
from .users import token_json
from .validation import Field, payload, unprocessable

VARY = "Accept-Language, origin, Cookie"


@session_api("/api/0/api-tokens/", "GET")
def list_tokens(request: Request) -> Response:
    """The user's own tokens, newest first."""
    return paginate(
        request,
        "SELECT * FROM api_tokens_apitoken WHERE user_id = %s",
        [auth.user_id(request)],
        "created",
        lambda rows: [token_json(row) for row in rows],
        descending=True,
    )


def _bits(scopes: object) -> int:
    """The bit field of names in a list or of a number; bits that stand for no scope are dropped."""
    if isinstance(scopes, list):
        try:
            return auth.scope_bits([str(scope) for scope in scopes])
        except ValueError:
            raise unprocessable([{"scopes": "Invalid scope"}]) from None
    error = Field("scopes", kind="int").check(scopes, ["body", "payload", "scopes"])
    if error:
        raise unprocessable([error])
    return int(str(scopes)) & ((1 << len(auth.SCOPES)) - 1)


@session_api("/api/0/api-tokens/", "POST")
def create_token(request: Request) -> Response:
    """``scopes`` is a list of names or the integer bit field. A label may be used twice."""
    body = payload(
        request,
        [Field("label", nullable=True, max_length=255), Field("scopes", kind="any", required=True)],
    )
    bits = _bits(body["scopes"])
    token = db.must(
        "INSERT INTO api_tokens_apitoken (user_id, label, token, scopes) VALUES (%s, %s, %s, %s) RETURNING *",
        [auth.user_id(request), body.get("label") or "", secrets.token_hex(32), bits],
    )
    return answer(token_json(token), 201, Vary=VARY)


@session_api("/api/0/api-tokens/{token:int}/", "DELETE")
def delete_token(request: Request, token: str) -> Response:
    """204, again 404."""
    if not db.execute(
        "DELETE FROM api_tokens_apitoken WHERE id = %s AND user_id = %s", [token, auth.user_id(request)]
    ):
        raise not_found()
    return no_content()
