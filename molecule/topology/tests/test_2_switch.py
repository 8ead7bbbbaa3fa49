"""Phase 4 with a server that refuses, then whole; phase 5; and no event is lost."""

from __future__ import annotations

import json

from rig import demo, topology, walk, world
from rig.trackers import tunnel

GLITCHTIP = ("confirmed", "127.0.0.1:8080")
SENTRY = ("none", "sentry.example.org:9000")
FIRST, SECOND = topology.APPLICATIONS
SERVICE = "whatsapp-backup-service"


def test_a_server_that_refuses_ends_the_play_and_leaves_the_one_before_it_as_it_is(standing):
    world.ssh(f"pm2 stop {SERVICE}", server=SECOND)
    try:
        run = walk.attempt("phase4_cutover", quiet=True)
    finally:
        world.ssh(f"pm2 start {SERVICE}", server=SECOND)
    assert run.code != 0
    said = next(line for line in run.output.splitlines() if "Say why, and what stands where:" in line)
    assert f"app2 was not switched: the service {SERVICE} is stopped, not online" in said
    assert (
        "What stands: app1 reports to 127.0.0.1:8080 (confirmed), app2 reports to sentry.example.org:9000 (none)." in said
    )
    assert standing() == [GLITCHTIP, SENTRY]


def test_the_next_run_switches_the_rest_and_touches_the_first_no_more(standing):
    rows = demo.service_rows(FIRST)
    evidence = walk.evidence("phase4", FIRST)
    walk.playbook("phase4_cutover", quiet=True)
    assert standing() == [GLITCHTIP, GLITCHTIP]
    assert demo.service_rows(FIRST) == rows
    assert walk.evidence("phase4", FIRST) == evidence


def test_every_service_of_both_products_was_proven_on_glitchtip():
    with tunnel(topology.TRACKER) as url:
        glitchtip = demo.glitchtip_tracker(url, topology.TRACKER)
        for server in topology.APPLICATIONS:
            rows = [row for row in demo.service_rows(server) if row["proof"] != "no SDK"]
            assert len(rows) == 8
            assert {row["new"] for row in rows} == {"127.0.0.1:8080"}
            assert all(glitchtip.has(row["event_id"]) for row in rows)


def test_each_server_watches_what_runs_on_it(applications, tracker):
    walk.playbook("phase5_operate", quiet=True)
    for unit in ("glitchtip-backup.timer", "glitchtip-queue.timer"):
        assert tracker.service(unit).is_running
        assert not any(server.service(unit).exists for server in applications)
    assert all(server.service("glitchtip-monitor.timer").is_running for server in (tracker, *applications))
    assert json.loads(tracker.file("/etc/glitchtip-ops/monitor.json").content_string)["pm2_services"] == []
    for server in applications:
        result = json.loads(server.check_output("glitchtip-ops --json monitor check --dry-run"))
        assert [(check["name"], check["ok"]) for check in result["checks"]] == [("pm2", True), ("drift", True)]


def test_a_deploy_that_moves_a_product_back_is_found_by_its_own_server(applications):
    server = applications[0]
    server.check_output("cp -p /opt/ai-admin/.env /root/.env.right && sed -i 's#@127.0.0.1:8080#@sentry.example.org:9000#' /opt/ai-admin/.env")
    try:
        found = server.run("glitchtip-ops --json monitor check --dry-run")
    finally:
        server.check_output("cat /root/.env.right > /opt/ai-admin/.env && rm /root/.env.right")
    assert found.rc == 3
    assert [check["name"] for check in json.loads(found.stdout)["checks"] if not check["ok"]] == ["drift"]


def test_events_of_both_products_reach_glitchtip_and_none_is_lost_or_stored_twice(settled):
    events = settled()
    assert events["sentry"] > 0
    assert events["glitchtip"] > 0
    assert (events["lost"], events["duplicated"]) == (0, 0)
