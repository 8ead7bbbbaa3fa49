#!/usr/bin/python
"""The evidence that a phase of the migration leaves on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: migration_evidence
short_description: Record or require the evidence of a phase of the migration
description:
  - Each phase ends by writing one JSON file on the host, and begins by requiring that of the phase before.
  - The time of the first recording is kept, and equal data leave the file untouched, so that a repeat
    changes nothing. Data therefore hold no timings.
  - Never put a secret into the data; they are shown in diffs.
options:
  path:
    description: Directory of this migration's evidence. Made with mode 0700 when something is written.
    type: path
    required: true
  phase:
    description: The phase to record or forget, as C(phase0) or just C(0).
    type: str
  data:
    description: What was proven. Replaces the data recorded before.
    type: dict
    default: {}
  require:
    description:
      - Phases whose evidence must exist. Missing evidence fails the task; in check mode it is only reported
        in C(missing), because a phase before may be only predicted.
    type: list
    elements: str
    default: []
  state:
    description: C(present) records the phase (nothing without O(phase)), C(absent) forgets it.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Predicts the change without writing.
    support: full
  diff_mode:
    description: Shows the recorded data before and after.
    support: full
author:
  - The maintainers of this repository (@maintainers)
"""

EXAMPLES = r"""
- name: Require the evidence of the phase before
  migration_evidence:
    path: /var/lib/glitchtip-migration/example
    require: [phase0]
  register: evidence

- name: Record what this phase has proven
  migration_evidence:
    path: /var/lib/glitchtip-migration/example
    phase: phase1
    data:
      scenarios: 10
"""

RETURN = r"""
file:
  description: The file of the phase.
  returned: when a phase was given
  type: str
  sample: /var/lib/glitchtip-migration/example/phase1.json
recorded_at:
  description: When the phase was recorded first (UTC).
  returned: when a phase was given and its state is present
  type: str
  sample: "2026-01-11T06:00:00Z"
evidence:
  description: Phase -> data of the required phases that exist.
  returned: always
  type: dict
  sample: {phase0: {memory_ok: true}}
missing:
  description: Required phases without evidence (not empty only in check mode).
  returned: always
  type: list
  elements: str
  sample: []
"""

import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


class EvidenceError(Exception):
    """Evidence that cannot be read or written; its text is one sentence for the operator."""


def phase_name(text: str) -> str:
    """Return the canonical name of a phase: ``0`` and ``phase0`` are the same.

    Raises EvidenceError for a name that would not be a plain file name.
    """
    name = text.strip()
    if re.match(r"^\d+$", name):
        name = "phase" + name
    if not re.match(r"^[a-z][a-z0-9_-]*$", name):
        raise EvidenceError(f"'{text}' is not the name of a phase: use phase0 to phase5.")
    return name


def load(file: Path) -> dict[str, Any] | None:
    """Return a recorded document, None where there is none.

    Raises EvidenceError when the file exists and is no evidence: then nobody knows what was proven.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise EvidenceError(f"The evidence {file} cannot be read: {error}.") from None
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("data"), dict):
        raise EvidenceError(f"The evidence {file} is damaged: remove it and run that phase again.")
    return document


def merge(previous: dict[str, Any] | None, phase: str, data: dict[str, Any], now: str) -> dict[str, Any]:
    """Return the document to keep: the previous where the data are equal, else one with the first time."""
    if previous is None:
        return {"phase": phase, "recorded_at": now, "data": data}
    if previous["data"] == data and previous.get("phase") == phase:
        return previous
    return {"phase": phase, "recorded_at": previous.get("recorded_at", now), "updated_at": now, "data": data}


def write(file: Path, document: dict[str, Any]) -> None:
    """Write a document atomically with mode 0600 into a directory of mode 0700; it survives a power cut."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(prefix="." + file.name + ".", dir=str(file.parent))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=2, sort_keys=True, ensure_ascii=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(scratch, 0o600)
        os.replace(scratch, str(file))
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    sync_directory(file.parent)


def sync_directory(directory: Path) -> None:
    """Make a rename or a removal in the directory survive a power cut."""
    descriptor = os.open(str(directory), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def required(directory: Path, phases: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return (phase -> data, phases without evidence)."""
    evidence: dict[str, Any] = {}
    missing = []
    for phase in phases:
        document = load(directory / f"{phase}.json")
        if document is None:
            missing.append(phase)
        else:
            evidence[phase] = document["data"]
    return evidence, missing


def missing_sentence(directory: Path, missing: list[str]) -> str:
    """Return the sentence for phases that were not completed."""
    listed = " and ".join(missing)
    verb = "has" if len(missing) == 1 else "have"
    return (
        f"{listed} {verb} not been completed on this host for this migration (no evidence in {directory}): "
        f"run the playbook of {missing[0]} first."
    )


def tighten(directory: Path, file: Path, check: bool) -> bool:
    """Give directory and file their modes back; return whether that was (or would be) a change."""
    changed = False
    for place, mode in ((directory, 0o700), (file, 0o600)):
        if place.exists() and place.stat().st_mode & 0o7777 != mode:
            changed = True
            if not check:
                place.chmod(mode)
    return changed


def act(options: dict[str, Any], check: bool, now: str) -> dict[str, Any]:
    """Do what the options ask for and return the module's result; raises EvidenceError."""
    directory = Path(options["path"])
    evidence, missing = required(directory, [phase_name(name) for name in options["require"]])
    result: dict[str, Any] = {"changed": False, "evidence": evidence, "missing": missing}
    if missing and not check:
        raise EvidenceError(missing_sentence(directory, missing))
    if missing:
        result["msg"] = missing_sentence(directory, missing)
    if not options["phase"]:
        return result
    phase = phase_name(options["phase"])
    file = directory / f"{phase}.json"
    result["file"] = str(file)
    previous = load(file)
    before = previous["data"] if previous else {}
    if options["state"] == "absent":
        result["changed"] = previous is not None
        result["diff"] = difference(file, before, {})
        if previous is not None and not check:
            file.unlink()
            sync_directory(directory)
        return result
    document = merge(previous, phase, options["data"], now)
    result["changed"] = document != previous
    result["recorded_at"] = document["recorded_at"]
    result["diff"] = difference(file, before, document["data"])
    if result["changed"] and not check:
        write(file, document)
    result["changed"] = tighten(directory, file, check) or result["changed"]
    return result


def difference(file: Path, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the data before and after in the form that Ansible prints."""
    return {"before_header": str(file), "after_header": str(file), "before": before, "after": after}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "phase": {"type": "str"},
            "data": {"type": "dict", "default": {}},
            "require": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "absent", ["phase"])],
        supports_check_mode=True,
    )
    try:
        result = act(module.params, module.check_mode, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    except (EvidenceError, OSError) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(**result)


if __name__ == "__main__":
    main()
