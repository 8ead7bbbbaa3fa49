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
  - Evidence names the run (the file C(run_id), made by the first phase, removed when the run ends) and from phase 2 on the stack. Evidence
    of a run that ended, or of another stack, does not count.
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
  stack_id:
    description:
      - Id of the stack that is deployed now. It is recorded, and evidence of phase 2 and later that names another one, or none,
        counts as missing. Empty records and compares nothing.
    type: str
    default: ""
  begin:
    description: Begin a run where none is under way.
    type: bool
    default: false
  records:
    description: With C(ended), other files and directories whose content ends with the run; what does not exist is left out.
    type: list
    elements: path
    default: []
  state:
    description:
      - C(present) records the phase (nothing without O(phase)), C(absent) forgets it.
      - C(ended) ends the run. The evidence of every phase but phase 0, and O(records), are moved to a new directory below C(ended), where
        no phase reads them.
    type: str
    choices: [present, absent, ended]
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

- name: End the run, once its stack is removed
  migration_evidence:
    path: /var/lib/glitchtip-migration/example
    state: ended
    records: [/var/lib/glitchtip-ops/example]
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
  description: Required phases without evidence that counts (not empty only in check mode).
  returned: always
  type: list
  elements: str
  sample: []
run_id:
  description: Id of the run that is under way; empty where none is.
  returned: always
  type: str
  sample: 6f1c2ce0f3a94f0ab4f7d1f1c1a6a2b0
ended:
  description: Where the records of an ended run were moved; empty where there were none.
  returned: when its state is ended
  type: str
  sample: /var/lib/glitchtip-migration/example/ended/20260111T060000Z
"""

import json
import os
import re
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_core.text import printable_module

#: Id of the run that is under way.
RUN_FILE = "run_id"
#: Phases that are about the host and the image, before there is a stack in use.
WITHOUT_STACK = ("phase0", "phase1")
#: What a run leaves and the next one may not take for its own. Phase 0's is about the host, and stays.
EVIDENCE = re.compile(r"^(phase[1-9]|rollback)\.json$")
REPORTS = ("local_test.json", "local_test.md")


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


def merge(previous: dict[str, Any] | None, phase: str, data: dict[str, Any], now: str, ids: dict[str, str]) -> dict[str, Any]:
    """Return the document to keep: the previous where nothing differs, else one with the first time.

    ``ids`` names run and stack (only those that are known). Evidence of another run or stack begins anew.
    """
    fresh = {"phase": phase, "recorded_at": now, **ids, "data": data}
    if previous is None or any(previous.get(name, value) != value for name, value in ids.items()):
        return fresh
    if previous["data"] == data and previous.get("phase") == phase and ids.items() <= previous.items():
        return previous
    return {**fresh, "recorded_at": previous.get("recorded_at", now), "updated_at": now}


def write(file: Path, document: dict[str, Any]) -> None:
    """Write a document atomically with mode 0600 into a directory of mode 0700; it survives a power cut."""
    write_text(file, json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text in the same way."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(prefix="." + file.name + ".", dir=str(file.parent))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
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


def read_run_id(directory: Path) -> str:
    """Return the id of the run that is under way, empty where none is. Raises EvidenceError when it cannot be read."""
    try:
        return (directory / RUN_FILE).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise EvidenceError(f"The id of the run, {directory / RUN_FILE}, cannot be read: {error}.") from None


def why_stale(document: dict[str, Any], phase: str, run_id: str, stack_id: str) -> str:
    """Return why evidence does not count for this run and this stack; empty where it does.

    Phase 0 is about the host, phase 1 about the host and the image; records of earlier versions name no run.
    """
    if run_id and phase != "phase0" and document.get("run_id", run_id) != run_id:
        return "is evidence of a run that has ended"
    if stack_id and phase not in WITHOUT_STACK and document.get("stack_id") != stack_id:
        return "is evidence of another GlitchTip stack than the one deployed now"
    return ""


def required(directory: Path, phases: list[str], stack_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (phase -> data, phase without evidence that counts -> why it does not, empty where there is none)."""
    evidence: dict[str, Any] = {}
    missing: dict[str, str] = {}
    run_id = read_run_id(directory)
    for phase in phases:
        document = load(directory / f"{phase}.json")
        stale = "" if document is None else why_stale(document, phase, run_id, stack_id)
        if document is None or stale:
            missing[phase] = stale
        else:
            evidence[phase] = document["data"]
    return evidence, missing


