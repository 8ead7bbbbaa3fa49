"""Drift: what names another tracker than the one that is in effect, now or after the next deploy.

A switch holds only as long as nobody puts the other DSN back. ``PM2``'s ``reload`` of an ecosystem file, a deploy that
writes ``.env``, ``docker compose up`` without our file, a variable that a shell exported: each of them moves services
without a word. So every settings file and every running process is compared with the active target.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from glitchtip_core.foreign_files import info_of
from glitchtip_core.foreign_paths import real_path
from glitchtip_core.switch import read_switch
from glitchtip_core.text import printable
from glitchtip_core.transaction.state import State

from .active_target import Wanted, wanted_after, wanted_now
from .config import Config
from .envfile import find_assignment
from .errors import CutoverError, InterruptedRunError
from .findings import Finding, make_finding, names
from .host import Host
from .manager import Process, manager_label
from .mentions import Mention, find_mentions
from .surroundings import (
    COMPOSE,
    CRON,
    DEPLOY,
    DUMP,
    ECOSYSTEM,
    ENV,
    PACKAGE,
    SHELL,
    UNIT,
    Running,
    Source,
    Surroundings,
)
from .targets import GLITCHTIP, MIRROR, Target

Row = dict[str, Any]

# Settings of other machines: a production server does not read them.
_OTHER_STAGE = re.compile(r"(?i)(^|[._-])(dev|develop|development|test|tests|testing|storybook|e2e)([._-]|$)")
# Settings that may be of another machine: they count where they hold a DSN that this migration knows.
_MAYBE_OTHER_STAGE = re.compile(
    r"(?i)(^|[._-])(stage|staging|stg|preview|review|qa|uat|demo|sandbox)([._-]|$)"
)


# --- judging ------------------------------------------------------------------------------------------------


def judge(
    config: Config, wanted: Wanted, around: Surroundings, listed: Sequence[Process], *, planned: bool = False
) -> list[Finding]:
    """Everything that does not name the target, what is in effect first.

    ``planned``: only what a switch to the target does not change by itself, so that a later deploy would undo it.
    """
    found = [
        make_finding(str(path), 0, config.env_key, ", ".join(config.sharing(path)), "", text, now=True)
        for path, text in around.unread.items()
        if not planned
    ]
    real = {real_path(path): path for path in wanted.target.files}
    for source in around.sources:
        own = real.get(real_path(source.path))
        if own is not None:
            found += [] if planned else _in_env_file(config, wanted, source, own)
        if not (planned and source.tool == DUMP):
            found += _in_source(config, wanted, source, listed, is_own=own is not None)
    if not planned:
        found += _in_processes(config, wanted, around.running, listed)
    return sorted(
        found, key=lambda finding: (not finding.now, not finding.problem, finding.place, finding.line)
    )


def _in_env_file(config: Config, wanted: Wanted, source: Source, path: Path) -> list[Finding]:
    """The ``.env`` that the switch itself edits: its value must be the target's."""
    expected = wanted.target.files[path]
    readers = ", ".join(config.sharing(path))
    try:
        seen = find_assignment(source.text.encode(), config.env_key, str(path))
    except CutoverError as error:
        return [make_finding(str(path), 0, config.env_key, readers, "", str(error), now=True)]
    if wanted.is_same(seen.value, [expected]):
        return []
    where = "there" if "@" in seen.value else "nowhere"
    text = (
        f"{path}:{seen.line} {config.env_key} {names(seen.value)}, not {expected.netloc} of the active target "
        f"{wanted.target.name}: {readers} report {where} from their next restart on, if not already. Correct what wrote it "
        f"(the deploy), then run `ai-admin-cutover {_again(wanted)}`"
    )
    return [make_finding(str(path), seen.line, config.env_key, readers, seen.value, text, now=True)]


def _again(wanted: Wanted) -> str:
    if wanted.target.name == GLITCHTIP:
        return "apply"
    return f"apply --to {wanted.target.name}" if wanted.target.name == MIRROR else "rollback"


