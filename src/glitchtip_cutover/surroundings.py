"""What may give a service its DSN: settings files that a deploy or a boot reads, and the environments of processes.

Only read, and as little as possible: names that tools read settings from, in the product's directories, a few levels
deep; what PM2, systemd or Compose name; ``/proc/<pid>/environ`` of the services and of what they started.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glitchtip_core.foreign_files import is_directory, list_directory
from glitchtip_core.foreign_paths import real_path
from glitchtip_core.foreign_search import ForeignFile, find_files, read_foreign
from glitchtip_core.json_text import decode_json
from glitchtip_core.process import run, search_path, user_home

from .config import Config
from .crontabs import named_files, owners_of, read_crontabs
from .engine import Docker
from .envfile import EnvFile
from .errors import CutoverError, InterruptedRunError
from .manager import Process
from .mentions import CODE, LINES, YAML
from .systemd import environment_files, parse_show, unit_name

#: What a source is, for messages and for judging: of which tool, and when it is read.
ENV, ECOSYSTEM, PACKAGE, DUMP, UNIT, COMPOSE, SHELL, DEPLOY, CRON = (
    "env", "ecosystem", "package", "dump", "unit", "compose", "shell", "deploy", "cron",
)  # fmt: skip
_DUMP_BYTES = 8 * 1024 * 1024
_DEPTH = 4
_SKIPPED = frozenset(
    {
        "node_modules", "bower_components", "vendor", "releases", "backup", "backups", "test", "tests", "__tests__",
        "spec", "fixtures", "docs", "doc", "examples", "example", "coverage", "logs", "log", "tmp", "cache", "venv",
        "__pycache__",
    }
)  # fmt: skip
_HIDDEN_ENTERED = frozenset({".github", ".gitlab", ".circleci", ".ebextensions", ".config"})
# Copies and examples, which no program reads.
_COPY = re.compile(
    r"(?i)(~|\.(bak|backup|old|orig|save|saved|swp|tmp|part|example|sample|template|tpl|dist|defaults?|"
    r"pre-glitchtip.*|rpmnew|rpmsave|dpkg-\w+|bak[.\-_].*|\d{6,}.*))$"
)
_ENV_NAME = re.compile(r"^(\.env|\.env[.\-_][\w.\-]+|[\w.\-]+\.env|env\.(production|prod))$", re.IGNORECASE)
_ECOSYSTEM_NAME = re.compile(
    r"^(.*\.config\.(c|m)?js|.*\.config\.(json5?|ya?ml)|(ecosystem|pm2|processe?s?|process)([.\-_][\w\-]+)*\.((c|m)?js|json5?|ya?ml)"
    r"|.*\.pm2\.((c|m)?js|json|ya?ml))$",
    re.IGNORECASE,
)
_COMPOSE_NAME = re.compile(r"^(docker-)?compose([.\-_][\w.\-]+)?\.ya?ml$", re.IGNORECASE)
_DEPLOY_NAME = re.compile(
    r"^(.*\.ya?ml|.*\.(sh|bash|service|timer)|Dockerfile([.\-].*)?|.*\.Dockerfile|Makefile|Procfile|Jenkinsfile|justfile|deploy)$",
    re.IGNORECASE,
)
# Settings as code or data, which an ecosystem file or the product may load.
_CODE_NAME = re.compile(
    r"^(env|environment|settings|config|sentry|instrument\w*|production|prod|default)([.\-_][\w\-]+)*\.((c|m)?[jt]s|json5?)$",
    re.IGNORECASE,
)
_DATA_NAME = re.compile(r"(?i)(lock|tsconfig.*|jsconfig|manifest|shrinkwrap|composer)\.(json5?|ya?ml)$")
_ENV_FILE = re.compile(
    r"^[ \t]*env_file:[ \t]*(?P<one>[^\s#]*)[^\n]*"
    r"(?P<more>(?:\n[ \t]*-[^\n]*|\n[ \t]+(?:path|required|format):[^\n]*)*)",
    re.MULTILINE,
)
_ENV_FILE_ITEM = re.compile(r"^[ \t]*(?:-[ \t]*)?(?:path:[ \t]*)?([^\s#]+)[ \t]*(?:#.*)?$", re.MULTILINE)
_SHELL_FILES = (
    ".profile",
    ".bash_profile",
    ".bash_login",
    ".bashrc",
    ".zshenv",
    ".zprofile",
    ".zshrc",
    ".pam_environment",
)
_POOL = 4000
ETC = Path("/etc")
SPOOL = Path("/var/spool/cron")


@dataclass(frozen=True)
class Source:
    """A settings file: what it is of, how its text is read, and which services it is for (empty: cannot be told).

    ``below_env``: those of them whose ``.env`` systemd reads, too, so that it wins where nothing else gives a value.
    ``user``: whose crontab it is.
    """

    path: Path
    text: str = field(repr=False)
    tool: str
    kind: str
    services: tuple[str, ...] = ()
    below_env: frozenset[str] = frozenset()
    user: str = ""


@dataclass(frozen=True)
class Running:
    """The environment of one running process; ``service`` is empty for PM2's daemon."""

    pid: int
    service: str
    value: str | None = field(repr=False)


