"""The commands as operators call them: one JSON document, an exit code, one sentence for a failure."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from unit.ops_support import World
from werkzeug import Response

from glitchtip_core.files import lock
from glitchtip_ops import monitor
from glitchtip_ops.cli import main
from glitchtip_ops.monitor import Check
from glitchtip_ops.probe import send_probe


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.with_fake_postgres({"public.issue": 4})
    world.without_processes(monkeypatch)
    config = tmp_path / "etc"
    config.mkdir()
    values = {
        name: str(value) for name, value in vars(world.settings).items() if name not in ("token", "dsn")
    }
    (config / "settings.json").write_text(json.dumps(values))
    (config / "token").write_text("t" * 64)
    (config / "dsn").write_text(world.settings.dsn)
    (config / "monitor.json").write_text(json.dumps({"log_file": str(tmp_path / "monitor.log")}))
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(config))
    return world


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    code = main(["--json", *argv])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("world")
def test_backup_ensure_run_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, first = call(capsys, "backup", "ensure")
    assert (code, first["changed"], first["tables"], first["rows"]) == (0, True, 1, 4)
    assert call(capsys, "backup", "ensure") == (0, {**first, "changed": False})
    code, run = call(capsys, "backup", "run")
    assert (code, run["removed"]) == (0, [])
    code, listed = call(capsys, "backup", "list")
    assert [entry["name"] for entry in listed["backups"]] == [first["backup"], run["backup"]]
    assert main(["backup", "list"]) == 0
    assert first["backup"] in capsys.readouterr().out
    assert main(["backup", "verify", first["backup"] + ".dump"]) == 0
    assert "restored and compared: 1 tables, 4 rows" in capsys.readouterr().out


def test_a_backup_that_is_not_there_is_one_sentence(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "verify", "glitchtip-20000101-0000"]) == 1
    assert capsys.readouterr().err == (
        f"glitchtip-ops: there is no backup glitchtip-20000101-0000 in {world.backups}\n"
    )


@pytest.mark.usefixtures("world")
def test_soak_start_status_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    order = ("soak", "start", "--duration", "60s", "--interval", "10s")
    assert call(capsys, "soak", "status")[1]["state"] == "absent"
    assert main(["soak", "verdict"]) == 1
    assert "no soak was ordered" in capsys.readouterr().err
    assert call(capsys, *order, "--dry-run")[1]["changed"]
    assert [call(capsys, *order)[1]["changed"], call(capsys, *order)[1]["changed"]] == [True, False]
    code, verdict = call(capsys, "soak", "verdict")
    assert (code, verdict["verdict"]) == (3, "NO_GO")
    assert main(["soak", "start", "--duration", "soon"]) == 1
    assert "not a duration" in capsys.readouterr().err


def test_monitor_check_logs_alerts_and_ends_with_3_in_trouble(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok")
    (world.root / "etc" / "alert_webhook_url").write_text(httpserver.url_for("/hook"))
    checks = [Check("disk", False, "full")]
    monkeypatch.setattr(monitor, "all_checks", lambda *_, **__: checks)
    assert call(capsys, "monitor", "check", "--dry-run")[0] == 3
    assert not (world.root / "monitor.log").exists()
    assert call(capsys, "monitor", "check")[0] == 3
    checks[:] = [Check("disk", True, "fine")]
    assert main(["monitor", "check"]) == 0
    assert capsys.readouterr().out == "ok      disk: fine\n"
    texts = [request.get_json()["text"].splitlines()[1] for request, _ in httpserver.log]
    assert texts == ["TROUBLE disk: full", "RECOVERED disk: fine"]
    logged = [json.loads(line) for line in (world.root / "monitor.log").read_text().splitlines()]
    assert [entry["ok"] for entry in logged] == [False, True]
    assert call(capsys, "monitor", "canary")[1]["changed"]
    assert not call(capsys, "monitor", "canary")[1]["changed"]


@pytest.mark.usefixtures("world")
def test_two_checks_at_once_wait_for_each_other_and_a_quick_one_gives_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(monitor, "all_checks", lambda *_, **options: asked.append(options) or [Check("x", True, "")])
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            held.close()

    monkeypatch.setattr(monitor._take_turn, "__kwdefaults__", {"sleep": wait})
    state_dir = Path(monitor.load_settings().state_dir)
    with ExitStack() as held:
        held.enter_context(lock(state_dir / ".monitor.lock", "another"))
        assert call(capsys, "monitor", "check", "--quick")[1]["checks"] == []
        assert (asked, waited) == ([], [])
        assert call(capsys, "monitor", "check")[0] == 0
    assert len(waited) == 3
    assert asked == [{"quick": False, "act": True}]


def test_a_hook_that_refuses_ends_with_1(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.root / "etc" / "alert_webhook_url").write_text("http://127.0.0.1:9/s3cret")
    monkeypatch.setattr(monitor, "all_checks", lambda *_, **__: [Check("disk", False, "full")])
    assert main(["monitor", "check"]) == 1
    assert main(["monitor", "canary"]) == 1
    both = capsys.readouterr()
    assert "the alert webhook cannot be reached" in both.out
    assert "s3cret" not in both.out + both.err


def test_a_tracker_in_trouble_makes_a_probe_that_says_so(world: World, httpserver: HTTPServer) -> None:
    settings = world.settings
    settings.url = httpserver.url_for("")
    settings.dsn = f"http://{'d' * 32}@{httpserver.host}:{httpserver.port}/1"
    httpserver.expect_request("/api/1/envelope/").respond_with_json({"detail": "Denied"}, status=403)
    probe = send_probe(settings, "monitor", timeout=1)
    assert not probe.captured
    assert "DSN is refused" in str(probe.error)
    assert "d" * 32 not in str(probe.error)


def test_a_probe_is_captured_when_its_event_is_read_back(world: World, httpserver: HTTPServer) -> None:
    settings = world.settings
    settings.url = httpserver.url_for("")
    settings.dsn = f"http://{'d' * 32}@{httpserver.host}:{httpserver.port}/1"
    sent: list[dict[str, Any]] = []

    def take(request: Any) -> Any:
        sent.append(json.loads(request.get_data().split(b"\n")[2]))
        return Response('{"id": "x"}', content_type="application/json")

    def show(_: Any) -> Any:
        body = json.dumps({"eventID": sent[0]["event_id"], "id": sent[0]["event_id"]})
        return Response(body, content_type="application/json")

    httpserver.expect_request("/api/1/envelope/").respond_with_handler(take)
    httpserver.expect_request(re.compile("/api/0/projects/ai-admin/ai-admin/events/.*")).respond_with_handler(
        show
    )
    probe = send_probe(settings, "monitor", timeout=5)
    assert probe.captured, probe.error
    assert sent[0]["event_id"] == probe.event_id
    assert sent[0]["fingerprint"] == ["glitchtip-ops", "probe", "monitor"]
