"""The walk there and back through the real program: what changes, what stays, what is refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time

import pytest
from integration.cutover.conftest import ENV_TEMPLATE, NEW_KEY, OLD_KEY, OTHER_SECRET, World


def before_bytes(world: World) -> bytes:
    return ENV_TEMPLATE.format(dsn=world.old.dsn, secret=OTHER_SECRET).encode()


def after_bytes(world: World) -> bytes:
    return ENV_TEMPLATE.format(dsn=world.new.dsn, secret=OTHER_SECRET).encode()


def test_switch_confirm_repeat_and_way_back(world: World) -> None:
    """Every service is proven on the new side, a repeat restarts nothing, and all of it can be undone."""
    assert world.run("snapshot", shipped=True)["changed"] is True
    assert world.run("snapshot", shipped=True)["changed"] is False
    plan = world.run("plan", shipped=True)
    assert (plan["ready"], plan["would_change"]) == (True, True)
    assert world.calls() == []

    applied = world.run("apply", shipped=True)
    assert (applied["changed"], applied["state"]) == (True, "applied")
    rows = {row["name"]: row for row in applied["services"]}
    assert {name: row["proof"] for name, row in rows.items()} == {
        "api": "own_event",
        "monitor": "own_event",
        "silent": "probe",
        "carrier": "probe",
        "job": "probe",
        "pm2-logrotate": "none",
    }
    assert all(
        row["old"] == world.old.netloc and row["new"] == world.new.netloc
        for row in rows.values()
        if row["proof"] != "none"
    )
    stored = {event["eventID"] for event in world.new.events}
    assert all(row["event_id"] in stored for row in rows.values() if row["proof"] != "none")
    assert world.env_file.read_bytes() == after_bytes(world)
    assert stat.S_IMODE(world.env_file.stat().st_mode) == 0o640
    copies = list(world.env_file.parent.glob(".env.pre-glitchtip-*"))
    assert [copy.read_bytes() for copy in copies] == [before_bytes(world)]
    assert world.calls() == ["restart 1", "restart 0", "restart 2", "restart 3 --update-env", "save"]
    assert world.services()["carrier"]["pm2_env"]["SENTRY_DSN"] == world.new.dsn
    assert world.services()["carrier"]["pm2_env"]["HOME"] == "/nonexistent"

    again = world.run("apply", shipped=True)
    assert (again["changed"], again["state"]) == (False, "applied")
    assert world.run("confirm", shipped=True) == {
        "changed": True,
        "state": "confirmed",
        "attempt": 1,
        "watch_seconds": 3600.0,
    }
    assert world.run("confirm", shipped=True)["changed"] is False
    again = world.run("apply", shipped=True)
    assert (again["changed"], again["state"], again["services"]) == (False, "unchanged", applied["services"])
    assert len(world.calls()) == 5

    back = world.run("rollback", shipped=True)
    assert (back["changed"], back["state"]) == (True, "rolled_back")
    assert {row["name"]: row["proof"] for row in back["services"]} == {
        name: row["proof"] for name, row in rows.items()
    }
    assert all(row["dsn_host"] == world.old.netloc for row in back["services"] if row["proof"] != "none")
    assert world.env_file.read_bytes() == before_bytes(world)
    assert world.services()["carrier"]["pm2_env"]["SENTRY_DSN"] == world.old.dsn
    assert not (world.state_dir / "open").exists()
    repeated = world.run("rollback")
    assert (repeated["changed"], repeated["services"]) == (False, back["services"])

    assert world.run("apply", shipped=True)["state"] == "applied"
    assert world.journal()[-1]["attempt"] == 2


def test_journal_and_results_hold_no_secret(world: World) -> None:
    """Only files that are meant to hold a DSN do, and those are private."""
    world.run("snapshot")
    world.run("apply")
    for file in world.state_dir.rglob("*"):
        if not file.is_file():
            continue
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        holds = any(key.encode() in file.read_bytes() for key in (OLD_KEY, NEW_KEY))
        assert holds == (file.name in ("env", "dsn", "services.json", "before.json")), file
    for arguments in world.timers():
        assert NEW_KEY not in " ".join(arguments)
    assert NEW_KEY not in (world.pm2_home / "calls.log").read_text()


def test_edits_of_the_operator_survive_the_way_back(world: World) -> None:
    """The way back changes one value, not the lines that were added meanwhile."""
    world.run("snapshot")
    world.run("apply")
    world.run("confirm")
    world.env_file.write_bytes(world.env_file.read_bytes() + b"\r\nADDED=1\r\n")
    world.run("rollback")
    assert world.env_file.read_bytes() == before_bytes(world) + b"\r\nADDED=1\r\n"


def refused(world: World, sentence: str) -> None:
    """``apply`` refuses with ``sentence``, and nothing was changed."""
    old_env = world.env_file.read_bytes() if world.env_file.exists() else None
    result = world.run("apply", code=1)
    assert sentence in result["reason"], result["reason"]
    assert result["changed"] is False
    assert "\n" not in result["reason"]
    assert (world.env_file.read_bytes() if world.env_file.exists() else None) == old_env
    assert world.calls() == []
    assert not (world.state_dir / "open").exists()


def test_refuses_without_snapshot(world: World) -> None:
    refused(world, "no snapshot")


def test_refuses_a_dsn_of_another_project_without_posting_it(world: World) -> None:
    world.run("snapshot")
    (world.root / "secrets" / "new.dsn").write_text(world.new.dsn[:-1] + "9")
    refused(world, "the new DSN belongs to project 9")
    assert world.new.posts == []


def test_refuses_a_key_of_another_project_without_posting_it(world: World) -> None:
    world.run("snapshot")
    (world.root / "secrets" / "new.dsn").write_text(world.new.dsn.replace(NEW_KEY, "f" * 32))
    refused(world, "none of the keys")
    assert world.new.posts == []


def test_refuses_when_the_worker_does_not_store(world: World) -> None:
    world.run("snapshot")
    world.new.stores = False
    refused(world, "did not store it")


@pytest.mark.parametrize(
    ("fault", "sentence"), [("html", "web page"), ("500", "answered 500")], ids=["html", "500"]
)
def test_refuses_when_the_api_is_ill(world: World, fault: str, sentence: str) -> None:
    world.run("snapshot")
    world.new.fault = fault
    refused(world, sentence)


def test_refuses_a_token_that_is_not_accepted(world: World) -> None:
    world.run("snapshot")
    (world.root / "secrets" / "new.token").write_text("wrong")
    refused(world, "refused the token")


def test_refuses_a_service_that_is_not_online(world: World) -> None:
    world.run("snapshot")
    world.change_service("silent", pid=0, pm2_env={"status": "errored"})
    refused(world, "silent is errored")


def test_refuses_a_stranger_in_the_product_directory(world: World) -> None:
    world.run("snapshot")
    world.write_config(services=["api", "monitor", "silent", "carrier"])
    refused(world, "also runs job")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no file"),
        (b"A=1\n", "holds no SENTRY_DSN"),
        (b"SENTRY_DSN=a\nSENTRY_DSN=b\n", "2 times"),
    ],
    ids=["missing", "without", "two"],
)
def test_refuses_an_unclear_env_file(world: World, content: bytes | None, sentence: str) -> None:
    world.run("snapshot")
    world.env_file.unlink()
    if content is not None:
        world.env_file.write_bytes(content)
    refused(world, sentence)


def test_snapshot_refuses_the_new_dsn(world: World) -> None:
    world.env_file.write_bytes(after_bytes(world))
    assert "holds the new DSN already" in world.run("snapshot", code=1)["reason"]


def test_refuses_when_pm2_does_not_run(world: World) -> None:
    """A socket file left over from a power cut is no daemon."""
    world.run("snapshot")
    (world.pm2_home / "rpc.sock").unlink()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(world.pm2_home / "rpc.sock"))
    refused(world, "does not run")


def rolled_back(world: World, sentence: str) -> None:
    """``apply`` fails with ``sentence`` and everything is as before it."""
    carried = {name: entry["pm2_env"].get("SENTRY_DSN") for name, entry in world.services().items()}
    result = world.run("apply", code=3)
    assert sentence in result["reason"], result["reason"]
    assert result["state"] == "rolled_back"
    assert world.env_file.read_bytes() == before_bytes(world)
    assert {name: entry["pm2_env"].get("SENTRY_DSN") for name, entry in world.services().items()} == carried
    assert not (world.state_dir / "open").exists()
    assert world.journal()[-1]["event"] == "rolled_back"


def test_a_canary_that_crashes_leaves_the_others_untouched(world: World) -> None:
    world.run("snapshot")
    world.change_service("monitor", fake_crash_on=NEW_KEY)
    rolled_back(world, "monitor does not start")
    assert {name: entry["pid"] for name, entry in world.services().items() if name != "monitor"} == {
        "api": 500,
        "silent": 502,
        "carrier": 503,
        "job": 0,
        "pm2-logrotate": 505,
    }


def test_a_later_service_that_crashes_takes_all_back(world: World) -> None:
    world.run("snapshot")
    world.change_service("silent", fake_crash_on=NEW_KEY)
    rolled_back(world, "silent does not start")
    world.change_service("silent", fake_crash_on="")
    assert world.run("apply")["state"] == "applied"


def test_a_service_that_keeps_its_process_is_no_success(world: World) -> None:
    """The file alone proves nothing: a process of before the switch is not on the new DSN."""
    world.run("snapshot")
    world.change_service("silent", fake_ignores_restart=True)
    rolled_back(world, "silent did not come back")


def test_a_carrier_whose_environment_is_not_updated_is_found_in_its_process(world: World) -> None:
    """PM2 keeps the old DSN: the environment of the new process holds the old host."""
    world.run("snapshot")
    world.change_service("carrier", fake_ignores_update=True)
    fakes = world.root / "bin" / "pm2"
    fakes.write_text(fakes.read_text().replace('"$@"', '$(echo "$@" | sed "s/ --update-env//")'))
    result = world.run("apply", code=3)
    assert "carrier still runs with another SENTRY_DSN in the environment of its process" in result["reason"]
    assert f"that of {world.old.netloc}" in result["reason"]
    assert world.env_file.read_bytes() == before_bytes(world)


def test_events_of_before_the_switch_do_not_prove_anything(world: World) -> None:
    """An event of that name which is already there, and the probe's own, are no proof of a silent service."""
    world.run("snapshot")
    stamp = "2001-01-01T00:00:00+00:00"
    tags = [{"key": "service", "value": "silent"}]
    world.new.events.append({"eventID": "e" * 32, "dateCreated": stamp, "tags": tags})
    rows = {row["name"]: row for row in world.run("apply")["services"]}
    assert rows["silent"]["proof"] == "probe"


