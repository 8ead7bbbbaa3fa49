"""DSNs: ``{scheme}://{public key}@{host[:port][/path]}/{project id}``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import InvalidError

_KEY = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True)
class Dsn:
    """A parsed DSN. `str()` and `repr()` hide the key; `.url` is the whole DSN."""

    scheme: str
    key: str
    host: str
    path: str
    project_id: str

    @property
    def url(self) -> str:
        """The DSN itself, key included."""
        return f"{self.scheme}://{self.key}@{self.host}{self.path}/{self.project_id}"

    @property
    def base_url(self) -> str:
        """Where events go, without key and project: ``https://errors.example.org[/path]``."""
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def envelope_path(self) -> str:
        """Path of the envelope endpoint below `base_url`."""
        return f"/api/{self.project_id}/envelope/"

    def with_base(self, base_url: str) -> Dsn:
        """The same key and project reached under another address (``ingest_url`` instead of ``public_url``).

        Raises InvalidError when `base_url` is not an http(s) address.
        """
        scheme, host, path = split_base_url(base_url)
        return Dsn(scheme, self.key, host, path, self.project_id)

    def __str__(self) -> str:
        return f"{self.scheme}://***@{self.host}{self.path}/{self.project_id}"

    def __repr__(self) -> str:
        return f"Dsn({str(self)!r})"


def split_base_url(url: str) -> tuple[str, str, str]:
    """Split an http(s) address into scheme, ``host[:port]`` and path without the slash at the end.

    Raises InvalidError for anything else, also for an address with user info, a query or a fragment.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise InvalidError(code="bad_url", detail="the address cannot be read as a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidError(
            code="bad_url", detail="an address starts with http:// or https:// and names a host"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidError(code="bad_url", detail="an address holds no user info, query or fragment")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, name if port is None else f"{name}:{port}", parts.path.rstrip("/")


def parse_dsn(text: str) -> Dsn:
    """Parse a DSN. The key is 32 hex digits, with or without dashes; a secret part is dropped.

    Raises InvalidError that names what is wrong and never shows the key.
    """

    def bad(why: str) -> InvalidError:
        return InvalidError(code="bad_dsn", detail=f"not a DSN: {why}")

    try:
        parts = urlsplit(text.strip())
        port, username = parts.port, parts.username
    except ValueError:
        raise bad("it cannot be read as a URL") from None
    if parts.scheme not in ("http", "https"):
        raise bad("it must start with http:// or https://")
    if not parts.hostname:
        raise bad("it names no host")
    key = (username or "").replace("-", "")
    if not _KEY.fullmatch(key):
        raise bad("the key before @ must be 32 hexadecimal digits")
    path, _, project_id = parts.path.rstrip("/").rpartition("/")
    if not project_id.isascii() or not project_id.isdigit():
        raise bad("it must end with the number of a project")
    if parts.query or parts.fragment:
        raise bad("it must not hold a query or a fragment")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Dsn(parts.scheme, key.lower(), name if port is None else f"{name}:{port}", path, project_id)
