"""Phase 0 refuses with every reason at once, each in a sentence of its own, and before it has written anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from integration.operators.conftest import Operator, reasons

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the playbooks run as root")

#: What each of the faults below must be called.
SENTENCES = (
    "no role knows the variable ai_admin_cutover_canry; did you mean ai_admin_cutover_canary?",
    "no role knows the variable parallel_run_duraton; did you mean parallel_run_duration?",
    "vault_sentry_token still holds the placeholder of an example",
    "vault.yml holds secrets (vault_old_token, vault_sentry_token) in plain text inside the git repository",
    "value of docker_source must be one of: official, distro, got: debian",
    "glitchtip_email_url holds signs in its user or password that end the address there: write # as %23, / as %2F",
    "the value of glitchtip_alerts cannot be used",
    "ai_admin_cutover_window (Son 6-8) must be like",
    "ai_admin_cutover_canary (moniter) is none of the services: use one of api, monitor",
    "ai_admin_cutover_notify: targets[0]: kind must be one of",
    "refused ai_admin_cutover_old_token (401): the token is wrong, revoked or expired",
    "api, monitor, silent, carrier, job: there is no instrument file src/instrument.js",
    "silent: it is restarted whenever a file changes (watch)",
    "SENTRY_ENABLED=false in ",
    "the service monitor carries an empty SENTRY_DSN",
    ".env.local line 1 sets SENTRY_DSN too",
    "backups_on_calendar (daily at 3) is no time of a systemd timer",
    "glitchtip_version (4.0.0) is not supported",
    "parallel_run_duration and parallel_run_interval are written like",
)


def break_everything(operator: Operator) -> None:
    world = operator.world
    (operator.directory / ".git").mkdir()
    operator.vault["vault_sentry_token"] = "replace-me-token"
    operator.vault["vault_old_token"] = "revoked0revoked0revoked0revoked0"
    operator.variables |= {
        "parallel_run_duraton": "48h",
        "parallel_run_duration": "48hours",
        "docker_source": "debian",
        "glitchtip_email_url": "smtp://user:p#w/x@mail.example.org:587",
        "glitchtip_alerts": "{{ vault_alerts }}",
        "glitchtip_version": "4.0.0",
        "ai_admin_cutover_window": "Son 6-8",
        "ai_admin_cutover_canary": "moniter",
        "ai_admin_cutover_notify": [{"kind": "pager", "name": "team", "url": "https://hooks.example.org/x"}],
        "backups_on_calendar": "daily at 3",
    }
    app = world.env_file.parent
    (app / "src/instrument.js").unlink()
    world.change_service("silent", pm2_env={"watch": True})
    world.change_service("monitor", pm2_env={"SENTRY_DSN": ""})
    with world.env_file.open("a") as file:
        file.write("\r\nSENTRY_ENABLED=false\r\n")
    (app / ".env.local").write_text(f"SENTRY_DSN={world.old.dsn}\n")


@pytest.mark.parametrize("mode", ["check", "real"])
def test_every_reason_is_reported_at_once_and_nothing_is_written(operator: Operator, mode: str) -> None:
    break_everything(operator)
    code, printed = operator.play(
        "phase0_prepare", "-e", "ai_admin_cutover_canry=x", "--diff", *(["--check"] if mode == "check" else [])
    )
    told = reasons(printed)
    assert code == 2
    print("\n".join(told))
    assert [text for text in SENTENCES if not any(text in reason for reason in told)] == [], told
    assert len(told) == len(set(told))
    assert "revoked0" not in printed
    assert "p#w" not in printed
    assert operator.files() == set()
    assert operator.world.calls() == []


def test_without_faults_only_this_machine_is_refused_and_missing_labels_are_advised(operator: Operator) -> None:
    """This machine runs no systemd, which phase 0 says; of the product and the inventory there is nothing to say."""
    operator.vault = {name: f"{{{{ lookup('env', '{name}') }}}}" for name in operator.vault}
    os.environ |= dict.fromkeys(operator.vault, operator.world.old.token)
    code, printed = operator.play("phase0_prepare", "--check")
    told = [reason for reason in reasons(printed) if "systemd" not in reason and "Docker is installed on" not in reason]
    if Path("/run/systemd/system").exists():
        pytest.skip("on a machine with systemd nothing stops phase 0 here")
    assert code == 2
    assert told == []
    assert "events carry no release" in printed
    assert "Add the line `SENTRY_RELEASE=<version of this deploy>`" in printed


def test_a_host_that_does_not_answer_is_reported_with_the_inventory(operator: Operator) -> None:
    code, printed = operator.play(
        "phase0_prepare", "--check", "-e", "ansible_connection=ssh", "-e", "ansible_host=127.0.0.1", "-e", "ansible_port=9",
        "-e", "glitchtip_prt=1",
    )  # fmt: skip
    assert code != 0
    assert "UNREACHABLE" in printed
    assert "no role knows the variable glitchtip_prt" in printed


def test_a_placeholder_as_password_stops_before_the_host_is_asked(operator: Operator) -> None:
    operator.vault["vault_become_password"] = "replace-me"
    operator.variables["ansible_become_password"] = "{{ vault_become_password }}"
    code, printed = operator.play("phase0_prepare", "--check")
    assert code == 2
    assert "vault_become_password still holds the placeholder" in printed
    assert "Measure memory" not in printed


def test_a_misspelt_variable_stops_every_later_phase_and_the_command_line_alone_a_rollback(operator: Operator) -> None:
    operator.variables["ai_admin_cutover_canry"] = "x"
    for phase in ("phase1_local_test", "phase2_deploy", "phase3_parallel_run", "phase4_cutover", "phase5_operate"):
        code, printed = operator.play(phase, "--check")
        assert code == 2, phase
        assert "no role knows the variable ai_admin_cutover_canry" in printed, phase
    code, printed = operator.play("rollback", "-e", "ai_admin_cutover_rollback_servce=api")
    assert code == 2
    assert "did you mean ai_admin_cutover_rollback_service?" in printed
    assert "canry" not in printed
    assert operator.world.calls() == []
