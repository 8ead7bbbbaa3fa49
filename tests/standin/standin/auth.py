"""Who asks, and what the token may do.

Management calls take ``Authorization: Bearer <token>`` or a session cookie (with CSRF for writes); API
tokens take the session only. A missing scope is 403, an unknown organization or one that the user is no
member of is 404.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import re
import secrets
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from . import db, state
from .http import Handler, Request, Response, Row, fail, not_found, router, server_error

#: Bit order of the scopes (bit 0 first).
SCOPES = (
    "project:read", "project:write", "project:admin", "project:releases",
    "team:read", "team:write", "team:admin",
    "event:read", "event:write", "event:admin",
    "org:read", "org:write", "org:admin",
    "member:read", "member:write", "member:admin",
)  # fmt: skip
ROLES = {"member": 0, "admin": 1, "manager": 2, "owner": 3}
ROLE_NAMES = {number: name for name, number in ROLES.items()}
RESERVED_DOMAINS = {"test", "local", "localhost", "invalid"}
_ITERATIONS = 60_000


def scope_names(bits: int) -> list[str]:
    """The names of a bit field, in bit order."""
    return [name for number, name in enumerate(SCOPES) if bits >> number & 1]


def scope_bits(names: list[str]) -> int:
    """The bit field of these names. Raises :class:`ValueError` for an unknown one."""
    return sum(1 << SCOPES.index(name) for name in set(names))


def hash_password(password: str) -> str:
    """Salted PBKDF2, in Django's notation."""
    salt = secrets.token_hex(11)
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), _ITERATIONS)
    return f"pbkdf2_sha256${_ITERATIONS}${salt}${digest.hex()}"


def check_password(password: str, stored: str) -> bool:
    """Whether the password is the one that was hashed."""
    parts = stored.split("$")
    if len(parts) != 4:
        return False
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), parts[2].encode(), int(parts[1]))
    return hmac.compare_digest(digest.hex(), parts[3])


def email_breaks_answers(email: str) -> bool:
    """Whether an answer with this address is 500 (reserved top-level domain, or no dot)."""
    domain = email.rpartition("@")[2].lower()
    return "." not in domain or domain.rpartition(".")[2] in RESERVED_DOMAINS


def renderable(email: str) -> str:
    """The address; the 500 page where the real server cannot render it."""
    if email_breaks_answers(email):
        raise server_error()
    return email


# Sessions and CSRF


def session_data(request: Request) -> dict[str, Any] | None:
    """What the session cookie stands for, or None."""
    key = request.cookies.get("sessionid")
    raw = state.get().cache.get(f"session:{key}") if key else None
    return json.loads(raw) if raw else None


def csrf_ok(request: Request) -> bool:
    """Django's check: same origin (``Origin``, else ``Referer`` over https), and cookie and header agree."""
    trusted = state.get().settings.csrf_trusted_origins
    own = request.base_url
    origin = request.headers.get("origin")
    if origin:
        if origin != own and origin not in trusted:
            return False
    elif request.scheme == "https":
        referer = urlsplit(request.headers.get("referer", ""))
        if f"{referer.scheme}://{referer.netloc}" not in {own, *trusted}:
            return False
    cookie = request.cookies.get("csrftoken", "")
    return bool(cookie) and hmac.compare_digest(cookie, request.headers.get("x-csrftoken", ""))


def _session_user(request: Request) -> Row | None:
    request.response_headers["Vary"] = "Accept-Language, origin, Cookie"
    data = session_data(request)
    if not data or data.get("pending"):
        return None
    return db.one("SELECT * FROM users_user WHERE id = %s AND is_active", [data["user_id"]])


def _bearer(request: Request) -> bool:
    """Set user and token from the Authorization header; whether there was a valid one."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    token = db.one("SELECT * FROM api_tokens_apitoken WHERE token = %s", [value.strip()])
    if token is None:
        return False
    user = db.one("SELECT * FROM users_user WHERE id = %s AND is_active", [token["user_id"]])
    if user is None:
        return False
    request.user, request.token = user, token
    return True


def authenticate(request: Request) -> bool:
    """Find out who asks, by token or session; whether somebody was found.

    A write that has no valid token is taken for a session's and needs CSRF: 403, also with a wrong token.
    """
    if _bearer(request):
        return True
    if request.method not in {"GET", "HEAD", "OPTIONS"} and not csrf_ok(request):
        raise fail(403, "CSRF check Failed")
    user = _session_user(request)
    if user is None:
        return False
    request.user = user
    return True


def require_scopes(request: Request, scopes: tuple[str, ...]) -> None:
    """403 unless the token (if it is one) has one of these scopes; an empty tuple means that none is
    needed."""
    if scopes and request.token is not None:
        held = request.token["scopes"]
        if not any(held >> SCOPES.index(scope) & 1 for scope in scopes):
            raise fail(403, "Permission denied")


Scopes = tuple[str, ...] | Mapping[str, tuple[str, ...]]


def api(pattern: str, *methods: str, scopes: Scopes = ()) -> Callable[[Handler], Handler]:
    """Register a management call that needs a user and one of these scopes (by line where the lines differ)."""

    def register(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def wrapped(request: Request, **parts: str) -> Response:
            if not authenticate(request):
                raise fail(401, "Unauthorized")
            require_scopes(
                request, scopes if isinstance(scopes, tuple) else scopes[state.get().settings.line]
            )
            return handler(request, **parts)

        router.route(pattern, *methods)(wrapped)
        return wrapped

    return register


def session_api(pattern: str, *methods: str) -> Callable[[Handler], Handler]:
    """Register a call that takes the session cookie only."""

    def register(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def wrapped(request: Request, **parts: str) -> Response:
            if request.method not in {"GET", "HEAD"} and not csrf_ok(request):
                raise fail(403, "CSRF check Failed")
            request.user = _session_user(request)
            if request.user is None:
                raise fail(401, "Unauthorized")
            return handler(request, **parts)

        router.route(pattern, *methods)(wrapped)
        return wrapped

    return register


# What the user is in an organization


def user_id(request: Request) -> int:
    """The id of the authenticated user."""
    if request.user is None:
        raise fail(401, "Unauthorized")
    return int(request.user["id"])


def organization(request: Request, slug: str) -> Row:
    """The organization with ``role`` (number), ``member_id`` and ``is_owner`` of the user; 404 unless a
    member."""
    row = db.one(
        "SELECT o.*, m.role, m.id AS member_id, m.is_owner FROM organizations_ext_organization o"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = o.id"
        " WHERE o.slug = %s AND m.user_id = %s AND NOT o.is_deleted",
        [slug, user_id(request)],
    )
    if row is None:
        raise not_found()
    return row


def project(request: Request, org_slug: str, slug: str) -> Row:
    """The project; 404 unless the user is a member of its organization."""
    row = db.one(
        "SELECT p.* FROM projects_project p WHERE p.organization_id = %s AND p.slug = %s AND NOT"
        " p.is_deleted",
        [organization(request, org_slug)["id"], slug],
    )
    if row is None:
        raise not_found()
    return row


_SLUG_JUNK = re.compile(r"[^\w\s-]")


def slugify(text: str) -> str:
    """Django's slugify: ASCII letters only, lower case, words joined by a dash."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", _SLUG_JUNK.sub("", plain.lower())).strip("-_")
