"""What phase 0 finds on the product's host: each fault alone has its own sentence, all together have all of them."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from glitchtip_core.http import Answer, HttpError, Trouble
from glitchtip_core.pm2_list import read_entry
from glitchtip_cutover import token_check
from glitchtip_cutover.config import Config
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.instrument_text import is_set_in
from glitchtip_cutover.manager import Process, file_watcher
from glitchtip_cutover.pm2 import process_of
from glitchtip_cutover.prechecks import (
    Findings,
    check_migrated_project,
    check_notifications,
    check_product,
    read_config,
)
from glitchtip_cutover.token_check import Given, tracker_problems

OLD = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@sentry.example.org:9000/7"
LABELS = "SENTRY_RELEASE=1\nSENTRY_ENVIRONMENT=production\n"
INSTRUMENT = "Sentry.init({ dsn: process.env.SENTRY_DSN })\n"


class Product:
    """A product on the disk under a manager in memory; ``find()`` judges it."""

    running = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env_file = root / ".env"
        self.env_file.write_text(f"SENTRY_DSN={OLD}\n{LABELS}")
        (root / "src").mkdir()
        (root / "src/instrument.js").write_text(INSTRUMENT)
        self.document: dict[str, Any] = {
            "migration_id": "m",
            "state_dir": str(root / "state"),
            "env_file": str(self.env_file),
            "app_dir": str(root),
            "pm2": {},
            "services": ["api", "bot"],
            "canary": "api",
            "window": "Sun 06:00-08:00",
            "strategy": "one_by_one",
        }
        self.listed = [self.process("api", 0), self.process("bot", 1)]

    def process(self, name: str, number: int, **changes: Any) -> Process:
        found = Process(
            name=name,
            pm_id=number,
            pid=100 + number,
            status="online",
            started_at=1.0,
            restarts=0,
            cwd=str(self.root),
            interpreter="node",
            command=("node", "app.js"),
            cron_job=False,
            module=False,
            environment={},
        )
        return dataclasses.replace(found, **changes)

    def change(self, name: str, **changes: Any) -> None:
        self.listed = [dataclasses.replace(one, **changes) if one.name == name else one for one in self.listed]

    def processes(self) -> list[Process]:
        return self.listed

    def config(self) -> Config:
        return parse_config(self.document, self.root / "config.json")

    def find(self, **options: Any) -> Findings:
        findings = Findings()
        config = read_config(self.document, findings)
        if config is not None:
            check_product(config, self, findings, **options)  # type: ignore[arg-type]
        return findings


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return Product(tmp_path)


def test_a_product_without_faults_has_no_problem(product: Product) -> None:
    assert product.find().result() == {"problems": [], "notes": []}


def window(product: Product) -> str:
    product.document["window"] = "So 06:00"
    return "ai_admin_cutover_window (So 06:00) must be like"


def canary(product: Product) -> str:
    product.document["canary"] = "apy"
    return "ai_admin_cutover_canary (apy) is none of the services: use one of api, bot"


def strategy(product: Product) -> str:
    product.document["strategy"] = "fast"
    return "ai_admin_cutover_strategy (fast) must be"


def instrument(product: Product) -> str:
    (product.root / "src/instrument.js").unlink()
    return "api, bot: there is no instrument file src/instrument.js, neither in"


def watch(product: Product) -> str:
    product.change("bot", watches_files="watch")
    return "bot: it is restarted whenever a file changes (watch)"


def switched_off_in_file(product: Product) -> str:
    product.env_file.write_text(product.env_file.read_text() + "SENTRY_ENABLED='False'\n")
    return "api, bot: SENTRY_ENABLED=False in "


def switched_off_in_process(product: Product) -> str:
    product.change("bot", environment={"SENTRY_DISABLED": "1"})
    return "bot: SENTRY_DISABLED=1 in its environment switches error tracking off"


def empty_in_process(product: Product) -> str:
    product.change("bot", environment={"SENTRY_DSN": ""})
    return "the service bot carries an empty SENTRY_DSN"


def broken_in_process(product: Product) -> str:
    product.change("bot", environment={"SENTRY_DSN": "https://example.org"})
    return "bot: the value of SENTRY_DSN in its environment of PM2 of user root is not a DSN"


def local_file(product: Product) -> str:
    (product.root / ".env.local").write_text(f"A=1\nSENTRY_DSN={OLD}\n")
    return ".env.local line 2 sets SENTRY_DSN too"


def mode_file(product: Product) -> str:
    product.change("api", environment={"NODE_ENV": "staging"})
    (product.root / ".env.staging.local").write_text(f"export SENTRY_DSN={OLD}\n")
    return ".env.staging.local line 1 sets SENTRY_DSN too"


def file_in_working_directory(product: Product) -> str:
    (product.root / "apps/bot").mkdir(parents=True)
    product.change("bot", cwd=str(product.root / "apps/bot"))
    (product.root / "apps/bot/.env").write_text(f"SENTRY_DSN={OLD}\n")
    return "apps/bot/.env line 1 sets SENTRY_DSN too"


def other_env_file(product: Product) -> str:
    product.change("bot", command=("node", "--env-file=conf/prod.env", "app.js"))
    return "bot: Node.js is started with --env-file="


def stranger(product: Product) -> str:
    product.listed.append(product.process("cron", 2))
    return "PM2 of user root also runs cron, which stands neither in"


FAULTS = [
    window,
    canary,
    strategy,
    instrument,
    watch,
    switched_off_in_file,
    switched_off_in_process,
    broken_in_process,
    local_file,
    mode_file,
    file_in_working_directory,
    other_env_file,
    stranger,
    empty_in_process,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_has_its_own_sentence(product: Product, fault: Any) -> None:
    sentence = fault(product)
    problems = product.find().result()["problems"]
    assert [text for text in problems if sentence in text], problems
    assert all(text.endswith((".", "?")) for text in problems)


def test_all_faults_are_reported_together(product: Product) -> None:
    sentences = [fault(product) for fault in FAULTS if fault not in (broken_in_process, switched_off_in_process, mode_file)]
    product.change("bot", environment={"SENTRY_DSN": "", "SENTRY_DISABLED": "1"})
    problems = product.find().result()["problems"]
    assert [sentence for sentence in sentences if not any(sentence in text for text in problems)] == []


@pytest.mark.parametrize("line", ["SENTRY_DSN=\n", "SENTRY_DSN=''\n", 'SENTRY_DSN=""\n', "A=1\nSENTRY_DSN= # later\n"])
def test_an_empty_dsn_is_named_with_its_line(product: Product, line: str) -> None:
    product.env_file.write_text(line + LABELS)
    (problem,) = product.find().result()["problems"]
    assert "line" in problem
    assert "SENTRY_DSN" in problem


def test_a_dsn_that_is_none_is_not_shown(product: Product) -> None:
    product.env_file.write_text(f"SENTRY_DSN=https://s3cret\n{LABELS}")
    (problem,) = product.find().result()["problems"]
    assert "line 1: the value of SENTRY_DSN is not a DSN" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    "name",
    [".env.example", ".env.sample", ".env.bak", ".env.backup-20260101", ".env.pre-glitchtip-20260101-0600", ".env~", ".envrc", ".env.local.old"],
)
def test_files_that_nobody_loads_are_left_alone(product: Product, name: str) -> None:
    (product.root / name).write_text(f"SENTRY_DSN={OLD}\n")
    assert product.find().result() == {"problems": [], "notes": []}


def test_a_file_of_another_mode_is_only_noted(product: Product) -> None:
    (product.root / ".env.test").write_text(f"SENTRY_DSN={OLD}\n")
    found = product.find().result()
    assert found["problems"] == []
    assert ".env.test line 1 sets SENTRY_DSN too, for NODE_ENV=test" in found["notes"][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
@pytest.mark.parametrize("name", [".env.local", ".env.test"])
def test_a_file_that_cannot_be_judged_is_told(product: Product, name: str) -> None:
    """The user's link to a file that root and the group of the product may read: the product reads it, and it wins."""
    vault = product.root / "vault"
    vault.mkdir()
    (vault / "env").write_text(f"SENTRY_DSN={OLD}\n")
    (vault / "env").chmod(0o640)
    (product.root / name).symlink_to(vault / "env")
    assert f"{name} line 1 sets SENTRY_DSN too" in str(product.find().result())  # the control: root's own link is read
    os.lchown(product.root / name, 54321, 54321)
    told = product.find().result()["problems" if name == ".env.local" else "notes"]
    assert len(told) == 1
    assert told[0].startswith(f"whether {product.root / name} sets SENTRY_DSN too cannot be judged (api, bot): {product.root / name} leads to")
    assert OLD not in told[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
def test_a_working_directory_that_cannot_be_listed_is_told(product: Product) -> None:
    """``current`` of another user leads to it, and ``.env.local`` in it would win."""
    (product.root / "releases" / "src").mkdir(parents=True)
    (product.root / "releases" / "src" / "instrument.js").write_text(INSTRUMENT)
    (product.root / "releases" / ".env.local").write_text(f"SENTRY_DSN={OLD}\n")
    (product.root / "current").symlink_to("releases")
    product.change("bot", cwd=str(product.root / "current"))
    assert "releases/.env.local line 1 sets" in str(product.find().result()).replace("current", "releases")  # the control
    os.lchown(product.root / "current", 54321, 54321)
    problems = product.find().result()["problems"]
    assert [text for text in problems if text.startswith(f"files beside .env in {product.root / 'current'} cannot be judged: ")]
    product.change("bot", cwd=str(product.root / "absent"))
    assert "cannot be judged" not in str(product.find().result())


def test_a_second_name_of_the_file_is_told_before_anything_else(product: Product) -> None:
    os.link(product.env_file, product.root / "second")
    assert [text for text in product.find().result()["problems"] if "has 2 names (hard links)" in text]


def test_a_file_that_the_switch_edits_is_no_other_file(product: Product) -> None:
    own = product.root / ".env.local"
    own.write_text(f"SENTRY_DSN={OLD}\n{LABELS}")
    (product.root / "bot.dsn").write_text(OLD)
    product.document["services"] = ["api", {"name": "bot", "env_file": str(own)}]
    assert product.find().result()["problems"] == []


@pytest.mark.parametrize("value", ["true", "1", "yes"])
def test_an_sdk_that_is_switched_on_is_no_problem(product: Product, value: str) -> None:
    product.env_file.write_text(f"{product.env_file.read_text()}SENTRY_ENABLED={value}\nDISABLE_SENTRY=false\n")
    product.change("bot", environment={"ENABLE_SENTRY": value})
    assert product.find().result()["problems"] == []


def test_the_process_environment_wins_over_the_file(product: Product) -> None:
    product.env_file.write_text(f"{product.env_file.read_text()}SENTRY_ENABLED=false\n")
    product.change("api", environment={"SENTRY_ENABLED": "true"})
    product.change("bot", environment={"SENTRY_ENABLED": "true"})
    assert product.find().result()["problems"] == []


@pytest.mark.parametrize(("option", "variable"), [("release", "SENTRY_RELEASE"), ("environment", "SENTRY_ENVIRONMENT")])
def test_a_missing_label_is_noted_with_the_line_to_add(product: Product, option: str, variable: str) -> None:
    text = product.env_file.read_text()
    product.env_file.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith(variable)))
    (note,) = product.find().result()["notes"]
    assert f"api, bot: events carry no {option}" in note
    assert f"Add the line `{variable}=" in note
    product.change("api", environment={variable: "x"})
    (note,) = product.find().result()["notes"]
    assert note.startswith("bot: ")
    (product.root / "src/instrument.js").write_text(f"Sentry.init({{ dsn, {option}: 'x' }})\n")
    assert product.find().result()["notes"] == []


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("Sentry.init({ release: 'a' })", True),
        ("Sentry.init({\n  dsn,\n  release,\n})", True),
        ("Sentry.init({ 'release': x })", True),
        ("options.release = x; Sentry.init({})", True),
        ("Sentry.init(options)", True),
        ("Sentry.init({ ...options })", True),
        ("Sentry.init({ dsn })", False),
        ("// release: 'a'\nSentry.init({ dsn })", False),
        ("/* release: 'a' */ Sentry.init({ dsn: 'https://x' })", False),
        ("Sentry.init({ releaseNotes: 1 })", False),
    ],
)
def test_options_of_an_instrument_file(text: str, given: bool) -> None:
    assert is_set_in(text, "release") is given


