"""Ordering a soak, taking the sample that is due, writing the verdict, telling how it stands."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from glitchtip_api import Client, GlitchTipError
from glitchtip_core.files import read_object, write_object

from ..process import OpsError
from ..settings import Settings
from .config import SoakConfig
from .plan import Plan, check_mode, check_name, check_thresholds, check_times
from .reach import is_suspicious, reasons_against
from .store import Sample, SoakFiles
from .verdict import SLACK, figures, judge

#: A timer fires a little early or late, and an operator may take a sample by hand in between.
_DUE = 0.75
#: systemd runs the sampler; a soak without a sample for that many intervals is said to stand still.
_LATE_INTERVALS = 3


def utc_now() -> datetime:
    """The clock of this module; tests hand in their own."""
    return datetime.now(UTC)


class Taker(Protocol):
    """What takes a sample: a Sampler, or a test's."""

    def take(self, plan: Plan, now: datetime, before: Sample | None) -> dict[str, Any]:
        """A sample of ``now``; ``before`` is the one before it."""


def migration_directory(settings: Settings) -> Path:
    """Where the soaks of this migration are kept."""
    return Path(settings.state_dir) / settings.migration_id


def versions_of(settings: Settings) -> dict[str, str]:
    """Versions for the report; a tracker that does not answer has none here (the samples will say it)."""
    try:
        with Client(settings.url, retries=0) as client:
            return {"GlitchTip": str(client.version() or "not told")}
    except GlitchTipError:
        return {}


def start(
    settings: Settings,
    config: SoakConfig,
    duration: float,
    interval: float,
    *,
    restart: bool,
    dry_run: bool = False,
    name: str = "",
    mode: str | None = None,
    clock: Callable[[], datetime] = utc_now,
    versions: Callable[[Settings], dict[str, str]] = versions_of,
) -> dict[str, Any]:
    """Write the plan of a soak; ``{"changed", **status}``. One that exists is kept unless ``restart``.

    One of another stack (removed since, with its events) is set aside and a new one begins: it proves nothing here.
    Nothing is changed by a call that is refused. Raises OpsError for times, thresholds, a mode or a name that
    make no sense, and when a soak of that name was ordered with another duration, interval or mode.
    """
    check_times(duration, interval)
    mode = check_mode(mode or config.mode)
    thresholds = check_thresholds(config.thresholds)
    if not config.valid_for > 0:
        raise OpsError(f"valid_for is {config.valid_for!r}; a verdict is valid for some seconds")
    soak_files = SoakFiles(migration_directory(settings), check_name(name))
    existing = soak_files.read_plan()
    if existing is not None and not restart and existing.stack_id == settings.stack_id:
        if (existing.duration, existing.interval, existing.mode) != (duration, interval, mode):
            raise OpsError(
                f"a soak of {existing.duration:.0f} s every {existing.interval:.0f} s in mode {existing.mode} "
                f"exists already for migration {settings.migration_id}; begin anew with --restart, or give its "
                "figures"
            )
        return {"changed": False, **status(soak_files, clock(), settings.stack_id)}
    if dry_run:
        return {"changed": True, **status(soak_files, clock(), settings.stack_id)}
    now = clock()
    soak_files.set_aside(now)
    soak_files.write_plan(
        Plan(
            migration_id=settings.migration_id,
            started_at=now.isoformat(timespec="milliseconds"),
            duration=duration,
            interval=interval,
            services=config.services,
            pm2_services=config.pm2_services,
            thresholds=thresholds,
            name=name,
            mode=mode,
            require_parity=bool(config.require_parity),
            valid_for=float(config.valid_for),
            host=socket.gethostname(),
            stack_id=settings.stack_id,
            run_id=settings.run_id,
            versions=versions(settings),
        )
    )
    return {"changed": True, **status(soak_files, now, settings.stack_id)}


def covered(plan: Plan, first: Sample, last: Sample) -> bool:
    """Whether samples from ``first`` to ``last`` span the ordered time."""
    span = datetime.fromisoformat(str(last["at"])) - datetime.fromisoformat(str(first["at"]))
    return span.total_seconds() >= plan.duration - SLACK


