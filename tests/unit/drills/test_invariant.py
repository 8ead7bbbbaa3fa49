"""The invariant of the drills: it holds for what is right, and each thing that is wrong turns it red."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drills.invariant import Counts, Facts, Process, violations

SERVICES = ("api", "job")
GOOD = Facts(
    env="old",
    env_same=True,
    processes={"api": Process("online", "none", "old"), "job": Process("stopped", "none", "none", job=True)},
    dump={"api": "none", "job": "none"},
    journal="rolled_back",
    open=False,
    lock_free=True,
    active=(),
    leftovers=(),
    secrets=(),
    counts=Counts(captured=3, acknowledged=3, stored=3),
)


def test_a_host_that_is_as_before_violates_nothing():
    assert violations(GOOD, SERVICES, "before") == []


def test_a_host_that_is_wholly_switched_and_confirmed_violates_nothing():
    processes = {"api": Process("online", "new", "new"), "job": Process("stopped", "none", "none", job=True)}
    switched = replace(
        GOOD, env="new", journal="confirmed", processes=processes, dump={"api": "new", "job": "none"}
    )
    assert violations(switched, SERVICES, "glitchtip") == []


def test_a_service_put_back_alone_is_judged_by_its_own_side():
    processes = {"api": Process("online", "old", "old"), "job": Process("stopped", "none", "none", job=True)}
    mixed = replace(
        GOOD, env="new", journal="confirmed", processes=processes, dump={"api": "old", "job": "none"}
    )
    assert violations(mixed, SERVICES, "glitchtip", {"api": "old"}) == []
    assert violations(mixed, SERVICES, "glitchtip") != []


def _api(**changes: str) -> dict[str, Process]:
    return {**GOOD.processes, "api": replace(GOOD.processes["api"], **changes)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"env": "new"}, ".env holds the new DSN"),
        ({"env": "unreadable"}, ".env holds the unreadable DSN"),
        ({"env_same": False}, "more than its DSN"),
        ({"processes": _api(status="errored")}, "api is errored"),
        ({"processes": _api(status="stopped")}, "api is stopped"),
        ({"processes": _api(uses="new")}, "api uses the new DSN"),
        ({"processes": _api(uses="unknown (its debugger does not open)")}, "api uses the unknown"),
        ({"processes": _api(carries="new")}, "api carries the new DSN in PM2's environment"),
        ({"processes": {"job": GOOD.processes["job"]}}, "api is not in PM2's list"),
        ({"dump": {"api": "new", "job": "none"}}, "in PM2's saved list"),
        ({"dump": {"job": "none"}}, "api is missing in PM2's saved list"),
        ({"journal": "open"}, "the journal is not closed: open"),
        ({"journal": "applied"}, "the journal is not closed: applied"),
        ({"journal": "damaged"}, "the journal is not closed: damaged"),
        ({"open": True}, "the mark of an open change"),
        ({"lock_free": False}, "the lock is held"),
        ({"active": ("ai-admin-cutover.service",)}, "still at work"),
        ({"leftovers": ("/opt/ai-admin/.env.part",)}, "half-written"),
        ({"secrets": ("key of the new DSN in systemd's journal",)}, "secret shown"),
        ({"counts": Counts(lost=1)}, "1 acknowledged events are stored nowhere"),
        ({"counts": Counts(duplicated=2)}, "2 events are stored twice"),
        ({"counts": Counts(wrong_host=("api",))}, "went to the other tracker"),
        ({"counts": Counts(silent=("api",))}, "no acknowledged event of api"),
    ],
)
def test_each_thing_that_is_wrong_is_one_sentence(change: dict[str, object], sentence: str):
    found = violations(replace(GOOD, **change), SERVICES, "before")
    assert len(found) == 1
    assert sentence in found[0]