@dataclass(frozen=True)
class Surroundings:
    """Everything that was read, and sentences about what could not be; ``unread``: each ``.env`` that the switch edits."""

    sources: tuple[Source, ...] = ()
    running: tuple[Running, ...] = ()
    notes: tuple[str, ...] = ()
    unread: Mapping[Path, str] = field(default_factory=dict)


def read_surroundings(config: Config, listed: Sequence[Process], proc: Path = Path("/proc")) -> Surroundings:
    """Read files and processes of the product on this host. What cannot be read is a note.

    Raises InterruptedRunError and nothing else.
    """
    notes: list[str] = []
    sources: dict[Path, Source] = {}
    unread: dict[Path, str] = {}
    for (
        path
    ) in config.env_files:  # read as the switch reads them: whoever configured them says where they are
        try:
            text = EnvFile(path, config.env_key).read().decode("utf-8", "replace")
            sources[real_path(path)] = Source(path, text, ENV, LINES)
        except InterruptedRunError:
            raise
        except CutoverError as error:
            unread[path] = str(error)
    for source in [
        *_managed(config, notes),
        *_product(config, listed, notes),
        *_of_cron(config, listed, notes, proc),
    ]:
        sources.setdefault(real_path(source.path), source)
    running = tuple(read_running(config, listed, proc))
    return Surroundings(tuple(sources.values()), running, tuple(notes), unread)


# --- files of the product -----------------------------------------------------------------------------------


def tool_of(name: str) -> tuple[str, str] | None:
    """Whose settings a file of that name holds and how it is read; None where no tool reads such a file."""
    if _COPY.search(name):
        return None
    yaml = YAML if name.lower().endswith((".yml", ".yaml")) else LINES
    if _ENV_NAME.match(name):
        return ENV, LINES
    if _ECOSYSTEM_NAME.match(name):
        return ECOSYSTEM, YAML if yaml == YAML else CODE
    if name == "package.json":
        return PACKAGE, CODE
    if _COMPOSE_NAME.match(name):
        return COMPOSE, YAML
    if _DATA_NAME.search(name):
        return None
    if _CODE_NAME.match(name):
        return DEPLOY, CODE
    return (DEPLOY, yaml) if _DEPLOY_NAME.match(name) else None


def _is_entered(name: str) -> bool:
    return name not in _SKIPPED and (not name.startswith(".") or name in _HIDDEN_ENTERED)


def _product(config: Config, listed: Sequence[Process], notes: list[str]) -> Iterator[Source]:
    """Files below the product's directory, beside each ``.env``, in the services' directories, and named ones."""
    roots: dict[Path, tuple[Path, int]] = {real_path(config.app_dir): (config.app_dir, _DEPTH)}
    mine = [process for process in listed if process.name in config.services and not process.container]
    beside = [path.parent for path in config.env_files]
    beside += [Path(process.cwd) for process in mine if process.cwd not in ("", "/")]
    if config.manager == "compose":
        beside.append(config.compose.directory)
    files: list[Path] = []
    for path in config.deploy_files:
        (beside if is_directory(path) else files).append(path)
    for path in beside:
        roots.setdefault(real_path(path), (path, 1))
    for real, (root, depth) in roots.items():
        deep = 0 if real == Path("/") else depth
        yield from _sources(find_files(root, lambda name: tool_of(name) is not None, _is_entered, deep), notes)
    for path in files:
        found = read_foreign(path)
        if found is None:
            notes.append(f"{path} of deploy_files is not there")
        else:
            yield from _sources([found], notes)


