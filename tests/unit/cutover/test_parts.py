"""The small parts: DSN, PM2's list, journal, events, the shipped file, configuration, role variables."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from glitchtip_core.dsn import parse_dsn, shown
from glitchtip_core.errors import CoreError
from glitchtip_core.pm2_list import read_entries, read_entry
from glitchtip_core.switch import KINDS
from glitchtip_core.transaction import journal as journal_module
from glitchtip_cutover.api import Event, parse_event
from glitchtip_cutover.bundle import bundle
from glitchtip_cutover.config_file import load_config, parse_config
from glitchtip_cutover.errors import CutoverError, ServiceError, UnprovenServiceError, UsageError
from glitchtip_cutover.heard import Attribution
from glitchtip_cutover.manager import Process
from glitchtip_cutover.pm2 import Pm2, process_of
from glitchtip_cutover.proof import check_report, read_report

ROOT = Path(__file__).resolve().parents[3]
KEY = "0123456789abcdef0123456789abcdef"
DSN = f"https://{KEY}@tracker.example.org:8443/base/12"


def test_a_dsn_shows_no_key() -> None:
    dsn = parse_dsn(DSN)
    assert (dsn.netloc, dsn.project_id, dsn.prefix) == ("tracker.example.org:8443", "12", "/base")
    assert dsn.envelope_url == "https://tracker.example.org:8443/base/api/12/envelope/"
    assert KEY not in repr(dsn) + str(dsn)


@pytest.mark.parametrize(
    "text", ["", "x", "http://host/1", "ftp://k@h/1", "http://k@h/", "http://k@h/1 ", "http://k@h:99999/1"]
)
def test_what_is_no_dsn_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(CutoverError) as caught:
        parse_dsn(text, "the value")
    assert str(caught.value) == "the value is not a DSN of the form scheme://key@host/project"
    assert shown(text) in ("-", "invalid")


def entry(**details: Any) -> dict[str, Any]:
    base = {"status": "online", "pm_uptime": 1_800_000_000_500, "restart_time": 3, "pm_cwd": "/opt/app"}
    return {"name": "api", "pm_id": 4, "pid": 77, "pm2_env": {**base, **details}}


def parse_process(found: dict[str, Any]) -> Process:
    return process_of(read_entry(found))


def test_pm2_list_is_found_behind_notices() -> None:
    text = f"[PM2] note\n>>>> In-memory PM2 is out-of-date\n{json.dumps([entry()])}\n"
    process = process_of(read_entries(text)[0])
    assert (process.name, process.pm_id, process.pid, process.restarts) == ("api", 4, 77, 3)
    assert process.started_at == 1_800_000_000.5
    assert read_entries("[]\n") == []
    with pytest.raises(CoreError, match="process list"):
        read_entries("[PM2] error\n")


def test_pm2_environment_is_what_the_process_gets() -> None:
    """PM2 passes scalars of its settings on, the newest value of a variable stands at the top."""
    process = parse_process(
        entry(
            env={"SENTRY_DSN": "old", "A": "1"},
            SENTRY_DSN="new",
            name="api",
            NODE_CHANNEL_FD="3",
            axm={"x": 1},
        )
    )
    assert process.environment["SENTRY_DSN"] == "new"
    assert process.environment["A"] == "1"
    assert process.environment["name"] == "api"
    assert "NODE_CHANNEL_FD" not in process.environment
    assert "axm" not in process.environment
    assert "new" not in repr(process)


def test_the_command_line_of_pm2_s_record_is_kept_whole() -> None:
    options = ["--inspect", "-r", "./a.js", "--env-file=.env"]
    process = parse_process(entry(node_args=options, pm_exec_path="/opt/app/a.js", args=["start", "-x"]))
    assert process.command == ("node", *options, "/opt/app/a.js", "start", "-x")
    binary = parse_process(entry(exec_interpreter="none", pm_exec_path="/opt/app/run", args="a b"))
    assert binary.command == ("/opt/app/run", "a", "b")


def test_a_cron_job_between_runs_is_healthy() -> None:
    job = parse_process(entry(cron_restart="0 3 * * *", autorestart=False, status="stopped") | {"pid": 0})
    assert job.idle_job
    assert job.healthy
    stopped = parse_process(entry(status="stopped") | {"pid": 0})
    assert not stopped.healthy


def test_saved_list_of_pm2_is_rewritten_only_where_it_carries_the_dsn(tmp_path: Path) -> None:
    dump = tmp_path / "dump.pm2"
    dump.write_text(
        json.dumps([{"name": "a", "SENTRY_DSN": "n", "env": {"SENTRY_DSN": "n"}}, {"name": "b", "env": {}}])
    )
    dump.chmod(0o640)
    settings = parse_config(configuration(tmp_path), tmp_path / "c").pm2
    assert Pm2(settings).rewrite_dump("SENTRY_DSN", {"a": "o", "b": "o"}) == ["a"]
    assert json.loads(dump.read_text()) == [
        {"name": "a", "SENTRY_DSN": "o", "env": {"SENTRY_DSN": "o"}},
        {"name": "b", "env": {}},
    ]
    assert dump.stat().st_mode & 0o777 == 0o640


def test_torn_last_line_is_ignored_and_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = journal_module.Journal(path, lambda: 5.0, kinds=KINDS)
    journal.append("apply_begin", attempt=1, new_dsn_sha256="x")
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert len(journal.records()) == 1
    path.write_bytes(whole + whole[:20])
    journal.append("applied", attempt=1)
    assert [record["event"] for record in journal.records()] == ["apply_begin", "applied"]
    assert [record["seq"] for record in journal.records()] == [1, 2]
    assert path.stat().st_mode & 0o777 == 0o600


def test_damage_before_the_last_line_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('garbage\n{"event": "applied"}\n')
    with pytest.raises(CutoverError, match="damaged in line 1"):
        journal_module.Journal(path, lambda: 0.0, kinds=KINDS).records()


@pytest.mark.parametrize(
    "data",
    [
        {
            "eventID": "AB" * 16,
            "dateCreated": "2026-01-01T00:00:01Z",
            "tags": [{"key": "service", "value": "api"}],
        },
        {"event_id": "ab" * 16, "date_created": "2026-01-01T00:00:01+00:00", "tags": [["service", "api"]]},
        {
            "id": "abababab-abab-abab-abab-abababababab",
            "dateReceived": 1767225601.0,
            "tags": {"service": "api"},
        },
    ],
)
def test_events_of_either_key_style_are_read(data: dict[str, Any]) -> None:
    assert parse_event(data) == Event("ab" * 16, 1767225601.0, {"service": "api"}, whole=False)


def test_the_start_of_the_sender_s_process_is_read_from_an_event() -> None:
    contexts = {"app": {"app_start_time": "2026-01-01T00:00:00.500Z"}}
    event = parse_event({"eventID": "a" * 32, "dateCreated": "2026-01-01T00:00:01Z", "contexts": contexts})
    assert event is not None
    assert (event.process_started, event.whole) == (1767225600.5, True)


def test_only_an_event_of_this_very_process_proves_it(tmp_path: Path) -> None:
    process = parse_process(entry())
    start = process.started_at
    good = Event("1" * 32, start + 1, {"service": "api"})
    known = Event("2" * 32, start + 1, {"service": "api"})
    others = [
        known,
        Event("3" * 32, start - 1, {"service": "api"}),
        Event("4" * 32, start + 1, {"service": "worker"}),
        Event("5" * 32, start + 1, {"service": "api", "cutover_probe": "service"}),
        Event("6" * 32, start + 1, {}),
        Event("7" * 32, start + 1, {"service": "api", "server_name": "another.example.org"}),
    ]
    config = parse_config(configuration(tmp_path), tmp_path / "c")
    attribution = Attribution(config, [process])

    def found(events: list[Event]) -> Event | None:
        return attribution.find(events, [process], {known.event_id}, lambda _: None)

    assert found(others) is None
    assert found([*others, good]) == good
    here = dataclasses.replace(good, tags={"service": "api", "server_name": socket.gethostname()})
    assert found([*others, here]) == here


def test_the_server_s_name_is_the_one_that_sdks_take() -> None:
    process = parse_process(entry())
    assert process.server_name == socket.gethostname()
    assert dataclasses.replace(process, hostname="3f2a").server_name == "3f2a"
    named = dataclasses.replace(process, hostname="3f2a", environment={"SENTRY_NAME": "web-1"})
    assert named.server_name == "web-1"


def test_a_report_must_carry_this_probe_s_marker() -> None:
    """Whatever the product prints, or its .env makes it print, is no report."""
    with pytest.raises(CutoverError, match="without a report"):
        read_report('@@cutover-probe-0@@{"host": "x"}\n', "@@cutover-probe-1@@", "api")
    assert read_report('noise\n@@1@@{"host": "x"}\nmore\n', "@@1@@", "api") == {"host": "x"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"host": "sentry.example.org"}, "would still report to sentry.example.org project 12"),
        ({"project_id": "13"}, "project 13"),
        ({"key_sha256": "0"}, "another key"),
    ],
)
def test_a_probe_on_another_dsn_is_refused(change: dict[str, str], sentence: str) -> None:
    """Whichever of its clients it is: copies and versions of the SDK keep their own."""
    good = {
        "host": "tracker.example.org:8443",
        "project_id": "12",
        "key_sha256": hashlib.sha256(KEY.encode()).hexdigest(),
    }
    check_report({"clients": [good]}, parse_dsn(DSN), "api")
    for clients in ([{**good, **change}], [good, {**good, **change}]):
        with pytest.raises(ServiceError, match=sentence) as caught:
            check_report({"clients": clients, "doubts": ["a reason"]}, parse_dsn(DSN), "api")
        assert "api" in str(caught.value)
        assert not isinstance(caught.value, UnprovenServiceError)


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        ({"unproven": "the SDK client has no DSN"}, "the SDK client has no DSN"),
        ({"doubts": ["a.js:1 holds a DSN"]}, "a.js:1 holds a DSN"),
        ({"clients": []}, "no SDK client"),
    ],
)
def test_a_probe_that_cannot_tell_is_no_proof(report: dict[str, Any], sentence: str) -> None:
    good = {"host": "tracker.example.org:8443", "project_id": "12", "key_sha256": hashlib.sha256(KEY.encode()).hexdigest()}
    with pytest.raises(UnprovenServiceError, match=sentence):
        check_report({"clients": [good], **report}, parse_dsn(DSN), "api")


def test_the_shipped_file_has_the_same_bytes_every_time_and_runs_isolated(tmp_path: Path) -> None:
    package = ROOT / "src" / "glitchtip_cutover"
    data = bundle(package)
    copy = tmp_path / "glitchtip_cutover"
    copy.mkdir()
    for path in sorted(package.glob("*.*"), reverse=True):
        (copy / path.name).write_bytes(path.read_bytes())
    shutil.copytree(ROOT / "src" / "glitchtip_core", tmp_path / "glitchtip_core")
    (copy / "left-over.txt").write_text("x")
    assert bundle(copy) == data
    program = tmp_path / "program.pyz"
    program.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-I", program, "status", "--config=/nonexistent", "--json"],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert json.loads(done.stdout)["reason"] == "there is no configuration file /nonexistent"


def test_nothing_but_the_standard_library_is_imported() -> None:
    """The way back has to work with the system's Python alone."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "import glitchtip_cutover.cli\n"
        "tops = {name.split('.')[0] for name in set(sys.modules) - before} - {'glitchtip_cutover', 'glitchtip_core'}\n"
        "print(sorted(tops - set(sys.stdlib_module_names)))"
    )
    out = subprocess.check_output([sys.executable, "-I", "-S", "-c", code, str(ROOT / "src")], text=True)
    assert out.strip() == "[]"


