"""``glitchtip-ops sentry-checklist``: may the Sentry subscription be cancelled? Every point with its evidence.

A point is either proven by what the tooling recorded or reads now (value, source, time), or confirmed by a
person (``--confirm POINT --by NAME``). Nothing is taken for done because it could not be read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from glitchtip_api import Client, GlitchTipError
from glitchtip_api.errors import scrub
from glitchtip_api.resources.base import path_of
from glitchtip_core.files import lock, read_object, write_bytes, write_object
from glitchtip_core.switch import JOURNAL
from glitchtip_core.text import one_line

from .backup import list_backups, verified_of_stack
from .cli import BAD_ANSWER, Outcome
from .drift import DEFAULT_COMMAND, read_drift
from .monitor import MonitorConfig
from .parity import result_file
from .parity.matching import is_probe
from .parity.reporting import cell
from .parity.sides import (
    SETTINGS_FILE,
    TOKEN_FILE,
    SentrySettings,
    load_sentry_settings,
    sentry_client,
    tags_of,
)
from .parity.window import epoch, iso
from .process import OpsError
from .settings import Settings, load_settings, settings_directory
from .switch import Cutover, read_cutover

DECISIONS = "sentry-decisions.json"
EVIDENCE_ROOT = Path("/var/lib/glitchtip-migration")
CUTOVER_ROOT = Path("/var/lib/ai-admin-cutover")
OLD_TOKEN = Path("/etc/ai-admin-cutover/old-token")
PHASES = {
    0: "prepared",
    1: "tested locally",
    2: "deployed",
    3: "proven in parallel",
    4: "cut over",
    5: "operated",
}
REQUIRED, INFORMATION, AFTERWARDS = "required", "information", "afterwards"
#: What only people can say. ``integrations`` and ``projects`` the tooling may find empty by itself.
CONFIRMED_BY_PEOPLE = {
    "projects": "Other projects of the organization are moved or given up",
    "integrations": "Alert rules, monitors and integrations of Sentry are rebuilt or not needed",
    "data": "Data in Sentry are exported, or it is decided that they may go",
    "members": "Members are informed",
    "decision": "The decision to cancel is taken",
    "secrets": "Secrets of Sentry are revoked",
}
_PROJECTS = 50  # projects of the organization that are looked at
_NEWEST = 500  # events among which one that is no test event is looked for
_NAMES = 30  # names shown of a list
_DAY = 86400.0
now = time.time  # tests set their own


@dataclass(frozen=True)
class Point:
    """One point. ``done`` is None for what is only told; ``at`` is ISO 8601 in UTC, empty where unknown."""

    id: str
    title: str
    done: bool | None
    value: str
    source: str
    at: str = ""
    kind: str = REQUIRED
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where evidence lies, and what is asked of it."""

    evidence: Path
    cutover: Path
    old_token: Path = OLD_TOKEN
    quiet_days: float = 7
    min_ratio: float = 0.99
    max_backup_hours: float = 48


@dataclass
class SentryFacts:
    """What Sentry tells now. Each is None with a sentence in ``problems`` where it could not be read."""

    newest: float | None = None
    only_tests: bool = False
    projects: dict[str, float | None] | None = None
    more_projects: bool = False
    lists: dict[str, list[str] | None] = field(default_factory=dict)
    keys: int | None = None
    problems: dict[str, str] = field(default_factory=dict)


# --- reading Sentry ---------------------------------------------------------------------------------------


def _newest(client: Client, organization: str, project: str) -> tuple[float | None, bool]:
    """Time of the newest event that is no test event; the second value: only test events were seen."""
    path = path_of("projects", organization, project, "events")
    seen = False
    for event in islice(client.paginate(path, {"per_page": 100}), _NEWEST):
        seen = True
        if not is_probe(tags_of(event)):
            return epoch(event.get("dateReceived")) or epoch(event.get("dateCreated")), False
    return None, seen


