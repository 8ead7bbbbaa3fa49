"""Trouble is told once an hour, recovery once, nothing is told twice or lost; secrets stay out of it."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from unit.ops_support import World
from werkzeug import Response

from glitchtip_core.memory import Memory
from glitchtip_ops import monitor, pipeline
from glitchtip_ops.docker_stack import Stack
from glitchtip_ops.host_state import Disk, Pm2Process
from glitchtip_ops.monitor import (
    Check,
    Hooks,
    MonitorConfig,
    all_checks,
    canary,
    check_backup,
    check_containers,
    check_scheduler,
    decide,
    guarded,
    read_hooks,
    read_scheduler_marks,
    watch,
)
from glitchtip_ops.probe import Probe
from glitchtip_ops.process import OpsError

NOW = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)
BAD = Check("disk", False, "full")
GOOD = Check("disk", True, "fine")


class Inbox:
    """Hooks that remember what they were given, and can refuse."""

    configured = True
    fingerprint = "f1"

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.refuses = False

    def deliver(self, message: dict[str, Any]) -> None:
        if self.refuses:
            raise OpsError("the alert webhook answered 502")
        self.messages.append(message)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def look(inbox: Any, path: Path, check: Check, minutes: float, **options: Any) -> dict[str, Any]:
    now = NOW + timedelta(minutes=minutes)
    return watch([check], inbox, path, now=now, throttle=3600, host="host1", **options)


def test_trouble_is_told_once_an_hour_and_recovery_once(tmp_path: Path, inbox: Inbox) -> None:
    state = tmp_path / "monitor.json"
    seen = [
        look(inbox, state, check, minutes)["alerted"]
        for minutes, check in [(0, GOOD), (15, BAD), (30, BAD), (60, BAD), (75, BAD), (90, BAD)]
    ]
    assert seen == [[], ["disk"], [], [], ["disk"], []]
    assert look(inbox, state, GOOD, 105)["recovered"] == ["disk"]
    assert look(inbox, state, GOOD, 120)["recovered"] == []
    assert [bool(message["firing"]) for message in inbox.messages] == [True, True, False]
    assert inbox.messages[0]["text"] == "GlitchTip on host1\nTROUBLE disk: full"
    assert inbox.messages[-1]["text"] == "GlitchTip on host1\nRECOVERED disk: fine"


def test_what_a_hook_did_not_take_is_told_at_the_next_run(tmp_path: Path, inbox: Inbox) -> None:
    state = tmp_path / "monitor.json"
    inbox.refuses = True
    assert look(inbox, state, BAD, 0)["alert_error"] == "the alert webhook answered 502"
    inbox.refuses = False
    assert look(inbox, state, BAD, 15)["alerted"] == ["disk"]
    inbox.refuses = True
    look(inbox, state, GOOD, 30)
    inbox.refuses = False
    assert look(inbox, state, GOOD, 45)["recovered"] == ["disk"]
    assert len(inbox.messages) == 2


def test_trouble_that_nobody_heard_of_recovers_in_silence(tmp_path: Path, inbox: Inbox) -> None:
    state = tmp_path / "monitor.json"
    inbox.refuses = True
    look(inbox, state, BAD, 0)
    inbox.refuses = False
    assert look(inbox, state, GOOD, 15)["recovered"] == []


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    state = {"disk": {"since": NOW.isoformat(), "alerted_at": (NOW + timedelta(days=1)).isoformat()}}
    assert decide(state, [BAD], NOW, 3600).firing == (BAD,)


def test_since_is_the_first_time_of_the_trouble() -> None:
    first = decide({}, [BAD], NOW, 3600).told
    later = decide(first, [BAD], NOW + timedelta(hours=2), 3600).told
    assert later["disk"]["since"] == NOW.isoformat()


def test_a_dry_run_tells_nobody_and_keeps_nothing(tmp_path: Path, inbox: Inbox) -> None:
    state = tmp_path / "monitor.json"
    assert look(inbox, state, BAD, 0, dry_run=True)["ok"] is False
    assert inbox.messages == []
    assert not state.exists()


def test_without_hooks_trouble_is_only_recorded(tmp_path: Path) -> None:
    result = look(Hooks(None, ()), tmp_path / "monitor.json", BAD, 0)
    assert (result["ok"], result["alert_error"]) == (False, None)


# --- hooks ------------------------------------------------------------------------------------------------


def test_webhook_and_command_both_get_the_message(httpserver: HTTPServer, tmp_path: Path) -> None:
    bodies: list[Any] = []
    httpserver.expect_request("/hook", method="POST").respond_with_handler(
        lambda request: bodies.append(request.get_json()) or Response(status=204)
    )
    got = tmp_path / "got.json"
    command = (sys.executable, "-c", f"import sys; open({str(got)!r}, 'w').write(sys.stdin.read())")
    Hooks(httpserver.url_for("/hook?token=s3cret"), command).deliver({"text": "hello"})
    assert bodies == [{"text": "hello"}]
    assert json.loads(got.read_text()) == {"text": "hello"}


def test_a_hook_that_fails_is_said_without_its_address_and_the_other_is_still_tried(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    httpserver.expect_request("/s3cret").respond_with_data("no", status=500)
    got = tmp_path / "got"
    command = (sys.executable, "-c", f"open({str(got)!r}, 'w').close()")
    with pytest.raises(OpsError, match="the alert webhook answered 500") as caught:
        Hooks(httpserver.url_for("/s3cret"), command).deliver({})
    assert got.exists()
    with pytest.raises(OpsError, match="cannot be reached") as unreachable:
        Hooks("http://127.0.0.1:9/s3cret", ()).deliver({})
    with pytest.raises(OpsError, match="exit code 4"):
        Hooks(None, (sys.executable, "-c", "raise SystemExit(4)")).deliver({})
    assert "s3cret" not in f"{caught.value}{unreachable.value}{Hooks('http://x/s3cret', ())!r}"


def test_the_canary_is_sent_once_for_each_set_of_hooks(tmp_path: Path, inbox: Inbox) -> None:
    proof = tmp_path / "canary.json"

    def send(**options: Any) -> dict[str, Any]:
        return canary(inbox, proof, now=NOW, host="h", **options)  # type: ignore[arg-type]

    assert send(dry_run=True)["changed"]
    assert inbox.messages == []
    assert [send()["changed"], send()["changed"]] == [True, False]
    inbox.fingerprint = "f2"
    assert send()["changed"]
    assert send(force=True)["changed"]
    assert [message["canary"] for message in inbox.messages] == [True, True, True]
    inbox.refuses = True
    inbox.fingerprint = "f3"
    with pytest.raises(OpsError):
        send()
    inbox.refuses = False
    assert send()["changed"]


def test_no_hook_at_all_is_said(tmp_path: Path) -> None:
    result = canary(Hooks(None, ()), tmp_path / "canary.json", now=NOW, host="h")
    assert (result["configured"], result["changed"]) == (False, False)


def test_the_webhooks_address_comes_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    assert not read_hooks(MonitorConfig(), path).configured
    path.write_text("https://hooks.example.org/x\n")
    hooks = read_hooks(MonitorConfig(), path)
    assert hooks.webhook_url == "https://hooks.example.org/x"
    assert hooks.fingerprint != Hooks("https://hooks.example.org/y", ()).fingerprint


# --- checks -----------------------------------------------------------------------------------------------


def test_a_check_that_cannot_be_made_is_trouble_not_a_crash() -> None:
    def broken() -> Check:
        raise OpsError("docker does not answer")

    assert guarded("containers", broken) == Check("containers", False, "docker does not answer")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.with_fake_postgres({})
    world.without_processes(monkeypatch)
    return world


def test_containers_that_are_absent_or_ill_are_named(world: World) -> None:
    assert check_containers(Stack(), ("web", "worker", "postgres", "valkey")).ok
    world.state["containers"][0]["State"] = {"Status": "exited", "OOMKilled": True, "ExitCode": 137}
    world.state["containers"].pop(1)
    world.save()
    check = check_containers(Stack(), ("web", "worker", "postgres"))
    assert not check.ok
    assert check.detail == "web is exited/no check, killed for lack of memory; worker is absent"


@pytest.mark.parametrize(
    ("hours", "verified", "ok", "detail"),
    [
        (25.9, True, True, "is 25.9 h old"),
        (26.1, True, False, "is 26.1 h old"),
        (1.0, False, False, "there is no verified backup"),
        (-2.0, True, False, "lies in the future"),
    ],
)
def test_the_newest_verified_backup_must_be_young(
    tmp_path: Path, hours: float, verified: bool, ok: bool, detail: str
) -> None:
    taken = NOW - timedelta(hours=round(hours))
    name = f"glitchtip-{taken:%Y%m%d-%H%M}"
    (tmp_path / f"{name}.dump").write_text("x")
    if verified:
        (tmp_path / f"{name}.verified.json").write_text('{"verified_at": "2026-01-10T00:00:00+00:00"}')
    check = check_backup(tmp_path, taken + timedelta(hours=hours), MonitorConfig())
    assert check.ok is ok
    assert detail in check.detail


def test_the_scheduler_is_watched_in_valkey_in_the_database_or_not_at_all(world: World) -> None:
    stamp = str((NOW - timedelta(seconds=100)).timestamp())
    with_valkey, without = ("postgres", "valkey", "web"), ("postgres", "web")
    assert read_scheduler_marks(Stack(), with_valkey) == {}
    assert read_scheduler_marks(Stack(), without) == {}
    world.state["valkey"] = {"{vt}:scheduler:vtasks_last_run:send-alert-notifications": stamp}
    world.save()
    world.set_cluster({"glitchtip": {}}, vtasks={"vtasks_last_run:uptime-dispatch-checks": stamp})
    for services in (with_valkey, without):
        marks = read_scheduler_marks(Stack(), services)
        assert check_scheduler(marks, NOW, 300) == Check("scheduler", True, "the scheduler ran 100 s ago")
        stopped = check_scheduler(marks, NOW + timedelta(hours=1), 300)
        assert not stopped.ok
        assert "for 3700 s: no alerts, no uptime checks" in stopped.detail
    assert check_scheduler({}, NOW, 300).ok
    assert "not checked" in check_scheduler({"vtasks_last_run:x": "odd"}, NOW, 300).detail


def test_the_daily_task_may_be_old_and_each_of_the_others_must_be_young() -> None:
    prefix, fresh, old = "{vt}:scheduler:vtasks_last_run:", str(NOW.timestamp()), str(NOW.timestamp() - 400)
    well = {f"{prefix}perform-maintenance": "5", f"{prefix}uptime-dispatch-checks": fresh, "other": "9e99"}
    assert check_scheduler(well, NOW, 300).ok
    one_late = {**well, f"{prefix}send-alert-notifications": old}
    check = check_scheduler(one_late, NOW, 300)
    assert not check.ok
    assert "send-alert-notifications for 400 s" in check.detail


def test_marks_of_the_scheduler_in_the_future_are_trouble() -> None:
    """The clock was set back: a scheduler that died before that would look fresh for as long as the jump was."""
    mark = {"vtasks_last_run:send-alert-notifications": str((NOW + timedelta(hours=1)).timestamp())}
    check = check_scheduler(mark, NOW, 300)
    assert not check.ok
    assert "lies 3600 s in the future: the clock was set back" in check.detail
    assert check_scheduler(mark, NOW + timedelta(hours=1) - timedelta(seconds=30), 300).ok


def test_a_new_server_without_any_mark_is_trouble() -> None:
    assert not check_scheduler({}, NOW, 300, is_6=True).ok
    assert not check_scheduler({"vtasks_last_run:x": "odd"}, NOW, 300, is_6=True).ok


def all_good(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    client = SimpleNamespace(version=lambda: changes.get("version", "5.2.0"))

    class FakeClient:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __enter__(self) -> Any:
            return client

        def __exit__(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(monitor, "Client", FakeClient)
    monkeypatch.setattr(pipeline, "Client", FakeClient)
    probe = changes.get("probe", Probe("e" * 32, True, 1.2, None))
    monkeypatch.setattr(monitor, "send_probe", lambda *_, **__: probe)
    monkeypatch.setattr(monitor, "read_memory", lambda: changes.get("memory", Memory(1000, 500, "meminfo")))
    monkeypatch.setattr(monitor, "read_disk", lambda path: changes.get("disk", Disk(str(path), 100, 50)))
    processes = changes.get("pm2", [Pm2Process("api", "online", 4, 0, False)])
    monkeypatch.setattr(monitor, "read_pm2", lambda *_: processes)


def verified_backup(world: World) -> None:
    world.backups.mkdir()
    (world.backups / "glitchtip-20260110-0300.dump").write_text("x")
    (world.backups / "glitchtip-20260110-0300.verified.json").write_text('{"verified_at": "x"}')


@pytest.mark.parametrize(
    ("changes", "troubled", "detail"),
    [
        ({}, [], ""),
        (
            {"probe": Probe("e", False, 30.0, "not stored after 30 s")},
            ["ingest"],
            "not read back: not stored",
        ),
        ({"memory": Memory(1000, 900, "cgroup")}, ["memory"], "memory is at 90.0 %"),
        ({"disk": Disk("/var", 100, 15)}, ["disk"], "/var is 85.0 % full"),
        ({"pm2": [Pm2Process("api", "errored", 0, 9, False)]}, ["pm2"], "api is errored"),
        ({"pm2": []}, ["pm2"], "api is absent"),
    ],
)
def test_each_fault_turns_its_own_check_and_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], troubled: list[str], detail: str
) -> None:
    all_good(monkeypatch, **changes)
    verified_backup(world)
    checks = all_checks(world.settings, MonitorConfig(pm2_services=("api",)), lambda: NOW)
    assert {check.name for check in checks} == {
        *("api", "ingest", "containers", "memory", "disk", "backup", "scheduler", "pm2"),
        *("oom", "queue", "unacked", "dead_letters"),
    }
    assert [check.name for check in checks if not check.ok] == troubled
    assert detail in " ".join(check.detail for check in checks if not check.ok)


DRIFT = {"compared": True, "target": "glitchtip", "target_hosts": "127.0.0.1:8080", "files": 4, "processes": 9}
SENTENCE = "/opt/app/.env:3 SENTRY_DSN names o1.sentry.example.org, not 127.0.0.1:8080"


@pytest.mark.parametrize(
    ("document", "code", "ok", "detail"),
    [
        (DRIFT, 0, True, "4 settings files and 9 processes agree with glitchtip (127.0.0.1:8080)"),
        ({**DRIFT, "problems": [SENTENCE]}, 1, False, SENTENCE),
        ({**DRIFT, "problems": list("abcde")}, 1, False, "a; b; c; and 2 more"),
        ({"compared": False, "notes": ["no switch was made yet"]}, 0, True, "no switch was made yet"),
        ({"failed": True, "reason": "no configuration file"}, 1, False, "drift failed: no configuration file"),
        ({**DRIFT, "problems": ["https://secretkey@o1.example.org/7"]}, 1, False, "o1.example.org"),
        ("no JSON", 0, False, "failed with exit code 0"),
        (DRIFT, 2, False, "failed with exit code 2"),
    ],
)
def test_services_that_are_back_on_the_old_tracker_are_trouble(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, document: Any, code: int, ok: bool, detail: str
) -> None:
    all_good(monkeypatch)
    verified_backup(world)
    program = tmp_path / "cutover"
    (tmp_path / "answer").write_text(json.dumps(document) if isinstance(document, dict) else document)
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/answer\nexit {code}\n")
    program.chmod(0o755)
    checks = all_checks(world.settings, MonitorConfig(cutover_command=(str(program), "drift", "--json")), lambda: NOW)
    check = next(check for check in checks if check.name == "drift")
    assert check.ok is ok
    assert detail in check.detail
    assert "secretkey" not in check.detail
    assert [check.name for check in checks if not check.ok] == ([] if ok else ["drift"])


def test_a_cutover_program_that_is_gone_is_trouble(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    all_good(monkeypatch)
    verified_backup(world)
    checks = all_checks(world.settings, MonitorConfig(cutover_command=("/nonexistent/program",)), lambda: NOW)
    assert [check.name for check in checks if not check.ok] == ["drift"]


def test_a_server_without_the_stack_checks_the_product_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GlitchTip runs elsewhere: no engine, no backup and no queue is there to be asked."""
    all_good(monkeypatch)
    world.state["down"] = True
    world.save()
    program = tmp_path / "cutover"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/answer\nexit 1\n")
    program.chmod(0o755)
    (tmp_path / "answer").write_text(json.dumps({**DRIFT, "problems": [SENTENCE]}))
    config = MonitorConfig(stack=False, pm2_services=("api",), cutover_command=(str(program), "drift", "--json"))
    found = {check.name: check.ok for check in all_checks(world.settings, config, lambda: NOW)}
    assert found == {"pm2": True, "drift": False}
    assert all_checks(world.settings, config, lambda: NOW, quick=True) == []
    with_stack = dataclasses.replace(config, stack=True)
    assert {"containers", "queue", "backup"} <= {check.name for check in all_checks(world.settings, with_stack, lambda: NOW)}


