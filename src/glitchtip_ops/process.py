"""The one way in which the operator tools run another program."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glitchtip_api.errors import scrub
from glitchtip_core import process as core
from glitchtip_core.errors import CoreError
from glitchtip_core.process import search_path
from glitchtip_core.text import printable

#: There is one base of errors; this is its name here. The command prints its sentence, exit code 1.
OpsError = CoreError


@dataclass(frozen=True)
class Completed:
    """An ended program: exit code and decoded output."""

    code: int
    stdout: str
    stderr: str

    @property
    def reason(self) -> str:
        """The first line of what it complained about, without secrets, at most 300 characters."""
        lines = (self.stderr or self.stdout).strip().splitlines()
        return printable(scrub(lines[0]), " ")[:300] if lines else "no message"


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    user: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    cwd: str | None = None,
) -> Completed:
    """Run a program to its end, as ``user`` when one is given, with ``env`` added to a minimal environment.

    Secrets belong into ``stdin`` or ``env``, never into ``argv``. ``timeout`` in seconds.

    Raises:
        OpsError: the program cannot be started, does not end in time, or prints without end. An exit code
            other than 0 is no error here.
    """
    try:
        done = core.run(
            argv, environment=environment_of(env), timeout=timeout, user=user, cwd=cwd or "/", stdin=stdin
        )
    except CoreError as error:
        raise OpsError(f"{error}{'' if user is None else f' (as user {user})'}.") from None
    return Completed(done.code, done.output, done.errors)


def environment_of(further: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of programs that the tools run: a search path, the language, where Docker is, and ``further``."""
    own = {name: os.environ[name] for name in ("HOME", "DOCKER_HOST") if name in os.environ}
    return {"PATH": search_path(), "LANG": "C.UTF-8", **own, **(further or {})}