def _in_source(
    config: Config, wanted: Wanted, source: Source, listed: Sequence[Process], *, is_own: bool
) -> list[Finding]:
    found = []
    for mention in find_mentions(source.text, source.kind, config.env_key):
        if source.tool == PACKAGE:
            mention = replace(mention, owner="")
        is_key = mention.name == config.env_key
        if (is_own and is_key) or (source.tool == DUMP and not _is_read_of_dump(config, mention)):
            continue
        if not mention.value and source.tool not in (DUMP, ECOSYSTEM):
            continue
        services = source.services or ((mention.owner,) if mention.owner else ())
        allowed = [dsn for name in services or ("",) for dsn in wanted.allowed(name)]
        if wanted.is_same(mention.value, allowed):
            continue
        problem = _is_problem(config, wanted, source, mention, is_key=is_key)
        if problem and source.tool == UNIT:
            problem = not _is_outweighed(config, wanted, source, listed)
        if problem is not None:
            found.append(_of_mention(config, wanted, source, mention, services, problem=problem))
    return found


def _is_read_of_dump(config: Config, mention: Mention) -> bool:
    """Whether PM2 reads that part of its saved list again.

    It keeps ``env_production`` and the like of the ecosystem file a service came from, and has read them into ``env`` then:
    ``resurrect`` and ``start NAME --env production`` do not read them from there, and ``restart`` and ``reload`` refuse
    ``--env`` without a file (PM2 7.0).
    """
    return mention.owner in config.services and not re.search(r"(?:^|\.)env_", mention.path)


def _is_problem(
    config: Config, wanted: Wanted, source: Source, mention: Mention, *, is_key: bool
) -> bool | None:
    """Whether a mention would move a service; None when it has nothing to do with this migration."""
    known = bool(wanted.known(mention.value))
    elsewhere = known or wanted.is_other_host(mention.value)
    harmless = False if elsewhere else None
    if mention.owner and mention.owner not in config.services:
        return harmless
    if source.tool in (ENV, ECOSYSTEM, COMPOSE) and _OTHER_STAGE.search(source.path.name):
        return harmless
    if not (is_key or not mention.name or mention.declared):
        return harmless
    if known:
        return True
    stages = f"{source.path.name} {mention.path}".replace(".", " ").split()
    if not (is_key and wanted.strict) or any(_is_other_stage(word) for word in stages):
        return harmless
    return True if _is_read_by_services(source) or elsewhere else harmless


def _is_other_stage(word: str) -> bool:
    return bool(_OTHER_STAGE.search(word) or _MAYBE_OTHER_STAGE.search(word))


def _is_read_by_services(source: Source) -> bool:
    """Whether what is in the file is meant for services, not for a build, a front end or a script's own use."""
    return source.tool not in (PACKAGE, DEPLOY, CRON) and (source.tool != ECOSYSTEM or _is_of_pm2(source))


def _is_of_pm2(source: Source) -> bool:
    return bool(re.search(r"\bapps\b|\benv_[A-Za-z]", source.text))


def _is_outweighed(config: Config, wanted: Wanted, source: Source, listed: Sequence[Process]) -> bool:
    """Whether systemd gives each service of a unit's file the target's DSN all the same: a later drop-in or ``.env`` wins."""
    given = {
        process.name: process.environment.get(config.env_key)
        for process in listed
        if process.name in source.services
    }
    return bool(given) and all(
        name in source.below_env if value is None else wanted.is_same(value, wanted.allowed(name))
        for name, value in given.items()
    )


def _of_mention(
    config: Config,
    wanted: Wanted,
    source: Source,
    mention: Mention,
    services: Sequence[str],
    *,
    problem: bool,
) -> Finding:
    place = f"{source.path}:{mention.line}"
    what = f"{place} {mention.path or 'a DSN'} {names(mention.value)}"
    moved = ", ".join(services) or "services"
    away = f"{moved} away from {wanted.target.label}" if wanted.target.name == "before" else f"{moved} back"
    if problem:
        text = f"{what}: {_command(config, source, mention)} would move {away}. {_remedy(config, wanted, source, services)}"
    else:
        text = f"{what}: {_harmless(config, source, mention)}"
    service = ", ".join(services)
    return make_finding(
        str(source.path),
        mention.line,
        mention.path or mention.name,
        service,
        mention.value,
        text,
        problem=problem,
    )


