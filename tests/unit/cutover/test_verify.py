"""After a recovery at boot: what does not fit is told, and nothing is guessed or changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import KEY, NEW, OLD, Crash, Simulation

from glitchtip_core.dsn import Dsn
from glitchtip_cutover.errors import CutoverError, ServiceError
from glitchtip_cutover.host import Host
from glitchtip_cutover.manager import Process
from glitchtip_cutover.verify import run_verify


class Booted:
    """A switch that a power cut interrupted, recovered before PM2 started; PM2 is up again."""

    def __init__(self, root: Path) -> None:
        self.world = Simulation(root)
        self.world.cutover().snapshot()

        def power_cut(name: str) -> None:
            if name == "silent":
                raise Crash

        self.world.pm2.after_restart = power_cut
        with pytest.raises(Crash):
            self.world.cutover().apply()
        self.world.pm2.after_restart = lambda _name: None
        self.world.pm2.running = False
        self.world.cutover().recover()
        self.world.pm2.boot()
        self.status: int | None = 200
        self.uses: Callable[[Process], str] = lambda process: (
            process.environment.get(KEY) or self.world.pm2.env_dsn(process.name)
        )

    def host(self) -> Host:
        booted = self

        class Prober:
            def uses(self, process: Process, expected: Dsn) -> int | None:
                if booted.uses(process) != expected.value:
                    raise ServiceError(f"{process.name} would still report elsewhere")
                return booted.status

        return dataclasses.replace(self.world.cutover().host, prober=Prober())  # type: ignore[arg-type]

    def verify(self) -> dict[str, Any]:
        return run_verify(self.world.config, self.host())

    @property
    def marked(self) -> bool:
        return self.world.cutover().store.verify_mark.exists()


@pytest.fixture
def booted(tmp_path: Path) -> Booted:
    return Booted(tmp_path)


def test_a_recovered_host_is_verified_and_its_mark_removed(booted: Booted) -> None:
    assert booted.marked
    result = booted.verify()
    assert (result["changed"], result["state"], result["problems"]) == (True, "verified", [])
    assert {row["proof"] for row in result["services"]} == {"probe"}
    assert {row["dsn_host"] for row in result["services"]} == {"sentry.example.org:9000"}
    assert not booted.marked
    assert booted.world.cutover().journal.records()[-1]["event"] == "verified"
    assert booted.world.told[-1][0] == "rolled_back"
    assert booted.verify()["changed"] is False


def errored(booted: Booted) -> None:
    table = booted.world.pm2.table
    table["api"] = dataclasses.replace(table["api"], status="errored", pid=0)


def vanished(booted: Booted) -> None:
    del booted.world.pm2.table["silent"]


def carries_the_new_dsn(booted: Booted) -> None:
    table = booted.world.pm2.table
    table["carrier"] = dataclasses.replace(table["carrier"], environment={KEY: NEW})


def reads_another_file(booted: Booted) -> None:
    booted.uses = lambda process: NEW if process.name == "api" else OLD


def no_dsn(booted: Booted) -> None:
    booted.world.env_file.write_text("A=1\n")


def no_manager(booted: Booted) -> None:
    booted.world.pm2.running = False


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (errored, "the service api is errored, not online"),
        (vanished, "PM2 of user root knows no service silent"),
        (carries_the_new_dsn, "carrier is given another DSN by PM2 of user root"),
        (reads_another_file, "api would still report elsewhere"),
        (no_dsn, "holds no SENTRY_DSN"),
        (no_manager, "PM2 of user root knows no service"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_does_not_fit_is_told_and_left_alone(
    booted: Booted, fault: Callable[[Booted], None], sentence: str
) -> None:
    fault(booted)
    restarted = list(booted.world.pm2.restarted)
    content = booted.world.env_file.read_text()
    with pytest.raises(CutoverError, match="do not fit") as caught:
        booted.verify()
    assert any(sentence in problem for problem in caught.value.details["problems"])
    assert caught.value.exit_code == 1
    assert booted.world.told[-1][0] == "incomplete"
    assert not booted.marked
    assert (booted.world.pm2.restarted, booted.world.env_file.read_text()) == (restarted, content)
    assert OLD not in str(caught.value.details)


def test_a_tracker_that_is_away_is_a_note_and_no_problem(booted: Booted) -> None:
    booted.status = None
    result = booted.verify()
    assert {row["proof"] for row in result["services"]} == {"none"}
    assert all("did not take an event" in row["note"] for row in result["services"])


def test_it_waits_until_the_manager_has_started_everything(booted: Booted) -> None:
    booted.world.pm2.running = False
    sleep = booted.world.clock.sleep
    began = booted.world.clock.now

    def later(seconds: float) -> None:
        sleep(seconds)
        booted.world.pm2.running = booted.world.clock.now - began > 60

    host = dataclasses.replace(booted.host(), sleep=later)
    assert run_verify(booted.world.config, host)["state"] == "verified"
    assert booted.world.clock.now - began >= 60
