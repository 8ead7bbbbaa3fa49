"""Login by session: the only way to API tokens, which Bearer cannot list or create.

GlitchTip's login is the `browser` client of allauth headless: a CSRF cookie, then a POST with its value as
header. Behind TLS the server also wants a `Referer` of its own host, so it is always sent.

A session that ends on the server in mid-way (logged out elsewhere, or the cache it lives in was emptied) is
one clear error, `session_expired`. It is not renewed: the password is forgotten after the login, and what is
done with a session may safely be repeated from the beginning.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self, Unpack

from .answers import Response
from .client import Client
from .errors import READ_METHODS, GlitchTipError, scrub
from .late_answers import Thing, Wanted, create_once
from .paging import pages
from .resources.base import Objects, one, path_of
from .transport import Options, Transport
from .validate import check_email, scope_bits

_CONFIG = "/_allauth/browser/v1/config"
_LOGIN = "/_allauth/browser/v1/auth/login"
_SESSION = "/_allauth/browser/v1/auth/session"
_TOKENS = path_of("api-tokens")
_WHOLE_TOKEN = re.compile(r"[0-9A-Za-z_-]+")  # a masked one has dots or stars in it
_ANOTHER_ACCOUNT = "use an automation account without one, or give a token that was made by hand"


class EnsuredToken(NamedTuple):
    """What `Session.ensure_token` did: the token, whether it was made, how many others it revoked for it."""

    token: str
    created: bool
    revoked: int

    @property
    def changed(self) -> bool:
        """True when anything was made or revoked."""
        return self.created or self.revoked > 0


class Tokens:
    """API tokens of the logged-in user: ``{"id": 1, "label", "scopes": [...], "token", "created"}``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self) -> Objects:
        """All tokens of the user, newest first.

        Each with its value on 5.2 (measured) and 6.2.6 (its OpenAPI document). Later versions show only the end of
        it, ``...1a2b3c4d`` (from the source): see `is_whole`.
        """
        return list(pages(lambda wanted: self._session.send("GET", _TOKENS, params=dict(wanted)), _TOKENS))

    def create(self, label: str, scopes: Iterable[str]) -> dict[str, Any]:
        """Create a token. Sends the integer form of the scopes, which both lines of the server take."""
        body = {"label": label, "scopes": scope_bits(scopes)}
        return one(self._session.send("POST", _TOKENS, json=body).data, _TOKENS)

    def delete(self, token_id: int) -> bool:
        """Revoke a token. False when it was not there."""
        try:
            self._session.send("DELETE", f"{_TOKENS}{int(token_id)}/")
        except GlitchTipError as error:
            if error.code == "not_found":
                return False
            raise
        return True


def is_whole(token: Thing) -> bool:
    """Whether a token of a list shows its whole value, not a masked one."""
    return _WHOLE_TOKEN.fullmatch(str(token.get("token") or "")) is not None


