"""Uninstall refuses while services report to GlitchTip, and removes only what the migration made."""

from __future__ import annotations

from rig import walk, world

NAMED = ("-e", "uninstall_confirm=demo")
CONSENT = (*NAMED, "-e", "uninstall_delete_events=true")


def test_it_refuses_while_services_report_to_glitchtip(refuses):
    assert "rollback.yml" in refuses("uninstall", *CONSENT)


def test_it_refuses_without_the_typed_name_of_the_target(refuses):
    walk.playbook("rollback", quiet=True, fast=True)
    assert "uninstall_confirm=demo" in refuses("uninstall")
    assert "another one" in refuses("uninstall", "-e", "uninstall_confirm=production")


def test_it_keeps_the_events_unless_their_end_is_asked_for(server):
    walk.playbook("uninstall", extra=NAMED, quiet=True, fast=True)
    assert server.check_output("docker ps -aq") == ""
    assert server.check_output("docker volume ls -q") != ""
    assert server.file("/opt/glitchtip/docker-compose.yml").exists


def test_it_removes_the_stack_and_keeps_backups_the_way_back_and_the_product(server):
    # Also where somebody has removed the secrets first.
    world.ssh("rm /opt/glitchtip/.env")
    walk.playbook("uninstall", extra=CONSENT, quiet=True, fast=True)
    assert server.check_output("docker ps -aq") == ""
    assert server.check_output("docker volume ls -q") == ""
    assert not server.file("/opt/glitchtip").exists
    assert not server.file("/opt/glitchtip-ops").exists
    assert server.check_output("ls /var/backups/glitchtip/*.dump")
    assert "rolled_back" in server.check_output("/usr/local/sbin/ai-admin-cutover status --json")
    assert world.ssh('pm2 jlist | grep -o \'"status":"online"\' | wc -l')[1] == "8"
    assert walk.playbook("uninstall", extra=CONSENT, quiet=True, fast=True).changed == ()


def test_a_new_migration_has_nothing_of_the_old_one(server, refuses):
    left = server.check_output(f"ls {walk.EVIDENCE}").split()
    assert "phase0.json" in left
    assert [name for name in left if name.startswith(("phase1", "phase2", "phase3", "phase4", "phase5", "run_id"))] == []
    assert not server.file("/var/lib/glitchtip-ops/demo").exists
    assert server.check_output(f"ls {walk.EVIDENCE}/ended/*/demo/verdict.json {walk.EVIDENCE}/ended/*/phase3.json")
    assert "phase2 has not been completed" in refuses("phase3_parallel_run")
