"""Services of a Docker Compose project: read with ``docker inspect``, made anew with ``docker compose up``.

Facts of Compose v2 and the engine: a container keeps the environment that it was created with. Neither ``docker
restart`` nor ``docker compose restart`` reads a changed ``env_file`` again, and a single file that is mounted
stays the old one when it was replaced by a rename. So a service is always made anew: ``up --detach
--force-recreate --no-deps SERVICE``. ``environment:`` wins over ``env_file:``, and a later ``-f`` file over an
earlier one; a new container's ``RestartCount`` is 0. A value that ``env_file:`` cannot change is set by a Compose
file of our own (JSON, mode 600, in the state directory), which every call of ours names last. Somebody who runs
``docker compose up`` without it brings the value of the project's own files back; ``ai-admin-cutover verify``
finds that.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from glitchtip_core.files import private_directory, read_json, write_json
from glitchtip_core.foreign_files import info_of
from glitchtip_core.foreign_paths import controllers_of
from glitchtip_core.json_text import decode_json
from glitchtip_core.pm2_list import as_mapping, as_whole
from glitchtip_core.process import Completed, user_name

from .config import Config
from .engine import CALL_TIMEOUT, Docker, may_read, owner_and_mode, reason_of
from .envfile import EnvFile
from .errors import CutoverError, InterruptedRunError
from .launch import Launch, launch_if_running, launch_of_job
from .manager import Process, Restart, file_watcher, raise_all
from .snapshot import Snapshot

_UP_TIMEOUT = 180.0
#: The Compose file that is read from standard input.
_STDIN = "-"
_STATUS = {
    "running": "online",
    "restarting": "launching",
    "created": "launching",
    "exited": "stopped",
    "paused": "paused",
    "dead": "errored",
}


def epoch(text: str) -> float:
    """Epoch seconds of the engine's time (``2026-01-02T03:04:05.123456789Z``); 0 for its zero time."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)", text)
    if match is None or match[1].startswith("0001-"):
        return 0.0
    return datetime.fromisoformat(f"{match[1]}{match[2] or ''}{match[3].replace('Z', '+00:00')}").timestamp()


