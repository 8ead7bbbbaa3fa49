"""Settings files of units and Compose projects, over a systemctl and a docker that behave as the real ones do."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.cutover import test_manager_compose, test_manager_systemd
from unit.cutover.test_manager_systemd import KEY, NEW, OLD

from glitchtip_core.dsn import parse_dsn
from glitchtip_cutover import surroundings
from glitchtip_cutover.active_target import Wanted
from glitchtip_cutover.config import Config
from glitchtip_cutover.drift import Finding, judge
from glitchtip_cutover.manager import Manager
from glitchtip_cutover.surroundings import read_surroundings
from glitchtip_cutover.targets import Target

pytestmark = pytest.mark.slow


def compare(config: Config, manager: Manager, proc: Path) -> list[Finding]:
    """Everything that does not name NEW."""
    new, old = parse_dsn(NEW), parse_dsn(OLD)
    target = Target("glitchtip", {config.env_file: new}, dict.fromkeys(config.services, new), {})
    wanted = Wanted(target, {f"{old.netloc} {old.project_id} {old.key}": "the original DSN"}, True, {})
    listed = manager.processes()
    around = read_surroundings(config, listed, proc)
    assert around.notes == ()
    return judge(config, wanted, around, listed)


def problems(found: list[Finding]) -> list[tuple[str, int, str]]:
    return sorted({(Path(each.place).name, each.line, each.service) for each in found if each.problem and each.line})


class Units(test_manager_systemd.Host):
    """Every unit with its file, all variables on the new DSN."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, monkeypatch)
        self.env_file.write_text(f"{KEY}={NEW}\n")
        (root / "other.env").write_text(f"{KEY}={NEW}\nB=1\n")
        self.change("text.service", environment={KEY: NEW})
        for name in self.table():
            (self.units / name).write_text("[Service]\nExecStart=/usr/bin/node src/x.js\n")

    def compare(self) -> list[Finding]:
        return compare(self.config, self.manager, self.root / "proc")


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Units:
    return Units(tmp_path, monkeypatch)


def test_units_on_the_target_are_no_finding(units: Units) -> None:
    assert units.compare() == []


def test_an_environment_file_that_a_deploy_rewrote_is_named_with_its_unit(units: Units) -> None:
    (units.root / "other.env").write_text(f"B=1\n{KEY}={OLD}\n")
    assert problems(units.compare()) == [("other.env", 2, "other")]


def test_a_unit_that_a_deploy_replaced_is_named_before_and_after_systemd_reads_it(units: Units) -> None:
    (units.units / "text.service").write_text(f"[Service]\nEnvironment={KEY}={OLD}\n")
    units.change("text.service", environment={})
    assert problems(units.compare()) == [("text.service", 2, "text")]
    units.change("text.service", environment={KEY: OLD})
    found = units.compare()
    assert problems(found) == [("text.service", 2, "text")]
    assert [each.place for each in found if each.now] == ["text in systemd"]


def test_a_drop_in_is_named_and_one_that_a_later_one_outweighs_is_a_note(units: Units) -> None:
    directory = units.units / "text.service.d"
    directory.mkdir()
    (directory / "10-deploy.conf").write_text(f"[Service]\nEnvironment={KEY}={OLD}\n")
    units.change("text.service", environment={KEY: OLD})
    assert ("10-deploy.conf", 2, "text") in problems(units.compare())
    units.change("text.service", environment={KEY: NEW})  # what systemd makes of all of them
    found = units.compare()
    assert problems(found) == []
    assert [(each.line, "no effect" in each.text) for each in found] == [(2, True)]


def test_a_value_in_a_unit_below_its_env_file_is_a_note(units: Units) -> None:
    (units.units / "file.service").write_text(f"[Service]\nEnvironment={KEY}={OLD}\nEnvironmentFile={units.env_file}\n")
    units.change("file.service", environment={KEY: OLD})
    found = units.compare()
    assert problems(found) == []
    assert len(found) == 1


def test_environment_files_by_a_pattern_are_read(units: Units) -> None:
    (units.root / "parts").mkdir()
    (units.root / "parts" / "b.env").write_text(f"\n{KEY}={OLD}\n")
    units.change("reads.service", files=[f"{units.root}/parts/*.env"])
    assert problems(units.compare()) == [("b.env", 2, "reads")]


def test_crontabs_are_read_with_every_manager(units: Units, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "ETC", tmp_path / "etc")
    table = tmp_path / "etc" / "cron.d" / "product"
    table.parent.mkdir(parents=True)
    table.write_text(f"@reboot root systemctl set-environment {KEY}={OLD}\n")
    assert problems(units.compare()) == [("product", 1, "")]
    table.unlink()
    assert units.compare() == []


class Project(test_manager_compose.Host):
    """A project whose Compose file is there; all on the new DSN."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.env_file.write_text(f"{KEY}={NEW}\n")
        self.compose_file = root / "compose.yaml"
        self.write(NEW)
        project = self.project()
        project["services"]["text"]["environment"][KEY] = NEW
        for container in project["containers"].values():
            container["env"] = {KEY: NEW}
        self.store.write_text(test_manager_compose.json.dumps(project))

    def write(self, dsn: str) -> None:
        self.compose_file.write_text(f"services:\n  text:\n    environment:\n      {KEY}: {dsn}\n")

    def compare(self) -> list[Finding]:
        return compare(self.config, self.manager, self.root / "proc")

    def run(self, name: str, dsn: str) -> None:
        pid = self.project()["containers"][name]["pid"]
        (self.root / "proc" / str(pid)).mkdir(parents=True, exist_ok=True)
        (self.root / "proc" / str(pid) / "environ").write_text(f"{KEY}={dsn}\0")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_compose_project_on_the_target_is_no_finding(project: Project) -> None:
    project.run("text", NEW)
    assert project.compare() == []


def test_a_compose_file_that_names_the_old_dsn_is_a_problem_although_our_override_wins_now(project: Project) -> None:
    project.write(OLD)
    found = project.compare()
    assert problems(found) == [("compose.yaml", 4, "text")]
    assert "`docker compose up` would move text back" in found[0].text


def test_a_container_that_was_made_with_the_old_dsn_is_noticed_by_its_process(project: Project) -> None:
    project.run("text", OLD)
    found = project.compare()
    assert [(each.service, each.now) for each in found] == [("text", True)]
    assert "process 101" in found[0].place


@pytest.mark.parametrize(
    "text",
    [
        "    env_file: NAME",
        "    env_file: 'NAME' # why",
        "    env_file: [other.env,NAME]",
        "    env_file:\n      - other.env\n      - NAME",
        "    env_file:\n    - NAME",
        '    env_file:\n      - path: "NAME"\n        required: false\n    init: true',
    ],
)
def test_an_env_file_of_a_compose_file_is_read_wherever_it_is(project: Project, text: str) -> None:
    elsewhere = project.root / "elsewhere" / "deep" / "app.settings"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(f"A=1\n{KEY}={OLD}\n")
    for name in (str(elsewhere), "./elsewhere/deep/app.settings"):
        project.compose_file.write_text(f"services:\n  text:\n{text.replace('NAME', name)}\n")
        assert problems(project.compare()) == [("app.settings", 2, "")]