def _command(config: Config, source: Source, mention: Mention) -> str:
    """What would bring the value into effect."""
    stage = re.search(r"(?:^|\.)env_([A-Za-z0-9_-]+)", mention.path)
    if source.tool == ECOSYSTEM and not _is_of_pm2(source):
        return "a build or a start that reads it"
    if source.tool == ECOSYSTEM:
        option = f" --env {stage[1]}" if stage else ""
        return f"`pm2 reload {source.path.name}{option}`"
    return {
        ENV: "a restart of a service that reads it",
        PACKAGE: "`npm start` or whatever script runs that line",
        DUMP: "PM2's next start (its saved list is read at boot)",
        UNIT: "`systemctl daemon-reload` with the next restart",
        COMPOSE: "`docker compose up`",
        SHELL: f"`pm2 restart --update-env` or `pm2 start` from a shell or daemon of user {config.pm2.user}",
        DEPLOY: "a deploy that uses it",
        CRON: "cron's next run of that line (at boot for @reboot)",
    }[source.tool]


def _remedy(config: Config, wanted: Wanted, source: Source, services: Sequence[str]) -> str:
    if source.tool == DUMP:
        return "Run `pm2 save` as the user of PM2 once its services are on the target"
    path = (
        config.service(services[0]).env_file
        if services and services[0] in config.services
        else config.env_file
    )
    known = wanted.sources.get(path) or next(iter(wanted.sources.values()), "")
    value = f"the DSN in {known}" if known else f"the DSN of {wanted.target.label}"
    edit = f"Run `crontab -u {source.user} -e` and set it to" if source.user else "Set it to"
    return f"{edit} {value}, or remove it so that {path} counts"


def _harmless(config: Config, source: Source, mention: Mention) -> str:
    if mention.owner and mention.owner not in config.services:
        return f"{mention.owner} is none of the migrated services"
    if any(_is_other_stage(word) for word in f"{source.path.name} {mention.path}".replace(".", " ").split()):
        return "it is for another stage than production, see that no service of this host uses it"
    if source.tool == UNIT:
        return "a later drop-in or environment file gives the right DSN, so this has no effect"
    return f"it is not {config.env_key}, see whether something still reports there"


def _in_processes(
    config: Config, wanted: Wanted, running: Sequence[Running], listed: Sequence[Process]
) -> list[Finding]:
    """Environments of running processes, then what the manager would give to the next ones."""
    found: list[Finding] = []
    key = config.env_key
    seen: dict[tuple[str, str], list[int]] = {}
    for process in running:
        if process.value is not None and not wanted.is_same(process.value, wanted.allowed(process.service)):
            seen.setdefault((process.service, process.value), []).append(process.pid)
    for (service, value), pids in seen.items():
        numbers = " and ".join(map(str, pids[:3])) + (f" and {len(pids) - 3} more" if len(pids) > 3 else "")
        place = f"process{'es' if len(pids) > 1 else ''} {numbers}"
        if not service:
            text = (
                f"PM2's daemon ({place}) was started with {key}, which {names(value)}: services that it starts in cluster "
                "mode get that value where PM2 keeps none for them"
            )
            found.append(
                make_finding(f"PM2's daemon, {place}", 0, key, "", value, text, problem=False, now=False)
            )
            continue
        expected = ", ".join(dict.fromkeys(dsn.netloc for dsn in wanted.allowed(service)))
        text = (
            f"{service} ({place}) runs with {key} in its environment, which {names(value)}, not {expected}: it does not "
            f"report to the active target {wanted.target.name}. Correct where it comes from, then run "
            f"`ai-admin-cutover {_again(wanted)}`"
        )
        found.append(make_finding(f"{service}, {place}", 0, key, service, value, text, now=True))
    stored: dict[tuple[str, str], None] = {}
    for item in listed:
        given = item.environment.get(key)
        if item.name in wanted.target.services and given is not None and (item.name, given) not in seen:
            stored.setdefault((item.name, given))
    for name, given in stored:
        if not wanted.is_same(given, wanted.allowed(name)):
            manager = manager_label(config)
            text = (
                f"{manager} gives {name} a {key} that {names(given)}: it reports there from its next restart on, if not "
                f"already. Correct where it comes from, then run `ai-admin-cutover {_again(wanted)}`"
            )
            found.append(make_finding(f"{name} in {manager}", 0, key, name, given, text, now=True))
    return found


