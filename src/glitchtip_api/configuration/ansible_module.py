"""The two modules over a configuration: apply one, and write one of what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ..ansible_support import client_for, fail, not_there_yet, printable_sentences
from ..client import Client
from ..ensure.key import view_key
from ..ensure.outcome import only
from ..errors import GlitchTipError, InvalidError, MissingError
from .exporting import Export, export
from .planning import Plan, plan
from .reconciling import Reconciled, reconcile
from .snapshot import Snapshot
from .structure import ConfigurationError, Entry

LARGEST_CONCURRENCY = 16


def configure(module: Any) -> None:
    """Run ``glitchtip_configuration``."""
    printable_sentences(module)
    params = module.params
    try:
        concurrency = _concurrency(params["concurrency"])
        with client_for(module, needs_token=not module.check_mode, concurrent=concurrency) as client:
            done = _reconcile(module, client, concurrency)
            dsns = _dsns(client, params) if params["return_dsns"] and not module.check_mode else []
    except GlitchTipError as error:
        fail(module, error)
    for warning in done.warnings:
        module.warn(warning)
    result = {**_told(done.plan), **({"dsns": dsns} if params["return_dsns"] else {})}
    _fail_when_incomplete(module, done, result)
    changed = bool(done.plan.stages)
    module.exit_json(changed=changed, msg=_sentence(done.plan, bool(module.check_mode)), **result)


def _reconcile(module: Any, client: Client, concurrency: int) -> Reconciled:
    params = module.params
    try:
        if not params["token"]:  # the step that makes it has not run, in check mode
            raise MissingError(code="no_token", detail="no API token was given")
        return reconcile(
            client,
            params["organizations"],
            purge=params["purge"],
            concurrency=concurrency,
            verify=params["verify"],
            dry_run=bool(module.check_mode),
        )
    except ConfigurationError as error:
        module.fail_json(msg=str(error), failure=error.as_dict(), complaints=list(error.complaints))
        raise
    except GlitchTipError as error:
        if not not_there_yet(module, error):
            raise
        module.warn(f"nothing to compare with yet ({error}): everything is planned as new")
        return Reconciled(plan(client, Snapshot([]), params["organizations"], ()))


def _concurrency(wanted: int) -> int:
    if not 1 <= wanted <= LARGEST_CONCURRENCY:
        raise InvalidError(
            code="bad_number", detail=f"concurrency is a number from 1 to {LARGEST_CONCURRENCY}, not {wanted}"
        )
    return wanted


def _told(planned: Plan) -> dict[str, Any]:
    lines = [step.line() for step in planned.steps]
    counts = Counter(step.verb for step in planned.steps)
    told: dict[str, Any] = {
        "plan": [step.as_dict() for step in planned.steps],
        "plan_text": lines,
        "counts": {verb: counts[verb] for verb in ("create", "update", "delete")},
        "unmanaged": list(planned.unmanaged),
    }
    if lines:
        told["diff"] = {"prepared": "".join(f"{line}\n" for line in lines)}
    return told


def _sentence(planned: Plan, check_mode: bool) -> str:
    if not planned.stages:
        return "everything is as declared"
    counts = Counter(step.verb for step in planned.steps)
    parts = ", ".join(f"{counts[verb]} to {verb}" for verb in ("create", "update", "delete") if counts[verb])
    return f"would change: {parts}" if check_mode else f"changed and read back: {parts}"


def _fail_when_incomplete(module: Any, done: Reconciled, result: Mapping[str, Any]) -> None:
    if done.applied and done.applied.failed:
        step, error = done.applied.failed[0]
        made = [made_step.line() for made_step, _ in done.applied.made]
        others = len(done.applied.failed) - 1
        module.fail_json(
            msg=f"{step.title}: {error}; {len(made)} of {len(done.plan.steps)} changes were made"
            + (f", {others} more failed beside it" if others else "")
            + ". Mend the cause and apply the same configuration again.",
            failure=error.as_dict(),
            changed=bool(made),
            applied=made,
            failed=[failed.line() for failed, _ in done.applied.failed],
            pending=[pending.line() for pending in done.applied.pending],
            **result,
        )
    if done.remaining:
        lines = [step.line() for step in done.remaining]
        module.fail_json(
            msg=f"the server took every change, and read again it still differs in {len(lines)}: {lines[0]}",
            changed=True,
            remaining=lines,
            **result,
        )


def _dsns(client: Client, params: Mapping[str, Any]) -> list[dict[str, str]]:
    """DSNs of the named keys, read from the server."""
    found = []
    organizations = client.organizations.list()
    for entry in params["organizations"]:
        if not any(project["keys"] for project in entry["projects"] or []):
            continue
        there = only(organizations, "name", entry["name"], "organizations")
        slug = str(there["slug"]) if there else ""
        projects = client.projects.list(slug)
        for project in entry["projects"]:
            found += _project_dsns(client, slug, projects, entry, project, params["ingest_url"])
    return found


def _project_dsns(
    client: Client,
    organization: str,
    projects: Iterable[Mapping[str, Any]],
    entry: Entry,
    project: Entry,
    ingest_url: str | None,
) -> list[dict[str, str]]:
    if not project["keys"]:
        return []
    by = "slug" if project["slug"] else "name"
    there = only(projects, by, project[by], "projects") or {}
    keys = client.keys.list(organization, str(there.get("slug")))
    return [
        {
            "organization": entry["name"],
            "project": project["name"],
            "key": name,
            "dsn": str(view_key(only(keys, "name", name, "keys") or {}, ingest_url)["dsn"]),
        }
        for name in project["keys"]
    ]


def describe(module: Any) -> None:
    """Run ``glitchtip_configuration_info``."""
    printable_sentences(module)
    params = module.params
    try:
        concurrency = _concurrency(params["concurrency"])
        with client_for(module, concurrent=concurrency) as client:
            found = export(client, params["organizations"], concurrency=concurrency)
    except GlitchTipError as error:
        if not not_there_yet(module, error):
            fail(module, error)
        module.exit_json(changed=False, **asdict(Export()), msg=f"nothing to read yet: {error}")
    for sentence in found.left_out:
        module.warn(sentence)
    module.exit_json(changed=False, **asdict(found))
