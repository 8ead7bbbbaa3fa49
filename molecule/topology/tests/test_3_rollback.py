"""The way back of both servers, and uninstall: the products' servers first, GlitchTip's last."""

from __future__ import annotations

import pytest
from rig import demo, topology, walk, world


def uninstall(host: str) -> walk.Run:
    """Uninstall one server; its mark is its name."""
    return walk.attempt(
        "uninstall",
        extra=("--limit", host, "-e", f"uninstall_confirm={host}", "-e", "uninstall_delete_events=true"),
        quiet=True,
    )


def test_glitchtip_is_not_uninstalled_while_products_report_to_it(tracker):
    run = uninstall("tracker")
    assert run.code != 0
    assert "confirmed on app1, confirmed on app2" in run.output
    assert tracker.file("/opt/glitchtip/docker-compose.yml").exists


@pytest.fixture(scope="module")
def rolled_back():
    """Both servers after playbooks/rollback.yml."""
    walk.playbook("rollback", quiet=True)


@pytest.mark.usefixtures("rolled_back")
def test_both_environment_files_are_those_of_before_to_the_byte(applications, standing):
    assert standing() == [("rolled_back", "sentry.example.org:9000")] * 2
    for server in applications:
        before = server.file("/var/lib/ai-admin-cutover/demo/before/env").content
        assert server.file("/opt/ai-admin/.env").content == before


@pytest.mark.usefixtures("rolled_back")
def test_every_service_of_both_products_reports_to_sentry_and_nothing_was_lost(sentry, settled):
    for server in topology.APPLICATIONS:
        listed = walk.evidence("rollback", server)["services"]
        services = [service for service in listed if service["name"] != demo.WITHOUT_SDK]
        assert {service["dsn_host"] for service in services} == {"sentry.example.org:9000"}
        assert len(services) == 8
        assert all(sentry.has(service["event_id"]) for service in services)
    events = settled()
    assert (events["lost"], events["duplicated"]) == (0, 0)


@pytest.mark.usefixtures("rolled_back")
def test_uninstall_takes_tunnel_and_tools_of_a_product_s_server_and_leaves_its_neighbour(applications, tracker):
    assert uninstall("app1").code == 0
    first, second = applications
    monitor = [f"/etc/systemd/system/glitchtip-monitor.{kind}" for kind in ("service", "timer")]
    for path in ("/etc/glitchtip-tunnel", "/etc/systemd/system/glitchtip-tunnel.service", "/opt/glitchtip-ops", *monitor):
        assert not first.file(path).exists
    assert not first.user("glitchtip-tunnel").exists
    keys = tracker.file("/var/lib/glitchtip-tunnel/.ssh/authorized_keys").content_string
    assert "of app1" not in keys
    assert "of app2" in keys
    assert second.service("glitchtip-tunnel.service").is_running
    assert world.ssh("pm2 jlist | grep -o '\"status\":\"online\"' | wc -l", server=topology.APPLICATIONS[0])[1] == "8"


@pytest.mark.usefixtures("rolled_back")
def test_uninstall_of_glitchtip_s_server_ends_what_it_let_in_and_keeps_the_backups(tracker):
    assert uninstall("app2").code == 0
    assert uninstall("tracker").code == 0
    assert tracker.check_output("docker ps -aq; docker volume ls -q") == ""
    assert not tracker.user("glitchtip-tunnel").exists
    assert not tracker.file("/etc/ssh/sshd_config.d/glitchtip-tunnel.conf").exists
    assert tracker.check_output("ls /var/backups/glitchtip/*.dump")
    assert uninstall("tracker").changed == ()
