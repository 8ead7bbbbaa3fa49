"""URLs as the real server reads, checks and stores them (pydantic's HttpUrl, which reads like a browser)."""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

LONGEST = 2083
_PORTS = {"http": 80, "https": 443}
_SPACE = "".join(map(chr, range(33)))
# What stays as it is in a path, a query, a fragment; the rest becomes %XX.
_PATH = "%^/|!$&'()*+,;:=@[]~-._"
_QUERY = "%/?|!$&()*+,;:=@[]{}^`~-._\\"
_FRAGMENT = "%/?|!$&'()*+,;:=@[]{}^#~-._\\"


def read(value: Any) -> tuple[str, dict[str, Any] | None]:
    """The URL as it is stored, or the error of one that is not accepted (without its place)."""
    if not isinstance(value, str):
        return "", {"type": "url_type", "msg": "URL input should be a string or URL"}
    text = re.sub(r"[\t\r\n]", "", value.strip(_SPACE))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme is None:
        return "", _unreadable("relative URL without a base")
    if scheme[1].lower() not in _PORTS:
        expected = "'http' or 'https'"
        message = f"URL scheme should be {expected}"
        return "", {"type": "url_scheme", "msg": message, "ctx": {"expected_schemes": expected}}
    try:
        normal = _normal(scheme[1].lower(), text[scheme.end() :])
    except (UnicodeError, ValueError):
        return "", _unreadable("invalid port number")
    if normal is None:
        return "", _unreadable("empty host")
    if len(normal) > LONGEST:
        message = f"URL should have at most {LONGEST} characters"
        return "", {"type": "url_too_long", "msg": message, "ctx": {"max_length": LONGEST}}
    return normal, None


def _unreadable(reason: str) -> dict[str, Any]:
    return {
        "type": "url_parsing",
        "msg": f"Input should be a valid URL, {reason}",
        "ctx": {"error": reason},
    }


def _normal(scheme: str, rest: str) -> str | None:
    tail = re.search(r"[?#]", rest)
    end = tail.start() if tail else len(rest)
    parts = urlsplit(f"{scheme}://{rest[:end].replace(chr(92), '/').lstrip('/')}{rest[end:]}")
    host = _host(parts.hostname or "")
    if not host:
        return None
    if parts.port not in (None, _PORTS[scheme]):
        host = f"{host}:{parts.port}"
    user = quote(parts.netloc.rpartition("@")[0], safe="%:!$&'()*+,;=~-._")
    query, fragment = quote(parts.query, safe=_QUERY), quote(parts.fragment, safe=_FRAGMENT)
    path = _path(quote(parts.path, safe=_PATH))
    normal = urlunsplit((scheme, f"{user}@{host}" if user else host, path, query, fragment))
    before, sign, _ = rest.partition("#")
    if before.endswith("?") and not query:
        normal = f"{normal.partition('#')[0]}?" + (f"#{fragment}" if fragment else "")
    return f"{normal}#" if sign and not fragment else normal


def _host(host: str) -> str:
    if ":" in host:
        return f"[{host}]"
    labels = unicodedata.normalize("NFKC", host).lower().split(".")
    return ".".join(
        label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}" for label in labels
    )


def _path(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for number, segment in enumerate(segments, 1):
        plain = segment.lower().replace("%2e", ".")
        if plain not in (".", ".."):
            kept.append(segment)
            continue
        if plain == "..":
            kept = kept[:-1]
        if number == len(segments):
            kept.append("")
    return "/" + "/".join(kept)


def is_private(url: str) -> bool:
    """Whether a URL goes to an address that the 6.x line keeps webhooks from.

    Private, loopback, link-local, reserved and multicast ones; a name that does not resolve is none (source
    of the 6.2 line, glitchtip/url_validation.py).
    """
    host = urlsplit(url).hostname or ""
    try:
        found = [ipaddress.ip_address(host)]
    except ValueError:
        try:
            infos = socket.getaddrinfo(host, None)
        except OSError:
            return False
        found = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos]
    return any(
        ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_reserved or ip.is_multicast
        for ip in found
    )
