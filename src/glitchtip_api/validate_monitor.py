"""Monitors that the server accepts to its own harm, or refuses unclearly, refused before they are sent.

Measured on the 5.2 line: interval 0 stops the checks of every monitor of the instance, an unknown type is
answered with 500 yet stored and breaks the list for everyone, other numbers out of range are a plain 500.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .errors import InvalidError
from .version import Line

MONITOR_TYPES = ("Ping", "GET", "POST", "TCP Port", "SSL", "Heartbeat")
HTTP_TYPES = ("Ping", "GET", "POST")
#: Seconds between checks: a small integer on 5.2 (measured), a day on 6.2.6 (notes of one who runs it).
LONGEST_INTERVALS: Mapping[Line, int] = {"5.2": 32767, "6.x": 86400}
LONGEST_TIMEOUT = 60
LONGEST_TEXT = 2000
DEFAULT_INTERVAL = 60
#: What of a monitor is written, as the server names it; `project` is an id as a string.
FIELDS = ("monitorType", "name", "url", "expectedStatus", "expectedBody", "interval", "timeout")

_PORT_TARGET = re.compile(r"([^\s:/@?#\[\]]+):([0-9]{1,5})")
_LABEL = re.compile(r"(?!-)[a-z0-9\u00a1-\uffff-]{1,63}(?<!-)", re.IGNORECASE)
_TOP_LEVEL = re.compile(r"(?!-)(?:[a-z\u00a1-\uffff-]{2,63}|xn--[a-z0-9-]{1,59})(?<!-)", re.IGNORECASE)


def normal_target(kind: str | None, url: str) -> str:
    """The URL as the server stores it: ``host:port`` of a `TCP Port` monitor in lower case, else as it is."""
    return url.lower() if kind == "TCP Port" else url


def check_monitor(body: Mapping[str, Any], line: Line = "5.2") -> None:
    """Check a whole monitor in the words of a server of this line (`FIELDS`).

    Raises InvalidError with one sentence: what is wrong, and what to do. No URL is repeated in it, only its host.
    """
    kind, name = body.get("monitorType"), body.get("name")
    if kind not in MONITOR_TYPES:
        known = ", ".join(MONITOR_TYPES)
        sentence = f"the type is one of {known}, not {kind!r}" if kind else f"it needs a type: {known}"
        raise _refusal("bad_type", name, sentence)
    _check_interval(name, body.get("interval"), LONGEST_INTERVALS[line])
    timeout, status = body.get("timeout"), body.get("expectedStatus")
    if timeout is not None and not 1 <= timeout <= LONGEST_TIMEOUT:
        raise _refusal("bad_number", name, f"timeout is 1 to {LONGEST_TIMEOUT} seconds")
    if status is None and kind in ("GET", "POST"):
        raise _refusal("bad_number", name, f"type {kind} needs expected_status, for example 200")
    if status is not None and not 100 <= status <= 599:
        raise _refusal("bad_number", name, "expected_status is an HTTP status, 100 to 599")
    if len(body.get("expectedBody") or "") > LONGEST_TEXT:
        raise _refusal("bad_text", name, f"expected_body has at most {LONGEST_TEXT} characters")
    _check_target(str(kind), name, str(body.get("url") or ""))


def _refusal(code: str, name: object, sentence: str) -> InvalidError:
    return InvalidError(code=code, detail=f"monitor {name!r}: {sentence}")


def needs_line(body: Mapping[str, Any]) -> bool:
    """Whether the answer of :func:`check_monitor` depends on the server's line."""
    interval = body.get("interval")
    return isinstance(interval, int) and interval > LONGEST_INTERVALS["5.2"]


def _check_interval(name: object, interval: Any, longest: int) -> None:
    if interval == 0:
        sentence = "interval 0 would stop the checks of every monitor of the instance; give 1 to "
    elif not isinstance(interval, int) or not 0 < interval <= longest:
        sentence = "interval is 1 to "
    else:
        return
    raise _refusal("bad_number", name, f"{sentence}{longest} seconds")


def _check_target(kind: str, name: object, url: str) -> None:
    if kind == "Heartbeat":
        if url:
            raise _refusal("bad_url", name, "type Heartbeat takes no url; its service calls the server")
        return
    if not url or len(url) > LONGEST_TEXT:
        raise _refusal("bad_url", name, f"type {kind} needs a url of 1 to {LONGEST_TEXT} characters")
    if kind == "TCP Port":
        _check_port_target(name, url)
    else:
        _check_http_target(kind, name, url)


def _check_port_target(name: object, url: str) -> None:
    found = _PORT_TARGET.fullmatch(url)
    if found is None or not 0 < int(found[2]) < 65536:
        raise _refusal(
            "bad_url",
            name,
            "the url of type TCP Port is a host name or IPv4 address and a port, such as db.example.org:5432",
        )


def _check_http_target(kind: str, name: object, url: str) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme.lower() not in ("http", "https") or port == 0 or re.search(r"\s", url):
        raise _refusal("bad_url", name, f"the url of type {kind} is a complete http:// or https:// address")
    if _is_address(host) or host == "localhost":
        return
    labels = host.removesuffix(".").split(".")
    if len(labels) == 1:
        way_out = f"{host}:{port or (443 if parts.scheme.lower() == 'https' else 80)}"
        raise _refusal(
            "bad_url",
            name,
            f"the server refuses the host {host!r}, a name without a dot: give its full name or IP address,"
            f" or type TCP Port with the url {way_out}",
        )
    if not all(map(_LABEL.fullmatch, labels)) or not _TOP_LEVEL.fullmatch(labels[-1]):
        raise _refusal(
            "bad_url",
            name,
            f"the server refuses the host {host!r}: a host is an IP address or a domain name of letters, digits and hyphens",
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
