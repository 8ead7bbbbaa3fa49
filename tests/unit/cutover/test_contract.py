"""Input of others that nobody foresaw: it is refused in a sentence, or it ends a run as incomplete, never as "nothing changed"."""

from __future__ import annotations

import ast
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import NEW, OLD, MemoryTracker, Simulation
from unit.cutover.test_crash import fresh, switched, torn
from unit.cutover.test_tracker_answers import JSON, tracker
from unit.cutover.test_watch import Watched

from glitchtip_core.errors import CoreError
from glitchtip_core.json_text import decode_json
from glitchtip_core.pm2_list import read_entries
from glitchtip_core.switch import KINDS
from glitchtip_core.transaction.state import fold
from glitchtip_cutover import cli
from glitchtip_cutover.api import parse_event
from glitchtip_cutover.errors import CutoverError, IncompleteError, RolledBackError
from glitchtip_cutover.proof import read_report

ROOT = Path(__file__).resolve().parents[3]
DEEP = "[" * 100_000 + "]" * 100_000


def listed(name: str, details: str = "", **top: str) -> str:
    """``pm2 jlist`` with one good service and one entry whose fields are JSON texts."""
    good = '{"name": "api", "pm_id": 1, "pid": 7, "pm2_env": {"status": "online", "pm_uptime": 1, "restart_time": 0}}'
    fields = {"pm_id": "2", "pid": "8", **top}
    head = ", ".join(f'"{key}": {value}' for key, value in fields.items())
    settings = f'"status": "online"{details and ", " + details}'
    return f'[PM2] a notice\n[{good}, {{"name": "{name}", {head}, "pm2_env": {{{settings}}}}}]'


HOSTILE = {
    "uptime in words": {"details": '"pm_uptime": "soon"'},
    "uptime of any size": {"details": '"pm_uptime": 1' + "0" * 6000},
    "infinite pid": {"pid": "1e999"},
    "counter as a list": {"details": '"restart_time": [1]'},
    "id as an object": {"pm_id": "{}"},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_entry_of_another_process_fails_nothing(case: str) -> None:
    found = read_entries(listed("hobby", **HOSTILE[case]), {"api"})
    assert (found[0].name, found[0].pid) == ("api", 7)


@pytest.mark.parametrize("case", HOSTILE)
def test_an_entry_of_a_configured_service_is_refused_in_a_sentence(case: str) -> None:
    with pytest.raises(CoreError, match=r"gives the service web a \w+ that is no usable number; see `pm2 describe web`"):
        read_entries(listed("web", **HOSTILE[case]), {"api", "web"})


def test_a_deeply_nested_field_hides_no_process() -> None:
    for name in ("hobby", "web"):
        found = read_entries(listed(name, f'"axm_options": {DEEP}'), {"api", "web"})
        assert [(entry.name, entry.status) for entry in found] == [("api", "online"), (name, "online")]


@pytest.mark.parametrize("entry", ["7", "null", '{"pid": 1}', '{"name": "x"}', '{"name": {}}', "[]"])
def test_an_element_that_is_no_process_fails_nothing(entry: str) -> None:
    text = listed("web").removesuffix("]") + f", {entry}]"
    assert [each.name for each in read_entries(text, {"api", "web"})] == ["api", "web"]
    with pytest.raises(CoreError):
        read_entries(text)


def test_a_configured_service_without_settings_or_status_is_refused() -> None:
    with pytest.raises(CoreError, match="no settings for the service api"):
        read_entries('[{"name": "api"}]', {"api"})
    with pytest.raises(CoreError, match="no status for the service api"):
        read_entries('[{"name": "api", "pm2_env": {}}]', {"api"})


# ------------------------------------------------------------------ the command


@pytest.fixture
def signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def command(
    world: Simulation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, dict[str, Any]]:
    """Exit code and result of a command of the program."""
    monkeypatch.setattr(cli, "real_host", lambda _config, _progress: world.host())
    monkeypatch.setattr(cli, "load_config", lambda _path, **_: world.config)
    capsys.readouterr()
    code = cli.main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), RecursionError(), MemoryError()])
