"""The first-hour watch reports what moves services to another tracker: once for each finding, without a rollback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import KEY, NEW, OLD
from unit.cutover.test_drift import OLD_HOST, Product, ecosystem
from unit.cutover.test_watch import FakeDocker

from glitchtip_core.memory import Memory
from glitchtip_core.switch import KINDS
from glitchtip_core.transaction.journal import Journal
from glitchtip_cutover import active_target, surroundings
from glitchtip_cutover.announce import TEMPLATES
from glitchtip_cutover.errors import CutoverError, InterruptedRunError
from glitchtip_cutover.manager import Process
from glitchtip_cutover.watch import Watch, start_watch

INTERVAL = 30


class Deployed:
    """A confirmed switch, its watch, and deploys at its looks."""

    def __init__(self, product: Product) -> None:
        self.product = product.switched()
        self.world = product.world
        self.looks = self.comparisons = 0
        self.rolled_back: list[str] = []
        self.at_look: Callable[[int], None] = lambda _number: None
        self.during: Callable[[], None] = lambda: None
        start_watch(self.world.config, self.world.watches[-1])

    def run(self) -> dict[str, Any]:
        host = self.product.cutover().host
        read = host.surroundings

        def counted(listed: Sequence[Process]) -> Any:
            self.comparisons += 1
            self.during()
            return read(listed)

        host.surroundings = counted
        docker: Any = FakeDocker(self.product.root)
        watch = Watch(
            self.world.config,
            host,
            docker=docker,
            memory=lambda: Memory(1000, 500, "meminfo"),
            roll_back=lambda _config, reason: (self.rolled_back.append(reason), (0, "{}"))[1],
            going_down=lambda: False,
        )
        look = watch.look

        def looked() -> str | None:
            self.looks += 1
            self.at_look(self.looks)
            return look()

        watch.look = looked  # type: ignore[method-assign]
        return watch.run()

    def told(self) -> list[list[str]]:
        """The findings of each message."""
        return [list(facts["problems"]) for event, facts in self.world.told if event == "drift"]

    def records(self, event: str) -> list[dict[str, Any]]:
        lines = (self.world.config.state_dir / "journal.jsonl").read_text().splitlines()
        return [record for line in lines if (record := json.loads(line))["event"] == event]


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    settings = {"seconds": 600, "interval": INTERVAL, "max_memory_percent": 90, "missed_events": 3}
    return Deployed(Product(tmp_path, monkeypatch, watch=settings))


def env_file(deployed: Deployed) -> None:
    deployed.world.env_file.write_text(f"{KEY}={OLD}\n")


def ecosystem_file(deployed: Deployed) -> None:
    deployed.product.write("ecosystem.config.cjs", ecosystem("env_production", OLD))


def process(deployed: Deployed) -> None:
    """The service's child is a new process at each look, as that of a script that starts it again."""
    deployed.product.start(deployed.product.pid("api"), PATH="/bin")
    deployed.product.start(5000 + deployed.looks, parent=deployed.product.pid("api"), SENTRY_DSN=OLD)
    (deployed.product.proc / str(4999 + deployed.looks) / "stat").unlink(missing_ok=True)


def stored(deployed: Deployed) -> None:
    deployed.world.pm2.restart(deployed.world.pm2.table["api"], {KEY: OLD})


DEPLOYS = {
    "a rewritten .env": (env_file, f".env:1 {KEY} names {OLD_HOST}"),
    "an ecosystem file": (ecosystem_file, "--env production` would move api back"),
    "a running process": (process, f"runs with {KEY} in its environment, which names {OLD_HOST}"),
    "what PM2 stored": (stored, f"gives api a {KEY} that names {OLD_HOST}"),
}


def test_an_hour_without_a_deploy_reports_nothing(deployed: Deployed) -> None:
    """The negative control of all below: it compares at each check and finds nothing."""
    result = deployed.run()
    assert (result["state"], result["drift"], deployed.told()) == ("passed", [], [])
    assert deployed.comparisons == deployed.looks >= 10
    assert deployed.records("watch_drift") == []
    assert deployed.records("watch_note") == []


@pytest.mark.parametrize("case", DEPLOYS)
def test_a_deploy_within_the_hour_is_reported_once(deployed: Deployed, case: str) -> None:
    deploy, sentence = DEPLOYS[case]
    once = case == "what PM2 stored"
    deployed.at_look = lambda look: deploy(deployed) if look == 3 or (look > 3 and not once) else None
    result = deployed.run()
    assert result["state"] == "passed"
    assert deployed.rolled_back == []
    [message] = deployed.told()
    assert len(message) == 1
    assert sentence in message[0]
    assert len(result["drift"]) == 1
    assert sentence in result["drift"][0]
    [record] = deployed.records("watch_drift")
    assert record["findings"] == message
    assert OLD.split("@")[0].rpartition("/")[2] not in json.dumps([message, record, result])


