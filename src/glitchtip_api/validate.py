"""Values that the server accepts to its own harm, refused before they are sent."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

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
# The kinds of recipient that came after the 5.2 line, with their first version (upstream CHANGELOG and the
# schema of the 6.2 line: apps/alerts/schema.py).
RECIPIENTS_SINCE = {"teams": "6.0.7", "ntfy": "6.0.7", "zulip": "6.0.7", "feishu": "6.1.7"}
RECIPIENT_TYPES = ("email", "webhook", "discord", "googlechat", *RECIPIENTS_SINCE)
ZULIP_CONFIG = ("bot_email", "api_key", "channel", "topic")
ZULIP_TOPIC = "GlitchTip Alerts"  # what the server takes when no topic is sent
LONGEST_URL = 2000  # the column's size; a longer one is a 500
LARGEST_NUMBER = 32767  # quantity and timespan are small integers; anything else is a 500

_RESERVED = ("test", "local", "localhost", "invalid")
_EMAIL = re.compile(r"[^@\s]+@([^@\s]+)")
_TEAM = re.compile(r"[-a-zA-Z0-9_]{1,50}")
_PROJECT = re.compile(r"[-a-zA-Z0-9_]{1,50}")
_SLACK_LIKE = ("slack", "mattermost", "rocketchat")  # take the general webhook's body as it is
_PORTS = {"http": 80, "https": 443}
# What a browser, and with it the server, leaves as it is in a path and in a query.
_PATH_AS_IS = "%^/|!$&'()*+,;:=@[]~-._\\"
_QUERY_AS_IS = "%/?|!$&()*+,;:=@[]{}^`~-._\\"
_FRAGMENT_AS_IS = "%/?|!$&'()*+,;:=@[]{}^#~-._\\"


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


def check_project_slug(slug: str) -> str:
    """Return the slug. Raises InvalidError for one under which the server would not find the project again.

    5.2 stores any text as a slug (measured: "has space" is answered with 200), but then no address reaches
    the project; more than 50 characters are a 500.
    """
    if not _PROJECT.fullmatch(slug):
        raise InvalidError(
            code="bad_slug", detail="a project's slug has 1 to 50 letters, digits, hyphens or underscores"
        )
    return slug


def check_rate_limit(limit: Mapping[str, Any] | None) -> dict[str, int] | None:
    """A key's ``{"count", "window"}`` (events, seconds), both 1 to 32767, or None. Raises InvalidError.

    Numbers that do not fit are a 500 on 5.2, and a count of 0 is stored as no limit.
    """
    if limit is None:
        return None
    numbers = {name: limit.get(name) for name in ("count", "window")}
    if any(not isinstance(number, int) or not 1 <= number <= LARGEST_NUMBER for number in numbers.values()):
        raise InvalidError(
            code="bad_rate_limit",
            detail=f"a rate limit has a count and a window, both from 1 to {LARGEST_NUMBER}",
        )
    return {name: int(number) for name, number in numbers.items() if number is not None}


def check_number(value: int | None, what: str, largest: int = LARGEST_NUMBER) -> int | None:
    """Return a whole number from 0 to `largest`, or None. Raises InvalidError (-1 and 99999 are a 500)."""
    if value is not None and not 0 <= value <= largest:
        raise InvalidError(code="bad_number", detail=f"{what} is a number from 0 to {largest}")
    return value


def normal_url(url: str) -> str:
    """A URL as the server stores it, which is as a browser reads it.

    Lower-case scheme and host, ASCII host name, no default port, "/" for an empty path, no dot segments,
    what is not ASCII percent-encoded: ``https://h.example.org?token=a`` and
    ``https://h.example.org/?token=a`` are the same recipient (measured on 5.2). Raises InvalidError for one
    that cannot be read.
    """
    text = re.sub(r"[\t\r\n]", "", url.strip("".join(map(chr, range(33)))))
    scheme, colon, rest = text.partition(":")
    rest = re.split(r"[?#]", rest, maxsplit=1)[0].replace("\\", "/") + text[_end_of_path(text) :]
    try:
        parts = urlsplit(f"{scheme}{colon}//{rest.lstrip('/')}")
        port = parts.port
        host = _ascii_host(parts.hostname or "")
    except (UnicodeError, ValueError):
        raise InvalidError(code="bad_url", detail="a recipient's URL cannot be read") from None
    if port is not None and port != _PORTS.get(parts.scheme.lower()):
        host = f"{host}:{port}"
    user = quote(parts.netloc.rpartition("@")[0], safe="%:!$&'()*+,;=~-._")
    query = quote(parts.query, safe=_QUERY_AS_IS)
    fragment = quote(parts.fragment, safe=_FRAGMENT_AS_IS)
    path = _without_dots(quote(parts.path, safe=_PATH_AS_IS))
    normal = urlunsplit((parts.scheme.lower(), f"{user}@{host}" if user else host, path, query, fragment))
    # urlunsplit drops a "?" or "#" with nothing after it; the server keeps it
    before, hash_sign, _ = text.partition("#")
    if before.endswith("?") and not query:
        normal = f"{normal.partition('#')[0]}?" + (f"#{fragment}" if fragment else "")
    return f"{normal}#" if hash_sign and not fragment else normal


def _end_of_path(text: str) -> int:
    found = re.search(r"[?#]", text)
    return found.start() if found else len(text)


def _ascii_host(host: str) -> str:
    if ":" in host:
        return f"[{host.lower()}]"
    labels = unicodedata.normalize("NFKC", host).lower().split(".")
    plain = [
        label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}" for label in labels
    ]
    return ".".join(plain)


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for number, segment in enumerate(segments, 1):
        plain = segment.lower().replace("%2e", ".")
        if plain == "..":
            kept = kept[:-1]
        elif plain != ".":
            kept.append(segment)
            continue
        if number == len(segments):
            kept.append("")
    return "/" + "/".join(kept)


def check_recipients(recipients: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Recipients ``[{"type", "url", "tags", "config"}]`` in the server's words, sorted, ready to be sent.

    `tags` may be absent or None: then `tagsToAdd` is left out. `config` is for zulip only, and there needed:
    ``{"bot_email", "api_key", "channel", "topic"}``, of which `topic` may be left out; it is sent as
    `botEmail`, `apiKey`, `channel`, `topic` beside the URL (6.x takes it so and returns it as `config`).
    Raises InvalidError for an unknown type, a URL that is not http(s) or longer than 2000 characters, an
    incomplete `config`, or two recipients of the same type and URL (a 500 that leaves half a rule behind).
    """
    checked: dict[tuple[str, str], dict[str, Any]] = {}
    for recipient in recipients:
        kind, url = str(recipient.get("type")), str(recipient.get("url") or "")
        _check_type(kind)
        if kind == "email":
            if url:
                raise InvalidError(code="bad_recipient", detail="an email recipient takes no url")
        else:
            url = _checked_url(kind, url)
        if (kind, url) in checked:
            raise InvalidError(code="bad_recipient", detail=f"the same {kind} recipient is given twice")
        body: dict[str, Any] = {"recipientType": kind, "url": url}
        if recipient.get("tags") is not None:
            body["tagsToAdd"] = [str(tag) for tag in recipient["tags"]]
        checked[(kind, url)] = {**body, **_checked_config(kind, recipient.get("config"))}
    return [checked[identity] for identity in sorted(checked)]


