"""A deploy, a shell or a boot that puts another DSN back is noticed: by file and line, or by process."""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import KEY, MIRROR, NEW, OLD, OWN_NEW, OWN_OLD, Simulation

from glitchtip_cutover import surroundings
from glitchtip_cutover.drift import run_drift
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.surroundings import read_surroundings, tool_of
from glitchtip_cutover.transaction import Cutover
from glitchtip_cutover.verify import run_verify

OLD_HOST = "sentry.example.org:9000"
# Another key, and another project, of the tracker that was left.
ROTATED = f"http://{'e' * 32}@{OLD_HOST}/7"
ELSEWHERE = f"https://{'f' * 32}@third.example.org/9"


class Product:
    """A simulated product on a real directory, and a /proc of its own."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.root, self.proc = root, root / "proc"
        self.proc.mkdir()
        for name in ("home", "etc", "pm2"):
            (root / name).mkdir()
        monkeypatch.setattr(surroundings, "user_home", lambda _user: str(root / "home"))
        monkeypatch.setattr(surroundings, "ETC", root / "etc")
        monkeypatch.setattr(surroundings, "SPOOL", root / "spool")
        user = pwd.getpwuid(os.geteuid()).pw_name
        pm2 = {"user": user, "node": str(root / "node"), "home": str(root / "pm2")}
        app = root / "app"
        app.mkdir()
        self.world = Simulation(root, pm2=pm2, app_dir=str(app), **options)
        self.app = app

    def cutover(self) -> Cutover:
        cutover = self.world.cutover()
        cutover.host.surroundings = lambda listed: read_surroundings(self.world.config, listed, self.proc)
        return cutover

    def switched(self, to: str = "glitchtip") -> Product:
        self.cutover().snapshot()
        self.cutover().apply(to)
        self.cutover().confirm()
        return self

    def write(self, name: str, text: str) -> Path:
        path = self.app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, pid: int, parent: int = 1, **environment: str) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        (self.proc / str(pid) / "stat").write_text(f"{pid} (a ) S 1 name) S {parent} 1\n")
        text = "\0".join(f"{key}={value}" for key, value in environment.items())
        (self.proc / str(pid) / "environ").write_text(text)

    def pid(self, name: str) -> int:
        return self.world.pm2.table[name].pid

    def problems(self) -> list[str]:
        """What every command says, which has to be the same."""
        status = self.cutover().status()
        cutover = self.cutover()
        drift = run_drift(cutover.config, cutover.host)
        found = [row["text"] for row in status["drift"] if row["problem"]]
        assert drift["drift"] == status["drift"]
        assert set(found) <= set(status["problems"])
        assert drift["problems"] == found
        for dsn in (OLD, NEW, ROTATED, ELSEWHERE, MIRROR):
            assert dsn.split("@")[0].rpartition("/")[2] not in json.dumps([status, drift])
        return found

    def verify(self) -> dict[str, Any]:
        return run_verify(self.world.config, self.cutover().host)


@pytest.fixture
def product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Product:
    return Product(tmp_path, monkeypatch)


def ecosystem(block: str, dsn: str, service: str = "api") -> str:
    return f"module.exports = {{\n  apps: [{{ name: '{service}',\n    {block}: {{ SENTRY_DSN: '{dsn}' }} }}],\n}};\n"


# --- files --------------------------------------------------------------------------------------------------

FILES: dict[str, tuple[str, str, int, str]] = {
    "env": ("ecosystem.config.cjs", ecosystem("env", OLD), 3, "`pm2 reload ecosystem.config.cjs` would move api back"),
    "env_production": (
        "ecosystem.config.js",
        ecosystem("env_production", OLD),
        3,
        "`pm2 reload ecosystem.config.js --env production` would move api back",
    ),
    "env of any name": ("prod.config.mjs", ecosystem("env_eu", ELSEWHERE), 3, "--env eu` would move api back"),
    "json": ("pm2.json", json.dumps({"apps": [{"name": "api", "env": {KEY: OLD}}]}), 1, "`pm2 reload pm2.json`"),
    "json config": ("app.config.json", json.dumps({"apps": [{"name": "api", "env": {KEY: OLD}}]}), 1, "`pm2 reload"),
    "yaml": (
        "ecosystem.config.yml",
        f"apps:\n  - name: api\n    env:\n      SENTRY_DSN: {OLD}\n",
        4,
        "`pm2 reload ecosystem.config.yml` would move api back",
    ),
    "a constant": (
        "ecosystem.config.js",
        f"const OLD = '{OLD}';\nmodule.exports = {{ apps: [{{ name: 'api', env: {{ SENTRY_DSN: OLD }} }}] }};\n",
        1,
        "OLD names",
    ),
    "in a directory of its own": ("deploy/pm2/ecosystem.config.js", ecosystem("env", OLD), 3, "would move api back"),
    "another key of the old tracker": ("ecosystem.config.js", ecosystem("env", ROTATED), 3, "would move api back"),
    "another tracker": ("ecosystem.config.js", ecosystem("env", ELSEWHERE), 3, "names third.example.org"),
    "empty": ("ecosystem.config.js", ecosystem("env", ""), 3, "is empty, so the SDK sends nothing"),
    "put together": ("ecosystem.config.js", ecosystem("env", f"http://${{KEY}}@{OLD_HOST}/7"), 3, f"names {OLD_HOST}"),
    ".env.local": (".env.local", f"A=1\n{KEY}={OLD}\n", 2, "a restart of a service that reads it"),
    ".env.production": (".env.production", f'export {KEY}="{OLD}"\n', 1, "a restart of a service that reads it"),
    ".env.production.local": (".env.production.local", f"{KEY}={ROTATED}\n", 1, "a restart of"),
    "an env file elsewhere": ("config/runtime.env", f"\n\n{KEY}={OLD}\n", 3, "a restart of"),
    "compose": (
        "docker-compose.yml",
        f"services:\n  api:\n    environment:\n      - {KEY}={OLD}\n",
        4,
        "`docker compose up` would move api back",
    ),
    "package.json": ("package.json", json.dumps({"name": "x", "scripts": {"start": f"{KEY}={OLD} node ."}}), 1, "`npm start`"),
    "a workflow": (".github/workflows/deploy.yml", f"jobs:\n  d:\n    env:\n      {KEY}: {OLD}\n", 4, "a deploy that uses it"),
    "gitlab": (".gitlab-ci.yml", f"variables:\n  {KEY}: {ROTATED}\n", 2, "a deploy that uses it"),
    "a script": ("bin/deploy.sh", f"#!/bin/sh\necho {KEY}={OLD} > .env\n", 2, "a deploy that uses it"),
    "a module of an ecosystem file": ("env.prod.js", f"module.exports = {{\n  {KEY}: '{OLD}',\n}};\n", 2, "a deploy that uses it"),
    "data of an ecosystem file": ("config/env.json", json.dumps({"production": {KEY: ROTATED}}), 1, "a deploy that uses it"),
    "an image": ("Dockerfile", f"FROM node\nENV {KEY} {OLD}\n", 2, "a deploy that uses it"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_would_put_another_dsn_back_is_named_before_and_after_the_switch(product: Product, case: str) -> None:
    name, text, line, told = FILES[case]
    product.cutover().snapshot()
    path = product.write(name, text)
    plan = product.cutover().plan()
    assert plan["ready"], plan["problems"]
    for notes in (plan["notes"], product.cutover().apply()["notes"]):
        assert len(notes) == 1, notes
        assert notes[0].startswith(f"{path}:{line} ")
        assert told in notes[0]
        assert f"Set it to the DSN in {product.root / 'new.dsn'}" in notes[0]
    product.cutover().confirm()
    assert product.problems() == notes
    with pytest.raises(CutoverError, match="do not fit") as failure:
        product.verify()
    assert failure.value.details["problems"] == notes
    path.write_text(text.replace(OLD, NEW).replace(ROTATED, NEW).replace(ELSEWHERE, NEW).replace("''", f"'{NEW}'")
                    .replace(f"http://${{KEY}}@{OLD_HOST}/7", NEW))  # fmt: skip
    assert product.problems() == []
    assert product.verify()["problems"] == []


HARMLESS = {
    "a comment": ("ecosystem.config.js", f"// {OLD}\nmodule.exports = {{ apps: [] }};\n"),
    "an example": (".env.example", f"{KEY}={OLD}\n"),
    "a copy": (".env.pre-glitchtip-20260101-0101", f"{KEY}={OLD}\n"),
    "a copy by date": (".env.20260101", f"{KEY}={OLD}\n"),
    "an editor's copy": (".env~", f"{KEY}={OLD}\n"),
    "a package": ("node_modules/x/ecosystem.config.js", ecosystem("env", OLD)),
    "an earlier release": ("releases/1/ecosystem.config.js", ecosystem("env", OLD)),
    "a fixture": ("tests/docker-compose.yml", f"services:\n  api:\n    environment:\n      {KEY}: {OLD}\n"),
    "another address of the target": ("ecosystem.config.js", ecosystem("env", NEW.replace("127.0.0.1:8080", "errors.example.org"))),
    "a variable of something else": ("ecosystem.config.js", ecosystem("env", OLD).replace(KEY, "AMQP").replace(OLD, "amqp://a@b/1")),
}  # fmt: skip
KNOWN_ONLY = {
    "a front end": (".env.production", f"VITE_SENTRY_DSN={OLD}\n", "it is not SENTRY_DSN"),
    "a default in code": ("src/instrument.mjs", f"init({{ dsn: process.env.{KEY} || '{OLD}' }});\n", "it is not SENTRY_DSN"),
    "settings of the product": ("config/production.json", json.dumps({"sentry": {"dsn": OLD}}), "it is not SENTRY_DSN"),
    "a stage": (".env.development", f"{KEY}={OLD}\n", "another stage"),
    "a staging project": ("ecosystem.config.js", ecosystem("env_staging", ROTATED), "another stage"),
    "a staging workflow": (".github/workflows/staging.yml", f"env:\n  {KEY}: {ROTATED}\n", "another stage"),
    "an application of others": ("ecosystem.config.js", ecosystem("env", OLD, "shop"), "shop is none of"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_no_program_reads_or_leads_to_the_target_alarms_nobody(product: Product, case: str) -> None:
    product.switched().write(*HARMLESS[case])
    assert product.problems() == []
    assert product.cutover().status()["notes"] == []


@pytest.mark.parametrize("case", KNOWN_ONLY)
def test_what_is_perhaps_of_others_is_a_note_with_its_reason(product: Product, case: str) -> None:
    name, text, why = KNOWN_ONLY[case]
    path = product.switched().write(name, text)
    assert product.problems() == []
    notes = product.cutover().status()["notes"]
    assert len(notes) == 1
    assert notes[0].startswith(f"{path}:")
    assert why in notes[0]


def test_a_deploy_that_rewrites_env_is_noticed_with_its_line(product: Product) -> None:
    product.switched()
    product.world.env_file.write_text(f"A=1\n\n{KEY}={OLD}\n")
    problem = product.problems()[0]
    assert problem.startswith(f"{product.world.env_file}:3 {KEY} names {OLD_HOST}, not 127.0.0.1:8080")
    assert "`ai-admin-cutover apply`" in problem
    product.cutover().apply()
    product.cutover().confirm()
    assert product.problems() == []


@pytest.mark.parametrize("text", ["A=1\n", f"{KEY}=\n", f"{KEY}=none\n", f"{KEY}={OLD}\n{KEY}={NEW}\n"])
def test_an_env_without_one_clear_dsn_is_noticed(product: Product, text: str) -> None:
    product.switched()
    product.world.env_file.write_text(text)
    assert len(product.problems()) == 1
    assert str(product.world.env_file) in product.problems()[0]


@pytest.mark.parametrize("broken", ["absent", "a directory", "a link to nothing"])
def test_an_env_that_cannot_be_read_is_noticed(product: Product, broken: str) -> None:
    product.switched()
    product.world.env_file.unlink()
    if broken == "a directory":
        product.world.env_file.mkdir()
    elif broken == "a link to nothing":
        product.world.env_file.symlink_to("absent")
    assert len(product.problems()) == 1
    assert str(product.world.env_file) in product.problems()[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give links to other users")
def test_the_env_that_the_switch_edits_is_read_as_the_switch_reads_it(product: Product) -> None:
    product.switched()
    product.world.env_file.rename(product.root / "shared")
    product.world.env_file.symlink_to("shared")
    os.lchown(product.world.env_file, 65534, 65534)
    (refused,) = product.problems()  # the switch would not edit a file of root's by another user's link
    assert "by a symbolic link of that user" in refused
    os.chown(product.root / "shared", 65534, 65534)
    assert product.problems() == []
    (product.root / "shared").write_text(f"{KEY}={OLD}\n")
    assert product.problems()[0].startswith(f"{product.world.env_file}:1 ")


def test_named_files_and_directories_elsewhere_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [str(tmp_path / "elsewhere"), str(tmp_path / "odd-name"), str(tmp_path / "absent")]
    product = Product(tmp_path, monkeypatch, deploy_files=files)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ecosystem.config.js").write_text(ecosystem("env", OLD))
    (tmp_path / "odd-name").write_text(f"{KEY}={OLD}\n")
    product.switched()
    assert [problem.split(" ")[0] for problem in product.problems()] == [
        f"{tmp_path}/elsewhere/ecosystem.config.js:3", f"{tmp_path}/odd-name:1",
    ]  # fmt: skip
    assert product.cutover().status()["notes"] == [f"{tmp_path}/absent of deploy_files is not there"]


def test_the_directory_in_which_a_service_runs_is_compared(product: Product) -> None:
    product.switched()
    directory = product.root / "somewhere" / "else" / "service"
    directory.mkdir(parents=True)
    (directory / "ecosystem.config.js").write_text(ecosystem("env", OLD))
    assert product.problems() == []
    table = product.world.pm2.table
    table["api"] = dataclasses.replace(table["api"], cwd=str(directory))
    assert product.problems()[0].startswith(f"{directory}/ecosystem.config.js:3 ")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("home/.bashrc", "pm2 restart --update-env"),
        ("home/.profile", "pm2 restart --update-env"),
        ("home/ecosystem.config.js", "pm2 reload"),
        ("etc/environment", "pm2 restart --update-env"),
        ("etc/profile.d/app.sh", "pm2 restart --update-env"),
        ("etc/systemd/system/pm2-USER.service", "pm2 restart --update-env"),
        ("etc/systemd/system/pm2-USER.service.d/env.conf", "pm2 restart --update-env"),
    ],
)
def test_what_a_shell_or_the_boot_exports_to_pm2_is_compared(product: Product, name: str, told: str) -> None:
    path = product.root / name.replace("USER", product.world.config.pm2.user)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ecosystem("env", OLD) if name.endswith(".js") else f"Environment={KEY}={OLD}\n"
    path.write_text(text)
    product.switched()
    assert len(product.problems()) == 1
    assert product.problems()[0].startswith(f"{path}:")
    assert told in product.problems()[0]


def test_the_saved_list_of_pm2_is_compared_for_the_services_alone(product: Product) -> None:
    read_no_more = {"env_production": {KEY: OLD}}
    entries = [{"name": "carrier", KEY: OLD, "env": {KEY: OLD}, **read_no_more}, {"name": "shop", KEY: OLD}]
    (product.root / "pm2" / "dump.pm2").write_text(json.dumps(entries, indent=2))
    product.cutover().snapshot()
    assert product.cutover().plan()["drift"] == []  # the switch itself has it written anew
    product.cutover().apply()
    product.cutover().confirm()
    found = product.problems()
    assert [problem.split(" ")[0].rpartition(":")[2] for problem in found] == ["4", "6"]
    assert "Run `pm2 save`" in found[0]


# --- processes ----------------------------------------------------------------------------------------------


def test_a_process_that_was_started_with_another_dsn_is_noticed(product: Product) -> None:
    product.switched()
    pid = product.pid("api")
    product.start(pid, NODE_ENV="production", SENTRY_DSN=OLD)
    problem = product.problems()[0]
    assert problem.startswith(f"api (process {pid}) runs with {KEY} in its environment, which names {OLD_HOST}, not 127.0.0.1:8080")
    product.start(pid, SENTRY_DSN=NEW)
    assert product.problems() == []
    product.start(pid, SENTRY_DSN="")
    assert "is empty" in product.problems()[0]


def test_what_a_service_starts_itself_is_looked_at_too(product: Product) -> None:
    """``npm start``: PM2 knows npm, and the script sets the variable for its child."""
    product.switched()
    product.start(product.pid("api"))
    product.start(7001, product.pid("api"))
    product.start(7002, 7001, SENTRY_DSN=OLD)
    assert "process 7002" in product.problems()[0]


def test_a_cluster_worker_is_judged_by_what_pm2_stored_for_it_over_the_daemons_environment(product: Product) -> None:
    product.switched()
    product.start(900, SENTRY_DSN=OLD)
    pid = product.pid("api")
    product.start(pid, 900, SENTRY_DSN=OLD, NODE_UNIQUE_ID="0", pm2_env=json.dumps({"name": "api"}))
    assert "api" in product.problems()[0]
    product.start(pid, 900, SENTRY_DSN=OLD, NODE_UNIQUE_ID="0", pm2_env=json.dumps({KEY: NEW}))
    assert product.problems() == []
    assert "PM2's daemon (process 900)" in product.cutover().status()["notes"][0]


def test_what_pm2_stores_is_compared(product: Product) -> None:
    product.switched()
    table = product.world.pm2.table
    table["silent"] = dataclasses.replace(table["silent"], environment={KEY: OLD})
    assert f"gives silent a {KEY} that names {OLD_HOST}" in product.problems()[0]


def test_one_sentence_for_all_processes_of_a_service(product: Product) -> None:
    product.switched()
    table = product.world.pm2.table
    table["api"] = dataclasses.replace(table["api"], environment={KEY: OLD})
    for pid in (product.pid("api"), 7001, 7002, 7003):
        product.start(pid, product.pid("api") if pid > 7000 else 1, SENTRY_DSN=OLD)
    assert len(product.problems()) == 1
    assert "and 1 more" in product.problems()[0]


def test_a_service_that_runs_since_before_env_changed_is_a_note(product: Product) -> None:
    product.switched()
    os.utime(product.world.env_file, (product.world.clock.now + 5000,) * 2)
    assert product.problems() == []
    assert any("api runs since before" in note for note in product.cutover().status()["notes"])


# --- which target -------------------------------------------------------------------------------------------


def test_before_any_switch_nothing_is_compared(product: Product) -> None:
    product.write("ecosystem.config.js", ecosystem("env", ELSEWHERE))
    assert product.problems() == []
    product.cutover().snapshot()
    assert product.problems() == []
    result = run_drift(product.world.config, product.cutover().host)
    assert (result["compared"], result["notes"]) == (False, ["no switch was made yet: there is nothing to compare with"])


def test_after_a_rollback_the_original_dsn_is_right_and_the_new_one_is_not(product: Product) -> None:
    product.switched().cutover().rollback()
    path = product.write("ecosystem.config.js", ecosystem("env", OLD))
    assert product.problems() == []
    path.write_text(ecosystem("env", NEW))
    assert "would move api away from sentry.example.org:9000" in product.problems()[0]
    path.write_text(ecosystem("env", ELSEWHERE))  # as it was before all this: not ours to judge
    assert product.problems() == []


def test_on_the_mirror_the_dsn_behind_it_bypasses_it(product: Product) -> None:
    product.switched("mirror")
    path = product.write("ecosystem.config.js", ecosystem("env", MIRROR))
    assert product.problems() == []
    path.write_text(ecosystem("env", OLD))
    assert "would move api back" in product.problems()[0]


def test_a_service_that_was_put_back_alone_may_be_where_it_is_and_no_other(product: Product) -> None:
    product.switched().cutover().rollback(service="api")
    product.start(product.pid("api"), SENTRY_DSN=OLD)
    path = product.write("ecosystem.config.js", ecosystem("env", OLD))
    assert product.problems() == []
    path.write_text(ecosystem("env", OLD, "silent"))
    assert len(product.problems()) == 1
    product.write(".env.local", f"{KEY}={OLD}\n")
    assert len(product.problems()) == 2


def test_services_with_their_own_project_are_held_to_their_own_dsn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = Product(tmp_path, monkeypatch, own=True).switched()
    path = product.write("ecosystem.config.js", ecosystem("env", OWN_NEW, "silent"))
    assert product.problems() == []
    path.write_text(ecosystem("env", NEW, "silent"))
    assert len(product.problems()) == 1
    path.write_text(ecosystem("env", OWN_OLD, "silent"))
    assert len(product.problems()) == 1
    path.unlink()
    product.world.own_file.write_text(f"{KEY}={OWN_OLD}\n")
    assert str(product.world.own_file) in product.problems()[0]


# --- it stops nothing ---------------------------------------------------------------------------------------


def _breaks(_listed: object) -> Any:
    raise RecursionError("secret")


@pytest.mark.parametrize("broken", [_breaks])
def test_whatever_goes_wrong_with_the_comparison_stops_no_switch(product: Product, broken: Callable[..., Any]) -> None:
    product.cutover().snapshot()
    cutover = product.cutover()
    cutover.host.surroundings = broken
    assert cutover.plan()["ready"]
    assert cutover.apply()["notes"] == []
    cutover.confirm()
    told = "settings files were not compared with the target: unexpected RecursionError"
    assert cutover.status()["problems"] == [told]
    with pytest.raises(CutoverError, match="were not compared"):
        run_drift(cutover.config, cutover.host)


def test_drift_says_that_services_were_not_compared_when_the_manager_does_not_answer(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    product.switched()

    def silent() -> Any:
        raise CutoverError("PM2 does not run")

    monkeypatch.setattr(product.world.pm2, "processes", silent)
    cutover = product.cutover()
    assert run_drift(cutover.config, cutover.host)["problems"] == [
        "running services were not compared: PM2 does not run"
    ]


def test_names_that_others_chose_act_on_no_terminal(product: Product) -> None:
    product.switched().write("a\x1b[2J\nb/ecosystem.config.js", ecosystem("env", OLD, "api\\n").replace(KEY, f"{KEY}\x1b"))
    product.write("a\x1b[2J\nb/.env.local", f"{KEY}={OLD}\n")
    result = product.cutover().status()
    told = [*result["problems"], *result["notes"], *(str(row) for row in result["drift"])]
    assert len(result["problems"]) == 1
    assert all(text.isprintable() for text in told)
    assert "a?[2J?b/.env.local:1 SENTRY_DSN" in result["problems"][0]


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        (".env", "env"), (".env.production", "env"), ("prod.env", "env"), (".envrc", None), (".env.bak", None),
        ("ecosystem.config.cjs", "ecosystem"), ("ecosystem.json", "ecosystem"), ("processes.json", "ecosystem"),
        ("my.config.yaml", "ecosystem"), ("compose.prod.yaml", "compose"), ("docker-compose.override.yml", "compose"),
        ("pnpm-lock.yaml", None), ("package-lock.json", None), ("index.js", None),
        ("settings.js", "deploy"), ("data.json", None), ("README.md", None), ("Dockerfile.prod", "deploy"),
    ],
)  # fmt: skip
def test_files_are_known_by_their_names(name: str, tool: str | None) -> None:
    assert (tool_of(name) or (None,))[0] == tool
