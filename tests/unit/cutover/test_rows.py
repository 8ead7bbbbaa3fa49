"""One row a service, figures that add up, and the plan of a rollback."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import KEY, NEW, OLD, Simulation

from glitchtip_cutover import cli
from glitchtip_cutover.back_plan import plan_rollback
from glitchtip_cutover.errors import UsageError
from glitchtip_cutover.rows import figures, one_per_service, table

KEYS = re.compile(r"[ab]{32}")


def row(name: str, proof: str = "own_event", event: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "status": "online", "proof": proof, "event_id": event or f"e-{name}", "seconds": 1.0, "note": "", **more}


def test_the_instances_of_a_cluster_are_one_row() -> None:
    rows = [row("api", pid=7), row("bot"), row("api", pid=8, status="stopped", seconds=2.5)]
    merged = one_per_service(rows)
    assert [(one["name"], one["instances"]) for one in merged] == [("api", 2), ("bot", 1)]
    assert merged[0] == {**row("api"), "instances": 2, "pid": 7, "status": "online, stopped", "seconds": 2.5}
    assert one_per_service(merged) == merged


def test_an_override_of_one_instance_shows() -> None:
    assert one_per_service([row("api", override=False), row("api", override=True)])[0]["override"] is True


@pytest.mark.parametrize("seed", range(50))
def test_the_figures_add_up_whatever_the_services_are(seed: int) -> None:
    chance = random.Random(seed)
    rows = []
    for number in range(chance.randint(1, 8)):
        kind = chance.choice(["own_event", "probe", "none", "sdk"])
        name = f"s{number}"
        one = row(name, "none", note="no SDK") if kind == "sdk" else row(name, kind)
        one["event_id"] = "" if one["proof"] == "none" else one["event_id"]
        rows += [dict(one) for _ in range(chance.randint(1, 3))]
    told = figures(rows)
    proven, judged = map(int, re.match(r"(\d+) of (\d+) services", told).groups())  # type: ignore[union-attr]
    ways = sum(int(number) for number in re.findall(r"(\d+) by a", told))
    events = int(re.search(r"(\d+) events", told)[1])  # type: ignore[index]
    without = int(found[1]) if (found := re.search(r"(\d+) without an SDK", told)) else 0
    assert proven == ways == events
    assert judged + without == len({one["name"] for one in rows})


def test_a_cluster_of_two_among_five_services_is_no_sixth() -> None:
    rows = [row(name) for name in ("a", "b", "c", "d")] + [row("e", "probe"), row("e", "probe")]
    assert figures(rows) == "5 of 5 services (6 processes) proven, 4 by an event of its own and 1 by a probe; 5 events"


def test_rows_without_proofs_have_no_figures() -> None:
    assert figures([{"name": "api", "status": "online"}]) == ""
    assert figures([]) == ""


def test_a_table_is_aligned_and_leaves_empty_columns_out() -> None:
    lines = table(one_per_service([row("api"), row("long-name", "probe"), row("api")]))
    assert lines[0].split() == ["SERVICE", "INSTANCES", "STATUS", "PROOF", "EVENT", "SECONDS"]
    assert lines[1].split() == ["api", "2", "online", "own_event", "e-api", "1.0"]
    assert len({line.index("online") for line in lines[1:]}) == 1
    assert "INSTANCES" not in table(one_per_service([row("api")]))[0]


def clustered(world: Simulation, name: str) -> None:
    first = world.pm2.table[name]
    world.pm2.table[f"{name}-2"] = dataclasses.replace(first, pm_id=90, pid=first.pid + 90)


def test_status_plan_and_snapshot_count_a_cluster_once(tmp_path: Path) -> None:
    world = Simulation(tmp_path)
    clustered(world, "api")
    cutover = world.cutover()
    snapshot = cutover.snapshot()
    for result in (snapshot, cutover.plan(), cutover.status(), plan_rollback(cutover)):
        rows = {one["name"]: one["instances"] for one in result["services"]}
        assert len(rows) == len(result["services"])
        assert rows["api"] == 2
        assert rows["silent"] == 1


# ---------------------------------------------------------------------- the plan of a rollback


def switched(tmp_path: Path, **changes: Any) -> Simulation:
    world = Simulation(tmp_path, **changes)
    world.cutover().snapshot()
    world.cutover().apply()
    world.cutover().confirm()
    return world


@pytest.mark.parametrize("own", [False, True])
def test_the_plan_names_services_files_and_masked_lines(tmp_path: Path, own: bool) -> None:
    world = switched(tmp_path, own=own)
    before = world.uses()
    plan = plan_rollback(world.cutover())
    assert world.uses() == before
    assert plan["would_change"] is True
    assert {one["name"] for one in plan["services"]} == set(world.names)
    actions = {one["name"]: one["action"] for one in plan["services"]}
    assert actions["api"] == "restart"
    assert actions["carrier"] == f"restart with its original {KEY} in its environment"
    assert actions["job"].startswith("none: the job reads .env")
    assert {(one["old"], one["new"]) for one in plan["services"] if one["name"] == "api"} == {
        ("127.0.0.1:8080 project 3", "sentry.example.org:9000 project 7")
    }
    files = {str(world.env_file)} | ({str(world.own_file)} if own else set())
    assert {one["path"] for one in plan["diff"]} == files
    assert all("***@127.0.0.1" in one["before"] and "***@sentry.example.org" in one["after"] for one in plan["diff"])
    assert not KEYS.search(json.dumps(plan))


def test_the_plan_is_what_the_rollback_does(tmp_path: Path) -> None:
    world = switched(tmp_path)
    plan = plan_rollback(world.cutover())
    world.pm2.restarted.clear()
    world.cutover().rollback()
    assert {one["name"] for one in plan["services"] if one["action"].startswith("restart")} == set(world.pm2.restarted)
    after = plan_rollback(world.cutover())
    assert after["would_change"] is False
    assert after["diff"] == []
    assert {one["action"].split(":")[0] for one in after["services"]} == {"none"}


def test_the_plan_for_one_service_leaves_a_common_file_alone(tmp_path: Path) -> None:
    world = switched(tmp_path)
    plan = plan_rollback(world.cutover(), "api")
    assert [one["name"] for one in plan["services"]] == ["api"]
    assert plan["services"][0]["action"] == f"restart with its original {KEY} in its environment"
    assert plan["diff"] == []
    with pytest.raises(UsageError, match="there is no service ap;"):
        plan_rollback(world.cutover(), "ap")


def test_the_plan_for_one_service_edits_a_file_of_its_own(tmp_path: Path) -> None:
    plan = plan_rollback(switched(tmp_path, own=True).cutover(), "silent")
    assert [Path(one["path"]).name for one in plan["diff"]] == ["own.env"]
    assert plan["services"][0]["action"] == "restart"


def test_a_plan_without_snapshot_or_manager_says_so(tmp_path: Path) -> None:
    world = Simulation(tmp_path)
    assert any("snapshot" in text or "no file" in text for text in plan_rollback(world.cutover())["problems"])
    world.cutover().snapshot()
    world.pm2.running = False
    assert any("manager does not run" in text for text in plan_rollback(world.cutover())["problems"])


def test_the_command_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    world = switched(tmp_path)
    monkeypatch.setattr(cli, "_configuration", lambda _arguments: world.config)
    monkeypatch.setattr(cli, "Cutover", lambda _config, _host: world.cutover())
    monkeypatch.setattr(cli, "real_host", lambda _config, _progress: None)
    assert cli.main(["plan", "--to", "before"]) == 0
    shown = capsys.readouterr().out
    assert "SERVICE" in shown
    assert f"+ {KEY}=http://***@sentry.example.org:9000/7" in shown
    assert not KEYS.search(shown)
    assert NEW not in shown
    assert OLD not in shown
    assert cli.main(["plan", "--service", "api"]) == 2
    assert cli.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["table"][0].startswith("SERVICE")
