"""Where services are led: the mirror and the new tracker, one .env or several, together or one after the other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from unit.cutover.simulation import (
    KEY,
    MIRROR,
    NEW,
    OLD,
    OWN_MIRROR,
    OWN_NEW,
    OWN_OLD,
    Simulation,
)

from glitchtip_cutover.errors import (
    CutoverError,
    IncompleteError,
    RolledBackError,
    UnprovenError,
    UsageError,
)
from glitchtip_cutover.verify import run_verify


@pytest.fixture
def world(tmp_path: Path) -> Simulation:
    made = Simulation(tmp_path, own=True)
    made.cutover().snapshot()
    return made


def common(world: Simulation) -> set[str]:
    """The DSNs of all but the service with its own .env."""
    return {dsn for name, dsn in world.uses().items() if "silent" not in name}


def own(world: Simulation) -> set[str]:
    return {dsn for name, dsn in world.uses().items() if "silent" in name}


def dies_on(world: Simulation, name: str, dsn: str) -> None:
    def die(restarted: str) -> None:
        if restarted == name and world.pm2.loaded[name] == dsn:
            raise CutoverError(f"{name} does not start")

    world.pm2.after_restart = die


def test_each_env_file_gets_its_own_dsn_and_each_service_its_own_proof(world: Simulation) -> None:
    rows = {row["name"]: row for row in world.cutover().apply()["services"]}
    assert (common(world), own(world)) == ({NEW}, {OWN_NEW})
    stored = {event.event_id for event in world.stored["4"]}
    assert rows["silent"]["event_id"] in stored
    assert not stored & {row["event_id"] for name, row in rows.items() if name != "silent"}
    world.cutover().confirm()
    assert world.cutover().apply()["changed"] is False
    world.cutover().rollback()
    assert (common(world), own(world)) == ({OLD}, {OWN_OLD})


def test_the_mirror_keeps_keys_and_projects_and_every_event_is_read_on_both_sides(world: Simulation) -> None:
    result = world.cutover().apply("mirror")
    assert (common(world), own(world)) == ({MIRROR}, {OWN_MIRROR})
    assert result["target"] == "mirror"
    old = {event.event_id for event in world.stored["7"]}
    new = {event.event_id for event in world.stored["3"] + world.stored["4"]}
    assert all(row["event_id"] in old & new for row in result["services"])
    assert world.cutover().confirm()["state"] == "confirmed"
    assert world.watches == []
    assert world.cutover().state().stands == "mirror"
    assert world.cutover().apply("mirror")["changed"] is False


@pytest.mark.parametrize("side", ["3", "7"])
def test_a_mirror_of_which_one_side_stores_nothing_is_refused(world: Simulation, side: str) -> None:
    world.lost.add(side)
    with pytest.raises(CutoverError, match="did not store it"):
        world.cutover().apply("mirror")
    assert common(world) == {OLD}


def test_without_the_old_tracker_s_api_its_side_counts_as_accepted(tmp_path: Path) -> None:
    world = Simulation(tmp_path, old=None)
    world.cutover().snapshot()
    rows = world.cutover().apply("mirror")["services"]
    assert all("the old side accepted" in row["note"] for row in rows)


def test_forward_out_of_the_mirror_and_back_to_before_it(world: Simulation) -> None:
    world.cutover().apply("mirror")
    world.cutover().confirm()
    world.cutover().apply()
    world.cutover().confirm()
    assert (common(world), own(world)) == ({NEW}, {OWN_NEW})
    assert len(world.watches) == 1
    world.cutover().rollback()
    assert (common(world), own(world)) == ({OLD}, {OWN_OLD})
    assert world.cutover().state().stands == "before"


def test_a_failed_switch_out_of_the_mirror_restores_the_mirror(world: Simulation) -> None:
    world.cutover().apply("mirror")
    world.cutover().confirm()
    dies_on(world, "silent", OWN_NEW)
    with pytest.raises(RolledBackError):
        world.cutover().apply()
    assert (common(world), own(world)) == ({MIRROR}, {OWN_MIRROR})
    state = world.cutover().state()
    assert (state.phase, state.stands, state.target) == ("rolled_back", "mirror", "mirror")
    world.pm2.after_restart = lambda _name: None
    assert world.cutover().apply("mirror")["changed"] is False
    world.cutover().rollback()
    assert (common(world), own(world)) == ({OLD}, {OWN_OLD})


def test_an_unconfirmed_change_keeps_another_target_waiting(world: Simulation) -> None:
    world.cutover().apply("mirror")
    with pytest.raises(CutoverError, match="waits for confirm"):
        world.cutover().apply()


def test_a_target_that_is_none_is_refused(world: Simulation) -> None:
    with pytest.raises(UsageError, match="there is no target moon"):
        world.cutover().apply("moon")


def test_a_service_that_the_snapshot_does_not_know_is_refused(tmp_path: Path) -> None:
    Simulation(
        tmp_path, services=["canary", "api", "silent", "carrier"], without_sdk=["job"]
    ).cutover().snapshot()
    with pytest.raises(CutoverError, match="does not know the service job"):
        Simulation(tmp_path).cutover().apply()


def test_a_snapshot_of_before_there_were_own_files_still_leads_back(tmp_path: Path) -> None:
    world = Simulation(tmp_path)
    world.cutover().snapshot()
    path = tmp_path / "state" / "before" / "services.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({key: data[key] for key in ("dsn", "carried", "pids")}))
    facts = tmp_path / "state" / "before" / "snapshot.json"
    facts.write_text(json.dumps({k: v for k, v in json.loads(facts.read_text()).items() if k != "files"}))
    world.cutover().apply()
    world.env_file.write_text("damaged")
    world.cutover().rollback()
    assert set(world.uses().values()) == {OLD}


def test_the_snapshot_keeps_every_file_and_the_configuration(world: Simulation, tmp_path: Path) -> None:
    before = tmp_path / "state" / "before"
    assert (before / "env").read_bytes() == world.env_file.read_bytes()
    assert (before / "env-2").read_bytes() == world.own_file.read_bytes()
    assert json.loads((before / "config.json").read_text())["migration_id"] == "m"
    world.cutover().apply()
    world.own_file.write_text("damaged")
    world.cutover().rollback()
    assert world.own_file.read_text() == f"{KEY}={OWN_OLD}\n"


def test_the_snapshot_refuses_the_mirror_s_dsn(tmp_path: Path) -> None:
    world = Simulation(tmp_path)
    world.env_file.write_text(f"{KEY}={MIRROR}\n")
    with pytest.raises(CutoverError, match="holds the DSN of the mirror already"):
        world.cutover().snapshot()


# ------------------------------------------------------------------ strategies


def acts(world: Simulation) -> list[str]:
    return [
        f"{record['event']} {record['service']}"
        for record in world.cutover().journal.records()
        if record["event"] in ("restart", "proved")
    ]


def test_one_by_one_proves_each_before_the_next_one_begins(world: Simulation) -> None:
    world.cutover().apply()
    order = ["canary", "api", "silent", "carrier", "job"]
    assert acts(world) == [f"{act} {name}" for name in order for act in ("restart", "proved")]
    assert world.pm2.together == []


def test_all_at_once_restarts_all_but_the_canary_together(tmp_path: Path) -> None:
    world = Simulation(tmp_path, strategy="all_at_once")
    world.cutover().snapshot()
    world.cutover().apply()
    assert acts(world)[:2] == ["restart canary", "proved canary"]
    assert world.pm2.together == [["api", "silent", "carrier"]]
    assert set(world.uses().values()) == {NEW}


def test_without_a_canary_nobody_goes_first(tmp_path: Path) -> None:
    world = Simulation(tmp_path, strategy="all_at_once", canary="")
    world.cutover().snapshot()
    world.cutover().apply()
    assert world.pm2.together == [["canary", "api", "silent", "carrier"]]


def test_a_service_that_fails_among_many_takes_all_back(tmp_path: Path) -> None:
    world = Simulation(tmp_path, strategy="all_at_once", canary="")
    world.cutover().snapshot()
    dies_on(world, "silent", NEW)
    with pytest.raises(RolledBackError, match="silent"):
        world.cutover().apply()
    assert set(world.uses().values()) == {OLD}


def sets_the_old_dsn_in_its_code(world: Simulation, service: str) -> None:
    def restarted(name: str) -> None:
        if name == service:
            world.pm2.loaded[name] = OLD

    world.pm2.after_restart = restarted


@pytest.mark.parametrize("target", ["glitchtip", "mirror"])
def test_a_service_whose_code_sets_the_old_dsn_is_not_proven_by_its_probe(
    tmp_path: Path, target: str
) -> None:
    world = Simulation(tmp_path)
    world.cutover().snapshot()
    sets_the_old_dsn_in_its_code(world, "api")
    with pytest.raises(RolledBackError, match="api still reports to the old tracker alone"):
        world.cutover().apply(target)
    assert set(world.uses().values()) == {OLD}


def test_a_service_that_names_its_server_itself_is_known_by_its_probe(tmp_path: Path) -> None:
    world = Simulation(tmp_path)
    world.server_names["api"] = "web-1"
    world.cutover().snapshot()
    sets_the_old_dsn_in_its_code(world, "api")
    with pytest.raises(RolledBackError, match="api still reports to the old tracker alone"):
        world.cutover().apply()


def test_namesakes_on_another_server_speak_neither_for_nor_against_a_service(tmp_path: Path) -> None:
    """Two servers of one product report to one project: one of them is switched, the other is not yet, or was before."""
    world = Simulation(tmp_path)
    world.emitting = {"canary"}
    world.cutover().snapshot()

    def reports_elsewhere(restarted: str) -> None:
        # Simulated time: captured after the restart, or its age alone would rule it out.
        world.clock.sleep(0.01)
        for dsn in (OLD, NEW):
            world.store(dsn, restarted, server="another.example.org")

    world.pm2.after_restart = reports_elsewhere
    rows = {row["name"]: row for row in world.cutover().apply()["services"]}
    assert rows["canary"]["proof"] == "own_event"
    assert rows["api"]["proof"] == rows["silent"]["proof"] == "probe"


def test_what_the_last_run_of_a_resting_job_reported_is_no_reason_against_the_switch(tmp_path: Path) -> None:
    world = Simulation(tmp_path)
    world.cutover().snapshot()
    world.store(OLD, "job")
    rows = {row["name"]: row for row in world.cutover().apply()["services"]}
    assert rows["job"]["proof"] == "probe"


# ------------------------------------------------------------------ plan


def test_the_plan_shows_the_order_and_the_changed_lines_without_secrets(world: Simulation) -> None:
    world.env_file.write_text(f'A=secret\n{KEY}="{OLD}" # was {NEW}\nB=secret\n')
    plan = world.cutover().plan()
    assert [(step["act"].split()[0], step["services"]) for step in plan["order"]] == [
        ("write", ["canary", "api", "carrier", "job"]),
        ("write", ["silent"]),
        ("restart", ["canary"]),
        ("restart", ["api"]),
        ("restart", ["silent"]),
        ("restart", ["carrier"]),
        ("restart", ["job"]),
        ("save", list(world.names)),
    ]
    assert plan["diff"] == [
        {
            "path": str(world.env_file),
            "before": f'{KEY}="http://***@sentry.example.org:9000/7" # ***',
            "after": f'{KEY}="http://***@127.0.0.1:8080/3" # ***',
        },
        {
            "path": str(world.own_file),
            "before": f"{KEY}=http://***@sentry.example.org:9000/7",
            "after": f"{KEY}=http://***@127.0.0.1:8080/4",
        },
    ]
    assert not any(secret * 32 in json.dumps(plan) for secret in "abcd")
    assert "secret" not in json.dumps(plan)
    assert "127.0.0.1:19000/7" in json.dumps(world.cutover().plan("mirror"))
    assert world.pm2.restarted == []


# ------------------------------------------------------------------ one service back


@pytest.mark.parametrize("name", ["api", "silent", "carrier"])
def test_one_service_goes_back_alone_and_the_next_apply_takes_it_along(world: Simulation, name: str) -> None:
    world.cutover().apply()
    world.cutover().confirm()
    world.pm2.restarted.clear()
    result = world.cutover().rollback(service=name, reason="it misses events")
    assert world.pm2.restarted == [name]
    wanted = OWN_OLD if name == "silent" else OLD
    assert world.pm2.loaded[name] == wanted
    assert {n: d for n, d in world.pm2.loaded.items() if n != name} == {
        n: OWN_NEW if n == "silent" else NEW for n in world.pm2.loaded if n != name
    }
    assert world.pm2.env_dsn() == NEW
    assert [(row["name"], row["proof"]) for row in result["services"]] == [
        (name, "own_event" if name == "api" else "probe")
    ]
    assert world.cutover().status()["overrides"] == [name]
    assert world.cutover().rollback(service=name)["changed"] is False
    plan = world.cutover().plan()
    assert plan["would_change"] is True
    world.cutover().apply()
    assert world.cutover().status()["overrides"] == []
    assert (common(world), own(world)) == ({NEW}, {OWN_NEW})
    events = [record["event"] for record in world.cutover().journal.records()]
    assert events.count("override_removed") == 1
    world.cutover().rollback()
    assert (common(world), own(world)) == ({OLD}, {OWN_OLD})


def test_confirm_accepts_a_service_that_was_put_back_alone(world: Simulation) -> None:
    world.cutover().apply()
    for name in ("api", "silent"):
        world.cutover().rollback(service=name)
    assert world.cutover().confirm()["changed"] is True


def test_an_unknown_service_is_one_sentence(world: Simulation) -> None:
    world.cutover().apply()
    with pytest.raises(CutoverError, match="there is no service nobody; the services are canary, api"):
        world.cutover().rollback(service="nobody")


def test_one_service_that_does_not_come_back_leaves_it_open_until_it_does(world: Simulation) -> None:
    world.cutover().apply()
    world.cutover().confirm()
    dies_on(world, "api", OLD)
    with pytest.raises(IncompleteError, match="api could not be put back alone"):
        world.cutover().rollback(service="api")
    assert world.cutover().status()["overriding"] == "api"
    assert world.cutover().store.open_marker.exists()
    with pytest.raises(CutoverError, match="run recover first"):
        world.cutover().apply()
    world.pm2.after_restart = lambda _name: None
    assert world.cutover().recover()["overrides"] == ["api"]
    assert not world.cutover().store.open_marker.exists()


# ------------------------------------------------------------------ rollback's proof


def test_a_rollback_without_network_is_back_and_unproven_in_time(world: Simulation) -> None:
    world.cutover().apply()
    world.unreachable, world.offline = {"old", "new"}, True
    with pytest.raises(
        UnprovenError, match=r"every service is back on its DSN of before.*unproven"
    ) as caught:
        world.cutover().rollback()
    details = caught.value.details
    assert caught.value.exit_code == 5
    assert details["seconds_to_last_restart"] < 15
    assert details["seconds_proof"] <= 61
    assert (common(world), own(world)) == ({OLD}, {OWN_OLD})
    assert world.cutover().state().phase == "rolled_back"
    assert not world.cutover().store.open_marker.exists()
    assert [event for event, _ in world.told][-1] == "rolled_back"
    assert world.cutover().rollback()["changed"] is False


def test_nothing_is_asked_of_a_tracker_before_the_last_restart(world: Simulation) -> None:
    world.cutover().apply()
    asked: list[int] = []
    tracker = world.tracker

    def counting(side: object) -> object:
        asked.append(len(world.pm2.restarted))
        return tracker(side)  # type: ignore[arg-type]

    world.tracker = counting  # type: ignore[method-assign,assignment]
    world.pm2.restarted.clear()
    world.cutover().rollback()
    assert set(asked) == {4}
    assert [sorted(names) for names in world.pm2.together] == [["api", "canary", "carrier", "silent"]]


def test_services_that_stay_silent_are_proven_within_the_time_of_all(world: Simulation) -> None:
    world.cutover().apply()
    world.emitting = set()
    result = world.cutover().rollback()
    assert result["seconds_proof"] <= 30
    assert {row["proof"] for row in result["services"]} == {"probe"}
    assert {row["note"] for row in result["services"]} == {""} | {"a job: its next run uses this DSN"}


# ------------------------------------------------------------------ people, the watch, the boot


def test_people_are_told_in_order_and_never_hold_the_switch_up(world: Simulation) -> None:
    world.notify_problems = ["slack answered 500"]
    world.cutover().apply()
    world.cutover().confirm()
    world.cutover().rollback()
    assert [event for event, _ in world.told] == ["start", "gate", "applied", "done", "rolled_back"]
    notes = [record["text"] for record in world.cutover().journal.records() if record["event"] == "note"]
    assert notes[0] == "notification start: slack answered 500"
    assert OLD not in json.dumps(world.told) + json.dumps(notes)
    assert world.watches[0]["attempt"] == 1


def test_a_notifier_that_breaks_breaks_nothing_else(world: Simulation) -> None:
    def broken(_event: str, _facts: object) -> list[str]:
        raise ZeroDivisionError

    world.notify = broken  # type: ignore[method-assign,assignment]
    assert world.cutover().apply()["state"] == "applied"


def test_a_failed_switch_is_told_after_everything_is_back(world: Simulation) -> None:
    dies_on(world, "api", NEW)
    seen: list[set[str]] = []

    def notify(event: str, _facts: object) -> list[str]:
        if event == "rolled_back":
            seen.append(common(world))
        return []

    world.notify = notify  # type: ignore[method-assign,assignment]
    with pytest.raises(RolledBackError):
        world.cutover().apply()
    assert seen == [{OLD}]


def test_no_watch_follows_where_none_is_wanted(tmp_path: Path) -> None:
    world = Simulation(tmp_path, watch={"seconds": 0}, confirm_window=0)
    world.cutover().snapshot()
    world.cutover().apply()
    assert world.watches == []


def test_a_recovery_at_boot_leaves_the_mark_for_the_verification_and_tells_nobody_yet(
    world: Simulation,
) -> None:
    world.cutover().apply()
    world.told.clear()
    world.pm2.running = False
    world.cutover().recover()
    assert world.told == []
    mark = world.cutover().store.to_verify()
    assert mark is not None
    assert mark["event"] == "rolled_back"
    assert world.cutover().status()["to_verify"] is True
    world.pm2.boot()
    assert (common(world), own(world)) == ({OLD}, {OWN_OLD})


def test_the_verification_accepts_a_service_that_was_put_back_alone_and_no_other(world: Simulation) -> None:
    world.cutover().apply()
    world.cutover().confirm()
    world.cutover().rollback(service="api")
    world.cutover().store.mark_verify({"event": "rolled_back", "reason": "r"})
    cutover = world.cutover()
    assert run_verify(cutover.config, cutover.host)["problems"] == []
    assert cutover.store.to_verify() is None
    process = world.pm2.table["canary"]
    world.pm2.table["canary"] = dataclasses.replace(process, environment={KEY: OLD})
    with pytest.raises(CutoverError, match="canary is given another DSN"):
        run_verify(cutover.config, cutover.host)