class Session:
    """A logged-in session; use as a context manager, which logs out at the end."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._cookies: dict[str, str] = {}
        self.tokens = Tokens(self)

    def __repr__(self) -> str:
        return f"Session({self._transport.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: dict[str, Any] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> Response:
        """Send one request with the session's cookies, and with the CSRF header when it writes.

        Raises GlitchTipError as `Transport.send` does, and with code `session_expired` when the API does not
        know the session any more, `csrf` when it takes the request for a foreign one.
        """
        headers = {"Referer": self._transport.url + "/"}
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        if method not in READ_METHODS:
            headers["X-CSRFToken"] = self._cookies.get("csrftoken", "")
        try:
            answer = self._transport.send(
                method, path, json=json, params=params, headers=headers, accept=accept
            )
        except GlitchTipError as error:
            raise _session_failure(error) from None
        self._cookies.update(answer.cookies)
        return answer

    def log_in(self, email: str, password: str) -> None:
        """Log in. Raises GlitchTipError: `login_refused`, `mfa_required`, `too_many_logins` or `csrf`."""
        self.send("GET", _CONFIG)
        answer = self.send(
            "POST",
            _LOGIN,
            json={"email": email, "password": password},
            accept=frozenset({400, 401, 409, 429}),
        )
        if answer.status != 200:
            raise _login_failure(answer, password)

    def close(self) -> None:
        """Log out (the server answers 401, which is success) and forget the cookies. Never raises."""
        if "sessionid" in self._cookies:
            with contextlib.suppress(GlitchTipError):  # the session ends by itself; what was done is done
                self.send("DELETE", _SESSION, accept=frozenset({401}))
        self._cookies = {}
        self._transport.close()

    def ensure_token(self, label: str, scopes: Iterable[str]) -> EnsuredToken:
        """Return the token of `label` with exactly these `scopes`, made if it is not there.

        Tokens cannot be changed: those of the label with other scopes are deleted, after the new one exists.
        Labels may repeat on the server; of several that fit the newest is taken and none of them is touched.
        Where the list shows masked values (later 6.x) nobody can read a token again, so a new one is made.
        Cut off at any point it leaves a token that fits, or none, and a repeated call ends the work.
        """
        wanted = set(scopes)
        scope_bits(wanted)
        same_label = [token for token in self.tokens.list() if token.get("label") == label]
        fitting = [token for token in same_label if set(token.get("scopes") or []) == wanted]
        stale = [token for token in same_label if token not in fitting]
        readable = [token for token in fitting if is_whole(token)]
        if readable:
            value = str(max(readable, key=lambda token: int(token["id"]))["token"])
        else:
            value = self._create_token(label, wanted, {int(token["id"]) for token in same_label})
        revoked = sum(self.tokens.delete(int(token["id"])) for token in stale)
        return EnsuredToken(value, not readable, revoked)

    def _create_token(self, label: str, scopes: set[str], known: set[int]) -> str:
        """Create a token that is none of the `known` ids; its value.

        One that was made without an answer is taken when the list shows its value, else revoked for another.
        """

        def find() -> Objects:
            return [
                token
                for token in self.tokens.list()
                if token.get("label") == label
                and set(token.get("scopes") or []) == scopes
                and int(token["id"]) not in known
            ]

        def remove(token: Thing) -> None:
            self.tokens.delete(int(token["id"]))

        wanted = Wanted(
            f"the API token {label!r}",
            find,
            lambda one, other: set(one.get("scopes") or []) == set(other.get("scopes") or []),
            lambda _: True,  # nobody was given its value
            remove,
        )
        made = create_once(self._transport, lambda: self.tokens.create(label, scopes), wanted).thing
        if is_whole(made):
            return str(made["token"])
        remove(made)
        return str(self.tokens.create(label, scopes)["token"])

    def remove_token(self, label: str) -> int:
        """Revoke every token of `label`; returns how many there were."""
        return sum(self.tokens.delete(int(t["id"])) for t in self.tokens.list() if t.get("label") == label)

    def accept_invite(self, member_id: str | int, invite: str) -> dict[str, Any]:
        """Accept an invitation as the logged-in user; both values are in the link that was mailed.

        The link is ``{server}/accept/{member_id}/{invite}``. Returns the member with its `organization`.
        Raises GlitchTipError with code `bad_invite` for an invitation that is unknown, withdrawn or older
        than 15 days. Only a session may accept: with a token the server answers 500. The link works again
        after it was followed, for anybody who has it, so it is shown in no message.
        """
        shown = path_of("accept", member_id, "***").replace("%2A", "*")
        try:
            answer = self.send("POST", path_of("accept", member_id, invite), json={"acceptInvite": True})
        except GlitchTipError as error:
            code, detail, hint = error.code, error.detail.replace(invite, "***"), error.hint
            if error.code in ("forbidden", "not_found", "no_endpoint"):
                code, hint = "bad_invite", "ask for a new one"
                detail = "this invitation is unknown, withdrawn or older than 15 days"
            raise type(error)(
                error.method, shown, error.status, code, detail, hint, maybe_applied=error.maybe_applied
            ) from None
        return dict(one(answer.data, shown)["orgUser"])


def login(url: str, email: str, password: str, **options: Unpack[Options]) -> Session:
    """Log in and return the session. `options` are those of `Transport`.

    Raises ReadOnlyError when it may only read (a login is a write), InvalidError for an e-mail address the
    server cannot serve, and GlitchTipError with code `login_refused`, `mfa_required`, `too_many_logins` or
    `csrf`.
    """
    check_email(email)
    session = Session(Transport(url, **options))
    session.log_in(email, password)
    return session


def token_fits(client: Client, label: str, scopes: Iterable[str]) -> bool:
    """True when the client's token is alive, bears `label` and has exactly `scopes`. One GET, no login.

    Raises GlitchTipError when the server does not say (no answer, 500).
    """
    try:
        root = client.root()
    except GlitchTipError as error:
        if error.status in (401, 403):
            return False
        raise
    auth = root.get("auth") or {}
    return (
        bool(root.get("user")) and auth.get("label") == label and set(auth.get("scopes") or []) == set(scopes)
    )


def _session_failure(error: GlitchTipError) -> GlitchTipError:
    """The failure in the words of a session: what is refused is never for want of a token."""
    if error.status == 401 and error.path.startswith(path_of()):
        return GlitchTipError(
            error.method,
            error.path,
            401,
            "session_expired",
            "the session has ended on the server before the work was done",
            "run it again, it logs in anew and goes on where it stopped",
        )
    if error.status == 403 and (error.path == _LOGIN or "CSRF" in error.detail):
        return GlitchTipError(
            error.method,
            error.path,
            403,
            "csrf",
            "the server takes this request for a foreign one",
            "behind a proxy set CSRF_TRUSTED_ORIGINS to the public address and pass Host unchanged",
        )
    return error


def _login_failure(answer: Response, password: str) -> GlitchTipError:
    def failure(code: str, detail: str, hint: str = "") -> GlitchTipError:
        return GlitchTipError("POST", _LOGIN, answer.status, code, detail, hint)

    data = answer.data if isinstance(answer.data, dict) else {}
    flows = [flow for flow in (data.get("data") or {}).get("flows", []) if isinstance(flow, dict)]
    pending = [str(flow.get("id")) for flow in flows if flow.get("is_pending")]
    errors = [error for error in data.get("errors", []) if isinstance(error, dict)]
    if "mfa_authenticate" in pending:
        return failure("mfa_required", "this account asks for a second factor", _ANOTHER_ACCOUNT)
    if answer.status == 429 or any(error.get("code") == "too_many_login_attempts" for error in errors):
        return failure("too_many_logins", "too many failed logins", "wait five minutes")
    if pending:
        return failure(
            "login_refused", f"the login is not complete, the server waits for: {', '.join(pending)}"
        )
    if answer.status == 401:
        return failure("login_refused", "the password is right, but the account is deactivated")
    said = scrub("; ".join(str(error.get("message", "")) for error in errors), [password])
    return failure("login_refused", said or "the login was refused")
