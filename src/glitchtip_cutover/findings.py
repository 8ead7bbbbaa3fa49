"""A DSN where it should not be: one shape for every place, and the words for it, which never hold a key."""

from __future__ import annotations

from dataclasses import dataclass

from glitchtip_core.dsn import shown
from glitchtip_core.text import printable

from .mentions import mask


@dataclass(frozen=True)
class Finding:
    """A DSN that is not that of the active target. ``line`` is 0 for processes.

    ``dsn`` is masked. ``problem``: services report elsewhere, or would after a deploy, a restart or a boot; else it is
    worth knowing only. ``now``: in effect already.
    """

    place: str
    line: int
    name: str
    service: str
    dsn_host: str
    dsn: str
    problem: bool
    now: bool
    text: str


def names(value: str) -> str:
    """What a value names, for a sentence; never its key."""
    if not value:
        return "is empty, so the SDK sends nothing"
    host = shown(value)
    return "holds no DSN" if host == "invalid" and "@" not in value else f"names {host_of(value)}"


def host_of(value: str) -> str:
    """The host in a value, also in one that is no whole DSN."""
    host = shown(value)
    return host if host != "invalid" else value.rpartition("@")[2].split("/")[0] or "an unknown host"


def make_finding(
    place: str,
    line: int,
    name: str,
    service: str,
    value: str,
    text: str,
    *,
    problem: bool = True,
    now: bool = False,
) -> Finding:
    """A finding whose texts may be printed; ``value`` is the DSN, which is masked."""
    host = host_of(value) if "@" in value else "-"
    place, name, service, host, masked = map(printable, (place, name, service, host, mask(value)))
    return Finding(place, line, name, service, host, masked, problem, now, printable(text))
