"""Every point of the checklist is done only by its evidence: take it away and the point is open."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from unit.ops.test_core import write_settings
from unit.ops_parity.support import START, event
from unit.ops_parity.test_sides import TOKEN, write_sentry
from werkzeug import Request, Response

from glitchtip_core.switch import KINDS
from glitchtip_core.transaction.state import fold
from glitchtip_ops import sentry_checklist
from glitchtip_ops.parity.window import iso
from glitchtip_ops.process import OpsError
from glitchtip_ops.sentry_checklist import (
    CONFIRMED_BY_PEOPLE,
    evidence_points,
    soak_point,
)
from glitchtip_ops.settings import load_settings
from glitchtip_ops.switch import told

DAY = 86400
NOW = float(START + 30 * DAY)
CUTOVER = START + 10 * DAY
JOURNAL = [
    {"seq": 1, "at": CUTOVER - 60, "event": "apply_begin", "attempt": 1, "target": "glitchtip"},
    {"seq": 2, "at": CUTOVER - 30, "event": "applied"},
    {"seq": 3, "at": float(CUTOVER), "event": "confirmed"},
]


class Sentry:
    """What Sentry answers: last events of its projects, names of rules. Paths that are not set are unknown."""

    def __init__(self, server: HTTPServer) -> None:
        self.last: dict[str, list[dict[str, Any]]] = {"shop": [self.at(CUTOVER - 3600)], "front": []}
        self.rules: Any = []
        self.status = 200
        server.expect_request("/api/0/projects/acme/shop/").respond_with_handler(
            lambda _: self.json({"id": "1"})
        )
        for slug in self.last:
            path = f"/api/0/projects/acme/{slug}/events/"
            server.expect_request(path).respond_with_handler(lambda _, slug=slug: self.json(self.last[slug]))
        projects = "/api/0/organizations/acme/projects/"
        server.expect_request(projects).respond_with_handler(
            lambda _: self.json([{"slug": s} for s in self.last])
        )
        for path in (
            "projects/acme/shop/rules/",
            "organizations/acme/alert-rules/",
            "organizations/acme/monitors/",
            "organizations/acme/integrations/",
        ):
            server.expect_request(f"/api/0/{path}").respond_with_handler(self.list)
        server.expect_request("/api/0/projects/acme/shop/keys/").respond_with_handler(
            lambda _: self.json([{}, {}])
        )

    @staticmethod
    def at(second: int, **changes: Any) -> dict[str, Any]:
        return event(second, dateCreated=iso(second), **changes)

    def json(self, data: Any) -> Response:
        return Response(json.dumps(data), self.status, content_type="application/json")

    def list(self, request: Request) -> Response:
        if self.rules is None:
            return Response("<html>", 200, content_type="text/html")
        return self.json(self.rules if request.path.endswith("/rules/") else [])


class Host:
    """A host on which everything is done, and ways to take one thing away."""

    def __init__(self, directory: Path, sentry: Sentry) -> None:
        self.directory, self.sentry = directory, sentry
        self.state = directory / "state"
        self.evidence, self.cutover = directory / "evidence", directory / "cutover"
        for path in (self.state / "m1", self.evidence, self.cutover, directory / "backups"):
            path.mkdir(parents=True)
        for number in range(6):
            data = {
                "phase": f"phase{number}",
                "recorded_at": "2023-11-20T00:00:00Z",
                "data": {"proof": "seen"},
            }
            self.write(self.evidence / f"phase{number}.json", data)
        self.write(self.state / "m1" / "verdict.json", {"verdict": "GO", "judged_at": "2023-11-22T00:00:00Z"})
        self.parity()
        self.journal(JOURNAL)
        self.backup(NOW - 3600)
        self.write(self.state / "alert-canary.json", {"hooks": "x", "proven_at": "2023-11-25T00:00:00Z"})
        self.write(self.state / "monitor.json", {"checks": {}})
        self.write(directory / "monitor.json", {"cutover_command": ["/bin/cat", str(directory / "drift.json")]})
        self.drift()
        said = {"by": "Anna", "note": "", "at": iso(NOW)}
        other(self, "sentry-decisions.json", dict.fromkeys(("data", "members", "decision"), said))

    @staticmethod
    def write(path: Path, data: Any) -> None:
        path.write_text(json.dumps(data))

    def parity(self, ratio: Any = 0.9987) -> None:
        window = {"since": "2023-11-22T00:00:00Z", "until": "2023-11-23T00:00:00Z"}
        report = {"verdict": "different", "ratio": ratio, "window": window, "sentry": {"events": 750}}
        self.write(
            self.state / "m1" / "parity.json",
            {**report, "matched_by": "event_ids", "compared_at": "2023-11-23T00:01:00Z"},
        )

    def drift(self, **changes: Any) -> None:
        document = {"compared": True, "target": "glitchtip", "target_hosts": "127.0.0.1:8080", "files": 3, "problems": []}
        self.write(self.directory / "drift.json", {**document, **changes})

    def journal(self, records: list[dict[str, Any]], tail: str = "") -> None:
        text = "".join(json.dumps(record) + "\n" for record in records)
        (self.cutover / "journal.jsonl").write_text(text + tail)

    def backup(self, at: float | None) -> None:
        base = self.directory / "backups" / "glitchtip-20231214-0300"
        base.with_suffix(".dump").write_bytes(b"x")
        proof = base.with_name(base.name + ".verified.json")
        if at is None:
            proof.unlink()
        else:
            self.write(proof, {"verified_at": iso(at)})

    def run(self, *arguments: str) -> Any:
        parser = argparse.ArgumentParser()
        sentry_checklist.register(parser.add_subparsers())
        places = ["--evidence-dir", str(self.evidence), "--cutover-dir", str(self.cutover)]
        options = parser.parse_args(["sentry-checklist", *places, *arguments])
        return options.handler(options)

    def point(self, name: str, *arguments: str) -> dict[str, Any]:
        return next(point for point in self.run(*arguments).document["points"] if point["id"] == name)


@pytest.fixture
def host(tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Host:
    """All is done."""
    url = httpserver.url_for("").rstrip("/")
    paths = {"state_dir": str(tmp_path / "state"), "backup_dir": str(tmp_path / "backups")}
    write_settings(tmp_path, **paths)
    write_sentry(tmp_path, url=url, plan_ends="2023-12-31", cost_per_year=348)
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(sentry_checklist, "now", lambda: NOW)
    monkeypatch.setattr("glitchtip_api.transport.BACKOFF_SECONDS", 0.001)
    for pace in ("REQUESTS_A_MINUTE", "REQUESTS_A_SECOND"):
        monkeypatch.setattr(f"glitchtip_ops.parity.sides.{pace}", None)
    return Host(tmp_path, Sentry(httpserver))


SENTENCE = "/opt/app/ecosystem.config.js:3 env.SENTRY_DSN names o1.sentry.example.org: `pm2 reload` would move api back"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"problems": [SENTENCE]}, "1 names another tracker"),
        ({"problems": [SENTENCE, "b"]}, "2 name another tracker"),
        ({"target": "before"}, "agree with before"),
        ({"target": "mirror"}, "agree with mirror"),
        ({"compared": False, "notes": ["no switch was made yet"]}, "no switch was made yet"),
        ({"failed": True, "reason": "the journal is damaged"}, "not compared: "),
    ],
)
def test_a_file_or_process_that_names_sentry_keeps_the_list_open(host: Host, changes: dict[str, Any], told: str) -> None:
    host.drift(**changes)
    point = host.point("drift")
    assert point["done"] is False
    assert told in point["value"]
    assert list(point["details"]) == changes.get("problems", [])


def test_a_host_whose_cutover_program_cannot_be_asked_is_not_ready(host: Host) -> None:
    (host.directory / "drift.json").unlink()
    assert "drift failed with exit code 1" in host.point("drift")["value"]


def test_with_all_evidence_it_is_ready(host: Host) -> None:
    """The positive control, with value, source and time at each point."""
    outcome = host.run()
    assert (outcome.code, outcome.document["open"], outcome.lines[-1]) == (0, [], "ready"), outcome.lines
    required = [point for point in outcome.document["points"] if point["kind"] == "required"]
    assert len(required) == 19
    assert all(point["value"] and point["source"] and point["at"] for point in required), required
    assert "$" not in outcome.lines[-2]
    assert any("348 dollars a year" in line for line in outcome.lines)


def other(host: Host, name: str, data: Any) -> None:
    host.write(host.state / "m1" / name, data)


#: What is taken away, and the one point that must open.
GONE: list[tuple[str, Callable[[Host], Any]]] = [
    *((f"phase{n}", lambda h, n=n: (h.evidence / f"phase{n}.json").unlink()) for n in range(6)),
    ("phase3", lambda h: (h.evidence / "phase3.json").write_text("{")),
    ("phase3", lambda h: h.write(h.evidence / "phase3.json", {"phase": "phase3"})),
    ("soak", lambda h: (h.state / "m1" / "verdict.json").unlink()),
    ("soak", lambda h: other(h, "verdict.json", {"verdict": "NO_GO"})),
    ("parity", lambda h: (h.state / "m1" / "parity.json").unlink()),
    ("parity", lambda h: h.parity(0.98)),
    ("parity", lambda h: h.parity(None)),
    ("quiet", lambda h: h.sentry.last.update(shop=[h.sentry.at(int(NOW) - 3 * DAY)])),
    ("projects", lambda h: h.sentry.last.update(front=[h.sentry.at(int(NOW) - DAY)])),
    ("integrations", lambda h: setattr(h.sentry, "rules", [{"name": "page on-call"}])),
    ("integrations", lambda h: setattr(h.sentry, "rules", None)),
    ("backups", lambda h: h.backup(None)),
    ("backups", lambda h: h.backup(NOW - 3 * DAY)),
    ("alerts", lambda h: (h.state / "alert-canary.json").unlink()),
    ("alerts", lambda h: h.write(h.state / "monitor.json", {"checks": {"ingest": {"since": "x"}}})),
    ("rollback", lambda h: write_sentry(h.directory, **sentry_settings(h), plan_ends="")),
    ("rollback", lambda h: write_sentry(h.directory, **sentry_settings(h), plan_ends="2023-01-01")),
    ("rollback", lambda h: write_sentry(h.directory, **sentry_settings(h), plan_ends="some day")),
    *((name, lambda h, name=name: h.run("--withdraw", name)) for name in ("data", "members", "decision")),
]


def sentry_settings(host: Host) -> dict[str, Any]:
    return {"url": json.loads((host.directory / "sentry.json").read_text())["url"]}


@pytest.mark.parametrize(
    ("name", "take"), GONE, ids=[f"{number} {name}" for number, (name, _) in enumerate(GONE)]
)
def test_without_its_evidence_a_point_is_open(host: Host, name: str, take: Callable[[Host], Any]) -> None:
    """The negative control of each point: that one opens, and no other."""
    take(host)
    outcome = host.run()
    assert (outcome.code, outcome.document["open"]) == (3, [name]), outcome.lines
    assert outcome.lines[-1] == "not ready: 1 point open"
    assert host.point(name)["value"]


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "never applied"),
        (JOURNAL[:1], "not finished"),
        (JOURNAL[:2], "not confirmed"),
        ([{**JOURNAL[0], "target": "mirror"}, *JOURNAL[1:]], "mirror confirmed"),
        ([*JOURNAL, {"at": CUTOVER + 5, "event": "rollback_begin", "target": "before"}], "rollback"),
        (
            [
                *JOURNAL,
                {"at": 1, "event": "rollback_begin", "target": "before"},
                {"at": 2, "event": "rolled_back"},
            ],
            "rolled back",
        ),
    ],
)
def test_without_a_confirmed_cutover_both_its_points_are_open(host: Host, records: Any, words: str) -> None:
    """A mirror is none, nor is what was rolled back."""
    host.journal(records)
    outcome = host.run()
    assert outcome.document["open"] == ["cutover", "quiet"]
    assert words in host.point("cutover")["value"]


def test_a_later_attempt_that_was_taken_back_leaves_the_cutover_confirmed() -> None:
    """A rollback to the attempt restores what stood before it."""
    later = [
        {"at": CUTOVER + 100, "event": "apply_begin", "target": "mirror"},
        {"at": CUTOVER + 110, "event": "rollback_begin", "target": "attempt"},
        {"at": CUTOVER + 120, "event": "rolled_back"},
    ]
    assert told(fold([*JOURNAL, *later], KINDS)).confirmed == CUTOVER
    assert told(fold([*JOURNAL, *later[:2]], KINDS)).confirmed is None


def test_a_service_that_was_put_back_alone_keeps_the_cutover_open(host: Host) -> None:
    """Until the next full switch removes the override."""
    host.journal([*JOURNAL, {"at": 1, "event": "override_begin", "service": "ai-admin-api", "reason": "x"}])
    assert host.run().document["open"] == ["cutover"]
    assert host.point("cutover")["details"] == ("ai-admin-api was put back to Sentry alone",)
    host.journal(
        [
            *JOURNAL,
            {"at": 1, "event": "override_begin", "service": "a"},
            {"at": 2, "event": "override_done", "service": "a"},
            {"at": CUTOVER + 100, "event": "apply_begin", "target": "glitchtip"},
            {"at": CUTOVER + 101, "event": "override_removed", "service": "a"},
            {"at": CUTOVER + 102, "event": "applied"},
            {"at": CUTOVER + 103, "event": "confirmed"},
        ]
    )
    assert host.run().document["open"] == []


@pytest.mark.parametrize(
    ("back", "names"),
    [
        ("attempt", ("ai-admin-api was put back to Sentry alone",)),
        ("snapshot", ()),
    ],
)
def test_a_failed_attempt_does_not_make_a_service_forgotten_that_was_put_back_alone(
    host: Host, back: str, names: tuple[str, ...]
) -> None:
    """The attempt would have taken the service along, and was taken back: the service is on Sentry as before it."""
    host.journal(
        [
            *JOURNAL,
            {"at": CUTOVER + 50, "event": "override_begin", "service": "ai-admin-api"},
            {"at": CUTOVER + 51, "event": "override_done", "service": "ai-admin-api"},
            {"at": CUTOVER + 100, "event": "apply_begin", "target": "glitchtip", "attempt": 2},
            {"at": CUTOVER + 101, "event": "override_removed", "service": "ai-admin-api"},
            {"at": CUTOVER + 110, "event": "rollback_begin", "target": back},
            {"at": CUTOVER + 120, "event": "rolled_back", "target": back},
        ]
    )
    assert "cutover" in host.run().document["open"]
    assert host.point("cutover")["details"] == names


def test_a_service_whose_way_back_was_dropped_is_where_all_others_are(host: Host) -> None:
    host.journal([*JOURNAL, *({"at": 1, "event": event, "service": "a"} for event in ("override_begin", "override_dropped"))])
    assert host.run().document["open"] == []


def test_a_record_that_does_not_say_enough_keeps_the_cutover_open(host: Host) -> None:
    host.journal([*JOURNAL, {"at": 1, "event": "rollback_begin"}])
    assert "cutover" in host.run().document["open"]
    assert "record 4 of the journal (rollback_begin) is incomplete: it has no target" in host.point("cutover")["value"]


def test_a_torn_last_line_of_the_journal_is_ignored_and_a_damaged_one_is_not(host: Host) -> None:
    """A power cut tears the last line only."""
    host.journal(JOURNAL, '{"seq": 4, "at')
    assert host.run().code == 0
    text = (host.cutover / "journal.jsonl").read_text()
    (host.cutover / "journal.jsonl").write_text("{torn\n" + text)
    assert "damaged in line 1" in host.point("cutover")["value"]


def test_what_only_root_may_read_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not taken for done, not a traceback."""
    whole = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self.name in ("journal.jsonl", "phase0.json"):
            raise PermissionError(13, "Permission denied")
        return whole(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    outcome = host.run()
    assert outcome.document["open"] == ["phase0", "cutover", "quiet"]
    assert "run this as root" in host.point("cutover")["value"]
    assert "run this as root" in host.point("phase0")["value"]


# --- Sentry -----------------------------------------------------------------------------------------------


def test_an_event_after_the_cutover_is_named_and_the_days_count_from_it(host: Host) -> None:
    """A straggler long ago is no obstacle, a fresh one is."""
    host.sentry.last["shop"] = [host.sentry.at(CUTOVER + DAY)]
    assert "AFTER the cutover; quiet for 19.0 days" in host.point("quiet")["value"]
    assert host.run().code == 0
    assert host.run("--days", "19.5").document["open"] == ["quiet"]


def test_our_own_test_events_do_not_break_the_silence(host: Host) -> None:
    """A rehearsed rollback proves itself in Sentry."""
    probe = host.sentry.at(int(NOW) - 60, tags=[{"key": "cutover_probe", "value": "api"}])
    host.sentry.last["shop"] = [probe, host.sentry.at(CUTOVER - 5)]
    assert host.run().code == 0
    host.sentry.last["shop"] = [probe]
    assert "only test events" in host.point("quiet")["value"]


def test_other_projects_are_named_and_may_be_given_up(host: Host) -> None:
    """A front end that still reports to Sentry would go blind."""
    host.sentry.last["front"] = [host.sentry.at(int(NOW) - DAY)]
    found = host.point("projects")
    assert found["details"] == (f"front: last event {iso(NOW - DAY)}",)
    host.run("--confirm", "projects", "--by", "Anna", "--note", "front end moves on Monday")
    found = host.point("projects")
    assert found["done"]
    assert "front end moves on Monday" in found["value"]
    assert "1 of 1" in found["value"]


def test_rules_are_listed_by_name_until_somebody_rebuilt_them(host: Host) -> None:
    """Names only; what the token may not read is said."""
    host.sentry.rules = [{"name": "page on-call"}, {"name": "mail", "provider": {"name": "Slack"}}]
    assert "issue alert rules: page on-call, Slack: mail" in host.point("integrations")["details"]
    host.sentry.rules = None
    details = host.point("integrations")["details"]
    assert all("not readable (no such list)" in detail for detail in details)
    host.run("--confirm", "integrations", "--by", "Bert")
    assert host.run().code == 0


@pytest.mark.parametrize("status", [401, 403, 500])
def test_sentry_that_refuses_leaves_its_points_open(host: Host, status: int) -> None:
    """Unread is not quiet."""
    host.sentry.status = status
    outcome = host.run()
    assert outcome.document["open"] == ["quiet", "projects", "integrations"]
    assert f"not readable ({status})" in host.point("quiet")["value"]


def test_without_settings_of_sentry_its_points_are_open_and_say_why(host: Host) -> None:
    """One sentence each; the rest is still told."""
    (host.directory / "sentry.json").unlink()
    outcome = host.run()
    assert outcome.document["open"] == ["quiet", "projects", "integrations", "rollback"]
    assert "ops_sentry_url" in host.point("quiet")["value"]


# --- people -----------------------------------------------------------------------------------------------


def test_a_confirmation_needs_a_name(host: Host) -> None:
    """Who says so stands in the list."""
    with pytest.raises(OpsError, match="--by NAME"):
        host.run("--confirm", "members")
    with pytest.raises(OpsError, match="--by NAME"):
        host.run("--confirm", "members", "--by", "  ")


def test_confirmations_keep_name_note_and_time_but_no_secret(host: Host) -> None:
    """A note is one line, scrubbed."""
    host.run(
        "--confirm",
        "data",
        "--by",
        "Anna",
        "--note",
        f"exported\nwith {'a1' * 32} to https://u:hunter2@x.example/",
    )
    found = host.point("data")
    assert (found["source"], found["at"]) == ("Anna", iso(NOW))
    kept = (host.state / "m1" / "sentry-decisions.json").read_text()
    assert "a1a1" not in kept
    assert "hunter2" not in kept
    assert found["value"].startswith("exported with ***")


def test_damaged_confirmations_stop_the_list(host: Host) -> None:
    """Nobody knows then what was confirmed."""
    (host.state / "m1" / "sentry-decisions.json").write_text("{")
    with pytest.raises(OpsError, match="confirmations cannot be read"):
        host.run()


def test_secrets_are_revoked_afterwards_and_never_shown(host: Host) -> None:
    """The way back needs them until then; they are named by place."""
    found = host.point("secrets")
    assert (found["kind"], found["done"]) == ("afterwards", False)
    assert any("sentry-token" in detail for detail in found["details"])
    assert "client keys (DSNs) of acme/shop: 2" in found["details"]
    outcome = host.run("--markdown", str(host.directory / "list.md"))
    text = json.dumps(outcome.document) + "\n".join(outcome.lines) + (host.directory / "list.md").read_text()
    assert TOKEN not in text


# --- output -----------------------------------------------------------------------------------------------


def test_the_markdown_is_fit_for_a_ticket(host: Host) -> None:
    """Boxes, headings, the summary; names of Sentry cannot break it."""
    host.sentry.rules = [{"name": "a](http://192.0.2.1) | `x`\n# y"}]
    target = host.directory / "out" / "list.md"
    host.run("--markdown", str(target))
    text = target.read_text()
    assert text.startswith("# Cancelling Sentry: checklist\n\n**not ready: 1 point open**")
    assert text.count("- [x] ") == 18
    assert text.count("- [ ] ") == 2
    assert "## After cancelling" in text
    assert "\n# y" not in text
    assert r"a\](http" in text


@pytest.mark.parametrize(
    "wrong", [("--min-ratio", "1.5"), ("--min-ratio", "0"), ("--days", "0"), ("--max-backup-hours", "-1")]
)
def test_thresholds_that_make_no_sense_are_refused(host: Host, wrong: tuple[str, str]) -> None:
    """A ratio above one would never, of zero always be met."""
    with pytest.raises(OpsError, match=wrong[0]):
        host.run(*wrong)


def test_every_point_of_people_has_a_title() -> None:
    """And can be confirmed."""
    assert set(CONFIRMED_BY_PEOPLE) == {"projects", "integrations", "data", "members", "decision", "secrets"}


@pytest.mark.parametrize("recorded", ["removed", None])
def test_records_of_another_stack_keep_their_points_open(tmp_path: Path, recorded: str | None) -> None:
    """An uninstall that deleted the events and a new deployment under the same name: the old records are still there."""
    for number in range(6):
        document = {"phase": f"phase{number}", "recorded_at": "2026-01-01T00:00:00Z", "data": {"proof": "x"}}
        named = {} if recorded is None or number < 2 else {"stack_id": recorded}
        (tmp_path / f"phase{number}.json").write_text(json.dumps({**document, **named}))
    verdict = tmp_path / "verdict.json"
    verdict.write_text(json.dumps({"verdict": "GO", "judged_at": "2026-01-01", "stack_id": recorded}))
    points = evidence_points(tmp_path, "deployed")
    assert [point.done for point in points] == [True, True, False, False, False, False]
    assert all("another GlitchTip stack" in point.value for point in points[2:])
    assert (soak_point(verdict, "deployed").done, soak_point(verdict, recorded or "").done) == (False, True)
    assert all(point.done for point in evidence_points(tmp_path, recorded or ""))


def test_the_places_come_from_the_settings(tmp_path: Path) -> None:
    """Moved directories are known: role ops writes where the evidence and the switch are."""
    moved = {name: str(tmp_path / name) for name in ("evidence_dir", "cutover_dir", "cutover_config_dir")}
    write_settings(tmp_path, **moved)
    options = argparse.Namespace(
        evidence_dir=None, cutover_dir=None, days=7, min_ratio=0.9, max_backup_hours=48
    )
    places = sentry_checklist._places(options, load_settings(tmp_path))
    assert (str(places.evidence), str(places.cutover)) == (moved["evidence_dir"], moved["cutover_dir"])
    assert str(places.old_token) == f"{moved['cutover_config_dir']}/old-token"