def test_a_rollback_that_anything_stops_is_incomplete_and_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    world = switched(tmp_path)
    processes = world.pm2.processes

    def failing() -> list[Any]:
        if world.pm2.restarted:
            raise error
        return processes()

    world.pm2.restarted.clear()
    monkeypatch.setattr(world.pm2, "processes", failing)
    code, result = command(world, monkeypatch, capsys, "rollback", "--foreground")
    assert (code, result["changed"], result["failed"]) == (4, True, True)
    assert f"unexpected {type(error).__name__} in failing:" in result["reason"]
    assert "secret" not in json.dumps(result)
    assert [event for event, _ in world.told][-1] == "incomplete"
    assert world.cutover().store.open_marker.exists()
    monkeypatch.setattr(world.pm2, "processes", processes)
    assert world.cutover().status()["problems"]
    world.cutover().recover()
    assert {dsn for name, dsn in world.pm2.loaded.items() if name != "silent"} == {OLD}


@pytest.mark.usefixtures("signals")
def test_an_exception_before_the_first_act_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = fresh(tmp_path)
    monkeypatch.setattr(world.pm2, "processes", lambda: [][1])
    code, result = command(world, monkeypatch, capsys, "apply", "--foreground")
    assert (code, result["changed"]) == (1, False)
    assert "unexpected IndexError" in result["reason"]
    assert world.told == []


def test_a_recovery_whose_records_are_damaged_is_incomplete_and_reported(tmp_path: Path) -> None:
    """The recovery unit runs unattended: a refusal would be seen by nobody."""
    world = torn(tmp_path)
    (world.config.state_dir / "attempts/0001/before.json").write_text('{"dsn": "x"}')
    with pytest.raises(IncompleteError, match="incomplete or damaged"):
        world.cutover().recover()
    assert [event for event, _ in world.told][-1] == "incomplete"


def test_a_rollback_whose_mark_cannot_be_removed_is_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = switched(tmp_path)
    cutover = world.cutover()

    def cut(*_: object) -> None:
        raise KeyError("saved")

    monkeypatch.setattr(cutover.store, "unmark_open", cut)
    with pytest.raises(IncompleteError, match="unexpected KeyError"):
        cutover.rollback()
    assert cutover.state().problems


def test_what_cannot_be_closed_after_a_confirm_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fresh(tmp_path)
    world.cutover().apply()
    monkeypatch.setattr(world.deadline, "disarm", lambda: {}["timer"])
    result = world.cutover().confirm()
    assert (result["state"], len(result["notes"])) == ("confirmed", 1)
    assert len(world.watches) == 1


def test_a_journal_that_refuses_a_record_has_not_begun_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = fresh(tmp_path)
    cutover = world.cutover()
    monkeypatch.setattr("glitchtip_core.transaction.journal.fsync_file", lambda *_: {}["x"])
    with pytest.raises(CutoverError, match="cannot write the journal") as caught:
        cutover.journal.append("apply_begin", attempt=1)
    assert caught.value.exit_code == 1
    assert (cutover.journal.acts, cutover.state().phase) == (0, "none")


# ------------------------------------------------------------------ the journal


def test_fields_that_are_missing_are_worked_out() -> None:
    state = fold([{"event": "apply_begin"}, {"event": "applied", "deadline": "later"}, {"event": "rollback_incomplete"}], KINDS)
    assert (state.attempt, state.stands, state.deadline) == (1, "glitchtip", None)
    assert state.problems == ("the journal does not say what the problem was",)


@pytest.mark.parametrize(
    ("event", "name"),
    [("rollback_begin", "target"), ("override_begin", "service"), ("override_removed", "service")],
)
def test_a_record_that_decides_and_is_incomplete_is_named(event: str, name: str) -> None:
    for value in ({}, {name: None}, {name: [1]}):
        with pytest.raises(CutoverError, match=rf"record 2 of the journal \({event}\) is incomplete: it has no {name}"):
            fold([{"event": "apply_begin", "attempt": 1}, {"event": event, **value}], KINDS)


# ------------------------------------------------------------------ trackers and probes


