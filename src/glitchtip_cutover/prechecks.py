"""What phase 0 finds on the product's host before anything is changed: every reason at once, a sentence each.

Reads only. A problem keeps the migration from beginning; a note is advice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from glitchtip_core.dsn import parse_dsn
from glitchtip_core.foreign_files import is_file, names_in, open_directory, read_text
from glitchtip_core.foreign_paths import ForeignError, real_path
from glitchtip_core.foreign_search import read_foreign

from .announce import parse_settings
from .compose import Compose
from .config import Config, Service
from .config_file import parse_config
from .envfile import MAX_BYTES, EnvFile, find_assignment, read_variables
from .errors import CutoverError, UsageError
from .instrument_text import is_set_in
from .manager import Manager, Process, manager_label
from .planning import service_problems, strangers
from .proof import instrument_paths
from .services import of
from .snapshot import Snapshot
from .window import parse_window

_T = TypeVar("_T")
_WHERE = Path("the variables of role ai-admin-cutover")
#: Keys of the configuration that are judged alone, with the value that stands in for a bad one.
_ALONE: Mapping[str, Any] = {"window": "", "canary": "", "strategy": "one_by_one"}
#: Names by which products switch their SDK off, and the values that do so.
_OFF = frozenset({"false", "0", "no", "off", "disabled"})
_ON = frozenset({"true", "1", "yes", "on", "enabled"})
_ENABLING = re.compile(r"^(?:(?:ENABLE|USE)_)?(?:SENTRY|ERROR_TRACKING)(?:_SDK)?(?:_(?:ENABLED?|ACTIVE|ON))?$")
_DISABLING = re.compile(r"^(?:(?:DISABLE|NO|SKIP)_SENTRY|SENTRY_(?:DISABLED?|OFF))$")
#: Files beside a ``.env`` that nobody loads: examples, and copies that people and this program keep.
_UNREAD = re.compile(r"\.(example|sample|template|dist|defaults?|schema|bak|backup|old|orig|save|swp|part|tmp|vault)(\b|[-_.~]|$)|~$")
_COPY = re.compile(r"\.(pre-glitchtip|before|copy)\b|-\d{8}")
_ENV_FILE_OPTIONS = ("--env-file", "--env-file-if-exists")


@dataclass
class Findings:
    """Problems and notes, each once and in the order in which they were found."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    of_services: dict[str, list[str]] = field(default_factory=dict)

    def about(self, service: str, problem: str) -> None:
        """A problem of one service; the same of several is reported once, with all their names."""
        self.of_services.setdefault(problem, []).append(service)

    def attempt(self, read: Callable[[], _T]) -> _T | None:
        """The result of ``read``; a refusal becomes a problem, and the result is None."""
        try:
            return read()
        except CutoverError as error:
            self.problems.append(_sentence(str(error)))
            return None

    def result(self) -> dict[str, list[str]]:
        """As a JSON document."""
        shared = [f"{', '.join(names)}: {text}" for text, names in self.of_services.items()]
        return {
            "problems": list(dict.fromkeys(map(_sentence, [*self.problems, *shared]))),
            "notes": list(dict.fromkeys(map(_sentence, self.notes))),
        }


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def read_config(document: Mapping[str, Any], findings: Findings) -> Config | None:
    """The configuration of the switch; each faulty setting is reported on its own and then left out."""
    given = dict(document)
    for key, neutral in _ALONE.items():
        if problem := _setting_problem(key, given):
            findings.problems.append(_sentence(f"ai_admin_cutover_{key} {problem}"))
            given[key] = neutral
    try:
        return parse_config(given, _WHERE)
    except UsageError as error:
        findings.problems.append(_sentence(str(error)))
    try:
        return parse_config(given, _WHERE, lenient=True)  # so that a faulty tracker hides nothing of the product
    except UsageError:
        return None