def test_services_that_are_down_are_told_once(product: Product) -> None:
    product.listed = [product.process("api", 0, status="stopped", pid=0)]
    assert len(product.find().result()["problems"]) == 2
    assert product.find(known_offline=True).result()["problems"] == []
    product.running = False
    product.listed = []
    assert product.find(known_offline=True).result()["problems"] == []


def test_a_faulty_tracker_hides_nothing_of_the_product(product: Product) -> None:
    product.document["old"] = {"api_url": "sentry.example.org", "organization": "o", "project": "p", "token_file": "/x"}
    local_file(product)
    told = product.find().result()["problems"]
    assert "old.api_url must be an http or https address" in told[0]
    assert ".env.local" in told[1]


def test_a_manager_that_cannot_be_asked_is_a_problem(product: Product) -> None:
    def refuse() -> list[Process]:
        raise CutoverError("systemd does not answer")

    product.processes = refuse  # type: ignore[method-assign]
    assert product.find().result()["problems"] == ["systemd does not answer."]


# ---------------------------------------------------------------------- PM2


@pytest.mark.parametrize(
    ("details", "named"),
    [
        ({"watch": True}, "watch"),
        ({"watch": ["src"]}, "watch"),
        ({"watch": "true"}, "watch"),
        ({"node_args": ["--watch"]}, "--watch"),
        ({"node_args": "--watch-path=./src"}, "--watch-path"),
        ({"pm_exec_path": "/opt/app/node_modules/nodemon/bin/nodemon.js"}, "nodemon"),
        ({"watch": False}, ""),
        ({"watch": []}, ""),
        ({"watch": "/dev/null"}, ""),
        ({"pm_exec_path": "/opt/app/watch.js", "args": ["--watchdog"]}, ""),
    ],
)
def test_restarts_by_changed_files_are_seen(details: dict[str, Any], named: str) -> None:
    entry = {"name": "api", "pid": 1, "pm_id": 0, "pm2_env": {"status": "online", **details}}
    assert process_of(read_entry(entry)).watches_files == named


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["node", "--watch", "src/index.js"], "--watch"),
        (["/usr/bin/node", "--watch-path=./src", "index.js"], "--watch-path"),
        (["npx", "nodemon", "index.js"], "nodemon"),
        (["node", "node_modules/.bin/nodemon.js"], "nodemon"),
        (["node", "src/watch.js", "--watchdog"], ""),
        ([], ""),
    ],
)
def test_a_command_line_that_watches_files_is_seen_under_every_manager(words: list[str], named: str) -> None:
    assert file_watcher(words) == named


