"""What an answer means: data, or a failure with a code, a scrubbed detail and a hint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from .errors import READ_METHODS, GlitchTipError, NotJsonError, scrub, scrub_addresses
from .scopes import accepted_scopes

if TYPE_CHECKING:
    from .connections import Answer

_CODES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found"}
_CODES |= {
    405: "method_not_allowed",
    409: "conflict",
    413: "body_too_large",
    422: "invalid",
    429: "throttled",
}
_CODES |= {502: "unavailable", 503: "unavailable", 504: "unavailable"}
#: What 6.x says of a path that it does not serve; of an object that is not there it says "Not Found" (from the
#: 6.x source, which exact version began it is open). 5.2 answers such a path in HTML (measured).
UNKNOWN_ENDPOINT = "Not found"
_LOGIN = re.compile(r"(?i)/(log-?in|sign-?in|auth|oauth2?|sso|saml2?)\b")
_ORGANIZATION = re.compile(r"/api/0/(?:organizations|projects|teams)/([^/]+)/")


@dataclass(frozen=True)
class Response:
    """An answer: HTTP status, parsed JSON (None when the body is empty) and headers with lower-case names."""

    status: int
    data: Any
    headers: Mapping[str, str]
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Asked:
    """The request that an answer belongs to, as far as its meaning depends on it.

    `secrets` are the values in it that no message may repeat; `bearer` is True when it carried an API token.
    """

    url: str
    method: str
    path: str
    bearer: bool
    secrets: tuple[str, ...] = field(repr=False)

    @property
    def writing(self) -> bool:
        """True when it may have changed something."""
        return self.method not in READ_METHODS


def read(asked: Asked, answer: Answer) -> Response | GlitchTipError:
    """An answer below 400 as data, or why it is none."""
    if 300 <= answer.status < 400:
        return _redirect(asked, answer)
    if not answer.body:
        if asked.method != "GET" or answer.status == 204:
            return Response(answer.status, None, answer.headers, answer.cookies)
        code, detail, hint = (
            "empty",
            "an empty answer where JSON was due",
            "look at what stands in front of it",
        )
    elif answer.is_json:
        try:
            return Response(answer.status, json.loads(answer.body), answer.headers, answer.cookies)
        except (ValueError, RecursionError):
            code, detail = "not_json", "the answer calls itself JSON but cannot be read as JSON"
            hint = "it was cut or changed on its way: look at what stands in front of the server"
    else:
        kind = answer.headers.get("content-type", "no content type").partition(";")[0]
        code, detail = "not_json", f"{kind} where JSON was due"
        hint = "no such endpoint on this server, or the address is not a GlitchTip"
    return NotJsonError(
        asked.method,
        asked.path,
        answer.status,
        code,
        scrub(detail, asked.secrets),
        hint,
        maybe_applied=asked.writing,
    )


def refusal(asked: Asked, answer: Answer) -> GlitchTipError:
    """An answer from 400 on as a failure."""
    status, detail = answer.status, ""
    if answer.is_json:
        try:
            detail = _detail_of(json.loads(answer.body))
        except (ValueError, RecursionError):
            detail = "unreadable JSON"
    elif "html" not in answer.headers.get("content-type", "") or not answer.body.lstrip().startswith(b"<"):
        detail = answer.body.decode("utf-8", "replace").strip()
    code, hint = _meaning(asked, answer, detail)
    return GlitchTipError(
        asked.method,
        asked.path,
        status,
        code,
        scrub_addresses(scrub(detail, asked.secrets)),
        hint,
        maybe_applied=asked.writing and status >= 500,
    )


def _meaning(asked: Asked, answer: Answer, detail: str) -> tuple[str, str]:
    """Code and hint of a refusal."""
    status = answer.status
    code = _CODES.get(status, "server_error" if status >= 500 else "refused")
    if status == 401:
        if asked.bearer:
            return code, "the token is wrong, revoked or expired: make a new one"
        return code, "this needs a token, or a login"
    if status == 403:
        return _forbidden(asked, answer)
    if status == 404:
        if not answer.is_json:
            return "no_endpoint", "no such endpoint on this server, or the address is not a GlitchTip"
        if detail == UNKNOWN_ENDPOINT:
            return "no_endpoint", (
                "this server does not serve that path: its version lacks it, or the feature is switched off "
                "(GET /api/settings/ lists enabledFeatures)"
            )
        found = _ORGANIZATION.match(asked.path)
        if found:
            return code, f"it is not there, or the token's user is not a member of organization {found[1]!r}"
        return code, "it is not there, or the token's user is not a member of its organization"
    if status == 429:
        return code, "the server asks to come back later"
    if code == "unavailable":
        return code, "the server is starting, stopping or overloaded"
    if status >= 500:
        return code, "the server failed: its log says why"
    return code, ""


def _forbidden(asked: Asked, answer: Answer) -> tuple[str, str]:
    if not answer.is_json:
        if asked.bearer:  # an unknown path is caught by the CSRF check before anyone looks for it
            return "no_endpoint", "no such endpoint on this server, or something in front of it refuses"
        return "forbidden", "the CSRF check refused it, or something in front of the server did"
    if not asked.bearer:
        return "forbidden", ""
    if b"CSRF" in answer.body:
        if asked.path.startswith("/api/0/api-tokens/"):
            return "forbidden", "no token can do this: it takes a login with e-mail and password"
        # a write whose token is unknown is taken for a session's (5.2, measured); a read gets 401
        return "unauthorized", "the token is wrong, revoked or expired: make a new one"
    scopes = accepted_scopes(asked.method, asked.path)
    if not scopes:
        return "forbidden", "the token lacks a scope, or its user lacks the role"
    wanted = f"one of {', '.join(scopes)}" if len(scopes) > 1 else scopes[0]
    return "forbidden", f"the token needs {wanted}; if it has that, its user lacks the role"


def _redirect(asked: Asked, answer: Answer) -> GlitchTipError:
    location = answer.headers.get("location", "")
    here = asked.url + asked.path
    there = urljoin(here, location)
    code, hint = "redirect", "give the address that answers itself, with the right scheme and path"
    if not location:
        location = "nowhere"
    elif _LOGIN.search(urlsplit(there).path):
        code = "login_page"
        hint = (
            "something in front of the server wants a login of its own: give an address that goes around it"
        )
    elif there.partition("?")[0] == f"{here}/":
        hint = "the path lacks its slash at the end"
    elif there.startswith("https://") and here.startswith("http://"):
        hint = "give the address with https://"
    # the query of such an address often holds a state or a ticket
    shown = scrub(location.partition("?")[0], asked.secrets)
    return GlitchTipError(asked.method, asked.path, answer.status, code, f"redirected to {shown}", hint)


def _detail_of(data: Any) -> str:
    """One line from the error bodies of django-ninja (`detail`) and allauth (`errors`)."""
    if not isinstance(data, Mapping):
        return ""
    detail = data.get("detail", data.get("message", data.get("errors", "")))
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    lines = []
    for item in detail:
        if not isinstance(item, Mapping):
            lines.append(str(item))
            continue
        where = ".".join(str(part) for part in _list(item.get("loc"))[2:]) or str(item.get("param") or "")
        what = item.get("msg") or item.get("message") or "; ".join(f"{k}: {v}" for k, v in item.items())
        lines.append(f"{where}: {what}" if where else str(what))
    return "; ".join(lines)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