def test_unconfirmed_switch_is_taken_back_by_its_timer(world: World) -> None:
    """The timer's own command line, as systemd would run it, restores the state; not after confirm."""
    world.run("snapshot")
    world.run("apply")
    timer = [line for line in world.timers() if "--on-active=600s" in line][-1]
    command = timer[timer.index("rollback") :]
    assert "--unconfirmed-attempt=1" in command
    taken = world.run("rollback", "--unconfirmed-attempt=1")
    assert (taken["changed"], taken["state"]) == (True, "rolled_back")
    assert world.env_file.read_bytes() == before_bytes(world)
    world.run("apply")
    world.run("confirm")
    assert world.run("rollback", "--unconfirmed-attempt=2")["changed"] is False
    assert world.env_file.read_bytes() == after_bytes(world)


def test_sigterm_takes_the_switch_back(world: World) -> None:
    world.run("snapshot")
    world.write_config(stable_seconds=30)
    process = subprocess.Popen(
        world.command("apply"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=world.environment(),
    )
    wait_for(world, "restart")
    world.write_config(stable_seconds=0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    # the running process keeps its 30 s of stability; what counts is the state that it leaves
    deadline = time.monotonic() + 20
    while world.env_file.read_bytes() != before_bytes(world) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert world.env_file.read_bytes() == before_bytes(world)
    process.kill()
    process.communicate()
    recovered = world.run("recover")
    assert recovered["state"] == "rolled_back"


def test_kill_is_recovered_and_a_second_runner_is_refused(world: World) -> None:
    world.run("snapshot")
    world.write_config(stable_seconds=30)
    process = subprocess.Popen(
        world.command("apply"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=world.environment(),
    )
    wait_for(world, "restart")
    busy = world.run("apply", code=75)
    assert f"another run is under way on this host (process {process.pid})" in busy["reason"]
    process.kill()
    process.communicate()
    world.write_config(stable_seconds=0.2)
    assert (world.state_dir / "open").exists()
    assert "still open" in world.run("apply", code=1)["reason"]
    assert world.run("recover")["changed"] is True
    assert world.env_file.read_bytes() == before_bytes(world)
    assert world.run("recover")["changed"] is False
    assert world.run("apply")["state"] == "applied"


def wait_for(world: World, event: str) -> None:
    """Until the journal holds ``event``."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if (world.state_dir / "journal.jsonl").exists() and any(r["event"] == event for r in world.journal()):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {event} in the journal")


def test_recovery_at_boot_before_pm2_fixes_the_saved_list(world: World) -> None:
    """Without a daemon the value goes back into .env and into the list that PM2 will resurrect."""
    world.run("snapshot")
    world.run("apply")
    assert world.new.dsn in (world.pm2_home / "dump.pm2").read_text()
    (world.pm2_home / "rpc.sock").unlink()
    assert world.run("recover")["state"] == "rolled_back"
    assert world.env_file.read_bytes() == before_bytes(world)
    dump = {entry["name"]: entry for entry in json.loads((world.pm2_home / "dump.pm2").read_text())}
    assert dump["carrier"]["SENTRY_DSN"] == world.old.dsn
    assert "SENTRY_DSN" not in dump["silent"]


def test_rollback_works_with_both_trackers_down_and_says_so(world: World) -> None:
    """The way back needs no tracker; only its proof does."""
    world.run("snapshot")
    world.run("apply")
    world.run("confirm")
    world.new.fault = world.old.fault = "500"
    world.old.stores = False
    result = world.run("rollback", code=5)
    assert "unproven" in result["reason"]
    assert "answered 500" in result["unproven"][0]
    assert world.env_file.read_bytes() == before_bytes(world)
    assert world.journal()[-1]["event"] == "rolled_back"
    assert {row["note"] for row in result["services"] if row["proof"] == "probe"} >= {
        "accepted, not read back"
    }
    assert world.run("rollback")["changed"] is False


def test_rollback_without_old_api_proves_by_the_answer(world: World) -> None:
    world.write_config(old=None)
    world.run("snapshot")
    world.run("apply")
    result = world.run("rollback")
    assert {row["proof"] for row in result["services"] if row["name"] != "pm2-logrotate"} == {"probe"}


def test_rollback_replaces_a_damaged_env_file_and_keeps_it_beside(world: World) -> None:
    world.run("snapshot")
    world.run("apply")
    world.env_file.write_bytes(b"nothing of use\n")
    world.run("rollback")
    assert world.env_file.read_bytes() == before_bytes(world)
    assert stat.S_IMODE(world.env_file.stat().st_mode) == 0o640
    kept = list(world.env_file.parent.glob(".env.damaged-*"))
    assert [file.read_bytes() for file in kept] == [b"nothing of use\n"]


def test_all_at_once_restarts_everything_and_proves_everything(world: World) -> None:
    world.write_config(strategy="all_at_once", confirm_window=0)
    world.run("snapshot")
    assert world.run("apply")["state"] == "confirmed"
    assert world.calls()[-1] == "save"
    assert not (world.state_dir / "open").exists()


def test_plan_and_status_write_nothing(world: World) -> None:
    """Both work on a bare host, and leave no file behind."""
    plan = world.run("plan", code=1)
    assert plan["ready"] is False
    assert world.run("status")["state"] == "none"
    assert not world.state_dir.exists()


def test_wrong_configuration_is_one_sentence(world: World) -> None:
    world.write_config(canary="nobody")
    assert "canary nobody is not one of the services" in world.run("status", code=2)["reason"]
    os.unlink(world.root / "config.json")
    assert "there is no configuration file" in world.run("status", code=2)["reason"]