# ---------------------------------------------------------------------- trackers


class Answers:
    """Plays Sentry's API: a status for every request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: int, body: object = None) -> None:
        self.tokens: list[str | None] = []

        def answered(_url: str, *, what: str, headers: dict[str, str], **_more: Any) -> Answer:
            self.tokens.append(headers["Authorization"])
            if status == 0:
                raise HttpError(
                    what, Trouble.NAME, "has a name that cannot be resolved", "Name or service not known"
                )
            data = json.dumps(body if body is not None else {"id": "7"}).encode()
            return Answer(status, {"content-type": "application/json"}, data)

        monkeypatch.setattr("glitchtip_cutover.api.request", answered)
        monkeypatch.setattr("glitchtip_cutover.api.time.sleep", lambda _seconds: None)


def given(**changes: str) -> Given:
    values = {
        "variables": "ops_sentry",
        "address_variable": "ops_sentry_url",
        "address": "https://sentry.example.org",
        "organization": "o",
        "project": "p",
        "token": "abcdef0123456789",
    }
    return Given(**{**values, **changes})


def test_a_token_that_reads_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch, 200)
    assert tracker_problems(given()) == ([], "7")
    assert answers.tokens == ["Bearer abcdef0123456789"] * 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "refused ops_sentry_token (401): the token is wrong, revoked or expired"),
        (403, "refused ops_sentry_token (403): the token lacks a scope"),
        (404, "knows no project o/p"),
        (0, "has a name that cannot be resolved: Name or service not known"),
        (302, "answered 302"),
    ],
)
def test_what_a_tracker_answers_is_told_without_the_token(monkeypatch: pytest.MonkeyPatch, status: int, words: str) -> None:
    Answers(monkeypatch, status, {"detail": "No"})
    (problem,), number = tracker_problems(given())
    assert words in problem
    assert 'or set ops_sentry_url and ops_sentry_token to "" to do without.' in problem
    assert "abcdef" not in problem
    assert number == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token": ""}, "ops_sentry_token is empty although ops_sentry_url is set"),
        ({"token": "replace-me-token"}, "ops_sentry_token is a placeholder"),
        ({"token": "two words"}, "ops_sentry_token is a placeholder or no token"),
        ({"organization": ""}, "ops_sentry_organization must be the slug"),
        ({"project": "my project"}, "ops_sentry_project must be the slug"),
        ({"address": "sentry.example.org"}, "ops_sentry_url must be an http or https address"),
    ],
)
def test_what_cannot_be_right_is_told_without_asking(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], words: str
) -> None:
    answers = Answers(monkeypatch, 200)
    problems, _ = tracker_problems(given(**changes))
    assert len(problems) == 1
    assert words in problems[0]
    assert answers.tokens == []


def test_nobody_waits_for_a_silent_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_check._LIMIT <= 30
    Answers(monkeypatch, 0)
    assert len(tracker_problems(given())[0]) == 1


def test_the_dsn_must_be_of_the_project_that_rollbacks_are_proven_in(product: Product) -> None:
    for number, told in (("7", 0), ("9", 1), ("", 0)):
        findings = Findings()
        check_migrated_project(product.config(), number, findings)
        assert len(findings.problems) == told
        assert all("has the id 9" in text for text in findings.problems)


def test_after_the_first_snapshot_the_dsn_may_be_the_new_one(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glitchtip_cutover.prechecks.Snapshot.exists", True)
    findings = Findings()
    check_migrated_project(product.config(), "9", findings)
    assert findings.problems == []


def test_notifications_are_checked_without_showing_them() -> None:
    findings = Findings()
    check_notifications({"targets": [{"kind": "slck", "name": "team", "url": "https://hooks.example.org/s3cret"}]}, findings)
    (problem,) = findings.problems
    assert problem.startswith("ai_admin_cutover_notify: targets[0]: kind must be one of")
    assert "s3cret" not in problem
