"""The checklist asks a real server: who still sends to Sentry, and since when it is quiet."""

from __future__ import annotations

import json
import time

from integration.parity.conftest import World, error

from glitchtip_api import parse_dsn
from glitchtip_api.ingest import send_event


def test_events_in_sentry_and_in_another_project_keep_their_points_open(world: World) -> None:
    """Quiet is counted from the last event that is no test event; a front end's project is named."""
    cutover = world.directory / "cutover"
    cutover.mkdir()
    confirmed = time.time() - 30 * 86400
    events = {"apply_begin": confirmed - 9, "applied": confirmed - 5, "confirmed": confirmed}
    journal = [{"at": at, "event": event} for event, at in events.items()]
    (cutover / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in journal))

    def points() -> dict[str, dict[str, object]]:
        outcome = world.run("sentry_checklist", "--cutover-dir", str(cutover), "--evidence-dir", str(cutover))
        assert outcome.code == 3
        return {point["id"]: point for point in outcome.document["points"]}

    found = points()
    assert (found["cutover"]["done"], found["quiet"]["done"], found["projects"]["done"]) == (True, True, True)

    sentry = world.sentry
    probe = error(1, tags={"cutover_probe": "api"})
    sentry.send(probe)
    sentry.wait_for(probe["event_id"])
    assert points()["quiet"]["done"] is True

    with sentry.server.client as client:
        front = client.projects.create(sentry.organization, "team", name="front")["slug"]
        dsn = client.keys.list(sentry.organization, front)[0]["dsn"]["public"]
    late, web = error(1), error(2)
    sentry.send(late)
    send_event(parse_dsn(dsn), web)
    sentry.wait_for(late["event_id"])
    end = time.monotonic() + 30
    while not points()["projects"]["details"]:
        assert time.monotonic() < end
        time.sleep(0.5)
    found = points()
    assert (found["quiet"]["done"], found["projects"]["done"]) == (False, False)
    assert "AFTER the cutover" in str(found["quiet"]["value"])
    assert str(found["projects"]["details"]).startswith("('front: last event 20")