def _sources(files: Iterable[ForeignFile], notes: list[str]) -> Iterator[Source]:
    for found in files:
        tool, kind = tool_of(found.path.name) or (DEPLOY, LINES)
        if found.problem:
            if tool in (ENV, ECOSYSTEM, COMPOSE) or not found.path.suffix:
                notes.append(found.problem)
            continue
        yield Source(Path(os.path.normpath(found.path)), found.text, tool, kind)


# --- files of the manager -----------------------------------------------------------------------------------


def _managed(config: Config, notes: list[str]) -> Iterator[Source]:
    try:
        if config.manager == "pm2":
            yield from _of_pm2(config, notes)
        elif config.manager == "systemd":
            yield from _of_systemd(config, notes)
        else:
            yield from _of_compose(config, notes)
    except InterruptedRunError:
        raise
    except CutoverError as error:
        notes.append(str(error))


def _read(path: Path, tool: str, kind: str, notes: list[str]) -> Iterator[Source]:
    found = read_foreign(path, _DUMP_BYTES) if tool == DUMP else read_foreign(path)
    if found is not None and found.problem:
        notes.append(found.problem)
    elif found is not None:
        yield Source(path, found.text, tool, kind)


def _of_pm2(config: Config, notes: list[str]) -> Iterator[Source]:
    """PM2's saved list, what starts its daemon at boot, and what its user's shell exports to ``pm2``."""
    home = Path(user_home(config.pm2.user))
    yield from _read((config.pm2.home or home / ".pm2") / "dump.pm2", DUMP, CODE, notes)
    for path in sorted((ETC / "systemd/system").glob(f"pm2-{config.pm2.user}.service*")):
        for file in sorted(path.glob("*.conf")) if path.is_dir() else [path]:
            yield from _read(file, SHELL, LINES, notes)
    for file in [
        *(home / name for name in _SHELL_FILES),
        ETC / "environment",
        *sorted((ETC / "profile.d").glob("*.sh")),
    ]:
        yield from _read(file, SHELL, LINES, notes)
    ecosystem = find_files(home, lambda name: tool_of(name) == (ECOSYSTEM, CODE), lambda _name: False, 0)
    yield from _sources(ecosystem, notes)


