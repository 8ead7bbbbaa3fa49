"""Each source of facts is read in one place: PM2's list, meminfo and control groups, the journal. A second copy drifts.

One had ``pm2`` called by a PATH that a timer does not have, another said "all services on GlitchTip" while one was on Sentry.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from unit.core.product import FILES, ROOT, code_of, name_of

CORE = "src/glitchtip_core/"
INTERPRETER = f"{CORE}transaction/state.py"
#: What a file does that reads one of them -> the only file that may.
SIGNS: dict[str, tuple[str, str]] = {
    "PM2's list is asked for": (r"\bjlist\b", f"{CORE}pm2.py"),
    "fields of PM2's list": (r"\b(pm_uptime|restart_time|pmx_module)\b", f"{CORE}pm2_list.py"),
    "meminfo": (r'^"?/?(proc/)?meminfo"?$(?<!"meminfo")|/proc/meminfo|\bMem(Free|Available):', f"{CORE}memory.py"),
    "memory of control groups": (
        r"\bmemory\.(current|max|peak|stat|events|usage_in_bytes|limit_in_bytes|oom_control)\b|\bhierarchical_memory_limit\b",
        f"{CORE}memory.py",
    ),
    "control groups": (r"\bmountinfo\b|\bcgroup2\b|/proc/\S+/cgroup\b|\bcpu\.(max|cfs_\w+)\b", f"{CORE}cgroups.py"),
    "the name of the journal": (r"\bjournal\.jsonl\b", f"{CORE}switch.py"),
}
#: Files that show the name of such a source to people, and read nothing.
SHOWN = {
    "PM2's list is asked for": {f"{CORE}pm2_list.py", "library/pm2_info.py"},
}


@cache
def whole_code() -> dict[str, str]:
    return {name_of(path): code_of(path) for path in FILES}


def readers(sign: str) -> set[str]:
    pattern = re.compile(SIGNS[sign][0], re.MULTILINE)
    return {name for name, code in whole_code().items() if pattern.search(code)} - SHOWN.get(sign, set())


@pytest.mark.parametrize("sign", SIGNS)
def test_each_source_is_read_in_one_file(sign: str) -> None:
    assert len(FILES) > 200
    assert readers(sign) == {SIGNS[sign][1]}


@pytest.mark.parametrize(
    ("sign", "name", "text"),
    [
        ("PM2's list is asked for", "x.py", 'run(["pm2", "jlist"])'),
        ("PM2's list is asked for", "x.yml", "argv: [pm2, jlist]"),
        ("fields of PM2's list", "x.j2", "{{ entry.pm2_env.pm_uptime }}"),
        ("meminfo", "x.py", 'open("/proc/meminfo")'),
        ("meminfo", "x.sh", "grep MemTotal /proc/meminfo"),
        ("meminfo", "x.sh", "awk '/MemAvailable:/ {print $2}'"),
        ("memory of control groups", "x.py", 'read(directory / "memory.max")'),
        ("control groups", "x.py", 'open(f"/proc/{pid}/cgroup")'),
        ("control groups", "x.py", 'text.split(" - cgroup2 ")'),
        ("the name of the journal", "x.py", 'directory / "journal.jsonl"'),
        ("the name of the journal", "x.yml", "path: /var/lib/ai-admin-cutover/m/journal.jsonl"),
    ],
)
def test_a_second_reader_is_found(tmp_path: Path, sign: str, name: str, text: str) -> None:
    """The negative control: such a line is found, a comment or a documentation of it is not."""
    pattern = re.compile(SIGNS[sign][0], re.MULTILINE)
    (tmp_path / name).write_text(text)
    assert pattern.search(code_of(tmp_path / name))
    said = f'"""{text.replace(chr(34), "")}"""\n' if name.endswith(".py") else f"# {text}\n"
    (tmp_path / name).write_text(said)
    assert not pattern.search(code_of(tmp_path / name))


# --- the journal's records


def compared(source: str) -> Iterator[str]:
    """The texts that a Python file compares something with, or selects by."""
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        for part in parts:
            for each in ast.walk(part):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value


PHASES = {"none", "applying", "applied", "confirmed", "rolling_back", "rolled_back"}
#: The events of records that the interpreter looks for, found in its own code; words that are phases, too, are none of a kind.
EVENTS = {word for word in compared((ROOT / INTERPRETER).read_text()) if "_" in word} - PHASES


def interpreted(path: Path) -> set[str]:
    """Events of the journal that a file decides by: compared in Python, named at all elsewhere."""
    if path.suffix == ".py":
        return EVENTS & set(compared(path.read_text()))
    return {event for event in EVENTS if re.search(rf"\b{event}\b", code_of(path))}


def test_the_journal_has_one_interpreter() -> None:
    assert {"apply_begin", "rollback_begin", "override_begin", "override_removed", "override_dropped"} <= EVENTS
    assert {name_of(path) for path in FILES if interpreted(path)} == {INTERPRETER}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.py", 'if event == "apply_begin":\n    pass'),
        ("x.py", 'if record["event"] in ("override_begin", "override_done"):\n    pass'),
        ("x.py", 'match event:\n    case "rollback_begin":\n        pass'),
        ("x.py", 'TOLD = {"apply_begin": "not finished"}'),
        ("x.yml", "that: lines | selectattr('event', 'equalto', 'rollback_begin') | list"),
        ("x.sh", "grep -c override_begin journal"),
    ],
)
def test_a_second_interpreter_is_found(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert interpreted(tmp_path / name)


def test_writing_a_record_is_no_interpreting(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text('journal.append("apply_begin", attempt=1)')
    assert not interpreted(tmp_path / "x.py")


# --- durable files of our own


#: Files that make something durable by themselves, and why they do not use the layer (``files.py``).
DURABLE = {
    f"{CORE}files.py": "the layer",
    f"{CORE}transaction/journal.py": "cuts off a record that could not be written as a whole",
    "src/glitchtip_ops/backup/making.py": "a dump that another program writes into the open file",
    "src/glitchtip_ops/backup/encryption.py": "a dump that another program writes into the open file",
    "library/migration_evidence.py": "tasks of several hosts may write one record at once, each beside it under a name of its own",
    "roles/glitchtip/files/generate_secrets.py": "runs by itself, before anything of ours is on the server",
}


def calls(source: str, name: str) -> bool:
    """Whether a Python file calls ``os.NAME``, under whatever name it imported it."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr == name)
        or (isinstance(node, ast.alias) and node.name == name)
        for node in ast.walk(ast.parse(source))
    )


