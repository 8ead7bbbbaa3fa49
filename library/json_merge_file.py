#!/usr/bin/python
"""A JSON settings file in which only some keys are ours."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: json_merge_file
short_description: Merge keys into a JSON file and keep all others
description:
  - Merges a dictionary into the object of a JSON file, dictionary by dictionary; other values are
    replaced. Keys that are not named stay as they are.
  - A file that is not a JSON object is refused and not touched.
  - A file that already says the same is not rewritten, whatever its layout.
options:
  path:
    description: The file. It is made where it does not exist; its directory must exist.
    type: path
    required: true
  merge:
    description: What the file must hold.
    type: dict
    required: true
  mode:
    description: Mode of a file that is made; the mode of an existing file is kept.
    type: str
    default: "0644"
  validate:
    description: A command that accepts the new file, C(%s) stands for its path; if it refuses, the old stays.
    type: str
  backup:
    description: Keep a copy of the old file when it changes.
    type: bool
    default: false
attributes:
  check_mode:
    description: Predicts the change; the new content is not validated then.
    support: full
  diff_mode:
    description: Shows the merged keys before and after; keys of others are not shown.
    support: full
author:
  - The maintainers of this repository (@maintainers)
"""

EXAMPLES = r"""
- name: Rotate the containers' logs
  json_merge_file:
    path: /etc/docker/daemon.json
    merge:
      log-driver: json-file
      log-opts: {max-size: 10m, max-file: "3"}
    validate: dockerd --validate --config-file=%s
    backup: true
"""

RETURN = r"""
keys:
  description: The keys at the top that were added or changed.
  returned: always
  type: list
  elements: str
  sample: [log-driver, log-opts]
backup_file:
  description: The copy of the file before.
  returned: when one was made
  type: str
  sample: /etc/docker/daemon.json.2204.2026-01-11@06:00:00~
"""

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_core.text import printable_module

VALIDATE_SECONDS = 60


class MergeError(Exception):
    """A file that cannot be merged; its text is one sentence for the operator."""


def merge(current: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return a new object with the wanted keys merged in, dictionary by dictionary."""
    merged = dict(current)
    for key, value in wanted.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def parse(path: Path, text: str) -> dict[str, Any]:
    """Return the object that a file holds; an empty file is the empty object.

    Raises MergeError for anything but a JSON object.
    """
    if not text.strip():
        return {}
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise MergeError(
            f"{path} is not valid JSON (line {error.lineno}, column {error.colno}): "
            "repair it by hand, it was not touched."
        ) from None
    if not isinstance(document, dict):
        raise MergeError(f"{path} holds no JSON object: repair it by hand, it was not touched.")
    return document


def prepare(module: AnsibleModule, path: Path, document: dict[str, Any], validate: str | None) -> str:
    """Write the new content into a scratch file and return its path once the validator accepted it.

    Raises MergeError when it was refused.
    """
    descriptor, scratch = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=2, ensure_ascii=False)
        stream.write("\n")
    if validate:
        command = [word.replace("%s", scratch) for word in shlex.split(validate)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=VALIDATE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise MergeError(
                f"{command[0]} did not judge the new content of {path} within {VALIDATE_SECONDS} s; it was not touched. "
                "Run the command by hand to see why it hangs."
            ) from None
        except OSError as error:
            raise MergeError(f"{command[0]} cannot be run: {error.strerror}; {path} was not touched") from None
        if done.returncode != 0:
            reason = (done.stderr or done.stdout).strip().splitlines()
            said = reason[-1].replace(scratch, str(path)) if reason else f"exit code {done.returncode}"
            raise MergeError(f"{command[0]} refuses the new content of {path}, it was not touched: {said}")
    return str(scratch)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "merge": {"type": "dict", "required": True},
            "mode": {"type": "str", "default": "0644"},
            "validate": {"type": "str"},
            "backup": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    printable_module(module)
    path = Path(module.params["path"])
    wanted = module.params["merge"]
    result: dict[str, Any] = {}
    try:
        exists = path.exists()
        current = parse(path, path.read_text(encoding="utf-8")) if exists else {}
        merged = merge(current, wanted)
        keys = sorted(key for key in wanted if current.get(key) != merged[key] or key not in current)
        changed = bool(keys) or not exists
        if changed and not module.check_mode:
            scratch = prepare(module, path, merged, module.params["validate"])
            if exists and module.params["backup"]:
                result["backup_file"] = module.backup_local(str(path))
            module.atomic_move(scratch, str(path))
            if not exists:  # a moved file got the mode of the umask
                path.chmod(int(module.params["mode"], 8))
    except (MergeError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(
        changed=changed,
        keys=keys,
        diff={
            "before_header": str(path),
            "after_header": str(path),
            "before": {key: current[key] for key in keys if key in current},
            "after": {key: merged[key] for key in keys},
        },
        **result,
    )


if __name__ == "__main__":
    main()
