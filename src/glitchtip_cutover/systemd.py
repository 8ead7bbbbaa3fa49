"""Services that are systemd units: read with ``systemctl show``, restarted by one call for many.

Facts of systemd (Debian 12 and 13, man systemd.exec and systemd.service): a unit reads its ``EnvironmentFile=`` at
each start; these files win over ``Environment=``, a later one over an earlier one. ``systemctl restart`` sets
``NRestarts`` to 0; automatic restarts count it up. A drop-in is read by ``daemon-reload``, the files that it
names at each start, so that a value in such a file can be mended before the unit starts at boot without asking
systemd.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glitchtip_core.files import private_directory, write_new, write_over
from glitchtip_core.foreign_files import read_text
from glitchtip_core.foreign_paths import real_path
from glitchtip_core.process import SYSTEM_PATH, Completed, run, search_path, user_home

from .config import Config
from .envfile import MAX_BYTES
from .errors import CutoverError, InterruptedRunError
from .launch import Launch, launch_if_running, launch_of_job, run_launch
from .manager import Process, Restart, file_watcher, raise_all
from .running import read_running

_SYSTEMD = Path("/run/systemd/system")
_UNITS = Path("/etc/systemd/system")
_DROP_IN = "90-ai-admin-cutover.conf"
_PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Type,MainPID,NRestarts,ExecMainStartTimestampMonotonic,WorkingDirectory,"
    "User,Environment,EnvironmentFiles,ExecStart,TriggeredBy"
)
_STATUS = {
    "active": "online",
    "reloading": "online",
    "activating": "launching",
    "deactivating": "stopping",
    "inactive": "stopped",
    "failed": "errored",
}
_CALL_TIMEOUT = 30.0
_RESTART_TIMEOUT = 120.0


def unit_name(service: str) -> str:
    """The unit of a service: its name, with ``.service`` where it has no such ending."""
    return service if re.search(r"\.(service|scope|slice|target)$", service) else f"{service}.service"


def parse_show(text: str) -> list[dict[str, list[str]]]:
    """The output of ``systemctl show`` for several units: a mapping each, of every line's values by name."""
    units: list[dict[str, list[str]]] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        unit: dict[str, list[str]] = {}
        for line in block.splitlines():
            name, sign, value = line.partition("=")
            if sign:
                unit.setdefault(name, []).append(value)
        if unit:
            units.append(unit)
    return units


def split_quoted(text: str) -> list[str]:
    """Words as systemctl prints lists: separated by spaces, quoted with ``"`` and escaped with a backslash."""
    words: list[str] = []
    word, quoted, begun, escaped = "", False, False, False
    for sign in text:
        if escaped:
            word, escaped = word + sign, False
        elif sign == "\\":
            begun = escaped = True
        elif sign == '"':
            quoted, begun = not quoted, True
        elif sign == " " and not quoted:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + sign, True
    return [*words, word] if begun else words


def parse_environment_file(text: str) -> dict[str, str]:
    """Variables of an ``EnvironmentFile=``: ``NAME=value`` lines, values perhaps in quotes, ``#`` and ``;`` lines
    are comments. The last one of a name counts."""
    variables: dict[str, str] = {}
    for line in text.lstrip("\ufeff").splitlines():
        name, sign, value = line.strip().partition("=")
        if not sign or name.startswith(("#", ";")):
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        variables[name.strip()] = value
    return variables


