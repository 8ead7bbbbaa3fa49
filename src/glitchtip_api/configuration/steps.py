"""A plan: steps with what each would change, and the addresses that steps learn from each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..client import Client
from ..ensure import Outcome
from .structure import Where, described

Act = Callable[[Client, bool], Outcome]


@dataclass(frozen=True)
class Step:
    """One change: `verb` is create, update or delete; `act` makes it (called with dry_run False)."""

    verb: str
    kind: str
    name: str
    where: Where
    foreseen: Outcome
    act: Act

    @property
    def title(self) -> str:
        """``alert 'chat' (organization 'AI Admin", project 'API')``"""
        return described(self.kind, self.name, self.where)

    def line(self) -> str:
        """One line for people, secrets masked: ``~ alert 'chat' (...): quantity 1 -> 3``."""
        diff = self.foreseen.diff()
        before, after = diff["before"], diff["after"]
        mark = {"create": "+", "update": "~", "delete": "-"}[self.verb]
        if self.verb == "delete":
            return f"{mark} {self.title}"
        if self.verb == "create":
            shown = {key: value for key, value in after.items() if value not in (None, "", [], "present")}
            shown.pop("name", None)
            parts = [f"{key} {_brief(value)}" for key, value in shown.items() if key != "state"]
        else:
            parts = [f"{key} {_brief(before.get(key))} -> {_brief(value)}" for key, value in after.items()]
        return f"{mark} {self.title}" + (f": {', '.join(parts)}" if parts else "")

    def as_dict(self) -> dict[str, Any]:
        """For machines: action, kind, name, organization, project, and the masked `before` and `after`."""
        diff = self.foreseen.diff()
        return {
            "action": self.verb,
            "kind": self.kind,
            "name": self.name,
            "organization": self.where.organization,
            "project": self.where.project,
            **diff,
        }


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_brief(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return " ".join(str(part) for part in value.values() if part not in (None, ""))
    return "nothing" if value is None else str(value)


@dataclass(frozen=True)
class Plan:
    """Steps in the order in which they are made, what is left alone, and sentences for people.

    Attributes:
        stages: steps that may be made side by side, stage after stage.
        unmanaged: ``{"kind", "name", "organization", "project", "id"}`` of what is in a managed list of the
            server and not in the configuration, and is not purged.
    """

    stages: tuple[tuple[Step, ...], ...]
    unmanaged: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return tuple(step for stage in self.stages for step in stage)


class Addresses:
    """Slugs and ids of organizations and projects: those of the server, and those that a step just made."""

    def __init__(self) -> None:
        self._organizations: dict[str, str] = {}
        self._projects: dict[Where, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def learn(self, kind: str, where: Where, found: Mapping[str, Any] | None) -> None:
        """Remember where something is: an organization, or a project by its own place. Others have no address."""
        if found is None:
            return
        with self._lock:
            if kind == "organization":
                self._organizations[where.organization] = str(found["slug"])
            elif kind == "project":
                self._projects[where] = (str(found["slug"]), str(found.get("id") or ""))

    def organization(self, name: str) -> str:
        """Slug of an organization of the configuration."""
        return self._organizations[name]

    def project(self, where: Where) -> str:
        """Slug of a project of the configuration."""
        return self._projects[where][0]

    def project_ids(self, organization: str) -> dict[str, str]:
        """Slug to id, of all projects of an organization that are known here."""
        with self._lock:
            return {slug: number for at, (slug, number) in self._projects.items() if at[0] == organization}


def deleting(resource: str, *address: Any) -> Act:
    """A step that deletes one thing of the client's `resource`."""

    def act(client: Client, dry_run: bool) -> Outcome:
        if not dry_run:
            getattr(client, resource).delete(*address)
        return Outcome(True, {}, None, predicted=dry_run)

    return act
