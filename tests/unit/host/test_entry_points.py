"""No command of ours takes a module or a program from the directory it is started in, or from its caller's variables.

Root runs these commands in directories that other users write to: a file ``argparse.py`` there must stay a file.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import trust_as_template
from rendered_variables import render, roles_variables

from glitchtip_core.process import SYSTEM_PATH, search_path
from glitchtip_cutover.bundle import bundle

ROOT = Path(__file__).resolve().parents[3]
#: Commands of containers run in their image, as its user and in its own directory.
IN_CONTAINERS = {"roles/glitchtip/templates/docker-compose.yml.j2"}
PYTHON = re.compile(r"python[0-9.]*$|_python(_|$)|playbook_python")
EXEC = re.compile(r"^Exec(?:Start|StartPre|StartPost|Condition|Reload|Stop)=[-@:+!]*(\S+(?: \}\})?)(.*)$", re.MULTILINE)
TEMPLATED = re.compile(r"\{\{.*?\}\}")


def files(*patterns: str) -> Iterator[tuple[str, str]]:
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "node_modules" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8", errors="replace")


def words(line: str) -> list[str]:
    """The words of a command line; an expression of a template is one word."""
    found: list[str] = []
    plain = TEMPLATED.sub(lambda match: match[0].replace(" ", "").replace("'", "").replace('"', ""), line)
    try:
        found = shlex.split(plain)
    except ValueError:
        found = plain.split()
    return found


def is_python(word: str) -> bool:
    name = word.strip("{}").split("|")[0]
    return bool(PYTHON.search(name)) or word.endswith(("/python", "/python3")) or "/bin/python" in word


def calls_of_python(line: list[str]) -> list[list[str]]:
    """Each call of an interpreter: what follows it."""
    return [line[number + 1 :] for number, word in enumerate(line) if is_python(word)]


def tasks(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from tasks(value)
    elif isinstance(node, list):
        for value in node:
            yield from tasks(value)


def entry_points() -> list[tuple[str, list[str]]]:
    """Every command line that units, scripts and tasks run: where it stands, and its words."""
    found: list[tuple[str, list[str]]] = []
    for name, text in files("roles/*/templates/*.service.j2", "roles/*/templates/*.timer.j2"):
        joined = text.replace("\\\n", " ")
        found += [(name, words(match[1] + match[2])) for match in EXEC.finditer(joined)]
    for name, text in files("roles/*/templates/*.sh.j2", "roles/*/files/*.sh"):
        lines = text.replace("\\\n", " ").splitlines()
        found += [(name, words(line)) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for name, text in files("roles/*/templates/*", "roles/*/files/*", "src/**/*.py", "library/*.py"):
        if text.startswith("#!") and "#!powershell" not in text:
            found.append((name, words(text.splitlines()[0][2:])))
    loader = DataLoader()
    for name, text in files("roles/*/tasks/*.yml", "roles/*/handlers/*.yml", "playbooks/**/*.yml"):
        for task in tasks(loader.load(text)):
            for module in ("command", "shell", "script"):
                given = task.get(f"ansible.builtin.{module}")
                if isinstance(given, dict) and isinstance(given.get("argv"), list):
                    found.append((name, [str(word).replace(" ", "") for word in given["argv"]]))
                elif isinstance(given, dict):
                    line = given.get("argv") or f"{given.get('executable', '')} {given.get('cmd', '')}"
                    found.append((name, re.findall(r"[^\s,\[\]'\"]+", str(line))))
                elif isinstance(given, str):
                    found.append((name, words(given)))
            for key in ("validate",):
                for value in task.values():
                    if isinstance(value, dict) and isinstance(value.get(key), str):
                        found.append((name, words(value[key])))
    return [(name, line) for name, line in found if name not in IN_CONTAINERS and line]


ENTRY_POINTS = entry_points()


def test_entry_points_are_found() -> None:
    names = {name for name, _ in ENTRY_POINTS}
    assert len(ENTRY_POINTS) > 100
    assert {
        "roles/ops/templates/glitchtip-ops.sh.j2",
        "roles/ops/tasks/python.yml",
        "roles/ops/tasks/install.yml",
        "roles/glitchtip/tasks/install.yml",
        "roles/glitchtip/tasks/configure.yml",
        "roles/ai-admin-cutover/templates/ai-admin-cutover-watch.service.j2",
        "roles/monitoring/templates/glitchtip-monitor.service.j2",
    } <= names
    assert sum(len(calls_of_python(line)) for _, line in ENTRY_POINTS) >= 10


def unsafe(line: list[str]) -> bool:
    """Whether an interpreter is started that would import from the current directory or PYTHONPATH."""
    return any("-I" not in after[:2] for after in calls_of_python(line))


def test_every_call_of_python_is_isolated() -> None:
    # AnsiballZ takes the interpreter from a module's first line and starts its own wrapper
    found = [f"{name}: {' '.join(line)}" for name, line in ENTRY_POINTS if unsafe(line) and not name.startswith("library/")]
    assert found == []


@pytest.mark.parametrize(
    "line",
    ["/usr/bin/python3 x.py", "python3 -m venv /x", "{{ ops_dir ~ '/venv/bin/python' }} -m glitchtip_ops", "{{ ansible_playbook_python }} x"],
)
def test_a_call_that_is_not_isolated_is_noticed(line: str) -> None:
    """Negative control."""
    assert unsafe(words(line))


def test_units_and_scripts_name_programs_by_their_paths() -> None:
    """Systemd looks a bare name up in its own fixed directories, but a variable of ours may be anything."""
    variables = render(roles_variables(), [name for name in roles_variables() if name.endswith(("_command", "_program"))])
    for name, line in ENTRY_POINTS:
        if not name.endswith(".service.j2"):
            continue
        program = line[0]
        variable = program.strip("{}")
        if variable in variables:
            assert str(variables[variable]).startswith("/"), (name, program)
        else:
            assert program.startswith(("/", "{{__parallel_run_nginx")), (name, program)


def test_scripts_that_call_programs_by_name_set_their_path() -> None:
    for name, text in files("roles/*/templates/*.sh.j2"):
        bare = [line for line in text.splitlines() if re.match(r"\s*(exec )?(docker|systemctl|python3?|node|pm2)\b", line)]
        if bare:
            assert re.search(r"^PATH=/\S+$", text, re.MULTILINE), (name, bare)
            places = re.search(r"^PATH=(\S+)$", text, re.MULTILINE)
            assert places is not None
            assert all(place.startswith("/") for place in places[1].split(":")), name


def test_programs_are_looked_for_in_absolute_directories_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, wanted in {
        ".:/usr/bin::bin:/bin:": "/usr/bin:/bin",
        "": SYSTEM_PATH,
        ".": SYSTEM_PATH,
        "/opt/x/bin:/usr/bin": "/opt/x/bin:/usr/bin",
    }.items():
        monkeypatch.setenv("PATH", given)
        assert search_path() == wanted


def test_no_other_place_hands_the_path_of_the_caller_on() -> None:
    for name, text in files("src/**/*.py"):
        if name != "src/glitchtip_core/process.py":
            assert not re.search(r"environ(\.get\(|\[)\"PATH\"(?!\] = search_path)", text), name


# ------------------------------------------------------------------ a directory with planted modules

PLANTED = (
    *("argparse", "json", "runpy", "re", "typing", "pathlib", "subprocess", "datetime", "random", "string"),
    *("requests", "urllib3", "glitchtip_ops", "glitchtip_api", "glitchtip_core", "glitchtip_cutover", "site"),
    *("sitecustomize", "usercustomize", "dataclasses", "importlib", "signal", "zipfile", "__main__"),
)


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A directory in which every module of a common name leaves a mark, and the mark."""
    mark = tmp_path / "canary"
    directory = tmp_path / "planted"
    home = directory / ".local/lib/python{}.{}/site-packages".format(*sys.version_info)
    home.mkdir(parents=True)
    code = f"open({str(mark)!r}, 'a').write(__name__ + '\\n')\n"
    for name in PLANTED:
        (directory / f"{name}.py").write_text(code)
        (home / f"{name}.py").write_text(code)
    return directory, mark


