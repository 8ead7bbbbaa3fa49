"""The way back, and a switch that must not happen: a worker that does not process, a DSN of another project."""

from __future__ import annotations

import json

import pytest
from rig import demo, walk, world

pytestmark = pytest.mark.usefixtures("rolled_back")
SENTRY = "sentry.example.org:9000"


@pytest.fixture(scope="module")
def rolled_back():
    """The server after playbooks/rollback.yml; its result."""
    walk.playbook("rollback", quiet=True)
    _, text = world.ssh(f"cat {walk.EVIDENCE}/rollback.json")
    return json.loads(text)["data"]


def test_every_service_reports_to_sentry_again_and_is_read_back_there(rolled_back):
    sentry = demo.sentry.provision()[0]
    services = [service for service in rolled_back["services"] if service["name"] != demo.WITHOUT_SDK]
    assert len(services) == 8
    assert {service["dsn_host"] for service in services} == {SENTRY}
    assert all(sentry.has(service["event_id"]) for service in services)


def test_the_environment_file_is_that_of_before_the_migration(server):
    assert (
        server.file("/opt/ai-admin/.env").content
        == server.file("/var/lib/ai-admin-cutover/demo/before/env").content
    )


def test_phase_5_is_red_while_every_service_reports_to_sentry(damaged, server):
    """Also where the evidence of phase 4 is there: a rollback on the host, by the watch or at boot leaves it."""
    assert not server.file(f"{walk.EVIDENCE}/phase4.json").exists
    made = f"sed 's/phase3/phase4/' {walk.EVIDENCE}/phase3.json > {walk.EVIDENCE}/phase4.json"
    with damaged(made, f"rm {walk.EVIDENCE}/phase4.json"):
        run = walk.attempt("phase5_operate", quiet=True, fast=True)
    assert run.code != 0
    assert "walk was rolled back: its services report to the original tracker" in " ".join(run.output.split())


def test_a_rollback_of_a_rolled_back_server_changes_nothing():
    assert walk.playbook("rollback", quiet=True, fast=True).changed == ()


def test_phase_4_refuses_while_the_worker_does_not_process_and_the_old_dsn_stands(damaged):
    compose = "docker compose --project-directory /opt/glitchtip"
    before = demo.fingerprint()
    with damaged(f"{compose} stop -t 30 worker", f"{compose} start worker"):
        run = walk.attempt("phase4_cutover", quiet=True, fast=True)
    assert run.code != 0
    assert "the worker is not processing" in run.output
    after = demo.fingerprint()
    assert before["processes"] == after["processes"]
    assert before[".env"] == after[".env"]


def test_the_switch_refuses_a_dsn_of_another_project(damaged):
    file = "/etc/glitchtip-ops/dsn"
    before = demo.fingerprint()
    with damaged(
        f"cp -p {file} /root/dsn.kept && sed -i 's|/[0-9]*$|/424242|' {file}", f"mv /root/dsn.kept {file}"
    ):
        code, text = world.ssh("/usr/local/sbin/ai-admin-cutover apply --json", check=False)
    assert code == 1
    assert "424242" in text
    assert demo.changed_parts(before, demo.fingerprint()) == ""


def test_the_break_glass_command_leads_from_the_mirror_to_before(server):
    world.ssh(
        "/usr/local/sbin/ai-admin-cutover apply --to mirror && /usr/local/sbin/ai-admin-cutover confirm"
    )
    assert "19000" in server.file("/opt/ai-admin/.env").content_string
    # Its exit code is 0 only when every service was heard on Sentry again; unproven is 5.
    world.ssh("/usr/local/sbin/glitchtip-rollback")
    assert (
        server.file("/opt/ai-admin/.env").content
        == server.file("/var/lib/ai-admin-cutover/demo/before/env").content
    )
    assert json.loads(world.ssh("/usr/local/sbin/ai-admin-cutover status --json")[1])["stands"] == "before"


def test_the_switch_works_again_after_a_rollback():
    run = walk.playbook("phase4_cutover", quiet=True, fast=True)
    assert run.changed
    assert {row["new"] for row in demo.service_rows() if row["new"]} == {"127.0.0.1:8080"}
