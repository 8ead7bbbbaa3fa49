"""Whose sockets on this host may stand for GlitchTip, beside root's and our own: our units, and what root's file adds."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CoreError, StoppedError
from .json_text import decode_json
from .process import account_of

#: The system's units that stand for GlitchTip: the tunnel to its server (role tunnel), and the mirror in front of it.
UNITS = ("glitchtip-tunnel.service", "glitchtip-mirror.service")
#: Root's list of further units and users that may listen: ``{"units": ["nginx.service"], "users": ["www-data"]}``.
SETTINGS = Path("/etc/glitchtip-listeners.json")
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.@\\-]{1,247}\.service")


class SettingsError(CoreError):
    """Root's list of further units and users is wrong, or others may write it."""


@dataclass(frozen=True)
class Allowed:
    """Whose sockets pass beside root's and our own: units of the system, and the numbers of users."""

    units: tuple[str, ...] = UNITS
    users: frozenset[int] = frozenset()


def _texts(document: Mapping[str, Any], name: str) -> list[str]:
    given = document.get(name, [])
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise SettingsError(f"{SETTINGS}: {name} must be a list of names")
    return given


def read_allowed() -> Allowed:
    """Our units with what :data:`SETTINGS` adds; without the file nothing. Raises SettingsError for a file that is wrong."""
    try:
        descriptor = os.open(SETTINGS, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != 0 or info.st_mode & 0o022:
                raise SettingsError(f"{SETTINGS} must be a file of root that nobody else may write")
            document = decode_json(file.read())
    except FileNotFoundError:
        return Allowed()
    except OSError as error:
        raise SettingsError(f"{SETTINGS} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SettingsError(f"{SETTINGS} is not JSON") from None
    if not isinstance(document, dict) or set(document) - {"units", "users"}:
        raise SettingsError(f"{SETTINGS} must be a JSON object with units and users, and nothing else")
    units, names = _texts(document, "units"), _texts(document, "users")
    for unit in units:
        if not _UNIT_NAME.fullmatch(unit):
            raise SettingsError(f"{SETTINGS}: units must name services of the system, as in nginx.service")
    try:
        users = frozenset(account_of(name).pw_uid for name in names)
    except StoppedError:
        raise
    except CoreError as error:
        raise SettingsError(f"{SETTINGS}: {error}") from None
    return Allowed((*UNITS, *units), users)
