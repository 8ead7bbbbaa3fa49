"""The comparison of settings files and running processes with the active target, for the first-hour watch.

A deploy within the first hour that moves a service to another tracker is reported to people, once. It is no reason for
a rollback: the tracker works, and a rollback would move the other services, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glitchtip_core.transaction.state import State

from .config import Config
from .drift import find_drift
from .findings import Finding
from .host import Host
from .manager import Process

# The share of the time that comparing may take: after a slow comparison the following checks leave it out.
_SHARE = 0.05

Key = tuple[str, str, str, str]


class DriftCheck:
    """Compares at most once per check, and reports what the last comparison did not find yet.

    ``read_state`` reads the journal, ``record`` appends an event with facts to it. ``open`` holds the sentences of the
    findings of the last comparison.
    """

    def __init__(
        self, config: Config, host: Host, read_state: Callable[[], State], record: Callable[..., None]
    ) -> None:
        self._config = config
        self._host = host
        self._read_state = read_state
        self._record = record
        self._not_before = 0.0
        self._reported: dict[Key, str] = {}

    @property
    def open(self) -> list[str]:
        """One sentence a finding."""
        return list(self._reported.values())

    def run(self, listed: Sequence[Process]) -> None:
        """Compare and report; ``listed`` is the manager's list of this check. Raises CutoverError."""
        began = self._host.monotonic()
        if began < self._not_before:
            return
        try:
            state = self._read_state()
            findings, _notes = find_drift(self._config, self._host, state, listed)
            if self._read_state() != state:
                return  # a switch or a rollback was under way meanwhile, so the findings may be its work
        finally:
            ended = self._host.monotonic()
            self._not_before = ended + (ended - began) / _SHARE
        self._report({_key(finding): finding.text for finding in findings if finding.problem})

    def _report(self, found: dict[Key, str]) -> None:
        new = [text for key, text in found.items() if key not in self._reported]
        self._reported = found
        if not new:
            return
        for text in new:
            self._host.progress(text)
        problems = self._host.notify("drift", {"problems": new})
        for problem in problems:
            self._host.progress(problem)
        self._record("watch_drift", findings=new, problems=list(problems))


def _key(finding: Finding) -> Key:
    """What makes a finding the same in the next check: neither the line nor the id of a process."""
    place = finding.place if finding.place.startswith("/") else "a process"
    return place, finding.name, finding.service, finding.dsn