def _check_type(kind: str) -> None:
    if kind in RECIPIENT_TYPES:
        return
    way = (
        "the address of its incoming webhook, which takes the same body"
        if kind in _SLACK_LIKE
        else "the address of a bridge that passes the message on"
    )
    raise InvalidError(
        code="bad_recipient",
        detail=f"GlitchTip has no recipients of type {kind!r}; use type webhook with {way} "
        f"(types: {', '.join(RECIPIENT_TYPES)})",
    )


def _checked_url(kind: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise InvalidError(
            code="bad_recipient", detail=f"a {kind} recipient needs a URL with http:// or https://"
        )
    url = normal_url(url)
    if len(url) > LONGEST_URL:
        raise InvalidError(
            code="bad_recipient", detail=f"a recipient's URL has at most {LONGEST_URL} characters"
        )
    return url


def _checked_config(kind: str, config: Mapping[str, Any] | None) -> dict[str, str]:
    given = {name: str(value) for name, value in (config or {}).items() if value not in (None, "")}
    if kind != "zulip":
        if given:
            raise InvalidError(
                code="bad_recipient", detail=f"a {kind} recipient takes no config; it is for zulip"
            )
        return {}
    missing = [name for name in ("bot_email", "api_key", "channel") if name not in given]
    unknown = sorted(set(given) - set(ZULIP_CONFIG))
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise InvalidError(
            code="bad_recipient",
            detail=f"the config of a zulip recipient {wrong}; it has {', '.join(ZULIP_CONFIG)}",
        )
    return {
        "botEmail": given["bot_email"],
        "apiKey": given["api_key"],
        "channel": given["channel"],
        "topic": given.get("topic", ZULIP_TOPIC),
    }