class Compose:
    """The services of one Compose project."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings = config.compose
        self.docker = Docker(config.compose.docker)
        self.override = config.state_dir / "compose.override.json"
        self._files: tuple[str, ...] = ()
        self._resolved: tuple[object, dict[str, Any]] | None = None

    @property
    def running(self) -> bool:
        """Whether the engine answers."""
        return self.docker.answers()

    def processes(self) -> list[Process]:
        """The project's containers; a container that ended well and is not restarted counts as an idle job."""
        containers = self.docker.containers(self.settings.project)
        if not containers:
            return []
        self._remember_files(containers)
        resolved = self._services(with_override=True)
        found = [
            self._process(number, item, resolved)
            for number, item in enumerate(sorted(containers, key=lambda item: str(item.get("Name"))))
        ]
        order = [*self.config.services, *self.config.without_sdk]
        return sorted(
            found, key=lambda process: order.index(process.name) if process.name in order else len(order)
        )

    def _process(self, number: int, item: Mapping[str, Any], resolved: Mapping[str, Any]) -> Process:
        state, settings = as_mapping(item.get("State")), as_mapping(item.get("Config"))
        labels = as_mapping(settings.get("Labels"))
        name = str(labels.get("com.docker.compose.service") or item.get("Name", "")).lstrip("/")
        status = _STATUS.get(str(state.get("Status")), str(state.get("Status") or "unknown"))
        if as_mapping(state.get("Health")).get("Status") == "unhealthy":
            status = "unhealthy"
        policy = as_mapping(as_mapping(item.get("HostConfig")).get("RestartPolicy")).get("Name") or "no"
        ended_well = status == "stopped" and state.get("ExitCode") == 0
        if status == "stopped" and not ended_well:
            status = "errored"
        environment = dict(
            line.split("=", 1) for line in settings.get("Env") or [] if isinstance(line, str) and "=" in line
        )
        carried = self._carried(name, environment.get(self.config.env_key), resolved)
        environment.pop(self.config.env_key, None)
        if carried is not None:
            environment[self.config.env_key] = carried
        command = [*(settings.get("Entrypoint") or []), *(settings.get("Cmd") or [])]
        return Process(
            name=name,
            pm_id=number,
            pid=as_whole(state.get("Pid")),
            status=status,
            started_at=epoch(str(state.get("StartedAt") or "")),
            restarts=as_whole(item.get("RestartCount")),
            cwd=str(settings.get("WorkingDir") or "/"),
            interpreter=str(command[0]) if command else "",
            cron_job=policy == "no" and ended_well,
            module=False,
            environment=environment,
            counter_resets=True,
            user=str(settings.get("User") or ""),
            container=str(item.get("Id") or ""),
            hostname=str(settings.get("Hostname") or ""),
            command=tuple(str(word) for word in command),
            watches_files=file_watcher([str(word) for word in command]),
        )

    def _carried(self, name: str, inside: str | None, resolved: Mapping[str, Any]) -> str | None:
        """The DSN that the service has, or would be made anew with, other than that of its ``.env``.

        A container that was created before ``.env`` changed shows here, too: it has to be made anew.
        """
        if name not in self.config.services:
            return inside
        file: str | None = None
        with contextlib.suppress(CutoverError):
            file = EnvFile(self.config.service(name).env_file, self.config.env_key).value()
        value = _variable(resolved, name, self.config.env_key)
        if value is not None and value != file:
            return value
        return inside if inside is not None and inside != file else None

    # ------------------------------------------------------------------ the project's files

    def _remember_files(self, containers: Sequence[Mapping[str, Any]]) -> None:
        """The Compose files that the project was started with, as its containers tell."""
        labels = (containers[0].get("Config") or {}).get("Labels") or {}
        files = str(labels.get("com.docker.compose.project.config_files") or "").split(",")
        self._files = tuple(path for path in files if path not in ("", _STDIN, str(self.override)))
        if not self._files:
            kept = Snapshot(self.config.state_dir).manager().get("files")
            self._files = tuple(str(path) for path in kept) if isinstance(kept, list) else ()

    def user(self) -> str | None:
        """As whom ``docker compose`` runs: it does what the project's files say, so as the user who can change them.

        None: they are root's alone, or ours. Where several users can, it is the one of the snapshot, as long as the project's
        directory is that user's: a colleague's editor has given a file another owner since. Else raises CutoverError.
        """
        if os.geteuid() != 0:
            return None
        owners = self._owners()
        names = sorted({name for found in owners.values() for name in found})
        if len(names) <= 1:
            return names[0] if names else None
        known = Snapshot(self.config.state_dir).manager().get("user")
        info = info_of(self.settings.directory)
        if isinstance(known, str) and known in names and info is not None and user_name(info.st_uid) == known:
            return known
        told = "; ".join(f"{path}: {', '.join(found) or 'root'}" for path, found in owners.items())
        raise CutoverError(
            f"the Compose project {self.settings.project} belongs to several users ({told}), so it is not clear as whom "
            "`docker compose` has to run: give its directory and files to one of them, or to root"
        )

    def _owners(self) -> dict[str, list[str]]:
        """Who, other than root, can change the project's directory and each of its files."""
        paths = (str(self.settings.directory), *self._files)
        return {path: sorted(map(user_name, controllers_of(Path(path)))) for path in paths}

    def recorded(self) -> dict[str, Any]:
        """As whom ``docker compose`` runs, and with which files. Raises CutoverError as ``user``."""
        if not self._files and self.running:
            self._remember_files(self.docker.containers(self.settings.project))
        return {"user": self.user(), "files": list(self._files)}

    def check_access(self) -> None:
        """Raise CutoverError when the project is another user's, and that user may not use the engine."""
        user = self.recorded()["user"]
        if user is not None and self.running and not self.docker.answers(user):
            raise CutoverError(
                f"the Compose project {self.settings.project} in {self.settings.directory} belongs to user {user}, who has no "
                "access to Docker, and root does not run what another user's files say: give the directory and its files to "
                f"root, or add {user} to the group docker (its members can become root)"
            )

    def _compose(
        self, arguments: Sequence[str], *, with_override: bool, timeout: float = CALL_TIMEOUT
    ) -> Completed:
        """Run ``docker compose ARGUMENTS`` for the project, as the user whose files it is made of.

        Our own file is only root's to read, so another user's call is given it on standard input.
        """
        user = self.user()
        words = [
            "compose",
            f"--project-name={self.settings.project}",
            f"--project-directory={self.settings.directory}",
            *(f"--file={path}" for path in self._files),
        ]
        stdin = ""
        if with_override and self.override.is_file():
            if not self._files:
                raise CutoverError(
                    f"the Compose files of {self.settings.project} are not known: none of its containers exists"
                )
            words.append(f"--file={self.override if user is None else _STDIN}")
            stdin = "" if user is None else self.override.read_text(encoding="utf-8")
        done = self.docker.call(
            [*words, *arguments], timeout=timeout, cwd=self.settings.directory, stdin=stdin, user=user
        )
        if done.code != 0:
            self.check_access()
            self._check_readable(user)
        return done

    def _check_readable(self, user: str | None) -> None:
        """Raise CutoverError for files of the project that the user cannot read as whom ``docker compose`` runs."""
        if user is None:
            return
        paths = dict.fromkeys((*map(Path, self._files), *self.config.env_files, self.settings.directory / ".env"))
        closed = [f"{path} ({owner_and_mode(path)})" for path in paths if not may_read(user, path)]
        if closed:
            raise CutoverError(
                f"`docker compose` of {self.settings.project} runs as user {user}, who can change what it does, and that user cannot "
                f"read {', '.join(closed)}: let {user} read it (`setfacl -m u:{user}:r`, or its group), or give the project's "
                "directory and files to root"
            )

    def _services(self, *, with_override: bool) -> dict[str, Any]:
        """``services`` as Compose resolves them now; asked again only when a file has changed."""
        paths = [
            *map(Path, self._files),
            *self.config.env_files,
            self.settings.directory / ".env",
            self.override,
        ]
        mark = (with_override, tuple(_mark(path) for path in paths))
        if self._resolved is None or self._resolved[0] != mark:
            done = self._compose(["config", "--format=json"], with_override=with_override)
            if done.code != 0:
                raise CutoverError(
                    f"docker compose config of {self.settings.project} failed with exit code {done.code}{reason_of(done)}"
                )
            try:
                services = decode_json(done.output).get("services") or {}
            except (ValueError, AttributeError):
                raise CutoverError("docker compose config did not print JSON") from None
            self._resolved = (mark, services)
        return self._resolved[1]

    def _overrides(self) -> dict[str, Any]:
        data = read_json(self.override)
        services = data.get("services") if isinstance(data, dict) else None
        return services if isinstance(services, dict) else {}

    def _write_overrides(self, services: Mapping[str, Any]) -> None:
        if services:
            private_directory(self.override.parent)
            write_json(self.override, {"services": services}, over=True)
        else:
            self.override.unlink(missing_ok=True)

    def _set_variables(self, restarts: Sequence[Restart]) -> None:
        """Values that the project's own files do not give go into our file, all others out of it."""
        wanted = {process.name: variables for process, variables in restarts if variables}
        if not wanted:
            return
        plain = self._services(with_override=False)
        services = self._overrides()
        for name, variables in wanted.items():
            if all(_variable(plain, name, key) == value for key, value in variables.items()):
                services.pop(name, None)
            else:
                escaped = {key: value.replace("$", "$$") for key, value in variables.items()}
                services[name] = {"environment": escaped}
        if services != self._overrides():
            self._write_overrides(services)

    # ------------------------------------------------------------------ acts

    def restart(self, process: Process, variables: Mapping[str, str] | None = None) -> None:
        """Make the service anew, all its containers, so that it reads ``env_file`` and our override."""
        self.restart_together([(process, variables)])

    def restart_together(self, restarts: Sequence[Restart]) -> None:
        """One ``docker compose up`` for all services; their containers are made anew at the same time."""
        if not self._files:
            self.processes()
        failed: dict[str, str] = {}
        try:
            self._set_variables(restarts)
        except InterruptedRunError:
            raise
        except (OSError, CutoverError) as error:  # services that need none are made anew all the same
            told = error.strerror if isinstance(error, OSError) else error
            failed = {
                process.name: f"the variables of {process.name} cannot be written: {told}"
                for process, variables in restarts
                if variables
            }
        names = [name for name in dict.fromkeys(process.name for process, _ in restarts) if name not in failed]
        if not names:
            raise_all(failed)
            return
        done = self._compose(
            ["up", "--detach", "--force-recreate", "--no-deps", "--no-build", "--", *names],
            with_override=True,
            timeout=_UP_TIMEOUT,
        )
        if done.code == 0:
            raise_all(failed)
            return
        old = {process.container for process, _ in restarts}
        there = self.processes()
        bad = [
            name
            for name in names
            if not any(
                process.name == name and process.healthy and process.container not in old for process in there
            )
        ]
        told = reason_of(done)
        raise_all(failed | {name: f"docker compose up of {name} failed{told}" for name in bad or names})

    def save(self) -> None:
        """Nothing to do: a container keeps its environment over a boot."""

    def rewrite_dump(self, key: str, values: Mapping[str, str]) -> list[str]:
        """Mend our override; but containers keep what they were created with until they are made anew.

        Raises CutoverError, after that, because nothing done here can change them: the recovery comes after
        Docker at boot, and says so where Docker still does not run.
        """
        services = self._overrides()
        changed: list[str] = []
        for name, value in values.items():
            variables = (services.get(name) or {}).get("environment") or {}
            if key in variables and variables[key] != value:
                variables[key] = value
                changed.append(name)
        if changed:
            self._write_overrides(services)
        raise CutoverError(
            "Docker does not run, and containers keep the DSN that they were created with: "
            "start Docker, then run ai-admin-cutover recover"
        )

    def launch(self, process: Process) -> Launch:
        """As the kernel shows the process in the container, or for a job that rests as its image starts it."""
        return launch_if_running(process) or launch_of_job(process, self.settings.node, {})

    def run_launch(self, process: Process, launch: Launch, option: str, timeout: float) -> Completed:
        """Run it in the service's container; for a job that rests in a new one that is removed at once.

        What an entry point added to the environment travels in docker's own, so that it is in no command line.
        """
        argv = launch.argv(option)
        if not launch.pid:
            command = ["run", "--rm", "--no-deps", "--no-TTY", f"--entrypoint={argv[0]}", process.name, *argv[1:]]
            return self._compose(command, with_override=True, timeout=timeout)
        added = {
            key: value
            for key, value in launch.environment.items()
            if process.environment.get(key) != value
            and not re.match(r"(PATH|HOME|HOSTNAME|LC_ALL|DOCKER_.*)$", key)
        }
        command = ["exec", f"--workdir={launch.cwd}"]
        if launch.identity is not None:
            command.append(f"--user={launch.identity.user}:{launch.identity.group}")
        command += [f"--env={key}" for key in added]
        return self.docker.call(
            [*command, process.container, *argv],
            timeout=timeout,
            variables=added,
        )


def _variable(services: Mapping[str, Any], name: str, key: str) -> str | None:
    """A variable of one service as ``docker compose config`` resolved it (``$`` is doubled there)."""
    environment = (services.get(name) or {}).get("environment") or {}
    value = environment.get(key) if isinstance(environment, dict) else None
    return None if value is None else str(value).replace("$$", "$")


def _mark(path: Path) -> tuple[int, int] | None:
    info = info_of(path)
    return None if info is None else (info.st_ino, info.st_mtime_ns)
