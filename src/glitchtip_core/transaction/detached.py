"""systemd: commands detached from their caller, and the timer that takes a change back that nobody confirms.

A run that ended by its own decision (refused, wrong use, rolled back, unproven, busy) is no failed unit, so that
``OnFailure=`` cannot make the recovery take back a switch that waits for its confirm. What is left for it: a run
that was killed, ran out of time, or could not finish its way back. systemd-run reports 0 for such a run, so the
exit code stands in the result document.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BusyError, CoreError, IncompleteError
from ..files import private_directory
from ..json_text import decode_json
from ..process import Completed, run, search_path

_SYSTEMD = Path("/run/systemd/system")
_DECIDED = "1 2 3 5 75"


@dataclass(frozen=True)
class Units:
    """The units of one client, without their endings, and its program.

    ``results``: where detached runs leave their results; in memory, so that a full disk does not keep a run from its caller.
    ``module``: what ``python -m`` starts where the program is no zipapp. ``back``: the command that takes attempt N back, with
    ``--unconfirmed-attempt=N``. ``runs`` and ``takes_back`` describe both units for people.
    """

    run: str
    deadline: str
    recover: str
    results: Path
    module: str
    back: str
    runs: str
    takes_back: str

    def command(self) -> list[str]:
        """How this very program is started again: the zipapp, under whatever name, isolated from the caller's environment."""
        program = os.path.abspath(sys.argv[0])
        if zipfile.is_zipfile(program):
            return [sys.executable, "-I", program]
        return [sys.executable, "-P", "-m", self.module]


@dataclass(frozen=True)
class Program:
    """One client with its configuration: what its units run, and how many seconds a run may take."""

    units: Units
    config: Path
    state_dir: Path
    run_max: float


def has_systemd() -> bool:
    """Whether systemd is the init system here."""
    return _SYSTEMD.is_dir()


def _systemctl(arguments: Sequence[str]) -> Completed:
    return run(["systemctl", *arguments], environment=_environment(), timeout=60)


def _environment() -> dict[str, str]:
    return {"PATH": search_path(), "LC_ALL": "C.UTF-8"}


class Deadline:
    """The timer of the confirm window."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def arm(self, attempt: int, seconds: float) -> None:
        """Start (again) the timer that rolls attempt ``attempt`` back. Raises CoreError when it cannot."""
        self.disarm()
        program, units = self.program, self.program.units
        done = run(
            [
                "systemd-run",
                "--quiet",
                "--collect",
                f"--unit={units.deadline}",
                f"--on-active={seconds:g}s",
                "--timer-property=AccuracySec=1s",
                f"--property=RuntimeMaxSec={program.run_max:g}",
                f"--property=OnFailure={units.recover}.service",
                "--property=SuccessExitStatus=1 2 3 5",
                "--property=RestartForceExitStatus=75",
                "--property=RestartSec=10",
                "--property=TimeoutStopSec=300",
                f"--description={units.takes_back}",
                *units.command(),
                units.back,
                "--foreground",
                f"--config={program.config}",
                f"--unconfirmed-attempt={attempt}",
            ],
            environment=_environment(),
            timeout=60,
        )
        if done.code != 0:
            raise CoreError("systemd did not accept the timer that would take an unconfirmed change back")

    def disarm(self) -> None:
        """Stop the timer where there is one."""
        name = self.program.units.deadline
        _systemctl(["stop", f"{name}.timer"])
        _systemctl(["reset-failed", f"{name}.timer", f"{name}.service"])


def _results(program: Program) -> Path:
    """Where the result of a run is left. That it can be written nowhere keeps no run from its start."""
    for directory in (program.units.results, program.state_dir / "runs"):
        with contextlib.suppress(OSError):
            private_directory(directory)
            if directory.is_dir() and os.access(directory, os.W_OK):
                return directory
    return program.units.results


def run_detached(program: Program, command: str, arguments: Sequence[str]) -> tuple[int, bytes]:
    """Run a command of ours as a systemd unit of its own and wait for it; return exit code and JSON result.

    A dropped session or a Ctrl-C ends only the waiting. The unit's name is the lock: while one runs, systemd
    refuses the next (BusyError). Should the run be killed, the recovery unit takes the change back.
    """
    units = program.units
    results = _results(program)
    # A run that failed, and whose recovery failed too, stays loaded: its name would be taken for ever. What runs is not touched by this.
    _systemctl(["reset-failed", f"{units.run}.service", f"{units.recover}.service"])
    output = results / f"{uuid.uuid4().hex}.json"
    done = run(
        [
            "systemd-run",
            "--quiet",
            "--collect",
            "--wait",
            "--service-type=exec",
            f"--unit={units.run}",
            f"--property=RuntimeMaxSec={program.run_max:g}",
            "--property=TimeoutStopSec=300",
            "--property=KillMode=mixed",
            f"--property=OnFailure={units.recover}.service",
            f"--property=SuccessExitStatus={_DECIDED}",
            f"--description={units.runs}: {command}",
            *units.command(),
            command,
            "--foreground",
            "--json",
            f"--config={program.config}",
            f"--output={output}",
            *arguments,
        ],
        environment=_environment(),
        timeout=program.run_max + 400,
    )
    try:
        result = output.read_bytes()
    except FileNotFoundError:
        if re.search(r"already (loaded|exists)|fragment file", done.errors):
            raise BusyError(
                f"another run is under way on this host; systemctl stop {units.run} ends it by its way back"
            ) from None
        raise IncompleteError(
            f"the {command} ended with code {done.code} and left no result; see journalctl -u {units.run}, "
            f"and {units.run} status for the current state"
        ) from None
    except OSError as error:
        raise IncompleteError(
            f"the {command} ended with code {done.code} and its result cannot be read: "
            f"{error.strerror or type(error).__name__}"
        ) from None
    with contextlib.suppress(OSError):
        output.unlink(missing_ok=True)
    try:
        document = decode_json(result)
        code = int(document.pop("exit_code", done.code))
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise IncompleteError(f"the {command} ended with code {done.code} and left a damaged result") from None
    return code, json.dumps(document, sort_keys=True).encode()
