"""What a stack that does not start is said to mean depends on whether services report to it: where they do, or may, it is never removed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[3] / "roles/glitchtip"
STATES = ("none", "rolled_back", "applying", "applied", "confirmed", "rolling_back", "unknown")


def advice(*states, **variables):
    """The advice for products in these states, on hosts app1, app2, ..."""
    known = DataLoader().load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True)
    products = [
        {"host": f"app{number}", "state": state, "reports_to": "?", "away": state not in ("none", "rolled_back")}
        for number, state in enumerate(states, 1)
    ]
    given = {"glitchtip_dir": "/opt/glitchtip", "products_standing": products, **variables}
    templar = Templar(loader=DataLoader(), variables={**known, **given})
    return templar.template(trust_as_template("{{ __glitchtip_advice }}"))


@pytest.mark.parametrize("first", STATES)
@pytest.mark.parametrize("second", STATES)
def test_only_where_nobody_reports_here_may_it_be_removed(first, second):
    said = advice(first, second)
    unused = {first, second} <= {"none", "rolled_back"}
    assert ("uninstall" in said) == unused
    assert ("No service reports to it" in said) == unused
    assert ("rollback.yml" in said) == (not unused)
    assert "docker compose --project-directory /opt/glitchtip logs" in said
    assert "{{" not in said


def test_a_product_whose_last_attempt_alone_was_rolled_back_still_reports_here():
    """The state is the same word as after a rollback of everything: the switch says which, not the word."""
    product = {"host": "app1", "state": "rolled_back", "reports_to": "errors.example.org", "away": True}
    assert "uninstall" not in advice(products_standing=[product])
    assert "(app1: rolled_back)" in advice(products_standing=[product])


def test_hosts_that_report_here_are_named_with_their_state():
    assert "(app2: confirmed, app3: applied)" in advice("none", "confirmed", "applied", "unknown")


def test_no_answer_is_no_no():
    assert "It is not known whether services report to it (app1 did not answer)" in advice("unknown", "none")
    assert "It is not known" in advice()


def test_the_staging_stack_is_nobodys():
    said = advice("confirmed", __glitchtip_staging=True)
    assert "staging" in said
    assert "uninstall" not in said
    assert "rollback" not in said


def test_the_message_uses_it_after_the_products_were_asked():
    tasks = yaml.safe_load((ROLE / "tasks/configure.yml").read_text(encoding="utf-8"))
    rescue = next(task["rescue"] for task in tasks if "rescue" in task)
    asked = [next((key for key in task if key.endswith("include_tasks")), "") for task in rescue]
    assert asked.index("ansible.builtin.include_tasks") < len(rescue) - 1
    assert "__glitchtip_advice" in rescue[-1]["ansible.builtin.fail"]["msg"]
    assert "Nothing reports" not in str(tasks)


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        ({"msg": "no space left"}, "no space left"),
        ({}, "see the log lines"),
        ({"msg": ""}, "see the log lines"),
        (
            {
                "msg": "non-zero return code",
                "cmd": ["docker", "run", "web", "./bin/run-migrate.sh"],
                "rc": 1,
                "stderr": "x" * 900 + "\nno such column\n",
            },
            "the command ended with code 1: " + ("x" * 900 + "\nno such column")[-500:],
        ),
        # Its secrets travel in the environment; nothing of its output is shown.
        (
            {
                "msg": "non-zero return code",
                "cmd": ["docker", "run", "web", "./manage.py", "createsuperuser"],
                "rc": 1,
                "stderr": "canary",
            },
            "the command ended with code 1",
        ),
    ],
)
def test_the_reason_names_what_the_migrations_printed_and_nothing_of_the_superuser(failed, said):
    known = DataLoader().load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True)
    templar = Templar(loader=DataLoader(), variables={**known, "ansible_failed_result": failed})
    assert templar.template(trust_as_template("{{ __glitchtip_reason }}")) == said
