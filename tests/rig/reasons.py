"""Why a scenario failed, in few lines: of the output of a long job often only the last 1,500 characters are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: How terminals are told to colour what follows.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: What Molecule puts before each line of a playbook's output.
_MARGIN = re.compile(r"^ *[|\u2502] ?")
_TASK = re.compile(r"\s*(?:- )?['\"]?TASK \[(?:[\w-]+ : )?(.*?)\]?$")
#: Also in the output of a playbook that a task ran.
_FAILED_TASK = re.compile(r"\s*(?:- )?['\"]?((?:fatal|failed): \[[^\]]*\].*)")
_FAILED_TEST = re.compile(r"(?:FAILED (?!- RETRYING)|E  ).*")
#: What Molecule says, and the last line of a traceback of its own.
_FAILED_RUN = re.compile(r"ERROR .*|\w*(?:Error|Exception): .*")
#: A key of a task's result, as the callback prints it in YAML.
_KEY = re.compile(r"\s+(\w+):(?: (.*))?$")
_TOLD_KEYS = ("msg", "stderr")
_COUNT, _CHARACTERS = 8, 300


def reasons(log: str) -> list[str]:
    """The last failed tasks (with their message) and failed tests of a log of Molecule; what Molecule says if there is none."""
    lines = [_MARGIN.sub("", COLOUR.sub("", line)).rstrip() for line in log.splitlines()]
    found = list(dict.fromkeys(_failed(lines))) or [line for line in lines if _FAILED_RUN.match(line)]
    return [each[:_CHARACTERS] for each in found[-_COUNT:]]


def _failed(lines: list[str]) -> Iterator[str]:
    task = ""
    for number, line in enumerate(lines):
        if begun := _TASK.match(line):
            task = begun[1]
        elif failed := _FAILED_TASK.match(line):
            yield " ".join(
                filter(None, [failed[1], f"({task})" if task else "", _message(lines[number + 1 :])])
            )
        elif _FAILED_TEST.match(line):
            yield line


def _message(lines: list[str]) -> str:
    told: list[str] = []
    key = ""
    for line in lines:
        if not line or not line.startswith("  "):
            break
        if begun := _KEY.match(line):
            key, line = begun[1], begun[2] or ""
        if key in _TOLD_KEYS:
            told.append(line.strip())
    return " ".join(filter(None, told))