def sample_due(
    soak_files: SoakFiles,
    taker: Taker,
    *,
    stack_id: str | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> dict[str, Any]:
    """One step of a soak: ``{"name", "state", "sample", "verdict", "out_of_reach"}``.

    ``out_of_reach``: reasons why a soak that runs cannot end with GO any more.

    ``state``: ``absent`` (none ordered), ``finished`` (there is a verdict), ``ended`` (ordered for another stack
    than ``stack_id``), ``waiting`` (not due yet) or ``sampled``; with the last sample the verdict is written. Does
    in the next call what a full disk or a power cut kept an earlier one from.

    Raises OpsError when the sample or the verdict could not be kept.
    """
    result: dict[str, Any] = {"name": soak_files.name, "sample": None, "verdict": None, "out_of_reach": []}
    plan = soak_files.read_plan()
    if plan is None:
        return {**result, "state": "absent"}
    if soak_files.verdict.exists():
        return {**result, "state": "finished"}
    if stack_id is not None and plan.stack_id != stack_id:
        return {**result, "state": "ended"}
    result["out_of_reach"] = kept_reasons(soak_files)
    now, edges = clock(), soak_files.edges()
    if edges is None or not covered(plan, *edges):
        last = None if edges is None else edges[1]
        if last is not None:
            passed = (now - datetime.fromisoformat(str(last["at"]))).total_seconds()
            if 0 <= passed < _DUE * plan.interval:
                return {**result, "state": "waiting"}
        sample = {**taker.take(plan, now, last), "stack_id": plan.stack_id, "run_id": plan.run_id}
        if soak_files.read_plan() != plan:  # begun anew meanwhile: this sample belongs to no soak
            return {**result, "state": "waiting"}
        try:
            soak_files.add(sample)
        except OpsError as error:
            raise OpsError(f"the sample of {sample['at']} is lost: {error}") from None
        result["sample"] = sample
        result["out_of_reach"] = note_reach(soak_files, plan, last, sample)
        edges = (edges[0] if edges else sample), sample
    state = "sampled"
    if covered(plan, *edges):
        result["verdict"] = conclude(soak_files, plan, clock())["verdict"]
        state = "finished"
    return {**result, "state": state}


def kept_reasons(soak_files: SoakFiles) -> list[str]:
    """What an earlier sample noted against GO. Raises OpsError when it cannot be read."""
    return list((read_object(soak_files.out_of_reach) or {}).get("reasons") or [])


def note_reach(soak_files: SoakFiles, plan: Plan, before: Sample | None, sample: Sample) -> list[str]:
    """Why GO is out of reach after ``sample``; kept, so that all samples are read for it once at most.

    Raises OpsError when the reasons cannot be kept.
    """
    kept = kept_reasons(soak_files)
    if kept or not is_suspicious(plan, before, sample):
        return kept
    reasons = reasons_against(plan, soak_files.read_samples())
    if reasons:
        write_object(soak_files.out_of_reach, {"at": sample["at"], "reasons": reasons})
    return reasons


def conclude(soak_files: SoakFiles, plan: Plan, now: datetime) -> dict[str, Any]:
    """Judge and write the verdict, once and for all but for ``refresh``. Raises OpsError when it cannot.

    ``judged_at`` is an interval after the last sample at the latest: written late (a full disk, a file that was
    removed), a verdict is as old as what it was judged by.
    """
    edges = soak_files.edges()
    if edges is not None:
        now = min(now, datetime.fromisoformat(str(edges[1]["at"])) + timedelta(seconds=plan.interval))
    verdict = judge(plan, soak_files.read_samples(), now=now, parity=read_parity(soak_files))
    write_object(soak_files.verdict, verdict)
    return verdict


def refresh(soak_files: SoakFiles, plan: Plan, now: datetime) -> dict[str, Any]:
    """Judge the same samples again, with the parity comparison that is there now, and keep the outcome.

    ``judged_at`` stays: a verdict gets no younger by this; ``refreshed_at`` tells when it was.
    Raises OpsError when the soak has not ended.
    """
    before = read_object(soak_files.verdict)
    if before is None:
        raise OpsError("the soak has not ended; there is no verdict to refresh yet")
    verdict = judge(plan, soak_files.read_samples(), now=now, parity=read_parity(soak_files))
    verdict["refreshed_at"], verdict["judged_at"] = verdict["judged_at"], before["judged_at"]
    write_object(soak_files.verdict, verdict)
    return verdict


def read_parity(soak_files: SoakFiles) -> dict[str, Any] | None:
    """The parity comparison of the migration; None when there is none, or it cannot be read."""
    try:
        return read_object(soak_files.parity)
    except OpsError:
        return None


def stalled(soak_files: SoakFiles, plan: Plan, now: datetime) -> str | None:
    """A sentence when a running soak has not had a sample for long, else None."""
    edges = soak_files.edges()
    last = datetime.fromisoformat(str(edges[1]["at"]) if edges else plan.started_at)
    silent = (now - last).total_seconds()
    if silent <= _LATE_INTERVALS * plan.interval:
        return None
    return (
        f"no sample for {silent:.0f} s (one is due every {plan.interval:.0f} s): "
        "see systemctl status glitchtip-soak.timer glitchtip-soak.service"
    )


def status(soak_files: SoakFiles, now: datetime, stack_id: str | None = None) -> dict[str, Any]:
    """``{"state": absent|running|finished, "verdict": GO|NO_GO|None, "reasons", "figures", "plan", "name"}``.

    ``out_of_reach``: reasons why a running soak cannot end with GO any more, so that nobody waits for its end.
    ``stalled`` is a sentence when a running soak has not had a sample for long, else None. A soak of another stack
    than ``stack_id`` (None: of any) is absent, and ``ended`` says so.
    """
    plan, verdict = soak_files.read_plan(), read_object(soak_files.verdict)
    result: dict[str, Any] = {
        "name": soak_files.name,
        "state": "absent",
        "verdict": None,
        "reasons": [],
        "figures": {},
        "plan": None,
        "stalled": None,
        "ended": None,
        "out_of_reach": [],
    }
    if plan is None:
        return result
    if stack_id is not None and plan.stack_id != stack_id:
        result["ended"] = ended_text(plan)
        return result
    result["plan"] = plan.to_json()
    if verdict is None:
        result["stalled"] = stalled(soak_files, plan, now)
        result["out_of_reach"] = reasons_against(plan, soak_files.read_samples())
        return {**result, "state": "running", "figures": figures(soak_files.read_samples())}
    return {**result, "state": "finished", **_told(verdict)}


def ended_text(plan: Plan) -> str:
    """What to say of a soak of another stack."""
    return (
        f"the soak of {plan.started_at} was of another GlitchTip stack than the one deployed now, so it counts for "
        "nothing; phase 3 keeps its files under other names and begins a new one"
    )


def _told(verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {name: verdict[name] for name in ("verdict", "reasons", "figures", "judged_at", "valid_for")}


def open_verdict(soak_files: SoakFiles, plan: Plan, now: datetime) -> dict[str, Any]:
    """The verdict that stands, or (``final`` false) that over the samples so far, which is not kept."""
    kept = read_object(soak_files.verdict)
    if kept is not None:
        return {**kept, "final": True}
    samples = soak_files.read_samples()
    return {**judge(plan, samples, now=now, parity=read_parity(soak_files)), "final": False}
