"""The command line: nonsense is one sentence before anything is asked of a server."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from unit.ops_local_test.support import SCRIPTS, Clock, Run, Sdk, Tracker

from glitchtip_ops.cli import build_parser, main
from glitchtip_ops.local_test import command
from glitchtip_ops.local_test.command import _terminable, scripts_digest, senders_of, target_of
from glitchtip_ops.process import OpsError


def parsed(*arguments: str) -> argparse.Namespace:
    return build_parser().parse_args(["local-test", *arguments])


@pytest.mark.parametrize(
    "option",
    [
        "--burst=0",
        "--burst=10001",
        "--burst=-5",
        "--burst=many",
        "--patience=0",
        "--patience=nan",
        "--patience=inf",
        "--grace=-1",
        "--max-latency=0",
        "--max-stack-mib=-1",
        "--uptime-interval=0",
        "--uptime-interval=32768",
        "--uptime-wait=1",
        "--port=65536",
        "--sdk=ruby",
    ],
)
def test_limits_that_make_no_sense_are_wrong_use(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and what may be given. Interval 0 would stop the checks of the whole instance."""
    with pytest.raises(SystemExit) as end:
        parsed(option)
    assert end.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err.splitlines()[-1]


def files(directory: Path) -> list[str]:
    (directory / "token").write_text("t" * 64 + "\n")
    (directory / "dsn").write_text("http://" + "d" * 32 + "@127.0.0.1:9/1\n")
    return [f"--token-file={directory / 'token'}", f"--dsn-file={directory / 'dsn'}"]


def test_a_server_of_ones_own_needs_all_of_its_five_options(tmp_path: Path) -> None:
    """What is missing is listed; whole, no settings of this host are read."""
    own = [*files(tmp_path), "--url=http://127.0.0.1:9", "--organization=o", "--project=p"]
    target = target_of(parsed(*own))
    assert (target.url, target.organization, target.project) == ("http://127.0.0.1:9", "o", "p")
    assert (target.token, target.dsn[-2:]) == ("t" * 64, "/1")
    with pytest.raises(OpsError, match=r"give --token-file, --dsn-file, --organization, --project too"):
        target_of(parsed("--url=http://127.0.0.1:9"))
    assert "t" * 64 not in repr(target)
    assert "d" * 32 not in repr(target)


def test_without_them_the_settings_of_the_host_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As role ops wrote them."""
    files(tmp_path)
    texts = (
        "migration_id",
        "organization",
        "project",
        "project_id",
        "compose_dir",
        "backup_dir",
        "state_dir",
    )
    document = {**dict.fromkeys(texts, "x"), "url": "http://127.0.0.1:8081", "public_url": "http://p"}
    (tmp_path / "settings.json").write_text(json.dumps(document))
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path))
    target = target_of(parsed())
    assert (target.url, target.organization, target.token) == ("http://127.0.0.1:8081", "x", "t" * 64)
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path / "none"))
    with pytest.raises(OpsError, match="is missing"):
        target_of(parsed())


def test_files_that_hold_nothing_are_named(tmp_path: Path) -> None:
    """Empty, missing, no text, no PEM."""
    own = [*files(tmp_path), "--url=http://127.0.0.1:9", "--organization=o", "--project=p"]
    (tmp_path / "token").write_text("\n")
    with pytest.raises(OpsError, match="token is empty: it has to hold the API token"):
        target_of(parsed(*own))
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    with pytest.raises(OpsError, match="not a text file"):
        target_of(parsed(*own))
    (tmp_path / "token").unlink()
    with pytest.raises(OpsError, match="No such file"):
        target_of(parsed(*own))
    with pytest.raises(OpsError, match="is not a file: give the PEM"):
        target_of(parsed(*own, "--ca-path=/nowhere.pem"))


def test_which_sdks_send(tmp_path: Path) -> None:
    """Both by default; Node.js needs the product's directory, Python does not."""
    own = [*files(tmp_path), "--url=http://127.0.0.1:9", "--organization=o", "--project=p"]
    options = parsed(*own, "--app-dir=/opt/ai-admin")
    assert [sender.name for sender in senders_of(options, target_of(options))] == ["node", "python"]
    options = parsed(*own, "--sdk=python")
    assert [sender.name for sender in senders_of(options, target_of(options))] == ["python"]
    options = parsed(*own)
    with pytest.raises(OpsError, match=r"give its directory \(--app-dir\)"):
        senders_of(options, target_of(options))


def test_the_checksum_is_that_of_both_scripts(tmp_path: Path) -> None:
    """A change of either makes an earlier report worthless."""
    first = scripts_digest(parsed())
    other = tmp_path / "scenarios.py"
    other.write_bytes((SCRIPTS / "scenarios.py").read_bytes() + b"\n")
    assert scripts_digest(parsed(f"--python-script={other}")) != first
    with pytest.raises(OpsError, match="cannot be read"):
        scripts_digest(parsed(f"--script={tmp_path / 'no.cjs'}"))


@pytest.mark.parametrize(("lose", "code"), [([], 0), ([1], 3)])
def test_the_report_is_kept_and_the_exit_code_is_the_verdict(
    lose: list[int],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """JSON with what was asked, Markdown beside it, readable for root alone; the same is printed."""
    tracker = Tracker(Clock())

    class Test(Run):
        def __init__(self, _: Any, senders: Any, *, stack: Any, uptime: Any, limits: Any) -> None:
            assert (stack, uptime) == (None, None)
            super().__init__(
                tracker, [Sdk(tracker, sender.name, lose=lose) for sender in senders], limits=limits
            )

    monkeypatch.setattr(command, "LocalTest", Test)
    own = [*files(tmp_path), "--url=http://127.0.0.1:9", "--organization=o", "--project=p"]
    result, text = tmp_path / "r/local_test.json", tmp_path / "r/local_test.md"
    more = [f"--result={result}", f"--markdown={text}", "--image=glitchtip:1", "--patience=5", "--grace=0"]
    arguments = [
        "--json",
        "local-test",
        *own,
        *more,
        "--sdk=python",
        "--burst=5",
        "--no-uptime",
        "--no-stack",
    ]
    assert main(arguments) == code
    kept = json.loads(result.read_text())
    assert kept == json.loads(capsys.readouterr().out)
    assert (kept["image"], kept["passed"]) == ("glitchtip:1", code == 0)
    assert kept["asked"] == {"sdks": ["python"], "bursts": [5], "uptime": False}
    assert kept["scenarios_sha256"] == scripts_digest(parsed())
    assert kept["proof"].startswith("10 of 10 scenarios of python")
    assert kept["table"][-1] == f"verdict: {'passed' if code == 0 else 'NOT passed'}"
    assert text.read_text().startswith("# Phase 1 proof: ")
    assert (result.stat().st_mode & 0o777, text.stat().st_mode & 0o777) == (0o600, 0o600)


def test_sigterm_ends_the_test_as_an_exception_does() -> None:
    """So that what was created is removed; afterwards the signal means what it did before."""
    before = signal.getsignal(signal.SIGTERM)

    def ended() -> None:
        with _terminable():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises(SystemExit) as end:
        ended()
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
