"""The command ``glitchtip-ops [--json] COMMAND ...``.

Each command is a module with ``register(subparsers)``, which adds its parser and sets ``handler``, a function
from the parsed options to an :class:`Outcome`. Exit codes: 0 good, 1 it could not be done (one sentence on
standard error), 2 wrong use, 3 done and the answer is bad (NO_GO, unhealthy, a test failed).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from glitchtip_api import GlitchTipError
from glitchtip_core.process import search_path
from glitchtip_core.text import guarded_output, printable_document

from .process import OpsError

COMMANDS = ("local_test", "soak", "backup", "monitor", "queue", "stack", "parity", "sentry_checklist", "mirror")
BAD_ANSWER = 3


@dataclass(frozen=True)
class Outcome:
    """What a command found: the JSON document, the lines for people, the exit code."""

    document: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    code: int = 0


Handler = Callable[[argparse.Namespace], Outcome]


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command of COMMANDS."""
    parser = argparse.ArgumentParser(
        prog="glitchtip-ops", description="Operator tools for GlitchTip on this host."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f".{name}", __package__).register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Whatever it prints is printable."""
    with guarded_output():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    os.environ["PATH"] = search_path()  # also for programs that inherit this environment
    options = build_parser().parse_args(argv)
    handler: Handler = options.handler
    try:
        outcome = handler(options)
    except (OpsError, GlitchTipError) as error:
        print(f"glitchtip-ops: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(printable_document(outcome.document), indent=1))
    else:
        print("\n".join(outcome.lines))
    return outcome.code
