"""Whatever a port raises at whatever call, a command ends as its contract says, and the host can be put back.

A run that changed something never ends as "nothing was changed": it is done, rolled back (3), incomplete (4) or
unproven (5); the journal shows an incomplete one, people were notified, and a later recovery and rollback work.

The slow tests let every seventh call fail; FAULTS_STEP=1 lets each of them fail, which takes four minutes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit.cutover.faults import ERRORS, Faults, shape
from unit.cutover.simulation import NEW, Simulation
from unit.cutover.test_crash import SCENARIOS, place, violations
from unit.cutover.test_watch import Watched

from glitchtip_core.transaction import transaction
from glitchtip_cutover import parts, watch
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.transaction import Cutover
from glitchtip_cutover.watch import Watch
from glitchtip_cutover.watch_mark import watch_mark

#: What is active after the command succeeded: the target, and services that were rolled back alone.
DONE = {
    "apply to glitchtip": "glitchtip",
    "apply, all at once": "glitchtip",
    "apply from the mirror": "glitchtip",
    "confirm": "glitchtip",
    "rollback": "before",
    "rollback of one service": "glitchtip/api",
    "recover": "before",
}
UNATTENDED = {"recover"}
#: The distance of two calls that fail, in the slow tests.
STEP = int(os.environ.get("FAULTS_STEP", "7"))


def ended(act: Callable[[], Any]) -> tuple[int, str]:
    """Exit code (-1: an exception that is none of ours) and the sentence."""
    try:
        act()
    except CutoverError as error:
        return error.exit_code, str(error)
    except Exception as error:
        return -1, repr(error)
    return 0, ""


def broken_promises(world: Simulation, faults: Faults, scenario: str, code: int, before: object, phase: str) -> list[str]:
    """What does not hold after a command ended with ``code``."""
    found: list[str] = []
    state = world.cutover().state()
    notified = {event for event, _ in world.told}
    if code == -1:
        found.append("the exception is none of ours")
    if code in (-1, 1, 2):  # the command line makes 1 of an exception that it does not know
        if shape(world) != before:
            found.append("it was changed, and the exit code says that it was not")
        if state.phase != phase:
            found.append(f"it left {state.phase}, and the exit code says that nothing was changed")
        if scenario in UNATTENDED and (state.open or state.overriding):
            found.append("nobody waits for it, and the change is still open")
    if code == 3:
        found += [f"rolled back, but {text}" for text in violations(world, SCENARIOS[scenario][2])]
    if code == 4:
        # Without the disk, or the clock that dates them, there are no records: the sentence and the notification say it.
        unrecorded = faults.lasting and faults.failed in ("files", "clock")
        if not (state.open or state.overriding or state.problems) and not unrecorded:
            found.append("the journal does not say that it is incomplete")
        if (state.open or state.overriding) and not world.cutover().store.open_marker.exists():
            found.append("the recovery unit would not look")
    if code in (3, 4) and faults.failed != "notify" and not notified & {"rolled_back", "incomplete"}:
        found.append("nobody was notified")
    return found


def afterwards(world: Simulation) -> list[str]:
    """What does not hold once the recovery unit ran, and somebody rolled back."""
    if world.cutover().store.open_marker.exists():
        code, sentence = ended(world.cutover().recover)
        if code:
            return [f"the recovery fails: {sentence}"]
    code, sentence = ended(world.cutover().rollback)
    if code not in (0, 5):
        return [f"the rollback fails: {sentence}"]
    return violations(world, {"before"})


def one(scenario: str, number: int, error: Callable[[], Exception], *, lasting: bool) -> tuple[list[str], Faults]:
    """Let one call of a scenario fail; what does not hold then."""
    make, act, _ = SCENARIOS[scenario]
    faults = Faults(number, error, lasting=lasting)
    with place() as root:
        world = make(root)
        world.told.clear()
        before, phase = shape(world), world.cutover().state().phase
        with faults.around():
            code, sentence = ended(lambda: act(Cutover(world.config, faults.host(world.host()))))
        found = broken_promises(world, faults, scenario, code, before, phase)
        if not code:
            state = world.cutover().state()
            stands = "/".join((state.stands, *state.overrides))
            found += [] if stands == DONE[scenario] else [f"done, but {stands} stands"]
        found += afterwards(world)
    return [f"{text} ({code}: {sentence})" for text in found], faults


def calls(scenario: str) -> list[str]:
    found, faults = one(scenario, 0, ERRORS[0], lasting=False)
    assert found == []
    return faults.calls


def sweep(scenario: str, step: int, *, first: int = 1) -> tuple[int, list[str]]:
    """Every ``step``-th call fails: once, and from then on."""
    found: list[str] = []
    runs = 0
    all_calls = calls(scenario)
    for number in range(first, len(all_calls) + 1, step):
        for lasting in (False, True):
            error = ERRORS[(number // step + lasting) % len(ERRORS)]
            broken, _ = one(scenario, number, error, lasting=lasting)
            runs += 1
            name = f"{scenario}, {all_calls[number - 1]} ({number}) {'lasts' if lasting else 'once'}, {error()!r}"
            found += [f"{name}: {text}" for text in broken]
    return runs, found


@pytest.mark.parametrize(("scenario", "step"), [("apply to glitchtip", 97), ("rollback", 97), ("recover", 47)])
def test_some_calls_of_every_command_may_raise_anything(scenario: str, step: int) -> None:
    runs, found = sweep(scenario, step, first=7)
    assert runs >= 6
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("scenario", DONE)
def test_calls_all_over_a_command_may_raise_anything(scenario: str) -> None:
    runs, found = sweep(scenario, STEP)
    print(f"{scenario}: {runs} faults")
    assert runs > 100 / STEP
    assert found == []


@contextlib.contextmanager
def unprotected() -> Iterator[None]:
    """The product without what this file is about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "contain_host", lambda host: host)
        patch.setattr(transaction, "accountable", lambda *_, **__: contextlib.nullcontext())
        patch.setattr(watch, "contain_host", lambda host: host)
        yield