def _setting_problem(key: str, given: Mapping[str, Any]) -> str:
    """What is wrong with one setting that can be judged without the others, as a predicate."""
    value = given.get(key)
    if key == "window" and isinstance(value, str):
        try:
            parse_window(value)
        except ValueError as error:
            return f"({value}) {error}"
    if key == "canary" and value:
        names = [item if isinstance(item, str) else str(item.get("name")) for item in given.get("services") or []]
        if value not in names:
            return f"({value}) is none of the services: use one of {', '.join(names)}, or leave it empty"
    if key == "strategy" and value not in (None, "one_by_one", "all_at_once"):
        return f"({value}) must be one_by_one or all_at_once"
    return ""


def check_product(config: Config, manager: Manager, findings: Findings, *, known_offline: bool = False) -> None:
    """Everything about the product's files and services.

    ``known_offline``: services that are missing or not online are already reported elsewhere.
    """
    files = {path: _read_env(path, config.env_key, findings) for path in config.env_files}
    if isinstance(manager, Compose):
        findings.attempt(manager.check_access)
    if known_offline and not manager.running:
        return
    listed = findings.attempt(manager.processes) or []
    if not listed:
        return
    told = service_problems(config, listed)
    missing = {name for name in config.services if not of(listed, name)}
    if known_offline:
        told = [text for text in told if not _is_about_status(config, listed, missing, text)]
    findings.problems += [_sentence(text) for text in told]
    findings.notes += [_sentence(text) for text in strangers(config, listed, findings.problems)]
    for unit in config.units:
        for process in of(listed, unit.name)[:1]:
            _check_service(config, unit, process, files.get(unit.env_file) or {}, findings)
    _check_other_files(config, listed, findings)
    _advise_on_labels(config, listed, files, findings)


def _is_about_status(config: Config, listed: Sequence[Process], missing: Iterable[str], text: str) -> bool:
    """Whether a sentence of ``service_problems`` only says that a service is missing or not online."""
    label = manager_label(config)
    return text in {f"{label} knows no service {name}" for name in missing} | {
        f"the service {process.name} is {process.status}, not online" for process in listed
    }


def _read_env(path: Path, key: str, findings: Findings) -> dict[str, str] | None:
    """All variables of one ``.env``, whose DSN must be there and valid."""
    file = EnvFile(path, key)
    data = findings.attempt(file.read)
    if data is None:
        return None
    findings.attempt(file.check)
    found = findings.attempt(lambda: find_assignment(data, key, str(path)))
    if found is not None and not found.value:
        findings.problems.append(
            f"{path} line {found.line}: {key} is empty, so no service that reads this file reports anywhere. "
            "Put the DSN there that is in use."
        )
    elif found is not None:
        findings.attempt(lambda: parse_dsn(found.value, f"{path} line {found.line}: the value of {key}"))
    return read_variables(data)


# ---------------------------------------------------------------------- one service


def _check_service(
    config: Config, unit: Service, process: Process, file: Mapping[str, str], findings: Findings
) -> None:
    """Instrument file, automatic restarts, the switch of the SDK, and the environment file that Node.js reads."""
    name = process.name
    if not process.container and _instrument(config, process) is None:
        findings.about(
            name,
            f"there is no instrument file {config.instrument_of(name)}, neither in the working directory nor in {config.app_dir}. "
            "Set ai_admin_cutover_instrument, or `instrument` of that service, to the file that calls Sentry.init().",
        )
    if process.watches_files:
        findings.about(
            name,
            f"it is restarted whenever a file changes ({process.watches_files}). The change of {unit.env_file} would "
            "restart it in the middle of the switch. Switch that off for the migration, restart the service and save "
            "(PM2: `watch: false` in its ecosystem file).",
        )
    for variable, value, place in _switches(process, file, unit.env_file):
        findings.about(
            name,
            f"{variable}={value} in {place} switches error tracking off, so that nothing is reported and nothing can be "
            "proven. Remove it, or list the service in ai_admin_cutover_without_sdk.",
        )
    _check_own_dsn(config, unit, process, findings)
    for path in _named_env_files(process):
        if real_path(path) not in {real_path(known) for known in config.env_files}:
            findings.about(
                name,
                f"Node.js is started with --env-file={path}, which is not the file that the switch edits "
                f"({unit.env_file}). Give the service its own env_file in ai_admin_cutover_services.",
            )


