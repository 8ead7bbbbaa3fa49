"""What the roles write is what the tools read; the archive of the tools' source is reproducible."""

from __future__ import annotations

import re
import runpy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendered_variables import render, roles_variables

from glitchtip_ops.backup import BackupConfig
from glitchtip_ops.monitor import MonitorConfig
from glitchtip_ops.settings import Settings
from glitchtip_ops.soak import SoakConfig

ROOT = Path(__file__).resolve().parents[3]


def written(role: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "roles" / role / "vars/main.yml").read_text())[name]


@pytest.mark.parametrize(
    ("role", "name", "kind", "not_written"),
    [
        ("parallel_run", "__parallel_run_config", SoakConfig, set()),
        ("backups", "__backups_config", BackupConfig, set()),
        ("monitoring", "__monitoring_config", MonitorConfig, {"log_file"}),
        ("ops", "__ops_settings", Settings, {"token", "dsn"}),
    ],
)
def test_the_tools_know_every_key_that_a_role_writes(
    role: str, name: str, kind: Any, not_written: set[str]
) -> None:
    assert set(written(role, name)) == {each.name for each in fields(kind)} - not_written


@pytest.mark.parametrize(
    ("role", "kind"), [("parallel_run", SoakConfig), ("backups", BackupConfig), ("monitoring", MonitorConfig)]
)
def test_defaults_of_role_and_tool_are_the_same(role: str, kind: Any) -> None:
    names = [f"{role}_{each.name}" for each in fields(kind)]
    defaults = render(roles_variables(), [name for name in names if name in roles_variables()])
    own = kind()
    for each in fields(kind):
        default = defaults.get(f"{role}_{each.name}")
        if default is not None and default != {} and each.name != "alert_command":
            value = getattr(own, each.name)
            assert (list(value) if isinstance(value, tuple) else value) == default, each.name


def test_pins_of_the_server_are_those_of_the_repository() -> None:
    pins = {}
    for path in ("requirements.lock", "roles/ops/files/requirements.txt"):
        text = (ROOT / path).read_text()
        pins[path] = {
            match[1]: (match[2], frozenset(re.findall(r"--hash=(\S+)", match[3])))
            for match in re.finditer(r"(?m)^([a-z0-9-]+)==(\S+) \\\n((?:    .*\n?)+)", text)
        }
    server = pins["roles/ops/files/requirements.txt"]
    assert set(server) == {"requests", "sentry-sdk", "urllib3", "certifi", "charset-normalizer", "idna"}
    assert all(hashes for _, hashes in server.values())
    assert {name: pins["requirements.lock"][name] for name in server} == server


def test_the_archive_of_the_source_depends_on_nothing_but_the_source(tmp_path: Path) -> None:
    pack = runpy.run_path(str(ROOT / "roles/ops/files/pack_source.py"))["pack"]
    for name in ("one", "two"):
        package = tmp_path / name / "tools"
        (package / "__pycache__").mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "b.py").write_text("x = 1\n")
        (package / "__pycache__" / "b.pyc").write_bytes(name.encode())
    (tmp_path / "two" / "tools" / "b.py").chmod(0o600)
    first, second = (pack(tmp_path / name, ["tools"]) for name in ("one", "two"))
    assert first == second
    (tmp_path / "two" / "tools" / "b.py").write_text("x = 2\n")
    assert pack(tmp_path / "two", ["tools"]) != first
    with pytest.raises(SystemExit, match="not a Python package"):
        pack(tmp_path, ["one"])
