"""The inventory of `make operator`: a copy of inventory/example, filled in as README.md says to, its vault encrypted.

Each answer replaces a variable that the example has, commented out or not; one that it does not have is an error, so the example
cannot lose a variable that an operator needs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rig.shell import ROOT, RigError, run
from rig.world import write_private

EXAMPLE = ROOT / "inventory/example"


def fill_in(text: str, answers: Mapping[str, Any]) -> str:
    """The example's main.yml with the answers in the places of its variables (keys are regular expressions of whole names).

    Raises RigError for an answer that fits no variable.
    """
    for name, value in answers.items():
        # A variable and the indented lines of its value, or its commented default on one line.
        place = re.compile(rf"^(?:# )?(?P<name>{name}):.*\n(?:[ \t]+\S.*\n)*", re.MULTILINE)
        given = yaml.safe_dump(value, default_flow_style=True, width=100_000).removesuffix("...\n").strip()
        text, count = place.subn(lambda found, given=given: f"{found['name']}: {given}\n", text)  # type: ignore[misc]
        if not count:
            raise RigError(
                f"inventory/example has no variable {name}, which an operator must be able to set."
            )
    return text


def secrets(text: str, answers: Mapping[str, str]) -> str:
    """vault.example.yml with every value replaced. Raises RigError for a variable without an answer, or an answer that fits none."""
    filled: dict[str, str] = {}
    used: set[str] = set()
    for name in yaml.safe_load(text):
        fitting = [pattern for pattern in answers if re.fullmatch(pattern, name)]
        if not fitting:
            raise RigError(f"The vault of the example asks for {name}, and nothing is known for it.")
        filled[name] = answers[fitting[0]]
        used.add(fitting[0])
    if unused := answers.keys() - used:
        raise RigError(f"The vault of the example asks for nothing like {', '.join(sorted(unused))}.")
    return "---\n" + yaml.safe_dump(filled)


def hosts(text: str, variables: Mapping[str, Any]) -> str:
    """The example's hosts.yml with the server's variables set or added; the host keeps the name that it has there."""
    document = yaml.safe_load(text)
    servers = document["all"]["children"]["servers"]
    (host,) = servers["hosts"].values()
    for name, value in variables.items():
        target = servers["vars"] if name in servers.get("vars", {}) else host
        target[name] = value
    return "---\n" + yaml.safe_dump(document)


def write(
    directory: Path,
    *,
    answers: Mapping[str, Any],
    vault: Mapping[str, str],
    server: Mapping[str, Any],
    password_file: Path,
) -> None:
    """Make the inventory in ``directory``, from nothing."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(EXAMPLE, directory)
    everywhere = directory / "group_vars/all"
    main = everywhere / "main.yml"
    main.write_text(fill_in(main.read_text(), answers))
    file = directory / "hosts.yml"
    file.write_text(hosts(file.read_text(), server))
    example = everywhere / "vault.example.yml"
    plain = secrets(example.read_text(), vault)
    example.unlink()
    write_private(everywhere / "vault.yml", plain)
    run(
        [
            str(ROOT / ".venv/bin/ansible-vault"),
            "encrypt",
            f"--vault-password-file={password_file}",
            str(everywhere / "vault.yml"),
        ]
    )