def test_a_server_on_which_nothing_would_be_checked_is_an_error(world: World) -> None:
    with pytest.raises(OpsError, match="there is nothing to check"):
        all_checks(world.settings, MonitorConfig(stack=False), lambda: NOW)


def test_an_engine_that_is_down_is_trouble_in_one_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_good(monkeypatch)
    verified_backup(world)
    world.state["down"] = True
    world.save()
    checks = all_checks(world.settings, MonitorConfig(), lambda: NOW)
    assert [check.name for check in checks if not check.ok] == ["oom", "queue", "containers", "scheduler"]


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "monitor.json"
    path.write_text('{"max_memory": 5}')
    with pytest.raises(OpsError, match="unknown keys: max_memory"):
        MonitorConfig.read(path)


@pytest.mark.parametrize(("code", "ok"), [(0, True), (1, False), (None, None)])
def test_rules_for_ports_on_127_0_0_1_that_are_gone_are_reported(
    world: World, tmp_path: Path, code: int | None, ok: bool | None
) -> None:
    """None: the program is not installed, as with Docker 28."""
    program = tmp_path / "docker-loopback"
    if code is not None:
        program.write_text(f'#!/bin/sh\n[ "$1" = check ] || exit 9\necho "iptables has no rule: raw" >&2\nexit {code}\n')
        program.chmod(0o755)
    checks = all_checks(world.settings, MonitorConfig(loopback_command=(str(program), "check")), lambda: NOW)
    found = {check.name: check for check in checks}
    assert (found["loopback"].ok if "loopback" in found else None) is ok
    if ok is False:
        assert "iptables has no rule: raw" in found["loopback"].detail