def missing_sentence(directory: Path, missing: dict[str, str]) -> str:
    """Return the sentence for phases that were not completed."""
    stale = [f"{directory / phase}.json {why}" for phase, why in missing.items() if why]
    if stale:
        return f"{'; '.join(stale)}: run the playbook of {next(phase for phase, why in missing.items() if why)} again."
    listed = " and ".join(missing)
    verb = "has" if len(missing) == 1 else "have"
    return (
        f"{listed} {verb} not been completed on this host for this migration (no evidence in {directory}): "
        f"run the playbook of {next(iter(missing))} first."
    )


def begin_run(directory: Path, check: bool) -> tuple[str, bool]:
    """Return (id of the run, whether it was begun now, or would be in check mode)."""
    known = read_run_id(directory)
    if known or check:
        return known, not known
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    run_id = uuid.uuid4().hex
    write_text(directory / RUN_FILE, run_id + "\n")
    return run_id, True


def end_run(directory: Path, records: list[Path], check: bool, stamp: str) -> dict[str, Any]:
    """Move what ends with the run below ``ended``; return the module's result. The run's id goes first: from then on
    no evidence counts that could not be moved."""
    found = [path for path in sorted(directory.glob("*.json")) if EVIDENCE.match(path.name)]
    found += [directory / name for name in REPORTS if (directory / name).exists()]
    found += [path for path in records if path.exists()]
    run_file = directory / RUN_FILE
    target = directory / "ended" / stamp
    result: dict[str, Any] = {"changed": bool(found) or run_file.exists(), "ended": str(target) if found else ""}
    if check or not result["changed"]:
        return result
    if found:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        target.mkdir(mode=0o700)
    run_file.unlink(missing_ok=True)
    for path in found:
        shutil.move(str(path), str(target / path.name))
    if found:
        sync_directory(target)
    sync_directory(directory)
    return result


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
    stack_id = str(options.get("stack_id") or "")
    if options["state"] == "ended":
        records = [Path(record) for record in options.get("records") or []]
        return {**end_run(directory, records, check, re.sub(r"[-:]", "", now)), "evidence": {}, "missing": [], "run_id": ""}
    evidence, missing = required(directory, [phase_name(name) for name in options["require"]], stack_id)
    result: dict[str, Any] = {"changed": False, "evidence": evidence, "missing": list(missing)}
    if missing and not check:
        raise EvidenceError(missing_sentence(directory, missing))
    if missing:
        result["msg"] = missing_sentence(directory, missing)
    result["run_id"], begun = begin_run(directory, check) if options.get("begin") else (read_run_id(directory), False)
    if not options["phase"]:
        return {**result, "changed": begun}
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
    ids = {"run_id": result["run_id"], "stack_id": "" if phase in WITHOUT_STACK else stack_id}
    document = merge(previous, phase, options["data"], now, {name: value for name, value in ids.items() if value})
    result["changed"] = document != previous or begun
    result["recorded_at"] = document["recorded_at"]
    result["diff"] = difference(file, before, document["data"])
    if document != previous and not check:
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
            "stack_id": {"type": "str", "default": ""},
            "begin": {"type": "bool", "default": False},
            "records": {"type": "list", "elements": "path", "default": []},
            "state": {"type": "str", "choices": ["present", "absent", "ended"], "default": "present"},
        },
        required_if=[("state", "absent", ["phase"])],
        supports_check_mode=True,
    )
    printable_module(module)
    try:
        result = act(module.params, module.check_mode, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    except (EvidenceError, OSError) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(**result)


if __name__ == "__main__":
    main()