def _first(client: Client, path: str, count: int) -> list[dict[str, Any]]:
    return list(islice(client.paginate(path), count))


def _lists(organization: str, project: str) -> dict[str, str]:
    """What has to be rebuilt elsewhere, and where Sentry lists it."""
    return {
        "issue alert rules": path_of("projects", organization, project, "rules"),
        "metric alert rules": path_of("organizations", organization, "alert-rules"),
        "cron and uptime monitors": path_of("organizations", organization, "monitors"),
        "integrations": path_of("organizations", organization, "integrations"),
    }


def read_sentry(settings: SentrySettings, client: Client) -> SentryFacts:
    """Ask Sentry for everything that the checklist names; what is refused is noted, never raised."""
    facts = SentryFacts()
    organization, project = settings.organization, settings.project

    def reading(what: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except GlitchTipError as error:
            reason = str(error.status) if error.status else error.code
            facts.problems[what] = f"not readable ({reason if error.code != 'not_json' else 'no such list'})"
            return None

    def exists() -> bool:
        return isinstance(client.get(path_of("projects", organization, project)), dict)

    if reading("events", exists):
        found = reading("events", lambda: _newest(client, organization, project))
        if found is not None:
            facts.newest, facts.only_tests = found
    listed = reading(
        "projects",
        lambda: list(
            islice(client.paginate(path_of("organizations", organization, "projects")), _PROJECTS + 1)
        ),
    )
    if listed is not None:
        facts.more_projects = len(listed) > _PROJECTS
        facts.projects = {}
        for slug in [str(item.get("slug")) for item in listed[:_PROJECTS] if item.get("slug") != project]:
            found = reading(f"project {slug}", partial(_newest, client, organization, slug))
            facts.projects[slug] = None if found is None else found[0]
    for what, path in _lists(organization, project).items():
        items = reading(what, partial(_first, client, path, _NAMES + 1))
        facts.lists[what] = None if items is None else [_name(item) for item in items]
    keys = path_of("projects", organization, project, "keys")
    found = reading("keys", lambda: sum(1 for _ in islice(client.paginate(keys), 100)))
    facts.keys = found
    return facts


def _name(item: Mapping[str, Any]) -> str:
    provider = item.get("provider")
    kind = provider.get("name") if isinstance(provider, Mapping) else None
    name = str(item.get("name") or item.get("slug") or item.get("id") or "?")
    return _line(f"{kind}: {name}" if kind else name, 80)


def _line(text: str, longest: int = 300) -> str:
    """One line without secrets."""
    return one_line(scrub(str(text)))[:longest]


# --- reading this host ------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any] | None, str]:
    """A JSON file: its object, or None and why."""
    try:
        data = read_object(path)
    except OpsError as error:
        text = str(error)
        return None, f"{text}; run this as root" if "Permission" in text else text
    return data, "" if data is not None else f"{path} is not there"


def _other_stack(document: Mapping[str, Any], stack_id: str) -> str:
    """What to say of a record that is of another stack than ``stack_id``; "" where it is of that one, or none is known."""
    if not stack_id or str(document.get("stack_id") or "") == stack_id:
        return ""
    return "recorded for another GlitchTip stack than the one deployed now"


def evidence_points(directory: Path, stack_id: str = "") -> list[Point]:
    """Phases 0 to 5, from what `migration_evidence` recorded; from phase 2 on for the stack ``stack_id``."""
    points = []
    for number, what in PHASES.items():
        path = directory / f"phase{number}.json"
        document, why = _read(path)
        data = document.get("data") if document else None
        proof = data.get("proof") if isinstance(data, Mapping) else None
        if isinstance(data, Mapping) and number >= 2 and (stale := _other_stack(document or {}, stack_id)):
            data, proof, why = None, None, stale
        points.append(
            Point(
                f"phase{number}",
                f"Phase {number}: {what}",
                isinstance(data, Mapping),
                _line(str(proof))
                if proof
                else ("recorded" if isinstance(data, Mapping) else why or "damaged"),
                str(path),
                str((document or {}).get("updated_at") or (document or {}).get("recorded_at") or ""),
            )
        )
    return points


def soak_point(path: Path, stack_id: str = "") -> Point:
    """The verdict of the parallel run."""
    verdict, why = _read(path)
    if verdict is None:
        return Point("soak", "Parallel run ended with GO", False, why, str(path))
    at = str(verdict.get("judged_at") or iso(path.stat().st_mtime))
    stale = _other_stack(verdict, stack_id)
    return Point(
        "soak",
        "Parallel run ended with GO",
        verdict.get("verdict") == "GO" and not stale,
        stale or str(verdict.get("verdict")),
        str(path),
        at,
    )


def cutover_point(cutover: Cutover, directory: Path) -> Point:
    """All services on GlitchTip, confirmed, none put back alone."""
    back = tuple(f"{service} was put back to Sentry alone" for service in cutover.overrides)
    at = "" if cutover.confirmed is None else iso(cutover.confirmed)
    done = cutover.confirmed is not None and not back
    source = str(directory / JOURNAL)
    return Point(
        "cutover",
        "Cutover confirmed, all services on GlitchTip",
        done,
        cutover.value,
        source,
        at,
        REQUIRED,
        back,
    )


def drift_point(clock: float) -> Point:
    """No settings file and no running process would report to Sentry, now or after the next deploy."""
    title = "Every settings file and running process names GlitchTip"
    try:
        command = MonitorConfig.read(settings_directory() / "monitor.json").cutover_command or DEFAULT_COMMAND
        drift = read_drift(command)
    except OpsError as error:
        return Point("drift", title, False, f"not compared: {_line(str(error))}; run this as root", DEFAULT_COMMAND[0])
    done = drift.compared and drift.target == "glitchtip" and not drift.problems
    count = len(drift.problems)
    value = f"{count} name{'s' if count == 1 else ''} another tracker" if count else _line(drift.summary)
    source = " ".join(command[:2])
    return Point("drift", title, done, value, source, iso(clock), REQUIRED, tuple(_line(each) for each in drift.problems))


def parity_point(path: Path, least: float) -> Point:
    """The last comparison of both trackers."""
    title = f"Parity: at least {100 * least:g} % of Sentry's events are in GlitchTip"
    report, why = _read(path)
    if report is None:
        return Point(
            "parity", title, False, f"{why}; run glitchtip-ops parity while both still get events", str(path)
        )
    ratio = report.get("ratio")
    if not isinstance(ratio, int | float):
        return Point(
            "parity",
            title,
            False,
            "Sentry had no event in its window",
            str(path),
            str(report.get("compared_at")),
        )
    window = report.get("window") or {}
    value = (
        f"{100 * ratio:.2f} % of {(report.get('sentry') or {}).get('events')} events, matched by"
        f" {str(report.get('matched_by')).replace('_', ' ')}, {window.get('since')} to {window.get('until')};"
        f" in all {report.get('verdict')}"
    )
    return Point("parity", title, ratio >= least, value, str(path), str(report.get("compared_at") or ""))


def backup_point(directory: Path, clock: float, hours: float, stack_id: str = "") -> Point:
    """The newest backup of the stack ``stack_id`` that was restored and compared."""
    title = "Backups proven by a restore"
    try:
        proven = verified_of_stack(list_backups(directory), stack_id)
    except (OSError, OpsError) as error:
        return Point(
            "backups", title, False, f"not readable: {_line(str(error))}; run this as root", str(directory)
        )
    if not proven:
        return Point("backups", title, False, "no verified backup", str(directory))
    newest = max(proven, key=lambda backup: epoch(backup.verified_at) or 0.0)
    at = epoch(newest.verified_at) or 0.0
    fresh = clock - at <= hours * 3600
    value = f"{newest.name} restored and equal" + ("" if fresh else f", more than {hours:g} h ago")
    return Point("backups", title, fresh, value, str(directory), iso(at))


def alert_point(state: Path) -> Point:
    """The hooks took a canary, and no check is in trouble."""
    title, path = "Alerts reach people", state / "alert-canary.json"
    proof, why = _read(path)
    if proof is None or not proof.get("proven_at"):
        return Point("alerts", title, False, why or "no canary was delivered", str(path))
    monitor, why = _read(state / "monitor.json")
    if monitor is None and "not there" not in why:
        return Point("alerts", title, False, why, str(path), str(proof["proven_at"]))
    checks = (monitor or {}).get("checks")
    trouble = sorted(checks) if isinstance(checks, Mapping) else []
    value = (
        f"canary delivered, in trouble now: {', '.join(trouble)}"
        if trouble
        else "canary delivered, no check in trouble"
    )
    return Point("alerts", title, not trouble, value, str(path), str(proof["proven_at"]))


# --- points about Sentry ----------------------------------------------------------------------------------


def quiet_point(facts: SentryFacts, cutover: Cutover, clock: float, days: float, source: str) -> Point:
    """No event reached Sentry for so long, counted from the cutover or the last event, whichever is later."""
    title = f"Sentry is quiet since the cutover, for {days:g} days"
    if "events" in facts.problems:
        return Point("quiet", title, False, facts.problems["events"], source)
    if cutover.confirmed is None:
        return Point(
            "quiet", title, False, f"there is no confirmed cutover to count from: {cutover.value}", source
        )
    newest = facts.newest or 0.0
    since = max(newest, cutover.confirmed)
    quiet = (clock - since) / _DAY
    last = (
        f"last event {iso(newest)}"
        if facts.newest is not None
        else f"only test events among the newest {_NEWEST}"
        if facts.only_tests
        else "no event at all"
    )
    after = "" if newest <= cutover.confirmed else ", AFTER the cutover"
    value = f"{last}{after}; quiet for {max(0.0, quiet):.1f} days"
    return Point("quiet", title, quiet >= days, value, source, iso(clock))


def projects_point(
    facts: SentryFacts, clock: float, days: float, source: str, said: Mapping[str, Any] | None
) -> Point:
    """Front ends and other services that would lose their tracker with the subscription."""
    title = f"No other project of the organization got events in the last {days:g} days"
    if facts.projects is None:
        done, value, details = False, facts.problems.get("projects", "not readable"), ()
    else:
        busy = {
            slug: at for slug, at in facts.projects.items() if at is not None and clock - at <= days * _DAY
        }
        unread = sorted(slug for slug in facts.projects if f"project {slug}" in facts.problems)
        details = (
            *(f"{slug}: last event {iso(at)}" for slug, at in sorted(busy.items())),
            *(f"{slug}: {facts.problems[f'project {slug}']}" for slug in unread),
            *(
                (f"more than {_PROJECTS} projects: only the first were looked at",)
                if facts.more_projects
                else ()
            ),
        )
        done = not details
        value = f"{len(busy)} of {len(facts.projects)} other projects still get events"
    return _confirmed(Point("projects", title, done, value, source, iso(clock), REQUIRED, details), said)


def integrations_point(
    facts: SentryFacts, source: str, clock: float, said: Mapping[str, Any] | None
) -> Point:
    """What Sentry did beside keeping events, by name."""
    details, found = [], 0
    for what, names in facts.lists.items():
        if names is None:
            details.append(f"{what}: {facts.problems.get(what, 'not readable')}")
            continue
        found += len(names)
        more = " and more" if len(names) > _NAMES else ""
        details.append(f"{what}: {', '.join(names[:_NAMES]) or 'none'}{more}")
    unread = sum(names is None for names in facts.lists.values())
    value = (
        f"{found} found, {unread} of {len(facts.lists)} lists not readable" if facts.lists else "not readable"
    )
    done = bool(facts.lists) and not found and not unread
    point = Point(
        "integrations",
        CONFIRMED_BY_PEOPLE["integrations"],
        done,
        value,
        source,
        iso(clock),
        REQUIRED,
        tuple(details),
    )
    return _confirmed(point, said)


def rollback_point(settings: SentrySettings | None, today: date, source: str) -> Point:
    """Until when the way back leads somewhere."""
    title = "It is known until when a rollback to Sentry is possible"
    if settings is None or not settings.plan_ends:
        return Point(
            "rollback", title, False, "the end of the plan is not known: set ops_sentry_plan_ends", source
        )
    try:
        ends = date.fromisoformat(settings.plan_ends)
    except ValueError:
        return Point(
            "rollback",
            title,
            False,
            f"ops_sentry_plan_ends {_line(settings.plan_ends, 30)!r} is no day",
            source,
        )
    left = (ends - today).days
    if left < 0:
        return Point(
            "rollback",
            title,
            False,
            f"the plan ended on {ends}: see whether Sentry still takes events",
            source,
        )
    value = f"until {ends} ({left} days); after that Sentry refuses events and a rollback loses them"
    return Point("rollback", title, True, value, source, str(ends))


def secrets_point(
    facts: SentryFacts | None, settings: SentrySettings | None, places: Places, said: Mapping[str, Any] | None
) -> Point:
    """What to revoke when it is over; until then the way back and this list need it."""
    directory = settings_directory()
    names = [f"API token in {path}" for path in (directory / TOKEN_FILE, places.old_token) if _exists(path)]
    if facts is not None and settings is not None:
        count = facts.problems.get("keys", "not readable") if facts.keys is None else str(facts.keys)
        names.append(f"client keys (DSNs) of {settings.organization}/{settings.project}: {count}")
    names += [
        "SENTRY_AUTH_TOKEN in continuous integration (source maps, releases)",
        "DSNs of Sentry in copies of .env that were kept",
    ]
    title = CONFIRMED_BY_PEOPLE["secrets"]
    point = Point(
        "secrets",
        title,
        False,
        f"{len(names)} to revoke",
        "this host and Sentry",
        "",
        AFTERWARDS,
        tuple(names),
    )
    return _confirmed(point, said)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _confirmed(point: Point, said: Mapping[str, Any] | None) -> Point:
    """The point as people confirmed it; what was read stays beside it."""
    if point.done or not said:
        return point
    note = f": {said['note']}" if said.get("note") else ""
    value = f"confirmed by {said['by']}{note} ({point.value})"
    return Point(point.id, point.title, True, value, said["by"], said["at"], point.kind, point.details)


def people_point(name: str, said: Mapping[str, Any] | None) -> Point:
    """A point that only people can confirm."""
    value = f"open; glitchtip-ops sentry-checklist --confirm {name} --by NAME"
    if said:
        value = str(said.get("note") or "confirmed")
    return Point(
        name,
        CONFIRMED_BY_PEOPLE[name],
        bool(said),
        value,
        str((said or {}).get("by", "")),
        str((said or {}).get("at", "")),
    )


# --- the list ---------------------------------------------------------------------------------------------


def decisions_file(settings: Settings) -> Path:
    """What people confirmed."""
    return Path(settings.state_dir) / settings.migration_id / DECISIONS


def decide(
    settings: Settings, name: str, by: str | None, note: str, clock: float, *, withdraw: bool = False
) -> None:
    """Record that somebody confirmed a point, or withdrew that. Raises OpsError without a name."""
    if not withdraw and not (by and by.strip()):
        raise OpsError("--confirm needs --by NAME: who says so stands in the list")
    path = decisions_file(settings)
    with lock(path.with_name(".sentry-decisions.lock"), "the checklist"):
        decisions = read_object(path) or {}
        if withdraw:
            decisions.pop(name, None)
        else:
            decisions[name] = {"by": _line(str(by), 80), "note": _line(note), "at": iso(clock)}
        write_object(path, decisions)


def build(
    settings: Settings,
    sentry: SentrySettings | None,
    problem: str,
    facts: SentryFacts | None,
    places: Places,
    clock: float,
) -> list[Point]:
    """Every point. ``facts`` is None where Sentry could not be asked; ``problem`` says why."""
    decisions, why = _read(decisions_file(settings))
    if decisions is None and "not there" not in why:
        raise OpsError(f"the confirmations cannot be read: {why}")
    said: dict[str, Mapping[str, Any]] = {
        name: value
        for name, value in (decisions or {}).items()
        if isinstance(value, Mapping) and value.get("by")
    }
    state = Path(settings.state_dir)
    cutover = read_cutover(places.cutover)
    source = f"API of {sentry.url}" if sentry else str(settings_directory() / SETTINGS_FILE)
    if facts is None:
        facts = SentryFacts(problems={"events": problem, "projects": problem})
    cost = sentry.cost_per_year if sentry else 0.0
    return [
        *evidence_points(places.evidence, settings.stack_id),
        soak_point(state / settings.migration_id / "verdict.json", settings.stack_id),
        parity_point(result_file(settings), places.min_ratio),
        cutover_point(cutover, places.cutover),
        drift_point(clock),
        quiet_point(facts, cutover, clock, places.quiet_days, source),
        projects_point(facts, clock, places.quiet_days, source, said.get("projects")),
        integrations_point(facts, source, clock, said.get("integrations")),
        backup_point(Path(settings.backup_dir), clock, places.max_backup_hours, settings.stack_id),
        alert_point(state),
        rollback_point(
            sentry, datetime.fromtimestamp(clock, UTC).date(), str(settings_directory() / SETTINGS_FILE)
        ),
        *(people_point(name, said.get(name)) for name in ("data", "members", "decision")),
        Point(
            "cost",
            "Saved",
            None,
            f"{cost:g} dollars a year" if cost else "unknown: set ops_sentry_cost_per_year",
            str(settings_directory() / SETTINGS_FILE),
            "",
            INFORMATION,
        ),
        secrets_point(facts if sentry else None, sentry, places, said.get("secrets")),
    ]


def open_points(points: Sequence[Point]) -> list[Point]:
    """What stands in the way of cancelling."""
    return [point for point in points if point.kind == REQUIRED and not point.done]


def summary(points: Sequence[Point]) -> str:
    """``ready`` or ``not ready: 3 points open``."""
    count = len(open_points(points))
    return f"not ready: {count} point{'s' if count > 1 else ''} open" if count else "ready"


def _box(point: Point) -> str:
    return {True: "[x]", False: "[ ]", None: " - "}[point.done]


def lines(points: Sequence[Point]) -> list[str]:
    """The list for a terminal; the last line is the summary."""
    found = []
    for kind, heading in (
        (REQUIRED, "Before cancelling"),
        (AFTERWARDS, "After cancelling"),
        (INFORMATION, ""),
    ):
        chosen = [point for point in points if point.kind == kind]
        found += [f"{heading}:"] if heading and chosen else []
        for point in chosen:
            where = ", ".join(part for part in (point.source, point.at) if part)
            found.append(f"{_box(point)} {point.title}: {point.value}" + (f"  ({where})" if where else ""))
            found += [f"      {detail}" for detail in point.details]
    return [*found, summary(points)]


def markdown(points: Sequence[Point], settings: Settings, clock: float) -> str:
    """The list for a ticket."""
    found = [
        "# Cancelling Sentry: checklist",
        "",
        f"**{summary(points)}** (migration {cell(settings.migration_id)}, {iso(clock)})",
    ]
    for kind, heading in (
        (REQUIRED, "Before cancelling"),
        (AFTERWARDS, "After cancelling"),
        (INFORMATION, "For information"),
    ):
        chosen = [point for point in points if point.kind == kind]
        found += ["", f"## {heading}", ""] if chosen else []
        for point in chosen:
            box = "" if point.done is None else f"{_box(point)} "
            where = ", ".join(cell(part) for part in (point.source, point.at) if part)
            found.append(
                f"- {box}**{cell(point.title)}**: {cell(point.value)}" + (f" ({where})" if where else "")
            )
            found += [f"  - {cell(detail)}" for detail in point.details]
    return "\n".join(found) + "\n"


def register(subparsers: Any) -> None:
    """Add the command ``sentry-checklist``."""
    parser = subparsers.add_parser(
        "sentry-checklist", help="may the Sentry subscription be cancelled? with evidence"
    )
    parser.add_argument("--markdown", type=Path, help="write the list for a ticket to this file")
    parser.add_argument("--days", type=float, default=Places.quiet_days, help="days without events in Sentry")
    parser.add_argument("--min-ratio", type=float, default=Places.min_ratio, help="share of events, 0 to 1")
    parser.add_argument(
        "--max-backup-hours", type=float, default=Places.max_backup_hours, help="age of the last proof"
    )
    parser.add_argument("--evidence-dir", type=Path, help=f"{EVIDENCE_ROOT}/<migration id> by default")
    parser.add_argument("--cutover-dir", type=Path, help=f"{CUTOVER_ROOT}/<migration id> by default")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--confirm", choices=sorted(CONFIRMED_BY_PEOPLE), help="record that a point is done")
    change.add_argument("--withdraw", choices=sorted(CONFIRMED_BY_PEOPLE), help="take a confirmation back")
    parser.add_argument("--by", help="who confirms")
    parser.add_argument("--note", default="", help="what was decided, one line")
    parser.set_defaults(handler=_handle)


def _places(options: argparse.Namespace, settings: Settings) -> Places:
    if not 0 < options.min_ratio <= 1:
        raise OpsError("--min-ratio is a share above 0, at most 1 (0.99 is 99 %)")
    if not 0 < options.days <= 365 or not 0 < options.max_backup_hours <= 24 * 365:
        raise OpsError("--days and --max-backup-hours are numbers above 0, a year at most")
    return Places(
        evidence=options.evidence_dir or settings.evidence_dir or EVIDENCE_ROOT / settings.migration_id,
        cutover=options.cutover_dir or settings.cutover_dir or CUTOVER_ROOT / settings.migration_id,
        old_token=(settings.cutover_config_dir or OLD_TOKEN.parent) / OLD_TOKEN.name,
        quiet_days=options.days,
        min_ratio=options.min_ratio,
        max_backup_hours=options.max_backup_hours,
    )


def _handle(options: argparse.Namespace) -> Outcome:
    settings, clock = load_settings(), now()
    places = _places(options, settings)
    if options.confirm or options.withdraw:
        name = options.confirm or options.withdraw
        decide(settings, name, options.by, options.note, clock, withdraw=bool(options.withdraw))
    sentry: SentrySettings | None = None
    facts: SentryFacts | None = None
    problem = ""
    try:
        sentry = load_sentry_settings()
        with sentry_client(sentry) as client:
            facts = read_sentry(sentry, client)
    except OpsError as error:
        problem = f"not readable: {error}"
    points = build(settings, sentry, problem, facts, places, clock)
    if options.markdown:
        write_bytes(options.markdown, markdown(points, settings, clock).encode(), 0o644)
    still = open_points(points)
    document = {
        "ready": not still,
        "open": [point.id for point in still],
        "checked_at": iso(clock),
        "migration_id": settings.migration_id,
        "points": [asdict(point) for point in points],
    }
    return Outcome(document, lines(points), BAD_ANSWER if still else 0)
