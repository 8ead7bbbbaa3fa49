"""The one way in which the operator tools run another program."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glitchtip_api.errors import scrub
from glitchtip_core.process import search_path


class OpsError(Exception):
    """What is wrong, where, and what to do, in one sentence: the command prints it, exit code 1."""


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
        return scrub(lines[0])[:300] if lines else "no message"


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
        OpsError: the program cannot be started, or does not end in time. An exit code other than 0 is no
            error here.
    """
    environment = {
        "PATH": search_path(),
        "LANG": "C.UTF-8",
    }
    environment.update({name: os.environ[name] for name in ("HOME", "DOCKER_HOST") if name in os.environ})
    environment.update(env or {})
    own = user is None or (os.geteuid() == 0 and user == "root")
    try:
        account = None if own or user is None else pwd.getpwnam(user)
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env=environment,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else os.getgrouplist(account.pw_name, account.pw_gid),
            cwd=cwd,
        )
    except subprocess.TimeoutExpired:
        raise OpsError(f"{argv[0]} did not end within {timeout:.0f} s.") from None
    except (OSError, KeyError) as error:
        raise OpsError(f"{argv[0]} cannot be run{'' if own else f' as {user}'}: {error}.") from None
    return Completed(done.returncode, done.stdout, done.stderr)
