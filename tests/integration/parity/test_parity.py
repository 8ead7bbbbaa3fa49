"""The same envelopes to two real servers; some only to one, one altered, one grouped differently."""

from __future__ import annotations

import json
from typing import Any

import pytest
from integration.parity.conftest import World, error

from glitchtip_ops.process import OpsError


def to_both(world: World, *events: dict[str, Any]) -> None:
    """Send to Sentry and to GlitchTip, and wait until both have them."""
    for event in events:
        world.sentry.send(event)
        world.glitchtip.send(event)
    for tracker in (world.sentry, world.glitchtip):
        tracker.wait_for(*(event["event_id"] for event in events))


def test_the_same_envelopes_are_equal_and_each_difference_is_seen(world: World) -> None:
    """Equal first; then one lost, one extra, one altered, one grouped differently, each seen in its place."""
    probe = error(9, tags={"probe": "soak"})
    world.glitchtip.send(probe)
    same = [error(number % 3) for number in range(7)]
    to_both(world, *same)
    world.glitchtip.wait_for(probe["event_id"])
    outcome = world.parity()
    report = outcome.document
    assert (outcome.code, report["verdict"]) == (0, "equal"), outcome.lines
    assert (report["both"], report["ratio"], report["grouping"]["one_to_one"]) == (7, 1.0, 3)
    assert report["glitchtip"]["probes_left_out"] == 1
    fields = {item["field"]: item["result"] for item in report["issues"][0]["fields"]}
    assert fields.pop("fingerprint") == "not_comparable"
    assert set(fields.values()) == {"equal"}
    assert "equal" in json.loads((world.directory / "state/m1/parity.json").read_text())["verdict"]

    lost, extra = error(4), error(5)
    world.sentry.send(lost)
    world.glitchtip.send(extra)
    altered = error(6)
    world.sentry.send(altered)
    world.glitchtip.send(
        {**altered, "user": {"id": "8", "email": "bert.canary@example.org"}, "level": "warning"}
    )
    split = [error(7), error(7)]
    for number, event in enumerate(split):
        world.sentry.send(event)
        world.glitchtip.send({**event, "fingerprint": [f"own-{number}"]})
    world.sentry.wait_for(lost["event_id"], altered["event_id"], *(event["event_id"] for event in split))
    world.glitchtip.wait_for(extra["event_id"], altered["event_id"], *(event["event_id"] for event in split))

    outcome = world.parity()
    report = outcome.document
    assert (outcome.code, report["verdict"]) == (3, "different")
    assert report["judgement"] == {"events": "different", "grouping": "different", "content": "different"}
    assert report["missing_in_glitchtip_ids"] == [lost["event_id"]]
    assert report["missing_in_sentry_ids"] == [extra["event_id"]]
    assert report["ratio"] == round(10 / 11 - 0.00005, 4)
    assert (report["grouping"]["split"], report["grouping"]["merged"]) == (1, 0)
    row = next(row for row in report["issues"] if row["title"].startswith("TypeError6"))
    assert {item["field"] for item in row["fields"] if item["result"] == "different"} == {"user", "level"}
    text = (
        json.dumps(report) + "\n".join(outcome.lines) + (world.directory / "state/m1/parity.md").read_text()
    )
    for secret in ("canary", world.sentry.token, world.glitchtip.token, world.glitchtip.dsn):
        assert secret not in text


def test_more_events_than_a_page_are_all_compared(world: World) -> None:
    """Pages of 100 on both sides."""
    events = [error(number % 2) for number in range(105)]
    to_both(world, *events)
    missing = error(1)
    world.sentry.send(missing)
    world.sentry.wait_for(missing["event_id"])
    report = world.parity("--top", "1", "--samples", "1").document
    assert (report["both"], report["missing_in_glitchtip_ids"]) == (105, [missing["event_id"]])


def test_own_events_on_each_side_are_matched_by_title(world: World) -> None:
    """Probe mode: nothing has the same id."""
    for _ in range(2):
        mine, other = error(1), error(1)
        world.sentry.send(mine)
        world.glitchtip.send(other)
        world.sentry.wait_for(mine["event_id"])
        world.glitchtip.wait_for(other["event_id"])
    report = world.parity().document
    assert (report["matched_by"], report["verdict"], report["ratio"]) == ("titles", "equal", 1.0)


def test_bad_input_is_one_sentence_and_nothing_is_written(world: World) -> None:
    """No events, no such project, a token that is refused, one without scopes, no settings."""
    assert world.parity().document["verdict"] == "empty"
    kept = world.directory / "state/m1/parity.json"
    before = kept.read_bytes()
    settings = world.directory / "sentry.json"
    good = settings.read_text()
    settings.write_text(json.dumps({**json.loads(good), "project": "nowhere"}))
    with pytest.raises(OpsError, match="Sentry knows no project"):
        world.parity()
    settings.write_text(good)
    token = world.directory / "sentry-token"
    token.write_text("0" * 64)
    with pytest.raises(OpsError, match="Sentry refused the token"):
        world.parity()
    token.unlink()
    with pytest.raises(OpsError, match="sentry-token is missing"):
        world.parity()
    assert kept.read_bytes() == before