@pytest.mark.parametrize("method", ["event", "recent_events", "public_keys", "project_id"])
@pytest.mark.parametrize("body", [DEEP.encode(), b"[1" + b"0" * 9000, b"\xff", b'{"id": {}}', b'{"id": "1", "dateCreated": 1e999}'])
def test_an_answer_of_a_tracker_is_used_or_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str, body: bytes
) -> None:
    call = getattr(tracker(monkeypatch, tmp_path, JSON, body, status=200), method)
    usable = {"recent_events": [], "public_keys": set(), "project_id": "1"}
    if body[:1] == b"{" and not (method == "event" or (method == "project_id" and b'"1"' not in body)):
        assert call() == usable[method]
        return
    with pytest.raises(CutoverError, match="the API of the new tracker"):
        call(*["0" * 32][: method == "event"])


@pytest.mark.parametrize(
    "value",
    ["10000-01-01", "0001-01-01T00:00:00+14:00", 10**400, float("inf"), float("nan"), -1, 1e300, True, [], {}, "9" * 9999],
)
def test_a_time_that_no_clock_shows_is_no_event(value: object) -> None:
    assert parse_event({"eventID": "a" * 32, "dateCreated": value}) is None


def test_tags_of_any_kind_are_read() -> None:
    deep: Any = decode_json("[" * 900 + "]" * 900)
    tags = [["a", deep], {"key": deep, "value": 1}, {"key": "service", "value": "api"}, ["b", None], 7]
    event = parse_event({"eventID": "a" * 32, "dateCreated": 1, "tags": tags})
    assert event is not None
    assert event.tags == {"service": "api", "b": "None"}


@pytest.mark.parametrize("report", ["{", DEEP, "\x00"])
def test_a_report_of_a_probe_that_cannot_be_read_proves_nothing(report: str) -> None:
    with pytest.raises(CutoverError, match="the report of the probe cannot be read"):
        read_report(f"@@m@@{report}", "@@m@@", "api")


@pytest.mark.parametrize("error", [RecursionError(), OverflowError(), KeyError("x")])
def test_a_tracker_that_answers_nonsense_is_an_alarm_of_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    watched = Watched(tmp_path)
    whole = MemoryTracker.event

    def nonsense(of: MemoryTracker, event_id: str) -> Any:
        if of.side.name == "new":
            raise error
        return whole(of, event_id)

    monkeypatch.setattr(MemoryTracker, "event", nonsense)
    with pytest.raises(RolledBackError, match="3 test events in a row were not read back"):
        watched.watch().run()
    assert set(watched.world.uses().values()) == {OLD}


def test_a_container_of_any_kind_does_not_blind_the_watch(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.docker.table["glitchtip-web-1"] = {"Name": "/glitchtip-web-1", "RestartCount": "often", "State": 7, "HostConfig": []}
    with pytest.raises(RolledBackError, match="container glitchtip-web-1 of the new tracker is gone"):
        watched.watch().run()


@pytest.mark.parametrize("text", ["{", "[]", '{"attempt": 1}', '{"attempt": "1", "began": 1, "until": 2}', DEEP])
def test_a_damaged_mark_of_the_watch_is_reported_once(tmp_path: Path, text: str) -> None:
    watched = Watched(tmp_path)
    (watched.world.config.state_dir / "watch.json").write_text(text)
    with pytest.raises(IncompleteError, match="the watch after the switch cannot begin"):
        watched.watch().run()
    assert [event for event, _ in watched.world.told][-1] == "incomplete"
    assert watched.watch().run()["state"] == "not watching"
    assert set(watched.world.uses().values()) == {NEW}


# ------------------------------------------------------------------ one decoder


def test_json_of_others_is_decoded_in_one_place() -> None:
    """``json.loads`` raises RecursionError, which no caller expects."""
    sources = [path for package in ("core", "cutover") for path in (ROOT / "src" / f"glitchtip_{package}").rglob("*.py")]
    decoders = {"loads", "load", "raw_decode", "JSONDecoder"}
    found = {
        path.name
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in decoders
    }
    assert found == {"json_text.py"}


@pytest.mark.parametrize("text", [DEEP, b"\xff\xfe", "{", "", b"[1", None, 7])
def test_whatever_is_wrong_is_a_value_error(text: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_json(text)