def run_in(directory: Path, argv: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f".:{os.environ['PATH']}",
        "HOME": str(directory),
        "PYTHONPATH": str(directory),
        "PYTHONSTARTUP": str(directory / "argparse.py"),
        "PYTHONUSERBASE": str(directory / ".local"),
    }
    return subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False)


def wrapper(root: Path) -> Path:
    """The installed command, with this repository's source and environment."""
    tools = root / "tools"
    tools.mkdir()
    (tools / "venv").symlink_to(sys.prefix)
    (tools / "src").symlink_to(ROOT / "src")
    template = (ROOT / "roles/ops/templates/glitchtip-ops.sh.j2").read_text(encoding="utf-8")
    given = {"command": trust_as_template(template), "ansible_managed": "x", "ops_dir": str(tools), "ops_config_dir": str(root)}
    path = root / "glitchtip-ops"
    path.write_text(str(render({**roles_variables(), **given}, ["command"])["command"]))
    path.chmod(0o755)
    return path


def test_the_command_of_the_tools_runs_no_planted_module(tmp_path: Path, planted: tuple[Path, Path]) -> None:
    directory, mark = planted
    done = run_in(directory, ["/bin/sh", str(wrapper(tmp_path)), "soak", "--help"])
    assert not mark.exists(), mark.read_text()
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: glitchtip-ops" in done.stdout


def test_a_planted_module_is_run_by_a_command_that_is_not_isolated(tmp_path: Path, planted: tuple[Path, Path]) -> None:
    """Negative control."""
    directory, mark = planted
    command = wrapper(tmp_path)
    assert command.read_text().count(" -I ") == 1
    command.write_text(command.read_text().replace(" -I ", " "))
    run_in(directory, ["/bin/sh", str(command), "soak", "--help"])
    assert mark.exists()


def test_the_command_of_the_switch_runs_no_planted_module(tmp_path: Path, planted: tuple[Path, Path]) -> None:
    directory, mark = planted
    program = tmp_path / "ai-admin-cutover"
    program.write_bytes(bundle(ROOT / "src/glitchtip_cutover"))
    shebang = program.read_bytes().split(b"\n", 1)[0].decode()[2:].split()
    assert shebang == ["/usr/bin/python3", "-I"]
    done = run_in(directory, [sys.executable, *shebang[1:], str(program), "--help"])
    assert not mark.exists(), mark.read_text()
    assert done.returncode == 0, done.stderr
    run_in(directory, [sys.executable, str(program), "--help"])
    assert mark.exists(), "control: without -I a planted module runs"