def _check_own_dsn(config: Config, unit: Service, process: Process, findings: Findings) -> None:
    carried = process.environment.get(config.env_key)
    if carried:
        findings.attempt(
            lambda: parse_dsn(
                carried, f"{unit.name}: the value of {config.env_key} in its environment of {manager_label(config)}"
            )
        )


def _switches(process: Process, file: Mapping[str, str], path: Path) -> list[tuple[str, str, str]]:
    """(variable, value, place) of what switches the SDK off; the process's own environment wins over the file."""
    found: list[tuple[str, str, str]] = []
    for variable in sorted({*process.environment, *file}):
        own = variable in process.environment
        value = process.environment[variable] if own else file[variable]
        plain = value.strip().lower()
        off = (_ENABLING.match(variable) and plain in _OFF) or (_DISABLING.match(variable) and plain in _ON)
        if off:
            found.append((variable, value.strip(), "its environment" if own else str(path)))
    return found


def _named_env_files(process: Process) -> list[Path]:
    """Files that the options of Node.js name for its environment, as absolute paths."""
    found: list[Path] = []
    options = list(process.command[1:])
    for number, word in enumerate(options):
        option, sign, value = word.partition("=")
        if option in _ENV_FILE_OPTIONS:
            named = value if sign else "".join(options[number + 1 : number + 2])
            if named:
                found.append(Path(process.cwd) / named)
    return found


# ---------------------------------------------------------------------- other files that set the DSN


def _check_other_files(config: Config, listed: Sequence[Process], findings: Findings) -> None:
    """Files beside a ``.env`` that set the DSN too: loaders such as dotenv-flow, Next.js and Vite let them win."""
    by_directory: dict[Path, list[Process]] = {}
    for unit in config.units:
        for process in of(listed, unit.name):
            if not process.container:
                for directory in {unit.env_file.parent, Path(process.cwd)}:
                    by_directory.setdefault(directory, []).append(process)
    edited = {real_path(path) for path in config.env_files}
    told: set[Path] = set()
    for directory, processes in sorted(by_directory.items()):
        for path in _env_files_in(directory, findings):
            if real_path(path) in edited | told:
                continue
            told.add(real_path(path))
            found = read_foreign(path, MAX_BYTES)
            if found is None:
                continue
            line = _line_that_sets(found.text, config.env_key)
            if found.problem or line:
                _report_other_file(config, path, found.problem or line, processes, findings)