def test_without_the_protection_the_sweep_finds_broken_promises() -> None:
    """Negative control."""
    with unprotected():
        _, found = sweep("rollback", 83)
    told = " ".join(found)
    assert "none of ours" in told
    assert "the exit code says that" in told


# ------------------------------------------------------------------ the watch


def watched(number: int, error: Callable[[], Exception], *, lasting: bool = False) -> tuple[list[str], Faults]:
    """Let one call of a watch fail; what does not hold then."""
    faults = Faults(number, error, lasting=lasting)
    with place() as root:
        case = Watched(root, seconds=150)
        case.world.told.clear()
        seen = Watch(
            case.world.config,
            faults.host(case.world.host()),
            docker=faults.port("docker", case.docker),
            memory=faults.function("memory", lambda: case.memory),
            roll_back=faults.function("roll_back", case.roll_back),
            going_down=lambda: False,
        )
        with faults.around():
            code, sentence = ended(seen.run)
        found: list[str] = []
        notified = [event for event, _ in case.world.told]
        phase = case.world.cutover().state().phase
        if code == -1:
            found.append("the exception is none of ours")
        if code == 3 and phase != "rolled_back":
            found.append("it says that it rolled back, and did not")
        if not notified and faults.failed != "notify":
            found.append("nobody was notified")
        if code == 1 and phase == "confirmed" and "watch_passed" not in case.events():
            if not watch_mark(case.world.config).exists():
                found.append("it ended, and cannot be started again")
            elif ended(case.watch().run)[0] or set(case.world.uses().values()) != {NEW}:
                found.append("started again, it does not pass")
    return [f"{text} ({code}: {sentence})" for text in found], faults


def watch_sweep(step: int) -> tuple[int, list[str]]:
    found, faults = watched(0, ERRORS[0])
    assert found == []
    runs = 0
    for number in range(1, len(faults.calls) + 1, step):
        for lasting in (False, True):
            error = ERRORS[(number // step + lasting) % len(ERRORS)]
            broken, _ = watched(number, error, lasting=lasting)
            runs += 1
            name = f"{faults.calls[number - 1]} ({number}) {'lasts' if lasting else 'once'}, {error()!r}"
            found += [f"{name}: {text}" for text in broken]
    return runs, found


def test_some_calls_of_the_watch_may_raise_anything() -> None:
    runs, found = watch_sweep(43)
    assert runs >= 6
    assert found == []


@pytest.mark.slow
def test_calls_all_over_the_watch_may_raise_anything() -> None:
    runs, found = watch_sweep(STEP)
    print(f"watch: {runs} faults")
    assert found == []
