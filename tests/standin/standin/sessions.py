"""Session login: allauth headless, the ``browser`` client.

The csrf cookie is set by any call here; login replaces it. Five failures for one e-mail within five
minutes, then ``too_many_login_attempts`` (the password does not matter any more); other accounts are not
affected.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import struct
import time
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

from . import auth, db, mail, root, state
from .http import FORBIDDEN_PAGE, Request, Response, Row, encode, html, router

BASE = "/_allauth/browser/v1"
CSRF_AGE = 31_449_600
MAX_FAILURES = 5
FAILURE_WINDOW = 300
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+\Z")


def _cookie(name: str, value: str, age: int, http_only: bool = False) -> str:
    settings = state.get().settings
    is_secure = settings.csrf_cookie_secure if name == "csrftoken" else settings.session_cookie_secure
    secure = "; Secure" if is_secure else ""
    expires = formatdate(time.time() + age if age else 0, usegmt=True)
    quoted = value or '""'
    only = "; HttpOnly" if http_only else ""
    return f"{name}={quoted}; expires={expires}{only}; Max-Age={age}; Path=/; SameSite=Lax{secure}"


def _reply(request: Request, status: int, rotate: bool = False, **body: Any) -> Response:
    """An answer with the csrf cookie: the one that the client has, or a new one."""
    token = request.cookies.get("csrftoken") or ""
    if rotate or not re.fullmatch(r"\w{32,64}", token):
        token = secrets.token_urlsafe(24).replace("-", "a").replace("_", "b")
    response = Response(status, encode({"status": status, **body}), "application/json")
    response.headers["Vary"] = "Accept-Language, Cookie, origin"
    response.cookies.append(_cookie("csrftoken", token, CSRF_AGE))
    return response


def _error(
    request: Request, message: str, code: str, param: str | None = None, status: int = 400
) -> Response:
    error = {"message": message, "code": code}
    if param:
        error["param"] = param
    return _reply(request, status, errors=[error])


def _signup_open() -> bool:
    return state.get().settings.user_registration or root.registration_for_first_user()


def _flows() -> list[dict[str, Any]]:
    flows: list[dict[str, Any]] = [{"id": "login"}]
    if _signup_open():
        flows.append({"id": "signup"})
    return [*flows, {"id": "mfa_login_webauthn"}]


def _anonymous(request: Request, pending: bool = False) -> Response:
    flows = _flows()
    if pending:
        flows.append({"id": "mfa_authenticate", "is_pending": True, "types": ["recovery_codes", "totp"]})
    return _reply(request, 401, data={"flows": flows}, meta={"is_authenticated": False})


def _user(request: Request) -> Row | None:
    """The user of a complete session."""
    data = auth.session_data(request)
    if not data or data.get("pending"):
        return None
    return db.one("SELECT * FROM users_user WHERE id = %s AND is_active", [data["user_id"]])


def _authenticated(
    request: Request, user: Row, methods: list[dict[str, Any]], rotate: bool = False
) -> Response:
    data = {
        "user": {
            "id": user["id"],
            "display": user["email"],
            "email": user["email"],
            "has_usable_password": bool(user["password"]),
        },
        "methods": methods,
    }
    return _reply(request, 200, rotate, data=data, meta={"is_authenticated": True})


def _start(response: Response, user: Row, methods: list[dict[str, Any]], pending: bool = False) -> None:
    """Store a session and put its cookie on the answer."""
    settings = state.get().settings
    key = secrets.token_hex(16)
    value = json.dumps({"user_id": user["id"], "methods": methods, "pending": pending})
    state.get().cache.set(f"session:{key}", value, settings.session_cookie_age)
    response.cookies.append(_cookie("sessionid", key, settings.session_cookie_age, http_only=True))
    if not pending:
        db.execute("UPDATE users_user SET last_login = now() WHERE id = %s", [user["id"]])


def _body(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(request.body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@router.route(f"{BASE}/config", "GET")
def config(request: Request) -> Response:
    """What the login page may offer; sets the csrf cookie."""
    account = {
        "login_methods": ["email"],
        "is_open_for_signup": _signup_open(),
        "email_verification_by_code_enabled": False,
        "login_by_code_enabled": False,
        "password_reset_by_code_enabled": False,
        "authentication_method": "email",
    }
    mfa = {"supported_types": ["totp", "webauthn", "recovery_codes"], "passkey_login_enabled": True}
    return _reply(request, 200, data={"account": account, "socialaccount": {"providers": []}, "mfa": mfa})


@router.route(f"{BASE}/auth/session", "GET", "DELETE")
def session(request: Request) -> Response:
    """GET: who is logged in (401 when nobody). DELETE: log out; 401 is success."""
    user = _user(request)
    if request.method == "DELETE":
        if not auth.csrf_ok(request):
            return html(FORBIDDEN_PAGE, 403)
        state.get().cache.delete(f"session:{request.cookies.get('sessionid')}")
        response = _anonymous(request)
        response.cookies.append(_cookie("sessionid", "", 0))
        return response
    if user is None:
        data = auth.session_data(request)
        return _anonymous(request, pending=bool(data and data.get("pending")))
    data = auth.session_data(request) or {}
    return _authenticated(request, user, data.get("methods", []))


@router.route(f"{BASE}/auth/login", "POST")
def login(request: Request) -> Response:
    """E-mail and password; 401 with a pending flow when the account has TOTP."""
    if not auth.csrf_ok(request):
        return html(FORBIDDEN_PAGE, 403)
    if _user(request):
        return _reply(request, 409)
    body = _body(request)
    email, password = str(body.get("email", "")), str(body.get("password", ""))
    if not _EMAIL.match(email):
        return _error(request, "Enter a valid email address.", "invalid", "email")
    failures = f"login_failed:{hashlib.sha256(email.lower().encode()).hexdigest()}"
    cache = state.get().cache
    if int(cache.get(failures) or 0) >= MAX_FAILURES:
        return _error(request, "Too many failed login attempts. Try again later.", "too_many_login_attempts")
    user = db.one("SELECT * FROM users_user WHERE lower(email) = lower(%s) AND is_active", [email])
    if user is None or not auth.check_password(password, user["password"]):
        cache.increase(failures, FAILURE_WINDOW)
        message = "The email address and/or password you specified are not correct."
        return _error(request, message, "email_password_mismatch", "password")
    cache.delete(failures)
    methods = [{"method": "password", "at": time.time(), "email": user["email"]}]
    if user["totp_secret"]:
        response = _anonymous(request, pending=True)
        _start(response, user, methods, pending=True)
        return response
    response = _authenticated(request, user, methods, rotate=True)
    _start(response, user, methods)
    return response


@router.route(f"{BASE}/auth/signup", "POST")
def signup(request: Request) -> Response:
    """A new user, logged in at once; 403 while registration is closed."""
    if not auth.csrf_ok(request):
        return html(FORBIDDEN_PAGE, 403)
    if _user(request):
        return _reply(request, 409)
    if not _signup_open():
        return _reply(request, 403)
    body = _body(request)
    email, password = str(body.get("email", "")), str(body.get("password", ""))
    if not _EMAIL.match(email):
        return _error(request, "Enter a valid email address.", "invalid", "email")
    user = db.one(
        "INSERT INTO users_user (email, password) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING *",
        [email, auth.hash_password(password)],
    )
    if user is None:
        return _error(
            request, "A user is already registered with this email address.", "email_taken", "email"
        )
    mail.send([email], "Please Confirm Your Email Address", verification_key=_verification_key(user))
    methods = [{"method": "signup", "at": time.time()}]
    response = _authenticated(request, user, methods, rotate=True)
    _start(response, user, methods)
    return response


def _verification_key(user: Row) -> str:
    digest = hmac.new(state.get().settings.secret_key.encode(), f"verify:{user['id']}".encode(), "sha256")
    return f"{user['id']}:{digest.hexdigest()[:40]}"


@router.route(f"{BASE}/auth/email/verify", "POST")
def verify_email(request: Request) -> Response:
    """Confirm the address with the key that was mailed."""
    if not auth.csrf_ok(request):
        return html(FORBIDDEN_PAGE, 403)
    key = str(_body(request).get("key", ""))
    number = key.partition(":")[0]
    user = db.one("SELECT * FROM users_user WHERE id = %s", [number]) if number.isdigit() else None
    if user is None or not hmac.compare_digest(key, _verification_key(user)):
        return _error(request, "Invalid or expired key.", "invalid_or_expired_key", "key")
    db.execute("UPDATE users_user SET email_verified = true WHERE id = %s", [user["id"]])
    current = _user(request)
    return _authenticated(request, current, []) if current else _anonymous(request)


# Time-based one-time passwords (RFC 6238: SHA-1, 30 s, 6 digits)


def totp(secret: str, moment: float) -> str:
    """The six digits that belong to this moment (seconds since the epoch)."""
    key = base64.b32decode(secret)
    digest = hmac.new(key, struct.pack(">Q", int(moment) // 30), "sha1").digest()
    start = digest[-1] & 15
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def _code_fits(secret: str, code: str) -> bool:
    return any(hmac.compare_digest(totp(secret, time.time() + step), code) for step in (-30, 0, 30))


@router.route(f"{BASE}/account/authenticators/totp", "GET", "POST")
def authenticator(request: Request) -> Response:
    """GET: 404 with a fresh secret while there is none. POST ``{"code"}``: activate it."""
    user = _user(request)
    if user is None:
        return _anonymous(request)
    if not user["email_verified"]:
        message = "You cannot activate two-factor authentication until you have verified your email address."
        return _error(request, message, "unverified_email", status=409)
    data = {
        "type": "totp",
        "created_at": user["totp_created"] and user["totp_created"].timestamp(),
        "last_used_at": None,
    }
    cache, key = state.get().cache, f"totp:{user['id']}"
    if request.method == "GET":
        if user["totp_secret"]:
            return _reply(request, 200, data=data)
        secret = cache.get(key) or base64.b32encode(secrets.token_bytes(20)).decode()
        cache.set(key, secret, 3600)
        url = f"otpauth://totp/{quote(user['email'])}?secret={secret}&issuer={request.host.partition(':')[0]}"
        return _reply(request, 404, meta={"secret": secret, "totp_url": url})
    if not auth.csrf_ok(request):
        return html(FORBIDDEN_PAGE, 403)
    secret = cache.get(key) or ""
    if not secret or not _code_fits(secret, str(_body(request).get("code", ""))):
        return _error(request, "Incorrect code.", "incorrect_code", "code")
    created = db.must(
        "UPDATE users_user SET totp_secret = %s, totp_created = now() WHERE id = %s RETURNING totp_created",
        [secret, user["id"]],
    )["totp_created"]
    return _reply(request, 200, data={**data, "created_at": created.timestamp()})


@router.route(f"{BASE}/auth/2fa/authenticate", "POST")
def second_factor(request: Request) -> Response:
    """Complete a pending login with the code."""
    if not auth.csrf_ok(request):
        return html(FORBIDDEN_PAGE, 403)
    data = auth.session_data(request)
    if not data or not data.get("pending"):
        return _reply(request, 409)
    user = db.must("SELECT * FROM users_user WHERE id = %s", [data["user_id"]])
    if not _code_fits(user["totp_secret"], str(_body(request).get("code", ""))):
        return _error(request, "Incorrect code.", "incorrect_code", "code")
    state.get().cache.delete(f"session:{request.cookies.get('sessionid')}")
    methods = [*data["methods"], {"method": "mfa", "at": time.time(), "id": 1, "type": "totp"}]
    response = _authenticated(request, user, methods, rotate=True)
    _start(response, user, methods)
    return response
