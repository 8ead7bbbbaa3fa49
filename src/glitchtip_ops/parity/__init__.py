"""``glitchtip-ops parity``: does GlitchTip hold what Sentry holds? Both APIs over one window, event by event."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from glitchtip_core.files import lock, write_bytes, write_object

from ..cli import BAD_ANSWER, Outcome
from ..process import OpsError
from ..settings import Settings, load_settings
from . import reporting
from .comparing import AUTO, BY_ID, BY_TITLE, Wanted, compare
from .content import EQUAL
from .sides import glitchtip_side, load_sentry_settings, plain_http, sentry_side
from .window import parse_window

RESULT = "parity.json"
now = time.time  # tests set their own


def result_file(settings: Settings) -> Path:
    """Where the last comparison of this migration is kept; the Markdown is beside it."""
    return Path(settings.state_dir) / settings.migration_id / RESULT


def register(subparsers: Any) -> None:
    """Add the command ``parity``."""
    parser = subparsers.add_parser("parity", help="compare what Sentry and GlitchTip hold over one window")
    parser.add_argument("--since", default="24h", help="24h, 2d, or a time like 2026-01-11T06:00:00Z")
    parser.add_argument("--until", help="a time; now by default")
    parser.add_argument("--margin", type=int, default=60, help="seconds before now that are left out")
    parser.add_argument("--top", type=int, default=Wanted.top, help="issues whose content is compared")
    parser.add_argument("--samples", type=int, default=Wanted.samples, help="events of each such issue")
    parser.add_argument("--max-events", type=int, default=Wanted.max_events, help="events read of a side")
    parser.add_argument(
        "--match", choices=(AUTO, BY_ID, BY_TITLE), default=AUTO, help="how events find each other"
    )
    parser.add_argument(
        "--result", type=Path, help="where the result is written instead of the state directory"
    )
    parser.set_defaults(handler=_handle)


def _wanted(options: argparse.Namespace) -> Wanted:
    for name, least, most in (("top", 1, 200), ("samples", 1, 20), ("max_events", 100, 1_000_000)):
        if not least <= getattr(options, name) <= most:
            raise OpsError(f"--{name.replace('_', '-')} is a number from {least} to {most}")
    return Wanted(options.top, options.samples, options.max_events, options.match)


def _handle(options: argparse.Namespace) -> Outcome:
    settings, wanted = load_settings(), _wanted(options)
    sentry_settings = load_sentry_settings()
    window = parse_window(options.since, options.until, now(), options.margin)
    target = options.result or result_file(settings)
    with lock(result_file(settings).with_name(".parity.lock"), "a comparison of Sentry and GlitchTip"):
        sentry, glitchtip = sentry_side(sentry_settings), glitchtip_side(settings)
        with sentry.client, glitchtip.client:
            report = compare(sentry, glitchtip, window, wanted, now)
        report["migration_id"] = settings.migration_id
        report["stack_id"], report["run_id"] = settings.stack_id, settings.run_id
        if plain_http(sentry_settings.url):
            report["notes"].append(
                "Sentry is read over plain HTTP: its token crosses the network unencrypted"
            )
        write_object(target, report)
        write_bytes(target.with_suffix(".md"), reporting.markdown(report).encode())
    return Outcome(report, reporting.lines(report), 0 if report["verdict"] == EQUAL else BAD_ANSWER)
