"""The walk of `make operator` fails on each of its findings: its steps with a server that only pretends."""

from __future__ import annotations

import importlib.util
import json
import threading
import urllib.request
from http.server import ThreadingHTTPServer

import pytest
from rig import images, operator, running, walk
from rig.shell import RigError
from rig.trackers import Tracker

OLD = "http://aaaaaaaaaaaaaaaa@sentry.example.org:9000/1"
NEW = "http://bbbbbbbbbbbbbbbb@127.0.0.1:8090/1"


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(operator, "STATE", tmp_path / "state.json")
    sentry = Tracker("http://192.0.2.1", "a@example.org", "password", "token", "company", "shop", "7")
    return operator.Walk(sentry, OLD, "sudo-password", known_secrets={"sudo password": "sudo-password"})


def pretend(monkeypatch, dsn: str, proof: str = "probe", missing: str = "", stray: str = "") -> None:
    """A server on which every service has ``dsn`` and is recorded with ``proof``."""
    found = [
        running.Instance(name, (running.Client.of_dsn(OLD if name == stray else dsn),))
        for name in operator.SERVICES
    ]
    rows = [{"name": name, "proof": proof} for name in operator.SERVICES if name != missing]
    monkeypatch.setattr(operator, "ask_services", lambda: found)
    monkeypatch.setattr(
        operator.world, "inside", lambda *_args, **_named: json.dumps({"data": {"services": rows}})
    )


def test_services_that_are_where_the_record_says_are_no_problem(state, monkeypatch, capsys):
    pretend(monkeypatch, NEW)
    operator.see_services(state, "phase 4", NEW, "applied.json")
    assert state.problems == []
    operator.report(state, "")
    assert "Every running SDK client" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("world", "named"),
    [
        ({"stray": "shop-web"}, "shop-web is recorded as proven (probe) and really reports to sentry"),
        ({"proof": "unproven"}, "shop-mailer is not proven"),
        ({"missing": "shop-nightly"}, "shop-nightly is not in applied.json"),
    ],
    ids=["false proof", "unproven", "not recorded"],
)
def test_a_record_that_is_not_so_fails_the_walk(state, monkeypatch, world, named):
    pretend(monkeypatch, NEW, **world)
    operator.see_services(state, "phase 4", NEW, "applied.json")
    assert any(named in problem for problem in state.problems)
    with pytest.raises(RigError, match="things were wrong"):
        operator.report(state, "")


def test_the_walk_stops_when_its_own_check_notices_nothing(state, monkeypatch):
    pretend(monkeypatch, OLD)
    monkeypatch.setattr(operator.running, "false_proofs", lambda *_: [])
    with pytest.raises(RigError, match="notices 0 of 6"):
        operator.before(state)


def attempted(output: str, code: int = 0, seconds: float = 100.0):
    return lambda name, **_: walk.Run(name, code, seconds, 5, (), output)


def test_a_playbook_that_shows_a_secret_or_fails_is_noticed(state, monkeypatch):
    monkeypatch.setattr(walk, "attempt", attempted("ok: sudo-password\n"))
    operator.play(state, "phase0_prepare")
    assert state.problems == ["phase0_prepare: the output shows a secret: sudo password"]
    monkeypatch.setattr(walk, "attempt", attempted("", code=2))
    with pytest.raises(RigError, match=r"playbooks/phase1_local_test ended with exit code 2"):
        operator.play(state, "phase1_local_test")


@pytest.mark.parametrize(("seconds", "problems"), [(operator.SOAK + 1.0, 0), (5.0, 1)])
def test_a_verdict_that_was_not_sampled_anew_is_noticed(state, monkeypatch, seconds, problems):
    pretend(monkeypatch, NEW)
    monkeypatch.setattr(operator, "new_dsn", lambda: NEW)
    monkeypatch.setattr(operator, "see_decoy", lambda *_: None)
    monkeypatch.setattr(walk, "attempt", attempted("", seconds=seconds))
    operator.forward(state, "third walk", ["phase2_deploy", "phase3_parallel_run"], sampled=True)
    assert len(state.problems) == problems
    assert state.known_secrets["key of the new DSN"] == "b" * 16


def test_what_the_other_product_was_asked_is_a_problem_once(state, monkeypatch):
    line = "GET /api/0/ HTTP/1.1 (with credentials)"
    monkeypatch.setattr(operator.world, "inside", lambda *_args, **_named: f"{line}\n{line}\n")
    operator.see_decoy(state, "export")
    assert state.problems == [f"export: the other product on port 8080 was asked: {line} (2 times)"]


def test_the_state_survives_for_a_later_step(state):
    state.note("phase 4", ["shop-web is not proven"])
    state.save()
    assert operator.Walk.load() == state
    assert operator.STATE.stat().st_mode & 0o777 == 0o600


def test_the_decoy_keeps_that_a_credential_came_and_not_which(tmp_path, monkeypatch):
    path = images.HERE / "operator/decoy.py"
    spec = importlib.util.spec_from_file_location("decoy", path)
    decoy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(decoy)
    monkeypatch.setattr(decoy, "LOG", str(tmp_path / "decoy.log"))
    with ThreadingHTTPServer(("127.0.0.1", 0), decoy.Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/api/0/"
        request = urllib.request.Request(address, headers={"Authorization": "Bearer very-secret"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        urllib.request.urlopen(address, data=b"{}", timeout=10).close()
        server.shutdown()
    lines = (tmp_path / "decoy.log").read_text().splitlines()
    assert lines == [
        "GET /api/0/ HTTP/1.1 (with credentials)",
        "POST /api/0/ HTTP/1.1 (without credentials)",
    ]