def test_files_are_made_durable_in_one_layer() -> None:
    found = {name_of(path) for path in FILES if path.suffix == ".py" and calls(path.read_text(), "fsync")}
    assert found == set(DURABLE)


@pytest.mark.parametrize("source", ["import os\nos.fsync(1)", "from os import fsync\nfsync(1)", "from os import fsync as sync"])
def test_a_second_layer_is_found(source: str) -> None:
    assert calls(source, "fsync")
    assert not calls("from .files import fsync_file\nfsync_file(1, path)", "fsync")


# --- errors


def bases(source: str) -> set[str]:
    """Classes of errors of a file that are derived from none of ours; one with an underscore is no other file's."""
    foreign = {"Exception", "RuntimeError", "ValueError", "OSError", "KeyError", "TypeError"}
    return {
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and any(isinstance(base, ast.Name) and base.id in foreign for base in node.bases)
    }


def test_errors_have_one_base_and_the_client_that_stands_alone_its_own() -> None:
    """What else is derived from none of them never leaves its own module."""
    found = {
        f"{name_of(path)}: {name}"
        for path in FILES
        if path.suffix == ".py" and path.is_relative_to(ROOT / "src")
        for name in bases(path.read_text())
    }
    within = {
        f"{CORE}notify/transport.py: NotSentError",
        "src/glitchtip_ops/local_test/uptime.py: NotRunError",
        "src/glitchtip_api/limits.py: CircuitOpen",
    }
    assert found - within == {f"{CORE}errors.py: CoreError", "src/glitchtip_api/errors.py: GlitchTipError"}
    assert bases("class OpsError(Exception):\n    pass") == {"OpsError"}