def _of_systemd(config: Config, notes: list[str]) -> Iterator[Source]:
    """Units, drop-ins and environment files of every service, each with the services that it is for."""
    done = run(
        ["systemctl", "show", "--no-pager", "--property=Id,FragmentPath,DropInPaths,EnvironmentFiles", "--",
         *map(unit_name, config.services)],
        environment={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
        timeout=30,
    )  # fmt: skip
    names = {unit_name(name): name for name in config.services}
    users: dict[Path, list[str]] = {}
    below_env: set[str] = set()
    for block in parse_show(done.output):
        name = names.get(block.get("Id", [""])[0])
        if name is None:
            continue
        units = [
            Path(path)
            for line in (*block.get("FragmentPath", []), *block.get("DropInPaths", []))
            for path in line.split()
        ]
        files = [
            path
            for pattern in environment_files(block.get("EnvironmentFiles", []))
            for path in _expand(pattern)
        ]
        if real_path(config.service(name).env_file) in map(real_path, files):
            below_env.add(name)
        for path in [*units, *files]:
            users.setdefault(path, []).append(name)
    for path, services in users.items():
        if path.parent != config.state_dir / "systemd":
            for source in _read(path, UNIT, LINES, notes):
                yield replace(source, services=tuple(services), below_env=frozenset(below_env))


def _expand(pattern: Path) -> list[Path]:
    """The files that an ``EnvironmentFile=`` names, in the order in which systemd reads them."""
    found = [Path("/")]
    for part in pattern.parts[1:]:
        if re.search(r"[*?[]", part):
            found = [path / name for path in found for name in fnmatch.filter(list_directory(path), part)]
        else:
            found = [path / part for path in found]
    return sorted(found)


def _of_compose(config: Config, notes: list[str]) -> Iterator[Source]:
    """The Compose files that the project was started with; files beside them are found with the product's."""
    files: set[Path] = set()
    for item in Docker(config.compose.docker).containers(config.compose.project):
        labels = (item.get("Config") or {}).get("Labels") or {}
        files |= {
            Path(path)
            for path in str(labels.get("com.docker.compose.project.config_files") or "").split(",")
            if path
        }
    for path in sorted(files):
        if path.parent != config.state_dir:
            for source in _read(path, COMPOSE, YAML, notes):
                yield source
                for named in _env_files(source.text):
                    yield from _read(path.parent / named, ENV, LINES, notes)


def _env_files(text: str) -> Iterator[str]:
    """What ``env_file:`` names in a Compose file: one path, a list of them, or of mappings with ``path:``."""
    for match in _ENV_FILE.finditer(text):
        listed = _ENV_FILE_ITEM.findall(match["more"])
        words = [*match["one"].strip("[]").split(","), *listed]
        yield from (word.strip("\"'") for word in words if word.strip("\"'"))


# --- files of cron ------------------------------------------------------------------------------------------


def _of_cron(config: Config, listed: Sequence[Process], notes: list[str], proc: Path) -> Iterator[Source]:
    """Crontabs of root, the product's users and the system, and the files that their lines name."""
    pids = [process.pid for process in listed if process.name in config.services and process.pid > 0]
    users = owners_of([config.app_dir, *config.env_files, *(proc / str(pid) for pid in pids)]) | {"root"}
    if config.manager == "pm2":
        users.add(config.pm2.user)
    named: dict[Path, None] = {}
    for table in read_crontabs(users, ETC, SPOOL):
        if table.problem:
            notes.append(table.problem)
            continue
        user = table.path.name if SPOOL in table.path.parents else ""
        yield Source(table.path, table.text, CRON, LINES, user=user)
        named |= dict.fromkeys(named_files(table.text))
    for path in named:
        tool = tool_of(path.name)
        found = read_foreign(path) if tool else None
        if tool and found is not None and not found.problem:
            # An ecosystem file says whose each DSN is; for other files that is not known.
            yield Source(path, found.text, ECOSYSTEM if tool[0] == ECOSYSTEM else CRON, tool[1])


# --- processes ----------------------------------------------------------------------------------------------


def read_running(config: Config, listed: Sequence[Process], proc: Path = Path("/proc")) -> Iterator[Running]:
    """The variable ``env_key`` in every process of the services and of what these started, and in PM2's daemon."""
    children = _children(proc)
    parents = {child: parent for parent, found in children.items() for child in found}
    daemons: set[int] = set()
    for process in listed:
        if process.name not in config.services or process.pid <= 0:
            continue
        if config.manager == "pm2" and process.pid in parents:
            daemons.add(parents[process.pid])
        left, seen = [process.pid], set[int]()
        while left and len(seen) < _POOL:
            pid = left.pop(0)
            if pid in seen:
                continue
            seen.add(pid)
            left += children.get(pid, [])
            environment = read_environment(pid, proc)
            if environment is not None:
                yield Running(pid, process.name, environment.get(config.env_key))
    for pid in sorted(daemons - {0, 1}):
        environment = read_environment(pid, proc)
        if environment is not None and config.env_key in environment:
            yield Running(pid, "", environment[config.env_key])


def read_environment(pid: int, proc: Path = Path("/proc")) -> dict[str, str] | None:
    """The environment with which a process was started; None where it is gone or another user's.

    A worker of PM2's cluster mode is started with the daemon's environment, and takes on what PM2 stored for it
    (variable ``pm2_env``, JSON) before the service's code runs: that is included.
    """
    try:
        data = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    pairs = (item.partition(b"=") for item in data.split(b"\0") if b"=" in item)
    found = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, _, value in pairs}
    return found | _stored(found.get("pm2_env", "")) if "NODE_UNIQUE_ID" in found else found


def _stored(text: str) -> dict[str, str]:
    try:
        data: Any = decode_json(text)
    except ValueError:
        return {}
    return (
        {key: value for key, value in data.items() if isinstance(value, str)}
        if isinstance(data, dict)
        else {}
    )


def _children(proc: Path) -> dict[int, list[int]]:
    """The processes that each process started, by their ids."""
    found: dict[int, list[int]] = {}
    for path in proc.glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold anything; the parent is the second word after it.
            words = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            found.setdefault(int(words[1]), []).append(int(path.parent.name))
        except (OSError, ValueError, IndexError):
            continue
    return found
