"""``glitchtip-ops queue``: status, recover."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glitchtip_core.files import read_object, write_object

from ..cli import BAD_ANSWER, Outcome
from ..docker_stack import Stack
from ..process import OpsError
from ..settings import Settings, load_settings, settings_directory
from ..worker_stop import exclusive, finish_interrupted, record_of
from .dead_letters import recover_dead_letters
from .recovery import Recovery, recover_unacked
from .state import QueueState, read_queue


def utc_now() -> datetime:
    """The clock of this module; tests hand in their own."""
    return datetime.now(UTC)


def known_dead_letters(state_dir: Path) -> int:
    """Dead letters that a recovery left on purpose, or could not bring back: no alarm about those again."""
    kept = read_object(state_dir / "dead-letters.json") or {}
    return int(kept.get("known", 0))


def keep_known_dead_letters(state_dir: Path, number: int) -> None:
    """Remember what remains after a recovery."""
    write_object(state_dir / "dead-letters.json", {"known": number})


def stack_of(directory: Path) -> Stack:
    """The stack that role monitoring (else role parallel_run) configured; the default project without either."""
    for name in ("monitor.json", "soak.json"):
        configured = (read_object(directory / name) or {}).get("compose_project")
        if configured:
            return Stack(str(configured))
    return Stack()


def rate_between(first: QueueState, second: QueueState) -> float:
    """How much the number of waiting messages changes, messages a second; negative while it shrinks."""
    seconds = (datetime.fromisoformat(second.at) - datetime.fromisoformat(first.at)).total_seconds()
    return round((second.waiting - first.waiting) / max(seconds, 1.0), 1)


def describe(state: QueueState, rate: float | None, interrupted: bool) -> list[str]:
    """The state for people, a line a figure."""
    lists = ", ".join(f"{name} {count}" for name, count in state.queues.items())
    lines = [
        f"server line {state.line or 'not known yet (nothing was queued so far)'}",
        f"waiting {state.waiting} ({lists})" + ("" if rate is None else f", {rate:+.1f} a second"),
        f"oldest waiting {'-' if state.oldest is None else f'{state.oldest:.0f} s'}",
        f"Valkey uses {state.memory_used // 2**20} MiB"
        + (f" of {state.memory_limit // 2**20} MiB" if state.memory_limit else ", without a limit"),
    ]
    if state.line == "6.x":
        bound = "(VTASKS_CONCURRENCY + 1) x 100" if state.loss_bound is None else str(state.loss_bound)
        lines += [
            f"dead letters {state.dead_letters}",
            f"batches in hand are in no list: a killed worker loses up to {bound} events",
        ]
        if state.left_behind:
            lines.append(
                f"TROUBLE {state.left_behind} messages of the 5.2 line wait in list celery; nobody reads it"
            )
    else:
        lines.append(f"unacknowledged {state.in_hand}, left by a worker that is gone {state.abandoned}")
    if interrupted:
        lines.append(
            "TROUBLE an interrupted command left the worker stopped; run: glitchtip-ops queue recover"
        )
    if state.abandoned or (state.dead_letters and state.line == "6.x"):
        lines.append("bring them back with: glitchtip-ops queue recover")
    return lines


def status(
    settings: Settings, stack: Stack, *, interval: float = 0.0, sleep: Callable[[float], None] = time.sleep
) -> Outcome:
    """One reading, or two ``interval`` seconds apart. Exit code 3 when something has to be recovered."""
    state = read_queue(stack, utc_now())
    rate: float | None = None
    if interval > 0:
        sleep(interval)
        second = read_queue(stack, utc_now())
        state, rate = second, rate_between(state, second)
    interrupted = record_of(settings.state_dir).exists()
    unknown = state.dead_letters > known_dead_letters(settings.state_dir)
    bad = bool(state.abandoned or state.left_behind or unknown or interrupted)
    document = {**state.to_json(), "rate": rate, "interrupted": interrupted, "ok": not bad}
    return Outcome(document, describe(state, rate, interrupted), BAD_ANSWER if bad else 0)


def plan_of(state: QueueState, interrupted: bool) -> list[str]:
    """What ``recover`` would do, a line a step; empty when there is nothing to do."""
    lines = ["start the worker that an interrupted command left stopped"] if interrupted else []
    if state.line == "6.x":
        if state.dead_letters:
            lines += [
                f"read {state.dead_letters} dead letters, oldest first",
                "move each back to its queue, but for those whose event is stored and those of an exceeded rescue",
                "wait until every event of them is stored",
            ]
        return lines
    if state.abandoned:
        lines += [
            "stop the worker (30 s, or its own longer grace): events wait in Valkey meanwhile",
            f"read {state.in_hand} unacknowledged messages and take out those whose event is stored already",
            "set the others' time to 0, so that the worker restores them when it starts",
            "look in Valkey's append-only file for what is in no list any more, and put it back",
            "take out of the issues' counts what was counted and not stored (not with --keep-counts)",
            "start the worker and wait until every event of them is stored",
        ]
    return lines


def recover(
    settings: Settings, stack: Stack, *, check: bool = False, keep_counts: bool = False
) -> Outcome:
    """Bring back what was left. Exit code 3 when an event is not stored in the end, 1 when it could not be done.

    ``keep_counts``: leave the counts of GlitchTip's issues as they are (5.2). Refused while another recovery or a restart of the stack is at work.
    """
    if check:
        interrupted = record_of(settings.state_dir).exists()
        lines = plan_of(read_queue(stack, utc_now()), interrupted)
        return Outcome({"changed": bool(lines), "plan": lines}, lines or ["nothing to recover"])
    with exclusive(settings.state_dir):
        note = finish_interrupted(stack, settings.state_dir)
        state = read_queue(stack, utc_now())
        if state.line == "6.x" and state.dead_letters:
            result = recover_dead_letters(stack)
            after = read_queue(stack, utc_now())
            keep_known_dead_letters(settings.state_dir, after.dead_letters)
        elif state.line != "6.x" and state.abandoned:
            result = recover_unacked(stack, settings.state_dir, keep_counts=keep_counts)
        else:
            result = Recovery(line=state.line or "", changed=note is not None)
    lines = [*([note] if note else []), *report_of(result)]
    return Outcome({**result.to_json(), "interrupted": note}, lines, 0 if result.complete else BAD_ANSWER)


def report_of(result: Recovery) -> list[str]:
    """A recovery for people."""
    if not result.left:
        return ["nothing to recover"]
    lines = [
        f"{result.left} messages were left: {result.already_stored} events were stored already",
        f"brought back: {result.recovered_events} events and {result.recovered_tasks} other tasks",
        f"stored now: {result.stored} of those events, after {result.seconds} s",
    ]
    if result.recounted:
        lines.append(
            f"- {result.recounted} events had been counted and not stored: taken out of the issues' counts first"
        )
    if result.lost_by_worker:
        lines.append(
            f"- {result.lost_by_worker} of them were in no list any more and were found in Valkey's append-only file"
        )
    if result.note:
        lines.append(f"- {result.note}")
    if not result.worker_ended_by_itself:
        lines.append("- the worker did not end within its grace and was killed")
    if result.missing:
        lines.append(
            f"- NOT stored: {', '.join(result.missing[:5])}{' ...' if len(result.missing) > 5 else ''}"
        )
    return lines


def _handle(options: argparse.Namespace) -> Outcome:
    settings, stack = load_settings(), stack_of(settings_directory())
    if options.action == "recover":
        return recover(settings, stack, check=options.check, keep_counts=options.keep_counts)
    if options.rate < 0 or options.rate > 600:
        raise OpsError("--rate takes 0 to 600 seconds between the two readings")
    return status(settings, stack, interval=options.rate)


def register(subparsers: Any) -> None:
    """Add ``queue`` with its actions."""
    parser = subparsers.add_parser("queue", help="events that wait, or that a killed worker left behind")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    look = actions.add_parser("status", help="what waits; exit code 3 when something has to be recovered")
    look.add_argument(
        "--rate", type=float, default=0.0, metavar="SECONDS", help="two readings that far apart, and the rate"
    )
    bring = actions.add_parser(
        "recover", help="bring back what a killed worker left, and wait until it is stored"
    )
    bring.add_argument("--check", action="store_true", help="only print the plan")
    bring.add_argument(
        "--keep-counts",
        action="store_true",
        help="5.2: write nothing to GlitchTip's tables, at the price of issues that count some events twice",
    )
    parser.set_defaults(handler=_handle)
