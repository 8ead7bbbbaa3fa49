"""The command, its settings and the way it runs programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glitchtip_api import GlitchTipError
from glitchtip_ops import cli
from glitchtip_ops.cli import Outcome, build_parser, main
from glitchtip_ops.process import OpsError, run
from glitchtip_ops.settings import load_settings, settings_directory

DSN = "http://" + "d" * 32 + "@127.0.0.1:8080/1"
TOKEN = "t" * 64


def write_settings(directory: Path, **changes: Any) -> Path:
    document = {
        "migration_id": "m1",
        "url": "http://127.0.0.1:8080",
        "public_url": "http://localhost:9090",
        "organization": "ai-admin",
        "project": "ai-admin",
        "project_id": "1",
        "compose_dir": "/opt/glitchtip",
        "backup_dir": "/var/backups/glitchtip",
        "state_dir": "/var/lib/glitchtip-ops",
        **changes,
    }
    (directory / "settings.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    (directory / "token").write_text(TOKEN + "\n")
    (directory / "dsn").write_text(DSN)
    return directory


def test_settings_are_read_and_show_no_secret(tmp_path: Path) -> None:
    """Token and DSN come without line ends, and are in no repr."""
    settings = load_settings(write_settings(tmp_path))
    assert (settings.token, settings.dsn) == (TOKEN, DSN)
    assert settings.compose_dir == Path("/opt/glitchtip")
    assert TOKEN not in repr(settings)
    assert "d" * 32 not in repr(settings)


def test_the_directory_can_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """GLITCHTIP_OPS_CONFIG_DIR wins; empty means the default."""
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", "/srv/staging")
    assert settings_directory() == Path("/srv/staging")
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", "")
    assert settings_directory() == Path("/etc/glitchtip-ops")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"project": None, "url": ""}, "lacks url, project"),
        ({"project_id": 1}, "lacks project_id"),
    ],
)
def test_incomplete_settings_name_what_lacks(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    """A missing, empty or wrongly typed key is named, with the file."""
    with pytest.raises(OpsError, match=complaint):
        load_settings(write_settings(tmp_path, **changes))


@pytest.mark.parametrize(("text", "complaint"), [("{", "is not JSON"), ("[]", "one JSON object")])
def test_settings_that_are_no_object(tmp_path: Path, text: str, complaint: str) -> None:
    """Broken JSON and a list are told apart."""
    write_settings(tmp_path)
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(OpsError, match=complaint):
        load_settings(tmp_path)


@pytest.mark.parametrize("name", ["settings.json", "token", "dsn"])
def test_a_missing_file_says_who_writes_it(tmp_path: Path, name: str) -> None:
    """Each of the three files is needed."""
    write_settings(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(OpsError, match=f"{name} is missing; playbooks/phase2_deploy.yml writes it"):
        load_settings(tmp_path)


def python(code: str, **options: Any) -> Any:
    return run([sys.executable, "-c", code], timeout=20, **options)


def test_a_program_gets_its_input_and_a_minimal_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this process's environment leaks into a program but PATH, HOME and DOCKER_HOST."""
    monkeypatch.setenv("SENTRY_DSN", "must-not-leak")
    done = python(
        "import os, sys; print(sys.stdin.read(), os.environ.get('SENTRY_DSN'), os.environ['EXTRA'])",
        stdin="hello",
        env={"EXTRA": "given"},
    )
    assert (done.code, done.stdout) == (0, "hello None given\n")


def test_a_failed_program_is_an_answer_with_a_reason() -> None:
    """The exit code and the first line of the complaint, without keys of DSNs."""
    done = python(
        f"import sys; print('cannot reach {DSN}', file=sys.stderr); print(2, file=sys.stderr); sys.exit(7)"
    )
    assert done.code == 7
    assert done.reason == "cannot reach http://***@127.0.0.1:8080/1"


def test_a_program_that_hangs_or_is_missing() -> None:
    """Both are one sentence; an argument list is never part of it."""
    with pytest.raises(OpsError, match=r"did not end within 0.3 s\.$") as hanging:
        run([sys.executable, "-c", "import time; time.sleep(9)"], timeout=0.3)
    assert "time.sleep" not in str(hanging.value)
    with pytest.raises(OpsError, match=r"program cannot be run: No such file"):
        run(["/no/such/program"], timeout=1)


def test_every_command_is_wired_and_has_help() -> None:
    """COMMANDS and the parser know the same commands, each with a sentence of help."""
    action: Any = build_parser()._subparsers._group_actions[0]  # type: ignore[union-attr]
    assert set(action.choices) == {name.replace("_", "-") for name in cli.COMMANDS}
    helped = {choice.dest for choice in action._choices_actions if choice.help}
    assert helped == set(action.choices)


def answer(monkeypatch: pytest.MonkeyPatch, outcome: Outcome | Exception, *argv: str) -> int:
    """Run the command with a handler that answers or raises ``outcome``."""

    def handler(_: object) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def register(subparsers: Any) -> None:
        subparsers.add_parser("try").set_defaults(handler=handler)

    monkeypatch.setattr(cli, "COMMANDS", ("try_module",))
    monkeypatch.setitem(sys.modules, "glitchtip_ops.try_module", SimpleNamespace(register=register))
    return main([*argv, "try"])


def test_lines_for_people_json_for_machines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same outcome in two forms, and the command's own exit code."""
    outcome = Outcome({"passed": False}, ["failed"], cli.BAD_ANSWER)
    assert answer(monkeypatch, outcome) == 3
    assert capsys.readouterr().out == "failed\n"
    assert answer(monkeypatch, outcome, "--json") == 3
    assert json.loads(capsys.readouterr().out) == {"passed": False}


@pytest.mark.parametrize("error", [OpsError("the disk is full"), GlitchTipError(detail="the disk is full")])
def test_an_error_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """Standard error has one line, standard output nothing, the exit code is 1."""
    assert answer(monkeypatch, error) == 1
    assert capsys.readouterr() == ("", "glitchtip-ops: the disk is full\n")