def test_a_second_finding_is_reported_without_the_first(deployed: Deployed) -> None:
    deployed.at_look = lambda look: {3: env_file, 6: ecosystem_file}.get(look, lambda _: None)(deployed)
    result = deployed.run()
    assert [len(message) for message in deployed.told()] == [1, 1]
    assert "ecosystem.config.cjs" in deployed.told()[1][0]
    assert len(result["drift"]) == 2


def test_what_was_corrected_and_is_wrong_again_is_reported_again(deployed: Deployed) -> None:
    def at(look: int) -> None:
        if look in (3, 9):
            env_file(deployed)
        elif look == 6:
            deployed.world.env_file.write_text(f"{KEY}={NEW}\n")

    deployed.at_look = at
    deployed.run()
    assert len(deployed.told()) == 2


def test_what_was_corrected_is_not_open_at_the_end(deployed: Deployed) -> None:
    def at(look: int) -> None:
        deployed.world.env_file.write_text(f"{KEY}={OLD if look == 3 else NEW}\n")

    deployed.at_look = at
    assert deployed.run()["drift"] == []
    assert len(deployed.told()) == 1


def test_a_change_that_is_under_way_is_no_finding(deployed: Deployed) -> None:
    """A rollback of one service by hand begins while files are read: what is found may be its work."""
    journal = Journal(deployed.world.config.state_dir / "journal.jsonl", deployed.world.clock.time, kinds=KINDS)

    def begin() -> None:
        if deployed.comparisons == 3:
            env_file(deployed)
            journal.append("override_begin", service="api")
        elif deployed.comparisons == 4:
            pytest.fail("it compared while a change was under way")

    def end(look: int) -> None:
        if look == 5:
            deployed.world.env_file.write_text(f"{KEY}={NEW}\n")
            journal.append("override_dropped", service="api")
            deployed.comparisons, deployed.during = 100, lambda: None

    deployed.during, deployed.at_look = begin, end
    assert deployed.run()["state"] == "passed"
    assert deployed.told() == []
    assert deployed.comparisons > 101


def test_a_slow_comparison_is_made_seldom(deployed: Deployed) -> None:
    deployed.during = lambda: deployed.world.clock.sleep(12)
    deployed.run()
    assert 2 <= deployed.comparisons <= 3
    assert deployed.looks > 3 * deployed.comparisons


def test_a_comparison_that_fails_is_reported_once_and_stops_nothing(deployed: Deployed) -> None:
    def fail() -> None:
        raise ValueError("nested too deeply")

    deployed.during = fail
    assert deployed.run()["state"] == "passed"
    assert deployed.rolled_back == []
    assert [record["note"].partition(": ")[0] for record in deployed.records("watch_note")] == [
        "the watch after the switch works without one of its checks (look_at_drift)"
    ]
    assert sum(event == "incomplete" for event, _ in deployed.world.told) == 1


def test_a_notification_that_reaches_nobody_stops_nothing(deployed: Deployed) -> None:
    deployed.world.notify_problems = ["slack did not answer"]
    deployed.at_look = lambda look: env_file(deployed) if look == 3 else None
    assert deployed.run()["state"] == "passed"
    [record] = deployed.records("watch_drift")
    assert record["problems"] == ["slack did not answer"]


def _interrupt(*_: object) -> Any:
    raise InterruptedRunError("the run was interrupted by SIGTERM")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (surroundings, "EnvFile"),
        (surroundings, "_of_pm2"),
        (surroundings, "find_files"),
        (active_target, "to_mirror"),
    ],
    ids=["the .env", "the manager", "the product's files", "the other targets"],
)
def test_a_stop_in_the_middle_of_a_comparison_ends_the_watch(
    deployed: Deployed, module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, _interrupt)
    assert deployed.run()["state"] == "stopped"


def test_another_failure_at_the_same_place_does_not_end_it(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the stop."""

    def failing(*_: object) -> Iterator[Any]:
        raise CutoverError("systemd does not answer")

    monkeypatch.setattr(surroundings, "_of_pm2", failing)
    assert deployed.run()["state"] == "passed"


def test_the_message_names_the_findings_and_the_command() -> None:
    assert "$problems" in TEMPLATES["drift"]
    assert "ai-admin-cutover drift" in TEMPLATES["drift"]
    assert "$drift" in TEMPLATES["watch_passed"]
