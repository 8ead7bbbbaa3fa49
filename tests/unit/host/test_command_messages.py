"""No command fails with Ansible's "non-zero return code": each has a sentence that says what failed, why, and what to do."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from command_output import command_reason

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(
    [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/handlers/*.yml"), *ROOT.glob("playbooks/**/*.yml")]
)
COMMANDS = {
    f"{prefix}{name}" for name in ("command", "shell", "script", "raw", "expect") for prefix in ("", "ansible.builtin.")
}
FAILURES = ("ansible.builtin.fail", "ansible.builtin.assert", "fail", "assert")
IMPORTS = ("ansible.builtin.import_tasks", "ansible.builtin.include_tasks", "import_tasks", "include_tasks")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Commands that change something and whose failure stops nothing, with who reports it.
REPORTED = {
    "Tell people": "the next task prints who was not reached; a notification stops no switch",
    "Ask what would be done": "check mode alone: the tasks after it print what stands in the way",
    "Forget the failed starts": "part of a rescue, which fails in any case",
    "Start the worker again where it was stopped for the change": "part of a rescue, which fails in any case",
}


@cache
def load(path):
    return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER) or []  # noqa: S506 - a safe loader


def variables_of(path):
    role = path.parents[1]
    file = role / "vars/main.yml"
    return load(file) if file.exists() else {}


def reports_output(rescue, names):
    """Whether a rescue fails with what the command printed; ``names`` are the role's variables."""
    for task in rescue:
        for kind in FAILURES:
            if kind in task:
                text = str(task[kind]) + str(task.get("vars", ""))
                text += "".join(str(value) for name, value in dict(names).items() if name in text)
                if re.search("stderr|stdout|command_reason", text):
                    return True
    return False


def commands(path):
    """(task, whether a rescue around it reports, the tasks behind it) of every command of a file."""
    names = variables_of(path)

    def walk(tasks, rescued):
        for number, task in enumerate(tasks or []):
            if "block" in task:
                inner = rescued or reports_output(task.get("rescue") or [], names)
                yield from walk(task["block"], inner)
                yield from walk(task.get("rescue"), rescued)
                yield from walk(task.get("always"), rescued)
            elif COMMANDS & task.keys():
                yield task, rescued or path in imported_with_rescue(), tasks[number + 1 :]

    plays = [entry for entry in load(path) if "hosts" in entry]
    for play in plays:
        for part in ("pre_tasks", "tasks", "post_tasks"):
            yield from walk(play.get(part), False)
    if not plays:
        yield from walk(load(path), False)


@cache
def imported_with_rescue():
    """Files of tasks that are imported inside a block whose rescue reports what a command printed."""
    found = set()
    for path in FILES:
        for entry in load(path):
            if "block" in entry and reports_output(entry.get("rescue") or [], variables_of(path)):
                for task in entry["block"]:
                    found |= {path.parent / task[kind] for kind in IMPORTS if kind in task}
    return found


def problem(task, rescued, following):
    """What is missing; empty where nothing is."""
    if rescued:
        return ""
    if task.get("failed_when") is not False:
        return "it can fail with \"non-zero return code\": set failed_when: false and let a later task fail with a sentence"
    used = task.get("register")
    if task.get("changed_when") is False or task.get("name") in REPORTED:
        return ""  # one that reads: whoever uses the result tells good from bad
    failing = [str(later.get("when", "")) for later in following if FAILURES[0] in later]
    failing += [str(later[FAILURES[1]].get("that", "")) for later in following if FAILURES[1] in later]
    if used is not None and any(used in condition for condition in failing):
        return ""
    return f"nothing fails when {used} is bad" if used else "its result is not kept"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_fails_with_a_sentence(path):
    wrong = [f"{task.get('name')}: {text}" for task, *rest in commands(path) if (text := problem(task, *rest))]
    assert wrong == []


def test_the_commands_are_seen():
    seen = [task["name"] for path in FILES for task, *_ in commands(path)]
    assert len(seen) > 40
    assert {"Run the migrations", "Ask the repository for its index", "Order the run"} <= set(seen)


@pytest.mark.parametrize(
    ("task", "rescued", "following", "good"),
    [
        ({"command": "x"}, False, [], False),
        ({"command": "x"}, True, [], True),
        ({"command": "x", "register": "r", "failed_when": "r.rc != 0"}, False, [], False),
        ({"command": "x", "register": "r", "failed_when": False, "changed_when": True}, False, [], False),
        (
            {"command": "x", "register": "r", "failed_when": False, "changed_when": True},
            False,
            [{"ansible.builtin.fail": {"msg": "{{ r.stderr }}"}, "when": "r.rc != 0"}],
            True,
        ),
    ],
)
def test_the_rule_itself(task, rescued, following, good):
    assert (problem(task, rescued, following) == "") is good


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_sentence_never_begins_with_the_words_of_ansible(path):
    """A message made of the failed result alone repeats "non-zero return code": its output comes first."""
    text = path.read_text(encoding="utf-8")
    alone = re.findall(r"msg: *[\"']?\{\{ *ansible_failed_result\.msg *\}\}", text)
    assert alone == []


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"rc": 1, "stderr": "noise\nglitchtip-ops: the disk is full.\n", "msg": "non-zero return code"}, "the disk is full"),
        ({"rc": 1, "stderr": "", "stdout": "a\nb\n", "msg": "non-zero return code"}, "b"),
        ({"rc": 7, "stderr": " ", "stdout": "", "msg": "non-zero return code"}, "it printed nothing and ended with code 7"),
        ({"rc": 2, "msg": "[Errno 2] No such file or directory: b'docker'"}, "[Errno 2] No such file or directory: b'docker'"),
        ({"rc": 3, "stdout": '{"problems": ["a is down", "b is down."]}', "stderr": "progress"}, "a is down; b is down"),
        ({"rc": 3, "stdout": "{\n}"}, "it printed nothing and ended with code 3"),
        ({}, "it printed nothing and ended with code unknown"),
    ],
)
def test_the_reason_is_what_was_printed_last(result, said):
    assert command_reason(result) == said
