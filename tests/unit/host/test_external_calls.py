"""Every call that leaves this process has a limit: no program, request or connection may be waited for for ever."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(
    path
    for place in ("src", "library", "roles", "filter_plugins")
    for path in (ROOT / place).rglob("*.py")
    if "__pycache__" not in path.parts
)
#: Calls that wait, by the last parts of their name, and the position of their limit where it may be given by position.
LIMITED = {
    "subprocess.run": None,
    "subprocess.call": None,
    "subprocess.check_call": None,
    "subprocess.check_output": None,
    "urllib.request.urlopen": 2,
    "urlopen": 2,
    "opener.open": 2,
    "_opener.open": 2,
    "socket.create_connection": 1,
    "smtplib.SMTP": None,
    "smtplib.SMTP_SSL": None,
    "http.client.HTTPConnection": None,
    "http.client.HTTPSConnection": None,
    **{f"requests.{verb}": None for verb in ("request", "get", "post", "put", "patch", "delete", "head")},
    "open_url": None,
    "fetch_url": None,
}
#: Calls without any way to limit them.
FORBIDDEN = ("os.system", "os.popen", "module.run_command", "requests.Session", "subprocess.getoutput")
#: Programs that are talked to while they run: who limits each of them.
HELD = {
    "src/glitchtip_core/process.py": "_exchange() ends it after its time limit, or when it prints too much",
    "library/image_digests.py": "follow() ends it after pull_seconds or stall_seconds",
    "src/glitchtip_ops/docker_stack.py": "a timer kills it when an answer takes too long",
    "src/glitchtip_ops/queue/append_log.py": "a timer kills it when the whole file takes too long",
    "library/data_versions.py": "each command begins with coreutils' timeout",
}


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def matches(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def problems(source: str, file: str = "") -> Iterator[str]:
    """A sentence for each call without a limit."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        for wanted, position in LIMITED.items():
            if not matches(name, wanted):
                continue
            given = [word.value for word in node.keywords if word.arg == "timeout"]
            if position is not None and len(node.args) > position:
                given.append(node.args[position])
            if not given or any(isinstance(value, ast.Constant) and not value.value for value in given):
                yield f"line {node.lineno}: {name} has no timeout"
            break
        if any(matches(name, wanted) for wanted in FORBIDDEN) and file not in HELD:
            yield f"line {node.lineno}: {name} cannot be limited"
        if matches(name, "subprocess.Popen") and file not in HELD:
            yield f"line {node.lineno}: {name}: say in HELD who limits it"
        if name.endswith((".wait", ".communicate")) and "process" in name and not (node.args or node.keywords):
            yield f"line {node.lineno}: {name} has no timeout"
        if matches(name, "socket.socket") and ".settimeout(" not in source:
            yield f"line {node.lineno}: {name} in a file that never calls settimeout"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_external_call_has_a_limit(path: Path) -> None:
    found = list(problems(path.read_text(), str(path.relative_to(ROOT))))
    assert found == []


def test_the_program_that_is_held_is_there() -> None:
    for file in HELD:
        text = (ROOT / file).read_text()
        assert "subprocess.Popen(" in text or "run_command(" in text, file


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(argv, check=True)",
        "subprocess.run(argv, timeout=None)",
        "subprocess.check_output(argv)",
        "subprocess.Popen(argv)",
        "self.module.run_command(argv)",
        "urllib.request.urlopen(url)",
        "self._opener.open(request)",
        "requests.get(url, headers=headers)",
        "requests.Session()",
        "socket.create_connection((host, port))",
        "smtplib.SMTP(host, port)",
        "os.system(line)",
        "self._process.wait()",
        "process.communicate()",
        "socket.socket(socket.AF_UNIX)",
    ],
)
def test_a_call_without_a_limit_is_found(line: str) -> None:
    assert list(problems(line))


@pytest.mark.parametrize(
    "line", ["subprocess.run(argv, timeout=limit)", "requests.post(u, timeout=(5, 30))", "process.wait(10)"]
)
def test_a_call_with_a_limit_passes(line: str) -> None:
    assert list(problems(line)) == []
