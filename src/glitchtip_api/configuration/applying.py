"""Making the steps of a plan, side by side where they do not need each other."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..client import Client
from ..ensure import Outcome
from ..ensure.outcome import slugify
from ..errors import GlitchTipError
from .planning import Plan, Step


@dataclass
class Applied:
    """What was done: the steps that were made with their outcomes, those that failed, and the rest."""

    made: list[tuple[Step, Outcome]] = field(default_factory=list)
    failed: list[tuple[Step, GlitchTipError]] = field(default_factory=list)
    pending: list[Step] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """Sentences for people, each once."""
        return list(dict.fromkeys(line for _, outcome in self.made for line in outcome.warnings))


def apply(client: Client, plan: Plan, concurrency: int) -> Applied:
    """Make the steps stage by stage, `concurrency` at once. Ends after the first failure.

    Steps under way when one fails are finished; none is begun after it. Nothing is undone: the same
    configuration applied again goes on where this ended.
    """
    result = Applied()
    stop = threading.Event()

    def make(group: list[Step]) -> None:
        for step in group:
            if stop.is_set():
                result.pending.append(step)
                continue
            try:
                result.made.append((step, step.act(client, False)))
            except GlitchTipError as error:
                stop.set()
                result.failed.append((step, error))

    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        for stage in plan.stages:
            list(pool.map(make, _groups(stage)))
    order = {id(step): number for number, step in enumerate(plan.steps)}
    for steps in (result.made, result.failed):
        steps.sort(key=lambda pair: order[id(pair[0])])
    result.pending.sort(key=lambda step: order[id(step)])
    return result


def _groups(stage: Iterable[Step]) -> list[list[Step]]:
    """Steps that must follow each other: organizations, an organization's status pages, and projects that may need the same slug.

    A project is created under the slug of its name, and renamed when it is to have another.
    """
    groups: list[tuple[set[object], list[Step]]] = []
    for number, step in enumerate(stage):
        keys: set[object] = {number}
        if step.kind == "organization":
            keys = {"organization"}
        elif step.kind == "project":
            slugs = slugify(step.name), (step.foreseen.after or {}).get("slug")
            keys = {(step.where.organization, slug) for slug in slugs}
        elif step.kind == "status_page":
            # The server counts a taken slug up, and two pages at once can take the same one: one of them is a 500.
            keys = {(step.where.organization, "status_page")}
        same = [group for group in groups if group[0] & keys]
        merged = [one for _, steps in same for one in steps]
        groups = [group for group in groups if group not in same]
        groups.append((keys.union(*(names for names, _ in same)), [*merged, step]))
    return [steps for _, steps in groups]
