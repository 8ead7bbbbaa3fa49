"""Command line: one command, one JSON document (with ``--json``), progress as lines on standard error."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from . import __version__
from .config import Config, load_config
from .deadline import has_systemd, run_detached
from .errors import CutoverError, InterruptedRunError
from .files import write_new
from .host import real_host
from .mirror import configure, remove
from .transaction import Cutover, Result

DEFAULT_CONFIG = Path("/etc/ai-admin-cutover/config.json")
_DETACHED = ("apply", "rollback")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ai-admin-cutover",
        description="Move a product's services to a new error tracker, and back.",
        epilog="Exit codes: 0 done, 1 refused or failed with nothing changed, 2 wrong use, "
        "3 failed and rolled back, 4 way back incomplete, 75 another run is under way.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("snapshot", "record the state before the migration (once)"),
        ("plan", "show what apply would do, change nothing"),
        ("apply", "switch every service to the new DSN and prove each"),
        ("confirm", "close an applied switch before its window ends"),
        ("rollback", "put the DSN of before the migration back"),
        ("recover", "take back what an interrupted run left open"),
        ("status", "show what stands"),
        ("mirror-config", "write the mirror's configuration and let nginx run it; touches no service"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="configuration file")
        command.add_argument("--json", action="store_true", help="print one JSON document")
        if name in _DETACHED:
            command.add_argument(
                "--foreground",
                action="store_true",
                help="run in this process, not as a systemd unit of its own",
            )
            command.add_argument("--output", type=Path, help=argparse.SUPPRESS)
        if name == "mirror-config":
            command.add_argument("--remove", action="store_true", help="take it away, once nobody uses it")
        if name == "rollback":
            command.add_argument("--reason", default="asked for", help="kept in the journal")
            command.add_argument("--unconfirmed-attempt", type=int, help=argparse.SUPPRESS)
    return parser


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """First signal: end the run by its way back. Later ones are ignored until that is done."""
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    raise InterruptedRunError(f"the run was interrupted by {signal.Signals(number).name}")


def _progress(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115 - the caller is gone, the run goes on


def _execute(config: Config, arguments: argparse.Namespace) -> Result:
    cutover = Cutover(config, real_host(config, _progress))
    commands: dict[str, Callable[[], Result]] = {
        "snapshot": cutover.snapshot,
        "plan": cutover.plan,
        "apply": cutover.apply,
        "confirm": cutover.confirm,
        "rollback": lambda: cutover.rollback(arguments.reason, arguments.unconfirmed_attempt),
        "recover": cutover.recover,
        "status": cutover.status,
        "mirror-config": lambda: (remove if arguments.remove else configure)(config, cutover.host),
    }
    return commands[arguments.command]()


def _human(result: dict[str, Any]) -> str:
    """The result as lines for people."""
    lines = [f"{key}: {value}" for key, value in result.items() if not isinstance(value, list | dict)]
    problems = [f"problem: {problem}" for problem in result.get("problems", [])]
    rows = [
        "  " + "  ".join(str(value) for value in row.values() if value not in ("", None))
        for row in result.get("services", [])
    ]
    return "\n".join(lines + problems + rows)


def _print(result: dict[str, Any], as_json: bool) -> None:
    text = json.dumps(result, sort_keys=True) if as_json else _human(result)
    try:
        print(text, flush=True)
    except OSError:
        _progress("the result could not be printed")


def _detached(config: Config, arguments: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    extra = [f"--reason={arguments.reason}"] if arguments.command == "rollback" else []
    code, text = run_detached(config, arguments.command, extra)
    result = json.loads(text)
    if not isinstance(result, dict):
        raise CutoverError("the run left a result that cannot be read")
    return code, result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every failure is one sentence, never a traceback."""
    arguments = _parser().parse_args(argv)
    code = 0
    try:
        config = load_config(arguments.config)
        if arguments.command in _DETACHED and not arguments.foreground and has_systemd():
            code, result = _detached(config, arguments)
        else:
            for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(name, _interrupt)
            result = _execute(config, arguments)
            if arguments.command == "plan" and result["problems"]:
                code = 1
    except CutoverError as error:
        code = error.exit_code
        result = {"changed": False, **error.details, "failed": True, "reason": str(error)}
    except Exception as error:
        code = 1
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_name}:{place.tb_lineno}" if place else "?"
        result = {"changed": False, "failed": True, "reason": f"unexpected {type(error).__name__} in {where}"}
    output = getattr(arguments, "output", None)
    if output is not None:
        write_new(output, (json.dumps({**result, "exit_code": code}, sort_keys=True) + "\n").encode())
    elif result.get("failed") and not arguments.json:
        _progress(f"ai-admin-cutover: {result['reason']}")
        return code
    if output is None:
        _print(result, arguments.json)
    return code
