"""Phase 5 goes on only where the switch itself says, now, that every service reports to the GlitchTip that is deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from switched import not_on_glitchtip

ROOT = Path(__file__).resolve().parents[3]
SETTLED = {"state": "confirmed", "stands": "glitchtip", "would_change": False, "overrides": []}
OFF = {
    "would_change": True,
    "services": [
        {"name": "api", "action": "restart with SENTRY_DSN set anew in its PM2 environment"},
        {"name": "worker", "action": "restart"},
    ],
    "diff": [{"path": "/opt/ai-admin/.env", "before": "x", "after": "x"}],
    "order": [{"act": "write /opt/ai-admin/.env", "services": ["api", "worker"]}],
}


def answer(host="production", **plan):
    return {"switched_host": host, "stdout": json.dumps({**SETTLED, **plan}), "rc": 0}


def test_a_settled_switch_is_no_reason():
    assert not_on_glitchtip([answer("app1"), answer("app2")]) == []


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"state": "none", "stands": "before", "would_change": True}, "was never switched"),
        ({"state": "rolled_back", "stands": "before", "would_change": True}, "was rolled back: its services report to the original tracker"),
        ({"state": "rolled_back", "stands": "mirror", "would_change": True}, "through the mirror"),
        ({"state": "confirmed", "stands": "mirror", "would_change": True}, "through the mirror"),
        ({"state": "applying", "stands": "before"}, "in the middle of a switch"),
        ({"state": "rolling_back", "stands": "glitchtip"}, "in the middle of a rollback"),
        ({"state": "applied", "stands": "glitchtip"}, "was switched, but not confirmed"),
        (OFF, "api is given another DSN by the process manager"),
        ({**OFF, "services": []}, "/opt/ai-admin/.env does not hold the DSN of the GlitchTip that is deployed now"),
        ({**OFF, "overrides": ["api"]}, "/opt/ai-admin/.env does not hold"),
        ({"would_change": True, "problems": ["its key is unknown"]}, "not to the GlitchTip that is deployed now (its key is unknown)"),
        ({"would_change": True}, "not to the GlitchTip that is deployed now"),
    ],
)
def test_each_way_of_not_reporting_to_glitchtip_is_said_with_its_server(plan, said):
    (sentence,) = not_on_glitchtip([answer("app1"), answer("app2", **plan)])
    assert sentence.startswith("app2 ")
    assert said in sentence
    assert sentence.count(".env") <= 1


@pytest.mark.parametrize(
    "result",
    [
        {"stdout": ""},
        {"unreachable": True, "msg": "timed out"},
        {"stdout": "Traceback"},
        {"stdout": "[]"},
        {"stdout": json.dumps({"failed": True, "reason": "there is no configuration file", "changed": False})},
    ],
)
def test_a_server_that_does_not_say_counts_as_not_switched(result):
    (sentence,) = not_on_glitchtip([{"switched_host": "app1", **result}])
    assert sentence.startswith("app1 does not say where its services report to")


def test_services_that_were_put_back_alone_are_left_out():
    alone = {**OFF, "overrides": ["api", "worker"]}
    assert not_on_glitchtip([answer(**alone)]) == []
    rest = {**OFF, "overrides": ["api"], "diff": []}
    assert not_on_glitchtip([answer(**rest)]) == []


def tasks_of(name):
    (play,) = yaml.safe_load((ROOT / "playbooks" / name).read_text(encoding="utf-8"))[:1]
    return play["tasks"]


def test_phase_5_asks_before_it_does_anything():
    imports = [task.get("ansible.builtin.import_tasks") for task in tasks_of("phase5_operate.yml")]
    assert imports[:2] == ["tasks/gate.yml", "tasks/require_switched.yml"]


def test_a_rollback_ends_the_evidence_before_it_puts_anything_back():
    """Also where it then fails: with exit code 5 every service is back, and nothing below it in the play runs."""
    tasks = tasks_of("rollback.yml")
    # A misspelt name on the command line is refused before.
    assert tasks[0]["ansible.builtin.import_role"]["tasks_from"] == "command_line"
    first = tasks[1]["migration_evidence"]
    assert (first["state"], tasks[1]["loop"]) == ("absent", ["phase4", "phase5"])
    put_back = next(number for number, task in enumerate(tasks) if "block" in task)
    forgotten = [number for number, task in enumerate(tasks) if task.get("migration_evidence", {}).get("state") == "absent"]
    assert max(forgotten) < put_back
    (recorded,) = tasks[put_back]["always"]
    assert recorded["migration_evidence"]["phase"] == "rollback"


def test_an_uninstall_ends_the_run_with_its_samples():
    last = tasks_of("uninstall.yml")[-1]
    assert last["migration_evidence"]["state"] == "ended"
    assert "{{ uninstall_state_dir }}/{{ migration_id }}" in last["migration_evidence"]["records"]


def test_every_phase_records_the_stack_that_it_was_about():
    for number in range(2, 6):
        (name,) = [path.name for path in (ROOT / "playbooks").glob(f"phase{number}_*.yml")]
        text = (ROOT / "playbooks" / name).read_text(encoding="utf-8")
        assert text.count(f"phase: phase{number}\n") == 1
        assert text.split(f"phase: phase{number}\n")[1].lstrip().startswith("stack_id: "), name


def standing(*answers):
    """What playbooks/tasks/where_products_stand.yml makes of the answers of ``status --json``."""
    tasks = DataLoader().load_from_file(str(ROOT / "playbooks/tasks/where_products_stand.yml"), trusted_as_template=True)
    expression = tasks[-1]["ansible.builtin.set_fact"]["products_standing"]
    results = [{"products_host": f"app{at}", "stdout": text} for at, text in enumerate(answers, 1)]
    return Templar(loader=DataLoader(), variables={"products_told": {"results": results}}).template(expression)


def test_only_a_switch_that_says_so_itself_has_nothing_away():
    """``rolled_back`` alone does not: a failed attempt that was rolled back leaves in effect what stood before it."""
    back = {"state": "rolled_back", "stands": "before", "at_origin": True, "env_dsn_host": "sentry.example.org"}
    attempt = {**back, "stands": "glitchtip", "at_origin": False}
    found = standing(json.dumps(back), json.dumps(attempt), "", json.dumps({"reason": "no configuration"}))
    assert [(row["host"], row["away"]) for row in found] == [("app1", False), ("app2", True), ("app3", True), ("app4", True)]
    assert [row["state"] for row in found] == ["rolled_back", "rolled_back", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("state", "stands", "more", "away"),
    [
        ("none", "before", {}, False),
        ("rolled_back", "before", {}, False),
        ("rolled_back", "glitchtip", {}, True),
        ("confirmed", "glitchtip", {}, True),
        ("applying", "before", {}, True),
        ("rolling_back", "before", {}, True),
        ("rolled_back", "before", {"overriding": "web"}, True),
    ],
)
def test_a_program_of_before_is_judged_by_what_it_says(state, stands, more, away):
    """It has no ``at_origin``: an uninstall has no other way to have it replaced."""
    answer = {"state": state, "stands": stands, "env_dsn_host": "x", **more}
    assert [row["away"] for row in standing(json.dumps(answer))] == [away]


def test_nothing_but_the_switch_tells_whether_a_product_is_away():
    """No playbook and no role judges by the word of the state. Control: such a line is found."""

    def judges(text):
        return "'rolled_back'" in text

    places = [path for folder in ("playbooks", "roles") for path in (ROOT / folder).rglob("*") if path.suffix in (".yml", ".j2")]
    assert len(places) > 100
    assert [path.name for path in places if judges(path.read_text())] == []
    assert judges("{{ products_standing | rejectattr('state', 'in', ['none', 'rolled_back']) }}")
