"""Errors of the API, with everything secret taken out before anyone can print them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MASK = "***"
READ_METHODS = frozenset({"GET", "HEAD"})  # those that change nothing, whatever becomes of them
_USERINFO = re.compile(r"(?<=://)[^/@\s'\"]+(?=@)")
_AUTH = re.compile(
    r"(?i)\b(bearer\s+|(?:token|sentry_key|glitchtip_key)\s*[=:]\s*|token\s+(?=\S{16}))[^\s,;&'\"]+"
)
_KEY_PATH = re.compile(r"(?<=/keys/)[0-9a-fA-F-]{32,36}")  # the id of a DSN key is its secret
_LINK_PATH = re.compile(r"(?<=/accept/)(\d+/)[^/\s]+|(?<=/heartbeat_check/)[0-9a-fA-F-]{32,36}")
_ADDRESS = re.compile(r"(https?://[^/?#\s'\"<>]+)[/?#][^\s'\"<>]+")
_TOKEN = re.compile(r"\b[0-9a-fA-F]{64}\b")
_LONGEST_DETAIL = 500
# The same as in glitchtip_core.text, which this package cannot import; a test compares them.
_UNPRINTABLE = re.compile(
    "\U0001f3f4\U000e0067\U000e0062(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073)\U000e007f|"
    "[\x00-\x1f\x7f-\x9f\xad\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """What a server said as one line, without control characters and without those that turn the direction of writing."""
    return _UNPRINTABLE.sub(_kept, text).strip()


def _kept(found: re.Match[str]) -> str:
    """A flag as it is (see `glitchtip_core.text`), a single character as a space."""
    return found[0] if len(found[0]) > 1 else " "


def printable_lines(text: str) -> str:
    """The same for a text of lines."""
    return "\n".join(_UNPRINTABLE.sub(_kept, line) for line in text.split("\n"))


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without the given `secrets`, and without what looks like one.

    That is user info in URLs (DSNs), authorization values, API tokens, and the parts of paths that let in
    whoever knows them: ids of DSN keys, invitations, heartbeats of monitors.
    """
    for secret in sorted({s for s in secrets if s and len(s) >= 4}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _KEY_PATH.sub(MASK, _USERINFO.sub(MASK, text))
    text = _TOKEN.sub(MASK, _LINK_PATH.sub(lambda found: f"{found[1] or ''}{MASK}", text))
    return _AUTH.sub(rf"\1{MASK}", text)


def scrub_addresses(text: str) -> str:
    """Return `text` with the path and query of every address in it masked: a webhook's path is its secret."""
    return _ADDRESS.sub(rf"\1/{MASK}", text)


class GlitchTipError(Exception):
    """The server refused, did not answer, or answered something that is no answer.

    Attributes:
        method, path: the request, e.g. ``GET`` ``/api/0/organizations/`` (never a body).
        status: HTTP status, or None when there was no answer.
        code: short machine-readable reason, e.g. ``not_found``, ``timeout``, ``not_json``.
        detail: what the server said, scrubbed and cut.
        hint: what a person can do about it, may be empty.
        maybe_applied: True when a failed write may have taken effect: look again before repeating it.
    """

    def __init__(
        self,
        method: str = "",
        path: str = "",
        status: int | None = None,
        code: str = "error",
        detail: str = "",
        hint: str = "",
        *,
        maybe_applied: bool = False,
    ) -> None:
        self.method = method
        self.path = printable(scrub(path))
        self.status = status
        self.code = code
        self.detail = printable(scrub(detail))[:_LONGEST_DETAIL]
        self.hint = printable(hint)
        self.maybe_applied = maybe_applied
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        request = f"{self.method} {self.path}".strip()
        answer = f"{request} answered {self.status}" if self.status is not None and request else request
        parts = [part for part in (answer, self.detail) if part]
        text = ": ".join(parts) or self.code
        return f"{text} ({self.hint})" if self.hint else text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._sentence()!r})"

    def as_dict(self) -> dict[str, Any]:
        """The parts of the failure as a mapping, for machines: status, code, detail, method, path, hint."""
        return {
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "method": self.method,
            "path": self.path,
            "hint": self.hint,
        }


class UnreachableError(GlitchTipError):
    """No whole answer: `code` says why.

    ``refused`` (nobody listens, unknown host), ``connect_timeout``, ``timeout``, ``broken``, ``not_http``,
    ``stranger`` (somebody else answers on this host), ``not_known`` (it is not known who answers on this host, or nobody
    does yet), ``too_large``, ``untrusted`` (certificate), ``tls``, ``proxy``, ``request`` (could not be made),
    ``no_requests`` (library missing), ``circuit_open`` (not even asked: the server has been down).
    """


class NotJsonError(GlitchTipError):
    """Something other than JSON where JSON was due.

    GlitchTip 5.2 answers many unknown paths with status 200 and the HTML of its single-page application.
    """


class ReadOnlyError(GlitchTipError):
    """A client made with ``read_only=True`` was asked to write. Nothing was sent."""


class VersionError(GlitchTipError):
    """The server is older than what this client supports (code ``too_old``)."""


class MissingError(GlitchTipError):
    """Something that had to be there first is not there (an organization, a team, a project)."""


class AmbiguousError(GlitchTipError):
    """Two or more objects have the name that should identify one (GlitchTip keeps only team slugs unique)."""


class InvalidError(GlitchTipError):
    """A value that the server would accept to its own harm, or refuse unclearly. Nothing was sent."""


class UnsupportedError(GlitchTipError):
    """This server's line does not have that (code `unsupported`). Nothing was changed."""