def configuration(root: Path, **changes: Any) -> dict[str, Any]:
    return {
        "migration_id": "m",
        "state_dir": str(root / "state"),
        "env_file": str(root / ".env"),
        "app_dir": str(root),
        "pm2": {"home": str(root)},
        "services": ["api"],
        **changes,
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"services": []}, "at least one"),
        ({"services": ["a", "a"]}, "twice"),
        ({"canary": "x"}, "canary x is not one of the services"),
        ({"without_sdk": ["api"]}, "both"),
        ({"strategy": "big_bang"}, "strategy"),
        ({"strategy": "canary_first"}, "strategy must be one_by_one or all_at_once"),
        ({"manager": "supervisor"}, "manager must be pm2, systemd or compose"),
        ({"services": [{"name": ""}]}, r"services\[0\].name"),
        ({"services": [{"name": "a", "dsn": "x"}]}, r"services\[0\].dsn is no setting"),
        ({"services": [{"name": "a", "dsn_file": "/d"}]}, "needs an env_file that is the service's own"),
        ({"services": [{"name": "a", "env_file": "/e", "project": "p"}]}, "needs the dsn_file"),
        (
            {
                "services": [
                    {"name": "a", "env_file": "/e", "dsn_file": "/d"},
                    {"name": "b", "env_file": "/e"},
                ]
            },
            "a and b one env_file but two new DSNs",
        ),
        ({"window": "whenever"}, "window must be like"),
        ({"window": 7}, "window must be a text"),
        ({"window": "Sun 06:00-08:00 Mars/Phobos"}, "does not know"),
        ({"verdict": {"file": "relative"}}, "verdict.file must be an absolute path"),
        ({"verdict": {"file": "/v", "max_age": 1}}, "verdict.max_age must be a number of seconds from 60"),
        ({"watch": {"interval": 30, "seconds": 10}}, "watch.interval is longer than the whole watch"),
        ({"watch": {"max_memory_percent": 101}}, "watch.max_memory_percent must be a number from 1 to 100"),
        ({"watch": {"max_memory_percent": 0}}, "watch.max_memory_percent"),
        ({"watch": {"missed_events": 0}}, "watch.missed_events"),
        ({"watch": {"missed_events": 1.5}}, "watch.missed_events must be a whole number"),
        ({"run_max": 30}, "run_max of 30 s is shorter"),
        ({"mirror": {"listen": "localhost"}}, "mirror.listen must be like"),
        ({"notify_file": "relative"}, "notify_file must be an absolute path"),
        ({"env_file": "relative"}, "absolute"),
        ({"probe_wait": -1}, "probe_wait"),
        ({"probe_wait": True}, "probe_wait"),
        ({"env_key": "A B"}, "env_key"),
        ({"pm2": []}, "pm2 must be a JSON object"),
        (
            {"new": {"api_url": "http://user:pass@host", "dsn_file": "/d", "token_file": "/t"}},
            "without credentials",
        ),
        ({"old": {"api_url": "http://host"}}, "old.organization"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        parse_config(configuration(tmp_path, **change), tmp_path / "config.json")
    assert caught.value.exit_code == 2


def test_the_new_tracker_is_read_from_the_settings_once_they_exist(tmp_path: Path) -> None:
    """The same configuration serves before the tracker is set up and after."""
    new = {
        "settings_file": str(tmp_path / "settings.json"),
        "dsn_file": "/d",
        "token_file": "/t",
        "api_url": "",
        "project_id": "",
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(configuration(tmp_path, new=new)))
    assert load_config(path).new is None
    settings = {
        "url": "http://127.0.0.1:8080",
        "organization": "o",
        "project": "p",
        "project_id": 5,
        "other": 1,
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    side = load_config(path).new
    assert side is not None
    assert (side.api_url, side.organization, side.project, side.project_id) == (
        "http://127.0.0.1:8080",
        "o",
        "p",
        "5",
    )


@pytest.mark.parametrize("content", ['{"stack_id": "s", "run_id": "r"}', "{", "[]", "{}", None])
def test_run_and_stack_come_from_the_settings_and_are_never_in_the_way(tmp_path: Path, content: str | None) -> None:
    settings = tmp_path / "settings.json"
    if content is not None:
        settings.write_text(content)
    new = {"settings_file": str(settings), "dsn_file": "/d", "token_file": "/t"}
    verdict = {"file": str(tmp_path / "verdict.json")}
    config = parse_config(
        configuration(tmp_path, new=new, verdict=verdict), tmp_path / "config.json", lenient=True
    )
    known = ("s", "r") if content and "stack_id" in content else ("", "")
    assert (config.stack_id, config.run_id) == known


def test_the_shipped_file_knows_where_its_host_keeps_things(tmp_path: Path) -> None:
    """An operator who types the command, and systemd at boot, give no option."""
    root, config = tmp_path / "state", tmp_path / "elsewhere" / "config.json"
    places = {"config": str(config), "state_root": str(root), "break_glass": "undo"}
    data = bundle(ROOT / "src" / "glitchtip_cutover", places)
    assert bundle(ROOT / "src" / "glitchtip_cutover", places) == data
    program, undo = tmp_path / "program.pyz", tmp_path / "undo"
    for path in (program, undo):
        path.write_bytes(data)
    for argv, said in (
        ([program, "status", "--json"], f"there is no configuration file {config}"),
        ([undo, "--json"], f"there is no configuration file {config}, and there is no copy of it in {root}"),
    ):
        done = subprocess.run(
            [sys.executable, "-I", *map(str, argv)], capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, json.loads(done.stdout)["reason"]) == (2, said)
    with pytest.raises(KeyError):
        bundle(ROOT / "src" / "glitchtip_cutover", {"confg": "/x"})


def test_a_configuration_of_before_the_new_settings_stays_valid(tmp_path: Path) -> None:
    config = parse_config(configuration(tmp_path), tmp_path / "config.json")
    assert (config.manager, config.strategy, config.canary) == ("pm2", "one_by_one", "api")
    assert (config.window, config.verdict, config.notify_file) == (None, None, None)
    assert config.mirror.listen == "http://127.0.0.1:19000"
    assert (config.watch.seconds, config.watch.missed_events) == (3600, 3)
    assert config.env_files == (tmp_path / ".env",)
    assert config.service("api").env_file == tmp_path / ".env"


def test_a_service_with_its_own_env_file_has_its_own_side(tmp_path: Path) -> None:
    new = {
        "api_url": "http://h",
        "organization": "o",
        "project": "p",
        "project_id": 3,
        "token_file": "/t",
        "dsn_file": "/d",
    }
    own = {"name": "b", "env_file": "/b/.env", "dsn_file": "/b/dsn", "project": "q"}
    config = parse_config(
        configuration(tmp_path, services=["a", own], canary="", new=new), tmp_path / "config.json"
    )
    assert config.services == ("a", "b")
    assert config.canary == ""
    assert config.env_files == (tmp_path / ".env", Path("/b/.env"))
    side, common = config.side_for("b"), config.side_for("a")
    assert side is not None
    assert common is not None
    assert (side.project, side.project_id, side.dsn_file) == ("q", None, Path("/b/dsn"))
    assert (common.project, common.project_id, common.dsn_file) == ("p", "3", Path("/d"))
    with pytest.raises(UsageError, match="there is no service c; the services are a, b"):
        config.service("c")


def test_for_the_way_back_only_what_it_needs_has_to_be_right(tmp_path: Path) -> None:
    """A damaged window, verdict or new tracker must not stand between a host and its way back."""
    broken = {"window": "whenever", "verdict": {"file": "x"}, "new": {"api_url": "nonsense"}, "run_max": 30}
    config = parse_config(configuration(tmp_path, **broken), tmp_path / "c", lenient=True)
    assert (config.window, config.verdict, config.new) == (None, None, None)
    with pytest.raises(UsageError):
        parse_config(configuration(tmp_path, **broken), tmp_path / "c")


def test_the_role_s_variables_are_documented_and_have_one_default() -> None:
    role = ROOT / "roles" / "ai-admin-cutover"
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    options = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    assert {name: option["default"] for name, option in options.items()} == defaults
