"""systemd: the timer that takes an unconfirmed change back, and commands detached from their caller.

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
from pathlib import Path

from glitchtip_core.files import private_directory
from glitchtip_core.json_text import decode_json
from glitchtip_core.process import Completed, run, search_path

from .config import Config
from .errors import BusyError, CutoverError, IncompleteError

RUN_UNIT = "ai-admin-cutover"
DEADLINE_UNIT = "ai-admin-cutover-deadline"
RECOVER_UNIT = "ai-admin-cutover-recover"
WATCH_UNIT = "ai-admin-cutover-watch"
VERIFY_UNIT = "ai-admin-cutover-verify"
_SYSTEMD = Path("/run/systemd/system")
# Results of detached runs: in memory, so that a full disk does not keep a run from its caller.
_RESULTS = Path("/run/ai-admin-cutover")
_DECIDED = "1 2 3 5 75"


def has_systemd() -> bool:
    """Whether systemd is the init system here."""
    return _SYSTEMD.is_dir()


def self_command() -> list[str]:
    """How this very program is started again: the zipapp, under whatever name, isolated from the caller's
    environment."""
    program = os.path.abspath(sys.argv[0])
    if zipfile.is_zipfile(program):
        return [sys.executable, "-I", program]
    return [sys.executable, "-P", "-m", "glitchtip_cutover"]


def _systemctl(arguments: Sequence[str]) -> Completed:
    return run(["systemctl", *arguments], environment=_environment(), timeout=60)


def _environment() -> dict[str, str]:
    return {"PATH": search_path(), "LC_ALL": "C.UTF-8"}


class Deadline:
    """The timer of the confirm window."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def arm(self, attempt: int, seconds: float) -> None:
        """Start (again) the timer that rolls attempt ``attempt`` back. Raises CutoverError when it cannot."""
        self.disarm()
        done = run(
            [
                "systemd-run",
                "--quiet",
                "--collect",
                f"--unit={DEADLINE_UNIT}",
                f"--on-active={seconds:g}s",
                "--timer-property=AccuracySec=1s",
                f"--property=RuntimeMaxSec={self.config.run_max:g}",
                f"--property=OnFailure={RECOVER_UNIT}.service",
                "--property=SuccessExitStatus=1 2 3 5",
                "--property=RestartForceExitStatus=75",
                "--property=RestartSec=10",
                "--property=TimeoutStopSec=300",
                "--description=Roll an unconfirmed switch of the DSN back",
                *self_command(),
                "rollback",
                "--foreground",
                f"--config={self.config.path}",
                f"--unconfirmed-attempt={attempt}",
            ],
            environment=_environment(),
            timeout=60,
        )
        if done.code != 0:
            raise CutoverError("systemd did not accept the timer that would take an unconfirmed change back")

    def disarm(self) -> None:
        """Stop the timer where there is one."""
        _systemctl(["stop", f"{DEADLINE_UNIT}.timer"])
        _systemctl(["reset-failed", f"{DEADLINE_UNIT}.timer", f"{DEADLINE_UNIT}.service"])


def _results(config: Config) -> Path:
    """Where the result of a run is left. That it can be written nowhere keeps no run from its start."""
    for directory in (_RESULTS, config.state_dir / "runs"):
        with contextlib.suppress(OSError):
            private_directory(directory)
            if directory.is_dir() and os.access(directory, os.W_OK):
                return directory
    return _RESULTS


def run_detached(config: Config, command: str, arguments: Sequence[str]) -> tuple[int, bytes]:
    """Run a command of ours as a systemd unit of its own and wait for it; return exit code and JSON result.

    A dropped session or a Ctrl-C ends only the waiting. The unit's name is the lock: while one runs, systemd
    refuses the next (BusyError). Should the run be killed, the recovery unit takes the change back.
    """
    results = _results(config)
    # A run that failed, and whose recovery failed too, stays loaded: its name would be taken for ever. What runs is not touched by this.
    _systemctl(["reset-failed", f"{RUN_UNIT}.service", f"{RECOVER_UNIT}.service"])
    output = results / f"{uuid.uuid4().hex}.json"
    done = run(
        [
            "systemd-run",
            "--quiet",
            "--collect",
            "--wait",
            "--service-type=exec",
            f"--unit={RUN_UNIT}",
            f"--property=RuntimeMaxSec={config.run_max:g}",
            "--property=TimeoutStopSec=300",
            "--property=KillMode=mixed",
            f"--property=OnFailure={RECOVER_UNIT}.service",
            f"--property=SuccessExitStatus={_DECIDED}",
            f"--description=Switch of the DSN: {command}",
            *self_command(),
            command,
            "--foreground",
            "--json",
            f"--config={config.path}",
            f"--output={output}",
            *arguments,
        ],
        environment=_environment(),
        timeout=config.run_max + 400,
    )
    try:
        result = output.read_bytes()
    except FileNotFoundError:
        if re.search(r"already (loaded|exists)|fragment file", done.errors):
            raise BusyError(
                "another run is under way on this host; "
                "systemctl stop ai-admin-cutover ends it by its way back"
            ) from None
        raise IncompleteError(
            f"the {command} ended with code {done.code} and left no result; see journalctl -u {RUN_UNIT}, "
            "and ai-admin-cutover status for the current state"
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
