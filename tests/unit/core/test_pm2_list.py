"""Every field of PM2's list is input: whatever JSON stands there, each reader reads it or refuses with its own error."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pm2_info
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glitchtip_core.errors import CoreError
from glitchtip_core.pm2_list import (
    Pm2Entry,
    as_number,
    as_text,
    as_whole,
    read_entries,
    read_entry,
)
from glitchtip_core.process import Completed
from glitchtip_cutover.config import Pm2Settings
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.manager import Process
from glitchtip_cutover.pm2 import Pm2
from glitchtip_ops.host_state import parse_pm2_list
from glitchtip_ops.process import OpsError

GOOD: dict[str, Any] = {
    "name": "api",
    "pm_id": 4,
    "pid": 77,
    "monit": {"memory": 5 * 2**20, "cpu": 1.5},
    "pm2_env": {
        "status": "online",
        "pm_uptime": 1_800_000_000_500,
        "restart_time": 3,
        "pm_cwd": "/opt/app",
        "exec_interpreter": "node",
        "node_args": ["--import", "./instrument.mjs"],
        "autorestart": True,
        "pmx_module": False,
        "env": {"SENTRY_DSN": "x"},
    },
}
#: As JavaScript prints and Python reads them: lone surrogates, huge numbers, NaN and Infinity are among them.
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\ud800", "\x00", "0"])
)
ANY = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
FIELDS = sorted([*GOOD["pm2_env"], "cron_restart", "cwd", "username", "exec_mode", "pm_exec_path", "PATH", "=", ""])


def listed(*entries: Any) -> str:
    return "[PM2] a notice\n" + json.dumps(entries) + "\n"


def check_values(found: Pm2Entry) -> None:
    """What the callers rely on: types, figures that can be used, texts that can be printed and given to a process."""
    assert isinstance(found.name, str)
    assert found.name
    for number in (found.pm_id, found.pid, found.restarts, found.memory):
        assert type(number) is int
    assert math.isfinite(found.started_at)
    assert math.isfinite(found.cpu)
    assert min(found.pid, found.restarts, found.memory) >= 0
    assert found.cwd
    texts = (found.name, found.status, found.cwd, found.script, found.exec_mode, found.interpreter, found.cron)
    for text in (*texts, found.username):
        text.encode()
    for name, value in found.environment.items():
        assert name
        assert "=" not in name
        assert b"\0" not in os.fsencode(name) + os.fsencode(value)


def read_by_the_switch(text: str) -> list[Process]:
    """What the switch makes of a PM2 that prints ``text``."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("glitchtip_core.pm2.call", lambda *_, **__: Completed(0, text, ""))
        return Pm2(Pm2Settings("root", None, Path("/usr/local/bin/pm2"), None)).processes()


def read_by_all(text: str) -> list[Pm2Entry] | None:
    """What the three readers make of ``text``: all read the same processes, or all refuse (None)."""
    try:
        entries = read_entries(text)
    except CoreError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        for reader, failure in ((read_by_the_switch, CutoverError), (parse_pm2_list, OpsError)):
            with pytest.raises(failure) as caught:
                reader(text)
            assert str(caught.value) == refusal
        return None
    cutover, ops = read_by_the_switch(text), parse_pm2_list(text)
    described = [pm2_info.describe(entry, 1_800_000_100.0) for entry in entries]
    seen = [(each.name, each.status, each.pid, each.restarts) for each in entries]
    assert [(each.name, each.status, each.pid, each.restarts) for each in cutover] == seen
    assert [(each.name, each.status, each.pid, each.restarts) for each in ops] == seen
    assert [(each["name"], each["status"], each["pid"], each["restarts"]) for each in described] == seen
    assert [each.healthy for each in cutover] == [each.healthy for each in entries]
    assert [each["healthy"] for each in described] == [each.healthy for each in entries]
    json.dumps(described, allow_nan=False).encode()
    return entries


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), ANY), st.dictionaries(st.sampled_from(sorted(GOOD)), ANY))
def test_a_field_of_any_type_is_read_by_all_readers_in_the_same_way(
    details: dict[str, Any], top: dict[str, Any]
) -> None:
    entry = {**GOOD, "pm2_env": {**GOOD["pm2_env"], **details}, **top}
    for found in read_by_all(listed(entry)) or []:
        check_values(found)


