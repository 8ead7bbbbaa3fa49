"""The data source name (DSN) of a Sentry-compatible tracker: ``scheme://key@host[:port][/prefix]/project``."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from .errors import CoreError, StoppedError

_PATTERN = re.compile(
    r"(?P<scheme>https?)://(?P<key>[A-Za-z0-9_-]+)(?::[A-Za-z0-9_-]+)?@"
    r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<prefix>(?:/[A-Za-z0-9._~-]+)*)/(?P<project>[0-9]+)"
)


@dataclass(frozen=True)
class Dsn:
    """A parsed DSN. ``str()`` and ``repr()`` show host and project only; ``value`` is the secret text."""

    value: str = field(repr=False)
    scheme: str
    key: str = field(repr=False)
    host: str
    port: int | None
    prefix: str
    project_id: str

    @property
    def netloc(self) -> str:
        """``host`` or ``host:port``: what may be shown to people."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def envelope_url(self) -> str:
        """The ingest endpoint, without the key (it travels in a header)."""
        return f"{self.scheme}://{self.netloc}{self.prefix}/api/{self.project_id}/envelope/"

    @property
    def key_sha256(self) -> str:
        """Hash of the public key, to compare two DSNs without showing either."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.netloc} project {self.project_id}"


def parse_dsn(text: str, what: str = "the DSN") -> Dsn:
    """Parse ``text``; raise CoreError naming ``what`` (never the text) when it is not a DSN."""
    match = _PATTERN.fullmatch(text)
    if match is None or (match["port"] and int(match["port"]) > 65535):
        raise CoreError(f"{what} is not a DSN of the form scheme://key@host/project")
    return Dsn(
        value=text,
        scheme=match["scheme"],
        key=match["key"].replace("-", ""),
        host=match["host"],
        port=int(match["port"]) if match["port"] else None,
        prefix=match["prefix"],
        project_id=match["project"],
    )


def shown(text: str | None) -> str:
    """Host of the DSN in ``text`` for people: ``-`` when there is none, ``invalid`` when it is no DSN."""
    if not text:
        return "-"
    try:
        return parse_dsn(text).netloc
    except StoppedError:
        raise
    except CoreError:
        return "invalid"