class Systemd:
    """The units of one product. ``units`` and ``runtime`` are systemd's directories."""

    def __init__(
        self,
        config: Config,
        *,
        units: Path = _UNITS,
        runtime: Path = _SYSTEMD,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._units = units
        self._runtime = runtime
        self._clock = clock
        self._monotonic = monotonic
        self._variables = config.state_dir / "systemd"

    @property
    def running(self) -> bool:
        """Whether units can be restarted: systemd is there, and does not stand before their first start at boot.

        A restart asked for by a unit that is ordered before them would wait for itself.
        """
        if not self._runtime.is_dir():
            return False
        state = self._systemctl(["is-system-running"], check=False).output.strip()
        if state not in ("initializing", "starting"):
            return True
        try:
            return any(process.online for process in self.processes())
        except CutoverError:
            return False

    def processes(self) -> list[Process]:
        """The configured units, in their order; units that are not installed are left out."""
        names = [*self.config.services, *self.config.without_sdk]
        done = self._systemctl(
            ["show", "--no-pager", f"--property={_PROPERTIES}", "--", *map(unit_name, names)]
        )
        shown = {block.get("Id", [""])[0]: block for block in parse_show(done.output)}
        found: list[Process] = []
        for number, name in enumerate(names):
            block = shown.get(unit_name(name))
            if block is not None and block.get("LoadState", [""])[0] == "loaded":
                found.append(self._process(number, name, block))
        return found

    def _process(self, number: int, name: str, block: Mapping[str, list[str]]) -> Process:
        def one(key: str) -> str:
            return block.get(key, [""])[0]

        command = re.search(r"argv\[\]=(.*?) ; ignore_errors=", one("ExecStart"))
        words = split_quoted(command[1]) if command else []
        job = one("Type") == "oneshot" and any(unit.endswith(".timer") for unit in one("TriggeredBy").split())
        status = _STATUS.get(one("ActiveState"), one("ActiveState") or "unknown")
        pid = int(one("MainPID") or 0)
        if status == "launching" and pid and one("SubState") in ("start", "running"):
            status = "online" if job else "launching"
        began = float(one("ExecMainStartTimestampMonotonic") or 0) / 1e6
        directory = one("WorkingDirectory").lstrip("!-")
        user = one("User") or "root"
        return Process(
            name=name,
            pm_id=number,
            pid=pid,
            status=status,
            started_at=self._clock() - self._monotonic() + began if began else 0.0,
            restarts=int(one("NRestarts") or 0),
            cwd=user_home(user) if directory == "~" else directory or "/",
            interpreter=words[0] if words else "",
            cron_job=job,
            module=False,
            environment=self._own_environment(name, block, pid if status == "online" else 0),
            counter_resets=True,
            user=user,
            command=tuple(words),
            watches_files=file_watcher(words),
        )

    # ------------------------------------------------------------------ variables

    def _environment(
        self, name: str, block: Mapping[str, list[str]], *, dotenv: bool, drop_in: bool
    ) -> dict[str, str]:
        """What the unit gives to its processes; with or without the product's ``.env`` and our own drop-in."""
        variables: dict[str, str] = {}
        for line in block.get("Environment", []):
            for word in split_quoted(line):
                key, _, value = word.partition("=")
                variables[key] = value
        ours = self._variable_file(name)
        product = self._env_file(name)
        for path in environment_files(block.get("EnvironmentFiles", [])):
            if path == ours and not drop_in:
                continue
            content = _read_variables(path)
            if not dotenv and real_path(path) == real_path(product):
                variables = {key: value for key, value in variables.items() if key not in content}
                continue
            variables.update(content)
        return variables

    def _own_environment(self, name: str, block: Mapping[str, list[str]], pid: int) -> dict[str, str]:
        """Without what comes from ``.env``: that is read anew at each start.

        With what the process has although no setting of the unit gives it: systemd hands its own environment on
        (``systemctl set-environment``, ``DefaultEnvironment=``).
        """
        variables = self._environment(name, block, dotenv=False, drop_in=True)
        key = self.config.env_key
        if (
            pid
            and key not in variables
            and key not in self._environment(name, block, dotenv=True, drop_in=True)
        ):
            running = read_running(pid)
            if running is not None and key in running.environment:
                variables[key] = running.environment[key]
        return variables

    def _env_file(self, name: str) -> Path:
        return self.config.service(name).env_file if name in self.config.services else self.config.env_file

    def _variable_file(self, name: str) -> Path:
        return self._variables / f"{unit_name(name)}.env"

    def _drop_in_file(self, name: str) -> Path:
        return self._units / f"{unit_name(name)}.d" / _DROP_IN

    def _set_variables(self, process: Process, variables: Mapping[str, str]) -> bool:
        """Give the unit these values by a drop-in whose file only root may read, or take that away where the unit
        has them by itself; True when systemd has to read its units again."""
        block = self._show(process.name)
        by_itself = self._environment(process.name, block, dotenv=True, drop_in=False)
        drop_in = self._drop_in_file(process.name)
        if all(by_itself.get(key) == value for key, value in variables.items()):
            there = drop_in.exists()
            drop_in.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # nothing reads it any more
                self._variable_file(process.name).unlink(missing_ok=True)
            if there and not any(drop_in.parent.iterdir()):
                drop_in.parent.rmdir()
            return there
        private_directory(self._variables)
        write_over(
            self._variable_file(process.name),
            "".join(f'{key}="{_quoted(value)}"\n' for key, value in sorted(variables.items())).encode(),
        )
        text = (
            "# Written by ai-admin-cutover: the DSN of this unit is kept where only root may read it.\n"
            f"[Service]\nEnvironmentFile=-{self._variable_file(process.name)}\n"
        ).encode()
        if drop_in.exists() and drop_in.read_bytes() == text:
            return False
        drop_in.parent.mkdir(mode=0o755, exist_ok=True)
        write_new(drop_in, text, mode=0o644)
        return True

    # ------------------------------------------------------------------ acts

    def restart(self, process: Process, variables: Mapping[str, str] | None = None) -> None:
        """Restart one unit; ``variables`` are set for it by a drop-in, or that is removed where it is not needed."""
        self.restart_together([(process, variables)])

    def restart_together(self, restarts: Sequence[Restart]) -> None:
        """One ``systemctl restart`` for all: systemd stops and starts them at the same time."""
        reload = False
        failed: dict[str, str] = {}
        for process, variables in restarts:
            if variables:
                try:
                    reload = self._set_variables(process, variables) or reload
                except InterruptedRunError:
                    raise
                except (OSError, CutoverError) as error:  # the others are restarted all the same
                    told = error.strerror if isinstance(error, OSError) else error
                    failed[process.name] = f"the variables of {process.name} cannot be written: {told}"
        if reload:
            self._systemctl(["daemon-reload"], timeout=_RESTART_TIMEOUT)
        names = [name for name in dict.fromkeys(process.name for process, _ in restarts) if name not in failed]
        if names:
            done = self._systemctl(
                ["restart", "--", *map(unit_name, names)], check=False, timeout=_RESTART_TIMEOUT
            )
            if done.code != 0:
                listed = [process for process in self.processes() if process.name in names]
                dead = [process.name for process in listed if not process.healthy]
                failed |= {name: f"systemctl restart of {name} failed" for name in dead or names}
        raise_all(failed)

    def save(self) -> None:
        """Nothing to do: units and drop-ins are files."""

    def recorded(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def rewrite_dump(self, key: str, values: Mapping[str, str]) -> list[str]:
        """Mend the variables that our drop-ins name; systemd is not asked and reads them when it starts the
        unit."""
        changed: list[str] = []
        for name, value in values.items():
            path = self._variable_file(name)
            if not path.is_file():
                continue
            content = _read_variables(path)
            if key in content and content[key] != value:
                content[key] = value
                text = "".join(f'{item}="{_quoted(text)}"\n' for item, text in sorted(content.items()))
                write_over(path, text.encode())
                changed.append(name)
        return sorted(changed)

    def launch(self, process: Process) -> Launch:
        """As the kernel shows it, or for a job that rests as systemd would start it, read anew."""
        if running := launch_if_running(process):
            return running
        user = process.user or "root"
        environment = self._environment(process.name, self._show(process.name), dotenv=True, drop_in=True)
        given = {"PATH": SYSTEM_PATH, "HOME": user_home(user), "USER": user, "LOGNAME": user, **environment}
        return launch_of_job(process, str(self.config.systemd.node), given)

    def run_launch(self, process: Process, launch: Launch, option: str, timeout: float) -> Completed:
        """Run it as the process's own user, or as the unit's."""
        return run_launch(launch, option, timeout, user=process.user or "root")

    def _show(self, name: str) -> dict[str, list[str]]:
        done = self._systemctl(["show", "--no-pager", f"--property={_PROPERTIES}", "--", unit_name(name)])
        blocks = parse_show(done.output)
        if not blocks:
            raise CutoverError(f"systemd does not tell about the unit {unit_name(name)}")
        return blocks[0]

    def _systemctl(
        self, arguments: Sequence[str], *, check: bool = True, timeout: float = _CALL_TIMEOUT
    ) -> Completed:
        done = run(
            ["systemctl", *arguments],
            environment={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
            timeout=timeout,
        )
        if check and done.code != 0:
            raise CutoverError(f"systemctl {arguments[0]} failed with exit code {done.code}")
        return done


def environment_files(lines: Iterable[str]) -> list[Path]:
    """Paths of ``EnvironmentFiles=/a (ignore_errors=no)``; one or more on a line."""
    return [
        Path(path)
        for line in lines
        for path in re.findall(r"(/.*?) \(ignore_errors=(?:yes|no)\)(?: |$)", line)
    ]


def _read_variables(path: Path) -> dict[str, str]:
    text = read_text(path, MAX_BYTES)
    return {} if text is None else parse_environment_file(text)


def _quoted(value: str) -> str:
    if re.search(r'["\\\n]', value):
        raise CutoverError(
            "a value for a unit holds characters that its environment file would have to escape"
        )
    return value
