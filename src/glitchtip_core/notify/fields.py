"""Checks of the fields in a file of notifications. Each raises CoreError with a sentence that begins with the place."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..errors import CoreError
from ..text import printable


def checked_object(data: object, where: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(data, dict):
        raise CoreError(f"{where} must be a JSON object")
    return data


def reject_unknown(data: Mapping[str, Any], fields: set[str] | frozenset[str], where: str) -> None:
    """Refuse a field that is none of ``fields``."""
    if unknown := sorted(set(data) - set(fields)):
        raise CoreError(f"{where}: {unknown[0]} is not known here ({', '.join(sorted(fields))} are)")


def line(data: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    """A text of one line; needed when there is no default."""
    value = data.get(name, default)
    if not isinstance(value, str) or (default is None and not value) or printable(value) != value:
        raise CoreError(f"{where}: {name} must be a text of one line")
    return value


def address(url: str, where: str, *, plain_http: bool) -> str:
    """An http(s) address without credentials; http only to this host, or where ``plain_http`` allows it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, SplitResult("", "", "", "", "")
    if parts.scheme not in ("http", "https") or not host or re.search(r"[^!-~]", url) or parts.fragment:
        raise CoreError(f"{where} must be an address that begins with https://")
    if parts.username is not None:
        raise CoreError(f"{where} must hold no user name or password")
    if parts.scheme == "http" and not (plain_http or is_local(host)):
        raise CoreError(f"{where} must begin with https://, as it is a secret itself")
    return url


def secret_hook(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options of a target that is one secret address."""
    return {"url": address(line(entry, "url", where), f"{where}: url", plain_http=False)}


def is_local(host: str) -> bool:
    """Whether the name or number is this machine's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