# --- commands -----------------------------------------------------------------------------------------------


def find_drift(
    config: Config, host: Host, state: State, listed: Sequence[Process]
) -> tuple[list[Finding], list[str]]:
    """Findings against the active target, and notes about what could not be read. Raises CutoverError."""
    with _one_sentence():
        wanted = wanted_now(config, state)
        if wanted is None:
            return [], []
        around = host.surroundings(listed)
        return judge(config, wanted, around, listed), [*around.notes, *_stale(config, around, listed)]


def find_undoing(
    config: Config, host: Host, target: Target, listed: Sequence[Process]
) -> tuple[list[Finding], list[str]]:
    """What a deploy would put back after a switch to ``target``, and notes.

    No switch depends on it: raises InterruptedRunError and nothing else.
    """
    try:
        with _one_sentence():
            wanted = wanted_after(config, target)
            if wanted is None:
                return [], []
            around = host.surroundings(listed)
            found = judge(config, wanted, around, listed, planned=True)
    except InterruptedRunError:
        raise
    except CutoverError as error:
        return [], [str(error)]
    return found, [*map(printable, around.notes), *(finding.text for finding in found)]


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    """Whatever goes wrong with files of others is one sentence, and no reason to stop anything else."""
    try:
        yield
    except CutoverError:
        raise
    except Exception as error:
        raise CutoverError(
            f"settings files were not compared with the target: unexpected {type(error).__name__}"
        ) from error


def add_drift(result: Row, findings: Sequence[Finding], notes: Sequence[str]) -> None:
    """Put findings into a result: rows, problems, and notes for what is worth knowing only."""
    result["drift"] = [asdict(finding) for finding in findings]
    problems = [*result.get("problems", []), *(finding.text for finding in findings if finding.problem)]
    result["problems"] = list(dict.fromkeys(problems))
    result["notes"] = [*map(printable, notes), *(finding.text for finding in findings if not finding.problem)]


def run_drift(config: Config, host: Host) -> Row:
    """The command ``drift``: is everything on the active target, and does it stay there? Reads only."""
    state = read_switch(config.state_dir)
    result: Row = {
        "changed": False,
        "state": state.phase,
        "target": state.stands,
        "compared": False,
        "problems": [],
    }
    wanted = wanted_now(config, state)
    if wanted is None:
        why = (
            "no switch was made yet"
            if state.phase == "none"
            else f"a change is under way or open ({state.phase})"
        )
        add_drift(result, [], [f"{why}: there is nothing to compare with"])
        return result
    listed: list[Process] = []
    try:
        listed = host.manager.processes()
    except CutoverError as error:
        result["problems"].append(f"running services were not compared: {error}")
    with _one_sentence():
        around = host.surroundings(listed)
        result |= {
            "compared": True,
            "target_hosts": wanted.target.label,
            "files": len(around.sources),
            "processes": len(around.running),
        }
        add_drift(
            result, judge(config, wanted, around, listed), [*around.notes, *_stale(config, around, listed)]
        )
    return result


def _stale(config: Config, around: Surroundings, listed: Sequence[Process]) -> list[str]:
    """Services that run longer than their ``.env`` is as it is, and so may have read another one."""
    given = {process.service for process in around.running if process.value is not None}
    notes = []
    for process in listed:
        if (
            process.name not in config.services
            or not process.online
            or process.name in given
            or process.container
        ):
            continue
        info = info_of(config.service(process.name).env_file)
        if info is not None and 0 < process.started_at < info.st_mtime - 1:
            notes.append(
                f"{process.name} runs since before {config.service(process.name).env_file} was last changed: which DSN it read "
                "is not known, restart it to be sure"
            )
    return list(dict.fromkeys(notes))
