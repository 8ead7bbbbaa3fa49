"""Values that the server accepts to its own harm, refused before they are sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from .errors import InvalidError

# Bit 0 first. Token creation takes the integer on the 5.2 line and on 6.x; reading returns names.
SCOPES = (
    "project:read",
    "project:write",
    "project:admin",
    "project:releases",
    "team:read",
    "team:write",
    "team:admin",
    "event:read",
    "event:write",
    "event:admin",
    "org:read",
    "org:write",
    "org:admin",
    "member:read",
    "member:write",
    "member:admin",
)
RECIPIENT_TYPES = ("email", "webhook", "discord", "googlechat")
LARGEST_NUMBER = 32767  # quantity and timespan are small integers; anything else is a 500

_RESERVED = ("test", "local", "localhost", "invalid")
_EMAIL = re.compile(r"[^@\s]+@([^@\s]+)")
_TEAM = re.compile(r"[-a-zA-Z0-9_]{1,50}")
_PORTS = {"http": 80, "https": 443}


def scope_bits(scopes: Iterable[str]) -> int:
    """The integer that token creation takes for scopes by name. Raises InvalidError for unknown ones."""
    wanted = set(scopes)
    unknown = sorted(wanted - set(SCOPES))
    if unknown:
        raise InvalidError(code="bad_scope", detail=f"unknown scope: {', '.join(unknown)}")
    return sum(1 << bit for bit, scope in enumerate(SCOPES) if scope in wanted)


def check_email(address: str) -> str:
    """Return the address. Raises InvalidError for one that GlitchTip cannot serve.

    `createsuperuser` accepts an address in a reserved top-level domain or without a dot; afterwards every
    answer that embeds the user is a 500.
    """
    found = _EMAIL.fullmatch(address)
    domain = found.group(1).rstrip(".").lower() if found else ""
    if "." not in domain:
        raise InvalidError(code="bad_email", detail="an e-mail address needs a domain with a dot")
    if domain.rpartition(".")[2] in _RESERVED:
        raise InvalidError(
            code="bad_email",
            detail=f"an e-mail address ending in .{', .'.join(_RESERVED)} makes GlitchTip fail with 500",
        )
    return address


def check_name(name: str, what: str, longest: int) -> str:
    """Return a name of 1 to `longest` characters. Raises InvalidError (the server accepts an empty one)."""
    if not name.strip() or len(name) > longest:
        raise InvalidError(code="bad_name", detail=f"the name of {what} has 1 to {longest} characters")
    return name


def check_team_slug(slug: str) -> str:
    """Return the slug. Raises InvalidError unless it has 1 to 50 letters, digits, hyphens or underscores."""
    if not _TEAM.fullmatch(slug):
        raise InvalidError(
            code="bad_slug", detail="a team's slug has 1 to 50 letters, digits, hyphens or underscores"
        )
    return slug


def check_number(value: int | None, what: str, largest: int = LARGEST_NUMBER) -> int | None:
    """Return a whole number from 0 to `largest`, or None. Raises InvalidError (-1 and 99999 are a 500)."""
    if value is not None and not 0 <= value <= largest:
        raise InvalidError(code="bad_number", detail=f"{what} is a number from 0 to {largest}")
    return value


def normal_url(url: str) -> str:
    """A URL as the server stores it: lower-case scheme and host, no default port, "/" for an empty path.

    ``https://h.example.org?token=a`` and ``https://h.example.org/?token=a`` are the same recipient.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise InvalidError(code="bad_url", detail="a recipient's URL cannot be read") from None
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS.get(parts.scheme.lower()):
        host = f"{host}:{port}"
    user = parts.netloc.rpartition("@")[0]
    netloc = f"{user}@{host}" if user else host
    return urlunsplit((parts.scheme.lower(), netloc, parts.path or "/", parts.query, parts.fragment))


def check_recipients(recipients: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Recipients ``[{"type", "url", "tags"}]`` in the server's words, sorted, ready to be sent.

    `tags` may be absent or None: then `tagsToAdd` is left out. Raises InvalidError for an unknown type, a URL
    that is not http(s), or two recipients of the same type and URL (a 500 that leaves half a rule behind).
    """
    checked: dict[tuple[str, str], dict[str, Any]] = {}
    for recipient in recipients:
        kind, url = str(recipient.get("type")), str(recipient.get("url") or "")
        if kind not in RECIPIENT_TYPES:
            raise InvalidError(
                code="bad_recipient", detail=f"a recipient's type is one of {', '.join(RECIPIENT_TYPES)}"
            )
        if kind == "email":
            if url:
                raise InvalidError(code="bad_recipient", detail="an email recipient takes no url")
        else:
            parts = urlsplit(url)
            if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
                raise InvalidError(
                    code="bad_recipient", detail=f"a {kind} recipient needs a URL with http:// or https://"
                )
            url = normal_url(url)
        if (kind, url) in checked:
            raise InvalidError(code="bad_recipient", detail=f"the same {kind} recipient is given twice")
        body: dict[str, Any] = {"recipientType": kind, "url": url}
        if recipient.get("tags") is not None:
            body["tagsToAdd"] = [str(tag) for tag in recipient["tags"]]
        checked[(kind, url)] = body
    return [checked[identity] for identity in sorted(checked)]
