"""The whole run: read, plan, apply, and read back that nothing is left to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ..client import Client
from .applying import Applied, apply
from .planning import Plan, Step, plan
from .snapshot import read
from .structure import Entry, check

DEFAULT_CONCURRENCY = 4


@dataclass
class Reconciled:
    """What a run found and did.

    Attributes:
        plan: what was to do.
        applied: what was done; None in a dry run, and when there was nothing to do.
        remaining: steps that a second look still finds necessary, empty when the server took everything.
        notice: a sentence about a server that is newer than what was tested.
    """

    plan: Plan
    applied: Applied | None = None
    remaining: tuple[Step, ...] = field(default=())
    notice: str | None = None

    @property
    def warnings(self) -> list[str]:
        """Sentences for people, of the plan and of what was done, each once."""
        done = self.applied.warnings if self.applied else []
        notice = [self.notice] if self.notice else []
        return list(dict.fromkeys([*notice, *self.plan.warnings, *done]))


def reconcile(
    client: Client,
    organizations: Iterable[Entry],
    *,
    purge: Collection[str] = (),
    concurrency: int = DEFAULT_CONCURRENCY,
    verify: bool = True,
    dry_run: bool = False,
) -> Reconciled:
    """Bring a server to the desired state.

    Args:
        organizations: entries of the structure with every key present, None where it is left out.
        purge: kinds of which everything that a managed list does not name is removed.
        concurrency: requests at once.
        verify: after changes read everything again and compare; removals are left out of that, because the
            worker of the server finishes them later.
        dry_run: plan only.

    Raises ConfigurationError before anything is sent that writes, GlitchTipError when reading fails, VersionError
    for a server that is too old when there is something to do. A step that fails does not raise: see
    `Reconciled.applied`.
    """
    entries = list(organizations)
    check(entries)
    planned = plan(client, read(client, entries, concurrency), entries, purge)
    if not planned.stages:
        return Reconciled(planned)
    notice = client.require()
    if dry_run:
        return Reconciled(planned, notice=notice)
    applied = apply(client, planned, concurrency)
    remaining: tuple[Step, ...] = ()
    if verify and not applied.failed:
        again = plan(client, read(client, entries, concurrency), entries, ())
        remaining = again.steps
    return Reconciled(planned, applied, remaining, notice)
