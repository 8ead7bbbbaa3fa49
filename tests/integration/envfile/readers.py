"""What three real readers make of ``.env`` files: dotenv for Node.js, Node.js itself, and a POSIX shell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Variables = dict[str, str]

#: Reads paths as a JSON list, answers one {"dotenv": ..., "node": ...} for each. Both read the files themselves.
_SCRIPT = """
const dotenv = require('dotenv')
const paths = JSON.parse(require('fs').readFileSync(0, 'utf8'))
const clear = () => Object.keys(process.env).forEach((name) => delete process.env[name])
const answers = paths.map((path) => {
  const seen = {}
  dotenv.config({ path, processEnv: seen, quiet: true })
  clear()
  process.loadEnvFile(path)
  return { dotenv: seen, node: { ...process.env } }
})
process.stdout.write(JSON.stringify(answers))
"""

#: Sources each file in a shell of its own that finds no command; one that dies on a file leaves no answer.
_SHELL = """
number=0
while read -r file; do
  number=$((number + 1))
  ( set -a; . "$file"; /usr/bin/env -0 > "$answers/$number" ) < /dev/null
done
"""


@dataclass(frozen=True)
class Readers:
    """The readers; ``modules`` is where dotenv is installed."""

    node: str
    modules: Path

    def read(self, paths: Sequence[Path], scratch: Path) -> list[dict[str, Variables]]:
        """For each file what each reader finds: ``{"dotenv": ..., "node": ..., "sh": ...}``; two processes for all."""
        done = subprocess.run(
            [self.node, "-e", _SCRIPT],
            cwd=self.modules,
            input=json.dumps([str(path) for path in paths]),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Variables]] = json.loads(done.stdout)
        for answer, variables in zip(found, self._shell(paths, scratch), strict=True):
            answer["sh"] = variables
        return found

    def _shell(self, paths: Sequence[Path], scratch: Path) -> list[Variables]:
        answers = scratch / "answers"
        empty = scratch / "empty"
        for directory in (answers, empty):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        subprocess.run(
            ["/bin/sh", "-c", _SHELL],
            cwd=empty,
            env={"PATH": "/nonexistent", "answers": str(answers)},
            input="".join(f"{path}\n" for path in paths).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        found = []
        for number in range(1, len(paths) + 1):
            answer = answers / str(number)
            text = answer.read_bytes().decode(errors="replace") if answer.exists() else ""
            pairs = [entry.partition("=") for entry in text.split("\0") if entry]
            own = ("PATH", "PWD", "OLDPWD", "answers", "number", "file", "_")
            found.append({name: value for name, _, value in pairs if name not in own})
        return found

    def env_file(self, path: Path, name: str) -> str | None:
        """What a program started with ``node --env-file`` finds under ``name``."""
        done = subprocess.run(
            [self.node, f"--env-file={path}", "-p", f"JSON.stringify(process.env[{name!r}] ?? null)"],
            env={},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        value: str | None = json.loads(done.stdout)
        return value


def differences(
    key: str, old: str, new: str, before: dict[str, Variables], after: dict[str, Variables]
) -> list[str]:
    """What an edit from ``old`` to ``new`` did wrong, a sentence each.

    A name that holds the key between blanks or behind other lines (Node.js 20: ``"???\\nSENTRY_DSN"``) is this very
    assignment under a name that nobody asks for, so its value moves along.
    """
    wrong = []
    mangled = re.compile(rf"(?s)(.*[\s\ufeff])?{re.escape(key)}\s*")
    for reader, was in before.items():
        now = after[reader]
        if (was.get(key) == old) != (now.get(key) == new):
            wrong.append(f"{reader} read {was.get(key)!r} and now reads {now.get(key)!r}")
        if was.keys() != now.keys():
            wrong.append(f"{reader} found {sorted(was.keys() ^ now.keys())} only once")
        wrong += [
            f"{reader} read {value!r} as {name} and now reads {now.get(name)!r}"
            for name, value in was.items()
            if name != key and not mangled.fullmatch(name) and now.get(name) != value
        ]
    return wrong
