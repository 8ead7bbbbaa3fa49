"""The file of notifications: who is notified of which events, and own texts. It holds secrets."""

from __future__ import annotations

import os
import stat
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CoreError
from ..json_text import decode_json
from .fields import checked_object, line, reject_unknown
from .messages import Catalogue
from .transports import TRANSPORTS


@dataclass(frozen=True)
class Target:
    """Where a message goes. ``options`` are the fields of its kind, checked; they are secret."""

    kind: str
    name: str
    events: tuple[str, ...]
    options: Mapping[str, Any] = field(repr=False)

    def secrets(self) -> list[str]:
        """What must not be read anywhere."""
        named = [self.options.get(key) for key in ("url", "token", "password", "username", "api_url")]
        return sorted((str(value) for value in named if value and len(str(value)) > 3), key=len, reverse=True)


@dataclass(frozen=True)
class Settings:
    """The checked file of notifications. ``timeout`` is in seconds, for all targets together."""

    targets: tuple[Target, ...] = ()
    templates: Mapping[str, str] = field(default_factory=dict)
    product: str = ""
    contact: str = ""
    timeout: float = 5.0


def load_settings(path: Path | None, catalogue: Catalogue) -> Settings:
    """Read and check the file of notifications; no file named means no targets.

    Raises CoreError with one sentence that names the file and the place, and holds no secret.
    """
    if path is None:
        return Settings(product=catalogue.product)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise CoreError(f"{path} is not a regular file")
            if info.st_mode & 0o077:
                mode = stat.S_IMODE(info.st_mode)
                raise CoreError(
                    f"{path} holds secrets and may be read by others (mode {mode:o}): chmod 600 it"
                )
            data = decode_json(file.read())
    except FileNotFoundError:
        raise CoreError(f"there is no file of notifications {path}") from None
    except (OSError, ValueError) as error:
        raise CoreError(f"the file of notifications {path} cannot be read: {type(error).__name__}") from None
    return parse_settings(data, catalogue, str(path))


def parse_settings(data: object, catalogue: Catalogue, where: str = "the notifications") -> Settings:
    """Check the decoded document. Raises CoreError with one sentence that begins with ``where``."""
    document = checked_object(data, where)
    reject_unknown(document, {"targets", "templates", "product", "contact", "timeout"}, where)
    entries = document.get("targets")
    if not isinstance(entries, list):
        raise CoreError(f"{where}: targets must be a list")
    targets = tuple(
        _target(entry, catalogue, f"{where}: targets[{number}]") for number, entry in enumerate(entries)
    )
    names = [target.name for target in targets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CoreError(f"{where}: two targets are called {twice[0]}")
    templates = checked_object(document.get("templates") or {}, f"{where}: templates")
    for event, text in templates.items():
        if event not in catalogue.templates:
            raise CoreError(f"{where}: templates.{event} is for no event ({', '.join(catalogue.events)})")
        if not isinstance(text, str) or not text.strip() or not string.Template(text).is_valid():
            raise CoreError(
                f"{where}: templates.{event} must be a text in which $ begins the name of a fact ($$ is a dollar sign)"
            )
    timeout = document.get("timeout", 5)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0.1 <= timeout <= 30:
        raise CoreError(f"{where}: timeout must be a number of seconds from 0.1 to 30")
    return Settings(
        targets=targets,
        templates=templates,
        product=line(document, "product", where, catalogue.product),
        contact=line(document, "contact", where, ""),
        timeout=float(timeout),
    )


def _target(data: object, catalogue: Catalogue, where: str) -> Target:
    entry = checked_object(data, where)
    kind = line(entry, "kind", where)
    if kind not in TRANSPORTS:
        raise CoreError(f"{where}: kind must be one of {', '.join(sorted(TRANSPORTS))}")
    transport = TRANSPORTS[kind]
    reject_unknown(entry, transport.needed | transport.optional | {"kind", "name", "events"}, where)
    if missing := sorted(transport.needed - entry.keys()):
        raise CoreError(f"{where}: {missing[0]} is missing, a target of kind {kind} needs it")
    name = line(entry, "name", where)
    events = entry.get("events", list(catalogue.events))
    if not isinstance(events, list) or not events or any(event not in catalogue.events for event in events):
        raise CoreError(f"{where}: events must be a list of {', '.join(catalogue.events)}")
    return Target(kind, name, tuple(events), transport.check(entry, where))