def _env_files_in(directory: Path, findings: Findings) -> list[Path]:
    """The files that loaders may read; a directory that cannot be listed is a problem, one that is not there is none."""
    try:
        with open_directory(directory) as opened:
            listed = names_in(opened)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return []
    except (OSError, ForeignError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        findings.problems.append(_sentence(f"files beside .env in {directory} cannot be judged: {reason}"))
        return []
    names = [name for name in listed if name == ".env" or name.startswith(".env.")]
    return [directory / name for name in names if not _UNREAD.search(name[4:]) and not _COPY.search(name[4:])]


def _line_that_sets(text: str, key: str) -> int:
    """Number of the line that sets ``key`` in a text; 0 where there is none."""
    match = re.search(rf"^[ \t]*(?:export[ \t]+)?{re.escape(key)}[ \t]*[=:]", text, re.MULTILINE)
    return 0 if match is None else text.count("\n", 0, match.start()) + 1


def _report_other_file(
    config: Config, path: Path, found: int | str, processes: Sequence[Process], findings: Findings
) -> None:
    """A problem when the file wins for one of these services, else a note.

    ``found``: the line that sets the DSN, or why the file cannot be read.
    """
    modes = {process.environment.get("NODE_ENV") or "production" for process in processes}
    names = ", ".join(dict.fromkeys(process.name for process in processes))
    words = [word for word in path.name[4:].split(".") if word]
    mode = next((word for word in words if word != "local"), "")
    wins = path.name == ".env" or not mode or mode in modes
    if isinstance(found, str):
        told = f"whether {path} sets {config.env_key} too cannot be judged ({names}): {found}"
        (findings.problems if wins else findings.notes).append(_sentence(told))
    elif wins:
        findings.problems.append(
            f"{path} line {found} sets {config.env_key} too, and the switch does not edit this file. With loaders such as "
            f"dotenv-flow, Next.js or Vite it wins over {config.env_file.name} ({names}). Remove the line, or give the services "
            "that read it this env_file in ai_admin_cutover_services."
        )
    else:
        findings.notes.append(
            f"{path} line {found} sets {config.env_key} too, for NODE_ENV={mode}; the services here run with "
            f"{', '.join(sorted(modes))}."
        )


# ---------------------------------------------------------------------- release and environment


def _advise_on_labels(
    config: Config, listed: Sequence[Process], files: Mapping[Path, Mapping[str, str] | None], findings: Findings
) -> None:
    """Services whose events carry no release or environment, with the line to add."""
    for option, variable, example, loss in (
        ("release", "SENTRY_RELEASE", "<version of this deploy>", "no issue can be tied to a deploy or resolved by one"),
        ("environment", "SENTRY_ENVIRONMENT", "production", "production and test events cannot be told apart"),
    ):
        without: dict[Path, list[str]] = {}
        for unit in config.units:
            for process in of(listed, unit.name)[:1]:
                file = files.get(unit.env_file) or {}
                if not process.container and not _has_label(config, process, file, option, variable):
                    without.setdefault(unit.env_file, []).append(unit.name)
        for path, names in without.items():
            findings.notes.append(
                f"{', '.join(names)}: events carry no {option}, so {loss}. Add the line `{variable}={example}` to {path}, "
                f"or `{option}: '...'` to Sentry.init() in {config.instrument}, and restart."
            )


def _has_label(
    config: Config, process: Process, file: Mapping[str, str], option: str, variable: str
) -> bool:
    if process.environment.get(variable) or file.get(variable):
        return True
    path = _instrument(config, process)
    if path is None:
        return True  # no such file: that is the problem to report
    text = read_text(path, MAX_BYTES)
    return text is None or is_set_in(text, option)


def _instrument(config: Config, process: Process) -> Path | None:
    """The instrument file of a service outside containers; None when it is in none of its places."""
    return next(filter(is_file, map(Path, instrument_paths(config, process, process.cwd))), None)



# ---------------------------------------------------------------------- trackers and people


def check_notifications(document: Mapping[str, Any], findings: Findings) -> None:
    """The settings of who is notified, as the program will read them."""
    findings.attempt(lambda: parse_settings(document, "ai_admin_cutover_notify"))


def check_migrated_project(config: Config, project_id: str, findings: Findings) -> None:
    """Before the first snapshot the DSN in use must be of the project that rollbacks are proven in."""
    if not project_id or Snapshot(config.state_dir).exists:
        return
    for path in config.env_files:
        try:
            dsn = parse_dsn(EnvFile(path, config.env_key).value())
        except CutoverError:
            return  # reported above
        if dsn.project_id == project_id:
            return
    findings.problems.append(
        f"{config.env_key} in {config.env_files[0]} is of project {dsn.project_id} at {dsn.netloc}, but "
        f"ai_admin_cutover_old_project has the id {project_id}: a rollback could not be proven. Correct the project."
    )
