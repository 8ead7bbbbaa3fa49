"""The only interpreter of a journal: what stands, what is open, where everything is as before; for any client's kinds of records."""

from __future__ import annotations

from typing import Any

import pytest

from glitchtip_core.errors import CoreError
from glitchtip_core.switch import KINDS
from glitchtip_core.transaction.state import Kinds, State, fold

#: A client that is no switch.
RESTORE = Kinds(remarks=frozenset({"compared"}), saved="kept", part="table", fingerprint="set_sha256", target="backup")


def journal(*events: str | tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [(event, {}) if isinstance(event, str) else event for event in events]
    return [{"seq": at, "at": float(at), "event": event, **fields} for at, (event, fields) in enumerate(rows, 1)]


SWITCHED = ("apply_begin", "applied", "confirmed")
MIRRORED = (("apply_begin", {"target": "mirror"}), "applied", "confirmed")
BACK = (("rollback_begin", {"target": "snapshot"}), ("rolled_back", {"target": "snapshot"}))
FAILED = ("apply_begin", ("rollback_begin", {"target": "attempt"}), ("rolled_back", {"target": "attempt"}))
ALONE = (("override_begin", {"service": "api"}), ("override_done", {"service": "api"}))


@pytest.mark.parametrize(
    ("records", "phase", "stands", "at_origin", "confirmed_at", "parts"),
    [
        ((), "none", "before", True, None, ()),
        (SWITCHED[:1], "applying", "before", False, None, ()),
        (SWITCHED[:2], "applied", "glitchtip", False, None, ()),
        (SWITCHED, "confirmed", "glitchtip", False, 3.0, ()),
        ((*SWITCHED, *BACK[:1]), "rolling_back", "glitchtip", False, 3.0, ()),
        ((*SWITCHED, *BACK), "rolled_back", "before", True, None, ()),
        (FAILED, "rolled_back", "before", True, None, ()),
        ((*SWITCHED, *FAILED), "rolled_back", "glitchtip", False, 3.0, ()),
        ((*MIRRORED, *FAILED), "rolled_back", "mirror", False, 3.0, ()),
        ((*MIRRORED, *SWITCHED), "confirmed", "glitchtip", False, 6.0, ()),
        ((*SWITCHED, *ALONE[:1]), "confirmed", "glitchtip", False, 3.0, ("api",)),
        ((*SWITCHED, *ALONE), "confirmed", "glitchtip", False, 3.0, ("api",)),
        ((*SWITCHED, *ALONE[:1], "override_dropped"), "confirmed", "glitchtip", False, 3.0, ()),
        ((*SWITCHED, *ALONE, *SWITCHED[:1], ("override_removed", {"service": "api"})), "applying", "glitchtip", False, 3.0, ()),
        ((*SWITCHED, *ALONE, *SWITCHED[:1], ("override_removed", {"service": "api"}), *FAILED[1:]), "rolled_back", "glitchtip", False, 3.0, ("api",)),
        ((*SWITCHED, *ALONE, *BACK), "rolled_back", "before", True, None, ()),
    ],
)
def test_what_stands_after_each_course(
    records: tuple[Any, ...], phase: str, stands: str, at_origin: bool, confirmed_at: float | None, parts: tuple[str, ...]
) -> None:
    state = fold(journal(*records), KINDS)
    assert (state.phase, state.stands, state.at_origin) == (phase, stands, at_origin)
    assert (state.confirmed_at, state.parts_back) == (confirmed_at, parts)


def test_the_time_of_a_phase_is_that_of_the_record_that_began_it() -> None:
    assert fold(journal(*SWITCHED, ("note", {"text": "x"}), *ALONE), KINDS).phase_at == 3.0
    assert fold(journal(*SWITCHED, *SWITCHED[:1]), KINDS).phase_at == 4.0
    assert State().phase_at is None


@pytest.mark.parametrize("at", [-1, 1e300, float("nan"), float("inf"), 10**400, "now", True, None])
def test_a_time_that_no_date_has_is_none(at: object) -> None:
    state = fold([{"event": "apply_begin", "attempt": 1, "target": "new", "at": at}], KINDS)
    assert (state.phase, state.phase_at) == ("applying", None)


def test_another_client_brings_its_own_records() -> None:
    begin = ("apply_begin", {"set_sha256": "ab", "attempt": 7})
    state = fold(journal(begin, "kept", "compared", "applied", ("override_begin", {"table": "events"})), RESTORE)
    assert (state.attempt, state.target, state.stands, state.stands_sha256) == (7, "backup", "backup", "ab")
    assert (state.saved, state.overriding) == (True, "events")
    assert not fold(journal(begin, "pm2_save"), RESTORE).saved  # that is an act of the switch's
    assert not RESTORE.is_act("compared")
    assert not RESTORE.is_act("note")
    assert RESTORE.is_act("proved")
    assert not KINDS.is_act("proved")


def test_a_record_that_decides_and_does_not_say_enough_is_named_with_what_helps() -> None:
    with pytest.raises(CoreError, match=r"record 1 .*no target; correct or remove that record; glitchtip-rollback restores"):
        fold(journal("rollback_begin"), KINDS)
    with pytest.raises(CoreError, match=r"has no table; correct or remove that record$"):
        fold(journal("override_begin"), RESTORE)
