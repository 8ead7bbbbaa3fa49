"""Command line: one command, one JSON document (with ``--json``), progress as lines on standard error."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from glitchtip_core.files import write_new
from glitchtip_core.json_text import decode_json
from glitchtip_core.text import guarded_output, printable_document
from glitchtip_core.transaction.detached import has_systemd

from . import __version__
from .back_plan import BEFORE, plan_rollback
from .config import Config
from .config_file import load_config
from .copies import find_copy
from .deadline import run_detached
from .errors import CutoverError, IncompleteError, InterruptedRunError, UsageError, unexpected
from .host import Host, real_host
from .limits import told_limits
from .rolling_back import ROLLBACK_PROOF
from .rows import figures, table
from .targets import TARGETS
from .transaction import Cutover, Result

DEFAULT_CONFIG = Path("/etc/ai-admin-cutover/config.json")
DEFAULT_STATE_ROOT = Path("/var/lib/ai-admin-cutover")
# The program called by this name is the way back for the worst day.
BREAK_GLASS = "glitchtip-rollback"
_DETACHED = ("apply", "rollback")
# These work with the copy of the configuration that is kept beside the snapshot, when the file is gone or damaged.
_WITH_COPY = ("rollback", "recover")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ai-admin-cutover",
        description="Move a product's services to a new error tracker, and back.",
        epilog="Exit codes: 0 done, 1 refused or failed with nothing changed, 2 wrong use, "
        "3 failed and rolled back, 4 a change, or the record of it, is not complete, 5 everything is back but unproven, "
        "75 another run is under way.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("snapshot", "record the state before the migration (once)"),
        ("plan", "show what apply would do, change nothing"),
        ("apply", "switch every service to the new DSN, or to the mirror, and prove each"),
        ("confirm", "close an applied switch before its window ends"),
        ("rollback", "put the DSN of before the migration back"),
        ("recover", "take back what an interrupted run left open"),
        ("verify", "after a recovery at boot: see that every service runs on the DSN of its file"),
        ("watch", "watch the first hour after a switch, and take it back when something is wrong"),
        ("status", "show what stands"),
        ("drift", "compare settings files and running processes with the active target; 1 when one names another"),
        ("mirror-config", "write the mirror's configuration and let nginx run it; touches no service"),
        ("announce", "tell people about a step of the migration, as the file of notifications says"),
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
        if name in ("plan", "apply"):
            command.add_argument(
                "--to",
                choices=(*TARGETS, BEFORE) if name == "plan" else TARGETS,
                default=TARGETS[0],
                help="where the services' events go" + ("; before: what rollback would do" if name == "plan" else ""),
            )
        if name == "plan":
            command.add_argument("--service", metavar="NAME", help="with --to before: only this service")
        if name == "apply":
            command.add_argument("--override-window", metavar="REASON", help="pass a closed window")
            command.add_argument(
                "--override-verdict", metavar="REASON", help="pass a missing GO of the parallel run"
            )
        if name == "confirm":
            command.add_argument(
                "--wait",
                type=float,
                default=30.0,
                metavar="SECONDS",
                help="wait so long for events of services that report often (%(default)g)",
            )
        if name in _WITH_COPY:
            command.add_argument(
                "--state-root", type=Path, default=DEFAULT_STATE_ROOT, help=argparse.SUPPRESS
            )
        if name == "mirror-config":
            command.add_argument("--remove", action="store_true", help="take it away, once nobody uses it")
        if name == "announce":
            command.add_argument("event", metavar="EVENT", help="start, gate, applied, done, rolled_back, ...")
            command.add_argument(
                "--fact", action="append", default=[], metavar="KEY=VALUE", help="a fact for the text (repeat)"
            )
            command.add_argument("--dry-run", action="store_true", help="only say what would be told to whom")
        if name == "rollback":
            command.add_argument("--reason", default="asked for", help="kept in the journal")
            command.add_argument(
                "--service", metavar="NAME", help="only this service; the next apply undoes it"
            )
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


def _stopwatch() -> Callable[[str], None]:
    """Progress with the seconds since now, for people who watch."""
    began = time.monotonic()

    def progress(line: str) -> None:
        _progress(f"{time.monotonic() - began:6.1f} s  {line}")

    return progress


def _configuration(arguments: argparse.Namespace) -> Config:
    """The configuration; for the way back its copy beside the snapshot where the file is of no use."""
    if arguments.command not in _WITH_COPY:
        return load_config(arguments.config)
    try:
        return load_config(arguments.config, lenient=True)
    except UsageError as error:
        copy = find_copy(arguments.state_root)
        if copy is None:
            raise UsageError(f"{error}, and there is no copy of it in {arguments.state_root}") from None
        _progress(f"{error}; its copy of {copy.state_dir} is used")
        return copy


def _execute(config: Config, arguments: argparse.Namespace, progress: Callable[[str], None]) -> Result:
    host = real_host(config, progress)
    cutover = Cutover(config, host)
    commands: dict[str, Callable[[], Result]] = {
        "snapshot": cutover.snapshot,
        "plan": lambda: _plan(cutover, arguments),
        "apply": lambda: cutover.apply(
            arguments.to,
            override_window=arguments.override_window,
            override_verdict=arguments.override_verdict,
        ),
        "confirm": lambda: cutover.confirm(arguments.wait),
        "rollback": lambda: cutover.rollback(
            arguments.reason, arguments.unconfirmed_attempt, arguments.service
        ),
        "recover": cutover.recover,
        "status": cutover.status,
        "drift": lambda: _drift(config, host),
        "verify": lambda: _verify(config, host),
        "watch": lambda: _watch(config, host),
        "mirror-config": lambda: _mirror_config(config, host, arguments.remove),
        "announce": lambda: _announce(config, arguments),
    }
    return commands[arguments.command]()


# What the way back does not need is imported where it is used.


def _plan(cutover: Cutover, arguments: argparse.Namespace) -> Result:
    if arguments.to == BEFORE:
        return plan_rollback(cutover, arguments.service)
    if arguments.service is not None:
        raise UsageError("--service needs --to before: a switch moves all services")
    return cutover.plan(arguments.to)


def _verify(config: Config, host: Host) -> Result:
    from .verify import run_verify

    return run_verify(config, host)


def _drift(config: Config, host: Host) -> Result:
    from .drift import run_drift

    return run_drift(config, host)


def _watch(config: Config, host: Host) -> Result:
    from .watch import run_watch

    return run_watch(config, host)


def _mirror_config(config: Config, host: Host, gone: bool) -> Result:
    from .mirror import configure, remove

    return (remove if gone else configure)(config, host)


def _announce(config: Config, arguments: argparse.Namespace) -> Result:
    from .announce import announce, parse_facts

    return announce(config, arguments.event, parse_facts(arguments.fact), dry_run=arguments.dry_run)


def _human(result: dict[str, Any]) -> str:
    """The result as lines for people."""
    lines = [f"{key}: {value}" for key, value in result.items() if not isinstance(value, list | dict)]
    problems = [f"problem: {problem}" for problem in result.get("problems", [])]
    rows = [f"  {line}" for line in result.get("table", [])]
    steps = [
        f"  {row['step']}. {row['act']}: {', '.join(row['services'])} ({row['proof']})"
        for row in result.get("order", [])
    ]
    changes = [
        line
        for row in result.get("diff", [])
        for line in (f"--- {row['path']}", f"- {row['before']}", f"+ {row['after']}")
    ]
    unproven = [f"unproven: {sentence}" for sentence in result.get("unproven", [])]
    notes = [f"note: {sentence}" for sentence in result.get("notes", [])]
    return "\n".join(lines + problems + rows + steps + changes + unproven + notes)


def _with_table(result: dict[str, Any]) -> dict[str, Any]:
    """The result with its services as lines for people, and with a sentence about their proofs where there are any."""
    services = result.get("services")
    if not services or not all(isinstance(row, dict) and "name" in row for row in services):
        return result
    told = figures(services)
    return {**result, "table": table(services), **({"figures": told} if told else {})}


def _print(result: dict[str, Any], as_json: bool) -> None:
    text = json.dumps(result, sort_keys=True) if as_json else _human(result)
    try:
        print(text, flush=True)
    except OSError:
        _progress("the result could not be printed")


def _detached(config: Config, arguments: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    extra: list[str] = []
    for name in ("to", "override_window", "override_verdict", "reason", "service"):
        value = getattr(arguments, name, None)
        if value is not None:
            extra.append(f"--{name.replace('_', '-')}={value}")
    code, text = run_detached(config, arguments.command, extra)
    result = decode_json(text)
    if not isinstance(result, dict):
        raise CutoverError("the run left a result that cannot be read")
    return code, result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every failure is one sentence, never a traceback, and printable."""
    with guarded_output():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    progress: Callable[[str], None] = _progress
    hangup: Any = _interrupt
    if argv is None and Path(sys.argv[0]).name == BREAK_GLASS:
        argv = ["rollback", "--foreground", *sys.argv[1:]]
        progress = _stopwatch()
        hangup = signal.SIG_IGN  # a lost session does not stop the way back
    arguments = _parser().parse_args(argv)
    code = 0
    try:
        config = _configuration(arguments)
        if arguments.command in _DETACHED and not arguments.foreground and has_systemd():
            code, result = _detached(config, arguments)
        else:
            for name, handler in (
                (signal.SIGTERM, _interrupt),
                (signal.SIGINT, _interrupt),
                (signal.SIGHUP, hangup),
            ):
                signal.signal(name, handler)
            if arguments.command == "rollback":
                progress(told_limits(config, ROLLBACK_PROOF))
            result = _execute(config, arguments, progress)
            if arguments.command in ("plan", "announce", "drift") and result["problems"]:
                code = 1
    except CutoverError as error:
        code = error.exit_code
        changed = isinstance(error, IncompleteError)
        result = {"changed": changed, **error.details, "failed": True, "reason": str(error)}
    except Exception as error:
        code = 1
        result = {"changed": False, "failed": True, "reason": unexpected(error)}
    result = printable_document(_with_table(result))
    output = getattr(arguments, "output", None)
    if output is not None:
        try:
            write_new(output, (json.dumps({**result, "exit_code": code}, sort_keys=True) + "\n").encode())
        except CutoverError as error:  # deadline.run_detached reports that it knows of no result
            _progress(f"{error}; the result: {result.get('reason') or result.get('state')}, exit code {code}")
    elif result.get("failed") and not arguments.json:
        if result.get("services"):
            _print({key: value for key, value in result.items() if key != "reason"}, as_json=False)
        _progress(f"ai-admin-cutover: {result['reason']}")
        return code
    if output is None:
        _print(result, arguments.json)
    return code