@settings(deadline=None)
@given(st.dictionaries(st.text(), SCALARS), ANY)
def test_variables_of_the_shell_never_hide_a_process(shell: dict[str, Any], env: Any) -> None:
    """PM2 keeps them beside its own settings, which win; only ``env`` it leaves to them."""
    entry = {**GOOD, "pm2_env": {**shell, **GOOD["pm2_env"], "env": env}}
    found = read_by_all(listed(entry))
    assert found is not None
    assert (found[0].name, found[0].pid, found[0].healthy) == ("api", 77, True)


@settings(deadline=None)
@given(st.one_of(st.text(), ANY.map(json.dumps), st.lists(ANY).map(lambda each: listed(*each))))
def test_any_output_is_a_list_or_refused(text: str) -> None:
    read_by_all(text)


def test_env_as_a_word_is_no_mapping() -> None:
    """``env=production pm2 start``: 'str' object has no attribute 'get'."""
    entry = {**GOOD, "pm2_env": {**GOOD["pm2_env"], "env": "production", "SENTRY_DSN": "y"}}
    assert read_entries(listed(entry))[0].environment["SENTRY_DSN"] == "y"
    assert pm2_info.describe(read_entry(entry), 0.0)["sentry_dsn_in_environment"] is True


@pytest.mark.parametrize("depth", [10_000, 200_000])
def test_a_list_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    with pytest.raises(CoreError, match="process list"):
        read_entries("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    ("cron", "autorestart", "job"),
    [
        ("0 3 * * *", False, True),
        ("0 3 * * *", "false", True),
        ("0 3 * * *", True, False),
        ("0", False, False),
        (0, False, False),
        (None, False, False),
        ({}, False, False),
    ],
)
def test_a_job_has_a_schedule_and_no_restart_of_its_own(cron: Any, autorestart: Any, job: bool) -> None:
    details = {**GOOD["pm2_env"], "cron_restart": cron, "autorestart": autorestart, "status": "stopped"}
    found = read_entry({**GOOD, "pid": 0, "pm2_env": details})
    assert (found.job, found.healthy) == (job, job)


def test_numbers_and_texts_of_any_kind() -> None:
    assert [as_whole(value) for value in (7, "7", 7.9, True, 10**30, "x", None, [])] == [7, 7, 7, 0, 0, 0, 0, 0]
    assert [as_number(value) for value in (1.5, "1.5", math.nan, math.inf, 10**400, {})] == [1.5, 1.5, 0, 0, 0, 0]
    assert [as_text(value, "-") for value in ("a\ud800", 1, True, None, [])] == ["a?", "1", "true", "-", "-"]


@settings(deadline=None)
@given(ANY)
def test_a_saved_list_of_any_kind_is_rewritten_or_refused(data: Any) -> None:
    """dump.pm2 lies in the user's directory."""
    import tempfile
    from pathlib import Path

    from glitchtip_cutover.config import Pm2Settings

    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        entries = [*(data if isinstance(data, list) else [data]), {"name": "api", "SENTRY_DSN": "old"}]
        (home / "dump.pm2").write_text(json.dumps(entries))
        assert Pm2(Pm2Settings("root", home, home / "pm2", None)).rewrite_dump("SENTRY_DSN", {"api": "new"})
        assert json.loads((home / "dump.pm2").read_text())[-1]["SENTRY_DSN"] == "new"
        (home / "dump.pm2").write_text(json.dumps({"name": data}))
        with pytest.raises(CutoverError, match="cannot be read"):
            Pm2(Pm2Settings("root", home, home / "pm2", None)).rewrite_dump("SENTRY_DSN", {"api": "new"})
